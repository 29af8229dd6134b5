//! The end of a pool: `shutdown`, `shutdown_now`, `cancel_queued`, every form of `Shutdown`, and
//! the drop of a pool: from outside, from workers, and during other operations.

use std::cell::RefCell;
use std::error::Error;
use std::future::Future;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{JoinHandle, Shutdown, ThreadPool, block_on, cancel_requested};

use crate::common::{
    CountingWaker, Gate, LONG, block_workers, eventually, poll_once, poll_with, spawn_until_asleep,
    threads_named, within,
};

/// Enough jobs to still be running when the shutdown starts.
const BACKLOG: usize = 10_000;

/// Long enough to see that nothing happens.
const MOMENT: Duration = Duration::from_millis(20);

fn pool(workers: usize) -> Arc<ThreadPool> {
    Arc::new(ThreadPool::new(workers))
}

/// Jobs that count how many of them ran.
struct Backlog {
    handles: Vec<JoinHandle<()>>,
    ran: Arc<AtomicUsize>,
}

fn backlog(pool: &ThreadPool, jobs: usize) -> Backlog {
    let ran = Arc::new(AtomicUsize::new(0));
    let count = |_| {
        let ran = Arc::clone(&ran);
        pool.submit(move || {
            ran.fetch_add(1, Ordering::SeqCst);
        })
    };
    Backlog {
        handles: (0..jobs).map(count).collect(),
        ran,
    }
}

impl Backlog {
    fn ran(&self) -> usize {
        self.ran.load(Ordering::SeqCst)
    }

    fn join_all(self) {
        let jobs = self.handles.len();
        for handle in self.handles {
            handle.join().expect("it was accepted");
        }
        assert_eq!(self.ran.load(Ordering::SeqCst), jobs);
    }

    /// Asserts that all jobs have run by now, without waiting.
    fn assert_done(self) {
        assert_eq!(self.ran(), self.handles.len());
        for mut handle in self.handles {
            let result = handle.try_join().expect("it is resolved");
            result.expect("it was accepted");
        }
    }

    /// Asserts that each job has run or was cancelled by now, without waiting.
    fn assert_done_or_cancelled(self) -> usize {
        let (ran, jobs) = (self.ran(), self.handles.len());
        let results = self.handles.into_iter().map(|mut handle| handle.try_join());
        let errors = results.filter_map(|result| result.expect("it is resolved").err());
        let cancelled = errors
            .inspect(|error| assert!(error.is_cancelled()))
            .count();
        assert_eq!(ran + cancelled, jobs);
        cancelled
    }
}

/// Asserts the metrics of a terminated pool.
fn assert_settled(pool: &ThreadPool) {
    let metrics = pool.metrics();
    let ended = metrics.completed + metrics.panicked + metrics.cancelled;
    assert_eq!(metrics.submitted, ended, "{metrics:?}");
    let left = [
        metrics.workers,
        metrics.idle,
        metrics.queued,
        metrics.running,
    ];
    assert_eq!(left, [0; 4], "{metrics:?}");
}

/// The ways to wait for the end.
#[derive(Debug, Clone, Copy)]
enum Form {
    Join,
    BlockOn,
    JoinTimeout,
    ForeignExecutor,
}

impl Form {
    const ALL: [Self; 4] = [
        Self::Join,
        Self::BlockOn,
        Self::JoinTimeout,
        Self::ForeignExecutor,
    ];

    fn wait(self, mut end: Shutdown) {
        match self {
            Self::Join => end.join(),
            Self::BlockOn => block_on(end),
            Self::JoinTimeout => end.join_timeout(LONG).unwrap(),
            Self::ForeignExecutor => pollster::block_on(end),
        }
    }
}

/// Runs a closure when its thread drops its thread-locals.
struct AtThreadEnd(Option<Box<dyn FnOnce()>>);

thread_local! {
    static AT_THREAD_END: RefCell<Vec<AtThreadEnd>> = const { RefCell::new(Vec::new()) };
}

impl Drop for AtThreadEnd {
    fn drop(&mut self) {
        (self.0.take().expect("it runs once"))();
    }
}

fn at_thread_end(f: impl FnOnce() + 'static) {
    AT_THREAD_END.with_borrow_mut(|list| list.push(AtThreadEnd(Some(Box::new(f)))));
}

/// Makes a worker of `pool` report when it drops its thread-locals, and then wait for the gate.
struct SlowEnd {
    gate: Gate,
    begins: Receiver<()>,
    ended: Arc<AtomicUsize>,
}

impl SlowEnd {
    fn new(pool: &ThreadPool, workers: usize) -> Self {
        let (begin, begins) = mpsc::channel();
        let slow = Self {
            gate: Gate::new(),
            begins,
            ended: Arc::default(),
        };
        // All at once, so that each gets a worker of its own.
        let barrier = Arc::new(Barrier::new(workers));
        let set_up = |_| {
            let (begin, barrier) = (begin.clone(), Arc::clone(&barrier));
            let (gate, ended) = (slow.gate.clone(), Arc::clone(&slow.ended));
            pool.submit(move || {
                barrier.wait();
                at_thread_end(move || {
                    let _ = begin.send(());
                    gate.wait();
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            })
        };
        let handles: Vec<_> = (0..workers).map(set_up).collect();
        for handle in handles {
            handle.join().unwrap();
        }
        slow
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Drop for SlowEnd {
    fn drop(&mut self) {
        self.gate.open();
    }
}

// The backlog, and where the pool is ended.

#[test]
fn shutdown_runs_the_backlog() {
    for form in Form::ALL {
        within(LONG, "from outside", move || {
            let pool = pool(3);
            let jobs = backlog(&pool, BACKLOG);
            form.wait(pool.shutdown());
            jobs.assert_done();
            assert_settled(&pool);
            assert_eq!(pool.metrics().completed, BACKLOG as u64);
        });
    }
}

#[test]
fn shutdown_that_is_dropped_runs_the_backlog() {
    within(LONG, "not waited for", || {
        let pool = pool(3);
        let blocked = block_workers(&pool, 3);
        let jobs = backlog(&pool, BACKLOG);
        // It returns although no job can run.
        drop(pool.shutdown());
        assert_eq!(jobs.ran(), 0);
        blocked.release();
        jobs.join_all();
    });
}

#[test]
fn shutdown_counts_panics_and_cancels_of_the_backlog() {
    within(LONG, "all kinds of ends", || {
        let pool = pool(3);
        let blocked = block_workers(&pool, 3);
        let handles: Vec<_> = (0..300)
            .map(|n| {
                pool.submit(move || {
                    if n % 3 == 0 {
                        resume_unwind(Box::new("no hook"));
                    }
                })
            })
            .collect();
        for handle in handles.iter().skip(1).step_by(3) {
            assert!(handle.cancel());
        }
        drop(pool.shutdown());
        blocked.release();
        pool.shutdown().join();
        for (n, mut handle) in handles.into_iter().enumerate() {
            let result = handle.try_join().expect("it is resolved");
            match n % 3 {
                0 => assert!(result.unwrap_err().is_panic()),
                1 => assert!(result.unwrap_err().is_cancelled()),
                _ => result.unwrap(),
            }
        }
        let metrics = pool.metrics();
        let ends = (metrics.completed, metrics.panicked, metrics.cancelled);
        assert_eq!(ends, (3 + 100, 100, 100));
        assert_settled(&pool);
    });
}

#[test]
fn shutdown_may_be_called_twice() {
    within(LONG, "twice", || {
        let pool = pool(2);
        let jobs = backlog(&pool, BACKLOG);
        let first = pool.shutdown();
        let second = pool.shutdown();
        second.join();
        assert_settled(&pool);
        first.join();
        pool.shutdown().join();
        block_on(pool.shutdown());
        jobs.assert_done();
    });
}

#[test]
fn shutdown_may_be_called_from_many_threads_at_once() {
    within(LONG, "from many threads", || {
        let pool = pool(3);
        let jobs = backlog(&pool, BACKLOG);
        let barrier = Arc::new(Barrier::new(8));
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let (pool, barrier) = (Arc::clone(&pool), Arc::clone(&barrier));
                let ran = Arc::clone(&jobs.ran);
                thread::spawn(move || {
                    barrier.wait();
                    Form::ALL[n % 4].wait(pool.shutdown());
                    assert_eq!(ran.load(Ordering::SeqCst), BACKLOG);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        jobs.assert_done();
        assert_settled(&pool);
    });
}

#[test]
fn shutdown_in_a_worker_runs_the_backlog() {
    for form in Form::ALL {
        within(LONG, "from a worker", move || {
            let pool = pool(2);
            let (inside, gate) = (Arc::clone(&pool), Gate::new());
            let handle = {
                let gate = gate.clone();
                pool.submit(move || {
                    gate.wait();
                    form.wait(inside.shutdown());
                })
            };
            let jobs = backlog(&pool, BACKLOG);
            gate.open();
            handle.join().unwrap();
            pool.shutdown().join();
            jobs.assert_done();
            assert_settled(&pool);
        });
    }
}

#[test]
fn drop_of_a_pool_runs_the_backlog_before_it_returns() {
    within(LONG, "drop", || {
        let pool = ThreadPool::new(3);
        let blocked = block_workers(&pool, 3);
        let jobs = backlog(&pool, BACKLOG);
        let dropper = spawn_until_asleep(move || drop(pool));
        assert!(!dropper.is_finished());
        drop(blocked);
        dropper.join().unwrap();
        jobs.assert_done();
    });
}

#[test]
fn drop_of_the_last_reference_in_a_job_does_not_wait() {
    within(LONG, "drop in a job", || {
        let pool = pool(1);
        let (gate, inside) = (Gate::new(), Arc::clone(&pool));
        let handle = {
            let gate = gate.clone();
            pool.submit(move || {
                gate.wait();
                // The backlog has no other worker: waiting for it here would block forever.
                drop(Arc::into_inner(inside).expect("the last one"));
            })
        };
        let jobs = backlog(&pool, BACKLOG);
        drop(pool);
        gate.open();
        handle.join().unwrap();
        jobs.join_all();
    });
}

#[test]
fn drop_of_the_last_reference_in_a_job_does_not_wait_for_other_workers() {
    within(LONG, "drop in a job beside another", || {
        let pool = pool(2);
        let other = block_workers(&pool, 1);
        let (gate, inside) = (Gate::new(), Arc::clone(&pool));
        let wait = gate.clone();
        let handle = pool.submit(move || {
            wait.wait();
            drop(Arc::into_inner(inside).expect("the last one"));
        });
        drop(pool);
        gate.open();
        handle.join().unwrap();
        other.release();
    });
}

#[test]
fn drop_of_the_last_reference_as_a_detached_result_does_not_wait() {
    within(LONG, "drop of a result", || {
        let pool = pool(1);
        let (gate, inside) = (Gate::new(), Arc::clone(&pool));
        let handle = {
            let gate = gate.clone();
            pool.submit(move || {
                gate.wait();
                inside
            })
        };
        let jobs = backlog(&pool, BACKLOG);
        drop((pool, handle));
        gate.open();
        jobs.join_all();
    });
}

#[test]
fn cancel_that_drops_the_last_reference_ends() {
    within(LONG, "drop by cancel", || {
        let pool = pool(1);
        let blocked = block_workers(&pool, 1);
        let jobs = backlog(&pool, BACKLOG);
        let inside = Arc::clone(&pool);
        let handle = pool.submit(move || drop(inside));
        drop(pool);
        // `cancel` drops the closure and the pool with it, which waits for the backlog.
        let canceller = spawn_until_asleep(move || handle.cancel());
        assert!(!canceller.is_finished());
        drop(blocked);
        assert!(canceller.join().unwrap());
        jobs.assert_done();
    });
}

#[test]
fn drop_while_the_thread_is_panicking_does_not_wait() {
    within(LONG, "drop while panicking", || {
        let pool = ThreadPool::new(2);
        let blocked = block_workers(&pool, 2);
        let jobs = backlog(&pool, BACKLOG);
        let unlucky = thread::spawn(move || {
            let _pool = pool;
            resume_unwind(Box::new("no hook"));
        });
        unlucky.join().unwrap_err();
        assert_eq!(jobs.ran(), 0);
        drop(blocked);
        jobs.join_all();
    });
}

#[test]
fn drop_in_a_thread_local_of_a_worker_does_not_wait() {
    within(LONG, "drop in a thread-local", || {
        let builder = ThreadPool::builder().max_workers(1).keep_alive(MOMENT);
        let pool = Arc::new(builder.build().unwrap());
        let (give, given) = mpsc::channel();
        let (gate, inside) = (Gate::new(), Arc::clone(&pool));
        let at_the_end = {
            let gate = gate.clone();
            move || {
                gate.wait();
                let pool = Arc::into_inner(inside).expect("the last one");
                let held = Gate::new();
                let first = {
                    let held = held.clone();
                    pool.submit(move || held.wait())
                };
                let jobs = backlog(&pool, BACKLOG);
                drop(pool);
                held.open();
                give.send((first, jobs)).expect("the test waits for this");
            }
        };
        pool.submit(move || at_thread_end(at_the_end))
            .join()
            .unwrap();
        drop(pool);
        gate.open();
        let (first, jobs) = given.recv().unwrap();
        first.join().unwrap();
        jobs.join_all();
    });
}

#[test]
fn shutdown_awaited_in_every_executor_is_over_when_all_jobs_are() {
    async fn end(pool: Arc<ThreadPool>, ran: Arc<AtomicUsize>) {
        pool.shutdown().await;
        assert_eq!(ran.load(Ordering::SeqCst), BACKLOG);
        assert_eq!(pool.metrics().workers, 0);
        // This would have blocked the executor's thread before the shutdown; now it returns at
        // once.
        drop(pool);
    }
    fn tokio(mut builder: tokio::runtime::Builder) -> tokio::runtime::Runtime {
        builder.build().unwrap()
    }
    type Run = fn(Arc<ThreadPool>, Arc<AtomicUsize>);
    let executors: [(&str, Run); 6] = [
        ("futurepool", |pool, ran| block_on(end(pool, ran))),
        ("futures", |pool, ran| {
            futures::executor::block_on(end(pool, ran));
        }),
        ("pollster", |pool, ran| pollster::block_on(end(pool, ran))),
        ("smol", |pool, ran| {
            smol::block_on(smol::spawn(end(pool, ran)));
        }),
        ("tokio, one thread", |pool, ran| {
            tokio(tokio::runtime::Builder::new_current_thread()).block_on(end(pool, ran));
        }),
        ("tokio, threads", |pool, ran| {
            let runtime = tokio(tokio::runtime::Builder::new_multi_thread());
            let task = runtime.spawn(end(pool, ran));
            runtime.block_on(task).unwrap();
        }),
    ];
    for (name, run) in executors {
        within(LONG, name, move || {
            let pool = pool(3);
            let jobs = backlog(&pool, BACKLOG);
            run(pool, Arc::clone(&jobs.ran));
            jobs.assert_done();
        });
    }
}

#[test]
fn shutdown_joined_inside_a_runtime_blocks_and_does_not_panic() {
    within(LONG, "join inside a runtime", || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let pool = pool(2);
            let jobs = backlog(&pool, BACKLOG);
            pool.shutdown().join();
            jobs.assert_done();
            let pool = ThreadPool::new(2);
            let jobs = backlog(&pool, BACKLOG);
            drop(pool);
            jobs.assert_done();
        });
    });
}

// After the end.

#[test]
fn submit_after_shutdown_returns_a_handle_that_is_already_resolved() {
    within(LONG, "submit after shutdown", || {
        let pool = pool(1);
        let blocked = block_workers(&pool, 1);
        drop(pool.shutdown());
        let captured = Arc::new(());
        let mut handle = {
            let captured = Arc::clone(&captured);
            pool.submit(move || drop(captured))
        };
        assert!(handle.is_finished() && !handle.is_cancelled() && !handle.is_running());
        assert!(!handle.cancel());
        assert_eq!(Arc::strong_count(&captured), 1);
        let (tell, told) = mpsc::channel();
        handle.add_done_callback(move |outcome| {
            let is_shutdown = outcome.unwrap_err().is_shutdown();
            tell.send(is_shutdown).expect("the test listens");
        });
        assert_eq!(told.try_recv(), Ok(true));
        let error = handle.try_join().unwrap().unwrap_err();
        assert!(error.is_shutdown());
        assert!(!error.is_cancelled() && !error.is_broken() && !error.is_panic());
        let Poll::Ready(result) = poll_once(&mut pool.submit(|| ())) else {
            panic!("it is resolved already");
        };
        assert!(result.unwrap_err().is_shutdown());
        blocked.release();
    });
}

#[test]
fn every_call_after_shutdown_is_rejected_and_gives_the_closure_back() {
    within(LONG, "rejected", || {
        let pool = pool(1);
        pool.submit(|| ()).join().unwrap();
        drop(pool.shutdown());
        pool.submit(|| ()).join().unwrap_err();
        let error = pool.try_submit(|| 1).unwrap_err();
        assert!(error.is_shutdown() && !error.is_full() && !error.is_broken());
        assert_eq!(error.into_inner()(), 1);
        let error = block_on(pool.submit_async(|| 2)).unwrap_err();
        assert!(error.is_shutdown() && !error.is_full() && !error.is_broken());
        assert_eq!(error.into_inner()(), 2);
        let metrics = pool.metrics();
        assert_eq!((metrics.submitted, metrics.rejected), (1, 3));
    });
}

#[test]
fn running_job_cannot_submit_after_shutdown() {
    within(LONG, "submit in a running job", || {
        let pool = pool(1);
        let (gate, inside) = (Gate::new(), Arc::clone(&pool));
        let handle = {
            let gate = gate.clone();
            pool.submit(move || {
                gate.wait();
                inside.submit(|| ())
            })
        };
        drop(pool.shutdown());
        gate.open();
        let refused = handle.join().unwrap();
        assert!(refused.join().unwrap_err().is_shutdown());
        pool.shutdown().join();
        assert_settled(&pool);
    });
}

#[test]
fn job_that_resubmits_itself_forever_does_not_stop_a_shutdown() {
    fn again(pool: &Arc<ThreadPool>, rounds: &Arc<AtomicUsize>) {
        rounds.fetch_add(1, Ordering::SeqCst);
        let (next, rounds) = (Arc::clone(pool), Arc::clone(rounds));
        drop(pool.submit(move || again(&next, &rounds)));
    }
    within(LONG, "resubmits itself", || {
        let pool = pool(2);
        let rounds = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            again(&pool, &rounds);
        }
        eventually("the jobs resubmit themselves", || {
            rounds.load(Ordering::SeqCst) > 100
        });
        pool.shutdown().join();
        assert_settled(&pool);
        assert_eq!(pool.metrics().rejected, 3);
    });
}

// What a shutdown waits for.

#[test]
fn join_waits_for_the_thread_locals_of_the_workers() {
    within(LONG, "thread-locals", || {
        let pool = pool(3);
        let slow = SlowEnd::new(&pool, 3);
        let mut end = pool.shutdown();
        // The workers have left their loops; the future and the timeout wait for no more than that.
        end.join_timeout(LONG).unwrap();
        block_on(pool.shutdown());
        assert_eq!(pool.metrics().workers, 0);
        slow.begins.recv().unwrap();
        assert_eq!(slow.ended(), 0);

        let ended = Arc::clone(&slow.ended);
        let joiner = spawn_until_asleep(move || {
            end.join();
            ended.load(Ordering::SeqCst)
        });
        assert!(!joiner.is_finished());
        slow.gate.open();
        assert_eq!(joiner.join().unwrap(), 3);
    });
}

#[test]
fn every_one_of_several_joins_waits_for_the_thread_locals() {
    within(LONG, "several joins", || {
        let pool = pool(2);
        let slow = SlowEnd::new(&pool, 2);
        let joiners: Vec<_> = (0..4)
            .map(|_| {
                let (pool, ended) = (Arc::clone(&pool), Arc::clone(&slow.ended));
                spawn_until_asleep(move || {
                    pool.shutdown().join();
                    ended.load(Ordering::SeqCst)
                })
            })
            .collect();
        slow.begins.recv().unwrap();
        for joiner in &joiners {
            assert!(!joiner.is_finished());
        }
        slow.gate.open();
        for joiner in joiners {
            assert_eq!(joiner.join().unwrap(), 2);
        }
    });
}

#[test]
fn drop_of_a_pool_waits_for_the_thread_locals_of_the_workers() {
    within(LONG, "drop and thread-locals", || {
        let pool = ThreadPool::new(2);
        let slow = SlowEnd::new(&pool, 2);
        let ended = Arc::clone(&slow.ended);
        let dropper = spawn_until_asleep(move || {
            drop(pool);
            ended.load(Ordering::SeqCst)
        });
        slow.begins.recv().unwrap();
        assert!(!dropper.is_finished());
        slow.gate.open();
        assert_eq!(dropper.join().unwrap(), 2);
    });
}

#[test]
fn join_waits_for_the_thread_locals_of_workers_that_exited_long_ago() {
    within(LONG, "exited long ago", || {
        let builder = ThreadPool::builder().max_workers(2).keep_alive(MOMENT);
        let pool = Arc::new(builder.build().unwrap());
        let slow = SlowEnd::new(&pool, 2);
        slow.begins.recv().unwrap();
        eventually("the workers exit", || pool.metrics().workers == 0);
        // The pool continues, with threads of its own.
        pool.submit(|| ()).join().unwrap();

        let (inside, ended) = (Arc::clone(&pool), Arc::clone(&slow.ended));
        let joiner = spawn_until_asleep(move || {
            inside.shutdown().join();
            ended.load(Ordering::SeqCst)
        });
        pool.shutdown().join_timeout(LONG).unwrap();
        assert!(!joiner.is_finished());
        slow.gate.open();
        assert_eq!(joiner.join().unwrap(), 2);
        assert_settled(&pool);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn no_thread_is_left_after_join() {
    within(LONG, "threads", || {
        let builder = ThreadPool::builder().max_workers(4);
        let pool = builder.thread_name_prefix("leftover").build().unwrap();
        let blocked = block_workers(&pool, 4);
        assert_eq!(threads_named("leftover-"), 4);
        blocked.release();
        pool.shutdown().join();
        // A joined thread runs no more code; the system may list it for a moment longer.
        eventually("no thread is listed", || threads_named("leftover-") == 0);
    });
}

#[test]
fn pool_that_never_started_a_thread_is_over_at_once() {
    within(LONG, "never started", || {
        let pool = pool(4);
        let mut end = pool.shutdown();
        assert!(poll_once(&mut end).is_ready());
        pool.shutdown().join_timeout(Duration::ZERO).unwrap();
        pool.shutdown().join();
        pool.shutdown_now().join();
        block_on(pool.shutdown());
        assert_settled(&pool);
        drop(pool);
        drop(ThreadPool::new(1));
    });
}

#[test]
fn pool_that_can_start_no_thread_is_over_at_once() {
    within(LONG, "no thread", || {
        // No system has that much memory for a stack.
        let builder = ThreadPool::builder().max_workers(2);
        let pool = builder.stack_size(isize::MAX as usize / 2).build().unwrap();
        let handles: Vec<_> = (0..5).map(|_| pool.submit(|| ())).collect();
        pool.shutdown().join();
        for mut handle in handles {
            let error = handle.try_join().expect("it is resolved").unwrap_err();
            assert!(error.is_spawn_failed());
        }
        assert_settled(&pool);
    });
}

#[test]
fn broken_pool_can_be_shut_down_and_stays_broken() {
    within(LONG, "broken", || {
        let builder = ThreadPool::builder().max_workers(2);
        let pool = builder.initializer(|| Err("no licence")).build().unwrap();
        let handles: Vec<_> = (0..10).map(|_| pool.submit(|| ())).collect();
        let first = pool.shutdown();
        pool.shutdown().join();
        for mut handle in handles {
            let error = handle.try_join().expect("it is resolved").unwrap_err();
            assert!(error.is_broken());
        }
        first.join();
        let error = pool.submit(|| ()).join().unwrap_err();
        assert!(error.is_broken() && error.to_string().contains("no licence"));
        pool.shutdown_now().join();
        block_on(pool.shutdown());
        assert_settled(&pool);
    });
}

#[test]
fn drop_after_a_shutdown_that_was_given_up_does_not_wait() {
    within(LONG, "drop after a timeout", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let queued = pool.submit(|| 7);
        let timeout = Duration::from_millis(5);
        assert!(pool.shutdown().join_timeout(timeout).is_err());
        drop(pool); // the job never ends until the gate below opens
        assert!(!queued.is_finished());
        // Only the drop does not wait: what was accepted still runs.
        blocked.release();
        assert_eq!(queued.join().unwrap(), 7);
    });
}

#[test]
fn drop_waits_again_once_a_later_wait_for_the_shutdown_has_succeeded() {
    #[derive(Debug, Clone, Copy)]
    enum Later {
        JoinTimeout,
        Await,
        Poll,
    }
    within(LONG, "drop after a success", || {
        for later in [Later::JoinTimeout, Later::Await, Later::Poll] {
            let gate = Gate::new();
            let pool = ThreadPool::new(1);
            let (slow, started) = (gate.clone(), Gate::new());
            let starts = started.clone();
            let job = pool.submit(move || {
                at_thread_end(move || slow.wait());
                starts.wait();
            });
            let mut end = pool.shutdown();
            assert!(end.join_timeout(Duration::ZERO).is_err());
            started.open();
            job.join().unwrap();
            // The worker leaves its loop. Its thread does not end yet.
            match later {
                Later::JoinTimeout => end.join_timeout(LONG).unwrap(),
                Later::Await => block_on(&mut end),
                Later::Poll => eventually("it is over", || poll_once(&mut end).is_ready()),
            }
            let dropper = spawn_until_asleep(move || drop(pool));
            assert!(!dropper.is_finished(), "{later:?}");
            gate.open();
            dropper.join().unwrap();
        }
    });
}

#[test]
fn a_wait_in_a_worker_does_not_change_what_the_drop_does() {
    within(LONG, "waits in a worker", || {
        let pool = pool(2);
        let blocked = block_workers(&pool, 1);
        assert!(pool.shutdown().join_timeout(Duration::ZERO).is_err());
        drop(blocked);
        // A worker's waits return at once and decide nothing.
        let pool = self::pool(2);
        let inside = Arc::clone(&pool);
        let (go, wait) = mpsc::channel::<()>();
        let (waited, waits) = mpsc::channel();
        let job = pool.submit(move || {
            wait.recv().unwrap();
            inside.shutdown().join_timeout(Duration::ZERO).unwrap();
            block_on(inside.shutdown());
            inside.shutdown().join();
            drop(inside);
            waited.send(()).unwrap();
            wait.recv()
        });
        assert!(pool.shutdown().join_timeout(Duration::ZERO).is_err());
        go.send(()).unwrap();
        waits.recv_timeout(LONG).unwrap();
        // The timeout outside still counts.
        drop(Arc::into_inner(pool).expect("the job has dropped its reference"));
        assert!(!job.is_finished());
        go.send(()).unwrap();
        job.join().unwrap().unwrap();
    });
}

#[test]
fn pool_that_breaks_during_its_shutdown_ends() {
    within(LONG, "breaks during shutdown", || {
        let gate = Gate::new();
        let initializer = {
            let gate = gate.clone();
            move || {
                gate.wait();
                Err("no licence")
            }
        };
        let builder = ThreadPool::builder().max_workers(2);
        let pool = builder.initializer(initializer).build().unwrap();
        let jobs: Vec<_> = (0..BACKLOG).map(|_| pool.submit(|| ())).collect();
        let end = pool.shutdown();
        gate.open();
        end.join();
        for mut handle in jobs {
            let error = handle.try_join().expect("it is resolved").unwrap_err();
            assert!(error.is_broken());
        }
        assert_settled(&pool);
    });
}

#[test]
fn pool_ends_when_its_last_worker_exits_past_a_job_just_being_cancelled() {
    within(LONG, "workers come and go", || {
        for round in 0..2_000 {
            let builder = ThreadPool::builder().max_workers(1);
            let pool = builder.keep_alive(Duration::ZERO).build().unwrap();
            pool.submit(|| ()).join().unwrap();
            // Now the worker exits, sooner or later.
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(round % 200) {
                std::hint::spin_loop();
            }
            pool.submit(|| ()).cancel();
            pool.shutdown().join();
            assert_settled(&pool);
        }
    });
}

// The future.

#[test]
fn shutdown_is_send_unpin_static_and_outlives_its_pool() {
    fn assert_bounds<T: Future<Output = ()> + Send + Unpin + 'static>(_: &T) {}
    within(LONG, "bounds", || {
        let pool = ThreadPool::new(1);
        pool.submit(|| ()).join().unwrap();
        let mut end = pool.shutdown();
        assert_bounds(&end);
        drop(pool);
        assert!(poll_once(&mut end).is_ready());
        let joiner = thread::spawn(move || end.join());
        joiner.join().unwrap();
    });
}

#[test]
fn shutdown_is_not_ready_while_a_job_runs() {
    within(LONG, "not ready", || {
        let pool = pool(2);
        let blocked = block_workers(&pool, 2);
        let (wakes, waker) = CountingWaker::new();
        let mut end = pool.shutdown();
        assert!(poll_with(&mut end, &waker).is_pending());
        assert!(poll_with(&mut end, &waker).is_pending());
        assert_eq!(wakes.count(), 0);
        blocked.release();
        eventually("it is woken", || wakes.count() > 0);
        assert!(poll_with(&mut end, &waker).is_ready());
        assert_eq!(wakes.count(), 1);
        assert_settled(&pool);
    });
}

#[test]
fn shutdown_wakes_each_waiter() {
    within(LONG, "each waiter", || {
        let pool = pool(1);
        let blocked = block_workers(&pool, 1);
        let mut waiting: Vec<_> = (0..5)
            .map(|_| (pool.shutdown(), CountingWaker::new()))
            .collect();
        for (end, (_, waker)) in &mut waiting {
            assert!(poll_with(end, waker).is_pending());
        }
        blocked.release();
        pool.shutdown().join();
        for (end, (wakes, waker)) in &mut waiting {
            assert_eq!(wakes.count(), 1);
            assert!(poll_with(end, waker).is_ready());
        }
    });
}

#[test]
fn shutdown_calls_only_the_waker_of_the_last_poll() {
    within(LONG, "the last waker", || {
        let pool = pool(1);
        let blocked = block_workers(&pool, 1);
        let (first_wakes, first_waker) = CountingWaker::new();
        let (second_wakes, second_waker) = CountingWaker::new();
        let unused = Arc::strong_count(&first_wakes);
        let mut end = pool.shutdown();
        assert!(poll_with(&mut end, &first_waker).is_pending());
        assert!(poll_with(&mut end, &second_waker).is_pending());
        assert_eq!(Arc::strong_count(&first_wakes), unused);
        blocked.release();
        pool.shutdown().join();
        assert_eq!((first_wakes.count(), second_wakes.count()), (0, 1));
    });
}

#[test]
fn dropped_shutdown_neither_waits_nor_wakes() {
    within(LONG, "dropped", || {
        let pool = pool(1);
        let blocked = block_workers(&pool, 1);
        let (wakes, waker) = CountingWaker::new();
        let mut end = pool.shutdown();
        assert!(poll_with(&mut end, &waker).is_pending());
        drop((end, waker));
        assert_eq!(Arc::strong_count(&wakes), 1);
        assert!(pool.submit(|| ()).join().unwrap_err().is_shutdown());
        blocked.release();
        pool.shutdown().join();
        assert_eq!(wakes.count(), 0);
    });
}

/// A waker that uses the pool in every way when it is called and when it is dropped: a lock held at
/// that moment would hang the test.
struct ProbingWaker {
    pool: Arc<ThreadPool>,
    probes: Sender<()>,
}

impl ProbingWaker {
    fn probe(&self) {
        let _ = self.pool.metrics();
        let _ = poll_once(&mut self.pool.shutdown());
        drop(self.pool.shutdown_now());
        assert!(self.pool.try_submit(|| ()).unwrap_err().is_shutdown());
        let _ = self.probes.send(());
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
fn no_lock_is_held_while_the_waker_of_a_shutdown_is_called_or_dropped() {
    within(LONG, "probing wakers", || {
        let pool = pool(1);
        let blocked = block_workers(&pool, 1);
        let (probes, probed) = mpsc::channel();
        let probing = || {
            let (pool, probes) = (Arc::clone(&pool), probes.clone());
            Waker::from(Arc::new(ProbingWaker { pool, probes }))
        };
        let mut end = pool.shutdown();
        // The pool holds the last references, so it drops these wakers: one is replaced, one is
        // dropped with its future.
        assert!(poll_with(&mut end, &probing()).is_pending());
        assert!(poll_once(&mut end).is_pending());
        probed.try_recv().expect("dropped by that poll");
        assert!(poll_with(&mut end, &probing()).is_pending());
        drop(end);
        probed.try_recv().expect("dropped with its future");
        let mut end = pool.shutdown();
        assert!(poll_with(&mut end, &probing()).is_pending());
        blocked.release();
        pool.shutdown().join();
        // Called, and dropped after that.
        probed.recv().unwrap();
        probed.recv().unwrap();
    });
}

// With a timeout.

#[test]
fn join_timeout_reports_the_workers_left_and_may_be_repeated() {
    within(LONG, "join_timeout", || {
        let pool = pool(3);
        let gates: Vec<_> = (0..3).map(|_| block_workers(&pool, 1)).collect();
        let mut end = pool.shutdown();
        for (left, gate) in (1..=3).rev().zip(gates) {
            let start = Instant::now();
            let error = end.join_timeout(MOMENT).unwrap_err();
            assert!(start.elapsed() >= MOMENT);
            assert_eq!((error.pending(), error.total()), (left, 3));
            let text = error.to_string();
            assert!(text.contains(&format!("{left} (of 3)")), "{text}");
            assert!(text.contains("worker"), "{text}");
            let _: &dyn Error = &error;
            gate.release();
            eventually("it exits", || pool.metrics().workers == left as u64 - 1);
        }
        end.join_timeout(LONG).unwrap();
        end.join_timeout(Duration::ZERO).unwrap();
        assert!(poll_once(&mut end).is_ready());
        end.join();
    });
}

#[test]
fn join_timeout_ends_with_the_last_worker_not_with_its_timeout() {
    for limit in [LONG * 10, Duration::MAX] {
        within(LONG, "long timeout", move || {
            let pool = pool(1);
            let blocked = block_workers(&pool, 1);
            let mut end = pool.shutdown();
            let waiter = spawn_until_asleep(move || end.join_timeout(limit));
            assert!(!waiter.is_finished());
            blocked.release();
            waiter.join().unwrap().unwrap();
        });
    }
}

#[test]
fn join_timeout_that_failed_leaves_the_future_unchanged() {
    within(LONG, "after a timeout", || {
        let pool = pool(1);
        let blocked = block_workers(&pool, 1);
        let mut end = pool.shutdown();
        end.join_timeout(Duration::ZERO).unwrap_err();
        let (wakes, waker) = CountingWaker::new();
        assert!(poll_with(&mut end, &waker).is_pending());
        blocked.release();
        eventually("it is woken", || wakes.count() == 1);
        assert!(poll_with(&mut end, &waker).is_ready());
    });
}

// shutdown_now and cancel_pending.

#[test]
fn shutdown_now_cancels_queued_jobs_before_it_returns() {
    within(LONG, "shutdown_now", || {
        let pool = pool(2);
        let blocked = block_workers(&pool, 2);
        let jobs = backlog(&pool, BACKLOG);
        let called = Arc::new(AtomicUsize::new(0));
        for handle in &jobs.handles {
            let called = Arc::clone(&called);
            handle.add_done_callback(move |outcome| {
                assert!(outcome.unwrap_err().is_cancelled());
                called.fetch_add(1, Ordering::SeqCst);
            });
        }
        let end = pool.shutdown_now();
        assert_eq!(called.load(Ordering::SeqCst), BACKLOG);
        assert_eq!(pool.metrics().cancelled, BACKLOG as u64);
        assert_eq!(jobs.assert_done_or_cancelled(), BACKLOG);
        assert!(pool.submit(|| ()).join().unwrap_err().is_shutdown());
        blocked.release();
        end.join();
        assert_settled(&pool);
    });
}

#[test]
fn running_job_sees_the_request_of_shutdown_now_and_its_result_counts() {
    within(LONG, "cancel request", || {
        let pool = pool(2);
        let (tell, told) = mpsc::channel();
        let run = |tell: Sender<bool>| {
            pool.submit(move || {
                tell.send(cancel_requested())
                    .expect("the test waits for this");
                while !cancel_requested() {
                    thread::yield_now();
                }
                "ended early"
            })
        };
        let handles = [run(tell.clone()), run(tell)];
        assert_eq!((told.recv(), told.recv()), (Ok(false), Ok(false)));
        pool.shutdown_now().join();
        for handle in handles {
            assert_eq!(handle.join().unwrap(), "ended early");
        }
        assert!(!cancel_requested());
        assert_settled(&pool);
    });
}

#[test]
fn running_job_sees_no_cancel_request_of_a_plain_shutdown() {
    within(LONG, "no cancel request", || {
        let pool = pool(1);
        let (gate, (tell, told)) = (Gate::new(), mpsc::channel());
        let handle = {
            let gate = gate.clone();
            pool.submit(move || {
                tell.send(()).expect("the test waits for this");
                gate.wait();
                cancel_requested()
            })
        };
        told.recv().unwrap();
        let later = pool.submit(cancel_requested);
        drop(pool.shutdown());
        gate.open();
        assert!(!handle.join().unwrap());
        assert!(!later.join().unwrap());
    });
}

#[test]
fn shutdown_now_after_shutdown_cancels_the_rest() {
    within(LONG, "shutdown_now after shutdown", || {
        let pool = pool(1);
        let blocked = block_workers(&pool, 1);
        let jobs = backlog(&pool, BACKLOG);
        let first = pool.shutdown();
        drop(pool.shutdown_now());
        assert_eq!(jobs.assert_done_or_cancelled(), BACKLOG);
        blocked.release();
        first.join();
        assert_settled(&pool);
    });
}

#[test]
fn shutdown_now_in_a_worker_cancels_the_backlog_and_asks_its_own_job() {
    for form in Form::ALL {
        within(LONG, "shutdown_now in a worker", move || {
            let pool = pool(1);
            let (gate, inside) = (Gate::new(), Arc::clone(&pool));
            let handle = {
                let gate = gate.clone();
                pool.submit(move || {
                    gate.wait();
                    form.wait(inside.shutdown_now());
                    cancel_requested()
                })
            };
            let jobs = backlog(&pool, BACKLOG);
            gate.open();
            assert!(handle.join().unwrap());
            assert_eq!(jobs.assert_done_or_cancelled(), BACKLOG);
            pool.shutdown().join();
            assert_settled(&pool);
        });
    }
}

#[test]
fn shutdown_now_from_many_threads_resolves_each_job_once() {
    within(LONG, "shutdown_now from many threads", || {
        let pool = pool(2);
        let jobs = backlog(&pool, BACKLOG);
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (pool, barrier) = (Arc::clone(&pool), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    if n == 0 {
                        pool.shutdown().join();
                    } else {
                        pool.shutdown_now().join();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let cancelled = jobs.assert_done_or_cancelled() as u64;
        assert_eq!(pool.metrics().cancelled, cancelled);
        assert_settled(&pool);
    });
}

#[test]
fn cancel_pending_cancels_queued_jobs_and_leaves_the_pool_open() {
    within(LONG, "cancel_pending", || {
        let pool = pool(1);
        let (gate, (tell, told)) = (Gate::new(), mpsc::channel());
        let running = {
            let gate = gate.clone();
            pool.submit(move || {
                tell.send(()).expect("the test waits for this");
                gate.wait();
                cancel_requested()
            })
        };
        told.recv().unwrap();
        let jobs = backlog(&pool, BACKLOG);
        // These are no longer queued.
        for handle in jobs.handles.iter().step_by(4) {
            assert!(handle.cancel());
        }
        assert_eq!(pool.cancel_pending(), BACKLOG - BACKLOG / 4);
        assert_eq!(pool.cancel_pending(), 0);
        assert_eq!(jobs.assert_done_or_cancelled(), BACKLOG);
        assert_eq!(pool.metrics().cancelled, BACKLOG as u64);

        let later = pool.submit(|| "runs");
        gate.open();
        assert!(!running.join().unwrap());
        assert_eq!(later.join().unwrap(), "runs");
        pool.shutdown().join();
        assert_settled(&pool);
    });
}

#[test]
fn cancel_pending_from_many_threads_and_a_worker_counts_each_job_once() {
    within(LONG, "cancel_pending from many threads", || {
        let pool = pool(2);
        let blocked = block_workers(&pool, 1);
        let (gate, inside) = (Gate::new(), Arc::clone(&pool));
        let worker = {
            let gate = gate.clone();
            pool.submit(move || {
                gate.wait();
                inside.cancel_pending()
            })
        };
        eventually("it runs", || worker.is_running());
        let jobs = backlog(&pool, BACKLOG);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (pool, gate) = (Arc::clone(&pool), gate.clone());
                thread::spawn(move || {
                    gate.wait();
                    pool.cancel_pending()
                })
            })
            .collect();
        gate.open();
        let by_threads: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
        let by_worker = worker.join().unwrap();
        // The worker is free now, and takes the jobs that are left, if any.
        pool.shutdown();
        blocked.release();
        pool.shutdown().join();
        assert_eq!(by_threads + by_worker, jobs.assert_done_or_cancelled());
        assert_settled(&pool);
    });
}

#[test]
fn cancel_pending_ends_although_callbacks_submit_more() {
    fn submit_again(pool: &Arc<ThreadPool>) {
        let next = Arc::clone(pool);
        let handle = pool.submit(|| ());
        handle.add_done_callback(move |outcome| {
            if outcome.is_err() {
                submit_again(&next);
            }
        });
    }
    within(LONG, "callbacks submit", || {
        let pool = pool(1);
        let blocked = block_workers(&pool, 1);
        for _ in 0..10 {
            submit_again(&pool);
        }
        assert_eq!(pool.cancel_pending(), 10);
        assert_eq!(pool.metrics().queued, 10);
        blocked.release();
        eventually("the new ones run", || pool.metrics().completed == 11);
    });
}

#[test]
fn closure_whose_drop_panics_does_not_stop_shutdown_now() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new("no hook"));
        }
    }
    within(LONG, "drop panics", || {
        let pool = pool(1);
        let blocked = block_workers(&pool, 1);
        let handles: Vec<_> = (0..10)
            .map(|_| {
                let bomb = Bomb;
                pool.submit(move || drop(bomb))
            })
            .collect();
        let end = pool.shutdown_now();
        for handle in handles {
            assert!(handle.is_cancelled());
            assert!(handle.join().unwrap_err().is_cancelled());
        }
        blocked.release();
        end.join();
        assert_settled(&pool);
    });
}

// In a worker of the same pool.

#[test]
fn only_worker_that_waits_continues_and_then_runs_the_queue() {
    for form in Form::ALL {
        within(LONG, "the only worker waits", move || {
            let pool = pool(1);
            let inside = Arc::clone(&pool);
            let (log, ran) = mpsc::channel();
            let queued_log = log.clone();
            drop(pool.submit(move || {
                drop(inside.submit(move || queued_log.send("queued")));
                form.wait(inside.shutdown());
                log.send("waited").expect("the test waits for this");
            }));
            assert_eq!(ran.iter().collect::<Vec<_>>(), ["waited", "queued"]);
            pool.shutdown().join();
            assert_settled(&pool);
        });
    }
}

#[test]
fn workers_that_all_wait_continue() {
    within(LONG, "all workers wait", || {
        let pool = pool(4);
        let gate = Gate::new();
        let waiting = Form::ALL.map(|form| {
            let (inside, gate) = (Arc::clone(&pool), gate.clone());
            pool.submit(move || {
                gate.wait();
                form.wait(inside.shutdown());
            })
        });
        eventually("all run", || pool.metrics().running == 4);
        let jobs = backlog(&pool, BACKLOG);
        gate.open();
        for handle in waiting {
            handle.join().unwrap();
        }
        pool.shutdown().join();
        jobs.assert_done();
        assert_settled(&pool);
    });
}

#[test]
fn a_wait_in_a_worker_ends_at_once_beside_busy_workers_and_a_backlog() {
    for form in Form::ALL {
        within(LONG, "a long job", move || {
            let pool = pool(2);
            let blocked = block_workers(&pool, 1);
            let (gate, inside) = (Gate::new(), Arc::clone(&pool));
            let waiter = {
                let gate = gate.clone();
                pool.submit(move || {
                    gate.wait();
                    form.wait(inside.shutdown());
                    let metrics = inside.metrics();
                    (metrics.workers, metrics.running, metrics.queued)
                })
            };
            eventually("it runs", || waiter.is_running());
            let jobs = backlog(&pool, BACKLOG);
            gate.open();
            // The other worker is still blocked, so only this one could have run queued jobs.
            assert_eq!(waiter.join().unwrap(), (2, 2, BACKLOG as u64));
            blocked.release();
            pool.shutdown().join();
            jobs.assert_done();
            assert_settled(&pool);
        });
    }
}

#[test]
fn join_timeout_in_a_worker_is_ok_at_once_while_another_worker_is_busy() {
    within(LONG, "join_timeout in a worker", || {
        let pool = pool(2);
        let blocked = block_workers(&pool, 1);
        let inside = Arc::clone(&pool);
        let waiter = pool.submit(move || {
            let mut end = inside.shutdown();
            for timeout in [Duration::ZERO, 2 * LONG] {
                end.join_timeout(timeout).unwrap();
            }
            end
        });
        let mut end = waiter.join().unwrap();
        // Outside of the workers the same value waits.
        let error = end.join_timeout(MOMENT).unwrap_err();
        assert_eq!(error.total(), 2);
        blocked.release();
        end.join();
        assert_settled(&pool);
    });
}

#[test]
fn a_wait_outside_the_pool_does_not_end_when_all_workers_wait() {
    within(LONG, "outside and inside", || {
        let pool = pool(2);
        let (start, go_on) = (Gate::new(), Gate::new());
        let (tell, told) = mpsc::channel();
        let waiting = [Form::Join, Form::BlockOn].map(|form| {
            let (inside, tell) = (Arc::clone(&pool), tell.clone());
            let (start, go_on) = (start.clone(), go_on.clone());
            pool.submit(move || {
                start.wait();
                form.wait(inside.shutdown());
                tell.send(()).expect("the test waits for this");
                go_on.wait();
            })
        });
        eventually("both run", || pool.metrics().running == 2);
        let (wakes, waker) = CountingWaker::new();
        let mut outside = pool.shutdown();
        assert!(poll_with(&mut outside, &waker).is_pending());
        start.open();
        told.recv().unwrap();
        told.recv().unwrap();
        assert!(poll_with(&mut outside, &waker).is_pending());
        assert_eq!(wakes.count(), 0);
        go_on.open();
        for handle in waiting {
            handle.join().unwrap();
        }
        outside.join();
        assert_settled(&pool);
    });
}

#[test]
fn shutdown_polled_in_a_worker_and_then_outside_waits_for_the_end() {
    within(LONG, "polled here and there", || {
        let pool = pool(2);
        let (start, go_on) = (Gate::new(), Gate::new());
        let (tell, told) = mpsc::channel();
        let join_and_stay = |before: Box<dyn FnOnce(&ThreadPool) + Send>| {
            let (inside, tell, go_on) = (Arc::clone(&pool), tell.clone(), go_on.clone());
            let handle = pool.submit(move || {
                before(&inside);
                inside.shutdown().join();
                tell.send(()).expect("the test waits for this");
                go_on.wait();
            });
            eventually("it runs", || handle.is_running());
            handle
        };
        let late = {
            let start = start.clone();
            join_and_stay(Box::new(move |_| start.wait()))
        };
        let (give, given) = mpsc::channel();
        let early = join_and_stay(Box::new(move |pool| {
            let mut end = pool.shutdown();
            assert!(poll_once(&mut end).is_ready());
            give.send(end).expect("the test waits for this");
        }));
        let mut end = given.recv().unwrap();
        start.open();
        told.recv().unwrap();
        told.recv().unwrap();
        // The wait of each worker has ended, and both are still in their loops. So a wait outside
        // the pool does not end, whatever the same value said in a worker.
        let (wakes, waker) = CountingWaker::new();
        let is_pending = poll_with(&mut end, &waker).is_pending();
        let early_wakes = wakes.count();
        go_on.open();
        assert!(is_pending);
        assert_eq!(early_wakes, 0);
        eventually("it is woken", || wakes.count() == 1);
        end.join();
        early.join().unwrap();
        late.join().unwrap();
        assert_settled(&pool);
    });
}

#[test]
fn shutdown_waited_for_in_an_initializer_ends() {
    within(LONG, "in an initializer", || {
        let (give, given) = mpsc::channel::<Arc<ThreadPool>>();
        let given = std::sync::Mutex::new(given);
        let initializer = move || {
            let pool = given.lock().unwrap().recv().unwrap();
            pool.shutdown().join();
        };
        let builder = ThreadPool::builder().max_workers(1);
        let pool = Arc::new(builder.initializer(initializer).build().unwrap());
        let handle = pool.submit(|| "runs");
        give.send(Arc::clone(&pool)).unwrap();
        assert_eq!(handle.join().unwrap(), "runs");
        pool.shutdown().join();
        assert_settled(&pool);
    });
}

#[test]
fn shutdown_waited_for_in_a_thread_local_of_a_worker_ends_at_once() {
    for form in Form::ALL {
        within(LONG, "in a thread-local", move || {
            let pool = pool(2);
            let (tell, told) = mpsc::channel();
            let blocked = block_workers(&pool, 1);
            let (gate, inside) = (Gate::new(), Arc::clone(&pool));
            let wait = gate.clone();
            let job = pool.submit(move || {
                at_thread_end(move || {
                    form.wait(inside.shutdown());
                    let _ = tell.send(inside.metrics().workers);
                });
                wait.wait();
            });
            let mut end = pool.shutdown();
            gate.open();
            job.join().unwrap();
            // The wait has ended while the other worker is still in its loop.
            assert_eq!(told.recv_timeout(LONG), Ok(1));
            assert!(poll_once(&mut end).is_pending());
            blocked.release();
            end.join();
            assert_settled(&pool);
        });
    }
}

// Everything at once.

#[test]
fn shutdown_racing_with_submits_loses_no_job() {
    within(LONG, "race", || {
        for round in 0..300 {
            race(round);
        }
    });
}

/// Three threads submit, from outside and in jobs, until they are rejected; this thread ends the
/// pool meanwhile.
fn race(round: usize) {
    let builder = ThreadPool::builder().max_workers(1 + round % 3);
    let builder = match round % 4 {
        0 => builder.keep_alive(Duration::ZERO),
        1 => builder.queue_capacity(2),
        _ => builder,
    };
    let pool = Arc::new(builder.build().unwrap());
    let ran = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let barrier = Arc::new(Barrier::new(4));
    let submitters: Vec<_> = (0..3)
        .map(|_| {
            let (pool, ran, over) = (Arc::clone(&pool), Arc::clone(&ran), Arc::clone(&over));
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                barrier.wait();
                let mut handles = Vec::new();
                // Once more after the end.
                loop {
                    let last = over.load(Ordering::SeqCst);
                    let (inside, ran) = (Arc::clone(&pool), Arc::clone(&ran));
                    handles.push(pool.submit(move || {
                        let inner = Arc::clone(&ran);
                        ran.fetch_add(1, Ordering::SeqCst);
                        inside.submit(move || {
                            inner.fetch_add(1, Ordering::SeqCst);
                        })
                    }));
                    if last {
                        return handles;
                    }
                }
            })
        })
        .collect();
    barrier.wait();
    for _ in 0..(round * 37) % 2_000 {
        std::hint::spin_loop();
    }
    let end = match round % 5 {
        0 => pool.shutdown_now(),
        _ => pool.shutdown(),
    };
    over.store(true, Ordering::SeqCst);
    end.join();
    let ran_by_then = ran.load(Ordering::SeqCst);

    let mut tally = Tally::default();
    for submitter in submitters {
        for mut handle in submitter.join().unwrap() {
            if let Some(mut inner) = tally.count(handle.try_join()) {
                tally.count(inner.try_join());
            }
        }
    }
    assert_eq!(ran.load(Ordering::SeqCst), ran_by_then);
    assert_eq!(tally.ran, ran_by_then);
    let metrics = pool.metrics();
    assert_eq!(metrics.completed, tally.ran as u64);
    assert_eq!(metrics.cancelled, tally.cancelled as u64);
    assert_eq!(metrics.rejected, tally.refused as u64);
    assert!(tally.refused >= 3);
    assert!(tally.cancelled == 0 || round % 5 == 0);
    assert_settled(&pool);
}

#[derive(Default)]
struct Tally {
    ran: usize,
    refused: usize,
    cancelled: usize,
}

impl Tally {
    fn count<T>(&mut self, result: Option<Result<T, futurepool::JoinError>>) -> Option<T> {
        match result.expect("it is resolved") {
            Ok(value) => {
                self.ran += 1;
                return Some(value);
            }
            Err(error) if error.is_shutdown() => self.refused += 1,
            Err(error) if error.is_cancelled() => self.cancelled += 1,
            Err(error) => panic!("{error:?}"),
        }
        None
    }
}

#[test]
fn a_shutdown_says_how_many_jobs_it_has_cancelled() {
    let pool = ThreadPool::new(1);
    let (started, wait_for_start) = std::sync::mpsc::channel();
    let (finish, wait_for_finish) = std::sync::mpsc::channel::<()>();
    let running = pool.submit(move || {
        started.send(()).unwrap();
        let _ = wait_for_finish.recv();
    });
    wait_for_start.recv().unwrap();
    let queued: Vec<_> = (0..3).map(|n| pool.submit(move || n)).collect();
    assert!(queued[1].cancel());
    assert_eq!(pool.shutdown_now().cancelled(), 2);
    assert_eq!(pool.shutdown_now().cancelled(), 0);
    assert_eq!(pool.shutdown().cancelled(), 0);
    drop(finish);
    running.join().unwrap();
}

#[test]
fn a_job_that_ends_at_the_request_makes_room_for_no_queued_job() {
    for _ in 0..500 {
        let pool = pool(1);
        let (tell, told) = mpsc::channel();
        let running = pool.submit(move || {
            tell.send(()).unwrap();
            while !cancel_requested() {
                std::hint::spin_loop();
            }
        });
        told.recv().unwrap();
        let queued = pool.submit(|| ());
        pool.shutdown_now().join();
        assert!(queued.join().unwrap_err().is_cancelled());
        running.join().unwrap();
    }
}
