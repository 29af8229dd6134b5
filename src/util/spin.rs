//! Looking a moment longer before a thread parks: what it waits for often comes right then, and nobody has to be woken.
//! Bounded; whoever looks in vain parks.
//!
//! First comes a short look, about as long as parking takes, then one about as long as it takes to wake a processor that
//! is deep asleep. Whether they pay depends on the load and on the machine, so each thread finds that out for itself:
//! what was in vain is tried less often ([`Habit`]).
//!
//! It never yields the processor meanwhile. On a machine that has more to do than processors a thread that yields is
//! put behind the others, also when it is woken the next time, and waits for milliseconds; one that parks is not.

use std::cell::Cell;
use std::hint;
use std::time::Duration;

use crate::util::sync::{AtomicBool, Instant, Ordering, local, process_wide};

/// How often is looked in a short look: some 1.5 µs.
const SHORT: u32 = 64;
/// How often is looked between two looks at the clock.
const CLOCK: u32 = 16;
/// How many looks at the clock there are at most, if that goes in steps or stands.
const MOST_CLOCKS: u32 = 1000;

/// How long a long look takes at most.
const LONG: Duration = Duration::from_micros(60);

/// Between two looks at the clock: so long only if the processor did something else meanwhile.
const GAP: Duration = Duration::from_micros(20);

/// What a thread has learnt about its waits: whether to look.
#[derive(Debug)]
pub(crate) struct Patience {
    short: Habit,
    long: Habit,
}

impl Patience {
    pub(crate) const fn new() -> Self {
        Self {
            short: Habit::new(32),
            long: Habit::new(1024),
        }
    }

    /// Looks for `found` until it is true or the moment is over; says which.
    pub(crate) fn look(&self, mut found: impl FnMut() -> bool) -> bool {
        if cfg!(loom) {
            return found();
        }
        self.short.practise(|| look_short(&mut found))
            || self.long.practise(|| look_long(&mut found))
            || found()
    }
}

/// Something that is tried now and then: always as long as it succeeds, and the less often the longer it was in vain.
#[derive(Debug)]
struct Habit {
    /// Two to the power of how many times in a row it was in vain, up to `most`.
    in_vain: Cell<u32>,
    most: u32,
    /// How many occasions are to be let pass before the next try.
    left: Cell<u32>,
}

impl Habit {
    const fn new(most: u32) -> Self {
        Self {
            in_vain: Cell::new(1),
            most,
            left: Cell::new(0),
        }
    }

    /// False if it was in vain, or not tried.
    fn practise(&self, attempt: impl FnOnce() -> bool) -> bool {
        if let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            return false;
        }
        let success = attempt();
        let in_vain = match success {
            true => 1,
            false => self.most.min(2 * self.in_vain.get()),
        };
        self.in_vain.set(in_vain);
        // The first time it may have been by chance.
        self.left.set(in_vain / 4);
        success
    }
}

fn look_short(found: &mut impl FnMut() -> bool) -> bool {
    for _ in 0..SHORT {
        if found() {
            return true;
        }
        hint::spin_loop();
    }
    found()
}

fn look_long(found: &mut impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    let mut before = start;
    for _ in 0..MOST_CLOCKS {
        for _ in 0..CLOCK {
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
    /// Whether some joining thread of this process looks at present.
    static JOINER_LOOKS: AtomicBool = AtomicBool::new(false);
}

local! {
    static JOINER: Patience = const { Patience::new() };
}

/// As [`Patience::look`], for threads that join a handle, until `deadline` or for ever: one at a time in the process, since
/// a second one would take the processor from those that both wait for. If there is hardly time, it looks once.
pub(crate) fn look_as_joiner(deadline: Option<Instant>, mut found: impl FnMut() -> bool) -> bool {
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left < 10 * LONG) {
        return found();
    }
    if cfg!(loom) || JOINER_LOOKS.swap(true, Ordering::Acquire) {
        return found();
    }
    let seen = JOINER.with(|patience| patience.look(found));
    JOINER_LOOKS.store(false, Ordering::Release);
    seen
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Of so many occasions, which were used if all were in vain.
    fn used_in_vain(habit: &Habit, occasions: u32) -> Vec<u32> {
        let mut used = Vec::new();
        for occasion in 0..occasions {
            habit.practise(|| {
                used.push(occasion);
                false
            });
        }
        used
    }

    #[test]
    fn what_is_in_vain_is_tried_ever_less_often_but_never_given_up() {
        let habit = Habit::new(32);
        assert_eq!(
            used_in_vain(&habit, 60),
            [0, 1, 3, 6, 11, 20, 29, 38, 47, 56]
        );
    }

    #[test]
    fn what_succeeds_once_is_tried_each_time_again() {
        let habit = Habit::new(32);
        used_in_vain(&habit, 60);
        while !habit.practise(|| true) {}
        for _ in 0..100 {
            assert!(habit.practise(|| true));
        }
    }

    #[test]
    fn a_look_sees_what_comes_while_it_looks_and_ends_if_nothing_comes() {
        let start = Instant::now();
        let patience = Patience::new();
        // Its first long look.
        assert!(patience.look(|| start.elapsed() > Duration::from_micros(10)));
        for _ in 0..1000 {
            assert!(!patience.look(|| false));
        }
    }

    /// How often a joiner looks in vain.
    fn looks_of_a_joiner(deadline: Option<Instant>) -> u32 {
        let mut looks = 0;
        let seen = look_as_joiner(deadline, || {
            looks += 1;
            false
        });
        assert!(!seen);
        looks
    }

    // One test, since one thread of the process looks at a time.
    #[test]
    fn a_joiner_looks_once_if_there_is_hardly_time_or_another_one_looks() {
        let now = Instant::now();
        assert_eq!(looks_of_a_joiner(Some(now)), 1);
        assert_eq!(looks_of_a_joiner(Some(now + LONG)), 1);
        assert!(looks_of_a_joiner(None) > SHORT);
        look_as_joiner(None, || {
            assert_eq!(looks_of_a_joiner(None), 1);
            true
        });
        let later = now + Duration::from_secs(3600);
        assert!(looks_of_a_joiner(Some(later)) > SHORT, "it may look again");
    }
}
