//! A pool, and the counts that its metrics must show.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::{hint, panic, thread};

use futurepool::{ThreadPool, ThreadPoolBuilder};

use crate::THREAD_PREFIX;
use crate::count::{Count, count, increment};
use crate::join::join_all;
use crate::random::{Random, mix};
use crate::record::{JobRecord, Kind, Task};
use crate::tracked::{InjectedPanic, Output, Tracked};
use crate::unparks::register_thread;

/// The name of a pool that is shut down, or breaks, while jobs are submitted.
pub(crate) const SHORT_LIVED: &str = "short";

/// Counted by the drivers and the jobs, and compared with the pool's own metrics.
#[derive(Debug, Default)]
pub(crate) struct ExpectedCounts {
    pub(crate) accepted: AtomicU64,
    returned: AtomicU64,
    panicked: AtomicU64,
    rejected: AtomicU64,
}

pub(crate) struct TestedPool {
    pub(crate) pool: ThreadPool,
    pub(crate) expected: Arc<ExpectedCounts>,
    short_lived: bool,
    has_initializer: bool,
    weak: Weak<TestedPool>,
}

thread_local! {
    static IS_INITIALIZED: Cell<bool> = const { Cell::new(false) };
}

/// The initializer of the pools that have one.
fn initialize() {
    let was_initialized = IS_INITIALIZED.replace(true);
    assert!(!was_initialized, "a worker was initialized twice");
}

impl TestedPool {
    pub(crate) fn new(name: &str, builder: ThreadPoolBuilder, has_initializer: bool) -> Arc<Self> {
        let mut builder = builder.thread_name_prefix(format!("{THREAD_PREFIX}{name}"));
        if has_initializer {
            builder = builder.initializer(initialize);
        }
        Arc::new_cyclic(|weak| Self {
            pool: builder.build().expect("the options are valid"),
            expected: Arc::default(),
            short_lived: name == SHORT_LIVED,
            has_initializer,
            weak: weak.clone(),
        })
    }

    /// Returns a job and its record.
    ///
    /// `drop_panics` says whether a panic is thrown when the pool drops the closure, and when the
    /// result is dropped.
    pub(crate) fn job(
        &self,
        kind: Kind,
        random: &mut Random,
        drop_panics: (bool, bool),
    ) -> (Arc<JobRecord>, impl FnOnce() -> Output + Send + use<>) {
        let record = Arc::new(JobRecord {
            seed: random.next(),
            kind,
            short_lived: self.short_lived,
            runs: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
        });
        let (own, expected, weak) = (record.clone(), self.expected.clone(), self.weak.clone());
        let (tracked, has_initializer) = (Tracked::new(drop_panics.0), self.has_initializer);
        let job = move || {
            own.start();
            tracked.disarm();
            assert!(!has_initializer || IS_INITIALIZED.get(), "not initialized");
            run(own.kind, own.seed, &weak, &expected);
            increment(&expected.returned);
            Output::new(own.seed, drop_panics.1)
        };
        (record, job)
    }

    /// Submits a random job in a random way.
    pub(crate) fn submit(&self, random: &mut Random, depth: u64) -> Task {
        let (kind, way) = (Kind::draw(random, depth), random.below(8));
        // Only `submit` never returns the closure, which would then be dropped here.
        let panics_on_drop = way > 1 && random.one_in(4);
        let (record, job) = self.job(kind, random, (panics_on_drop, false));
        let handle = match way {
            0 => self.pool.try_submit(job).or_else(|error| {
                count(Count::Rejections);
                increment(&self.expected.rejected);
                futurepool::block_on(self.pool.submit_async(error.into_inner()))
            }),
            1 => futurepool::block_on(self.pool.submit_async(job)),
            _ => Ok(self.pool.submit(job)),
        };
        // After a shutdown, `submit` returns a handle with the error.
        let handle = handle.unwrap_or_else(|error| self.pool.submit(error.into_inner()));
        increment(&self.expected.accepted);
        handle.tag(record)
    }

    pub(crate) fn submit_many(&self, random: &mut Random) -> Vec<Task> {
        let max = if random.one_in(16) { 200 } else { 16 };
        let jobs = 1 + random.below(max);
        (0..jobs).map(|_| self.submit(random, 0)).collect()
    }

    pub(crate) fn is_quiet(&self) -> bool {
        let m = self.pool.metrics();
        m.queued + m.running == 0 && m.submitted == m.completed + m.panicked + m.cancelled
    }

    /// Compares the metrics of a quiet pool with the expected counts.
    ///
    /// With `used_by_map`, only sets the expected counts: maps do not tell how many jobs they
    /// submit.
    pub(crate) fn check_counts(&self, used_by_map: bool) {
        assert!(self.is_quiet(), "the counts do not add up: {:?}", self.pool);
        let (expected, m) = (&self.expected, self.pool.metrics());
        let pairs = [
            (&expected.returned, m.completed),
            (&expected.panicked, m.panicked),
            (&expected.accepted, m.submitted),
            (&expected.rejected, m.rejected),
        ];
        // After a shutdown, a handle does not tell whether its job was accepted or rejected.
        let known = if self.short_lived { 2 } else { pairs.len() };
        for (expected, counted) in &pairs[..known] {
            let expected = expected.swap(*counted, SeqCst);
            assert!(
                expected == *counted || used_by_map,
                "counted {counted} instead of {expected}: {m:?}"
            );
        }
    }
}

/// The body of a job.
fn run(kind: Kind, seed: u64, pool: &Weak<TestedPool>, expected: &ExpectedCounts) {
    let mut random = Random(seed);
    if random.one_in(16) {
        register_thread(&mut random);
    }
    match kind {
        Kind::Short => {}
        Kind::Compute => drop(hint::black_box(
            (0..random.below(50_000)).fold(seed, |x, _| mix(x)),
        )),
        Kind::Sleep => thread::sleep(random.micros(2_000)),
        Kind::Panic => {
            count(Count::Panics);
            increment(&expected.panicked);
            panic::panic_any(InjectedPanic(seed));
        }
        Kind::Nested(depth) => {
            // If this is the last reference, the pool is dropped in its own worker.
            if let Some(pool) = pool.upgrade() {
                let jobs = 1 + random.below(4);
                let tasks = (0..jobs).map(|_| pool.submit(&mut random, depth)).collect();
                join_all(tasks, &mut random, true);
            }
        }
    }
}
