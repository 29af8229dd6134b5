//! Waiting for a future without a runtime: the thread parks until its waker is called.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::ptr;
use std::sync::OnceLock;
use std::task::{Context, Poll, RawWakerVTable, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use crate::sync::{Arc, AtomicBool, Ordering};

/// Runs a future to its end in this thread, which parks while the future has nothing to do.
///
/// For sync callers without a runtime: every future of this crate works in it, and any other that needs no particular
/// runtime. It may be called anywhere, inside a runtime and inside another `block_on` too; in async code it blocks the
/// executor's thread.
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
    let mut future = pin!(future.into_future());
    let sleeper = Sleeper::new();
    let mut context = Context::from_waker(sleeper.waker());
    let _inside = Inside::enter();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        sleeper.sleep(None);
    }
}

thread_local! {
    /// How many `block_on`s this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Whether this thread is in `block_on`: if a future has to wait, the thread waits, whatever waker it is polled with.
pub(crate) fn blocks_here() -> bool {
    DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(false)
}

/// Counts a `block_on`, also one that unwinds.
struct Inside;

impl Inside {
    fn enter() -> Self {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() - 1));
    }
}

/// A thread that waits for one thing, and the waker that ends the wait.
///
/// The waker of a thread is made once and kept for its next wait. A wait inside a wait (a future that calls
/// `block_on`) gets one of its own, or it would take the outer one's call for its own.
pub(crate) struct Sleeper {
    /// `None` only in `drop`.
    bell: Option<(Arc<Bell>, Waker)>,
}

/// What the waker rings.
struct Bell {
    thread: Thread,
    /// Set by the waker, reset by the sleeper. The token of `unpark` alone would not do: foreign code that this thread
    /// runs between two waits may park, too, and take it.
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

thread_local! {
    /// This thread's bell while it is not in use.
    static SPARE: Cell<Option<(Arc<Bell>, Waker)>> = const { Cell::new(None) };
}

/// How our own wakers are known: by their table of functions.
static OUR_TABLE: OnceLock<&'static RawWakerVTable> = OnceLock::new();

impl Sleeper {
    pub(crate) fn new() -> Self {
        // Without thread-locals (this thread is ending) a new one is made for each wait.
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        Self {
            bell: Some(spare.unwrap_or_else(new_bell)),
        }
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.bell().1
    }

    /// Sleeps until the waker was called since the last time, or `deadline` has passed; says whether it was called.
    pub(crate) fn sleep(&self, deadline: Option<Instant>) -> bool {
        let rung = &self.bell().0.rung;
        while !rung.swap(false, Ordering::Acquire) {
            match deadline {
                None => thread::park(),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    thread::park_timeout(left);
                }
            }
        }
        true
    }

    fn bell(&self) -> &(Arc<Bell>, Waker) {
        self.bell.as_ref().expect("it is there until the drop")
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let bell = self.bell.take();
        let _ = SPARE.try_with(|spare| spare.set(bell));
    }
}

impl fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleeper").finish_non_exhaustive()
    }
}

/// The only place that makes such a waker, so that there is one table.
#[inline(never)]
fn new_bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::new(Bell {
        thread: thread::current(),
        rung: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&bell));
    OUR_TABLE.get_or_init(|| waker.vtable());
    (bell, waker)
}

/// Whether this waker only unparks a thread that waits in this crate, and so is quick and runs nobody's code.
pub(crate) fn is_ours(waker: &Waker) -> bool {
    OUR_TABLE
        .get()
        .is_some_and(|ours| ptr::eq(*ours, waker.vtable()))
}
