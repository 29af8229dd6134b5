//! Runs jobs that borrow from their caller.
//! Run with: `cargo run --example scope`

use std::error::Error;
use std::sync::Arc;

use futurepool::{JoinError, ThreadPool};

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Arc::new(ThreadPool::new(4));

    // All jobs have finished when `scope` returns, joined or not.
    let mut words = [String::from("fig"), String::from("apple")];
    let [first, second] = &mut words;
    let length = pool.scope(|scope| {
        drop(scope.submit(|| first.push('s')));
        scope.submit(|| second.len()).join()
    })?;
    assert_eq!((length, &words[0][..]), (5, "figs"));

    // Each job borrows its own part of a slice.
    let mut numbers: Vec<u64> = (1..=1_000).collect();
    pool.scope(|scope| {
        for chunk in numbers.chunks_mut(250) {
            drop(scope.submit(move || chunk.iter_mut().for_each(|n| *n *= 2)));
        }
    });
    assert_eq!(numbers.iter().sum::<u64>(), 1_001_000);

    // A map in a scope: its items, its function and its results may borrow.
    let longest = pool.scope(|scope| scope.map(&words, |word| (word.len(), word)).join())?;
    assert_eq!(longest.into_iter().max().unwrap().1, "apple");

    // `scope` blocks. Async code calls it inside a job, which owns what it lends.
    let shared = Arc::clone(&pool);
    let job = pool.submit(move || {
        let (left, right) = numbers.split_at(500);
        shared.scope(|scope| {
            let left = scope.submit(|| left.iter().sum::<u64>());
            let right = scope.submit(|| right.iter().sum::<u64>());
            Ok::<_, JoinError>(left.join()? + right.join()?)
        })
    });
    let sum = futurepool::block_on(job)??;
    assert_eq!(sum, 1_001_000);
    Ok(())
}
