//! `first_ok`: the first job that succeeds, and a cancel for the others.
//!
//! [`FirstOk`] waits like a [`Wait`](crate::Wait) for the first handle, and looks at each finished
//! job without taking its result. Only the handle that ends the wait is polled as a future.

use std::cmp::Reverse;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::FusedFuture;

use crate::combine::any_of::AnyOf;
use crate::combine::handle::{Inner, InnerResult, WaitHandle, WaitResultHandle};
use crate::park::block_on::block_on;
use crate::util::unwind::drop_catching;

/// Returns the result of the first job that returns, and cancels the other jobs.
///
/// Await the returned [`FirstOk`] in async code, or [`join`](FirstOk::join) it in sync code.
///
/// - A job fails if it panics, cannot run or is cancelled. The wait continues with the others. If
///   the jobs return a `Result`, [`first_ok_results`] also counts an `Err` as a failure.
/// - If all jobs fail, the output is the error of the job that failed last.
/// - The others are cancelled as [`JoinHandle::cancel`](crate::JoinHandle::cancel) does, before the
///   output is returned. A running job in a thread continues, and sees the request through
///   [`cancel_requested`](crate::cancel_requested). A running job in a worker process is killed.
/// - The handles can be plain, [tagged](crate::JoinHandle::tag), or
///   [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop), or `&mut` of these. The output is that
///   of the handle, so a tagged handle also returns its key.
/// - There is no timeout. Async code uses that of its runtime. Sync code takes the first success from
///   `as_completed(handles).timeout(d)`.
///
/// # Panics
///
/// Panics if there are no handles.
///
/// # Examples
///
/// ```
/// use futurepool::{ThreadPool, first_ok};
///
/// let pool = ThreadPool::new(3);
/// let mirrors = ["a.example", "b.example", "c.example"];
/// let replies = mirrors.map(|mirror| pool.submit(move || mirror.len()).tag(mirror));
/// let (mirror, reply) = first_ok(replies).join(); // in async code: `.await`
/// assert_eq!(reply.unwrap(), mirror.len());
/// ```
#[doc(alias = "invokeAny")]
#[doc(alias = "race")]
#[doc(alias = "select_ok")]
#[doc(alias = "any")]
#[track_caller]
pub fn first_ok<H: WaitHandle>(handles: impl IntoIterator<Item = H>) -> FirstOk<H> {
    FirstOk::new(handles.into_iter().collect(), H::has_returned)
}

/// Returns the result of the first job that returns an `Ok`, and cancels the other jobs.
///
/// A returned `Err` is a failure. If all jobs fail, the output is what the job that failed last
/// returned. In every other way this function behaves like [`first_ok`].
///
/// # Panics
///
/// Panics if there are no handles.
///
/// # Examples
///
/// ```
/// use futurepool::{ThreadPool, first_ok_results};
///
/// let pool = ThreadPool::new(3);
/// let texts = ["seven", "7", "VII"];
/// let numbers = texts.map(|text| pool.submit(move || text.parse::<u8>()));
/// assert_eq!(first_ok_results(numbers).join().unwrap(), Ok(7));
///
/// let none = ["one", "two"].map(|text| pool.submit(move || text.parse::<u8>()));
/// assert!(first_ok_results(none).join().unwrap().is_err());
/// ```
#[doc(alias = "invokeAny")]
#[doc(alias = "race")]
#[doc(alias = "select_ok")]
#[doc(alias = "any")]
#[track_caller]
pub fn first_ok_results<H: WaitResultHandle>(handles: impl IntoIterator<Item = H>) -> FirstOk<H> {
    FirstOk::new(handles.into_iter().collect(), H::has_returned_ok)
}

/// A wait for the first job that succeeds: see [`first_ok`] and [`first_ok_results`].
///
/// **Dropping it cancels the jobs** that are not known to be finished.
///
/// It is a future, and [`join`](Self::join) blocks until it completes. Results that it does not
/// return stay in the handles, and can be taken from them if `&mut` handles were passed.
///
/// # Panics
///
/// Polling it panics after it has completed, and if the result of the job that ends the wait was
/// taken before.
///
/// # Cancel safety
///
/// A poll takes a result only to return it, so `&mut first` can be awaited again after a `select!`.
/// Dropping it cancels the jobs.
#[must_use = "dropping it cancels the jobs; await it or join it"]
pub struct FirstOk<H> {
    /// The handles of jobs not known to be finished. `None` after completion.
    unfinished: Option<AnyOf<H>>,
    /// The handle of the job that has failed last, with its error.
    last_failed: Option<H>,
    /// Returns whether this finished job ends the wait.
    has_succeeded: fn(&H) -> bool,
    /// [`Inner::cancel_job`], for the drop, which has no bounds.
    cancel: fn(&H) -> bool,
}

const COMPLETED: &str = "`FirstOk` polled after completion";

// Handles are moved, never pinned.
impl<H> Unpin for FirstOk<H> {}

impl<H: WaitHandle> FirstOk<H> {
    #[track_caller]
    fn new(handles: Vec<H>, has_succeeded: fn(&H) -> bool) -> Self {
        assert!(!handles.is_empty(), "a wait for the first of no handles");
        Self {
            unfinished: Some(AnyOf::new(handles)),
            last_failed: None,
            has_succeeded,
            cancel: H::cancel_job,
        }
    }

    /// Blocks until a job succeeds or all have failed.
    ///
    /// **In async code, await it instead**: `join` blocks the runtime's thread.
    ///
    /// In a worker of a pool, this method may run queued jobs of that pool that it waits for, but
    /// only while no other worker can: see [`block_on`](crate::block_on()).
    ///
    /// # Panics
    ///
    /// Panics if the wait has completed, or if the result of the job that ends it was taken before.
    ///
    /// # Examples
    ///
    /// See [`first_ok`] for an example.
    #[track_caller]
    pub fn join(self) -> H::Output {
        assert!(!self.is_terminated(), "{COMPLETED}");
        block_on(self)
    }
}

impl<H> FirstOk<H> {
    /// Cancels the jobs not known to be finished. The job passed last comes first: a worker that a
    /// cancelled job has freed then finds no other one of them to start.
    fn cancel_rest(&mut self) {
        let Some(unfinished) = self.unfinished.take() else {
            return;
        };
        let mut rest = unfinished.into_handles();
        rest.sort_unstable_by_key(|(number, _)| Reverse(*number));
        for (_, handle) in &rest {
            (self.cancel)(handle);
        }
        for handle in rest {
            // The key of a tagged handle is user data.
            drop_catching("a destructor", handle);
        }
    }
}

impl<H: WaitHandle> Future for FirstOk<H> {
    type Output = H::Output;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<H::Output> {
        let this = &mut *self;
        let Some(unfinished) = &mut this.unfinished else {
            panic!("{COMPLETED}");
        };
        let mut ended_by = loop {
            match ready!(unfinished.poll_next(context)) {
                Some((_, handle)) if (this.has_succeeded)(&handle) => break handle,
                Some((_, handle)) => {
                    let before = this.last_failed.replace(handle);
                    drop_catching("a destructor", before);
                }
                None => {
                    break (this.last_failed.take()).expect("there was a handle, and it failed");
                }
            }
        };
        this.cancel_rest();
        drop_catching("a destructor", this.last_failed.take());
        match Pin::new(&mut ended_by).poll(context) {
            Poll::Ready(output) => Poll::Ready(output),
            Poll::Pending => unreachable!("the handle of a finished job has its outcome"),
        }
    }
}

impl<H: WaitHandle> FusedFuture for FirstOk<H> {
    fn is_terminated(&self) -> bool {
        self.unfinished.is_none()
    }
}

impl<H> Drop for FirstOk<H> {
    fn drop(&mut self) {
        self.cancel_rest();
        drop_catching("a destructor", self.last_failed.take());
    }
}

impl<H> fmt::Debug for FirstOk<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstOk")
            .field(
                "unfinished",
                &self.unfinished.as_ref().map_or(0, AnyOf::len),
            )
            .finish_non_exhaustive()
    }
}
