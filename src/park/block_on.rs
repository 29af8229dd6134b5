//! Waiting for a future without a runtime: the thread parks until its waker is called.

use std::any::type_name;
use std::cell::Cell;
use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::ptr;
use std::task::{Context, Poll};

use crate::park::helping::Inside;
use crate::park::parker::Sleeper;
use crate::util::spin::look_as_joiner;
use crate::util::sync::{Instant, local};

/// Runs a future to its end in this thread, which parks while the future has nothing to do.
///
/// For sync callers without a runtime: every future of this crate works in it, and any other that needs no particular
/// runtime. It may be called anywhere, inside a runtime and inside another `block_on` too; in async code it blocks the
/// executor's thread.
///
/// In a worker of a pool it may run queued jobs of that pool which the future waits for, so that the wait ends even if
/// all workers wait: at once if the future is a [`JoinHandle`](crate::JoinHandle) itself, tagged or
/// [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop) too, and otherwise only while no worker can.
///
/// # Panics
///
/// Only if the future does.
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

/// As [`block_on`], but until `deadline` at most. With one, it runs no jobs.
pub(crate) fn block_on_until<F: Future>(
    mut future: Pin<&mut F>,
    deadline: Option<Instant>,
) -> Option<F::Output> {
    let sleeper = Sleeper::helping();
    let mut context = Context::from_waker(sleeper.waker());
    let mut over = false;
    loop {
        // Anew each time: what runs between two polls is not inside.
        let inside = Inside::block_on(sleeper.turn(), deadline.is_some());
        let root = RootGuard::set(deadline.is_none().then(|| Root::of(&*future)));
        let poll = future.as_mut().poll(&mut context);
        drop((root, inside));
        if let Poll::Ready(output) = poll {
            return Some(output);
        }
        if over {
            return None;
        }
        sleeper.help_if_asked();
        look_as_joiner(deadline, || sleeper.is_called());
        // What comes in the last moment counts: one more poll.
        let called = sleeper.sleep(deadline);
        over = !called || deadline.is_some_and(|deadline| Instant::now() >= deadline);
    }
}

/// The whole future of a `block_on`. A handle that is polled and finds itself to be that knows that this thread has
/// nothing to do but to wait for it, and so waits as [`join`](crate::JoinHandle::join) does.
///
/// A wrapper round a handle may lie at the same address, so the type's name has to be the same, too.
#[derive(Clone, Copy)]
struct Root {
    address: usize,
    type_name: &'static str,
}

impl Root {
    fn of<F>(future: &F) -> Self {
        Self {
            address: ptr::from_ref(future).addr(),
            type_name: type_name::<F>(),
        }
    }
}

local! {
    /// Of the innermost `block_on` without a time limit, while it polls.
    static ROOT: Cell<Option<Root>> = const { Cell::new(None) };
}

/// Whether `future` is all that this thread waits for, in [`block_on`].
pub(crate) fn is_root<F>(future: &F) -> bool {
    ROOT.get().is_some_and(|root| {
        root.address == ptr::from_ref(future).addr() && root.type_name == type_name::<F>()
    })
}

/// If `outer` is the root, `inner` is it instead, until `outer` was polled.
pub(crate) fn pass_root_on<F, G>(outer: &F, inner: &G) {
    if is_root(outer) {
        ROOT.set(Some(Root::of(inner)));
    }
}

/// Puts the root of the outer `block_on` back.
struct RootGuard(Option<Root>);

impl RootGuard {
    fn set(root: Option<Root>) -> Self {
        Self(ROOT.replace(root))
    }
}

impl Drop for RootGuard {
    fn drop(&mut self) {
        ROOT.set(self.0);
    }
}
