//! Promises that depend on the order in which threads act, in all orders: loom runs through every
//! schedule. For whole pools it runs through every schedule with a bounded number of preemptions.
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test --release --no-default-features --test loom
//! ```
//!
//! Loom sees the crate's locks, atomics, fences, parked threads and thread-locals
//! (`src/util/sync.rs`). A wait with a timeout may time out at any moment, as far as the other
//! threads can tell. A handle that never resolves, or a pool that does not terminate, is a deadlock
//! that loom reports.

#![cfg(loom)]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futurepool::{Executor, ExecutorExt, Job, JoinHandle, ThreadPool, block_on};
use loom::model::Builder;
use loom::sync::Notify;
use loom::thread;

/// A job, the thread that runs it, the thread that waits: all schedules.
const OF_A_JOB: Option<usize> = None;
/// A pool with one worker, and a submitter. One thread more means a hundred times as many
/// schedules.
const OF_A_POOL: Option<usize> = Some(3);
const AND_ANOTHER_THREAD: Option<usize> = Some(2);
const OF_TWO_WORKERS: Option<usize> = Some(1);

/// Runs `model` in every schedule with at most `preemptions` preemptions. (`LOOM_MAX_PREEMPTIONS`
/// overrides it.)
fn check(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.max_branches = 50_000;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        model();
    });
    println!("{} schedules", runs.load(SeqCst));
}

/// An executor that keeps its job, for the model to run.
#[derive(Default)]
struct Kept(Mutex<Option<Job>>);

impl Executor for Kept {
    fn execute(&self, job: Job) {
        *self.0.lock().unwrap() = Some(job);
    }
}

/// Returns both halves of a job.
fn job<T: Send + 'static>(closure: impl FnOnce() -> T + Send + 'static) -> (JoinHandle<T>, Job) {
    let kept = Kept::default();
    let handle = kept.submit(closure);
    let job = kept.0.lock().unwrap().take().unwrap();
    (handle, job)
}

/// Starts another thread that also has the pool.
fn beside<R: 'static>(
    pool: &Arc<ThreadPool>,
    act: impl FnOnce(&ThreadPool) -> R + 'static,
) -> thread::JoinHandle<R> {
    let pool = Arc::clone(pool);
    thread::spawn(move || act(&pool))
}

/// Not loom's type, so that reading it is no scheduling point.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn up(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    fn get(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// Counts its drops.
struct Dropped(Count);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.up();
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

#[test]
fn cancel_and_start_a_job_is_cancelled_or_runs_and_never_both() {
    check(OF_A_JOB, || {
        let ran = Count::default();
        let captured = Count::default();
        let (handle, job) = job({
            let (ran, capture) = (ran.clone(), Dropped(captured.clone()));
            move || {
                drop(capture);
                ran.up();
            }
        });
        let runner = thread::spawn(move || job.run());
        let cancelled = handle.cancel();
        if cancelled {
            assert_eq!(captured.get(), 1, "what it captured is freed at once");
        }
        runner.join().unwrap();
        assert_eq!(ran.get(), usize::from(!cancelled));
        assert_eq!(captured.get(), 1);
        assert_eq!(handle.is_cancelled(), cancelled);
        match handle.join() {
            Ok(()) => assert!(!cancelled),
            Err(error) => assert!(cancelled && error.is_cancelled()),
        }
    });
}

#[test]
fn cancel_and_finish_the_waiter_gets_one_outcome_and_callbacks_run_once() {
    check(OF_A_JOB, || {
        let called = Count::default();
        let (mut handle, job) = job(|| 7);
        handle.add_done_callback({
            let called = called.clone();
            move |_| called.up()
        });
        let woken = Arc::new(Woken::default());
        assert!(poll(&mut handle, &Waker::from(Arc::clone(&woken))).is_pending());
        let handle = Arc::new(handle);
        let runner = thread::spawn(move || job.run());
        let canceller = thread::spawn({
            let handle = Arc::clone(&handle);
            move || handle.cancel()
        });
        runner.join().unwrap();
        let cancelled = canceller.join().unwrap();
        assert!(handle.is_finished());
        assert_eq!(called.get(), 1);
        assert!(woken.0.load(SeqCst));
        let outcome = Arc::into_inner(handle).unwrap().try_join().unwrap();
        match outcome {
            Ok(7) => assert!(!cancelled),
            outcome => assert!(cancelled && outcome.unwrap_err().is_cancelled()),
        }
    });
}

#[test]
fn finish_and_poll_with_a_changed_waker_the_last_waker_is_woken() {
    check(OF_A_JOB, || {
        let (mut handle, job) = job(|| 7);
        let runner = thread::spawn(move || job.run());
        let wakers = [(); 2].map(|()| Arc::new(Woken::default()));
        let mut last = None;
        let mut outcome = None;
        for woken in &wakers {
            match poll(&mut handle, &Waker::from(Arc::clone(woken))) {
                Poll::Pending => last = Some(woken),
                Poll::Ready(ready) => {
                    outcome = Some(ready);
                    break;
                }
            }
        }
        runner.join().unwrap();
        let outcome = outcome.unwrap_or_else(|| {
            assert!(last.unwrap().0.load(SeqCst), "the last waker was not woken");
            handle.try_join().expect("the job has run")
        });
        assert_eq!(outcome.unwrap(), 7);
    });
}

#[test]
fn finish_and_join_the_thread_that_joins_wakes() {
    check(OF_A_JOB, || {
        let (handle, job) = job(|| 7);
        let runner = thread::spawn(move || job.run());
        assert_eq!(handle.join().unwrap(), 7);
        runner.join().unwrap();
    });
}

#[test]
fn drop_of_handle_and_finish_the_result_is_dropped_once() {
    check(OF_A_JOB, || {
        let (dropped, called) = (Count::default(), Count::default());
        let (handle, job) = job({
            let result = Dropped(dropped.clone());
            move || result
        });
        handle.add_done_callback({
            let called = called.clone();
            move |_| called.up()
        });
        let runner = thread::spawn(move || job.run());
        drop(handle);
        runner.join().unwrap();
        assert_eq!(dropped.get(), 1);
        assert_eq!(called.get(), 1, "it runs although the handle was dropped");
    });
}

#[test]
fn join_timeout_and_finish_the_result_comes_once_now_or_later() {
    check(OF_A_JOB, || {
        let (mut handle, job) = job(|| 7);
        let woken = Arc::new(Woken::default());
        // A task awaits the handle, too; a join with a timeout replaces its waker, and restores it.
        assert!(poll(&mut handle, &Waker::from(Arc::clone(&woken))).is_pending());
        let runner = thread::spawn(move || job.run());
        let first = handle.join_timeout(Duration::from_millis(1));
        runner.join().unwrap();
        match first {
            Ok(value) => assert_eq!(value, 7),
            Err(error) => {
                assert!(error.is_timeout());
                assert!(woken.0.load(SeqCst), "the task was forgotten");
                assert_eq!(handle.try_join().expect("the job has run").unwrap(), 7);
            }
        }
    });
}

#[test]
fn callback_added_and_finish_it_runs_once_and_sees_the_result() {
    check(OF_A_JOB, || {
        let called = Count::default();
        let (handle, job) = job(|| 7);
        let runner = thread::spawn(move || job.run());
        for _ in 0..2 {
            let called = called.clone();
            handle.add_done_callback(move |outcome| {
                assert_eq!(*outcome.unwrap(), 7);
                called.up();
            });
        }
        assert_eq!(handle.join().unwrap(), 7);
        runner.join().unwrap();
        assert_eq!(called.get(), 2);
    });
}

#[test]
fn two_late_callbacks_both_run() {
    check(OF_A_JOB, || {
        let called = Count::default();
        let (handle, job) = job(|| 7);
        job.run();
        let handle = Arc::new(handle);
        let counts = called.clone();
        let add = move |handle: &JoinHandle<i32>| {
            let called = counts.clone();
            handle.add_done_callback(move |outcome| {
                assert_eq!(*outcome.unwrap(), 7);
                called.up();
            });
        };
        let other = thread::spawn({
            let (handle, add) = (Arc::clone(&handle), add.clone());
            move || add(&handle)
        });
        add(&handle);
        other.join().unwrap();
        // The thread that has the borrowed result runs the other callback, before it returns the
        // result.
        let mut handle = Arc::into_inner(handle).unwrap();
        assert_eq!(handle.try_join().expect("it came back").unwrap(), 7);
        assert_eq!(called.get(), 2);
    });
}

#[test]
fn submit_and_park_each_job_runs() {
    check(OF_A_POOL, || {
        let pool = ThreadPool::new(1);
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
        // The worker is about to park, spinning, or parked by now.
        assert_eq!(pool.submit(|| 2).join().unwrap(), 2);
    });
}

#[test]
fn two_submits_and_park_both_jobs_run_concurrently() {
    check(OF_TWO_WORKERS, || {
        let pool = Arc::new(ThreadPool::new(2));
        let go = Arc::new(Notify::new());
        // Each of these needs a worker of its own: a job left behind is a deadlock.
        let first = pool.submit({
            let go = Arc::clone(&go);
            move || go.wait()
        });
        let second = pool.submit(move || go.notify());
        first.join().unwrap();
        second.join().unwrap();
    });
}

#[test]
fn two_submitters_both_jobs_run() {
    check(AND_ANOTHER_THREAD, || {
        let pool = Arc::new(ThreadPool::new(1));
        let other = beside(&pool, move |pool| pool.submit(|| 1).join().unwrap());
        assert_eq!(pool.submit(|| 2).join().unwrap(), 2);
        assert_eq!(other.join().unwrap(), 1);
    });
}

#[test]
fn submit_and_shutdown_the_job_runs_or_its_closure_comes_back() {
    check(OF_A_POOL, || {
        let pool = Arc::new(ThreadPool::new(1));
        let other = beside(&pool, move |pool| drop(pool.shutdown()));
        let ran = Count::default();
        let submitted = pool.try_submit({
            let ran = ran.clone();
            move || ran.up()
        });
        match submitted {
            Ok(handle) => handle.join().unwrap(),
            Err(refused) => refused.into_inner()(),
        }
        assert_eq!(ran.get(), 1);
        other.join().unwrap();
    });
}

#[test]
fn submit_and_shutdown_now_the_job_runs_or_is_cancelled() {
    check(AND_ANOTHER_THREAD, || {
        let pool = Arc::new(ThreadPool::new(1));
        let other = beside(&pool, move |pool| drop(pool.shutdown_now()));
        let ran = Count::default();
        let handle = pool.submit({
            let ran = ran.clone();
            move || ran.up()
        });
        match handle.join() {
            Ok(()) => assert_eq!(ran.get(), 1),
            Err(error) => {
                assert!(error.is_cancelled() || error.is_shutdown());
                assert_eq!(ran.get(), 0);
            }
        }
        other.join().unwrap();
    });
}

#[test]
fn submit_and_keep_alive_expiry_the_job_runs() {
    check(OF_A_POOL, || {
        let pool = ThreadPool::builder()
            .max_workers(1)
            .keep_alive(Duration::from_millis(1))
            .build()
            .unwrap();
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
        assert_eq!(pool.submit(|| 2).join().unwrap(), 2);
    });
}

#[test]
fn bounded_push_pop_and_a_dropped_submit_async_leak_no_permit() {
    check(AND_ANOTHER_THREAD, || {
        let pool = ThreadPool::builder()
            .max_workers(1)
            .queue_capacity(1)
            .build()
            .unwrap();
        let pool = Arc::new(pool);
        let first = pool.submit(|| 1);
        let other = beside(&pool, move |pool| {
            // Queues for a permit once, and leaves the queue, with a permit or without.
            let mut waits = pool.submit_async(|| 2);
            match poll(&mut waits, Waker::noop()) {
                Poll::Ready(handle) => assert_eq!(handle.unwrap().join().unwrap(), 2),
                Poll::Pending => drop(waits),
            }
        });
        // Blocks until a permit is free.
        assert_eq!(pool.submit(|| 3).join().unwrap(), 3);
        assert_eq!(first.join().unwrap(), 1);
        other.join().unwrap();
        assert_eq!(pool.metrics().queued, 0);
    });
}

/// Returns a pool with a queue capacity of 1, and what the first of its two jobs waits for.
fn one_runs_and_one_is_queued() -> (Arc<ThreadPool>, Arc<Notify>, JoinHandle<()>, JoinHandle<()>) {
    let pool = ThreadPool::builder()
        .max_workers(1)
        .queue_capacity(1)
        .build()
        .unwrap();
    let go = Arc::new(Notify::new());
    let first = pool.submit({
        let go = Arc::clone(&go);
        move || go.wait()
    });
    // When this gets a permit, the first job is running.
    let second = pool.submit(|| ());
    (Arc::new(pool), go, first, second)
}

#[test]
fn cancel_queued_and_join_the_permit_is_free_before_the_cancel_is_seen() {
    check(AND_ANOTHER_THREAD, || {
        let (pool, go, first, second) = one_runs_and_one_is_queued();
        let other = beside(&pool, move |pool| {
            pool.cancel_queued();
            go.notify();
        });
        // Ok if the first job had a spurious wake-up, and the second has run.
        if let Err(error) = second.join() {
            assert!(error.is_cancelled());
        }
        assert_eq!(pool.metrics().queued, 0);
        first.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn cancel_queued_and_cancel_the_job_is_cancelled_once_and_its_permit_free() {
    check(AND_ANOTHER_THREAD, || {
        let (pool, go, first, second) = one_runs_and_one_is_queued();
        let other = beside(&pool, move |pool| pool.cancel_queued());
        // False if the first job had a spurious wake-up. True at once if the other thread cancels
        // it.
        let cancelled = second.cancel();
        let by_other = other.join().unwrap();
        assert!(by_other <= 1);
        if cancelled {
            assert!(second.is_cancelled());
            assert_eq!(pool.metrics().queued, 0);
            assert_eq!(pool.metrics().cancelled, 1);
        }
        go.notify();
        first.join().unwrap();
    });
}

#[test]
fn cancel_queued_and_start_each_job_runs_or_is_cancelled_and_never_both() {
    check(AND_ANOTHER_THREAD, || {
        let pool = Arc::new(ThreadPool::new(1));
        let (ran, captured) = (Count::default(), Count::default());
        let handles = [(); 2].map(|()| {
            let (ran, capture) = (ran.clone(), Dropped(captured.clone()));
            pool.submit(move || {
                drop(capture);
                ran.up();
            })
        });
        let other = beside(&pool, move |pool| pool.cancel_queued());
        let cancelled = handles.map(|handle| match handle.join() {
            Ok(()) => 0,
            Err(error) => {
                assert!(error.is_cancelled());
                1
            }
        });
        assert_eq!(captured.get(), 2);
        let cancelled = cancelled.iter().sum();
        assert_eq!(ran.get() + cancelled, 2);
        assert_eq!(other.join().unwrap(), cancelled);
    });
}

#[test]
fn wait_idle_and_finish_the_wait_ends_and_the_job_is_finished() {
    check(OF_A_POOL, || {
        let pool = ThreadPool::new(1);
        let handle = pool.submit(|| 7);
        pool.wait_idle().join();
        assert!(handle.is_finished());
        assert_eq!(handle.join().unwrap(), 7);
    });
}

#[test]
fn wait_idle_and_a_submit_after_the_idle_moment_the_wait_has_ended() {
    check(OF_A_POOL, || {
        let pool = ThreadPool::new(1);
        let first = pool.submit(|| ());
        let mut idle = pool.wait_idle();
        while !first.is_finished() {
            thread::yield_now();
        }
        // Between the two the pool was idle.
        let second = pool.submit(|| ());
        assert!(poll(&mut idle, Waker::noop()).is_ready());
        second.join().unwrap();
    });
}

#[test]
fn wait_idle_and_finish_a_detached_job_is_finished_too() {
    check(OF_A_POOL, || {
        let pool = ThreadPool::new(1);
        let job = pool.submit(|| 7).cancel_handle();
        pool.wait_idle().join();
        assert!(job.is_finished());
    });
}

#[test]
fn wait_idle_and_two_jobs_that_end_at_once_the_wait_ends() {
    check(OF_TWO_WORKERS, || {
        let pool = ThreadPool::new(2);
        let handles = [pool.submit(|| ()), pool.submit(|| ())];
        pool.wait_idle().join();
        assert!(handles.iter().all(|handle| handle.is_finished()));
    });
}

#[test]
fn submit_in_a_job_and_shutdown_the_job_runs_or_its_closure_comes_back() {
    check(AND_ANOTHER_THREAD, || {
        let pool = Arc::new(ThreadPool::new(1));
        let ran = Count::default();
        let outer = pool.submit({
            let (pool, ran) = (Arc::clone(&pool), ran.clone());
            move || match pool.try_submit(move || ran.up()) {
                Ok(handle) => drop(handle),
                Err(refused) => refused.into_inner()(),
            }
        });
        let other = beside(&pool, move |pool| pool.shutdown().join());
        match outer.join() {
            // The end of the pool leaves nothing in the lane.
            Ok(()) => {
                other.join().unwrap();
                assert_eq!(ran.get(), 1);
            }
            Err(error) => {
                assert!(error.is_shutdown());
                other.join().unwrap();
            }
        }
    });
}

#[test]
fn submit_in_a_job_and_cancel_queued_the_job_runs_or_is_cancelled() {
    check(AND_ANOTHER_THREAD, || {
        let pool = Arc::new(ThreadPool::new(1));
        let (ran, captured) = (Count::default(), Count::default());
        let outer = pool.submit({
            let (pool, ran) = (Arc::clone(&pool), ran.clone());
            let capture = Dropped(captured.clone());
            move || {
                pool.submit(move || {
                    drop(capture);
                    ran.up();
                })
            }
        });
        let other = beside(&pool, move |pool| pool.cancel_queued());
        let inner = outer.join().and_then(JoinHandle::join);
        let cancelled = other.join().unwrap();
        assert_eq!(captured.get(), 1);
        match inner {
            Ok(()) => assert_eq!((ran.get(), cancelled), (1, 0)),
            Err(error) => {
                assert!(error.is_cancelled());
                assert_eq!((ran.get(), cancelled), (0, 1));
            }
        }
    });
}

#[test]
fn submit_in_a_job_and_keep_alive_expiry_the_other_worker_runs_the_job() {
    check(OF_TWO_WORKERS, || {
        let pool = ThreadPool::builder()
            .max_workers(2)
            .keep_alive(Duration::from_millis(1))
            .build()
            .unwrap();
        let pool = Arc::new(pool);
        // Its worker expires, or takes one of the next two jobs.
        pool.submit(|| ()).join().unwrap();
        let outer = pool.submit({
            let pool = Arc::clone(&pool);
            move || {
                let go = Arc::new(Notify::new());
                let inner = Arc::clone(&go);
                drop(pool.submit(move || inner.notify()));
                // No `join`: this worker must not run it.
                go.wait();
            }
        });
        outer.join().unwrap();
    });
}

#[test]
fn last_owner_dropped_by_a_running_job_the_pool_ends() {
    check(OF_A_POOL, || {
        let pool = Arc::new(ThreadPool::new(1));
        let handle = pool.submit({
            let pool = Arc::clone(&pool);
            move || drop(pool)
        });
        drop(pool);
        handle.join().unwrap();
    });
}

#[test]
fn helping_join_and_a_worker_that_takes_the_same_job_it_runs_once() {
    check(OF_TWO_WORKERS, || {
        let pool = Arc::new(ThreadPool::new(2));
        let ran = Count::default();
        let outer = pool.submit({
            let (pool, ran) = (Arc::clone(&pool), ran.clone());
            move || pool.submit(move || ran.up()).join().unwrap()
        });
        outer.join().unwrap();
        assert_eq!(ran.get(), 1);
    });
}

#[test]
fn helping_join_in_the_only_worker_the_job_runs_there() {
    check(OF_A_POOL, || {
        let pool = Arc::new(ThreadPool::new(1));
        let outer = pool.submit({
            let pool = Arc::clone(&pool);
            move || pool.submit(|| 7).join().unwrap()
        });
        assert_eq!(outer.join().unwrap(), 7);
    });
}

#[test]
fn any_of_in_the_only_worker_the_job_runs_there() {
    check(OF_A_POOL, || {
        let pool = Arc::new(ThreadPool::new(1));
        let outer = pool.submit({
            let pool = Arc::clone(&pool);
            move || block_on(pool.submit(|| 7)).unwrap()
        });
        assert_eq!(outer.join().unwrap(), 7);
    });
}

#[test]
fn any_of_in_both_workers_the_jobs_run_there() {
    check(OF_TWO_WORKERS, || {
        let pool = Arc::new(ThreadPool::new(2));
        let outer = [1, 2].map(|value| {
            let inner = Arc::clone(&pool);
            pool.submit(move || block_on(inner.submit(move || value)).unwrap())
        });
        let values = outer.map(|handle| handle.join().unwrap());
        assert_eq!(values, [1, 2]);
    });
}

#[test]
fn any_of_and_a_job_from_outside_both_jobs_run() {
    check(AND_ANOTHER_THREAD, || {
        let pool = Arc::new(ThreadPool::new(1));
        let outer = pool.submit({
            let pool = Arc::clone(&pool);
            move || block_on(pool.submit(|| 1)).unwrap()
        });
        // It may come while the only worker is about to block, and nothing in the pool waits for
        // it.
        let other = beside(&pool, move |pool| pool.submit(|| 2).join().unwrap());
        assert_eq!(outer.join().unwrap(), 1);
        assert_eq!(other.join().unwrap(), 2);
    });
}

#[test]
fn any_of_and_a_job_that_comes_to_the_blocked_worker_it_runs_there() {
    check(OF_A_POOL, || {
        let pool = Arc::new(ThreadPool::new(1));
        let (give, take) = promise();
        // The only worker waits for a handle that it does not have yet.
        let outer = pool.submit(move || {
            let inner: JoinHandle<i32> = block_on(take);
            block_on(inner).unwrap()
        });
        give.give(pool.submit(|| 7));
        assert_eq!(outer.join().unwrap(), 7);
    });
}

/// A value that one thread gives to another, whose task awaits it.
fn promise<T>() -> (Giver<T>, Taker<T>) {
    let shared = Arc::new(loom::sync::Mutex::new((None, None)));
    (Giver(Arc::clone(&shared)), Taker(shared))
}

type Shared<T> = Arc<loom::sync::Mutex<(Option<T>, Option<Waker>)>>;
struct Giver<T>(Shared<T>);
struct Taker<T>(Shared<T>);

impl<T> Giver<T> {
    fn give(self, value: T) {
        let waker = {
            let mut shared = self.0.lock().unwrap();
            shared.0 = Some(value);
            shared.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Taker<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut shared = self.0.lock().unwrap();
        match shared.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                shared.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Joins the jobs of a broadcast to a pool with one worker.
fn broadcast_to_one(pool: &ThreadPool) {
    let handles = pool.broadcast(|| 7);
    for handle in handles {
        assert_eq!(handle.join().unwrap(), 7);
    }
}

#[test]
fn broadcast_and_park_the_worker_runs_its_job() {
    check(OF_A_POOL, || {
        let pool = ThreadPool::new(1);
        pool.submit(|| ()).join().unwrap();
        broadcast_to_one(&pool);
    });
}

#[test]
fn broadcast_and_keep_alive_the_worker_runs_its_job_or_has_exited_before() {
    check(OF_A_POOL, || {
        let builder = ThreadPool::builder().max_workers(1);
        let pool = builder.keep_alive(Duration::ZERO).build().unwrap();
        pool.submit(|| ()).join().unwrap();
        broadcast_to_one(&pool);
    });
}

#[test]
fn broadcast_and_submit_a_job_gets_a_worker_of_its_own() {
    check(OF_TWO_WORKERS, || {
        let pool = ThreadPool::new(2);
        pool.submit(|| ()).join().unwrap();
        let go = Arc::new(Notify::new());
        let wait = Arc::clone(&go);
        // It ends only when the job has run.
        let handles = pool.broadcast(move || wait.wait());
        pool.submit(move || go.notify()).join().unwrap();
        for handle in handles {
            handle.join().unwrap();
        }
    });
}

#[test]
fn resize_and_park_a_surplus_worker_exits() {
    check(OF_TWO_WORKERS, || {
        let exited = Arc::new(Notify::new());
        let tell = Arc::clone(&exited);
        let builder = ThreadPool::builder().max_workers(2);
        let pool = builder.on_exit(move || tell.notify()).build().unwrap();
        pool.prestart(2);
        pool.set_max_workers(1).unwrap();
        exited.wait();
    });
}

#[test]
fn resize_and_submit_the_job_gets_the_worker_that_is_allowed_now() {
    check(OF_TWO_WORKERS, || {
        let pool = Arc::new(ThreadPool::new(1));
        let go = Arc::new(Notify::new());
        let wait = Arc::clone(&go);
        // It ends only when the other job has run.
        let busy = pool.submit(move || wait.wait());
        let resizer = beside(&pool, |pool| pool.set_max_workers(2).unwrap());
        pool.submit(move || go.notify()).join().unwrap();
        busy.join().unwrap();
        resizer.join().unwrap();
    });
}
