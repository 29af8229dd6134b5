//! Hours of everything at once, on several pools, with faults put in on purpose and every promise checked all along.
//!
//! ```text
//! cargo run --release --example soak -- --seconds 3600 [--seed S]
//!
//! --seconds N    how long it runs (default: 10)
//! --seed S       what the drivers draw their choices from (default: the clock; it is printed)
//! ```
//!
//! Driver threads submit jobs and wait for them in most ways there are. Again and again they all
//! stop, until nothing is under way: at such a quiet moment all counts have to add up.
//!
//! It prints a line each second, and a verdict. The exit status is 1 as soon as a promise is broken, or if a driver gets
//! nowhere for 30 seconds; wrong arguments are status 2.

use std::cell::Cell;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};
use std::{array, fs, hint, panic, process, thread};

use futurepool::{JoinError, JoinHandle, ReturnWhen, Tagged, ThreadPool, ThreadPoolBuilder};
use futurepool::{as_completed, wait};
use futures::executor::block_on; // a foreign one; this crate's is called by its full name
use futures::{FutureExt, StreamExt, future::join_all};

const DRIVERS: usize = 4;
/// Longer than a driver ever needs for one step, also on a crowded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of the names of all threads of our pools. Those of others begin by that of the program, if they have none of their own.
const PREFIX: &str = "job-";

static SEED: AtomicU64 = AtomicU64::new(0);
/// How many values of type [`Cargo`] there are.
static LIVE: AtomicI64 = AtomicI64::new(0);

#[derive(Clone, Copy)]
enum Count {
    Jobs,
    Panics,
    /// Callbacks that panicked.
    Callbacks,
    /// Destructors that panicked.
    Bombs,
    Cancels,
    Drops,
    Timeouts,
    /// By `try_submit`.
    Refusals,
    /// That were short-lived.
    Pools,
}

const NAMES: [&str; 9] = [
    "jobs",
    "panics",
    "callbacks",
    "bombs",
    "cancels",
    "drops",
    "timeouts",
    "refusals",
    "pools",
];
static COUNTS: [AtomicU64; 9] = [const { AtomicU64::new(0) }; 9];

fn count(what: Count) {
    add(&COUNTS[what as usize]);
}

fn add(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, SeqCst)
}

fn main() {
    let (seconds, seed) = options().unwrap_or_else(|error| {
        eprintln!("soak: {error}\nUsage: soak [--seconds N] [--seed S]");
        process::exit(2)
    });
    SEED.store(seed, SeqCst);
    println!("seed {seed}, {seconds} seconds");
    exit_at_foreign_panics();
    judge_memory(&Soak::new().run(seconds, seed));
    println!("totals: {}, seed {seed}", totals());
    println!("verdict: every promise was kept");
}

fn options() -> Result<(u64, u64), lexopt::Error> {
    use lexopt::prelude::*;

    let clock = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let (mut seconds, mut seed) = (10, mix(clock.as_nanos() as u64));
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("seconds") => seconds = arguments.value()?.parse()?,
            Long("seed") => seed = arguments.value()?.parse()?,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok((seconds, seed))
}

/// The payload of every panic that is meant to be, with the seed of the job.
struct Fault(u64);

/// Any other panic, in whatever thread, is a broken promise: this program checks by `assert!`.
fn exit_at_foreign_panics() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Fault>() {
            default(info);
            println!("totals: {}", totals());
            println!("verdict: FAILED (seed {}): {info}", SEED.load(SeqCst));
            process::exit(1);
        }
    }));
}

/// For what has to hold soon, though not at once.
fn wait_until(what: &str, subject: &dyn Debug, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE / 2, "not {what}: {subject:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Splitmix64: enough for choices.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn micros(&mut self, end: u64) -> Duration {
        Duration::from_micros(self.below(end))
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What closures capture and results hold. The destructor of a bomb panics.
struct Cargo {
    bomb: bool,
}

impl Cargo {
    fn new(bomb: bool) -> Self {
        LIVE.fetch_add(1, SeqCst);
        Self { bomb }
    }

    /// By value, or a closure would capture the flag alone.
    fn disarm(mut self) {
        self.bomb = false;
    }
}

impl Drop for Cargo {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, SeqCst);
        if self.bomb && !thread::panicking() {
            count(Count::Bombs);
            panic::panic_any(Fault(0));
        }
    }
}

/// The result of a job.
struct Parcel {
    seed: u64,
    number: u64,
    _cargo: Cargo,
}

impl Parcel {
    fn new(seed: u64, bomb: bool) -> Self {
        let (number, _cargo) = (mix(seed), Cargo::new(bomb));
        Self {
            seed,
            number,
            _cargo,
        }
    }
}

/// The seed of the job that returned or panicked.
fn open(outcome: Result<Parcel, JoinError>) -> u64 {
    match outcome {
        Ok(parcel) => {
            assert_eq!(parcel.number, mix(parcel.seed), "not what the job made");
            parcel.seed
        }
        Err(error) => match error.into_panic().downcast::<Fault>() {
            Ok(fault) => fault.0,
            Err(_) => panic!("not the payload that was thrown"),
        },
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Short,
    Compute,
    Sleep,
    Panic,
    /// Submits jobs to its own pool and waits for them, so deep.
    Nested(u64),
}

impl Kind {
    fn draw(random: &mut Random, depth: u64) -> Self {
        match random.below(32) {
            0 | 1 => Self::Panic,
            2..=5 => Self::Compute,
            6 | 7 => Self::Sleep,
            8 | 9 if depth < 3 => Self::Nested(depth + 1),
            _ => Self::Short,
        }
    }
}

/// What is known of a job, to its driver and to itself.
#[derive(Debug)]
struct Trace {
    seed: u64,
    kind: Kind,
    /// Its pool may be shut down, or break, at any time.
    brief: bool,
    runs: AtomicU64,
    /// It must not run any more.
    withdrawn: AtomicBool,
}

impl Trace {
    fn begin(&self) {
        count(Count::Jobs);
        assert_eq!(add(&self.runs), 0, "it ran twice: {self:?}");
        assert!(!self.withdrawn.load(SeqCst), "it must not run: {self:?}");
    }

    fn withdraw(&self) {
        self.withdrawn.store(true, SeqCst);
        assert_eq!(self.runs.load(SeqCst), 0, "it ran, and did not: {self:?}");
    }

    /// Looks whether the job may end so.
    fn settle(&self, outcome: Result<Parcel, JoinError>) {
        let ran = outcome.as_ref().err().is_none_or(JoinError::is_panic);
        let may_be = match &outcome {
            Ok(_) => self.kind != Kind::Panic,
            Err(error) if error.is_panic() => self.kind == Kind::Panic,
            Err(error) if error.is_cancelled() => self.brief || self.withdrawn.load(SeqCst),
            Err(error) => self.brief && (error.is_shutdown() || error.is_broken()),
        };
        let error = outcome.as_ref().err();
        assert!(may_be, "it ended by {error:?}: {self:?}");
        let runs = self.runs.load(SeqCst);
        assert_eq!(runs, ran.into(), "it ended by {error:?}: {self:?}");
        assert!(!ran || open(outcome) == self.seed, "another's: {self:?}");
    }
}

type Task = Tagged<Arc<Trace>, JoinHandle<Parcel>>;

fn join(task: Task) {
    let (trace, handle) = task.into_inner();
    trace.settle(handle.join());
}

/// If it is cancelled it never runs, and nothing is left of its closure.
fn cancel(task: &Task) {
    let (trace, handle) = (task.key(), task.get_ref());
    if handle.cancel() {
        count(Count::Cancels);
        trace.withdraw();
        assert!(handle.is_cancelled() && handle.cancel(), "{handle:?}");
        // The closure captured another.
        assert_eq!(Arc::strong_count(trace), 1, "the closure lives: {trace:?}");
    }
}

/// Waits for jobs in one of many ways.
fn collect(tasks: Vec<Task>, random: &mut Random, in_worker: bool) {
    let settle = |(trace, outcome): (Arc<Trace>, _)| trace.settle(outcome);
    match random.below(8) {
        0 => tasks.into_iter().for_each(join),
        1 => as_completed(tasks).into_iter().for_each(settle),
        2 => tasks.into_iter().map(futurepool::block_on).for_each(settle),
        // In a worker only this crate's waits see to it that the jobs run.
        3 if in_worker => (futurepool::block_on(join_all(tasks)).into_iter()).for_each(settle),
        3 => block_on(join_all(tasks)).into_iter().for_each(settle),
        4 if !in_worker => block_on(as_completed(tasks).map(settle).collect()),
        5 => wait_for_some(tasks, random),
        6 => {
            for task in tasks {
                let (trace, mut handle) = task.into_inner();
                let mut outcome = handle.join_timeout(random.micros(500));
                if outcome.as_ref().is_err_and(JoinError::is_timeout) {
                    count(Count::Timeouts);
                    outcome = handle.join();
                }
                trace.settle(outcome);
            }
        }
        _ => {
            let mut timed = as_completed(tasks).timeout(random.micros(2_000));
            while let Some(item) = timed.wait_next() {
                item.map_or_else(|_| count(Count::Timeouts), settle);
            }
            timed.into_pending().into_iter().for_each(join);
        }
    }
}

fn wait_for_some(tasks: Vec<Task>, random: &mut Random) {
    let until = match random.below(3) {
        0 => ReturnWhen::AllCompleted,
        1 => ReturnWhen::FirstCompleted,
        _ => ReturnWhen::FirstException,
    };
    let waited = wait(tasks, until).join();
    assert!(until != ReturnWhen::AllCompleted || waited.not_done.is_empty());
    assert!(!waited.done.is_empty() || waited.not_done.is_empty());
    for task in waited.done {
        let (trace, mut handle) = task.into_inner();
        trace.settle(handle.try_join().expect("it is done"));
    }
    waited.not_done.into_iter().for_each(join);
}

/// What this program knows of a pool, to be compared with the pool's own metrics.
#[derive(Debug, Default)]
struct Ledger {
    accepted: AtomicU64,
    returned: AtomicU64,
    panicked: AtomicU64,
    rejected: AtomicU64,
}

struct Site {
    pool: ThreadPool,
    ledger: Arc<Ledger>,
    brief: bool,
    has_initializer: bool,
    me: Weak<Site>,
}

thread_local! {
    static IS_READY: Cell<bool> = const { Cell::new(false) };
}

/// The initializer of those pools that have one.
fn get_ready() {
    assert!(!IS_READY.replace(true), "a worker was initialized twice");
}

impl Site {
    fn new(name: &str, builder: ThreadPoolBuilder, has_initializer: bool) -> Arc<Self> {
        let mut builder = builder.thread_name_prefix(format!("{PREFIX}{name}"));
        if has_initializer {
            builder = builder.initializer(get_ready);
        }
        Arc::new_cyclic(|me| Self {
            pool: builder.build().expect("the options are in order"),
            ledger: Arc::default(),
            brief: name == "brief",
            has_initializer,
            me: me.clone(),
        })
    }

    /// A job to be submitted. The first bomb is for a closure that the pool drops, the second for a result.
    fn job(
        &self,
        kind: Kind,
        random: &mut Random,
        bombs: (bool, bool),
    ) -> (Arc<Trace>, impl FnOnce() -> Parcel + Send + use<>) {
        let trace = Arc::new(Trace {
            seed: random.next(),
            kind,
            brief: self.brief,
            runs: AtomicU64::new(0),
            withdrawn: AtomicBool::new(false),
        });
        let (own, ledger, site) = (trace.clone(), self.ledger.clone(), self.me.clone());
        let (cargo, has_initializer) = (Cargo::new(bombs.0), self.has_initializer);
        let job = move || {
            own.begin();
            cargo.disarm();
            assert!(!has_initializer || IS_READY.get(), "not initialized");
            work(own.kind, own.seed, &site, &ledger);
            add(&ledger.returned);
            Parcel::new(own.seed, bombs.1)
        };
        (trace, job)
    }

    /// Submits some job in some way.
    fn submit(&self, random: &mut Random, depth: u64) -> Task {
        let (kind, way) = (Kind::draw(random, depth), random.below(8));
        // Only `submit` never gives the closure back, to be dropped here.
        let bomb = way > 1 && random.one_in(4);
        let (trace, job) = self.job(kind, random, (bomb, false));
        let handle = match way {
            0 => self.pool.try_submit(job).or_else(|error| {
                count(Count::Refusals);
                add(&self.ledger.rejected);
                futurepool::block_on(self.pool.submit_async(error.into_inner()))
            }),
            1 => futurepool::block_on(self.pool.submit_async(job)),
            _ => Ok(self.pool.submit(job)),
        };
        // A pool that has ended gives a handle that says so.
        let handle = handle.unwrap_or_else(|error| self.pool.submit(error.into_inner()));
        add(&self.ledger.accepted);
        handle.tag(trace)
    }

    fn submit_many(&self, random: &mut Random) -> Vec<Task> {
        let most = if random.one_in(16) { 200 } else { 16 };
        let jobs = 1 + random.below(most);
        (0..jobs).map(|_| self.submit(random, 0)).collect()
    }

    fn is_quiet(&self) -> bool {
        let m = self.pool.metrics();
        m.queued + m.running == 0 && m.submitted == m.completed + m.panicked + m.cancelled
    }

    /// Nothing is under way: the pool counts as we do, unless jobs came by other ways than ours.
    fn check_counts(&self, loose: bool) {
        assert!(self.is_quiet(), "the counts do not add up: {:?}", self.pool);
        let (ledger, m) = (&self.ledger, self.pool.metrics());
        let both = [
            (&ledger.returned, m.completed),
            (&ledger.panicked, m.panicked),
            // A handle of a pool that has ended does not tell whether the job was accepted before.
            (&ledger.accepted, m.submitted),
            (&ledger.rejected, m.rejected),
        ];
        let exact = if self.brief { 2 } else { both.len() };
        for (ours, theirs) in &both[..exact] {
            let ours = ours.swap(*theirs, SeqCst);
            assert!(ours == *theirs || loose, "{ours} and not {theirs}: {m:?}");
        }
    }
}

/// The body of a job.
fn work(kind: Kind, seed: u64, site: &Weak<Site>, ledger: &Ledger) {
    let mut random = Random(seed);
    match kind {
        Kind::Short => {}
        Kind::Compute => drop(hint::black_box(
            (0..random.below(50_000)).fold(seed, |x, _| mix(x)),
        )),
        Kind::Sleep => thread::sleep(random.micros(2_000)),
        Kind::Panic => {
            count(Count::Panics);
            add(&ledger.panicked);
            panic::panic_any(Fault(seed));
        }
        Kind::Nested(depth) => {
            // If this is the last to hold it, the pool is dropped in its own worker.
            if let Some(site) = site.upgrade() {
                let jobs = 1 + random.below(4);
                let tasks = (0..jobs).map(|_| site.submit(&mut random, depth)).collect();
                collect(tasks, &mut random, true);
            }
        }
    }
}

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

struct Soak {
    /// Used by all drivers, from the beginning to the end.
    sites: [Arc<Site>; 4],
    /// Of the drivers, and last of the main thread.
    slots: [Slot; DRIVERS + 1],
    quiet: Barrier,
    /// The time is over.
    stop: AtomicBool,
    /// The next round does not come.
    over: AtomicBool,
}

/// The one whose workers leave soon.
const COME_AND_GO: usize = 2;

const STEPS: [&str; 7] = [
    "drops handles",
    "submits half-way",
    "adds callbacks",
    "maps",
    "uses a short-lived pool",
    "cancels",
    "waits for jobs",
];

impl Soak {
    fn new() -> Self {
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
        }
    }

    /// Gives the resident size of each second.
    fn run(&self, seconds: u64, seed: u64) -> Vec<u64> {
        let me = &self.slots[DRIVERS];
        me.begin("starts");
        thread::scope(|scope| {
            scope.spawn(|| self.watch());
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

    fn report(&self, seconds: u64) -> Vec<u64> {
        let mut memory = Vec::with_capacity(seconds as usize);
        let (begin, mut before) = (Instant::now(), 0);
        for second in 1..=seconds {
            let next = begin + Duration::from_secs(second);
            thread::sleep(next.saturating_duration_since(Instant::now()));
            self.slots[DRIVERS].begin("reports");
            let (jobs, size) = (COUNTS[Count::Jobs as usize].load(SeqCst), status("VmRSS:"));
            let (rate, threads) = (jobs - before, status("Threads:"));
            println!(
                "{second} s: {rate} jobs/s, {}, {size} KiB, {threads} threads",
                totals()
            );
            memory.push(size);
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
        let step = random.below(12).min(6) as usize;
        slot.begin(STEPS[step]);
        match step {
            0 => drop_handles(site, random, detached),
            1 => submit_half_way(site, random),
            2 => add_callbacks(site.submit_many(random), random),
            3 => map(&self.sites[loose], random),
            4 => use_brief_pool(random),
            5 => {
                let tasks = site.submit_many(random);
                tasks.iter().filter(|_| random.one_in(2)).for_each(cancel);
                collect(tasks, random, false);
            }
            _ => collect(site.submit_many(random), random, false),
        }
    }
}

/// Detached jobs run. Those that are cancelled by the drop run once or not at all.
fn drop_handles(site: &Site, random: &mut Random, detached: &mut Vec<Arc<Trace>>) {
    for _ in 0..random.below(16) {
        let (kind, cancels) = (Kind::draw(random, 0), random.one_in(2));
        let bombs = (cancels && random.one_in(4), random.one_in(4));
        let (trace, job) = site.job(kind, random, bombs);
        let handle = site.pool.submit(job);
        add(&site.ledger.accepted);
        count(Count::Drops);
        if cancels {
            drop(handle.cancel_on_drop());
        } else {
            drop(handle);
            detached.push(trace);
        }
    }
}

/// `submit_async` that is polled once, and then dropped or awaited.
fn submit_half_way(site: &Site, random: &mut Random) {
    let (mut waiting, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..1 + random.below(12) {
        let (trace, job) = site.job(Kind::Sleep, random, (false, false));
        let mut submission = site.pool.submit_async(job);
        if let Some(handle) = (&mut submission).now_or_never() {
            tasks.push(handle.expect("the pool is open").tag(trace));
        } else if random.one_in(2) {
            drop(submission);
            count(Count::Drops);
            trace.withdraw();
        } else {
            waiting.push(submission.map(|handle| handle.expect("the pool is open").tag(trace)));
        }
    }
    tasks.extend(block_on(join_all(waiting)));
    site.ledger.accepted.fetch_add(tasks.len() as u64, SeqCst);
    collect(tasks, random, false);
}

/// They run once each, in order, whatever becomes of the job, and have run when the result is there.
fn add_callbacks(tasks: Vec<Task>, random: &mut Random) {
    let mut all_calls = Vec::new();
    for task in &tasks {
        let calls = Arc::new(AtomicU64::new(0));
        let added = random.below(4);
        for turn in 0..added {
            let (calls, cargo, panics) = (calls.clone(), Cargo::new(false), random.one_in(4));
            task.get_ref().add_done_callback(move |_| {
                cargo.disarm();
                assert_eq!(add(&calls), turn, "callbacks out of order");
                if panics {
                    count(Count::Callbacks);
                    panic::panic_any(Fault(0));
                }
            });
        }
        if random.one_in(4) {
            cancel(task);
        }
        all_calls.push((calls, added));
    }
    collect(tasks, random, false);
    for (calls, added) in all_calls {
        assert_eq!(calls.load(SeqCst), added, "callbacks that ran");
    }
}

/// To its end or half-way, in sync code and in async code.
fn map(site: &Site, random: &mut Random) {
    let mut seeds: Vec<_> = (0..random.below(40)).map(|_| random.next()).collect();
    let cargo = Cargo::new(false);
    let work = move |seed| {
        let _ = &cargo;
        count(Count::Jobs);
        if seed % 16 == 0 {
            count(Count::Panics);
            panic::panic_any(Fault(seed));
        }
        Parcel::new(seed, false)
    };
    let (buffer, chunk) = (1 + random.below(16), 1 + random.below(4));
    if random.one_in(2) {
        let results = site.pool.map_unordered(seeds.clone(), work);
        let results = results.chunk_size(chunk as usize);
        let mut got: Vec<_> = results.into_iter().map(open).collect();
        got.sort_unstable();
        seeds.sort_unstable();
        return assert_eq!(got, seeds, "what map_unordered gave");
    }
    let results = site.pool.map(seeds.clone(), work);
    let mut results = results
        .buffer_size(buffer as usize)
        .chunk_size(chunk as usize);
    for seed in seeds {
        if random.one_in(64) {
            return count(Count::Drops);
        }
        let result = match random.one_in(2) {
            true => results.wait_next(),
            false => block_on(results.next()),
        };
        assert_eq!(result.map(open), Some(seed), "what map gave");
    }
    assert!(results.wait_next().is_none(), "a map has no end");
}

/// One that is ended at some moment, in some way, while another thread submits.
fn use_brief_pool(random: &mut Random) {
    count(Count::Pools);
    let mut builder = ThreadPool::builder().max_workers(1 + random.below(4) as usize);
    if random.one_in(2) {
        builder = builder.queue_capacity(1 + random.below(8) as usize);
    }
    if random.one_in(4) {
        builder = builder.keep_alive(random.micros(500));
    }
    let has_initializer = random.one_in(4);
    let breaks = !has_initializer && random.one_in(8);
    if breaks {
        builder = builder.initializer(|| Err("it cannot be"));
    }
    let site = Site::new("brief", builder, has_initializer);
    let (shared, mut choices) = (site.clone(), Random(random.next()));
    let tasks = thread::scope(|scope| {
        let submitter = scope.spawn(move || shared.submit_many(&mut choices));
        thread::sleep(random.micros(500));
        let pool = &site.pool;
        match random.below(6) {
            0 => pool.shutdown().join(),
            1 => pool.shutdown_now().join(),
            2 => block_on(pool.shutdown_now()),
            3 => {
                let end = pool.shutdown().join_timeout(random.micros(500));
                end.unwrap_or_else(|_| count(Count::Timeouts));
            }
            4 => drop(pool.cancel_pending()),
            _ => {}
        }
        submitter.join().expect("it does not panic")
    });
    if random.one_in(2) {
        // What is queued still runs.
        drop(site);
        return collect(tasks, random, false);
    }
    collect(tasks, random, false);
    site.check_counts(false);
}

/// A figure of this process; 0 where the system does not tell. (`statm` has the same, in pages of unknown size.)
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

/// How many threads our pools have; 0 where the system does not tell.
fn workers() -> usize {
    let threads = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let names = threads.flat_map(|thread| fs::read_to_string(thread.path().join("comm")));
    names.filter(|name| name.starts_with(PREFIX)).count()
}

fn totals() -> String {
    let words = NAMES.iter().zip(&COUNTS);
    let words: Vec<_> = words
        .map(|(name, n)| format!("{} {name}", n.load(SeqCst)))
        .collect();
    words.join(", ")
}

/// The last minute may not need more than the first one, after 5 seconds to warm up. Of a short run it compares fifths,
/// and only shows them.
fn judge_memory(kib: &[u64]) {
    let is_long = kib.len() >= 180;
    let part = if is_long { 60 } else { kib.len() / 5 };
    let warm = kib.get(5..).unwrap_or_default();
    if part == 0 || warm.len() < part {
        return println!("memory: too short a run to tell");
    }
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len() as f64;
    let (first, last) = (mean(&warm[..part]), mean(&warm[warm.len() - part..]));
    let growth = (last / first.max(1.0) - 1.0) * 100.0;
    println!("memory: {first:.0} KiB at first, {last:.0} KiB at last, {growth:+.1} %");
    assert!(!is_long || growth <= 5.0, "memory grew by {growth:.1} %");
}
