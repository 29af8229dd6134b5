//! A pool, and what this program knows of it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::{hint, panic, thread};

use futurepool::{ThreadPool, ThreadPoolBuilder};

use crate::PREFIX;
use crate::cargo::{Cargo, Fault, Parcel};
use crate::collect::collect;
use crate::count::{Count, add, count};
use crate::random::{Random, mix};
use crate::trace::{Kind, Task, Trace};
use crate::unparks::be_seen;

/// What this program knows of a pool, to be compared with the pool's own metrics.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) accepted: AtomicU64,
    returned: AtomicU64,
    panicked: AtomicU64,
    rejected: AtomicU64,
}

pub(crate) struct Site {
    pub(crate) pool: ThreadPool,
    pub(crate) ledger: Arc<Ledger>,
    brief: bool,
    has_initializer: bool,
    me: Weak<Site>,
}

thread_local! {
    static IS_READY: Cell<bool> = const { Cell::new(false) };
}

/// The initializer of those pools that have one.
pub(crate) fn get_ready() {
    assert!(!IS_READY.replace(true), "a worker was initialized twice");
}

impl Site {
    pub(crate) fn new(name: &str, builder: ThreadPoolBuilder, has_initializer: bool) -> Arc<Self> {
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
    pub(crate) fn job(
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
    pub(crate) fn submit(&self, random: &mut Random, depth: u64) -> Task {
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

    pub(crate) fn submit_many(&self, random: &mut Random) -> Vec<Task> {
        let most = if random.one_in(16) { 200 } else { 16 };
        let jobs = 1 + random.below(most);
        (0..jobs).map(|_| self.submit(random, 0)).collect()
    }

    pub(crate) fn is_quiet(&self) -> bool {
        let m = self.pool.metrics();
        m.queued + m.running == 0 && m.submitted == m.completed + m.panicked + m.cancelled
    }

    /// Nothing is under way: the pool counts as we do, unless jobs came by other ways than ours.
    pub(crate) fn check_counts(&self, loose: bool) {
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
pub(crate) fn work(kind: Kind, seed: u64, site: &Weak<Site>, ledger: &Ledger) {
    let mut random = Random(seed);
    if random.one_in(16) {
        be_seen(&mut random);
    }
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
