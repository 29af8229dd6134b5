//! The pools of worker processes that Rust has, behind one trait.

use std::time::{Duration, Instant};

/// A pool of worker processes.
pub(super) trait Pool: Send + Sync + Sized + 'static {
    const NAME: &'static str;
    /// How many jobs a burst has. Their number is no part of a figure.
    const BURST: u64;
    /// How many items a `map` has.
    const ITEMS: u64;
    type Bytes: Clone;

    /// Starts `workers` workers of this program.
    fn new(workers: usize) -> Self;

    /// Starts one worker of the small program, if the pool can do so.
    fn small() -> Self;

    /// Pins the only worker to a processor.
    fn pin(&self, processor: usize);

    /// Submits a job that does nothing, and waits for it.
    fn empty(&self);

    /// Submits `jobs` jobs that return their numbers, then waits for all. Returns the sum.
    fn burst(&self, jobs: u64) -> u64;

    /// Sends the numbers below `items` through the pool, 64 a job. Returns their sum.
    fn map_numbers(&self, items: u64) -> u64;

    fn bytes(len: usize) -> Self::Bytes;

    /// Sends bytes to a worker, which returns them.
    fn echo(&self, bytes: Self::Bytes) -> Self::Bytes;

    fn same(one: &Self::Bytes, other: &Self::Bytes) -> bool;

    /// Cancels a job that runs. Returns how long it takes until its error is there, and then until
    /// the result of the next job is.
    fn cancel(&self) -> (Duration, Duration);

    /// Runs a job into a time limit. Returns how much later its error is there.
    fn overshoot(&self, limit: Duration) -> Duration;

    /// Returns the time from the submit of a job that kills its worker to the result of the next
    /// job, in the replacement.
    fn crash(&self) -> Duration;

    /// Waits until `workers` workers have started.
    fn start_workers(&self, workers: usize);
}

/// Returns how long `action` takes.
pub(super) fn time(action: impl FnOnce()) -> Duration {
    let start = Instant::now();
    action();
    start.elapsed()
}

/// The duration of a job that is stopped before its end.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// How long a started job runs until it is cancelled.
pub(super) const RUN: Duration = Duration::from_millis(5);
