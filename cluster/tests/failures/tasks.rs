//! What the workers of these tests run.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{process, thread};

use futurepool::task;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};

use crate::judge;

/// What a job does between its start and its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum What {
    Nothing,
    /// Sleeps for so many milliseconds.
    Sleep(u64),
    /// Waits until this file exists.
    Gate(PathBuf),
    /// Waits until it is asked to stop.
    UntilCancelled,
    /// Kills the worker, unless this job has started so many times before.
    Kill(usize),
    Panic,
    /// Returns so many bytes.
    Bytes(usize),
}

/// What a job returns: which of its runs it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) job: u64,
    pub(crate) run: u64,
    pub(crate) bytes: Vec<u8>,
}

/// The longest wait of a job, so that none outlives a test that failed.
const PATIENCE: Duration = Duration::from_secs(240);

fn run(job: u64, what: What) -> Done {
    let run = fastrand::u64(..);
    judge::write(job, run, "start");
    let mut bytes = Vec::new();
    match what {
        What::Nothing => {}
        What::Sleep(millis) => thread::sleep(Duration::from_millis(millis)),
        What::Gate(path) => wait(|| path.exists()),
        What::UntilCancelled => wait(futurepool::cancel_requested),
        What::Kill(times) => {
            if judge::own().runs_of(job).len() <= times {
                die();
            }
        }
        What::Panic => panic!("job {job} panics, as it was told to"),
        What::Bytes(count) => bytes = vec![job as u8; count],
    }
    judge::write(job, run, "end");
    Done { job, run, bytes }
}

fn wait(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Kills this process, as `kill -9` does.
pub(crate) fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    process::abort()
}

/// At most once.
#[task(name = "once")]
pub(crate) fn once(job: u64, what: What) -> Done {
    run(job, what)
}

/// At least once.
#[task(name = "again", idempotent, attempts = 3)]
pub(crate) fn again(job: u64, what: What) -> Done {
    run(job, what)
}

/// An argument that kills the process that decodes it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Poison;

impl<'de> Deserialize<'de> for Poison {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        die()
    }
}

#[task(name = "poisoned")]
pub(crate) fn poisoned(job: u64, _poison: Poison) -> Done {
    run(job, What::Nothing)
}

#[task(name = "poisoned-again", idempotent, attempts = 2)]
pub(crate) fn poisoned_again(job: u64, _poison: Poison) -> Done {
    run(job, What::Nothing)
}

/// The first version of a task, with other arguments than the second.
pub(crate) mod v1 {
    use super::*;

    #[task(name = "priced", version = 1)]
    pub(crate) fn priced(job: u64) -> (u32, Done) {
        (1, run(job, What::Sleep(2)))
    }
}

pub(crate) mod v2 {
    use super::*;

    #[task(name = "priced", version = 2)]
    pub(crate) fn priced(job: u64, currency: String) -> (u32, Done) {
        assert_eq!(currency, "EUR");
        (2, run(job, What::Sleep(2)))
    }
}

/// Initializes a process of a worker, and fails.
#[cfg(feature = "process")]
#[task(name = "fails-to-start")]
pub(crate) fn fails_to_start() -> Result<(), String> {
    Err("no database".to_owned())
}

#[cfg(feature = "process")]
#[task(name = "aborts")]
pub(crate) fn aborts() {
    process::abort()
}
