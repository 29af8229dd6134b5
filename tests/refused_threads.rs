//! Guarantee 7: a thread that the system refuses to start does no harm while one worker lives.
//! Without any worker, handles resolve with the system's error.
//!
//! The limit on threads applies to a user and a process. So each test runs itself again in a child
//! process with a limit on the number of threads (`RLIMIT_NPROC`). If the test runs as root, which
//! has no such limit, the child runs as an ordinary user.

#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
mod common;

use std::env;
use std::error::Error;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, PoisonError, mpsc};
use std::time::Duration;

use common::{CountingWaker, Gate, LONG, eventually, poll_with, threads_named, within};
use futurepool::{JoinHandle, Priority, StatefulPool, ThreadPool, as_completed};
use futures::StreamExt;
use futures::future::{join_all, pending};
use rlimit::Resource;
use tracing::field::Field;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Set in the child: how many threads it may start in addition to the existing ones; 0 means none
/// at all.
const LIMIT: &str = "FUTUREPOOL_TEST_THREADS";

/// Unused user ids, one per test, so that no other threads count.
const ORDINARY_USER: u32 = 54_321;

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// In the child: sets the limit and returns `true`. In the parent: runs this test in a child and
/// waits for its end.
fn in_child(test: &str, more_threads: usize) -> bool {
    if let Ok(more) = env::var(LIMIT) {
        let limit = match more.parse::<u64>().unwrap() {
            0 => 0,
            more if more >= NO_LIMIT as u64 => return true,
            more => threads_of_this_user() + more,
        };
        rlimit::setrlimit(Resource::NPROC, limit, limit).unwrap();
        return true;
    }
    // A process that starts while the copy is written inherits the open file, and a file open for
    // writing cannot be executed.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let starting = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // A copy that an ordinary user may execute.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("refused_threads");
    fs::copy(env::current_exe().unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&copy);
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command
        .env(LIMIT, more_threads.to_string())
        .current_dir(folder.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if is_root() {
        let user = ORDINARY_USER + more_threads as u32;
        command.uid(user).gid(user);
    }
    let child = command.spawn().unwrap();
    drop(starting);
    let pid = child.id();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    let output = told.recv_timeout(LONG).unwrap_or_else(|_| {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        panic!("{test}: the child did not end within {LONG:?}");
    });
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{test}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{text}");
    false
}

/// In a child that has no limit yet: lets the system refuse every further thread of this process.
/// Returns how to lift that again.
fn refuse_threads() -> impl FnOnce() {
    let (soft, hard) = rlimit::getrlimit(Resource::NPROC).unwrap();
    rlimit::setrlimit(Resource::NPROC, 0, hard).unwrap();
    let refused = std::thread::Builder::new().spawn(|| ());
    assert!(refused.is_err(), "the limit has no effect");
    move || rlimit::setrlimit(Resource::NPROC, soft, hard).unwrap()
}

/// Stands for a child whose limit the test sets itself. The user of the child differs for each
/// test.
const NO_LIMIT: usize = 1_000_000;

/// Returns whether the child can tell how many threads it may start, to the last one. If not, says
/// that the test is skipped.
fn can_count_threads() -> bool {
    let can = is_root() || env::var_os(LIMIT).is_some();
    if !can {
        eprintln!(
            "skipped: other threads of this user start and exit, and only root can switch to another user"
        );
    }
    can
}

/// Returns the number of threads of all processes of this user.
fn threads_of_this_user() -> u64 {
    let user = fs::metadata("/proc/self").unwrap().uid();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mine = processes.filter(|process| process.metadata().is_ok_and(|data| data.uid() == user));
    mine.filter_map(|process| Some(fs::read_dir(process.path().join("task")).ok()?.count() as u64))
        .sum()
}

#[test]
fn guarantee_7_the_pool_carries_on_with_the_threads_it_got() {
    if !in_child(
        "guarantee_7_the_pool_carries_on_with_the_threads_it_got",
        40,
    ) {
        return;
    }
    let pool = ThreadPool::new(5_000);
    let ran = Arc::new(AtomicU64::new(0));
    let gate = Gate::new();
    let handles: Vec<_> = (0..50_000_u64)
        .map(|i| {
            let (ran, gate) = (Arc::clone(&ran), gate.clone());
            pool.submit(move || {
                gate.wait();
                ran.fetch_add(1, SeqCst);
                i
            })
        })
        .collect();
    let metrics = pool.metrics();
    println!(
        "{} workers, {} spawn failures",
        metrics.workers, metrics.spawn_failures
    );
    assert!((1..5_000).contains(&metrics.workers), "{metrics:?}");
    assert!(metrics.spawn_failures > 0, "{metrics:?}");
    assert!(
        metrics.spawn_failures < 5_000,
        "the pool keeps trying to spawn: {metrics:?}"
    );
    gate.open();
    for (i, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.join().unwrap(), i as u64);
    }
    assert_eq!(ran.load(SeqCst), 50_000);
    pool.shutdown().join();
    let metrics = pool.metrics();
    assert_eq!((metrics.completed, metrics.workers), (50_000, 0));
}

#[test]
fn guarantee_7_with_no_thread_handles_resolve_with_the_systems_error() {
    if !in_child(
        "guarantee_7_with_no_thread_handles_resolve_with_the_systems_error",
        0,
    ) {
        return;
    }
    let pool = ThreadPool::builder()
        .max_workers(4)
        .queue_capacity(2)
        .build()
        .unwrap();
    for i in 1..=100 {
        let (tell, told) = mpsc::channel();
        let handle = pool.submit(move || tell.send(()));
        handle.add_done_callback(|outcome| assert!(outcome.unwrap_err().is_spawn_failed()));
        let error = handle.join().unwrap_err();
        assert!(
            error.is_spawn_failed() && !error.is_cancelled(),
            "{error:?}"
        );
        let system = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(system.kind(), io::ErrorKind::WouldBlock);
        assert!(
            told.recv().is_err(),
            "it ran all the same, or its closure is still there"
        );
        // The pool is not broken, and tries to spawn again each time.
        assert_eq!(pool.metrics().spawn_failures, i);
        assert_eq!(pool.metrics().cancelled, i);
    }
    let accepted = pool.try_submit(|| ()).expect("a permit is free");
    assert!(accepted.join().unwrap_err().is_spawn_failed());
    assert_eq!(pool.metrics().workers, 0);
    pool.shutdown().join();
    assert!(pool.submit(|| ()).join().unwrap_err().is_shutdown());
}

/// Keeps the warnings that it receives.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut warning = String::new();
        event.record(&mut |field: &Field, value: &dyn Debug| {
            warning += &format!("{field}={value:?} ");
        });
        self.0.lock().unwrap().push(warning);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn guarantee_7_a_spawn_failure_is_reported_through_tracing() {
    if !in_child("guarantee_7_a_spawn_failure_is_reported_through_tracing", 0) {
        return;
    }
    let pool = ThreadPool::builder()
        .thread_name_prefix("refused")
        .build()
        .unwrap();
    let warnings = Warnings::default();
    let submit = || pool.submit(|| ()).join();
    let outcome = tracing::subscriber::with_default(warnings.clone(), submit);
    let error = outcome.unwrap_err();
    let warnings = warnings.0.lock().unwrap();
    let [warning] = &warnings[..] else {
        panic!("one spawn failure, but these warnings: {warnings:?}");
    };
    let system = error.source().unwrap().to_string();
    assert!(warning.contains("pool=refused"), "{warning}");
    assert!(warning.contains(&system), "{warning}");
}

#[test]
fn a_refused_worker_and_a_refused_timer_are_reported_with_distinct_field_names() {
    let name = "a_refused_worker_and_a_refused_timer_are_reported_with_distinct_field_names";
    if !in_child(name, 0) {
        return;
    }
    use common::event_log::EventLog;

    EventLog::install();
    let pool = ThreadPool::new(1);
    assert!(pool.submit(|| ()).join().unwrap_err().is_spawn_failed());
    let mut results = as_completed([pending::<()>()]).timeout(10 * LONG);
    let result = futures::executor::block_on(results.next());
    assert!(result.unwrap().is_err());
    for thread in ["worker thread", "timer thread"] {
        assert!(EventLog::contains_at(Level::WARN, &[thread]), "{thread}");
    }
    EventLog::assert_distinct_field_names();
}

#[test]
fn guarantee_7_the_pool_recovers_when_threads_are_available_again() {
    if !can_count_threads() {
        return;
    }
    if !in_child(
        "guarantee_7_the_pool_recovers_when_threads_are_available_again",
        3,
    ) {
        return;
    }
    // Three threads more: one for this watchdog, one for a pool that takes up a thread, one for the
    // tested pool.
    within(LONG, "refused, then available", || {
        let pool = ThreadPool::new(3);
        let other = ThreadPool::new(1);
        other.submit(|| ()).join().unwrap();
        let gate = Gate::new();
        let hold = || {
            let gate = gate.clone();
            pool.submit(move || gate.wait())
        };
        let held = [hold(), hold(), hold()];
        assert_eq!(pool.metrics().workers, 1);
        assert!(pool.metrics().spawn_failures > 0);
        other.shutdown().join();
        // Now the system has a thread again; one of the next submits starts it.
        let mut more = Vec::new();
        eventually("another worker", || {
            more.push(pool.submit(|| ()));
            pool.metrics().workers == 2
        });
        gate.open();
        for handle in more.into_iter().chain(held) {
            handle.join().unwrap();
        }
    });
}

#[test]
fn guarantee_7_the_only_worker_that_started_runs_what_it_waits_for() {
    if !can_count_threads() {
        return;
    }
    if !in_child(
        "guarantee_7_the_only_worker_that_started_runs_what_it_waits_for",
        2,
    ) {
        return;
    }
    // Two threads more: one for this watchdog, one for the pool. It never gets another one. Half of
    // the time that the parent waits, so that a failure says what it is.
    within(LONG / 2, "refused for good", || {
        let pool = Arc::new(ThreadPool::new(3));
        let inner = Arc::clone(&pool);
        let waits = pool.submit(move || {
            let submit = || (0..4).map(|n| inner.submit(move || n));
            let first: Vec<u64> = as_completed(submit())
                .into_iter()
                .map(Result::unwrap)
                .collect();
            let second = futurepool::block_on(join_all(submit()));
            (first, second.into_iter().map(Result::unwrap).collect())
        });
        let wanted: Vec<_> = (0..4).collect();
        assert_eq!(waits.join().unwrap(), (wanted.clone(), wanted));
        let metrics = pool.metrics();
        assert_eq!(metrics.workers, 1, "{metrics:?}");
        assert!(metrics.spawn_failures > 0, "{metrics:?}");
    });
}

#[test]
fn a_timeout_elapses_at_once_if_the_timer_gets_no_thread() {
    if !in_child("a_timeout_elapses_at_once_if_the_timer_gets_no_thread", 0) {
        return;
    }
    let mut results = as_completed([pending::<()>()]).timeout(10 * LONG);
    // In async code: blocking code needs no timer.
    let result = futures::executor::block_on(results.next());
    assert!(result.unwrap().is_err());
}

/// A job that tells when it starts, then waits for the gate.
fn hold(pool: &ThreadPool, gate: &Gate) -> (JoinHandle<()>, mpsc::Receiver<()>) {
    let (started, starts) = mpsc::channel();
    let gate = gate.clone();
    let handle = pool.submit(move || {
        started.send(()).unwrap();
        gate.wait();
    });
    (handle, starts)
}

/// Starts the timer's thread. It then stays for some seconds.
fn start_the_timer() {
    let mut results = as_completed([pending::<()>()]).timeout(Duration::from_millis(1));
    assert!(
        futures::executor::block_on(results.next())
            .unwrap()
            .is_err()
    );
}

#[test]
fn guarantee_7_a_refused_thread_is_retried_without_any_further_call() {
    let name = "guarantee_7_a_refused_thread_is_retried_without_any_further_call";
    if !in_child(name, NO_LIMIT + 1) {
        return;
    }
    within(LONG / 2, name, || {
        let pool = ThreadPool::new(4);
        let gate = Gate::new();
        let (long, starts) = hold(&pool, &gate);
        starts.recv_timeout(LONG).unwrap();
        start_the_timer();
        let lift = refuse_threads();
        // Several: one retry makes up for all of them.
        let queued = [hold(&pool, &gate), hold(&pool, &gate), hold(&pool, &gate)];
        assert_eq!(pool.metrics().workers, 1);
        let failures = pool.metrics().spawn_failures;
        assert!(failures > 0);
        eventually("a retry that fails", || {
            pool.metrics().spawn_failures > failures
        });
        lift();
        for (_, starts) in &queued {
            starts
                .recv_timeout(LONG / 4)
                .expect("it starts by itself while the long job runs");
        }
        assert!(!long.is_finished());
        gate.open();
        for handle in queued.into_iter().map(|(handle, _)| handle).chain([long]) {
            handle.join().unwrap();
        }
    });
}

#[test]
fn guarantee_7_without_a_timer_a_thread_that_joins_retries() {
    let name = "guarantee_7_without_a_timer_a_thread_that_joins_retries";
    if !in_child(name, NO_LIMIT + 2) {
        return;
    }
    within(LONG / 2, name, || {
        let pool = ThreadPool::new(3);
        let gate = Gate::new();
        let (long, starts) = hold(&pool, &gate);
        starts.recv_timeout(LONG).unwrap();
        let lift = refuse_threads();
        let (mut queued, queued_starts) = hold(&pool, &gate);
        let another = pool.submit(|| 7);
        assert_eq!(pool.metrics().workers, 1);
        let failures = pool.metrics().spawn_failures;
        // In a wait with a timeout, too.
        let waited = queued.join_timeout(Duration::from_millis(500));
        assert!(waited.unwrap_err().is_timeout());
        assert!(pool.metrics().spawn_failures > failures);
        assert_eq!(threads_named("futurepool-time"), 0);
        lift();
        assert_eq!(another.join().unwrap(), 7);
        queued_starts.recv_timeout(LONG / 4).unwrap();
        assert!(!long.is_finished());
        gate.open();
        long.join().unwrap();
        queued.join().unwrap();
    });
}

#[test]
fn guarantee_7_without_a_timer_a_worker_that_ends_a_job_retries() {
    let name = "guarantee_7_without_a_timer_a_worker_that_ends_a_job_retries";
    if !in_child(name, NO_LIMIT + 3) {
        return;
    }
    within(LONG / 2, name, || {
        let pool = ThreadPool::new(3);
        let (first_gate, gate) = (Gate::new(), Gate::new());
        let (first, first_starts) = hold(&pool, &first_gate);
        let (second, second_starts) = hold(&pool, &gate);
        for starts in [first_starts, second_starts] {
            starts.recv_timeout(LONG).unwrap();
        }
        let lift = refuse_threads();
        // One for the worker that ends its job, and one that needs another worker.
        let queued = [hold(&pool, &gate), hold(&pool, &gate)];
        assert_eq!(pool.metrics().workers, 2);
        lift();
        // The back-off ends. Nothing of this crate is called meanwhile.
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(pool.metrics().workers, 2, "nothing has retried yet");
        first_gate.open();
        for (_, starts) in &queued {
            starts.recv_timeout(LONG / 4).expect("it has a worker");
        }
        assert!(!second.is_finished());
        gate.open();
        for handle in queued.into_iter().map(|(handle, _)| handle) {
            handle.join().unwrap();
        }
        first.join().unwrap();
        second.join().unwrap();
    });
}

#[test]
fn guarantee_7_without_a_timer_a_submit_to_another_pool_retries() {
    let name = "guarantee_7_without_a_timer_a_submit_to_another_pool_retries";
    if !in_child(name, NO_LIMIT + 4) {
        return;
    }
    within(LONG / 2, name, || {
        let (pool, other) = (ThreadPool::new(2), ThreadPool::new(1));
        other.submit(|| ()).join().unwrap();
        let gate = Gate::new();
        let (long, starts) = hold(&pool, &gate);
        starts.recv_timeout(LONG).unwrap();
        let lift = refuse_threads();
        let (queued, queued_starts) = hold(&pool, &gate);
        lift();
        std::thread::sleep(Duration::from_millis(200));
        drop(other.submit(|| ()));
        queued_starts.recv_timeout(LONG / 4).unwrap();
        gate.open();
        long.join().unwrap();
        queued.join().unwrap();
    });
}

#[test]
fn guarantee_7_a_blocked_worker_retries_without_a_timer() {
    let name = "guarantee_7_a_blocked_worker_retries_without_a_timer";
    if !in_child(name, NO_LIMIT + 5) {
        return;
    }
    within(LONG / 2, name, || {
        let pool = Arc::new(ThreadPool::new(3));
        let gate = Gate::new();
        let (long, starts) = hold(&pool, &gate);
        starts.recv_timeout(LONG).unwrap();
        let (go, wait_for_go) = mpsc::channel();
        let waits = pool.submit(move || {
            let mut handle: JoinHandle<u32> = wait_for_go.recv().unwrap();
            // Such a wait runs no job, so only another worker can.
            handle.join_timeout(LONG)
        });
        eventually("both are busy", || pool.metrics().running == 2);
        let lift = refuse_threads();
        let queued = pool.submit(|| 7);
        assert_eq!(pool.metrics().workers, 2);
        go.send(queued).unwrap();
        lift();
        // The test's thread comes by with nothing of this crate.
        eventually("the queued job runs", || pool.metrics().workers == 3);
        assert!(!long.is_finished());
        gate.open();
        assert_eq!(waits.join().unwrap().unwrap(), 7);
        long.join().unwrap();
    });
}

#[test]
fn a_refused_prestart_counts_and_stops() {
    if !in_child("a_refused_prestart_counts_and_stops", 0) {
        return;
    }
    let pool = ThreadPool::new(8);
    pool.prestart(8);
    let metrics = pool.metrics();
    assert_eq!((metrics.workers, metrics.spawn_failures), (0, 1));
}

#[test]
fn a_spawn_failure_with_a_stack_size_names_it() {
    if !in_child("a_spawn_failure_with_a_stack_size_names_it", 0) {
        return;
    }
    let pool = ThreadPool::builder().stack_size(123_456).build().unwrap();
    let error = pool.submit(|| ()).join().unwrap_err();
    assert!(error.is_spawn_failed());
    assert!(error.to_string().contains("123456"), "{error}");
    let system = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(system.kind(), io::ErrorKind::WouldBlock);
    let without = ThreadPool::new(1).submit(|| ()).join().unwrap_err();
    assert!(error.to_string().contains(&without.to_string()), "{error}");
}

#[test]
fn a_join_in_a_stateful_pool_that_gets_no_further_worker_is_a_deadlock() {
    let test = "a_join_in_a_stateful_pool_that_gets_no_further_worker_is_a_deadlock";
    if !in_child(test, NO_LIMIT + 8) {
        return;
    }
    within(LONG, test, || {
        let pool = Arc::new(
            StatefulPool::builder_with(|| 7)
                .max_workers(2)
                .build()
                .unwrap(),
        );
        assert_eq!(pool.submit(|seven| *seven).join().unwrap(), 7);
        let allow_threads = refuse_threads();
        for _ in 0..3 {
            let inner = Arc::clone(&pool);
            let job = pool.submit(move |_| {
                let queued = inner.submit(|seven| *seven);
                queued.join().is_err_and(|error| error.is_deadlock())
            });
            assert!(job.join().unwrap());
        }
        assert!(pool.metrics().spawn_failures >= 1);
        allow_threads();
        // After the back-off there is another worker.
        let inner = Arc::clone(&pool);
        eventually("a join that waits", || {
            let inner = Arc::clone(&inner);
            let job = pool.submit(move |_| inner.submit(|seven| *seven).join().is_ok());
            job.join().unwrap()
        });
    });
}

#[test]
fn a_submit_that_waits_for_room_with_a_deadline_does_not_spin_without_a_timer() {
    let test = "a_submit_that_waits_for_room_with_a_deadline_does_not_spin_without_a_timer";
    if !in_child(test, NO_LIMIT + 6) {
        return;
    }
    within(LONG / 2, test, || {
        let builder = ThreadPool::builder().max_workers(1).queue_capacity(1);
        let pool = builder.build().unwrap();
        let gate = Gate::new();
        let (busy, starts) = hold(&pool, &gate);
        starts.recv_timeout(LONG).unwrap();
        let mut queued = pool.submit(|| ());
        let lift = refuse_threads();
        let (wakes, waker) = CountingWaker::new();
        let job = pool.job(|| ()).expires_in(Duration::from_millis(50));
        let mut waits = job.submit_async();
        for _ in 0..10 {
            assert!(poll_with(&mut waits, &waker).is_pending());
        }
        assert_eq!(wakes.count(), 0, "it wakes itself");
        // A thread that waits comes by after the deadline.
        eventually("the deadline elapses", || {
            let _ = queued.join_timeout(Duration::from_millis(500));
            wakes.count() == 1
        });
        let std::task::Poll::Ready(Err(error)) = poll_with(&mut waits, &waker) else {
            panic!("it is too late");
        };
        assert!(error.is_expired());
        // One that is given up leaves nothing for those that come by.
        let job = pool.job(|| ()).expires_in(LONG);
        let mut waits = job.submit_async();
        assert!(poll_with(&mut waits, &waker).is_pending());
        drop(waits);
        lift();
        gate.open();
        busy.join().unwrap();
        queued.join().unwrap();
    });
}

#[test]
fn late_jobs_that_no_thread_expires_use_up_no_turn_of_their_priority() {
    let test = "late_jobs_that_no_thread_expires_use_up_no_turn_of_their_priority";
    if !in_child(test, NO_LIMIT + 7) {
        return;
    }
    within(LONG / 2, test, || {
        let pool = ThreadPool::new(1);
        let gate = Gate::new();
        let (busy, starts) = hold(&pool, &gate);
        starts.recv_timeout(LONG).unwrap();
        let lift = refuse_threads();
        let late: Vec<_> = (0..100)
            .map(|_| {
                let job = pool.job(|| unreachable!("it is too late"));
                job.expires_in(Duration::from_millis(5)).submit::<()>()
            })
            .collect();
        let started = Arc::new(AtomicU64::new(0));
        let job = || {
            let started = Arc::clone(&started);
            move || started.fetch_add(1, SeqCst)
        };
        let in_time = pool.submit(job());
        let high: Vec<_> = (0..300)
            .map(|_| pool.job(job()).priority(Priority::High).submit())
            .collect();
        std::thread::sleep(Duration::from_millis(20));
        gate.open();
        // Of any 16 starts, 4 are of normal priority.
        let before = in_time.join().unwrap();
        assert!(before < 16, "it started after {before} others");
        for job in late {
            assert!(job.join().unwrap_err().is_expired());
        }
        for job in high {
            job.join().unwrap();
        }
        busy.join().unwrap();
        lift();
    });
}

#[test]
fn pools_that_wait_for_each_others_refused_threads_are_in_no_deadlock() {
    let test = "pools_that_wait_for_each_others_refused_threads_are_in_no_deadlock";
    if !in_child(test, NO_LIMIT + 9) {
        return;
    }
    within(LONG / 2, test, || {
        start_the_timer();
        let pools = [(); 2].map(|()| Arc::new(ThreadPool::new(2)));
        let (both_run, refused) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(3)));
        let jobs = [0, 1].map(|own| {
            let other = Arc::clone(&pools[1 - own]);
            let (both_run, refused) = (Arc::clone(&both_run), Arc::clone(&refused));
            pools[own].submit(move || {
                both_run.wait();
                refused.wait();
                other.submit(|| 7).join()
            })
        });
        both_run.wait();
        let allow_threads = refuse_threads();
        refused.wait();
        let is_refused = |pool: &Arc<ThreadPool>| pool.metrics().spawn_failures > 1;
        eventually("spawns and retries that fail", || {
            pools.iter().all(is_refused)
        });
        assert!(jobs.iter().all(|job| !job.is_finished()));
        allow_threads();
        for job in jobs {
            assert_eq!(job.join().unwrap().unwrap(), 7);
        }
    });
}

#[test]
fn a_job_expires_when_a_worker_reaches_it_if_no_thread_can_do_it_before() {
    if !in_child(
        "a_job_expires_when_a_worker_reaches_it_if_no_thread_can_do_it_before",
        NO_LIMIT,
    ) {
        return;
    }
    let pool = ThreadPool::new(1);
    let gate = Gate::new();
    let (started, starts) = mpsc::channel();
    let of_job = gate.clone();
    let busy = pool.submit(move || {
        started.send(()).unwrap();
        of_job.wait();
    });
    starts.recv_timeout(LONG).unwrap();
    // Neither the timer nor a thread that lets jobs expire.
    let lift = refuse_threads();
    let jobs: Vec<_> = (0..10)
        .map(|_| {
            let job = pool.job(|| unreachable!("it is too late"));
            job.expires_in(Duration::from_millis(5)).submit::<()>()
        })
        .collect();
    let in_time = pool.job(|| 7).expires_in(LONG).submit();
    std::thread::sleep(Duration::from_millis(20));
    assert!(jobs.iter().all(|job| !job.is_finished()));
    gate.open();
    busy.join().unwrap();
    for job in jobs {
        assert!(job.join().unwrap_err().is_expired());
    }
    assert_eq!(in_time.join().unwrap(), 7);
    assert_eq!(pool.metrics().expired, 10);
    lift();
}
