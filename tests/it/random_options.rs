//! Jobs with random options (priorities, deadlines, labels) among broadcasts, resizes, cancels and
//! waits, from several threads and from the jobs themselves. Each job runs once or is reported as
//! not run, and afterwards all counts add up.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{JobEvent, JobOutcome, JoinHandle, Priority, SubmitError, ThreadPool, block_on};

use crate::common::{LONG, Random, eventually, within};

/// What became of the jobs of a round.
#[derive(Default)]
struct Round {
    ran: AtomicU64,
    called_back: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Round {
    fn keep(&self, handle: JoinHandle<()>) {
        self.handles.lock().unwrap().push(handle);
    }

    /// Counts a handle. A `submit` that expired while it waited for room has one, too.
    fn count(self: &Arc<Self>, handle: JoinHandle<()>) -> JoinHandle<()> {
        self.accepted.fetch_add(1, SeqCst);
        let round = Arc::clone(self);
        handle.add_done_callback(move |_| {
            round.called_back.fetch_add(1, SeqCst);
        });
        handle
    }

    fn count_or_refuse(
        self: &Arc<Self>,
        submitted: Result<JoinHandle<()>, SubmitError<Job>>,
    ) -> Option<JoinHandle<()>> {
        if submitted.is_err() {
            self.refused.fetch_add(1, SeqCst);
        }
        submitted.ok().map(|handle| self.count(handle))
    }
}

type Job = Box<dyn FnOnce() + Send>;

fn job(round: &Arc<Round>, pool: &Arc<ThreadPool>, random: &mut Random, depth: u32) -> Job {
    let (round, pool, seed) = (Arc::clone(round), Arc::clone(pool), random.next());
    Box::new(move || {
        round.ran.fetch_add(1, SeqCst);
        let mut random = Random(seed);
        match random.below(8) {
            0 => thread::sleep(Duration::from_micros(random.below(500) as u64)),
            1 if depth < 3 => {
                if let Some(nested) = submit(&round, &pool, &mut random, depth + 1) {
                    let _ = nested.join();
                }
            }
            2 if depth < 3 => {
                if let Some(nested) = submit(&round, &pool, &mut random, depth + 1) {
                    let _ = block_on(nested);
                }
            }
            3 => resume_unwind(Box::new("at random")),
            _ => {}
        }
    })
}

fn submit(
    round: &Arc<Round>,
    pool: &Arc<ThreadPool>,
    random: &mut Random,
    depth: u32,
) -> Option<JoinHandle<()>> {
    let closure = job(round, pool, random, depth);
    let mut job = pool.job(closure);
    match random.below(4) {
        0 => job = job.priority(Priority::High),
        1 => job = job.priority(Priority::Low),
        _ => {}
    }
    let time = Duration::from_micros(random.below(1_500) as u64);
    match random.below(6) {
        0 => job = job.expires_in(time),
        1 => job = job.deadline(Instant::now() + time),
        2 => job = job.expires_in(LONG),
        _ => {}
    }
    if random.one_in(3) {
        job = job.label("labelled");
    }
    match random.below(3) {
        0 => Some(round.count(job.submit())),
        1 => round.count_or_refuse(job.try_submit()),
        _ => round.count_or_refuse(block_on(job.submit_async())),
    }
}

fn act(round: &Arc<Round>, pool: &Arc<ThreadPool>, random: &mut Random) {
    match random.below(20) {
        0 => {
            let of_job = Arc::clone(round);
            let handles = pool.broadcast(move || {
                of_job.ran.fetch_add(1, SeqCst);
            });
            for handle in handles {
                round.keep(round.count(handle));
            }
        }
        1 | 2 => pool.set_max_workers(1 + random.below(4)).unwrap(),
        3 => {
            pool.cancel_queued();
        }
        4 | 5 => {
            if let Some(handle) = submit(round, pool, random, 0) {
                handle.cancel();
                round.keep(handle);
            }
        }
        6 => drop(submit(round, pool, random, 0)),
        7 => {
            if let Some(mut handle) = submit(round, pool, random, 0) {
                let outcome = handle.join_timeout(Duration::from_micros(50));
                if outcome.is_err_and(|error| error.is_timeout()) {
                    round.keep(handle);
                }
            }
        }
        _ => {
            if let Some(handle) = submit(round, pool, random, 0) {
                round.keep(handle);
            }
        }
    }
}

fn play(seed: u64) {
    let mut random = Random(seed);
    let events: Arc<[AtomicU64; 3]> = Arc::default();
    let mut builder = ThreadPool::builder().max_workers(1 + random.below(4));
    if random.one_in(2) {
        builder = builder.queue_capacity(1 + random.below(8));
    }
    if random.one_in(3) {
        builder = builder.queue_timeout(Duration::from_micros(random.below(3_000) as u64));
    }
    match random.below(3) {
        0 => builder = builder.keep_alive(Duration::ZERO),
        1 => builder = builder.keep_alive(Duration::from_millis(1)),
        _ => {}
    }
    let observed = random.one_in(2);
    if observed {
        let events = Arc::clone(&events);
        let on_job = move |event: &JobEvent| {
            let [submitted, finished, expired] = &*events;
            match event.outcome() {
                Some(outcome) => {
                    finished.fetch_add(1, SeqCst);
                    expired.fetch_add(u64::from(outcome == JobOutcome::Expired), SeqCst);
                }
                None if matches!(event, JobEvent::Submitted { .. }) => {
                    submitted.fetch_add(1, SeqCst);
                }
                None => {}
            }
        };
        builder = builder.timings(random.one_in(2)).on_job(on_job);
    }
    let pool = Arc::new(builder.build().unwrap());
    let round = Arc::new(Round::default());
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (round, pool, seed) = (Arc::clone(&round), Arc::clone(&pool), random.next());
            thread::spawn(move || {
                let mut random = Random(seed);
                for _ in 0..100 {
                    act(&round, &pool, &mut random);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let handles = std::mem::take(&mut *round.handles.lock().unwrap());
    for mut handle in handles {
        if let Err(error) = handle.join_timeout(LONG) {
            assert!(!error.is_timeout(), "seed {seed}: {error}");
        }
    }
    pool.wait_idle().join();
    let called_back = || round.called_back.load(SeqCst) == round.accepted.load(SeqCst);
    eventually("all callbacks", called_back);
    let metrics = pool.metrics();
    let ended = metrics.completed + metrics.panicked + metrics.cancelled;
    assert_eq!(metrics.submitted, ended, "seed {seed}: {metrics:?}");
    assert_eq!((metrics.queued, metrics.running), (0, 0), "seed {seed}");
    assert_eq!(
        round.ran.load(SeqCst),
        metrics.completed + metrics.panicked,
        "seed {seed}: {metrics:?}"
    );
    assert!(metrics.expired <= metrics.cancelled);
    let calls = round.accepted.load(SeqCst) + round.refused.load(SeqCst);
    assert_eq!(calls, metrics.submitted + metrics.rejected, "seed {seed}");
    if observed {
        let wanted = [metrics.submitted, metrics.submitted, metrics.expired];
        let all = || events.each_ref().map(|events| events.load(SeqCst)) == wanted;
        eventually("all events", all);
    }
    pool.shutdown().join();
    // Nothing of a closure is left.
    eventually("all closures are gone", || Arc::strong_count(&pool) == 1);
    assert_eq!(pool.metrics().workers, 0);
}

#[test]
fn jobs_with_random_options_run_once_or_are_reported_and_all_counts_add_up() {
    within(LONG, "random options", || {
        let start = Instant::now();
        let mut seed = 0;
        while start.elapsed() < Duration::from_secs(2) {
            seed += 1;
            play(seed);
        }
        println!("{seed} rounds");
    });
}
