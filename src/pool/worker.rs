//! The workers: how they are started, what they do, how they end.

use std::cell::Cell;
use std::io;
use std::mem;

use crate::park::helping::Offering;
use crate::park::parker::{Bell, Chore, Crew, set_crew};
use crate::pool::idle::{Bed, Morning};
use crate::pool::inner::{START, Shared, Start, waits_before_its_loop};
use crate::pool::metrics::Shard;
use crate::pool::queue::Verdict;
use crate::pool::registry::{Opening, WorkerThread, join_all, wake_all};
use crate::task::cell::Watch;
use crate::task::context::{Badge, set_badge};
use crate::task::job::Job;
use crate::util::spin::Patience;
use crate::util::sync::{Arc, AtomicBool, Instant, Ordering, fence, local, thread};
use crate::util::unwind::emit;

/// There is a job in the queue: sees to it that some worker will take it. A new one is started if the others have
/// enough to do, and one is called, if there is one that sleeps and none that looks.
pub(crate) fn announce(shared: &Arc<Shared>) {
    // Between the write to the queue and the reads of who looks and who sleeps: see `idle`.
    fence(Ordering::SeqCst);
    let workers = shared.roster.workers();
    if workers < shared.roster.max_workers() && demand(shared) > workers as u64 {
        hire(shared);
    }
    shared.idle.call_one();
    shared.dozing.ring_one(workers);
}

/// How many workers would have something to do, if there were enough of them. Somebody has to take out even the husk of
/// a cancelled job.
fn demand(shared: &Shared) -> u64 {
    let least = u64::from(!shared.queue.seems_empty());
    shared.counters.demand().max(least)
}

/// Starts a worker if one more is allowed and has something to do. It looks at the queue first of all.
fn hire(shared: &Arc<Shared>) {
    let Some(opening) = shared.roster.open(|| demand(shared)) else {
        return;
    };
    let worker = opening.worker;
    match start_thread(shared, opening) {
        Ok(thread) => {
            shared.roster.opened(worker, thread);
            shared.review_end();
        }
        Err((refusal, opening)) => refused(shared, refusal, &opening),
    }
}

/// A worker falls asleep, or cannot be counted on any more: see [`dozing`](super::blocked). Says what has to be done
/// about it, by somebody who is awake.
fn review_waits(shared: &Arc<Shared>) -> Chore {
    let all_wait = shared.dozing.has(shared.roster.workers());
    // One that has no job yet was counted on to take one.
    if !all_wait && !waits_before_its_loop() {
        return Chore::None;
    }
    if let Some(at) = shared.roster.may_open(|| demand(shared)) {
        return Chore::Hire(at);
    }
    if !all_wait {
        return Chore::None;
    }
    match shared.dozing.ask_one(|| shared.roster.workers()) {
        Some(bell) => {
            bell.ring();
            Chore::None
        }
        None if shared.queue.seems_empty() => Chore::None,
        None => Chore::Nudge(shared.dozing.nudge_at(shared.counters.all_submitted())),
    }
}

/// A worker cannot be counted on any more.
fn one_less(shared: &Arc<Shared>) {
    match review_waits(shared) {
        Chore::None | Chore::Confess => {}
        // Nobody may come by here again to do it in time.
        Chore::Hire(_) | Chore::Nudge(_) => shared.dozing.ring_one(shared.roster.workers()),
    }
}

impl Crew for Shared {
    fn doze(self: Arc<Self>, bell: &Arc<Bell>, offers: Option<Offering>) -> Chore {
        self.dozing.enter(bell, offers);
        let chore = review_waits(&self);
        if chore != Chore::None {
            self.dozing.plan(bell);
        }
        chore
    }

    fn hire(self: Arc<Self>) {
        hire(&self);
    }

    fn nudge_all(self: Arc<Self>) {
        let start = Instant::now();
        wake_all(self.queue.take_wakers());
        self.dozing.nudged(start, self.counters.all_submitted());
    }

    fn stir(&self, bell: &Arc<Bell>) {
        self.dozing.leave(bell);
    }
}

fn start_thread(
    shared: &Arc<Shared>,
    opening: Opening,
) -> Result<WorkerThread, (io::Error, Opening)> {
    let config = &shared.config;
    let mut builder =
        thread::Builder::new().name(format!("{}-{}", config.thread_name_prefix, opening.name));
    if let Some(size) = config.stack_size {
        builder = builder.stack_size(size);
    }
    let Opening { worker, name } = opening;
    let shared = Arc::clone(shared);
    let emptied = Arc::new(AtomicBool::new(false));
    let last_words = LastWords(Arc::clone(&emptied));
    let serve = move || {
        // The first thread-local of this thread that has a destructor, and so the last one that is dropped.
        LAST.set(Some(last_words));
        serve(&shared, Opening { worker, name });
    };
    match builder.spawn(serve) {
        Ok(thread) => Ok(WorkerThread { thread, emptied }),
        Err(refusal) => Err((refusal, Opening { worker, name })),
    }
}

local! {
    static LAST: Cell<Option<LastWords>> = const { Cell::new(None) };
}

/// Says that the thread-locals of a worker are dropped.
struct LastWords(Arc<AtomicBool>);

impl Drop for LastWords {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The system gave no thread. With a worker alive the jobs wait for that one; with none, nobody would ever come.
fn refused(shared: &Arc<Shared>, refusal: io::Error, opening: &Opening) {
    shared.counters.spawn_failed();
    let refusal = Arc::new(refusal);
    if shared.roster.refused(opening) {
        shared.refuse_queued(Verdict::SpawnFailed(Arc::clone(&refusal)));
    }
    one_less(shared);
    shared.review_end();
    let pool = &shared.config.thread_name_prefix;
    emit(|| tracing::warn!(%pool, error = %refusal, "the system refused a thread: {refusal}"));
}

/// The life of a worker.
fn serve(shared: &Arc<Shared>, opening: Opening) {
    let name = opening.name;
    let pool = &shared.config.thread_name_prefix;
    let leaving = Leaving { shared, opening };
    set_badge(Badge {
        pool: shared.id,
        worker: Some(leaving.opening.worker),
    });
    set_crew(Some(Arc::clone(shared) as _));
    emit(|| tracing::debug!(%pool, worker = name, "a worker starts"));
    #[cfg(feature = "tokio")]
    let _runtime = shared.config.runtime.as_ref().map(|handle| handle.enter());
    START.set(Start::Initializes);
    let initialized = shared.config.initialize();
    if START.replace(Start::Over) == Start::Waits {
        Shard::down(&shared.counters.mine().kept);
    }
    shared.roster.started();
    match initialized {
        Ok(()) => work(shared),
        Err(cause) => shared.break_down(Arc::new(cause)),
    }
    // Before the event, which is foreign code: nobody may count on this worker while that runs.
    drop(leaving);
    emit(|| tracing::debug!(%pool, worker = name, "a worker ends"));
}

/// The loop: take a job, run it, repeat.
pub(crate) fn work(shared: &Arc<Shared>) {
    let bed = Bed::new();
    let patience = Patience::new();
    let mut looking = false;
    while let Some((job, after_pause)) = next_job(shared, &bed, &patience, &mut looking) {
        shared.queue.sweep();
        let mut shift = Shift {
            shared,
            looking: &mut looking,
            after_pause,
        };
        if !job.run_watched(&mut shift) {
            shared.queue.husk_gone();
        }
    }
}

/// The next job, whatever it takes, and whether it had to be waited for; `None` if there will be none, or none came for
/// long enough. `looking`: whether this worker is the one who looks, see [`idle`](super::idle).
fn next_job(
    shared: &Arc<Shared>,
    bed: &Arc<Bed>,
    patience: &Patience,
    looking: &mut bool,
) -> Option<(Job, bool)> {
    let until = |keep_alive| Instant::now().checked_add(keep_alive);
    let mut leave_at = None;
    let mut expired = false;
    let mut after_pause = *looking;
    loop {
        if let Some(job) = shared.queue.pop() {
            if mem::take(looking) {
                shared.idle.stop_looking();
                if !shared.queue.seems_empty() {
                    announce(shared);
                }
            }
            return Some((job, after_pause));
        }
        after_pause = true;
        if expired || shared.queue.is_finished() {
            if mem::take(looking) {
                shared.idle.stop_looking();
            }
            return None;
        }
        *looking = *looking || shared.idle.start_looking();
        if *looking && patience.look(|| !shared.queue.seems_empty()) {
            continue;
        }
        if leave_at.is_none() {
            leave_at = shared.config.keep_alive.and_then(until);
        }
        let is_empty = || shared.queue.seems_empty();
        match (shared.idle).sleep(bed, mem::take(looking), leave_at, is_empty) {
            Morning::Called => *looking = true,
            Morning::Up => *looking = shared.idle.start_looking(),
            Morning::Expired => expired = true,
        }
    }
}

/// What a worker sees to while it runs a job.
struct Shift<'a> {
    shared: &'a Arc<Shared>,
    looking: &'a mut bool,
    /// The worker had to wait for the job. So the queue was empty just now, and it pays to look at it when the job ends.
    /// (While there are jobs all the time, that look would cost more than all the rest.)
    after_pause: bool,
}

impl Watch for Shift<'_> {
    fn started(&mut self) {
        Shard::up(&self.shared.counters.mine().started);
    }

    fn running(&mut self) {
        self.shared.give_back_place();
    }

    fn ended(&mut self, panicked: bool, wakes: bool) {
        let mine = self.shared.counters.mine();
        if wakes {
            // First, or for a moment this worker would seem to be free.
            Shard::up(&mine.kept);
        }
        Shard::up(match panicked {
            true => &mine.panicked,
            false => &mine.completed,
        });
        // Whoever sees the result and submits the next job finds this worker looking already: rule 4 of `idle`.
        if self.after_pause && !wakes && self.shared.queue.seems_empty() {
            *self.looking = self.shared.idle.start_looking();
        }
    }

    fn woken(&mut self) {
        Shard::down(&self.shared.counters.mine().kept);
    }
}

/// What has to be done when a worker ends, however it does.
struct Leaving<'a> {
    shared: &'a Arc<Shared>,
    opening: Opening,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let Self { shared, opening } = self;
        set_badge(Badge {
            pool: shared.id,
            worker: None,
        });
        set_crew(None);
        let gone = shared.roster.left(opening);
        // A job that came while this worker was still counted on: see `idle`.
        fence(Ordering::SeqCst);
        if !shared.queue.is_empty() {
            announce(shared);
            one_less(shared);
        }
        shared.review_end();
        join_all(gone);
    }
}
