//! Where a job's closure, state and result live: one allocation, shared by the executor's half and the caller's half.
//!
//! ```text
//!               run                      callbacks ran
//!   Queued ───────────► Running ──────────────────────► Returned, Failed ──► Taken
//!      │                                                     ▲  │  ▲
//!      └───────────► Withdrawing ────────────────────────────┘  └──┘
//!     cancel, refuse                 callbacks ran               Lent, while a late callback looks at it
//! ```
//!
//! Only this file changes a job's state. Every change is made under the cell's mutex; what has to be called or dropped
//! because of it (closure, callbacks, waker, result) is taken out under the mutex and called or dropped after it.

use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::task::Waker;

use crate::block_on::is_ours;
use crate::contain::{contain, let_go, panic_message, report};
use crate::error::JoinError;
use crate::sync::Mutex;

/// `F` makes a `T`; `H` is what the pool wants to be told.
pub(crate) struct Cell<F, T, H> {
    home: H,
    inner: Mutex<Inner<F, T>>,
}

struct Inner<F, T> {
    stage: Stage<F, T>,
    /// Of the poll, or the join, that came last. Only while the job is not resolved.
    waker: Option<Waker>,
    /// In the order added; `None` is what nearly every job has.
    callbacks: Option<Box<Callbacks<T>>>,
}

pub(crate) type Callback<T> = Box<dyn FnOnce(Result<&T, &JoinError>) + Send>;

struct Callbacks<T>(Vec<Callback<T>>);

/// `wanted`: the handle is still there.
enum Stage<F, T> {
    /// Nobody has started it. The one stage that holds the closure.
    Queued {
        closure: F,
        origin: &'static Location<'static>,
        wanted: bool,
        /// Its executor is about to refuse it, and will not run it.
        condemned: bool,
    },
    /// The closure runs, or has ended and its callbacks run.
    Running {
        cancel_requested: bool,
        wanted: bool,
    },
    /// It will never start; the closure is dropped, or the callbacks run.
    Withdrawing { ending: Ending, wanted: bool },
    /// Resolved, with a result that nobody took yet.
    Returned(T),
    /// Resolved, with an error that nobody took yet.
    Failed(JoinError),
    /// Resolved; the outcome is with a callback that was added late, and comes back.
    Lent(Ending),
    /// Resolved; the outcome was handed over, or dropped because nobody wanted it.
    Taken(Ending),
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Returned,
    Panicked,
    Cancelled,
    /// By a pool that was shut down or broken, or had no thread.
    Refused,
}

/// What can be seen of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Queued,
    Running,
    /// Being cancelled or refused: it will not run, and is not resolved yet.
    Withdrawing,
    Finished(Ending),
    Taken(Ending),
}

/// What a pool is told, and asked, of its jobs that do not run.
pub(crate) trait Home: Send + Sync + 'static {
    /// The job will never start. Called under the cell's lock: count, and no more.
    fn withdrawing(&self);
    /// Its closure is gone. If it is a `husk`, the queue still holds its empty cell; if it `had_place`, that is free now,
    /// as that of a condemned job was from the sentence on.
    fn withdrawn(&self, husk: bool, had_place: bool);
    /// It is about to be seen as resolved. May be called under the cell's lock: count, and no more.
    fn not_run(&self);
    /// Whether all jobs are asked to end early.
    fn stopping(&self) -> bool;
    /// What a condemned job is refused with.
    fn sentence(&self) -> JoinError;
}

/// What the executor is told while it runs a job.
pub(crate) trait Watch {
    /// The job is about to be seen as running. Called under the cell's lock: count, and no more.
    fn started(&mut self) {}
    /// It has left the queue.
    fn running(&mut self) {}
    /// It is about to be seen as resolved. `wakes`: foreign code will be woken by this thread after that. May be called
    /// under the cell's lock: count, and no more.
    fn ended(&mut self, panicked: bool, wakes: bool) {
        let _ = (panicked, wakes);
    }
    /// The foreign code was woken.
    fn woken(&mut self) {}
}

/// The executor's view, which knows no types.
pub(crate) trait Runnable: Send + Sync {
    /// Runs the closure, resolves the job; false if there was nothing to run. Never unwinds.
    fn run(&self, watch: &mut dyn Watch) -> bool;
    /// Resolves a queued job with an error; false if it is not queued any more.
    fn refuse(&self, error: JoinError) -> bool;
    /// Whether it is not queued any more.
    fn is_husk(&self) -> bool;
    /// It is about to be refused: who waits for it need not wait for that. False if it is not queued any more.
    fn condemn(&self) -> bool;
    fn cancel_requested(&self) -> bool;
}

/// The caller's view, which knows the result's type.
pub(crate) trait Awaited<T>: Send + Sync {
    fn state(&self) -> State;
    /// The outcome, if it is there.
    fn take(&self) -> Take<T>;
    /// Whether `waker` would be woken already, so that it need not be cloned.
    fn is_heard(&self, waker: &Waker) -> bool;
    /// Puts `waker` in the place of the one before, which comes back to be dropped or restored; or gives it back
    /// because the job is resolved.
    fn listen(&self, waker: Option<Waker>) -> Result<Option<Waker>, Option<Waker>>;
    /// The handle is going away.
    fn detach(&self);
    fn cancel(&self) -> bool;
    /// Refuses a job that is condemned, as its executor would do sooner or later: who waits for it may be the one who keeps the
    /// executor from that.
    fn meet_doom(&self);
    fn add_callback(&self, callback: Callback<T>);
}

/// An attempt to take the outcome.
pub(crate) enum Take<T> {
    NotYet,
    /// Nor will it come by itself before its executor gets to it: see [`meet_doom`](Awaited::meet_doom).
    Condemned,
    Now(Result<T, JoinError>),
    /// It was taken before.
    Gone,
}

impl<F, T, H: Home> Cell<F, T, H> {
    pub(crate) fn queued(closure: F, origin: &'static Location<'static>, home: H) -> Self {
        let wanted = true;
        Self::at(
            Stage::Queued {
                closure,
                origin,
                wanted,
                condemned: false,
            },
            home,
        )
    }

    /// A job that was refused before it began.
    pub(crate) fn failed(error: JoinError, home: H) -> Self {
        Self::at(Stage::Failed(error), home)
    }

    fn at(stage: Stage<F, T>, home: H) -> Self {
        let inner = Mutex::new(Inner {
            stage,
            waker: None,
            callbacks: None,
        });
        Self { home, inner }
    }

    /// Gives the closure of a job back that no executor took.
    pub(crate) fn reclaim(&self) -> Option<F> {
        let mut inner = self.inner.lock();
        let taken = Stage::Taken(Ending::Refused);
        match mem::replace(&mut inner.stage, taken) {
            Stage::Queued { closure, .. } => Some(closure),
            other => {
                inner.stage = other;
                None
            }
        }
    }

    /// Takes the closure out, so that the job can never start, and resolves it; false if it was not queued.
    fn withdraw(&self, error: JoinError, husk: bool) -> bool {
        let mut inner = self.inner.lock();
        let Stage::Queued {
            wanted, condemned, ..
        } = inner.stage
        else {
            return false;
        };
        let ending = ending_of::<T>(&Err(&error));
        let withdrawing = Stage::Withdrawing { ending, wanted };
        let closure = mem::replace(&mut inner.stage, withdrawing);
        self.home.withdrawing();
        drop(inner);
        let_go("the destructor of a job's closure", closure);
        self.home.withdrawn(husk, !condemned);
        self.resolve(Err(error), |_| self.home.not_run());
        true
    }

    /// The end of every job: callbacks; a result that nobody wants is dropped; `settle` counts; the result is there to
    /// be seen; the waiter is woken. `settle` gets whether that is foreign code, and so does the caller.
    fn resolve(&self, outcome: Result<T, JoinError>, settle: impl FnOnce(bool)) -> bool {
        loop {
            let mut inner = self.inner.lock();
            if let Some(callbacks) = inner.callbacks.take() {
                drop(inner);
                callbacks.run(&outcome);
                continue;
            }
            if !inner.stage.is_wanted() {
                inner.stage = Stage::Taken(ending_of(&outcome));
                drop(inner);
                let_go("the destructor of a job's result", outcome);
                settle(false);
                return false;
            }
            let waker = inner.waker.take();
            let wakes = waker.as_ref().is_some_and(|waker| !is_ours(waker));
            settle(wakes);
            inner.stage = Stage::from(outcome);
            drop(inner);
            if let Some(waker) = waker {
                contain("a waker", || waker.wake());
            }
            return wakes;
        }
    }
}

impl<F, T> Stage<F, T> {
    fn is_wanted(&self) -> bool {
        match *self {
            Stage::Queued { wanted, .. }
            | Stage::Running { wanted, .. }
            | Stage::Withdrawing { wanted, .. } => wanted,
            _ => true,
        }
    }

    /// Takes the outcome, if it is there.
    fn take_outcome(&mut self, left: impl FnOnce(Ending) -> Self) -> Option<Result<T, JoinError>> {
        let ending = match self {
            Stage::Returned(_) => Ending::Returned,
            Stage::Failed(error) => ending_of::<T>(&Err(error)),
            _ => return None,
        };
        match mem::replace(self, left(ending)) {
            Stage::Returned(value) => Some(Ok(value)),
            Stage::Failed(error) => Some(Err(error)),
            _ => unreachable!("it was one of the two"),
        }
    }
}

impl<F, T> From<Result<T, JoinError>> for Stage<F, T> {
    fn from(outcome: Result<T, JoinError>) -> Self {
        match outcome {
            Ok(value) => Stage::Returned(value),
            Err(error) => Stage::Failed(error),
        }
    }
}

fn ending_of<T>(outcome: &Result<T, impl std::borrow::Borrow<JoinError>>) -> Ending {
    match outcome {
        Ok(_) => Ending::Returned,
        Err(error) if error.borrow().is_cancelled() => Ending::Cancelled,
        Err(error) if error.borrow().is_panic() => Ending::Panicked,
        Err(_) => Ending::Refused,
    }
}

impl<T> Callbacks<T> {
    fn run(self, outcome: &Result<T, JoinError>) {
        for callback in self.0 {
            contain("a done callback", || callback(outcome.as_ref()));
        }
    }
}

impl<F, T, H> Runnable for Cell<F, T, H>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
    H: Home,
{
    fn run(&self, watch: &mut dyn Watch) -> bool {
        let mut inner = self.inner.lock();
        let Stage::Queued { wanted, .. } = inner.stage else {
            return false;
        };
        let running = Stage::Running {
            cancel_requested: false,
            wanted,
        };
        let Stage::Queued {
            closure, origin, ..
        } = mem::replace(&mut inner.stage, running)
        else {
            unreachable!("it was queued, under this lock")
        };
        watch.started();
        drop(inner);
        watch.running();

        let outcome = catch_unwind(AssertUnwindSafe(closure)).map_err(|payload| {
            report(|| {
                let message = panic_message(&*payload).unwrap_or("(no text)");
                tracing::error!(message, job = %origin, "the job submitted at {origin} panicked: {message}");
            });
            JoinError::panicked(payload, origin)
        });
        let panicked = outcome.is_err();
        if self.resolve(outcome, |wakes| watch.ended(panicked, wakes)) {
            watch.woken();
        }
        true
    }

    fn refuse(&self, error: JoinError) -> bool {
        self.withdraw(error, false)
    }

    fn condemn(&self) -> bool {
        match &mut self.inner.lock().stage {
            Stage::Queued { condemned, .. } => {
                *condemned = true;
                true
            }
            _ => false,
        }
    }

    fn is_husk(&self) -> bool {
        !matches!(self.inner.lock().stage, Stage::Queued { .. })
    }

    fn cancel_requested(&self) -> bool {
        match self.inner.lock().stage {
            Stage::Running {
                cancel_requested, ..
            } => cancel_requested || self.home.stopping(),
            _ => false,
        }
    }
}

impl<F, T, H> Awaited<T> for Cell<F, T, H>
where
    F: Send + 'static,
    T: Send + 'static,
    H: Home,
{
    fn state(&self) -> State {
        match &self.inner.lock().stage {
            Stage::Queued { .. } => State::Queued,
            Stage::Running { .. } => State::Running,
            Stage::Withdrawing { .. } => State::Withdrawing,
            Stage::Returned(_) => State::Finished(Ending::Returned),
            Stage::Failed(error) => State::Finished(ending_of::<T>(&Err(error))),
            Stage::Lent(ending) => State::Finished(*ending),
            Stage::Taken(ending) => State::Taken(*ending),
        }
    }

    fn take(&self) -> Take<T> {
        let mut inner = self.inner.lock();
        match inner.stage.take_outcome(Stage::Taken) {
            Some(outcome) => Take::Now(outcome),
            None => match inner.stage {
                Stage::Taken(_) => Take::Gone,
                Stage::Queued {
                    condemned: true, ..
                } => Take::Condemned,
                _ => Take::NotYet,
            },
        }
    }

    fn is_heard(&self, waker: &Waker) -> bool {
        let inner = self.inner.lock();
        inner.waker.as_ref().is_some_and(|w| w.will_wake(waker))
    }

    fn listen(&self, waker: Option<Waker>) -> Result<Option<Waker>, Option<Waker>> {
        let mut inner = self.inner.lock();
        match inner.stage {
            Stage::Queued { .. } | Stage::Running { .. } | Stage::Withdrawing { .. } => {
                Ok(mem::replace(&mut inner.waker, waker))
            }
            _ => Err(waker),
        }
    }

    fn detach(&self) {
        let mut inner = self.inner.lock();
        match &mut inner.stage {
            Stage::Queued { wanted, .. }
            | Stage::Running { wanted, .. }
            | Stage::Withdrawing { wanted, .. } => *wanted = false,
            _ => {}
        }
        let outcome = inner.stage.take_outcome(Stage::Taken);
        let waker = inner.waker.take();
        drop(inner);
        if outcome.is_some() {
            let_go("the destructor of a job's result", outcome);
        }
        if waker.is_some() {
            let_go("a waker's destructor", waker);
        }
    }

    fn cancel(&self) -> bool {
        if self.withdraw(JoinError::cancelled(), true) {
            return true;
        }
        let mut inner = self.inner.lock();
        match &mut inner.stage {
            Stage::Running {
                cancel_requested, ..
            } => {
                *cancel_requested = true;
                false
            }
            Stage::Withdrawing { ending, .. } | Stage::Lent(ending) | Stage::Taken(ending) => {
                *ending == Ending::Cancelled
            }
            Stage::Failed(error) => error.is_cancelled(),
            Stage::Queued { .. } | Stage::Returned(_) => false,
        }
    }

    fn meet_doom(&self) {
        self.withdraw(self.home.sentence(), true);
    }

    fn add_callback(&self, callback: Callback<T>) {
        let mut inner = self.inner.lock();
        let Some(outcome) = inner.stage.take_outcome(Stage::Lent) else {
            let taken = matches!(inner.stage, Stage::Taken(_));
            if !taken {
                // Whoever resolves the job, or has the outcome lent, runs it.
                let callbacks = inner.callbacks.get_or_insert_with(Box::default);
                callbacks.0.push(callback);
                return;
            }
            drop(inner);
            panic!("add_done_callback after the result of the job was taken");
        };
        drop(inner);
        let mut callbacks = Box::new(Callbacks(vec![callback]));
        loop {
            callbacks.run(&outcome);
            let mut inner = self.inner.lock();
            match inner.callbacks.take() {
                Some(more) => callbacks = more,
                None => {
                    inner.stage = Stage::from(outcome);
                    return;
                }
            }
        }
    }
}

impl<T> Default for Callbacks<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}
