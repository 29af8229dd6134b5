//! The server's interface to its streams and consumers: requests and answers in JSON.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::link::{CallError, Link};
use crate::broker::{BrokerError, PublishError};

/// What the server says when it refuses.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) code: u16,
    #[serde(default)]
    pub(super) err_code: u32,
    #[serde(default)]
    pub(super) description: String,
}

/// Numbers of the server's errors.
pub(super) mod number {
    pub(crate) const ACCOUNT_LIMIT: u32 = 10002;
    pub(crate) const CONSUMER_NOT_FOUND: u32 = 10014;
    pub(crate) const INSUFFICIENT_RESOURCES: u32 = 10023;
    pub(crate) const NO_MESSAGE: u32 = 10037;
    pub(crate) const NOT_ENABLED_FOR_ACCOUNT: u32 = 10039;
    pub(crate) const SEQUENCE_NOT_FOUND: u32 = 10043;
    pub(crate) const INSUFFICIENT_STORAGE: u32 = 10047;
    pub(crate) const MESSAGE_TOO_LARGE: u32 = 10054;
    pub(crate) const DELETE_FAILED: u32 = 10057;
    pub(crate) const STREAM_EXISTS: u32 = 10058;
    pub(crate) const STREAM_NOT_FOUND: u32 = 10059;
    pub(crate) const WRONG_LAST_SEQUENCE: u32 = 10071;
    /// A message of the same id is being stored: whether it will be is unknown.
    #[cfg(test)]
    pub(crate) const UNDER_WAY: u32 = 10158;
    pub(crate) const NOT_ENABLED: u32 = 10076;
    pub(crate) const STORE_FAILED: u32 = 10077;
    /// As `WRONG_LAST_SEQUENCE`, of later servers.
    pub(crate) const WRONG_LAST_SEQUENCE_ANY: u32 = 10164;
}

impl ApiError {
    pub(super) fn into_broker(self, what: &str) -> BrokerError {
        let text = || -> Arc<str> { format!("{what}: {}", self.description).into() };
        match (self.err_code, self.code) {
            (number::NOT_ENABLED | number::NOT_ENABLED_FOR_ACCOUNT, _) => {
                BrokerError::Refused(no_jetstream())
            }
            (number::STREAM_NOT_FOUND | number::CONSUMER_NOT_FOUND, _) | (_, 404) => {
                BrokerError::Missing(text())
            }
            // The server is busy with itself: it elects a leader, or recovers.
            (_, 503) => BrokerError::Unreachable(text()),
            _ => BrokerError::Refused(text()),
        }
    }

    /// Returns why a publish was not stored.
    pub(super) fn into_publish(self, what: &str) -> PublishError {
        match self.err_code {
            number::WRONG_LAST_SEQUENCE | number::WRONG_LAST_SEQUENCE_ANY => PublishError::Conflict,
            number::MESSAGE_TOO_LARGE => PublishError::TooLarge,
            number::ACCOUNT_LIMIT
            | number::INSUFFICIENT_RESOURCES
            | number::INSUFFICIENT_STORAGE => PublishError::Full,
            number::STORE_FAILED if self.description.contains("maximum") => PublishError::Full,
            // The request itself is wrong.
            _ if matches!(self.code, 400 | 404) => PublishError::Other(self.into_broker(what)),
            // A disk that fails, say: whether the message will be there is unknown.
            _ => PublishError::Other(BrokerError::Unreachable(
                format!("{what}: {}", self.description).into(),
            )),
        }
    }
}

pub(super) fn no_jetstream() -> Arc<str> {
    "JetStream is not enabled on the server, or not for this account".into()
}

/// Why a request to the server's interface failed.
#[derive(Debug, Clone)]
pub(super) enum ApiFailure {
    Api(ApiError),
    Call(CallError),
}

impl ApiFailure {
    pub(super) fn is(&self, number: u32) -> bool {
        matches!(self, Self::Api(error) if error.err_code == number)
    }

    pub(super) fn into_broker(self, what: &str) -> BrokerError {
        match self {
            Self::Api(error) => error.into_broker(what),
            Self::Call(error) => error.into(),
        }
    }
}

/// Reads an answer.
pub(super) fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ApiFailure> {
    #[derive(Deserialize)]
    struct Failed {
        error: Option<ApiError>,
    }
    match serde_json::from_slice(payload) {
        Ok(value) => Ok(value),
        Err(error) => match serde_json::from_slice(payload) {
            Ok(Failed { error: Some(error) }) => Err(ApiFailure::Api(error)),
            _ => Err(ApiFailure::Call(CallError::Broker(BrokerError::Refused(
                format!("the server's answer cannot be read: {error}").into(),
            )))),
        },
    }
}

impl Link {
    /// Sends a request to the server's interface.
    pub(super) async fn api<T: DeserializeOwned>(
        &self,
        subject: String,
        request: &impl Serialize,
    ) -> Result<T, ApiFailure> {
        let payload = serde_json::to_vec(request).expect("requests are plain data");
        let answer = self.call(subject.into(), None, Bytes::from(payload)).await;
        let message = answer.map_err(ApiFailure::Call)?;
        read(&message.payload)
    }
}

/// A request without parameters.
#[derive(Serialize)]
pub(super) struct Nothing {}

/// The answer to a publish. It has a sequence even if it is an error.
#[derive(Deserialize)]
pub(super) struct Published {
    #[serde(default)]
    pub(super) error: Option<ApiError>,
    #[serde(default)]
    pub(super) seq: u64,
}

/// An answer that says that something took place.
#[derive(Deserialize)]
pub(super) struct Success {
    pub(super) success: bool,
}

/// How a stream is made. What is left out is the server's default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StreamConfig {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) subjects: Vec<String>,
    pub(super) retention: String,
    pub(super) max_consumers: i64,
    pub(super) max_msgs: i64,
    pub(super) max_bytes: i64,
    /// In nanoseconds. 0: no limit.
    pub(super) max_age: u64,
    #[serde(default = "unlimited")]
    pub(super) max_msgs_per_subject: i64,
    #[serde(default = "unlimited")]
    pub(super) max_msg_size: i64,
    pub(super) discard: String,
    pub(super) storage: String,
    pub(super) num_replicas: usize,
    /// In nanoseconds.
    #[serde(default)]
    pub(super) duplicate_window: u64,
    #[serde(default)]
    pub(super) deny_delete: bool,
    #[serde(default)]
    pub(super) deny_purge: bool,
    #[serde(default)]
    pub(super) allow_rollup_hdrs: bool,
    #[serde(default)]
    pub(super) allow_direct: bool,
}

fn unlimited() -> i64 {
    -1
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: StreamConfig,
    pub(super) created: String,
    pub(super) state: StreamState,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    /// How many messages each subject has, if it was asked for.
    #[serde(default)]
    pub(super) subjects: Option<std::collections::BTreeMap<String, u64>>,
}

/// How a consumer is made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ConsumerConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) durable_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deliver_subject: Option<String>,
    pub(super) deliver_policy: String,
    pub(super) ack_policy: String,
    /// In nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) ack_wait: u64,
    #[serde(default, skip_serializing_if = "is_unset")]
    pub(super) max_deliver: i64,
    #[serde(default)]
    pub(super) filter_subject: String,
    pub(super) replay_policy: String,
    #[serde(default, skip_serializing_if = "is_unset")]
    pub(super) max_ack_pending: i64,
    #[serde(default, skip_serializing_if = "is_unset")]
    pub(super) max_waiting: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) inactive_threshold: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) idle_heartbeat: u64,
    #[serde(default)]
    pub(super) flow_control: bool,
    #[serde(default)]
    pub(super) num_replicas: usize,
    #[serde(default)]
    pub(super) mem_storage: bool,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_unset(value: &i64) -> bool {
    *value == 0
}

#[derive(Serialize)]
pub(super) struct CreateConsumer<'a> {
    pub(super) stream_name: &'a str,
    pub(super) config: &'a ConsumerConfig,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ConsumerState {
    pub(super) config: ConsumerConfig,
    pub(super) delivered: Reached,
    pub(super) ack_floor: Reached,
    #[serde(default)]
    pub(super) num_ack_pending: u64,
    #[serde(default)]
    pub(super) num_waiting: u64,
    #[serde(default)]
    pub(super) num_pending: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reached {
    pub(super) stream_seq: u64,
}

#[derive(Serialize)]
pub(super) struct Page {
    pub(super) offset: usize,
}

#[derive(Deserialize)]
pub(super) struct ConsumerList {
    pub(super) total: usize,
    #[serde(default)]
    pub(super) consumers: Option<Vec<ConsumerState>>,
}

/// Which message of a stream is asked for.
#[derive(Serialize)]
pub(super) struct GetMessage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_by_subj: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_by_subj: Option<&'a str>,
}

#[derive(Deserialize)]
pub(super) struct GotMessage {
    pub(super) message: RawMessage,
}

#[derive(Deserialize)]
pub(super) struct RawMessage {
    pub(super) subject: String,
    pub(super) seq: u64,
    /// In base64, as `data`.
    #[serde(default)]
    pub(super) hdrs: Option<String>,
    #[serde(default)]
    pub(super) data: Option<String>,
    pub(super) time: String,
}

#[derive(Serialize)]
pub(super) struct DeleteMessage {
    pub(super) seq: u64,
    pub(super) no_erase: bool,
}

#[derive(Serialize)]
pub(super) struct Purge<'a> {
    pub(super) filter: &'a str,
}

#[derive(Serialize)]
pub(super) struct WithSubjects<'a> {
    pub(super) subjects_filter: &'a str,
    pub(super) offset: usize,
}

#[derive(Deserialize)]
pub(super) struct AccountInfo {
    pub(super) limits: Limits,
}

#[derive(Deserialize)]
pub(super) struct Limits {
    #[serde(default = "unlimited")]
    pub(super) max_storage: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, err_code: u32, description: &str) -> PublishError {
        let error = ApiError {
            code,
            err_code,
            description: description.to_owned(),
        };
        error.into_publish("stream S")
    }

    #[test]
    fn what_is_not_certainly_refused_may_be_stored() {
        for (code, number, description) in [
            (503, number::STORE_FAILED, "no space left on device"),
            (500, 10049, "something failed"),
            (503, 10008, "JetStream system temporarily unavailable"),
            (409, number::UNDER_WAY, "duplicate message id is in process"),
            (429, 10167, "too many requests"),
            (0, 0, ""),
        ] {
            let error = refused(code, number, description);
            let unknown = matches!(error, PublishError::Other(BrokerError::Unreachable(_)));
            assert!(unknown, "{code} {number}: {error:?}");
        }
    }

    #[test]
    fn a_certain_refusal_says_why() {
        let full = "maximum bytes exceeded";
        assert_eq!(refused(503, number::STORE_FAILED, full), PublishError::Full);
        let other = "wrong last sequence: 7";
        let conflict = refused(400, number::WRONG_LAST_SEQUENCE, other);
        assert_eq!(conflict, PublishError::Conflict);
        let large = refused(
            400,
            number::MESSAGE_TOO_LARGE,
            "message size exceeds maximum",
        );
        assert_eq!(large, PublishError::TooLarge);
        let bad = refused(400, 10060, "expected stream does not match");
        assert!(
            matches!(bad, PublishError::Other(BrokerError::Refused(_))),
            "{bad:?}"
        );
    }
}
