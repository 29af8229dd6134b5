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
//! # Features
//!
//! - `tokio` (default): jobs run inside the tokio runtime that was current when the pool was built, so that
//!   `tokio::spawn` works in them.

#![deny(unsafe_code)]

mod block_on;
mod contain;
mod error;
mod look;
mod pool;
mod sync;
mod task;

pub use block_on::block_on;
pub use error::{BuildError, JoinError, SubmitError, TimeoutError};
pub use pool::{
    GlobalPool, InitializerOutput, Metrics, Shutdown, SubmitAsync, ThreadPool, ThreadPoolBuilder,
    global, submit,
};
pub use task::context::cancel_requested;
pub use task::handle::{CancelOnDrop, JoinHandle, Tagged};

// The README's examples are tests.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
