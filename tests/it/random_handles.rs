//! One job's handle against a model: random operations in one thread, with every answer predicted.
//!
//! The test is the executor, so it decides when the job is run, refused or dropped. The model is
//! written from the documentation, not from the code. Both keep a log of events, and the two logs
//! must be equal. So the model predicts what is called, dropped and woken, how often, and in which
//! order.
//!
//! The cases are the same in every run. `FUTUREPOOL_SEED=7` runs case 7 alone,
//! `FUTUREPOOL_ROUNDS=1000000` runs more.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Once, Weak};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;
use std::{cell, env, thread};

use crate::common::{LONG, Random, poll_with, within};
use futurepool::{Executor, ExecutorExt, Job, JoinError, JoinHandle, cancel_requested};

/// An operation on the job or its handle. It is skipped if it is impossible: the handle is gone, or
/// a call in progress borrows it.
#[derive(Clone, Debug)]
enum Op {
    // On the executor's half. These do nothing if the job is already cancelled.
    Run,
    Refuse(Outcome),
    DropJob,
    // On the caller's half.
    Cancel,
    Callback {
        id: usize,
        panics: bool,
        inside: Vec<Op>,
    },
    Poll(usize),
    TryJoin,
    JoinTimeout,
    /// Only if the job is finished: no other thread could finish it while this thread waits.
    Join,
    Inspect,
    DropHandle,
    CancelOnDrop,
    // On neither.
    CancelRequested,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Returned,
    Panicked,
    Cancelled,
    Shutdown,
    Broken,
    /// No job ends so: an error about the wait itself, or an error of several kinds.
    Odd,
}

/// Observable events.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    // What the job, its callbacks and its wakers see.
    Started,
    Called(usize, Outcome),
    Woken(usize),
    Dropped(What),
    // Answers.
    Cancelled(bool),
    CancelRequested(bool),
    Inspected {
        finished: bool,
        running: bool,
        cancelled: bool,
    },
    Got(Outcome),
    None,
    Pending,
    TimedOut,
    Panicked(String),
    Done,
    Skipped,
    /// Which of the two wakers is still referenced.
    Held([bool; 2]),
}

/// Values that must be dropped exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The captures of the closure.
    Closure,
    /// The captures of a callback.
    Callback(usize),
    Result,
    /// The payload of a panic.
    Payload,
    /// The cause of a broken executor.
    Cause,
}

/// A case: the operations from outside, in order, and those inside each of them.
#[derive(Clone, Debug)]
struct Case {
    ops: Vec<Op>,
    /// The closure does this, and then panics or returns.
    body: Vec<Op>,
    panics: bool,
    /// The destructor of the captures does this; it panics, but only in a job that does not run.
    at_drop: Vec<Op>,
    drop_panics: bool,
    /// The waker does this when called.
    on_wake: Vec<Op>,
    /// Ensures that every job ends: the two halves are dropped last, in either order.
    job_goes_first: bool,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut ids = 0;
        let length = 1 + random.below(12);
        Self {
            ops: random.ops(length, 2, &mut ids),
            body: random.up_to(4, &mut ids),
            panics: random.below(3) == 0,
            at_drop: random.up_to(3, &mut ids),
            drop_panics: random.below(4) == 0,
            on_wake: random.up_to(3, &mut ids),
            job_goes_first: random.below(2) == 0,
        }
    }

    fn all_ops(&self) -> Vec<Op> {
        let mut ops = self.ops.clone();
        ops.extend(match self.job_goes_first {
            true => [Op::DropJob, Op::DropHandle],
            false => [Op::DropHandle, Op::DropJob],
        });
        ops
    }

    /// Returns the cases with one operation less.
    fn smaller(&self) -> impl Iterator<Item = Self> + use<> {
        let case = self.clone();
        (0..).map_while(move |index| {
            let mut case = case.clone();
            let mut left = index;
            let scripts = [
                &mut case.ops,
                &mut case.body,
                &mut case.at_drop,
                &mut case.on_wake,
            ];
            let found = scripts.into_iter().any(|ops| remove_nth(ops, &mut left));
            found.then_some(case)
        })
    }

    /// Shrinks the case as long as it still fails; returns it with its failure.
    fn shrunk(mut self, mut fault: String) -> (Self, String) {
        while let Some(smaller) = self
            .smaller()
            .find_map(|case| Some((play(&case).err()?, case)))
        {
            (fault, self) = smaller;
        }
        (self, fault)
    }
}

/// Counts callbacks with the operations inside them, from the outside in.
fn remove_nth(ops: &mut Vec<Op>, n: &mut usize) -> bool {
    for i in 0..ops.len() {
        if *n == 0 {
            ops.remove(i);
            return true;
        }
        *n -= 1;
        if let Op::Callback { inside, .. } = &mut ops[i] {
            if remove_nth(inside, n) {
                return true;
            }
        }
    }
    false
}

impl Random {
    /// Often none.
    fn up_to(&mut self, most: usize, ids: &mut usize) -> Vec<Op> {
        let most = self.below(most + 1);
        let length = self.below(most + 1);
        self.ops(length, 1, ids)
    }

    fn ops(&mut self, length: usize, depth: usize, ids: &mut usize) -> Vec<Op> {
        (0..length).map(|_| self.op(depth, ids)).collect()
    }

    fn op(&mut self, depth: usize, ids: &mut usize) -> Op {
        match self.below(36) {
            0..=3 => Op::Run,
            4 => Op::Refuse([Outcome::Shutdown, Outcome::Broken][self.below(2)]),
            5 => Op::DropJob,
            6..=8 => Op::Cancel,
            9..=15 => {
                *ids += 1;
                let id = *ids;
                let panics = self.below(5) == 0;
                let length = depth.min(1) * self.below(4);
                let inside = self.ops(length, depth.saturating_sub(1), ids);
                Op::Callback { id, panics, inside }
            }
            16..=22 => Op::Poll(self.below(2)),
            23 | 24 => Op::TryJoin,
            25 | 26 => Op::JoinTimeout,
            27 => Op::Join,
            28..=31 => Op::Inspect,
            32 => Op::DropHandle,
            33 => Op::CancelOnDrop,
            _ => Op::CancelRequested,
        }
    }
}

// ---- The model ----------------------------------------------------------------------------------

/// What the model knows of the job.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Queued,
    /// Until the callbacks have ended.
    Running {
        cancel_requested: bool,
    },
    /// The job never starts; until the closure is dropped.
    Cancelling(Outcome),
    Finished(Outcome),
    /// As finished. A late callback borrows the outcome.
    InCallback(Outcome),
    Taken(Outcome),
}

struct Model<'a> {
    case: &'a Case,
    stage: Stage,
    /// The executor has the job.
    has_job: bool,
    /// The handle is in its slot.
    has_handle: bool,
    /// The handle was dropped.
    detached: bool,
    /// Calls in progress that borrow the handle.
    borrowed: usize,
    /// Wake-ups in progress. Which references exist meanwhile is unspecified.
    waking: usize,
    callbacks: VecDeque<&'a Op>,
    /// The callbacks of a job that never ran are about to be called, or are called now.
    calling_back: bool,
    /// How many errors refer to the cause of a broken executor.
    cause: usize,
    waker: Option<usize>,
    log: Vec<Event>,
}

impl<'a> Model<'a> {
    fn new(case: &'a Case) -> Self {
        Self {
            case,
            stage: Stage::Queued,
            has_job: true,
            has_handle: true,
            detached: false,
            borrowed: 0,
            waking: 0,
            callbacks: VecDeque::new(),
            calling_back: false,
            cause: 0,
            waker: None,
            log: Vec::new(),
        }
    }

    fn perform(&mut self, ops: &'a [Op]) {
        ops.iter().for_each(|op| self.step(op));
    }

    fn step(&mut self, op: &'a Op) {
        let answer = self.answer(op);
        self.log.push(answer);
        if self.waking == 0 {
            let held = [0, 1].map(|waker| self.waker == Some(waker));
            self.log.push(Event::Held(held));
        }
    }

    fn answer(&mut self, op: &'a Op) -> Event {
        let alone = self.has_handle && self.borrowed == 0;
        let taken = Event::Panicked("taken".to_owned());
        match op {
            Op::Run | Op::Refuse(_) | Op::DropJob if !self.has_job => Event::Skipped,
            Op::Run => {
                self.has_job = false;
                if let Stage::Queued = self.stage {
                    self.run();
                }
                Event::Done
            }
            Op::Refuse(outcome) => {
                self.has_job = false;
                match self.stage {
                    Stage::Queued => {
                        self.cause = 1;
                        self.cancel_with(*outcome);
                        // The error that the executor gave.
                        self.drop_outcome(*outcome);
                    }
                    // This cause is another one than that of the job, if that has one.
                    _ if *outcome == Outcome::Broken => {
                        self.log.push(Event::Dropped(What::Cause));
                    }
                    _ => {}
                }
                Event::Done
            }
            Op::DropJob => {
                self.has_job = false;
                if let Stage::Queued = self.stage {
                    self.cancel_with(Outcome::Cancelled);
                }
                Event::Done
            }

            Op::Cancel | Op::Callback { .. } | Op::Inspect if !self.has_handle => Event::Skipped,
            Op::Cancel => {
                self.borrowed += 1;
                let cancelled = self.cancel();
                self.borrowed -= 1;
                Event::Cancelled(cancelled)
            }
            Op::Callback { .. } if self.calling_back => {
                self.callbacks.push_back(op);
                Event::Done
            }
            Op::Callback { id, .. } => match self.stage {
                Stage::Queued
                | Stage::Running { .. }
                | Stage::Cancelling(_)
                | Stage::InCallback(_) => {
                    self.callbacks.push_back(op);
                    Event::Done
                }
                Stage::Finished(outcome) => {
                    self.stage = Stage::InCallback(outcome);
                    self.borrowed += 1;
                    self.callbacks.push_back(op);
                    self.call_back(outcome);
                    self.borrowed -= 1;
                    self.stage = Stage::Finished(outcome);
                    Event::Done
                }
                Stage::Taken(_) => {
                    self.log.push(Event::Dropped(What::Callback(*id)));
                    taken
                }
            },
            Op::Inspect => match self.stage {
                Stage::Queued | Stage::Cancelling(_) => inspected(false, false, false),
                Stage::Running { .. } => inspected(false, true, false),
                Stage::Finished(outcome) | Stage::InCallback(outcome) | Stage::Taken(outcome) => {
                    inspected(true, false, outcome == Outcome::Cancelled)
                }
            },

            Op::Poll(_) | Op::TryJoin | Op::JoinTimeout | Op::Join if !alone => Event::Skipped,
            Op::DropHandle | Op::CancelOnDrop if !alone => Event::Skipped,
            // There is one thread, so it is the one that cancels the job.
            Op::Poll(_) | Op::JoinTimeout if matches!(self.stage, Stage::Cancelling(_)) => {
                self.detach();
                Event::Got(Outcome::Cancelled)
            }
            Op::Poll(waker) => match self.stage {
                Stage::Finished(outcome) => self.take(outcome),
                Stage::Taken(_) => taken,
                _ => {
                    self.waker = Some(*waker);
                    Event::Pending
                }
            },
            Op::TryJoin => match self.stage {
                Stage::Finished(outcome) => self.take(outcome),
                _ => Event::None,
            },
            Op::JoinTimeout => match self.stage {
                Stage::Finished(outcome) => self.take(outcome),
                Stage::Taken(_) => taken,
                _ => Event::TimedOut,
            },
            Op::Join => match self.stage {
                Stage::Finished(outcome) => {
                    self.has_handle = false;
                    self.take(outcome)
                }
                Stage::Taken(_) => {
                    self.has_handle = false;
                    taken
                }
                _ => Event::Skipped,
            },
            Op::DropHandle => {
                self.has_handle = false;
                self.detach();
                Event::Done
            }
            Op::CancelOnDrop => {
                self.has_handle = false;
                self.cancel();
                self.detach();
                Event::Done
            }

            // There is one thread, so it is inside the job while the job runs.
            Op::CancelRequested => Event::CancelRequested(matches!(
                self.stage,
                Stage::Running {
                    cancel_requested: true
                }
            )),
        }
    }

    fn run(&mut self) {
        self.stage = Stage::Running {
            cancel_requested: false,
        };
        self.log.push(Event::Started);
        self.perform(&self.case.body);
        self.drop_closure();
        self.end(match self.case.panics {
            true => Outcome::Panicked,
            false => Outcome::Returned,
        });
    }

    fn cancel(&mut self) -> bool {
        match &mut self.stage {
            Stage::Queued => {
                self.cancel_with(Outcome::Cancelled);
                true
            }
            Stage::Running { cancel_requested } => {
                *cancel_requested = true;
                false
            }
            Stage::Cancelling(outcome)
            | Stage::Finished(outcome)
            | Stage::InCallback(outcome)
            | Stage::Taken(outcome) => *outcome == Outcome::Cancelled,
        }
    }

    fn cancel_with(&mut self, outcome: Outcome) {
        self.stage = Stage::Cancelling(outcome);
        self.drop_closure();
        self.calling_back = !self.callbacks.is_empty();
        if !self.detached {
            self.cause += 1;
        }
        self.publish(outcome);
        self.call_back(outcome);
        self.calling_back = false;
    }

    fn drop_closure(&mut self) {
        self.log.push(Event::Dropped(What::Closure));
        self.perform(&self.case.at_drop);
    }

    /// The end of a job that ran.
    fn end(&mut self, outcome: Outcome) {
        self.call_back(outcome);
        if self.detached {
            self.drop_outcome(outcome);
        }
        self.publish(outcome);
    }

    fn publish(&mut self, outcome: Outcome) {
        self.stage = match self.detached {
            true => Stage::Taken(outcome),
            false => Stage::Finished(outcome),
        };
        if let Some(waker) = self.waker.take() {
            self.log.push(Event::Woken(waker));
            self.waking += 1;
            self.perform(&self.case.on_wake);
            self.waking -= 1;
        }
    }

    /// In insertion order, including callbacks that are added meanwhile.
    fn call_back(&mut self, outcome: Outcome) {
        while let Some(Op::Callback { id, inside, .. }) = self.callbacks.pop_front() {
            self.log.push(Event::Called(*id, outcome));
            self.perform(inside);
            self.log.push(Event::Dropped(What::Callback(*id)));
        }
    }

    fn take(&mut self, outcome: Outcome) -> Event {
        self.stage = Stage::Taken(outcome);
        self.drop_outcome(outcome);
        Event::Got(outcome)
    }

    fn detach(&mut self) {
        self.detached = true;
        self.waker = None;
        if let Stage::Finished(outcome) = self.stage {
            self.drop_outcome(outcome);
            self.stage = Stage::Taken(outcome);
        }
    }

    fn drop_outcome(&mut self, outcome: Outcome) {
        let what = match outcome {
            Outcome::Returned => What::Result,
            Outcome::Panicked => What::Payload,
            Outcome::Broken => {
                self.cause -= 1;
                if self.cause > 0 {
                    return;
                }
                What::Cause
            }
            Outcome::Cancelled | Outcome::Shutdown | Outcome::Odd => return,
        };
        self.log.push(Event::Dropped(what));
    }
}

fn inspected(finished: bool, running: bool, cancelled: bool) -> Event {
    Event::Inspected {
        finished,
        running,
        cancelled,
    }
}

// ---- The crate ----------------------------------------------------------------------------------

/// A job and its handle, where code that runs inside them finds them, too. No lock is held during a
/// call.
struct World {
    case: Case,
    executor: Keeps,
    handle: Mutex<Option<Arc<JoinHandle<Tracked>>>>,
    wakers: [Arc<TestWaker>; 2],
    waking: Mutex<usize>,
    log: Mutex<Vec<Event>>,
}

/// An executor that keeps its job until the test uses it.
#[derive(Default)]
struct Keeps(Mutex<Option<Job>>);

impl Executor for Keeps {
    fn execute(&self, job: Job) {
        *self.0.lock().unwrap() = Some(job);
    }
}

/// A waker that keeps nothing alive.
struct TestWaker {
    world: Weak<World>,
    index: usize,
}

impl Wake for TestWaker {
    fn wake(self: Arc<Self>) {
        let world = self.world.upgrade().expect("a job that is not ended yet");
        world.note(Event::Woken(self.index));
        *world.waking.lock().unwrap() += 1;
        world.perform(&world.case.on_wake);
        *world.waking.lock().unwrap() -= 1;
    }
}

/// Logs its drop.
struct Tracked {
    world: Arc<World>,
    what: What,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.world.note(Event::Dropped(self.what));
    }
}

impl fmt::Debug for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.what, f)
    }
}

impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.what, f)
    }
}

impl Error for Tracked {}

/// The captures of the closure.
struct Captured {
    world: Arc<World>,
    started: bool,
}

impl Drop for Captured {
    fn drop(&mut self) {
        let world = &self.world;
        world.note(Event::Dropped(What::Closure));
        world.perform(&world.case.at_drop);
        if world.case.drop_panics && !self.started {
            resume_unwind(Box::new(()));
        }
    }
}

impl World {
    fn new(case: &Case) -> Arc<Self> {
        let world = Arc::new_cyclic(|world| Self {
            case: case.clone(),
            executor: Keeps::default(),
            handle: Mutex::default(),
            wakers: [0, 1].map(|index| {
                let world = Weak::clone(world);
                Arc::new(TestWaker { world, index })
            }),
            waking: Mutex::new(0),
            log: Mutex::default(),
        });
        let mut captured = Captured {
            world: Arc::clone(&world),
            started: false,
        };
        let handle = world.executor.submit(move || {
            captured.started = true;
            let world = Arc::clone(&captured.world);
            world.note(Event::Started);
            world.perform(&world.case.body);
            // A resumed panic does not reach the hook, so nothing is printed.
            if world.case.panics {
                resume_unwind(Box::new(world.tracked(What::Payload)));
            }
            world.tracked(What::Result)
        });
        *world.handle.lock().unwrap() = Some(Arc::new(handle));
        world
    }

    fn tracked(self: &Arc<Self>, what: What) -> Tracked {
        let world = Arc::clone(self);
        Tracked { world, what }
    }

    fn note(&self, event: Event) {
        self.log.lock().unwrap().push(event);
    }

    fn perform(self: &Arc<Self>, ops: &[Op]) {
        ops.iter().for_each(|op| self.step(op));
    }

    fn step(self: &Arc<Self>, op: &Op) {
        let answer = expecting_panics(|| self.answer(op));
        self.note(match answer {
            Ok(answer) => answer.unwrap_or(Event::Skipped),
            Err(text) if text.contains("taken") => Event::Panicked("taken".to_owned()),
            Err(text) => Event::Panicked(text),
        });
        if *self.waking.lock().unwrap() == 0 {
            let held = |waker: &Arc<TestWaker>| Arc::strong_count(waker) > 1;
            self.note(Event::Held([held(&self.wakers[0]), held(&self.wakers[1])]));
        }
    }

    /// Returns `None` if the operation is impossible.
    fn answer(self: &Arc<Self>, op: &Op) -> Option<Event> {
        let job = || self.executor.0.lock().unwrap().take();
        Some(match op {
            Op::Run => {
                job()?.run();
                Event::Done
            }
            Op::Refuse(outcome) => {
                job()?.refuse(match outcome {
                    Outcome::Broken => JoinError::broken(self.tracked(What::Cause)),
                    _ => JoinError::shutdown(),
                });
                Event::Done
            }
            Op::DropJob => {
                drop(job()?);
                Event::Done
            }
            Op::Cancel => Event::Cancelled(self.handle()?.cancel()),
            Op::Callback { id, panics, inside } => {
                let handle = self.handle()?;
                let captured = self.tracked(What::Callback(*id));
                let (id, panics, inside) = (*id, *panics, inside.clone());
                handle.add_done_callback(move |outcome| {
                    let world = &captured.world;
                    world.note(Event::Called(id, outcome_of(outcome)));
                    world.perform(&inside);
                    if panics {
                        resume_unwind(Box::new(()));
                    }
                });
                Event::Done
            }
            Op::Inspect => {
                let handle = self.handle()?;
                inspected(
                    handle.is_finished(),
                    handle.is_running(),
                    handle.is_cancelled(),
                )
            }
            Op::Poll(waker) => {
                // Two clones wake the same target, and a poll with the same waker keeps one
                // reference only.
                let waker = Waker::from(Arc::clone(&self.wakers[*waker]));
                match self.with_handle(|handle| poll_with(handle, &waker))? {
                    Poll::Ready(outcome) => got(outcome),
                    Poll::Pending => Event::Pending,
                }
            }
            Op::TryJoin => match self.with_handle(JoinHandle::try_join)? {
                Some(outcome) => got(outcome),
                None => Event::None,
            },
            Op::JoinTimeout => {
                match self.with_handle(|handle| handle.join_timeout(Duration::ZERO))? {
                    Err(error) if error.is_timeout() => Event::TimedOut,
                    outcome => got(outcome),
                }
            }
            Op::Join => {
                self.handle().filter(|handle| handle.is_finished())?;
                got(self.take_handle()?.join())
            }
            Op::DropHandle => {
                drop(self.take_handle()?);
                Event::Done
            }
            Op::CancelOnDrop => {
                drop(self.take_handle()?.cancel_on_drop());
                Event::Done
            }
            Op::CancelRequested => Event::CancelRequested(cancel_requested()),
        })
    }

    fn handle(&self) -> Option<Arc<JoinHandle<Tracked>>> {
        self.handle.lock().unwrap().clone()
    }

    /// Returns `None` if the handle is gone or borrowed.
    fn take_handle(&self) -> Option<JoinHandle<Tracked>> {
        let mut place = self.handle.lock().unwrap();
        match Arc::try_unwrap(place.take()?) {
            Ok(handle) => Some(handle),
            Err(borrowed) => {
                *place = Some(borrowed);
                None
            }
        }
    }

    fn with_handle<R>(&self, f: impl FnOnce(&mut JoinHandle<Tracked>) -> R) -> Option<R> {
        let mut handle = self.take_handle()?;
        let result = catch_unwind(AssertUnwindSafe(|| f(&mut handle)));
        *self.handle.lock().unwrap() = Some(Arc::new(handle));
        Some(result.unwrap_or_else(|payload| resume_unwind(payload)))
    }
}

fn got(outcome: Result<Tracked, JoinError>) -> Event {
    let event = Event::Got(outcome_of(outcome.as_ref()));
    // Drops the payload here, so that nothing else holds it.
    if let Err(Ok(payload)) = outcome.map_err(JoinError::try_into_panic) {
        assert!(payload.is::<Tracked>(), "it is the one thrown");
    }
    event
}

/// Returns `Odd` also for a result that the job did not produce.
fn outcome_of(outcome: Result<&Tracked, &JoinError>) -> Outcome {
    let error = match outcome {
        Ok(result) if result.what == What::Result => return Outcome::Returned,
        Ok(_) => return Outcome::Odd,
        Err(error) => error,
    };
    let kinds = [
        (error.is_panic(), Outcome::Panicked),
        (error.is_cancelled(), Outcome::Cancelled),
        (error.is_shutdown(), Outcome::Shutdown),
        (error.is_broken(), Outcome::Broken),
        (error.is_spawn_failed(), Outcome::Odd),
        (error.is_timeout(), Outcome::Odd),
        (error.is_deadlock(), Outcome::Odd),
    ];
    let mut true_ones = kinds.iter().filter(|(is_so, _)| *is_so);
    match (true_ones.next(), true_ones.next()) {
        (Some((_, kind)), None) => *kind,
        _ => Outcome::Odd,
    }
}

thread_local! {
    static EXPECTS_PANICS: cell::Cell<bool> = const { cell::Cell::new(false) };
}

/// Runs `f` and returns the message of its panic, which is not printed.
fn expecting_panics<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPECTS_PANICS.get() {
                hook(info);
            }
        }));
    });
    let before = EXPECTS_PANICS.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    EXPECTS_PANICS.set(before);
    result.map_err(|payload| match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload
            .downcast_ref::<&str>()
            .map_or_else(|| "(no text)".to_owned(), |text| (*text).to_owned()),
    })
}

// ---- Side by side -------------------------------------------------------------------------------

/// Plays a case; returns the log, or what is wrong.
fn play(case: &Case) -> Result<Vec<Event>, String> {
    let world = World::new(case);
    let ops = case.all_ops();
    let mut model = Model::new(case);
    let mut agreed = 0;
    for (i, op) in ops.iter().enumerate() {
        world.step(op);
        model.step(op);
        let log = world.log.lock().unwrap();
        if *log != model.log {
            return Err(format!(
                "after {:?}:\n  expected {:?}\n  got      {:?}",
                &ops[..=i],
                &model.log[agreed..],
                &log[agreed..]
            ));
        }
        agreed = log.len();
    }
    // Everything that was given to the job holds a reference to the world.
    match Arc::try_unwrap(world) {
        Ok(world) => Ok(world.log.into_inner().unwrap()),
        Err(_) => Err(format!("after {ops:?}:\n  something is never dropped")),
    }
}

/// The current case, for a run that hangs.
static CURRENT: AtomicU64 = AtomicU64::new(0);

/// Prints the case if the test fails for another reason than a wrong answer.
struct Names;

impl Drop for Names {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("FUTUREPOOL_SEED={} was the last one", CURRENT.load(SeqCst));
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn a_handle_matches_its_model_in_every_order_of_operations() {
    let seeds = match (number("FUTUREPOOL_SEED"), number("FUTUREPOOL_ROUNDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, rounds) => 0..rounds.unwrap_or(20_000),
    };
    let all = seeds.start == 0 && seeds.end >= 20_000;
    let _names = Names;
    let limit = LONG + Duration::from_millis(seeds.end - seeds.start);
    within(limit, "random handles", move || {
        let mut seen: Vec<Event> = Vec::new();
        for seed in seeds {
            CURRENT.store(seed, SeqCst);
            let case = Case::new(seed);
            match play(&case) {
                Err(fault) => {
                    let (case, fault) = case.shrunk(fault);
                    panic!("seed {seed}, made smaller: {case:?}\nseed {seed}: {fault}");
                }
                Ok(log) => {
                    for event in log {
                        let known = matches!(event, Event::Called(id, _) | Event::Dropped(What::Callback(id)) if id > 1);
                        if !known && !seen.contains(&event) {
                            seen.push(event);
                        }
                    }
                }
            }
        }
        // A run that never reaches an event tests nothing about it.
        if all {
            use Outcome::{Broken, Cancelled, Panicked, Returned, Shutdown};
            for outcome in [Returned, Panicked, Cancelled, Shutdown, Broken] {
                assert!(seen.contains(&Event::Got(outcome)), "{outcome:?}");
                assert!(seen.contains(&Event::Called(1, outcome)), "{outcome:?}");
            }
            for event in [
                Event::Cancelled(true),
                Event::Cancelled(false),
                Event::CancelRequested(true),
                Event::Panicked("taken".to_owned()),
                Event::TimedOut,
                Event::Woken(0),
                Event::Woken(1),
                Event::Dropped(What::Result),
                Event::Dropped(What::Payload),
                Event::Dropped(What::Cause),
            ] {
                assert!(seen.contains(&event), "{event:?}");
            }
        }
    });
}
