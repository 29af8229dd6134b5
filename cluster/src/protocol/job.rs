//! A job as it waits in the queue.

use std::time::Duration;

use bytes::Bytes;

use crate::broker::{Headers, Outgoing, Stored};
use crate::protocol::names;

/// How often the function may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// At most once, whatever happens.
    Once,
    /// At least once, with at most this many starts if workers die.
    Idempotent { attempts: u32 },
}

/// Where encoded arguments or an encoded output are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// In the message itself.
    Inline(Bytes),
    /// In the blob of this name.
    Blob(String),
}

/// A job's message, but for its subject, which has the queue, the task and the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobMessage {
    /// `<submitter>-<number>`, unique for ever.
    pub(crate) id: String,
    /// The submitter.
    pub(crate) client: String,
    pub(crate) mode: Mode,
    pub(crate) signature: u64,
    /// The time that was left when the message was published.
    pub(crate) deadline: Option<Duration>,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) label: Option<String>,
    /// The key of a detached job, under which its outcome is kept.
    pub(crate) key: Option<String>,
    pub(crate) traceparent: Option<String>,
    pub(crate) body: Body,
}

const ID: &str = "Fp-Id";
const CLIENT: &str = "Fp-Client";
const ATTEMPTS: &str = "Fp-Attempts";
const SIGNATURE: &str = "Fp-Sig";
const DEADLINE: &str = "Fp-Deadline";
const TIME_LIMIT: &str = "Fp-Limit";
const LABEL: &str = "Fp-Label";
const KEY: &str = "Fp-Key";
const TRACE: &str = "traceparent";
/// The header that names a blob, in jobs and in outcomes.
pub(crate) const BLOB: &str = "Fp-Blob";

impl JobMessage {
    /// Makes the message. `subject` is that of [`names::job_subject`].
    pub(crate) fn to_outgoing(&self, subject: &str) -> Outgoing {
        let mut headers = Headers::new();
        let mut add = |name: &str, value: String| headers.push((name.to_owned(), value));
        add(ID, self.id.clone());
        add(CLIENT, self.client.clone());
        if let Mode::Idempotent { attempts } = self.mode {
            add(ATTEMPTS, attempts.to_string());
        }
        if self.signature != 0 {
            add(SIGNATURE, format!("{:x}", self.signature));
        }
        if let Some(left) = self.deadline {
            add(DEADLINE, micros(left));
        }
        if let Some(limit) = self.time_limit {
            add(TIME_LIMIT, micros(limit));
        }
        if let Some(label) = &self.label {
            add(LABEL, names::token(label));
        }
        if let Some(key) = &self.key {
            add(KEY, names::token(key));
        }
        if let Some(trace) = &self.traceparent {
            add(TRACE, trace.clone());
        }
        let payload = match &self.body {
            Body::Inline(bytes) => bytes.clone(),
            Body::Blob(name) => {
                add(BLOB, name.clone());
                Bytes::new()
            }
        };
        Outgoing {
            subject: subject.to_owned(),
            headers,
            payload,
            expect: None,
            id: Some(self.id.clone()),
        }
    }

    /// Reads a message. `Err` names the header that is missing or malformed.
    pub(crate) fn from_stored(stored: &Stored) -> Result<Self, &'static str> {
        let required = |name: &'static str| stored.header(name).ok_or(name);
        let micros = |name: &'static str| match stored.header(name) {
            None => Ok::<_, &'static str>(None),
            Some(text) => {
                let micros = text.parse().map_err(|_| name)?;
                Ok(Some(Duration::from_micros(micros)))
            }
        };
        let encoded = |name: &'static str| match stored.header(name) {
            None => Ok::<_, &'static str>(None),
            Some(token) => names::text(token).map(Some).ok_or(name),
        };
        Ok(Self {
            id: required(ID)?.to_owned(),
            client: required(CLIENT)?.to_owned(),
            mode: match stored.header(ATTEMPTS) {
                None => Mode::Once,
                Some(text) => Mode::Idempotent {
                    attempts: text.parse().map_err(|_| ATTEMPTS)?,
                },
            },
            signature: match stored.header(SIGNATURE) {
                None => 0,
                Some(text) => u64::from_str_radix(text, 16).map_err(|_| SIGNATURE)?,
            },
            deadline: micros(DEADLINE)?,
            time_limit: micros(TIME_LIMIT)?,
            label: encoded(LABEL)?,
            key: encoded(KEY)?,
            traceparent: stored.header(TRACE).map(str::to_owned),
            body: body(stored),
        })
    }

    /// Returns the submitter of a job's message, without reading the rest.
    pub(crate) fn client_of(stored: &Stored) -> Option<&str> {
        stored.header(CLIENT)
    }

    /// Returns the id of a job's message, without reading the rest.
    pub(crate) fn id_of(stored: &Stored) -> Option<&str> {
        stored.header(ID)
    }
}

/// Writes a time for a header. What is longer than half a million years is that long.
fn micros(time: Duration) -> String {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    micros.to_string()
}

/// Returns where the payload of a message is.
pub(crate) fn body(stored: &Stored) -> Body {
    match stored.header(BLOB) {
        None => Body::Inline(stored.payload.clone()),
        Some(name) => Body::Blob(name.to_owned()),
    }
}
