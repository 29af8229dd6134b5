//! Which peers live.
//!
//! Each peer writes its key every [`live_period`](Settings::live_period), and the server forgets a
//! key after [`live_ttl`](Settings::live_ttl). A missing key proves nothing: after a restart of the
//! server all keys are missing. So a peer is dead only if, for
//! [`dead_after`](Settings::dead_after), it wrote nothing while the watch worked. The watch works
//! as long as a peer sees its *own* key in it, in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::broker::{OPERATION, Outgoing, Stored};
use crate::protocol::settings::Settings;

/// What may be concluded about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It wrote its key lately.
    Alive,
    /// It may live or not: ask again later.
    Unknown,
    /// It left, or it was silent for longer than the limit while the watch worked.
    Dead,
}

/// What a peer says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LiveValue {
    /// For people: `host/pid`.
    pub(crate) name: String,
    /// Only of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker: Option<WorkerValue>,
    /// Only of submitters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<ClientValue>,
}

/// What a worker says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkerValue {
    pub(crate) queue: String,
    /// Names and versions.
    pub(crate) tasks: Vec<(String, u32)>,
    pub(crate) slots: usize,
    /// Whether it takes jobs: `running`, `draining` or `broken`.
    pub(crate) state: String,
    /// Why it takes no jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// Where its program serves a console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) console: Option<String>,
    /// Jobs that it holds, running or not.
    pub(crate) held: usize,
    pub(crate) running: Vec<RunningValue>,
    /// Since it started.
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) retried: u64,
}

/// A job that a worker runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunningValue {
    pub(crate) job: String,
    pub(crate) task: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    /// For how long it ran when this was written.
    pub(crate) millis: u64,
}

/// What a submitter says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClientValue {
    pub(crate) pending: usize,
    pub(crate) window: usize,
    pub(crate) submitted: u64,
    /// Its jobs that are lost, or reported as disconnected.
    #[serde(default)]
    pub(crate) lost: u64,
    /// After this long without the server, it reports its jobs as disconnected. `None`: never.
    pub(crate) disconnect_limit_ms: Option<u64>,
}

impl LiveValue {
    /// Makes the message for the peer's key.
    pub(crate) fn to_outgoing(&self, key: &str) -> Outgoing {
        Outgoing {
            subject: key.to_owned(),
            payload: Bytes::from(serde_json::to_vec(self).unwrap_or_default()),
            ..Outgoing::default()
        }
    }

    /// Makes the message of a peer that leaves.
    pub(crate) fn farewell(key: &str) -> Outgoing {
        Outgoing {
            subject: key.to_owned(),
            headers: vec![(OPERATION.to_owned(), "DEL".to_owned())],
            ..Outgoing::default()
        }
    }
}

/// A peer, as the watch shows it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// When its key came last, or when it was first asked for.
    seen: Instant,
    /// It has deleted its key.
    left: bool,
    /// `None` if it was only asked for.
    pub(crate) value: Option<Arc<LiveValue>>,
}

/// The peers of a namespace, as one of them sees them.
#[derive(Debug)]
pub(crate) struct Live {
    /// The key of the observer.
    me: String,
    period: Duration,
    dead_after: Duration,
    peers: BTreeMap<String, Peer>,
    /// Since when the observer's own key came in time. `None`: the watch is broken.
    unbroken: Option<Instant>,
    /// When the observer's own key came last.
    echo: Option<Instant>,
}

impl Live {
    pub(crate) fn new(me: String, settings: &Settings) -> Self {
        Self {
            me,
            period: settings.live_period(),
            dead_after: settings.dead_after(),
            peers: BTreeMap::new(),
            unbroken: None,
            echo: None,
        }
    }

    /// Notes a message of the watch.
    pub(crate) fn on_message(&mut self, message: &Stored, now: Instant) {
        if message.subject == self.me {
            if !self.is_unbroken(now) {
                self.unbroken = Some(now);
            }
            self.echo = Some(now);
        }
        let left = message.is_deletion();
        let value = match left {
            true => None,
            false => serde_json::from_slice(&message.payload).ok().map(Arc::new),
        };
        let peer = Peer {
            seen: now,
            left,
            value,
        };
        self.peers.insert(message.subject.clone(), peer);
    }

    /// Notes that messages of the watch may have been missed.
    pub(crate) fn on_break(&mut self) {
        self.unbroken = None;
        self.echo = None;
    }

    /// Judges the peer with this key.
    pub(crate) fn judge(&mut self, key: &str, now: Instant) -> Judgement {
        let unbroken = self.unbroken.filter(|_| self.is_unbroken(now));
        // Its key may be on its way. So silence counts from the first question on.
        let peer = self.peers.entry(key.to_owned()).or_insert(Peer {
            seen: now,
            left: false,
            value: None,
        });
        if peer.left {
            return Judgement::Dead;
        }
        let silent = now.saturating_duration_since(peer.seen);
        // Later than two periods, its next key is overdue.
        if peer.value.is_some() && silent <= self.period * 2 {
            return Judgement::Alive;
        }
        let watched = unbroken.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        match silent >= self.dead_after && watched >= self.dead_after {
            true => Judgement::Dead,
            false => Judgement::Unknown,
        }
    }

    /// Returns whether the peer with this key has said that it leaves.
    pub(crate) fn has_left(&self, key: &str) -> bool {
        self.peers.get(key).is_some_and(|peer| peer.left)
    }

    /// Returns what the peer with this key said last. `None` if it left, or said nothing yet.
    pub(crate) fn value(&self, key: &str) -> Option<&Arc<LiveValue>> {
        self.peers.get(key)?.value.as_ref()
    }

    /// Returns the peers that were heard of lately, by their keys.
    pub(crate) fn alive(&self, now: Instant) -> impl Iterator<Item = (&str, &Arc<LiveValue>)> {
        let limit = self.dead_after;
        self.peers.iter().filter_map(move |(key, peer)| {
            let fresh = now.saturating_duration_since(peer.seen) < limit;
            let value = peer.value.as_ref().filter(|_| fresh)?;
            Some((key.as_str(), value))
        })
    }

    /// Forgets peers that were not heard of, nor asked for, for a long time.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        let limit = self.dead_after * 100;
        let is_recent = |peer: &Peer| now.saturating_duration_since(peer.seen) < limit;
        self.peers.retain(|_, peer| is_recent(peer));
    }

    /// Returns whether the observer's own key came in time, up to now.
    ///
    /// Invariant: two periods without it and the silence of a living peer between two of its keys
    /// are three periods, and a peer is dead after four.
    fn is_unbroken(&self, now: Instant) -> bool {
        let in_time = |echo: Instant| now.saturating_duration_since(echo) <= self.period * 2;
        self.unbroken.is_some() && self.echo.is_some_and(in_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);

    fn key(name: &str) -> Stored {
        Stored {
            subject: name.to_owned(),
            seq: 1,
            time: Default::default(),
            headers: Vec::new(),
            payload: serde_json::to_vec(&LiveValue::default()).unwrap().into(),
        }
    }

    /// Lets the observer see its own key for some periods.
    fn echo(live: &mut Live, now: &mut Instant, periods: u32) {
        for _ in 0..periods {
            *now += PERIOD;
            live.on_message(&key("w.me"), *now);
        }
    }

    #[test]
    fn a_silent_peer_is_dead_after_four_periods_of_an_unbroken_watch() {
        let mut now = Instant::now();
        let mut live = Live::new("w.me".into(), &Settings::default());
        live.on_message(&key("w.me"), now);
        live.on_message(&key("w.other"), now);
        assert_eq!(live.judge("w.other", now), Judgement::Alive);
        echo(&mut live, &mut now, 3);
        assert_eq!(live.judge("w.other", now), Judgement::Unknown);
        echo(&mut live, &mut now, 1);
        assert_eq!(live.judge("w.other", now), Judgement::Dead);
        live.on_message(&key("w.other"), now);
        assert_eq!(live.judge("w.other", now), Judgement::Alive);
    }

    #[test]
    fn a_peer_that_is_unknown_gets_as_long_from_the_first_question_on() {
        let mut now = Instant::now();
        let mut live = Live::new("w.me".into(), &Settings::default());
        echo(&mut live, &mut now, 10);
        assert_eq!(live.judge("c.new", now), Judgement::Unknown);
        echo(&mut live, &mut now, 3);
        assert_eq!(live.judge("c.new", now), Judgement::Unknown);
        echo(&mut live, &mut now, 1);
        assert_eq!(live.judge("c.new", now), Judgement::Dead);
    }

    #[test]
    fn no_peer_is_dead_while_the_watch_is_broken_or_late() {
        let mut now = Instant::now();
        let mut live = Live::new("w.me".into(), &Settings::default());
        live.on_message(&key("w.other"), now);
        echo(&mut live, &mut now, 4);
        live.on_break();
        assert_eq!(live.judge("w.other", now), Judgement::Unknown);
        echo(&mut live, &mut now, 4);
        assert_eq!(live.judge("w.other", now), Judgement::Unknown);
        echo(&mut live, &mut now, 1);
        assert_eq!(live.judge("w.other", now), Judgement::Dead);

        // This process was stopped for a minute: the peer's keys wait in the watch.
        live.on_message(&key("w.other"), now);
        now += Duration::from_secs(60);
        assert_eq!(live.judge("w.other", now), Judgement::Unknown);
        live.on_message(&key("w.me"), now);
        assert_eq!(live.judge("w.other", now), Judgement::Unknown);
    }

    #[test]
    fn a_peer_that_left_is_dead_at_once() {
        let now = Instant::now();
        let mut live = Live::new("w.me".into(), &Settings::default());
        live.on_message(&key("w.other"), now);
        let mut farewell = key("w.other");
        farewell.headers = LiveValue::farewell("w.other").headers;
        live.on_message(&farewell, now);
        assert_eq!(live.judge("w.other", now), Judgement::Dead);
        assert_eq!(live.alive(now).count(), 0);
    }
}
