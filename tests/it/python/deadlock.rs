use std::panic::resume_unwind;
use std::thread;

use futurepool::ThreadPool;

use super::{told_job, with_watchdog};
use crate::common::Gate;

#[test]
fn test_error_during_func_exec_on_worker() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let id = pool.submit(|| thread::current().id()).join().unwrap();
        let error = pool
            .submit(|| panic!("text {:?}", thread::panicking()))
            .join()
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("text false") && text.contains(file!()),
            "{text}"
        );
        assert_eq!(
            *error.into_panic().downcast::<String>().unwrap(),
            "text false"
        );
        assert_eq!(pool.submit(|| thread::current().id()).join().unwrap(), id);
    });
}

// DIFFERENCE: no exception leaves a thread. The closest equivalent is a panic that skips the hook,
// with a custom payload.
#[test]
fn test_exit_during_func_exec_on_worker() {
    with_watchdog(|| {
        struct ExitNow;
        let pool = ThreadPool::new(1);
        let id = pool.submit(|| thread::current().id()).join().unwrap();
        let handle = pool.submit(|| resume_unwind(Box::new(ExitNow)));
        let error = handle.join().unwrap_err();
        assert!(error.into_panic().is::<ExitNow>());
        assert_eq!(pool.submit(|| thread::current().id()).join().unwrap(), id);
        assert_eq!(pool.metrics().workers, 1);
    });
}

#[test]
fn test_shutdown_deadlock() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let (go, handle) = told_job(&pool);
        let end = pool.shutdown();
        go.send(Err("after the shutdown".into())).unwrap();
        end.join();
        assert!(handle.join().unwrap_err().is_panic());
    });
}

#[test]
fn test_gh105829_should_not_deadlock_if_wakeup_pipe_full() {
    with_watchdog(|| {
        let gate = Gate::new();
        let wait = gate.clone();
        let builder = ThreadPool::builder().max_workers(2);
        let pool = builder.initializer(move || wait.wait()).build().unwrap();
        // No worker is ready, and each submit returns.
        let handles: Vec<_> = (0..1_000).map(|i| pool.submit(move || i)).collect();
        assert_eq!(pool.metrics().queued, 1_000);
        gate.open();
        let results = handles.into_iter().map(|handle| handle.join().unwrap());
        assert!(results.eq(0..1_000));
    });
}
