//! Compares `futurepool::Unblock` with `blocking::Unblock` and `tokio::fs::File`.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin unblock
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin unblock -- --quick
//! ```
//!
//! The participants alternate round by round, so a disturbance of the machine affects all alike. A
//! row shows the minimum and the median of each participant, and the ratio of its minimum to that
//! of futurepool: above 1.00 it is slower. Compare only ratios within one run.
//!
//! All participants run under `block_on` of the same tokio runtime. The files are in the page
//! cache, so the rows show what the adapters cost, not the disk.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures::stream::{Stream, StreamExt};
use lexopt::prelude::*;
use tokio::runtime::Runtime;

const HELP: &str = "\
Compares futurepool::Unblock with blocking::Unblock and tokio::fs::File.

  --quick         run a sixteenth of the work; a smoke test
  --rounds N      run N rounds (default: 15, with --quick 3)
  --row NAME,…    run only the rows whose name contains one of these
  --dir DIR       where to put the files (default: the system's directory for temporary files)
  --help          print this help
";

struct Options {
    quick: bool,
    rounds: usize,
    rows: Vec<String>,
    directory: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => run(&options).map_err(|error| error.to_string()),
        Ok(None) => {
            print!("{HELP}");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unblock: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns `None` if the help was asked for.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut quick = false;
    let mut rounds = None;
    let mut rows = Vec::new();
    let mut directory = std::env::temp_dir();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => quick = true,
            Long("rounds") => {
                let count: usize = parser.value()?.parse()?;
                if count == 0 {
                    return Err("--rounds: must be at least 1".into());
                }
                rounds = Some(count);
            }
            Long("row") => {
                for name in parser.value()?.string()?.split(',') {
                    if !ROWS.iter().any(|row| row.name.contains(name)) {
                        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
                        let known = names.join("; ");
                        return Err(format!("no row contains {name:?}; the rows: {known}").into());
                    }
                    rows.push(name.to_owned());
                }
            }
            Long("dir") => directory = parser.value()?.into(),
            Long("help") | Short('h') => return Ok(None),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Some(Options {
        quick,
        rounds: rounds.unwrap_or(if quick { 3 } else { 15 }),
        rows,
        directory,
    }))
}

#[derive(Clone, Copy, PartialEq)]
enum Participant {
    Futurepool,
    Blocking,
    Tokio,
}

const PARTICIPANTS: [Participant; 3] = [
    Participant::Futurepool,
    Participant::Blocking,
    Participant::Tokio,
];

#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    work: Work,
}

#[derive(Clone, Copy)]
enum Work {
    /// Reads a file with a buffer of this size.
    Read(usize),
    /// Writes a file in pieces of this size, then flushes.
    Write(usize),
    /// Reads a pipe that a thread fills.
    Pipe(usize),
    /// Takes the items of an iterator.
    Items,
}

const ROWS: [Row; 6] = [
    Row {
        name: "read, 8 KiB buffer",
        work: Work::Read(8 * 1024),
    },
    Row {
        name: "read, 256 KiB buffer",
        work: Work::Read(256 * 1024),
    },
    Row {
        name: "write, 8 KiB pieces",
        work: Work::Write(8 * 1024),
    },
    Row {
        name: "write, 256 KiB pieces",
        work: Work::Write(256 * 1024),
    },
    Row {
        name: "pipe, 64 KiB buffer",
        work: Work::Pipe(64 * 1024),
    },
    Row {
        name: "iterator",
        work: Work::Items,
    },
];

struct Bench {
    runtime: Runtime,
    path: PathBuf,
    bytes: usize,
    items: u64,
}

fn run(options: &Options) -> io::Result<()> {
    let scale = if options.quick { 16 } else { 1 };
    let name = format!("futurepool-unblock-{}", std::process::id());
    let bench = Bench {
        runtime: tokio::runtime::Builder::new_multi_thread().build()?,
        path: options.directory.join(name),
        bytes: 256 * 1024 * 1024 / scale,
        items: 1_000_000 / scale as u64,
    };
    let _remove = RemoveFile(&bench.path);
    let mut file = File::create(&bench.path)?;
    let block = vec![7; 1024 * 1024];
    for _ in 0..bench.bytes / block.len() {
        file.write_all(&block)?;
    }
    println!(
        "{} MiB, {} items, {} rounds; minimum, median, ratio of the minimum to futurepool's",
        bench.bytes / 1024 / 1024,
        bench.items,
        options.rounds
    );
    println!(
        "{:<24}{:>20}{:>28}{:>28}",
        "", "futurepool", "blocking", "tokio"
    );
    for row in ROWS {
        let is_wanted = |name: &String| row.name.contains(name.as_str());
        if options.rows.is_empty() || options.rows.iter().any(is_wanted) {
            bench.run_row(row, options.rounds)?;
        }
    }
    Ok(())
}

struct RemoveFile<'a>(&'a Path);

impl Drop for RemoveFile<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

impl Bench {
    fn run_row(&self, row: Row, rounds: usize) -> io::Result<()> {
        let mut times = PARTICIPANTS.map(|_| Vec::new());
        // The first round only warms up.
        for round in 0..=rounds {
            for (participant, times) in PARTICIPANTS.into_iter().zip(&mut times) {
                // tokio has no stream over an iterator.
                if matches!((row.work, participant), (Work::Items, Participant::Tokio)) {
                    continue;
                }
                let time = self.measure(row.work, participant)?;
                if round > 0 {
                    times.push(time);
                }
            }
        }
        for times in &mut times {
            times.sort();
        }
        print!("{:<24}", row.name);
        let own = times[0][0].as_secs_f64();
        for times in &times {
            let Some(minimum) = times.first() else {
                continue;
            };
            let median = times[times.len() / 2];
            let ratio = minimum.as_secs_f64() / own;
            print!(
                "{:>8.1} {:>8.1} ms {ratio:>5.2} |",
                minimum.as_secs_f64() * 1e3,
                median.as_secs_f64() * 1e3
            );
        }
        println!();
        Ok(())
    }

    fn measure(&self, work: Work, participant: Participant) -> io::Result<Duration> {
        let begin;
        match work {
            Work::Read(size) => {
                let file = File::open(&self.path)?;
                begin = Instant::now();
                self.block_on(read(participant, file, size), self.bytes)?;
            }
            Work::Write(size) => {
                // Not truncated, so that the time is not that of allocating pages.
                let file = File::options().write(true).open(&self.path)?;
                begin = Instant::now();
                self.block_on(write(participant, file, size, self.bytes), self.bytes)?;
            }
            Work::Pipe(size) => {
                let bytes = self.bytes / 4;
                let (reader, mut writer) = io::pipe()?;
                let writing = thread::spawn(move || {
                    let block = vec![7; 64 * 1024];
                    (0..bytes / block.len()).try_for_each(|_| writer.write_all(&block))
                });
                let file = File::from(std::os::fd::OwnedFd::from(reader));
                begin = Instant::now();
                self.block_on(read(participant, file, size), bytes)?;
                writing.join().expect("it does not panic")?;
            }
            Work::Items => {
                begin = Instant::now();
                let items = 0..self.items;
                let sum = self.runtime.block_on(async {
                    match participant {
                        Participant::Futurepool => sum(futurepool::Unblock::new(items)).await,
                        _ => sum(blocking::Unblock::new(items)).await,
                    }
                });
                assert_eq!(sum, self.items * (self.items - 1) / 2);
            }
        }
        Ok(begin.elapsed())
    }

    fn block_on(
        &self,
        future: Pin<Box<dyn Future<Output = io::Result<usize>>>>,
        expected: usize,
    ) -> io::Result<()> {
        let bytes = self.runtime.block_on(future)?;
        assert_eq!(bytes, expected);
        Ok(())
    }
}

fn read(
    participant: Participant,
    file: File,
    size: usize,
) -> Pin<Box<dyn Future<Output = io::Result<usize>>>> {
    match participant {
        Participant::Futurepool => Box::pin(read_all(futurepool::Unblock::new(file), size)),
        Participant::Blocking => Box::pin(read_all(blocking::Unblock::new(file), size)),
        Participant::Tokio => Box::pin(async move {
            use tokio::io::AsyncReadExt;
            let mut file = tokio::fs::File::from_std(file);
            let mut buffer = vec![0; size];
            let mut total = 0;
            loop {
                match file.read(&mut buffer).await? {
                    0 => return Ok(total),
                    read => total += read,
                }
            }
        }),
    }
}

async fn read_all(mut reader: impl AsyncReadExt + Unpin, size: usize) -> io::Result<usize> {
    let mut buffer = vec![0; size];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer).await? {
            0 => return Ok(total),
            read => total += read,
        }
    }
}

fn write(
    participant: Participant,
    file: File,
    size: usize,
    bytes: usize,
) -> Pin<Box<dyn Future<Output = io::Result<usize>>>> {
    match participant {
        Participant::Futurepool => Box::pin(write_all(futurepool::Unblock::new(file), size, bytes)),
        Participant::Blocking => Box::pin(write_all(blocking::Unblock::new(file), size, bytes)),
        Participant::Tokio => Box::pin(async move {
            use tokio::io::AsyncWriteExt;
            let mut file = tokio::fs::File::from_std(file);
            let piece = vec![7; size];
            for _ in 0..bytes / size {
                file.write_all(&piece).await?;
            }
            file.flush().await?;
            Ok(bytes)
        }),
    }
}

async fn write_all(
    mut writer: impl AsyncWriteExt + Unpin,
    size: usize,
    bytes: usize,
) -> io::Result<usize> {
    let piece = vec![7; size];
    for _ in 0..bytes / size {
        writer.write_all(&piece).await?;
    }
    writer.flush().await?;
    Ok(bytes)
}

async fn sum(mut items: impl Stream<Item = u64> + Unpin) -> u64 {
    let mut sum = 0;
    while let Some(item) = items.next().await {
        sum += item;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<Options>, String> {
        parse(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_are_checked() {
        assert!(parsed(&["--help"]).unwrap().is_none());
        assert_eq!(parsed(&["--quick"]).unwrap().unwrap().rounds, 3);
        assert!(parsed(&["--rounds", "0"]).is_err());
        assert!(parsed(&["--row", "pipe"]).is_ok());
        let error = parsed(&["--row", "pip,tape"]).err().unwrap();
        assert!(error.starts_with("no row contains \"tape\"; the rows: read, 8 KiB"));
        assert!(parsed(&["extra"]).is_err());
    }
}
