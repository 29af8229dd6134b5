use std::collections::BTreeSet;
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futurepool::{ThreadPool, as_completed, block_on};
use futures::{FutureExt, StreamExt};

use super::{States, with_watchdog};

#[test]
fn test_no_timeout() {
    with_watchdog(|| {
        for stream in [false, true] {
            let states = States::new();
            let mut results = as_completed([
                states.pending.tag("pending"),
                states.cancelled.tag("cancelled"),
                states.running.tag("running"),
                states.panicked.tag("panicked"),
                states.returned.tag("returned"),
            ]);
            let mut next = || match stream {
                false => results.wait_next(),
                true => block_on(results.next()),
            };
            let mut seen = BTreeSet::new();
            for _ in 0..3 {
                let (key, result) = next().unwrap();
                assert_eq!(result.is_ok(), key == "returned");
                assert!(seen.insert(key));
            }
            assert_eq!(seen, ["cancelled", "panicked", "returned"].into());
            drop(states.go);
            assert_eq!(next().unwrap().0, "running");
            let (key, result) = next().unwrap();
            assert_eq!((key, result.unwrap()), ("pending", 44));
            assert!(next().is_none());
        }
    });
}

#[test]
fn test_future_times_out() {
    with_watchdog(|| {
        let short = Duration::from_millis(50);
        for (limit, stream) in [(Duration::ZERO, false), (short, false), (short, true)] {
            let states = States::new();
            let handles = [
                states.pending,
                states.cancelled,
                states.running,
                states.panicked,
                states.returned,
            ];
            let start = Instant::now();
            let mut results = as_completed(handles).timeout(limit);
            let mut next = || match stream {
                false => results.wait_next(),
                true => block_on(results.next()),
            };
            let mut done = Vec::new();
            let error = loop {
                match next().unwrap() {
                    Ok(result) => done.push(result.ok()),
                    Err(error) => break error,
                }
            };
            assert!(start.elapsed() >= limit);
            done.sort();
            assert_eq!(done, [None, None, Some(42)]);
            assert_eq!((error.pending(), error.total()), (2, 5));
            assert!(next().is_none());
            drop(states.go);
            let rest = results
                .into_pending()
                .into_iter()
                .map(|h| h.join().unwrap());
            assert!(
                rest.eq([44, 43]),
                "they are as they were, in the order given"
            );
        }
    });
}

// DIFFERENCE: a handle cannot be cloned, and its result is taken once. A clone of a shared future
// is a future of its own, and each clone yields the result. What remains of Python's test is that
// any iterator is accepted.
#[test]
fn test_duplicate_futures() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let shared = pool.submit(|| 5).map(Result::unwrap).shared();
        let results = as_completed(iter::repeat_n(shared, 3)).into_iter();
        assert!(results.eq([5, 5, 5]));
        let results = as_completed((0..3).map(|i| pool.submit(move || i)));
        let seen: BTreeSet<_> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(seen, (0..3).collect());
    });
}

#[test]
fn test_free_reference_yielded_future() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let values = [0, 1, 2].map(Arc::new);
        let weak = values.each_ref().map(Arc::downgrade);
        let handles = values.map(|value| pool.submit(move || value).tag(()));
        let mut results = as_completed(handles);
        while let Some(((), result)) = results.wait_next() {
            let index = *result.unwrap();
            assert!(weak[index].upgrade().is_none());
        }
    });
}

#[test]
fn test_correct_timeout_exception_msg() {
    with_watchdog(|| {
        let states = States::new();
        let handles = [
            states.cancelled,
            states.returned,
            states.pending,
            states.running,
        ];
        let results = as_completed(handles).timeout(Duration::ZERO).into_iter();
        let error = results.last().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "2 (of 4) futures unfinished");
    });
}
