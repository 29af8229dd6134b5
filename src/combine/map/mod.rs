//! `map` and `map_unordered`: a function over many items, one job for each item or chunk.
//!
//! - [`Submitter`] takes items from the input and submits them in batches.
//! - [`InFlight`] holds the submitted batches: a `VecDeque` yields them in input order, a
//!   [`FuturesUnordered`] in completion order. [`Map`] and [`MapUnordered`] differ only in this.
//! - [`MapState`] drives both: it submits, then yields results until the end or the deadline.

mod submitter;

use std::any::type_name;
use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::stream::{FusedStream, FuturesUnordered, Stream, StreamExt};

use self::submitter::{Batch, Results, Submitter};
use crate::error::JoinError;
use crate::executor::Executor;
use crate::park::block_on::block_on_until;
use crate::pool::{GlobalPool, ThreadPool};
use crate::util::timer::Deadline;
use crate::util::unwind::drop_catching;

impl ThreadPool {
    /// Calls `f` on each item in a job of its own, and yields the results in input order.
    ///
    /// The returned [`Map`] is a stream for async code and iterable in sync code. It is **lazy**:
    /// it takes no item and submits no job until it is polled, iterated or [started](Map::start).
    /// (Python's `map` starts at the call.)
    ///
    /// Once started, the map submits all items, as far as a bounded pool has room.
    /// [`buffer_size`](Map::buffer_size) limits how many items are taken ahead, so that the input
    /// can be endless. [`chunk_size`](Map::chunk_size) puts several items into a job.
    ///
    /// If `f` panics on an item, the result of that item is an `Err`, and the map continues. If `f`
    /// returns a `Result` itself, use `item??`. Items are moved into jobs, so they cannot borrow;
    /// use [`scope`](Self::scope) for borrowed data.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::ThreadPool;
    /// use futures::StreamExt;
    ///
    /// let pool = ThreadPool::new(4);
    ///
    /// // Sync code.
    /// let squares: Result<Vec<_>, _> = pool.map(1..=4, |n| n * n).into_iter().collect();
    /// assert_eq!(squares.unwrap(), [1, 4, 9, 16]);
    ///
    /// // Async code. The input is endless, and at most four items are taken ahead.
    /// futurepool::block_on(async {
    ///     let mut squares = pool.map(1.., |n| n * n).buffer_size(4);
    ///     assert_eq!(squares.next().await.unwrap().unwrap(), 1);
    ///     assert_eq!(squares.next().await.unwrap().unwrap(), 4);
    /// });
    /// ```
    ///
    /// [`zip`](std::iter::zip) combines several inputs into one:
    ///
    /// ```
    /// # let pool = futurepool::ThreadPool::new(4);
    /// let inputs = std::iter::zip([2_u32, 3], [5, 6]);
    /// let powers = pool.map(inputs, |(base, exponent)| base.pow(exponent));
    /// let powers: Result<Vec<_>, _> = powers.into_iter().collect();
    /// assert_eq!(powers.unwrap(), [32, 729]);
    /// ```
    #[track_caller]
    pub fn map<'a, I, F, U>(&'a self, items: I, f: F) -> Map<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        Map::on(self, items, f)
    }

    /// Calls `f` on each item in a job of its own, and yields the results in completion order.
    ///
    /// A result does not tell which item it belongs to: return the item from `f` if that matters.
    /// In every other way this method behaves like [`map`](Self::map).
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(2);
    /// let paths = ["Cargo.toml", "README.md"];
    /// for read in pool.map_unordered(paths, |path| (path, std::fs::read(path))) {
    ///     let (path, bytes) = read?;
    ///     println!("{path}: {} bytes", bytes?.len());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "imap_unordered")]
    #[track_caller]
    pub fn map_unordered<'a, I, F, U>(&'a self, items: I, f: F) -> MapUnordered<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        MapUnordered::on(self, items, f)
    }
}

impl GlobalPool {
    /// Calls `f` on each item in a job of its own, and yields the results in input order: see
    /// [`ThreadPool::map`].
    #[track_caller]
    pub fn map<'a, I, F, U>(&'a self, items: I, f: F) -> Map<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        Map::on(self, items, f)
    }

    /// Calls `f` on each item in a job of its own, and yields the results in completion order: see
    /// [`ThreadPool::map_unordered`].
    #[track_caller]
    pub fn map_unordered<'a, I, F, U>(&'a self, items: I, f: F) -> MapUnordered<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        MapUnordered::on(self, items, f)
    }
}

/// Defines a map type and its blocking iterator. The two map types have the same methods and differ
/// in `$in_flight`, and in what a blocked worker runs (`$helping`).
macro_rules! map_type {
    (
        $(#[$doc:meta])*
        $map:ident, $iter:ident, $in_flight:ty, $name:literal, $helping:literal
    ) => {
        $(#[$doc])*
        #[must_use = "a map is lazy: it does nothing unless it is polled, iterated or started"]
        pub struct $map<'a, U> {
            state: MapState<'a, U, $in_flight>,
        }

        // Results are moved, never pinned.
        impl<U> Unpin for $map<'_, U> {}

        impl<'a, U: Send + 'static> $map<'a, U> {
            #[track_caller]
            pub(crate) fn on<E, I, F>(executor: &'a E, items: I, f: F) -> Self
            where
                E: Executor + ?Sized,
                I: IntoIterator<IntoIter: Send + 'a>,
                I::Item: Send + 'static,
                F: Fn(I::Item) -> U + Send + Sync + 'static,
            {
                let submitter = Submitter::new(executor, items.into_iter(), f);
                Self { state: MapState::new(submitter) }
            }
        }

        impl<U> $map<'_, U> {
            /// Limits how many items are taken ahead of the yielded results to `items`.
            ///
            /// With this limit the input can be endless, or larger than memory. By default, the map
            /// takes all items at the start, or as a bounded pool has room.
            ///
            /// # Panics
            ///
            /// Panics if `items` is 0, or if the map is started.
            ///
            /// # Examples
            ///
            /// See [`ThreadPool::map`](crate::ThreadPool::map) for an example.
            #[doc(alias = "buffersize")]
            #[track_caller]
            pub fn buffer_size(mut self, items: usize) -> Self {
                self.state.submitter.set_buffer_size(items);
                self
            }

            /// Puts `items` items into each job. The default is 1.
            ///
            /// Chunks pay off for items that take microseconds. A chunk is never larger than the
            /// [buffer](Self::buffer_size). An item that panics does not affect the other items of
            /// its chunk.
            ///
            /// # Panics
            ///
            /// Panics if `items` is 0, or if the map is started.
            ///
            /// # Examples
            ///
            /// ```
            /// let pool = futurepool::ThreadPool::new(4);
            /// let squares = pool.map(0..1_000_u32, |n| n * n).chunk_size(100);
            /// assert_eq!(squares.into_iter().map(Result::unwrap).sum::<u32>(), 332_833_500);
            /// assert_eq!(pool.metrics().submitted, 10);
            /// ```
            #[doc(alias = "chunksize")]
            #[track_caller]
            pub fn chunk_size(mut self, items: usize) -> Self {
                self.state.submitter.set_chunk_size(items);
                self
            }

            /// Sets a timeout for the whole map, counted from this call.
            ///
            /// When the timeout elapses, the map:
            ///
            /// 1. yields the results that are complete and next in order,
            /// 2. cancels the queued jobs and requests the cancellation of the running ones,
            /// 3. yields one error for which [`is_timeout`](JoinError::is_timeout) returns true,
            /// 4. ends.
            ///
            /// A `timeout` too long for the clock means no timeout. Timeouts work in every async
            /// runtime and in none: one timer thread serves the whole process.
            ///
            /// # Panics
            ///
            /// Panics if the map is started.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::time::Duration;
            ///
            /// use futurepool::{ThreadPool, cancel_requested};
            ///
            /// let pool = ThreadPool::new(2);
            /// // This search never ends by itself.
            /// let search = |from: u64| (from..).find(|_| cancel_requested());
            /// let mut found = pool.map([0, 1_000], search).timeout(Duration::from_millis(10));
            /// assert!(found.wait_next().unwrap().unwrap_err().is_timeout());
            /// assert!(found.wait_next().is_none());
            /// ```
            #[track_caller]
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.state.set_timeout(timeout);
                self
            }

            /// Starts the map now instead of at the first request for a result.
            ///
            /// This method never blocks. Items that a full pool has no room for are submitted when
            /// results are requested. Options can no longer be set afterwards.
            ///
            /// # Examples
            ///
            /// ```
            /// let pool = futurepool::ThreadPool::new(2);
            /// let lengths = pool.map(["spam", "ham"], |word| word.len()).start();
            /// assert_eq!(pool.metrics().submitted, 2);
            /// // The jobs run while this thread does something else.
            /// assert_eq!(lengths.into_iter().map(Result::unwrap).sum::<usize>(), 7);
            /// ```
            pub fn start(mut self) -> Self {
                self.state.start();
                self
            }

            /// Blocks until the next result is available. Returns `None` at the end.
            ///
            #[doc = $helping]
            ///
            /// # Examples
            ///
            /// See [`timeout`](Self::timeout) for an example.
            pub fn wait_next(&mut self) -> Option<Result<U, JoinError>> {
                self.state.wait_next()
            }
        }

        impl<U> Stream for $map<'_, U> {
            type Item = Result<U, JoinError>;

            fn poll_next(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                self.state.poll_next(context)
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                self.state.size_hint()
            }
        }

        impl<U> FusedStream for $map<'_, U> {
            fn is_terminated(&self) -> bool {
                self.state.done
            }
        }

        impl<'a, U> IntoIterator for $map<'a, U> {
            type Item = Result<U, JoinError>;
            type IntoIter = $iter<'a, U>;

            /// Starts the map, and returns a blocking iterator over its results.
            fn into_iter(self) -> $iter<'a, U> {
                $iter(self.start())
            }
        }

        impl<U> Drop for $map<'_, U> {
            fn drop(&mut self) {
                self.state.end();
            }
        }

        impl<U> fmt::Debug for $map<'_, U> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($name, "<{}>"), type_name::<U>())?;
                f.debug_struct("")
                    .field("started", &self.state.submitter.is_started())
                    .field("outstanding", &self.state.submitter.outstanding())
                    .field("done", &self.state.done)
                    .finish_non_exhaustive()
            }
        }

        #[doc = concat!("A blocking iterator over the results of a [`", $name, "`].")]
        ///
        #[doc = concat!("Dropping it drops the [`", $name, "`]: queued jobs are cancelled, and the")]
        /// cancellation of running jobs is requested. Each step blocks like
        #[doc = concat!("[`wait_next`](", $name, "::wait_next).")]
        ///
        /// # Examples
        ///
        /// See [`ThreadPool::map`](crate::ThreadPool::map) for an example.
        #[must_use = "iterators are lazy and do nothing unless consumed"]
        pub struct $iter<'a, U>($map<'a, U>);

        impl<U> Iterator for $iter<'_, U> {
            type Item = Result<U, JoinError>;

            fn next(&mut self) -> Option<Self::Item> {
                self.0.wait_next()
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                self.0.state.size_hint()
            }
        }

        impl<U> FusedIterator for $iter<'_, U> {}

        impl<U> fmt::Debug for $iter<'_, U> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($iter)).field(&self.0).finish()
            }
        }
    };
}

map_type! {
    /// The results of a function over many items, in input order: see
    /// [`ThreadPool::map`](crate::ThreadPool::map).
    ///
    /// **Dropping a map** cancels its queued jobs and requests the cancellation of its running
    /// ones: see [`cancel_requested`](crate::cancel_requested). Running chunks skip their remaining
    /// items.
    ///
    /// A map is a [`Stream`], and `into_iter` turns it into a blocking iterator.
    ///
    /// On a full bounded pool, a stream waits for room like
    /// [`submit_async`](crate::ThreadPool::submit_async), and the blocking forms like
    /// [`submit`](crate::ThreadPool::submit). A [timeout](Self::timeout) ends that wait too.
    ///
    /// Each job runs in the `tracing` span that was current when the map was created.
    ///
    /// # Errors
    ///
    /// An item yields an `Err` if its job panicked or did not run. If the pool is shut down or
    /// breaks, the map yields the results of the submitted items, then one error with the reason,
    /// and ends.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future of a `next()` call loses no result: a poll takes a result only to return
    /// it.
    Map, MapIter, VecDeque<Batch<U>>, "Map",
    "In a worker of the same pool and without a timeout, this method runs the job of the next \
     item itself if the job is still queued, like [`JoinHandle::join`](crate::JoinHandle::join)."
}

map_type! {
    /// The results of a function over many items, in completion order: see
    /// [`ThreadPool::map_unordered`](crate::ThreadPool::map_unordered).
    ///
    /// **Dropping it** cancels its queued jobs and requests the cancellation of its running ones,
    /// as for a [`Map`]. It differs from a [`Map`] only in the order of the results, and in which
    /// jobs a [blocked worker](Self::wait_next) runs.
    MapUnordered, MapUnorderedIter, FuturesUnordered<Batch<U>>, "MapUnordered",
    "In a worker of the same pool and without a timeout, this method may run queued jobs of the \
     map itself, but only while no other worker can: see [`block_on`](crate::block_on())."
}

/// What [`Map`] and [`MapUnordered`] have in common: all but the order.
struct MapState<'a, U, P: InFlight<U>> {
    submitter: Submitter<'a, U>,
    /// The submitted batches whose results are not in `ready`. Filled by `submit_ready`, emptied by
    /// `poll_result`.
    in_flight: P,
    /// The results left of the batch that is being yielded. Refilled by `poll_result` once empty.
    ready: Results<U>,
    /// When the map ends. Set by [`set_timeout`](Self::set_timeout), before the start.
    deadline: Option<Deadline>,
    /// Whether the deadline elapsed before the input ended. Set by `poll_result`: the map then ends
    /// with a timeout, even if all submitted items complete.
    timed_out: bool,
    /// Whether the map has ended and yields nothing more. Set by `poll_result` and `end`.
    done: bool,
}

impl<'a, U, P: InFlight<U>> MapState<'a, U, P> {
    fn new(submitter: Submitter<'a, U>) -> Self {
        Self {
            submitter,
            in_flight: P::default(),
            ready: Results::empty(),
            deadline: None,
            timed_out: false,
            done: false,
        }
    }

    #[track_caller]
    fn set_timeout(&mut self, timeout: Duration) {
        self.submitter.assert_not_started("timeout");
        self.deadline = Some(Deadline::after(timeout));
    }

    fn start(&mut self) {
        if !self.done {
            self.submit_ready(None, 0);
        }
    }

    /// Blocks until the next result is available or the deadline elapses.
    fn wait_next(&mut self) -> Option<Result<U, JoinError>> {
        if !self.submitter.has_source() {
            // Nothing is left to submit, so a result that is ready needs neither poll nor waker.
            if let Some(result) = self.next_ready() {
                return Some(result);
            }
        }
        let deadline = self.deadline.as_ref().and_then(Deadline::instant);
        // A job cannot be interrupted, so a wait with a deadline runs none.
        let help = deadline.is_none();
        let next = std::future::poll_fn(|context| self.poll_result(context, help));
        match block_on_until(pin!(next), deadline) {
            Some(result) => result,
            None => Some(Err(self.end_by_timeout())),
        }
    }

    /// Polls for the next result, and for the deadline.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<U, JoinError>>> {
        // A poll must not block its thread, so it helps with no job.
        let result = self.poll_result(context, false);
        match &mut self.deadline {
            Some(deadline) if result.is_pending() => {
                ready!(deadline.poll(context));
                Poll::Ready(Some(Err(self.end_by_timeout())))
            }
            _ => result,
        }
    }

    /// Submits what may be submitted, and polls for the next result. The caller waits for the
    /// deadline.
    ///
    /// If `help` is set, the thread is about to block for the next result. A worker then first runs
    /// the job of that result itself, if the job is known and still queued.
    fn poll_result(
        &mut self,
        context: &mut Context<'_>,
        help: bool,
    ) -> Poll<Option<Result<U, JoinError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if self.submitter.has_source() && self.deadline.as_ref().is_some_and(Deadline::is_elapsed) {
            // Complete results are still yielded, but nothing more is submitted.
            self.submitter.drop_source();
            self.timed_out = true;
        }
        loop {
            let yielding = usize::from(self.ready.len() > 0);
            self.submit_ready(Some(context), yielding);
            // The result is taken only after the submission: if the input panics, the result stays.
            if let Some(result) = self.next_ready() {
                return Poll::Ready(Some(result));
            }
            // Invariant: `ready` is empty and the batches that fit are submitted, so the front
            // batch of an ordered map has the next result.
            if help {
                self.in_flight.help_next();
            }
            match ready!(self.in_flight.poll_next(context)) {
                Some(results) => self.ready = results,
                // No batch is in flight, but the input has items: the submitter waits for a permit,
                // and has registered the waker for it.
                None if self.submitter.has_source() => return Poll::Pending,
                None if self.timed_out => return Poll::Ready(Some(Err(self.end_by_timeout()))),
                None => {
                    // The error of a closed pool comes last, before `None`.
                    let closed = self.submitter.take_closed();
                    self.done = closed.is_none();
                    return Poll::Ready(closed.map(Err));
                }
            }
        }
    }

    /// Submits what the buffer and the pool permit: see [`Submitter::submit_ready`].
    fn submit_ready(&mut self, context: Option<&mut Context<'_>>, yielding: usize) {
        let in_flight = &mut self.in_flight;
        self.submitter
            .submit_ready(context, yielding, |batch| in_flight.add(batch));
    }

    fn next_ready(&mut self) -> Option<Result<U, JoinError>> {
        let result = self.ready.next()?;
        self.submitter.result_yielded();
        Some(result)
    }

    fn end_by_timeout(&mut self) -> JoinError {
        self.end();
        JoinError::timeout()
    }

    /// Ends the map: cancels its jobs, and drops its input and its results.
    fn end(&mut self) {
        self.done = true;
        self.in_flight.cancel_all();
        self.submitter.end();
        for result in self.ready.by_ref() {
            // User code: a panic must neither leave `drop` nor keep the other results.
            drop_catching("the destructor of a result", result);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.done {
            true => (0, Some(0)),
            // A timeout or a closed pool may cut the rest.
            false => (self.ready.len(), self.submitter.upper_bound()),
        }
    }
}

/// The submitted batches of a map, in the order in which it yields them.
trait InFlight<U>: Default {
    fn add(&mut self, batch: Batch<U>);
    /// Runs the job of the next batch here, if that batch is known and this thread is a worker of
    /// the pool that the job is queued in.
    fn help_next(&self);
    /// Removes the next batch once it is complete, and returns its results. Returns `Ready(None)`
    /// if no batch is in flight.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Results<U>>>;
    fn cancel_all(&mut self);
}

/// Input order: the front batch is next.
impl<U> InFlight<U> for VecDeque<Batch<U>> {
    fn add(&mut self, batch: Batch<U>) {
        self.push_back(batch);
    }

    fn help_next(&self) {
        if let Some(front) = self.front() {
            front.help();
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Results<U>>> {
        let Some(front) = self.front_mut() else {
            return Poll::Ready(None);
        };
        let results = ready!(Pin::new(front).poll(context));
        self.pop_front();
        Poll::Ready(Some(results))
    }

    fn cancel_all(&mut self) {
        mem::take(self).iter().for_each(Batch::cancel);
    }
}

/// Completion order: any batch may be next.
impl<U> InFlight<U> for FuturesUnordered<Batch<U>> {
    fn add(&mut self, batch: Batch<U>) {
        self.push(batch);
    }

    /// Does nothing. To run one batch here would delay the result of another that completes first.
    fn help_next(&self) {}

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Results<U>>> {
        self.poll_next_unpin(context)
    }

    fn cancel_all(&mut self) {
        mem::take(self).iter().for_each(Batch::cancel);
    }
}
