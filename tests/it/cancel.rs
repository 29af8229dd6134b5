//! Jobs that never run: cancelled one by one or all at once, refused, or of a broken pool.
//!
//! Each of them can first no longer start. Then everything that its closure captured is dropped and
//! its permit is released. Then it is visible and its waiters are woken. Then its callbacks run. If
//! several end together, all of them pass each of these steps before one of them takes the next.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::common::{
    Blocked, CountingWaker, Gate, LONG, block_workers, bounded_pool, poll_once, poll_with,
    spawn_until_asleep, within,
};
use futurepool::{
    Executor, ExecutorExt, Job, JoinError, JoinHandle, ReturnWhen, ThreadPool, as_completed,
    block_on, wait,
};

/// Runs a closure when it is dropped.
struct AtDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

/// Submits a job that must not run. Its captures call `at_drop` when they are dropped.
fn submit_dropping<E: Executor>(
    executor: &E,
    at_drop: impl FnOnce() + Send + 'static,
) -> JoinHandle<()> {
    let captured = AtDrop(Some(at_drop));
    executor.submit(move || {
        let _captured = captured;
        unreachable!("the job never runs");
    })
}

/// Returns a waker that runs a closure.
fn waker_that(f: impl Fn() + Send + Sync + 'static) -> Waker {
    struct Calls<F>(F);
    impl<F: Fn() + Send + Sync + 'static> Wake for Calls<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }
    Arc::new(Calls(f)).into()
}

/// A pool that runs none of the jobs submitted to it, and the way in which all of them end.
struct Doomed {
    pool: Arc<ThreadPool>,
    end: End,
}

enum End {
    CancelPending(Blocked),
    ShutdownNow(Blocked),
    /// The initializer fails once the gate is open.
    Breaks(Gate),
}

impl Doomed {
    fn each() -> [fn() -> Self; 3] {
        [
            || {
                let pool = Arc::new(ThreadPool::new(1));
                let end = End::CancelPending(block_workers(&pool, 1));
                Self { pool, end }
            },
            || {
                let pool = Arc::new(ThreadPool::new(1));
                let end = End::ShutdownNow(block_workers(&pool, 1));
                Self { pool, end }
            },
            || {
                let gate = Gate::new();
                let wait = gate.clone();
                let builder = ThreadPool::builder().max_workers(1).initializer(move || {
                    wait.wait();
                    Err::<(), _>("no luck")
                });
                let pool = Arc::new(builder.build().unwrap());
                let end = End::Breaks(gate);
                Self { pool, end }
            },
        ]
    }

    fn breaks(&self) -> bool {
        matches!(self.end, End::Breaks(_))
    }

    /// Ends all `jobs` queued jobs; returns when the end of the last one is complete.
    fn end(self, jobs: usize) {
        match self.end {
            End::CancelPending(blocked) => {
                assert_eq!(self.pool.cancel_pending(), jobs);
                blocked.release();
            }
            End::ShutdownNow(blocked) => {
                let end = self.pool.shutdown_now();
                blocked.release();
                end.join();
            }
            End::Breaks(gate) => {
                gate.open();
                self.pool.shutdown().join();
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Dropped,
    Woken,
    Called,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    phase: Phase,
    job: usize,
    /// How many jobs were queued, and how many counted as cancelled.
    counts: (u64, u64),
    /// For each job, whether it was visible as finished.
    finished: Vec<bool>,
}

/// What happens to several jobs, in order.
#[derive(Default)]
struct Log {
    events: Mutex<Vec<(Event, ThreadId)>>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    fn note(&self, pool: &ThreadPool, phase: Phase, job: usize) {
        let handles = self.handles.lock().unwrap();
        let finished = handles.iter().map(JoinHandle::is_finished).collect();
        drop(handles);
        let metrics = pool.metrics();
        let counts = (metrics.queued, metrics.cancelled);
        let event = Event {
            phase,
            job,
            counts,
            finished,
        };
        let thread = thread::current().id();
        self.events.lock().unwrap().push((event, thread));
    }
}

#[test]
fn jobs_that_end_together_pass_each_step_before_one_takes_the_next() {
    const JOBS: usize = 4;
    for doomed in Doomed::each() {
        within(LONG, "the order of a bulk cancel", move || {
            let doomed = doomed();
            let breaks = doomed.breaks();
            let pool = Arc::clone(&doomed.pool);
            let log = Arc::new(Log::default());
            let note = |phase, job| {
                let (log, pool) = (Arc::clone(&log), Arc::clone(&pool));
                move || log.note(&pool, phase, job)
            };
            for job in 0..JOBS {
                let mut handle = submit_dropping(&*pool, note(Phase::Dropped, job));
                for _ in 0..2 {
                    let call = note(Phase::Called, job);
                    handle.add_done_callback(move |outcome| {
                        let error = outcome.unwrap_err();
                        assert!(error.is_cancelled() || error.is_broken());
                        call();
                    });
                }
                let woken = waker_that(note(Phase::Woken, job));
                assert!(poll_with(&mut handle, &woken).is_pending());
                log.handles.lock().unwrap().push(handle);
            }
            doomed.end(JOBS);

            let (events, threads): (Vec<_>, Vec<_>) = log.events.lock().unwrap().drain(..).unzip();
            assert!(threads.iter().all(|thread| *thread == threads[0]));
            assert_eq!(threads[0] == thread::current().id(), !breaks);
            // Which of several jobs passes a step first is not promised.
            let mut wanted = Vec::new();
            for (phase, times, visible) in [
                (Phase::Dropped, 1, false),
                (Phase::Woken, 1, true),
                (Phase::Called, 2, true),
            ] {
                for job in 0..JOBS {
                    let event = Event {
                        phase,
                        job,
                        counts: (0, if visible { JOBS as u64 } else { 0 }),
                        finished: vec![visible; JOBS],
                    };
                    wanted.extend(vec![event; times]);
                }
            }
            assert!(events.is_sorted_by_key(|event| event.phase), "{events:#?}");
            let mut sorted = events;
            sorted.sort();
            assert_eq!(sorted, wanted);
        });
    }
}

#[test]
fn permits_of_cancelled_jobs_are_free_when_the_first_waiter_is_woken() {
    const CAPACITY: usize = 3;
    /// How many jobs have room, found by submitting them.
    fn room(pool: &ThreadPool) -> usize {
        let submitted = (0..=CAPACITY).map_while(|_| pool.try_submit(|| ()).ok());
        let submitted: Vec<_> = submitted.collect();
        assert!(submitted.iter().all(JoinHandle::cancel));
        submitted.len()
    }
    fn all(pool: &ThreadPool, _: &JoinHandle<()>) -> usize {
        pool.cancel_pending()
    }
    fn one(_: &ThreadPool, first: &JoinHandle<()>) -> usize {
        usize::from(first.cancel())
    }
    for cancel in [all, one] {
        within(LONG, "permits", move || {
            let pool = Arc::new(bounded_pool(1, CAPACITY));
            let blocked = block_workers(&pool, 1);
            let (tell, told) = mpsc::channel();
            let look = |from: &'static str| {
                let (pool, tell) = (Arc::clone(&pool), tell.clone());
                move || tell.send((from, room(&pool))).unwrap()
            };
            let mut first = submit_dropping(&*pool, look("destructor"));
            let woken = waker_that(look("waker"));
            assert!(poll_with(&mut first, &woken).is_pending());
            let callback = look("callback");
            first.add_done_callback(move |_| callback());
            let others = [(); CAPACITY - 1].map(|()| pool.submit(|| ()));
            assert_eq!(room(&pool), 0);
            let cancelled = cancel(&pool, &first);
            let wanted = [
                ("destructor", 0),
                ("waker", cancelled),
                ("callback", cancelled),
            ];
            assert_eq!(told.try_iter().collect::<Vec<_>>(), wanted);
            assert_eq!(cancelled == CAPACITY, others[0].is_cancelled());
            blocked.release();
        });
    }
}

#[test]
fn a_joiner_returns_only_after_the_captures_are_dropped() {
    within(LONG, "joined elsewhere", || {
        let pool = Arc::new(ThreadPool::new(1));
        let blocked = block_workers(&pool, 1);
        let (gate, dropped) = (Gate::new(), Gate::new());
        let (tell, told) = mpsc::channel();
        let handle = {
            let (gate, dropped) = (gate.clone(), dropped.clone());
            submit_dropping(&*pool, move || {
                tell.send(()).unwrap();
                gate.wait();
                dropped.open();
            })
        };
        let cancelling = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.cancel_pending())
        };
        told.recv_timeout(LONG).unwrap();
        // Another thread is cancelling it: that is a success, and no reason to wait.
        assert!(handle.cancel());
        assert_eq!(pool.cancel_pending(), 0);
        assert!(!handle.is_cancelled() && !handle.is_finished() && !handle.is_running());
        let joining = spawn_until_asleep(move || {
            let error = handle.join().unwrap_err();
            (error.is_cancelled(), dropped)
        });
        assert!(!joining.is_finished());
        gate.open();
        let (is_cancelled, dropped) = joining.join().unwrap();
        assert!(is_cancelled);
        dropped.wait();
        assert_eq!(cancelling.join().unwrap(), 1);
        blocked.release();
    });
}

// Callbacks

type Slot = Arc<Mutex<Option<JoinHandle<()>>>>;

/// Takes the error out of a handle that stays usable.
type Take = fn(&mut JoinHandle<()>) -> JoinError;

const TAKES: [Take; 4] = [
    |handle| handle.try_join().unwrap().unwrap_err(),
    |handle| handle.join_timeout(LONG).unwrap_err(),
    |handle| block_on(handle).unwrap_err(),
    |handle| match poll_once(handle) {
        std::task::Poll::Ready(outcome) => outcome.unwrap_err(),
        std::task::Poll::Pending => panic!("it is not ready"),
    },
];

/// Names of callbacks, in the order in which they ran, with their threads.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<(&'static str, ThreadId)>>>);

impl Calls {
    fn callback(
        &self,
        name: &'static str,
        then: impl FnOnce() + Send + 'static,
    ) -> impl FnOnce(Result<&(), &JoinError>) + Send + 'static {
        let calls = self.clone();
        move |outcome| {
            assert!(outcome.is_err());
            calls.0.lock().unwrap().push((name, thread::current().id()));
            then();
        }
    }

    #[track_caller]
    fn assert(&self, names: &[&str]) {
        let calls = self.0.lock().unwrap();
        let ran: Vec<_> = calls.iter().map(|(name, _)| *name).collect();
        assert_eq!(ran, names);
        assert!(calls.iter().all(|(_, thread)| *thread == calls[0].1));
    }
}

#[test]
fn a_callback_added_after_the_error_was_taken_by_a_callback_runs_last() {
    for doomed in Doomed::each() {
        for take in TAKES {
            within(LONG, "taken in a callback", move || {
                let doomed = doomed();
                let (slot, calls) = (Slot::default(), Calls::default());
                let handle = doomed.pool.submit(|| ());
                let is_broken = doomed.breaks();
                handle.add_done_callback(calls.callback("first", {
                    let (slot, calls) = (Arc::clone(&slot), calls.clone());
                    move || {
                        let mut handle = slot.lock().unwrap().take().unwrap();
                        assert_eq!(take(&mut handle).is_broken(), is_broken);
                        assert!(handle.try_join().is_none());
                        handle.add_done_callback(calls.callback("third", {
                            let (slot, calls) = (Arc::clone(&slot), calls.clone());
                            move || {
                                let handle = slot.lock().unwrap().take().unwrap();
                                handle.add_done_callback(calls.callback("fourth", || ()));
                                *slot.lock().unwrap() = Some(handle);
                            }
                        }));
                        *slot.lock().unwrap() = Some(handle);
                    }
                }));
                handle.add_done_callback(calls.callback("second", || ()));
                *slot.lock().unwrap() = Some(handle);
                doomed.end(1);
                calls.assert(&["first", "second", "third", "fourth"]);
                // There is nothing left to add a callback to.
                let handle = slot.lock().unwrap().take().unwrap();
                let late = thread::spawn(move || handle.add_done_callback(|_| ()));
                assert!(late.join().is_err());
            });
        }
    }
}

#[test]
fn a_callback_added_while_callbacks_are_about_to_run_runs_after_them() {
    for take in [None, Some(TAKES[0])] {
        within(LONG, "added by a waker", move || {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let (slot, calls) = (Slot::default(), Calls::default());
            let mut handle = pool.submit(|| ());
            handle.add_done_callback(calls.callback("first", || ()));
            // The waker runs when the error is visible and no callback has run.
            let woken = {
                let (slot, calls) = (Arc::clone(&slot), calls.clone());
                waker_that(move || {
                    let mut handle = slot.lock().unwrap().take().unwrap();
                    assert!(handle.is_cancelled());
                    if let Some(take) = take {
                        assert!(take(&mut handle).is_cancelled());
                    }
                    handle.add_done_callback(calls.callback("second", || ()));
                    calls.assert(&[]);
                })
            };
            assert!(poll_with(&mut handle, &woken).is_pending());
            *slot.lock().unwrap() = Some(handle);
            assert_eq!(pool.cancel_pending(), 1);
            calls.assert(&["first", "second"]);
            blocked.release();
        });
    }
}

#[test]
fn a_callback_added_elsewhere_while_callbacks_run_runs_on_their_thread() {
    for take in [None, Some(TAKES[0]), Some(TAKES[1])] {
        within(LONG, "added elsewhere", move || {
            let pool = Arc::new(ThreadPool::new(1));
            let blocked = block_workers(&pool, 1);
            let calls = Calls::default();
            let (gate, (tell, told)) = (Gate::new(), mpsc::channel());
            let mut handle = pool.submit(|| ());
            handle.add_done_callback(calls.callback("first", {
                let gate = gate.clone();
                move || {
                    tell.send(()).unwrap();
                    gate.wait();
                }
            }));
            handle.add_done_callback(calls.callback("second", || ()));
            let cancelling = {
                let pool = Arc::clone(&pool);
                thread::spawn(move || pool.cancel_pending())
            };
            told.recv_timeout(LONG).unwrap();
            // The error is visible although a callback runs.
            assert!(handle.is_cancelled());
            if let Some(take) = take {
                assert!(take(&mut handle).is_cancelled());
            }
            handle.add_done_callback(calls.callback("third", || ()));
            calls.assert(&["first"]);
            gate.open();
            assert_eq!(cancelling.join().unwrap(), 1);
            calls.assert(&["first", "second", "third"]);
            blocked.release();
        });
    }
}

#[test]
fn a_callback_of_a_cancelled_job_may_join_its_own_job_and_siblings() {
    for doomed in Doomed::each() {
        within(LONG, "joined in a callback", move || {
            let doomed = doomed();
            let (give, take) = mpsc::channel::<Vec<JoinHandle<()>>>();
            let (tell, told) = mpsc::channel();
            let jobs = [(); 3].map(|()| doomed.pool.submit(|| ()));
            jobs[1].add_done_callback(move |_| {
                let errors = take.recv().unwrap().into_iter().map(|handle| {
                    assert!(handle.is_finished());
                    handle.join().unwrap_err()
                });
                tell.send(errors.collect::<Vec<_>>()).unwrap();
            });
            give.send(Vec::from(jobs)).unwrap();
            let breaks = doomed.breaks();
            doomed.end(3);
            let errors = told.try_recv().expect("the callback has run");
            assert_eq!(errors.len(), 3);
            let expected = |error: &JoinError| match breaks {
                true => error.is_broken(),
                false => error.is_cancelled(),
            };
            assert!(errors.iter().all(expected), "{errors:?}");
        });
    }
}

// Waits in destructors

/// The waits for one handle that have no end if the job does not end.
type Wait = fn(JoinHandle<()>) -> Result<(), JoinError>;

const WAITS: [(&str, Wait); 8] = [
    ("join", JoinHandle::join),
    // It must not time out either.
    ("join_timeout", |mut handle| handle.join_timeout(10 * LONG)),
    ("block_on", block_on),
    ("tagged, cancel_on_drop", |handle| {
        block_on(handle.cancel_on_drop().tag("key")).1
    }),
    ("another executor", pollster::block_on),
    ("as_completed", |handle| {
        as_completed([handle]).wait_next().unwrap()
    }),
    ("wait for all", |handle| {
        let waited = wait([handle], ReturnWhen::AllCompleted).join();
        let mut handles = waited.done.into_iter().chain(waited.not_done);
        handles.next().unwrap().join()
    }),
    ("wait for the first", |handle| {
        let waited = block_on(wait([handle], ReturnWhen::FirstCompleted));
        let mut handles = waited.done.into_iter().chain(waited.not_done);
        handles.next().unwrap().join()
    }),
];

/// Submits a job whose captures wait, when they are dropped, for the handle that is sent to them,
/// and tell the outcome.
fn submit_waiting<E: Executor>(
    executor: &E,
    wait: Wait,
    tell: &Sender<Result<(), JoinError>>,
) -> (JoinHandle<()>, Sender<JoinHandle<()>>) {
    let (give, take): (_, Receiver<JoinHandle<()>>) = mpsc::channel();
    let tell = tell.clone();
    let handle = submit_dropping(executor, move || {
        tell.send(wait(take.recv_timeout(LONG).unwrap())).unwrap();
    });
    (handle, give)
}

#[test]
fn guarantee_1_a_wait_in_a_destructor_for_a_sibling_ends_at_once() {
    for (name, wait) in WAITS {
        for doomed in Doomed::each() {
            within(LONG, name, move || {
                let doomed = doomed();
                let (tell, told) = mpsc::channel();
                // One waits for a job whose captures are dropped later, and the other way round.
                let (first, to_first) = submit_waiting(&*doomed.pool, wait, &tell);
                let (second, to_second) = submit_waiting(&*doomed.pool, wait, &tell);
                let third = doomed.pool.submit(|| ());
                to_first.send(second).unwrap();
                to_second.send(first).unwrap();
                let pool = Arc::clone(&doomed.pool);
                let breaks = doomed.breaks();
                doomed.end(3);
                for _ in 0..2 {
                    let error = told.try_recv().expect("it was dropped").unwrap_err();
                    assert!(error.is_cancelled(), "{name}: {error}");
                }
                let error = third.join().unwrap_err();
                assert_eq!(error.is_broken(), breaks);
                assert_eq!(pool.metrics().cancelled, 3);
            });
        }
    }
}

/// An executor that keeps its jobs until the test takes them.
#[derive(Default)]
struct Keeps(Mutex<Vec<Job>>);

impl Executor for Keeps {
    fn execute(&self, job: Job) {
        self.0.lock().unwrap().push(job);
    }
}

#[test]
fn guarantee_1_a_wait_in_a_destructor_for_its_own_job_ends_at_once() {
    for (name, wait) in WAITS {
        for doomed in Doomed::each() {
            within(LONG, name, move || {
                let doomed = doomed();
                let (tell, told) = mpsc::channel();
                let (itself, give) = submit_waiting(&*doomed.pool, wait, &tell);
                let (called, calls) = mpsc::channel();
                let breaks = doomed.breaks();
                itself.add_done_callback(move |outcome| {
                    called.send(outcome.unwrap_err().is_broken()).unwrap();
                });
                give.send(itself).unwrap();
                doomed.end(1);
                let error = told.try_recv().expect("it was dropped").unwrap_err();
                assert!(error.is_cancelled(), "{name}: {error}");
                // Its callbacks run all the same, and get the error of the job.
                assert_eq!(calls.try_recv(), Ok(breaks), "{name}");
            });
        }
        let ends: [fn(Job); 2] = [drop, |job| job.refuse(JoinError::shutdown())];
        for end in ends {
            within(LONG, name, move || {
                let executor = Keeps::default();
                let (tell, told) = mpsc::channel();
                let (itself, give) = submit_waiting(&executor, wait, &tell);
                give.send(itself).unwrap();
                end(executor.0.lock().unwrap().pop().unwrap());
                let error = told.try_recv().expect("it was dropped").unwrap_err();
                assert!(error.is_cancelled(), "{name}: {error}");
            });
        }
    }
}

#[test]
fn a_wait_in_a_destructor_counts_the_job_that_is_cancelled_as_done() {
    for until in [ReturnWhen::AllCompleted, ReturnWhen::FirstCompleted] {
        within(LONG, "done", move || {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let (give, take) = mpsc::channel::<JoinHandle<()>>();
            let (tell, told) = mpsc::channel();
            let itself = submit_dropping(&pool, move || {
                let waited = wait([take.recv().unwrap()], until).join();
                tell.send((waited.done.len(), waited.not_done.len()))
                    .unwrap();
            });
            give.send(itself).unwrap();
            assert_eq!(pool.cancel_pending(), 1);
            assert_eq!(told.try_recv(), Ok((1, 0)), "{until:?}");
            blocked.release();
        });
    }
}

#[test]
fn guarantee_1_a_wait_for_a_job_of_an_outer_cancel_ends_at_once() {
    for (name, wait) in WAITS {
        within(LONG, name, move || {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let (tell, told) = mpsc::channel();
            // Of another pool, and cancelled by its handle.
            let other = ThreadPool::new(1);
            let other_blocked = block_workers(&other, 1);
            let (inner, to_inner) = submit_waiting(&other, wait, &tell);
            let outer = submit_dropping(&pool, move || assert!(inner.cancel()));
            to_inner.send(outer).unwrap();
            assert_eq!(pool.cancel_pending(), 1);
            let error = told.try_recv().expect("it was dropped").unwrap_err();
            assert!(error.is_cancelled(), "{name}: {error}");
            assert_eq!(other.metrics().cancelled, 1);
            blocked.release();
            other_blocked.release();
        });
    }
}

#[test]
fn guarantee_1_a_worker_may_cancel_its_own_pool_and_wait_in_a_destructor() {
    for (name, wait) in WAITS {
        within(LONG, name, move || {
            let pool = Arc::new(ThreadPool::new(1));
            let inner = Arc::clone(&pool);
            let job = pool.submit(move || {
                let (tell, told) = mpsc::channel();
                let (first, to_first) = submit_waiting(&*inner, wait, &tell);
                let (second, to_second) = submit_waiting(&*inner, wait, &tell);
                to_first.send(second).unwrap();
                to_second.send(first).unwrap();
                assert_eq!(inner.cancel_pending(), 2);
                told.try_iter()
                    .filter(|outcome| outcome.as_ref().is_err_and(|error| error.is_cancelled()))
                    .count()
            });
            assert_eq!(job.join().unwrap(), 2, "{name}");
        });
    }
}

/// Where a thread-local of the test is dropped.
#[derive(Clone, Copy, Debug)]
enum ThreadEnd {
    /// The thread has never called this crate.
    Stranger,
    /// The thread-locals of the crate are dropped later. (In the reverse order of their first use.)
    BeforeTheCrate,
    /// They are gone.
    AfterTheCrate,
    /// In a worker of another pool.
    Worker,
}

impl ThreadEnd {
    /// Runs `f` in the destructor of a thread-local; returns when the thread has ended.
    fn run(self, f: impl FnOnce() + Send + 'static) {
        type Boxed = AtDrop<Box<dyn FnOnce()>>;
        thread_local! {
            static AT_END: std::cell::Cell<Option<Boxed>> = const { std::cell::Cell::new(None) };
        }
        let set = move || AT_END.set(Some(AtDrop(Some(Box::new(f)))));
        let use_the_crate = || assert!(!futurepool::cancel_requested());
        let thread = match self {
            Self::Stranger => thread::spawn(set),
            Self::BeforeTheCrate => thread::spawn(move || {
                use_the_crate();
                set();
            }),
            Self::AfterTheCrate => thread::spawn(move || {
                set();
                use_the_crate();
            }),
            Self::Worker => {
                let pool = ThreadPool::new(1);
                pool.submit(set).join().unwrap();
                pool.shutdown().join();
                return;
            }
        };
        thread.join().unwrap();
    }
}

#[test]
fn guarantee_1_a_cancel_while_thread_locals_are_dropped_may_wait_for_a_sibling() {
    let ends = [
        ThreadEnd::Stranger,
        ThreadEnd::BeforeTheCrate,
        ThreadEnd::AfterTheCrate,
        ThreadEnd::Worker,
    ];
    for (name, wait) in WAITS {
        for end in ends {
            within(LONG, name, move || {
                let pool = Arc::new(ThreadPool::new(1));
                let blocked = block_workers(&pool, 1);
                let (tell, told) = mpsc::channel();
                // One waits for a job whose captures are dropped later, and the other way round.
                let (first, to_first) = submit_waiting(&*pool, wait, &tell);
                let (second, to_second) = submit_waiting(&*pool, wait, &tell);
                to_first.send(second).unwrap();
                to_second.send(first).unwrap();
                let (count, counted) = mpsc::channel();
                let inner = Arc::clone(&pool);
                end.run(move || count.send(inner.cancel_pending()).unwrap());
                assert_eq!(counted.try_recv(), Ok(2), "{name}, {end:?}");
                for _ in 0..2 {
                    let error = told.try_recv().expect("it was dropped").unwrap_err();
                    assert!(error.is_cancelled(), "{name}, {end:?}: {error}");
                }
                blocked.release();
            });
        }
    }
}

#[test]
fn a_wait_in_a_destructor_for_a_job_cancelled_elsewhere_lasts() {
    within(LONG, "two cancels", || {
        let (pool, other) = (Arc::new(ThreadPool::new(1)), Arc::new(ThreadPool::new(1)));
        let held = [block_workers(&pool, 1), block_workers(&other, 1)];
        let (gate, (begun, begins)) = (Gate::new(), mpsc::channel());
        let slow = {
            let gate = gate.clone();
            submit_dropping(&*other, move || {
                begun.send(()).unwrap();
                gate.wait();
            })
        };
        let slow_cancel = {
            let other = Arc::clone(&other);
            thread::spawn(move || other.cancel_pending())
        };
        begins.recv_timeout(LONG).unwrap();
        let (tell, told) = mpsc::channel();
        let (waits, give) = submit_waiting(&*pool, JoinHandle::join, &tell);
        give.send(slow).unwrap();
        let cancel = {
            let pool = Arc::clone(&pool);
            spawn_until_asleep(move || pool.cancel_pending())
        };
        assert!(told.try_recv().is_err(), "the other cancel is not over");
        gate.open();
        let error = told.recv_timeout(LONG).unwrap().unwrap_err();
        assert!(error.is_cancelled());
        assert_eq!(cancel.join().unwrap(), 1);
        assert_eq!(slow_cancel.join().unwrap(), 1);
        assert!(waits.join().unwrap_err().is_cancelled());
        held.into_iter().for_each(Blocked::release);
    });
}

#[test]
fn guarantee_6_two_cancels_that_join_each_others_jobs_are_a_cycle() {
    within(LONG, "two cancels in a cycle", || {
        for _ in 0..50 {
            let meet = Arc::new(Barrier::new(2));
            let (tell, told) = mpsc::channel();
            let (mut handles, mut gives, mut cancels) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..2 {
                let pool = ThreadPool::new(1);
                let blocked = block_workers(&pool, 1);
                let (give, take) = mpsc::channel::<JoinHandle<()>>();
                let (meet, tell) = (Arc::clone(&meet), tell.clone());
                handles.push(submit_dropping(&pool, move || {
                    let other = take.recv_timeout(LONG).unwrap();
                    // Both are being cancelled.
                    meet.wait();
                    tell.send(other.join().unwrap_err()).unwrap();
                }));
                gives.push(give);
                cancels.push(move || {
                    assert_eq!(pool.cancel_pending(), 1);
                    blocked.release();
                });
            }
            handles.reverse();
            for (give, handle) in gives.iter().zip(handles) {
                give.send(handle).unwrap();
            }
            let cancels: Vec<_> = cancels.into_iter().map(thread::spawn).collect();
            let errors = [(); 2].map(|()| told.recv_timeout(LONG).unwrap());
            // The first error ends one of the destructors, and with it the job that the other joins.
            let deadlocks = errors.iter().filter(|error| error.is_deadlock()).count();
            let cancelled = errors.iter().filter(|error| error.is_cancelled()).count();
            assert_eq!((deadlocks, cancelled), (1, 1), "{errors:?}");
            for cancel in cancels {
                cancel.join().unwrap();
            }
        }
    });
}

#[test]
fn a_task_that_awaits_a_cancelled_job_is_woken_once() {
    for doomed in Doomed::each() {
        within(LONG, "woken", move || {
            let doomed = doomed();
            let mut handle = doomed.pool.submit(|| ());
            let (task, waker) = CountingWaker::new();
            assert!(poll_with(&mut handle, &waker).is_pending());
            let breaks = doomed.breaks();
            doomed.end(1);
            assert_eq!(task.count(), 1);
            let error = handle.join_timeout(Duration::ZERO).unwrap_err();
            assert_eq!((error.is_broken(), error.is_cancelled()), (breaks, !breaks));
        });
    }
}

#[test]
fn a_cancel_handle_cancels_a_job_that_is_awaited_elsewhere() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let captured = Arc::new(());
    let held = Arc::clone(&captured);
    let handle = pool.submit(move || drop(held));
    let cancel = handle.cancel_handle();
    let second = cancel.clone();
    assert!(!cancel.is_finished());
    let joiner = spawn_until_asleep(move || handle.join());
    assert!(cancel.cancel());
    assert_eq!(Arc::strong_count(&captured), 1, "the captures are dropped");
    let outcome = within(LONG, "the joiner returns", move || joiner.join().unwrap());
    assert!(outcome.unwrap_err().is_cancelled());
    assert!(second.cancel() && second.is_finished(), "the same job");
    blocked.release();
}

#[test]
fn a_cancel_handle_keeps_neither_captures_nor_result() {
    let pool = ThreadPool::new(1);
    let value = Arc::new(());
    let (captured, returned) = (Arc::clone(&value), Arc::clone(&value));
    let handle = pool.submit(move || {
        drop(captured);
        returned
    });
    let cancel = handle.cancel_handle();
    drop(handle.join().unwrap());
    assert_eq!(Arc::strong_count(&value), 1);
    assert!(!cancel.cancel() && cancel.is_finished());

    let returned = Arc::clone(&value);
    let handle = pool.submit(move || returned);
    let cancel = handle.cancel_handle();
    drop(handle); // nothing will take the result
    pool.submit(|| ()).join().unwrap();
    assert_eq!(Arc::strong_count(&value), 1);
    assert!(!cancel.cancel() && cancel.is_finished());
}

#[test]
fn a_cancel_handle_of_a_taken_result_knows_how_the_job_ended() {
    let pool = ThreadPool::new(1);
    let mut returned = pool.submit(|| 7);
    block_on(&mut returned).unwrap();
    let cancel = returned.cancel_handle();
    assert!(cancel.is_finished() && !cancel.cancel());
    let blocked = block_workers(&pool, 1);
    let mut cancelled = pool.submit(|| 7);
    assert!(cancelled.cancel());
    assert!(block_on(&mut cancelled).unwrap_err().is_cancelled());
    let cancel = cancelled.cancel_handle();
    assert!(cancel.is_finished() && cancel.cancel());
    blocked.release();
}

#[test]
fn threads_of_a_job_see_its_cancel_request_and_that_of_no_other_job() {
    assert!(futurepool::current_job().is_none());
    let pool = ThreadPool::new(2);
    let (give, take) = mpsc::channel();
    let gate = Gate::new();
    let start = |n: u8| {
        let (give, gate) = (give.clone(), gate.clone());
        let handle = pool.submit(move || {
            let job = futurepool::current_job().expect("this is a job");
            give.send((n, job)).unwrap();
            gate.wait();
        });
        let (of, job) = take.recv_timeout(LONG).unwrap();
        assert_eq!(of, n);
        (handle, job)
    };
    let (first, first_job) = start(1);
    let (second, second_job) = start(2);
    assert!(!first_job.cancel_requested());
    assert!(!first.cancel());
    let seen = first_job.clone();
    assert!(
        thread::spawn(move || seen.cancel_requested())
            .join()
            .unwrap()
    );
    assert!(!second_job.cancel_requested());
    pool.shutdown_now();
    assert!(second_job.cancel_requested());
    gate.open();
    first.join().unwrap();
    second.join().unwrap();
    assert!(!first_job.cancel_requested(), "the job has ended");
}

#[test]
fn the_current_job_is_the_innermost_one() {
    let pool = Arc::new(ThreadPool::new(1));
    let inner_pool = Arc::clone(&pool);
    let outer = pool.submit(move || {
        let outer = futurepool::current_job().unwrap();
        let inner = inner_pool.submit(|| futurepool::current_job().unwrap());
        let cancel = inner.cancel_handle();
        let inner = inner.join().unwrap(); // runs here
        assert!(!cancel.cancel());
        (outer.cancel_requested(), inner.cancel_requested())
    });
    assert_eq!(outer.join().unwrap(), (false, false));
}
