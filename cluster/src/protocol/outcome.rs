//! What became of a job, on its way to the submitter or kept for detached jobs.

use bytes::Bytes;
use futurepool::ErrorReport;

use crate::broker::{Headers, Outgoing, Stored};
use crate::protocol::job::{BLOB, Body, body};
use crate::protocol::names;

/// What became of a job.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    /// The function has returned; the output is encoded.
    Returned(Body),
    /// It has no output.
    Failed(ErrorReport),
    /// It never started and never will, because its submitter seemed to be gone. A submitter that
    /// is there after all submits it again under another id.
    Dropped,
}

/// A job's outcome.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The job.
    pub(crate) id: String,
    /// The worker that says so, or the submitter.
    pub(crate) by: String,
    pub(crate) verdict: Verdict,
}

/// What is kept of a detached job, under its key.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    /// It has no outcome yet.
    Pending {
        id: String,
        client: String,
        task: String,
        version: u32,
        signature: u64,
        /// The sequence in [`Store::Jobs`](crate::broker::Store::Jobs), once it is known.
        seq: Option<u64>,
    },
    Ended {
        task: String,
        version: u32,
        signature: u64,
        outcome: Outcome,
    },
}

const ID: &str = "Fp-Id";
const BY: &str = "Fp-By";
const KIND: &str = "Fp-Kind";
const TASK: &str = "Fp-Task";
const VERSION: &str = "Fp-Version";
const SIGNATURE: &str = "Fp-Sig";
const CLIENT: &str = "Fp-Client";
const SEQ: &str = "Fp-Seq";

const RETURNED: &str = "returned";
const FAILED: &str = "failed";
const DROPPED: &str = "dropped";
const PENDING: &str = "pending";

impl Outcome {
    /// Makes the message for the submitter.
    pub(crate) fn to_outgoing(&self, client: &str) -> Outgoing {
        let (headers, payload) = self.to_parts();
        Outgoing {
            subject: client.to_owned(),
            headers,
            payload,
            ..Outgoing::default()
        }
    }

    fn to_parts(&self) -> (Headers, Bytes) {
        let kind = match &self.verdict {
            Verdict::Returned(_) => RETURNED,
            Verdict::Failed(_) => FAILED,
            Verdict::Dropped => DROPPED,
        };
        let mut headers = vec![
            (ID.to_owned(), self.id.clone()),
            (BY.to_owned(), names::token(&self.by)),
            (KIND.to_owned(), kind.to_owned()),
        ];
        let payload = match &self.verdict {
            Verdict::Returned(Body::Inline(bytes)) => bytes.clone(),
            Verdict::Returned(Body::Blob(name)) => {
                headers.push((BLOB.to_owned(), name.clone()));
                Bytes::new()
            }
            Verdict::Failed(report) => Bytes::from(report.to_bytes()),
            Verdict::Dropped => Bytes::new(),
        };
        (headers, payload)
    }

    /// Reads a message. `Err` names the header that is missing or malformed.
    pub(crate) fn from_stored(stored: &Stored) -> Result<Self, &'static str> {
        let required = |name: &'static str| stored.header(name).ok_or(name);
        let verdict = match required(KIND)? {
            RETURNED => Verdict::Returned(body(stored)),
            FAILED => Verdict::Failed(
                ErrorReport::from_bytes(&stored.payload).map_err(|_| "the error report")?,
            ),
            DROPPED => Verdict::Dropped,
            _ => return Err(KIND),
        };
        Ok(Self {
            id: required(ID)?.to_owned(),
            by: names::text(required(BY)?).ok_or(BY)?,
            verdict,
        })
    }

    /// Returns the id of the job whose outcome this is, without reading the rest.
    pub(crate) fn id_of(stored: &Stored) -> Option<&str> {
        stored.header(ID)
    }
}

impl Kept {
    /// Makes the message for the key. `expect` as in [`Outgoing`].
    pub(crate) fn to_outgoing(&self, key: &str, expect: u64) -> Outgoing {
        let (mut headers, payload, task, version, signature) = match self {
            Self::Pending {
                id,
                client,
                task,
                version,
                signature,
                seq,
            } => {
                let mut headers = vec![
                    (ID.to_owned(), id.clone()),
                    (KIND.to_owned(), PENDING.to_owned()),
                    (CLIENT.to_owned(), client.clone()),
                ];
                if let Some(seq) = seq {
                    headers.push((SEQ.to_owned(), seq.to_string()));
                }
                (headers, Bytes::new(), task, version, signature)
            }
            Self::Ended {
                task,
                version,
                signature,
                outcome,
            } => {
                let (headers, payload) = outcome.to_parts();
                (headers, payload, task, version, signature)
            }
        };
        headers.push((TASK.to_owned(), names::token(task)));
        headers.push((VERSION.to_owned(), version.to_string()));
        headers.push((SIGNATURE.to_owned(), format!("{signature:x}")));
        Outgoing {
            subject: names::token(key),
            headers,
            payload,
            expect: Some(expect),
            id: None,
        }
    }

    /// Reads a message. `Err` names the header that is missing or malformed.
    pub(crate) fn from_stored(stored: &Stored) -> Result<Self, &'static str> {
        let required = |name: &'static str| stored.header(name).ok_or(name);
        let task = names::text(required(TASK)?).ok_or(TASK)?;
        let version = required(VERSION)?.parse().map_err(|_| VERSION)?;
        let signature = u64::from_str_radix(required(SIGNATURE)?, 16).map_err(|_| SIGNATURE)?;
        if required(KIND)? != PENDING {
            return Ok(Self::Ended {
                task,
                version,
                signature,
                outcome: Outcome::from_stored(stored)?,
            });
        }
        Ok(Self::Pending {
            id: required(ID)?.to_owned(),
            client: required(CLIENT)?.to_owned(),
            task,
            version,
            signature,
            seq: match stored.header(SEQ) {
                None => None,
                Some(text) => Some(text.parse().map_err(|_| SEQ)?),
            },
        })
    }
}
