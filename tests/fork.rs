//! A forked process has copies of its parent's pools, but none of their threads.
//!
//! One test in a binary of its own: if another thread were just starting or ending, the standard
//! library could not start threads in the child process.
#![cfg(unix)]

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
mod common;

use std::process;
use std::sync::mpsc::channel;
use std::thread;

use common::{LONG, eventually, within};
use fork::{Fork, fork, waitpid_nohang};
use futurepool::ThreadPool;

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
fn in_a_forked_process_an_old_pool_can_be_dropped_and_a_new_one_works() {
    within(2 * LONG, "fork", || {
        let (unused, idle, busy) = (ThreadPool::new(2), ThreadPool::new(2), ThreadPool::new(1));
        assert_eq!(idle.submit(|| 1).join().unwrap(), 1);
        let (go, wait) = channel::<()>();
        let (tell, told) = channel();
        let running = busy.submit(move || {
            tell.send(()).unwrap();
            wait.recv().is_ok()
        });
        told.recv_timeout(LONG).unwrap();
        let queued = busy.submit(|| 2);
        let mut of_the_child = Some([unused, idle, busy]);
        assert!(in_forked_process(|| {
            // In the child process, the worker of the busy pool counts as running its job forever.
            of_the_child = None;
            ThreadPool::new(2).submit(|| 40 + 2).join().unwrap() == 42
        }));
        go.send(()).unwrap();
        assert!(running.join().unwrap());
        assert_eq!(queued.join().unwrap(), 2);
    });
}
