//! A closure that gets the state of its worker, as a job.

use std::marker::PhantomData;

use crate::error::JoinError;
use crate::pool::worker_state::with_state;
use crate::task::cell::{JobClosure, catch};
use crate::task::state::Origin;

/// A closure that gets the state.
pub(super) struct StatefulJob<S, F> {
    closure: F,
    state: PhantomData<fn(&mut S)>,
}

impl<S, F> StatefulJob<S, F> {
    pub(super) fn new(closure: F) -> Self {
        Self {
            closure,
            state: PhantomData,
        }
    }

    /// Returns the closure of a job that was not accepted.
    pub(super) fn into_closure(self) -> F {
        self.closure
    }
}

impl<S, F, T> JobClosure<T> for StatefulJob<S, F>
where
    S: 'static,
    F: FnOnce(&mut S) -> T + Send + 'static,
{
    fn call(self, origin: Origin) -> Result<T, JoinError> {
        catch(origin, || with_state(self.closure)).and_then(|outcome| outcome)
    }
}
