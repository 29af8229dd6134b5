//! A job that is resolved by hand, and what a cancel of it calls.

use std::fmt;
use std::mem;
use std::panic::Location;

use crate::error::JoinError;
use crate::task::cell::{NoClosure, Runner, Scheduler, TaskCell, refuse, state_of};
use crate::task::join_handle::JoinHandle;
use crate::task::state::{Cancel, Origin, OutcomeKind, Stage};
use crate::util::sync::{Arc, Mutex};
use crate::util::unwind::{catch_panic, drop_catching};

/// Returns a handle that is resolved by hand, and the promise that resolves it.
///
/// This is for callback APIs, and for executors outside this crate. The handle is like that of any
/// job: async code awaits it, sync code joins it, and [`as_completed`](crate::as_completed()) and
/// [`wait`](crate::wait()) accept it.
///
/// Dropping the handle detaches the job: a value that arrives later is dropped.
///
/// # Examples
///
/// ```
/// use std::thread;
///
/// /// A library that calls back.
/// fn look_up(name: &str, answer: impl FnOnce(usize) + Send + 'static) {
///     let length = name.len();
///     thread::spawn(move || answer(length));
/// }
///
/// let (promise, handle) = futurepool::promise();
/// look_up("localhost", move |length| {
///     let _ = promise.complete(length); // an error if the handle was cancelled
/// });
/// assert_eq!(handle.join().unwrap(), 9);
/// ```
#[doc(alias = "oneshot")]
#[doc(alias = "CompletableFuture")]
#[doc(alias = "concurrent.futures.Future")]
#[track_caller]
pub fn promise<T: Send + 'static>() -> (Promise<T>, JoinHandle<T>) {
    promise_at(Location::caller())
}

/// Returns a promise whose job was submitted at `origin`.
pub(crate) fn promise_at<T: Send + 'static>(origin: Origin) -> (Promise<T>, JoinHandle<T>) {
    let closure: NoClosure<T> = || unreachable!("a promise is not run");
    let scheduler = PromiseScheduler::default();
    let task = Arc::new(TaskCell::queued(closure, origin, None, 0, scheduler));
    let handle = JoinHandle::new(Arc::clone(&task) as _);
    (Promise { task: Some(task) }, handle)
}

/// Resolves a [`JoinHandle`] by hand: see [`promise`].
///
/// **Dropping it unresolved cancels the job**: its handle resolves with an error that
/// [`is_cancelled`](JoinError::is_cancelled). So no handle waits forever.
///
/// The job is queued at first. [`set_running`](Self::set_running) makes it running, after which its
/// handle can no longer cancel it, except through a [hook](Self::on_cancel).
///
/// # Examples
///
/// ```
/// let (promise, handle) = futurepool::promise::<u32>();
/// assert!(handle.cancel()); // the job has not started
/// assert_eq!(promise.complete(7), Err(7));
/// ```
#[doc(alias = "Sender")]
#[must_use = "dropping a promise cancels its job"]
pub struct Promise<T: Send + 'static> {
    /// `None` once the promise was resolved.
    task: Option<Arc<PromiseTask<T>>>,
}

type PromiseTask<T> = TaskCell<NoClosure<T>, T, PromiseScheduler>;

impl<T: Send + 'static> Promise<T> {
    /// Resolves the job with `value`, whether it is queued or running.
    ///
    /// Callbacks run on the calling thread before the value becomes visible, as those of a job that
    /// ran.
    ///
    /// # Errors
    ///
    /// Returns the value if the job was cancelled.
    #[doc(alias = "set_result")]
    #[doc(alias = "send")]
    pub fn complete(mut self, value: T) -> Result<(), T> {
        let task = self.take();
        if !task.start_by_hand() {
            return Err(value);
        }
        task.drop_hooks();
        task.resolve(Ok(value), Runner::Executor);
        Ok(())
    }

    /// Resolves the job with `error`. Returns `false` if the job was cancelled.
    ///
    /// A queued job ends like one that never ran, so its callbacks run after the error is visible. A
    /// running job ends like one that ran. [`JoinError`] has constructors for the errors of an
    /// executor. The error of another job's handle can be passed on, its panic included.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{JoinError, promise};
    ///
    /// let (promise, handle) = promise::<u32>();
    /// assert!(promise.fail(JoinError::broken("the connection was closed")));
    /// assert!(handle.join().unwrap_err().is_broken());
    /// ```
    #[doc(alias = "set_exception")]
    pub fn fail(mut self, error: JoinError) -> bool {
        self.take().fail(error)
    }

    /// Marks the job as running. Returns `false` if it was cancelled.
    ///
    /// An executor calls this before it starts the work. From then on `cancel` of the handle only
    /// sets the cancel request and calls the [hooks](Self::on_cancel). Further calls change nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// let (promise, handle) = futurepool::promise();
    /// if promise.set_running() {
    ///     assert!(handle.is_running() && !handle.cancel());
    ///     promise.complete("done").unwrap();
    /// }
    /// assert_eq!(handle.join().unwrap(), "done");
    /// ```
    #[doc(alias = "set_running_or_notify_cancel")]
    pub fn set_running(&self) -> bool {
        self.task().start_by_hand()
    }

    /// Returns `true` if the job was cancelled before it was running.
    ///
    /// Then the handle has resolved, and there is nothing left to do.
    /// [`cancel_requested`](Self::cancel_requested) also tells of a cancel while the job was running.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self.stage(),
            Stage::Cancelling(OutcomeKind::Cancelled)
                | Stage::Finished(OutcomeKind::Cancelled)
                | Stage::InCallback(OutcomeKind::Cancelled)
                | Stage::Consumed(OutcomeKind::Cancelled)
        )
    }

    /// Returns `true` once the handle's `cancel` was called, whether the job was queued or running.
    #[must_use]
    pub fn cancel_requested(&self) -> bool {
        let requested = Stage::Running {
            cancel_requested: true,
        };
        self.stage() == requested || self.is_cancelled()
    }

    /// Adds a hook that the handle's `cancel` calls, once, on the thread that cancels.
    ///
    /// - While the job is queued, `cancel` resolves the handle first. Then the hook runs, its answer
    ///   is ignored, and `cancel` returns `true`.
    /// - While the job is running, the hook runs and `cancel` returns its answer. `true` means that
    ///   the executor stops the job. The job still has to be resolved with
    ///   [`complete`](Self::complete) or [`fail`](Self::fail). A later `cancel` returns the same answer.
    ///
    /// A hook that is added after a cancel runs at once, on the calling thread. If there are several
    /// hooks, all run in the order added, and `cancel` returns `true` if one of them does. Hooks that
    /// were not called are dropped before the job resolves. A panic in a hook is reported through
    /// `tracing` and counts as the answer `false`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// use futurepool::{JoinError, promise};
    ///
    /// let (promise, handle) = promise::<u32>();
    /// promise.set_running();
    /// let (kill, killed) = mpsc::channel();
    /// promise.on_cancel(move || kill.send(()).is_ok()); // asks the process that runs the job to end
    ///
    /// assert!(handle.cancel());
    /// killed.recv().unwrap();
    /// promise.fail(JoinError::cancelled());
    /// assert!(handle.join().unwrap_err().is_cancelled());
    /// ```
    pub fn on_cancel<F>(&self, hook: F)
    where
        F: FnOnce() -> bool + Send + 'static,
    {
        self.task().add_hook(Box::new(hook));
    }

    fn stage(&self) -> Stage {
        state_of(&**self.task(), |state| state.stage())
    }

    fn task(&self) -> &Arc<PromiseTask<T>> {
        self.task.as_ref().expect(RESOLVED)
    }

    fn take(&mut self) -> Arc<PromiseTask<T>> {
        self.task.take().expect(RESOLVED)
    }
}

const RESOLVED: &str = "only `complete` and `fail` take the task, and both consume `self`";

impl<T: Send + 'static> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.fail(JoinError::cancelled());
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise")
            .field("cancel_requested", &self.cancel_requested())
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> PromiseTask<T> {
    /// Resolves the task with `error`, unless it was cancelled.
    fn fail(&self, error: JoinError) -> bool {
        // A panic payload cannot be copied for the callbacks, so its job ends like one that ran.
        let refused = !error.is_panic() && refuse(self, &error);
        self.drop_hooks();
        if !refused && self.start_by_hand() {
            self.resolve(Err(error), Runner::Executor);
            return true;
        }
        drop_catching("the destructor of an error", error);
        refused
    }
}

/// A function that a cancel calls. Returns whether the executor stops the running job.
type Hook = Box<dyn FnOnce() -> bool + Send>;

/// The scheduler of a promise: no pool counts it, but a cancel has to be passed on.
#[derive(Default)]
pub(crate) struct PromiseScheduler {
    hooks: Mutex<Hooks>,
}

#[derive(Default)]
struct Hooks {
    /// Not called yet, in the order added.
    waiting: Vec<Hook>,
    /// `cancel` was called, so hooks that come later run at once.
    cancelled: bool,
    /// A hook has returned `true`.
    stopping: bool,
}

impl PromiseScheduler {
    fn add(&self, hook: Hook) {
        let mut hooks = self.hooks.lock();
        if !hooks.cancelled {
            hooks.waiting.push(hook);
            return;
        }
        drop(hooks);
        let stopping = call(hook);
        self.hooks.lock().stopping |= stopping;
    }

    fn drop_waiting(&self) {
        let waiting = mem::take(&mut self.hooks.lock().waiting);
        for hook in waiting {
            drop_catching("the destructor of a cancel hook", hook);
        }
    }
}

fn call(hook: Hook) -> bool {
    let mut stopping = false;
    catch_panic("a cancel hook", || stopping = hook());
    stopping
}

impl<F, T> TaskCell<F, T, PromiseScheduler> {
    fn add_hook(&self, hook: Hook) {
        self.scheduler_ref().add(hook);
    }

    fn drop_hooks(&self) {
        self.scheduler_ref().drop_waiting();
    }
}

impl Scheduler for PromiseScheduler {
    fn on_cancel(&self, cancel: Cancel) -> Cancel {
        let mut hooks = self.hooks.lock();
        hooks.cancelled = true;
        let waiting = mem::take(&mut hooks.waiting);
        drop(hooks);
        let mut stopping = false;
        for hook in waiting {
            stopping |= call(hook);
        }
        let mut hooks = self.hooks.lock();
        hooks.stopping |= stopping;
        match cancel {
            Cancel::Requested if hooks.stopping => Cancel::Stopping,
            _ => cancel,
        }
    }
}
