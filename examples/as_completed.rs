//! Results in the order in which they are ready: the same three jobs in sync code and in async code.
//!
//! ```text
//! cargo run --example as_completed
//! ```
//!
//! 1. Counts the lines of some files, one of which is not there: tags, and errors of one's own.
//! 2. Adds up the sizes of a whole folder tree: new jobs are pushed while results come.
//! 3. Waits no longer than it has to: a time limit, and what to do with the rest.
//!
//! It checks itself: the exit status is 1 if the two ways differ.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use futurepool::{JoinHandle, Tagged, ThreadPool, as_completed};
use futures::StreamExt;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let pool = ThreadPool::new(4);

    println!("lines of files");
    let counted = lines_sync(&pool);
    // Any runtime will do, such as tokio's. This is for programs that have none.
    same(&counted, &futurepool::block_on(lines_async(&pool)))?;
    println!("  {} lines; {}", counted.lines, counted.errors.join("; "));

    println!("size of a tree");
    let size = tree_sync(&pool)?;
    same(size, futurepool::block_on(tree_async(&pool))?)?;
    println!("  {} folders, {} bytes", size.folders, size.bytes);

    println!("a time limit");
    let report = limit_sync(&pool)?;
    same(&report, &futurepool::block_on(limit_async(&pool))?)?;
    println!("  {report}");

    // In async code this makes the drop of the pool instant; here it is what the drop would do.
    pool.shutdown().join();
    Ok(())
}

// ---- 1. tags and errors -----------------------------------------------------------------------------------

const FILES: [&str; 4] = ["Cargo.toml", "README.md", "src/missing.rs", "src/lib.rs"];

fn count_lines(file: &str) -> io::Result<usize> {
    let text = fs::read_to_string(root().join(file))?;
    Ok(text.lines().count())
}

/// A job for each file, with the file's name as its tag: `as_completed` gives it back with the result.
fn count_all(pool: &ThreadPool) -> Vec<Tagged<&'static str, JoinHandle<io::Result<usize>>>> {
    FILES
        .map(|file| pool.submit(move || count_lines(file)).tag(file))
        .into()
}

#[derive(Debug, Default, PartialEq)]
struct Counted {
    lines: usize,
    errors: Vec<String>,
}

fn lines_sync(pool: &ThreadPool) -> Counted {
    let mut counted = Counted::default();
    for (file, result) in as_completed(count_all(pool)) {
        // A `JoinError` (the job panicked, say) can become an `io::Error`, so that there is one kind to handle.
        match result.unwrap_or_else(|error| Err(error.into())) {
            Ok(lines) => counted.lines += lines,
            Err(error) => counted.errors.push(format!("{file}: {error}")),
        }
    }
    counted
}

async fn lines_async(pool: &ThreadPool) -> Counted {
    let mut counted = Counted::default();
    let mut results = as_completed(count_all(pool));
    while let Some((file, result)) = results.next().await {
        match result.unwrap_or_else(|error| Err(error.into())) {
            Ok(lines) => counted.lines += lines,
            Err(error) => counted.errors.push(format!("{file}: {error}")),
        }
    }
    counted
}

// ---- 2. more jobs on the way ------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Size {
    folders: u64,
    bytes: u64,
}

/// The job: the size of the files in one folder, and the folders in it, which are jobs of their own.
fn read_folder(folder: &Path) -> io::Result<(u64, Vec<PathBuf>)> {
    let (mut bytes, mut folders) = (0, Vec::new());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?; // of a link, its own
        match data.is_dir() {
            true => folders.push(entry.path()),
            false => bytes += data.len(),
        }
    }
    Ok((bytes, folders))
}

fn tree_sync(pool: &ThreadPool) -> Result<Size, Failure> {
    let mut size = Size::default();
    let submit = |folder: PathBuf| pool.submit(move || read_folder(&folder));
    let mut reading = as_completed([submit(root().join("src"))]);
    // A `for` loop would own `reading`. With `wait_next` the loop can push.
    while let Some(result) = reading.wait_next() {
        let (bytes, folders) = result??; // the job's error, then its own
        size.folders += 1;
        size.bytes += bytes;
        for folder in folders {
            reading.push(submit(folder));
        }
    }
    Ok(size)
}

async fn tree_async(pool: &ThreadPool) -> Result<Size, Failure> {
    let mut size = Size::default();
    let submit = |folder: PathBuf| pool.submit(move || read_folder(&folder));
    let mut reading = as_completed([submit(root().join("src"))]);
    while let Some(result) = reading.next().await {
        let (bytes, folders) = result??;
        size.folders += 1;
        size.bytes += bytes;
        for folder in folders {
            reading.push(submit(folder));
        }
    }
    Ok(size)
}

// ---- 3. a time limit --------------------------------------------------------------------------------------

const LIMIT: Duration = Duration::from_millis(300);

/// A job that answers at once, and two that would go on for ever. A running job cannot be stopped, only asked to end.
fn ask_all(pool: &ThreadPool) -> Vec<Tagged<&'static str, JoinHandle<&'static str>>> {
    let ask = |server| {
        while server != "near" && !futurepool::cancel_requested() {
            thread::sleep(Duration::from_millis(5));
        }
        "hello"
    };
    let servers = ["near", "far", "farther"];
    servers
        .map(|server| pool.submit(move || ask(server)).tag(server))
        .into()
}

fn limit_sync(pool: &ThreadPool) -> Result<String, Failure> {
    let mut report = Vec::new();
    let mut answers = as_completed(ask_all(pool)).timeout(LIMIT);
    // Now each item is a `Result`: what is done in time, then one error, then the end.
    while let Some(item) = answers.wait_next() {
        match item {
            Ok((server, answer)) => report.push(format!("{server}: {}", answer?)),
            Err(error) => report.push(error.to_string()),
        }
    }
    // To drop them would detach the jobs, which then run on.
    for handle in answers.into_pending() {
        report.push(format!("{} is given up", handle.key()));
        handle.get_ref().cancel();
    }
    Ok(report.join(", "))
}

async fn limit_async(pool: &ThreadPool) -> Result<String, Failure> {
    let mut report = Vec::new();
    let mut answers = as_completed(ask_all(pool)).timeout(LIMIT); // needs no runtime's timer
    while let Some(item) = answers.next().await {
        match item {
            Ok((server, answer)) => report.push(format!("{server}: {}", answer?)),
            Err(error) => report.push(error.to_string()),
        }
    }
    for handle in answers.into_pending() {
        report.push(format!("{} is given up", handle.key()));
        handle.get_ref().cancel();
    }
    Ok(report.join(", "))
}

// -----------------------------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn same<T: PartialEq + std::fmt::Debug>(sync: T, other: T) -> Result<(), Failure> {
    match sync == other {
        true => Ok(()),
        false => Err(format!("sync code got {sync:?}, async code {other:?}").into()),
    }
}
