//! A thread pool for blocking work, modelled on Python's `concurrent.futures`.
//! [`submit`](ThreadPool::submit) returns one [`JoinHandle`] that async code awaits and sync code
//! joins.
//!
//! It needs no runtime and works in every runtime: tokio, smol, `futures::executor`, `pollster`, or
//! none.
//!
//! # Why
//!
//! Blocking work (files, DNS, SQLite, password hashes, images) must not run on the threads of an
//! async runtime. Sync programs need threads to do many such things at once. One pool serves both.
//! Its handles always resolve, with a result or with an error that says why there is none. A panic,
//! a cancel, a shutdown, a failed thread spawn or a nested join never causes a hang.
//!
//! Guides: [from Python](guide::from_python), [from tokio](guide::from_tokio),
//! [cookbook](guide::cookbook), [running it in production](guide::production), [how it
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
//! - A job is a closure, not a future: `.await` does not work in it. `|| async { … }` compiles, but
//!   the job returns that future without running it. Write `|| block_on(async { … })`.
//! - A pool is not `Clone`: share it as `&ThreadPool` or in an `Arc`.
//! - Dropping a handle detaches it: the job still runs.
//! - Dropping the pool waits for all of its jobs.
//! - For an occasional job, [`futurepool::submit`](submit) uses a process-wide pool.
//!
//! # States of a job
//!
//! | state | meaning | query |
//! |---|---|---|
//! | queued | The pool has accepted the job, and no worker has started it. | |
//! | running | A worker runs the closure, and then the job's callbacks. | [`is_running`](JoinHandle::is_running) |
//! | finished | The outcome is visible, however the job ended: it returned, it panicked, or it never ran. | [`is_finished`](JoinHandle::is_finished) |
//! | cancelled | The job is finished because it was cancelled before it started. | [`is_cancelled`](JoinHandle::is_cancelled) |
//! | expired | The job is finished because it had not started by its [deadline](JobBuilder::deadline). | [`JoinError::is_expired`] |
//!
//! While a cancel is dropping the closure of a queued job, none of the three queries returns true.
//! Joining or awaiting a handle *takes* the result; the job stays finished.
//!
//! # Many jobs
//!
//! | | sync | async |
//! |---|---|---|
//! | results in order of completion | `for r in as_completed(handles)` | `let mut results = as_completed(handles);`<br>`while let Some(r) = results.next().await` |
//! | one function over many items, all results | `pool.map(items, f).join()?` | `pool.map(items, f).await?` |
//! | one function over many items, results in input order | `for r in pool.map(items, f)` | the same loop over `pool.map(items, f)` |
//! | one function over many items, results in order of completion | `for r in pool.map_unordered(items, f)` | the same loop over `pool.map_unordered(items, f)` |
//! | one function over many items, no results | [`pool.map(items, f).detach()`](Map::detach) | the same |
//! | the first success, and a cancel for the rest | `first_ok(handles).join()` | `first_ok(handles).await` |
//! | wait for all, for the first, for the first error | `wait(handles, ReturnWhen::…).join()` | `wait(handles, ReturnWhen::…).await` |
//! | wait until the pool has nothing to do | [`pool.wait_idle().join()`](ThreadPool::wait_idle) | `pool.wait_idle().await` |
//! | jobs that borrow | [`pool.scope(…)`](ThreadPool::scope), [`scope.map(…)`](Scope::map) | |
//!
//! **In async code, use the right column: the sync forms, and [`join`](JoinHandle::join), block the
//! runtime's thread there.** They compile in async code, and nothing warns of it.
//!
//! A map is lazy: **`pool.map(items, f)` alone runs nothing**.
//!
//! See [`as_completed`], [`map`](ThreadPool::map), [`map_unordered`](ThreadPool::map_unordered),
//! [`first_ok`] and [`wait`]. Use [`tag`](JoinHandle::tag) to tell which result belongs to which job. `next` comes
//! from `futures::StreamExt` or from any other stream extension trait. With `indicatif`, a progress
//! bar takes one extra call. Its default style shows a bar and a count. The example `fetch_skus` adds
//! a rate and the time left:
//!
//! ```
//! use futurepool::{ThreadPool, as_completed};
//! use indicatif::ProgressIterator;
//!
//! let pool = ThreadPool::new(4);
//! let items = vec![1_u64, 2, 3];
//! let shrink = |n: u64| n / 2;
//!
//! // `as_completed` has an exact length.
//! let handles: Vec<_> = items.iter().map(|&item| pool.submit(move || shrink(item))).collect();
//! for result in as_completed(handles).into_iter().progress() {
//!     result?;
//! }
//!
//! // A map can end early, so it has none: pass the length.
//! let count = items.len() as u64;
//! for result in pool.map(items, shrink).into_iter().progress_count(count) {
//!     result?;
//! }
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! # How many workers
//!
//! `max_workers` is a limit: the pool starts a thread only when a job needs one.
//!
//! - For work that waits (files, network, a database), use as many workers as the other side can
//!   serve at once. A database with ten connections wants ten workers.
//! - For work that computes, use the number of processors. Give each job a piece that takes
//!   milliseconds, or use [`map`](ThreadPool::map), which puts small items together. For computing over
//!   large collections, rayon is faster: it splits a range without touching its items.
//! - The [default](ThreadPool::default), `min(32, processors + 4)`, suits a mixture.
//!
//! Give workloads that must not delay each other a pool each. An idle pool uses no CPU time; with
//! [`keep_alive`](ThreadPoolBuilder::keep_alive) its threads exit.
//!
//! # Backpressure
//!
//! By default the queue is unbounded. With a [`queue_capacity`](ThreadPoolBuilder::queue_capacity),
//! the methods differ when the queue is full:
//!
//! - [`submit`](ThreadPool::submit) blocks until there is room.
//! - [`try_submit`](ThreadPool::try_submit) returns an error that contains the closure.
//! - [`submit_async`](ThreadPool::submit_async) waits without blocking the thread.
//!
//! ```
//! let pool = futurepool::ThreadPool::builder().max_workers(1).queue_capacity(1).build()?;
//! match pool.try_submit(|| "a hash") {
//!     Ok(handle) => println!("{:?}", handle.join()),
//!     Err(refused) if refused.is_full() => println!("busy: try again later"),
//!     Err(refused) => println!("{refused}"),
//! }
//! # Ok::<(), futurepool::BuildError>(())
//! ```
//!
//! # Cancellation and timeouts
//!
//! [`cancel`](JoinHandle::cancel) cancels a queued job immediately. When it returns, everything the
//! closure captured has been dropped and the job's room in a bounded queue is free. A running job
//! in a thread cannot be stopped, only asked to stop. (A job in a [worker process](#worker-processes) is
//! killed.)
//!
//! ```
//! let pool = futurepool::ThreadPool::new(1);
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
//! assert!(!search.cancel()); // running: `cancel` only sets the request
//! println!("{} steps", search.join().unwrap());
//! ```
//!
//! [`cancel_on_drop`](JoinHandle::cancel_on_drop) cancels the job when its handle is dropped, for
//! example because a client has disconnected.
//!
//! [`join_timeout`](JoinHandle::join_timeout) limits the wait and leaves the job alone.
//! `as_completed`, `wait` and maps have a `timeout` method, which needs no runtime. Any runtime's
//! own `timeout` also works with a handle. Each of them limits a wait, which includes the time in
//! the queue.
//!
//! **A timeout never frees the worker of a running job. So give a blocking call a limit of its
//! own**: a timeout of the socket or of the HTTP client, or SQLite's busy timeout.
//!
//! # Shutdown
//!
//! [`shutdown`](ThreadPool::shutdown) stops accepting jobs and runs the queued ones.
//! [`shutdown_now`](ThreadPool::shutdown_now) cancels the queued ones. Both return a [`Shutdown`],
//! which the caller can await, [`join`](Shutdown::join), join [with a
//! timeout](Shutdown::join_timeout), or ignore:
//!
//! - `join` blocks until the threads are gone and their thread-locals are dropped.
//! - `.await` and `join_timeout` end when the last worker has left its loop.
//! - In one of the pool's own workers all three return at once, although workers still run.
//!
//! Dropping a pool is `shutdown().join()`, except that the drop does not wait while its thread is
//! panicking. In async code the drop blocks the thread while jobs run, so await the shutdown first:
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
//! A job that never ends keeps a shutdown and the drop of its pool waiting forever. [From
//! tokio](guide::from_tokio#a-shutdown-that-ends) shows a shutdown with limits.
//!
//! After `fork`, the child process must do nothing with a pool of its parent except drop it. Make a
//! new pool there.
//!
//! # Jobs that wait for jobs
//!
//! A job can wait for jobs of its own pool, even with one worker. What the blocked worker does
//! depends on the wait:
//!
//! | wait in a worker | the worker runs |
//! |---|---|
//! | for one job or for all of a set: [`join`](JoinHandle::join), an ordered `map`, [`wait`] for all, the end of a `scope` | a queued job of that set, at once |
//! | for any of several: [`as_completed`], `map_unordered`, [`wait`] for the first, [`block_on`] (also of one handle) | such a job, only while every worker is blocked and no thread can be started |
//! | with a timeout | no job |
//!
//! A blocked worker never runs an unrelated job. While every worker is blocked, it may wake futures
//! that wait for queued jobs: so do not hold a lock in such a wait that a waker needs. Only this
//! crate's own waits run jobs. The jobs run on the waiter's stack, so deep recursion needs a larger
//! [`stack_size`](ThreadPoolBuilder::stack_size).
//!
//! If jobs [`join`](JoinHandle::join) each other in a cycle, one join returns an error that
//! [`is_deadlock`](JoinError::is_deadlock). The same is true of pools whose workers all join jobs that are
//! queued in each other. An [`initializer`](ThreadPoolBuilder::initializer) must
//! not wait for a job of its own pool: a `join` without a timeout returns the same error there.
//!
//! # Panics
//!
//! A panic in a job affects only that job. Its worker carries on, and its handle returns a
//! [`JoinError`] that [`is_panic`](JoinError::is_panic). The error shows the message and where the
//! job was submitted, and holds the [payload](JoinError::into_panic). The process's panic hook
//! prints the message first, as for any thread.
//!
//! Panics in destructors, callbacks and wakers are reported through `tracing` and affect nothing
//! else.
//!
//! With `panic = "abort"` a panic aborts the process. A job that overflows its
//! [stack](ThreadPoolBuilder::stack_size) always does. Run such code, and code that may never
//! return, in a [worker process](#worker-processes). For a foreign program, start it in a job that waits
//! for it and can kill it: see the example `ping_hosts`.
//!
//! # Worker processes
//!
//! With the feature `process`, a `ProcessPool` runs jobs in processes of their own. So a running job can
//! be killed, by a cancel, a time limit or a memory limit, and a crash harms no other job. `submit`
//! returns the same [`JoinHandle`], and handles of threads and processes mix in [`as_completed`] and
//! [`wait`]. A job is a function with the attribute `#[task]` and its arguments:
//!
#![cfg_attr(feature = "process", doc = "```standalone_crate")]
#![cfg_attr(not(feature = "process"), doc = "```ignore")]
//! use std::time::Duration;
//!
//! use futurepool::{ProcessPool, process, task};
//!
//! #[task]
//! fn checksum(data: Vec<u8>) -> u64 {
//!     data.into_iter().map(u64::from).sum()
//! }
//!
//! #[task]
//! fn search() -> u64 {
//!     loop { /* never ends */ }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     process::init(); // first: in a worker process this runs tasks, and does not return
//!     let pool = ProcessPool::builder().max_workers(2).build()?;
//!     let limit = Duration::from_millis(100);
//!     let endless = pool.submit(search::call().time_limit(limit));
//!     assert_eq!(pool.submit(checksum::call(vec![1, 2, 3])).join()?, 6);
//!     assert!(endless.join().unwrap_err().is_time_limit());
//!     Ok(())
//! }
//! ```
//!
//! A job in a process costs 20 to 40 µs more than in a thread, and its arguments and result are copied.
#![cfg_attr(
    feature = "process",
    doc = "See the guide [threads or processes](guide::threads_or_processes)."
)]
//!
//! # In production
//!
//! A [job](ThreadPool::job) can have a label, a [priority](Priority) and a deadline. A job that has
//! not started by its deadline resolves at that moment, with an error that
//! [`is_expired`](JoinError::is_expired). A pool can [measure](ThreadPoolBuilder::timings) how long
//! jobs wait and run:
//!
//! ```
//! use std::time::Duration;
//!
//! use futurepool::{Priority, ThreadPool};
//!
//! let pool = ThreadPool::builder()
//!     .queue_capacity(1_000)
//!     .queue_timeout(Duration::from_secs(2))
//!     .timings(true)
//!     .build()?;
//! let hash = pool.job(|| "$argon2id$…").label("hash").priority(Priority::High);
//! assert_eq!(hash.expires_in(Duration::from_secs(1)).submit().join()?, "$argon2id$…");
//!
//! let metrics = pool.metrics();
//! println!("{:?} in the queue", metrics.queue_wait.quantile(0.99));
//! println!("{:?} to run", metrics.by_label()["hash"].run_time.quantile(0.99));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`StatefulPool`]: each worker owns a connection, a parser or a model.
//! - [`auto_size`](ThreadPoolBuilder::auto_size), [`set_max_workers`](ThreadPool::set_max_workers)
//!   and [`broadcast`](ThreadPool::broadcast) concern the workers of a running pool.
//! - [`on_job`](ThreadPoolBuilder::on_job) calls a function when a job is submitted, starts or
//!   ends.
//! - The features `metrics` and `console` show the pools to operators.
//!
//! See the guides [running it in production](guide::production) and [cookbook](guide::cookbook).
//!
//! # Several machines
//!
//! The crate `futurepool-cluster` runs the same tasks on workers on any number of machines, over a
//! NATS server. Its `Cluster` has the methods of a pool and returns the same [`JoinHandle`]. Two
//! kinds of errors come from there:
//!
//! - [`is_lost`](JoinError::is_lost): the worker died while it had the job.
//!   [`worker`](JoinError::worker) names it.
//! - [`is_disconnected`](JoinError::is_disconnected): the server was away for too long.
//!
//! For each error, [`may_have_run`](JoinError::may_have_run) tells whether the job can have
//! started.
//!
//! # Observability
//!
//! - [`metrics`](ThreadPool::metrics) counts workers, queued and running jobs, and how jobs ended.
//! - Debuggers and `top -H` show the [names](ThreadPoolBuilder::thread_name_prefix) of threads.
//! - A job runs in the `tracing` span that was current at its `submit`. The worker leaves the span
//!   before callbacks run.
//! - `tracing` events report panics and broken pools (`ERROR`), failed thread spawns (`WARN`),
//!   changes of an [`auto_size`](ThreadPoolBuilder::auto_size) pool (`INFO`), and workers that
//!   start and exit (`DEBUG`). A pool with [`timings`](ThreadPoolBuilder::timings) reports the end
//!   of each job (`TRACE`). Programs that use the `log` crate enable the feature `log` of `tracing`
//!   to receive them. std's panic hook prints panics to stderr, too: set a hook of your own if all
//!   output must be JSON.
//! - Events of the target `futurepool::process` tell why a worker process went. The field `worker`
//!   is its process id. `DEBUG` events report that it is ready, or for which `reason` the pool ends
//!   it. A crash and a failed start are `WARN`.
//! - If the system refuses to start a thread, the pool goes on with fewer workers and looks merely
//!   slow. [`Metrics::spawn_failures`] and the `WARN` event tell the difference.
//! - `cargo run --example timeline` records all jobs of a pool as a trace for Perfetto and as a
//!   picture:
//!
#![cfg_attr(doc, doc = concat!("<div>", include_str!("../docs/timeline.svg"), "</div>"))]
//!
//! # Features
//!
//! With `default-features = false`, and without `console`, the crate does not depend on tokio.
//! Handles can still be awaited on tokio.
//!
//! - `tokio` (default): jobs run in the tokio runtime that was current when the pool was built, so
//!   `tokio::spawn` works in them. `tokio::runtime::Handle` implements [`Executor`].
//! - `rayon`: `rayon::ThreadPool` implements [`Executor`].
//! - `task`: the attribute `#[task]`, and `TaskExecutor`, which runs the same task in a thread or
//!   in a process.
//! - `process`: `ProcessPool`, on Unix. It includes `task`.
//! - `metrics`: pools report through the facade of the crate [`metrics`](https://docs.rs/metrics).
//! - `console`: a live view of every pool of the process, in a browser and in a terminal. It begins
//!   with `futurepool::console::serve`. It depends on tokio and hyper.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

// Maintainers: begin with `guide/how_it_works.rs`, then `task/mod.rs` (the lock order is there) and
// `pool/mod.rs`.

/// Functions that run in any executor, in this process or in another one.
#[cfg(feature = "task")]
mod call;
/// Many handles: `as_completed`, `wait`, `map`.
mod combine;
#[cfg(feature = "console")]
pub mod console;
mod error;
/// What can run a job: the trait, and its implementations for foreign pools.
mod executor;
#[cfg(any(doc, doctest))]
pub mod guide;
/// Threads that wait: parking, `block_on`, helping, the wait-for graph.
mod park;
/// Where jobs wait and threads run them.
mod pool;
/// Worker processes.
#[cfg(feature = "process")]
pub mod process;
/// Jobs that borrow.
mod scope;
mod stateful;
/// One job: its state, its closure and outcome, its two handles.
mod task;
/// Blocking I/O and iterators as async I/O and streams.
mod unblock;
/// Locks (std's or loom's), unwinding, spinning, the timer, injected faults.
mod util;

#[cfg(feature = "task")]
pub use call::bytes::Bytes;
#[cfg(feature = "task")]
pub use call::codec::{CodecError, Payload};
#[cfg(feature = "task")]
pub use call::encoded::EncodedCall;
#[cfg(feature = "task")]
pub use call::executor::{TaskExecutor, TaskExecutorExt, TaskJob};
#[cfg(feature = "task")]
pub use call::registry::{TaskEntry, Tasks};
#[cfg(feature = "task")]
pub use call::report::ErrorReport;
#[cfg(feature = "task")]
pub use call::{Call, Task};
pub use combine::as_completed::{
    AsCompleted, AsCompletedIter, TimedAsCompleted, TimedAsCompletedIter, as_completed,
};
pub use combine::first_ok::{FirstOk, first_ok, first_ok_results};
pub use combine::handle::{WaitHandle, WaitResultHandle};
pub use combine::map::{Map, MapIter, MapJoin, MapUnordered, MapUnorderedIter, MapUnorderedJoin};
pub use combine::wait::{ReturnWhen, Wait, Waited, wait, wait_results};
pub use error::{BuildError, InitError, JoinError, ResizeError, SubmitError, TimeoutError};
pub use executor::ext::ExecutorExt;
pub use executor::{Executor, InlineExecutor};
#[cfg(feature = "task")]
#[doc(inline)]
pub use futurepool_macros::task;
pub use park::block_on::block_on;
pub use pool::{
    AutoSize, AutoSizeReason, GlobalPool, Histogram, InitializerOutput, JobBuilder, JobEvent,
    JobOutcome, LabelMetrics, Metrics, Priority, Shutdown, SubmitAsync, ThreadPool,
    ThreadPoolBuilder, WaitIdle, global, submit,
};
#[cfg(feature = "process")]
pub use process::{ProcessPool, ProcessPoolBuilder};
pub use scope::{Scope, ScopedJoinHandle};
pub use stateful::{
    StatefulJobBuilder, StatefulPool, StatefulPoolBuilder, StatefulScope, StatefulSubmitAsync,
};
pub use task::cancel_handle::CancelHandle;
pub use task::cancel_on_drop::CancelOnDrop;
pub use task::context::{JobContext, cancel_requested, current_job};
pub use task::job::Job;
pub use task::join_handle::JoinHandle;
pub use task::promise::{Promise, promise};
pub use task::tagged::Tagged;
pub use unblock::Unblock;

/// What the code that `#[task]` and `tasks!` write needs. Not public: it changes without notice.
#[cfg(feature = "task")]
#[doc(hidden)]
pub mod __private {
    pub use inventory;
    pub use serde;

    pub use crate::call::codec::{CodecError, Slot, decode, encode};
    pub use crate::call::registry::{RunError, TaskEntry};
    #[cfg(feature = "process")]
    pub use crate::process::TestEntry;

    /// Fails to compile if a parameter of a task has a type that cannot be sent.
    pub const fn assert_argument<T>()
    where
        T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
    }

    /// Fails to compile if the output of a task has a type that cannot be sent.
    pub const fn assert_output<T>()
    where
        T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
    }
}

/// What the fuzz targets call. Not public: it exists only while they are built.
#[cfg(all(fuzzing, unix, feature = "process"))]
#[doc(hidden)]
pub mod __fuzz {
    /// Reads `data` as what a worker process sends.
    pub fn frames(data: &[u8]) {
        crate::process::frame::fuzz(data);
    }

    /// Reads `data` as an event of a worker process.
    pub fn events(data: &[u8]) {
        crate::process::events::fuzz(data);
    }
}

// The README's examples are tests.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
