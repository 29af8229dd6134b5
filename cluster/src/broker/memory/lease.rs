//! A consumer: which messages of a subject are handed out, to which pull, and until when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::log::Log;

/// A request for messages.
#[derive(Debug, Clone)]
pub(super) struct Pull {
    pub(super) puller: u64,
    /// How many messages are still wanted. Never 0.
    pub(super) wanted: usize,
    pub(super) expires: Instant,
}

#[derive(Debug, Clone)]
struct Lease {
    count: u64,
    /// `None`: it has run out, and the message waits for its redelivery.
    until: Option<Instant>,
}

/// A message that is handed out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handout {
    pub(super) puller: u64,
    pub(super) seq: u64,
    pub(super) count: u64,
    /// The request that it came for is filled.
    pub(super) is_last: bool,
}

/// The state of a consumer. Its owner removes what is acknowledged from the log.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    subject: Box<str>,
    lease: Duration,
    /// No message from here on was ever delivered.
    next: u64,
    leases: BTreeMap<u64, Lease>,
    /// When leases run out. Invariant: these are the `until`s of `leases`.
    ends: BTreeSet<(Instant, u64)>,
    /// Messages that wait for redelivery, the longest first.
    again: VecDeque<u64>,
    pulls: VecDeque<Pull>,
}

impl Leases {
    pub(super) fn new(subject: &str, lease: Duration) -> Self {
        Self {
            subject: subject.into(),
            lease,
            next: 0,
            leases: BTreeMap::new(),
            ends: BTreeSet::new(),
            again: VecDeque::new(),
            pulls: VecDeque::new(),
        }
    }

    /// Returns whether the consumer does not fit its log, because that was rolled back: it has
    /// delivered messages that the log has not had yet, or the log has messages that it would
    /// never deliver again.
    pub(super) fn is_ahead_of(&self, log: &Log) -> bool {
        let stored = log.count_of(&self.subject, 0);
        let (waiting, delivered, _) = self.counts(log);
        self.next > log.last() + 1 || stored > waiting + delivered
    }

    pub(super) fn pull(&mut self, pull: Pull) {
        self.pulls.push_back(pull);
    }

    /// Removes and returns the requests of a puller.
    pub(super) fn take_pulls_of(&mut self, puller: u64) -> VecDeque<Pull> {
        self.take_if(|pull| pull.puller == puller)
    }

    /// Removes and returns the requests that have ended.
    pub(super) fn ended_pulls(&mut self, now: Instant) -> VecDeque<Pull> {
        self.take_if(|pull| pull.expires <= now)
    }

    fn take_if(&mut self, condition: impl Fn(&Pull) -> bool) -> VecDeque<Pull> {
        if !self.pulls.iter().any(&condition) {
            return VecDeque::new();
        }
        let pulls = std::mem::take(&mut self.pulls);
        let (taken, rest) = pulls.into_iter().partition(condition);
        self.pulls = rest;
        taken
    }

    /// Removes and returns all requests.
    pub(super) fn take_pulls(&mut self) -> VecDeque<Pull> {
        std::mem::take(&mut self.pulls)
    }

    /// Hands out the next message, if there is a request and a message for it. Requests that have
    /// ended must have been removed.
    pub(super) fn hand_out(&mut self, log: &Log, now: Instant) -> Option<Handout> {
        self.run_out(now);
        if self.pulls.is_empty() {
            return None;
        }
        let seq = self.next_message(log)?;
        let lease = self.leases.entry(seq).or_insert(Lease {
            count: 0,
            until: None,
        });
        let until = now + self.lease;
        lease.count += 1;
        lease.until = Some(until);
        let count = lease.count;
        self.ends.insert((until, seq));
        let pull = self.pulls.front_mut()?;
        pull.wanted -= 1;
        let (puller, is_last) = (pull.puller, pull.wanted == 0);
        if is_last {
            self.pulls.pop_front();
        }
        Some(Handout {
            puller,
            seq,
            count,
            is_last,
        })
    }

    fn next_message(&mut self, log: &Log) -> Option<u64> {
        while let Some(seq) = self.again.pop_front() {
            let stored = log.get(seq);
            if stored.is_some_and(|stored| *stored.subject == *self.subject) {
                return Some(seq);
            }
            self.leases.remove(&seq);
        }
        let seq = log.next_of(&self.subject, self.next)?;
        self.next = seq + 1;
        Some(seq)
    }

    /// Moves the messages whose leases have run out to those that wait for redelivery.
    fn run_out(&mut self, now: Instant) {
        while let Some(&(until, seq)) = self.ends.first()
            && until <= now
        {
            self.ends.pop_first();
            if let Some(lease) = self.leases.get_mut(&seq) {
                lease.until = None;
                self.again.push_back(seq);
            }
        }
    }

    /// Lets the lease of a message end at this time. Without effect if the message is not handed
    /// out, or waits for its redelivery already.
    fn set_end(&mut self, seq: u64, until: Instant) {
        if let Some(lease) = self.leases.get_mut(&seq)
            && let Some(old) = lease.until.replace(until)
        {
            self.ends.remove(&(old, seq));
            self.ends.insert((until, seq));
        } else if let Some(lease) = self.leases.get_mut(&seq) {
            lease.until = None;
        }
    }

    /// Begins the lease anew, whichever delivery it was asked for.
    pub(super) fn extend(&mut self, seq: u64, now: Instant) {
        self.run_out(now);
        self.set_end(seq, now + self.lease);
    }

    /// Gives a message back for a redelivery after this time.
    pub(super) fn give_back(&mut self, seq: u64, delay: Duration, now: Instant) {
        self.run_out(now);
        self.set_end(seq, now + delay);
    }

    /// The message is no longer stored.
    pub(super) fn removed(&mut self, seq: u64) {
        if let Some(lease) = self.leases.remove(&seq)
            && let Some(until) = lease.until
        {
            self.ends.remove(&(until, seq));
        }
    }

    /// Returns when the next request or, if something is requested, the next lease ends.
    pub(super) fn next_event(&self) -> Option<Instant> {
        let request = self.pulls.iter().map(|pull| pull.expires).min()?;
        let lease = self.ends.first().map(|(until, _)| *until);
        Some(lease.map_or(request, |lease| lease.min(request)))
    }

    /// Counts messages that were never delivered, that are delivered, and requests.
    pub(super) fn counts(&self, log: &Log) -> (u64, u64, u64) {
        let waiting = log.count_of(&self.subject, self.next);
        (waiting, self.leases.len() as u64, self.pulls.len() as u64)
    }
}
