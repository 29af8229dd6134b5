//! Chunks of a map that chooses the chunk size itself.
//!
//! Such a chunk must not hold back its items if one of them takes long. So its job starts the items
//! one by one, out of a [`SharedChunk`], and any other thread can take those that have not started:
//!
//! ```text
//!                          ┌─ SharedChunk ───────────────────┐
//!   the chunk's job ◄──────┤ items, not started              ├──────► a helper: takes the back half
//!        └────────────────►│ results, not taken              ├──────► the map
//!                          │ behind: batches that were split │
//!                          └─────────────────────────────────┘
//! ```
//!
//! - A chunk that takes longer than [`LONG`] *bursts* if its items take longer than [`WORTH_A_JOB`]:
//!   each item that is left gets a job of its own. These jobs take the chunk's place in the order.
//! - A *helper* is a job that starts once a worker is free. It takes the back half of a chunk. So
//!   it also rescues the items behind one that blocks.
//!
//! Invariant: while a running chunk has items that have not started, a job of the map or a helper
//! is queued, or a thread is about to submit a helper. The pool may be closed, or the queue
//! cancelled; then the chunk's own job runs the items. Each job that starts when no other is queued
//! looks for such chunks ([`ensure_helper`]), and a chunk is registered before its job counts as
//! started.

use std::collections::VecDeque;
use std::hint::spin_loop;
use std::mem;
use std::task::Waker;
use std::time::Duration;

use super::apply::{Apply, Place};
use super::pace::{Pace, since};
use super::rest::{Chunk, MapJob, Shared, Submission, drop_items, submit_chunk_job};
use super::route::{Availability, Route};
use super::submitter::{Batch, ChunkHandle};
use crate::error::JoinError;
use crate::scope::ItemFailures;
use crate::task::cell::{RawTask, cancel, catch};
use crate::task::context::current_task;
use crate::util::sync::{Arc, AtomicBool, AtomicUsize, Instant, Mutex, Ordering};
use crate::util::unwind::{DropEach, drop_catching, drop_waker, wake};

/// A chunk that takes longer may burst.
const LONG: Duration = Duration::from_micros(400);

/// Only items that take longer get jobs of their own in a burst. For others the jobs would cost
/// more.
const WORTH_A_JOB: Duration = Duration::from_micros(25);

/// Items that take less together are not split off, unless their chunk has run for [`SPLIT_AFTER`].
const WORTH_SPLITTING: Duration = Duration::from_micros(25);

const SPLIT_AFTER: Duration = Duration::from_micros(100);

/// How long a helper spins between two looks at the chunks.
const SPINS_PER_LOOK: u32 = 64;

/// After at most so many items, a chunk looks at the clock.
const MAX_ITEMS_PER_LOOK: u32 = 64;

/// What the jobs of a map share if the map chooses the chunk size itself. `R` is the route of the
/// jobs.
pub(super) struct Adaptive<'job, A, R, U> {
    route: R,
    pub(super) pace: Pace,
    /// Counts the map's jobs that were submitted and have not started.
    queued: AtomicUsize,
    /// Whether a helper is queued. Set by the thread that submits it, cleared by its start or drop.
    helper: AtomicBool,
    // Lock order: the lock of a chunk is taken under this one. No user code runs under either.
    /// The chunks that are running.
    running: Mutex<Vec<Arc<SharedChunk<'job, A, U>>>>,
    // Lock order: no other lock is taken under this one.
    /// The latest helper, to cancel it once there is nothing to help with.
    latest_helper: Mutex<Option<ChunkHandle<'job, U>>>,
}

impl<'job, A, R, U> Adaptive<'job, A, R, U> {
    pub(super) fn new(route: R, buffer_size: Option<usize>) -> Self {
        Self {
            route,
            pace: Pace::new(buffer_size),
            queued: AtomicUsize::new(0),
            helper: AtomicBool::new(false),
            running: Mutex::new(Vec::new()),
            latest_helper: Mutex::new(None),
        }
    }

    /// Counts a job that is about to be submitted.
    pub(super) fn count_queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a job out that has started or will never start. Returns whether it was the last one
    /// queued.
    pub(super) fn count_started(&self) -> bool {
        // Ordering: of two jobs that start, the later one sees the chunk that the earlier one has
        // registered before.
        self.queued.fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn register(&self, chunk: &Arc<SharedChunk<'job, A, U>>) {
        self.running.lock().push(Arc::clone(chunk));
    }

    fn deregister(&self, chunk: &Arc<SharedChunk<'job, A, U>>) {
        let mut running = self.running.lock();
        let place = running.iter().position(|other| Arc::ptr_eq(other, chunk));
        // The caller has a reference, so the chunk is not dropped here.
        place.map(|place| running.swap_remove(place));
    }

    fn has_waiting_items(&self) -> bool {
        let running = self.running.lock();
        running.iter().any(|chunk| chunk.waiting_items() > 0)
    }

    /// Takes the back half of a running chunk, as a chunk of its own that is registered.
    fn split(&self, runner: &Option<Arc<dyn RawTask>>) -> Split<'job, A, U>
    where
        A: Send + 'job,
        U: Send + 'job,
    {
        let mut running = self.running.lock();
        let mut is_any = false;
        let half = running.iter().find_map(|chunk| {
            let waiting = chunk.waiting_items();
            is_any |= waiting > 0;
            // A chunk that will end soon is left alone.
            let is_worth_it = self.pace.estimate(waiting) > WORTH_SPLITTING || chunk.is_long();
            let half = is_worth_it.then(|| chunk.split_off(runner));
            half.flatten()
        });
        let Some((half, waker)) = half else {
            return match is_any {
                true => Split::Later,
                false => Split::None,
            };
        };
        running.push(Arc::clone(&half));
        drop(running);
        // An unordered map must poll the new batch.
        wake_if_any(waker);
        Split::Half(half)
    }
}

enum Split<'job, A, U> {
    Half(Arc<SharedChunk<'job, A, U>>),
    /// A chunk has items that have not started, but probably it will end soon.
    Later,
    /// No chunk has such items.
    None,
}

/// The items and the results of one chunk, which its job, helpers and the map share.
pub(super) struct SharedChunk<'job, A, U> {
    // Lock order: no other lock is taken under this one. No user code runs under it.
    state: Mutex<State<'job, A, U>>,
}

struct State<'job, A, U> {
    /// The items that have not started, in input order. The chunk's job takes them from the front,
    /// helpers from the back.
    items: VecDeque<A>,
    /// The results that the map has not taken, in input order.
    results: Vec<Result<U, JoinError>>,
    /// Counts the results that the map has taken.
    taken: usize,
    /// When the job started to run the chunk.
    started: Option<Instant>,
    /// Whether the chunk's job has taken an item. Until then the front item is not for helpers.
    begun: bool,
    /// The batches that were split off, in input order: they come after all items of this chunk.
    behind: Vec<Batch<'job, U>>,
    /// The map's waker: it waits for a result of this chunk.
    waker: Option<Waker>,
    /// Whether the next result wakes the map. Otherwise the end of the chunk does.
    eager: bool,
    /// Whether the map no longer wants results.
    abandoned: bool,
    /// Whether the chunk was split off by a helper. Then it has no job of its own.
    is_split: bool,
    /// Whether no more results will come.
    ended: bool,
    /// The job that runs a chunk that was split off, to request its cancellation.
    runner: Option<Arc<dyn RawTask>>,
    /// Where a scoped job records panics of the items.
    failures: Option<ItemFailures>,
    /// How many items were dropped because the job never ran.
    unrun: usize,
    /// Whether the items stay here if the job is dropped unrun, because it may be refused.
    keeps_items: bool,
    /// Whether the job was dropped unrun.
    dropped: bool,
}

impl<A, U> State<'_, A, U> {
    /// Counts the items that have not started, and that a helper can take.
    fn waiting_items(&self) -> usize {
        self.items.len().saturating_sub(usize::from(!self.begun))
    }
}

/// What a [`SharedChunk`] has for its map.
pub(super) struct Available<'job, U> {
    pub(super) results: Vec<Result<U, JoinError>>,
    /// How many results the map has taken before.
    pub(super) first: usize,
    pub(super) behind: Vec<Batch<'job, U>>,
    pub(super) failures: Option<ItemFailures>,
    /// Whether the chunk is finished, and has nothing more.
    pub(super) ended: bool,
}

/// The map's view of a [`SharedChunk`], which hides the type of the items.
pub(super) trait ChunkView<'job, U>: Send + Sync {
    /// Takes what is available. Otherwise returns `None`, and the chunk keeps `waker`. The results
    /// of a chunk that is neither finished nor eager are not available.
    fn take(&self, waker: &Waker) -> Option<Available<'job, U>>;
    /// Takes everything: the job has ended.
    fn take_all(&self) -> Available<'job, U>;
    /// Returns how many items were dropped because the job never ran.
    fn unrun(&self) -> usize;
    /// Makes results available as soon as they are there.
    fn make_eager(&self);
    /// The map wants no more results.
    fn abandon(&self);
    /// Drops the items that have not started, and requests the cancellation of the others.
    fn cancel(&self);
}

impl<'job, A, U> SharedChunk<'job, A, U> {
    /// `abandoned`: no map wants the results.
    pub(super) fn new(items: VecDeque<A>, abandoned: bool) -> Self {
        Self {
            state: Mutex::new(State {
                items,
                results: Vec::new(),
                taken: 0,
                started: None,
                begun: false,
                behind: Vec::new(),
                waker: None,
                eager: false,
                abandoned,
                is_split: false,
                ended: false,
                runner: None,
                failures: None,
                unrun: 0,
                keeps_items: false,
                dropped: false,
            }),
        }
    }

    fn waiting_items(&self) -> usize {
        self.state.lock().waiting_items()
    }

    /// Returns whether the job has run the chunk for [`SPLIT_AFTER`].
    fn is_long(&self) -> bool {
        let started = self.state.lock().started;
        started.is_some_and(|started| since(started) > SPLIT_AFTER)
    }

    /// Splits the back half off, and leaves a batch for it. Also returns the waker of the map.
    fn split_off(&self, runner: &Option<Arc<dyn RawTask>>) -> Option<(Arc<Self>, Option<Waker>)>
    where
        A: Send + 'job,
        U: Send + 'job,
    {
        let mut state = self.state.lock();
        let waiting = state.waiting_items();
        if waiting == 0 {
            return None;
        }
        let kept = state.items.len() - waiting.div_ceil(2);
        let half = Self::new(state.items.split_off(kept), state.abandoned);
        let mut inner = half.state.lock();
        inner.is_split = true;
        inner.runner.clone_from(runner);
        drop(inner);
        let half = Arc::new(half);
        let mut waker = None;
        if !state.abandoned {
            let batch = Batch::of_chunk(None, Arc::clone(&half) as _);
            state.behind.insert(0, batch);
            waker = state.waker.take();
        }
        Some((half, waker))
    }

    /// Stores the result of the item before, and takes the next one unless the map is stopped.
    #[inline]
    fn next(&self, result: &mut Option<Result<U, JoinError>>, is_stopped: bool) -> Option<A> {
        let mut state = self.state.lock();
        let (mut unwanted, mut waker) = (None, None);
        if let Some(result) = result.take() {
            if state.abandoned {
                unwanted = Some(result);
            } else {
                state.results.push(result);
                if state.eager {
                    waker = state.waker.take();
                }
            }
        }
        state.begun = true;
        let item = match is_stopped {
            false => state.items.pop_front(),
            true => None,
        };
        drop(state);
        drop_catching("the destructor of a result", unwanted);
        wake_if_any(waker);
        item
    }

    /// The job starts to run the chunk. Returns whether no map wants the results.
    fn begin(&self, start: Instant, failures: Option<&ItemFailures>) -> bool {
        let mut state = self.state.lock();
        state.started = Some(start);
        let items = state.items.len();
        state.failures = failures.cloned();
        if state.waker.is_some() {
            // The map already waits for this chunk, so it wants each result.
            state.eager = true;
        }
        if !state.abandoned {
            state.results.reserve(items);
        }
        state.abandoned
    }

    /// The job has run the items. Those that are left were cancelled.
    fn end(&self) {
        let mut state = self.state.lock();
        let items = mem::take(&mut state.items);
        if !state.abandoned {
            let cancelled = items.iter().map(|_| Err(JoinError::cancelled()));
            state.results.extend(cancelled);
        }
        state.ended = true;
        let runner = state.runner.take();
        let waker = state.waker.take();
        let is_split = state.is_split;
        drop(state);
        drop_items(items.into_iter());
        drop(runner);
        match is_split {
            true => wake_if_any(waker),
            // The end of the job wakes the map, after it was counted.
            false => drop_waker(waker),
        }
    }

    fn take_items(&self) -> VecDeque<A> {
        mem::take(&mut self.state.lock().items)
    }

    /// Leaves batches that were split off, and puts the other items back. The batches come back if
    /// no map wants their results.
    fn put_back(&self, items: VecDeque<A>, batches: Vec<Batch<'job, U>>) -> Vec<Batch<'job, U>> {
        let mut state = self.state.lock();
        // Only the chunk's own job bursts it, and helpers find no items meanwhile.
        debug_assert!(state.items.is_empty());
        state.items = items;
        let (mut waker, mut unwanted) = (None, Vec::new());
        if state.abandoned {
            unwanted = batches;
        } else if !batches.is_empty() {
            state.behind.splice(0..0, batches);
            waker = state.waker.take();
        }
        drop(state);
        wake_if_any(waker);
        unwanted
    }

    /// The job is about to be submitted, and may be refused.
    fn keep_items(&self) {
        self.state.lock().keeps_items = true;
    }

    /// The job was accepted. If it was dropped unrun since, its items are dropped.
    fn accepted(&self) {
        let mut state = self.state.lock();
        state.keeps_items = false;
        let dropped = state.dropped;
        drop(state);
        if dropped {
            self.drop_unrun();
        }
    }

    /// The job was dropped unrun.
    fn drop_unrun(&self) {
        let mut state = self.state.lock();
        state.dropped = true;
        if state.keeps_items {
            return;
        }
        let items = mem::take(&mut state.items);
        state.unrun += items.len();
        drop(state);
        drop_items(items.into_iter());
    }

    fn available(state: &mut State<'job, A, U>) -> Available<'job, U> {
        let results = mem::take(&mut state.results);
        let first = state.taken;
        state.taken += results.len();
        // A map that was woken for another reason still waits for a result.
        state.eager &= results.is_empty();
        Available {
            results,
            first,
            behind: mem::take(&mut state.behind),
            failures: state.failures.clone(),
            ended: state.ended,
        }
    }
}

impl<'job, A: Send, U: Send> ChunkView<'job, U> for SharedChunk<'job, A, U> {
    fn take(&self, waker: &Waker) -> Option<Available<'job, U>> {
        // Cloning a waker is user code, so it happens outside the lock.
        let waker = waker.clone();
        let mut state = self.state.lock();
        let is_done = state.is_split && state.ended;
        let has_results = state.eager && !state.results.is_empty();
        if is_done || has_results || !state.behind.is_empty() {
            let mut available = Self::available(&mut state);
            // The end of the job is what counts, if the chunk has one.
            available.ended = is_done;
            let old = state.waker.take();
            drop(state);
            drop_waker(old);
            drop_waker(Some(waker));
            return Some(available);
        }
        let replaced = state.waker.replace(waker);
        drop(state);
        drop_waker(replaced);
        None
    }

    fn take_all(&self) -> Available<'job, U> {
        let mut state = self.state.lock();
        let available = Self::available(&mut state);
        let waker = state.waker.take();
        drop(state);
        drop_waker(waker);
        available
    }

    fn unrun(&self) -> usize {
        self.state.lock().unrun
    }

    fn make_eager(&self) {
        let mut state = self.state.lock();
        state.eager = true;
        let mut waker = None;
        if !state.results.is_empty() {
            waker = state.waker.take();
        }
        drop(state);
        wake_if_any(waker);
    }

    fn abandon(&self) {
        let mut state = self.state.lock();
        state.abandoned = true;
        let results = mem::take(&mut state.results);
        let behind = mem::take(&mut state.behind);
        let waker = state.waker.take();
        drop(state);
        drop(DropEach::new(results));
        drop(behind);
        drop_waker(waker);
    }

    fn cancel(&self) {
        let mut state = self.state.lock();
        // Those of a job that is being submitted are dropped by its drop.
        let items = match state.keeps_items {
            true => VecDeque::new(),
            false => mem::take(&mut state.items),
        };
        let behind = mem::take(&mut state.behind);
        let runner = state.runner.clone();
        drop(state);
        // The last one first, as for all jobs of the map.
        behind.iter().rev().for_each(Batch::cancel);
        if let Some(runner) = runner {
            let _ = cancel(&*runner);
            drop_catching("the destructor of a job", runner);
        }
        drop_items(items.into_iter());
    }
}

fn wake_if_any(waker: Option<Waker>) {
    if let Some(waker) = waker {
        wake(waker);
    }
}

/// The half of a [`SharedChunk`] that its job has. Dropping it unrun drops the items.
pub(super) struct ChunkItems<'job, A, U>(Option<Arc<SharedChunk<'job, A, U>>>);

impl<'job, A, U> ChunkItems<'job, A, U> {
    pub(super) fn new(chunk: &Arc<SharedChunk<'job, A, U>>) -> Self {
        Self(Some(Arc::clone(chunk)))
    }

    fn take(mut self) -> Option<Arc<SharedChunk<'job, A, U>>> {
        self.0.take()
    }
}

impl<A, U> Drop for ChunkItems<'_, A, U> {
    fn drop(&mut self) {
        if let Some(chunk) = self.0.take() {
            chunk.drop_unrun();
        }
    }
}

/// Runs a chunk in one of its jobs.
pub(super) fn run_shared<'job, A, F, R, U>(
    chunk: ChunkItems<'job, A, U>,
    shared: &Arc<Shared<'job, A, F, R, U>>,
    place: Place<'_>,
) where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    let (Some(adaptive), Some(chunk)) = (&shared.adaptive, chunk.take()) else {
        return;
    };
    run_items(&chunk, shared, adaptive, place);
    adaptive.deregister(&chunk);
    cancel_idle_helper(shared, adaptive);
    chunk.end();
    // It may have results of the user's, if the map is gone.
    drop_catching("the destructor of a result", chunk);
}

/// Calls the function for the items of a chunk that is registered. A panic costs only the item that
/// caused it.
fn run_items<'job, A, F, R, U>(
    chunk: &Arc<SharedChunk<'job, A, U>>,
    shared: &Arc<Shared<'job, A, F, R, U>>,
    adaptive: &Adaptive<'job, A, R, U>,
    place: Place<'_>,
) where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    // Relaxed: see `Submitter::stop`.
    let is_stopped = || shared.stop.load(Ordering::Relaxed) || adaptive.route.is_stopping();
    let context = shared.context(place);
    let start = Instant::now();
    let failures = place.failures();
    let is_detached = chunk.begin(start, failures);
    // Returns the error for the results.
    let keep = |started: usize, error| match failures {
        Some(failures) => {
            match is_detached {
                // A job may run several chunks of the rest.
                true => failures.record_detached(error, shared.origin),
                false => failures.record(started - 1, error, shared.origin),
            }
            // `Results` replaces this error by the recorded one.
            JoinError::cancelled()
        }
        None => error,
    };
    let mut look = Look::new();
    let mut started = 0;
    let mut result = None;
    loop {
        // One `catch` serves all items up to the next panic.
        let run = catch(shared.origin, || {
            loop {
                let Some(item) = chunk.next(&mut result, is_stopped()) else {
                    return;
                };
                started += 1;
                let outcome = shared.function.one(item, context).map_err(Into::into);
                result = Some(outcome.map_err(|error| keep(started, error)));
                if look.is_due() {
                    let (items, elapsed) = look.look(since(start));
                    if look.is_long() {
                        adaptive.pace.record(items, elapsed);
                        // One item that takes long is no reason, if the others do not.
                        if adaptive.pace.estimate(1) > WORTH_A_JOB {
                            burst(chunk, shared, adaptive);
                        }
                    }
                }
            }
        });
        let Err(error) = run else {
            break;
        };
        // Invariant: one result for each item started. The item that panicked has none yet.
        result = Some(Err(keep(started, error)));
    }
    if !look.is_long() {
        adaptive.pace.record(started, since(start));
    }
}

/// When a chunk looks at the clock: often while its items take long, rarely while they do not.
struct Look {
    /// How many items pass between two looks.
    step: u32,
    /// How many are left until the next look.
    left: u32,
    /// When the last look was, counted from the start of the chunk.
    last: Duration,
}

impl Look {
    fn new() -> Self {
        Self {
            step: 1,
            left: 1,
            last: Duration::ZERO,
        }
    }

    #[inline]
    fn is_due(&mut self) -> bool {
        self.left -= 1;
        self.left == 0
    }

    /// Looks at the clock. Returns how many items have passed since the last look, and how long
    /// they took.
    #[inline(never)]
    fn look(&mut self, now: Duration) -> (usize, Duration) {
        let (items, elapsed) = (self.step as usize, now.saturating_sub(self.last));
        if elapsed < LONG / 20 {
            self.step = (2 * self.step).min(MAX_ITEMS_PER_LOOK);
        } else if elapsed > LONG / 5 {
            self.step = (self.step / 2).max(1);
        }
        (self.left, self.last) = (self.step, now);
        (items, elapsed)
    }

    /// Returns whether the chunk took long at the last look.
    fn is_long(&self) -> bool {
        self.last > LONG
    }
}

/// Submits a job for each item that has not started, as far as the pool has room.
fn burst<'job, A, F, R, U>(
    chunk: &Arc<SharedChunk<'job, A, U>>,
    shared: &Arc<Shared<'job, A, F, R, U>>,
    adaptive: &Adaptive<'job, A, R, U>,
) where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    let route = &adaptive.route;
    if route.availability() != Availability::Open {
        return;
    }
    let mut items = chunk.take_items();
    let mut batches = Vec::new();
    // Invariant: the batches come after the items that are left, so the last item is submitted
    // first.
    while !items.is_empty() && route.try_acquire() {
        let single = items.split_off(items.len() - 1);
        match submit_chunk(single, shared, route) {
            Ok(batch) => batches.push(batch),
            Err(single) => {
                // The pool was shut down just now.
                items.extend(single);
                break;
            }
        }
    }
    batches.reverse();
    let is_stopped = || shared.stop.load(Ordering::Relaxed);
    if is_stopped() {
        batches.iter().rev().for_each(Batch::cancel);
    }
    let has_items = !items.is_empty();
    let unwanted = chunk.put_back(items, batches);
    if has_items {
        // A helper that started meanwhile has found none.
        ensure_helper(shared);
    }
    if is_stopped() {
        unwanted.iter().rev().for_each(Batch::cancel);
        // Ordering: the map sets the flag before it cancels its batches, under the lock of each. It
        // has found these behind the chunk, or the flag is set here.
        ChunkView::cancel(&**chunk);
    }
}

/// Submits a chunk, which has its permit. The items come back if the pool is closed.
fn submit_chunk<'job, A, F, R, U>(
    items: VecDeque<A>,
    shared: &Arc<Shared<'job, A, F, R, U>>,
    route: &R,
) -> Result<Batch<'job, U>, VecDeque<A>>
where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    let chunk = Arc::new(SharedChunk::new(items, false));
    chunk.keep_items();
    let items = Chunk::Shared(ChunkItems::new(&chunk));
    let submission = Arc::new(Submission::new());
    let job = MapJob::in_burst(shared, &submission);
    match submit_chunk_job(shared, route, job, items) {
        Ok(handle) => {
            submission.accepted_by(shared);
            chunk.accepted();
            Ok(Batch::of_chunk(Some(handle), chunk as _))
        }
        Err(refused) => {
            drop_catching("the destructor of an error", refused.into_error());
            Err(chunk.take_items())
        }
    }
}

/// Submits a helper, if a running chunk has items that have not started, and no job of the map is
/// queued.
pub(super) fn ensure_helper<'job, A, F, R, U>(shared: &Arc<Shared<'job, A, F, R, U>>)
where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    let Some(adaptive) = &shared.adaptive else {
        return;
    };
    // A job that is queued comes here when it starts.
    if adaptive.queued.load(Ordering::Acquire) > 0 || !adaptive.has_waiting_items() {
        return;
    }
    // Ordering: a helper that starts at the same time clears the flag first, then looks for chunks.
    // If the flag is still set here, the helper sees the chunk that this thread has registered.
    if adaptive.helper.swap(true, Ordering::AcqRel) {
        return;
    }
    if adaptive.route.availability() != Availability::Open {
        adaptive.helper.store(false, Ordering::Release);
        return;
    }
    if !adaptive.route.try_acquire() {
        // No other job of the map is queued that could help, so this one exceeds the capacity.
        adaptive.route.force_acquire();
    }
    let job = MapJob::helper(shared);
    match submit_chunk_job(shared, &adaptive.route, job, Chunk::Helper) {
        Ok(handle) => {
            let old = adaptive.latest_helper.lock().replace(handle);
            drop(old);
            // The last chunk may have ended before the handle was there.
            cancel_idle_helper(shared, adaptive);
        }
        Err(refused) => drop_catching("the destructor of an error", refused.into_error()),
    }
}

/// Cancels the helper that is queued, if there is nothing to help with. It would keep a permit and
/// the map's function until a worker reaches it.
fn cancel_idle_helper<'job, A, F, R, U>(
    shared: &Arc<Shared<'job, A, F, R, U>>,
    adaptive: &Adaptive<'job, A, R, U>,
) where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    if adaptive.queued.load(Ordering::Acquire) > 0 || adaptive.has_waiting_items() {
        return;
    }
    let helper = adaptive.latest_helper.lock().take();
    if let Some(helper) = helper {
        // One that runs may have items by now, which must not see a cancel request.
        helper.cancel_if_queued();
        drop(helper);
        // A chunk that has started meanwhile may have counted on the helper.
        ensure_helper(shared);
    }
}

/// What a helper runs: the back half of a chunk.
pub(super) fn help<'job, A, F, R, U>(shared: &Arc<Shared<'job, A, F, R, U>>, place: Place<'_>)
where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    let Some(adaptive) = &shared.adaptive else {
        return;
    };
    let runner = current_task();
    // A job of the map that is queued takes over when it starts.
    while adaptive.queued.load(Ordering::Acquire) == 0 {
        match adaptive.split(&runner) {
            Split::Half(half) => {
                // The next helper, for the next worker that is free.
                ensure_helper(shared);
                run_shared(ChunkItems::new(&half), shared, place);
                drop_catching("the destructor of a result", half);
                break;
            }
            // This ends after `SPLIT_AFTER`. Until then the worker may have another job of the map.
            Split::Later => (0..SPINS_PER_LOOK).for_each(|_| spin_loop()),
            Split::None => break,
        }
    }
    drop_catching("the destructor of a job", runner);
}

impl<'job, A, R, U> Adaptive<'job, A, R, U> {
    /// The chunk's job starts.
    pub(super) fn start_chunk(&self, chunk: &ChunkItems<'job, A, U>) {
        if let Some(chunk) = &chunk.0 {
            self.register(chunk);
        }
    }

    /// A helper starts, or is dropped unrun.
    pub(super) fn clear_helper(&self) {
        self.helper.swap(false, Ordering::AcqRel);
    }
}
