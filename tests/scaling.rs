//! What many handles cost together: time, memory and threads. A test binary of its own, since it
//! counts the allocations and the threads of the process; its tests run one at a time.

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{LONG, block_workers, within};
use futurepool::{
    Executor, ExecutorExt, InlineExecutor, Job, JoinHandle, ReturnWhen, ThreadPool, as_completed,
    block_on, wait, wait_results,
};
use futures::StreamExt;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller upholds the contract of the trait, which is that of the system
        // allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs the tests one at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A smaller and a larger number of handles, ten times as many. Not so few that the smaller number
/// fits into a processor cache that the larger one exceeds, which would make each handle cheaper.
/// Without optimisation everything takes longer, so that matters less.
const FEW: usize = if cfg!(debug_assertions) {
    10_000
} else {
    100_000
};
const MANY: usize = 10 * FEW;

/// How much longer ten times as many may take. A quadratic cost would be a factor of 100.
const FACTOR: u32 = 12;
/// The same where the threads of a pool alternate, or where memory access dominates: those times
/// vary.
const LOOSE_FACTOR: u32 = 20;

/// Returns the shortest of several runs, which other processes disturb least.
fn best(mut run: impl FnMut() -> Duration) -> Duration {
    (0..4).map(|_| run()).min().expect("there is one")
}

/// Asserts that time grows in proportion to the number. On a busy machine some tries may fail.
fn assert_linear(what: &str, few: usize, many: usize, run: impl Fn(usize) -> Duration) {
    assert_at_most(FACTOR, what, few, many, run);
}

fn assert_at_most(
    factor: u32,
    what: &str,
    few: usize,
    many: usize,
    run: impl Fn(usize) -> Duration,
) {
    assert_eq!(few * 10, many);
    run(few);
    let mut tries = Vec::new();
    for _ in 0..6 {
        let short = best(|| run(few));
        let long = best(|| run(many));
        // If the larger number exceeds a cache all the same: joining the handles one by one is linear by
        // construction, so it tells how much that costs on this machine.
        let (near, far) = (best(|| joined(few)), best(|| joined(many)));
        let growth = (far.as_secs_f64() / near.as_secs_f64()).max(10.0);
        println!("{what}: {few} in {short:?}, {many} in {long:?}; joined: {near:?}, {far:?}");
        if long.as_secs_f64() <= short.as_secs_f64() * growth * f64::from(factor) / 10.0 {
            return;
        }
        tries.push((short, long, growth));
    }
    panic!("{what}: {few} and {many} handles took {tries:?}");
}

/// Runs `consume` and returns the total time; all jobs are queued before, and finish meanwhile.
fn timed_with_pool(n: usize, consume: fn(Vec<JoinHandle<usize>>)) -> Duration {
    let pool = ThreadPool::new(1);
    let start = Instant::now();
    let blocked = block_workers(&pool, 1);
    let handles: Vec<_> = (0..n).map(|number| pool.submit(move || number)).collect();
    drop(blocked);
    consume(handles);
    start.elapsed()
}

/// Returns the time that it takes to submit jobs and to join them one by one.
fn joined(n: usize) -> Duration {
    timed_with_pool(n, |handles| {
        let n = handles.len();
        let outputs = handles.into_iter().map(|handle| handle.join().unwrap());
        assert_eq!(outputs.sum::<usize>(), sum_of(n));
    })
}

fn sum_of(n: usize) -> usize {
    n * (n - 1) / 2
}

fn iterate(handles: Vec<JoinHandle<usize>>) {
    let n = handles.len();
    let outputs = as_completed(handles).into_iter();
    assert_eq!(outputs.map(Result::unwrap).sum::<usize>(), sum_of(n));
}

fn stream(handles: Vec<JoinHandle<usize>>) {
    let n = handles.len();
    let add = |sum, output: Result<usize, _>| std::future::ready(sum + output.unwrap());
    let sum = block_on(as_completed(handles).fold(0, add));
    assert_eq!(sum, sum_of(n));
}

#[test]
fn as_completed_takes_linear_time() {
    let _turn = turn();
    within(10 * LONG, "as_completed", || {
        for (what, consume) in [
            ("iterator", iterate as fn(Vec<JoinHandle<usize>>)),
            ("stream", stream),
        ] {
            assert_linear(what, FEW, MANY, |n| timed_with_pool(n, consume));
        }
        // Handles that were done before, with a timeout.
        assert_linear("all done, timed", FEW, MANY, |n| {
            let start = Instant::now();
            let handles: Vec<_> = (0..n).map(|n| InlineExecutor.submit(move || n)).collect();
            let outputs = as_completed(handles).timeout(LONG).into_iter();
            let outputs = outputs.map(|output| output.unwrap().unwrap());
            assert_eq!(outputs.sum::<usize>(), sum_of(n));
            start.elapsed()
        });
    });
}

#[test]
fn as_completed_in_a_worker_of_the_pool_takes_linear_time() {
    let _turn = turn();
    within(10 * LONG, "in a worker", || {
        for workers in [1, 2] {
            let what = format!("in a worker, of {workers}");
            assert_at_most(LOOSE_FACTOR, &what, FEW, MANY, |n| {
                let pool = std::sync::Arc::new(ThreadPool::new(workers));
                let own = std::sync::Arc::clone(&pool);
                let start = Instant::now();
                let job = pool.submit(move || {
                    iterate((0..n).map(|n| own.submit(move || n)).collect());
                });
                job.join().unwrap();
                start.elapsed()
            });
        }
    });
}

#[test]
fn wait_takes_linear_time_in_every_mode() {
    let _turn = turn();
    within(10 * LONG, "wait", || {
        let (few, many) = (5_000, 50_000);
        type Begin = fn(Vec<JoinHandle<usize>>) -> futurepool::Wait<JoinHandle<usize>>;
        let begins: [(&str, Begin); 2] = [
            ("AllCompleted", |all| wait(all, ReturnWhen::AllCompleted)),
            ("FirstException", |all| {
                wait(all, ReturnWhen::FirstException)
            }),
        ];
        for (what, begin) in begins {
            let ends: [fn(_) -> futurepool::Waited<_>; 2] = [futurepool::Wait::join, block_on];
            for end in ends {
                assert_linear(what, few, many, |n| {
                    let pool = ThreadPool::new(1);
                    let start = Instant::now();
                    let blocked = block_workers(&pool, 1);
                    let handles = (0..n).map(|number| pool.submit(move || number));
                    let waiting = begin(handles.collect());
                    drop(blocked);
                    assert_eq!(end(waiting).done.len(), n);
                    start.elapsed()
                });
            }
        }
        assert_linear("wait_results", few, many, |n| {
            let start = Instant::now();
            let handles = (0..n).map(|_| InlineExecutor.submit(|| Ok::<(), ()>(())));
            let waiting = wait_results(handles.collect::<Vec<_>>(), ReturnWhen::FirstException);
            assert_eq!(waiting.join().done.len(), n);
            start.elapsed()
        });
    });
}

#[test]
fn map_takes_linear_time() {
    let _turn = turn();
    within(10 * LONG, "map", || {
        assert_at_most(LOOSE_FACTOR, "map", FEW, MANY, |n| {
            let pool = ThreadPool::new(1);
            let start = Instant::now();
            assert_eq!(pool.map(0..n, |n| n).into_iter().count(), n);
            start.elapsed()
        });
        assert_at_most(LOOSE_FACTOR, "map_unordered, in chunks", FEW, MANY, |n| {
            let pool = ThreadPool::new(1);
            let start = Instant::now();
            let results = pool.map_unordered(0..n, |n| n).chunk_size(7);
            assert_eq!(results.buffer_size(n / 2).into_iter().count(), n);
            start.elapsed()
        });
    });
}

/// An executor that keeps all jobs, so that they exist while the memory is measured.
#[derive(Default)]
struct Keeps(Mutex<Vec<Job>>);

impl Executor for Keeps {
    fn execute(&self, job: Job) {
        self.0.lock().unwrap().push(job);
    }
}

#[test]
fn memory_is_linear_and_is_released() {
    let _turn = turn();
    // The memory that `as_completed` needs for `n` handles that it waits for, and what is left
    // after all were yielded.
    let measure = |n: usize| {
        let keeps = Keeps::default();
        let handles: Vec<_> = (0..n).map(|number| keeps.submit(move || number)).collect();
        let before = LIVE.load(Relaxed);
        let mut outputs = as_completed(handles);
        assert!(common::poll_once(&mut outputs.next()).is_pending());
        let used = LIVE.load(Relaxed).saturating_sub(before);
        for job in keeps.0.into_inner().unwrap() {
            job.run();
        }
        let start = LIVE.load(Relaxed);
        for left in (0..n).rev() {
            outputs.wait_next().unwrap().unwrap();
            // With few handles, other memory of the process would count.
            if n >= FEW && left == n / 2 {
                let half = LIVE.load(Relaxed);
                assert!(half < start, "what was handed out is kept");
            }
        }
        assert!(outputs.wait_next().is_none());
        used
    };
    within(LONG, "memory", move || {
        measure(10);
        let before = LIVE.load(Relaxed);
        let (few, many) = (measure(FEW), measure(MANY));
        println!("{FEW} handles take {few} bytes, {MANY} take {many}");
        assert!(few > 0, "the counter counts");
        assert!(many <= 11 * few, "{FEW}: {few} bytes, {MANY}: {many} bytes");
        assert!(many <= 512 * MANY, "{} bytes a handle", many / MANY);
        let left = LIVE.load(Relaxed).saturating_sub(before);
        assert!(left < 64 * 1024, "{left} bytes are left");
    });
}

/// A buffer bounds the memory for an input of any length.
#[test]
fn a_map_with_a_buffer_needs_no_more_memory_for_a_longer_input() {
    let _turn = turn();
    let most = |n: usize| {
        let pool = ThreadPool::new(1);
        let before = LIVE.load(Relaxed);
        let results = pool.map(0..n, |n| n).buffer_size(100);
        let used = results.into_iter().map(|result| {
            result.unwrap();
            LIVE.load(Relaxed).saturating_sub(before)
        });
        used.max().unwrap_or(0)
    };
    within(LONG, "buffer", move || {
        most(1_000);
        let used = most(MANY);
        assert!(used < 128 * 1024, "{used} bytes for a buffer of 100");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn all_timeouts_share_one_timer_thread_and_blocking_waits_need_none() {
    /// The system truncates names to 15 bytes.
    fn timers() -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").expect("the threads of this process");
        let names = tasks.filter_map(|task| {
            // The thread may have ended.
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        });
        let of_timer = |name: &String| name.trim_end() == "futurepool-time";
        names.filter(of_timer).count()
    }

    let _turn = turn();
    within(LONG, "timers", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let job = || pool.submit(|| ());
        let limit = Duration::from_millis(5);

        // No other test in this file polls with a timeout.
        assert_eq!(timers(), 0);
        assert!(job().join_timeout(limit).unwrap_err().is_timeout());
        let mut outputs = as_completed([job()]).timeout(limit);
        assert!(outputs.wait_next().unwrap().is_err());
        let waiting = wait([job()], ReturnWhen::FirstCompleted).timeout(limit);
        assert_eq!(waiting.join().not_done.len(), 1);
        let waiting = wait([job()], ReturnWhen::AllCompleted).timeout(limit);
        assert_eq!(waiting.join().not_done.len(), 1);
        let mut results = pool.map(0..3, |n| n).timeout(limit);
        assert!(results.wait_next().unwrap().is_err());
        let results = pool.map_unordered(0..3, |n| n).timeout(limit);
        assert_eq!(results.into_iter().count(), 1);
        // One that is not polled, and one without a deadline.
        drop(as_completed([job()]).timeout(limit));
        let mut endless = as_completed([job()]).timeout(Duration::MAX);
        assert!(common::poll_once(&mut endless.next()).is_pending());
        assert_eq!(timers(), 0, "a blocking wait started the timer");

        let streams = (0..1_000).map(|number| {
            let mut outputs =
                as_completed([job()]).timeout(Duration::from_millis(20 + number % 50));
            async move { outputs.next().await.unwrap().unwrap_err().pending() }
        });
        let streams: futures::stream::FuturesUnordered<_> = streams.collect();
        let mut ended = streams.map(|pending| {
            assert_eq!(timers(), 1);
            pending
        });
        let mut all = 0;
        while let Some(pending) = block_on(ended.next()) {
            all += pending;
        }
        assert_eq!(all, 1_000);
        assert_eq!(timers(), 1);
        drop(blocked);
    });
}
