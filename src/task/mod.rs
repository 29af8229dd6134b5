//! One job, from submit to result.
//!
//! ```text
//!   JoinHandle (the caller's half) ──► Cell ◄── Job (the executor's half)
//! ```
//!
//! Each file uses only those after it: [`join_handle`], [`job`], [`cell`], [`context`], [`span`].

pub(crate) mod cell;
pub(crate) mod context;
pub(crate) mod job;
pub(crate) mod join_handle;
pub(crate) mod span;
