//! Shows what a map yields when an item panics, and when the time is up.
//! Run with: `cargo run --example map_errors` (it prints a panic)

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{JoinError, ThreadPool};
use futures::StreamExt;

const LIMIT: Duration = Duration::from_millis(300);

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(4);

    // An item that panics is an error in its place. The other results are there.
    let shares = pool.map([5, 0, 2], |people| 100 / people);
    let shares: Vec<_> = shares.into_iter().map(describe).collect();
    assert_eq!(shares, ["20", "panic", "50"]);

    // The results that arrive in time, then one error, then the end. The map cancels its queued
    // jobs and asks the running one to stop.
    let naps = pool.map([1, 1, 60_000, 1], nap).timeout(LIMIT);
    let naps: Vec<_> = naps.into_iter().map(describe).collect();
    assert_eq!(naps, ["1", "1", "timeout"]);

    // The same as a stream. The timeout works in any runtime.
    futurepool::block_on(async {
        let shares = pool.map([5, 0, 2], |people| 100 / people);
        let shares: Vec<_> = shares.map(describe).collect().await;
        assert_eq!(shares, ["20", "panic", "50"]);

        let naps = pool.map([1, 1, 60_000, 1], nap).timeout(LIMIT);
        let naps: Vec<_> = naps.map(describe).collect().await;
        assert_eq!(naps, ["1", "1", "timeout"]);
    });
    Ok(())
}

/// Sleeps, until it is asked to stop: otherwise dropping the pool would wait for a whole minute.
fn nap(milliseconds: u64) -> u64 {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < end && !futurepool::cancel_requested() {
        thread::sleep(Duration::from_millis(1));
    }
    milliseconds
}

fn describe(result: Result<u64, JoinError>) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(error) if error.is_panic() => "panic".to_owned(),
        Err(error) if error.is_timeout() => "timeout".to_owned(),
        Err(error) => error.to_string(),
    }
}
