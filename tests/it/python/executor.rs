use std::io;
use std::iter;
use std::panic::panic_any;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futurepool::{JoinError, ThreadPool, block_on};
use futures::StreamExt;

use super::{all, in_every_runtime, text_of_panic, with_watchdog};
use crate::common::{Gate, block_workers, eventually};

fn square(i: u64) -> u64 {
    i * i
}

#[test]
fn test_submit() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        assert_eq!(pool.submit(|| 2_u64.pow(8)).join().unwrap(), 256);
        for result in in_every_runtime(|| pool.submit(|| 2_u64.pow(8))) {
            assert_eq!(result.unwrap(), 256);
        }
    });
}

#[test]
fn test_map() {
    with_watchdog(|| {
        let pool = ThreadPool::new(3);
        let serial: Vec<_> = (0..10).map(square).collect();
        assert_eq!(all(pool.map(0..10, square)), serial);
        assert_eq!(all(pool.map(0..10, square).chunk_size(3)), serial);
        let stream = pool.map(0..10, square).map(Result::unwrap);
        assert_eq!(block_on(stream.collect::<Vec<_>>()), serial);
    });
}

#[test]
fn test_map_exception() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let job = |i: u32| {
            assert_ne!(i, 2, "the bad item");
            i
        };
        for chunk in [1, 3] {
            let mut results = pool.map(0..4, job).chunk_size(chunk).into_iter();
            assert_eq!(results.next().unwrap().unwrap(), 0);
            assert_eq!(results.next().unwrap().unwrap(), 1);
            let error = results.next().unwrap().unwrap_err();
            assert!(error.is_panic() && error.to_string().contains("the bad item"));
            assert_eq!(results.next().unwrap().unwrap(), 3);
            assert!(results.next().is_none() && results.next().is_none());

            let stream = pool.map(0..4, job).chunk_size(chunk);
            let results = block_on(stream.map(Result::ok).collect::<Vec<_>>());
            assert_eq!(results, [Some(0), Some(1), None, Some(3)]);
        }
    });
}

#[test]
fn test_map_timeout_from_callable() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
        // As a result ...
        let job = move |i: u32| if i == 1 { Err(timed_out()) } else { Ok(i) };
        let results = all(pool.map(0..3, job).timeout(super::LONG));
        let kinds = results.into_iter().map(|r| r.map_err(|e| e.kind()));
        let kinds: Vec<_> = kinds.collect();
        assert_eq!(kinds, [Ok(0), Err(io::ErrorKind::TimedOut), Ok(2)]);
        // ... as a panic, and even as the very error of a wait.
        let timeout = || {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let error = pool.submit(|| ()).join_timeout(Duration::ZERO);
            drop(blocked);
            error.unwrap_err()
        };
        let job = move |i: u32| match i {
            1 => panic_any(timed_out()),
            2 => panic_any(timeout()),
            _ => i,
        };
        let mut map = pool.map(0..4, job).timeout(super::LONG);
        for i in 0..4 {
            match map.wait_next().unwrap() {
                Ok(result) => assert_eq!(result, i),
                Err(error) => assert!([1, 2].contains(&i) && error.is_panic(), "{error}"),
            }
        }
        assert!(map.wait_next().is_none());
    });
}

#[test]
fn test_map_timeout() {
    with_watchdog(|| {
        for stream in [false, true] {
            let pool = ThreadPool::new(1);
            let (gate, (tell, told)) = (Gate::new(), mpsc::channel());
            let wait = gate.clone();
            let job = move |i: u32| {
                if i == 2 {
                    tell.send(()).unwrap();
                    wait.wait();
                }
                i
            };
            let limit = Duration::from_millis(50);
            let mut map = pool.map(0..5, job).timeout(limit).start();
            let mut next = || match stream {
                false => map.wait_next(),
                true => block_on(map.next()),
            };
            told.recv().unwrap();
            // A finished result is yielded, however long it took.
            assert_eq!(next().unwrap().unwrap(), 0);
            assert_eq!(next().unwrap().unwrap(), 1);
            assert!(next().unwrap().unwrap_err().is_timeout());
            assert!(next().is_none() && next().is_none());
            assert_eq!(pool.metrics().cancelled, 2, "the rest is cancelled");
            gate.open();
            pool.shutdown().join();
            assert_eq!(pool.metrics().completed, 3);
        }
    });
}

// DIFFERENCE: there is no `close`; dropping the map or its iterator does the same.
#[test]
fn test_map_close() {
    with_watchdog(|| {
        for by_iterator in [false, true] {
            let pool = ThreadPool::new(1);
            let (gate, (tell, told)) = (Gate::new(), mpsc::channel());
            let wait = gate.clone();
            let job = move |i: u32| {
                if i == 1 {
                    tell.send(()).unwrap();
                    wait.wait();
                }
                i
            };
            let mut map = pool.map(0..10, job);
            if by_iterator {
                let mut results = map.into_iter();
                assert_eq!(results.next().unwrap().unwrap(), 0);
                told.recv().unwrap();
                drop(results);
            } else {
                assert_eq!(map.wait_next().unwrap().unwrap(), 0);
                told.recv().unwrap();
                drop(map);
            }
            assert_eq!(pool.metrics().cancelled, 8);
            gate.open();
            pool.shutdown().join();
            assert_eq!(pool.metrics().completed, 2);
        }
    });
}

// DIFFERENCE: a size of 0 is a bug in the program, so it panics. A negative size does not compile.
#[test]
fn test_map_buffersize_value_validation() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let mut items = 0..3;
        let text = text_of_panic(|| drop(pool.map(items.by_ref(), square).buffer_size(0)));
        assert!(text.contains("buffer"), "{text}");
        assert_eq!((items.next(), pool.metrics().submitted), (Some(0), 0));
    });
}

#[test]
fn test_map_buffersize() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let serial: Vec<_> = (0..4).map(square).collect();
        for size in [1, 2, 4, 8] {
            assert_eq!(all(pool.map(0..4, square).buffer_size(size)), serial);
            let stream = pool.map(0..4, square).buffer_size(size);
            let results = block_on(stream.map(Result::unwrap).collect::<Vec<_>>());
            assert_eq!(results, serial);
        }
    });
}

// DIFFERENCE: a map has one input; `zip` combines several. The same holds in the other test with
// several inputs.
#[test]
fn test_map_buffersize_on_multiple_iterables() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let serial: Vec<u64> = (0..4).zip(10..).map(|(a, b)| a * b).collect();
        for size in [1, 2, 4, 8] {
            let map = pool.map((0..4).zip(10..), |(a, b): (u64, u64)| a * b);
            assert_eq!(all(map.buffer_size(size)), serial);
        }
    });
}

#[test]
fn test_map_buffersize_on_infinite_iterable() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let map = pool.map(0_u64.., square).buffer_size(2);
        assert_eq!(all(map.into_iter().take(3)), [0, 1, 4]);
        let map = pool.map(0_u64.., square).buffer_size(2);
        let three = map.take(3).map(Result::unwrap);
        assert_eq!(block_on(three.collect::<Vec<_>>()), [0, 1, 4]);
        pool.shutdown().join();
    });
}

#[test]
fn test_map_buffersize_on_multiple_infinite_iterables() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let inputs = (0_u64..).zip(5_u64..);
        let map = pool.map(inputs, |(a, b)| a + b).buffer_size(2);
        assert_eq!(all(map.into_iter().take(3)), [5, 7, 9]);
        pool.shutdown().join();
    });
}

#[test]
fn test_map_buffersize_on_empty_iterable() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let map = || pool.map(iter::empty(), square).buffer_size(2);
        assert!(map().into_iter().next().is_none());
        assert!(map().wait_next().is_none());
        assert!(block_on(map().next()).is_none());
    });
}

// DIFFERENCE: a map starts at `start` or at the first request for a result; hence `start`.
#[test]
fn test_map_buffersize_when_buffer_is_full() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let mut items = 0..4;
        let map = pool.map(items.by_ref(), square).buffer_size(2).start();
        pool.shutdown().join();
        drop(map);
        assert_eq!(items.next(), Some(2));
        assert_eq!(pool.metrics().completed, 2);
    });
}

#[test]
fn test_shutdown_race_issue12456() {
    with_watchdog(|| {
        for _ in 0..300 {
            let pool = ThreadPool::new(3);
            let map = pool.map(0..=3, square).start();
            pool.shutdown().join();
            assert_eq!(all(map), [0, 1, 4, 9]);
        }
    });
}

#[test]
fn test_no_stale_references() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let captured = Arc::new(());
        let weak = Arc::downgrade(&captured);
        drop(pool.submit(move || captured));
        eventually("the pool drops it", || weak.upgrade().is_none());
        assert_eq!(pool.metrics().workers, 1);
    });
}

// DIFFERENCE: a negative number does not compile; 0 is rejected likewise.
#[test]
fn test_max_workers_negative() {
    let error = ThreadPool::builder().max_workers(0).build().unwrap_err();
    assert_eq!(error.field(), "max_workers");
    assert!(error.to_string().contains("max_workers"));
    let text = text_of_panic(|| drop(ThreadPool::new(0)));
    assert!(text.contains("max_workers"), "{text}");
}

#[test]
fn test_free_reference() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        for chunk in [1, 3] {
            let mut map = pool.map(0..8, Arc::new).chunk_size(chunk);
            while let Some(result) = map.wait_next() {
                let result = result.unwrap();
                let weak = Arc::downgrade(&result);
                assert_eq!(Arc::strong_count(&result), 1);
                drop(result);
                assert!(weak.upgrade().is_none());
            }
        }
    });
}

#[test]
fn test_swallows_falsey_exceptions() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let is_panic = |error: JoinError| error.is_panic();
        for handle in [
            pool.submit(|| panic_any(())),
            pool.submit(|| panic_any(0)),
            pool.submit(|| panic_any(false)),
            pool.submit(|| panic_any("")),
            pool.submit(|| panic_any(None::<()>)),
        ] {
            assert_eq!(handle.join().map_err(is_panic), Err(true));
        }
        assert_eq!(pool.submit(|| Err::<(), ()>(())).join().unwrap(), Err(()));
        assert_eq!(pool.metrics().panicked, 5);
    });
}

#[test]
fn test_swallows_falsey_exceptions_in_a_map() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let ran = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&ran);
        let job = move |_| {
            count.fetch_add(1, SeqCst);
            panic_any(())
        };
        let results: Vec<Result<(), _>> = pool.map(0..3, job).into_iter().collect();
        assert_eq!((results.len(), ran.load(SeqCst)), (3, 3));
        assert!(results.into_iter().all(|r| r.unwrap_err().is_panic()));
    });
}
