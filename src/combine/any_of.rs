//! The handles of a wait that one job can end: [`AnyOf`].

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{FuturesUnordered, StreamExt};

use crate::combine::handle::{Inner, WaitHandle};

/// Handles that are polled as they are woken, and leave the set when their job is finished.
///
/// Their results stay in them. A handle that leaves the set in any way keeps no waker of it.
pub(crate) struct AnyOf<H> {
    /// The handles not known to be finished.
    pending: FuturesUnordered<Numbered<H>>,
    /// [`Inner::remove_waker`], for the drop, which has no bounds.
    remove_waker: fn(&H),
}

/// A future that returns the handle once its job is finished.
struct Numbered<H> {
    /// The place of the handle in the order in which they were passed.
    number: usize,
    /// `None` after completion.
    handle: Option<H>,
    /// Whether the set has registered a waker with the handle. Set by the first poll.
    has_waker: bool,
}

// Handles are moved, never pinned.
impl<H> Unpin for Numbered<H> {}

impl<H: WaitHandle> Future for Numbered<H> {
    type Output = (usize, H);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(usize, H)> {
        let handle = self.handle.as_ref();
        let handle = handle.expect("a set polls no future after completion");
        if handle.poll_done(context).is_pending() {
            self.has_waker = true;
            return Poll::Pending;
        }
        let handle = self.handle.take().expect("it was there above");
        Poll::Ready((self.number, handle))
    }
}

impl<H: WaitHandle> AnyOf<H> {
    pub(crate) fn new(handles: impl IntoIterator<Item = H>) -> Self {
        let numbered = |(number, handle)| Numbered {
            number,
            handle: Some(handle),
            has_waker: false,
        };
        Self {
            pending: handles.into_iter().enumerate().map(numbered).collect(),
            remove_waker: H::remove_waker,
        }
    }

    /// Returns the next handle whose job is finished, with its number. Returns `None` if all were
    /// returned.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, H)>> {
        self.pending.poll_next_unpin(context)
    }
}

impl<H> AnyOf<H> {
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Returns the handles not yet returned, with their numbers, in no particular order.
    pub(crate) fn into_handles(mut self) -> Vec<(usize, H)> {
        self.remove_wakers();
        let pending = mem::take(&mut self.pending).into_iter();
        pending
            .filter_map(|numbered| Some((numbered.number, numbered.handle?)))
            .collect()
    }

    fn remove_wakers(&mut self) {
        for numbered in &mut self.pending {
            // A handle that the set has not polled keeps the waker of an older poll.
            if let (true, Some(handle)) = (numbered.has_waker, &numbered.handle) {
                (self.remove_waker)(handle);
            }
        }
    }
}

impl<H> Drop for AnyOf<H> {
    fn drop(&mut self) {
        self.remove_wakers();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Mutex;
    use std::task::Waker;

    use super::*;
    use crate::{Executor, ExecutorExt, Job, JoinHandle};

    /// An executor that keeps its jobs queued.
    #[derive(Default)]
    struct Held(Mutex<Vec<Job>>);

    impl Executor for Held {
        fn execute(&self, job: Job) {
            self.0.lock().unwrap().push(job);
        }
    }

    fn has_waker(handle: &JoinHandle<()>) -> bool {
        handle.raw().state(|state| state.wakes_user_code())
    }

    #[test]
    fn a_handle_keeps_a_waker_of_the_set_only_while_it_is_in_the_set() {
        let held = Held::default();
        let mut handles = [held.submit(|| ()), held.submit(|| ())];
        let mut context = Context::from_waker(Waker::noop());
        for into_handles in [false, true] {
            let mut set = AnyOf::new(&mut handles);
            assert!(set.poll_next(&mut context).is_pending());
            let has_waker = |numbered: &Numbered<&mut JoinHandle<()>>| {
                let handle = numbered.handle.as_ref();
                handle.is_some_and(|handle| has_waker(handle))
            };
            assert!(set.pending.iter().all(has_waker));
            match into_handles {
                true => drop(set.into_handles()),
                false => drop(set),
            }
            assert!(!handles.iter().any(self::has_waker));
        }
    }

    #[test]
    fn a_set_that_was_not_polled_leaves_older_wakers() {
        let held = Held::default();
        let handle = held.submit(|| ());
        assert!(
            handle
                .poll_done(&Context::from_waker(Waker::noop()))
                .is_pending()
        );
        let handles = AnyOf::new([handle]).into_handles();
        assert!(has_waker(&handles[0].1));
    }
}
