//! The futures that a core consists of: one for each job, and one for each thing that it does all
//! the time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use futures::stream::{FuturesUnordered, StreamExt};

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Adds futures to a [`Nursery`].
#[derive(Clone, Default)]
pub(super) struct Spawner {
    queue: Rc<RefCell<Queue>>,
}

#[derive(Default)]
struct Queue {
    futures: VecDeque<LocalFuture>,
    /// What polls the nursery.
    waker: Option<Waker>,
    /// Futures that go on when the nursery is polled again.
    paused: Vec<Waker>,
    /// The nursery is gone.
    closed: bool,
}

impl Spawner {
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let mut queue = self.queue.borrow_mut();
        if queue.closed {
            return;
        }
        queue.futures.push_back(Box::pin(future));
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until the nursery is polled again, so that what polls it can drop it before.
    pub(super) async fn pause(&self) {
        let mut paused = false;
        poll_fn(|context| {
            if paused {
                return Poll::Ready(());
            }
            paused = true;
            let waker = context.waker().clone();
            self.queue.borrow_mut().paused.push(waker);
            Poll::Pending
        })
        .await;
    }
}

/// Polls futures, each only when it was woken. Dropping it drops them all.
#[derive(Default)]
pub(super) struct Nursery {
    running: FuturesUnordered<LocalFuture>,
    spawner: Spawner,
}

impl Nursery {
    pub(super) fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Polls the futures for ever.
    pub(super) async fn run(&mut self) {
        poll_fn(|context| {
            let paused = mem::take(&mut self.spawner.queue.borrow_mut().paused);
            paused.into_iter().for_each(Waker::wake);
            loop {
                let waker = context.waker().clone();
                let (added, replaced) = {
                    let mut queue = self.spawner.queue.borrow_mut();
                    (mem::take(&mut queue.futures), queue.waker.replace(waker))
                };
                drop(replaced);
                let any = !added.is_empty();
                self.running.extend(added);
                match self.running.poll_next_unpin(context) {
                    Poll::Ready(Some(())) => {}
                    Poll::Ready(None) | Poll::Pending if any => {}
                    Poll::Ready(None) | Poll::Pending => {
                        // What was polled may have added more.
                        let queue = self.spawner.queue.borrow();
                        let is_paused = !queue.paused.is_empty();
                        let is_empty = queue.futures.is_empty();
                        drop(queue);
                        if is_empty {
                            if is_paused {
                                context.waker().wake_by_ref();
                            }
                            return Poll::Pending;
                        }
                    }
                }
            }
        })
        .await
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // The futures hold spawners, so what is not taken up yet would keep itself alive.
        let mut queue = self.spawner.queue.borrow_mut();
        queue.closed = true;
        let futures = mem::take(&mut queue.futures);
        let (waker, paused) = (queue.waker.take(), mem::take(&mut queue.paused));
        drop(queue);
        drop((futures, waker, paused));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn futures_that_futures_add_run_too() {
        let mut nursery = Nursery::default();
        let (spawner, ran) = (nursery.spawner(), Rc::new(Cell::new(0)));
        let (inner, count) = (spawner.clone(), Rc::clone(&ran));
        spawner.spawn(async move {
            count.set(1);
            inner.spawn(async move { count.set(2) });
        });
        assert_eq!(nursery.run().now_or_never(), None);
        assert_eq!(ran.get(), 2);
    }

    #[test]
    fn a_paused_future_goes_on_at_the_next_poll() {
        let mut nursery = Nursery::default();
        let (spawner, ran) = (nursery.spawner(), Rc::new(Cell::new(false)));
        let (inner, flag) = (spawner.clone(), Rc::clone(&ran));
        spawner.spawn(async move {
            inner.pause().await;
            flag.set(true);
        });
        assert_eq!(nursery.run().now_or_never(), None);
        assert!(!ran.get());
        assert_eq!(nursery.run().now_or_never(), None);
        assert!(ran.get());
    }

    #[test]
    fn a_dropped_nursery_drops_what_was_added() {
        let nursery = Nursery::default();
        let (spawner, alive) = (nursery.spawner(), Rc::new(()));
        let (inner, held) = (spawner.clone(), Rc::clone(&alive));
        spawner.spawn(async move { drop((inner, held)) });
        drop(nursery);
        assert_eq!(Rc::strong_count(&alive), 1);
        let held = Rc::clone(&alive);
        spawner.spawn(async move { drop(held) });
        assert_eq!(Rc::strong_count(&alive), 1);
    }
}
