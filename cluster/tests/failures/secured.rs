//! TLS, and three replicas.

use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream;

use crate::common::{Certificates, TestGroup, TestServer};
use crate::outcomes::{self, Submitted, collect};
use crate::space::{Space, eventually};
use crate::tasks::{What, again, once};

#[test]
fn everything_works_over_tls() {
    let certificates = Certificates::make();
    let server = TestServer::with_config(&certificates.config(false));
    let mut space = Space::new(server.url(), "tls", Duration::from_secs(10));
    space.place.url = server.url().replace("nats://", "tls://");
    // Without the authority, the server is not trusted.
    assert!(space.cluster().build().is_err());
    space.place.ca = Some(certificates.path("ca.pem"));
    let worker = space.worker(2);
    let cluster = space.cluster().build().unwrap();
    let handles = (0..50).map(|job| (job, cluster.submit(once::call(job, What::Bytes(100_000)))));
    let outcomes = collect(handles.collect(), Duration::from_secs(60));
    outcomes::all_ok(&outcomes);
    space.judge().check_once(&outcomes);
    worker.drain();
}

/// Returns the name of the server that leads a stream.
fn leader(url: &str, stream: &str) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let client = async_nats::connect(url).await.ok()?;
        let stream = jetstream::new(client).get_stream(stream).await.ok()?;
        stream.cached_info().cluster.as_ref()?.leader.clone()
    })
}

#[test]
#[ignore = "three servers"]
fn c1_c2_the_leader_of_three_replicas_is_killed() {
    let mut group = TestGroup::start();
    let mut space = Space::new(group.urls().join(","), "replicas", Duration::from_secs(10));
    space.place.replicas = 3;
    let cluster = space.cluster().window(500).build().unwrap();
    let workers = [space.worker(4), space.worker(4)];
    let urls = group.urls();
    let outcomes = thread::scope(|scope| {
        let work = scope.spawn(|| {
            let mut handles: Vec<Submitted> = Vec::new();
            for job in 0..4000 {
                handles.push(match job % 2 {
                    0 => (job, cluster.submit(once::call(job, What::Sleep(5)))),
                    _ => (job, cluster.submit(again::call(job, What::Sleep(5)))),
                });
            }
            collect(handles, Duration::from_secs(400))
        });
        for stream in [
            "FP1_replicas_JOBS",
            "KV_fp1-replicas-claim",
            "FP1_replicas_RES",
        ] {
            thread::sleep(Duration::from_secs(2));
            let name = urls.iter().find_map(|url| leader(url, stream));
            let name = name.unwrap_or_else(|| panic!("{stream} has no leader"));
            let index = group
                .servers
                .iter()
                .position(|server| name == format!("s{}", server.address().port()))
                .expect("the leader is one of the group");
            let since = Instant::now();
            group.servers[index].kill();
            eventually("another one leads", || {
                let new = urls.iter().find_map(|url| leader(url, stream));
                new.is_some_and(|new| new != name)
            });
            println!("{stream}: another leader after {:.1?}", since.elapsed());
            group.servers[index].restart();
        }
        work.join().unwrap()
    });
    let (once, again): (Vec<_>, Vec<_>) = outcomes.iter().cloned().partition(|it| it.job % 2 == 0);
    outcomes::all_ok(&once);
    outcomes::all_ok(&again);
    space.judge().check_once(&once);
    space.judge().check(&again);
    outcomes::check_books(&cluster.metrics(), &outcomes);
    assert_eq!(cluster.metrics().rollbacks, 0);
    for worker in workers {
        worker.drain();
    }
}

/// All members leave: jobs, claims and outcomes are gone.
#[test]
fn all_members_leave_and_nothing_is_left() {
    let server = TestServer::start();
    let space = Space::new(server.url(), "left", Duration::from_secs(10));
    let worker = space.worker(4);
    let cluster = space.cluster().build().unwrap();
    let handles = (0..300).map(|job| match job % 3 {
        0 => (job, cluster.submit(once::call(job, What::Nothing))),
        1 => (job, cluster.submit(again::call(job, What::Panic))),
        _ => (
            job,
            cluster.submit(once::call(
                job,
                What::Bytes(if job < 12 { 700_000 } else { 10 }),
            )),
        ),
    });
    let outcomes = collect(handles.collect(), Duration::from_secs(60));
    outcomes::check_books(&cluster.metrics(), &outcomes);
    assert_eq!(cluster.metrics().panicked, 100);
    worker.drain();
    drop(cluster);
    eventually("no job and no claim is left", || {
        space.jobs() == 0 && space.claims() == 0
    });
    for stream in [
        "FP1_left_RES",
        "KV_fp1-left-live",
        "KV_fp1-left-kept",
        "OBJ_fp1-left-blob",
    ] {
        let count = space.messages(stream);
        // Deleted keys and objects leave a note that they are.
        println!("{stream}: {count} messages");
        assert!(
            !stream.ends_with("RES") || count == 0,
            "{stream} has {count} messages"
        );
    }
}
