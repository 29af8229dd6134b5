//! The `Executor` trait: custom executors, the crate's own ones, and a `ThreadPool` called through
//! the trait.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::{
    CountingWaker, Gate, LONG, block_workers, bounded_pool, eventually, poll_once, poll_with,
    spawn_until_asleep, within,
};
use futurepool::{
    Executor, ExecutorExt, InlineExecutor, Job, JoinError, JoinHandle, ThreadPool, block_on,
    cancel_requested,
};
use futures::StreamExt;

/// Keeps jobs until the test runs them.
#[derive(Debug, Default)]
struct Queue(Mutex<VecDeque<Job>>);

impl Queue {
    fn take(&self) -> Job {
        let job = self.0.lock().unwrap().pop_front();
        job.expect("a job")
    }
}

impl Executor for Queue {
    fn execute(&self, job: Job) {
        self.0.lock().unwrap().push_back(job);
    }
}

/// Calls the closure with every job.
struct With<F>(F);

impl<F: Fn(Job) + Send + Sync> Executor for With<F> {
    fn execute(&self, job: Job) {
        (self.0)(job);
    }
}

/// Returns an executor that forwards its jobs to `pool`.
fn forwarding(pool: &ThreadPool) -> With<impl Fn(Job) + Send + Sync + '_> {
    With(|job| pool.execute(job))
}

/// Returns the number of accepted jobs, and how many of them ended in each way.
fn counts(pool: &ThreadPool) -> [u64; 5] {
    let metrics = pool.metrics();
    [
        metrics.submitted,
        metrics.completed,
        metrics.panicked,
        metrics.cancelled,
        metrics.rejected,
    ]
}

/// Covers what every executor that runs its jobs must support.
fn story<E: Executor + ?Sized>(executor: &E) {
    assert_eq!(executor.submit(|| 6 * 7).join().unwrap(), 42);
    let panics = executor.submit(|| panic!("expected"));
    assert!(panics.join().unwrap_err().to_string().contains("expected"));
    assert_eq!(block_on(executor.submit(|| 7)).unwrap(), 7);
    let squares = executor.map(1..5_u32, |n| n * n).chunk_size(2);
    assert!(squares.into_iter().map(Result::unwrap).eq([1, 4, 9, 16]));
    let squares = executor.map_unordered(1.., |n: u32| n * n).buffer_size(3);
    let squares = block_on(squares.take(5).collect::<Vec<_>>());
    assert!(squares.iter().all(Result::is_ok) && squares.len() == 5);
    let (tell, told) = mpsc::channel();
    let handle = executor.submit(|| 8);
    handle.add_done_callback(move |result| tell.send(*result.unwrap()).unwrap());
    assert_eq!(told.recv_timeout(LONG), Ok(8));
}

#[test]
fn a_job_runs_when_its_executor_runs_it() {
    let queue = Queue::default();
    let first = queue.submit(|| 1);
    let mut second = queue.submit(|| 2);
    let (count, waker) = CountingWaker::new();
    assert!(poll_with(&mut second, &waker).is_pending());
    assert!(!first.is_finished() && !first.is_running());
    queue.take().run();
    assert!(first.is_finished() && !second.is_finished());
    assert_eq!(count.count(), 0);
    let job = queue.take();
    thread::spawn(move || job.run()).join().unwrap();
    assert_eq!(count.count(), 1);
    assert_eq!((first.join().unwrap(), block_on(second).unwrap()), (1, 2));
}

#[test]
fn a_job_runs_although_its_handle_was_dropped() {
    let queue = Queue::default();
    let (tell, told) = mpsc::channel();
    drop(queue.submit(move || tell.send(1).unwrap()));
    queue.take().run();
    assert_eq!(told.try_recv(), Ok(1));
}

#[test]
fn running_a_job_never_unwinds() {
    let queue = Queue::default();
    let handle = queue.submit(|| panic!("expected"));
    handle.add_done_callback(|_| panic!("expected in the callback"));
    queue.take().run();
    assert!(handle.join().unwrap_err().is_panic());
}

#[test]
fn a_job_that_is_dropped_resolves_as_cancelled() {
    let queue = Queue::default();
    let mut handle = queue.submit(|| 1);
    let (tell, told) = mpsc::channel();
    handle.add_done_callback(move |result| tell.send(result.unwrap_err().is_cancelled()).unwrap());
    let (count, waker) = CountingWaker::new();
    assert!(poll_with(&mut handle, &waker).is_pending());
    drop(queue.take());
    assert_eq!(told.try_recv(), Ok(true));
    assert_eq!(count.count(), 1);
    assert!(handle.is_cancelled() && handle.is_finished());
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn an_executor_that_drops_all_jobs_leaves_no_handle_hanging() {
    within(LONG, "drops", || {
        let drops = With(drop);
        assert!(drops.submit(|| 1).join().unwrap_err().is_cancelled());
        let queue = Queue::default();
        let handles = [queue.submit(|| 1), queue.submit(|| 2)];
        let waiters = handles.map(|handle| spawn_until_asleep(move || handle.join()));
        drop(queue);
        for waiter in waiters {
            assert!(waiter.join().unwrap().unwrap_err().is_cancelled());
        }
    });
}

#[test]
fn a_job_that_is_refused_resolves_with_that_error() {
    let queue = Queue::default();
    let mut closed = queue.submit(|| 1);
    let (count, waker) = CountingWaker::new();
    assert!(poll_with(&mut closed, &waker).is_pending());
    queue.take().refuse(JoinError::shutdown());
    assert_eq!(count.count(), 1);
    let error = closed.join().unwrap_err();
    assert!(error.is_shutdown() && !error.is_cancelled());

    let broken = queue.submit(|| 1);
    let cause = std::io::Error::other("no more disks");
    queue.take().refuse(JoinError::broken(cause));
    let error = broken.join().unwrap_err();
    assert!(error.is_broken() && !error.is_shutdown());
    assert!(error.to_string().contains("no more disks"), "{error}");
}

#[test]
fn a_job_may_be_refused_with_any_error_during_a_join() {
    let queue = Queue::default();
    let mut handle = queue.submit(|| 1);
    let error = handle.join_timeout(Duration::ZERO).unwrap_err();
    assert!(error.is_timeout());
    let joined = spawn_until_asleep(move || handle.join());
    queue.take().refuse(error);
    assert!(joined.join().unwrap().unwrap_err().is_timeout());
}

#[test]
fn captures_of_a_job_are_dropped_however_it_ends() {
    let ends: [fn(Job, &JoinHandle<()>); 4] = [
        |job, _| job.run(),
        |job, _| drop(job),
        |job, _| job.refuse(JoinError::shutdown()),
        // The executor still has the job when the test inspects the handle.
        |job, handle| {
            assert!(handle.cancel());
            std::mem::forget(job);
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let queue = Queue::default();
        let token = Arc::new(());
        let captured = Arc::clone(&token);
        let handle = queue.submit(move || drop(captured));
        end(queue.take(), &handle);
        assert_eq!(Arc::strong_count(&token), 1, "end {number}");
        assert!(handle.is_finished());
    }
}

#[test]
fn an_executor_that_panics_panics_in_submit_and_the_job_is_dropped() {
    let panics = With(|_job| panic!("no thanks"));
    let token = Arc::new(());
    let captured = Arc::clone(&token);
    let submit = || panics.submit(move || drop(captured));
    let payload = catch_unwind(AssertUnwindSafe(submit)).unwrap_err();
    assert_eq!(*payload.downcast::<&str>().unwrap(), "no thanks");
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn an_executor_that_panics_half_way_loses_no_result_of_a_map() {
    within(LONG, "panics half-way", || {
        let jobs = AtomicUsize::new(0);
        let second_panics = With(|job: Job| match jobs.fetch_add(1, SeqCst) {
            1 => panic!("no thanks"),
            _ => job.run(),
        });
        let mut results = second_panics.map(0..3, |n: usize| n);
        let (mut values, mut panics) = (Vec::new(), 0);
        loop {
            match catch_unwind(AssertUnwindSafe(|| results.wait_next())) {
                Ok(Some(result)) => values.push(result.unwrap()),
                Ok(None) => break,
                Err(_) => panics += 1,
            }
            assert!(panics <= 1);
        }
        // The job that the executor panicked with is gone; the other jobs are not.
        assert_eq!((panics, values), (1, vec![0, 2]));
    });
}

#[test]
fn a_cancelled_job_that_is_run_refused_or_dropped_does_nothing() {
    let late: [fn(Job); 3] = [Job::run, |job| job.refuse(JoinError::shutdown()), drop];
    for late in late {
        let queue = Queue::default();
        let (ran, callbacks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&ran);
        let mut handle = queue.submit(move || count.fetch_add(1, SeqCst));
        let count = Arc::clone(&callbacks);
        handle.add_done_callback(move |_| {
            count.fetch_add(1, SeqCst);
        });
        let (count, waker) = CountingWaker::new();
        assert!(poll_with(&mut handle, &waker).is_pending());
        assert!(handle.cancel());
        let seen = || (ran.load(SeqCst), callbacks.load(SeqCst), count.count());
        assert_eq!(seen(), (0, 1, 1), "cancelled at once");
        late(queue.take());
        assert_eq!(seen(), (0, 1, 1));
        assert!(handle.join().unwrap_err().is_cancelled());
    }
}

#[test]
fn a_cancel_of_a_running_job_is_seen_inside() {
    within(LONG, "cancel_requested", || {
        let queue = Queue::default();
        let gate = Gate::new();
        let opened = gate.clone();
        let (tell, told) = mpsc::channel();
        let handle = queue.submit(move || {
            tell.send(cancel_requested()).unwrap();
            opened.wait();
            // The cancel request of a job does not apply to another job that runs inside it.
            let inner = InlineExecutor.submit(cancel_requested).join().unwrap();
            (inner, cancel_requested())
        });
        let job = queue.take();
        let runner = thread::spawn(move || {
            job.run();
            cancel_requested()
        });
        assert_eq!(told.recv_timeout(LONG), Ok(false));
        assert!(handle.is_running());
        assert!(!handle.cancel(), "it is too late");
        gate.open();
        assert_eq!(handle.join().unwrap(), (false, true));
        assert!(!runner.join().unwrap(), "outside of a job");
    });
}

#[test]
fn inline_runs_at_once_in_the_caller() {
    let here = thread::current().id();
    let handle = InlineExecutor.submit(|| thread::current().id());
    assert!(handle.is_finished() && !handle.cancel());
    assert_eq!(handle.join().unwrap(), here);
    let mut panics = InlineExecutor.submit(|| panic!("expected"));
    assert!(panics.try_join().unwrap().unwrap_err().is_panic());
}

#[test]
fn inline_maps_as_lazily_as_others_do() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let mut results = InlineExecutor
        .map(0.., move |n: usize| {
            count.fetch_add(1, SeqCst);
            n
        })
        .buffer_size(2);
    assert_eq!(calls.load(SeqCst), 0);
    for n in 0..10 {
        assert_eq!(results.wait_next().unwrap().unwrap(), n);
        assert_eq!(calls.load(SeqCst), n + 1 + 2);
    }
}

#[test]
fn pointers_to_executors_are_executors_and_so_are_trait_objects() {
    within(LONG, "pointers", || {
        let pool = Arc::new(ThreadPool::new(2));
        story(&InlineExecutor);
        story(&*pool);
        story(&&*pool);
        story(&pool);
        story::<dyn Executor>(&*pool);
        story::<Arc<dyn Executor>>(&(pool.clone() as _));
        story::<Box<dyn Executor>>(&(Box::new(pool) as _));
        story(&Box::new(InlineExecutor));
        story(&(&InlineExecutor as &dyn Executor));
        story(futurepool::global());
        story::<dyn Executor>(futurepool::global());
    });
}

#[test]
fn a_custom_executor_supports_the_whole_story() {
    within(LONG, "one thread", || {
        let (jobs, queue) = mpsc::channel::<Job>();
        let runner = thread::spawn(move || queue.into_iter().for_each(Job::run));
        let executor = With(move |job| jobs.send(job).unwrap());
        story(&executor);
        drop(executor);
        runner.join().unwrap();
    });
}

#[test]
fn jobs_can_be_sent_and_executors_shared() {
    fn send<T: Send + 'static>() {}
    fn shared<T: Send + Sync + ?Sized>() {}
    send::<Job>();
    shared::<dyn Executor>();
    shared::<InlineExecutor>();
    let queue = Queue::default();
    let _handle = queue.submit(|| ());
    assert!(format!("{queue:?}").contains("Job"));
}

#[test]
fn a_panic_names_the_submit_location_also_through_the_trait() {
    let executor: &dyn Executor = &InlineExecutor;
    let handle = executor.submit(|| panic!("expected"));
    let line = line!() - 1;
    let message = handle.join().unwrap_err().to_string();
    assert!(
        message.contains(&format!("{}:{line}", file!())),
        "{message}"
    );
}

mod a_pool_through_the_trait {
    use super::*;

    #[test]
    fn counts_as_a_direct_submit_does() {
        within(LONG, "counts", || {
            let pool = ThreadPool::new(1);
            let executor: &dyn Executor = &pool;
            executor.submit(|| ()).join().unwrap();
            assert!(executor.submit(|| panic!("expected")).join().is_err());
            let blocked = block_workers(&pool, 1);
            assert!(executor.submit(|| ()).cancel());
            blocked.release();
            pool.shutdown().join();
            assert!(executor.submit(|| ()).join().unwrap_err().is_shutdown());
            assert_eq!(counts(&pool), [4, 2, 1, 1, 1]);
        });
    }

    #[test]
    fn blocks_while_it_is_full_and_a_cancel_releases_a_permit() {
        within(LONG, "full", || {
            let pool = Arc::new(bounded_pool(1, 1));
            let blocked = block_workers(&pool, 1);
            let executor: Arc<dyn Executor> = pool.clone();
            let queued = executor.submit(|| 1);
            let own = Arc::clone(&executor);
            let waiter = spawn_until_asleep(move || own.submit(|| 2));
            assert!(!waiter.is_finished());
            assert_eq!(pool.metrics().submitted, 2);
            assert!(queued.cancel());
            let handle = waiter.join().unwrap();
            assert!(handle.cancel());
            assert!(pool.try_submit(|| ()).is_ok(), "its permit is free");
            drop(blocked);
        });
    }

    #[test]
    fn exceeds_its_capacity_in_its_own_worker() {
        within(LONG, "own worker", || {
            let pool = Arc::new(bounded_pool(1, 1));
            let own: Arc<dyn Executor> = pool.clone();
            let handles = pool.submit(move || [1, 2, 3].map(|n| own.submit(move || n)));
            let handles = handles.join().unwrap();
            assert_eq!(handles.map(|handle| handle.join().unwrap()), [1, 2, 3]);
        });
    }

    #[test]
    fn maps_without_blocking_while_it_is_full() {
        within(LONG, "map", || {
            let pool = bounded_pool(1, 1);
            let blocked = block_workers(&pool, 1);
            let queued = pool.submit(|| ());
            let executor: &dyn Executor = &pool;
            let mut results = executor.map(0..3, |n: usize| n).start();
            let mut unordered = ExecutorExt::map_unordered(&pool, 0..3, |n: usize| n);
            assert!(poll_once(&mut results.next()).is_pending());
            assert!(poll_once(&mut unordered.next()).is_pending());
            // Nor is there a limit when the pool is called through a pointer.
            let pointer: Box<dyn Executor + '_> = Box::new(&pool);
            let mut third = pointer.map(0..3, |n: usize| n).start();
            assert!(poll_once(&mut third.next()).is_pending());
            drop(third);
            assert_eq!(pool.metrics().submitted, 2);
            // One at a time: the other map waits for a permit.
            drop(unordered);
            blocked.release();
            queued.join().unwrap();
            assert!(results.into_iter().map(Result::unwrap).eq(0..3));
        });
    }

    #[test]
    fn ends_a_map_with_one_error_when_it_is_shut_down() {
        within(LONG, "shutdown", || {
            let pool = ThreadPool::new(1);
            let executor: &dyn Executor = &pool;
            let mut results = executor.map(0.., |n: usize| n).buffer_size(2).start();
            pool.shutdown().join();
            assert_eq!(results.wait_next().unwrap().unwrap(), 0);
            assert_eq!(results.wait_next().unwrap().unwrap(), 1);
            assert!(results.wait_next().unwrap().unwrap_err().is_shutdown());
            assert!(results.wait_next().is_none());
        });
    }
}

mod a_pool_behind_an_executor {
    use super::*;

    #[test]
    fn runs_the_whole_story_and_counts_it() {
        within(LONG, "story", || {
            let pool = bounded_pool(2, 4);
            story(&forwarding(&pool));
            pool.shutdown().join();
            let [submitted, completed, panicked, cancelled, rejected] = counts(&pool);
            assert_eq!(submitted, completed + panicked + cancelled);
            assert_eq!((panicked, rejected), (1, 0));
            assert!(completed >= 10);
        });
    }

    #[test]
    fn a_join_outside_of_the_pool_waits_for_a_worker_to_run_it() {
        within(LONG, "the forwarded job", || {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let handle = forwarding(&pool).submit(|| thread::current().id());
            let joiner = spawn_until_asleep(move || (thread::current().id(), handle.join()));
            assert_eq!(pool.metrics().queued, 1);
            blocked.release();
            let (joiner, worker) = joiner.join().unwrap();
            assert_ne!(joiner, worker.unwrap());
        });
    }

    #[test]
    fn a_cancelled_job_is_no_longer_queued() {
        within(LONG, "the forwarded job", || {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let handle = forwarding(&pool).submit(|| ());
            assert_eq!(pool.metrics().queued, 1);
            assert!(handle.cancel());
            let metrics = pool.metrics();
            assert_eq!((metrics.queued, metrics.cancelled), (0, 1));
            blocked.release();
        });
    }

    #[test]
    fn a_queued_job_is_cancelled_at_once_and_its_permit_is_released() {
        within(LONG, "cancel", || {
            let pool = bounded_pool(1, 1);
            let blocked = block_workers(&pool, 1);
            let token = Arc::new(());
            let captured = Arc::clone(&token);
            let mut handle = forwarding(&pool).submit(move || drop(captured));
            assert_eq!(pool.metrics().queued, 1);
            assert!(pool.try_submit(|| ()).unwrap_err().is_full());
            let (count, waker) = CountingWaker::new();
            assert!(poll_with(&mut handle, &waker).is_pending());
            assert!(handle.cancel());
            assert_eq!((count.count(), Arc::strong_count(&token)), (1, 1));
            assert!(handle.join().unwrap_err().is_cancelled());
            assert_eq!(pool.metrics().queued, 0);
            assert_eq!(counts(&pool), [2, 0, 0, 1, 1]);
            let _next = pool.try_submit(|| ()).expect("a permit is free");
            drop(blocked);
        });
    }

    #[test]
    fn it_blocks_while_the_pool_is_full_until_a_permit_is_free() {
        within(LONG, "full", || {
            let pool = Arc::new(bounded_pool(1, 1));
            let blocked = block_workers(&pool, 1);
            let queued = forwarding(&pool).submit(|| 1);
            let own = Arc::clone(&pool);
            let waiter = spawn_until_asleep(move || forwarding(&own).submit(|| 2));
            assert!(!waiter.is_finished());
            assert_eq!(pool.metrics().queued, 1);
            blocked.release();
            assert_eq!(queued.join().unwrap(), 1);
            assert_eq!(waiter.join().unwrap().join().unwrap(), 2);
        });
    }

    #[test]
    fn a_waiting_submitter_is_released_by_a_shutdown() {
        within(LONG, "released", || {
            let pool = Arc::new(bounded_pool(1, 1));
            let blocked = block_workers(&pool, 1);
            let _queued = pool.submit(|| ());
            let own = Arc::clone(&pool);
            let waiter = spawn_until_asleep(move || forwarding(&own).submit(|| 2));
            drop(pool.shutdown());
            let handle = waiter.join().unwrap();
            assert!(handle.join().unwrap_err().is_shutdown());
            assert_eq!(pool.metrics().rejected, 1);
            drop(blocked);
        });
    }

    #[test]
    fn in_a_worker_of_the_pool_it_exceeds_the_capacity() {
        within(LONG, "own worker", || {
            let pool = Arc::new(bounded_pool(1, 1));
            let own = Arc::clone(&pool);
            let handles = pool.submit(move || {
                let executor = forwarding(&own);
                [1, 2, 3].map(|n| executor.submit(move || n))
            });
            let handles = handles.join().unwrap();
            assert_eq!(handles.map(|handle| handle.join().unwrap()), [1, 2, 3]);
        });
    }

    #[test]
    fn a_job_cancelled_before_it_is_forwarded_takes_no_permit_nor_counts() {
        within(LONG, "cancelled before", || {
            let pool = bounded_pool(1, 1);
            let blocked = block_workers(&pool, 1);
            let queue = Queue::default();
            for _ in 0..3 {
                let handle = queue.submit(|| ());
                assert!(handle.cancel());
                pool.execute(queue.take());
            }
            assert_eq!(counts(&pool), [1, 0, 0, 0, 0]);
            let _next = pool.try_submit(|| ()).expect("a permit is free");
            drop(blocked);
        });
    }

    #[test]
    fn jobs_get_the_pools_error_when_it_is_closed_or_broken() {
        within(LONG, "closed", || {
            let pool = ThreadPool::new(1);
            pool.shutdown().join();
            let handle = forwarding(&pool).submit(|| ());
            assert!(handle.join().unwrap_err().is_shutdown());
            assert_eq!(counts(&pool), [0, 0, 0, 0, 1]);

            let builder = ThreadPool::builder().max_workers(1);
            let broken = builder.initializer(|| Err::<(), _>("no connection"));
            let broken = broken.build().unwrap();
            let error = forwarding(&broken).submit(|| ()).join().unwrap_err();
            assert!(error.is_broken());
            assert!(error.to_string().contains("no connection"), "{error}");
        });
    }

    #[test]
    fn shutdown_now_cancels_queued_jobs_and_asks_running_jobs_to_stop() {
        within(LONG, "shutdown_now", || {
            let pool = ThreadPool::new(1);
            let executor = forwarding(&pool);
            let gate = Gate::new();
            let opened = gate.clone();
            let running = executor.submit(move || {
                opened.wait();
                cancel_requested()
            });
            eventually("it runs", || running.is_running());
            let queued = executor.submit(|| ());
            let end = pool.shutdown_now();
            assert!(queued.join().unwrap_err().is_cancelled());
            gate.open();
            assert!(running.join().unwrap());
            end.join();
            assert_eq!(counts(&pool), [2, 1, 0, 1, 0]);
        });
    }

    #[test]
    fn cancel_pending_cancels_its_jobs_too() {
        within(LONG, "cancel_pending", || {
            let pool = bounded_pool(1, 3);
            let blocked = block_workers(&pool, 1);
            let executor = forwarding(&pool);
            let handles = [
                executor.submit(|| ()),
                pool.submit(|| ()),
                executor.submit(|| ()),
            ];
            assert_eq!(pool.cancel_pending(), 3);
            for handle in handles {
                assert!(handle.join().unwrap_err().is_cancelled());
            }
            assert_eq!(counts(&pool), [4, 0, 0, 3, 0]);
            drop(blocked);
        });
    }

    #[test]
    fn many_jobs_of_every_kind_leave_the_counts_consistent() {
        within(LONG, "many", || {
            let pool = bounded_pool(2, 8);
            let executor = forwarding(&pool);
            for n in 0..2_000 {
                let handle = executor.submit(move || assert!(n % 7 != 0, "expected"));
                match n % 3 {
                    0 => drop(handle.cancel()),
                    1 => drop(handle.join()),
                    _ => drop(handle),
                }
            }
            pool.shutdown().join();
            let metrics = pool.metrics();
            let ended = metrics.completed + metrics.panicked + metrics.cancelled;
            assert_eq!((metrics.submitted, metrics.rejected), (ended, 0));
            assert_eq!((metrics.queued, metrics.running), (0, 0));
            // A job cancelled before it was forwarded would not be counted, but that cannot happen
            // here.
            assert_eq!(metrics.submitted, 2_000);
        });
    }
}

#[cfg(feature = "tokio")]
mod tokio_handle {
    use super::*;

    fn runtime(blocking_threads: usize) -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("of-tokio");
        builder.max_blocking_threads(blocking_threads);
        builder.build().unwrap()
    }

    #[test]
    fn jobs_run_on_its_blocking_pool() {
        within(LONG, "tokio", || {
            let runtime = runtime(2);
            let handle = runtime.handle();
            story(handle);
            story::<dyn Executor>(handle);
            let job = handle.submit(|| {
                let name = thread::current().name().map(str::to_owned);
                // Only a thread of the blocking pool may block on the runtime.
                let current = tokio::runtime::Handle::current();
                (name, current.block_on(async { 5 }))
            });
            let (name, five) = job.join().unwrap();
            assert_eq!((name.as_deref(), five), (Some("of-tokio"), 5));
        });
    }

    #[test]
    fn a_runtime_shutdown_leaves_no_handle_hanging_and_cancels_later_jobs() {
        within(LONG, "tokio, shut down", || {
            let runtime = runtime(1);
            let handle = runtime.handle().clone();
            let gate = Gate::new();
            let opened = gate.clone();
            let running = handle.submit(move || opened.wait());
            eventually("it runs", || running.is_running());
            let queued = handle.submit(|| ());
            runtime.shutdown_background();
            gate.open();
            running.join().unwrap();
            // The runtime may have started the job or not.
            assert!(queued.join().err().is_none_or(|error| error.is_cancelled()));
            assert!(handle.submit(|| ()).join().unwrap_err().is_cancelled());
        });
    }

    #[test]
    fn a_queued_job_can_be_cancelled() {
        within(LONG, "tokio, cancel", || {
            let runtime = runtime(1);
            let gate = Gate::new();
            let opened = gate.clone();
            let running = runtime.handle().submit(move || {
                opened.wait();
                cancel_requested()
            });
            eventually("it runs", || running.is_running());
            let queued = runtime.handle().submit(|| ());
            assert!(queued.cancel() && queued.is_finished());
            assert!(!running.cancel());
            gate.open();
            assert!(running.join().unwrap());
        });
    }
}

#[cfg(feature = "rayon")]
mod rayon_pool {
    use super::*;

    #[test]
    fn jobs_run_on_its_threads() {
        within(LONG, "rayon", || {
            let builder = rayon_core::ThreadPoolBuilder::new().num_threads(2);
            let pool = builder.build().unwrap();
            story(&pool);
            story::<dyn Executor>(&pool);
            let index = pool.submit(rayon_core::current_thread_index);
            assert!(index.join().unwrap().is_some());
        });
    }

    #[test]
    fn a_queued_job_can_be_cancelled_and_never_runs() {
        within(LONG, "rayon, cancel", || {
            let builder = rayon_core::ThreadPoolBuilder::new().num_threads(1);
            let pool = builder.build().unwrap();
            let gate = Gate::new();
            let opened = gate.clone();
            let running = pool.submit(move || opened.wait());
            eventually("it runs", || running.is_running());
            let (ran, runs) = mpsc::channel();
            let queued = pool.submit(move || ran.send(()).unwrap());
            assert!(queued.cancel());
            gate.open();
            // Jobs run in FIFO order.
            pool.submit(|| ()).join().unwrap();
            running.join().unwrap();
            assert!(queued.join().unwrap_err().is_cancelled());
            assert!(runs.recv().is_err());
        });
    }
}
