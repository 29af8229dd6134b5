//! From a handler to a thread that may block, and back.

use std::sync::Arc;

use futurepool::{JoinHandle, Metrics, ThreadPool};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::Failure;

/// Threads for jobs that block.
#[derive(Debug, Clone)]
pub enum Workers {
    Pool(Arc<ThreadPool>),
    /// The runtime's own threads, with as many permits as there are threads and places in the queue. Only there to be
    /// measured beside the pool, by `examples/load.rs`: a service that has pools does not need it.
    SpawnBlocking(Arc<Semaphore>),
}

impl Workers {
    /// Queues a job, at once, and gives its result. If the queue is full, the job is refused. If the future is dropped
    /// while the job is queued, which is what happens to a handler when its client goes away, the job never runs.
    //
    // Not an `async fn`: those cannot be `track_caller`, and an error that tells of a panic says where the job was
    // submitted. It should name the handler.
    #[track_caller]
    pub fn run<F, T>(&self, job: F) -> impl Future<Output = Result<T, Failure>> + Send + use<F, T>
    where
        F: FnOnce() -> Result<T, Failure> + Send + 'static,
        T: Send + 'static,
    {
        let submitted = match self {
            Self::Pool(pool) => Ok(pool.try_submit(job).map(JoinHandle::cancel_on_drop)),
            Self::SpawnBlocking(room) => Err(run_by_tokio(Arc::clone(room), job)),
        };
        async move {
            match submitted {
                Ok(handle) => handle?.await?,
                Err(by_tokio) => by_tokio.await,
            }
        }
    }

    pub fn metrics(&self) -> Metrics {
        match self {
            Self::Pool(pool) => pool.metrics(),
            Self::SpawnBlocking(_) => Metrics::default(),
        }
    }

    /// Takes no more jobs, and waits for those that it has.
    pub async fn shutdown(&self) {
        if let Self::Pool(pool) = self {
            pool.shutdown().await;
        }
    }

    /// Takes no more jobs, cancels those that are queued, and asks those that run to end. Waits for nothing.
    pub fn cancel_all(&self) {
        if let Self::Pool(pool) = self {
            drop(pool.shutdown_now());
        }
    }
}

async fn run_by_tokio<F, T>(room: Arc<Semaphore>, job: F) -> Result<T, Failure>
where
    F: FnOnce() -> Result<T, Failure> + Send + 'static,
    T: Send + 'static,
{
    let place = room.try_acquire_owned().map_err(|_| Failure::Busy)?;
    let handle = spawn_blocking(move || {
        let result = job();
        drop(place);
        result
    });
    handle
        .await
        .map_err(|error| Failure::Internal(error.to_string()))?
}
