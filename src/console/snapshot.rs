//! What the console shows, in the form in which it is sent.

use crate::console::json::{arrays, objects};

objects! {
    /// The figures of all pools, and what is new in the timeline since an earlier answer.
    #[derive(Debug)]
    pub(crate) struct Snapshot {
        /// Grows when a field changes its meaning.
        pub(crate) version: u32,
        pub(crate) program: String,
        pub(crate) pid: u32,
        /// Differs if the numbers of ticks start anew.
        pub(crate) epoch: u64,
        /// The last look at the pools. The next request can ask for what comes after it.
        pub(crate) tick: u64,
        /// In microseconds, as all times are. They count from some moment of the process's life.
        pub(crate) now: u64,
        /// Since when the pools are looked at.
        pub(crate) since: u64,
        /// What the numbers in `what` stand for.
        pub(crate) whats: Vec<What>,
        pub(crate) pools: Vec<Pool>,
        /// The newest first.
        pub(crate) incidents: Vec<Incident>,
    }

    /// The jobs of one place in the source, or of one label.
    #[derive(Debug, Clone)]
    pub(crate) struct What {
        pub(crate) label: Option<String>,
        /// File and line of the `submit`.
        pub(crate) place: String,
    }

    #[derive(Debug)]
    pub(crate) struct Pool {
        pub(crate) id: u64,
        pub(crate) name: String,
        pub(crate) kind: &'static str,
        pub(crate) state: &'static str,
        pub(crate) max_workers: u64,
        /// `None` unless the pool finds the number of its workers.
        pub(crate) auto_size: Option<AutoSize>,
        pub(crate) capacity: Option<u64>,
        pub(crate) workers: u64,
        pub(crate) idle: u64,
        pub(crate) running: u64,
        pub(crate) queued: u64,
        pub(crate) oldest: Option<Age>,
        pub(crate) totals: Totals,
        /// A second, in the last two seconds. `None` until there are two looks.
        pub(crate) rates: Option<Rates>,
        /// From acceptance to start, in the last minute.
        pub(crate) queue_wait: Option<Quantiles>,
        /// Of the closure, in the last minute.
        pub(crate) run_time: Option<Quantiles>,
        /// Where the time goes: the jobs of the last minute by label or place, the most time first.
        pub(crate) jobs: Vec<Jobs>,
        pub(crate) lanes: Vec<Lane>,
        /// Workers that are not in `lanes`, since there are too many.
        pub(crate) more_lanes: usize,
        pub(crate) points: Vec<Point>,
        pub(crate) bars: Vec<Bar>,
        pub(crate) processes: Vec<Process>,
    }

    /// What a pool has decided about the number of its workers, which is `max_workers`.
    #[derive(Debug)]
    pub(crate) struct AutoSize {
        pub(crate) min: u64,
        pub(crate) max: u64,
        pub(crate) processors: u64,
        /// How often the number has changed.
        pub(crate) changes: u64,
        /// Why it changed last, or why the pool started with it.
        pub(crate) reason: String,
        /// When that was.
        pub(crate) ago_us: u64,
        pub(crate) cpu_percent: u64,
    }

    /// How old something is.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub(crate) struct Age {
        pub(crate) us: u64,
        /// It is this old or older.
        pub(crate) at_least: bool,
    }

    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct Totals {
        pub(crate) submitted: u64,
        pub(crate) completed: u64,
        pub(crate) panicked: u64,
        pub(crate) cancelled: u64,
        /// They count in `cancelled`, too.
        pub(crate) expired: u64,
        pub(crate) failed: u64,
        pub(crate) rejected: u64,
        pub(crate) spawn_failures: u64,
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Rates {
        pub(crate) submitted: f64,
        pub(crate) started: f64,
        pub(crate) finished: f64,
        pub(crate) rejected: f64,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    pub(crate) struct Quantiles {
        pub(crate) p50_us: f64,
        pub(crate) p99_us: f64,
        /// How many jobs were timed.
        pub(crate) of: usize,
    }

    #[derive(Debug, Clone)]
    pub(crate) struct Jobs {
        pub(crate) what: usize,
        pub(crate) per_second: f64,
        /// Of the time of all workers that ran jobs.
        pub(crate) share: f64,
        pub(crate) queue_wait: Option<Quantiles>,
        pub(crate) run_time: Quantiles,
        /// Timed jobs that returned no value.
        pub(crate) bad: usize,
    }

    /// A worker thread.
    #[derive(Debug)]
    pub(crate) struct Lane {
        pub(crate) index: usize,
        pub(crate) name: String,
        pub(crate) state: &'static str,
        /// What it runs. `None` while it runs nothing, and while it changes faster than it can be
        /// read.
        pub(crate) what: Option<usize>,
        pub(crate) age: Option<Age>,
        pub(crate) jobs_per_second: f64,
        /// The share of the last two seconds in which it ran jobs.
        pub(crate) busy: f64,
    }

    #[derive(Debug, Clone)]
    pub(crate) struct Process {
        pub(crate) pid: u32,
        pub(crate) state: String,
        pub(crate) memory: u64,
        pub(crate) jobs_done: u64,
        pub(crate) task: Option<String>,
        pub(crate) label: Option<String>,
        pub(crate) age_us: Option<u64>,
    }

    #[derive(Debug, Clone)]
    pub(crate) struct Incident {
        pub(crate) number: u64,
        /// When it happened last.
        pub(crate) ago_us: u64,
        pub(crate) times: u64,
        pub(crate) kind: &'static str,
        pub(crate) pool: Option<u64>,
        pub(crate) pool_name: String,
        pub(crate) worker: String,
        /// The label of the job, or the name of the task.
        pub(crate) what: Option<String>,
        /// Where it panicked, or else where it was submitted.
        pub(crate) place: Option<String>,
        pub(crate) message: String,
        pub(crate) pid: Option<u32>,
    }
}

arrays! {
    /// The state of a pool at a tick.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Point {
        pub(crate) at: u64,
        /// Submitted, started and finished since the point before, a second.
        pub(crate) submitted: f64,
        pub(crate) started: f64,
        pub(crate) finished: f64,
        /// Queued now.
        pub(crate) queued: u64,
        /// Refused since the point before.
        pub(crate) rejected: u64,
        /// The number of workers that the pool allows itself.
        pub(crate) max_workers: u64,
    }

    /// What a worker did.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Bar {
        pub(crate) lane: usize,
        pub(crate) from: u64,
        pub(crate) to: u64,
        /// What it ran, if that was one thing.
        pub(crate) what: Option<usize>,
        pub(crate) jobs: u64,
        /// Of more than one job: the share of the time in which they ran.
        pub(crate) busy: f32,
        /// 0: all is well. 1: a job failed or panicked. 2: the times are those of ticks.
        pub(crate) flag: u8,
    }
}
