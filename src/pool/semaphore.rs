//! The permits of a bounded queue, first come first served.
//!
//! A submitter acquires a permit before it queues a job; the permit is released when the job leaves
//! the queue. A permit that is released while submitters wait is *granted* to the first of them
//! instead of being put back, so that no later one can overtake. A waiter that gives up passes a
//! granted permit on.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::task::{Poll, Waker};

use crate::util::fault::fault_or;
use crate::util::sync::{Mutex, MutexGuard};
use crate::util::unwind::drop_waker;

#[derive(Debug)]
pub(crate) struct Semaphore {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Permits of queued jobs, of jobs about to be queued, and granted ones. The pool's own workers
    /// may exceed the capacity.
    acquired: usize,
    /// Submitters that wait, oldest first.
    waiting: BTreeMap<u64, Waker>,
    /// Submitters that have a permit and have not polled since, oldest first.
    granted: VecDeque<u64>,
    next_ticket: u64,
    /// The pool accepts no more jobs, so nothing waits any longer.
    closed: bool,
}

/// A submitter's position in the queue for permits. Its owner either
/// [polls](Semaphore::poll_acquire) until it has a permit, or [cancels](Semaphore::cancel).
#[derive(Debug)]
pub(crate) struct Ticket(u64);

impl Semaphore {
    pub(crate) fn new(capacity: usize) -> Self {
        let state = Mutex::default();
        Self { capacity, state }
    }

    #[cfg(feature = "console")]
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the number of jobs that are queued or about to be.
    pub(crate) fn queued(&self) -> usize {
        let state = self.state.lock();
        state.acquired - state.granted.len()
    }

    /// Acquires a permit if one is free and nothing waits for it. In a pool that accepts no more
    /// jobs one is always free: the caller finds out when it queues its job, and releases it.
    pub(crate) fn try_acquire(&self) -> bool {
        self.state.lock().try_acquire(self.capacity)
    }

    /// Acquires a permit, if need be above the capacity.
    pub(crate) fn force_acquire(&self) {
        self.state.lock().acquired += 1;
    }

    /// Acquires a permit, or waits for one.
    pub(crate) fn poll_acquire(&self, ticket: &mut Option<Ticket>, waker: &Waker) -> Poll<()> {
        if self.state.lock().take_permit(self.capacity, ticket) {
            return Poll::Ready(());
        }
        // Cloning a waker runs user code, so it happens outside the lock. After it, look again.
        let waker = waker.clone();
        let mut state = self.state.lock();
        if fault_or!("an_acquire_looks_once": false; state.take_permit(self.capacity, ticket)) {
            drop(state);
            drop_waker(Some(waker));
            return Poll::Ready(());
        }
        let Ticket(number) = *ticket.get_or_insert_with(|| {
            state.next_ticket += 1;
            Ticket(state.next_ticket)
        });
        let replaced = state.waiting.insert(number, waker);
        drop(state);
        drop_waker(replaced);
        Poll::Pending
    }

    /// Releases a permit. The caller wakes the returned waker, outside locks: its submitter has the
    /// permit now.
    #[must_use]
    pub(crate) fn release(&self) -> Option<Waker> {
        let mut state = self.state.lock();
        state.acquired -= 1;
        self.grant(state)
    }

    /// Stops waiting. The caller wakes the returned waker, as for [`release`](Self::release).
    #[must_use]
    pub(crate) fn cancel(&self, Ticket(number): Ticket) -> Option<Waker> {
        let mut state = self.state.lock();
        if state.take_granted(number) {
            state.acquired -= 1;
            return fault_or!("a_cancelled_acquire_keeps_its_permit": None; self.grant(state));
        }
        // Not granted: nothing changes for the others.
        let removed = state.waiting.remove(&number);
        drop(state);
        drop_waker(removed);
        None
    }

    fn grant(&self, mut state: MutexGuard<'_, State>) -> Option<Waker> {
        // The pool's own workers may have exceeded the capacity.
        if state.acquired >= self.capacity {
            return None;
        }
        // The permit changes hands without being free in between.
        let (number, waker) = state.waiting.pop_first()?;
        state.acquired += 1;
        // Invariant: tickets are granted in ascending order.
        state.granted.push_back(number);
        Some(waker)
    }

    /// Releases all submitters that wait, now and later. The caller wakes them, outside locks.
    #[must_use]
    pub(crate) fn close(&self) -> Vec<Waker> {
        let mut state = self.state.lock();
        state.closed = true;
        // A submitter finds no permit here; it takes one when it polls again.
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        waiting.into_values().collect()
    }
}

impl State {
    /// Returns whether the ticket was granted, and forgets it.
    fn take_granted(&mut self, number: u64) -> bool {
        match self.granted.binary_search(&number) {
            Ok(position) => self.granted.remove(position).is_some(),
            Err(_) => false,
        }
    }

    fn try_acquire(&mut self, capacity: usize) -> bool {
        // Invariant: while a submitter waits, no permit is free for a later one.
        let free = self.acquired < capacity && self.waiting.is_empty();
        let acquired = free || self.closed;
        self.acquired += usize::from(acquired);
        acquired
    }

    /// Takes a permit that was granted to `ticket`, or one that is free.
    fn take_permit(&mut self, capacity: usize, ticket: &mut Option<Ticket>) -> bool {
        let has_permit = match ticket {
            Some(Ticket(number)) if self.take_granted(*number) => true,
            // Released by `close`, without a permit.
            Some(_) if self.closed => self.try_acquire(capacity),
            Some(_) => false,
            None => self.try_acquire(capacity),
        };
        if has_permit {
            *ticket = None;
        }
        has_permit
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn poll(semaphore: &Semaphore, ticket: &mut Option<Ticket>) -> bool {
        semaphore.poll_acquire(ticket, Waker::noop()).is_ready()
    }

    #[test]
    fn permits_are_counted() {
        let semaphore = Semaphore::new(2);
        assert!(semaphore.try_acquire() && semaphore.try_acquire());
        assert!(!semaphore.try_acquire());
        assert!(semaphore.release().is_none());
        assert_eq!(semaphore.queued(), 1);
        assert!(semaphore.try_acquire());
    }

    #[test]
    fn a_released_permit_goes_to_the_first_that_waits_and_cannot_be_overtaken() {
        let semaphore = Semaphore::new(1);
        assert!(semaphore.try_acquire());
        let (mut first, mut second) = (None, None);
        assert!(!poll(&semaphore, &mut first) && !poll(&semaphore, &mut second));
        assert!(semaphore.release().is_some(), "the first is woken");
        assert!(!semaphore.try_acquire(), "the permit is granted already");
        assert!(!poll(&semaphore, &mut second));
        assert!(poll(&semaphore, &mut first));
        assert!(first.is_none());
    }

    #[test]
    fn a_waiter_that_gives_up_passes_its_permit_on() {
        let semaphore = Semaphore::new(1);
        assert!(semaphore.try_acquire());
        let (mut first, mut second) = (None, None);
        assert!(!poll(&semaphore, &mut first) && !poll(&semaphore, &mut second));
        assert!(semaphore.release().is_some());
        assert!(semaphore.cancel(first.unwrap()).is_some());
        assert!(poll(&semaphore, &mut second));
        assert!(semaphore.release().is_none());
        assert_eq!(semaphore.queued(), 0);
    }

    #[test]
    fn a_waiter_without_a_permit_just_leaves() {
        let semaphore = Semaphore::new(1);
        assert!(semaphore.try_acquire());
        let mut ticket = None;
        assert!(!poll(&semaphore, &mut ticket));
        assert!(semaphore.cancel(ticket.unwrap()).is_none());
        assert!(semaphore.release().is_none());
        assert!(semaphore.try_acquire());
    }

    #[test]
    fn a_worker_may_exceed_the_capacity_and_the_excess_is_paid_back_first() {
        let semaphore = Semaphore::new(1);
        assert!(semaphore.try_acquire());
        semaphore.force_acquire();
        let mut ticket = None;
        assert!(!poll(&semaphore, &mut ticket));
        assert!(semaphore.release().is_none(), "still at the capacity");
        assert!(semaphore.release().is_some());
        assert!(poll(&semaphore, &mut ticket));
    }

    #[test]
    fn close_releases_all_that_wait_now_and_later() {
        let semaphore = Semaphore::new(1);
        assert!(semaphore.try_acquire());
        let mut ticket = None;
        assert!(!poll(&semaphore, &mut ticket));
        assert_eq!(semaphore.close().len(), 1);
        assert!(poll(&semaphore, &mut ticket));
        assert!(semaphore.try_acquire());
    }
}
