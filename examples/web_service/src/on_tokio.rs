//! The same work on tokio's `spawn_blocking`, for the comparison in `examples/load`. A service with
//! pools needs none of this.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::timeout_at;

use crate::{Failure, Urgency, database};

thread_local! {
    /// The connection of this blocking thread. SQLite connections cannot be used by several
    /// threads.
    static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// The runtime's blocking threads, with a limit on the jobs that run or wait.
#[derive(Debug)]
pub struct OnTokio {
    /// A permit for each thread, and for each job that may be queued.
    permits: Arc<Semaphore>,
    all_permits: usize,
    database: PathBuf,
    /// Whether dropping the future of a result aborts the job.
    aborts: bool,
    done: Mutex<BTreeMap<&'static str, u64>>,
}

impl OnTokio {
    pub fn new(permits: usize, database: PathBuf, aborts: bool) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits)),
            all_permits: permits,
            database,
            aborts,
            done: Mutex::default(),
        }
    }

    /// Returns how many jobs ran to their end, by label.
    pub fn done(&self) -> BTreeMap<&'static str, u64> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.clone()
    }

    /// Returns whether all jobs have ended.
    pub fn is_idle(&self) -> bool {
        self.permits.available_permits() == self.all_permits
    }

    pub(crate) fn query<F, T>(
        self: &Arc<Self>,
        urgency: Urgency,
        query: F,
    ) -> impl Future<Output = Result<T, Failure>> + Send + use<F, T>
    where
        F: FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
        T: Send + 'static,
    {
        let this = Arc::clone(self);
        self.run(urgency, move || {
            CONNECTION.with_borrow_mut(|mine| {
                let connection = match mine {
                    Some(connection) => connection,
                    None => {
                        let new = database::connect(&this.database);
                        let failed = |error| Failure::Internal(format!("the database: {error}"));
                        mine.insert(new.map_err(failed)?)
                    }
                };
                query(connection)
            })
        })
    }

    pub(crate) fn run<F, T>(
        self: &Arc<Self>,
        urgency: Urgency,
        job: F,
    ) -> impl Future<Output = Result<T, Failure>> + Send + use<F, T>
    where
        F: FnOnce() -> Result<T, Failure> + Send + 'static,
        T: Send + 'static,
    {
        let this = Arc::clone(self);
        async move {
            let permit = Arc::clone(&this.permits).try_acquire_owned();
            let permit = permit.map_err(|_| Failure::Busy)?;
            let aborts = this.aborts;
            let handle = spawn_blocking(move || {
                let result = job();
                let mut done = this.done.lock().unwrap_or_else(PoisonError::into_inner);
                *done.entry(urgency.label).or_default() += 1;
                drop((done, permit));
                result
            });
            let _guard = aborts.then(|| AbortOnDrop(handle.abort_handle()));
            match timeout_at(urgency.deadline.into(), handle).await {
                Ok(ended) => ended.map_err(|error| Failure::Internal(error.to_string()))?,
                Err(_) => Err(Failure::Expired),
            }
        }
    }
}

/// Aborts a job that has not started. One that runs cannot be stopped.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
