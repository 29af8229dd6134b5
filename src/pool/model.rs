//! The protocol of `idle.rs` with two workers that exist from the start, in all schedules. (In
//! `tests/loom.rs` workers are spawned on demand, and a new worker checks the queue in any case.)

use std::panic::Location;

use loom::sync::mpsc::channel;
use loom::thread;

use crate::error::Closed;
use crate::pool::builder::Config;
use crate::pool::inner::{PoolInner, PoolRefs};
use crate::pool::submit::enqueue;
use crate::pool::worker::worker_loop;
use crate::task::join_handle::JoinHandle;
use crate::util::sync::Arc;

/// A pool whose threads are the model's own.
fn pool_of_two() -> (Arc<PoolInner>, PoolRefs, [thread::JoinHandle<()>; 2]) {
    let config = Config {
        thread_name_prefix: "model".to_owned(),
        thread_name: None,
        stack_size: None,
        keep_alive: None,
        initializer: None,
        on_exit: None,
        #[cfg(feature = "tokio")]
        runtime: None,
    };
    // Allowed no worker, it spawns none.
    let pool = PoolInner::new(0, config, 0, None);
    let refs = PoolRefs::new(&pool);
    let workers = [(); 2].map(|()| {
        let pool = Arc::clone(&pool);
        thread::spawn(move || worker_loop(&pool))
    });
    (pool, refs, workers)
}

fn submit<T: Send + 'static>(
    (pool, refs): (&Arc<PoolInner>, &PoolRefs),
    job: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let submitted = enqueue(pool, refs, job, Location::caller(), None);
    let Ok(handle) = submitted else {
        panic!("it accepts jobs");
    };
    handle
}

fn check(preemptions: usize, parked: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 50_000;
    builder.check(move || {
        let (pool, refs, workers) = pool_of_two();
        while pool.idle().parked() < parked {
            thread::yield_now();
        }
        // Each of these needs a worker of its own: one job left behind is a deadlock.
        let (go, wait) = channel::<()>();
        let first = submit((&pool, &refs), move || wait.recv().unwrap());
        let second = submit((&pool, &refs), move || go.send(()).unwrap());
        first.join().unwrap();
        second.join().unwrap();
        pool.close(Closed::Shutdown);
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn two_jobs_for_two_parked_workers_run_at_once() {
    check(1, 2);
}

#[test]
fn two_jobs_for_a_parked_worker_and_one_about_to_park_run_at_once() {
    check(1, 1);
}

#[test]
fn two_jobs_for_workers_that_just_start_run_at_once() {
    check(1, 0);
}
