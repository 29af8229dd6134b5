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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::error::JoinError;
use crate::park::helping::Helpable;
use crate::park::parker::is_ours;
use crate::park::wait_graph::Node;
use crate::task::context::{Current, Origin, run_inside, thread_number};
use crate::task::span::{self, Span};
use crate::util::sync::{Arc, Mutex};
use crate::util::unwind::{catch_panic, drop_catching, emit, panic_message};

/// `F` makes a `T`; `H` is what the pool wants to be told.
pub(crate) struct Cell<F, T, H> {
    home: H,
    inner: Mutex<Inner<F, T>>,
}

struct Inner<F, T> {
    stage: Stage<F, T>,
    /// Of the poll, or the join, that came last. Only while the job is not resolved.
    waker: Option<Waker>,
    /// `None` is what nearly every job has.
    extras: Option<Box<Extras<T>>>,
}

pub(crate) type Callback<T> = Box<dyn FnOnce(Result<&T, &JoinError>) + Send>;

/// What few jobs have.
struct Extras<T> {
    /// In the order added.
    callbacks: Vec<Callback<T>>,
    /// What was current where the job was submitted. Only while it is queued.
    span: Option<Span>,
}

/// `wanted`: the handle is still there.
enum Stage<F, T> {
    /// Nobody has started it. The one stage that holds the closure.
    Queued {
        closure: F,
        origin: Origin,
        wanted: bool,
        /// Its executor is about to refuse it, and will not run it.
        condemned: Option<Sentence>,
    },
    /// The closure runs, or has ended and its callbacks run, in the thread of that number.
    Running {
        cancel_requested: bool,
        origin: Origin,
        runner: u64,
        wanted: bool,
    },
    /// It will never start; the closure is dropped, or the callbacks run, in the thread of that number.
    Withdrawing {
        ending: Ending,
        origin: Origin,
        runner: u64,
        wanted: bool,
    },
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

/// Why a queued job is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sentence {
    Cancelled,
    Broken,
    SpawnFailed,
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
    /// The error that a condemned job is refused with.
    fn sentence(&self, sentence: Sentence) -> JoinError;
    /// Whether this thread is a worker of the pool that the job is in, in its loop or in its initializer. Asked by who
    /// waits for the job; an initializer that does is noted.
    fn is_here(&self) -> bool;
    /// A waiter runs the job, in `run`, which is to be told who watches it. The queue still holds its empty cell then.
    fn help(&self, run: &mut dyn FnMut(&mut dyn Watch));
    /// A job that was made for any executor has come to this pool. Called under the cell's lock.
    fn settle(&self, home: Arc<dyn Home>) {
        let _ = home;
    }
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
    fn run(self: Arc<Self>, watch: &mut dyn Watch) -> bool;
    /// Resolves a queued job with an error; false if it is not queued any more.
    fn refuse(self: Arc<Self>, error: JoinError) -> bool;
    /// Whether it is not queued any more.
    fn is_husk(&self) -> bool;
    /// It is about to be refused: who waits for it need not wait for that. False if it is not queued any more.
    fn condemn(&self, sentence: Sentence) -> bool;
    /// Refuses it if it is condemned, with its sentence; false if it is not queued any more.
    fn execute_sentence(self: Arc<Self>) -> bool;
    /// Wakes whoever waits for it, for nothing.
    fn nudge(&self);
    /// The waker of whoever waits for it.
    fn waker(&self) -> Option<Waker>;
    /// The waker of whoever awaits it, if that is foreign code.
    fn take_waker(&self) -> Option<Waker>;
    /// It belongs to that pool now. False if it is not queued any more.
    fn settle(&self, home: Arc<dyn Home>) -> bool;
}

/// The caller's view, which knows the result's type.
pub(crate) trait Awaited<T>: Send + Sync {
    fn state(&self) -> State;
    /// The outcome, if it is there.
    fn take(&self) -> Take<T>;
    /// Whether `waker` would be woken already, so that it need not be cloned.
    fn is_heard(&self, waker: &Waker) -> bool;
    /// Puts `waker` in the place of the one before, which comes back to be dropped or restored; or gives it back
    /// because the job is resolved, or condemned.
    fn listen(&self, waker: Option<Waker>) -> Result<Option<Waker>, Option<Waker>>;
    /// The handle is going away.
    fn detach(&self);
    fn cancel(&self) -> Cancel;
    /// Refuses a job that is condemned, as its executor would do sooner or later: who waits for it may be the one who keeps the
    /// executor from that.
    fn meet_doom(&self);
    fn add_callback(&self, callback: Callback<T>);
    /// Whether [`meet_doom`](Self::meet_doom) would end it.
    fn is_condemned(&self) -> bool;
    /// Whether this thread may run the job itself, since it is a worker of the pool that the job is queued in.
    fn is_helpable(&self) -> bool;
    /// The job, to be run while somebody waits for it.
    fn helpable(self: Arc<Self>) -> Arc<dyn Helpable>;
    /// The job, to be waited for.
    fn node(self: Arc<Self>) -> Arc<dyn Node>;
    /// How it ended, and what `look` says of the value, if it is there. `None` if it is not resolved. `look` must not be
    /// foreign code.
    fn peek(&self, look: fn(&T) -> bool) -> Option<(Ending, bool)>;
}

/// An attempt to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancel {
    /// It has cancelled the job.
    Now,
    /// Somebody has, before.
    Before,
    No,
}

/// An attempt to take the outcome.
pub(crate) enum Take<T> {
    NotYet,
    /// Nor will it come by itself before its executor gets to it: see [`meet_doom`](Awaited::meet_doom).
    Condemned,
    Now(Result<T, JoinError>),
}

impl<F, T, H: Home> Cell<F, T, H> {
    pub(crate) fn queued(closure: F, origin: Origin, span: Option<Span>, home: H) -> Self {
        let stage = Stage::Queued {
            closure,
            origin,
            wanted: true,
            condemned: None,
        };
        let extras = span.map(|span| {
            Box::new(Extras {
                callbacks: Vec::new(),
                span: Some(span),
            })
        });
        Self::at(stage, extras, home)
    }

    /// A job that was refused before it began.
    pub(crate) fn failed(error: JoinError, home: H) -> Self {
        Self::at(Stage::Failed(error), None, home)
    }

    fn at(stage: Stage<F, T>, extras: Option<Box<Extras<T>>>, home: H) -> Self {
        let inner = Mutex::new(Inner {
            stage,
            waker: None,
            extras,
        });
        Self { home, inner }
    }

    /// Gives the closure of a job back that no executor took.
    pub(crate) fn reclaim(&self) -> Option<F> {
        let mut inner = self.inner.lock();
        let taken = Stage::Taken(Ending::Refused);
        match mem::replace(&mut inner.stage, taken) {
            Stage::Queued { closure, .. } => {
                let span = inner.take_span();
                drop(inner);
                drop_catching(SPAN, span);
                Some(closure)
            }
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
            origin,
            wanted,
            condemned,
            ..
        } = inner.stage
        else {
            return false;
        };
        let withdrawing = Stage::Withdrawing {
            ending: Ending::of::<T>(&Err(&error)),
            origin,
            runner: thread_number(),
            wanted,
        };
        let closure = mem::replace(&mut inner.stage, withdrawing);
        let span = inner.take_span();
        self.home.withdrawing();
        drop(inner);
        drop_catching("the destructor of a job's closure", closure);
        if span.is_some() {
            drop_catching(SPAN, span);
        }
        self.home.withdrawn(husk, condemned.is_none());
        self.resolve(Err(error), |_| self.home.not_run());
        true
    }

    /// Refuses a job that is condemned; false if it is not, or not any more.
    fn end_condemned(&self, husk: bool) -> bool {
        let Stage::Queued {
            condemned: Some(sentence),
            ..
        } = self.inner.lock().stage
        else {
            return false;
        };
        self.withdraw(self.home.sentence(sentence), husk)
    }

    /// The end of every job: callbacks; a result that nobody wants is dropped; `settle` counts; the result is there to
    /// be seen; the waiter is woken. `settle` gets whether that is foreign code, and so does the caller.
    fn resolve(&self, outcome: Result<T, JoinError>, settle: impl FnOnce(bool)) -> bool {
        loop {
            let mut inner = self.inner.lock();
            if let Some(extras) = inner.extras.take() {
                drop(inner);
                extras.run_callbacks(&outcome);
                continue;
            }
            if !inner.stage.is_wanted() {
                inner.stage = Stage::Taken(Ending::of(&outcome));
                drop(inner);
                drop_catching("the destructor of a job's result", outcome);
                settle(false);
                return false;
            }
            let waker = inner.waker.take();
            let wakes = waker.as_ref().is_some_and(|waker| !is_ours(waker));
            settle(wakes);
            inner.stage = Stage::from(outcome);
            drop(inner);
            if let Some(waker) = waker {
                catch_panic("a waker", || waker.wake());
            }
            return wakes;
        }
    }
}

const SPAN: &str = "a tracing subscriber";

impl<F, T> Inner<F, T> {
    fn take_span(&mut self) -> Option<Span> {
        self.extras.as_mut()?.span.take()
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
            Stage::Failed(error) => Ending::of::<T>(&Err(error)),
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

impl Ending {
    pub(crate) fn of<T>(outcome: &Result<T, impl std::borrow::Borrow<JoinError>>) -> Self {
        match outcome {
            Ok(_) => Self::Returned,
            Err(error) if error.borrow().is_cancelled() => Self::Cancelled,
            Err(error) if error.borrow().is_panic() => Self::Panicked,
            Err(_) => Self::Refused,
        }
    }
}

impl<T> Extras<T> {
    fn run_callbacks(self, outcome: &Result<T, JoinError>) {
        for callback in self.callbacks {
            catch_panic("a done callback", || callback(outcome.as_ref()));
        }
    }
}

/// Runs a job's closure; a panic in it becomes an error, and an event.
pub(crate) fn catch<T>(origin: Origin, closure: impl FnOnce() -> T) -> Result<T, JoinError> {
    catch_unwind(AssertUnwindSafe(closure)).map_err(|payload| {
        emit(|| {
            let message = panic_message(&*payload).unwrap_or("(no text)");
            tracing::error!(message, job = %origin, "the job submitted at {origin} panicked: {message}");
        });
        JoinError::panicked(payload, origin)
    })
}

impl<F, T, H> Runnable for Cell<F, T, H>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
    H: Home,
{
    fn run(self: Arc<Self>, watch: &mut dyn Watch) -> bool {
        let mut inner = self.inner.lock();
        let Stage::Queued {
            origin,
            wanted,
            condemned: None,
            ..
        } = inner.stage
        else {
            return false;
        };
        let running = Stage::Running {
            cancel_requested: false,
            origin,
            runner: thread_number(),
            wanted,
        };
        let Stage::Queued { closure, .. } = mem::replace(&mut inner.stage, running) else {
            unreachable!("it was queued, under this lock")
        };
        let span = inner.take_span();
        watch.started();
        drop(inner);
        watch.running();

        // Inside until the waker was called: the callbacks are part of the job, too.
        run_inside(Arc::clone(&self) as _, || {
            let outcome = span::run_in(span, || catch(origin, closure));
            let panicked = outcome.is_err();
            if self.resolve(outcome, |wakes| watch.ended(panicked, wakes)) {
                watch.woken();
            }
        });
        true
    }

    fn refuse(self: Arc<Self>, error: JoinError) -> bool {
        run_inside(Arc::clone(&self) as _, || self.withdraw(error, false))
    }

    fn condemn(&self, sentence: Sentence) -> bool {
        match &mut self.inner.lock().stage {
            Stage::Queued { condemned, .. } => {
                *condemned = Some(sentence);
                true
            }
            _ => false,
        }
    }

    fn execute_sentence(self: Arc<Self>) -> bool {
        run_inside(Arc::clone(&self) as _, || self.end_condemned(false))
    }

    fn is_husk(&self) -> bool {
        !matches!(self.inner.lock().stage, Stage::Queued { .. })
    }

    fn take_waker(&self) -> Option<Waker> {
        self.inner.lock().waker.take_if(|waker| !is_ours(waker))
    }

    fn nudge(&self) {
        if let Some(waker) = Runnable::waker(self) {
            catch_panic("a waker", || waker.wake());
        }
    }

    fn waker(&self) -> Option<Waker> {
        let mut inner = self.inner.lock();
        match &inner.waker {
            // A thread that joins stays registered; to clone its waker runs nobody's code.
            Some(waker) if is_ours(waker) => Some(waker.clone()),
            // Whoever is woken polls again, and registers anew.
            _ => inner.waker.take(),
        }
    }

    fn settle(&self, home: Arc<dyn Home>) -> bool {
        let inner = self.inner.lock();
        let queued = matches!(inner.stage, Stage::Queued { .. });
        if queued {
            self.home.settle(home);
        }
        queued
    }
}

impl<F, T, H> Current for Cell<F, T, H>
where
    F: Send + 'static,
    T: Send + 'static,
    H: Home,
{
    fn cancel_requested(&self) -> bool {
        match self.inner.lock().stage {
            Stage::Running {
                cancel_requested, ..
            } => cancel_requested || self.home.stopping(),
            _ => false,
        }
    }

    fn origin(&self) -> Option<Origin> {
        match self.inner.lock().stage {
            Stage::Running { origin, .. } | Stage::Withdrawing { origin, .. } => Some(origin),
            _ => None,
        }
    }
}

impl<F, T, H> Helpable for Cell<F, T, H>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
    H: Home,
{
    fn is_waiting(&self) -> bool {
        matches!(self.inner.lock().stage, Stage::Queued { wanted: true, .. })
    }

    fn help(self: Arc<Self>) -> bool {
        if !self.home.is_here() {
            return false;
        }
        let mut ran = false;
        self.home
            .help(&mut |watch| ran = Arc::clone(&self).run(watch));
        ran
    }

    fn nudge(&self) {
        Runnable::nudge(self);
    }
}

impl<F, T, H> Node for Cell<F, T, H>
where
    F: Send + 'static,
    T: Send + 'static,
    H: Home,
{
    fn runner(&self) -> Option<u64> {
        match self.inner.lock().stage {
            Stage::Running { runner, .. } | Stage::Withdrawing { runner, .. } => Some(runner),
            _ => None,
        }
    }

    fn is_unfinished(&self) -> bool {
        matches!(
            self.inner.lock().stage,
            Stage::Queued { .. } | Stage::Running { .. } | Stage::Withdrawing { .. }
        )
    }
}

impl<F, T, H> Awaited<T> for Cell<F, T, H>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
    H: Home,
{
    fn state(&self) -> State {
        match &self.inner.lock().stage {
            Stage::Queued { .. } => State::Queued,
            Stage::Running { .. } => State::Running,
            Stage::Withdrawing { .. } => State::Withdrawing,
            Stage::Returned(_) => State::Finished(Ending::Returned),
            Stage::Failed(error) => State::Finished(Ending::of::<T>(&Err(error))),
            Stage::Lent(ending) => State::Finished(*ending),
            Stage::Taken(ending) => State::Taken(*ending),
        }
    }

    fn take(&self) -> Take<T> {
        let mut inner = self.inner.lock();
        match inner.stage.take_outcome(Stage::Taken) {
            Some(outcome) => Take::Now(outcome),
            None => match inner.stage {
                Stage::Queued {
                    condemned: Some(_), ..
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
            // Nobody tells those who come later.
            Stage::Queued {
                condemned: Some(_), ..
            } => Err(waker),
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
            drop_catching("the destructor of a job's result", outcome);
        }
        if waker.is_some() {
            drop_catching("a waker's destructor", waker);
        }
    }

    fn cancel(&self) -> Cancel {
        if self.withdraw(JoinError::cancelled(), true) {
            return Cancel::Now;
        }
        let mut inner = self.inner.lock();
        let cancelled = match &mut inner.stage {
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
        };
        match cancelled {
            true => Cancel::Before,
            false => Cancel::No,
        }
    }

    fn meet_doom(&self) {
        self.end_condemned(true);
    }

    fn add_callback(&self, callback: Callback<T>) {
        let mut inner = self.inner.lock();
        let Some(outcome) = inner.stage.take_outcome(Stage::Lent) else {
            let taken = matches!(inner.stage, Stage::Taken(_));
            if !taken {
                // Whoever resolves the job, or has the outcome lent, runs it.
                let extras = inner.extras.get_or_insert_with(Box::default);
                extras.callbacks.push(callback);
                return;
            }
            drop(inner);
            panic!("add_done_callback after the result of the job was taken");
        };
        drop(inner);
        let mut extras = Box::new(Extras {
            callbacks: vec![callback],
            span: None,
        });
        loop {
            extras.run_callbacks(&outcome);
            let mut inner = self.inner.lock();
            match inner.extras.take() {
                Some(more) => extras = more,
                None => {
                    inner.stage = Stage::from(outcome);
                    return;
                }
            }
        }
    }

    fn is_condemned(&self) -> bool {
        let inner = self.inner.lock();
        matches!(
            inner.stage,
            Stage::Queued {
                condemned: Some(_),
                ..
            }
        )
    }

    fn is_helpable(&self) -> bool {
        self.home.is_here() && matches!(self.inner.lock().stage, Stage::Queued { .. })
    }

    fn helpable(self: Arc<Self>) -> Arc<dyn Helpable> {
        self
    }

    fn node(self: Arc<Self>) -> Arc<dyn Node> {
        self
    }

    fn peek(&self, look: fn(&T) -> bool) -> Option<(Ending, bool)> {
        match &self.inner.lock().stage {
            Stage::Returned(value) => Some((Ending::Returned, look(value))),
            Stage::Failed(error) => Some((Ending::of::<T>(&Err(error)), false)),
            Stage::Taken(ending) => Some((*ending, false)),
            _ => None,
        }
    }
}

impl<T> Default for Extras<T> {
    fn default() -> Self {
        Self {
            callbacks: Vec::new(),
            span: None,
        }
    }
}
