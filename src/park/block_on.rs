//! Waiting for a future without a runtime: the thread parks until its waker is called.

use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use crate::error::Deadlock;
use crate::park::helping::{Frame, PollGuard, put_back, reject, take_awaited, wake_own_mail};
use crate::park::parker::Parker;
use crate::park::wait_graph::{BlockedGuard, enter_wait_for_any};
use crate::task::cell::RawTask;
use crate::task::context::take_backlog;
use crate::util::spin::spin_before_park;
use crate::util::sync::{Arc, Instant};

/// Runs a future to completion on this thread, which parks while the future has nothing to do.
///
/// `block_on` is for sync callers without a runtime. Every future of this crate works in it, and so
/// does any other future that needs no particular runtime. `block_on` can be called anywhere, also
/// inside a runtime and inside another `block_on`.
///
/// **In async code, `block_on` blocks the executor's thread: use `.await` there.** While it blocks,
/// no other task of that thread runs. If the future waits for such a task, `block_on` never
/// returns.
///
/// With feature `tokio`, the future is polled outside of the cooperative budget of a surrounding
/// tokio task. So tokio's channels and locks do not stall it. Two things still cannot work under a
/// `block_on` in a tokio task:
///
/// - `tokio::task::yield_now` never completes, because tokio wakes it only after the blocked task
///   has given way.
/// - tokio's timers and I/O do not advance while all threads of the runtime are blocked. A
///   `current_thread` runtime has only one.
///
/// Both work in a job, if another thread drives the runtime. They also work in
/// `tokio::task::block_in_place`.
///
/// In a worker of a pool the future may wait for queued jobs of that pool. `block_on` then runs the
/// oldest of them itself, but only while no worker of the pool can. ([`join`] runs its job at
/// once.) A job that was [broadcast](crate::ThreadPool::broadcast) to this very worker runs at
/// once, too. A worker of a [`StatefulPool`](crate::StatefulPool#waits-in-a-worker) runs none.
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
    future: Pin<&mut F>,
    deadline: Option<Instant>,
) -> Option<F::Output> {
    // A tokio task has a budget. Once it is used up, tokio's futures return `Pending` until the
    // task yields, which a task that blocks here never does: so they are polled without a budget.
    #[cfg(feature = "tokio")]
    let future = tokio::task::unconstrained(future);
    let mut future = pin!(future);
    let parker = Parker::new();
    let frame = match deadline {
        None => Frame::Untimed(parker.address()),
        Some(_) => Frame::Timed(parker.address()),
    };
    let mut context = Context::from_waker(parker.waker());
    let mut elapsed = false;
    let mut is_first_poll = true;
    let mut seen_mail = 0;
    let mut unreachable = None;
    loop {
        // Entered anew for each poll: what runs between two polls is not polled by this wait.
        let guard = PollGuard::enter(frame, unreachable.take());
        take_backlog();
        let poll = future.as_mut().poll(&mut context);
        let has_backlog = take_backlog();
        let offers = guard.leave();
        if let Poll::Ready(output) = poll {
            return Some(output);
        }
        if elapsed {
            return None;
        }
        // A probe wakes futures that are blocked on, so the first poll is no answer to one. (A
        // handle may have been probed in a wait before this one.)
        offers.run(!is_first_poll);
        is_first_poll = false;
        if deadline.is_none() {
            wake_own_mail(&mut seen_mail);
        }
        spin_before_park(deadline, has_backlog, || parker.is_notified());
        if deadline.is_none() {
            let awaited = take_awaited();
            if !awaited.is_empty() {
                unreachable = park_among(&parker, awaited).map(Box::new);
                continue;
            }
        }
        // The future may have become ready just before the deadline: one more poll.
        let notified = parker.park(deadline);
        elapsed = !notified || deadline.is_some_and(|deadline| Instant::now() >= deadline);
    }
}

/// Parks this worker of a stateful pool, which waits for jobs of its pool. Returns an error if no
/// worker can reach them.
fn park_among(parker: &Parker, awaited: Vec<Arc<dyn RawTask>>) -> Option<Deadlock> {
    let deadlock = match enter_wait_for_any(awaited.clone(), parker.waker()) {
        Ok(guard) => {
            parker.park_only(None);
            // No user code may run while this thread is in the graph.
            let deadlock = BlockedGuard::leave(guard);
            parker.run_deferred();
            deadlock
        }
        Err(deadlock) => Some(deadlock),
    };
    match deadlock {
        Some(_) => reject(awaited),
        None => put_back(awaited),
    }
    deadlock
}
