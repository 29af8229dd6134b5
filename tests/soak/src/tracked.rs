//! Values that count themselves: closures capture them, and jobs return them.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::{panic, thread};

use futurepool::JoinError;

use crate::count::{Count, count};
use crate::random::mix;

/// The number of live [`Tracked`] values.
pub(crate) static LIVE: AtomicI64 = AtomicI64::new(0);

/// The payload of every injected panic: the seed of the job.
pub(crate) struct InjectedPanic(pub(crate) u64);

/// A counted value. Its destructor may panic.
pub(crate) struct Tracked {
    panics_on_drop: bool,
}

impl Tracked {
    pub(crate) fn new(panics_on_drop: bool) -> Self {
        LIVE.fetch_add(1, SeqCst);
        Self { panics_on_drop }
    }

    /// Drops the value without a panic.
    ///
    /// Takes `self` by value: otherwise a closure would capture the flag alone.
    pub(crate) fn disarm(mut self) {
        self.panics_on_drop = false;
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, SeqCst);
        if self.panics_on_drop && !thread::panicking() {
            count(Count::DropPanics);
            panic::panic_any(InjectedPanic(0));
        }
    }
}

/// The result of a job.
pub(crate) struct Output {
    pub(crate) seed: u64,
    hash: u64,
    _tracked: Tracked,
}

impl Output {
    pub(crate) fn new(seed: u64, panics_on_drop: bool) -> Self {
        Self {
            seed,
            hash: mix(seed),
            _tracked: Tracked::new(panics_on_drop),
        }
    }
}

/// Returns the seed of the job that returned or panicked.
pub(crate) fn seed_of(outcome: Result<Output, JoinError>) -> u64 {
    match outcome {
        Ok(output) => {
            assert_eq!(output.hash, mix(output.seed), "the output was corrupted");
            output.seed
        }
        Err(error) => match error.into_panic().downcast::<InjectedPanic>() {
            Ok(injected) => injected.0,
            Err(_) => panic!("not the payload that the job threw"),
        },
    }
}
