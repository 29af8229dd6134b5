//! Jobs are cancelled at random moments, and a full queue or window refuses or waits.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{CancelHandle, block_on};

use crate::common::TestServer;
use crate::outcomes::{self, Kind, Submitted, collect};
use crate::space::{Space, eventually};
use crate::tasks::{What, again, once};

/// Cancels jobs, each at its time. Returns those whose cancel was `true`.
fn cancel_in_time(cancels: &mpsc::Receiver<(Instant, u64, CancelHandle)>) -> Vec<u64> {
    let mut waiting = BTreeMap::new();
    let mut never = Vec::new();
    let mut more = true;
    while more || !waiting.is_empty() {
        match cancels.recv_timeout(Duration::from_millis(1)) {
            Ok((at, job, cancel)) => drop(waiting.insert((at, job), cancel)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                more = false;
                thread::sleep(Duration::from_millis(1));
            }
        }
        let later = waiting.split_off(&(Instant::now(), u64::MAX));
        let due = std::mem::replace(&mut waiting, later);
        never.extend(
            due.into_iter()
                .filter(|(_, job)| job.cancel())
                .map(|((_, job), _)| job),
        );
    }
    never
}

/// Half of the jobs are cancelled, each after a random time.
fn storm(jobs: u64) {
    let server = TestServer::start();
    let space = Space::new(server.url(), "storm", Duration::from_secs(10));
    let cluster = space.cluster().window(2000).build().unwrap();
    let workers = [space.worker(2), space.worker(2)];
    let mut never = Vec::new();
    let mut handles: Vec<Submitted> = Vec::new();
    thread::scope(|scope| {
        let (sender, cancels) = mpsc::channel();
        let canceller = scope.spawn(move || cancel_in_time(&cancels));
        for job in 0..jobs {
            let handle = match job % 4 {
                0 => cluster.submit(again::call(job, What::Sleep(1))),
                _ => cluster.submit(once::call(job, What::Sleep(1))),
            };
            match fastrand::u32(0..6) {
                0 if handle.cancel() => {
                    never.push(job);
                }
                1 | 2 => {
                    let at = Instant::now() + Duration::from_micros(fastrand::u64(0..400_000));
                    sender.send((at, job, handle.cancel_handle())).unwrap();
                }
                _ => {}
            }
            handles.push((job, handle));
        }
        drop(sender);
        never.extend(canceller.join().unwrap());
    });
    let outcomes = collect(handles, Duration::from_secs(240));
    for worker in workers {
        worker.drain();
    }
    let cancelled = outcomes::count(&outcomes, Kind::Cancelled);
    println!(
        "{cancelled} of {jobs} cancelled, {} of them before they were sent",
        never.len()
    );
    let judge = space.judge();
    let (again, once): (Vec<_>, Vec<_>) = outcomes.iter().cloned().partition(|it| it.job % 4 == 0);
    judge.check_once(&once);
    judge.check(&again);
    let runs = judge.runs();
    for outcome in &outcomes {
        assert!(
            outcome.is_ok() || outcome.kind == Kind::Cancelled,
            "neither done nor cancelled: {outcome:?}"
        );
    }
    // Exact: a default job that is cancelled has not started, since none of them can be stopped.
    for outcome in once
        .iter()
        .filter(|outcome| outcome.kind == Kind::Cancelled)
    {
        assert!(!outcome.may_have_run, "{outcome:?}");
        assert!(!runs.contains_key(&outcome.job), "C6: it ran: {outcome:?}");
    }
    for job in never {
        assert!(
            !runs.contains_key(&job),
            "C6: {job} ran, after a cancel that was true"
        );
    }
    outcomes::check_books(&cluster.metrics(), &outcomes);
    eventually("no job is left", || space.jobs() == 0);
}

#[test]
fn c6_a_storm_of_cancels() {
    storm(2_000);
}

#[test]
#[ignore = "takes a minute"]
fn c6_a_storm_of_ten_thousand_cancels() {
    storm(30_000);
}

#[test]
fn c6_a_queued_job_is_cancelled_without_any_worker() {
    let server = TestServer::start();
    let space = Space::new(server.url(), "queued", Duration::from_secs(3));
    let cluster = space.cluster().build().unwrap();
    let jobs: Vec<Submitted> = (0..50)
        .map(|job| (job, cluster.submit(once::call(job, What::Nothing))))
        .collect();
    eventually("they are in the queue", || space.jobs() == 50);
    for (job, handle) in &jobs {
        assert!(!handle.cancel(), "{job} was sent");
    }
    let outcomes = collect(jobs, Duration::from_secs(60));
    assert_eq!(
        outcomes::count(&outcomes, Kind::Cancelled),
        50,
        "{outcomes:?}"
    );
    space.wait_until_empty();
    let worker = space.worker(2);
    assert!(outcomes::outcome(cluster.submit(once::call(50, What::Nothing)), 50).is_ok());
    worker.drain();
    space.judge().check_once(&outcomes);
    assert_eq!(space.judge().runs().len(), 1, "only the last one");
}

#[test]
fn c6_a_running_job_is_asked_to_stop() {
    let server = TestServer::start();
    let space = Space::new(server.url(), "running", Duration::from_secs(3));
    let cluster = space.cluster().build().unwrap();
    let worker = space.worker(2);
    let handle = cluster.submit(once::call(0, What::UntilCancelled));
    eventually("it runs", || space.judge().starts() == 1);
    assert!(!handle.cancel());
    let outcome = outcomes::outcome(handle, 0);
    assert!(outcome.may_have_run, "{outcome:?}");
    worker.drain();
    space.judge().check_once(&[outcome]);
}

#[test]
fn c7_a_full_queue_refuses_or_waits() {
    let server = TestServer::start();
    let mut space = Space::new(server.url(), "small", Duration::from_secs(3));
    space.place.queue_bytes = 64 << 10;
    let cluster = space.cluster().build().unwrap();
    let mut handles: Vec<Submitted> = Vec::new();
    // Until the queue of the server is full.
    let mut job = 0;
    eventually("a submit is refused", || {
        for _ in 0..50 {
            match cluster.try_submit(once::call(job, What::Nothing)) {
                Ok(handle) => handles.push((job, handle)),
                Err(error) => {
                    assert!(error.is_full(), "{error}");
                    return true;
                }
            }
            job += 1;
        }
        false
    });
    assert!(space.jobs() > 10);
    // One waits in a thread, one in a future.
    let outcomes = thread::scope(|scope| {
        let blocked = scope.spawn(|| cluster.submit(once::call(10_000, What::Nothing)));
        let waiting = scope
            .spawn(|| block_on(cluster.submit_async(once::call(10_001, What::Nothing))).unwrap());
        thread::sleep(Duration::from_millis(300));
        assert!(
            !blocked.is_finished() && !waiting.is_finished(),
            "they wait"
        );
        let worker = space.worker(2);
        handles.push((10_000, blocked.join().unwrap()));
        handles.push((10_001, waiting.join().unwrap()));
        let outcomes = collect(handles, Duration::from_secs(120));
        worker.drain();
        outcomes
    });
    outcomes::all_ok(&outcomes);
    space.judge().check_once(&outcomes);
    outcomes::check_books(&cluster.metrics(), &outcomes);
    assert!(cluster.metrics().rejected >= 1);
}

#[test]
fn c8_a_full_window_refuses_or_waits() {
    let server = TestServer::start();
    let space = Space::new(server.url(), "window", Duration::from_secs(3));
    let cluster = space.cluster().window(10).build().unwrap();
    let mut handles: Vec<Submitted> = (0..10)
        .map(|job| (job, cluster.submit(again::call(job, What::Nothing))))
        .collect();
    let error = cluster
        .try_submit(again::call(10, What::Nothing))
        .unwrap_err();
    assert!(error.is_full(), "{error}");
    thread::scope(|scope| {
        let blocked = scope.spawn(|| cluster.submit(again::call(10, What::Nothing)));
        thread::sleep(Duration::from_millis(300));
        assert!(!blocked.is_finished(), "it waits");
        assert!(space.jobs() <= 10);
        let worker = space.worker(1);
        handles.push((10, blocked.join().unwrap()));
        let outcomes = collect(handles, Duration::from_secs(60));
        outcomes::all_ok(&outcomes);
        worker.drain();
    });
}
