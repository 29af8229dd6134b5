//! `map` and `map_unordered`: a function over many items, in jobs of one item or of a chunk.
//!
//! ```text
//!   Map, MapUnordered ─► AnyMap ─► MapState ─► Submitter ─► Source ─► Route: a pool, an executor, …
//!                                     │                       │
//!                                     │                       └─► rest: what a detached map has
//!                                     └─► InFlight ─► Batch ─► Results        not submitted
//!                                                        └─► chunk: items that jobs share
//! ```
//!
//! - [`AnyMap`] has the options, and knows what its drop must do.
//! - [`MapState`] submits, then yields results until the end or the deadline.
//! - [`Submitter`] takes items from the input and submits them in batches. `Source` hides the types
//!   of items, function and route, so that only little code is compiled for each call of `map`.
//! - [`Pace`](pace::Pace) chooses the size of the batches from what the items take, unless the user
//!   does. The items of such a batch are in a [`SharedChunk`](chunk::SharedChunk), so that no item
//!   waits for another one of its batch.
//! - [`Apply`](apply::Apply) is what the map does with its items: it calls a function, or runs
//!   tasks in a worker process.
//! - `calls` maps calls of tasks: on a thread pool like any function, on foreign executors one by
//!   one.
//! - [`InFlight`] holds the submitted batches: a `VecDeque` yields them in input order, a
//!   [`FuturesUnordered`] in completion order. [`Map`] and [`MapUnordered`] differ only in this.

mod apply;
#[cfg(feature = "task")]
mod calls;
mod chunk;
mod pace;
mod rest;
mod route;
mod submitter;

use std::any::type_name;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::iter::FusedIterator;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::FusedFuture;
use futures::stream::{FusedStream, FuturesUnordered, Stream, StreamExt};

pub(crate) use self::apply::{Apply, MapContext, Place};
#[cfg(feature = "task")]
pub(crate) use self::calls::{
    map_calls, map_calls_on_pool, map_calls_on_pool_unordered, map_calls_unordered,
};
pub(crate) use self::route::{Handle, JobKind, Refused, Route};
pub(crate) use self::submitter::Submitter;
use self::submitter::{Batch, End, Ready, Results};
use crate::error::JoinError;
use crate::park::block_on::block_on_until;
use crate::pool::{GlobalPool, ThreadPool};
use crate::task::context::current_worker;
use crate::util::sync::Instant;
use crate::util::timer::Deadline;
use crate::util::unwind::{catch_panic, drop_catching};

impl ThreadPool {
    /// Calls `f` on each item in the workers, and yields the results in input order.
    ///
    /// The returned [`Map`] is **lazy**: it takes no item and submits no job until it is asked for
    /// a result or [started](Map::start). (Python's `map` starts at the call.) Use it in one of
    /// these ways:
    ///
    /// | | sync | async |
    /// |---|---|---|
    /// | gather all results | [`map.join()`](Map::join) | `map.await` |
    /// | one result after the other | `for result in map` | `map.next().await`, as a stream |
    /// | let it run | [`map.detach()`](Map::detach) | the same |
    ///
    /// Once started, the map submits all items, as far as a bounded pool has room.
    /// [`buffer_size`](Map::buffer_size) limits how many items are taken ahead, so that the input
    /// can be endless.
    ///
    /// # Items and jobs
    ///
    /// The first 128 items of a map are one job each. From then on the map measures what the items
    /// take. It puts items that take microseconds together, so that a job takes some 200 µs. An
    /// item that takes longer is a job of its own.
    ///
    /// An item that takes long among tiny ones holds back no other. The items behind it move to
    /// further jobs, which start as soon as a worker is free. The results before it are yielded.
    ///
    /// So [`metrics`](Self::metrics) count jobs, not items. How many jobs a long input takes
    /// differs from run to run. [`chunk_size`](Map::chunk_size) sets the number of items per job
    /// instead: `chunk_size(1)` makes each item a job of its own.
    ///
    /// Only items that the input promises by its `size_hint` are put together. An input that may
    /// wait for its next item, such as a channel, makes no such promise. Each of its items is a
    /// job.
    ///
    /// **Two kinds of maps need `chunk_size(1)`.** Otherwise they can wait forever:
    ///
    /// - The input promises items, and takes something for each that `f` gives back, such as a
    ///   buffer. An item then waits for others that are not submitted yet.
    /// - Items wait for later ones, and the pool is shut down meanwhile. The pool then accepts no
    ///   further jobs for the items behind one that waits.
    ///
    /// # Panics and errors of items
    ///
    /// If `f` panics on an item, the result of that item is an `Err`, and the iteration continues.
    /// If `f` returns a `Result` itself, iterate with `item??`, or gather with
    /// `map.join()?.into_iter().collect::<Result<Vec<_>, _>>()?`. `f` is a closure, not a future:
    /// an `async` block that it returns is never run.
    ///
    /// The input may borrow, but the items are moved into jobs, so they cannot. For borrowed items
    /// use [`Scope::map`](crate::Scope::map). The map does not borrow the pool: if the pool is
    /// gone, it ends with an error that [`is_shutdown`](JoinError::is_shutdown).
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
    /// assert_eq!(pool.map(1..=4, |n| n * n).join()?, [1, 4, 9, 16]);
    ///
    /// // Async code.
    /// futurepool::block_on(async {
    ///     assert_eq!(pool.map(1..=4, |n| n * n).await.unwrap(), [1, 4, 9, 16]);
    ///
    ///     // The input is endless, and at most four items are taken ahead.
    ///     let mut squares = pool.map(1.., |n| n * n).buffer_size(4);
    ///     assert_eq!(squares.next().await.unwrap().unwrap(), 1);
    ///     assert_eq!(squares.next().await.unwrap().unwrap(), 4);
    /// });
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    ///
    /// [`zip`](std::iter::zip) combines several inputs into one:
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(4);
    /// let inputs = std::iter::zip([2_u32, 3], [5, 6]);
    /// let powers = pool.map(inputs, |(base, exponent)| base.pow(exponent));
    /// assert_eq!(powers.join()?, [32, 729]);
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    #[doc(alias = "par_iter")]
    #[doc(alias = "starmap")]
    #[doc(alias = "imap")]
    #[track_caller]
    pub fn map<'a, I, F, U>(&self, items: I, f: F) -> Map<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        Map::new(Submitter::on_pool(self, items.into_iter(), f))
    }

    /// Calls `f` on each item in the workers, and yields the results in completion order.
    ///
    /// A result does not tell which item it belongs to: return the item from `f` if that matters.
    /// In every other way this method behaves like [`map`](Self::map).
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(2);
    /// let paths = ["Cargo.toml", "Cargo.lock"];
    /// for read in pool.map_unordered(paths, |path| (path, std::fs::read(path))) {
    ///     let (path, bytes) = read?;
    ///     println!("{path}: {} bytes", bytes?.len());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "imap_unordered")]
    #[track_caller]
    pub fn map_unordered<'a, I, F, U>(&self, items: I, f: F) -> MapUnordered<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        MapUnordered::new(Submitter::on_pool(self, items.into_iter(), f))
    }
}

impl GlobalPool {
    /// Calls `f` on each item in the workers, and yields the results in input order: see
    /// [`ThreadPool::map`].
    #[track_caller]
    pub fn map<'a, I, F, U>(&self, items: I, f: F) -> Map<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.pool.map(items, f)
    }

    /// Calls `f` on each item in the workers, and yields the results in completion order: see
    /// [`ThreadPool::map_unordered`].
    #[track_caller]
    pub fn map_unordered<'a, I, F, U>(&self, items: I, f: F) -> MapUnordered<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.pool.map_unordered(items, f)
    }
}

/// Defines a map type, its blocking iterator and its future. The two map types have the same
/// methods and differ in `$in_flight`, and in what a blocked worker runs (`$helping`).
macro_rules! map_type {
    (
        $(#[$doc:meta])*
        $map:ident, $iter:ident, $join:ident, $in_flight:ident, $name:literal, $order:literal,
        $helping:literal
    ) => {
        $(#[$doc])*
        #[must_use = "a map that is not started runs nothing, not even with `let _ =`: use `.join()` \
                      or `.await` for its results, or `.detach()` to let it run without them"]
        pub struct $map<'a, U>(AnyMap<'a, U>);

        impl<'a, U> $map<'a, U> {
            pub(crate) fn new<'job: 'a>(submitter: Submitter<'a, 'job, U>) -> Self
            where
                U: Send + 'a,
            {
                Self(AnyMap::new::<$in_flight<Batch<'job, U>>>(submitter))
            }

            /// Limits how many items are taken ahead of the yielded results to `items`.
            ///
            /// With this limit the input can be endless, or larger than memory. By default, the map
            /// takes all items at the start, or as a bounded pool has room.
            ///
            /// A job never has more items than this limit. If the map chooses the [chunk
            /// size](Self::chunk_size) itself, a job has at most an eighth of it. So a buffer of
            /// some thousand items suits items that take microseconds.
            ///
            /// # Panics
            ///
            /// Panics if `items` is 0, or if the map is started.
            ///
            /// # Examples
            ///
            /// See [`ThreadPool::map`](crate::ThreadPool::map) for an example.
            #[doc(alias = "buffersize")]
            #[doc(alias = "buffered")]
            #[doc(alias = "buffer_unordered")]
            #[track_caller]
            pub fn buffer_size(mut self, items: usize) -> Self {
                self.0.set_buffer_size(items);
                self
            }

            /// Puts `items` items into each job.
            ///
            /// By default, the map finds a size by itself, and items that take long are jobs of
            /// their own: see [`ThreadPool::map`](crate::ThreadPool::map). With this option all
            /// jobs have `items` items, and a job runs its items one after the other. So an item
            /// that takes long holds back the others of its chunk, and their results.
            ///
            /// A chunk is never larger than the [buffer](Self::buffer_size). An item that panics
            /// does not affect the other items of its chunk.
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
            /// assert_eq!(squares.join()?.iter().sum::<u32>(), 332_833_500);
            /// assert_eq!(pool.metrics().submitted, 10);
            /// # Ok::<(), futurepool::JoinError>(())
            /// ```
            #[doc(alias = "chunksize")]
            #[track_caller]
            pub fn chunk_size(mut self, items: usize) -> Self {
                self.0.set_chunk_size(items);
                self
            }

            /// Sets a timeout for the whole map, counted from its start.
            ///
            /// A map starts at [`start`](Self::start), at `into_iter`, or when it is first asked
            /// for a result. (Python counts from the call of `map`.) When the timeout elapses, the
            /// map:
            ///
            /// 1. yields the results that are complete and next in order,
            /// 2. cancels the queued jobs and requests the cancellation of the running ones, which
            ///    a pool of worker processes kills,
            /// 3. yields one error for which [`is_timeout`](JoinError::is_timeout) returns true,
            /// 4. ends.
            ///
            /// All of this happens when the map is next asked for a result. So a timeout has no
            /// effect on a map that is [detached](Self::detach).
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
                self.0.set_timeout(timeout);
                self
            }

            /// Starts the map now instead of at the first request for a result.
            ///
            /// **Dropping a map that was started, and never asked for a result, lets everything
            /// run**, as [`detach`](Self::detach) does. (Python's `map` does the same.) **That drop
            /// takes the rest of the input**, even with a [`buffer_size`](Self::buffer_size). So do
            /// not start a map over an input that waits or never ends, such as a channel, unless
            /// results are requested on every path, a `?` included.
            ///
            /// This method itself never blocks. Items that a full pool has no room for are
            /// submitted when results are requested. Options can no longer be set afterwards.
            ///
            /// # Examples
            ///
            /// ```
            /// let pool = futurepool::ThreadPool::new(2);
            /// let lengths = pool.map(["spam", "ham"], |word| word.len()).start();
            /// assert_eq!(pool.metrics().submitted, 2);
            /// // The jobs run while this thread does something else.
            /// assert_eq!(lengths.join()?, [4, 3]);
            /// # Ok::<(), futurepool::JoinError>(())
            /// ```
            pub fn start(mut self) -> Self {
                self.0.start();
                self
            }

            /// Starts the map, and lets it run without its results.
            ///
            /// All items are processed, even if the pool is [shut
            /// down](crate::ThreadPool::shutdown) or dropped right after this call:
            ///
            /// - All items are taken from the input now. A panic of the input is reported through
            ///   `tracing`, and the items taken before it are processed.
            /// - An input that has no end, because the lower bound of its `size_hint` is
            ///   `usize::MAX`, is an exception. Only the items that were submitted or taken ahead
            ///   are processed. Any other input must end, or this method does not return.
            /// - Items that a full pool has no room for, or that do not fit the
            ///   [buffer](Self::buffer_size), are submitted by the map's own jobs as those end. The
            ///   buffer still limits the jobs in flight. A bounded pool exceeds its capacity by one
            ///   job if no other job of this map is in flight.
            /// - If the pool is shut down meanwhile, the jobs process the remaining items
            ///   themselves.
            ///
            /// **A pool in a `static` is never dropped, the process-wide pool included.** At the
            /// end of `main`, items that it has not processed are lost. Wait for them with
            /// [`wait_idle`](crate::ThreadPool::wait_idle).
            ///
            /// Apart from that, items are lost in these cases only:
            ///
            /// - [`shutdown_now`](crate::ThreadPool::shutdown_now) cancels the remaining items, and
            ///   so does a pool that breaks. On a pool of worker processes it also kills the
            ///   running ones.
            /// - [`cancel_queued`](crate::ThreadPool::cancel_queued), or another reason why a job
            ///   of the map never runs, cancels all remaining items of the map together with that
            ///   job.
            /// - A pool that was already shut down before the call accepts no more items.
            ///
            /// Panics of items are reported through `tracing`. A [timeout](Self::timeout) has no
            /// effect.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::sync::mpsc::channel;
            ///
            /// let (sender, lengths) = channel();
            /// let pool = futurepool::ThreadPool::new(2);
            /// pool.map(["spam", "ham"], move |word| sender.send(word.len()).unwrap()).detach();
            /// drop(pool); // waits for the jobs
            /// assert_eq!(lengths.iter().sum::<usize>(), 7);
            /// ```
            #[doc(alias = "for_each")]
            pub fn detach(self) {
                self.0.detach();
            }

            /// Blocks until all items are processed, and returns their results
            #[doc = $order]
            ///
            /// **This method blocks the thread**: async code awaits the map instead. Awaiting it
            /// gives the same result.
            ///
            /// Each wait for a result runs jobs like [`wait_next`](Self::wait_next).
            ///
            /// # Errors
            ///
            /// Returns the first error that the map yields, for example because an item panicked.
            /// An `Err` that `f` returns is a result like any other, and ends nothing: collect the
            /// vector into a `Result`, or iterate with `item??` to stop at the first one.
            ///
            /// After an error the map ends: queued jobs are cancelled, the cancellation of running
            /// ones is requested, and the other results are dropped. To get the other results too,
            /// iterate the map.
            ///
            /// # Examples
            ///
            /// ```
            /// let pool = futurepool::ThreadPool::new(2);
            /// let mut lengths = pool.map(["spam", "ham"], |word| word.len()).join()?;
            /// lengths.sort();
            /// assert_eq!(lengths, [3, 4]);
            ///
            /// // In async code:
            /// let lengths = async { pool.map(["spam", "ham"], |word| word.len()).await };
            /// assert_eq!(futurepool::block_on(lengths)?.len(), 2);
            /// # Ok::<(), futurepool::JoinError>(())
            /// ```
            #[doc(alias = "collect")]
            #[doc(alias = "join_all")]
            pub fn join(self) -> Result<Vec<U>, JoinError> {
                self.0.join()
            }

            /// Blocks until the next result is available. Returns `None` at the end.
            ///
            #[doc = $helping]
            ///
            /// # Examples
            ///
            /// See [`timeout`](Self::timeout) for an example.
            #[inline]
            pub fn wait_next(&mut self) -> Option<Result<U, JoinError>> {
                self.0.wait_next()
            }
        }

        impl<U> Stream for $map<'_, U> {
            type Item = Result<U, JoinError>;

            fn poll_next(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                self.0.poll_next(context)
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                self.0.size_hint()
            }
        }

        impl<U> FusedStream for $map<'_, U> {
            fn is_terminated(&self) -> bool {
                self.0.driver.is_done()
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

        impl<'a, U> IntoFuture for $map<'a, U> {
            type Output = Result<Vec<U>, JoinError>;
            type IntoFuture = $join<'a, U>;

            /// Returns a future that gathers all results. The map starts at its first poll.
            fn into_future(self) -> $join<'a, U> {
                $join {
                    map: self.0,
                    gathered: Some(Vec::new()),
                }
            }
        }

        impl<U> fmt::Debug for $map<'_, U> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($name, "<{}>"), type_name::<U>())?;
                self.0.fmt_fields(f)
            }
        }

        #[doc = concat!("A blocking iterator over the results of a [`", $name, "`].")]
        ///
        #[doc = concat!("Dropping it drops the [`", $name, "`]. After the first call of `next`, that")]
        /// cancels queued jobs and requests the cancellation of running ones. Without any such
        /// call, everything still runs.
        ///
        /// Each step blocks like
        #[doc = concat!("[`wait_next`](", $name, "::wait_next).")]
        ///
        /// # Examples
        ///
        /// See [`ThreadPool::map`](crate::ThreadPool::map) for an example.
        #[must_use = "iterators are lazy and do nothing unless consumed"]
        pub struct $iter<'a, U>($map<'a, U>);

        impl<U> Iterator for $iter<'_, U> {
            type Item = Result<U, JoinError>;

            #[inline]
            fn next(&mut self) -> Option<Self::Item> {
                self.0.wait_next()
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                self.0.size_hint()
            }
        }

        impl<U> FusedIterator for $iter<'_, U> {}

        impl<U> fmt::Debug for $iter<'_, U> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($iter)).field(&self.0).finish()
            }
        }

        #[doc = concat!("A future that gathers all results of a [`", $name, "`]: what `map.await` polls.")]
        ///
        #[doc = concat!("Dropping it drops the [`", $name, "`]. Once it was polled, that cancels queued")]
        /// jobs and requests the cancellation of running ones.
        ///
        /// # Errors
        ///
        #[doc = concat!("Those of [`", $name, "::join`].")]
        ///
        /// # Cancel safety
        ///
        /// Dropping the future before it is ready drops the results gathered so far. To keep them,
        #[doc = concat!("poll the [`", $name, "`] as a stream.")]
        ///
        /// # Panics
        ///
        /// Panics if it is polled after it was ready.
        #[must_use = "futures do nothing unless polled or awaited"]
        pub struct $join<'a, U> {
            map: AnyMap<'a, U>,
            /// The results so far. `None` once the future was ready.
            gathered: Option<Vec<U>>,
        }

        // Results are moved, never pinned.
        impl<U> Unpin for $join<'_, U> {}

        impl<U> Future for $join<'_, U> {
            type Output = Result<Vec<U>, JoinError>;

            fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
                let Self { map, gathered } = &mut *self;
                map.poll_all(gathered, concat!(stringify!($join), " polled after it was ready"), context)
            }
        }

        impl<U> FusedFuture for $join<'_, U> {
            fn is_terminated(&self) -> bool {
                self.gathered.is_none()
            }
        }

        impl<U> fmt::Debug for $join<'_, U> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($join), "<{}>"), type_name::<U>())?;
                self.map.fmt_fields(f)
            }
        }
    };
}

map_type! {
    /// The results of a function over many items, in input order: see
    /// [`ThreadPool::map`](crate::ThreadPool::map).
    ///
    /// **Dropping a map** depends on what was done with it:
    ///
    /// - It was never started: nothing runs.
    /// - It was started, and never asked for a result: everything runs, as after
    ///   [`detach`](Self::detach).
    /// - It was asked for a result, even if none was ready: queued jobs are cancelled, and the
    ///   cancellation of running ones is requested, as
    ///   [`cancel_requested`](crate::cancel_requested) reports. Running chunks skip their remaining
    ///   items.
    ///
    /// Sync code gathers all results with [`join`](Self::join), and async code with `map.await`.
    /// For one result after the other, a map is a [`Stream`], and `into_iter` turns it into a
    /// blocking iterator. [`detach`](Self::detach) lets it run without its results.
    ///
    /// The map of a [`ThreadPool`](crate::ThreadPool::map) does not borrow the pool: `'a` is the
    /// lifetime of the items. If the pool is gone, the map ends with an error that
    /// [`is_shutdown`](JoinError::is_shutdown).
    ///
    /// On a full bounded pool, a stream waits for room like
    /// [`submit_async`](crate::ThreadPool::submit_async), and the blocking forms like
    /// [`submit`](crate::ThreadPool::submit). A [timeout](Self::timeout) ends that wait too. A
    /// stream that was polled and is not ready keeps its turn until it is polled again or dropped,
    /// so other submitters wait behind it.
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
    Map, MapIter, MapJoin, VecDeque, "Map", " in input order.",
    "In a worker of the same pool and without a timeout, this method runs the job of the next \
     item itself if the job is still queued, like [`JoinHandle::join`](crate::JoinHandle::join)."
}

map_type! {
    /// The results of a function over many items, in completion order: see
    /// [`ThreadPool::map_unordered`](crate::ThreadPool::map_unordered).
    ///
    /// **Dropping it** does what it does for a [`Map`]. Once the map was asked for a result, that
    /// cancels the rest. A map that was started and never asked runs to its end.
    ///
    /// It differs from a [`Map`] only in the order of the results, and in which jobs a [blocked
    /// worker](Self::wait_next) runs.
    MapUnordered, MapUnorderedIter, MapUnorderedJoin, FuturesUnordered, "MapUnordered",
    " in completion order.",
    "In a worker of the same pool and without a timeout, this method may run queued jobs of the \
     map itself, but only while no other worker can: see [`block_on`](crate::block_on())."
}

/// A map in either order. It has the options, and knows whether the map was started and asked.
pub(crate) struct AnyMap<'a, U> {
    driver: Box<dyn Drive<U> + Send + 'a>,
    /// Results that the driver has handed over, so that a step need not call it. Refilled by
    /// `refill`, emptied by `wait_next` and `poll_next`.
    ready: Results<U>,
    /// How many of these can be yielded before there is anything to submit. The others go back to
    /// the driver then.
    budget: usize,
    options: Options,
    /// Guards the options. Set by `begin`.
    started: bool,
    /// Whether a result was requested. Set by `wait_next` and `poll_next`. Then the drop cancels
    /// the rest.
    asked: bool,
}

// Results are moved, never pinned.
impl<U> Unpin for AnyMap<'_, U> {}

/// What can be set before a map is started.
pub(crate) struct Options {
    /// The limit on items that were taken and not yielded. `None` means no limit.
    buffer_size: Option<usize>,
    /// `None` means that the map chooses it.
    chunk_size: Option<usize>,
    timeout: Option<Duration>,
}

/// [`MapJoin`] lets other tasks run after so many results.
const RESULTS_PER_POLL: usize = 1_024;

impl<'a, U> AnyMap<'a, U> {
    fn new<'job: 'a, P>(submitter: Submitter<'a, 'job, U>) -> Self
    where
        U: Send + 'a,
        P: InFlight<'job, U> + Send + 'a,
    {
        Self::from_driver(Box::new(MapState::<'a, 'job, U, P>::new(submitter)))
    }

    fn from_driver(driver: Box<dyn Drive<U> + Send + 'a>) -> Self {
        Self {
            driver,
            ready: Results::empty(),
            budget: 0,
            options: Options {
                buffer_size: None,
                chunk_size: None,
                timeout: None,
            },
            started: false,
            asked: false,
        }
    }

    #[track_caller]
    fn set_buffer_size(&mut self, items: usize) {
        self.assert_not_started("buffer_size");
        assert!(items > 0, "`buffer_size` must be at least 1");
        self.options.buffer_size = Some(items);
    }

    #[track_caller]
    fn set_chunk_size(&mut self, items: usize) {
        self.assert_not_started("chunk_size");
        assert!(items > 0, "`chunk_size` must be at least 1");
        self.options.chunk_size = Some(items);
    }

    #[track_caller]
    fn set_timeout(&mut self, timeout: Duration) {
        self.assert_not_started("timeout");
        self.options.timeout = Some(timeout);
    }

    /// Panics if the map is started, after which `option` can no longer be set.
    #[track_caller]
    fn assert_not_started(&self, option: &str) {
        assert!(
            !self.started,
            "`{option}` must be set before the map is started"
        );
    }

    /// Starts the clock, and submits nothing.
    fn begin(&mut self) {
        if !self.started {
            self.started = true;
            self.driver.begin(&self.options);
        }
    }

    fn start(&mut self) {
        self.begin();
        self.driver.submit();
    }

    fn detach(mut self) {
        catch_panic("the input of a map", || self.start());
        // From here on the drop lets everything run.
        self.asked = false;
    }

    #[inline]
    fn wait_next(&mut self) -> Option<Result<U, JoinError>> {
        match self.next_ready() {
            Some(result) => Some(result),
            None => self.wait_for_next(),
        }
    }

    /// Yields a result without asking the driver.
    #[inline]
    fn next_ready(&mut self) -> Option<Result<U, JoinError>> {
        if self.budget == 0 {
            return None;
        }
        let result = self.ready.next();
        self.budget -= usize::from(result.is_some());
        result
    }

    /// Apart, so that the step to a result that is ready is inlined.
    #[inline(never)]
    fn wait_for_next(&mut self) -> Option<Result<U, JoinError>> {
        self.begin();
        self.asked = true;
        self.give_back();
        let result = self.driver.wait_next();
        self.refill();
        result
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<U, JoinError>>> {
        if let Some(result) = self.next_ready() {
            return Poll::Ready(Some(result));
        }
        self.begin();
        self.asked = true;
        self.give_back();
        let result = self.driver.poll_next(context);
        self.refill();
        result
    }

    /// Takes over the results of the batch that is being yielded, unless the next step has to
    /// submit.
    fn refill(&mut self) {
        if let Some((ready, budget)) = self.driver.take_ready() {
            self.ready = ready;
            self.budget = budget;
        }
    }

    /// Gives the results back that are left: the next step has to submit.
    fn give_back(&mut self) {
        if self.ready.len() > 0 {
            let ready = mem::replace(&mut self.ready, Results::empty());
            self.driver.give_back(ready);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let ready = self.ready.len();
        let (at_least, at_most) = self.driver.size_hint();
        let at_most = at_most.and_then(|at_most| at_most.checked_add(ready));
        (at_least.saturating_add(ready), at_most)
    }

    fn join(mut self) -> Result<Vec<U>, JoinError> {
        let mut gathered = Vec::new();
        while let Some(result) = self.wait_next() {
            match result {
                Ok(value) => gathered.push(value),
                Err(error) => return Err(self.fail(gathered, error)),
            }
        }
        Ok(gathered)
    }

    /// Polls until all results are gathered, or the first error has come.
    #[track_caller]
    fn poll_all(
        &mut self,
        gathered: &mut Option<Vec<U>>,
        polled_again: &str,
        context: &mut Context<'_>,
    ) -> Poll<Result<Vec<U>, JoinError>> {
        for _ in 0..RESULTS_PER_POLL {
            let Some(results) = gathered else {
                panic!("{polled_again}");
            };
            match ready!(self.poll_next(context)) {
                Some(Ok(value)) => results.push(value),
                Some(Err(error)) => {
                    let gathered = gathered.take().unwrap_or_default();
                    return Poll::Ready(Err(self.fail(gathered, error)));
                }
                None => return Poll::Ready(Ok(gathered.take().unwrap_or_default())),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends the map after its first error.
    fn fail(&mut self, gathered: Vec<U>, error: JoinError) -> JoinError {
        self.driver.end();
        self.ready.clear();
        for result in gathered {
            drop_catching("the destructor of a result", result);
        }
        error
    }

    fn fmt_fields(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("")
            .field("started", &self.started)
            .field(
                "outstanding",
                &(self.driver.outstanding() + self.ready.len()),
            )
            .field("done", &self.driver.is_done())
            .finish_non_exhaustive()
    }
}

impl<U> Drop for AnyMap<'_, U> {
    fn drop(&mut self) {
        if self.started && !self.asked && !self.driver.is_done() {
            self.driver.detach();
        } else {
            self.driver.end();
        }
        self.ready.clear();
    }
}

/// A [`MapState`] whose `'job` is hidden: a map's type names its output, and what the input
/// borrows.
trait Drive<U> {
    /// Sets the options, and starts the clock. Called once, before the methods that submit.
    fn begin(&mut self, options: &Options);
    /// Submits what may be submitted, without waiting.
    fn submit(&mut self);
    /// Blocks until the next result is available or the deadline elapses.
    fn wait_next(&mut self) -> Option<Result<U, JoinError>>;
    /// Polls for the next result, and for the deadline.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<U, JoinError>>>;
    /// Hands over the results that are ready, unless the next step has to submit first. Also
    /// returns how many of them can be yielded before a step has to submit.
    fn take_ready(&mut self) -> Option<(Results<U>, usize)>;
    /// Takes back results that were handed over and not yielded.
    fn give_back(&mut self, ready: Results<U>);
    /// Ends the map: cancels its jobs, and drops its input and its results.
    fn end(&mut self);
    /// Ends the map, and lets its jobs run, those of items not yet submitted included.
    fn detach(&mut self);
    /// Returns whether the map has ended and yields nothing more.
    fn is_done(&self) -> bool;
    /// Counts the items that were submitted and not yielded.
    fn outstanding(&self) -> usize;
    fn size_hint(&self) -> (usize, Option<usize>);
}

/// A map that has waited this long for a result asks the running chunks for the results that they
/// have.
///
/// Until then it waits for the end of a chunk, because a wake-up for each result would cost more
/// than the items.
const STALL: Duration = Duration::from_millis(1);

/// Whether the wait of a task is a stall.
enum Stall {
    /// It does not wait, or no poll has asked for the time.
    None,
    After(Deadline),
    Over,
}

/// What [`Map`] and [`MapUnordered`] have in common: all but the order.
struct MapState<'a, 'job, U, P> {
    submitter: Submitter<'a, 'job, U>,
    /// The submitted batches whose results are not in `ready`. Filled by `submit_ready`, emptied by
    /// `poll_result`.
    in_flight: P,
    /// The results left of the batch that is being yielded. Refilled by `poll_result` once empty.
    ready: Results<U>,
    /// When the map ends. Set by `begin`.
    deadline: Option<Deadline>,
    /// Whether the deadline elapsed before the input ended. Set by `poll_result`: the map then ends
    /// with a timeout, even if all submitted items complete.
    timed_out: bool,
    /// Whether any batch is a chunk whose results may become available one by one.
    has_chunks: bool,
    /// Whether a task waits long for a result.
    stall: Stall,
    /// Whether the map has ended and yields nothing more. Set by `poll_result`, `end` and `detach`.
    done: bool,
}

impl<'a, 'job, U, P: InFlight<'job, U>> MapState<'a, 'job, U, P> {
    fn new(submitter: Submitter<'a, 'job, U>) -> Self {
        Self {
            submitter,
            in_flight: P::default(),
            ready: Results::empty(),
            deadline: None,
            timed_out: false,
            has_chunks: false,
            stall: Stall::None,
            done: false,
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
        let result = self.poll_batches(context, help);
        if result.is_ready() {
            // While the caller handles the result, nothing polls the map. A permit that was granted
            // to it would keep all other submitters waiting.
            self.submitter.stop_waiting();
        }
        result
    }

    fn poll_batches(
        &mut self,
        context: &mut Context<'_>,
        help: bool,
    ) -> Poll<Option<Result<U, JoinError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let has_work = self.submitter.has_source() || self.has_chunks;
        if has_work && self.deadline.as_ref().is_some_and(Deadline::is_elapsed) {
            // Complete results are still yielded, those of running chunks included, but nothing
            // more is submitted.
            self.in_flight.make_eager();
            if self.submitter.has_source() {
                self.submitter.drop_source();
                self.timed_out = true;
            }
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
        let (in_flight, has_chunks) = (&mut self.in_flight, &mut self.has_chunks);
        self.submitter.submit_ready(context, yielding, |batch| {
            *has_chunks |= batch.is_shared();
            in_flight.add(batch);
        });
    }

    /// Polls until the wait for a result has become a stall, which it does once.
    fn poll_stall(&mut self, context: &Context<'_>) -> Poll<()> {
        if let Stall::None = self.stall {
            self.stall = Stall::After(Deadline::after(STALL));
        }
        let Stall::After(deadline) = &mut self.stall else {
            return Poll::Pending;
        };
        ready!(deadline.poll(context));
        self.stall = Stall::Over;
        Poll::Ready(())
    }

    fn next_ready(&mut self) -> Option<Result<U, JoinError>> {
        let result = self.ready.next()?;
        self.submitter.results_yielded(1);
        Some(result)
    }

    fn end_by_timeout(&mut self) -> JoinError {
        self.end_by(End::TimedOut);
        JoinError::timeout()
    }

    fn end_by(&mut self, end: End) {
        self.done = true;
        // First the flag: see `chunk::burst`.
        self.submitter.stop();
        self.in_flight.cancel_all(end);
        self.submitter.end();
        self.ready.clear();
    }
}

impl<'job, U, P: InFlight<'job, U>> Drive<U> for MapState<'_, 'job, U, P> {
    fn begin(&mut self, options: &Options) {
        self.deadline = options.timeout.map(Deadline::after);
        self.submitter.begin(options);
    }

    fn submit(&mut self) {
        if !self.done {
            self.submit_ready(None, 0);
        }
    }

    fn wait_next(&mut self) -> Option<Result<U, JoinError>> {
        if self.ready.len() > 0 && (self.deadline.is_none() || !self.submitter.has_source()) {
            // A result that is ready needs neither poll nor waker.
            self.submit_ready(None, 1);
            return self.next_ready();
        }
        let deadline = self.deadline.as_ref().and_then(Deadline::instant);
        // A job cannot be interrupted, so a wait with a deadline runs none.
        let help = deadline.is_none();
        // A worker of a pool does not wait for a stall: a wait with a timeout would run no jobs.
        if self.has_chunks && current_worker().is_none() {
            let stalls = Instant::now() + STALL;
            let until = deadline.map_or(stalls, |deadline| deadline.min(stalls));
            let next = std::future::poll_fn(|context| self.poll_result(context, help));
            if let Some(result) = block_on_until(pin!(next), Some(until)) {
                return result;
            }
            self.in_flight.make_eager();
        }
        let next = std::future::poll_fn(|context| {
            let result = self.poll_result(context, help);
            if result.is_pending() && self.has_chunks {
                // Other chunks may be next by now. This wakes the thread if one has results.
                self.in_flight.make_eager();
            }
            result
        });
        match block_on_until(pin!(next), deadline) {
            Some(result) => result,
            None => Some(Err(self.end_by_timeout())),
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<U, JoinError>>> {
        // A poll must not block its thread, so it helps with no job.
        let mut result = self.poll_result(context, false);
        if result.is_ready() {
            self.stall = Stall::None;
        } else if self.has_chunks {
            if self.poll_stall(context).is_ready() {
                self.in_flight.make_eager();
                result = self.poll_result(context, false);
            }
            if result.is_pending() && matches!(self.stall, Stall::Over) {
                // Other chunks may be next by now. This wakes the task if one has results.
                self.in_flight.make_eager();
            }
        }
        match &mut self.deadline {
            Some(deadline) if result.is_pending() => {
                ready!(deadline.poll(context));
                Poll::Ready(Some(Err(self.end_by_timeout())))
            }
            _ => result,
        }
    }

    fn take_ready(&mut self) -> Option<(Results<U>, usize)> {
        let ready = self.ready.len();
        if ready == 0 {
            return None;
        }
        let budget = self.submitter.yields_until_submit(1);
        if budget == 0 {
            return None;
        }
        self.submitter.results_yielded(ready);
        Some((mem::replace(&mut self.ready, Results::empty()), budget))
    }

    fn give_back(&mut self, ready: Results<U>) {
        self.submitter.results_returned(ready.len());
        self.ready = ready;
    }

    fn end(&mut self) {
        self.end_by(End::Dropped);
    }

    fn detach(&mut self) {
        self.done = true;
        self.submitter.detach();
        // Dropping a handle detaches its job.
        drop(mem::take(&mut self.in_flight));
        self.ready.clear();
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn outstanding(&self) -> usize {
        self.submitter.outstanding()
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
trait InFlight<'job, U>: Default {
    fn add(&mut self, batch: Batch<'job, U>);
    /// Runs the job of the next batch here, if that batch is known and this thread is a worker of
    /// the pool that the job is queued in.
    fn help_next(&self);
    /// Removes the next batch once it is complete, and returns its results. Returns `Ready(None)`
    /// if no batch is in flight.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Results<U>>>;
    /// Makes the results of a chunk that is next available as soon as they are there.
    fn make_eager(&mut self);
    fn cancel_all(&mut self, end: End);
}

/// Input order: the front batch is next.
impl<'job, U> InFlight<'job, U> for VecDeque<Batch<'job, U>> {
    fn add(&mut self, batch: Batch<'job, U>) {
        self.push_back(batch);
    }

    fn help_next(&self) {
        if let Some(front) = self.front() {
            front.help();
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Results<U>>> {
        loop {
            let Some(front) = self.front_mut() else {
                return Poll::Ready(None);
            };
            let ready = ready!(Pin::new(front).poll(context));
            let Ready {
                results,
                more,
                behind,
            } = ready;
            self.pop_front();
            for batch in more.into_iter().chain(behind).rev() {
                self.push_front(batch);
            }
            if results.len() > 0 {
                return Poll::Ready(Some(results));
            }
        }
    }

    fn make_eager(&mut self) {
        self.iter().take(1).for_each(Batch::make_eager);
    }

    fn cancel_all(&mut self, end: End) {
        // The last one first: a worker that a running job frees then finds no other job of the map.
        mem::take(self)
            .iter()
            .rev()
            .for_each(|batch| batch.end(end));
    }
}

/// Completion order: any batch may be next.
impl<'job, U> InFlight<'job, U> for FuturesUnordered<Batch<'job, U>> {
    fn add(&mut self, batch: Batch<'job, U>) {
        self.push(batch);
    }

    /// Does nothing. To run one batch here would delay the result of another that completes first.
    fn help_next(&self) {}

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Results<U>>> {
        loop {
            let Some(ready) = ready!(self.poll_next_unpin(context)) else {
                return Poll::Ready(None);
            };
            self.extend(ready.more.into_iter().chain(ready.behind));
            if ready.results.len() > 0 {
                return Poll::Ready(Some(ready.results));
            }
        }
    }

    fn make_eager(&mut self) {
        self.iter().for_each(Batch::make_eager);
    }

    fn cancel_all(&mut self, end: End) {
        mem::take(self).iter().for_each(|batch| batch.end(end));
    }
}
