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
//!
//! - `start.rs`: how a worker gets ready, is replaced, and leaves.
//! - `ended.rs`: what a worker's answer or its end means for a call.

mod ended;
mod start;

use std::io::{self, IoSlice, Write};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

pub(crate) use self::ended::{END_PATIENCE, describe_end, last_output};
use self::ended::{outcome, protocol_error, unknown_task};
use self::start::{FAILURE_LASTS, FirstStart, Next};
pub(crate) use self::start::{WANTED_EVERY, Want};
use crate::call::CallInfo;
use crate::call::codec::Payload;
use crate::error::{Failure, FailureCause, JoinError, WorkerName};
use crate::pool::PoolInner;
use crate::process::builder::Config;
use crate::process::calls::{Calls, Left, Part};
use crate::process::events::{self, EventRecord};
use crate::process::frame::{FrameError, Head, NoSigpipe, write_frame};
use crate::process::lifecycle;
use crate::process::output::Output;
use crate::process::spawn::{Ready, StartError};
use crate::process::supervisor::Supervisor;
use crate::process::wire::{self, RunHead, Status};
use crate::process::worker::{Control, KillReason, SAMPLE_EVERY, Worker};
use crate::task::state::Origin;

/// After so many failed starts in a row the pool is broken.
const MAX_FAILED_STARTS: u32 = 3;

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

/// What becomes of one call.
pub(crate) type Outcome = Result<Payload, JoinError>;

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
                    lifecycle::gone(&worker, Some(info));
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
            worker: Some(WorkerName::Pid(worker.pid())),
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
/// reads nothing keeps no thread forever, and one that reads is not killed because there is much
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
