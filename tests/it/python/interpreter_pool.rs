use std::error::Error;
use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};

use futurepool::ThreadPool;

use super::with_watchdog;
use crate::common::Gate;

#[test]
fn test_init_func() {
    with_watchdog(|| {
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        let builder = ThreadPool::builder().initializer(move || flag.store(true, SeqCst));
        let pool = builder.build().unwrap();
        assert_eq!(pool.metrics().workers, 0);
        assert!(!ran.load(SeqCst));
        let seen = Arc::clone(&ran);
        assert!(pool.submit(move || seen.load(SeqCst)).join().unwrap());
    });
}

#[test]
fn test_init_exception_in_func() {
    with_watchdog(|| {
        let parse = || "spam".parse::<u8>().map(drop);
        let builder = ThreadPool::builder().max_workers(1);
        let pool = builder.initializer(parse).build().unwrap();
        let error = pool.submit(|| ()).join().unwrap_err();
        let original = parse().unwrap_err();
        assert!(error.to_string().contains(&original.to_string()), "{error}");
        assert_eq!(error.source().unwrap().downcast_ref(), Some(&original));
    });
}

#[test]
fn test_submit_exception_in_func() {
    with_watchdog(|| {
        #[derive(Debug, PartialEq)]
        struct Own(u8);
        let pool = ThreadPool::new(1);
        let payload = pool.submit(|| panic_any(Own(7))).join().unwrap_err();
        assert_eq!(payload.into_panic().downcast_ref(), Some(&Own(7)));
    });
}

#[test]
fn test_saturation() {
    with_watchdog(|| {
        let pool = ThreadPool::new(4);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (gate, (tell, told)) = (Gate::new(), mpsc::channel());
        let handles = (0..15 * 4).map(|_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            let (gate, tell) = (gate.clone(), tell.clone());
            pool.submit(move || {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tell.send(()).unwrap();
                gate.wait();
                now.fetch_sub(1, SeqCst);
            })
        });
        let handles: Vec<_> = handles.collect();
        for _ in 0..4 {
            told.recv().unwrap();
        }
        gate.open();
        handles
            .into_iter()
            .for_each(|handle| handle.join().unwrap());
        assert_eq!(most.load(SeqCst), 4);
    });
}

/// Ten jobs report that they are ready, each in its time, and then wait for a permission to
/// continue, one for each ready job.
fn ready_and_go(workers: usize) {
    let pool = ThreadPool::new(workers);
    let (tell, ready) = mpsc::channel();
    let handles = (0..10).map(|i| {
        let tell = tell.clone();
        pool.submit(move || {
            let (go, wait) = mpsc::channel();
            tell.send(go).unwrap();
            wait.recv().unwrap();
            i
        })
    });
    let handles: Vec<_> = handles.collect();
    for _ in 0..10 {
        ready.recv().unwrap().send(()).unwrap();
    }
    assert!(handles.into_iter().map(|h| h.join().unwrap()).eq(0..10));
    assert!(pool.metrics().workers <= workers as u64);
}

#[test]
fn test_blocking() {
    with_watchdog(|| ready_and_go(10));
}

#[test]
fn test_blocking_with_limited_workers() {
    with_watchdog(|| ready_and_go(4));
}
