//! The caller's half of a job.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::FusedFuture;

use crate::error::{Deadlock, JoinError};
use crate::park::helping::{
    help, in_untimed_block_on, is_block_on_waker, note_awaited, offer, unreachable,
};
use crate::park::parker::Parker;
use crate::park::wait_graph::{BlockedGuard, enter_wait, self_cycle};
use crate::task::cancel_handle::CancelHandle;
use crate::task::cancel_on_drop::CancelOnDrop;
use crate::task::cell::{
    JoinTask, RawTask, Role, Taken, cancel, cancel_if_queued, request_cancel, state_of,
};
use crate::task::context::{ThreadId, may_be_waited_for, note_backlog};
use crate::task::state::{Cancel, OutcomeKind, Poller, Register, Stage, Waiter};
use crate::task::tagged::Tagged;
use crate::util::fault::fault_or;
use crate::util::spin::{PollSpun, spin_before_park, spin_in_poll};
use crate::util::sync::{Arc, Instant};
use crate::util::unwind::{drop_catching, drop_waker};

const TAKEN: &str = "the result of this job was already taken from its handle";

/// The handle to a submitted job: async code awaits it, sync code joins it.
///
/// **Dropping the handle detaches the job.** The job still runs; its result, or its panic, is lost.
/// [`cancel_on_drop`](Self::cancel_on_drop) makes the drop cancel the job instead.
///
/// The handle is a [`Future`] that works in every async runtime, and without one.
/// [`join`](Self::join) blocks the calling thread instead.
///
/// The handle returns the result once, by value. Polling or joining a handle whose result was
/// already taken panics. If several readers need the result, let the job return an `Arc`.
///
/// # The end of a job
///
/// A job that ran ends in this order:
///
/// 1. The closure is dropped, with everything that it captured.
/// 2. The [callbacks](Self::add_done_callback) run. [`is_running`](Self::is_running) is still true.
/// 3. The result is dropped if its handle is gone.
/// 4. The [metrics](crate::ThreadPool::metrics) count the job, and its worker is idle.
/// 5. The result becomes visible: [`is_finished`](Self::is_finished) is true.
/// 6. Waiters are woken.
///
/// A job can also end without running. It was cancelled, its pool was shut down or broke, no
/// worker thread could be spawned, or its executor refused or dropped it. Then the order is:
///
/// 1. The job can no longer start.
/// 2. The closure is dropped, with everything that it captured. In a bounded queue, the job's
///    permit is released.
/// 3. The metrics count the job.
/// 4. The error becomes visible, and waiters are woken.
/// 5. The callbacks run.
/// 6. [`cancel`](Self::cancel) returns `true`, if it ended the job.
///
/// From step 1 until the error is visible, `is_running`, `is_finished` and
/// [`is_cancelled`](Self::is_cancelled) are all false.
///
/// # What a poll costs
///
/// A poll never blocks. It may spin for up to about a microsecond before it registers the waker,
/// because a result that comes meanwhile saves the executor a sleep and a wake-up. It spins only if
/// all of these hold:
///
/// - The last eight polls of handles on this thread were for this task.
/// - The pool's queue holds at most one job.
/// - Spinning has succeeded lately. Otherwise only one poll in nine spins.
///
/// After some 64 such successes in a row a poll returns `Pending` and wakes its task at once, so
/// that other tasks of the thread can run. A result that is there before the poll is returned in
/// any case.
///
/// # Cancel safety
///
/// A poll takes the result only if it is ready. So a `select!` or a runtime's `timeout` can drop
/// its borrow of `&mut handle` without losing the result.
/// [`wait`](crate::wait)`([handle], …).timeout(d)` works without a runtime.
///
/// # Examples
///
/// ```
/// # futures::executor::block_on(async {
/// let pool = futurepool::ThreadPool::new(2);
/// let first = pool.submit(|| 6 * 7);
/// let second = pool.submit(|| 6 * 9);
/// assert_eq!(first.await.unwrap(), 42); // in async code
/// assert_eq!(second.join().unwrap(), 54); // in sync code
/// # });
/// ```
#[doc(alias = "Future")]
#[doc(alias = "wrap_future")]
#[must_use = "dropping a handle detaches the job, whose result and panic are then lost"]
pub struct JoinHandle<T> {
    slot: Slot<T>,
}

/// What a handle knows of its job.
enum Slot<T> {
    Pending(Arc<dyn JoinTask<T>>),
    /// The outcome was taken, and the task released.
    Consumed(OutcomeKind),
}

/// The answer to [`JoinHandle::register`].
enum Registered {
    /// The waker will be woken.
    Waits,
    Finished,
    /// The job is queued, and no worker can reach it while this one waits.
    Unreachable(Deadlock),
}

const _: () = assert!(
    size_of::<Slot<()>>() == size_of::<Arc<dyn JoinTask<()>>>(),
    "what a handle knows at the end makes it no larger"
);

impl<T> JoinHandle<T> {
    pub(crate) fn new(task: Arc<dyn JoinTask<T>>) -> Self {
        let slot = Slot::Pending(task);
        Self { slot }
    }

    /// # Panics
    ///
    /// Panics if the outcome was taken.
    #[track_caller]
    fn task(&self) -> &Arc<dyn JoinTask<T>> {
        match &self.slot {
            Slot::Pending(task) => task,
            Slot::Consumed(_) => panic!("{TAKEN}"),
        }
    }

    fn stage(&self) -> Stage {
        match &self.slot {
            Slot::Pending(task) => state_of(&**task, |state| state.stage()),
            Slot::Consumed(kind) => Stage::Consumed(*kind),
        }
    }

    /// Blocks the calling thread until the job finishes, and returns its result.
    ///
    /// **In async code, await the handle instead: `join` blocks the runtime's thread**, and with it
    /// every other task of that thread. It works there, and never panics for being called there.
    ///
    /// # In a worker
    ///
    /// A worker that joins a queued job of its own pool runs that job at once, on its own stack.
    /// So jobs can wait for jobs, even in a pool with one worker. `join` never runs an unrelated
    /// job. See [`ThreadPool`](crate::ThreadPool#waits-in-a-worker) for the other kinds of wait.
    ///
    /// # Errors
    ///
    /// Returns a [`JoinError`] if the job panicked or never ran. A job never runs if it was
    /// cancelled or refused, if its pool broke, or if no worker thread could be spawned.
    ///
    /// Returns an error that [`is_deadlock`](JoinError::is_deadlock) if the job waits, directly or
    /// through other jobs, for the job that calls `join`. It returns that error, too, if the job is
    /// queued in another pool, and all workers of that pool wait for the job that calls `join`.
    ///
    /// Returns an error that [`is_cancelled`](JoinError::is_cancelled) at once if the calling
    /// thread is itself cancelling that job. This happens in destructors of captured values.
    ///
    /// # Panics
    ///
    /// Panics if the result was already taken.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(2);
    /// let read = pool.submit(|| std::fs::read_to_string("Cargo.toml"));
    /// let text = read.join()??; // first the `JoinError`, then the job's own error
    /// assert!(text.contains("futurepool"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "result")]
    #[doc(alias = "exception")]
    #[track_caller]
    pub fn join(mut self) -> Result<T, JoinError> {
        self.wait(None)
    }

    /// Blocks the calling thread until the job finishes, for at most `timeout`.
    ///
    /// After a timeout the job and the handle are unchanged. The worker stays busy with the job, so
    /// a blocking call in a job needs a time limit of its own. There is no timeout if `timeout` is
    /// too long for the clock. A worker that waits here with a timeout runs no job meanwhile.
    ///
    /// A timeout ends only the wait, never the job. The worker stays busy until the job returns, so
    /// a call that may block forever needs a time limit of its own, such as a socket timeout. The
    /// time that the job spends in the queue counts too, here and in `timeout(d, handle)` of a
    /// runtime.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`join`](Self::join), except that a wait with a timeout is not checked
    /// for deadlocks. Returns an error that [`is_timeout`](JoinError::is_timeout) after the
    /// timeout.
    ///
    /// # Panics
    ///
    /// Panics if the result was already taken.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = futurepool::ThreadPool::new(1);
    /// let (go, wait) = std::sync::mpsc::channel();
    /// let mut handle = pool.submit(move || wait.recv());
    /// assert!(handle.join_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    /// go.send("now").unwrap();
    /// assert_eq!(handle.join().unwrap(), Ok("now"));
    /// ```
    #[doc(alias = "result")]
    #[track_caller]
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<T, JoinError> {
        // No timeout if the deadline overflows the clock.
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.wait(Some(deadline)),
            None => self.wait(None),
        }
    }

    /// Takes the result if the job has finished.
    ///
    /// Returns `None` before the job has finished, and after the result was taken. Never blocks.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let mut handle = pool.submit(|| 6 * 7);
    /// let answer = loop {
    ///     if let Some(answer) = handle.try_join() {
    ///         break answer.unwrap();
    ///     }
    ///     // Draw the next frame.
    ///     # std::thread::yield_now();
    /// };
    /// assert_eq!(answer, 42);
    /// ```
    #[doc(alias = "now_or_never")]
    pub fn try_join(&mut self) -> Option<Result<T, JoinError>> {
        match self.stage() {
            // A job that this thread is cancelling is not finished, even though a join would
            // return.
            Stage::Consumed(_) | Stage::Cancelling(_) => None,
            _ => self.take(),
        }
    }

    #[track_caller]
    fn wait(&mut self, deadline: Option<Instant>) -> Result<T, JoinError> {
        if let Some(outcome) = self.take() {
            return outcome;
        }
        // A wait with a timeout neither helps nor deadlocks: it ends by itself.
        if deadline.is_none() {
            if self.help() {
                if let Some(outcome) = self.take() {
                    return outcome;
                }
            }
            // This thread may be the only one that could run the job, and it must not before it is
            // initialized.
            if self.task().scheduler().role() == Role::Initializing {
                return Err(JoinError::deadlock(Deadlock::Initializer));
            }
            // The graph below would find it, too, but only after the spin.
            if may_be_waited_for() {
                if let Some(cycle) = self_cycle(&*self.raw()) {
                    return Err(JoinError::deadlock(Deadlock::Cycle(cycle)));
                }
            }
        }
        // Without the task's lock, which the thread that ends the task needs.
        let has_backlog = self.task().scheduler().has_backlog();
        if spin_before_park(deadline, has_backlog, || self.task().is_resolved()) {
            if let Some(outcome) = self.take() {
                return outcome;
            }
        }
        let parker = Parker::new();
        // If the job has finished since the last look, `register` says so and `take` finds the
        // outcome: no callback can borrow it while this handle is borrowed mutably. So the loop
        // never repeats.
        let replaced = loop {
            let waker = Some(parker.waker().clone());
            let register = state_of(&**self.task(), |state| state.register(waker, Waiter::Join));
            match register {
                Register::Registered { replaced } => break replaced,
                Register::Finished(_) => {
                    if let Some(outcome) = self.take() {
                        return outcome;
                    }
                }
            }
        };
        match self.park(&parker, deadline) {
            Some(outcome) => {
                drop_waker(replaced.map(|(waker, _)| waker));
                outcome
            }
            None => self.give_up(replaced),
        }
    }

    /// Parks until the outcome is there. Returns `None` if `deadline` has passed.
    fn park(&mut self, parker: &Parker, deadline: Option<Instant>) -> Option<Result<T, JoinError>> {
        loop {
            // The job may have reached this worker's pool only now.
            if deadline.is_none() && self.help() {
                if let Some(outcome) = self.take() {
                    return Some(outcome);
                }
            }
            // Only a thread that others wait for can close a cycle, and only by a wait without end.
            let mut guard = None;
            if deadline.is_none() && may_be_waited_for() {
                match enter_wait(self.raw(), parker.waker()) {
                    Ok(blocked) => guard = Some(blocked),
                    Err(deadlock) => return Some(Err(JoinError::deadlock(deadlock))),
                }
            }
            // No user code may run while this thread is in the graph, so what is deferred comes
            // after.
            let notified = parker.park_only(deadline);
            let deadlock = guard.and_then(BlockedGuard::leave);
            parker.run_deferred();
            if let Some(outcome) = self.take() {
                return Some(outcome);
            }
            if !notified {
                return None;
            }
            // Only now: an outcome that came at the same time has precedence over the error.
            if let Some(deadlock) = deadlock {
                return Some(Err(JoinError::deadlock(deadlock)));
            }
        }
    }

    /// The wait has timed out. A task may still await the handle: its waker comes back.
    fn give_up(&mut self, replaced: Option<(std::task::Waker, Waiter)>) -> Result<T, JoinError> {
        let (waker, waiter) = match replaced {
            Some((waker, waiter)) => (Some(waker), waiter),
            None => (None, Waiter::Task),
        };
        let waker = fault_or!("a_timeout_forgets_the_task": None; waker);
        let (register, origin) = state_of(&**self.task(), |state| {
            (state.register(waker, waiter), state.origin())
        });
        let timeout = || Err(JoinError::timeout().submitted_at(origin));
        match register {
            Register::Registered { .. } => timeout(),
            // It was resolved just now.
            Register::Finished(waker) => {
                drop_waker(waker);
                let outcome = fault_or!("a_timeout_takes_no_last_look": None; self.take());
                outcome.unwrap_or_else(timeout)
            }
        }
    }

    /// Runs the job, if this thread is a worker of the pool that it is queued in. Returns whether
    /// it did.
    pub(crate) fn help(&self) -> bool {
        match &self.slot {
            // The role is checked first, to save a clone of the task for all other threads.
            Slot::Pending(task) => task.scheduler().role() == Role::Worker && help(&self.raw()),
            Slot::Consumed(_) => false,
        }
    }

    /// Returns the task, without the type of its result.
    pub(crate) fn raw(&self) -> Arc<dyn RawTask> {
        Arc::clone(self.task()).into_raw()
    }

    /// Polls as [`poll`](Future::poll) does, but leaves the outcome in the handle.
    pub(crate) fn poll_finished(&self, context: &Context<'_>) -> Poll<()> {
        loop {
            if !self.must_wait() {
                return Poll::Ready(());
            }
            match self.register(context) {
                Registered::Waits => return Poll::Pending,
                Registered::Finished => {}
                // The wait ends, and the job goes on.
                Registered::Unreachable(_) => return Poll::Ready(()),
            }
        }
    }

    /// Removes the waker that the last poll registered: what polled no longer waits.
    pub(crate) fn remove_waker(&self) {
        if let Slot::Pending(task) = &self.slot {
            // Dropping a waker runs user code, so it happens outside the lock.
            drop_waker(state_of(&**task, |state| state.remove_waker()));
        }
    }

    /// Returns false if a wait for the job would end at once.
    pub(crate) fn must_wait(&self) -> bool {
        match &self.slot {
            Slot::Pending(task) => state_of(&**task, |state| state.must_wait(ThreadId::current)),
            Slot::Consumed(_) => false,
        }
    }

    /// Returns how the job ended, and what `test` says of its value if it returned one.
    pub(crate) fn inspect(&self, test: fn(&T) -> bool) -> Option<(OutcomeKind, bool)> {
        match &self.slot {
            Slot::Pending(task) => task.inspect(test),
            Slot::Consumed(kind) => Some((*kind, false)),
        }
    }

    /// Spins for less than a microsecond until the job ends, if that may pay.
    fn spin_in_poll(&self, waker: &Waker) -> PollSpun {
        let task = self.task();
        let may_pay = || {
            let scheduler = task.scheduler();
            // A worker may have to run the job itself. And a handle that is polled again with the
            // same waker was not polled for its own sake.
            !scheduler.has_backlog()
                && scheduler.role() == Role::Outside
                && !state_of(&**task, |state| state.will_wake(waker))
        };
        spin_in_poll(waker, may_pay, || task.is_resolved())
    }

    /// Registers the context's waker, if the job is not finished.
    fn register(&self, context: &Context<'_>) -> Registered {
        let (task, waker) = (self.task(), context.waker());
        let role = task.scheduler().role();
        let poller = match role {
            Role::Worker | Role::StatefulWorker if in_untimed_block_on() => Poller::BlockOn,
            Role::Worker | Role::StatefulWorker => Poller::Worker,
            Role::Initializing | Role::Outside => Poller::Elsewhere,
        };
        let is_awaited = poller == Poller::BlockOn && role == Role::StatefulWorker;
        if is_awaited {
            if let Some(deadlock) = unreachable() {
                if state_of(&**task, |state| state.is_queued()) {
                    return Registered::Unreachable(deadlock);
                }
            }
        }
        let polled = state_of(&**task, |state| state.note_poll(waker, poller));
        if !polled.will_wake {
            let waiter = if is_block_on_waker(waker) {
                Waiter::BlockOn
            } else {
                Waiter::Task
            };
            // Cloning a waker runs user code, so it happens outside the lock.
            let waker = Some(waker.clone());
            match state_of(&**task, |state| state.register(waker, waiter)) {
                Register::Registered { replaced } => {
                    drop_waker(replaced.map(|(waker, _)| waker));
                }
                Register::Finished(waker) => {
                    drop_waker(waker);
                    return Registered::Finished;
                }
            }
        }
        if task.scheduler().has_backlog() {
            note_backlog();
        }
        // After the registration: a probe that comes from here on finds the waker.
        if is_awaited {
            note_awaited(&self.raw(), polled);
        } else if poller == Poller::BlockOn {
            offer(&self.raw(), polled);
        }
        Registered::Waits
    }

    /// Takes the outcome, if it is there.
    ///
    /// # Panics
    ///
    /// Panics if it was taken.
    #[track_caller]
    fn take(&mut self) -> Option<Result<T, JoinError>> {
        match self.task().take() {
            Taken::NotYet => None,
            Taken::Outcome {
                outcome,
                has_callbacks,
            } => {
                if !has_callbacks {
                    self.release(OutcomeKind::of(&outcome));
                }
                Some(outcome)
            }
            // To wait here would be to wait for itself. The outcome is not needed any longer.
            Taken::CancelledHere => {
                self.task().detach();
                let origin = state_of(&**self.task(), |state| state.origin());
                Some(Err(JoinError::cancelled().submitted_at(origin)))
            }
            Taken::Nothing => panic!("{TAKEN}"),
        }
    }

    /// Releases the task, so that nothing keeps it while the handle lives on.
    fn release(&mut self, kind: OutcomeKind) {
        let task = mem::replace(&mut self.slot, Slot::Consumed(kind));
        // It may hold the last reference to the pool, and so to what the user gave to that.
        drop_catching("a destructor", task);
    }

    /// Cancels the job if it has not started, and returns whether the job is cancelled.
    ///
    /// What happens depends on the state of the job:
    ///
    /// - *Queued*: the job is cancelled immediately. When `cancel` returns `true`, the closure and
    ///   its captures are dropped, waiters are woken and callbacks have run: see [the
    ///   order](Self#the-end-of-a-job). A panic in a destructor is reported through `tracing`.
    /// - *Cancelled*, or being cancelled by another call: `cancel` returns `true` at once.
    /// - *Running*: `cancel` returns `false` and does not stop the job. It sets the cancel request,
    ///   which the job reads with [`cancel_requested`](crate::cancel_requested). Executors that can
    ///   stop a running job, such as a [`Promise`](crate::Promise) with a hook, return `true`.
    /// - *Running* in a worker process (`ProcessPool`): `cancel` kills the process and returns
    ///   `true`. The handle resolves with an error that [`is_cancelled`](JoinError::is_cancelled)
    ///   as soon as the process has ended. `cancel` does not wait for that.
    /// - *Finished*: `cancel` returns `false` and changes nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::{Arc, mpsc};
    ///
    /// let pool = futurepool::ThreadPool::new(1);
    /// let (go, wait) = mpsc::channel::<()>();
    /// let first = pool.submit(move || wait.recv()); // keeps the only worker busy
    ///
    /// let text = Arc::new(String::from("a long text"));
    /// let shared = Arc::clone(&text);
    /// let count = pool.submit(move || shared.len());
    ///
    /// assert!(count.cancel());
    /// assert_eq!(Arc::strong_count(&text), 1); // the closure was dropped
    /// assert!(count.join().unwrap_err().is_cancelled());
    ///
    /// drop(go); // the first job ends
    /// assert!(first.join().unwrap().is_err());
    /// ```
    #[doc(alias = "abort")]
    pub fn cancel(&self) -> bool {
        self.try_cancel().is_cancelled()
    }

    /// Returns a handle that can cancel the job and nothing else.
    ///
    /// It cancels a job whose `JoinHandle` is elsewhere, for example in an
    /// [`as_completed`](crate::as_completed()) or awaited by another task.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// let pool = futurepool::ThreadPool::new(1);
    /// let (_go, wait) = mpsc::channel::<()>();
    /// let _first = pool.submit(move || wait.recv()); // keeps the only worker busy
    ///
    /// let second = pool.submit(|| "never runs");
    /// let cancel = second.cancel_handle();
    /// let mut results = futurepool::as_completed([second]);
    /// assert!(cancel.cancel());
    /// assert!(results.wait_next().unwrap().unwrap_err().is_cancelled());
    /// ```
    #[doc(alias = "abort_handle")]
    pub fn cancel_handle(&self) -> CancelHandle {
        match &self.slot {
            Slot::Pending(_) => CancelHandle::new(self.raw()),
            Slot::Consumed(kind) => CancelHandle::of_consumed(*kind),
        }
    }

    /// Cancels the job if it is queued. A running one gets a cancel request, and is not stopped.
    pub(crate) fn request_cancel(&self) {
        if let Slot::Pending(task) = &self.slot {
            request_cancel(&**task);
        }
    }

    /// Cancels the job if it is queued, and returns whether this call has. A running one gets no
    /// cancel request.
    pub(crate) fn cancel_if_queued(&self) -> bool {
        match &self.slot {
            Slot::Pending(task) => cancel_if_queued(&**task),
            Slot::Consumed(_) => false,
        }
    }

    pub(crate) fn try_cancel(&self) -> Cancel {
        match &self.slot {
            Slot::Pending(task) => cancel(&**task),
            Slot::Consumed(kind) => Cancel::of_finished(*kind),
        }
    }

    /// Returns `true` if the job was cancelled before it started.
    ///
    /// While the job is being cancelled this is false. It becomes true after the closure was
    /// dropped, and before callbacks run.
    ///
    /// See [`is_finished`](Self::is_finished) for an example.
    #[doc(alias = "cancelled")]
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self.stage(),
            Stage::Finished(OutcomeKind::Cancelled)
                | Stage::InCallback(OutcomeKind::Cancelled)
                | Stage::Consumed(OutcomeKind::Cancelled)
        )
    }

    /// Returns `true` while the job runs.
    ///
    /// A job counts as running until its result is visible, so also during its callbacks.
    ///
    /// See [`is_finished`](Self::is_finished) for an example.
    #[doc(alias = "running")]
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.stage(), Stage::Running { .. })
    }

    /// Returns `true` once the outcome of the job is visible.
    ///
    /// This includes jobs that panicked, were cancelled or were refused. It stays true after the
    /// result was taken.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{JoinHandle, ThreadPool};
    ///
    /// fn status<T>(handle: &JoinHandle<T>) -> &'static str {
    ///     if handle.is_cancelled() {
    ///         "cancelled"
    ///     } else if handle.is_finished() {
    ///         "finished"
    ///     } else if handle.is_running() {
    ///         "running"
    ///     } else {
    ///         "queued" // or being cancelled
    ///     }
    /// }
    ///
    /// let pool = ThreadPool::new(1);
    /// let handle = pool.submit(|| ());
    /// pool.shutdown().join();
    /// assert_eq!(status(&handle), "finished");
    /// ```
    #[doc(alias = "done")]
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(
            self.stage(),
            Stage::Finished(_) | Stage::InCallback(_) | Stage::Consumed(_)
        )
    }

    /// Calls `callback` with the outcome when the job finishes.
    ///
    /// Each callback runs once, after those that were added before it:
    ///
    /// - If the job runs, its callbacks run on the same thread, before the result is visible. A
    ///   slow callback delays `join`. (Python wakes the waiters first.)
    /// - If the job is cancelled or refused, its callbacks run on the thread that does so, after
    ///   the error is visible and waiters are woken.
    /// - If the job has finished, `callback` runs immediately on the calling thread. But if other
    ///   callbacks of the job run or are about to, it runs after them, on their thread.
    ///
    /// A panic in a callback is reported through `tracing`. It affects neither the result, nor the
    /// worker, nor later callbacks. Callbacks also run after the handle was dropped. They run
    /// outside the job's `tracing` span.
    ///
    /// # Panics
    ///
    /// Panics if the result was already taken. There is no panic while callbacks of a cancelled
    /// job run or are about to: they may still do so after its error was taken.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let handle = pool.submit(|| 5);
    /// handle.add_done_callback(move |outcome| tell.send(*outcome.unwrap()).unwrap());
    /// assert_eq!(handle.join().unwrap(), 5);
    /// assert_eq!(told.recv(), Ok(5));
    /// ```
    #[doc(alias = "whenComplete")]
    #[track_caller]
    pub fn add_done_callback<C>(&self, callback: C)
    where
        C: FnOnce(Result<&T, &JoinError>) + Send + 'static,
    {
        let added = self.task().add_callback(Box::new(callback));
        assert!(
            added,
            "add_done_callback after the result of the job was taken"
        );
    }

    /// Attaches a key, which the new future returns together with the result.
    ///
    /// This replaces the dictionary of Python's `future_to_url[future]`.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let handle = pool.submit(|| "hello".len()).tag("greeting");
    /// assert_eq!(handle.key(), &"greeting");
    /// let (key, length) = futurepool::block_on(handle);
    /// assert_eq!((key, length.unwrap()), ("greeting", 5));
    /// ```
    #[doc(alias = "future_to_url")]
    pub fn tag<K>(self, key: K) -> Tagged<K, Self> {
        Tagged::new(key, self)
    }

    /// Converts the handle into one that cancels its job when dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let (_go, wait) = std::sync::mpsc::channel::<()>();
    /// let _first = pool.submit(move || wait.recv()); // keeps the only worker busy
    /// let second = pool.submit(|| unreachable!()).cancel_on_drop();
    /// drop(second);
    /// assert_eq!(pool.metrics().cancelled, 1);
    /// ```
    #[doc(alias = "AbortOnDropHandle")]
    pub fn cancel_on_drop(self) -> CancelOnDrop<T> {
        CancelOnDrop::new(self)
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.take() {
            return Poll::Ready(outcome);
        }
        match self.spin_in_poll(context.waker()) {
            PollSpun::NotSeen => {}
            PollSpun::Seen => {
                if let Some(outcome) = self.take() {
                    return Poll::Ready(outcome);
                }
            }
            PollSpun::MustYield => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        loop {
            match self.register(context) {
                Registered::Waits => return Poll::Pending,
                Registered::Finished => {}
                Registered::Unreachable(deadlock) => {
                    return Poll::Ready(Err(JoinError::deadlock(deadlock)));
                }
            }
            if let Some(outcome) = self.take() {
                return Poll::Ready(outcome);
            }
        }
    }
}

impl<T> FusedFuture for JoinHandle<T> {
    fn is_terminated(&self) -> bool {
        matches!(self.stage(), Stage::Consumed(_))
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Slot::Pending(task) = &self.slot {
            task.detach();
        }
    }
}

// Invariant: a handle's state changes only under a lock, and no user code runs under that lock.
// So a panic that unwinds past a handle leaves it consistent.
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinHandle<{}>(", type_name::<T>())?;
        match self.stage() {
            Stage::Queued(_) => f.write_str("Queued")?,
            Stage::Running { .. } => f.write_str("Running")?,
            Stage::Cancelling(_) => f.write_str("Cancelling")?,
            Stage::Finished(kind) | Stage::InCallback(kind) => write!(f, "Finished: {kind:?}")?,
            Stage::Consumed(kind) => write!(f, "Finished: {kind:?}, taken")?,
        }
        f.write_str(")")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::Location;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{OnceLock, Weak};
    use std::task::Wake;

    use super::*;
    use crate::task::cell::{Runner, Scheduler, TaskCell};
    use crate::task::context::take_backlog;

    /// Runs its task in the middle of a poll: after the first look at the task, before the spin.
    #[derive(Default)]
    struct EndsInPoll(OnceLock<Weak<dyn RawTask>>);

    impl Scheduler for Arc<EndsInPoll> {
        fn is_stopping(&self) -> bool {
            false
        }
        fn role(&self) -> Role {
            Role::Outside
        }
        fn has_backlog(&self) -> bool {
            if let Some(task) = self.0.get().and_then(Weak::upgrade) {
                task.run(Runner::Executor);
            }
            false
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_whose_polls_never_wait_is_woken_when_it_must_give_way() {
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        let mut ready_in_a_row = 0;
        let mut gave_way = Vec::new();
        for poll in 0..1_000 {
            let scheduler = Arc::<EndsInPoll>::default();
            let closure: fn() = || ();
            let origin = Location::caller();
            let task = TaskCell::queued(closure, origin, None, 0, Arc::clone(&scheduler));
            let task: Arc<TaskCell<_, (), _>> = Arc::new(task);
            let raw: Arc<dyn RawTask> = Arc::clone(&task) as _;
            let _ = scheduler.0.set(Arc::downgrade(&raw));
            let mut handle = JoinHandle::new(task);
            let before = wakes.0.load(Ordering::Relaxed);
            if Pin::new(&mut handle).poll(&mut context).is_ready() {
                ready_in_a_row += 1;
                continue;
            }
            let now = wakes.0.load(Ordering::Relaxed);
            // `register` looks for a backlog, too, and so the first jobs have ended after all.
            assert!(handle.is_finished());
            assert_eq!(now, before + 1, "nothing else will wake the task");
            if poll >= 8 {
                gave_way.push(std::mem::take(&mut ready_in_a_row));
            }
        }
        assert_eq!(gave_way.len(), 15);
        // The first series may be one longer: a poll that gave way counts for the next one.
        assert!(
            gave_way.iter().all(|ready| (63..=64).contains(ready)),
            "{gave_way:?}"
        );
    }

    /// A pool that has more jobs queued.
    struct Busy;

    impl Scheduler for Busy {
        fn is_stopping(&self) -> bool {
            false
        }
        fn role(&self) -> Role {
            Role::Outside
        }
        fn has_backlog(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_poll_that_waits_for_a_busy_pool_says_so() {
        let closure: fn() = || ();
        let task = TaskCell::queued(closure, Location::caller(), None, 0, Busy);
        let mut handle = JoinHandle::new(Arc::new(task));
        let mut context = Context::from_waker(Waker::noop());
        assert!(!take_backlog());
        assert!(Pin::new(&mut handle).poll(&mut context).is_pending());
        assert!(take_backlog() && !take_backlog());
    }
}
