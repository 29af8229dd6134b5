//! A forked process has copies of its parent's pools, but none of their threads.
//!
//! One test in a binary of its own: if another thread were just starting or ending, the standard
//! library could not start threads in the child process.
#![cfg(unix)]

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
mod common;

use std::panic::{catch_unwind, resume_unwind};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use common::{LONG, eventually, within};
use fork::{Fork, fork, waitpid_nohang};
use futurepool::{ThreadPool, as_completed};
use futures::StreamExt;
use futures::executor::block_on;
use futures::future::pending;

/// Runs `f` in a forked child process and returns what `f` returned.
fn in_forked_process(f: impl FnOnce() -> bool) -> bool {
    let child = match fork().unwrap() {
        Fork::Parent(child) => child,
        Fork::Child => {
            // Ends the child process in any case.
            thread::spawn(|| {
                thread::sleep(LONG / 3);
                process::exit(3);
            });
            process::exit(if f() { 0 } else { 1 });
        }
    };
    let mut status = None;
    eventually("the forked process ends", || {
        status = waitpid_nohang(child).unwrap();
        status.is_some()
    });
    assert_ne!(status, Some(3), "the forked process hangs");
    status == Some(0)
}

#[test]
fn in_a_forked_process_old_pools_can_be_dropped_and_new_pools_work() {
    an_old_pool_can_be_dropped_and_a_new_one_works();
    timeouts_and_nested_joins_work();
}

fn an_old_pool_can_be_dropped_and_a_new_one_works() {
    within(2 * LONG, "fork", || {
        let pool = ThreadPool::new(2);
        let (go, wait) = channel::<()>();
        let running = pool.submit(move || wait.recv().is_ok());
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
        let mut of_the_child = Some(pool);
        assert!(in_forked_process(|| {
            // In the child process, a worker of the old pool counts as running that job forever.
            of_the_child = None;
            ThreadPool::new(2).submit(|| 40 + 2).join().unwrap() == 42
        }));
        go.send(()).unwrap();
        assert!(running.join().unwrap());
    });
}

/// A wait that ends by its timeout.
fn timeout_elapses() -> bool {
    let mut results = as_completed([pending::<()>()]).timeout(Duration::from_millis(1));
    block_on(results.next()).is_some_and(|result| result.is_err())
}

/// Two pools; the jobs of the first wait for jobs of the second.
struct Pools(ThreadPool, Arc<ThreadPool>);

impl Pools {
    fn new() -> Self {
        Self(ThreadPool::new(1), Arc::new(ThreadPool::new(1)))
    }

    fn nested_join(&self) -> bool {
        let inner = Arc::clone(&self.1);
        let job = move || inner.submit(thread::yield_now).join().is_ok();
        self.0.submit(job).join().is_ok_and(|done| done)
    }
}

fn timeouts_and_nested_joins_work() {
    within(4 * LONG, "fork", || {
        // The threads of this process may do anything at the moment of the fork, and hold any
        // locks. But no thread may start or end: that takes a lock of the standard library, which
        // would keep the child process from starting threads.
        let over = AtomicBool::new(false);
        let busy = [Pools::new(), Pools::new()];
        assert!(timeout_elapses() && busy.iter().all(Pools::nested_join));
        let ready = Barrier::new(5);
        thread::scope(|scope| {
            let (over, ready) = (&over, &ready);
            for pools in &busy {
                scope.spawn(move || {
                    ready.wait();
                    while !over.load(SeqCst) {
                        assert!(pools.nested_join());
                    }
                });
                scope.spawn(move || {
                    ready.wait();
                    while !over.load(SeqCst) {
                        assert!(timeout_elapses());
                    }
                });
            }
            ready.wait();
            let in_child = || timeout_elapses() && Pools::new().nested_join();
            let ended = catch_unwind(|| (0..30).all(|_| in_forked_process(in_child)));
            over.store(true, SeqCst);
            assert!(ended.unwrap_or_else(|panic| resume_unwind(panic)));
        });
    });
}
