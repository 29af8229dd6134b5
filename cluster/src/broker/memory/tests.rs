//! What the engine promises, without faults.

use std::future::Future;

use super::*;

const LEASE: Duration = Duration::from_secs(30);

fn queue() -> Consumer {
    Consumer::Jobs("default.t.1".into())
}

fn job(id: &str) -> Outgoing {
    Outgoing {
        subject: "default.t.1".to_owned(),
        payload: Bytes::copy_from_slice(id.as_bytes()),
        id: Some(id.to_owned()),
        ..Outgoing::default()
    }
}

fn key(name: &str, value: &str, expect: Option<u64>) -> Outgoing {
    Outgoing {
        subject: name.to_owned(),
        payload: Bytes::copy_from_slice(value.as_bytes()),
        expect,
        ..Outgoing::default()
    }
}

/// Runs a test under a paused clock. A hang ends it, because the clock then jumps.
fn run<F: Future<Output = ()>>(test: impl FnOnce(Memory) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let memory = MemoryBroker::new().connect("test");
        let made = memory.ensure_stores(&Settings::default(), true).await;
        made.unwrap();
        let hour = Duration::from_secs(3600);
        tokio::time::timeout(hour, test(memory)).await.unwrap();
    });
}

async fn delivery(puller: &mut MemoryPuller) -> (String, u64, Token) {
    loop {
        match puller.next().await {
            Pulled::Delivery(delivery) => {
                let text = String::from_utf8(delivery.message.payload.to_vec()).unwrap();
                return (text, delivery.count, delivery.token);
            }
            Pulled::Ended { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_job_is_delivered_once_and_leaves_when_it_is_acknowledged() {
    run(|memory| async move {
        memory.ensure_consumer(&queue()).await.unwrap();
        let mut puller = memory.puller().await.unwrap();
        puller.request(&queue(), 2, LEASE);
        assert_eq!(memory.publish(Store::Jobs, job("a")).await, Ok(1));
        let (text, count, token) = delivery(&mut puller).await;
        assert_eq!((&*text, count), ("a", 1));
        memory.ack(&token, Ack::Done).await.unwrap();
        assert!(memory.get(Store::Jobs, 1).await.unwrap().is_none());
        let info = memory.info(Store::Jobs).await.unwrap();
        assert_eq!(
            (info.first, info.last, info.messages, info.bytes),
            (2, 1, 0, 0)
        );
        let ended = puller.next().await;
        assert!(
            matches!(ended, Pulled::Ended { wanted: 1, .. }),
            "{ended:?}"
        );
    });
}

#[test]
fn a_lease_that_runs_out_gives_the_job_to_another() {
    run(|memory| async move {
        memory.ensure_consumer(&queue()).await.unwrap();
        let mut first = memory.puller().await.unwrap();
        let mut second = memory.puller().await.unwrap();
        memory.publish(Store::Jobs, job("a")).await.unwrap();
        first.request(&queue(), 1, LEASE);
        let (_, _, late) = delivery(&mut first).await;
        let start = Instant::now();
        tokio::time::advance(LEASE / 2).await;
        memory.ack(&late, Ack::Extend).await.unwrap();
        second.request(&queue(), 1, LEASE * 10);
        let (text, count, _) = delivery(&mut second).await;
        assert_eq!((&*text, count), ("a", 2));
        assert!(start.elapsed() >= LEASE * 3 / 2, "{:?}", start.elapsed());
        assert!(start.elapsed() < LEASE * 2, "{:?}", start.elapsed());
        // A late acknowledgement counts.
        memory.ack(&late, Ack::Done).await.unwrap();
        assert!(memory.get(Store::Jobs, 1).await.unwrap().is_none());
    });
}

#[test]
fn a_waiting_puller_learns_of_leases_that_began_after_it() {
    run(|memory| async move {
        memory.ensure_consumer(&queue()).await.unwrap();
        let mut first = memory.puller().await.unwrap();
        let mut second = memory.puller().await.unwrap();
        first.request(&queue(), 1, LEASE);
        second.request(&queue(), 1, LEASE * 100);
        let both = async {
            memory.publish(Store::Jobs, job("a")).await.unwrap();
            delivery(&mut first).await;
            // It dies.
            drop(first);
        };
        let start = Instant::now();
        let ((_, count, _), ()) = tokio::join!(delivery(&mut second), both);
        assert_eq!(count, 2);
        assert!(start.elapsed() < LEASE * 2, "{:?}", start.elapsed());
    });
}

#[test]
fn a_job_that_is_given_back_comes_again_after_its_delay() {
    run(|memory| async move {
        memory.ensure_consumer(&queue()).await.unwrap();
        let mut puller = memory.puller().await.unwrap();
        memory.publish(Store::Jobs, job("a")).await.unwrap();
        puller.request(&queue(), 9, LEASE * 10);
        let (_, _, token) = delivery(&mut puller).await;
        let start = Instant::now();
        let delay = Duration::from_secs(7);
        let (again, back) =
            tokio::join!(delivery(&mut puller), memory.ack(&token, Ack::Back(delay)),);
        back.unwrap();
        assert_eq!(again.1, 2);
        assert!(start.elapsed() >= delay && start.elapsed() < delay * 2);
        memory
            .ack(&again.2, Ack::Back(Duration::ZERO))
            .await
            .unwrap();
        assert_eq!(delivery(&mut puller).await.1, 3);
    });
}

#[test]
fn an_expectation_is_of_the_last_message_of_the_subject() {
    run(|memory| async move {
        let publish = |value: &'static str, expect| {
            memory.publish(Store::Claims, key("k", value, Some(expect)))
        };
        assert_eq!(publish("a", 0).await, Ok(1));
        assert_eq!(publish("b", 0).await, Err(PublishError::Conflict));
        assert_eq!(publish("b", 1).await, Ok(2));
        let last = memory.last(Store::Claims, "k").await.unwrap().unwrap();
        assert_eq!((&*last.payload, last.seq), (&b"b"[..], 2));
        // One message each: the first is gone.
        assert!(memory.get(Store::Claims, 1).await.unwrap().is_none());
        assert_eq!(memory.delete(Store::Claims, 2).await, Ok(true));
        assert_eq!(memory.delete(Store::Claims, 2).await, Ok(false));
        assert!(memory.last(Store::Claims, "k").await.unwrap().is_none());
        assert_eq!(publish("c", 0).await, Ok(3));
    });
}

#[test]
fn an_id_is_remembered_for_two_minutes() {
    run(|memory| async move {
        assert_eq!(memory.publish(Store::Jobs, job("a")).await, Ok(1));
        assert_eq!(memory.publish(Store::Jobs, job("a")).await, Ok(1));
        memory.delete(Store::Jobs, 1).await.unwrap();
        assert_eq!(memory.publish(Store::Jobs, job("a")).await, Ok(1));
        tokio::time::advance(Duration::from_secs(121)).await;
        assert_eq!(memory.publish(Store::Jobs, job("a")).await, Ok(2));
    });
}

#[test]
fn a_full_store_refuses_and_takes_again() {
    run(|_| async move {
        let memory = MemoryBroker::new().connect("small");
        let settings = Settings {
            queue_bytes: 1500,
            ..Settings::default()
        };
        memory.ensure_stores(&settings, true).await.unwrap();
        let large = |id: &str| Outgoing {
            payload: Bytes::from(vec![0; 1000]),
            ..job(id)
        };
        assert_eq!(memory.publish(Store::Jobs, large("a")).await, Ok(1));
        let full = memory.publish(Store::Jobs, large("b")).await;
        assert_eq!(full, Err(PublishError::Full));
        memory.delete(Store::Jobs, 1).await.unwrap();
        assert_eq!(memory.publish(Store::Jobs, large("b")).await, Ok(2));
        let huge = Outgoing {
            payload: Bytes::from(vec![0; MAX_PAYLOAD]),
            ..job("c")
        };
        let refused = memory.publish(Store::Jobs, huge).await;
        assert_eq!(refused, Err(PublishError::TooLarge));
    });
}

#[test]
fn a_watch_shows_the_last_of_each_key_and_then_all_that_is_new() {
    run(|memory| async move {
        for value in ["a", "b"] {
            memory
                .publish(Store::Live, key("k", value, None))
                .await
                .unwrap();
        }
        memory
            .publish(Store::Live, key("l", "c", None))
            .await
            .unwrap();
        let mut watch = memory.watch(Store::Live, true).await.unwrap();
        let mut new = memory.watch(Store::Live, false).await.unwrap();
        assert_eq!(&*watch.next().await.unwrap().payload, b"b");
        assert_eq!(&*watch.next().await.unwrap().payload, b"c");
        let (seen, also, published) = tokio::join!(
            watch.next(),
            new.next(),
            memory.publish(Store::Live, key("k", "d", None)),
        );
        published.unwrap();
        assert_eq!(&*seen.unwrap().payload, b"d");
        assert_eq!(&*also.unwrap().payload, b"d");
        // The server forgets keys that are not written.
        tokio::time::advance(Settings::default().live_ttl()).await;
        assert!(memory.last(Store::Live, "k").await.unwrap().is_none());
    });
}

#[test]
fn notices_reach_all_that_listen_and_a_question_is_answered() {
    run(|memory| async move {
        let silence = memory.ask("ctl.w", Bytes::new()).await;
        assert_eq!(silence, Ok(None));
        let mut inbox = memory
            .inbox(&["ctl.w".to_owned(), "ctl.all".to_owned()])
            .await
            .unwrap();
        memory.notify("ctl.x", Bytes::new()).await.unwrap();
        memory
            .notify("ctl.all", Bytes::from("hello"))
            .await
            .unwrap();
        assert_eq!(&*inbox.next().await.payload, b"hello");
        let answer = async {
            let question = inbox.next().await;
            let reply = question.reply.unwrap();
            memory.notify_reply(&reply, "yes".into()).await.unwrap();
        };
        let (asked, ()) = tokio::join!(memory.ask("ctl.w", Bytes::new()), answer);
        assert_eq!(asked, Ok(Some(Bytes::from("yes"))));
        // Nothing answers.
        let asked = memory.ask("ctl.w", Bytes::new()).await;
        assert!(
            matches!(asked, Err(BrokerError::Unreachable(_))),
            "{asked:?}"
        );
        assert!(lock(&memory.shared.space).is_quiet());
    });
}

#[test]
fn blobs_come_back() {
    run(|memory| async move {
        memory.put_blob("b", Bytes::from("blob")).await.unwrap();
        assert_eq!(memory.get_blob("b", 9).await, Ok(Some(Bytes::from("blob"))));
        let refused = memory.get_blob("b", 3).await;
        assert!(
            matches!(refused, Err(BrokerError::Refused(_))),
            "{refused:?}"
        );
        assert_eq!(memory.blobs().await.unwrap().len(), 1);
        memory.delete_blob("b").await.unwrap();
        assert_eq!(memory.get_blob("b", 9).await, Ok(None));
    });
}

#[test]
fn what_is_missing_is_said() {
    run(|memory| async move {
        let other = MemoryBroker::new().connect("other");
        let missing = other.ensure_stores(&Settings::default(), false).await;
        assert!(
            matches!(missing, Err(BrokerError::Missing(_))),
            "{missing:?}"
        );
        let missing = other.info(Store::Jobs).await;
        assert!(
            matches!(missing, Err(BrokerError::Missing(_))),
            "{missing:?}"
        );
        let mut puller = memory.puller().await.unwrap();
        puller.request(&queue(), 1, LEASE);
        assert!(matches!(puller.next().await, Pulled::Gone(_)));
        memory.ensure_consumer(&queue()).await.unwrap();
        puller.request(&queue(), 1, LEASE);
        let queue = queue();
        let (pulled, deleted) = tokio::join!(puller.next(), memory.delete_consumer(&queue));
        deleted.unwrap();
        assert!(matches!(pulled, Pulled::Gone(_)), "{pulled:?}");
    });
}

#[test]
fn a_puller_that_stops_gets_no_more_jobs() {
    run(|memory| async move {
        memory.ensure_consumer(&queue()).await.unwrap();
        let mut puller = memory.puller().await.unwrap();
        puller.request(&queue(), 3, LEASE);
        memory.publish(Store::Jobs, job("a")).await.unwrap();
        puller.stop();
        memory.publish(Store::Jobs, job("b")).await.unwrap();
        let first = puller.next().await;
        assert!(matches!(first, Pulled::Delivery(_)), "{first:?}");
        let second = puller.next().await;
        assert!(
            matches!(second, Pulled::Ended { wanted: 2, .. }),
            "{second:?}"
        );
        let waiting = memory.consumers().await.unwrap().remove(0);
        assert_eq!(
            (waiting.waiting, waiting.delivered, waiting.pulls),
            (1, 1, 0)
        );
    });
}

#[test]
fn the_settings_are_those_of_the_first_maker() {
    run(|memory| async move {
        let other = Settings {
            lease: Duration::from_secs(1),
            ..Settings::default()
        };
        let adopted = memory.ensure_stores(&other, true).await;
        assert_eq!(adopted, Ok(Settings::default()));
    });
}

#[test]
fn a_closed_connection_tells_its_receivers() {
    run(|memory| async move {
        memory.ensure_consumer(&queue()).await.unwrap();
        let mut puller = memory.puller().await.unwrap();
        let mut watch = memory.watch(Store::Live, true).await.unwrap();
        puller.request(&queue(), 1, LEASE);
        let (pulled, end, ()) = tokio::join!(puller.next(), watch.next(), memory.close());
        assert!(matches!(pulled, Pulled::Broken), "{pulled:?}");
        assert!(end.is_none());
        let closed = memory.info(Store::Jobs).await;
        assert!(
            matches!(closed, Err(BrokerError::Unreachable(_))),
            "{closed:?}"
        );
    });
}

/// Two threads with their own runtimes, in real time: no wake-up is lost.
#[test]
fn jobs_cross_threads_and_runtimes() {
    const JOBS: usize = 2000;
    let broker = MemoryBroker::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    };
    let client = broker.connect("test");
    runtime().block_on(async {
        client
            .ensure_stores(&Settings::default(), true)
            .await
            .unwrap();
        client.ensure_consumer(&queue()).await.unwrap();
    });
    for _ in 0..2 {
        let (memory, sender) = (broker.connect("test"), sender.clone());
        std::thread::spawn(move || {
            runtime().block_on(async {
                let mut puller = memory.puller().await.unwrap();
                loop {
                    puller.request(&queue(), 1, LEASE);
                    let (text, count, token) = delivery(&mut puller).await;
                    memory.ack(&token, Ack::Done).await.unwrap();
                    if text == "stop" {
                        return;
                    }
                    sender.send((text, count)).unwrap();
                }
            });
        });
    }
    let mut done = Vec::new();
    for n in 0..JOBS {
        let stored = client.publish(Store::Jobs, job(&format!("{n}")));
        runtime().block_on(stored).unwrap();
        // Sometimes the workers wait, sometimes they are busy.
        if n % 3 == 0 {
            done.push(receiver.recv_timeout(Duration::from_secs(60)).unwrap());
        }
    }
    while done.len() < JOBS {
        done.push(receiver.recv_timeout(Duration::from_secs(60)).unwrap());
    }
    assert!(done.iter().all(|(_, count)| *count == 1));
    let mut names: Vec<usize> = done.iter().map(|(text, _)| text.parse().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, (0..JOBS).collect::<Vec<_>>());
    for stop in ["stop", "stop"] {
        let message = Outgoing {
            id: None,
            ..job(stop)
        };
        runtime()
            .block_on(client.publish(Store::Jobs, message))
            .unwrap();
    }
}
