//! Any thread may be unparked spuriously, and any code may park its thread and so consume a wake-up
//! that was meant for other code. No wait ends early or late because of that, and no job is lost.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::common::{Gate, LONG, block_workers, eventually, spawn_until_asleep, within};
use futurepool::{ReturnWhen, ThreadPool, as_completed, block_on, wait};

/// Enough rounds for many spurious wake-ups of each thread.
const OFTEN: usize = 2_000;

fn unpark_often(thread: &Thread) {
    for _ in 0..OFTEN {
        thread.unpark();
        thread::yield_now();
    }
}

/// Runs `f` in a thread that is unparked all the time.
fn unparked_all_along<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        let thread = scope.spawn(f);
        while !thread.is_finished() {
            thread.thread().unpark();
            thread::yield_now();
        }
        thread.join().unwrap()
    })
}

/// Asserts that `waits` does not return before `end` is called, however often its thread is
/// unparked.
#[track_caller]
fn assert_waits<R: Send + 'static>(
    waits: impl FnOnce() -> R + Send + 'static,
    end: impl FnOnce(),
) -> R {
    let waiting = spawn_until_asleep(waits);
    unpark_often(waiting.thread());
    assert!(!waiting.is_finished(), "it ended by a spurious unpark");
    end();
    within(LONG, "the wait", move || waiting.join().unwrap())
}

#[test]
fn blocking_waits_survive_spurious_unparks() {
    let gate = Gate::new();
    let pool = Arc::new(
        ThreadPool::builder()
            .max_workers(1)
            .queue_capacity(1)
            .build()
            .unwrap(),
    );
    let job = |gate: &Gate| {
        let gate = gate.clone();
        move || gate.wait()
    };

    let handle = pool.submit(job(&gate));
    assert_waits(|| handle.join(), || gate.open()).unwrap();

    let gate = Gate::new();
    let handle = pool.submit(job(&gate));
    assert_waits(|| block_on(handle), || gate.open()).unwrap();

    let gate = Gate::new();
    let handle = pool.submit(job(&gate));
    let waited = assert_waits(
        || wait([handle], ReturnWhen::FirstCompleted).join(),
        || gate.open(),
    );
    assert_eq!(waited.done.len(), 1);

    let gate = Gate::new();
    let handle = pool.submit(job(&gate));
    let first = assert_waits(|| as_completed([handle]).wait_next(), || gate.open());
    first.unwrap().unwrap();

    let gate = Gate::new();
    let running = block_workers(&pool, 1);
    let queued = pool.submit(|| 1);
    let full = Arc::clone(&pool);
    let submit = move || full.submit(|| 2);
    let last = assert_waits(submit, || running.release());
    assert_eq!((queued.join().unwrap(), last.join().unwrap()), (1, 2));

    let last = pool.submit(job(&gate));
    let ending = pool.shutdown();
    assert_waits(|| ending.join(), || gate.open());
    last.join().unwrap();
}

#[test]
fn a_timeout_is_kept_when_the_thread_is_unparked_all_the_time() {
    const LIMIT: Duration = Duration::from_millis(100);
    within(LONG, "the timeouts", || {
        let pool = ThreadPool::new(1);
        let running = block_workers(&pool, 1);
        let mut handle = pool.submit(|| ());
        let timed = |what: &str, f: &mut (dyn FnMut() + Send)| {
            let start = Instant::now();
            unparked_all_along(f);
            assert!(start.elapsed() >= LIMIT, "{what} ended early");
        };
        timed("join_timeout", &mut || {
            assert!(handle.join_timeout(LIMIT).unwrap_err().is_timeout());
        });
        let mut handles = Some(vec![handle]);
        timed("wait", &mut || {
            let waited = wait(handles.take().unwrap(), ReturnWhen::AllCompleted);
            let waited = waited.timeout(LIMIT).join();
            assert_eq!(waited.not_done.len(), 1);
        });
        timed("as_completed", &mut || {
            let handle = pool.submit(|| ());
            let mut results = as_completed([handle]).timeout(LIMIT);
            assert!(results.wait_next().unwrap().is_err());
        });
        timed("shutdown", &mut || {
            assert!(pool.shutdown().join_timeout(LIMIT).is_err());
        });
        running.release();
    });
}

#[test]
fn workers_that_are_unparked_spuriously_run_each_job_once() {
    const WORKERS: usize = 3;
    within(LONG, "the jobs", || {
        let pool = ThreadPool::new(WORKERS);
        // All of them start.
        let (seen, threads) = mpsc::channel();
        let gate = Gate::new();
        let handles: Vec<_> = (0..WORKERS)
            .map(|_| {
                let (seen, gate) = (seen.clone(), gate.clone());
                pool.submit(move || {
                    seen.send(thread::current()).unwrap();
                    gate.wait();
                })
            })
            .collect();
        let threads: Vec<_> = threads.iter().take(WORKERS).collect();
        gate.open();
        handles
            .into_iter()
            .for_each(|handle| handle.join().unwrap());

        let over = AtomicBool::new(false);
        let runs = Arc::new(AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    threads.iter().for_each(Thread::unpark);
                    thread::yield_now();
                }
            });
            // One at a time, so that the workers park again and again; and several at once.
            for round in 0..OFTEN {
                let jobs = if round % 8 == 0 { WORKERS } else { 1 };
                let job = |_| {
                    let runs = Arc::clone(&runs);
                    pool.submit(move || runs.fetch_add(1, SeqCst))
                };
                let handles: Vec<_> = (0..jobs).map(job).collect();
                for handle in handles {
                    handle.join().unwrap();
                }
            }
            over.store(true, SeqCst);
        });
        let metrics = pool.metrics();
        assert_eq!(metrics.workers, WORKERS as u64);
        assert_eq!(runs.load(SeqCst) + WORKERS as u64, metrics.completed);
        eventually("they sleep again", || pool.metrics().idle == WORKERS as u64);
        // Each worker can still be woken.
        block_workers(&pool, WORKERS).release();
    });
}

#[test]
fn a_worker_unparked_spuriously_stays_for_its_keep_alive() {
    const TIME: Duration = Duration::from_millis(100);
    within(LONG, "the worker", || {
        let pool = ThreadPool::builder()
            .max_workers(1)
            .keep_alive(TIME)
            .build()
            .unwrap();
        let start = Instant::now();
        let worker = pool.submit(thread::current).join().unwrap();
        while pool.metrics().workers == 1 {
            worker.unpark();
            thread::yield_now();
        }
        assert!(
            start.elapsed() >= TIME,
            "it exited after {:?}",
            start.elapsed()
        );
    });
}

#[test]
fn a_job_that_parks_or_unparks_its_own_thread_does_no_harm() {
    within(LONG, "the jobs", || {
        let pool = ThreadPool::new(1);
        for _ in 0..OFTEN {
            let token_left = pool.submit(|| thread::current().unpark());
            let token_taken = pool.submit(|| {
                thread::current().unpark();
                thread::park();
            });
            token_left.join().unwrap();
            token_taken.join().unwrap();
        }
    });
}

#[test]
fn a_future_that_parks_in_its_poll_is_polled_again_when_it_was_woken() {
    within(LONG, "block_on", || {
        let mut polls = 0;
        block_on(poll_fn(|context| {
            polls += 1;
            if polls == 10 {
                return Poll::Ready(());
            }
            // Consumes the wake-up that was meant for `block_on`.
            context.waker().wake_by_ref();
            thread::park_timeout(Duration::from_millis(1));
            Poll::Pending
        }));
    });
}
