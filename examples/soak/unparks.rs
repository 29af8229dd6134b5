//! Threads that are unparked for nothing, as any thread may be.

use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};

use crate::count::{Count, count};
use crate::random::Random;

/// Some of those that were here lately: drivers, and workers.
static SEEN: Mutex<Vec<Thread>> = Mutex::new(Vec::new());
const MOST: usize = 32;

/// This thread may be unparked from now on.
pub(crate) fn be_seen(random: &mut Random) {
    let me = thread::current();
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.len() < MOST {
        seen.push(me);
    } else {
        seen[random.below(MOST as u64) as usize] = me;
    }
}

/// Unparks one of them, whatever it waits for.
pub(crate) fn unpark_one(random: &mut Random) {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if !seen.is_empty() {
        seen[random.below(seen.len() as u64) as usize].unpark();
        count(Count::Unparks);
    }
}
