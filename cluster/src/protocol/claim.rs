//! Which peer has a job: the value of its key in the store of claims.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::broker::{Outgoing, Stored};

/// The value of a job's claim. JSON, so that an operator can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) state: ClaimState,
    /// The key, in the store of the living, of the peer that wrote the claim.
    pub(crate) by: String,
    /// Tells claims of the same writer apart, so that a writer whose confirmation was lost
    /// recognises its own.
    pub(crate) nonce: u64,
    /// The sequence of the job's message. 0 if the writer does not know it.
    pub(crate) seq: u64,
    /// Only for [`ClaimState::Returns`].
    #[serde(default)]
    pub(crate) returns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClaimState {
    /// The writer, a worker, has the job and may have started it.
    Held,
    /// The job has not started and must not: it is cancelled, expired or submitted under another id.
    Never,
    /// The writer judged that the holder is dead. The job's outcome is that it is lost.
    Lost,
    /// Of an idempotent job: so many deliveries were given back without a start.
    Returns,
}

impl Claim {
    /// Makes the message. `expect` as in [`Outgoing`].
    pub(crate) fn to_outgoing(&self, id: &str, expect: u64) -> Outgoing {
        let json = serde_json::to_vec(self).expect("strings and numbers always become JSON");
        Outgoing {
            subject: id.to_owned(),
            payload: Bytes::from(json),
            expect: Some(expect),
            ..Outgoing::default()
        }
    }

    /// Reads a claim. `None` if it is malformed.
    pub(crate) fn from_stored(stored: &Stored) -> Option<Self> {
        serde_json::from_slice(&stored.payload).ok()
    }
}
