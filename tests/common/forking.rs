//! Tests that fork their process.

use std::{process, thread};

use fork::{Fork, fork, waitpid_nohang};

use crate::common::{LONG, eventually};

/// Runs `f` in a forked child process and returns what `f` returned.
pub(crate) fn in_forked_process(f: impl FnOnce() -> bool) -> bool {
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
