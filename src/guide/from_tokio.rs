//! `spawn_blocking`, `JoinSet`, `block_in_place` and friends, and what takes their place here.
//!
//! # `spawn_blocking`
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use futurepool::ThreadPool;
//!
//! // tokio: tokio::task::spawn_blocking(|| std::fs::read("Cargo.toml")).await??
//! let pool = ThreadPool::new(8);
//! let bytes = pool.submit(|| std::fs::read("Cargo.toml")).await??;
//! # assert!(!bytes.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! | | `spawn_blocking` | [`submit`](crate::ThreadPool::submit) |
//! |---|---|---|
//! | threads | one pool a runtime, 512 by default, shared with files and DNS | as many pools as there are kinds of work, each with a limit of its own |
//! | more jobs than threads | an unbounded queue | the same, or a [bounded](crate::ThreadPoolBuilder::queue_capacity) one that [refuses](crate::ThreadPool::try_submit) or [waits](crate::ThreadPool::submit_async) |
//! | dropping the handle | the job runs | the job runs; [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop) cancels |
//! | `abort()` / [`cancel`](crate::JoinHandle::cancel) of a queued job | its closure is dropped when a thread gets there | dropped before `cancel` returns |
//! | of a running job | no effect | [`cancel_requested`](crate::cancel_requested) tells it |
//! | in sync code | – | [`join`](crate::JoinHandle::join), inside a runtime, too |
//! | jobs that wait for jobs | may hang when all threads wait | [run by who waits](crate#jobs-that-wait-for-jobs) |
//! | the end | the runtime's drop waits for running jobs, and threads that are busy run what is queued before they leave | [`shutdown().await`](crate::ThreadPool::shutdown) runs them, [`shutdown_now().await`](crate::ThreadPool::shutdown_now) cancels them |
//!
//! `tokio::spawn` and `Handle::current()` work in jobs: they run inside the runtime in which the pool was built, or
//! another one (`ThreadPoolBuilder::tokio_handle`). `.await` does not: a job is a closure, and its thread is there to
//! be blocked. To wait for a future in a job use [`block_on`](crate::block_on).
//!
//! A handle needs no runtime to be woken, so it may be awaited on any, also on another one than that in which its job was
//! submitted.
//!
//! # `JoinSet`
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let pool = futurepool::ThreadPool::new(4);
//! use futurepool::as_completed;
//! use futures::StreamExt;
//!
//! // tokio: set.spawn_blocking(…), and `while let Some(result) = set.join_next().await`
//! let handles: Vec<_> = (1..=3_u32).map(|n| pool.submit(move || n * n)).collect();
//! let mut results = as_completed(handles);
//! while let Some(square) = results.next().await {
//!     if square? == 4 {
//!         results.push(pool.submit(|| 0)); // more, while it runs
//!     }
//! }
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
//!
//! Dropping a `JoinSet` aborts its tasks; dropping [`AsCompleted`](crate::AsCompleted) lets jobs run, unless the handles
//! [cancel on drop](crate::JoinHandle::cancel_on_drop). `JoinSet::join_all` (which panics if a task failed) is
//! [`wait(handles, ReturnWhen::AllCompleted)`](crate::wait) or `futures::future::join_all`.
//!
//! # `stream::iter(…).map(spawn_blocking).buffered(n)`
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let pool = futurepool::ThreadPool::new(4);
//! use futures::TryStreamExt;
//!
//! let lines = ["spam", "eggs", "ham"];
//! let lengths: Vec<_> = pool.map(lines, |line| line.len()).buffer_size(2).try_collect().await?;
//! assert_eq!(lengths, [4, 4, 3]);
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
//!
//! With a [`buffer_size`](crate::Map::buffer_size), [`map`](crate::ThreadPool::map) is `buffered`, [`map_unordered`](crate::ThreadPool::map_unordered) is
//! `buffer_unordered`; both are iterators in sync code, too.
//!
//! # `block_in_place`
//!
//! It turns the thread of the runtime into one that may block, in a multi-threaded runtime only, and whatever shares that
//! task waits. Here the work goes to a worker instead, from every runtime. For closures that
//! borrow there is [`scope`](crate::ThreadPool::scope): it blocks its caller until its jobs have ended, so it
//! belongs into sync code, or into a job.
//!
//! # A semaphore round `spawn_blocking`
//!
//! To keep the database from meeting 512 threads one takes a permit first. Here that is a pool of its own:
//!
//! ```
//! # futurepool::block_on(async {
//! use futurepool::ThreadPool;
//!
//! let database = ThreadPool::builder().max_workers(4).queue_capacity(100).build()?;
//!
//! // Waits for room:
//! let row = database.submit_async(|| 42).await.expect("the pool is open").await;
//! # assert_eq!(row.unwrap(), 42);
//!
//! // Or says at once that there is none, for instance to answer 503:
//! match database.try_submit(|| 42) {
//!     Ok(handle) => println!("{:?}", handle.await),
//!     Err(refused) if refused.is_full() => println!("try again later"),
//!     Err(refused) => println!("{refused}"),
//! }
//! # Ok::<(), futurepool::BuildError>(())
//! # }).unwrap();
//! ```
//!
//! Of the two results the first says whether the job was accepted, the second how it ended.
//!
//! # One limit for the whole request, and an end in time
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let database = futurepool::ThreadPool::builder().queue_capacity(8).build()?;
//! use std::time::Duration;
//! use tokio::time::timeout;
//!
//! // For the wait in the line, the wait in the queue, and the job. When it is over, a queued job is
//! // cancelled, and one that runs is asked to end.
//! let row = timeout(Duration::from_secs(2), async {
//!     let handle = database.submit_async(|| 42).await.map_err(|refused| refused.to_string())?;
//!     handle.cancel_on_drop().await.map_err(|error| error.to_string())
//! });
//! assert_eq!(row.await?, Ok(42));
//!
//! // What is queued may run for ten seconds; then it is cancelled, and running jobs are asked to stop.
//! if timeout(Duration::from_secs(10), database.shutdown()).await.is_err() {
//!     database.shutdown_now().await;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! A panic names the line of the `submit`. If that is in an `async fn` round it, all jobs have the same; a plain function with
//! `#[track_caller]` that submits at once, and returns the future that awaits the handle, has its caller's.
//!
//! # Time limits
//!
//! `tokio::time::timeout(d, handle)` works; when it is over the handle is dropped and the job goes on, so give it a handle
//! that [cancels on drop](crate::JoinHandle::cancel_on_drop), or lend it one: `timeout(d, &mut handle)`.
//! [`as_completed`](crate::AsCompleted::timeout), [`wait`](crate::Wait::timeout) and [`map`](crate::Map::timeout) have
//! limits of their own, which need no runtime.
//!
//! # The runtime's own pool behind the same face
//!
//! With feature `tokio` a `tokio::runtime::Handle` is an [`Executor`](crate::Executor): its
//! [`submit`](crate::ExecutorExt::submit) runs the job on the runtime's blocking threads, and gives the handle that all
//! executors give.
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use futurepool::ExecutorExt;
//!
//! let runtime = tokio::runtime::Handle::current();
//! assert_eq!(runtime.submit(|| 6 * 7).await?, 42);
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
