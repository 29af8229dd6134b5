//! What a pool tells of its jobs: `ThreadPoolBuilder::on_job`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{
    CancelHandle, Executor, ExecutorExt, Job, JobEvent, JobOutcome, ThreadPool, ThreadPoolBuilder,
};

use crate::common::event_log::EventLog;
use crate::common::{LONG, block_workers, child, eventually, poll_once, within};

/// The events so far.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<JobEvent>>>);

impl Log {
    fn pool(&self, workers: usize) -> ThreadPool {
        self.builder(workers).build().unwrap()
    }

    fn builder(&self, workers: usize) -> ThreadPoolBuilder {
        let log = self.clone();
        let builder = ThreadPool::builder().max_workers(workers);
        builder.on_job(move |event| log.0.lock().unwrap().push(event.clone()))
    }

    fn events(&self) -> Vec<JobEvent> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the events of each job, in the order of their times, once `jobs` jobs have all of
    /// theirs.
    #[track_caller]
    fn by_job(&self, jobs: usize) -> Vec<Vec<JobEvent>> {
        let count = |test: fn(&JobEvent) -> bool| self.events().iter().filter(|e| test(e)).count();
        // The submitter tells of a job after it is queued.
        eventually("all events", || {
            count(|event| matches!(event, JobEvent::Submitted { .. })) == jobs
                && count(|event| matches!(event, JobEvent::Finished { .. })) == jobs
        });
        let mut by_id = HashMap::<u64, Vec<JobEvent>>::new();
        for event in self.events() {
            by_id.entry(event.id()).or_default().push(event);
        }
        let mut jobs: Vec<_> = by_id.into_iter().collect();
        jobs.sort_by_key(|(id, _)| *id);
        jobs.into_iter()
            .map(|(_, mut events)| {
                // Two of them can have the same time.
                events.sort_by_key(|event| (event.at(), rank(event)));
                events
            })
            .collect()
    }

    /// Returns how each job ended, and whether it started, in the order of submission.
    #[track_caller]
    fn outcomes(&self, jobs: usize) -> Vec<(JobOutcome, bool)> {
        self.by_job(jobs)
            .iter()
            .map(|events| match &events[..] {
                [
                    JobEvent::Submitted { .. },
                    JobEvent::Finished { outcome, .. },
                ] => (*outcome, false),
                [
                    JobEvent::Submitted { .. },
                    JobEvent::Started { .. },
                    JobEvent::Finished { outcome, .. },
                ] => (*outcome, true),
                other => panic!("{other:#?}"),
            })
            .collect()
    }
}

fn rank(event: &JobEvent) -> u32 {
    match event {
        JobEvent::Submitted { .. } => 0,
        JobEvent::Started { .. } => 1,
        _ => 2,
    }
}

#[test]
fn a_job_that_runs_has_three_events() {
    let log = Log::default();
    let pool = log.pool(1);
    let before = Instant::now();
    let job = pool.job(|| thread::sleep(Duration::from_millis(5)));
    let job = job.label("sleep");
    let line = line!() + 1;
    let job = job.submit();
    job.join().unwrap();
    let after = Instant::now();
    let jobs = log.by_job(1);
    let [submitted, started, finished] = &jobs[0][..] else {
        panic!("{jobs:#?}");
    };
    for event in [submitted, started, finished] {
        assert_eq!(event.label(), Some("sleep"));
        assert_eq!(event.location().line(), line);
        assert!((before..=after).contains(&event.at()));
    }
    assert_eq!(
        (submitted.worker(), started.worker(), finished.worker()),
        (None, Some(0), Some(0))
    );
    assert_eq!((submitted.outcome(), started.outcome()), (None, None));
    let JobEvent::Finished {
        queue_wait,
        run_time,
        outcome,
        ..
    } = finished
    else {
        panic!("{finished:?}");
    };
    assert_eq!(
        (*outcome, finished.outcome()),
        (JobOutcome::Completed, Some(JobOutcome::Completed))
    );
    let run_time = run_time.unwrap();
    assert!(run_time >= Duration::from_millis(5) && run_time <= after - before);
    assert!(*queue_wait <= after - before);
    assert!(started.at() - submitted.at() >= queue_wait.saturating_sub(Duration::from_nanos(1)));
}

#[test]
fn the_last_event_comes_before_callbacks_and_the_result() {
    let log = Log::default();
    let pool = log.pool(1);
    let of_callback = log.clone();
    let (tell, told) = mpsc::channel();
    let is_there = |log: &Log| log.events().iter().any(|event| event.outcome().is_some());
    let blocked = block_workers(&pool, 1);
    let job = pool.submit(|| ());
    job.add_done_callback(move |_| tell.send(of_callback.outcomes_so_far()).unwrap());
    blocked.release();
    job.join().unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), 2);
    assert!(is_there(&log));

    let log = Log::default();
    let pool = log.pool(1);
    let blocked = block_workers(&pool, 1);
    let job = pool.submit(|| ());
    assert!(job.cancel());
    assert_eq!(log.outcomes_so_far(), 1);
    let late = pool
        .job(|| ())
        .expires_in(Duration::from_millis(5))
        .submit();
    assert!(late.join().unwrap_err().is_expired());
    assert_eq!(log.outcomes_so_far(), 2);
    blocked.release();
}

impl Log {
    fn outcomes_so_far(&self) -> usize {
        let ended = |event: &&JobEvent| event.outcome().is_some();
        self.events().iter().filter(ended).count()
    }
}

#[test]
fn every_end_has_one_event() {
    let log = Log::default();
    let pool = log.pool(1);
    pool.submit(|| ()).join().unwrap();
    pool.submit(|| panic!("told")).join().unwrap_err();
    let blocked = block_workers(&pool, 1);
    assert!(pool.submit(|| ()).cancel());
    drop(pool.submit(|| ()).cancel_on_drop());
    let _queued = [pool.submit(|| ()), pool.submit(|| ())];
    assert_eq!(pool.cancel_queued(), 2);
    let late = pool
        .job(|| ())
        .expires_in(Duration::from_millis(5))
        .submit();
    assert!(late.join().unwrap_err().is_expired());
    let stale = pool.job(|| ()).expires_in(Duration::ZERO).submit();
    assert!(stale.join().unwrap_err().is_expired());
    let _last = pool.submit(|| ());
    pool.shutdown_now();
    // Refused jobs have no events.
    assert!(pool.submit(|| ()).join().unwrap_err().is_shutdown());
    assert!(pool.try_submit(|| ()).is_err());
    blocked.release();
    use JobOutcome::{Cancelled, Completed, Expired, Panicked};
    let expected = [
        (Completed, true),
        (Panicked, true),
        (Completed, true),
        (Cancelled, false),
        (Cancelled, false),
        (Cancelled, false),
        (Cancelled, false),
        (Expired, false),
        (Expired, false),
        (Cancelled, false),
    ];
    assert_eq!(log.outcomes(expected.len()), expected);
}

#[test]
fn a_job_of_a_pool_that_breaks_did_not_run() {
    let log = Log::default();
    let pool = log.builder(1).initializer(|| Err::<(), _>("no database"));
    let pool = pool.build().unwrap();
    assert!(pool.submit(|| ()).join().unwrap_err().is_broken());
    assert!(pool.submit(|| ()).join().unwrap_err().is_broken());
    assert_eq!(log.outcomes(1), [(JobOutcome::NotRun, false)]);
}

#[test]
fn a_job_that_waits_for_room_in_a_queue_has_events_once_it_is_accepted() {
    let log = Log::default();
    let pool = log.builder(1).queue_capacity(1).build().unwrap();
    let blocked = block_workers(&pool, 1);
    let queued = pool.submit(|| ());
    assert!(pool.try_submit(|| ()).unwrap_err().is_full());
    let late = pool
        .job(|| ())
        .expires_in(Duration::from_millis(5))
        .submit();
    assert!(late.join().unwrap_err().is_expired());
    let mut waiting = pool.submit_async(|| ());
    assert!(poll_once(&mut waiting).is_pending());
    blocked.release();
    queued.join().unwrap();
    // The one that expired while its submit waited was accepted then.
    let so_far = [
        (JobOutcome::Completed, true),
        (JobOutcome::Completed, true),
        (JobOutcome::Expired, false),
    ];
    assert_eq!(log.outcomes(3), so_far);
    let handle = futurepool::block_on(waiting).unwrap();
    handle.join().unwrap();
    assert_eq!(log.outcomes(4)[..3], so_far);
    assert_eq!(log.outcomes(4)[3], (JobOutcome::Completed, true));
}

#[test]
fn a_job_that_a_waiting_worker_runs_has_the_events_of_that_worker() {
    let log = Log::default();
    let pool = Arc::new(log.pool(1));
    let inner = Arc::clone(&pool);
    let job = move || inner.job(|| ()).label("inner").submit().join();
    pool.job(job)
        .label("outer")
        .submit()
        .join()
        .unwrap()
        .unwrap();
    let jobs = log.by_job(2);
    let labels: Vec<_> = jobs
        .iter()
        .map(|events| events[0].label().unwrap())
        .collect();
    assert_eq!(labels, ["outer", "inner"]);
    let [outer, inner] = [0, 1].map(|job| &jobs[job][1..]);
    assert_eq!(
        inner.iter().map(JobEvent::worker).collect::<Vec<_>>(),
        [Some(0); 2]
    );
    assert!(outer[0].at() <= inner[0].at() && inner[1].at() <= outer[1].at());
}

/// An executor that hands its jobs on to a pool.
struct PassOn<'a>(&'a ThreadPool);

impl Executor for PassOn<'_> {
    fn execute(&self, job: Job) {
        let pool: &dyn Executor = self.0;
        pool.execute(job);
    }
}

#[test]
fn jobs_of_maps_scopes_and_executors_have_events_too() {
    let log = Log::default();
    let pool = log.pool(2);
    let map = pool.map(0..100, |n| n).chunk_size(10).join().unwrap();
    assert_eq!(map.len(), 100);
    pool.scope(|s| {
        for _ in 0..10 {
            drop(s.submit(|| ()));
        }
    });
    PassOn(&pool).submit(|| ()).join().unwrap();
    assert!(PassOn(&pool).submit(|| panic!("told")).join().is_err());
    pool.wait_idle().join();
    let submitted = pool.metrics().submitted;
    assert!(submitted >= 22);
    let outcomes = log.outcomes(usize::try_from(submitted).unwrap());
    assert!(outcomes.iter().all(|(_, started)| *started));
    let panicked = |(outcome, _): &&(JobOutcome, bool)| *outcome == JobOutcome::Panicked;
    assert_eq!(outcomes.iter().filter(panicked).count(), 1);
}

#[test]
fn every_job_has_each_event_once_whatever_happens_at_the_same_time() {
    const JOBS: usize = 500;
    let log = Log::default();
    let pool = Arc::new(log.pool(2));
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let pool = &pool;
            scope.spawn(move || {
                for n in 0..JOBS {
                    let timeout = match n % 3 {
                        0 => Duration::from_micros(50),
                        _ => LONG,
                    };
                    let job = pool
                        .job(move || assert!(n % 7 > 0))
                        .expires_in(timeout)
                        .submit();
                    if (n + thread) % 5 == 0 {
                        job.cancel();
                    }
                }
            });
        }
    });
    pool.wait_idle().join();
    let outcomes = log.outcomes(4 * JOBS);
    let count = |kind| {
        outcomes
            .iter()
            .filter(|(outcome, _)| *outcome == kind)
            .count() as u64
    };
    let metrics = pool.metrics();
    assert_eq!(count(JobOutcome::Completed), metrics.completed);
    assert_eq!(count(JobOutcome::Panicked), metrics.panicked);
    assert_eq!(count(JobOutcome::Expired), metrics.expired);
    assert_eq!(
        count(JobOutcome::Cancelled),
        metrics.cancelled - metrics.expired
    );
    for (outcome, started) in outcomes {
        let ran = matches!(outcome, JobOutcome::Completed | JobOutcome::Panicked);
        assert_eq!(started, ran, "{outcome:?}");
    }
}

/// Keeps the job that it is given.
#[derive(Default)]
struct Held(Mutex<Option<Job>>);

impl Executor for Held {
    fn execute(&self, job: Job) {
        *self.0.lock().unwrap() = Some(job);
    }
}

#[test]
fn a_job_of_any_executor_that_is_cancelled_on_its_way_has_all_events_or_none() {
    const JOBS: usize = 20_000;
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let by_hook = Arc::clone(&counts);
    let builder = ThreadPool::builder().max_workers(1);
    let builder = builder.on_job(move |event| match event {
        JobEvent::Submitted { .. } => drop(by_hook[0].fetch_add(1, SeqCst)),
        JobEvent::Finished { .. } => drop(by_hook[1].fetch_add(1, SeqCst)),
        _ => {}
    });
    let pool = builder.build().unwrap();
    let held = Held::default();
    within(LONG, "the jobs", move || {
        let (tell, told) = mpsc::channel::<CancelHandle>();
        let canceller = thread::spawn(move || {
            for (job, n) in told.into_iter().zip(0..) {
                // Until the job is on its way into the pool, more or less.
                (0..n % 97).for_each(|_| std::hint::spin_loop());
                job.cancel();
            }
        });
        for _ in 0..JOBS {
            let handle = held.submit(|| ());
            let job = held.0.lock().unwrap().take().unwrap();
            tell.send(handle.cancel_handle()).unwrap();
            pool.execute(job);
            let _ = handle.join();
        }
        drop(tell);
        canceller.join().unwrap();
        pool.wait_idle().join();
        let accepted = pool.metrics().submitted as usize;
        let counts = [0, 1].map(|n| counts[n].load(SeqCst));
        assert_eq!(counts, [accepted, accepted]);
    });
}

#[test]
fn a_hook_may_use_the_pool_because_no_lock_is_held() {
    within(LONG, "the hook", || {
        let pool = Arc::new(OnceLock::<Arc<ThreadPool>>::new());
        let (of_hook, calls) = (Arc::clone(&pool), Arc::new(AtomicUsize::new(0)));
        let (counted, nested) = (Arc::clone(&calls), AtomicBool::new(false));
        let hook = move |_: &JobEvent| {
            counted.fetch_add(1, SeqCst);
            let pool = of_hook.wait();
            assert!(pool.metrics().workers <= 1);
            pool.cancel_queued();
            if !nested.swap(true, SeqCst) {
                assert!(pool.submit(|| ()).cancel());
                nested.store(false, SeqCst);
            }
        };
        let builder = ThreadPool::builder().max_workers(1).on_job(hook);
        pool.set(Arc::new(builder.build().unwrap())).unwrap();
        let pool = pool.get().unwrap();
        for _ in 0..10 {
            let _ = pool.submit(|| ()).join();
            let _ = pool.job(|| ()).expires_in(Duration::ZERO).submit().join();
        }
        pool.wait_idle().join();
        pool.shutdown_now().join();
        assert!(calls.load(SeqCst) >= 40);
    });
}

#[test]
fn a_panic_in_the_hook_is_reported_and_harms_nothing() {
    child::alone(
        "job_events::a_panic_in_the_hook_is_reported_and_harms_nothing",
        || {
            EventLog::install();
            let builder = ThreadPool::builder().max_workers(1);
            let builder = builder.on_job(|event| panic!("no {:?}", event.outcome()));
            let pool = builder.build().unwrap();
            assert_eq!(pool.submit(|| 7).join().unwrap(), 7);
            let blocked = block_workers(&pool, 1);
            assert!(pool.submit(|| ()).cancel());
            let late = pool
                .job(|| ())
                .expires_in(Duration::from_millis(5))
                .submit();
            assert!(late.join().unwrap_err().is_expired());
            blocked.release();
            let metrics = pool.metrics();
            assert_eq!(
                (metrics.completed, metrics.cancelled, metrics.panicked),
                (2, 2, 0)
            );
            for words in [
                "no None",
                "no Some(Completed)",
                "no Some(Cancelled)",
                "no Some(Expired)",
            ] {
                eventually(words, || {
                    EventLog::contains_at(tracing::Level::ERROR, &["on_job", words])
                });
            }
        },
    );
}

#[test]
fn the_hook_is_dropped_with_the_pool_and_its_destructor_may_panic() {
    struct Panics(Arc<AtomicBool>);
    impl Drop for Panics {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
            panic!("a destructor");
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let captured = Panics(Arc::clone(&dropped));
    let builder = ThreadPool::builder().on_job(move |_| assert!(!captured.0.load(SeqCst)));
    let pool = builder.build().unwrap();
    pool.submit(|| ()).join().unwrap();
    assert!(!dropped.load(SeqCst));
    drop(pool);
    eventually("the hook is dropped", || dropped.load(SeqCst));
}
