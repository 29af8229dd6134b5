//! Calls a function when a job has finished: it completed, panicked or was cancelled.
//! Run with: `cargo run --example callbacks`

use std::error::Error;
use std::sync::mpsc;

use futurepool::ThreadPool;
use futures::channel::oneshot;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(1);

    // The callback runs in the thread that finishes the job: keep it short.
    let (sender, receiver) = mpsc::channel();
    let handle = pool.submit(|| 5);
    handle.add_done_callback(move |outcome| {
        let _ = sender.send(outcome.ok().copied());
    });
    assert_eq!(handle.join()?, 5);
    assert_eq!(receiver.recv()?, Some(5));

    // A cancelled job has callbacks as well. They run in the thread that cancels it.
    let (go, signal) = mpsc::channel::<()>();
    let running = pool.submit(move || signal.recv().is_err());
    let queued = pool.submit(|| unreachable!());
    let (sender, receiver) = mpsc::channel();
    queued.add_done_callback(move |outcome: Result<&(), _>| {
        let _ = sender.send(outcome.is_err_and(|error| error.is_cancelled()));
    });
    queued.cancel();
    assert!(receiver.recv()?);
    drop(go);
    assert!(running.join()?);

    // A oneshot channel carries the outcome to async code.
    let (sender, receiver) = oneshot::channel();
    let handle = pool.submit(|| 7);
    handle.add_done_callback(move |outcome| {
        let _ = sender.send(outcome.ok().copied());
    });
    drop(handle); // callbacks need no handle
    assert_eq!(futurepool::block_on(receiver)?, Some(7));
    Ok(())
}
