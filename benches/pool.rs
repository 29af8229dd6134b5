//! `cargo bench --bench pool`: what the pool costs, beside `tokio::task::spawn_blocking` and beside the floor, two
//! threads that hand a flag back and forth with `park` and `unpark`.
//!
//! All take turns in one process, round after round; only the ratios of one run mean anything. It takes some seconds;
//! with `-- --quick`, which shows no more than that it runs, one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{ThreadPool, block_on};
use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;

const WORKERS: usize = 2;

/// Takes its measure once; gives the time of one job.
type Measure = Box<dyn Fn() -> Duration>;

fn main() {
    let pool = Arc::new(ThreadPool::new(WORKERS));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(2).max_blocking_threads(WORKERS);
    let runtime = Arc::new(builder.build().expect("a runtime"));
    let (p, r) = (&pool, &runtime);

    compare(
        "burst: 200,000 jobs submitted, then all awaited",
        vec![
            (
                "futurepool",
                with(p, r, |pool, _| {
                    block_on(burst(200_000, |i| pool.submit(move || i)))
                }),
            ),
            (
                "spawn_blocking",
                with(p, r, |_, runtime| {
                    runtime.block_on(burst(200_000, |i| spawn_blocking(move || i)))
                }),
            ),
        ],
    );
    compare(
        "producers: 4 threads, 50,000 jobs each",
        vec![
            (
                "futurepool",
                with(p, r, |pool, _| {
                    four_producers(|| block_on(burst(50_000, |i| pool.submit(move || i))))
                }),
            ),
            (
                "spawn_blocking",
                with(p, r, |_, runtime| {
                    four_producers(|| {
                        runtime.block_on(burst(50_000, |i| spawn_blocking(move || i)))
                    })
                }),
            ),
        ],
    );
    compare(
        "round trip: submit and join, in a tight loop",
        vec![
            (
                "futurepool",
                with(p, r, |pool, _| {
                    repeat(5_000, || pool.submit(|| ()).join().expect("no panic"))
                }),
            ),
            (
                "spawn_blocking",
                with(p, r, |_, runtime| {
                    repeat(5_000, || {
                        let _entered = runtime.enter();
                        block_on(spawn_blocking(|| ())).expect("no panic");
                    })
                }),
            ),
            ("park and unpark", Box::new(|| ping_pong(5_000))),
        ],
    );
    compare(
        "async round trip: a task on tokio submits and awaits",
        vec![
            (
                "futurepool",
                with(p, r, |pool, runtime| {
                    let pool = Arc::clone(pool);
                    in_task(runtime, async move {
                        for _ in 0..5_000 {
                            pool.submit(|| ()).await.expect("no panic");
                        }
                    }) / 5_000
                }),
            ),
            (
                "spawn_blocking",
                with(p, r, |_, runtime| {
                    in_task(runtime, async {
                        for _ in 0..5_000 {
                            spawn_blocking(|| ()).await.expect("no panic");
                        }
                    }) / 5_000
                }),
            ),
        ],
    );
}

/// Takes all measures in turn, and prints of each the least and the median, and the least over that of the first.
fn compare(title: &str, measures: Vec<(&str, Measure)>) {
    println!("{title}");
    let rounds = match std::env::args().any(|argument| argument == "--quick") {
        true => 1,
        false => 9,
    };
    let mut times = vec![Vec::new(); measures.len()];
    for _ in 0..rounds {
        for (times, (_, measure)) in times.iter_mut().zip(&measures) {
            times.push(measure());
        }
    }
    for times in &mut times {
        times.sort_unstable();
    }
    for ((name, _), of) in measures.iter().zip(&times) {
        let ratio = of[0].as_secs_f64() / times[0][0].as_secs_f64();
        println!(
            "  {name:15} min {:>9.2?}  median {:>9.2?}  {ratio:5.2}",
            of[0],
            of[rounds / 2]
        );
    }
}

fn with(
    pool: &Arc<ThreadPool>,
    runtime: &Arc<Runtime>,
    measure: impl Fn(&Arc<ThreadPool>, &Runtime) -> Duration + 'static,
) -> Measure {
    let (pool, runtime) = (Arc::clone(pool), Arc::clone(runtime));
    Box::new(move || measure(&pool, &runtime))
}

async fn burst<H: Future>(jobs: usize, submit: impl Fn(usize) -> H) -> Duration {
    let start = Instant::now();
    let handles: Vec<_> = (0..jobs).map(submit).collect();
    for handle in handles {
        handle.await;
    }
    start.elapsed() / jobs as u32
}

fn four_producers(produce: impl Fn() -> Duration + Sync) -> Duration {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(&produce);
        }
    });
    start.elapsed() / 200_000
}

fn repeat(times: u32, each: impl Fn()) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        each();
    }
    start.elapsed() / times
}

fn in_task(runtime: &Runtime, task: impl Future<Output = ()> + Send + 'static) -> Duration {
    let start = Instant::now();
    runtime.block_on(async { tokio::spawn(task).await.expect("no panic") });
    start.elapsed()
}

/// The least that two threads can do to wait for each other.
fn ping_pong(times: u32) -> Duration {
    let flag = Arc::new(AtomicBool::new(false));
    let main = thread::current();
    let theirs = Arc::clone(&flag);
    let wait_for = |flag: &AtomicBool, value| {
        while flag.load(SeqCst) != value {
            thread::park();
        }
    };
    let other = thread::spawn(move || {
        for _ in 0..times {
            wait_for(&theirs, true);
            theirs.store(false, SeqCst);
            main.unpark();
        }
    });
    let start = Instant::now();
    for _ in 0..times {
        flag.store(true, SeqCst);
        other.thread().unpark();
        wait_for(&flag, false);
    }
    let elapsed = start.elapsed();
    other.join().expect("no panic");
    elapsed / times
}
