//! `as_completed`: the outputs of many futures, in completion order.
//!
//! [`AsCompleted`] is a [`FutureSet`] with a blocking iterator. [`TimedAsCompleted`] adds a
//! [`Deadline`].

use std::fmt;
use std::future::Future;
use std::iter::FusedIterator;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FusedStream, Stream, StreamExt};

use crate::combine::future_set::FutureSet;
use crate::combine::handle::{Inner, WaitHandle};
use crate::error::TimeoutError;
use crate::park::block_on::{block_on, block_on_until};
use crate::park::helping::{Frame, PollGuard};
use crate::util::sync::{Arc, AtomicBool, Ordering};
use crate::util::timer::Deadline;

/// Yields the outputs of `futures` in completion order.
///
/// The futures can be any futures of one type: handles, [tagged](crate::JoinHandle::tag) handles,
/// or handles of several pools and executors. Async code uses the result as a [`Stream`], sync code
/// as an iterator.
///
/// **A `for` loop and [`wait_next`](AsCompleted::wait_next) block the thread. In async code they
/// block the runtime.** The async form is a `while let` loop around `next().await`, as shown below.
///
/// - A tag tells which output belongs to which future.
/// - A `for` loop consumes the set. A loop around [`wait_next`](AsCompleted::wait_next) can
///   [`push`](AsCompleted::push) further futures while it runs.
/// - An iterator that submits jobs is lazy, so it submits nothing before this call.
///   [Collect](Iterator::collect) it first to start the jobs immediately.
/// - [`cancel_all`](AsCompleted::cancel_all) cancels the jobs whose results are not yet yielded.
/// - Unlike Python's `as_completed`, this function yields outputs instead of futures, and a handle
///   cannot be passed twice.
/// - A task that takes very many outputs which are all available does not yield to other tasks. In
///   tokio, call `tokio::task::consume_budget().await` in the loop.
///
/// # Examples
///
/// ```
/// use futurepool::{ThreadPool, as_completed, block_on};
/// use futures::StreamExt;
///
/// let pool = ThreadPool::new(4);
/// let submit_all = || (1..=3_u64).map(|n| pool.submit(move || n * n)).collect::<Vec<_>>();
///
/// // Sync code. In async code, this loop would block the runtime.
/// let mut sum = 0;
/// for square in as_completed(submit_all()) {
///     sum += square.unwrap();
/// }
/// assert_eq!(sum, 14);
///
/// // Async code.
/// block_on(async {
///     let mut squares = as_completed(submit_all());
///     while let Some(square) = squares.next().await {
///         sum -= square.unwrap();
///     }
/// });
/// assert_eq!(sum, 0);
/// ```
///
/// With tagged handles, each output comes with its key:
///
/// ```
/// use futurepool::{ThreadPool, as_completed};
///
/// let pool = ThreadPool::new(4);
/// let words = ["spam", "eggs", "ham"];
/// let lengths = as_completed(words.map(|word| pool.submit(move || word.len()).tag(word)));
/// for (word, length) in lengths {
///     assert_eq!(length.unwrap(), word.len());
/// }
/// ```
#[doc(alias = "JoinSet")]
#[doc(alias = "ExecutorCompletionService")]
#[doc(alias = "select")]
pub fn as_completed<I>(futures: I) -> AsCompleted<I::Item>
where
    I: IntoIterator<Item: Future>,
{
    futures.into_iter().collect()
}

/// A set of futures that yields their outputs in completion order: see [`as_completed`].
///
/// **Dropping it drops the futures** that are not yet yielded: a handle detaches its job, and a
/// handle with [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop) cancels it.
///
/// The set is a [`Stream`], and `into_iter` turns it into a blocking iterator.
/// [`wait_next`](Self::wait_next) blocks for one output at a time, so that a loop can also
/// [`push`](Self::push). The [`size_hint`](Stream::size_hint) is exact.
///
/// **A `for` loop and `wait_next` block the thread. In async code they block the runtime**, so use
/// `while let Some(output) = set.next().await` there. `next` comes from `futures::StreamExt`. A
/// task that takes very many outputs which are all available does not yield to other tasks. In
/// tokio, call `tokio::task::consume_budget().await` in the loop.
///
/// # Cancel safety
///
/// Dropping the future of a `next()` call loses no output: a poll takes an output only to return
/// it.
///
/// # Examples
///
/// ```
/// use futurepool::{AsCompleted, ThreadPool, block_on};
/// use futures::StreamExt;
///
/// let pool = ThreadPool::new(4);
/// let mut squares = AsCompleted::new();
/// squares.extend((1..=3).map(|n| pool.submit(move || n * n)));
/// squares.push(pool.submit(|| 16));
///
/// let first = squares.wait_next().unwrap()?; // in sync code
/// let second = block_on(async { squares.next().await }).unwrap()?; // in async code
/// let rest: Vec<_> = squares.into_iter().collect::<Result<_, _>>()?; // in sync code
/// assert_eq!(first + second + rest.iter().sum::<i32>(), 30);
/// # Ok::<(), futurepool::JoinError>(())
/// ```
#[doc(alias = "JoinSet")]
#[doc(alias = "FuturesUnordered")]
#[doc(alias = "ExecutorCompletionService")]
#[must_use = "outputs are yielded only if the set is polled or iterated"]
pub struct AsCompleted<F> {
    /// The futures not yet yielded. `push` adds one, and a poll removes the one that it yields.
    pending: FutureSet<F>,
    /// Counts the futures that were ever added. Changed by `push`.
    total: usize,
}

impl<F> AsCompleted<F> {
    /// Creates an empty set, for futures that are added later.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{AsCompleted, ThreadPool};
    ///
    /// let pool = ThreadPool::new(2);
    /// let mut lengths = AsCompleted::new();
    /// for word in ["spam", "eggs"] {
    ///     lengths.push(pool.submit(move || word.len()));
    /// }
    /// assert!(lengths.into_iter().all(|length| length.unwrap() == 4));
    /// ```
    pub fn new() -> Self {
        Self {
            pending: FutureSet::new(),
            total: 0,
        }
    }

    /// Adds a future to the set.
    ///
    /// A future can be added at any time, even after the set has returned `None`.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{ThreadPool, as_completed};
    ///
    /// /// Returns the pages that `page` links to, in a site of seven pages.
    /// fn links(page: u32) -> Vec<u32> {
    ///     if page < 4 { vec![2 * page, 2 * page + 1] } else { Vec::new() }
    /// }
    ///
    /// let pool = ThreadPool::new(4);
    /// let mut visits = as_completed([pool.submit(|| links(1))]);
    /// let mut pages = 0;
    /// while let Some(found) = visits.wait_next() {
    ///     pages += 1;
    ///     for page in found? {
    ///         visits.push(pool.submit(move || links(page)));
    ///     }
    /// }
    /// assert_eq!(pages, 7);
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    #[doc(alias = "spawn")]
    #[doc(alias = "submit")]
    pub fn push(&mut self, future: F) {
        self.pending.push(future);
        self.total += 1;
    }

    /// Returns the futures not yet yielded, in insertion order. Some may already be complete.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{ThreadPool, as_completed};
    ///
    /// let pool = ThreadPool::new(4);
    /// let mirrors = ["a.example", "b.example", "c.example"];
    /// let mut lengths = as_completed(mirrors.map(|mirror| pool.submit(move || mirror.len())));
    /// let first = lengths.wait_next().expect("there are three")?;
    /// assert_eq!(first, 9);
    ///
    /// let slower = lengths.into_pending();
    /// assert_eq!(slower.len(), 2);
    /// for handle in slower {
    ///     assert_eq!(handle.join()?, 9);
    /// }
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    #[must_use]
    pub fn into_pending(self) -> Vec<F>
    where
        F: Unpin,
    {
        self.pending.into_futures()
    }

    /// Returns the number of futures not yet yielded.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{ThreadPool, as_completed};
    ///
    /// let pool = ThreadPool::new(4);
    /// let mut running = as_completed([]);
    /// let mut sum = 0;
    /// for n in 1..=100 {
    ///     if running.len() == 8 {
    ///         sum += running.wait_next().expect("there are eight")?;
    ///     }
    ///     running.push(pool.submit(move || n)); // at most eight at a time
    /// }
    /// for rest in running {
    ///     sum += rest?;
    /// }
    /// assert_eq!(sum, 5050);
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Returns whether all outputs were yielded.
    ///
    /// # Examples
    ///
    /// See [`len`](Self::len) for an example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.len() == 0
    }
}

impl<F: WaitHandle> AsCompleted<F> {
    /// Cancels the jobs whose results are not yet yielded, and returns how many are cancelled.
    ///
    /// Each job is cancelled as [`JoinHandle::cancel`](crate::JoinHandle::cancel) does. The job
    /// added last comes first: a worker that a cancelled job has freed then finds no other job of
    /// the set to start. The number counts the calls of `cancel` that returned `true`: jobs that
    /// this call cancelled, and jobs that were cancelled before. Running jobs only see the request
    /// through [`cancel_requested`](crate::cancel_requested).
    ///
    /// The handles stay in the set, which still yields the result of each one.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// use futurepool::{ThreadPool, as_completed};
    ///
    /// let pool = ThreadPool::new(1);
    /// let (go, wait) = mpsc::channel();
    /// let (tell, told) = mpsc::channel();
    /// let running = pool.submit(move || {
    ///     tell.send("started").unwrap();
    ///     wait.recv().unwrap()
    /// });
    /// assert_eq!(told.recv(), Ok("started"));
    ///
    /// let mut results = as_completed([running, pool.submit(|| 2), pool.submit(|| 3)]);
    /// assert_eq!(results.cancel_all(), 2);
    /// go.send(1).unwrap();
    /// let cancelled = results.into_iter().filter(Result::is_err).count();
    /// assert_eq!(cancelled, 2);
    /// ```
    #[doc(alias = "abort_all")]
    pub fn cancel_all(&self) -> usize {
        let last_first = self.pending.in_order().rev();
        last_first.filter(|handle| handle.cancel_job()).count()
    }
}

impl<F: Future> AsCompleted<F> {
    /// Blocks until the next output is available. Returns `None` if all were yielded.
    ///
    /// **In async code this blocks the runtime.** Write `set.next().await` there, with
    /// `futures::StreamExt`.
    ///
    /// In a worker of a pool, this method may run queued jobs of that pool that it waits for, but
    /// only while no other worker can: see [`block_on`](crate::block_on()).
    ///
    /// # Examples
    ///
    /// See [`push`](Self::push) for an example.
    #[doc(alias = "join_next")]
    #[doc(alias = "take")]
    pub fn wait_next(&mut self) -> Option<F::Output> {
        block_on(self.next())
    }

    /// Returns the next output if one is available now.
    ///
    /// Returns `None` if no output is available, and if all were yielded. This method is for sync
    /// code that submits and collects in one loop.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{ThreadPool, as_completed};
    ///
    /// let pool = ThreadPool::builder().queue_capacity(8).build().unwrap();
    /// let mut sum = 0;
    /// let mut results = as_completed([]);
    /// for n in 1..=100 {
    ///     results.push(pool.submit(move || n)); // blocks while the queue is full
    ///     while let Some(result) = results.try_wait_next() {
    ///         sum += result.unwrap();
    ///     }
    /// }
    /// for result in results {
    ///     sum += result.unwrap();
    /// }
    /// assert_eq!(sum, 5050);
    /// ```
    #[doc(alias = "try_join_next")]
    #[doc(alias = "poll")]
    pub fn try_wait_next(&mut self) -> Option<F::Output> {
        // The thread does not wait for these futures, so a blocked worker must not run their jobs.
        let _guard = PollGuard::enter(Frame::None, None);
        self.next().now_or_never().flatten()
    }

    /// Sets a timeout for the whole set, counted from this call. The items become `Result`s.
    ///
    /// When the timeout elapses, the set:
    ///
    /// 1. yields the outputs that are available,
    /// 2. yields one [`TimeoutError`], which tells how many futures are incomplete,
    /// 3. ends.
    ///
    /// The incomplete futures stay as they are, and
    /// [`into_pending`](TimedAsCompleted::into_pending) returns them.
    ///
    /// A timeout ends only the wait, never a job. The worker stays busy until the job returns, so a
    /// call that may block forever needs a time limit of its own, such as a socket timeout. The
    /// time that a job spends in the queue counts too.
    ///
    /// A `timeout` too long for the clock means no timeout. Timeouts work in every async runtime
    /// and in none: one timer thread serves the whole process. If that thread cannot be spawned, a
    /// timeout that is awaited elapses immediately.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// use futurepool::{ThreadPool, as_completed};
    ///
    /// let pool = ThreadPool::new(2);
    /// let (go, wait) = mpsc::channel();
    /// let slow = pool.submit(move || wait.recv().unwrap());
    /// let fast = pool.submit(|| "fast");
    /// while !fast.is_finished() {}
    ///
    /// let mut results = as_completed([slow, fast]).timeout(Duration::from_millis(10));
    /// assert!(results.wait_next().unwrap().is_ok());
    /// let error = results.wait_next().unwrap().unwrap_err();
    /// assert_eq!(error.to_string(), "1 (of 2) futures unfinished");
    /// assert!(results.wait_next().is_none());
    ///
    /// let slow = results.into_pending().remove(0); // the slow job is not lost
    /// go.send("slow").unwrap();
    /// assert_eq!(slow.join().unwrap(), "slow");
    /// ```
    pub fn timeout(self, timeout: Duration) -> TimedAsCompleted<F> {
        TimedAsCompleted {
            inner: self,
            deadline: Deadline::after(timeout),
            done: false,
        }
    }

    /// Returns an output that is available now, after the deadline has elapsed.
    ///
    /// A [`FutureSet`] returns `Pending` now and then without having polled all woken futures, and
    /// wakes its task to be polled again. So one poll does not suffice: this method polls again
    /// while its waker is called.
    fn poll_last(&mut self) -> Option<F::Output> {
        // The thread no longer waits for these futures.
        let _guard = PollGuard::enter(Frame::None, None);
        let flag = Arc::new(WakeFlag::default());
        let waker = Waker::from(Arc::clone(&flag));
        // A future that always wakes itself would keep the loop running, so the number of futures
        // bounds the number of polls.
        for _ in 0..=self.len() {
            if let Poll::Ready(output) = self.poll_next_unpin(&mut Context::from_waker(&waker)) {
                return output;
            }
            // Ordering: Acquire pairs with the Release in `wake`. The next poll sees what the
            // waking thread did before it called the waker.
            if !flag.0.swap(false, Ordering::Acquire) {
                break;
            }
        }
        None
    }
}

/// A waker that records whether it was called.
#[derive(Default)]
struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        // Ordering: Release pairs with the Acquire in `AsCompleted::poll_last`.
        self.0.store(true, Ordering::Release);
    }
}

impl<F: Future> Stream for AsCompleted<F> {
    type Item = F::Output;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        self.pending.poll_next(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl<F: Future> FusedStream for AsCompleted<F> {
    fn is_terminated(&self) -> bool {
        self.is_empty()
    }
}

impl<F> Default for AsCompleted<F> {
    /// Creates an empty set.
    fn default() -> Self {
        Self::new()
    }
}

impl<F> Extend<F> for AsCompleted<F> {
    fn extend<I: IntoIterator<Item = F>>(&mut self, futures: I) {
        let futures = futures.into_iter();
        let (at_least, _) = futures.size_hint();
        self.pending.reserve(at_least);
        futures.for_each(|future| self.push(future));
    }
}

impl<F> FromIterator<F> for AsCompleted<F> {
    fn from_iter<I: IntoIterator<Item = F>>(futures: I) -> Self {
        let mut outputs = Self::new();
        outputs.extend(futures);
        outputs
    }
}

impl<F: Future> IntoIterator for AsCompleted<F> {
    type Item = F::Output;
    type IntoIter = AsCompletedIter<F>;

    /// Returns a blocking iterator over the outputs.
    ///
    /// **In async code it blocks the runtime**: use `while let Some(output) = set.next().await`
    /// there.
    fn into_iter(self) -> AsCompletedIter<F> {
        AsCompletedIter(self)
    }
}

impl<F> fmt::Debug for AsCompleted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("pending", &self.len())
            .field("total", &self.total)
            .finish()
    }
}

/// A blocking iterator over the outputs of an [`AsCompleted`].
///
/// Dropping it drops the futures not yet yielded, like dropping the [`AsCompleted`]. Each step
/// blocks like [`wait_next`](AsCompleted::wait_next).
///
/// # Examples
///
/// See [`as_completed`] for an example.
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct AsCompletedIter<F>(AsCompleted<F>);

impl<F: Future> Iterator for AsCompletedIter<F> {
    type Item = F::Output;

    fn next(&mut self) -> Option<F::Output> {
        self.0.wait_next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<F: Future> ExactSizeIterator for AsCompletedIter<F> {}
impl<F: Future> FusedIterator for AsCompletedIter<F> {}

impl<F> fmt::Debug for AsCompletedIter<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsCompletedIter").field(&self.0).finish()
    }
}

/// An [`AsCompleted`] with a timeout: see [`AsCompleted::timeout`].
///
/// **Dropping it drops the futures** that are not yet yielded, as for an [`AsCompleted`]. The
/// timeout itself neither drops nor cancels a future.
///
/// **A `for` loop and [`wait_next`](Self::wait_next) block the thread. In async code they block the
/// runtime**, so use `while let Some(output) = set.next().await` there.
///
/// # Errors
///
/// The last item is a [`TimeoutError`] if the timeout elapses before all futures are complete.
///
/// # Cancel safety
///
/// Dropping the future of a `next()` call loses no output: a poll takes an output only to return
/// it.
#[must_use = "outputs are yielded only if the set is polled or iterated"]
pub struct TimedAsCompleted<F> {
    inner: AsCompleted<F>,
    deadline: Deadline,
    /// Whether the error was yielded, and with it the end. Set by
    /// [`end_by_timeout`](Self::end_by_timeout).
    done: bool,
}

impl<F> TimedAsCompleted<F> {
    /// Adds a future to the set: see [`AsCompleted::push`].
    ///
    /// After the [`TimeoutError`], the future is no longer polled, and only
    /// [`into_pending`](Self::into_pending) returns it.
    pub fn push(&mut self, future: F) {
        self.inner.push(future);
    }

    /// Returns the futures not yet yielded, in insertion order: see [`AsCompleted::into_pending`].
    ///
    /// The futures are available after the timeout too.
    #[must_use]
    pub fn into_pending(self) -> Vec<F>
    where
        F: Unpin,
    {
        self.inner.into_pending()
    }

    fn end_by_timeout(&mut self) -> TimeoutError {
        self.done = true;
        TimeoutError::of_futures(self.inner.len(), self.inner.total)
    }
}

impl<F: WaitHandle> TimedAsCompleted<F> {
    /// Cancels the jobs whose results are not yet yielded, and returns how many are cancelled: see
    /// [`AsCompleted::cancel_all`].
    ///
    /// The set still yields their results, unless it has yielded the [`TimeoutError`].
    /// [`into_pending`](Self::into_pending) then returns the handles.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// use futurepool::{ThreadPool, as_completed};
    ///
    /// let pool = ThreadPool::new(1);
    /// let (go, wait) = mpsc::channel::<()>();
    /// let busy = pool.submit(move || wait.recv());
    /// let queued = [pool.submit(|| 1), pool.submit(|| 2)];
    ///
    /// let mut results = as_completed(queued).timeout(Duration::from_millis(10));
    /// assert!(results.wait_next().unwrap().is_err()); // the timeout
    /// assert_eq!(results.cancel_all(), 2);
    /// drop(go);
    /// assert!(busy.join().is_ok());
    /// ```
    #[doc(alias = "abort_all")]
    pub fn cancel_all(&self) -> usize {
        self.inner.cancel_all()
    }
}

impl<F: Future> TimedAsCompleted<F> {
    /// Blocks until the next output is available or the timeout elapses.
    ///
    /// **In async code this blocks the runtime.** Write `set.next().await` there, with
    /// `futures::StreamExt`.
    ///
    /// Returns `None` after the [`TimeoutError`], and if all outputs were yielded. This method runs
    /// no jobs, unless the timeout is too long for the clock.
    ///
    /// # Examples
    ///
    /// See [`AsCompleted::timeout`] for an example.
    #[doc(alias = "join_next")]
    pub fn wait_next(&mut self) -> Option<Result<F::Output, TimeoutError>> {
        if self.done {
            return None;
        }
        let deadline = self.deadline.instant();
        match block_on_until(pin!(self.inner.next()), deadline) {
            Some(output) => output.map(Ok),
            None => Some(self.next_after_deadline()),
        }
    }

    /// Returns an output that is available, or the error if there is none.
    fn next_after_deadline(&mut self) -> Result<F::Output, TimeoutError> {
        let output = self.inner.poll_last();
        output.ok_or_else(|| self.end_by_timeout())
    }
}

impl<F: Future> Stream for TimedAsCompleted<F> {
    type Item = Result<F::Output, TimeoutError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        // The futures come first: an output that is available is never replaced by the error.
        if let Poll::Ready(output) = self.inner.poll_next_unpin(context) {
            return Poll::Ready(output.map(Ok));
        }
        ready!(self.deadline.poll(context));
        Poll::Ready(Some(self.next_after_deadline()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.done {
            true => (0, Some(0)),
            // The error may be the only item left. It comes instead of an output at least, so the
            // upper bound holds.
            false => (self.inner.len().min(1), Some(self.inner.len())),
        }
    }
}

impl<F: Future> FusedStream for TimedAsCompleted<F> {
    fn is_terminated(&self) -> bool {
        self.done || self.inner.is_empty()
    }
}

impl<F: Future> IntoIterator for TimedAsCompleted<F> {
    type Item = Result<F::Output, TimeoutError>;
    type IntoIter = TimedAsCompletedIter<F>;

    /// Returns a blocking iterator over the outputs.
    ///
    /// **In async code it blocks the runtime**: use `while let Some(output) = set.next().await`
    /// there.
    fn into_iter(self) -> TimedAsCompletedIter<F> {
        TimedAsCompletedIter(self)
    }
}

impl<F> fmt::Debug for TimedAsCompleted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimedAsCompleted")
            .field("pending", &self.inner.len())
            .field("total", &self.inner.total)
            .field("done", &self.done)
            .finish()
    }
}

/// A blocking iterator over the outputs of a [`TimedAsCompleted`].
///
/// Dropping it drops the futures not yet yielded, like dropping the [`TimedAsCompleted`]. Each step
/// blocks like [`wait_next`](TimedAsCompleted::wait_next).
///
/// # Examples
///
/// See [`AsCompleted::timeout`] for an example.
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct TimedAsCompletedIter<F>(TimedAsCompleted<F>);

impl<F: Future> Iterator for TimedAsCompletedIter<F> {
    type Item = Result<F::Output, TimeoutError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.wait_next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<F: Future> FusedIterator for TimedAsCompletedIter<F> {}

impl<F> fmt::Debug for TimedAsCompletedIter<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TimedAsCompletedIter")
            .field(&self.0)
            .finish()
    }
}
