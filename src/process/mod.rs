//! Worker processes: jobs that can be killed, and crashes that harm no other job.
//!
//! ```text
//!   ProcessPool ─► a ThreadPool: queue, permits, counts, shutdown
//!                    │ each of its threads owns a worker process
//!                    ▼
//!   exchange: Link ──── frames over a socket pair ────► child: runs tasks in the worker process
//!     │                        (frame, wire)                  init: how a program becomes a worker
//!     ├─► spawn: the command, the handshake
//!     └─► worker: kill, reap; Control: a cancel, or the outcome
//!              ▲
//!   supervisor ┘ limits, grace, ends (memory)      output: what workers print      events: tracing
//! ```

mod builder;
#[cfg(unix)]
mod child;
pub(crate) mod events;
mod exchange;
mod forward;
pub(crate) mod frame;
mod init;
mod memory;
mod output;
mod pool;
mod spawn;
mod supervisor;
mod wire;
mod worker;

pub use self::builder::{ProcessPoolBuilder, WorkerStdio};
#[doc(hidden)]
pub use self::init::TestEntry;
pub use self::init::{init, init_tasks};
pub use self::output::{OutputLine, OutputStream};
pub(crate) use self::pool::{CallSubmitter, Target, decode};
pub use self::pool::{ProcessPool, SubmitCall, WorkerInfo, WorkerState};
#[doc(inline)]
pub use crate::__process_test_init as test_init;
