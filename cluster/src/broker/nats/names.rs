//! What the stores and consumers of a namespace are called on the server.

use std::sync::Arc;

use crate::broker::{Consumer, Store};

/// The names of a namespace, as this peer uses them.
#[derive(Debug, Clone)]
pub(super) struct Names {
    namespace: Arc<str>,
    identity: Option<Arc<str>>,
    streams: [Arc<str>; 5],
    prefixes: [Arc<str>; 5],
    /// The prefix of notices.
    pub(super) notices: Arc<str>,
}

#[cfg(any(feature = "cli", test))]
pub(super) const ALL: [Store; 5] = [
    Store::Jobs,
    Store::Results,
    Store::Claims,
    Store::Live,
    Store::Kept,
];

impl Names {
    pub(super) fn new(namespace: &str, identity: Option<&str>) -> Self {
        let ns = namespace;
        let bucket = |name| format!("KV_fp1-{ns}-{name}").into();
        let keys = |name| format!("$KV.fp1-{ns}-{name}.").into();
        Self {
            namespace: ns.into(),
            identity: identity.map(Arc::from),
            streams: [
                format!("FP1_{ns}_JOBS").into(),
                results(ns, identity).into(),
                bucket("claim"),
                bucket("live"),
                bucket("kept"),
            ],
            prefixes: [
                format!("fp1.{ns}.job.").into(),
                format!("fp1.{ns}.res.").into(),
                keys("claim"),
                keys("live"),
                keys("kept"),
            ],
            notices: format!("fp1.{ns}.").into(),
        }
    }

    /// Returns the stream of a store.
    pub(super) fn stream(&self, store: Store) -> &str {
        &self.streams[store as usize]
    }

    /// Returns what the subjects of a store begin with.
    pub(super) fn prefix(&self, store: Store) -> &str {
        &self.prefixes[store as usize]
    }

    pub(super) fn subject(&self, store: Store, subject: &str) -> String {
        let prefix = self.prefix(store);
        let mut full = String::with_capacity(prefix.len() + subject.len());
        full.push_str(prefix);
        full.push_str(subject);
        full
    }

    /// Returns the stream of results for a submitter of this identity, and its subjects.
    pub(super) fn results(&self, identity: Option<&str>) -> (String, String) {
        let prefix = self.prefix(Store::Results);
        let subjects = match identity {
            Some(identity) => format!("{prefix}{identity}.>"),
            None => format!("{prefix}*"),
        };
        (results(&self.namespace, identity), subjects)
    }

    pub(super) fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    pub(super) fn blobs(&self) -> String {
        format!("OBJ_{}", self.blob_bucket())
    }

    pub(super) fn blob_bucket(&self) -> String {
        format!("fp1-{}-blob", self.namespace)
    }

    /// Returns the stream and the name of a consumer.
    pub(super) fn consumer(&self, consumer: &Consumer) -> (&str, String) {
        // A name has no dots, and a token of a subject no `+`.
        let name = consumer.subject().replace('.', "+");
        (self.stream(store(consumer)), name)
    }
}

/// Returns the store that a consumer reads.
pub(super) fn store(consumer: &Consumer) -> Store {
    match consumer {
        Consumer::Jobs(_) => Store::Jobs,
        Consumer::Results(_) => Store::Results,
    }
}

fn results(namespace: &str, identity: Option<&str>) -> String {
    match identity {
        Some(identity) => format!("FP1_{namespace}_RES_{identity}"),
        None => format!("FP1_{namespace}_RES"),
    }
}
