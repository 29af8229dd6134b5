//! Takes results in completion order, in blocking and in async code.
//! Run with: `cargo run --example as_completed`

use std::error::Error;
use std::path::Path;
use std::{fs, io};

use futurepool::{JoinHandle, Tagged, ThreadPool, as_completed};
use futures::StreamExt;

const FILES: [&str; 4] = ["Cargo.toml", "README.md", "src/missing.rs", "src/lib.rs"];

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(4);
    let counted = blocking(&pool);
    println!("{counted:?}");
    assert!(counted.lines > 0);
    assert_eq!(counted.errors.len(), 1); // one file is missing

    let counted_async = futurepool::block_on(asynchronous(&pool));
    assert_eq!(counted_async, counted);
    Ok(())
}

#[derive(Debug, Default, PartialEq)]
struct Counted {
    lines: usize,
    errors: Vec<String>,
}

fn blocking(pool: &ThreadPool) -> Counted {
    let mut counted = Counted::default();
    for (file, result) in as_completed(count_lines_of_all(pool)) {
        // The `JoinError` of a panic becomes an `io::Error`: one kind of error to handle.
        match result.unwrap_or_else(|error| Err(error.into())) {
            Ok(lines) => counted.lines += lines,
            Err(error) => counted.errors.push(format!("{file}: {error}")),
        }
    }
    counted
}

async fn asynchronous(pool: &ThreadPool) -> Counted {
    let mut counted = Counted::default();
    let mut results = as_completed(count_lines_of_all(pool));
    while let Some((file, result)) = results.next().await {
        match result.unwrap_or_else(|error| Err(error.into())) {
            Ok(lines) => counted.lines += lines,
            Err(error) => counted.errors.push(format!("{file}: {error}")),
        }
    }
    counted
}

/// Submits a job for each file, tagged with the file's name.
fn count_lines_of_all(
    pool: &ThreadPool,
) -> Vec<Tagged<&'static str, JoinHandle<io::Result<usize>>>> {
    let count_lines = |file| -> io::Result<usize> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        Ok(fs::read_to_string(path)?.lines().count())
    };
    let submit = |file| pool.submit(move || count_lines(file)).tag(file);
    FILES.map(submit).into()
}
