//! Spurious unparks: any thread may be unparked at any time.

use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};

use crate::count::{Count, count};
use crate::random::Random;

/// A sample of the threads that registered lately: drivers and workers.
static THREADS: Mutex<Vec<Thread>> = Mutex::new(Vec::new());
const MAX_THREADS: usize = 32;

/// Makes the current thread a target of spurious unparks.
pub(crate) fn register_thread(random: &mut Random) {
    let current = thread::current();
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    if threads.len() < MAX_THREADS {
        threads.push(current);
    } else {
        threads[random.below(MAX_THREADS as u64) as usize] = current;
    }
}

/// Unparks a random target, whatever it waits for.
pub(crate) fn unpark_random(random: &mut Random) {
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    if !threads.is_empty() {
        threads[random.below(threads.len() as u64) as usize].unpark();
        count(Count::SpuriousUnparks);
    }
}
