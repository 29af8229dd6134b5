//! Resolves handles by hand: for a library that calls back, and for an executor of its own.
//! Run with: `cargo run --example promise`

use std::error::Error;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;

use futurepool::{JoinError, JoinHandle, as_completed, promise};

/// A library that calls back from a thread of its own.
fn look_up(name: &'static str, answer: impl FnOnce(Option<usize>) + Send + 'static) {
    thread::spawn(move || answer((name != "nowhere").then_some(name.len())));
}

/// The same with a handle, which can be awaited, joined and combined with other handles.
fn look_up_handle(name: &'static str) -> JoinHandle<usize> {
    let (promise, handle) = promise();
    look_up(name, move |answer| match answer {
        // An error gives the value back: the handle was cancelled.
        Some(length) => drop(promise.complete(length)),
        // A promise that is dropped cancels its job, so no handle waits forever.
        None => drop(promise),
    });
    handle
}

/// Runs a program. Cancelling the handle kills it.
fn run(mut command: Command) -> std::io::Result<JoinHandle<i32>> {
    let (promise, handle) = promise();
    let child = Arc::new(Mutex::new(command.spawn()?));
    promise.set_running();
    let killed = Arc::clone(&child);
    promise.on_cancel(move || killed.lock().is_ok_and(|mut child| child.kill().is_ok()));
    thread::spawn(move || {
        let code = poll_until_exit(&child);
        if promise.cancel_requested() {
            promise.fail(JoinError::cancelled());
        } else {
            let _ = promise.complete(code.unwrap_or(-1));
        }
    });
    Ok(handle)
}

/// Looks at the child now and then, so that the lock is free for a kill in between.
fn poll_until_exit(child: &Mutex<Child>) -> Option<i32> {
    loop {
        if let Ok(Some(status)) = child.lock().ok()?.try_wait() {
            return status.code();
        }
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let names = ["localhost", "example", "nowhere"];
    let answers = as_completed(names.map(|name| look_up_handle(name).tag(name)));
    for (name, length) in answers {
        match length {
            Ok(length) => assert_eq!(length, name.len()),
            Err(error) => assert!(name == "nowhere" && error.is_cancelled()),
        }
    }

    if cfg!(unix) {
        let mut command = Command::new("sleep");
        command.arg("60");
        let handle = run(command)?;
        assert!(handle.cancel(), "the hook kills the program");
        assert!(handle.join().unwrap_err().is_cancelled());
    }
    Ok(())
}
