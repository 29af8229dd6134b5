//! A submitter, and a worker by hand.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futurepool::{Call, ErrorReport, JoinError, JoinHandle, Task, TaskJob, task};
use tokio::time::{Instant, sleep, timeout};

use crate::broker::memory::{Memory, MemoryBroker};
use crate::broker::{
    Ack, Broker, Consumer, Delivery, Outgoing, Pulled, Puller, Store, StoreInfo, Stored,
};
use crate::protocol::claim::{Claim, ClaimState};
use crate::protocol::job::{Body, JobMessage};
use crate::protocol::live::{LiveValue, WorkerValue};
use crate::protocol::outcome::{Outcome, Verdict};
use crate::protocol::settings::Settings;
use crate::submitter::resolver::ResolveHere;
use crate::submitter::tests::broken::Breakable;
use crate::submitter::{Config, Handle, submitter};

#[task(name = "t.once")]
pub(crate) fn once(n: u32) -> u32 {
    n + 1
}

#[task(name = "t.again", idempotent, attempts = 3)]
pub(crate) fn again(n: u32) -> u32 {
    n + 1
}

#[task(name = "t.large")]
pub(crate) fn large(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

/// A submitter whose core runs, and what a test can do to it.
pub(crate) struct Bench {
    pub(crate) handle: Handle,
    /// The submitter's connection.
    pub(crate) broker: Breakable,
    /// Another connection.
    pub(crate) server: Memory,
    pub(crate) all: MemoryBroker,
    pub(crate) steps: Rc<RefCell<Vec<(&'static str, String)>>>,
    pub(crate) core: tokio::task::JoinHandle<()>,
}

/// Runs a test under a paused clock. A hang ends it, because the clock then jumps.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(Bench) -> F) {
    run_with(|_| (), test);
}

pub(crate) fn run_with<F: Future<Output = ()>>(
    configure: impl FnOnce(&mut Config),
    test: impl FnOnce(Bench) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        let all = MemoryBroker::new();
        let server = all.connect("test");
        let settings = server
            .ensure_stores(&Settings::default(), true)
            .await
            .unwrap();
        let broker = Breakable::new(all.connect("test"));
        let mut config = Config::new("client".to_owned(), settings);
        config.seed = 7;
        configure(&mut config);
        let steps = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&steps);
        let reached = Rc::new(move |step, id: &str| log.borrow_mut().push((step, id.to_owned())));
        let (handle, core) = submitter(broker.clone(), config, Rc::new(ResolveHere), reached);
        let core = tokio::task::spawn_local(core.run());
        let bench = Bench {
            handle: handle.clone(),
            broker,
            server,
            all,
            steps,
            core,
        };
        let day = Duration::from_secs(24 * 3600);
        timeout(day, test(bench)).await.expect("the test hangs");
        let counts = handle.counts();
        assert!(counts.add_up(), "{counts:?}");
    }));
}

/// Waits until a condition holds. Time is virtual.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..100_000 {
        if condition().await {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the condition never held");
}

pub(crate) async fn end<T>(handle: JoinHandle<T>) -> Result<T, JoinError> {
    let hours = Duration::from_secs(3 * 3600);
    timeout(hours, handle)
        .await
        .expect("the handle never resolves")
}

impl Bench {
    pub(crate) fn submit<T: Task>(&self, call: Call<T>) -> JoinHandle<T::Output> {
        let (job, handle) = TaskJob::new(call);
        self.handle.try_submit(job).unwrap();
        handle
    }

    pub(crate) async fn worker(&self, name: &str) -> Worker {
        let server = self.all.connect("test");
        let mut puller = server.puller().await.unwrap();
        for task in ["t.once", "t.again", "t.large"] {
            let subject = crate::protocol::names::job_subject("default", task, 1);
            let consumer = Consumer::Jobs(subject.into());
            server.ensure_consumer(&consumer).await.unwrap();
            puller.request(&consumer, 1_000_000, Duration::from_secs(1_000_000));
        }
        let worker = Worker {
            key: format!("w.{name}"),
            server,
            puller,
        };
        worker.announce().await;
        worker
    }

    pub(crate) async fn info(&self, store: Store) -> StoreInfo {
        self.server.info(store).await.unwrap()
    }

    /// Waits until nothing is left of any job.
    pub(crate) async fn until_empty(&self) {
        for _ in 0..100_000 {
            let mut left = Vec::new();
            for store in [Store::Jobs, Store::Results, Store::Claims] {
                left.push((store, self.info(store).await.messages));
            }
            if left.iter().all(|(_, messages)| *messages == 0) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let mut left = Vec::new();
        for store in [Store::Jobs, Store::Results, Store::Claims] {
            left.push((store, self.info(store).await.messages));
        }
        panic!("{left:?} is left");
    }

    pub(crate) async fn until_queued(&self, jobs: u64) {
        until(async || self.info(Store::Jobs).await.messages == jobs).await;
    }

    pub(crate) fn count(&self, step: &str) -> usize {
        let steps = self.steps.borrow();
        steps.iter().filter(|(other, _)| *other == step).count()
    }

    /// Kills the submitter.
    pub(crate) fn kill(&self) {
        self.core.abort();
    }
}

/// A worker that does what the test says.
pub(crate) struct Worker {
    pub(crate) key: String,
    pub(crate) server: Memory,
    puller: <Memory as Broker>::Puller,
}

/// A job that the worker has.
pub(crate) struct Taken {
    pub(crate) delivery: Delivery,
    pub(crate) job: JobMessage,
    pub(crate) claim: Option<u64>,
}

impl Worker {
    pub(crate) async fn announce(&self) {
        let task = |name: &str| (name.to_owned(), 1);
        let value = LiveValue {
            name: "host/1".to_owned(),
            worker: Some(WorkerValue {
                queue: "default".to_owned(),
                tasks: vec![task("t.once"), task("t.again"), task("t.large")],
                state: "running".to_owned(),
                ..WorkerValue::default()
            }),
            client: None,
        };
        let message = value.to_outgoing(&self.key);
        self.server.publish(Store::Live, message).await.unwrap();
    }

    /// Writes the worker's key from now on.
    pub(crate) fn stay_alive(&self) -> tokio::task::JoinHandle<()> {
        let (server, key) = (self.server.clone(), self.key.clone());
        tokio::task::spawn_local(async move {
            loop {
                let value = LiveValue {
                    name: "host/1".to_owned(),
                    worker: Some(WorkerValue {
                        queue: "default".to_owned(),
                        tasks: vec![("t.once".to_owned(), 1), ("t.again".to_owned(), 1)],
                        state: "running".to_owned(),
                        ..WorkerValue::default()
                    }),
                    client: None,
                };
                let _ = server.publish(Store::Live, value.to_outgoing(&key)).await;
                sleep(Settings::default().live_period()).await;
            }
        })
    }

    pub(crate) async fn try_take(&mut self, within: Duration) -> Option<Taken> {
        let deadline = Instant::now() + within;
        loop {
            let pulled = tokio::time::timeout_at(deadline, self.puller.next())
                .await
                .ok()?;
            if let Pulled::Delivery(delivery) = pulled {
                let job = JobMessage::from_stored(&delivery.message).unwrap();
                return Some(Taken {
                    delivery,
                    job,
                    claim: None,
                });
            }
        }
    }

    pub(crate) async fn take(&mut self) -> Taken {
        let taken = self.try_take(Duration::from_secs(3600)).await;
        taken.expect("no job comes")
    }

    /// Creates the claim. `false` if another one did.
    pub(crate) async fn claim(&self, taken: &mut Taken) -> bool {
        let claim = Claim {
            state: ClaimState::Held,
            by: self.key.clone(),
            nonce: 1,
            seq: taken.delivery.message.seq,
            returns: 0,
        };
        let message = claim.to_outgoing(&taken.job.id, 0);
        taken.claim = self.server.publish(Store::Claims, message).await.ok();
        taken.claim.is_some()
    }

    pub(crate) async fn send(&self, taken: &Taken, verdict: Verdict) {
        let outcome = Outcome {
            id: taken.job.id.clone(),
            by: self.key.clone(),
            verdict,
        };
        let message = outcome.to_outgoing(&taken.job.client);
        self.server.publish(Store::Results, message).await.unwrap();
    }

    /// Sends the output that the task would have.
    pub(crate) async fn send_output(&self, taken: &Taken) {
        self.send(
            taken,
            Verdict::Returned(Body::Inline(output(&taken.job.body))),
        )
        .await;
    }

    pub(crate) async fn send_error(&self, taken: &Taken, error: &JoinError) {
        let report = ErrorReport::new("t", error).at_worker("host/1");
        self.send(taken, Verdict::Failed(report)).await;
    }

    pub(crate) async fn remove(&self, taken: &Taken) {
        match taken.job.mode {
            crate::protocol::job::Mode::Once => {
                let _ = self
                    .server
                    .delete(Store::Jobs, taken.delivery.message.seq)
                    .await;
            }
            crate::protocol::job::Mode::Idempotent { .. } => {
                let _ = self.server.ack(&taken.delivery.token, Ack::Done).await;
            }
        }
        if let Some(claim) = taken.claim {
            let _ = self.server.delete(Store::Claims, claim).await;
        }
    }

    /// Runs a job as a worker does.
    pub(crate) async fn complete(&self, taken: &mut Taken) {
        if taken.job.mode == crate::protocol::job::Mode::Once {
            assert!(self.claim(taken).await, "the job is claimed");
        }
        self.send_output(taken).await;
        self.remove(taken).await;
    }

    pub(crate) async fn claim_of(&self, id: &str) -> Option<Claim> {
        let stored: Option<Stored> = self.server.last(Store::Claims, id).await.unwrap();
        stored.as_ref().and_then(Claim::from_stored)
    }

    pub(crate) async fn send_raw(&self, message: Outgoing) {
        self.server.publish(Store::Results, message).await.unwrap();
    }
}

/// Returns the output for encoded arguments.
fn output(body: &Body) -> Bytes {
    let Body::Inline(arguments) = body else {
        panic!("the arguments are in a blob");
    };
    let arguments = futurepool::Payload::from_bytes(arguments).unwrap();
    let tasks = futurepool::tasks![once, again];
    let entry = *tasks.get("t.once", 1).unwrap();
    let (job, handle) = entry.call(arguments).into_job();
    job.run_here();
    Bytes::from(handle.join().unwrap().to_bytes())
}
