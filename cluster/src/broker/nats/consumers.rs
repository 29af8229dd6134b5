//! Consumers, which hand out the messages of work queues.

use std::time::Duration;

use super::api::{
    ApiFailure, ConsumerConfig, ConsumerList, ConsumerState, CreateConsumer, Nothing, Page,
    Success, number,
};
use super::link::Link;
use super::messages::{self, Look};
use super::names::{self, Names};
use super::stores;
use crate::broker::{BrokerError, Consumer, ConsumerInfo, Store};

/// How long a consumer of outcomes stays when nothing pulls.
const RESULTS_UNUSED: Duration = Duration::from_secs(3600);

/// How long after a first look a consumer is looked at again, before it is made anew.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// How many requests for messages may wait at a consumer.
const MAX_WAITING: i64 = 4096;

fn config(names: &Names, consumer: &Consumer, name: &str, lease: Duration) -> ConsumerConfig {
    let unused = match consumer {
        Consumer::Jobs(_) => 0,
        Consumer::Results(_) => nanos(RESULTS_UNUSED),
    };
    ConsumerConfig {
        name: Some(name.to_owned()),
        durable_name: Some(name.to_owned()),
        deliver_policy: "all".into(),
        ack_policy: "explicit".into(),
        ack_wait: nanos(lease),
        max_deliver: -1,
        filter_subject: names.subject(names::store(consumer), consumer.subject()),
        replay_policy: "instant".into(),
        max_ack_pending: -1,
        max_waiting: MAX_WAITING,
        inactive_threshold: unused,
        ..ConsumerConfig::default()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Makes a consumer that is missing, or that would pass over messages.
pub(super) async fn ensure(
    link: &Link,
    names: &Names,
    consumer: &Consumer,
    lease: Duration,
) -> Result<(), BrokerError> {
    let (stream, name) = names.consumer(consumer);
    let config = config(names, consumer, &name, lease);
    for look in 1.. {
        let found = match info(link, stream, &name).await {
            Ok(found) => found,
            Err(error) if error.is(number::CONSUMER_NOT_FOUND) => {
                return create(link, stream, &config).await;
            }
            Err(error) => return Err(stores::failed(link, error, stream)),
        };
        if !passes_over(link, stream, &config.filter_subject, &found).await? {
            return Ok(());
        }
        if look == 2 {
            break;
        }
        // With replicas, an acknowledged message may take a moment to vanish.
        tokio::time::sleep(SECOND_LOOK).await;
    }
    delete(link, names, consumer).await?;
    create(link, stream, &config).await
}

/// Returns whether there are, or will be, messages that a consumer takes for done.
///
/// That is so after the stream was rolled back, and the consumer was not. A killed server of a
/// version before 2.10 can bring back acknowledged messages, too. Both look the same, so both are
/// delivered again.
async fn passes_over(
    link: &Link,
    stream: &str,
    filter: &str,
    consumer: &ConsumerState,
) -> Result<bool, BrokerError> {
    // The stream is read after the consumer, and may only have grown since.
    let last = stores::state(link, stream).await?.last;
    let floor = consumer.ack_floor.stream_seq;
    if consumer.delivered.stream_seq.max(floor) > last {
        return Ok(true);
    }
    if floor == 0 {
        return Ok(false);
    }
    let first = messages::look(link, stream, Look::Next(1, filter)).await?;
    Ok(first.is_some_and(|first| first.seq <= floor))
}

async fn info(link: &Link, stream: &str, name: &str) -> Result<ConsumerState, ApiFailure> {
    let subject = format!("$JS.API.CONSUMER.INFO.{stream}.{name}");
    link.api(subject, &Nothing {}).await
}

async fn create(link: &Link, stream: &str, config: &ConsumerConfig) -> Result<(), BrokerError> {
    match make(link, stream, config).await {
        Ok(_) => Ok(()),
        Err(error) => {
            // Another peer may have been faster, with other settings.
            let name = config.name.as_deref().unwrap_or_default();
            match info(link, stream, name).await {
                Ok(_) => Ok(()),
                Err(_) => Err(stores::failed(link, error, stream)),
            }
        }
    }
}

/// Makes a consumer. Its name and filter are in the subject, where permissions can see them.
pub(super) async fn make(
    link: &Link,
    stream: &str,
    config: &ConsumerConfig,
) -> Result<ConsumerState, ApiFailure> {
    let subject = format!(
        "$JS.API.CONSUMER.CREATE.{stream}.{}.{}",
        config.name.as_deref().unwrap_or_default(),
        config.filter_subject,
    );
    let request = CreateConsumer {
        stream_name: stream,
        config,
    };
    link.api(subject, &request).await
}

pub(super) async fn delete(
    link: &Link,
    names: &Names,
    consumer: &Consumer,
) -> Result<(), BrokerError> {
    let (stream, name) = names.consumer(consumer);
    let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.{name}");
    match link.api::<Success>(subject, &Nothing {}).await {
        Ok(_) => Ok(()),
        Err(error)
            if error.is(number::CONSUMER_NOT_FOUND) || error.is(number::STREAM_NOT_FOUND) =>
        {
            Ok(())
        }
        Err(error) => Err(stores::failed(link, error, stream)),
    }
}

/// Lists the consumers of jobs.
pub(super) async fn list(link: &Link, names: &Names) -> Result<Vec<ConsumerInfo>, BrokerError> {
    let stream = names.stream(Store::Jobs);
    let prefix = names.prefix(Store::Jobs);
    let mut listed = Vec::new();
    let mut offset = 0;
    loop {
        let subject = format!("$JS.API.CONSUMER.LIST.{stream}");
        let page: ConsumerList = link
            .api(subject, &Page { offset })
            .await
            .map_err(|error| stores::failed(link, error, stream))?;
        let consumers = page.consumers.unwrap_or_default();
        offset += consumers.len();
        let empty = consumers.is_empty();
        for state in consumers {
            if let Some(subject) = state.config.filter_subject.strip_prefix(prefix) {
                listed.push(ConsumerInfo {
                    consumer: Consumer::Jobs(subject.into()),
                    waiting: state.num_pending,
                    delivered: state.num_ack_pending,
                    pulls: state.num_waiting,
                });
            }
        }
        if empty || offset >= page.total {
            return Ok(listed);
        }
    }
}
