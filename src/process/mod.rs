//! Worker processes: jobs that can be killed, and crashes that harm no other job.
//!
//! See [`ProcessPool`].

// Maintainers:
//
//   ProcessPool ─► a ThreadPool: queue, permits, counts, shutdown
//                    │ each of its threads owns a worker process
//                    ▼
//   exchange: Link ──── frames over a socket pair ────► child: runs tasks in the worker process
//     │                        (frame, wire)                  init: how a program becomes a worker
//     ├─► spawn: the command, the handshake
//     └─► worker: kill, reap; Control: a cancel, or the outcome
//              ▲
//   supervisor ┘ limits, grace, ends (memory)      output: what workers print
//
//   tracing: events (those of workers), lifecycle (those about workers)
//
// What is below `exchange` needs Unix. Elsewhere `unsupported` takes its place, and no pool can be
// built.

// What only workers need is not used where there are none.
#![cfg_attr(not(unix), allow(dead_code))]

mod builder;
mod calls;
#[cfg(unix)]
mod child;
#[cfg(unix)]
mod counter;
pub(crate) mod events;
#[cfg(unix)]
mod exchange;
mod forward;
pub(crate) mod frame;
mod init;
#[cfg(unix)]
mod lifecycle;
mod line;
mod map;
#[cfg(unix)]
mod memory;
#[cfg(unix)]
mod output;
mod pool;
#[cfg(unix)]
mod socket;
#[cfg(unix)]
mod spawn;
#[cfg(unix)]
mod supervisor;
#[cfg(not(unix))]
mod unsupported;
mod wire;
#[cfg(unix)]
mod worker;

pub use self::builder::{ProcessPoolBuilder, WorkerStdio};
#[doc(hidden)]
pub use self::init::TestEntry;
pub use self::init::{init, init_tasks};
pub use self::line::{OutputLine, OutputStream};
pub(crate) use self::pool::Target;
pub use self::pool::{ProcessPool, SubmitCall, WorkerInfo, WorkerState};
#[cfg(all(unix, feature = "console"))]
pub(crate) use self::supervisor::WorkerList;
#[cfg(not(unix))]
use self::unsupported::{child, exchange, worker};
#[doc(inline)]
pub use crate::__process_test_init as test_init;
