//! A forked process has copies of its parent's pools, but none of their threads.
//!
//! One test in a binary of its own: if another thread were just starting or ending, the standard
//! library could not start threads in the child process.
#![cfg(unix)]

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
mod common;
#[path = "common/forking.rs"]
mod forking;

use std::sync::mpsc::channel;

use common::{LONG, within};
use forking::in_forked_process;
use futurepool::ThreadPool;

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
