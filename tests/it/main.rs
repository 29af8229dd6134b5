//! The tests of the public API that share one process, a module for each theme.
//!
//! Some tests need a process of their own: see `common::child`, and the other binaries in `tests/`.

#[path = "../common/mod.rs"]
mod common;

mod adaptive_map;
mod any_of;
mod as_completed;
mod auto_size;
mod bounded;
mod broadcast;
mod builder;
mod cancel;
mod deadlocks;
mod debug_fmt;
mod detached_map;
#[cfg(feature = "task")]
mod elsewhere;
mod events;
mod executors;
mod expiry;
mod first_ok;
mod global;
mod guarantees;
mod handle;
mod iterator_vs_stream;
mod job_builder;
mod job_events;
mod map;
mod map_bursts;
#[cfg(feature = "metrics")]
mod metrics_facade;
mod nested;
mod order;
mod priority;
#[cfg(all(unix, feature = "process"))]
mod process_without_init;
mod promise;
mod python;
mod random_handles;
mod random_options;
mod random_pools;
mod reentrancy;
mod regressions;
mod resize;
mod runtimes;
mod scope;
mod scope_map;
mod shutdown;
mod spans;
mod spurious_unparks;
mod stateful;
mod stateful_scope;
#[cfg(feature = "task")]
mod tasks;
mod timings;
#[cfg(feature = "tokio")]
mod tokio_traps;
mod unblock;
mod wait;
mod wait_idle;
mod workers;
