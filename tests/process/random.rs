//! Whole pools of processes under random operations: jobs that crash, kills from outside, cancels,
//! limits, shutdowns and drops, at random moments.
//!
//! Afterwards each handle must have an outcome that can be explained, the counts must add up, and no
//! process and no descriptor may be left.
//!
//! `FUTUREPOOL_SEED=7` plays round 7 alone. It does the same operations in the same threads, but the
//! system schedules them: play it often, with `FUTUREPOOL_ROUNDS=1000`. Without a seed, that variable
//! sets the number of different rounds.

use std::env;
use std::fs;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{Call, JoinError, JoinHandle, ProcessPool, Task, block_on};

use crate::common::child::{alone, command, is_child};
use crate::common::{LONG, Random, eventually, poll_once};
use crate::jobs;

/// One round. An operation is recorded *before* it is done, so that its effects are never unexpected.
struct World {
    settings: Settings,
    /// What was submitted, and whether it has an outcome.
    jobs: Mutex<Vec<(String, Arc<AtomicBool>)>>,
    faults: Mutex<Vec<String>>,
    /// Some worker was killed from outside.
    killed: AtomicBool,
    /// All queued jobs were cancelled; all running ones, too.
    queue_cancelled: AtomicBool,
    stopped: AtomicBool,
    shut: AtomicBool,
    /// The actors have ended.
    over: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    workers: usize,
    capacity: Option<usize>,
    keep_alive: Option<Duration>,
    limit: Option<Duration>,
    grace: Duration,
    max_jobs: Option<u64>,
    retries: u32,
    initializes: bool,
    samples_memory: bool,
    actors: usize,
    /// A thread kills workers at random.
    kills: bool,
    shuts: bool,
    /// The test keeps the pool until everything else is over, and so can check its metrics.
    keeps: bool,
}

impl Settings {
    fn new(random: &mut Random) -> Self {
        Self {
            workers: 1 + random.below(3),
            capacity: [None, Some(1 + random.below(4))][random.below(2)],
            keep_alive: [None, Some(Duration::ZERO), Some(Duration::from_millis(2))]
                [random.below(3)],
            limit: random.one_in(3).then(|| milliseconds(random, 5, 60)),
            grace: [Duration::ZERO, milliseconds(random, 1, 10)][random.below(2)],
            max_jobs: random.one_in(3).then(|| 1 + random.below(3) as u64),
            retries: random.below(3) as u32,
            initializes: random.one_in(4),
            samples_memory: random.one_in(4),
            actors: 1 + random.below(3),
            kills: random.one_in(2),
            shuts: random.one_in(3),
            keeps: !random.one_in(3),
        }
    }

    fn build(self) -> ProcessPool {
        let mut builder = jobs::quiet(self.workers)
            .cancel_grace(self.grace)
            .retry_on_crash(self.retries);
        if let Some(capacity) = self.capacity {
            builder = builder.queue_capacity(capacity);
        }
        if let Some(timeout) = self.keep_alive {
            builder = builder.keep_alive(timeout);
        }
        if let Some(limit) = self.limit {
            builder = builder.time_limit(limit);
        }
        if let Some(jobs) = self.max_jobs {
            builder = builder.max_jobs_per_worker(jobs);
        }
        if self.initializes {
            builder = builder.initializer(jobs::nothing::call());
        }
        if self.samples_memory {
            builder = builder.memory_limit(1 << 40);
        }
        builder.build().unwrap()
    }
}

fn milliseconds(random: &mut Random, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + random.next() % (to - from))
}

impl World {
    fn check(&self, fact: bool, what: impl FnOnce() -> String) {
        if !fact {
            self.faults.lock().unwrap().push(what());
        }
    }

    fn unresolved(&self) -> Vec<String> {
        let jobs = self.jobs.lock().unwrap();
        let open = jobs.iter().filter(|(_, done)| !done.load(SeqCst));
        open.map(|(what, _)| what.clone()).collect()
    }
}

/// What a job does, so which outcomes it may have by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Returns,
    Crashes,
    Panics,
    /// Only a limit or a cancel ends it.
    NeverEnds,
}

/// A handle, without the type of its job.
struct Held {
    handle: Box<dyn Handle>,
    about: About,
}

struct About {
    what: String,
    kind: Kind,
    has_limit: bool,
    /// A cancel was requested through the handle.
    asked: bool,
}

trait Handle: Send {
    fn cancel(&self) -> bool;
    fn is_finished(&self) -> bool;
    fn wait_a_little(&mut self) -> Option<Result<(), JoinError>>;
    fn join(self: Box<Self>) -> Result<(), JoinError>;
    fn drop_and_cancel(self: Box<Self>);
}

impl<T: Send + 'static> Handle for JoinHandle<T> {
    fn cancel(&self) -> bool {
        JoinHandle::cancel(self)
    }

    fn is_finished(&self) -> bool {
        JoinHandle::is_finished(self)
    }

    fn wait_a_little(&mut self) -> Option<Result<(), JoinError>> {
        match self.join_timeout(Duration::from_millis(1)) {
            Err(error) if error.is_timeout() => None,
            outcome => Some(outcome.map(drop)),
        }
    }

    fn join(self: Box<Self>) -> Result<(), JoinError> {
        JoinHandle::join(*self).map(drop)
    }

    fn drop_and_cancel(self: Box<Self>) {
        drop((*self).cancel_on_drop());
    }
}

/// A thread that uses a pool at random.
struct Actor {
    world: Arc<World>,
    pool: Arc<ProcessPool>,
    random: Random,
    handles: Vec<Held>,
}

impl Actor {
    fn act(&mut self) {
        match self.random.below(24) {
            0..=11 => self.submit_something(),
            12..=14 => self.cancel_one(),
            15 => self.drop_one(),
            16 | 17 => self.wait_for_one(),
            18 => self.kill_one(),
            19 if self.random.one_in(4) => {
                self.world.queue_cancelled.store(true, SeqCst);
                self.pool.cancel_queued();
            }
            20 => {
                let _ = self
                    .pool
                    .wait_idle()
                    .join_timeout(Duration::from_micros(500));
            }
            21 => drop(self.pool.metrics()),
            22 if self.world.settings.shuts && self.random.one_in(4) => {
                self.world.shut.store(true, SeqCst);
                if self.random.one_in(2) {
                    self.world.stopped.store(true, SeqCst);
                    drop(self.pool.shutdown_now());
                } else {
                    drop(self.pool.shutdown());
                }
            }
            _ => thread::sleep(Duration::from_micros(self.random.below(3_000) as u64)),
        }
    }

    fn submit_something(&mut self) {
        let n = self.random.next() % 4;
        match self.random.below(14) {
            0..=3 => self.submit(Kind::Returns, jobs::add::call(n, n)),
            4..=6 => self.submit(Kind::Returns, jobs::sleep::call(n)),
            7 => self.submit(Kind::Returns, jobs::echo::call(vec![1; 300_000])),
            8 => self.submit(Kind::Crashes, jobs::abort::call()),
            9 => self.submit(Kind::Crashes, jobs::exit::call(1)),
            10 => self.submit(Kind::Panics, jobs::panics::call("as it should".to_owned())),
            11 => self.submit(Kind::Crashes, jobs::abort_again::call()),
            _ => {
                let limit = milliseconds(&mut self.random, 1, 40);
                let can_wait = self.world.settings.capacity.is_some() || self.random.one_in(2);
                let call = jobs::never_ends::call();
                match can_wait {
                    // Otherwise the actors could wait for room for ever.
                    true => self.submit_limited(Kind::NeverEnds, call.time_limit(limit), true),
                    false => self.submit(Kind::NeverEnds, call),
                }
            }
        }
    }

    fn submit<T: Task>(&mut self, kind: Kind, call: Call<T>) {
        self.submit_limited(kind, call, false);
    }

    fn submit_limited<T: Task>(&mut self, kind: Kind, call: Call<T>, has_limit: bool) {
        let what = format!("{kind:?} {call:?}");
        let handle = match self.random.below(8) {
            0 => match self.pool.try_submit(call) {
                Ok(handle) => handle,
                Err(error) => {
                    let can_be_full = self.world.settings.capacity.is_some();
                    let is_right = (error.is_full() && can_be_full) || self.is_closed();
                    return self.world.check(is_right, || format!("{what}: {error}"));
                }
            },
            1 => {
                let mut submit = self.pool.submit_async(call);
                let submitted = match poll_once(&mut submit) {
                    std::task::Poll::Ready(submitted) => submitted,
                    std::task::Poll::Pending if self.random.one_in(2) => return,
                    std::task::Poll::Pending => block_on(submit),
                };
                match submitted {
                    Ok(handle) => handle,
                    Err(error) => {
                        return self
                            .world
                            .check(self.is_closed(), || format!("{what}: {error}"));
                    }
                }
            }
            _ => self.pool.submit(call),
        };
        let done = Arc::new(AtomicBool::new(false));
        self.world
            .jobs
            .lock()
            .unwrap()
            .push((what.clone(), Arc::clone(&done)));
        handle.add_done_callback(move |_| done.store(true, SeqCst));
        let about = About {
            what,
            kind,
            has_limit: has_limit || self.world.settings.limit.is_some(),
            asked: false,
        };
        let handle = Box::new(handle);
        self.handles.push(Held { handle, about });
    }

    /// The pool is shut down, or too many starts were killed.
    fn is_closed(&self) -> bool {
        self.world.shut.load(SeqCst) || self.world.killed.load(SeqCst)
    }

    fn cancel_one(&mut self) {
        if self.handles.is_empty() {
            return;
        }
        let place = self.random.below(self.handles.len());
        let held = &mut self.handles[place];
        held.about.asked = true;
        let was_finished = held.handle.is_finished();
        let cancelled = held.handle.cancel();
        if cancelled && self.random.one_in(2) {
            let held = self.handles.swap_remove(place);
            let outcome = held.handle.join();
            let is_right = outcome.as_ref().is_err_and(JoinError::is_cancelled);
            // A worker was not yet given up.
            self.world.check(is_right || was_finished, || {
                format!("{}: cancelled, and then {outcome:?}", held.about.what)
            });
        }
    }

    fn drop_one(&mut self) {
        if self.handles.is_empty() {
            return;
        }
        let held = self
            .handles
            .swap_remove(self.random.below(self.handles.len()));
        // Nothing else would end it.
        if (held.about.kind == Kind::NeverEnds && !held.about.has_limit) || self.random.one_in(2) {
            held.handle.drop_and_cancel();
        }
    }

    fn wait_for_one(&mut self) {
        if self.handles.is_empty() {
            return;
        }
        let place = self.random.below(self.handles.len());
        if let Some(outcome) = self.handles[place].handle.wait_a_little() {
            let held = self.handles.swap_remove(place);
            check_outcome(&self.world, &held.about, &outcome);
        }
    }

    fn kill_one(&mut self) {
        if self.world.settings.kills {
            kill_one(&self.world, &self.pool, &mut self.random);
        }
    }

    fn finish(self) {
        let Self {
            world,
            pool,
            mut random,
            mut handles,
        } = self;
        for held in &mut handles {
            if held.about.kind == Kind::NeverEnds && !held.about.has_limit {
                held.about.asked = true;
                held.handle.cancel();
            }
        }
        // Perhaps the last owner of the pool.
        let pool = Some(pool).filter(|_| random.one_in(2));
        for held in handles {
            let Held { handle, about } = held;
            let outcome = handle.join();
            check_outcome(&world, &about, &outcome);
        }
        drop(pool);
    }
}

fn check_outcome(world: &World, about: &About, outcome: &Result<(), JoinError>) {
    let what = &about.what;
    let Err(error) = outcome else {
        return world.check(about.kind == Kind::Returns, || {
            format!("{what} has returned")
        });
    };
    let killed = world.killed.load(SeqCst);
    let is_possible = if error.is_cancelled() {
        about.asked || world.stopped.load(SeqCst) || world.queue_cancelled.load(SeqCst)
    } else if error.is_crashed() {
        about.kind == Kind::Crashes || killed
    } else if error.is_panic() {
        about.kind == Kind::Panics
    } else if error.is_time_limit() {
        about.has_limit
    } else if error.is_shutdown() {
        world.shut.load(SeqCst)
    } else {
        // Too many starts in a row were killed.
        (error.is_broken() || error.is_spawn_failed()) && killed
    };
    world.check(is_possible, || format!("{what}: {error:?}: {error}"));
}

fn kill_one(world: &World, pool: &ProcessPool, random: &mut Random) {
    let workers = pool.workers();
    if !workers.is_empty() {
        world.killed.store(true, SeqCst);
        jobs::kill(workers[random.below(workers.len())].pid);
    }
}

fn play(world: &Arc<World>, seed: u64) {
    let settings = world.settings;
    let mut random = Random(seed);
    let pool = Arc::new(settings.build());
    let mut actors: Vec<_> = (0..settings.actors)
        .map(|_| {
            let mut actor = Actor {
                world: Arc::clone(world),
                pool: Arc::clone(&pool),
                random: Random(random.next()),
                handles: Vec::new(),
            };
            let acts = 5 + random.below(20);
            thread::spawn(move || {
                (0..acts).for_each(|_| actor.act());
                actor.finish();
            })
        })
        .collect();
    if settings.kills {
        let world = Arc::clone(world);
        let pool = Arc::downgrade(&pool);
        let mut random = Random(random.next());
        actors.push(thread::spawn(move || {
            while !world.over.load(SeqCst) {
                thread::sleep(Duration::from_micros(random.below(20_000) as u64));
                let Some(pool) = pool.upgrade() else {
                    return;
                };
                kill_one(&world, &pool, &mut random);
            }
        }));
    }
    let kept = settings.keeps.then(|| Arc::clone(&pool));
    drop(pool);
    let killer = settings.kills.then(|| actors.pop().unwrap());
    let ended: Vec<_> = actors.into_iter().map(thread::JoinHandle::join).collect();
    world.over.store(true, SeqCst);
    let ended = ended
        .into_iter()
        .chain(killer.map(thread::JoinHandle::join));
    for end in ended {
        end.unwrap_or_else(|panic| resume_unwind(panic));
    }
    if let Some(pool) = kept {
        let now = jobs::assert_balanced(&pool);
        world.check(now.queued + now.running == 0, || {
            format!("not quiet: {now:?}")
        });
        let is_usable = !world.shut.load(SeqCst) && !world.killed.load(SeqCst);
        if is_usable {
            let outcome = pool.submit(jobs::add::call(1, 2)).join();
            let is_right = outcome.is_ok_and(|sum| sum == 3);
            world.check(is_right || settings.limit.is_some(), || {
                "no last job".to_owned()
            });
        }
        let pool = Arc::into_inner(pool).expect("all others have ended");
        drop(pool);
        // At once, since the drop waits for the workers.
        let left = children();
        world.check(left.is_empty(), || {
            format!("after the drop there are {left:?}")
        });
    }
}

/// Returns the children of this process, zombies included.
fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let is_child = |stat: &String| {
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1) == Some(&own)
    };
    stats.filter(is_child).collect()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Plays a round, and fails with its seed if it takes too long.
fn play_within(seed: u64) {
    let mut random = Random(seed ^ 0x5eed);
    let world = Arc::new(World {
        settings: Settings::new(&mut random),
        jobs: Mutex::default(),
        faults: Mutex::default(),
        killed: AtomicBool::new(false),
        queue_cancelled: AtomicBool::new(false),
        stopped: AtomicBool::new(false),
        shut: AtomicBool::new(false),
        over: AtomicBool::new(false),
    });
    let settings = world.settings;
    let round = format!("FUTUREPOOL_SEED={seed}, {settings:?}");
    let (send, receive) = mpsc::channel();
    let own = Arc::clone(&world);
    let thread = thread::spawn(move || {
        play(&own, seed);
        let _ = send.send(());
    });
    match receive.recv_timeout(LONG) {
        Ok(()) => thread.join().unwrap(),
        Err(RecvTimeoutError::Disconnected) => {
            let panic = thread.join().unwrap_err();
            eprintln!("{round}");
            resume_unwind(panic);
        }
        Err(RecvTimeoutError::Timeout) => {
            let open = world.unresolved().join("\n");
            panic!(
                "{round}: not over; unresolved:\n{open}\nchildren: {:?}",
                children()
            );
        }
    }
    eventually(&round, || children().is_empty());
    let open = world.unresolved();
    assert!(open.is_empty(), "{round}: unresolved: {open:?}");
    let faults = world.faults.lock().unwrap();
    assert!(faults.is_empty(), "{round}:\n{}", faults.join("\n"));
}

#[test]
fn a_handle_keeps_nothing_of_its_pool() {
    let test = "random::a_handle_keeps_nothing_of_its_pool";
    alone(test, || {
        let handle_of_a_pool = || {
            let pool = jobs::quiet(1).build().unwrap();
            let [first, second] = [0, 1].map(|n| pool.submit(jobs::add::call(n, 1)));
            first.join().unwrap();
            second
        };
        let first = handle_of_a_pool();
        drop(first);
        let before = descriptors();
        let mut second = handle_of_a_pool();
        assert!(children().is_empty());
        eventually("the descriptors are closed", || descriptors() <= before);
        assert_eq!(second.try_join().unwrap().unwrap(), 2);
    });
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn promise_3_every_handle_resolves_whatever_is_killed_when() {
    let test = "random::promise_3_every_handle_resolves_whatever_is_killed_when";
    if !is_child() {
        // It counts the processes and the descriptors.
        assert!(command(test).status().unwrap().success());
        return;
    }
    let seed = number("FUTUREPOOL_SEED");
    let rounds = number("FUTUREPOOL_ROUNDS").unwrap_or(if seed.is_some() { 1 } else { 100 });
    play_within(0);
    let mut before = None;
    let start = Instant::now();
    for round in 0..rounds {
        let seed = seed.unwrap_or(round);
        play_within(seed);
        // What the first round has opened for the whole process stays.
        let before = *before.get_or_insert_with(descriptors);
        eventually(&format!("FUTUREPOOL_SEED={seed}: descriptors"), || {
            descriptors() <= before
        });
    }
    println!("{rounds} rounds in {:?}", start.elapsed());
}
