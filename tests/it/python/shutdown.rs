use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use futurepool::{ThreadPool, ThreadPoolBuilder, block_on, cancel_requested};

use super::with_watchdog;
use crate::common::child;
use crate::common::{
    CountingWaker, ThreadState, block_workers, eventually, poll_with, spawn_until_asleep,
};

thread_local! {
    static ALIVE: RefCell<Option<Arc<()>>> = const { RefCell::new(None) };
}

/// Returns a builder of pools whose threads hold a reference of the [`Arc`] until their
/// thread-locals are dropped.
fn counted(workers: usize) -> (Arc<()>, ThreadPoolBuilder) {
    let alive = Arc::new(());
    let held = Arc::downgrade(&alive);
    let builder = ThreadPool::builder().max_workers(workers);
    let builder = builder.initializer(move || ALIVE.set(held.upgrade()));
    (alive, builder)
}

fn threads(alive: &Arc<()>) -> usize {
    Arc::strong_count(alive) - 1
}

#[test]
fn test_run_after_shutdown() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        pool.shutdown().join();
        assert!(pool.submit(|| ()).join().unwrap_err().is_shutdown());
        let refused = pool.try_submit(|| 5).unwrap_err();
        assert!(refused.is_shutdown() && !refused.is_full() && !refused.is_broken());
        assert_eq!(refused.into_inner()(), 5);
        assert!(
            block_on(pool.submit_async(|| ()))
                .unwrap_err()
                .is_shutdown()
        );
    });
}

// DIFFERENCE: the drop of the pool waits; no code runs at the end of the process. So the unfinished
// jobs of the global pool, which is never dropped, are lost.
#[test]
fn test_interpreter_shutdown() {
    if child::is_child() {
        // This job never ends, and does not delay the exit.
        let (tell, told) = mpsc::channel();
        drop(futurepool::submit(move || {
            tell.send(()).unwrap();
            loop {
                thread::park();
            }
        }));
        told.recv().unwrap();
        let pool = ThreadPool::new(1);
        let main = ThreadState::of_this_thread();
        drop(pool.submit(move || {
            eventually("the end of main waits for it", || main.sleeps());
            println!("apple");
        }));
        return;
    }
    let (stdout, _) = child::run("python::shutdown::test_interpreter_shutdown");
    assert!(stdout.contains("apple"), "{stdout}");
}

#[test]
fn test_hang_issue12364() {
    with_watchdog(|| {
        let pool = ThreadPool::new(5);
        let handles: Vec<_> = (0..50).map(|i| pool.submit(move || i)).collect();
        pool.shutdown().join();
        for (i, mut handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.try_join().unwrap().unwrap(), i);
        }
    });
}

#[test]
fn test_cancel_futures() {
    with_watchdog(|| {
        let pool = ThreadPool::new(5);
        let ready = Arc::new(Barrier::new(6));
        let started = [(); 5].map(|()| {
            let ready = Arc::clone(&ready);
            pool.submit(move || {
                ready.wait();
                eventually("the waiters get the error", cancel_requested);
            })
        });
        ready.wait();
        let joined = pool.submit(|| ());
        let waiter = spawn_until_asleep(move || joined.join());
        let mut awaited = pool.submit(|| ());
        let (task, waker) = CountingWaker::new();
        assert!(poll_with(&mut awaited, &waker).is_pending());
        let queued: Vec<_> = (0..43).map(|_| pool.submit(|| ())).collect();

        pool.shutdown_now().join();
        assert_eq!(pool.metrics().cancelled, 45);
        assert!(waiter.join().unwrap().unwrap_err().is_cancelled());
        eventually("the task is woken", || task.count() == 1);
        for mut handle in queued.into_iter().chain([awaited]) {
            assert!(handle.try_join().unwrap().unwrap_err().is_cancelled());
        }
        for mut handle in started {
            assert!(handle.try_join().unwrap().is_ok());
        }
    });
}

// DIFFERENCE: as in `test_interpreter_shutdown`, the end of `main` waits for a pool that is dropped
// there, and not for a leaked one; it never hangs.
#[test]
fn test_hang_gh83386() {
    if child::is_child() {
        let leaked = ThreadPool::new(1);
        let (tell, told) = mpsc::channel();
        drop(leaked.submit(move || {
            tell.send(()).unwrap();
            loop {
                thread::park();
            }
        }));
        told.recv().unwrap();
        drop(leaked.shutdown());
        std::mem::forget(leaked);

        let pool = ThreadPool::new(1);
        let main = ThreadState::of_this_thread();
        drop(pool.submit(move || {
            eventually("the end of main waits for it", || main.sleeps());
            println!("apple");
        }));
        drop(pool.shutdown());
        return;
    }
    let (stdout, _) = child::run("python::shutdown::test_hang_gh83386");
    assert!(stdout.contains("apple"), "{stdout}");
}

#[test]
fn test_hang_gh94440() {
    with_watchdog(|| {
        for _ in 0..500 {
            let pool = ThreadPool::new(1);
            let handle = pool.submit(|| ());
            let was_cancelled = handle.cancel();
            pool.shutdown().join();
            assert_eq!(handle.join().is_err(), was_cancelled);
        }
    });
}

#[test]
fn ThreadPool_test_threads_terminate() {
    with_watchdog(|| {
        let (alive, builder) = counted(8);
        let pool = builder.build().unwrap();
        let blocked = block_workers(&pool, 3);
        assert_eq!((pool.metrics().workers, threads(&alive)), (3, 3));
        blocked.release();
        pool.shutdown().join();
        assert_eq!((pool.metrics().workers, threads(&alive)), (0, 0));
    });
}

// DIFFERENCE: the scope of the variable is the block of Python's `with`.
#[test]
fn ThreadPool_test_context_manager_shutdown() {
    with_watchdog(|| {
        let (alive, builder) = counted(2);
        let handles = {
            let pool = builder.build().unwrap();
            let handles = [-2_i32, -1, 0, 1].map(|i| pool.submit(move || i.abs()));
            block_workers(&pool, 1).release();
            assert!(threads(&alive) > 0);
            handles
        };
        assert_eq!(threads(&alive), 0);
        let results = handles.map(|mut handle| handle.try_join().unwrap().unwrap());
        assert_eq!(results, [2, 1, 0, 1]);
    });
}

// DIFFERENCE: a drop also is the end of the block, and waits; Python's `del` does not.
#[test]
fn ThreadPool_test_del_shutdown() {
    with_watchdog(|| {
        let (alive, builder) = counted(2);
        let pool = builder.build().unwrap();
        let blocked = block_workers(&pool, 2);
        let handles: Vec<_> = (0..10).map(|i| pool.submit(move || i)).collect();
        let gate = blocked.gate();
        let opener = thread::spawn(move || gate.open());
        drop(pool);
        opener.join().unwrap();
        assert_eq!(threads(&alive), 0);
        let results = handles
            .into_iter()
            .map(|mut h| h.try_join().unwrap().unwrap());
        assert!(results.eq(0..10));
    });
}

#[test]
fn ThreadPool_test_shutdown_no_wait() {
    with_watchdog(|| {
        let (alive, builder) = counted(5);
        let pool = builder.build().unwrap();
        let blocked = block_workers(&pool, 5);
        let queued = [-2_i32, -1, 0, 1].map(|i| pool.submit(move || i.abs()));
        // It returns although all workers are blocked.
        let end = pool.shutdown();
        assert_eq!(threads(&alive), 5);
        blocked.release();
        assert_eq!(queued.map(|handle| handle.join().unwrap()), [2, 1, 0, 1]);
        block_on(end);
        assert_eq!(pool.metrics().workers, 0);
        eventually("the threads are gone", || threads(&alive) == 0);
    });
}

fn names_of_five(builder: ThreadPoolBuilder) -> BTreeSet<String> {
    let pool = builder.max_workers(5).build().unwrap();
    let together = Arc::new(Barrier::new(5));
    let handles = [(); 5].map(|()| {
        let together = Arc::clone(&together);
        pool.submit(move || {
            together.wait();
            thread::current().name().unwrap().to_owned()
        })
    });
    handles.map(|handle| handle.join().unwrap()).into()
}

// DIFFERENCE: a hyphen precedes the number, not an underscore.
#[test]
fn ThreadPool_test_thread_names_assigned() {
    with_watchdog(|| {
        let names = names_of_five(ThreadPool::builder().thread_name_prefix("SpecialPool"));
        let wanted = [0, 1, 2, 3, 4].map(|i| format!("SpecialPool-{i}"));
        assert_eq!(names, wanted.into());
    });
}

#[test]
fn ThreadPool_test_thread_names_default() {
    with_watchdog(|| {
        let prefixes = [(); 2].map(|()| {
            let names = names_of_five(ThreadPool::builder());
            let prefixes = names.iter().enumerate().map(|(i, name)| {
                let prefix = name.strip_suffix(&format!("-{i}"));
                prefix.expect("numbered from 0").to_owned()
            });
            let prefixes: BTreeSet<_> = prefixes.collect();
            assert_eq!(prefixes.len(), 1, "{prefixes:?}");
            prefixes
        });
        assert_ne!(prefixes[0], prefixes[1]);
    });
}

#[test]
fn ThreadPool_test_cancel_futures_wait_false() {
    if child::is_child() {
        let pool = ThreadPool::new(2);
        for _ in 0..10 {
            drop(pool.submit(|| thread::sleep(Duration::from_millis(1))));
        }
        drop(pool.shutdown_now());
        return;
    }
    let test = "python::shutdown::ThreadPool_test_cancel_futures_wait_false";
    let (_, stderr) = child::run(test);
    assert_eq!(stderr, "");
}

// A job that resubmits itself forever must not keep a pool from terminating.
#[test]
fn test_hang_global_shutdown_lock() {
    with_watchdog(|| {
        fn again(pool: &Arc<ThreadPool>) {
            let inner = Arc::clone(pool);
            drop(pool.submit(move || again(&inner)));
        }
        let pool = Arc::new(ThreadPool::new(2));
        again(&pool);
        eventually("it resubmits itself", || pool.metrics().completed > 100);
        pool.shutdown().join();
        assert_eq!(pool.metrics().workers, 0);
    });
}
