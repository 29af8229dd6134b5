//! A function over many items, a job for each or for a few.
//!
//! [`Feed`] takes the items and submits them; [`Map`] and [`MapUnordered`] hand the results out, in the order of the
//! items or as they come. They differ in nothing else.

use std::any::type_name;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::iter::FusedIterator;
use std::mem;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec;

use futures::stream::{FusedStream, FuturesUnordered, Stream, StreamExt};

use crate::error::JoinError;
use crate::executor::{Executor, submit_to};
use crate::park::block_on::block_on_until;
use crate::pool::{GlobalPool, Line, ThreadPool};
use crate::task::cell::catch;
use crate::task::join_handle::JoinHandle;
use crate::task::span::{self, Span};
use crate::util::sync::Arc;
use crate::util::timer::Limit;
use crate::util::unwind::drop_catching;

impl ThreadPool {
    /// A job for each item, whose results come in the order of the items: as a stream, and as a blocking iterator.
    ///
    /// **Lazy**, as streams and iterators are: nothing happens before it is asked for its first result, or
    /// [started](Map::start). (In Python, `map` begins at the call.) Then all items are submitted at once, if there is room;
    /// [`buffer_size`](Map::buffer_size) limits how many are taken ahead, so that endless inputs can be used, and
    /// [`chunk_size`](Map::chunk_size) puts several of them into a job.
    ///
    /// An item whose call panicked is an `Err` in its place, and the rest goes on. If `f` returns a `Result` itself, there
    /// are two: `item??`. Items are moved into jobs, so they cannot borrow; for that there is [`scope`](Self::scope).
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
    /// // Async code. The input is endless, and four items at most are taken ahead.
    /// futurepool::block_on(async {
    ///     let mut squares = pool.map(1.., |n| n * n).buffer_size(4);
    ///     assert_eq!(squares.next().await.unwrap().unwrap(), 1);
    ///     assert_eq!(squares.next().await.unwrap().unwrap(), 4);
    /// });
    /// ```
    ///
    /// Several inputs go in as one, by [`zip`](std::iter::zip):
    ///
    /// ```
    /// # let pool = futurepool::ThreadPool::new(4);
    /// let powers = pool.map(std::iter::zip([2_u32, 3], [5, 6]), |(base, exponent)| base.pow(exponent));
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

    /// As [`map`](Self::map), but results come as they are done. They do not say of which item they are: if that matters,
    /// let `f` return the item, too.
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
    /// As [`ThreadPool::map`].
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

    /// As [`ThreadPool::map_unordered`].
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

/// Takes items from the input and submits them.
struct Feed<'a, U> {
    /// `None` once there is nothing more to submit.
    source: Option<Box<dyn Source<U> + Send + 'a>>,
    /// Options cannot be set any more.
    begun: bool,
    /// How many items may be taken that were not handed out.
    buffer: Option<usize>,
    /// How many items go into a job.
    chunk: usize,
    limit: Option<Limit>,
    /// Items in jobs, or with their results waiting to be handed out.
    ahead: usize,
    /// Why the pool took no more, to be handed out after the rest.
    closed: Option<JoinError>,
    /// Set when nobody wants the rest: chunks that run leave out what they have not come to.
    stop: Arc<AtomicBool>,
}

/// The input, the function, and where its jobs go; knows their types.
trait Source<U> {
    /// Items that are in hand: taken, and not in a job yet.
    fn in_hand(&self) -> usize;
    /// Takes so many more in hand, as far as there are any.
    fn take(&mut self, items: usize);
    /// Submits what is in hand as one job, as soon as there is room for it. Without a context it does so now or not.
    fn poll_submit(
        &mut self,
        context: Option<&mut Context<'_>>,
    ) -> Poll<Result<Piece<U>, JoinError>>;
    /// How many items are still to come, at the most.
    fn at_most(&self) -> Option<usize>;
}

struct Items<'a, I: Iterator, F> {
    target: Target<'a>,
    items: I,
    /// It gave its last item, or panicked, and is not asked again.
    exhausted: bool,
    hand: Vec<I::Item>,
    work: Arc<Work<F>>,
    origin: &'static Location<'static>,
    span: Option<Span>,
}

/// What all jobs of a map share.
struct Work<F> {
    function: F,
    stop: Arc<AtomicBool>,
}

enum Target<'a> {
    Pool(Line),
    Other(Box<dyn Executor + 'a>),
}

/// A job of a map, and how many items it is for.
struct Piece<U> {
    job: PieceJob<U>,
    items: usize,
}

enum PieceJob<U> {
    One(JoinHandle<U>),
    Chunk(JoinHandle<Vec<Result<U, JoinError>>>),
}

impl<U> Piece<U> {
    fn cancel(&self) {
        match &self.job {
            PieceJob::One(handle) => handle.cancel(),
            PieceJob::Chunk(handle) => handle.cancel(),
        };
    }
}

/// The results of a piece, in order.
struct Results<U> {
    /// A piece of one item needs no memory for it.
    first: Option<Result<U, JoinError>>,
    rest: vec::IntoIter<Result<U, JoinError>>,
}

impl<U> Results<U> {
    fn new(first: Option<Result<U, JoinError>>, rest: Vec<Result<U, JoinError>>) -> Self {
        let rest = rest.into_iter();
        Self { first, rest }
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }
}

impl<U> Iterator for Results<U> {
    type Item = Result<U, JoinError>;

    fn next(&mut self) -> Option<Result<U, JoinError>> {
        self.first.take().or_else(|| self.rest.next())
    }
}

impl<U> Future for Piece<U> {
    type Output = Results<U>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Results<U>> {
        let items = self.items;
        Poll::Ready(match &mut self.job {
            PieceJob::One(handle) => {
                let result = ready!(Pin::new(handle).poll(context));
                Results::new(Some(result), Vec::new())
            }
            PieceJob::Chunk(handle) => match ready!(Pin::new(handle).poll(context)) {
                Ok(results) => Results::new(None, results),
                // It did not run, and so none of its items did.
                Err(error) => {
                    let others = (1..items).map(|_| Err(error.again())).collect();
                    Results::new(Some(Err(error)), others)
                }
            },
        })
    }
}

impl<I, F, U> Source<U> for Items<'_, I, F>
where
    I: Iterator<Item: Send + 'static>,
    F: Fn(I::Item) -> U + Send + Sync + 'static,
    U: Send + 'static,
{
    fn in_hand(&self) -> usize {
        self.hand.len()
    }

    fn take(&mut self, items: usize) {
        if self.exhausted {
            return;
        }
        let wanted = self.hand.len() + items;
        // Should it panic, what is in hand is not lost, and it is not asked again.
        self.exhausted = true;
        self.hand.extend(self.items.by_ref().take(items));
        self.exhausted = self.hand.len() < wanted;
    }

    fn poll_submit(
        &mut self,
        context: Option<&mut Context<'_>>,
    ) -> Poll<Result<Piece<U>, JoinError>> {
        if let Target::Pool(line) = &mut self.target {
            match context {
                Some(context) => ready!(line.poll(context)),
                None if line.try_take() => {}
                None => return Poll::Pending,
            }
        }
        let (items, work) = (self.hand.len(), Arc::clone(&self.work));
        let job = if items == 1 {
            let item = self.hand.pop().expect("there is one");
            let run = move || {
                let result = (work.function)(item);
                drop_catching("the destructor of map's function", work);
                result
            };
            self.submit(run).map(PieceJob::One)
        } else {
            let (hand, origin) = (mem::take(&mut self.hand), self.origin);
            self.submit(move || run_chunk(hand, work, origin))
                .map(PieceJob::Chunk)
        };
        Poll::Ready(job.map(|job| Piece { job, items }))
    }

    fn at_most(&self) -> Option<usize> {
        match self.exhausted {
            true => Some(0),
            false => self.items.size_hint().1,
        }
    }
}

impl<I: Iterator, F> Items<'_, I, F> {
    /// Submits a job that has its place.
    fn submit<C, T>(&self, closure: C) -> Result<JoinHandle<T>, JoinError>
    where
        C: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let span = span::clone(&self.span);
        match &self.target {
            Target::Pool(line) => {
                line.enqueue(closure, self.origin, span)
                    .map_err(|(closed, closure)| {
                        drop_catching("the destructor of an item", closure);
                        closed.into()
                    })
            }
            Target::Other(executor) => Ok(submit_to(&**executor, closure, self.origin, span)),
        }
    }
}

/// One bad item leaves the others alone.
fn run_chunk<A, F, U>(
    items: Vec<A>,
    work: Arc<Work<F>>,
    origin: &'static Location<'static>,
) -> Vec<Result<U, JoinError>>
where
    F: Fn(A) -> U,
{
    let stopped = || work.stop.load(Ordering::Relaxed);
    let mut results = Vec::with_capacity(items.len());
    let mut items = items.into_iter();
    while items.len() > 0 && !stopped() {
        let some = catch(origin, || {
            while !stopped() {
                let Some(item) = items.next() else {
                    return;
                };
                results.push(Ok((work.function)(item)));
            }
        });
        // The one that panicked was taken, and is not among the results.
        results.extend(some.err().map(Err));
    }
    for item in items {
        drop_catching("the destructor of an item", item);
        results.push(Err(JoinError::cancelled()));
    }
    drop_catching("the destructor of map's function", work);
    results
}

impl<'a, U: Send + 'static> Feed<'a, U> {
    #[track_caller]
    fn new<E, I, F>(executor: &'a E, items: I, function: F) -> Self
    where
        E: Executor + ?Sized,
        I: Iterator<Item: Send + 'static> + Send + 'a,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let source = Items {
            target: match executor.as_thread_pool() {
                Some(pool) => Target::Pool(pool.line()),
                None => Target::Other(Box::new(executor)),
            },
            items,
            exhausted: false,
            hand: Vec::new(),
            work: Arc::new(Work {
                function,
                stop: Arc::clone(&stop),
            }),
            origin: Location::caller(),
            span: span::current(),
        };
        Self {
            source: Some(Box::new(source)),
            begun: false,
            buffer: None,
            chunk: 1,
            limit: None,
            ahead: 0,
            closed: None,
            stop,
        }
    }
}

impl<U> Feed<'_, U> {
    /// Submits what may be submitted now, in pieces that go to `put`. `handing_out` items are about to be handed out,
    /// and others may be taken for them.
    fn feed(
        &mut self,
        mut context: Option<&mut Context<'_>>,
        handing_out: usize,
        mut put: impl FnMut(Piece<U>),
    ) {
        self.begun = true;
        let chunk = self.buffer.map_or(self.chunk, |most| most.min(self.chunk));
        while let Some(source) = &mut self.source {
            if source.in_hand() < chunk {
                let ahead = self.ahead + source.in_hand() - handing_out;
                let room = self.buffer.map_or(usize::MAX, |most| most - ahead);
                if source.in_hand().saturating_add(room) < chunk {
                    return;
                }
                source.take(chunk - source.in_hand());
            }
            if source.in_hand() == 0 {
                self.drop_source();
                return;
            }
            match source.poll_submit(context.as_deref_mut()) {
                Poll::Ready(Ok(piece)) => {
                    self.ahead += piece.items;
                    put(piece);
                }
                Poll::Ready(Err(closed)) => {
                    self.closed = Some(closed);
                    self.drop_source();
                }
                Poll::Pending => return,
            }
        }
    }

    #[track_caller]
    fn set(&mut self, option: &str) {
        assert!(!self.begun, "{option}: the map has begun; set it before");
    }

    /// With the input and, unless jobs still have it, the function.
    fn drop_source(&mut self) {
        drop_catching(
            "the destructor of map's input or function",
            self.source.take(),
        );
    }

    fn end(&mut self) {
        self.drop_source();
        self.closed = None;
        self.stop.store(true, Ordering::Relaxed);
    }

    /// How many items are still to come, at the most.
    fn at_most(&self) -> Option<usize> {
        let to_come = match &self.source {
            Some(source) => source.at_most()?.checked_add(source.in_hand())?,
            None => usize::from(self.closed.is_some()),
        };
        to_come.checked_add(self.ahead)
    }
}

/// Where the pieces are.
trait Pieces<U>: Default {
    fn put(&mut self, piece: Piece<U>);
    /// The next one that is done; `None` if there are no pieces.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Results<U>>>;
    fn cancel_all(&mut self);
}

/// In the order of the items.
impl<U> Pieces<U> for VecDeque<Piece<U>> {
    fn put(&mut self, piece: Piece<U>) {
        self.push_back(piece);
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Results<U>>> {
        let Some(first) = self.front_mut() else {
            return Poll::Ready(None);
        };
        let results = ready!(Pin::new(first).poll(context));
        self.pop_front();
        Poll::Ready(Some(results))
    }

    fn cancel_all(&mut self) {
        mem::take(self).iter().for_each(Piece::cancel);
    }
}

/// As they come.
impl<U> Pieces<U> for FuturesUnordered<Piece<U>> {
    fn put(&mut self, piece: Piece<U>) {
        self.push(piece);
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Results<U>>> {
        self.poll_next_unpin(context)
    }

    fn cancel_all(&mut self) {
        mem::take(self).iter().for_each(Piece::cancel);
    }
}

/// What [`Map`] and [`MapUnordered`] have in common.
struct Engine<'a, U, P: Pieces<U>> {
    feed: Feed<'a, U>,
    pieces: P,
    /// Of the piece whose turn it is.
    ready: Results<U>,
    /// The time was up before all items were taken.
    cut: bool,
    /// It has ended.
    over: bool,
}

impl<'a, U, P: Pieces<U>> Engine<'a, U, P> {
    fn new(feed: Feed<'a, U>) -> Self {
        Self {
            feed,
            pieces: P::default(),
            ready: Results::new(None, Vec::new()),
            cut: false,
            over: false,
        }
    }

    fn feed(&mut self, context: Option<&mut Context<'_>>, handing_out: usize) {
        let Self { feed, pieces, .. } = self;
        feed.feed(context, handing_out, |piece| pieces.put(piece));
    }

    fn start(&mut self) {
        if !self.over {
            self.feed(None, 0);
        }
    }

    fn next_ready(&mut self) -> Option<Result<U, JoinError>> {
        let result = self.ready.next()?;
        self.feed.ahead -= 1;
        Some(result)
    }

    /// The next result that is there, or comes before the time is up: the caller waits for that.
    fn poll_result(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<U, JoinError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.feed.source.is_some() && self.feed.limit.as_ref().is_some_and(Limit::is_over) {
            // What is done still comes, but nothing new is begun.
            self.feed.drop_source();
            self.cut = true;
        }
        loop {
            let handing_out = usize::from(self.ready.len() > 0);
            self.feed(Some(context), handing_out);
            // Only now, so that it is not lost if the input panics.
            if let Some(result) = self.next_ready() {
                return Poll::Ready(Some(result));
            }
            match ready!(self.pieces.poll_next(context)) {
                Some(results) => self.ready = results,
                // It waits for room.
                None if self.feed.source.is_some() => return Poll::Pending,
                None if self.cut => return Poll::Ready(Some(Err(self.time_out()))),
                None => {
                    self.over = self.feed.closed.is_none();
                    let error = self.feed.closed.take();
                    return Poll::Ready(error.map(Err));
                }
            }
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<U, JoinError>>> {
        let result = self.poll_result(context);
        match &mut self.feed.limit {
            Some(limit) if result.is_pending() => {
                ready!(limit.poll(context));
                Poll::Ready(Some(Err(self.time_out())))
            }
            _ => result,
        }
    }

    fn wait_next(&mut self) -> Option<Result<U, JoinError>> {
        if self.feed.source.is_none() {
            // Nothing is to be waited for, nor to be submitted for it.
            if let Some(result) = self.next_ready() {
                return Some(result);
            }
        }
        let deadline = self.feed.limit.as_ref().and_then(Limit::deadline);
        let next = std::future::poll_fn(|context| self.poll_result(context));
        match block_on_until(pin!(next), deadline) {
            Some(result) => result,
            None => Some(Err(self.time_out())),
        }
    }

    fn time_out(&mut self) -> JoinError {
        self.end();
        JoinError::timeout()
    }

    /// Cancels the rest.
    fn end(&mut self) {
        self.over = true;
        self.pieces.cancel_all();
        self.feed.end();
        for result in self.ready.by_ref() {
            drop_catching("the destructor of a result", result);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.over {
            true => (0, Some(0)),
            false => (self.ready.len(), self.feed.at_most()),
        }
    }
}

macro_rules! map_type {
    ($(#[$doc:meta])* $map:ident, $iter:ident, $pieces:ty, $name:literal) => {
        $(#[$doc])*
        #[must_use = "a map is lazy: it does nothing unless it is asked for a result, or started"]
        pub struct $map<'a, U> {
            engine: Engine<'a, U, $pieces>,
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
                let feed = Feed::new(executor, items.into_iter(), f);
                Self { engine: Engine::new(feed) }
            }
        }

        impl<U> $map<'_, U> {
            /// Takes `items` inputs at most ahead of what was handed out, so that an endless input can be used, and one
            /// that is larger than the memory. Without it, all inputs are taken at the start, or as a bounded pool has
            /// room.
            ///
            /// # Panics
            ///
            /// If it is 0, or if the map has begun.
            ///
            /// # Examples
            ///
            /// See [`ThreadPool::map`](crate::ThreadPool::map) for an example.
            #[doc(alias = "buffersize")]
            #[track_caller]
            pub fn buffer_size(mut self, items: usize) -> Self {
                self.engine.feed.set("buffer_size");
                assert!(items > 0, "buffer_size: a map needs to take at least 1 item ahead, not 0");
                self.engine.feed.buffer = Some(items);
                self
            }

            /// Puts so many items into a job, which pays for items that take microseconds. The default is 1. A chunk is
            /// never larger than the [buffer](Self::buffer_size).
            ///
            /// An item that panics loses nobody but itself.
            ///
            /// # Panics
            ///
            /// If it is 0, or if the map has begun.
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
                self.engine.feed.set("chunk_size");
                assert!(items > 0, "chunk_size: a job needs at least 1 item, not 0");
                self.engine.feed.chunk = items;
                self
            }

            /// Ends when the time is up, counted from this call: what is done and has its turn still comes, then one
            /// error that [`is_timeout`](JoinError::is_timeout), and that is the end. What has not started is
            /// cancelled, and what runs is asked to end.
            ///
            /// A limit too long for the clock is none. In async code it needs no particular runtime: all limits of a
            /// process share one timer.
            ///
            /// # Panics
            ///
            /// If the map has begun.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::time::Duration;
            ///
            /// use futurepool::{ThreadPool, cancel_requested};
            ///
            /// let pool = ThreadPool::new(2);
            /// // It looks for ever, unless it is asked to end.
            /// let search = |from: u64| (from..).find(|_| cancel_requested());
            /// let mut found = pool.map([0, 1_000], search).timeout(Duration::from_millis(10));
            /// assert!(found.wait_next().unwrap().unwrap_err().is_timeout());
            /// assert!(found.wait_next().is_none());
            /// ```
            #[track_caller]
            pub fn timeout(mut self, limit: Duration) -> Self {
                self.engine.feed.set("timeout");
                self.engine.feed.limit = Some(Limit::after(limit));
                self
            }

            /// Begins now, without waiting for the first result to be asked for.
            ///
            /// It never blocks: what a full pool has no room for is submitted when results are asked for. Options are set
            /// before it; afterwards they panic.
            ///
            /// # Examples
            ///
            /// ```
            /// let pool = futurepool::ThreadPool::new(2);
            /// let lengths = pool.map(["spam", "ham"], |word| word.len()).start();
            /// assert_eq!(pool.metrics().submitted, 2);
            /// // They are measured while this thread does something else.
            /// assert_eq!(lengths.into_iter().map(Result::unwrap).sum::<usize>(), 7);
            /// ```
            pub fn start(mut self) -> Self {
                self.engine.start();
                self
            }

            /// Waits for the next result in this thread; `None` at the end.
            ///
            /// In a worker of the same pool, and without a time limit, it runs the job itself that it waits for, if no
            /// worker can: see [`block_on`](crate::block_on()).
            ///
            /// See [`timeout`](Self::timeout) for an example.
            pub fn wait_next(&mut self) -> Option<Result<U, JoinError>> {
                self.engine.wait_next()
            }
        }

        impl<U> Stream for $map<'_, U> {
            type Item = Result<U, JoinError>;

            fn poll_next(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                self.engine.poll_next(context)
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                self.engine.size_hint()
            }
        }

        impl<U> FusedStream for $map<'_, U> {
            fn is_terminated(&self) -> bool {
                self.engine.over
            }
        }

        impl<'a, U> IntoIterator for $map<'a, U> {
            type Item = Result<U, JoinError>;
            type IntoIter = $iter<'a, U>;

            /// A blocking iterator. The map begins now.
            fn into_iter(self) -> $iter<'a, U> {
                $iter(self.start())
            }
        }

        impl<U> Drop for $map<'_, U> {
            fn drop(&mut self) {
                self.engine.end();
            }
        }

        impl<U> fmt::Debug for $map<'_, U> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($name, "<{}>"), type_name::<U>())?;
                f.debug_struct("")
                    .field("begun", &self.engine.feed.begun)
                    .field("ahead", &self.engine.feed.ahead)
                    .field("over", &self.engine.over)
                    .finish_non_exhaustive()
            }
        }

        #[doc = concat!("The results of a [`", $name, "`] in a blocking iterator: what a `for` loop uses.")]
        ///
        /// Dropping it cancels what has not started.
        ///
        /// See [`ThreadPool::map`](crate::ThreadPool::map) for an example.
        #[must_use = "iterators do nothing unless they are asked for the next item"]
        pub struct $iter<'a, U>($map<'a, U>);

        impl<U> Iterator for $iter<'_, U> {
            type Item = Result<U, JoinError>;

            fn next(&mut self) -> Option<Self::Item> {
                self.0.wait_next()
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                self.0.engine.size_hint()
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
    /// The results of a function over many items, in the order of the items: see
    /// [`ThreadPool::map`](crate::ThreadPool::map).
    ///
    /// It is a [`Stream`], and `into_iter` makes a blocking iterator of it. **Dropping it cancels what has not started**,
    /// and asks what runs to end: see [`cancel_requested`](crate::cancel_requested).
    ///
    /// On a full bounded pool the stream waits for room as [`submit_async`](crate::ThreadPool::submit_async) does, and the
    /// blocking forms as [`submit`](crate::ThreadPool::submit); a time limit ends that wait, too. If the pool is shut
    /// down or breaks, there come the results of what was submitted, then one error that says so, and that is the end.
    ///
    /// The jobs run in the `tracing` span that was current when it was made.
    Map, MapIter, VecDeque<Piece<U>>, "Map"
}

map_type! {
    /// The results of a function over many items, as they come: see
    /// [`ThreadPool::map_unordered`](crate::ThreadPool::map_unordered).
    ///
    /// In all else it is as [`Map`].
    MapUnordered, MapUnorderedIter, FuturesUnordered<Piece<U>>, "MapUnordered"
}
