//! Jobs that were made for any executor, and calls whose types are not known, in worker processes.

use std::time::{Duration, Instant};

use futurepool::{
    Call, ErrorReport, JoinError, JoinHandle, Payload, ProcessPool, Task, TaskEntry, TaskExecutor,
    TaskExecutorExt, TaskJob, Tasks,
};

use crate::common::{LONG, eventually, within};
use crate::jobs::{self, is_alive, piped, quiet, worker_of};

/// Makes a job of the encoded arguments of `call`, as a worker elsewhere does.
fn received<T: Task>(call: Call<T>) -> (TaskJob, JoinHandle<Payload>) {
    received_with::<T>(call, |entry, arguments| entry.call(arguments).into_job())
}

fn received_with<T: Task>(
    call: Call<T>,
    job: impl FnOnce(TaskEntry, Payload) -> (TaskJob, JoinHandle<Payload>),
) -> (TaskJob, JoinHandle<Payload>) {
    let (sent, _handle) = TaskJob::new(call);
    let message = sent.encode().unwrap().to_bytes();
    let tasks = Tasks::linked();
    let entry = *tasks.get(T::NAME, T::VERSION).unwrap();
    job(entry, Payload::from_bytes(&message).unwrap())
}

fn execute<T: Task>(pool: &ProcessPool, call: Call<T>) -> JoinHandle<Payload> {
    let (job, handle) = received(call);
    pool.execute_task(job);
    handle
}

/// Decodes the output of a call of the same task.
fn decoded<T: Task>(call: Call<T>, output: Payload) -> T::Output {
    let (job, handle) = TaskJob::new(call);
    job.resolve(output);
    handle.join().unwrap()
}

#[test]
fn an_encoded_call_runs_in_a_worker_process() {
    within(LONG, "encoded calls", || {
        let pool = quiet(1).build().unwrap();
        let image = vec![7; 100_000];
        let output = execute(&pool, jobs::echo::call(image.clone())).join();
        let call = jobs::echo::call(Vec::new());
        assert_eq!(decoded(call, output.unwrap()), image);
        let output = execute(&pool, jobs::own_pid::call()).join().unwrap();
        assert_ne!(decoded(jobs::own_pid::call(), output), std::process::id());
        // Room for a job is asked for.
        let (job, handle) = received(jobs::add::call(1, 2));
        pool.try_execute_task(job).unwrap();
        let output = handle.join().unwrap();
        assert_eq!(decoded(jobs::add::call(0, 0), output), 3);
        jobs::assert_balanced(&pool);
    });
}

#[test]
fn promise_6_cancel_kills_a_running_encoded_call() {
    within(LONG, "cancel", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        let file = path.to_str().unwrap().to_owned();
        let pool = quiet(1).build().unwrap();
        for n in 1..=10 {
            let label = n.to_string();
            let call = jobs::append_and_sleep::call(file.clone(), label.clone(), 1_000_000);
            let (job, handle) = received_with(call, |entry, arguments| {
                entry.call(arguments).label(n.to_string()).into_job()
            });
            pool.execute_task(job);
            eventually("the task runs", || jobs::lines(&path).len() == n);
            let pid = worker_of(&pool, &label);
            assert!(handle.is_running());
            assert!(handle.cancel());
            assert!(handle.cancel());
            let error = handle.join().unwrap_err();
            assert!(error.is_cancelled() && error.may_have_run(), "{error}");
            assert!(!error.is_crashed() && !is_alive(pid));
        }
        let now = jobs::assert_balanced(&pool);
        assert_eq!((now.cancelled, now.failed), (10, 0));
    });
}

#[test]
fn each_cancel_of_a_running_encoded_call_says_that_it_kills() {
    within(LONG, "cancel at the start", || {
        let pool = quiet(1).build().unwrap();
        for _ in 0..100 {
            let handle = execute(&pool, jobs::never_ends::call());
            // At the very moment when it starts.
            while !handle.is_running() {
                std::hint::spin_loop();
            }
            assert!(handle.cancel());
            let error = handle.join().unwrap_err();
            assert!(error.is_cancelled(), "{error}");
        }
    });
}

#[test]
fn a_cancel_takes_an_encoded_call_out_of_the_queue() {
    within(LONG, "cancel in the queue", || {
        let pool = quiet(1).build().unwrap();
        let blocks = pool.submit(jobs::never_ends::call().label("blocks"));
        worker_of(&pool, "blocks");
        let handle = execute(&pool, jobs::nothing::call());
        assert_eq!(pool.metrics().queued, 1);
        assert!(handle.cancel());
        assert_eq!(pool.metrics().queued, 0);
        let error = handle.join().unwrap_err();
        assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        assert!(blocks.cancel());
    });
}

#[test]
fn an_encoded_call_that_does_not_start_has_the_reason() {
    within(LONG, "reasons", || {
        let pool = quiet(1).build().unwrap();
        let blocks = pool.submit(jobs::never_ends::call().label("blocks"));
        worker_of(&pool, "blocks");

        // In the queue, while the only worker is busy.
        let deadline = Instant::now() + Duration::from_millis(20);
        let (job, handle) = received_with(jobs::nothing::call(), |entry, arguments| {
            entry.call(arguments).deadline(deadline).into_job()
        });
        pool.execute_task(job);
        let error = handle.join().unwrap_err();
        assert!(error.is_expired() && !error.may_have_run(), "{error}");
        assert!(Instant::now() >= deadline);

        let queued = execute(&pool, jobs::nothing::call());
        assert_eq!(pool.cancel_queued(), 1);
        assert!(queued.join().unwrap_err().is_cancelled());

        let shutdown = pool.shutdown();
        let error = execute(&pool, jobs::nothing::call()).join().unwrap_err();
        assert!(error.is_shutdown(), "{error}");
        let (job, handle) = TaskJob::new(jobs::add::call(1, 2));
        let error = pool.try_execute_task(job).unwrap_err();
        assert!(error.is_shutdown(), "{error}");
        error.into_inner().run_here();
        assert_eq!(handle.join().unwrap(), 3);
        assert!(blocks.cancel());
        shutdown.join();
    });
}

#[test]
fn a_pool_that_is_full_gives_an_encoded_call_back() {
    within(LONG, "a full pool", || {
        let pool = quiet(1).queue_capacity(1).build().unwrap();
        let blocks = pool.submit(jobs::never_ends::call().label("blocks"));
        worker_of(&pool, "blocks");
        let (job, queued) = received(jobs::nothing::call());
        pool.try_execute_task(job).unwrap();
        let (job, handle) = received(jobs::add::call(1, 2));
        let error = pool.try_execute_task(job).unwrap_err();
        assert!(error.is_full(), "{error}");
        error.into_inner().run_here();
        let output = handle.join().unwrap();
        assert_eq!(decoded(jobs::add::call(0, 0), output), 3);
        assert!(blocks.cancel());
        queued.join().unwrap();
    });
}

#[test]
fn a_pool_whose_workers_do_not_start_tells_encoded_calls_why() {
    within(LONG, "starts that fail", || {
        let pool = quiet(1).program("/bin/true").build().unwrap();
        for _ in 0..5 {
            let error = execute(&pool, jobs::nothing::call()).join().unwrap_err();
            assert!(error.is_spawn_failed() || error.is_broken(), "{error}");
            assert!(!error.may_have_run());
            let copy = JoinError::from(ErrorReport::new("t", &error));
            assert_eq!(copy.to_string(), error.to_string());
            assert_eq!(copy.is_broken(), error.is_broken());
        }
    });
}

/// Checks that an error of a worker process answers as before when it has travelled.
fn travel(error: &JoinError) -> JoinError {
    let report = ErrorReport::new("task", error).at_worker("build-7/4711");
    let copy = JoinError::from(ErrorReport::from_bytes(&report.to_bytes()).unwrap());
    assert_eq!(copy.may_have_run(), error.may_have_run());
    assert_eq!(copy.exit_status(), error.exit_status());
    assert_eq!(copy.worker_output(), error.worker_output());
    assert_eq!(copy.panic_message(), error.panic_message());
    assert_eq!(copy.panic_location(), error.panic_location());
    let pid = error.worker().unwrap();
    assert_eq!(copy.worker().unwrap(), format!("{pid} of build-7/4711"));
    copy
}

#[test]
fn promise_2_a_crash_of_an_encoded_call_says_how() {
    within(LONG, "crashes", || {
        let pool = piped(1).build().unwrap();
        let handle = execute(&pool, jobs::complain_and_abort::call(3));
        let error = handle.join().unwrap_err();
        for error in [&error, &travel(&error)] {
            assert!(error.is_crashed() && error.may_have_run(), "{error}");
            assert!(error.exit_status().is_some());
            assert!(error.worker_output().unwrap().contains("complaint 2"));
            let text = error.to_string();
            assert!(text.contains("signal 6 (SIGABRT)"), "{text}");
            assert!(text.contains("complaint 2"), "{text}");
        }
        let error = execute(&pool, jobs::exit::call(3)).join().unwrap_err();
        assert_eq!(travel(&error).exit_status().unwrap().code(), Some(3));
    });
}

#[test]
fn promise_5_a_time_limit_kills_an_encoded_call() {
    within(LONG, "time limits", || {
        let pool = quiet(1).build().unwrap();
        let limit = Duration::from_millis(100);
        let (job, handle) = received_with(jobs::never_ends::call(), |entry, arguments| {
            entry.call(arguments).time_limit(limit).into_job()
        });
        pool.execute_task(job);
        let error = handle.join().unwrap_err();
        for error in [&error, &travel(&error)] {
            assert!(error.is_time_limit() && error.may_have_run(), "{error}");
            assert!(error.to_string().contains("100ms"), "{error}");
        }
    });
}

#[test]
fn promise_11_a_panic_of_an_encoded_call_has_message_and_location() {
    within(LONG, "panics", || {
        let pool = quiet(1).build().unwrap();
        let handle = execute(&pool, jobs::panics::call("no ink".to_owned()));
        let error = handle.join().unwrap_err();
        for error in [&error, &travel(&error)] {
            assert!(error.is_panic() && error.may_have_run(), "{error}");
            assert_eq!(error.panic_message(), Some("no ink"));
            let place = error.panic_location().unwrap();
            assert!(place.contains("jobs.rs:"), "{place}");
            assert!(error.to_string().contains(place), "{error}");
        }
    });
}

#[test]
fn promise_12_arguments_that_are_garbage_run_nothing() {
    within(LONG, "garbage", || {
        let pool = quiet(1).build().unwrap();
        let tasks = Tasks::linked();
        let entry = tasks.get(jobs::add::NAME, 1).unwrap();
        let garbage = Payload::from_parts(vec![0xc1], Vec::new());
        let (job, handle) = entry.call(garbage).into_job();
        pool.execute_task(job);
        let error = handle.join().unwrap_err();
        assert!(error.is_codec() && !error.may_have_run(), "{error}");
    });
}

#[test]
fn promise_4_an_encoded_call_of_an_idempotent_task_starts_once() {
    within(LONG, "one start", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("starts");
        let file = path.to_str().unwrap().to_owned();
        let pool = quiet(1).retry_on_crash(5).build().unwrap();
        let call = || jobs::append_and_abort_again::call(file.clone(), "started".to_owned());
        let handle = execute(&pool, call());
        let error = handle.join().unwrap_err();
        assert!(error.is_crashed(), "{error}");
        assert_eq!(jobs::lines(&path), ["started"]);
        // With its own attempts it is started again.
        let error = pool.submit(call()).join().unwrap_err();
        assert!(error.is_crashed(), "{error}");
        assert_eq!(jobs::lines(&path).len(), 4);
    });
}

/// Passes its jobs on, as an executor of the user's may.
struct Wrapper(ProcessPool);

impl TaskExecutor for Wrapper {
    fn execute_task(&self, job: TaskJob) {
        self.0.execute_task(job);
    }
}

#[test]
fn a_typed_job_that_is_passed_on_is_killed_too() {
    within(LONG, "a wrapped pool", || {
        let wrapper = Wrapper(quiet(1).build().unwrap());
        let handle = wrapper.submit_task(jobs::never_ends::call().label("job"));
        let pid = worker_of(&wrapper.0, "job");
        assert!(handle.cancel());
        assert!(handle.join().unwrap_err().is_cancelled());
        eventually("the worker is gone", || !is_alive(pid));
        assert_eq!(
            wrapper.submit_task(jobs::add::call(1, 2)).join().unwrap(),
            3
        );
    });
}
