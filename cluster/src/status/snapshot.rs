//! What can be seen of a namespace, at one moment.
//!
//! It is made for people and for programs: `futurepool-cluster status --json` and the page's
//! `/status.json` print it. Times are milliseconds. Texts come from the cluster and are untrusted:
//! they are cut here, and whatever shows them escapes them.

use serde::{Deserialize, Serialize};

/// What can be seen of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// Grows if a field changes its meaning or goes away.
    pub(crate) format: u32,
    pub(crate) namespace: String,
    /// The addresses, without what logs in.
    pub(crate) server: String,
    pub(crate) connection: ConnectionView,
    /// How old the figures are. `None`: there are none yet.
    pub(crate) age_ms: Option<u64>,
    /// Whether ages are exact. If not, they are lower bounds.
    pub(crate) exact_ages: bool,
    /// What could not be read, and why.
    pub(crate) problems: Vec<String>,
    pub(crate) settings: Option<SettingsView>,
    pub(crate) workers: Vec<WorkerView>,
    pub(crate) submitters: Vec<SubmitterView>,
    pub(crate) queues: Vec<QueueView>,
    /// Jobs in the store that no worker has ever asked for: their task, or its version, is unknown.
    pub(crate) jobs_without_consumer: u64,
    pub(crate) rates: Rates,
    pub(crate) totals: Totals,
    pub(crate) stores: Vec<StoreView>,
    /// Detached jobs whose outcome is kept or awaited.
    pub(crate) detached: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConnectionView {
    pub(crate) connected: bool,
    pub(crate) error: Option<String>,
    /// How often a connection was made.
    pub(crate) connections: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SettingsView {
    pub(crate) lease_ms: u64,
    pub(crate) replicas: usize,
    pub(crate) queue_bytes: u64,
}

/// Whether a peer lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Life {
    Alive,
    /// Its sign of life is overdue.
    #[default]
    Silent,
    /// It was silent for longer than the limit, so its jobs are taken from it.
    Dead,
    /// It has said goodbye.
    Left,
}

impl Life {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Silent => "silent",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkerView {
    pub(crate) id: String,
    /// Its host and process.
    pub(crate) name: String,
    pub(crate) life: Life,
    /// For how long nothing was heard of it.
    pub(crate) silent_ms: u64,
    /// What it says: `running`, `draining` or `broken`.
    pub(crate) state: String,
    pub(crate) problem: Option<String>,
    /// Where its program serves a console. Whatever it says: the page links only to addresses of the
    /// web.
    pub(crate) console: Option<String>,
    pub(crate) queue: String,
    pub(crate) tasks: Vec<TaskView>,
    pub(crate) slots: usize,
    pub(crate) busy: usize,
    /// Jobs that it has, running or not.
    pub(crate) held: usize,
    pub(crate) running: Vec<RunView>,
    pub(crate) totals: Totals,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TaskView {
    pub(crate) name: String,
    pub(crate) version: u32,
}

/// What a slot runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunView {
    pub(crate) job: String,
    pub(crate) task: String,
    pub(crate) label: Option<String>,
    pub(crate) for_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SubmitterView {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) life: Life,
    pub(crate) silent_ms: u64,
    pub(crate) pending: usize,
    pub(crate) window: usize,
    pub(crate) submitted: u64,
    pub(crate) lost: u64,
}

/// The jobs of one queue, task and version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueView {
    pub(crate) queue: String,
    pub(crate) task: String,
    pub(crate) version: u32,
    /// Jobs that no worker has got yet.
    pub(crate) waiting: u64,
    /// Jobs that workers hold, or that were given back.
    pub(crate) delivered: u64,
    /// How long ago the oldest job that has not ended was submitted.
    pub(crate) oldest_ms: Option<u64>,
    /// Requests of workers that wait for a job.
    pub(crate) pulls: u64,
    /// Living workers that have the task.
    pub(crate) workers: usize,
}

/// Counts a second. `None`: not known yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rates {
    /// Jobs that came into the store.
    pub(crate) submitted: Option<f64>,
    /// Jobs that left the store.
    pub(crate) ended: Option<f64>,
    // What follows is what peers report.
    pub(crate) done: Option<f64>,
    pub(crate) failed: Option<f64>,
    pub(crate) lost: Option<f64>,
    pub(crate) retried: Option<f64>,
}

/// Counts since a worker started, or the sums of all workers that are shown.
///
/// In the sums, `lost` is what the submitters know if they know of more: a submitter that sees a
/// worker die says itself that the job is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) retried: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoreView {
    /// `jobs`, `results`, `claims`, `live`, `kept` or `blobs`.
    pub(crate) name: String,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// How many bytes it takes, if it has a limit.
    pub(crate) limit: Option<u64>,
}

/// A point of the graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// How long ago it was.
    pub(crate) ago_ms: u64,
    pub(crate) submitted: f64,
    pub(crate) ended: f64,
    pub(crate) lost: f64,
    pub(crate) queued: u64,
}

impl Snapshot {
    pub(crate) const FORMAT: u32 = 1;

    /// Returns whether the figures are those of another time than now.
    pub(crate) fn is_stale(&self) -> bool {
        !self.connection.connected || self.age_ms.is_none_or(|age| age > 10_000)
    }

    /// Returns the jobs that wait or run.
    pub(crate) fn jobs(&self) -> u64 {
        let jobs = self.stores.iter().find(|store| store.name == "jobs");
        jobs.map_or(0, |store| store.messages)
    }

    /// Returns the slots of living workers: those that are busy, and all.
    pub(crate) fn slots(&self) -> (usize, usize) {
        let alive = self.workers.iter().filter(|w| w.life == Life::Alive);
        alive.fold((0, 0), |(busy, all), worker| {
            (busy + worker.busy, all.saturating_add(worker.slots))
        })
    }
}
