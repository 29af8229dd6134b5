//! Receives notices.

use std::sync::Arc;

use async_nats::Subscriber;
use futures::StreamExt;
use futures::stream::SelectAll;

use super::link::Link;
use crate::broker::{BrokerError, Inbox, Notice};

/// Subscriptions to notices.
pub(crate) struct NatsInbox {
    subscriptions: SelectAll<Subscriber>,
    prefix: Arc<str>,
}

impl std::fmt::Debug for NatsInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsInbox").finish_non_exhaustive()
    }
}

impl NatsInbox {
    pub(super) async fn open(
        link: &Link,
        prefix: &Arc<str>,
        subjects: &[String],
    ) -> Result<Self, BrokerError> {
        let mut subscriptions = SelectAll::new();
        for subject in subjects {
            subscriptions.push(link.subscribe(format!("{prefix}{subject}")).await?);
        }
        // A notice that is sent from now on arrives.
        link.round_trip().await?;
        Ok(Self {
            subscriptions,
            prefix: Arc::clone(prefix),
        })
    }
}

impl Inbox for NatsInbox {
    async fn next(&mut self) -> Notice {
        loop {
            let Some(message) = self.subscriptions.next().await else {
                return std::future::pending().await;
            };
            if let Some(subject) = message.subject.strip_prefix(&*self.prefix) {
                return Notice {
                    subject: subject.to_owned(),
                    payload: message.payload,
                    reply: message.reply.map(|reply| reply.as_str().to_owned()),
                };
            }
        }
    }
}
