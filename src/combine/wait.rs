//! `wait`: waits for several handles without taking their results.
//!
//! [`Wait`] owns the handles until the wait ends, and then returns all of them, sorted into two
//! lists. It does not poll a handle as a future, which would take the result: [`WaitHandle`] has
//! the methods that leave the result in place.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FusedFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::park::block_on::block_on_until;
use crate::task::cancel_on_drop::CancelOnDrop;
use crate::task::join_handle::JoinHandle;
use crate::task::state::OutcomeKind;
use crate::task::tagged::Tagged;
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
///   [tagged](crate::JoinHandle::tag) or [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop).
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
pub fn wait<H: WaitHandle>(handles: impl IntoIterator<Item = H>, until: ReturnWhen) -> Wait<H> {
    Wait::new(handles.into_iter().collect(), until, H::failed)
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
    Wait::new(handles.into_iter().collect(), until, H::failed_or_err)
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
/// handle cancels it. [`into_handles`](Self::into_handles) returns the handles instead.
///
/// A wait is a future, and [`join`](Self::join) blocks until it ends.
///
/// # Panics
///
/// Polling a wait panics after it has completed.
///
/// # Cancel safety
///
/// A poll takes no results, so `&mut wait` can be awaited again after a `select!`. Dropping the
/// wait drops its handles.
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
    /// For a wait for all jobs. Polled in order, since the job that finishes last ends the wait.
    All {
        handles: Vec<H>,
        /// Counts the handles at the front that are known to be finished. Increased by `poll_done`.
        done: usize,
    },
    /// For a wait that one job can end. Polled as they are woken.
    Any {
        /// The handles not known to be finished. `poll_done` moves them to `done`.
        pending: FuturesUnordered<Numbered<H>>,
        /// The finished handles with their numbers, in completion order.
        done: Vec<(usize, H)>,
    },
    /// The handles were returned.
    Taken,
}

/// A future that returns the handle once its job is finished.
struct Numbered<H> {
    /// The place of the handle in the order in which they were passed.
    number: usize,
    /// `None` after completion.
    handle: Option<H>,
}

const COMPLETED: &str = "`Wait` polled after completion";

// Handles are moved, never pinned.
impl<H> Unpin for Numbered<H> {}
impl<H> Unpin for Wait<H> {}

impl<H: WaitHandle> Future for Numbered<H> {
    type Output = (usize, H);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(usize, H)> {
        let handle = self.handle.as_ref().expect(COMPLETED);
        if handle.poll_done(context).is_pending() {
            return Poll::Pending;
        }
        let handle = self.handle.take().expect(COMPLETED);
        Poll::Ready((self.number, handle))
    }
}

impl<H: WaitHandle> Wait<H> {
    fn new(handles: Vec<H>, until: ReturnWhen, failed: fn(&H) -> bool) -> Self {
        let number = |(number, handle)| Numbered {
            number,
            handle: Some(handle),
        };
        let handles = match until {
            ReturnWhen::AllCompleted => Handles::All { handles, done: 0 },
            ReturnWhen::FirstCompleted | ReturnWhen::FirstException => Handles::Any {
                pending: handles.into_iter().enumerate().map(number).collect(),
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
    pub fn join(mut self) -> Waited<H> {
        let deadline = self.deadline.as_ref().and_then(Deadline::instant);
        // A job cannot be interrupted, so a wait with a deadline runs none.
        if let (Handles::All { handles, .. }, None) = (&self.handles, deadline) {
            handles.iter().for_each(WaitHandle::help);
        }
        let done = std::future::poll_fn(|context| self.poll_done(context));
        // Whether the deadline has elapsed does not matter: `finish` asks each handle.
        block_on_until(pin!(done), deadline);
        self.finish()
    }

    /// Polls for the condition that ends the wait. The caller waits for the deadline.
    fn poll_done(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.handles {
            Handles::All { handles, done } => {
                // Invariant: the handles before `done` are finished and are not polled again. Of the
                // others, only the first has this task's waker.
                while let Some(handle) = handles.get(*done) {
                    if handle.poll_done(context).is_pending() {
                        return Poll::Pending;
                    }
                    *done += 1;
                }
            }
            Handles::Any { pending, done } => loop {
                match pending.poll_next_unpin(context) {
                    Poll::Ready(Some((number, handle))) => {
                        let ends_wait = (self.ends_wait)(&handle);
                        done.push((number, handle));
                        if ends_wait {
                            break;
                        }
                    }
                    Poll::Ready(None) => break,
                    Poll::Pending => return Poll::Pending,
                }
            },
            Handles::Taken => panic!("{COMPLETED}"),
        }
        Poll::Ready(())
    }

    /// Sorts the handles into two lists. A job that finishes just now counts as done, so the lists
    /// can be ahead of what `poll_done` has seen.
    fn finish(&mut self) -> Waited<H> {
        let (done, not_done) = (self.take_handles().into_iter()).partition(WaitHandle::is_done);
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
    /// # let (go, held) = std::sync::mpsc::channel::<()>();
    /// let job = pool.submit(move || held.recv());
    /// let mut all = wait([job], ReturnWhen::AllCompleted);
    /// if (&mut all).now_or_never().is_none() {
    ///     // The job is not finished, and its handle is as it was.
    ///     assert_eq!(all.into_handles().len(), 1);
    /// }
    /// # drop(go);
    /// ```
    #[must_use]
    pub fn into_handles(mut self) -> Vec<H> {
        self.take_handles()
    }

    fn take_handles(&mut self) -> Vec<H> {
        match mem::replace(&mut self.handles, Handles::Taken) {
            Handles::All { handles, .. } => handles,
            Handles::Any { pending, mut done } => {
                let with_number = |pending: Numbered<H>| Some((pending.number, pending.handle?));
                done.extend(pending.into_iter().filter_map(with_number));
                done.sort_unstable_by_key(|(number, _)| *number);
                done.into_iter().map(|(_, handle)| handle).collect()
            }
            Handles::Taken => Vec::new(),
        }
    }
}

impl<H: WaitHandle> Future for Wait<H> {
    type Output = Waited<H>;

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
            Handles::All { handles, .. } => handles.len(),
            Handles::Any { pending, done } => pending.len() + done.len(),
            Handles::Taken => 0,
        };
        f.debug_struct("Wait")
            .field("handles", &handles)
            .finish_non_exhaustive()
    }
}

/// A handle that [`wait`] accepts: a [`JoinHandle`], plain, [`Tagged`] or [`CancelOnDrop`].
///
/// This trait is sealed: it cannot be implemented outside this crate.
pub trait WaitHandle: sealed::Sealed {
    /// Returns `Ready` once the job is finished, and leaves the result in the handle.
    #[doc(hidden)]
    fn poll_done(&self, context: &Context<'_>) -> Poll<()>;
    /// Returns whether the job is finished.
    #[doc(hidden)]
    fn is_done(&self) -> bool;
    /// Runs the job if it is queued in a pool of which this thread is a worker.
    #[doc(hidden)]
    fn help(&self);
    /// Returns whether the job is finished and has failed. A cancel is not a failure.
    #[doc(hidden)]
    fn failed(&self) -> bool;
}

/// A handle that [`wait_results`] accepts: a [`WaitHandle`] of a job that returns a `Result`.
///
/// This trait is sealed: it cannot be implemented outside this crate.
pub trait WaitResultHandle: WaitHandle {
    /// Returns whether the job has [`failed`](WaitHandle::failed) or returned an `Err`.
    #[doc(hidden)]
    fn failed_or_err(&self) -> bool;
}

mod sealed {
    pub trait Sealed {}
}

/// Returns whether the job has failed. `is_err` tells whether a returned value is a failure.
fn is_failure<T>(handle: &JoinHandle<T>, is_err: fn(&T) -> bool) -> bool {
    match handle.inspect(is_err) {
        Some((OutcomeKind::Returned, failed)) => failed,
        Some((OutcomeKind::Panicked | OutcomeKind::NotRun, _)) => true,
        Some((OutcomeKind::Cancelled, _)) | None => false,
    }
}

impl<T> sealed::Sealed for JoinHandle<T> {}
impl<T> WaitHandle for JoinHandle<T> {
    fn poll_done(&self, context: &Context<'_>) -> Poll<()> {
        self.poll_finished(context)
    }

    fn is_done(&self) -> bool {
        // Not `is_finished`: a job that this thread is cancelling counts, and a wait for it would hang.
        !self.must_wait()
    }

    fn help(&self) {
        JoinHandle::help(self);
    }

    fn failed(&self) -> bool {
        is_failure(self, |_| false)
    }
}
impl<T, E> WaitResultHandle for JoinHandle<Result<T, E>> {
    fn failed_or_err(&self) -> bool {
        is_failure(self, Result::is_err)
    }
}

/// Implements [`WaitHandle`] for a type that wraps another handle.
macro_rules! forward {
    ([$($generics:tt)*] $wrapper:ty, $handle:ident => $inner:expr) => {
        impl<$($generics)*> sealed::Sealed for $wrapper {}
        impl<$($generics)*> WaitHandle for $wrapper {
            fn poll_done(&self, context: &Context<'_>) -> Poll<()> {
                let $handle = self;
                $inner.poll_done(context)
            }

            fn is_done(&self) -> bool {
                let $handle = self;
                $inner.is_done()
            }

            fn help(&self) {
                let $handle = self;
                WaitHandle::help($inner);
            }

            fn failed(&self) -> bool {
                let $handle = self;
                $inner.failed()
            }
        }
    };
}

forward!([K, H: WaitHandle] Tagged<K, H>, tagged => tagged.get_ref());
forward!([T] CancelOnDrop<T>, handle => &**handle);

impl<K, H: WaitResultHandle> WaitResultHandle for Tagged<K, H> {
    fn failed_or_err(&self) -> bool {
        self.get_ref().failed_or_err()
    }
}
impl<T, E> WaitResultHandle for CancelOnDrop<Result<T, E>> {
    fn failed_or_err(&self) -> bool {
        (**self).failed_or_err()
    }
}
