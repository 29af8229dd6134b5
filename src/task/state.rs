//! The states of a task, and the transitions between them. Nothing here knows the closure or the
//! result: what must be dropped, called or woken because of a transition is returned to the caller,
//! which does it after the task's lock is released.
//!
//! ```text
//!              start                    finish                  take
//!   Queued ────────────► Running ─────────────────► Finished ────────► Consumed
//!      │                                             ▲  │  ▲
//!      └────────────► Cancelling ────────────────────┘  └──┘ lend, give_back
//!       cancel, refuse              finish            InCallback
//! ```
//!
//! Without a handle, `finish` leads to Consumed. So does `reclaim`, when a closed pool gives a
//! closure back to the submitter.

use std::mem;
use std::panic::Location;
use std::task::Waker;

use crate::task::context::ThreadId;
use crate::util::fault::fault_or;

/// Where a job was submitted.
pub(crate) type Origin = &'static Location<'static>;

/// The state of a task. Guarded by the task's lock.
pub(crate) struct State {
    stage: Stage,
    /// The handle still exists, so the outcome is kept for it. Reset by [`detach`](Self::detach).
    join_interest: bool,
    /// Which kind of waiter `waker` wakes.
    waiter: Waiter,
    /// While queued: the place in the order of submission, modulo 2³².
    /// While running or cancelling: the thread that does it.
    order_or_thread: u32,
    origin: Origin,
    /// The waiter registered last. Only until the task is finished.
    waker: Option<Waker>,
}

/// Where a task is on its way from `submit` to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No thread has started it.
    Queued(Mark),
    /// A thread runs the closure, or has run it and now runs the callbacks.
    Running { cancel_requested: bool },
    /// The task will never start. A thread drops the closure, or is about to publish the error.
    Cancelling(OutcomeKind),
    /// The outcome is visible and waits for the handle.
    Finished(OutcomeKind),
    /// A callback added after the end borrows the outcome, and gives it back.
    InCallback(OutcomeKind),
    /// The outcome was handed over, or dropped because the handle was gone.
    Consumed(OutcomeKind),
}

/// What the pool's probes know of a queued task: see `pool/blocked.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    None,
    /// A worker's `block_on` has polled it.
    Candidate,
    /// A probe has woken the future of that `block_on`, which has not polled it since.
    Probed,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutcomeKind {
    Returned,
    Panicked,
    Cancelled,
    /// It did not start before its deadline.
    Expired,
    /// It did not run, for another reason than these: the pool was shut down or broken, or no
    /// thread could be started.
    NotRun,
    /// It has no result, for a reason that only tasks have: see [`FailureCause`].
    ///
    /// [`FailureCause`]: crate::error::FailureCause
    Failed,
}

impl OutcomeKind {
    #[cfg(feature = "metrics")]
    pub(crate) const ALL: [Self; 6] = [
        Self::Returned,
        Self::Panicked,
        Self::Cancelled,
        Self::Expired,
        Self::NotRun,
        Self::Failed,
    ];

    /// Returns the word for it in events and in exported metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Returned => "completed",
            Self::Panicked => "panicked",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::NotRun => "not_run",
            Self::Failed => "failed",
        }
    }
}

/// What a registered waker wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A thread parked in `join`. It stays registered until it has the outcome or gives up.
    Join,
    /// A thread parked in this crate's `block_on`. It polls, and so registers, after each wake-up.
    BlockOn,
    /// User code: a runtime's task, or a combinator. It polls after each wake-up, too.
    Task,
}

/// The answer to [`State::start`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Start {
    /// The caller takes the closure and runs it.
    Run,
    NotQueued,
}

/// The answer to [`State::cancel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Cancel {
    /// The caller drops the closure, then publishes the error.
    DropClosure,
    /// The task is cancelled already, or a thread is cancelling it.
    AlreadyCancelled,
    /// The task runs: its cancel request is set.
    Requested,
    /// The task runs, its cancel request is set, and its executor stops it.
    Stopping,
    /// It is too late.
    Finished,
}

impl Cancel {
    pub(crate) fn of_finished(kind: OutcomeKind) -> Self {
        match kind {
            OutcomeKind::Cancelled => Self::AlreadyCancelled,
            _ => Self::Finished,
        }
    }

    /// Returns the answer of the handle's `cancel`.
    pub(crate) fn is_cancelled(self) -> bool {
        match self {
            Self::DropClosure | Self::AlreadyCancelled | Self::Stopping => true,
            Self::Requested | Self::Finished => false,
        }
    }
}

/// What polls a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Poller {
    /// A `block_on` without a timeout, on one of the pool's own workers.
    BlockOn,
    /// Anything else on such a worker.
    Worker,
    Elsewhere,
}

/// The answer to [`State::note_poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Polled {
    /// The waker is registered already, so that it need not be cloned. Then the task is unfinished,
    /// since its end takes the waker.
    pub(crate) will_wake: bool,
    /// The place in the order of submission, if the task is queued.
    pub(crate) order: Option<u32>,
    /// The poll is the first one by a worker's `block_on` since the task was polled elsewhere.
    pub(crate) is_first: bool,
    /// The poll comes from a probe.
    pub(crate) is_probed: bool,
}

/// The answer to [`State::register`].
#[derive(Debug)]
#[must_use]
pub(crate) enum Register {
    /// The waker will be woken. The replaced one is dropped by the caller, outside locks.
    Registered { replaced: Option<(Waker, Waiter)> },
    /// The task is finished, so the waker comes back.
    Finished(Option<Waker>),
}

/// The answer to [`State::take`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Take {
    /// The caller takes the outcome.
    Outcome,
    NotYet,
    /// This very thread is about to publish that the task was cancelled.
    CancelledHere,
    AlreadyTaken,
}

/// The answer to [`State::lend`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Lend {
    /// The caller takes the outcome out and calls [`State::give_back`] afterwards.
    Outcome,
    /// The thread that ends the task, or has the outcome lent, runs the callback.
    Later,
    AlreadyTaken,
}

impl State {
    pub(crate) fn queued(origin: Origin) -> Self {
        Self::at(Stage::Queued(Mark::None), origin)
    }

    /// Returns the place in the order of submission, if the task is queued.
    pub(crate) fn order(&self) -> Option<u32> {
        self.is_queued().then_some(self.order_or_thread)
    }

    /// Sets the place in the order of submission.
    pub(crate) fn set_order(&mut self, order: u32) {
        if self.is_queued() {
            self.order_or_thread = order;
        }
    }

    /// The state of a task that was refused before it was queued.
    pub(crate) fn refused(origin: Origin) -> Self {
        Self::at(Stage::Finished(OutcomeKind::NotRun), origin)
    }

    fn at(stage: Stage, origin: Origin) -> Self {
        Self {
            stage,
            join_interest: true,
            waiter: Waiter::Task,
            order_or_thread: 0,
            origin,
            waker: None,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.stage, Stage::Queued(_))
    }

    /// Returns false once the outcome is visible.
    pub(crate) fn is_unfinished(&self) -> bool {
        matches!(
            self.stage,
            Stage::Queued(_) | Stage::Running { .. } | Stage::Cancelling(_)
        )
    }

    pub(crate) fn has_join_interest(&self) -> bool {
        self.join_interest
    }

    /// Returns false if the task is finished, or if waiting for it would be waiting for `thread`
    /// itself, which is cancelling it.
    pub(crate) fn must_wait(&self, thread: impl FnOnce() -> ThreadId) -> bool {
        match self.stage {
            Stage::Cancelling(_) => self.order_or_thread != thread().0,
            _ => self.is_unfinished(),
        }
    }

    /// Returns the thread that runs or cancels the task at the moment, if it is known.
    pub(crate) fn running_thread(&self) -> Option<ThreadId> {
        match self.stage {
            Stage::Running { .. } | Stage::Cancelling(_) => {
                Some(ThreadId(self.order_or_thread)).filter(|thread| *thread != ThreadId::UNKNOWN)
            }
            _ => None,
        }
    }

    /// Queued → Running, on `thread`.
    pub(crate) fn start(&mut self, thread: ThreadId) -> Start {
        if !self.is_queued() {
            return Start::NotQueued;
        }
        self.stage = Stage::Running {
            cancel_requested: false,
        };
        self.order_or_thread = thread.0;
        Start::Run
    }

    /// Queued → Cancelling, by the handle's `cancel` on `thread`; sets the request if it runs.
    pub(crate) fn cancel(&mut self, thread: ThreadId) -> Cancel {
        match self.stage {
            Stage::Queued(_) => {
                self.stage = Stage::Cancelling(OutcomeKind::Cancelled);
                self.order_or_thread = thread.0;
                Cancel::DropClosure
            }
            Stage::Running { .. } => {
                // The job reads this with `cancel_requested`; only a closure that looks at it
                // stops.
                self.stage = Stage::Running {
                    cancel_requested: true,
                };
                fault_or!(
                    "cancel_of_a_running_job_succeeds": Cancel::AlreadyCancelled;
                    Cancel::Requested
                )
            }
            Stage::Cancelling(kind)
            | Stage::Finished(kind)
            | Stage::InCallback(kind)
            | Stage::Consumed(kind) => Cancel::of_finished(kind),
        }
    }

    /// Queued → Cancelling, by `thread`, which will publish an error of `kind`. Returns false if
    /// the task is no longer queued.
    pub(crate) fn refuse(&mut self, kind: OutcomeKind, thread: ThreadId) -> bool {
        let queued = self.is_queued();
        if queued {
            self.stage = Stage::Cancelling(kind);
            self.order_or_thread = thread.0;
        }
        queued
    }

    /// Queued → Consumed: the closure goes back to the caller of a `submit` that failed.
    pub(crate) fn reclaim(&mut self) {
        debug_assert!(self.is_queued(), "only an unseen task is reclaimed");
        self.stage = Stage::Consumed(OutcomeKind::NotRun);
    }

    /// Returns whether the end of the task wakes user code.
    pub(crate) fn wakes_user_code(&self) -> bool {
        self.waker.is_some() && self.waiter == Waiter::Task
    }

    /// Running, Cancelling → Finished; or Consumed, if the handle is gone. Returns the waker, to be
    /// woken after the lock is released.
    pub(crate) fn finish(&mut self, kind: OutcomeKind) -> Option<Waker> {
        // Invariant: a task without a handle never holds an outcome.
        self.stage = if self.join_interest {
            Stage::Finished(kind)
        } else {
            Stage::Consumed(kind)
        };
        self.waker.take()
    }

    /// Finished → Consumed, by the handle on `thread`.
    pub(crate) fn take(&mut self, thread: impl FnOnce() -> ThreadId) -> Take {
        match self.stage {
            Stage::Finished(kind) => {
                self.stage = Stage::Consumed(kind);
                Take::Outcome
            }
            Stage::Consumed(_) => Take::AlreadyTaken,
            // The error is not there yet, and this thread would wait for itself.
            Stage::Cancelling(_) if self.order_or_thread == thread().0 => Take::CancelledHere,
            _ => Take::NotYet,
        }
    }

    /// Finished → InCallback, for a callback that was added after the end.
    pub(crate) fn lend(&mut self) -> Lend {
        match self.stage {
            Stage::Finished(kind) => {
                self.stage = Stage::InCallback(kind);
                Lend::Outcome
            }
            Stage::Consumed(_) => Lend::AlreadyTaken,
            _ => Lend::Later,
        }
    }

    /// InCallback → Finished.
    pub(crate) fn give_back(&mut self) {
        if let Stage::InCallback(kind) = self.stage {
            self.stage = Stage::Finished(kind);
        }
    }

    /// Registers `waker` in place of the last one, or returns it if the task is finished.
    pub(crate) fn register(&mut self, waker: Option<Waker>, waiter: Waiter) -> Register {
        // Invariant: a waker is stored only while the task is unfinished, under the lock that ends
        // it. So the end either finds the waker, or comes first and is seen here.
        if fault_or!("register_ignores_the_stage": false; !self.is_unfinished()) {
            return Register::Finished(waker);
        }
        if fault_or!("register_keeps_the_first_waker": self.waker.is_some(); false) {
            return Register::Registered {
                replaced: waker.map(|waker| (waker, waiter)),
            };
        }
        let replaced = mem::replace(&mut self.waker, waker).map(|waker| (waker, self.waiter));
        self.waiter = waiter;
        Register::Registered { replaced }
    }

    /// Removes the waker, which the caller drops outside the lock: what polled no longer waits.
    pub(crate) fn remove_waker(&mut self) -> Option<Waker> {
        // A worker that waits for the task later makes it a candidate anew, and is probed soon.
        if let Stage::Queued(mark) = &mut self.stage {
            *mark = Mark::None;
        }
        self.waker.take()
    }

    /// Returns whether `waker` is registered already.
    pub(crate) fn will_wake(&self, waker: &Waker) -> bool {
        self.waker.as_ref().is_some_and(|own| own.will_wake(waker))
    }

    /// Notes that the handle is polled.
    pub(crate) fn note_poll(&mut self, waker: &Waker, poller: Poller) -> Polled {
        let mut polled = Polled {
            will_wake: self.will_wake(waker),
            order: None,
            is_first: false,
            is_probed: false,
        };
        if let Stage::Queued(mark) = &mut self.stage {
            polled.order = Some(self.order_or_thread);
            // A probe is answered by the poll that it causes, or by none.
            match poller {
                Poller::BlockOn => {
                    polled.is_first = *mark == Mark::None;
                    polled.is_probed = *mark == Mark::Probed;
                    *mark = Mark::Candidate;
                }
                Poller::Worker => {}
                Poller::Elsewhere => *mark = Mark::None,
            }
        }
        polled
    }

    /// The handle goes away. Returns whether the caller must drop the outcome, and the waker.
    pub(crate) fn detach(&mut self) -> (bool, Option<Waker>) {
        self.join_interest = false;
        let has_outcome = match self.stage {
            Stage::Finished(kind) => {
                self.stage = Stage::Consumed(kind);
                true
            }
            _ => false,
        };
        (has_outcome, self.waker.take())
    }

    /// Takes the waker of a future that waits for the queued task, for a probe: the future then
    /// polls, and so registers, again.
    pub(crate) fn take_future_waker(&mut self) -> Option<Waker> {
        let Stage::Queued(mark) = &mut self.stage else {
            return None;
        };
        if self.waiter == Waiter::Join {
            return None;
        }
        let waker = self.waker.take()?;
        // Only for a future that a worker has polled. Another one may reach a worker in its own
        // time: its poll there is no answer, but makes the task a candidate.
        if *mark == Mark::Candidate {
            *mark = Mark::Probed;
        }
        Some(waker)
    }

    /// Returns the waker of the waiter, so that it looks at the task again.
    pub(crate) fn waker_to_rewake(&mut self) -> Option<Waker> {
        match self.waiter {
            // It does not register again. Cloning the crate's own waker runs no user code.
            Waiter::Join => self.waker.clone(),
            Waiter::BlockOn | Waiter::Task => self.waker.take(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const HERE: ThreadId = ThreadId(7);
    const ELSEWHERE: ThreadId = ThreadId(8);

    #[track_caller]
    fn queued() -> State {
        State::queued(Location::caller())
    }

    fn noop() -> Option<Waker> {
        Some(Waker::noop().clone())
    }

    fn finished(kind: OutcomeKind) -> State {
        let mut state = queued();
        assert_eq!(state.start(HERE), Start::Run);
        assert!(state.finish(kind).is_none());
        state
    }

    #[test]
    fn a_task_starts_once() {
        let mut state = queued();
        assert_eq!(state.start(HERE), Start::Run);
        assert_eq!(state.start(ELSEWHERE), Start::NotQueued);
        assert_eq!(state.running_thread(), Some(HERE));
    }

    #[test]
    fn a_cancelled_task_never_starts() {
        let mut state = queued();
        assert_eq!(state.cancel(HERE), Cancel::DropClosure);
        assert_eq!(state.start(ELSEWHERE), Start::NotQueued);
        assert_eq!(state.cancel(ELSEWHERE), Cancel::AlreadyCancelled);
        assert!(!state.refuse(OutcomeKind::NotRun, ELSEWHERE));
        assert!(state.is_unfinished());
    }

    #[test]
    fn cancel_of_a_running_task_sets_the_request() {
        let mut state = queued();
        assert_eq!(state.start(HERE), Start::Run);
        assert_eq!(state.cancel(ELSEWHERE), Cancel::Requested);
        let requested = Stage::Running {
            cancel_requested: true,
        };
        assert_eq!(state.stage(), requested);
    }

    #[test]
    fn cancel_of_a_finished_task_is_too_late() {
        assert_eq!(
            finished(OutcomeKind::Returned).cancel(HERE),
            Cancel::Finished
        );
        let mut refused = State::refused(Location::caller());
        assert_eq!(refused.cancel(HERE), Cancel::Finished);
    }

    #[test]
    fn an_outcome_is_taken_once() {
        let mut state = finished(OutcomeKind::Returned);
        assert_eq!(state.take(|| HERE), Take::Outcome);
        assert_eq!(state.take(|| HERE), Take::AlreadyTaken);
        assert_eq!(state.stage(), Stage::Consumed(OutcomeKind::Returned));
    }

    #[test]
    fn the_cancelling_thread_need_not_wait() {
        let mut state = queued();
        assert!(state.refuse(OutcomeKind::NotRun, HERE));
        assert_eq!(state.take(|| HERE), Take::CancelledHere);
        assert_eq!(state.take(|| ELSEWHERE), Take::NotYet);
    }

    #[test]
    fn the_last_waker_wins_and_comes_back_after_the_end() {
        let mut state = queued();
        let first = state.register(noop(), Waiter::Task);
        assert!(matches!(first, Register::Registered { replaced: None, .. }));
        let second = state.register(noop(), Waiter::Join);
        let Register::Registered {
            replaced: Some((_, Waiter::Task)),
            ..
        } = second
        else {
            panic!("{second:?}");
        };
        assert_eq!(state.start(HERE), Start::Run);
        assert!(state.finish(OutcomeKind::Returned).is_some());
        let late = state.register(noop(), Waiter::Task);
        assert!(matches!(late, Register::Finished(Some(_))));
    }

    #[test]
    fn without_a_handle_the_outcome_is_not_kept() {
        let mut state = queued();
        let _ = state.register(noop(), Waiter::Task);
        assert!(matches!(state.detach(), (false, Some(_))));
        assert_eq!(state.start(HERE), Start::Run);
        assert!(state.finish(OutcomeKind::Panicked).is_none());
        assert_eq!(state.stage(), Stage::Consumed(OutcomeKind::Panicked));
        assert!(matches!(
            finished(OutcomeKind::Returned).detach(),
            (true, None)
        ));
    }

    #[test]
    fn a_late_callback_borrows_the_outcome() {
        let mut state = finished(OutcomeKind::Returned);
        assert_eq!(state.lend(), Lend::Outcome);
        assert_eq!(state.lend(), Lend::Later);
        assert_eq!(state.take(|| HERE), Take::NotYet);
        state.give_back();
        assert_eq!(state.take(|| HERE), Take::Outcome);
        assert_eq!(state.lend(), Lend::AlreadyTaken);
        assert_eq!(queued().lend(), Lend::Later);
    }

    #[test]
    fn a_removed_waker_is_woken_neither_by_the_end_nor_by_a_probe() {
        let mut state = queued();
        let _ = state.note_poll(Waker::noop(), Poller::BlockOn);
        let _ = state.register(noop(), Waiter::BlockOn);
        assert!(state.remove_waker().is_some());
        assert!(state.remove_waker().is_none());
        assert!(state.take_future_waker().is_none());
        let again = state.note_poll(Waker::noop(), Poller::BlockOn);
        assert!(again.is_first && !again.will_wake);
        let _ = state.register(noop(), Waiter::Task);
        assert!(state.remove_waker().is_some());
        assert_eq!(state.start(HERE), Start::Run);
        assert!(state.finish(OutcomeKind::Returned).is_none());
    }

    #[test]
    fn a_probe_takes_the_waker_of_a_future() {
        let mut state = queued();
        assert!(state.take_future_waker().is_none(), "no waiter");
        let _ = state.register(noop(), Waiter::Join);
        assert!(
            state.take_future_waker().is_none(),
            "a join has helped already"
        );
        assert!(state.waker_to_rewake().is_some() && state.waker_to_rewake().is_some());
        let _ = state.register(noop(), Waiter::Task);
        assert!(state.take_future_waker().is_some());
        assert!(
            state.take_future_waker().is_none(),
            "it has not polled again"
        );
        let _ = state.register(noop(), Waiter::BlockOn);
        assert_eq!(state.start(HERE), Start::Run);
        assert!(state.take_future_waker().is_none(), "it runs");
    }

    #[test]
    fn a_poll_answers_the_probe_that_caused_it_and_no_other() {
        let mut state = queued();
        state.set_order(3);
        let mut poll = |poller, probe| {
            if probe {
                let _ = state.register(noop(), Waiter::Task);
                assert!(state.take_future_waker().is_some());
            }
            let polled = state.note_poll(Waker::noop(), poller);
            assert_eq!(polled.order, Some(3));
            (polled.is_first, polled.is_probed)
        };
        use Poller::{BlockOn, Elsewhere, Worker};
        assert_eq!(poll(Elsewhere, false), (false, false));
        assert_eq!(poll(BlockOn, true), (true, false), "no worker polled it");
        assert_eq!(poll(BlockOn, false), (false, false));
        assert_eq!(poll(Worker, true), (false, false), "it only looks");
        assert_eq!(poll(BlockOn, false), (false, true));
        assert_eq!(poll(BlockOn, false), (false, false), "it is answered");
        assert_eq!(poll(Elsewhere, true), (false, false), "it has left");
        assert_eq!(poll(BlockOn, false), (true, false));
        assert_eq!(state.start(HERE), Start::Run);
        assert_eq!(state.note_poll(Waker::noop(), Poller::BlockOn).order, None);
        assert_eq!(state.running_thread(), Some(HERE));
    }
}
