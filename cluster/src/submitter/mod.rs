//! The submitter's side: jobs in, outcomes out.
//!
//! ```text
//!  user threads                 │ the I/O thread                        │ the resolver's thread
//!                               │                                       │
//!  Handle ── window ─ encode ───┼─► commands ─► Core: a table of Jobs   │
//!                               │     │ outbox ─► publish ─┐            │
//!  cancel hook ─────────────────┼─► cancel ─► fence ───────┤            │
//!                               │     reconnect, holders ──┤            │
//!                               │     look ────────────────┴─► Broker   │
//!                               │     outcomes ◄─────────────────┘      │
//!                               │        └──────────────────────────────┼─► End ─► TaskJob resolves
//! ```
//!
//! - [`window`] limits the jobs, [`metrics`] counts them.
//! - [`core`] is the loop, [`job`] a job's states and what it needs next.
//! - [`publish`] hands jobs over, [`fence`] keeps default jobs from starting.
//! - [`outcomes`] takes results over, [`holders`] follows the workers that have jobs.
//! - [`reconnect`] makes everything right again after the server was away.
//! - [`attach`] is for detached jobs.
//! - [`resolver`] runs callbacks and wakers: no user code runs on the I/O thread.

pub(crate) mod attach;
pub(crate) mod core;
pub(crate) mod fence;
pub(crate) mod holders;
pub(crate) mod job;
pub(crate) mod metrics;
pub(crate) mod outcomes;
pub(crate) mod publish;
pub(crate) mod reconnect;
pub(crate) mod resolver;
#[cfg(test)]
mod tests;
pub(crate) mod window;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::watch;
use bytes::Bytes;
use futurepool::{JoinError, JoinHandle, SubmitError, Task, TaskJob, block_on, promise};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use crate::broker::Broker;
use crate::protocol::job::Mode;
use crate::protocol::settings::Settings;
use crate::protocol::{MAX_PAYLOAD, names};
use crate::submitter::attach::Attached;
use crate::submitter::core::{Core, Reached};
use crate::submitter::job::{Booked, CallParts};
use crate::submitter::metrics::{Counters, Counts};
use crate::submitter::resolver::{Resolve, is_resolving};
use crate::submitter::window::{NoPermit, Permit, Window};
use crate::trace;

/// What a submitter has to know.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Its id, unique for ever: see [`client_id`].
    pub(crate) client: String,
    /// For people: `host/pid`.
    pub(crate) name: String,
    /// Those of the namespace, as [`Broker::ensure_stores`] returned them.
    pub(crate) settings: Settings,
    /// Whether it makes stores that are missing.
    pub(crate) create: bool,
    /// The queue of jobs that name none.
    pub(crate) queue: String,
    /// At most so many jobs are unresolved.
    pub(crate) window: usize,
    /// After this time without the server, jobs are reported as disconnected. `None`: never.
    pub(crate) disconnect_limit: Option<Duration>,
    /// After this time without a live worker for it, a job ends. `None`: never.
    pub(crate) no_worker_timeout: Option<Duration>,
    /// Where jitter and nonces come from.
    pub(crate) seed: u64,
}

impl Config {
    /// Returns the defaults, for a submitter with this id.
    pub(crate) fn new(client: String, settings: Settings) -> Self {
        Self {
            name: client.clone(),
            client,
            settings,
            create: true,
            queue: "default".to_owned(),
            window: 10_000,
            disconnect_limit: Some(Duration::from_secs(300)),
            no_worker_timeout: None,
            seed: fastrand::u64(..),
        }
    }
}

/// Makes a submitter's id.
pub(crate) fn client_id(rng: &mut fastrand::Rng) -> String {
    (0..16).map(|_| rng.alphanumeric()).collect()
}

/// What the handles and the core share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) window: Window,
    pub(crate) counters: Arc<Counters>,
    /// The core has ended before it was shut down.
    is_broken: AtomicBool,
    /// The core is gone: everything is resolved.
    pub(crate) ended: watch::Sender<bool>,
    /// Counts submissions: the key of a job in the core.
    next_key: AtomicU64,
}

/// What a handle tells the core.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Box<Submission>),
    Cancel {
        key: u64,
    },
    Attach(Box<Attached>),
    CancelAttached {
        key: u64,
    },
    /// Accepts nothing more. `now`: cancels everything, and answers how many jobs.
    Shutdown {
        now: Option<oneshot::Sender<usize>>,
    },
}

/// A job on its way to the core.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) key: u64,
    pub(crate) booked: Booked,
    /// Without the deadline.
    pub(crate) call: CallParts,
    pub(crate) deadline: Option<Instant>,
    pub(crate) accepted: Option<Accepted>,
}

/// Answers `submit_detached`: the job is in the queue, or goes back because its key is taken.
pub(crate) type Accepted = oneshot::Sender<Result<(), (JoinError, TaskJob)>>;

/// Submits jobs to a [`Core`]. A clone is the same submitter.
///
/// Dropping the last one ends the core once everything is resolved.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    queue: Arc<str>,
}

/// Creates a submitter. The core serves its handles while it is polled.
#[cfg(test)]
pub(crate) fn submitter<B: Broker>(
    broker: B,
    config: Config,
    resolver: Rc<dyn Resolve>,
    reached: Reached,
) -> (Handle, Core<B>) {
    let (handle, parts) = Handle::new(&config);
    let core = parts.into_core(broker, config, resolver, reached);
    (handle, core)
}

/// What a core needs from its handles, for the thread that will run it.
#[derive(Debug)]
pub(crate) struct CoreParts {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
}

impl CoreParts {
    pub(crate) fn into_core<B: Broker>(
        self,
        broker: B,
        config: Config,
        resolver: Rc<dyn Resolve>,
        reached: Reached,
    ) -> Core<B> {
        Core {
            broker,
            config,
            shared: self.shared,
            commands: self.commands,
            resolver,
            reached,
        }
    }
}

/// A job that was prepared on the caller's thread.
struct Prepared {
    job: TaskJob,
    call: CallParts,
    span: Span,
}

impl Handle {
    /// Creates the handle, and what its core will need. The core can be made on another thread.
    pub(crate) fn new(config: &Config) -> (Self, CoreParts) {
        let shared = Arc::new(Shared {
            window: Window::new(config.window),
            counters: Arc::default(),
            is_broken: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            next_key: AtomicU64::new(0),
        });
        let (sender, commands) = mpsc::unbounded_channel();
        let handle = Self {
            shared: Arc::clone(&shared),
            commands: sender,
            queue: config.queue.as_str().into(),
        };
        (handle, CoreParts { shared, commands })
    }

    /// Submits a job. Blocks while the window or the queue is full.
    pub(crate) fn submit(&self, job: TaskJob) {
        let permit = match self.shared.window.try_acquire() {
            Err(NoPermit::Full) => block_on(self.acquire()),
            result => result,
        };
        self.submit_with(permit, job);
    }

    /// Submits a job. Waits while the window or the queue is full. Dropping the future submits
    /// nothing, and resolves the job as cancelled.
    pub(crate) async fn submit_async(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
        match self.acquire().await {
            Ok(permit) => {
                self.submit_with(Ok(permit), job);
                Ok(())
            }
            Err(_) => {
                self.shared.counters.on_reject();
                Err(SubmitError::because(self.closed(), job))
            }
        }
    }

    /// Waits for a permit, except where all that frees permits waits for this thread.
    async fn acquire(&self) -> Result<Permit, NoPermit> {
        match is_resolving() {
            true => self.shared.window.exceed(),
            false => self.shared.window.acquire().await,
        }
    }

    /// Submits a job if there is room.
    pub(crate) fn try_submit(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
        match self.shared.window.try_acquire() {
            Ok(permit) => {
                self.submit_with(Ok(permit), job);
                Ok(())
            }
            Err(NoPermit::Full) => {
                self.shared.counters.on_reject();
                Err(SubmitError::full(job))
            }
            Err(NoPermit::Closed) => {
                self.shared.counters.on_reject();
                Err(SubmitError::because(self.closed(), job))
            }
        }
    }

    /// Submits a detached job, and waits until it is in the queue. A job whose key is taken comes
    /// back.
    pub(crate) async fn submit_detached(
        &self,
        key: &str,
        job: TaskJob,
    ) -> Result<(), SubmitError<TaskJob>> {
        if let Err(text) = names::key(key) {
            self.shared.counters.on_reject();
            let error = JoinError::refused(job.name(), text);
            return Err(SubmitError::because(error, job));
        }
        let permit = match self.acquire().await {
            Ok(permit) => permit,
            Err(_) => {
                self.shared.counters.on_reject();
                return Err(SubmitError::because(self.closed(), job));
            }
        };
        let Some(prepared) = self.prepare(job, Some(key)) else {
            // Its handle says why.
            return Ok(());
        };
        let (accepted, answer) = oneshot::channel();
        self.enqueue(permit, prepared, Some(accepted));
        match answer.await {
            Ok(Err((error, job))) => Err(SubmitError::because(error, job)),
            // The handle has, or will have, what became of it.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Returns a handle of the detached job with this key.
    #[track_caller]
    pub(crate) fn attach<T: Task>(&self, name: &str) -> JoinHandle<T::Output> {
        let (promise, handle) = promise::<T::Output>();
        // From now on, a cancel is for the job and not for this handle alone.
        promise.set_running();
        let key = self.next_key();
        let commands = self.commands.downgrade();
        promise.on_cancel(move || {
            if let Some(commands) = commands.upgrade() {
                let _ = commands.send(Command::CancelAttached { key });
            }
            false
        });
        let resolve = move |result: Result<futurepool::Payload, JoinError>| {
            let output = result.and_then(|payload| {
                T::decode_output(payload).map_err(|error| {
                    let text = format!("the output could not be decoded: {error}");
                    JoinError::codec(T::NAME, text, true)
                })
            });
            match output {
                Ok(output) => drop(promise.complete(output)),
                Err(error) => drop(promise.fail(error)),
            }
        };
        let attached = Attached {
            key,
            name: name.to_owned(),
            task: T::NAME,
            version: T::VERSION,
            signature: T::SIGNATURE,
            is_once: !T::IDEMPOTENT,
            resolve: Box::new(resolve),
        };
        if let Err(text) = names::key(name) {
            (attached.resolve)(Err(JoinError::refused(T::NAME, text)));
            return handle;
        }
        let command = Command::Attach(Box::new(attached));
        if let Err(mpsc::error::SendError(Command::Attach(attached))) = self.commands.send(command)
        {
            (attached.resolve)(Err(self.closed()));
        }
        handle
    }

    /// Accepts nothing more. The core ends once everything is resolved.
    pub(crate) fn shutdown(&self) {
        self.shared.window.close();
        let _ = self.commands.send(Command::Shutdown { now: None });
    }

    /// Accepts nothing more, and cancels everything. The answer is the number of jobs.
    pub(crate) fn shutdown_now(&self) -> oneshot::Receiver<usize> {
        self.shared.window.close();
        let (answer, count) = oneshot::channel();
        let _ = self.commands.send(Command::Shutdown { now: Some(answer) });
        count
    }

    /// Waits until the core has ended.
    #[cfg(test)]
    pub(crate) async fn ended(&self) {
        let mut ended = self.shared.ended.subscribe();
        // The sender is in `shared`, so the wait never fails.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.counters.snapshot()
    }

    pub(crate) fn window(&self) -> usize {
        self.shared.window.size()
    }

    /// Returns whether the server's queue is full.
    #[cfg(test)]
    pub(crate) fn is_queue_full(&self) -> bool {
        self.shared.window.is_queue_full()
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.shared.window.is_closed()
    }

    /// Returns why nothing is accepted.
    fn closed(&self) -> JoinError {
        match self.shared.is_broken.load(Ordering::Acquire) {
            true => JoinError::broken("the submitter has stopped working"),
            false => JoinError::shutdown(),
        }
    }

    fn next_key(&self) -> u64 {
        self.shared.next_key.fetch_add(1, Ordering::Relaxed)
    }

    fn submit_with(&self, permit: Result<Permit, NoPermit>, job: TaskJob) {
        match permit {
            Ok(permit) => {
                if let Some(prepared) = self.prepare(job, None) {
                    self.enqueue(permit, prepared, None);
                }
            }
            Err(_) => self.reject(job, self.closed()),
        }
    }

    /// Encodes a job. `None`: it cannot be submitted, and its handle has resolved.
    fn prepare(&self, job: TaskJob, key: Option<&str>) -> Option<Prepared> {
        if !job.is_named() {
            let text = "a task for other machines needs a name: #[task(name = \"…\")]";
            let error = JoinError::refused(job.name(), text);
            self.reject(job, error);
            return None;
        }
        let payload = match job.encode() {
            Ok(payload) => payload,
            Err(error) => {
                self.reject(job, error);
                return None;
            }
        };
        let size = payload.encoded_len();
        if size > MAX_PAYLOAD {
            let text = format!("the arguments have {size} bytes, and the most are {MAX_PAYLOAD}");
            let error = JoinError::refused(job.name(), text);
            self.reject(job, error);
            return None;
        }
        let subject = names::job_subject(&self.queue, job.name(), job.version());
        if subject.len() > names::MAX_JOB_SUBJECT {
            let text = "the name of the task is too long together with that of the queue";
            let error = JoinError::refused(job.name(), text);
            self.reject(job, error);
            return None;
        }
        let span = trace::job_span(job.name(), job.label());
        let call = CallParts {
            subject: subject.into(),
            task: job.name(),
            version: job.version(),
            signature: job.signature(),
            mode: match job.is_idempotent() {
                false => Mode::Once,
                true => Mode::Idempotent {
                    attempts: job.attempts(),
                },
            },
            deadline: None,
            time_limit: job.time_limit(),
            label: job.label().map(str::to_owned),
            key: key.map(str::to_owned),
            traceparent: trace::traceparent(&span),
            body: Bytes::from(payload.to_bytes()),
        };
        Some(Prepared { job, call, span })
    }

    fn reject(&self, job: TaskJob, error: JoinError) {
        self.shared.counters.on_reject();
        job.fail(error);
    }

    fn enqueue(&self, permit: Permit, prepared: Prepared, accepted: Option<Accepted>) {
        let Prepared { job, call, span } = prepared;
        let key = self.next_key();
        // Weak: a job that is kept somewhere must not keep the core.
        let commands = self.commands.downgrade();
        job.on_cancel(move || {
            if let Some(commands) = commands.upgrade() {
                let _ = commands.send(Command::Cancel { key });
            }
            false
        });
        let submission = Submission {
            key,
            deadline: job.deadline(),
            booked: Booked::new(job, permit, Arc::clone(&self.shared.counters), span),
            call,
            accepted,
        };
        let command = Command::Submit(Box::new(submission));
        if let Err(mpsc::error::SendError(Command::Submit(submission))) =
            self.commands.send(command)
        {
            submission.booked.resolve_here(self.closed());
        }
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}
