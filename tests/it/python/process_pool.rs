use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futurepool::{ThreadPool, ThreadPoolBuilder, cancel_requested};

use super::{all, text_of_panic, with_watchdog};
use crate::common::{Gate, block_workers, eventually};

// DIFFERENCE: a chunk size of 0 panics, as a buffer size of 0 does. A negative size does not
// compile.
#[test]
fn test_map_chunksize() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let double = |i: u32| i * 2;
        let serial: Vec<_> = (0..40).map(double).collect();
        for (size, jobs) in [(6, 7), (40, 1), (50, 1)] {
            let before = pool.metrics().submitted;
            assert_eq!(all(pool.map(0..40, double).chunk_size(size)), serial);
            assert_eq!(pool.metrics().submitted - before, jobs);
        }
        let text = text_of_panic(|| drop(pool.map(0..40, double).chunk_size(0)));
        assert!(text.contains("chunk"), "{text}");
    });
}

// DIFFERENCE: the error contains the message and where the job was submitted. Where it panicked is
// reported by the panic hook of the process, which stays as it is.
#[test]
fn test_traceback() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let line = line!() + 1;
        let handle = pool.submit(|| panic!("123456789"));
        let text = handle.join().unwrap_err().to_string();
        assert!(text.contains("123456789"), "{text}");
        assert!(text.contains(&format!("{}:{line}:", file!())), "{text}");
    });
}

/// Returns a pool that breaks when the gate opens.
fn breaking(gate: &Gate) -> ThreadPool {
    let wait = gate.clone();
    let builder = ThreadPool::builder().max_workers(1);
    let builder = builder.initializer(move || {
        wait.wait();
        Err(io::Error::other("no licence"))
    });
    builder.build().unwrap()
}

#[test]
fn test_broken_process_pool_traceback() {
    with_watchdog(|| {
        let gate = Gate::new();
        let pool = breaking(&gate);
        let handles = [(); 3].map(|()| pool.submit(|| ()));
        gate.open();
        let [first, second, third] = handles.map(|handle| handle.join().unwrap_err());
        // Whatever is done with one error, the other errors keep all their information.
        assert!(first.try_into_panic().is_err());
        drop(io::Error::from(second));
        drop(pool);
        assert!(third.is_broken());
        let cause = third.source().unwrap().downcast_ref::<io::Error>();
        assert_eq!(cause.unwrap().to_string(), "no licence");
    });
}

#[test]
fn test_ressources_gced_in_workers() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let captured = Arc::new(());
        let weak = Arc::downgrade(&captured);
        let first = pool.submit(move || drop(Arc::clone(&captured)));
        let seen = weak.clone();
        let second = pool.submit(move || seen.upgrade().is_none());
        first.join().unwrap();
        assert!(weak.upgrade().is_none());
        assert!(second.join().unwrap());
    });
}

// DIFFERENCE: no worker is replaced after a number of jobs: threads have no leaks to get rid of.
// Idle workers do exit: `keep_alive`. That must keep Python's promises: never more threads than
// allowed, no job lost.
fn short_lived(workers: usize) -> ThreadPoolBuilder {
    let builder = ThreadPool::builder().max_workers(workers);
    builder.keep_alive(Duration::ZERO)
}

// DIFFERENCE: see `short_lived`.
#[test]
fn test_max_tasks_per_child() {
    with_watchdog(|| {
        let initialized = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&initialized);
        let count = move || {
            count.fetch_add(1, SeqCst);
        };
        let pool = short_lived(1).initializer(count).build().unwrap();
        let id = || pool.submit(|| thread::current().id()).join().unwrap();
        let first = id();
        eventually("the worker exits", || pool.metrics().workers == 0);
        assert_ne!(id(), first);
        assert_eq!(initialized.load(SeqCst), 2);
    });
}

// DIFFERENCE: see `short_lived`.
#[test]
fn test_max_tasks_per_child_pending_tasks_gh115634() {
    with_watchdog(|| {
        for (workers, jobs) in [(1, 6), (2, 8)] {
            for _ in 0..100 {
                let pool = short_lived(workers).build().unwrap();
                let handles: Vec<_> = (0..jobs).map(|i| pool.submit(move || i)).collect();
                let results = handles.into_iter().map(|handle| handle.join().unwrap());
                assert!(results.eq(0..jobs));
                assert!(pool.metrics().workers <= workers as u64);
            }
        }
    });
}

// DIFFERENCE: see `short_lived`.
#[test]
fn test_max_tasks_early_shutdown() {
    with_watchdog(|| {
        for _ in 0..100 {
            let pool = short_lived(3).build().unwrap();
            let handles: Vec<_> = (0..6).map(|i| pool.submit(move || i)).collect();
            pool.shutdown().join();
            let results = handles
                .into_iter()
                .map(|mut h| h.try_join().unwrap().unwrap());
            assert!(results.eq(0..6));
        }
    });
}

// DIFFERENCE: see `short_lived`.
#[test]
fn test_shutdown_no_wait_max_tasks_gh119592() {
    with_watchdog(|| {
        for kept in [true, false] {
            let pool = short_lived(2).build().unwrap();
            let blocked = block_workers(&pool, 2);
            let handles: Vec<_> = (0..8).map(|i| pool.submit(move || i)).collect();
            let end = pool.shutdown();
            let gate = blocked.gate();
            let opener = thread::spawn(move || gate.open());
            let kept = kept.then_some(pool);
            opener.join().unwrap();
            let results = handles.into_iter().map(|handle| handle.join().unwrap());
            assert!(results.eq(0..8));
            end.join();
            drop(kept);
        }
    });
}

// DIFFERENCE: a failed spawn does not break the pool; the next submit tries again. (With one worker
// alive no job fails at all: see refused_threads.rs.)
#[cfg(all(unix, target_pointer_width = "64"))]
#[test]
fn test_failed_worker_replacement_breaks_pool() {
    with_watchdog(|| {
        // No address space can hold such a stack, so no thread can start.
        let builder = ThreadPool::builder().stack_size(1 << 60);
        let pool = builder.build().unwrap();
        for refusals in 1..=3 {
            let error = pool.submit(|| ()).join().unwrap_err();
            assert!(error.is_spawn_failed() && !error.is_broken(), "{error}");
            assert!(error.source().unwrap().is::<io::Error>());
            assert_eq!(pool.metrics().spawn_failures, refusals);
            assert_eq!(pool.metrics().cancelled, refusals);
        }
        pool.shutdown().join();
    });
}

// DIFFERENCE: a thread cannot be killed: running jobs are asked to end.
#[test]
fn test_force_shutdown_workers_stops_pool() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let (tell, told) = mpsc::channel();
        let running = pool.submit(move || {
            tell.send(()).unwrap();
            eventually("the request", cancel_requested);
        });
        told.recv().unwrap();
        let queued = pool.submit(|| ());
        let end = pool.shutdown_now();
        assert!(queued.join().unwrap_err().is_cancelled());
        assert!(pool.submit(|| ()).join().unwrap_err().is_shutdown());
        assert!(pool.try_submit(|| ()).unwrap_err().is_shutdown());
        end.join();
        running.join().unwrap();
    });
}

#[test]
fn test_force_shutdown_workers_not_started_yet() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        pool.shutdown_now().join();
        pool.shutdown_now().join_timeout(Duration::ZERO).unwrap();
        assert_eq!(pool.metrics().workers, 0);
    });
}

#[test]
fn test_force_shutdown_workers_dead_workers() {
    with_watchdog(|| {
        let gate = Gate::new();
        gate.open();
        let pool = breaking(&gate);
        assert!(pool.submit(|| ()).join().unwrap_err().is_broken());
        pool.shutdown_now().join();
        assert_eq!(pool.metrics().workers, 0);
        assert!(pool.submit(|| ()).join().is_err());
    });
}
