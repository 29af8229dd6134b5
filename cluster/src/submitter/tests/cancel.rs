//! Jobs that must not start, or must stop.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::bench::{again, end, large, once, run, until};
use crate::broker::{Ack, Broker as _, Inbox as _, Store};
use crate::protocol::notice::{self, Control};

#[test]
fn an_unsent_job_is_cancelled_at_once_and_leaves_no_trace() {
    run(async |bench| {
        bench.broker.disconnect();
        let handle = bench.submit(once::call(1));
        sleep(Duration::from_millis(10)).await;
        assert!(handle.cancel());
        let error = end(handle).await.unwrap_err();
        assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        until(async || bench.handle.counts().pending == 0).await;
        bench.broker.reconnect().await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(bench.broker.job_publishes(), 0);
        bench.until_empty().await;
    });
}

#[test]
fn c6_a_queued_default_job_that_is_cancelled_never_starts() {
    run(async |bench| {
        let handle = bench.submit(once::call(1));
        bench.until_queued(1).await;
        assert!(!handle.cancel());
        let error = end(handle).await.unwrap_err();
        assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        bench.until_empty().await;
        let mut worker = bench.worker("a").await;
        assert!(worker.try_take(Duration::from_secs(100)).await.is_none());
    });
}

#[test]
fn c6_a_worker_that_comes_after_the_cancel_gets_no_claim() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        assert!(!handle.cancel());
        let error = end(handle).await.unwrap_err();
        assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        // Its claim may come at any time: before the removal it fails, after it the message is gone.
        let claimed = worker.claim(&mut taken).await;
        let seq = taken.delivery.message.seq;
        assert!(!claimed || bench.server.get(Store::Jobs, seq).await.unwrap().is_none());
    });
}

#[test]
fn c6_a_job_that_was_claimed_first_is_asked_to_stop_until_it_ends() {
    run(async |bench| {
        let mut inbox = bench.server.inbox(&["ctl.a".to_owned()]).await.unwrap();
        let mut worker = bench.worker("a").await;
        let _alive = worker.stay_alive();
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        assert!(worker.claim(&mut taken).await);
        assert!(!handle.cancel());
        for _ in 0..3 {
            let notice = inbox.next().await;
            let Some(Control::Cancel { job }) = notice::decode(&notice.payload) else {
                panic!("{notice:?}");
            };
            assert_eq!(job, taken.job.id);
        }
        assert!(!handle.is_finished());
        worker.send_output(&taken).await;
        worker.remove(&taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        bench.until_empty().await;
    });
}

#[test]
fn c6_a_cancelled_job_that_its_holder_gives_back_does_not_start_elsewhere() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let _alive = worker.stay_alive();
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        assert!(worker.claim(&mut taken).await);
        assert!(!handle.cancel());
        sleep(Duration::from_secs(5)).await;
        assert!(!handle.is_finished());
        // An orderly drain: the claim goes, and the message comes again after a while.
        let claim = taken.claim.unwrap();
        bench.server.delete(Store::Claims, claim).await.unwrap();
        let back = Ack::Back(Duration::from_secs(60));
        bench.server.ack(&taken.delivery.token, back).await.unwrap();
        let error = end(handle).await.unwrap_err();
        assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        bench.until_empty().await;
    });
}

#[test]
fn c6_a_cancel_that_comes_after_the_end_does_not_say_that_the_job_never_ran() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        bench.broker.withhold_outcomes(true);
        worker.complete(&mut taken).await;
        // Nothing is left of it but its outcome, which the consumer has not delivered.
        assert!(!handle.cancel());
        assert_eq!(end(handle).await.unwrap(), 2);
        bench.broker.withhold_outcomes(false);
        bench.until_empty().await;
    });
}

#[test]
fn an_idempotent_job_that_is_cancelled_leaves_the_queue_and_may_have_run() {
    run(async |bench| {
        let mut inbox = bench.server.inbox(&["ctl.all".to_owned()]).await.unwrap();
        let handle = bench.submit(again::call(1));
        bench.until_queued(1).await;
        assert!(!handle.cancel());
        let error = end(handle).await.unwrap_err();
        assert!(error.is_cancelled() && error.may_have_run(), "{error}");
        bench.until_empty().await;
        let notice = inbox.next().await;
        assert!(matches!(
            notice::decode(&notice.payload),
            Some(Control::Cancel { .. })
        ));
    });
}

#[test]
fn c6_a_cancel_while_the_arguments_are_sent_is_exact() {
    run(async |bench| {
        bench.broker.block_jobs(true);
        let handle = bench.submit(large::call(vec![7; 600 << 10]));
        until(async || handle.is_running()).await;
        assert!(!handle.cancel());
        bench.broker.block_jobs(false);
        let error = end(handle).await.unwrap_err();
        assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        assert_eq!(bench.broker.job_publishes(), 0);
        until(async || bench.server.blobs().await.unwrap().is_empty()).await;
    });
}

#[test]
fn an_unsent_job_expires() {
    run(async |bench| {
        bench.broker.disconnect();
        let deadline = Instant::now().into_std() + Duration::from_secs(20);
        let handle = bench.submit(once::call(1).deadline(deadline));
        let begun = Instant::now();
        let error = end(handle).await.unwrap_err();
        assert!(error.is_expired() && !error.may_have_run(), "{error}");
        let waited = begun.elapsed().as_secs_f64();
        assert!((19.0..21.0).contains(&waited), "{waited}");
        bench.broker.reconnect().await;
        bench.until_empty().await;
    });
}

#[test]
fn a_queued_default_job_expires_and_never_starts() {
    run(async |bench| {
        let deadline = Instant::now().into_std() + Duration::from_secs(20);
        let handle = bench.submit(once::call(1).deadline(deadline));
        let error = end(handle).await.unwrap_err();
        assert!(error.is_expired() && !error.may_have_run(), "{error}");
        bench.until_empty().await;
        assert_eq!(bench.handle.counts().failed, 1);
    });
}

#[test]
fn a_job_that_has_started_does_not_expire() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let _alive = worker.stay_alive();
        let deadline = Instant::now().into_std() + Duration::from_secs(20);
        let default = bench.submit(once::call(1).deadline(deadline));
        let idempotent = bench.submit(again::call(1).deadline(deadline));
        let (mut first, mut second) = (worker.take().await, worker.take().await);
        for taken in [&mut first, &mut second] {
            assert!(taken.job.deadline.unwrap() <= Duration::from_secs(20));
            if taken.job.mode == crate::protocol::job::Mode::Once {
                assert!(worker.claim(taken).await);
            } else {
                let started = crate::protocol::notice::Event::Started {
                    job: taken.job.id.clone(),
                    worker: "a".to_owned(),
                };
                let payload = notice::encode(&started);
                bench.server.notify("ev.client", payload).await.unwrap();
            }
        }
        sleep(Duration::from_secs(25)).await;
        assert!(!default.is_finished() && !idempotent.is_finished());
        for taken in [&mut first, &mut second] {
            worker.send_output(taken).await;
            worker.remove(taken).await;
        }
        assert_eq!(end(default).await.unwrap(), 2);
        assert_eq!(end(idempotent).await.unwrap(), 2);
    });
}

#[test]
fn a_queued_idempotent_job_expires_and_may_have_run() {
    run(async |bench| {
        let deadline = Instant::now().into_std() + Duration::from_secs(20);
        let handle = bench.submit(again::call(1).deadline(deadline));
        let error = end(handle).await.unwrap_err();
        assert!(error.is_expired() && error.may_have_run(), "{error}");
        bench.until_empty().await;
    });
}
