//! One worker process, as its pool sees it: the job that it runs, its kill and its end.
//!
//! ```text
//!   cancel ──► Control ──► Worker::cancel_job ┐
//!   supervisor: limits, grace, idle deaths ───┼──► Life ──► kill the group, reap
//!   exchange thread: begin_job, end_job ──────┘
//! ```
//!
//! - The end of a process is seen without reaping it. Then its group is killed, and only then it is
//!   reaped. Until then its number, which is also the number of the group, cannot be reused.
//! - A kill names the job that it is for. A worker that has gone on to another job is left alone.

use std::borrow::Cow;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group, waitid,
    waitpid,
};

use crate::call::CallInfo;
use crate::process::counter::Counter;
use crate::process::output::OutputHandle;

/// A worker process. The pool's supervisor and the exchange thread that uses it share it.
pub(crate) struct Worker {
    pid: Pid,
    /// The process that started it.
    owner: u32,
    /// Counts the workers of a pool. Frames of an earlier worker cannot be mistaken for its own.
    generation: u32,
    socket: UnixStream,
    /// Readable once the process has ended. `None` where the system has no such thing.
    pidfd: Option<OwnedFd>,
    /// Tells how many calls of a batch have begun. Without it a worker gets no batches.
    pub(crate) counter: Option<Counter>,
    /// Read what the process writes, where that is piped.
    pub(crate) output: Outputs,
    /// The resident memory in bytes when it was last looked at; 0 before that.
    resident: AtomicU64,
    /// The one lock under which system calls are made: a kill and a reap must exclude each other.
    life: Mutex<Life>,
}

/// The pipes that the pool reads. Dropping them closes them.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// Never read: it keeps the pipe open.
    #[allow(dead_code)]
    pub(crate) stdout: Option<OutputHandle>,
    pub(crate) stderr: Option<OutputHandle>,
}

/// What the lock of a worker guards.
struct Life {
    /// It has greeted its pool, and was initialized.
    ready: bool,
    /// An event has told why it goes.
    reported: bool,
    ended: Option<Ended>,
    /// It ended by itself, while it had no job.
    ended_idle: bool,
    /// Why this pool kills the worker. The first reason counts.
    kill: Option<KillReason>,
    current: Option<Current>,
    jobs_done: u64,
    /// The worker is asked to end: no further job is sent.
    leaving: bool,
    /// When the supervisor kills the worker for the time that its job takes.
    time_limit: Option<(Instant, Duration)>,
    /// When the supervisor kills the worker because it was told to leave. It stays until the worker
    /// has ended.
    leave_by: Option<(Instant, KillReason)>,
    /// When the supervisor looks at the memory next, if a job runs then. It stays from job to job:
    /// many short ones are looked at as often as a long one.
    next_sample: Option<Instant>,
    /// Counts the looks at the memory.
    samples: u32,
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// `None` if another part of the program has reaped it.
    pub(crate) status: Option<ExitStatus>,
}

#[derive(Debug, Clone)]
pub(crate) enum KillReason {
    /// The job was cancelled.
    Cancelled,
    TimeLimit(Duration),
    MemoryLimit {
        limit: u64,
        seen: u64,
    },
    /// It sent something that is no answer, or closed its socket.
    Protocol(Box<str>),
    /// It did not leave when it was asked to, or its pool is gone.
    Leaving,
}

/// The job that a worker runs.
struct Current {
    task: &'static str,
    label: Option<Cow<'static, str>>,
    since: Instant,
    control: Arc<Control>,
}

/// A name for what a worker runs.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) task: &'static str,
    pub(crate) label: Option<Cow<'static, str>>,
    pub(crate) since: Instant,
}

/// What a worker is doing.
#[derive(Debug, Clone)]
pub(crate) enum Activity {
    Starting,
    Idle,
    Running(Running),
    Leaving,
    Ended,
}

impl Worker {
    pub(crate) fn new(
        pid: Pid,
        generation: u32,
        socket: UnixStream,
        pidfd: Option<OwnedFd>,
        counter: Option<Counter>,
        output: Outputs,
    ) -> Self {
        Self {
            pid,
            owner: std::process::id(),
            generation,
            socket,
            pidfd,
            counter,
            output,
            resident: AtomicU64::new(0),
            life: Mutex::new(Life {
                ready: false,
                reported: false,
                ended: None,
                ended_idle: false,
                kill: None,
                current: None,
                jobs_done: 0,
                leaving: false,
                time_limit: None,
                leave_by: None,
                next_sample: None,
                samples: 0,
            }),
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get() as u32
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn jobs_done(&self) -> u64 {
        self.life().jobs_done
    }

    pub(crate) fn activity(&self) -> Activity {
        let life = self.life();
        match &life.current {
            _ if life.ended.is_some() => Activity::Ended,
            Some(current) => Activity::Running(current.running()),
            None if life.leaving || life.kill.is_some() => Activity::Leaving,
            None if !life.ready => Activity::Starting,
            None => Activity::Idle,
        }
    }

    /// Returns what the worker runs.
    pub(crate) fn running(&self) -> Option<Running> {
        self.life().current.as_ref().map(Current::running)
    }

    /// Marks the worker as running `job`. Returns false if it may get no further job.
    pub(crate) fn begin_job(&self, info: &CallInfo, control: &Arc<Control>) -> bool {
        let mut life = self.life();
        if life.ended.is_some() || life.kill.is_some() || life.leaving {
            return false;
        }
        life.current = Some(Current {
            task: info.name,
            label: info.label.clone(),
            since: Instant::now(),
            control: Arc::clone(control),
        });
        life.time_limit = None;
        true
    }

    /// Sets when the current job is killed for its time limit.
    pub(crate) fn set_time_limit(&self, at: Instant, limit: Duration) {
        self.life().time_limit = Some((at, limit));
    }

    /// Stops the clock of the current job.
    pub(crate) fn clear_time_limit(&self) {
        self.life().time_limit = None;
    }

    /// Returns when the memory of the worker is looked at: at `at`, or before.
    pub(crate) fn sample_by(&self, at: Instant) -> Instant {
        *self.life().next_sample.get_or_insert(at)
    }

    /// Marks the job as ended. A kill for it that comes later does nothing.
    pub(crate) fn end_job(&self, jobs: u64) {
        let mut life = self.life();
        let current = life.current.take();
        life.jobs_done += jobs;
        life.time_limit = None;
        drop(life);
        drop(current);
    }

    /// Returns whether another job can be sent.
    pub(crate) fn is_usable(&self) -> bool {
        let life = self.life();
        life.ended.is_none() && life.kill.is_none() && !life.leaving
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.life().leaving
    }

    /// The worker can take jobs.
    pub(crate) fn set_ready(&self) {
        self.life().ready = true;
    }

    /// Returns true once, to the first that reports why the worker goes.
    pub(crate) fn claim_report(&self) -> bool {
        !std::mem::replace(&mut self.life().reported, true)
    }

    /// Returns whether the worker has ended by itself, while it had no job.
    pub(crate) fn has_ended_idle(&self) -> bool {
        self.life().ended_idle
    }

    /// Returns why this pool has killed the worker, if it has.
    pub(crate) fn kill_reason(&self) -> Option<KillReason> {
        self.life().kill.clone()
    }

    /// Cancels `job` if the worker still runs it: at once, or after `grace`. Returns when to look
    /// at the worker again.
    pub(crate) fn cancel_job(&self, job: &Arc<Control>, grace: Duration) -> Option<Instant> {
        let mut life = self.life();
        let is_current = |current: &Current| Arc::ptr_eq(&current.control, job);
        if life.ended.is_some() || !life.current.as_ref().is_some_and(is_current) {
            return None;
        }
        // The clock may not reach that far.
        let at = Instant::now().checked_add(grace);
        if grace.is_zero() {
            self.kill_now(&mut life, KillReason::Cancelled);
            drop(life);
            self.hang_up();
            return None;
        }
        // The worker finishes the job, and ends.
        life.leaving = true;
        life.leave_by = at.map(|at| (at, KillReason::Cancelled));
        drop(life);
        // The calls behind it in its chunk must not begin. No other chunk is sent to this worker.
        if let Some(counter) = &self.counter {
            counter.stop();
        }
        let _ = self.socket.shutdown(Shutdown::Write);
        at
    }

    /// Returns the control of the current job.
    pub(crate) fn current_control(&self) -> Option<Arc<Control>> {
        let life = self.life();
        life.current
            .as_ref()
            .map(|current| Arc::clone(&current.control))
    }

    /// Kills the worker and all of its group.
    pub(crate) fn kill(&self, reason: KillReason) {
        let mut life = self.life();
        if life.ended.is_none() {
            self.kill_now(&mut life, reason);
        }
        drop(life);
        self.hang_up();
    }

    /// Asks the worker to end, which an idle one does at once. Returns when to look at it again.
    pub(crate) fn leave(&self, within: Duration) -> Option<Instant> {
        let mut life = self.life();
        life.leaving = true;
        let at = Instant::now().checked_add(within);
        life.leave_by = at.map(|at| (at, KillReason::Leaving));
        drop(life);
        let _ = self.socket.shutdown(Shutdown::Write);
        at
    }

    /// Ends the read of the exchange thread, which a descendant of the worker could keep waiting.
    /// What has arrived is still read.
    fn hang_up(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn kill_now(&self, life: &mut Life, reason: KillReason) {
        life.kill.get_or_insert(reason);
        self.signal();
    }

    /// Kills the process and its group, unless something else may have reaped the process.
    fn signal(&self) {
        match waitid(WaitId::Pid(self.pid), WAIT_FLAGS | WaitIdOptions::NOHANG) {
            // Alive, or ended and not reaped: the number is still its own.
            Ok(_) => {
                let _ = kill_process_group(self.pid, Signal::KILL);
                let _ = kill_process(self.pid, Signal::KILL);
            }
            Err(_) => self.signal_by_descriptor(),
        }
    }

    #[cfg(target_os = "linux")]
    fn signal_by_descriptor(&self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn signal_by_descriptor(&self) {}

    /// Returns how the process ended, if it has. Then its group is killed, and it is reaped.
    pub(crate) fn try_end(&self) -> Option<Ended> {
        let mut life = self.life();
        if life.ended.is_some() {
            return life.ended;
        }
        let status = match waitid(WaitId::Pid(self.pid), WAIT_FLAGS | WaitIdOptions::NOHANG) {
            Ok(None) => return None,
            Ok(Some(_)) => {
                let _ = kill_process_group(self.pid, Signal::KILL);
                let reaped = waitpid(Some(self.pid), WaitOptions::NOHANG);
                let status = reaped.ok().flatten();
                status.map(|(_, status)| ExitStatus::from_raw(status.as_raw()))
            }
            // Another part of the program reaps all children.
            Err(_) if self.is_descriptor_ready(Some(Duration::ZERO)) != Some(false) => None,
            Err(_) => return None,
        };
        life.ended = Some(Ended { status });
        life.ended_idle =
            life.ready && life.current.is_none() && life.kill.is_none() && !life.leaving;
        life.ended
    }

    /// Waits until the process has ended, for as long as it takes, and does not reap it.
    pub(crate) fn wait_without_reaping(&self) {
        while matches!(waitid(WaitId::Pid(self.pid), WAIT_FLAGS), Err(Errno::INTR)) {}
    }

    /// Waits until the process has ended. Returns `None` after `timeout`.
    pub(crate) fn wait_for_end(&self, timeout: Duration) -> Option<Ended> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(ended) = self.try_end() {
                return Some(ended);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            if self.is_descriptor_ready(Some(left)) != Some(false) {
                // Without a descriptor there is nothing to wait on. With one, it should have ended.
                if let Some(ended) = self.try_end() {
                    return Some(ended);
                }
                std::thread::sleep(left.min(Duration::from_millis(1)));
            }
        }
    }

    /// Waits until the descriptor says that the process has ended. `None` if there is no
    /// descriptor.
    fn is_descriptor_ready(&self, timeout: Option<Duration>) -> Option<bool> {
        let pidfd = self.pidfd.as_ref()?;
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => Some(ready > 0),
            Err(Errno::INTR) => Some(false),
            Err(_) => None,
        }
    }

    /// Does what is due: kills a worker that has exceeded a limit, and looks at its memory. Returns
    /// when to do so again.
    pub(crate) fn supervise(&self, now: Instant, memory_limit: Option<u64>) -> Option<Instant> {
        let mut life = self.life();
        if life.ended.is_some() {
            return None;
        }
        if let Some(reason) = life.due(now) {
            self.kill_now(&mut life, reason);
            drop(life);
            self.hang_up();
            return None;
        }
        let is_due = life.current.is_some() && life.next_sample.is_some_and(|at| at <= now);
        let (Some(limit), true) = (memory_limit, is_due) else {
            return life.next_look();
        };
        life.samples = life.samples.wrapping_add(1);
        let of_group = life.samples % SAMPLES_PER_GROUP == 0;
        let control = life
            .current
            .as_ref()
            .map(|current| Arc::clone(&current.control));
        drop(life);
        // Without the lock: reading the figures takes a while.
        let seen = self.sample(of_group);
        let mut life = self.life();
        let is_same = |current: &Current| {
            control
                .as_ref()
                .is_some_and(|own| Arc::ptr_eq(own, &current.control))
        };
        let is_same = life.current.as_ref().is_some_and(is_same);
        if life.ended.is_none() && is_same && seen > limit {
            self.kill_now(&mut life, KillReason::MemoryLimit { limit, seen });
            drop(life);
            self.hang_up();
            return None;
        }
        life.next_sample = Some(now + SAMPLE_EVERY);
        life.next_look()
    }

    /// Returns the resident memory in bytes, of the process or of its whole group.
    pub(crate) fn sample(&self, of_group: bool) -> u64 {
        let pid = self.pid();
        let seen = match of_group {
            true => super::memory::resident_of_group(pid),
            false => super::memory::resident(pid),
        };
        let seen = seen.unwrap_or(0);
        self.resident.store(seen, Ordering::Relaxed);
        seen
    }

    /// Returns what [`sample`](Self::sample) returned last.
    pub(crate) fn last_sample(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }
}

/// How often the memory of a worker is looked at while it runs a job with a limit.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_millis(20);

/// Each so many looks include the other processes of the group.
const SAMPLES_PER_GROUP: u32 = 10;

/// The end of a process is seen without reaping it.
const WAIT_FLAGS: WaitIdOptions = WaitIdOptions::EXITED.union(WaitIdOptions::NOWAIT);

pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Life {
    /// Takes the reason to kill the worker that has come by now.
    fn due(&mut self, now: Instant) -> Option<KillReason> {
        if let Some((_, limit)) = self.time_limit.take_if(|(at, _)| *at <= now) {
            return Some(KillReason::TimeLimit(limit));
        }
        let leave_by = self.leave_by.take_if(|(at, _)| *at <= now);
        leave_by.map(|(_, reason)| reason)
    }

    /// Returns when the supervisor looks at the worker next.
    fn next_look(&self) -> Option<Instant> {
        let limit = self.time_limit.map(|(at, _)| at);
        let leave_by = self.leave_by.as_ref().map(|(at, _)| *at);
        // An idle worker costs nothing.
        let sample = self.next_sample.filter(|_| self.current.is_some());
        earlier(earlier(limit, leave_by), sample)
    }
}

impl Current {
    fn running(&self) -> Running {
        Running {
            task: self.task,
            label: self.label.clone(),
            since: self.since,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            // In a child of this process, made by `fork`. The worker is not its own.
            return;
        }
        // The supervisor keeps each worker until it has ended. This is for a start that failed
        // half-way.
        if self.try_end().is_none() {
            self.kill(KillReason::Leaving);
            self.wait_for_end(Duration::from_secs(1));
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// Decides between a cancel of a job and its outcome. The handle's side and the exchange thread
/// share it.
#[derive(Debug, Default)]
pub(crate) struct Control {
    state: Mutex<Stage>,
    /// Calls that have not begun are no longer wanted. Written under the lock.
    skips: AtomicBool,
}

#[derive(Debug, Default)]
enum Stage {
    /// No worker has begun the job.
    #[default]
    Waiting,
    /// A worker may have begun it.
    Sent(Arc<Worker>),
    /// The handle was cancelled. Whatever the job returns is dropped.
    Cancelled,
    /// The outcome is decided, and is no cancel.
    Decided,
}

impl Control {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job is about to be sent to `worker`. Returns false if it was cancelled.
    pub(crate) fn send(&self, worker: &Arc<Worker>) -> bool {
        let mut stage = self.stage();
        let waits = matches!(*stage, Stage::Waiting);
        if waits {
            *stage = Stage::Sent(Arc::clone(worker));
        }
        waits
    }

    /// No worker has the job now, and another one may get it. Returns false if it was cancelled.
    pub(crate) fn take_back(&self) -> bool {
        let mut stage = self.stage();
        match &*stage {
            Stage::Sent(_) => {
                let sent = std::mem::take(&mut *stage);
                drop(stage);
                drop(sent);
                true
            }
            Stage::Waiting => true,
            Stage::Cancelled | Stage::Decided => false,
        }
    }

    /// Skips the calls that have not begun. A running one is left alone.
    pub(crate) fn skip_rest(&self) {
        let stage = self.stage();
        // Ordering: a thread that is about to send a batch sees this after it has made the stage
        // `Sent`, or the worker is asked here.
        self.skips.store(true, Ordering::Release);
        let worker = match &*stage {
            Stage::Sent(worker) => Some(Arc::clone(worker)),
            _ => None,
        };
        drop(stage);
        if let Some(counter) = worker.as_ref().and_then(|worker| worker.counter.as_ref()) {
            counter.stop();
        }
    }

    /// Returns whether calls that have not begun are skipped.
    pub(crate) fn skips_rest(&self) -> bool {
        self.skips.load(Ordering::Acquire)
    }

    /// Decides the outcome. Returns false if the job was cancelled before.
    pub(crate) fn decide(&self) -> bool {
        let mut stage = self.stage();
        if matches!(*stage, Stage::Cancelled) {
            return false;
        }
        let before = std::mem::replace(&mut *stage, Stage::Decided);
        drop(stage);
        drop(before);
        true
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(*self.stage(), Stage::Cancelled)
    }

    /// Cancels the job. Returns whether it is cancelled, and the worker that may run it.
    pub(crate) fn cancel(&self) -> (bool, Option<Arc<Worker>>) {
        let mut stage = self.stage();
        match &*stage {
            Stage::Decided => (false, None),
            Stage::Cancelled => (true, None),
            Stage::Waiting | Stage::Sent(_) => {
                match std::mem::replace(&mut *stage, Stage::Cancelled) {
                    Stage::Sent(worker) => (true, Some(worker)),
                    _ => (true, None),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    /// A process that never ends, as a worker. Dropping it kills the process.
    fn worker() -> Arc<Worker> {
        let (own, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000").process_group(0);
        let command = command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        let pid = command.spawn().unwrap().id();
        let pid = Pid::from_raw(pid as i32).unwrap();
        Arc::new(Worker::new(pid, 1, own, None, None, Outputs::default()))
    }

    fn begin(worker: &Arc<Worker>) -> Arc<Control> {
        let info = CallInfo {
            name: "task",
            version: 1,
            signature: 0,
            is_named: true,
            idempotent: false,
            attempts: 1,
            time_limit: None,
            deadline: None,
            priority: crate::pool::Priority::Normal,
            label: None,
        };
        let control = Arc::default();
        assert!(worker.begin_job(&info, &control));
        assert!(control.send(worker));
        control
    }

    fn lives(worker: &Worker) -> bool {
        worker.kill_reason().is_none() && worker.try_end().is_none()
    }

    #[test]
    fn promise_7_a_cancel_that_comes_too_late_leaves_the_next_job_alone() {
        let worker = worker();
        let first = begin(&worker);
        // The canceller is on its way.
        let (cancelled, told) = first.cancel();
        assert!(cancelled && told.is_some());
        worker.end_job(1);
        assert!(!first.decide());
        let second = begin(&worker);
        for grace in [Duration::ZERO, Duration::from_secs(1)] {
            assert_eq!(worker.cancel_job(&first, grace), None);
            assert!(lives(&worker) && worker.is_usable());
        }
        worker.cancel_job(&second, Duration::ZERO);
        assert!(worker.wait_for_end(Duration::from_secs(60)).is_some());
        assert!(matches!(worker.kill_reason(), Some(KillReason::Cancelled)));
    }

    #[test]
    fn promise_7_a_time_limit_ends_with_its_job() {
        let worker = worker();
        let now = Instant::now();
        let (limit, later) = (Duration::from_secs(1), now + Duration::from_secs(5));
        begin(&worker);
        worker.set_time_limit(now + limit, limit);
        assert_eq!(worker.supervise(now, None), Some(now + limit));
        worker.end_job(1);
        begin(&worker);
        assert_eq!(worker.supervise(later, None), None);
        assert!(lives(&worker));
        worker.set_time_limit(now + limit, limit);
        worker.supervise(later, None);
        assert!(matches!(
            worker.kill_reason(),
            Some(KillReason::TimeLimit(_))
        ));
    }

    #[test]
    fn a_limit_of_a_later_item_does_not_extend_a_grace() {
        let worker = worker();
        let job = begin(&worker);
        let grace = Duration::from_secs(1);
        let at = worker.cancel_job(&job, grace).unwrap();
        worker.set_time_limit(at + grace, grace);
        assert_eq!(worker.supervise(at - grace, None), Some(at));
        // Nor does the end of the job: the worker must leave.
        worker.end_job(1);
        worker.supervise(at, None);
        assert!(matches!(worker.kill_reason(), Some(KillReason::Cancelled)));
    }

    #[test]
    fn either_the_outcome_or_the_cancel_decides() {
        let worker = worker();
        let control = Arc::new(Control::default());
        assert!(control.send(&worker) && control.take_back() && control.send(&worker));
        assert!(control.decide());
        assert!(matches!(control.cancel(), (false, None)));
        let control = Control::default();
        assert!(matches!(control.cancel(), (true, None)));
        assert!(!control.send(&worker) && !control.take_back() && !control.decide());
        assert!(matches!(control.cancel(), (true, None)));
    }
}
