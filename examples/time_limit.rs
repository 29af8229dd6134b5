//! Limits how long a job runs. At the limit its worker process is killed.
//! Run with: `cargo run --example time_limit --features process`

use std::error::Error;
use std::hint;
use std::time::{Duration, Instant};

use futurepool::process::ProcessPool;
use futurepool::{TaskExecutorExt, ThreadPool, task};

/// Tries each divisor in turn, which takes years for a large prime.
#[task]
fn is_prime(number: u128) -> bool {
    number > 1 && !(2..number).any(|divisor| number % hint::black_box(divisor) == 0)
}

const LARGE_PRIME: u128 = (1 << 127) - 1;

fn main() -> Result<(), Box<dyn Error>> {
    futurepool::process::init();

    let pool = ProcessPool::builder()
        .max_workers(1)
        .time_limit(Duration::from_secs(5))
        .build()?;

    // A call can have a shorter limit than its pool.
    let limit = Duration::from_millis(100);
    let start = Instant::now();
    let slow = pool.submit(is_prime::call(LARGE_PRIME).time_limit(limit));
    // The time in the queue does not count: this job starts when the first one is killed.
    let fast = pool.submit(is_prime::call(101).time_limit(Duration::from_secs(5)));

    let error = slow.join().unwrap_err();
    println!("{error}");
    assert!(error.is_time_limit());
    assert!(start.elapsed() >= limit);
    assert!(fast.join()?);

    // `is_timeout` is another thing: there the wait had a limit, and the job goes on.
    let mut slow = pool.submit(is_prime::call(LARGE_PRIME));
    assert!(slow.join_timeout(limit).unwrap_err().is_timeout());
    assert!(!slow.is_finished());
    assert!(slow.cancel());

    // A thread cannot keep a limit, so a thread pool refuses the call instead of ignoring it.
    let call = is_prime::call(101).time_limit(limit);
    let error = ThreadPool::new(1).submit_task(call).join().unwrap_err();
    assert!(error.is_refused());
    Ok(())
}
