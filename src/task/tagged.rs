//! A future with a key.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

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
    /// Async code awaits it; sync code calls [`join`](Self::join). [`get_ref`](Self::get_ref) and
    /// [`get_mut`](Self::get_mut) return the handle, which has further methods.
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
    /// for done in waited.done {
    ///     let (word, length) = done.join();
    ///     assert_eq!(length?, word.len());
    /// }
    /// for late in waited.not_done {
    ///     late.cancel();
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

/// Implements the most used methods of a handle for a tagged one.
macro_rules! impl_handle_methods {
    ($Handle:ident) => {
        impl<K, T> Tagged<K, $Handle<T>> {
            /// Blocks the calling thread until the job finishes, and returns the key and the
            /// result.
            ///
            /// **In async code, await the handle instead**: `join` blocks the runtime's thread. See
            /// [`JoinHandle::join`] for the errors and for waits in a worker.
            ///
            /// # Panics
            ///
            /// Panics if the result was already taken.
            ///
            /// # Examples
            ///
            /// ```
            /// let pool = futurepool::ThreadPool::new(1);
            /// let tagged = pool.submit(|| "hello".len()).tag("greeting");
            /// let (key, length) = tagged.join();
            /// assert_eq!((key, length.unwrap()), ("greeting", 5));
            /// ```
            #[doc(alias = "result")]
            #[track_caller]
            pub fn join(self) -> (K, Result<T, JoinError>) {
                let (key, handle) = self.into_inner();
                (key, handle.join())
            }

            /// Blocks the calling thread until the job finishes, for at most `timeout`.
            ///
            /// The key stays here: see [`key`](Self::key). After a timeout the handle is unchanged.
            /// The timeout never stops the job. See [`JoinHandle::join_timeout`].
            ///
            /// # Errors
            ///
            /// Returns the errors of [`JoinHandle::join_timeout`].
            ///
            /// # Panics
            ///
            /// Panics if the result was already taken.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::time::Duration;
            ///
            /// let pool = futurepool::ThreadPool::new(1);
            /// let (go, wait) = std::sync::mpsc::channel();
            /// let mut tagged = pool.submit(move || wait.recv()).tag("slow");
            /// let error = tagged.join_timeout(Duration::from_millis(1)).unwrap_err();
            /// assert!(error.is_timeout());
            /// assert_eq!(tagged.key(), &"slow");
            /// go.send("now").unwrap();
            /// assert_eq!(tagged.join().1.unwrap(), Ok("now"));
            /// ```
            #[doc(alias = "result")]
            #[track_caller]
            pub fn join_timeout(&mut self, timeout: Duration) -> Result<T, JoinError> {
                self.future.join_timeout(timeout)
            }

            /// Takes the result if the job has finished. The key stays here: see
            /// [`key`](Self::key).
            ///
            /// Returns `None` before the job has finished, and after the result was taken. Never
            /// blocks.
            ///
            /// # Examples
            ///
            /// ```
            /// let pool = futurepool::ThreadPool::new(1);
            /// let mut tagged = pool.submit(|| 6 * 7).tag("answer");
            /// pool.shutdown().join();
            /// assert_eq!(tagged.try_join().unwrap().unwrap(), 42);
            /// assert_eq!(tagged.key(), &"answer");
            /// assert!(tagged.try_join().is_none());
            /// ```
            pub fn try_join(&mut self) -> Option<Result<T, JoinError>> {
                self.future.try_join()
            }

            /// Cancels the job if it has not started, and returns whether the job is cancelled: see
            /// [`JoinHandle::cancel`].
            #[doc(alias = "abort")]
            pub fn cancel(&self) -> bool {
                self.future.cancel()
            }

            /// Returns `true` once the outcome of the job is visible: see
            /// [`JoinHandle::is_finished`].
            #[doc(alias = "done")]
            #[must_use]
            pub fn is_finished(&self) -> bool {
                self.future.is_finished()
            }
        }
    };
}

impl_handle_methods!(JoinHandle);
impl_handle_methods!(CancelOnDrop);

impl<K, T> Tagged<K, JoinHandle<T>> {
    /// Converts the handle into one that cancels its job when dropped. The key stays.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let (go, wait) = std::sync::mpsc::channel::<()>();
    /// let first = pool.submit(move || wait.recv());
    /// let second = pool.submit(|| "never runs").tag("second").cancel_on_drop();
    /// drop(second);
    /// assert_eq!(pool.metrics().cancelled, 1);
    /// drop(go);
    /// assert!(first.join().is_ok());
    /// ```
    pub fn cancel_on_drop(self) -> Tagged<K, CancelOnDrop<T>> {
        Tagged {
            key: self.key,
            future: self.future.cancel_on_drop(),
        }
    }
}

impl<K, F: Future> Future for Tagged<K, F> {
    type Output = (K, F::Output);

    #[track_caller]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let output = ready!(this.future.poll(context));
        Poll::Ready((this.key.take().expect(KEY_GONE), output))
    }
}

impl<K, F: FusedFuture> FusedFuture for Tagged<K, F> {
    fn is_terminated(&self) -> bool {
        self.key.is_none() || self.future.is_terminated()
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
