//! What executors on other machines are made of: encoded calls, errors that travel, and jobs that are
//! given back.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use futurepool::{
    Call, ErrorReport, InlineExecutor, JoinError, JoinHandle, Payload, SubmitError, Task,
    TaskExecutor, TaskExecutorExt, TaskJob, Tasks, ThreadPool, cancel_requested, task, tasks,
};
use futures::StreamExt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::common::{LONG, block_workers, bounded_pool, eventually, within};

#[task(name = "elsewhere.double", version = 2)]
fn double(n: u32) -> u32 {
    2 * n
}

#[task(name = "elsewhere.fail")]
fn fail(message: String) {
    panic!("{message}");
}

#[task(name = "elsewhere.reverse", idempotent, attempts = 4)]
fn reverse(mut image: Vec<u8>) -> Vec<u8> {
    image.reverse();
    image
}

/// Cannot be encoded.
struct Opaque;

impl Serialize for Opaque {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it has no text"))
    }
}

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

#[task(name = "elsewhere.opaque")]
fn opaque() -> Opaque {
    Opaque
}

#[task(name = "elsewhere.wait_for_cancel")]
fn wait_for_cancel() -> bool {
    eventually("the cancel request", cancel_requested);
    true
}

#[task]
fn unnamed() {}

fn known() -> Tasks {
    tasks![double, fail, reverse, opaque, wait_for_cancel, unnamed]
}

/// Makes a job of the encoded arguments of `call`, as a worker elsewhere does.
fn received<T: Task>(call: Call<T>) -> (TaskJob, JoinHandle<Payload>) {
    let (job, _handle) = TaskJob::new(call);
    let message = job.encode().unwrap().to_bytes();
    let entry = *known().get(T::NAME, T::VERSION).unwrap();
    entry
        .call(Payload::from_bytes(&message).unwrap())
        .into_job()
}

/// Passes its jobs on without a look at them.
struct Wrapper<E>(E);

impl<E: TaskExecutor> TaskExecutor for Wrapper<E> {
    fn execute_task(&self, job: TaskJob) {
        self.0.execute_task(job);
    }
}

fn executors() -> Vec<Box<dyn TaskExecutor>> {
    vec![
        Box::new(InlineExecutor),
        Box::new(ThreadPool::new(2)),
        Box::new(Wrapper(ThreadPool::new(2))),
        Box::new(Arc::new(futurepool::global())),
    ]
}

// Encoded calls.

#[test]
fn any_executor_runs_an_encoded_call() {
    for executor in executors() {
        let image: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
        let (answer, sender) = TaskJob::new(reverse::call(image.clone()));
        let (job, handle) = received(reverse::call(image.clone()));
        executor.execute_task(job);
        let output = handle.join().unwrap();
        assert_eq!(output.lanes().len(), 1);
        answer.resolve(output);
        assert_eq!(sender.join().unwrap(), reverse(image));
    }
}

#[test]
fn arguments_that_cannot_be_decoded_run_nothing() {
    let entry = *known().get("elsewhere.double", 2).unwrap();
    for executor in executors() {
        let garbage = Payload::from_parts(vec![0xc1], Vec::new());
        let (job, handle) = entry.call(garbage).into_job();
        executor.execute_task(job);
        let error = handle.join().unwrap_err();
        assert!(error.is_codec() && !error.may_have_run(), "{error}");
        assert!(error.to_string().contains("elsewhere.double"), "{error}");
        assert!(error.location().is_some());
    }
}

#[test]
fn an_output_that_cannot_be_encoded_is_of_a_task_that_ran() {
    for executor in executors() {
        let (job, handle) = received(opaque::call());
        executor.execute_task(job);
        let error = handle.join().unwrap_err();
        assert!(error.is_codec() && error.may_have_run(), "{error}");
        assert!(error.to_string().contains("it has no text"), "{error}");
    }
}

#[test]
fn a_panic_of_an_encoded_call_has_its_message() {
    for executor in executors() {
        let (job, handle) = received(fail::call("no ink".to_owned()));
        executor.execute_task(job);
        let error = handle.join().unwrap_err();
        assert!(error.is_panic() && error.may_have_run(), "{error}");
        assert_eq!(error.panic_message(), Some("no ink"));
    }
}

#[test]
fn an_encoded_call_has_limits_and_a_label() {
    let at = Instant::now() + LONG;
    let entry = *known().get("elsewhere.reverse", 1).unwrap();
    let call = entry.call(Payload::default());
    let (job, _handle) = call.label("one").deadline(at).time_limit(LONG).into_job();
    assert_eq!(
        (job.label(), job.time_limit(), job.deadline()),
        (Some("one"), Some(LONG), Some(at))
    );
    assert_eq!(
        (job.name(), job.version(), job.signature()),
        ("elsewhere.reverse", 1, reverse::SIGNATURE)
    );
    // The sender counts the starts.
    assert_eq!((job.is_idempotent(), job.attempts()), (true, 1));

    for executor in executors() {
        let entry = *known().get("elsewhere.double", 2).unwrap();
        let arguments = TaskJob::new(double::call(1)).0.encode().unwrap();
        let late = entry.call(arguments.clone()).deadline(Instant::now());
        let (job, handle) = late.into_job();
        executor.execute_task(job);
        assert!(handle.join().unwrap_err().is_expired());

        let (job, handle) = entry.call(arguments).time_limit(LONG).into_job();
        executor.execute_task(job);
        let error = handle.join().unwrap_err();
        assert!(error.is_refused() && !error.may_have_run(), "{error}");
    }
}

#[test]
fn a_running_encoded_call_sees_the_cancel_request() {
    let pool = ThreadPool::new(1);
    let executors: [&dyn TaskExecutor; 2] = [&pool, &Wrapper(&pool)];
    for executor in executors {
        let (job, handle) = received(wait_for_cancel::call());
        executor.execute_task(job);
        eventually("the task runs", || handle.is_running());
        assert!(!handle.cancel());
        let output = within(LONG, "the task sees the cancel", || handle.join());
        let (answer, sender) = TaskJob::new(wait_for_cancel::call());
        answer.resolve(output.unwrap());
        assert!(sender.join().unwrap());
    }
}

// Jobs that are given back.

#[test]
fn a_full_pool_gives_a_job_back() {
    within(LONG, "a pool that blocks", || {
        let pool = bounded_pool(1, 1);
        let blocked = block_workers(&pool, 1);
        let (first, queued) = TaskJob::new(double::call(1));
        pool.try_execute_task(first).unwrap();
        let (second, handle) = TaskJob::new(double::call(2));
        let by_reference: &dyn TaskExecutor = &&pool;
        let error = by_reference.try_execute_task(second).unwrap_err();
        assert!(error.is_full(), "{error}");
        error.into_inner().run_here();
        assert_eq!(handle.join().unwrap(), 4);
        blocked.release();
        assert_eq!(queued.join().unwrap(), 2);
        // Cancelled in the queue of the pool.
        let blocked = block_workers(&pool, 1);
        let (third, handle) = TaskJob::new(double::call(3));
        pool.try_execute_task(third).unwrap();
        assert!(handle.cancel());
        assert_eq!(pool.metrics().queued, 0);
        blocked.release();

        let (limited, _handle) = TaskJob::new(double::call(3).time_limit(LONG));
        let error = pool.try_execute_task(limited).unwrap_err();
        assert!(error.is_refused() && !error.is_full(), "{error}");
        pool.shutdown().join();
        let (late, handle) = TaskJob::new(double::call(4));
        let error = pool.try_execute_task(late).unwrap_err();
        assert!(error.is_shutdown(), "{error}");
        drop(error);
        assert!(handle.join().unwrap_err().is_cancelled());
    });
}

/// Has a queue with room for one job.
struct Bounded(SyncSender<TaskJob>);

impl TaskExecutor for Bounded {
    fn execute_task(&self, job: TaskJob) {
        if let Err(error) = self.0.send(job) {
            error.0.fail(JoinError::shutdown());
        }
    }

    fn try_execute_task(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
        self.0.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) => SubmitError::full(job),
            TrySendError::Disconnected(job) => SubmitError::because(JoinError::shutdown(), job),
        })
    }

    fn max_in_flight(&self) -> Option<usize> {
        Some(3)
    }
}

#[test]
fn an_executor_elsewhere_gives_the_call_back() {
    within(LONG, "an executor that blocks", || {
        let (jobs, queue) = mpsc::sync_channel(1);
        let executor: Box<dyn TaskExecutor> = Box::new(Bounded(jobs));
        let first = executor.try_submit_task(double::call(1)).unwrap();
        let error = executor.try_submit_task(double::call(2)).unwrap_err();
        assert!(error.is_full() && !error.is_shutdown(), "{error}");
        assert_eq!(error.into_inner().run(), 4);
        queue.recv().unwrap().run_here();
        assert_eq!(first.join().unwrap(), 2);
        drop(queue);
        let error = executor.try_submit_task(double::call(3)).unwrap_err();
        assert!(error.is_shutdown(), "{error}");
        assert_eq!(error.into_inner().run(), 6);
    });
}

/// Refuses each job, after what it does with it.
struct Refusing(fn(TaskJob) -> TaskJob);

impl TaskExecutor for Refusing {
    fn execute_task(&self, job: TaskJob) {
        (self.0)(job).fail(JoinError::shutdown());
    }

    fn try_execute_task(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
        let job = (self.0)(job);
        let error = JoinError::duplicate_key(job.name(), "order-17");
        Err(SubmitError::because(error, job))
    }
}

#[test]
fn a_key_that_is_taken_gives_the_call_back() {
    let line = line!() + 1;
    let error = Refusing(|job| job).try_submit_task(double::call(1));
    let error = error.unwrap_err();
    assert!(error.is_duplicate_key() && !error.is_refused() && !error.is_expired());
    let text = error.to_string();
    assert!(text.contains("key \"order-17\" exists"), "{text}");
    assert!(text.contains(&format!("elsewhere.rs:{line}")), "{text}");
    let debug = format!("{error:?}");
    assert!(debug.starts_with("SubmitError::DuplicateKey("), "{debug}");
    assert_eq!(error.into_inner().run(), 2);
}

#[test]
fn a_job_that_cannot_be_given_back_has_the_reason() {
    let starts = Refusing(|job| {
        assert!(job.set_running());
        job
    });
    let handle = starts.try_submit_task(double::call(1)).unwrap();
    let error = handle.join().unwrap_err();
    assert!(error.is_duplicate_key() && error.may_have_run(), "{error}");

    // Another job than it was given: both handles resolve.
    let swaps = Refusing(|job| {
        drop(job);
        TaskJob::new(fail::call(String::new())).0
    });
    let handle = swaps.try_submit_task(double::call(1)).unwrap();
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn the_call_of_a_job_comes_back_until_the_job_starts() {
    let (job, handle) = TaskJob::new(double::call(21).label("x"));
    let job = job.into_call::<fail>().unwrap_err();
    assert!(job.encode().is_ok());
    let call = job.into_call::<double>().unwrap();
    assert!(format!("{call:?}").contains("\"x\""));
    assert_eq!(call.run(), 42);
    let error = handle.join().unwrap_err();
    assert!(error.is_cancelled() && !error.may_have_run());

    let (job, handle) = TaskJob::new(double::call(21));
    assert!(job.set_running());
    let job = job.into_call::<double>().unwrap_err();
    job.run_here();
    assert_eq!(handle.join().unwrap(), 42);

    let (job, handle) = TaskJob::new(double::call(21));
    assert!(handle.cancel());
    assert!(job.into_call::<double>().is_err());
}

#[test]
fn a_job_of_a_call_knows_where_it_was_made() {
    let (line, (job, _handle)) = (line!(), TaskJob::new(double::call(1)));
    assert_eq!(
        (job.location().file(), job.location().line()),
        (file!(), line)
    );
}

#[test]
fn a_map_submits_no_more_ahead_than_its_executor_wants() {
    within(LONG, "maps that submit too much ahead block", || {
        for (buffer, expected) in [(None, 3), (Some(5), 5)] {
            let (jobs, queue) = mpsc::sync_channel(100);
            let executor: &dyn TaskExecutor = &&Bounded(jobs);
            let mut map = executor.map_tasks((0..).map(double::call));
            if let Some(calls) = buffer {
                map = map.buffer_size(calls);
            }
            let mut context = Context::from_waker(Waker::noop());
            assert!(map.poll_next_unpin(&mut context).is_pending());
            let jobs: Vec<TaskJob> = queue.try_iter().collect();
            assert_eq!(jobs.len(), expected);
            jobs.into_iter().for_each(TaskJob::run_here);
            assert_eq!(map.wait_next().unwrap().unwrap(), 0);
        }
    });
}

// Names.

#[test]
fn a_task_knows_whether_the_source_names_it() {
    struct ByHand;

    impl Task for ByHand {
        const NAME: &'static str = "by hand";
        type Args = ();
        type Output = ();

        fn run((): ()) {}
    }

    let tasks = tasks![double, unnamed, ByHand];
    let named: Vec<bool> = tasks.iter().map(futurepool::TaskEntry::is_named).collect();
    assert_eq!(named, [true, false, true]);
    assert!(TaskJob::new(double::call(1)).0.is_named());
    assert!(!TaskJob::new(unnamed::call()).0.is_named());
    let (job, _handle) = tasks
        .get(unnamed::NAME, 1)
        .unwrap()
        .call(Payload::default())
        .into_job();
    assert!(!job.is_named());
}

#[test]
fn a_list_of_tasks_can_be_read() {
    let tasks = tasks![double, reverse];
    assert_eq!((tasks.len(), tasks.is_empty()), (2, false));
    assert!(Tasks::default().is_empty());
    let entry = tasks.get("elsewhere.reverse", 1).unwrap();
    assert_eq!(
        (entry.name(), entry.version(), entry.signature()),
        ("elsewhere.reverse", 1, reverse::SIGNATURE)
    );
    assert_eq!((entry.is_idempotent(), entry.attempts()), (true, 4));
    assert!(entry.location().contains("elsewhere.rs:"), "{entry:?}");
    assert!(tasks.get("elsewhere.double", 1).is_none());
    assert!(tasks.get("elsewhere.reverse", 2).is_none());
    let names: Vec<_> = (&tasks).into_iter().map(|entry| entry.name()).collect();
    assert_eq!(names, ["elsewhere.double", "elsewhere.reverse"]);
    assert!(Tasks::linked().get("elsewhere.double", 2).is_some());
    tasks.check().unwrap();

    let error = tasks![double, reverse, double].check().unwrap_err();
    assert_eq!(error.field(), "tasks");
    assert!(error.to_string().contains("the version 2"), "{error}");
}

// Errors.

/// What the predicates of an error say.
fn answers(error: &JoinError) -> Vec<&'static str> {
    let answers = [
        ("cancelled", error.is_cancelled()),
        ("panic", error.is_panic()),
        ("shutdown", error.is_shutdown()),
        ("broken", error.is_broken()),
        ("spawn_failed", error.is_spawn_failed()),
        ("timeout", error.is_timeout()),
        ("deadlock", error.is_deadlock()),
        ("crashed", error.is_crashed()),
        ("time_limit", error.is_time_limit()),
        ("memory_limit", error.is_memory_limit()),
        ("codec", error.is_codec()),
        ("unknown_task", error.is_unknown_task()),
        ("refused", error.is_refused()),
        ("expired", error.is_expired()),
        ("lost", error.is_lost()),
        ("disconnected", error.is_disconnected()),
        ("duplicate_key", error.is_duplicate_key()),
        ("may have run", error.may_have_run()),
    ];
    let yes = answers.into_iter().filter(|(_, is_so)| *is_so);
    yes.map(|(name, _)| name).collect()
}

/// Each error that can be made outside the crate, what it answers, its text and its kind of I/O error.
fn made() -> Vec<(JoinError, Vec<&'static str>, &'static str, io::ErrorKind)> {
    use io::ErrorKind::{AlreadyExists, InvalidData, NotConnected, Other, TimedOut, Unsupported};
    vec![
        (
            JoinError::cancelled(),
            vec!["cancelled"],
            "the job was cancelled before it started",
            Other,
        ),
        (
            JoinError::cancelled_running("t"),
            vec!["cancelled", "may have run"],
            "task t: the job was cancelled, and may have run",
            Other,
        ),
        (
            JoinError::shutdown(),
            vec!["shutdown"],
            "the pool is shut down and accepts no more jobs",
            Other,
        ),
        (
            JoinError::broken("no disk"),
            vec!["broken"],
            "the pool is broken: no disk",
            Other,
        ),
        (
            JoinError::refused("t", "no such queue"),
            vec!["refused"],
            "task t: no such queue",
            Unsupported,
        ),
        (
            JoinError::expired("t"),
            vec!["expired"],
            "task t: the deadline passed before the job started",
            TimedOut,
        ),
        (
            JoinError::codec("t", "too large", false),
            vec!["codec"],
            "task t: too large",
            InvalidData,
        ),
        (
            JoinError::codec("t", "too large", true),
            vec!["codec", "may have run"],
            "task t: too large",
            InvalidData,
        ),
        (
            JoinError::unknown_task("t", "only version 2"),
            vec!["unknown_task"],
            "task t: only version 2",
            Other,
        ),
        (
            JoinError::lost("t", Some("build-7/4711"), "its lease has expired", true),
            vec!["lost", "may have run"],
            "task t: the job was lost with worker build-7/4711: its lease has expired",
            Other,
        ),
        (
            JoinError::lost("t", None, "there is no news of it", false),
            vec!["lost"],
            "task t: the job was lost: there is no news of it",
            Other,
        ),
        (
            JoinError::disconnected("t", "no connection for 300 s", true),
            vec!["disconnected", "may have run"],
            "task t: the server of the executor was away for too long: no connection for 300 s",
            NotConnected,
        ),
        (
            JoinError::disconnected("t", "refused", false),
            vec!["disconnected"],
            "task t: the server of the executor was away for too long: refused",
            NotConnected,
        ),
        (
            JoinError::duplicate_key("t", "order-17"),
            vec!["duplicate_key"],
            "task t: a detached job with the key \"order-17\" exists",
            AlreadyExists,
        ),
    ]
}

#[test]
fn each_error_answers_exactly() {
    for (error, expected, text, kind) in made() {
        assert_eq!(answers(&error), expected, "{error}");
        assert_eq!(error.to_string(), text);
        let debug = format!("{error:?}");
        assert!(
            debug.starts_with("JoinError::") && debug.contains("(\""),
            "{debug}"
        );
        assert_eq!(io::Error::from(error).kind(), kind, "{text}");
    }
    let lost = JoinError::lost("t", Some("build-7/4711"), "gone", true);
    assert_eq!(lost.worker().as_deref(), Some("build-7/4711"));
    assert_eq!(lost.exit_status(), None);
    assert!(format!("{lost:?}").starts_with("JoinError::Lost("));
    let away = JoinError::disconnected("t", "gone", true);
    assert_eq!(away.worker(), None);
    assert!(format!("{away:?}").starts_with("JoinError::Disconnected("));
    let taken = JoinError::duplicate_key("t", "key");
    assert!(format!("{taken:?}").starts_with("JoinError::DuplicateKey("));
    let cancelled = JoinError::cancelled_running("t");
    assert!(format!("{cancelled:?}").starts_with("JoinError::Cancelled("));
}

#[test]
fn an_error_after_an_earlier_start_is_of_a_job_that_may_have_run() {
    for (error, expected, ..) in made() {
        let after = error.with_earlier_start("t");
        let mut expected: Vec<_> = match expected[0] {
            "shutdown" | "broken" => vec!["lost"],
            same => vec![same],
        };
        expected.push("may have run");
        assert_eq!(answers(&after), expected, "{after}");
    }
    let broken = JoinError::broken("no disk").with_earlier_start("t");
    assert!(broken.to_string().contains("no disk"), "{broken}");
}

#[test]
fn a_job_hands_its_error_to_its_handle_with_its_place() {
    for (error, expected, ..) in made() {
        for running in [false, true] {
            let (line, (job, handle)) = (line!(), TaskJob::new(double::call(1)));
            assert!(!running || job.set_running());
            // A copy of the error, as the handle of a job that never ran gets it.
            assert!(job.fail(JoinError::from(ErrorReport::new("t", &error))));
            let error = handle.join().unwrap_err();
            assert_eq!(answers(&error), expected, "{error}");
            if let Some(location) = error.location() {
                assert_eq!(location.line(), line);
            }
        }
    }
}

// Errors that travel.

#[track_caller]
fn travel(report: &ErrorReport) -> JoinError {
    ErrorReport::from_bytes(&report.to_bytes()).unwrap().into()
}

#[test]
fn an_error_that_travels_answers_as_before() {
    for (error, expected, text, _) in made() {
        let report = ErrorReport::new("t", &error);
        assert_eq!(report.may_have_run(), error.may_have_run());
        assert_eq!(report.task(), "t");
        let copy = travel(&report);
        assert_eq!(answers(&copy), expected, "{copy}");
        assert_eq!(copy.to_string(), text);
        assert_eq!(copy.worker(), error.worker());
        let json = rmp_serde::to_vec_named(&report).unwrap();
        assert_eq!(rmp_serde::from_slice::<ErrorReport>(&json).unwrap(), report);
    }
}

#[test]
fn a_panic_travels_with_its_message() {
    let pool = ThreadPool::new(1);
    let error = pool.submit(|| panic!("no ink")).join().unwrap_err();
    let copy = travel(&ErrorReport::new("draw", &error).at_worker("build-7/4711"));
    assert_eq!(answers(&copy), ["panic", "may have run"]);
    assert_eq!(copy.panic_message(), Some("no ink"));
    assert_eq!(copy.worker().as_deref(), Some("build-7/4711"));
    let text = copy.to_string();
    assert!(
        text.starts_with("task draw: the job panicked in worker build-7/4711: no ink"),
        "{text}"
    );
    let payload = copy.into_panic();
    assert_eq!(payload.downcast_ref::<String>().unwrap(), "no ink");

    // Without a message, and without a worker.
    let error = pool.submit(|| std::panic::panic_any(7)).join().unwrap_err();
    let copy = travel(&ErrorReport::new("draw", &error));
    assert_eq!(copy.panic_message(), Some("(no text)"));
    assert!(!copy.to_string().contains("worker"), "{copy}");
}

#[test]
fn waits_travel_too() {
    let (_job, mut handle) = TaskJob::new(double::call(1));
    let error = handle.join_timeout(Duration::ZERO).unwrap_err();
    let copy = travel(&ErrorReport::new("t", &error));
    assert_eq!(answers(&copy), ["timeout", "may have run"]);
}

#[test]
fn long_texts_are_cut() {
    let long = "ä".repeat(1 << 20);
    let errors = [
        JoinError::refused(&long, &*long),
        JoinError::lost(&long, Some(&long), &*long, true),
        ThreadPool::new(1)
            .submit({
                let long = long.clone();
                move || std::panic::panic_any(long)
            })
            .join()
            .unwrap_err(),
    ];
    for error in errors {
        let report = ErrorReport::new(&long, &error).at_worker(&long);
        let bytes = report.to_bytes();
        assert!(
            (60 << 10..256 << 10).contains(&bytes.len()),
            "{}",
            bytes.len()
        );
        let copy = JoinError::from(ErrorReport::from_bytes(&bytes).unwrap());
        assert_eq!(answers(&copy), answers(&error));
    }
}

#[derive(Serialize)]
struct Newer<'a> {
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    may_have_run: Option<bool>,
    task: &'a str,
    text: Option<&'a str>,
    planet: [&'a str; 2],
}

#[test]
fn a_report_of_a_newer_version_is_an_error_without_a_kind() {
    let newer = Newer {
        kind: "eclipsed",
        may_have_run: Some(false),
        task: "t",
        text: Some("the moon was in the way"),
        planet: ["earth", "mars"],
    };
    let decoded = |newer: &Newer<'_>| {
        let bytes = rmp_serde::to_vec_named(newer).unwrap();
        JoinError::from(ErrorReport::from_bytes(&bytes).unwrap())
    };
    let error = decoded(&newer);
    assert_eq!(answers(&error), [""; 0]);
    assert_eq!(error.to_string(), "task t: the moon was in the way");
    // What is unknown may have happened.
    let (text, may_have_run) = (None, None);
    let silent = Newer {
        text,
        may_have_run,
        ..newer
    };
    let error = decoded(&silent);
    assert_eq!(answers(&error), ["may have run"]);
    assert!(error.to_string().contains("eclipsed"), "{error}");
    // A known kind with added fields.
    let kind = "refused";
    let may_have_run = Some(true);
    let error = decoded(&Newer {
        kind,
        may_have_run,
        ..silent
    });
    assert_eq!(answers(&error), ["refused", "may have run"]);
    // A report that contradicts itself is not believed to be of a job that never ran.
    for kind in [
        "cancelled",
        "shutdown",
        "broken",
        "spawn_failed",
        "start_failed",
    ] {
        let error = decoded(&Newer {
            kind,
            may_have_run: Some(true),
            ..silent
        });
        assert!(error.may_have_run(), "{error}");
    }
    for kind in ["panic", "timeout"] {
        let error = decoded(&Newer {
            kind,
            may_have_run: Some(false),
            ..silent
        });
        assert!(error.may_have_run(), "{error}");
    }
}

#[test]
fn garbage_is_no_report() {
    let report = ErrorReport::new("t", &JoinError::lost("t", Some("w"), "gone", true));
    let bytes = report.to_bytes();
    for at in 0..bytes.len() {
        // Whatever it is, it must not panic.
        let _ = ErrorReport::from_bytes(&bytes[..at]);
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            if let Ok(report) = ErrorReport::from_bytes(&flipped) {
                let _ = JoinError::from(report).to_string();
            }
        }
    }
    for garbage in [
        &b""[..],
        b"\xc1",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
    ] {
        assert!(ErrorReport::from_bytes(garbage).is_err());
    }
}

// Payloads in one piece.

#[test]
fn a_payload_is_the_same_after_its_framing() {
    let lane = |len: usize| futurepool::Bytes::from(vec![7; len]);
    for (body, lanes) in [
        (0, vec![]),
        (3, vec![]),
        (0, vec![lane(0)]),
        (9, vec![lane(5000), lane(1), lane(4096)]),
    ] {
        let payload = Payload::from_parts(vec![9; body], lanes);
        let bytes = payload.to_bytes();
        assert_eq!(bytes.len(), payload.encoded_len());
        assert_eq!(Payload::from_bytes(&bytes).unwrap(), payload);
        for end in 0..bytes.len() {
            assert!(Payload::from_bytes(&bytes[..end]).is_err());
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(Payload::from_bytes(&longer).is_err());
    }
}

#[test]
fn lengths_that_lie_take_no_memory() {
    let framed = |version: u8, lanes: u32, lens: &[u64]| {
        let mut bytes = vec![version];
        bytes.extend(lanes.to_le_bytes());
        bytes.extend(lens.iter().flat_map(|len| len.to_le_bytes()));
        bytes
    };
    assert!(Payload::from_bytes(&framed(1, 0, &[0])).is_ok());
    for bytes in [
        framed(2, 0, &[0]),
        framed(1, u32::MAX, &[0]),
        framed(1, 65_536, &[0; 65_537]),
        framed(1, 65_535, &[0]),
        framed(1, 0, &[1]),
        framed(1, 0, &[u64::MAX]),
        framed(1, 1, &[0, u64::MAX]),
        framed(1, 2, &[0, u64::MAX, u64::MAX]),
    ] {
        assert!(Payload::from_bytes(&bytes).is_err());
    }
    assert!(Payload::from_bytes(&framed(1, 65_535, &[0; 65_536])).is_ok());
}
