//! Python's `concurrent.futures` for Rust: a pool of blocking threads whose [`submit`](ThreadPool::submit) returns one
//! handle that async code awaits and sync code joins.
//!
//! It needs no runtime and works in every one: tokio, smol, `futures::executor`, `pollster`, or none at all.
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
//! # Many jobs
//!
//! - [`as_completed`]: results as they come. [`wait`]: for all, for the first, for the first error.
//! - [`map`](ThreadPool::map) and [`map_unordered`](ThreadPool::map_unordered): a function over many items, endless
//!   inputs included.
//! - [`scope`](ThreadPool::scope): jobs that borrow.
//!
//! Each works in async and in sync code.
//!
//! # Jobs that wait for jobs
//!
//! A job may wait for jobs of its own pool, even on a pool of one worker. Who waits for one job, or for all of several,
//! runs those that are still queued itself, at once; who takes results as they come does so when no worker is left
//! to run them. They run on the waiter's stack, so a deep recursion needs a larger
//! [`stack_size`](ThreadPoolBuilder::stack_size). No other job is ever run in a waiter, so locks that it holds are met
//! by nobody unexpected. Jobs that [`join`](JoinHandle::join) one another in a circle get an error that says so.
//!
//! Only this crate's waits do that, and only those without a time limit.
//!
//! # Features
//!
//! - `tokio` (default): jobs run inside the tokio runtime that was current when the pool was built, so that
//!   `tokio::spawn` works in them; and tokio's runtime handle is an [`Executor`].
//! - `rayon`: rayon's thread pool is an [`Executor`].

#![deny(unsafe_code)]

mod block_on;
mod combine;
mod contain;
mod error;
mod executor;
mod executor_ext;
mod look;
mod offers;
mod pool;
mod scope;
mod sleeper;
mod sync;
mod task;

pub use block_on::block_on;
pub use combine::as_completed::{
    AsCompleted, AsCompletedIter, TimedAsCompleted, TimedAsCompletedIter, as_completed,
};
pub use combine::map::{Map, MapIter, MapUnordered, MapUnorderedIter};
pub use combine::wait::{
    ReturnWhen, Wait, WaitHandle, WaitResultHandle, Waited, wait, wait_results,
};
pub use error::{BuildError, JoinError, SubmitError, TimeoutError};
pub use executor::{Executor, InlineExecutor};
pub use executor_ext::ExecutorExt;
pub use pool::{
    GlobalPool, InitializerOutput, Metrics, Shutdown, SubmitAsync, ThreadPool, ThreadPoolBuilder,
    global, submit,
};
pub use scope::{Scope, ScopedJoinHandle};
pub use task::context::cancel_requested;
pub use task::handle::{CancelOnDrop, JoinHandle, Tagged};
pub use task::job::Job;

// The README's examples are tests.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
