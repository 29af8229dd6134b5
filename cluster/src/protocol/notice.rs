//! Notices, which can be lost: nothing may depend on their arrival.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A notice for a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Control {
    /// Asks the worker to stop this job, if it has it.
    Cancel { job: String },
    /// Asks whether the worker has this job under this claim. The answer is `true` or `false`.
    Holds { job: String, nonce: u64 },
    /// Asks the worker to take no more jobs and to exit when it has none.
    Drain,
}

/// A notice for a submitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    /// The job has been running on this worker for a moment.
    Started { job: String, worker: String },
}

pub(crate) fn encode<T: Serialize>(notice: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(notice).expect("strings and numbers always become JSON"))
}

/// Reads a notice. `None` if it is malformed, or of a newer peer.
pub(crate) fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Option<T> {
    serde_json::from_slice(payload).ok()
}
