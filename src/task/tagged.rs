//! A future with a key.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::FusedFuture;
use pin_project_lite::pin_project;

use crate::error::JoinError;
use crate::task::cancel_on_drop::CancelOnDrop;
use crate::task::join_handle::JoinHandle;

pin_project! {
    /// A future with a key, which it returns together with the result: see [`JoinHandle::tag`].
    ///
    /// **Dropping it drops the inner future.** A [`JoinHandle`] then detaches its job, and a
    /// [`CancelOnDrop`] cancels it.
    ///
    /// Async code awaits it; sync code calls [`join`](Self::join). The other methods of the handle
    /// are available through [`get_ref`](Self::get_ref) and [`get_mut`](Self::get_mut).
    ///
    /// # Cancel safety
    ///
    /// A poll takes the key only together with the result. Dropping a borrow of it loses neither.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{ReturnWhen, ThreadPool, wait};
    ///
    /// let pool = ThreadPool::new(2);
    /// let words = ["spam", "eggs", "ham"];
    /// let lengths = words.map(|word| pool.submit(move || word.len()).tag(word));
    /// let waited = wait(lengths, ReturnWhen::FirstCompleted).join();
    /// for mut done in waited.done {
    ///     let length = done.get_mut().try_join().expect("the job has finished")?;
    ///     println!("{}: {length}", done.key());
    /// }
    /// for late in waited.not_done {
    ///     late.get_ref().cancel();
    /// }
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    #[must_use = "dropping it drops the future in it; a handle then detaches its job"]
    pub struct Tagged<K, F> {
        // `None` once the future has returned the key.
        key: Option<K>,
        #[pin]
        future: F,
    }
}

const KEY_GONE: &str = "the key of this `Tagged` was already returned with the result";

impl<K, F> Tagged<K, F> {
    pub(crate) fn new(key: K, future: F) -> Self {
        let key = Some(key);
        Self { key, future }
    }

    /// Returns a reference to the key.
    ///
    /// # Panics
    ///
    /// Panics if the future has completed, since the key was returned with the result.
    #[must_use]
    #[track_caller]
    pub fn key(&self) -> &K {
        self.key.as_ref().expect(KEY_GONE)
    }

    /// Returns a reference to the inner future.
    #[must_use]
    pub fn get_ref(&self) -> &F {
        &self.future
    }

    /// Returns a mutable reference to the inner future.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }

    /// Returns the key and the inner future.
    ///
    /// # Panics
    ///
    /// Panics if the future has completed, since the key was returned with the result.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let tagged = pool.submit(|| "hello".len()).tag("greeting");
    /// let (key, handle) = tagged.into_inner();
    /// assert_eq!((key, handle.join().unwrap()), ("greeting", 5)); // in sync code
    /// ```
    #[must_use]
    #[track_caller]
    pub fn into_inner(self) -> (K, F) {
        (self.key.expect(KEY_GONE), self.future)
    }
}

impl<K, T> Tagged<K, JoinHandle<T>> {
    /// Blocks the calling thread until the job finishes, and returns the key and the result.
    ///
    /// See [`JoinHandle::join`] for the errors and for waits in a worker.
    ///
    /// # Panics
    ///
    /// Panics if the result was already taken.
    #[track_caller]
    pub fn join(self) -> (K, Result<T, JoinError>) {
        let (key, handle) = self.into_inner();
        (key, handle.join())
    }
}

impl<K, T> Tagged<K, CancelOnDrop<T>> {
    /// Blocks the calling thread until the job finishes, and returns the key and the result.
    ///
    /// See [`CancelOnDrop::join`] for the errors and for waits in a worker.
    ///
    /// # Panics
    ///
    /// Panics if the result was already taken.
    #[track_caller]
    pub fn join(self) -> (K, Result<T, JoinError>) {
        let (key, handle) = self.into_inner();
        (key, handle.join())
    }
}

impl<K, F: Future> Future for Tagged<K, F> {
    type Output = (K, F::Output);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let output = ready!(this.future.poll(context));
        Poll::Ready((this.key.take().expect(KEY_GONE), output))
    }
}

impl<K, F: Future> FusedFuture for Tagged<K, F> {
    fn is_terminated(&self) -> bool {
        self.key.is_none()
    }
}

impl<K: fmt::Debug, F: fmt::Debug> fmt::Debug for Tagged<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tagged")
            .field("key", &self.key)
            .field("future", &self.future)
            .finish()
    }
}
