//! A future with a key.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::FusedFuture;
use pin_project_lite::pin_project;

use crate::error::JoinError;
use crate::park::block_on::pass_root_on;
use crate::task::cancel_on_drop::CancelOnDrop;
use crate::task::join_handle::JoinHandle;

pin_project! {
    /// A future with a key beside it: see [`JoinHandle::tag`].
    ///
    /// Dropping it drops the future, which for a handle detaches the job. Sync code uses [`join`](Self::join),
    /// or [`block_on`](crate::block_on); what else a handle can do is behind [`get_ref`](Self::get_ref) and
    /// [`get_mut`](Self::get_mut).
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
    ///     let length = done.get_mut().try_join().expect("it is done")?;
    ///     println!("{}: {length}", done.key());
    /// }
    /// for late in waited.not_done {
    ///     late.get_ref().cancel();
    /// }
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    #[must_use = "dropping it drops the future in it; a handle then detaches its job"]
    pub struct Tagged<K, F> {
        // None once the future is done and the key was handed out.
        key: Option<K>,
        #[pin]
        future: F,
    }
}

const KEY_GONE: &str = "the key of this Tagged was handed out with its result";

impl<K, F> Tagged<K, F> {
    pub(crate) fn new(key: K, future: F) -> Self {
        let key = Some(key);
        Self { key, future }
    }

    /// The key.
    ///
    /// # Panics
    ///
    /// If it was handed out, with the result.
    #[must_use]
    #[track_caller]
    pub fn key(&self) -> &K {
        self.key.as_ref().expect(KEY_GONE)
    }

    /// The future.
    #[must_use]
    pub fn get_ref(&self) -> &F {
        &self.future
    }

    /// The future, to be changed.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }

    /// Both.
    ///
    /// # Panics
    ///
    /// If the key was handed out, with the result.
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
    /// As [`JoinHandle::join`], with the key beside the result.
    ///
    /// # Panics
    ///
    /// If the result was already taken.
    #[track_caller]
    pub fn join(self) -> (K, Result<T, JoinError>) {
        let (key, handle) = self.into_inner();
        (key, handle.join())
    }
}

impl<K, T> Tagged<K, CancelOnDrop<T>> {
    /// As [`CancelOnDrop::join`], with the key beside the result.
    ///
    /// # Panics
    ///
    /// If the result was already taken.
    #[track_caller]
    pub fn join(self) -> (K, Result<T, JoinError>) {
        let (key, handle) = self.into_inner();
        (key, handle.join())
    }
}

impl<K, F: Future> Future for Tagged<K, F> {
    type Output = (K, F::Output);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        pass_root_on(&*self, &self.future);
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
