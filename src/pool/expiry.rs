//! Jobs with a deadline: one that has not started by then is refused at that moment.
//!
//! ```text
//!   a job is queued ─► entries ◄─ supervise ◄─ the process's timer
//!                         │           │
//!                         │           └─► starts or wakes an expiry thread
//!                         └─► an expiry thread: destructors, callbacks, wakers
//! ```
//!
//! The timer wakes up at the earliest deadline, and runs no user code: an *expiry thread* takes the
//! jobs that are due, and refuses them. The destructors and callbacks of these jobs are user code
//! and may take their time. So while jobs are due, the timer [looks](supervise) again after each
//! [`LOOK`]. If no job was taken in between, all expiry threads are busy with slow user code, and
//! another one takes over.
//!
//! If the system refuses the timer or an expiry thread, a job expires when a worker reaches it.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::task::cell::{RawTask, expire};
use crate::util::sync::{Arc, Condvar, Instant, Mutex, process_wide, thread, wait_on_for};
use crate::util::timer;
use crate::util::unwind::emit;

/// How long an expiry thread waits for another job before it exits. Also the longest time that the
/// timer has a registration, so a far deadline of a job that has started soon keeps nothing there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long user code can delay the other jobs that are due.
const LOOK: Duration = Duration::from_millis(1);

/// When a refused thread is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How many jobs with slow user code can expire at the same time without delaying others.
const MAX_THREADS: usize = 32;

process_wide! {
    static EXPIRY: Expiry = Expiry::new();
}

struct Expiry {
    // Lock order: no other lock is taken under this one. No user code runs under it.
    state: Mutex<State>,
    /// Wakes an expiry thread.
    changed: Condvar,
}

struct State {
    /// The jobs that are queued, by deadline. The number tells apart equal deadlines.
    entries: BTreeMap<(Instant, u64), Weak<dyn RawTask>>,
    last_number: u64,
    /// When the timer calls [`supervise`] next.
    ///
    /// Invariant: while there are entries, this is at the earliest of them, or before.
    timer_at: Option<Instant>,
    /// Expiry threads, including those that are starting.
    threads: usize,
    /// Expiry threads that have not taken the lock yet.
    starting: usize,
    /// Expiry threads that wait for a job.
    idle: usize,
    /// How many entries expiry threads have taken.
    taken: u64,
    /// `taken` at the timer's last look.
    seen: u64,
    /// After a thread was refused: when to try again.
    retry_at: Option<Instant>,
}

/// The deadline of a queued job. Dropped when the job starts, is cancelled or is refused. Then
/// nothing of the job is left here.
#[derive(Debug)]
pub(crate) struct ExpiryGuard {
    key: (Instant, u64),
}

impl Drop for ExpiryGuard {
    fn drop(&mut self) {
        let entry = EXPIRY.state.lock().entries.remove(&self.key);
        // Outside the lock: it may hold the last reference to the memory block of a job.
        drop(entry);
    }
}

/// Ensures that `task`, which was queued, is refused at `deadline` unless it has started by then.
pub(crate) fn expire_at(task: &Arc<dyn RawTask>, deadline: Instant) {
    let now = Instant::now();
    if deadline <= now {
        expire(&**task);
        return;
    }
    let mut register = None;
    task.set_expiry(&mut || {
        let mut state = EXPIRY.state.lock();
        let guard = state.insert(deadline, Arc::downgrade(task));
        register = state.needs_timer(deadline.min(now + KEEP_ALIVE));
        guard
    });
    register_timer(register);
}

/// Has [`supervise`] called at `at`, if it is not `None`.
fn register_timer(at: Option<Instant>) {
    if let Some(at) = at {
        timer::retry_at(at, Waker::from(Arc::new(Supervisor)));
    }
}

struct Supervisor;

impl Wake for Supervisor {
    fn wake(self: Arc<Self>) {
        supervise();
    }
}

/// The timer's look: ensures that an expiry thread takes the jobs that are due. Runs no user code.
fn supervise() {
    let now = Instant::now();
    let mut state = EXPIRY.state.lock();
    // A registration that was replaced by an earlier one arrives later, and finds the next one
    // here.
    if state.timer_at.is_some_and(|at| at <= now) {
        state.timer_at = None;
    }
    let Some(first) = state.first() else {
        return;
    };
    let (action, next) = match first <= now {
        true => state.act(now),
        false => (Action::None, first.min(now + KEEP_ALIVE)),
    };
    let register = state.needs_timer(next);
    drop(state);
    match action {
        Action::None => {}
        Action::Wake => EXPIRY.changed.notify_one(),
        Action::Spawn => spawn(),
    }
    register_timer(register);
}

/// What the timer does for jobs that are due.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
enum Action {
    /// An expiry thread takes them.
    None,
    /// Wakes an expiry thread that waits.
    Wake,
    /// Starts an expiry thread, which is counted already.
    Spawn,
}

fn spawn() {
    let builder = thread::Builder::new().name("futurepool-expiry".to_owned());
    let Err(error) = builder.spawn(run) else {
        return;
    };
    let mut state = EXPIRY.state.lock();
    state.threads -= 1;
    state.starting -= 1;
    state.retry_at = Some(Instant::now() + RETRY);
    drop(state);
    emit(|| tracing::warn!(%error, "failed to spawn a thread that lets jobs expire: {error}"));
}

/// An expiry thread.
fn run() {
    let mut state = EXPIRY.state.lock();
    state.starting -= 1;
    loop {
        if let Some(task) = state.take_due(Instant::now()) {
            drop(state);
            if let Some(task) = task.upgrade() {
                expire(&*task);
            }
            drop(task);
            state = EXPIRY.state.lock();
            continue;
        }
        state.idle += 1;
        let timed_out;
        (state, timed_out) = wait_on_for(&EXPIRY.changed, state, KEEP_ALIVE);
        state.idle -= 1;
        if timed_out && state.first().is_none_or(|first| first > Instant::now()) {
            state.threads -= 1;
            return;
        }
    }
}

impl Expiry {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            state: Mutex::new(State::new()),
            changed: Condvar::new(),
        }
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self {
            state: Mutex::new(State::new()),
            changed: Condvar::new(),
        }
    }
}

impl State {
    const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            last_number: 0,
            timer_at: None,
            threads: 0,
            starting: 0,
            idle: 0,
            taken: 0,
            seen: 0,
            retry_at: None,
        }
    }

    fn insert(&mut self, deadline: Instant, task: Weak<dyn RawTask>) -> ExpiryGuard {
        self.last_number += 1;
        let key = (deadline, self.last_number);
        self.entries.insert(key, task);
        ExpiryGuard { key }
    }

    /// Returns the earliest deadline.
    fn first(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(key, _)| key.0)
    }

    /// Returns `at` if the timer must be told of it: the caller registers it, outside the lock.
    fn needs_timer(&mut self, at: Instant) -> Option<Instant> {
        let earlier = self.timer_at.is_none_or(|timer_at| at < timer_at);
        if earlier {
            self.timer_at = Some(at);
        }
        earlier.then_some(at)
    }

    /// Takes the first job that is due.
    fn take_due(&mut self, now: Instant) -> Option<Weak<dyn RawTask>> {
        if self.first()? > now {
            return None;
        }
        self.taken += 1;
        self.entries.pop_first().map(|(_, task)| task)
    }

    /// Jobs are due: decides which thread takes them, and when the timer looks again.
    fn act(&mut self, now: Instant) -> (Action, Instant) {
        let progress = self.taken != self.seen;
        self.seen = self.taken;
        let next = now + LOOK;
        if self.idle > 0 {
            // It may be on its way already. A second notification does no harm.
            return (Action::Wake, next);
        }
        let is_stuck = self.threads == 0 || !progress;
        if self.starting > 0 || !is_stuck || self.threads == MAX_THREADS {
            return (Action::None, next);
        }
        if let Some(retry_at) = self.retry_at.filter(|retry_at| now < *retry_at) {
            return (Action::None, retry_at);
        }
        self.retry_at = None;
        self.threads += 1;
        self.starting += 1;
        (Action::Spawn, next)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Makes the guard of a job without telling the timer.
    pub(crate) fn guard(task: &Arc<dyn RawTask>, deadline: Instant) -> ExpiryGuard {
        (EXPIRY.state.lock()).insert(deadline, Arc::downgrade(task))
    }

    /// Returns whether a queued job has this very deadline.
    pub(crate) fn has(deadline: Instant) -> bool {
        let state = EXPIRY.state.lock();
        state.entries.keys().any(|key| key.0 == deadline)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::Location;
    use std::sync::mpsc;

    use super::testing::{guard, has};
    use super::*;
    use crate::ThreadPool;
    use crate::pool::inner::PoolRefs;
    use crate::pool::job::Priority;
    use crate::pool::spawn::notify_work;
    use crate::task::cell::{Details, Runner, Scheduler, TaskCell, cancel, refuse};
    use crate::task::job::Job;
    use crate::task::join_handle::JoinHandle;
    use crate::task::stamp::Stamp;

    const FAR: Duration = Duration::from_secs(3600);

    struct NoPool;

    impl Scheduler for NoPool {}

    fn job() -> (Arc<dyn RawTask>, JoinHandle<i32>) {
        let task = TaskCell::queued(|| 7, Location::caller(), None, 0, NoPool);
        let task = Arc::new(task);
        (Arc::clone(&task) as _, JoinHandle::new(task))
    }

    #[track_caller]
    fn expires(mut handle: JoinHandle<i32>) {
        let outcome = handle.join_timeout(Duration::from_secs(60));
        assert!(outcome.unwrap_err().is_expired());
    }

    #[test]
    fn a_job_that_is_no_longer_queued_leaves_nothing() {
        let deadline = Instant::now() + FAR;
        let ends: [fn(&Arc<dyn RawTask>); 4] = [
            |task| assert!(Arc::clone(task).run(Runner::Executor)),
            |task| assert!(cancel(&**task).is_cancelled()),
            |task| assert!(refuse(&**task, &crate::JoinError::shutdown())),
            |task| assert!(expire(&**task)),
        ];
        for end in ends {
            let (task, _handle) = job();
            expire_at(&task, deadline);
            assert!(has(deadline));
            end(&task);
            assert!(!has(deadline));
            // It came too late, so nothing is kept for it.
            expire_at(&task, deadline);
            assert!(!has(deadline));
        }
    }

    #[test]
    fn a_running_job_has_left_its_deadline() {
        let deadline = Instant::now() + FAR;
        let closure = move || has(deadline);
        let task = TaskCell::queued(closure, Location::caller(), None, 0, NoPool);
        let task = Arc::new(task);
        let raw: Arc<dyn RawTask> = Arc::clone(&task) as _;
        let handle = JoinHandle::new(task);
        expire_at(&raw, deadline);
        assert!(raw.run(Runner::Executor));
        assert!(!handle.join().unwrap());
    }

    #[test]
    fn a_job_that_goes_away_unresolved_leaves_nothing() {
        let deadline = Instant::now() + FAR;
        let (task, handle) = job();
        expire_at(&task, deadline);
        drop((task, handle));
        assert!(!has(deadline));
    }

    #[test]
    fn jobs_expire_at_their_time_although_the_timer_waits_for_a_later_one() {
        let start = Instant::now();
        let (far, _handle) = job();
        expire_at(&far, start + FAR);
        let jobs = [60, 20, 40].map(|millis| {
            let (task, handle) = job();
            expire_at(&task, Instant::now() + Duration::from_millis(millis));
            handle
        });
        jobs.into_iter().for_each(expires);
        assert!(start.elapsed() < KEEP_ALIVE / 2, "the timer was not told");
    }

    #[test]
    fn a_guard_may_outlive_its_entry() {
        let (task, handle) = job();
        let guard = guard(&task, Instant::now());
        let mut state = EXPIRY.state.lock();
        state.entries.remove(&guard.key);
        drop(state);
        drop(guard);
        assert!(!handle.is_finished());
    }

    #[test]
    fn user_code_of_a_job_that_expires_on_a_worker_keeps_no_other_job_waiting() {
        let pool = ThreadPool::new(2);
        let refs = PoolRefs::new(&pool.inner());
        let task = TaskCell::queued(|| 7, Location::caller(), None, 0, refs.get());
        let task = Arc::new(task);
        let job = Job::new(Arc::clone(&task) as _);
        let details = Details {
            deadline: Some(Instant::now()),
            ..Details::default()
        };
        assert!(job.prepare(details, Stamp::NONE));
        let handle: JoinHandle<i32> = JoinHandle::new(task);
        let (called, is_called) = mpsc::channel();
        let (ran, has_run) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        handle.add_done_callback(move |outcome| {
            assert!(outcome.unwrap_err().is_expired());
            called.send(()).unwrap();
            tell.send(has_run.recv_timeout(FAR / 60).is_ok()).unwrap();
        });
        // No expiry thread knows of it, so a worker is the first to find out.
        let pushed = pool.inner().push(job, Priority::Normal, |_| true, || ());
        assert!(pushed.is_ok());
        notify_work(&pool.inner());
        is_called.recv_timeout(FAR / 60).unwrap();
        drop(pool.submit(move || ran.send(())));
        assert!(
            told.recv().unwrap(),
            "the other job waited for the callback"
        );
    }

    #[test]
    fn a_thread_is_started_only_if_the_others_are_stuck() {
        let (mut state, now) = (State::new(), Instant::now());
        assert_eq!(state.act(now).0, Action::Spawn);
        assert_eq!(state.act(now).0, Action::None, "it is starting");
        state.starting -= 1;
        state.taken += 1;
        assert_eq!(state.act(now).0, Action::None, "it has taken a job");
        let (action, next) = state.act(now);
        assert_eq!((action, next), (Action::Spawn, now + LOOK), "it is stuck");
        state.starting -= 1;
        state.idle += 1;
        assert_eq!(state.act(now).0, Action::Wake);
        assert_eq!(
            state.act(now).0,
            Action::Wake,
            "it may not have woken up yet"
        );
        state.idle -= 1;
        state.threads = MAX_THREADS;
        assert_eq!(state.act(now).0, Action::None, "there are enough");
    }

    #[test]
    fn a_refused_thread_is_tried_again_later() {
        let (mut state, now) = (State::new(), Instant::now());
        state.retry_at = Some(now + RETRY);
        assert_eq!(state.act(now), (Action::None, now + RETRY));
        assert_eq!(state.act(now + RETRY).0, Action::Spawn);
        assert_eq!(
            (state.threads, state.starting, state.retry_at),
            (1, 1, None)
        );
    }

    #[test]
    fn the_timer_is_told_of_earlier_deadlines_only() {
        let (mut state, now) = (State::new(), Instant::now());
        assert_eq!(state.needs_timer(now + FAR), Some(now + FAR));
        assert_eq!(state.needs_timer(now + FAR), None);
        assert_eq!(state.needs_timer(now + LOOK), Some(now + LOOK));
        assert_eq!(state.needs_timer(now + RETRY), None);
    }

    #[test]
    fn due_jobs_are_taken_in_the_order_of_their_deadlines() {
        let (mut state, now) = (State::new(), Instant::now());
        let tasks = [2, 0, 1].map(|n| {
            let (task, _handle) = job();
            // The guards would look for the entries elsewhere.
            std::mem::forget(state.insert(now + n * LOOK, Arc::downgrade(&task)));
            (n, task)
        });
        let mut take = |at: u32| {
            let task = state.take_due(now + at * LOOK)?.upgrade()?;
            let number = tasks.iter().find(|(_, other)| Arc::ptr_eq(other, &task));
            number.map(|(n, _)| *n)
        };
        assert_eq!([take(1), take(1), take(1)], [Some(0), Some(1), None]);
        assert_eq!([take(2), take(2)], [Some(2), None]);
    }
}
