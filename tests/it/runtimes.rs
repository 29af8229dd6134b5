//! The same handle in every runtime, and without one.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{CountingWaker, LONG, block_workers, eventually, poll_with, within};
use futurepool::{JoinHandle, ThreadPool};

/// Covers what must work in every runtime: results, panics, cancels, many handles at once, tags, a
/// wait for a permit, shutdown.
async fn story(pool: &ThreadPool) {
    let here = thread::current().id();
    let there = pool.submit(|| thread::current().id()).await.unwrap();
    assert_ne!(here, there, "it runs in another thread");

    assert!(
        pool.submit(|| panic!("expected"))
            .await
            .unwrap_err()
            .is_panic()
    );

    let handles: Vec<JoinHandle<u64>> = (0..500).map(|i| pool.submit(move || i * i)).collect();
    let mut sum = 0;
    for handle in handles {
        sum += handle.await.unwrap();
    }
    assert_eq!(sum, (0..500).map(|i| i * i).sum());

    let all = futures::future::join_all((0..50).map(|i| pool.submit(move || i))).await;
    assert!(all.into_iter().map(Result::unwrap).eq(0..50));

    let (go, wait) = std::sync::mpsc::channel();
    let slow = pool.submit(move || wait.recv());
    let cancelled = pool.submit(|| ()).cancel_on_drop();
    if cancelled.cancel() {
        assert!(cancelled.await.unwrap_err().is_cancelled());
    }
    go.send(()).unwrap();
    assert_eq!(slow.await.unwrap(), Ok(()));

    let (key, read) = pool
        .submit(|| std::fs::read("/no/such/file"))
        .tag("file")
        .await;
    assert_eq!(key, "file");
    assert_eq!(read.unwrap().unwrap_err().kind(), io::ErrorKind::NotFound);

    for i in 0..100 {
        let handle = pool
            .submit_async(move || i)
            .await
            .expect("the pool is open");
        drop(handle);
    }
    pool.shutdown().await;
    assert!(pool.submit(|| ()).await.unwrap_err().is_shutdown());
    let metrics = pool.metrics();
    let ended = metrics.completed + metrics.panicked + metrics.cancelled;
    assert_eq!((metrics.submitted, metrics.workers), (ended, 0));
}

/// Runs the story with several pool configurations, each time in a runtime that `block_on` creates.
fn in_runtime<B>(name: &'static str, block_on: B)
where
    B: Fn(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) + Send + 'static,
{
    within(LONG, name, move || {
        for (workers, capacity) in [(1, 1), (2, 4), (8, 1_000)] {
            let builder = ThreadPool::builder().max_workers(workers);
            let pool = builder.queue_capacity(capacity).build().unwrap();
            block_on(Box::pin(async move { story(&pool).await }));
            let pool = ThreadPool::new(workers);
            block_on(Box::pin(async move { story(&pool).await }));
        }
    });
}

#[test]
fn tokio_with_many_threads() {
    in_runtime("tokio, multi-thread", |story| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).build().unwrap();
        runtime.block_on(async { tokio::spawn(story).await.unwrap() });
    });
}

#[test]
fn tokio_with_one_thread() {
    in_runtime("tokio, current-thread", |story| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(story);
    });
}

#[test]
fn smol() {
    in_runtime("smol", |story| smol::block_on(smol::spawn(story)));
}

#[test]
fn futures_executor() {
    in_runtime("futures::executor", futures::executor::block_on);
}

#[test]
fn futures_local_pool() {
    in_runtime("futures local pool", |story| {
        use futures::task::LocalSpawnExt;
        let mut local = futures::executor::LocalPool::new();
        local.spawner().spawn_local(story).unwrap();
        local.run();
    });
}

#[test]
fn pollster() {
    in_runtime("pollster", pollster::block_on);
}

#[test]
fn no_runtime() {
    in_runtime("futurepool::block_on", futurepool::block_on);
}

#[test]
fn a_result_that_arrives_after_its_runtime_is_gone_does_no_harm() {
    within(LONG, "late result", || {
        let pool = ThreadPool::new(1);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let handle = pool.submit(move || wait.recv());
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).build().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let mut handle = handle;
            futures::future::poll_fn(|context| {
                let poll = std::pin::Pin::new(&mut handle).poll(context);
                let _ = tell.send(poll.is_pending());
                poll.map(drop)
            })
            .await;
        });
        assert_eq!(told.recv(), Ok(true));
        drop(runtime);
        go.send(()).unwrap();
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
        assert_eq!(pool.metrics().completed, 2);
    });
}

#[cfg(feature = "tokio")]
#[test]
fn jobs_run_inside_the_runtime_that_was_current_when_the_pool_was_built() {
    within(LONG, "inside tokio", || {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).build().unwrap()
        };
        let (one, other) = (runtime(), runtime());
        let outside = ThreadPool::new(1);
        let current = one.block_on(async { ThreadPool::new(1) });
        let given = {
            let _entered = one.enter();
            let builder = ThreadPool::builder().max_workers(1);
            builder
                .tokio_handle(other.handle().clone())
                .build()
                .unwrap()
        };
        let id = || {
            tokio::runtime::Handle::try_current()
                .ok()
                .map(|handle| handle.id())
        };
        assert_eq!(outside.submit(id).join().unwrap(), None);
        assert_eq!(current.submit(id).join().unwrap(), Some(one.handle().id()));
        assert_eq!(given.submit(id).join().unwrap(), Some(other.handle().id()));
        // The global pool captures no runtime, although one is current at its first use.
        let global = one.block_on(async { futurepool::submit(id).join() });
        assert_eq!(global.unwrap(), None);
        let spawned = current.submit(|| tokio::spawn(async { 5 })).join().unwrap();
        assert_eq!(one.block_on(spawned).unwrap(), 5);
    });
}

#[test]
fn a_task_that_awaits_one_short_job_after_the_other_starves_no_other_task() {
    within(LONG, "two tasks of one thread", || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let pool = ThreadPool::new(1);
        tokio::task::LocalSet::new().block_on(&runtime.unwrap(), async move {
            let done = Rc::new(std::cell::Cell::new(false));
            let theirs = Rc::clone(&done);
            let busy = tokio::task::spawn_local(async move {
                while !theirs.get() {
                    pool.submit(|| ()).await.unwrap();
                }
            });
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            done.set(true);
            busy.await.unwrap();
        });
    });
}

// How often a poll that has seen the end of its job gives way is tested with a job that ends right
// in the poll, beside `JoinHandle`. From outside, such a poll cannot be told from one of a job that
// had ended.
#[test]
fn a_poll_that_races_with_the_end_of_its_job_returns_the_result_or_wakes_the_task() {
    within(LONG, "polls", || {
        let pool = ThreadPool::new(1);
        let (woken, waker) = CountingWaker::new();
        let mut pending = 0;
        for _ in 0..10_000 {
            let wakes = woken.count();
            let mut handle = pool.submit(|| ());
            match poll_with(&mut handle, &waker) {
                Poll::Ready(result) => result.unwrap(),
                Poll::Pending => {
                    pending += 1;
                    // Whether the job ends later or the poll has seen its end.
                    eventually("the task is woken", || woken.count() > wakes);
                    assert!(poll_with(&mut handle, &waker).is_ready());
                }
            }
        }
        assert!(pending > 0);
    });
}

#[test]
fn a_poll_of_a_running_job_returns_in_microseconds() {
    within(LONG, "polls", || {
        // Each round has a new thread, whose budget for spinning is full. From the ninth poll on,
        // the task counts as the only one of the thread.
        let slowest_poll = || {
            let (_, waker) = CountingWaker::new();
            let polls = (0..10).map(|_| {
                let pool = ThreadPool::new(1);
                let blocked = block_workers(&pool, 1);
                let mut queued = pool.submit(|| ());
                let start = Instant::now();
                assert!(poll_with(&mut queued, &waker).is_pending());
                let took = start.elapsed();
                blocked.release();
                took
            });
            polls.max().unwrap()
        };
        let mut times: Vec<_> = (0..51)
            .map(|_| thread::spawn(slowest_poll).join().unwrap())
            .collect();
        times.sort_unstable();
        // The bound leaves room for a slow machine.
        println!("{times:?}");
        assert!(times[25] < Duration::from_micros(200), "{:?}", times[25]);
    });
}
