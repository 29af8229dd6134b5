//! The streams of a namespace: how they are made, and the settings that they carry.

use std::time::Duration;

use super::api::{
    AccountInfo, ApiFailure, Nothing, StreamConfig, StreamInfo, no_jetstream, number,
};
use super::link::{CallError, Link};
use super::names::Names;
use super::padding;
use crate::broker::{BrokerError, Store, StoreInfo};
use crate::protocol::settings::Settings;

const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
const RESULTS_AGE: Duration = Duration::from_secs(3600);

/// Begins the description of the stream of jobs. The settings follow.
const MARK: &str = "futurepool-cluster 1";

/// Writes the settings into a stream's description.
fn describe(settings: &Settings) -> String {
    format!(
        "{MARK} lease_ms={} replicas={} queue_bytes={}",
        settings.lease.as_millis(),
        settings.replicas,
        settings.queue_bytes
    )
}

/// Reads the settings from a stream's description. Words of later versions are skipped.
fn described(description: &str) -> Option<Settings> {
    let words = description.strip_prefix(MARK)?;
    let value = |name: &str| -> Option<u64> {
        let mut words = words.split_whitespace();
        let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
        value.parse().ok()
    };
    let settings = Settings {
        lease: Duration::from_millis(value("lease_ms")?),
        replicas: usize::try_from(value("replicas")?).ok()?,
        queue_bytes: value("queue_bytes")?,
    };
    (!settings.lease.is_zero()).then_some(settings)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn config(name: &str, subject: String, settings: &Settings) -> StreamConfig {
    StreamConfig {
        name: name.to_owned(),
        description: String::new(),
        subjects: vec![subject],
        retention: "limits".into(),
        max_consumers: -1,
        max_msgs: -1,
        max_bytes: -1,
        max_age: 0,
        max_msgs_per_subject: -1,
        max_msg_size: -1,
        discard: "new".into(),
        storage: "file".into(),
        num_replicas: settings.replicas.max(1),
        duplicate_window: nanos(DUPLICATE_WINDOW),
        deny_delete: false,
        deny_purge: false,
        allow_rollup_hdrs: false,
        allow_direct: false,
    }
}

fn jobs(names: &Names, settings: &Settings) -> StreamConfig {
    let subjects = format!("{}>", names.prefix(Store::Jobs));
    StreamConfig {
        retention: "workqueue".into(),
        description: describe(settings),
        max_bytes: i64::try_from(padding::limit(settings.queue_bytes)).unwrap_or(i64::MAX),
        ..config(names.stream(Store::Jobs), subjects, settings)
    }
}

fn results(names: &Names, identity: Option<&str>, settings: &Settings) -> StreamConfig {
    let (stream, subjects) = names.results(identity);
    StreamConfig {
        retention: "workqueue".into(),
        max_age: nanos(RESULTS_AGE),
        ..config(&stream, subjects, settings)
    }
}

/// A bucket of keys, as other tools make and read it. Keys can be deleted without a mark.
fn keys(names: &Names, store: Store, settings: &Settings) -> StreamConfig {
    let subjects = format!("{}>", names.prefix(store));
    let age = match store {
        Store::Live => nanos(settings.live_ttl()),
        _ => 0,
    };
    let window = match age {
        0 => nanos(DUPLICATE_WINDOW),
        age => age.min(nanos(DUPLICATE_WINDOW)),
    };
    StreamConfig {
        max_msgs_per_subject: 1,
        max_age: age,
        duplicate_window: window,
        allow_rollup_hdrs: true,
        ..config(names.stream(store), subjects, settings)
    }
}

/// An object store, as other tools make and read it.
fn blobs(names: &Names, settings: &Settings) -> StreamConfig {
    let bucket = names.blob_bucket();
    StreamConfig {
        subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
        allow_rollup_hdrs: true,
        ..config(&names.blobs(), String::new(), settings)
    }
}

async fn info(link: &Link, stream: &str) -> Result<StreamInfo, ApiFailure> {
    link.api(format!("$JS.API.STREAM.INFO.{stream}"), &Nothing {})
        .await
}

/// Returns the state of a store.
pub(super) async fn state(link: &Link, stream: &str) -> Result<StoreInfo, BrokerError> {
    let info = info(link, stream)
        .await
        .map_err(|error| failed(link, error, stream))?;
    let created = super::time::parse(&info.created).ok_or_else(|| {
        BrokerError::Refused("the server's answer has an unknown form of time".into())
    })?;
    let state = info.state;
    Ok(StoreInfo {
        created,
        first: match state.messages {
            0 => state.last_seq + 1,
            _ => state.first_seq,
        },
        last: state.last_seq,
        messages: state.messages,
        bytes: state.bytes,
    })
}

/// Makes the streams that are missing and returns the namespace's settings.
pub(super) async fn ensure(
    link: &Link,
    names: &Names,
    identities: &[String],
    wanted: &Settings,
    create: bool,
) -> Result<Settings, BrokerError> {
    let stream = names.stream(Store::Jobs);
    let found = match info(link, stream).await {
        Ok(found) => found,
        Err(error) if error.is(number::STREAM_NOT_FOUND) && create => {
            make_jobs(link, names, wanted).await?
        }
        Err(error) => return Err(failed(link, error, stream)),
    };
    let settings = described(&found.config.description)
        .ok_or_else(|| other_settings(stream, "its description has no settings"))?;
    check(&found.config, &jobs(names, &settings))?;

    let mut wanted = Vec::new();
    if create {
        let identities = identities.iter().map(|identity| Some(identity.as_str()));
        for identity in identities.chain([None, names.identity()]) {
            wanted.push(results(names, identity, &settings));
        }
    } else if names.identity().is_none() {
        // A peer with an identity may be a worker, which has no results of its own.
        wanted.push(results(names, None, &settings));
    }
    for store in [Store::Claims, Store::Live, Store::Kept] {
        wanted.push(keys(names, store, &settings));
    }
    wanted.push(blobs(names, &settings));
    for config in wanted {
        let found = match info(link, &config.name).await {
            Ok(found) => found,
            Err(error) if error.is(number::STREAM_NOT_FOUND) && create => {
                make(link, &config).await?
            }
            Err(error) => return Err(failed(link, error, &config.name)),
        };
        check(&found.config, &config)?;
    }
    Ok(settings)
}

async fn make_jobs(
    link: &Link,
    names: &Names,
    wanted: &Settings,
) -> Result<StreamInfo, BrokerError> {
    let mut settings = wanted.clone();
    // Claims and outcomes must fit in when the queue is full.
    let account: Result<AccountInfo, _> = link.api("$JS.API.INFO".into(), &Nothing {}).await;
    if let Ok(account) = account
        && let Ok(storage) = u64::try_from(account.limits.max_storage)
        && storage > 0
    {
        settings.queue_bytes = settings.queue_bytes.min(storage / 2);
    }
    make(link, &jobs(names, &settings)).await
}

async fn make(link: &Link, config: &StreamConfig) -> Result<StreamInfo, BrokerError> {
    let subject = format!("$JS.API.STREAM.CREATE.{}", config.name);
    match link.api(subject, config).await {
        Ok(made) => Ok(made),
        // Another peer was faster, and wants other settings: its own hold.
        Err(error) if error.is(number::STREAM_EXISTS) => info(link, &config.name)
            .await
            .map_err(|error| failed(link, error, &config.name)),
        Err(ApiFailure::Api(error)) => {
            let what = format!("the stream {} cannot be made", config.name);
            Err(error.into_broker(&what))
        }
        Err(error) => Err(failed(link, error, &config.name)),
    }
}

/// Fails if a stream is not what the protocol needs.
fn check(found: &StreamConfig, wanted: &StreamConfig) -> Result<(), BrokerError> {
    let differs = |what| Err(other_settings(&found.name, what));
    if found.subjects != wanted.subjects {
        return differs("its subjects are others");
    }
    if found.retention != wanted.retention {
        return differs("its retention is another");
    }
    if found.discard != wanted.discard {
        return differs("it drops old messages when it is full");
    }
    if found.storage != wanted.storage {
        return differs("it is not kept on disk");
    }
    if found.max_age != wanted.max_age {
        return differs("its messages have another age limit");
    }
    if found.max_msgs_per_subject != wanted.max_msgs_per_subject || found.max_msgs > 0 {
        return differs("its limits of messages are others");
    }
    if found.deny_delete || found.deny_purge {
        return differs("its messages cannot be deleted");
    }
    Ok(())
}

fn other_settings(stream: &str, what: &str) -> BrokerError {
    BrokerError::Refused(
        format!("the stream {stream} exists, but was not made for this use: {what}").into(),
    )
}

pub(super) fn failed(link: &Link, error: ApiFailure, stream: &str) -> BrokerError {
    if error.is(number::STREAM_NOT_FOUND) {
        return BrokerError::Missing(
            format!("the stream {stream} does not exist: an administrator must run the set-up")
                .into(),
        );
    }
    match error {
        ApiFailure::Call(CallError::NoResponder) if link.client().server_info().jetstream => {
            BrokerError::Unreachable("the server's JetStream does not answer".into())
        }
        ApiFailure::Call(CallError::NoResponder) => BrokerError::Refused(no_jetstream()),
        error => error.into_broker(&format!("stream {stream}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_from_the_description() {
        let settings = Settings {
            lease: Duration::from_millis(2500),
            replicas: 3,
            queue_bytes: 12345,
        };
        let text = describe(&settings);
        assert_eq!(described(&text), Some(settings.clone()));
        assert_eq!(described(&format!("{text} later=1")), Some(settings));
    }

    #[test]
    fn a_description_of_something_else_has_no_settings() {
        for text in [
            "",
            "jobs",
            "futurepool-cluster 1",
            "futurepool-cluster 1 lease_ms=x replicas=1 queue_bytes=1",
            "futurepool-cluster 1 lease_ms=0 replicas=1 queue_bytes=1",
        ] {
            assert_eq!(described(text), None, "{text}");
        }
    }
}
