//! Heap cost of a job. A test binary of its own: it counts every allocation of the process, so no
//! other test may run beside it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use futurepool::{Priority, ThreadPool, as_completed, block_on};
use futures::future::join_all;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        ALLOCATED.fetch_add(layout.size() as u64, Relaxed);
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

const JOBS: u64 = 10_000;

/// The most bytes that a job may take in addition to the larger of closure and result: its cell,
/// and 24 bytes in a block of the queue.
const BYTES: f64 = 97.0;

/// Returns allocations and bytes per job, averaged over many jobs.
fn cost_of(mut each: impl FnMut(u64)) -> (f64, f64) {
    // Threads, thread-locals and the first block of the queue are allocated once; they are not the
    // cost of a job.
    for i in 0..100 {
        each(i);
    }
    let (count, bytes) = (ALLOCATIONS.load(Relaxed), ALLOCATED.load(Relaxed));
    for i in 0..JOBS {
        each(i);
    }
    let per_job = |now: u64, before: u64| (now - before) as f64 / JOBS as f64;
    let count = per_job(ALLOCATIONS.load(Relaxed), count);
    (count, per_job(ALLOCATED.load(Relaxed), bytes))
}

/// One test only: see the top of the file.
#[test]
fn guarantee_5_a_job_costs_one_allocation_and_leaves_nothing_behind() {
    let pool = ThreadPool::new(2);

    // The queue allocates a block for every 63 jobs, in addition to the one allocation per job.
    let (joined, bytes) = cost_of(|i| {
        assert_eq!(pool.submit(move || i + 1).join().unwrap(), i + 1);
    });
    println!("submit and join: {joined:.3} allocations, {bytes:.1} bytes a job");
    assert!(joined >= 1.0, "the counter does not count");
    assert!(joined < 1.05, "{joined} allocations a job, submit and join");
    assert!(bytes <= BYTES + 8.0, "{bytes} bytes a job of 8");

    let (awaited, bytes) = cost_of(|i| {
        block_on(async {
            assert_eq!(pool.submit(move || i + 1).await.unwrap(), i + 1);
        });
    });
    println!("submit and await: {awaited:.3} allocations, {bytes:.1} bytes a job");
    assert!(
        awaited < 1.05,
        "{awaited} allocations a job, submit and await"
    );
    assert!(bytes <= BYTES + 8.0, "{bytes} bytes a job of 8");

    let (wide, bytes) = cost_of(|_| {
        let sent = [7_u8; 1024];
        pool.submit(move || sent).join().unwrap();
    });
    println!("1 KiB in and out: {wide:.3} allocations, {bytes:.1} bytes a job");
    assert!(wide < 1.05, "{wide} allocations a wide job");
    assert!(bytes <= BYTES + 1024.0, "{bytes} bytes a job of 1024");

    // Measuring jobs costs neither an allocation nor a byte.
    let timed = ThreadPool::builder()
        .max_workers(2)
        .timings(true)
        .build()
        .unwrap();
    let (measured, bytes) = cost_of(|i| {
        assert_eq!(timed.submit(move || i + 1).join().unwrap(), i + 1);
    });
    println!("submit and join with timings: {measured:.3} allocations, {bytes:.1} bytes a job");
    assert!(measured < 1.05, "{measured} allocations a job with timings");
    assert!(bytes <= BYTES + 8.0, "{bytes} bytes a job of 8");
    assert_eq!(timed.metrics().run_time.count(), JOBS + 100);

    let priorities = [Priority::High, Priority::Low];
    let (prior, bytes) = cost_of(|i| {
        let job = pool.job(move || i + 1).priority(priorities[i as usize % 2]);
        assert_eq!(job.submit().join().unwrap(), i + 1);
    });
    println!("with a priority: {prior:.3} allocations, {bytes:.1} bytes a job");
    assert!(prior < 1.05, "{prior} allocations a job with a priority");
    assert!(bytes <= BYTES + 8.0, "{bytes} bytes a job of 8");

    // A builder costs nothing. A label or a deadline costs one more, for that job only.
    let (built, bytes) = cost_of(|i| {
        assert_eq!(pool.job(move || i + 1).submit().join().unwrap(), i + 1);
    });
    assert!(built < 1.05, "{built} allocations a job without options");
    assert!(bytes <= BYTES + 8.0, "{bytes} bytes a job of 8");
    let (labelled, _) = cost_of(|i| {
        let job = pool.job(move || i + 1).label("more");
        assert_eq!(job.submit().join().unwrap(), i + 1);
    });
    println!("with a label: {labelled:.3} allocations a job");
    assert!(labelled < 2.05, "{labelled} allocations a job with a label");
    let before = LIVE.load(Relaxed);
    let (limited, _) = cost_of(|i| {
        let job = pool
            .job(move || i + 1)
            .expires_in(Duration::from_secs(3600));
        assert_eq!(job.submit().join().unwrap(), i + 1);
    });
    println!("with a deadline: {limited:.3} allocations a job");
    // One more at times, for the deadlines of all jobs.
    assert!(
        limited < 3.05,
        "{limited} allocations a job with a deadline"
    );
    let left = LIVE.load(Relaxed).saturating_sub(before);
    println!("{JOBS} jobs with a deadline far away: {left} bytes left");
    assert!(left < 16 * 1024, "{left} bytes of jobs that have run");

    // Nor does `as_completed` allocate for a job that has finished when it first polls the handle.
    let handles: Vec<_> = (0..JOBS).map(|i| pool.submit(move || i)).collect();
    pool.wait_idle().join();
    let before = ALLOCATIONS.load(Relaxed);
    let sum: u64 = as_completed(handles).into_iter().map(Result::unwrap).sum();
    let completed = ALLOCATIONS.load(Relaxed) - before;
    println!("{JOBS} finished jobs in as_completed: {completed} allocations");
    assert_eq!(sum, JOBS * (JOBS - 1) / 2);
    assert!(completed < 100, "{completed} allocations in as_completed");

    // Cancelled jobs do not pile up behind a long-running job: the queue holds at most a constant
    // number of tombstones, plus one for each job that is still queued.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let single = ThreadPool::new(1);
    let slow = single.submit(move || wait.recv());
    let waiting: Vec<_> = (0..50).map(|_| single.submit(|| ())).collect();
    let before = LIVE.load(Relaxed);
    let mut most = 0;
    for _ in 0..100_000 {
        assert!(single.submit(|| ()).cancel());
        most = most.max(LIVE.load(Relaxed).saturating_sub(before));
    }
    println!("100,000 cancelled behind a slow job: {most} bytes at the most");
    assert!(most < 64 * 1024, "{most} bytes of cancelled jobs");
    drop(go);
    assert!(slow.join().unwrap().is_err());
    for handle in waiting {
        handle.join().unwrap();
    }

    // Nor do tombstones stay after the jobs around them are gone. Here as many jobs are queued as
    // were cancelled, so the queue is not compacted at first. Then all jobs run except a long one.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let first = single.submit(move || wait.recv());
    let before = LIVE.load(Relaxed);
    let waiting: Vec<_> = (0..1_000).map(|_| single.submit(|| ())).collect();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let slow = single.submit(move || {
        tell.send(()).unwrap();
        wait.recv()
    });
    for _ in 0..1_000 {
        let large = [1_u8; 4096];
        assert!(single.submit(move || large[0]).cancel());
    }
    drop(go);
    told.recv().unwrap();
    for handle in waiting {
        handle.join().unwrap();
    }
    let left = LIVE.load(Relaxed).saturating_sub(before);
    println!("1,000 wide jobs cancelled, none queued: {left} bytes left");
    assert!(left < 64 * 1024, "{left} bytes of cancelled jobs");
    drop((go_on, first));
    assert!(slow.join().unwrap().is_err());

    // The same holds for jobs that their waiting job runs itself, in each kind of wait, while no
    // worker takes anything from the queue.
    let alone = Arc::new(ThreadPool::new(1));
    let inner = Arc::clone(&alone);
    let growth = alone.submit(move || {
        let grows = |what: &str, wait_for: &dyn Fn(u64)| {
            (0..100).for_each(wait_for);
            let before = LIVE.load(Relaxed);
            let mut most = 0;
            for n in 0..20_000 {
                wait_for(n);
                most = most.max(LIVE.load(Relaxed).saturating_sub(before));
            }
            println!("20,000 jobs run by their waiting job, {what}: {most} bytes at the most");
            most
        };
        let joined = grows("join", &|n| {
            assert_eq!(inner.submit(move || n).join().unwrap(), n);
        });
        let awaited = grows("block_on", &|n| {
            let handle = inner.submit(move || n);
            assert_eq!(block_on(async { handle.await.unwrap() }), n);
        });
        let scoped = inner.scope(|scope| {
            grows("scope", &|n| {
                assert_eq!(scope.submit(move || n).join().unwrap(), n);
            })
        });
        (joined, awaited, scoped)
    });
    let (joined, awaited, scoped) = growth.join().unwrap();
    assert!(joined < 64 * 1024, "{joined} bytes of joined jobs");
    assert!(awaited < 64 * 1024, "{awaited} bytes of awaited jobs");
    assert!(scoped < 64 * 1024, "{scoped} bytes of scoped jobs");

    // Nor does the pool keep anything of jobs that a worker polled in `block_on`, and that the
    // other worker has run since.
    let pair = Arc::new(ThreadPool::new(2));
    let both = Arc::new(Barrier::new(2));
    let started = [(); 2].map(|()| {
        let both = Arc::clone(&both);
        pair.submit(move || both.wait())
    });
    for handle in started {
        handle.join().unwrap();
    }
    let before = LIVE.load(Relaxed);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let runs_them = pair.submit(move || wait.recv());
    let inner = Arc::clone(&pair);
    let polls_them = pair.submit(move || {
        let submit = |_| {
            let large = [1_u8; 4096];
            inner.submit(move || large[0])
        };
        let mut all = join_all((0..JOBS).map(submit));
        block_on(async {
            assert!(futures::poll!(&mut all).is_pending());
            let most = LIVE.load(Relaxed).saturating_sub(before);
            go.send(()).unwrap();
            (all.await.len(), most)
        })
    });
    let (count, most) = polls_them.join().unwrap();
    assert_eq!(count as u64, JOBS);
    runs_them.join().unwrap().unwrap();
    // The workers may still be on their way to sleep.
    let start = Instant::now();
    let left = loop {
        let left = LIVE.load(Relaxed).saturating_sub(before);
        if left < 100 * 1024 || start.elapsed() > Duration::from_secs(20) {
            break left;
        }
        std::thread::yield_now();
    };
    println!("{JOBS} wide jobs polled while queued: {most} bytes, {left} left when all have run");
    assert!(most > 4096 * JOBS as usize, "the counter does not count");
    assert!(left < 100 * 1024, "{left} bytes of polled jobs");

    // A million jobs, with each kind of outcome, leave memory use where it was.
    let round = |jobs: u64| {
        for i in 0..jobs / 10 {
            let kept: Vec<_> = (0..10).map(|j| pool.submit(move || i + j)).collect();
            for (j, handle) in kept.into_iter().enumerate() {
                match j % 3 {
                    0 => drop(handle),
                    1 => drop(handle.cancel()),
                    _ => drop(handle.join()),
                }
            }
        }
        // The last jobs may still be running.
        pool.submit(|| ()).join().unwrap();
    };
    round(1_000);
    let before = LIVE.load(Relaxed);
    round(1_000_000);
    let after = LIVE.load(Relaxed);
    println!("live before {before} and after a million jobs {after} bytes");
    assert!(
        after < before + 64 * 1024,
        "{before} bytes live before a million jobs, {after} after"
    );
}
