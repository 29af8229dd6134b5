//! Pools with a `queue_capacity`: how submitters wait for a permit, in which order they get one,
//! and when permits come back.

use std::cell::Cell;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Debug;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futurepool::{JoinError, JoinHandle, SubmitAsync, SubmitError, ThreadPool, block_on};

use crate::common::{
    Blocked, CountingWaker, Gate, LONG, ThreadState, block_workers, bounded_pool, eventually,
    poll_once, poll_with, spawn_until_asleep, within,
};

fn shared_pool(workers: usize, capacity: usize) -> Arc<ThreadPool> {
    Arc::new(bounded_pool(workers, capacity))
}

/// A pool whose only worker is blocked and whose queue is full.
struct Full {
    // Declared before the pool, whose drop waits for the worker.
    blocked: Blocked,
    queued: VecDeque<JoinHandle<()>>,
    pool: Arc<ThreadPool>,
}

fn full_pool(capacity: usize) -> Full {
    let pool = shared_pool(1, capacity);
    let blocked = block_workers(&pool, 1);
    let queued = (0..capacity).map(|_| pool.try_submit(|| ()).unwrap());
    let queued = queued.collect();
    assert!(is_full(&pool));
    Full {
        blocked,
        queued,
        pool,
    }
}

impl Full {
    /// Cancels the oldest job that `full_pool` queued, which releases a permit.
    fn release_permit(&mut self) {
        let oldest = self.queued.pop_front().expect("a queued job is left");
        assert!(oldest.cancel());
    }
}

/// Tries to submit. A failed attempt counts as rejected; a successful one leaves a job in the
/// queue.
fn is_full(pool: &ThreadPool) -> bool {
    match pool.try_submit(|| ()) {
        Ok(_) => false,
        Err(error) => {
            assert!(error.is_full() && !error.is_shutdown() && !error.is_broken());
            true
        }
    }
}

fn ready<F, T>(poll: Poll<Result<JoinHandle<T>, SubmitError<F>>>) -> JoinHandle<T> {
    match poll {
        Poll::Ready(Ok(handle)) => handle,
        other => panic!("it should have been accepted: {other:?}"),
    }
}

/// Returns a job that reports when it runs.
fn note<N: Send + 'static>(log: &Sender<N>, name: N) -> impl FnOnce() + Send + 'static + use<N> {
    let log = log.clone();
    move || log.send(name).expect("the test listens")
}

/// Returns the names in the order in which the jobs ran; ends when the last job is gone.
fn order<N>((log, ran): (Sender<N>, Receiver<N>)) -> Vec<N> {
    drop(log);
    ran.iter().collect()
}

/// How a pool stops taking jobs while submitters wait for a permit.
#[derive(Debug, Clone, Copy)]
enum End {
    Shutdown,
    ShutdownNow,
    Broken,
}

impl End {
    const ALL: [Self; 3] = [Self::Shutdown, Self::ShutdownNow, Self::Broken];

    fn matches(self, error: &JoinError) -> bool {
        match self {
            Self::Shutdown | Self::ShutdownNow => error.is_shutdown(),
            Self::Broken => error.is_broken() && error.to_string().contains("no licence"),
        }
    }

    fn matches_submit<F>(self, error: &SubmitError<F>) -> bool {
        assert!(!error.is_full());
        match self {
            Self::Shutdown | Self::ShutdownNow => error.is_shutdown() && !error.is_broken(),
            Self::Broken => {
                let cause = error.source().expect("a broken pool has a cause");
                assert_eq!(cause.to_string(), "no licence");
                error.is_broken() && !error.is_shutdown()
            }
        }
    }
}

/// A full pool of capacity 1 that can be shut down or broken while its first worker is still
/// blocked: its second worker is in the initializer, which fails as soon as the gate opens.
struct EndablePool {
    full: Full,
    fails: Gate,
}

impl EndablePool {
    fn new() -> Self {
        let fails = Gate::new();
        let initializer = {
            let (fails, is_first) = (fails.clone(), AtomicBool::new(true));
            move || match is_first.swap(false, Ordering::SeqCst) {
                true => Ok(()),
                false => {
                    fails.wait();
                    Err("no licence")
                }
            }
        };
        let builder = ThreadPool::builder().max_workers(2).queue_capacity(1);
        let pool = Arc::new(builder.initializer(initializer).build().unwrap());
        let blocked = block_workers(&pool, 1);
        let queued = VecDeque::from([pool.try_submit(|| ()).unwrap()]);
        assert!(is_full(&pool));
        let full = Full {
            blocked,
            queued,
            pool,
        };
        Self { full, fails }
    }

    fn end(&self, end: End) {
        match end {
            End::Shutdown => drop(self.full.pool.shutdown()),
            End::ShutdownNow => drop(self.full.pool.shutdown_now()),
            End::Broken => {
                self.fails.open();
                eventually("the pool breaks", || {
                    let refused = self.full.pool.try_submit(|| ());
                    refused.is_err_and(|error| error.is_broken())
                });
            }
        }
    }
}

impl Drop for EndablePool {
    fn drop(&mut self) {
        self.fails.open();
    }
}

#[test]
fn capacity_of_0_is_rejected() {
    let error = ThreadPool::builder().queue_capacity(0).build().unwrap_err();
    assert_eq!(error.field(), "queue_capacity");
}

#[test]
fn capacity_counts_only_jobs_that_have_not_started() {
    within(LONG, "capacity counts", || {
        let pool = shared_pool(2, 3);
        let blocked = block_workers(&pool, 2);
        for _ in 0..3 {
            drop(pool.try_submit(|| ()).unwrap());
        }
        assert!(is_full(&pool));
        assert_eq!((pool.metrics().running, pool.metrics().queued), (2, 3));
        blocked.release();
    });
}

#[test]
fn submit_blocks_until_a_permit_is_free() {
    within(LONG, "submit blocks", || {
        let mut full = full_pool(2);
        let pool = Arc::clone(&full.pool);
        let submitter = spawn_until_asleep(move || pool.submit(|| "ran"));
        assert!(!submitter.is_finished());
        assert_eq!(full.pool.metrics().queued, 2);

        full.release_permit();
        let handle = submitter.join().unwrap();
        assert_eq!(full.pool.metrics().queued, 2);
        full.blocked.release();
        assert_eq!(handle.join().unwrap(), "ran");
    });
}

#[test]
fn blocked_submits_fill_the_queue_to_its_capacity_and_no_further() {
    within(LONG, "blocked submits", || {
        let pool = shared_pool(2, 3);
        let blocked = block_workers(&pool, 2);
        let (log, ran) = mpsc::channel();
        let submitters: Vec<_> = (0..8)
            .map(|thread| {
                let (pool, log) = (Arc::clone(&pool), log.clone());
                spawn_until_asleep(move || {
                    for job in 0..5 {
                        drop(pool.submit(note(&log, (thread, job))));
                    }
                })
            })
            .collect();
        assert_eq!(pool.metrics().queued, 3);
        assert_eq!(pool.metrics().submitted, 2 + 3);

        blocked.release();
        for submitter in submitters {
            submitter.join().unwrap();
        }
        let mut ran = order((log, ran));
        ran.sort_unstable();
        let all: Vec<_> = (0..8).flat_map(|t| (0..5).map(move |j| (t, j))).collect();
        assert_eq!(ran, all);
    });
}

#[test]
fn try_submit_on_a_full_pool_gives_the_closure_back() {
    within(LONG, "try_submit", || {
        let full = full_pool(1);
        let text = String::from("mine again");
        let error = full.pool.try_submit(move || text).unwrap_err();
        assert!(error.is_full());
        assert!(!error.is_shutdown() && !error.is_broken());
        assert!(error.to_string().contains("full"), "{error}");
        assert!(error.source().is_none());
        let closure = error.into_inner();
        assert_eq!(closure(), "mine again");
        assert_eq!(full.pool.metrics().queued, 1);
    });
}

#[test]
fn a_submit_error_turns_into_an_io_error_and_drops_the_closure() {
    fn inner(error: &io::Error) -> &SubmitError<()> {
        let inner = error.get_ref().expect("the error keeps its cause");
        inner.downcast_ref().expect("a type that has a name")
    }
    fn submit(pool: &ThreadPool, captured: &Arc<()>) -> io::Result<usize> {
        let captured = Arc::clone(captured);
        let handle = pool.try_submit(move || Arc::strong_count(&captured))?;
        Ok(handle.join()?)
    }
    within(LONG, "io error", || {
        let captured = Arc::new(());
        let full = full_pool(1);
        let error = submit(&full.pool, &captured).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(inner(&error).is_full());
        assert_eq!(error.to_string(), "the pool's queue is full");
        assert_eq!(Arc::strong_count(&captured), 1, "the closure is gone");

        // The job's time ends before there is room.
        let late = full.pool.job(|| ()).expires_in(Duration::ZERO);
        let error = io::Error::from(block_on(late.submit_async()).unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(inner(&error).is_expired());

        drop(full.pool.shutdown());
        let error = submit(&full.pool, &captured).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Other);
        assert!(inner(&error).is_shutdown());

        let initializer = || Err::<(), _>("no database");
        let broken = ThreadPool::builder().initializer(initializer).build();
        let broken = broken.unwrap();
        assert!(broken.submit(|| ()).join().unwrap_err().is_broken());
        let error = submit(&broken, &captured).unwrap_err();
        assert!(inner(&error).is_broken());
        assert_eq!(error.source().unwrap().to_string(), "no database");
    });
}

#[test]
fn submit_error_is_an_error_for_every_closure_that_is_send() {
    fn assert_error<E: Error + Debug + Send + Sync + 'static>(error: E) -> E {
        error
    }
    within(LONG, "SubmitError", || {
        let full = full_pool(1);
        // The closure is `Send`, but not `Sync`, `Debug` or `Clone`.
        let cell = Cell::new(1);
        let refused = full.pool.try_submit(move || {
            cell.set(cell.get() + 1);
            cell.get()
        });
        let error = assert_error(refused.unwrap_err());
        assert!(format!("{error:?}").contains("Full"));
        assert_eq!(error.into_inner()(), 2);

        let cell = Cell::new(3);
        let mut waiting = full.pool.submit_async(move || cell.get());
        assert!(poll_once(&mut waiting).is_pending());
        drop(full.pool.shutdown());
        let Poll::Ready(Err(error)) = poll_once(&mut waiting) else {
            panic!("the pool is shut down");
        };
        let boxed: Box<dyn Error + Send + Sync> = Box::new(assert_error(error));
        assert!(boxed.to_string().contains("shut down"), "{boxed}");
    });
}

#[test]
fn submit_async_is_send_unpin_and_static() {
    fn assert_bounds<T: Send + Unpin + 'static>(_: &T) {}
    let pool = ThreadPool::new(1);
    let cell = Cell::new(0);
    let future = pool.submit_async(move || cell.replace(1));
    assert_bounds(&future);
    // The future outlives its pool.
    drop(pool);
    let error = futurepool::block_on(future).unwrap_err();
    assert!(error.is_shutdown());
}

#[test]
fn submit_async_is_ready_at_once_while_a_permit_is_free() {
    within(LONG, "permit", || {
        let mut full = full_pool(2);
        full.release_permit();
        let handle = ready(poll_once(&mut full.pool.submit_async(|| 5)));
        assert!(is_full(&full.pool));
        full.blocked.release();
        assert_eq!(handle.join().unwrap(), 5);
    });
}

#[test]
fn submit_async_waits_for_a_permit() {
    within(LONG, "submit_async waits", || {
        let mut full = full_pool(1);
        let (wakes, waker) = CountingWaker::new();
        let mut waiting = full.pool.submit_async(|| 5);
        assert!(poll_with(&mut waiting, &waker).is_pending());
        assert!(poll_with(&mut waiting, &waker).is_pending());
        assert_eq!(wakes.count(), 0);
        assert_eq!(full.pool.metrics().queued, 1);

        full.release_permit();
        assert_eq!(wakes.count(), 1);
        let handle = ready(poll_with(&mut waiting, &waker));
        full.blocked.release();
        assert_eq!(handle.join().unwrap(), 5);
        assert_eq!(wakes.count(), 1);
    });
}

#[test]
fn submit_async_that_was_never_polled_neither_submits_nor_queues() {
    within(LONG, "never polled", || {
        let mut full = full_pool(1);
        let (wakes, waker) = CountingWaker::new();
        let mut early = full.pool.submit_async(|| ());
        let mut late = full.pool.submit_async(|| ());
        assert!(poll_with(&mut late, &waker).is_pending());
        full.release_permit();
        assert_eq!(wakes.count(), 1);
        assert!(poll_once(&mut early).is_pending());
        drop(ready(poll_once(&mut late)));

        let before = full.pool.metrics();
        drop(full.pool.submit_async(|| ()));
        assert_eq!(full.pool.metrics(), before);
    });
}

#[test]
fn submit_async_serves_futures_in_the_order_of_their_first_poll() {
    within(LONG, "first polled", || {
        const ORDER: [usize; 5] = [3, 0, 4, 1, 2];
        let mut full = full_pool(ORDER.len());
        let log = mpsc::channel();
        let mut futures: Vec<_> = (0..ORDER.len())
            .map(|n| full.pool.submit_async(note(&log.0, n)))
            .collect();
        let wakers: Vec<_> = ORDER.iter().map(|_| CountingWaker::new()).collect();
        for n in ORDER {
            assert!(poll_with(&mut futures[n], &wakers[n].1).is_pending());
        }
        // A second poll does not change the order.
        for n in 0..ORDER.len() {
            assert!(poll_with(&mut futures[n], &wakers[n].1).is_pending());
        }
        for (served, n) in ORDER.into_iter().enumerate() {
            full.release_permit();
            for (position, m) in ORDER.into_iter().enumerate() {
                assert_eq!(wakers[m].0.count(), usize::from(position <= served));
                if position > served {
                    assert!(poll_with(&mut futures[m], &wakers[m].1).is_pending());
                }
            }
            drop(ready(poll_with(&mut futures[n], &wakers[n].1)));
        }
        drop(futures);
        full.blocked.release();
        assert_eq!(order(log), ORDER);
    });
}

#[test]
fn try_submit_does_not_overtake_a_waiting_future() {
    within(LONG, "try_submit overtakes", || {
        let mut full = full_pool(2);
        let mut waiting = full.pool.submit_async(|| ());
        assert!(poll_once(&mut waiting).is_pending());
        full.release_permit();
        // The permit belongs to the waiting future, which has not been polled since.
        assert_eq!(full.pool.metrics().queued, 1);
        assert!(is_full(&full.pool));
        drop(ready(poll_once(&mut waiting)));
        assert!(is_full(&full.pool));
    });
}

#[test]
fn submit_does_not_overtake_submit_async() {
    within(LONG, "submit overtakes", || {
        let mut full = full_pool(2);
        let log = mpsc::channel();
        let (wakes, waker) = CountingWaker::new();
        let mut waiting = full.pool.submit_async(note(&log.0, "async"));
        assert!(poll_with(&mut waiting, &waker).is_pending());
        let submitter = {
            let (pool, job) = (Arc::clone(&full.pool), note(&log.0, "sync"));
            spawn_until_asleep(move || drop(pool.submit(job)))
        };
        full.release_permit();
        assert_eq!(wakes.count(), 1);
        assert_eq!(full.pool.metrics().queued, 1);
        drop(ready(poll_with(&mut waiting, &waker)));
        assert!(!submitter.is_finished());
        full.release_permit();
        submitter.join().unwrap();
        full.blocked.release();
        drop(waiting);
        assert_eq!(order(log), ["async", "sync"]);
    });
}

#[test]
fn submit_async_does_not_overtake_submit() {
    within(LONG, "submit_async overtakes", || {
        let mut full = full_pool(2);
        let log = mpsc::channel();
        let submitter = {
            let (pool, job) = (Arc::clone(&full.pool), note(&log.0, "sync"));
            spawn_until_asleep(move || drop(pool.submit(job)))
        };
        let (wakes, waker) = CountingWaker::new();
        let mut waiting = full.pool.submit_async(note(&log.0, "async"));
        assert!(poll_with(&mut waiting, &waker).is_pending());
        full.release_permit();
        submitter.join().unwrap();
        assert_eq!(wakes.count(), 0);
        assert!(poll_with(&mut waiting, &waker).is_pending());
        full.release_permit();
        assert_eq!(wakes.count(), 1);
        drop(ready(poll_with(&mut waiting, &waker)));
        full.blocked.release();
        drop(waiting);
        assert_eq!(order(log), ["sync", "async"]);
    });
}

#[test]
fn blocked_submits_are_served_in_fifo_order() {
    within(LONG, "blocked submits in order", || {
        let full = full_pool(1);
        let log = mpsc::channel();
        let submitters: Vec<_> = (0..6)
            .map(|n| {
                let (pool, job) = (Arc::clone(&full.pool), note(&log.0, n));
                spawn_until_asleep(move || drop(pool.submit(job)))
            })
            .collect();
        full.blocked.release();
        for submitter in submitters {
            submitter.join().unwrap();
        }
        assert_eq!(order(log), [0, 1, 2, 3, 4, 5]);
    });
}

#[test]
fn submit_async_dropped_while_waiting_submits_nothing_and_leaks_no_permit() {
    within(LONG, "dropped while waiting", || {
        let mut full = full_pool(1);
        let before = full.pool.metrics();
        let (wakes, waker) = CountingWaker::new();
        let captured = Arc::new(());
        let mut first = {
            let captured = Arc::clone(&captured);
            full.pool.submit_async(move || drop(captured))
        };
        let mut second = full.pool.submit_async(|| ());
        assert!(poll_once(&mut first).is_pending());
        assert!(poll_with(&mut second, &waker).is_pending());
        drop(first);
        assert_eq!(Arc::strong_count(&captured), 1);
        assert_eq!(full.pool.metrics(), before);
        assert_eq!(wakes.count(), 0);

        full.release_permit();
        assert_eq!(wakes.count(), 1);
        drop(ready(poll_with(&mut second, &waker)));
    });
}

#[test]
fn submit_async_dropped_with_a_granted_permit_passes_it_on() {
    within(LONG, "granted and dropped", || {
        let mut full = full_pool(1);
        let (first_wakes, first_waker) = CountingWaker::new();
        let (second_wakes, second_waker) = CountingWaker::new();
        let mut first = full.pool.submit_async(|| ());
        let mut second = full.pool.submit_async(|| ());
        assert!(poll_with(&mut first, &first_waker).is_pending());
        assert!(poll_with(&mut second, &second_waker).is_pending());
        full.release_permit();
        assert_eq!((first_wakes.count(), second_wakes.count()), (1, 0));
        drop(first);
        assert_eq!((first_wakes.count(), second_wakes.count()), (1, 1));
        // The permit has passed to the second future, which is dropped like the first. No other
        // submitter waits, so the permit is free.
        drop(second);
        assert!(!is_full(&full.pool));
        assert!(is_full(&full.pool));
    });
}

#[test]
fn granted_permit_that_is_dropped_goes_to_a_blocked_submit() {
    within(LONG, "granted to a blocked submit", || {
        let mut full = full_pool(1);
        let mut waiting = full.pool.submit_async(|| ());
        assert!(poll_once(&mut waiting).is_pending());
        let pool = Arc::clone(&full.pool);
        let submitter = spawn_until_asleep(move || pool.submit(|| "ran"));
        full.release_permit();
        drop(waiting);
        let handle = submitter.join().unwrap();
        full.blocked.release();
        assert_eq!(handle.join().unwrap(), "ran");
    });
}

#[test]
fn replaced_waker_is_dropped_and_only_the_last_waker_is_called() {
    within(LONG, "wakers replaced", || {
        let mut full = full_pool(1);
        let (first_wakes, first_waker) = CountingWaker::new();
        let (second_wakes, second_waker) = CountingWaker::new();
        let mut waiting = full.pool.submit_async(|| ());
        let unused = Arc::strong_count(&first_wakes);
        assert!(poll_with(&mut waiting, &first_waker).is_pending());
        assert!(Arc::strong_count(&first_wakes) > unused);
        assert!(poll_with(&mut waiting, &second_waker).is_pending());
        assert_eq!(Arc::strong_count(&first_wakes), unused);
        full.release_permit();
        assert_eq!((first_wakes.count(), second_wakes.count()), (0, 1));
        drop(ready(poll_once(&mut waiting)));
        assert_eq!(Arc::strong_count(&second_wakes), unused);
    });
}

#[test]
fn dropped_submit_async_keeps_no_waker() {
    within(LONG, "no waker kept", || {
        let full = full_pool(1);
        let (wakes, waker) = CountingWaker::new();
        let mut waiting = full.pool.submit_async(|| ());
        assert!(poll_with(&mut waiting, &waker).is_pending());
        drop((waiting, waker));
        assert_eq!(Arc::strong_count(&wakes), 1);
    });
}

#[test]
fn submit_async_polled_after_it_was_ready_panics_with_a_clear_message() {
    within(LONG, "polled again", || {
        let pool = shared_pool(1, 1);
        let mut accepted = pool.submit_async(|| ());
        drop(ready(poll_once(&mut accepted)));
        assert_panics_as_polled_again(&mut accepted);

        drop(pool.shutdown());
        let mut refused = pool.submit_async(|| ());
        assert!(matches!(poll_once(&mut refused), Poll::Ready(Err(_))));
        assert_panics_as_polled_again(&mut refused);
    });
}

fn assert_panics_as_polled_again<F: FnOnce() + Send + 'static>(future: &mut SubmitAsync<F, ()>) {
    let again = catch_unwind(AssertUnwindSafe(|| drop(poll_once(future))));
    let payload = again.unwrap_err();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.expect("a message");
    assert!(text.contains("polled after it was ready"), "{text}");
}

/// A waker that uses the pool in every way when it is woken and when it is dropped: a lock held at
/// that moment would hang the test.
struct ProbingWaker {
    pool: Arc<ThreadPool>,
    looks: AtomicUsize,
}

impl ProbingWaker {
    fn probe(&self) {
        assert!(is_full(&self.pool));
        let mut waiting = self.pool.submit_async(|| ());
        assert!(poll_once(&mut waiting).is_pending());
        drop(waiting);
        let _ = self.pool.metrics();
        self.looks.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wake for ProbingWaker {
    fn wake(self: Arc<Self>) {
        self.probe();
    }
}

impl Drop for ProbingWaker {
    fn drop(&mut self) {
        self.probe();
    }
}

#[test]
fn no_lock_is_held_while_the_waker_of_a_submit_async_is_called_or_dropped() {
    within(LONG, "probing wakers", || {
        let mut full = full_pool(1);
        let probing = || {
            Arc::new(ProbingWaker {
                pool: Arc::clone(&full.pool),
                looks: AtomicUsize::new(0),
            })
        };
        let mut waiting = full.pool.submit_async(|| ());
        // The pool holds the last references, so it drops these wakers: one is replaced, one is
        // dropped with its future.
        assert!(poll_with(&mut waiting, &Waker::from(probing())).is_pending());
        assert!(poll_once(&mut waiting).is_pending());
        assert!(poll_with(&mut waiting, &Waker::from(probing())).is_pending());
        drop(waiting);

        let called = probing();
        let mut waiting = full.pool.submit_async(|| ());
        let waker = Waker::from(Arc::clone(&called));
        assert!(poll_with(&mut waiting, &waker).is_pending());
        full.release_permit();
        assert_eq!(called.looks.load(Ordering::SeqCst), 1);
        drop(ready(poll_once(&mut waiting)));
    });
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

#[test]
fn waker_that_panics_harms_neither_the_cancel_nor_later_submitters() {
    within(LONG, "panicking waker", || {
        let mut full = full_pool(1);
        let mut waiting = full.pool.submit_async(|| "ran");
        assert!(poll_with(&mut waiting, &Waker::from(Arc::new(PanickingWaker))).is_pending());
        full.release_permit();
        let handle = ready(poll_once(&mut waiting));
        full.blocked.release();
        assert_eq!(handle.join().unwrap(), "ran");
    });
}

#[test]
fn permit_is_released_when_a_job_starts_not_when_it_ends() {
    within(LONG, "permit at start", || {
        let pool = shared_pool(1, 1);
        let blocked = block_workers(&pool, 1);
        let (started, starts) = mpsc::channel();
        let gate = Gate::new();
        let running = {
            let gate = gate.clone();
            pool.submit(move || {
                started.send(()).expect("the test waits for this");
                gate.wait();
            })
        };
        let (wakes, waker) = CountingWaker::new();
        let mut waiting = pool.submit_async(|| ());
        assert!(poll_with(&mut waiting, &waker).is_pending());
        blocked.release();
        starts.recv().unwrap();
        assert_eq!(wakes.count(), 1);
        drop(ready(poll_with(&mut waiting, &waker)));
        assert!(running.is_running());
        assert!(is_full(&pool));
        gate.open();
    });
}

#[test]
fn permit_is_released_before_cancel_returns() {
    within(LONG, "permit at cancel", || {
        let mut full = full_pool(3);
        // A job in the middle of the queue, which is not the next to run.
        let middle = full.queued.remove(1).unwrap();
        assert!(middle.cancel());
        assert_eq!(full.pool.metrics().queued, 2);
        assert!(!is_full(&full.pool));
        assert!(is_full(&full.pool));
        // A second cancel releases no second permit.
        assert!(middle.cancel());
        assert!(is_full(&full.pool));
        drop(full.queued.pop_back().unwrap().cancel_on_drop());
        assert!(!is_full(&full.pool));
        assert!(is_full(&full.pool));
    });
}

#[test]
fn cancel_that_comes_too_late_releases_no_permit() {
    within(LONG, "late cancel", || {
        let pool = shared_pool(1, 1);
        let gate = Gate::new();
        let (started, starts) = mpsc::channel();
        let running = {
            let gate = gate.clone();
            pool.submit(move || {
                started.send(()).expect("the test waits for this");
                gate.wait();
            })
        };
        starts.recv().unwrap();
        drop(pool.try_submit(|| ()).unwrap());
        assert!(!running.cancel());
        assert!(is_full(&pool));
        gate.open();
    });
}

#[test]
fn permits_are_released_by_cancel_pending() {
    within(LONG, "permits at cancel_pending", || {
        let full = full_pool(3);
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let (wakes, waker) = CountingWaker::new();
                let mut future = full.pool.submit_async(|| ());
                assert!(poll_with(&mut future, &waker).is_pending());
                (wakes, future)
            })
            .collect();
        assert_eq!(full.pool.cancel_pending(), 3);
        let woken: Vec<_> = waiting.iter().map(|(wakes, _)| wakes.count()).collect();
        assert_eq!(woken, [1, 1, 1, 0, 0]);
        assert!(is_full(&full.pool));
        drop(waiting);
        for _ in 0..3 {
            drop(full.pool.try_submit(|| ()).unwrap());
        }
        assert!(is_full(&full.pool));
    });
}

#[test]
fn permits_are_released_when_no_thread_can_start() {
    within(LONG, "no thread", || {
        // No system has that much memory for a stack.
        let builder = ThreadPool::builder().max_workers(2).queue_capacity(1);
        let pool = builder.stack_size(isize::MAX as usize / 2).build().unwrap();
        for _ in 0..5 {
            let error = pool.submit(|| ()).join().unwrap_err();
            assert!(error.is_spawn_failed(), "{error:?}");
            let error = pool.try_submit(|| ()).unwrap().join().unwrap_err();
            assert!(error.is_spawn_failed(), "{error:?}");
            let handle = ready(poll_once(&mut pool.submit_async(|| ())));
            assert!(handle.join().unwrap_err().is_spawn_failed());
        }
        let metrics = pool.metrics();
        assert_eq!(metrics.queued, 0);
        assert_eq!((metrics.submitted, metrics.cancelled), (15, 15));
    });
}

#[test]
fn submit_in_a_worker_of_the_pool_exceeds_the_capacity() {
    within(LONG, "submit in a worker", || {
        let pool = shared_pool(1, 2);
        let inside = Arc::clone(&pool);
        let outcome = pool.submit(move || {
            let handles: Vec<_> = (0..10).map(|n| inside.submit(move || n)).collect();
            let queued = inside.metrics().queued;
            // Only `submit` may exceed the capacity.
            let refused = inside.try_submit(|| ()).is_err_and(|error| error.is_full());
            let waits = poll_once(&mut inside.submit_async(|| ())).is_pending();
            (handles, queued, refused, waits)
        });
        let (handles, queued, refused, waits) = outcome.join().unwrap();
        assert_eq!(queued, 10);
        assert!(refused && waits);
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), n);
        }
        // The capacity is enforced again.
        let blocked = block_workers(&pool, 1);
        for _ in 0..2 {
            assert!(!is_full(&pool));
        }
        assert!(is_full(&pool));
        blocked.release();
    });
}

#[test]
fn no_permit_is_free_until_the_queue_is_below_its_capacity_again() {
    within(LONG, "over the capacity", || {
        let pool = shared_pool(1, 1);
        let (gate, inside) = (Gate::new(), Arc::clone(&pool));
        let (give, given) = mpsc::channel();
        let running = {
            let gate = gate.clone();
            pool.submit(move || {
                let handles: Vec<_> = (0..4).map(|_| inside.submit(|| ())).collect();
                give.send(handles).expect("the test waits for this");
                gate.wait();
            })
        };
        let mut over = given.recv().unwrap();
        let (wakes, waker) = CountingWaker::new();
        let mut waiting = pool.submit_async(|| ());
        assert!(poll_with(&mut waiting, &waker).is_pending());
        for left in [3, 2, 1] {
            assert!(over.pop().unwrap().cancel());
            assert_eq!(pool.metrics().queued, left);
            assert!(is_full(&pool));
            assert_eq!(wakes.count(), 0);
        }
        assert!(over.pop().unwrap().cancel());
        assert_eq!(wakes.count(), 1);
        drop(ready(poll_with(&mut waiting, &waker)));
        gate.open();
        running.join().unwrap();
    });
}

/// Submits itself again, over the capacity, until `stop` is set.
fn chain(pool: &Arc<ThreadPool>, stop: &Arc<AtomicBool>) {
    if !stop.load(Ordering::SeqCst) {
        let (again, stop) = (Arc::clone(pool), Arc::clone(stop));
        drop(pool.submit(move || chain(&again, &stop)));
    }
}

#[test]
fn job_that_resubmits_itself_forever_does_not_starve_waiting_submitters() {
    within(LONG, "chain", || {
        let pool = shared_pool(1, 1);
        let stop = Arc::new(AtomicBool::new(false));
        let (inside, is_over) = (Arc::clone(&pool), Arc::clone(&stop));
        drop(pool.submit(move || chain(&inside, &is_over)));
        for n in 0..50 {
            let sync = pool.submit(move || n);
            let waited = futures::executor::block_on(pool.submit_async(move || n));
            assert_eq!(sync.join().unwrap(), n);
            assert_eq!(waited.unwrap().join().unwrap(), n);
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn submit_in_an_initializer_does_not_block() {
    within(LONG, "submit in an initializer", || {
        static POOL: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);
        let (ran, runs) = mpsc::channel();
        let initializer = move || {
            let pool = POOL.lock().unwrap().clone().expect("it was put there");
            for n in 0..3 {
                drop(pool.submit(note(&ran, n)));
            }
        };
        let builder = ThreadPool::builder().max_workers(1).queue_capacity(1);
        let pool = Arc::new(builder.initializer(initializer).build().unwrap());
        *POOL.lock().unwrap() = Some(Arc::clone(&pool));
        pool.submit(|| ()).join().unwrap();
        assert_eq!(runs.iter().take(3).collect::<Vec<_>>(), [0, 1, 2]);
        *POOL.lock().unwrap() = None;
    });
}

#[test]
fn submit_in_the_worker_of_another_pool_blocks() {
    within(LONG, "another pool's worker", || {
        let mut full = full_pool(1);
        let other = ThreadPool::new(1);
        let (tell, told) = mpsc::channel();
        let pool = Arc::clone(&full.pool);
        let outer = other.submit(move || {
            tell.send(ThreadState::of_this_thread())
                .expect("the test waits for this");
            pool.submit(|| "ran")
        });
        let worker = told.recv().unwrap();
        eventually("the other pool's worker blocks", || worker.sleeps());
        assert!(outer.is_running());
        assert_eq!(full.pool.metrics().queued, 1);
        full.release_permit();
        let inner = outer.join().unwrap();
        full.blocked.release();
        assert_eq!(inner.join().unwrap(), "ran");
    });
}

#[test]
fn block_on_of_submit_async_in_a_worker_of_the_pool_exceeds_the_capacity() {
    within(LONG, "block_on in a worker", || {
        let pool = shared_pool(1, 1);
        let inside = Arc::clone(&pool);
        let outer = pool.submit(move || {
            assert!(!is_full(&inside));
            let direct = futurepool::block_on(inside.submit_async(|| 1)).unwrap();
            let nested = futurepool::block_on(async {
                let (a, b) = futures::join!(inside.submit_async(|| 2), inside.submit_async(|| 3));
                [a.unwrap(), b.unwrap()]
            });
            let [a, b] = nested;
            [direct, a, b]
        });
        for (handle, n) in outer.join().unwrap().into_iter().zip(1..) {
            assert_eq!(handle.join().unwrap(), n);
        }
    });
}

#[test]
fn block_on_of_many_submit_asyncs_in_a_worker_exceeds_the_capacity() {
    within(LONG, "block_on of many in a worker", || {
        let pool = shared_pool(1, 1);
        let inside = Arc::clone(&pool);
        let outer = pool.submit(move || {
            // With so many futures, `join_all` polls each with a waker of its own.
            let many = (0..100).map(|n| inside.submit_async(move || n));
            futurepool::block_on(futures::future::join_all(many))
        });
        for (n, handle) in outer.join().unwrap().into_iter().enumerate() {
            assert_eq!(handle.unwrap().join().unwrap(), n);
        }
    });
}

#[test]
fn submit_async_first_polled_elsewhere_exceeds_the_capacity_in_a_worker() {
    within(LONG, "waited elsewhere", || {
        let pool = shared_pool(1, 1);
        let (give, given) = mpsc::channel::<SubmitAsync<_, _>>();
        let (started, starts) = mpsc::channel();
        let (gate, inside) = (Gate::new(), Arc::clone(&pool));
        let outer = {
            let gate = gate.clone();
            pool.submit(move || {
                started.send(()).expect("the test waits for this");
                gate.wait();
                let waiting = given.recv().unwrap();
                let handle = futurepool::block_on(waiting).unwrap();
                (handle, inside.metrics().queued)
            })
        };
        starts.recv().unwrap();
        drop(pool.try_submit(|| ()).unwrap());
        let mut waiting = pool.submit_async(|| 7);
        assert!(poll_once(&mut waiting).is_pending());
        give.send(waiting).unwrap();
        gate.open();
        let (handle, queued) = outer.join().unwrap();
        assert_eq!(queued, 2);
        assert_eq!(handle.join().unwrap(), 7);
        // The future no longer queues for a permit.
        let blocked = block_workers(&pool, 1);
        assert!(!is_full(&pool));
        assert!(is_full(&pool));
        blocked.release();
    });
}

#[test]
fn submit_async_under_a_foreign_executor_in_a_worker_of_the_pool_waits() {
    within(LONG, "foreign executor in a worker", || {
        let pool = shared_pool(2, 1);
        let blocked = block_workers(&pool, 1);
        let (inside, gate) = (Arc::clone(&pool), blocked.gate());
        let outer = pool.submit(move || {
            // The other worker is blocked, so no permit is released before the gate opens.
            drop(inside.try_submit(|| ()).unwrap());
            let mut by_hand = inside.submit_async(|| ());
            assert!(poll_once(&mut by_hand).is_pending());
            drop(by_hand);
            assert_eq!(inside.metrics().queued, 1);
            gate.open();
            let first = pollster::block_on(inside.submit_async(|| 1)).unwrap();
            let second = futures::executor::block_on(inside.submit_async(|| 2)).unwrap();
            [first, second]
        });
        for (handle, n) in outer.join().unwrap().into_iter().zip(1..) {
            assert_eq!(handle.join().unwrap(), n);
        }
        assert_eq!(pool.metrics().queued, 0);
    });
}

#[test]
fn blocked_submits_are_released_by_the_end_of_the_pool() {
    for end in End::ALL {
        within(LONG, "blocked submits released", move || {
            let ending = EndablePool::new();
            let submitters: Vec<_> = (0..3)
                .map(|_| {
                    let pool = Arc::clone(&ending.full.pool);
                    spawn_until_asleep(move || pool.submit(|| ()))
                })
                .collect();
            let accepted = ending.full.pool.metrics().submitted;
            ending.end(end);
            for submitter in submitters {
                // The workers are still blocked.
                let mut handle = submitter.join().unwrap();
                assert!(handle.is_finished() && !handle.is_cancelled());
                let error = handle.try_join().unwrap().unwrap_err();
                assert!(end.matches(&error), "{end:?}: {error:?}");
            }
            assert_eq!(ending.full.pool.metrics().submitted, accepted);
        });
    }
}

#[test]
fn submit_asyncs_are_released_by_the_end_of_the_pool_with_their_closures() {
    for end in End::ALL {
        within(LONG, "submit_asyncs released", move || {
            let mut ending = EndablePool::new();
            let pool = Arc::clone(&ending.full.pool);
            let mut waiting: Vec<_> = (0..3)
                .map(|n| (pool.submit_async(move || n), CountingWaker::new()))
                .collect();
            for (future, (_, waker)) in &mut waiting {
                assert!(poll_with(future, waker).is_pending());
            }
            // The first future has been granted a permit, but was not polled since, when the pool
            // ends.
            ending.full.release_permit();
            ending.end(end);
            for (n, (mut future, (wakes, waker))) in waiting.into_iter().enumerate() {
                if let End::Broken = end {
                    // A worker does that: it starts to reject jobs a moment before it wakes the
                    // waiting submitters.
                    eventually("a woken task", || wakes.count() > 0);
                }
                assert_eq!(wakes.count(), 1);
                let Poll::Ready(Err(error)) = poll_with(&mut future, &waker) else {
                    panic!("{end:?}: it should have been rejected");
                };
                assert!(end.matches_submit(&error), "{end:?}: {error:?}");
                assert_eq!(error.into_inner()(), n);
            }
        });
    }
}

#[test]
fn submit_async_is_released_when_the_pool_is_dropped() {
    within(LONG, "pool dropped", || {
        let Full { blocked, pool, .. } = full_pool(1);
        let (wakes, waker) = CountingWaker::new();
        let mut waiting = pool.submit_async(|| 7);
        assert!(poll_with(&mut waiting, &waker).is_pending());
        drop(blocked);
        drop(Arc::into_inner(pool).expect("the only one"));
        // Either a permit was released before the queue ran empty, or the shutdown came first: both
        // wake the future.
        assert_eq!(wakes.count(), 1);
        let Poll::Ready(Err(error)) = poll_with(&mut waiting, &waker) else {
            panic!("the pool is gone");
        };
        assert!(error.is_shutdown());
        assert_eq!(error.into_inner()(), 7);
    });
}

#[test]
fn no_submitter_waits_for_a_permit_after_the_end_of_the_pool() {
    for end in End::ALL {
        within(LONG, "after the end", move || {
            let ending = EndablePool::new();
            let pool = &ending.full.pool;
            ending.end(end);
            let mut handle = pool.submit(|| ());
            let error = handle.try_join().expect("resolved already").unwrap_err();
            assert!(end.matches(&error), "{end:?}: {error:?}");
            let error = pool.try_submit(|| 1).unwrap_err();
            assert!(end.matches_submit(&error), "{end:?}: {error:?}");
            assert_eq!(error.into_inner()(), 1);
            let Poll::Ready(Err(error)) = poll_once(&mut pool.submit_async(|| 2)) else {
                panic!("{end:?}: it should have been rejected");
            };
            assert!(end.matches_submit(&error), "{end:?}: {error:?}");
            assert_eq!(error.into_inner()(), 2);
        });
    }
}

#[test]
fn rejected_counts_every_rejected_call() {
    within(LONG, "rejected", || {
        let mut full = full_pool(1);
        let pool = Arc::clone(&full.pool);
        let start = pool.metrics().rejected;
        let rejected = || pool.metrics().rejected - start;
        assert!(pool.try_submit(|| ()).is_err());
        assert_eq!(rejected(), 1);
        // A future that waited and was dropped does not count as rejected.
        let mut waiting = pool.submit_async(|| ());
        assert!(poll_once(&mut waiting).is_pending());
        drop(waiting);
        let mut waiting = pool.submit_async(|| ());
        assert!(poll_once(&mut waiting).is_pending());
        let submitter = {
            let pool = Arc::clone(&pool);
            spawn_until_asleep(move || pool.submit(|| ()))
        };
        full.release_permit();
        assert_eq!(rejected(), 1);

        let accepted = pool.metrics().submitted;
        drop(pool.shutdown());
        submitter.join().unwrap().join().unwrap_err();
        assert_eq!(rejected(), 2);
        assert!(matches!(poll_once(&mut waiting), Poll::Ready(Err(_))));
        assert_eq!(rejected(), 3);
        pool.submit(|| ()).join().unwrap_err();
        assert_eq!(rejected(), 4);
        assert!(pool.try_submit(|| ()).is_err());
        assert_eq!(rejected(), 5);
        assert!(futurepool::block_on(pool.submit_async(|| ())).is_err());
        assert_eq!(rejected(), 6);
        assert_eq!(pool.metrics().submitted, accepted);
        full.blocked.release();
        pool.shutdown().join();
        let metrics = pool.metrics();
        let ended = metrics.completed + metrics.panicked + metrics.cancelled;
        assert_eq!(metrics.submitted, ended);
    });
}

const SUBMITTERS: usize = 8;
const JOBS_EACH: usize = 600;

/// What concurrent submitters did, by their own counts.
#[derive(Debug, Default)]
struct Tally {
    accepted: AtomicUsize,
    started: AtomicUsize,
    refused: AtomicUsize,
}

/// The handle of a job, and how often the job ran.
type Counted = (JoinHandle<()>, Arc<AtomicUsize>);

/// Starts eight threads that submit in all ways at once. Calls `accepted` for each accepted job, in
/// the thread that submitted it.
fn submit_concurrently(
    pool: &Arc<ThreadPool>,
    tally: &Arc<Tally>,
    accepted: impl Fn(&JoinHandle<()>) + Clone + Send + 'static,
) -> Vec<Counted> {
    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|thread| {
            let (pool, tally, accepted) = (Arc::clone(pool), Arc::clone(tally), accepted.clone());
            thread::spawn(move || {
                let submit = |n| {
                    let job = submit_somehow(&pool, &tally, thread + n);
                    accepted(&job.0);
                    job
                };
                (0..JOBS_EACH).map(submit).collect::<Vec<_>>()
            })
        })
        .collect();
    let jobs = submitters.into_iter().map(|s| s.join().unwrap());
    jobs.flatten().collect()
}

fn submit_somehow(pool: &ThreadPool, tally: &Arc<Tally>, how: usize) -> Counted {
    let runs = Arc::new(AtomicUsize::new(0));
    let mut job = {
        let (tally, runs) = (Arc::clone(tally), Arc::clone(&runs));
        move || {
            tally.started.fetch_add(1, Ordering::SeqCst);
            runs.fetch_add(1, Ordering::SeqCst);
        }
    };
    let handle = match how % 4 {
        0 => pool.submit(job),
        1 => futures::executor::block_on(pool.submit_async(job)).unwrap(),
        2 => {
            let mut impatient = pool.submit_async(job.clone());
            match poll_once(&mut impatient) {
                Poll::Ready(accepted) => accepted.unwrap(),
                Poll::Pending => {
                    // It may have been granted a permit by now.
                    drop(impatient);
                    pool.submit(job)
                }
            }
        }
        _ => loop {
            match pool.try_submit(job) {
                Ok(handle) => break handle,
                Err(error) => {
                    assert!(error.is_full());
                    tally.refused.fetch_add(1, Ordering::SeqCst);
                    job = error.into_inner();
                    thread::yield_now();
                }
            }
        },
    };
    tally.accepted.fetch_add(1, Ordering::SeqCst);
    (handle, runs)
}

/// Samples a value in a thread of its own until stopped; returns the largest sample.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<u64>,
}

impl Sampler {
    fn start(sample: impl Fn() -> u64 + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut largest = 0;
            while !is_over.load(Ordering::SeqCst) {
                largest = largest.max(sample());
            }
            largest
        });
        Self { stop, thread }
    }

    fn largest(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

#[test]
fn accepted_jobs_run_once_and_the_queue_never_exceeds_its_capacity() {
    const WORKERS: usize = 4;
    const CAPACITY: usize = 3;
    within(LONG, "concurrent submits", || {
        let pool = shared_pool(WORKERS, CAPACITY);
        let tally = Arc::new(Tally::default());
        let sampler = {
            let tally = Arc::clone(&tally);
            Sampler::start(move || {
                let accepted = tally.accepted.load(Ordering::SeqCst);
                // This is read later, so jobs that started in between only make the difference
                // smaller.
                accepted.saturating_sub(tally.started.load(Ordering::SeqCst)) as u64
            })
        };
        let jobs = submit_concurrently(&pool, &tally, |_| ());
        for (handle, runs) in jobs {
            handle.join().unwrap();
            assert_eq!(runs.load(Ordering::SeqCst), 1);
        }
        // Each worker may have taken a job that has not counted itself yet.
        assert!(sampler.largest() <= (CAPACITY + WORKERS) as u64);

        let metrics = pool.metrics();
        let all = (SUBMITTERS * JOBS_EACH) as u64;
        assert_eq!((metrics.submitted, metrics.completed), (all, all));
        assert_eq!((metrics.queued, metrics.running), (0, 0));
        let refused = tally.refused.load(Ordering::SeqCst) as u64;
        assert_eq!(metrics.rejected, refused);
    });
}

#[test]
fn queued_in_the_metrics_never_exceeds_the_capacity() {
    within(LONG, "queued in the metrics", || {
        let pool = shared_pool(4, 3);
        let sampler = {
            let pool = Arc::clone(&pool);
            Sampler::start(move || pool.metrics().queued)
        };
        for (handle, _) in submit_concurrently(&pool, &Arc::default(), |_| ()) {
            handle.join().unwrap();
        }
        let largest = sampler.largest();
        assert!(largest <= 3, "{largest} jobs seen in a queue for 3");
    });
}

#[test]
fn job_that_is_being_cancelled_is_not_counted_as_queued() {
    within(LONG, "being cancelled", || {
        let mut full = full_pool(1);
        let pool = Arc::clone(&full.pool);
        let (tell, told) = mpsc::channel();
        let cancelled = full.queued.pop_front().unwrap();
        cancelled.add_done_callback(move |_| {
            // The documentation does not say whether the permit of the cancelled job is free by
            // now. If it is, the new job is queued.
            drop(pool.try_submit(|| ()));
            tell.send(pool.metrics().queued)
                .expect("the test waits for this");
        });
        assert!(cancelled.cancel());
        assert!(told.recv().unwrap() <= 1);
        full.blocked.release();
    });
}

#[test]
fn concurrent_cancels_leak_no_permit() {
    within(LONG, "concurrent cancels", || {
        let pool = shared_pool(2, 3);
        let cancelled = Arc::new(AtomicUsize::new(0));
        let cancel = {
            let cancelled = Arc::clone(&cancelled);
            move |handle: &JoinHandle<()>| {
                if handle.cancel() {
                    cancelled.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        for (handle, runs) in submit_concurrently(&pool, &Arc::default(), cancel) {
            let ran = handle.join().is_ok();
            assert_eq!(runs.load(Ordering::SeqCst), usize::from(ran));
        }
        let metrics = pool.metrics();
        let cancelled = cancelled.load(Ordering::SeqCst) as u64;
        assert_eq!(metrics.cancelled, cancelled);
        assert_eq!(metrics.submitted, (SUBMITTERS * JOBS_EACH) as u64);
        assert_eq!(metrics.completed + cancelled, metrics.submitted);
        // All permits are back.
        let blocked = block_workers(&pool, 2);
        for _ in 0..3 {
            assert!(!is_full(&pool));
        }
        assert!(is_full(&pool));
        blocked.release();
    });
}

#[test]
fn concurrent_submits_in_workers_leak_no_permit() {
    within(LONG, "concurrent submits in workers", || {
        let pool = shared_pool(2, 3);
        let ran = Arc::new(AtomicUsize::new(0));
        let submitters: Vec<_> = (0..4)
            .map(|_| {
                let (pool, ran) = (Arc::clone(&pool), Arc::clone(&ran));
                thread::spawn(move || {
                    for _ in 0..200 {
                        let (inside, ran) = (Arc::clone(&pool), Arc::clone(&ran));
                        drop(pool.submit(move || {
                            for _ in 0..3 {
                                let ran = Arc::clone(&ran);
                                drop(inside.submit(move || ran.fetch_add(1, Ordering::SeqCst)));
                            }
                        }));
                    }
                })
            })
            .collect();
        for submitter in submitters {
            submitter.join().unwrap();
        }
        eventually("all have run", || {
            let metrics = pool.metrics();
            metrics.submitted == metrics.completed
        });
        assert_eq!(ran.load(Ordering::SeqCst), 4 * 200 * 3);
        let blocked = block_workers(&pool, 2);
        for _ in 0..3 {
            assert!(!is_full(&pool));
        }
        assert!(is_full(&pool));
        blocked.release();
    });
}

#[test]
fn waiting_submitters_sleep_until_a_permit_is_free() {
    within(LONG, "idle waiters", || {
        let full = full_pool(1);
        let (wakes, waker) = CountingWaker::new();
        let mut waiting = full.pool.submit_async(|| ());
        assert!(poll_with(&mut waiting, &waker).is_pending());
        let submitters: Vec<_> = (0..3)
            .map(|_| {
                let (tell, told) = mpsc::channel();
                let pool = Arc::clone(&full.pool);
                let thread = spawn_until_asleep(move || {
                    tell.send(ThreadState::of_this_thread())
                        .expect("the test waits for this");
                    drop(pool.submit(|| ()));
                });
                (thread, told.recv().unwrap())
            })
            .collect();
        let switches = || -> Vec<_> {
            submitters
                .iter()
                .map(|(_, s)| s.voluntary_switches())
                .collect()
        };
        let before = switches();
        thread::sleep(Duration::from_millis(50));
        assert_eq!(switches(), before);
        assert_eq!(wakes.count(), 0);
        drop(waiting);
        full.blocked.release();
        for (thread, _) in submitters {
            thread.join().unwrap();
        }
    });
}
