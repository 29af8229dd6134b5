//! The executor's half of a job.

use std::fmt;

use crate::error::JoinError;
use crate::sync::Arc;
use crate::task::cell::{Runnable, Watch};
use crate::task::context;

/// A job that waits to be run. One that is dropped is cancelled, so that its handle resolves all the same.
pub(crate) struct Job {
    /// `None` once it was run, refused or disarmed.
    cell: Option<Arc<dyn Runnable>>,
}

impl Job {
    pub(crate) fn new(cell: Arc<dyn Runnable>) -> Self {
        Self { cell: Some(cell) }
    }

    /// Runs it in this thread; false if it was cancelled before. Never unwinds.
    pub(crate) fn run(mut self, watch: &mut dyn Watch) -> bool {
        let Some(cell) = self.cell.take() else {
            return false;
        };
        context::run_inside(Arc::clone(&cell), || cell.run(watch))
    }

    /// Resolves it with an error; false if it was cancelled before.
    pub(crate) fn refuse(mut self, error: JoinError) -> bool {
        self.cell.take().is_some_and(|cell| refuse(cell, error))
    }

    /// It is about to be refused; false if it was cancelled before.
    pub(crate) fn condemn(&self) -> bool {
        self.cell.as_ref().is_some_and(|cell| cell.condemn())
    }

    /// Whether it was cancelled.
    pub(crate) fn is_husk(&self) -> bool {
        self.cell.as_ref().is_none_or(|cell| cell.is_husk())
    }

    /// Lets go of a job that was not accepted, without resolving it.
    pub(crate) fn disarm(mut self) {
        self.cell = None;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            refuse(cell, JoinError::cancelled());
        }
    }
}

/// Inside the job, as its callbacks are when it runs: one that joins the job's own handle is told so.
fn refuse(cell: Arc<dyn Runnable>, error: JoinError) -> bool {
    context::run_inside(Arc::clone(&cell), || cell.refuse(error))
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}
