//! Takes the results that arrive in time, then gives up the other jobs.
//! Run with: `cargo run --example as_completed_timeout`

use std::error::Error;
use std::thread;
use std::time::Duration;

use futurepool::{JoinHandle, Tagged, ThreadPool, as_completed};
use futures::StreamExt;

const LIMIT: Duration = Duration::from_millis(300);

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(4);
    assert_eq!(blocking(&pool)?, ["near"]);
    assert_eq!(futurepool::block_on(asynchronous(&pool))?, ["near"]);
    Ok(())
}

fn blocking(pool: &ThreadPool) -> Result<Vec<&'static str>, Box<dyn Error>> {
    let mut answered = Vec::new();
    let mut answers = as_completed(ask_all(pool)).timeout(LIMIT);
    // Each item is a `Result`: the results that arrive in time, then one error, then the end.
    while let Some(item) = answers.wait_next() {
        match item {
            Ok((server, answer)) => answered.push(answer.map(|_| server)?),
            Err(error) => {
                println!("{error}");
                assert_eq!((error.pending(), error.total()), (2, 3));
            }
        }
    }
    // Dropping the stream would detach the other jobs. Cancelling asks them to stop.
    for handle in answers.into_pending() {
        println!("no answer from {}", handle.key());
        handle.get_ref().cancel();
    }
    Ok(answered)
}

async fn asynchronous(pool: &ThreadPool) -> Result<Vec<&'static str>, Box<dyn Error>> {
    let mut answered = Vec::new();
    let mut answers = as_completed(ask_all(pool)).timeout(LIMIT); // works in any runtime
    while let Some(item) = answers.next().await {
        match item {
            Ok((server, answer)) => answered.push(answer.map(|_| server)?),
            Err(error) => println!("{error}"),
        }
    }
    for handle in answers.into_pending() {
        handle.get_ref().cancel();
    }
    Ok(answered)
}

/// Submits one job that answers at once, and two that run until they are cancelled.
fn ask_all(pool: &ThreadPool) -> [Tagged<&'static str, JoinHandle<&'static str>>; 3] {
    let ask = |server| {
        while server != "near" && !futurepool::cancel_requested() {
            thread::sleep(Duration::from_millis(5));
        }
        "hello"
    };
    ["near", "far", "farther"].map(|server| pool.submit(move || ask(server)).tag(server))
}
