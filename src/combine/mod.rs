//! Combinators over many jobs at once.
//!
//! - [`as_completed`]: the outputs of many futures, in completion order.
//! - [`wait`]: waits for several handles and leaves their results in them.
//! - [`first_ok`]: the first job that succeeds, and a cancel for the others.
//! - [`map`]: a function over many items, in jobs of one item or of a chunk.
//!
//! These modules do not use each other. Each has a poll for async code, and a blocking form
//! that runs the same poll in `block_on_until`. Their timeouts are `Deadline`s: polls wait for the
//! timer thread, and blocking forms park with a timeout.
//!
//! Three modules below them are shared:
//!
//! - [`handle`]: which handles they accept, and what they do with a handle.
//! - [`any_of`]: the handles of a wait that one job can end, for `wait` and `first_ok`.
//! - [`future_set`]: futures that are polled as they are woken, for `as_completed`.

pub(crate) mod any_of;
pub(crate) mod as_completed;
pub(crate) mod first_ok;
pub(crate) mod future_set;
pub(crate) mod handle;
pub(crate) mod map;
pub(crate) mod wait;
