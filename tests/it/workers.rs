//! How many threads there are, their names, when they start and exit, and in which order they take
//! jobs.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Gate, LONG, block_workers, child, eventually, threads_named, within};
use futurepool::{ThreadPool, block_on};

fn name_of_this_thread() -> String {
    thread::current().name().expect("a name").to_owned()
}

#[test]
fn the_default_size_is_that_of_python() {
    let processors = thread::available_parallelism().unwrap().get();
    let size = (processors + 4).min(32);
    assert_eq!(ThreadPool::default().max_workers(), size);
    assert_eq!(ThreadPool::builder().build().unwrap().max_workers(), size);
}

#[test]
fn no_thread_is_started_before_the_first_job() {
    let pool = ThreadPool::new(3);
    assert_eq!(pool.metrics().workers, 0);
}

#[test]
fn submit_and_join_in_a_loop_uses_one_thread() {
    within(LONG, "one thread", || {
        let pool = ThreadPool::new(4);
        let mut ids = BTreeSet::new();
        for _ in 0..2_000 {
            ids.insert(format!(
                "{:?}",
                pool.submit(|| thread::current().id()).join().unwrap()
            ));
            let metrics = pool.metrics();
            assert_eq!((metrics.workers, metrics.idle, metrics.running), (1, 1, 0));
        }
        for _ in 0..2_000 {
            ids.insert(format!(
                "{:?}",
                block_on(pool.submit(|| thread::current().id())).unwrap()
            ));
        }
        assert_eq!(ids.len(), 1, "{ids:?}");
    });
}

#[test]
fn a_job_is_counted_and_its_worker_idle_before_the_result_is_visible() {
    within(LONG, "counted first", || {
        let pool = ThreadPool::new(2);
        for jobs in 1..=20_000 {
            let handle = pool.submit(|| ());
            while !handle.is_finished() {
                std::hint::spin_loop();
            }
            let metrics = pool.metrics();
            assert_eq!((metrics.completed, metrics.running), (jobs, 0));
        }
        assert_eq!(pool.metrics().workers, 1);
    });
}

#[test]
fn there_are_as_many_threads_as_running_jobs_and_at_most_max_workers() {
    within(LONG, "saturation", || {
        let pool = ThreadPool::new(4);
        let gate = Gate::new();
        let handles: Vec<_> = (0..60)
            .map(|i: u64| {
                let gate = gate.clone();
                let handle = pool.submit(move || gate.wait());
                // Immediately, not some time later.
                assert_eq!(pool.metrics().workers, (i + 1).min(4));
                handle
            })
            .collect();
        eventually("four run", || pool.metrics().running == 4);
        let metrics = pool.metrics();
        assert_eq!((metrics.workers, metrics.idle, metrics.queued), (4, 0, 56));
        gate.open();
        for handle in handles {
            handle.join().unwrap();
        }
        assert_eq!(pool.metrics().workers, 4);
    });
}

#[test]
fn a_job_goes_to_an_idle_worker_before_a_thread_is_started() {
    within(LONG, "idle first", || {
        let pool = ThreadPool::new(8);
        block_workers(&pool, 3).release();
        assert_eq!(pool.metrics().workers, 3);
        for _ in 0..200 {
            let barrier = Arc::new(Barrier::new(3));
            let handles: Vec<_> = (0..3)
                .map(|_| {
                    let barrier = Arc::clone(&barrier);
                    pool.submit(move || barrier.wait())
                })
                .collect();
            for handle in handles {
                handle.join().unwrap();
            }
        }
        assert_eq!(pool.metrics().workers, 3);
    });
}

#[test]
fn every_free_worker_is_used() {
    within(LONG, "barriers", || {
        // Each round needs all workers at the same time: a worker that was not woken would block
        // all others.
        for workers in [2, 3, 8] {
            let pool = ThreadPool::new(workers);
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(1) {
                let barrier = Arc::new(Barrier::new(workers));
                let handles: Vec<_> = (0..workers)
                    .map(|_| {
                        let barrier = Arc::clone(&barrier);
                        pool.submit(move || barrier.wait())
                    })
                    .collect();
                for handle in handles {
                    handle.join().unwrap();
                }
            }
            assert_eq!(pool.metrics().workers, workers as u64);
        }
    });
}

#[test]
fn jobs_start_in_the_order_in_which_they_were_submitted() {
    within(LONG, "FIFO", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let handles: Vec<_> = (0..10_000)
            .map(|i| {
                let order = Arc::clone(&order);
                pool.submit(move || order.lock().unwrap().push(i))
            })
            .collect();
        // Cancelling most of them compacts the queue, again and again; the remaining jobs keep
        // their order.
        for (i, handle) in handles.iter().enumerate() {
            assert!(i % 7 == 0 || handle.cancel());
        }
        let more = pool.submit({
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(10_000)
        });
        blocked.release();
        more.join().unwrap();
        let wanted: Vec<_> = (0..10_000).step_by(7).chain([10_000]).collect();
        assert_eq!(*order.lock().unwrap(), wanted);
    });
}

#[test]
fn jobs_keep_their_order_while_others_are_cancelled_and_submitted() {
    within(LONG, "FIFO under compaction", || {
        let pool = Arc::new(ThreadPool::new(1));
        for _ in 0..30 {
            let order = Arc::new(Mutex::new(Vec::new()));
            let (give, doomed) = mpsc::channel::<futurepool::JoinHandle<()>>();
            let canceller = thread::spawn(move || {
                for handle in doomed {
                    handle.cancel();
                }
            });
            let kept: Vec<_> = (0..300)
                .map(|i| {
                    for _ in 0..5 {
                        give.send(pool.submit(|| ())).unwrap();
                    }
                    let order = Arc::clone(&order);
                    pool.submit(move || order.lock().unwrap().push(i))
                })
                .collect();
            for handle in kept {
                handle.join().unwrap();
            }
            drop(give);
            canceller.join().unwrap();
            assert!(order.lock().unwrap().iter().copied().eq(0..300));
        }
    });
}

#[test]
fn threads_are_named_by_prefix_and_number() {
    within(LONG, "names", || {
        let builder = ThreadPool::builder().thread_name_prefix("hash");
        let pool = builder.max_workers(3).build().unwrap();
        let barrier = Arc::new(Barrier::new(3));
        let names: BTreeSet<_> = (0..3)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                pool.submit(move || {
                    barrier.wait();
                    name_of_this_thread()
                })
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .collect();
        assert!(
            names
                .iter()
                .map(String::as_str)
                .eq(["hash-0", "hash-1", "hash-2"])
        );
    });
}

#[test]
fn default_names_are_unique_for_each_pool() {
    within(LONG, "default names", || {
        let name = || {
            let pool = ThreadPool::new(1);
            pool.submit(name_of_this_thread).join().unwrap()
        };
        let (one, other) = (name(), name());
        assert_ne!(one, other);
        assert!(
            one.ends_with("-0") && other.ends_with("-0"),
            "{one} {other}"
        );
    });
}

#[test]
fn idle_workers_exit_after_keep_alive_and_new_workers_start_when_needed() {
    within(LONG, "keep_alive", || {
        let pool = ThreadPool::builder()
            .max_workers(4)
            .thread_name_prefix("brief")
            .keep_alive(Duration::from_millis(20))
            .build()
            .unwrap();
        for _ in 0..3 {
            block_workers(&pool, 4).release();
            eventually("all workers have exited", || pool.metrics().workers == 0);
            assert_eq!(pool.metrics().idle, 0);
        }
        // The numbers of exited workers are reused.
        assert_eq!(pool.submit(name_of_this_thread).join().unwrap(), "brief-0");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_burst_leaves_no_thread_behind_after_the_keep_alive() {
    within(LONG, "after a burst", || {
        let keep_alive = Duration::from_secs(1);
        let pool = ThreadPool::builder()
            .max_workers(32)
            .thread_name_prefix("fleeting")
            .keep_alive(keep_alive)
            .build()
            .unwrap();
        let handles: Vec<_> = (0..10_000).map(|n| pool.submit(move || n)).collect();
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), n);
        }
        let since = Instant::now();
        assert!(threads_named("fleeting") > 0);
        eventually("no thread is left", || threads_named("fleeting") == 0);
        println!("no thread left after {:?}", since.elapsed());
        assert_eq!(pool.metrics().workers, 0);
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
    });
}

#[test]
fn by_default_idle_workers_stay() {
    within(LONG, "staying", || {
        let pool = ThreadPool::new(2);
        block_workers(&pool, 2).release();
        thread::sleep(Duration::from_millis(200));
        assert_eq!(pool.metrics().workers, 2);
    });
}

#[test]
fn a_job_submitted_while_the_last_worker_exits_is_not_left_behind() {
    for keep_alive in [Duration::ZERO, Duration::from_micros(30)] {
        within(LONG, "leaving and coming", move || {
            let pool = ThreadPool::builder()
                .max_workers(2)
                .keep_alive(keep_alive)
                .build()
                .unwrap();
            for i in 0..3_000 {
                assert_eq!(pool.submit(move || i).join().unwrap(), i);
            }
        });
    }
}

#[test]
fn the_initializer_runs_once_in_each_worker_before_its_first_job() {
    thread_local! {
        static READY: Cell<u32> = const { Cell::new(0) };
    }
    within(LONG, "initializer", || {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let pool = ThreadPool::builder()
            .max_workers(3)
            .initializer(move || {
                counted.fetch_add(1, SeqCst);
                READY.set(READY.get() + 1);
                Ok::<(), io::Error>(())
            })
            .build()
            .unwrap();
        assert_eq!(runs.load(SeqCst), 0, "not at build");
        block_workers(&pool, 3).release();
        for _ in 0..30 {
            assert_eq!(pool.submit(|| READY.get()).join().unwrap(), 1);
        }
        assert_eq!(runs.load(SeqCst), 3);
    });
}

#[test]
fn the_stack_size_is_what_was_asked_for() {
    within(LONG, "stack", || {
        #[inline(never)]
        fn deep(levels: usize) -> usize {
            let page = std::hint::black_box([levels as u8; 4096]);
            match levels {
                0 => 0,
                _ => deep(levels - 1) + usize::from(page[0] == levels as u8),
            }
        }
        // Some 40 MiB of stack, which is more than any default.
        let builder = ThreadPool::builder().max_workers(1);
        let pool = builder.stack_size(128 * 1024 * 1024).build().unwrap();
        assert_eq!(pool.submit(|| deep(10_000)).join().unwrap(), 10_000);
    });
}

#[test]
fn invalid_options_are_rejected_by_name() {
    let wrong = [
        ("max_workers", ThreadPool::builder().max_workers(0)),
        ("queue_capacity", ThreadPool::builder().queue_capacity(0)),
        ("stack_size", ThreadPool::builder().stack_size(0)),
        ("stack_size", ThreadPool::builder().stack_size(usize::MAX)),
        (
            "thread_name_prefix",
            ThreadPool::builder().thread_name_prefix("a\0b"),
        ),
    ];
    for (field, builder) in wrong {
        let error = builder.build().unwrap_err();
        assert_eq!(error.field(), field);
        assert!(error.to_string().starts_with(field), "{error}");
    }
}

#[test]
#[should_panic(expected = "max_workers: a pool needs at least 1 worker, not 0")]
fn a_pool_of_no_workers_panics() {
    let _ = ThreadPool::new(0);
}

#[test]
fn a_worker_in_a_slow_waker_does_not_delay_a_job() {
    within(LONG, "slow waker", || {
        struct Slow(Gate, mpsc::Sender<()>);
        impl std::task::Wake for Slow {
            fn wake(self: Arc<Self>) {
                self.1.send(()).unwrap();
                self.0.wait();
            }
        }
        let pool = ThreadPool::new(2);
        for round in 0..2 {
            let (gate, (tell, told)) = (Gate::new(), mpsc::channel());
            let waker = Arc::new(Slow(gate.clone(), tell)).into();
            let blocked = (round == 0).then(|| block_workers(&pool, 1));
            let start = Gate::new();
            let wait = start.clone();
            let mut handle = pool.submit(move || wait.wait());
            assert!(crate::common::poll_with(&mut handle, &waker).is_pending());
            drop(blocked);
            start.open();
            told.recv_timeout(LONG).unwrap();
            // One of two workers is in the waker; the other one, or a new one, runs these jobs.
            for i in 0..50 {
                assert_eq!(pool.submit(move || i).join().unwrap(), i);
            }
            gate.open();
            handle.join().unwrap();
        }
    });
}

#[test]
fn metrics_add_up_whatever_happened() {
    within(LONG, "metrics", || {
        let pool = ThreadPool::builder()
            .max_workers(2)
            .queue_capacity(10)
            .build()
            .unwrap();
        let blocked = block_workers(&pool, 2);
        let queued: Vec<_> = (0..10).map(|_| pool.submit(|| ())).collect();
        assert!(pool.try_submit(|| ()).unwrap_err().is_full());
        assert!(queued[0].cancel() && queued[5].cancel());
        let metrics = pool.metrics();
        assert_eq!(
            (metrics.submitted, metrics.queued, metrics.running),
            (12, 8, 2)
        );
        assert_eq!((metrics.workers, metrics.idle), (2, 0));
        assert_eq!((metrics.cancelled, metrics.rejected), (2, 1));
        blocked.release();
        assert!(
            pool.submit(|| panic!("counted"))
                .join()
                .unwrap_err()
                .is_panic()
        );
        let last = pool.shutdown();
        last.join();
        assert!(pool.submit(|| ()).join().unwrap_err().is_shutdown());
        let metrics = pool.metrics();
        assert_eq!((metrics.submitted, metrics.completed), (13, 10));
        assert_eq!(
            (metrics.panicked, metrics.cancelled, metrics.rejected),
            (1, 2, 2)
        );
        assert_eq!(
            (
                metrics.queued,
                metrics.running,
                metrics.workers,
                metrics.idle
            ),
            (0, 0, 0, 0)
        );
    });
}

#[test]
fn the_global_pool_has_the_default_size_and_no_runtime() {
    // No other test may use the global pool before or at the same time.
    child::alone(
        "workers::the_global_pool_has_the_default_size_and_no_runtime",
        || {
            // The pool is created here, where a runtime is current.
            #[cfg(feature = "tokio")]
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            #[cfg(feature = "tokio")]
            let _entered = runtime.enter();
            assert_eq!(futurepool::submit(|| 1).join().unwrap(), 1);
            #[cfg(feature = "tokio")]
            {
                let in_runtime = || tokio::runtime::Handle::try_current().is_ok();
                assert!(!futurepool::submit(in_runtime).join().unwrap());
            }
            assert_eq!(block_on(futurepool::global().submit(|| 2)).unwrap(), 2);
            assert!(futurepool::global().metrics().submitted >= 2);
            assert_eq!(
                futurepool::submit(name_of_this_thread).join().unwrap()[..7],
                *"global-"
            );
            let processors = thread::available_parallelism().unwrap().get();
            let size = (processors + 4).min(32);
            let gate = Gate::new();
            let hold = |_| {
                let gate = gate.clone();
                futurepool::submit(move || gate.wait())
            };
            let held: Vec<_> = (0..=size).map(hold).collect();
            let running = || futurepool::global().metrics().running;
            eventually("all workers are busy", || running() >= size as u64);
            let metrics = futurepool::global().metrics();
            assert_eq!((metrics.workers, metrics.queued), (size as u64, 1));
            gate.open();
            for handle in held {
                handle.join().unwrap();
            }
        },
    );
}

/// Needs about 100 bytes of stack per level.
#[cfg(unix)]
fn deep(levels: u64) -> u64 {
    let frame = std::hint::black_box([levels; 8]);
    match levels {
        0 => 0,
        _ => deep(levels - 1) + frame[0],
    }
}

#[test]
#[cfg(unix)]
fn a_stack_overflow_in_a_job_ends_the_process_and_names_the_thread() {
    let overflow = || {
        let builder = ThreadPool::builder().thread_name_prefix("deep");
        let pool = builder.stack_size(256 * 1024).build().unwrap();
        pool.submit(|| deep(1 << 30)).join()
    };
    if child::is_child() {
        println!("it ended with {:?}", overflow());
        return;
    }
    let output =
        child::output("workers::a_stack_overflow_in_a_job_ends_the_process_and_names_the_thread");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        std::os::unix::process::ExitStatusExt::signal(&output.status).is_some(),
        "{output:?}"
    );
    assert!(message.contains("deep-0"), "{message}");
    assert!(message.contains("overflowed its stack"), "{message}");
}
