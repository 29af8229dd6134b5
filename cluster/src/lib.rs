//! Runs `futurepool`'s tasks on workers on any number of machines.

#![forbid(unsafe_code)]

pub(crate) mod broker;
pub(crate) mod janitor;
pub(crate) mod protocol;
pub(crate) mod worker;
