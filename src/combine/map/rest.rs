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

use super::route::{Availability, Route};
use crate::error::JoinError;
use crate::scope::ItemFailures;
use crate::task::cell::catch;
use crate::task::span::{self, Span};
use crate::task::state::Origin;
use crate::util::sync::{Arc, AtomicBool, Mutex};
use crate::util::unwind::{DropEach, drop_catching};

/// What all jobs of a map share. `A` is an item, and `R` the route of the jobs.
pub(super) struct Shared<A, F, R> {
    pub(super) function: F,
    /// Asks running chunks to skip their remaining items. Set at the end of a map that is not
    /// detached.
    pub(super) stop: Arc<AtomicBool>,
    /// Where `map` was called: the location of all its jobs.
    pub(super) origin: Origin,
    /// The `tracing` span that was current there. Each job runs inside it.
    pub(super) span: Option<Span>,
    /// Only for a map that may have a rest. Set at the start, before the first job.
    pub(super) tracker: Option<Tracker<A, R>>,
}

/// Counts the jobs of a map, and keeps its rest.
pub(super) struct Tracker<A, R> {
    route: R,
    /// How many items a ticket takes.
    chunk_size: usize,
    /// The limit on jobs in flight.
    max_jobs: usize,
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
    Job(Option<&'a ItemFailures>),
    /// The thread that detaches the map, or a job that starts. It runs none.
    Owner,
}

impl<A, F, R> Shared<A, F, R> {
    /// Returns whether a job of the map has not ended. Only for maps that may have a rest.
    pub(super) fn has_jobs_in_flight(&self) -> bool {
        let tracker = self.tracker.as_ref();
        tracker.is_some_and(|tracker| tracker.progress.lock().in_flight > 0)
    }
}

impl<A, R> Tracker<A, R> {
    pub(super) fn new(route: R, chunk_size: usize, max_jobs: usize) -> Self {
        Self {
            route,
            chunk_size,
            max_jobs,
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

    fn next_step<'job>(&self, route: &impl Route<'job>, caller: Caller<'_>) -> Step<A> {
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
        let claimed = tickets.saturating_mul(self.chunk_size);
        if rest.len() <= claimed || *in_flight >= self.max_jobs {
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
                Step::Run(take_chunk(rest, self.chunk_size))
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
    fn redeem(&self) -> Vec<A> {
        let mut progress = self.progress.lock();
        progress.tickets -= 1;
        match &mut progress.rest {
            Some(rest) => take_chunk(rest, self.chunk_size),
            None => Vec::new(),
        }
    }

    /// Drops the rest, because a job was cancelled or could not run.
    fn drop_rest(&self) {
        let rest = self.progress.lock().rest.take();
        drop_items(rest.into_iter().flatten());
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
    shared: &Arc<Shared<A, F, R>>,
    route: &impl Route<'job>,
    caller: Caller<'_>,
) where
    A: Send + 'job,
    F: Fn(A) -> U + Send + Sync + 'job,
    R: Route<'job> + 'job,
    U: Send + 'job,
{
    let Some(tracker) = &shared.tracker else {
        return;
    };
    loop {
        match tracker.next_step(route, caller) {
            Step::Done => return,
            Step::Submit => submit_ticket(shared, tracker, route),
            Step::Run(items) => {
                let failures = match caller {
                    Caller::Job(failures) => failures,
                    Caller::Owner => None,
                };
                run_detached(items, shared, failures);
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
    shared: &Arc<Shared<A, F, R>>,
    tracker: &Tracker<A, R>,
    route: &impl Route<'job>,
) where
    A: Send + 'job,
    F: Fn(A) -> U + Send + Sync + 'job,
    R: Route<'job> + 'job,
    U: Send + 'job,
{
    let submission = Arc::new(Submission::new());
    let ticket = MapJob {
        shared: Some(Arc::clone(shared)),
        ticket: Some(Arc::clone(&submission)),
    };
    let run = chunk_job(ticket, Chunk::Ticket);
    match route.submit(run, shared.origin, span::clone(&shared.span)) {
        // Detached.
        Ok(handle) => {
            drop(handle);
            if submission.accepted() == WasDropped(true) {
                tracker.drop_rest();
            }
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
struct Submission(AtomicU8);

const SUBMITTING: u8 = 0;
const ACCEPTED: u8 = 1;
const DROPPED: u8 = 2;

#[derive(PartialEq, Eq)]
#[must_use]
struct WasDropped(bool);

impl Submission {
    fn new() -> Self {
        Self(AtomicU8::new(SUBMITTING))
    }

    /// The ticket was accepted. Returns whether it was dropped unrun since.
    fn accepted(&self) -> WasDropped {
        // Relaxed: the state publishes nothing, and each of the two swaps sees the other or is seen.
        WasDropped(self.0.swap(ACCEPTED, Ordering::Relaxed) == DROPPED)
    }

    /// The ticket is dropped unrun. Returns whether it was accepted before.
    fn dropped(&self) -> bool {
        self.0.swap(DROPPED, Ordering::Relaxed) == ACCEPTED
    }
}

/// A job of a map, or a ticket. A [`Tracker`] counts it, if there is one. Dropping it unrun counts it
/// out, and drops the rest.
pub(super) struct MapJob<A, F, R> {
    /// `None` once it runs.
    shared: Option<Arc<Shared<A, F, R>>>,
    ticket: Option<Arc<Submission>>,
}

impl<A, F, R> MapJob<A, F, R> {
    /// Counts a new job, which has its items.
    pub(super) fn new(shared: &Arc<Shared<A, F, R>>) -> Self {
        if let Some(tracker) = &shared.tracker {
            tracker.progress.lock().in_flight += 1;
        }
        Self {
            shared: Some(Arc::clone(shared)),
            ticket: None,
        }
    }

    /// Runs the job. Before and after it, submits what is left of a detached map and finds room.
    pub(super) fn run<'job, U, T>(
        mut self,
        failures: Option<&ItemFailures>,
        work: impl FnOnce(&Shared<A, F, R>) -> T,
    ) -> T
    where
        A: Send + 'job,
        F: Fn(A) -> U + Send + Sync + 'job,
        R: Route<'job> + 'job,
        U: Send + 'job,
    {
        // This disarms the destructor.
        let shared = self.shared.take().expect("it was not run");
        if let Some(tracker) = &shared.tracker {
            // The permit of this job is free now, so more of the rest may find room.
            if tracker.has_rest() {
                drive(&shared, &tracker.route, Caller::Owner);
            }
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&shared)));
        end_job(shared, failures);
        outcome.unwrap_or_else(|payload| resume_unwind(payload))
    }
}

/// What a job with several items runs.
pub(super) enum Chunk<A> {
    /// Items whose results are requested.
    Items(DropEach<A>),
    /// Items of a detached map, whose results are dropped at once.
    Detached(DropEach<A>),
    /// Items of a detached map, which the job takes from the rest when it starts.
    Ticket,
}

/// Returns the closure of a job with several items. There is one type of closure for all kinds of
/// chunks, because each type costs every program that calls `map` much code.
pub(super) fn chunk_job<'job, A, F, R, U>(
    job: MapJob<A, F, R>,
    chunk: Chunk<A>,
) -> impl FnOnce(Option<&ItemFailures>) -> DropEach<Result<U, JoinError>> + Send + 'job
where
    A: Send + 'job,
    F: Fn(A) -> U + Send + Sync + 'job,
    R: Route<'job> + 'job,
    U: Send + 'job,
{
    move |failures| {
        job.run(failures, |shared| {
            let detached = match chunk {
                Chunk::Items(items) => return run_chunk(items, shared, failures),
                Chunk::Detached(mut items) => items.take(),
                Chunk::Ticket => shared.tracker.as_ref().map_or(Vec::new(), Tracker::redeem),
            };
            run_detached(detached, shared, failures);
            DropEach::new(Vec::new())
        })
    }
}

impl<A, F, R> Drop for MapJob<A, F, R> {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        if let Some(tracker) = &shared.tracker {
            let mut progress = tracker.progress.lock();
            progress.in_flight -= 1;
            progress.tickets -= usize::from(self.ticket.is_some());
            drop(progress);
            // A ticket that was never accepted is no reason to lose the rest: its submitter decides.
            if self.ticket.as_ref().is_none_or(|ticket| ticket.dropped()) {
                tracker.drop_rest();
            }
        }
        drop_catching("the destructor of map's function", shared);
    }
}

fn end_job<'job, A, F, R, U>(shared: Arc<Shared<A, F, R>>, failures: Option<&ItemFailures>)
where
    A: Send + 'job,
    F: Fn(A) -> U + Send + Sync + 'job,
    R: Route<'job> + 'job,
    U: Send + 'job,
{
    if let Some(tracker) = &shared.tracker {
        if tracker.end_job() {
            drive(&shared, &tracker.route, Caller::Job(failures));
        }
    }
    // This may be the last reference to the function, whose destructor may panic.
    drop_catching("the destructor of map's function", shared);
}

/// Calls the function for each item, and drops the results.
pub(super) fn run_detached<A, F, R, U>(
    items: Vec<A>,
    shared: &Shared<A, F, R>,
    failures: Option<&ItemFailures>,
) where
    F: Fn(A) -> U,
{
    for item in items {
        match catch(shared.origin, || (shared.function)(item)) {
            Ok(result) => drop_catching("the destructor of a result", result),
            Err(error) => match failures {
                Some(failures) => failures.record_detached(error, shared.origin),
                None => drop_catching::<JoinError>("a panic's payload", error),
            },
        }
    }
}

/// Calls the function for each item. A panic costs only the item that caused it.
fn run_chunk<A, F, R, U>(
    mut items: DropEach<A>,
    shared: &Shared<A, F, R>,
    failures: Option<&ItemFailures>,
) -> DropEach<Result<U, JoinError>>
where
    F: Fn(A) -> U,
{
    // Relaxed: see `Submitter::end`.
    let is_stopped = || shared.stop.load(Ordering::Relaxed);
    let mut results = Vec::with_capacity(items.len());
    let mut items = items.take().into_iter();
    while items.len() > 0 && !is_stopped() {
        // One `catch` serves all items up to the next panic.
        let run = catch(shared.origin, || {
            while !is_stopped() {
                let Some(item) = items.next() else {
                    return;
                };
                results.push(Ok((shared.function)(item)));
            }
        });
        // Invariant: one result for each item taken. The item that panicked has none yet.
        if let Err(error) = run {
            let item = results.len();
            results.push(Err(match failures {
                Some(failures) => {
                    failures.record(item, error, shared.origin);
                    // `Results` replaces this error by the recorded one.
                    JoinError::cancelled()
                }
                None => error,
            }));
        }
    }
    for item in items {
        drop_catching("the destructor of an item", item);
        results.push(Err(JoinError::cancelled()));
    }
    DropEach::new(results)
}
