//! Maps `spawn_blocking`, `JoinSet`, `block_in_place` and other tokio APIs to their counterparts in
//! this crate. The [traps](#traps) are the places where a port can go wrong.
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
//! assert!(!bytes.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! | | `spawn_blocking` | [`submit`](crate::ThreadPool::submit) |
//! |---|---|---|
//! | threads | one pool per runtime, at most 512 threads by default, shared with file and DNS operations | one pool for each kind of work, each with its own limit |
//! | more jobs than threads | unbounded queue | unbounded queue, or a [bounded](crate::ThreadPoolBuilder::queue_capacity) one that [returns an error](crate::ThreadPool::try_submit) or [waits](crate::ThreadPool::submit_async) |
//! | dropping the handle | detaches the job | detaches the job; [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop) cancels it |
//! | `abort()` / [`cancel`](crate::JoinHandle::cancel), queued job | drops the closure when a thread reaches it | drops the closure before `cancel` returns |
//! | `abort()` / [`cancel`](crate::JoinHandle::cancel), running job | no effect | sets [`cancel_requested`](crate::cancel_requested) in the job |
//! | `abort_handle()` | cancels a job whose handle is elsewhere | [`cancel_handle`](crate::JoinHandle::cancel_handle) |
//! | sync code | – | [`join`](crate::JoinHandle::join), also inside a runtime |
//! | jobs that wait for jobs | can hang when all threads wait | the waiting worker [runs them](crate#jobs-that-wait-for-jobs) |
//! | options | `max_blocking_threads`, `thread_keep_alive`, `on_thread_start`, `on_thread_stop` | [`max_workers`](crate::ThreadPoolBuilder::max_workers), [`keep_alive`](crate::ThreadPoolBuilder::keep_alive), [`initializer`](crate::ThreadPoolBuilder::initializer), [`on_exit`](crate::ThreadPoolBuilder::on_exit) |
//! | a job that starts too late | runs anyway | [expires](crate::JobBuilder::expires_in) at its deadline |
//! | urgent jobs | – | [priorities](crate::JobBuilder::priority) |
//! | `RuntimeMetrics` | numbers of threads, and the depth of the queue | [`metrics`](crate::ThreadPool::metrics), with [histograms](crate::ThreadPoolBuilder::timings) by label |
//! | tokio-console | the tasks of a program that is built with `--cfg tokio_unstable` | feature `console`: what each worker runs, in a browser |
//! | `oneshot::channel()` for a callback | sender and receiver | [`promise()`](crate::promise()) and its handle |
//! | shutdown | dropping the runtime waits for running jobs; busy threads run queued jobs before they exit | [`shutdown().await`](crate::ThreadPool::shutdown) runs queued jobs, [`shutdown_now().await`](crate::ThreadPool::shutdown_now) cancels them |
//!
//! - Jobs run in the runtime in which the pool was built, or in the one passed to
//!   `ThreadPoolBuilder::tokio_handle`. `tokio::spawn` and `Handle::current()` work in them.
//! - A job is a closure, not a future, so `.await` does not work in it. `submit(|| async { … })`
//!   compiles, and the job returns the future without running it. To run a future in a job, write
//!   `submit(|| block_on(async { … }))`: see [`block_on`](crate::block_on).
//! - Waking a handle needs no runtime. A handle can be awaited on any runtime, whichever one its
//!   job was submitted in.
//!
//! # `JoinSet`
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use futurepool::{ThreadPool, as_completed};
//! use futures::StreamExt;
//!
//! let pool = ThreadPool::new(4);
//! // tokio: set.spawn_blocking(…), and `while let Some(result) = set.join_next().await`
//! let handles: Vec<_> = (1..=3_u32).map(|n| pool.submit(move || n * n)).collect();
//! let mut results = as_completed(handles);
//! while let Some(square) = results.next().await {
//!     if square? == 4 {
//!         results.push(pool.submit(|| 0)); // add a job during the iteration
//!     }
//! }
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
//!
//! | tokio | futurepool |
//! |---|---|
//! | `JoinSet::new()`, `spawn_blocking(f)` | [`AsCompleted::new()`](crate::AsCompleted::new), [`push(pool.submit(f))`](crate::AsCompleted::push) |
//! | `join_next().await`, `try_join_next()` | `next().await`, [`try_wait_next()`](crate::AsCompleted::try_wait_next) |
//! | `abort_all()` | [`cancel_all()`](crate::AsCompleted::cancel_all) |
//! | `select!` over `&mut` handles, once | [`wait(&mut handles, ReturnWhen::FirstCompleted)`](crate::wait()) |
//! | `futures::future::select_ok` | [`first_ok_results(handles)`](crate::first_ok_results()) |
//!
//! - Dropping a `JoinSet` aborts its tasks. Dropping [`AsCompleted`](crate::AsCompleted) lets the
//!   jobs run, unless the handles [cancel on drop](crate::JoinHandle::cancel_on_drop).
//! - `JoinSet::join_all` is [`wait(handles, ReturnWhen::AllCompleted)`](crate::wait) or
//!   `futures::future::join_all`. Unlike `JoinSet::join_all`, neither panics if a job panicked.
//!
//! # `stream::iter(…).map(spawn_blocking).buffered(n)`
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use futures::TryStreamExt;
//!
//! let pool = futurepool::ThreadPool::new(4);
//! let lines = ["spam", "eggs", "ham"];
//! let lengths: Vec<_> = pool.map(lines, |line| line.len()).buffer_size(2).try_collect().await?;
//! assert_eq!(lengths, [4, 4, 3]);
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
//!
//! With a [`buffer_size`](crate::Map::buffer_size), [`map`](crate::ThreadPool::map) corresponds to
//! `buffered`, and [`map_unordered`](crate::ThreadPool::map_unordered) to `buffer_unordered`. In
//! sync code both are iterators.
//!
//! # `tokio::fs`, `tokio::io::stdin`
//!
//! [`Unblock`](crate::Unblock) implements tokio's `AsyncRead`, `AsyncWrite` and `AsyncSeek` over
//! anything that reads, writes or seeks. Its jobs run on the pool that you choose.
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use futurepool::{ThreadPool, Unblock};
//! use tokio::io::AsyncReadExt;
//!
//! // tokio: tokio::fs::File::open("Cargo.toml").await?
//! let disk = ThreadPool::new(4);
//! let file = disk.submit(|| std::fs::File::open("Cargo.toml")).await??;
//! let mut text = String::new();
//! Unblock::new_in(&disk, file).read_to_string(&mut text).await?;
//! assert!(text.contains("futurepool"));
//! # Ok::<(), std::io::Error>(())
//! # }).unwrap();
//! ```
//!
//! # `block_in_place`
//!
//! `block_in_place` lets the current runtime thread block. It requires a multi-threaded runtime,
//! and everything else in the same task waits. [`submit`](crate::ThreadPool::submit) moves the work
//! to a worker instead, from any runtime.
//!
//! For closures that borrow, use [`scope`](crate::ThreadPool::scope). It blocks its caller until
//! all of its jobs have ended, so it belongs in sync code or in a job.
//!
//! # A semaphore around `spawn_blocking`
//!
//! Programs often take a semaphore permit before `spawn_blocking`, so that 512 threads do not meet
//! one database. A pool of its own replaces both:
//!
//! ```
//! # futurepool::block_on(async {
//! use futurepool::ThreadPool;
//!
//! let database = ThreadPool::builder().max_workers(4).queue_capacity(100).build()?;
//!
//! // Waits for room in the queue:
//! let row = database.submit_async(|| 42).await.expect("the pool is open").await;
//! assert_eq!(row.unwrap(), 42);
//!
//! // Or returns an error immediately, for example to answer 503:
//! match database.try_submit(|| 42) {
//!     Ok(handle) => println!("{:?}", handle.await),
//!     Err(refused) if refused.is_full() => println!("try again later"),
//!     Err(refused) => println!("{refused}"),
//! }
//! # Ok::<(), futurepool::BuildError>(())
//! # }).unwrap();
//! ```
//!
//! The first result tells whether the job was accepted, the second how it ended.
//!
//! If each job needs a connection, a [`StatefulPool`](crate::StatefulPool) gives each worker its own.
//!
//! # One timeout for a whole request
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::time::Duration;
//! use tokio::time::timeout;
//!
//! let database = futurepool::ThreadPool::builder().queue_capacity(8).build()?;
//!
//! // Covers the wait for room, the time in the queue, and the job. After the timeout a queued job
//! // is cancelled, and a running one is asked to stop.
//! let row = timeout(Duration::from_secs(2), async {
//!     let handle = database.submit_async(|| 42).await.map_err(|refused| refused.to_string())?;
//!     handle.cancel_on_drop().await.map_err(|error| error.to_string())
//! });
//! assert_eq!(row.await?, Ok(42));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! Such a timeout cancels the job from outside. A [deadline](crate::JobBuilder::deadline) belongs to the job
//! and needs no future that is polled: the pool keeps it, also for a detached job. It limits the time until
//! the start, not the run.
//!
//! The error of a panic names the line of the `submit`. If that line is in a helper `async fn`, all
//! jobs show the same line. To show the caller's line, make the helper a plain function with
//! `#[track_caller]`. It submits immediately and returns a future that awaits the handle.
//!
//! # Timeouts
//!
//! `tokio::time::timeout(d, handle)` works. After the timeout it drops the handle, and the job goes
//! on. Two alternatives:
//!
//! - Pass a handle that [cancels on drop](crate::JoinHandle::cancel_on_drop).
//! - Pass `&mut handle`, to wait for it again later.
//!
//! Such a timeout counts the time in the queue, too. It never frees the worker of a running job.
//! **So give the blocking call a limit of its own:** a timeout of the socket or of the HTTP client,
//! or SQLite's busy timeout.
//!
//! [`as_completed`](crate::AsCompleted::timeout), [`wait`](crate::Wait::timeout) and
//! [`map`](crate::Map::timeout) have timeouts of their own, which need no runtime.
//!
//! # A shutdown that ends
//!
//! A shutdown waits for running jobs, and a job that blocks forever never ends. So every wait needs
//! a limit, the second one too:
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::time::Duration;
//! use futurepool::ThreadPool;
//! use tokio::time::timeout;
//!
//! let database = ThreadPool::new(4);
//! let row = database.submit(|| 42);
//!
//! // Queued jobs run for up to ten seconds.
//! if timeout(Duration::from_secs(10), database.shutdown()).await.is_err() {
//!     // Then they are cancelled, and running jobs are asked to stop. They have two more seconds.
//!     let stopped = timeout(Duration::from_secs(2), database.shutdown_now()).await;
//!     if stopped.is_err() {
//!         // A job does not end. After this call, dropping the pool does not wait for it.
//!         if let Err(unfinished) = database.shutdown().join_timeout(Duration::ZERO) {
//!             eprintln!("{unfinished}");
//!         }
//!     }
//! }
//! assert_eq!(row.await?, 42);
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
//!
//! Limit the server before its pools: a graceful shutdown of axum, for example, waits for requests
//! that have stalled.
//!
//! The threads of jobs that do not end stay until the process exits. At the end of `main` they end
//! with it. Work that may never return belongs in a child process, which can be killed: see the
//! example `ping_hosts`.
//!
//! # The runtime's own blocking threads
//!
//! With feature `tokio`, `tokio::runtime::Handle` implements [`Executor`](crate::Executor). Its
//! [`submit`](crate::ExecutorExt::submit) runs the job on the runtime's blocking threads and
//! returns the same handle type.
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
//!
//! # Traps
//!
//! ## Blocking forms in async code
//!
//! **[`join`](crate::JoinHandle::join), [`block_on`](crate::block_on) and `for result in
//! as_completed(…)` block a thread of the runtime when async code uses them.** They compile there,
//! and no other task of that thread runs meanwhile. Use the async forms:
//!
//! | sync code, and jobs | async code |
//! |---|---|
//! | `handle.join()` | `handle.await` |
//! | `for result in as_completed(handles)` | `while let Some(result) = results.next().await` |
//! | `for result in pool.map(items, f)` | `while let Some(result) = results.next().await` |
//! | `wait(handles, until).join()` | `wait(handles, until).await` |
//! | `pool.shutdown().join()`, or dropping the pool | `pool.shutdown().await` |
//! | `block_on(future)` | `future.await` |
//!
//! Inside a tokio task, [`block_on`](crate::block_on) polls its future without the task's
//! cooperative budget. So channels and locks of tokio work there. `tokio::task::yield_now` does not:
//! it never completes under a `block_on` in a task. It works in `tokio::task::block_in_place` and in
//! a job.
//!
//! ## A pool in a `static` keeps its first runtime
//!
//! A pool captures the runtime in which it is built. A pool in a `static` is built by its first
//! caller, so it captures *that* caller's runtime. With `#[tokio::test]`, each test has a runtime of
//! its own. Later tests then run their jobs in a runtime that is gone, and a `tokio::spawn` in such
//! a job gives a cancelled task. Ways out:
//!
//! - Build the pool without a runtime: the builder's
//!   [`no_tokio`](crate::ThreadPoolBuilder::no_tokio), or the process-wide [`global`](crate::global)
//!   pool, which captures none.
//! - Let the job bring the runtime of its submitter:
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let runtime = tokio::runtime::Handle::current();
//! let spawned = futurepool::submit(move || runtime.spawn(async { 42 })).await?;
//! assert_eq!(spawned.await?, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! A `static` is never dropped. Jobs that its pool has not finished at the end of `main` are lost,
//! detached maps and unwritten bytes of an [`Unblock`](crate::Unblock) included. So end `main` with
//! `POOL.shutdown().join()`.
//!
//! ## Tests with a paused clock
//!
//! Under `#[tokio::test(start_paused = true)]` tokio advances its clock to the next timer whenever
//! all tasks wait. It does not know of jobs. So `timeout(d, pool.submit(f))` elapses at once,
//! however long `d` is. tokio holds the clock only for its own blocking threads. In such tests, use
//! the runtime's handle as the executor:
//!
//! ```
//! # #[cfg(feature = "tokio")] {
//! use std::thread::sleep;
//! use std::time::Duration;
//!
//! use futurepool::ExecutorExt;
//! use tokio::runtime::{Builder, Handle};
//! use tokio::time::timeout;
//!
//! // In a plain `fn main` or `#[test]`: what `#[tokio::test(start_paused = true)]` makes.
//! let runtime = Builder::new_current_thread().enable_all().start_paused(true).build()?;
//! runtime.block_on(async {
//!     let slow = Handle::current().submit(|| sleep(Duration::from_millis(20)));
//!     assert!(timeout(Duration::from_millis(1), slow).await.is_ok());
//! });
//! # }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Timeouts of this crate count real time, also under a paused clock.
//!
//! ## Very many ready results
//!
//! tokio's own handles and `JoinSet` give way to other tasks after 128 ready results. Handles of
//! this crate know nothing of tokio's budget. So a task that takes 100,000 ready results in one loop
//! gives way to no other task. Consume the budget in the loop:
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use futurepool::{ThreadPool, as_completed};
//! use futures::StreamExt;
//!
//! let pool = ThreadPool::new(2);
//! let mut results = as_completed((0..1_000).map(|n| pool.submit(move || n)));
//! let mut sum = 0;
//! while let Some(result) = results.next().await {
//!     sum += result?;
//!     tokio::task::consume_budget().await;
//! }
//! assert_eq!(sum, 499_500);
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
