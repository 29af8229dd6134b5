//! The submitting half of a map: takes items from the input and submits them in batches.
//!
//! ```text
//! input ── stage ──► staged ── poll_submit ──► Batch ── poll ──► Results ──► the consumer
//!                                              └────────── outstanding ──────────┘
//! ```

use std::mem;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::vec;

use crate::error::JoinError;
use crate::executor::{Executor, submit_to};
use crate::pool::Acquire;
use crate::task::cell::catch;
use crate::task::join_handle::JoinHandle;
use crate::task::span::{self, Span};
use crate::util::sealed::PRIVATE;
use crate::util::sync::Arc;
use crate::util::unwind::drop_catching;

/// Takes items from the input and submits them, as far as the buffer and the pool permit.
pub(super) struct Submitter<'a, U> {
    /// The input, the function and the executor. `None` once there is nothing left to submit: at
    /// the end of the input, when the pool is closed, or after the deadline.
    source: Option<Box<dyn Source<U> + Send + 'a>>,
    /// Guards the options. Set by the first call of [`submit_ready`](Self::submit_ready).
    started: bool,
    /// The limit on items that were taken and not yielded. `None` means no limit.
    buffer_size: Option<usize>,
    /// How many items a batch has. The last batch may have fewer.
    chunk_size: usize,
    /// Counts the items that were submitted and not yielded. Increased here by each submitted
    /// batch, decreased by [`result_yielded`](Self::result_yielded).
    outstanding: usize,
    /// Why the pool accepts no more jobs. Set by the submission that fails, and taken by the
    /// consumer after the other results.
    closed: Option<JoinError>,
    /// Asks running batches to skip their remaining items. Set by [`end`](Self::end).
    stop: Arc<AtomicBool>,
}

impl<'a, U: Send + 'static> Submitter<'a, U> {
    #[track_caller]
    pub(super) fn new<E, I, F>(executor: &'a E, input: I, function: F) -> Self
    where
        E: Executor + ?Sized,
        I: Iterator<Item: Send + 'static> + Send + 'a,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let source = Items {
            target: match executor.as_thread_pool(PRIVATE) {
                Some(pool) => Target::Pool(pool.acquire()),
                None => Target::Other(Box::new(executor)),
            },
            input,
            exhausted: false,
            staged: Vec::new(),
            shared: Arc::new(Shared {
                function,
                stop: Arc::clone(&stop),
            }),
            origin: Location::caller(),
            span: span::current(),
        };
        Self {
            source: Some(Box::new(source)),
            started: false,
            buffer_size: None,
            chunk_size: 1,
            outstanding: 0,
            closed: None,
            stop,
        }
    }
}

impl<U> Submitter<'_, U> {
    #[track_caller]
    pub(super) fn set_buffer_size(&mut self, items: usize) {
        self.assert_not_started("buffer_size");
        assert!(items > 0, "`buffer_size` must be at least 1");
        self.buffer_size = Some(items);
    }

    #[track_caller]
    pub(super) fn set_chunk_size(&mut self, items: usize) {
        self.assert_not_started("chunk_size");
        assert!(items > 0, "`chunk_size` must be at least 1");
        self.chunk_size = items;
    }

    /// Panics if the map is started, after which `option` can no longer be set.
    #[track_caller]
    pub(super) fn assert_not_started(&self, option: &str) {
        assert!(
            !self.started,
            "`{option}` must be set before the map is started"
        );
    }

    /// Submits as many batches as the buffer and the pool permit, and passes each to `add`.
    ///
    /// Without a context, stops at the first batch that needs a wait for a permit. `yielding` is
    /// the number of results that the caller is about to yield: the buffer has room for as many
    /// more.
    pub(super) fn submit_ready(
        &mut self,
        mut context: Option<&mut Context<'_>>,
        yielding: usize,
        mut add: impl FnMut(Batch<U>),
    ) {
        self.started = true;
        let chunk = match self.buffer_size {
            Some(buffer) => self.chunk_size.min(buffer),
            None => self.chunk_size,
        };
        while let Some(source) = &mut self.source {
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
            if source.staged_len() == 0 {
                self.drop_source();
                return;
            }
            match source.poll_submit(context.as_deref_mut()) {
                Poll::Ready(Ok(batch)) => {
                    self.outstanding += batch.items;
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

    /// Counts a result that leaves the map.
    pub(super) fn result_yielded(&mut self) {
        self.outstanding -= 1;
    }

    pub(super) fn is_started(&self) -> bool {
        self.started
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
        self.closed.take()
    }

    /// Drops the input and, unless running jobs share it, the function. Nothing more is submitted.
    pub(super) fn drop_source(&mut self) {
        drop_catching(
            "the destructor of map's input or function",
            self.source.take(),
        );
    }

    /// Stops submitting, and asks running batches to skip their remaining items.
    pub(super) fn end(&mut self) {
        self.drop_source();
        self.closed = None;
        // Relaxed: the flag publishes nothing. A batch that reads it late runs one item more.
        self.stop.store(true, Ordering::Relaxed);
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

/// The input, the function and the executor of a map, with their types erased.
trait Source<U> {
    /// Returns how many items were taken from the input and not submitted.
    fn staged_len(&self) -> usize;
    /// Takes up to `items` more items from the input. May panic if the input does.
    fn stage(&mut self, items: usize);
    /// Submits all staged items as one job, once there is a permit for it. Without a context,
    /// returns `Pending` if no permit is available now.
    fn poll_submit(
        &mut self,
        context: Option<&mut Context<'_>>,
    ) -> Poll<Result<Batch<U>, JoinError>>;
    /// Returns an upper bound of the items left in the input.
    fn upper_bound(&self) -> Option<usize>;
}

/// The only [`Source`]. The trait hides its types from [`Map`](super::Map), which names the output
/// alone.
struct Items<'a, I: Iterator, F> {
    target: Target<'a>,
    input: I,
    /// Whether the input has returned `None` or panicked. It is not asked again then.
    exhausted: bool,
    /// Items taken from the input for the next batch. Filled by `stage`, emptied by `poll_submit`.
    staged: Vec<I::Item>,
    shared: Arc<Shared<F>>,
    /// Where `map` was called: the location of all its jobs.
    origin: &'static Location<'static>,
    /// The `tracing` span that was current there. Each job runs inside it.
    span: Option<Span>,
}

/// The executor that runs the jobs.
enum Target<'a> {
    /// A thread pool, whose queue may be bounded: each job needs a permit first.
    Pool(Acquire),
    /// An executor that accepts each job immediately.
    Other(Box<dyn Executor + 'a>),
}

/// What all jobs of a map share.
struct Shared<F> {
    function: F,
    /// The flag of [`Submitter::stop`].
    stop: Arc<AtomicBool>,
}

impl<I, F, U> Source<U> for Items<'_, I, F>
where
    I: Iterator<Item: Send + 'static>,
    F: Fn(I::Item) -> U + Send + Sync + 'static,
    U: Send + 'static,
{
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
        self.staged.extend(self.input.by_ref().take(items));
        self.exhausted = self.staged.len() < wanted;
    }

    fn poll_submit(
        &mut self,
        context: Option<&mut Context<'_>>,
    ) -> Poll<Result<Batch<U>, JoinError>> {
        if let Target::Pool(acquire) = &mut self.target {
            match context {
                Some(context) => ready!(acquire.poll(context)),
                None if acquire.try_acquire() => {}
                None => return Poll::Pending,
            }
        }
        // From here on the permit belongs to the job, which is submitted in any case.
        let (items, shared) = (self.staged.len(), Arc::clone(&self.shared));
        let handle = if items == 1 {
            let item = self.staged.pop().expect("one item is staged");
            let run = move || {
                let result = (shared.function)(item);
                // This may be the last reference to the function, whose destructor may panic. The
                // result must survive that.
                drop_catching("the destructor of map's function", shared);
                result
            };
            self.submit(run).map(BatchHandle::One)
        } else {
            let (staged, origin) = (mem::take(&mut self.staged), self.origin);
            self.submit(move || run_chunk(staged, shared, origin))
                .map(BatchHandle::Chunk)
        };
        Poll::Ready(handle.map(|handle| Batch { handle, items }))
    }

    fn upper_bound(&self) -> Option<usize> {
        match self.exhausted {
            true => Some(0),
            false => self.input.size_hint().1,
        }
    }
}

impl<I: Iterator, F> Items<'_, I, F> {
    /// Submits a job. On a pool, the caller has acquired the job's permit.
    fn submit<C, T>(&self, closure: C) -> Result<JoinHandle<T>, JoinError>
    where
        C: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let span = span::clone(&self.span);
        match &self.target {
            Target::Pool(acquire) => {
                acquire
                    .enqueue(closure, self.origin, span)
                    .map_err(|(closed, closure)| {
                        drop_catching("the destructor of an item", closure);
                        closed.into()
                    })
            }
            Target::Other(executor) => Ok(submit_to(&**executor, closure, self.origin, span)),
        }
    }
}

/// The job of a chunk: calls the function for each item. A panic costs only the item that caused
/// it.
fn run_chunk<A, F, U>(
    items: Vec<A>,
    shared: Arc<Shared<F>>,
    origin: &'static Location<'static>,
) -> Vec<Result<U, JoinError>>
where
    F: Fn(A) -> U,
{
    // Relaxed: see `Submitter::end`.
    let is_stopped = || shared.stop.load(Ordering::Relaxed);
    let mut results = Vec::with_capacity(items.len());
    let mut items = items.into_iter();
    while items.len() > 0 && !is_stopped() {
        // One `catch` serves all items up to the next panic.
        let run = catch(origin, || {
            while !is_stopped() {
                let Some(item) = items.next() else {
                    return;
                };
                results.push(Ok((shared.function)(item)));
            }
        });
        // Invariant: one result for each item taken. The item that panicked has none yet.
        results.extend(run.err().map(Err));
    }
    for item in items {
        drop_catching("the destructor of an item", item);
        results.push(Err(JoinError::cancelled()));
    }
    drop_catching("the destructor of map's function", shared);
    results
}

/// A submitted job of a map. Resolves to the results of its items.
pub(super) struct Batch<U> {
    handle: BatchHandle<U>,
    /// How many items the job has, which is how many results it resolves to.
    items: usize,
}

enum BatchHandle<U> {
    /// A job of one item, whose result needs no vector.
    One(JoinHandle<U>),
    Chunk(JoinHandle<Vec<Result<U, JoinError>>>),
}

impl<U> Batch<U> {
    pub(super) fn cancel(&self) {
        match &self.handle {
            BatchHandle::One(handle) => handle.cancel(),
            BatchHandle::Chunk(handle) => handle.cancel(),
        };
    }

    /// Runs the job here if it is queued in a pool of which this thread is a worker.
    pub(super) fn help(&self) {
        match &self.handle {
            BatchHandle::One(handle) => handle.help(),
            BatchHandle::Chunk(handle) => handle.help(),
        };
    }
}

impl<U> Future for Batch<U> {
    type Output = Results<U>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Results<U>> {
        let items = self.items;
        Poll::Ready(match &mut self.handle {
            BatchHandle::One(handle) => {
                let result = ready!(Pin::new(handle).poll(context));
                Results::new(Some(result), Vec::new())
            }
            BatchHandle::Chunk(handle) => match ready!(Pin::new(handle).poll(context)) {
                Ok(results) => Results::new(None, results),
                // `run_chunk` catches panics, so the job did not run: each item gets the error.
                Err(error) => {
                    let others = (1..items).map(|_| Err(error.replicate())).collect();
                    Results::new(Some(Err(error)), others)
                }
            },
        })
    }
}

/// The results of a batch, in input order.
pub(super) struct Results<U> {
    /// Yielded before `rest`. A batch of one item uses this field alone, and so allocates nothing.
    first: Option<Result<U, JoinError>>,
    rest: vec::IntoIter<Result<U, JoinError>>,
}

impl<U> Results<U> {
    fn new(first: Option<Result<U, JoinError>>, rest: Vec<Result<U, JoinError>>) -> Self {
        let rest = rest.into_iter();
        Self { first, rest }
    }

    pub(super) fn empty() -> Self {
        Self::new(None, Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }
}

impl<U> Iterator for Results<U> {
    type Item = Result<U, JoinError>;

    fn next(&mut self) -> Option<Result<U, JoinError>> {
        self.first.take().or_else(|| self.rest.next())
    }
}
