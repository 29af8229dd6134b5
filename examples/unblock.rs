//! Reads, writes and iterates in async code, where only blocking I/O is at hand.
//! Run with: `cargo run --example unblock`

use std::error::Error;
use std::fs::{self, File};

use futurepool::{ThreadPool, Unblock};
use futures::{AsyncBufReadExt, AsyncWriteExt, TryStreamExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let disk = ThreadPool::new(2);
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("squares.txt");

    // Writes go into a buffer, which one job after the other writes to the file.
    let new = path.clone();
    let file = disk.submit(move || File::create(new)).await??;
    let mut writer = Unblock::new_in(&disk, file);
    for n in 1..=1_000_u64 {
        writer.write_all(format!("{}\n", n * n).as_bytes()).await?;
    }
    writer.close().await?; // returns the errors of earlier writes

    // One job fills the buffer, and the lines come out of it.
    let file = disk.submit(move || File::open(path)).await??;
    let mut lines = Unblock::new_in(&disk, file).lines();
    let mut sum = 0;
    while let Some(line) = lines.try_next().await? {
        sum += line.parse::<u64>()?;
    }
    assert_eq!(sum, 333_833_500);

    // A blocking iterator is a stream.
    let listed = directory.path().to_owned();
    let entries = disk.submit(move || fs::read_dir(listed)).await??;
    let entries: Vec<_> = Unblock::new_in(&disk, entries).try_collect().await?;
    assert_eq!(entries.len(), 1);

    // A hundred readers that nothing reads keep no worker.
    let readers: Vec<_> = (0..100)
        .map(|_| Unblock::new_in(&disk, std::io::repeat(b'x')))
        .collect();
    assert_eq!(disk.submit(|| 6 * 7).await?, 42);
    drop(readers);

    disk.shutdown().await;
    Ok(())
}
