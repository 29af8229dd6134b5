//! Runs `futurepool`'s tasks on workers on any number of machines.

#![forbid(unsafe_code)]

pub(crate) mod broker;
#[allow(dead_code)]
pub(crate) mod janitor;
pub(crate) mod protocol;
#[allow(dead_code)]
pub(crate) mod submitter;
#[allow(dead_code)]
pub(crate) mod worker;

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
