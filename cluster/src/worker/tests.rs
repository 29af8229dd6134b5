//! A worker on the in-memory broker, with a virtual clock and a simulated runner.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futurepool::{Bytes, EncodedCall, JoinError, TaskJob, task, tasks};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::{Control, Core, Failure, Options, Runner, Running};
use crate::broker::memory::{Memory, MemoryBroker};
use crate::broker::{Broker, Inbox, Outgoing, Store};
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
            console: None,
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

fn held_by(by: &str, seq: u64) -> Claim {
    Claim {
        state: ClaimState::Held,
        by: by.into(),
        nonce: 5,
        seq,
        returns: 0,
    }
}

/// Says that a peer has left, so that it is dead at once.
async fn leave(bench: &Bench, key: &str) {
    let farewell = LiveValue::farewell(key);
    bench.me.publish(Store::Live, farewell).await.unwrap();
}

/// A worker that lives, and says of each job whether it holds it. Counts the questions.
async fn peer(bench: &Bench, holds: bool) -> Rc<Cell<u32>> {
    bench.keep_alive("w.fake");
    let asked = Rc::new(Cell::new(0));
    let (count, broker) = (Rc::clone(&asked), bench.me.clone());
    let mut inbox = broker.inbox(&[names::control("fake")]).await.unwrap();
    spawn_local(async move {
        loop {
            let notice = inbox.next().await;
            let question = notice::decode(&notice.payload).unwrap();
            assert!(matches!(question, notice::Control::Holds { nonce: 5, .. }));
            count.set(count.get() + 1);
            let reply = notice.reply.unwrap();
            broker.notify_reply(&reply, encode(&holds)).await.unwrap();
        }
    });
    asked
}

#[test]
fn a_claim_of_a_dead_worker_means_lost() {
    simulate(async || {
        let bench = Bench::new().await;
        leave(&bench, "w.gone").await;
        let (id, seq) = bench.send(Mode::Once, 1).await;
        bench.claim(&id, &held_by("w.gone", seq)).await;
        let worker = bench.worker();
        let error = error(bench.outcome(&id).await);
        assert!(error.is_lost() && error.may_have_run());
        assert_eq!(error.worker().as_deref(), Some("gone"));
        bench.until_clean().await;
        assert!(worker.starts().is_empty());
        assert_eq!(worker.control.stats().lost, 1);
    });
}

#[test]
fn a_claim_of_a_silent_worker_means_lost_once_it_is_dead() {
    simulate(async || {
        let bench = Bench::new().await;
        let (id, seq) = bench.send(Mode::Once, 1).await;
        bench.claim(&id, &held_by("w.gone", seq)).await;
        let began = Instant::now();
        let worker = bench.worker();
        assert!(error(bench.outcome(&id).await).is_lost());
        assert!(began.elapsed() >= bench.settings.dead_after());
        bench.until_clean().await;
        assert!(worker.starts().is_empty());
    });
}

#[test]
fn a_claim_of_a_living_holder_is_left_alone() {
    simulate(async || {
        let bench = Bench::new().await;
        let asked = peer(&bench, true).await;
        let (id, seq) = bench.send(Mode::Once, 1).await;
        bench.claim(&id, &held_by("w.fake", seq)).await;
        let worker = bench.worker();
        sleep(LEASE * 3).await;
        assert!(asked.get() > 3);
        assert!(bench.outcomes(&id).await.is_empty() && worker.starts().is_empty());
        assert_eq!(bench.count(Store::Jobs).await, 1);
    });
}

#[test]
fn a_living_holder_that_lost_track_is_asked_twice() {
    simulate(async || {
        let bench = Bench::new().await;
        let asked = peer(&bench, false).await;
        let (id, seq) = bench.send(Mode::Once, 1).await;
        bench.claim(&id, &held_by("w.fake", seq)).await;
        let began = Instant::now();
        let worker = bench.worker();
        assert!(error(bench.outcome(&id).await).is_lost());
        assert_eq!(asked.get(), 2);
        assert!(began.elapsed() >= LEASE / 10);
        bench.until_clean().await;
        assert!(worker.starts().is_empty());
    });
}

#[test]
fn a_worker_says_what_it_holds() {
    simulate(async || {
        let bench = Bench::new().await;
        let sim = Sim::default();
        sim.takes.set(LEASE);
        let worker = bench.worker_that(At::Nothing, sim);
        let (id, _) = bench.send(Mode::Once, 1).await;
        sleep(Duration::from_secs(1)).await;
        let stored = bench.me.last(Store::Claims, &id).await.unwrap().unwrap();
        let nonce = Claim::from_stored(&stored).unwrap().nonce;
        for (asked, answer) in [(nonce, true), (nonce + 1, false)] {
            let question = encode(&notice::Control::Holds {
                job: id.clone(),
                nonce: asked,
            });
            let reply = bench.me.ask("ctl.host-1", question).await.unwrap();
            assert_eq!(notice::decode(&reply.unwrap()), Some(answer));
        }
        assert_eq!(worker.starts().len(), 1);
    });
}

#[test]
fn an_earlier_claim_of_the_same_worker_means_lost() {
    simulate(async || {
        let bench = Bench::new().await;
        let (id, seq) = bench.send(Mode::Once, 1).await;
        bench.claim(&id, &held_by("w.host-1", seq)).await;
        let worker = bench.worker();
        assert!(error(bench.outcome(&id).await).is_lost());
        bench.until_clean().await;
        assert!(worker.starts().is_empty());
    });
}

#[test]
fn a_malformed_claim_means_lost() {
    simulate(async || {
        let bench = Bench::new().await;
        let (id, _) = bench.send(Mode::Once, 1).await;
        let message = Outgoing {
            subject: id.clone(),
            payload: "nonsense".into(),
            ..Outgoing::default()
        };
        bench.me.publish(Store::Claims, message).await.unwrap();
        let worker = bench.worker();
        assert!(error(bench.outcome(&id).await).is_lost());
        bench.until_clean().await;
        assert!(worker.starts().is_empty());
    });
}

fn written(state: ClaimState, by: &str) -> Claim {
    Claim {
        state,
        ..held_by(by, 0)
    }
}

#[test]
fn c6_a_job_with_a_never_claim_never_starts() {
    simulate(async || {
        for (dead, detached) in [(false, false), (true, false), (false, true), (true, true)] {
            let bench = Bench::new().await;
            if dead {
                leave(&bench, "c.writer").await;
            } else {
                bench.keep_alive("c.writer");
            }
            let mut job = bench.job(Mode::Once, encoded(double::call(1)));
            let kept = Kept::Pending {
                id: job.id.clone(),
                client: CLIENT.into(),
                task: "double".into(),
                version: 1,
                signature: 0,
                seq: None,
            };
            if detached {
                job.key = Some("order".into());
                let message = kept.to_outgoing("order", 0);
                bench.me.publish(Store::Kept, message).await.unwrap();
            }
            bench
                .claim(&job.id, &written(ClaimState::Never, "c.writer"))
                .await;
            bench.publish("double", &job).await;
            let worker = bench.worker();
            sleep(LEASE * 3).await;
            assert!(worker.starts().is_empty());
            assert!(bench.outcomes(&job.id).await.is_empty());
            // A living writer removes what is its own.
            let jobs = u64::from(!dead && detached);
            assert_eq!(bench.count(Store::Jobs).await, jobs);
            assert_eq!(bench.count(Store::Claims).await, u64::from(!dead));
            if detached {
                let subject = names::token("order");
                let stored = bench.me.last(Store::Kept, &subject).await.unwrap();
                let kept = Kept::from_stored(&stored.unwrap()).unwrap();
                match kept {
                    Kept::Pending { .. } => assert!(!dead),
                    Kept::Ended { outcome, .. } => {
                        assert!(dead);
                        let error = error(outcome.verdict);
                        assert!(error.is_cancelled() && !error.may_have_run());
                    }
                }
            }
            worker.kill();
        }
    });
}

#[test]
fn a_lost_claim_is_left_to_its_writer_while_that_lives() {
    simulate(async || {
        let bench = Bench::new().await;
        let writer = bench.keep_alive("c.writer");
        let (id, _) = bench.send(Mode::Once, 1).await;
        bench
            .claim(&id, &written(ClaimState::Lost, "c.writer"))
            .await;
        let worker = bench.worker();
        sleep(LEASE * 2).await;
        assert!(bench.outcomes(&id).await.is_empty());
        assert_eq!(bench.count(Store::Jobs).await, 1);
        writer.abort();
        assert!(error(bench.outcome(&id).await).is_lost());
        bench.until_clean().await;
        assert!(worker.starts().is_empty());
    });
}

const STEPS: [&str; 8] = [
    "delivered",
    "claimed",
    "looked",
    "started",
    "ran",
    "stored",
    "removed",
    "released",
];

/// The first worker is killed or stopped at a step, the second one takes over.
async fn two_workers(mode: Mode, at: At) -> (Bench, String, Process, Process) {
    let bench = Bench::new().await;
    let (id, _) = bench.send(mode, 21).await;
    let first = bench.worker_that(at, Sim::default());
    sleep(Duration::from_secs(1)).await;
    let second = bench.worker();
    (bench, id, first, second)
}

#[test]
fn c2_a_default_job_starts_once_if_its_worker_is_killed_at_any_step() {
    simulate(async || {
        for step in STEPS {
            let (bench, id, first, second) = two_workers(Mode::Once, At::Kill(step)).await;
            let verdict = bench.outcome(&id).await;
            let starts = first.starts().len() + second.starts().len();
            match step {
                // Nothing was claimed, so another worker may run it.
                "delivered" => assert_eq!((number(&verdict), second.starts().len()), (42, 1)),
                "claimed" | "looked" | "started" | "ran" => {
                    let error = error(verdict);
                    assert!(error.is_lost() && error.may_have_run(), "{step}");
                    assert!(second.starts().is_empty(), "{step}");
                }
                _ => assert_eq!((number(&verdict), starts), (42, 1)),
            }
            assert!(starts <= 1, "{step}");
            sleep(LEASE * 3).await;
            assert_eq!(bench.count(Store::Jobs).await, 0, "{step}");
            assert!(first.starts().len() + second.starts().len() <= 1, "{step}");
            second.kill();
        }
    });
}

#[test]
fn c2_a_default_job_starts_once_if_its_worker_is_stopped_at_any_step() {
    simulate(async || {
        for step in STEPS {
            let (bench, id, first, second) = two_workers(Mode::Once, At::Stop(step)).await;
            let verdict = bench.outcome(&id).await;
            sleep(LEASE * 3).await;
            first.resume();
            sleep(LEASE * 3).await;
            let starts = first.starts().len() + second.starts().len();
            match step {
                "claimed" => assert!(error(verdict).is_lost() && starts == 0),
                // It knows that its key was not written for long.
                "looked" | "started" => assert!(error(verdict).is_lost() && starts <= 1),
                // It goes on. Its outcome is the second one.
                "ran" => {
                    assert!(error(verdict).is_lost() && starts == 1);
                    assert!(second.starts().is_empty());
                }
                _ => assert_eq!((number(&verdict), starts), (42, 1), "{step}"),
            }
            assert_eq!(bench.count(Store::Jobs).await, 0, "{step}");
            assert_eq!(bench.count(Store::Claims).await, 0, "{step}");
            first.kill();
            second.kill();
        }
    });
}

#[test]
fn c3_an_idempotent_job_returns_if_its_worker_is_killed_or_stopped_at_any_step() {
    simulate(async || {
        for step in STEPS {
            for at in [At::Kill(step), At::Stop(step)] {
                let (bench, id, first, second) = two_workers(RETRIED, at).await;
                assert_eq!(number(&bench.outcome(&id).await), 42, "{step}");
                sleep(LEASE * 3).await;
                first.resume();
                sleep(LEASE * 3).await;
                assert_eq!(bench.count(Store::Jobs).await, 0, "{step}");
                for outcome in bench.outcomes(&id).await {
                    assert_eq!(number(&outcome.verdict), 42, "{step}");
                }
                assert!(first.starts().len() <= 1 && second.starts().len() <= 1);
                first.kill();
                second.kill();
            }
        }
    });
}

#[test]
fn c3_an_idempotent_job_that_kills_its_workers_is_lost_after_its_attempts() {
    simulate(async || {
        let bench = Bench::new().await;
        let (id, _) = bench.send(RETRIED, 1).await;
        for _ in 0..3 {
            let worker = bench.worker_that(At::Kill("started"), Sim::default());
            let ended = timeout(LEASE * 3, worker.task).await;
            assert!(ended.is_ok(), "each attempt kills a worker");
        }
        let worker = bench.worker();
        let error = error(bench.outcome(&id).await);
        assert!(error.is_lost() && error.may_have_run());
        assert!(worker.starts().is_empty());
        bench.until_clean().await;
    });
}

#[test]
fn a_job_that_is_ten_times_as_long_as_its_lease_starts_once() {
    simulate(async || {
        for mode in [Mode::Once, RETRIED] {
            let mut bench = Bench::new().await;
            // The busy worker has no open request, so only the other worker can get the job.
            bench.slots = 1;
            let long = || {
                let sim = Sim::default();
                sim.takes.set(LEASE * 10);
                sim
            };
            let workers = [(); 2].map(|()| bench.worker_that(At::Nothing, long()));
            let (id, _) = bench.send(mode, 21).await;
            assert_eq!(number(&bench.outcome(&id).await), 42);
            let starts: usize = workers.iter().map(|worker| worker.starts().len()).sum();
            assert_eq!(starts, 1);
            bench.until_clean().await;
            workers.iter().for_each(Process::kill);
        }
    });
}

#[test]
fn a_job_that_comes_again_while_it_runs_starts_once() {
    simulate(async || {
        for mode in [Mode::Once, Mode::Idempotent { attempts: 1 }] {
            let bench = Bench::new().await;
            let sim = Sim::default();
            sim.takes.set(LEASE * 5);
            let worker = bench.worker_that(At::Nothing, sim);
            let (id, _) = bench.send(mode, 21).await;
            sleep(Duration::from_secs(1)).await;
            for _ in 0..2 {
                worker.stopped.set(true);
                sleep(LEASE * 3 / 2).await;
                worker.resume();
                sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(number(&bench.outcome(&id).await), 42);
            assert_eq!(worker.starts().len(), 1);
            assert_eq!(bench.outcomes(&id).await.len(), 1);
            sleep(LEASE).await;
            assert_eq!(bench.count(Store::Jobs).await, 0);
            assert_eq!(bench.count(Store::Claims).await, 0);
            worker.kill();
        }
    });
}

#[test]
fn a_job_that_came_again_to_its_holder_has_not_started_again() {
    simulate(async || {
        let bench = Bench::new().await;
        let sim = Sim::default();
        sim.takes.set(LEASE * 100);
        let first = bench.worker_that(At::Nothing, sim);
        let (id, _) = bench.send(Mode::Idempotent { attempts: 2 }, 21).await;
        sleep(Duration::from_secs(1)).await;
        for _ in 0..3 {
            first.stopped.set(true);
            sleep(LEASE * 3 / 2).await;
            first.resume();
            sleep(Duration::from_secs(1)).await;
        }
        first.kill();
        let second = bench.worker();
        assert_eq!(number(&bench.outcome(&id).await), 42);
        assert_eq!((first.starts().len(), second.starts().len()), (1, 1));
        bench.until_clean().await;
    });
}

#[test]
fn a_second_copy_of_a_job_that_is_held_is_removed() {
    simulate(async || {
        let bench = Bench::new().await;
        let sim = Sim::default();
        sim.takes.set(LEASE * 3);
        let worker = bench.worker_that(At::Nothing, sim);
        let job = bench.job(RETRIED, encoded(double::call(21)));
        bench.publish("double", &job).await;
        sleep(Duration::from_secs(1)).await;
        // The server has forgotten the id of the first.
        let mut copy = job.to_outgoing(&names::job_subject("default", "double", 1));
        copy.id = None;
        bench.me.publish(Store::Jobs, copy).await.unwrap();
        sleep(LEASE * 2).await;
        assert_eq!(bench.count(Store::Jobs).await, 1);
        assert_eq!(number(&bench.outcome(&job.id).await), 42);
        bench.until_clean().await;
        assert_eq!(worker.starts().len(), 1);
    });
}

#[test]
fn a_drain_finishes_what_runs_and_gives_back_the_rest() {
    simulate(async || {
        for mode in [Mode::Once, Mode::Idempotent { attempts: 1 }] {
            let bench = Bench::new().await;
            let slow = || {
                let sim = Sim::default();
                sim.takes.set(Duration::from_secs(5));
                sim
            };
            let mut ids = Vec::new();
            for _ in 0..10 {
                ids.push(bench.send(mode, 21).await.0);
            }
            let first = bench.worker_that(At::Nothing, slow());
            sleep(Duration::from_secs(1)).await;
            let began = Instant::now();
            first.control.drain();
            let sim = Rc::clone(&first.sim);
            first.end().await.unwrap();
            // A lease that nothing gave back would be longer.
            assert!(began.elapsed() < Duration::from_secs(10));
            assert_eq!(sim.starts.borrow().len(), 2);
            let second = bench.worker_that(At::Nothing, slow());
            for id in &ids {
                assert_eq!(number(&bench.outcome(id).await), 42);
            }
            assert!(began.elapsed() < Duration::from_secs(60));
            bench.until_clean().await;
            assert_eq!(second.starts().len(), 8);
            assert_eq!(second.control.stats().lost, 0);
            second.kill();
        }
    });
}

#[test]
fn a_drain_under_load_loses_nothing() {
    simulate(async || {
        for mode in [Mode::Once, Mode::Idempotent { attempts: 1 }] {
            let bench = Bench::new().await;
            let quick = || {
                let sim = Sim::default();
                sim.takes.set(Duration::from_millis(3));
                sim
            };
            let mut ids = Vec::new();
            for _ in 0..300 {
                ids.push(bench.send(mode, 21).await.0);
            }
            for turn in 0..8 {
                let worker = bench.worker_that(At::Nothing, quick());
                sleep(Duration::from_millis(20 + turn)).await;
                worker.control.drain();
                worker.end().await.unwrap();
            }
            let last = bench.worker_that(At::Nothing, quick());
            for id in &ids {
                assert_eq!(number(&bench.outcome(id).await), 42);
                assert_eq!(bench.outcomes(id).await.len(), 1);
            }
            bench.until_clean().await;
            last.kill();
        }
    });
}

#[test]
fn a_drain_whose_grace_is_over_stops_what_runs() {
    simulate(async || {
        for (mode, stubborn) in [(Mode::Once, false), (RETRIED, false), (Mode::Once, true)] {
            let bench = Bench::new().await;
            let sim = Sim::default();
            sim.takes.set(LEASE * 100);
            sim.stubborn.set(stubborn);
            let worker = bench.worker_that(At::Nothing, sim);
            let (id, _) = bench.send(mode, 21).await;
            sleep(Duration::from_secs(1)).await;
            let began = Instant::now();
            worker.control.drain();
            worker.end().await.unwrap();
            let took = began.elapsed();
            assert!(
                took >= bench.grace && took < bench.grace + LEASE,
                "{took:?}"
            );
            if mode == Mode::Once && !stubborn {
                let error = error(bench.outcome(&id).await);
                assert!(error.is_lost() && error.may_have_run());
                continue;
            }
            assert!(bench.outcomes(&id).await.is_empty());
            let second = bench.worker();
            let verdict = bench.outcome(&id).await;
            match mode {
                Mode::Once => assert!(error(verdict).is_lost()),
                Mode::Idempotent { .. } => assert_eq!(number(&verdict), 42),
            }
            second.kill();
        }
    });
}

#[test]
fn a_stop_does_not_wait_for_the_grace() {
    simulate(async || {
        let bench = Bench::new().await;
        let sim = Sim::default();
        sim.takes.set(LEASE * 100);
        let worker = bench.worker_that(At::Nothing, sim);
        bench.send(Mode::Once, 21).await;
        sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        worker.control.stop();
        worker.end().await.unwrap();
        assert!(began.elapsed() < bench.grace / 2);
    });
}

#[test]
fn a_notice_drains_a_worker() {
    simulate(async || {
        let bench = Bench::new().await;
        let worker = bench.worker();
        sleep(Duration::from_secs(1)).await;
        let drain = encode(&notice::Control::Drain);
        bench.me.notify("ctl.host-1", drain).await.unwrap();
        worker.end().await.unwrap();
        let stored = bench.me.last(Store::Live, "w.host-1").await.unwrap();
        assert!(stored.is_none_or(|stored| stored.is_deletion()));
    });
}

#[test]
fn a_worker_whose_executor_is_broken_gives_its_jobs_back_and_ends() {
    simulate(async || {
        for mode in [Mode::Once, Mode::Idempotent { attempts: 1 }] {
            let bench = Bench::new().await;
            let (id, _) = bench.send(mode, 21).await;
            let sim = Sim::default();
            sim.broken.set(true);
            let worker = bench.worker_that(At::Nothing, sim);
            let error = worker.end().await.unwrap_err();
            assert!(matches!(&error, Failure::Broken(text) if text.contains("no such program")));
            assert!(bench.outcomes(&id).await.is_empty());
            let second = bench.worker();
            assert_eq!(number(&bench.outcome(&id).await), 42);
            bench.until_clean().await;
            second.kill();
        }
    });
}

#[test]
fn a_job_whose_deadline_has_passed_does_not_start() {
    simulate(async || {
        let bench = Bench::new().await;
        let mut job = bench.job(Mode::Once, encoded(double::call(1)));
        job.deadline = Some(Duration::from_secs(10));
        bench.publish("double", &job).await;
        sleep(Duration::from_secs(60)).await;
        let worker = bench.worker();
        let error = error(bench.outcome(&job.id).await);
        assert!(error.is_expired() && !error.may_have_run());
        assert!(worker.starts().is_empty());
        bench.until_clean().await;
    });
}

#[test]
fn an_error_of_a_later_attempt_says_that_the_job_may_have_run() {
    simulate(async || {
        let bench = Bench::new().await;
        let mut job = bench.job(RETRIED, encoded(double::call(1)));
        job.deadline = Some(Duration::from_secs(10));
        bench.publish("double", &job).await;
        let first = bench.worker_that(At::Kill("ran"), Sim::default());
        let _ = first.task.await;
        let worker = bench.worker();
        let error = error(bench.outcome(&job.id).await);
        assert!(error.is_expired() && error.may_have_run());
        assert!(worker.starts().is_empty());
    });
}

#[test]
fn a_job_whose_submitter_is_gone_is_dropped() {
    simulate(async || {
        let bench = Bench::new().await;
        leave(&bench, "c.bob").await;
        for mode in [Mode::Once, RETRIED] {
            let mut job = bench.job(mode, encoded(double::call(1)));
            job.client = "bob".into();
            bench.publish("double", &job).await;
            let worker = bench.worker();
            assert!(matches!(bench.outcome(&job.id).await, Verdict::Dropped));
            bench.until_clean().await;
            assert!(worker.starts().is_empty());
            assert_eq!(worker.control.stats().dropped, 1);
            worker.kill();
        }
    });
}

#[test]
fn a_running_job_whose_submitter_is_gone_is_asked_to_end() {
    simulate(async || {
        let bench = Bench::new().await;
        let sim = Sim::default();
        sim.takes.set(LEASE * 100);
        let worker = bench.worker_that(At::Nothing, sim);
        let mut job = bench.job(Mode::Once, encoded(double::call(1)));
        job.client = "bob".into();
        let alive = bench.keep_alive("c.bob");
        bench.publish("double", &job).await;
        sleep(LEASE * 3).await;
        assert_eq!(worker.sim.running.get().0, 1);
        alive.abort();
        leave(&bench, "c.bob").await;
        sleep(LEASE).await;
        assert_eq!(worker.sim.running.get().0, 0);
    });
}

#[test]
fn a_cancel_reaches_a_job_that_runs() {
    simulate(async || {
        let bench = Bench::new().await;
        let sim = Sim::default();
        sim.takes.set(LEASE * 100);
        let _worker = bench.worker_that(At::Nothing, sim);
        let (id, _) = bench.send(Mode::Once, 1).await;
        sleep(Duration::from_secs(1)).await;
        let cancel = encode(&notice::Control::Cancel { job: id.clone() });
        bench.me.notify("ctl.all", cancel).await.unwrap();
        let error = error(bench.outcome(&id).await);
        assert!(error.is_cancelled() && error.may_have_run());
        bench.until_clean().await;
    });
}

#[test]
fn another_signature_and_poisoned_arguments_are_refused() {
    simulate(async || {
        let bench = Bench::new().await;
        let worker = bench.worker();
        let mut job = bench.job(Mode::Once, encoded(double::call(1)));
        job.signature = 12345;
        bench.publish("double", &job).await;
        let refused = error(bench.outcome(&job.id).await);
        assert!(refused.is_refused() && !refused.may_have_run());

        for bytes in [
            vec![],
            vec![255; 100],
            encoded(panics::call("text".into())).1,
        ] {
            for mode in [Mode::Once, RETRIED] {
                let job = bench.job(mode, ("double", bytes.clone()));
                bench.publish("double", &job).await;
                let refused = error(bench.outcome(&job.id).await);
                assert!(refused.is_codec() && !refused.may_have_run(), "{refused}");
            }
        }
        let job = bench.job(Mode::Once, encoded(panics::call("boom".into())));
        bench.publish("panic", &job).await;
        let panic = error(bench.outcome(&job.id).await);
        assert!(panic.is_panic() && panic.to_string().contains("boom"));
        bench.until_clean().await;
        assert_eq!(worker.control.stats().failed, 8);
    });
}

#[test]
fn a_message_that_names_no_job_is_removed() {
    simulate(async || {
        let bench = Bench::new().await;
        let worker = bench.worker();
        let subject = names::job_subject("default", "double", 1);
        let mut malformed = bench.job(Mode::Once, encoded(double::call(1)));
        malformed.id = "a b".into();
        bench.publish("double", &malformed).await;
        let message = Outgoing {
            subject: subject.clone(),
            ..Outgoing::default()
        };
        bench.me.publish(Store::Jobs, message).await.unwrap();
        // It has a sender, so the sender is told.
        let job = bench.job(Mode::Once, encoded(double::call(1)));
        let mut message = job.to_outgoing(&subject);
        message.headers.push(("Fp-Deadline".into(), "soon".into()));
        bench.me.publish(Store::Jobs, message).await.unwrap();
        assert!(error(bench.outcome(&job.id).await).is_codec());
        bench.until_clean().await;
        assert!(worker.starts().is_empty());
    });
}

#[test]
fn large_arguments_and_outputs_travel_as_blobs() {
    simulate(async || {
        let bench = Bench::new().await;
        let _worker = bench.worker();
        let mut job = bench.job(Mode::Once, encoded(fill::call(1 << 20)));
        let Body::Inline(arguments) = job.body.clone() else {
            unreachable!();
        };
        bench.me.put_blob("a.1", arguments).await.unwrap();
        job.body = Body::Blob("a.1".into());
        bench.publish("fill", &job).await;
        let Verdict::Returned(Body::Blob(name)) = bench.outcome(&job.id).await else {
            panic!("not a blob");
        };
        assert!(name.starts_with("r."));
        let blob = bench.me.get_blob(&name, 2 << 20).await.unwrap().unwrap();
        assert!(blob.len() > 1 << 20);
        bench.until_clean().await;
        sleep(Duration::from_secs(1)).await;
        let blobs = bench.me.blobs().await.unwrap();
        assert_eq!(blobs.len(), 1, "the arguments are gone");

        let job = JobMessage {
            id: format!("{CLIENT}-x"),
            ..job
        };
        bench.publish("fill", &job).await;
        let missing = error(bench.outcome(&job.id).await);
        assert!(missing.is_codec() && !missing.may_have_run());
    });
}

#[test]
fn an_output_that_is_too_large_is_an_error() {
    simulate(async || {
        let bench = Bench::new().await;
        let _worker = bench.worker();
        let job = bench.job(Mode::Once, encoded(fill::call(64 << 20)));
        bench.publish("fill", &job).await;
        let error = error(bench.outcome(&job.id).await);
        assert!(error.is_codec() && error.may_have_run());
        bench.until_clean().await;
    });
}

#[test]
fn c4_the_first_kept_outcome_of_a_detached_job_counts() {
    simulate(async || {
        for first in [false, true] {
            let bench = Bench::new().await;
            let mut job = bench.job(Mode::Once, encoded(double::call(21)));
            job.key = Some("order 17".into());
            let kept = match first {
                false => Kept::Pending {
                    id: job.id.clone(),
                    client: CLIENT.into(),
                    task: "double".into(),
                    version: 1,
                    signature: 0,
                    seq: None,
                },
                true => Kept::Ended {
                    task: "double".into(),
                    version: 1,
                    signature: 0,
                    outcome: Outcome {
                        id: job.id.clone(),
                        by: "w.other".into(),
                        verdict: Verdict::Failed(futurepool::ErrorReport::new(
                            "double",
                            &JoinError::expired("double"),
                        )),
                    },
                },
            };
            let message = kept.to_outgoing("order 17", 0);
            bench.me.publish(Store::Kept, message).await.unwrap();
            // Its submitter is gone, and that does not matter.
            leave(&bench, "c.alice").await;
            bench.publish("double", &job).await;
            let worker = bench.worker();
            let told = bench.outcome(&job.id).await;
            let subject = names::token("order 17");
            let stored = bench.me.last(Store::Kept, &subject).await.unwrap();
            let Kept::Ended { outcome, .. } = Kept::from_stored(&stored.unwrap()).unwrap() else {
                panic!("still pending");
            };
            for verdict in [told, outcome.verdict] {
                match first {
                    false => assert_eq!(number(&verdict), 42),
                    true => assert!(error(verdict).is_expired()),
                }
            }
            bench.until_clean().await;
            worker.kill();
        }
    });
}

#[test]
fn a_submitter_hears_of_a_job_that_runs_for_a_while() {
    simulate(async || {
        let bench = Bench::new().await;
        let subject = names::events(CLIENT);
        let mut inbox = bench.me.inbox(&[subject]).await.unwrap();
        let worker = bench.worker();
        let (short, _) = bench.send(Mode::Once, 1).await;
        bench.outcome(&short).await;
        worker.sim.takes.set(Duration::from_secs(1));
        let (long, _) = bench.send(Mode::Once, 1).await;
        let notice = timeout(LEASE, inbox.next()).await.unwrap();
        let event = notice::decode(&notice.payload);
        let worker = "host-1".to_owned();
        assert_eq!(event, Some(notice::Event::Started { job: long, worker }));
    });
}

struct Many<const N: usize>;

const NAMES: [&str; 20] = [
    "t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9", "t10", "t11", "t12", "t13", "t14",
    "t15", "t16", "t17", "t18", "t19",
];

impl<const N: usize> futurepool::Task for Many<N> {
    const NAME: &'static str = NAMES[N];
    type Args = ();
    type Output = ();

    fn run((): ()) {}
}

#[test]
fn c8_a_worker_holds_at_most_twice_its_slots() {
    simulate(async || {
        for (mode, takes) in [(Mode::Once, 300), (RETRIED, 300), (Mode::Once, 1)] {
            let mut bench = Bench::new().await;
            bench.tasks = tasks![
                Many<0>,
                Many<1>,
                Many<2>,
                Many<3>,
                Many<4>,
                Many<5>,
                Many<6>,
                Many<7>,
                Many<8>,
                Many<9>,
                Many<10>,
                Many<11>,
                Many<12>,
                Many<13>,
                Many<14>,
                Many<15>,
                Many<16>,
                Many<17>,
                Many<18>,
                Many<19>,
            ];
            let sim = Sim::default();
            sim.takes.set(Duration::from_millis(takes));
            let worker = bench.worker_that(At::Nothing, sim);
            sleep(Duration::from_secs(1)).await;
            let mut ids = Vec::new();
            for turn in 0..100 {
                let job = bench.job(mode, encoded(futurepool::Call::<Many<0>>::new(())));
                bench.publish(NAMES[turn % 20], &job).await;
                ids.push(job.id);
            }
            for id in &ids {
                assert!(matches!(bench.outcome(id).await, Verdict::Returned(_)));
            }
            let stats = worker.control.stats();
            assert!(stats.most_held <= 4, "{stats:?}");
            assert!(stats.most_held > 2, "{stats:?}");
            assert_eq!(worker.sim.running.get(), (0, 2));
            bench.until_clean().await;
            worker.kill();
        }
    });
}

#[test]
fn a_detached_job_with_a_never_claim_goes_once_its_key_names_another_job() {
    simulate(async || {
        let bench = Bench::new().await;
        bench.keep_alive("c.writer");
        let mut job = bench.job(Mode::Once, encoded(double::call(1)));
        job.key = Some("order".into());
        let kept = |id: &str| Kept::Pending {
            id: id.into(),
            client: CLIENT.into(),
            task: "double".into(),
            version: 1,
            signature: 0,
            seq: None,
        };
        let message = kept(&job.id).to_outgoing("order", 0);
        let seq = bench.me.publish(Store::Kept, message).await.unwrap();
        bench
            .claim(&job.id, &written(ClaimState::Never, "c.writer"))
            .await;
        bench.publish("double", &job).await;
        let worker = bench.worker();
        sleep(LEASE * 2).await;
        assert_eq!(bench.count(Store::Jobs).await, 1);
        let message = kept("alice-99").to_outgoing("order", seq);
        bench.me.publish(Store::Kept, message).await.unwrap();
        sleep(LEASE).await;
        assert_eq!(bench.count(Store::Jobs).await, 0);
        assert_eq!(bench.count(Store::Claims).await, 1);
        assert!(worker.starts().is_empty());
    });
}

#[test]
fn a_claim_outlives_its_message_where_replicas_may_lag() {
    simulate(async || {
        let mut bench = Bench::new().await;
        bench.settings.replicas = 3;
        let worker = bench.worker();
        let began = Instant::now();
        let (id, _) = bench.send(Mode::Once, 21).await;
        assert_eq!(number(&bench.outcome(&id).await), 42);
        sleep(LEASE).await;
        assert_eq!(bench.count(Store::Jobs).await, 0);
        assert_eq!(bench.count(Store::Claims).await, 1);
        bench.until_clean().await;
        assert!(began.elapsed() >= bench.settings.claim_grace());

        // A drain does not wait for it.
        let (id, _) = bench.send(Mode::Once, 21).await;
        bench.outcome(&id).await;
        let began = Instant::now();
        worker.control.drain();
        worker.end().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(bench.count(Store::Jobs).await, 0);
    });
}

/// The real runner, on threads.
#[test]
fn jobs_run_in_a_thread_pool() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let bench = Bench::new().await;
        let pool = std::sync::Arc::new(futurepool::ThreadPool::new(2));
        let options = Options {
            id: "threads-1".into(),
            name: "threads/1".into(),
            queue: "default".into(),
            tasks: bench.tasks.clone(),
            slots: 2,
            grace: Duration::from_secs(30),
            settings: bench.settings.clone(),
            seed: 1,
            console: None,
            steps: None,
        };
        let runner = Rc::new(super::ExecutorRunner::new(pool));
        let (core, control) = Core::new(bench.broker.connect("test"), options, runner);
        let ended = spawn_local(core.run());
        for mode in [Mode::Once, RETRIED] {
            let mut ids = Vec::new();
            for n in 0..200 {
                ids.push((n, bench.send(mode, n).await.0));
            }
            for (n, id) in ids {
                assert_eq!(number(&bench.outcome(&id).await), 2 * n);
            }
            bench.until_clean().await;
        }
        let job = bench.job(Mode::Once, encoded(panics::call("boom".into())));
        bench.publish("panic", &job).await;
        assert!(error(bench.outcome(&job.id).await).is_panic());
        // A thread cannot be stopped.
        let mut job = bench.job(Mode::Once, encoded(double::call(1)));
        job.time_limit = Some(Duration::from_secs(1));
        bench.publish("double", &job).await;
        let refused = error(bench.outcome(&job.id).await);
        assert!(refused.is_refused() && !refused.may_have_run());
        control.drain();
        let ended = timeout(LEASE * 2, ended).await.unwrap();
        ended.unwrap().unwrap();
    });
}
