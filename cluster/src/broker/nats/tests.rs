//! What the conformance tests cannot show: lost connections, restarts, credentials.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::options::{Auth, NatsOptions};
use super::{Nats, permissions};
use crate::broker::{
    Ack, Broker, BrokerError, Consumer, Inbox, Outgoing, PublishError, Pulled, Puller, Store, Watch,
};
use crate::common::{Certificates, Proxy, TestGroup, TestServer, free_port, non_loopback_address};
use crate::protocol::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(60);
const EXPIRES: Duration = Duration::from_secs(30);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { timeout(PATIENCE * 3, test).await.expect("in time") });
}

/// Settings with a request timeout of five seconds: long beside "at once".
fn settings() -> Settings {
    Settings {
        queue_bytes: 1 << 20,
        ..Settings::default()
    }
}

fn options(url: String) -> NatsOptions {
    NatsOptions::new(vec![url], "test")
}

async fn connect(url: String) -> Nats {
    Nats::connect(&options(url)).await.expect("a connection")
}

async fn ready(url: String) -> Nats {
    let nats = connect(url).await;
    nats.ensure_stores(&settings(), true).await.expect("stores");
    nats
}

fn message(subject: &str, payload: &str) -> Outgoing {
    Outgoing {
        subject: subject.into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..Outgoing::default()
    }
}

fn jobs() -> Consumer {
    Consumer::Jobs("q.t.1".into())
}

async fn connected(nats: &Nats, wanted: bool) -> u64 {
    let mut connection = nats.connection();
    let found = connection.wait_for(|now| now.connected == wanted);
    let found = timeout(PATIENCE, found).await.expect("in time");
    found.expect("the connection goes on").generation
}

/// Waits for another connection than that of this number.
async fn reconnected(nats: &Nats, before: u64) {
    let mut connection = nats.connection();
    let found = connection.wait_for(|now| now.connected && now.generation > before);
    timeout(PATIENCE, found)
        .await
        .expect("in time")
        .expect("the connection goes on");
}

async fn pulled(puller: &mut impl Puller) -> Pulled {
    timeout(PATIENCE, puller.next()).await.expect("in time")
}

fn unreachable<T: std::fmt::Debug>(result: Result<T, BrokerError>) {
    assert!(
        matches!(result, Err(BrokerError::Unreachable(_))),
        "{result:?}"
    );
}

fn refusal<T: std::fmt::Debug>(result: Result<T, BrokerError>) -> String {
    match result {
        Err(BrokerError::Refused(text)) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_fails_at_once_when_its_connection_breaks() {
    run(async {
        let server = TestServer::start();
        let proxy = Proxy::to(server.address());
        let nats = ready(proxy.url()).await;
        let before = connected(&nats, true).await;
        proxy.stall_to_client();
        let asking = async {
            let start = Instant::now();
            unreachable(nats.get(Store::Jobs, 1).await);
            start.elapsed()
        };
        let cutting = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            proxy.cut();
        };
        let (waited, ()) = tokio::join!(asking, cutting);
        assert!(waited < settings().request_timeout() / 2, "{waited:?}");
        connected(&nats, false).await;
        proxy.heal();
        let after = connected(&nats, true).await;
        assert!(after > before);
        assert!(nats.get(Store::Jobs, 1).await.unwrap().is_none());
    });
}

#[test]
fn a_request_without_an_answer_fails_in_time() {
    run(async {
        let server = TestServer::start();
        let proxy = Proxy::to(server.address());
        let nats = ready(proxy.url()).await;
        proxy.stall();
        let start = Instant::now();
        unreachable(nats.info(Store::Jobs).await);
        assert!(start.elapsed() >= settings().request_timeout() * 9 / 10);
        assert!(start.elapsed() < settings().request_timeout() * 6);
        // A connection that stays silent is given up, and another is made.
        connected(&nats, false).await;
        proxy.drop_connections();
        proxy.heal();
        connected(&nats, true).await;
        nats.info(Store::Jobs).await.unwrap();
    });
}

#[test]
fn nothing_is_kept_back_for_the_next_connection() {
    run(async {
        let mut server = TestServer::start();
        let nats = ready(server.url()).await;
        server.kill();
        connected(&nats, false).await;
        let start = Instant::now();
        for _ in 0..100 {
            let published = nats.publish(Store::Jobs, message("q.t.1", "lost")).await;
            assert!(
                matches!(
                    published,
                    Err(PublishError::Other(BrokerError::Unreachable(_)))
                ),
                "{published:?}"
            );
        }
        unreachable(nats.notify("ctl.all", Bytes::new()).await);
        unreachable(nats.puller().await.map(drop));
        unreachable(nats.watch(Store::Live, true).await.map(drop));
        unreachable(nats.inbox(&["ctl.me".into()]).await.map(drop));
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{:?}",
            start.elapsed()
        );
        server.restart();
        connected(&nats, true).await;
        let seq = nats
            .publish(Store::Jobs, message("q.t.1", "kept"))
            .await
            .unwrap();
        let info = nats.info(Store::Jobs).await.unwrap();
        assert_eq!((info.messages, info.last), (1, seq));
        assert_eq!(seq, 1);
    });
}

#[test]
fn a_filled_request_beside_an_open_one_does_not_end_the_consumer() {
    run(async {
        let server = TestServer::start();
        let nats = ready(server.url()).await;
        nats.ensure_consumer(&jobs()).await.unwrap();
        let mut puller = nats.puller().await.unwrap();
        puller.request(&jobs(), 2, EXPIRES);
        puller.request(&jobs(), 2, EXPIRES);
        for _ in 0..3 {
            let message = message("q.t.1", "x");
            nats.publish(Store::Jobs, message).await.unwrap();
        }
        for _ in 0..3 {
            let next = pulled(&mut puller).await;
            assert!(matches!(next, Pulled::Delivery(_)), "{next:?}");
        }
        // The server says nothing of the one that it has filled.
        let next = pulled(&mut puller).await;
        assert!(matches!(next, Pulled::Ended { wanted: 0, .. }), "{next:?}");
        // The other one is still open.
        let message = message("q.t.1", "x");
        nats.publish(Store::Jobs, message).await.unwrap();
        let next = pulled(&mut puller).await;
        assert!(matches!(next, Pulled::Delivery(_)), "{next:?}");
    });
}

#[test]
fn a_request_that_is_filled_in_its_last_part_does_not_end_the_consumer() {
    run(async {
        let server = TestServer::start();
        let nats = ready(server.url()).await;
        nats.ensure_consumer(&jobs()).await.unwrap();
        let mut puller = nats.puller().await.unwrap();
        let expires = Duration::from_millis(1500);
        puller.request(&jobs(), 2, expires);
        puller.request(&jobs(), 2, expires);
        for _ in 0..3 {
            let message = message("q.t.1", "x");
            nats.publish(Store::Jobs, message).await.unwrap();
        }
        let mut deliveries = 0;
        let mut missing = Vec::new();
        while missing.len() < 2 {
            match pulled(&mut puller).await {
                Pulled::Delivery(_) => deliveries += 1,
                Pulled::Ended { wanted, .. } => missing.push(wanted),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((deliveries, missing.iter().sum()), (3, 1));
    });
}

#[test]
fn what_is_stored_outlives_a_killed_server() {
    run(async {
        let mut server = TestServer::start();
        let nats = ready(server.url()).await;
        let created = nats.info(Store::Jobs).await.unwrap().created;
        nats.ensure_consumer(&jobs()).await.unwrap();
        for n in 1..=3 {
            let seq = nats
                .publish(Store::Jobs, message("q.t.1", "x"))
                .await
                .unwrap();
            assert_eq!(seq, n);
        }
        let mut puller = nats.puller().await.unwrap();
        puller.request(&jobs(), 1, EXPIRES);
        assert!(matches!(pulled(&mut puller).await, Pulled::Delivery(_)));
        assert_eq!(nats.delete(Store::Jobs, 1).await, Ok(true));
        nats.publish(Store::Claims, message("k", "1"))
            .await
            .unwrap();
        server.kill();
        connected(&nats, false).await;
        server.restart();
        connected(&nats, true).await;
        // A server before 2.10 may still count the deleted message.
        let info = nats.info(Store::Jobs).await.unwrap();
        assert_eq!((info.created, info.last), (created, 3));
        assert!(nats.get(Store::Jobs, 1).await.unwrap().is_none());
        assert_eq!(nats.next(Store::Jobs, 1).await.unwrap().unwrap().seq, 2);
        assert!(nats.last(Store::Claims, "k").await.unwrap().is_some());
        nats.ensure_consumer(&jobs()).await.unwrap();
    });
}

#[test]
fn c2_a_deleted_job_stays_away_when_the_server_is_killed() {
    run(async {
        let mut server = TestServer::start();
        let nats = ready(server.url()).await;
        for _ in 0..20 {
            nats.publish(Store::Jobs, message("q.t.1", "x"))
                .await
                .unwrap();
        }
        // The first, some in between, and the last.
        let deleted = [1, 2, 7, 8, 12, 20];
        for seq in deleted {
            assert_eq!(nats.delete(Store::Jobs, seq).await, Ok(true));
        }
        let before = connected(&nats, true).await;
        server.kill();
        server.restart();
        reconnected(&nats, before).await;
        for seq in 1..=20 {
            let found = nats.get(Store::Jobs, seq).await.unwrap();
            assert_eq!(found.is_none(), deleted.contains(&seq), "{seq}");
        }
        let next = nats
            .publish(Store::Jobs, message("q.t.1", "x"))
            .await
            .unwrap();
        assert_eq!(next, 21);
    });
}

#[test]
fn acknowledged_messages_that_a_killed_server_brings_back_are_delivered() {
    run(async {
        let mut server = TestServer::start();
        let nats = ready(server.url()).await;
        nats.ensure_consumer(&jobs()).await.unwrap();
        for _ in 0..50 {
            nats.publish(Store::Jobs, message("q.t.1", "x"))
                .await
                .unwrap();
        }
        let mut puller = nats.puller().await.unwrap();
        puller.request(&jobs(), 40, EXPIRES);
        for _ in 0..40 {
            let Pulled::Delivery(delivery) = pulled(&mut puller).await else {
                panic!("a delivery");
            };
            nats.ack(&delivery.token, Ack::Done).await.unwrap();
        }
        // The consumer's state is written a moment later.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = connected(&nats, true).await;
        server.kill();
        server.restart();
        reconnected(&nats, before).await;
        nats.ensure_consumer(&jobs()).await.unwrap();
        let left = nats.info(Store::Jobs).await.unwrap().messages;
        println!("{left} messages are left of 10");
        let mut taken = 0;
        while taken < left {
            puller.request(&jobs(), 50, Duration::from_secs(2));
            match pulled(&mut puller).await {
                Pulled::Delivery(delivery) => {
                    nats.ack(&delivery.token, Ack::Done).await.unwrap();
                    taken += 1;
                }
                Pulled::Broken | Pulled::Ended { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(nats.info(Store::Jobs).await.unwrap().messages, 0);
    });
}

#[test]
fn an_empty_queue_keeps_its_sequence_over_a_kill_or_its_consumer_is_made_anew() {
    run(async {
        let mut server = TestServer::start();
        let nats = ready(server.url()).await;
        nats.ensure_consumer(&jobs()).await.unwrap();
        let mut puller = nats.puller().await.unwrap();
        for round in 0..5 {
            for _ in 0..10 {
                nats.publish(Store::Jobs, message("q.t.1", "x"))
                    .await
                    .unwrap();
            }
            puller.request(&jobs(), 10, EXPIRES);
            let mut taken = 0;
            loop {
                match pulled(&mut puller).await {
                    Pulled::Delivery(delivery) => {
                        nats.ack(&delivery.token, Ack::Done).await.unwrap();
                        taken += 1;
                    }
                    Pulled::Ended { .. } => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(taken, 10, "round {round}");
            server.kill();
            connected(&nats, false).await;
            server.restart();
            connected(&nats, true).await;
            assert!(matches!(pulled(&mut puller).await, Pulled::Broken));
            nats.ensure_stores(&settings(), true).await.unwrap();
            nats.ensure_consumer(&jobs()).await.unwrap();
            let info = nats.info(Store::Jobs).await.unwrap();
            println!(
                "round {round}: last sequence {} of {}",
                info.last,
                (round + 1) * 10
            );
            assert_eq!(info.messages, 0);
        }
    });
}

#[test]
fn a_consumer_ahead_of_its_stream_is_made_anew() {
    run(async {
        let mut server = TestServer::start();
        let nats = ready(server.url()).await;
        nats.ensure_consumer(&jobs()).await.unwrap();
        // The messages are put back to this state, the consumer is not.
        let before = connected(&nats, true).await;
        server.terminate();
        let old = server.copy_store();
        server.restart();
        reconnected(&nats, before).await;
        let mut puller = nats.puller().await.unwrap();
        for _ in 0..20 {
            nats.publish(Store::Jobs, message("q.t.1", "x"))
                .await
                .unwrap();
        }
        puller.request(&jobs(), 20, EXPIRES);
        for _ in 0..20 {
            let Pulled::Delivery(delivery) = pulled(&mut puller).await else {
                panic!("a delivery");
            };
            nats.ack(&delivery.token, Ack::Done).await.unwrap();
        }
        let before = connected(&nats, true).await;
        server.terminate();
        let messages = "jetstream/$G/streams/FP1_test_JOBS/msgs";
        let now = server.store().join(messages);
        std::fs::remove_dir_all(&now).unwrap();
        std::fs::create_dir(&now).unwrap();
        let older = old.path().join("store").join(messages);
        for entry in std::fs::read_dir(older).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), now.join(entry.file_name())).unwrap();
        }
        server.restart();
        reconnected(&nats, before).await;
        let last = nats.info(Store::Jobs).await.unwrap().last;
        println!("last sequence after the roll-back: {last}");
        nats.ensure_consumer(&jobs()).await.unwrap();
        nats.publish(Store::Jobs, message("q.t.1", "again"))
            .await
            .unwrap();
        loop {
            puller.request(&jobs(), 1, Duration::from_secs(2));
            match pulled(&mut puller).await {
                Pulled::Delivery(delivery) => {
                    assert_eq!(delivery.message.payload, "again");
                    break;
                }
                Pulled::Broken | Pulled::Ended { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_deleted_store_is_made_anew() {
    run(async {
        let mut server = TestServer::start();
        let nats = ready(server.url()).await;
        let created = nats.info(Store::Jobs).await.unwrap().created;
        let before = connected(&nats, true).await;
        server.kill();
        server.delete_store();
        server.restart();
        reconnected(&nats, before).await;
        let missing = nats.publish(Store::Jobs, message("q.t.1", "x")).await;
        assert!(
            matches!(missing, Err(PublishError::Other(BrokerError::Missing(_)))),
            "{missing:?}"
        );
        nats.ensure_stores(&settings(), true).await.unwrap();
        assert!(nats.info(Store::Jobs).await.unwrap().created > created);
        nats.publish(Store::Jobs, message("q.t.1", "x"))
            .await
            .unwrap();
    });
}

#[test]
fn a_broken_connection_ends_the_requests_of_a_puller_once() {
    run(async {
        let server = TestServer::start();
        let proxy = Proxy::to(server.address());
        let nats = ready(proxy.url()).await;
        nats.ensure_consumer(&jobs()).await.unwrap();
        let mut puller = nats.puller().await.unwrap();
        for _ in 0..2 {
            puller.request(&jobs(), 1, EXPIRES);
            proxy.cut();
            assert!(matches!(pulled(&mut puller).await, Pulled::Broken));
            let quiet = timeout(Duration::from_millis(300), puller.next()).await;
            assert!(quiet.is_err(), "{quiet:?}");
            proxy.heal();
            connected(&nats, true).await;
            let quiet = timeout(Duration::from_millis(300), puller.next()).await;
            assert!(quiet.is_err(), "{quiet:?}");
        }
        // What is asked for without a connection ends with the next.
        proxy.cut();
        assert!(matches!(pulled(&mut puller).await, Pulled::Broken));
        puller.request(&jobs(), 1, EXPIRES);
        proxy.heal();
        assert!(matches!(pulled(&mut puller).await, Pulled::Broken));
        nats.publish(Store::Jobs, message("q.t.1", "x"))
            .await
            .unwrap();
        puller.request(&jobs(), 1, EXPIRES);
        assert!(matches!(pulled(&mut puller).await, Pulled::Delivery(_)));
    });
}

#[test]
fn a_watch_ends_when_the_connection_breaks_or_the_server_is_silent() {
    run(async {
        let server = TestServer::start();
        let proxy = Proxy::to(server.address());
        let nats = ready(proxy.url()).await;
        let mut watch = nats.watch(Store::Live, true).await.unwrap();
        // Heartbeats keep it alive.
        assert!(timeout(Duration::from_secs(5), watch.next()).await.is_err());
        proxy.drop_connections();
        assert!(timeout(PATIENCE, watch.next()).await.unwrap().is_none());
        assert!(watch.next().await.is_none());
        connected(&nats, true).await;
        let mut watch = nats.watch(Store::Live, true).await.unwrap();
        let start = Instant::now();
        proxy.stall_to_client();
        assert!(timeout(PATIENCE, watch.next()).await.unwrap().is_none());
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "{:?}",
            start.elapsed()
        );
    });
}

#[test]
fn a_watch_whose_consumer_is_gone_ends() {
    run(async {
        let server = TestServer::start();
        let nats = ready(server.url()).await;
        let mut watch = nats.watch(Store::Live, true).await.unwrap();
        nats.publish(Store::Live, message("w.1", "x"))
            .await
            .unwrap();
        assert!(timeout(PATIENCE, watch.next()).await.unwrap().is_some());
        let admin = async_nats::connect(server.url()).await.unwrap();
        let stream = "KV_fp1-test-live";
        let deleted = admin.request(format!("$JS.API.STREAM.DELETE.{stream}"), Bytes::new());
        deleted.await.unwrap();
        assert!(timeout(PATIENCE, watch.next()).await.unwrap().is_none());
    });
}

#[test]
fn an_inbox_hears_again_after_a_reconnect() {
    run(async {
        let mut server = TestServer::start();
        let nats = connect(server.url()).await;
        let mut inbox = nats.inbox(&["ctl.me".into()]).await.unwrap();
        server.kill();
        connected(&nats, false).await;
        server.restart();
        connected(&nats, true).await;
        nats.notify("ctl.me", Bytes::from("1")).await.unwrap();
        let notice = timeout(PATIENCE, inbox.next()).await.unwrap();
        assert_eq!(notice.payload, "1");
    });
}

#[test]
fn a_request_that_is_dropped_is_forgotten() {
    run(async {
        let server = TestServer::start();
        let proxy = Proxy::to(server.address());
        let nats = ready(proxy.url()).await;
        proxy.stall();
        for _ in 0..10 {
            let asking = nats.info(Store::Jobs);
            assert!(timeout(Duration::from_millis(1), asking).await.is_err());
        }
        assert_eq!(nats.link.waiting(), 0);
    });
}

#[test]
fn a_closed_connection_fails_everything() {
    run(async {
        let server = TestServer::start();
        let nats = ready(server.url()).await;
        let other = nats.clone();
        other.close().await;
        connected(&nats, false).await;
        unreachable(nats.info(Store::Jobs).await);
        other.close().await;
    });
}

#[test]
fn other_streams_of_the_same_name_are_refused() {
    run(async {
        for (stream, config) in [
            ("FP1_test_JOBS", r#""subjects":["fp1.test.job.>"]"#),
            (
                "FP1_test_JOBS",
                r#""subjects":["other"],"retention":"workqueue","discard":"new""#,
            ),
            (
                "KV_fp1-test-claim",
                r#""subjects":["$KV.fp1-test-claim.>"],"discard":"new""#,
            ),
            (
                "KV_fp1-test-claim",
                r#""subjects":["$KV.fp1-test-claim.>"],"discard":"new","max_msgs_per_subject":1,"deny_delete":true"#,
            ),
        ] {
            let server = TestServer::start();
            let admin = async_nats::connect(server.url()).await.unwrap();
            let config = format!(r#"{{"name":"{stream}","storage":"file",{config}}}"#);
            let made = admin.request(format!("$JS.API.STREAM.CREATE.{stream}"), config.into());
            let made = made.await.unwrap();
            assert!(!made.payload.starts_with(b"{\"error"), "{made:?}");
            let nats = connect(server.url()).await;
            let text = refusal(nats.ensure_stores(&settings(), true).await);
            assert!(text.contains(stream), "{text}");
        }
    });
}

#[test]
fn a_missing_stream_is_named() {
    run(async {
        let server = TestServer::start();
        let nats = connect(server.url()).await;
        let missing = nats.ensure_stores(&settings(), false).await;
        let Err(BrokerError::Missing(text)) = missing else {
            panic!("{missing:?}");
        };
        assert!(
            text.contains("FP1_test_JOBS") && text.contains("set-up"),
            "{text}"
        );
    });
}

#[test]
fn jobs_take_at_most_half_of_the_accounts_storage() {
    run(async {
        let server = TestServer::with_config(
            r#"accounts { A { jetstream: { max_file: 1000000, max_mem: 1000000 }
               users: [ { user: a, password: a } ] } }"#,
        );
        let mut options = options(server.url());
        options.auth = Auth::User {
            name: "a".into(),
            password: "a".into(),
        };
        let nats = Nats::connect(&options).await.unwrap();
        let made = nats.ensure_stores(&settings(), true).await.unwrap();
        assert_eq!(made.queue_bytes, 500_000);
    });
}

#[test]
fn a_server_without_jetstream_is_refused() {
    run(async {
        let server = TestServer::with_config("jetstream: disabled");
        let nats = connect(server.url()).await;
        let text = refusal(nats.ensure_stores(&settings(), true).await);
        assert!(text.contains("JetStream is not enabled"), "{text}");
    });
}

#[test]
fn a_first_connection_says_why_it_fails() {
    run(async {
        let mut nowhere = options(format!("nats://127.0.0.1:{}", free_port()));
        nowhere.connect_timeout = Duration::from_secs(2);
        let error = Nats::connect(&nowhere).await.unwrap_err();
        assert!(matches!(&error, BrokerError::Unreachable(_)), "{error:?}");
        assert!(error.to_string().contains("connection refused"), "{error}");

        let mut unknown = options("nats://no-such-host.invalid".into());
        unknown.connect_timeout = Duration::from_millis(300);
        let error = Nats::connect(&unknown).await.unwrap_err().to_string();
        assert!(
            error.contains("host is unknown") || error.contains("timed out"),
            "{error}"
        );

        let text = refusal(Nats::connect(&options("http://host".into())).await);
        assert!(text.contains("http://host"), "{text}");
        let none = NatsOptions::new(Vec::new(), "test");
        assert!(refusal(Nats::connect(&none).await).contains("no address"));
    });
}

#[test]
fn a_first_connection_waits_for_a_server_that_starts() {
    run(async {
        let mut server = TestServer::start();
        server.kill();
        let url = server.url();
        let starting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            server.restart();
            server
        });
        let mut options = options(url);
        options.connect_timeout = PATIENCE;
        let nats = Nats::connect(&options).await.unwrap();
        connected(&nats, true).await;
        drop(starting.join());
    });
}

#[test]
fn any_server_of_the_list_is_used() {
    run(async {
        let nowhere = format!("nats://127.0.0.1:{}", free_port());
        let mut servers = [TestServer::start(), TestServer::start()];
        let urls = vec![nowhere, servers[0].url(), servers[1].url()];
        let nats = Nats::connect(&NatsOptions::new(urls, "test"))
            .await
            .unwrap();
        for index in [0, 1] {
            servers[index].kill();
            servers[1 - index].address();
            // At most one of the two was the connected one.
            let mut connection = nats.connection();
            let up = connection.wait_for(|now| now.connected);
            timeout(PATIENCE, up).await.unwrap().unwrap();
            timeout(PATIENCE, async {
                while nats.ask("ctl.x", Bytes::new()).await != Ok(None) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await
            .unwrap();
            servers[index].restart();
        }
    });
}

fn user(name: &str, password: &str) -> Auth {
    Auth::User {
        name: name.into(),
        password: password.into(),
    }
}

#[test]
fn credentials_are_checked_and_never_told() {
    run(async {
        let server = TestServer::with_config(
            r#"authorization { users: [ { user: ada, password: "right" } ] }"#,
        );
        let mut options = options(server.url());
        for auth in [
            Auth::None,
            user("ada", "s3cret"),
            user("s3cret", "right"),
            Auth::Token("s3cret".into()),
            Auth::Nkey("s3cret".into()),
            Auth::Credentials("s3cret".into()),
        ] {
            options.auth = auth;
            let start = Instant::now();
            let text = refusal(Nats::connect(&options).await);
            assert!(
                text.contains("credentials") && !text.contains("s3cret"),
                "{text}"
            );
            assert!(
                start.elapsed() < options.connect_timeout,
                "it is not tried again"
            );
        }
        options.auth = Auth::CredentialsFile("/no/such/file".into());
        assert!(refusal(Nats::connect(&options).await).contains("/no/such/file"));
        options.auth = user("ada", "right");
        Nats::connect(&options).await.unwrap();
        // In the address, too.
        let url = format!("nats://ada:right@{}", server.address());
        connect(url).await;

        let server = TestServer::with_config(r#"authorization { token: "right" }"#);
        options = NatsOptions::new(vec![server.url()], "test");
        options.auth = Auth::Token("right".into());
        Nats::connect(&options).await.unwrap();
    });
}

#[test]
fn a_key_pair_is_a_credential() {
    run(async {
        let pair = nkeys::KeyPair::new_user();
        let server = TestServer::with_config(&format!(
            "authorization {{ users: [ {{ nkey: {} }} ] }}",
            pair.public_key()
        ));
        let mut options = options(server.url());
        options.auth = Auth::Nkey(pair.seed().unwrap());
        Nats::connect(&options).await.unwrap();
    });
}

/// A server whose users may do what the templates say.
fn guarded(users: &[(&str, permissions::Permissions)]) -> TestServer {
    let users: Vec<_> = users
        .iter()
        .map(|(name, permissions)| format!("{{ user: {name}, password: pw, {permissions} }}"))
        .collect();
    TestServer::with_config(&format!(
        "authorization {{ users: [\n{}\n] }}",
        users.join("\n")
    ))
}

async fn as_user(server: &TestServer, name: &str) -> Nats {
    let mut options = options(server.url());
    options.identity = Some(name.into());
    options.identities = vec!["alice".into(), "bob".into()];
    options.auth = user(name, "pw");
    Nats::connect(&options).await.unwrap()
}

#[test]
fn templates_of_permissions_allow_what_is_needed_and_nothing_else() {
    run(async {
        let submitters = ["alice".to_owned(), "bob".to_owned()];
        let server = guarded(&[
            ("root", permissions::admin("test", "root", &submitters)),
            ("alice", permissions::submitter("test", "alice")),
            ("bob", permissions::submitter("test", "bob")),
            ("ann", permissions::worker("test", "ann")),
            ("eve", permissions::viewer("test", "eve")),
        ]);
        let alice = as_user(&server, "alice").await;
        let bob = as_user(&server, "bob").await;
        let ann = as_user(&server, "ann").await;
        let missing = alice.ensure_stores(&settings(), false).await;
        assert!(
            matches!(missing, Err(BrokerError::Missing(_))),
            "{missing:?}"
        );
        refusal(alice.ensure_stores(&settings(), true).await);
        let root = as_user(&server, "root").await;
        root.ensure_stores(&settings(), true).await.unwrap();
        for peer in [&alice, &bob, &ann] {
            peer.ensure_stores(&settings(), false).await.unwrap();
        }

        // A job goes to the worker, and its outcome back to its submitter.
        let (client, job) = ("alice.c1", "alice.c1-1");
        alice
            .publish(Store::Live, message("c.alice.c1", "x"))
            .await
            .unwrap();
        let mut watch = alice.watch(Store::Live, true).await.unwrap();
        assert!(timeout(PATIENCE, watch.next()).await.unwrap().is_some());
        let mut events = alice.inbox(&[format!("ev.{client}")]).await.unwrap();
        let seq = alice
            .publish(Store::Jobs, message("q.t.1", "job"))
            .await
            .unwrap();
        alice.put_blob(job, Bytes::from("argument")).await.unwrap();
        alice
            .publish(Store::Kept, message("key", "x"))
            .await
            .unwrap();
        let _kept = alice.watch(Store::Kept, false).await.unwrap();
        alice.consumers().await.unwrap();

        ann.publish(Store::Live, message("w.ann.host-1-x", "x"))
            .await
            .unwrap();
        let mut lives = ann.watch(Store::Live, true).await.unwrap();
        assert!(timeout(PATIENCE, lives.next()).await.unwrap().is_some());
        let subjects = ["ctl.ann.host-1-x".to_owned(), "ctl.all".to_owned()];
        let mut control = ann.inbox(&subjects).await.unwrap();
        ann.ensure_consumer(&jobs()).await.unwrap();
        let mut puller = ann.puller().await.unwrap();
        puller.request(&jobs(), 1, EXPIRES);
        let Pulled::Delivery(delivery) = pulled(&mut puller).await else {
            panic!("a delivery");
        };
        ann.ack(&delivery.token, Ack::Extend).await.unwrap();
        ann.publish(Store::Claims, message(job, "held"))
            .await
            .unwrap();
        assert!(ann.get(Store::Jobs, seq).await.unwrap().is_some());
        assert!(ann.get_blob(job, 100).await.unwrap().is_some());
        ann.notify(&format!("ev.{client}"), Bytes::from("started"))
            .await
            .unwrap();
        assert!(timeout(PATIENCE, events.next()).await.is_ok());
        let answering = async {
            let question = timeout(PATIENCE, control.next()).await.unwrap();
            ann.notify_reply(&question.reply.unwrap(), Bytes::from("yes"))
                .await
                .unwrap();
        };
        let asking = alice.ask(&subjects[0], Bytes::from("?"));
        let (answer, ()) = tokio::join!(asking, answering);
        assert_eq!(answer, Ok(Some(Bytes::from("yes"))));
        ann.publish(Store::Results, message(client, "outcome"))
            .await
            .unwrap();
        ann.ack(&delivery.token, Ack::Done).await.unwrap();
        let claim = alice.last(Store::Claims, job).await.unwrap().unwrap();
        ann.delete(Store::Claims, claim.seq).await.unwrap();
        ann.delete_blob(job).await.unwrap();
        ann.blobs().await.unwrap();

        // Bob can neither read the outcome of another, nor take jobs, nor pretend to be another.
        let other = Consumer::Results(client.into());
        refusal(bob.ensure_consumer(&other).await);
        let raw = raw_client(&server, "bob").await;
        for subject in [
            "$JS.API.STREAM.MSG.GET.FP1_test_RES_alice",
            "$JS.API.STREAM.INFO.FP1_test_RES_alice",
            "$JS.API.CONSUMER.CREATE.FP1_test_RES_alice.x.fp1.test.res.alice.c1",
            "$JS.API.CONSUMER.CREATE.FP1_test_RES_alice",
            "$JS.API.CONSUMER.MSG.NEXT.FP1_test_RES_alice.alice+c1",
            "$JS.API.CONSUMER.MSG.NEXT.FP1_test_JOBS.q+t+1",
            "$JS.API.CONSUMER.CREATE.FP1_test_JOBS.x.fp1.test.job.>",
            "$JS.API.DIRECT.GET.FP1_test_RES_alice",
            "$JS.API.STREAM.DELETE.FP1_test_JOBS",
            "fp1.test.res.alice.c1",
            "$KV.fp1-test-claim.alice.c1-1",
            "$KV.fp1-test-live.c.alice.c1",
            "$KV.fp1-test-live.w.ann.host-1-x",
        ] {
            assert!(raw.forbidden(subject).await, "{subject}");
        }
        for subject in [
            "fp1.test.res.>",
            "fp1.test.ev.alice.*",
            "_INBOX.alice.>",
            "fp1.test.job.>",
        ] {
            assert!(raw.forbidden_to_hear(subject).await, "{subject}");
        }

        // A viewer can change nothing.
        let eve = as_user(&server, "eve").await;
        eve.ensure_stores(&settings(), false).await.unwrap();
        eve.consumers().await.unwrap();
        eve.next(Store::Jobs, 1).await.unwrap();
        eve.blobs().await.unwrap();
        for store in [Store::Jobs, Store::Claims, Store::Live, Store::Kept] {
            eve.info(store).await.unwrap();
        }
        eve.publish(Store::Live, message("s.eve.1", "x"))
            .await
            .unwrap();
        let mut watch = eve.watch(Store::Live, true).await.unwrap();
        assert!(timeout(PATIENCE, watch.next()).await.unwrap().is_some());
        refusal(eve.delete(Store::Jobs, seq).await);
        assert!(
            raw_client(&server, "eve")
                .await
                .forbidden("fp1.test.ctl.all")
                .await
        );
        refusal(eve.last(Store::Claims, job).await);
        // An administrator looks, drains and tidies up.
        root.consumers().await.unwrap();
        root.notify("ctl.all", Bytes::from("drain")).await.unwrap();
        assert!(timeout(PATIENCE, control.next()).await.is_ok());
        let kept = root.last(Store::Kept, "key").await.unwrap().unwrap();
        assert_eq!(root.delete(Store::Kept, kept.seq).await, Ok(true));

        // Alice can read it.
        alice.ensure_consumer(&other).await.unwrap();
        let mut puller = alice.puller().await.unwrap();
        puller.request(&other, 1, EXPIRES);
        let Pulled::Delivery(outcome) = pulled(&mut puller).await else {
            panic!("a delivery");
        };
        assert_eq!(outcome.consumer, other);
        assert_eq!(outcome.message.payload, "outcome");
        alice.ack(&outcome.token, Ack::Done).await.unwrap();
        assert_eq!(alice.info(Store::Results).await.unwrap().messages, 0);
        alice.delete_consumer(&other).await.unwrap();
    });
}

/// A client that sees what the server forbids.
struct RawClient {
    client: async_nats::Client,
    errors: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

async fn raw_client(server: &TestServer, name: &str) -> RawClient {
    let errors = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&errors);
    let client = async_nats::ConnectOptions::new()
        .user_and_password(name.into(), "pw".into())
        .custom_inbox_prefix(format!("_INBOX.{name}"))
        .event_callback(move |event| {
            seen.lock().unwrap().push(event.to_string());
            std::future::ready(())
        })
        .connect(server.url())
        .await
        .unwrap();
    RawClient { client, errors }
}

impl RawClient {
    async fn forbidden(&self, subject: &str) -> bool {
        let sent = self.client.publish_with_reply(
            subject.to_owned(),
            self.client.new_inbox(),
            Bytes::from("{}"),
        );
        sent.await.unwrap();
        self.complained_about(&format!("Publish to \"{subject}\""))
            .await
    }

    async fn forbidden_to_hear(&self, subject: &str) -> bool {
        let _subscription = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.complained_about(&format!("Subscription to \"{subject}\""))
            .await
    }

    async fn complained_about(&self, what: &str) -> bool {
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            let complained = {
                let errors = self.errors.lock().unwrap();
                errors.iter().any(|error| error.contains(what))
            };
            if complained {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

#[test]
fn what_is_forbidden_fails_at_once() {
    run(async {
        let server = guarded(&[("alice", permissions::submitter("test", "alice"))]);
        let alice = as_user(&server, "alice").await;
        let start = Instant::now();
        let published = alice.publish(Store::Results, message("bob.c1", "x")).await;
        assert!(
            matches!(published, Err(PublishError::Other(BrokerError::Refused(_)))),
            "{published:?}"
        );
        assert!(start.elapsed() < settings().request_timeout() / 2);
        // Without the inbox of its identity a peer hears no answer: that is said, too.
        let mut options = options(server.url());
        options.auth = user("alice", "pw");
        let text = refusal(Nats::connect(&options).await);
        assert!(text.contains("Permissions Violation"), "{text}");
    });
}

#[test]
fn connections_are_encrypted_and_certificates_checked() {
    run(async {
        let certificates = Certificates::make();
        let server = TestServer::with_config(&certificates.config(false));
        let mut options = options(server.url());
        options.connect_timeout = Duration::from_secs(5);
        // The machine does not know the authority.
        let text = refusal(Nats::connect(&options).await);
        assert!(
            text.contains("TLS") && text.contains("certificate"),
            "{text}"
        );
        options.tls.root_certificates = Some(certificates.path("ca.pem"));
        ensure(Nats::connect(&options).await).await;
        options.servers = vec![server.url().replace("nats://", "tls://")];
        ensure(Nats::connect(&options).await).await;

        let server = TestServer::with_config(&certificates.config(true));
        options.servers = vec![server.url()];
        let error = Nats::connect(&options).await.unwrap_err().to_string();
        assert!(error.contains("cannot connect"), "{error}");
        let client = (
            certificates.path("client.pem"),
            certificates.path("client.key"),
        );
        options.tls.client_certificate = Some(client);
        ensure(Nats::connect(&options).await).await;

        // A server without TLS is not good enough.
        let plain = TestServer::start();
        options.servers = vec![plain.url()];
        options.tls.required = true;
        assert!(Nats::connect(&options).await.is_err());
        options.tls.root_certificates = Some("/no/such/file".into());
        options.servers = vec![server.url()];
        assert!(Nats::connect(&options).await.is_err());
    });
}

async fn ensure(nats: Result<Nats, BrokerError>) {
    nats.unwrap()
        .ensure_stores(&settings(), true)
        .await
        .unwrap();
}

#[test]
fn a_server_elsewhere_without_authentication_is_refused() {
    run(async {
        let Some(address) = non_loopback_address() else {
            println!("skipped: this machine has no address but those of the loopback interface");
            return;
        };
        let server = TestServer::listening(address, "");
        let mut options = options(server.url());
        let text = refusal(Nats::connect(&options).await);
        assert!(
            text.contains("insecure") && text.contains("authentication"),
            "{text}"
        );
        options.insecure = true;
        ensure(Nats::connect(&options).await).await;
        let server = TestServer::listening(
            address,
            "authorization { users: [ { user: ada, password: pw } ] }",
        );
        let mut options = NatsOptions::new(vec![server.url()], "test");
        options.auth = user("ada", "pw");
        ensure(Nats::connect(&options).await).await;
    });
}

#[test]
fn three_replicas_outlive_their_leader() {
    run(async {
        let mut group = TestGroup::start();
        let nats = Nats::connect(&NatsOptions::new(group.urls(), "test"))
            .await
            .unwrap();
        let wanted = Settings {
            replicas: 3,
            ..settings()
        };
        let end = Instant::now() + PATIENCE;
        while let Err(error) = nats.ensure_stores(&wanted, true).await {
            assert!(Instant::now() < end, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        nats.ensure_consumer(&jobs()).await.unwrap();
        let seq = nats
            .publish(Store::Jobs, message("q.t.1", "x"))
            .await
            .unwrap();
        for index in 0..3 {
            group.servers[index].kill();
            let end = Instant::now() + PATIENCE;
            loop {
                match nats.get(Store::Jobs, seq).await {
                    Ok(found) => {
                        assert!(found.is_some(), "server {index}");
                        break;
                    }
                    Err(error) => assert!(Instant::now() < end, "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let end = Instant::now() + PATIENCE;
            while let Err(error) = nats.publish(Store::Claims, message("k", "x")).await {
                assert!(Instant::now() < end, "{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            group.servers[index].restart();
            group.wait_for_leader();
        }
    });
}
