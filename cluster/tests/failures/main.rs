//! The guarantees of the cluster, under failures: real workers and real servers, which are killed,
//! stopped and cut off.
//!
//! Each task writes its start and its end into a file, the [judge](judge::Judge). Workers, and
//! submitters that must die, are this binary again: see [`programs`].
//!
//! The names of tests begin with the guarantee that they are about. `docs/cluster.md` has the list.
//! Those that take minutes are ignored: `.ci/slow cluster` runs them.

// Processes are stopped, and looked at, in the way of this system.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod attempts;
mod cancels;
mod drains;
mod judge;
mod masses;
mod namespaces;
mod outcomes;
mod partitions;
mod programs;
mod restarts;
mod rollbacks;
mod secured;
mod space;
mod steps;
mod submitters;
mod tasks;
mod upgrades;

// Workers with processes start this binary, too.
#[cfg(feature = "process")]
futurepool::process::test_init!();
