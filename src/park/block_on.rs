//! Waiting for a future without a runtime: the thread parks until its waker is called.

use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use crate::park::helping::{Frame, PollGuard, help_if_probed};
use crate::park::parker::Parker;
use crate::util::spin::spin_before_park;
use crate::util::sync::Instant;

/// Runs a future to completion on this thread, which parks while the future has nothing to do.
///
/// It is for sync callers without a runtime: every future of this crate works in it, and so does
/// any other that needs no particular runtime. It may be called anywhere, also inside a runtime and
/// inside another `block_on`. In async code it blocks the executor's thread.
///
/// In a worker of a pool the future may wait for queued jobs of that pool. `block_on` then runs the
/// oldest of them itself, but only while no worker of the pool can. ([`join`] runs its job at once.)
///
/// [`join`]: crate::JoinHandle::join
///
/// # Panics
///
/// Panics if the future does.
///
/// # Examples
///
/// ```
/// let pool = futurepool::ThreadPool::new(2);
/// let sum = futurepool::block_on(async {
///     let a = pool.submit(|| 1);
///     let b = pool.submit(|| 2);
///     a.await.unwrap() + b.await.unwrap()
/// });
/// assert_eq!(sum, 3);
/// ```
#[doc(alias = "run")]
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let future = pin!(future.into_future());
    block_on_until(future, None).expect("without a deadline it waits for the output")
}

/// Runs a future until it completes or `deadline` has passed. With a deadline, it runs no jobs.
pub(crate) fn block_on_until<F: Future>(
    mut future: Pin<&mut F>,
    deadline: Option<Instant>,
) -> Option<F::Output> {
    let parker = Parker::new();
    let frame = match deadline {
        None => Frame::Untimed(parker.address()),
        Some(_) => Frame::Timed(parker.address()),
    };
    let mut context = Context::from_waker(parker.waker());
    let mut elapsed = false;
    let mut is_first_poll = true;
    loop {
        // Entered anew for each poll: what runs between two polls is not polled by this wait.
        let guard = PollGuard::enter(frame);
        let poll = future.as_mut().poll(&mut context);
        let offered = guard.leave();
        if let Poll::Ready(output) = poll {
            return Some(output);
        }
        if elapsed {
            return None;
        }
        // A probe wakes futures that are blocked on, so the first poll is no answer to one. (A handle
        // may have been probed in a wait before this one.)
        if let Some(task) = offered.filter(|_| !is_first_poll) {
            help_if_probed(task);
        }
        is_first_poll = false;
        spin_before_park(deadline, || parker.is_notified());
        // The future may have become ready just before the deadline: one more poll.
        let notified = parker.park(deadline);
        elapsed = !notified || deadline.is_some_and(|deadline| Instant::now() >= deadline);
    }
}
