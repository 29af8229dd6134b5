//! Jobs that do not start before their deadline.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{
    Executor, ExecutorExt, JobEvent, JoinError, JoinHandle, ThreadPool, as_completed,
};

use crate::common::{
    CountingWaker, Gate, LONG, Random, block_workers, bounded_pool, eventually, poll_once,
    poll_with, spawn_until_asleep, within,
};

/// Where time is the subject: the deadline of a job that will not start.
const SOON: Duration = Duration::from_millis(20);

/// The same for a job with which a test does something before that, even on a slow and busy
/// machine.
const LATER: Duration = Duration::from_secs(1);

#[track_caller]
fn expires<T: std::fmt::Debug>(mut handle: JoinHandle<T>) -> JoinError {
    let error = handle.join_timeout(LONG).unwrap_err();
    assert!(error.is_expired() && !error.is_cancelled(), "{error}");
    error
}

/// A value whose destructor tells of it.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

fn timeout_pool(workers: usize, timeout: Duration) -> ThreadPool {
    let builder = ThreadPool::builder().max_workers(workers);
    builder.queue_timeout(timeout).build().unwrap()
}

// When.

#[test]
fn a_job_expires_at_its_deadline_while_every_worker_is_busy() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let start = Instant::now();
    let jobs = [
        pool.job(|| 1).deadline(start + SOON).submit(),
        pool.job(|| 2).expires_in(SOON).submit(),
        pool.job(|| 3)
            .expires_in(LONG)
            .deadline(start + SOON)
            .submit(),
        pool.job(|| 4)
            .expires_in(SOON)
            .deadline(start + LONG)
            .submit(),
    ];
    for job in jobs {
        let error = expires(job);
        assert!(start.elapsed() >= SOON);
        assert!(error.location().is_some() && !error.may_have_run());
        assert_eq!(
            std::io::Error::from(error).kind(),
            std::io::ErrorKind::TimedOut
        );
    }
    let metrics = pool.metrics();
    assert_eq!((metrics.expired, metrics.cancelled), (4, 4));
    assert_eq!(
        (metrics.submitted, metrics.rejected, metrics.queued),
        (5, 0, 0)
    );
    blocked.release();
}

/// A busy machine can be late at times, but not each time.
#[test]
fn a_job_expires_at_its_deadline_and_no_later() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let delays = (0..20).map(|_| {
        let deadline = Instant::now() + SOON;
        expires(pool.job(|| ()).deadline(deadline).submit());
        deadline.elapsed()
    });
    let least = delays.min().unwrap();
    assert!(least < SOON, "{least:?}");
    blocked.release();
}

#[test]
fn a_job_whose_deadline_has_passed_never_runs() {
    let pool = ThreadPool::new(1);
    for _ in 0..100 {
        let job = pool.job(|| unreachable!("it is too late"));
        expires(job.expires_in(Duration::ZERO).submit::<()>());
        let job = pool.job(|| unreachable!("it is too late"));
        expires(job.deadline(Instant::now()).submit::<()>());
    }
    assert_eq!(pool.metrics().expired, 200);
    let job = pool.job(|| 1).deadline(Instant::now());
    let error = job.try_submit::<i32>().unwrap_err();
    assert!(error.is_expired() && !error.is_full() && !error.is_refused());
    assert_eq!(error.into_inner()(), 1);
    let job = pool.job(|| 2).deadline(Instant::now());
    let error = futurepool::block_on(job.submit_async()).unwrap_err();
    assert!(error.is_expired(), "{error}");
    let metrics = pool.metrics();
    assert_eq!(
        (metrics.rejected, metrics.submitted, metrics.completed),
        (2, 200, 0)
    );
}

#[test]
fn a_deadline_too_far_for_the_clock_is_none() {
    let pool = timeout_pool(1, Duration::MAX);
    let job = pool.job(|| 1).expires_in(Duration::MAX);
    assert_eq!(job.submit().join().unwrap(), 1);
    assert_eq!(pool.submit(|| 2).join().unwrap(), 2);
}

#[test]
fn a_job_that_has_started_runs_to_its_end() {
    let pool = ThreadPool::new(1);
    let (started, starts) = mpsc::channel();
    let gate = Gate::new();
    let of_job = gate.clone();
    let job = move || {
        started.send(()).unwrap();
        of_job.wait();
        assert!(!futurepool::cancel_requested());
        7
    };
    // It starts in time even on a slow machine, or it says so.
    let handle = pool.job(job).expires_in(Duration::from_secs(2)).submit();
    starts.recv_timeout(LONG).expect("the job starts in time");
    thread::sleep(Duration::from_millis(2100));
    assert!(handle.is_running());
    gate.open();
    assert_eq!(handle.join().unwrap(), 7);
    assert_eq!(pool.metrics().expired, 0);
}

#[test]
fn the_earliest_of_many_deadlines_comes_first() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let start = Instant::now();
    let ended = Arc::new(Mutex::new(Vec::new()));
    let jobs: Vec<_> = [5, 1, 4, 2, 3]
        .map(|n| {
            let at = start + Duration::from_millis(200) * n;
            let job = pool.job(|| ()).deadline(at).submit();
            let ended = Arc::clone(&ended);
            job.add_done_callback(move |_| ended.lock().unwrap().push((n, Instant::now() >= at)));
            job
        })
        .into();
    for job in jobs {
        expires(job);
    }
    // The callback of the last one may still run.
    eventually("all callbacks", || ended.lock().unwrap().len() == 5);
    let in_time = [1, 2, 3, 4, 5].map(|n| (n, true));
    assert_eq!(*ended.lock().unwrap(), in_time);
    blocked.release();
}

#[test]
fn a_worker_that_waits_for_a_late_job_expires_it() {
    let pool = Arc::new(ThreadPool::new(1));
    let inner = Arc::clone(&pool);
    let outer = pool.submit(move || {
        let late = inner.job(|| ()).expires_in(Duration::ZERO).submit();
        late.join().unwrap_err().is_expired()
    });
    assert!(outer.join().unwrap());
}

// In which order.

#[test]
fn an_expired_job_ends_in_the_order_of_a_cancelled_one() {
    let pool = Arc::new(bounded_pool(1, 1));
    let blocked = block_workers(&pool, 1);
    let handle = Arc::new(OnceLock::<JoinHandle<()>>::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let look = {
        let (pool, handle, seen) = (Arc::clone(&pool), Arc::clone(&handle), Arc::clone(&seen));
        move |what| {
            let handle = handle.wait();
            let state = [
                handle.is_running(),
                handle.is_finished(),
                handle.is_cancelled(),
            ];
            let is_full = pool.metrics().queued == 1;
            seen.lock()
                .unwrap()
                .push((what, state, is_full, pool.metrics().expired));
        }
    };
    let of_job = OnDrop({
        let look = look.clone();
        move || look("dropped")
    });
    let job = pool.job(move || drop(of_job)).expires_in(LATER).submit();
    job.add_done_callback(move |outcome| {
        assert!(outcome.unwrap_err().is_expired());
        look("callback");
    });
    handle.set(job).unwrap();
    eventually("both", || seen.lock().unwrap().len() == 2);
    let expected = [
        ("dropped", [false, false, false], true, 0),
        ("callback", [false, true, false], false, 1),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
    let job = handle.get().unwrap();
    assert!(
        !job.cancel() && format!("{job:?}").contains("Expired"),
        "{job:?}"
    );
    blocked.release();
}

#[test]
fn an_expired_job_wakes_what_waits_for_it_and_the_idle_pool() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let mut job = pool.job(|| ()).expires_in(LATER).submit();
    let (counter, waker) = CountingWaker::new();
    assert!(poll_with(&mut job, &waker).is_pending());
    eventually("the waker is called", || counter.count() == 1);
    expires(job);
    let detached = pool.job(|| ()).expires_in(SOON).submit();
    drop(detached);
    eventually("the detached job expires", || pool.metrics().expired == 2);
    let idle = pool.wait_idle();
    blocked.release();
    assert!(within(LONG, "idle", || {
        idle.join();
        true
    }));
}

// Bounded queues.

#[test]
fn an_expired_job_gives_its_permit_to_the_one_that_waits() {
    let pool = bounded_pool(1, 1);
    let blocked = block_workers(&pool, 1);
    let late = pool.job(|| ()).expires_in(LATER).submit();
    let mut waiting = pool.submit_async(|| 7);
    let (counter, waker) = CountingWaker::new();
    assert!(poll_with(&mut waiting, &waker).is_pending());
    expires(late);
    eventually("there is room", || counter.count() == 1);
    let handle = futurepool::block_on(waiting).unwrap();
    assert!(pool.try_submit(|| ()).unwrap_err().is_full());
    blocked.release();
    assert_eq!(handle.join().unwrap(), 7);
}

#[test]
fn a_submit_that_waits_for_room_returns_an_expired_handle_at_the_deadline() {
    let pool = bounded_pool(1, 1);
    let blocked = block_workers(&pool, 1);
    let queued = pool.submit(|| 1);
    let captured = Arc::new(());
    let of_job = Arc::clone(&captured);
    let start = Instant::now();
    let line = line!() + 1;
    let late = pool.job(move || drop(of_job)).expires_in(SOON).submit();
    assert!(start.elapsed() >= SOON && late.is_finished());
    assert_eq!(Arc::strong_count(&captured), 1);
    assert_eq!(expires(late).location().unwrap().line(), line);
    let metrics = pool.metrics();
    assert_eq!(
        (metrics.submitted, metrics.cancelled, metrics.expired),
        (3, 1, 1)
    );
    assert_eq!((metrics.rejected, metrics.queued), (0, 1));
    // No permit is lost, and none is left over.
    assert!(queued.cancel());
    let next = pool.try_submit(|| 2).unwrap();
    assert!(pool.try_submit(|| 3).unwrap_err().is_full());
    blocked.release();
    assert_eq!(next.join().unwrap(), 2);
}

#[test]
fn a_submit_that_gets_room_in_time_queues_its_job() {
    let pool = Arc::new(bounded_pool(1, 1));
    let blocked = block_workers(&pool, 1);
    let queued = pool.submit(|| 1);
    let of_thread = Arc::clone(&pool);
    let submits = spawn_until_asleep(move || of_thread.job(|| 2).expires_in(LONG).submit());
    assert!(queued.cancel());
    let handle = submits.join().unwrap();
    assert!(!handle.is_finished());
    blocked.release();
    assert_eq!(handle.join().unwrap(), 2);
}

#[test]
fn a_worker_of_the_pool_exceeds_the_capacity_with_a_deadline_too() {
    let pool = Arc::new(bounded_pool(1, 1));
    let inner = Arc::clone(&pool);
    let outer = pool.submit(move || {
        let jobs = [1, 2, 3].map(|n| inner.job(move || n).expires_in(LONG).submit());
        jobs.map(|job| job.join().unwrap())
    });
    assert_eq!(outer.join().unwrap(), [1, 2, 3]);
}

#[test]
fn a_future_that_waits_for_room_has_an_error_at_the_deadline() {
    let pool = bounded_pool(1, 1);
    let blocked = block_workers(&pool, 1);
    let queued = pool.submit(|| 1);
    let mut waiting = pool.job(|| 2).expires_in(LATER).submit_async();
    let mut behind = pool.submit_async(|| 3);
    let (counter, waker) = CountingWaker::new();
    assert!(poll_with(&mut waiting, &waker).is_pending());
    assert!(poll_once(&mut behind).is_pending());
    eventually("the waker is called", || counter.count() >= 1);
    let error = futurepool::block_on(waiting).unwrap_err();
    assert!(error.is_expired() && !error.is_full(), "{error}");
    assert_eq!(error.into_inner()(), 2);
    assert_eq!(pool.metrics().rejected, 1);
    // Its turn passes to the next one.
    assert!(queued.cancel());
    assert!(poll_once(&mut behind).is_ready());
    blocked.release();
}

#[test]
fn a_permit_that_comes_too_late_is_passed_on() {
    let pool = bounded_pool(1, 1);
    let blocked = block_workers(&pool, 1);
    let queued = pool.submit(|| 1);
    let mut waiting = pool
        .job(|| 2)
        .expires_in(Duration::from_secs(1))
        .submit_async();
    let (counter, waker) = CountingWaker::new();
    assert!(poll_with(&mut waiting, &waker).is_pending());
    assert!(queued.cancel());
    eventually("the permit is granted", || counter.count() >= 1);
    thread::sleep(Duration::from_millis(1100));
    assert!(futurepool::block_on(waiting).unwrap_err().is_expired());
    let next = pool.try_submit(|| 3).unwrap();
    assert!(pool.try_submit(|| 4).unwrap_err().is_full());
    blocked.release();
    assert_eq!(next.join().unwrap(), 3);
}

#[test]
fn the_time_counts_from_the_call_and_not_from_the_first_poll() {
    let pool = bounded_pool(1, 1);
    let waiting = pool.job(|| 2).expires_in(SOON).submit_async::<i32>();
    thread::sleep(SOON);
    assert!(futurepool::block_on(waiting).unwrap_err().is_expired());
    let pool = ThreadPool::builder().queue_capacity(1).queue_timeout(SOON);
    let pool = pool.build().unwrap();
    let waiting = pool.submit_async(|| 2);
    thread::sleep(SOON);
    assert!(futurepool::block_on(waiting).unwrap_err().is_expired());
}

// The pool's own timeout.

#[test]
fn a_queue_timeout_holds_for_every_way_of_submission() {
    // The job that blocks the worker must start within this time, too.
    let pool = timeout_pool(1, Duration::from_millis(200));
    let blocked = block_workers(&pool, 1);
    expires(pool.submit(|| ()));
    expires(pool.try_submit(|| ()).unwrap());
    expires(futurepool::block_on(pool.submit_async(|| ())).unwrap());
    expires(pool.job(|| ()).expires_in(LONG).submit());
    let executor: &dyn Executor = &pool;
    expires(executor.submit(|| ()));
    let passed_on = PassOn(&pool);
    expires(passed_on.submit(|| ()));
    let results: Vec<_> = pool
        .map([1, 2, 3], |n| n)
        .chunk_size(1)
        .into_iter()
        .collect();
    assert_eq!(results.len(), 3);
    for result in results {
        assert!(result.unwrap_err().is_expired());
    }
    let metrics = pool.metrics();
    assert_eq!((metrics.expired, metrics.cancelled), (9, 9));
    blocked.release();
    // On a busy machine the first ones may be late.
    eventually("a job starts in time", || {
        pool.submit(|| 7).join().is_ok_and(|seven| seven == 7)
    });
}

/// An executor that hands its jobs on.
struct PassOn<'a>(&'a ThreadPool);

impl Executor for PassOn<'_> {
    fn execute(&self, job: futurepool::Job) {
        // A type of its own, so the job is one for any executor.
        let pool: &dyn Executor = self.0;
        pool.execute(job);
    }
}

#[test]
fn an_earlier_deadline_counts_more_than_the_queue_timeout() {
    let pool = timeout_pool(1, LONG);
    let blocked = block_workers(&pool, 1);
    let late = pool.job(|| ()).expires_in(SOON).submit();
    let in_time = pool.submit(|| 7);
    expires(late);
    assert!(!in_time.is_finished());
    blocked.release();
    assert_eq!(in_time.join().unwrap(), 7);
}

#[test]
fn a_submit_waits_for_room_no_longer_than_the_queue_timeout() {
    let pool = ThreadPool::builder().max_workers(1).queue_capacity(1);
    let pool = pool.queue_timeout(Duration::from_secs(2));
    let pool = Arc::new(pool.build().unwrap());
    let blocked = block_workers(&pool, 1);
    // Room that was given to a future stays reserved until the future is polled again.
    let queued = pool.submit(|| ());
    let mut reserved = pool.submit_async(|| 7);
    assert!(poll_once(&mut reserved).is_pending());
    assert!(queued.cancel());
    let submits = [false, true].map(|by_any_executor| {
        let pool = Arc::clone(&pool);
        thread::spawn(move || match by_any_executor {
            false => pool.submit(|| ()),
            true => PassOn(&pool).submit(|| ()),
        })
    });
    for submit in submits {
        expires(within(LONG, "submit", || submit.join().unwrap()));
    }
    let metrics = pool.metrics();
    assert_eq!((metrics.rejected, metrics.expired), (0, 2));
    drop(reserved);
    assert!(pool.try_submit(|| ()).is_ok(), "no permit was lost");
    blocked.release();
}

#[test]
fn a_scope_panics_for_a_job_that_expired_and_was_not_taken() {
    let pool = timeout_pool(1, SOON);
    let blocked = block_workers(&pool, 1);
    let panicked = std::panic::catch_unwind(|| pool.scope(|s| drop(s.submit(|| ()))));
    assert!(panicked.is_err());
    pool.scope(|s| {
        let job = s.submit(|| ());
        assert!(job.join().unwrap_err().is_expired());
    });
    blocked.release();
}

// Slow user code.

/// What an expired job can do that takes its time.
fn slow_jobs(pool: &ThreadPool, gate: &Gate, started: &mpsc::Sender<()>) -> [JoinHandle<()>; 3] {
    let wait = || {
        let (gate, started) = (gate.clone(), started.clone());
        move || {
            started.send(()).unwrap();
            gate.wait();
        }
    };
    let captured = OnDrop(wait());
    let dropped = pool.job(move || drop(captured)).expires_in(LATER);
    let dropped = dropped.submit();
    let called = pool.job(|| ()).expires_in(LATER).submit();
    let wait_there = wait();
    called.add_done_callback(move |_| wait_there());
    let mut woken = pool.job(|| ()).expires_in(LATER).submit();
    let waker = Waker::from(Arc::new(OnWake(Mutex::new(wait()))));
    assert!(poll_with(&mut woken, &waker).is_pending());
    [dropped, called, woken]
}

struct OnWake<F>(Mutex<F>);

impl<F: Fn() + Send + 'static> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap()();
    }
}

#[test]
fn slow_user_code_of_expired_jobs_delays_neither_timeouts_nor_other_jobs() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let gate = Gate::new();
    let (started, starts) = mpsc::channel();
    let slow: Vec<_> = (0..4)
        .flat_map(|_| slow_jobs(&pool, &gate, &started))
        .collect();
    let others: Vec<_> = (0..100)
        .map(|_| pool.job(|| ()).expires_in(LATER + SOON).submit())
        .collect();
    for _ in 0..slow.len() {
        starts
            .recv_timeout(LONG)
            .expect("each of them is in its slow code");
    }
    for other in others {
        expires(other);
    }
    // Timers still work, and so do jobs that are submitted now.
    let error = {
        let pending = futures::future::pending::<()>();
        as_completed([pending]).timeout(SOON).wait_next().unwrap()
    };
    assert!(error.is_err());
    expires(pool.job(|| ()).expires_in(SOON).submit());
    gate.open();
    slow.into_iter().for_each(|job| drop(expires(job)));
    blocked.release();
}

#[test]
fn a_slow_hook_delays_no_deadline() {
    let (dropped, is_dropped) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let is_dropped = Mutex::new(is_dropped);
    let hook = move |event: &JobEvent| {
        if let (JobEvent::Submitted { .. }, Some("late")) = (event, event.label()) {
            let in_time = is_dropped.lock().unwrap().recv_timeout(LONG);
            tell.send(in_time.is_ok()).unwrap();
        }
    };
    let builder = ThreadPool::builder().max_workers(1).on_job(hook);
    let pool = builder.build().unwrap();
    let blocked = block_workers(&pool, 1);
    let guard = OnDrop(move || dropped.send(()).unwrap());
    let job = pool.job(move || drop(guard)).label("late").expires_in(SOON);
    expires(job.submit());
    assert!(told.recv().unwrap(), "the deadline came after the hook");
    blocked.release();
}

#[test]
fn a_slow_waker_of_a_job_that_comes_from_elsewhere_delays_no_deadline() {
    /// An executor that keeps its job.
    #[derive(Default)]
    struct Kept(Mutex<Option<futurepool::Job>>);

    impl Executor for Kept {
        fn execute(&self, job: futurepool::Job) {
            *self.0.lock().unwrap() = Some(job);
        }
    }

    let pool = timeout_pool(1, SOON);
    let blocked = block_workers(&pool, 1);
    let kept = Kept::default();
    let mut job = kept.submit(|| ());
    let expiring = job.cancel_handle();
    let (tell, told) = mpsc::channel();
    let wake = move || {
        let start = Instant::now();
        while !expiring.is_finished() && start.elapsed() < LONG / 6 {
            thread::sleep(Duration::from_millis(1));
        }
        tell.send(expiring.is_finished()).unwrap();
    };
    // It is woken when its job reaches the pool, since a worker could run the job from then on.
    let waker = Waker::from(Arc::new(OnWake(Mutex::new(wake))));
    assert!(poll_with(&mut job, &waker).is_pending());
    let kept = kept.0.lock().unwrap().take().unwrap();
    Executor::execute(&pool, kept);
    assert!(told.recv().unwrap(), "the deadline came after the waker");
    expires(job);
    blocked.release();
}

#[test]
fn a_callback_that_is_added_after_the_end_runs_at_once_although_the_waker_is_slow() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let gate = Gate::new();
    let (woken, is_woken) = mpsc::channel();
    let of_waker = gate.clone();
    let wake = move || {
        woken.send(()).unwrap();
        of_waker.wait();
    };
    let mut job = pool.job(|| ()).label("late").expires_in(SOON).submit();
    let waker = Waker::from(Arc::new(OnWake(Mutex::new(wake))));
    assert!(poll_with(&mut job, &waker).is_pending());
    is_woken.recv_timeout(LONG).expect("the job expires");
    assert!(job.is_finished());
    let (tell, told) = mpsc::channel();
    job.add_done_callback(move |outcome| {
        tell.send(outcome.unwrap_err().is_expired()).unwrap();
    });
    assert_eq!(told.try_recv(), Ok(true), "it waits for the waker");
    gate.open();
    expires(job);
    blocked.release();
}

#[test]
fn user_code_of_expired_jobs_that_panics_harms_no_other() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let jobs: Vec<_> = (0..10)
        .map(|n| {
            let captured = OnDrop(move || assert!(n % 2 == 0, "a destructor"));
            let job = pool.job(move || drop(captured)).expires_in(SOON).submit();
            job.add_done_callback(move |_| assert!(n % 3 == 0, "a callback"));
            job
        })
        .collect();
    jobs.into_iter().for_each(|job| drop(expires(job)));
    assert_eq!(pool.metrics().expired, 10);
    blocked.release();
}

#[test]
fn an_expired_job_can_be_followed_by_another_one_in_its_callback() {
    let pool = Arc::new(timeout_pool(1, SOON));
    let blocked = block_workers(&pool, 1);
    let (tell, told) = mpsc::channel();
    fn again(pool: Arc<ThreadPool>, n: u32, tell: mpsc::Sender<u32>) {
        let job = pool.submit(|| ());
        job.add_done_callback(move |outcome| {
            assert!(outcome.unwrap_err().is_expired());
            tell.send(n).unwrap();
            if n > 0 {
                again(pool, n - 1, tell);
            }
        });
    }
    again(Arc::clone(&pool), 5, tell);
    let order: Vec<_> = (0..=5).map(|_| told.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(order, [5, 4, 3, 2, 1, 0]);
    blocked.release();
}

// Races.

#[test]
fn jobs_that_start_are_cancelled_or_expire_at_the_same_time_end_once() {
    const JOBS: u64 = 2_000;
    let pool = Arc::new(ThreadPool::builder().max_workers(2).build().unwrap());
    let (ran, called) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let captured = Arc::new(());
    let mut random = Random(17);
    let (cancel, cancels) = mpsc::channel::<futurepool::CancelHandle>();
    let canceller = thread::spawn(move || {
        let cancelled = cancels.iter().filter(|handle| handle.cancel());
        cancelled.count() as u64
    });
    let handles: Vec<_> = (0..JOBS)
        .map(|_| {
            let (ran, captured) = (Arc::clone(&ran), Arc::clone(&captured));
            let job = move || {
                ran.fetch_add(1, SeqCst);
                thread::yield_now();
                drop(captured);
            };
            let micros = random.below(2_000) as u64;
            let job = pool
                .job(job)
                .expires_in(Duration::from_micros(micros))
                .submit();
            let called = Arc::clone(&called);
            job.add_done_callback(move |_| {
                called.fetch_add(1, SeqCst);
            });
            if random.one_in(3) {
                cancel.send(job.cancel_handle()).unwrap();
            }
            job
        })
        .collect();
    drop(cancel);
    let (mut completed, mut cancelled, mut expired) = (0, 0, 0);
    for mut handle in handles {
        match handle.join_timeout(LONG) {
            Ok(()) => completed += 1,
            Err(error) if error.is_cancelled() => cancelled += 1,
            Err(error) if error.is_expired() => expired += 1,
            Err(error) => panic!("{error}"),
        }
    }
    println!("{completed} completed, {cancelled} cancelled, {expired} expired");
    assert!(canceller.join().unwrap() >= cancelled);
    assert_eq!(ran.load(SeqCst), completed);
    pool.wait_idle().join();
    let metrics = pool.metrics();
    assert_eq!((metrics.completed, metrics.expired), (completed, expired));
    assert_eq!(
        (metrics.submitted, metrics.cancelled),
        (JOBS, cancelled + expired)
    );
    eventually("all callbacks", || called.load(SeqCst) == JOBS as usize);
    assert_eq!(Arc::strong_count(&captured), 1);
}

#[test]
fn a_pool_that_ends_takes_its_deadlines_along() {
    let pool = timeout_pool(1, LONG);
    let blocked = block_workers(&pool, 1);
    let jobs: Vec<_> = (0..10).map(|_| pool.submit(|| ())).collect();
    let shutdown = pool.shutdown_now();
    assert_eq!(shutdown.cancelled(), 10);
    for job in jobs {
        assert!(job.join().unwrap_err().is_cancelled());
    }
    assert_eq!(pool.metrics().expired, 0);
    blocked.release();
    shutdown.join();
}
