//! Guarantee 6: waits in a worker for any of several jobs of its own pool. While all workers of the
//! pool are blocked and no more may start, the pool finds out which of the queued jobs a blocked
//! worker waits for. That worker runs the job, the one submitted first.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    CountingWaker, Gate, LONG, ThreadState, eventually, poll_once, poll_with, within,
};
use futurepool::{JoinHandle, ReturnWhen, ThreadPool, as_completed, block_on, wait};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::channel::oneshot;
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
        let (tell, mut told) = oneshot::channel();
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

// Stalls that nothing answers at first

/// A queued job that a task outside of its pool awaits. The pool wakes that task in each probe of
/// its queue, which is how a test sees the probe.
struct Witness {
    handle: JoinHandle<()>,
    counter: Arc<CountingWaker>,
    waker: Waker,
}

impl Witness {
    fn new(pool: &ThreadPool) -> Self {
        let handle = pool.submit(|| ());
        let (counter, waker) = CountingWaker::new();
        Self {
            handle,
            counter,
            waker,
        }
    }

    /// Returns when the queue was probed since this call.
    fn see_a_probe(&mut self) {
        let before = self.counter.count();
        assert!(poll_with(&mut self.handle, &self.waker).is_pending());
        eventually("a probe", || self.counter.count() > before);
    }
}

/// The waker of a task outside that awaits a queued job. Between each two probes it submits one more
/// job: as a thread that keeps submitting does, but at any speed of the machine.
struct Submits {
    pool: Weak<ThreadPool>,
    awaited: Mutex<Option<JoinHandle<()>>>,
}

impl Wake for Submits {
    fn wake(self: Arc<Self>) {
        if let Some(pool) = self.pool.upgrade() {
            drop(pool.submit(|| ()));
        }
        let mut awaited = self.awaited.lock().unwrap();
        let waker = Arc::clone(&self).into();
        awaited.take_if(|handle| poll_with(handle, &waker).is_ready());
    }
}

#[test]
fn guarantee_6_a_set_that_was_polled_outside_completes_although_jobs_keep_coming() {
    within(LONG, "steady submissions", || {
        let pool = pool_of(1);
        let (give, take) = channel::<FuturesUnordered<JoinHandle<usize>>>();
        let mut moved_in = pool.submit(move || {
            let set = take.recv_timeout(LONG).unwrap();
            block_on(set.map(Result::unwrap).count())
        });
        // It is in front of the set's jobs: one probe does not reach them.
        let awaited = Mutex::new(Some(pool.submit(|| ())));
        let outside = Arc::new(Submits {
            pool: Arc::downgrade(&pool),
            awaited,
        });
        Arc::clone(&outside).wake();
        let order = Order::default();
        let mut set: FuturesUnordered<_> = (0..3).map(|n| order.submit(&pool, n)).collect();
        assert!(poll_once(&mut set.next()).is_pending());
        give.send(set).unwrap();
        // The second probe is enough, 10 ms after the first.
        assert_eq!(moved_in.join_timeout(LONG / 6).unwrap(), 3);
        assert_eq!(order.take().len(), 3);
        eventually("the front one ran", || {
            outside.awaited.lock().unwrap().is_none()
        });
    });
}

#[test]
fn guarantee_6_after_an_unanswered_stall_a_job_is_left_to_the_worker_that_is_awake() {
    within(LONG, "one is awake", || {
        let pool = pool_of(2);
        let (wake, woken) = oneshot::channel();
        let (give, take) = oneshot::channel::<JoinHandle<_>>();
        let gate = Gate::new();
        let (tell_awake, told_awake) = channel();
        let awake = {
            let gate = gate.clone();
            pool.submit(move || {
                block_on(woken).unwrap();
                tell_awake.send(()).unwrap();
                // As far as the pool knows, this worker is busy.
                gate.wait();
            })
        };
        let (tell_polled, told_polled) = channel();
        let waits = pool.submit(move || {
            let mut job = block_on(take).unwrap();
            let mut polls = 0;
            let ran_on = block_on(std::future::poll_fn(|context| {
                polls += 1;
                if polls == 2 {
                    tell_polled.send(ThreadState::of_this_thread()).unwrap();
                }
                // Once more, so that what the first poll leads to has happened by then.
                if polls == 1 {
                    context.waker().wake_by_ref();
                }
                Pin::new(&mut job).poll(context)
            }));
            (ran_on.unwrap(), thread::current().id())
        });
        let job = pool.submit(|| thread::current().id());
        Witness::new(&pool).see_a_probe();
        // Nothing answers the probe. Then one worker wakes up, and the other one gets the handle.
        wake.send(()).unwrap();
        told_awake.recv_timeout(LONG).unwrap();
        give.send(job).unwrap();
        if let Ok(waiting) = told_polled.recv_timeout(LONG) {
            eventually("it sleeps", || waiting.sleeps() || waits.is_finished());
        }
        assert!(!waits.is_finished(), "it ran the job itself");
        gate.open();
        awake.join().unwrap();
        let (ran_on, waited_on) = waits.join().unwrap();
        assert_ne!(ran_on, waited_on);
    });
}

#[test]
#[allow(clippy::await_holding_lock, reason = "the subject of this test")]
fn guarantee_6_after_an_unanswered_stall_a_job_that_is_no_longer_waited_for_is_not_run() {
    within(LONG, "no longer waited for", || {
        let pool = pool_of(1);
        let inner = Arc::clone(&pool);
        let (end_first, first) = oneshot::channel();
        let (end_second, second) = oneshot::channel();
        let (tell_polled, told_polled) = channel();
        let waits = pool.submit(move || {
            let lock = Arc::new(Mutex::new(()));
            let theirs = Arc::clone(&lock);
            // A job that takes the lock would deadlock on the stack of the thread that holds it.
            let mut job = inner.submit(move || theirs.try_lock().is_ok());
            block_on(first).unwrap();
            block_on(async {
                assert!(futures::poll!(&mut job).is_pending());
                let held = lock.lock().unwrap();
                tell_polled.send(()).unwrap();
                // From here on this future waits for something else.
                second.await.unwrap();
                drop(held);
            });
            job.join().unwrap()
        });
        let mut witness = Witness::new(&pool);
        witness.see_a_probe();
        end_first.send(()).unwrap();
        told_polled.recv_timeout(LONG).unwrap();
        // The job is probed first, as the older one.
        witness.see_a_probe();
        end_second.send(()).unwrap();
        assert!(waits.join().unwrap(), "it ran while the lock was held");
    });
}

#[test]
fn guarantee_6_a_handle_that_arrives_after_a_long_stall_is_helped_soon() {
    within(LONG, "a long stall", || {
        let pool = pool_of(1);
        let (give, take) = oneshot::channel::<JoinHandle<()>>();
        let waits = pool.submit(move || {
            let job = block_on(take).unwrap();
            let start = Instant::now();
            block_on(job).unwrap();
            start.elapsed()
        });
        let job = pool.submit(|| ());
        // The longer a stall lasts, the longer are the pauses between two probes. After one of
        // 640 ms, the next one would take a second.
        let mut witness = Witness::new(&pool);
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(500) {
            last = Instant::now();
            witness.see_a_probe();
        }
        give.send(job).unwrap();
        let took = waits.join().unwrap();
        println!("helped after {took:?}");
        assert!(took < Duration::from_millis(500), "{took:?}");
    });
}

#[test]
fn guarantee_6_a_slow_waker_outside_does_not_delay_help() {
    /// Takes its time, once.
    struct Slow(AtomicBool);
    impl Wake for Slow {
        fn wake(self: Arc<Self>) {
            // Time is the subject: fifty times as long would be 10 s.
            thread::sleep(Duration::from_millis(200));
            self.0.store(true, SeqCst);
        }
    }
    within(LONG, "a slow waker", || {
        let pool = pool_of(1);
        let (give, take) = oneshot::channel::<FuturesUnordered<JoinHandle<usize>>>();
        let waits = pool.submit(move || {
            let mut arrived = None;
            let count = block_on(async {
                let set = take.await.unwrap();
                arrived = Some(Instant::now());
                set.map(Result::unwrap).count().await
            });
            (count, arrived.unwrap().elapsed())
        });
        let slow = Arc::new(Slow(AtomicBool::new(false)));
        let mut outside = pool.submit(|| ());
        let order = Order::default();
        let mut set: FuturesUnordered<_> = (0..3).map(|n| order.submit(&pool, n)).collect();
        assert!(poll_with(&mut outside, &Arc::clone(&slow).into()).is_pending());
        // Nothing polls these handles in the worker, so only a later probe can tell that it waits
        // for them.
        assert!(poll_once(&mut set.next()).is_pending());
        eventually("the first probe has called the waker", || {
            slow.0.load(SeqCst)
        });
        give.send(set).unwrap();
        let (count, took) = waits.join().unwrap();
        println!("helped after {took:?}");
        assert_eq!(count, 3);
        assert!(took < Duration::from_secs(3), "{took:?}");
        outside.join().unwrap();
    });
}

#[test]
fn guarantee_6_a_probe_outside_is_not_answered_by_a_poll_in_a_worker() {
    within(LONG, "one is awake", || {
        let pool = pool_of(2);
        let (wake, woken) = oneshot::channel();
        let (give, take) = oneshot::channel::<JoinHandle<_>>();
        let gate = Gate::new();
        let (tell_awake, told_awake) = channel();
        let awake = {
            let gate = gate.clone();
            pool.submit(move || {
                block_on(woken).unwrap();
                tell_awake.send(()).unwrap();
                // As far as the pool knows, this worker is busy.
                gate.wait();
            })
        };
        let (tell_polled, told_polled) = channel();
        let waits = pool.submit(move || {
            let mut job = block_on(take).unwrap();
            let mut polls = 0;
            let ran_on = block_on(std::future::poll_fn(|context| {
                polls += 1;
                if polls == 2 {
                    tell_polled.send(ThreadState::of_this_thread()).unwrap();
                }
                // Once more, so that what the first poll leads to has happened by then.
                if polls == 1 {
                    context.waker().wake_by_ref();
                }
                Pin::new(&mut job).poll(context)
            }));
            (ran_on.unwrap(), thread::current().id())
        });
        let mut job = pool.submit(|| thread::current().id());
        let (counter, waker) = CountingWaker::new();
        assert!(poll_with(&mut job, &waker).is_pending());
        eventually("a probe", || counter.count() > 0);
        // Nothing answers the probe. Then one worker wakes up, and the other one gets the handle.
        wake.send(()).unwrap();
        told_awake.recv_timeout(LONG).unwrap();
        give.send(job).unwrap();
        if let Ok(waiting) = told_polled.recv_timeout(LONG) {
            eventually("it sleeps", || waiting.sleeps() || waits.is_finished());
        }
        assert!(!waits.is_finished(), "it ran the job itself");
        gate.open();
        awake.join().unwrap();
        let (ran_on, waited_on) = waits.join().unwrap();
        assert_ne!(ran_on, waited_on);
    });
}

#[test]
#[allow(clippy::await_holding_lock)]
fn guarantee_6_a_job_probed_outside_is_not_run_under_a_lock_in_a_worker() {
    within(LONG, "no longer waited for", || {
        let pool = pool_of(1);
        let (give, take) = oneshot::channel::<JoinHandle<bool>>();
        let (end_second, second) = oneshot::channel();
        let (tell_polled, told_polled) = channel();
        let lock = Arc::new(Mutex::new(()));
        let theirs = Arc::clone(&lock);
        let waits = pool.submit(move || {
            let mut job = block_on(take).unwrap();
            block_on(async {
                assert!(futures::poll!(&mut job).is_pending());
                let held = lock.lock().unwrap();
                tell_polled.send(()).unwrap();
                second.await.unwrap();
                drop(held);
            });
            job.join().unwrap()
        });
        let mut job = pool.submit(move || theirs.try_lock().is_ok());
        let (counter, waker) = CountingWaker::new();
        assert!(poll_with(&mut job, &waker).is_pending());
        eventually("a probe", || counter.count() > 0);
        let mut witness = Witness::new(&pool);
        give.send(job).unwrap();
        told_polled.recv_timeout(LONG).unwrap();
        witness.see_a_probe();
        end_second.send(()).unwrap();
        assert!(waits.join().unwrap(), "it ran while the lock was held");
    });
}

#[test]
fn guarantee_6_a_set_that_was_polled_outside_completes_although_its_wait_is_woken_often() {
    within(LONG, "woken often", || {
        let pool = pool_of(1);
        let inner = Arc::clone(&pool);
        let (tick, mut ticks) = futures::channel::mpsc::unbounded::<()>();
        let (end, ended) = channel::<()>();
        // Time is the subject: more often than a probe waits for an answer.
        let ticker = thread::spawn(move || {
            while ended.recv_timeout(Duration::from_millis(2)).is_err() {
                let _ = tick.unbounded_send(());
            }
        });
        let waits = pool.submit(move || {
            let mut set = as_completed([inner.submit(|| 7)]);
            // No poll of a wait, so the job is no candidate.
            assert!(set.try_wait_next().is_none());
            block_on(async {
                loop {
                    futures::select! {
                        result = set.next().fuse() => break result.unwrap().unwrap(),
                        _ = ticks.next() => {}
                    }
                }
            })
        });
        assert_eq!(waits.join().unwrap(), 7);
        end.send(()).unwrap();
        ticker.join().unwrap();
    });
}

#[test]
fn guarantee_6_a_wait_that_only_looks_first_is_helped_and_does_not_spin() {
    within(LONG, "looks first", || {
        let pool = pool_of(1);
        let inner = Arc::clone(&pool);
        let waits = pool.submit(move || {
            let mut polls = 0;
            let mut handle = inner.submit(|| 7);
            let result = block_on(std::future::poll_fn(|context| {
                polls += 1;
                if let Some(result) = as_completed([&mut handle]).try_wait_next() {
                    return Poll::Ready(result);
                }
                Pin::new(&mut handle).poll(context)
            }));
            (result.unwrap(), polls)
        });
        let (result, polls) = waits.join().unwrap();
        assert_eq!(result, 7);
        assert!(polls < 1_000, "{polls} polls");
    });
}

#[test]
fn guarantee_6_a_due_probe_is_not_made_while_a_worker_is_awake() {
    within(LONG, "one is awake", || {
        let pool = pool_of(3);
        let [(end_a, a), (end_b, b), (end_c, c)] = [(); 3].map(|()| oneshot::channel::<()>());
        let gate = Gate::new();
        let (tell_awake, told_awake) = channel();
        let (tell_waits, told_waits) = channel();
        let inner = Arc::clone(&pool);
        let waits = pool.submit(move || {
            block_on(c).unwrap();
            let handle = inner.submit(|| thread::current().id());
            tell_waits.send(ThreadState::of_this_thread()).unwrap();
            (block_on(handle).unwrap(), thread::current().id())
        });
        let wait = gate.clone();
        let awake = pool.submit(move || {
            block_on(b).unwrap();
            tell_awake.send(()).unwrap();
            // As far as the pool knows, this worker is busy.
            wait.wait();
        });
        let third = pool.submit(move || block_on(a).unwrap());
        // A stall that nothing answers, probed less and less often: up to once a second.
        let mut witness = Witness::new(&pool);
        for _ in 0..6 {
            witness.see_a_probe();
        }
        end_b.send(()).unwrap();
        told_awake.recv_timeout(LONG).unwrap();
        end_c.send(()).unwrap();
        let waiting = told_waits.recv_timeout(LONG).unwrap();
        eventually("it waits", || waiting.sleeps() || waits.is_finished());
        // Time is the subject: by now the next probe of the stall would have been due.
        thread::sleep(Duration::from_millis(1_200));
        assert!(!waits.is_finished(), "it ran the job itself");
        gate.open();
        let (ran_on, waited_on) = waits.join().unwrap();
        assert_ne!(ran_on, waited_on);
        end_a.send(()).unwrap();
        awake.join().unwrap();
        third.join().unwrap();
    });
}
