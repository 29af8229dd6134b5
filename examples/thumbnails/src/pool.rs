//! Where the tasks run: in worker processes or in threads.

use std::io;
use std::time::Duration;

use futurepool::process::{ProcessPool, WorkerStdio};
use futurepool::{TaskExecutor, ThreadPool};

use crate::options::{Options, Place};

pub(crate) enum Pool {
    Processes(ProcessPool),
    Threads(ThreadPool),
}

impl Pool {
    pub(crate) fn new(options: &Options) -> io::Result<Self> {
        let workers = options.workers.get();
        match options.place {
            Place::Processes {
                time_limit,
                memory_limit,
            } => {
                let pool = ProcessPool::builder()
                    .max_workers(workers)
                    .time_limit(time_limit)
                    .memory_limit(memory_limit)
                    // The error of a crash has a worker's last lines. Printed, they would break the
                    // progress bar.
                    .stderr(WorkerStdio::lines(|_| {}))
                    .build();
                Ok(Self::Processes(pool.map_err(io::Error::other)?))
            }
            Place::Threads => {
                limit_this_process()?;
                let pool = ThreadPool::builder().max_workers(workers).build();
                Ok(Self::Threads(pool.map_err(io::Error::other)?))
            }
        }
    }

    /// Returns what the program submits to, whatever it is.
    pub(crate) fn executor(&self) -> &dyn TaskExecutor {
        match self {
            Self::Processes(pool) => pool,
            Self::Threads(pool) => pool,
        }
    }

    /// Ends the running tasks, if they can be ended. Returns how many still run.
    pub(crate) fn stop(self) -> u64 {
        match self {
            Self::Processes(pool) => {
                pool.shutdown_now().join();
                0
            }
            Self::Threads(pool) => {
                // After a wait that was given up, dropping the pool does not wait for its jobs.
                let _ = pool.shutdown_now().join_timeout(Duration::ZERO);
                pool.metrics().running
            }
        }
    }
}

/// The address space of the program with `--threads`.
const ADDRESS_SPACE: u64 = 4 << 30;

/// Limits the memory of the whole program, because a thread has no limit of its own.
///
/// Otherwise a bomb would take the memory of the machine. With the limit it takes the program.
#[cfg(unix)]
fn limit_this_process() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let old = getrlimit(Resource::As);
    let current = old.current.unwrap_or(u64::MAX).min(ADDRESS_SPACE);
    let limit = Rlimit {
        current: Some(current),
        maximum: old.maximum,
    };
    Ok(setrlimit(Resource::As, limit)?)
}

#[cfg(not(unix))]
fn limit_this_process() -> io::Result<()> {
    Ok(())
}
