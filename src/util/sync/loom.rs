//! What the model checker has instead of std's: each operation is a point where the running thread
//! may change.

pub(crate) use ::loom::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use ::loom::sync::{Condvar, Mutex as Inner, MutexGuard};

use std::ops::{Add, Sub};
use std::time::Duration;

pub(crate) mod thread {
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Condvar, Inner as Mutex};

    pub(crate) use ::loom::thread::JoinHandle;
    pub(crate) use std::thread::{available_parallelism, panicking};

    /// A thread that can be unparked. (loom's own `unpark` also wakes a thread that waits for a
    /// lock.)
    #[derive(Debug, Clone)]
    pub(crate) struct Thread(Arc<Parker>);

    #[derive(Debug)]
    struct Parker {
        notified: Mutex<bool>,
        changed: Condvar,
    }

    ::loom::thread_local! {
        static MINE: Thread = Thread(Arc::new(Parker {
            notified: Mutex::new(false),
            changed: Condvar::new(),
        }));
    }

    pub(crate) fn current() -> Thread {
        MINE.with(Thread::clone)
    }

    pub(crate) fn park() {
        let Thread(parker) = current();
        let mut notified = parker
            .notified
            .lock()
            .expect("no thread panics under this lock");
        while !*notified {
            notified = parker
                .changed
                .wait(notified)
                .expect("no thread panics under this lock");
        }
        *notified = false;
    }

    impl Thread {
        pub(crate) fn unpark(&self) {
            let Self(parker) = self;
            *parker
                .notified
                .lock()
                .expect("no thread panics under this lock") = true;
            parker.changed.notify_one();
        }
    }

    /// The time passes. Other threads may run first: a thread that parks again and again until
    /// something happens is no endless schedule.
    pub(crate) fn park_timeout(timeout: Duration) {
        super::Instant::pass(timeout);
        ::loom::thread::yield_now();
    }

    #[derive(Debug)]
    pub(crate) struct Builder(::loom::thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(::loom::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        pub(crate) fn stack_size(self, _: usize) -> Self {
            self
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            run: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            self.0.spawn(run)
        }
    }
}

/// Converts a time into std's type, which users see. Models do not look at it.
pub(crate) fn to_std(_: Instant) -> std::time::Instant {
    std::time::Instant::now()
}

/// Converts a time that a user gave. A model gives none.
pub(crate) fn from_std(_: std::time::Instant) -> Instant {
    Instant::now()
}

/// A clock that only [`thread::park_timeout`] moves, for all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(Duration::from_nanos(
            CLOCK.load(std::sync::atomic::Ordering::Relaxed),
        ))
    }

    fn pass(time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).expect("a model has short timeouts");
        CLOCK.fetch_add(nanos, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn checked_add(self, time: Duration) -> Option<Self> {
        self.0.checked_add(time).map(Self)
    }

    pub(crate) fn checked_sub(self, time: Duration) -> Option<Self> {
        self.0.checked_sub(time).map(Self)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0 - earlier.0
    }
}

::loom::lazy_static! {
    /// One for each run of a model. Not loom's atomic, since the clock is not what is checked.
    static ref CLOCK: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
}

/// A thread-local of loom's threads, with the one method of std's that is used.
pub(crate) struct Local<T: 'static>(pub(crate) &'static ::loom::thread::LocalKey<T>);

#[derive(Debug)]
pub(crate) struct Dropped;

impl<T> Local<T> {
    pub(crate) fn try_with<R>(&self, f: impl FnOnce(&T) -> R) -> Result<R, Dropped> {
        self.0.try_with(f).map_err(|_| Dropped)
    }
}

macro_rules! local {
    ($($(#[$meta:meta])* $vis:vis static $name:ident: $type:ty = const { $init:expr };)*) => {
        $($(#[$meta])* $vis static $name: $crate::util::sync::Local<$type> = {
            ::loom::thread_local! { static KEY: $type = $init; }
            $crate::util::sync::Local(&KEY)
        };)*
    };
}

macro_rules! process_wide {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        ::loom::lazy_static! { $(#[$meta])* static ref $name: $type = $init; }
    };
}

pub(crate) use {local, process_wide};
