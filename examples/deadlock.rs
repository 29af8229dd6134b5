//! Shows the error that ends a deadlock: two jobs that join each other.
//! Run with: `cargo run --example deadlock`

use std::sync::mpsc::{self, Sender};

use futurepool::{JoinError, JoinHandle, ThreadPool};

fn main() {
    let pool = ThreadPool::new(2);
    let (report, reports) = mpsc::channel();

    // Each job receives the handle of the other one, and joins it.
    let (to_first, first) = submit_joiner(&pool, report.clone());
    let (to_second, second) = submit_joiner(&pool, report);
    to_first.send(second).expect("the job waits for it");
    to_second.send(first).expect("the job waits for it");

    // One of the joins fails, so both jobs finish. The iterator ends when both have dropped
    // their `report`.
    let errors: Vec<JoinError> = reports.into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].is_deadlock());
    println!("{}", errors[0]);
}

/// Submits a job that joins the handle it receives, and reports the result.
fn submit_joiner(
    pool: &ThreadPool,
    report: Sender<Result<(), JoinError>>,
) -> (Sender<JoinHandle<()>>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel::<JoinHandle<()>>();
    let job = pool.submit(move || {
        let other = receiver.recv().expect("main sends it");
        let _ = report.send(other.join());
    });
    (sender, job)
}
