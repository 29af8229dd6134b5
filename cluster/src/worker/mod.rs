//! The worker's side of the protocol.
//!
//! ```text
//!   Core ── one future: a nursery of linear ones over `Shared`
//!     ├─ connection   after each reconnect: stores, the own key, then everything else goes on
//!     ├─ living       writes the own key, follows the keys of others
//!     ├─ inbox        notices: cancel, "do you hold this?", drain
//!     ├─ pulls        requests and deliveries ──► intake: how many
//!     │    └─ job     the life of one delivery: slot, claim, look, checks, run, outcome, removal
//!     │         ├─ claim    what a claim that is there means
//!     │         ├─ runner   runs the task elsewhere, in any executor
//!     │         └─ settle   the outcome: kept, blob, message
//!     ├─ releases     deletes claims that outlive their messages
//!     ├─ lease        extends what is held
//!     ├─ housekeeping runs the janitor
//!     └─ drain        how it ends
//! ```
//!
//! No lock, no thread, and no blocking call is in here. A borrow of a `RefCell` never lives across
//! an await.

mod claim;
mod connection;
mod control;
mod core;
mod drain;
mod held;
mod housekeeping;
mod inbox;
mod intake;
mod job;
mod lease;
mod living;
mod nursery;
mod pulls;
mod releases;
mod runner;
mod settle;
#[cfg(test)]
mod tests;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futurepool::Tasks;

pub(crate) use self::control::Control;
pub(crate) use self::core::Core;
#[cfg(test)]
pub(crate) use self::runner::Runner;
pub(crate) use self::runner::{ExecutorRunner, Running};
use crate::protocol::settings::Settings;

/// What a core does after a step of the protocol, with the step and the id of the job. Tests kill
/// or stop the worker in it. With a hook, the core yields after it.
pub(crate) type Steps = Option<Rc<dyn Fn(&'static str, &str)>>;

/// What a worker is.
#[derive(Clone)]
pub(crate) struct Options {
    /// Unique for ever: a token, or two that a dot joins.
    pub(crate) id: String,
    /// For people: `host/pid`.
    pub(crate) name: String,
    pub(crate) queue: String,
    pub(crate) tasks: Tasks,
    /// How many jobs run at once.
    pub(crate) slots: usize,
    /// How long a drain waits for running jobs until it asks them to end.
    pub(crate) grace: Duration,
    pub(crate) settings: Settings,
    pub(crate) seed: u64,
    /// Where the program serves its console.
    pub(crate) console: Option<String>,
    pub(crate) steps: Steps,
}

/// Why a worker ended without a drain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Its executor cannot run anything, again and again.
    Broken(Arc<str>),
    /// The server refuses what a worker needs.
    Refused(Arc<str>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(text) => write!(f, "the worker cannot run tasks: {text}"),
            Self::Refused(text) => write!(f, "the server refuses the worker: {text}"),
        }
    }
}
