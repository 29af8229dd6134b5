//! Draws what a pool does: which worker ran which job when, and how long each job was queued.
//!
//! ```text
//! cargo run --release --example timeline
//! cargo run --release --example timeline -- --trace trace.json --svg timeline.svg
//! cargo run --release --features process --example timeline -- --processes
//! ```
//!
//! The trace is in Chrome's format: open it in <https://ui.perfetto.dev> or `chrome://tracing`. The
//! other file is a picture for a browser.
//!
//! The data comes from the pool's [`on_job`](futurepool::ThreadPoolBuilder::on_job), which tells
//! when a job is submitted, when a worker starts it, and when and how it ends. The label of a job
//! is its colour.
//!
//! With `--processes` the jobs run in worker processes. Some of them are killed while they run, and
//! some crash. The pool's `tracing` events tell when a process is ready, and why it goes. An event
//! that a job emits in its process comes out in this process, with the number of the other.
//!
//! The example checks itself. The exit status is 1 if the recorded jobs differ from the pool's
//! metrics, or if two jobs overlap on one worker. Wrong arguments are status 2. It prints panics
//! "on purpose".

mod lanes;
mod picture;
#[cfg(feature = "process")]
mod processes;
mod recorder;
mod trace;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, thread};

use futurepool::{JobOutcome, JoinHandle, Metrics, ReturnWhen, ThreadPool, wait};

use crate::lanes::{Lane, OnLane};
use crate::recorder::{Jobs, Recorder};

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "\
Usage: timeline [OPTIONS]

--trace FILE   for Perfetto or chrome://tracing (default: timeline.json in the temporary folder)
--svg FILE     the picture (default: timeline.svg in the temporary folder)
--workers N    number of workers (default: 4)
--processes    in worker processes, with jobs that are killed, and jobs that crash
";

const NO_PROCESSES: &str = "\
--processes needs a feature: cargo run --release --features process --example timeline -- --processes";

fn main() -> ExitCode {
    // In a worker process this runs jobs, and does not return.
    #[cfg(feature = "process")]
    futurepool::process::init();
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            eprint!("timeline: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has closed standard output, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("timeline: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &Failure) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

struct Options {
    trace: PathBuf,
    svg: PathBuf,
    workers: usize,
    processes: bool,
}

impl Options {
    fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut options = Self {
            trace: env::temp_dir().join("timeline.json"),
            svg: env::temp_dir().join("timeline.svg"),
            workers: 4,
            processes: false,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => {
                    let _ = io::stdout().write_all(USAGE.as_bytes());
                    process::exit(0);
                }
                Long("trace") => options.trace = arguments.value()?.into(),
                Long("svg") => options.svg = arguments.value()?.into(),
                Long("workers") => options.workers = arguments.value()?.parse()?,
                Long("processes") if cfg!(feature = "process") => options.processes = true,
                Long("processes") => return Err(NO_PROCESSES.into()),
                _ => return Err(argument.unexpected()),
            }
        }
        if options.workers == 0 {
            return Err("--workers takes a number from 1".into());
        }
        Ok(options)
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let recorder = Arc::new(Recorder::new());
    // All jobs and callbacks have finished then, so the metrics are final.
    let metrics = if options.processes {
        in_processes(options.workers, &recorder)?
    } else {
        in_threads(options.workers, &recorder)?
    };
    let (jobs, processes) = (recorder.jobs(), recorder.processes());

    check_totals(&jobs, &metrics)?;
    let lanes = lanes::lanes(&jobs, &processes);
    for lane in &lanes {
        let checked = check_lane(lane);
        checked.map_err(|error| format!("{}: {error}", lane.name))?;
    }
    fs::write(&options.trace, trace::trace(&jobs, &lanes))?;
    fs::write(&options.svg, picture::picture(&jobs, &lanes))?;

    let end = jobs.values().map(|job| job.ended).max();
    let (count, workers) = (jobs.len(), lanes.len());
    let mut out = io::stdout().lock();
    let time = end.unwrap_or_default();
    writeln!(out, "{count} jobs on {workers} workers in {time:.1?}")?;
    if options.processes {
        let killed = lanes.iter().flat_map(|lane| &lane.processes);
        let killed = killed.filter(|life| life.was_killed).count();
        let count = processes.len();
        writeln!(out, "{count} processes, {killed} killed or crashed")?;
    }
    let (trace, svg) = (options.trace.display(), options.svg.display());
    writeln!(out, "{trace}: open it in https://ui.perfetto.dev")?;
    writeln!(out, "{svg}: open it in a browser")?;
    Ok(())
}

fn in_threads(workers: usize, recorder: &Arc<Recorder>) -> Result<Metrics, Failure> {
    let recorder = Arc::clone(recorder);
    let builder = ThreadPool::builder().max_workers(workers);
    let builder = builder.on_job(move |event| recorder.on_job(event));
    let pool = Arc::new(builder.build()?);
    mixed_load(&pool);
    pool.shutdown().join();
    Ok(pool.metrics())
}

#[cfg(feature = "process")]
fn in_processes(workers: usize, recorder: &Arc<Recorder>) -> Result<Metrics, Failure> {
    processes::run(workers, recorder)
}

#[cfg(not(feature = "process"))]
fn in_processes(_: usize, _: &Arc<Recorder>) -> Result<Metrics, Failure> {
    Err(NO_PROCESSES.into())
}

// ---- the load -----------------------------------------------------------------------------------

/// Submits a burst of jobs, then a job now and then, then jobs that wait for jobs.
fn mixed_load(pool: &Arc<ThreadPool>) {
    let mut handles = Vec::new();
    for n in 0..24 {
        handles.push(match n % 6 {
            0 => submit(pool, "long", || work(45)),
            3 => submit_nested(pool, 2),
            4 if n > 6 => submit(pool, "panics", || {
                work(12);
                panic!("on purpose");
            }),
            _ => submit(pool, "short", move || work(4 + n % 5)),
        });
    }
    let unwanted: Vec<_> = (0..6)
        .map(|_| submit(pool, "cancelled", || work(20)))
        .collect();
    work(30);
    for handle in &unwanted {
        handle.cancel();
    }
    wait(
        handles.into_iter().chain(unwanted),
        ReturnWhen::AllCompleted,
    )
    .join();

    let now_and_then = (0..20).map(|n| {
        work(5);
        submit(pool, "short", move || work(6 + n % 9))
    });
    wait(now_and_then, ReturnWhen::AllCompleted).join();

    let nested = (0..6).map(|_| submit_nested(pool, 3));
    wait(nested, ReturnWhen::AllCompleted).join();
}

fn submit(
    pool: &ThreadPool,
    label: &'static str,
    job: impl FnOnce() + Send + 'static,
) -> JoinHandle<()> {
    pool.job(job).label(label).submit()
}

/// Submits a job that waits for others. Its worker runs those that no other worker has taken.
fn submit_nested(pool: &Arc<ThreadPool>, parts: u64) -> JoinHandle<()> {
    let shared = Arc::clone(pool);
    submit(pool, "waits for its parts", move || {
        work(5);
        let parts = (0..parts).map(|n| submit(&shared, "part", move || work(8 + 3 * n)));
        wait(parts, ReturnWhen::AllCompleted).join();
    })
}

/// Blocks the worker, as a slow disk or a distant server does.
fn work(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

// ---- the check ----------------------------------------------------------------------------------

/// Checks that the recorded jobs match the metrics of the pool.
fn check_totals(jobs: &Jobs, metrics: &Metrics) -> Result<(), Failure> {
    for (outcome, counted) in [
        (JobOutcome::Completed, metrics.completed),
        (JobOutcome::Panicked, metrics.panicked),
        (JobOutcome::Cancelled, metrics.cancelled),
        (JobOutcome::Failed, metrics.failed),
    ] {
        let seen = jobs.values().filter(|job| job.outcome == Some(outcome));
        let seen = seen.count() as u64;
        if seen != counted {
            return Err(format!("{seen} {outcome:?} jobs were recorded, {counted} counted").into());
        }
    }
    let (seen, counted) = (jobs.len() as u64, metrics.submitted);
    if seen != counted {
        return Err(format!("{seen} jobs were recorded, {counted} counted").into());
    }
    for (number, job) in jobs {
        let in_order = match &job.run {
            Some(run) => job.submitted <= run.start && run.start < job.ended,
            None => job.outcome == Some(JobOutcome::Cancelled) && job.submitted <= job.ended,
        };
        if !in_order {
            return Err(format!("job {number} is recorded as {job:?}").into());
        }
    }
    Ok(())
}

/// Checks that a worker ran one job at a time, except jobs that its waiting job submitted. If it is
/// a process, checks that it was there while its jobs ran.
fn check_lane(lane: &Lane<'_>) -> Result<(), Failure> {
    let mut stack = Vec::<&OnLane<'_>>::new();
    for next in &lane.jobs {
        stack.retain(|below| below.job.ended > next.run.start);
        if let Some(below) = stack.last() {
            let (number, other) = (next.number, below.number);
            if next.job.ended > below.job.ended {
                return Err(format!("job {number} overlaps job {other}").into());
            }
            if next.job.parent != Some(other) {
                return Err(format!(
                    "job {number} runs inside job {other}, which is not its parent"
                )
                .into());
            }
        }
        stack.push(next);
        if let Some(pid) = next.run.pid {
            let mut processes = lane.processes.iter();
            let is_own = |start, end| start <= next.run.start && next.job.ended <= end;
            if !processes.any(|life| life.process.pid == pid && is_own(life.start, life.end)) {
                let number = next.number;
                return Err(
                    format!("job {number} runs in process {pid}, which is not there").into(),
                );
            }
        }
    }
    for life in &lane.processes {
        if life.process.gone.is_none() {
            return Err(format!("process {} did not go", life.process.pid).into());
        }
    }
    Ok(())
}
