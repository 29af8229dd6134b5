//! Spinning for a moment before a thread parks: what it waits for often comes right then, and then
//! no thread has to be woken. Spinning is bounded; a thread that spins without success parks.
//!
//! First comes a short spin, about as long as parking takes, then a timed one, about as long as it
//! takes to wake a processor that sleeps deeply. Whether they pay depends on the load and on the
//! machine. So each thread finds that out for itself: what did not pay is tried less often
//! ([`SpinBudget`]). While a pool has jobs queued, its workers need the CPU time, so a thread that waits
//! for them makes only the short spin.
//!
//! A poll of a handle spins, too, for less than a microsecond: what comes meanwhile saves the executor
//! a sleep and a wake-up ([`PollSpin`]).
//!
//! A spin never yields the processor. On a machine with more threads to run than processors, a
//! thread that yields is put behind the others, also the next time it is woken, and waits for
//! milliseconds. A thread that parks is not.

use std::cell::Cell;
use std::hint;
use std::task::Waker;
use std::time::Duration;

use crate::task::context::Context;
use crate::util::sync::{AtomicBool, Instant, Ordering, process_wide};

/// How often a short spin checks: some 1.5 µs.
const SHORT: u32 = 64;
/// How often a spin in a poll checks: some 0.7 µs. Meanwhile the executor's thread runs no other task,
/// so this is the shortest spin that meets a job which does next to nothing.
const IN_POLL: u32 = 32;
/// After so many polls in a row a task counts as the only one of its thread. Fewer may be chance: the
/// others wait, too, and one of several tasks that spins keeps the others from submitting.
const ALONE: u32 = 8;
/// After so many successes in a row, a poll lets the executor run other tasks: a task that awaits one
/// short job after the other would never give way.
const MAX_SUCCESSES: u32 = 64;
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
    ///
    /// `is_short`: only the short spin is made.
    pub(crate) fn spin(&self, is_short: bool, mut found: impl FnMut() -> bool) -> bool {
        if cfg!(loom) {
            return found();
        }
        self.short.attempt(|| spin_short(SHORT, &mut found))
            || !is_short && self.timed.attempt(|| spin_timed(&mut found))
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

fn spin_short(checks: u32, found: &mut impl FnMut() -> bool) -> bool {
    for _ in 0..checks {
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

/// Spins in the polls of an executor's thread, before a waker is registered.
#[derive(Debug)]
pub(crate) struct PollSpin {
    budget: SpinBudget,
    /// The task that was polled last, by the address of its waker's data. Only compared.
    last_task: Cell<usize>,
    /// How many polls of that task there were in a row, from [`ALONE`] on without those that registered
    /// the waker.
    in_a_row: Cell<u32>,
}

/// The answer to [`spin_in_poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum PollSpun {
    NotSeen,
    Seen,
    /// It was seen, but the task has gone on without a break for long. It must give way to the other
    /// tasks of its thread.
    MustYield,
}

impl PollSpin {
    pub(crate) const fn new() -> Self {
        Self {
            budget: SpinBudget::new(32),
            last_task: Cell::new(0),
            in_a_row: Cell::new(0),
        }
    }

    /// It does not spin if the thread has polled another task lately: then the thread had better go on
    /// with those. Nor does it if `may_pay` returns false.
    fn spin(
        &self,
        waker: &Waker,
        may_pay: impl FnOnce() -> bool,
        mut found: impl FnMut() -> bool,
    ) -> PollSpun {
        let task = waker.data().addr();
        // A poll without a waker, such as `now_or_never`, has address 0 here and does not wait.
        let is_same = self.last_task.replace(task) == task && task != 0;
        let in_a_row = if is_same { self.in_a_row.get() + 1 } else { 0 };
        self.in_a_row.set(in_a_row.min(ALONE));
        let spin = || spin_short(IN_POLL, &mut found);
        if in_a_row < ALONE || !may_pay() || !self.budget.attempt(spin) {
            return PollSpun::NotSeen;
        }
        if in_a_row == ALONE + MAX_SUCCESSES {
            return PollSpun::MustYield;
        }
        self.in_a_row.set(in_a_row);
        PollSpun::Seen
    }
}

/// Spins in a poll with `waker`, until `found` returns true or the time for it is over.
pub(crate) fn spin_in_poll(
    waker: &Waker,
    may_pay: impl FnOnce() -> bool,
    mut found: impl FnMut() -> bool,
) -> PollSpun {
    if cfg!(loom) {
        return if found() {
            PollSpun::Seen
        } else {
            PollSpun::NotSeen
        };
    }
    let spun = Context::with(|context| context.poll_spin.spin(waker, may_pay, found));
    spun.unwrap_or(PollSpun::NotSeen)
}

process_wide! {
    /// Whether a joining thread of this process spins.
    static JOINER_SPINS: AtomicBool = AtomicBool::new(false);
}

/// Spins before a thread parks in a wait until `deadline`, or without one. One thread of the process
/// does so at a time: a second one would take CPU time from what both wait for. If the deadline is
/// near, `found` is called once.
///
/// `has_backlog`: the pool has jobs for all of its workers. They need the CPU time that a long spin
/// takes, so there is only a short one.
pub(crate) fn spin_before_park(
    deadline: Option<Instant>,
    has_backlog: bool,
    mut found: impl FnMut() -> bool,
) -> bool {
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left < 10 * LONG) {
        return found();
    }
    // Ordering: the flag guards no data. Acquire and Release only keep the spin between the two.
    if cfg!(loom) || JOINER_SPINS.swap(true, Ordering::Acquire) {
        return found();
    }
    let seen = Context::with(|context| context.join_spin.spin(has_backlog, &mut found));
    JOINER_SPINS.store(false, Ordering::Release);
    seen.unwrap_or_else(found)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

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
        assert!(spin.spin(false, || start.elapsed() > Duration::from_micros(10)));
        for _ in 0..1000 {
            assert!(!spin.spin(false, || false));
        }
    }

    #[test]
    fn beside_a_backlog_a_spin_is_short() {
        let mut checks = 0;
        let mut count = || {
            checks += 1;
            false
        };
        let spin = AdaptiveSpin::new();
        assert!(!spin.spin(true, &mut count));
        assert!(checks <= SHORT + 2, "{checks}");
        let spin = AdaptiveSpin::new();
        assert!(!spin.spin(false, || {
            checks += 1;
            false
        }));
        assert!(checks > 3 * SHORT, "{checks}");
    }

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    /// Returns the waker of a new task.
    fn waker() -> Waker {
        Waker::from(Arc::new(Task))
    }

    /// Polls once, and returns the answer and how often the poll checked.
    fn poll_once(spin: &PollSpin, waker: &Waker, found: bool) -> (PollSpun, u32) {
        let mut checks = 0;
        let spun = spin.spin(
            waker,
            || true,
            || {
                checks += 1;
                found
            },
        );
        (spun, checks)
    }

    #[test]
    fn a_poll_spins_only_for_a_task_that_is_alone_on_its_thread() {
        let spin = PollSpin::new();
        let [first, second] = [waker(), waker()];
        for _ in 0..2 {
            for _ in 0..ALONE {
                assert_eq!(poll_once(&spin, &first, true), (PollSpun::NotSeen, 0));
            }
            assert_eq!(poll_once(&spin, &first.clone(), true), (PollSpun::Seen, 1));
            assert_eq!(poll_once(&spin, &second, true), (PollSpun::NotSeen, 0));
        }
        assert_eq!(spin.spin(&first, || false, || true), PollSpun::NotSeen);
        for _ in 0..2 {
            assert_eq!(
                poll_once(&spin, Waker::noop(), true),
                (PollSpun::NotSeen, 0)
            );
        }
    }

    #[test]
    fn a_poll_checks_a_bounded_number_of_times_and_seldom_after_it_saw_nothing() {
        let (spin, waker) = (PollSpin::new(), waker());
        let checks: Vec<_> = (0..1_000)
            .map(|_| poll_once(&spin, &waker, false))
            .map(|(spun, checks)| {
                assert_eq!(spun, PollSpun::NotSeen);
                checks
            })
            .collect();
        assert!(checks.iter().all(|&checks| checks <= IN_POLL + 1));
        let spins = checks.iter().filter(|&&checks| checks > 0).count();
        assert!((100..130).contains(&spins), "{spins}");
    }

    #[test]
    fn a_task_whose_polls_never_wait_gives_way_from_time_to_time() {
        let (spin, waker) = (PollSpin::new(), waker());
        let polls = 10 * MAX_SUCCESSES;
        let yields = (0..polls)
            .filter(|_| poll_once(&spin, &waker, true).0 == PollSpun::MustYield)
            .count();
        assert_eq!(yields, 9, "the first {ALONE} polls do not spin");
    }

    /// Returns how often a joiner checks, if it sees nothing.
    fn checks_of_a_joiner(deadline: Option<Instant>) -> u32 {
        let mut checks = 0;
        let seen = spin_before_park(deadline, false, || {
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
        spin_before_park(None, false, || {
            assert_eq!(checks_of_a_joiner(None), 1);
            true
        });
        let later = now + Duration::from_secs(3600);
        assert!(checks_of_a_joiner(Some(later)) > SHORT, "it may spin again");
    }
}
