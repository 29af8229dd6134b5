//! One function over many items: `map` and its options, in sync code and in async code.
//!
//! ```text
//! cargo run --example map
//! ```
//!
//! It checks itself: the exit status is 1 if a result is not what it has to be. What it prints of a panic is meant to
//! be there.

use std::error::Error;
use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{JoinError, ThreadPool};
use futures::{StreamExt, TryStreamExt};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let pool = ThreadPool::new(4);
    sync(&pool)?;
    // Any runtime will do, such as tokio's. This is for programs that have none.
    futurepool::block_on(asynchronous(&pool))?;

    // In async code this makes the drop of the pool instant; here it is what the drop would do.
    pool.shutdown().join();
    Ok(())
}

/// A map can be iterated over...
fn sync(pool: &ThreadPool) -> Result<(), Failure> {
    println!("in sync code");

    // Results come in the order of the input. The first error ends this `collect`.
    let primes: Result<Vec<_>, _> = pool.map([7, 8, 9, 11], is_prime).into_iter().collect();
    check("in order", primes?, [true, false, false, true])?;

    // Results come as they are ready. They do not say of which item they are: if that matters, return the item too.
    let mut primes = Vec::new();
    for result in pool.map_unordered(NUMBERS, |n| (n, is_prime(n))) {
        let (number, is_prime) = result?;
        if is_prime {
            primes.push(number);
        }
    }
    primes.sort();
    check("as they are ready", primes, PRIMES)?;

    // Without a buffer size, all items are taken at the start. These have no end: 16 at a time are ahead of the loop.
    let mut primes = Vec::new();
    for result in pool.map(FIRST.., |n| (n, is_prime(n))).buffer_size(16) {
        let (number, is_prime) = result?;
        if is_prime {
            primes.push(number);
        }
        if primes.len() == PRIMES.len() {
            break; // which drops the map: what has not started is cancelled
        }
    }
    check("endless input", primes, PRIMES)?;

    // A job costs about a microsecond. If an item costs less, let a job do many of them.
    let mut sum = 0;
    for result in pool.map(1..=100_000_u64, |n| n * n).chunk_size(5_000) {
        sum += result?;
    }
    check("in chunks", sum, SUM_OF_SQUARES)?;

    // An item that panics is an error in its place, and the others are there.
    let shares = pool.map([5, 0, 2], |people| 100 / people);
    let shares: Vec<_> = shares.into_iter().map(in_words).collect();
    check("a panic", shares, ["20", "panic", "50"])?;

    // What is ready in time, then one error, then the end. Jobs that have not started are cancelled. One that runs
    // cannot be stopped, only asked to end, which `nap` sees: else the drop of the pool would wait for it.
    let naps = pool.map([1, 1, 60_000, 1], nap).timeout(LIMIT);
    let naps: Vec<_> = naps.into_iter().map(in_words).collect();
    check("a time limit", naps, ["1", "1", "timeout"])
}

/// ... and it is a stream.
async fn asynchronous(pool: &ThreadPool) -> Result<(), Failure> {
    println!("in async code");

    let primes: Vec<_> = pool.map([7, 8, 9, 11], is_prime).try_collect().await?;
    check("in order", primes, [true, false, false, true])?;

    let mut primes = Vec::new();
    let mut tested = pool.map_unordered(NUMBERS, |n| (n, is_prime(n)));
    while let Some(result) = tested.next().await {
        let (number, is_prime) = result?;
        if is_prime {
            primes.push(number);
        }
    }
    primes.sort();
    check("as they are ready", primes, PRIMES)?;

    let mut primes = Vec::new();
    let mut tested = pool.map(FIRST.., |n| (n, is_prime(n))).buffer_size(16);
    while let Some(result) = tested.next().await {
        let (number, is_prime) = result?;
        if is_prime {
            primes.push(number);
        }
        if primes.len() == PRIMES.len() {
            break;
        }
    }
    drop(tested); // it would live on to the end of this function, with 16 items under way
    check("endless input", primes, PRIMES)?;

    let mut sum = 0;
    let mut squares = pool.map(1..=100_000_u64, |n| n * n).chunk_size(5_000);
    while let Some(square) = squares.try_next().await? {
        sum += square;
    }
    check("in chunks", sum, SUM_OF_SQUARES)?;

    let shares = pool.map([5, 0, 2], |people| 100 / people);
    let shares: Vec<_> = shares.map(in_words).collect().await;
    check("a panic", shares, ["20", "panic", "50"])?;

    let naps = pool.map([1, 1, 60_000, 1], nap).timeout(LIMIT); // needs no runtime's timer
    let naps: Vec<_> = naps.map(in_words).collect().await;
    check("a time limit", naps, ["1", "1", "timeout"])
}

const FIRST: u64 = 1_000_000_000_000;
const NUMBERS: std::ops::Range<u64> = FIRST..FIRST + 100;
const PRIMES: [u64; 4] = [FIRST + 39, FIRST + 61, FIRST + 63, FIRST + 91];
const SUM_OF_SQUARES: u64 = 333_338_333_350_000;
const LIMIT: Duration = Duration::from_millis(300);

/// Work for a processor, which async code should not do in its own thread.
fn is_prime(number: u64) -> bool {
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    divisors.all(|divisor| number % divisor != 0)
}

fn nap(milliseconds: u64) -> u64 {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < end && !futurepool::cancel_requested() {
        thread::sleep(Duration::from_millis(1));
    }
    milliseconds
}

fn in_words(result: Result<u64, JoinError>) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(error) if error.is_panic() => "panic".to_owned(),
        Err(error) if error.is_timeout() => "timeout".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn check<T: PartialEq<U> + Debug, U: Debug>(
    what: &str,
    got: T,
    expected: U,
) -> Result<(), Failure> {
    if got != expected {
        return Err(format!("{what}: {got:?} instead of {expected:?}").into());
    }
    println!("  {what}: {got:?}");
    Ok(())
}
