//! Waiting until a pool has no unresolved job.
//!
//! # Why no wake-up is lost
//!
//! A pool is idle when as many jobs have ended as were submitted. Three kinds of threads check for
//! that:
//!
//! - A **waiter** adds itself to the list and writes `waiting`. Then it checks, at each poll.
//! - A **finisher** counts its job as ended, and makes the end visible. Then it reads `waiting`, and
//!   checks if that is not 0.
//! - A **submitter** reads `waiting` just before it counts its job, and checks if that is not 0. So an
//!   idle moment that the job ends is not missed, although the finisher may check too late.
//!
//! The waiter writes `waiting` and reads the counters; a finisher writes a counter and reads `waiting`
//! and the other counters. All of these are sequentially consistent. So if a waiter and the last
//! finisher meet, at least one of them sees the other; and of several finishers the one that counts
//! last sees all others.
//!
//! A submitter that misses a registration, or the end of a job, has called `submit` before that
//! happened. Its job then counts as accepted before, and there was no idle moment.
//!
//! A check reads the ended jobs first and the submitted ones last. Both only grow, and no job ends
//! before it is submitted. So if the two are equal, the pool was idle between the two reads. (Each is a
//! sum of counters that are read one after the other, which only grow, too.) The check
//! is made again under the lock of the list, after all registrations in the list.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::FusedFuture;

use crate::error::TimeoutError;
use crate::park::block_on::block_on;
use crate::park::parker::Parker;
use crate::pool::inner::PoolInner;
use crate::util::fault::fault_or;
use crate::util::sync::{Arc, AtomicUsize, Instant, Mutex, Ordering, fence};
use crate::util::unwind::{drop_waker, wake_all};

/// What waits for a pool to be idle.
#[derive(Debug, Default)]
pub(crate) struct IdleWaiters {
    /// The number of waiters in the list. Written under its lock.
    waiting: AtomicUsize,
    list: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    /// Those for which there was no idle moment yet, with the waker of the last poll.
    wakers: BTreeMap<u64, Option<Waker>>,
    last_number: u64,
}

impl IdleWaiters {
    /// Returns whether there is a waiter, at the cost of one load.
    pub(crate) fn is_any(&self) -> bool {
        // Ordering: the caller has counted the end of a job before this.
        self.waiting.load(Ordering::SeqCst) > 0
    }

    fn add(&self) -> u64 {
        let mut list = self.list.lock();
        list.last_number += 1;
        let number = list.last_number;
        list.wakers.insert(number, None);
        // Ordering: before the caller reads the counters. (The model checker takes no access for
        // sequentially consistent, only a fence.)
        self.waiting.store(list.wakers.len(), Ordering::SeqCst);
        drop(list);
        if cfg!(loom) {
            fence(Ordering::SeqCst);
        }
        number
    }

    /// Removes a waiter and returns its waker, for the caller to drop outside locks.
    fn remove(&self, number: u64) -> Option<Waker> {
        let mut list = self.list.lock();
        let waker = list.wakers.remove(&number);
        self.waiting.store(list.wakers.len(), Ordering::SeqCst);
        waker.flatten()
    }

    /// Ends all waits if `is_idle` says so. Returns the wakers, for the caller to wake outside locks.
    #[must_use]
    pub(crate) fn take_if(&self, is_idle: impl Fn() -> bool) -> Vec<Waker> {
        // The first look takes no lock: finishers of a busy pool come by here while something waits.
        if !is_idle() {
            return Vec::new();
        }
        let mut list = self.list.lock();
        // Invariant: a waiter that was added since the first look needs an idle moment of its own.
        if !is_idle() {
            return Vec::new();
        }
        let wakers = mem::take(&mut list.wakers);
        self.waiting.store(0, Ordering::SeqCst);
        drop(list);
        wakers.into_values().flatten().collect()
    }

    /// Returns `Ready` if the wait has ended; otherwise keeps the waker.
    fn poll(&self, number: u64, waker: &Waker) -> Poll<()> {
        // Cloning a waker runs user code, so it happens outside the lock.
        let mut waker = Some(waker.clone());
        let mut list = self.list.lock();
        let (poll, unused) = match list.wakers.get_mut(&number) {
            Some(registered) => (Poll::Pending, mem::replace(registered, waker.take())),
            None => (Poll::Ready(()), waker.take()),
        };
        drop(list);
        drop_waker(unused);
        poll
    }
}

impl PoolInner {
    /// Ends the waits for an idle pool if it is idle. No lock may be held.
    pub(crate) fn wake_if_idle(&self) {
        if self.idle_waiters().is_any() {
            wake_all(self.take_idle_wakers());
        }
    }

    /// Like [`wake_if_idle`](Self::wake_if_idle), but the caller wakes the wakers, outside locks.
    #[must_use]
    pub(crate) fn take_idle_wakers(&self) -> Vec<Waker> {
        self.idle_waiters().take_if(|| self.counters().is_idle())
    }
}

/// A wait until a pool is idle: async code awaits it, sync code [joins](Self::join) it. See
/// [`ThreadPool::wait_idle`](crate::ThreadPool::wait_idle).
///
/// **Dropping it only ends the wait.** The pool and its jobs are not affected.
///
/// The future is ready if at some moment since the call of `wait_idle` every accepted job was
/// resolved. Jobs that are submitted after that moment do not undo it.
///
/// In one of the pool's own workers the future is ready at once, and [`join`](Self::join) and
/// [`join_timeout`](Self::join_timeout) return at once, although jobs still run. A job cannot wait for
/// its own end.
#[must_use = "it waits only if it is awaited or joined"]
pub struct WaitIdle {
    pool: Arc<PoolInner>,
    /// This wait's number in the list of waiters.
    number: u64,
    /// How many jobs had ended at the call.
    ended: u64,
    /// The future was ready.
    done: bool,
}

impl WaitIdle {
    pub(crate) fn new(pool: Arc<PoolInner>) -> Self {
        let (ended, _) = pool.counters().ended_and_submitted();
        let number = pool.idle_waiters().add();
        Self {
            pool,
            number,
            ended,
            done: false,
        }
    }

    /// Blocks until the pool is idle, or has been since the call of `wait_idle`.
    ///
    /// Any number of threads can wait at the same time. A wait runs no jobs. In one of the pool's own
    /// workers it returns at once. In async code, await the value instead: `join` blocks the
    /// executor's thread.
    ///
    /// See [`ThreadPool::wait_idle`](crate::ThreadPool::wait_idle) for an example.
    pub fn join(self) {
        block_on(self);
    }

    /// Blocks until the pool is idle, or until `timeout` has elapsed.
    ///
    /// In one of the pool's own workers it returns `Ok(())` at once. A `timeout` too long for the clock
    /// means none.
    ///
    /// # Errors
    ///
    /// Returns a [`TimeoutError`] with the number of unresolved jobs, out of those that were unresolved
    /// at the call of `wait_idle` or submitted since. The wait can be continued.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    ///
    /// let pool = futurepool::ThreadPool::new(1);
    /// let (finish, wait_for_finish) = channel::<()>();
    /// let handle = pool.submit(move || wait_for_finish.recv());
    /// let mut idle = pool.wait_idle();
    /// let late = idle.join_timeout(Duration::from_millis(10)).unwrap_err();
    /// assert_eq!(late.to_string(), "1 (of 1) jobs unfinished");
    /// finish.send(()).unwrap();
    /// idle.join();
    /// assert!(handle.is_finished());
    /// ```
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<(), TimeoutError> {
        let deadline = Instant::now().checked_add(timeout);
        let parker = Parker::new();
        let mut context = Context::from_waker(parker.waker());
        while Pin::new(&mut *self).poll(&mut context).is_pending() {
            if parker.park(deadline) {
                continue;
            }
            let (ended, submitted) = self.pool.counters().ended_and_submitted();
            if ended == submitted {
                // The pool is idle now, so the next poll is ready.
                self.pool.wake_if_idle();
                continue;
            }
            if Pin::new(&mut *self)
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
            {
                break;
            }
            let count = |jobs| usize::try_from(jobs).unwrap_or(usize::MAX);
            let (pending, total) = (submitted - ended, submitted - self.ended);
            return Err(TimeoutError::of_jobs(count(pending), count(total)));
        }
        Ok(())
    }
}

impl Future for WaitIdle {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // A job cannot wait for its own end.
        let poll = match this.pool.current_worker() {
            Some(_) => Poll::Ready(()),
            None => {
                // The pool may have been idle at the registration. And a thread that has the results of
                // all jobs may be ahead of the worker that ends the waits.
                fault_or!("a_wait_for_idle_does_not_check": (); this.pool.wake_if_idle());
                this.pool.idle_waiters().poll(this.number, context.waker())
            }
        };
        this.done |= poll.is_ready();
        poll
    }
}

impl FusedFuture for WaitIdle {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for WaitIdle {
    fn drop(&mut self) {
        if !self.pool.is_forked() {
            drop_waker(self.pool.idle_waiters().remove(self.number));
        }
    }
}

impl fmt::Debug for WaitIdle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ended, submitted) = self.pool.counters().ended_and_submitted();
        f.debug_struct("WaitIdle")
            .field("unresolved", &(submitted - ended))
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_idle_moment_ends_all_waits_and_no_later_one() {
        let waiters = IdleWaiters::default();
        assert!(!waiters.is_any());
        let [first, second] = [waiters.add(), waiters.add()];
        assert!(waiters.is_any());
        assert!(waiters.poll(first, Waker::noop()).is_pending());
        assert!(waiters.take_if(|| false).is_empty());
        assert_eq!(waiters.take_if(|| true).len(), 1, "one has been polled");
        assert!(!waiters.is_any());
        let third = waiters.add();
        assert!(waiters.poll(first, Waker::noop()).is_ready());
        assert!(waiters.poll(second, Waker::noop()).is_ready());
        assert!(waiters.poll(third, Waker::noop()).is_pending());
    }

    #[test]
    fn a_removed_waiter_is_neither_counted_nor_woken() {
        let waiters = IdleWaiters::default();
        let [gone, stays] = [waiters.add(), waiters.add()];
        assert!(waiters.poll(gone, Waker::noop()).is_pending());
        assert!(waiters.remove(gone).is_some());
        assert!(waiters.is_any());
        assert!(waiters.take_if(|| true).is_empty());
        assert!(waiters.poll(stays, Waker::noop()).is_ready());
        assert!(waiters.remove(stays).is_none());
    }

    #[test]
    fn a_waiter_added_after_the_first_look_needs_an_idle_moment_of_its_own() {
        let waiters = IdleWaiters::default();
        let late = std::cell::Cell::new(None);
        let looks = std::cell::Cell::new(0);
        let wakers = waiters.take_if(|| {
            looks.set(looks.get() + 1);
            if looks.get() == 1 {
                late.set(Some(waiters.add()));
            }
            // A job is submitted between the two looks.
            looks.get() == 1
        });
        assert!(wakers.is_empty());
        let late = late.get().unwrap();
        assert!(waiters.poll(late, Waker::noop()).is_pending());
    }
}
