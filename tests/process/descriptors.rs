//! A crash leaves nothing behind in the process of the pool.

use std::{fs, process};

use futurepool::{ProcessPool, task};
use rustix::process::{Signal, getpid, kill_process};

use crate::common::{child, eventually};
use crate::procs::{children, stat};

#[task]
fn crash(how: u32) {
    let signal = match how % 4 {
        0 => process::abort(),
        1 => process::exit(3),
        2 => Signal::KILL,
        _ => Signal::SEGV,
    };
    // The handler of the standard library expects that the fault repeats itself.
    loop {
        kill_process(getpid(), signal).unwrap();
    }
}

#[derive(Debug, PartialEq)]
struct Held {
    descriptors: usize,
    threads: usize,
    children: usize,
    zombies: usize,
}

impl Held {
    fn now() -> Self {
        let count = |path| fs::read_dir(path).unwrap().count();
        let children = children(process::id());
        let is_zombie = |pid: &&u32| stat(**pid).is_some_and(|stat| stat.state == 'Z');
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            zombies: children.iter().filter(is_zombie).count(),
            children: children.len(),
        }
    }
}

#[test]
fn promise_10_a_thousand_crashes_leave_no_zombie_and_no_descriptor() {
    let test = "descriptors::promise_10_a_thousand_crashes_leave_no_zombie_and_no_descriptor";
    child::alone(test, || {
        let at_first = Held::now();
        let pool = ProcessPool::builder().max_workers(2).build().unwrap();
        let crash_all = |count| {
            let jobs: Vec<_> = (0..count)
                .map(|how| pool.submit(crash::call(how)))
                .collect();
            for job in jobs {
                assert!(job.join().unwrap_err().is_crashed());
            }
            // Both workers are replaced.
            eventually("all are replaced", || {
                pool.workers().len() == 2 && Held::now().children == 2
            });
            let mut held = Held::now();
            eventually("it is quiet", || {
                let before = std::mem::replace(&mut held, Held::now());
                held.zombies == 0 && before == held
            });
            held
        };
        let before = crash_all(8);
        let after = crash_all(1_000);
        assert_eq!(after, before);
        drop(pool);
        eventually("nothing is left of the pool", || Held::now() == at_first);
    });
}
