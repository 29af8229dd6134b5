//! The submitting half of a map: takes items from the input and submits them in batches.
//!
//! ```text
//! input ── stage ──► staged ── poll_submit ──► Batch ── poll ──► Results ──► the consumer
//!                      │                       └────────── outstanding ──────────┘
//!                      └── detach ──► rest.rs
//! ```

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;

use super::Options;
use super::apply::{Apply, Place};
use super::chunk::{Adaptive, ChunkItems, ChunkView, SharedChunk, ensure_helper};
use super::rest::{Caller, Chunk, MapJob, Shared, Tracker, drive, drop_items, submit_chunk_job};
use super::route::{
    Availability, ExecutorRoute, Handle, JobKind, PoolRoute, Refused, Route, ScopeRoute,
};
use crate::error::JoinError;
use crate::executor::Executor;
use crate::pool::{Acquire, ThreadPool};
use crate::scope::{ItemFailures, Scope};
use crate::task::span;
use crate::task::state::Origin;
use crate::util::sync::{Arc, AtomicBool, Ordering};
use crate::util::unwind::{DropEach, catch_panic, drop_catching};

/// Takes items from the input and submits them, as far as the buffer and the pool permit.
pub(crate) struct Submitter<'a, 'job, U> {
    /// The input, the function and the executor, with their types erased. `None` once there is
    /// nothing left to submit: at the end of the input, when the pool is closed, or after the
    /// deadline.
    source: Option<Box<dyn Source<'job, U> + Send + 'a>>,
    /// The limit on items that were taken and not yielded. `None` means no limit.
    buffer_size: Option<usize>,
    /// How many items a batch has. The last batch may have fewer. Never larger than the buffer.
    /// `None` if the source chooses it for each batch.
    chunk_size: Option<usize>,
    /// Counts the items that were submitted and not yielded. Increased here by each submitted
    /// batch, decreased by [`results_yielded`](Self::results_yielded).
    outstanding: usize,
    /// Why the pool accepts no more jobs. Set by the submission that fails, and taken by the
    /// consumer after the other results.
    closed: Option<Refused>,
    /// The largest batch that the source can submit.
    max_chunk: usize,
    /// Asks running batches to skip their remaining items. Set by [`stop`](Self::stop).
    stop: Arc<AtomicBool>,
    /// Where `map` was called.
    origin: Origin,
}

impl<'a, U: Send + 'static> Submitter<'a, 'static, U> {
    /// Submits to `pool`, which the submitter neither borrows nor keeps open.
    #[track_caller]
    pub(crate) fn on_pool<I, F>(pool: &ThreadPool, input: I, function: F) -> Self
    where
        I: Iterator<Item: Send + 'static> + Send + 'a,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
    {
        let permits = pool.acquire();
        let route = PoolRoute(permits.submitter());
        Self::new(route, Some(permits), input, function)
    }

    /// Submits to an executor that is no thread pool.
    #[track_caller]
    pub(crate) fn on_executor<E, I, F>(executor: &'a E, input: I, function: F) -> Self
    where
        E: Executor + ?Sized,
        I: Iterator<Item: Send + 'static> + Send + 'a,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
    {
        Self::new(ExecutorRoute(executor), None, input, function)
    }
}

impl<'scope, U: Send + 'scope> Submitter<'scope, 'scope, U> {
    /// Submits jobs of `scope`.
    #[track_caller]
    pub(crate) fn in_scope<I, F>(scope: &'scope Scope<'scope, '_>, input: I, function: F) -> Self
    where
        I: Iterator<Item: Send + 'scope> + Send + 'scope,
        F: Apply<I::Item, U, Failure: 'static> + 'scope,
    {
        let permits = scope.acquire();
        let route = ScopeRoute::new(scope, permits.submitter());
        Self::new(route, Some(permits), input, function)
    }
}

impl<'a, 'job: 'a, U: Send + 'job> Submitter<'a, 'job, U> {
    #[track_caller]
    pub(crate) fn new<I, F, R>(route: R, permits: Option<Acquire>, input: I, function: F) -> Self
    where
        I: Iterator<Item: Send + 'job> + Send + 'a,
        F: Apply<I::Item, U> + 'job,
        R: Route<'job, Failure = F::Failure> + 'a,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let origin = Location::caller();
        let source = Items {
            route,
            permits,
            input,
            exhausted: false,
            promised: 0,
            submitting: false,
            staged: DropEach::new(Vec::new()),
            shared: Arc::new(Shared {
                function,
                stop: Arc::clone(&stop),
                origin,
                span: span::current(),
                tracker: None,
                adaptive: None,
                chunk_size: 1,
            }),
        };
        Self::from_source(Box::new(source), usize::MAX, stop, origin)
    }

    fn from_source(
        source: Box<dyn Source<'job, U> + Send + 'a>,
        max_chunk: usize,
        stop: Arc<AtomicBool>,
        origin: Origin,
    ) -> Self {
        Self {
            source: Some(source),
            buffer_size: None,
            chunk_size: Some(1),
            outstanding: 0,
            closed: None,
            max_chunk,
            stop,
            origin,
        }
    }

    /// Submits items one by one to a source that can do no more.
    #[cfg(feature = "task")]
    pub(super) fn one_by_one(source: Box<dyn Source<'job, U> + Send + 'a>, origin: Origin) -> Self {
        Self::from_source(source, 1, Arc::new(AtomicBool::new(false)), origin)
    }
}

impl<'job, U> Submitter<'_, 'job, U> {
    /// Sets the options. The caller does this once, before the first submission.
    pub(super) fn begin(&mut self, options: &Options) {
        self.buffer_size = options.buffer_size;
        let buffer = self.buffer_size.unwrap_or(usize::MAX).min(self.max_chunk);
        self.chunk_size = options.chunk_size.map(|items| items.min(buffer));
        if let Some(source) = &mut self.source {
            source.begin(self.buffer_size, self.chunk_size);
        }
    }

    /// Returns how many results can be yielded, `yielding` of them now, before there is anything to
    /// submit.
    pub(super) fn yields_until_submit(&self, yielding: usize) -> usize {
        let Some(source) = &self.source else {
            return usize::MAX;
        };
        let Some(buffer) = self.buffer_size else {
            return 0;
        };
        let chunk = self.chunk_size.unwrap_or_else(|| source.chunk_size());
        // See `submit_ready`.
        let staged = source.staged_len();
        let room = buffer - (self.outstanding + staged - yielding);
        chunk.saturating_sub(staged.saturating_add(room))
    }

    /// Submits as many batches as the buffer and the pool permit, and passes each to `add`.
    ///
    /// Without a context, stops at the first batch that needs a wait for a permit. `yielding` is
    /// the number of results that the caller is about to yield: the buffer has room for as many
    /// more.
    pub(super) fn submit_ready(
        &mut self,
        context: Option<&mut Context<'_>>,
        yielding: usize,
        add: impl FnMut(Batch<'job, U>),
    ) {
        if let Some(source) = &mut self.source {
            source.begin_submitting();
        }
        // The input may panic.
        let submitted = catch_unwind(AssertUnwindSafe(|| self.submit_all(context, yielding, add)));
        if let Some(source) = &mut self.source {
            source.end_submitting();
        }
        submitted.unwrap_or_else(|payload| resume_unwind(payload));
    }

    fn submit_all(
        &mut self,
        mut context: Option<&mut Context<'_>>,
        yielding: usize,
        mut add: impl FnMut(Batch<'job, U>),
    ) {
        while let Some(source) = &mut self.source {
            let chunk = self.chunk_size.unwrap_or_else(|| source.chunk_size());
            let staged = source.staged_len();
            if staged < chunk {
                // Invariant: `outstanding + staged - yielding <= buffer`, because items are staged
                // only in whole chunks that fit.
                let taken = self.outstanding + staged - yielding;
                let room = self.buffer_size.map_or(usize::MAX, |buffer| buffer - taken);
                if staged.saturating_add(room) < chunk {
                    // No wake-up is needed: the consumer calls again when it takes a result.
                    return;
                }
                source.stage(chunk - staged);
            }
            let items = source.staged_len();
            if items == 0 {
                self.drop_source();
                return;
            }
            match source.poll_submit(context.as_deref_mut()) {
                Poll::Ready(Ok(batch)) => {
                    self.outstanding += items;
                    add(batch);
                }
                Poll::Ready(Err(closed)) => {
                    self.closed = Some(closed);
                    self.drop_source();
                }
                // The staged items stay for the next call. With a context, the pool's semaphore
                // wakes the task; without one, the caller does not wait.
                Poll::Pending => return,
            }
        }
    }

    /// Gives up the position in the queue for permits, until the next call of `submit_ready`.
    pub(super) fn stop_waiting(&mut self) {
        if let Some(source) = &mut self.source {
            source.stop_waiting();
        }
    }

    /// Counts results that leave the map.
    pub(super) fn results_yielded(&mut self, results: usize) {
        self.outstanding -= results;
    }

    /// Counts results that come back.
    pub(super) fn results_returned(&mut self, results: usize) {
        self.outstanding += results;
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Returns whether there may be items left to submit.
    pub(super) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// Takes the error of a closed pool, which is yielded once.
    pub(super) fn take_closed(&mut self) -> Option<JoinError> {
        self.closed.take().map(Refused::into_error)
    }

    /// Drops the input and, unless running jobs share it, the function. Nothing more is submitted.
    pub(super) fn drop_source(&mut self) {
        if let Some(source) = &mut self.source {
            source.end_submitting();
        }
        drop_catching(
            "the destructor of map's input or function",
            self.source.take(),
        );
    }

    /// Asks running batches to skip their remaining items.
    pub(super) fn stop(&mut self) {
        // Relaxed: the flag publishes nothing. A batch that reads it late runs one item more.
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Stops submitting.
    pub(super) fn end(&mut self) {
        self.drop_source();
        self.closed = None;
    }

    /// Takes the input to its end, and leaves the items that were not submitted to the jobs.
    pub(super) fn detach(&mut self) {
        if let Some(mut source) = self.source.take() {
            source.end_submitting();
            source.detach();
        }
        // No result will be requested, so the error would be lost.
        if let Some(closed) = self.closed.take() {
            closed.report(self.origin);
        }
    }

    /// Returns an upper bound of the results still to be yielded, for `size_hint`.
    pub(super) fn upper_bound(&self) -> Option<usize> {
        let not_submitted = match &self.source {
            Some(source) => source.upper_bound()?.checked_add(source.staged_len())?,
            None => usize::from(self.closed.is_some()),
        };
        not_submitted.checked_add(self.outstanding)
    }
}

/// The input, the function and the executor of a map, with their types erased. The jobs may borrow
/// for `'job`.
pub(super) trait Source<'job, U> {
    /// Prepares for the first submission.
    fn begin(&mut self, buffer_size: Option<usize>, chunk_size: Option<usize>);
    /// Returns how many items the next batch should have.
    fn chunk_size(&self) -> usize;
    /// More jobs will be queued, until [`end_submitting`](Self::end_submitting) or the drop.
    fn begin_submitting(&mut self);
    fn end_submitting(&mut self);
    /// Returns how many items were taken from the input and not submitted.
    fn staged_len(&self) -> usize;
    /// Takes up to `items` more items from the input. May panic if the input does.
    fn stage(&mut self, items: usize);
    /// Submits all staged items as one job, once there is a permit for it. Without a context,
    /// returns `Pending` if no permit is available now.
    fn poll_submit(
        &mut self,
        context: Option<&mut Context<'_>>,
    ) -> Poll<Result<Batch<'job, U>, Refused>>;
    /// Gives up the position in the queue for permits.
    fn stop_waiting(&mut self);
    /// Takes the input to its end, and leaves the items that were not submitted to the jobs.
    fn detach(self: Box<Self>);
    /// Returns an upper bound of the items left in the input.
    fn upper_bound(&self) -> Option<usize>;
}

/// The only [`Source`].
struct Items<'job, I: Iterator, F, R: Route<'job>, U> {
    route: R,
    /// Waits for the permits of a thread pool, whose queue may be bounded.
    permits: Option<Acquire>,
    input: I,
    /// Whether the input has returned `None` or panicked. It is not asked again then.
    exhausted: bool,
    /// The lower bound of the items left in the input. Set by `stage`.
    promised: usize,
    /// Whether this thread counts as a job that is queued: it will queue some.
    submitting: bool,
    /// Items taken from the input for the next batch. Filled by `stage`, emptied by `poll_submit`.
    staged: DropEach<I::Item>,
    shared: Arc<Shared<'job, I::Item, F, R::OfJobs, U>>,
}

impl<'job, I, F, R, U> Source<'job, U> for Items<'job, I, F, R, U>
where
    I: Iterator<Item: Send + 'job>,
    F: Apply<I::Item, U> + 'job,
    U: Send + 'job,
    R: Route<'job, Failure = F::Failure>,
{
    fn begin(&mut self, buffer_size: Option<usize>, chunk_size: Option<usize>) {
        let route = &self.route;
        let shared = Arc::get_mut(&mut self.shared).expect("no job was submitted");
        match chunk_size {
            Some(items) => shared.chunk_size = items,
            // No job can submit a helper or hand over items, and no item may hold back another.
            None if !route.is_adaptive() => {}
            None => shared.adaptive = Some(Adaptive::new(route.of_jobs(), buffer_size)),
        }
        // Without a limit, the start submits everything, so that no job need be counted.
        if buffer_size.is_some() || route.is_bounded() {
            shared.tracker = Some(Tracker::new(route.of_jobs(), buffer_size));
        }
    }

    fn chunk_size(&self) -> usize {
        if self.shared.adaptive.is_none() {
            return self.shared.chunk_size;
        }
        // An input that does not promise an item may wait for one, and must not keep others from
        // running meanwhile.
        let promised = self.promised.saturating_add(self.staged.len());
        self.shared.chunk_size().min(promised.max(1))
    }

    fn begin_submitting(&mut self) {
        if let Some(adaptive) = &self.shared.adaptive {
            // It is set after a panic of the input.
            if !mem::replace(&mut self.submitting, true) {
                adaptive.count_queued();
            }
        }
    }

    fn end_submitting(&mut self) {
        if let Some(adaptive) = &self.shared.adaptive {
            if mem::replace(&mut self.submitting, false) && adaptive.count_started() {
                ensure_helper(&self.shared);
            }
        }
    }

    fn staged_len(&self) -> usize {
        self.staged.len()
    }

    fn stage(&mut self, items: usize) {
        if self.exhausted {
            return;
        }
        let wanted = self.staged.len() + items;
        // Invariant: `exhausted` is set while the input runs. If the input panics, the flag stays
        // set and the items staged so far are kept.
        self.exhausted = true;
        if self.promised == 0 {
            // The input may wait. Meanwhile this thread queues no job.
            self.end_submitting();
        }
        self.staged.extend(self.input.by_ref().take(items));
        self.begin_submitting();
        self.promised = self.input.size_hint().0;
        self.exhausted = self.staged.len() < wanted;
    }

    fn poll_submit(
        &mut self,
        context: Option<&mut Context<'_>>,
    ) -> Poll<Result<Batch<'job, U>, Refused>> {
        if let Some(permits) = &mut self.permits {
            match context {
                Some(context) => ready!(permits.poll(context)),
                None if permits.try_acquire() => {}
                None => return Poll::Pending,
            }
        }
        // From here on the permit belongs to the job, which is submitted in any case.
        Poll::Ready(self.submit_staged())
    }

    fn stop_waiting(&mut self) {
        if let Some(permits) = &mut self.permits {
            permits.cancel();
        }
    }

    fn detach(mut self: Box<Self>) {
        let mut rest: VecDeque<_> = self.staged.take().into();
        // No job will run what is left, so the input stays where it is.
        let is_too_late = match self.route.availability() {
            Availability::Open => false,
            Availability::JobsOnly => !self.shared.has_jobs_in_flight(),
            Availability::Closed => true,
        };
        let mut left_in_input = 0;
        // A panic keeps the items that were taken before.
        catch_panic("the input of a map", || {
            let (at_least, at_most) = self.input.size_hint();
            if self.exhausted || at_least == usize::MAX || at_most == Some(0) {
                return;
            }
            if is_too_late && at_least > 0 {
                left_in_input = at_least;
                return;
            }
            self.exhausted = true;
            let wanted = if is_too_late { 1 } else { usize::MAX };
            let items = self.input.by_ref().take(wanted);
            items.for_each(|item| rest.push_back(item));
        });
        if is_too_late {
            let items = rest.len() + left_in_input;
            drop_items(rest.drain(..));
            if items > 0 {
                self.route.report_unrun(items, self.shared.origin);
            }
        }
        if rest.is_empty() {
            return drop_catching("the destructor of map's input or function", self);
        }
        let Self {
            route,
            permits,
            input,
            shared,
            ..
        } = *self;
        drop_catching("the destructor of map's input", input);
        // A position in the queue for permits would keep `try_acquire` from succeeding.
        drop(permits);
        if let Some(tracker) = &shared.tracker {
            tracker.put_rest(rest);
            // An executor of the user's may panic.
            catch_panic("an executor", || drive(&shared, &route, Caller::Owner));
        } else {
            // An executor of the user's may panic.
            catch_panic("an executor", || {
                submit_all(rest, &shared, &route);
            });
        }
        drop_catching("the destructor of map's function", shared);
    }

    fn upper_bound(&self) -> Option<usize> {
        match self.exhausted {
            true => Some(0),
            false => self.input.size_hint().1,
        }
    }
}

impl<'job, I, F, R, U> Items<'job, I, F, R, U>
where
    I: Iterator<Item: Send + 'job>,
    F: Apply<I::Item, U> + 'job,
    U: Send + 'job,
    R: Route<'job, Failure = F::Failure>,
{
    /// Submits all staged items as one job, which has its permit.
    fn submit_staged(&mut self) -> Result<Batch<'job, U>, Refused> {
        let items = self.staged.len();
        if let Some(adaptive) = &self.shared.adaptive {
            adaptive.pace.count_job();
        }
        let job = MapJob::new(&self.shared);
        if items == 1 {
            let item = self.staged.pop().expect("one item is staged");
            let run = move |place: Place<'_>| {
                job.run(place, |shared| {
                    let context = shared.context(place);
                    match &shared.adaptive {
                        None => shared.function.one(item, context),
                        Some(adaptive) => {
                            (adaptive.pace).measure(|| shared.function.one(item, context))
                        }
                    }
                })
            };
            let handle = BatchHandle::One(self.submit(run)?);
            return Ok(Batch { handle, items });
        }
        let mut staged = DropEach::new(self.staged.take());
        let mut shared_chunk = None;
        let chunk = match self.shared.adaptive {
            None => Chunk::Items(staged),
            Some(_) => {
                let chunk = Arc::new(SharedChunk::new(staged.take().into(), false));
                Chunk::Shared(ChunkItems::new(shared_chunk.insert(chunk)))
            }
        };
        let handle = submit_chunk_job(&self.shared, &self.route, job, chunk)?;
        Ok(match shared_chunk {
            None => Batch {
                handle: BatchHandle::Chunk(handle),
                items,
            },
            Some(chunk) => Batch::of_chunk(Some(handle), chunk),
        })
    }

    fn submit<C, T>(&self, closure: C) -> Result<Handle<'job, T>, Refused>
    where
        C: FnOnce(Place<'_>) -> Result<T, R::Failure> + Send + 'job,
        T: Send + 'job,
    {
        let span = span::clone(&self.shared.span);
        (self.route).submit(closure, self.shared.origin, span, JobKind::Items)
    }
}

/// Submits the last items of a map that knows no limit. Its input has panicked, or they would have
/// been submitted before.
fn submit_all<'job, A, F, R, U>(
    rest: VecDeque<A>,
    shared: &Arc<Shared<'job, A, F, R::OfJobs, U>>,
    route: &R,
) where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure>,
    U: Send + 'job,
{
    let mut rest = rest.into_iter();
    // The items of such a chunk run one after the other, so only the user may put them together.
    let chunk_size = shared.fixed_chunk_size();
    while rest.len() > 0 {
        let chunk: Vec<_> = rest.by_ref().take(chunk_size).collect();
        let chunk = Chunk::Detached(DropEach::new(chunk));
        if let Err(refused) = submit_chunk_job(shared, route, MapJob::new(shared), chunk) {
            drop_catching("the destructor of an error", refused.into_error());
            route.report_unrun(rest.len() + 1, shared.origin);
            break;
        }
    }
    drop_items(rest);
}

/// How a map ended before its last result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was dropped, or gathered its first error.
    Dropped,
    /// Its timeout elapsed.
    TimedOut,
}

/// A submitted job of a map. Resolves to the results of its items.
pub(crate) struct Batch<'job, U> {
    handle: BatchHandle<'job, U>,
    /// How many items the job has, which is how many results it resolves to.
    items: usize,
}

enum BatchHandle<'job, U> {
    /// A job of one item, whose result needs no vector.
    One(Handle<'job, U>),
    Chunk(ChunkHandle<'job, U>),
    /// Boxed, because most batches have one item.
    Shared(Box<SharedBatch<'job, U>>),
    /// The batch was polled to its end.
    Done,
}

pub(super) type ChunkHandle<'job, U> = Handle<'job, DropEach<Result<U, JoinError>>>;

/// A chunk of a map that chooses the chunk size itself. Dropping it abandons the results.
struct SharedBatch<'job, U> {
    /// `None` once it was ready, and for a chunk that was split off and runs in a helper.
    handle: Option<ChunkHandle<'job, U>>,
    chunk: Arc<dyn ChunkView<'job, U> + 'job>,
}

const _: () = assert!(
    size_of::<Batch<'_, ()>>() <= 5 * size_of::<usize>(),
    "a map may have many batches in flight"
);

impl<'job, U> Batch<'job, U> {
    /// Makes a batch of one item.
    #[cfg(feature = "task")]
    pub(super) fn of_one(handle: Handle<'job, U>) -> Self {
        Self {
            handle: BatchHandle::One(handle),
            items: 1,
        }
    }

    pub(super) fn of_chunk(
        handle: Option<ChunkHandle<'job, U>>,
        chunk: Arc<dyn ChunkView<'job, U> + 'job>,
    ) -> Self {
        let batch = Box::new(SharedBatch { handle, chunk });
        Self {
            handle: BatchHandle::Shared(batch),
            // Unused: items may be split off.
            items: 0,
        }
    }

    /// Cancels the items that have not started. The running one gets a cancel request.
    pub(super) fn cancel(&self) {
        match &self.handle {
            BatchHandle::One(handle) => handle.request_cancel(),
            BatchHandle::Chunk(handle) => handle.request_cancel(),
            BatchHandle::Shared(batch) => {
                if let Some(handle) = &batch.handle {
                    handle.request_cancel();
                }
                batch.chunk.cancel();
            }
            BatchHandle::Done => {}
        }
    }

    /// Cancels all items. The running one is stopped, if its executor can do that.
    fn kill(&self) {
        match &self.handle {
            BatchHandle::One(handle) => handle.cancel(),
            BatchHandle::Chunk(handle) => handle.cancel(),
            // Only threads share chunks.
            BatchHandle::Shared(_) | BatchHandle::Done => self.cancel(),
        }
    }

    /// Ends the batch for a map that has ended.
    pub(super) fn end(&self, end: End) {
        match end {
            End::Dropped => self.cancel(),
            End::TimedOut => self.kill(),
        }
    }

    /// Runs the job here if it is queued in a pool of which this thread is a worker.
    pub(super) fn help(&self) {
        match &self.handle {
            BatchHandle::One(handle) => handle.help(),
            BatchHandle::Chunk(handle) => handle.help(),
            BatchHandle::Shared(batch) => {
                if let Some(handle) = &batch.handle {
                    handle.help();
                }
            }
            BatchHandle::Done => {}
        }
    }

    /// Returns whether results may become available one by one, instead of all together.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.handle, BatchHandle::Shared(_))
    }

    /// Makes results available as soon as they are there.
    pub(super) fn make_eager(&self) {
        if let BatchHandle::Shared(batch) = &self.handle {
            batch.chunk.make_eager();
        }
    }
}

impl<U> Drop for SharedBatch<'_, U> {
    fn drop(&mut self) {
        self.chunk.abandon();
    }
}

/// What a batch has for its map.
pub(crate) struct Ready<'job, U> {
    pub(super) results: Results<U>,
    /// The batch itself, if it has more results to come.
    pub(super) more: Option<Batch<'job, U>>,
    /// Batches that come after this one, in input order.
    pub(super) behind: Vec<Batch<'job, U>>,
}

impl<U> Ready<'_, U> {
    fn all(results: Results<U>) -> Self {
        Self {
            results,
            more: None,
            behind: Vec::new(),
        }
    }
}

impl<'job, U> SharedBatch<'job, U> {
    /// Returns results, whether they are the last ones, and the batches behind this one.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(Results<U>, bool, Vec<Batch<'job, U>>)> {
        let outcome = match &mut self.handle {
            Some(handle) => {
                let mut outcome = Pin::new(&mut *handle).poll(context);
                if matches!(&outcome, Poll::Ready(Err(error)) if error.is_deadlock()) {
                    // No worker can reach the job. It would run with nothing that takes its
                    // results.
                    handle.cancel_if_queued();
                    if self.chunk.unrun() == 0 {
                        outcome = Pin::new(handle).poll(context);
                    }
                }
                outcome
            }
            None => Poll::Pending,
        };
        let available = match outcome {
            Poll::Ready(Ok(_)) => self.chunk.take_all(),
            // The job did not run: each item gets the error.
            Poll::Ready(Err(error)) => {
                let others = 1..self.chunk.unrun();
                let others = others.map(|_| Err(error.replicate())).collect();
                let results = Results::new(Some(Err(error)), others, None);
                return Poll::Ready((results, true, Vec::new()));
            }
            Poll::Pending => match self.chunk.take(context.waker()) {
                Some(available) => available,
                None => return Poll::Pending,
            },
        };
        let mut results = Results::new(None, available.results, available.failures);
        results.items += available.first;
        Poll::Ready((results, available.ended, available.behind))
    }
}

impl<'job, U> Future for Batch<'job, U> {
    type Output = Ready<'job, U>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ready<'job, U>> {
        let items = self.items;
        Poll::Ready(match &mut self.handle {
            BatchHandle::One(handle) => {
                let result = ready!(Pin::new(handle).poll(context));
                Ready::all(Results::new(Some(result), Vec::new(), None))
            }
            BatchHandle::Chunk(handle) => {
                match ready!(Pin::new(&mut *handle).poll(context)) {
                    Ok(mut results) => {
                        Ready::all(Results::new(None, results.take(), handle.item_failures()))
                    }
                    // `run_chunk` catches panics, so the job did not run: each item gets the error.
                    Err(error) => {
                        let others = (1..items).map(|_| Err(error.replicate())).collect();
                        Ready::all(Results::new(Some(Err(error)), others, None))
                    }
                }
            }
            BatchHandle::Shared(batch) => {
                let (results, is_done, behind) = ready!(batch.poll(context));
                let handle = mem::replace(&mut self.handle, BatchHandle::Done);
                let more = (!is_done).then_some(Batch { handle, items });
                Ready {
                    results,
                    more,
                    behind,
                }
            }
            BatchHandle::Done => unreachable!("a batch is polled until it is ready"),
        })
    }
}

/// The results of a batch, in input order.
pub(crate) struct Results<U> {
    /// Yielded before `rest`. A batch of one item uses this field alone, and so allocates nothing.
    first: Option<Result<U, JoinError>>,
    rest: vec::IntoIter<Result<U, JoinError>>,
    /// Has the errors of the items in `rest` that panicked, if the job was scoped.
    failures: Option<ItemFailures>,
    /// How many results `rest` had at first.
    items: usize,
}

impl<U> Results<U> {
    fn new(
        first: Option<Result<U, JoinError>>,
        rest: Vec<Result<U, JoinError>>,
        failures: Option<ItemFailures>,
    ) -> Self {
        Self {
            first,
            items: rest.len(),
            rest: rest.into_iter(),
            failures,
        }
    }

    pub(super) fn empty() -> Self {
        Self::new(None, Vec::new(), None)
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// Drops the results. Recorded panics stay recorded.
    pub(super) fn clear(&mut self) {
        let Self { first, rest, .. } = self;
        for result in first.take().into_iter().chain(rest.by_ref()) {
            // User code: a panic must neither leave a destructor nor keep the other results.
            drop_catching("the destructor of a result", result);
        }
    }
}

impl<U> Iterator for Results<U> {
    type Item = Result<U, JoinError>;

    #[inline]
    fn next(&mut self) -> Option<Result<U, JoinError>> {
        if self.first.is_some() {
            return self.first.take();
        }
        match self.rest.next() {
            Some(Err(error)) => Some(Err(self.own_error(error))),
            other => other,
        }
    }
}

impl<U> Results<U> {
    /// Returns the recorded error of the item that was just taken, or `error` if none was recorded.
    #[cold]
    fn own_error(&self, error: JoinError) -> JoinError {
        let item = self.items - self.rest.len() - 1;
        let recorded = self.failures.as_ref().and_then(|own| own.take(item));
        recorded.unwrap_or(error)
    }
}
