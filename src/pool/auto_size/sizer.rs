//! The controller that finds the number of workers. It has no clock and no threads.
//!
//! # The formula and its trap
//!
//! Jobs that compute need as many workers as there are processors. Jobs that wait leave their
//! processor to others, so `workers = processors × (1 + waiting / computing)`. With `share` for the
//! part of the jobs' wall time that is CPU time, that is `processors / share`.
//!
//! The trap: if there are more workers than processors, or other processes want them, too, the wall
//! time of a job that computes includes its wait for a processor. Then the share is small although
//! the jobs never wait, and the formula asks for more workers. These make the share even smaller.
//! For jobs that compute, any number of workers from `processors` on satisfies the formula, and
//! beside another process none does: it runs away.
//!
//! CPU time and wall time of one moment cannot tell the two waits apart. Two sizes can. While jobs
//! wait, twice as many workers use twice as much CPU time. While the processors are what is scarce,
//! they use hardly more, and the same is true of a lock or a server that all jobs wait for.
//!
//! # If the system tells how long threads waited for a processor
//!
//! Linux does. Then that wait is subtracted from the wall time, and the formula is right again. The
//! controller adds up what the jobs did in a *window* of samples, until the figures are certain
//! enough. It goes towards the formula's result, by a factor of four at most, until it is near.
//! Then it has *settled*: it keeps the limit until two windows in a row clearly ask for another
//! one.
//!
//! The formula is also wrong if all jobs wait for the same lock. So a growth that has clearly
//! brought no CPU time is taken back, and is tried again later: see 3 below.
//!
//! # If it does not
//!
//! The controller decides after each window:
//!
//! 1. The processors are not busy: it grows towards the formula's result, by a factor of four at
//!    most. That is a *trial*. The next window tells whether it paid: if the CPU time did not grow
//!    nearly as the number of workers did, the growth is taken back.
//! 2. The processors are busy, and there are more workers than processors: it shrinks, which is a
//!    trial, too. If less work was done, the shrinking is taken back. If the work hardly changed,
//!    it goes on.
//! 3. Otherwise it has settled, and keeps the limit until the load changes: until the CPU time or
//!    the number of jobs that end differs clearly from what it was, in two windows in a row. A
//!    growth that did not pay is tried again after ten minutes, then after twenty, and so on up to 80.
//!    The more trials were taken back, the more it takes to try again.
//!
//! If jobs hardly use any CPU time, they cannot be what keeps the processors busy. So that growth
//! needs no proof, which the little CPU time could not give.
//!
//! # In both cases
//!
//! Only samples count in which all workers were busy while jobs were queued, or in which the
//! processors were busy: otherwise the limit is not what limits the pool. The limit never drops
//! below the number of processors, within the bounds: no share is larger than 1.

use std::time::Duration;

use crate::pool::auto_size::AutoSizeReason as Reason;

/// Below this part of the processors, more workers are tried.
const LOW: f64 = 0.8;
/// What a growth aims at. Beyond it a queue for the processors forms, which helps no job.
const TARGET: f64 = 0.9;
/// From this part of the processors on, fewer workers are tried.
const HIGH: f64 = 0.95;
/// A settled pool reacts only beyond these: what it measures varies a little.
const SETTLED_LOW: f64 = 0.7;
const SETTLED_HIGH: f64 = 0.97;
const CLEARLY_MORE: f64 = 1.08;

/// A change of size pays if the work changes by at least this power of the change. It is 1 for jobs
/// that wait and 0 for scarce processors. Beside another process that has a thread for each
/// processor it is 0.42, if the system gives each thread its fair share and the pool doubles.
const PAYS: f64 = 0.6;
/// Below this power the work hardly depends on the size.
const FLAT: f64 = 0.35;
/// Jobs with a smaller share hardly compute.
const NO_CPU: f64 = 0.03;

/// Large steps prove more than small ones.
const MAX_GROWTH: f64 = 4.0;
/// A smaller growth would prove nothing.
const MIN_GROWTH: f64 = 1.25;
const SHRINKING: f64 = 0.75;
/// After a shrinking that hardly mattered.
const FAST_SHRINKING: f64 = 0.5;

/// Where the wait for a processor is known: nearer to the formula's result than this factor, the
/// limit is good enough, and a settled pool keeps it up to the other factor.
const NEAR: f64 = 1.2;
const SETTLED_NEAR: f64 = 1.4;
/// Workers that spend this part of their time in that wait are too many.
const CROWDED: f64 = 0.5;

/// The number of samples of a window that is certain, of one that ends though it is not, and of one
/// that decides a trial though it is not.
const MIN_SAMPLES: u32 = 6;
const ENOUGH_SAMPLES: u32 = 16;
const MAX_SAMPLES: u32 = 40;
/// A window is certain if its relative error is below this.
const CERTAIN: f64 = 0.08;
/// The number of samples of a window that checks whether the load has changed.
const CHECK_SAMPLES: u32 = 8;
/// The first and this one where the wait for a processor is known.
const KNOWN_SAMPLES: u32 = 4;
/// The number of samples that show what the load is like.
const REFERENCE_SAMPLES: u32 = 60;
/// The load has changed if the CPU time changes by this factor, or the number of jobs that end by
/// the other one. Fewer ends than the last number say nothing.
const CPU_CHANGE: f64 = 1.4;
const ENDED_CHANGE: f64 = 1.6;
const MIN_ENDED: f64 = 10.0;

/// Without a sample that counts for so many seconds, what is in the window is too old.
const STALE: f64 = 60.0;
/// After how many seconds of load a growth is tried again: at first, if it was not certain that it
/// did not pay; at first, if it was; and at most.
const EARLY_RETRY: f64 = 60.0;
const FIRST_RETRY: f64 = 600.0;
const LAST_RETRY: f64 = 4800.0;
const MAX_TURNS: u32 = 3;

/// What the jobs of a pool did during an interval.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) interval: Duration,
    /// The CPU time of the jobs, and their wall time, of all workers together.
    pub(crate) cpu: Duration,
    pub(crate) busy: Duration,
    /// How much of the wall time was a wait for a processor, if the system tells that.
    pub(crate) delay: Option<Duration>,
    /// The number of jobs that ended.
    pub(crate) ended: u64,
    /// Whether jobs were queued at the end of the interval.
    pub(crate) queued: bool,
}

/// A decision to change the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) reason: Reason,
}

#[derive(Debug)]
pub(crate) struct Sizer {
    processors: f64,
    /// The least limit: the number of processors, within the bounds.
    floor: usize,
    max: usize,
    limit: usize,
    window: Window,
    /// The first sample after a change belongs to both sizes.
    skips: bool,
    state: State,
    /// What is known of larger and of smaller limits, until the load changes.
    more: Outlook,
    fewer: Outlook,
    /// The factor of the next shrinking.
    shrinking: f64,
    /// The load has changed, and what the new one needs was not tried yet.
    look: bool,
    /// Seconds since the last sample that counted.
    unused: f64,
    /// Whether the latest change was a growth.
    grew: Option<bool>,
    /// How many changes in a row had another direction than the one before. The more they are, the
    /// more it takes for the next change.
    turns: u32,
    /// After how many seconds of load a useless growth is tried again.
    retry_after: f64,
    /// The growth towards the formula's result that the next window judges.
    growth: Option<Trial>,
    /// What the next window shows unless the load changes, after a trial was taken back or before
    /// one is repeated.
    expected: Option<Measured>,
}

#[derive(Debug)]
enum State {
    /// The next window leads to a decision.
    Deciding,
    Trial(Trial),
    Settled(Settled),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    Unknown,
    /// It would do no more work, or less.
    Useless,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    from: usize,
    /// What was measured with the limit `from`.
    before: Measured,
}

#[derive(Debug, Clone, Copy)]
struct Settled {
    /// What the load was like at first.
    reference: Window,
    /// How many windows in a row differed from it.
    deviations: u32,
    /// For how many seconds of load.
    seconds: f64,
}

impl Trial {
    /// Returns whether a growth has clearly brought no CPU time, of jobs that use some.
    fn brought_nothing(&self, now: &Measured) -> bool {
        let before = &self.before;
        let size = (now.busy / before.busy).ln();
        let work = ((now.cpu + 1e-9) / (before.cpu + 1e-9)).ln();
        let error = 2.0 * now.cpu_error.hypot(before.cpu_error);
        before.cpu >= NO_CPU * before.busy && size > MIN_GROWTH.ln() && work + error < FLAT * size
    }
}

impl Sizer {
    /// `processors`, `min` and `max` are at least 1, and `min` is at most `max`.
    pub(crate) fn new(processors: usize, min: usize, max: usize) -> Self {
        let floor = processors.clamp(min, max);
        Self {
            processors: processors as f64,
            floor,
            max,
            limit: floor,
            window: Window::default(),
            skips: false,
            state: State::Deciding,
            more: Outlook::Unknown,
            fewer: Outlook::Unknown,
            shrinking: SHRINKING,
            look: false,
            unused: 0.0,
            grew: None,
            turns: 0,
            retry_after: 0.0,
            growth: None,
            expected: None,
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Takes the next sample. Returns a change of the limit, if there is one.
    pub(crate) fn observe(&mut self, sample: &Sample) -> Option<Change> {
        let seconds = sample.interval.as_secs_f64();
        if self.floor == self.max || seconds <= 0.0 {
            return None;
        }
        let cpu = sample.cpu.as_secs_f64() / seconds;
        let busy = sample.busy.as_secs_f64() / seconds;
        let limit = self.limit as f64;
        let all_busy = sample.queued && busy >= 0.9 * limit;
        let delay = sample.delay.map(|delay| delay.as_secs_f64() / seconds);
        let crowded = delay.is_some_and(|delay| delay > CROWDED * busy);
        let saturates = crowded || cpu >= HIGH * self.processors;
        let saturates = saturates && busy > self.floor as f64;
        if !all_busy && !saturates {
            self.unused += seconds;
            if self.unused >= STALE {
                self.restart_window();
                self.growth = None;
            }
            return None;
        }
        self.unused = 0.0;
        // Workers that are surplus leave when their jobs end, which can take long.
        if busy > 1.1 * limit + 0.5 {
            self.restart_window();
            return None;
        }
        if std::mem::take(&mut self.skips) {
            return None;
        }
        self.window
            .push(cpu, busy, delay, sample.ended as f64, seconds);
        match self.state {
            State::Deciding => {
                let samples = self.window.samples;
                let now = self.window.measured();
                let enough = match now.delay {
                    Some(_) => KNOWN_SAMPLES,
                    None => MIN_SAMPLES,
                };
                let is_certain = samples >= enough && now.cpu_error < CERTAIN;
                let is_due = is_certain || samples >= ENOUGH_SAMPLES;
                is_due.then(|| self.decide(all_busy)).flatten()
            }
            State::Trial(trial) => self.judge(trial, all_busy),
            State::Settled(settled) => self.check(settled, seconds, all_busy),
        }
    }

    fn restart_window(&mut self) {
        self.window = Window::default();
    }

    /// What should be tried now, if anything?
    fn decide(&mut self, all_busy: bool) -> Option<Change> {
        let now = self.window.measured();
        let expected = self.expected.take();
        if expected.is_some_and(|expected| now.differs_from(&expected)) {
            // The load has changed meanwhile, so the trial said nothing.
            self.forget();
        }
        if let Some(wanted) = self.wanted(&now) {
            return self.approach(wanted, &now, all_busy);
        }
        let load = now.cpu / self.processors;
        let may_grow = all_busy && self.limit < self.max && load < LOW;
        if may_grow && now.cpu < NO_CPU * now.busy {
            let to = self.larger(load);
            return self.change(to, Reason::JobsWait);
        }
        if may_grow && self.more == Outlook::Unknown {
            let to = self.larger(load);
            return self.try_size(to, now, Reason::JobsWait);
        }
        let size = self.limit.min(now.busy.ceil() as usize);
        let may_shrink = size > self.floor && self.fewer == Outlook::Unknown;
        if may_shrink && load >= HIGH {
            return self.try_size(self.smaller(size), now, Reason::Saturated);
        }
        // More workers would do no more, or it is not known whether these are needed for the new
        // load.
        let in_doubt = self.look || (self.more == Outlook::Useless && load < LOW);
        if may_shrink && in_doubt && now.cpu >= NO_CPU * now.busy {
            return self.try_size(self.smaller(size), now, Reason::Surplus);
        }
        self.settle();
        None
    }

    /// The formula's result within the bounds, if the wait for a processor is known.
    fn wanted(&self, now: &Measured) -> Option<f64> {
        let delay = now.delay?;
        let share = (now.cpu / (now.busy - delay).max(1e-9)).clamp(1e-9, 1.0);
        let wanted = self.processors / share;
        Some(wanted.clamp(self.floor as f64, self.max as f64))
    }

    fn approach(&mut self, wanted: f64, now: &Measured, all_busy: bool) -> Option<Change> {
        let growth = self.growth.take();
        if let Some(growth) = growth.filter(|growth| growth.brought_nothing(now)) {
            self.more = Outlook::Useless;
            self.state = State::Deciding;
            return self.take_back(growth, true, Reason::NoGain);
        }
        let limit = self.limit as f64;
        let near = NEAR * (1.0 + now.cpu_error);
        let grows = wanted > limit;
        let may_grow = all_busy && self.more == Outlook::Unknown;
        if wanted <= near * limit && wanted * near >= limit || grows && !may_grow {
            self.settle();
            return None;
        }
        self.state = State::Deciding;
        if grows {
            let (from, before) = (self.limit, *now);
            self.growth = Some(Trial { from, before });
        } else {
            self.more = Outlook::Unknown;
        }
        let nearest = wanted.clamp(FAST_SHRINKING * limit, MAX_GROWTH * limit);
        let reason = match grows {
            true => Reason::JobsWait,
            false => Reason::Saturated,
        };
        self.change(nearest.round() as usize, reason)
    }

    /// The next larger size to try, if the processors are used to the part `load`.
    fn larger(&self, load: f64) -> usize {
        let limit = self.limit as f64;
        let wanted = limit * TARGET / load.max(1e-6);
        let wanted = wanted.clamp(limit * MIN_GROWTH, limit * MAX_GROWTH);
        (wanted.round() as usize).clamp(self.limit + 1, self.max)
    }

    fn smaller(&self, size: usize) -> usize {
        let smaller = (size as f64 * self.shrinking).floor() as usize;
        smaller.max(self.floor)
    }

    fn try_size(&mut self, to: usize, before: Measured, reason: Reason) -> Option<Change> {
        let from = self.limit;
        self.look = false;
        self.state = State::Trial(Trial { from, before });
        self.change(to, reason)
    }

    fn change(&mut self, to: usize, reason: Reason) -> Option<Change> {
        let from = std::mem::replace(&mut self.limit, to);
        self.restart_window();
        if from == to {
            return None;
        }
        self.skips = true;
        self.turns = match self.grew.replace(to > from) {
            Some(grew) if grew != (to > from) => (self.turns + 1).min(MAX_TURNS),
            _ => 0,
        };
        Some(Change { from, to, reason })
    }

    /// Did the trial pay?
    fn judge(&mut self, trial: Trial, all_busy: bool) -> Option<Change> {
        if self.window.samples < MIN_SAMPLES {
            return None;
        }
        let (now, before) = (self.window.measured(), trial.before);
        let size = (now.busy / before.busy).ln();
        let work = ((now.cpu + 1e-9) / (before.cpu + 1e-9)).ln();
        let error = 2.0 * now.cpu_error.hypot(before.cpu_error);
        let is_last = self.window.samples >= MAX_SAMPLES;
        let grew = self.limit > trial.from;
        // The number of busy workers has not changed as the limit did.
        if (if grew { size } else { -size }) < 0.05 {
            if is_last {
                self.settle();
            }
            return None;
        }
        let (work, size) = if grew { (work, size) } else { (-work, -size) };
        let is_certain = (work - PAYS * size).abs() >= error;
        if !is_certain && !is_last {
            return None;
        }
        self.state = State::Deciding;
        match (grew, work >= PAYS * size) {
            (true, true) => {
                self.fewer = Outlook::Useless;
                self.decide(all_busy)
            }
            // It is where it should be, and grows no further.
            (true, false)
                if now.cpu >= LOW * self.processors && now.cpu < HIGH * self.processors =>
            {
                self.fewer = Outlook::Useless;
                self.decide(all_busy)
            }
            (true, false) => {
                self.more = Outlook::Useless;
                self.take_back(trial, is_certain || error < 2.0 * CERTAIN, Reason::NoGain)
            }
            (false, true) => {
                let tried = self.limit;
                self.shrinking = SHRINKING;
                // After a large step, a smaller one may still be right.
                if self.smaller(trial.from) <= tried {
                    self.fewer = Outlook::Useless;
                }
                self.take_back(trial, true, Reason::Loss)
            }
            (false, false) => {
                self.more = Outlook::Useless;
                if work < FLAT * size {
                    self.shrinking = FAST_SHRINKING;
                    self.look = true;
                } else {
                    self.fewer = Outlook::Useless;
                }
                self.decide(all_busy)
            }
        }
    }

    fn take_back(&mut self, trial: Trial, is_certain: bool, reason: Reason) -> Option<Change> {
        let first = if is_certain { FIRST_RETRY } else { EARLY_RETRY };
        self.retry_after = (2.0 * self.retry_after).clamp(first, LAST_RETRY);
        self.expected = Some(trial.before);
        self.change(trial.from, reason)
    }

    /// Doubles with each turn.
    fn patience(&self) -> f64 {
        f64::from(1 << self.turns)
    }

    fn settle(&mut self) {
        let reference = std::mem::take(&mut self.window);
        self.look = false;
        self.shrinking = SHRINKING;
        // What was not tried so far is not tried until the load changes.
        self.fewer = Outlook::Useless;
        self.state = State::Settled(Settled {
            reference,
            deviations: 0,
            seconds: 0.0,
        });
    }

    /// The load has changed: what is known is worth nothing.
    fn forget(&mut self) {
        (self.more, self.fewer) = (Outlook::Unknown, Outlook::Unknown);
        self.look = true;
        self.retry_after = 0.0;
    }

    /// Has the load changed since the pool settled?
    fn check(&mut self, mut settled: Settled, seconds: f64, all_busy: bool) -> Option<Change> {
        settled.seconds += seconds;
        self.state = State::Settled(settled);
        let now = self.window.measured();
        let enough = match now.delay {
            Some(_) => KNOWN_SAMPLES,
            None => CHECK_SAMPLES,
        };
        if self.window.samples < enough {
            return None;
        }
        let window = std::mem::take(&mut self.window);
        let wanted = self.wanted(&now);
        let is_useless = self.more == Outlook::Useless;
        let differs = match wanted {
            Some(wanted) if is_useless && wanted > self.limit as f64 => {
                now.differs_from(&settled.reference.measured())
            }
            Some(wanted) => {
                let factor = (wanted / self.limit as f64).ln().abs();
                factor > SETTLED_NEAR.ln() + 2.0 * now.error_beside(&settled.reference.measured())
            }
            None => self.is_other_load(&now, &settled),
        };
        settled.deviations = if differs { settled.deviations + 1 } else { 0 };
        if !differs && settled.reference.samples < REFERENCE_SAMPLES {
            settled.reference.add(&window);
        }
        let has_changed = settled.deviations >= 2 + self.turns;
        let retries_more = is_useless && settled.seconds >= self.retry_after;
        if let Some(wanted) = wanted {
            if has_changed && is_useless {
                self.forget();
            }
            if has_changed {
                return self.approach(wanted, &now, all_busy);
            }
            if retries_more {
                self.more = Outlook::Unknown;
            }
            self.state = State::Settled(settled);
            return None;
        }
        // Jobs that are few and long do not show that the load has changed.
        let is_crowded = now.cpu >= HIGH * self.processors && self.limit > self.floor;
        let retries_fewer = is_crowded && settled.seconds >= self.retry_after.max(FIRST_RETRY);
        if has_changed {
            self.forget();
            self.state = State::Deciding;
        } else if retries_more || retries_fewer {
            match retries_fewer {
                true => self.fewer = Outlook::Unknown,
                false => self.more = Outlook::Unknown,
            }
            self.expected = Some(settled.reference.measured());
            self.state = State::Deciding;
        } else {
            self.state = State::Settled(settled);
        }
        None
    }

    /// Returns whether a window shows another load, where the wait for a processor is not known.
    fn is_other_load(&self, now: &Measured, settled: &Settled) -> bool {
        let reference = settled.reference.measured();
        if now.differs_from(&reference) {
            return true;
        }
        let load = now.cpu / self.processors;
        let leaves_low = load * (1.0 + 2.0 * now.cpu_error) < SETTLED_LOW
            && self.limit < self.max
            && self.more == Outlook::Unknown;
        let may_leave = settled.seconds >= EARLY_RETRY * self.patience();
        let leaves_high = load >= SETTLED_HIGH
            && self.limit > self.floor
            && now.cpu > CLEARLY_MORE * reference.cpu;
        may_leave && leaves_low || leaves_high
    }
}

/// Sums over samples with one limit.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    samples: u32,
    seconds: f64,
    cpu: f64,
    cpu_squares: f64,
    /// Of each sample and the next one.
    cpu_products: f64,
    last_cpu: f64,
    busy: f64,
    delay: f64,
    /// Of how many samples the delay is known.
    delays: u32,
    ended: f64,
}

/// What a window says of the load.
#[derive(Debug, Clone, Copy)]
struct Measured {
    samples: f64,
    /// How many processors the jobs used.
    cpu: f64,
    /// The relative standard error of a single sample of that, and of all.
    cpu_spread: f64,
    cpu_error: f64,
    /// How many workers were busy.
    busy: f64,
    /// How many of them waited for a processor, if that is known.
    delay: Option<f64>,
    /// How many jobs ended, and how many in a second.
    ended: f64,
    rate: f64,
}

impl Window {
    fn push(&mut self, cpu: f64, busy: f64, delay: Option<f64>, ended: f64, seconds: f64) {
        if self.samples > 0 {
            self.cpu_products += cpu * self.last_cpu;
        }
        self.samples += 1;
        self.seconds += seconds;
        self.cpu += cpu;
        self.cpu_squares += cpu * cpu;
        self.last_cpu = cpu;
        self.busy += busy;
        if let Some(delay) = delay {
            self.delay += delay;
            self.delays += 1;
        }
        self.ended += ended;
    }

    fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.seconds += other.seconds;
        self.cpu += other.cpu;
        self.cpu_squares += other.cpu_squares;
        self.cpu_products += other.cpu_products;
        self.last_cpu = other.last_cpu;
        self.busy += other.busy;
        self.delay += other.delay;
        self.delays += other.delays;
        self.ended += other.ended;
    }

    fn measured(&self) -> Measured {
        let n = f64::from(self.samples);
        let cpu = self.cpu / n;
        let variance = (self.cpu_squares - n * cpu * cpu).max(0.0) / (n - 1.0).max(1.0);
        // Samples that follow each other are alike if jobs are longer than an interval. Then they
        // say less than as many independent ones.
        let alike = if variance <= 1e-12 {
            0.0
        } else {
            let products = self.cpu_products / (n - 1.0) - cpu * cpu;
            (products / variance - 1.0 / n.sqrt()).clamp(0.0, 0.9)
        };
        let spread = (variance * (1.0 + alike) / (1.0 - alike)).sqrt();
        let cpu_spread = if cpu > 1e-9 { spread / cpu } else { 0.0 };
        Measured {
            samples: n,
            cpu,
            cpu_spread,
            // A few samples can agree by chance.
            cpu_error: cpu_spread / n.sqrt() * (1.0 + 3.0 / n),
            busy: self.busy / n,
            delay: (self.delays == self.samples).then_some(self.delay / n),
            ended: self.ended,
            rate: self.ended / self.seconds,
        }
    }
}

impl Measured {
    /// The relative standard error of the difference, if this is the load of `other`, which is
    /// known better.
    fn error_beside(&self, other: &Self) -> f64 {
        let spread = other.cpu_spread * (1.0 + 3.0 / other.samples);
        spread * (1.0 / self.samples + 1.0 / other.samples).sqrt()
    }

    /// Returns whether this is clearly another load than that of `other`, which is known better.
    fn differs_from(&self, other: &Self) -> bool {
        let ratio = |a: f64, b: f64| ((a + 1e-9) / (b + 1e-9)).ln().abs();
        let cpu_error = self.error_beside(other);
        let ended = self.ended.min(other.ended);
        let ended_error = 1.2 / ended.max(1.0).sqrt();
        ratio(self.cpu, other.cpu) > CPU_CHANGE.ln() + 2.0 * cpu_error
            || ended >= MIN_ENDED
                && ratio(self.rate, other.rate) > ENDED_CHANGE.ln() + 2.0 * ended_error
    }
}
