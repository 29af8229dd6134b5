//! Crashes worker processes. Each crash harms only its job, and the error says how it died.
//! Run with: `cargo run --example crash --features process` (it prints "last words" on purpose)

use std::error::Error;
use std::process;

use futurepool::process::ProcessPool;
use futurepool::task;

/// Returns the double of most numbers.
#[task]
fn double(number: u32) -> u32 {
    if number % 5 == 3 {
        eprintln!("last words of number {number}");
        process::abort();
    }
    number * 2
}

#[task]
fn exit(code: i32) {
    process::exit(code);
}

#[task]
fn panics() {
    panic!("on purpose");
}

fn main() -> Result<(), Box<dyn Error>> {
    futurepool::process::init();

    // Exactly the jobs that abort fail.
    let pool = ProcessPool::builder().max_workers(2).build()?;
    let jobs: Vec<_> = (0..10).map(|n| pool.submit(double::call(n))).collect();
    for (number, job) in (0..10).zip(jobs) {
        match job.join() {
            Ok(double) => assert_eq!(double, number * 2),
            Err(error) => {
                assert_eq!(number % 5, 3);
                assert!(error.is_crashed());
            }
        }
    }

    // The error names the task, the process, the signal, and what the worker printed last.
    let error = pool.submit(double::call(3)).join().unwrap_err();
    println!("{error}");
    assert!(error.to_string().contains("SIGABRT"));
    assert!(
        error
            .worker_output()
            .unwrap()
            .contains("last words of number 3")
    );
    // The job may have had effects before it died, so it is not run again.
    assert!(error.may_have_run());

    let error = pool.submit(exit::call(7)).join().unwrap_err();
    println!("{error}");
    assert!(error.is_crashed());
    assert_eq!(error.exit_status().unwrap().code(), Some(7));

    // A panic is no crash: its worker lives on.
    let error = pool.submit(panics::call()).join().unwrap_err();
    assert!(error.is_panic());
    assert_eq!(error.panic_message(), Some("on purpose"));

    let metrics = pool.metrics();
    assert_eq!(
        (metrics.completed, metrics.failed, metrics.panicked),
        (8, 4, 1)
    );
    Ok(())
}
