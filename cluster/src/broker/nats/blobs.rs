//! Blobs, in the form of the server's object stores: chunks under a name of their own, then a
//! message that describes the blob.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::api::{Purge, StreamInfo, Success, WithSubjects};
use super::link::Link;
use super::messages::{self, Look};
use super::names::Names;
use super::{stores, time};
use crate::broker::{BlobInfo, BrokerError, PublishError, ServerTime};

const CHUNK: usize = 128 << 10;
/// How many chunks are on their way at a time.
const IN_FLIGHT: usize = 8;
/// Chunks that nothing describes are left over from a writer that died, once they are this old.
const LEFT_OVER_AFTER: u64 = 3600 * 1_000_000_000;

/// Describes a blob, as other tools write and read it.
#[derive(Serialize, Deserialize)]
struct Meta {
    name: String,
    bucket: String,
    /// The name of the chunks.
    nuid: String,
    size: u64,
    chunks: u64,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    options: Option<MetaOptions>,
}

#[derive(Serialize, Deserialize)]
struct MetaOptions {
    max_chunk_size: usize,
}

/// The subjects of a namespace's blobs.
struct Place {
    stream: String,
    bucket: String,
}

impl Place {
    fn new(names: &Names) -> Self {
        Self {
            stream: names.blobs(),
            bucket: names.blob_bucket(),
        }
    }

    fn meta(&self, name: &str) -> String {
        format!("$O.{}.M.{}", self.bucket, URL_SAFE.encode(name))
    }

    fn chunks(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.bucket)
    }

    /// Returns the description of a blob, and its message.
    async fn find(&self, link: &Link, name: &str) -> Result<Option<Found>, BrokerError> {
        let subject = self.meta(name);
        let Some(raw) = messages::look(link, &self.stream, Look::Last(&subject)).await? else {
            return Ok(None);
        };
        let payload = messages::payload(&raw)?;
        let meta = serde_json::from_slice(&payload).map_err(|_| corrupt(name))?;
        Ok(Some(Found { meta, seq: raw.seq }))
    }

    async fn purge(&self, link: &Link, nuid: &str) -> Result<(), BrokerError> {
        if nuid.is_empty() || nuid.contains(['*', '>', '.', ' ']) {
            return Ok(());
        }
        let subject = format!("$JS.API.STREAM.PURGE.{}", self.stream);
        let chunks = self.chunks(nuid);
        let purged: Result<Success, _> = link.api(subject, &Purge { filter: &chunks }).await;
        purged
            .map(drop)
            .map_err(|error| stores::failed(link, error, &self.stream))
    }
}

struct Found {
    meta: Meta,
    seq: u64,
}

fn corrupt(name: &str) -> BrokerError {
    BrokerError::Refused(format!("the blob {name} is damaged").into())
}

fn digest(data: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(data);
    format!("SHA-256={}", URL_SAFE.encode(context.finish()))
}

fn failed(error: PublishError) -> BrokerError {
    match error {
        PublishError::Other(error) => error,
        // The store is full for now.
        PublishError::Full => BrokerError::Unreachable("the server's storage is full".into()),
        error => BrokerError::Refused(error.to_string().into()),
    }
}

pub(super) async fn put(
    link: &Link,
    names: &Names,
    name: &str,
    data: Bytes,
) -> Result<(), BrokerError> {
    let place = Place::new(names);
    let old = place.find(link, name).await?;
    let inbox = link.client().new_inbox();
    let nuid = inbox.rsplit('.').next().unwrap_or_default();
    let stored = put_all(link, &place, name, nuid, &data).await;
    // What the blob was before, or what is there of it now.
    let waste = match (&stored, &old) {
        (Ok(()), Some(old)) => Some(old.meta.nuid.as_str()),
        (Ok(()), None) => None,
        (Err(_), _) => Some(nuid),
    };
    if let Some(waste) = waste {
        _ = place.purge(link, waste).await;
    }
    stored
}

async fn put_all(
    link: &Link,
    place: &Place,
    name: &str,
    nuid: &str,
    data: &Bytes,
) -> Result<(), BrokerError> {
    let chunk = CHUNK.min(link.client().max_payload() / 2).max(1);
    let subject = place.chunks(nuid);
    let starts = (0..data.len()).step_by(chunk);
    let chunks = starts.len();
    // Chunks are handed over in order, and the connection keeps the order.
    let mut sending = FuturesUnordered::new();
    for start in starts {
        let part = data.slice(start..data.len().min(start + chunk));
        let sent = messages::publish_to(link, subject.clone(), None, part, &place.stream);
        let mut sent = Box::pin(sent);
        // Its first step hands it over, or fails.
        match futures::poll!(&mut sent) {
            std::task::Poll::Ready(sent) => _ = sent.map_err(failed)?,
            std::task::Poll::Pending => sending.push(sent),
        }
        if sending.len() >= IN_FLIGHT
            && let Some(sent) = sending.next().await
        {
            sent.map_err(failed)?;
        }
    }
    while let Some(sent) = sending.next().await {
        sent.map_err(failed)?;
    }
    let meta = Meta {
        name: name.to_owned(),
        bucket: place.bucket.clone(),
        nuid: nuid.to_owned(),
        size: data.len() as u64,
        chunks: chunks as u64,
        digest: digest(data),
        deleted: false,
        options: Some(MetaOptions {
            max_chunk_size: chunk,
        }),
    };
    let meta = serde_json::to_vec(&meta).expect("plain data");
    // It replaces an earlier description.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Rollup", "sub");
    let subject = place.meta(name);
    let stored =
        messages::publish_to(link, subject, Some(headers), meta.into(), &place.stream).await;
    stored.map(drop).map_err(failed)
}

pub(super) async fn get(
    link: &Link,
    names: &Names,
    name: &str,
    max: usize,
) -> Result<Option<Bytes>, BrokerError> {
    let place = Place::new(names);
    let Some(found) = place.find(link, name).await? else {
        return Ok(None);
    };
    let meta = found.meta;
    if meta.deleted {
        return Ok(None);
    }
    if meta.nuid.contains(['*', '>', ' ']) {
        return Err(corrupt(name));
    }
    let size = usize::try_from(meta.size).ok().filter(|size| *size <= max);
    let Some(size) = size else {
        let text = format!("the blob {name} is larger than {max} bytes");
        return Err(BrokerError::Refused(text.into()));
    };
    let subject = place.chunks(&meta.nuid);
    // The size is the writer's word: memory is taken as the data comes.
    let mut data = Vec::new();
    let mut next = 1;
    while data.len() < size {
        let at = Look::Next(next, &subject);
        let Some(raw) = messages::look(link, &place.stream, at).await? else {
            // It was deleted meanwhile, or is damaged.
            return match place.find(link, name).await? {
                Some(again) if again.seq == found.seq => Err(corrupt(name)),
                _ => Ok(None),
            };
        };
        let chunk = messages::payload(&raw)?;
        if chunk.is_empty() || chunk.len() > size - data.len() {
            return Err(corrupt(name));
        }
        data.extend_from_slice(&chunk);
        next = raw.seq + 1;
    }
    if !meta.digest.is_empty() && !same_digest(&meta.digest, &digest(&data)) {
        return Err(corrupt(name));
    }
    Ok(Some(data.into()))
}

/// Tools differ in whether they write the padding.
fn same_digest(one: &str, other: &str) -> bool {
    one.trim_end_matches('=') == other.trim_end_matches('=')
}

pub(super) async fn delete(link: &Link, names: &Names, name: &str) -> Result<(), BrokerError> {
    let place = Place::new(names);
    let Some(found) = place.find(link, name).await? else {
        return Ok(());
    };
    messages::delete(link, &place.stream, found.seq, false).await?;
    place.purge(link, &found.meta.nuid).await
}

/// Lists the blobs, and removes chunks that a writer has left over.
pub(super) async fn list(link: &Link, names: &Names) -> Result<Vec<BlobInfo>, BrokerError> {
    let place = Place::new(names);
    let chunks = chunk_names(link, &place).await?;
    let all = format!("$O.{}.M.>", place.bucket);
    let mut blobs = Vec::new();
    let mut described = BTreeSet::new();
    let mut newest = ServerTime(0);
    let mut next = 1;
    loop {
        let Some(raw) = messages::look(link, &place.stream, Look::Next(next, &all)).await? else {
            break;
        };
        next = raw.seq + 1;
        let Some(time) = time::parse(&raw.time) else {
            continue;
        };
        newest = newest.max(time);
        let Ok(meta) = serde_json::from_slice::<Meta>(&messages::payload(&raw)?) else {
            continue;
        };
        if !meta.deleted {
            blobs.push(BlobInfo {
                name: meta.name,
                size: meta.size,
                time,
            });
            described.insert(meta.nuid);
        }
    }
    for nuid in chunks.difference(&described) {
        let subject = place.chunks(nuid);
        let last = messages::look(link, &place.stream, Look::Last(&subject)).await?;
        let last = last.and_then(|raw| time::parse(&raw.time));
        if last.is_some_and(|last| newest.0 > last.0.saturating_add(LEFT_OVER_AFTER)) {
            _ = place.purge(link, nuid).await;
        }
    }
    Ok(blobs)
}

/// Returns the names of all chunks.
async fn chunk_names(link: &Link, place: &Place) -> Result<BTreeSet<String>, BrokerError> {
    let prefix = place.chunks("");
    let mut names = BTreeSet::new();
    loop {
        let request = WithSubjects {
            subjects_filter: &format!("{prefix}>"),
            offset: names.len(),
        };
        let subject = format!("$JS.API.STREAM.INFO.{}", place.stream);
        let info: StreamInfo = link
            .api(subject, &request)
            .await
            .map_err(|error| stores::failed(link, error, &place.stream))?;
        let subjects: BTreeMap<String, u64> = info.state.subjects.unwrap_or_default();
        let before = names.len();
        names.extend(
            subjects
                .keys()
                .filter_map(|subject| subject.strip_prefix(prefix.as_str()))
                .map(str::to_owned),
        );
        // Servers list at most 100,000 subjects at a time.
        if names.len() == before || subjects.len() < 100_000 {
            return Ok(names);
        }
    }
}
