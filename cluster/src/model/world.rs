//! One history: peers, what befalls them, and the quiet time after it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futurepool::{CancelHandle, JoinHandle, tasks};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::judge::{Counts, Function, Judge, Script, ScriptEnd};
use super::pausable::{Pausable, Process};
use super::runner::{self, SimulatedRunner, again, newer, once};
use crate::broker::memory::faults::{ALL_STORES, Params, Peer, Snapshot, trace};
use crate::broker::memory::{Memory, MemoryBroker, Space};
use crate::broker::{Broker, Store};
use crate::protocol::settings::Settings;
use crate::worker;

const NAMESPACE: &str = "model";

/// When the server's clock begins, in each history.
const EPOCH: u64 = 1 << 60;

/// The faults that a history has. Each history has some of them, so that each is also seen alone.
#[derive(Debug, Clone, Copy)]
struct Faults {
    kill_worker: bool,
    kill_at_step: bool,
    stop_worker: bool,
    stop_at_step: bool,
    cut_worker: bool,
    drain: bool,
    kill_client: bool,
    stop_client: bool,
    cut_client: bool,
    restart: bool,
    long_restart: bool,
    full: bool,
    broken: bool,
    roll_back: bool,
    cancel: bool,
    deadline: bool,
    detached: bool,
    deadly_jobs: bool,
}

impl Faults {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        let likely = rng.choice([0.1, 0.3, 0.6]).unwrap_or(0.3);
        let mut some = |factor: f64| rng.f64() < likely * factor;
        Self {
            kill_worker: some(1.0),
            kill_at_step: some(1.0),
            stop_worker: some(1.0),
            stop_at_step: some(1.0),
            cut_worker: some(1.0),
            drain: some(1.0),
            kill_client: some(0.5),
            stop_client: some(1.0),
            cut_client: some(1.0),
            restart: some(1.0),
            long_restart: some(0.5),
            full: some(0.5),
            broken: some(0.3),
            roll_back: some(0.3),
            cancel: some(1.5),
            deadline: some(1.0),
            detached: some(1.0),
            deadly_jobs: some(0.7),
        }
    }
}

fn network(rng: &mut fastrand::Rng) -> Params {
    let ms = Duration::from_millis;
    let calm = Params {
        delay: ms(rng.u64(1..20)),
        ..Params::default()
    };
    match rng.u32(0..4) {
        0 => calm,
        1 => Params {
            is_slow: 0.05,
            long_delay: ms(rng.u64(100..4000)),
            duplicate: 0.1,
            lose_notice: 0.1,
            is_late: 0.5,
            late: ms(rng.u64(100..20_000)),
            ..calm
        },
        2 => Params {
            delay: ms(200),
            is_slow: 0.1,
            long_delay: ms(6000),
            is_late: 0.3,
            late: ms(5000),
            lose_notice: 0.5,
            ..calm
        },
        _ => Params {
            lose_request: 0.03,
            lose_answer: 0.05,
            lose_notice: 0.2,
            duplicate: 0.05,
            is_late: 0.3,
            late: ms(10_000),
            ..calm
        },
    }
}

struct WorkerPeer {
    name: String,
    memory: Memory,
    cut_until: Rc<Cell<Instant>>,
    process: Rc<Process>,
    control: Rc<RefCell<Option<worker::Control>>>,
    broken: Rc<Cell<bool>>,
    /// What happens at the next step of this name.
    trap: Rc<RefCell<Option<(&'static str, Trap)>>>,
    slots: usize,
}

#[derive(Debug, Clone, Copy)]
enum Trap {
    Kill,
    Stop(Duration),
}

struct ClientPeer {
    name: String,
    memory: Memory,
    cut_until: Rc<Cell<Instant>>,
    process: Rc<Process>,
    client: Client,
    /// It was cut off or stopped.
    was_away: bool,
    /// The server has lost a job that it had confirmed to this submitter.
    must_report: bool,
    index: usize,
    window: usize,
}

struct World {
    rng: fastrand::Rng,
    faults: Faults,
    params: Params,
    settings: Settings,
    broker: MemoryBroker,
    judge: Rc<RefCell<Judge>>,
    workers: Vec<WorkerPeer>,
    clients: Vec<ClientPeer>,
    cancels: Vec<CancelHandle>,
    names: usize,
    is_down: Rc<Cell<bool>>,
    snapshot: Option<Snapshot>,
    quiet: bool,
    start: Instant,
    disconnect_limit: Option<Duration>,
    /// How long links were cut or processes stopped, all together.
    away: Duration,
}

/// Runs one history. Returns what happened and what was violated.
pub(super) async fn run(seed: u64) -> (Counts, Vec<String>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let faults = Faults::draw(&mut rng);
    let settings = Settings {
        queue_bytes: 1 << 20,
        ..Settings::default()
    };
    let judge = Rc::new(RefCell::new(Judge::default()));
    runner::set_judge(Some(Rc::clone(&judge)));
    let params = network(&mut rng);
    let disconnect_limit = match rng.u32(0..3) {
        0 => Some(Duration::from_secs(rng.u64(30..120))),
        1 => Some(Duration::from_secs(300)),
        _ => None,
    };
    trace(format_args!(
        "seed {seed}: {faults:?} {params:?} limit {disconnect_limit:?}"
    ));
    judge.borrow_mut().is_slow = params.is_slow > 0.0 || params.is_late > 0.0;
    judge.borrow_mut().may_lose_submitters =
        faults.kill_client || faults.stop_client || faults.cut_client;
    let broker = MemoryBroker::new();
    broker.with_space(NAMESPACE, |space| space.set_epoch(EPOCH));
    let mut world = World {
        rng,
        faults,
        params,
        settings,
        broker,
        judge: Rc::clone(&judge),
        workers: Vec::new(),
        clients: Vec::new(),
        cancels: Vec::new(),
        names: 0,
        is_down: Rc::default(),
        snapshot: None,
        quiet: false,
        start: Instant::now(),
        disconnect_limit,
        away: Duration::ZERO,
    };
    let start = Instant::now();
    world.faulty_time().await;
    world.quiet_time().await;
    let mut judge = judge.borrow_mut();
    judge.counts.seconds = start.elapsed().as_secs();
    (judge.counts, std::mem::take(&mut judge.violations))
}

impl World {
    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from..to))
    }

    /// Draws a time that is short, about a lease, or long.
    fn some_time(&mut self) -> Duration {
        match self.rng.u32(0..3) {
            0 => self.millis(50, 6_000),
            1 => self.millis(6_000, 40_000),
            _ => self.millis(40_000, 130_000),
        }
    }

    fn connect(&mut self, name: &str) -> Memory {
        let (seed, up) = (self.rng.u64(..), !self.is_down.get());
        let params = match self.quiet {
            true => CALM,
            false => self.params,
        };
        let memory = self
            .broker
            .connect_with_faults(NAMESPACE, name, seed, params, up);
        self.heal_when_up(&memory);
        memory
    }

    /// Starts a worker. A server that is down comes back, so what was started meanwhile connects.
    fn start_worker(&mut self) {
        self.names += 1;
        let name = format!("w{}", self.names);
        let memory = self.connect(&name);
        let process = Rc::new(Process::default());
        let control = Rc::new(RefCell::new(None));
        let broken = Rc::new(Cell::new(false));
        let trap = Rc::new(RefCell::new(None::<(&'static str, Trap)>));
        let slots = self.rng.usize(1..4);
        let tasks = match self.quiet || self.rng.bool() {
            true => tasks![once, again, newer],
            false => tasks![once, again],
        };
        let simulated = Rc::new(SimulatedRunner {
            judge: Rc::clone(&self.judge),
            process: Rc::clone(&process),
            broken: Rc::clone(&broken),
            tasks: tasks
                .iter()
                .map(|entry| (entry.name(), entry.version()))
                .collect(),
        });
        let steps = {
            let (trap, process) = (Rc::clone(&trap), Rc::clone(&process));
            let memory = memory.clone();
            move |step: &'static str, job: &str| {
                trace(format_args!("step {step} of {job}"));
                let hit = trap.borrow().filter(|(name, _)| *name == step);
                let Some((_, what)) = hit else { return };
                trap.replace(None);
                trace(format_args!("{what:?} at {step}"));
                match what {
                    Trap::Kill => {
                        // Nothing that follows the step is sent.
                        memory.kill();
                        process.kill();
                    }
                    Trap::Stop(time) => stop_for(&process, time),
                }
            }
        };
        let grace = match self.rng.bool() {
            true => Duration::from_secs(30),
            false => Duration::from_secs(3),
        };
        let seed = self.rng.u64(..);
        let (broker, settings) = (memory.clone(), self.settings.clone());
        let shared_control = Rc::clone(&control);
        let id = name.clone();
        let run = async move {
            let settings = stores(&broker, &settings).await;
            let options = worker::Options {
                id: id.clone(),
                name: id,
                queue: "default".to_owned(),
                tasks,
                slots,
                grace,
                settings,
                seed,
                console: None,
                steps: Some(Rc::new(steps)),
            };
            let (core, control) = worker::Core::new(broker, options, simulated);
            shared_control.replace(Some(control));
            let ended = core.run().await;
            trace(format_args!("the worker ends: {ended:?}"));
        };
        spawn_local(Pausable::new(&name, &process, run));
        trace(format_args!("worker {name} with {slots} slots starts"));
        self.workers.push(WorkerPeer {
            name,
            memory,
            cut_until: Rc::new(Cell::new(Instant::now())),
            process,
            control,
            broken,
            trap,
            slots,
        });
    }

    fn start_client(&mut self) {
        self.names += 1;
        let name = format!("c{}", self.names);
        let memory = self.connect(&name);
        let process = Rc::new(Process::default());
        let window = self.rng.usize(2..12);
        let seed = self.rng.u64(..);
        let limit = self.disconnect_limit;
        let (client, parts) = Client::new(&name, window, limit, seed, &self.judge);
        let (broker, settings) = (memory.clone(), self.settings.clone());
        let run = async move {
            let settings = stores(&broker, &settings).await;
            let reached = Rc::new(|step: &'static str, job: &str| {
                trace(format_args!("step {step} of {job}"));
            });
            parts.run(broker, settings, reached).await;
            trace(format_args!("the submitter ends"));
        };
        spawn_local(Pausable::new(&name, &process, run));
        trace(format_args!(
            "submitter {name} with a window of {window} starts"
        ));
        self.clients.push(ClientPeer {
            name,
            memory,
            cut_until: Rc::new(Cell::new(Instant::now())),
            process,
            client,
            was_away: false,
            must_report: false,
            index: self.names,
            window,
        });
    }

    // Faults

    async fn faulty_time(&mut self) {
        for _ in 0..self.rng.u32(1..4) {
            self.start_worker();
        }
        for _ in 0..self.rng.u32(1..3) {
            self.start_client();
        }
        let mut jobs = self.rng.u32(2..16);
        let pace = self.rng.choice([300, 3_000, 15_000]).unwrap_or(1000);
        let end = Instant::now() + self.millis(10_000, 200_000);
        while Instant::now() < end {
            let gap = self.millis(0, pace);
            sleep(gap).await;
            if jobs > 0 && self.rng.u32(0..3) > 0 {
                jobs -= 1;
                self.submit();
            } else {
                self.fault();
            }
        }
    }

    fn script(&mut self) -> Script {
        let duration = match self.rng.u32(0..6) {
            0 => Duration::ZERO,
            1 => self.millis(0, 20),
            2 | 3 => self.millis(100, 3_000),
            4 => self.millis(3_000, 30_000),
            _ => self.millis(30_000, 120_000),
        };
        let end = match self.rng.u32(0..12) {
            0 => ScriptEnd::Panics,
            1 if self.faults.deadly_jobs => ScriptEnd::KillsWorker,
            _ => ScriptEnd::Returns,
        };
        Script {
            duration,
            end,
            honours_cancel: self.rng.bool(),
        }
    }

    /// Returns a submitter that lives.
    fn living_client(&mut self) -> Option<usize> {
        let clients = self.clients.iter().enumerate();
        let living = clients.filter(|(_, peer)| peer.process.is_alive());
        let living: Vec<_> = living.map(|(index, _)| index).collect();
        self.rng.choice(living)
    }

    fn living_worker(&mut self) -> Option<usize> {
        let workers = self.workers.iter().enumerate();
        let living = workers.filter(|(_, peer)| peer.process.is_alive());
        let living: Vec<_> = living.map(|(index, _)| index).collect();
        self.rng.choice(living)
    }

    fn submit(&mut self) {
        let Some(index) = self.living_client() else {
            return;
        };
        let script = self.script();
        let function = match self.rng.u32(0..5) {
            0 | 1 => Function::Again,
            2 | 3 => Function::Once,
            _ => Function::Newer,
        };
        let detached = self.faults.detached && self.rng.u32(0..3) == 0;
        let has_deadline = self.faults.deadline && self.rng.u32(0..3) == 0;
        let deadline = has_deadline.then(|| self.millis(10, 60_000));
        let n = self.judge.borrow_mut().add(function, detached, script);
        let key = detached.then(|| format!("key-{n}"));
        let peer = &self.clients[index];
        let _peer = Peer::enter(&peer.name);
        let handle = match function {
            Function::Again => peer.client.submit(again::call(n), key, deadline),
            Function::Once => peer.client.submit(once::call(n), key, deadline),
            Function::Newer => peer.client.submit(newer::call(n), key, deadline),
        };
        let Some(handle) = handle else {
            trace(format_args!("job {n} is not accepted"));
            return;
        };
        self.cancels.push(handle.cancel_handle());
        self.follow(index, n, false, handle);
        let (peer, mut judge) = (&self.clients[index], self.judge.borrow_mut());
        if peer.client.counts().pending > peer.window as u64 {
            judge.violation(format_args!("C8: {} exceeds its window", peer.name));
        }
    }

    /// Tells the judge what becomes of a handle.
    fn follow(&self, client: usize, n: u64, is_attached: bool, handle: JoinHandle<u64>) {
        let judge = Rc::clone(&self.judge);
        let client = self.clients[client].index;
        let number = judge.borrow_mut().on_handle(n, client, is_attached);
        spawn_local(async move {
            let result = handle.await;
            judge.borrow_mut().on_outcome(number, &result);
        });
    }

    fn attach(&mut self) {
        let kept: Vec<(u64, Function)> = {
            let judge = self.judge.borrow();
            let jobs = judge.jobs.iter().enumerate();
            let kept = jobs.filter(|(_, job)| job.detached && job.accepted);
            kept.map(|(n, job)| (n as u64, job.function)).collect()
        };
        let (Some((n, function)), Some(index)) = (self.rng.choice(kept), self.living_client())
        else {
            return;
        };
        let key = format!("key-{n}");
        let client = &self.clients[index].client;
        let handle = match function {
            Function::Again => client.attach::<again>(&key),
            Function::Once => client.attach::<once>(&key),
            Function::Newer => client.attach::<newer>(&key),
        };
        self.follow(index, n, true, handle);
    }

    fn kill_client(&self, index: usize) {
        let peer = &self.clients[index];
        trace(format_args!("{} is killed", peer.name));
        self.judge.borrow_mut().on_client_gone(peer.index);
        peer.memory.kill();
        peer.process.kill();
    }

    fn kill_worker(&self, index: usize) {
        let peer = &self.workers[index];
        trace(format_args!("{} is killed", peer.name));
        self.judge.borrow_mut().may_lose = true;
        peer.memory.kill();
        peer.process.kill();
    }

    /// Cuts a link, for a while.
    fn cut(&mut self, name: &str, memory: &Memory, cut_until: &Rc<Cell<Instant>>) {
        let (time, notices) = (self.some_time(), self.rng.bool());
        trace(format_args!(
            "{name} is cut off for {time:?}, and notices: {notices}"
        ));
        self.limit(time);
        cut_until.set(cut_until.get().max(Instant::now() + time));
        if !memory.is_cut() {
            memory.cut(notices);
        }
        self.heal_after(time, memory, cut_until);
    }

    /// Adds a time without a connection.
    fn limit(&mut self, time: Duration) {
        // What follows each other without a connection between counts together.
        self.away += time + SLACK;
        let away = self.away;
        if self.disconnect_limit.is_some_and(|limit| away > limit) {
            self.judge.borrow_mut().may_disconnect = true;
        }
    }

    /// Heals a link after a while, unless something else keeps it cut.
    fn heal_after(&self, time: Duration, memory: &Memory, cut_until: &Rc<Cell<Instant>>) {
        let (memory, is_down) = (memory.clone(), Rc::clone(&self.is_down));
        let cut_until = Rc::clone(cut_until);
        spawn_local(async move {
            sleep(time).await;
            if Instant::now() >= cut_until.get() && !is_down.get() && memory.is_cut() {
                memory.heal();
                trace(format_args!("a link is healed"));
            }
        });
    }

    /// All links break, and come back after `time`.
    fn server_down(&mut self, time: Duration) {
        if self.is_down.replace(true) {
            return;
        }
        trace(format_args!("the server is down for {time:?}"));
        self.limit(time);
        let workers = self
            .workers
            .iter()
            .map(|peer| (&peer.memory, &peer.cut_until));
        let clients = self
            .clients
            .iter()
            .map(|peer| (&peer.memory, &peer.cut_until));
        for (memory, cut_until) in workers.chain(clients) {
            memory.cut(true);
            let delay = Duration::from_millis(self.rng.u64(1..3000));
            self.heal_after(time + delay, memory, cut_until);
        }
        self.broker.with_space(NAMESPACE, Space::restart);
        let is_down = Rc::clone(&self.is_down);
        spawn_local(async move {
            sleep(time).await;
            is_down.set(false);
            trace(format_args!("the server is up"));
        });
    }

    /// Connects a peer that was started while the server was down, once it is up.
    fn heal_when_up(&self, memory: &Memory) {
        if !self.is_down.get() {
            return;
        }
        let (memory, is_down) = (memory.clone(), Rc::clone(&self.is_down));
        spawn_local(async move {
            while is_down.get() {
                sleep(Duration::from_millis(700)).await;
            }
            if memory.is_cut() {
                memory.heal();
            }
        });
    }

    fn step(&mut self) -> &'static str {
        let steps = [
            "delivered",
            "claimed",
            "looked",
            "started",
            "ran",
            "stored",
            "removed",
            "released",
        ];
        self.rng.choice(steps).unwrap_or("claimed")
    }

    /// One thing goes wrong, of those that go wrong in this history.
    fn fault(&mut self) {
        let faults = self.faults;
        match self.rng.u32(0..18) {
            0 if faults.kill_worker => {
                if let Some(index) = self.living_worker() {
                    self.kill_worker(index);
                }
            }
            1 if faults.kill_at_step => {
                let step = self.step();
                if let Some(index) = self.living_worker() {
                    self.judge.borrow_mut().may_lose = true;
                    self.workers[index].trap.replace(Some((step, Trap::Kill)));
                }
            }
            2 if faults.stop_worker => {
                let time = self.some_time();
                if let Some(index) = self.living_worker() {
                    let peer = &self.workers[index];
                    trace(format_args!("{} is stopped for {time:?}", peer.name));
                    self.judge.borrow_mut().may_lose = true;
                    stop_for(&peer.process, time);
                }
            }
            3 if faults.stop_at_step => {
                let (step, time) = (self.step(), self.some_time());
                if let Some(index) = self.living_worker() {
                    self.judge.borrow_mut().may_lose = true;
                    self.workers[index]
                        .trap
                        .replace(Some((step, Trap::Stop(time))));
                }
            }
            4 if faults.cut_worker => {
                if let Some(index) = self.living_worker() {
                    self.judge.borrow_mut().may_lose = true;
                    let peer = &self.workers[index];
                    let (name, memory) = (peer.name.clone(), peer.memory.clone());
                    let cut_until = Rc::clone(&peer.cut_until);
                    self.cut(&name, &memory, &cut_until);
                }
            }
            5 if faults.drain => {
                if let Some(index) = self.living_worker() {
                    let peer = &self.workers[index];
                    trace(format_args!("{} drains", peer.name));
                    self.judge.borrow_mut().may_lose = true;
                    if let Some(control) = &*peer.control.borrow() {
                        control.drain();
                    }
                }
            }
            6 if faults.kill_client => {
                if let Some(index) = self.living_client() {
                    self.kill_client(index);
                    self.start_client();
                }
            }
            7 if faults.stop_client => {
                let time = self.some_time();
                if let Some(index) = self.living_client() {
                    let peer = &mut self.clients[index];
                    peer.was_away = true;
                    trace(format_args!("{} is stopped for {time:?}", peer.name));
                    if self
                        .disconnect_limit
                        .is_some_and(|limit| time + SLACK > limit)
                    {
                        self.judge.borrow_mut().may_disconnect = true;
                    }
                    stop_for(&peer.process, time);
                }
            }
            8 if faults.cut_client => {
                if let Some(index) = self.living_client() {
                    let peer = &mut self.clients[index];
                    peer.was_away = true;
                    let (name, memory) = (peer.name.clone(), peer.memory.clone());
                    let cut_until = Rc::clone(&peer.cut_until);
                    self.cut(&name, &memory, &cut_until);
                }
            }
            9 if faults.restart => {
                let time = self.millis(100, 5_000);
                self.server_down(time);
            }
            10 if faults.long_restart => {
                let time = self.millis(15_000, 150_000);
                self.server_down(time);
            }
            11 if faults.full => {
                let time = self.millis(1_000, 60_000);
                trace(format_args!("the queue is full for {time:?}"));
                self.broker
                    .with_space(NAMESPACE, |space| space.set_full(Store::Jobs, true));
                let broker = self.broker.clone();
                spawn_local(async move {
                    sleep(time).await;
                    broker.with_space(NAMESPACE, |space| space.set_full(Store::Jobs, false));
                });
            }
            12 if faults.broken => {
                let time = self.millis(100, 20_000);
                if let Some(index) = self.living_worker() {
                    let broken = Rc::clone(&self.workers[index].broken);
                    trace(format_args!(
                        "{} is broken for {time:?}",
                        self.workers[index].name
                    ));
                    broken.set(true);
                    spawn_local(async move {
                        sleep(time).await;
                        broken.set(false);
                    });
                }
            }
            13 if faults.roll_back => self.roll_back(),
            14 | 15 if faults.cancel => {
                if let Some(handle) = self.rng.choice(&self.cancels) {
                    let is_cancelled = handle.cancel();
                    trace(format_args!("cancel: {is_cancelled}"));
                }
            }
            16 if faults.detached => self.attach(),
            17 => {
                let living = self.workers.iter().filter(|peer| peer.process.is_alive());
                if living.count() < 4 {
                    self.start_worker();
                }
            }
            _ => {}
        }
    }

    /// The server comes back with an older state, or with none.
    fn roll_back(&mut self) {
        if self.snapshot.is_none() || self.rng.bool() {
            let snapshot = self.broker.with_space(NAMESPACE, |space| space.snapshot());
            self.snapshot = Some(snapshot);
            return;
        }
        let time = self.millis(100, 30_000);
        self.judge.borrow_mut().rolled_back = true;
        self.server_down(time);
        let (consumers, delete) = (self.rng.bool(), self.rng.u32(0..3) == 0);
        trace(format_args!(
            "roll-back: consumers {consumers}, deleted {delete}"
        ));
        let snapshot = self.snapshot.take();
        let last = match (delete, &snapshot) {
            (false, Some(snapshot)) => snapshot.last(Store::Jobs),
            _ => 0,
        };
        self.expect_reports(last);
        self.broker
            .with_space(NAMESPACE, |space| match (delete, snapshot) {
                (true, _) | (_, None) => ALL_STORES.into_iter().for_each(|store| {
                    space.delete_store(store);
                }),
                (false, Some(snapshot)) => space.roll_back(&snapshot, consumers),
            });
    }

    /// Notes the submitters that must report a roll-back to this sequence: a job of theirs that was
    /// certainly confirmed is lost.
    fn expect_reports(&mut self, last: u64) {
        if self.params.lose_answer > 0.0 || self.params.lose_request > 0.0 {
            return;
        }
        let now = EPOCH + self.start.elapsed().as_nanos() as u64;
        let sure = now - Duration::from_secs(30).as_nanos() as u64;
        let messages = self
            .broker
            .with_space(NAMESPACE, |space| space.messages(Store::Jobs));
        for peer in &mut self.clients {
            let mut lost = messages.iter().filter(|message| {
                message.seq > last
                    && message.time.0 < sure
                    && message.header("Fp-Client") == Some(&peer.name)
            });
            // One that was away might not know that its job was confirmed.
            peer.must_report |= lost.next().is_some() && !peer.was_away;
        }
    }

    // The quiet time

    async fn quiet_time(&mut self) {
        trace(format_args!("the faults stop"));
        self.quiet = true;
        while self.is_down.get() {
            sleep(Duration::from_secs(1)).await;
        }
        let workers = self
            .workers
            .iter()
            .map(|peer| (&peer.memory, &peer.process));
        let clients = self
            .clients
            .iter()
            .map(|peer| (&peer.memory, &peer.process));
        for (memory, process) in workers.chain(clients) {
            memory.set_params(CALM);
            process.resume();
            if process.is_alive() && memory.is_cut() {
                memory.heal();
            }
        }
        for peer in &self.workers {
            peer.broken.set(false);
            peer.trap.replace(None);
        }
        self.broker
            .with_space(NAMESPACE, |space| space.set_full(Store::Jobs, false));
        self.start_worker();

        // C1. A job may kill each worker that runs it, so a new one comes.
        let quiet = Instant::now();
        while !self.judge.borrow().unresolved().is_empty() && quiet.elapsed() < QUIET {
            sleep(Duration::from_secs(1)).await;
            let mut living = self.workers.iter().filter(|peer| peer.process.is_alive());
            if living.next().is_none_or(|_| !self.has_full_worker()) {
                self.start_worker();
            }
        }
        let unresolved = self.judge.borrow().unresolved();
        if !unresolved.is_empty() {
            let text = format_args!("C1: handles of {unresolved:?} do not resolve");
            self.judge.borrow_mut().violation(text);
            return;
        }
        self.nothing_is_left().await;
        self.all_end().await;
    }

    /// Returns whether a worker lives that was started in the quiet time.
    fn has_full_worker(&self) -> bool {
        let last = self.workers.last();
        last.is_some_and(|peer| peer.process.is_running())
    }

    async fn nothing_is_left(&mut self) {
        if self.judge.borrow().rolled_back {
            return;
        }
        let quiet = Instant::now();
        loop {
            let (jobs, claims) = self.broker.with_space(NAMESPACE, |space| {
                (space.messages(Store::Jobs), space.messages(Store::Claims))
            });
            if jobs.is_empty() && claims.is_empty() {
                break;
            }
            if quiet.elapsed() > QUIET {
                let text = format_args!("C7: left behind: {jobs:?} {claims:?}");
                self.judge.borrow_mut().violation(text);
                break;
            }
            sleep(Duration::from_secs(5)).await;
            if !self.has_full_worker() {
                self.start_worker();
            }
        }
    }

    /// The submitters and workers end in order, and their books add up.
    async fn all_end(&mut self) {
        // What was started just now must be there.
        sleep(Duration::from_secs(5)).await;
        for peer in &self.clients {
            if !peer.process.is_alive() {
                continue;
            }
            // Jobs whose handles were dropped end, too.
            let waited = Instant::now();
            while peer.client.counts().pending != 0 && waited.elapsed() < QUIET {
                sleep(Duration::from_secs(1)).await;
            }
            let counts = peer.client.counts();
            self.judge.borrow_mut().counts.reports += u64::from(peer.must_report);
            if peer.must_report && counts.rollbacks == 0 {
                let text = format_args!("{} reports no roll-back", peer.name);
                self.judge.borrow_mut().violation(text);
            }
            if !counts.add_up() || counts.pending != 0 {
                let text = format_args!("the books of {}: {counts:?}", peer.name);
                self.judge.borrow_mut().violation(text);
            }
            peer.client.shutdown();
        }
        let living = |process: &Rc<Process>| process.is_alive();
        for _ in 0..120 {
            if !self.clients.iter().any(|peer| living(&peer.process)) {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        for peer in &self.workers {
            if let Some(control) = &*peer.control.borrow() {
                control.drain();
                let stats = control.stats();
                if stats.most_held > peer.slots as u64 * 2 {
                    let text = format_args!("C8: {} held {} jobs", peer.name, stats.most_held);
                    self.judge.borrow_mut().violation(text);
                }
            }
        }
        for _ in 0..240 {
            if !self.workers.iter().any(|peer| living(&peer.process)) {
                break;
            }
            // One that was stopped while it connected has a control only now.
            for peer in &self.workers {
                if let Some(control) = &*peer.control.borrow() {
                    control.drain();
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
        let workers = self.workers.iter().map(|peer| (&peer.name, &peer.process));
        let clients = self.clients.iter().map(|peer| (&peer.name, &peer.process));
        for (name, process) in workers.chain(clients) {
            if process.is_alive() {
                self.judge
                    .borrow_mut()
                    .violation(format_args!("C1: {name} does not end"));
            }
        }
    }
}

/// How long a job may take to resolve when nothing more goes wrong.
const QUIET: Duration = Duration::from_secs(3600);

/// What a reconnect and its notice take.
const SLACK: Duration = Duration::from_secs(20);

const CALM: Params = Params {
    delay: Duration::from_millis(5),
    is_slow: 0.0,
    long_delay: Duration::ZERO,
    lose_request: 0.0,
    lose_answer: 0.0,
    lose_notice: 0.0,
    duplicate: 0.0,
    is_late: 0.0,
    late: Duration::ZERO,
};

/// Stops a process, and lets it go on later.
fn stop_for(process: &Rc<Process>, time: Duration) {
    process.stop();
    let process = Rc::clone(process);
    spawn_local(async move {
        sleep(time).await;
        process.resume();
    });
}

/// Makes the stores, as what connects does before it starts a core.
async fn stores(broker: &Memory, wanted: &Settings) -> Settings {
    loop {
        match broker.ensure_stores(wanted, true).await {
            Ok(settings) => return settings,
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    }
}
