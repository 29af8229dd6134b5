//! Runs a handler's blocking work on another thread or in another process, and returns the result
//! to the handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futurepool::{
    Call, CancelOnDrop, JoinHandle, Metrics, Priority, ProcessPool, StatefulPool, Task, ThreadPool,
};
use rusqlite::Connection;
use tokio::join;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::on_tokio::OnTokio;
use crate::{Failure, Urgency};

/// Where blocking work runs.
#[derive(Debug, Clone)]
pub enum Workers {
    Pools(Arc<Pools>),
    /// Only for the comparison in `examples/load`.
    SpawnBlocking(Arc<OnTokio>),
}

#[derive(Debug)]
pub struct Pools {
    /// Threads for jobs that compute.
    pub cpu: ThreadPool,
    /// Threads for queries. Each thread owns a connection.
    pub db: StatefulPool<Connection>,
    pub cpu_room: Room,
    /// Processes for jobs that may crash, loop, or use too much memory.
    pub images: ProcessPool,
    pub images_room: Room,
}

/// The room in a pool for jobs that are not urgent.
///
/// A priority decides what starts next, but takes no room in the queue. Without a limit of their
/// own, queued thumbnails would fill it, and urgent jobs would be rejected.
///
/// A permit belongs to the job, not to its request. A job that runs in a thread goes on after its
/// client has left, and keeps its permit.
#[derive(Debug)]
pub struct Room {
    permits: Arc<Semaphore>,
    rejected: AtomicU64,
}

impl Room {
    /// Makes room for some jobs, running or queued.
    pub fn new(jobs: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(jobs.min(Semaphore::MAX_PERMITS))),
            rejected: AtomicU64::new(0),
        }
    }

    /// Returns the permit of a job, or [`Failure::Busy`]. An urgent job needs none.
    fn admit(&self, urgency: Urgency) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        if urgency.priority == Priority::High {
            return Ok(None);
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.map(Some).map_err(|_| {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            Failure::Busy
        })
    }
}

/// Releases the permit when the job has ended, and cancels the job if the result is dropped.
fn guarded<T: Send + 'static>(
    handle: JoinHandle<T>,
    permit: Option<OwnedSemaphorePermit>,
) -> CancelOnDrop<T> {
    if let Some(permit) = permit {
        handle.add_done_callback(move |_| drop(permit));
    }
    handle.cancel_on_drop()
}

impl Workers {
    /// Queues a job at once, and returns a future of its result.
    ///
    /// The result is [`Failure::Busy`] if the queue is full, and [`Failure::Expired`] if the job
    /// has not started by its deadline. The job never runs if the future is dropped while the job
    /// is queued: hyper drops a handler when its client disconnects.
    //
    // An `async fn` cannot be `track_caller`. The error of a panic names the submitting line, which
    // should be in the handler.
    #[track_caller]
    pub fn compute<F, T>(
        &self,
        urgency: Urgency,
        job: F,
    ) -> impl Future<Output = Result<T, Failure>> + Send + use<F, T>
    where
        F: FnOnce() -> Result<T, Failure> + Send + 'static,
        T: Send + 'static,
    {
        let submitted = match self {
            Self::Pools(pools) => Ok(match pools.cpu_room.admit(urgency) {
                Ok(permit) => {
                    let job = pools.cpu.job(job).label(urgency.label);
                    let job = job.priority(urgency.priority).deadline(urgency.deadline);
                    let handle = job.try_submit().map_err(Failure::from);
                    handle.map(|handle| guarded(handle, permit))
                }
                Err(busy) => Err(busy),
            }),
            Self::SpawnBlocking(tokio) => Err(tokio.run(urgency, job)),
        };
        async move {
            match submitted {
                Ok(handle) => handle?.await?,
                Err(on_tokio) => on_tokio.await,
            }
        }
    }

    /// Queues a query at once, and returns a future of its result, as [`compute`](Self::compute)
    /// does.
    #[track_caller]
    pub fn query<F, T>(
        &self,
        urgency: Urgency,
        query: F,
    ) -> impl Future<Output = Result<T, Failure>> + Send + use<F, T>
    where
        F: FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
        T: Send + 'static,
    {
        let submitted = match self {
            Self::Pools(pools) => {
                let job = pools.db.job(query).label(urgency.label);
                let job = job.priority(urgency.priority).deadline(urgency.deadline);
                let handle = job.try_submit().map_err(Failure::from);
                Ok(handle.map(JoinHandle::cancel_on_drop))
            }
            Self::SpawnBlocking(tokio) => Err(tokio.query(urgency, query)),
        };
        async move {
            match submitted {
                Ok(handle) => handle?.await?,
                Err(on_tokio) => on_tokio.await,
            }
        }
    }

    /// Queues a call at once, and returns a future of its result, as [`compute`](Self::compute)
    /// does.
    ///
    /// If the future is dropped while the job runs, the job is killed with its process.
    #[track_caller]
    pub fn call<T: Task>(
        &self,
        urgency: Urgency,
        call: Call<T>,
    ) -> impl Future<Output = Result<T::Output, Failure>> + Send + use<T> {
        let submitted = match self {
            Self::Pools(pools) => Ok(match pools.images_room.admit(urgency) {
                Ok(permit) => {
                    let call = call.label(urgency.label).priority(urgency.priority);
                    let call = call.deadline(urgency.deadline);
                    let handle = pools.images.try_submit(call).map_err(Failure::from);
                    handle.map(|handle| guarded(handle, permit))
                }
                Err(busy) => Err(busy),
            }),
            Self::SpawnBlocking(tokio) => Err(tokio.run(urgency, move || Ok(call.run()))),
        };
        async move {
            match submitted {
                Ok(handle) => Ok(handle?.await?),
                Err(on_tokio) => on_tokio.await,
            }
        }
    }

    pub fn pools(&self) -> Option<&Pools> {
        match self {
            Self::Pools(pools) => Some(pools),
            Self::SpawnBlocking(_) => None,
        }
    }
}

impl Pools {
    /// Returns the metrics of each pool, with its name.
    pub fn metrics(&self) -> [(&'static str, Metrics); 3] {
        let (mut cpu, mut images) = (self.cpu.metrics(), self.images.metrics());
        cpu.rejected += self.cpu_room.rejected.load(Ordering::Relaxed);
        images.rejected += self.images_room.rejected.load(Ordering::Relaxed);
        [("cpu", cpu), ("db", self.db.metrics()), ("images", images)]
    }

    /// Rejects further jobs, and waits until all accepted ones are done and the processes have
    /// ended.
    pub async fn shutdown(&self) {
        join!(
            self.cpu.shutdown(),
            self.db.shutdown(),
            self.images.shutdown()
        );
    }

    /// Rejects further jobs, cancels queued ones, kills those that run in processes and asks those
    /// in threads to stop, without waiting.
    pub fn cancel_all(&self) {
        drop(self.cpu.shutdown_now());
        drop(self.db.shutdown_now());
        drop(self.images.shutdown_now());
    }
}
