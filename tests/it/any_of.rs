//! Guarantee 6: waits in a worker for any of several jobs of its own pool. While all workers of the
//! pool are blocked and no more may start, the pool finds out which of the queued jobs a blocked
//! worker waits for. That worker runs the job, the one submitted first.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Gate, LONG, poll_once, within};
use futurepool::{JoinHandle, ReturnWhen, ThreadPool, as_completed, block_on, wait};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::future::{join_all, select_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};

type Pool = Arc<ThreadPool>;

fn pool_of(workers: usize) -> Pool {
    Arc::new(ThreadPool::new(workers))
}

/// Runs `f` in a job of a pool with one worker, and returns its result.
#[track_caller]
fn in_the_only_worker<R: Send + 'static>(
    what: &str,
    f: impl FnOnce(&Pool) -> R + Send + 'static,
) -> R {
    within(LONG, what, move || {
        let pool = pool_of(1);
        let inner = Arc::clone(&pool);
        pool.submit(move || f(&inner)).join().unwrap()
    })
}

/// Jobs that report when they run.
#[derive(Clone, Default)]
struct Order(Arc<Mutex<Vec<usize>>>);

impl Order {
    fn submit(&self, pool: &ThreadPool, n: usize) -> JoinHandle<usize> {
        let order = self.clone();
        pool.submit(move || {
            order.0.lock().unwrap().push(n);
            n
        })
    }

    /// Submits jobs 0, 1, … and returns their handles, the last first.
    fn submit_and_reverse(&self, pool: &ThreadPool, n: usize) -> Vec<JoinHandle<usize>> {
        let mut handles: Vec<_> = (0..n).map(|n| self.submit(pool, n)).collect();
        handles.reverse();
        handles
    }

    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Jobs of `pool` that tasks outside of it await.
struct AwaitedOutside(thread::JoinHandle<usize>);

impl AwaitedOutside {
    /// Returns when the jobs are queued and a thread awaits them.
    fn new(pool: &ThreadPool, jobs: usize, order: &Order) -> Self {
        let handles = (0..jobs).map(|n| order.submit(pool, 1_000_000 + n));
        let mut set: FuturesUnordered<_> = handles.collect();
        let (tell, told) = channel();
        let thread = thread::spawn(move || {
            assert_eq!(poll_once(&mut set.next()).is_pending(), jobs > 0);
            tell.send(()).unwrap();
            futures::executor::block_on(set.map(Result::unwrap).count())
        });
        told.recv_timeout(LONG).unwrap();
        Self(thread)
    }

    fn join(self) -> usize {
        self.0.join().unwrap()
    }
}

#[test]
fn guarantee_6_the_oldest_job_runs_first_although_it_was_polled_last() {
    type Wait = fn(Vec<JoinHandle<usize>>);
    let waits: [(&str, Wait); 7] = [
        ("as_completed", |handles| {
            as_completed(handles).into_iter().for_each(drop);
        }),
        ("as_completed, async", |handles| {
            block_on(as_completed(handles).for_each(|_| async {}));
        }),
        ("FuturesUnordered", |handles| {
            let set: FuturesUnordered<_> = handles.into_iter().collect();
            block_on(set.for_each(|_| async {}));
        }),
        ("join_all", |handles| drop(block_on(join_all(handles)))),
        ("join_all of many", |mut handles| {
            // Above a certain length it polls only what was woken. Of other pools, and finished.
            let other = ThreadPool::new(1);
            handles.extend((0..100).map(|n| other.submit(move || n)));
            other.shutdown().join();
            drop(block_on(join_all(handles)));
        }),
        ("select_all", |mut handles| {
            while !handles.is_empty() {
                (_, _, handles) = block_on(select_all(handles));
            }
        }),
        ("wait for the first", |mut handles| {
            while !handles.is_empty() {
                handles = wait(handles, ReturnWhen::FirstCompleted).join().not_done;
            }
        }),
    ];
    for (what, wait) in waits {
        in_the_only_worker(what, move |pool| {
            let (order, unrelated) = (Order::default(), Order::default());
            // Submitted before all of them, but no worker waits for it.
            let older = unrelated.submit(pool, 0);
            let handles = order.submit_and_reverse(pool, 6);
            let younger = unrelated.submit(pool, 1);
            wait(handles);
            assert_eq!(order.take(), [0, 1, 2, 3, 4, 5], "{what}");
            assert!(unrelated.take().is_empty(), "{what}");
            assert!(!older.is_finished() && !younger.is_finished());
        });
    }
}

#[test]
fn guarantee_6_a_job_added_to_a_wait_later_runs_before_younger_ones() {
    in_the_only_worker("pushed", |pool| {
        let order = Order::default();
        let mut handles = order.submit_and_reverse(pool, 4);
        let oldest = handles.pop().unwrap();
        let mut all = as_completed(handles);
        assert_eq!(all.wait_next().unwrap().unwrap(), 1);
        all.push(oldest);
        let rest: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(rest, [0, 2, 3]);
        assert_eq!(order.take(), [1, 0, 2, 3]);
    });
}

#[test]
fn guarantee_6_older_jobs_that_are_awaited_outside_cost_no_stall() {
    const QUEUED: usize = 2_000;
    const ROUNDS: usize = 50;
    within(LONG, "a deep queue", || {
        let pool = pool_of(1);
        let (order, outside_order) = (Order::default(), Order::default());
        let gate = Gate::new();
        let (begun, begins) = channel();
        let nested = {
            let (pool, gate, order) = (Arc::clone(&pool), gate.clone(), order.clone());
            let outside_order = outside_order.clone();
            pool.clone().submit(move || {
                begun.send(()).unwrap();
                gate.wait();
                let start = Instant::now();
                for _ in 0..ROUNDS {
                    let handles = order.submit_and_reverse(&pool, 4);
                    assert_eq!(as_completed(handles).into_iter().count(), 4);
                    assert_eq!(order.take(), [0, 1, 2, 3]);
                }
                // Unrelated to what this worker waits for.
                assert!(outside_order.take().is_empty());
                start.elapsed()
            })
        };
        begins.recv_timeout(LONG).unwrap();
        let outside = AwaitedOutside::new(&pool, QUEUED, &outside_order);
        gate.open();
        let elapsed = nested.join().unwrap();
        println!("{ROUNDS} rounds in {elapsed:?}");
        // One stall a round, of 10 ms for each doubling up to the length of the queue, would make
        // 5.5 s; one a job four times that.
        assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
        assert_eq!(outside.join(), QUEUED);
        assert_eq!(outside_order.take().len(), QUEUED);
    });
}

#[test]
fn guarantee_6_a_set_that_was_polled_outside_completes_in_a_worker() {
    type Set = Pin<Box<dyn Stream<Item = usize> + Send>>;
    type Make = fn(Vec<JoinHandle<usize>>) -> Set;
    let sets: [(&str, Make); 3] = [
        ("FuturesUnordered", |handles| {
            let set: FuturesUnordered<_> = handles.into_iter().collect();
            Box::pin(set.map(Result::unwrap))
        }),
        ("as_completed", |handles| {
            Box::pin(as_completed(handles).map(Result::unwrap))
        }),
        ("join_all", |handles| {
            let all = join_all(handles).map(futures::stream::iter);
            Box::pin(all.flatten_stream().map(Result::unwrap))
        }),
    ];
    for awaited_outside in [0, 200] {
        for (what, make) in sets {
            within(Duration::from_secs(10), what, move || {
                let pool = pool_of(1);
                let (order, outside_order) = (Order::default(), Order::default());
                let (give, take) = channel::<Set>();
                let moved_in = pool.submit(move || {
                    let set = take.recv_timeout(LONG).unwrap();
                    block_on(set.count())
                });
                let outside = AwaitedOutside::new(&pool, awaited_outside, &outside_order);
                // Above a length of 30, `join_all` polls only what was woken.
                let mut set = make(order.submit_and_reverse(&pool, 40));
                assert!(poll_once(&mut set.next()).is_pending());
                give.send(set).unwrap();
                assert_eq!(moved_in.join().unwrap(), 40);
                assert_eq!(order.take().len(), 40);
                assert_eq!(outside.join(), awaited_outside);
            });
        }
    }
}

#[test]
fn guarantee_6_plain_combinators_in_block_on_end_on_one_worker() {
    in_the_only_worker("join!", |pool| {
        let order = Order::default();
        let [a, b, c] = [0, 1, 2].map(|n| order.submit(pool, n));
        let sums = block_on(async {
            let (c, b, a) = futures::join!(c, b, a);
            (c.unwrap(), b.unwrap(), a.unwrap())
        });
        assert_eq!(sums, (2, 1, 0));
        assert_eq!(order.take(), [0, 1, 2]);
    });
    in_the_only_worker("try_join!", |pool| {
        let order = Order::default();
        let [a, b] = [0, 1].map(|n| order.submit(pool, n));
        let sums = block_on(async { futures::try_join!(b, a) });
        assert_eq!(sums.unwrap(), (1, 0));
        assert_eq!(order.take(), [0, 1]);
    });
    in_the_only_worker("select!", |pool| {
        let order = Order::default();
        let [mut a, mut b] = [0, 1].map(|n| order.submit(pool, n));
        let mut seen = Vec::new();
        block_on(async {
            loop {
                futures::select! {
                    result = b => seen.push(result.unwrap()),
                    result = a => seen.push(result.unwrap()),
                    complete => break,
                }
            }
        });
        assert_eq!(seen, [0, 1]);
        assert_eq!(order.take(), [0, 1]);
    });
    in_the_only_worker("select! with an event outside", |pool| {
        // The event comes only after the job has run.
        let (tell, mut told) = futures::channel::oneshot::channel();
        let mut job = pool.submit(move || {
            let teller = thread::spawn(move || tell.send(7).unwrap());
            teller.join().unwrap();
        });
        let told = block_on(async {
            let mut done = false;
            loop {
                futures::select! {
                    result = job => { result.unwrap(); done = true; }
                    told = told => break (done, told.unwrap()),
                }
            }
        });
        assert_eq!(told.1, 7);
    });
    in_the_only_worker("a block_on inside the poll of another", |pool| {
        let order = Order::default();
        let [mut outer, inner] = [0, 1].map(|n| order.submit(pool, n));
        let mut inner = Some(inner);
        let result = block_on(std::future::poll_fn(|context| {
            if let Poll::Ready(result) = Pin::new(&mut outer).poll(context) {
                return Poll::Ready(result.unwrap());
            }
            // The inner wait runs only what it polls itself, although the other job is older.
            if let Some(inner) = inner.take() {
                assert_eq!(block_on(inner).unwrap(), 1);
                assert_eq!(order.take(), [1]);
            }
            Poll::Pending
        }));
        assert_eq!((result, order.take()), (0, vec![0]));
    });
}

#[test]
fn guarantee_6_two_workers_that_wait_for_any_of_each_others_jobs_end() {
    const ROUNDS: usize = 500;
    type Wait = fn(Vec<JoinHandle<usize>>) -> usize;
    let waits: [(&str, Wait); 4] = [
        ("as_completed", |handles| {
            as_completed(handles).into_iter().map(Result::unwrap).sum()
        }),
        ("block_on", |handles| {
            handles.into_iter().map(block_on).map(Result::unwrap).sum()
        }),
        ("join_all", |handles| {
            let results = block_on(join_all(handles));
            results.into_iter().map(Result::unwrap).sum()
        }),
        ("wait for the first", |mut handles| {
            let mut sum = 0;
            while !handles.is_empty() {
                let waited = wait(handles, ReturnWhen::FirstCompleted).join();
                sum += waited
                    .done
                    .into_iter()
                    .map(|h| h.join().unwrap())
                    .sum::<usize>();
                handles = waited.not_done;
            }
            sum
        }),
    ];
    /// Each round: submits jobs for the other one, and waits for those of the other one.
    fn rounds(
        pool: &ThreadPool,
        wait: Wait,
        give: &UnboundedSender<Vec<JoinHandle<usize>>>,
        take: &mut UnboundedReceiver<Vec<JoinHandle<usize>>>,
    ) {
        for round in 0..ROUNDS {
            let jobs = 1 + round % 3;
            let handles = (0..jobs).map(|n| pool.submit(move || n + 1));
            give.unbounded_send(handles.collect()).unwrap();
            // A worker in this wait counts as blocked, too.
            let sum = wait(block_on(take.next()).unwrap());
            assert_eq!(sum, jobs * (jobs + 1) / 2);
        }
    }
    for (what, wait) in waits {
        within(LONG, what, move || {
            let pool = pool_of(2);
            let (to_first, of_first) = unbounded();
            let (to_second, of_second) = unbounded();
            let start = Instant::now();
            let both = [(to_second, of_first), (to_first, of_second)].map(|(give, mut take)| {
                let inner = Arc::clone(&pool);
                pool.submit(move || rounds(&inner, wait, &give, &mut take))
            });
            for job in both {
                job.join().unwrap();
            }
            let elapsed = start.elapsed();
            println!("{what}: {ROUNDS} rounds in {elapsed:?}");
            // A stall of 10 ms in each round would make 5 s.
            assert!(elapsed < Duration::from_millis(2_500), "{elapsed:?}");
            assert_eq!(pool.metrics().workers, 2);
        });
    }
}
