//! Results as they come.

use std::fmt;
use std::future::Future;
use std::iter::FusedIterator;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FusedStream, FuturesUnordered, Stream, StreamExt};
use pin_project_lite::pin_project;

use crate::error::TimeoutError;
use crate::park::block_on::{block_on, block_on_until};
use crate::park::helping::Inside;
use crate::util::sync::{Arc, AtomicBool, Ordering};
use crate::util::timer::Limit;

/// The outputs of many futures, in the order in which they are done.
///
/// It takes handles, tagged ones, those of several pools and executors mixed, or any other futures of one type. Async
/// code uses it as a [`Stream`], sync code as an iterator:
///
/// ```
/// use futurepool::{ThreadPool, as_completed, block_on};
/// use futures::StreamExt;
///
/// let pool = ThreadPool::new(4);
/// let submit_all = || (1..=3_u64).map(|n| pool.submit(move || n * n)).collect::<Vec<_>>();
///
/// // Sync code.
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
/// Which result is whose? [Tag](crate::JoinHandle::tag) the handles:
///
/// ```
/// # use futurepool::{ThreadPool, as_completed};
/// # let pool = ThreadPool::new(4);
/// let words = ["spam", "eggs", "ham"];
/// let lengths = as_completed(words.map(|word| pool.submit(move || word.len()).tag(word)));
/// for (word, length) in lengths {
///     assert_eq!(length.unwrap(), word.len());
/// }
/// ```
///
/// A `for` loop owns the whole; a loop round [`wait_next`](AsCompleted::wait_next) can
/// [`push`](AsCompleted::push) more while it runs.
///
/// An iterator that submits is lazy as all are: it submits nothing before this call. [Collect](Iterator::collect) it to
/// start the jobs at once.
///
/// Python's function of that name gives the futures, here their outputs come out. A handle cannot be given twice.
#[doc(alias = "JoinSet")]
pub fn as_completed<I>(futures: I) -> AsCompleted<I::Item>
where
    I: IntoIterator<Item: Future>,
{
    let mut all = AsCompleted {
        pending: FuturesUnordered::new(),
        total: 0,
    };
    futures.into_iter().for_each(|future| all.push(future));
    all
}

/// The outputs of many futures, as they come: see [`as_completed`].
///
/// It is a [`Stream`], and `into_iter` makes a blocking iterator of it; [`wait_next`](Self::wait_next) blocks for one
/// output at a time, so that a loop in sync code can [`push`](Self::push) too. **Dropping it drops the futures**: handles
/// detach their jobs, those with [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop) cancel them.
///
/// Its [`size_hint`](Stream::size_hint) is exact.
#[must_use = "the results are handed out to who asks for the next item"]
pub struct AsCompleted<F> {
    pending: FuturesUnordered<Numbered<F>>,
    /// How many were ever added; their numbers.
    total: usize,
}

pin_project! {
    struct Numbered<F> {
        number: usize,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Numbered<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(context)
    }
}

impl<F> AsCompleted<F> {
    /// Adds one more, at any time: also when all others are done, and after the end.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{ThreadPool, as_completed};
    ///
    /// /// What a page of a site of seven links to.
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
    pub fn push(&mut self, future: F) {
        self.pending.push(Numbered {
            number: self.total,
            future,
        });
        self.total += 1;
    }

    /// Those whose output was not handed out, in the order in which they were added. Some may be done by now.
    ///
    /// # Examples
    ///
    /// ```
    /// # use futurepool::{ThreadPool, as_completed};
    /// # let pool = ThreadPool::new(4);
    /// # fn fetch(mirror: &str) -> usize { mirror.len() }
    /// let mirrors = ["a.example", "b.example", "c.example"];
    /// let mut replies = as_completed(mirrors.map(|mirror| pool.submit(move || fetch(mirror))));
    /// let fastest = replies.wait_next().expect("there are three")?;
    /// for slower in replies.into_pending() {
    ///     slower.cancel();
    /// }
    /// # assert_eq!(fastest, 9);
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    #[must_use]
    pub fn into_pending(self) -> Vec<F>
    where
        F: Unpin,
    {
        let mut pending: Vec<_> = self.pending.into_iter().collect();
        pending.sort_unstable_by_key(|future| future.number);
        pending
            .into_iter()
            .map(|numbered| numbered.future)
            .collect()
    }

    /// How many outputs are still to come.
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
    ///     running.push(pool.submit(move || n)); // so there are eight at most
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

    /// Whether none is still to come.
    ///
    /// See [`len`](Self::len) for an example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

impl<F: Future> AsCompleted<F> {
    /// Waits for the next output in this thread; `None` if all were handed out.
    ///
    /// In a worker of a pool it may run queued jobs of that pool that it waits for: see
    /// [`block_on`](crate::block_on()).
    ///
    /// See [`push`](Self::push) for an example.
    pub fn wait_next(&mut self) -> Option<F::Output> {
        block_on(self.next())
    }

    /// The next output if it is there now, without waiting; `None` too if all were handed out.
    ///
    /// For sync code that submits and collects in one loop.
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
    pub fn try_wait_next(&mut self) -> Option<F::Output> {
        let _look = Inside::look();
        self.next().now_or_never().flatten()
    }

    /// Ends when the time is up, counted from this call: what is done by then still comes, and after it one
    /// [`TimeoutError`] that tells how many are not. So the items become `Result`s.
    ///
    /// A limit too long for the clock is none. In async code it needs no particular runtime: all limits of a process
    /// share one timer. If the system refuses that its thread, a limit is over at once.
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
    /// let (go, wait) = mpsc::channel::<()>();
    /// let slow = pool.submit(move || drop(wait.recv()));
    /// let fast = pool.submit(|| ());
    /// while !fast.is_finished() {}
    ///
    /// let mut results = as_completed([slow, fast]).timeout(Duration::from_millis(10));
    /// assert!(results.wait_next().unwrap().is_ok());
    /// let error = results.wait_next().unwrap().unwrap_err();
    /// assert_eq!(error.to_string(), "1 (of 2) futures unfinished");
    /// assert!(results.wait_next().is_none());
    /// assert_eq!(results.into_pending().len(), 1); // the slow one is still to be had
    /// # drop(go);
    /// ```
    pub fn timeout(self, limit: Duration) -> TimedAsCompleted<F> {
        TimedAsCompleted {
            inner: self,
            limit: Limit::after(limit),
            over: false,
        }
    }
}

/// Whether it was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl<F: Future> AsCompleted<F> {
    /// An output that is there now. A poll that finds none may only have made a pause, and says so by waking at once;
    /// but with futures that do that themselves it need not come to an end.
    fn last_look(&mut self) -> Option<F::Output> {
        let _look = Inside::look();
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        for _ in 0..=self.len() {
            if let Poll::Ready(output) = self.poll_next_unpin(&mut Context::from_waker(&waker)) {
                return output;
            }
            if !flag.0.swap(false, Ordering::Acquire) {
                break;
            }
        }
        None
    }
}

impl<F: Future> Stream for AsCompleted<F> {
    type Item = F::Output;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        self.pending.poll_next_unpin(context)
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

impl<F: Future> Extend<F> for AsCompleted<F> {
    fn extend<I: IntoIterator<Item = F>>(&mut self, futures: I) {
        futures.into_iter().for_each(|future| self.push(future));
    }
}

impl<F: Future> IntoIterator for AsCompleted<F> {
    type Item = F::Output;
    type IntoIter = AsCompletedIter<F>;

    /// A blocking iterator.
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

/// The outputs of many futures, as they come, in a blocking iterator: what a `for` loop over [`AsCompleted`] uses.
///
/// See [`as_completed`] for an example.
#[must_use = "iterators do nothing unless they are asked for the next item"]
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

/// [`AsCompleted`] with a time limit: see [`AsCompleted::timeout`].
#[must_use = "the results are handed out to who asks for the next item"]
pub struct TimedAsCompleted<F> {
    inner: AsCompleted<F>,
    limit: Limit,
    /// The error was handed out.
    over: bool,
}

impl<F> TimedAsCompleted<F> {
    /// As [`AsCompleted::push`]. After the timeout it only adds to what [`into_pending`](Self::into_pending) gives back.
    pub fn push(&mut self, future: F) {
        self.inner.push(future);
    }

    /// As [`AsCompleted::into_pending`], after the timeout too.
    #[must_use]
    pub fn into_pending(self) -> Vec<F>
    where
        F: Unpin,
    {
        self.inner.into_pending()
    }

    fn time_out(&mut self) -> TimeoutError {
        self.over = true;
        TimeoutError::of_futures(self.inner.len(), self.inner.total)
    }
}

impl<F: Future> TimedAsCompleted<F> {
    /// When the time is up: what is done still comes.
    fn last_item(&mut self) -> Result<F::Output, TimeoutError> {
        let last = self.inner.last_look();
        last.ok_or_else(|| self.time_out())
    }

    /// Waits for the next output in this thread, or for the end of the time. It runs no jobs.
    ///
    /// See [`AsCompleted::timeout`] for an example.
    pub fn wait_next(&mut self) -> Option<Result<F::Output, TimeoutError>> {
        if self.over {
            return None;
        }
        let deadline = self.limit.deadline();
        match block_on_until(pin!(self.inner.next()), deadline) {
            Some(output) => output.map(Ok),
            None => Some(self.last_item()),
        }
    }
}

impl<F: Future> Stream for TimedAsCompleted<F> {
    type Item = Result<F::Output, TimeoutError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(output) = self.inner.poll_next_unpin(context) {
            return Poll::Ready(output.map(Ok));
        }
        ready!(self.limit.poll(context));
        Poll::Ready(Some(self.last_item()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.over {
            true => (0, Some(0)),
            // In the worst case there is nothing but the error.
            false => (self.inner.len().min(1), Some(self.inner.len())),
        }
    }
}

impl<F: Future> FusedStream for TimedAsCompleted<F> {
    fn is_terminated(&self) -> bool {
        self.over || self.inner.is_empty()
    }
}

impl<F: Future> IntoIterator for TimedAsCompleted<F> {
    type Item = Result<F::Output, TimeoutError>;
    type IntoIter = TimedAsCompletedIter<F>;

    /// A blocking iterator.
    fn into_iter(self) -> TimedAsCompletedIter<F> {
        TimedAsCompletedIter(self)
    }
}

impl<F> fmt::Debug for TimedAsCompleted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimedAsCompleted")
            .field("pending", &self.inner.len())
            .field("total", &self.inner.total)
            .field("over", &self.over)
            .finish()
    }
}

/// [`AsCompletedIter`] with a time limit: see [`AsCompleted::timeout`].
#[must_use = "iterators do nothing unless they are asked for the next item"]
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
