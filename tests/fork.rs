//! A process that is copied by `fork` has the pools of the first one, and none of their threads.
#![cfg(unix)]

mod common;

use std::process;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, within};
use fork::{Fork, fork, waitpid_nohang};
use futurepool::ThreadPool;

#[test]
fn in_a_forked_process_a_pool_can_be_dropped_and_a_new_one_works() {
    within(LONG, "fork", || {
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
        let until = Instant::now() + LONG;
        let status = loop {
            if let Some(status) = waitpid_nohang(child).unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "the forked process hangs");
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status, 0);
        go.send(()).unwrap();
        assert!(running.join().unwrap());
    });
}
