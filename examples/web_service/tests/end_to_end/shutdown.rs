//! Tests a shutdown in this process: no request is lost, and the time limit is kept.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use web_service::serve::GRACE;

use crate::common::{
    Client, PATIENCE, Server, Visits, balanced, pools, request_without_end, sentence, until,
    visit_until_closed, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_when_it_stops_under_load() {
    let limit = Duration::from_secs(30);
    let server = Server::start(2, 16, limit).await;
    let app = server.app.clone();
    let clients = load(server.address, 60);
    until("the service is busy", || {
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
    // No answer was lost, and every request that reached a handler was answered.
    assert_eq!(visits.answers, totals.answers);
    assert_eq!((totals.in_flight(), totals.abandoned), (0, 0));
    for (name, pool) in pools(&app).metrics() {
        assert!(balanced(&pool), "{name}: {pool:?}");
        assert_eq!((pool.cancelled, pool.failed), (0, 0));
    }
    assert!(pools(&app).images.workers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_limit_queued_jobs_are_cancelled_and_answered() {
    let limit = Duration::from_millis(300);
    let server = Server::start(1, 16, limit).await;
    let occupied = server.occupy_worker().await;
    let mut waiting = JoinSet::new();
    for _ in 0..10 {
        let client = server.client();
        waiting.spawn(async move { client.hash("in the queue").await });
    }
    let _slow = request_without_end(server.address);
    until("all requests have arrived", || {
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
        let answer = answer.expect("the request is answered");
        assert_eq!(answer.status, 503);
        assert_eq!(
            sentence(&answer),
            "The service is stopping: try again later.\n"
        );
    }
    occupied.release().await;
    let cpu = &pools(&app).cpu;
    within(PATIENCE, cpu.shutdown()).await;
    assert!(balanced(&cpu.metrics()), "{:?}", cpu.metrics());
}

/// Starts clients that send requests until the service has stopped.
fn load(server: SocketAddr, clients: usize) -> JoinSet<Visits> {
    (0..clients)
        .map(|number| within(PATIENCE, visit_until_closed(Client::new(server), number)))
        .collect()
}
