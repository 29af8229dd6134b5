//! Tasks in executors that run them in this process, and in executors of the user's.

use std::panic::Location;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futurepool::{
    Call, GlobalPool, InlineExecutor, JoinError, JoinHandle, Payload, Task, TaskExecutor,
    TaskExecutorExt, TaskJob, ThreadPool, as_completed, cancel_requested, task, tasks,
};

use crate::common::{Gate, LONG, block_workers, bounded_pool, eventually, within};

/// Doubles a number.
#[task]
fn double(n: u32) -> u32 {
    2 * n
}

#[task]
fn fail(message: String) {
    panic!("{message}");
}

#[task]
fn reverse(mut image: Vec<u8>) -> Option<Vec<u8>> {
    image.reverse();
    Some(image)
}

/// A task whose arguments tell when they are dropped. Only for executors in this process.
struct Watched;

#[derive(serde::Serialize, serde::Deserialize)]
struct Watch {
    #[serde(skip)]
    tell: Option<Sender<&'static str>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(tell) = &self.tell {
            let _ = tell.send("dropped");
        }
    }
}

impl Task for Watched {
    const NAME: &'static str = "watched";
    type Args = Watch;
    type Output = u8;

    fn run(watch: Watch) -> u8 {
        if let Some(tell) = &watch.tell {
            tell.send("running").unwrap();
        }
        7
    }
}

fn watched() -> (Call<Watched>, Receiver<&'static str>) {
    let (tell, told) = mpsc::channel();
    let tell = Some(tell);
    (Call::new(Watch { tell }), told)
}

fn executors() -> Vec<Box<dyn TaskExecutor>> {
    let pool = ThreadPool::new(1);
    vec![
        Box::new(InlineExecutor),
        Box::new(ThreadPool::new(2)),
        Box::new(Box::new(Arc::new(ThreadPool::new(2)))),
        Box::new(futurepool::global() as &'static GlobalPool),
        Box::new(OnPool(pool)),
        Box::new(OneThread::new()),
    ]
}

/// Passes its jobs on to a pool, as an executor of the user's may.
struct OnPool(ThreadPool);

impl TaskExecutor for OnPool {
    fn execute_task(&self, job: TaskJob) {
        self.0.execute_task(job);
    }
}

/// Runs its jobs in a thread of its own.
struct OneThread(Sender<TaskJob>);

impl OneThread {
    fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<TaskJob>();
        std::thread::spawn(move || queue.into_iter().for_each(TaskJob::run_here));
        Self(jobs)
    }
}

impl TaskExecutor for OneThread {
    fn execute_task(&self, job: TaskJob) {
        self.0.send(job).unwrap();
    }
}

/// Keeps its jobs for the test.
#[derive(Default)]
struct Kept(Mutex<Vec<TaskJob>>);

impl Kept {
    fn submit<T: Task>(call: Call<T>) -> (TaskJob, JoinHandle<T::Output>) {
        let kept = Self::default();
        let handle = kept.submit_task(call);
        let job = kept.0.lock().unwrap().pop().unwrap();
        (job, handle)
    }
}

impl TaskExecutor for Kept {
    fn execute_task(&self, job: TaskJob) {
        self.0.lock().unwrap().push(job);
    }
}

#[test]
fn a_function_stays_a_function() {
    assert_eq!(double(3), 6);
    assert_eq!(double::call(3).run(), 6);
    assert_eq!(reverse(vec![1, 2]), Some(vec![2, 1]));
    assert_eq!(reverse::call(vec![1, 2]).run(), Some(vec![2, 1]));
    assert_eq!(double::NAME, concat!(module_path!(), "::double"));
    assert_eq!(format!("{:?}", tasks![]), "[]");
}

#[test]
fn a_call_says_what_it_is() {
    let call = double::call(3).label("three").time_limit(LONG);
    let text = format!("{call:?}");
    for part in ["tasks::double", "three", "60s"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(call.clone().run(), 6);
}

#[test]
fn a_task_runs_in_every_executor() {
    for executor in executors() {
        let handle = executor.submit_task(double::call(21));
        assert_eq!(handle.join().unwrap(), 42);
        let handle = executor.try_submit_task(double::call(4)).unwrap();
        assert_eq!(handle.join().unwrap(), 8);
        let outputs = executor.map_tasks((0..200).map(double::call)).join();
        assert_eq!(outputs.unwrap(), (0..200).map(double).collect::<Vec<_>>());
        let outputs = executor.map_tasks_unordered((0..200).map(double::call));
        let mut outputs = outputs.join().unwrap();
        outputs.sort_unstable();
        assert_eq!(outputs, (0..200).map(double).collect::<Vec<_>>());
    }
}

#[test]
fn a_panic_has_message_and_location() {
    for executor in executors() {
        let (line, handle) = (line!(), executor.submit_task(fail::call("no ink".into())));
        let error = handle.join().unwrap_err();
        assert!(error.is_panic());
        assert_eq!(error.panic_message(), Some("no ink"));
        assert_eq!(error.location().unwrap().line(), line);
        let outcomes: Vec<_> = executor
            .map_tasks(["a", "b"].map(|text| fail::call(text.to_owned())))
            .into_iter()
            .collect();
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.as_ref().is_err_and(JoinError::is_panic))
        );
        assert_eq!(outcomes.len(), 2);
    }
}

#[test]
fn promise_a_task_in_a_pool_of_one_worker_can_join_another_one() {
    #[task]
    fn nested(depth: u32) -> u32 {
        match depth {
            0 => 0,
            _ => POOL.submit_task(nested::call(depth - 1)).join().unwrap() + 1,
        }
    }

    #[task]
    fn nested_with_deadline(depth: u32) -> u32 {
        let deadline = Instant::now() + LONG;
        match depth {
            0 => 0,
            _ => {
                let call = nested_with_deadline::call(depth - 1).deadline(deadline);
                POOL.submit_task(call).join().unwrap() + 1
            }
        }
    }

    #[task]
    fn nested_map() -> u32 {
        let outputs = POOL.map_tasks((0..10).map(double::call));
        outputs.into_iter().map(Result::unwrap).sum()
    }

    static POOL: std::sync::LazyLock<ThreadPool> = std::sync::LazyLock::new(|| ThreadPool::new(1));

    within(LONG, "nested tasks", || {
        assert_eq!(POOL.submit_task(nested::call(5)).join().unwrap(), 5);
        let handle = POOL.submit_task(nested_with_deadline::call(5));
        assert_eq!(handle.join().unwrap(), 5);
        assert_eq!(POOL.submit_task(nested_map::call()).join().unwrap(), 90);
    });
}

#[test]
fn a_call_is_dropped_unrun_without_effect() {
    let (call, told) = watched();
    drop(call);
    assert_eq!(told.iter().collect::<Vec<_>>(), ["dropped"]);
}

// Limits.

#[test]
fn a_time_limit_is_refused_where_threads_run_the_task() {
    for executor in executors() {
        let call = || double::call(1).time_limit(LONG);
        let error = executor.submit_task(call()).join().unwrap_err();
        assert!(error.is_refused() && !error.may_have_run(), "{error}");
        assert!(error.location().is_some(), "{error:?}");
        assert!(error.to_string().contains("cannot be stopped"), "{error}");
        let calls = [double::call(1), call(), double::call(3)];
        let outcomes: Vec<_> = executor.map_tasks(calls).into_iter().collect();
        assert!(matches!(&outcomes[..], [Ok(2), Err(error), Ok(6)] if error.is_refused()));
    }
    let pool = ThreadPool::new(1);
    let executors: [&dyn TaskExecutor; 3] = [&InlineExecutor, &pool, futurepool::global()];
    for executor in executors {
        let call = double::call(4).time_limit(LONG);
        let error = executor.try_submit_task(call).unwrap_err();
        assert!(error.is_refused() && !error.is_expired() && !error.is_full());
        assert!(error.to_string().contains("cannot be stopped"), "{error}");
        assert_eq!(error.into_inner().run(), 8);
    }
    // One by `try_submit_task`, one by `submit_task`.
    drop(pool.submit_task(double::call(1).time_limit(LONG)));
    assert_eq!((pool.metrics().rejected, pool.metrics().submitted), (2, 0));
}

#[test]
fn a_call_that_is_too_late_does_not_run() {
    for executor in executors() {
        let (call, told) = watched();
        let error = executor
            .submit_task(call.deadline(Instant::now()))
            .join()
            .unwrap_err();
        assert!(error.is_expired() && !error.is_cancelled(), "{error}");
        assert!(error.location().is_some(), "{error:?}");
        assert_eq!(told.iter().collect::<Vec<_>>(), ["dropped"]);

        let late = double::call(1).deadline(Instant::now());
        let outcomes: Vec<_> = executor
            .map_tasks([late, double::call(2).deadline(Instant::now() + LONG)])
            .into_iter()
            .collect();
        assert!(matches!(&outcomes[..], [Err(error), Ok(4)] if error.is_expired()));

        let late = double::call(1).deadline(Instant::now());
        let error = executor.try_submit_task(late).unwrap_err();
        assert!(error.is_expired() && !error.is_refused());
        assert_eq!(error.into_inner().run(), 2);
    }
}

#[test]
fn a_deadline_that_passes_in_the_queue_counts_as_cancelled_and_frees_its_permit() {
    let pool = bounded_pool(1, 1);
    let blocked = block_workers(&pool, 1);
    let (call, told) = watched();
    let late = pool.submit_task(call.deadline(Instant::now() + Duration::from_millis(5)));
    assert!(pool.try_submit(|| ()).unwrap_err().is_full());
    std::thread::sleep(Duration::from_millis(20));
    blocked.release();
    assert!(late.join().unwrap_err().is_expired());
    assert_eq!(told.iter().collect::<Vec<_>>(), ["dropped"]);
    assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
    let metrics = pool.metrics();
    assert_eq!((metrics.submitted, metrics.completed), (3, 2));
    assert_eq!((metrics.cancelled, metrics.failed), (1, 0));
    pool.wait_idle().join();
}

#[test]
fn a_worker_that_waits_for_a_late_task_expires_it() {
    #[task]
    fn outer() -> bool {
        let (call, told) = watched();
        let late = POOL.submit_task(call.deadline(Instant::now()));
        let error = late.join().unwrap_err();
        error.is_expired() && told.iter().eq(["dropped"])
    }

    static POOL: std::sync::LazyLock<ThreadPool> = std::sync::LazyLock::new(|| ThreadPool::new(1));

    within(LONG, "a late task of the only worker", || {
        assert!(POOL.submit_task(outer::call()).join().unwrap());
        // The queue has dropped the tombstone that it left.
        assert_eq!(POOL.submit(|| 1).join().unwrap(), 1);
        POOL.wait_idle().join();
        let metrics = POOL.metrics();
        assert_eq!(
            (metrics.submitted, metrics.completed, metrics.cancelled),
            (3, 2, 1)
        );
        assert_eq!((metrics.queued, metrics.running), (0, 0));
    });
}

#[test]
fn a_full_pool_gives_the_call_back() {
    let pool = bounded_pool(1, 1);
    let blocked = block_workers(&pool, 1);
    let queued = pool.try_submit_task(double::call(1)).unwrap();
    let error = pool.try_submit_task(double::call(2)).unwrap_err();
    assert!(error.is_full());
    assert_eq!(error.into_inner().run(), 4);
    blocked.release();
    assert_eq!(queued.join().unwrap(), 2);
    pool.shutdown().join();
    let error = pool.try_submit_task(double::call(3)).unwrap_err();
    assert!(error.is_shutdown());
    assert_eq!(error.into_inner().run(), 6);
    assert!(
        pool.submit_task(double::call(3))
            .join()
            .unwrap_err()
            .is_shutdown()
    );
}

// Maps.

#[test]
fn a_map_over_calls_is_lazy_and_takes_no_more_than_its_buffer() {
    for executor in executors() {
        let (tell, told) = mpsc::channel();
        let calls = (0..).map(move |n| {
            tell.send(n).unwrap();
            double::call(n)
        });
        let mut map = executor.map_tasks(calls).buffer_size(3).chunk_size(2);
        assert!(told.try_recv().is_err());
        for n in 0..10 {
            assert_eq!(map.wait_next().unwrap().unwrap(), 2 * n);
        }
        assert!(told.try_iter().count() <= 14);
        drop(map);
    }
}

#[test]
fn a_map_over_calls_ends_with_the_first_error() {
    for executor in executors() {
        let calls = [
            double::call(1),
            double::call(2).time_limit(LONG),
            double::call(3),
        ];
        let outcome = futurepool::block_on(async { executor.map_tasks(calls).await });
        assert!(outcome.unwrap_err().is_refused());
    }
}

#[test]
fn a_detached_map_over_calls_runs_to_its_end() {
    for executor in executors() {
        let (tell, told) = mpsc::channel();
        let calls = (0..50).map(|_| {
            let tell = Some(tell.clone());
            Call::<Watched>::new(Watch { tell })
        });
        executor
            .map_tasks(calls.collect::<Vec<_>>())
            .buffer_size(2)
            .detach();
        drop(tell);
        let events = within(LONG, "a detached map", move || {
            told.iter().collect::<Vec<_>>()
        });
        assert_eq!(
            events.iter().filter(|&&event| event == "running").count(),
            50
        );
    }
}

// A job by hand.

#[test]
fn a_job_knows_its_call() {
    #[task(name = "a.name", version = 3, idempotent, attempts = 5)]
    fn named(n: u8) -> u8 {
        n
    }

    let at = Instant::now() + LONG;
    let call = named::call(1).label("one").deadline(at).time_limit(LONG);
    let (job, _handle) = Kept::submit(call);
    assert_eq!(
        (job.name(), job.version(), job.signature()),
        ("a.name", 3, named::SIGNATURE)
    );
    assert_eq!((job.is_idempotent(), job.attempts()), (true, 5));
    assert_eq!(
        (job.label(), job.time_limit(), job.deadline()),
        (Some("one"), Some(LONG), Some(at))
    );
    assert_eq!(
        format!("{job:?}"),
        r#"TaskJob { task: "a.name", label: "one", .. }"#
    );
}

#[test]
fn a_job_knows_where_it_was_submitted() {
    let kept = Kept::default();
    let (line, _handle) = (line!(), kept.submit_task(double::call(1)));
    let location: &Location<'_> = kept.0.lock().unwrap()[0].location();
    assert_eq!((location.file(), location.line()), (file!(), line));
}

#[test]
fn a_job_is_resolved_with_an_output_from_elsewhere() {
    let (job, handle) = Kept::submit(double::call(21));
    assert!(!handle.is_running());
    assert!(job.set_running() && handle.is_running());
    let arguments = job.encode().unwrap();
    // A map of one parameter: `{"n": 21}`.
    assert_eq!(arguments.body(), b"\x81\xa1n\x15");
    assert_eq!(job.encode().unwrap(), arguments);
    job.resolve(Payload::from_parts(vec![42], Vec::new()));
    assert_eq!(handle.join().unwrap(), 42);
}

#[test]
fn an_output_that_is_garbage_is_an_error_of_the_codec() {
    let (job, handle) = Kept::submit(double::call(21));
    assert!(job.set_running());
    job.resolve(Payload::from_parts(vec![0xc1], Vec::new()));
    let error = handle.join().unwrap_err();
    assert!(error.is_codec() && error.may_have_run(), "{error}");
    assert!(error.location().is_some());
}

#[test]
fn a_job_that_fails_has_that_error() {
    for running in [false, true] {
        let (job, handle) = Kept::submit(double::call(21));
        assert!(!running || job.set_running());
        assert!(job.fail(JoinError::broken("the wire is cut")));
        let error = handle.join().unwrap_err();
        assert!(error.is_broken(), "{error}");
    }
}

#[test]
fn a_job_that_is_dropped_is_cancelled() {
    for running in [false, true] {
        let (call, told) = watched();
        let (job, handle) = Kept::submit(call);
        assert!(!running || job.set_running());
        drop(job);
        assert!(handle.join().unwrap_err().is_cancelled());
        assert_eq!(told.iter().collect::<Vec<_>>(), ["dropped"]);
    }
}

#[test]
fn promise_15_a_cancel_frees_the_arguments_at_once() {
    let (call, told) = watched();
    let (job, handle) = Kept::submit(call);
    let (hook, hooked) = mpsc::channel();
    job.on_cancel(move || hook.send(()).is_err());
    assert!(!job.is_cancelled());
    assert!(handle.cancel());
    assert_eq!(told.try_recv(), Ok("dropped"));
    hooked.try_recv().unwrap();
    assert!(job.is_cancelled() && !job.set_running());
    assert!(job.encode().unwrap_err().is_cancelled());
    assert!(!job.fail(JoinError::shutdown()));
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn a_cancel_of_a_running_job_leaves_the_arguments_and_asks_the_hook() {
    for answer in [false, true] {
        let (call, told) = watched();
        let (job, handle) = Kept::submit(call);
        job.on_cancel(move || answer);
        assert!(job.set_running());
        assert_eq!(handle.cancel(), answer);
        assert!(told.try_recv().is_err());
        assert!(job.encode().is_ok());
        job.resolve(Payload::from_parts(vec![9], Vec::new()));
        assert_eq!(handle.join().unwrap(), 9);
        assert_eq!(told.iter().collect::<Vec<_>>(), ["dropped"]);
    }
}

/// Waits for a cancel request.
struct Endless;

#[derive(serde::Serialize, serde::Deserialize)]
struct Started {
    #[serde(skip)]
    tell: Option<Sender<()>>,
}

impl Task for Endless {
    const NAME: &'static str = "endless";
    type Args = Started;
    type Output = bool;

    fn run(started: Started) -> bool {
        started.tell.unwrap().send(()).unwrap();
        eventually("the cancel request", cancel_requested);
        true
    }
}

#[test]
fn a_running_task_sees_the_cancel_request() {
    let executors: [Box<dyn TaskExecutor>; 3] = [
        Box::new(ThreadPool::new(1)),
        Box::new(OnPool(ThreadPool::new(1))),
        Box::new(OneThread::new()),
    ];
    for executor in executors {
        let (started, wait_for_start) = mpsc::channel();
        let tell = Some(started);
        let handle = executor.submit_task(Call::<Endless>::new(Started { tell }));
        wait_for_start.recv_timeout(LONG).unwrap();
        assert!(handle.is_running());
        assert!(!handle.cancel());
        assert!(handle.join().unwrap());
    }
}

#[test]
fn a_task_that_was_passed_on_to_a_pool_has_the_pools_error() {
    let executor = OnPool(ThreadPool::new(1));
    let gate = Gate::new();
    let (running, runs) = mpsc::channel();
    let hold = gate.clone();
    let held = executor.0.submit(move || {
        running.send(()).unwrap();
        hold.wait();
    });
    runs.recv_timeout(LONG).unwrap();

    // Cancelled by its handle: the pool's job goes, too.
    let (call, told) = watched();
    let handle = executor.submit_task(call);
    assert!(handle.cancel());
    assert_eq!(told.try_recv(), Ok("dropped"));
    assert_eq!(executor.0.metrics().queued, 0);

    // Cancelled by the pool.
    let (call, told) = watched();
    let handle = executor.submit_task(call);
    assert_eq!(executor.0.cancel_queued(), 1);
    assert!(handle.join().unwrap_err().is_cancelled());
    assert_eq!(told.iter().collect::<Vec<_>>(), ["dropped"]);

    let shutdown = executor.0.shutdown();
    assert!(
        executor
            .submit_task(double::call(1))
            .join()
            .unwrap_err()
            .is_shutdown()
    );
    gate.open();
    held.join().unwrap();
    shutdown.join();
}

#[test]
fn handles_of_tasks_and_of_closures_mix() {
    let pool = ThreadPool::new(2);
    let handles = [
        pool.submit(|| 1),
        pool.submit_task(double::call(1)),
        InlineExecutor.submit_task(double::call(2)),
        OneThread::new().submit_task(double::call(3)),
    ];
    let mut outputs: Vec<_> = as_completed(handles)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    outputs.sort_unstable();
    assert_eq!(outputs, [1, 2, 4, 6]);
}
