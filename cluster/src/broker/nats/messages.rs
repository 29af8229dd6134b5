//! Messages of a store: how they are written, read and removed.

use async_nats::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::api::{
    ApiFailure, DeleteMessage, GetMessage, GotMessage, Published, RawMessage, Success, number, read,
};
use super::link::{CallError, Link};
use super::names::Names;
use super::{padding, stores, time};
use crate::broker::{BrokerError, Headers, Outgoing, PublishError, Store, Stored};

const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
const MESSAGE_ID: &str = "Nats-Msg-Id";

pub(super) async fn publish(
    link: &Link,
    names: &Names,
    store: Store,
    message: Outgoing,
) -> Result<u64, PublishError> {
    let refused = |text: &str| PublishError::Other(BrokerError::Refused(text.into()));
    let mut headers = HeaderMap::new();
    for (name, value) in message.headers {
        if value.contains(['\r', '\n']) {
            return Err(refused("a header has a line break"));
        }
        let name: async_nats::HeaderName = name.parse().map_err(|_| refused("a header's name"))?;
        headers.insert(name, value);
    }
    if let Some(sequence) = message.expect {
        headers.insert(EXPECTED_SEQUENCE, sequence.to_string());
    }
    if let Some(id) = message.id {
        headers.insert(MESSAGE_ID, id);
    }
    let subject = names.subject(store, &message.subject);
    if store == Store::Jobs && !link.measures() {
        padding::pad(&mut headers, subject.len(), message.payload.len());
    }
    let headers = (!headers.is_empty()).then_some(headers);
    publish_to(link, subject, headers, message.payload, names.stream(store)).await
}

/// Publishes to any subject that a stream keeps.
pub(super) async fn publish_to(
    link: &Link,
    subject: String,
    headers: Option<HeaderMap>,
    payload: Bytes,
    stream: &str,
) -> Result<u64, PublishError> {
    let answer = match link.call(subject.into(), headers, payload).await {
        Ok(answer) => answer,
        Err(CallError::TooLarge) => return Err(PublishError::TooLarge),
        Err(CallError::NoResponder) => {
            let text = format!("the stream {stream} does not exist, or has no leader");
            return Err(PublishError::Other(BrokerError::Missing(text.into())));
        }
        Err(error) => return Err(PublishError::Other(error.into())),
    };
    let what = || format!("stream {stream}");
    match read::<Published>(&answer.payload) {
        Ok(Published {
            error: Some(error), ..
        }) => Err(error.into_publish(&what())),
        Ok(Published { seq: seq @ 1.., .. }) => Ok(seq),
        Err(ApiFailure::Api(error)) => Err(error.into_publish(&what())),
        Ok(_) | Err(_) => Err(PublishError::Other(BrokerError::Unreachable(
            "the server's answer to a publish cannot be read".into(),
        ))),
    }
}

/// Which message is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look<'a> {
    /// The message with this sequence.
    At(u64),
    /// The last message of this subject.
    Last(&'a str),
    /// The first message from a sequence on whose subject matches.
    Next(u64, &'a str),
}

/// Looks for a message, at the leader.
pub(super) async fn look(
    link: &Link,
    stream: &str,
    look: Look<'_>,
) -> Result<Option<RawMessage>, BrokerError> {
    let request = match look {
        // The server takes 0 for "not given".
        Look::At(0) => return Ok(None),
        Look::At(seq) => GetMessage {
            seq: Some(seq),
            last_by_subj: None,
            next_by_subj: None,
        },
        Look::Last(subject) => GetMessage {
            seq: None,
            last_by_subj: Some(subject),
            next_by_subj: None,
        },
        Look::Next(seq, subject) => GetMessage {
            seq: Some(seq.max(1)),
            last_by_subj: None,
            next_by_subj: Some(subject),
        },
    };
    let subject = format!("$JS.API.STREAM.MSG.GET.{stream}");
    match link.api::<GotMessage>(subject, &request).await {
        Ok(got) => Ok(Some(got.message)),
        Err(error) if error.is(number::NO_MESSAGE) => Ok(None),
        Err(error) => Err(stores::failed(link, error, stream)),
    }
}

/// Looks for a message of a store.
pub(super) async fn look_in(
    link: &Link,
    names: &Names,
    store: Store,
    at: Look<'_>,
) -> Result<Option<Stored>, BrokerError> {
    let Some(raw) = look(link, names.stream(store), at).await? else {
        return Ok(None);
    };
    stored(raw, names.prefix(store)).map(Some)
}

/// Removes a message. Returns `false` if it was not there.
///
/// If it is `lasting`, the message stays away after the server was killed. Servers before 2.10
/// forget what was deleted unless they overwrite it. Later ones note what is deleted, and overwriting
/// would be slow there. A killed server may bring back others, such as a claim: it does no harm after
/// its job, which must never come back without its claim.
pub(super) async fn delete(
    link: &Link,
    stream: &str,
    seq: u64,
    lasting: bool,
) -> Result<bool, BrokerError> {
    if seq == 0 {
        return Ok(false);
    }
    let request = DeleteMessage {
        seq,
        no_erase: !lasting || link.notes_deletes(),
    };
    let subject = format!("$JS.API.STREAM.MSG.DELETE.{stream}");
    match link.api::<Success>(subject, &request).await {
        Ok(deleted) => Ok(deleted.success),
        Err(error) if error.is(number::NO_MESSAGE) || error.is(number::SEQUENCE_NOT_FOUND) => {
            Ok(false)
        }
        Err(ApiFailure::Api(error))
            if error.err_code == number::DELETE_FAILED && absent(&error.description) =>
        {
            Ok(false)
        }
        Err(error) => Err(stores::failed(link, error, stream)),
    }
}

/// Returns whether a refused delete says that there is nothing to delete.
fn absent(description: &str) -> bool {
    [
        "no message found",
        "message not found",
        "deleted message",
        "stream store EOF",
    ]
    .iter()
    .any(|text| description.contains(text))
}

fn stored(raw: RawMessage, prefix: &str) -> Result<Stored, BrokerError> {
    let bad = || BrokerError::Refused("the server's message cannot be read".into());
    let subject = raw.subject.strip_prefix(prefix).ok_or_else(bad)?;
    let headers = match &raw.hdrs {
        Some(text) => parse_headers(&BASE64.decode(text).map_err(|_| bad())?),
        None => Headers::new(),
    };
    Ok(Stored {
        subject: subject.to_owned(),
        seq: raw.seq,
        time: time::parse(&raw.time).ok_or_else(bad)?,
        headers,
        payload: payload(&raw)?,
    })
}

pub(super) fn payload(raw: &RawMessage) -> Result<Bytes, BrokerError> {
    let data = raw.data.as_deref().unwrap_or_default();
    let bytes = BASE64.decode(data);
    bytes
        .map(Bytes::from)
        .map_err(|_| BrokerError::Refused("the server's message cannot be read".into()))
}

/// Reads the headers of a message as it is stored.
fn parse_headers(bytes: &[u8]) -> Headers {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .filter(|(name, _)| !is_servers(name))
        .collect()
}

/// Takes the headers of a message that has come.
pub(super) fn headers(map: Option<HeaderMap>) -> Headers {
    let Some(map) = map else {
        return Headers::new();
    };
    let mut headers = Headers::with_capacity(map.len());
    for (name, values) in map.iter() {
        let name: &str = name.as_ref();
        if let Some(value) = values.first().filter(|_| !is_servers(name)) {
            headers.push((name.to_owned(), value.as_str().to_owned()));
        }
    }
    headers
}

/// Returns whether a header speaks to the server, and not to the reader.
fn is_servers(name: &str) -> bool {
    name == EXPECTED_SEQUENCE || name == MESSAGE_ID || name == padding::PADDING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_stored() {
        let bytes = b"NATS/1.0\r\nFp-Mode: once\r\nNats-Msg-Id: x\r\nEmpty:\r\nnonsense\r\n\r\n";
        let headers = parse_headers(bytes);
        let wanted = [("Fp-Mode", "once"), ("Empty", "")];
        let wanted: Headers = wanted.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(headers, wanted);
        assert!(parse_headers(b"").is_empty());
        assert!(parse_headers(b"\xff\xfe\r\n\xff:\xff").len() <= 1);
    }
}
