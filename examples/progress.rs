//! Shows a progress bar while results arrive, with the `indicatif` crate.
//! Run with: `cargo run --example progress`
//!
//! The default style of `indicatif` is a bar and a count, such as `38/100`. A rate or the time left
//! needs a style of your own: see the example `fetch_skus`. The bar is on standard error, and is
//! hidden unless that is a terminal.

use std::error::Error;
use std::thread;
use std::time::Duration;

use futurepool::{ThreadPool, as_completed};
use indicatif::ProgressIterator;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(8);

    // The iterator of `as_completed` knows its length.
    let handles: Vec<_> = (0..100).map(|n| pool.submit(move || download(n))).collect();
    let mut bytes = 0;
    for result in as_completed(handles).into_iter().progress() {
        bytes += result?;
    }
    assert_eq!(bytes, 4_950);

    // A map may end early, so its length is not known: pass it.
    let mut bytes = 0;
    for result in pool.map(0..100, download).into_iter().progress_count(100) {
        bytes += result?;
    }
    assert_eq!(bytes, 4_950);
    Ok(())
}

fn download(n: u64) -> u64 {
    thread::sleep(Duration::from_millis(5));
    n
}
