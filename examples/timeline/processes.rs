//! The load in worker processes, of which some are killed, and some crash.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futurepool::process::WorkerStdio;
use futurepool::{Call, JoinHandle, Metrics, ProcessPool, ReturnWhen, task, wait};

use crate::Failure;
use crate::recorder::Recorder;

/// Blocks its worker process. The event tells the recorder which process that is.
#[task]
fn work(milliseconds: u64) {
    tracing::info!("a job begins");
    thread::sleep(Duration::from_millis(milliseconds));
}

#[task]
fn panics() {
    work(12);
    panic!("on purpose");
}

#[task]
fn crashes() {
    work(12);
    std::process::abort();
}

pub(crate) fn run(workers: usize, recorder: &Arc<Recorder>) -> Result<Metrics, Failure> {
    // Which process runs a job, and why a process goes, is in events of `tracing`.
    tracing::subscriber::set_global_default(Arc::clone(recorder))?;
    let recorder = Arc::clone(recorder);
    let builder = ProcessPool::builder().max_workers(workers);
    let builder = builder.on_job(move |event| recorder.on_job(event));
    // No message says "on purpose", and none takes the time for a backtrace.
    let builder = builder.stderr(WorkerStdio::null());
    let builder = builder.env("RUST_BACKTRACE", "0");
    let pool = builder.max_jobs_per_worker(12).build()?;
    mixed_load(&pool);
    pool.shutdown().join();
    Ok(pool.metrics())
}

/// Submits a burst of jobs, of which some are cancelled, then a job now and then.
fn mixed_load(pool: &ProcessPool) {
    let submit = |label, call: Call<work>| pool.submit(call.label(label));
    let crash = || pool.submit(crashes::call().label("crashes"));
    let mut handles = Vec::new();
    let mut endless = Vec::new();
    for n in 0..28 {
        match n % 9 {
            0 => handles.push(submit("long", work::call(45))),
            2 => endless.push(submit("cancelled while it runs", work::call(60_000))),
            4 => handles.push(crash()),
            6 => handles.push(pool.submit(panics::call().label("panics"))),
            8 => handles.push(submit("exceeds its time limit", too_long())),
            _ => handles.push(submit("short", work::call(4 + n % 5))),
        }
    }
    let unwanted: Vec<_> = (0..6)
        .map(|_| submit("cancelled", work::call(20)))
        .collect();
    thread::sleep(Duration::from_millis(30));
    for handle in &unwanted {
        handle.cancel();
    }
    for handle in &endless {
        cancel_while_it_runs(handle);
    }
    let all = handles.into_iter().chain(endless).chain(unwanted);
    wait(all, ReturnWhen::AllCompleted).join();

    let now_and_then = (0..36).map(|n| {
        thread::sleep(Duration::from_millis(4));
        match n {
            20 => crash(),
            _ => submit("short", work::call(6 + n % 9)),
        }
    });
    wait(now_and_then, ReturnWhen::AllCompleted).join();
}

fn too_long() -> Call<work> {
    work::call(60_000).time_limit(Duration::from_millis(30))
}

fn cancel_while_it_runs(handle: &JoinHandle<()>) {
    while !handle.is_running() {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(20));
    handle.cancel();
}
