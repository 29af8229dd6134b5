//! Looks at the pools a few times a second while a client asks, and remembers the last minute.
//!
//! There is one sampler in a process, whatever number of consoles it serves. Workers never take its
//! lock. It holds no lock of a pool while it computes, and it takes none that a job takes.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;

use crate::console::registry::{self, Kind, LivePool, MAX_INCIDENTS};
use crate::console::snapshot::{
    Age, AutoSize as AutoSizeView, Bar, Incident, Jobs, Lane as LaneView, Point, Pool, Process,
    Quantiles, Rates, Snapshot, Totals, What,
};
use crate::console::watch::{Lane, Life, TIME_NONE, Timed, now};
use crate::pool::{AutoSize, AutoSizer, Metrics, PoolInner};
use crate::task::state::Origin;
use crate::util::sync::Mutex;

/// The time between two looks.
pub(crate) const TICK: Duration = Duration::from_millis(200);

/// How long the sampler goes on after the last request: a page that is loaded again has its
/// timeline.
pub(crate) const LINGER: Duration = Duration::from_secs(60);

/// How far the timeline goes back, in nanoseconds.
const SPAN: u64 = 61_000_000_000;

/// Over how much time the rates are taken, in nanoseconds.
const RATE_SPAN: u64 = 2_000_000_000;

/// How many jobs a worker is asked to time between two looks.
const TIMED_A_TICK: u64 = 100;

/// How many jobs of a pool get a stamp between two looks, for each of its first workers.
const STAMPS_A_TICK: u64 = 50;

/// How many timed jobs are remembered for a pool.
const MAX_TIMED: usize = 8192;

/// How many bars a lane gets for one tick. If there are more jobs, they share one.
const BARS_A_TICK: usize = 8;

/// How many lanes of a pool are shown.
const MAX_LANES: usize = 64;

/// How many bars of a pool are remembered.
const MAX_BARS: usize = 12_000;

/// How many places and labels are told apart. The last number stands for all others.
const MAX_WHATS: usize = 1000;

/// How many rows the table of jobs has.
const MAX_JOBS: usize = 12;

static SAMPLER: Mutex<Option<Sampler>> = Mutex::new(None);

/// They stay while nothing asks. Lock order: after `SAMPLER`.
static INCIDENTS: Mutex<Incidents> = Mutex::new(Incidents {
    list: VecDeque::new(),
    next: 0,
});

/// The last incidents with their numbers, the newest last.
struct Incidents {
    list: VecDeque<(u64, registry::Incident)>,
    next: u64,
}

impl Incidents {
    /// Takes those that are new.
    fn take(&mut self) {
        for incident in registry::take_incidents() {
            let mut known = self.list.iter();
            if let Some(place) = known.position(|(_, other)| other.is_like(&incident)) {
                if let Some((number, mut same)) = self.list.remove(place) {
                    same.happened_again(incident);
                    self.list.push_back((number, same));
                }
                continue;
            }
            if self.list.len() >= MAX_INCIDENTS {
                self.list.pop_front();
            }
            self.list.push_back((self.next, incident));
            self.next += 1;
        }
    }
}

/// Looks at the pools if the last look is old enough. Returns false if the last request is too long
/// ago for this to go on.
pub(crate) fn tick() -> bool {
    let mut sampler = SAMPLER.lock();
    let Some(running) = &mut *sampler else {
        return false;
    };
    if now() > running.until {
        let ended = sampler.take();
        drop(sampler);
        drop(ended);
        stop_timing();
        return false;
    }
    let looked_at = running.tick_if_due();
    // A pool may end here, and values of its user with it: so not under the lock.
    drop(sampler);
    drop(looked_at);
    true
}

/// The last console ends.
pub(crate) fn stop() {
    let ended = SAMPLER.lock().take();
    if ended.is_some() {
        stop_timing();
    }
}

fn stop_timing() {
    for pool in registry::live_pools() {
        for (_, lane) in pool.inner.watch().lanes() {
            lane.set_mask(TIME_NONE);
        }
        pool.inner.watch().set_stamp_mask(TIME_NONE);
    }
}

/// Returns what there is, and what is new since the tick `after` of the epoch `epoch`. Without a
/// tick, leaves out the timeline.
pub(crate) fn snapshot(epoch: u64, after: Option<u64>) -> Snapshot {
    // Both are system calls, so they precede the lock.
    let (program, pid) = (program(), std::process::id());
    let mut guard = SAMPLER.lock();
    let sampler = guard.get_or_insert_with(Sampler::new);
    sampler.until = now() + nanos(LINGER);
    let looked_at = sampler.tick_if_due();
    let is_known = epoch == sampler.epoch;
    let after = after.map_or(u64::MAX, |after| if is_known { after } else { 0 });
    let snapshot = sampler.snapshot(after, program, pid);
    drop(guard);
    drop(looked_at);
    snapshot
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

struct Sampler {
    epoch: u64,
    tick: u64,
    started: u64,
    /// When it ends, unless a client asks before.
    until: u64,
    looked: u64,
    pools: BTreeMap<u64, History>,
    whats: Whats,
}

/// The places and labels that were seen, with their numbers.
#[derive(Default)]
struct Whats {
    numbers: HashMap<(usize, Option<&'static str>), usize>,
    list: Vec<What>,
}

impl Whats {
    fn number(&mut self, origin: Option<Origin>, label: Option<&'static str>) -> Option<usize> {
        let origin = origin?;
        let key = (std::ptr::from_ref(origin).addr(), label);
        if let Some(&number) = self.numbers.get(&key) {
            return Some(number);
        }
        if self.list.len() + 1 == MAX_WHATS {
            self.list.push(What {
                label: Some("(others)".to_owned()),
                place: String::new(),
            });
        }
        if self.list.len() == MAX_WHATS {
            return Some(MAX_WHATS - 1);
        }
        let number = self.list.len();
        self.list.push(What {
            label: label.map(str::to_owned),
            place: place(origin),
        });
        self.numbers.insert(key, number);
        Some(number)
    }
}

fn place(origin: Origin) -> String {
    format!("{}:{}", origin.file(), origin.line())
}

/// What is remembered of a pool.
struct History {
    name: String,
    capacity: Option<u64>,
    kind: Kind,
    state: &'static str,
    max_workers: u64,
    auto_size: Option<AutoSize>,
    metrics: Metrics,
    looks: VecDeque<Look>,
    /// How many jobs were submitted at a time, as far back as the oldest queued one may be.
    accepted: VecDeque<(u64, u64)>,
    lanes: BTreeMap<usize, LaneHistory>,
    timed: VecDeque<TimedJobs>,
    bars: VecDeque<(u64, Bar)>,
    processes: Vec<Process>,
    processes_at: u64,
}

/// The counters of a pool at a time.
#[derive(Debug, Clone, Copy)]
struct Look {
    tick: u64,
    at: u64,
    submitted: u64,
    started: u64,
    finished: u64,
    rejected: u64,
    queued: u64,
    max_workers: u64,
}

#[derive(Default)]
struct LaneHistory {
    name: String,
    life: Option<Life>,
    /// Where to go on in the log of the timed jobs.
    cursor: u64,
    jobs: u64,
    running: Option<Seen>,
    is_changing: bool,
    /// For the last ticks: when, how many jobs, and the busy share.
    busy: VecDeque<(u64, u64, f64)>,
}

/// A job that runs, as it was seen.
#[derive(Clone, Copy)]
struct Seen {
    sequence: u64,
    /// When it was seen first, or when it started.
    since: u64,
    is_exact: bool,
    what: Option<usize>,
}

/// A timed job, which stands for others.
#[derive(Clone, Copy)]
struct TimedJobs {
    at: u64,
    run_time: u64,
    /// 0 if it is not known.
    queue_wait: u64,
    what: Option<usize>,
    weight: f64,
    is_bad: bool,
}

impl Sampler {
    fn new() -> Self {
        let now = now();
        Self {
            // Another program on the same port must have another one. As short as JavaScript's
            // numbers.
            epoch: RandomState::new().hash_one(now) >> 12,
            tick: 0,
            started: now,
            until: now,
            looked: 0,
            pools: BTreeMap::new(),
            whats: Whats::default(),
        }
    }

    /// Returns the pools that it has looked at. The caller drops them without the lock.
    fn tick_if_due(&mut self) -> Vec<LivePool> {
        let now = now();
        // A little earlier than a tick, as timers come late.
        if self.tick > 0 && now.saturating_sub(self.looked) < nanos(TICK) * 3 / 4 {
            return Vec::new();
        }
        let before = self.looked;
        self.looked = now;
        self.tick += 1;
        let live = registry::live_pools();
        INCIDENTS.lock().take();
        self.pools
            .retain(|id, _| live.iter().any(|pool| pool.inner.id() == *id));
        for pool in &live {
            let id = pool.inner.id();
            let history = self.pools.entry(id).or_insert_with(|| History::new(pool));
            history.look(pool, self.tick, now, before, &mut self.whats);
        }
        live
    }

    fn snapshot(&self, after: u64, program: String, pid: u32) -> Snapshot {
        let now = now();
        let incident = |(number, incident): &(u64, registry::Incident)| {
            let submitted = || incident.origin.map(place);
            Incident {
                number: *number,
                ago_us: now.saturating_sub(incident.at) / 1000,
                times: incident.times,
                kind: incident.kind,
                pool: incident.pool,
                pool_name: incident.pool_name.clone(),
                worker: incident.worker.clone(),
                what: incident.label.or(incident.task).map(str::to_owned),
                place: Some(incident.place.clone())
                    .filter(|place| !place.is_empty())
                    .or_else(submitted),
                message: incident.message.clone(),
                pid: incident.pid,
            }
        };
        Snapshot {
            version: 1,
            program,
            pid,
            epoch: self.epoch,
            tick: self.tick,
            now: now / 1000,
            since: self.started / 1000,
            whats: self.whats.list.clone(),
            pools: (self.pools.iter())
                .map(|(&id, pool)| pool.view(id, now, after))
                .collect(),
            incidents: INCIDENTS.lock().list.iter().rev().map(incident).collect(),
        }
    }
}

/// Returns the file name of this program.
fn program() -> String {
    let path = std::env::current_exe().ok();
    let name = path.as_deref().and_then(std::path::Path::file_name);
    name.map_or_else(
        || "?".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

impl History {
    fn new(pool: &LivePool) -> Self {
        let inner = &pool.inner;
        Self {
            name: inner.config().thread_name_prefix.clone(),
            capacity: inner
                .semaphore()
                .map(|semaphore| semaphore.capacity() as u64),
            kind: pool.kind,
            state: "open",
            max_workers: 0,
            auto_size: None,
            metrics: Metrics::default(),
            looks: VecDeque::new(),
            accepted: VecDeque::new(),
            lanes: BTreeMap::new(),
            timed: VecDeque::new(),
            bars: VecDeque::new(),
            processes: Vec::new(),
            processes_at: 0,
        }
    }

    fn look(&mut self, pool: &LivePool, tick: u64, at: u64, before: u64, whats: &mut Whats) {
        let inner = &*pool.inner;
        // The limit and its reason are of the same decision, although the pool can make one
        // meanwhile.
        self.auto_size = inner.auto_sizer().map(AutoSizer::metrics);
        self.max_workers = match &self.auto_size {
            Some(size) => size.limit,
            None => inner.registry().max_workers() as u64,
        };
        self.look_at_counters(inner, tick, at);
        self.state = state(inner);
        self.kind = pool.kind;
        inner.watch().set_stamp_mask(self.stamp_mask());
        let before = before.max(self.looks.front().map_or(at, |look| look.at));
        let mut living = 0;
        for (index, lane) in inner.watch().lanes() {
            living += usize::from(lane.life() != Life::Gone);
            let is_shown = living <= MAX_LANES;
            self.look_at_lane(index, lane, is_shown, (tick, before, at), whats);
        }
        let old = at.saturating_sub(SPAN);
        while self.timed.front().is_some_and(|job| job.at < old) || self.timed.len() > MAX_TIMED {
            self.timed.pop_front();
        }
        let us = old / 1000;
        while self.bars.front().is_some_and(|(_, bar)| bar.to < us) || self.bars.len() > MAX_BARS {
            self.bars.pop_front();
        }
        self.look_at_processes(pool, at);
    }

    /// Returns which jobs should have stamps.
    fn stamp_mask(&self) -> u32 {
        #[cfg(all(unix, feature = "process"))]
        if self.kind == Kind::Processes {
            // Beside a trip to a process a stamp costs nothing, and with it the name of the task is
            // known.
            return 0;
        }
        let submitted = self.looks.iter().rev().take(2).map(|look| look.submitted);
        let new = submitted.reduce(u64::saturating_sub).unwrap_or(0);
        mask_for(new, self.metrics.workers.clamp(1, 8) * STAMPS_A_TICK)
    }

    fn look_at_counters(&mut self, inner: &PoolInner, tick: u64, at: u64) {
        let metrics = inner.metrics_without_lock();
        let finished = metrics.completed + metrics.panicked + metrics.cancelled + metrics.failed;
        self.looks.push_back(Look {
            tick,
            at,
            submitted: metrics.submitted,
            started: inner.counters().started(),
            finished,
            rejected: metrics.rejected,
            queued: metrics.queued,
            max_workers: self.max_workers,
        });
        while self.looks.front().is_some_and(|look| look.at + SPAN < at) {
            self.looks.pop_front();
        }
        self.accepted.push_back((at, metrics.submitted));
        // The jobs before the oldest queued one are of no interest.
        let started = metrics.submitted.saturating_sub(metrics.queued);
        while self.accepted.get(1).is_some_and(|next| next.1 <= started) {
            self.accepted.pop_front();
        }
        if self.accepted.len() > 2000 {
            let mut number = 0;
            self.accepted.retain(|_| {
                number += 1;
                number % 2 == 1 || number > 1000
            });
        }
        self.metrics = metrics;
    }

    /// Returns the age of the oldest queued job, from the times at which jobs were counted as
    /// submitted.
    ///
    /// Jobs start in the order of submission, roughly. In another order the oldest one can only be
    /// older: so many are queued, and only so many are younger.
    fn oldest(&self, now: u64) -> Option<Age> {
        if self.metrics.queued == 0 {
            return None;
        }
        let started = self.metrics.submitted.saturating_sub(self.metrics.queued);
        let first = self.accepted.front()?;
        // It came before the first look, or between the first two that are remembered.
        let was_there = first.1 > started;
        let at = match was_there {
            true => first.0,
            false => self.accepted.get(1).map_or(first.0, |next| next.0),
        };
        Some(Age {
            us: now.saturating_sub(at) / 1000,
            at_least: was_there,
        })
    }

    fn look_at_lane(
        &mut self,
        index: usize,
        lane: &Lane,
        is_shown: bool,
        (tick, before, at): (u64, u64, u64),
        whats: &mut Whats,
    ) {
        let is_new = !self.lanes.contains_key(&index);
        let history = self.lanes.entry(index).or_default();
        let timed = lane.timed(&mut history.cursor);
        let (jobs, current) = lane.read();
        if is_new {
            history.name = lane.name().to_owned();
            history.jobs = jobs;
        }
        history.life = Some(lane.life());
        let mut what = |origin, label| whats.number(origin, label);
        let was_running = history.running;
        history.is_changing = current.is_err();
        history.running = match current {
            Ok(Some(current)) => {
                let seen = was_running.filter(|seen| seen.sequence == current.sequence);
                Some(seen.unwrap_or_else(|| Seen {
                    sequence: current.sequence,
                    since: current.started.unwrap_or(at),
                    is_exact: current.started.is_some(),
                    what: what(current.origin, current.label),
                }))
            }
            Ok(None) | Err(_) => None,
        };
        let is_running = history.running.is_some() || history.is_changing;
        let new = jobs.saturating_sub(history.jobs);
        history.jobs = jobs;
        // Those that have ended since the last look.
        let ended = (new + u64::from(was_running.is_some())).saturating_sub(u64::from(is_running));
        let weight = (ended as f64 / timed.len().max(1) as f64).max(1.0);
        let mut ran = 0.0;
        for job in &timed {
            let run_time = job.ended.saturating_sub(job.started);
            ran += weight * job.ended.saturating_sub(job.started.max(before)) as f64;
            self.timed.push_back(TimedJobs {
                at,
                run_time,
                queue_wait: job.queue_wait,
                what: what(job.origin, job.label.copied()),
                weight,
                is_bad: job.is_bad,
            });
        }
        // Also the part of the running job.
        if let Some(seen) = &history.running {
            ran += at.saturating_sub(seen.since.max(before)) as f64;
        }
        let span = at.saturating_sub(before);
        let was_untimed = was_running.is_some_and(|seen| !seen.is_exact);
        let busy = match span {
            0 => f64::from(u8::from(is_running)),
            _ if timed.is_empty() && was_untimed => 1.0,
            _ => (ran / span as f64).min(1.0),
        };
        history.busy.push_back((at, new, busy));
        while (history.busy.front()).is_some_and(|(then, ..)| then + RATE_SPAN < at) {
            history.busy.pop_front();
        }
        lane.set_mask(mask_for(new, TIMED_A_TICK));
        if is_shown && !is_new {
            let bars = bars(index, &timed, ended, was_running, (before, at), busy, what);
            self.bars.extend(bars.into_iter().map(|bar| (tick, bar)));
        }
    }

    #[cfg(all(unix, feature = "process"))]
    fn look_at_processes(&mut self, pool: &LivePool, at: u64) {
        use crate::process::WorkerInfo;

        // A look at the memory of a process takes some system calls.
        let Some(list) = &pool.processes else {
            return;
        };
        if self.processes_at != 0 && at - self.processes_at < 1_000_000_000 {
            return;
        }
        self.processes_at = at;
        let view = |info: WorkerInfo| Process {
            pid: info.pid,
            state: info.state.to_string(),
            memory: info.resident_memory,
            jobs_done: info.jobs_done,
            task: info.task.map(String::from),
            label: info.label.map(String::from),
            age_us: info
                .since
                .map(|since| u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)),
        };
        let workers = list.workers();
        self.processes = workers
            .iter()
            .filter_map(WorkerInfo::of)
            .map(view)
            .collect();
    }

    #[cfg(not(all(unix, feature = "process")))]
    fn look_at_processes(&mut self, _: &LivePool, at: u64) {
        self.processes_at = at;
    }

    fn view(&self, id: u64, now: u64, after: u64) -> Pool {
        let metrics = &self.metrics;
        let all: Vec<_> = self.timed.iter().collect();
        let (queue_wait, run_time) = quantiles(&all);
        let lanes: Vec<_> = self.living_lanes().collect();
        let more_lanes = lanes.len().saturating_sub(MAX_LANES);
        Pool {
            id,
            name: self.name.clone(),
            kind: match self.kind {
                Kind::Threads => "threads",
                Kind::Stateful => "stateful",
                #[cfg(all(unix, feature = "process"))]
                Kind::Processes => "processes",
            },
            state: self.state,
            max_workers: self.max_workers,
            auto_size: self.auto_size.as_ref().map(AutoSizeView::of),
            capacity: self.capacity,
            workers: metrics.workers,
            idle: metrics.idle,
            running: metrics.running,
            queued: metrics.queued,
            oldest: self.oldest(now),
            totals: Totals {
                submitted: metrics.submitted,
                completed: metrics.completed,
                panicked: metrics.panicked,
                cancelled: metrics.cancelled,
                expired: metrics.expired,
                failed: metrics.failed,
                rejected: metrics.rejected,
                spawn_failures: metrics.spawn_failures,
            },
            rates: self.rates(),
            queue_wait,
            run_time,
            jobs: self.jobs(now),
            lanes: lanes
                .into_iter()
                .take(MAX_LANES)
                .map(|(index, lane)| lane.view(index, now))
                .collect(),
            more_lanes,
            points: self.points(after),
            bars: (self.bars.iter())
                .filter(|(tick, _)| *tick > after)
                .map(|(_, bar)| *bar)
                .collect(),
            processes: self.processes.clone(),
        }
    }

    fn living_lanes(&self) -> impl Iterator<Item = (usize, &LaneHistory)> {
        let alive = |lane: &&LaneHistory| lane.life.is_some_and(|life| life != Life::Gone);
        let all = self.lanes.iter().map(|(index, lane)| (*index, lane));
        all.filter(move |(_, lane)| alive(lane))
    }

    fn rates(&self) -> Option<Rates> {
        let last = self.looks.back()?;
        let from = last.at.saturating_sub(RATE_SPAN);
        let first = self.looks.iter().find(|look| look.at >= from)?;
        let seconds = last.at.saturating_sub(first.at) as f64 / 1e9;
        if seconds <= 0.0 {
            return None;
        }
        let rate =
            |of: fn(&Look) -> u64| round(of(last).saturating_sub(of(first)) as f64 / seconds);
        Some(Rates {
            submitted: rate(|look| look.submitted),
            started: rate(|look| look.started),
            finished: rate(|look| look.finished),
            rejected: rate(|look| look.rejected),
        })
    }

    fn points(&self, after: u64) -> Vec<Point> {
        let pairs = self.looks.iter().zip(self.looks.iter().skip(1));
        let new = pairs.filter(|(_, look)| look.tick > after);
        let point = |(before, look): (&Look, &Look)| {
            let seconds = look.at.saturating_sub(before.at).max(1) as f64 / 1e9;
            let rate = |now: u64, then: u64| round(now.saturating_sub(then) as f64 / seconds);
            Point {
                at: look.at / 1000,
                submitted: rate(look.submitted, before.submitted),
                started: rate(look.started, before.started),
                finished: rate(look.finished, before.finished),
                queued: look.queued,
                rejected: look.rejected.saturating_sub(before.rejected),
                max_workers: look.max_workers,
            }
        };
        new.map(point).collect()
    }

    /// Returns where the time of the last minute went.
    fn jobs(&self, now: u64) -> Vec<Jobs> {
        let mut groups: BTreeMap<usize, Vec<&TimedJobs>> = BTreeMap::new();
        for job in &self.timed {
            if let Some(what) = job.what {
                groups.entry(what).or_default().push(job);
            }
        }
        // The jobs that are remembered may be those of less than a minute.
        let first = self.timed.front().map_or(now, |job| job.at);
        let seconds = (now.saturating_sub(first) as f64 / 1e9).max(0.2);
        let time = |jobs: &[&TimedJobs]| -> f64 {
            jobs.iter()
                .map(|job| job.weight * job.run_time as f64)
                .sum()
        };
        let total: f64 = groups.values().map(|jobs| time(jobs)).sum();
        let mut rows: Vec<_> = groups
            .into_iter()
            .filter_map(|(what, jobs)| {
                let (queue_wait, run_time) = quantiles(&jobs);
                Some(Jobs {
                    what,
                    per_second: round(jobs.iter().map(|job| job.weight).sum::<f64>() / seconds),
                    share: if total > 0.0 {
                        time(&jobs) / total
                    } else {
                        0.0
                    },
                    queue_wait,
                    run_time: run_time?,
                    bad: jobs.iter().filter(|job| job.is_bad).count(),
                })
            })
            .collect();
        rows.sort_by(|a, b| b.share.total_cmp(&a.share));
        rows.truncate(MAX_JOBS);
        rows
    }
}

/// Returns the mask that chooses some `wanted` of `jobs`: from half to all of that.
fn mask_for(jobs: u64, wanted: u64) -> u32 {
    let one_of = jobs.div_ceil(wanted).max(1).checked_next_power_of_two();
    one_of.map_or(TIME_NONE, |one_of| {
        u32::try_from(one_of - 1).unwrap_or(TIME_NONE)
    })
}

fn state(inner: &PoolInner) -> &'static str {
    if inner.watch().is_broken() {
        "broken"
    } else if inner.is_shut_down() {
        "shut down"
    } else {
        "open"
    }
}

/// Returns what a lane did between two looks.
fn bars(
    lane: usize,
    timed: &[Timed],
    ended: u64,
    was_running: Option<Seen>,
    (before, at): (u64, u64),
    busy: f64,
    mut what: impl FnMut(Option<Origin>, Option<&'static str>) -> Option<usize>,
) -> Vec<Bar> {
    if ended == 0 && timed.is_empty() {
        return Vec::new();
    }
    let mut exact = |job: &Timed| Bar {
        lane,
        from: job.started / 1000,
        to: job.ended / 1000,
        what: what(job.origin, job.label.copied()),
        jobs: 1,
        busy: 1.0,
        flag: u8::from(job.is_bad),
    };
    if timed.len() <= BARS_A_TICK && timed.len() as u64 >= ended {
        return timed.iter().map(exact).collect();
    }
    // One that began before this tick has a bar of its own, and the others share the rest.
    let (long, short): (Vec<_>, Vec<_>) = timed.iter().partition(|job| job.started < before);
    let mut bars: Vec<_> = long.iter().copied().map(&mut exact).collect();
    let from = long.iter().map(|job| job.ended).fold(before, u64::max);
    let mut left = ended.saturating_sub(long.len() as u64);
    if let (Some(seen), true) = (was_running, long.is_empty()) {
        // It was not timed: its times are those of the looks.
        bars.push(Bar {
            lane,
            from: seen.since / 1000,
            to: before / 1000,
            what: seen.what,
            jobs: 1,
            busy: 1.0,
            flag: 2,
        });
        left = left.saturating_sub(1);
    }
    let left = left.max(short.len() as u64);
    if left > 0 && from < at {
        let mut what = |job: &Timed| what(job.origin, job.label.copied());
        let first = short.first().and_then(|job| what(job));
        let is_same = short.iter().all(|job| what(job) == first);
        bars.push(Bar {
            lane,
            from: from / 1000,
            to: at / 1000,
            what: first.filter(|_| is_same),
            jobs: left,
            busy: busy as f32,
            flag: u8::from(short.iter().any(|job| job.is_bad)),
        });
    }
    bars
}

impl LaneHistory {
    fn view(&self, index: usize, now: u64) -> LaneView {
        let is_running = self.running.is_some() || self.is_changing;
        let ticks = self.busy.len().max(1) as f64;
        let jobs: u64 = self.busy.iter().skip(1).map(|(_, jobs, _)| jobs).sum();
        let span = match (self.busy.front(), self.busy.back()) {
            (Some(first), Some(last)) => last.0.saturating_sub(first.0) as f64 / 1e9,
            _ => 0.0,
        };
        LaneView {
            index,
            name: self.name.clone(),
            state: match self.life {
                Some(Life::Starting) => "starting",
                _ if is_running => "running",
                _ => "idle",
            },
            what: self.running.and_then(|seen| seen.what),
            age: self.running.map(|seen| Age {
                us: now.saturating_sub(seen.since) / 1000,
                at_least: !seen.is_exact,
            }),
            jobs_per_second: if span > 0.0 {
                round(jobs as f64 / span)
            } else {
                0.0
            },
            busy: self.busy.iter().map(|(_, _, busy)| busy).sum::<f64>() / ticks,
        }
    }
}

impl AutoSizeView {
    fn of(size: &AutoSize) -> Self {
        Self {
            min: size.min,
            max: size.max,
            processors: size.processors,
            changes: size.changes,
            reason: size.reason.to_string(),
            ago_us: u64::try_from(size.since.elapsed().as_micros()).unwrap_or(u64::MAX),
            cpu_percent: size.cpu_percent,
        }
    }
}

/// Two digits after the point are enough, and make short answers.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Returns the quantiles of queue wait and run time.
fn quantiles(jobs: &[&TimedJobs]) -> (Option<Quantiles>, Option<Quantiles>) {
    let waits = jobs.iter().filter(|job| job.queue_wait > 0);
    let waits = waits.map(|job| (job.queue_wait, job.weight)).collect();
    let runs = jobs.iter().map(|job| (job.run_time, job.weight)).collect();
    (weighted(waits), weighted(runs))
}

fn weighted(mut values: Vec<(u64, f64)>) -> Option<Quantiles> {
    values.sort_unstable_by_key(|(value, _)| *value);
    let total: f64 = values.iter().map(|(_, weight)| weight).sum();
    let quantile = |q: f64| {
        let mut left = q * total;
        let found = values.iter().find(|(_, weight)| {
            left -= weight;
            left <= 0.0
        });
        found.or(values.last()).map(|(value, _)| *value)
    };
    Some(Quantiles {
        p50_us: round(quantile(0.5)? as f64 / 1e3),
        p99_us: round(quantile(0.99)? as f64 / 1e3),
        of: values.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::panic::Location;
    use std::sync::{Arc, Barrier};

    use super::*;
    use crate::ThreadPool;

    /// The sampler is one for the process, and so are these tests.
    static ALONE: Mutex<()> = Mutex::new(());

    fn mask_of(pool: &ThreadPool) -> Vec<u32> {
        let inner = pool.inner();
        inner.watch().lanes().map(|(_, lane)| lane.mask()).collect()
    }

    #[test]
    fn workers_are_asked_for_times_only_while_clients_ask() {
        let _alone = ALONE.lock();
        let pool = ThreadPool::new(1);
        pool.submit(|| ()).join().unwrap();
        assert_eq!(mask_of(&pool), [TIME_NONE]);
        assert!(!tick(), "nothing has asked");
        snapshot(0, Some(0));
        assert_eq!(mask_of(&pool), [0]);
        assert!(tick());
        // The last request was long ago.
        if let Some(sampler) = &mut *SAMPLER.lock() {
            sampler.until = 0;
        }
        assert!(!tick());
        assert_eq!(mask_of(&pool), [TIME_NONE]);
    }

    #[test]
    fn no_worker_waits_for_the_sampler() {
        let _alone = ALONE.lock();
        registry::set_served();
        let sampler = SAMPLER.lock();
        let incidents = INCIDENTS.lock();
        // All that workers do while a client never gets its answer.
        let work = || {
            let pool = ThreadPool::new(2);
            let jobs: Vec<_> = (0..1000).map(|_| pool.submit(|| ())).collect();
            jobs.into_iter().for_each(|job| job.join().unwrap());
            let panics = pool.job(|| panic!("meanwhile")).label("a label");
            assert!(panics.submit().join().is_err());
            pool.shutdown().join();
        };
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            work();
            let _ = done.send(());
        });
        let ended = ended.recv_timeout(Duration::from_secs(30));
        drop((sampler, incidents));
        ended.expect("the workers do their work");
    }

    #[test]
    fn masks_choose_from_half_to_all_that_are_wanted() {
        for (jobs, mask) in [
            (0, 0),
            (100, 0),
            (101, 1),
            (200, 1),
            (201, 3),
            (1_000_000, 16383),
        ] {
            assert_eq!(mask_for(jobs, 100), mask, "{jobs}");
        }
        assert_eq!(mask_for(u64::MAX, 1), TIME_NONE);
    }

    #[test]
    fn quantiles_count_what_each_job_stands_for() {
        assert_eq!(weighted(Vec::new()), None);
        let values = vec![(1_000, 1.0), (3_000, 98.0), (2_000, 1.0)];
        let quantiles = weighted(values).unwrap();
        assert_eq!(
            (quantiles.p50_us, quantiles.p99_us, quantiles.of),
            (3.0, 3.0, 3)
        );
        let ten = weighted((1..=100).map(|n| (n * 1000, 1.0)).collect()).unwrap();
        assert_eq!((ten.p50_us, ten.p99_us), (50.0, 99.0));
    }

    fn history(accepted: &[(u64, u64)], submitted: u64, queued: u64) -> History {
        let pool = ThreadPool::new(1);
        let live = LivePool {
            inner: pool.inner(),
            kind: Kind::Threads,
            #[cfg(all(unix, feature = "process"))]
            processes: None,
        };
        let mut history = History::new(&live);
        history.accepted = accepted.iter().copied().collect();
        history.metrics.submitted = submitted;
        history.metrics.queued = queued;
        history
    }

    #[test]
    fn only_lanes_that_are_shown_have_bars() {
        const WORKERS: usize = MAX_LANES + 8;
        let pool = ThreadPool::new(WORKERS);
        let use_all_workers = || {
            let all = Arc::new(Barrier::new(WORKERS));
            let submit = |_| {
                let all = Arc::clone(&all);
                pool.submit(move || all.wait().is_leader())
            };
            let jobs: Vec<_> = (0..WORKERS).map(submit).collect();
            for job in jobs {
                job.join().unwrap();
            }
        };
        let live = LivePool {
            inner: pool.inner(),
            kind: Kind::Threads,
            #[cfg(all(unix, feature = "process"))]
            processes: None,
        };
        let (mut history, mut whats) = (History::new(&live), Whats::default());
        use_all_workers();
        let before = now();
        history.look(&live, 1, before, before, &mut whats);
        use_all_workers();
        history.look(&live, 2, now(), before, &mut whats);
        let view = history.view(0, now(), 0);
        assert_eq!((view.lanes.len(), view.more_lanes), (MAX_LANES, 8));
        let is_shown = |bar: &Bar| view.lanes.iter().any(|lane| lane.index == bar.lane);
        assert!(view.bars.len() >= MAX_LANES);
        assert!(view.bars.iter().all(is_shown), "{:?}", view.bars);
    }

    #[test]
    fn places_and_labels_that_are_too_many_are_shown_as_others() {
        let mut whats = Whats::default();
        let here = Location::caller();
        let mut name = |n: usize| {
            let label: &'static str = Box::leak(format!("{n}").into_boxed_str());
            let number = whats.number(Some(here), Some(label)).unwrap();
            (whats.list[number].label.clone(), whats.list.len())
        };
        assert_eq!(name(0), (Some("0".to_owned()), 1));
        for n in 1..MAX_WHATS - 1 {
            assert_eq!(name(n), (Some(n.to_string()), n + 1));
        }
        for n in MAX_WHATS..MAX_WHATS + 10 {
            assert_eq!(name(n), (Some("(others)".to_owned()), MAX_WHATS));
        }
    }

    #[test]
    fn the_age_of_the_queue_comes_from_the_counts() {
        let age = |us, at_least| Some(Age { us, at_least });
        let looks = [(1_000_000, 10), (2_000_000, 20), (3_000_000, 30)];
        let now = 5_000_000;
        // The 12th job came between the first two looks, and was there at the second.
        assert_eq!(history(&looks, 30, 18).oldest(now), age(3_000, false));
        assert_eq!(history(&looks, 30, 25).oldest(now), age(4_000, true));
        assert_eq!(history(&looks, 30, 0).oldest(now), None);
    }

    #[test]
    fn a_tick_makes_a_bar_for_each_job_or_one_for_all() {
        let here = Some(Location::caller());
        let job = |started, ended| Timed {
            started,
            ended,
            queue_wait: 0,
            origin: here,
            label: None,
            is_bad: false,
        };
        let tick = (200_000, 400_000);
        let bars =
            |timed: &[Timed], ended| super::bars(0, timed, ended, None, tick, 0.5, |_, _| Some(0));
        let spans = |bars: Vec<Bar>| -> Vec<_> {
            bars.iter()
                .map(|bar| (bar.from, bar.to, bar.jobs))
                .collect()
        };
        assert!(bars(&[], 0).is_empty());
        let two = [job(210_000, 220_000), job(230_000, 240_000)];
        assert_eq!(spans(bars(&two, 2)), [(210, 220, 1), (230, 240, 1)]);
        // Two of a hundred were timed.
        assert_eq!(spans(bars(&two, 100)), [(200, 400, 100)]);
        // A long one before many short ones keeps its own bar.
        let long = [job(50_000, 300_000), job(310_000, 311_000)];
        assert_eq!(spans(bars(&long, 40)), [(50, 300, 1), (300, 400, 39)]);
        // One that was running when the first client came has the times of the looks.
        let seen = Seen {
            sequence: 1,
            since: 100_000,
            is_exact: false,
            what: None,
        };
        let untimed = super::bars(0, &[], 1, Some(seen), tick, 0.5, |_, _| None);
        assert_eq!(spans(untimed.clone()), [(100, 200, 1)]);
        assert_eq!(untimed[0].flag, 2);
    }
}
