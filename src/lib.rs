//! Python's `concurrent.futures` for Rust: a pool of blocking threads whose [`submit`](ThreadPool::submit) returns one
//! handle that async code awaits and sync code joins.
//!
//! It needs no runtime and works in every one: tokio, smol, `futures::executor`, `pollster`, or none at all.
//!
//! # Why
//!
//! Work that blocks (files, DNS, SQLite, password hashes, images) must not run on the threads of an async runtime, and sync
//! programs want many such things done at once. One pool does for both. Its handles always resolve: with a result, or
//! with an error that says why there is none. Panics, cancels, shutdowns, threads that the system refuses, jobs that join
//! jobs: none of them is a hang.
//!
//! Pages beside this one: [from Python](guide::from_python), [from tokio](guide::from_tokio), [how it
//! works](guide::how_it_works).
//!
//! # Quick start
//!
//! ```
//! use futurepool::ThreadPool;
//!
//! let pool = ThreadPool::new(4);
//!
//! // Sync code joins.
//! let handle = pool.submit(|| 2_u64.pow(8));
//! assert_eq!(handle.join().unwrap(), 256);
//!
//! // Async code awaits.
//! futurepool::block_on(async {
//!     let handle = pool.submit(|| 2_u64.pow(10));
//!     assert_eq!(handle.await.unwrap(), 1024);
//! });
//! ```
//!
//! Dropping a handle lets its job run; dropping the pool waits for all jobs. For a job here and there
//! [`futurepool::submit`](submit) uses a pool of the whole process.
//!
//! # Many jobs
//!
//! | | sync | async |
//! |---|---|---|
//! | results as they come | `for r in as_completed(handles)` | `let mut results = as_completed(handles);`<br>`while let Some(r) = results.next().await` |
//! | a function over many items, results in order | `for r in pool.map(items, f)` | the same as a `Stream` |
//! | …&nbsp;results as they come | `for r in pool.map_unordered(items, f)` | the same as a `Stream` |
//! | for all, for the first, for the first error | `wait(handles, ReturnWhen::…).join()` | `wait(handles, ReturnWhen::…).await` |
//! | jobs that borrow | [`pool.scope(…)`](ThreadPool::scope) | |
//!
//! See [`as_completed`], [`map`](ThreadPool::map), [`map_unordered`](ThreadPool::map_unordered), [`wait`]. A handle's
//! [`tag`](JoinHandle::tag) says which result is whose. `next` is that of `futures::StreamExt`, or of any crate that
//! extends streams. A progress bar is one word more, with the `indicatif` crate:
//!
//! ```
//! # let pool = futurepool::ThreadPool::new(4);
//! # let items = vec![1_u64, 2, 3];
//! # fn shrink(n: u64) -> u64 { n / 2 }
//! use futurepool::as_completed;
//! use indicatif::ProgressIterator;
//!
//! // It knows how many there are.
//! let handles: Vec<_> = items.iter().map(|&item| pool.submit(move || shrink(item))).collect();
//! for result in as_completed(handles).into_iter().progress() {
//!     result?;
//! }
//!
//! // A map may end early, so it does not promise that; say it.
//! let count = items.len() as u64;
//! for result in pool.map(items, shrink).into_iter().progress_count(count) {
//!     result?;
//! }
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! # How many workers
//!
//! Threads start when they are needed, so the number is a limit. For work that waits (files, network, a database)
//! take as many as that can serve at once: a database with ten connections wants ten. For work that computes, take the
//! number of processors. The [default](ThreadPool::default), processors + 4 but 32 at most, suits a mixture. Two kinds of
//! work that should not hold each other up want two pools: an idle one costs no processor time, and its workers
//! [leave](ThreadPoolBuilder::keep_alive) if you like.
//!
//! # Backpressure
//!
//! By default any number of jobs may wait. A pool with a [`queue_capacity`](ThreadPoolBuilder::queue_capacity) has three
//! answers when it is full: [`submit`](ThreadPool::submit) blocks, [`try_submit`](ThreadPool::try_submit) refuses and gives
//! the closure back, [`submit_async`](ThreadPool::submit_async) waits without blocking.
//!
//! ```
//! # let gate = std::sync::Arc::new(std::sync::Barrier::new(2));
//! let pool = futurepool::ThreadPool::builder().max_workers(1).queue_capacity(1).build()?;
//! # let held = gate.clone();
//! # let busy = pool.submit(move || held.wait());
//! # while pool.metrics().running == 0 { std::thread::yield_now() }
//! # pool.submit(|| ());
//! match pool.try_submit(|| "a hash") {
//!     Ok(handle) => println!("{:?}", handle.join()),
//!     Err(refused) if refused.is_full() => println!("busy: come again later"),
//!     Err(refused) => println!("{refused}"),
//! }
//! # gate.wait();
//! # Ok::<(), futurepool::BuildError>(())
//! ```
//!
//! # Cancel and time limits
//!
//! [`cancel`](JoinHandle::cancel) takes a queued job back at once: what its closure captured is dropped, and its place is
//! free. A running job cannot be stopped, only asked:
//!
//! ```
//! # let pool = futurepool::ThreadPool::new(1);
//! let search = pool.submit(|| {
//!     let mut steps = 0_u64;
//!     while !futurepool::cancel_requested() {
//!         steps += 1;
//!     }
//!     steps
//! });
//! while !search.is_running() {
//!     std::thread::yield_now();
//! }
//! assert!(!search.cancel()); // it runs, so it is only asked
//! println!("{} steps", search.join().unwrap());
//! ```
//!
//! [`cancel_on_drop`](JoinHandle::cancel_on_drop) does it when the handle is dropped, for instance because a client has
//! gone. [`join_timeout`](JoinHandle::join_timeout) limits a wait and leaves the job alone; streams and waits have a
//! `timeout` of their own, which needs no runtime. Any runtime's `timeout` round a handle works, too.
//!
//! # Shutdown
//!
//! [`shutdown`](ThreadPool::shutdown) takes no more jobs and runs what is queued;
//! [`shutdown_now`](ThreadPool::shutdown_now) cancels that. Both give a [`Shutdown`], to await, to
//! [`join`](Shutdown::join), to wait for [so long at most](Shutdown::join_timeout), or to ignore. (`join` waits until the
//! threads are gone, thread-locals and all; an `await` until they have nothing to do any more.) Dropping a pool is
//! `shutdown().join()`. In async code that blocks the thread while jobs run, so await the shutdown first:
//!
//! ```
//! # futures::executor::block_on(async {
//! let pool = futurepool::ThreadPool::new(2);
//! let handle = pool.submit(|| "still runs");
//! pool.shutdown().await;
//! assert_eq!(handle.await.unwrap(), "still runs");
//! # });
//! ```
//!
//! # Jobs that wait for jobs
//!
//! A job may wait for jobs of its own pool, even on a pool of one worker. The worker that waits for one job, or for all
//! of several, runs those that are still queued itself, at once; if it takes results as they come, it does so when no
//! other worker is left to run them. They run on the waiter's stack, so a deep recursion needs a larger
//! [`stack_size`](ThreadPoolBuilder::stack_size). No other job is ever run in a waiter, so locks that it holds are met
//! by nobody unexpected. Jobs that [`join`](JoinHandle::join) one another in a circle get an error that says so.
//!
//! Only this crate's waits do that, and only those without a time limit.
//!
//! # Panics
//!
//! A job that panics harms nobody else: its worker goes on, and its handle gives a [`JoinError`] that
//! [`is_panic`](JoinError::is_panic), shows the message and where the job was submitted, and holds what was
//! [thrown](JoinError::into_panic). (The process's panic hook prints it first, as for any thread.) The same goes for panics
//! in destructors, callbacks and wakers: they are reported through `tracing`. With `panic = "abort"` a panic ends the
//! process, and so does a job that needs more [stack](ThreadPoolBuilder::stack_size) than there is.
//!
//! # Observing it
//!
//! - [`metrics`](ThreadPool::metrics): workers, queue, and how many jobs ended in which way.
//! - Threads have [names](ThreadPoolBuilder::thread_name_prefix), which debuggers and `top -H` show.
//! - Jobs run in the `tracing` span that was current where they were submitted: it is entered once more, in the worker,
//!   and left before callbacks run. Events tell of panics (`ERROR`), of broken pools (`ERROR`), of threads that are refused
//!   (`WARN`), and of those that start and end (`DEBUG`).
//! - `cargo run --example timeline` writes all jobs of a pool as a file for Perfetto, and as a picture:
//!
#![cfg_attr(doc, doc = concat!("<div style=\"overflow-x: auto\">", include_str!("../docs/timeline.svg"), "</div>"))]
//!
//! # Features
//!
//! Without tokio in the tree: `default-features = false`. Handles are awaited on tokio all the same.
//!
//! - `tokio` (default): jobs run inside the tokio runtime that was current when the pool was built, so that
//!   `tokio::spawn` works in them; and tokio's runtime handle is an [`Executor`].
//! - `rayon`: rayon's thread pool is an [`Executor`].

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

mod combine;
mod error;
mod executor;
#[cfg(any(doc, doctest))]
pub mod guide;
mod park;
mod pool;
mod scope;
mod task;
mod util;

pub use combine::as_completed::{
    AsCompleted, AsCompletedIter, TimedAsCompleted, TimedAsCompletedIter, as_completed,
};
pub use combine::map::{Map, MapIter, MapUnordered, MapUnorderedIter};
pub use combine::wait::{
    ReturnWhen, Wait, WaitHandle, WaitResultHandle, Waited, wait, wait_results,
};
pub use error::{BuildError, JoinError, SubmitError, TimeoutError};
pub use executor::ext::ExecutorExt;
pub use executor::{Executor, InlineExecutor};
pub use park::block_on::block_on;
pub use pool::{
    GlobalPool, InitializerOutput, Metrics, Shutdown, SubmitAsync, ThreadPool, ThreadPoolBuilder,
    global, submit,
};
pub use scope::{Scope, ScopedJoinHandle};
pub use task::cancel_on_drop::CancelOnDrop;
pub use task::context::cancel_requested;
pub use task::job::Job;
pub use task::join_handle::JoinHandle;
pub use task::tagged::Tagged;

// The README's examples are tests.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
