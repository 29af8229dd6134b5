//! Whole pools under random operations: several threads, and the jobs themselves, use a pool in
//! every way at random moments. Afterwards all counts must add up.
//!
//! The schedule cannot be predicted, but many outcomes are wrong in every schedule: a job that runs
//! twice, a handle that never resolves, a cancel without a request, a capture that is dropped twice
//! or never, a count that is off by one.
//!
//! `FUTUREPOOL_SEED=7` plays round 7 alone. It does the same operations in the same threads, but
//! the system schedules them: play it often, with `FUTUREPOOL_ROUNDS=1000`. Without a seed, that
//! variable sets the number of different rounds.

use std::any::Any;
use std::cell::Cell;
use std::env;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, Weak};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{CountingWaker, Gate, LONG, Random, eventually, poll_once, poll_with, within};
use futurepool::{
    JoinError, JoinHandle, ReturnWhen, SubmitError, ThreadPool, as_completed, block_on,
    cancel_requested, wait,
};

// ---- Records ------------------------------------------------------------------------------------

/// One round. An operation is recorded *before* it is done, so that its effects are never
/// unexpected.
struct World {
    seed: u64,
    settings: Settings,
    jobs: Mutex<Vec<Arc<Record>>>,
    faults: Mutex<Vec<String>>,
    /// Captures, results, payloads and error causes that are not dropped yet.
    live: AtomicI64,
    /// Calls that the pool has answered, with a handle or an error.
    calls: AtomicU64,
    /// The sum of all results of `cancel_pending`.
    bulk_cancelled: AtomicU64,
    /// Jobs for which a cancel was requested through their handle.
    asked: AtomicU64,
    pairs: AtomicUsize,
    shut: AtomicBool,
    all_cancelled: AtomicBool,
    stopped: AtomicBool,
    broken: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    workers: usize,
    capacity: Option<usize>,
    keep_alive: Option<Duration>,
    initializes: bool,
    /// The worker start, counted from 0, that fails.
    fails_at: Option<usize>,
    threads: usize,
    /// Some actor may cancel all queued jobs or shut the pool down.
    cancels_all: bool,
    shuts: bool,
    /// Some jobs wait for others in a way that the pool does not know of.
    pairs: bool,
    /// The test keeps the pool until everything else is over, and so can check its metrics.
    keeps: bool,
}

impl Settings {
    fn new(random: &mut Random) -> Self {
        let fails_at = random.one_in(5).then(|| random.below(3));
        Self {
            workers: 1 + random.below(4),
            capacity: [None, Some(1 + random.below(4))][random.below(2)],
            keep_alive: [None, Some(Duration::ZERO), Some(Duration::from_millis(1))]
                [random.below(3)],
            initializes: fails_at.is_some() || random.one_in(2),
            fails_at,
            threads: 2 + random.below(3),
            cancels_all: random.one_in(3),
            shuts: random.one_in(3),
            pairs: random.one_in(2),
            keeps: !random.one_in(4),
        }
    }

    fn build(self, world: &Arc<World>) -> ThreadPool {
        let mut builder = ThreadPool::builder().max_workers(self.workers);
        if let Some(capacity) = self.capacity {
            builder = builder.queue_capacity(capacity);
        }
        if let Some(limit) = self.keep_alive {
            builder = builder.keep_alive(limit);
        }
        if self.initializes {
            let starts = AtomicUsize::new(0);
            let world = Arc::clone(world);
            builder = builder.initializer(move || {
                world.check(INITIALIZED.replace(world.seed) != world.seed, || {
                    "a worker was initialized twice".to_owned()
                });
                if self.fails_at == Some(starts.fetch_add(1, SeqCst)) {
                    world.broken.store(true, SeqCst);
                    if world.seed % 2 == 0 {
                        resume_unwind(Box::new(()));
                    }
                    return Err("no connection");
                }
                Ok(())
            });
        }
        builder.build().expect("the options are in order")
    }
}

thread_local! {
    /// The round for which this worker was initialized.
    static INITIALIZED: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// A job that was created, accepted by a pool or not.
#[derive(Debug, Default)]
struct Record {
    panics: bool,
    runs: AtomicUsize,
    returned: AtomicBool,
    panicked: AtomicBool,
    /// How often the captures of its closure were dropped.
    closures_dropped: AtomicUsize,
    /// A handle was returned.
    has_handle: AtomicBool,
    /// A cancel was requested through the handle; and `cancel` returned that the job is cancelled.
    asked: AtomicBool,
    cancelled: AtomicBool,
    /// Added by the owner of the handle, called by any thread.
    callbacks_added: AtomicUsize,
    callbacks_called: AtomicUsize,
    /// The outcome that the callbacks received.
    told: Mutex<Option<Outcome>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Returned,
    Panicked,
    Cancelled,
    Shutdown,
    Broken,
    /// No job may end so.
    Odd,
}

/// Counted as long as it lives: captures of the closure, the result, the payload of the panic.
struct Tracked {
    world: Arc<World>,
    record: Arc<Record>,
    is_closure: bool,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.world.live.fetch_sub(1, SeqCst);
        if self.is_closure {
            self.record.closures_dropped.fetch_add(1, SeqCst);
        }
    }
}

impl World {
    fn new(seed: u64, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            seed,
            settings,
            jobs: Mutex::default(),
            faults: Mutex::default(),
            live: AtomicI64::new(0),
            calls: AtomicU64::new(0),
            bulk_cancelled: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            pairs: AtomicUsize::new(0),
            shut: AtomicBool::new(false),
            all_cancelled: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        })
    }

    /// A panic in a job or a callback would be caught, so faults are collected.
    fn check(&self, fact: bool, fault: impl FnOnce() -> String) {
        if !fact {
            let mut faults = self.faults.lock().unwrap();
            faults.push(fault());
        }
    }

    fn tracked(self: &Arc<Self>, record: &Arc<Record>, is_closure: bool) -> Tracked {
        self.live.fetch_add(1, SeqCst);
        Tracked {
            world: Arc::clone(self),
            record: Arc::clone(record),
            is_closure,
        }
    }

    /// The outcome of a job must be possible after the recorded operations.
    fn check_outcome(&self, record: &Record, outcome: Outcome) {
        let ran = record.runs.load(SeqCst) == 1;
        let possible = match outcome {
            Outcome::Returned => ran && !record.panics,
            Outcome::Panicked => ran && record.panics,
            Outcome::Cancelled => {
                !ran && (record.asked.load(SeqCst) || self.all_cancelled.load(SeqCst))
            }
            Outcome::Shutdown => !ran && self.shut.load(SeqCst),
            Outcome::Broken => !ran && self.broken.load(SeqCst),
            Outcome::Odd => false,
        };
        self.check(possible, || format!("it cannot be {outcome:?}: {record:?}"));
        let cancelled = record.cancelled.load(SeqCst);
        self.check(!cancelled || outcome == Outcome::Cancelled, || {
            format!("cancel said true, but {outcome:?}: {record:?}")
        });
        let dropped = record.closures_dropped.load(SeqCst);
        self.check(dropped == 1, || {
            format!("the closure outlives the job: {record:?}")
        });
    }
}

fn outcome_of(outcome: Result<&Tracked, &JoinError>, record: &Arc<Record>) -> Outcome {
    match outcome {
        Ok(result) if Arc::ptr_eq(&result.record, record) => Outcome::Returned,
        Ok(_) => Outcome::Odd,
        Err(error) if error.is_panic() => Outcome::Panicked,
        Err(error) if error.is_cancelled() => Outcome::Cancelled,
        Err(error) if error.is_shutdown() => Outcome::Shutdown,
        Err(error) if error.is_broken() => Outcome::Broken,
        Err(_) => Outcome::Odd,
    }
}

// ---- Actors -------------------------------------------------------------------------------------

type Closure = Box<dyn FnOnce() -> Tracked + Send>;

/// A thread of the test, or a job; it does one operation after the other.
struct Actor {
    world: Arc<World>,
    /// Until the actor drops it.
    pool: Option<Arc<ThreadPool>>,
    random: Random,
    handles: Vec<(Arc<Record>, JoinHandle<Tracked>)>,
    /// How deep its jobs may nest.
    depth: usize,
    is_job: bool,
}

impl Actor {
    fn act(&mut self) {
        match self.random.below(38) {
            0..=6 => self.submit(),
            7..=9 => self.try_submit(),
            10..=12 => self.submit_async(),
            13..=15 => self.cancel(),
            16 => {
                if let Some((record, handle)) = self.any_handle() {
                    self.world.ask(&record);
                    drop(handle.cancel_on_drop());
                }
            }
            17 | 18 => drop(self.any_handle()),
            19..=21 => {
                if let Some((record, handle)) = self.any_handle() {
                    self.finish(record, handle);
                }
            }
            22 | 23 => self.join_timeout(),
            24..=27 => self.add_callback(),
            28 => self.poll(),
            29 => {
                if let (Some(pool), true) = (&self.pool, self.world.settings.cancels_all) {
                    self.world.all_cancelled.store(true, SeqCst);
                    let bulk_cancelled = pool.cancel_pending() as u64;
                    self.world.bulk_cancelled.fetch_add(bulk_cancelled, SeqCst);
                }
            }
            30 if self.world.settings.shuts && self.random.one_in(2) => self.shut(),
            // If the test keeps the pool, this changes little.
            31 if !self.is_job && self.random.one_in(3) => self.pool = None,
            31 | 32 => self.inspect(),
            33..=35 => self.submit_and_join(),
            36 => self.submit_pair(),
            _ => thread::yield_now(),
        }
    }

    /// Waits for all jobs whose handles it still has. A handle that never resolves hangs here.
    fn end(mut self) {
        let handles = std::mem::take(&mut self.handles);
        match self.random.below(4) {
            // In a job this wait could block on a worker that waits for a later job in the queue.
            0 if !(self.is_job && self.world.settings.pairs) => {
                let tagged = handles
                    .into_iter()
                    .map(|(record, handle)| handle.tag(record));
                let mut completed = 0..tagged.len();
                for (record, outcome) in as_completed(tagged) {
                    completed.next();
                    self.resolved(&record, outcome);
                }
                self.world
                    .check(completed.is_empty(), || "one is missing".to_owned());
            }
            1 => {
                let tagged = handles
                    .into_iter()
                    .map(|(record, handle)| handle.tag(record));
                let waited = wait(tagged, ReturnWhen::AllCompleted).join();
                let is_all = waited.not_done.is_empty();
                self.world.check(is_all, || "it waits for all".to_owned());
                for tagged in waited.done {
                    let (record, mut handle) = tagged.into_inner();
                    match handle.try_join() {
                        Some(outcome) => self.resolved(&record, outcome),
                        None => self.world.check(false, || "it was done".to_owned()),
                    }
                }
            }
            _ => {
                for (record, handle) in handles {
                    self.finish(record, handle);
                }
            }
        }
    }

    /// Returns a job that spins a little, and may act as an actor.
    fn job(&mut self) -> (Arc<Record>, Closure) {
        let record = Arc::new(Record {
            panics: self.random.one_in(6),
            ..Record::default()
        });
        let jobs = &self.world.jobs;
        jobs.lock().unwrap().push(Arc::clone(&record));
        let captured = self.world.tracked(&record, true);
        // Weak, since otherwise a queued job would keep its own pool alive.
        let pool = self.pool.as_ref().map_or_else(Weak::new, Arc::downgrade);
        let mut random = Random(self.random.next());
        let depth = self.depth;
        let closure = move || {
            let Tracked { world, record, .. } = &captured;
            record.runs.fetch_add(1, SeqCst);
            let initialized = !world.settings.initializes || INITIALIZED.get() == world.seed;
            world.check(initialized, || {
                "a job in a worker not initialized".to_owned()
            });
            match random.below(4) {
                0 => (0..random.below(20)).for_each(|_| thread::yield_now()),
                1 => spin(Duration::from_micros(random.below(200) as u64)),
                2 if cancel_requested() => {
                    let possible = record.asked.load(SeqCst) || world.stopped.load(SeqCst);
                    world.check(possible, || {
                        format!("a job saw a cancel request without a cancel: {record:?}")
                    });
                }
                _ => {}
            }
            if depth > 0 && random.one_in(3) {
                let acts = 1 + random.below(6);
                let mut actor = Actor {
                    world: Arc::clone(world),
                    pool: pool.upgrade(),
                    random,
                    handles: Vec::new(),
                    depth: depth - 1,
                    is_job: true,
                };
                (0..acts).for_each(|_| actor.act());
                actor.end();
            }
            let product = world.tracked(record, false);
            if record.panics {
                record.panicked.store(true, SeqCst);
                // A resumed panic does not reach the hook, so nothing is printed.
                resume_unwind(Box::new(product));
            }
            record.returned.store(true, SeqCst);
            product
        };
        (record, Box::new(closure))
    }

    fn submit(&mut self) {
        if let Some(pool) = self.pool.clone() {
            let (record, closure) = self.job();
            self.world.calls.fetch_add(1, SeqCst);
            let handle = pool.submit(closure);
            self.given(record, handle);
        }
    }

    /// Submits one job after the other, each when the worker of the previous job is about to park
    /// or exit.
    fn submit_and_join(&mut self) {
        for _ in 0..self.random.below(8) {
            self.submit();
            if let Some((record, handle)) = self.handles.pop() {
                self.finish(record, handle);
            }
            spin(Duration::from_nanos(self.random.below(60_000) as u64));
        }
    }

    /// Submits two jobs; the first waits until the second starts or is dropped. So the pool must
    /// give each of them a worker. There are always fewer pairs than workers, so the second job
    /// always gets one.
    fn submit_pair(&mut self) {
        let (world, settings) = (Arc::clone(&self.world), self.world.settings);
        let Some(pool) = self.pool.clone() else {
            return;
        };
        if self.is_job
            || !settings.pairs
            || world.pairs.fetch_add(1, SeqCst) + 1 >= settings.workers
        {
            return;
        }
        let gate = Gate::new();
        let opens = Opens(gate.clone());
        let (first, closure) = self.job();
        world.calls.fetch_add(2, SeqCst);
        let handle = pool.submit(move || {
            gate.wait();
            closure()
        });
        self.given(first, handle);
        let (second, closure) = self.job();
        let handle = pool.submit(move || {
            drop(opens);
            closure()
        });
        self.given(second, handle);
    }

    fn try_submit(&mut self) {
        if let Some(pool) = self.pool.clone() {
            let (record, closure) = self.job();
            self.world.calls.fetch_add(1, SeqCst);
            match pool.try_submit(closure) {
                Ok(handle) => self.given(record, handle),
                Err(error) => self.rejected(&record, error, self.world.settings.capacity.is_some()),
            }
        }
    }

    /// Drops half of the futures after they have waited for a while. Meanwhile this thread does
    /// nothing that may block: a future may already hold a permit.
    fn submit_async(&mut self) {
        let Some(pool) = self.pool.clone() else {
            return;
        };
        let (record, closure) = self.job();
        let mut future = pool.submit_async(closure);
        drop(pool);
        for _ in 0..self.random.below(3) {
            if let Poll::Ready(answer) = poll_once(&mut future) {
                return self.answered(record, answer);
            }
            thread::yield_now();
        }
        if self.random.one_in(2) {
            return;
        }
        if !self.is_job && self.random.one_in(8) {
            // The future continues, and finds the pool shut down if this was the last reference.
            if !self.world.settings.keeps {
                self.world.shut.store(true, SeqCst);
            }
            self.pool = None;
        }
        // In a worker only the waits of this crate may exceed the capacity.
        let answer = match self.is_job || self.random.one_in(2) {
            true => block_on(future),
            false => futures::executor::block_on(future),
        };
        self.answered(record, answer);
    }

    fn answered(
        &mut self,
        record: Arc<Record>,
        answer: Result<JoinHandle<Tracked>, SubmitError<Closure>>,
    ) {
        self.world.calls.fetch_add(1, SeqCst);
        match answer {
            Ok(handle) => self.given(record, handle),
            Err(error) => self.rejected(&record, error, false),
        }
    }

    fn given(&mut self, record: Arc<Record>, handle: JoinHandle<Tracked>) {
        record.has_handle.store(true, SeqCst);
        self.handles.push((record, handle));
    }

    fn rejected(&self, record: &Record, error: SubmitError<Closure>, may_be_full: bool) {
        let world = &self.world;
        let is_why = [error.is_full(), error.is_shutdown(), error.is_broken()];
        let may_be = [
            may_be_full,
            world.shut.load(SeqCst),
            world.broken.load(SeqCst),
        ];
        let reasons = is_why.iter().filter(|is| **is).count();
        let possible = is_why.iter().zip(may_be).all(|(is, may)| may || !is);
        world.check(reasons == 1 && possible, || format!("rejected: {error:?}"));
        let early = record.closures_dropped.load(SeqCst);
        drop(error.into_inner());
        let late = record.closures_dropped.load(SeqCst);
        world.check((early, late) == (0, 1), || {
            "the closure did not come back".to_owned()
        });
    }

    fn any_handle(&mut self) -> Option<(Arc<Record>, JoinHandle<Tracked>)> {
        let handles = self.handles.len();
        (handles > 0).then(|| self.handles.swap_remove(self.random.below(handles)))
    }

    fn cancel(&mut self) {
        let Some((record, handle)) = self.any_handle() else {
            return;
        };
        self.world.ask(&record);
        let is_finished = handle.is_finished();
        let is_cancelled = handle.is_cancelled();
        if handle.cancel() {
            record.cancelled.store(true, SeqCst);
            let runs = record.runs.load(SeqCst);
            self.world
                .check(runs == 0 && (is_cancelled || !is_finished), || {
                    format!("cancel cannot say true: {record:?}")
                });
        } else {
            self.world
                .check(!is_cancelled && !handle.is_cancelled(), || {
                    format!("cancel cannot say false: {record:?}")
                });
        }
        self.handles.push((record, handle));
    }

    fn join_timeout(&mut self) {
        let Some((record, mut handle)) = self.any_handle() else {
            return;
        };
        let limit = Duration::from_micros(self.random.below(300) as u64);
        match handle.join_timeout(limit) {
            Err(error) if error.is_timeout() => self.handles.push((record, handle)),
            outcome => self.resolved(&record, outcome),
        }
    }

    fn poll(&mut self) {
        let Some((record, mut handle)) = self.any_handle() else {
            return;
        };
        let (_, waker): (_, Waker) = CountingWaker::new();
        match poll_with(&mut handle, &waker) {
            Poll::Ready(outcome) => self.resolved(&record, outcome),
            Poll::Pending => self.handles.push((record, handle)),
        }
    }

    fn add_callback(&mut self) {
        let Some((record, handle)) = self.any_handle() else {
            return;
        };
        let index = record.callbacks_added.fetch_add(1, SeqCst);
        let captured = self.world.tracked(&record, false);
        let (panics, submits) = (self.random.one_in(4), self.random.one_in(4));
        let pool = self.pool.as_ref().map_or_else(Weak::new, Arc::downgrade);
        let random = Random(self.random.next());
        handle.add_done_callback(move |outcome| {
            let Tracked { world, record, .. } = &captured;
            let outcome = outcome_of(outcome, record);
            let before = record.callbacks_called.fetch_add(1, SeqCst);
            world.check(before == index, || {
                format!("callback {index} is called as number {before}: {record:?}")
            });
            let told = record.told.lock().unwrap().replace(outcome);
            world.check(told.is_none_or(|told| told == outcome), || {
                format!("callbacks received {told:?} and {outcome:?}: {record:?}")
            });
            world.check_outcome(record, outcome);
            if submits {
                // An actor that blocks could wait for a worker that waits for this job.
                let mut actor = Actor {
                    world: Arc::clone(world),
                    pool: pool.upgrade(),
                    random,
                    handles: Vec::new(),
                    depth: 0,
                    is_job: true,
                };
                actor.try_submit();
            }
            if panics {
                resume_unwind(Box::new(()));
            }
        });
        self.handles.push((record, handle));
    }

    fn shut(&mut self) {
        let Some(pool) = &self.pool else {
            return;
        };
        let world = &self.world;
        world.shut.store(true, SeqCst);
        let mut end = match self.random.one_in(2) {
            true => pool.shutdown(),
            false => {
                world.all_cancelled.store(true, SeqCst);
                world.stopped.store(true, SeqCst);
                pool.shutdown_now()
            }
        };
        match self.random.below(3) {
            // In a job this could wait for another job that waits for this one.
            0 if !self.is_job => end.join(),
            1 => drop(end.join_timeout(Duration::from_micros(50))),
            _ => drop(poll_once(&mut end)),
        }
    }

    fn inspect(&self) {
        let Some(pool) = &self.pool else {
            return;
        };
        let now = pool.metrics();
        let possible = now.completed + now.panicked + now.cancelled <= now.submitted
            && now.workers <= self.world.settings.workers as u64
            && now.idle <= now.workers
            && now.spawn_failures == 0;
        self.world.check(possible, || format!("{now:?}"));
    }

    /// Waits for one job, without a timeout: the whole round has one.
    fn finish(&mut self, record: Arc<Record>, handle: JoinHandle<Tracked>) {
        let outcome = match self.random.below(5) {
            0 | 1 => handle.join(),
            // A pair blocks a worker in a way that the pool cannot see. So it does not count as
            // blocked, and `block_on`, unlike `join`, must not run the job itself.
            2 | 3 if !(self.is_job && self.world.settings.pairs) => block_on(handle),
            // Waits of other crates run no jobs, so a worker could wait for itself.
            _ if self.is_job => handle.join(),
            _ => futures::executor::block_on(handle),
        };
        self.resolved(&record, outcome);
    }

    fn resolved(&self, record: &Arc<Record>, outcome: Result<Tracked, JoinError>) {
        let world = &self.world;
        let kind = outcome_of(outcome.as_ref(), record);
        world.check_outcome(record, kind);
        let (added, called) = (&record.callbacks_added, &record.callbacks_called);
        // The callbacks of a job that never ran come after its error is visible.
        let ran = matches!(kind, Outcome::Returned | Outcome::Panicked);
        world.check(!ran || added.load(SeqCst) == called.load(SeqCst), || {
            format!("resolved before its callbacks were called: {record:?}")
        });
        let told = *record.told.lock().unwrap();
        world.check(told.is_none_or(|told| told == kind), || {
            format!("callbacks received {told:?}, and it is {kind:?}: {record:?}")
        });
        if let Err(Ok(payload)) = outcome.map_err(JoinError::try_into_panic) {
            let payload: Box<dyn Any> = payload;
            let is_own = payload
                .downcast_ref::<Tracked>()
                .is_some_and(|payload| Arc::ptr_eq(&payload.record, record));
            world.check(is_own, || format!("an unexpected payload: {record:?}"));
        }
    }
}

impl World {
    fn ask(&self, record: &Record) {
        if !record.asked.swap(true, SeqCst) {
            self.asked.fetch_add(1, SeqCst);
        }
    }
}

struct Opens(Gate);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

// ---- A round ------------------------------------------------------------------------------------

fn play(seed: u64) {
    let mut random = Random(seed);
    let settings = Settings::new(&mut random);
    let world = World::new(seed, settings);
    let pool = Arc::new(settings.build(&world));
    let start = Barrier::new(settings.threads);
    let kept = settings.keeps.then(|| Arc::clone(&pool));
    let actors: Vec<_> = (0..settings.threads)
        .map(|_| Actor {
            world: Arc::clone(&world),
            pool: Some(Arc::clone(&pool)),
            random: Random(random.next()),
            handles: Vec::new(),
            depth: 2,
            is_job: false,
        })
        .collect();
    drop(pool);
    thread::scope(|scope| {
        for mut actor in actors {
            scope.spawn(|| {
                start.wait();
                let acts = 4 + actor.random.below(16);
                (0..acts).for_each(|_| actor.act());
                actor.end();
            });
        }
    });
    match kept {
        Some(pool) => {
            settle(&world, &pool, &mut random);
            drop(pool);
            let live = world.live.load(SeqCst);
            world.check(live == 0, || format!("{live} things are not dropped"));
        }
        // A worker may have dropped the pool, and then no thread waits for the others.
        None => eventually("all is dropped", || world.live.load(SeqCst) == 0),
    }
    for record in &*world.jobs.lock().unwrap() {
        audit(&world, record);
    }
    let faults = world.faults.lock().unwrap();
    assert!(
        faults.is_empty(),
        "FUTUREPOOL_SEED={seed}, {settings:?}:\n{}",
        faults.join("\n")
    );
}

/// Ends a pool that the test kept, and compares its metrics with the records.
fn settle(world: &Arc<World>, pool: &Arc<ThreadPool>, random: &mut Random) {
    if !random.one_in(4) {
        // All jobs finish without a shutdown, too.
        eventually("the pool is quiet", || {
            let now = pool.metrics();
            now.submitted == now.completed + now.panicked + now.cancelled
        });
        // If the pool broke now, jobs that it rejects would leave behind jobs that wait for them.
        if !world.shut.load(SeqCst) && world.settings.fails_at.is_none() {
            try_out(world, pool, random);
        }
    } else {
        // Jobs whose handles were dropped may still submit.
        world.shut.store(true, SeqCst);
    }
    pool.shutdown().join();
    let now = pool.metrics();
    world.check(
        now.workers + now.idle + now.queued + now.running == 0,
        || format!("not at its end: {now:?}"),
    );
    let jobs = world.jobs.lock().unwrap();
    let count =
        |fact: fn(&Record) -> bool| jobs.iter().filter(|record| fact(record)).count() as u64;
    let returned = count(|record| record.returned.load(SeqCst));
    let panicked = count(|record| record.panicked.load(SeqCst));
    let calls = world.calls.load(SeqCst);
    let balanced = (now.completed, now.panicked) == (returned, panicked)
        && now.submitted == now.completed + now.panicked + now.cancelled
        && now.submitted + now.rejected == calls;
    world.check(balanced, || {
        format!("{calls} calls, {returned} returned, {panicked} panicked: {now:?}")
    });
    let (bulk_cancelled, asked) = (world.bulk_cancelled.load(SeqCst), world.asked.load(SeqCst));
    let unlimited = world.stopped.load(SeqCst) || world.broken.load(SeqCst);
    let possible =
        bulk_cancelled <= now.cancelled && (unlimited || now.cancelled <= bulk_cancelled + asked);
    world.check(possible, || {
        format!("cancel_pending counted {bulk_cancelled}, {asked} handles were cancelled: {now:?}")
    });
}

/// Tests that the pool still works as a new one: all its workers start when they are needed. No
/// other thread is left that could wake a worker by chance.
fn try_out(world: &Arc<World>, pool: &Arc<ThreadPool>, random: &mut Random) {
    let mut actor = Actor {
        world: Arc::clone(world),
        pool: Some(Arc::clone(pool)),
        random: Random(random.next()),
        handles: Vec::new(),
        depth: 0,
        is_job: false,
    };
    for _ in 0..4 {
        actor.submit_and_join();
        let all_here = Arc::new(Barrier::new(pool.max_workers()));
        for _ in 0..pool.max_workers() {
            let (record, closure) = actor.job();
            let all_here = Arc::clone(&all_here);
            world.calls.fetch_add(1, SeqCst);
            let handle = pool.submit(move || {
                all_here.wait();
                closure()
            });
            actor.given(record, handle);
        }
        for (record, handle) in std::mem::take(&mut actor.handles) {
            actor.finish(record, handle);
        }
        // Long enough for some workers to exit.
        spin(Duration::from_micros(random.below(200) as u64));
    }
}

/// Checks the final state of a job after all threads have stopped.
fn audit(world: &World, record: &Record) {
    let runs = record.runs.load(SeqCst);
    let ends = [&record.returned, &record.panicked].map(|end| usize::from(end.load(SeqCst)));
    world.check(runs <= 1 && runs == ends.iter().sum(), || {
        format!("it ran {runs} times: {record:?}")
    });
    let dropped = record.closures_dropped.load(SeqCst);
    world.check(dropped == 1, || {
        format!("its closure was dropped {dropped} times: {record:?}")
    });
    let callbacks = [&record.callbacks_added, &record.callbacks_called];
    let [added, called] = callbacks.map(|count| count.load(SeqCst));
    world.check(added == called, || {
        format!("{called} of {added} callbacks were called: {record:?}")
    });
    let nobody_stopped_it = ![
        &record.asked,
        &world.all_cancelled,
        &world.shut,
        &world.broken,
    ]
    .into_iter()
    .any(|stop| stop.load(SeqCst));
    if !record.has_handle.load(SeqCst) {
        world.check(runs == 0, || format!("it was not accepted: {record:?}"));
    } else if nobody_stopped_it {
        world.check(runs == 1, || format!("it was accepted: {record:?}"));
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn the_counts_of_a_pool_add_up_after_any_operations() {
    let rounds: Range<u64> = 0..number("FUTUREPOOL_ROUNDS").unwrap_or(200);
    let (seed, rounds) = match number("FUTUREPOOL_SEED") {
        Some(seed) => (Some(seed), 0..number("FUTUREPOOL_ROUNDS").unwrap_or(1)),
        None => (None, rounds),
    };
    for round in rounds {
        let seed = seed.unwrap_or(round);
        within(LONG, &format!("FUTUREPOOL_SEED={seed}"), move || play(seed));
    }
}
