//! A pool that finds the number of its workers: for jobs that compute, for jobs that wait, for jobs
//! that do both, and for jobs that compute again.
//!
//! ```text
//! cargo run --release --example auto_size
//! cargo run --release --example auto_size -- 60
//! ```
//!
//! The number is how long each kind of job runs, in seconds; by default 5. The lines show each
//! decision of the pool, and its reason. On a machine that is busy with something else, the pool
//! needs longer.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::ThreadPool;

/// How many rounds of [`compute`] take a millisecond of an idle processor.
static ROUNDS: OnceLock<u64> = OnceLock::new();

fn rounds(n: u64) -> u64 {
    (0..n).fold(black_box(1), |x, i| {
        black_box(x ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Uses so much CPU time, however long that takes.
fn compute(milliseconds: u64) {
    let per_millisecond = ROUNDS.get_or_init(|| {
        // The shortest of several tries was disturbed least.
        let tries = (0..20).map(|_| {
            let start = Instant::now();
            black_box(rounds(100_000));
            start.elapsed()
        });
        let shortest = tries.min().unwrap_or_default().as_nanos().max(1);
        u64::try_from(100_000 * 1_000_000 / shortest).unwrap_or(u64::MAX)
    });
    black_box(rounds(milliseconds * per_millisecond));
}

fn wait(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// Keeps the pool busy with jobs of one kind. Returns how many workers the pool allowed itself in
/// the end.
fn run(pool: &ThreadPool, name: &str, time: Duration, job: fn()) -> u64 {
    println!("{name} ({} workers)", pool.max_workers());
    let start = Instant::now();
    let done = Arc::new(AtomicU64::new(0));
    let mut changes = pool.metrics().auto_size().map(|size| size.changes);
    while start.elapsed() < time {
        // Blocks while the queue is full.
        let done = Arc::clone(&done);
        drop(pool.submit(move || {
            job();
            done.fetch_add(1, Ordering::Relaxed);
        }));
        let metrics = pool.metrics();
        let Some(size) = metrics.auto_size() else {
            continue;
        };
        if changes.replace(size.changes) != Some(size.changes) {
            println!(
                "  {:5.1} s: {:3} workers at most: {}",
                start.elapsed().as_secs_f64(),
                size.limit,
                size.reason,
            );
        }
    }
    // What is queued is of the old kind.
    pool.cancel_queued();
    pool.wait_idle().join();
    let metrics = pool.metrics();
    let size = metrics
        .auto_size()
        .expect("the pool was built with auto_size");
    println!(
        "         {} workers at most, {} % of the jobs' time was CPU time, {:.0} jobs a second",
        size.limit,
        size.cpu_percent,
        done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64(),
    );
    size.limit
}

fn main() {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(5);
    let time = Duration::from_secs(seconds);
    let processors = thread::available_parallelism().map_or(1, |n| n.get());
    compute(1);

    let builder = ThreadPool::builder()
        .thread_name_prefix("sized")
        .queue_capacity(100);
    let pool = match builder.auto_size(1..=32 * processors).build() {
        Ok(pool) => pool,
        Err(error) => {
            // Not every system tells the CPU time of a thread.
            println!("{error}");
            return;
        }
    };
    println!("{processors} processors");
    let computing = run(&pool, "computing: 5 ms", time, || compute(5));
    let wait_only = || {
        run(&pool, "waiting: 20 ms, and hardly computing", time, || {
            wait(20)
        })
    };
    let mut waiting = wait_only();
    // A busy machine takes longer.
    for _ in 0..5 {
        if waiting <= computing {
            waiting = wait_only();
        }
    }
    let mixed = run(
        &pool,
        "mixed: computing 2 ms, waiting 8 ms",
        2 * time,
        || {
            compute(2);
            wait(8);
        },
    );
    let again = run(&pool, "computing again: 5 ms", time, || compute(5));

    println!("settled at {computing}, {waiting}, {mixed} and {again} workers");
    assert!(waiting > computing, "jobs that wait need more workers");
    // Elsewhere other processes can mislead the pool for a while.
    if cfg!(target_os = "linux") {
        assert!(
            computing <= 2 * processors as u64,
            "jobs that compute need no more than the processors"
        );
    }
}
