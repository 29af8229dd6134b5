use std::cell::Cell;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};

use futurepool::ThreadPool;

use super::with_watchdog;
use crate::common::Gate;
use crate::common::child;
use crate::common::event_log::EventLog;

thread_local! {
    static STARTED: Cell<u64> = const { Cell::new(0) };
}

#[test]
fn InitializerMixin_test_initializer() {
    with_watchdog(|| {
        let runs = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&runs);
        let builder = ThreadPool::builder().max_workers(3).initializer(move || {
            count.fetch_add(1, SeqCst);
            STARTED.set(STARTED.get() + 1);
        });
        let pool = builder.build().unwrap();
        let together = Arc::new(Barrier::new(3));
        let handles = (0..30).map(|_| {
            let together = Arc::clone(&together);
            pool.submit(move || {
                together.wait();
                STARTED.get()
            })
        });
        for handle in handles.collect::<Vec<_>>() {
            assert_eq!(handle.join().unwrap(), 1);
        }
        assert_eq!((runs.load(SeqCst), pool.metrics().workers), (3, 3));
    });
}

#[test]
fn FailingInitializerMixin_test_initializer() {
    child::alone(
        "python::init::FailingInitializerMixin_test_initializer",
        || {
            EventLog::install();
            let gate = Gate::new();
            let wait = gate.clone();
            let builder = ThreadPool::builder().max_workers(1).initializer(move || {
                wait.wait();
                panic!("no database for the log");
            });
            let pool = builder.build().unwrap();
            let pending: Vec<_> = (0..5).map(|i| pool.submit(move || i)).collect();
            gate.open();
            for handle in pending {
                let error = handle.join().unwrap_err();
                assert!(error.is_broken() && !error.is_panic() && !error.is_cancelled());
                assert!(error.to_string().contains("no database"), "{error}");
                assert!(error.source().unwrap().to_string().contains("no database"));
            }
            assert!(pool.submit(|| ()).join().unwrap_err().is_broken());
            let refused = pool.try_submit(|| 5).unwrap_err();
            assert!(refused.is_broken() && !refused.is_shutdown());
            assert_eq!(refused.into_inner()(), 5);
            pool.shutdown().join();
            assert!(EventLog::contains("no database for the log"));
            assert_eq!(pool.metrics().completed, 0);
        },
    );
}
