//! How long jobs of worker processes waited and ran, by task and by label; and what the pool tells
//! of them.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futurepool::{JobEvent, JobOutcome, Priority, Task};
use tracing::Level;

use crate::common::event_log::EventLog;
use crate::common::{LONG, child, eventually};
use crate::jobs::{abort, add, assert_balanced, never_ends, panics, quiet, sleep};

#[test]
fn jobs_are_measured_by_their_task_or_by_their_label() {
    let pool = quiet(1).timings(true).build().unwrap();
    assert_eq!(pool.submit(add::call(1, 2)).join().unwrap(), 3);
    pool.submit(sleep::call(50)).join().unwrap();
    pool.submit(sleep::call(50).label("nap")).join().unwrap();
    // This label is no constant, so each job could have another label.
    let unique = format!("nap {}", 7);
    pool.submit(sleep::call(0).label(unique)).join().unwrap();
    let error = pool.submit(panics::call("on purpose".to_owned())).join();
    assert!(error.unwrap_err().is_panic());
    assert!(pool.submit(abort::call()).join().unwrap_err().is_crashed());

    let metrics = assert_balanced(&pool);
    let labels: Vec<_> = metrics.by_label().keys().copied().collect();
    let mut expected = ["nap", add::NAME, sleep::NAME, panics::NAME, abort::NAME];
    expected.sort_unstable();
    assert_eq!(labels, expected);
    let of = |label| &metrics.by_label()[label];
    assert_eq!(
        (of(sleep::NAME).submitted, of(sleep::NAME).completed),
        (2, 2)
    );
    assert_eq!((of(panics::NAME).panicked, of(abort::NAME).failed), (1, 1));
    assert_eq!(of(abort::NAME).run_time.count(), 1);
    let nap = &of("nap").run_time;
    assert_eq!(nap.count(), 1);
    assert!(nap.max() >= Duration::from_millis(50), "{nap:?}");
    assert_eq!(metrics.run_time.count(), 6);
}

#[test]
fn a_map_of_calls_is_measured_by_its_task() {
    let pool = quiet(1).timings(true).build().unwrap();
    let sums = pool.map((0..10).map(|n| add::call(n, n)));
    assert_eq!(sums.into_iter().map(Result::unwrap).sum::<u64>(), 90);
    let metrics = assert_balanced(&pool);
    assert_eq!(metrics.by_label()[add::NAME].completed, metrics.completed);
    assert_eq!(metrics.run_time.count(), metrics.completed);
}

#[test]
fn a_pool_of_processes_without_timings_measures_nothing() {
    let pool = quiet(1).build().unwrap();
    pool.submit(add::call(1, 2)).join().unwrap();
    let metrics = pool.metrics();
    assert!(metrics.by_label().is_empty());
    assert_eq!(metrics.run_time.count(), 0);
}

#[test]
fn a_job_that_is_killed_is_told_as_cancelled_on_its_worker() {
    let (tell, told) = mpsc::channel();
    let on_job = move |event: &JobEvent| tell.send(event.clone()).unwrap();
    let pool = quiet(1).on_job(on_job).build().unwrap();
    let job = pool.submit(never_ends::call().label("endless"));
    let next = || told.recv_timeout(LONG).unwrap();
    // They come from two threads.
    let mut events = [next(), next()];
    events.sort_by_key(JobEvent::at);
    assert!(
        matches!(events[0], JobEvent::Submitted { .. }),
        "{events:?}"
    );
    assert!(matches!(events[1], JobEvent::Started { .. }), "{events:?}");
    assert!(events.iter().all(|event| event.label() == Some("endless")));
    assert!(job.cancel());
    let end = next();
    assert_eq!(end.id(), events[0].id());
    assert_eq!(end.outcome(), Some(JobOutcome::Cancelled));
    assert!(end.worker().is_some(), "{end:?}");
}

#[test]
fn the_event_of_a_crash_has_the_label_of_the_call() {
    child::alone(
        "timings::the_event_of_a_crash_has_the_label_of_the_call",
        || {
            EventLog::install();
            let pool = quiet(1).build().unwrap();
            let crash = pool.submit(abort::call().label("doomed"));
            assert!(crash.join().unwrap_err().is_crashed());
            eventually("the crash is reported", || {
                EventLog::contains_at(Level::WARN, &["label=\"doomed\"", abort::NAME])
            });
            EventLog::assert_distinct_field_names();
        },
    );
}

#[test]
fn a_call_with_a_priority_is_ahead_in_the_queue_of_processes() {
    let pool = quiet(1).build().unwrap();
    let blocked = pool.submit(never_ends::call());
    eventually("the worker is busy", || blocked.is_running());
    let order = Arc::new(Mutex::new(Vec::new()));
    let jobs = [Priority::Low, Priority::Normal, Priority::High].map(|priority| {
        let job = pool.submit(add::call(1, 2).priority(priority));
        let order = Arc::clone(&order);
        job.add_done_callback(move |_| order.lock().unwrap().push(priority));
        job
    });
    assert!(blocked.cancel());
    for job in jobs {
        job.join().unwrap();
    }
    let order = order.lock().unwrap();
    assert_eq!(*order, [Priority::High, Priority::Normal, Priority::Low]);
}
