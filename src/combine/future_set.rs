//! A set of futures that are polled as they are woken: [`FutureSet`].
//!
//! It does what `FuturesUnordered` does, but that allocates a node for each future. Here a future
//! that is ready at its first poll costs no allocation: the next future uses its place and its
//! waker again. A future that is pending then keeps the place and the waker, which are two
//! allocations. So the set is faster for jobs that finish before their handles are polled, and as
//! fast for others.
//!
//! # Why no wake-up is lost
//!
//! A waker that is called puts itself on the set's list, unless it is `queued` there already. The
//! set resets `queued` before it polls. So a call after the reset adds the waker again. A call
//! before the reset precedes the poll, which sees what the caller did.
//!
//! The set stores its task's waker under the lock of the list, and only while the list is empty. So
//! the next call finds the task's waker, or the set has seen the list.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::task::{ArcWake, waker_ref};

use crate::util::fault::fault_or;
use crate::util::sync::{Arc, AtomicBool, Mutex, Ordering};
use crate::util::unwind::drop_waker;

/// Futures that are polled in the order in which they were added or woken.
pub(crate) struct FutureSet<F> {
    /// What to poll next. Whatever is on the list of `woken` comes after this.
    queue: VecDeque<Entry<F>>,
    /// The number of [`Entry::New`] in the queue.
    new: usize,
    /// The futures that were polled and are not ready. Their indices are in their wakers.
    polled: Vec<Option<Polled<F>>>,
    /// The vacant indices in `polled`.
    vacant: Vec<usize>,
    /// The number of the next future that is polled for the first time.
    next_number: u64,
    woken: Arc<WokenList>,
    /// Empty: its memory is that of the next list.
    list_buffer: Vec<Arc<FutureWaker>>,
    /// The place of a future that is gone, for the next one.
    spare_place: Option<Place<F>>,
    /// A waker that nothing else refers to, for the next new future.
    spare_waker: Option<Arc<FutureWaker>>,
}

enum Entry<F> {
    /// A future that was never polled.
    New(F),
    /// The waker of a future that was polled. The future may be gone.
    Woken(Arc<FutureWaker>),
}

struct Polled<F> {
    /// Tells the order of insertion, since futures are polled first in that order.
    number: u64,
    place: Place<F>,
}

/// Where a future is polled; `None` if it is gone.
type Place<F> = Pin<Box<Option<F>>>;

/// Wakes the set, for one of its futures.
struct FutureWaker {
    woken: Arc<WokenList>,
    /// The place of the future in [`FutureSet::polled`], and its number: another future may be
    /// there.
    index: usize,
    number: u64,
    /// It is on the list, or in the queue. Set by the call that adds it, reset before a poll.
    queued: AtomicBool,
}

/// What the wakers of a set tell the set.
#[derive(Default)]
struct WokenList {
    state: Mutex<WokenState>,
    /// Whether the list has entries. Written under the lock.
    any: AtomicBool,
}

#[derive(Default)]
struct WokenState {
    list: Vec<Arc<FutureWaker>>,
    /// The waker of the task that polls the set. Taken by the call that adds the first entry.
    task: Option<Waker>,
    /// The set is gone. An entry would keep itself alive.
    closed: bool,
}

// A future is in a pinned place from its first poll on. What is in the queue was never polled.
impl<F> Unpin for FutureSet<F> {}

impl<F> FutureSet<F> {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            new: 0,
            polled: Vec::new(),
            vacant: Vec::new(),
            next_number: 0,
            woken: Arc::default(),
            list_buffer: Vec::new(),
            spare_place: None,
            spare_waker: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.new + self.polled.len() - self.vacant.len()
    }

    /// Adds a future, which the next polls of the set poll.
    pub(crate) fn push(&mut self, future: F) {
        // What was woken before comes first. A wake-up at the same time may come later.
        if self.woken.any.load(Ordering::Relaxed) {
            self.take_woken(None);
        }
        self.queue.push_back(Entry::New(future));
        self.new += 1;
    }

    /// Makes room for as many further futures.
    pub(crate) fn reserve(&mut self, additional: usize) {
        self.queue.reserve(additional);
    }

    /// Returns the futures in insertion order.
    pub(crate) fn in_order(&self) -> impl DoubleEndedIterator<Item = &F> {
        let mut polled: Vec<_> = self.polled.iter().flatten().collect();
        polled.sort_unstable_by_key(|polled| polled.number);
        let polled = polled
            .into_iter()
            .filter_map(|polled| (*polled.place).as_ref());
        let new = self.queue.iter().filter_map(|entry| match entry {
            Entry::New(future) => Some(future),
            Entry::Woken(_) => None,
        });
        polled.chain(new)
    }

    /// Returns the futures in insertion order.
    pub(crate) fn into_futures(mut self) -> Vec<F>
    where
        F: Unpin,
    {
        let mut polled: Vec<_> = mem::take(&mut self.polled).into_iter().flatten().collect();
        polled.sort_unstable_by_key(|polled| polled.number);
        let polled = polled
            .into_iter()
            .filter_map(|polled| *Pin::into_inner(polled.place));
        let queue = mem::take(&mut self.queue).into_iter();
        let new = queue.filter_map(|entry| match entry {
            Entry::New(future) => Some(future),
            Entry::Woken(_) => None,
        });
        polled.chain(new).collect()
    }

    /// Moves what is on the list to the queue. If nothing is, the list keeps the waker of the task.
    fn take_woken(&mut self, task: Option<&Waker>) {
        let mut replaced = None;
        let mut state = self.woken.state.lock();
        if let Some(task) = task.filter(|_| state.list.is_empty()) {
            if state.task.as_ref().is_some_and(|own| own.will_wake(task)) {
                return;
            }
            // The clone and the drop of a waker are user code, so they happen outside the lock.
            drop(state);
            replaced = Some(task.clone());
            state = self.woken.state.lock();
            if state.list.is_empty() {
                mem::swap(&mut state.task, &mut replaced);
            }
        }
        mem::swap(&mut state.list, &mut self.list_buffer);
        self.woken.any.store(false, Ordering::Relaxed);
        drop(state);
        drop_waker(replaced);
        self.queue
            .extend(self.list_buffer.drain(..).map(Entry::Woken));
    }

    /// Removes the next future from the queue and from `polled`; `None` if it is gone.
    fn pop(&mut self) -> Option<(Place<F>, Arc<FutureWaker>)> {
        match self.queue.pop_front()? {
            Entry::New(future) => {
                self.new -= 1;
                let waker = self.next_waker();
                let place = match self.spare_place.take() {
                    Some(mut place) => {
                        place.set(Some(future));
                        place
                    }
                    None => Box::pin(Some(future)),
                };
                Some((place, waker))
            }
            Entry::Woken(waker) => {
                // The waker of a future that is gone stays `queued`: see `retire`.
                let polled = self.polled.get_mut(waker.index)?;
                let polled = polled.take_if(|polled| polled.number == waker.number)?;
                // Ordering: Acquire pairs with the Release of a call that finds the flag set. The
                // poll sees what that thread did before.
                let acquire = fault_or!(
                    "a_weak_reset_of_a_woken_future": Ordering::Relaxed;
                    Ordering::Acquire
                );
                fault_or!(
                    "a_woken_future_stays_queued": true;
                    waker.queued.swap(false, acquire)
                );
                self.vacant.push(waker.index);
                Some((polled.place, waker))
            }
        }
    }

    /// Returns a waker for a new future, with the index that is vacant next.
    fn next_waker(&mut self) -> Arc<FutureWaker> {
        let index = self.vacant.last().copied().unwrap_or(self.polled.len());
        let number = self.next_number;
        if let Some(mut spare) = self.spare_waker.take() {
            // The last number is used again if its future is gone. No other waker has it.
            if spare.index == index && spare.number + 1 == number {
                return spare;
            }
            if let Some(waker) = Arc::get_mut(&mut spare) {
                (waker.index, waker.number) = (index, number);
                self.next_number += 1;
                return spare;
            }
        }
        self.next_number += 1;
        Arc::new(FutureWaker {
            woken: Arc::clone(&self.woken),
            index,
            number,
            queued: AtomicBool::new(false),
        })
    }

    /// Stores a future that is not ready at the index of its waker.
    fn put_back(&mut self, place: Place<F>, waker: &FutureWaker) {
        let number = waker.number;
        let polled = Some(Polled { number, place });
        // The index was vacant before the poll, and next in line.
        match self.vacant.pop() {
            Some(index) => self.polled[index] = polled,
            None => self.polled.push(polled),
        }
    }

    /// Keeps the waker of a future that is gone for the next one, or ensures that it wakes no task.
    fn retire(&mut self, waker: Arc<FutureWaker>) {
        // One look: a waker that is kept must not be `queued`. (Without another reference, none can
        // be made, so it is in no list either.)
        if Arc::strong_count(&waker) == 1 {
            self.spare_waker = Some(waker);
        } else {
            // Ordering: it guards no data. A call that finds it set has nothing to tell.
            waker.queued.store(true, Ordering::Relaxed);
        }
    }

    /// Keeps the waker for the next future, if nothing else refers to it.
    fn keep_if_unused(&mut self, waker: Arc<FutureWaker>) {
        // Without another reference, none can be made.
        if Arc::strong_count(&waker) == 1 {
            self.spare_waker = Some(waker);
        }
    }
}

impl<F: Future> FutureSet<F> {
    /// Returns the output of the next future that is ready, or `None` if the set is empty.
    ///
    /// A future whose poll panics is dropped, and leaves the set.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let len = self.len();
        if len == 0 {
            return Poll::Ready(None);
        }
        // Counts the polls, and the futures that were woken in their poll.
        let (mut polls, mut woken) = (0, 0);
        loop {
            if self.queue.is_empty() {
                self.take_woken(Some(context.waker()));
                if self.queue.is_empty() {
                    return Poll::Pending;
                }
            }
            // Lets other tasks run. A future that wakes itself asks for that, and futures that
            // other threads wake could keep this loop running forever.
            if polls >= len || woken >= 2 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some((mut place, waker)) = self.pop() else {
                continue;
            };
            polls += 1;
            // Invariant: the future is in no list now, so it is dropped if this panics.
            let future = place.as_mut().as_pin_mut();
            let future = future.expect("a place in the set has a future");
            match future.poll(&mut Context::from_waker(&waker_ref(&waker))) {
                Poll::Ready(output) => {
                    place.set(None);
                    self.spare_place = Some(place);
                    self.retire(waker);
                    return Poll::Ready(Some(output));
                }
                Poll::Pending => {
                    // Ordering: it only counts.
                    woken += usize::from(waker.queued.load(Ordering::Relaxed));
                    self.put_back(place, &waker);
                    self.keep_if_unused(waker);
                }
            }
        }
    }
}

impl<F> Drop for FutureSet<F> {
    fn drop(&mut self) {
        // The futures may live on, and keep their wakers.
        let mut state = self.woken.state.lock();
        state.closed = true;
        let list = mem::take(&mut state.list);
        let task = state.task.take();
        drop(state);
        drop(list);
        drop_waker(task);
    }
}

impl ArcWake for FutureWaker {
    fn wake_by_ref(this: &Arc<Self>) {
        // Ordering: Release pairs with the Acquire of the reset.
        if this.queued.swap(true, Ordering::Release) {
            return;
        }
        let mut state = this.woken.state.lock();
        if state.closed {
            return;
        }
        state.list.push(Arc::clone(this));
        this.woken.any.store(true, Ordering::Relaxed);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::poll_fn;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    /// Counts its calls.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// A future that is ready once it is told so, and what the test keeps of it.
    #[derive(Clone)]
    struct Signal(Rc<SignalState>);

    #[derive(Default)]
    struct SignalState {
        ready: Cell<bool>,
        polls: Cell<u32>,
        waker: RefCell<Option<Waker>>,
    }

    impl Signal {
        fn new() -> (Self, Signalled) {
            let state = Rc::<SignalState>::default();
            (Self(Rc::clone(&state)), Signalled(state))
        }

        fn give(&self) {
            self.0.ready.set(true);
            self.wake();
        }

        /// Wakes the future, and keeps the waker.
        fn wake(&self) {
            self.waker().wake();
        }

        fn waker(&self) -> Waker {
            self.0.waker.borrow().clone().expect("it was polled")
        }

        fn polls(&self) -> u32 {
            self.0.polls.get()
        }
    }

    struct Signalled(Rc<SignalState>);

    impl Future for Signalled {
        type Output = ();

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            self.0.polls.set(self.0.polls.get() + 1);
            if self.0.ready.get() {
                return Poll::Ready(());
            }
            self.0.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        }
    }

    type Boxed = Pin<Box<dyn Future<Output = u32>>>;

    fn numbered(number: u32, future: impl Future + 'static) -> Boxed {
        Box::pin(async move {
            future.await;
            number
        })
    }

    fn poll<F: Future>(set: &mut FutureSet<F>) -> Poll<Option<F::Output>> {
        set.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn set_of<F>(futures: impl IntoIterator<Item = F>) -> FutureSet<F> {
        let mut set = FutureSet::new();
        futures.into_iter().for_each(|future| set.push(future));
        set
    }

    /// Takes all outputs that are ready.
    fn take_ready<F: Future>(set: &mut FutureSet<F>) -> Vec<F::Output> {
        let mut outputs = Vec::new();
        while let Poll::Ready(Some(output)) = poll(set) {
            outputs.push(output);
        }
        outputs
    }

    #[test]
    fn a_ready_future_leaves_its_place_and_its_waker_to_the_next() {
        let seen = Rc::new(Cell::new((0, 0)));
        let future = |_| {
            let (seen, local) = (Rc::clone(&seen), [0_u8; 64]);
            async move {
                let waker = poll_fn(|context| Poll::Ready(context.waker().data().addr())).await;
                seen.set((waker, std::ptr::from_ref(&local).addr()));
            }
        };
        let mut set = set_of((0..3).map(future));
        let mut last = None;
        while poll(&mut set) == Poll::Ready(Some(())) {
            let (waker_seen, local_seen) = seen.get();
            let waker = set.spare_waker.as_ref().expect("the waker is kept");
            assert_eq!(Arc::as_ptr(waker).addr(), waker_seen);
            let place = &**set.spare_place.as_ref().expect("the place is kept");
            let start = std::ptr::from_ref(place).addr();
            assert!((start..start + size_of_val(place)).contains(&local_seen));
            assert_eq!(*last.get_or_insert(seen.get()), seen.get());
        }
        assert!(set.polled.is_empty());
    }

    #[test]
    fn a_waker_that_is_kept_wakes_its_own_future_alone() {
        let (signals, futures): (Vec<_>, Vec<_>) = (0..3).map(|_| Signal::new()).unzip();
        let mut set = set_of(futures);
        assert!(poll(&mut set).is_pending());
        signals[1].give();
        assert_eq!(poll(&mut set), Poll::Ready(Some(())));
        assert!(poll(&mut set).is_pending());
        assert!(signals.iter().map(Signal::polls).eq([1, 2, 1]));
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn a_waker_that_is_used_again_wakes_the_new_future() {
        let (first, future) = Signal::new();
        let mut set = set_of([numbered(0, future), numbered(1, std::future::ready(()))]);
        assert_eq!(poll(&mut set), Poll::Ready(Some(1)));
        assert!(set.spare_waker.is_some());
        first.give();
        let (second, future) = Signal::new();
        set.push(numbered(2, future));
        assert_eq!(poll(&mut set), Poll::Ready(Some(0)));
        assert!(poll(&mut set).is_pending());
        second.give();
        assert_eq!(poll(&mut set), Poll::Ready(Some(2)));
    }

    #[test]
    fn outputs_come_in_the_order_of_pushes_and_wake_ups() {
        let (signals, futures): (Vec<_>, Vec<_>) = (0..4).map(|_| Signal::new()).unzip();
        let numbers = 0..;
        let futures = numbers.zip(futures).map(|(n, future)| numbered(n, future));
        let mut set = set_of(futures);
        assert!(poll(&mut set).is_pending());
        signals[2].give();
        set.push(numbered(10, std::future::ready(())));
        signals[0].give();
        set.push(numbered(11, std::future::ready(())));
        signals[3].give();
        signals[1].give();
        assert_eq!(take_ready(&mut set), [2, 10, 0, 11, 3, 1]);
    }

    #[test]
    fn a_future_that_is_woken_twice_is_polled_once() {
        let (signal, future) = Signal::new();
        let mut set = set_of([future]);
        let (count, task) = count();
        let mut context = Context::from_waker(&task);
        assert!(set.poll_next(&mut context).is_pending());
        for polls in 1..4 {
            assert_eq!(signal.polls(), polls);
            signal.wake();
            signal.wake();
            assert_eq!(count.get(), polls as usize, "the task is woken once");
            assert!(set.poll_next(&mut context).is_pending());
            assert_eq!(count.get(), polls as usize, "there is nothing left to poll");
        }
    }

    fn count() -> (Arc<Count>, Waker) {
        let count = Arc::<Count>::default();
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn the_waker_of_a_future_that_is_gone_polls_none_in_its_place_and_wakes_no_task() {
        let (old, future) = Signal::new();
        let mut set = set_of([future]);
        assert!(poll(&mut set).is_pending());
        old.give();
        assert!(poll(&mut set).is_ready());
        let (new, future) = Signal::new();
        set.push(future);
        let (count, task) = count();
        assert!(set.poll_next(&mut Context::from_waker(&task)).is_pending());
        old.wake();
        assert_eq!(count.get(), 0);
        assert!(poll(&mut set).is_pending());
        assert_eq!(new.polls(), 1);
        new.give();
        assert!(poll(&mut set).is_ready());
    }

    #[test]
    fn the_last_waker_of_the_task_is_woken_and_a_replaced_one_is_dropped() {
        let (signal, future) = Signal::new();
        let mut set = set_of([future]);
        let ((first, first_waker), (last, last_waker)) = (count(), count());
        for waker in [first_waker, last_waker] {
            let mut context = Context::from_waker(&waker);
            assert!(set.poll_next(&mut context).is_pending());
            assert!(set.poll_next(&mut context).is_pending());
        }
        assert_eq!(Arc::strong_count(&first), 1);
        signal.wake();
        assert_eq!((first.get(), last.get()), (0, 1));
        assert_eq!(Arc::strong_count(&last), 1);
    }

    #[test]
    fn a_set_that_is_gone_keeps_nothing_and_is_not_woken() {
        for into_futures in [false, true] {
            let (signal, future) = Signal::new();
            let mut set = set_of([future]);
            let (count, task) = count();
            assert!(set.poll_next(&mut Context::from_waker(&task)).is_pending());
            drop(task);
            let woken = Arc::downgrade(&set.woken);
            let waker = signal.waker();
            let kept = into_futures.then(|| set.into_futures());
            assert_eq!(Arc::strong_count(&count), 1);
            signal.wake();
            assert_eq!(count.get(), 0);
            drop((kept, signal, waker));
            assert!(woken.upgrade().is_none(), "the list keeps itself alive");
        }
    }

    #[test]
    fn futures_that_wake_themselves_let_other_tasks_run() {
        // Nothing wakes the pending futures, so only the busy ones are polled again.
        let busy = || {
            poll_fn(|context| {
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            })
        };
        for (busy_ones, most) in [(1, 1), (2, 2), (10, 2)] {
            let polls = Rc::new(Cell::new(0));
            let counted = |_| {
                let (polls, mut busy) = (Rc::clone(&polls), busy());
                poll_fn(move |context| {
                    polls.set(polls.get() + 1);
                    Pin::new(&mut busy).poll(context)
                })
            };
            let mut set = set_of((0..busy_ones).map(counted));
            for round in 1..5 {
                let (count, task) = count();
                assert!(set.poll_next(&mut Context::from_waker(&task)).is_pending());
                assert_eq!(count.get(), 1, "the set wants to go on");
                assert_eq!(polls.get(), round * most);
            }
        }
    }

    #[test]
    fn a_future_whose_poll_panics_is_dropped_at_once() {
        let kept = Rc::new(());
        let future = |panics: bool| {
            let kept = Rc::clone(&kept);
            poll_fn(move |_| {
                let _kept = &kept;
                assert!(!panics, "expected");
                Poll::Ready(())
            })
        };
        let mut set = set_of([true, false].map(future));
        assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut set))).is_err());
        assert_eq!((Rc::strong_count(&kept), set.len()), (2, 1));
        assert_eq!(take_ready(&mut set).len(), 1);
        assert_eq!((Rc::strong_count(&kept), set.len()), (1, 0));
    }

    #[test]
    fn futures_are_listed_in_insertion_order_even_if_places_were_used_before() {
        let (signals, futures): (Vec<_>, Vec<_>) = (0..6).map(|_| Signal::new()).unzip();
        let mut futures = futures.into_iter();
        let mut set = set_of(futures.by_ref().take(3));
        assert!(poll(&mut set).is_pending());
        signals[1].give();
        signals[0].give();
        assert_eq!(take_ready(&mut set).len(), 2);
        // These get the vacant places, the last of which is used first.
        set.push(futures.next().unwrap());
        set.push(futures.next().unwrap());
        assert!(poll(&mut set).is_pending());
        // This one is never polled.
        set.push(futures.next().unwrap());
        let order = |futures: Vec<&Signalled>| {
            let number = |future: &Signalled| {
                let mut signals = signals.iter();
                signals.position(|signal| Rc::ptr_eq(&signal.0, &future.0))
            };
            let numbers = futures.into_iter().filter_map(number);
            numbers.collect::<Vec<_>>()
        };
        assert_eq!(order(set.in_order().collect()), [2, 3, 4, 5]);
        assert_eq!(order(set.in_order().rev().collect()), [5, 4, 3, 2]);
        let futures = set.into_futures();
        assert_eq!(order(futures.iter().collect()), [2, 3, 4, 5]);
    }
}

#[cfg(all(test, loom))]
mod model {
    use std::future::poll_fn;
    use std::sync::Mutex;

    use loom::thread;

    use super::*;
    use crate::park::block_on::block_on;
    use crate::util::sync::AtomicUsize;

    /// Wakes one future from two threads, or two from a thread each. A future is ready if it sees
    /// what its threads did before.
    fn check_two_wakes(futures: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder.check(move || {
            let wakers = Arc::<Mutex<Vec<Waker>>>::default();
            let stores = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            let mut set = FutureSet::new();
            for number in 0..futures {
                let (wakers, stores) = (Arc::clone(&wakers), Arc::clone(&stores));
                set.push(poll_fn(move |context| {
                    let mut wakers = wakers.lock().expect("no thread panics");
                    if wakers.len() <= number {
                        wakers.push(context.waker().clone());
                        return Poll::Pending;
                    }
                    // Ordering: only the wake-up orders them.
                    let is_stored = |store: &AtomicUsize| store.load(Ordering::Relaxed) > 0;
                    let ready = match futures {
                        1 => stores.iter().all(is_stored),
                        _ => is_stored(&stores[number]),
                    };
                    match ready {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                }));
            }
            assert!(
                set.poll_next(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
            let threads = [0, 1].map(|number| {
                let waker = wakers.lock().expect("no thread panics")[number % futures].clone();
                let stores = Arc::clone(&stores);
                thread::spawn(move || {
                    stores[number].store(1, Ordering::Relaxed);
                    waker.wake();
                })
            });
            for _ in 0..futures {
                assert!(block_on(poll_fn(|context| set.poll_next(context))).is_some());
            }
            for thread in threads {
                thread.join().expect("it does not panic");
            }
        });
    }

    #[test]
    fn two_wakes_of_one_future_and_a_poll_sees_both() {
        check_two_wakes(1);
    }

    #[test]
    fn a_wake_of_each_of_two_futures_both_are_polled() {
        check_two_wakes(2);
    }

    #[test]
    fn a_wake_and_the_drop_of_the_set_leave_nothing_behind() {
        loom::model(|| {
            let waker = Arc::<Mutex<Option<Waker>>>::default();
            let kept = Arc::clone(&waker);
            let mut set = FutureSet::new();
            set.push(poll_fn(move |context| {
                *kept.lock().expect("no thread panics") = Some(context.waker().clone());
                Poll::<()>::Pending
            }));
            let mut context = Context::from_waker(Waker::noop());
            assert!(set.poll_next(&mut context).is_pending());
            let woken = Arc::downgrade(&set.woken);
            let waker = waker.lock().expect("no thread panics").take();
            let waker = waker.expect("the future was polled");
            let thread = thread::spawn(move || waker.wake());
            drop(set);
            thread.join().expect("it does not panic");
            assert!(woken.upgrade().is_none(), "the list keeps itself alive");
        });
    }
}
