//! The guarantees, and what differs, without the feature `tokio`: some modules of `tests/it`, which
//! has all of them and so is built with that feature alone.

#![cfg(not(any(feature = "tokio", loom)))]

#[path = "common/mod.rs"]
#[allow(dead_code, reason = "this binary needs a part of the helpers")]
mod common;

#[path = "it/builder.rs"]
mod builder;
#[path = "it/executors.rs"]
mod executors;
#[path = "it/global.rs"]
mod global;
#[path = "it/guarantees.rs"]
mod guarantees;
#[path = "it/runtimes.rs"]
mod runtimes;
#[path = "it/spans.rs"]
mod spans;
#[path = "it/stateful.rs"]
mod stateful;
