//! The bookkeeping of a scope: which jobs failed unobserved, which handles were detached, and what
//! the end of the scope can run or waits for.
//!
//! This module does not decide when a scope ends. `erased.rs` counts the jobs and calls
//! [`ScopeData::help_or_sleep`] until none is pending.
//!
//! ```text
//!   a thread that submits         a worker, or any thread that runs or cancels the job
//!        │ track                     │ record_panic, record_unrun
//!        │ detach                    │ wake_waiter, when no job is pending
//!        ▼                           ▼
//!   ┌─ ScopeState ──────────────────────────────────────┐
//!   │ to_help, wait_targets, detached, failures, waiter │
//!   └───────────────────────────────────────────────────┘
//!        ▲
//!        │ help_or_sleep; then join_detached, take_failures
//!   the end of the scope
//! ```

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Weak;
// Not the model checker's: numbers order submissions, and nothing else.
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};

use crate::error::{Deadlock, JoinError};
use crate::park::helping::help;
use crate::park::parker::Parker;
use crate::park::wait_graph::{BlockedGuard, Unreachable, enter_wait_for_scope};
use crate::task::cell::{RawTask, cancel_if_queued};
use crate::task::context::{ThreadId, may_be_waited_for};
use crate::task::join_handle::JoinHandle;
use crate::task::state::{Cancel, Origin};
use crate::util::sync::{Arc, Mutex};
use crate::util::unwind::{drop_catching, drop_payload, emit, panic_message};

/// The lists of jobs and handles are pruned no earlier than at this length.
const MIN_PRUNE: usize = 64;

/// Marks the number of a job that may be skipped. Failures of its items are reported after those of
/// all other jobs.
const HELPER: u64 = 1 << 63;

/// What a scope, its handles and its jobs share.
pub(super) struct ScopeData {
    /// Whether the scope was opened in a job or on a worker. Then its end may run jobs itself, and
    /// its wait may be part of a cycle. Never changes.
    tracks_jobs: bool,
    /// Counts the jobs that were submitted, and so numbers them. Changed by `next_number`.
    submitted: AtomicU64,
    // Lock order: this lock, then the lock of a job. No user code runs under it: what has to be
    // woken or dropped is taken out and handled after the unlock.
    state: Mutex<ScopeState>,
}

#[derive(Default)]
struct ScopeState {
    /// The failures, by job and item. The thread that ends the job adds one, a caller that gets the
    /// outcome takes it, and the end of the scope takes the others.
    failures: BTreeMap<FailureKey, Failure>,
    /// Jobs whose outcome was taken before it was recorded. That happens while a destructor of the
    /// job's closure runs. `observe` adds them, and `record` removes them.
    observed_early: BTreeSet<u64>,
    /// Jobs that the end of the scope has not tried to run. `track` adds them; the end of the scope
    /// pops them, oldest first. Some may have started.
    to_help: VecDeque<Weak<dyn RawTask>>,
    /// Jobs that the end of the scope waits for, for the detection of cycles. `track` adds and
    /// prunes them. Some may have finished.
    wait_targets: Vec<Weak<dyn RawTask>>,
    /// The length of `wait_targets` at which `track` prunes both lists next.
    prune_jobs_at: usize,
    /// Handles that were dropped before they were joined. `detach` adds and prunes them; the end of
    /// the scope joins them. Some of their jobs may have finished.
    detached: Vec<JoinHandle<()>>,
    /// The length of `detached` above which `detach` prunes it next.
    prune_detached_at: usize,
    /// Wakes the end of the scope, which sets it before it sleeps. A thread that adds to `to_help`
    /// or ends the last pending job takes it.
    waiter: Option<Waker>,
    /// Set while the end of the scope cancels jobs that no worker can reach.
    giving_up: Option<GivingUp>,
}

/// The end of a scope, while it cancels jobs that no worker can reach.
#[derive(Clone, Copy)]
struct GivingUp {
    thread: ThreadId,
    /// The job that is at the end of the scope, if it is a job that is.
    waiting: Option<Origin>,
}

/// The number of a job, and of the item in a job that has several. Failures are reported in this
/// order.
type FailureKey = (u64, usize);

/// Why a job or an item has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// Of a panic, the error has the payload. The error that the pool's handle returns has a
    /// [`StandIn`].
    Error(JoinError, Origin),
    NotRun(Origin),
    /// The end of the scope has cancelled it, because no worker could reach it.
    Unreachable {
        waiting: Option<Origin>,
        origin: Origin,
    },
}

/// The payload of a panic whose own payload is in a [`Failure`], and has no text.
struct StandIn;

impl Failure {
    /// Panics with the payload of the job, or with a message if the job did not run.
    #[track_caller]
    pub(super) fn resume(self) -> ! {
        match self {
            Self::Error(error, origin) => match error.try_into_panic() {
                Ok(payload) => resume_unwind(payload),
                Err(error) => {
                    let text = failed(origin, &error);
                    drop_catching("the destructor of an error", error);
                    panic!("{text}");
                }
            },
            Self::NotRun(origin) => panic!("{}", not_run(origin)),
            Self::Unreachable { waiting, origin } => panic!("{}", unreachable(waiting, origin)),
        }
    }

    /// Reports the failure through `tracing`.
    pub(super) fn report(self) {
        match self {
            Self::Error(error, origin) => match error.try_into_panic() {
                Ok(payload) => {
                    emit(|| {
                        let panic = panic_message(&*payload).unwrap_or("(no text)");
                        tracing::error!(
                            panic,
                            job = %origin,
                            "a scoped job that was not joined panicked (submitted at {origin}): {panic}"
                        );
                    });
                    drop_payload(payload);
                }
                Err(error) => {
                    emit(|| tracing::error!(job = %origin, "{}", failed(origin, &error)));
                    drop_catching("the destructor of an error", error);
                }
            },
            Self::NotRun(origin) => emit(|| {
                tracing::error!(job = %origin, "{}", not_run(origin));
            }),
            Self::Unreachable { waiting, origin } => emit(|| {
                tracing::error!(job = %origin, "{}", unreachable(waiting, origin));
            }),
        }
    }
}

fn failed(origin: Origin, error: &JoinError) -> String {
    format!("a scoped job that was not joined failed (submitted at {origin}): {error}")
}

fn unreachable(waiting: Option<Origin>, origin: Origin) -> String {
    let waiting = match waiting {
        Some(waiting) => format!("the job submitted at {waiting}"),
        None => "a thread".to_owned(),
    };
    format!(
        "deadlock: {waiting} waits at the end of a scope for the scoped job submitted at {origin}, which \
         was queued while all workers of its pool waited, and did not run. Open the scope outside of \
         jobs, or allow the pool more workers"
    )
}

fn not_run(origin: Origin) -> String {
    format!(
        "a scoped job that was not joined did not run (submitted at {origin}): it was cancelled \
         or expired, or the pool was shut down, broken, or got no thread"
    )
}

impl ScopeData {
    pub(super) fn new(tracks_jobs: bool) -> Self {
        Self {
            tracks_jobs,
            submitted: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Returns the number of the next job.
    pub(super) fn next_number(&self) -> u64 {
        self.submitted.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the number of the next job that may be skipped: nothing is lost if it does not run.
    pub(super) fn next_helper_number(&self) -> u64 {
        self.next_number() | HELPER
    }

    /// Adds a submitted job to those that the end of the scope may run and waits for.
    pub(super) fn track(&self, handle: &JoinHandle<()>) {
        if !self.tracks_jobs {
            return;
        }
        let job = Arc::downgrade(&handle.raw());
        let mut state = self.state.lock();
        let deferred_drops = state.prune_jobs();
        state.to_help.push_back(Weak::clone(&job));
        state.wait_targets.push(job);
        let waiter = state.waiter.take();
        // The drop of the last reference to a job can run user code, so it follows the unlock.
        drop(state);
        drop(deferred_drops);
        // The end of the scope may be asleep, and the only thread that can run this job.
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Takes over the handle of a job that nothing else will join.
    fn detach(&self, handle: JoinHandle<()>) {
        let mut state = self.state.lock();
        state.detached.push(handle);
        let deferred_drops = state.prune_detached();
        drop(state);
        drop(deferred_drops);
    }

    /// Records the panic of a job. Returns the payload to unwind with: the pool reports its text,
    /// and the handle replaces it by the recorded one.
    pub(super) fn record_panic(
        &self,
        number: u64,
        origin: Origin,
        payload: Box<dyn Any + Send>,
    ) -> Box<dyn Any + Send> {
        let stand_in: Box<dyn Any + Send> = match panic_message(&*payload) {
            Some(text) => Box::new(text.to_owned()),
            None => Box::new(StandIn),
        };
        let error = JoinError::panicked(payload, origin);
        self.record((number, 0), Failure::Error(error, origin));
        stand_in
    }

    /// Records that a job will never run.
    pub(super) fn record_unrun(&self, number: u64, origin: Origin) {
        if number & HELPER != 0 {
            return;
        }
        let giving_up = self.state.lock().giving_up;
        self.record(
            (number, 0),
            match giving_up.filter(|end| end.thread == ThreadId::current()) {
                Some(GivingUp { waiting, .. }) => Failure::Unreachable { waiting, origin },
                None => Failure::NotRun(origin),
            },
        );
    }

    fn record(&self, key: FailureKey, failure: Failure) {
        let mut state = self.state.lock();
        let unwanted = match state.observed_early.remove(&key.0) {
            true => Some(failure),
            false => state.failures.insert(key, failure),
        };
        drop(state);
        drop_catching("a panic's payload", unwanted);
    }

    /// Takes the failure of a job or an item, because the caller learns of it: it does not come out
    /// of the scope.
    fn observe(&self, key: FailureKey) -> Option<Failure> {
        self.state.lock().failures.remove(&key)
    }

    /// Takes the failure of a job whose handle has returned `error`. Returns the error for the
    /// caller.
    fn observe_error(&self, number: u64, error: JoinError) -> JoinError {
        // A deadlock is an error of that wait. The outcome of the job was not observed.
        if error.is_deadlock() {
            return error;
        }
        let mut state = self.state.lock();
        let failure = state.failures.remove(&(number, 0));
        if failure.is_none() {
            // This thread is cancelling the job, and a destructor of its closure has joined it.
            state.observed_early.insert(number);
        }
        drop(state);
        match failure {
            Some(Failure::Error(own, _)) => own,
            Some(Failure::NotRun(_) | Failure::Unreachable { .. }) | None => error,
        }
    }

    /// Takes the failures that were not observed, in the order in which the jobs were submitted.
    pub(super) fn take_failures(&self) -> impl Iterator<Item = Failure> + use<> {
        mem::take(&mut self.state.lock().failures).into_values()
    }

    /// Runs queued jobs of the scope, or sleeps until there may be something to do.
    ///
    /// The end of the scope calls this in a loop until no job is pending. `is_complete` tells
    /// whether that is the case. Wake-ups may be spurious. If no worker can reach queued jobs of
    /// the scope, this cancels them.
    pub(super) fn help_or_sleep(&self, is_complete: impl Fn() -> bool) {
        while let Some(job) = self.next_to_help() {
            help(&job);
        }
        let parker = Parker::new();
        let waiter = parker.waker().clone();
        let mut state = self.state.lock();
        if !state.to_help.is_empty() {
            return;
        }
        let replaced = state.waiter.replace(waiter);
        let wait_targets: Vec<_> = state
            .wait_targets
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        drop(state);
        drop(replaced);
        // Invariant: this check follows the registration. A job that ends between the two finds the
        // waiter or is seen here. So the wake-up of the last job cannot be lost.
        if is_complete() {
            return;
        }
        let mut guard = None;
        if may_be_waited_for() {
            match enter_wait_for_scope(wait_targets, parker.waker()) {
                Ok(blocked) => guard = Some(blocked),
                Err(unreachable) => return self.cancel_unreachable(unreachable),
            }
        }
        parker.park_only(None);
        // User code may run next, and no thread may be in the wait graph while it runs that.
        let unreachable = guard.and_then(BlockedGuard::leave_scope);
        parker.run_deferred();
        if let Some(unreachable) = unreachable {
            self.cancel_unreachable(unreachable);
        }
    }

    /// Cancels those of these jobs that are still queued: no worker can reach them. They are
    /// failures of the scope.
    fn cancel_unreachable(&self, (deadlock, jobs): Unreachable) {
        let waiting = match deadlock {
            Deadlock::NoWorker { waiting, .. } => waiting,
            _ => None,
        };
        let thread = ThreadId::current();
        self.state.lock().giving_up = Some(GivingUp { thread, waiting });
        for job in jobs {
            cancel_if_queued(&*job);
            // It may be the last reference.
            drop_catching("a destructor", job);
        }
        self.state.lock().giving_up = None;
    }

    fn next_to_help(&self) -> Option<Arc<dyn RawTask>> {
        let mut state = self.state.lock();
        loop {
            let job = state.to_help.pop_front()?.upgrade();
            if job.is_some() {
                return job;
            }
        }
    }

    /// Wakes the end of the scope if it sleeps: no job is pending.
    pub(super) fn wake_waiter(&self) {
        let waiter = self.state.lock().waiter.take();
        // A waker of this crate, which only unparks a thread.
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Blocks until the pool has counted the jobs of all detached handles. Leaked handles are not
    /// among them.
    ///
    /// The jobs themselves have ended by now.
    pub(super) fn join_detached(&self) {
        let detached = mem::take(&mut self.state.lock().detached);
        for handle in detached {
            // The failure, if any, was recorded when the job ended.
            drop_catching("a panic's payload", handle.join());
        }
    }
}

impl ScopeState {
    /// Removes jobs that can no longer be run or waited for, once `wait_targets` has doubled. So
    /// the amortised cost per job is constant.
    ///
    /// Returns references that the caller drops after the unlock: each may be the last one.
    fn prune_jobs(&mut self) -> Vec<Arc<dyn RawTask>> {
        let mut deferred_drops = Vec::new();
        if self.wait_targets.len() < self.prune_jobs_at {
            return deferred_drops;
        }
        self.wait_targets.retain(|job| {
            let job = job.upgrade();
            let is_unfinished = job
                .as_ref()
                .is_some_and(|job| job.state(|state| state.is_unfinished()));
            deferred_drops.extend(job);
            is_unfinished
        });
        self.to_help.retain(|job| {
            let job = job.upgrade();
            let is_queued = job
                .as_ref()
                .is_some_and(|job| job.state(|state| state.is_queued()));
            deferred_drops.extend(job);
            is_queued
        });
        self.prune_jobs_at = MIN_PRUNE.max(2 * self.wait_targets.len());
        deferred_drops
    }

    /// Removes the handles of finished jobs, once `detached` has doubled. Returns them, to be
    /// dropped after the unlock.
    fn prune_detached(&mut self) -> Vec<JoinHandle<()>> {
        if self.detached.len() <= self.prune_detached_at {
            return Vec::new();
        }
        let all = mem::take(&mut self.detached);
        let (finished, unfinished) = all.into_iter().partition(JoinHandle::is_finished);
        self.detached = unfinished;
        self.prune_detached_at = MIN_PRUNE.max(2 * self.detached.len());
        finished
    }
}

/// The pool's handle of a scoped job. Its drop detaches the job: the end of the scope joins it.
pub(super) struct DetachOnDrop {
    /// `None` once it was taken to be joined.
    handle: Option<JoinHandle<()>>,
    /// Whether a poll has taken the outcome. Then the handle can no longer be joined.
    taken: bool,
    data: Arc<ScopeData>,
    /// The number under which a failure of the job is recorded.
    number: u64,
}

impl DetachOnDrop {
    pub(super) fn new(handle: JoinHandle<()>, data: Arc<ScopeData>, number: u64) -> Self {
        Self {
            handle: Some(handle),
            taken: false,
            data,
            number,
        }
    }

    pub(super) fn get(&self) -> &JoinHandle<()> {
        self.handle.as_ref().expect("the handle was not taken")
    }

    /// Returns whether a poll has taken the outcome.
    pub(super) fn is_taken(&self) -> bool {
        self.taken
    }

    /// Blocks until the job has ended. A failure of the job does not come out of the scope.
    #[track_caller]
    pub(super) fn join(mut self) -> Result<(), JoinError> {
        let handle = self.handle.take().expect("the handle was not taken");
        let outcome = handle.join();
        outcome.map_err(|error| self.data.observe_error(self.number, error))
    }

    /// Polls the handle. If it is ready, a failure of the job does not come out of the scope.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), JoinError>> {
        let handle = self.handle.as_mut().expect("the handle was not taken");
        let outcome = ready!(Pin::new(handle).poll(context));
        self.taken = true;
        Poll::Ready(outcome.map_err(|error| self.data.observe_error(self.number, error)))
    }

    /// Cancels the job if it is queued. Then the cancel does not come out of the scope.
    pub(super) fn cancel(&self) -> Cancel {
        let cancel = self.get().try_cancel();
        if cancel == Cancel::DropClosure {
            self.observe_cancel();
        }
        cancel
    }

    /// Cancels the job if it is queued, and sets no cancel request if it runs. The cancel does not
    /// come out of the scope.
    pub(super) fn cancel_if_queued(&self) {
        if self.get().cancel_if_queued() {
            self.observe_cancel();
        }
    }

    fn observe_cancel(&self) {
        let cancelled = self.data.observe((self.number, 0));
        drop_catching("a panic's payload", cancelled);
    }

    /// Returns where the panics of the job's items are recorded.
    pub(super) fn item_failures(&self) -> ItemFailures {
        ItemFailures {
            data: Arc::clone(&self.data),
            job: self.number,
        }
    }
}

impl Drop for DetachOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            if !self.taken {
                // A handle that is gone wakes nothing.
                handle.remove_waker();
                self.data.detach(handle);
            }
        }
    }
}

/// Where a scoped job with several items records which of them have no result.
///
/// The errors are here and not among the results, so that they come out of the scope if the results
/// are dropped or leaked.
#[derive(Clone)]
pub(crate) struct ItemFailures {
    data: Arc<ScopeData>,
    /// The number of the job.
    job: u64,
}

impl ItemFailures {
    pub(super) fn new(data: Arc<ScopeData>, job: u64) -> Self {
        Self { data, job }
    }

    /// Records the panic of an item, or another reason why it has no result.
    pub(crate) fn record(&self, item: usize, error: JoinError, origin: Origin) {
        (self.data).record((self.job, item), Failure::Error(error, origin));
    }

    /// Records the same for an item whose result nothing will take.
    pub(crate) fn record_detached(&self, error: JoinError, origin: Origin) {
        let items = (self.job, 0)..=(self.job, usize::MAX);
        let state = self.data.state.lock();
        let last = state.failures.range(items).next_back();
        // Invariant: the job runs on one thread, so no other item is added meanwhile. Item 0 is
        // left to the panic of the job itself.
        let item = last.map_or(1, |(&(_, item), _)| item + 1);
        drop(state);
        self.record(item, error, origin);
    }

    /// Takes the error of an item, if it has one: it does not come out of the scope.
    pub(crate) fn take(&self, item: usize) -> Option<JoinError> {
        match self.data.observe((self.job, item))? {
            Failure::Error(error, _) => Some(error),
            Failure::NotRun(_) | Failure::Unreachable { .. } => None,
        }
    }
}

/// A scoped job that the pool did not accept. Unless it is [taken](Self::observe), it comes out of
/// the scope.
pub(crate) struct RefusedJob {
    data: Arc<ScopeData>,
    number: u64,
}

impl RefusedJob {
    pub(super) fn new(data: Arc<ScopeData>, number: u64) -> Self {
        Self { data, number }
    }

    /// The caller learns of the refusal.
    pub(crate) fn observe(self) {
        drop(self.data.observe((self.number, 0)));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::Location;
    use std::sync::Mutex;
    use std::sync::mpsc;
    use std::thread;

    use futures::task::noop_waker;

    use super::*;
    use crate::{Executor, ExecutorExt, InlineExecutor, Job};

    /// Keeps jobs queued.
    #[derive(Default)]
    struct Held(Mutex<Vec<Job>>);

    impl Executor for Held {
        fn execute(&self, job: Job) {
            self.0.lock().unwrap().push(job);
        }
    }

    #[test]
    fn failures_come_in_the_order_of_submission_without_the_observed_ones() {
        let data = Arc::new(ScopeData::new(false));
        let here = Location::caller();
        data.record_unrun(3, here);
        data.record_panic(1, here, Box::new("one"));
        let stand_in = data.record_panic(2, here, Box::new(String::from("two")));
        let seen = data.observe_error(2, JoinError::panicked(stand_in, here));
        assert_eq!(seen.into_panic().downcast_ref(), Some(&String::from("two")));
        let items = ItemFailures::new(Arc::clone(&data), 2);
        let error = |text: &'static str| JoinError::panicked(Box::new(text), here);
        items.record(5, error("five"), here);
        items.record_detached(error("six"), here);
        assert!(items.take(4).is_none());
        assert!(items.take(5).unwrap().is_panic());
        let failures: Vec<_> = data.take_failures().collect();
        assert!(
            matches!(&failures[..], [
                Failure::Error(one, _),
                Failure::Error(six, _),
                Failure::NotRun(_),
            ] if one.to_string().contains("one") && six.to_string().contains("six")),
            "{failures:?}"
        );
        assert!(data.take_failures().next().is_none());
    }

    #[test]
    fn an_outcome_that_was_taken_before_it_is_recorded_is_no_failure() {
        let data = ScopeData::new(false);
        let error = data.observe_error(1, JoinError::cancelled());
        assert!(error.is_cancelled());
        data.record_unrun(1, Location::caller());
        assert!(data.take_failures().next().is_none());
        // A deadlock says nothing of the job.
        data.observe_error(2, JoinError::deadlock(crate::error::Deadlock::Initializer));
        data.record_unrun(2, Location::caller());
        assert_eq!(data.take_failures().count(), 1);
    }

    #[test]
    fn a_dropped_handle_is_detached_and_a_taken_one_is_not() {
        let (data, held) = (Arc::new(ScopeData::new(false)), Held::default());
        let handle = |number| DetachOnDrop::new(held.submit(|| ()), Arc::clone(&data), number);
        let (dropped, mut taken) = (handle(1), handle(2));
        drop(dropped);
        held.0.lock().unwrap().pop().unwrap().run();
        assert!(
            taken
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        );
        drop(taken);
        assert_eq!(data.state.lock().detached.len(), 1);
        held.0.lock().unwrap().drain(..).for_each(Job::run);
        data.join_detached();
        assert!(data.state.lock().detached.is_empty());
    }

    #[test]
    fn detached_handles_of_finished_jobs_do_not_accumulate() {
        let (data, held) = (ScopeData::new(false), Held::default());
        data.detach(held.submit(|| ()));
        (0..1_000).for_each(|_| data.detach(InlineExecutor.submit(|| ())));
        let detached = mem::take(&mut data.state.lock().detached);
        assert!(detached.len() <= MIN_PRUNE + 1);
        assert!(detached.iter().any(|handle| !handle.is_finished()));
    }

    #[test]
    fn finished_jobs_do_not_accumulate_and_queued_ones_stay() {
        let (data, held) = (ScopeData::new(true), Held::default());
        let handles: Vec<_> = (0..100).map(|_| held.submit(|| ())).collect();
        handles.iter().for_each(|handle| data.track(handle));
        (0..1_000).for_each(|_| data.track(&InlineExecutor.submit(|| ())));
        let state = data.state.lock();
        assert!(state.wait_targets.len() <= 2 * handles.len());
        assert!(state.to_help.iter().filter_map(Weak::upgrade).count() >= handles.len());
    }

    #[test]
    fn a_scope_outside_of_workers_tracks_no_jobs() {
        let data = ScopeData::new(false);
        data.track(&InlineExecutor.submit(|| ()));
        let state = data.state.lock();
        assert!(state.to_help.is_empty() && state.wait_targets.is_empty());
    }

    #[test]
    fn a_job_that_comes_late_wakes_the_end_of_the_scope() {
        let (data, held) = (ScopeData::new(true), Held::default());
        data.state.lock().waiter = Some(noop_waker());
        data.track(&held.submit(|| ()));
        assert!(data.state.lock().waiter.is_none());
    }

    #[test]
    fn the_end_of_the_scope_does_not_sleep_if_no_job_is_pending() {
        ScopeData::new(true).help_or_sleep(|| true);
    }

    #[test]
    fn a_wake_up_between_the_registration_and_the_sleep_is_not_lost() {
        let data = ScopeData::new(false);
        let (registered, is_registered) = mpsc::channel();
        thread::scope(|threads| {
            threads.spawn(|| {
                data.help_or_sleep(|| registered.send(()).is_err());
            });
            is_registered.recv().unwrap();
            data.wake_waiter();
        });
    }
}
