//! Runs the tasks of `futurepool` on workers on any number of machines, over NATS JetStream.
//! [`Cluster::submit`] returns the same [`JoinHandle`](futurepool::JoinHandle) as a pool of threads
//! or of processes.
//!
//! Begin with [`Cluster`] and [`Worker`]. Guides: [several machines](guide::several_machines), [from
//! Celery, Dask and Ray](guide::from_celery_dask_and_ray).
//!
//! ```text
//!  submitter:  Cluster ── window, encode ──► I/O thread: submitter::Core ──┐
//!                 ▲                                                        ├─► Broker ─► a server,
//!                 └── JoinHandle ◄── resolver thread ◄─────────────────────┤             or memory
//!  worker:     Worker ──► I/O thread: worker::Core ──► any TaskExecutor    │
//!                                          └───────────────────────────────┘
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// Maintainers: begin with `docs/cluster.md` (the protocol), then `broker/mod.rs`, `worker/job.rs`
// (the life of a delivery) and `submitter/job.rs` (the life of a job).

mod broker;
mod cluster;
mod error;
#[cfg(any(doc, doctest))]
pub mod guide;
mod io;
mod janitor;
#[cfg(test)]
mod model;
mod namespace;
mod protocol;
mod server;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod status;
mod submitter;
mod trace;
mod watch;
mod worker;
mod worker_face;

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;

pub use broker::memory::MemoryBroker;
pub use cluster::{Cluster, ClusterBuilder, Metrics, Shutdown, SubmitAsync};
pub use error::{ConnectError, WorkerError};
pub use server::Server;
pub use worker_face::{ConnectedWorker, DrainHandle, Worker};

// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
