use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use futurepool::{
    JoinHandle, ReturnWhen, Tagged, ThreadPool, Waited, block_on, wait, wait_results,
};

use super::{States, keys, told_job, with_watchdog};
use crate::common::{Gate, spawn_until_asleep};

type Handles = Vec<Tagged<&'static str, JoinHandle<u32>>>;

/// Waits in another thread, and returns when that thread sleeps. The wait must not have ended.
fn sleeping_wait(
    handles: Handles,
    when: ReturnWhen,
) -> std::thread::JoinHandle<Waited<Tagged<&'static str, JoinHandle<u32>>>> {
    let waiter = spawn_until_asleep(move || wait(handles, when).join());
    assert!(!waiter.is_finished());
    waiter
}

// DIFFERENCE: a handle cannot be in the list twice. It can be waited for twice, and the second wait
// does not hang.
#[test]
fn test_20369() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let handles = vec![pool.submit(|| 1)];
        let once = wait(handles, ReturnWhen::AllCompleted).join();
        let twice = wait(once.done, ReturnWhen::AllCompleted).join();
        assert!(twice.not_done.is_empty());
        let [handle] = <[_; 1]>::try_from(twice.done).unwrap();
        assert_eq!(handle.join().unwrap(), 1);
        let none = wait(Vec::<JoinHandle<()>>::new(), ReturnWhen::FirstCompleted).join();
        assert!(none.done.is_empty() && none.not_done.is_empty());
    });
}

// DIFFERENCE: Python's test has a cancelled future in the list and pins that it is not done; see
// `deviations`.
#[test]
fn test_first_completed() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let (_stay, slow) = told_job(&pool);
        let (go, fast) = told_job(&pool);
        let handles = vec![slow.tag("slow"), fast.tag("fast")];
        let waiter = sleeping_wait(handles, ReturnWhen::FirstCompleted);
        go.send(Ok(1)).unwrap();
        let waited = waiter.join().unwrap();
        assert_eq!(keys(&waited.done), ["fast"]);
        assert_eq!(keys(&waited.not_done), ["slow"]);
    });
}

#[test]
fn test_first_completed_some_already_completed() {
    with_watchdog(|| {
        let states = States::new();
        let handles = vec![
            states.cancelled.tag("cancelled"),
            states.running.tag("running"),
            states.returned.tag("returned"),
        ];
        let waited = wait(handles, ReturnWhen::FirstCompleted).join();
        assert_eq!(keys(&waited.done), ["cancelled", "returned"]);
        assert_eq!(keys(&waited.not_done), ["running"]);
    });
}

#[test]
fn test_first_exception() {
    with_watchdog(|| {
        // One worker for two jobs: the second ends after the result of the first is there.
        let (pool, other) = (ThreadPool::new(1), ThreadPool::new(1));
        let (first, succeeds) = told_job(&pool);
        let (second, fails) = told_job(&pool);
        let (_stay, long) = told_job(&other);
        let handles = vec![
            succeeds.tag("succeeds"),
            fails.tag("fails"),
            long.tag("long"),
        ];
        let waiter = sleeping_wait(handles, ReturnWhen::FirstException);
        first.send(Ok(1)).unwrap();
        second.send(Err("as it should".into())).unwrap();
        let mut waited = waiter.join().unwrap();
        assert_eq!(keys(&waited.done), ["succeeds", "fails"]);
        assert_eq!(keys(&waited.not_done), ["long"]);
        let failed = waited.done.pop().unwrap().into_inner().1;
        assert!(failed.join().unwrap_err().is_panic());
    });
}

// DIFFERENCE: an `Err` returned by a job is a result, so it only ends the wait that checks results.
#[test]
fn test_first_exception_of_results() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let (stay, hold) = mpsc::channel::<()>();
        let handles = vec![
            pool.submit(|| Ok(())),
            pool.submit(|| Err("an error of the job's own")),
            pool.submit(move || {
                let _ = hold.recv();
                Ok(())
            }),
        ];
        let waited = wait_results(handles, ReturnWhen::FirstException).join();
        assert_eq!((waited.done.len(), waited.not_done.len()), (2, 1));
        let handles: Vec<_> = waited.done.into_iter().chain(waited.not_done).collect();
        let (start, limit) = (Instant::now(), Duration::from_millis(20));
        let waited = wait(handles, ReturnWhen::FirstException)
            .timeout(limit)
            .join();
        assert!(start.elapsed() >= limit && waited.not_done.len() == 1);
        drop(stay);
    });
}

#[test]
fn test_first_exception_some_already_complete() {
    with_watchdog(|| {
        let states = States::new();
        let pool = ThreadPool::new(1);
        let (go, fails) = told_job(&pool);
        let handles = vec![
            states.returned.tag("returned"),
            states.pending.tag("pending"),
            states.cancelled.tag("cancelled"),
            fails.tag("fails"),
        ];
        // Neither the result nor the cancel ends the wait.
        let waiter = sleeping_wait(handles, ReturnWhen::FirstException);
        go.send(Err("as it should".into())).unwrap();
        let waited = waiter.join().unwrap();
        // DIFFERENCE: a cancelled job is done; Python's is not until a worker has seen it.
        assert_eq!(keys(&waited.done), ["returned", "cancelled", "fails"]);
        assert_eq!(keys(&waited.not_done), ["pending"]);
    });
}

#[test]
fn test_first_exception_one_already_failed() {
    with_watchdog(|| {
        let states = States::new();
        let handles = vec![
            states.running.tag("running"),
            states.panicked.tag("panicked"),
        ];
        let waited = wait(handles, ReturnWhen::FirstException).join();
        assert_eq!(keys(&waited.done), ["panicked"]);
        assert_eq!(keys(&waited.not_done), ["running"]);
    });
}

#[test]
fn test_all_completed() {
    with_watchdog(|| {
        let states = States::new();
        let handles = vec![
            states.panicked.tag("panicked"),
            states.pending.tag("pending"),
            states.cancelled.tag("cancelled"),
            states.running.tag("running"),
            states.returned.tag("returned"),
        ];
        let waiter = sleeping_wait(handles, ReturnWhen::AllCompleted);
        drop(states.go);
        let waited = waiter.join().unwrap();
        let order = ["panicked", "pending", "cancelled", "running", "returned"];
        assert_eq!(keys(&waited.done), order);
        assert!(waited.not_done.is_empty());
    });
}

#[test]
fn test_timeout() {
    with_watchdog(|| {
        let states = States::new();
        let handles = vec![
            states.cancelled.tag("cancelled"),
            states.panicked.tag("panicked"),
            states.running.tag("running"),
            states.returned.tag("returned"),
            states.pending.tag("pending"),
        ];
        let limit = Duration::from_millis(50);
        let start = Instant::now();
        let waited = wait(handles, ReturnWhen::AllCompleted)
            .timeout(limit)
            .join();
        assert!(start.elapsed() >= limit);
        let done = ["cancelled", "panicked", "returned"];
        assert_eq!(keys(&waited.done), done);
        assert_eq!(keys(&waited.not_done), ["running", "pending"]);
        let again: Vec<_> = waited.done.into_iter().chain(waited.not_done).collect();
        let again = wait(again, ReturnWhen::AllCompleted).timeout(limit);
        let waited = block_on(again);
        assert_eq!(keys(&waited.done), done);
    });
}

#[test]
fn test_pending_calls_race() {
    with_watchdog(|| {
        let pool = ThreadPool::new(100);
        let gate = Gate::new();
        let handles = (0..100).map(|_| {
            let gate = gate.clone();
            pool.submit(move || gate.wait())
        });
        let handles: Vec<_> = handles.collect();
        let waiter = spawn_until_asleep(move || wait(handles, ReturnWhen::AllCompleted).join());
        gate.open();
        assert_eq!(waiter.join().unwrap().done.len(), 100);

        for _ in 0..500 {
            let barrier = Arc::new(Barrier::new(4));
            let handles = (0..4).map(|_| {
                let barrier = Arc::clone(&barrier);
                pool.submit(move || barrier.wait())
            });
            let waited = wait(handles.collect::<Vec<_>>(), ReturnWhen::AllCompleted).join();
            assert_eq!((waited.done.len(), waited.not_done.len()), (4, 0));
        }
    });
}
