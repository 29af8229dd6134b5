//! Runs a handler's blocking work on another thread or in another process, and returns the result to
//! the handler.

use std::sync::Arc;

use futurepool::process::WorkerInfo;
use futurepool::{Call, JoinHandle, Metrics, ProcessPool, Task, ThreadPool};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::Failure;

/// Threads for jobs that block.
#[derive(Debug, Clone)]
pub enum Workers {
    Pool(Arc<ThreadPool>),
    /// The runtime's blocking threads. The semaphore has a permit for each thread, and for each job
    /// that may be queued. Only for the comparison in `examples/load.rs`: a service with pools does
    /// not need it.
    SpawnBlocking(Arc<Semaphore>),
}

impl Workers {
    /// Queues a job at once, and returns a future of its result.
    ///
    /// The result is [`Failure::Busy`] if the queue is full. The job never runs if the future is
    /// dropped while the job is queued: hyper drops a handler when its client disconnects.
    //
    // An `async fn` cannot be `track_caller`. The error of a panic names the submitting line, which
    // should be in the handler.
    #[track_caller]
    pub fn run<F, T>(&self, job: F) -> impl Future<Output = Result<T, Failure>> + Send + use<F, T>
    where
        F: FnOnce() -> Result<T, Failure> + Send + 'static,
        T: Send + 'static,
    {
        let submitted = match self {
            Self::Pool(pool) => Ok(pool.try_submit(job).map(JoinHandle::cancel_on_drop)),
            Self::SpawnBlocking(permits) => Err(run_on_tokio(Arc::clone(permits), job)),
        };
        async move {
            match submitted {
                Ok(handle) => handle?.await?,
                Err(on_tokio) => on_tokio.await,
            }
        }
    }

    pub fn metrics(&self) -> Metrics {
        match self {
            Self::Pool(pool) => pool.metrics(),
            Self::SpawnBlocking(_) => Metrics::default(),
        }
    }

    /// Rejects further jobs, and waits until all accepted ones are done.
    pub async fn shutdown(&self) {
        if let Self::Pool(pool) = self {
            pool.shutdown().await;
        }
    }

    /// Rejects further jobs, cancels queued ones and asks running ones to stop, without waiting.
    pub fn cancel_all(&self) {
        if let Self::Pool(pool) = self {
            drop(pool.shutdown_now());
        }
    }
}

/// Processes for jobs that may crash, loop, or use too much memory.
#[derive(Debug, Clone)]
pub enum Processes {
    Pool(Arc<ProcessPool>),
    /// Only for the comparison in `examples/load.rs`: threads can keep no limits.
    Threads(Workers),
}

impl Processes {
    /// Queues a call at once, and returns a future of its result.
    ///
    /// The result is [`Failure::Busy`] if the queue is full. Dropping the future cancels the job, as
    /// that of [`Workers::run`] does. A job that runs is killed with its process.
    #[track_caller]
    pub fn run<T: Task>(
        &self,
        call: Call<T>,
    ) -> impl Future<Output = Result<T::Output, Failure>> + Send + use<T> {
        let submitted = match self {
            Self::Pool(pool) => Ok(pool.try_submit(call).map(JoinHandle::cancel_on_drop)),
            Self::Threads(workers) => Err(workers.run(move || Ok(call.run()))),
        };
        async move {
            match submitted {
                Ok(handle) => Ok(handle?.await?),
                Err(on_thread) => on_thread.await,
            }
        }
    }

    pub fn metrics(&self) -> Metrics {
        match self {
            Self::Pool(pool) => pool.metrics(),
            Self::Threads(workers) => workers.metrics(),
        }
    }

    /// Returns what each process is doing.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        match self {
            Self::Pool(pool) => pool.workers(),
            Self::Threads(_) => Vec::new(),
        }
    }

    /// Rejects further jobs, and waits until all accepted ones are done and the processes have ended.
    pub async fn shutdown(&self) {
        match self {
            Self::Pool(pool) => pool.shutdown().await,
            Self::Threads(workers) => workers.shutdown().await,
        }
    }

    /// Rejects further jobs, cancels queued ones and kills running ones, without waiting.
    pub fn cancel_all(&self) {
        match self {
            Self::Pool(pool) => drop(pool.shutdown_now()),
            Self::Threads(workers) => workers.cancel_all(),
        }
    }
}

async fn run_on_tokio<F, T>(permits: Arc<Semaphore>, job: F) -> Result<T, Failure>
where
    F: FnOnce() -> Result<T, Failure> + Send + 'static,
    T: Send + 'static,
{
    let permit = permits.try_acquire_owned().map_err(|_| Failure::Busy)?;
    let handle = spawn_blocking(move || {
        let result = job();
        drop(permit);
        result
    });
    handle
        .await
        .map_err(|error| Failure::Internal(error.to_string()))?
}
