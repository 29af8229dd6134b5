//! What a pool measures of its jobs: for each label the number of jobs by their end, and how long
//! they waited and ran. Only a pool with [`timings`](crate::ThreadPoolBuilder::timings) has it.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tracing::field;

#[cfg(feature = "metrics")]
use crate::pool::exported::ExportedLabel;
use crate::pool::histogram::{AtomicHistogram, Histogram};
use crate::pool::labels::Labels;
use crate::pool::metrics::{Counter, LabelMetrics, Metrics, SHARDS, current_shard};
use crate::task::state::OutcomeKind;
use crate::util::unwind::emit;

#[derive(Debug)]
pub(crate) struct Timings {
    /// The pool's name.
    pool: String,
    unlabelled: LabelTimings,
    labels: Labels<LabelTimings>,
}

/// As in [`Counters`](crate::pool::metrics::Counters), each thread writes in one of a few shards. A
/// label has only the shards that were written.
#[derive(Debug, Default)]
struct LabelTimings {
    shards: [OnceLock<Box<CachePadded<Shard>>>; SHARDS],
    #[cfg(feature = "metrics")]
    exported: ExportedLabel,
}

#[derive(Debug, Default)]
struct Shard {
    submitted: Counter,
    completed: Counter,
    panicked: Counter,
    cancelled: Counter,
    /// Counted in `cancelled`, too.
    expired: Counter,
    failed: Counter,
    queue_wait: AtomicHistogram,
    run_time: AtomicHistogram,
}

impl Timings {
    /// Returns the timings of a pool, which has had no job.
    pub(crate) fn new(pool: &str) -> Self {
        Self {
            pool: pool.to_owned(),
            unlabelled: LabelTimings::default(),
            labels: Labels::default(),
        }
    }

    /// A job was accepted.
    pub(crate) fn submitted(&self, label: Option<&'static str>) {
        // Jobs without a label are counted by the pool itself.
        if label.is_some() {
            self.label(label).shard().submitted.increment();
        }
    }

    /// A job will not run. Its error is about to be visible. No lock may be held: this may run user
    /// code.
    pub(crate) fn not_run(&self, label: Option<&'static str>, kind: OutcomeKind) {
        let timings = self.label(label);
        if label.is_some() {
            timings.shard().ended(kind);
        }
        #[cfg(feature = "metrics")]
        timings.exported.not_run(&self.pool, label, kind);
    }

    /// A job has run on this worker. Its outcome is about to be visible. No lock may be held: this
    /// may run user code.
    pub(crate) fn finished(
        &self,
        label: Option<&'static str>,
        kind: OutcomeKind,
        queue_wait: Duration,
        run_time: Duration,
    ) {
        let timings = self.label(label);
        let shard = timings.shard();
        shard.queue_wait.record(queue_wait);
        shard.run_time.record(run_time);
        if label.is_some() {
            shard.ended(kind);
        }
        #[cfg(feature = "metrics")]
        (timings.exported).finished(&self.pool, label, kind, queue_wait, run_time);
    }

    fn label(&self, label: Option<&'static str>) -> &LabelTimings {
        label.map_or(&self.unlabelled, |label| self.labels.get(label))
    }

    /// Emits an event for the end of a job. `ran`: the worker, and how long the closure ran. No
    /// lock may be held: this may run user code.
    pub(crate) fn tell(
        &self,
        label: Option<&'static str>,
        kind: OutcomeKind,
        queue_wait: Duration,
        ran: Option<(usize, Duration)>,
    ) {
        emit(|| {
            let (pool, outcome) = (&self.pool, kind.as_str());
            let (worker, run_time) = ran.unzip();
            let run_time = run_time.map(field::debug);
            tracing::trace!(
                target: "futurepool::job",
                %pool, label, worker, ?queue_wait, run_time, outcome, "a job has ended: {outcome}"
            );
        });
    }

    /// Adds the measurements to `metrics`.
    pub(crate) fn read(&self, metrics: &mut Metrics) {
        let mut add = |label: &LabelMetrics| {
            metrics.queue_wait.merge(&label.queue_wait);
            metrics.run_time.merge(&label.run_time);
        };
        add(&self.unlabelled.read());
        let mut by_label = BTreeMap::new();
        self.labels.for_each(|label, timings| {
            let timings = timings.read();
            add(&timings);
            by_label.insert(label, timings);
        });
        metrics.by_label = by_label;
    }
}

impl LabelTimings {
    /// Returns the shard of this thread.
    fn shard(&self) -> &Shard {
        self.shards[current_shard()].get_or_init(Box::default)
    }

    fn read(&self) -> LabelMetrics {
        let shards = || self.shards.iter().filter_map(OnceLock::get);
        let sum = |counter: fn(&Shard) -> &Counter| {
            shards().map(|shard| counter(shard).get()).sum::<u64>()
        };
        let histogram = |histogram: fn(&Shard) -> &AtomicHistogram| {
            let mut sum = Histogram::default();
            shards().for_each(|shard| histogram(shard).add_to(&mut sum));
            sum
        };
        let completed = sum(|shard| &shard.completed);
        let panicked = sum(|shard| &shard.panicked);
        let cancelled = sum(|shard| &shard.cancelled);
        let failed = sum(|shard| &shard.failed);
        // A job can end before its submitter has counted it.
        let submitted =
            sum(|shard| &shard.submitted).max(completed + panicked + cancelled + failed);
        LabelMetrics {
            submitted,
            completed,
            panicked,
            cancelled,
            // Read after `cancelled`, so it can be too large.
            expired: sum(|shard| &shard.expired).min(cancelled),
            failed,
            queue_wait: histogram(|shard| &shard.queue_wait),
            run_time: histogram(|shard| &shard.run_time),
        }
    }
}

impl Shard {
    fn ended(&self, kind: OutcomeKind) {
        match kind {
            OutcomeKind::Returned => self.completed.increment(),
            OutcomeKind::Panicked => self.panicked.increment(),
            OutcomeKind::Failed => self.failed.increment(),
            OutcomeKind::Cancelled | OutcomeKind::NotRun => self.cancelled.increment(),
            OutcomeKind::Expired => {
                self.expired.increment();
                self.cancelled.increment();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn read(timings: &Timings) -> Metrics {
        let mut metrics = Metrics::default();
        timings.read(&mut metrics);
        metrics
    }

    #[test]
    fn jobs_are_counted_by_label_and_outcome() {
        let timings = Timings::new("pool");
        for kind in [
            OutcomeKind::Returned,
            OutcomeKind::Panicked,
            OutcomeKind::Failed,
            OutcomeKind::Cancelled,
        ] {
            timings.submitted(Some("a"));
            timings.finished(Some("a"), kind, MILLI, 2 * MILLI);
        }
        for kind in [OutcomeKind::NotRun, OutcomeKind::Expired] {
            timings.submitted(Some("a"));
            timings.not_run(Some("a"), kind);
        }
        timings.finished(None, OutcomeKind::Returned, 3 * MILLI, 4 * MILLI);
        let all = read(&timings);
        assert_eq!(all.by_label.len(), 1, "jobs without a label are not there");
        let a = &all.by_label["a"];
        assert_eq!((a.submitted, a.completed, a.panicked), (6, 1, 1));
        assert_eq!((a.cancelled, a.failed, a.expired), (3, 1, 1));
        assert_eq!((a.queue_wait.count(), a.run_time.count()), (4, 4));
        assert_eq!(
            (a.queue_wait.sum(), a.run_time.sum()),
            (4 * MILLI, 8 * MILLI)
        );
        assert_eq!((all.queue_wait.count(), all.run_time.count()), (5, 5));
        assert_eq!(all.queue_wait.sum(), 7 * MILLI);
        assert_eq!(all.run_time.max(), 4 * MILLI);
    }

    #[test]
    fn a_job_that_ends_before_it_is_counted_as_submitted_is_counted() {
        let timings = Timings::new("pool");
        timings.finished(Some("a"), OutcomeKind::Returned, MILLI, MILLI);
        assert_eq!(read(&timings).by_label["a"].submitted, 1);
        timings.submitted(Some("a"));
        assert_eq!(read(&timings).by_label["a"].submitted, 1);
    }

    #[test]
    fn a_reader_never_sees_more_expired_jobs_than_cancelled_ones() {
        let (timings, done) = (Timings::new("pool"), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    timings.not_run(Some("a"), OutcomeKind::Expired);
                }
            });
            let a = loop {
                let all = read(&timings);
                let a = all.by_label.get("a").cloned().unwrap_or_default();
                if a.expired > a.cancelled || a.cancelled > 1_000_000 {
                    break a;
                }
            };
            done.store(true, Ordering::Relaxed);
            assert!(a.expired <= a.cancelled, "{a:?}");
        });
    }

    #[test]
    fn all_shards_are_read() {
        let timings = Timings::new("pool");
        thread::scope(|scope| {
            for _ in 0..SHARDS {
                let finished = || timings.finished(Some("a"), OutcomeKind::Returned, MILLI, MILLI);
                scope.spawn(finished);
            }
        });
        let all = read(&timings);
        let a = &all.by_label["a"];
        assert_eq!((a.completed, a.run_time.count()), (8, 8));
        assert_eq!(all.run_time, a.run_time);
    }
}
