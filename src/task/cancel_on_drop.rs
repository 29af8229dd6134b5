//! A handle whose drop cancels its job.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::FusedFuture;

use crate::error::JoinError;
use crate::park::block_on::pass_root_on;
use crate::task::join_handle::JoinHandle;
use crate::task::tagged::Tagged;

/// A handle that cancels its job when it is dropped: see [`JoinHandle::cancel_on_drop`].
///
/// A job that runs by then is only asked to end, see [`cancel_requested`](crate::cancel_requested). It is a future as
/// the handle is, and everything that a `&JoinHandle` or `&mut JoinHandle` can do it can do, too.
///
/// # Examples
///
/// ```
/// use futurepool::{JoinError, ThreadPool};
///
/// fn both(pool: &ThreadPool) -> Result<u32, JoinError> {
///     let left = pool.submit(|| 1).cancel_on_drop();
///     let right = pool.submit(|| 2).cancel_on_drop();
///     Ok(left.join()? + right.join()?) // if `left` fails, nobody needs `right`
/// }
///
/// assert_eq!(both(&ThreadPool::new(2)).unwrap(), 3);
/// ```
#[must_use = "dropping it cancels the job"]
pub struct CancelOnDrop<T> {
    /// `None` once it was joined or disarmed.
    handle: Option<JoinHandle<T>>,
}

const DISARMED: &str = "the handle is there until join or disarm";

impl<T> CancelOnDrop<T> {
    pub(crate) fn new(handle: JoinHandle<T>) -> Self {
        let handle = Some(handle);
        Self { handle }
    }

    /// As [`JoinHandle::join`]. Nothing is cancelled by it.
    ///
    /// # Errors
    ///
    /// Those of [`JoinHandle::join`].
    ///
    /// # Panics
    ///
    /// If the result was already taken.
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        self.disarm().join()
    }

    /// The handle alone, whose drop detaches.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let order = pool.submit(|| "sent").cancel_on_drop();
    /// // It is paid: from here on the job is to run, whoever waits for it.
    /// drop(order.disarm());
    /// pool.shutdown().join();
    /// assert_eq!(pool.metrics().completed, 1);
    /// ```
    pub fn disarm(mut self) -> JoinHandle<T> {
        self.handle.take().expect(DISARMED)
    }

    /// As [`JoinHandle::tag`]; dropping that cancels, too.
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

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        pass_root_on(&*self, &**self);
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
