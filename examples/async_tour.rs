//! Each feature in a few lines, in async code, on tokio.
//!
//! ```text
//! cargo run --example async_tour
//! ```
//!
//! `sync_tour` tells the same story in the same order: read the two side by side to see what differs. What runs inside
//! a job is blocking code in both.
//!
//! Only `main`, `timeout` and the end of `other_executors` know that this is tokio. On smol, `main` is
//! `smol::block_on(async { … })`, and `timeout` says what to write there.
//!
//! It checks itself: what is claimed is asserted. The panics "on purpose" that it prints are meant to be there.

use std::cell::Cell;
use std::error::Error;
use std::num::ParseIntError;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futurepool::{
    Executor, ExecutorExt, InlineExecutor, JoinError, ReturnWhen, ThreadPool, as_completed, wait,
    wait_results,
};
use futures::channel::oneshot;
use futures::{StreamExt, TryStreamExt};

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // Jobs that submit jobs need the pool too, hence the `Arc`. Without them a plain `ThreadPool` will do.
    let pool = Arc::new(ThreadPool::new(4));

    submit_and_result(&pool).await?;
    panic(&pool).await;
    cancel().await?;
    timeout(&pool).await?;
    callbacks(&pool).await?;
    tag(&pool).await?;
    results_as_they_come(&pool).await?;
    wait_for_some(&pool).await?;
    map(&pool).await?;
    bounded_pool().await?;
    scope(&pool).await?;
    nested_jobs().await?;
    initializer().await?;
    metrics(&pool);
    other_executors(&pool).await?;
    shutdown(&pool).await?;

    println!("async: all is as it was told");
    Ok(())
}

async fn submit_and_result(pool: &ThreadPool) -> Result<(), Failure> {
    let handle = pool.submit(|| 6 * 7); // it may run from now on, awaited or not
    assert_eq!(handle.await?, 42);

    // Two things can go wrong: the job, which may panic, and the work that it does.
    let handle = pool.submit(|| "6 * 7".parse::<i32>());
    let result: Result<i32, ParseIntError> = handle.await?;
    assert!(result.is_err());

    // One pool is there already, for the whole process.
    assert_eq!(futurepool::submit(|| 6 * 7).await?, 42);
    Ok(())
}

async fn panic(pool: &ThreadPool) {
    let error = pool.submit(|| panic!("on purpose")).await.unwrap_err();
    assert!(error.is_panic());
    assert!(error.to_string().contains("on purpose")); // and where the job was submitted
}

async fn cancel() -> Result<(), Failure> {
    let pool = ThreadPool::new(1);
    let (started, has_started) = oneshot::channel();
    let running = pool.submit(move || {
        let _ = started.send(());
        while !futurepool::cancel_requested() {
            thread::sleep(Duration::from_millis(1));
        }
        "asked to end"
    });
    has_started.await?;

    // A job that waits is cancelled at once, and all that it captured is freed.
    let queued = pool.submit(|| unreachable!());
    assert!(queued.cancel());
    assert!(queued.await.unwrap_err().is_cancelled());

    // Dropping a handle lets its job run on. This one cancels: when the task that awaits it is dropped, for instance.
    drop(pool.submit(|| unreachable!()).cancel_on_drop());
    let queued = pool.submit(|| unreachable!());
    assert_eq!(pool.cancel_pending(), 1); // all that wait
    assert!(queued.is_cancelled());

    // A job that runs can only be asked.
    assert!(!running.cancel());
    assert_eq!(running.await?, "asked to end");
    Ok(())
}

async fn timeout(pool: &ThreadPool) -> Result<(), Failure> {
    let (go, signal) = mpsc::channel();
    let mut handle = pool.submit(move || signal.recv());

    // In any runtime: `wait([handle], ReturnWhen::AllCompleted).timeout(limit).await`, which gives the handle back.
    let limit = Duration::from_millis(10);
    let timed_out = tokio::time::timeout(limit, &mut handle).await;
    assert!(timed_out.is_err());

    // The limit is one of the wait. The job goes on, and the handle is as it was.
    go.send("late, but there")?;
    assert_eq!(handle.await??, "late, but there");
    Ok(())
}

async fn callbacks(pool: &ThreadPool) -> Result<(), Failure> {
    let (tell, told) = oneshot::channel();
    let handle = pool.submit(|| 5);
    // In the thread that ends the job, before anybody sees the result: keep it short.
    handle.add_done_callback(move |result| {
        let _ = tell.send(result.ok().copied());
    });
    assert_eq!(handle.await?, 5);
    assert_eq!(told.await?, Some(5));
    Ok(())
}

async fn tag(pool: &ThreadPool) -> Result<(), Failure> {
    let tagged = pool.submit(|| "apple".len()).tag("apple");
    assert_eq!(tagged.key(), &"apple");
    let (key, length) = tagged.await;
    assert_eq!((key, length?), ("apple", 5));
    Ok(())
}

async fn results_as_they_come(pool: &ThreadPool) -> Result<(), Failure> {
    let handles = ["fig", "apple"].map(|word| pool.submit(move || word.len()).tag(word));
    let mut lengths = Vec::new();
    let mut results = as_completed(handles);
    while let Some((word, length)) = results.next().await {
        lengths.push((word, length?));
    }
    lengths.sort();
    assert_eq!(lengths, [("apple", 5), ("fig", 3)]);

    // With a limit for all of them: what is there in time, then one error. The rest can be had back.
    let (_go, signal) = mpsc::channel::<()>();
    let never = pool.submit(move || signal.recv().is_ok());
    let mut results = as_completed([never]).timeout(Duration::from_millis(10));
    let error = results.next().await.expect("one item").unwrap_err();
    assert_eq!((error.pending(), error.total()), (1, 1));
    assert_eq!(results.into_pending().len(), 1);
    Ok(())
}

async fn wait_for_some(pool: &ThreadPool) -> Result<(), Failure> {
    let (go, signal) = mpsc::channel();
    let slow = pool.submit(move || signal.recv().is_ok());
    let fast = pool.submit(|| true);

    // The handles come back, and their results are still in them.
    let waited = wait([slow, fast], ReturnWhen::FirstCompleted).await;
    assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
    go.send(())?;
    let waited = wait(waited.not_done, ReturnWhen::AllCompleted).await;
    for slow in waited.done {
        assert!(slow.await?);
    }

    // Until all are done, or the first one fails.
    let handles = ["7", "seven"].map(|text| pool.submit(|| text.parse::<u8>()));
    let waited = wait_results(handles, ReturnWhen::FirstException).await;
    assert!(!waited.done.is_empty());
    Ok(())
}

async fn map(pool: &ThreadPool) -> Result<(), Failure> {
    // Results are in the order of the items.
    let squares: Vec<u64> = pool.map(1..=5, |n| n * n).try_collect().await?;
    assert_eq!(squares, [1, 4, 9, 16, 25]);

    // As they come, and many items a job, which pays if an item costs less than a job (about a microsecond).
    let mut squares = pool
        .map_unordered(1..=10_000_u64, |n| n * n)
        .chunk_size(500);
    let mut sum = 0;
    while let Some(square) = squares.try_next().await? {
        sum += square;
    }
    assert_eq!(sum, 333_383_335_000);

    // Endless items: eight at a time are ahead of the loop. To drop the map cancels what has not started.
    let mut squares = pool.map(1.., |n: u64| n * n).buffer_size(8);
    let mut found = None;
    while let Some(square) = squares.try_next().await? {
        if square > 1_000 {
            found = Some(square);
            break;
        }
    }
    drop(squares);
    assert_eq!(found, Some(1_024));
    Ok(())
}

async fn bounded_pool() -> Result<(), Failure> {
    let pool = ThreadPool::builder()
        .max_workers(1)
        .queue_capacity(1) // jobs that have not started
        .build()?;
    let (go, signal) = mpsc::channel::<()>();
    let running = pool.submit_async(move || signal.recv().is_ok()).await?;
    let queued = pool.submit_async(|| "second").await?; // ready as soon as the first one has started, which makes room

    // Full. Who does not want to wait is told so, and has the closure back.
    let refused = pool.try_submit(|| "third").unwrap_err();
    assert!(refused.is_full());
    let third = refused.into_inner();

    // Who submits nevertheless waits for room, and no thread is blocked: a plain `submit` would block this one.
    let (third, ()) = futures::join!(pool.submit_async(third), async {
        go.send(()).expect("the first job waits for it");
    });
    let third = third?;
    assert!(running.await?);
    assert_eq!((queued.await?, third.await?), ("second", "third"));
    pool.shutdown().await; // so that the drop of the pool does not block: needed where its jobs may not have ended
    Ok(())
}

async fn scope(pool: &Arc<ThreadPool>) -> Result<(), Failure> {
    let mut words = [String::from("fig"), String::from("apple")];
    let shared = Arc::clone(pool);
    // Jobs that borrow. All of them have ended when `scope` returns, so it blocks: use it inside of a job.
    let job = pool.submit(move || {
        let [first, second] = &mut words;
        let length = shared.scope(|scope| {
            drop(scope.submit(|| first.push('s')));
            scope.submit(|| second.len()).join()
        });
        (length, words)
    });
    let (length, words) = job.await?;
    assert_eq!((length?, &words[0][..]), (5, "figs"));
    Ok(())
}

async fn nested_jobs() -> Result<(), Failure> {
    // A job waits for a job, and there is but one worker: while it waits, it runs that one itself.
    let pool = Arc::new(ThreadPool::new(1));
    let shared = Arc::clone(&pool);
    let outer = pool.submit(move || {
        let inner = shared.submit(|| 6 * 7);
        inner.join()
    });
    assert_eq!(outer.await??, 42);
    Ok(())
}

async fn initializer() -> Result<(), Failure> {
    thread_local! {
        static CONNECTION: Cell<Option<u32>> = const { Cell::new(None) };
    }
    // Once in each worker, before its first job.
    let builder = ThreadPool::builder().initializer(|| CONNECTION.set(Some(7)));
    let pool = builder.max_workers(2).thread_name_prefix("db").build()?;
    assert_eq!(pool.submit(|| CONNECTION.get()).await?, Some(7));

    // If it fails, there is no pool to work with, and each job says why.
    let pool = ThreadPool::builder()
        .initializer(|| Err("no such host"))
        .build()?;
    let error = pool.submit(|| CONNECTION.get()).await.unwrap_err();
    assert!(error.is_broken());
    assert!(error.to_string().contains("no such host"));
    Ok(())
}

fn metrics(pool: &ThreadPool) {
    let metrics = pool.metrics();
    assert!((1..=4).contains(&metrics.workers)); // they start when they are needed
    assert_eq!(metrics.panicked, 1); // in `panic`
    assert_eq!(metrics.rejected, 0);
    assert!(metrics.submitted >= metrics.completed + metrics.panicked + metrics.cancelled);
}

async fn other_executors(pool: &ThreadPool) -> Result<(), Failure> {
    /// Code that need not know where its work runs.
    async fn total(executor: &dyn Executor) -> Result<u32, JoinError> {
        let squares: Vec<u32> = executor.map([1, 2, 3], |n| n * n).try_collect().await?;
        Ok(squares.iter().sum())
    }
    assert_eq!(total(pool).await?, 14);
    assert_eq!(total(&InlineExecutor).await?, 14); // at once, in this thread: for tests

    let here = thread::current().id();
    let handle = InlineExecutor.submit(|| thread::current().id());
    assert!(handle.is_finished());
    assert_eq!(handle.await?, here);

    #[cfg(feature = "tokio")]
    {
        let runtime = tokio::runtime::Handle::current();
        assert_eq!(total(&runtime).await?, 14); // on tokio's blocking pool

        // And jobs run inside the runtime that was current when their pool was built.
        let task = pool.submit(|| tokio::spawn(async { 42 })).await?;
        assert_eq!(task.await?, 42);
    }
    Ok(())
}

async fn shutdown(pool: &ThreadPool) -> Result<(), Failure> {
    let accepted = pool.submit(|| "still runs");
    pool.shutdown().await; // makes the drop of the pool instant; `shutdown_now` cancels what waits
    assert_eq!(accepted.await?, "still runs");
    assert!(pool.submit(|| "too late").await.unwrap_err().is_shutdown());

    // Now that all is quiet, the figures add up.
    let metrics = pool.metrics();
    let ended = metrics.completed + metrics.panicked + metrics.cancelled;
    assert_eq!(metrics.submitted, ended);
    assert_eq!((metrics.workers, metrics.rejected), (0, 1));
    Ok(())
}
