//! `wait`: waits for several handles without taking their results.
//!
//! [`Wait`] owns the handles until the wait ends, and then returns all of them, sorted into two
//! lists. It does not poll a handle as a future, which would take the result: [`Inner`] has the
//! functions that leave the result in place.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::FusedFuture;

use crate::combine::any_of::AnyOf;
use crate::combine::handle::{Inner, InnerResult, WaitHandle, WaitResultHandle};
use crate::park::block_on::block_on_until;
use crate::util::timer::Deadline;

/// The condition that ends a [`wait`].
///
/// # Examples
///
/// ```
/// use futurepool::{ReturnWhen, ThreadPool, wait};
///
/// let pool = ThreadPool::new(2);
/// let asked = ["one", "two", "three"].map(|server| pool.submit(move || server.len()));
/// let waited = wait(asked, ReturnWhen::FirstCompleted).join();
/// for late in waited.not_done {
///     late.cancel(); // the first answer is enough
/// }
/// for done in waited.done {
///     println!("{}", done.join()?);
/// }
/// # Ok::<(), futurepool::JoinError>(())
/// ```
///
/// [`first_ok`](crate::first_ok()) waits for the first job that succeeds, and cancels the others.
#[doc(alias = "return_when")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ReturnWhen {
    /// Waits until all jobs are finished.
    #[doc(alias = "ALL_COMPLETED")]
    #[default]
    AllCompleted,
    /// Waits until at least one job is finished.
    #[doc(alias = "FIRST_COMPLETED")]
    FirstCompleted,
    /// Waits until one job has failed, or all are finished.
    ///
    /// A job fails if it panics or cannot run. A cancel is not a failure, and a returned `Err` is
    /// one only in [`wait_results`].
    #[doc(alias = "FIRST_EXCEPTION")]
    FirstException,
}

/// Waits for several handles without taking their results.
///
/// The wait takes the handles and returns all of them in two lists: see [`Waited`]. Await it in
/// async code, or [`join`](Wait::join) it in sync code.
///
/// - The handles can belong to several pools. They can be plain,
///   [tagged](crate::JoinHandle::tag) or [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop), or
///   `&mut` of these.
/// - A handle in [`Waited::not_done`] can be awaited or joined again. The end of its job no longer
///   wakes the task that has waited here.
/// - **A finished handle stays finished**, so another wait for the same `&mut` handles ends at
///   once. A loop waits for [`Waited::not_done`], or uses [`as_completed`](crate::as_completed()),
///   which yields each result once.
/// - A wait for no handles ends at once.
/// - A cancelled job is finished at once. (In Python it can stay unfinished for a while.)
/// - For jobs that return a `Result`, [`wait_results`] can also end at the first `Err`.
///
/// # Examples
///
/// ```
/// use futurepool::{ReturnWhen, ThreadPool, wait};
///
/// let pool = ThreadPool::new(2);
/// let handles = vec![pool.submit(|| 1), pool.submit(|| 2)];
/// let waited = wait(handles, ReturnWhen::AllCompleted).join();
/// assert!(waited.not_done.is_empty());
/// let sum: i32 = waited.done.into_iter().map(|handle| handle.join().unwrap()).sum();
/// assert_eq!(sum, 3);
/// ```
///
/// With `&mut` handles, the caller keeps them:
///
/// ```
/// use futurepool::{ReturnWhen, ThreadPool, block_on, wait};
///
/// let pool = ThreadPool::new(2);
/// let mut handles = vec![pool.submit(|| 1), pool.submit(|| 2)];
/// block_on(async {
///     let waited = wait(&mut handles, ReturnWhen::FirstCompleted).await;
///     assert!(!waited.done.is_empty());
/// });
/// for handle in handles {
///     assert!(handle.join().is_ok());
/// }
/// ```
#[doc(alias = "join_all")]
#[doc(alias = "invokeAll")]
#[doc(alias = "select")]
pub fn wait<H: WaitHandle>(handles: impl IntoIterator<Item = H>, until: ReturnWhen) -> Wait<H> {
    Wait::new(handles.into_iter().collect(), until, H::has_failed)
}

/// Waits for several handles of jobs that return a `Result`, without taking their results.
///
/// With [`ReturnWhen::FirstException`], a returned `Err` ends the wait too. In every other way this
/// function behaves like [`wait`].
///
/// # Examples
///
/// ```
/// use futurepool::{ReturnWhen, ThreadPool, wait_results};
///
/// let pool = ThreadPool::new(2);
/// let good = pool.submit(|| "7".parse::<u8>());
/// let bad = pool.submit(|| "seven".parse::<u8>());
/// let waited = wait_results([good, bad], ReturnWhen::FirstException).join();
/// assert!(waited.done.len() >= 1);
/// ```
#[doc(alias = "try_wait")]
pub fn wait_results<H: WaitResultHandle>(
    handles: impl IntoIterator<Item = H>,
    until: ReturnWhen,
) -> Wait<H> {
    Wait::new(handles.into_iter().collect(), until, H::has_failed_or_err)
}

/// All handles of a [`wait`] that has ended, each list in the order in which they were passed.
///
/// Dropping it drops the handles. A plain handle then detaches its job.
#[doc(alias = "DoneAndNotDoneFutures")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waited<H> {
    /// The handles of finished jobs, whose results can be taken without waiting.
    pub done: Vec<H>,
    /// The other handles. Empty if the wait was for all jobs and had no timeout.
    pub not_done: Vec<H>,
}

/// A wait for several handles: see [`wait`].
///
/// **Dropping it drops the handles**: a plain handle detaches its job, and a `cancel_on_drop`
/// handle cancels it. [`into_handles`](Self::into_handles) returns the handles instead. Dropping a
/// wait over `&mut` handles leaves the handles and their jobs as they are.
///
/// A wait is a future, and [`join`](Self::join) blocks until it ends. When it ends or is dropped,
/// its wakers are removed from the handles.
///
/// # Panics
///
/// Polling a wait panics after it has completed.
///
/// # Cancel safety
///
/// A poll takes no results, so `&mut wait` can be awaited again after a `select!`. Dropping the
/// wait drops its handles. A function that makes a new wait at each poll, and drops it, is not
/// woken.
#[must_use = "a wait does nothing unless it is awaited or joined"]
pub struct Wait<H> {
    handles: Handles<H>,
    /// When the wait ends at the latest. Set by [`timeout`](Self::timeout), cleared at the end.
    deadline: Option<Deadline>,
    /// Returns whether this finished job ends the wait. Used for [`Handles::Any`] only.
    ends_wait: fn(&H) -> bool,
}

/// The handles, arranged for the condition that ends the wait.
enum Handles<H> {
    /// For a wait for all jobs.
    All(InOrder<H>),
    /// For a wait that one job can end.
    Any {
        pending: AnyOf<H>,
        /// The finished handles with their numbers, in completion order. `poll_done` moves them
        /// here.
        done: Vec<(usize, H)>,
    },
    /// The handles were returned.
    Taken,
}

/// Handles that are polled in order, since the job that finishes last ends the wait.
struct InOrder<H> {
    handles: Vec<H>,
    /// Counts the handles at the front that are known to be finished. Increased by `poll_done`.
    done: usize,
    /// Whether the wait has registered a waker with the handle at `done`. No other handle has a
    /// waker of the wait.
    has_waker: bool,
    /// [`Inner::remove_waker`], for the drop, which has no bounds.
    remove_waker: fn(&H),
}

const COMPLETED: &str = "`Wait` polled after completion";

// Handles are moved, never pinned.
impl<H> Unpin for Wait<H> {}

impl<H: WaitHandle> InOrder<H> {
    fn new(handles: Vec<H>) -> Self {
        Self {
            handles,
            done: 0,
            has_waker: false,
            remove_waker: H::remove_waker,
        }
    }

    /// Returns `Ready` once all jobs are finished.
    fn poll_done(&mut self, context: &Context<'_>) -> Poll<()> {
        // Invariant: the handles before `done` are finished and are not polled again. Of the
        // others, only the first has this task's waker.
        while let Some(handle) = self.handles.get(self.done) {
            if handle.poll_done(context).is_pending() {
                self.has_waker = true;
                return Poll::Pending;
            }
            self.has_waker = false;
            self.done += 1;
        }
        Poll::Ready(())
    }
}

impl<H> InOrder<H> {
    fn into_handles(mut self) -> Vec<H> {
        self.remove_waker();
        mem::take(&mut self.handles)
    }

    fn remove_waker(&mut self) {
        if let (true, Some(handle)) = (self.has_waker, self.handles.get(self.done)) {
            (self.remove_waker)(handle);
        }
    }
}

impl<H> Drop for InOrder<H> {
    fn drop(&mut self) {
        self.remove_waker();
    }
}

impl<H: WaitHandle> Wait<H> {
    fn new(handles: Vec<H>, until: ReturnWhen, failed: fn(&H) -> bool) -> Self {
        let handles = match until {
            ReturnWhen::AllCompleted => Handles::All(InOrder::new(handles)),
            ReturnWhen::FirstCompleted | ReturnWhen::FirstException => Handles::Any {
                pending: AnyOf::new(handles),
                done: Vec::new(),
            },
        };
        Self {
            handles,
            deadline: None,
            ends_wait: match until {
                ReturnWhen::FirstCompleted => |_| true,
                _ => failed,
            },
        }
    }

    /// Sets a timeout for the wait, counted from this call.
    ///
    /// A timeout is not an error. When it elapses, the wait ends, and [`Waited::done`] has the
    /// handles of the jobs that are finished by then.
    ///
    /// A timeout ends only the wait, never a job. The worker stays busy until the job returns, so a
    /// call that may block forever needs a time limit of its own, such as a socket timeout. The
    /// time that a job spends in the queue counts too.
    ///
    /// A `timeout` too long for the clock means no timeout. Timeouts work in every async runtime
    /// and in none: one timer thread serves the whole process.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use futurepool::{ReturnWhen, ThreadPool, wait};
    ///
    /// let pool = ThreadPool::new(1);
    /// let (go, held) = std::sync::mpsc::channel();
    /// let job = pool.submit(move || held.recv());
    /// let timeout = Duration::from_millis(10);
    /// let mut waited = wait([job], ReturnWhen::AllCompleted).timeout(timeout).join();
    /// let job = waited.not_done.pop().expect("the job waits for the message");
    /// go.send("go").unwrap();
    /// assert_eq!(job.join().unwrap(), Ok("go"));
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.deadline = Some(Deadline::after(timeout));
        self
    }

    /// Blocks until the wait ends.
    ///
    /// **In async code, await the wait instead**: `join` blocks the runtime's thread.
    ///
    /// In a worker of a pool and without a timeout, this method runs queued jobs of that pool that
    /// it waits for. A wait for all jobs runs them immediately; any other wait runs one only while
    /// no other worker can.
    ///
    /// # Panics
    ///
    /// Panics if the wait has completed.
    ///
    /// # Examples
    ///
    /// See [`wait`] for an example.
    #[track_caller]
    pub fn join(mut self) -> Waited<H> {
        // Here, because a closure cannot name the caller's line.
        assert!(!self.is_terminated(), "{COMPLETED}");
        let deadline = self.deadline.as_ref().and_then(Deadline::instant);
        // A job cannot be interrupted, so a wait with a deadline runs none.
        if let (Handles::All(in_order), None) = (&self.handles, deadline) {
            in_order.handles.iter().for_each(Inner::help_job);
        }
        let done = std::future::poll_fn(|context| self.poll_done(context));
        // Whether the deadline has elapsed does not matter: `finish` asks each handle.
        block_on_until(pin!(done), deadline);
        self.finish()
    }

    /// Polls for the condition that ends the wait. The caller waits for the deadline.
    #[track_caller]
    fn poll_done(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.handles {
            Handles::All(in_order) => in_order.poll_done(context),
            Handles::Any { pending, done } => {
                while let Some((number, handle)) = ready!(pending.poll_next(context)) {
                    let ends_wait = (self.ends_wait)(&handle);
                    done.push((number, handle));
                    if ends_wait {
                        break;
                    }
                }
                Poll::Ready(())
            }
            Handles::Taken => panic!("{COMPLETED}"),
        }
    }

    /// Sorts the handles into two lists. A job that finishes just now counts as done, so the lists
    /// can be ahead of what `poll_done` has seen.
    fn finish(&mut self) -> Waited<H> {
        let (done, not_done) = (self.take_handles().into_iter()).partition(Inner::is_done);
        Waited { done, not_done }
    }
}

impl<H> Wait<H> {
    /// Returns all handles in the order in which they were passed, without waiting.
    ///
    /// Returns an empty vector if the wait has completed.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::FutureExt;
    /// use futurepool::{ReturnWhen, ThreadPool, wait};
    ///
    /// let pool = ThreadPool::new(1);
    /// let (go, held) = std::sync::mpsc::channel();
    /// let job = pool.submit(move || held.recv());
    /// let mut all = wait([job], ReturnWhen::AllCompleted);
    /// assert!((&mut all).now_or_never().is_none()); // the job is not finished
    ///
    /// let job = all.into_handles().remove(0);
    /// go.send("go").unwrap();
    /// assert_eq!(job.join().unwrap(), Ok("go"));
    /// ```
    #[must_use]
    pub fn into_handles(mut self) -> Vec<H> {
        self.take_handles()
    }

    fn take_handles(&mut self) -> Vec<H> {
        match mem::replace(&mut self.handles, Handles::Taken) {
            Handles::All(in_order) => in_order.into_handles(),
            Handles::Any { pending, mut done } => {
                done.extend(pending.into_handles());
                done.sort_unstable_by_key(|(number, _)| *number);
                done.into_iter().map(|(_, handle)| handle).collect()
            }
            Handles::Taken => Vec::new(),
        }
    }
}

impl<H: WaitHandle> Future for Wait<H> {
    type Output = Waited<H>;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Waited<H>> {
        if self.poll_done(context).is_pending() {
            let deadline = self.deadline.as_mut();
            if deadline.is_none_or(|deadline| deadline.poll(context).is_pending()) {
                return Poll::Pending;
            }
        }
        // The timer must not wake a task that no longer waits.
        self.deadline = None;
        Poll::Ready(self.finish())
    }
}

impl<H: WaitHandle> FusedFuture for Wait<H> {
    fn is_terminated(&self) -> bool {
        matches!(self.handles, Handles::Taken)
    }
}

impl<H> fmt::Debug for Wait<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handles = match &self.handles {
            Handles::All(in_order) => in_order.handles.len(),
            Handles::Any { pending, done } => pending.len() + done.len(),
            Handles::Taken => 0,
        };
        f.debug_struct("Wait")
            .field("handles", &handles)
            .finish_non_exhaustive()
    }
}
