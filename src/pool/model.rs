//! The protocol of `idle.rs` with two workers that exist from the start, in all schedules. (In
//! `tests/loom.rs` workers are spawned on demand, and a new worker checks the queue in any case.)

use std::panic::Location;

use loom::sync::mpsc::channel;
use loom::thread;

use crate::error::Closed;
use crate::executor::Executor;
use crate::executor::ext::ExecutorExt;
use crate::pool::builder::Config;
use crate::pool::control::{Inbox, Mailbox};
use crate::pool::inner::{PoolInner, PoolRefs};
use crate::pool::job::{JobOptions, Priority, Submission};
use crate::pool::queue::{Place, PopOrder, Queue};
use crate::pool::submit::enqueue;
use crate::pool::worker::worker_loop;
use crate::task::context::{WorkerId, WorkerPhase, set_current_worker};
use crate::task::job::Job;
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
        make_state: None,
        auto_sizer: None,
        #[cfg(feature = "tokio")]
        runtime: None,
    };
    // Allowed no worker, it spawns none.
    let pool = PoolInner::new(0, config, 0, None, None, None);
    let refs = PoolRefs::new(&pool);
    let workers = [(); 2].map(|()| {
        let pool = Arc::clone(&pool);
        thread::spawn(move || {
            // What it submits goes to its lane.
            let (pool_id, phase) = (pool.id(), WorkerPhase::InLoop);
            set_current_worker(WorkerId {
                pool: pool_id,
                phase,
            });
            worker_loop(&pool, Inbox::new(0, Mailbox::new()));
        })
    });
    (pool, refs, workers)
}

fn submit<T: Send + 'static>(
    pool: (&Arc<PoolInner>, &PoolRefs),
    job: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    submit_as(Priority::Normal, pool, job)
}

fn submit_as<T: Send + 'static>(
    priority: Priority,
    (pool, refs): (&Arc<PoolInner>, &PoolRefs),
    job: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let options = JobOptions {
        priority,
        ..JobOptions::PLAIN
    };
    let submission = Submission {
        origin: Location::caller(),
        span: None,
        options: &options,
    };
    let submitted = enqueue(pool, refs, job, submission);
    let Ok(handle) = submitted else {
        panic!("it accepts jobs");
    };
    handle
}

fn builder(preemptions: Option<usize>) -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.max_branches = 50_000;
    builder
}

fn check(preemptions: usize, parked: usize) {
    builder(Some(preemptions)).check(move || {
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

/// The first worker submits a job that it cannot run itself. The second one must take it out of the
/// first one's lane.
fn check_lane(parked: usize) {
    builder(Some(1)).check(move || {
        let (pool, refs, workers) = pool_of_two();
        while pool.idle().parked() < parked {
            thread::yield_now();
        }
        let refs = Arc::new(refs);
        let outer = submit((&pool, &refs), {
            let (pool, refs) = (Arc::clone(&pool), Arc::clone(&refs));
            move || {
                let (go, wait) = channel::<()>();
                drop(submit((&pool, &refs), move || go.send(()).unwrap()));
                wait.recv().unwrap();
            }
        });
        outer.join().unwrap();
        pool.close(Closed::Shutdown);
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn a_job_in_a_lane_and_a_parked_worker_it_runs() {
    check_lane(2);
}

#[test]
fn a_job_in_a_lane_and_a_worker_about_to_park_it_runs() {
    check_lane(1);
}

/// Two jobs that are neither from a worker nor of normal priority, and each needs a worker of its
/// own.
fn check_priorities(parked: usize) {
    builder(Some(1)).check(move || {
        let (pool, refs, workers) = pool_of_two();
        while pool.idle().parked() < parked {
            thread::yield_now();
        }
        let (go, wait) = channel::<()>();
        let high = move || wait.recv().unwrap();
        let high = submit_as(Priority::High, (&pool, &refs), high);
        let low = move || go.send(()).unwrap();
        let low = submit_as(Priority::Low, (&pool, &refs), low);
        high.join().unwrap();
        low.join().unwrap();
        pool.close(Closed::Shutdown);
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn two_jobs_of_other_priorities_and_two_parked_workers_run_at_once() {
    check_priorities(2);
}

#[test]
fn two_jobs_of_other_priorities_and_workers_about_to_park_run_at_once() {
    check_priorities(0);
}

/// An executor that keeps its job.
#[derive(Default)]
struct Kept(std::sync::Mutex<Option<Job>>);

impl Executor for Kept {
    fn execute(&self, job: Job) {
        *self.0.lock().unwrap() = Some(job);
    }
}

fn push(queue: &Queue, place: Place) -> bool {
    let kept = Kept::default();
    drop(kept.submit(|| ()));
    let job = kept.0.lock().unwrap().take().unwrap();
    queue.push(job, place, |_| true).is_ok()
}

#[test]
fn two_workers_take_from_one_lane_each_job_comes_out_once() {
    builder(None).check(|| {
        let queue = Arc::new(Queue::new());
        assert!(push(&queue, Place::lane(0)) && push(&queue, Place::lane(0)));
        let pop =
            |queue: Arc<Queue>| move || usize::from(queue.pop(&mut PopOrder::new(0)).is_some());
        let other = thread::spawn(pop(Arc::clone(&queue)));
        let popped = pop(Arc::clone(&queue))() + other.join().unwrap();
        let left = queue.drain(|| 0).len();
        // A hint may be too old for a worker to see the second job; its fence is in `idle.rs`.
        assert_eq!(popped + left, 2);
    });
}

#[test]
fn two_workers_take_turns_the_bound_is_exact() {
    builder(None).check(|| {
        let queue = Arc::new(Queue::new());
        for place in [Place::HIGH, Place::HIGH, Place::HIGH, Place::HIGH] {
            assert!(push(&queue, place));
        }
        assert!(push(&queue, Place::OUTSIDE));
        // From here on Normal waits for one more start of another priority.
        let mut order = PopOrder::new(0);
        let mut pop = || drop(queue.pop(&mut order).unwrap());
        pop();
        pop();
        let other = thread::spawn({
            let queue = Arc::clone(&queue);
            move || drop(queue.pop(&mut PopOrder::new(0)).unwrap())
        });
        pop();
        other.join().unwrap();
        assert!(!queue.waits_hint(Priority::Normal));
        assert!(queue.waits_hint(Priority::High));
    });
}

#[test]
fn close_and_push_to_a_lane_nothing_is_added_once_the_queue_is_closed_and_empty() {
    check_close(Place::lane(0));
}

#[test]
fn close_and_push_to_a_priority_nothing_is_added_once_the_queue_is_closed_and_empty() {
    check_close(Place::LOW);
}

fn check_close(place: Place) {
    builder(None).check(move || {
        let queue = Arc::new(Queue::new());
        let other = thread::spawn({
            let queue = Arc::clone(&queue);
            move || push(&queue, place)
        });
        queue.close(Closed::Shutdown);
        let was_empty = queue.is_closed_and_empty();
        let left = queue.drain(|| 0).len();
        let accepted = other.join().unwrap();
        assert_eq!(left, usize::from(accepted));
        assert_eq!(was_empty, !accepted);
        assert!(queue.is_closed_and_empty());
    });
}
