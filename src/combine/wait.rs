//! Waiting for several handles without taking their results.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FusedFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::park::block_on::block_on_until;
use crate::task::cell::Ending;
use crate::task::join_handle::{CancelOnDrop, JoinHandle, Tagged};
use crate::util::timer::Limit;

/// When a [`wait`] is over.
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
///     late.cancel(); // one answer is enough
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
    /// All jobs are done.
    #[doc(alias = "ALL_COMPLETED")]
    #[default]
    AllCompleted,
    /// One job is done, at least.
    #[doc(alias = "FIRST_COMPLETED")]
    FirstCompleted,
    /// One job has failed: it panicked, or could not run, but for a cancel. Or all are done. An `Err` that a job
    /// *returned* counts in [`wait_results`] only.
    #[doc(alias = "FIRST_EXCEPTION")]
    FirstException,
}

/// Waits for several handles, which keep their results. It takes them, and gives them back.
///
/// For jobs that return a `Result`, and if an `Err` is to end the wait, there is [`wait_results`].
///
/// Await it, or [`join`](Wait::join) it; it gives all handles back, in two lists: see [`Waited`]. They may be of several
/// pools, plain, [tagged](crate::JoinHandle::tag) or [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop). A job that
/// was cancelled is done. (In Python it may not be, for a while.)
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

/// As [`wait`], for jobs that return a `Result`: for [`ReturnWhen::FirstException`] an `Err` that a job returned ends the
/// wait, too.
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

/// What a [`wait`] has come to: all the handles, those that are done and those that are not, each list in the order in
/// which they were given.
#[doc(alias = "DoneAndNotDoneFutures")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waited<H> {
    /// Their results can be taken at once.
    pub done: Vec<H>,
    /// After a time limit, or if it was not waited for all.
    pub not_done: Vec<H>,
}

/// A wait for several handles: see [`wait`].
///
/// It is a future, and [`join`](Self::join) blocks. **Dropping it drops the handles**, which detaches their jobs;
/// [`into_handles`](Self::into_handles) gives them back instead.
#[must_use = "nothing waits unless it is awaited or joined"]
pub struct Wait<H> {
    handles: Handles<H>,
    limit: Option<Limit>,
    /// Whether a job that is done ends the wait.
    ends: fn(&H) -> bool,
}

enum Handles<H> {
    /// For all: one after the other, since the last one ends it.
    All { handles: Vec<H>, done: usize },
    /// For one of some kind: by whoever comes first.
    Any {
        pending: FuturesUnordered<Numbered<H>>,
        done: Vec<(usize, H)>,
    },
    /// Given back.
    Gone,
}

/// Ready when the job is done.
struct Numbered<H> {
    number: usize,
    /// `None` once it was ready.
    handle: Option<H>,
}

const GONE: &str = "Wait was polled after it was ready";

// Handles are moved about, never pinned.
impl<H> Unpin for Numbered<H> {}
impl<H> Unpin for Wait<H> {}

impl<H: WaitHandle> Future for Numbered<H> {
    type Output = (usize, H);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(usize, H)> {
        let handle = self.handle.as_ref().expect(GONE);
        if handle.poll_done(context).is_pending() {
            return Poll::Pending;
        }
        let handle = self.handle.take().expect(GONE);
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
            limit: None,
            ends: match until {
                ReturnWhen::FirstCompleted => |_| true,
                _ => failed,
            },
        }
    }

    /// Ends the wait when the time is up, counted from this call. That is no error: what is done by then is in
    /// [`Waited::done`].
    ///
    /// A limit too long for the clock is none. In async code it needs no particular runtime: all limits of a process
    /// share one timer.
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
    /// let limit = Duration::from_millis(10);
    /// let mut waited = wait([job], ReturnWhen::AllCompleted).timeout(limit).join();
    /// let job = waited.not_done.pop().expect("it waits for the message");
    /// go.send("go").unwrap();
    /// assert_eq!(job.join().unwrap(), Ok("go"));
    /// ```
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = Some(Limit::after(limit));
        self
    }

    /// Waits in this thread.
    ///
    /// In a worker of a pool, and without a time limit, it runs jobs of that pool that it waits for and that are still
    /// queued: at once if it waits for all, otherwise only while no worker can.
    ///
    /// See [`wait`] for an example.
    pub fn join(mut self) -> Waited<H> {
        let deadline = self.limit.as_ref().and_then(Limit::deadline);
        if let (Handles::All { handles, .. }, None) = (&self.handles, deadline) {
            handles.iter().for_each(WaitHandle::help);
        }
        let done = std::future::poll_fn(|context| self.poll_done(context));
        // Over by its limit or not, the handles say how far it came.
        block_on_until(pin!(done), deadline);
        self.finish()
    }

    /// Ready when the wait is over, but for its time limit.
    fn poll_done(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.handles {
            Handles::All { handles, done } => {
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
                        let ends = (self.ends)(&handle);
                        done.push((number, handle));
                        if ends {
                            break;
                        }
                    }
                    Poll::Ready(None) => break,
                    Poll::Pending => return Poll::Pending,
                }
            },
            Handles::Gone => panic!("{GONE}"),
        }
        Poll::Ready(())
    }

    fn finish(&mut self) -> Waited<H> {
        let (done, not_done) = (self.take_handles().into_iter()).partition(WaitHandle::is_done);
        Waited { done, not_done }
    }
}

impl<H> Wait<H> {
    /// Gives all handles back, in the order in which they were given, without waiting.
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
    ///     // Not yet: the handles come back, and are as they were.
    ///     assert_eq!(all.into_handles().len(), 1);
    /// }
    /// # drop(go);
    /// ```
    #[must_use]
    pub fn into_handles(mut self) -> Vec<H> {
        self.take_handles()
    }

    fn take_handles(&mut self) -> Vec<H> {
        match mem::replace(&mut self.handles, Handles::Gone) {
            Handles::All { handles, .. } => handles,
            Handles::Any { pending, mut done } => {
                let numbered = |one: Numbered<H>| Some((one.number, one.handle?));
                done.extend(pending.into_iter().filter_map(numbered));
                done.sort_unstable_by_key(|(number, _)| *number);
                done.into_iter().map(|(_, handle)| handle).collect()
            }
            Handles::Gone => Vec::new(),
        }
    }
}

impl<H: WaitHandle> Future for Wait<H> {
    type Output = Waited<H>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Waited<H>> {
        if self.poll_done(context).is_pending() {
            let limit = self.limit.as_mut();
            if limit.is_none_or(|limit| limit.poll(context).is_pending()) {
                return Poll::Pending;
            }
        }
        self.limit = None;
        Poll::Ready(self.finish())
    }
}

impl<H: WaitHandle> FusedFuture for Wait<H> {
    fn is_terminated(&self) -> bool {
        matches!(self.handles, Handles::Gone)
    }
}

impl<H> fmt::Debug for Wait<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handles = match &self.handles {
            Handles::All { handles, .. } => handles.len(),
            Handles::Any { pending, done } => pending.len() + done.len(),
            Handles::Gone => 0,
        };
        f.debug_struct("Wait")
            .field("handles", &handles)
            .finish_non_exhaustive()
    }
}

/// What one can [`wait`] for: a [`JoinHandle`], plain, [`Tagged`] or as [`CancelOnDrop`].
///
/// It cannot be implemented outside this crate.
pub trait WaitHandle: sealed::Sealed {
    /// Ready when the job is done, whose result stays.
    #[doc(hidden)]
    fn poll_done(&self, context: &Context<'_>) -> Poll<()>;
    #[doc(hidden)]
    fn is_done(&self) -> bool;
    /// Runs the job, if this thread may.
    #[doc(hidden)]
    fn help(&self);
    /// Whether the job is done and has failed, but for a cancel.
    #[doc(hidden)]
    fn failed(&self) -> bool;
}

/// What one can [`wait_results`] for: a [`WaitHandle`] of a job that returns a `Result`.
///
/// It cannot be implemented outside this crate.
pub trait WaitResultHandle: WaitHandle {
    /// As [`failed`](WaitHandle::failed), or an `Err`.
    #[doc(hidden)]
    fn failed_or_err(&self) -> bool;
}

mod sealed {
    pub trait Sealed {}
}

fn is_failure<T>(handle: &JoinHandle<T>, of_value: fn(&T) -> bool) -> bool {
    match handle.peek(of_value) {
        Some((Ending::Returned, failed)) => failed,
        Some((Ending::Panicked | Ending::Refused, _)) => true,
        Some((Ending::Cancelled, _)) | None => false,
    }
}

impl<T> sealed::Sealed for JoinHandle<T> {}
impl<T> WaitHandle for JoinHandle<T> {
    fn poll_done(&self, context: &Context<'_>) -> Poll<()> {
        self.poll_finished(context)
    }

    fn is_done(&self) -> bool {
        self.is_finished()
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
