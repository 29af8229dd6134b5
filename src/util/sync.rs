//! The locks, atomics, threads, thread-locals and the clock that the crate is built on: std's, or
//! those of the model checker ([`loom`], with `--cfg loom`).

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

/// A mutex without poisoning: no user code runs under the crate's locks, so no panic can leave a
/// change half made.
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

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits on `condvar`. Ignores poisoning, as [`Mutex::lock`] does.
pub(crate) fn wait_on<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condvar` for at most `timeout`. Returns whether that has elapsed.
pub(crate) fn wait_on_for<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> (MutexGuard<'a, T>, bool) {
    let (guard, result) = condvar
        .wait_timeout(guard, timeout)
        .unwrap_or_else(PoisonError::into_inner);
    (guard, result.timed_out())
}

/// Converts a time into std's type, which users see.
#[cfg(not(loom))]
pub(crate) fn to_std(at: Instant) -> Instant {
    at
}

/// Converts a time that a user gave.
#[cfg(not(loom))]
pub(crate) fn from_std(at: Instant) -> Instant {
    at
}

/// Declares thread-locals.
#[cfg(not(loom))]
macro_rules! local {
    ($($locals:tt)*) => {
        ::std::thread_local! { $($locals)* }
    };
}

/// Declares a static that holds a lock or an atomic.
#[cfg(not(loom))]
macro_rules! process_wide {
    ($($global:tt)*) => {
        $($global)*
    };
}

#[cfg(not(loom))]
pub(crate) use {local, process_wide};
