//! A process that is copied by `fork` has the pools of the first one, and none of their threads.
#![cfg(unix)]

mod common;

use std::process;
use std::sync::mpsc::channel;
use std::thread;

use common::{LONG, eventually, within};
use fork::{Fork, fork, waitpid_nohang};
use futurepool::ThreadPool;

#[test]
fn in_a_forked_process_a_pool_can_be_dropped_and_a_new_one_works() {
    within(2 * LONG, "fork", || {
        let pool = ThreadPool::new(2);
        let (go, wait) = channel::<()>();
        let running = pool.submit(move || wait.recv().is_ok());
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
        let child = match fork().unwrap() {
            Fork::Parent(child) => child,
            Fork::Child => {
                // So that it ends in any case.
                thread::spawn(|| {
                    thread::sleep(LONG / 3);
                    process::exit(3);
                });
                // One worker of it runs a job in the other process, for as long as that likes.
                drop(pool);
                let sum = ThreadPool::new(2).submit(|| 40 + 2).join().unwrap();
                process::exit(if sum == 42 { 0 } else { 1 });
            }
        };
        let mut status = None;
        eventually("the forked process ends", || {
            status = waitpid_nohang(child).unwrap();
            status.is_some()
        });
        assert_eq!(
            status,
            Some(0),
            "it hung, or a job of its own pool went wrong"
        );
        go.send(()).unwrap();
        assert!(running.join().unwrap());
    });
}
