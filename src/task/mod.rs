//! One job, from submit to result.
//!
//! ```text
//!   JoinHandle (the caller's half) ──► Cell ◄── Job (the executor's half)
//! ```
//!
//! Each file uses only those after it: [`handle`], [`job`], [`cell`], [`circle`], [`context`], [`span`].

pub(crate) mod cell;
pub(crate) mod circle;
pub(crate) mod context;
pub(crate) mod handle;
pub(crate) mod job;
pub(crate) mod span;
