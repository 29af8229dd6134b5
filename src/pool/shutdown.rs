//! The end of a pool, and waiting for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FusedFuture;

use crate::error::TimeoutError;
use crate::park::block_on::block_on;
use crate::park::parker::Parker;
use crate::pool::inner::PoolInner;
use crate::util::sync::{Arc, Instant};

/// The shutdown of a pool: async code awaits it, sync code [joins](Self::join) it. See
/// [`ThreadPool::shutdown`](crate::ThreadPool::shutdown).
///
/// **Dropping it does not wait.** The shutdown proceeds whether or not this value is polled,
/// joined or dropped.
///
/// The future is ready when the last worker has left its loop. Every accepted job is then resolved,
/// except for jobs that another thread is cancelling at that moment.
///
/// In one of the pool's own workers the future is ready at once, and [`join`](Self::join) and
/// [`join_timeout`](Self::join_timeout) return at once, although workers still run. A worker cannot
/// wait for its own end. Jobs that are still queued run afterwards.
#[doc(alias = "awaitTermination")]
pub struct Shutdown {
    pool: Arc<PoolInner>,
    /// This wait's number in the registry's list of waiters.
    waiter: Option<u64>,
    /// The future was ready.
    done: bool,
    /// How many queued jobs the call has cancelled.
    cancelled: usize,
}

impl Shutdown {
    pub(crate) fn new(pool: Arc<PoolInner>, cancelled: usize) -> Self {
        Self {
            pool,
            waiter: None,
            done: false,
            cancelled,
        }
    }

    /// Returns how many queued jobs [`shutdown_now`](crate::ThreadPool::shutdown_now) has cancelled.
    ///
    /// A call after the first one returns 0, and so does [`shutdown`](crate::ThreadPool::shutdown), which
    /// cancels none. A job that another thread cancels first is not counted.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// let pool = futurepool::ThreadPool::new(1);
    /// let (started, wait_for_start) = channel();
    /// let (finish, wait_for_finish) = channel::<()>();
    /// let _running = pool.submit(move || {
    ///     started.send(()).unwrap();
    ///     wait_for_finish.recv()
    /// });
    /// wait_for_start.recv().unwrap(); // the only worker is busy from here on
    /// let _queued = [1, 2].map(|n| pool.submit(move || n));
    /// assert_eq!(pool.shutdown_now().cancelled(), 2);
    /// drop(finish);
    /// ```
    #[must_use]
    pub fn cancelled(&self) -> usize {
        self.cancelled
    }

    /// Blocks until the pool's threads have exited and their thread-locals are dropped.
    ///
    /// Any number of threads can call `join` at the same time. In one of the pool's own workers it
    /// returns at once.
    ///
    /// See [`ThreadPool::shutdown`](crate::ThreadPool::shutdown) for an example.
    pub fn join(mut self) {
        if self.pool.current_worker().is_some() {
            return;
        }
        block_on(&mut self);
        self.pool.registry().join_threads();
        self.pool.set_given_up(false);
    }

    /// Blocks until the pool's workers have left their loops, or until `timeout` has elapsed.
    ///
    /// Unlike [`join`](Self::join), it does not wait for the threads to exit. In one of the pool's
    /// own workers it returns `Ok(())` at once. A `timeout` too long for the clock means
    /// none.
    ///
    /// After an error, dropping the pool does not wait either: see
    /// [`ThreadPool`](crate::ThreadPool#what-dropping-it-does). The latest `join_timeout` to return
    /// counts. An `Ok`, a completed [`join`](Self::join) or a completed `.await` resets that. Calls in
    /// the pool's own workers change nothing.
    ///
    /// # Errors
    ///
    /// Returns a [`TimeoutError`] with the number of workers that have not left their loops, and
    /// the peak number of workers. The shutdown proceeds.
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
    /// pool.shutdown_now().join(); // the job sees the cancel request and returns
    /// assert!(endless.is_finished());
    /// ```
    #[doc(alias = "shutdown_timeout")]
    #[doc(alias = "awaitTermination")]
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<(), TimeoutError> {
        let deadline = Instant::now().checked_add(timeout);
        let parker = Parker::new();
        let mut context = Context::from_waker(parker.waker());
        while Pin::new(&mut *self).poll(&mut context).is_pending() {
            if !parker.park(deadline) {
                // The pool may have terminated just before the deadline.
                if Pin::new(&mut *self).poll(&mut context).is_ready() {
                    break;
                }
                self.stop_waiting();
                let (workers, peak) = self.pool.registry().counts();
                // Not a worker of the pool: its polls are ready at once.
                self.pool.set_given_up(true);
                return Err(TimeoutError::of_workers(workers, peak));
            }
        }
        Ok(())
    }

    fn stop_waiting(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.pool.registry().remove_waiter(waiter);
        }
    }
}

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let poll = match this.pool.current_worker() {
            // A worker cannot wait for its own end.
            Some(_) => Poll::Ready(()),
            None => {
                let poll = this.pool.registry().poll_termination(
                    &mut this.waiter,
                    context.waker(),
                    this.pool.is_closed_and_empty(),
                );
                if poll.is_ready() {
                    this.pool.set_given_up(false);
                }
                poll
            }
        };
        this.done |= poll.is_ready();
        poll
    }
}

impl FusedFuture for Shutdown {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        // In a forked child, another thread may have held the lock at the fork.
        if !self.pool.is_forked() {
            self.stop_waiting();
        }
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (workers, _) = self.pool.registry().counts();
        f.debug_struct("Shutdown")
            .field("workers", &workers)
            .finish_non_exhaustive()
    }
}
