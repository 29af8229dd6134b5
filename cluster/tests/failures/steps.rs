//! A worker is killed, or stopped, at each step of the protocol.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::TestServer;
use crate::outcomes::{self, Kind};
use crate::programs::{Fate, Program};
use crate::space::Space;
use crate::tasks::{What, again, once};

const LEASE: Duration = Duration::from_secs(3);

/// The steps of a default job. An idempotent one has no claim, and no look.
const STEPS: [&str; 8] = [
    "delivered",
    "claimed",
    "looked",
    "started",
    "ran",
    "stored",
    "removed",
    "released",
];

fn at_each_step(fate: Fate) {
    let server = TestServer::start();
    let url = server.url();
    thread::scope(|scope| {
        for step in STEPS {
            let url = &url;
            scope.spawn(move || once_at(url, step, fate));
            if !matches!(step, "claimed" | "looked") {
                scope.spawn(move || again_at(url, step, fate));
            }
        }
    });
}

fn once_at(url: &str, step: &str, fate: Fate) {
    let space = Space::new(url, &format!("once-{step}"), LEASE);
    let mut doomed = space.doomed(1, step, fate);
    let cluster = space.cluster().build().unwrap();
    let handle = cluster.submit(once::call(0, What::Nothing));
    meet(&mut doomed, fate);
    let since = Instant::now();
    let other = space.worker(1);
    let outcome = outcomes::outcome(handle, 0);
    let took = since.elapsed();
    // Before the claim it runs elsewhere. When its outcome is stored, it is that one.
    match step {
        "delivered" | "stored" | "removed" | "released" => {
            assert!(outcome.is_ok(), "{step}: {outcome:?}");
        }
        _ => {
            assert_eq!(outcome.kind, Kind::Lost, "{step}: {outcome:?}");
            assert!(outcome.may_have_run, "{step}: {outcome:?}");
            let pid = doomed.pid().to_string();
            assert!(
                outcome.text.contains(&pid),
                "{step}: no worker named: {outcome:?}"
            );
            println!(
                "{step}: lost after {:.1} leases",
                took.as_secs_f64() / LEASE.as_secs_f64()
            );
        }
    }
    let mut all = vec![outcome];
    revive(doomed, fate);
    // It, or the other, does more work.
    let handles = (1..=4).map(|job| (job, cluster.submit(once::call(job, What::Nothing))));
    let more = outcomes::collect(handles.collect(), Duration::from_secs(120));
    outcomes::all_ok(&more);
    all.extend(more);
    // Also what the dead one has left.
    space.wait_until_empty();
    other.drain();
    space.judge().check_once(&all);
    outcomes::check_books(&cluster.metrics(), &all);
}

fn again_at(url: &str, step: &str, fate: Fate) {
    let space = Space::new(url, &format!("again-{step}"), LEASE);
    let mut doomed = space.doomed(1, step, fate);
    let cluster = space.cluster().build().unwrap();
    let handle = cluster.submit(again::call(0, What::Nothing));
    meet(&mut doomed, fate);
    let other = space.worker(1);
    let outcome = outcomes::outcome(handle, 0);
    assert!(outcome.is_ok(), "{step}: {outcome:?}");
    revive(doomed, fate);
    space.wait_until_empty();
    other.drain();
    space.judge().check(&[outcome]);
}

/// Waits until the worker has met its fate.
fn meet(doomed: &mut Program, fate: Fate) {
    match fate {
        Fate::Kill => drop(doomed.wait()),
        Fate::Stop => doomed.wait_until_stopped(),
    }
}

/// Lets a stopped worker go on, and drains it.
fn revive(doomed: Program, fate: Fate) {
    if fate == Fate::Stop {
        doomed.resume();
        // So that it meets what has become of its job before it is asked to end.
        thread::sleep(LEASE / 2);
        doomed.drain();
    }
}

#[test]
fn c1_c2_c3_a_worker_is_killed_at_each_step() {
    at_each_step(Fate::Kill);
}

#[test]
fn c1_c2_c3_a_worker_is_stopped_at_each_step() {
    at_each_step(Fate::Stop);
}
