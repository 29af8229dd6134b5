//! Iterating: jobs call `next`, and hand each item over as soon as they have it.
//!
//! The consumer takes all items of the queue at once, so it and the worker seldom meet at the lock.

use std::any::Any;
use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::thread;
use std::time::Duration;

use futures::stream::{FusedStream, Stream};

use super::shared::Shared;
use super::waiters::Half;
use super::{Failure, Kind, Refused, Reply, Unblock, resume};
use crate::error::JoinError;
use crate::util::sync::{Arc, Instant, Mutex};
use crate::util::unwind::{DropEach, drop_catching, drop_waker, wake};

/// How many items a job takes by default.
const DEFAULT_ITEMS: usize = 1024;

/// An item that takes longer ends its job: the next one might take long too, and the consumer may
/// not want it.
const QUICK: Duration = Duration::from_micros(50);

/// A job takes several items only after so many quick ones in a row.
const QUICK_RUN: usize = 16;

/// In runs of at least so many quick items, only one in [`STRIDE`] is timed.
const LONG_RUN: usize = 64;
const STRIDE: usize = 4;

/// How long a job goes on while the consumer keeps up with it.
const SLICE: Duration = Duration::from_millis(2);

/// The items of a stream, without their type.
pub(super) trait ErasedItems: Any + Send {
    fn as_any(&mut self) -> &mut dyn Any;
    /// Drops the waker of the consumer.
    fn forget_waker(&mut self);
}

/// The consumer's side of a stream.
struct Items<I> {
    /// Taken out of the queue and not yet yielded.
    taken: VecDeque<I>,
    queue: Arc<Mutex<Queue<I>>>,
    /// Why there are no more items, after those of the queue.
    failure: Option<JoinError>,
}

/// Shared with the job.
struct Queue<I> {
    /// Filled by the job, emptied by the consumer.
    items: VecDeque<I>,
    /// The consumer that waits for the next item.
    waker: Option<Waker>,
    /// Whether the iterator has ended. Set by the job.
    is_ended: bool,
    /// How many of the last items were quick. A slow item halves it, as it may be chance.
    quick_run: usize,
}

impl<I> Drop for Items<I> {
    fn drop(&mut self) {
        drop_each(mem::take(&mut self.taken));
    }
}

impl<I> Drop for Queue<I> {
    fn drop(&mut self) {
        drop_each(mem::take(&mut self.items));
    }
}

/// A destructor that panics harms no other item: two at once would abort the process.
fn drop_each<I>(items: VecDeque<I>) {
    drop(DropEach::new(items.into()));
}

impl<I: Send + 'static> ErasedItems for Items<I> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn forget_waker(&mut self) {
        let waker = self.queue.lock().waker.take();
        drop_waker(waker);
    }
}

impl<I: Send + 'static> Items<I> {
    fn new() -> Self {
        Self {
            taken: VecDeque::new(),
            queue: Arc::new(Mutex::new(Queue {
                items: VecDeque::new(),
                waker: None,
                is_ended: false,
                quick_run: 0,
            })),
            failure: None,
        }
    }

    /// Takes the items that the job has handed over. Returns whether there are any.
    fn take(&mut self) -> bool {
        mem::swap(&mut self.taken, &mut self.queue.lock().items);
        !self.taken.is_empty()
    }

    fn is_quick(&self) -> bool {
        let queue = self.queue.lock();
        queue.quick_run >= QUICK_RUN && !queue.is_ended
    }

    /// Registers the waker if the queue is empty and the iterator has not ended. Returns whether it
    /// did.
    fn register(&self, context: &Context<'_>) -> bool {
        // Cloning a waker runs user code, so it happens outside the lock.
        let waker = Some(context.waker().clone());
        let mut queue = self.queue.lock();
        let must_wait = queue.items.is_empty() && !queue.is_ended;
        let unused = match must_wait {
            true => mem::replace(&mut queue.waker, waker),
            false => waker,
        };
        drop(queue);
        drop_waker(unused);
        must_wait
    }
}

/// The job of a stream. Fills the queue up to `limit` items: it goes on while the consumer empties
/// the queue. With a `limit` of 1 it takes one item.
fn iterate<T: Iterator>(
    shared: &Shared<T>,
    queue: &Mutex<Queue<T::Item>>,
    limit: usize,
) -> thread::Result<()> {
    shared.run(|iterator| {
        let begin = Instant::now();
        let mut last_read = begin;
        let mut unread_items = 0;
        loop {
            let item = iterator.next();
            let is_last = item.is_none();
            unread_items += 1;
            // Reading the clock costs as much as all the rest.
            let stride = if limit < LONG_RUN { 1 } else { STRIDE };
            let mut is_quick = true;
            let mut is_over = false;
            let mut run = 0;
            if unread_items >= stride {
                let now = Instant::now();
                is_quick = now.saturating_duration_since(last_read) < QUICK;
                is_over = now.saturating_duration_since(begin) >= SLICE;
                last_read = now;
                run = mem::take(&mut unread_items);
            }
            let mut state = queue.lock();
            match item {
                Some(item) => state.items.push_back(item),
                None => state.is_ended = true,
            }
            state.quick_run = match is_quick {
                true => state.quick_run.saturating_add(run),
                false => state.quick_run / 2,
            };
            let is_full = state.items.len() >= limit;
            let waker = state.waker.take();
            drop(state);
            // Before the next call of `next`, which may block.
            if let Some(waker) = waker {
                wake(waker);
            }
            if is_last || is_full || !is_quick || is_over {
                return;
            }
        }
    })
}

impl<T> Unblock<T>
where
    T: Iterator<Item: Send + 'static> + Send + 'static,
{
    fn poll_item(
        &mut self,
        items: &mut Items<T::Item>,
        context: &mut Context<'_>,
    ) -> Poll<Option<T::Item>> {
        loop {
            if let Some(item) = items.taken.pop_front() {
                return Poll::Ready(Some(item));
            }
            if self.stream_ended {
                return Poll::Ready(None);
            }
            if items.take() {
                self.iterate_ahead(items);
                continue;
            }
            if let Some(error) = items.failure.take() {
                // A refused job has harmed nothing, and a later poll may try again.
                self.stream_ended = error.is_panic();
                resume(error);
            }
            if items.queue.lock().is_ended {
                self.stream_ended = true;
                continue;
            }
            match self.job.as_ref().map(|job| job.kind) {
                None => self.start_iterating(items),
                Some(Kind::Iterate) => {}
                Some(_) => {
                    if let Err(error) = ready!(self.poll_others(context, Half::Reader)) {
                        items.failure = Some(error);
                    }
                    continue;
                }
            }
            if !items.register(context) {
                continue;
            }
            // Also polled so that a worker of the same pool can help.
            match ready!(self.poll_job(context, Half::Reader)) {
                Ok(()) => {}
                // The items that came before are yielded first.
                Err(Failure { error, .. }) => items.failure = Some(error),
            }
        }
    }

    /// Starts the next job while the consumer yields what the last one took, if items are quick.
    fn iterate_ahead(&mut self, items: &mut Items<T::Item>) {
        // With a capacity of 1, `next` is never called for an item that was not asked for.
        if self.kind() != Some(Kind::Iterate) || self.item_capacity() == 1 {
            return;
        }
        // The items that came before a failure are yielded first.
        let failed = self.reap(Half::Reader).err();
        items.failure = failed.map(|failure| failure.error);
        if self.job.is_none() && items.failure.is_none() && items.is_quick() {
            self.start_iterating(items);
        }
    }

    fn item_capacity(&self) -> usize {
        self.capacity.unwrap_or(DEFAULT_ITEMS)
    }

    fn start_iterating(&mut self, items: &mut Items<T::Item>) {
        let capacity = self.item_capacity();
        let quick_run = items.queue.lock().quick_run;
        let limit = match quick_run < QUICK_RUN {
            true => 1,
            false => quick_run.min(capacity),
        };
        let queue = Arc::clone(&items.queue);
        let started = self.start(Kind::Iterate, move |shared| {
            let result = iterate(shared, &queue, limit);
            // If the `Unblock` is gone, this drops the items.
            drop_catching("the destructor of an item", queue);
            result.map(|()| Reply::Done)
        });
        match started {
            Ok(()) => {}
            Err(Refused::Pool(error)) => items.failure = Some(error),
            Err(Refused::Gone(_)) => self.stream_ended = true,
        }
    }
}

impl<T> Stream for Unblock<T>
where
    T: Iterator<Item: Send + 'static> + Send + 'static,
{
    type Item = T::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut lent = Lent::new(&mut *self);
        let Lent { unblock, items } = &mut lent;
        let items = items
            .as_mut()
            .and_then(|items| items.as_any().downcast_mut());
        let items = items.expect("a type is one iterator only");
        unblock.poll_item(items, context)
    }
}

impl<T> FusedStream for Unblock<T>
where
    T: Iterator<Item: Send + 'static> + Send + 'static,
{
    fn is_terminated(&self) -> bool {
        self.stream_ended
    }
}

/// The items of a stream during a poll, apart from the `Unblock`. Dropping this puts them back, also
/// if the poll panics.
struct Lent<'a, T> {
    unblock: &'a mut Unblock<T>,
    /// `Some` until this is dropped.
    items: Option<Box<dyn ErasedItems>>,
}

impl<'a, T> Lent<'a, T>
where
    T: Iterator<Item: Send + 'static>,
{
    fn new(unblock: &'a mut Unblock<T>) -> Self {
        let items = unblock.items.get_mut().take();
        let items = items.unwrap_or_else(|| Box::new(Items::<T::Item>::new()));
        let items = Some(items);
        Self { unblock, items }
    }
}

impl<T> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        *self.unblock.items.get_mut() = self.items.take();
    }
}
