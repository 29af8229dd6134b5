//! Maps a function over many items: in order, in completion order, endless, in chunks, and detached.
//! Run with: `cargo run --example map`

use std::error::Error;
use std::iter;
use std::sync::mpsc;

use futurepool::ThreadPool;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(4);

    // Results come in the order of the items. The first error ends the map.
    let squares: Vec<u64> = pool.map(1..=5, |n| n * n).join()?;
    assert_eq!(squares, [1, 4, 9, 16, 25]);

    // Several inputs are zipped into one.
    let powers = pool.map(iter::zip([2_u64, 3], [5, 6]), |(base, n)| base.pow(n));
    assert_eq!(powers.join()?, [32, 729]);

    // Results come in completion order. If it matters which item a result is for, return the
    // item as well.
    let mut primes = Vec::new();
    for result in pool.map_unordered(1..=30, |n| (n, is_prime(n))) {
        let (number, is_prime) = result?;
        if is_prime {
            primes.push(number);
        }
    }
    primes.sort();
    assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);

    // Without a buffer size, all items are taken at the start. These never end: at most 16 items
    // are ahead of the loop.
    let mut found = None;
    for result in pool.map(1_000.., |n| (n, is_prime(n))).buffer_size(16) {
        let (number, is_prime) = result?;
        if is_prime {
            found = Some(number);
            break; // drops the map, which cancels the queued jobs
        }
    }
    assert_eq!(found, Some(1_009));

    // A job costs about a microsecond. If an item costs less, run many items in one job.
    let squares = pool.map(1..=100_000_u64, |n| n * n).chunk_size(5_000);
    let sum: u64 = squares.into_iter().sum::<Result<_, _>>()?;
    assert_eq!(sum, 333_338_333_350_000);

    // A map is lazy. `start` submits its jobs before the first result is asked for.
    let started = pool.map(["fig", "apple"], str::len).start();
    assert_eq!(started.join()?, [3, 5]);

    // Without its results, a map can be left alone. Dropping the pool waits for it.
    let (sender, lengths) = mpsc::channel();
    let send = move |word: &str| sender.send(word.len()).expect("the receiver is alive");
    pool.map(["fig", "apple"], send).detach();
    drop(pool);
    assert_eq!(lengths.iter().sum::<usize>(), 8);
    Ok(())
}

fn is_prime(number: u64) -> bool {
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number > 1 && divisors.all(|divisor| number % divisor != 0)
}
