//! Prepares each worker before its first job, for instance with a database connection.
//! Run with: `cargo run --example initializer`

use std::cell::Cell;
use std::error::Error;

use futurepool::ThreadPool;

thread_local! {
    static CONNECTION: Cell<Option<u32>> = const { Cell::new(None) };
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::builder()
        .max_workers(2)
        .thread_name_prefix("db")
        .initializer(|| CONNECTION.set(Some(7)))
        .build()?;
    assert_eq!(pool.submit(|| CONNECTION.get()).join()?, Some(7));

    // An initializer that fails breaks the pool. Every job returns its error.
    let pool = ThreadPool::builder()
        .initializer(|| Err("no such host"))
        .build()?;
    let error = pool.submit(|| CONNECTION.get()).join().unwrap_err();
    assert!(error.is_broken());
    assert!(error.to_string().contains("no such host"));
    println!("{error}");
    Ok(())
}
