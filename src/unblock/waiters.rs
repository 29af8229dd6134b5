//! The tasks that wait for the job in flight.

use std::mem;
use std::task::{Context, Poll, Wake, Waker};

use crate::util::sync::Arc;
use crate::util::unwind::{catch_panic, drop_waker, wake};

/// Which half of an `Unblock` an operation belongs to. `futures::io::split` puts the halves into
/// two tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Reader,
    Writer,
}

/// The last waker of each half, if that half waits for the job in flight.
///
/// Invariant: the job in flight wakes every waker that is in here, except between a change of the
/// job and [`wake_other`](Self::wake_other).
#[derive(Default)]
pub(super) struct Waiters {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Waiters {
    /// Calls `poll`, which polls the job in flight, with a waker for each half that waits.
    pub(super) fn poll<R>(
        &mut self,
        half: Half,
        context: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let (own, other) = match half {
            Half::Reader => (&mut self.reader, &self.writer),
            Half::Writer => (&mut self.writer, &self.reader),
        };
        let waker = context.waker();
        let outcome = match other {
            Some(other) if !other.will_wake(waker) => {
                let both = Waker::from(Arc::new(Both([waker.clone(), other.clone()])));
                poll(&mut Context::from_waker(&both))
            }
            Some(_) | None => poll(context),
        };
        let waker = context.waker();
        if outcome.is_pending() && !own.as_ref().is_some_and(|own| own.will_wake(waker)) {
            drop_waker(own.replace(waker.clone()));
        }
        outcome
    }

    /// Wakes the other half, because the job in flight has changed. The calling half goes on
    /// anyway.
    pub(super) fn wake_other(&mut self, half: Half) {
        let Self { reader, writer } = mem::take(self);
        let (own, other) = match half {
            Half::Reader => (reader, writer),
            Half::Writer => (writer, reader),
        };
        drop_waker(own);
        if let Some(other) = other {
            wake(other);
        }
    }

    /// Drops the wakers.
    pub(super) fn forget(&mut self) {
        let Self { reader, writer } = mem::take(self);
        drop_waker(reader);
        drop_waker(writer);
    }
}

/// Wakes both halves.
struct Both([Waker; 2]);

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        for waker in &self.0 {
            catch_panic("a waker", || waker.wake_by_ref());
        }
    }
}
