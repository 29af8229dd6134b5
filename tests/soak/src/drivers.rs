//! The threads that drive the pools, and the watchdog.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{array, thread};

use futurepool::ThreadPool;

use crate::count::{COUNTS, Count, totals};
use crate::join::join_all;
use crate::memory::{Memory, Sample, status, workers};
use crate::random::{Random, mix};
use crate::record::{JobRecord, cancel};
use crate::steps::{
    add_callbacks, drop_handles, map, poll_submissions, use_scope, use_short_lived_pool,
};
use crate::tested_pool::TestedPool;
use crate::tracked::LIVE;
use crate::unparks::{register_thread, unpark_random};

const DRIVERS: usize = 4;
/// Longer than any step of a driver takes, even on a busy machine.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// What a thread does, and since when; `None` once the thread has finished.
struct Activity(Mutex<Option<(Instant, &'static str)>>);

impl Activity {
    fn begin(&self, what: &'static str) {
        self.set(Some((Instant::now(), what)));
    }

    fn finish(&self) {
        self.set(None);
    }

    fn set(&self, what: Option<(Instant, &'static str)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn get(&self) -> Option<(Duration, &'static str)> {
        let what = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        what.map(|(since, what)| (since.elapsed(), what))
    }
}

pub(crate) struct Soak {
    /// Used by all drivers for the whole run.
    pools: [Arc<TestedPool>; 4],
    /// One for each driver, then one for the main thread.
    activities: [Activity; DRIVERS + 1],
    /// Where the drivers meet at the end of each round.
    round_end: Barrier,
    /// Set by the main thread when the time is up.
    stop: AtomicBool,
    /// Set by a driver when there is no further round.
    done: AtomicBool,
    memory: Memory,
}

/// The index of the pool with a short keep-alive.
const SHORT_KEEP_ALIVE: usize = 2;

const STEPS: [&str; 8] = [
    "drops handles",
    "polls submissions",
    "adds callbacks",
    "maps",
    "uses a short-lived pool",
    "uses a scope",
    "cancels jobs",
    "waits for jobs",
];

impl Soak {
    pub(crate) fn new() -> Self {
        let of = |workers| ThreadPool::builder().max_workers(workers);
        let keep_alive = Duration::from_millis(1);
        Self {
            pools: [
                TestedPool::new("plain", of(3), false),
                TestedPool::new("full", of(2).queue_capacity(4), false),
                TestedPool::new("keep", of(4).keep_alive(keep_alive), false),
                TestedPool::new("init", of(1).queue_capacity(64), true),
            ],
            activities: array::from_fn(|_| Activity(Mutex::default())),
            round_end: Barrier::new(DRIVERS),
            stop: AtomicBool::new(false),
            done: AtomicBool::new(false),
            memory: Memory::default(),
        }
    }

    /// Returns a memory sample for each second.
    pub(crate) fn run(&self, seconds: u64, seed: u64) -> Vec<Sample> {
        let main = &self.activities[DRIVERS];
        main.begin("starts");
        thread::scope(|scope| {
            scope.spawn(|| self.watch());
            scope.spawn(|| self.unpark(Random(mix(!seed))));
            let drive = |number| move || self.drive(number, Random(mix(seed ^ number as u64)));
            let drivers: Vec<_> = (0..DRIVERS)
                .map(|number| scope.spawn(drive(number)))
                .collect();
            let samples = self.report(seconds);
            self.stop.store(true, SeqCst);
            main.begin("waits for the drivers");
            drivers.into_iter().for_each(|driver| drop(driver.join()));
            main.begin("shuts the pools down");
            for tested in &self.pools {
                tested.pool.shutdown().join();
            }
            // The system may list a thread for a moment after it was joined.
            wait_until("without workers", &"the process", || workers() == 0);
            main.finish();
            samples
        })
    }

    fn report(&self, seconds: u64) -> Vec<Sample> {
        let mut samples = Vec::new();
        let (start, mut jobs_before) = (Instant::now(), 0);
        for second in 1..=seconds {
            let next = start + Duration::from_secs(second);
            thread::sleep(next.saturating_duration_since(Instant::now()));
            self.activities[DRIVERS].begin("reports");
            let jobs = COUNTS[Count::Jobs as usize].load(SeqCst);
            let sample = self.memory.sample();
            println!(
                "{second} s: {} jobs/s, {}, {} blocks, {} B, {} KiB, {} threads",
                jobs - jobs_before,
                totals(),
                sample.blocks,
                sample.bytes,
                sample.resident,
                status("Threads:"),
            );
            samples.push(sample);
            jobs_before = jobs;
        }
        samples
    }

    /// The watchdog.
    fn watch(&self) {
        while self.activities[DRIVERS].get().is_some() {
            thread::sleep(Duration::from_millis(100));
            let activities = self.activities.each_ref().map(Activity::get);
            let is_stuck = activities
                .iter()
                .flatten()
                .any(|(time, _)| *time > STEP_LIMIT);
            if is_stuck {
                // In another thread, because a pool that hangs may block its `Debug` as well.
                let pools = self.pools.clone();
                thread::spawn(move || {
                    println!("{:?}", pools.each_ref().map(|tested| &tested.pool));
                });
                thread::sleep(Duration::from_secs(1));
                panic!("no progress: {activities:?}");
            }
        }
    }

    /// Unparks random threads until the main thread has shut the pools down.
    fn unpark(&self, mut random: Random) {
        while self.activities[DRIVERS].get().is_some() {
            thread::sleep(random.micros(1_000));
            unpark_random(&mut random);
        }
    }

    fn drive(&self, number: usize, mut random: Random) {
        let activity = &self.activities[number];
        for round in 0.. {
            // The pool for maps, which do not tell how many jobs they submit. The counts of the
            // other pools are known.
            let map_pool = round % self.pools.len();
            let end = Instant::now() + Duration::from_millis(200) + random.micros(500_000);
            let mut detached = Vec::new();
            while Instant::now() < end && !self.stop.load(SeqCst) {
                self.step(activity, map_pool, &mut random, &mut detached);
            }
            activity.begin("waits for the other drivers");
            if self.round_end.wait().is_leader() {
                activity.begin("checks the counts");
                self.check_quiet(map_pool);
                self.done.store(self.stop.load(SeqCst), SeqCst);
            }
            self.round_end.wait();
            for record in detached {
                let runs = record.runs.load(SeqCst);
                assert_eq!(runs, 1, "a detached job did not run: {record:?}");
            }
            // The drivers have dropped their records, too.
            if self.round_end.wait().is_leader() {
                self.memory.record();
            }
            self.round_end.wait();
            if self.done.load(SeqCst) {
                break;
            }
        }
        activity.finish();
    }

    /// Waits for a quiet moment, when no job exists, and checks the counts.
    fn check_quiet(&self, map_pool: usize) {
        for (number, tested) in self.pools.iter().enumerate() {
            // Detached jobs may still run.
            wait_until("quiet", &tested.pool, || tested.is_quiet());
            tested.check_counts(number == map_pool);
        }
        wait_until("zero live values", &LIVE, || LIVE.load(SeqCst) == 0);
        let pool = &self.pools[SHORT_KEEP_ALIVE].pool;
        wait_until("without workers", pool, || pool.metrics().workers == 0);
    }

    fn step(
        &self,
        activity: &Activity,
        map_pool: usize,
        random: &mut Random,
        detached: &mut Vec<Arc<JobRecord>>,
    ) {
        let tested = &self.pools[random.below(4) as usize];
        let step = random.below(13).min(7) as usize;
        activity.begin(STEPS[step]);
        register_thread(random);
        match step {
            0 => drop_handles(tested, random, detached),
            1 => poll_submissions(tested, random),
            2 => add_callbacks(tested.submit_many(random), random),
            3 => map(&self.pools[map_pool], random),
            4 => use_short_lived_pool(random),
            5 => use_scope(tested, random),
            6 => {
                let tasks = tested.submit_many(random);
                tasks.iter().filter(|_| random.one_in(2)).for_each(cancel);
                join_all(tasks, random, false);
            }
            _ => join_all(tested.submit_many(random), random, false),
        }
    }
}

/// Waits for a condition that must hold soon.
fn wait_until(what: &str, subject: &dyn Debug, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        let waited = start.elapsed();
        assert!(waited < STEP_LIMIT / 2, "not {what}: {subject:?}");
        thread::sleep(Duration::from_millis(1));
    }
}
