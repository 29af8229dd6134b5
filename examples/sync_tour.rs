//! Each feature in a few lines, in code without any runtime.
//!
//! ```text
//! cargo run --example sync_tour
//! ```
//!
//! `async_tour` tells the same story in the same order: read the two side by side to see what differs.
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

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    // Jobs that submit jobs need the pool too, hence the `Arc`. Without them a plain `ThreadPool` will do.
    let pool = Arc::new(ThreadPool::new(4));

    submit_and_result(&pool)?;
    panic(&pool);
    cancel()?;
    timeout(&pool)?;
    callbacks(&pool)?;
    tag(&pool)?;
    results_as_they_come(&pool)?;
    wait_for_some(&pool)?;
    map(&pool)?;
    bounded_pool()?;
    scope(&pool)?;
    nested_jobs()?;
    initializer()?;
    metrics(&pool);
    other_executors(&pool)?;
    shutdown(&pool)?;

    println!("sync: all is as it was told");
    Ok(())
}

fn submit_and_result(pool: &ThreadPool) -> Result<(), Failure> {
    let handle = pool.submit(|| 6 * 7); // it may run from now on
    assert_eq!(handle.join()?, 42);

    // Two things can go wrong: the job, which may panic, and the work that it does.
    let handle = pool.submit(|| "6 * 7".parse::<i32>());
    let result: Result<i32, ParseIntError> = handle.join()?;
    assert!(result.is_err());

    // One pool is there already, for the whole process.
    assert_eq!(futurepool::submit(|| 6 * 7).join()?, 42);
    Ok(())
}

fn panic(pool: &ThreadPool) {
    let error = pool.submit(|| panic!("on purpose")).join().unwrap_err();
    assert!(error.is_panic());
    assert!(error.to_string().contains("on purpose")); // and where the job was submitted
}

fn cancel() -> Result<(), Failure> {
    let pool = ThreadPool::new(1);
    let (started, has_started) = mpsc::channel();
    let running = pool.submit(move || {
        let _ = started.send(());
        while !futurepool::cancel_requested() {
            thread::sleep(Duration::from_millis(1));
        }
        "asked to end"
    });
    has_started.recv()?;

    // A job that waits is cancelled at once, and all that it captured is freed.
    let queued = pool.submit(|| unreachable!());
    assert!(queued.cancel());
    assert!(queued.join().unwrap_err().is_cancelled());

    // Dropping a handle lets its job run on. This one cancels.
    drop(pool.submit(|| unreachable!()).cancel_on_drop());
    let queued = pool.submit(|| unreachable!());
    assert_eq!(pool.cancel_pending(), 1); // all that wait
    assert!(queued.is_cancelled());

    // A job that runs can only be asked.
    assert!(!running.cancel());
    assert_eq!(running.join()?, "asked to end");
    Ok(())
}

fn timeout(pool: &ThreadPool) -> Result<(), Failure> {
    let (go, signal) = mpsc::channel();
    let mut handle = pool.submit(move || signal.recv());

    let error = handle.join_timeout(Duration::from_millis(10)).unwrap_err();
    assert!(error.is_timeout());

    // The limit is one of the wait. The job goes on, and the handle is as it was.
    go.send("late, but there")?;
    assert_eq!(handle.join()??, "late, but there");
    Ok(())
}

fn callbacks(pool: &ThreadPool) -> Result<(), Failure> {
    let (tell, told) = mpsc::channel();
    let handle = pool.submit(|| 5);
    // In the thread that ends the job, before anybody sees the result: keep it short.
    handle.add_done_callback(move |result| {
        let _ = tell.send(result.ok().copied());
    });
    assert_eq!(handle.join()?, 5);
    assert_eq!(told.recv()?, Some(5));
    Ok(())
}

fn tag(pool: &ThreadPool) -> Result<(), Failure> {
    let tagged = pool.submit(|| "apple".len()).tag("apple");
    assert_eq!(tagged.key(), &"apple");
    let (key, length) = futurepool::block_on(tagged); // `join` for any future
    assert_eq!((key, length?), ("apple", 5));
    Ok(())
}

fn results_as_they_come(pool: &ThreadPool) -> Result<(), Failure> {
    let handles = ["fig", "apple"].map(|word| pool.submit(move || word.len()).tag(word));
    let mut lengths = Vec::new();
    for (word, length) in as_completed(handles) {
        lengths.push((word, length?));
    }
    lengths.sort();
    assert_eq!(lengths, [("apple", 5), ("fig", 3)]);

    // With a limit for all of them: what is there in time, then one error. The rest can be had back.
    let (_go, signal) = mpsc::channel::<()>();
    let never = pool.submit(move || signal.recv().is_ok());
    let mut results = as_completed([never]).timeout(Duration::from_millis(10));
    let error = results.wait_next().expect("one item").unwrap_err();
    assert_eq!((error.pending(), error.total()), (1, 1));
    assert_eq!(results.into_pending().len(), 1);
    Ok(())
}

fn wait_for_some(pool: &ThreadPool) -> Result<(), Failure> {
    let (go, signal) = mpsc::channel();
    let slow = pool.submit(move || signal.recv().is_ok());
    let fast = pool.submit(|| true);

    // The handles come back, and their results are still in them.
    let waited = wait([slow, fast], ReturnWhen::FirstCompleted).join();
    assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
    go.send(())?;
    let waited = wait(waited.not_done, ReturnWhen::AllCompleted).join();
    for slow in waited.done {
        assert!(slow.join()?);
    }

    // Until all are done, or the first one fails.
    let handles = ["7", "seven"].map(|text| pool.submit(|| text.parse::<u8>()));
    let waited = wait_results(handles, ReturnWhen::FirstException).join();
    assert!(!waited.done.is_empty());
    Ok(())
}

fn map(pool: &ThreadPool) -> Result<(), Failure> {
    // Results are in the order of the items.
    let squares: Vec<u64> = pool
        .map(1..=5, |n| n * n)
        .into_iter()
        .collect::<Result<_, _>>()?;
    assert_eq!(squares, [1, 4, 9, 16, 25]);

    // As they come, and many items a job, which pays if an item costs less than a job (about a microsecond).
    let squares = pool
        .map_unordered(1..=10_000_u64, |n| n * n)
        .chunk_size(500);
    let sum: u64 = squares.into_iter().sum::<Result<_, _>>()?;
    assert_eq!(sum, 333_383_335_000);

    // Endless items: eight at a time are ahead of the loop. To leave it cancels what has not started.
    let mut found = None;
    for square in pool.map(1.., |n: u64| n * n).buffer_size(8) {
        let square = square?;
        if square > 1_000 {
            found = Some(square);
            break;
        }
    }
    assert_eq!(found, Some(1_024));
    Ok(())
}

fn bounded_pool() -> Result<(), Failure> {
    let pool = ThreadPool::builder()
        .max_workers(1)
        .queue_capacity(1) // jobs that have not started
        .build()?;
    let (go, signal) = mpsc::channel::<()>();
    let running = pool.submit(move || signal.recv().is_ok());
    let queued = pool.submit(|| "second"); // returns as soon as the first one has started, which makes room

    // Full. Who does not want to wait is told so, and has the closure back.
    let refused = pool.try_submit(|| "third").unwrap_err();
    assert!(refused.is_full());
    let third = refused.into_inner();

    // Who submits nevertheless waits for room: the work slows down those that bring it.
    let third = thread::scope(|threads| {
        let submitter = threads.spawn(|| pool.submit(third));
        go.send(()).expect("the first job waits for it");
        submitter.join().expect("a submit does not panic")
    });
    assert!(running.join()?);
    assert_eq!((queued.join()?, third.join()?), ("second", "third"));
    Ok(())
}

fn scope(pool: &ThreadPool) -> Result<(), Failure> {
    let mut words = [String::from("fig"), String::from("apple")];
    let [first, second] = &mut words;
    // Jobs that borrow. All of them have ended when `scope` returns.
    let length = pool.scope(|scope| {
        drop(scope.submit(|| first.push('s')));
        scope.submit(|| second.len()).join()
    })?;
    assert_eq!((length, &words[0][..]), (5, "figs"));
    Ok(())
}

fn nested_jobs() -> Result<(), Failure> {
    // A job waits for a job, and there is but one worker: while it waits, it runs that one itself.
    let pool = Arc::new(ThreadPool::new(1));
    let shared = Arc::clone(&pool);
    let outer = pool.submit(move || {
        let inner = shared.submit(|| 6 * 7);
        inner.join()
    });
    assert_eq!(outer.join()??, 42);
    Ok(())
}

fn initializer() -> Result<(), Failure> {
    thread_local! {
        static CONNECTION: Cell<Option<u32>> = const { Cell::new(None) };
    }
    // Once in each worker, before its first job.
    let builder = ThreadPool::builder().initializer(|| CONNECTION.set(Some(7)));
    let pool = builder.max_workers(2).thread_name_prefix("db").build()?;
    assert_eq!(pool.submit(|| CONNECTION.get()).join()?, Some(7));

    // If it fails, there is no pool to work with, and each job says why.
    let pool = ThreadPool::builder()
        .initializer(|| Err("no such host"))
        .build()?;
    let error = pool.submit(|| CONNECTION.get()).join().unwrap_err();
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

fn other_executors(pool: &ThreadPool) -> Result<(), Failure> {
    /// Code that need not know where its work runs.
    fn total(executor: &dyn Executor) -> Result<u32, JoinError> {
        executor.map([1, 2, 3], |n| n * n).into_iter().sum()
    }
    assert_eq!(total(pool)?, 14);
    assert_eq!(total(&InlineExecutor)?, 14); // at once, in this thread: for tests

    let here = thread::current().id();
    let handle = InlineExecutor.submit(|| thread::current().id());
    assert!(handle.is_finished());
    assert_eq!(handle.join()?, here);
    Ok(())
}

fn shutdown(pool: &ThreadPool) -> Result<(), Failure> {
    let accepted = pool.submit(|| "still runs");
    pool.shutdown().join(); // what a drop of the pool does; `shutdown_now` cancels what waits
    assert_eq!(accepted.join()?, "still runs");
    assert!(pool.submit(|| "too late").join().unwrap_err().is_shutdown());

    // Now that all is quiet, the figures add up.
    let metrics = pool.metrics();
    let ended = metrics.completed + metrics.panicked + metrics.cancelled;
    assert_eq!(metrics.submitted, ended);
    assert_eq!((metrics.workers, metrics.rejected), (0, 1));
    Ok(())
}
