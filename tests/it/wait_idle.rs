//! `wait_idle`: when it resolves, for which waiters, and what it sees then.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use crate::common::{
    CountingWaker, Gate, LONG, block_workers, bounded_pool, eventually, poll_once, poll_with,
    spawn_until_asleep, within,
};
use futurepool::{Executor, ExecutorExt, InlineExecutor, Job, ThreadPool, WaitIdle, block_on};
use futures::future::FusedFuture;

#[test]
fn it_is_send_unpin_static_and_outlives_its_pool() {
    fn assert_bounds<T: Future<Output = ()> + Send + Sync + Unpin + 'static>(_: &T) {}
    within(LONG, "outlives", || {
        let pool = ThreadPool::new(1);
        let _detached = pool.submit(|| ());
        let idle = pool.wait_idle();
        assert_bounds(&idle);
        drop(pool);
        idle.join();
    });
}

#[test]
fn an_idle_pool_is_idle_at_once_in_all_three_forms() {
    within(LONG, "idle", || {
        for used in [false, true] {
            let pool = ThreadPool::new(2);
            if used {
                pool.submit(|| ()).join().unwrap();
            }
            assert!(poll_once(&mut pool.wait_idle()).is_ready());
            pool.wait_idle().join();
            pool.wait_idle().join_timeout(Duration::ZERO).unwrap();
            block_on(pool.wait_idle());
            assert_eq!(pool.metrics().workers, u64::from(used));
        }
    });
}

#[test]
fn it_waits_for_detached_jobs_and_the_pool_stays_open() {
    within(LONG, "detached", || {
        let pool = ThreadPool::new(3);
        let ran = Arc::new(AtomicUsize::new(0));
        for round in 1..=50 {
            for _ in 0..20 {
                let ran = Arc::clone(&ran);
                drop(pool.submit(move || ran.fetch_add(1, SeqCst)));
            }
            match round % 3 {
                0 => pool.wait_idle().join(),
                1 => block_on(pool.wait_idle()),
                _ => pool.wait_idle().join_timeout(LONG).unwrap(),
            }
            assert_eq!(ran.load(SeqCst), 20 * round);
        }
    });
}

#[test]
fn any_number_of_waiters_is_woken_once_each_by_the_last_job() {
    within(LONG, "many waiters", || {
        let pool = Arc::new(ThreadPool::new(2));
        let blocked = block_workers(&pool, 2);
        let polled: Vec<_> = (0..10)
            .map(|_| {
                let (counter, waker) = CountingWaker::new();
                let mut idle = pool.wait_idle();
                assert!(poll_with(&mut idle, &waker).is_pending());
                assert!(!idle.is_terminated());
                (counter, idle)
            })
            .collect();
        let joining: Vec<_> = (0..4)
            .map(|_| {
                let idle = pool.wait_idle();
                spawn_until_asleep(move || idle.join())
            })
            .collect();
        assert!(joining.iter().all(|thread| !thread.is_finished()));
        blocked.release();
        for thread in joining {
            thread.join().unwrap();
        }
        for (counter, mut idle) in polled {
            eventually("it is woken", || counter.count() == 1);
            assert!(poll_once(&mut idle).is_ready());
            assert!(idle.is_terminated());
        }
    });
}

#[test]
fn only_the_waker_of_the_last_poll_is_called_and_a_dropped_wait_keeps_none() {
    within(LONG, "wakers", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let (first, first_waker) = CountingWaker::new();
        let (second, second_waker) = CountingWaker::new();
        let (gone, gone_waker) = CountingWaker::new();
        let mut idle = pool.wait_idle();
        assert!(poll_with(&mut idle, &first_waker).is_pending());
        drop(first_waker);
        assert!(poll_with(&mut idle, &second_waker).is_pending());
        assert_eq!(Arc::strong_count(&first), 1, "it is dropped at that poll");
        let mut dropped = pool.wait_idle();
        assert!(poll_with(&mut dropped, &gone_waker).is_pending());
        drop((dropped, gone_waker));
        assert_eq!(Arc::strong_count(&gone), 1);
        blocked.release();
        eventually("it is woken", || second.count() == 1);
        assert_eq!((first.count(), gone.count()), (0, 0));
    });
}

#[test]
fn later_submits_do_not_undo_an_idle_moment() {
    within(LONG, "later submits", || {
        let pool = ThreadPool::new(1);
        let first = block_workers(&pool, 1);
        let mut idle = pool.wait_idle();
        let mut timed = pool.wait_idle();
        assert!(poll_once(&mut idle).is_pending());
        first.release();
        // The moment is over before anything looks at the wait.
        let second = block_workers(&pool, 1);
        assert!(poll_once(&mut idle).is_ready());
        timed.join_timeout(Duration::ZERO).unwrap();
        assert!(
            poll_once(&mut pool.wait_idle()).is_pending(),
            "for a call that comes later it does not count"
        );
        second.release();
    });
}

#[test]
fn a_moment_before_the_call_does_not_count() {
    within(LONG, "before the call", || {
        let pool = ThreadPool::new(2);
        let mut early = pool.wait_idle();
        let blocked = block_workers(&pool, 1);
        assert!(poll_once(&mut early).is_ready());
        let mut idle = pool.wait_idle();
        assert!(poll_once(&mut idle).is_pending());
        // A pool that is never idle, although each of its jobs ends.
        let mut last = blocked;
        for _ in 0..20 {
            let next = block_workers(&pool, 1);
            last.release();
            assert!(poll_once(&mut idle).is_pending());
            last = next;
        }
        last.release();
        assert!(poll_once(&mut idle).is_ready());
    });
}

#[test]
fn a_poll_after_the_last_result_is_ready_at_once() {
    within(LONG, "the last result", || {
        let pool = ThreadPool::new(1);
        for _ in 0..5_000 {
            let handle = pool.submit(thread::yield_now);
            let mut idle = pool.wait_idle();
            handle.join().unwrap();
            // The worker may not have come to the end of the waits yet.
            assert!(poll_once(&mut idle).is_ready());
        }
    });
}

#[test]
fn queued_cancelled_panicked_and_refused_jobs_all_count() {
    within(LONG, "all ends", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let cancelled = pool.submit(|| ());
        let panics = pool.submit(|| panic!("on purpose"));
        let queued = pool.submit(|| ());
        let mut idle = pool.wait_idle();
        assert!(cancelled.cancel());
        assert!(poll_once(&mut idle).is_pending());
        assert_eq!(pool.cancel_queued(), 2);
        assert!(poll_once(&mut idle).is_pending(), "one still runs");
        blocked.release();
        assert!(poll_once(&mut idle).is_ready());
        drop((panics, queued));
        let panics = pool.submit(|| panic!("on purpose"));
        pool.wait_idle().join();
        assert!(panics.is_finished());

        // Here the last end is that of a job that never ran.
        let blocked = block_workers(&pool, 1);
        let gate = blocked.gate();
        let _slow = pool.submit(move || gate.wait());
        let mut idle = pool.wait_idle();
        drop(blocked);
        idle.join_timeout(LONG).unwrap();
    });
}

#[test]
fn a_cancel_that_comes_last_ends_the_wait() {
    /// Keeps its job in the pool for as long as the closure's destructor takes.
    struct SlowDrop(Gate, mpsc::Sender<()>);
    impl Drop for SlowDrop {
        fn drop(&mut self) {
            self.1.send(()).unwrap();
            self.0.wait();
        }
    }
    within(LONG, "cancel", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let gate = Gate::new();
        let (dropping, drops) = mpsc::channel();
        let slow = SlowDrop(gate.clone(), dropping);
        let handle = pool.submit(move || drop(slow));
        let mut idle = pool.wait_idle();
        let canceller = thread::spawn(move || handle.cancel());
        drops.recv_timeout(LONG).unwrap();
        blocked.release();
        assert!(poll_once(&mut idle).is_pending(), "its closure is there");
        gate.open();
        idle.join();
        assert!(canceller.join().unwrap());
    });
}

#[test]
fn jobs_accepted_before_are_finished_by_any_reference() {
    within(LONG, "finished", || {
        for _ in 0..500 {
            let pool = ThreadPool::new(2);
            let handles: Vec<_> = (0..4).map(|n| pool.submit(move || n)).collect();
            let detached: Vec<_> = (0..4)
                .map(|n| pool.submit(move || n).cancel_handle())
                .collect();
            pool.wait_idle().join();
            assert!(handles.iter().all(|handle| handle.is_finished()));
            assert!(detached.iter().all(|handle| handle.is_finished()));
            let metrics = pool.metrics();
            assert_eq!((metrics.completed, metrics.queued), (8, 0));
        }
    });
}

#[test]
fn the_result_that_nothing_wants_is_dropped_before() {
    struct Slow(Gate, Arc<AtomicBool>);
    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.wait();
            self.1.store(true, SeqCst);
        }
    }
    within(LONG, "dropped result", || {
        let pool = ThreadPool::new(1);
        let (gate, dropped) = (Gate::new(), Arc::new(AtomicBool::new(false)));
        let slow = Slow(gate.clone(), Arc::clone(&dropped));
        let blocked = block_workers(&pool, 1);
        drop(pool.submit(move || slow));
        let mut idle = pool.wait_idle();
        blocked.release();
        assert!(idle.join_timeout(Duration::from_millis(20)).is_err());
        gate.open();
        idle.join();
        assert!(dropped.load(SeqCst));
    });
}

#[test]
fn a_wake_under_way_does_not_count() {
    struct SlowWaker(Gate);
    impl Wake for SlowWaker {
        fn wake(self: Arc<Self>) {
            self.0.wait();
        }
    }
    within(LONG, "slow waker", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let mut handle = pool.submit(|| ());
        let gate = Gate::new();
        let waker = Waker::from(Arc::new(SlowWaker(gate.clone())));
        assert!(poll_with(&mut handle, &waker).is_pending());
        let idle = pool.wait_idle();
        blocked.release();
        idle.join();
        assert!(handle.is_finished());
        gate.open();
    });
}

#[test]
fn submitters_that_wait_for_room_do_not_count() {
    within(LONG, "blocked submitters", || {
        let pool = bounded_pool(1, 1);
        let mut waiting = pool.submit_async(|| ());
        let blocked = block_workers(&pool, 1);
        let queued = pool.submit(|| ());
        assert!(poll_once(&mut waiting).is_pending());
        let mut idle = pool.wait_idle();
        blocked.release();
        queued.join().unwrap();
        idle.join_timeout(LONG).unwrap();
        drop(waiting);
    });
}

#[test]
fn in_the_pools_own_workers_it_returns_at_once_and_runs_nothing() {
    within(LONG, "in a worker", || {
        let pool = Arc::new(ThreadPool::new(1));
        let inside = Arc::clone(&pool);
        let mut outside = pool.wait_idle();
        let ran = Arc::new(AtomicBool::new(false));
        let runs = Arc::clone(&ran);
        let (moved, moves) = mpsc::channel();
        let handle = pool.submit(move || {
            drop(inside.submit(move || runs.store(true, SeqCst)));
            inside.wait_idle().join();
            inside.wait_idle().join_timeout(LONG).unwrap();
            assert!(poll_once(&mut inside.wait_idle()).is_ready());
            block_on(inside.wait_idle());
            let mut idle = inside.wait_idle();
            assert!(poll_once(&mut idle).is_ready());
            moved.send(idle).unwrap();
            assert!(!ran.load(SeqCst), "it runs no jobs");
        });
        assert!(poll_once(&mut outside).is_ready());
        handle.join().unwrap();
        // Outside, it waits again.
        let mut idle: WaitIdle = moves.recv_timeout(LONG).unwrap();
        idle.join_timeout(LONG).unwrap();
    });
}

#[test]
fn in_a_worker_of_another_pool_it_waits() {
    within(LONG, "another pool", || {
        let (pool, other) = (Arc::new(ThreadPool::new(1)), ThreadPool::new(1));
        let blocked = block_workers(&pool, 1);
        let inside = Arc::clone(&pool);
        let (waits, wait) = mpsc::channel();
        let waiting = other.submit(move || {
            let idle = inside.wait_idle();
            waits.send(()).unwrap();
            idle.join();
            inside.metrics().completed
        });
        wait.recv_timeout(LONG).unwrap();
        blocked.release();
        assert_eq!(waiting.join().unwrap(), 1);
    });
}

#[test]
fn join_timeout_counts_the_jobs_and_may_be_repeated() {
    within(LONG, "join_timeout", || {
        let pool = ThreadPool::new(2);
        pool.submit(|| ()).join().unwrap();
        let blocked = block_workers(&pool, 2);
        let queued = pool.submit(|| ());
        let mut idle = pool.wait_idle();
        let cancelled = pool.submit(|| ());
        assert!(cancelled.cancel());
        let error = idle.join_timeout(Duration::from_millis(5)).unwrap_err();
        assert_eq!((error.pending(), error.total()), (3, 4));
        assert_eq!(error.to_string(), "3 (of 4) jobs unfinished");
        let kind = std::io::Error::from(error).kind();
        assert_eq!(kind, std::io::ErrorKind::TimedOut);
        // The future is as it was.
        let (counter, waker) = CountingWaker::new();
        assert!(poll_with(&mut idle, &waker).is_pending());
        drop(blocked);
        queued.join().unwrap();
        idle.join_timeout(LONG).unwrap();
        idle.join_timeout(Duration::ZERO).unwrap();
        assert!(counter.count() <= 1);
    });
}

#[test]
fn a_shutdown_and_a_broken_pool_end_the_wait() {
    within(LONG, "closed pools", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let _queued = pool.submit(|| ());
        let idle = pool.wait_idle();
        pool.shutdown_now();
        blocked.release();
        idle.join();
        let pool = ThreadPool::builder()
            .initializer(|| Err::<(), _>("on purpose"))
            .build()
            .unwrap();
        let broken = pool.submit(|| ());
        pool.wait_idle().join();
        assert!(broken.is_finished());
        // A job that is refused was never accepted.
        assert!(pool.submit(|| ()).join().unwrap_err().is_broken());
        pool.wait_idle().join();
    });
}

#[test]
fn jobs_that_another_executor_hands_on_count_too() {
    struct Hands(Arc<ThreadPool>);
    impl Executor for Hands {
        fn execute(&self, job: Job) {
            (*self.0).execute(job);
        }
    }
    within(LONG, "handed on", || {
        let pool = Arc::new(ThreadPool::new(1));
        let hands = Hands(Arc::clone(&pool));
        let gate = Gate::new();
        let wait = gate.clone();
        let handle = hands.submit(move || wait.wait());
        let mut idle = pool.wait_idle();
        assert!(poll_once(&mut idle).is_pending());
        gate.open();
        idle.join();
        assert!(handle.is_finished());
        InlineExecutor.submit(|| ()).join().unwrap();
    });
}

#[test]
fn no_lock_is_held_while_its_waker_is_woken_or_dropped() {
    /// Asks the pool whatever it can, in each of its methods.
    struct Curious(Arc<ThreadPool>, Arc<Mutex<Vec<&'static str>>>);
    impl Curious {
        fn ask(&self, what: &'static str) {
            let _ = (self.0.metrics(), format!("{:?}", self.0));
            drop(self.0.wait_idle());
            drop(self.0.submit(|| ()));
            self.1.lock().unwrap().push(what);
        }
    }
    impl Wake for Curious {
        fn wake(self: Arc<Self>) {
            self.ask("wake");
        }
    }
    impl Drop for Curious {
        fn drop(&mut self) {
            self.ask("drop");
        }
    }
    within(LONG, "locks", || {
        let pool = Arc::new(ThreadPool::new(2));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let blocked = block_workers(&pool, 1);
        let curious = || Waker::from(Arc::new(Curious(Arc::clone(&pool), Arc::clone(&asked))));
        let mut idle = pool.wait_idle();
        assert!(poll_with(&mut idle, &curious()).is_pending());
        assert!(poll_with(&mut idle, &curious()).is_pending());
        let mut dropped = pool.wait_idle();
        assert!(poll_with(&mut dropped, &curious()).is_pending());
        drop(dropped);
        assert_eq!(*asked.lock().unwrap(), ["drop", "drop"]);
        blocked.release();
        eventually("woken and dropped", || asked.lock().unwrap().len() == 4);
        pool.wait_idle().join();
    });
}

#[test]
fn random_submitters_and_waiters_lose_no_idle_moment() {
    within(LONG, "stress", || {
        let pool = Arc::new(ThreadPool::new(3));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || {
                    for round in 0..400 {
                        let handles: Vec<_> =
                            (0..round % 4).map(|n| pool.submit(move || n)).collect();
                        match round % 2 {
                            0 => pool.wait_idle().join(),
                            _ => block_on(pool.wait_idle()),
                        }
                        assert!(handles.iter().all(|handle| handle.is_finished()));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_slow_waker_keeps_no_job_from_another_worker() {
    within(LONG, "slow waker", || {
        struct Slow(mpsc::SyncSender<()>, Gate);
        impl Wake for Slow {
            fn wake(self: Arc<Self>) {
                self.0.send(()).unwrap();
                self.1.wait();
            }
        }
        for workers in [1, 2] {
            let pool = ThreadPool::new(2);
            if workers == 2 {
                block_workers(&pool, 2).release();
            }
            let gate = Gate::new();
            let (tell, told) = mpsc::sync_channel(1);
            let waker = Waker::from(Arc::new(Slow(tell, gate.clone())));
            let (go, wait) = mpsc::channel::<()>();
            let job = pool.submit(move || wait.recv());
            let mut idle = pool.wait_idle();
            assert!(poll_with(&mut idle, &waker).is_pending());
            drop(go);
            told.recv_timeout(LONG).unwrap();
            assert!(job.join().unwrap().is_err());
            // The worker is in the waker, so this job needs another one.
            assert_eq!(pool.submit(|| 7).join().unwrap(), 7);
            gate.open();
        }
    });
}
