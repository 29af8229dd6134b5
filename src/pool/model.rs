//! The protocol of `idle` with two workers that have been there for a while, in all schedules. (In `tests/loom.rs`
//! workers start when they are needed, and what starts looks at the queue, whatever the others do.)

use std::panic::Location;

use loom::sync::mpsc::channel;
use loom::thread;

use crate::error::Closed;
use crate::pool::config::Config;
use crate::pool::inner::{Homes, Shared};
use crate::pool::submit::enqueue;
use crate::pool::worker::work;
use crate::task::join_handle::JoinHandle;
use crate::util::sync::Arc;

/// A pool whose threads are the model's own.
fn pool_of_two() -> (Arc<Shared>, Homes, [thread::JoinHandle<()>; 2]) {
    let config = Config {
        thread_name_prefix: "model".to_owned(),
        stack_size: None,
        keep_alive: None,
        initializer: None,
        #[cfg(feature = "tokio")]
        runtime: None,
    };
    // Allowed no worker, it starts none.
    let shared = Shared::new(0, config, 0, None);
    let homes = Homes::new(&shared);
    let workers = [(); 2].map(|()| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || work(&shared))
    });
    (shared, homes, workers)
}

fn submit<T: Send + 'static>(
    (shared, homes): (&Arc<Shared>, &Homes),
    job: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let submitted = enqueue(shared, homes, job, Location::caller(), None);
    let Ok(handle) = submitted else {
        panic!("it takes jobs");
    };
    handle
}

fn check(preemptions: usize, asleep: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 50_000;
    builder.check(move || {
        let (shared, homes, workers) = pool_of_two();
        while shared.idle.sleeping() < asleep {
            thread::yield_now();
        }
        // Each of these needs a worker of its own: one job left behind is a deadlock.
        let (go, wait) = channel::<()>();
        let first = submit((&shared, &homes), move || wait.recv().unwrap());
        let second = submit((&shared, &homes), move || go.send(()).unwrap());
        first.join().unwrap();
        second.join().unwrap();
        shared.close(Closed::Shutdown);
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn two_jobs_for_two_sleepers_run_at_once() {
    check(1, 2);
}

#[test]
fn two_jobs_for_a_sleeper_and_one_on_its_way_to_bed_run_at_once() {
    check(1, 1);
}

#[test]
fn two_jobs_for_workers_that_just_come_run_at_once() {
    check(1, 0);
}
