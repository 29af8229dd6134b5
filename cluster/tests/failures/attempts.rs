//! Jobs that kill their workers, and workers that cannot work.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::TestServer;
use crate::outcomes::{self, Kind, collect};
use crate::programs::Program;
use crate::space::{Space, eventually};
use crate::tasks::{Poison, What, again, once, poisoned, poisoned_again};

const LEASE: Duration = Duration::from_secs(2);

/// Starts another worker whenever one has died, until the work is done.
fn while_workers_die<T: Send>(space: &Space, work: impl FnOnce() -> T + Send) -> (T, usize) {
    thread::scope(|scope| {
        let work = scope.spawn(work);
        let mut workers: Vec<Program> = (0..2).map(|_| space.worker(2)).collect();
        let mut deaths = 0;
        let end = Instant::now() + Duration::from_secs(180);
        while !work.is_finished() {
            assert!(Instant::now() < end, "it never ends");
            for worker in &mut workers {
                if worker.has_ended() {
                    deaths += 1;
                    *worker = space.worker(2);
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
        for worker in workers {
            worker.drain();
        }
        (work.join().unwrap(), deaths)
    })
}

#[test]
fn c1_c2_jobs_that_kill_their_workers() {
    let server = TestServer::start();
    let space = Space::new(server.url(), "killers", LEASE);
    let cluster = space.cluster().build().unwrap();
    let (outcomes, deaths) = while_workers_die(&space, || {
        let handles = vec![
            // Each time: lost at once, and after three starts.
            (0, cluster.submit(once::call(0, What::Kill(9)))),
            (1, cluster.submit(again::call(1, What::Kill(9)))),
            // Once: it runs again elsewhere.
            (2, cluster.submit(again::call(2, What::Kill(1)))),
            (3, cluster.submit(poisoned::call(3, Poison))),
            (4, cluster.submit(poisoned_again::call(4, Poison))),
        ];
        collect(handles, Duration::from_secs(150))
    });
    let kinds: Vec<_> = outcomes
        .iter()
        .map(|outcome| (outcome.kind, outcome.may_have_run))
        .collect();
    assert_eq!(kinds[0], (Kind::Lost, true));
    assert_eq!(kinds[1], (Kind::Lost, true));
    assert!(outcomes[2].is_ok(), "{:?}", outcomes[2]);
    // A payload that kills is decoded after the claim, or the count: it cannot kill every worker.
    assert_eq!(kinds[3], (Kind::Lost, true));
    assert_eq!(kinds[4], (Kind::Lost, true));
    let judge = space.judge();
    assert!(
        judge.runs_of(1).len() <= 3,
        "more starts than attempts: {:?}",
        judge.runs_of(1)
    );
    println!("{deaths} workers died: {:?}", judge.runs());
    assert!(deaths <= 8, "{deaths} workers died of five jobs");
    judge.check_once(&[outcomes[0].clone(), outcomes[3].clone()]);
    judge.check(&outcomes);
    space.wait_until_empty();
}

#[test]
fn c1_neighbours_of_a_job_that_kills_its_worker_are_told() {
    let server = TestServer::start();
    let space = Space::new(server.url(), "neighbours", LEASE);
    let cluster = space.cluster().build().unwrap();
    let ((killer, others), _) = while_workers_die(&space, || {
        let killer = (0, cluster.submit(once::call(0, What::Kill(9))));
        let others = (1..=60).map(|job| (job, cluster.submit(again::call(job, What::Sleep(20)))));
        let others = others.collect();
        let limit = Duration::from_secs(120);
        (collect(vec![killer], limit), collect(others, limit))
    });
    assert_eq!(killer[0].kind, Kind::Lost);
    // Idempotent ones run again.
    outcomes::all_ok(&others);
    space.judge().check(&others);
}

/// A worker whose initializer fails says so and ends, and the other one runs everything.
fn cannot_start(processes: bool) {
    let server = TestServer::start();
    let space = Space::new(server.url(), "broken", LEASE);
    let cluster = space.cluster().build().unwrap();
    let mut plan = space.plan(2);
    plan.fails_to_start = true;
    plan.processes = processes;
    let mut broken = space.start(plan);
    let submit = |jobs: std::ops::Range<u64>| {
        jobs.map(|job| match job % 2 {
            0 => (job, cluster.submit(once::call(job, What::Nothing))),
            _ => (job, cluster.submit(again::call(job, What::Nothing))),
        })
        .collect::<Vec<_>>()
    };
    let handles = submit(0..40);
    let status = broken.wait();
    assert_eq!(status.code(), Some(1), "it ends with an error");
    assert_eq!(space.jobs(), 40, "it has drained nothing");
    let worker = space.worker(2);
    let outcomes = collect(handles, Duration::from_secs(60));
    // It has cost nothing, not even attempts.
    outcomes::all_ok(&outcomes);
    space.judge().check_once(&outcomes);
    worker.drain();
    eventually("no job and no claim is left", || {
        space.jobs() == 0 && space.claims() == 0
    });
}

#[test]
fn c1_an_initializer_of_threads_fails() {
    cannot_start(false);
}

#[test]
#[cfg(feature = "process")]
fn c1_an_initializer_of_processes_fails() {
    cannot_start(true);
}
