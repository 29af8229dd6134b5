//! The caller's half of a job.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FusedFuture;

use crate::error::JoinError;
use crate::park::block_on::is_root;
use crate::park::helping::{Helpable, offer};
use crate::park::parker::Sleeper;
use crate::park::wait_graph::{self, Node};
pub(crate) use crate::task::cancel_on_drop::CancelOnDrop;
use crate::task::cell::{Awaited, Cancel, Ending, State, Take};
use crate::task::context::in_job;
pub(crate) use crate::task::tagged::Tagged;
use crate::util::spin::look_as_joiner;
use crate::util::sync::{Arc, Instant};
use crate::util::unwind::drop_catching;

const TAKEN: &str = "the result of this job was already taken from its handle";

/// A job that was submitted: await it, or join it.
///
/// It is a [`Future`] for every runtime and for none, and [`join`](Self::join) waits for it in sync code. **Dropping it
/// detaches**: the job still runs, its result is dropped; [`cancel_on_drop`](Self::cancel_on_drop) makes that a cancel.
///
/// What Python calls `Future`. It differs in that the result is taken, once, and by value: whoever polls or joins a
/// handle whose result was taken panics. For several readers let the job return an `Arc`.
///
/// # Cancel safety
///
/// A poll takes the result only when it is ready: awaiting `&mut handle` in a `select!`, or in any runtime's `timeout`, loses
/// nothing. [`wait`](crate::wait)`([handle], …).timeout(d)` needs no runtime.
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
    Pending(Arc<dyn Awaited<T>>),
    /// The result was taken, and the cell let go of.
    Consumed(Ending),
}

const _: () = assert!(
    size_of::<Slot<()>>() == size_of::<Arc<dyn Awaited<()>>>(),
    "what a handle knows at the end makes it no larger"
);

impl<T> JoinHandle<T> {
    pub(crate) fn new(cell: Arc<dyn Awaited<T>>) -> Self {
        let slot = Slot::Pending(cell);
        Self { slot }
    }

    /// # Panics
    ///
    /// If the result was taken.
    #[track_caller]
    fn cell(&self) -> &Arc<dyn Awaited<T>> {
        match &self.slot {
            Slot::Pending(cell) => cell,
            Slot::Consumed(_) => panic!("{TAKEN}"),
        }
    }

    fn state(&self) -> State {
        match &self.slot {
            Slot::Pending(cell) => cell.state(),
            Slot::Consumed(ending) => State::Taken(*ending),
        }
    }

    /// Waits for the job in this thread, and gives its result.
    ///
    /// It blocks, also inside a runtime, where it never panics, but keeps the executor's thread from other work: await
    /// the handle there.
    ///
    /// In a worker of the pool that the job is queued in, it runs the job itself, at once and on its own stack: so jobs
    /// may wait for jobs, down to a pool of one worker. It never runs any other.
    ///
    /// # Errors
    ///
    /// A [`JoinError`] if the job panicked or never ran (cancelled, not accepted, its pool broke or got no thread); and one
    /// that [`is_deadlock`](JoinError::is_deadlock) if the job waits, in the end, for the one that calls this.
    ///
    /// # Panics
    ///
    /// If the result was already taken.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(2);
    /// let read = pool.submit(|| std::fs::read_to_string("Cargo.toml"));
    /// let text = read.join()??; // an error of the job's own comes second
    /// assert!(text.contains("futurepool"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "result")]
    #[doc(alias = "exception")]
    #[track_caller]
    pub fn join(mut self) -> Result<T, JoinError> {
        self.wait(None)
    }

    /// As [`join`](Self::join), but waits `limit` at most; after a timeout the handle is as it was.
    ///
    /// # Errors
    ///
    /// Those of [`join`](Self::join), and one that [`is_timeout`](JoinError::is_timeout).
    ///
    /// # Panics
    ///
    /// If the result was already taken.
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
    pub fn join_timeout(&mut self, limit: Duration) -> Result<T, JoinError> {
        // A limit too long for the clock is none.
        match Instant::now().checked_add(limit) {
            Some(deadline) => self.wait(Some(deadline)),
            None => self.wait(None),
        }
    }

    /// Takes the result if it is there; `None` if the job is not done, and if the result was already taken.
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
    ///     // Draw the next picture.
    ///     # std::thread::yield_now();
    /// };
    /// assert_eq!(answer, 42);
    /// ```
    pub fn try_join(&mut self) -> Option<Result<T, JoinError>> {
        match &self.slot {
            Slot::Pending(_) => self.take(),
            Slot::Consumed(_) => None,
        }
    }

    #[track_caller]
    fn wait(&mut self, deadline: Option<Instant>) -> Result<T, JoinError> {
        if let Some(outcome) = self.take_or_doom() {
            return outcome;
        }
        if deadline.is_none() {
            if self.help() {
                if let Some(outcome) = self.take_or_doom() {
                    return outcome;
                }
            }
            if in_job() {
                if let Some(circle) = wait_graph::of_own_thread(&*self.node()) {
                    return Err(JoinError::deadlock(circle));
                }
            }
        }
        if look_as_joiner(deadline, || self.is_finished()) {
            return self.take_finished();
        }
        let sleeper = Sleeper::new();
        let previous = loop {
            match self.cell().listen(Some(sleeper.waker().clone())) {
                Ok(previous) => break previous,
                Err(_) => {
                    if let Some(outcome) = self.take_or_doom() {
                        return outcome;
                    }
                }
            }
        };
        let outcome = self.sleep(&sleeper, deadline);
        let previous = match outcome {
            Some(_) => previous,
            // A task may still wait for the handle: its waker comes back.
            None => match self.cell().listen(previous) {
                Ok(own) => own,
                // It was resolved just now.
                Err(previous) => {
                    drop_catching("a waker's destructor", previous);
                    return self.take_or_doom().unwrap_or(Err(JoinError::timeout()));
                }
            },
        };
        if previous.is_some() {
            drop_catching("a waker's destructor", previous);
        }
        outcome.unwrap_or(Err(JoinError::timeout()))
    }

    /// `None` if the time is up.
    fn sleep(
        &mut self,
        sleeper: &Sleeper,
        deadline: Option<Instant>,
    ) -> Option<Result<T, JoinError>> {
        loop {
            // It may have come to the pool only now, or since the last look.
            if deadline.is_none() && self.help() {
                if let Some(outcome) = self.take_or_doom() {
                    return Some(outcome);
                }
            }
            // Only a job can be waited for, and only a wait without end closes a circle.
            let entry = match deadline.is_none() && in_job() {
                true => match wait_graph::wait_for(self.node(), sleeper.waker()) {
                    Ok(entry) => Some(entry),
                    Err(circle) => return Some(Err(JoinError::deadlock(circle))),
                },
                false => None,
            };
            let called = sleeper.sleep_only(deadline);
            let verdict = entry.and_then(wait_graph::Entry::leave);
            sleeper.do_chore();
            if let Some(outcome) = self.take_or_doom() {
                return Some(outcome);
            }
            if !called {
                return None;
            }
            if let Some(circle) = verdict {
                return Some(Err(JoinError::deadlock(circle)));
            }
        }
    }

    /// Runs the job, if this thread is a worker of the pool that it is queued in; says whether it did.
    pub(crate) fn help(&self) -> bool {
        match &self.slot {
            Slot::Pending(cell) => cell.is_helpable() && Arc::clone(cell).helpable().help(),
            Slot::Consumed(_) => false,
        }
    }

    /// The job, to be run by a waiter and to be waited for; neither keeps it alive.
    pub(crate) fn weak(&self) -> (Weak<dyn Helpable>, Weak<dyn Node>) {
        let helpable = Arc::clone(self.cell()).helpable();
        (Arc::downgrade(&helpable), Arc::downgrade(&self.node()))
    }

    /// The job, to be waited for.
    pub(crate) fn node(&self) -> Arc<dyn Node> {
        Arc::clone(self.cell()).node()
    }

    /// As [`poll`](Future::poll), but the outcome stays.
    pub(crate) fn poll_finished(&self, context: &Context<'_>) -> Poll<()> {
        loop {
            match self.state() {
                State::Finished(_) | State::Taken(_) => return Poll::Ready(()),
                _ if self.cell().is_condemned() => self.cell().meet_doom(),
                _ => {}
            }
            if self.listen(context) {
                return Poll::Pending;
            }
        }
    }

    /// How the job ended, and what `look` says of its value if it returned.
    pub(crate) fn peek(&self, look: fn(&T) -> bool) -> Option<(Ending, bool)> {
        match &self.slot {
            Slot::Pending(cell) => cell.peek(look),
            Slot::Consumed(ending) => Some((*ending, false)),
        }
    }

    /// Sees to it that the context's waker is called; false if the job is resolved, or condemned.
    fn listen(&self, context: &Context<'_>) -> bool {
        if !self.cell().is_heard(context.waker()) {
            match self.cell().listen(Some(context.waker().clone())) {
                Ok(previous) => {
                    if previous.is_some() {
                        drop_catching("a waker's destructor", previous);
                    }
                }
                Err(waker) => {
                    drop_catching("a waker's destructor", waker);
                    return false;
                }
            }
        }
        offer(|| {
            let helpable = self.cell().is_helpable();
            helpable.then(|| Arc::downgrade(&Arc::clone(self.cell()).helpable()))
        });
        true
    }

    /// The outcome, if it is there, or if the job is condemned.
    #[track_caller]
    fn take_or_doom(&mut self) -> Option<Result<T, JoinError>> {
        match self.cell().take() {
            Take::Now(outcome) => Some(self.consume(outcome)),
            Take::NotYet => None,
            Take::Condemned => {
                self.cell().meet_doom();
                self.take()
            }
        }
    }

    /// The outcome, if it is there.
    fn take(&mut self) -> Option<Result<T, JoinError>> {
        match self.cell().take() {
            Take::Now(outcome) => Some(self.consume(outcome)),
            Take::NotYet | Take::Condemned => None,
        }
    }

    fn consume(&mut self, outcome: Result<T, JoinError>) -> Result<T, JoinError> {
        let cell = mem::replace(&mut self.slot, Slot::Consumed(Ending::of(&outcome)));
        // It may be the last that holds the pool, and so what the user gave to that.
        drop_catching("a destructor", cell);
        outcome
    }

    fn take_finished(&mut self) -> Result<T, JoinError> {
        self.take()
            .expect("it is finished, and nobody else can take it")
    }

    /// Cancels the job if it has not started; says whether it is cancelled.
    ///
    /// A queued job is cancelled **at once**, wherever it is queued: first nobody can start it any more, then all that
    /// its closure captured is dropped (a panic in there goes to `tracing`), then its callbacks run, then whoever waits
    /// is woken; then this returns `true`. In a bounded pool its place is free. It is `true` also for a job that was
    /// cancelled already.
    ///
    /// A job that runs is not stopped: this returns `false` and sets its request, which it sees by
    /// [`cancel_requested`](crate::cancel_requested). A finished job stays as it is: `false`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// # let (go, wait) = std::sync::mpsc::channel::<()>();
    /// let pool = futurepool::ThreadPool::new(1);
    /// # let first = pool.submit(move || wait.recv());
    /// let text = Arc::new(String::from("a long text"));
    /// let shared = Arc::clone(&text);
    /// let count = pool.submit(move || shared.len()); // behind another job
    ///
    /// assert!(count.cancel());
    /// assert_eq!(Arc::strong_count(&text), 1); // the closure is gone already
    /// assert!(count.join().unwrap_err().is_cancelled());
    /// # drop((go, first));
    /// ```
    #[doc(alias = "abort")]
    pub fn cancel(&self) -> bool {
        self.cancel_now() != Cancel::No
    }

    pub(crate) fn cancel_now(&self) -> Cancel {
        match &self.slot {
            Slot::Pending(cell) => cell.cancel(),
            Slot::Consumed(Ending::Cancelled) => Cancel::Before,
            Slot::Consumed(_) => Cancel::No,
        }
    }

    /// Whether the job was cancelled. False until its callbacks have run.
    ///
    /// See [`is_finished`](Self::is_finished) for an example.
    #[doc(alias = "cancelled")]
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self.state(),
            State::Finished(Ending::Cancelled) | State::Taken(Ending::Cancelled)
        )
    }

    /// Whether the job runs at present, or has ended and its callbacks run.
    ///
    /// See [`is_finished`](Self::is_finished) for an example.
    #[doc(alias = "running")]
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state() == State::Running
    }

    /// Whether the job is done, in whatever way: also when it was cancelled or refused, and when its result was taken.
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
    ///         "done"
    ///     } else if handle.is_running() {
    ///         "runs"
    ///     } else {
    ///         "waits"
    ///     }
    /// }
    ///
    /// let pool = ThreadPool::new(1);
    /// let handle = pool.submit(|| ());
    /// pool.shutdown().join();
    /// assert_eq!(status(&handle), "done");
    /// ```
    #[doc(alias = "done")]
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.state(), State::Finished(_) | State::Taken(_))
    }

    /// Calls `callback` with the outcome when the job is done.
    ///
    /// It runs once, in the thread that finishes or cancels the job, after the callbacks that were added before it and
    /// before anybody can see the result: a slow callback delays those who wait. (Python wakes them first.) If the job
    /// is done already it runs at once, in this thread. A callback that panics is reported through `tracing` and harms
    /// nothing else.
    ///
    /// Callbacks run also for a handle that was dropped, and outside the job's `tracing` span.
    ///
    /// # Panics
    ///
    /// If the result was already taken.
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
    pub fn add_done_callback<C>(&self, callback: C)
    where
        C: FnOnce(Result<&T, &JoinError>) + Send + 'static,
    {
        self.cell().add_callback(Box::new(callback));
    }

    /// The same future with a key beside it, which comes out with the result.
    ///
    /// What Python does with a dictionary, `future_to_url[future]`.
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
    pub fn tag<K>(self, key: K) -> Tagged<K, Self> {
        Tagged::new(key, self)
    }

    /// The same future, but dropping it cancels the job.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let (_go, wait) = std::sync::mpsc::channel::<()>();
    /// let first = pool.submit(move || wait.recv());
    /// let second = pool.submit(|| unreachable!()).cancel_on_drop();
    /// drop(second);
    /// assert_eq!(pool.metrics().cancelled, 1);
    /// # drop((_go, first));
    /// ```
    pub fn cancel_on_drop(self) -> CancelOnDrop<T> {
        CancelOnDrop::new(self)
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(outcome) = self.take_or_doom() {
                return Poll::Ready(outcome);
            }
            if is_root(&*self) {
                return Poll::Ready(self.wait(None));
            }
            if self.listen(context) {
                return Poll::Pending;
            }
        }
    }
}

impl<T> FusedFuture for JoinHandle<T> {
    fn is_terminated(&self) -> bool {
        matches!(self.state(), State::Taken(_))
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Slot::Pending(cell) = &self.slot {
            cell.detach();
        }
    }
}

// A panic can be thrown through a handle without harm: its state is changed under a lock, and a job's panic is a value.
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinHandle<{}>(", type_name::<T>())?;
        match self.state() {
            State::Queued => f.write_str("Queued")?,
            State::Running => f.write_str("Running")?,
            State::Withdrawing => f.write_str("Cancelling")?,
            State::Finished(ending) => write!(f, "Finished: {ending:?}")?,
            State::Taken(ending) => write!(f, "Finished: {ending:?}, taken")?,
        }
        f.write_str(")")
    }
}
