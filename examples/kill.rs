//! Cancels a running job: its worker process is killed, and the pool goes on with another one.
//! Run with: `cargo run --example kill --features process`

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::Duration;

use futurepool::process::ProcessPool;
use futurepool::{JoinHandle, task};

/// Never returns, and never looks whether it is cancelled.
#[task]
fn endless() {
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Writes a file when it is cancelled.
#[task]
fn considerate(note: PathBuf) -> Result<(), String> {
    while !futurepool::cancel_requested() {
        thread::sleep(Duration::from_millis(1));
    }
    fs::write(note, "stopped early").map_err(|error| error.to_string())
}

#[task]
fn process_id() -> u32 {
    process::id()
}

fn main() -> Result<(), Box<dyn Error>> {
    futurepool::process::init();

    let pool = ProcessPool::builder().max_workers(1).build()?;
    let before = pool.submit(process_id::call()).join()?;

    // In a thread, `cancel` could only ask this job. Here it returns true, and kills the process.
    let running = pool.submit(endless::call());
    wait_until_it_runs(&running);
    assert!(running.cancel());
    assert!(running.join().unwrap_err().is_cancelled());

    // The worker has been replaced.
    let after = pool.submit(process_id::call()).join()?;
    assert_ne!(before, after);

    // Dropping this handle kills, too. So does the end of a request that awaits it.
    let running = pool.submit(endless::call()).cancel_on_drop();
    wait_until_it_runs(&running);
    drop(running);
    pool.submit(process_id::call()).join()?;

    // With a grace, the job is asked first. It is killed if it still runs at the end of the grace.
    let pool = ProcessPool::builder()
        .max_workers(1)
        .cancel_grace(Duration::from_secs(60))
        .build()?;
    let folder = tempfile::tempdir()?;
    let note = folder.path().join("note");
    let running = pool.submit(considerate::call(note.clone()));
    wait_until_it_runs(&running);
    assert!(running.cancel());
    assert!(running.join().unwrap_err().is_cancelled());
    assert_eq!(fs::read_to_string(note)?, "stopped early");
    Ok(())
}

fn wait_until_it_runs<T>(handle: &JoinHandle<T>) {
    while !handle.is_running() {
        thread::sleep(Duration::from_millis(1));
    }
}
