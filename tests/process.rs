//! What happens to the process as a whole: a copy that `fork` makes has the pools of the first one, and none of their
//! threads; a job that needs more stack than there is ends it.
#![cfg(unix)]

mod common;

use std::env;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Command};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use common::{LONG, eventually, within};
use fork::{Fork, fork, waitpid_nohang};
use futurepool::{ThreadPool, as_completed};
use futures::StreamExt;
use futures::executor::block_on;

/// Runs `f` in a copy of this process, and says what it returned.
fn in_forked_process(f: impl FnOnce() -> bool) -> bool {
    let child = match fork().unwrap() {
        Fork::Parent(child) => child,
        Fork::Child => {
            // So that it ends in any case.
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
    assert_ne!(status, Some(3), "the forked process hung");
    status == Some(0)
}

#[test]
fn in_a_forked_process_a_pool_can_be_dropped_and_a_new_one_works() {
    within(2 * LONG, "fork", || {
        let pool = ThreadPool::new(2);
        let (go, wait) = channel::<()>();
        let running = pool.submit(move || wait.recv().is_ok());
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
        let mut of_the_child = Some(pool);
        assert!(in_forked_process(|| {
            // One worker of it runs a job in the other process, for as long as that likes.
            of_the_child = None;
            ThreadPool::new(2).submit(|| 40 + 2).join().unwrap() == 42
        }));
        go.send(()).unwrap();
        assert!(running.join().unwrap());
    });
}

#[test]
fn in_a_forked_process_time_limits_of_streams_work() {
    let limit = || {
        let pool = ThreadPool::new(1);
        let (go, wait) = channel::<()>();
        let mut results =
            as_completed([pool.submit(move || wait.recv())]).timeout(Duration::from_millis(20));
        let timed_out = block_on(results.next()).is_some_and(|result| result.is_err());
        drop(go);
        timed_out
    };
    within(2 * LONG, "fork", move || {
        // From now on this process has the thread that watches limits.
        assert!(limit());
        assert!(in_forked_process(limit));
    });
}

/// Needs a stack of some 100 bytes for each level.
fn deep(levels: u64) -> u64 {
    let frame = black_box([levels; 8]);
    match levels {
        0 => 0,
        _ => deep(levels - 1) + frame[0],
    }
}

#[test]
fn a_job_that_needs_more_stack_than_there_is_ends_the_process_and_says_where() {
    const CHILD: &str = "FUTUREPOOL_TEST_OVERFLOW";
    let overflow = || {
        let builder = ThreadPool::builder().thread_name_prefix("deep");
        let pool = builder.stack_size(256 * 1024).build().unwrap();
        pool.submit(|| deep(1 << 30)).join()
    };
    if env::var_os(CHILD).is_some() {
        println!("it ended by {:?}", overflow());
        return;
    }
    let name = "a_job_that_needs_more_stack_than_there_is_ends_the_process_and_says_where";
    let mut child = Command::new(env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture"]).env(CHILD, "1");
    let output = within(LONG, "the child", move || child.output().unwrap());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.signal().is_some(), "{output:?}");
    assert!(message.contains("deep-0"), "{message}");
    assert!(message.contains("overflowed its stack"), "{message}");
}
