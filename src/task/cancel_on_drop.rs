//! A handle whose drop cancels its job.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::FusedFuture;

use crate::error::JoinError;
use crate::task::join_handle::JoinHandle;
use crate::task::tagged::Tagged;

/// A [`JoinHandle`] that cancels its job when dropped: see [`JoinHandle::cancel_on_drop`].
///
/// **Dropping it calls [`JoinHandle::cancel`].** A queued job never runs. A running job in a thread
/// continues, and sees the request through [`cancel_requested`](crate::cancel_requested). A running job in
/// a worker process is killed.
///
/// It is the same future as the handle, and dereferences to [`JoinHandle`].
///
/// # Examples
///
/// ```
/// use futurepool::{JoinError, ThreadPool};
///
/// fn both(pool: &ThreadPool) -> Result<u32, JoinError> {
///     let left = pool.submit(|| 1).cancel_on_drop();
///     let right = pool.submit(|| 2).cancel_on_drop();
///     Ok(left.join()? + right.join()?) // if `left` fails, `right` is cancelled
/// }
///
/// assert_eq!(both(&ThreadPool::new(2)).unwrap(), 3);
/// ```
#[doc(alias = "AbortOnDropHandle")]
#[must_use = "dropping it cancels the job"]
pub struct CancelOnDrop<T> {
    /// `None` once `join` or `disarm` has moved the handle out.
    handle: Option<JoinHandle<T>>,
}

const DISARMED: &str = "only `join` and `disarm` move the handle out, and both consume `self`";

impl<T> CancelOnDrop<T> {
    pub(crate) fn new(handle: JoinHandle<T>) -> Self {
        let handle = Some(handle);
        Self { handle }
    }

    /// Blocks the calling thread until the job finishes, and returns its result.
    ///
    /// This cancels nothing. See [`JoinHandle::join`] for waits in a worker.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`JoinHandle::join`].
    ///
    /// # Panics
    ///
    /// Panics if the result was already taken.
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        self.disarm().join()
    }

    /// Returns the plain handle, whose drop detaches the job.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let order = pool.submit(|| "sent").cancel_on_drop();
    /// // The order is paid: the job must run from here on, even if the caller goes away.
    /// drop(order.disarm());
    /// pool.shutdown().join();
    /// assert_eq!(pool.metrics().completed, 1);
    /// ```
    pub fn disarm(mut self) -> JoinHandle<T> {
        self.handle.take().expect(DISARMED)
    }

    /// Attaches a key, which the new future returns together with the result.
    ///
    /// Dropping the new future still cancels the job. See [`JoinHandle::tag`] for an example.
    pub fn tag<K>(self, key: K) -> Tagged<K, Self> {
        Tagged::new(key, self)
    }
}

impl<T> Deref for CancelOnDrop<T> {
    type Target = JoinHandle<T>;

    fn deref(&self) -> &JoinHandle<T> {
        self.handle.as_ref().expect(DISARMED)
    }
}

impl<T> DerefMut for CancelOnDrop<T> {
    fn deref_mut(&mut self) -> &mut JoinHandle<T> {
        self.handle.as_mut().expect(DISARMED)
    }
}

impl<T> Future for CancelOnDrop<T> {
    type Output = Result<T, JoinError>;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut **self).poll(context)
    }
}

impl<T> FusedFuture for CancelOnDrop<T> {
    fn is_terminated(&self) -> bool {
        (**self).is_terminated()
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.cancel();
        }
    }
}

impl<T> fmt::Debug for CancelOnDrop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelOnDrop").field(&**self).finish()
    }
}
