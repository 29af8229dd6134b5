//! A delivery that this worker holds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::{Delivery, Token};

/// A delivery that this worker holds, from its arrival until it has left the queue or was given
/// back. No two have the same id.
pub(super) struct Held {
    pub(super) id: String,
    pub(super) client: String,
    /// The submitter may be gone: the outcome is kept.
    pub(super) detached: bool,
    pub(super) idempotent: bool,
    pub(super) task: &'static str,
    pub(super) label: Option<String>,
    /// The sequence of the message.
    pub(super) seq: u64,
    /// How often the message was delivered, this time included.
    pub(super) count: u64,
    /// Tells this delivery apart from others of the job to this worker, in claims and in blobs.
    pub(super) nonce: u64,
    /// The newest token: the message may be delivered again while it is held.
    pub(super) token: RefCell<Token>,
    /// Counted by the intake: it is not one too many.
    pub(super) admitted: Cell<bool>,
    /// It is in the table.
    pub(super) listed: Cell<bool>,
    /// The connection's generation in which the message was seen, or delivered.
    pub(super) seen_in: Cell<u64>,
    /// The submitter wants it to end.
    pub(super) cancelled: Cell<bool>,
    /// The worker ends before the job: its run is asked to end for no reason of the submitter's.
    pub(super) abandoned: Cell<bool>,
    /// The count of the newest delivery.
    pub(super) newest: Cell<u64>,
    /// Counts of deliveries that led to no start, on their way into the claim.
    pub(super) counting: Cell<usize>,
    pub(super) counted_all: Notify,
    /// A claim counts deliveries of it that led to no start.
    pub(super) counted: Cell<bool>,
    pub(super) run: RefCell<Option<Run>>,
    /// Since when the submitter seems dead.
    pub(super) orphan_since: Cell<Option<Instant>>,
}

/// A job that runs.
pub(super) struct Run {
    pub(super) since: Instant,
    pub(super) cancel: Rc<dyn Fn()>,
}

impl Held {
    pub(super) fn token(&self) -> Token {
        self.token.borrow().clone()
    }

    /// The message came again: the newest token counts.
    pub(super) fn adopt(&self, delivery: Delivery) {
        self.newest.set(delivery.count);
        *self.token.borrow_mut() = delivery.token;
    }

    /// Asks the job to end, for its submitter. Before its run, it does not start.
    pub(super) fn cancel(&self) {
        self.cancelled.set(true);
        self.stop_run();
    }

    /// Asks the job to end if it runs, because the worker ends.
    pub(super) fn abandon(&self) {
        self.abandoned.set(true);
        self.stop_run();
    }

    fn stop_run(&self) {
        let cancel = self.run.borrow().as_ref().map(|run| Rc::clone(&run.cancel));
        if let Some(cancel) = cancel {
            cancel();
        }
    }
}
