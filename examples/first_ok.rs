//! Asks several servers, takes the first answer, and cancels the other requests.
//! Run with: `cargo run --example first_ok`

use std::error::Error;
use std::io;
use std::thread;
use std::time::Duration;

use futurepool::{ThreadPool, cancel_requested, first_ok_results};

/// Stands for a request, which fails on one server and takes its time on another.
fn ask(server: &str) -> io::Result<String> {
    match server {
        "down.example" => Err(io::Error::other("connection refused")),
        "slow.example" => {
            // A running job cannot be stopped, only asked to stop.
            while !cancel_requested() {
                thread::sleep(Duration::from_millis(1));
            }
            Err(io::Error::other("cancelled"))
        }
        _ => Ok(format!("hello from {server}")),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(3);
    let servers = ["down.example", "slow.example", "good.example"];

    // A job that returns an `Err`, panics or is cancelled is a failure. `first_ok` takes any value.
    let requests = servers.map(|server| pool.submit(move || ask(server)).tag(server));
    let (server, answer) = first_ok_results(requests).join();
    assert_eq!(server, "good.example");
    assert_eq!(answer??, "hello from good.example");

    // If all fail, the last error comes out. Async code awaits it: `first_ok_results(…).await`.
    let requests = ["down.example"; 2].map(|server| pool.submit(move || ask(server)));
    let error = first_ok_results(requests).join()?.unwrap_err();
    assert_eq!(error.to_string(), "connection refused");
    Ok(())
}
