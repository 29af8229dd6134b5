use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use super::{Cancels, Peer, Unwrapped};
use crate::placement::pin_caller;

/// Calls `spawn_blocking` of the current runtime. Outside a runtime, it builds its own.
#[derive(Clone)]
pub struct Tokio {
    handle: Handle,
    _own: Option<Arc<Runtime>>,
}

/// Builds a runtime of two worker threads and at most `workers` blocking threads.
pub fn runtime(workers: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(workers)
        // Its blocking threads are pinned as workers later, in a job.
        .on_thread_start(pin_caller)
        .build()
        .expect("tokio builds the runtime")
}

impl Peer for Tokio {
    const NAME: &'static str = "tokio";

    fn new(workers: usize) -> Self {
        match Handle::try_current() {
            Ok(handle) => Self { handle, _own: None },
            Err(_) => {
                let own = runtime(workers);
                Self {
                    handle: own.handle().clone(),
                    _own: Some(Arc::new(own)),
                }
            }
        }
    }

    fn submit<T, F>(&self, job: F) -> impl Future<Output = T> + Send + 'static
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        Unwrapped(self.handle.spawn_blocking(job))
    }
}

impl Cancels for Tokio {
    type Handle = JoinHandle<()>;

    fn queue(&self, job: impl FnOnce() + Send + 'static) -> Self::Handle {
        self.handle.spawn_blocking(job)
    }

    fn cancel(handle: &mut Self::Handle) {
        handle.abort();
    }
}
