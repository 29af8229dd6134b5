//! The participants: how each is started, with which options, and what it guarantees.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::floor::Floor;
use crate::ours::Ours;
use crate::python::Python;
use crate::result::Sample;
use crate::rows::{self, Row};
use crate::tasks::{Idempotent, Kind, Once};

/// What a run needs from the machine.
pub(crate) struct Environment {
    pub(crate) nats: PathBuf,
    pub(crate) redis: PathBuf,
    /// The virtual environment of the Python peers.
    pub(crate) python: PathBuf,
}

/// The amount of work: all of it, or a tenth.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) quick: bool,
}

impl Scale {
    pub(crate) fn of(self, full: u64) -> u64 {
        if self.quick { full / 10 } else { full }
    }
}

/// A participant that has started. It ends, with all its processes, when it is dropped.
pub(crate) trait Session {
    fn measure(&mut self, row: Row, scale: Scale) -> Result<Sample, String>;
}

pub(crate) type Start = Box<dyn Fn(&Environment) -> Result<Box<dyn Session>, String>>;

pub(crate) struct Participant {
    pub(crate) about: About,
    pub(crate) family: Family,
    pub(crate) rows: &'static [Row],
    pub(crate) start: Start,
}

/// What the report says about a participant.
#[derive(Serialize, Clone, Copy)]
pub(crate) struct About {
    pub(crate) name: &'static str,
    /// How it is set up.
    pub(crate) options: &'static str,
    /// At most once, or at least once.
    pub(crate) starts: &'static str,
    pub(crate) killed_worker: &'static str,
    pub(crate) killed_server: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Futurepool,
    Floor,
    Celery,
    Dask,
    Ray,
}

impl Family {
    /// Returns the package that must be installed, if it is one of Python.
    pub(crate) fn package(self) -> Option<&'static str> {
        match self {
            Self::Futurepool | Self::Floor => None,
            Self::Celery => Some("celery"),
            Self::Dask => Some("distributed"),
            Self::Ray => Some("ray"),
        }
    }
}

pub(crate) const DEFAULT: &str = "futurepool (default)";
pub(crate) const IDEMPOTENT: &str = "futurepool (idempotent)";
pub(crate) const FLOOR: &str = "floor";

const FLOOR_ROWS: &[Row] = &[Row::Trip, Row::Burst];

pub(crate) fn all() -> Vec<Participant> {
    vec![
        ours::<Once>(About {
            name: DEFAULT,
            starts: "at most once",
            killed_worker: "`is_lost` within the lease + 1 s if it started, else it runs elsewhere",
            ..OWN
        }),
        ours::<Idempotent>(About {
            name: IDEMPOTENT,
            starts: "at least once",
            killed_worker: "runs again elsewhere after the lease; `is_lost` after `attempts` starts",
            ..OWN
        }),
        floor(),
        // The pages "Optimizing" (prefetch) and "Using Redis" (visibility timeout, snapshots) of
        // https://docs.celeryq.dev/en/stable; `acks_late`, `reject_on_worker_lost`: its page "Tasks".
        peer(
            "celery-prefork",
            Family::Celery,
            About {
                name: "Celery, prefork",
                options: "2 workers with 8 processes, prefetch multiplier 64; Redis with its defaults",
                ..CELERY_EARLY
            },
        ),
        peer(
            "celery-threads",
            Family::Celery,
            About {
                name: "Celery, threads",
                options: "2 workers with 8 threads, prefetch multiplier 64; Redis with its defaults",
                ..CELERY_EARLY
            },
        ),
        peer(
            "celery-prefork-late",
            Family::Celery,
            About {
                name: "Celery, prefork, late",
                options: "as prefork, with `task_acks_late`, `task_reject_on_worker_lost`; Redis appends to a log, `everysec`",
                ..CELERY_LATE
            },
        ),
        peer(
            "celery-threads-late",
            Family::Celery,
            About {
                name: "Celery, threads, late",
                options: "as threads, with `task_acks_late`; Redis appends to a log, `everysec`",
                ..CELERY_LATE
            },
        ),
        // https://distributed.dask.org/en/stable/resilience.html
        peer(
            "dask",
            Family::Dask,
            About {
                name: "Dask",
                options: "scheduler and two workers with 8 threads, each a process; `Client.map`, `pure=False`, no dashboard",
                starts: "at least once",
                killed_worker: "runs again elsewhere, results that it held too; `KilledWorker` after 4 (`allowed-failures` 3)",
                killed_server: "everything is lost",
            },
        ),
        // https://docs.ray.io/en/latest/ray-core/fault_tolerance/tasks.html and …/nodes.html
        peer(
            "ray-tasks",
            Family::Ray,
            About {
                name: "Ray, tasks",
                options: "one node with 16 CPUs, a process for each, no dashboard",
                starts: "at least once",
                killed_worker: "runs again elsewhere, 3 times (`max_retries`)",
                killed_server: "everything is lost: the head node is the cluster",
            },
        ),
        // https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html
        peer(
            "ray-actors",
            Family::Ray,
            About {
                name: "Ray, actors",
                options: "two actors with `max_concurrency=8`; the caller takes them in turn",
                starts: "at most once",
                killed_worker: "an error, for all jobs of the actor, also later ones (`max_restarts` 0)",
                killed_server: "everything is lost: the head node is the cluster",
            },
        ),
    ]
}

const CELERY_EARLY: About = About {
    name: "",
    options: "",
    starts: "at most once",
    killed_worker: "a started task is lost, without an error at the caller; prefetched ones come back after 1 h",
    killed_server: "all since the last snapshot is lost",
};

const CELERY_LATE: About = About {
    name: "",
    options: "",
    starts: "at least once",
    killed_worker: "runs again after 1 h (`visibility_timeout`), and so does each task that takes longer",
    killed_server: "what the log has comes back; a waiting caller must ask again",
};

const OWN: About = About {
    name: "",
    options: "two workers with 8 threads each; one replica, store on disk",
    starts: "",
    killed_worker: "",
    killed_server: "nothing is lost: callers, workers and jobs go on after its restart",
};

fn ours<K: Kind>(about: About) -> Participant {
    Participant {
        about,
        family: Family::Futurepool,
        rows: &rows::ALL,
        start: Box::new(|environment| Ok(Box::new(Ours::<K>::start(environment)?))),
    }
}

fn floor() -> Participant {
    Participant {
        about: About {
            name: FLOOR,
            options: "publish → deliver → publish → deliver over two work queues of the same server",
            starts: "none",
            killed_worker: "none",
            killed_server: "none: publishes are not confirmed",
        },
        family: Family::Floor,
        rows: FLOOR_ROWS,
        start: Box::new(|environment| Ok(Box::new(Floor::start(environment)?))),
    }
}

fn peer(program: &'static str, family: Family, about: About) -> Participant {
    Participant {
        about,
        family,
        rows: &rows::SHARED,
        start: Box::new(|environment| Ok(Box::new(Python::start(environment, program)?))),
    }
}

/// Returns the median and the 99th percentile, in nanoseconds.
pub(crate) fn p50_and_p99(mut times: Vec<Duration>) -> Sample {
    times.sort_unstable();
    let percentile = |percent: usize| {
        let time = times.get(times.len() * percent / 100)?;
        Some(time.as_secs_f64() * 1e9)
    };
    vec![percentile(50), percentile(99)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_time_in_a_hundred_is_at_or_above_the_last_percentile() {
        let times = (0..200).rev().map(Duration::from_nanos).collect();
        assert_eq!(p50_and_p99(times), [Some(100.0), Some(198.0)]);
        assert_eq!(p50_and_p99(Vec::new()), [None, None]);
    }

    #[test]
    fn names_are_unique_and_every_peer_has_a_package() {
        let all = all();
        for (index, one) in all.iter().enumerate() {
            let name = one.about.name;
            assert!(all[..index].iter().all(|other| other.about.name != name));
            let is_peer = one.rows == rows::SHARED;
            assert_eq!(is_peer, one.family.package().is_some(), "{name}");
        }
    }
}
