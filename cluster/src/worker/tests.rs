//! A worker on the in-memory broker, with a virtual clock and a simulated runner.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futurepool::{Bytes, EncodedCall, JoinError, TaskJob, task, tasks};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::{Control, Core, Failure, Options, Runner, Running};
use crate::broker::memory::{Memory, MemoryBroker};
use crate::broker::{
    Ack, Broker, Consumer, Delivery, Inbox, Outgoing, Pulled, Puller, Store, Stored,
};
use crate::protocol::claim::{Claim, ClaimState};
use crate::protocol::job::{Body, JobMessage, Mode};
use crate::protocol::live::LiveValue;
use crate::protocol::names;
use crate::protocol::notice::{self, encode};
use crate::protocol::outcome::{Kept, Outcome, Verdict};
use crate::protocol::settings::Settings;

#[task(name = "double")]
fn double(n: u32) -> u32 {
    2 * n
}

#[task(name = "fill")]
fn fill(len: u64) -> Bytes {
    Bytes::from(vec![7; len as usize])
}

#[task(name = "panic")]
fn panics(text: String) -> u32 {
    std::panic::panic_any(text)
}

const CLIENT: &str = "alice";
const LEASE: Duration = Duration::from_secs(30);

/// What a simulated process pool does.
#[derive(Default)]
struct Sim {
    /// The jobs that started, in order.
    starts: RefCell<Vec<String>>,
    /// How long each takes.
    takes: Cell<Duration>,
    /// It cannot start anything.
    broken: Cell<bool>,
    /// A cancel does nothing.
    stubborn: Cell<bool>,
    /// Jobs that run now, and the most that ever did.
    running: Cell<(usize, usize)>,
}

struct SimRunner(Rc<Sim>);

impl Runner for SimRunner {
    fn start(&self, job: &str, call: EncodedCall) -> Running {
        let sim = Rc::clone(&self.0);
        if sim.broken.get() {
            return Running::new(async { Err(JoinError::broken("no such program")) }, || {});
        }
        sim.starts.borrow_mut().push(job.to_owned());
        let (running, most) = sim.running.get();
        sim.running.set((running + 1, most.max(running + 1)));
        let cancelled = Rc::new(Notify::new());
        let cancel = Rc::clone(&cancelled);
        let stubborn = sim.stubborn.get();
        let end = async move {
            let (job, handle) = call.into_job();
            let is_cancelled = tokio::select! {
                () = sleep(sim.takes.get()) => false,
                () = cancelled.notified(), if !stubborn => true,
            };
            let (running, most) = sim.running.get();
            sim.running.set((running - 1, most));
            if is_cancelled {
                return Err(JoinError::cancelled_running(job.name()));
            }
            job.run_here();
            handle.await
        };
        Running::new(end, move || cancel.notify_one())
    }
}

/// What is done to a worker: it is killed by dropping it, and stopped by polling it no more.
struct Process {
    control: Control,
    sim: Rc<Sim>,
    stopped: Rc<Cell<bool>>,
    waker: Rc<RefCell<Option<Waker>>>,
    task: JoinHandle<Result<(), Failure>>,
}

impl Process {
    fn kill(&self) {
        self.task.abort();
    }

    fn resume(&self) {
        self.stopped.set(false);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    async fn end(self) -> Result<(), Failure> {
        timeout(LEASE * 10, self.task)
            .await
            .expect("it ends")
            .unwrap()
    }

    fn starts(&self) -> Vec<String> {
        self.sim.starts.borrow().clone()
    }
}

/// What happens at a step.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Nothing,
    Kill(&'static str),
    Stop(&'static str),
}

struct Bench {
    broker: MemoryBroker,
    /// A connection of the test's.
    me: Memory,
    settings: Settings,
    slots: usize,
    grace: Duration,
    workers: Cell<u64>,
    sent: Cell<u64>,
    tasks: futurepool::Tasks,
}

impl Bench {
    async fn new() -> Self {
        let broker = MemoryBroker::new();
        let me = broker.connect("test");
        let settings = Settings {
            lease: LEASE,
            ..Settings::default()
        };
        me.ensure_stores(&settings, true).await.unwrap();
        let bench = Self {
            broker,
            me,
            settings,
            slots: 2,
            grace: Duration::from_secs(30),
            workers: Cell::new(0),
            sent: Cell::new(0),
            tasks: tasks![double, fill, panics],
        };
        bench.keep_alive(&names::live_client(CLIENT));
        bench
    }

    /// Writes the key of a peer in each period.
    fn keep_alive(&self, key: &str) -> JoinHandle<()> {
        let (broker, key) = (self.me.clone(), key.to_owned());
        let period = self.settings.live_period();
        spawn_local(async move {
            loop {
                let message = LiveValue::default().to_outgoing(&key);
                broker.publish(Store::Live, message).await.unwrap();
                sleep(period).await;
            }
        })
    }

    fn worker(&self) -> Process {
        self.worker_that(At::Nothing, Sim::default())
    }

    fn worker_that(&self, at: At, sim: Sim) -> Process {
        let number = self.workers.get() + 1;
        self.workers.set(number);
        let stopped = Rc::new(Cell::new(false));
        let killed = Rc::new(Cell::new(false));
        let (stop, kill) = (Rc::clone(&stopped), Rc::clone(&killed));
        let is_done = Cell::new(false);
        let steps = move |step: &'static str, _: &str| match at {
            At::Kill(point) if point == step => kill.set(true),
            At::Stop(point) if point == step && !is_done.replace(true) => stop.set(true),
            _ => {}
        };
        let options = Options {
            id: format!("host-{number}"),
            name: format!("host/{number}"),
            queue: "default".into(),
            tasks: self.tasks.clone(),
            slots: self.slots,
            grace: self.grace,
            settings: self.settings.clone(),
            seed: number,
            steps: Some(Rc::new(steps)),
        };
        let sim = Rc::new(sim);
        let runner = Rc::new(SimRunner(Rc::clone(&sim)));
        let (core, control) = Core::new(self.broker.connect("test"), options, runner);
        let waker = Rc::new(RefCell::new(None));
        let (is_stopped, wakes) = (Rc::clone(&stopped), Rc::clone(&waker));
        let task = spawn_local(async move {
            let mut run = Box::pin(core.run());
            poll_fn(move |context| {
                if killed.get() {
                    return Poll::Ready(Ok(()));
                }
                if is_stopped.get() {
                    *wakes.borrow_mut() = Some(context.waker().clone());
                    return Poll::Pending;
                }
                run.as_mut().poll(context)
            })
            .await
        });
        Process {
            control,
            sim,
            stopped,
            waker,
            task,
        }
    }

    fn job(&self, mode: Mode, call: EncodedTask) -> JobMessage {
        let number = self.sent.get() + 1;
        self.sent.set(number);
        JobMessage {
            id: format!("{CLIENT}-{number}"),
            client: CLIENT.into(),
            mode,
            signature: 0,
            deadline: None,
            time_limit: None,
            label: None,
            key: None,
            traceparent: None,
            body: Body::Inline(call.1.into()),
        }
    }

    async fn publish(&self, task: &str, job: &JobMessage) -> u64 {
        let subject = names::job_subject("default", task, 1);
        let message = job.to_outgoing(&subject);
        self.me.publish(Store::Jobs, message).await.unwrap()
    }

    /// Submits `double(n)` and returns the id and the sequence of the job.
    async fn send(&self, mode: Mode, n: u32) -> (String, u64) {
        let job = self.job(mode, encoded(double::call(n)));
        let seq = self.publish("double", &job).await;
        (job.id, seq)
    }

    async fn claim(&self, id: &str, claim: &Claim) -> u64 {
        let message = claim.to_outgoing(id, 0);
        self.me.publish(Store::Claims, message).await.unwrap()
    }

    /// All outcomes of a job, in order.
    async fn outcomes(&self, id: &str) -> Vec<Outcome> {
        let mut all = Vec::new();
        let mut seq = 1;
        while let Some(stored) = self.me.next(Store::Results, seq).await.unwrap() {
            seq = stored.seq + 1;
            let outcome = Outcome::from_stored(&stored).unwrap();
            if outcome.id == id {
                all.push(outcome);
            }
        }
        all
    }

    /// Waits for the first outcome of a job.
    async fn outcome(&self, id: &str) -> Verdict {
        let wait = async {
            loop {
                if let Some(first) = self.outcomes(id).await.into_iter().next() {
                    return first.verdict;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LEASE * 20, wait).await.expect("an outcome")
    }

    async fn count(&self, store: Store) -> u64 {
        self.me.info(store).await.unwrap().messages
    }

    /// Waits until no job and no claim is left.
    async fn until_clean(&self) {
        let wait = async {
            while self.count(Store::Jobs).await + self.count(Store::Claims).await > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LEASE * 20, wait)
            .await
            .expect("jobs and claims leave");
    }
}

type EncodedTask = (&'static str, Vec<u8>);

fn encoded<T: futurepool::Task>(call: futurepool::Call<T>) -> EncodedTask {
    let (job, _handle) = TaskJob::new(call);
    (T::NAME, job.encode().unwrap().to_bytes())
}

fn number(verdict: &Verdict) -> u32 {
    let Verdict::Returned(Body::Inline(bytes)) = verdict else {
        panic!("{verdict:?}");
    };
    let (job, handle) = TaskJob::new(double::call(0));
    job.resolve(futurepool::Payload::from_bytes(bytes).unwrap());
    handle.join().unwrap()
}

fn error(verdict: Verdict) -> JoinError {
    let Verdict::Failed(report) = verdict else {
        panic!("{verdict:?}");
    };
    report.into()
}

const RETRIED: Mode = Mode::Idempotent { attempts: 3 };

fn simulate(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test());
}

#[test]
fn a_job_of_either_mode_runs_and_leaves_nothing() {
    simulate(async || {
        let bench = Bench::new().await;
        let worker = bench.worker();
        for mode in [Mode::Once, RETRIED] {
            let (id, _) = bench.send(mode, 21).await;
            assert_eq!(number(&bench.outcome(&id).await), 42);
            bench.until_clean().await;
        }
        assert_eq!(worker.control.stats().done, 2);
        worker.control.drain();
        worker.end().await.unwrap();
    });
}
