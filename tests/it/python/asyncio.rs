use std::sync::{Arc, mpsc};
use std::thread;

use futurepool::ThreadPool;
use futurepool::{Executor, ExecutorExt, InlineExecutor};

use super::{in_every_runtime, told_job, with_watchdog};
use crate::common::{CountingWaker, block_workers, eventually, poll_with};

fn event_loop() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.build().unwrap()
}

#[test]
fn test_run_in_executor() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let elsewhere = in_every_runtime(|| {
            let handle = pool.submit(|| thread::current().id());
            async move { handle.await.unwrap() != thread::current().id() }
        });
        assert!(elsewhere.into_iter().all(|elsewhere| elsewhere));
    });
}

#[test]
fn test_run_in_executor_cancel() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        // The future is no longer awaited, so no waker is called.
        let (go, mut handle) = told_job(&pool);
        let (task, waker) = CountingWaker::new();
        assert!(poll_with(&mut handle, &waker).is_pending());
        drop((handle, waker));
        assert_eq!(Arc::strong_count(&task), 1, "its waker is gone");
        go.send(Ok(1)).unwrap();
        // The event loop is gone: a wake-up does no harm, and the result is still available.
        let (go, mut handle) = told_job(&pool);
        let event_loop = event_loop();
        event_loop.block_on(async {
            assert!(futures::poll!(&mut handle).is_pending());
        });
        drop(event_loop);
        go.send(Ok(2)).unwrap();
        eventually("it is done", || handle.is_finished());
        assert_eq!(handle.join().unwrap(), 2);
        assert_eq!(task.count(), 0);
    });
}

// DIFFERENCE: no runtime lets its blocking pool be replaced. Code that leaves the choice open takes
// an `Executor`, and tokio's pool is one, too.
#[test]
fn test_default_executor() {
    with_watchdog(|| {
        fn run_in(executor: &dyn Executor) {
            let results = in_every_runtime(|| executor.submit(|| 5));
            assert!(results.into_iter().all(|result| result.unwrap() == 5));
        }
        run_in(&ThreadPool::new(1));
        run_in(futurepool::global());
        run_in(&InlineExecutor);
        let shared: Arc<dyn Executor> = Arc::new(ThreadPool::new(1));
        run_in(&shared);
        #[cfg(feature = "tokio")]
        run_in(event_loop().handle());
    });
}

// DIFFERENCE: only a `CancelOnDrop` handle cancels when dropped. Dropping a plain handle detaches
// the job.
#[test]
fn test_wrap_future_cancel() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let (tell, told) = mpsc::channel();
        event_loop().block_on(async {
            let linked = tokio::spawn(pool.submit(|| ()).cancel_on_drop());
            let detached = tokio::spawn(pool.submit(move || tell.send(()).unwrap()));
            tokio::task::yield_now().await;
            linked.abort();
            detached.abort();
            assert!(linked.await.unwrap_err().is_cancelled());
            assert!(detached.await.unwrap_err().is_cancelled());
        });
        assert_eq!(pool.metrics().cancelled, 1);
        blocked.release();
        told.recv().unwrap();
    });
}

#[test]
fn test_wrap_future_cancel2() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let mut handle = pool.submit(|| 42).cancel_on_drop();
        eventually("it is done", || handle.is_finished());
        drop(async {
            let _ = (&mut handle).await;
        });
        assert!(!handle.cancel());
        assert_eq!(handle.join().unwrap(), 42);
    });
}
