//! The end of the service, in this process: nothing is lost, and it comes in time.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use web_service::serve::GRACE;

use crate::common::{
    Client, PATIENCE, Server, Visits, balanced, request_without_end, sentence, until,
    visit_until_closed, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_when_it_stops_under_load() {
    let limit = Duration::from_secs(30);
    let server = Server::start(2, 16, limit).await;
    let app = server.app.clone();
    let clients = load(server.address, 60);
    until("it is busy", || {
        let totals = app.counts.totals();
        totals.answered() > 200 && totals.in_flight() > 20
    })
    .await;

    let (app, stopped) = server.stop().await;
    println!("under load: {stopped} (limit {limit:?})");
    assert!(stopped.is_clean() && stopped.cancelled == 0, "{stopped}");
    assert!(stopped.took < limit, "{stopped}");
    assert!(stopped.answered > 0, "{stopped}");

    let mut visits = Visits::default();
    for client in clients.join_all().await {
        visits += client;
    }
    let totals = app.counts.totals();
    println!(
        "under load: sent {}, answers {:?}, closed {}",
        visits.sent, visits.answers, visits.closed
    );
    // No answer was lost on its way, and no request that a handler has seen.
    assert_eq!(visits.answers, totals.answers);
    assert_eq!((totals.in_flight(), totals.abandoned), (0, 0));
    let (cpu, db) = (app.cpu.metrics(), app.db.metrics());
    assert!(balanced(&cpu) && balanced(&db), "{cpu:?} {db:?}");
    assert_eq!((cpu.cancelled, db.cancelled), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_limit_queued_jobs_are_cancelled_and_answered() {
    let limit = Duration::from_millis(300);
    let server = Server::start(1, 16, limit).await;
    let kept = server.keep_a_worker().await;
    let mut waiting = JoinSet::new();
    for _ in 0..10 {
        let client = server.client();
        waiting.spawn(async move { client.hash("in the queue").await });
    }
    let _slow = request_without_end(server.address);
    until("all are there", || {
        server.cpu().queued == 10 && server.app.counts.totals().in_flight() == 11
    })
    .await;

    let (app, stopped) = server.stop().await;
    println!("limit: {stopped} (limit {limit:?})");
    assert!(
        stopped.took >= limit && stopped.took < limit + GRACE + PATIENCE / 4,
        "{stopped}"
    );
    assert_eq!((stopped.cancelled, stopped.answered), (10, 10));
    assert_eq!((stopped.cut_off, stopped.running), (1, 1));
    for answer in waiting.join_all().await {
        let answer = answer.expect("it is answered");
        assert_eq!(answer.status, 503);
        assert_eq!(
            sentence(&answer),
            "The service is stopping: try again later.\n"
        );
    }
    kept.let_go().await;
    within(PATIENCE, app.cpu.shutdown()).await;
    assert!(balanced(&app.cpu.metrics()), "{:?}", app.cpu.metrics());
}

/// Clients that ask until the service is gone.
fn load(server: SocketAddr, clients: usize) -> JoinSet<Visits> {
    (0..clients)
        .map(|number| within(PATIENCE, visit_until_closed(Client::new(server), number)))
        .collect()
}
