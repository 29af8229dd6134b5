//! The server was away, or has forgotten something.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::bench::{again, end, once, run, run_with};
use super::broken::Fault;
use crate::broker::{Broker as _, Store};

#[test]
fn jobs_wait_for_the_connection() {
    run(async |bench| {
        bench.broker.disconnect();
        let handle = bench.submit(once::call(1));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(bench.broker.job_publishes(), 0);
        bench.broker.reconnect().await;
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
    });
}

#[test]
fn no_job_is_handed_over_before_the_submitters_key_is_written() {
    run(async |bench| {
        bench.broker.fail(Store::Live, &[Fault::Lost; 3]);
        let handle = bench.submit(once::call(1));
        bench.until_queued(1).await;
        let key = bench
            .server
            .last(Store::Live, "c.client")
            .await
            .unwrap()
            .unwrap();
        let job = bench.server.get(Store::Jobs, 1).await.unwrap().unwrap();
        assert!(key.time <= job.time);
        drop(handle);
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        worker.complete(&mut taken).await;
    });
}

#[test]
fn c1_the_server_is_away_for_longer_than_the_limit() {
    run(async |bench| {
        let queued = bench.submit(once::call(1));
        let idempotent = bench.submit(again::call(1));
        bench.until_queued(2).await;
        let begun = Instant::now();
        bench.broker.disconnect();
        sleep(Duration::from_secs(200)).await;
        let unsent = bench.submit(once::call(2));
        for handle in [queued, idempotent] {
            let error = end(handle).await.unwrap_err();
            assert!(error.is_disconnected() && error.may_have_run(), "{error}");
            assert!(error.to_string().contains("connection refused"), "{error}");
        }
        let waited = begun.elapsed().as_secs();
        assert!((300..310).contains(&waited), "{waited}");
        let error = end(unsent).await.unwrap_err();
        assert!(error.is_disconnected() && !error.may_have_run(), "{error}");
        let waited = begun.elapsed().as_secs();
        assert!((500..510).contains(&waited), "{waited}");
        // What was reported must not run when the server comes back.
        bench.broker.reconnect().await;
        bench.until_empty().await;
        assert_eq!(bench.handle.counts().lost, 3);
    });
}

#[test]
fn c1_a_server_that_answers_nothing_is_away() {
    run(async |bench| {
        let handle = bench.submit(once::call(1));
        bench.until_queued(1).await;
        bench.broker.mute(true);
        let error = end(handle).await.unwrap_err();
        assert!(error.is_disconnected() && error.may_have_run(), "{error}");
        bench.broker.mute(false);
        bench.until_empty().await;
    });
}

#[test]
fn without_a_limit_jobs_wait_for_the_server() {
    let configure = |config: &mut crate::submitter::Config| config.disconnect_limit = None;
    run_with(configure, async |bench| {
        let handle = bench.submit(once::call(1));
        bench.until_queued(1).await;
        bench.broker.disconnect();
        sleep(Duration::from_secs(3600)).await;
        assert!(!handle.is_finished());
        bench.broker.reconnect().await;
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
    });
}

#[test]
fn c2_a_reported_job_that_a_worker_has_is_asked_to_stop() {
    run(async |bench| {
        let mut inbox = bench.server.inbox(&["ctl.a".to_owned()]).await.unwrap();
        let mut worker = bench.worker("a").await;
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        bench.broker.disconnect();
        assert!(worker.claim(&mut taken).await);
        assert!(end(handle).await.unwrap_err().is_disconnected());
        bench.broker.reconnect().await;
        let notice = crate::broker::Inbox::next(&mut inbox).await;
        assert!(String::from_utf8_lossy(&notice.payload).contains(&taken.job.id));
    });
}

#[test]
fn a_roll_back_is_reported_and_jobs_are_submitted_again() {
    run(async |bench| {
        let default = bench.submit(once::call(1));
        let idempotent = bench.submit(again::call(2));
        bench.until_queued(2).await;
        bench.broker.disconnect();
        // Other messages have the sequences of the two jobs: here their messages are gone, and the
        // newest sequence belongs to another job.
        bench.broker.roll_back();
        bench.broker.reconnect().await;
        bench.until_queued(4).await;
        let mut worker = bench.worker("a").await;
        let mut seen = 0;
        while !(default.is_finished() && idempotent.is_finished()) {
            let Some(mut taken) = worker.try_take(Duration::from_secs(5)).await else {
                break;
            };
            seen += 1;
            if taken.job.mode == crate::protocol::job::Mode::Once {
                if worker.claim(&mut taken).await {
                    worker.send_output(&taken).await;
                }
                worker.remove(&taken).await;
            } else {
                worker.complete(&mut taken).await;
            }
        }
        assert!(seen >= 3, "{seen}");
        assert_eq!(end(default).await.unwrap(), 2);
        assert_eq!(end(idempotent).await.unwrap(), 3);
        assert_eq!(bench.handle.counts().rollbacks, 1);
    });
}

#[test]
fn a_reconnect_alone_is_no_roll_back() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let _alive = worker.stay_alive();
        let handle = bench.submit(once::call(1));
        let other = bench.submit(again::call(1));
        let mut first = worker.take().await;
        let mut second = worker.take().await;
        for _ in 0..5 {
            bench.broker.disconnect();
            sleep(Duration::from_secs(1)).await;
            bench.broker.reconnect().await;
            sleep(Duration::from_secs(5)).await;
        }
        worker.complete(&mut first).await;
        worker.complete(&mut second).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        assert_eq!(end(other).await.unwrap(), 2);
        assert_eq!(bench.broker.job_publishes(), 2);
        assert_eq!(bench.handle.counts().rollbacks, 0);
        bench.until_empty().await;
    });
}
