//! What the pool, its workers and its jobs share, and what any of them may do with it. (What starts threads is in
//! [`worker`](super::worker).)

use std::array;
use std::cell;
use std::process;

use crossbeam_utils::CachePadded;

use crate::error::{Cause, Closed, JoinError};
use crate::park::parker::{Refuser, refusing};
use crate::pool::blocked::Dozing;
use crate::pool::config::Config;
use crate::pool::idle::Idle;
use crate::pool::metrics::{Counters, Metrics, SHARDS, Shard, shard_of_this_thread};
use crate::pool::queue::{Queue, Verdict};
use crate::pool::registry::{Roster, wake_all};
use crate::pool::semaphore::Room;
use crate::task::cell::{Home, Sentence, Watch};
use crate::task::context::{Badge, badge, in_job};
use crate::util::sync::{Arc, AtomicBool, Ordering, local};
use crate::util::unwind::{drop_catching, emit};

#[derive(Debug)]
pub(crate) struct Shared {
    /// Unique in the process.
    pub(crate) id: u64,
    /// The process that has made it, and has its threads.
    process: u32,
    pub(crate) config: Config,
    pub(crate) queue: Queue,
    pub(crate) idle: Idle,
    pub(crate) dozing: Dozing,
    pub(crate) roster: Roster,
    pub(crate) counters: Counters,
    /// Set by `shutdown_now`: running jobs are asked to end.
    stopping: AtomicBool,
}

/// Numbers for pools.
pub(crate) fn next_id() -> u64 {
    // Numbers tell apart, and order nothing.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Shared {
    pub(crate) fn new(
        id: u64,
        config: Config,
        max_workers: usize,
        capacity: Option<usize>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            process: process::id(),
            config,
            queue: Queue::new(capacity),
            idle: Idle::default(),
            dozing: Dozing::default(),
            roster: Roster::new(max_workers),
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
        })
    }

    /// Whether this process is a copy, made by `fork`, of the one that has the threads.
    pub(crate) fn is_forked(&self) -> bool {
        self.process != process::id()
    }

    /// If this thread is one of the pool's own: as what.
    pub(crate) fn own_badge(&self) -> Option<Badge> {
        badge().filter(|badge| badge.pool == self.id)
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let roster = &self.roster;
        let queued = self.queue.room.as_ref().map(Room::queued);
        self.counters
            .read(roster.workers(), roster.starting(), queued)
    }

    /// A job has left the queue: its place goes to the one who has waited longest.
    pub(crate) fn give_back_place(&self) {
        if let Some(room) = &self.queue.room {
            wake_all(room.give_back());
        }
    }

    /// Takes no more jobs from now on.
    pub(crate) fn close(&self, why: Closed) {
        self.queue.close(why);
        self.idle.close();
        if let Some(room) = &self.queue.room {
            wake_all(room.close());
        }
        self.review_end();
    }

    /// Takes no more jobs, asks the running ones to end, cancels the queued ones.
    pub(crate) fn stop(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::Release);
        self.close_and_refuse(Closed::Shutdown, Verdict::Cancelled);
    }

    /// The jobs are sentenced before any foreign code runs, which may take its time.
    fn close_and_refuse(self: &Arc<Self>, why: Closed, verdict: Verdict) {
        self.queue.close(why.clone());
        self.condemn(verdict);
        self.close(why);
        self.refuse_condemned();
    }

    /// Whatever may have been the last thing that somebody waited for has happened.
    pub(crate) fn review_end(&self) {
        wake_all(self.roster.review_now(self.queue.is_finished()));
    }

    /// Resolves all jobs with an error that are in the queue now; says how many there were.
    pub(crate) fn refuse_queued(self: &Arc<Self>, verdict: Verdict) -> usize {
        let condemned = self.condemn(verdict);
        self.refuse_condemned();
        condemned
    }

    /// The condemned wait for no worker, so they take nobody's place any more: a callback of one may submit.
    fn condemn(&self, verdict: Verdict) -> usize {
        let (condemned, granted) = self.queue.condemn(verdict);
        wake_all(granted);
        condemned
    }

    /// One by one, first the first. A callback of one may wait for the next, which ends that itself then: see
    /// [`meet_doom`](crate::task::cell::Awaited::meet_doom). Or it may wait for somebody who waits for the next: he is
    /// told of it then.
    fn refuse_condemned(self: &Arc<Self>) {
        while let Some(job) = self.queue.pop_condemned() {
            let refused = refusing(Arc::clone(self) as _, || job.execute_sentence());
            if !refused {
                self.queue.husk_gone();
            }
        }
        self.queue.sweep();
        self.review_end();
    }

    /// An initializer failed.
    pub(crate) fn break_down(self: &Arc<Self>, cause: Cause) {
        let why = Closed::Broken(Arc::clone(&cause));
        self.close_and_refuse(why, Verdict::Broken(Arc::clone(&cause)));
        // Last, since nobody should have to wait for a subscriber.
        let pool = &self.config.thread_name_prefix;
        emit(|| tracing::error!(%pool, %cause, "the pool is broken: {cause}"));
    }

    /// Drops a closure that nobody will run.
    pub(crate) fn drop_closure<F>(closure: F) {
        drop_catching("the destructor of a job's closure", closure);
    }
}

impl Refuser for Shared {
    fn wake_condemned(&self) {
        wake_all(self.queue.condemned_wakers());
    }
}

local! {
    pub(crate) static START: cell::Cell<Start> = const { cell::Cell::new(Start::Over) };
}

/// Whether this thread is a worker that has not come to its loop yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Over,
    Initializes,
    /// It is in its initializer, and has waited there for a job of its own pool. From then on it is not counted on.
    Waits,
}

/// Whether this worker, when it sleeps, may wait for jobs of its pool although it has none itself.
pub(crate) fn waits_before_its_loop() -> bool {
    START.get() == Start::Waits
}

/// How a job reaches its pool.
#[derive(Clone)]
pub(crate) struct PoolHome(Arc<CachePadded<Arc<Shared>>>);

/// Homes for jobs. Each thread takes from one of a few, or all that submit at the same time would count references in
/// the same place, and be in each other's way.
pub(crate) struct Homes([PoolHome; SHARDS]);

impl Homes {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let home = |_| PoolHome(Arc::new(CachePadded::new(Arc::clone(shared))));
        Self(array::from_fn(home))
    }

    pub(crate) fn mine(&self) -> PoolHome {
        self.0[shard_of_this_thread()].clone()
    }
}

impl Home for PoolHome {
    fn withdrawing(&self) {
        Shard::up(&self.0.counters.mine().withdrawn);
    }

    fn withdrawn(&self, husk: bool, had_place: bool) {
        let shared = &**self.0;
        match had_place {
            true => shared.give_back_place(),
            // Who sentenced the job may be about to give its place back.
            false => shared.queue.await_sentences(),
        }
        if husk {
            shared.queue.husk_made();
            shared.queue.sweep();
        }
    }

    fn not_run(&self) {
        Shard::up(&self.0.counters.mine().cancelled);
    }

    fn stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    fn sentence(&self, sentence: Sentence) -> JoinError {
        self.0.queue.error_of(sentence)
    }

    fn is_here(&self) -> bool {
        let badge = self.0.own_badge();
        let here = badge.is_some_and(|badge| badge.worker.is_some());
        if here && START.get() == Start::Initializes {
            START.set(Start::Waits);
            Shard::up(&self.0.counters.mine().kept);
        }
        here
    }

    fn help(&self, run: &mut dyn FnMut(&mut dyn Watch)) {
        run(&mut Helping {
            shared: &self.0,
            counts_already: in_job() || waits_before_its_loop(),
        });
    }
}

/// What a worker sees to while it runs a job that it waits for.
struct Helping<'a> {
    shared: &'a Shared,
    /// What waits for it is counted as something that keeps this worker: a job, or an initializer.
    counts_already: bool,
}

impl Watch for Helping<'_> {
    fn started(&mut self) {
        let mine = self.shared.counters.mine();
        Shard::up(&mine.started);
        if self.counts_already {
            Shard::up(&mine.helped);
        }
    }

    fn running(&mut self) {
        self.shared.give_back_place();
        self.shared.queue.husk_made();
        self.shared.queue.sweep();
    }

    fn ended(&mut self, panicked: bool, _: bool) {
        let mine = self.shared.counters.mine();
        if self.counts_already {
            Shard::down(&mine.helped);
        }
        Shard::up(match panicked {
            true => &mine.panicked,
            false => &mine.completed,
        });
    }
}
