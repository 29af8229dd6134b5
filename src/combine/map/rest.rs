//! What the jobs of a map share, and how a detached map goes on without its owner.
//!
//! A map that is detached may have items left that were not submitted: a bounded pool had no room,
//! or the buffer was full. These items are the *rest*. The map's own jobs submit it as they end:
//!
//! ```text
//!   Map::detach, Drop ── put_rest ──► Progress { rest, tickets, in_flight }
//!          │                             ▲                  │
//!          └── drive ──► ticket ──► take a chunk, run it ── drive ──► ticket …
//! ```
//!
//! A *ticket* is a job that takes its items from the rest when it starts. If the pool was shut down
//! meanwhile, or the executor cannot be kept, a job runs the next chunk itself instead.
//!
//! Invariant: while the rest has items, at least one job of the map is in flight, or a thread is in
//! [`drive`]. A job leaves the count in the same critical section in which it looks for the rest,
//! and [`drive`] stops without a submission only if other jobs are in flight.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU8, Ordering};

use super::apply::{Apply, MapContext, Place};
use super::chunk::{Adaptive, ChunkItems, SharedChunk, ensure_helper, help, run_shared};
use super::route::{Availability, JobKind, Refused, Route};
use super::submitter::ChunkHandle;
use crate::error::JoinError;
use crate::task::span::{self, Span};
use crate::task::state::Origin;
use crate::util::sync::{Arc, AtomicBool, Mutex};
use crate::util::unwind::{DropEach, drop_catching, emit};

/// What all jobs of a map share. `A` is an item, `U` a result, and `R` the route of the jobs.
pub(super) struct Shared<'job, A, F, R, U> {
    pub(super) function: F,
    /// How many items a job has, unless the map chooses that itself. Set at the start.
    pub(super) chunk_size: usize,
    /// Asks running chunks to skip their remaining items. Set at the end of a map that is not
    /// detached.
    pub(super) stop: Arc<AtomicBool>,
    /// Where `map` was called: the location of all its jobs.
    pub(super) origin: Origin,
    /// The `tracing` span that was current there. Each job runs inside it.
    pub(super) span: Option<Span>,
    /// Only for a map that may have a rest. Set at the start, before the first job.
    pub(super) tracker: Option<Tracker<A, R>>,
    /// Only for a map that chooses the chunk size itself. Set at the start, before the first job.
    pub(super) adaptive: Option<Adaptive<'job, A, R, U>>,
}

/// Counts the jobs of a map, and keeps its rest.
pub(super) struct Tracker<A, R> {
    route: R,
    /// The limit on jobs in flight, in items.
    buffer_size: Option<usize>,
    // Lock order: the permits of the pool may be locked under this one. No user code runs under it.
    progress: Mutex<Progress<A>>,
}

struct Progress<A> {
    /// Counts the jobs that were submitted and have not ended, tickets included.
    in_flight: usize,
    /// Counts the tickets that have not started. Each will take a chunk of the rest.
    tickets: usize,
    /// `None` until the map is detached, and after its rest was dropped.
    rest: Option<VecDeque<A>>,
}

/// What [`drive`] does next.
enum Step<A> {
    /// Other jobs go on, or nothing is left.
    Done,
    /// Submits a ticket, which is counted and has its permit.
    Submit,
    /// Runs these items here, as a job that is counted.
    Run(Vec<A>),
    /// Drops the rest: nothing will run it.
    Abandon(VecDeque<A>),
}

/// Where [`drive`] is called.
#[derive(Clone, Copy)]
pub(super) enum Caller<'a> {
    /// The end of a job of the map, which may run further items.
    Job(Place<'a>),
    /// The thread that detaches the map, or a job that starts. It runs none.
    Owner,
}

impl<A, F, R, U> Shared<'_, A, F, R, U> {
    /// Returns how many items the next job should have.
    pub(super) fn chunk_size(&self) -> usize {
        match &self.adaptive {
            Some(adaptive) => adaptive.pace.chunk_size(),
            None => self.chunk_size,
        }
    }

    /// Returns what a job knows of the map, at the place where it runs.
    pub(super) fn context<'a>(&'a self, place: Place<'a>) -> MapContext<'a> {
        MapContext {
            origin: self.origin,
            stop: &self.stop,
            place,
        }
    }

    /// Returns how many items the user puts into a job: 1 if the map chooses that itself.
    pub(super) fn fixed_chunk_size(&self) -> usize {
        self.chunk_size
    }

    /// Returns whether a job of the map has not ended. Only for maps that may have a rest.
    pub(super) fn has_jobs_in_flight(&self) -> bool {
        let tracker = self.tracker.as_ref();
        tracker.is_some_and(|tracker| tracker.progress.lock().in_flight > 0)
    }
}

impl<A, R> Tracker<A, R> {
    pub(super) fn new(route: R, buffer_size: Option<usize>) -> Self {
        Self {
            route,
            buffer_size,
            progress: Mutex::new(Progress {
                in_flight: 0,
                tickets: 0,
                rest: None,
            }),
        }
    }

    /// Leaves `rest` to the jobs. The caller then calls [`drive`].
    pub(super) fn put_rest(&self, rest: VecDeque<A>) {
        self.progress.lock().rest = Some(rest);
    }

    fn next_step<'job>(
        &self,
        route: &impl Route<'job>,
        chunk_size: usize,
        fixed_size: usize,
        caller: Caller<'_>,
    ) -> Step<A> {
        // Locks the pool's queue, so it comes first.
        let availability = route.availability();
        let mut progress = self.progress.lock();
        let Progress {
            in_flight,
            tickets,
            rest: Some(rest),
        } = &mut *progress
        else {
            return Step::Done;
        };
        let claimed = tickets.saturating_mul(chunk_size);
        let max_jobs = (self.buffer_size).map_or(usize::MAX, |buffer| (buffer / chunk_size).max(1));
        if rest.len() <= claimed || *in_flight >= max_jobs {
            return Step::Done;
        }
        match (availability, caller) {
            (Availability::Open, _) => {
                if !route.try_acquire() {
                    if *in_flight > 0 {
                        // No job is lost: one that is in flight comes here when it ends.
                        return Step::Done;
                    }
                    route.force_acquire();
                }
                *in_flight += 1;
                *tickets += 1;
                Step::Submit
            }
            (Availability::JobsOnly, Caller::Job(_)) => {
                *in_flight += 1;
                // Nothing can take the other items of a chunk: no helper is accepted.
                Step::Run(take_chunk(rest, fixed_size))
            }
            (Availability::JobsOnly, Caller::Owner) if *in_flight > 0 => Step::Done,
            (Availability::JobsOnly | Availability::Closed, _) => {
                Step::Abandon(mem::take(&mut progress.rest).unwrap_or_default())
            }
        }
    }

    fn has_rest(&self) -> bool {
        self.progress.lock().rest.is_some()
    }

    /// Counts a job out. Returns whether there is a rest.
    fn end_job(&self) -> bool {
        let mut progress = self.progress.lock();
        progress.in_flight -= 1;
        progress.rest.is_some()
    }

    /// Takes the items of a ticket that starts.
    fn redeem(&self, chunk_size: usize) -> Vec<A> {
        let mut progress = self.progress.lock();
        progress.tickets -= 1;
        match &mut progress.rest {
            Some(rest) => take_chunk(rest, chunk_size),
            None => Vec::new(),
        }
    }

    /// Drops the rest, because a job was cancelled, has expired or could not run. Returns how many
    /// items that were.
    fn drop_rest(&self) -> usize {
        let rest = self.progress.lock().rest.take().unwrap_or_default();
        let items = rest.len();
        drop_items(rest.into_iter());
        items
    }
}

fn take_chunk<A>(rest: &mut VecDeque<A>, chunk_size: usize) -> Vec<A> {
    rest.drain(..chunk_size.min(rest.len())).collect()
}

/// Drops items outside locks. A destructor that panics harms no other item.
pub(super) fn drop_items<A>(items: impl Iterator<Item = A>) {
    items.for_each(|item| drop_catching("the destructor of an item", item));
}

/// Submits the rest of a detached map, as far as its limits permit, by `route`.
pub(super) fn drive<'job, A, F, R, U>(
    shared: &Arc<Shared<'job, A, F, R, U>>,
    route: &impl Route<'job, Failure = F::Failure>,
    caller: Caller<'_>,
) where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    let Some(tracker) = &shared.tracker else {
        return;
    };
    loop {
        match tracker.next_step(
            route,
            shared.chunk_size(),
            shared.fixed_chunk_size(),
            caller,
        ) {
            Step::Done => return,
            Step::Submit => submit_ticket(shared, route),
            Step::Run(items) => {
                let place = match caller {
                    Caller::Job(place) => place,
                    Caller::Owner => Place::Thread,
                };
                run_rest(items, shared, place);
                tracker.end_job();
            }
            Step::Abandon(rest) => {
                let items = rest.len();
                drop_items(rest.into_iter());
                route.report_unrun(items, shared.origin);
                return;
            }
        }
    }
}

fn submit_ticket<'job, A, F, R, U>(
    shared: &Arc<Shared<'job, A, F, R, U>>,
    route: &impl Route<'job, Failure = F::Failure>,
) where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    let submission = Arc::new(Submission::new());
    if let Some(adaptive) = &shared.adaptive {
        adaptive.count_queued();
    }
    let ticket = MapJob {
        shared: Some(Arc::clone(shared)),
        is_ticket: true,
        submission: Some(Arc::clone(&submission)),
        kind: JobKind::Items,
    };
    match submit_chunk_job(shared, route, ticket, Chunk::Ticket) {
        // Detached.
        Ok(handle) => {
            drop(handle);
            submission.accepted_by(shared);
        }
        // The next step finds the pool closed, and decides what becomes of the rest.
        Err(refused) => {
            let error = refused.into_error();
            drop_catching("the destructor of an error", error);
        }
    }
}

/// Tells a ticket that was cancelled from one that was never accepted. A cancelled one takes the
/// rest with it.
pub(super) struct Submission(AtomicU8);

const SUBMITTING: u8 = 0;
const ACCEPTED: u8 = 1;
const DROPPED: u8 = 2;

#[derive(PartialEq, Eq)]
#[must_use]
struct WasDropped(bool);

impl Submission {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(SUBMITTING))
    }

    /// The ticket was accepted. Returns whether it was dropped unrun since.
    fn accepted(&self) -> WasDropped {
        // Relaxed: the state publishes nothing, and each of the two swaps sees the other or is
        // seen.
        WasDropped(self.0.swap(ACCEPTED, Ordering::Relaxed) == DROPPED)
    }

    /// The job was accepted. If it was dropped unrun since, so is the rest.
    pub(super) fn accepted_by<A, F, R, U>(&self, shared: &Shared<'_, A, F, R, U>) {
        if self.accepted() == WasDropped(true) {
            if let Some(tracker) = &shared.tracker {
                tracker.drop_rest();
            }
        }
    }

    /// The ticket is dropped unrun. Returns whether it was accepted before.
    fn dropped(&self) -> bool {
        self.0.swap(DROPPED, Ordering::Relaxed) == ACCEPTED
    }
}

/// A job of a map, or a ticket. A [`Tracker`] counts it, if there is one. Dropping it unrun counts
/// it out, and drops the rest. A helper is not counted, and is no reason to drop the rest.
pub(super) struct MapJob<'job, A, F, R, U> {
    /// `None` once it runs.
    shared: Option<Arc<Shared<'job, A, F, R, U>>>,
    is_ticket: bool,
    /// Only for a job that may be refused without harm to the rest.
    submission: Option<Arc<Submission>>,
    kind: JobKind,
}

impl<'job, A, F, R, U> MapJob<'job, A, F, R, U> {
    /// Counts a new job, which has its items.
    pub(super) fn new(shared: &Arc<Shared<'job, A, F, R, U>>) -> Self {
        if let Some(tracker) = &shared.tracker {
            tracker.progress.lock().in_flight += 1;
        }
        if let Some(adaptive) = &shared.adaptive {
            adaptive.count_queued();
        }
        Self {
            shared: Some(Arc::clone(shared)),
            is_ticket: false,
            submission: None,
            kind: JobKind::Items,
        }
    }

    /// Counts a new job of a burst. If it is refused, its chunk runs the item.
    pub(super) fn in_burst(
        shared: &Arc<Shared<'job, A, F, R, U>>,
        submission: &Arc<Submission>,
    ) -> Self {
        let mut job = Self::new(shared);
        job.submission = Some(Arc::clone(submission));
        job
    }

    /// Makes a helper.
    pub(super) fn helper(shared: &Arc<Shared<'job, A, F, R, U>>) -> Self {
        Self {
            shared: Some(Arc::clone(shared)),
            is_ticket: false,
            submission: None,
            kind: JobKind::Helper,
        }
    }

    /// Runs the job. Before and after it, submits what is left of a detached map and finds room.
    pub(super) fn run<T>(
        mut self,
        place: Place<'_>,
        work: impl FnOnce(&Arc<Shared<'job, A, F, R, U>>) -> T,
    ) -> T
    where
        A: Send + 'job,
        F: Apply<A, U> + 'job,
        R: Route<'job, Failure = F::Failure> + 'job,
        U: Send + 'job,
    {
        // This disarms the destructor.
        let shared = self.shared.take().expect("it was not run");
        if let Some(adaptive) = &shared.adaptive {
            match self.kind {
                JobKind::Helper => {
                    adaptive.clear_helper();
                    // The permit of the helper is free now, and the other jobs may all be blocked.
                    submit_rest(&shared);
                    let run = catch_unwind(AssertUnwindSafe(|| work(&shared)));
                    drop_catching("the destructor of map's function", shared);
                    return run.unwrap_or_else(|payload| resume_unwind(payload));
                }
                JobKind::Items if adaptive.count_started() => ensure_helper(&shared),
                JobKind::Items => {}
            }
        }
        // The permit of this job is free now, so more of the rest may find room.
        submit_rest(&shared);
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&shared)));
        end_job(shared, place);
        outcome.unwrap_or_else(|payload| resume_unwind(payload))
    }
}

/// Submits what is left of a detached map, at the start of a job.
fn submit_rest<'job, A, F, R, U>(shared: &Arc<Shared<'job, A, F, R, U>>)
where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    if let Some(tracker) = &shared.tracker {
        if tracker.has_rest() {
            drive(shared, &tracker.route, Caller::Owner);
        }
    }
}

/// What a job with several items runs.
pub(super) enum Chunk<'job, A, U> {
    /// Items whose results are requested.
    Items(DropEach<A>),
    /// Items of a detached map, whose results are dropped at once.
    Detached(DropEach<A>),
    /// Items of a detached map, which the job takes from the rest when it starts.
    Ticket,
    /// Items of a map that chooses the chunk size itself.
    Shared(ChunkItems<'job, A, U>),
    /// Items that are taken from a running chunk.
    Helper,
}

/// Submits a job with several items, which has its permit.
///
/// All such jobs go through this function. Each further type of job, or place that submits one,
/// would add much code to every program that calls `map`.
#[inline(never)]
pub(super) fn submit_chunk_job<'job, A, F, R, U>(
    shared: &Shared<'job, A, F, R, U>,
    route: &impl Route<'job, Failure = F::Failure>,
    job: MapJob<'job, A, F, R, U>,
    chunk: Chunk<'job, A, U>,
) -> Result<ChunkHandle<'job, U>, Refused>
where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    let kind = job.kind;
    let span = span::clone(&shared.span);
    route.submit(chunk_job(job, chunk), shared.origin, span, kind)
}

/// Returns the closure of a job with several items. There is one type of closure for all kinds of
/// chunks.
fn chunk_job<'job, A, F, R, U>(
    job: MapJob<'job, A, F, R, U>,
    chunk: Chunk<'job, A, U>,
) -> impl FnOnce(Place<'_>) -> Result<DropEach<Result<U, JoinError>>, F::Failure> + Send + 'job
where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    move |place| {
        // Invariant: a chunk is registered before its job counts as started.
        if let (Chunk::Shared(items), Some(shared)) = (&chunk, &job.shared) {
            start_chunk(items, shared);
        }
        job.run(place, |shared| {
            match chunk {
                Chunk::Items(items) => return shared.function.each(items, shared.context(place)),
                Chunk::Detached(mut items) => {
                    (shared.function).each_detached(items.take(), shared.context(place));
                }
                Chunk::Ticket => run_ticket(shared, place),
                Chunk::Shared(items) => run_shared(items, shared, place),
                Chunk::Helper => help(shared, place),
            }
            Ok(DropEach::new(Vec::new()))
        })
    }
}

impl<A, F, R, U> Drop for MapJob<'_, A, F, R, U> {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        if let Some(adaptive) = &shared.adaptive {
            if self.kind == JobKind::Helper {
                adaptive.clear_helper();
                return drop_catching("the destructor of map's function", shared);
            }
            adaptive.count_started();
        }
        if let Some(tracker) = &shared.tracker {
            let mut progress = tracker.progress.lock();
            progress.in_flight -= 1;
            progress.tickets -= usize::from(self.is_ticket);
            drop(progress);
            // A ticket that was never accepted is no reason to lose the rest: its submitter
            // decides.
            if self.submission.as_ref().is_none_or(|job| job.dropped()) {
                let (items, origin) = (tracker.drop_rest(), shared.origin);
                if items > 0 {
                    emit(|| {
                        tracing::warn!(
                            items,
                            map = %origin,
                            "{items} items of the map submitted at {origin} did not run: \
                             a job of the map was cancelled, or has expired"
                        );
                    });
                }
            }
        }
        drop_catching("the destructor of map's function", shared);
    }
}

fn end_job<'job, A, F, R, U>(shared: Arc<Shared<'job, A, F, R, U>>, place: Place<'_>)
where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    if let Some(tracker) = &shared.tracker {
        if tracker.end_job() {
            drive(&shared, &tracker.route, Caller::Job(place));
        }
    }
    // This may be the last reference to the function, whose destructor may panic.
    drop_catching("the destructor of map's function", shared);
}

fn start_chunk<'job, A, F, R, U>(
    items: &ChunkItems<'job, A, U>,
    shared: &Shared<'job, A, F, R, U>,
) {
    if let Some(adaptive) = &shared.adaptive {
        adaptive.start_chunk(items);
    }
}

/// Takes items from the rest, and runs them.
fn run_ticket<'job, A, F, R, U>(shared: &Arc<Shared<'job, A, F, R, U>>, place: Place<'_>)
where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    let Some(tracker) = &shared.tracker else {
        return;
    };
    let items = tracker.redeem(match tracker.route.availability() {
        Availability::Open => shared.chunk_size(),
        _ => shared.fixed_chunk_size(),
    });
    run_rest(items, shared, place);
}

/// Runs items of the rest.
fn run_rest<'job, A, F, R, U>(
    items: Vec<A>,
    shared: &Arc<Shared<'job, A, F, R, U>>,
    place: Place<'_>,
) where
    A: Send + 'job,
    F: Apply<A, U> + 'job,
    R: Route<'job, Failure = F::Failure> + 'job,
    U: Send + 'job,
{
    let Some(adaptive) = &shared.adaptive else {
        return shared.function.each_detached(items, shared.context(place));
    };
    adaptive.pace.count_job();
    let chunk = Arc::new(SharedChunk::new(items.into(), true));
    let items = ChunkItems::new(&chunk);
    adaptive.start_chunk(&items);
    ensure_helper(shared);
    run_shared(items, shared, place);
}
