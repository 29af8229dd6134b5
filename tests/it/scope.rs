//! Scoped jobs: all of them have ended when the scope returns, in every case.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Context;
use std::thread;

use crate::common::event_log::EventLog;
use crate::common::{
    CountingWaker, Gate, LONG, ThreadState, block_workers, child, eventually, message_of,
    poll_once, poll_with, within,
};
use futurepool::{ScopedJoinHandle, ThreadPool, block_on, cancel_requested};
use futures::StreamExt;
use tracing::Level;

/// Counts its drops.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Counts its drop, and then panics.
struct Fragile<'a>(&'a AtomicUsize);

impl Drop for Fragile<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
        panic!("fragile");
    }
}

#[test]
fn jobs_borrow_and_results_come_back() {
    within(LONG, "borrow", || {
        let pool = ThreadPool::new(2);
        let mut numbers: Vec<u64> = (0..1_000).collect();
        let factor = 3;
        let sums: Vec<u64> = pool.scope(|scope| {
            let job = |chunk: &'static str| chunk;
            assert_eq!(job("x"), "x");
            let submit = |chunk| {
                scope.submit(|| {
                    let chunk: &mut [u64] = chunk;
                    chunk.iter_mut().for_each(|n| *n *= factor);
                    chunk.iter().sum::<u64>()
                })
            };
            let handles: Vec<_> = numbers.chunks_mut(100).map(submit).collect();
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap())
                .collect()
        });
        assert_eq!(sums.iter().sum::<u64>(), 499_500 * 3);
        assert_eq!(numbers[999], 2_997);
        // A result may borrow, too.
        let text = String::from("spam eggs");
        let word = pool.scope(|scope| scope.submit(|| text.split(' ').next()).join().unwrap());
        assert_eq!(word, Some("spam"));
    });
}

#[test]
fn guarantee_11_all_jobs_have_ended_when_the_scope_returns() {
    within(LONG, "ended", || {
        for workers in [1, 4] {
            let pool = ThreadPool::new(workers);
            let ran = AtomicUsize::new(0);
            pool.scope(|scope| {
                for n in 0..100 {
                    let handle = scope.submit(|| {
                        thread::yield_now();
                        ran.fetch_add(1, SeqCst);
                    });
                    match n % 3 {
                        0 => drop(handle),
                        // The handle is leaked, and the scope still waits.
                        1 => mem::forget(handle),
                        _ => handle.join().unwrap(),
                    }
                }
            });
            assert_eq!(ran.load(SeqCst), 100);
        }
    });
}

#[test]
fn guarantee_11_all_jobs_have_ended_when_the_body_panics() {
    within(LONG, "body", || {
        let pool = ThreadPool::new(2);
        let ran = AtomicUsize::new(0);
        let text = message_of(|| {
            pool.scope(|scope| {
                for _ in 0..50 {
                    drop(scope.submit(|| ran.fetch_add(1, SeqCst)));
                }
                // This failure is not the panic that comes out.
                drop(scope.submit(|| panic!("a job")));
                panic!("the body");
            })
        });
        assert_eq!(text, "the body");
        assert_eq!(ran.load(SeqCst), 50);
    });
}

/// Reports that its drop has begun, and then waits for the gate.
struct SlowDrop(Gate, mpsc::Sender<()>);

impl Drop for SlowDrop {
    fn drop(&mut self) {
        self.1.send(()).unwrap();
        self.0.wait();
    }
}

/// Runs a scope whose only job is leaked. When `begun` reports that the slow part has begun, checks
/// that the scope waits for it. Nothing is borrowed, so a scope that does not wait harms only this
/// test.
fn waits_for_a_leaked_job(pool: &Arc<ThreadPool>, cancel: bool) -> thread::Result<()> {
    let gate = Gate::new();
    let ((tell, begun), (asks, asked)) = (mpsc::channel(), mpsc::channel());
    let slow = SlowDrop(gate.clone(), tell);
    let inside = Arc::clone(pool);
    let scope = thread::spawn(move || {
        asks.send(ThreadState::of_this_thread()).unwrap();
        inside.scope(|scope| mem::forget(scope.submit(move || drop(slow))));
    });
    let state = asked.recv_timeout(LONG).unwrap();
    let own = Arc::clone(pool);
    let canceller = cancel.then(|| {
        eventually("it is queued", || pool.metrics().queued == 1);
        thread::spawn(move || own.cancel_pending())
    });
    begun.recv_timeout(LONG).unwrap();
    eventually("the scope waits", || scope.is_finished() || state.sleeps());
    assert!(!scope.is_finished(), "the scope has not waited");
    gate.open();
    if let Some(canceller) = canceller {
        assert_eq!(canceller.join().unwrap(), 1);
    }
    scope.join()
}

#[test]
fn guarantee_11_a_job_whose_handle_was_leaked_has_ended_too() {
    within(LONG, "leaked", || {
        let pool = Arc::new(ThreadPool::new(1));
        waits_for_a_leaked_job(&pool, false).unwrap();
    });
}

#[test]
fn guarantee_11_a_leaked_cancelled_job_is_dropped_when_the_scope_ends() {
    within(LONG, "leaked and cancelled", || {
        let pool = Arc::new(ThreadPool::new(1));
        let blocked = block_workers(&pool, 1);
        let payload = waits_for_a_leaked_job(&pool, true).unwrap_err();
        let text = payload.downcast_ref::<String>().unwrap();
        assert!(text.contains("did not run"), "{text}");
        blocked.release();
    });
}

#[test]
fn a_panic_of_a_job_that_was_not_joined_comes_out_of_the_scope() {
    within(LONG, "panic", || {
        let pool = ThreadPool::new(2);
        let one = message_of(|| pool.scope(|scope| drop(scope.submit(|| panic!("boo")))));
        assert_eq!(one, "boo");
        let many = message_of(|| {
            pool.scope(|scope| {
                let boo = |n| scope.submit(move || panic!("boo {n}"));
                (0..3).for_each(|n| drop(boo(n)));
            });
        });
        assert_eq!(many, "boo 0", "the first that was submitted");
        let leaked =
            message_of(|| pool.scope(|scope| mem::forget(scope.submit(|| panic!("leaked")))));
        assert!(leaked.contains("leaked"), "{leaked}");
        // The pool still works, and counts the panics.
        crate::common::eventually("counted", || pool.metrics().panicked == 5);
        assert_eq!(pool.submit(|| 7).join().unwrap(), 7);
    });
}

#[test]
fn a_panic_of_a_job_that_was_joined_is_only_an_error() {
    within(LONG, "joined", || {
        let pool = ThreadPool::new(1);
        let error = pool.scope(|scope| scope.submit(|| panic!("boo")).join().unwrap_err());
        assert!(error.is_panic());
        assert_eq!(error.into_panic().downcast_ref(), Some(&"boo"));
        // Joined by another job of the scope.
        let seen = pool.scope(|scope| {
            let bad = scope.submit(|| panic!("boo"));
            scope.submit(move || bad.join().is_err()).join().unwrap()
        });
        assert!(seen);
    });
}

#[test]
fn no_work_is_skipped_silently() {
    within(LONG, "skipped", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let dropped = AtomicUsize::new(0);
        let by_pool = message_of(|| {
            pool.scope(|scope| {
                let counted = Counted(&dropped);
                drop(scope.submit(move || drop(counted)));
                assert_eq!(pool.cancel_pending(), 1);
            })
        });
        assert!(by_pool.contains("did not run"), "{by_pool}");
        // A cancel through the job's own handle is intended, and an error seen by a join is not
        // silent.
        pool.scope(|scope| {
            let counted = Counted(&dropped);
            let handle = scope.submit(move || drop(counted));
            assert!(handle.cancel());
            assert!(handle.is_finished());
            assert!(handle.cancel(), "again");
            let counted = Counted(&dropped);
            let handle = scope.submit(move || drop(counted));
            assert_eq!(pool.cancel_pending(), 1);
            assert!(handle.join().unwrap_err().is_cancelled());
        });
        assert_eq!(dropped.load(SeqCst), 3);
        blocked.release();
    });
}

#[test]
fn a_cancel_without_effect_silences_neither_a_skip_nor_a_panic() {
    within(LONG, "excuse", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let text = message_of(|| {
            pool.scope(|scope| {
                let handle = scope.submit(|| ());
                assert_eq!(pool.cancel_pending(), 1);
                assert!(handle.cancel(), "it is cancelled, but not by this");
            });
        });
        assert!(text.contains("did not run"), "{text}");
        blocked.release();
        // A running job is not cancelled; its panic is reported.
        let text = message_of(|| {
            pool.scope(|scope| {
                let (begun, begins) = std::sync::mpsc::channel();
                let handle = scope.submit(move || {
                    begun.send(()).unwrap();
                    while !cancel_requested() {
                        thread::yield_now();
                    }
                    panic!("asked");
                });
                begins.recv_timeout(LONG).unwrap();
                assert!(!handle.cancel());
            });
        });
        assert!(text.contains("asked"), "{text}");
    });
}

#[test]
fn on_a_pool_that_takes_no_jobs_the_join_says_so_or_the_scope() {
    within(LONG, "shut", || {
        let pool = ThreadPool::new(1);
        pool.shutdown();
        let error = pool.scope(|scope| scope.submit(|| ()).join().unwrap_err());
        assert!(error.is_shutdown());
        let text = message_of(|| pool.scope(|scope| drop(scope.submit(|| ()))));
        assert!(text.contains("did not run"), "{text}");
        let broken = ThreadPool::builder()
            .initializer(|| Err("no"))
            .build()
            .unwrap();
        let error = broken.scope(|scope| scope.submit(|| ()).join().unwrap_err());
        assert!(error.is_broken());
    });
}

#[test]
fn guarantee_11_closure_and_result_are_gone_when_the_scope_returns() {
    within(LONG, "gone", || {
        let pool = ThreadPool::new(2);
        for _ in 0..100 {
            let drops = AtomicUsize::new(0);
            let blocked = block_workers(&pool, 1);
            pool.scope(|scope| {
                // Captured, and dropped after the run; returned without a handle; returned and not
                // taken; cancelled.
                let captured = Counted(&drops);
                drop(scope.submit(move || {
                    let _captured = &captured;
                }));
                let returned = Counted(&drops);
                drop(scope.submit(move || returned));
                let late = Counted(&drops);
                let late = scope.submit(move || late);
                while !late.is_finished() {
                    thread::yield_now();
                }
                drop(late);
                let cancelled = Counted(&drops);
                let cancelled = scope.submit(move || drop(cancelled));
                cancelled.cancel();
                assert!(drops.load(SeqCst) >= 2);
            });
            assert_eq!(drops.load(SeqCst), 4);
            blocked.release();
        }
    });
}

#[test]
fn guarantee_11_destructors_that_panic_delay_nothing() {
    within(LONG, "fragile", || {
        let pool = ThreadPool::new(1);
        let drops = AtomicUsize::new(0);
        // In a closure that is cancelled: caught.
        let blocked = block_workers(&pool, 1);
        pool.scope(|scope| {
            let fragile = Fragile(&drops);
            assert!(scope.submit(move || mem::forget(fragile)).cancel());
        });
        blocked.release();
        assert_eq!(drops.load(SeqCst), 1);
        // In a result that no handle takes: caught.
        let gate = Gate::new();
        pool.scope(|scope| {
            let fragile = Fragile(&drops);
            let handle = scope.submit({
                let gate = gate.clone();
                move || {
                    gate.wait();
                    fragile
                }
            });
            drop(handle);
            gate.open();
        });
        pool.scope(|scope| {
            let fragile = Fragile(&drops);
            let handle = scope.submit(move || fragile);
            while !handle.is_finished() {
                thread::yield_now();
            }
            drop(handle);
        });
        assert_eq!(drops.load(SeqCst), 3);
        // In a closure that runs: the panic of the job.
        let error = pool.scope(|scope| {
            let fragile = Fragile(&drops);
            scope.submit(move || drop(fragile)).join().unwrap_err()
        });
        assert!(error.is_panic());
        assert_eq!(drops.load(SeqCst), 4);
    });
}

#[test]
fn a_panic_whose_payload_panics_when_dropped_does_no_harm() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("bomb");
        }
    }
    within(LONG, "bomb", || {
        let pool = ThreadPool::new(1);
        let run = || pool.scope(|scope| drop(scope.submit(|| std::panic::panic_any(Bomb))));
        let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        mem::forget(payload.downcast::<Bomb>().expect("its own payload"));
        let run = || {
            pool.scope(|scope| {
                drop(scope.submit(|| panic!("first")));
                drop(scope.submit(|| std::panic::panic_any(Bomb)));
            })
        };
        assert_eq!(message_of(run), "first");
        let run = || {
            pool.scope(|scope| {
                drop(scope.submit(|| std::panic::panic_any(Bomb)));
                panic!("the body");
            })
        };
        assert_eq!(message_of(run), "the body");
    });
}

#[test]
fn jobs_submit_more_jobs_to_the_same_scope() {
    within(LONG, "more", || {
        for workers in [1, 2, 4] {
            let pool = ThreadPool::new(workers);
            let ran = AtomicUsize::new(0);
            pool.scope(|scope| {
                for _ in 0..10 {
                    drop(scope.submit(|| {
                        for _ in 0..10 {
                            drop(scope.submit(|| {
                                drop(scope.submit(|| ran.fetch_add(1, SeqCst)));
                            }));
                        }
                    }));
                }
            });
            assert_eq!(ran.load(SeqCst), 100);
        }
    });
}

#[test]
fn guarantee_6_scopes_nest_in_jobs_down_to_one_worker() {
    fn count(pool: &ThreadPool, depth: u32) -> usize {
        if depth == 0 {
            return 1;
        }
        let (mut left, mut right) = (0, 0);
        pool.scope(|scope| {
            drop(scope.submit(|| left = count(pool, depth - 1)));
            right = scope.submit(|| count(pool, depth - 1)).join().unwrap();
        });
        left + right
    }
    within(LONG, "nest", || {
        for workers in [1, 2, 3] {
            let pool = Arc::new(ThreadPool::new(workers));
            let inner = Arc::clone(&pool);
            assert_eq!(pool.submit(move || count(&inner, 8)).join().unwrap(), 256);
            assert_eq!(count(&pool, 8), 256);
        }
    });
}

#[test]
fn a_job_submitted_while_the_end_of_the_scope_sleeps_is_run_by_it() {
    within(LONG, "late", || {
        let pool = Arc::new(ThreadPool::new(2));
        let inner = Arc::clone(&pool);
        let ended = pool.submit(move || {
            let asleep = Mutex::new(None);
            let late = AtomicBool::new(false);
            let state = crate::common::ThreadState::of_this_thread();
            let here = thread::current().id();
            inner.scope(|scope| {
                let (begun, begins) = std::sync::mpsc::channel();
                let (asleep, late) = (&asleep, &late);
                drop(scope.submit(move || {
                    begun.send(()).unwrap();
                    crate::common::eventually("the end of the scope sleeps", || state.sleeps());
                    // This worker is busy with its own job until the other one has run.
                    drop(scope.submit(move || {
                        *asleep.lock().unwrap() = Some(thread::current().id());
                        late.store(true, SeqCst);
                    }));
                    crate::common::eventually("it was run", || late.load(SeqCst));
                }));
                begins.recv_timeout(LONG).unwrap();
            });
            asleep.into_inner().unwrap() == Some(here)
        });
        assert!(ended.join().unwrap());
    });
}

#[test]
fn handles_move_between_jobs_and_into_threads() {
    within(LONG, "move", || {
        let pool = ThreadPool::new(2);
        let text = String::from("spam");
        let drops = AtomicUsize::new(0);
        pool.scope(|scope| {
            let one = scope.submit(|| text.len());
            let two = scope.submit(move || one.join().unwrap() + 1);
            let three = thread::scope(|threads| {
                threads
                    .spawn(move || two.join().unwrap() + 1)
                    .join()
                    .unwrap()
            });
            assert_eq!(three, 6);
            // A result that holds a handle, whose result holds the counter.
            let counted = Counted(&drops);
            let nested: ScopedJoinHandle<'_, ScopedJoinHandle<'_, Counted<'_>>> =
                scope.submit(move || scope.submit(move || counted));
            drop(nested);
        });
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn many_scopes_at_once_from_many_threads() {
    within(LONG, "many", || {
        let pool = ThreadPool::builder()
            .max_workers(2)
            .queue_capacity(4)
            .build()
            .unwrap();
        thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for n in 0..200_usize {
                        let mut numbers = vec![n; 8];
                        pool.scope(|scope| {
                            for number in &mut numbers {
                                drop(scope.submit(|| *number += 1));
                            }
                        });
                        assert_eq!(numbers, vec![n + 1; 8]);
                    }
                });
            }
        });
        let metrics = pool.metrics();
        assert_eq!((metrics.submitted, metrics.completed), (6_400, 6_400));
    });
}

#[test]
fn a_scope_and_its_handles_implement_debug() {
    let pool = ThreadPool::new(1);
    let shown = pool.scope(|scope| {
        let handle = scope.submit(|| ());
        let shown = format!("{scope:?} {handle:?}");
        handle.join().unwrap();
        shown
    });
    assert!(shown.contains("unfinished"), "{shown}");
}

#[test]
fn the_payload_of_a_failure_is_the_jobs_own() {
    within(LONG, "payload", || {
        let pool = ThreadPool::new(1);
        let payload = catch_unwind(AssertUnwindSafe(|| {
            pool.scope(|scope| {
                scope.submit(|| std::panic::panic_any(42_u32));
            });
        }));
        assert_eq!(payload.unwrap_err().downcast_ref(), Some(&42_u32));
        // The same through a handle, joined or awaited.
        pool.scope(|scope| {
            let joined = scope.submit(|| std::panic::panic_any(43_u32)).join();
            let payload = joined.unwrap_err().into_panic();
            assert_eq!(payload.downcast_ref(), Some(&43_u32));
            let awaited = block_on(scope.submit(|| std::panic::panic_any(44_u32)));
            let error = awaited.unwrap_err();
            assert_eq!(error.into_panic().downcast_ref(), Some(&44_u32));
        });
        // A leaked handle keeps it from nothing.
        let payload = catch_unwind(AssertUnwindSafe(|| {
            pool.scope(|scope| mem::forget(scope.submit(|| std::panic::panic_any(45_u32))));
        }));
        assert_eq!(payload.unwrap_err().downcast_ref(), Some(&45_u32));
        // The first one is a job that did not run, though others panicked before.
        let blocked = block_workers(&pool, 1);
        let gate = blocked.gate();
        let text = message_of(|| {
            pool.scope(|scope| {
                scope.submit(|| ());
                assert_eq!(pool.cancel_pending(), 1);
                scope.submit(|| panic!("second"));
                gate.open();
            });
        });
        assert!(
            text.contains("did not run") && text.contains("scope.rs:"),
            "{text}"
        );
    });
}

#[test]
fn failures_that_do_not_come_out_are_reported() {
    child::alone("scope::failures_that_do_not_come_out_are_reported", || {
        EventLog::install();
        let pool = ThreadPool::new(1);
        let text = message_of(|| {
            pool.scope(|scope| {
                (0..3).for_each(|n| drop(scope.submit(move || panic!("boo {n}"))));
            });
        });
        assert_eq!(text, "boo 0");
        let shown = |text: &str| {
            EventLog::contains_at(Level::ERROR, &["not joined", &format!("panic=\"{text}\"")])
        };
        assert_eq!(
            [shown("boo 0"), shown("boo 1"), shown("boo 2")],
            [false, true, true]
        );
        let text = message_of(|| {
            pool.scope(|scope| {
                drop(scope.submit(|| panic!("boo 3")));
                panic!("the body");
            });
        });
        assert_eq!(text, "the body");
        assert!(shown("boo 3"));
    });
}

#[test]
fn scoped_handles_are_awaited() {
    within(LONG, "await", || {
        let pool = ThreadPool::new(2);
        let text = String::from("spam");
        let text = text.as_str();
        pool.scope(|scope| {
            let handle = scope.submit(|| text.len());
            assert_eq!(block_on(handle).unwrap(), 4);
            // A poll that is pending takes nothing.
            let gate = Gate::new();
            let opened = gate.clone();
            let mut handle = scope.submit(move || {
                opened.wait();
                text
            });
            assert!(poll_once(&mut handle).is_pending());
            assert!(!handle.is_finished());
            gate.open();
            assert_eq!(block_on(&mut handle).unwrap(), "spam");
            assert!(handle.is_finished());
            assert!(!handle.cancel());
            let again = message_of(|| drop(handle.join()));
            assert!(again.contains("already taken"), "{again}");
            // In several at once.
            let handles = (0..10).map(|n| scope.submit(move || n));
            let sum: Result<Vec<i32>, _> = block_on(futures::future::try_join_all(handles));
            assert_eq!(sum.unwrap().iter().sum::<i32>(), 45);
        });
        // A poll that was not ready leaves the failure to the scope.
        let gate = Gate::new();
        let text = message_of(|| {
            pool.scope(|scope| {
                let mut handle = scope.submit(|| {
                    gate.wait();
                    panic!("late");
                });
                assert!(poll_once(&mut handle).is_pending());
                drop(handle);
                gate.open();
            });
        });
        assert_eq!(text, "late");
    });
}

#[test]
fn a_handle_joined_by_a_destructor_of_its_own_cancelled_job_is_no_failure() {
    struct JoinsItself<'scope>(
        Arc<Mutex<Option<ScopedJoinHandle<'scope, ()>>>>,
        Arc<AtomicBool>,
    );
    impl Drop for JoinsItself<'_> {
        fn drop(&mut self) {
            if let Some(handle) = self.0.lock().unwrap().take() {
                let cancelled = handle.join().is_err_and(|error| error.is_cancelled());
                self.1.store(cancelled, SeqCst);
            }
        }
    }
    within(LONG, "joins itself", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let gate = blocked.gate();
        pool.scope(|scope| {
            let seen = Arc::new(AtomicBool::new(false));
            let slot = Arc::new(Mutex::new(None));
            let guard = JoinsItself(Arc::clone(&slot), Arc::clone(&seen));
            let handle = scope.submit(move || drop(guard));
            *slot.lock().unwrap() = Some(handle);
            assert_eq!(pool.cancel_pending(), 1);
            assert!(seen.load(SeqCst), "the destructor has joined it");
            gate.open();
        });
        blocked.release();
    });
}

#[test]
fn the_result_of_a_scope_that_panics_is_dropped() {
    within(LONG, "result", || {
        let pool = ThreadPool::new(1);
        let drops = AtomicUsize::new(0);
        // Its destructor panics, and must not abort the process.
        let text = message_of(|| {
            let fragile = pool.scope(|scope| {
                scope.submit(|| panic!("a job"));
                Fragile(&drops)
            });
            mem::forget(fragile);
        });
        assert_eq!((text.as_str(), drops.load(SeqCst)), ("a job", 1));
    });
}

#[test]
fn the_global_pool_has_scopes() {
    within(LONG, "global", || {
        let mut numbers = [1, 2, 3];
        let sum = futurepool::global().scope(|scope| {
            for number in &mut numbers {
                scope.submit(|| *number += 1);
            }
            scope.submit(|| 7).join().unwrap()
        });
        assert_eq!((numbers, sum), ([2, 3, 4], 7));
    });
}

#[test]
fn guarantee_3_a_scoped_handle_that_is_dropped_wakes_nothing() {
    let pool = ThreadPool::new(1);
    let (count, waker) = CountingWaker::new();
    pool.scope(|scope| {
        let blocked = block_workers(&pool, 1);
        let mut handle = scope.submit(|| 1);
        assert!(poll_with(&mut handle, &waker).is_pending());
        drop(handle);
        let mut map = scope.map([1], |n| n);
        let mut context = Context::from_waker(&waker);
        assert!(map.poll_next_unpin(&mut context).is_pending());
        drop(map); // this cancels its job, whose end may wake the last poll
        let before = count.count();
        assert_eq!(Arc::strong_count(&count), 2, "only the test has the waker");
        blocked.release();
        pool.wait_idle().join();
        assert_eq!(count.count(), before);
    });
}
