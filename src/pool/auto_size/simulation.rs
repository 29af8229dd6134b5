//! A machine without threads: processors, workers, jobs that compute and wait, and another process.
//! Time is a number, chance comes from a seed, and an hour takes a second.
//!
//! All threads that can run share the processors equally. That is what a fair scheduler does if
//! time slices are short. So the work that each of them has done is the same function of time, and
//! a computation ends when that function reaches a known value.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::env;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::sizer::{Change, Sample, Sizer};

/// The seconds between two samples.
pub(super) const TICK: f64 = 0.5;

/// A small generator of random numbers (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 to 1.
    pub(super) fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.uniform() * from.len() as f64) as usize]
    }
}

/// What the jobs do: so many rounds of computing and waiting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// The mean seconds of a round.
    pub(super) compute: f64,
    pub(super) wait: f64,
    pub(super) rounds: u32,
    /// Whether the times vary (exponentially), or are always the same.
    pub(super) varies: bool,
    /// Seconds with jobs, and seconds without. There are always jobs if the second is 0.
    pub(super) bursts: (f64, f64),
    /// How many threads of another process compute.
    pub(super) others: usize,
}

impl Load {
    /// Jobs of `seconds`, of which `share` is computing.
    pub(super) fn new(seconds: f64, share: f64) -> Self {
        Self {
            compute: seconds * share,
            wait: seconds * (1.0 - share),
            rounds: 1,
            varies: true,
            bursts: (1.0, 0.0),
            others: 0,
        }
    }

    pub(super) fn others(self, others: usize) -> Self {
        Self { others, ..self }
    }

    pub(super) fn bursts(self, on: f64, off: f64) -> Self {
        let bursts = (on, off);
        Self { bursts, ..self }
    }

    /// Each job consists of so many rounds.
    pub(super) fn rounds(self, rounds: u32) -> Self {
        let n = f64::from(rounds);
        let (compute, wait) = (self.compute / n, self.wait / n);
        Self {
            compute,
            wait,
            rounds,
            ..self
        }
    }

    fn share(&self) -> f64 {
        self.compute / (self.compute + self.wait)
    }

    /// What the formula gives for the share that the jobs have on an idle machine.
    pub(super) fn ideal(&self, processors: usize) -> f64 {
        processors as f64 / self.share()
    }

    fn has_jobs(&self, time: f64) -> bool {
        let (on, off) = self.bursts;
        off == 0.0 || time % (on + off) < on
    }
}

/// Times are heap keys. None is NaN.
#[derive(PartialEq)]
struct Time(f64);

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

pub(super) struct Machine {
    pub(super) processors: usize,
    pub(super) time: f64,
    random: Random,
    load: Load,
    pub(super) limit: usize,
    /// Workers with a job.
    busy: usize,
    /// The work that each running thread would have done since the start.
    work: f64,
    /// Ends of computations in terms of `work`, and of waits in terms of `time`, each with the
    /// number of parts that the job has left.
    computing: BinaryHeap<Reverse<(Time, u32)>>,
    waiting: BinaryHeap<Reverse<(Time, u32)>>,
    /// Since the last sample.
    cpu: f64,
    busy_time: f64,
    delay: f64,
    ended: u64,
    /// Whether the system tells how long threads waited for a processor.
    pub(super) tells_delay: bool,
}

impl Machine {
    pub(super) fn new(processors: usize, seed: u64, load: Load, limit: usize) -> Self {
        Self {
            processors,
            time: 0.0,
            random: Random::new(seed),
            load,
            limit,
            busy: 0,
            work: 0.0,
            computing: BinaryHeap::new(),
            waiting: BinaryHeap::new(),
            cpu: 0.0,
            busy_time: 0.0,
            delay: 0.0,
            ended: 0,
            tells_delay: false,
        }
    }

    /// Jobs that start from now on are like this.
    pub(super) fn set_load(&mut self, load: Load) {
        self.load = load;
    }

    fn length(&mut self, mean: f64) -> f64 {
        if self.load.varies {
            self.random.exponential(mean)
        } else {
            mean
        }
    }

    /// Begins a part of a job, after which so many are left.
    fn begin(&mut self, computes: bool, left: u32) {
        if computes {
            let end = self.work + self.length(self.load.compute);
            self.computing.push(Reverse((Time(end), left)));
        } else {
            let end = self.time + self.length(self.load.wait);
            self.waiting.push(Reverse((Time(end), left)));
        }
    }

    /// A part of a job has ended.
    fn end(&mut self, computed: bool, left: u32) {
        if left > 0 {
            return self.begin(!computed, left - 1);
        }
        self.ended += 1;
        self.busy -= 1;
        self.start_jobs();
    }

    fn start_jobs(&mut self) {
        while self.busy < self.limit && self.load.has_jobs(self.time) {
            self.busy += 1;
            // A job may begin with either.
            let computes = self.random.uniform() < 0.5;
            self.begin(computes, 2 * self.load.rounds - 1);
        }
    }

    /// Runs until the next sample.
    pub(super) fn run(&mut self) -> Sample {
        let end = self.time + TICK;
        self.start_jobs();
        loop {
            let running = (self.computing.len() + self.load.others) as f64;
            let rate = (self.processors as f64 / running.max(1.0)).min(1.0);
            let computed = self.computing.peek().map(|Reverse((Time(at), _))| *at);
            let computed = computed.map_or(f64::MAX, |at| self.time + (at - self.work) / rate);
            let waited = self.waiting.peek().map(|Reverse((Time(at), _))| *at);
            let waited = waited.unwrap_or(f64::MAX);
            // Rounding must not lead into the past.
            let [computed, waited] = [computed, waited].map(|at| at.max(self.time));
            let next = computed.min(waited).min(end);
            let passed = next - self.time;
            self.cpu += passed * rate * self.computing.len() as f64;
            self.delay += passed * (1.0 - rate) * self.computing.len() as f64;
            self.busy_time += passed * self.busy as f64;
            self.work += passed * rate;
            self.time = next;
            if next == computed && computed <= waited {
                let Reverse((_, left)) = self.computing.pop().expect("it was looked at");
                self.end(true, left);
            } else if next == waited {
                let Reverse((_, left)) = self.waiting.pop().expect("it was looked at");
                self.end(false, left);
            } else {
                break;
            }
        }
        let sample = Sample {
            interval: Duration::from_secs_f64(TICK),
            cpu: Duration::from_secs_f64(self.cpu),
            busy: Duration::from_secs_f64(self.busy_time),
            delay: self
                .tells_delay
                .then(|| Duration::from_secs_f64(self.delay)),
            ended: self.ended,
            queued: self.busy >= self.limit && self.load.has_jobs(self.time),
        };
        (self.cpu, self.busy_time, self.delay, self.ended) = (0.0, 0.0, 0.0, 0);
        sample
    }
}

/// A pool on a machine.
pub(super) struct Run {
    pub(super) machine: Machine,
    pub(super) sizer: Sizer,
    noise: Random,
    /// When the limit changed, and to what.
    pub(super) changes: Vec<(f64, Change)>,
    /// The busy processors at each sample.
    pub(super) cpu: Vec<f64>,
}

impl Run {
    pub(super) fn new(processors: usize, min: usize, max: usize, seed: u64, load: Load) -> Self {
        let sizer = Sizer::new(processors, min, max);
        let mut machine = Machine::new(processors, seed, load, sizer.limit());
        // Both kinds of systems, in turn.
        machine.tells_delay = seed % 2 == 0;
        Self {
            machine,
            sizer,
            noise: Random::new(!seed),
            changes: Vec::new(),
            cpu: Vec::new(),
        }
    }

    pub(super) fn run(&mut self, seconds: f64) -> &mut Self {
        for _ in 0..(seconds / TICK) as usize {
            let mut sample = self.machine.run();
            self.cpu.push(sample.cpu.as_secs_f64() / TICK);
            // What is measured is not exact.
            let error = 1.0 + 0.06 * (self.noise.uniform() - 0.5);
            sample.cpu = sample.cpu.mul_f64(error);
            if let Some(change) = self.sizer.observe(&sample) {
                assert_eq!(change.from, self.machine.limit);
                self.machine.limit = change.to;
                self.changes.push((self.machine.time, change));
            }
        }
        self
    }

    /// The limit at a time.
    pub(super) fn limit_at(&self, time: f64) -> usize {
        let earlier = self.changes.iter().rev().find(|(at, _)| *at <= time);
        let first = || {
            self.changes
                .first()
                .map_or(self.machine.limit, |(_, first)| first.from)
        };
        earlier.map_or_else(first, |(_, change)| change.to)
    }
}

/// What the formula alone would do: twice a second it goes half of the way to `processors / share`.
pub(super) struct Naive {
    processors: f64,
    max: f64,
    limit: f64,
}

impl Naive {
    pub(super) fn new(processors: usize, max: usize) -> Self {
        Self {
            processors: processors as f64,
            max: max as f64,
            limit: processors as f64,
        }
    }

    pub(super) fn observe(&mut self, sample: &Sample) -> usize {
        let share = sample.cpu.as_secs_f64() / sample.busy.as_secs_f64().max(1e-9);
        let wanted = (self.processors / share.max(1e-9)).clamp(1.0, self.max);
        self.limit += 0.5 * (wanted - self.limit);
        self.limit.round() as usize
    }
}

/// The seeds of a test: half of `n`, or as many times more as `FUTUREPOOL_AUTO_SIZE_SEEDS` says.
fn seeds(n: u64) -> RangeInclusive<u64> {
    let times =
        env::var("FUTUREPOOL_AUTO_SIZE_SEEDS").map_or(1, |times| times.parse().expect("a number"));
    // Odd and even seeds are two modes of the controller.
    1..=(n * times).div_ceil(2).max(2)
}

const SIZES: [usize; 5] = [1, 2, 4, 8, 64];
/// Bounds that bind nothing.
const MAX: usize = 4096;

/// Jobs of this machine. On a large one they are longer, as the time of the simulation is that of
/// their number.
fn seconds(random: &mut Random, processors: usize) -> f64 {
    let scale = if processors > 8 { 1.0 } else { 0.1 };
    scale * (0.3 + random.uniform())
}

/// Asserts that a limit is about what the formula gives for the machine without other processes.
#[track_caller]
fn assert_about(run: &Run, load: &Load, what: &str) {
    let ideal = load.ideal(run.machine.processors);
    let limit = run.sizer.limit() as f64;
    assert!(
        (0.5 * ideal - 0.5..=1.6 * ideal + 1.0).contains(&limit),
        "{what}: {limit} workers instead of {ideal:.1} at {:.0} s, {load:?}, {:?}",
        run.machine.time,
        run.changes
    );
}

#[test]
fn it_settles_within_a_minute_of_load() {
    for seed in seeds(8) {
        for processors in SIZES {
            for share in [1.0, 0.5, 0.25, 0.05] {
                if processors == 64 && share < 0.25 && seed > 2 {
                    continue;
                }
                let seconds = seconds(&mut Random::new(seed), processors);
                let load = Load::new(seconds, share);
                let mut run = Run::new(processors, 1, MAX, seed, load);
                assert_about(run.run(60.0), &load, &format!("seed {seed}"));
                let settled = run.sizer.limit();
                assert_about(
                    run.run(30.0),
                    &load,
                    &format!("seed {seed}, settled at {settled}"),
                );
            }
        }
    }
}

#[test]
fn jobs_that_hardly_compute_get_the_maximum_within_a_minute() {
    for seed in seeds(6) {
        for processors in [1, 2, 4, 8] {
            let load = Load::new(0.2, 0.001);
            let mut run = Run::new(processors, 1, 200, seed, load);
            run.run(60.0);
            assert_eq!(run.sizer.limit(), 200, "seed {seed}: {:?}", run.changes);
        }
    }
}

/// After the first two minutes of steady load, the limit must not go back and forth: at most two
/// trials within ten minutes are taken back, and eight in the hour. Nearly always the limit is what
/// it should be.
fn assert_steady(seed: u64, processors: usize, load: Load) {
    const SETTLED: f64 = 120.0;
    let mut run = Run::new(processors, 1, 256, seed, load);
    let mut good = 0;
    let ideal = load.ideal(processors).min(256.0);
    // Beside another process, at most twice as many gain nearly as much.
    let most = if load.others > 0 { 2.5 } else { 1.6 };
    let good_limits = 0.5 * ideal - 0.5..=most * ideal + 1.0;
    run.run(SETTLED);
    for _ in 0..3480 {
        run.run(1.0);
        good += u32::from(good_limits.contains(&(run.sizer.limit() as f64)));
    }
    let what = || {
        format!(
            "seed {seed}, {processors} processors, {load:?}: {:?}",
            run.changes
        )
    };
    assert!(
        good > 3480 * 95 / 100,
        "only {good} good seconds, {}",
        what()
    );
    let late = run.changes.iter().filter(|(at, _)| *at > SETTLED);
    let turns: Vec<_> = late
        .clone()
        .zip(late.skip(1))
        .filter(|((_, a), (_, b))| (a.to > a.from) != (b.to > b.from))
        .map(|(_, (at, _))| *at)
        .collect();
    assert!(turns.len() <= 16, "{turns:?}, {}", what());
    // Each trial that is taken back turns twice.
    let close = turns.windows(5).find(|turns| turns[4] - turns[0] < 600.0);
    assert!(close.is_none(), "{close:?}, {}", what());
}

#[test]
fn it_does_not_oscillate_in_an_hour_of_steady_load() {
    for seed in seeds(2) {
        for processors in [1, 2, 4, 8] {
            for share in [1.0, 0.5, 0.25, 0.05] {
                // Hundreds of workers take their time.
                if processors <= 2 || share > 0.1 {
                    assert_steady(seed, processors, Load::new(0.2, share));
                }
            }
        }
    }
}

#[test]
fn it_does_not_oscillate_beside_another_process() {
    for seed in seeds(4) {
        for processors in [1, 2, 4, 8] {
            for share in [1.0, 0.25] {
                assert_steady(seed, processors, Load::new(0.2, share).others(processors));
            }
        }
    }
}

#[test]
fn it_settles_again_within_a_minute_of_another_load() {
    for seed in seeds(24) {
        let mut random = Random::new(seed);
        let processors = random.pick(&SIZES[..4]);
        let mut share = 1.0;
        let mut load = Load::new(seconds(&mut random, processors), share);
        let mut run = Run::new(processors, 1, MAX, seed, load);
        for change in 0..5 {
            run.machine.set_load(load);
            assert_about(
                run.run(60.0),
                &load,
                &format!("seed {seed}, change {change}"),
            );
            run.run(30.0 + 60.0 * random.uniform());
            let others = [1.0, 0.5, 0.2, 0.05]
                .into_iter()
                .filter(|other| *other != share);
            share = random.pick(&others.collect::<Vec<_>>());
            load = Load::new(seconds(&mut random, processors), share);
        }
    }
}

#[test]
fn it_does_not_run_away_beside_another_process() {
    for seed in seeds(20) {
        for processors in SIZES {
            let load = Load::new(seconds(&mut Random::new(seed), processors), 1.0);
            let mut run = Run::new(processors, 1, MAX, seed, load);
            run.run(60.0).machine.set_load(load.others(processors));
            run.run(120.0);
            let limits = run.changes.iter().map(|(_, change)| change.to);
            let largest = limits.max().unwrap_or(processors);
            assert!(largest <= 2 * processors, "seed {seed}: {:?}", run.changes);
            assert_eq!(
                run.sizer.limit(),
                processors,
                "seed {seed}: {:?}",
                run.changes
            );
            run.machine.set_load(load);
            run.run(60.0);
            assert_eq!(
                run.sizer.limit(),
                processors,
                "seed {seed}: {:?}",
                run.changes
            );
        }
    }
}

#[test]
fn it_shrinks_beside_another_process_when_jobs_no_longer_wait() {
    for seed in seeds(8) {
        for processors in [2, 4, 8] {
            let load = Load::new(0.1, 0.05);
            let mut run = Run::new(processors, 1, MAX, seed, load);
            run.run(90.0);
            assert!(run.sizer.limit() >= 10 * processors);
            let load = Load::new(0.1, 1.0).others(processors);
            run.machine.set_load(load);
            run.run(90.0);
            assert!(
                run.sizer.limit() <= 3 * processors,
                "seed {seed}: {:?}",
                run.changes
            );
        }
    }
}

#[test]
fn the_formula_alone_runs_away() {
    let (processors, max) = (4, 256);
    let load = Load::new(0.1, 1.0).others(4);
    let mut machine = Machine::new(processors, 1, load, processors);
    let mut naive = Naive::new(processors, max);
    for _ in 0..240 {
        let sample = machine.run();
        machine.limit = naive.observe(&sample);
    }
    assert!(machine.limit > 200, "{} workers", machine.limit);
    // It does not come back, either.
    machine.set_load(Load::new(0.1, 1.0));
    for _ in 0..240 {
        let sample = machine.run();
        machine.limit = naive.observe(&sample);
    }
    assert!(machine.limit > 200, "{} workers", machine.limit);
}

#[test]
fn long_jobs_are_seen_while_they_run() {
    for seed in seeds(4) {
        for processors in [2, 4, 8] {
            for share in [1.0, 0.5, 0.25] {
                // Four minutes each, with waits that are much shorter.
                let load = Load::new(240.0, share).rounds(2400);
                let mut run = Run::new(processors, 1, 256, seed, load);
                assert_about(run.run(60.0), &load, &format!("seed {seed}"));
                run.run(1200.0);
                assert_about(&run, &load, &format!("seed {seed}"));
                let late = run.changes.iter().filter(|(at, _)| *at > 60.0).count();
                assert!(late <= 6, "seed {seed}: {:?}", run.changes);
            }
        }
    }
}

#[test]
fn long_jobs_that_are_no_longer_wanted_leave_one_by_one() {
    for seed in seeds(6) {
        let waiting = Load::new(120.0, 0.1).rounds(1200);
        let mut run = Run::new(4, 1, 256, seed, waiting);
        run.run(300.0);
        assert_about(&run, &waiting, &format!("seed {seed}"));
        let computing = Load::new(60.0, 1.0).rounds(1200);
        run.machine.set_load(computing);
        run.run(3600.0);
        assert!(run.sizer.limit() <= 8, "seed {seed}: {:?}", run.changes);
    }
}

#[test]
fn pauses_between_bursts_change_nothing() {
    for seed in seeds(4) {
        for processors in [1, 2, 4, 8] {
            for (on, off) in [(5.0, 5.0), (20.0, 40.0), (3.0, 120.0)] {
                for share in [1.0, 0.25] {
                    let load = Load::new(0.1, share).bursts(on, off);
                    let mut run = Run::new(processors, 1, 256, seed, load);
                    // Two minutes of load.
                    run.run(120.0 * (on + off) / on);
                    if off < 60.0 {
                        assert_about(&run, &load, &format!("seed {seed}"));
                    }
                    let settled = run.changes.len();
                    run.run(120.0 * (on + off) / on);
                    assert!(
                        run.changes.len() <= settled + 3,
                        "seed {seed}, {load:?}: {:?}",
                        run.changes
                    );
                }
            }
        }
    }
}

#[test]
fn the_bounds_are_kept() {
    for seed in seeds(10) {
        for (min, max) in [(1, 1), (5, 5), (6, 10), (1, 3)] {
            for share in [1.0, 0.05] {
                let mut run = Run::new(4, min, max, seed, Load::new(0.1, share));
                run.run(120.0);
                let mut limits = vec![run.limit_at(0.0)];
                limits.extend(run.changes.iter().map(|(_, change)| change.to));
                assert!(
                    limits.iter().all(|limit| (min..=max).contains(limit)),
                    "{limits:?}"
                );
                if min == max {
                    assert!(run.changes.is_empty());
                } else if share < 0.1 {
                    assert_eq!(run.sizer.limit(), max);
                }
            }
        }
    }
}

#[test]
fn a_pool_that_is_not_full_keeps_its_limit() {
    let mut sizer = Sizer::new(4, 1, 64);
    let idle = Sample {
        interval: Duration::from_millis(500),
        busy: Duration::from_millis(900),
        ..Sample::default()
    };
    for _ in 0..10_000 {
        assert_eq!(sizer.observe(&idle), None);
    }
}

/// All of `busy` workers had a job all the time.
fn full(busy: f64, cpu: f64) -> Sample {
    Sample {
        interval: Duration::from_millis(500),
        cpu: Duration::from_secs_f64(0.5 * cpu),
        busy: Duration::from_secs_f64(0.5 * busy),
        ended: 10,
        queued: true,
        ..Sample::default()
    }
}

#[test]
fn jobs_without_any_cpu_time_need_no_proof() {
    let mut sizer = Sizer::new(4, 1, 64);
    for _ in 0..120 {
        let busy = sizer.limit() as f64;
        sizer.observe(&full(busy, 0.0));
    }
    assert_eq!(sizer.limit(), 64);
}

/// One job computes at a time, and no worker waits for a processor.
#[test]
fn a_lock_that_all_jobs_wait_for_is_no_reason_for_more_workers() {
    let mut sizer = Sizer::new(4, 1, 256);
    let (mut most, mut grown) = (0, 0);
    const AN_HOUR: u32 = 7200;
    for _ in 0..AN_HOUR {
        let delay = Some(Duration::ZERO);
        let busy = sizer.limit() as f64;
        sizer.observe(&Sample {
            delay,
            ..full(busy, 1.0)
        });
        most = most.max(sizer.limit());
        grown += u32::from(sizer.limit() > 4);
    }
    assert_eq!(sizer.limit(), 4);
    assert!(most <= 16 && grown < AN_HOUR / 50, "{most}, {grown}");
    // Without the lock the jobs use more CPU time.
    for _ in 0..120 {
        let busy = sizer.limit() as f64;
        sizer.observe(&Sample {
            delay: Some(Duration::ZERO),
            ..full(busy, 0.5 * busy)
        });
    }
    assert!((7..=10).contains(&sizer.limit()), "{}", sizer.limit());
}

#[test]
fn nothing_is_decided_while_surplus_workers_are_busy() {
    let mut sizer = Sizer::new(4, 1, 64);
    for _ in 0..1000 {
        assert_eq!(sizer.observe(&full(8.0, 1.0)), None);
    }
}

#[test]
fn it_starts_with_the_number_of_processors_within_the_bounds() {
    for ((min, max), start) in [((1, 64), 4), ((6, 10), 6), ((1, 3), 3)] {
        assert_eq!(Sizer::new(4, min, max).limit(), start);
    }
}
