//! Combinators over many jobs at once.
//!
//! - [`as_completed`]: the outputs of many futures, in completion order.
//! - [`wait`]: waits for several handles and leaves their results in them.
//! - [`map`]: a function over many items, in one job for each item or chunk.
//!
//! The three modules do not use each other. Each has a poll for async code, and a blocking form
//! that runs the same poll in `block_on_until`. Their timeouts are `Deadline`s: polls wait for the
//! timer thread, and blocking forms park with a timeout.

pub(crate) mod as_completed;
pub(crate) mod map;
pub(crate) mod wait;
