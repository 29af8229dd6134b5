//! How much CPU time and wall time the jobs of a pool use.
//!
//! Each worker writes into its [`Gauge`] when it starts and when it ends a job.
//!
//! On Linux any thread can read the CPU time of a worker, and how long the worker waited for a
//! processor. So the tick reads both. That includes what a worker does between two jobs, which is
//! little.
//!
//! Elsewhere the CPU clock of a thread can be read by that thread alone. So each worker reads it at
//! the end of a job, and writes into its gauge what the job has used. (Of jobs that take less than
//! a millisecond it adds up several, since reading the clock is a system call.) A job that runs is
//! seen, too: its wall time is known. Its CPU time is estimated:
//!
//! - A job that has not run for long is like those that have ended lately.
//! - The jobs that have run for long used what the process used, minus what is known of the other
//!   jobs of the pool, but no more than their wall time. Other threads of the process make that too
//!   large. Then the pool takes its jobs for such that compute, and has fewer workers than it
//!   could.

use std::time::Duration;

use crate::pool::auto_size::clock::{self, Scheduling};
use crate::pool::auto_size::sizer::Sample;
use crate::util::sync::{Arc, Instant, Mutex};

/// A worker reads its CPU clock when its jobs have taken this long.
const FLUSH_AFTER: Duration = Duration::from_millis(1);
/// A job that runs for longer is not taken for one like those that have ended.
const LONG: Duration = Duration::from_secs(2);
/// The weight of what was seen half a second ago.
const DECAY: f64 = 0.95;

/// What the jobs of a worker have used.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    /// `None` where the worker reads its own clock.
    scheduling: Option<Scheduling>,
    readings: Mutex<Readings>,
}

#[derive(Debug, Default)]
struct Readings {
    /// Since the last sample, of jobs that have ended.
    wall: Duration,
    cpu: Duration,
    ended: u64,
    /// From when on the time of the running job, or of several short ones, is not in `wall`. `None`
    /// if the worker is idle.
    since: Option<Instant>,
    /// How much of the time after `since` was in the last sample.
    sampled: Duration,
    /// What the scheduler told for the last sample.
    told: (Duration, Duration),
    /// The worker has exited.
    exited: bool,
}

/// What a gauge says of the time since the last sample.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    /// The wall time within the interval.
    pub(super) busy: Duration,
    /// Of jobs that have ended: their wall time, which can begin before the interval, and CPU time.
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
    pub(super) ended: u64,
    /// How long the running job has run.
    pub(super) running: Option<Duration>,
    /// What the scheduler tells: CPU time, and the wait for a processor. It makes an estimate
    /// needless.
    pub(super) told: Option<(Duration, Duration)>,
}

/// A worker's end of its [`Gauge`].
#[derive(Debug)]
pub(crate) struct Probe {
    gauge: Arc<Gauge>,
    /// The time, and the CPU time of this thread, up to which all is in the gauge.
    mark: Option<(Instant, Duration)>,
}

impl Probe {
    pub(super) fn new(gauge: Arc<Gauge>) -> Self {
        Self { gauge, mark: None }
    }

    /// Reads the CPU clock, unless the scheduler tells that time.
    fn clock(&self) -> Duration {
        match self.gauge.scheduling {
            Some(_) => Duration::ZERO,
            None => clock::thread(),
        }
    }

    /// The worker is about to run a job. `after_pause`: it had to wait for the job.
    pub(super) fn start(&mut self, after_pause: bool) {
        let (since, _) = match self.mark {
            Some(mark) if !after_pause => mark,
            _ => {
                let now = (Instant::now(), self.clock());
                *self.mark.insert(now)
            }
        };
        self.gauge.readings.lock().since = Some(since);
    }

    /// The job has ended.
    pub(crate) fn end(&mut self) {
        let Some((since, cpu_before)) = self.mark else {
            return;
        };
        let now = Instant::now();
        let wall = now.saturating_duration_since(since);
        let mut used = None;
        if wall >= FLUSH_AFTER {
            // A system call, so it precedes the lock.
            let cpu = self.clock();
            self.mark = Some((now, cpu));
            used = Some(cpu.saturating_sub(cpu_before));
        }
        let mut readings = self.gauge.readings.lock();
        readings.ended += 1;
        readings.since = None;
        if let Some(used) = used {
            readings.wall += wall;
            readings.cpu += used;
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let mut readings = self.gauge.readings.lock();
        (readings.since, readings.exited) = (None, true);
    }
}

impl Gauge {
    /// The gauge of this thread.
    pub(super) fn of_this_thread() -> Self {
        let scheduling = Scheduling::of_this_thread();
        let told = scheduling.as_ref().and_then(Scheduling::read);
        let readings = Readings {
            told: told.unwrap_or_default(),
            ..Readings::default()
        };
        Self {
            scheduling,
            readings: Mutex::new(readings),
        }
    }

    /// Takes what has come since the last call. Returns whether the worker lives.
    pub(super) fn take(&self, now: Instant) -> (Part, bool) {
        // It reads a file, so it precedes the lock.
        let told = self.scheduling.as_ref().and_then(Scheduling::read);
        let mut readings = self.readings.lock();
        let told = told.map(|told| {
            let before = std::mem::replace(&mut readings.told, told);
            (
                told.0.saturating_sub(before.0),
                told.1.saturating_sub(before.1),
            )
        });
        let running = readings
            .since
            .map(|since| now.saturating_duration_since(since));
        let wall = std::mem::take(&mut readings.wall);
        let (open, before) = (running.unwrap_or_default(), readings.sampled);
        // Between two short jobs nothing is open, although their time is not in `wall`.
        readings.sampled = open;
        let part = Part {
            busy: (wall + open).saturating_sub(before),
            wall,
            cpu: std::mem::take(&mut readings.cpu),
            ended: std::mem::take(&mut readings.ended),
            running,
            told,
        };
        (part, !readings.exited)
    }
}

/// Puts together what the gauges say.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// The times of jobs that have ended lately, in seconds.
    recent_cpu: f64,
    recent_wall: f64,
}

impl Meter {
    /// `process_cpu`: what the whole process used in the interval.
    pub(super) fn sample(
        &mut self,
        parts: &[Part],
        interval: Duration,
        process_cpu: Duration,
        queued: bool,
    ) -> Sample {
        let sum = |of: fn(&Part) -> Duration| parts.iter().map(of).sum::<Duration>().as_secs_f64();
        self.recent_cpu = DECAY * self.recent_cpu + sum(|part| part.cpu);
        self.recent_wall = DECAY * self.recent_wall + sum(|part| part.wall);
        let recent = share(self.recent_cpu, self.recent_wall);
        // The CPU time of all but the jobs that run for long, and the wall time of these.
        let (mut known, mut long) = (0.0, 0.0);
        let mut delay = Some(Duration::ZERO);
        for part in parts {
            if let Some((cpu, waited)) = part.told {
                // A worker that wakes up waits for a processor before its job starts.
                let cpu = cpu.min(part.busy);
                known += cpu.as_secs_f64();
                delay = delay.map(|sum| sum + waited.min(part.busy - cpu));
                continue;
            }
            // One that has exited is not told of.
            if !part.busy.is_zero() && part.running.is_some() {
                delay = None;
            }
            let open = part.running.unwrap_or_default().min(interval);
            let ended = part.busy.saturating_sub(open).as_secs_f64();
            let open = open.as_secs_f64();
            let own = share(part.cpu.as_secs_f64(), part.wall.as_secs_f64());
            known += ended * own.or(recent).unwrap_or(1.0);
            match recent {
                Some(recent) if part.running < Some(LONG) => known += open * recent,
                _ => long += open,
            }
        }
        let unknown = (process_cpu.as_secs_f64() - known).clamp(0.0, long);
        Sample {
            interval,
            cpu: Duration::from_secs_f64(known + unknown),
            busy: parts.iter().map(|part| part.busy).sum(),
            delay: delay.filter(|_| parts.iter().any(|part| part.told.is_some())),
            ended: parts.iter().map(|part| part.ended).sum(),
            queued,
        }
    }
}

/// Returns which part of the wall time is CPU time.
fn share(cpu: f64, wall: f64) -> Option<f64> {
    (wall > 1e-6).then(|| (cpu / wall).min(1.0))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(500);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn cpu_of(meter: &mut Meter, parts: &[Part], process: f64) -> f64 {
        let sample = meter.sample(parts, TICK, seconds(process), true);
        sample.cpu.as_secs_f64()
    }

    /// Jobs that end within the interval.
    fn short(busy: f64, cpu: f64) -> Part {
        Part {
            busy: seconds(busy),
            wall: seconds(busy),
            cpu: seconds(cpu),
            ended: 10,
            ..Part::default()
        }
    }

    fn running(for_seconds: f64) -> Part {
        Part {
            busy: TICK,
            running: Some(seconds(for_seconds)),
            ..Part::default()
        }
    }

    #[test]
    fn what_other_threads_use_is_not_counted_for_short_jobs() {
        let mut meter = Meter::default();
        let cpu = cpu_of(&mut meter, &[short(0.4, 0.1), short(0.5, 0.2)], 7.0);
        assert!((cpu - 0.3).abs() < 1e-6, "{cpu}");
    }

    #[test]
    fn a_job_that_runs_is_like_those_that_ended() {
        let mut meter = Meter::default();
        cpu_of(&mut meter, &[short(0.5, 0.1)], 9.0);
        let cpu = cpu_of(&mut meter, &[running(1.0)], 9.0);
        assert!((cpu - 0.1).abs() < 1e-6, "{cpu}");
    }

    #[test]
    fn long_jobs_used_what_the_process_used_and_not_more_than_their_time() {
        let mut meter = Meter::default();
        cpu_of(&mut meter, &[short(0.5, 0.5)], 0.5);
        let jobs = [running(10.0), running(20.0), short(0.5, 0.1)];
        assert!((cpu_of(&mut meter, &jobs, 0.4) - 0.4).abs() < 1e-6);
        assert!((cpu_of(&mut meter, &jobs, 0.05) - 0.1).abs() < 1e-6);
        assert!((cpu_of(&mut meter, &jobs, 9.0) - 1.1).abs() < 1e-6);
    }

    #[test]
    fn what_the_scheduler_tells_is_taken_as_it_is() {
        let mut meter = Meter::default();
        let told = |cpu: f64, delay: f64| Part {
            told: Some((seconds(cpu), seconds(delay))),
            ..running(10.0)
        };
        let parts = [told(0.1, 0.2), told(0.3, 0.1)];
        let sample = meter.sample(&parts, TICK, seconds(9.0), true);
        assert_eq!(
            (sample.cpu, sample.delay),
            (seconds(0.4), Some(seconds(0.3)))
        );
        // A part of it was before the job.
        let sample = meter.sample(&[told(0.4, 0.3)], TICK, seconds(9.0), true);
        assert_eq!(
            (sample.cpu, sample.delay),
            (seconds(0.4), Some(seconds(0.1)))
        );
        let parts = [told(0.1, 0.2), running(10.0)];
        assert_eq!(meter.sample(&parts, TICK, seconds(9.0), true).delay, None);
    }

    #[test]
    fn the_time_of_a_long_job_is_spread_over_its_samples() {
        let gauge = Arc::new(Gauge::default());
        let mut probe = Probe::new(Arc::clone(&gauge));
        probe.start(true);
        let start = probe.mark.unwrap().0;
        let (first, lives) = gauge.take(start + TICK);
        assert!(lives);
        assert_eq!((first.busy, first.running), (TICK, Some(TICK)));
        let (second, _) = gauge.take(start + 2 * TICK);
        assert_eq!((second.busy, second.running), (TICK, Some(2 * TICK)));
        // It ends at 1.2 s.
        let end = start + seconds(1.2);
        {
            let mut readings = gauge.readings.lock();
            readings.since = None;
            readings.wall = end - start;
        }
        let (third, _) = gauge.take(start + 3 * TICK);
        assert_eq!((third.busy, third.wall), (seconds(0.2), seconds(1.2)));
        drop(probe);
        let (last, lives) = gauge.take(start + 4 * TICK);
        assert_eq!((last.busy, lives), (Duration::ZERO, false));
    }

    #[test]
    fn short_jobs_are_added_up_and_a_pause_is_no_work() {
        let gauge = Arc::new(Gauge::default());
        let mut probe = Probe::new(Arc::clone(&gauge));
        let start = Instant::now();
        probe.start(true);
        let mark = probe.mark;
        probe.end();
        probe.start(false);
        if start.elapsed() < FLUSH_AFTER {
            assert_eq!(
                probe.mark, mark,
                "the clock is not read for a job that takes no time"
            );
        }
        std::thread::sleep(2 * FLUSH_AFTER);
        probe.end();
        assert!(probe.mark > mark);
        let (part, _) = gauge.take(Instant::now());
        assert_eq!(part.ended, 2);
        assert!(part.wall >= 2 * FLUSH_AFTER, "{part:?}");
        std::thread::sleep(5 * FLUSH_AFTER);
        probe.start(true);
        let (part, _) = gauge.take(Instant::now());
        assert!(part.busy < 5 * FLUSH_AFTER, "{part:?}");
    }
}
