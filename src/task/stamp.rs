//! When a job was accepted, for the jobs of a pool that is observed.
//!
//! The stamp shares one word with the flag that tells whether the task is resolved. So a job that
//! has a stamp is no larger than one that has none, and a job without one pays for a test of that
//! word.

use std::sync::OnceLock;
// Not the model checker's: a stamp is written before any other thread sees the task.
use std::sync::atomic::AtomicU64;
use std::time::Duration;

#[cfg(loom)]
use crate::util::sync::AtomicBool;
use crate::util::sync::{Instant, Ordering};

/// Bit 0 of the word is the flag. Bits 1 to 7 are unused, and the others are the stamp.
#[cfg(not(loom))]
const RESOLVED: u64 = 1;
const SHIFT: u32 = 8;
const MASK: u64 = u64::MAX >> SHIFT;

/// A time in nanoseconds since a time before the first stamp of the process, modulo 2⁵⁶. That is
/// more than two years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// Of a job that is not observed.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn at(now: Instant) -> Self {
        // 0 means none, and a nanosecond is within the precision of any clock.
        Self((nanos(now) & MASK).max(1))
    }

    #[inline]
    pub(crate) fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// Returns how long before `now` this was.
    pub(crate) fn elapsed(self, now: Instant) -> Duration {
        // The difference wraps around as the stamps do. A clock that seems to go backwards between
        // two processors, and the rounding in `at`, make it less than zero, which is read as more
        // than a year.
        let elapsed = nanos(now).wrapping_sub(self.0) & MASK;
        Duration::from_nanos(if elapsed > MASK / 2 { 0 } else { elapsed })
    }
}

/// Returns the nanoseconds since a while before the first call.
fn nanos(now: Instant) -> u64 {
    /// Another thread can make the first call, with a later time.
    const BEFORE: Duration = Duration::from_secs(3600);
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let epoch = *EPOCH.get_or_init(|| now.checked_sub(BEFORE).unwrap_or(now));
    now.saturating_duration_since(epoch).as_nanos() as u64
}

/// Whether the outcome of a task is visible, and the task's stamp.
#[derive(Debug)]
pub(crate) struct Resolved {
    word: AtomicU64,
    #[cfg(loom)]
    resolved: AtomicBool,
}

impl Resolved {
    pub(crate) fn new(resolved: bool) -> Self {
        Self {
            #[cfg(not(loom))]
            word: AtomicU64::new(u64::from(resolved)),
            #[cfg(loom)]
            word: AtomicU64::new(0),
            #[cfg(loom)]
            resolved: AtomicBool::new(resolved),
        }
    }

    /// Sets the flag. Called once, or again by a thread that knows that it is set.
    #[inline]
    pub(crate) fn set(&self) {
        // Ordering: a thread that sees the flag finds the outcome. No read-modify-write is needed:
        // the stamp is written while the task is queued, under its lock, and the caller had that
        // lock after it.
        #[cfg(not(loom))]
        self.word.store(
            self.word.load(Ordering::Relaxed) | RESOLVED,
            Ordering::Release,
        );
        #[cfg(loom)]
        self.resolved.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn get(&self) -> bool {
        // Ordering: pairs with the store in `set`.
        #[cfg(not(loom))]
        return self.word.load(Ordering::Acquire) & RESOLVED != 0;
        #[cfg(loom)]
        self.resolved.load(Ordering::Acquire)
    }

    /// Sets the stamp of a task that is queued. The caller holds the task's lock.
    pub(crate) fn set_stamp(&self, stamp: Stamp) {
        self.word.store(stamp.0 << SHIFT, Ordering::Relaxed);
    }

    /// Returns the stamp. A thread that has held the task's lock since the task was queued sees it.
    #[inline]
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp(self.word.load(Ordering::Relaxed) >> SHIFT)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_how_long_ago_it_was() {
        let start = Instant::now();
        let (stamp, later) = (Stamp::at(start), start + Duration::from_secs(40));
        assert!(stamp.is_some());
        // The very first stamp of a process is rounded up.
        let error = stamp.elapsed(later).abs_diff(Duration::from_secs(40));
        assert!(error <= Duration::from_nanos(1), "{error:?}");
    }

    #[test]
    fn a_stamp_from_the_future_is_now() {
        let start = Instant::now();
        let stamp = Stamp::at(start + Duration::from_secs(1));
        assert_eq!(stamp.elapsed(start), Duration::ZERO);
    }

    #[test]
    fn stamp_and_flag_share_a_word_and_keep_each_other() {
        let resolved = Resolved::new(false);
        assert_eq!((resolved.get(), resolved.stamp().is_some()), (false, false));
        let stamp = Stamp::at(Instant::now() + Duration::from_secs(1));
        resolved.set_stamp(stamp);
        assert!(!resolved.get());
        resolved.set();
        assert_eq!((resolved.get(), resolved.stamp()), (true, stamp));
        assert_eq!(size_of::<Resolved>(), 8);
    }
}
