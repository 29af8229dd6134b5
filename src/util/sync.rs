//! The locks, atomics, threads, thread-locals and the clock that the rest is built on, in one place: std's, or those of
//! the model checker ([`loom`], with `--cfg loom`).

#[cfg(loom)]
mod loom;

#[cfg(loom)]
pub(crate) use self::loom::*;

pub(crate) use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

#[cfg(not(loom))]
use std::sync::Mutex as Inner;
#[cfg(not(loom))]
pub(crate) use {
    std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering, fence},
    std::sync::{Condvar, MutexGuard},
    std::thread,
    std::time::Instant,
};

/// A mutex that is never poisoned: none of our locks is held while foreign code runs, so nothing can panic under it
/// half-way through a change.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(Inner<T>);

impl<T> Mutex<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    #[cfg(loom)]
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits on `condvar`, as [`Mutex::lock`] does without poison.
pub(crate) fn wait_on<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// As [`wait_on`], so long at most; says whether the time is up.
pub(crate) fn wait_on_for<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: Duration,
) -> (MutexGuard<'a, T>, bool) {
    let (guard, result) = condvar
        .wait_timeout(guard, limit)
        .unwrap_or_else(PoisonError::into_inner);
    (guard, result.timed_out())
}

/// Thread-locals.
#[cfg(not(loom))]
macro_rules! local {
    ($($locals:tt)*) => {
        ::std::thread_local! { $($locals)* }
    };
}

/// A static that holds a lock or an atomic.
#[cfg(not(loom))]
macro_rules! process_wide {
    ($($global:tt)*) => {
        $($global)*
    };
}

#[cfg(not(loom))]
pub(crate) use {local, process_wide};
