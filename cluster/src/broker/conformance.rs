//! What every engine must do. The tests run on all of them.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::memory::{Memory, MemoryBroker};
use super::nats::Nats;
use super::nats::options::NatsOptions;
use super::{
    Ack, Broker, BrokerError, Consumer, Delivery, Inbox, Outgoing, PublishError, Pulled, Puller,
    ServerTime, Store, Stored, Token, Watch,
};
use crate::common::TestServer;
use crate::protocol::settings::Settings;

/// No wait in these tests is longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Room for a slow machine, where something must not happen.
const QUIET: Duration = Duration::from_millis(300);
const LEASE: Duration = Duration::from_secs(2);
const EXPIRES: Duration = Duration::from_secs(20);

/// A way to make brokers.
trait Rig {
    type Broker: Broker;

    async fn start() -> Self;

    /// Opens another connection to the same engine and namespace.
    async fn connect(&self) -> Self::Broker;
}

struct NatsRig {
    server: TestServer,
}

impl Rig for NatsRig {
    type Broker = Nats;

    async fn start() -> Self {
        let server = TestServer::start();
        Self { server }
    }

    async fn connect(&self) -> Nats {
        let options = NatsOptions::new(vec![self.server.url()], "test");
        Nats::connect(&options).await.expect("a connection")
    }
}

struct MemoryRig {
    broker: MemoryBroker,
}

impl Rig for MemoryRig {
    type Broker = Memory;

    async fn start() -> Self {
        let broker = MemoryBroker::new();
        Self { broker }
    }

    async fn connect(&self) -> Memory {
        self.broker.connect("test")
    }
}

fn run<R: Rig, T: Future<Output = ()>>(test: impl FnOnce(R) -> T) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let rig = R::start().await;
        timeout(PATIENCE * 2, test(rig)).await.expect("in time");
    });
}

macro_rules! conformance {
    ($($test:ident)*) => {
        mod nats {
            $(
                #[test]
                fn $test() {
                    super::run(super::$test::<super::NatsRig>);
                }
            )*
        }

        mod memory {
            $(
                #[test]
                fn $test() {
                    super::run(super::$test::<super::MemoryRig>);
                }
            )*
        }
    };
}

conformance! {
    a_message_comes_back_by_its_sequence
    a_deleted_message_is_gone
    the_last_and_the_next_message_are_found
    a_write_expects_a_sequence
    a_second_message_of_one_id_is_not_stored
    a_full_store_refuses_and_keeps_what_it_has
    a_message_that_is_too_large_is_refused
    keys_of_the_living_vanish
    an_acknowledged_message_leaves_its_queue
    a_message_that_was_seen_leaves_its_store
    a_lease_that_runs_out_brings_the_message_back
    an_extended_lease_does_not_run_out
    a_message_that_is_given_back_comes_again
    a_deleted_message_is_not_delivered_again
    a_request_ends_when_it_is_filled
    a_request_ends_by_its_time
    a_stopped_request_ends_soon_and_loses_nothing
    a_consumer_that_is_gone_is_reported
    each_message_is_delivered_to_one_puller
    consumers_are_listed
    outcomes_reach_their_submitter_only
    a_watch_tells_the_last_and_the_new_messages
    a_watch_of_new_messages_tells_no_old_ones
    a_watch_tells_deletions
    two_watches_tell_the_same
    notices_arrive
    a_question_is_answered
    a_question_without_a_listener_has_no_answer
    blobs_come_back
    a_large_blob_comes_back
    the_state_of_a_store_is_told
    settings_are_those_of_the_first_maker
    missing_stores_are_reported
}

fn settings() -> Settings {
    Settings {
        lease: LEASE,
        replicas: 1,
        queue_bytes: 1 << 20,
    }
}

/// Opens a connection and makes the stores.
async fn ready<R: Rig>(rig: &R) -> R::Broker {
    let broker = rig.connect().await;
    let made = broker.ensure_stores(&settings(), true).await;
    assert_eq!(made, Ok(settings()));
    broker
}

fn message(subject: &str, payload: &str) -> Outgoing {
    Outgoing {
        subject: subject.into(),
        headers: vec![("Fp-Test".into(), format!("of {payload}"))],
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        expect: None,
        id: None,
    }
}

fn expecting(subject: &str, payload: &str, expect: u64) -> Outgoing {
    Outgoing {
        expect: Some(expect),
        ..message(subject, payload)
    }
}

fn jobs(subject: &str) -> Consumer {
    Consumer::Jobs(subject.into())
}

async fn pulled(puller: &mut impl Puller) -> Pulled {
    timeout(PATIENCE, puller.next()).await.expect("in time")
}

async fn delivery(puller: &mut impl Puller) -> Delivery {
    loop {
        match pulled(puller).await {
            Pulled::Delivery(delivery) => return delivery,
            Pulled::Ended { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Asks for one message and returns it.
async fn take(puller: &mut impl Puller, consumer: &Consumer) -> Delivery {
    puller.request(consumer, 1, EXPIRES);
    let delivery = delivery(puller).await;
    match pulled(puller).await {
        Pulled::Ended { wanted: 0, .. } => delivery,
        other => panic!("{other:?}"),
    }
}

/// Waits until the consumer is reported to be gone.
async fn gone(puller: &mut impl Puller, consumer: &Consumer) {
    match pulled(puller).await {
        Pulled::Gone(gone) => assert_eq!(gone, *consumer),
        other => panic!("{other:?}"),
    }
}

/// Polls until a condition holds.
async fn until<T: Future<Output = bool>>(mut condition: impl FnMut() -> T) {
    let end = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < end, "in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_message_comes_back_by_its_sequence<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    for store in [Store::Jobs, Store::Claims, Store::Live, Store::Kept] {
        let first = broker
            .publish(store, message("a.b.1", "one"))
            .await
            .unwrap();
        let second = broker.publish(store, message("a.c.1", "")).await.unwrap();
        assert!(second > first && first > 0);
        let stored = broker.get(store, first).await.unwrap().unwrap();
        assert_eq!(stored.subject, "a.b.1");
        assert_eq!(stored.seq, first);
        assert_eq!(stored.headers, [("Fp-Test".into(), "of one".into())]);
        assert_eq!(stored.payload, "one");
        assert!(!stored.is_deletion() && stored.time > ServerTime(0));
        let empty = broker.get(store, second).await.unwrap().unwrap();
        assert!(empty.payload.is_empty() && empty.time >= stored.time);
        assert!(broker.get(store, second + 1).await.unwrap().is_none());
        assert!(broker.get(store, 0).await.unwrap().is_none());
    }
    // Headers need not be there, and bytes need not be text.
    let bytes: Vec<u8> = (0..=255).collect();
    let plain = Outgoing {
        subject: "plain".into(),
        payload: bytes.clone().into(),
        ..Outgoing::default()
    };
    let seq = broker.publish(Store::Claims, plain).await.unwrap();
    let stored = broker.get(Store::Claims, seq).await.unwrap().unwrap();
    assert!(stored.headers.is_empty());
    assert_eq!(stored.payload, bytes);
}

async fn a_deleted_message_is_gone<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    for store in [Store::Jobs, Store::Claims, Store::Kept] {
        let first = broker
            .publish(store, message("a.b.1", "one"))
            .await
            .unwrap();
        let second = broker
            .publish(store, message("a.c.1", "two"))
            .await
            .unwrap();
        assert_eq!(broker.delete(store, first).await, Ok(true));
        assert!(broker.get(store, first).await.unwrap().is_none());
        assert_eq!(broker.delete(store, first).await, Ok(false));
        assert_eq!(broker.delete(store, second + 100).await, Ok(false));
        assert_eq!(broker.delete(store, 0).await, Ok(false));
        assert!(broker.last(store, "a.b.1").await.unwrap().is_none());
        // The last one, too: its sequence is not given again.
        assert_eq!(broker.delete(store, second).await, Ok(true));
        assert_eq!(broker.delete(store, second).await, Ok(false));
        let third = broker.publish(store, message("a.b.1", "x")).await.unwrap();
        assert!(third > second);
    }
}

async fn the_last_and_the_next_message_are_found<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let store = Store::Jobs;
    assert!(broker.next(store, 1).await.unwrap().is_none());
    assert!(broker.last(store, "a.b.1").await.unwrap().is_none());
    let mut sequences = Vec::new();
    for (subject, payload) in [("a.b.1", "0"), ("a.c.1", "1"), ("a.b.1", "2")] {
        let published = broker.publish(store, message(subject, payload)).await;
        sequences.push(published.unwrap());
    }
    let last = broker.last(store, "a.b.1").await.unwrap().unwrap();
    assert_eq!((last.seq, &last.payload[..]), (sequences[2], &b"2"[..]));
    let last = broker.last(store, "a.c.1").await.unwrap().unwrap();
    assert_eq!(last.seq, sequences[1]);
    assert!(broker.last(store, "a.d.1").await.unwrap().is_none());

    assert_eq!(broker.delete(store, sequences[1]).await, Ok(true));
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(next) = broker.next(store, from).await.unwrap() {
        assert!(next.seq >= from);
        from = next.seq + 1;
        found.push(next.seq);
    }
    assert_eq!(found, [sequences[0], sequences[2]]);
}

async fn a_write_expects_a_sequence<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    for store in [Store::Claims, Store::Kept] {
        let conflict = Err(PublishError::Conflict);
        let first = broker.publish(store, expecting("job-1", "a", 0)).await;
        let first = first.unwrap();
        assert_eq!(
            broker.publish(store, expecting("job-1", "b", 0)).await,
            conflict
        );
        // Another key has a sequence of its own.
        let other = broker
            .publish(store, expecting("job-2", "c", 0))
            .await
            .unwrap();
        assert_eq!(
            broker.publish(store, expecting("job-1", "d", other)).await,
            conflict
        );
        let second = broker.publish(store, expecting("job-1", "e", first)).await;
        let second = second.unwrap();
        assert_eq!(
            broker.publish(store, expecting("job-1", "f", first)).await,
            conflict
        );
        let last = broker.last(store, "job-1").await.unwrap().unwrap();
        assert_eq!((last.seq, &last.payload[..]), (second, &b"e"[..]));
        // A key keeps one message.
        assert!(broker.get(store, first).await.unwrap().is_none());

        assert_eq!(broker.delete(store, second).await, Ok(true));
        assert_eq!(
            broker.publish(store, expecting("job-1", "g", second)).await,
            conflict
        );
        let third = broker
            .publish(store, expecting("job-1", "h", 0))
            .await
            .unwrap();
        assert!(third > second);
    }
}

async fn a_second_message_of_one_id_is_not_stored<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let with_id = |id: &str, payload: &str| Outgoing {
        id: Some(id.into()),
        ..message("a.b.1", payload)
    };
    for store in [Store::Jobs, Store::Results] {
        let subject_of = |outgoing: Outgoing| Outgoing {
            subject: "client1".into(),
            ..outgoing
        };
        let first = broker
            .publish(store, subject_of(with_id("x", "1")))
            .await
            .unwrap();
        let again = broker
            .publish(store, subject_of(with_id("x", "2")))
            .await
            .unwrap();
        assert_eq!(again, first);
        let other = broker
            .publish(store, subject_of(with_id("y", "3")))
            .await
            .unwrap();
        assert!(other > first);
        assert_eq!(broker.info(store).await.unwrap().messages, 2);
        let stored = broker.get(store, first).await.unwrap().unwrap();
        assert_eq!(stored.payload, "1");
        // The id is told to the server, not to the reader.
        assert_eq!(stored.headers.len(), 1);
    }
}

async fn a_full_store_refuses_and_keeps_what_it_has<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    // Small ones: servers before 2.10.5 count them wrongly.
    let payload = Bytes::from(vec![7; 1_000]);
    let job = || Outgoing {
        payload: payload.clone(),
        ..message("a.b.1", "")
    };
    let mut sequences = Vec::new();
    let refused = loop {
        match broker.publish(Store::Jobs, job()).await {
            Ok(seq) => sequences.push(seq),
            Err(error) => break error,
        }
        assert!(sequences.len() < 2_000, "the store is never full");
    };
    assert_eq!(refused, PublishError::Full);
    assert!((600..=1_024).contains(&sequences.len()));
    let info = broker.info(Store::Jobs).await.unwrap();
    assert_eq!(info.messages, sequences.len() as u64);
    for seq in &sequences {
        let stored = broker.get(Store::Jobs, *seq).await.unwrap().unwrap();
        assert_eq!(stored.payload, payload);
    }
    // The other stores take messages while the queue is full.
    broker
        .publish(Store::Claims, message("k", "v"))
        .await
        .unwrap();
    broker
        .publish(Store::Results, message("client1", "v"))
        .await
        .unwrap();
    // There is room again.
    assert_eq!(broker.delete(Store::Jobs, sequences[0]).await, Ok(true));
    let next = broker.publish(Store::Jobs, job()).await.unwrap();
    assert!(next > *sequences.last().unwrap());
}

async fn a_message_that_is_too_large_is_refused<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let largest = broker.max_payload();
    assert!(largest >= 512 << 10);
    let large = Outgoing {
        payload: vec![0; largest + 1].into(),
        ..message("a.b.1", "")
    };
    let refused = broker.publish(Store::Jobs, large).await;
    assert_eq!(refused, Err(PublishError::TooLarge));
    assert_eq!(broker.info(Store::Jobs).await.unwrap().messages, 0);
}

async fn keys_of_the_living_vanish<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let start = Instant::now();
    broker
        .publish(Store::Live, message("w.one", "1"))
        .await
        .unwrap();
    broker
        .publish(Store::Claims, message("k", "1"))
        .await
        .unwrap();
    assert!(broker.last(Store::Live, "w.one").await.unwrap().is_some());
    until(|| async { broker.last(Store::Live, "w.one").await.unwrap().is_none() }).await;
    // A little less: the clocks need not agree.
    assert!(start.elapsed() >= settings().live_ttl() * 9 / 10);
    assert!(broker.last(Store::Claims, "k").await.unwrap().is_some());
}

async fn an_acknowledged_message_leaves_its_queue<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let consumer = jobs("a.b.1");
    broker.ensure_consumer(&consumer).await.unwrap();
    let seq = broker
        .publish(Store::Jobs, message("a.b.1", "x"))
        .await
        .unwrap();
    let mut puller = broker.puller().await.unwrap();
    let delivery = take(&mut puller, &consumer).await;
    assert_eq!(delivery.consumer, consumer);
    assert_eq!(delivery.count, 1);
    assert_eq!(delivery.message.seq, seq);
    assert_eq!(delivery.message.subject, "a.b.1");
    assert_eq!(delivery.message.payload, "x");
    let stored = broker.get(Store::Jobs, seq).await.unwrap().unwrap();
    assert_eq!(delivery.message.time, stored.time);
    assert_eq!(delivery.message.headers, stored.headers);
    broker.ack(&delivery.token, Ack::Done).await.unwrap();
    assert!(broker.get(Store::Jobs, seq).await.unwrap().is_none());
    assert_eq!(broker.info(Store::Jobs).await.unwrap().messages, 0);
    // Once more: it is answered, and nothing happens.
    broker.ack(&delivery.token, Ack::Done).await.unwrap();
}

async fn a_message_that_was_seen_leaves_its_store<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let consumer = jobs("a.b.1");
    broker.ensure_consumer(&consumer).await.unwrap();
    let message = message("a.b.1", "x");
    broker.publish(Store::Jobs, message).await.unwrap();
    let mut puller = broker.puller().await.unwrap();
    let delivery = take(&mut puller, &consumer).await;
    broker.ack(&delivery.token, Ack::Seen).await.unwrap();
    until(async || broker.info(Store::Jobs).await.unwrap().messages == 0).await;
}

async fn a_lease_that_runs_out_brings_the_message_back<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let consumer = jobs("a.b.1");
    broker.ensure_consumer(&consumer).await.unwrap();
    broker
        .publish(Store::Jobs, message("a.b.1", "x"))
        .await
        .unwrap();
    let mut puller = broker.puller().await.unwrap();
    let first = take(&mut puller, &consumer).await;
    let start = Instant::now();
    let mut other = rig.connect().await.puller().await.unwrap();
    for count in 2..=3 {
        let again = take(&mut other, &consumer).await;
        assert_eq!(again.count, count);
        assert_eq!(again.message.seq, first.message.seq);
        assert_ne!(again.token, first.token);
        // Half a lease less, for a delivery that was long on its way.
        let leases = u32::try_from(count - 1).unwrap();
        assert!(start.elapsed() >= LEASE * leases - LEASE / 2);
    }
}

async fn an_extended_lease_does_not_run_out<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let consumer = jobs("a.b.1");
    broker.ensure_consumer(&consumer).await.unwrap();
    broker
        .publish(Store::Jobs, message("a.b.1", "x"))
        .await
        .unwrap();
    let mut puller = broker.puller().await.unwrap();
    let first = take(&mut puller, &consumer).await;
    puller.request(&consumer, 1, EXPIRES);
    let start = Instant::now();
    while start.elapsed() < LEASE * 2 {
        let extended = Instant::now();
        broker.ack(&first.token, Ack::Extend).await.unwrap();
        if timeout(LEASE / 4, puller.next()).await.is_ok() {
            // Only if this test was not slow itself.
            assert!(
                extended.elapsed() > LEASE / 2,
                "delivered in spite of the lease"
            );
            return;
        }
    }
    let again = delivery(&mut puller).await;
    assert_eq!(again.count, 2);
}

async fn a_message_that_is_given_back_comes_again<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let consumer = jobs("a.b.1");
    broker.ensure_consumer(&consumer).await.unwrap();
    broker
        .publish(Store::Jobs, message("a.b.1", "x"))
        .await
        .unwrap();
    let mut puller = broker.puller().await.unwrap();
    let first = take(&mut puller, &consumer).await;
    let start = Instant::now();
    broker
        .ack(&first.token, Ack::Back(Duration::ZERO))
        .await
        .unwrap();
    let second = take(&mut puller, &consumer).await;
    assert_eq!(second.count, 2);
    assert!(start.elapsed() < LEASE, "it came before its lease ran out");
    let start = Instant::now();
    let delay = LEASE / 2;
    broker.ack(&second.token, Ack::Back(delay)).await.unwrap();
    let third = take(&mut puller, &consumer).await;
    assert_eq!((third.count, third.message.seq), (3, first.message.seq));
    assert!(start.elapsed() >= delay * 9 / 10, "{:?}", start.elapsed());
}

async fn a_deleted_message_is_not_delivered_again<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let consumer = jobs("a.b.1");
    broker.ensure_consumer(&consumer).await.unwrap();
    let mut sequences = Vec::new();
    for _ in 0..2 {
        sequences.push(
            broker
                .publish(Store::Jobs, message("a.b.1", "x"))
                .await
                .unwrap(),
        );
    }
    let mut puller = broker.puller().await.unwrap();
    let first = take(&mut puller, &consumer).await;
    // One that is delivered, and one that waits.
    for seq in sequences {
        assert_eq!(broker.delete(Store::Jobs, seq).await, Ok(true));
    }
    broker
        .ack(&first.token, Ack::Back(Duration::ZERO))
        .await
        .unwrap();
    puller.request(&consumer, 1, LEASE + LEASE / 2);
    match pulled(&mut puller).await {
        Pulled::Ended { wanted: 1, .. } => {}
        other => panic!("{other:?}"),
    }
    let listed = broker.consumers().await.unwrap();
    assert_eq!((listed[0].waiting, listed[0].delivered), (0, 0));
}

async fn a_request_ends_when_it_is_filled<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let consumer = jobs("a.b.1");
    broker.ensure_consumer(&consumer).await.unwrap();
    let mut puller = broker.puller().await.unwrap();
    puller.request(&consumer, 3, EXPIRES);
    for payload in ["0", "1", "2", "3"] {
        broker
            .publish(Store::Jobs, message("a.b.1", payload))
            .await
            .unwrap();
    }
    for payload in ["0", "1", "2"] {
        match pulled(&mut puller).await {
            Pulled::Delivery(delivery) => assert_eq!(delivery.message.payload, payload),
            other => panic!("{other:?}"),
        }
    }
    match pulled(&mut puller).await {
        Pulled::Ended {
            consumer: of,
            wanted,
        } => assert_eq!((of, wanted), (consumer.clone(), 0)),
        other => panic!("{other:?}"),
    }
    // Nothing more was asked for.
    assert!(timeout(QUIET, puller.next()).await.is_err());
    let last = take(&mut puller, &consumer).await;
    assert_eq!(last.message.payload, "3");
}

async fn a_request_ends_by_its_time<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let (one, other) = (jobs("a.b.1"), jobs("a.c.1"));
    for consumer in [&one, &other] {
        broker.ensure_consumer(consumer).await.unwrap();
    }
    broker
        .publish(Store::Jobs, message("a.b.1", "x"))
        .await
        .unwrap();
    let mut puller = broker.puller().await.unwrap();
    let start = Instant::now();
    let expires = Duration::from_millis(500);
    puller.request(&one, 5, expires);
    puller.request(&other, 2, expires);
    let mut ended = Vec::new();
    let mut delivered = 0;
    while ended.len() < 2 {
        match pulled(&mut puller).await {
            Pulled::Delivery(_) => delivered += 1,
            Pulled::Ended { consumer, wanted } => ended.push((consumer, wanted)),
            other => panic!("{other:?}"),
        }
    }
    ended.sort();
    assert_eq!(ended, [(one, 4), (other, 2)]);
    assert_eq!(delivered, 1);
    assert!(start.elapsed() >= expires * 9 / 10);
}

async fn a_stopped_request_ends_soon_and_loses_nothing<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let consumer = jobs("a.b.1");
    broker.ensure_consumer(&consumer).await.unwrap();
    let mut puller = broker.puller().await.unwrap();
    puller.request(&consumer, 100, PATIENCE);
    // It goes on for longer than a server is asked at a time.
    assert!(timeout(LEASE + LEASE / 5, puller.next()).await.is_err());
    let start = Instant::now();
    puller.stop();
    let mut published = 0;
    let mut came = 0;
    let wanted = loop {
        // Fewer than were asked for, so that the request is not filled.
        if published < 50 {
            let job = broker.publish(Store::Jobs, message("a.b.1", "x")).await;
            job.unwrap();
            published += 1;
        }
        match timeout(Duration::from_millis(50), puller.next()).await {
            Ok(Pulled::Delivery(delivery)) => {
                assert_eq!(delivery.count, 1);
                came += 1;
            }
            Ok(Pulled::Ended { wanted, .. }) => break wanted,
            Ok(other) => panic!("{other:?}"),
            Err(_) => assert!(start.elapsed() < PATIENCE / 4, "it does not end"),
        }
    };
    assert_eq!(came + wanted, 100);
    // What did not come waits, and nothing is lost on the way.
    until(|| async {
        let listed = broker.consumers().await.unwrap();
        (listed[0].waiting, listed[0].delivered, listed[0].pulls)
            == (published - came as u64, came as u64, 0)
    })
    .await;
}

async fn a_consumer_that_is_gone_is_reported<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let consumer = jobs("a.b.1");
    let mut puller = broker.puller().await.unwrap();
    // It was never there. An engine may be silent about it until the request's time is over.
    puller.request(&consumer, 1, Duration::from_millis(100));
    gone(&mut puller, &consumer).await;
    // It is deleted while a request waits.
    broker.ensure_consumer(&consumer).await.unwrap();
    puller.request(&consumer, 1, EXPIRES);
    until(|| async { broker.consumers().await.unwrap()[0].pulls == 1 }).await;
    broker.delete_consumer(&consumer).await.unwrap();
    gone(&mut puller, &consumer).await;
    broker.delete_consumer(&consumer).await.unwrap();
    // It can be made again, and has all messages that are there.
    broker
        .publish(Store::Jobs, message("a.b.1", "x"))
        .await
        .unwrap();
    broker.ensure_consumer(&consumer).await.unwrap();
    assert_eq!(take(&mut puller, &consumer).await.count, 1);
}

async fn each_message_is_delivered_to_one_puller<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let consumer = jobs("a.b.1");
    broker.ensure_consumer(&consumer).await.unwrap();
    broker.ensure_consumer(&consumer).await.unwrap();
    let count = 20;
    let mut pullers = Vec::new();
    for _ in 0..2 {
        let mut puller = rig.connect().await.puller().await.unwrap();
        puller.request(&consumer, count, Duration::from_secs(1));
        pullers.push(puller);
    }
    for n in 0..count {
        let payload = n.to_string();
        broker
            .publish(Store::Jobs, message("a.b.1", &payload))
            .await
            .unwrap();
    }
    let mut seen = Vec::new();
    for mut puller in pullers {
        loop {
            match pulled(&mut puller).await {
                Pulled::Delivery(delivery) => {
                    assert_eq!(delivery.count, 1);
                    broker.ack(&delivery.token, Ack::Done).await.unwrap();
                    seen.push(delivery.message.seq);
                }
                Pulled::Ended { .. } => break,
                other => panic!("{other:?}"),
            }
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

async fn consumers_are_listed<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    assert!(broker.consumers().await.unwrap().is_empty());
    let (busy, idle) = (jobs("q.busy.1"), jobs("q.idle.1"));
    for consumer in [&busy, &idle] {
        broker.ensure_consumer(consumer).await.unwrap();
    }
    for _ in 0..3 {
        broker
            .publish(Store::Jobs, message("q.busy.1", "x"))
            .await
            .unwrap();
    }
    let mut puller = broker.puller().await.unwrap();
    take(&mut puller, &busy).await;
    puller.request(&idle, 1, EXPIRES);
    until(|| async {
        let mut listed = broker.consumers().await.unwrap();
        listed.sort_by(|a, b| a.consumer.cmp(&b.consumer));
        let found: Vec<_> = listed
            .iter()
            .map(|c| (c.consumer.clone(), c.waiting, c.delivered, c.pulls))
            .collect();
        found == [(busy.clone(), 2, 1, 0), (idle.clone(), 0, 0, 1)]
    })
    .await;
}

async fn outcomes_reach_their_submitter_only<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let mut pullers = Vec::new();
    for client in ["client1", "client2"] {
        let consumer = Consumer::Results(client.into());
        broker.ensure_consumer(&consumer).await.unwrap();
        pullers.push((broker.puller().await.unwrap(), consumer));
        broker
            .publish(Store::Results, message(client, client))
            .await
            .unwrap();
    }
    for (puller, consumer) in &mut pullers {
        let outcome = take(puller, consumer).await;
        assert_eq!(outcome.consumer, *consumer);
        assert_eq!(outcome.message.subject, consumer.subject());
        assert_eq!(outcome.message.payload, consumer.subject().to_owned());
        broker.ack(&outcome.token, Ack::Done).await.unwrap();
    }
    assert_eq!(broker.info(Store::Results).await.unwrap().messages, 0);
    assert!(
        broker.consumers().await.unwrap().is_empty(),
        "these are of another store"
    );
}

async fn watched(watch: &mut impl Watch) -> Stored {
    let next = timeout(PATIENCE, watch.next()).await.expect("in time");
    next.expect("the watch goes on")
}

async fn a_watch_tells_the_last_and_the_new_messages<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let store = Store::Kept;
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        broker.publish(store, message(key, value)).await.unwrap();
    }
    let mut watch = broker.watch(store, true).await.unwrap();
    let first = watched(&mut watch).await;
    let second = watched(&mut watch).await;
    assert_eq!((&*first.subject, &first.payload[..]), ("b", &b"2"[..]));
    assert_eq!((&*second.subject, &second.payload[..]), ("a", &b"3"[..]));
    assert_eq!(second.headers, [("Fp-Test".into(), "of 3".into())]);
    assert!(second.time >= first.time && second.seq > first.seq);
    assert!(timeout(QUIET, watch.next()).await.is_err());
    for n in 0..50 {
        let value = n.to_string();
        let seq = broker.publish(store, message("c", &value)).await.unwrap();
        let told = watched(&mut watch).await;
        assert_eq!((told.seq, &told.payload[..]), (seq, value.as_bytes()));
    }
}

async fn a_watch_of_new_messages_tells_no_old_ones<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    broker
        .publish(Store::Live, message("w.old", "1"))
        .await
        .unwrap();
    let mut watch = broker.watch(Store::Live, false).await.unwrap();
    broker
        .publish(Store::Live, message("w.new", "2"))
        .await
        .unwrap();
    assert_eq!(watched(&mut watch).await.subject, "w.new");
}

async fn a_watch_tells_deletions<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    broker
        .publish(Store::Live, message("w.one", "1"))
        .await
        .unwrap();
    let mut watch = broker.watch(Store::Live, true).await.unwrap();
    assert!(!watched(&mut watch).await.is_deletion());
    let mark = Outgoing {
        subject: "w.one".into(),
        headers: vec![(super::OPERATION.into(), "DEL".into())],
        ..Outgoing::default()
    };
    broker.publish(Store::Live, mark).await.unwrap();
    let told = watched(&mut watch).await;
    assert!(told.is_deletion() && told.payload.is_empty());
    assert_eq!(told.subject, "w.one");
    let last = broker.last(Store::Live, "w.one").await.unwrap().unwrap();
    assert!(last.is_deletion());
}

async fn two_watches_tell_the_same<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let other = rig.connect().await;
    let mut watches = [
        broker.watch(Store::Live, true).await.unwrap(),
        broker.watch(Store::Live, true).await.unwrap(),
    ];
    let mut third = other.watch(Store::Live, true).await.unwrap();
    for n in 0..10 {
        let key = format!("w.{n}");
        broker
            .publish(Store::Live, message(&key, "x"))
            .await
            .unwrap();
    }
    for n in 0..10 {
        for watch in &mut watches {
            assert_eq!(watched(watch).await.subject, format!("w.{n}"));
        }
        assert_eq!(watched(&mut third).await.subject, format!("w.{n}"));
    }
}

async fn notices_arrive<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let other = rig.connect().await;
    let subjects = ["ctl.me".to_owned(), "ctl.all".to_owned()];
    let mut inbox = broker.inbox(&subjects).await.unwrap();
    for (subject, payload) in [("ctl.me", "1"), ("ctl.other", "2"), ("ctl.all", "3")] {
        other.notify(subject, Bytes::from(payload)).await.unwrap();
    }
    let mut came = Vec::new();
    for _ in 0..2 {
        let notice = timeout(PATIENCE, inbox.next()).await.unwrap();
        assert_eq!(notice.reply, None);
        came.push((notice.subject, notice.payload));
    }
    came.sort();
    let wanted = [("ctl.all", "3"), ("ctl.me", "1")];
    assert_eq!(came, wanted.map(|(s, p)| (s.to_owned(), Bytes::from(p))));
    assert!(timeout(QUIET, inbox.next()).await.is_err());
    // Two listeners both hear it.
    let mut second = other.inbox(&subjects[1..]).await.unwrap();
    broker.notify("ctl.all", Bytes::from("4")).await.unwrap();
    for inbox in [&mut inbox, &mut second] {
        let notice = timeout(PATIENCE, inbox.next()).await.unwrap();
        assert_eq!(notice.payload, "4");
    }
}

async fn a_question_is_answered<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let other = rig.connect().await;
    let mut inbox = broker.inbox(&["ctl.me".to_owned()]).await.unwrap();
    let answering = async {
        let notice = timeout(PATIENCE, inbox.next()).await.unwrap();
        assert_eq!(notice.payload, "yours?");
        let reply = notice.reply.expect("the asker waits");
        broker
            .notify_reply(&reply, Bytes::from("mine"))
            .await
            .unwrap();
    };
    let asking = other.ask("ctl.me", Bytes::from("yours?"));
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!(answer, Ok(Some(Bytes::from("mine"))));
}

async fn a_question_without_a_listener_has_no_answer<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let question = || broker.ask("ctl.me", Bytes::from("yours?"));
    assert_eq!(question().await, Ok(None));
    // A listener that is gone is none.
    let inbox = broker.inbox(&["ctl.me".to_owned()]).await.unwrap();
    drop(inbox);
    assert_eq!(question().await, Ok(None));
    // One that says nothing: it is unknown, after a bounded time.
    let _inbox = broker.inbox(&["ctl.me".to_owned()]).await.unwrap();
    let start = Instant::now();
    let answer = question().await;
    assert!(
        matches!(answer, Err(BrokerError::Unreachable(_))),
        "{answer:?}"
    );
    assert!(start.elapsed() >= settings().request_timeout() * 9 / 10);
}

async fn blobs_come_back<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let max = 1 << 20;
    assert_eq!(broker.get_blob("none", max).await, Ok(None));
    assert!(broker.blobs().await.unwrap().is_empty());
    broker.delete_blob("none").await.unwrap();
    for (name, size) in [("a.1", 0), ("r.x-1.nonce", 1), ("b", 300_000)] {
        let data: Bytes = (0..size).map(|n| (n % 251) as u8).collect();
        broker.put_blob(name, data.clone()).await.unwrap();
        assert_eq!(broker.get_blob(name, max).await, Ok(Some(data)), "{name}");
    }
    let mut listed = broker.blobs().await.unwrap();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    let found: Vec<_> = listed.iter().map(|b| (&*b.name, b.size)).collect();
    assert_eq!(found, [("a.1", 0), ("b", 300_000), ("r.x-1.nonce", 1)]);
    assert!(listed[0].time > ServerTime(0));
    // It is not taken into memory.
    let refused = broker.get_blob("b", 299_999).await;
    assert!(
        matches!(refused, Err(BrokerError::Refused(_))),
        "{refused:?}"
    );
    // Another one under the same name replaces it.
    broker.put_blob("b", Bytes::from("small")).await.unwrap();
    assert_eq!(
        broker.get_blob("b", 5).await,
        Ok(Some(Bytes::from("small")))
    );
    assert_eq!(broker.blobs().await.unwrap().len(), 3);
    for name in ["a.1", "b", "r.x-1.nonce"] {
        broker.delete_blob(name).await.unwrap();
        assert_eq!(broker.get_blob(name, max).await, Ok(None));
    }
    assert!(broker.blobs().await.unwrap().is_empty());
}

async fn a_large_blob_comes_back<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let size = 64 << 20;
    let mut rng = fastrand::Rng::with_seed(1);
    let data: Bytes = std::iter::repeat_with(|| rng.u64(..).to_le_bytes())
        .take(size / 8)
        .flatten()
        .collect();
    broker.put_blob("large", data.clone()).await.unwrap();
    let back = broker.get_blob("large", size).await.unwrap().unwrap();
    assert!(back == data, "the bytes differ");
}

async fn the_state_of_a_store_is_told<R: Rig>(rig: R) {
    let broker = ready(&rig).await;
    let store = Store::Jobs;
    let fresh = broker.info(store).await.unwrap();
    assert!(fresh.created > ServerTime(0));
    assert_eq!(
        (fresh.first, fresh.last, fresh.messages, fresh.bytes),
        (1, 0, 0, 0)
    );
    for n in 1..=3 {
        broker
            .publish(store, message("a.b.1", &n.to_string()))
            .await
            .unwrap();
    }
    let three = broker.info(store).await.unwrap();
    assert_eq!((three.first, three.last, three.messages), (1, 3, 3));
    assert!(three.bytes > 0 && three.created == fresh.created);
    broker.delete(store, 1).await.unwrap();
    let two = broker.info(store).await.unwrap();
    assert_eq!((two.first, two.last, two.messages), (2, 3, 2));
    for seq in 2..=3 {
        broker.delete(store, seq).await.unwrap();
    }
    let none = broker.info(store).await.unwrap();
    assert_eq!((none.first, none.last, none.messages), (4, 3, 0));
}

async fn settings_are_those_of_the_first_maker<R: Rig>(rig: R) {
    ready(&rig).await;
    let other = rig.connect().await;
    let wanted = Settings {
        lease: Duration::from_secs(77),
        replicas: 1,
        queue_bytes: 5 << 20,
    };
    for create in [true, false] {
        assert_eq!(other.ensure_stores(&wanted, create).await, Ok(settings()));
    }
}

async fn missing_stores_are_reported<R: Rig>(rig: R) {
    let broker = rig.connect().await;
    let missing = broker.ensure_stores(&settings(), false).await;
    assert!(
        matches!(missing, Err(BrokerError::Missing(_))),
        "{missing:?}"
    );
    let publish = broker.publish(Store::Jobs, message("a.b.1", "x")).await;
    assert!(
        matches!(publish, Err(PublishError::Other(BrokerError::Missing(_)))),
        "{publish:?}"
    );
    let consumer = broker.ensure_consumer(&jobs("a.b.1")).await;
    assert!(
        matches!(consumer, Err(BrokerError::Missing(_))),
        "{consumer:?}"
    );
    let get = broker.get(Store::Jobs, 1).await;
    assert!(matches!(get, Err(BrokerError::Missing(_))), "{get:?}");
    let token = Token("$JS.ACK.none.none.1.1.1.1.0".into());
    assert!(broker.ack(&token, Ack::Done).await.is_err());
}
