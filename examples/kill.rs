//! Cancels a running job: its worker process is killed, and the pool goes on with another one.
//! Run with: `cargo run --example kill --features process`

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use futurepool::process::ProcessPool;
use futurepool::task;

/// Never returns, and never checks whether it is cancelled.
#[task]
fn endless(started: PathBuf) {
    fs::write(started, "").expect("the folder is there");
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Writes a note when it is cancelled.
#[task]
fn considerate(started: PathBuf, note: PathBuf) {
    fs::write(started, "").expect("the folder is there");
    while !futurepool::cancel_requested() {
        thread::sleep(Duration::from_millis(1));
    }
    fs::write(note, "stopped early").expect("the folder is there");
}

#[task]
fn process_id() -> u32 {
    process::id()
}

fn main() -> Result<(), Box<dyn Error>> {
    futurepool::process::init();

    let folder = tempfile::tempdir()?;
    let started = folder.path().join("started");

    let pool = ProcessPool::builder().max_workers(1).build()?;
    let before = pool.submit(process_id::call()).join()?;

    // In a thread, `cancel` could only ask this job. Here it returns true, and kills the process.
    let running = pool.submit(endless::call(started.clone()));
    wait_for(&started)?;
    assert!(running.cancel());
    assert!(running.join().unwrap_err().is_cancelled());

    // The worker has been replaced.
    let after = pool.submit(process_id::call()).join()?;
    assert_ne!(before, after);

    // Dropping this handle kills, too, for instance because the request that awaits it has ended.
    let running = pool.submit(endless::call(started.clone())).cancel_on_drop();
    wait_for(&started)?;
    drop(running);
    assert_ne!(pool.submit(process_id::call()).join()?, after);

    // With a grace, the job is asked first. It is killed if it still runs at the end of the grace.
    let pool = ProcessPool::builder()
        .max_workers(1)
        .cancel_grace(Duration::from_secs(60))
        .build()?;
    let note = folder.path().join("note");
    let running = pool.submit(considerate::call(started.clone(), note.clone()));
    wait_for(&started)?;
    assert!(running.cancel());
    assert!(running.join().unwrap_err().is_cancelled());
    assert_eq!(fs::read_to_string(note)?, "stopped early");
    Ok(())
}

/// Waits until a task has made this file, and removes it.
fn wait_for(started: &Path) -> Result<(), Box<dyn Error>> {
    while !started.try_exists()? {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(fs::remove_file(started)?)
}
