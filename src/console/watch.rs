//! What workers write down of their jobs, and how it is read without blocking them.
//!
//! ```text
//!   worker ──► Lane: sequence, place, label ──────────► sampler, a few times a second
//!      └─────► Log: exact times of some of its jobs ──►    │
//!                          mask: how many of them ◄────────┘
//! ```
//!
//! A lane belongs to the number in a worker's name, and has one writer at a time. All of it is
//! atomics: a worker takes no lock, allocates nothing for a job, and reads the clock only for the
//! jobs that the sampler asks for. The sampler reads, and writes nothing but the masks. What it
//! reads while it changes is recognised and read again.

use std::cell::{OnceCell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam_utils::CachePadded;
use crossbeam_utils::atomic::AtomicCell;

use crate::error::JoinError;
use crate::pool::labels::Labels;
use crate::task::stamp::Stamp;
use crate::task::state::Origin;

/// No job is timed, except one of four billion.
pub(crate) const TIME_NONE: u32 = u32::MAX;

/// How many timed jobs a lane keeps until the sampler reads them. A power of two.
const LOG: usize = 256;

/// How many lanes a block has.
const BLOCK: usize = 32;

/// Returns the time in nanoseconds since the first call. Never 0.
pub(crate) fn now() -> u64 {
    at_nanos(Instant::now())
}

fn at_nanos(now: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(|| now);
    let elapsed = now.saturating_duration_since(*start);
    u64::try_from(elapsed.as_nanos()).map_or(u64::MAX, |nanos| nanos.max(1))
}

/// What the console knows of a pool. The pool's workers and the sampler share it.
#[derive(Debug, Default)]
pub(crate) struct PoolWatch {
    lanes: Lanes,
    broken: AtomicBool,
    /// A job gets a stamp if its place in the order of submission has none of these bits. The
    /// sampler writes it.
    stamp_mask: Mask,
}

/// Chooses one of `mask + 1` jobs. Each submit reads it, and it is seldom written.
#[derive(Debug)]
struct Mask(CachePadded<AtomicU32>);

impl Default for Mask {
    fn default() -> Self {
        Self(CachePadded::new(AtomicU32::new(TIME_NONE)))
    }
}

impl Mask {
    #[inline]
    fn chooses(&self, number: u32) -> bool {
        number & self.0.load(Ordering::Relaxed) == 0
    }

    fn set(&self, mask: u32) {
        // Read first, so that others keep the cache line while nothing changes.
        if self.0.load(Ordering::Relaxed) != mask {
            self.0.store(mask, Ordering::Relaxed);
        }
    }
}

impl PoolWatch {
    /// Makes the calling thread the writer of a lane. `index` is the number in the worker's name.
    pub(crate) fn attach(&self, index: usize) {
        let lane = self.lanes.get_or_make(index);
        let name = || std::thread::current().name().unwrap_or("?").into();
        lane.name.get_or_init(name);
        lane.life.store(Life::Starting as u32, Ordering::Release);
        // A thread is the worker of one pool.
        let _ = OWN.try_with(|own| own.lane.set(Arc::clone(lane)));
    }

    /// The worker is no longer one. Its number may be given to another.
    pub(crate) fn detach(&self, index: usize) {
        self.set_life(index, Life::Gone);
    }

    /// The worker has run its initializer.
    pub(crate) fn in_loop(&self, index: usize) {
        self.set_life(index, Life::InLoop);
    }

    fn set_life(&self, index: usize, life: Life) {
        if let Some(lane) = self.lanes.get(index) {
            lane.life.store(life as u32, Ordering::Release);
        }
    }

    pub(crate) fn set_broken(&self) {
        self.broken.store(true, Ordering::Release);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Returns the lanes that ever had a worker, with their numbers.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (usize, &Lane)> {
        self.lanes.iter()
    }

    /// Returns whether the job with this place in the order of submission gets a stamp.
    #[inline]
    pub(crate) fn wants_stamp(&self, order: u32) -> bool {
        // The place of the first job is 0, and `TIME_NONE` must not choose it.
        self.stamp_mask.chooses(order.wrapping_add(1))
    }

    /// Returns whether each job gets a stamp.
    pub(crate) fn wants_all_stamps(&self) -> bool {
        self.stamp_mask.0.load(Ordering::Relaxed) == 0
    }

    /// Asks for stamps on one job of `mask + 1`.
    pub(crate) fn set_stamp_mask(&self, mask: u32) {
        self.stamp_mask.set(mask);
    }
}

/// The labels of the process. Their references fit into an atomic.
static LABELS: Labels<()> = Labels::new();

type Label = &'static &'static str;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Life {
    Gone,
    Starting,
    InLoop,
}

/// What one worker does. Only that worker writes it, except the mask.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Odd while a job runs. Grows by one when a job starts and when it ends.
    sequence: CachePadded<AtomicU64>,
    /// How often an outer job went on after one that ran inside of it: each counts in `sequence`.
    resumed: AtomicU64,
    /// Where the running job was submitted. Stale while none runs.
    origin: AtomicCell<Option<Origin>>,
    label: AtomicCell<Option<Label>>,
    /// When the running job started, or 0 if it is not timed.
    started: AtomicU64,
    life: AtomicU32,
    /// A job is timed if its number has none of these bits. The sampler writes it.
    mask: Mask,
    /// The timed jobs that have ended. Made by the first one.
    log: OnceLock<Box<Log>>,
    name: OnceLock<Box<str>>,
}

/// What a worker runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current {
    /// Differs from that of each other job of the lane.
    pub(crate) sequence: u64,
    pub(crate) origin: Option<Origin>,
    pub(crate) label: Option<&'static str>,
    /// `None` if the job is not timed.
    pub(crate) started: Option<u64>,
}

impl Lane {
    fn new() -> Self {
        Self {
            sequence: CachePadded::new(AtomicU64::new(0)),
            resumed: AtomicU64::new(0),
            origin: AtomicCell::new(None),
            label: AtomicCell::new(None),
            started: AtomicU64::new(0),
            life: AtomicU32::new(Life::Gone as u32),
            mask: Mask::default(),
            log: OnceLock::new(),
            name: OnceLock::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.name.get().map_or("?", |name| name)
    }

    pub(crate) fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Gone,
            1 => Life::Starting,
            _ => Life::InLoop,
        }
    }

    /// Asks the worker to time one job of `mask + 1`.
    pub(crate) fn set_mask(&self, mask: u32) {
        self.mask.set(mask);
    }

    #[cfg(test)]
    pub(crate) fn mask(&self) -> u32 {
        self.mask.0.load(Ordering::Relaxed)
    }

    /// Returns how many jobs have started, and what runs now. The second is `Err` if that changed
    /// too often meanwhile: then jobs are short.
    pub(crate) fn read(&self) -> (u64, Result<Option<Current>, Changing>) {
        let mut sequence = 0;
        for _ in 0..4 {
            // Ordering: pairs with the stores of the worker. What is read below is that of this job
            // or of a later one; the second read tells which.
            sequence = self.sequence.load(Ordering::Acquire);
            if sequence % 2 == 0 {
                return (self.jobs(sequence), Ok(None));
            }
            let started = self.started.load(Ordering::Acquire);
            let current = Current {
                sequence,
                origin: self.origin.load(),
                label: self.label.load().copied(),
                started: Some(started).filter(|&started| started != 0),
            };
            fence(Ordering::Acquire);
            if self.sequence.load(Ordering::Relaxed) == sequence {
                return (self.jobs(sequence), Ok(Some(current)));
            }
        }
        (self.jobs(sequence), Err(Changing))
    }

    fn jobs(&self, sequence: u64) -> u64 {
        let resumed = self.resumed.load(Ordering::Relaxed);
        sequence.div_ceil(2).saturating_sub(resumed)
    }

    /// Returns the timed jobs from `cursor` on, and moves it. Some may be lost if they are many.
    pub(crate) fn timed(&self, cursor: &mut u64) -> Vec<Timed> {
        self.log.get().map_or_else(Vec::new, |log| log.read(cursor))
    }

    /// Returns the time, or 0 if the log is full: then a job less is timed, instead of one lost.
    #[cold]
    fn start_time(&self) -> u64 {
        match self.log.get_or_init(Log::new).is_full() {
            true => 0,
            false => now(),
        }
    }

    #[inline]
    fn step(&self) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        // Ordering: pairs with the load in `read`. What the lane says of the job was written
        // before.
        self.sequence.store(sequence + 1, Ordering::Release);
    }
}

/// The lane has changed each time that it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Changing;

thread_local! {
    /// What this thread writes, if it is a worker.
    static OWN: Own = const { Own {
        lane: OnceCell::new(),
        outer: RefCell::new(Vec::new()),
    } };
}

struct Own {
    lane: OnceCell<Arc<Lane>>,
    /// The jobs that have a job inside of them, outermost first.
    outer: RefCell<Vec<Outer>>,
}

/// A job that goes on after the one inside of it.
#[derive(Debug, Clone, Copy)]
struct Outer {
    origin: Option<Origin>,
    label: Option<Label>,
    started: u64,
}

/// A job that runs on this thread.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct RunningJob {
    /// When it started, or 0 if it is not timed.
    started: u64,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The thread is no worker.
    Elsewhere,
    Lane,
    /// In the lane, inside of another job.
    Nested,
}

impl RunningJob {
    const ELSEWHERE: Self = Self {
        started: 0,
        place: Place::Elsewhere,
    };

    /// A job starts on this thread. Counts it if the thread is a worker. A job with a stamp is
    /// timed.
    ///
    /// The caller calls [`closure_ended`](Self::closure_ended) and then [`end`](Self::end), in
    /// between nothing unwinds.
    #[inline]
    pub(crate) fn start(origin: Origin, label: Option<&'static str>, has_stamp: bool) -> Self {
        let job = OWN.try_with(|own| match own.lane.get() {
            None => Self::ELSEWHERE,
            Some(lane) => lane.start(own, origin, label, has_stamp),
        });
        job.unwrap_or(Self::ELSEWHERE)
    }

    /// The closure of the job has returned.
    #[inline]
    pub(crate) fn closure_ended<T>(self, outcome: &Result<T, JoinError>, stamp: Stamp) {
        if self.started != 0 {
            self.log(outcome.is_err(), stamp);
        }
    }

    #[cold]
    #[inline(never)]
    fn log(self, is_bad: bool, stamp: Stamp) {
        let at = Instant::now();
        let ended = at_nanos(at);
        // The stamp has a clock of its own.
        let since_accepted = stamp.is_some().then(|| stamp.elapsed(at).as_nanos() as u64);
        let queue_wait =
            since_accepted.map_or(0, |since| since.saturating_sub(ended - self.started).max(1));
        let push = |lane: &Lane| {
            lane.log.get_or_init(Log::new).push(&Timed {
                started: self.started,
                ended,
                queue_wait,
                origin: lane.origin.load(),
                label: lane.label.load(),
                is_bad,
            });
        };
        let _ = OWN.try_with(|own| own.lane.get().map(|lane| push(lane)));
    }

    /// The job has ended, with its callbacks and wakers.
    #[inline]
    pub(crate) fn end(self) {
        if self.place == Place::Elsewhere {
            return;
        }
        let _ = OWN.try_with(|own| {
            let Some(lane) = own.lane.get() else {
                return;
            };
            lane.step();
            if self.place == Place::Nested {
                lane.resume(own);
            }
        });
    }
}

impl Lane {
    #[inline]
    fn start(
        &self,
        own: &Own,
        origin: Origin,
        label: Option<&'static str>,
        has_stamp: bool,
    ) -> RunningJob {
        let sequence = self.sequence.load(Ordering::Relaxed);
        let mut place = Place::Lane;
        if sequence % 2 == 1 {
            self.suspend(own);
            place = Place::Nested;
        }
        // From 1 on: `TIME_NONE` times none of the first four billion.
        let number = (sequence / 2 + 1) as u32;
        let is_timed = has_stamp || self.mask.chooses(number);
        let started = if is_timed { self.start_time() } else { 0 };
        let label = label.map(|label| LABELS.intern(label));
        self.write(origin, label, started);
        self.step();
        RunningJob { started, place }
    }

    #[inline]
    fn write(&self, origin: Origin, label: Option<Label>, started: u64) {
        // Ordering: a reader that sees one of these sees that the job before has ended.
        self.origin.store(Some(origin));
        self.label.store(label);
        self.started.store(started, Ordering::Release);
    }

    /// Another job starts inside of the running one.
    #[cold]
    fn suspend(&self, own: &Own) {
        own.outer.borrow_mut().push(Outer {
            origin: self.origin.load(),
            label: self.label.load(),
            started: self.started.load(Ordering::Relaxed),
        });
        // Nothing runs for a moment, so that nothing is read that belongs to two jobs.
        self.step();
    }

    /// The job inside of another one has ended.
    #[cold]
    fn resume(&self, own: &Own) {
        let outer = own.outer.borrow_mut().pop();
        if let Some((outer, origin)) = outer.and_then(|outer| Some((outer, outer.origin?))) {
            self.write(origin, outer.label, outer.started);
        }
        let resumed = self.resumed.load(Ordering::Relaxed);
        self.resumed.store(resumed + 1, Ordering::Relaxed);
        self.step();
    }
}

/// A job that was timed and has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Timed {
    pub(crate) started: u64,
    pub(crate) ended: u64,
    /// 0 if it is not known.
    pub(crate) queue_wait: u64,
    pub(crate) origin: Option<Origin>,
    pub(crate) label: Option<Label>,
    /// It did not return a value.
    pub(crate) is_bad: bool,
}

/// The timed jobs of one worker: a ring with one writer and one reader. Neither waits for the
/// other. While it is full no further job is timed. One that was started before that, or runs
/// inside of another, may overwrite the oldest.
#[derive(Debug)]
struct Log {
    /// How many were written.
    head: AtomicU64,
    /// How many were read.
    read: AtomicU64,
    entries: [Entry; LOG],
}

#[derive(Debug)]
struct Entry {
    started: AtomicU64,
    ended: AtomicU64,
    queue_wait: AtomicU64,
    origin: AtomicCell<Option<Origin>>,
    label: AtomicCell<Option<Label>>,
    is_bad: AtomicBool,
}

impl Log {
    fn new() -> Box<Self> {
        Box::new(Self {
            head: AtomicU64::new(0),
            read: AtomicU64::new(0),
            entries: std::array::from_fn(|_| Entry {
                started: AtomicU64::new(0),
                ended: AtomicU64::new(0),
                queue_wait: AtomicU64::new(0),
                origin: AtomicCell::new(None),
                label: AtomicCell::new(None),
                is_bad: AtomicBool::new(false),
            }),
        })
    }

    fn is_full(&self) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        head - self.read.load(Ordering::Relaxed) >= LOG as u64 - 1
    }

    fn push(&self, timed: &Timed) {
        let head = self.head.load(Ordering::Relaxed);
        let entry = &self.entries[head as usize % LOG];
        // Ordering: after the store of `head` by the push before. A reader that sees one of these
        // sees that the entry is being overwritten.
        entry.started.store(timed.started, Ordering::Release);
        entry.ended.store(timed.ended, Ordering::Release);
        entry.queue_wait.store(timed.queue_wait, Ordering::Release);
        entry.origin.store(timed.origin);
        entry.label.store(timed.label);
        entry.is_bad.store(timed.is_bad, Ordering::Release);
        self.head.store(head + 1, Ordering::Release);
    }

    fn read(&self, cursor: &mut u64) -> Vec<Timed> {
        // Ordering: pairs with the last store of `push`.
        let head = self.head.load(Ordering::Acquire);
        let first = (*cursor).max(head.saturating_sub(LOG as u64 - 1));
        *cursor = head;
        self.read.store(head, Ordering::Relaxed);
        let mut all = Vec::with_capacity((head - first) as usize);
        for number in first..head {
            let entry = &self.entries[number as usize % LOG];
            let timed = Timed {
                started: entry.started.load(Ordering::Acquire),
                ended: entry.ended.load(Ordering::Acquire),
                queue_wait: entry.queue_wait.load(Ordering::Acquire),
                origin: entry.origin.load(),
                label: entry.label.load(),
                is_bad: entry.is_bad.load(Ordering::Acquire),
            };
            fence(Ordering::Acquire);
            // The writer is at most in this entry's successor of one round later.
            if self.head.load(Ordering::Relaxed) < number + LOG as u64 {
                all.push(timed);
            }
        }
        all
    }
}

/// The lanes by number: blocks that are made when they are needed, and never move.
#[derive(Debug, Default)]
struct Lanes {
    lanes: [OnceLock<Arc<Lane>>; BLOCK],
    next: OnceLock<Box<Lanes>>,
}

impl Lanes {
    fn get_or_make(&self, index: usize) -> &Arc<Lane> {
        let mut block = self;
        for _ in 0..index / BLOCK {
            block = block.next.get_or_init(Box::default);
        }
        block.lanes[index % BLOCK].get_or_init(|| Arc::new(Lane::new()))
    }

    fn get(&self, index: usize) -> Option<&Arc<Lane>> {
        let mut block = self;
        for _ in 0..index / BLOCK {
            block = block.next.get()?;
        }
        block.lanes[index % BLOCK].get()
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &Lane)> {
        let blocks =
            std::iter::successors(Some(self), |block| block.next.get().map(|next| &**next));
        let all = blocks.flat_map(|block| block.lanes.iter()).enumerate();
        all.filter_map(|(index, lane)| lane.get().map(|lane| (index, &**lane)))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;

    static LABELS_OF_TESTS: [&str; 2] = ["even", "odd"];

    fn timed(number: u64) -> Timed {
        Timed {
            started: number,
            ended: number + 1,
            queue_wait: 7 * number,
            origin: Some(Location::caller()),
            label: Some(&LABELS_OF_TESTS[number as usize % 2]),
            is_bad: number % 2 == 0,
        }
    }

    #[test]
    fn a_log_gives_each_job_once_and_loses_the_oldest() {
        let log = Log::new();
        let mut cursor = 0;
        assert!(log.read(&mut cursor).is_empty());
        log.push(&timed(1));
        log.push(&timed(2));
        let read: Vec<_> = log.read(&mut cursor).iter().map(|t| t.started).collect();
        assert_eq!((read, cursor), (vec![1, 2], 2));
        for number in 3..3 + 2 * LOG as u64 {
            log.push(&timed(number));
        }
        let read = log.read(&mut cursor);
        assert_eq!(read.len(), LOG - 1);
        assert_eq!(read.last().unwrap().started, 2 + 2 * LOG as u64);
        assert!(log.read(&mut cursor).is_empty());
    }

    #[test]
    fn a_place_and_a_label_are_written_without_a_lock() {
        assert!(AtomicCell::<Option<Origin>>::is_lock_free());
        assert!(AtomicCell::<Option<Label>>::is_lock_free());
    }

    #[test]
    fn a_log_that_is_read_while_it_is_written_gives_whole_jobs() {
        let log = Arc::new(Log::new());
        let done = Arc::new(AtomicBool::new(false));
        let writer = {
            let (log, done) = (Arc::clone(&log), Arc::clone(&done));
            std::thread::spawn(move || {
                for number in 1.. {
                    log.push(&timed(number));
                    if number > 200_000 && done.load(Ordering::Acquire) {
                        return;
                    }
                }
            })
        };
        let (mut cursor, mut last, mut seen) = (0, 0, 0);
        while seen < 100_000 {
            for t in log.read(&mut cursor) {
                assert_eq!((t.ended, t.queue_wait), (t.started + 1, 7 * t.started));
                let label = LABELS_OF_TESTS[t.started as usize % 2];
                assert_eq!((t.label, t.is_bad), (Some(&label), t.started % 2 == 0));
                assert!(t.started > last);
                last = t.started;
                seen += 1;
            }
        }
        done.store(true, Ordering::Release);
        writer.join().unwrap();
    }

    #[test]
    fn a_lane_tells_what_runs_and_how_many_have_run() {
        let watch = PoolWatch::default();
        // A thread of its own, which becomes a worker.
        std::thread::scope(|scope| {
            let worker = std::thread::Builder::new().name("worker-40".into());
            let main = || {
                watch.attach(40);
                watch.in_loop(40);
                let (index, lane) = watch.lanes().next().unwrap();
                assert_eq!(
                    (index, lane.name(), lane.life()),
                    (40, "worker-40", Life::InLoop)
                );
                assert!(matches!(lane.read(), (0, Ok(None))));
                let (outer, inner) = (Location::caller(), Location::caller());
                let running = RunningJob::start(outer, None, false);
                let (jobs, current) = lane.read();
                let first = current.unwrap().unwrap();
                assert_eq!((jobs, first.origin), (1, Some(outer)));
                // A job inside of it, and then the first goes on.
                RunningJob::start(inner, Some("inner"), false).end();
                let (jobs, current) = lane.read();
                let again = current.unwrap().unwrap();
                assert_eq!((jobs, again.origin, again.label), (2, Some(outer), None));
                assert_ne!(again.sequence, first.sequence);
                running.end();
                assert!(matches!(lane.read(), (2, Ok(None))));
                watch.detach(40);
                assert_eq!(lane.life(), Life::Gone);
            };
            worker.spawn_scoped(scope, main).unwrap();
        });
    }

    #[test]
    fn any_number_of_labels_is_told_apart() {
        let watch = PoolWatch::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                watch.attach(0);
                let (_, lane) = watch.lanes().next().unwrap();
                for n in 0..3000 {
                    let label: &'static str = Box::leak(format!("GET /items/{n}").into_boxed_str());
                    let job = RunningJob::start(Location::caller(), Some(label), false);
                    let (_, current) = lane.read();
                    assert_eq!(current.unwrap().unwrap().label, Some(label));
                    job.end();
                }
            });
        });
    }

    #[test]
    fn a_mask_chooses_which_jobs_are_timed() {
        let watch = PoolWatch::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                watch.attach(0);
                let (_, lane) = watch.lanes().next().unwrap();
                let run = |jobs| {
                    for _ in 0..jobs {
                        let job = RunningJob::start(Location::caller(), None, false);
                        job.closure_ended(&Ok(()), Stamp::NONE);
                        job.end();
                    }
                };
                let mut cursor = 0;
                run(16);
                assert_eq!(lane.timed(&mut cursor).len(), 0);
                lane.set_mask(3);
                run(16);
                assert_eq!(lane.timed(&mut cursor).len(), 4);
                lane.set_mask(0);
                run(5);
                assert_eq!(lane.timed(&mut cursor).len(), 5);
                // Not more than fit until they are read.
                run(2 * LOG);
                assert_eq!(lane.timed(&mut cursor).len(), LOG - 1);
            });
        });
    }
}
