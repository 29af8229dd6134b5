//! A machine with more runnable threads than processors. A binary of its own, since its tests
//! create that load.

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
mod common;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, within};
use futurepool::{ThreadPool, block_on};

/// Each test has the machine for itself.
static ONE_TEST: Mutex<()> = Mutex::new(());

/// Returns the median of many trips, with a pause before each.
fn usual(mut trip: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..101)
        .map(|_| {
            thread::sleep(Duration::from_millis(1));
            let start = Instant::now();
            trip();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Threads that take all the CPU time that they get, until this is dropped.
struct Neighbours {
    over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Neighbours {
    fn new(n: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let spin = |_| {
            let over = Arc::clone(&over);
            thread::spawn(move || while !over.load(SeqCst) {})
        };
        let threads = (0..n).map(spin).collect();
        Self { over, threads }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// Returns the median time of a trip through two threads that pass a flag back and forth, and park at
/// once.
fn parked() -> Duration {
    let [flag, over] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (theirs, this, done) = (Arc::clone(&flag), thread::current(), Arc::clone(&over));
    let other = thread::spawn(move || {
        while !done.load(SeqCst) {
            if theirs.swap(false, SeqCst) {
                this.unpark();
            }
            thread::park();
        }
    });
    let parked = usual(|| {
        flag.store(true, SeqCst);
        other.thread().unpark();
        while flag.load(SeqCst) {
            thread::park();
        }
    });
    over.store(true, SeqCst);
    other.thread().unpark();
    other.join().unwrap();
    parked
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get())
}

/// A thread that spins for the result must not pay for it by losing its processor to other threads
/// for milliseconds.
#[test]
fn a_join_takes_no_longer_than_one_that_parks_at_once() {
    within(LONG, "busy", || {
        let _one = ONE_TEST.lock();
        let _neighbours = Neighbours::new(2 * processors());
        let pool = ThreadPool::new(2);
        let joined = usual(|| pool.submit(|| ()).join().unwrap());
        let awaited = usual(|| block_on(async { pool.submit(|| ()).await.unwrap() }));
        let parked = parked();
        println!("joined {joined:?}, awaited {awaited:?}, parked {parked:?}");
        let most = 3 * parked + Duration::from_millis(1);
        assert!(
            joined < most && awaited < most,
            "{joined:?}, {awaited:?}, {parked:?}"
        );
    });
}

/// Spinning threads outnumber the processors by far. Tasks that await one short job after the other
/// share a runtime's only thread with a task that needs nothing but its turn.
#[test]
fn no_task_starves_while_others_await_one_short_job_after_the_other() {
    within(LONG, "starving", || {
        let _one = ONE_TEST.lock();
        let _neighbours = Neighbours::new(8);
        for tasks in [1, 8, 64] {
            let pool = Arc::new(ThreadPool::new(2));
            let done = Arc::new(AtomicBool::new(false));
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let [turns, least] = runtime.unwrap().block_on(async {
                let trips: Vec<_> = (0..tasks)
                    .map(|_| {
                        let (pool, done) = (Arc::clone(&pool), Arc::clone(&done));
                        tokio::spawn(async move {
                            let mut trips = 0;
                            while !done.load(SeqCst) {
                                pool.submit(|| ()).await.unwrap();
                                trips += 1;
                            }
                            trips
                        })
                    })
                    .collect();
                let start = Instant::now();
                let mut turns = 0;
                while start.elapsed() < Duration::from_millis(500) {
                    tokio::task::yield_now().await;
                    turns += 1;
                }
                done.store(true, SeqCst);
                let trips = futures::future::join_all(trips).await;
                let least = trips.into_iter().map(Result::unwrap).min();
                [turns, least.unwrap()]
            });
            println!("{tasks} tasks: {turns} turns, at least {least} trips each");
            assert!(turns > 20 && least > 2, "{tasks}: {turns}, {least}");
        }
    });
}
