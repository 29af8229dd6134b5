//! Attaches a key to a handle, and gets it back with the result.
//! Run with: `cargo run --example tag`

use std::error::Error;

use futurepool::ThreadPool;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(4);

    let tagged = pool.submit(|| "apple".len()).tag("apple");
    assert_eq!(tagged.key(), &"apple");
    let (word, length) = tagged.join();
    assert_eq!((word, length?), ("apple", 5));

    // Awaiting it returns the same pair.
    futurepool::block_on(async {
        let (word, length) = pool.submit(|| "fig".len()).tag("fig").await;
        assert_eq!((word, length?), ("fig", 3));
        Ok::<_, futurepool::JoinError>(())
    })?;

    // The plain handle is still accessible, for instance to cancel the job.
    let tagged = pool.submit(|| "pear".len()).tag(String::from("pear"));
    tagged.get_ref().cancel();
    let (word, handle) = tagged.into_inner();
    match handle.join() {
        Ok(length) => println!("{word} has {length} letters"),
        Err(error) => println!("{word}: {error}"),
    }
    Ok(())
}
