//! Members are cut off from the server, with their connections ended, or silent.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::common::{Proxy, TestServer};
use crate::outcomes::{self, Kind, Submitted, collect};
use crate::space::{Space, eventually};
use crate::tasks::{What, again, once};

const LEASE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Connections end, and new ones are refused.
    Cut,
    /// Connections stay, and nothing moves.
    Silence,
}

const BOTH: [How; 2] = [How::Cut, How::Silence];

fn part(proxy: &Proxy, how: How) {
    match how {
        How::Cut => proxy.cut(),
        How::Silence => proxy.stall(),
    }
}

/// A namespace as it is seen through a proxy.
fn through(proxy: &Proxy, space: &Space) -> crate::programs::Place {
    let mut place = space.place.clone();
    place.url = proxy.url();
    place
}

fn worker_is_parted(how: How) {
    let server = TestServer::start();
    let space = Space::new(server.url(), "parted", LEASE);
    let proxy = Proxy::to(server.address());
    let mut plan = space.plan(2);
    plan.place = through(&proxy, &space);
    let parted = space.start(plan);
    let cluster = space.cluster().build().unwrap();
    let gate = space.gate("gate");
    let first = cluster.submit(once::call(0, What::Gate(gate.clone())));
    let second = cluster.submit(again::call(1, What::Gate(gate.clone())));
    eventually("both run", || space.judge().starts() == 2);
    part(&proxy, how);
    let other = space.worker(2);
    // The default job is lost, and the idempotent one runs elsewhere.
    let lost = outcomes::outcome(first, 0);
    assert_eq!(lost.kind, Kind::Lost, "{lost:?}");
    eventually("it runs elsewhere", || space.judge().runs_of(1).len() == 2);
    fs::write(gate, "").unwrap();
    let again = outcomes::outcome(second, 1);
    assert!(again.is_ok(), "{again:?}");
    // Both late outcomes arrive when the partition ends, and are dropped.
    proxy.heal();
    other.drain();
    let handles = (2..6).map(|job| (job, cluster.submit(once::call(job, What::Nothing))));
    let more = collect(handles.collect(), Duration::from_secs(60));
    outcomes::all_ok(&more);
    parted.drain();
    let all = [vec![lost], more].concat();
    space.judge().check_once(&all);
    space.judge().check(std::slice::from_ref(&again));
    outcomes::check_books(&cluster.metrics(), &[all, vec![again]].concat());
    space.wait_until_empty();
}

#[test]
fn c1_c2_c4_a_worker_is_cut_off() {
    worker_is_parted(How::Cut);
}

#[test]
fn c1_c2_c4_a_worker_is_cut_off_in_silence() {
    worker_is_parted(How::Silence);
}

/// A submitter, or all members, are cut off for longer than a dead peer takes to be judged.
fn submitter_is_parted(how: How, worker_too: bool) {
    let server = TestServer::start();
    let space = Space::new(server.url(), "parted", LEASE);
    let proxy = Proxy::to(server.address());
    let mut plan = space.plan(2);
    if worker_too {
        plan.place = through(&proxy, &space);
    }
    let worker = space.start(plan);
    let mut parted = Space::new(proxy.url(), "parted", LEASE);
    parted.place.namespace.clone_from(&space.place.namespace);
    let cluster = parted.cluster().disconnect_limit(None).build().unwrap();
    let mut handles: Vec<Submitted> = Vec::new();
    for job in 0..100 {
        handles.push(match job % 2 {
            0 => (job, cluster.submit(once::call(job, What::Sleep(100)))),
            _ => (job, cluster.submit(again::call(job, What::Sleep(100)))),
        });
    }
    eventually("some run", || space.judge().starts() > 4);
    part(&proxy, how);
    // What is submitted meanwhile waits for the connection.
    for job in 100..110 {
        handles.push((job, cluster.submit(once::call(job, What::Nothing))));
    }
    // The time is the subject: it seems dead after two thirds of a lease.
    thread::sleep(LEASE * 2);
    proxy.heal();
    let outcomes = collect(handles, Duration::from_secs(120));
    let (once, again): (Vec<_>, Vec<_>) = outcomes
        .into_iter()
        .partition(|outcome| outcome.job >= 100 || outcome.job % 2 == 0);
    // A queued job of a submitter that seemed dead is submitted again, by itself.
    outcomes::all_ok(&once);
    outcomes::all_ok(&again);
    space.judge().check_once(&once);
    space.judge().check(&again);
    outcomes::check_books(&cluster.metrics(), &[once, again].concat());
    space.wait_until_empty();
    worker.drain();
}

#[test]
fn c1_c2_c4_a_submitter_is_cut_off() {
    thread::scope(|scope| {
        for how in BOTH {
            scope.spawn(move || submitter_is_parted(how, false));
        }
    });
}

#[test]
fn c1_c2_c4_all_members_are_cut_off() {
    thread::scope(|scope| {
        for how in BOTH {
            scope.spawn(move || submitter_is_parted(how, true));
        }
    });
}
