//! Many jobs, while workers are killed one after the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::TestServer;
use crate::outcomes::{self, Kind, Submitted, collect};
use crate::programs::memory_peak;
use crate::space::Space;
use crate::tasks::{What, again, once};

/// Runs so many jobs of each mode. Each second a worker is killed, and another one started.
fn kill_one_each_second(jobs: u64, workers: usize, lease: Duration) {
    let server = TestServer::start();
    let space = Space::new(server.url(), "masses", lease);
    let mut running: Vec<_> = (0..workers).map(|_| space.worker(4)).collect();
    let cluster = space.cluster().window(10_000).build().unwrap();
    let done = AtomicBool::new(false);
    let since = Instant::now();
    let (outcomes, kills) = thread::scope(|scope| {
        let work = scope.spawn(|| {
            let mut handles: Vec<Submitted> = Vec::new();
            for job in 0..2 * jobs {
                handles.push(match job % 2 {
                    0 => (job, cluster.submit(once::call(job, What::Nothing))),
                    _ => (job, cluster.submit(again::call(job, What::Nothing))),
                });
            }
            let outcomes = collect(handles, Duration::from_secs(900));
            done.store(true, Ordering::Relaxed);
            outcomes
        });
        let mut kills = 0;
        let mut next = Instant::now() + Duration::from_secs(1);
        while !done.load(Ordering::Relaxed) && !work.is_finished() {
            thread::sleep(Duration::from_millis(20));
            if Instant::now() >= next {
                next += Duration::from_secs(1);
                let index = fastrand::usize(..running.len());
                running[index].kill();
                kills += 1;
                running[index] = space.worker(4);
            }
        }
        (work.join().unwrap(), kills)
    });
    let took = since.elapsed();
    let (again, once): (Vec<_>, Vec<_>) = outcomes.iter().cloned().partition(|it| it.job % 2 == 1);
    println!(
        "{jobs} jobs of each mode, {workers} workers, {kills} kills: {took:.1?}; default: {} ok, {} \
         lost; idempotent: {} ok, {} lost; {} starts; peak of memory with all handles {} MiB",
        once.iter().filter(|outcome| outcome.is_ok()).count(),
        outcomes::count(&once, Kind::Lost),
        again.iter().filter(|outcome| outcome.is_ok()).count(),
        outcomes::count(&again, Kind::Lost),
        space.judge().starts(),
        memory_peak(std::process::id()) >> 10,
    );
    for outcome in &outcomes {
        // What is lost is said to be lost. Nothing else can happen to a job here.
        let lost = outcome.kind == Kind::Lost && outcome.may_have_run;
        assert!(outcome.is_ok() || lost, "{outcome:?}");
    }
    // An idempotent job is lost only if three workers died under it.
    let lost = outcomes::count(&again, Kind::Lost);
    assert!(lost <= kills / 3, "{lost} idempotent jobs are lost");
    // A worker has at most eight jobs when it is killed.
    let lost = outcomes::count(&once, Kind::Lost);
    assert!(
        lost <= kills * 8,
        "{lost} default jobs are lost by {kills} kills"
    );
    assert!(kills >= 1);
    // Also what the dead ones have left.
    space.wait_until_empty();
    for worker in running {
        worker.drain();
    }
    space.judge().check_once(&once);
    space.judge().check(&again);
    outcomes::check_books(&cluster.metrics(), &outcomes);
}

#[test]
fn c1_c2_c3_c4_a_worker_is_killed_each_second() {
    kill_one_each_second(4_000, 2, Duration::from_secs(3));
}

#[test]
#[ignore = "takes a minute"]
fn c1_c2_c3_c4_a_hundred_thousand_jobs_on_two_workers() {
    kill_one_each_second(50_000, 2, Duration::from_secs(10));
}

#[test]
#[ignore = "takes a minute"]
fn c1_c2_c3_c4_a_hundred_thousand_jobs_on_four_workers() {
    kill_one_each_second(50_000, 4, Duration::from_secs(10));
}

#[test]
#[ignore = "takes a minute"]
fn c1_c2_c3_c4_a_hundred_thousand_jobs_on_eight_workers() {
    kill_one_each_second(50_000, 8, Duration::from_secs(10));
}
