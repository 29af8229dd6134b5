//! Publishes whose answer is lost, late or a refusal.

use std::time::Duration;

use tokio::time::sleep;

use super::bench::{again, end, once, run, until};
use super::broken::Fault;
use crate::broker::{Broker as _, Store};
use crate::protocol::claim::ClaimState;

#[test]
fn c2_a_default_job_whose_answer_was_lost_gets_a_new_id_and_the_old_copy_never_runs() {
    run(async |bench| {
        bench.broker.fail(Store::Jobs, &[Fault::AnswerLost]);
        let handle = bench.submit(once::call(1));
        bench.until_queued(2).await;
        let mut worker = bench.worker("a").await;
        let mut first = worker.take().await;
        let mut second = worker.take().await;
        assert_ne!(first.job.id, second.job.id);
        assert!(!worker.claim(&mut first).await, "the old copy could run");
        worker.remove(&first).await;
        worker.complete(&mut second).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        // The old claim goes once nothing older can arrive.
        bench.until_empty().await;
    });
}

#[test]
fn c2_a_default_job_that_ran_before_its_fence_is_not_submitted_again() {
    run(async |bench| {
        bench.broker.fail(Store::Jobs, &[Fault::AnswerLost]);
        bench.broker.withhold_outcomes(true);
        let mut worker = bench.worker("a").await;
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        sleep(Duration::from_secs(200)).await;
        assert_eq!(bench.broker.job_publishes(), 1);
        bench.broker.withhold_outcomes(false);
        bench.until_empty().await;
    });
}

#[test]
fn a_default_job_that_a_worker_has_already_is_not_fenced() {
    run(async |bench| {
        bench.broker.fail(Store::Jobs, &[Fault::AnswerLost]);
        let mut worker = bench.worker("a").await;
        let _alive = worker.stay_alive();
        let handle = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        assert!(worker.claim(&mut taken).await);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(bench.broker.job_publishes(), 1);
        worker.send_output(&taken).await;
        worker.remove(&taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        bench.until_empty().await;
    });
}

#[test]
fn c2_a_publish_that_arrives_after_the_reconnect_finds_its_claim() {
    run(async |bench| {
        bench.broker.fail(Store::Jobs, &[Fault::Late]);
        let handle = bench.submit(once::call(1));
        bench.until_queued(1).await;
        // The claim of the first id stays for a while.
        sleep(Duration::from_secs(90)).await;
        let claims = bench.info(Store::Claims).await.messages;
        assert_eq!(claims, 1);
        bench.broker.disconnect();
        bench.broker.reconnect().await;
        bench.until_queued(2).await;
        // The late copy is stored, and must never get a claim.
        sleep(Duration::from_secs(20)).await;
        let stored = bench.server.next(Store::Jobs, 2).await.unwrap().unwrap();
        let id = crate::protocol::job::JobMessage::id_of(&stored)
            .unwrap()
            .to_owned();
        let mut other = bench.worker("b").await;
        let mut seen = 0;
        while seen < 2 {
            let mut taken = other.take().await;
            seen += 1;
            if taken.job.id == id {
                let claim = other
                    .claim_of(&id)
                    .await
                    .expect("the claim of the old id is gone");
                assert_eq!(claim.state, ClaimState::Never);
                other.remove(&taken).await;
            } else {
                other.complete(&mut taken).await;
            }
            // The submitter has time to judge that nothing older can come.
            sleep(Duration::from_secs(20)).await;
        }
        assert_eq!(end(handle).await.unwrap(), 2);
        bench.until_empty().await;
    });
}

#[test]
fn an_idempotent_job_is_published_again_under_its_id() {
    run(async |bench| {
        bench
            .broker
            .fail(Store::Jobs, &[Fault::Lost, Fault::AnswerLost]);
        let handle = bench.submit(again::call(1));
        let mut worker = bench.worker("a").await;
        until(async || bench.count("published") == 1).await;
        assert_eq!(bench.broker.job_publishes(), 3);
        let mut taken = worker.take().await;
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        assert!(worker.try_take(Duration::from_secs(60)).await.is_none());
        bench.until_empty().await;
    });
}

#[test]
fn c6_a_cancel_during_an_unknown_publish_is_exact() {
    run(async |bench| {
        bench.broker.fail(Store::Jobs, &[Fault::AnswerLost]);
        let handle = bench.submit(once::call(1));
        bench.until_queued(1).await;
        assert!(!handle.cancel());
        let error = end(handle).await.unwrap_err();
        assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        sleep(Duration::from_secs(100)).await;
        assert_eq!(bench.broker.job_publishes(), 1);
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        assert!(!worker.claim(&mut taken).await);
    });
}

#[test]
fn a_server_that_never_answers_gets_ever_fewer_publishes() {
    run(async |bench| {
        bench.broker.fail(Store::Jobs, &[Fault::Lost; 1000]);
        let handle = bench.submit(once::call(1));
        sleep(Duration::from_secs(600)).await;
        assert!(
            bench.broker.job_publishes() < 100,
            "{}",
            bench.broker.job_publishes()
        );
        assert!(!handle.is_finished());
    });
}
