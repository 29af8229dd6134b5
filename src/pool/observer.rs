//! What a pool records and tells of its jobs, if it is asked to.
//!
//! A job is observed if it has a [`Stamp`], which it gets before it is queued. The calls here come
//! from its submitter, from the thread that runs it, and from the thread that ends it. No lock is
//! held.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::pool::events::JobEvent;
use crate::pool::timings::Timings;
use crate::task::cell::Details;
use crate::task::context::worker_index;
use crate::task::stamp::Stamp;
use crate::task::state::{Origin, OutcomeKind};
use crate::util::sync::{Instant, Ordering, to_std};
use crate::util::unwind::{catch_panic, drop_catching};

pub(crate) type OnJob = Box<dyn Fn(&JobEvent) + Send + Sync>;

/// The part of a pool that observes its jobs.
pub(crate) struct Observer {
    on_job: Option<OnJob>,
    timings: Option<Timings>,
    last_id: AtomicU64,
}

/// What is known of an observed job from the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobInfo {
    /// 0 unless events tell of the job.
    pub(crate) id: u64,
    pub(crate) label: Option<&'static str>,
    pub(crate) origin: Origin,
}

impl JobInfo {
    pub(crate) fn new(details: &Details, origin: Origin) -> Self {
        Self {
            id: details.id,
            label: details.label,
            origin,
        }
    }
}

impl Observer {
    /// Returns `None` if there is nothing to observe for.
    pub(crate) fn new(on_job: Option<OnJob>, timings: Option<Timings>) -> Option<Self> {
        (on_job.is_some() || timings.is_some()).then(|| Self {
            on_job,
            timings,
            last_id: AtomicU64::new(0),
        })
    }

    /// Returns the number of a new job; 0 if no events tell of it.
    pub(crate) fn next_id(&self) -> u64 {
        match self.on_job {
            Some(_) => self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            None => 0,
        }
    }

    /// Returns what the pool measures, if it measures its jobs.
    pub(crate) fn timings(&self) -> Option<&Timings> {
        self.timings.as_ref()
    }

    /// The pool has accepted a job, which may have started, or ended, meanwhile.
    pub(crate) fn accepted(&self, job: &JobInfo, at: Instant) {
        if let Some(timings) = &self.timings {
            timings.submitted(job.label);
        }
        self.tell(|| JobEvent::Submitted {
            id: job.id,
            label: job.label,
            location: job.origin,
            at: to_std(at),
        });
    }

    fn started(&self, job: &JobInfo, at: Instant, queue_wait: Duration, worker: usize) {
        self.tell(|| JobEvent::Started {
            id: job.id,
            label: job.label,
            location: job.origin,
            at: to_std(at),
            worker,
            queue_wait,
        });
    }

    /// The job has ended. `ran`: the worker, and how long the closure ran, if the job started.
    fn finished(
        &self,
        job: &JobInfo,
        at: Instant,
        queue_wait: Duration,
        ran: Option<(usize, Duration)>,
        kind: OutcomeKind,
    ) {
        if let Some(timings) = &self.timings {
            match ran {
                Some((_, run_time)) => timings.finished(job.label, kind, queue_wait, run_time),
                None => timings.not_run(job.label, kind),
            }
            timings.tell(job.label, kind, queue_wait, ran);
        }
        self.tell(|| JobEvent::Finished {
            id: job.id,
            label: job.label,
            location: job.origin,
            at: to_std(at),
            worker: ran.map(|(worker, _)| worker),
            queue_wait,
            run_time: ran.map(|(_, run_time)| run_time),
            outcome: kind.into(),
        });
    }

    /// A job that was accepted will not run. Its error is not visible yet.
    pub(crate) fn not_run(&self, job: &JobInfo, stamp: Stamp, kind: OutcomeKind) {
        let now = Instant::now();
        self.finished(job, now, stamp.elapsed(now), None, kind);
    }

    fn tell(&self, event: impl FnOnce() -> JobEvent) {
        if let Some(on_job) = &self.on_job {
            let event = event();
            catch_panic("the function given to `on_job`", || on_job(&event));
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let on_job = self.on_job.take();
        drop_catching("the destructor of a function given to `on_job`", on_job);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer")
            .field("on_job", &self.on_job.is_some())
            .field("timings", &self.timings.is_some())
            .finish_non_exhaustive()
    }
}

/// An observed job that runs on this thread.
pub(crate) struct Observation<'a> {
    observer: &'a Observer,
    job: JobInfo,
    worker: usize,
    queue_wait: Duration,
    /// When the closure is called.
    since: Instant,
}

impl<'a> Observation<'a> {
    /// The closure of a job is about to be called.
    #[inline(never)]
    pub(crate) fn start(observer: &'a Observer, job: JobInfo, stamp: Stamp) -> Self {
        let now = Instant::now();
        let queue_wait = stamp.elapsed(now);
        let worker = worker_index();
        observer.started(&job, now, queue_wait, worker);
        let since = match observer.on_job {
            // The function may have taken its time.
            Some(_) => Instant::now(),
            None => now,
        };
        Self {
            observer,
            job,
            worker,
            queue_wait,
            since,
        }
    }

    /// The closure has returned, or panicked. The outcome is not visible yet.
    #[inline(never)]
    pub(crate) fn finish(self, kind: OutcomeKind) {
        let now = Instant::now();
        let run_time = now.saturating_duration_since(self.since);
        let ran = Some((self.worker, run_time));
        (self.observer).finished(&self.job, now, self.queue_wait, ran, kind);
    }
}
