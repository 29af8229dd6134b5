//! The tasks of futurepool's worker processes, which the two programs share.

use std::thread;
use std::time::Duration;

use futurepool::{Bytes, Tasks, task, tasks};

use crate::placement;

#[task(name = "peers.empty")]
pub(super) fn empty() {}

#[task(name = "peers.identity")]
pub(super) fn identity(number: u64) -> u64 {
    number
}

#[task(name = "peers.echo")]
pub(super) fn echo(bytes: Bytes) -> Bytes {
    bytes
}

#[task(name = "peers.sleep")]
pub(super) fn sleep(duration: Duration) {
    thread::sleep(duration);
}

#[task(name = "peers.crash")]
pub(super) fn crash() {
    std::process::abort();
}

#[task(name = "peers.pin")]
pub(super) fn pin(processor: usize) {
    placement::pin_to(processor);
}

/// Returns all tasks.
pub fn all() -> Tasks {
    tasks![empty, identity, echo, sleep, crash, pin]
}
