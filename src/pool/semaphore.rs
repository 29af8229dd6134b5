//! The places of a bounded queue, and who waits for one: first polled is first served.
//!
//! A place is taken before a job is queued and comes back when the job leaves the queue. A place that comes back while
//! somebody waits is *granted* to the first who waits, not put back, so that nobody who comes later can overtake. Who
//! stops waiting with a granted place passes it on.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::task::{Poll, Waker};

use crate::util::sync::{Mutex, MutexGuard};
use crate::util::unwind::drop_catching;

#[derive(Debug)]
pub(crate) struct Room {
    capacity: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// Places of queued jobs, of jobs about to be queued, and granted ones. A pool's own workers may take it over the
    /// capacity.
    taken: usize,
    /// Those who wait, oldest first.
    waiting: BTreeMap<u64, Waker>,
    /// Those who have a place and do not know it yet.
    granted: BTreeSet<u64>,
    next_ticket: u64,
    /// Nobody waits any more: the pool takes no more jobs.
    closed: bool,
}

/// A place in the line. Its owner either [polls](Room::poll) until it is ready or [gives up](Room::give_up).
#[derive(Debug)]
pub(crate) struct Ticket(u64);

impl Room {
    pub(crate) fn new(capacity: usize) -> Self {
        let places = Mutex::default();
        Self { capacity, places }
    }

    /// Places of jobs that are queued, or about to be.
    pub(crate) fn queued(&self) -> usize {
        let places = self.places.lock();
        places.taken - places.granted.len()
    }

    /// Takes a place if there is one and nobody waits for it. In a pool that takes no more jobs there always is one, as
    /// the caller will find when it queues its job, and gives it back.
    pub(crate) fn try_take(&self) -> bool {
        self.try_take_in(&mut self.places.lock())
    }

    fn try_take_in(&self, places: &mut Places) -> bool {
        let free = places.taken < self.capacity && places.waiting.is_empty();
        let taken = free || places.closed;
        places.taken += usize::from(taken);
        taken
    }

    /// Takes a place, over the capacity if need be.
    pub(crate) fn take_anyway(&self) {
        self.places.lock().taken += 1;
    }

    /// Takes a place, or stands in line for one.
    pub(crate) fn poll(&self, ticket: &mut Option<Ticket>, waker: &Waker) -> Poll<()> {
        if self.is_served(&mut self.places.lock(), ticket) {
            return Poll::Ready(());
        }
        // Foreign code, so not under the lock; after it, look again.
        let waker = waker.clone();
        let mut places = self.places.lock();
        if self.is_served(&mut places, ticket) {
            drop(places);
            drop_catching("a waker's destructor", waker);
            return Poll::Ready(());
        }
        let Ticket(number) = *ticket.get_or_insert_with(|| {
            places.next_ticket += 1;
            Ticket(places.next_ticket)
        });
        let replaced = places.waiting.insert(number, waker);
        drop(places);
        if replaced.is_some() {
            drop_catching("a waker's destructor", replaced);
        }
        Poll::Pending
    }

    fn is_served(&self, places: &mut Places, ticket: &mut Option<Ticket>) -> bool {
        let served = match ticket {
            Some(Ticket(number)) if places.granted.remove(number) => true,
            // Let go by `close`, without a place.
            Some(_) if places.closed => self.try_take_in(places),
            Some(_) => false,
            None => self.try_take_in(places),
        };
        if served {
            *ticket = None;
        }
        served
    }

    /// Gives a place back. The waker, if any, is of the one who has it now: to be called by the caller, outside locks.
    #[must_use]
    pub(crate) fn give_back(&self) -> Option<Waker> {
        let mut places = self.places.lock();
        places.taken -= 1;
        self.grant(places)
    }

    /// Leaves the line. What comes back is as in [`give_back`](Self::give_back).
    #[must_use]
    pub(crate) fn give_up(&self, Ticket(number): Ticket) -> Option<Waker> {
        let mut places = self.places.lock();
        if places.granted.remove(&number) {
            places.taken -= 1;
            return self.grant(places);
        }
        let forgotten = places.waiting.remove(&number);
        drop(places);
        if forgotten.is_some() {
            drop_catching("a waker's destructor", forgotten);
        }
        None
    }

    fn grant(&self, mut places: MutexGuard<'_, Places>) -> Option<Waker> {
        if places.taken >= self.capacity {
            return None;
        }
        let (number, waker) = places.waiting.pop_first()?;
        places.taken += 1;
        places.granted.insert(number);
        Some(waker)
    }

    /// Lets everybody go who waits, now and later. The wakers are to be called outside locks.
    #[must_use]
    pub(crate) fn close(&self) -> Vec<Waker> {
        let mut places = self.places.lock();
        places.closed = true;
        let waiting = mem::take(&mut places.waiting);
        waiting.into_values().collect()
    }
}
