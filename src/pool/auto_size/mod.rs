//! Pools that find the number of their workers: see
//! [`ThreadPoolBuilder::auto_size`](crate::ThreadPoolBuilder::auto_size).
//!
//! ```text
//!   worker ─► Probe ─► Gauge ─┐  CPU time and wall time of its jobs
//!   worker ─► Probe ─► Gauge ─┼─► Meter ─► Sample ─► Sizer ─► Change ─► PoolInner::resize
//!   timer ─► tick ────────────┘
//! ```
//!
//! The timer calls [`tick`] twice a second while the pool has jobs. A tick that finds none is the
//! last one, until a worker starts a job. A worker may start a job at that moment and not see that
//! it was the last one. Then the next job that starts makes up for that; a pool with a single job
//! needs no decision.

mod clock;
mod meter;
#[cfg(all(test, not(loom)))]
mod picture;
#[cfg(all(test, not(loom)))]
mod simulation;
mod sizer;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Weak;
use std::task::{Wake, Waker};
use std::time::Duration;

use crossbeam_utils::CachePadded;

pub(crate) use self::meter::Probe;
use self::meter::{Gauge, Meter, Part};
use self::sizer::{Change, Sizer};
use crate::error::BuildError;
use crate::pool::inner::PoolInner;
use crate::util::sync::{Arc, AtomicBool, Instant, Mutex, Ordering, fence, thread, to_std};
use crate::util::timer;
use crate::util::unwind::emit;

/// The time between two samples.
const TICK: Duration = Duration::from_millis(500);

/// What an [`auto_size`](crate::ThreadPoolBuilder::auto_size) pool has decided: see
/// [`Metrics::auto_size`](crate::Metrics::auto_size).
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), futurepool::BuildError> {
/// # if !cfg!(any(target_os = "linux", target_vendor = "apple")) { return Ok(()); }
/// let pool = futurepool::ThreadPool::builder().auto_size(2..=64).build()?;
/// let metrics = pool.metrics();
/// let size = metrics.auto_size().expect("the pool was built with auto_size");
/// println!("{} workers at most: {}, for {:?}", size.limit, size.reason, size.since.elapsed());
/// assert!((2..=64).contains(&size.limit));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AutoSize {
    /// The number of workers that the pool currently allows itself.
    pub limit: u64,
    /// The lower bound that the pool was built with.
    pub min: u64,
    /// The upper bound that the pool was built with.
    pub max: u64,
    /// The number of processors that the pool reckons with.
    pub processors: u64,
    /// The reason for the latest change of `limit`.
    pub reason: AutoSizeReason,
    /// The time of that change. Until there is one, the time at which the pool was built.
    pub since: std::time::Instant,
    /// How often `limit` has changed.
    pub changes: u64,
    /// How much of the jobs' wall time was CPU time lately, in percent. It is 0 if the jobs only
    /// wait, and if no job has run. On Linux the time in which they waited for a processor is left
    /// out.
    pub cpu_percent: u64,
}

/// Why a pool has the number of workers that it has: see [`AutoSize`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AutoSizeReason {
    /// The pool starts with the number of processors, within the bounds.
    #[default]
    Start,
    /// The jobs wait and leave processors free, so the pool grew.
    JobsWait,
    /// More workers did no more work, so the growth was taken back.
    NoGain,
    /// There were more workers than the processors can serve, so the pool shrank.
    Saturated,
    /// More workers had done no more work, or the load has changed: so the pool tries fewer.
    Surplus,
    /// Fewer workers did less work, so the shrinking was taken back.
    Loss,
}

impl fmt::Display for AutoSizeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "as many workers as processors",
            Self::JobsWait => "the jobs wait and leave processors free",
            Self::NoGain => "more workers did no more work",
            Self::Saturated => "there are more workers than the processors can serve",
            Self::Surplus => "fewer workers may do as much work",
            Self::Loss => "fewer workers did less work",
        })
    }
}

/// The part of a pool that finds the number of workers.
#[derive(Debug)]
pub(crate) struct AutoSizer {
    /// Whether the timer calls [`tick`]. Each job reads it, and it is seldom written.
    ticking: CachePadded<AtomicBool>,
    gauges: Mutex<Vec<Arc<Gauge>>>,
    /// Lock order: nothing is locked under it.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sizer: Sizer,
    meter: Meter,
    /// The time and the CPU time of the process at the last tick. `None` if that was the last one
    /// before a pause.
    last: Option<(Instant, Duration)>,
    /// For the metrics: CPU time and wall time of the last samples, in seconds. They decay. Without
    /// the wait for a processor, if that is known.
    cpu: f64,
    busy: f64,
    seen: AutoSize,
}

/// The weight of the previous samples in the metrics, against the latest one.
const DECAY: f64 = 0.8;

impl AutoSizer {
    pub(crate) fn new(bounds: &RangeInclusive<usize>) -> Result<Self, BuildError> {
        let (min, max) = (*bounds.start(), *bounds.end());
        let error = |problem| Err(BuildError::new("auto_size", problem));
        if bounds.is_empty() {
            return error(format!("{min}..={max} is empty"));
        }
        if min == 0 {
            return error("a pool needs at least 1 worker, not 0".to_owned());
        }
        if !clock::EXISTS {
            return error("this system does not tell the CPU time of a thread".to_owned());
        }
        let processors = thread::available_parallelism().map_or(1, |n| n.get());
        let sizer = Sizer::new(processors, min, max);
        let seen = AutoSize {
            limit: sizer.limit() as u64,
            min: min as u64,
            max: max as u64,
            processors: processors as u64,
            reason: AutoSizeReason::Start,
            since: to_std(Instant::now()),
            changes: 0,
            cpu_percent: 0,
        };
        Ok(Self {
            ticking: CachePadded::default(),
            gauges: Mutex::default(),
            state: Mutex::new(State {
                sizer,
                meter: Meter::default(),
                last: None,
                cpu: 0.0,
                busy: 0.0,
                seen,
            }),
        })
    }

    /// Returns the number of workers that the pool starts with.
    pub(crate) fn limit(&self) -> usize {
        self.state.lock().sizer.limit()
    }

    /// Returns the highest number of workers that it may allow.
    pub(crate) fn max(&self) -> u64 {
        self.state.lock().seen.max
    }

    pub(crate) fn metrics(&self) -> AutoSize {
        let state = self.state.lock();
        let percent = (100.0 * state.cpu / state.busy.max(1e-9)).round();
        AutoSize {
            cpu_percent: percent.clamp(0.0, 100.0) as u64,
            ..state.seen.clone()
        }
    }

    /// A worker enters its loop.
    pub(crate) fn enter(&self) -> Probe {
        let gauge = Arc::new(Gauge::of_this_thread());
        self.gauges.lock().push(Arc::clone(&gauge));
        Probe::new(gauge)
    }

    /// Takes what the gauges say, and forgets those of workers that have exited.
    fn read_gauges(&self, now: Instant) -> Vec<Part> {
        // A gauge can read a file, so it is read outside the lock.
        let gauges = self.gauges.lock().clone();
        let mut exited = Vec::new();
        let read = |gauge: &Arc<Gauge>| {
            let (part, lives) = gauge.take(now);
            if !lives {
                exited.push(Arc::clone(gauge));
            }
            part
        };
        let parts = gauges.iter().map(read).collect();
        if !exited.is_empty() {
            let is_exited =
                |gauge: &Arc<Gauge>| exited.iter().any(|other| Arc::ptr_eq(gauge, other));
            self.gauges.lock().retain(|gauge| !is_exited(gauge));
        }
        parts
    }
}

impl State {
    fn observe(
        &mut self,
        parts: &[Part],
        now: Instant,
        process_cpu: Duration,
        queued: bool,
    ) -> Option<Change> {
        // After a pause there is no interval.
        let (before, cpu_before) = self.last.replace((now, process_cpu))?;
        let interval = now.saturating_duration_since(before);
        let used = process_cpu.saturating_sub(cpu_before);
        let sample = self.meter.sample(parts, interval, used, queued);
        self.cpu = DECAY * self.cpu + sample.cpu.as_secs_f64();
        let busy = sample.busy.saturating_sub(sample.delay.unwrap_or_default());
        self.busy = DECAY * self.busy + busy.as_secs_f64();
        let change = self.sizer.observe(&sample)?;
        self.seen.limit = change.to as u64;
        self.seen.reason = change.reason;
        self.seen.since = to_std(now);
        self.seen.changes += 1;
        Some(change)
    }
}

/// A worker of `pool` is about to run a job. `after_pause`: it had to wait for the job.
pub(crate) fn job_starts(pool: &Arc<PoolInner>, probe: &mut Probe, after_pause: bool) {
    probe.start(after_pause);
    if let Some(sizer) = pool.auto_sizer() {
        if !sizer.ticking.load(Ordering::Relaxed) {
            start_ticking(pool, sizer);
        }
    }
}

#[cold]
fn start_ticking(pool: &Arc<PoolInner>, sizer: &AutoSizer) {
    // Ordering: the lock of the timer's queue orders what follows.
    if !sizer.ticking.swap(true, Ordering::Relaxed) {
        register(pool);
    }
}

/// Calls [`tick`] at its time. The timer does not keep the pool alive.
struct Tick(Weak<PoolInner>);

impl Wake for Tick {
    fn wake(self: Arc<Self>) {
        if let Some(pool) = self.0.upgrade() {
            tick(&pool);
        }
    }
}

fn register(pool: &Arc<PoolInner>) {
    let waker = Waker::from(Arc::new(Tick(Arc::downgrade(pool))));
    timer::retry_at(Instant::now() + TICK, waker);
}

/// Measures, decides, and does what was decided.
fn tick(pool: &Arc<PoolInner>) {
    let Some(sizer) = pool.auto_sizer() else {
        return;
    };
    let queued = pool.queued_jobs() > 0;
    let (now, process_cpu) = (Instant::now(), clock::process());
    let parts = sizer.read_gauges(now);
    let change = sizer.state.lock().observe(&parts, now, process_cpu, queued);
    if let Some(change) = change {
        pool.resize(change.to);
        tell(pool, change);
    }
    let works = |part: &Part| part.ended > 0 || part.running.is_some();
    if queued || parts.iter().any(works) {
        return register(pool);
    }
    sizer.state.lock().last = None;
    sizer.ticking.store(false, Ordering::Relaxed);
    // A worker that started a job before this may not have seen it.
    fence(Ordering::SeqCst);
    if pool.queued_jobs() > 0 {
        start_ticking(pool, sizer);
    }
}

fn tell(pool: &PoolInner, change: Change) {
    let Change { from, to, reason } = change;
    let pool = &pool.config().thread_name_prefix;
    emit(|| {
        tracing::info!(
            %pool, from, to, %reason,
            "auto_size: from {from} to {to} workers: {reason}",
        );
    });
}
