//! A namespace of a test: its server, its judge, its members.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use futurepool_cluster::{Cluster, ClusterBuilder};
use futures::StreamExt;
use tempfile::TempDir;

use crate::judge::Judge;
use crate::programs::{Fate, Mode, Place, Plan, Program, SubmitterPlan, WorkerPlan};
use crate::tasks::What;

/// How long anything may take that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(what, PATIENCE, condition);
}

#[track_caller]
pub(crate) fn eventually_within(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "it never happened that {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A namespace at a server.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) place: Place,
    directory: TempDir,
}

impl Space {
    pub(crate) fn new(url: impl Into<String>, namespace: &str, lease: Duration) -> Self {
        let place = Place {
            url: url.into(),
            namespace: namespace.to_owned(),
            lease,
            replicas: 1,
            queue_bytes: 256 << 20,
            ca: None,
            insecure: false,
        };
        Self {
            place,
            directory: tempfile::tempdir().expect("a directory for the judge"),
        }
    }

    pub(crate) fn judge(&self) -> Judge {
        Judge::at(&self.directory.path().join("judge"))
    }

    /// Returns the path of a file that opens a gate: see [`What::Gate`].
    pub(crate) fn gate(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn cluster(&self) -> ClusterBuilder {
        let place = &self.place;
        Cluster::connect(place.server())
            .namespace(&place.namespace)
            .lease(place.lease)
            .replicas(place.replicas)
            .queue_bytes(place.queue_bytes)
    }

    pub(crate) fn plan(&self, threads: usize) -> WorkerPlan {
        WorkerPlan {
            place: self.place.clone(),
            threads,
            grace: Duration::from_secs(60),
            versions: vec![1, 2],
            fate: None,
            fails_to_start: false,
            processes: false,
        }
    }

    pub(crate) fn worker(&self, threads: usize) -> Program {
        self.start(self.plan(threads))
    }

    /// Starts a worker that is killed, or stopped, at the first time that it reaches a step.
    pub(crate) fn doomed(&self, threads: usize, step: &str, fate: Fate) -> Program {
        let mut plan = self.plan(threads);
        plan.fate = Some((step.to_owned(), fate));
        self.start(plan)
    }

    pub(crate) fn start(&self, plan: WorkerPlan) -> Program {
        Program::start(&Plan::Worker(plan), &self.judge())
    }

    /// Starts a submitter of these jobs.
    pub(crate) fn submitter(&self, jobs: Vec<(u64, u64, Mode, What)>, window: usize) -> Program {
        let place = self.place.clone();
        let plan = SubmitterPlan {
            place,
            window,
            jobs,
        };
        Program::start(&Plan::Submitter(plan), &self.judge())
    }

    /// Returns how many messages a stream has: `FP1_<ns>_JOBS`, for example.
    pub(crate) fn messages(&self, stream: &str) -> u64 {
        messages(&self.place.url, stream)
    }

    /// Returns how many jobs wait or run.
    pub(crate) fn jobs(&self) -> u64 {
        self.messages(&format!("FP1_{}_JOBS", self.place.namespace))
    }

    /// Returns how many claims there are.
    pub(crate) fn claims(&self) -> u64 {
        self.messages(&format!("KV_fp1-{}-claim", self.place.namespace))
    }

    /// Waits until no job is left at the server.
    #[track_caller]
    pub(crate) fn wait_until_empty(&self) {
        let end = Instant::now() + PATIENCE;
        while self.jobs() > 0 && self.has_job() {
            let late = Instant::now() > end;
            assert!(!late, "the queue is never empty:\n{}", self.describe_jobs());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Looks for a job. Servers before 2.10 count removed messages again after a `kill -9`.
    fn has_job(&self) -> bool {
        self.has_message(">")
    }

    /// Waits until no default job is left, and after a `kill -9` of a current server no other one.
    ///
    /// An older server brings back messages that were acknowledged, and may hand none of them out.
    #[track_caller]
    pub(crate) fn wait_until_empty_after_kills(&self) {
        eventually("no default job is left", || {
            !self.has_message("default.once.>")
        });
        if !self.is_old() {
            self.wait_until_empty();
        }
    }

    fn is_old(&self) -> bool {
        on_server(&self.place.url, async |streams| {
            let version = streams.client().server_info().version;
            let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
            (numbers.next(), numbers.next()) < (Some(2), Some(10))
        })
    }

    fn has_message(&self, of: &str) -> bool {
        let Place { url, namespace, .. } = &self.place;
        on_server(url, async |streams| {
            let stream = streams.get_stream(format!("FP1_{namespace}_JOBS")).await;
            let stream = stream.expect("the stream exists");
            let subject = format!("fp1.{namespace}.job.{of}");
            match stream.get_first_raw_message_by_subject(&subject, 1).await {
                Ok(_) => true,
                Err(error) => {
                    let is_none = error.kind() == LastRawMessageErrorKind::NoMessageFound;
                    assert!(is_none, "{error}");
                    false
                }
            }
        })
    }

    /// Says what is in the queue, and what its consumers have.
    pub(crate) fn describe_jobs(&self) -> String {
        let name = format!("FP1_{}_JOBS", self.place.namespace);
        let text = on_server(&self.place.url, async |streams| {
            let stream = streams.get_stream(name).await.ok()?;
            let state = &stream.cached_info().state;
            let mut text = format!(
                "{} messages of {} bytes, {} to {}\n",
                state.messages, state.bytes, state.first_sequence, state.last_sequence
            );
            let mut consumers = stream.consumers();
            while let Some(Ok(info)) = consumers.next().await {
                text += &format!(
                    "{}: delivered {}, floor {}, {} pending, {} waiting, {} not acknowledged\n",
                    info.config.filter_subject,
                    info.delivered.stream_sequence,
                    info.ack_floor.stream_sequence,
                    info.num_pending,
                    info.num_waiting,
                    info.num_ack_pending,
                );
            }
            let mut shown = 0;
            for seq in state.first_sequence..=state.last_sequence {
                if let Ok(message) = stream.get_raw_message(seq).await {
                    text += &format!("{seq}: {} {:?}\n", message.subject, message.headers);
                    shown += 1;
                }
                if shown == 5 {
                    break;
                }
            }
            Some(text)
        });
        text.unwrap_or_default()
    }
}

/// Does something with the streams of a server.
pub(crate) fn on_server<T>(url: &str, work: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let client = async_nats::connect(url).await.expect("the server answers");
        work(jetstream::new(client)).await
    })
}

/// Returns how many messages a stream of a server has.
pub(crate) fn messages(url: &str, stream: &str) -> u64 {
    on_server(url, async |streams| {
        let stream = streams.get_stream(stream).await.expect("the stream exists");
        stream.cached_info().state.messages
    })
}
