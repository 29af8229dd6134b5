//! Guarantee 6: a wait in a worker for jobs of its own pool ends, even with one worker. A blocked
//! worker runs the jobs that it waits for, and no others. A cycle of joins is an error.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::common::{Gate, LONG, block_workers, bounded_pool, eventually, within};
use futurepool::{
    Executor, ExecutorExt, JoinError, JoinHandle, ReturnWhen, ThreadPool, as_completed, block_on,
    cancel_requested, wait,
};
use futures::future::{Either, join_all, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

type Pool = Arc<ThreadPool>;

/// After this time a pool whose workers all wait has tried several times to find a worker that may
/// run a queued job: the first pause is 10 ms. On a slow machine there may be fewer tries; then a
/// test shows less, but still passes.
const AFTER_STALLS: Duration = Duration::from_millis(100);

fn pool_of(workers: usize) -> Pool {
    Arc::new(ThreadPool::new(workers))
}

/// Runs `f` in a job of a pool with `workers` workers, and returns its result.
#[track_caller]
fn in_a_job<R: Send + 'static>(
    what: &str,
    workers: usize,
    f: impl FnOnce(&Pool) -> R + Send + 'static,
) -> R {
    within(LONG, what, move || {
        let pool = pool_of(workers);
        let inner = Arc::clone(&pool);
        let result = pool.submit(move || f(&inner)).join().unwrap();
        // Jobs that were not waited for run now.
        eventually("quiet", || {
            let metrics = pool.metrics();
            metrics.queued + metrics.running == 0 && metrics.idle == metrics.workers
        });
        let metrics = pool.metrics();
        let ended = metrics.completed + metrics.panicked + metrics.cancelled;
        assert_eq!(metrics.submitted, ended, "{metrics:?}");
        result
    })
}

fn numbers(pool: &ThreadPool) -> Vec<JoinHandle<u32>> {
    (0..10).map(|n| pool.submit(move || n)).collect()
}

fn sum(results: impl IntoIterator<Item = Result<u32, JoinError>>) -> u32 {
    results.into_iter().map(Result::unwrap).sum()
}

fn fib(pool: &Pool, n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let submit = |n| {
        let inner = Arc::clone(pool);
        pool.submit(move || fib(&inner, n))
    };
    let (a, b) = (submit(n - 1), submit(n - 2));
    a.join().unwrap() + b.join().unwrap()
}

#[test]
fn guarantee_6_recursive_joins_end_on_one_worker() {
    for workers in [1, 2, 3] {
        let result = in_a_job("fib", workers, move |pool| {
            let result = fib(pool, 20);
            assert!(pool.metrics().workers <= workers as u64);
            result
        });
        assert_eq!(result, 6765);
    }
}

#[test]
fn guarantee_6_every_kind_of_wait_ends_on_one_worker() {
    let join = in_a_job("join", 1, |pool| {
        sum(numbers(pool).into_iter().map(JoinHandle::join))
    });
    let root = in_a_job("block_on(handle)", 1, |pool| {
        sum(numbers(pool).into_iter().map(block_on))
    });
    let wrapped = in_a_job("block_on(tagged, cancel_on_drop)", 1, |pool| {
        let wrap = |handle: JoinHandle<u32>| block_on(handle.cancel_on_drop().tag("key")).1;
        sum(numbers(pool).into_iter().map(wrap))
    });
    let one_by_one = in_a_job("await one by one", 1, |pool| {
        let handles = numbers(pool);
        block_on(async {
            let mut results = Vec::new();
            for handle in handles {
                results.push(handle.await);
            }
            sum(results)
        })
    });
    let all = in_a_job("join_all", 1, |pool| sum(block_on(join_all(numbers(pool)))));
    let many = in_a_job("join_all of many", 1, |pool| {
        let handles = (0..100).map(|n| pool.submit(move || n));
        sum(block_on(join_all(handles))) - 4905
    });
    let sync = in_a_job("as_completed", 1, |pool| sum(as_completed(numbers(pool))));
    let stream = in_a_job("as_completed, async", 1, |pool| {
        sum(block_on(as_completed(numbers(pool)).collect::<Vec<_>>()))
    });
    let map = in_a_job("map", 1, |pool| sum(pool.map(0..10, |n| n)));
    let buffered = in_a_job("map with a buffer", 1, |pool| {
        sum(pool.map(0.., |n| n).buffer_size(2).into_iter().take(10))
    });
    let unordered = in_a_job("map_unordered", 1, |pool| {
        sum(pool.map_unordered(0..10, |n| n).chunk_size(3))
    });
    let scope = in_a_job("scope", 1, |pool| {
        let numbers: Vec<u32> = (0..10).collect();
        let mut results = [0; 10];
        pool.scope(|scope| {
            for (result, number) in results.iter_mut().zip(&numbers) {
                drop(scope.submit(move || *result = *number));
            }
        });
        results.iter().sum()
    });
    let sums = [
        join, root, wrapped, one_by_one, all, many, sync, stream, map, buffered, unordered, scope,
    ];
    assert_eq!(sums, [45; 12]);

    let done = |until| {
        in_a_job("wait", 1, move |pool| {
            wait(numbers(pool), until).join().done.len()
        })
    };
    assert_eq!(done(ReturnWhen::AllCompleted), 10);
    assert_eq!(done(ReturnWhen::FirstCompleted), 1);
    assert_eq!(done(ReturnWhen::FirstException), 10);
    let awaited = in_a_job("wait, awaited", 1, |pool| {
        block_on(wait(numbers(pool), ReturnWhen::AllCompleted))
            .done
            .len()
    });
    assert_eq!(awaited, 10);
}

/// Returns jobs that report where they ran, and what the waiting job saw while another worker was
/// free.
fn thread_ids(pool: &ThreadPool, n: usize) -> Vec<JoinHandle<ThreadId>> {
    (0..n)
        .map(|_| pool.submit(|| thread::current().id()))
        .collect()
}

#[test]
fn guarantee_6_waits_for_one_or_all_run_the_jobs_at_once_in_the_waiter() {
    within(LONG, "at once", || {
        // The other worker is busy, not waiting: it could run the jobs later.
        let pool = pool_of(2);
        let blocked = block_workers(&pool, 1);
        let gate = blocked.gate();
        let inner = Arc::clone(&pool);
        let here = pool.submit(move || {
            let here = thread::current().id();
            let mut there = Vec::new();
            for handle in thread_ids(&inner, 3) {
                there.push(handle.join().unwrap());
            }
            // Every wrapper of a handle does the same.
            for handle in thread_ids(&inner, 1) {
                there.push(handle.tag(1).join().1.unwrap());
            }
            for handle in thread_ids(&inner, 1) {
                there.push(handle.cancel_on_drop().join().unwrap());
            }
            for handle in thread_ids(&inner, 1) {
                there.push(handle.cancel_on_drop().tag(1).join().1.unwrap());
            }
            let waited = wait(thread_ids(&inner, 3), ReturnWhen::AllCompleted).join();
            there.extend(waited.done.into_iter().map(|handle| handle.join().unwrap()));
            let scoped = Mutex::new(Vec::new());
            inner.scope(|scope| {
                for _ in 0..3 {
                    drop(scope.submit(|| scoped.lock().unwrap().push(thread::current().id())));
                }
            });
            there.extend(scoped.into_inner().unwrap());
            assert_eq!(there.len(), 12);
            there.into_iter().all(|id| id == here)
        });
        assert!(here.join().unwrap());
        gate.open();
        blocked.release();
    });
}

/// Runs `f` in a job of a pool with two workers, of which the other is busy and does not wait.
#[track_caller]
fn beside_a_busy_worker(
    what: &str,
    capacity: Option<usize>,
    f: impl FnOnce(&ThreadPool) + Send + 'static,
) {
    within(LONG, what, move || {
        let pool = Arc::new(match capacity {
            Some(capacity) => bounded_pool(2, capacity),
            None => ThreadPool::new(2),
        });
        let blocked = block_workers(&pool, 1);
        let inner = Arc::clone(&pool);
        pool.submit(move || f(&inner)).join().unwrap();
        blocked.release();
    });
}

#[test]
fn guarantee_6_the_waiter_runs_the_next_item_of_an_ordered_map_at_once() {
    for capacity in [None, Some(1)] {
        for chunk in [None, Some(1), Some(3)] {
            for buffer in [None, Some(1), Some(4)] {
                let what = format!("capacity {capacity:?}, chunk {chunk:?}, buffer {buffer:?}");
                beside_a_busy_worker(&what, capacity, move |pool| {
                    let here = thread::current().id();
                    let new = || {
                        let map = pool.map(0..7, |n| (n, thread::current().id()));
                        let map = match chunk {
                            Some(n) => map.chunk_size(n),
                            None => map,
                        };
                        match buffer {
                            Some(n) => map.buffer_size(n),
                            None => map,
                        }
                    };
                    let wanted: Vec<_> = (0..7).map(|n| (n, here)).collect();
                    let iterated: Vec<_> = new().into_iter().map(Result::unwrap).collect();
                    assert_eq!(iterated, wanted);
                    let mut map = new();
                    let waited: Vec<_> = std::iter::from_fn(|| map.wait_next()).collect();
                    let waited: Vec<_> = waited.into_iter().map(Result::unwrap).collect();
                    assert_eq!(waited, wanted);
                    // Started before, it is the same wait.
                    let started: Vec<_> = new().start().into_iter().map(Result::unwrap).collect();
                    assert_eq!(started, wanted);
                });
            }
        }
    }
}

#[test]
fn guarantee_6_a_waiter_runs_an_ordered_map_while_the_queue_is_full() {
    within(LONG, "full", || {
        let pool = Arc::new(bounded_pool(2, 1));
        let blocked = block_workers(&pool, 1);
        let (begun, begins) = channel();
        let (full, fill) = channel::<()>();
        let inner = Arc::clone(&pool);
        let job = pool.submit(move || {
            begun.send(()).unwrap();
            fill.recv_timeout(LONG).unwrap();
            let here = thread::current().id();
            let mut map = inner.map(0..3, |n| (n, thread::current().id()));
            for n in 0..3 {
                assert_eq!(map.wait_next().unwrap().unwrap(), (n, here));
            }
            assert!(map.wait_next().is_none());
        });
        begins.recv_timeout(LONG).unwrap();
        let unrelated = pool.submit(|| thread::current().id());
        assert!(pool.try_submit(|| ()).unwrap_err().is_full());
        full.send(()).unwrap();
        job.join().unwrap();
        unrelated.join().unwrap();
        blocked.release();
    });
}

#[test]
fn guarantee_6_an_ordered_map_runs_only_the_item_that_it_waits_for() {
    beside_a_busy_worker("one item", None, |pool| {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ran);
        let run = move |n| seen.lock().unwrap().push(n);
        let unrelated = pool.submit(|| ());
        let mut map = pool.map(0..5, run).chunk_size(1).start();
        for n in 0..3 {
            map.wait_next().unwrap().unwrap();
            assert_eq!(*ran.lock().unwrap(), (0..=n).collect::<Vec<_>>());
        }
        // The rest is cancelled.
        drop(map);
        assert_eq!(ran.lock().unwrap().len(), 3);
        assert!(!unrelated.is_finished());
    });
}

#[test]
fn guarantee_6_helped_jobs_count_as_running_and_need_no_thread() {
    in_a_job("counts", 4, |pool| {
        let inner = Arc::clone(pool);
        let before = pool.metrics();
        assert_eq!((before.running, before.workers), (1, 1));
        // Another worker exists, but is kept busy.
        let (running, workers, idle) = pool
            .scope(|scope| {
                let blocked = block_workers(pool, 3);
                let counts = scope.submit(|| {
                    let metrics = inner.metrics();
                    (metrics.running, metrics.workers, metrics.idle)
                });
                let counts = counts.join();
                blocked.release();
                counts
            })
            .unwrap();
        assert_eq!((running, workers, idle), (5, 4, 0));
    });
    in_a_job("no thread", 4, |pool| {
        for n in 0..1_000 {
            // The job is queued for a moment, so a second worker may start; never a third.
            assert_eq!(pool.submit(move || n).join().unwrap(), n);
            assert!(pool.metrics().workers <= 2, "{:?}", pool.metrics());
        }
    });
}

/// Tests a wait in a job of a pool with two workers, both blocked. The awaited jobs must not run
/// before the other worker waits, too.
fn any_of_waits_help_last(
    what: &'static str,
    wait_for: fn(&Pool, Vec<JoinHandle<usize>>) -> Vec<usize>,
) {
    within(LONG, what, move || {
        let pool = pool_of(2);
        let ran = Arc::new(AtomicUsize::new(0));
        let (gate, other_waits) = (Gate::new(), Gate::new());
        let (tell, told) = channel();
        let other = pool.submit({
            let (pool, gate, other_waits) = (Arc::clone(&pool), gate.clone(), other_waits.clone());
            let ran = Arc::clone(&ran);
            move || {
                tell.send(()).unwrap();
                gate.wait();
                let seen = ran.load(SeqCst);
                // It waits for an event that comes only after the first worker has run the awaited
                // jobs.
                let (go, come) = futures::channel::oneshot::channel::<()>();
                let opener = thread::spawn(move || {
                    other_waits.wait();
                    go.send(()).unwrap();
                });
                block_on(come).unwrap();
                opener.join().unwrap();
                drop(pool);
                seen
            }
        });
        told.recv_timeout(LONG).unwrap();
        let (asleep, sleeps) = channel();
        let waiter = pool.submit({
            let (pool, ran) = (Arc::clone(&pool), Arc::clone(&ran));
            move || {
                let here = thread::current().id();
                let handles = (0..4).map(|n| {
                    let (ran, other_waits) = (Arc::clone(&ran), other_waits.clone());
                    pool.submit(move || {
                        assert_eq!(thread::current().id(), here, "the other worker waits");
                        ran.fetch_add(1, SeqCst);
                        if n == 3 {
                            other_waits.open();
                        }
                        n
                    })
                });
                let handles = handles.collect();
                asleep
                    .send(crate::common::ThreadState::of_this_thread())
                    .unwrap();
                wait_for(&pool, handles)
            }
        });
        let state = sleeps.recv_timeout(LONG).unwrap();
        eventually("the waiter sleeps", || state.sleeps());
        // Long enough for a worker that does not wait for the other one to run the jobs.
        thread::sleep(Duration::from_millis(50));
        assert_eq!(ran.load(SeqCst), 0, "{what}: a worker could still come");
        gate.open();
        assert_eq!(waiter.join().unwrap(), [0, 1, 2, 3], "{what}: oldest first");
        assert_eq!(other.join().unwrap(), 0, "{what}: only then");
    });
}

#[test]
fn guarantee_6_waits_for_any_help_only_if_no_worker_can_oldest_first() {
    any_of_waits_help_last("as_completed", |_, handles| {
        as_completed(handles)
            .into_iter()
            .map(Result::unwrap)
            .collect()
    });
    any_of_waits_help_last("wait for the first", |_, mut handles| {
        let mut order = Vec::new();
        while !handles.is_empty() {
            let waited = wait(handles, ReturnWhen::FirstCompleted).join();
            order.extend(waited.done.into_iter().map(|handle| handle.join().unwrap()));
            handles = waited.not_done;
        }
        order
    });
    any_of_waits_help_last("block_on of a set, again and again", |_, handles| {
        let mut set: FuturesUnordered<_> = handles.into_iter().collect();
        let mut order = Vec::new();
        while let Some(result) = block_on(set.next()) {
            order.push(result.unwrap());
        }
        order
    });
    any_of_waits_help_last("block_on of join_all", |_, handles| {
        block_on(join_all(handles))
            .into_iter()
            .map(Result::unwrap)
            .collect()
    });
    any_of_waits_help_last("block_on of a handle", |_, handles| {
        handles.into_iter().map(|h| block_on(h).unwrap()).collect()
    });
    any_of_waits_help_last("block_on of a wrapped handle", |_, handles| {
        let wrapped = handles.into_iter().map(|h| h.cancel_on_drop().tag("key"));
        wrapped.map(|h| block_on(h).1.unwrap()).collect()
    });
    any_of_waits_help_last("block_on of a wait for all", |_, handles| {
        let waited = block_on(wait(handles, ReturnWhen::AllCompleted));
        let done = waited.done.into_iter();
        done.map(|handle| handle.join().unwrap()).collect()
    });
    any_of_waits_help_last("map_unordered", |pool, handles| {
        let handles: Vec<_> = handles.into_iter().map(|h| Mutex::new(Some(h))).collect();
        // The jobs of the map join the given ones, so they must not run earlier either.
        let join = |handle: Mutex<Option<JoinHandle<usize>>>| {
            let handle = handle.lock().unwrap().take();
            handle.unwrap().join().unwrap()
        };
        let map = pool.map_unordered(handles, join).chunk_size(1);
        map.into_iter().map(Result::unwrap).collect()
    });
}

#[test]
fn guarantee_6_a_stream_that_was_polled_elsewhere_ends_in_a_worker() {
    in_a_job("moved in", 1, |pool| {
        // Polled by a thread that is no worker, so its handles only know that thread's waker.
        let mut all = as_completed(numbers(pool));
        let mut all = thread::spawn(move || {
            assert!(crate::common::poll_once(&mut all.next()).is_pending());
            all
        })
        .join()
        .unwrap();
        let mut count = 0;
        while let Some(result) = all.wait_next() {
            count += result.unwrap();
        }
        assert_eq!(count, 45);
    });
}

#[test]
fn guarantee_6_no_other_job_is_run_in_a_waiter() {
    in_a_job("no other", 1, |pool| {
        let ran = Arc::new(AtomicUsize::new(0));
        let others: Vec<_> = (0..10)
            .map(|_| {
                let ran = Arc::clone(&ran);
                pool.submit(move || ran.fetch_add(1, SeqCst))
            })
            .collect();
        let not_mine = |what| assert_eq!(ran.load(SeqCst), 0, "{what}");
        sum(numbers(pool).into_iter().map(JoinHandle::join));
        not_mine("join");
        sum(as_completed(numbers(pool)));
        not_mine("as_completed");
        wait(numbers(pool), ReturnWhen::AllCompleted).join();
        not_mine("wait");
        sum(pool.map(0..10, |n| n));
        not_mine("map");
        pool.scope(|scope| drop(scope.submit(|| ())));
        not_mine("scope");

        // Polled once, and then no longer awaited: these jobs do not run here either.
        let mut others = as_completed(others);
        let first = block_on(select(Box::pin(others.next()), pool.submit(|| ())));
        match first {
            // The oldest awaited job was one of the others.
            Either::Left((Some(Ok(0)), _)) => assert_eq!(ran.load(SeqCst), 1),
            other => panic!("{:?}", matches!(other, Either::Left(_))),
        }
        let elsewhere = ThreadPool::new(1);
        let slow = elsewhere.submit(|| thread::sleep(AFTER_STALLS));
        block_on(async { slow.await.unwrap() });
        assert_eq!(ran.load(SeqCst), 1, "no longer waited for");
        drop(others);
    });
}

#[test]
fn guarantee_6_a_wait_with_a_timeout_runs_no_job_and_ends_by_it() {
    in_a_job("timed", 1, |pool| {
        let limit = Duration::from_millis(20);
        let ran = Arc::new(AtomicUsize::new(0));
        let submit = || {
            let ran = Arc::clone(&ran);
            pool.submit(move || ran.fetch_add(1, SeqCst))
        };
        assert!(submit().join_timeout(limit).unwrap_err().is_timeout());
        assert!(
            as_completed([submit()])
                .timeout(limit)
                .wait_next()
                .unwrap()
                .is_err()
        );
        let waited = wait([submit()], ReturnWhen::AllCompleted)
            .timeout(limit)
            .join();
        assert_eq!(waited.not_done.len(), 1);
        let counts = Arc::clone(&ran);
        let count = move |_| counts.fetch_add(1, SeqCst);
        let mut map = pool.map(0..2, count.clone()).timeout(limit);
        assert!(map.wait_next().unwrap().unwrap_err().is_timeout());
        let mut map = pool.map_unordered(0..2, count).timeout(limit);
        assert!(map.wait_next().unwrap().unwrap_err().is_timeout());
        assert_eq!(ran.load(SeqCst), 0);
        // A timeout too long for the clock is no timeout.
        assert!(submit().join_timeout(Duration::MAX).is_ok());
    });
}

#[test]
fn guarantee_6_a_worker_in_a_timed_wait_counts_as_available() {
    within(LONG, "timed", || {
        let pool = pool_of(2);
        let (tell, told) = channel();
        let elsewhere = ThreadPool::new(1);
        let stuck = block_workers(&elsewhere, 1);
        let mut behind_it = elsewhere.submit(|| ());
        let timed = pool.submit(move || {
            tell.send(()).unwrap();
            let limit = Duration::from_millis(200);
            assert!(behind_it.join_timeout(limit).unwrap_err().is_timeout());
            thread::current().id()
        });
        told.recv_timeout(LONG).unwrap();
        let inner = Arc::clone(&pool);
        let ran_in = pool.submit(move || as_completed(thread_ids(&inner, 1)).wait_next().unwrap());
        // When the timeout had elapsed, the other worker took the job.
        assert_eq!(ran_in.join().unwrap().unwrap(), timed.join().unwrap());
        stuck.release();
    });
}

#[test]
fn guarantee_6_workers_exceed_the_capacity_instead_of_waiting() {
    within(LONG, "bounded", || {
        let pool = ThreadPool::builder()
            .max_workers(1)
            .queue_capacity(2)
            .build();
        let pool = Arc::new(pool.unwrap());
        let inner = Arc::clone(&pool);
        let result = pool.submit(move || {
            let map = sum(inner.map(0..10, |n| n));
            let unordered = sum(inner.map_unordered(0..10, |n| n).chunk_size(2));
            let handles = block_on(join_all((0..10).map(|n| inner.submit_async(move || n))));
            let handles = handles.into_iter().map(Result::unwrap);
            (map, unordered, sum(handles.map(JoinHandle::join)))
        });
        assert_eq!(result.join().unwrap(), (45, 45, 45));
    });
}

#[test]
fn guarantee_6_tombstones_of_helped_jobs_are_bounded() {
    in_a_job("tombstones", 1, |pool| {
        // Each leaves a tombstone in a queue that no worker reads; the queue is compacted.
        for n in 0..20_000_u32 {
            assert_eq!(pool.submit(move || n).join().unwrap(), n);
        }
        assert_eq!(pool.metrics().queued, 0);
    });
}

#[test]
fn guarantee_6_a_helped_job_behaves_as_any_other_job() {
    in_a_job("as any other", 1, |pool| {
        let error = pool.submit(|| panic!("inside")).join().unwrap_err();
        assert!(error.to_string().contains("inside"), "{error}");
        let handle = pool.submit(cancel_requested);
        assert!(handle.cancel());
        assert!(handle.join().unwrap_err().is_cancelled());
        let (tell, told) = channel();
        let handle = pool.submit(|| 7);
        handle.add_done_callback(move |result| tell.send(*result.unwrap()).unwrap());
        assert_eq!(handle.join().unwrap(), 7);
        assert_eq!(told.try_recv(), Ok(7));
        // A cancel request for the waiting job does not apply to the job that it runs.
        assert!(!pool.submit(cancel_requested).join().unwrap());
        assert_eq!(pool.metrics().panicked, 1);
    });
}

#[test]
fn guarantee_6_the_oldest_job_runs_first_although_new_jobs_arrive() {
    in_a_job("as_completed", 1, |pool| {
        let submit = |n| pool.submit(move || n);
        let mut all = as_completed((0..3).map(submit));
        let mut order = Vec::new();
        while let Some(result) = all.wait_next() {
            let n: u32 = result.unwrap();
            order.push(n);
            if n < 10 {
                all.push(submit(n + 3));
            }
        }
        assert_eq!(order, (0..13).collect::<Vec<_>>());
    });
    in_a_job("map_unordered", 1, |pool| {
        let map = pool.map_unordered(0.., |n: u32| n).buffer_size(3);
        let order: Vec<_> = map.into_iter().take(20).map(Result::unwrap).collect();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
    });
}

#[test]
// The test is about a lock held across an await.
#[allow(clippy::await_holding_lock)]
fn guarantee_6_a_job_that_is_no_longer_waited_for_is_not_run() {
    in_a_job("no longer", 1, |pool| {
        let lock = Arc::new(Mutex::new(()));
        let theirs = Arc::clone(&lock);
        let mut handle = pool.submit(move || drop(theirs.lock().unwrap()));
        let (tell, told) = futures::channel::oneshot::channel::<()>();
        let teller = thread::spawn(move || {
            thread::sleep(AFTER_STALLS);
            tell.send(()).unwrap();
        });
        block_on(async {
            assert!(futures::poll!(&mut handle).is_pending());
            // If the job ran now, in this thread, it would wait for this lock forever.
            let held = lock.lock().unwrap();
            told.await.unwrap();
            drop(held);
        });
        assert!(!handle.is_finished());
        teller.join().unwrap();
        handle.join().unwrap();
    });
}

/// An executor that forwards jobs to a pool later.
struct Late(std::sync::mpsc::Sender<futurepool::Job>);

impl Executor for Late {
    fn execute(&self, job: futurepool::Job) {
        self.0.send(job).unwrap();
    }
}

#[test]
fn guarantee_6_jobs_that_reach_the_pool_while_their_waiter_sleeps_run() {
    let kinds: [fn(JoinHandle<u32>) -> u32; 5] = [
        |handle| handle.join().unwrap(),
        |handle| block_on(async { handle.await.unwrap() }),
        |handle| as_completed([handle]).wait_next().unwrap().unwrap(),
        |handle| {
            let mut waited = wait([handle], ReturnWhen::AllCompleted).join();
            waited.done.remove(0).join().unwrap()
        },
        |handle| {
            let mut waited = wait([handle], ReturnWhen::FirstCompleted).join();
            waited.done.remove(0).join().unwrap()
        },
    ];
    for wait_for in kinds {
        within(LONG, "late", move || {
            let pool = pool_of(1);
            let (send, jobs) = channel::<futurepool::Job>();
            let (asleep, sleeps) = channel();
            let inner = Arc::clone(&pool);
            let relay = thread::spawn(move || {
                let state: crate::common::ThreadState = sleeps.recv().unwrap();
                for job in jobs {
                    eventually("the waiter sleeps", || state.sleeps());
                    inner.execute(job);
                }
            });
            let job = pool.submit(move || {
                asleep
                    .send(crate::common::ThreadState::of_this_thread())
                    .unwrap();
                wait_for(Late(send).submit(|| 7))
            });
            assert_eq!(job.join().unwrap(), 7);
            relay.join().unwrap();
            let metrics = pool.metrics();
            assert_eq!(
                (metrics.submitted, metrics.completed),
                (2, 2),
                "{metrics:?}"
            );
        });
    }
}

#[test]
fn a_join_in_an_initializer_of_a_job_of_its_own_pool_is_a_deadlock_error() {
    // The second worker is free and could run the job, or there is none.
    for workers in [1, 2] {
        within(LONG, "initializer", move || {
            let (tell_pool, told_pool) = channel::<Pool>();
            let first = Mutex::new(Some(told_pool));
            let (tell, told) = channel();
            let builder = ThreadPool::builder().max_workers(workers);
            let builder = builder.initializer(move || {
                let Some(pool) = first.lock().unwrap().take() else {
                    return;
                };
                let pool = pool.recv_timeout(LONG).unwrap();
                let gate = Gate::new();
                let held = gate.clone();
                // It cannot end before its join has returned.
                let joined = pool.submit(move || held.wait());
                let detached = pool.submit(|| 7);
                let error = joined.join().unwrap_err();
                tell.send((error.is_deadlock(), error.to_string(), detached))
                    .unwrap();
                gate.open();
            });
            let pool = Arc::new(builder.build().unwrap());
            let outside = pool.submit(|| 5);
            tell_pool.send(Arc::clone(&pool)).unwrap();
            let (is_deadlock, text, detached) = told.recv_timeout(LONG).unwrap();
            assert!(is_deadlock && text.contains("initializer"), "{text}");
            // What it submitted runs, and the pool is not broken.
            assert_eq!(detached.join().unwrap(), 7);
            assert_eq!(outside.join().unwrap(), 5);
            eventually("the joined job has run", || pool.metrics().completed == 3);
        });
    }
}

#[test]
fn an_initializer_that_waits_for_another_pool_starts_no_extra_worker() {
    within(LONG, "initializer", || {
        let other = Arc::new(ThreadPool::new(1));
        let (gate, in_initializer) = (Gate::new(), Arc::clone(&other));
        let held = gate.clone();
        let (asleep, sleeps) = channel();
        let builder = ThreadPool::builder().max_workers(4);
        let builder = builder.initializer(move || {
            let held = held.clone();
            let job = in_initializer.submit(move || held.wait());
            asleep
                .send(crate::common::ThreadState::of_this_thread())
                .unwrap();
            job.join().unwrap();
        });
        let pool = builder.build().unwrap();
        let jobs = [(); 2].map(|()| {
            let job = pool.submit(|| ());
            let state = sleeps.recv_timeout(LONG).unwrap();
            eventually("its worker waits", || state.sleeps());
            job
        });
        assert_eq!(pool.metrics().workers, 2);
        gate.open();
        for job in jobs {
            job.join().unwrap();
        }
    });
}

/// A waker that runs a closure.
struct Doing(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl std::task::Wake for Doing {
    fn wake(self: Arc<Self>) {
        let doing = self.0.lock().unwrap().take();
        if let Some(doing) = doing {
            doing();
        }
    }
}

#[test]
fn a_waker_may_wait_in_the_thread_of_a_worker_that_waits() {
    within(LONG, "wakers", || {
        let (pool, other, third) = (pool_of(1), pool_of(1), pool_of(1));
        let (give, take) = channel::<JoinHandle<bool>>();
        let closed = Gate::new();
        let gate = closed.clone();
        let b = other.submit(move || {
            let a = take.recv().unwrap();
            gate.wait();
            a.join().is_err_and(|error| error.is_deadlock())
        });
        let a = pool.submit(move || !b.join().unwrap_or(false));
        // `behind` is awaited with a waker that joins and opens a scope. The worker that is blocked
        // in the join of `a` calls this waker, since no other worker is left to run the job.
        let mut behind = pool.submit(|| ());
        let in_waker = closed.clone();
        let doing: Box<dyn FnOnce() + Send> = Box::new(move || {
            third.submit(|| ()).join().unwrap();
            let mut ran = false;
            third.scope(|scope| drop(scope.submit(|| ran = true)));
            assert!(ran);
            in_waker.open();
        });
        let waker = std::task::Waker::from(Arc::new(Doing(Mutex::new(Some(doing)))));
        assert!(crate::common::poll_with(&mut behind, &waker).is_pending());
        let (tell, told) = channel();
        a.add_done_callback(move |result| tell.send(*result.unwrap()).unwrap());
        give.send(a).unwrap();
        // One of the two jobs still detects the cycle.
        told.recv_timeout(LONG).unwrap();
        behind.join().unwrap();
    });
}

#[test]
fn a_callback_of_a_refused_job_may_wait_for_the_waiter_of_the_next_job() {
    within(LONG, "refused", || {
        let (pool, other) = (pool_of(1), pool_of(1));
        let blocked = block_workers(&pool, 1);
        let first = pool.submit(|| ());
        let second = pool.submit(|| ());
        let (asleep, sleeps) = channel();
        let waiter = other.submit(move || {
            asleep
                .send(crate::common::ThreadState::of_this_thread())
                .unwrap();
            second.join().unwrap_err().is_cancelled()
        });
        let state = sleeps.recv_timeout(LONG).unwrap();
        eventually("it sleeps", || state.sleeps());
        let (tell, told) = channel();
        first.add_done_callback(move |_| tell.send(waiter.join().unwrap()).unwrap());
        assert_eq!(pool.cancel_pending(), 2);
        assert_eq!(told.try_recv(), Ok(true));
        blocked.release();
    });
}

#[test]
fn guarantee_6_a_set_that_was_polled_elsewhere_ends_after_a_stall() {
    in_a_job("after a stall", 1, |pool| {
        let mut set: FuturesUnordered<_> = numbers(pool).into_iter().collect();
        let set = thread::spawn(move || {
            assert!(crate::common::poll_once(&mut set.next()).is_pending());
            set
        });
        let set = set.join().unwrap();
        let (send, receive) = futures::channel::oneshot::channel();
        let sender = thread::spawn(move || {
            // By now the pool has found no worker that waits for these jobs.
            thread::sleep(AFTER_STALLS);
            assert!(send.send(set).is_ok());
        });
        let sum = block_on(async {
            let set: FuturesUnordered<JoinHandle<u32>> = receive.await.unwrap();
            sum(set.collect::<Vec<_>>().await)
        });
        assert_eq!(sum, 45);
        sender.join().unwrap();
    });
}

#[test]
fn a_future_that_only_inspects_jobs_runs_none_and_does_not_spin() {
    in_a_job("looks", 1, |pool| {
        let lock = Arc::new(Mutex::new(()));
        let submit = || {
            let theirs = Arc::clone(&lock);
            pool.submit(move || drop(theirs.lock().unwrap()))
        };
        let mut looked_at = as_completed([submit()]);
        let mut waited = Some(vec![submit()]);
        let mut polled = submit();
        let (tell, mut told) = futures::channel::oneshot::channel::<()>();
        let teller = thread::spawn(move || {
            thread::sleep(AFTER_STALLS);
            tell.send(()).unwrap();
        });
        let mut polls = 0;
        // If the jobs ran now, in this thread, they would wait for this lock forever.
        let held = lock.lock().unwrap();
        block_on(std::future::poll_fn(|context| {
            polls += 1;
            assert!(looked_at.try_wait_next().is_none());
            let handles = waited.take().unwrap();
            let wait = wait(handles, ReturnWhen::AllCompleted).timeout(Duration::ZERO);
            waited = Some(wait.join().not_done);
            block_on(async { assert!(futures::poll!(&mut polled).is_pending()) });
            Pin::new(&mut told).poll(context)
        }))
        .unwrap();
        drop(held);
        assert!(polls < 50, "{polls} polls in 100 ms");
        teller.join().unwrap();
    });
}

#[test]
fn a_callback_may_cancel_jobs_of_another_pool_and_join_their_waiter() {
    within(LONG, "refusals", || {
        let (outer, inner, other) = (pool_of(1), pool_of(1), pool_of(1));
        let (held, also_held) = (block_workers(&outer, 1), block_workers(&inner, 1));
        let (first, next) = (outer.submit(|| ()), outer.submit(|| ()));
        let of_inner = inner.submit(|| ());
        let (asleep, sleeps) = channel();
        let waiter = other.submit(move || {
            asleep
                .send(crate::common::ThreadState::of_this_thread())
                .unwrap();
            next.join().unwrap_err().is_cancelled()
        });
        let state = sleeps.recv_timeout(LONG).unwrap();
        eventually("it sleeps", || state.sleeps());
        let (tell, told) = channel();
        of_inner.add_done_callback(move |_| tell.send(waiter.join().unwrap()).unwrap());
        let refused = Arc::clone(&inner);
        first.add_done_callback(move |_| assert_eq!(refused.cancel_pending(), 1));
        assert_eq!(outer.cancel_pending(), 2);
        assert_eq!(told.try_recv(), Ok(true));
        held.release();
        also_held.release();
    });
}

#[test]
fn guarantee_8_jobs_of_a_broken_pool_say_so_whatever_a_callback_does() {
    within(LONG, "broken", || {
        let gate = Gate::new();
        let held = gate.clone();
        let builder = ThreadPool::builder().max_workers(1);
        let builder = builder.initializer(move || {
            held.wait();
            Err("no luck")
        });
        let pool = Arc::new(builder.build().unwrap());
        let first = pool.submit(|| ());
        let second = pool.submit(|| ());
        let inner = Arc::clone(&pool);
        first.add_done_callback(move |_| {
            assert_eq!(inner.cancel_pending(), 0);
            inner.shutdown_now();
        });
        gate.open();
        assert!(first.join().unwrap_err().is_broken());
        assert!(second.join().unwrap_err().is_broken());
    });
}

// Cycles

type Job = JoinHandle<Option<JoinError>>;

/// Submits one job to each of `pools`. Each joins the job of the next pool, and the last one joins
/// the first: one of the joins must return an error.
#[track_caller]
fn cycle(pools: &[&ThreadPool], join: fn(Job) -> Option<JoinError>) {
    let (give, jobs): (Vec<_>, Vec<_>) = pools
        .iter()
        .map(|pool| {
            let (give, take): (_, Receiver<Job>) = channel();
            (give, pool.submit(move || join(take.recv().unwrap())))
        })
        .unzip();
    let (tell, told) = channel();
    let mut jobs = jobs.into_iter();
    let first = jobs.next().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    for (give, job) in give.iter().zip(jobs.chain([first])) {
        let (seen, tell) = (Arc::clone(&seen), tell.clone());
        job.add_done_callback(move |result| {
            if let Ok(Some(error)) = result {
                let mut seen = seen.lock().unwrap();
                seen.push((error.is_deadlock(), error.to_string()));
            }
            tell.send(()).unwrap();
        });
        give.send(job).unwrap();
    }
    for _ in pools {
        told.recv_timeout(LONG).unwrap();
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(is_deadlock, _)| *is_deadlock), "{seen:?}");
    assert_eq!(seen.len(), 1, "one of them gets it: {seen:?}");
    let text = &seen[0].1;
    assert_eq!(
        text.matches("submitted at tests").count(),
        pools.len(),
        "{text}"
    );
    assert!(
        text.starts_with("deadlock: the job submitted at tests"),
        "{text}"
    );
}

fn by_join(job: Job) -> Option<JoinError> {
    job.join().err()
}

fn by_tagged_join(job: Job) -> Option<JoinError> {
    job.cancel_on_drop().tag(7).join().1.err()
}

#[test]
fn guarantee_6_a_cycle_of_joins_is_an_error_for_one_of_them() {
    within(LONG, "cycles", || {
        for _ in 0..50 {
            let pool = ThreadPool::new(3);
            cycle(&[&pool, &pool], by_join);
            cycle(&[&pool, &pool, &pool], by_join);
            cycle(&[&pool, &pool, &pool], by_tagged_join);
            let one = ThreadPool::new(1);
            cycle(&[&one], by_join);
            cycle(&[&one], by_tagged_join);
            let other = ThreadPool::new(1);
            cycle(&[&one, &other], by_join);
            cycle(&[&pool, &one, &pool, &other], by_tagged_join);
        }
    });
}

#[test]
fn guarantee_6_a_cycle_on_one_worker_is_an_error_too() {
    within(LONG, "on one worker", || {
        let pool = ThreadPool::new(1);
        let (give_b, take_b) = channel::<Job>();
        let (give_a, take_a) = channel::<Job>();
        let a = pool.submit(move || take_b.recv().unwrap().join().unwrap());
        let b = pool.submit(move || take_a.recv().unwrap().join().err());
        let (tell, told) = channel();
        a.add_done_callback(move |result| {
            let error = result.unwrap().as_ref().unwrap();
            tell.send((error.is_deadlock(), error.to_string())).unwrap();
        });
        give_a.send(a).unwrap();
        give_b.send(b).unwrap();
        let (is_deadlock, text) = told.recv_timeout(LONG).unwrap();
        assert!(is_deadlock, "{text}");
        assert!(text.contains("waits for"), "{text}");
    });
}

#[test]
fn guarantee_6_a_cycle_through_the_end_of_a_scope_fails_the_join() {
    // The last to block is either the join, or the end of the scope, which then must fail the join.
    for scope_is_last in [false, true] {
        within(LONG, "scope", move || {
            let pool = pool_of(2);
            let (give, take) = channel::<JoinHandle<Option<bool>>>();
            let (tell, told) = channel();
            let inner = Arc::clone(&pool);
            let outer = pool.submit(move || {
                let mut seen = None;
                let (sleeps, asleep) = channel();
                inner.scope(|scope| {
                    // The end of the scope does not run this job itself: the other worker has taken
                    // it before.
                    let (begun, begins) = channel();
                    let seen = &mut seen;
                    drop(scope.submit(move || {
                        begun.send(()).unwrap();
                        let outer = take.recv().unwrap();
                        sleeps
                            .send(crate::common::ThreadState::of_this_thread())
                            .unwrap();
                        *seen = Some(outer.join().is_err_and(|error| error.is_deadlock()));
                    }));
                    begins.recv_timeout(LONG).unwrap();
                    if scope_is_last {
                        let state = asleep.recv_timeout(LONG).unwrap();
                        eventually("the join sleeps", || state.sleeps());
                    }
                });
                seen
            });
            outer.add_done_callback(move |result| tell.send(*result.unwrap()).unwrap());
            give.send(outer).unwrap();
            assert_eq!(told.recv_timeout(LONG).unwrap(), Some(true));
        });
    }
}

#[test]
fn a_chain_of_joins_without_a_cycle_is_no_error() {
    within(LONG, "chain", || {
        for _ in 0..200 {
            let pools: Vec<_> = (0..3).map(|_| ThreadPool::new(2)).collect();
            let mut last = pools[0].submit(|| 0_u32);
            for n in 1..12 {
                last = pools[n % 3].submit(move || last.join().unwrap() + 1);
            }
            assert_eq!(last.join().unwrap(), 11);
        }
    });
}

#[test]
fn a_timed_wait_in_a_cycle_ends_by_its_timeout() {
    within(LONG, "timed cycle", || {
        let pool = ThreadPool::new(1);
        let (give, take) = channel::<JoinHandle<bool>>();
        let (tell, told) = channel();
        let itself = pool.submit(move || {
            let mut itself = take.recv().unwrap();
            let error = itself.join_timeout(Duration::from_millis(10)).unwrap_err();
            error.is_timeout()
        });
        itself.add_done_callback(move |result| tell.send(*result.unwrap()).unwrap());
        give.send(itself).unwrap();
        assert!(told.recv_timeout(LONG).unwrap());
    });
}

// Many of them at random

/// A generator of its own, so that a seed can be replayed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// Returns the seeds of the children; none at depth 0.
    fn children(&mut self, depth: u32) -> Vec<u64> {
        let children = if depth == 0 { 0 } else { self.roll(4) };
        (0..children).map(|_| self.roll(u64::MAX) | 1).collect()
    }
}

/// Runs a tree of jobs on one pool, each of which waits for its children in some way; returns their
/// number.
fn tree(pool: &Pool, depth: u32, seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let seeds = dice.children(depth);
    let job = |pool: &Pool| {
        let pool = Arc::clone(pool);
        move |seed| tree(&pool, depth - 1, seed)
    };
    let jobs = |seeds: Vec<u64>| -> Vec<_> {
        let submit = |seed| {
            let job = job(pool);
            pool.submit(move || job(seed))
        };
        seeds.into_iter().map(submit).collect()
    };
    let below: u64 = match dice.roll(9) {
        0 => jobs(seeds).into_iter().map(|job| job.join().unwrap()).sum(),
        1 => jobs(seeds)
            .into_iter()
            .map(|job| block_on(job).unwrap())
            .sum(),
        2 => as_completed(jobs(seeds))
            .into_iter()
            .map(Result::unwrap)
            .sum(),
        3 | 4 => {
            let until = match dice.roll(2) {
                0 => ReturnWhen::AllCompleted,
                _ => ReturnWhen::FirstCompleted,
            };
            let waited = wait(jobs(seeds), until).join();
            let all = waited.done.into_iter().chain(waited.not_done);
            all.map(|job| job.join().unwrap()).sum()
        }
        5 => {
            let map = pool.map(seeds, job(pool)).buffer_size(2);
            map.into_iter().map(Result::unwrap).sum()
        }
        6 => {
            let map = pool.map_unordered(seeds, job(pool));
            map.into_iter().map(Result::unwrap).sum()
        }
        7 => pool.scope(|scope| {
            let submit = |seed| scope.submit(move || tree(pool, depth - 1, seed));
            let jobs: Vec<_> = seeds.into_iter().map(submit).collect();
            jobs.into_iter().map(|job| job.join().unwrap()).sum()
        }),
        _ => block_on(join_all(jobs(seeds)))
            .into_iter()
            .map(Result::unwrap)
            .sum(),
    };
    below + 1
}

/// Computes the size of the same tree without a pool.
fn size_of_tree(depth: u32, seed: u64) -> u64 {
    let seeds = Dice(seed).children(depth);
    let below = seeds.into_iter().map(|seed| size_of_tree(depth - 1, seed));
    below.sum::<u64>() + 1
}

/// `NESTED_SECONDS=60` runs longer; `NESTED_SEED` replays a seed.
#[test]
fn guarantee_6_random_nested_waits_end_with_the_right_results() {
    let setting = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let seconds = setting("NESTED_SECONDS").unwrap_or(2);
    let seed = setting("NESTED_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        now.as_nanos() as u64 | 1
    });
    println!("NESTED_SEED={seed}");
    let limit = LONG + Duration::from_secs(seconds);
    within(limit, &format!("seed {seed}"), move || {
        let start = std::time::Instant::now();
        let trees = AtomicUsize::new(0);
        let mut dice = Dice(seed);
        while start.elapsed() < Duration::from_secs(seconds) {
            let builder = |workers| {
                let builder = ThreadPool::builder().max_workers(workers as usize);
                match workers {
                    2 => builder.keep_alive(Duration::from_micros(50)),
                    3 => builder.queue_capacity(2),
                    _ => builder,
                }
            };
            let pools: Vec<Pool> = (0..1 + dice.roll(2))
                .map(|_| Arc::new(builder(1 + dice.roll(3)).build().unwrap()))
                .collect();
            let seeds: Vec<u64> = (0..8).map(|_| dice.roll(u64::MAX) | 1).collect();
            thread::scope(|scope| {
                for (n, seed) in seeds.into_iter().enumerate() {
                    let (pool, trees) = (&pools[n % pools.len()], &trees);
                    scope.spawn(move || {
                        for n in 0..20 {
                            let seed = (seed ^ n) | 1;
                            let inner = Arc::clone(pool);
                            let handle = pool.submit(move || tree(&inner, 4, seed));
                            assert_eq!(handle.join().unwrap(), size_of_tree(4, seed));
                            trees.fetch_add(1, SeqCst);
                        }
                    });
                }
            });
            for pool in pools.iter() {
                let metrics = pool.metrics();
                assert_eq!(metrics.submitted, metrics.completed, "{metrics:?}");
                assert_eq!((metrics.running, metrics.queued), (0, 0), "{metrics:?}");
            }
        }
        println!("{} trees", trees.into_inner());
    });
}

/// A future that is polled once more after each spurious wake-up of its handle.
struct Watched<F>(F, Arc<AtomicUsize>);

impl<F: Future + Unpin> Future for Watched<F> {
    type Output = F::Output;

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<F::Output> {
        self.1.fetch_add(1, SeqCst);
        Pin::new(&mut self.0).poll(context)
    }
}

#[test]
fn guarantee_6_a_job_that_is_submitted_while_all_workers_sleep_runs() {
    within(LONG, "comes later", || {
        let pool = pool_of(1);
        let (asleep, sleeps) = channel::<crate::common::ThreadState>();
        let (polled, is_polled) = channel();
        let inner = Arc::clone(&pool);
        let shared = async move {
            polled.send(()).unwrap();
            // Polled by another thread. The worker finds the future being polled, and parks.
            let state = sleeps.recv_timeout(LONG).unwrap();
            eventually("the worker sleeps", || state.sleeps());
            inner.submit(|| 7).await.unwrap()
        };
        let shared = shared.boxed().shared();
        let outside = {
            let shared = shared.clone();
            thread::spawn(move || block_on(shared))
        };
        is_polled.recv_timeout(LONG).unwrap();
        let inside = pool.submit(move || {
            asleep
                .send(crate::common::ThreadState::of_this_thread())
                .unwrap();
            block_on(shared)
        });
        assert_eq!(inside.join().unwrap(), 7);
        assert_eq!(outside.join().unwrap(), 7);
    });
}

#[test]
fn a_pool_that_waits_for_others_scans_its_queue_ever_less_often() {
    within(LONG, "seldom", || {
        let (pool, other) = (pool_of(1), pool_of(1));
        let blocked = block_workers(&pool, 1);
        let worker = pool.submit(move || {
            for _ in 0..40 {
                let slow = other.submit(|| thread::sleep(Duration::from_millis(15)));
                slow.join().unwrap();
            }
        });
        let queued = pool.submit(|| ());
        let polls = Arc::new(AtomicUsize::new(0));
        let watched = Watched(queued, Arc::clone(&polls));
        let elsewhere = thread::spawn(move || futures::executor::block_on(watched));
        blocked.release();
        worker.join().unwrap();
        elsewhere.join().unwrap().unwrap();
        // A wake-up in each of the waits would make some 40.
        let polls = polls.load(SeqCst);
        assert!(polls <= 15, "{polls} polls");
    });
}

#[test]
fn a_wait_that_has_nothing_to_run_sleeps() {
    in_a_job("sleeps", 1, |pool| {
        // All workers wait for jobs of another pool; no worker waits for the jobs queued here.
        let other = ThreadPool::new(1);
        let unrelated = pool.submit(|| ());
        let polls = Arc::new(AtomicUsize::new(0));
        let slow = other.submit(|| thread::sleep(Duration::from_millis(100)));
        block_on(Watched(slow, Arc::clone(&polls))).unwrap();
        // It wakes a few times, ever less often, to check whether a worker waits for a queued job.
        assert!(polls.load(SeqCst) <= 8, "{polls:?}");
        assert!(!unrelated.is_finished());
    });
}
