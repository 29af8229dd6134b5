//! Maps over items with the state of the worker.

use std::marker::PhantomData;

use super::StatefulPool;
use crate::combine::map::{
    Apply, Handle, JobKind, Map, MapContext, MapUnordered, Place, Refused, Route, Submitter,
};
use crate::error::JoinError;
use crate::pool::PoolSubmitter;
use crate::pool::worker_state::with_state;
use crate::task::cell::{JobClosure, catch};
use crate::task::span::Span;
use crate::task::state::Origin;
use crate::util::unwind::{DropEach, drop_catching};

impl<S: 'static> StatefulPool<S> {
    /// Calls `f` on each item, with the state of a worker, and yields the results in input order.
    ///
    /// The map is lazy, and has the options of [`ThreadPool::map`](crate::ThreadPool::map). Give it
    /// [`chunk_size(1)`](Map::chunk_size) if each item must be a job of its own.
    ///
    /// If `f` panics on an item, the result of that item is an `Err`, and the iteration continues
    /// with a new state.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::StatefulPool;
    ///
    /// let pool = StatefulPool::builder_with(String::new).max_workers(2).build()?;
    /// let lengths = pool.map(["ham", "spam"], |buffer: &mut String, word| {
    ///     buffer.clear();
    ///     buffer.push_str(word);
    ///     buffer.len()
    /// });
    /// assert_eq!(lengths.join()?, [3, 4]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "par_iter")]
    #[doc(alias = "map_init")]
    #[doc(alias = "map_with")]
    #[track_caller]
    pub fn map<'a, I, F, U>(&self, items: I, f: F) -> Map<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(&mut S, I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        Map::new(self.submitter(items.into_iter(), f))
    }

    /// Calls `f` on each item, with the state of a worker, and yields the results in completion
    /// order.
    ///
    /// A result does not tell which item it belongs to: return the item from `f` if that matters.
    /// In every other way this method behaves like [`map`](Self::map).
    #[doc(alias = "imap_unordered")]
    #[track_caller]
    pub fn map_unordered<'a, I, F, U>(&self, items: I, f: F) -> MapUnordered<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(&mut S, I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        MapUnordered::new(self.submitter(items.into_iter(), f))
    }

    #[track_caller]
    fn submitter<'a, I, F, U>(&self, input: I, function: F) -> Submitter<'a, 'static, U>
    where
        I: Iterator<Item: Send + 'static> + Send + 'a,
        F: Fn(&mut S, I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        let permits = self.threads.acquire();
        let route = StatefulRoute(permits.submitter());
        Submitter::new(route, Some(permits), input, WithState::new(function))
    }
}

/// Submits jobs to a stateful pool.
#[derive(Clone)]
struct StatefulRoute(PoolSubmitter);

impl Route<'static> for StatefulRoute {
    type OfJobs = Self;
    type Failure = JoinError;

    fn of_jobs(&self) -> Self {
        self.clone()
    }

    fn pool(&self) -> Option<&PoolSubmitter> {
        Some(&self.0)
    }

    fn submit<C, T>(
        &self,
        closure: C,
        origin: Origin,
        span: Option<Span>,
        _: JobKind,
    ) -> Result<Handle<'static, T>, Refused>
    where
        C: FnOnce(Place<'_>) -> Result<T, JoinError> + Send + 'static,
        T: Send + 'static,
    {
        match self.0.enqueue(MapJob(closure), origin, span) {
            Ok(handle) => Ok(Handle::Plain(handle)),
            Err((closed, job)) => {
                drop_catching("the destructor of an item", job);
                Err(Refused::new(closed.into()))
            }
        }
    }
}

/// A job of a map. Its function borrows the state for each item.
struct MapJob<C>(C);

impl<C, T> JobClosure<T> for MapJob<C>
where
    C: FnOnce(Place<'_>) -> Result<T, JoinError> + Send + 'static,
{
    fn call(self, origin: Origin) -> Result<T, JoinError> {
        catch(origin, || (self.0)(Place::Thread)).and_then(|outcome| outcome)
    }
}

/// A function of the user's that gets the state.
pub(super) struct WithState<S, F> {
    function: F,
    state: PhantomData<fn(&mut S)>,
}

impl<S, F> WithState<S, F> {
    pub(super) fn new(function: F) -> Self {
        Self {
            function,
            state: PhantomData,
        }
    }
}

impl<S, A, U, F> Apply<A, U> for WithState<S, F>
where
    S: 'static,
    F: Fn(&mut S, A) -> U + Send + Sync,
{
    /// The state could not be made.
    type Failure = JoinError;

    #[inline]
    fn one(&self, item: A, _: MapContext<'_>) -> Result<U, JoinError> {
        with_state(|state| (self.function)(state, item))
    }

    fn each(
        &self,
        mut items: DropEach<A>,
        chunk: MapContext<'_>,
    ) -> Result<DropEach<Result<U, JoinError>>, JoinError> {
        let mut results = DropEach::new(Vec::with_capacity(items.len()));
        for (place, item) in items.take().into_iter().enumerate() {
            results.push(match chunk.is_stopped() {
                false => catch(chunk.origin, || self.one(item, chunk))
                    .and_then(|outcome| outcome)
                    .map_err(|error| chunk.keep(place, error)),
                true => {
                    drop_catching("the destructor of an item", item);
                    Err(JoinError::cancelled())
                }
            });
        }
        Ok(results)
    }

    fn each_detached(&self, items: Vec<A>, chunk: MapContext<'_>) {
        for item in items {
            match catch(chunk.origin, || self.one(item, chunk)).and_then(|outcome| outcome) {
                Ok(result) => drop_catching("the destructor of a result", result),
                Err(error) => chunk.keep_detached(error),
            }
        }
    }
}
