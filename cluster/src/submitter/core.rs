//! The submitter's side of the protocol: one future, which owns all unresolved jobs.
//!
//! What takes time is a task in [`Ctx::tasks`]. Tasks share the state through cells, and no borrow
//! lives across an await. A decision is made in one borrow, and what follows from it outside.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use crate::watch;
use futurepool::JoinError;
use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::broker::{Broker, BrokerError, Consumer, Store};
use crate::protocol::live::{Live, LiveValue};
use crate::protocol::names;
use crate::protocol::settings::Settings;
use crate::submitter::attach::Attaching;
use crate::submitter::holders::Holders;
use crate::submitter::job::{CallParts, Job, Jobs, Phase, Step, Unresolved};
use crate::submitter::outcomes::Sweeps;
use crate::submitter::publish::Outbox;
use crate::submitter::reconnect::Link;
use crate::submitter::resolver::Resolve;
use crate::submitter::{Command, Config, Shared, Submission};

/// Called after a step of the protocol, with its name and the job's id: a place where tests stop
/// the process.
pub(crate) type Reached = Rc<dyn Fn(&'static str, &str)>;

/// The times of the submitter, all from those of the namespace.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    pub(crate) look_period: Duration,
    /// How long after its start a job that still runs has certainly said so, unless the notice was
    /// lost.
    pub(crate) news_of_start: Duration,
    /// How often a worker is asked again to stop a job.
    pub(crate) stop_again: Duration,
    /// How often the keys of the living are judged.
    pub(crate) tick: Duration,
    pub(crate) live_period: Duration,
    pub(crate) lease: Duration,
    pub(crate) request_timeout: Duration,
}

impl Times {
    fn new(settings: &Settings) -> Self {
        let lease = settings.lease;
        Self {
            look_period: settings.look_period(),
            news_of_start: lease / 100,
            stop_again: (lease / 30).min(Duration::from_secs(1)),
            tick: lease / 30,
            live_period: settings.live_period(),
            lease,
            request_timeout: settings.request_timeout(),
        }
    }
}

/// What the handle of a detached job says after a shutdown.
const LEFT: &str = "the submitter was shut down; attach to the key for the outcome";

/// At most so many rare operations at a time: fences, looks, cancels.
const RARE_AT_A_TIME: usize = 64;

/// The submitter's side of the protocol.
pub(crate) struct Core<B: Broker> {
    pub(crate) broker: B,
    pub(crate) config: Config,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) resolver: Rc<dyn Resolve>,
    pub(crate) reached: Reached,
}

impl<B: Broker> fmt::Debug for Core<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

impl<B: Broker> Core<B> {
    /// Serves the handles until the shutdown is complete. Dropping the future resolves all handles.
    pub(crate) async fn run(self) {
        let Self {
            broker,
            config,
            shared,
            commands,
            resolver,
            reached,
        } = self;
        let ctx = Rc::new(Ctx::new(broker, config, shared, resolver, reached));
        // Dropped last, so that no task is left that could work for a job.
        let _end = EndOfCore(Rc::clone(&ctx));
        let mut tasks = FuturesUnordered::new();
        ctx.spawn(Rc::clone(&ctx).take_commands(commands));
        ctx.spawn(Rc::clone(&ctx).supervise());
        ctx.spawn(Rc::clone(&ctx).report_disconnected());
        ctx.spawn(Rc::clone(&ctx).consume_outcomes());
        ctx.spawn(Rc::clone(&ctx).sweep());
        ctx.spawn(Rc::clone(&ctx).write_live());
        ctx.spawn(Rc::clone(&ctx).watch_live());
        ctx.spawn(Rc::clone(&ctx).judge_holders());
        ctx.spawn(Rc::clone(&ctx).receive_events());
        ctx.spawn(Rc::clone(&ctx).run_timers());
        ctx.spawn(Rc::clone(&ctx).pump_outbox());
        ctx.spawn(Rc::clone(&ctx).release_retired());
        ctx.spawn(Rc::clone(&ctx).watch_kept());
        ctx.spawn(Rc::clone(&ctx).close());
        poll_fn(|cx| {
            loop {
                tasks.extend(ctx.tasks.take());
                match tasks.poll_next_unpin(cx) {
                    _ if ctx.is_closed.get() => return Poll::Ready(()),
                    Poll::Ready(Some(())) => {}
                    Poll::Ready(None) | Poll::Pending if ctx.tasks.borrow().is_empty() => {
                        return Poll::Pending;
                    }
                    Poll::Ready(None) | Poll::Pending => {}
                }
            }
        })
        .await;
    }
}

/// Resolves what is left when the core ends, whether it returns, panics or is dropped.
struct EndOfCore<B: Broker>(Rc<Ctx<B>>);

impl<B: Broker> Drop for EndOfCore<B> {
    fn drop(&mut self) {
        let ctx = &self.0;
        if !ctx.is_closed.get() {
            ctx.shared.is_broken.store(true, Ordering::Release);
        }
        ctx.shared.window.close();
        // They hold the context, which holds them.
        drop(ctx.tasks.take());
        // The resolvers run user code, so not in a borrow.
        let jobs = ctx.jobs.take();
        drop(jobs);
        let attached = ctx.attached.take();
        drop(attached);
        ctx.shared.ended.send_replace(true);
    }
}

/// What the tasks of the core share.
pub(crate) struct Ctx<B: Broker> {
    pub(crate) broker: B,
    pub(crate) config: Config,
    pub(crate) shared: Arc<Shared>,
    pub(crate) resolver: Rc<dyn Resolve>,
    reached: Reached,
    pub(crate) times: Times,
    /// The key of this submitter in the store of the living.
    pub(crate) me: String,
    pub(crate) results: Consumer,
    pub(crate) jobs: RefCell<Jobs>,
    pub(crate) outbox: Outbox,
    pub(crate) link: Link,
    pub(crate) live: RefCell<Live>,
    pub(crate) holders: RefCell<Holders>,
    pub(crate) sweeps: Sweeps,
    pub(crate) attached: RefCell<Attaching>,
    /// Claims of jobs whose message may still arrive.
    pub(crate) retired: RefCell<Vec<crate::submitter::fence::Retired>>,
    rng: RefCell<fastrand::Rng>,
    /// Tasks that the core has not taken over yet.
    tasks: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    /// Tasks that end, and whose end a shutdown waits for.
    short_tasks: Cell<usize>,
    rare: Semaphore,
    timers_changed: Notify,
    /// A job was resolved, or a short task has ended.
    pub(crate) progress: Notify,
    is_closing: watch::Sender<bool>,
    /// What is not in the queue yet is cancelled.
    is_stopping: Cell<bool>,
    /// Everything is resolved, so nothing more is taken.
    is_done: Cell<bool>,
    all_done: Notify,
    takes_commands: Cell<bool>,
    is_closed: Cell<bool>,
}

impl<B: Broker> Ctx<B> {
    fn new(
        broker: B,
        config: Config,
        shared: Arc<Shared>,
        resolver: Rc<dyn Resolve>,
        reached: Reached,
    ) -> Self {
        let me = names::live_client(&config.client);
        Self {
            broker,
            times: Times::new(&config.settings),
            results: Consumer::Results(config.client.as_str().into()),
            live: RefCell::new(Live::new(me.clone(), &config.settings)),
            rng: RefCell::new(fastrand::Rng::with_seed(config.seed)),
            me,
            config,
            shared,
            resolver,
            reached,
            jobs: RefCell::default(),
            outbox: Outbox::default(),
            link: Link::default(),
            holders: RefCell::default(),
            sweeps: Sweeps::default(),
            attached: RefCell::default(),
            retired: RefCell::default(),
            tasks: RefCell::default(),
            short_tasks: Cell::new(0),
            rare: Semaphore::new(RARE_AT_A_TIME),
            timers_changed: Notify::new(),
            progress: Notify::new(),
            is_closing: watch::Sender::new(false),
            is_stopping: Cell::new(false),
            is_done: Cell::new(false),
            all_done: Notify::new(),
            takes_commands: Cell::new(true),
            is_closed: Cell::new(false),
        }
    }

    /// Starts a task that lasts as long as the core.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push(Box::pin(task));
    }

    /// Starts a task whose end a shutdown waits for.
    pub(crate) fn spawn_short(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.short_tasks.set(self.short_tasks.get() + 1);
        let this = Rc::clone(self);
        self.spawn(async move {
            task.await;
            this.short_tasks.set(this.short_tasks.get() - 1);
            this.progress.notify_waiters();
        });
    }

    pub(crate) fn reached(&self, step: &'static str, id: &str) {
        (self.reached)(step, id);
    }

    pub(crate) fn random(&self) -> u64 {
        self.rng.borrow_mut().u64(..)
    }

    /// Returns a text that names the job with this number.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{}-{}", self.config.client, Base36(number))
    }

    /// Returns the number of a job's id. `None` if it is no id of this submitter.
    pub(crate) fn number_of(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(&self.config.client)?.strip_prefix('-')?;
        u64::from_str_radix(number, 36).ok()
    }

    /// Returns whether the job is unresolved and still has this id.
    pub(crate) fn is_open(&self, key: u64, number: u64) -> bool {
        let jobs = self.jobs.borrow();
        jobs.get(key).is_some_and(|job| job.number == Some(number))
    }

    /// Changes a job. `None` if it is resolved.
    pub(crate) fn with_job<R>(&self, key: u64, change: impl FnOnce(&mut Job) -> R) -> Option<R> {
        self.jobs.borrow_mut().get_mut(key).map(change)
    }

    /// Takes a job out of the table, to resolve it.
    pub(crate) fn take_job(&self, key: u64) -> Option<Job> {
        let job = self.jobs.borrow_mut().remove(key)?;
        self.holders.borrow_mut().on_end(&job);
        self.progress.notify_waiters();
        // It may have been the last one in the outbox, which waits for a queue with room.
        self.outbox.on_end();
        Some(job)
    }

    /// Does what a job needs now, if nothing does already.
    pub(crate) fn poke(self: &Rc<Self>, key: u64) {
        let now = Instant::now();
        let mut jobs = self.jobs.borrow_mut();
        let Some(job) = jobs.get_mut(key).filter(|job| !job.busy) else {
            return;
        };
        match job.next_step(now, &self.times) {
            Step::WaitInOutbox => {
                drop(jobs);
                self.outbox.changed.notify_one();
            }
            Step::Wait(until) => {
                jobs.set_timer(key, Some(until));
                drop(jobs);
                self.timers_changed.notify_one();
            }
            // Nothing was stored for it, so nothing has to be reached.
            Step::End(stop) if job.kept.is_none() => {
                drop(jobs);
                self.end_unsent_now(key, stop);
            }
            _ => {
                job.busy = true;
                jobs.leave_outbox(key);
                drop(jobs);
                self.spawn_short(Rc::clone(self).work_for(key));
            }
        }
    }

    /// Sends a job that has left the outbox. The caller has set `busy`.
    pub(crate) fn send(self: &Rc<Self>, key: u64) {
        let this = Rc::clone(self);
        self.spawn_short(async move {
            this.publish(key).await;
            this.outbox.on_sent();
            this.rest(key);
        });
    }

    /// Does what a job needs, until it has to wait.
    async fn work_for(self: Rc<Self>, key: u64) {
        let _permit = self.rare().await;
        self.until_ready().await;
        let now = Instant::now();
        let step = self.with_job(key, |job| job.next_step(now, &self.times));
        match step {
            None | Some(Step::Wait(_) | Step::WaitInOutbox) => {}
            Some(Step::Publish) => self.publish(key).await,
            Some(Step::Fence) => self.fence(key).await,
            Some(Step::End(stop)) => self.end_unsent(key, stop).await,
            Some(Step::Stop(stop)) => self.stop(key, stop).await,
            Some(Step::CheckClaim) => self.check_claim(key).await,
            Some(Step::Look) => self.look(key).await,
        }
        self.rest(key);
    }

    /// Ends the work for a job, and begins the next that it needs.
    fn rest(self: &Rc<Self>, key: u64) {
        let needs_outbox = self.with_job(key, |job| {
            job.busy = false;
            // The queue does not take it now, and nothing waits until it does.
            job.cancel |= self.is_stopping.get() && job.phase == Phase::Unsent;
            job.phase == Phase::Unsent
        });
        match needs_outbox {
            None => {}
            Some(true) => {
                self.jobs.borrow_mut().put_back(key);
                self.poke(key);
            }
            Some(false) => {
                self.leave(key);
                self.poke(key);
            }
        }
    }

    /// Waits for the times at which jobs need something.
    async fn run_timers(self: Rc<Self>) {
        loop {
            let next = self.jobs.borrow().next_timer();
            tokio::select! { biased;
                () = self.timers_changed.notified() => continue,
                () = sleep_or_wait(next) => {}
            }
            let due = self.jobs.borrow_mut().take_due(Instant::now());
            for key in due {
                self.poke(key);
            }
        }
    }

    async fn take_commands(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let command = tokio::select! { biased;
                () = self.all_done.notified() => {
                    // What was sent before still comes, and later senders learn that it is over.
                    commands.close();
                    continue;
                }
                command = commands.recv() => command,
            };
            let Some(command) = command else {
                break;
            };
            match command {
                Command::Submit(submission) => {
                    let key = submission.key;
                    self.on_submit(*submission);
                    self.poke(key);
                }
                Command::Cancel { key } => self.on_cancel(key),
                Command::Attach(attached) => self.on_attach(*attached),
                Command::CancelAttached { key } => self.on_cancel_attached(key),
                Command::Shutdown { now } => {
                    self.is_closing.send_replace(true);
                    if let Some(answer) = now {
                        self.leave_detached();
                        self.cancel_all(answer);
                    }
                }
            }
        }
        // No handle of the submitter is left, or nothing more is taken.
        self.shared.window.close();
        self.is_closing.send_replace(true);
        self.takes_commands.set(false);
        self.progress.notify_waiters();
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.is_closing.borrow()
    }

    /// Ends the handles of detached jobs, those that were attached too.
    fn leave_detached(&self) {
        let detached: Vec<u64> = {
            let jobs = self.jobs.borrow();
            let detached = jobs.iter().filter(|(_, job)| job.call.key.is_some());
            detached.map(|(key, _)| key).collect()
        };
        for key in detached {
            self.with_job(key, |job| job.is_leaving = true);
            self.leave(key);
        }
        self.report_attached(LEFT, |_| true);
    }

    fn on_submit(self: &Rc<Self>, submission: Submission) {
        let Submission {
            key,
            booked,
            call,
            deadline,
            accepted,
        } = submission;
        let now = Instant::now();
        let call = CallParts {
            deadline: deadline.map(Instant::from_std),
            ..call
        };
        let handle = Unresolved::new(booked, Rc::clone(&self.resolver));
        if handle.is_cancelled() {
            handle.resolve(Err(JoinError::cancelled()));
            return;
        }
        // It had room before the shutdown, and comes after it.
        if self.is_done.get() {
            handle.resolve(Err(JoinError::shutdown()));
            return;
        }
        let mut job = Job::new(handle, call, now);
        job.accepted = accepted;
        self.holders.borrow_mut().on_submit(&job);
        self.jobs.borrow_mut().insert(key, job);
        self.timers_changed.notify_one();
    }

    fn on_cancel(self: &Rc<Self>, key: u64) {
        let is_cancelled = self.with_job(key, |job| {
            job.cancel = true;
            job.stop_again = None;
            // What is kept of a detached job has to end, too, or may be under way.
            let is_kept = job.kept.is_some() || job.busy && job.call.key.is_some();
            !job.is_running && job.handle.is_cancelled() && !is_kept
        });
        match is_cancelled {
            None => {}
            // The handle has resolved: there is only the record left.
            Some(true) => {
                if let Some(job) = self.take_job(key) {
                    job.handle.resolve(Err(JoinError::cancelled()));
                }
            }
            Some(false) => self.poke(key),
        }
    }

    /// Cancels every job, and answers how many.
    fn cancel_all(self: &Rc<Self>, answer: oneshot::Sender<usize>) {
        self.is_stopping.set(true);
        let goes_on = |job: &Job| job.call.key.is_some() && (job.busy || job.handle.may_have_run);
        let keys: Vec<u64> = {
            let jobs = self.jobs.borrow();
            let ends = jobs.iter().filter(|(_, job)| !goes_on(job));
            ends.map(|(key, _)| key).collect()
        };
        let _ = answer.send(keys.len());
        for key in keys {
            self.with_job(key, |job| {
                job.cancel = true;
                job.stop_again = None;
            });
            self.poke(key);
        }
    }

    /// Ends the handle of a detached job that goes on in the queue, where others find it.
    pub(crate) fn leave(&self, key: u64) {
        let is_done = self.with_job(key, |job| {
            let is_queued = matches!(job.phase, Phase::Queued { .. });
            job.is_leaving && !job.busy && is_queued && job.accepted.is_none()
        });
        if is_done == Some(true)
            && let Some(job) = self.take_job(key)
        {
            let error = JoinError::disconnected(job.call.task, LEFT, true);
            job.handle.resolve(Err(error));
        }
    }

    /// Ends the core once the submitter is shut down and everything is resolved.
    async fn close(self: Rc<Self>) {
        let mut is_closing = self.is_closing.subscribe();
        // The sender is a field, so the wait never fails.
        let _ = is_closing.wait_for(|closing| *closing).await;
        loop {
            let progress = self.progress.notified();
            if self.jobs.borrow().is_empty() && self.attached.borrow().is_empty() {
                break;
            }
            // They go on without this process, so nothing waits for them.
            let goes_on = |job: &Job| job.call.key.is_some() && !job.cancel;
            let is_rest = self.jobs.borrow().iter().all(|(_, job)| goes_on(job));
            if is_rest {
                self.leave_detached();
            }
            progress.await;
        }
        self.is_done.set(true);
        self.all_done.notify_one();
        loop {
            let progress = self.progress.notified();
            if !self.takes_commands.get() {
                break;
            }
            progress.await;
        }
        // Acknowledgements and deletes in flight get some time. A submitter that is gone needs none.
        let limit = Instant::now() + self.times.request_timeout;
        while self.short_tasks.get() > 0 {
            tokio::select! { biased;
                () = self.progress.notified() => {}
                () = sleep_until(limit) => break,
            }
        }
        // From now on nothing writes the key.
        self.link.say_farewell();
        if self.link.is_ready() {
            let farewell = async {
                let _ = self.broker.delete_consumer(&self.results).await;
                let farewell = LiveValue::farewell(&self.me);
                let _ = self.broker.publish(Store::Live, farewell).await;
            };
            tokio::select! { biased;
                () = farewell => {}
                () = sleep(self.times.request_timeout) => {}
            }
        }
        tokio::select! { biased;
            () = self.broker.close() => {}
            () = sleep(self.times.request_timeout) => {}
        }
        self.is_closed.set(true);
    }

    /// Repeats an operation until its result is known.
    pub(crate) async fn retry<T, F, R>(&self, mut operation: F) -> T
    where
        F: FnMut() -> R,
        R: Future<Output = Result<T, BrokerError>>,
    {
        let mut backoff = Backoff::default();
        loop {
            match operation().await {
                Ok(value) => return value,
                Err(error) => self.pause(&mut backoff, &error).await,
            }
        }
    }

    /// Waits after an operation that failed, until it makes sense to try it again.
    pub(crate) async fn pause(&self, backoff: &mut Backoff, error: &BrokerError) {
        match error {
            BrokerError::Unreachable(_) => {}
            BrokerError::Missing(_) => self.link.check(),
            BrokerError::Refused(text) => {
                // Each second at most: the back-off is at its limit.
                backoff.next = Backoff::LIMIT;
                tracing::warn!("the server refuses an operation of the submitter: {text}");
            }
        }
        self.back_off(backoff).await;
        self.until_ready().await;
    }

    pub(crate) async fn back_off(&self, backoff: &mut Backoff) {
        sleep(self.next_wait(backoff)).await;
    }

    /// Returns how long to wait, and doubles the next wait.
    pub(crate) fn next_wait(&self, backoff: &mut Backoff) -> Duration {
        let jitter = self.rng.borrow_mut().f64() / 2.0 + 0.5;
        let wait = backoff.next.mul_f64(jitter);
        backoff.next = (backoff.next * 2).min(Backoff::LIMIT);
        wait
    }

    /// Waits for its turn to do something rare.
    pub(crate) async fn rare(&self) -> Option<SemaphorePermit<'_>> {
        self.rare.acquire().await.ok()
    }
}

/// How long to wait before the next try.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    const LIMIT: Duration = Duration::from_secs(1);
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            next: Duration::from_millis(100),
        }
    }
}

/// Waits until `at`. For ever if there is no time.
pub(crate) async fn sleep_or_wait(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Base36(u64);

impl fmt::Display for Base36 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut left = self.0;
        let mut text = [0; 13];
        let mut start = text.len();
        loop {
            start -= 1;
            text[start] = DIGITS[(left % 36) as usize];
            left /= 36;
            if left == 0 {
                break;
            }
        }
        f.write_str(std::str::from_utf8(&text[start..]).unwrap_or_default())
    }
}
