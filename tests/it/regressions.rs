//! Rare interleavings and reentrant calls: each of these once hung, or could have.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use crate::common::{
    CountingWaker, Gate, LONG, ThreadState, block_workers, child, eventually, poll_once, poll_with,
    threads_named, within,
};
use futurepool::{JoinHandle, ThreadPool, block_on};

#[test]
fn a_callback_may_wait_for_another_job_that_is_cancelled_with_its_own() {
    type End = fn(&ThreadPool);
    let ends: [End; 2] = [
        |pool| assert!(pool.cancel_pending() > 0),
        |pool| drop(pool.shutdown_now()),
    ];
    for end in ends {
        within(LONG, "a wait in a callback", move || {
            let pool = ThreadPool::new(2);
            let blocked = block_workers(&pool, 2);
            let (first, second) = (pool.submit(|| ()), pool.submit(|| ()));
            let (tell, told) = mpsc::channel();
            first.add_done_callback(move |outcome| {
                assert!(outcome.unwrap_err().is_cancelled());
                // No worker is free, and this thread has not reached the second job yet.
                tell.send(second.join()).unwrap();
            });
            end(&pool);
            let outcome = told.try_recv().expect("the callback has run");
            assert!(outcome.unwrap_err().is_cancelled());
            blocked.release();
        });
    }
}

#[test]
fn a_callback_may_wait_for_another_job_that_a_broken_pool_refuses() {
    within(LONG, "broken, in a callback", || {
        let gate = Gate::new();
        let wait = gate.clone();
        let builder = ThreadPool::builder().max_workers(1).initializer(move || {
            wait.wait();
            Err::<(), _>("no")
        });
        let pool = builder.build().unwrap();
        let (give, take) = mpsc::channel::<JoinHandle<()>>();
        let (tell, told) = mpsc::channel();
        let first = pool.submit(|| ());
        first.add_done_callback(move |_| {
            // One is joined and one awaited, in the only worker, which has not reached either yet.
            tell.send(take.recv().unwrap().join().unwrap_err()).unwrap();
            tell.send(block_on(take.recv().unwrap()).unwrap_err())
                .unwrap();
        });
        give.send(pool.submit(|| ())).unwrap();
        give.send(pool.submit(|| ())).unwrap();
        gate.open();
        assert!(told.recv_timeout(LONG).unwrap().is_broken());
        assert!(told.recv_timeout(LONG).unwrap().is_broken());
        pool.shutdown().join();
        assert_eq!(pool.metrics().cancelled, 3);
    });
}

#[test]
fn a_callback_in_cancel_pending_may_submit_to_the_full_queue() {
    within(LONG, "submit in cancel_pending", || {
        let builder = ThreadPool::builder().max_workers(1).queue_capacity(1);
        let pool = Arc::new(builder.build().unwrap());
        let (inside, (tell, told)) = (Arc::clone(&pool), mpsc::channel());
        let gate = Gate::new();
        let wait = gate.clone();
        // A worker may exceed the capacity, by two here.
        let busy = pool.submit(move || {
            let queued = [
                inside.submit(|| ()),
                inside.submit(|| ()),
                inside.submit(|| ()),
            ];
            tell.send(queued).unwrap();
            wait.wait();
        });
        let queued = told.recv_timeout(LONG).unwrap();
        let again = Arc::clone(&pool);
        let (tell, told) = mpsc::channel();
        // Not earlier: the worker could take and run the job before the cancel.
        let go = gate.clone();
        queued[0].add_done_callback(move |_| {
            go.open();
            tell.send(again.submit(|| "again")).unwrap();
        });
        pool.cancel_pending();
        busy.join().unwrap();
        // The job was submitted after the call, so the call does not cancel it.
        assert_eq!(told.recv_timeout(LONG).unwrap().join().unwrap(), "again");
    });
}

#[test]
fn cancel_pending_spares_the_jobs_that_its_callbacks_submit() {
    within(LONG, "retries", || {
        let pool = Arc::new(ThreadPool::new(1));
        let blocked = block_workers(&pool, 1);
        let (tell, told) = mpsc::channel();
        let queued: Vec<_> = (0..20)
            .map(|_| {
                let handle = pool.submit(|| ());
                let (pool, tell) = (Arc::clone(&pool), tell.clone());
                handle.add_done_callback(move |_| tell.send(pool.submit(|| "retried")).unwrap());
                handle
            })
            .collect();
        assert_eq!(pool.cancel_pending(), 20);
        blocked.release();
        for handle in queued {
            assert!(handle.join().unwrap_err().is_cancelled());
            assert_eq!(told.recv_timeout(LONG).unwrap().join().unwrap(), "retried");
        }
    });
}

/// Runs a closure when it is dropped.
struct RunsAtDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for RunsAtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn no_job_runs_that_was_queued_when_all_were_cancelled() {
    let ends: [fn(&ThreadPool); 2] = [
        |pool| assert_eq!(pool.cancel_pending(), 2),
        |pool| drop(pool.shutdown_now()),
    ];
    for end in ends {
        within(LONG, "cancel all", move || {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let gate = Gate::new();
            let wait = gate.clone();
            let (tell, told) = mpsc::channel();
            let held_up = RunsAtDrop(move || {
                tell.send(()).unwrap();
                wait.wait();
            });
            let first = pool.submit(move || drop(held_up));
            let second = pool.submit(|| panic!("it was queued"));
            std::thread::scope(|scope| {
                let ending = scope.spawn(|| end(&pool));
                told.recv_timeout(LONG).unwrap();
                // That destructor delays the call, and the worker is free now.
                blocked.release();
                let later = pool.submit(|| ());
                assert!(
                    later
                        .join()
                        .map_or_else(|error| error.is_shutdown(), |()| true)
                );
                // The worker has passed both jobs, which are not visible as cancelled yet.
                assert!(!first.is_finished() && !second.is_finished());
                gate.open();
                assert!(second.join().unwrap_err().is_cancelled());
                ending.join().unwrap();
            });
            assert!(first.is_cancelled());
        });
    }
}

#[test]
fn guarantee_2_a_job_cancelled_with_all_others_is_not_run_by_its_waiter() {
    within(LONG, "a scope of cancelled jobs", || {
        let pool = Arc::new(ThreadPool::new(1));
        let (begin, gate) = (Gate::new(), Gate::new());
        let ran = Arc::new(AtomicBool::new(false));
        let (queued, is_queued) = mpsc::channel();
        let (held_up, goes_on) = mpsc::channel();
        let waits = {
            let (pool, begin, ran) = (Arc::clone(&pool), begin.clone(), Arc::clone(&ran));
            pool.clone().submit(move || {
                begin.wait();
                pool.scope(|scope| {
                    drop(scope.submit(|| ran.store(true, SeqCst)));
                    queued.send(ThreadState::of_this_thread()).unwrap();
                    goes_on.recv_timeout(LONG).unwrap();
                });
            })
        };
        let wait = gate.clone();
        let captured = RunsAtDrop(move || {
            held_up.send(()).unwrap();
            wait.wait();
        });
        let first = pool.submit(move || drop(captured));
        begin.open();
        let worker = is_queued.recv_timeout(LONG).unwrap();
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| pool.cancel_pending());
            // Both are cancelled. The destructor of the first delays the end of the other, and the
            // scope waits for it.
            let destructor_runs = || format!("{first:?}").contains("Cancelling");
            eventually("all is cancelled", destructor_runs);
            eventually("the scope waits", || worker.sleeps());
            assert!(!waits.is_finished());
            gate.open();
            assert_eq!(ending.join().unwrap(), 2);
        });
        let error = waits.join().unwrap_err();
        assert!(error.to_string().contains("did not run"), "{error}");
        assert!(!ran.load(SeqCst));
    });
}

#[test]
fn a_shutdown_that_was_ready_in_a_worker_can_be_joined_outside() {
    within(LONG, "shutdown moved out", || {
        let pool = Arc::new(ThreadPool::new(1));
        let (inside, gate) = (Arc::clone(&pool), Gate::new());
        let (wait, (give, take)) = (gate.clone(), mpsc::channel());
        let job = pool.submit(move || {
            let mut end = inside.shutdown();
            assert!(poll_once(&mut end).is_ready(), "there is no other worker");
            assert!(
                poll_once(&mut end).is_ready(),
                "and stays ready in the worker"
            );
            drop(inside);
            give.send(end).unwrap();
            wait.wait();
        });
        let mut end = take.recv_timeout(LONG).unwrap();
        let (task, waker) = CountingWaker::new();
        assert!(
            poll_with(&mut end, &waker).is_pending(),
            "outside there is another worker"
        );
        gate.open();
        eventually("it is woken", || task.count() == 1);
        end.join();
        job.join().unwrap();
        drop(pool);
    });
}

#[test]
fn thread_locals_of_workers_may_wait_for_each_other() {
    struct Meets(Arc<Barrier>);
    impl Drop for Meets {
        fn drop(&mut self) {
            self.0.wait();
        }
    }
    thread_local! {
        static MEETS: std::cell::Cell<Option<Meets>> = const { std::cell::Cell::new(None) };
    }
    for keep_alive in [None, Some(Duration::from_millis(1))] {
        within(LONG, "thread-locals that meet", move || {
            let builder = ThreadPool::builder().max_workers(3);
            let builder = match keep_alive {
                Some(limit) => builder.keep_alive(limit),
                None => builder,
            };
            let pool = builder.build().unwrap();
            let (inside, at_the_end) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(3)));
            let handles: Vec<_> = (0..3)
                .map(|_| {
                    let (inside, meets) = (Arc::clone(&inside), Meets(Arc::clone(&at_the_end)));
                    pool.submit(move || {
                        MEETS.set(Some(meets));
                        inside.wait();
                    })
                })
                .collect();
            for handle in handles {
                handle.join().unwrap();
            }
            pool.shutdown().join();
        });
    }
}

#[test]
fn threads_that_start_and_exit_do_not_pile_up() {
    // Memory mappings are counted for the whole process.
    child::alone(
        "regressions::threads_that_start_and_exit_do_not_pile_up",
        || {
            let builder = ThreadPool::builder()
                .max_workers(1)
                .keep_alive(Duration::ZERO);
            let pool = builder.thread_name_prefix("churn").build().unwrap();
            let mut most = 0;
            for _ in 0..300 {
                pool.submit(|| ()).join().unwrap();
                eventually("the worker has exited", || pool.metrics().workers == 0);
                most = most.max(threads_named("churn"));
            }
            // A thread that was not joined is no longer listed, but its stack is still mapped:
            // hence the second count.
            assert!(most <= 3, "{most} threads at once");
            let before = mappings();
            for _ in 0..300 {
                pool.submit(|| ()).join().unwrap();
                eventually("the worker has exited", || pool.metrics().workers == 0);
            }
            assert!(
                mappings() < before + 100,
                "{before} mappings of memory, and now {}",
                mappings()
            );
        },
    );
}

#[cfg(target_os = "linux")]
fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .count()
}

#[cfg(not(target_os = "linux"))]
fn mappings() -> usize {
    0
}

#[test]
fn a_job_that_is_just_being_cancelled_starts_no_thread() {
    within(LONG, "idle beside a cancel", || {
        let builder = ThreadPool::builder().max_workers(2);
        let pool = Arc::new(
            builder
                .keep_alive(Duration::from_millis(200))
                .build()
                .unwrap(),
        );
        let blocked = block_workers(&pool, 2);
        let cancelled = pool.submit(|| ());
        let (gate, inside) = (blocked.gate(), Arc::clone(&pool));
        let (tell, told) = mpsc::channel();
        cancelled.add_done_callback(move |_| {
            let queued = inside.metrics().queued;
            gate.open();
            eventually("both workers have exited", || inside.metrics().workers == 0);
            // One worker is enough for sequential jobs, although this cancel is still in progress.
            for _ in 0..10 {
                inside.submit(|| ()).join().unwrap();
            }
            tell.send((queued, inside.metrics().workers)).unwrap();
        });
        assert!(cancelled.cancel());
        assert_eq!(told.recv().unwrap(), (0, 1));
    });
}

#[test]
fn an_error_may_be_formatted_while_it_is_formatted() {
    within(LONG, "display", || {
        struct Nests<'a>(&'a futurepool::JoinError, String);
        impl fmt::Write for Nests<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.1.push_str(text);
                self.1.push_str(&self.0.to_string());
                Ok(())
            }
        }
        let pool = ThreadPool::new(1);
        let error = pool.submit(|| panic!("shown")).join().unwrap_err();
        let mut nests = Nests(&error, String::new());
        write!(nests, "{error}").unwrap();
        assert!(nests.1.contains("shown"));
    });
}

/// A waker that panics when its last clone is dropped, once.
struct PanicsInDrop(AtomicBool);

impl Wake for PanicsInDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        assert!(!self.0.swap(false, SeqCst), "the destructor of a waker");
    }
}

fn panics_in_drop() -> Waker {
    Arc::new(PanicsInDrop(AtomicBool::new(true))).into()
}

#[test]
fn a_waker_whose_destructor_panics_does_no_harm() {
    within(LONG, "destructors of wakers", || {
        let builder = ThreadPool::builder().max_workers(1).queue_capacity(1);
        let pool = builder.build().unwrap();
        let blocked = block_workers(&pool, 1);
        // The waker of a handle: replaced, dropped.
        let mut handle = pool.submit(|| ());
        assert!(poll_with(&mut handle, &panics_in_drop()).is_pending());
        assert!(poll_with(&mut handle, &panics_in_drop()).is_pending());
        // The waker of a waiting submitter: replaced, dropped.
        let mut waits = pool.submit_async(|| ());
        assert!(poll_with(&mut waits, &panics_in_drop()).is_pending());
        assert!(poll_with(&mut waits, &panics_in_drop()).is_pending());
        drop(waits);
        assert!(handle.cancel());
        drop(handle);
        assert!(pool.try_submit(|| ()).is_ok(), "no permit is lost");
        // The waker of a `Shutdown` future: replaced, dropped.
        let mut end = pool.shutdown();
        assert!(poll_with(&mut end, &panics_in_drop()).is_pending());
        assert!(poll_with(&mut end, &panics_in_drop()).is_pending());
        drop(end);
        blocked.release();
        pool.shutdown().join();
    });
}

/// Tells the thread that drops it, and panics.
struct Bomb(mpsc::Sender<std::thread::ThreadId>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.send(std::thread::current().id()).unwrap();
        panic!("the destructor of an initializer");
    }
}

#[test]
fn a_panicking_destructor_of_an_initializer_does_not_come_out_where_the_pool_is_dropped() {
    type Last = fn(ThreadPool, JoinHandle<u32>);
    let lasts: [(&str, Last); 3] = [
        ("the handle", |pool, handle| {
            drop(pool);
            drop(handle);
        }),
        ("the handle, joined", |pool, handle| {
            drop(pool);
            assert_eq!(handle.join().unwrap(), 1);
        }),
        ("the pool", |pool, handle| {
            drop(handle);
            drop(pool);
        }),
    ];
    for (what, drop_all) in lasts {
        within(LONG, what, move || {
            let (tell, told) = mpsc::channel();
            let bomb = Bomb(tell);
            let initializer = move || {
                let _bomb = &bomb;
            };
            let builder = ThreadPool::builder().max_workers(1);
            let pool = builder.initializer(initializer).build().unwrap();
            let handle = pool.submit(|| 1);
            // Its threads are gone, so one of the two is the last to hold it.
            pool.shutdown().join();
            assert!(told.try_recv().is_err());
            drop_all(pool, handle);
            assert_eq!(told.try_recv(), Ok(std::thread::current().id()), "{what}");
        });
    }
}

#[test]
fn a_job_submitted_while_the_last_worker_exits_past_a_tombstone_runs() {
    within(LONG, "tombstones and exits", || {
        let start = Instant::now();
        let mut round = 0_u64;
        while start.elapsed() < Duration::from_secs(2) {
            round += 1;
            let builder = ThreadPool::builder()
                .max_workers(1)
                .keep_alive(Duration::ZERO);
            let pool = builder.build().unwrap();
            pool.submit(|| ()).join().unwrap();
            for _ in 0..round % 300 {
                std::hint::spin_loop();
            }
            for _ in 0..round % 3 {
                pool.submit(|| ()).cancel();
            }
            if round % 2 == 0 {
                assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
            }
            pool.shutdown().join();
        }
    });
}
