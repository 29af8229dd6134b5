//! Cancels queued jobs, and asks a running job to stop.
//! Run with: `cargo run --example cancel`

use std::error::Error;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futurepool::ThreadPool;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(1);
    let (started, has_started) = mpsc::channel();
    let running = pool.submit(move || {
        let _ = started.send(());
        // A running job cannot be stopped from outside. It checks now and then.
        while !futurepool::cancel_requested() {
            thread::sleep(Duration::from_millis(1));
        }
        "stopped early"
    });
    has_started.recv()?; // the only worker is busy: further jobs stay queued

    // A queued job never runs. Its captures have been dropped when `cancel` returns.
    let text = Arc::new(String::from("captured"));
    let captured = Arc::clone(&text);
    let queued = pool.submit(move || captured.len());
    assert!(queued.cancel());
    assert_eq!(Arc::strong_count(&text), 1);
    assert!(queued.join().unwrap_err().is_cancelled());

    // Dropping a plain handle detaches its job. Dropping this one cancels the job, for instance
    // because the async task that awaits it was dropped.
    drop(pool.submit(|| unreachable!()).cancel_on_drop());

    // A cancel handle cancels a job whose handle is elsewhere, here in a set of results.
    let queued = pool.submit(|| "never runs");
    let cancel = queued.cancel_handle();
    let mut results = futurepool::as_completed([queued]);
    assert!(cancel.cancel());
    assert!(results.wait_next().unwrap().unwrap_err().is_cancelled());

    // `disarm` turns a `cancel_on_drop` handle back into a plain one.
    let queued = pool.submit(|| unreachable!()).cancel_on_drop().disarm();

    // Cancels every queued job. The pool stays open.
    assert_eq!(pool.cancel_queued(), 1);
    assert!(queued.is_cancelled());

    // Cancelling a running job returns false: it is only a request.
    assert!(!running.cancel());
    assert_eq!(running.join()?, "stopped early");
    Ok(())
}
