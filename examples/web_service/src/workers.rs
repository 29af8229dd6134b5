//! Runs a handler's blocking work on another thread or in another process, and returns the result to
//! the handler.

use std::sync::Arc;

use futurepool::{Call, JoinHandle, Metrics, ProcessPool, StatefulPool, Task, ThreadPool};
use rusqlite::Connection;
use tokio::join;

use crate::on_tokio::OnTokio;
use crate::{Failure, Urgency};

/// Where blocking work runs.
#[derive(Debug, Clone)]
pub enum Workers {
    Pools(Arc<Pools>),
    /// Only for the comparison in `examples/load.rs`.
    SpawnBlocking(Arc<OnTokio>),
}

#[derive(Debug)]
pub struct Pools {
    /// Threads for jobs that compute.
    pub cpu: ThreadPool,
    /// Threads for queries. Each thread owns a connection.
    pub db: StatefulPool<Connection>,
    /// Processes for jobs that may crash, loop, or use too much memory.
    pub images: ProcessPool,
}

impl Workers {
    /// Queues a job at once, and returns a future of its result.
    ///
    /// The result is [`Failure::Busy`] if the queue is full, and [`Failure::Expired`] if the job has
    /// not started by its deadline. The job never runs if the future is dropped while the job is
    /// queued: hyper drops a handler when its client disconnects.
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
            Self::Pools(pools) => {
                let job = pools.cpu.job(job).label(urgency.label);
                let job = job.priority(urgency.priority).deadline(urgency.deadline);
                let handle = job.try_submit().map_err(Failure::from);
                Ok(handle.map(JoinHandle::cancel_on_drop))
            }
            Self::SpawnBlocking(tokio) => Err(tokio.run(urgency, job)),
        };
        async move {
            match submitted {
                Ok(handle) => handle?.await?,
                Err(on_tokio) => on_tokio.await,
            }
        }
    }

    /// Queues a query at once, and returns a future of its result, as [`compute`](Self::compute) does.
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

    /// Queues a call at once, and returns a future of its result, as [`compute`](Self::compute) does.
    ///
    /// If the future is dropped while the job runs, the job is killed with its process.
    #[track_caller]
    pub fn call<T: Task>(
        &self,
        urgency: Urgency,
        call: Call<T>,
    ) -> impl Future<Output = Result<T::Output, Failure>> + Send + use<T> {
        let submitted = match self {
            Self::Pools(pools) => {
                let call = call.label(urgency.label).priority(urgency.priority);
                let call = call.deadline(urgency.deadline);
                let handle = pools.images.try_submit(call).map_err(Failure::from);
                Ok(handle.map(JoinHandle::cancel_on_drop))
            }
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
        [
            ("cpu", self.cpu.metrics()),
            ("db", self.db.metrics()),
            ("images", self.images.metrics()),
        ]
    }

    /// Rejects further jobs, and waits until all accepted ones are done and the processes have ended.
    pub async fn shutdown(&self) {
        join!(
            self.cpu.shutdown(),
            self.db.shutdown(),
            self.images.shutdown()
        );
    }

    /// Rejects further jobs, cancels queued ones, kills those that run in processes and asks those in
    /// threads to stop, without waiting.
    pub fn cancel_all(&self) {
        drop(self.cpu.shutdown_now());
        drop(self.db.shutdown_now());
        drop(self.images.shutdown_now());
    }
}
