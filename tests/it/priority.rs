//! Priorities: which job starts next, and that no priority starves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;

use futurepool::Priority::{self, High, Low, Normal};
use futurepool::{JoinHandle, ThreadPool, block_on};

use crate::common::{LONG, Random, block_workers, bounded_pool, eventually, poll_once, within};
use crate::order::Inside;

const PRIORITIES: [Priority; 3] = [High, Normal, Low];

/// What has started, in this order.
#[derive(Clone, Default)]
struct Starts(Arc<Mutex<Vec<(Priority, usize)>>>);

impl Starts {
    fn submit(&self, pool: &ThreadPool, priority: Priority, n: usize) -> JoinHandle<()> {
        let job = self.job(priority, n);
        pool.job(job).priority(priority).submit()
    }

    fn job(&self, priority: Priority, n: usize) -> impl FnOnce() + Send + use<> {
        let starts = Arc::clone(&self.0);
        move || starts.lock().unwrap().push((priority, n))
    }

    fn take(&self) -> Vec<(Priority, usize)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Returns how many jobs of each priority have started.
    fn counts(&self) -> [usize; 3] {
        let starts = self.0.lock().unwrap();
        let of = |priority| {
            starts
                .iter()
                .filter(|(other, _)| *other == priority)
                .count()
        };
        PRIORITIES.map(of)
    }
}

/// Returns the numbers of the jobs of one priority.
fn of(starts: &[(Priority, usize)], priority: Priority) -> Vec<usize> {
    let own = starts.iter().filter(|(other, _)| *other == priority);
    own.map(|(_, n)| *n).collect()
}

fn join_all(handles: impl IntoIterator<Item = JoinHandle<()>>) {
    for handle in handles {
        handle.join().unwrap();
    }
}

#[test]
fn a_higher_priority_is_greater() {
    assert!(High > Normal && Normal > Low);
    assert_eq!(PRIORITIES.iter().max(), Some(&High));
}

#[test]
fn without_a_priority_a_job_is_of_normal_priority() {
    assert_eq!(Priority::default(), Normal);
    assert!(High > Normal && Normal > Low);
    within(LONG, "the jobs", || {
        let pool = ThreadPool::new(1);
        let starts = Starts::default();
        let blocked = block_workers(&pool, 1);
        let handles = [
            starts.submit(&pool, Low, 0),
            pool.submit(starts.job(Normal, 1)),
            pool.job(starts.job(Normal, 2)).submit(),
            starts.submit(&pool, Normal, 3),
            starts.submit(&pool, High, 4),
        ];
        blocked.release();
        join_all(handles);
        assert_eq!(of(&starts.take(), Normal), [1, 2, 3]);
    });
}

#[test]
fn the_higher_priority_starts_first() {
    within(LONG, "the jobs", || {
        let pool = ThreadPool::new(1);
        let starts = Starts::default();
        for round in 0..10 {
            let blocked = block_workers(&pool, 1);
            let handles = [Low, Normal, High].map(|priority| starts.submit(&pool, priority, round));
            blocked.release();
            join_all(handles);
            assert_eq!(starts.take(), PRIORITIES.map(|priority| (priority, round)));
        }
    });
}

#[test]
fn each_priority_is_first_come_first_served_whatever_thread_submits() {
    within(LONG, "the jobs", || {
        let pool = Arc::new(ThreadPool::new(1));
        let (inside, starts) = (Inside::new(&pool), Starts::default());
        let mut handles = Vec::new();
        for n in 0..100 {
            for priority in [Low, High] {
                handles.push(if n % 3 == 0 {
                    let starts = starts.clone();
                    inside.run(move |pool| starts.submit(pool, priority, n))
                } else {
                    starts.submit(&pool, priority, n)
                });
            }
            handles.push(starts.submit(&pool, Normal, n));
        }
        inside.end();
        join_all(handles);
        let starts = starts.take();
        for priority in PRIORITIES {
            assert!(of(&starts, priority).into_iter().eq(0..100), "{priority:?}");
        }
    });
}

#[test]
fn over_any_16_starts_normal_gets_4_and_low_1() {
    within(LONG, "the jobs", || {
        let pool = ThreadPool::new(1);
        let starts = Starts::default();
        let blocked = block_workers(&pool, 1);
        // Of each there is more than it gets while all three wait.
        let handles = PRIORITIES.map(|priority| {
            let jobs = (0..400).map(|n| starts.submit(&pool, priority, n));
            jobs.collect::<Vec<_>>()
        });
        blocked.release();
        join_all(handles.into_iter().flatten());
        let starts = starts.take();
        let last_high = starts.iter().rposition(|(priority, _)| *priority == High);
        let all_wait = &starts[..=last_high.unwrap()];
        assert!(all_wait.len() > 700, "High has half of the starts");
        for window in all_wait.windows(16) {
            assert!(of(window, Normal).len() >= 4, "{window:?}");
            assert!(!of(window, Low).is_empty(), "{window:?}");
        }
        let rest = &starts[all_wait.len()..];
        let last_normal = rest.iter().rposition(|(priority, _)| *priority == Normal);
        for window in rest[..=last_normal.unwrap()].windows(16) {
            assert!(!of(window, Low).is_empty(), "{window:?}");
        }
    });
}

#[test]
fn several_workers_share_the_turns() {
    // A worker can be delayed between the moment when it takes a job and the one when the job says
    // that it runs. Each worker has one such job at most.
    const WINDOW: usize = 200;
    for workers in [2, 4] {
        within(LONG, "the jobs", move || {
            let pool = ThreadPool::new(workers);
            let starts = Starts::default();
            let blocked = block_workers(&pool, workers);
            let handles = PRIORITIES.map(|priority| {
                let jobs = (0..2000).map(|n| starts.submit(&pool, priority, n));
                jobs.collect::<Vec<_>>()
            });
            blocked.release();
            join_all(handles.into_iter().flatten());
            let starts = starts.take();
            let from_last = (0..starts.len()).rev();
            // A worker that is delayed long enough says last of all that a job of high priority
            // runs.
            let mut last_high = from_last.filter(|&n| starts[n].0 == High);
            let all_wait = last_high.nth(workers).unwrap();
            for window in starts[..all_wait].windows(WINDOW).step_by(7) {
                let delayed = workers - 1;
                let taken = WINDOW - delayed;
                let [normal, low] = [Normal, Low].map(|priority| of(window, priority).len());
                assert!(normal + delayed >= taken * 4 / 16, "{normal}");
                assert!(low + delayed >= taken / 16, "{low}");
            }
        });
    }
}

/// Submits a job of high priority that submits itself again and again, until `stop` is set.
fn feed(pool: &Weak<ThreadPool>, stop: &Arc<AtomicBool>, runs: &Arc<AtomicUsize>) {
    runs.fetch_add(1, SeqCst);
    let Some(strong) = pool.upgrade().filter(|_| !stop.load(SeqCst)) else {
        return;
    };
    let (pool, stop, runs) = (Weak::clone(pool), Arc::clone(stop), Arc::clone(runs));
    let again = move || feed(&pool, &stop, &runs);
    drop(strong.job(again).priority(High).submit());
}

#[test]
fn a_job_starts_although_there_is_no_end_of_higher_ones() {
    for workers in [1, 2] {
        within(LONG, "the job starts", move || {
            let pool = Arc::new(ThreadPool::new(workers));
            let (stop, runs) = (Arc::default(), Arc::default());
            for _ in 0..4 * workers {
                feed(&Arc::downgrade(&pool), &stop, &runs);
            }
            for n in 0..100 {
                let before = runs.load(SeqCst);
                eventually("it feeds itself", || {
                    runs.load(SeqCst) > before + 8 * workers
                });
                let handles = [Low, Normal].map(|priority| {
                    let job = pool.job(move || n).priority(priority);
                    job.submit()
                });
                for handle in handles {
                    assert_eq!(handle.join().unwrap(), n);
                }
            }
            stop.store(true, SeqCst);
            pool.wait_idle().join();
        });
    }
}

#[test]
fn a_worker_with_jobs_of_its_own_sees_the_high_ones_first() {
    within(LONG, "the jobs", || {
        let pool = Arc::new(ThreadPool::new(1));
        let (inside, starts) = (Inside::new(&pool), Starts::default());
        let mut handles: Vec<_> = (0..50)
            .map(|n| {
                let starts = starts.clone();
                inside.run(move |pool| starts.submit(pool, Normal, n))
            })
            .collect();
        handles.push(starts.submit(&pool, Low, 0));
        handles.push(starts.submit(&pool, High, 0));
        inside.end();
        join_all(handles);
        let starts = starts.take();
        assert_eq!(starts[0], (High, 0));
        let low = starts.iter().position(|(priority, _)| *priority == Low);
        assert!(low.unwrap() < 16, "{low:?}");
    });
}

#[test]
fn a_job_that_runs_in_the_worker_that_waits_for_it_uses_up_no_turn() {
    within(LONG, "the jobs", || {
        let pool = Arc::new(ThreadPool::new(1));
        let starts = Starts::default();
        let blocked = block_workers(&pool, 1);
        let helps = pool
            .job({
                let (pool, starts) = (Arc::clone(&pool), starts.clone());
                move || {
                    for priority in [Normal, Low, High] {
                        // At once, whatever waits.
                        let helped = starts.submit(&pool, priority, 99);
                        helped.join().unwrap();
                        assert_eq!(starts.take(), [(priority, 99)]);
                    }
                }
            })
            .priority(High)
            .submit();
        let mut handles: Vec<_> = (0..20).map(|n| starts.submit(&pool, High, n)).collect();
        handles.extend([Low, Normal].map(|priority| starts.submit(&pool, priority, 0)));
        blocked.release();
        helps.join().unwrap();
        join_all(handles);
        // The job that helps is the first of three starts before that of Normal, and the first of
        // seven before that of Low.
        let starts = starts.take();
        let of = |own| starts.iter().position(|(priority, _)| *priority == own);
        assert_eq!((of(Normal), of(Low)), (Some(2), Some(6)));
    });
}

#[test]
fn the_only_worker_runs_what_it_awaits_whatever_its_priority() {
    within(LONG, "the jobs", || {
        let pool = Arc::new(ThreadPool::new(1));
        for priority in PRIORITIES {
            let inner = Arc::clone(&pool);
            let outer = pool.submit(move || {
                let waits = inner.job(|| 7).priority(priority).submit();
                let other = inner.job(|| 8).priority(High).submit();
                (block_on(waits).unwrap(), other)
            });
            let (value, other) = outer.join().unwrap();
            assert_eq!((value, other.join().unwrap()), (7, 8));
        }
    });
}

#[test]
fn jobs_of_all_priorities_are_counted_and_cancelled_in_the_order_of_submission() {
    for now in [false, true] {
        within(LONG, "cancel", move || {
            let pool = ThreadPool::new(1);
            let starts = Starts::default();
            let blocked = block_workers(&pool, 1);
            let ended = Arc::new(Mutex::new(Vec::new()));
            let places = [Low, High, Normal].repeat(3).into_iter();
            let submit = |(priority, n)| {
                let handle = starts.submit(&pool, priority, n);
                let ended = Arc::clone(&ended);
                handle.add_done_callback(move |_| ended.lock().unwrap().push(n));
                handle
            };
            let handles: Vec<_> = places.zip(0..).map(submit).collect();
            assert_eq!(pool.metrics().queued, 9);
            if now {
                drop(pool.shutdown_now());
                assert!(
                    starts
                        .submit(&pool, Low, 9)
                        .join()
                        .unwrap_err()
                        .is_shutdown()
                );
            } else {
                assert_eq!(pool.cancel_queued(), 9);
            }
            assert!(handles.iter().all(JoinHandle::is_cancelled));
            assert!(ended.lock().unwrap().iter().copied().eq(0..9));
            let metrics = pool.metrics();
            assert_eq!((metrics.queued, metrics.cancelled), (0, 9));
            blocked.release();
            assert_eq!(starts.counts(), [0; 3]);
        });
    }
}

#[test]
fn a_shutdown_runs_the_jobs_of_all_priorities_and_accepts_none() {
    within(LONG, "shutdown", || {
        let pool = ThreadPool::new(2);
        let starts = Starts::default();
        let blocked = block_workers(&pool, 2);
        let places = PRIORITIES.repeat(10).into_iter();
        let handles: Vec<_> = places
            .zip(0..)
            .map(|(priority, n)| starts.submit(&pool, priority, n))
            .collect();
        let shutdown = pool.shutdown();
        for priority in PRIORITIES {
            let late = starts.submit(&pool, priority, 99);
            assert!(late.join().unwrap_err().is_shutdown());
        }
        blocked.release();
        shutdown.join();
        assert_eq!(starts.counts(), [10; 3]);
        join_all(handles);
        assert_eq!(pool.metrics().rejected, 3);
    });
}

#[test]
fn an_idle_pool_has_no_job_of_any_priority() {
    within(LONG, "idle", || {
        let pool = ThreadPool::new(1);
        for priority in PRIORITIES {
            let blocked = block_workers(&pool, 1);
            let handle = pool.job(|| 7).priority(priority).submit();
            let mut idle = pool.wait_idle();
            assert!(poll_once(&mut idle).is_pending());
            blocked.release();
            idle.join();
            assert!(handle.is_finished());
        }
        let metrics = pool.metrics();
        assert_eq!((metrics.submitted, metrics.completed), (6, 6));
    });
}

#[test]
fn a_job_of_any_priority_starts_a_worker_of_its_own() {
    within(LONG, "the workers", || {
        let pool = ThreadPool::new(4);
        let mut blocked = Vec::new();
        for priority in PRIORITIES {
            blocked.push(block_workers(&pool, 1));
            pool.job(|| ()).priority(priority).submit().join().unwrap();
        }
        assert_eq!(pool.metrics().workers, 4);
        drop(blocked);
    });
}

#[test]
fn a_cancelled_job_of_any_priority_releases_its_permit() {
    within(LONG, "the permits", || {
        let pool = bounded_pool(1, 3);
        let blocked = block_workers(&pool, 1);
        for _ in 0..100 {
            let handles = PRIORITIES.map(|priority| pool.job(|| ()).priority(priority).submit());
            assert!(pool.try_submit(|| ()).is_err(), "it is full");
            assert!(handles.iter().all(JoinHandle::cancel));
            assert_eq!(pool.metrics().queued, 0);
        }
        blocked.release();
        pool.wait_idle().join();
        let metrics = pool.metrics();
        assert_eq!((metrics.completed, metrics.cancelled), (1, 300));
    });
}

#[test]
fn a_random_load_of_all_priorities_loses_no_job() {
    within(LONG, "the load", || {
        let pool = Arc::new(ThreadPool::new(3));
        let starts = Starts::default();
        let submitters: Vec<_> = (0..3)
            .map(|seed| {
                let (pool, starts) = (Arc::clone(&pool), starts.clone());
                std::thread::spawn(move || {
                    let mut random = Random(seed);
                    let mut cancelled = 0;
                    for n in 0..2000 {
                        let priority = PRIORITIES[random.below(3)];
                        let nested = random.one_in(4).then(|| Arc::downgrade(&pool));
                        let inner = starts.job(PRIORITIES[random.below(3)], n);
                        let job = starts.job(priority, n);
                        let handle = pool.job(move || {
                            job();
                            match nested.and_then(|pool| pool.upgrade()) {
                                Some(pool) => drop(pool.job(inner).priority(priority).submit()),
                                None => inner(),
                            }
                        });
                        let handle = handle.priority(priority).submit();
                        if random.one_in(3) {
                            cancelled += usize::from(handle.cancel());
                        }
                    }
                    cancelled
                })
            })
            .collect();
        let cancelled = submitters.into_iter().map(|thread| thread.join().unwrap());
        let cancelled: usize = cancelled.sum();
        pool.wait_idle().join();
        let started: usize = starts.counts().iter().sum();
        assert_eq!(started, 2 * (6000 - cancelled));
        let metrics = pool.metrics();
        assert_eq!(metrics.submitted, metrics.completed + metrics.cancelled);
        assert_eq!(metrics.cancelled, cancelled as u64);
    });
}

#[test]
fn room_in_the_queue_is_first_come_first_served_whatever_the_priority() {
    within(LONG, "the permits", || {
        let pool = bounded_pool(1, 1);
        let starts = Starts::default();
        let blocked = block_workers(&pool, 1);
        let mut queued = pool.try_submit(|| ()).unwrap();
        let mut waits: VecDeque<_> = PRIORITIES
            .into_iter()
            .rev()
            .map(|priority| {
                let job = pool.job(starts.job(priority, 0)).priority(priority);
                let mut waits = job.submit_async();
                assert!(poll_once(&mut waits).is_pending());
                (priority, waits)
            })
            .collect();
        assert!(pool.job(|| ()).priority(High).try_submit().is_err());
        while let Some((priority, mut first)) = waits.pop_front() {
            // Low has come first, and High last.
            assert!(queued.cancel());
            for (_, later) in &mut waits {
                assert!(poll_once(later).is_pending());
            }
            let Poll::Ready(Ok(handle)) = poll_once(&mut first) else {
                panic!("{priority:?} has come first");
            };
            queued = handle;
        }
        blocked.release();
        queued.join().unwrap();
        assert_eq!(starts.take(), [(High, 0)]);
    });
}
