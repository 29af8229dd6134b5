//! The end of a pool, and waiting for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FusedFuture;

use crate::error::TimeoutError;
use crate::park::block_on::block_on;
use crate::park::parker::Sleeper;
use crate::pool::inner::Shared;
use crate::pool::registry::End;
use crate::util::sync::{Arc, Instant};

/// The end of a pool: a future, and for sync code [`join`](Self::join). See
/// [`ThreadPool::shutdown`](crate::ThreadPool::shutdown).
///
/// The shutdown goes on whether or not anybody waits: **dropping this value waits for nothing**, and it need not be
/// polled. It is ready when the last worker has left its loop, and so every job that was accepted is resolved, save
/// those that some other thread is just cancelling.
///
/// In a worker of the same pool all forms of waiting end when every other worker has ended, or waits in here, too. What
/// is still queued then runs after this job.
pub struct Shutdown {
    shared: Arc<Shared>,
    /// In the roster's list of those who wait.
    waiting: Option<u64>,
    /// What the wait has seen the end of.
    end: Option<End>,
}

impl Shutdown {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            waiting: None,
            end: None,
        }
    }

    /// Blocks until the threads are truly gone, their thread-locals dropped.
    ///
    /// Any number of threads may do so at once. In a worker of the same pool it joins no thread: see above.
    ///
    /// See [`ThreadPool::shutdown`](crate::ThreadPool::shutdown) for an example.
    pub fn join(mut self) {
        block_on(&mut self);
        if self.shared.own_badge().is_none() {
            self.shared.roster.join_threads();
        }
    }

    /// Waits `limit` at most for the workers to leave their loops; joins no thread.
    ///
    /// # Errors
    ///
    /// A [`TimeoutError`] that tells how many workers have not left yet, of how many there were at the most. The
    /// shutdown goes on.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use futurepool::{ThreadPool, cancel_requested};
    ///
    /// let pool = ThreadPool::new(1);
    /// let endless = pool.submit(|| while !cancel_requested() {});
    /// let late = pool.shutdown().join_timeout(Duration::from_millis(10)).unwrap_err();
    /// assert_eq!(late.to_string(), "1 (of 1) workers unfinished");
    /// pool.shutdown_now().join(); // it is not waited for any longer, but asked to end
    /// assert!(endless.is_finished());
    /// ```
    pub fn join_timeout(&mut self, limit: Duration) -> Result<(), TimeoutError> {
        let deadline = Instant::now().checked_add(limit);
        let sleeper = Sleeper::new();
        let mut context = Context::from_waker(sleeper.waker());
        while Pin::new(&mut *self).poll(&mut context).is_pending() {
            if !sleeper.sleep(deadline) {
                if Pin::new(&mut *self).poll(&mut context).is_ready() {
                    break;
                }
                self.forget();
                let (workers, peak) = self.shared.roster.head_count();
                return Err(TimeoutError::of_workers(workers, peak));
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        if let Some(id) = self.waiting.take() {
            self.shared.roster.forget(id);
        }
    }
}

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let shared = &this.shared;
        if this.end == Some(End::All) || (this.end.is_some() && shared.own_badge().is_some()) {
            return Poll::Ready(());
        }
        let poll = shared.roster.poll_end(
            &mut this.waiting,
            shared.own_badge(),
            context.waker(),
            shared.queue.is_finished(),
        );
        if let Poll::Ready(end) = poll {
            this.end = Some(end);
        }
        poll.map(drop)
    }
}

impl FusedFuture for Shutdown {
    fn is_terminated(&self) -> bool {
        self.end.is_some()
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.forget();
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (workers, _) = self.shared.roster.head_count();
        f.debug_struct("Shutdown")
            .field("workers", &workers)
            .finish_non_exhaustive()
    }
}
