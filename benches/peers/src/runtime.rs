//! The async runtimes of two threads whose tasks submit jobs.

use std::future::pending;
use std::sync::Arc;
use std::thread;

use smol::Executor;

use crate::peers::runtime;
use crate::placement::pin_caller;

pub trait Runtime: Clone + Send + Sync + 'static {
    fn start() -> Self;

    /// Runs `build` in the context of the runtime.
    fn enter<T>(&self, build: impl FnOnce() -> T) -> T;

    fn spawn<F>(&self, task: F) -> impl Future<Output = F::Output>
    where
        F: Future<Output: Send> + Send + 'static;
}

#[derive(Clone)]
pub struct TokioRuntime(Arc<tokio::runtime::Runtime>);

impl Runtime for TokioRuntime {
    fn start() -> Self {
        Self(Arc::new(runtime(2)))
    }

    fn enter<T>(&self, build: impl FnOnce() -> T) -> T {
        let _inside = self.0.enter();
        build()
    }

    fn spawn<F>(&self, task: F) -> impl Future<Output = F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let task = self.0.spawn(task);
        async { task.await.expect("the task does not panic") }
    }
}

#[derive(Clone)]
pub struct Smol(Arc<Executor<'static>>);

impl Runtime for Smol {
    fn start() -> Self {
        let executor = Arc::new(Executor::new());
        for _ in 0..2 {
            let executor = Arc::clone(&executor);
            thread::spawn(move || {
                pin_caller();
                smol::block_on(executor.run(pending::<()>()));
            });
        }
        Self(executor)
    }

    fn enter<T>(&self, build: impl FnOnce() -> T) -> T {
        build()
    }

    fn spawn<F>(&self, task: F) -> impl Future<Output = F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.spawn(task)
    }
}
