//! Maps over calls of tasks.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures::stream::FuturesUnordered;

use super::route::{Handle, Refused};
use super::submitter::{Batch, Results, Source, Submitter};
use super::{AnyMap, Drive, Map, MapState, MapUnordered, Options};
use crate::error::JoinError;
use crate::pool::ThreadPool;
use crate::task::join_handle::JoinHandle;
use crate::task::state::Origin;
use crate::util::unwind::{DropEach, catch_panic, drop_catching};

/// Maps calls on a thread pool like any other items. `run` may fail with an error for an item.
#[track_caller]
pub(crate) fn map_calls_on_pool<'a, I, U>(
    pool: &ThreadPool,
    calls: I,
    run: fn(I::Item) -> Result<U, JoinError>,
) -> Map<'a, U>
where
    I: Iterator<Item: Send + 'static> + Send + 'a,
    U: Send + 'static,
{
    let submitter = Submitter::on_pool(pool, calls, run);
    let nested = MapState::<_, VecDeque<_>>::new(submitter);
    Map(AnyMap::from_driver(Box::new(Flatten(Box::new(nested)))))
}

/// Does what [`map_calls_on_pool`] does, in completion order.
#[track_caller]
pub(crate) fn map_calls_on_pool_unordered<'a, I, U>(
    pool: &ThreadPool,
    calls: I,
    run: fn(I::Item) -> Result<U, JoinError>,
) -> MapUnordered<'a, U>
where
    I: Iterator<Item: Send + 'static> + Send + 'a,
    U: Send + 'static,
{
    let submitter = Submitter::on_pool(pool, calls, run);
    let nested = MapState::<_, FuturesUnordered<_>>::new(submitter);
    MapUnordered(AnyMap::from_driver(Box::new(Flatten(Box::new(nested)))))
}

/// Maps calls on any executor. `submit` submits one call.
pub(crate) fn map_calls<'a, I, F, U>(calls: I, submit: F, origin: Origin) -> Map<'a, U>
where
    I: Iterator<Item: Send + 'static> + Send + 'a,
    F: Fn(I::Item) -> JoinHandle<U> + Send + 'a,
    U: Send + 'static,
{
    Map::new(Submitter::one_by_one(Calls::boxed(calls, submit), origin))
}

/// Does what [`map_calls`] does, in completion order.
pub(crate) fn map_calls_unordered<'a, I, F, U>(
    calls: I,
    submit: F,
    origin: Origin,
) -> MapUnordered<'a, U>
where
    I: Iterator<Item: Send + 'static> + Send + 'a,
    F: Fn(I::Item) -> JoinHandle<U> + Send + 'a,
    U: Send + 'static,
{
    MapUnordered::new(Submitter::one_by_one(Calls::boxed(calls, submit), origin))
}

/// Yields the errors of items as errors of the map.
struct Flatten<'a, U>(Box<dyn Drive<Result<U, JoinError>> + Send + 'a>);

fn flatten<U>(result: Result<Result<U, JoinError>, JoinError>) -> Result<U, JoinError> {
    result.and_then(|result| result)
}

impl<U> Drive<U> for Flatten<'_, U> {
    fn begin(&mut self, options: &Options) {
        self.0.begin(options);
    }

    fn submit(&mut self) {
        self.0.submit();
    }

    fn wait_next(&mut self) -> Option<Result<U, JoinError>> {
        self.0.wait_next().map(flatten)
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<U, JoinError>>> {
        self.0.poll_next(context).map(|next| next.map(flatten))
    }

    fn take_ready(&mut self) -> Option<(Results<U>, usize)> {
        None
    }

    fn give_back(&mut self, _: Results<U>) {
        unreachable!("none were handed over");
    }

    fn end(&mut self) {
        self.0.end();
    }

    fn detach(&mut self) {
        self.0.detach();
    }

    fn is_done(&self) -> bool {
        self.0.is_done()
    }

    fn outstanding(&self) -> usize {
        self.0.outstanding()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// The input of a map that submits each call by itself.
struct Calls<I: Iterator, F> {
    input: I,
    submit: F,
    /// Whether the input has returned `None` or panicked. It is not asked again then.
    exhausted: bool,
    /// The call that was taken from the input for the next job, if there is one.
    staged: DropEach<I::Item>,
}

impl<I: Iterator, F> Calls<I, F> {
    fn boxed(input: I, submit: F) -> Box<Self> {
        Box::new(Self {
            input,
            submit,
            exhausted: false,
            staged: DropEach::new(Vec::new()),
        })
    }
}

impl<'job, I, F, U> Source<'job, U> for Calls<I, F>
where
    I: Iterator,
    F: Fn(I::Item) -> JoinHandle<U>,
{
    fn begin(&mut self, _: Option<usize>, _: Option<usize>) {}

    fn chunk_size(&self) -> usize {
        1
    }

    fn begin_submitting(&mut self) {}

    fn end_submitting(&mut self) {}

    fn staged_len(&self) -> usize {
        self.staged.len()
    }

    fn stage(&mut self, items: usize) {
        if self.exhausted {
            return;
        }
        let wanted = self.staged.len() + items;
        // Invariant: `exhausted` is set while the input runs, and stays set if the input panics.
        self.exhausted = true;
        self.staged.extend(self.input.by_ref().take(items));
        self.exhausted = self.staged.len() < wanted;
    }

    fn poll_submit(
        &mut self,
        _: Option<&mut Context<'_>>,
    ) -> Poll<Result<Batch<'job, U>, Refused>> {
        let call = self.staged.pop().expect("one call is staged");
        let handle = (self.submit)(call);
        Poll::Ready(Ok(Batch::of_one(Handle::Plain(handle))))
    }

    fn stop_waiting(&mut self) {}

    fn detach(self: Box<Self>) {
        let mut this = self;
        // Dropping a handle detaches its job. The input and an executor of the user's may panic.
        catch_panic("the input of a map", || {
            this.staged
                .take()
                .into_iter()
                .for_each(|call| drop((this.submit)(call)));
            if !this.exhausted {
                this.exhausted = true;
                this.input
                    .by_ref()
                    .for_each(|call| drop((this.submit)(call)));
            }
        });
        drop_catching("the destructor of map's input", this);
    }

    fn upper_bound(&self) -> Option<usize> {
        match self.exhausted {
            true => Some(0),
            false => self.input.size_hint().1,
        }
    }
}
