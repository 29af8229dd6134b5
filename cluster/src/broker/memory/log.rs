//! A store: messages in the order of their sequences.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::{Outgoing, PublishError, ServerTime, StoreInfo, Stored};

/// How long the ids of published messages are remembered.
const DEDUPE_WINDOW: Duration = Duration::from_secs(120);

/// At most so many ids are remembered, so that memory is bounded by what is stored.
const DEDUPE_IDS: usize = 1 << 16;

/// What a message costs beyond its text.
const MESSAGE_OVERHEAD: usize = 64;

/// What a store keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A new message that does not fit is refused.
    pub(super) bytes: Option<u64>,
    /// Older messages are removed.
    pub(super) age: Option<Duration>,
    /// A new message replaces the older one of its subject.
    pub(super) one_each: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    stored: Arc<Stored>,
    at: Instant,
    size: u64,
}

/// A store of messages.
#[derive(Debug, Clone)]
pub(super) struct Log {
    limits: Limits,
    created: ServerTime,
    /// Tells this log from the one before it, if the store was deleted or rolled back. The server
    /// does not show it.
    pub(super) incarnation: u64,
    last: u64,
    bytes: u64,
    entries: BTreeMap<u64, Entry>,
    by_subject: BTreeMap<Arc<str>, BTreeSet<u64>>,
    dedupe: BTreeMap<String, u64>,
    /// The ids in the order of their publishes.
    dedupe_ages: VecDeque<(Instant, String)>,
    /// Refuses every message, as if the disk were full.
    #[cfg(test)]
    pub(super) is_full: bool,
}

impl Log {
    pub(super) fn new(limits: Limits, created: ServerTime, incarnation: u64) -> Self {
        Self {
            limits,
            created,
            incarnation,
            last: 0,
            bytes: 0,
            entries: BTreeMap::new(),
            by_subject: BTreeMap::new(),
            dedupe: BTreeMap::new(),
            dedupe_ages: VecDeque::new(),
            #[cfg(test)]
            is_full: false,
        }
    }

    /// Stores a message. Returns its sequence, and whether it is new instead of a duplicate.
    pub(super) fn publish(
        &mut self,
        message: Outgoing,
        time: ServerTime,
        now: Instant,
    ) -> Result<(u64, bool), PublishError> {
        self.expire(now);
        if let Some(seq) = message.id.as_ref().and_then(|id| self.dedupe.get(id)) {
            return Ok((*seq, false));
        }
        let of_subject = self.by_subject.get(message.subject.as_str());
        let last_of_subject = of_subject.and_then(|seqs| seqs.last().copied());
        if let Some(expected) = message.expect
            && expected != last_of_subject.unwrap_or(0)
        {
            return Err(PublishError::Conflict);
        }
        let size = size(&message) as u64;
        let replaced = last_of_subject.filter(|_| self.limits.one_each);
        let freed = replaced.map_or(0, |seq| self.entries[&seq].size);
        let after = self.bytes - freed + size;
        if self.limits.bytes.is_some_and(|limit| after > limit) {
            return Err(PublishError::Full);
        }
        #[cfg(test)]
        if self.is_full {
            return Err(PublishError::Full);
        }
        if let Some(seq) = replaced {
            self.remove(seq);
        }
        self.last += 1;
        let seq = self.last;
        if let Some(id) = message.id {
            self.remember(id, seq, now);
        }
        let subject = Arc::<str>::from(message.subject.as_str());
        self.by_subject.entry(subject).or_default().insert(seq);
        self.bytes += size;
        let stored = Arc::new(Stored {
            subject: message.subject,
            seq,
            time,
            headers: message.headers,
            payload: message.payload,
        });
        let entry = Entry {
            stored,
            at: now,
            size,
        };
        self.entries.insert(seq, entry);
        Ok((seq, true))
    }

    fn remember(&mut self, id: String, seq: u64, now: Instant) {
        self.dedupe.insert(id.clone(), seq);
        self.dedupe_ages.push_back((now, id));
        while self.dedupe_ages.len() > DEDUPE_IDS {
            self.forget_oldest_id();
        }
    }

    fn forget_oldest_id(&mut self) {
        if let Some((_, id)) = self.dedupe_ages.pop_front() {
            self.dedupe.remove(&id);
        }
    }

    /// Removes what is too old.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_old = |at: Instant, limit: Duration| now.saturating_duration_since(at) >= limit;
        while let Some((at, _)) = self.dedupe_ages.front()
            && is_old(*at, DEDUPE_WINDOW)
        {
            self.forget_oldest_id();
        }
        let Some(limit) = self.limits.age else { return };
        while let Some((seq, entry)) = self.entries.first_key_value()
            && is_old(entry.at, limit)
        {
            let seq = *seq;
            self.remove(seq);
        }
    }

    /// Removes a message. Returns whether it was there.
    pub(super) fn remove(&mut self, seq: u64) -> bool {
        let Some(entry) = self.entries.remove(&seq) else {
            return false;
        };
        self.bytes -= entry.size;
        if let Some(seqs) = self.by_subject.get_mut(entry.stored.subject.as_str()) {
            seqs.remove(&seq);
            if seqs.is_empty() {
                self.by_subject.remove(entry.stored.subject.as_str());
            }
        }
        true
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Arc<Stored>> {
        Some(&self.entries.get(&seq)?.stored)
    }

    /// Returns the last message of a subject.
    pub(super) fn last_of(&self, subject: &str) -> Option<&Arc<Stored>> {
        self.get(*self.by_subject.get(subject)?.last()?)
    }

    /// Returns the first message from `seq` on.
    pub(super) fn next(&self, seq: u64) -> Option<&Arc<Stored>> {
        let (_, entry) = self.entries.range(seq..).next()?;
        Some(&entry.stored)
    }

    /// Returns the first sequence from `seq` on of a message of this subject.
    pub(super) fn next_of(&self, subject: &str, seq: u64) -> Option<u64> {
        self.by_subject.get(subject)?.range(seq..).next().copied()
    }

    /// Counts the messages of this subject from `seq` on.
    pub(super) fn count_of(&self, subject: &str, seq: u64) -> u64 {
        let seqs = self.by_subject.get(subject);
        seqs.map_or(0, |seqs| seqs.range(seq..).count() as u64)
    }

    /// Returns the sequence that was given last.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn info(&self) -> StoreInfo {
        StoreInfo {
            created: self.created,
            first: self.next(0).map_or(self.last + 1, |stored| stored.seq),
            last: self.last,
            messages: self.entries.len() as u64,
            bytes: self.bytes,
        }
    }
}

/// Returns what a message costs.
pub(super) fn size(message: &Outgoing) -> usize {
    let headers = message.headers.iter();
    let headers: usize = headers
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum();
    let id = message.id.as_ref().map_or(0, String::len);
    message.subject.len() + headers + id + message.payload.len() + MESSAGE_OVERHEAD
}

#[cfg(test)]
impl Log {
    /// A restart of the server: ids of messages that are no longer stored are forgotten.
    pub(super) fn forget_ids_of_removed(&mut self) {
        let entries = &self.entries;
        self.dedupe.retain(|_, seq| entries.contains_key(seq));
        let dedupe = &self.dedupe;
        self.dedupe_ages.retain(|(_, id)| dedupe.contains_key(id));
    }
}
