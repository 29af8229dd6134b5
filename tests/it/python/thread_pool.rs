use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use futurepool::ThreadPool;

use super::with_watchdog;
use crate::common::{Gate, block_workers, eventually};

// DIFFERENCE: a map is lazy, as iterators and streams are; `start` is the equivalent of Python's
// call.
#[test]
fn test_map_submits_without_iteration() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let ran = Arc::new(AtomicU32::new(0));
        let job = |_| {
            let ran = Arc::clone(&ran);
            move |_: u32| ran.fetch_add(1, SeqCst)
        };
        let mut items = 0..10;
        let lazy = pool.map(items.by_ref(), job(()));
        assert_eq!(pool.metrics().submitted, 0);
        drop(lazy);
        assert_eq!(items.next(), Some(0));
        let started = pool.map(0..10, job(())).start();
        pool.shutdown().join();
        assert_eq!(ran.load(SeqCst), 10);
        drop(started);
    });
}

#[test]
fn test_default_workers() {
    let processors = thread::available_parallelism().unwrap().get();
    let workers = ThreadPool::default().max_workers();
    assert_eq!(workers, (processors + 4).min(32));
    let built = ThreadPool::builder().build().unwrap();
    assert_eq!(built.max_workers(), workers);
}

#[test]
fn test_saturation() {
    with_watchdog(|| {
        let pool = ThreadPool::new(4);
        let gate = Gate::new();
        let wait = |_| {
            let gate = gate.clone();
            pool.submit(move || gate.wait())
        };
        let handles: Vec<_> = (0..60).map(wait).collect();
        eventually("all workers run", || pool.metrics().running == 4);
        let metrics = pool.metrics();
        assert_eq!((metrics.workers, metrics.queued), (4, 56));
        gate.open();
        for handle in handles {
            handle.join().unwrap();
        }
        assert_eq!(pool.metrics().workers, 4);
        pool.shutdown().join();
        assert_eq!(pool.metrics().workers, 0);
    });
}

#[test]
fn test_idle_thread_reuse() {
    with_watchdog(|| {
        let pool = ThreadPool::new(8);
        let ids: Vec<_> = (0..100)
            .map(|_| pool.submit(|| thread::current().id()).join().unwrap())
            .collect();
        assert!(ids.iter().all(|id| *id == ids[0]));
        assert_eq!(pool.metrics().workers, 1);
    });
}

#[test]
fn test_executor_map_current_future_cancel() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let ran = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&ran);
        let job = move |i: u32| log.lock().unwrap().push(i);
        let mut map = pool.map([2, 3], job).timeout(Duration::ZERO);
        assert!(map.wait_next().unwrap().unwrap_err().is_timeout());
        blocked.release();
        pool.shutdown().join();
        assert!(ran.lock().unwrap().is_empty());
        assert!(map.wait_next().is_none());
    });
}
