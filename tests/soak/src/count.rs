//! Counts of what has happened so far.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

#[derive(Clone, Copy)]
pub(crate) enum Count {
    Jobs,
    Panics,
    CallbackPanics,
    DropPanics,
    Cancels,
    /// Handles, submissions and maps that were dropped early.
    Drops,
    Timeouts,
    /// Jobs that `try_submit` rejected.
    Rejections,
    ShortLivedPools,
    SpuriousUnparks,
}

const NAMES: [&str; 10] = [
    "jobs",
    "panics",
    "callback panics",
    "drop panics",
    "cancels",
    "drops",
    "timeouts",
    "rejections",
    "short-lived pools",
    "spurious unparks",
];
pub(crate) static COUNTS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

pub(crate) fn count(what: Count) {
    increment(&COUNTS[what as usize]);
}

/// Returns the previous value.
pub(crate) fn increment(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, SeqCst)
}

pub(crate) fn totals() -> String {
    let totals = NAMES.iter().zip(&COUNTS);
    let totals: Vec<_> = totals
        .map(|(name, n)| format!("{} {name}", n.load(SeqCst)))
        .collect();
    totals.join(", ")
}
