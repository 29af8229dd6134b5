//! What happened so far.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

#[derive(Clone, Copy)]
pub(crate) enum Count {
    Jobs,
    Panics,
    /// Callbacks that panicked.
    Callbacks,
    /// Destructors that panicked.
    Bombs,
    Cancels,
    Drops,
    Timeouts,
    /// By `try_submit`.
    Refusals,
    /// That were short-lived.
    Pools,
    /// For nothing.
    Unparks,
}

const NAMES: [&str; 10] = [
    "jobs",
    "panics",
    "callbacks",
    "bombs",
    "cancels",
    "drops",
    "timeouts",
    "refusals",
    "pools",
    "unparks",
];
pub(crate) static COUNTS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

pub(crate) fn count(what: Count) {
    add(&COUNTS[what as usize]);
}

pub(crate) fn add(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, SeqCst)
}

pub(crate) fn totals() -> String {
    let words = NAMES.iter().zip(&COUNTS);
    let words: Vec<_> = words
        .map(|(name, n)| format!("{} {name}", n.load(SeqCst)))
        .collect();
    words.join(", ")
}
