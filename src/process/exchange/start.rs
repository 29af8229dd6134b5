//! The start of a worker for an exchange thread, its replacement, and its leave.
//!
//! ```text
//!   Link::worker ─► ready? ─► next: a replacement that boots ─► start ─► initializer
//!                                  ▲
//!   the last job of a worker ──────┘ prepare_replacement        recycle ─► let_go
//! ```

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{KILL_PATIENCE, Link, MAX_FAILED_STARTS, Rest, Shared, Stop};
use crate::call::CallInfo;
use crate::error::{Cause, JoinError};
use crate::pool::PoolInner;
use crate::process::calls::Calls;
use crate::process::lifecycle;
use crate::process::spawn::{Ready, StartError, Starting, Unstarted};
use crate::process::worker::{Activity, Control, KillReason, Worker};

/// How long a failed start is told to jobs without another attempt, which may take until the start
/// timeout.
pub(super) const FAILURE_LASTS: Duration = Duration::from_secs(1);

/// How often a thread that waits for a worker to start looks whether its job is still wanted.
pub(crate) const WANTED_EVERY: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct FirstStart {
    succeeded: bool,
    /// A thread starts a worker now.
    busy: bool,
    /// How many of them have ended.
    ended: u64,
    /// Why the last one failed, for the threads that waited for it.
    failed: Option<StartError>,
}

/// A worker that starts.
#[derive(Debug)]
pub(super) enum Next {
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

/// For what a thread needs a worker.
#[derive(Clone, Copy)]
pub(crate) struct Want<'a> {
    /// Of the job that waits for it. `None` if a job may come.
    pub(super) control: Option<&'a Arc<Control>>,
    pub(super) pool: Option<&'a Arc<PoolInner>>,
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

impl Shared {
    pub(super) fn first_start(&self) -> MutexGuard<'_, FirstStart> {
        self.first_start
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a worker may be started before `old` has ended. Only one in the pool is
    /// replaced like this at a time, so that there is at most one process more than the maximum.
    pub(super) fn may_replace(&self, old: &Arc<Worker>) -> bool {
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

    pub(super) fn begin_start(&self) -> Result<Starting, StartError> {
        let generation = self.next_generation.fetch_add(1, Ordering::Relaxed);
        Starting::begin(&self.config, &self.supervisor, &self.output, generation)
    }
}

impl Link {
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

    /// Returns a worker that is ready. Starts one if there is none, and abandons the start once the
    /// worker is no longer needed.
    pub(super) fn worker(&mut self, want: &Want<'_>) -> Result<Arc<Worker>, StartError> {
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

    pub(super) fn start(&mut self, want: &Want<'_>) -> Result<Ready, StartError> {
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
    pub(super) fn next_ready(&mut self, want: &Want<'_>) -> Result<Ready, StartError> {
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
    pub(super) fn greeted(&mut self, want: &Want<'_>) -> Result<Ready, StartError> {
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
    pub(super) fn initialize(
        &mut self,
        ready: Ready,
        want: &Want<'_>,
    ) -> Result<Ready, StartError> {
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

    pub(super) fn start_failed(
        &self,
        error: StartError,
        pool: Option<&Arc<PoolInner>>,
    ) -> JoinError {
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

    /// If this is the last job of the worker, starts the next worker meanwhile.
    pub(super) fn prepare_replacement(
        &mut self,
        worker: &Arc<Worker>,
        pool: Option<&Arc<PoolInner>>,
    ) {
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
    pub(super) fn recycle(&mut self, worker: &Arc<Worker>) {
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
    pub(super) fn let_go(&mut self) {
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
}

/// Greets a worker and runs its initializer, on another thread. It goes on until `pool` needs no
/// workers.
pub(super) fn initialize_apart(
    shared: &Arc<Shared>,
    starting: Starting,
    pool: Arc<PoolInner>,
) -> Next {
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
