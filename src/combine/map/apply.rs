//! What a map does with its items: it calls a function here, or a task in a worker process.

use std::convert::Infallible;

use super::rest::drop_items;
use crate::error::JoinError;
use crate::scope::ItemFailures;
use crate::task::cell::catch;
use crate::task::state::Origin;
use crate::util::sync::{AtomicBool, Ordering};
use crate::util::unwind::{DropEach, drop_catching};

/// What a map does with each item of type `A`, which gives a `U`.
pub(crate) trait Apply<A, U>: Send + Sync {
    /// How an item can fail without a panic. [`Infallible`] for a function.
    type Failure: Into<JoinError>;

    /// Applies it to one item. A panic is one of the item.
    fn one(&self, item: A, chunk: MapContext<'_>) -> Result<U, Self::Failure>;

    /// Applies it to the items of a chunk, one after the other, and returns one result for each. A
    /// failure of an item costs that item alone. Does not unwind.
    ///
    /// # Errors
    ///
    /// Returns an error if that is what becomes of all items.
    fn each(
        &self,
        items: DropEach<A>,
        chunk: MapContext<'_>,
    ) -> Result<DropEach<Result<U, JoinError>>, Self::Failure>;

    /// The same for items whose results nothing wants, and which no end of the map stops.
    fn each_detached(&self, items: Vec<A>, chunk: MapContext<'_>);
}

/// What the jobs of a map know of it, besides their items.
#[derive(Clone, Copy)]
pub(crate) struct MapContext<'a> {
    /// Where `map` was called.
    pub(crate) origin: Origin,
    /// Asks running chunks to skip their remaining items.
    pub(crate) stop: &'a AtomicBool,
    pub(crate) place: Place<'a>,
}

impl<'a> MapContext<'a> {
    /// Returns the way to the worker process of this thread.
    #[cfg(feature = "process")]
    pub(crate) fn target(self) -> Result<&'a crate::process::Target, JoinError> {
        match self.place {
            Place::Process(target) => Ok(target),
            // A map of calls only has a route to worker processes.
            Place::Thread | Place::Scope(_) => Err(JoinError::cancelled()),
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        // Relaxed: see `Submitter::stop`.
        self.stop.load(Ordering::Relaxed)
    }

    /// Keeps the error of an item, in a scope. Returns the error for the results.
    pub(crate) fn keep(&self, item: usize, error: JoinError) -> JoinError {
        match self.place.failures() {
            Some(failures) => {
                failures.record(item, error, self.origin);
                // `Results` replaces this error by the recorded one.
                JoinError::cancelled()
            }
            None => error,
        }
    }

    /// Keeps the error of an item whose result nothing wants, in a scope.
    pub(crate) fn keep_detached(&self, error: JoinError) {
        match self.place.failures() {
            Some(failures) => failures.record_detached(error, self.origin),
            None => drop_catching("a panic's payload", error),
        }
    }
}

/// Where a job of a map runs.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    Thread,
    /// In a scope, where the job records the panics of its items.
    Scope(&'a ItemFailures),
    /// In a thread that has a worker process.
    #[cfg(feature = "process")]
    Process(&'a crate::process::Target),
}

impl<'a> Place<'a> {
    /// Returns where a job records the panics of its items, if that is not among its results.
    pub(super) fn failures(self) -> Option<&'a ItemFailures> {
        match self {
            Self::Scope(failures) => Some(failures),
            _ => None,
        }
    }
}

/// Turns the outcome of a function, which cannot fail, into its value.
pub(super) fn infallible<T>(outcome: Result<T, Infallible>) -> T {
    match outcome {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

impl From<Infallible> for JoinError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A function of the user's.
impl<A, U, F> Apply<A, U> for F
where
    F: Fn(A) -> U + Send + Sync,
{
    type Failure = Infallible;

    #[inline]
    fn one(&self, item: A, _: MapContext<'_>) -> Result<U, Infallible> {
        Ok(self(item))
    }

    fn each(
        &self,
        mut items: DropEach<A>,
        chunk: MapContext<'_>,
    ) -> Result<DropEach<Result<U, JoinError>>, Infallible> {
        let mut results = Vec::with_capacity(items.len());
        let mut items = items.take().into_iter();
        while items.len() > 0 && !chunk.is_stopped() {
            // One `catch` serves all items up to the next panic.
            let run = catch(chunk.origin, || {
                while !chunk.is_stopped() {
                    let Some(item) = items.next() else {
                        return;
                    };
                    results.push(Ok(self(item)));
                }
            });
            // Invariant: one result for each item taken. The item that panicked has none yet.
            if let Err(error) = run {
                results.push(Err(chunk.keep(results.len(), error)));
            }
        }
        results.extend(items.as_slice().iter().map(|_| Err(JoinError::cancelled())));
        drop_items(items);
        Ok(DropEach::new(results))
    }

    fn each_detached(&self, items: Vec<A>, chunk: MapContext<'_>) {
        for item in items {
            match catch(chunk.origin, || self(item)) {
                Ok(result) => drop_catching("the destructor of a result", result),
                Err(error) => chunk.keep_detached(error),
            }
        }
    }
}
