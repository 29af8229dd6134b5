//! The server's time, as far as it can be known here.

use std::time::Duration;

use tokio::time::Instant;

use crate::broker::ServerTime;

/// A lower bound of the server's time. Machine clocks are never compared: it is a time that the
/// server has written into a message, plus what has passed here since the message came.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ServerClock {
    newest: Option<(ServerTime, Instant)>,
}

impl ServerClock {
    /// Learns from a message that has just come.
    pub(crate) fn learn(&mut self, time: ServerTime, now: Instant) {
        if self.now(now).is_none_or(|bound| time > bound) {
            self.newest = Some((time, now));
        }
    }

    /// Forgets everything: the server's clock may have been set back.
    pub(crate) fn reset(&mut self) {
        self.newest = None;
    }

    /// Returns a time that the server's clock has certainly reached.
    pub(crate) fn now(&self, now: Instant) -> Option<ServerTime> {
        let (time, at) = self.newest?;
        let passed = now.saturating_duration_since(at).as_nanos();
        Some(ServerTime(
            time.0
                .saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)),
        ))
    }

    /// Returns how old a message is, at least.
    pub(crate) fn age(&self, time: ServerTime, now: Instant) -> Duration {
        let now = self.now(now).unwrap_or(time);
        Duration::from_nanos(now.0.saturating_sub(time.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_message_never_exceeds_the_truth() {
        let start = Instant::now();
        let mut clock = ServerClock::default();
        assert_eq!(clock.age(ServerTime(5), start), Duration::ZERO);
        // It came a second after the server had written it.
        clock.learn(ServerTime(1_000_000_000), start);
        let later = start + Duration::from_secs(2);
        assert_eq!(clock.age(ServerTime(0), later), Duration::from_secs(3));
        // A message that was under way for longer teaches nothing.
        clock.learn(ServerTime(2_000_000_000), later);
        assert_eq!(clock.age(ServerTime(0), later), Duration::from_secs(3));
        clock.learn(ServerTime(4_000_000_000), later);
        assert_eq!(clock.age(ServerTime(0), later), Duration::from_secs(4));
    }
}
