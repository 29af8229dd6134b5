//! What an [`Unblock`](super::Unblock) shares with its jobs.

use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::thread;

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
    ///
    /// # Errors
    ///
    /// Returns the payload of the panic. It does not unwind from here: a destructor that panics on
    /// the way would abort the process.
    pub(super) fn run<R>(&self, operation: impl FnOnce(&mut T) -> R) -> thread::Result<R> {
        let io = self.io.lock().take();
        // Invariant: a job is submitted only while the value is there, and only one at a time.
        let mut io = io.expect("the blocking value is there while no other job runs");
        let result = catch_unwind(AssertUnwindSafe(|| operation(&mut io)));
        match result {
            Ok(_) => *self.io.lock() = Some(io),
            Err(_) => drop_catching("the destructor of a blocking value", io),
        }
        result
    }

    /// Called by a job that does not write, when it is done with the value. Returns whether the
    /// `Unblock` is gone and this job must empty the outbox.
    pub(super) fn must_write_rest(&self) -> bool {
        let has_value = self.io.lock().is_some();
        let mut outbox = self.outbox.lock();
        let must_write = outbox.is_orphaned && has_value;
        if !must_write {
            outbox.active = false;
        }
        must_write
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let outbox = mem::take(self.outbox.get_mut());
        let lost = outbox.bytes.len() + outbox.writing;
        let is_unflushed = outbox.flush && outbox.unflushed && self.io.get_mut().is_some();
        if lost > 0 {
            emit(|| {
                tracing::error!(
                    lost,
                    "an Unblock was dropped and {lost} bytes were not written"
                )
            });
        } else if is_unflushed {
            emit(|| tracing::warn!("an Unblock was dropped and its value was not flushed"));
        }
        if let Some(error) = outbox.error {
            emit(|| tracing::error!(%error, "an Unblock was dropped with a write error: {error}"));
            drop_catching("the destructor of an error", error);
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
    /// Whether a job is submitted that looks at the outbox before it ends. Set by the consumer that
    /// submits it; cleared by the job under the lock under which it finds nothing more to do, or by
    /// the consumer when the job did not run. A writing job empties the outbox. Any other job does
    /// so only if `is_orphaned`, and never sets this if nothing was written before.
    pub(super) active: bool,
    /// Whether the job must flush the value once everything is written.
    pub(super) flush: bool,
    /// Whether the value was written, or lent to the caller, since it was flushed.
    pub(super) unflushed: bool,
    /// Whether the `Unblock` was dropped and relies on the job in flight.
    pub(super) is_orphaned: bool,
    /// Whether the job can have no successor, because the pool accepts no more jobs. No bytes are
    /// accepted until the job has ended.
    pub(super) last: bool,
    /// The first error that the consumer was not told of.
    pub(super) error: Option<io::Error>,
    /// The consumer that waits for room in `bytes`.
    pub(super) waker: Option<Waker>,
}

impl Outbox {
    /// Records the error of a write. What was accepted before is discarded: to write it after a gap
    /// would corrupt the data. Returns the error if an earlier one is not reported yet: the caller
    /// drops it outside the lock.
    #[must_use]
    pub(super) fn fail_write(&mut self, error: io::Error) -> Option<io::Error> {
        self.discard();
        self.record(error)
    }

    /// Records the error of a flush. The next flush tries again.
    #[must_use]
    pub(super) fn fail_flush(&mut self, error: io::Error) -> Option<io::Error> {
        self.unflushed = true;
        self.record(error)
    }

    fn record(&mut self, error: io::Error) -> Option<io::Error> {
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
