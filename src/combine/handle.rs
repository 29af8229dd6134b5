//! The handles that [`wait`](crate::wait()), [`first_ok`](crate::first_ok()) and
//! [`AsCompleted::cancel_all`](crate::AsCompleted::cancel_all) accept.
//!
//! A [`WaitHandle`] only returns the [`JoinHandle`] inside. What the combinators do with a handle
//! is in [`Inner`], so that wrappers such as [`Tagged`] need not forward each function.

use std::future::Future;
use std::task::{Context, Poll};

use crate::task::cancel_on_drop::CancelOnDrop;
use crate::task::join_handle::JoinHandle;
use crate::task::state::OutcomeKind;
use crate::task::tagged::Tagged;
use crate::util::sealed::{PRIVATE, Private};

/// A handle to a job: a [`JoinHandle`], plain, [`Tagged`] or [`CancelOnDrop`], or a `&mut` of
/// these.
///
/// [`wait`](crate::wait()), [`first_ok`](crate::first_ok()) and
/// [`AsCompleted::cancel_all`](crate::AsCompleted::cancel_all) accept these handles.
///
/// Handles of scoped jobs are futures, which [`as_completed`](crate::as_completed()) accepts, but
/// not among these.
///
/// This trait is sealed: it cannot be implemented outside this crate, and has no methods that other
/// crates can call.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handle that can be waited for",
    note = "pass handles of jobs, or `&mut handles`, but not `&handles`"
)]
pub trait WaitHandle: Future + Unpin + sealed::Sealed {
    /// The type that the job returns.
    #[doc(hidden)]
    type Value;

    /// Returns the handle inside.
    #[doc(hidden)]
    fn join_handle(&self, _: Private) -> &JoinHandle<Self::Value>;
}

/// A [`WaitHandle`] of a job that returns a `Result`.
///
/// [`wait_results`](crate::wait_results()) and [`first_ok_results`](crate::first_ok_results())
/// accept these handles.
///
/// This trait is sealed: it is implemented for every such handle, and has no methods that other
/// crates can call.
pub trait WaitResultHandle: WaitHandle {
    /// Returns whether a returned value is an `Err`.
    #[doc(hidden)]
    fn is_err(value: &Self::Value, _: Private) -> bool;
}

mod sealed {
    /// Keeps the traits from being implemented elsewhere. Their methods cannot be called elsewhere
    /// either, because no other crate has a [`Private`](super::Private).
    ///
    /// This compiles:
    ///
    /// ```
    /// use futurepool::{WaitHandle, WaitResultHandle};
    ///
    /// fn any<H: WaitHandle>(handle: &H) -> &H {
    ///     handle
    /// }
    ///
    /// fn fallible<H: WaitResultHandle>(value: &H::Value) -> &H::Value {
    ///     value
    /// }
    /// ```
    ///
    /// These calls do not compile, because an argument is missing:
    ///
    /// ```compile_fail,E0061
    /// use futurepool::{JoinHandle, WaitHandle};
    ///
    /// fn any<H: WaitHandle>(handle: &H) -> &JoinHandle<H::Value> {
    ///     handle.join_handle()
    /// }
    /// ```
    ///
    /// ```compile_fail,E0061
    /// use futurepool::WaitResultHandle;
    ///
    /// fn fallible<H: WaitResultHandle>(value: &H::Value) -> bool {
    ///     H::is_err(value)
    /// }
    /// ```
    ///
    /// No other crate can name the argument:
    ///
    /// ```compile_fail,E0603
    /// use futurepool::{JoinHandle, WaitHandle};
    ///
    /// fn any<H: WaitHandle>(handle: &H) -> &JoinHandle<H::Value> {
    ///     handle.join_handle(futurepool::util::sealed::PRIVATE)
    /// }
    /// ```
    ///
    /// The functions of [`Inner`](super::Inner) and those of a [`JoinHandle`](crate::JoinHandle)
    /// that are private cannot be called either:
    ///
    /// ```compile_fail,E0599
    /// fn any<H: futurepool::WaitHandle>(handle: &H) {
    ///     handle.help();
    /// }
    /// ```
    ///
    /// ```compile_fail,E0599
    /// fn any<H: futurepool::WaitHandle>(handle: &H, context: &std::task::Context<'_>) {
    ///     let _ = handle.poll_done(context);
    /// }
    /// ```
    ///
    /// ```compile_fail,E0624
    /// use futurepool::WaitHandle;
    ///
    /// fn plain(handle: &futurepool::JoinHandle<()>) {
    ///     handle.help();
    /// }
    /// ```
    ///
    /// ```compile_fail,E0277
    /// struct Mine;
    ///
    /// impl futurepool::WaitHandle for Mine {}
    /// ```
    pub trait Sealed {}
}

impl<T> sealed::Sealed for JoinHandle<T> {}
impl<T> WaitHandle for JoinHandle<T> {
    type Value = T;

    fn join_handle(&self, _: Private) -> &Self {
        self
    }
}

impl<T> sealed::Sealed for CancelOnDrop<T> {}
impl<T> WaitHandle for CancelOnDrop<T> {
    type Value = T;

    fn join_handle(&self, _: Private) -> &JoinHandle<T> {
        self
    }
}

impl<K, H: WaitHandle> sealed::Sealed for Tagged<K, H> {}
impl<K, H: WaitHandle> WaitHandle for Tagged<K, H> {
    type Value = H::Value;

    fn join_handle(&self, _: Private) -> &JoinHandle<H::Value> {
        self.get_ref().join_handle(PRIVATE)
    }
}

impl<H: WaitHandle + ?Sized> sealed::Sealed for &mut H {}
impl<H: WaitHandle + ?Sized> WaitHandle for &mut H {
    type Value = H::Value;

    fn join_handle(&self, _: Private) -> &JoinHandle<H::Value> {
        (**self).join_handle(PRIVATE)
    }
}

impl<H: WaitHandle<Value = Result<T, E>>, T, E> WaitResultHandle for H {
    fn is_err(value: &Result<T, E>, _: Private) -> bool {
        value.is_err()
    }
}

/// What the combinators do with a [`WaitHandle`].
///
/// These functions are not part of the public trait. Otherwise, code that imports the trait and
/// calls `cancel` on a `&mut JoinHandle` would get the trait's method instead of the handle's.
pub(crate) trait Inner: WaitHandle {
    /// Returns `Ready` once the job is finished, and leaves the result in the handle. Until then,
    /// the handle keeps the context's waker.
    fn poll_done(&self, context: &Context<'_>) -> Poll<()> {
        self.join_handle(PRIVATE).poll_finished(context)
    }

    /// Removes the waker that the last [`poll_done`](Self::poll_done) registered.
    fn remove_waker(&self) {
        self.join_handle(PRIVATE).remove_waker();
    }

    /// Returns whether the job is finished.
    fn is_done(&self) -> bool {
        // Not `is_finished`: a job that this thread is cancelling counts, and a wait for it would
        // hang.
        !self.join_handle(PRIVATE).must_wait()
    }

    /// Runs the job if it is queued in a pool of which this thread is a worker.
    fn help_job(&self) {
        self.join_handle(PRIVATE).help();
    }

    /// Cancels the job: see [`JoinHandle::cancel`].
    fn cancel_job(&self) -> bool {
        self.join_handle(PRIVATE).cancel()
    }

    /// Returns whether the job is finished and has failed. A cancel is not a failure.
    fn has_failed(&self) -> bool {
        is_failure(self.join_handle(PRIVATE).inspect(|_| false))
    }

    /// Returns whether the job has returned a value.
    fn has_returned(&self) -> bool {
        is_success(self.join_handle(PRIVATE).inspect(|_| false))
    }
}

impl<H: WaitHandle + ?Sized> Inner for H {}

/// Like [`Inner`], for jobs that return a `Result`.
pub(crate) trait InnerResult: WaitResultHandle {
    /// Returns whether the job [has failed](Inner::has_failed) or returned an `Err`.
    fn has_failed_or_err(&self) -> bool {
        is_failure(inspect_result(self))
    }

    /// Returns whether the job has returned an `Ok`.
    fn has_returned_ok(&self) -> bool {
        is_success(inspect_result(self))
    }
}

impl<H: WaitResultHandle + ?Sized> InnerResult for H {}

fn inspect_result<H: WaitResultHandle + ?Sized>(handle: &H) -> Option<(OutcomeKind, bool)> {
    let is_err = |value: &H::Value| H::is_err(value, PRIVATE);
    handle.join_handle(PRIVATE).inspect(is_err)
}

/// Takes what [`JoinHandle::inspect`] returned: how the job ended, and whether it returned an
/// `Err`.
fn is_failure(ended: Option<(OutcomeKind, bool)>) -> bool {
    match ended {
        Some((OutcomeKind::Returned, is_err)) => is_err,
        Some((
            OutcomeKind::Panicked
            | OutcomeKind::Expired
            | OutcomeKind::NotRun
            | OutcomeKind::Failed,
            _,
        )) => true,
        Some((OutcomeKind::Cancelled, _)) | None => false,
    }
}

/// Takes what [`JoinHandle::inspect`] returned: how the job ended, and whether it returned an
/// `Err`.
fn is_success(ended: Option<(OutcomeKind, bool)>) -> bool {
    matches!(ended, Some((OutcomeKind::Returned, false)))
}
