//! One job, from submit to result.
//!
//! ```text
//!   JoinHandle (the caller's half) ──► Cell ◄── Job (the executor's half)
//! ```
//!
//! [`join_handle`], and round it [`cancel_on_drop`] and [`tagged`], which it makes. Below them each file uses only those
//! after it: [`job`], [`cell`], [`context`], [`span`].

pub(crate) mod cancel_on_drop;
pub(crate) mod cell;
pub(crate) mod context;
pub(crate) mod job;
pub(crate) mod join_handle;
pub(crate) mod span;
pub(crate) mod tagged;
