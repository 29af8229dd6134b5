//! An idle pool uses no CPU time.

use std::time::Duration;
use std::{fs, thread};

use futurepool::{ProcessPool, task};

use crate::common::child;
use crate::procs::{stat, stat_of};

#[task]
fn nothing() {}

#[task]
fn nested() {
    let pool = ProcessPool::builder().build().unwrap();
    pool.submit(nothing::call()).join().unwrap();
    // It lives as long as the worker.
    std::mem::forget(pool);
}

/// CPU time in clock ticks, and how often the threads of a process have gone to sleep.
fn used(pid: u32) -> (u64, u64) {
    let mut switches = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let of_line = |line: &str| {
            line.strip_prefix("voluntary_ctxt_switches:")?
                .trim()
                .parse::<u64>()
                .ok()
        };
        switches += status.lines().find_map(of_line).unwrap();
    }
    (stat(pid).unwrap().cpu_time, switches)
}

#[test]
fn promise_23_an_idle_pool_uses_no_cpu_time_in_any_process() {
    child::alone(
        "idle::promise_23_an_idle_pool_uses_no_cpu_time_in_any_process",
        || {
            let pool = ProcessPool::builder()
                .max_workers(3)
                .prestart(3)
                .time_limit(Duration::from_secs(1000))
                .memory_limit(1 << 40)
                .keep_alive(Duration::from_secs(1000))
                .build()
                .unwrap();
            for job in [(); 9].map(|()| pool.submit(nothing::call())) {
                job.join().unwrap();
            }
            pool.submit(nested::call()).join().unwrap();
            thread::sleep(Duration::from_millis(500));

            // The thread of the test sleeps; the others are those of the pool.
            let workers: Vec<_> = pool.workers().iter().map(|worker| worker.pid).collect();
            let mut processes = workers.clone();
            processes.extend(workers.iter().flat_map(|pid| crate::procs::children(*pid)));
            assert_eq!(processes.len(), 4, "three and a nested one");
            let parent = || stat_of("/proc/self/stat").unwrap().cpu_time;
            let own = || used(std::process::id());
            let (own_before, parent_before) = (own(), parent());
            let before: Vec<_> = processes.iter().map(|pid| used(*pid)).collect();
            thread::sleep(Duration::from_secs(2));
            let after: Vec<_> = processes.iter().map(|pid| used(*pid)).collect();
            assert_eq!(after, before, "the workers slept");
            let (ticks, switches) = own();
            // The thread of the test reads the files of `/proc` meanwhile, and sleeps once.
            assert!(ticks - own_before.0 <= 2, "{ticks} {own_before:?}");
            assert!(parent() - parent_before <= 2);
            assert!(switches - own_before.1 <= 3, "{switches} {own_before:?}");
        },
    );
}
