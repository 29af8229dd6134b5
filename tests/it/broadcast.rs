//! `broadcast`: which workers run the closure, when, and what becomes of its jobs otherwise.

use std::collections::{BTreeSet, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::common::{Gate, LONG, block_workers, bounded_pool, eventually, within};
use futurepool::{
    JobEvent, JobOutcome, JoinHandle, ReturnWhen, ThreadPool, as_completed, block_on, wait,
};

/// Returns a pool that has this many workers, all of them without a job.
fn idle_pool(workers: usize) -> ThreadPool {
    let pool = ThreadPool::new(workers);
    start_workers(&pool, workers);
    pool
}

fn start_workers(pool: &ThreadPool, workers: usize) {
    block_workers(pool, workers).release();
    eventually("idle workers", || pool.metrics().idle == workers as u64);
}

fn join_all<T>(handles: Vec<JoinHandle<T>>) -> Vec<T> {
    let outcomes = handles.into_iter().map(JoinHandle::join);
    outcomes.map(Result::unwrap).collect()
}

fn this_thread() -> ThreadId {
    thread::current().id()
}

#[test]
fn it_runs_once_on_each_worker() {
    within(LONG, "each worker", || {
        for workers in [1, 3, 8] {
            let pool = idle_pool(workers);
            let count = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&count);
            let ids = join_all(pool.broadcast(move || {
                counted.fetch_add(1, SeqCst);
                this_thread()
            }));
            assert_eq!((ids.len(), count.load(SeqCst)), (workers, workers));
            let distinct: HashSet<_> = ids.iter().collect();
            assert_eq!(distinct.len(), workers);
            assert!(!distinct.contains(&this_thread()));
            let again = join_all(pool.broadcast(this_thread));
            assert_eq!(ids, again, "in the order of the workers");
        }
    });
}

#[test]
fn a_pool_without_workers_gives_no_handle() {
    let dropped = Arc::new(());
    let pool = ThreadPool::new(3);
    let captured = Arc::clone(&dropped);
    let handles = pool.broadcast(move || drop(Arc::clone(&captured)));
    assert!(handles.is_empty());
    assert_eq!(Arc::strong_count(&dropped), 1, "the closure is dropped");
    assert_eq!(pool.metrics().submitted, 0);
}

#[test]
fn a_worker_that_is_starting_runs_it_after_its_initializer() {
    within(LONG, "starting workers", || {
        let (gate, initialized) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
        let builder = ThreadPool::builder().max_workers(2).initializer({
            let (gate, initialized) = (gate.clone(), Arc::clone(&initialized));
            move || {
                gate.wait();
                initialized.fetch_add(1, SeqCst);
            }
        });
        let pool = builder.build().unwrap();
        pool.prestart(2);
        let handles = pool.broadcast(move || initialized.load(SeqCst));
        assert_eq!(handles.len(), 2);
        gate.open();
        assert!(join_all(handles).iter().all(|count| *count >= 1));
    });
}

#[test]
fn a_busy_worker_runs_it_after_its_job_and_ahead_of_the_queue() {
    within(LONG, "ahead of the queue", || {
        let pool = ThreadPool::new(2);
        let blocked = block_workers(&pool, 2);
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(what)
        };
        let queued = [(); 4].map(|()| pool.submit(note("queued")));
        let first = pool.broadcast(note("first"));
        let second = pool.broadcast(note("second"));
        assert_eq!(pool.metrics().queued, 8);
        blocked.release();
        join_all(first);
        join_all(second);
        for handle in queued {
            handle.join().unwrap();
        }
        let order = order.lock().unwrap();
        // Each worker runs its two before it takes a job out of the queue.
        let position = |what, n| {
            let mut found = order
                .iter()
                .enumerate()
                .filter(|(_, noted)| **noted == what);
            found.nth(n).unwrap().0
        };
        assert!(position("first", 0) < position("second", 0));
        assert!(position("second", 0) < position("queued", 0));
        assert_eq!(order.len(), 8);
    });
}

#[test]
fn a_worker_that_waits_in_a_job_does_not_run_it_meanwhile() {
    within(LONG, "not meanwhile", || {
        let pool = ThreadPool::new(1);
        let (gate, (tell, told)) = (Gate::new(), mpsc::channel());
        let (promise, promised) = futurepool::promise::<()>();
        let running = pool.submit({
            let gate = gate.clone();
            move || {
                tell.send(()).unwrap();
                promised.join().unwrap();
                gate.wait();
            }
        });
        told.recv_timeout(LONG).unwrap();
        let handles = pool.broadcast(|| ());
        // Time to run the job while the worker waits, and once it is awake.
        thread::sleep(Duration::from_millis(20));
        promise.complete(()).unwrap();
        thread::sleep(Duration::from_millis(20));
        assert!(!handles[0].is_finished());
        gate.open();
        running.join().unwrap();
        join_all(handles);
    });
}

/// Runs `wait` in the only worker, with the handle of a job that only this worker can run.
fn waits_for_itself(wait: impl FnOnce(JoinHandle<ThreadId>) -> ThreadId + Send + 'static) {
    within(LONG, "a worker waits for its own broadcast job", || {
        let pool = Arc::new(ThreadPool::new(1));
        let in_job = Arc::clone(&pool);
        let job = pool.submit(move || {
            let handle = in_job.broadcast(this_thread).pop().unwrap();
            assert_eq!(wait(handle), this_thread());
        });
        job.join().unwrap();
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
        let metrics = pool.metrics();
        assert_eq!((metrics.completed, metrics.queued), (3, 0));
    });
}

#[test]
fn a_worker_that_joins_its_own_job_runs_it() {
    waits_for_itself(|handle| handle.join().unwrap());
}

#[test]
fn a_worker_that_blocks_on_its_own_job_runs_it() {
    waits_for_itself(|handle| block_on(handle).unwrap());
}

#[test]
fn a_worker_that_waits_for_all_or_the_first_of_a_set_runs_its_own_job() {
    waits_for_itself(|handle| {
        let waited = wait([handle], ReturnWhen::AllCompleted).join();
        waited.done.into_iter().next().unwrap().join().unwrap()
    });
    waits_for_itself(|handle| as_completed([handle]).wait_next().unwrap().unwrap());
}

#[test]
fn a_worker_runs_its_own_jobs_of_several_broadcasts_that_one_poll_meets() {
    within(LONG, "several own jobs", || {
        let pool = Arc::new(ThreadPool::new(1));
        let in_job = Arc::clone(&pool);
        let job = pool.submit(move || {
            let handles = (1..=3).flat_map(|n| in_job.broadcast(move || n));
            let mut completed = as_completed(handles.collect::<Vec<_>>());
            std::iter::from_fn(|| completed.wait_next())
                .map(Result::unwrap)
                .sum::<i32>()
        });
        assert_eq!(job.join().unwrap(), 6);
    });
}

#[test]
fn a_worker_finds_its_own_job_in_a_set_that_was_polled_elsewhere() {
    within(LONG, "a set polled elsewhere", || {
        let pool = ThreadPool::new(1);
        let (tell, told) = mpsc::channel();
        let job = pool.submit(move || {
            let mut set: Pin<Box<dyn Future<Output = ThreadId> + Send>> =
                told.recv_timeout(LONG).unwrap();
            block_on(set.as_mut())
        });
        eventually("it runs", || pool.metrics().running == 1);
        let handles = pool.broadcast(this_thread);
        let mut set: Pin<Box<dyn Future<Output = ThreadId> + Send>> = Box::pin(async {
            let mut completed = as_completed(handles);
            futures::StreamExt::next(&mut completed)
                .await
                .unwrap()
                .unwrap()
        });
        let poll = set.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending());
        tell.send(set).unwrap();
        assert_ne!(job.join().unwrap(), this_thread());
    });
}

#[test]
fn no_other_worker_runs_it_while_it_waits() {
    within(LONG, "on its own worker", || {
        let pool = Arc::new(ThreadPool::new(2));
        start_workers(&pool, 2);
        let busy = block_workers(&pool, 1);
        let in_job = Arc::clone(&pool);
        let (tell, told) = mpsc::channel();
        let job = pool.submit(move || {
            let handles = in_job.broadcast(this_thread);
            tell.send(()).unwrap();
            // One is its own, and the other one that of the busy worker.
            let ids: BTreeSet<_> = join_all(handles)
                .into_iter()
                .map(|id| format!("{id:?}"))
                .collect();
            ids.len()
        });
        told.recv_timeout(LONG).unwrap();
        // Time to run the other worker's job.
        thread::sleep(Duration::from_millis(20));
        assert!(!job.is_finished());
        busy.release();
        assert_eq!(job.join().unwrap(), 2);
    });
}

#[test]
fn jobs_that_join_broadcast_jobs_of_each_others_workers_are_a_deadlock() {
    within(LONG, "a deadlock", || {
        let pool = Arc::new(ThreadPool::new(2));
        start_workers(&pool, 2);
        let both = Arc::new(Barrier::new(2));
        let jobs = [(); 2].map(|()| {
            let (in_job, both) = (Arc::clone(&pool), Arc::clone(&both));
            pool.submit(move || {
                both.wait();
                let handles = in_job.broadcast(|| ());
                both.wait();
                let errors = handles.into_iter().filter_map(|handle| handle.join().err());
                errors.map(|error| error.to_string()).collect::<Vec<_>>()
            })
        });
        let errors = jobs.map(|job| job.join().unwrap()).concat();
        // One of the two gives way, and then the other one has its result.
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("deadlock"), "{errors:?}");
        // What was given up still runs.
        eventually("all have run", || pool.metrics().completed == 2 + 2 + 4);
    });
}

#[test]
fn a_cancelled_job_never_runs_and_frees_what_it_captured_with_the_last_one() {
    within(LONG, "cancel", || {
        let pool = ThreadPool::new(2);
        let blocked = block_workers(&pool, 2);
        let captured = Arc::new(());
        let (inside, ran) = (Arc::clone(&captured), Arc::new(AtomicBool::new(false)));
        let runs = Arc::clone(&ran);
        let handles = pool.broadcast(move || {
            let _ = &inside;
            runs.store(true, SeqCst);
        });
        assert_eq!(handles.len(), 2);
        assert!(handles.iter().all(JoinHandle::cancel));
        assert_eq!(Arc::strong_count(&captured), 1);
        let metrics = pool.metrics();
        assert_eq!((metrics.cancelled, metrics.queued), (2, 0));
        blocked.release();
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
        assert!(!ran.load(SeqCst));
    });
}

#[test]
fn a_panic_is_that_of_one_job() {
    within(LONG, "a panic", || {
        let pool = idle_pool(3);
        let count = AtomicUsize::new(0);
        let handles = pool.broadcast(move || assert!(count.fetch_add(1, SeqCst) != 1, "one"));
        let outcomes: Vec<_> = handles.into_iter().map(JoinHandle::join).collect();
        let panics = outcomes.iter().flat_map(|outcome| outcome.as_ref().err());
        assert_eq!(panics.filter(|error| error.is_panic()).count(), 1);
        assert_eq!(pool.metrics().workers, 3);
    });
}

#[test]
fn shutdown_runs_them_and_refuses_new_ones() {
    within(LONG, "shutdown", || {
        let pool = ThreadPool::new(2);
        let blocked = block_workers(&pool, 2);
        let handles = pool.broadcast(|| 1);
        let shutdown = pool.shutdown();
        let late = pool.broadcast(|| 2);
        assert_eq!(late.len(), 2);
        for handle in late {
            assert!(handle.join().unwrap_err().is_shutdown());
        }
        assert_eq!(pool.metrics().rejected, 2);
        blocked.release();
        assert_eq!(join_all(handles), [1, 1]);
        shutdown.join();
        assert!(pool.broadcast(|| 3).is_empty());
    });
}

#[test]
fn shutdown_now_and_cancel_queued_cancel_them() {
    within(LONG, "cancelled", || {
        for stop in [false, true] {
            let pool = ThreadPool::new(2);
            let blocked = block_workers(&pool, 2);
            let queued = pool.submit(|| ());
            let handles = pool.broadcast(|| ());
            let cancelled = if stop {
                pool.shutdown_now().cancelled()
            } else {
                pool.cancel_queued()
            };
            assert_eq!(cancelled, 3);
            assert!(handles.iter().all(JoinHandle::is_cancelled));
            assert!(queued.is_cancelled());
            blocked.release();
            if !stop {
                assert_eq!(join_all(pool.broadcast(|| 1)), [1, 1]);
            }
        }
    });
}

#[test]
fn a_broken_pool_gives_its_error() {
    within(LONG, "broken", || {
        let fails = Arc::new(AtomicBool::new(false));
        let gate = Gate::new();
        let builder = ThreadPool::builder().max_workers(2).initializer({
            let (fails, gate) = (Arc::clone(&fails), gate.clone());
            move || {
                if fails.load(SeqCst) {
                    gate.wait();
                    panic!("no");
                }
            }
        });
        let pool = builder.build().unwrap();
        let blocked = block_workers(&pool, 1);
        fails.store(true, SeqCst);
        pool.prestart(2);
        let handles = pool.broadcast(|| ());
        assert_eq!(handles.len(), 2);
        gate.open();
        for handle in handles {
            assert!(handle.join().unwrap_err().is_broken());
        }
        eventually("the other one is gone", || pool.metrics().workers == 1);
        for handle in pool.broadcast(|| ()) {
            assert!(handle.join().unwrap_err().is_broken());
        }
        blocked.release();
    });
}

#[test]
fn wait_idle_waits_for_them() {
    within(LONG, "wait_idle", || {
        let pool = Arc::new(idle_pool(2));
        let gate = Gate::new();
        let wait = gate.clone();
        let handles = pool.broadcast(move || wait.wait());
        let mut idle = pool.wait_idle();
        assert!(idle.join_timeout(Duration::from_millis(20)).is_err());
        gate.open();
        idle.join();
        assert!(handles.iter().all(JoinHandle::is_finished));
    });
}

#[test]
fn a_full_queue_is_exceeded_and_the_permits_come_back() {
    within(LONG, "permits", || {
        let pool = bounded_pool(2, 1);
        let blocked = block_workers(&pool, 2);
        let queued = pool.try_submit(|| ()).unwrap();
        let handles = pool.broadcast(|| ());
        assert_eq!(pool.metrics().queued, 3);
        assert!(handles[0].cancel());
        assert_eq!(pool.metrics().queued, 2);
        assert!(pool.try_submit(|| ()).unwrap_err().is_full());
        blocked.release();
        queued.join().unwrap();
        eventually("all have run", || pool.metrics().queued == 0);
        pool.try_submit(|| ()).unwrap().join().unwrap();
        assert_eq!(pool.metrics().cancelled, 1);
    });
}

#[test]
fn a_surplus_worker_that_exits_first_cancels_its_job() {
    within(LONG, "an exit first", || {
        let pool = ThreadPool::new(4);
        let blocked = block_workers(&pool, 4);
        let handles = pool.broadcast(|| ());
        pool.set_max_workers(1).unwrap();
        blocked.release();
        let outcomes: Vec<_> = handles.into_iter().map(JoinHandle::join).collect();
        let ran = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        let cancelled = errors.filter(|error| error.is_cancelled()).count();
        assert_eq!((ran, cancelled), (1, 3));
        eventually("one is left", || pool.metrics().workers == 1);
        assert_eq!(pool.metrics().cancelled, 3);
        assert_eq!(pool.broadcast(|| ()).len(), 1);
    });
}

#[test]
fn a_worker_whose_keep_alive_has_elapsed_runs_what_it_was_given() {
    within(LONG, "keep_alive", || {
        let builder = ThreadPool::builder().max_workers(2);
        let pool = builder.keep_alive(Duration::ZERO).build().unwrap();
        let start = Instant::now();
        let mut given = 0;
        while start.elapsed() < Duration::from_secs(1) || given == 0 {
            drop([(); 2].map(|()| pool.submit(|| ())));
            // Whatever the workers do at this moment, each of these runs.
            let handles = pool.broadcast(|| ());
            given += handles.len();
            join_all(handles);
        }
    });
}

#[test]
fn a_submitted_job_gets_a_worker_of_its_own_while_the_others_run_a_broadcast() {
    within(LONG, "a worker of its own", || {
        for round in 0..300 {
            let pool = ThreadPool::new(3);
            start_workers(&pool, 1 + round % 2);
            let (go, wait) = mpsc::channel::<()>();
            let wait = Mutex::new(wait);
            let handles = pool.broadcast(move || wait.lock().unwrap().recv_timeout(LONG));
            // Each of them ends only when the job has run.
            let len = handles.len();
            let job = pool.submit(move || (0..len).for_each(|_| go.send(()).unwrap()));
            for handle in handles {
                handle.join().unwrap().unwrap();
            }
            job.join().unwrap();
        }
    });
}

#[test]
fn a_broadcast_job_that_waits_for_its_worker_starts_no_other_worker() {
    within(LONG, "no other worker", || {
        let pool = ThreadPool::new(8);
        let blocked = block_workers(&pool, 2);
        let handles: Vec<_> = (0..5).flat_map(|_| pool.broadcast(|| ())).collect();
        assert_eq!(handles.len(), 10);
        pool.submit(|| ()).join().unwrap();
        pool.submit(|| ()).join().unwrap();
        pool.set_max_workers(9).unwrap();
        assert_eq!(pool.metrics().workers, 3, "one for the other jobs");
        blocked.release();
        join_all(handles);
    });
}

#[test]
fn broadcasts_submits_and_resizes_at_the_same_time_lose_nothing() {
    within(LONG, "all at once", || {
        let pool = Arc::new(ThreadPool::new(4));
        let done = Arc::new(AtomicBool::new(false));
        let resizer = {
            let (pool, done) = (Arc::clone(&pool), Arc::clone(&done));
            thread::spawn(move || {
                for n in (1..=4).cycle() {
                    pool.set_max_workers(n).unwrap();
                    if done.load(SeqCst) {
                        return;
                    }
                }
            })
        };
        let submitter = {
            let (pool, done) = (Arc::clone(&pool), Arc::clone(&done));
            thread::spawn(move || {
                while !done.load(SeqCst) {
                    let inner = Arc::clone(&pool);
                    let job = pool.submit(move || inner.submit(|| 1).join().unwrap());
                    assert_eq!(job.join().unwrap(), 1);
                }
            })
        };
        let start = Instant::now();
        let mut ran = 0;
        while start.elapsed() < Duration::from_secs(2) {
            for handle in pool.broadcast(this_thread) {
                match handle.join() {
                    Ok(id) => {
                        assert_ne!(id, this_thread());
                        ran += 1;
                    }
                    Err(error) => assert!(error.is_cancelled(), "{error}"),
                }
            }
        }
        done.store(true, SeqCst);
        resizer.join().unwrap();
        submitter.join().unwrap();
        assert!(ran > 0);
        pool.wait_idle().join();
        let metrics = pool.metrics();
        let resolved = metrics.completed + metrics.panicked + metrics.cancelled;
        assert_eq!((metrics.submitted, metrics.queued), (resolved, 0));
    });
}

#[test]
fn the_process_wide_pool_broadcasts_too() {
    within(LONG, "the global pool", || {
        futurepool::submit(|| ()).join().unwrap();
        let handles = futurepool::global().broadcast(this_thread);
        assert!(!handles.is_empty());
        join_all(handles);
    });
}

#[test]
fn an_observed_pool_tells_of_them_and_measures_them() {
    within(LONG, "events", || {
        let (finished, submitted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let builder = ThreadPool::builder().max_workers(3).timings(true).on_job({
            let (finished, submitted) = (Arc::clone(&finished), Arc::clone(&submitted));
            move |event| match event {
                JobEvent::Submitted { .. } => drop(submitted.fetch_add(1, SeqCst)),
                JobEvent::Finished { .. } => drop(finished.fetch_add(1, SeqCst)),
                _ => {}
            }
        });
        let pool = builder.build().unwrap();
        start_workers(&pool, 3);
        join_all(pool.broadcast(|| ()));
        assert_eq!((submitted.load(SeqCst), finished.load(SeqCst)), (6, 6));
        assert_eq!(pool.metrics().run_time.count(), 6);
    });
}

#[test]
fn the_queue_timeout_is_theirs_too() {
    within(LONG, "a queue timeout", || {
        let builder = ThreadPool::builder().max_workers(1);
        let pool = builder
            .queue_timeout(Duration::from_millis(20))
            .build()
            .unwrap();
        let blocked = block_workers(&pool, 1);
        let handle = pool.broadcast(|| ()).pop().unwrap();
        assert!(handle.join().unwrap_err().is_expired());
        assert_eq!((pool.metrics().expired, pool.metrics().queued), (1, 0));
        blocked.release();
        // The rest of it leaves the worker's mailbox. On a busy machine the first jobs may be late.
        eventually("a job starts in time", || {
            pool.submit(|| 1).join().is_ok_and(|one| one == 1)
        });
    });
}

#[test]
fn a_slow_hook_delays_the_deadline_of_none_of_them() {
    within(LONG, "a slow hook", || {
        let (expired, has_expired) = mpsc::channel();
        let has_expired = Mutex::new(has_expired);
        let (tell, told) = mpsc::channel();
        let is_broadcast = Arc::new(AtomicBool::new(false));
        let of_hook = Arc::clone(&is_broadcast);
        let hook = move |event: &JobEvent| match event {
            // The first of them waits until both have expired.
            JobEvent::Submitted { .. } if of_hook.swap(false, SeqCst) => {
                let has_expired = has_expired.lock().unwrap();
                let in_time = (0..2).all(|_| has_expired.recv_timeout(LONG / 6).is_ok());
                tell.send(in_time).unwrap();
            }
            _ if event.outcome() == Some(JobOutcome::Expired) => expired.send(()).unwrap(),
            _ => {}
        };
        let builder = ThreadPool::builder().max_workers(2).on_job(hook);
        let timeout = Duration::from_millis(300);
        let pool = builder.queue_timeout(timeout).build().unwrap();
        let blocked = block_workers(&pool, 2);
        is_broadcast.store(true, SeqCst);
        let handles = pool.broadcast(|| ());
        assert!(told.recv().unwrap(), "a deadline came after the hook");
        for handle in handles {
            assert!(handle.join().unwrap_err().is_expired());
        }
        blocked.release();
    });
}

#[test]
fn a_callback_of_a_job_that_an_exiting_worker_cancels_can_join() {
    within(LONG, "a callback", || {
        let pool = ThreadPool::builder().max_workers(2);
        let pool = pool.keep_alive(Duration::from_millis(1)).build().unwrap();
        let pool = Arc::new(pool);
        let busy = block_workers(&pool, 2);
        pool.set_max_workers(1).unwrap();
        let (joins, joined) = mpsc::channel();
        for job in pool.broadcast(|| ()) {
            let (pool, joins) = (Arc::clone(&pool), joins.clone());
            job.add_done_callback(move |outcome| {
                if outcome.is_err() {
                    // It counts as the only worker that is allowed.
                    eventually("the other worker exits", || pool.metrics().workers == 1);
                    joins.send(pool.submit(|| 7).join()).unwrap();
                }
            });
        }
        // One of them is surplus, and the other one runs its job and then has no more to do.
        busy.release();
        assert_eq!(joined.recv_timeout(LONG).unwrap().unwrap(), 7);
    });
}
