//! Submits jobs to a pool and awaits their handles, on tokio.
//! Run with: `cargo run --example hello_async`

use std::error::Error;
use std::fs;

use futurepool::ThreadPool;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(4);

    // The job may start at once, before its handle is awaited.
    let handle = pool.submit(|| 6 * 7);
    assert_eq!(handle.await?, 42);

    // The first `?` is for the job, which may panic. The second is for the file.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let text = pool.submit(move || fs::read_to_string(path)).await??;
    println!("{} bytes", text.len());

    // For a job now and then, the process has a global pool.
    assert_eq!(futurepool::submit(|| 6 * 7).await?, 42);

    // Dropping a pool blocks the thread until all jobs have finished. Async code awaits the
    // shutdown first; then the drop returns at once.
    pool.shutdown().await;
    Ok(())
}
