//! What a server must allow to each kind of peer, for servers that tell users apart.
//!
//! A user has an identity, which is the first token of all its ids. So its keys and its results can
//! be told from those of others by their subjects.

use std::fmt;

use super::connect::inbox_prefix;
use super::names::{self, Names};
use crate::broker::Store;

/// The subjects that a user may publish to and subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Permissions {
    pub(crate) publish: Vec<String>,
    pub(crate) subscribe: Vec<String>,
    /// Whether the user may answer the messages that it receives.
    pub(crate) responses: bool,
}

/// Writes the `permissions` block of a user, in the form of a server's configuration.
impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let block = |f: &mut fmt::Formatter<'_>, name: &str, subjects: &[String]| {
            writeln!(f, "  {name}: {{ allow: [")?;
            for subject in subjects {
                writeln!(f, "    {subject:?}")?;
            }
            writeln!(f, "  ] }}")
        };
        writeln!(f, "permissions: {{")?;
        block(f, "publish", &self.publish)?;
        block(f, "subscribe", &self.subscribe)?;
        if self.responses {
            writeln!(f, "  allow_responses: true")?;
        }
        writeln!(f, "}}")
    }
}

/// Collects the subjects of one kind of peer.
struct Allowed {
    identity: String,
    names: Names,
    publish: Vec<String>,
}

impl Allowed {
    fn new(namespace: &str, identity: &str) -> Self {
        Self {
            identity: identity.to_owned(),
            names: Names::new(namespace, Some(identity)),
            publish: vec![format!("{}.>", inbox_prefix(identity))],
        }
    }

    fn publish(&mut self, subject: String) {
        self.publish.push(subject);
    }

    fn api(&mut self, what: &str, stream: &str, rest: &str) {
        self.publish(format!("$JS.API.{what}.{stream}{rest}"));
    }

    fn messages(&mut self, store: Store, subject: &str) {
        let subject = self.names.subject(store, subject);
        self.publish(subject);
    }

    /// The state of all streams, and of the queues.
    fn states(&mut self) {
        let blobs = self.names.blobs();
        let streams = names::ALL.map(|store| self.names.stream(store).to_owned());
        for stream in streams.iter().chain([&blobs]) {
            self.api("STREAM.INFO", stream, "");
        }
        let jobs = self.names.stream(Store::Jobs).to_owned();
        self.api("CONSUMER.LIST", &jobs, "");
        self.api("CONSUMER.INFO", &jobs, ".*");
    }

    /// The messages of the streams that every peer looks into and tidies up.
    fn look(&mut self) {
        self.states();
        let blobs = self.names.blobs();
        let looked_into = [Store::Jobs, Store::Claims, Store::Live, Store::Kept];
        let looked_into = looked_into.map(|store| self.names.stream(store).to_owned());
        for stream in looked_into.iter().chain([&blobs]) {
            self.api("STREAM.MSG.GET", stream, "");
            self.api("STREAM.MSG.DELETE", stream, "");
        }
        self.api("STREAM.PURGE", &blobs, "");
        self.publish(format!("$O.{}.>", self.names.blob_bucket()));
    }

    fn watch(&mut self, store: Store) {
        let stream = self.names.stream(store).to_owned();
        let all = self.names.subject(store, ">");
        self.api("CONSUMER.CREATE", &stream, &format!(".*.{all}"));
        self.publish(format!("$JS.FC.{stream}.>"));
    }

    /// Consumers of a work queue, and what they deliver.
    fn consume(&mut self, store: Store, filter: &str) {
        let stream = self.names.stream(store).to_owned();
        let filter = self.names.subject(store, filter);
        self.api("CONSUMER.CREATE", &stream, &format!(".*.{filter}"));
        self.api("STREAM.MSG.GET", &stream, "");
        for what in ["CONSUMER.INFO", "CONSUMER.DELETE", "CONSUMER.MSG.NEXT"] {
            self.api(what, &stream, ".*");
        }
        self.publish(format!("$JS.ACK.{stream}.>"));
        // The form with a domain and an account.
        self.publish(format!("$JS.ACK.*.*.{stream}.>"));
    }

    fn notice(&self, subject: &str) -> String {
        format!("{}{subject}", self.names.notices)
    }

    /// Returns the permissions of a peer that hears these notices, and its own inbox.
    fn peer(mut self, notices: Vec<String>) -> Permissions {
        self.publish.sort();
        self.publish.dedup();
        let mut subscribe = vec![format!("{}.>", inbox_prefix(&self.identity))];
        subscribe.extend(notices.iter().map(|subject| self.notice(subject)));
        Permissions {
            publish: self.publish,
            subscribe,
            responses: false,
        }
    }
}

/// A submitter publishes jobs, its own claims and its own life, and reads only its own results.
pub(crate) fn submitter(namespace: &str, identity: &str) -> Permissions {
    let own = format!("{identity}.*");
    let mut allowed = Allowed::new(namespace, identity);
    allowed.look();
    allowed.messages(Store::Jobs, ">");
    allowed.messages(Store::Claims, &own);
    allowed.messages(Store::Live, &format!("c.{own}"));
    allowed.messages(Store::Kept, ">");
    allowed.publish(allowed.notice("ctl.>"));
    allowed.consume(Store::Results, &own);
    allowed.watch(Store::Live);
    allowed.watch(Store::Kept);
    allowed.peer(vec![format!("ev.{own}")])
}

/// A worker takes jobs, and publishes results, claims and its own life.
pub(crate) fn worker(namespace: &str, identity: &str) -> Permissions {
    let own = format!("{identity}.*");
    let mut allowed = Allowed::new(namespace, identity);
    allowed.look();
    allowed.messages(Store::Results, ">");
    allowed.messages(Store::Claims, ">");
    allowed.messages(Store::Live, &format!("w.{own}"));
    allowed.messages(Store::Kept, ">");
    allowed.publish(allowed.notice("ctl.>"));
    allowed.publish(allowed.notice("ev.>"));
    allowed.consume(Store::Jobs, ">");
    allowed.watch(Store::Live);
    Permissions {
        responses: true,
        ..allowed.peer(vec![format!("ctl.{own}"), "ctl.all".into()])
    }
}

/// An administrator makes the streams of a namespace, with those for the results of `identities`,
/// looks into them, drains workers and removes what is stored.
pub(crate) fn admin(namespace: &str, identity: &str, identities: &[String]) -> Permissions {
    let mut allowed = Allowed::new(namespace, identity);
    allowed.publish("$JS.API.INFO".into());
    let mut streams = vec![allowed.names.blobs()];
    streams.extend(names::ALL.map(|store| allowed.names.stream(store).to_owned()));
    let identities = identities.iter().map(|identity| Some(identity.as_str()));
    for identity in identities.chain([None]) {
        streams.push(allowed.names.results(identity).0);
    }
    streams.dedup();
    for stream in &streams {
        allowed.api("STREAM.CREATE", stream, "");
        allowed.api("STREAM.INFO", stream, "");
    }
    allowed.look();
    allowed.messages(Store::Live, &format!("s.{identity}.*"));
    allowed.messages(Store::Kept, ">");
    allowed.publish(allowed.notice("ctl.>"));
    allowed.watch(Store::Live);
    allowed.peer(vec![])
}

/// A viewer sees the state of a namespace and its queues, and changes nothing but its own key.
pub(crate) fn viewer(namespace: &str, identity: &str) -> Permissions {
    let mut allowed = Allowed::new(namespace, identity);
    allowed.states();
    let jobs = allowed.names.stream(Store::Jobs).to_owned();
    let blobs = allowed.names.blobs();
    for stream in [&jobs, &blobs] {
        allowed.api("STREAM.MSG.GET", stream, "");
    }
    allowed.messages(Store::Live, &format!("s.{identity}.*"));
    allowed.watch(Store::Live);
    allowed.peer(vec![])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submitter_has_no_subject_of_other_results() {
        let submitter = submitter("ns", "billing");
        let results = |subject: &&String| subject.contains("RES") || subject.contains(".res.");
        for subject in submitter.publish.iter().filter(results) {
            assert!(subject.contains("FP1_ns_RES_billing"), "{subject}");
        }
        let takes_jobs = |subject: &String| subject.contains("MSG.NEXT.FP1_ns_JOBS");
        assert!(!submitter.publish.iter().any(takes_jobs));
        assert!(worker("ns", "w1").publish.iter().any(takes_jobs));
    }

    #[test]
    fn the_block_is_that_of_a_configuration() {
        let permissions = Permissions {
            publish: vec!["a.>".into(), "$b".into()],
            subscribe: vec!["c".into()],
            responses: true,
        };
        let text = "permissions: {\n  publish: { allow: [\n    \"a.>\"\n    \"$b\"\n  ] }\n  \
                    subscribe: { allow: [\n    \"c\"\n  ] }\n  allow_responses: true\n}\n";
        assert_eq!(permissions.to_string(), text);
    }
}
