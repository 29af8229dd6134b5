//! Tests that need a process of their own: the test binary starts itself again and runs one test
//! there.

use std::env;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use super::{LONG, within};

/// Set in the child process.
const CHILD: &str = "FUTUREPOOL_TEST_CHILD";

pub(crate) fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Runs `f`, the body of `test`, in a child process that runs no other test.
///
/// `test` is the full name of the calling test, as `cargo test -- --list` prints it.
pub(crate) fn alone(test: &str, f: impl FnOnce() + Send + 'static) {
    if is_child() {
        within(LONG, test, f);
    } else {
        run(test);
    }
}

/// Runs `test` in a child process, asserts that it passes there, and returns its stdout and stderr.
pub(crate) fn run(test: &str) -> (String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = output(test);
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(
        status.success() && stdout.contains("1 passed"),
        "{test}: {status}\n{stdout}\n{stderr}"
    );
    (stdout, stderr)
}

/// Returns the command that runs `test` in a child process.
pub(crate) fn command(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        // Also where the test is one that `cargo test` leaves out.
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env(CHILD, "1");
    command
}

/// Runs `test` in a child process, asserts that the process ends within [`LONG`], and returns its
/// output.
pub(crate) fn output(test: &str) -> Output {
    let mut command = command(test);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = child.id();
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(child.wait_with_output()));
    let Ok(output) = receive.recv_timeout(LONG) else {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        panic!("{test}: the child process did not end within {LONG:?}");
    };
    output.unwrap()
}
