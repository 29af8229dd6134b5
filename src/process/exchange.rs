//! One thread of the pool and its worker process: the thread sends calls, and reads the results.
//!
//! ```text
//!   job ─► Link::run ─► a worker that is ready: ready, booting, or new
//!              │
//!              ├─► RUN ──► worker ──► RESULTS, in parts ──► the sink
//!              └─► the worker ended: why?  running call: an error; later calls: the next worker
//! ```
//!
//! A call has *begun* if its message was wholly written, and the worker has counted it: see
//! `counter.rs`. It is sent to no other worker then, unless its task says that it may be.

use std::io::{self, IoSlice, Write};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::call::CallInfo;
use crate::call::codec::Payload;
use crate::error::{Cause, Failure, FailureCause, JoinError, RemotePanic};
use crate::pool::PoolInner;
use crate::process::builder::Config;
use crate::process::calls::{Calls, Left, Part};
use crate::process::events::{self, EventRecord};
use crate::process::frame::{FrameError, Head, NoSigpipe, write_frame};
use crate::process::lifecycle;
use crate::process::output::Output;
use crate::process::spawn::{Ready, StartError, Starting, Unstarted};
use crate::process::supervisor::Supervisor;
use crate::process::wire::{self, RunHead, Status};
use crate::process::worker::{Activity, Control, Ended, KillReason, SAMPLE_EVERY, Worker};
use crate::task::state::Origin;

/// How long a failed start is told to jobs without another attempt, which may take until the start
/// timeout.
const FAILURE_LASTS: Duration = Duration::from_secs(1);

/// After so many failed starts in a row the pool is broken.
const MAX_FAILED_STARTS: u32 = 3;

/// How long a worker that has closed its socket may take to end. A process closes it when it ends,
/// but a busy system may take a while for the rest.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(1);

/// How long a killed process may take to end.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// What the threads of a pool share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    // Dropped first, as it waits for the workers to end.
    pub(crate) supervisor: Supervisor,
    pub(crate) output: Output,
    next_generation: AtomicU32,
    next_job: AtomicU64,
    failed_starts: AtomicU32,
    /// Until it is known that the program can be a worker, only one worker is started at a time.
    first_start: Mutex<FirstStart>,
    /// Notified when a first start has ended.
    first_start_ended: Condvar,
    /// The worker whose replacement was started before it has ended. The lock of a worker is taken
    /// inside of this one.
    replaced: Mutex<Weak<Worker>>,
}

#[derive(Debug, Default)]
struct FirstStart {
    succeeded: bool,
    /// A thread starts a worker now.
    busy: bool,
    /// How many of them have ended.
    ended: u64,
    /// Why the last one failed, for the threads that waited for it.
    failed: Option<StartError>,
}

/// How often a thread that waits for a worker to start looks whether its job is still wanted.
pub(crate) const WANTED_EVERY: Duration = Duration::from_millis(10);

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            supervisor: Supervisor::new(config.memory_limit),
            output: Output::new(),
            config,
            next_generation: AtomicU32::new(1),
            next_job: AtomicU64::new(1),
            failed_starts: AtomicU32::new(0),
            first_start: Mutex::default(),
            first_start_ended: Condvar::new(),
            replaced: Mutex::default(),
        }
    }

    fn first_start(&self) -> MutexGuard<'_, FirstStart> {
        self.first_start
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a worker may be started before `old` has ended. Only one in the pool is
    /// replaced like this at a time, so that there is at most one process more than the maximum.
    fn may_replace(&self, old: &Arc<Worker>) -> bool {
        let lock = self.replaced.lock();
        let mut replaced = lock.unwrap_or_else(PoisonError::into_inner);
        let before = replaced.upgrade();
        let has_ended = |worker: &Arc<Worker>| matches!(worker.activity(), Activity::Ended);
        let may = before.as_ref().is_none_or(has_ended);
        if may {
            *replaced = Arc::downgrade(old);
        }
        drop(replaced);
        // Perhaps the last reference.
        drop(before);
        may
    }

    fn begin_start(&self) -> Result<Starting, StartError> {
        let generation = self.next_generation.fetch_add(1, Ordering::Relaxed);
        Starting::begin(&self.config, &self.supervisor, &self.output, generation)
    }
}

/// A thread's side of a worker process.
#[derive(Debug)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    ready: Option<Ready>,
    /// A worker that starts.
    next: Option<Next>,
    /// The last worker, which was asked to leave.
    left: Option<Arc<Worker>>,
    /// Why the last start failed, and when: told to a job that comes soon. For a later one the
    /// start is tried again.
    failed: Option<(StartError, Instant)>,
    scratch: Vec<u8>,
}

/// A worker that starts.
#[derive(Debug)]
enum Next {
    Boots(Starting),
    /// It runs its initializer, with a thread of its own.
    Prepares {
        worker: Arc<Worker>,
        result: Receiver<Result<Ready, StartError>>,
    },
}

impl Next {
    fn worker(&self) -> &Arc<Worker> {
        match self {
            Self::Boots(starting) => starting.worker(),
            Self::Prepares { worker, .. } => worker,
        }
    }
}

/// What becomes of one call.
pub(crate) type Outcome = Result<Payload, JoinError>;

/// For what a thread needs a worker.
#[derive(Clone, Copy)]
pub(crate) struct Want<'a> {
    /// Of the job that waits for it. `None` if a job may come.
    control: Option<&'a Arc<Control>>,
    pool: Option<&'a Arc<PoolInner>>,
}

impl<'a> Want<'a> {
    /// A worker for the jobs that `pool` still has.
    pub(crate) fn of_pool(pool: &'a Arc<PoolInner>) -> Self {
        Self {
            control: None,
            pool: Some(pool),
        }
    }

    /// Returns whether the worker is still needed.
    pub(crate) fn holds(&self) -> bool {
        let Some(control) = self.control else {
            return !self.pool.is_some_and(|pool| pool.is_closed_and_empty());
        };
        // A pool that stops cancels the jobs that it finds in its workers. This one may not be
        // there yet.
        if self.pool.is_some_and(|pool| pool.is_stopping()) {
            control.cancel();
        }
        !control.is_cancelled()
    }
}

/// What is left to do of a job.
struct Rest<'a> {
    calls: Left<'a>,
    /// The calls before this one have begun once, and are to run again. They are sent one by one,
    /// so that none of them is lost again with another one.
    begun_once: usize,
    /// How often the first call was begun after that.
    starts: u32,
    /// How often in a row a worker was gone, or wanted none of the calls, before it had begun any.
    losses: u32,
    /// What became of the calls that have begun once: their error if they cannot run again.
    first_error: Option<JoinError>,
    /// It is no job, but a part of the start of a worker.
    initializes: bool,
}

impl<'a> Rest<'a> {
    fn new(calls: &'a Calls) -> Self {
        Self {
            calls: Left::new(calls),
            begun_once: 0,
            starts: 0,
            losses: 0,
            first_error: None,
            initializes: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.calls.count() == 0
    }

    /// Hands over the result of the first call.
    fn resolve(&mut self, outcome: Outcome, sink: &mut dyn FnMut(Outcome)) {
        self.calls.advance();
        (self.starts, self.losses) = (0, 0);
        sink(outcome);
    }

    fn fail_all(&mut self, error: &JoinError, sink: &mut dyn FnMut(Outcome)) {
        while !self.is_empty() {
            self.fail_next(error.replicate(), sink);
        }
    }

    /// Fails the first call, which has not begun now. If it has begun before, its error must not
    /// say that it never ran.
    fn fail_next(&mut self, error: JoinError, sink: &mut dyn FnMut(Outcome)) {
        let before = self.first_error.as_ref().filter(|_| self.has_started());
        let error = before.map_or(error, JoinError::replicate);
        self.resolve(Err(error), sink);
    }

    /// Returns whether the first call was begun before.
    fn has_started(&self) -> bool {
        self.calls.next() < self.begun_once
    }

    /// Returns how many calls may be sent together.
    fn most(&self, worker: &Worker) -> usize {
        if self.has_started() || worker.counter.is_none() {
            return 1;
        }
        usize::MAX
    }
}

/// Why the exchange with a worker stopped.
enum Stop {
    /// All results are there, or the worker has skipped the other calls.
    Done,
    /// The worker can no longer be used. `panic`: the running call panicked, which ended the
    /// worker.
    Gone { sent: Sent, panic: Option<Payload> },
}

/// The calls of a message.
#[derive(Debug, Clone, Copy)]
struct Sent {
    calls: usize,
    /// How many of them have a result.
    done: usize,
}

impl Sent {
    fn left(self) -> usize {
        self.calls - self.done
    }

    /// Returns how many calls without a result have begun. The worker has ended.
    fn begun(self, worker: &Worker) -> usize {
        match &worker.counter {
            Some(counter) if self.calls > 1 => {
                let begun = counter.begun().saturating_sub(self.done);
                begun.min(self.left())
            }
            // The whole message is one call.
            _ => self.left(),
        }
    }
}

impl Link {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            ready: None,
            next: None,
            left: None,
            failed: None,
            scratch: Vec::new(),
        }
    }

    /// Ensures that a worker is ready, as long as one is wanted. An error is kept for a job that
    /// comes soon.
    pub(crate) fn prepare(&mut self, want: &Want<'_>) {
        if self.failed.is_none() {
            let failed = self.worker(want).err();
            let passes =
                |error: &StartError| error.is_abandoned() || error.unstarted == Unstarted::Lacking;
            let failed = failed.filter(|error| !passes(error));
            self.failed = failed.map(|error| (error, Instant::now()));
        }
    }

    /// Returns whether [`prepare`](Self::prepare) has something to do.
    pub(crate) fn needs_worker(&self) -> bool {
        self.failed.is_none()
            && !self
                .ready
                .as_ref()
                .is_some_and(|ready| ready.worker.is_usable())
    }

    /// Returns a worker that is ready. Starts one if need be, and abandons that if it is not wanted
    /// any more.
    fn worker(&mut self, want: &Want<'_>) -> Result<Arc<Worker>, StartError> {
        if self
            .ready
            .as_ref()
            .is_some_and(|ready| !ready.worker.is_usable())
        {
            if let Some(ready) = &self.ready {
                lifecycle::gone(&ready.worker, None);
            }
            self.let_go();
        }
        if self.ready.is_none() {
            let started = self.start(want);
            let shared = &self.shared;
            match started {
                Ok(ready) => {
                    shared.failed_starts.store(0, Ordering::Release);
                    lifecycle::ready(&ready.worker);
                    self.ready = Some(ready);
                }
                Err(error) => {
                    match error.unstarted {
                        Unstarted::Failed | Unstarted::Killed => {
                            lifecycle::start_failed(&error);
                            shared.failed_starts.fetch_add(1, Ordering::AcqRel);
                        }
                        // That passes, so it is no reason to give the pool up.
                        Unstarted::Lacking => lifecycle::start_failed(&error),
                        Unstarted::FailedElsewhere | Unstarted::Abandoned => {}
                    }
                    return Err(error);
                }
            }
        }
        let ready = self.ready.as_ref().expect("it was just set");
        Ok(Arc::clone(&ready.worker))
    }

    fn start(&mut self, want: &Want<'_>) -> Result<Ready, StartError> {
        if self.next.is_some() {
            match self.next_ready(want) {
                Ok(ready) => return Ok(ready),
                Err(error) if !error.is_abandoned() => lifecycle::start_failed(&error),
                Err(error) if !want.holds() => return Err(error),
                // The pool needed no further worker, but a job is to run again.
                Err(_) => {}
            }
            // Another one is started, whose error is told.
        }
        // Only a replacement is a process more than the maximum.
        self.wait_for_left();
        let shared = Arc::clone(&self.shared);
        // One after the other, until it is known that the program can be a worker.
        let mut first = shared.first_start();
        let ended = first.ended;
        while first.busy && !first.succeeded {
            let waited = shared.first_start_ended.wait_timeout(first, WANTED_EVERY);
            first = waited.unwrap_or_else(PoisonError::into_inner).0;
            let failed = first.failed.clone().filter(|_| first.ended != ended);
            if let (false, Some(error)) = (first.succeeded, failed) {
                // Otherwise each of many threads would wait for a start of its own.
                let unstarted = Unstarted::FailedElsewhere;
                return Err(StartError { unstarted, ..error });
            }
            if !want.holds() {
                return Err(StartError::abandoned());
            }
        }
        let is_first = !first.succeeded;
        first.busy |= is_first;
        drop(first);
        let mut kills = 0;
        let started = loop {
            let started = shared.begin_start().and_then(|starting| {
                self.next = Some(Next::Boots(starting));
                self.greeted(want)
            });
            // That says nothing about the program.
            let was_killed = |error: &StartError| error.unstarted == Unstarted::Killed;
            if kills == MAX_FAILED_STARTS || !started.as_ref().is_err_and(was_killed) {
                break started;
            }
            kills += 1;
        };
        if is_first {
            let mut first = shared.first_start();
            first.busy = false;
            first.succeeded |= started.is_ok();
            if let Err(error) = started.as_ref().map_err(Clone::clone) {
                first.failed = Some(error).filter(|error| !error.is_abandoned());
            }
            first.ended += 1;
            drop(first);
            shared.first_start_ended.notify_all();
        }
        self.initialize(started?, want)
    }

    /// Waits until the worker that starts is ready. If it is no longer wanted, it goes on starting,
    /// for a job that comes later.
    fn next_ready(&mut self, want: &Want<'_>) -> Result<Ready, StartError> {
        let Some(Next::Prepares { worker, result }) = &self.next else {
            let ready = self.greeted(want)?;
            return self.initialize(ready, want);
        };
        loop {
            let ready = match result.recv_timeout(WANTED_EVERY) {
                Err(RecvTimeoutError::Timeout) if want.holds() => continue,
                Err(RecvTimeoutError::Timeout) => return Err(StartError::abandoned()),
                Err(RecvTimeoutError::Disconnected) => {
                    Err(StartError::new("failed to start the thread of a start"))
                }
                Ok(ready) => ready,
            };
            if ready.is_err() {
                worker.kill(KillReason::Leaving);
            }
            self.next = None;
            return ready;
        }
    }

    /// Waits until the worker that boots has said what it is.
    fn greeted(&mut self, want: &Want<'_>) -> Result<Ready, StartError> {
        match self.next.take() {
            Some(Next::Boots(starting)) if starting.wait_for_greeting(want) => {
                starting.finish(&self.shared.config, want)
            }
            next => {
                self.next = next;
                Err(StartError::abandoned())
            }
        }
    }

    /// Runs the initializer in a new worker.
    fn initialize(&mut self, ready: Ready, want: &Want<'_>) -> Result<Ready, StartError> {
        let Some(initializer) = &self.shared.config.initializer else {
            return Ok(ready);
        };
        let info = initializer.info.clone();
        let call = initializer.call.clone();
        let check = initializer.check;
        let timeout = self.shared.config.start_timeout;
        let worker = Arc::clone(&ready.worker);
        self.ready = Some(ready);
        // The start has a limit of its own.
        let info = CallInfo {
            time_limit: Some(info.time_limit.map_or(timeout, |limit| limit.min(timeout))),
            deadline: None,
            ..info
        };
        // A cancel of the job that the worker is for ends the initializer, too.
        let control = want.control.map_or_else(Arc::default, Arc::clone);
        let mut outcome = None;
        let calls = Calls::from(call);
        let mut rest = Rest::new(&calls);
        rest.initializes = true;
        let mut sink = |result| outcome = Some(result);
        let stop = self.exchange(&worker, &info, &control, want, &mut rest, &mut sink);
        control.take_back();
        let ready = self.ready.take().expect("the exchange leaves it");
        let problem = match (stop, outcome) {
            (Ok(Stop::Done), Some(Ok(payload))) => match check(payload) {
                Ok(()) => return Ok(ready),
                Err(text) => text,
            },
            (Ok(Stop::Done), Some(Err(error))) => error.to_string(),
            (Ok(Stop::Gone { panic, .. }), _) => {
                self.end_of(&worker, &info, panic, true).to_string()
            }
            (Ok(Stop::Done), None) => "it gave no result".to_owned(),
            (Err(()), _) => "its worker ended before it began".to_owned(),
        };
        worker.kill(KillReason::Leaving);
        if !want.holds() {
            return Err(StartError::abandoned());
        }
        Err(StartError::new(format!(
            "the initializer failed: {problem}"
        )))
    }

    /// Sends calls of one task to a worker, and hands the result of each to `sink`, in order.
    ///
    /// `control` decides between a cancel and the outcome. The caller asks it before it uses the
    /// results.
    pub(crate) fn run(
        &mut self,
        info: &CallInfo,
        calls: &Calls,
        control: &Arc<Control>,
        pool: Option<&Arc<PoolInner>>,
        origin: Origin,
        sink: &mut dyn FnMut(Outcome),
    ) {
        let sink = &mut |outcome: Outcome| {
            sink(outcome.map_err(|error| error.submitted_at(origin)));
        };
        let mut rest = Rest::new(calls);
        let want = Want {
            control: Some(control),
            pool,
        };
        while !rest.is_empty() {
            // The job may have sent other calls before.
            if !want.holds() || !control.take_back() || control.skips_rest() {
                return rest.fail_all(&JoinError::cancelled(), sink);
            }
            let max = self.shared.config.max_payload;
            if rest.calls.part(1, max).is_none() {
                let text = format!("the arguments are larger than `max_payload`, {max} bytes");
                rest.resolve(Err(JoinError::codec(info.name, text, false)), sink);
                continue;
            }
            let failed = self.failed.take();
            let failed = failed.filter(|(_, at)| at.elapsed() < FAILURE_LASTS);
            let failed = failed.map(|(error, _)| error);
            let worker = match failed.map_or_else(|| self.worker(&want), Err) {
                Ok(worker) => worker,
                // The reason may be the cancel.
                Err(_) if !want.holds() => continue,
                Err(error) => {
                    let error = self.start_failed(error, pool);
                    return rest.fail_all(&error, sink);
                }
            };
            if let Some(error) = self.unable(info, rest.has_started()) {
                return rest.fail_all(&error, sink);
            }
            match self.exchange(&worker, info, control, &want, &mut rest, sink) {
                Ok(Stop::Done) => self.recycle(&worker),
                Ok(Stop::Gone { sent, panic }) => {
                    let has_panicked = panic.is_some();
                    let error = self.end_of(&worker, info, panic, true);
                    lifecycle::gone(&worker, Some(info.name));
                    self.ready = None;
                    match sent.begun(&worker) {
                        0 if !has_panicked => lost(info, &mut rest, sink),
                        begun => {
                            let begun = begun.max(1);
                            if !self.will_retry(info, control, &error, begun, &mut rest) {
                                fail_begun(&worker, info, error, begun, &mut rest, sink);
                            }
                        }
                    }
                }
                // Nothing has begun.
                Err(()) => {
                    let error = self.end_of(&worker, info, None, false);
                    lifecycle::gone(&worker, None);
                    self.ready = None;
                    match error.is_crashed() || error.is_cancelled() {
                        true => lost(info, &mut rest, sink),
                        // It has exceeded a limit before it could begin.
                        false => rest.fail_next(error, sink),
                    }
                }
            }
        }
    }

    /// Decides whether the calls that had begun when their worker ended run again.
    fn will_retry(
        &self,
        info: &CallInfo,
        control: &Control,
        error: &JoinError,
        begun: usize,
        rest: &mut Rest<'_>,
    ) -> bool {
        let first = rest.calls.next();
        let is_second = rest.has_started();
        let starts = 1 + rest.starts + u32::from(is_second);
        let retries = self.shared.config.retry_on_crash;
        let max_starts = info.attempts.min(retries.saturating_add(1));
        let may_retry = info.idempotent && error.is_crashed() && starts < max_starts;
        if !may_retry || control.is_cancelled() {
            return false;
        }
        match is_second {
            true => rest.starts += 1,
            false => rest.begun_once = first + begun,
        }
        rest.first_error = Some(error.replicate());
        true
    }

    /// Returns why the worker cannot run the task, or why it need not.
    fn unable(&self, info: &CallInfo, has_started: bool) -> Option<JoinError> {
        let is_late = |deadline| Instant::now() >= deadline;
        if !has_started && info.deadline.is_some_and(is_late) {
            return Some(JoinError::expired(info.name));
        }
        let tasks = &self.ready.as_ref()?.tasks;
        let mut versions = Vec::new();
        for (_, version, signature) in tasks.iter().filter(|(name, ..)| name == info.name) {
            if *version == info.version {
                if *signature == 0 || info.signature == 0 || *signature == info.signature {
                    return None;
                }
                return Some(unknown_task(
                    info,
                    "the worker's program has the task with other parameters or another result; build \
                     both programs from the same source, or give the task a new `version`"
                        .to_owned(),
                ));
            }
            versions.push(version.to_string());
        }
        let text = if versions.is_empty() {
            "the worker's program does not have this task; link it into the program, or add it to the \
             list of `process::init_tasks`"
                .to_owned()
        } else {
            format!(
                "the worker's program has the task in version {}, not {}; update that program",
                versions.join(", "),
                info.version
            )
        };
        Some(unknown_task(info, text))
    }

    fn start_failed(&self, error: StartError, pool: Option<&Arc<PoolInner>>) -> JoinError {
        let is_initializer = error.text.starts_with("the initializer failed");
        let failures = self.shared.failed_starts.load(Ordering::Acquire);
        let is_lacking = error.unstarted == Unstarted::Lacking;
        let is_broken = is_initializer || (failures >= MAX_FAILED_STARTS && !is_lacking);
        if let Some(pool) = pool {
            pool.counters().spawn_failed();
        }
        match pool {
            Some(pool) if is_broken => {
                let cause: Cause = Arc::new(error.into_io().into());
                pool.mark_broken(Arc::clone(&cause));
                JoinError::broken_by(cause)
            }
            _ => JoinError::spawn_failed(Arc::new(error.into_io())),
        }
    }

    /// Sends a message with calls, and reads results until all are there or the worker is gone.
    /// `Err` if nothing has begun.
    fn exchange(
        &mut self,
        worker: &Arc<Worker>,
        info: &CallInfo,
        control: &Arc<Control>,
        want: &Want<'_>,
        rest: &mut Rest<'_>,
        sink: &mut dyn FnMut(Outcome),
    ) -> Result<Stop, ()> {
        let shared = Arc::clone(&self.shared);
        let config = &shared.config;
        let part = rest.calls.part(rest.most(worker), config.max_payload);
        let part = part.ok_or(())?;
        let mut sent = Sent {
            calls: part.sizes.len(),
            done: 0,
        };
        let job = shared.next_job.fetch_add(1, Ordering::Relaxed);
        if !worker.begin_job(info, control) {
            return Err(());
        }
        if let Some(counter) = worker.counter.as_ref().filter(|_| sent.calls > 1) {
            counter.reset();
        }
        // A pool that stops after this finds the job.
        if !want.holds() || !control.send(worker) || control.skips_rest() {
            // It was cancelled, which `run` sees.
            worker.end_job(0);
            return Ok(Stop::Done);
        }
        let limit = match rest.initializes {
            true => info.time_limit,
            false => earlier_limit(config.time_limit, info.time_limit),
        };
        if !self.send(worker, job, info, &part, limit) {
            // A message that was not wholly written begins nothing.
            worker.end_job(0);
            worker.kill(KillReason::Leaving);
            return Err(());
        }
        set_limits(&shared, worker, limit);
        if !rest.initializes {
            self.prepare_replacement(worker, want.pool);
        }
        let ready = self.ready.as_mut().expect("the worker is ready");
        let gone = |sent, panic| Ok(Stop::Gone { sent, panic });
        let protocol = |text: &str| worker.kill(KillReason::Protocol(text.into()));
        while sent.left() > 0 {
            let mut frame = match ready.reader.read(&mut worker.socket()) {
                Ok(frame) => frame,
                // It ended, and has left a part of the message unread. So it has not begun: its
                // thread reads the whole message first.
                Err(FrameError::Io(error))
                    if error.kind() == io::ErrorKind::ConnectionReset && sent.done == 0 =>
                {
                    worker.end_job(0);
                    return Err(());
                }
                Err(error) => {
                    protocol_error(worker, error);
                    return gone(sent, None);
                }
            };
            if frame.head.generation != worker.generation() {
                protocol("it sent a message of another worker");
                return gone(sent, None);
            }
            if frame.head.kind == wire::EVENT {
                // What cannot be decoded is dropped: an event is no reason to fail a job.
                if let Ok(record) = EventRecord::decode(&frame.payload.body) {
                    events::replay(&record, info.name, worker.pid());
                }
                continue;
            }
            let results = match frame.head {
                Head {
                    kind: wire::RESULTS,
                    job: of,
                    ..
                } if of == job => wire::decode_results(&mut frame.payload),
                _ => None,
            };
            // A message without a result would start the clock of the running call anew.
            let results = results.filter(|results| (1..=sent.left()).contains(&results.len()));
            let Some(mut results) = results else {
                protocol("it sent something that is no result");
                return gone(sent, None);
            };
            if limit.is_some() {
                // What this thread does with the results is not in the time of the next call.
                worker.clear_time_limit();
            }
            while let Some((status, payload)) = results.next(&mut frame.payload.body) {
                match status {
                    Status::PanickedAndAborts => return gone(sent, Some(payload)),
                    Status::Skipped if sent.calls == 1 => {
                        protocol("it has skipped a call that it had to run");
                        return gone(sent, None);
                    }
                    Status::Skipped => {
                        // Neither this one has begun, nor those behind it.
                        worker.end_job(1);
                        rest.losses += 1;
                        if rest.losses >= MAX_FAILED_STARTS && !control.skips_rest() {
                            protocol("it does not run what it is sent");
                            return Err(());
                        }
                        return Ok(Stop::Done);
                    }
                    _ => {}
                }
                sent.done += 1;
                rest.resolve(outcome(status, payload, worker, info), sink);
            }
            if sent.left() > 0 {
                set_limits(&shared, worker, limit);
            }
        }
        worker.end_job(u64::from(!rest.initializes));
        Ok(Stop::Done)
    }

    /// Writes calls. Returns false if the message was not wholly written.
    fn send(
        &mut self,
        worker: &Worker,
        job: u64,
        info: &CallInfo,
        calls: &Part<'_>,
        limit: Option<Duration>,
    ) -> bool {
        let head = RunHead {
            task: info.name,
            version: info.version,
            level: events::current_level(),
        };
        let head = wire::encode_run(&head, calls.sizes);
        let frame = Head {
            kind: wire::RUN,
            generation: worker.generation(),
            job,
        };
        let body = [&head[..], calls.bodies];
        let shared = Arc::clone(&self.shared);
        let mut out = InPieces {
            socket: NoSigpipe(worker.socket()),
            before_each: || set_limits(&shared, worker, limit),
        };
        write_frame(&mut out, &mut self.scratch, frame, &body, calls.lanes).is_ok()
    }

    /// If this is the last job of the worker, starts the next worker meanwhile.
    fn prepare_replacement(&mut self, worker: &Arc<Worker>, pool: Option<&Arc<PoolInner>>) {
        let max = self.shared.config.max_jobs_per_worker;
        let is_last = max.is_some_and(|max| worker.jobs_done() + 1 >= max);
        if !is_last || self.next.is_some() || !self.shared.may_replace(worker) {
            return;
        }
        // If it fails, the next job tries again, and reports it.
        let Ok(starting) = self.shared.begin_start() else {
            return;
        };
        self.next = Some(match pool {
            Some(pool) if self.shared.config.initializer.is_some() => {
                initialize_apart(&self.shared, starting, Arc::clone(pool))
            }
            _ => Next::Boots(starting),
        });
    }

    /// Lets a worker go that has done enough, or has grown too large.
    fn recycle(&mut self, worker: &Arc<Worker>) {
        let config = &self.shared.config;
        let is_old = config
            .max_jobs_per_worker
            .is_some_and(|max| worker.jobs_done() >= max);
        let is_large = (config.recycle_above).is_some_and(|limit| worker.sample(false) > limit);
        if is_large && self.next.is_none() && self.shared.may_replace(worker) {
            self.next = self.shared.begin_start().ok().map(Next::Boots);
        }
        if is_old {
            lifecycle::leaves(
                worker,
                format_args!("it has run {} jobs", worker.jobs_done()),
            );
        } else if is_large {
            lifecycle::leaves(
                worker,
                format_args!("it has grown too large, {} bytes", worker.last_sample()),
            );
        }
        if is_old || is_large {
            self.let_go();
        }
    }

    /// Asks the worker to leave.
    fn let_go(&mut self) {
        if let Some(ready) = self.ready.take() {
            if let Some(at) = ready.worker.leave(Duration::from_secs(1)) {
                self.shared.supervisor.look_at(at);
            }
            self.left = Some(ready.worker);
        }
    }

    /// Waits until the worker that was asked to leave has ended.
    pub(crate) fn wait_for_left(&mut self) {
        if let Some(left) = self.left.take() {
            left.wait_for_end(KILL_PATIENCE);
        }
    }

    /// Ends this side: the worker leaves. `wait`: until it has left.
    pub(crate) fn close(&mut self, wait: bool, reason: &str) {
        let starting = self.next.take().map(|next| Arc::clone(next.worker()));
        // It runs no job. But its initializer may take long.
        if let Some(worker) = &starting {
            worker.kill(KillReason::Leaving);
        }
        match &self.ready {
            Some(ready) if ready.worker.is_usable() => lifecycle::leaves(&ready.worker, reason),
            Some(ready) => lifecycle::gone(&ready.worker, None),
            None => {}
        }
        self.let_go();
        if !wait {
            return;
        }
        if let Some(worker) = starting {
            worker.wait_for_end(KILL_PATIENCE);
        }
        // Those that were replaced earlier may not have ended yet, either.
        for worker in self.shared.supervisor.workers() {
            let is_leaving = matches!(worker.activity(), Activity::Leaving);
            if is_leaving && worker.wait_for_end(Duration::from_secs(2)).is_none() {
                worker.kill(KillReason::Leaving);
                worker.wait_for_end(KILL_PATIENCE);
            }
        }
    }

    /// Waits for the end of a worker that is gone, and returns the error of the call that ran or
    /// would have run.
    fn end_of(
        &self,
        worker: &Worker,
        info: &CallInfo,
        panic: Option<Payload>,
        may_have_run: bool,
    ) -> JoinError {
        let ended = worker.wait_for_end(END_PATIENCE).or_else(|| {
            let text = "it closed its connection and did not end";
            worker.kill(KillReason::Protocol(text.into()));
            worker.wait_for_end(KILL_PATIENCE)
        });
        worker.end_job(u64::from(may_have_run));
        let status = ended.and_then(|ended| ended.status);
        let output = last_output(worker).map(Box::from);
        if let Some(panic) = panic {
            return remote_panic(&panic, worker, info, status, output);
        }
        let cause = match worker.kill_reason() {
            Some(KillReason::Cancelled) => FailureCause::Killed,
            Some(KillReason::TimeLimit(limit)) => FailureCause::TimeLimit(limit),
            Some(KillReason::MemoryLimit { limit, seen }) => {
                FailureCause::MemoryLimit { limit, seen }
            }
            Some(KillReason::Protocol(text)) => {
                FailureCause::Crashed(format!("was killed: {text}").into())
            }
            Some(KillReason::Leaving) => FailureCause::Crashed("was killed with its pool".into()),
            None => FailureCause::Crashed(match ended {
                Some(ended) => describe_end(ended).into(),
                None => "was killed, and did not end in time".into(),
            }),
        };
        JoinError::failed(Failure {
            task: Some(info.name.into()),
            worker: Some(worker.pid()),
            status,
            output,
            may_have_run,
            ..Failure::new(cause)
        })
    }
}

/// Greets a worker and runs its initializer, on another thread. It goes on until `pool` needs no
/// workers.
fn initialize_apart(shared: &Arc<Shared>, starting: Starting, pool: Arc<PoolInner>) -> Next {
    let worker = Arc::clone(starting.worker());
    let (send, result) = mpsc::sync_channel(1);
    let mut link = Link::new(Arc::clone(shared));
    link.next = Some(Next::Boots(starting));
    // Without a thread the worker is dropped, and the next job starts another one.
    let spawned = thread::Builder::new()
        .name("futurepool-start".to_owned())
        .spawn(move || {
            let ready = link.next_ready(&Want::of_pool(&pool));
            drop((link, pool));
            // The receiver is gone if its thread has ended.
            let _ = send.send(ready);
        });
    drop(spawned);
    Next::Prepares { worker, result }
}

/// The worker was gone before it had begun any of the calls. Another one gets them, a few times.
fn lost(info: &CallInfo, rest: &mut Rest<'_>, sink: &mut dyn FnMut(Outcome)) {
    rest.losses += 1;
    if rest.losses >= MAX_FAILED_STARTS {
        let text = "several workers in a row ended before they could begin the job";
        let error = JoinError::failed(Failure {
            task: Some(info.name.into()),
            ..Failure::new(FailureCause::Crashed(text.into()))
        });
        rest.fail_all(&error, sink);
    }
}

/// Fails the calls that had begun when the worker ended. The last one of them was running.
fn fail_begun(
    worker: &Worker,
    info: &CallInfo,
    error: JoinError,
    begun: usize,
    rest: &mut Rest<'_>,
    sink: &mut dyn FnMut(Outcome),
) {
    let was_cancelled = matches!(worker.kill_reason(), Some(KillReason::Cancelled));
    for _ in 1..begun {
        let text =
            "ended in a later call of the same chunk, before it had sent the result of this one";
        let ended = || Failure {
            task: Some(info.name.into()),
            worker: Some(worker.pid()),
            status: error.exit_status(),
            may_have_run: true,
            ..Failure::new(FailureCause::Crashed(text.into()))
        };
        let own = match was_cancelled {
            true => error.replicate(),
            false => JoinError::failed(ended()),
        };
        rest.resolve(Err(own), sink);
    }
    rest.resolve(Err(error), sink);
}

fn unknown_task(info: &CallInfo, text: String) -> JoinError {
    JoinError::failed(Failure {
        task: Some(info.name.into()),
        ..Failure::new(FailureCause::UnknownTask(text.into()))
    })
}

fn earlier_limit(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Starts the clocks of the call that begins now.
fn set_limits(shared: &Shared, worker: &Worker, limit: Option<Duration>) {
    let now = Instant::now();
    if let Some((limit, at)) = limit.and_then(|limit| Some((limit, now.checked_add(limit)?))) {
        worker.set_time_limit(at, limit);
        shared.supervisor.look_at(at);
    }
    if shared.config.memory_limit.is_some() {
        shared
            .supervisor
            .look_at(worker.sample_by(now + SAMPLE_EVERY));
    }
}

/// How much is written at once.
const PIECE: usize = 1 << 20;

/// Writes large messages in pieces, each of which has the time limit for itself. So a worker that
/// reads nothing keeps no thread for ever, and one that reads is not killed because there is much
/// to read.
struct InPieces<W, F> {
    socket: W,
    before_each: F,
}

impl<W: Write, F: FnMut()> Write for InPieces<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.before_each)();
        self.socket.write(&bytes[..bytes.len().min(PIECE)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut left = PIECE;
        let fits = |part: &&IoSlice<'_>| {
            let fits = part.len() <= left;
            left = left.saturating_sub(part.len());
            fits
        };
        match parts.iter().take_while(fits).count() {
            0 => self.write(parts.first().map_or(&[], |part| part)),
            count => {
                (self.before_each)();
                self.socket.write_vectored(&parts[..count])
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Kills a worker that does not keep to the protocol. One that has ended is left alone.
fn protocol_error(worker: &Worker, error: FrameError) {
    let text = match error {
        FrameError::End | FrameError::Truncated => return,
        FrameError::Io(error) => {
            // The other end is gone.
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ) {
                return;
            }
            format!("its socket failed: {error}")
        }
        other => format!("it sent something that is no message: {other}"),
    };
    worker.kill(KillReason::Protocol(text.into()));
}

fn outcome(status: Status, payload: Payload, worker: &Worker, info: &CallInfo) -> Outcome {
    let text = || String::from_utf8_lossy(&payload.body).into_owned();
    match status {
        Status::Returned => Ok(payload),
        Status::Panicked | Status::PanickedAndAborts => {
            Err(remote_panic(&payload, worker, info, None, None))
        }
        Status::BadArguments => {
            let text = format!("the worker could not decode the arguments: {}", text());
            Err(JoinError::codec(info.name, text, false))
        }
        Status::BadOutput => {
            let text = format!("the worker could not encode the result: {}", text());
            Err(JoinError::codec(info.name, text, true))
        }
        Status::UnknownTask => Err(unknown_task(info, text())),
        Status::Skipped => Err(JoinError::cancelled()),
    }
}

fn remote_panic(
    payload: &Payload,
    worker: &Worker,
    info: &CallInfo,
    status: Option<std::process::ExitStatus>,
    output: Option<Box<str>>,
) -> JoinError {
    let (message, location) = wire::decode_panic(payload).unwrap_or(("(no text)", ""));
    let remote = RemotePanic {
        location: Some(location)
            .filter(|place| !place.is_empty())
            .map(Box::from),
        task: info.name.into(),
        worker: worker.pid(),
        status,
        output,
    };
    JoinError::panicked_in_worker(message.to_owned(), remote)
}

/// Returns the last lines that a worker has written to its stderr, as far as they were read.
pub(crate) fn last_output(worker: &Worker) -> Option<String> {
    let output = worker.output.stderr.as_ref()?;
    output.drain(Duration::from_millis(100));
    Some(output.tail())
}

/// Says how a process ended: what follows its name in a message.
pub(crate) fn describe_end(ended: Ended) -> String {
    let Some(status) = ended.status else {
        return "ended in an unknown way: another part of this program has reaped it".to_owned();
    };
    if let Some(code) = status.code() {
        return format!("exited with code {code}");
    }
    let Some(signal) = status.signal() else {
        return format!("ended with {status}");
    };
    let name = signal_name(signal).map_or(String::new(), |name| format!(" ({name})"));
    let core = if status.core_dumped() {
        ", core dumped"
    } else {
        ""
    };
    let hint = if signal == rustix::process::Signal::KILL.as_raw() {
        ", not by its pool: perhaps by the system's out-of-memory killer"
    } else {
        ""
    };
    format!("was killed by signal {signal}{name}{core}{hint}")
}

fn signal_name(number: i32) -> Option<&'static str> {
    use rustix::process::Signal;
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ];
    let named = names.iter().find(|(signal, _)| signal.as_raw() == number);
    named.map(|(_, name)| *name)
}
