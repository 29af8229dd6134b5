//! Runs one workload with a number of jobs: `.ci/instructions` counts its instructions.
//!
//! ```sh
//! instructions WORKLOAD JOBS
//! instructions --list
//! ```
//!
//! The count must not depend on how threads are scheduled. So the only worker is blocked while jobs are
//! queued, and the main thread waits once, until all of them have ended. No thread spins for each job. For
//! the same reason no workload joins each job before it submits the next one: how long the two threads
//! spin depends on the load.

use std::env;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Waker};

use futurepool::{
    ExecutorExt, InlineExecutor, JoinError, JoinHandle, Priority, ThreadPool, as_completed,
};
use futures::stream::Stream;

type Workload = (&'static str, fn(u64));

const WORKLOADS: [Workload; 11] = [
    ("burst", burst),
    ("bounded", bounded),
    ("detached", detached),
    ("nested", nested),
    ("priorities", priorities),
    ("as_completed", completed),
    ("map", map),
    ("cancel", cancel),
    ("inline", inline),
    ("timings", timings),
    ("labels", labels),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--list"] => {
            for (name, _) in WORKLOADS {
                println!("{name}");
            }
        }
        [name, jobs] => {
            let workload = WORKLOADS.into_iter().find(|(other, _)| *other == name);
            let (Some((_, run)), Ok(jobs)) = (workload, jobs.parse()) else {
                eprintln!("instructions: no such workload, or no number: {name} {jobs}");
                return ExitCode::from(2);
            };
            run(jobs);
        }
        _ => {
            eprintln!("usage: instructions WORKLOAD JOBS | --list");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// A pool whose only worker is blocked until the gate opens.
struct Gated {
    pool: ThreadPool,
    gate: Sender<()>,
}

impl Gated {
    fn new() -> Self {
        Self::of(ThreadPool::new(1))
    }

    fn of(pool: ThreadPool) -> Self {
        let (gate, opened) = channel();
        let (started, start) = channel();
        drop(pool.submit(move || {
            started.send(()).expect("the main thread waits");
            // An error, too, says that it is open.
            let _ = opened.recv();
        }));
        start.recv().expect("the worker starts");
        Self { pool, gate }
    }

    fn queue(&self, jobs: u64) -> Vec<JoinHandle<u64>> {
        let submit = |number| self.pool.submit(move || number);
        (0..jobs).map(submit).collect()
    }

    /// Returns when all jobs have ended.
    fn open(self) {
        drop(self.gate);
        wait_for_all(&self.pool);
    }
}

/// Waits once, for a job behind all others. During a `wait_idle` each job would do a little more.
fn wait_for_all(pool: &ThreadPool) {
    pool.submit(|| ()).join().expect("the job returned");
}

fn join_all(handles: Vec<JoinHandle<u64>>) -> u64 {
    let results = handles.into_iter().map(JoinHandle::join);
    results
        .map(|result| result.expect("the job returned"))
        .sum()
}

fn sum_below(count: u64) -> u64 {
    count * (count - 1) / 2
}

/// One thread submits the jobs and joins them.
fn burst(jobs: u64) {
    let gated = Gated::new();
    let handles = gated.queue(jobs);
    gated.open();
    assert_eq!(join_all(handles), sum_below(jobs));
}

/// The same, with a permit for each job.
fn bounded(jobs: u64) {
    let capacity = usize::try_from(jobs).expect("it fits");
    let pool = ThreadPool::builder()
        .max_workers(1)
        .queue_capacity(capacity);
    let gated = Gated::of(pool.build().expect("the options are valid"));
    let handles = gated.queue(jobs);
    gated.open();
    assert_eq!(join_all(handles), sum_below(jobs));
}

/// The handles are dropped before the jobs run.
fn detached(jobs: u64) {
    let gated = Gated::new();
    drop(gated.queue(jobs));
    gated.open();
}

/// As the burst, with each of the three priorities in turn.
fn priorities(jobs: u64) {
    let gated = Gated::new();
    let priorities = [Priority::High, Priority::Normal, Priority::Low].into_iter();
    let submit = |(number, priority)| {
        let job = gated.pool.job(move || number).priority(priority);
        job.submit()
    };
    let handles = (0..jobs).zip(priorities.cycle()).map(submit).collect();
    gated.open();
    assert_eq!(join_all(handles), sum_below(jobs));
}

/// As the burst, in a pool that measures its jobs.
fn timings(jobs: u64) {
    let gated = Gated::of(timed_pool());
    let handles = gated.queue(jobs);
    gated.open();
    assert_eq!(join_all(handles), sum_below(jobs));
}

/// The same, with one of four labels for each job.
fn labels(jobs: u64) {
    const LABELS: [&str; 4] = ["resize", "hash", "GET /images/{id}", "POST /images"];
    let gated = Gated::of(timed_pool());
    let submit = |number| {
        let job = gated.pool.job(move || number);
        job.label(LABELS[number as usize % 4]).submit()
    };
    let handles = (0..jobs).map(submit).collect();
    gated.open();
    assert_eq!(join_all(handles), sum_below(jobs));
}

fn timed_pool() -> ThreadPool {
    let builder = ThreadPool::builder().max_workers(1).timings(true);
    builder.build().expect("the options are valid")
}

/// Jobs submit ten jobs each and join them, on the same worker.
fn nested(jobs: u64) {
    const CHILDREN: u64 = 10;
    let Gated { pool, gate } = Gated::new();
    let pool = Arc::new(pool);
    let parent = |_| {
        let inner = Arc::clone(&pool);
        pool.submit(move || {
            let submit = |number| inner.submit(move || number);
            join_all((0..CHILDREN).map(submit).collect())
        })
    };
    let parents: Vec<_> = (0..jobs / CHILDREN).map(parent).collect();
    drop(gate);
    wait_for_all(&pool);
    assert_eq!(join_all(parents), jobs / CHILDREN * sum_below(CHILDREN));
}

fn completed(jobs: u64) {
    let gated = Gated::new();
    let stream = as_completed(gated.queue(jobs));
    yield_all(gated, stream, jobs);
}

/// Maps items, with nothing set.
fn map(jobs: u64) {
    let gated = Gated::new();
    let stream = gated.pool.map(0..jobs, |number| number);
    yield_all(gated, stream, jobs);
}

/// A stream registers with all jobs, then the jobs end, then it yields their results.
fn yield_all(gated: Gated, stream: impl Stream<Item = Result<u64, JoinError>>, jobs: u64) {
    let mut stream = pin!(stream);
    let mut context = Context::from_waker(Waker::noop());
    assert!(stream.as_mut().poll_next(&mut context).is_pending());
    gated.open();
    let mut sum = 0;
    while let Poll::Ready(Some(result)) = stream.as_mut().poll_next(&mut context) {
        sum += result.expect("the job returned");
    }
    assert_eq!(sum, sum_below(jobs));
}

/// All jobs are cancelled while they are queued.
fn cancel(jobs: u64) {
    let gated = Gated::new();
    let handles = gated.queue(jobs);
    assert!(handles.iter().all(JoinHandle::cancel));
    gated.open();
}

/// No pool: what a task costs by itself.
fn inline(jobs: u64) {
    let submit = |number| InlineExecutor.submit(move || number);
    assert_eq!(join_all((0..jobs).map(submit).collect()), sum_below(jobs));
}
