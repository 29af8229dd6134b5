//! The server is killed and started again.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Proxy, TestServer};
use crate::outcomes::{self, Kind, Submitted, collect};
use crate::space::{Space, eventually};
use crate::tasks::{What, again, once};

const LEASE: Duration = Duration::from_secs(6);

/// Kills the server so many times while jobs of both modes are submitted and run.
fn killed_under_load(kills: usize, jobs: u64) {
    let mut server = TestServer::start();
    let space = Space::new(server.url(), "kills", LEASE);
    let workers: Vec<_> = (0..2).map(|_| space.worker(4)).collect();
    let cluster = space
        .cluster()
        .window(1000)
        .disconnect_limit(None)
        .build()
        .unwrap();
    // With an empty queue.
    server.kill();
    server.restart();
    let (once, again) = thread::scope(|scope| {
        let work = scope.spawn(|| {
            let mut handles: (Vec<Submitted>, Vec<Submitted>) = Default::default();
            for job in 0..jobs {
                let what = || What::Sleep(job % 5);
                let twin = jobs + job;
                handles
                    .0
                    .push((job, cluster.submit(once::call(job, what()))));
                handles
                    .1
                    .push((twin, cluster.submit(again::call(twin, what()))));
            }
            let limit = Duration::from_secs(300);
            (collect(handles.0, limit), collect(handles.1, limit))
        });
        for _ in 0..kills {
            // The time is the subject: kills come at random moments.
            thread::sleep(Duration::from_millis(fastrand::u64(200..1500)));
            server.kill();
            thread::sleep(Duration::from_millis(fastrand::u64(0..600)));
            server.restart();
        }
        work.join().unwrap()
    });
    println!(
        "{kills} kills, {jobs} jobs of each mode, lost {}",
        outcomes::count(&once, Kind::Lost) + outcomes::count(&again, Kind::Lost)
    );
    let judge = space.judge();
    judge.check_once(&once);
    judge.check(&again);
    // Nothing that the server confirmed is lost in a kill of its process.
    outcomes::all_ok(&once);
    outcomes::all_ok(&again);
    assert_eq!(cluster.metrics().rollbacks, 0, "nothing was rolled back");
    let all = [once, again].concat();
    outcomes::check_books(&cluster.metrics(), &all);
    space.wait_until_empty_after_kills();
    for worker in workers {
        worker.drain();
    }
    judge.check_once(&all[..jobs as usize]);
}

#[test]
fn c1_c2_c4_the_server_is_killed_under_load() {
    killed_under_load(3, 600);
}

#[test]
#[ignore = "takes a minute"]
fn c1_c2_c4_the_server_is_killed_twenty_times_under_load() {
    killed_under_load(20, 10_000);
}

#[test]
fn c1_c2_the_server_is_killed_with_a_full_queue() {
    let mut server = TestServer::start();
    let space = Space::new(server.url(), "full", LEASE);
    let cluster = space.cluster().build().unwrap();
    let handles = (0..500).map(|job| (job, cluster.submit(once::call(job, What::Nothing))));
    let handles = handles.collect();
    eventually("all jobs are in the queue", || space.jobs() == 500);
    server.kill();
    // No worker lives, nor has any.
    thread::sleep(Duration::from_secs(1));
    server.restart();
    let worker = space.worker(4);
    let outcomes = collect(handles, Duration::from_secs(120));
    outcomes::all_ok(&outcomes);
    space.judge().check_once(&outcomes);
    assert_eq!(cluster.metrics().rollbacks, 0);
    worker.drain();
}

/// The server has stored jobs, and their submitter has not heard of it.
fn acknowledgements_are_swallowed(kills_the_server: bool) {
    let mut server = TestServer::start();
    let space = Space::new(server.url(), "swallowed", LEASE);
    let proxy = Proxy::to(server.address());
    let mut by_proxy = Space::new(proxy.url(), "swallowed", LEASE);
    by_proxy.place.namespace.clone_from(&space.place.namespace);
    let worker = space.worker(2);
    let cluster = by_proxy.cluster().build().unwrap();
    outcomes::all_ok(&collect(
        vec![(0, cluster.submit(once::call(0, What::Nothing)))],
        Duration::from_secs(60),
    ));
    proxy.swallow_answers();
    let mut handles: Vec<Submitted> = Vec::new();
    for job in 1..=20 {
        handles.push((job, cluster.submit(once::call(job, What::Nothing))));
        handles.push((
            100 + job,
            cluster.submit(again::call(100 + job, What::Nothing)),
        ));
    }
    // They run, without their submitter having heard that they were stored.
    eventually("all jobs have run", || space.judge().runs().len() == 41);
    if kills_the_server {
        server.kill();
    }
    proxy.drop_connections();
    proxy.heal();
    if kills_the_server {
        server.restart();
    }
    let outcomes = collect(handles, Duration::from_secs(120));
    let (once, again): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|it| it.job < 100);
    outcomes::all_ok(&once);
    outcomes::all_ok(&again);
    space.judge().check_once(&once);
    space.judge().check(&again);
    space.wait_until_empty_after_kills();
    worker.drain();
}

#[test]
fn c2_acknowledgements_of_publishes_are_lost() {
    acknowledgements_are_swallowed(false);
}

#[test]
fn c2_the_server_is_killed_between_publish_and_acknowledgement() {
    acknowledgements_are_swallowed(true);
}

#[test]
fn c1_c2_the_server_is_away_for_longer_than_the_limit() {
    let mut server = TestServer::start();
    let space = Space::new(server.url(), "away", Duration::from_secs(3));
    let limit = Duration::from_secs(2);
    let cluster = space.cluster().disconnect_limit(limit).build().unwrap();
    let sent = cluster.submit(once::call(0, What::Nothing));
    let sent_again = cluster.submit(again::call(1, What::Nothing));
    let detached = cluster
        .submit_detached("kept", once::call(2, What::Nothing))
        .unwrap();
    eventually("the jobs are in the queue", || space.jobs() == 3);
    server.kill();
    eventually("the submitter notices", || {
        // What is submitted without a connection is not sent.
        let probe = cluster.submit(once::call(99, What::Nothing));
        thread::sleep(Duration::from_millis(50));
        probe.cancel()
    });
    let unsent = cluster.submit(once::call(3, What::Nothing));
    let since = Instant::now();
    let handles = vec![(0, sent), (1, sent_again), (2, detached), (3, unsent)];
    let outcomes = collect(handles, Duration::from_secs(60));
    println!("disconnected after {:?}", since.elapsed());
    for outcome in &outcomes {
        assert_eq!(outcome.kind, Kind::Disconnected, "{outcome:?}");
        assert_eq!(outcome.may_have_run, outcome.job != 3, "{outcome:?}");
    }
    server.restart();
    // What was reported never runs, but the detached job does.
    let more = cluster.submit(once::call(4, What::Nothing));
    eventually("the reported jobs are fenced", || space.jobs() == 2);
    let worker = space.worker(2);
    let more = outcomes::outcome(more, 4);
    assert!(more.is_ok(), "{more:?}");
    let attached = outcomes::outcome(cluster.attach::<once>("kept"), 2);
    assert!(attached.is_ok(), "{attached:?}");
    worker.drain();
    let started: Vec<_> = space.judge().runs().into_keys().collect();
    assert_eq!(started, [2, 4]);
    space.wait_until_empty();
}
