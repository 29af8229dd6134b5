//! Time limits of futures, in every runtime and in none: one timer for each process.
//!
//! Its thread starts with the first limit that is polled, and leaves when there was none for a while.

use std::collections::BTreeMap;
use std::mem;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::util::fork::PerProcess;
use crate::util::sync::{Condvar, Instant, Mutex, process_wide, thread, wait_on_for};
use crate::util::unwind::{catch_panic, drop_catching, emit};

/// So long the thread stays without anything to do.
const LINGER: Duration = Duration::from_secs(10);

/// When a wait is to end. Dropping it forgets it.
#[derive(Debug)]
pub(crate) struct Limit {
    /// `None` if it is too far away for the clock.
    deadline: Option<Instant>,
    /// Its number in the timer's list.
    alarm: Option<u64>,
}

impl Limit {
    /// From now on.
    pub(crate) fn after(limit: Duration) -> Self {
        Self {
            deadline: Instant::now().checked_add(limit),
            alarm: None,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn is_over(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Ready when it is over. If the system refuses the timer its thread it is so at once: a wait that ends early is
    /// better than one that never ends.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        if Instant::now() >= deadline {
            self.forget();
            return Poll::Ready(());
        }
        match TIMER.get().set(deadline, &mut self.alarm, context.waker()) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    fn forget(&mut self) {
        if let (Some(deadline), Some(alarm)) = (self.deadline, self.alarm.take()) {
            TIMER.get().forget(deadline, alarm);
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.forget();
    }
}

process_wide! {
    static TIMER: PerProcess<Timer> = PerProcess::new(Timer::default);
}

#[derive(Default)]
struct Timer {
    alarms: Mutex<Alarms>,
    /// Told when the first alarm is another one.
    changed: Condvar,
}

#[derive(Default)]
struct Alarms {
    /// By time, and then by number.
    set: BTreeMap<(Instant, u64), Waker>,
    next: u64,
    /// Set by who starts the thread, reset by the thread when it leaves, or by who could not start it.
    has_thread: bool,
}

impl Timer {
    /// Sees to it that the waker is called at `deadline`; false if there is no thread that could.
    fn set(&'static self, deadline: Instant, alarm: &mut Option<u64>, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut alarms = self.alarms.lock();
        let number = *alarm.get_or_insert_with(|| {
            alarms.next += 1;
            alarms.next
        });
        let key = (deadline, number);
        let replaced = alarms.set.insert(key, waker);
        let is_first = alarms
            .set
            .first_key_value()
            .is_some_and(|(first, _)| *first == key);
        let has_thread = mem::replace(&mut alarms.has_thread, true);
        drop(alarms);
        drop_catching("a waker's destructor", replaced);
        if !has_thread {
            return self.start();
        }
        if is_first {
            self.changed.notify_one();
        }
        true
    }

    fn forget(&self, deadline: Instant, alarm: u64) {
        let waker = self.alarms.lock().set.remove(&(deadline, alarm));
        drop_catching("a waker's destructor", waker);
    }

    fn start(&'static self) -> bool {
        let builder = thread::Builder::new().name("futurepool-timer".to_owned());
        let Err(refusal) = builder.spawn(|| self.run()) else {
            return true;
        };
        let mut alarms = self.alarms.lock();
        alarms.has_thread = false;
        let all = mem::take(&mut alarms.set);
        drop(alarms);
        // They look again, and try to start the thread themselves.
        wake_all(all.into_values());
        emit(
            || tracing::warn!(error = %refusal, "the system refused the timer's thread: {refusal}"),
        );
        false
    }

    fn run(&self) {
        let mut alarms = self.alarms.lock();
        loop {
            let now = Instant::now();
            let later = alarms.set.split_off(&(now, u64::MAX));
            let due = mem::replace(&mut alarms.set, later);
            if !due.is_empty() {
                drop(alarms);
                wake_all(due.into_values());
                alarms = self.alarms.lock();
                continue;
            }
            let next = alarms.set.first_key_value().map(|((at, _), _)| *at);
            let timed_out;
            let left = next.map_or(LINGER, |next| next.saturating_duration_since(now));
            (alarms, timed_out) = wait_on_for(&self.changed, alarms, left);
            if next.is_none() && timed_out && alarms.set.is_empty() {
                alarms.has_thread = false;
                return;
            }
        }
    }
}

fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        catch_panic("a waker", || waker.wake());
    }
}
