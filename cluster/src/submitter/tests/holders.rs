//! Workers that die, and jobs without news.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::bench::{again, end, once, run};
use crate::broker::{Broker as _, Store};
use crate::protocol::live::LiveValue;
use crate::protocol::notice::{self, Event};

#[test]
fn a_default_job_is_lost_with_its_worker_in_time() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let alive = worker.stay_alive();
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        assert!(worker.claim(&mut taken).await);
        sleep(Duration::from_secs(120)).await;
        assert!(!handle.is_finished());
        alive.abort();
        let died = Instant::now();
        let error = end(handle).await.unwrap_err();
        assert!(error.is_lost() && error.may_have_run(), "{error}");
        assert_eq!(error.worker().unwrap(), "host/1");
        let waited = died.elapsed();
        assert!(waited <= Duration::from_secs(31), "{waited:?}");
        // Its late outcome is dropped, and nothing is left of the job.
        worker.send_output(&taken).await;
        bench.until_empty().await;
        assert_eq!(bench.handle.counts().lost, 1);
    });
}

#[test]
fn a_job_of_a_worker_that_left_is_lost_at_once() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        assert!(worker.claim(&mut taken).await);
        let left = Instant::now();
        let farewell = LiveValue::farewell("w.a");
        bench.server.publish(Store::Live, farewell).await.unwrap();
        assert!(end(handle).await.unwrap_err().is_lost());
        assert!(left.elapsed() < Duration::from_secs(2));
        bench.until_empty().await;
    });
}

#[test]
fn c4_an_outcome_that_a_dead_worker_has_stored_counts() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let alive = worker.stay_alive();
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        assert!(worker.claim(&mut taken).await);
        bench.broker.withhold_outcomes(true);
        worker.send_output(&taken).await;
        alive.abort(); // between the outcome and the delete of the message
        assert_eq!(end(handle).await.unwrap(), 2);
        bench.broker.withhold_outcomes(false);
        bench.until_empty().await;
    });
}

#[test]
fn a_job_that_its_dead_worker_had_not_claimed_goes_on() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let alive = worker.stay_alive();
        let handle = bench.submit(once::call(1));
        let _taken = worker.take().await;
        alive.abort();
        drop(worker);
        sleep(Duration::from_secs(60)).await;
        assert!(!handle.is_finished());
        let mut other = bench.worker("b").await;
        let mut again = other.take().await;
        assert_eq!(again.delivery.count, 2);
        other.complete(&mut again).await;
        assert_eq!(end(handle).await.unwrap(), 2);
    });
}

#[test]
fn a_worker_is_not_dead_because_its_key_has_expired() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let alive = worker.stay_alive();
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        assert!(worker.claim(&mut taken).await);
        let started = Event::Started {
            job: taken.job.id.clone(),
            worker: "a".to_owned(),
        };
        let payload = notice::encode(&started);
        bench.server.notify("ev.client", payload).await.unwrap();
        // The submitter sees nothing for a minute.
        bench.broker.disconnect();
        sleep(Duration::from_secs(60)).await;
        bench.broker.reconnect().await;
        sleep(Duration::from_secs(60)).await;
        assert!(!handle.is_finished());
        alive.abort();
        worker.send_output(&taken).await;
        worker.remove(&taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
    });
}

#[test]
fn c1_a_default_job_of_which_nothing_is_left_is_lost() {
    run(async |bench| {
        let handle = bench.submit(once::call(1));
        bench.until_queued(1).await;
        bench.server.delete(Store::Jobs, 1).await.unwrap();
        let error = end(handle).await.unwrap_err();
        assert!(error.is_lost() && error.may_have_run(), "{error}");
    });
}

#[test]
fn c1_an_idempotent_job_of_which_nothing_is_left_is_published_again() {
    run(async |bench| {
        let handle = bench.submit(again::call(1));
        bench.until_queued(1).await;
        bench.server.delete(Store::Jobs, 1).await.unwrap();
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
    });
}

#[test]
fn a_look_finds_an_outcome_that_was_not_delivered() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        bench.broker.withhold_outcomes(true);
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        bench.broker.withhold_outcomes(false);
    });
}

#[test]
fn a_job_that_waits_for_long_is_left_alone() {
    run(async |bench| {
        let default = bench.submit(once::call(1));
        let idempotent = bench.submit(again::call(1));
        sleep(Duration::from_secs(3600)).await;
        assert!(!default.is_finished() && !idempotent.is_finished());
        assert_eq!(bench.broker.job_publishes(), 2);
        let mut worker = bench.worker("a").await;
        for _ in 0..2 {
            let mut taken = worker.take().await;
            worker.complete(&mut taken).await;
        }
        assert_eq!(end(default).await.unwrap(), 2);
        assert_eq!(end(idempotent).await.unwrap(), 2);
    });
}

#[test]
fn c1_a_job_that_its_living_holder_has_lost_track_of_is_lost() {
    run(async |bench| {
        let mut inbox = bench.server.inbox(&["ctl.a".to_owned()]).await.unwrap();
        let server = bench.server.clone();
        tokio::task::spawn_local(async move {
            loop {
                let question = crate::broker::Inbox::next(&mut inbox).await;
                if let Some(reply) = question.reply {
                    let _ = server.notify_reply(&reply, notice::encode(&false)).await;
                }
            }
        });
        let mut worker = bench.worker("a").await;
        let _alive = worker.stay_alive();
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        assert!(worker.claim(&mut taken).await);
        bench.server.delete(Store::Jobs, 1).await.unwrap();
        assert!(end(handle).await.unwrap_err().is_lost());
        bench.until_empty().await;
    });
}
