//! The pools of this process, and what went wrong in them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::console::watch::now;
use crate::pool::{PoolInner, PoolRefs};
#[cfg(all(unix, feature = "process"))]
use crate::process::WorkerList;
use crate::task::context::current_pool;
use crate::task::state::Origin;
use crate::util::sync::Mutex;
use crate::util::unwind::catch_panic;

static POOLS: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// What went wrong since the sampler looked last.
static INBOX: Mutex<VecDeque<Incident>> = Mutex::new(VecDeque::new());

/// Whether there was ever a console. Before that nothing is written down.
static SERVED: AtomicBool = AtomicBool::new(false);

/// How many incidents are kept.
pub(crate) const MAX_INCIDENTS: usize = 100;

/// How much of a message or a place is kept, in bytes.
const MAX_MESSAGE: usize = 1000;

#[derive(Clone)]
struct Entry {
    #[cfg(all(unix, feature = "process"))]
    id: u64,
    inner: Weak<PoolInner>,
    refs: Weak<PoolRefs>,
    kind: Kind,
    #[cfg(all(unix, feature = "process"))]
    processes: Option<WorkerList>,
}

/// Where the jobs of a pool run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Threads,
    /// Each thread owns a state.
    Stateful,
    #[cfg(all(unix, feature = "process"))]
    Processes,
}

/// A pool that has not ended.
pub(crate) struct LivePool {
    pub(crate) inner: Arc<PoolInner>,
    pub(crate) kind: Kind,
    #[cfg(all(unix, feature = "process"))]
    pub(crate) processes: Option<WorkerList>,
}

/// A pool was built.
pub(crate) fn add_pool(inner: &Arc<PoolInner>, refs: &Arc<PoolRefs>) {
    let mut pools = POOLS.lock();
    pools.retain(|entry| entry.inner.strong_count() > 0);
    pools.push(Entry {
        #[cfg(all(unix, feature = "process"))]
        id: inner.id(),
        inner: Arc::downgrade(inner),
        refs: Arc::downgrade(refs),
        kind: match inner.is_stateful() {
            true => Kind::Stateful,
            false => Kind::Threads,
        },
        #[cfg(all(unix, feature = "process"))]
        processes: None,
    });
}

/// The threads of a pool have worker processes.
#[cfg(all(unix, feature = "process"))]
pub(crate) fn set_processes(pool: u64, processes: WorkerList) {
    let mut pools = POOLS.lock();
    if let Some(entry) = pools.iter_mut().find(|entry| entry.id == pool) {
        entry.kind = Kind::Processes;
        entry.processes = Some(processes);
    }
}

/// Returns the pools that have not ended.
///
/// The value of a pool may be gone while its queue still runs. Then it has not ended.
pub(crate) fn live_pools() -> Vec<LivePool> {
    // A pool may be dropped here, and with it values of the user: so not under the lock.
    let entries = POOLS.lock().clone();
    let live = |entry: Entry| {
        let inner = entry.inner.upgrade()?;
        if entry.refs.strong_count() == 0 && inner.registry().workers() == 0 {
            return None;
        }
        Some(LivePool {
            inner,
            kind: entry.kind,
            #[cfg(all(unix, feature = "process"))]
            processes: entry.processes,
        })
    };
    entries.into_iter().filter_map(live).collect()
}

/// Something that an operator should see.
#[derive(Debug, Clone)]
pub(crate) struct Incident {
    /// When it happened last.
    pub(crate) at: u64,
    /// How often it has happened.
    pub(crate) times: u64,
    pub(crate) kind: &'static str,
    /// The number of its pool, if a worker met it.
    pub(crate) pool: Option<u64>,
    pub(crate) pool_name: String,
    /// The name of the thread.
    pub(crate) worker: String,
    pub(crate) label: Option<&'static str>,
    /// The name of the task.
    pub(crate) task: Option<&'static str>,
    /// Where the job was submitted.
    pub(crate) origin: Option<Origin>,
    /// Where it panicked, if that is known.
    pub(crate) place: String,
    pub(crate) message: String,
    /// The worker process.
    pub(crate) pid: Option<u32>,
}

fn name(pool: &PoolInner) -> String {
    pool.config().thread_name_prefix.clone()
}

impl Incident {
    fn new(kind: &'static str, message: &str) -> Self {
        let pool = current_pool();
        Self {
            at: now(),
            times: 1,
            kind,
            pool: pool.as_ref().map(|pool| pool.id()),
            pool_name: pool.map_or_else(String::new, |pool| name(&pool)),
            worker: std::thread::current().name().unwrap_or("?").to_owned(),
            label: None,
            task: None,
            origin: None,
            place: String::new(),
            message: cut(message),
            pid: None,
        }
    }
}

impl Incident {
    /// Returns whether the two tell of the same trouble, at different times.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.pool == other.pool
            && self.origin == other.origin
            && self.task == other.task
            && self.label == other.label
            && self.message == other.message
    }

    /// `other` tells of the same trouble, later.
    pub(crate) fn happened_again(&mut self, other: Self) {
        *self = Self {
            times: self.times + other.times,
            ..other
        };
    }
}

fn cut(message: &str) -> String {
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    let mut end = MAX_MESSAGE;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}

/// From now on incidents are written down.
pub(crate) fn set_served() {
    SERVED.store(true, Ordering::Relaxed);
}

fn is_served() -> bool {
    SERVED.load(Ordering::Relaxed)
}

/// Takes the incidents since the last call.
pub(crate) fn take_incidents() -> VecDeque<Incident> {
    std::mem::take(&mut INBOX.lock())
}

fn report(incident: Incident) {
    let mut inbox = INBOX.lock();
    // If every job panics, there is one incident.
    if let Some(same) = inbox.iter_mut().find(|other| other.is_like(&incident)) {
        same.happened_again(incident);
        drop(inbox);
        return;
    }
    let oldest = if inbox.len() >= MAX_INCIDENTS {
        inbox.pop_front()
    } else {
        None
    };
    inbox.push_back(incident);
    drop(inbox);
    drop(oldest);
}

/// The job that this thread runs has panicked. No lock may be held.
#[cold]
pub(crate) fn job_panicked(origin: Origin, label: Option<&'static str>, message: Option<&str>) {
    if is_served() {
        report(Incident {
            label,
            origin: Some(origin),
            ..Incident::new("panic", message.unwrap_or("(no text)"))
        });
    }
}

/// A task has panicked in a worker process. `place`: where in the source. No lock may be held.
#[cfg(all(unix, feature = "process"))]
#[cold]
pub(crate) fn task_panicked(pid: u32, task: &'static str, message: &str, place: &str) {
    if is_served() {
        report(Incident {
            task: Some(task),
            pid: Some(pid),
            place: cut(place),
            ..Incident::new("panic", message)
        });
    }
}

/// An initializer has failed. No lock may be held.
#[cold]
pub(crate) fn pool_broken(cause: &dyn std::fmt::Display) {
    if is_served() {
        catch_panic("the description of an error", || {
            report(Incident::new(
                "broken",
                &format!("the pool is broken: {cause}"),
            ));
        });
    }
}

/// The system has refused a thread.
#[cold]
pub(crate) fn spawn_failed(pool: &PoolInner, error: &dyn std::fmt::Display) {
    if is_served() {
        report(Incident {
            pool: Some(pool.id()),
            pool_name: name(pool),
            ..Incident::new("thread refused", &error.to_string())
        });
    }
}

/// A worker process was killed, or has ended by itself. `task`: what it ran. No lock may be held.
#[cfg(all(unix, feature = "process"))]
#[cold]
pub(crate) fn process_gone(pid: u32, was_killed: bool, task: Option<&'static str>, reason: &str) {
    if is_served() {
        report(Incident {
            pid: Some(pid),
            task,
            ..Incident::new(if was_killed { "kill" } else { "crash" }, reason)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ü".repeat(MAX_MESSAGE);
        let text = cut(&long);
        assert!(
            text.len() <= MAX_MESSAGE + "…".len() && text.ends_with("ü…"),
            "{text}"
        );
    }
}
