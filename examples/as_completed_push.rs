//! Adds jobs while results arrive: the size of a directory tree, one job for each directory.
//! Run with: `cargo run --example as_completed_push`

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io};

use futurepool::{ThreadPool, as_completed};
use futures::StreamExt;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(4);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let size = blocking(&pool, &root)?;
    println!("{size} bytes in {}", root.display());
    assert!(size > 0);
    assert_eq!(futurepool::block_on(asynchronous(&pool, &root))?, size);
    Ok(())
}

fn blocking(pool: &ThreadPool, root: &Path) -> Result<u64, Box<dyn Error>> {
    let submit = |directory: PathBuf| pool.submit(move || read_directory(&directory));
    let mut size = 0;
    let mut reading = as_completed([submit(root.to_owned())]);
    // A `for` loop would own `reading`. With `wait_next` the loop can push.
    while let Some(result) = reading.wait_next() {
        let (bytes, directories) = result??;
        size += bytes;
        for directory in directories {
            reading.push(submit(directory));
        }
    }
    Ok(size)
}

async fn asynchronous(pool: &ThreadPool, root: &Path) -> Result<u64, Box<dyn Error>> {
    let submit = |directory: PathBuf| pool.submit(move || read_directory(&directory));
    let mut size = 0;
    let mut reading = as_completed([submit(root.to_owned())]);
    while let Some(result) = reading.next().await {
        let (bytes, directories) = result??;
        size += bytes;
        for directory in directories {
            reading.push(submit(directory));
        }
    }
    Ok(size)
}

/// The job: returns the size of the files in one directory, and its subdirectories.
fn read_directory(directory: &Path) -> io::Result<(u64, Vec<PathBuf>)> {
    let (mut bytes, mut directories) = (0, Vec::new());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?; // does not follow links
        match metadata.is_dir() {
            true => directories.push(entry.path()),
            false => bytes += metadata.len(),
        }
    }
    Ok((bytes, directories))
}
