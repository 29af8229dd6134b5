//! The tasks of the demo, and the ledger in which each of their starts is recorded.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use futurepool::task;

/// A card must not be charged twice, so this task is what tasks are by default: at most once.
#[task(name = "charge")]
pub(crate) fn charge(order: u32) -> String {
    run("charge", order, 20 + u64::from(order % 20))
}

/// Drawing a thumbnail twice does no harm, so this task runs again if its worker dies.
#[task(name = "thumbnail", idempotent, attempts = 3)]
pub(crate) fn thumbnail(image: u32) -> String {
    run("thumbnail", image, 20 + u64::from(image % 20))
}

/// Takes longer than the program lives that submits it.
#[task(name = "report")]
pub(crate) fn report(day: u32) -> String {
    run("report", day, 700)
}

/// Records the start, works for some milliseconds, and returns the name of the worker.
fn run(task: &str, number: u32, millis: u64) -> String {
    // The threads of a worker have its name: `worker-1-0`, `worker-1-1`, ….
    let thread = thread::current();
    let name = thread.name().unwrap_or("?");
    let worker = name.rsplit_once('-').map_or(name, |(worker, _)| worker);
    record(&format!("{task} {number}")).expect("the ledger can be written");
    thread::sleep(Duration::from_millis(millis));
    worker.to_owned()
}

/// The file of the ledger. Without workers in processes of their own, memory is enough.
static LEDGER: OnceLock<PathBuf> = OnceLock::new();
static MEMORY: Mutex<String> = Mutex::new(String::new());

/// Sets the file of the ledger.
pub(crate) fn use_ledger(path: PathBuf) {
    LEDGER.set(path).expect("it is set once");
}

fn record(line: &str) -> io::Result<()> {
    match LEDGER.get() {
        // One write of one line, so lines of several processes do not mix.
        Some(path) => OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?
            .write_all(format!("{line}\n").as_bytes()),
        None => {
            let mut memory = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
            memory.push_str(line);
            memory.push('\n');
            Ok(())
        }
    }
}

/// Returns how often each job has started, by its task and number.
pub(crate) fn starts() -> io::Result<HashMap<String, usize>> {
    let lines = match LEDGER.get() {
        Some(path) => fs::read_to_string(path)?,
        None => MEMORY
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
    };
    let mut starts = HashMap::new();
    for line in lines.lines() {
        *starts.entry(line.to_owned()).or_default() += 1;
    }
    Ok(starts)
}
