//! `set_max_workers`: how many workers exit or start, when, and that no job is left behind.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Gate, LONG, block_workers, eventually, within};
use futurepool::{JoinHandle, ThreadPool, as_completed, block_on};

fn workers(pool: &ThreadPool) -> u64 {
    pool.metrics().workers
}

/// Returns a pool that has this many workers, all of them idle.
fn idle_pool(workers: usize) -> ThreadPool {
    let pool = ThreadPool::new(workers);
    block_workers(&pool, workers).release();
    assert_eq!(pool.metrics().workers, workers as u64);
    pool
}

/// Runs a job on each of `n` workers at the same time, and returns the names of their threads.
fn names_of(pool: &ThreadPool, n: usize) -> BTreeSet<String> {
    let barrier = Arc::new(Barrier::new(n));
    let jobs: Vec<_> = (0..n)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            pool.submit(move || {
                barrier.wait();
                thread::current().name().unwrap().to_owned()
            })
        })
        .collect();
    jobs.into_iter().map(|job| job.join().unwrap()).collect()
}

#[test]
#[should_panic(expected = "set_max_workers: a pool needs at least 1 worker, not 0")]
fn no_worker_at_all_is_refused() {
    let _ = ThreadPool::new(1).set_max_workers(0);
}

#[test]
fn the_new_maximum_shows_at_once() {
    let pool = ThreadPool::new(2);
    for max_workers in [7, 1, 3] {
        pool.set_max_workers(max_workers).unwrap();
        assert_eq!(pool.max_workers(), max_workers);
        assert_eq!(workers(&pool), 0);
    }
}

#[test]
fn idle_workers_exit_at_once_and_no_more_than_must() {
    within(LONG, "idle workers exit", || {
        let pool = idle_pool(6);
        pool.set_max_workers(2).unwrap();
        eventually("four have exited", || workers(&pool) == 2);
        // The others stay, and there is room for no third job.
        let blocked = block_workers(&pool, 2);
        let queued = pool.submit(|| ());
        assert_eq!((workers(&pool), pool.metrics().queued), (2, 1));
        blocked.release();
        queued.join().unwrap();
        assert_eq!((workers(&pool), pool.metrics().peak_workers), (2, 6));
    });
}

#[test]
fn busy_workers_exit_after_their_job_and_before_the_next_one() {
    within(LONG, "busy workers exit", || {
        let pool = ThreadPool::new(4);
        let blocked = block_workers(&pool, 4);
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let jobs: Vec<_> = (0..200)
            .map(|_| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                pool.submit(move || {
                    most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, SeqCst);
                })
            })
            .collect();
        pool.set_max_workers(1).unwrap();
        assert_eq!(workers(&pool), 4, "they are in their jobs");
        blocked.release();
        for job in jobs {
            job.join().unwrap();
        }
        assert_eq!(most.load(SeqCst), 1);
        eventually("three have exited", || workers(&pool) == 1);
    });
}

#[test]
fn idle_workers_exit_first() {
    within(LONG, "idle workers exit first", || {
        let pool = idle_pool(4);
        let blocked = block_workers(&pool, 2);
        pool.set_max_workers(2).unwrap();
        // While the others are in their jobs.
        eventually("the idle ones have exited", || workers(&pool) == 2);
        blocked.release();
        assert_eq!(names_of(&pool, 2).len(), 2);
    });
}

#[test]
fn more_workers_start_at_once_for_what_is_queued() {
    within(LONG, "workers start", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let gate = Gate::new();
        let jobs: Vec<_> = (0..3)
            .map(|_| {
                let gate = gate.clone();
                pool.submit(move || gate.wait())
            })
            .collect();
        assert_eq!(workers(&pool), 1);
        pool.set_max_workers(9).unwrap();
        // One for each job, and no more.
        assert_eq!(workers(&pool), 4);
        eventually("all run", || pool.metrics().running == 4);
        gate.open();
        for job in jobs {
            job.join().unwrap();
        }
        blocked.release();
        assert_eq!(pool.metrics().peak_workers, 4);
    });
}

#[test]
fn a_higher_maximum_alone_starts_no_worker() {
    within(LONG, "no worker", || {
        let pool = idle_pool(1);
        pool.set_max_workers(5).unwrap();
        assert_eq!(workers(&pool), 1);
        pool.prestart(4);
        assert_eq!(workers(&pool), 4);
        pool.set_max_workers(3).unwrap();
        pool.prestart(4);
        eventually("one has exited", || workers(&pool) == 3);
        pool.prestart(4);
        assert_eq!(workers(&pool), 3);
    });
}

#[test]
fn names_stay_dense() {
    within(LONG, "names", || {
        let builder = ThreadPool::builder().max_workers(5);
        let pool = builder.thread_name_prefix("dense").build().unwrap();
        assert_eq!(names_of(&pool, 5).len(), 5);
        pool.set_max_workers(2).unwrap();
        eventually("three have exited", || workers(&pool) == 2);
        let left = names_of(&pool, 2);
        pool.set_max_workers(6).unwrap();
        let all = names_of(&pool, 6);
        let wanted: BTreeSet<_> = (0..6).map(|n| format!("dense-{n}")).collect();
        assert_eq!(all, wanted);
        assert!(left.is_subset(&all));
    });
}

#[test]
fn a_surplus_worker_runs_its_exit_hook_and_its_destructors() {
    struct Told(mpsc::Sender<&'static str>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send("destructor");
        }
    }
    thread_local! {
        static TOLD: Cell<Option<Told>> = const { Cell::new(None) };
    }
    within(LONG, "a hook and a destructor", || {
        let (tell, told) = mpsc::channel();
        let hook = tell.clone();
        let builder = ThreadPool::builder().max_workers(2);
        let builder = builder.on_exit(move || hook.send("hook").unwrap());
        let pool = builder.build().unwrap();
        let both = Arc::new(Barrier::new(2));
        let jobs = [(); 2].map(|()| {
            let (tell, both) = (tell.clone(), Arc::clone(&both));
            pool.submit(move || {
                TOLD.set(Some(Told(tell)));
                both.wait();
            })
        });
        for job in jobs {
            job.join().unwrap();
        }
        pool.set_max_workers(1).unwrap();
        let mut wanted = [(); 2].map(|()| told.recv_timeout(LONG).unwrap());
        wanted.sort_unstable();
        assert_eq!(wanted, ["destructor", "hook"]);
        eventually("one is left", || workers(&pool) == 1);
        assert!(told.try_recv().is_err(), "the other one stays");
    });
}

#[test]
fn workers_that_wait_for_each_other_go_on_below_a_lower_maximum() {
    within(LONG, "joins go on", || {
        /// Waits for a queued job, which waits for three others, whichever ends first.
        fn nested(pool: &Arc<ThreadPool>) -> usize {
            let inner_pool = Arc::clone(pool);
            let inner = pool.submit(move || {
                let mut leaves = as_completed([(); 3].map(|()| inner_pool.submit(|| 1)));
                let outputs = std::iter::from_fn(|| leaves.wait_next());
                outputs.map(Result::unwrap).sum()
            });
            inner.join().unwrap()
        }
        let pool = Arc::new(ThreadPool::new(4));
        let (arrived, gate) = (Arc::new(Barrier::new(5)), Gate::new());
        let jobs: Vec<_> = (0..4)
            .map(|_| {
                let (nested_in, arrived) = (Arc::clone(&pool), Arc::clone(&arrived));
                let gate = gate.clone();
                pool.submit(move || {
                    arrived.wait();
                    gate.wait();
                    nested(&nested_in)
                })
            })
            .collect();
        arrived.wait();
        pool.set_max_workers(1).unwrap();
        gate.open();
        for job in jobs {
            assert_eq!(job.join().unwrap(), 3);
        }
        eventually("one is left", || workers(&pool) == 1);
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
    });
}

#[test]
fn a_blocked_worker_is_probed_when_the_last_free_one_exits_as_surplus() {
    within(LONG, "a probe after an exit", || {
        let pool = Arc::new(ThreadPool::new(2));
        let free = block_workers(&pool, 1);
        let (tell, told) = mpsc::channel::<JoinHandle<u32>>();
        // It waits for a queued job, and only a probe tells it that it must run the job itself.
        let waits = pool.submit(move || {
            let handle = told.recv_timeout(LONG).unwrap();
            block_on(handle).unwrap()
        });
        eventually("both run", || pool.metrics().running == 2);
        tell.send(pool.submit(|| 7)).unwrap();
        pool.set_max_workers(1).unwrap();
        free.release();
        assert_eq!(waits.join().unwrap(), 7);
        eventually("one is left", || workers(&pool) == 1);
    });
}

#[test]
fn after_a_shutdown_the_queued_jobs_still_feel_it() {
    within(LONG, "a shutdown", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let barrier = Arc::new(Barrier::new(3));
        let jobs = [(); 3].map(|()| {
            let barrier = Arc::clone(&barrier);
            pool.submit(move || barrier.wait())
        });
        let shutdown = pool.shutdown();
        // They need a worker each.
        pool.set_max_workers(4).unwrap();
        for job in jobs {
            job.join().unwrap();
        }
        blocked.release();
        shutdown.join();
        pool.set_max_workers(2).unwrap();
        assert_eq!((pool.max_workers(), workers(&pool)), (2, 0));
    });
}

#[test]
fn a_broken_pool_starts_no_worker() {
    within(LONG, "a broken pool", || {
        let builder = ThreadPool::builder().max_workers(1);
        let pool = builder.initializer(|| panic!("no")).build().unwrap();
        assert!(pool.submit(|| ()).join().unwrap_err().is_broken());
        eventually("its worker has exited", || workers(&pool) == 0);
        pool.set_max_workers(5).unwrap();
        assert_eq!((pool.max_workers(), workers(&pool)), (5, 0));
    });
}

#[test]
fn keep_alive_and_surplus_exits_together_leave_no_job_behind() {
    within(LONG, "keep_alive and surplus", || {
        let builder = ThreadPool::builder().max_workers(4);
        let pool = builder.keep_alive(Duration::ZERO).build().unwrap();
        let start = Instant::now();
        let mut round = 0;
        while start.elapsed() < Duration::from_secs(1) {
            round += 1;
            let jobs: Vec<_> = (0..4).map(|n| pool.submit(move || n)).collect();
            pool.set_max_workers(1 + round % 4).unwrap();
            for (n, job) in jobs.into_iter().enumerate() {
                assert_eq!(job.join().unwrap(), n);
            }
        }
    });
}

#[test]
fn resizing_from_several_threads_under_load_loses_no_job_and_ends_at_the_last_maximum() {
    within(LONG, "resizing under load", || {
        let pool = Arc::new(ThreadPool::new(4));
        let done = Arc::new(AtomicBool::new(false));
        let resizers: Vec<_> = (0..2)
            .map(|seed| {
                let (pool, done) = (Arc::clone(&pool), Arc::clone(&done));
                thread::spawn(move || {
                    let mut n: usize = seed;
                    while !done.load(SeqCst) {
                        n = n.wrapping_mul(31).wrapping_add(7);
                        pool.set_max_workers(1 + n % 8).unwrap();
                    }
                })
            })
            .collect();
        let start = Instant::now();
        let mut sum = 0;
        while start.elapsed() < Duration::from_secs(1) {
            let jobs: Vec<_> = (0..50)
                .map(|_| {
                    let pool_ = Arc::clone(&pool);
                    pool.submit(move || pool_.submit(|| 1).join().unwrap() + 1)
                })
                .collect();
            sum += jobs
                .into_iter()
                .map(|job| job.join().unwrap())
                .sum::<usize>();
        }
        assert!(sum > 0 && sum % 100 == 0);
        done.store(true, SeqCst);
        for resizer in resizers {
            resizer.join().unwrap();
        }
        assert!(pool.metrics().peak_workers <= 8);
        pool.set_max_workers(3).unwrap();
        assert_eq!(names_of(&pool, 3).len(), 3);
        eventually("three are left", || workers(&pool) == 3);
        pool.set_max_workers(1).unwrap();
        eventually("one is left", || workers(&pool) == 1);
    });
}

#[test]
fn every_worker_that_is_left_is_used() {
    within(LONG, "barriers between resizes", || {
        let pool = ThreadPool::new(4);
        let start = Instant::now();
        let mut round = 0_usize;
        while start.elapsed() < Duration::from_secs(1) {
            round += 1;
            let size = 1 + round % 4;
            pool.set_max_workers(size).unwrap();
            // A worker that was not woken, or not started, would block all others.
            assert_eq!(names_of(&pool, size).len(), size);
        }
    });
}
