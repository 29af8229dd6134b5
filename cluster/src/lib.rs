//! Runs `futurepool`'s tasks on workers on any number of machines.

#![forbid(unsafe_code)]

pub(crate) mod broker;
pub(crate) mod protocol;

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
