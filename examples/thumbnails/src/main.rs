//! Makes thumbnails of all images in a folder, in worker processes.
//!
//! ```text
//!  find files ─► read ─► task in a worker process ─► write, then rename
//!                           time limit, memory limit
//! ```
//!
//! A file that crashes its decoder, or does not end, or takes too much memory, costs its worker.
//! The pool replaces the worker, and the other files are done.

mod images;
mod legacy;
mod options;
mod pool;
mod report;
mod samples;

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use futurepool::{
    AsCompleted, JoinError, JoinHandle, Promise, Tagged, TaskExecutorExt, block_on, promise,
};
use futures::StreamExt;
use futures::future::{Either, select};
use walkdir::WalkDir;

use self::images::{is_image, thumbnail};
use self::options::{Command, Options, USAGE};
use self::pool::Pool;
use self::report::{Failure, Report};
use self::samples::in_file;

/// Files in flight for each worker: one that runs, and one that is ready to run. The program keeps
/// so many files in memory.
const FILES_PER_WORKER: usize = 2;

fn main() -> ExitCode {
    // The first line: in a worker process, this call runs tasks and does not return.
    futurepool::process::init();

    let command = match Command::parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(error) => {
            let _ = write!(io::stderr(), "thumbnails: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::MakeThumbnails(options) => run(&options),
        Command::MakeSamples(samples, folder) => match samples.make(&folder) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(error.into()),
        },
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "thumbnails: {error}");
        ExitCode::FAILURE
    })
}

/// Makes all thumbnails, until it is told to stop.
fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    fs::create_dir_all(&options.out).map_err(|error| in_file(&options.out, &error))?;
    let files = find(options)?;
    let pool = Pool::new(options)?;
    let mut stop = stop(options.deadline)?;
    let mut report = Report::new(files.len());

    let window = options.workers.get().saturating_mul(FILES_PER_WORKER);
    let mut files = files.into_iter();
    let mut jobs = Jobs::new();
    let stopped = loop {
        while jobs.len() < window {
            let Some(file) = files.next() else { break };
            let file = match file {
                Ok(file) => file,
                Err(error) => {
                    let path = error.path().unwrap_or(&options.folder).to_owned();
                    report.file(&path, Err(Failure::new("cannot read", error)));
                    continue;
                }
            };
            match fs::read(options.folder.join(&file)) {
                Ok(image) => {
                    let call = thumbnail::call(image, options.width);
                    let call = call.label(file.display().to_string());
                    jobs.push(pool.executor().submit_task(call).tag(file));
                }
                Err(error) => report.file(&file, Err(Failure::new("cannot read", error))),
            }
        }
        match next(&mut jobs, &mut stop) {
            Next::Finished(file, result) => {
                let result = result.and_then(|png| write(&options.out, &file, &png));
                report.file(&file, result);
            }
            Next::AllFinished => break None,
            Next::Stopped(why) => break Some(why),
        }
    };

    let Some(why) = stopped else {
        return Ok(match report.finish() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        });
    };
    let missing = jobs.len() + files.len();
    let running = pool.stop();
    report.line(format_args!("{}; files not done: {missing}", why.text()));
    if running > 0 {
        let text = "tasks that run on, because a thread cannot be stopped";
        report.line(format_args!("{text}: {running}"));
    }
    report.finish();
    Ok(why.exit_code())
}

/// Returns the images in the folder, as paths below it, and what could not be read.
fn find(options: &Options) -> io::Result<Vec<walkdir::Result<PathBuf>>> {
    let error = |error| in_file(&options.folder, &error);
    fs::read_dir(&options.folder).map_err(error)?;
    let out = fs::canonicalize(&options.out)?;
    if fs::canonicalize(&options.folder)? == out {
        return Err(io::Error::other("FOLDER and OUT are the same"));
    }
    // The output of an earlier run is no input, even if it is inside of the folder.
    let is_out = |path: &Path| fs::canonicalize(path).is_ok_and(|path| path == out);
    let walk = WalkDir::new(&options.folder).sort_by_file_name();
    let entries = walk
        .into_iter()
        .filter_entry(|entry| !entry.file_type().is_dir() || !is_out(entry.path()))
        .filter(|entry| {
            entry.as_ref().map_or(true, |entry| {
                let extension = entry.path().extension().and_then(|text| text.to_str());
                entry.file_type().is_file() && extension.is_some_and(is_image)
            })
        });
    let below = |path: &Path| match path.strip_prefix(&options.folder) {
        Ok(below) => below.to_owned(),
        Err(_) => unreachable!("the walk stays below the folder"),
    };
    Ok(entries
        .map(|entry| entry.map(|entry| below(entry.path())))
        .collect())
}

type Jobs = AsCompleted<Tagged<PathBuf, JoinHandle<Result<Vec<u8>, String>>>>;

enum Next {
    Finished(PathBuf, Result<Vec<u8>, Failure>),
    AllFinished,
    Stopped(Stop),
}

/// Waits for the next result, or for the end of the run.
fn next(jobs: &mut Jobs, stop: &mut JoinHandle<Stop>) -> Next {
    // A poll of `stop` that was ready is the last one, since the run ends then.
    match block_on(select(stop, jobs.next())) {
        Either::Left((why, _)) => Next::Stopped(why.unwrap_or(Stop::Interrupted)),
        Either::Right((Some((file, result)), _)) => Next::Finished(file, flatten(result)),
        Either::Right((None, _)) => Next::AllFinished,
    }
}

/// Makes one error of the two: the error of the job, and the error of the task in it.
fn flatten(result: Result<Result<Vec<u8>, String>, JoinError>) -> Result<Vec<u8>, Failure> {
    result?.map_err(|reason| Failure::new("cannot decode", reason))
}

/// Writes a thumbnail. The file appears with its whole content, or not at all.
fn write(out: &Path, file: &Path, png: &[u8]) -> Result<(), Failure> {
    let named = |extension: &str| {
        let mut path = OsString::from(out.join(file));
        path.push(extension);
        PathBuf::from(path)
    };
    let (part, path) = (named(".png.part"), named(".png"));
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&part, png)?;
        fs::rename(&part, &path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&part);
        Failure::new("cannot write", in_file(&path, &error))
    })
}

/// Why the run ends early.
enum Stop {
    Interrupted,
    Deadline,
}

impl Stop {
    fn text(&self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::Deadline => "the deadline has passed",
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Interrupted => ExitCode::from(INTERRUPTED),
            Self::Deadline => ExitCode::FAILURE,
        }
    }
}

/// The exit status after Ctrl-C: 128, and the number of the signal.
const INTERRUPTED: u8 = 130;

/// Returns a handle that resolves at Ctrl-C, at SIGTERM, or at the deadline.
///
/// A promise turns the callback into a handle, which can be awaited beside the jobs.
fn stop(deadline: Option<Duration>) -> Result<JoinHandle<Stop>, Box<dyn Error>> {
    let (promise, handle) = promise();
    let promise = Arc::new(Mutex::new(Some(promise)));
    let take = |promise: &Mutex<Option<Promise<Stop>>>| {
        promise
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    };
    let for_handler = Arc::clone(&promise);
    ctrlc::set_handler(move || match take(&for_handler) {
        Some(promise) => drop(promise.complete(Stop::Interrupted)),
        // The second Ctrl-C. Workers end with the program.
        None => process::exit(INTERRUPTED.into()),
    })?;
    if let Some(deadline) = deadline {
        thread::spawn(move || {
            thread::sleep(deadline);
            if let Some(promise) = take(&promise) {
                drop(promise.complete(Stop::Deadline));
            }
        });
    }
    Ok(handle)
}
