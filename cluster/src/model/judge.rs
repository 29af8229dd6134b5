//! What must hold of every history.
//!
//! | | |
//! |---|---|
//! | C1 | every handle resolves, once faults stop and a worker lives |
//! | C2 | a default job starts at most once; what "has not run" has never started, nor ever will |
//! | C3 | an `Ok` is the value of one complete run |
//! | C4 | a handle has one outcome |
//! | C5 | a worker gets only tasks and versions that it has |
//! | C6 | a default job that was cancelled before it started never starts |
//! | C7 | nothing accepted is dropped: a job is lost only if its worker had an accident |
//! | C8 | a submitter holds at most its window, a worker at most twice its slots |

use std::fmt;
use std::time::Duration;

use futurepool::JoinError;

use crate::broker::memory::faults::trace;

/// How a job behaves when it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script {
    pub(super) duration: Duration,
    pub(super) end: ScriptEnd,
    /// A request to cancel ends it early.
    pub(super) honours_cancel: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScriptEnd {
    Returns,
    Panics,
    /// The worker dies with it, as often as it runs.
    KillsWorker,
}

/// Which function a job calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    /// A default one.
    Once,
    /// A default one that only some workers have.
    Newer,
    /// An idempotent one.
    Again,
}

/// What the model knows of a job.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) function: Function,
    pub(super) detached: bool,
    pub(super) script: Script,
    pub(super) accepted: bool,
    starts: u32,
    /// The values of complete runs.
    complete: Vec<u64>,
    /// A handle has said that it has not run.
    not_run: Option<String>,
}

/// A handle that was given out.
#[derive(Debug)]
struct Handle {
    job: u64,
    client: usize,
    is_attached: bool,
    state: HandleState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandleState {
    Waits,
    Resolved,
    /// Its process is gone.
    Gone,
}

/// The judge of one history.
#[derive(Debug, Default)]
pub(super) struct Judge {
    pub(super) jobs: Vec<Record>,
    handles: Vec<Handle>,
    pub(super) violations: Vec<String>,
    /// The server lost what it had confirmed: C2 and C6 cannot hold.
    pub(super) rolled_back: bool,
    /// A worker had an accident, so that a job may be lost.
    pub(super) may_lose: bool,
    /// Messages are so late that a worker can seem dead.
    pub(super) is_slow: bool,
    /// A submitter can die, stop or be cut off while it publishes a detached job.
    pub(super) may_lose_submitters: bool,
    /// A submitter's time without the server was limited.
    pub(super) may_disconnect: bool,
    pub(super) counts: Counts,
}

/// What happened, to see that histories are not empty.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) submitted: u64,
    pub(crate) ok: u64,
    pub(crate) panicked: u64,
    pub(crate) cancelled: u64,
    pub(crate) lost: u64,
    pub(crate) disconnected: u64,
    pub(crate) other: u64,
    pub(crate) starts: u64,
    pub(crate) second_starts: u64,
    /// Submitters that had to report a roll-back.
    pub(crate) reports: u64,
    pub(crate) seconds: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.ok += other.ok;
        self.panicked += other.panicked;
        self.cancelled += other.cancelled;
        self.lost += other.lost;
        self.disconnected += other.disconnected;
        self.other += other.other;
        self.starts += other.starts;
        self.second_starts += other.second_starts;
        self.reports += other.reports;
        self.seconds += other.seconds;
    }
}

impl Judge {
    pub(super) fn violation(&mut self, text: fmt::Arguments<'_>) {
        trace(format_args!("VIOLATION {text}"));
        if self.violations.len() < 10 {
            self.violations.push(text.to_string());
        }
    }

    /// Adds a job, and returns its number.
    pub(super) fn add(&mut self, function: Function, detached: bool, script: Script) -> u64 {
        self.jobs.push(Record {
            function,
            detached,
            script,
            accepted: false,
            starts: 0,
            complete: Vec::new(),
            not_run: None,
        });
        self.jobs.len() as u64 - 1
    }

    /// A handle was given out. Returns its number.
    pub(super) fn on_handle(&mut self, job: u64, client: usize, is_attached: bool) -> usize {
        let record = &mut self.jobs[job as usize];
        record.accepted = true;
        self.counts.submitted += u64::from(!is_attached);
        let (function, script) = (record.function, record.script);
        let number = self.handles.len();
        trace(format_args!(
            "handle {number} of job {job}, attached: {is_attached}, {function:?} {script:?}"
        ));
        self.handles.push(Handle {
            job,
            client,
            is_attached,
            state: HandleState::Waits,
        });
        number
    }

    /// A run starts. Returns its value.
    pub(super) fn on_start(&mut self, n: u64, function: Function) -> u64 {
        let Some(job) = self.jobs.get_mut(n as usize) else {
            self.violation(format_args!(
                "C3: a job {n} that was never submitted starts"
            ));
            return 0;
        };
        job.starts += 1;
        let (starts, not_run) = (job.starts, job.not_run.clone());
        let is_same = job.function == function;
        self.counts.starts += 1;
        self.counts.second_starts += u64::from(starts > 1);
        trace(format_args!("START {n}, start {starts}"));
        if !is_same {
            self.violation(format_args!("C5: job {n} runs as {function:?}"));
        }
        if !self.rolled_back {
            if function != Function::Again && starts > 1 {
                self.violation(format_args!("C2: default job {n} starts {starts} times"));
            }
            if let Some(not_run) = not_run {
                self.violation(format_args!("C2: job {n} starts, but: {not_run}"));
            }
        }
        value(n, starts)
    }

    /// A run has come to its end.
    pub(super) fn on_complete(&mut self, n: u64, value: u64) {
        trace(format_args!("END {n}, {value:x}"));
        if let Some(job) = self.jobs.get_mut(n as usize) {
            job.complete.push(value);
        }
    }

    /// A handle has resolved.
    pub(super) fn on_outcome(&mut self, handle: usize, result: &Result<u64, JoinError>) {
        let handle = &mut self.handles[handle];
        let (n, is_attached, state) = (handle.job, handle.is_attached, handle.state);
        if state == HandleState::Waits {
            handle.state = HandleState::Resolved;
        }
        let text = match result {
            Ok(value) => format!("Ok({value:x})"),
            Err(error) => format!("{error} (may have run: {})", error.may_have_run()),
        };
        trace(format_args!(
            "OUTCOME of job {n}, attached {is_attached}: {text}"
        ));
        match state {
            HandleState::Waits => {}
            HandleState::Gone => return,
            HandleState::Resolved => {
                self.violation(format_args!("C4: a handle of job {n} has a second outcome"));
                return;
            }
        }
        let job = &mut self.jobs[n as usize];
        let panics = job.script.end == ScriptEnd::Panics;
        let (starts, complete) = (job.starts, job.complete.clone());
        let counts = &mut self.counts;
        match result {
            Ok(_) => counts.ok += 1,
            Err(error) if error.is_panic() => counts.panicked += 1,
            Err(error) if error.is_lost() => counts.lost += 1,
            Err(error) if error.is_disconnected() => counts.disconnected += 1,
            Err(error) if error.is_cancelled() => counts.cancelled += 1,
            Err(_) => counts.other += 1,
        }
        match result {
            Ok(value) if !complete.contains(value) => {
                self.violation(format_args!("C3: job {n} says {text} of {complete:x?}"));
            }
            Ok(_) => {}
            // That there is no such key says nothing about a job.
            Err(error) if is_attached && error.is_refused() => {}
            Err(error) => {
                if !error.may_have_run() {
                    job.not_run.get_or_insert_with(|| text.clone());
                    if starts > 0 && !self.rolled_back {
                        self.violation(format_args!("C2: job {n} has started, but: {text}"));
                    }
                }
                if error.is_panic() && !panics {
                    self.violation(format_args!("C3: job {n} never panics, but: {text}"));
                }
                let seems_dead = self.is_slow && text.contains("worker");
                let unpublished = ["neither queued nor running", "while it was submitted"];
                let is_orphan = (self.may_lose_submitters || self.may_disconnect)
                    && unpublished.iter().any(|part| text.contains(part));
                let may_lose = self.may_lose || self.rolled_back || seems_dead || is_orphan;
                if error.is_lost() && !may_lose {
                    self.violation(format_args!(
                        "C7: no worker had an accident, but {n}: {text}"
                    ));
                }
                // Confirmations that come late count as none.
                if error.is_disconnected() && !self.may_disconnect && !self.is_slow {
                    self.violation(format_args!("C7: the server was there, but {n}: {text}"));
                }
            }
        }
    }

    /// The process of a submitter is gone, with its handles.
    pub(super) fn on_client_gone(&mut self, client: usize) {
        for handle in &mut self.handles {
            if handle.client == client && handle.state == HandleState::Waits {
                handle.state = HandleState::Gone;
            }
        }
    }

    /// Returns the jobs whose handles wait.
    pub(super) fn unresolved(&self) -> Vec<u64> {
        let waits = |handle: &&Handle| handle.state == HandleState::Waits;
        self.handles
            .iter()
            .filter(waits)
            .map(|handle| handle.job)
            .collect()
    }
}

/// Returns the value of a run: it tells the job and the run.
fn value(n: u64, start: u32) -> u64 {
    n << 16 | u64::from(start)
}
