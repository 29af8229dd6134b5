//! What runs the tasks: any executor, behind a trait, so that tests can simulate it.

use std::any::Any;
use std::borrow::Cow;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;

use futurepool::{
    CancelHandle, EncodedCall, JoinError, JoinHandle, Payload, SubmitError, TaskExecutor,
};
use futures::FutureExt;

/// Runs tasks somewhere else than on the thread that calls it.
pub(crate) trait Runner {
    /// Starts a call. Never blocks, and never panics.
    ///
    /// `job` is the id of the job, for simulated runners.
    fn start(&self, job: &str, call: EncodedCall) -> Running;
}

/// A call that runs. Dropping it leaves the call running, and forgets its end.
pub(crate) struct Running {
    end: Pin<Box<dyn Future<Output = Result<Payload, JoinError>>>>,
    cancel: Rc<dyn Fn()>,
}

impl Running {
    /// `end` resolves when the call has ended, and `cancel` asks it to end soon.
    pub(crate) fn new(
        end: impl Future<Output = Result<Payload, JoinError>> + 'static,
        cancel: impl Fn() + 'static,
    ) -> Self {
        Self {
            end: Box::pin(end),
            cancel: Rc::new(cancel),
        }
    }

    /// Returns what asks the call to end, or kills it if the executor can.
    pub(crate) fn canceller(&self) -> Rc<dyn Fn()> {
        Rc::clone(&self.cancel)
    }
}

impl Future for Running {
    type Output = Result<Payload, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.end.poll_unpin(context)
    }
}

/// A runner over any executor of the crate.
///
/// The executor must not be bounded below the slots of the worker, nor run tasks on the calling
/// thread.
pub(crate) struct ExecutorRunner {
    executor: Arc<dyn TaskExecutor>,
}

impl ExecutorRunner {
    pub(crate) fn new(executor: Arc<dyn TaskExecutor>) -> Self {
        Self { executor }
    }
}

impl Runner for ExecutorRunner {
    fn start(&self, _: &str, call: EncodedCall) -> Running {
        let (job, handle) = call.into_job();
        let task = job.name();
        // An executor of the user's may panic. Dropping the job cancels it.
        let executor = &self.executor;
        let taken = catch_unwind(AssertUnwindSafe(|| executor.try_execute_task(job)));
        let refused = match taken {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(refusal(&error, task)),
            Err(payload) => {
                bury(payload);
                Some(JoinError::broken("the executor panicked"))
            }
        };
        let cancel = handle.cancel_handle();
        Running::new(end(handle, refused), move || cancel_call(&cancel))
    }
}

/// Waits for the end of a call, unless the executor did not take it.
async fn end(
    handle: JoinHandle<Payload>,
    refused: Option<JoinError>,
) -> Result<Payload, JoinError> {
    match refused {
        Some(error) => Err(error),
        None => handle.await,
    }
}

fn cancel_call(handle: &CancelHandle) {
    let _ = handle.cancel();
}

/// Returns the error of a call that the executor did not take, so that it certainly never started.
fn refusal<F>(error: &SubmitError<F>, task: &str) -> JoinError {
    let text = error.to_string();
    match error.is_refused() {
        true => JoinError::refused(task, text),
        false => JoinError::broken(text),
    }
}

/// Returns whether the call certainly never started, through no fault of its own: another worker
/// may do better.
pub(crate) fn is_own_failure(error: &JoinError) -> bool {
    error.is_broken() || error.is_spawn_failed() || error.is_shutdown()
}

/// Drops an error, which may hold a panic payload: a value of the user's, with a destructor.
///
/// It may block or panic, so it is not dropped on this thread.
pub(crate) fn drop_error(error: JoinError) {
    if error.is_panic() {
        bury(error.into_panic());
    }
}

/// Drops a panic payload on a thread of its own.
fn bury(payload: Box<dyn Any + Send>) {
    let is_text = payload.is::<String>() || payload.is::<&str>() || payload.is::<Cow<'_, str>>();
    if is_text {
        return;
    }
    thread_local! {
        static GRAVES: mpsc::Sender<Box<dyn Any + Send>> = start_dropping();
    }
    GRAVES.with(|graves| {
        if let Err(error) = graves.send(payload) {
            // There is no such thread. Leaking is better than a destructor on this one.
            mem::forget(error.0);
        }
    });
}

/// Starts the thread that drops panic payloads. It ends with the calling thread.
fn start_dropping() -> mpsc::Sender<Box<dyn Any + Send>> {
    let (sender, receiver) = mpsc::channel::<Box<dyn Any + Send>>();
    let drop_all = move || {
        for payload in receiver {
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            // What a destructor panics with may have such a destructor, too.
            dropped.unwrap_or_else(mem::forget);
        }
    };
    let builder = thread::Builder::new().name("futurepool-drop".to_owned());
    // A failed start drops the receiver, so that payloads are leaked.
    let _ = builder.spawn(drop_all);
    sender
}
