//! The times of a namespace. All of them follow from its lease.

use std::time::Duration;

/// What all members of a namespace must agree on. The maker of the stores chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How long a delivered message belongs to its holder without news of it.
    pub(crate) lease: Duration,
    /// How many servers keep each store.
    pub(crate) replicas: usize,
    /// How many bytes of jobs the namespace takes.
    pub(crate) queue_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            replicas: 1,
            queue_bytes: 1 << 30,
        }
    }
}

impl Settings {
    /// How often a holder extends its leases.
    pub(crate) fn extend_period(&self) -> Duration {
        self.lease / 3
    }

    /// How often a peer writes its key.
    pub(crate) fn live_period(&self) -> Duration {
        self.lease / 6
    }

    /// When the server forgets a key that is not written.
    pub(crate) fn live_ttl(&self) -> Duration {
        self.lease / 2
    }

    /// How long a peer must be absent from an unbroken watch until it is dead.
    pub(crate) fn dead_after(&self) -> Duration {
        self.lease * 2 / 3
    }

    /// When the submitter looks after a job without news.
    pub(crate) fn look_period(&self) -> Duration {
        self.lease * 3
    }

    /// How long a claim outlives its message: no look on another replica may miss both.
    pub(crate) fn claim_grace(&self) -> Duration {
        match self.replicas {
            0 | 1 => Duration::ZERO,
            _ => self.lease * 2,
        }
    }

    /// How long a request waits for its answer.
    pub(crate) fn request_timeout(&self) -> Duration {
        (self.lease / 6).clamp(Duration::from_millis(500), Duration::from_secs(5))
    }
}
