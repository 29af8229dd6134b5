//! Spinning for a moment before a thread parks: what it waits for often comes right then, and then
//! no thread has to be woken. Spinning is bounded; a thread that spins without success parks.
//!
//! First comes a short spin, about as long as parking takes, then a timed one, about as long as it
//! takes to wake a processor that sleeps deeply. Whether they pay depends on the load and on the
//! machine. So each thread finds that out for itself: what did not pay is tried less often
//! ([`SpinBudget`]).
//!
//! A spin never yields the processor. On a machine with more threads to run than processors, a
//! thread that yields is put behind the others, also the next time it is woken, and waits for
//! milliseconds. A thread that parks is not.

use std::cell::Cell;
use std::hint;
use std::time::Duration;

use crate::task::context::Context;
use crate::util::sync::{AtomicBool, Instant, Ordering, process_wide};

/// How often a short spin checks: some 1.5 µs.
const SHORT: u32 = 64;
/// How often a timed spin checks between two reads of the clock.
const CHECKS_PER_READ: u32 = 16;
/// Bounds the reads of the clock, in case it goes in steps or stands still.
const MAX_READS: u32 = 1000;

/// How long a timed spin takes at most.
const LONG: Duration = Duration::from_micros(60);

/// Two reads of the clock are this far apart only if the thread was preempted in between.
const GAP: Duration = Duration::from_micros(20);

/// Spins as long as that has paid on this thread.
#[derive(Debug)]
pub(crate) struct AdaptiveSpin {
    short: SpinBudget,
    timed: SpinBudget,
}

impl AdaptiveSpin {
    pub(crate) const fn new() -> Self {
        Self {
            short: SpinBudget::new(32),
            timed: SpinBudget::new(1024),
        }
    }

    /// Spins until `found` returns true or the time for it is over. Returns whether it did.
    pub(crate) fn spin(&self, mut found: impl FnMut() -> bool) -> bool {
        if cfg!(loom) {
            return found();
        }
        self.short.attempt(|| spin_short(&mut found))
            || self.timed.attempt(|| spin_timed(&mut found))
            || found()
    }
}

/// Something that is attempted each time while it succeeds, and exponentially less often while it
/// does not.
#[derive(Debug)]
struct SpinBudget {
    /// Two to the power of the number of misses in a row, up to `max`.
    backoff: Cell<u32>,
    max: u32,
    /// How many occasions pass before the next attempt.
    skip: Cell<u32>,
}

impl SpinBudget {
    const fn new(max: u32) -> Self {
        Self {
            backoff: Cell::new(1),
            max,
            skip: Cell::new(0),
        }
    }

    /// Returns false if the attempt failed, or was not made.
    fn attempt(&self, attempt: impl FnOnce() -> bool) -> bool {
        if let Some(skip) = self.skip.get().checked_sub(1) {
            self.skip.set(skip);
            return false;
        }
        let success = attempt();
        let backoff = if success {
            1
        } else {
            self.max.min(2 * self.backoff.get())
        };
        self.backoff.set(backoff);
        // The first miss may be chance.
        self.skip.set(backoff / 4);
        success
    }
}

fn spin_short(found: &mut impl FnMut() -> bool) -> bool {
    for _ in 0..SHORT {
        if found() {
            return true;
        }
        hint::spin_loop();
    }
    found()
}

fn spin_timed(found: &mut impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    let mut before = start;
    for _ in 0..MAX_READS {
        for _ in 0..CHECKS_PER_READ {
            if found() {
                return true;
            }
            hint::spin_loop();
        }
        let now = Instant::now();
        let since = |earlier| now.saturating_duration_since(earlier);
        if since(start) >= LONG || since(before) >= GAP {
            break;
        }
        before = now;
    }
    found()
}

process_wide! {
    /// Whether a joining thread of this process spins.
    static JOINER_SPINS: AtomicBool = AtomicBool::new(false);
}

/// Spins before a thread parks in a wait until `deadline`, or without one. One thread of the process
/// does so at a time: a second one would take CPU time from what both wait for. If the deadline is
/// near, `found` is called once.
pub(crate) fn spin_before_park(deadline: Option<Instant>, mut found: impl FnMut() -> bool) -> bool {
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left < 10 * LONG) {
        return found();
    }
    // Ordering: the flag guards no data. Acquire and Release only keep the spin between the two.
    if cfg!(loom) || JOINER_SPINS.swap(true, Ordering::Acquire) {
        return found();
    }
    let seen = Context::with(|context| context.join_spin.spin(&mut found));
    JOINER_SPINS.store(false, Ordering::Release);
    seen.unwrap_or_else(found)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Returns which of the first `occasions` were used, if no attempt succeeds.
    fn used_without_success(budget: &SpinBudget, occasions: u32) -> Vec<u32> {
        let mut used = Vec::new();
        for occasion in 0..occasions {
            budget.attempt(|| {
                used.push(occasion);
                false
            });
        }
        used
    }

    #[test]
    fn what_does_not_pay_is_tried_less_often_but_never_given_up() {
        let budget = SpinBudget::new(32);
        assert_eq!(
            used_without_success(&budget, 60),
            [0, 1, 3, 6, 11, 20, 29, 38, 47, 56]
        );
    }

    #[test]
    fn what_succeeds_once_is_tried_each_time_again() {
        let budget = SpinBudget::new(32);
        used_without_success(&budget, 60);
        while !budget.attempt(|| true) {}
        for _ in 0..100 {
            assert!(budget.attempt(|| true));
        }
    }

    #[test]
    fn a_spin_sees_what_comes_meanwhile_and_ends_if_nothing_comes() {
        let start = Instant::now();
        let spin = AdaptiveSpin::new();
        // Its first timed spin.
        assert!(spin.spin(|| start.elapsed() > Duration::from_micros(10)));
        for _ in 0..1000 {
            assert!(!spin.spin(|| false));
        }
    }

    /// Returns how often a joiner checks, if it sees nothing.
    fn checks_of_a_joiner(deadline: Option<Instant>) -> u32 {
        let mut checks = 0;
        let seen = spin_before_park(deadline, || {
            checks += 1;
            false
        });
        assert!(!seen);
        checks
    }

    // One test, since one thread of the process spins at a time.
    #[test]
    fn a_joiner_checks_once_if_the_deadline_is_near_or_another_one_spins() {
        let now = Instant::now();
        assert_eq!(checks_of_a_joiner(Some(now)), 1);
        assert_eq!(checks_of_a_joiner(Some(now + LONG)), 1);
        assert!(checks_of_a_joiner(None) > SHORT);
        spin_before_park(None, || {
            assert_eq!(checks_of_a_joiner(None), 1);
            true
        });
        let later = now + Duration::from_secs(3600);
        assert!(checks_of_a_joiner(Some(later)) > SHORT, "it may spin again");
    }
}
