//! Hashes whole directory trees in parallel, in the format of `sha256sum`.
//!
//! ```text
//! cargo run --release --example checksum -- PATH… > list    hash files and directories (default: .)
//! cargo run --release --example checksum -- --check list    verify a list; `-` is standard input
//!
//! --sorted       print in path order (with --check: in list order), not in completion order
//! --workers N    number of threads that hash
//! ```
//!
//! `sha256sum -c` reads the output, and `--check` reads the output of `sha256sum`. Links inside
//! directories and special files are skipped, as by `find -type f`. For a file that cannot be read,
//! the program prints an error and exits with status 1. Wrong arguments are status 2.
//!
//! Memory use does not depend on the size of the tree, the list or the files: only a few jobs for
//! each worker exist at a time.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, StdoutLock, Write};
use std::iter;
use std::num::{NonZero, ParseIntError};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use futurepool::{AsCompleted, JoinError, JoinHandle, Tagged, ThreadPool, as_completed};
use futures::future::Either;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, Stream, StreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest, Sha256};
use walkdir::{DirEntry, WalkDir};

const USAGE: &str = "\
Usage: checksum [--sorted] [--workers N] [PATH]...
       checksum [--sorted] [--workers N] --check FILE
";

/// Jobs in flight for each worker: enough to keep it busy while the main thread walks and prints.
const JOBS_PER_WORKER: usize = 4;

/// The size of the buffers for input and for output, in bytes.
const BUFFER: usize = 64 * 1024;

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            let _ = write!(io::stderr(), "checksum: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        // The reader has closed the pipe, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => drop(writeln!(io::stderr(), "checksum: {error}")),
    }
    ExitCode::FAILURE
}

#[derive(Default)]
struct Options {
    paths: Vec<PathBuf>,
    check: Option<PathBuf>,
    sorted: bool,
    workers: Option<NonZero<usize>>,
}

impl Options {
    fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => {
                    let _ = io::stdout().write_all(USAGE.as_bytes());
                    process::exit(0);
                }
                Long("sorted") => options.sorted = true,
                Long("workers") => {
                    let most = usize::MAX;
                    let wrong =
                        |_: ParseIntError| format!("--workers takes a number from 1 to {most}");
                    let number = arguments.value()?;
                    options.workers = Some(number.parse_with(|n| n.parse().map_err(wrong))?);
                }
                Long("check") if options.check.is_none() => {
                    options.check = Some(arguments.value()?.into());
                }
                Long("check") => return Err("--check can be given once".into()),
                Value(path) => options.paths.push(path.into()),
                _ => return Err(argument.unexpected()),
            }
        }
        if options.check.is_some() && !options.paths.is_empty() {
            return Err("--check takes one FILE and no PATH".into());
        }
        if options.paths.is_empty() {
            options.paths.push(".".into());
        }
        Ok(options)
    }
}

/// Returns whether every file was read and matched. An error means that standard output failed.
fn run(options: &Options) -> io::Result<bool> {
    let workers = match options.workers {
        Some(workers) => workers.get(),
        None => ThreadPool::default().max_workers(),
    };
    let window = workers.saturating_mul(JOBS_PER_WORKER);
    let pool = ThreadPool::builder()
        .max_workers(workers)
        .queue_capacity(window.saturating_add(1)) // the window, and the job that counts files
        .build()
        .map_err(io::Error::other)?;

    let report = Report::new(options.check.is_none());
    let counting = match options.check {
        None if !report.bar.is_hidden() => Some(count(&pool, &options.paths, &report.bar)),
        _ => None,
    };
    let jobs = match options.sorted {
        true => Either::Left(FuturesOrdered::new()),
        false => Either::Right(as_completed([])),
    };
    let mut hashing = Hashing {
        pool: &pool,
        window,
        jobs,
        report,
    };
    let result = match &options.check {
        None => hash_trees(&options.paths, options.sorted, &mut hashing),
        Some(list) => check(list, &mut hashing),
    };
    let mut report = hashing.report;

    // All files are hashed, or standard output has failed. Either way no result is needed now.
    pool.shutdown_now().join();
    report.bar.finish_and_clear();
    match counting.map(JoinHandle::join) {
        Some(Err(error)) if error.is_panic() => report.complain(b"progress", error)?,
        _ => {}
    }
    result.map(|()| !report.failed)
}

/// Hashes all files of the trees.
fn hash_trees(roots: &[PathBuf], sorted: bool, hashing: &mut Hashing<'_>) -> io::Result<()> {
    for root in roots {
        for file in files(root, sorted) {
            match file {
                Ok(file) => hashing.submit(name_of(file.path()), None, file.into_path())?,
                Err(error) => {
                    let name = name_of(error.path().unwrap_or(root));
                    let reason = error.io_error().map(ToString::to_string);
                    let reason = reason.unwrap_or_else(|| error.to_string());
                    hashing.report.complain(&name, reason)?;
                }
            }
        }
    }
    hashing.finish()
}

/// Walks the files of one tree lazily.
fn files(root: &Path, sorted: bool) -> impl Iterator<Item = walkdir::Result<DirEntry>> + use<> {
    let mut walk = WalkDir::new(root);
    if sorted {
        walk = walk.sort_by(|a, b| sort_key(a).cmp(sort_key(b)));
    }
    walk.into_iter().filter(|entry| match entry {
        // A path that the user named is read whatever its type, and through links.
        Ok(entry) if entry.depth() == 0 => !entry.path().is_dir(),
        Ok(entry) => entry.file_type().is_file(),
        Err(_) => true,
    })
}

/// Returns a key that sorts the entries of one directory so that the whole tree is in path order.
///
/// The paths inside the directory `a` start with `a/`, which sorts after `a-b` and `a.txt`.
fn sort_key(entry: &DirEntry) -> impl Iterator<Item = u8> {
    let name = entry.file_name().as_encoded_bytes();
    let slash = entry.file_type().is_dir().then_some(b'/');
    name.iter().copied().chain(slash)
}

/// Counts files and bytes for the progress bar, in a job.
fn count(pool: &ThreadPool, roots: &[PathBuf], bar: &ProgressBar) -> JoinHandle<()> {
    let (roots, bar) = (roots.to_vec(), bar.clone());
    pool.submit(move || {
        let (mut number, mut bytes) = (0, 0);
        for file in roots.iter().flat_map(|root| files(root, false)).flatten() {
            if futurepool::cancel_requested() {
                break;
            }
            number += 1;
            bytes += fs::metadata(file.path()).map_or(0, |data| data.len());
            bar.set_message(format!("{number}"));
            bar.set_length(bytes);
        }
    })
}

/// Verifies the files of a list, then prints the same warnings as `sha256sum`.
fn check(list: &Path, hashing: &mut Hashing<'_>) -> io::Result<()> {
    let name = name_of(list);
    let input = match open(list) {
        Ok(input) => input,
        Err(error) => return hashing.report.complain(&name, error),
    };
    let (mut good, mut bad) = (0, 0);
    for line in lines(input) {
        match line {
            Ok(line) if line.is_empty() || line.starts_with(b"#") => {}
            Ok(line) => match parse(&line) {
                Some((name, digest)) => {
                    good += 1;
                    let path = path_of(&name);
                    hashing.submit(name, Some(digest), path)?;
                }
                None => bad += 1,
            },
            Err(error) => {
                hashing.report.complain(&name, error)?;
                break;
            }
        }
    }
    hashing.finish()?;
    if good == 0 {
        let reason = "no properly formatted checksum lines found";
        return hashing.report.complain(&name, reason);
    }
    let report = &hashing.report;
    report.warn(bad, |s, are| format!("line{s} {are} improperly formatted"));
    report.warn(report.unreadable, |s, _| {
        format!("listed file{s} could not be read")
    });
    report.warn(report.mismatched, |s, _| {
        format!("computed checksum{s} did NOT match")
    });
    Ok(())
}

fn open(list: &Path) -> io::Result<Box<dyn BufRead>> {
    if list == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(BufReader::new(File::open(list)?)))
}

/// Reads the lines of a list lazily, without their line endings.
fn lines(mut input: impl BufRead) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    let mut next = move || {
        let mut line = Vec::new();
        // The user may name any file by mistake, even one with a single huge line.
        let read = input
            .by_ref()
            .take(BUFFER as u64)
            .read_until(b'\n', &mut line)?;
        if read == BUFFER && line.last() != Some(&b'\n') {
            input.skip_until(b'\n')?;
        }
        for end in b"\n\r" {
            if line.last() == Some(end) {
                line.pop();
            }
        }
        Ok((read > 0).then_some(line))
    };
    iter::from_fn(move || next().transpose())
}

/// Parses a line into name and hash.
///
/// The line is `HASH  NAME`, `HASH *NAME` or `SHA256 (NAME) = HASH`, after a backslash if the name
/// is escaped.
fn parse(line: &[u8]) -> Option<(Vec<u8>, String)> {
    let line = line.trim_ascii_start();
    let unmarked = line.strip_prefix(b"\\");
    let line = unmarked.unwrap_or(line);
    let (name, digest) = match line.strip_prefix(b"SHA256 (") {
        Some(line) => {
            // The last parenthesis, because the name may contain others.
            let close = line.iter().rposition(|&byte| byte == b')')?;
            let digest = line[close + 1..].trim_ascii_start().strip_prefix(b"=")?;
            (&line[..close], digest.trim_ascii_start())
        }
        None => {
            let (digest, name) = line.split_at_checked(64)?;
            let name = name.strip_prefix(b"  ").or(name.strip_prefix(b" *"))?;
            (name, digest)
        }
    };
    if name.is_empty() || digest.len() != 64 || !digest.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let name = match unmarked {
        Some(_) => unescape(name)?,
        None => name.to_vec(),
    };
    Some((name, String::from_utf8(digest.to_ascii_lowercase()).ok()?))
}

/// The tag of a job: the file's name and, if it came from a list, the hash in that list.
struct Task {
    name: Vec<u8>,
    expected: Option<String>,
}

type Job = Tagged<Task, JoinHandle<io::Result<String>>>;
type Hash = Result<io::Result<String>, JoinError>;

/// The jobs in flight, and the report of their results.
struct Hashing<'a> {
    pool: &'a ThreadPool,
    window: usize,
    jobs: Either<FuturesOrdered<Job>, AsCompleted<Job>>,
    report: Report,
}

impl Hashing<'_> {
    /// Submits a file. Takes a result first if the window is full.
    fn submit(&mut self, name: Vec<u8>, expected: Option<String>, path: PathBuf) -> io::Result<()> {
        if self.jobs.size_hint().0 >= self.window {
            self.take_one()?;
        }
        let bar = self.report.bar.clone();
        let job = self.pool.submit(move || hash(&path, &bar));
        let job = job.tag(Task { name, expected });
        match &mut self.jobs {
            Either::Left(sorted) => sorted.push_back(job),
            Either::Right(jobs) => jobs.push(job),
        }
        Ok(())
    }

    /// Waits for the next result and prints it. Returns `false` when no job is left.
    fn take_one(&mut self) -> io::Result<bool> {
        let next = match self.jobs.next().now_or_never() {
            Some(next) => next,
            None => {
                self.report.flush()?;
                futurepool::block_on(self.jobs.next())
            }
        };
        match next {
            Some((task, result)) => self.report.result(&task, result).map(|()| true),
            None => Ok(false),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        while self.take_one()? {}
        self.report.flush()
    }
}

/// The job: computes the SHA-256 of a file, in hexadecimal.
fn hash(path: &Path, bar: &ProgressBar) -> io::Result<String> {
    let mut file = BufReader::with_capacity(BUFFER, File::open(path)?);
    let mut hasher = Sha256::new();
    while !futurepool::cancel_requested() {
        let chunk = file.fill_buf()?;
        if chunk.is_empty() {
            let digest = hasher.finalize();
            return Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hasher.update(chunk);
        let read = chunk.len();
        file.consume(read);
        bar.inc(read as u64);
    }
    Err(io::Error::other("cancelled"))
}

/// Prints results and errors, and counts them.
struct Report {
    stdout: StdoutLock<'static>,
    is_terminal: bool,
    /// Lines that are not written yet.
    lines: Vec<u8>,
    /// Hidden unless standard error is a terminal.
    bar: ProgressBar,
    done: u64,
    unreadable: u64,
    mismatched: u64,
    /// The exit status will be 1.
    failed: bool,
}

impl Report {
    fn new(is_counted: bool) -> Self {
        let template = match is_counted {
            true => "{prefix} of {msg} files, {bytes} of {total_bytes} {wide_bar} {bytes_per_sec}",
            false => "{prefix} files, {bytes}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self {
            stdout: io::stdout().lock(),
            is_terminal: io::stdout().is_terminal(),
            lines: Vec::new(),
            bar: bar.with_style(style).with_prefix("0").with_message("0"),
            done: 0,
            unreadable: 0,
            mismatched: 0,
            failed: false,
        }
    }

    fn result(&mut self, task: &Task, result: Hash) -> io::Result<()> {
        self.done += 1;
        self.bar.set_prefix(format!("{}", self.done));
        let (mark, name) = escape(&task.name);
        // A job that panicked is reported as a file that could not be read.
        let digest = result.unwrap_or_else(|error| Err(error.into()));
        match (digest, &task.expected) {
            (Ok(digest), None) => self.line([mark, digest.as_bytes(), b"  ", &name]),
            (Ok(digest), Some(expected)) if digest == *expected => {
                self.line([mark, &name, b": ", b"OK"])
            }
            (Ok(_), Some(_)) => {
                self.mismatched += 1;
                self.failed = true;
                self.line([mark, &name, b": ", b"FAILED"])
            }
            (Err(error), None) => self.complain(&task.name, error),
            (Err(error), Some(_)) => {
                self.unreadable += 1;
                self.complain(&task.name, error)?;
                self.line([mark, &name, b": ", b"FAILED open or read"])
            }
        }
    }

    fn line(&mut self, parts: [&[u8]; 4]) -> io::Result<()> {
        self.lines.extend(parts.concat());
        self.lines.push(b'\n');
        if self.lines.len() >= BUFFER || self.is_terminal {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the buffered lines. Called before each wait, so that results appear in time.
    fn flush(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let (stdout, lines) = (&mut self.stdout, &self.lines);
        let mut write = || stdout.write_all(lines).and_then(|()| stdout.flush());
        // On a terminal, hide the bar while lines are written.
        let written = match self.is_terminal {
            true => self.bar.suspend(write),
            false => write(),
        };
        self.lines.clear();
        written.map_err(|error| io::Error::new(error.kind(), format!("standard output: {error}")))
    }

    /// Prints an error, after the lines of earlier results.
    fn complain(&mut self, name: &[u8], reason: impl Display) -> io::Result<()> {
        self.failed = true;
        self.flush()?;
        // A panic message may have several lines.
        let reason = format!(": {reason}").replace('\n', " ");
        self.error_line(&[escape(name).1, reason.into()].concat());
        Ok(())
    }

    fn warn(&self, number: u64, what: impl Fn(&str, &str) -> String) {
        let what = match number {
            0 => return,
            1 => what("", "is"),
            _ => what("s", "are"),
        };
        self.error_line(format!("WARNING: {number} {what}").as_bytes());
    }

    fn error_line(&self, text: &[u8]) {
        let line = [b"checksum: ", text, b"\n"].concat();
        // If standard error is closed, the message is lost.
        let _ = self.bar.suspend(|| io::stderr().write_all(&line));
    }
}

/// The bytes that must be escaped, each with its letter.
const ESCAPES: [(u8, u8); 3] = [(b'\\', b'\\'), (b'\n', b'n'), (b'\r', b'r')];

/// Returns the mark that a line with this name begins with, and the escaped name.
fn escape(name: &[u8]) -> (&'static [u8], Vec<u8>) {
    let mut escaped = Vec::with_capacity(name.len());
    for &byte in name {
        match ESCAPES.iter().find(|escape| escape.0 == byte) {
            Some(&(_, letter)) => escaped.extend([b'\\', letter]),
            None => escaped.push(byte),
        }
    }
    let changed = escaped.len() > name.len();
    let mark: &[u8] = if changed { b"\\" } else { b"" };
    (mark, escaped)
}

fn unescape(escaped: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'\\' {
            let letter = bytes.next()?;
            name.push(ESCAPES.iter().find(|escape| escape.1 == *letter)?.0);
        } else {
            name.push(byte);
        }
    }
    Some(name)
}

/// Returns the bytes of a path, which need not be text.
///
/// On Windows, each `\` becomes a `/`, which needs no escape in a list.
fn name_of(path: &Path) -> Vec<u8> {
    let name = path.as_os_str().as_encoded_bytes().iter();
    name.map(|&byte| {
        if cfg!(windows) && byte == b'\\' {
            b'/'
        } else {
            byte
        }
    })
    .collect()
}

#[cfg(unix)]
fn path_of(name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(name).into()
}

#[cfg(not(unix))]
fn path_of(name: &[u8]) -> PathBuf {
    String::from_utf8_lossy(name).into_owned().into()
}
