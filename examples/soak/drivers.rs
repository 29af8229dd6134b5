//! The threads that drive the pools, and who watches them.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{array, thread};

use futurepool::ThreadPool;

use crate::cargo::LIVE;
use crate::collect::collect;
use crate::count::{COUNTS, Count, totals};
use crate::memory::{Memory, Sample, status, workers};
use crate::random::{Random, mix};
use crate::site::Site;
use crate::steps::{add_callbacks, drop_handles, map, submit_half_way, use_brief_pool, use_scope};
use crate::trace::{Trace, cancel};
use crate::unparks::{be_seen, unpark_one};

const DRIVERS: usize = 4;
/// Longer than a driver ever needs for one step, also on a crowded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a thread does, and since when. `None`: it has ended.
struct Slot(Mutex<Option<(Instant, &'static str)>>);

impl Slot {
    fn begin(&self, what: &'static str) {
        self.set(Some((Instant::now(), what)));
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
    /// Used by all drivers, from the beginning to the end.
    sites: [Arc<Site>; 4],
    /// Of the drivers, and last of the main thread.
    slots: [Slot; DRIVERS + 1],
    quiet: Barrier,
    /// The time is over.
    stop: AtomicBool,
    /// The next round does not come.
    over: AtomicBool,
    memory: Memory,
}

/// The one whose workers leave soon.
const COME_AND_GO: usize = 2;

const STEPS: [&str; 8] = [
    "drops handles",
    "submits half-way",
    "adds callbacks",
    "maps",
    "uses a short-lived pool",
    "uses a scope",
    "cancels",
    "waits for jobs",
];

impl Soak {
    pub(crate) fn new() -> Self {
        let of = |workers| ThreadPool::builder().max_workers(workers);
        Self {
            sites: [
                Site::new("any", of(3), false),
                Site::new("full", of(2).queue_capacity(4), false),
                Site::new("go", of(4).keep_alive(Duration::from_millis(1)), false),
                Site::new("init", of(1).queue_capacity(64), true),
            ],
            slots: array::from_fn(|_| Slot(Mutex::default())),
            quiet: Barrier::new(DRIVERS),
            stop: AtomicBool::new(false),
            over: AtomicBool::new(false),
            memory: Memory::default(),
        }
    }

    /// Gives the memory at the end of each second.
    pub(crate) fn run(&self, seconds: u64, seed: u64) -> Vec<Sample> {
        let me = &self.slots[DRIVERS];
        me.begin("starts");
        thread::scope(|scope| {
            scope.spawn(|| self.watch());
            scope.spawn(|| self.unpark(Random(mix(!seed))));
            let drive = |number| move || self.drive(number, Random(mix(seed ^ number as u64)));
            let drivers: Vec<_> = (0..DRIVERS)
                .map(|number| scope.spawn(drive(number)))
                .collect();
            let memory = self.report(seconds);
            self.stop.store(true, SeqCst);
            me.begin("waits for the drivers");
            drivers.into_iter().for_each(|driver| drop(driver.join()));
            me.begin("ends the pools");
            for site in &self.sites {
                site.pool.shutdown().join();
            }
            // The system may show a thread for a moment after it was joined.
            wait_until("gone", &"workers", || workers() == 0);
            me.set(None);
            memory
        })
    }

    fn report(&self, seconds: u64) -> Vec<Sample> {
        let mut memory = Vec::with_capacity(seconds as usize);
        let (begin, mut before) = (Instant::now(), 0);
        for second in 1..=seconds {
            let next = begin + Duration::from_secs(second);
            thread::sleep(next.saturating_duration_since(Instant::now()));
            self.slots[DRIVERS].begin("reports");
            let (jobs, now) = (
                COUNTS[Count::Jobs as usize].load(SeqCst),
                self.memory.sample(),
            );
            let (rate, threads) = (jobs - before, status("Threads:"));
            let (totals, blocks, bytes, resident) = (totals(), now.blocks, now.bytes, now.resident);
            println!(
                "{second} s: {rate} jobs/s, {totals}, {blocks} blocks, {bytes} B, {resident} KiB, {threads} threads"
            );
            memory.push(now);
            before = jobs;
        }
        memory
    }

    /// The watchdog.
    fn watch(&self) {
        while self.slots[DRIVERS].get().is_some() {
            thread::sleep(Duration::from_millis(100));
            let slots = self.slots.each_ref().map(Slot::get);
            let is_stuck = slots.iter().flatten().any(|(time, _)| *time > PATIENCE);
            if is_stuck {
                // In another thread, since a pool that hangs may not tell.
                let sites = self.sites.clone();
                thread::spawn(move || println!("{:?}", sites.each_ref().map(|site| &site.pool)));
                thread::sleep(Duration::from_secs(1));
                panic!("no progress: {slots:?}");
            }
        }
    }

    /// All along, until the main thread has ended the pools.
    fn unpark(&self, mut random: Random) {
        while self.slots[DRIVERS].get().is_some() {
            thread::sleep(random.micros(1_000));
            unpark_one(&mut random);
        }
    }

    fn drive(&self, number: usize, mut random: Random) {
        let slot = &self.slots[number];
        for round in 0.. {
            // The pool for maps, which do not tell how many jobs they submit. In the others all is known.
            let loose = round % self.sites.len();
            let end = Instant::now() + Duration::from_millis(200) + random.micros(500_000);
            let mut detached = Vec::new();
            while Instant::now() < end && !self.stop.load(SeqCst) {
                self.step(slot, loose, &mut random, &mut detached);
            }
            slot.begin("waits for the other drivers");
            if self.quiet.wait().is_leader() {
                slot.begin("looks whether all is quiet");
                self.check_quiet(loose);
                self.over.store(self.stop.load(SeqCst), SeqCst);
            }
            self.quiet.wait();
            for trace in detached {
                assert_eq!(trace.runs.load(SeqCst), 1, "it did not run: {trace:?}");
            }
            // Now the drivers hold nothing, either.
            if self.quiet.wait().is_leader() {
                self.memory.quiet();
            }
            self.quiet.wait();
            if self.over.load(SeqCst) {
                break;
            }
        }
        slot.set(None);
    }

    fn check_quiet(&self, loose: usize) {
        for (number, site) in self.sites.iter().enumerate() {
            // Jobs whose handles were dropped may still be under way.
            wait_until("quiet", &site.pool, || site.is_quiet());
            site.check_counts(number == loose);
        }
        wait_until("dropped, all values", &LIVE, || LIVE.load(SeqCst) == 0);
        let pool = &self.sites[COME_AND_GO].pool;
        wait_until("without workers", pool, || pool.metrics().workers == 0);
    }

    fn step(&self, slot: &Slot, loose: usize, random: &mut Random, detached: &mut Vec<Arc<Trace>>) {
        let site = &self.sites[random.below(4) as usize];
        let step = random.below(13).min(7) as usize;
        slot.begin(STEPS[step]);
        be_seen(random);
        match step {
            0 => drop_handles(site, random, detached),
            1 => submit_half_way(site, random),
            2 => add_callbacks(site.submit_many(random), random),
            3 => map(&self.sites[loose], random),
            4 => use_brief_pool(random),
            5 => use_scope(site, random),
            6 => {
                let tasks = site.submit_many(random);
                tasks.iter().filter(|_| random.one_in(2)).for_each(cancel);
                collect(tasks, random, false);
            }
            _ => collect(site.submit_many(random), random, false),
        }
    }
}

/// For what has to hold soon, though not at once.
fn wait_until(what: &str, subject: &dyn Debug, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE / 2, "not {what}: {subject:?}");
        thread::sleep(Duration::from_millis(1));
    }
}
