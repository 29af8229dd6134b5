//! What an [`Unblock`](super::Unblock) shares with its jobs.

use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

use crate::util::sync::Mutex;
use crate::util::unwind::{drop_catching, emit};

/// Shared by an `Unblock` and its jobs. At most one job at a time uses the blocking value.
///
/// The last owner drops the value. If the `Unblock` is dropped while a job runs, that is the
/// worker.
pub(super) struct Shared<T> {
    /// The blocking value. A running job takes it out and puts it back. `None` for good once it was
    /// lost in a panic, closed, or handed out.
    pub(super) io: Mutex<Option<Box<T>>>,
    pub(super) outbox: Mutex<Outbox>,
}

impl<T> Shared<T> {
    pub(super) fn new(io: T) -> Self {
        Self {
            io: Mutex::new(Some(Box::new(io))),
            outbox: Mutex::new(Outbox::default()),
        }
    }

    /// Runs `operation` on the blocking value. If it panics, the value is dropped.
    pub(super) fn run<R>(&self, operation: impl FnOnce(&mut T) -> R) -> R {
        let io = self.io.lock().take();
        // Invariant: a job is submitted only while the value is there, and only one at a time.
        let mut io = io.expect("the blocking value is there while no other job runs");
        match catch_unwind(AssertUnwindSafe(|| operation(&mut io))) {
            Ok(result) => {
                *self.io.lock() = Some(io);
                result
            }
            Err(payload) => {
                // Not while unwinding: a second panic would abort the process.
                drop_catching("the destructor of a blocking value", io);
                resume_unwind(payload)
            }
        }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let outbox = mem::take(self.outbox.get_mut());
        let lost = outbox.bytes.len() + outbox.writing;
        if lost > 0 {
            emit(|| {
                tracing::error!(
                    lost,
                    "an Unblock was dropped and {lost} bytes were not written"
                )
            });
        }
        if let Some(error) = outbox.error {
            emit(|| tracing::error!(%error, "an Unblock was dropped with a write error: {error}"));
        }
    }
}

/// The bytes that were accepted and not written, and what the writing job must do.
///
/// Invariant: while there is something to do, either `active` is set, so a job does it, or the pool
/// has refused the job and the consumer was told.
#[derive(Default)]
pub(super) struct Outbox {
    /// Accepted by the consumer and not yet taken by the job.
    pub(super) bytes: Vec<u8>,
    /// The allocation of the buffer that was written last.
    pub(super) spare: Vec<u8>,
    /// How many bytes the job is writing. They count as lost if the job panics.
    pub(super) writing: usize,
    /// How far the job must first move back, because the reader has read ahead.
    pub(super) undo: u64,
    /// Whether a job is submitted that writes everything. Set by the consumer that submits it;
    /// cleared by the job under the lock under which it finds nothing more to do, or by the
    /// consumer when the job did not run.
    pub(super) active: bool,
    /// Whether the job must flush the value once everything is written.
    pub(super) flush: bool,
    /// Whether the value was written, or lent to the caller, since it was flushed.
    pub(super) unflushed: bool,
    /// Whether the job can have no successor, because the pool accepts no more jobs. No bytes are
    /// accepted until the job has ended.
    pub(super) last: bool,
    /// The first error that the consumer was not told of.
    pub(super) error: Option<io::Error>,
    /// The consumer that waits for room in `bytes`.
    pub(super) waker: Option<Waker>,
}

impl Outbox {
    /// Records an error. What was accepted before is discarded: to write it after a gap would
    /// corrupt the data. Returns the error if an earlier one is not reported yet: the caller drops
    /// it outside the lock.
    #[must_use]
    pub(super) fn fail(&mut self, error: io::Error) -> Option<io::Error> {
        self.discard();
        if self.error.is_some() {
            return Some(error);
        }
        self.error = Some(error);
        None
    }

    pub(super) fn discard(&mut self) {
        self.bytes.clear();
        self.writing = 0;
    }

    pub(super) fn is_clean(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }
}
