//! From a submit to the outcome, and to the end of the submitter.

use std::time::Duration;

use futurepool::{JoinError, TaskJob, task};
use tokio::time::sleep;

use super::bench::{again, end, large, once, run, run_with, until};
use crate::broker::{Broker as _, Outgoing, Store};
use crate::protocol::job::Body;
use crate::protocol::outcome::Verdict;

#[test]
fn a_default_job_resolves_with_its_output() {
    run(async |bench| {
        let handle = bench.submit(once::call(41));
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        assert!(handle.is_running());
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 42);
        bench.until_empty().await;
        let counts = bench.handle.counts();
        assert_eq!(
            (counts.submitted, counts.completed, counts.pending),
            (1, 1, 0)
        );
        let steps: Vec<_> = bench.steps.borrow().iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, ["published", "resolved"]);
    });
}

#[test]
fn an_idempotent_job_resolves_with_its_output() {
    run(async |bench| {
        let handle = bench.submit(again::call(41));
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 42);
        bench.until_empty().await;
    });
}

#[test]
fn the_error_of_a_worker_arrives_as_it_was() {
    run(async |bench| {
        let handle = bench.submit(once::call(1));
        let mut worker = bench.worker("a").await;
        let taken = worker.take().await;
        worker
            .send_error(&taken, &JoinError::refused("t.once", "not here"))
            .await;
        let error = end(handle).await.unwrap_err();
        assert!(error.is_refused() && !error.may_have_run(), "{error}");
        assert_eq!(bench.handle.counts().failed, 1);
    });
}

#[test]
fn c4_the_first_of_two_outcomes_wins() {
    run(async |bench| {
        let handle = bench.submit(again::call(1));
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        worker.complete(&mut taken).await;
        worker
            .send_error(&taken, &JoinError::lost("t.again", None, "no", true))
            .await;
        worker.send_output(&taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        // The others are taken out of the store.
        bench.until_empty().await;
        assert_eq!(bench.handle.counts().completed, 1);
    });
}

#[test]
fn an_outcome_may_come_before_the_confirmation_of_the_publish() {
    run(async |bench| {
        // The answer to the publish is lost, and the outcome is there at once.
        bench
            .broker
            .fail(Store::Jobs, &[super::broken::Fault::AnswerLost]);
        let handle = bench.submit(again::call(1));
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        bench.until_empty().await;
    });
}

#[test]
fn outcomes_that_are_malformed_or_unknown_do_no_harm() {
    run(async |bench| {
        let handle = bench.submit(again::call(1));
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        let headers = |id: &str, kind: &str| {
            let pairs = [("Fp-Id", id), ("Fp-By", "w"), ("Fp-Kind", kind)];
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .to_vec()
        };
        let ids = [
            "",
            "client-",
            "client-zzzzzzzzzzzzzzzzzz",
            "client-99",
            "other-0",
            "client-é",
        ];
        for id in ids {
            for kind in ["returned", "failed", "dropped", "?"] {
                worker
                    .send_raw(Outgoing {
                        subject: "client".to_owned(),
                        headers: headers(id, kind),
                        ..Outgoing::default()
                    })
                    .await;
            }
        }
        let nothing = Outgoing {
            subject: "client".to_owned(),
            ..Outgoing::default()
        };
        worker.send_raw(nothing).await;
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        bench.until_empty().await;

        // One that is for a job resolves it.
        let handle = bench.submit(again::call(1));
        let taken = worker.take().await;
        let malformed = Outgoing {
            subject: "client".to_owned(),
            headers: headers(&taken.job.id, "?"),
            ..Outgoing::default()
        };
        worker.send_raw(malformed).await;
        let error = end(handle).await.unwrap_err();
        assert!(error.is_codec() && error.may_have_run(), "{error}");
    });
}

#[test]
fn an_output_that_cannot_be_decoded_is_an_error() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        for bytes in [&b"junk"[..], &[]] {
            let handle = bench.submit(once::call(1));
            let taken = worker.take().await;
            let body = Body::Inline(bytes.to_vec().into());
            worker.send(&taken, Verdict::Returned(body)).await;
            let error = end(handle).await.unwrap_err();
            assert!(error.is_codec() && error.may_have_run(), "{error}");
        }
    });
}

#[test]
fn large_arguments_and_outputs_travel_as_blobs() {
    run(async |bench| {
        let bytes = vec![7; 600 << 10];
        let handle = bench.submit(large::call(bytes.clone()));
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        let Body::Blob(name) = taken.job.body.clone() else {
            panic!("the arguments are inline");
        };
        assert_eq!(name, format!("a.{}", taken.job.id));
        let arguments = bench
            .server
            .get_blob(&name, 1 << 20)
            .await
            .unwrap()
            .unwrap();
        let (job, run) = {
            let payload = futurepool::Payload::from_bytes(&arguments).unwrap();
            let tasks = futurepool::tasks![large];
            tasks.get("t.large", 1).unwrap().call(payload).into_job()
        };
        job.run_here();
        let output = run.join().unwrap().to_bytes();
        let result = format!("r.{}.1", taken.job.id);
        bench.server.put_blob(&result, output.into()).await.unwrap();
        assert!(worker.claim(&mut taken).await);
        let verdict = Verdict::Returned(Body::Blob(result.clone()));
        // The outcome is stored twice: its blob must be there until it is fetched.
        bench.broker.block_jobs(true);
        worker.send(&taken, verdict.clone()).await;
        worker.send(&taken, verdict).await;
        worker.remove(&taken).await;
        sleep(Duration::from_secs(1)).await;
        bench.broker.block_jobs(false);
        assert_eq!(end(handle).await.unwrap(), bytes);
        bench.until_empty().await;
        until(async || {
            let blobs = bench.server.blobs().await.unwrap();
            blobs.iter().all(|blob| blob.name != result)
        })
        .await;
    });
}

#[test]
fn an_output_whose_blob_is_gone_is_an_error() {
    run(async |bench| {
        let handle = bench.submit(once::call(1));
        let mut worker = bench.worker("a").await;
        let taken = worker.take().await;
        let body = Body::Blob("r.nothing".to_owned());
        worker.send(&taken, Verdict::Returned(body)).await;
        let error = end(handle).await.unwrap_err();
        assert!(error.is_codec() && error.may_have_run(), "{error}");
    });
}

#[test]
fn what_cannot_be_submitted_is_refused_and_counted() {
    #[task]
    fn unnamed(n: u32) -> u32 {
        n
    }

    run(async |bench| {
        let error = end(bench.submit(unnamed::call(1))).await.unwrap_err();
        assert!(error.is_refused() && !error.may_have_run(), "{error}");
        let error = end(bench.submit(large::call(vec![0; (64 << 20) + 1])))
            .await
            .unwrap_err();
        assert!(
            error.is_refused() && error.to_string().contains("67108864"),
            "{error}"
        );
        bench
            .broker
            .fail(Store::Jobs, &[super::broken::Fault::Refused]);
        let error = end(bench.submit(once::call(1))).await.unwrap_err();
        assert!(error.is_refused() && !error.may_have_run(), "{error}");
        let counts = bench.handle.counts();
        assert_eq!(
            (counts.rejected, counts.submitted, counts.failed),
            (2, 1, 1)
        );
        bench.until_empty().await;
    });
}

#[test]
fn a_dropped_job_is_submitted_again_under_another_id() {
    run(async |bench| {
        let handle = bench.submit(once::call(1));
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        assert!(worker.claim(&mut taken).await);
        worker.send(&taken, Verdict::Dropped).await;
        worker.remove(&taken).await;
        let mut second = worker.take().await;
        assert_ne!(second.job.id, taken.job.id);
        worker.complete(&mut second).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        bench.until_empty().await;
    });
}

#[test]
fn c1_a_submitter_that_was_paused_submits_what_was_dropped() {
    run(async |bench| {
        let handles: Vec<_> = (0..20).map(|n| bench.submit(once::call(n))).collect();
        bench.until_queued(20).await;
        bench.broker.withhold_outcomes(true);
        let mut worker = bench.worker("a").await;
        for _ in 0..20 {
            let mut taken = worker.take().await;
            assert!(worker.claim(&mut taken).await);
            worker.send(&taken, Verdict::Dropped).await;
            worker.remove(&taken).await;
        }
        sleep(Duration::from_secs(600)).await;
        bench.broker.withhold_outcomes(false);
        while handles.iter().any(|handle| !handle.is_finished()) {
            let mut taken = worker.take().await;
            let seq = taken.delivery.message.seq;
            // The lease of some has run out meanwhile: they are delivered twice.
            if bench.server.get(Store::Jobs, seq).await.unwrap().is_some() {
                worker.complete(&mut taken).await;
            }
            sleep(Duration::from_millis(10)).await;
        }
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(end(handle).await.unwrap() as usize, n + 1);
        }
    });
}

#[test]
fn a_consumer_that_is_gone_is_made_anew_and_nothing_is_lost() {
    run(async |bench| {
        let handle = bench.submit(again::call(1));
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        let results = crate::broker::Consumer::Results("client".into());
        bench.server.delete_consumer(&results).await.unwrap();
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        bench.until_empty().await;
    });
}

#[test]
fn a_shutdown_resolves_what_is_there_and_says_farewell() {
    run(async |bench| {
        let handle = bench.submit(once::call(1));
        bench.until_queued(1).await;
        bench.handle.shutdown();
        let (job, late) = TaskJob::new(once::call(1));
        assert!(bench.handle.try_submit(job).unwrap_err().is_shutdown());
        drop(late);
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        worker.complete(&mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        bench.handle.ended().await;
        let key = bench
            .server
            .last(Store::Live, "c.client")
            .await
            .unwrap()
            .unwrap();
        assert!(key.is_deletion());
    });
}

#[test]
fn c6_a_shutdown_now_cancels_what_is_queued() {
    run(async |bench| {
        let mut worker = bench.worker("a").await;
        let running = bench.submit(once::call(1));
        let mut taken = worker.take().await;
        assert!(worker.claim(&mut taken).await);
        bench.broker.block_jobs(true);
        let unsent: Vec<_> = (0..300).map(|n| bench.submit(once::call(n))).collect();
        let count = bench.handle.shutdown_now().await.unwrap();
        assert_eq!(count, 301);
        // 256 of them were handed over, which is unknown until there is an answer.
        bench.broker.block_jobs(false);
        for handle in unsent {
            let error = end(handle).await.unwrap_err();
            assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        }
        worker.send_output(&taken).await;
        worker.remove(&taken).await;
        assert_eq!(end(running).await.unwrap(), 2);
        bench.handle.ended().await;
        bench.until_empty().await;
    });
}

#[test]
fn c1_a_core_that_ends_resolves_everything() {
    run(async |bench| {
        let sent = bench.submit(once::call(1));
        bench.until_queued(1).await;
        bench.broker.disconnect();
        let unsent = bench.submit(once::call(2));
        let attached = bench.handle.attach::<once>("nothing");
        sleep(Duration::from_secs(1)).await;
        bench.kill();
        let error = end(sent).await.unwrap_err();
        assert!(error.is_lost() && error.may_have_run(), "{error}");
        let error = end(unsent).await.unwrap_err();
        assert!(error.is_broken() && !error.may_have_run(), "{error}");
        end(attached).await.unwrap_err();
        bench.handle.ended().await;
        // Nothing is accepted from now on.
        let (job, _handle) = TaskJob::new(once::call(1));
        assert!(bench.handle.try_submit(job).unwrap_err().is_broken());
        assert_eq!(bench.handle.counts().pending, 0);
    });
}

#[test]
fn a_job_that_no_live_worker_takes_ends_after_the_limit() {
    let configure = |config: &mut crate::submitter::Config| {
        config.no_worker_timeout = Some(Duration::from_secs(60));
    };
    run_with(configure, async |bench| {
        let idempotent = bench.submit(again::call(1));
        let error = end(bench.submit(once::call(1))).await.unwrap_err();
        assert!(error.is_refused() && !error.may_have_run(), "{error}");
        let error = end(idempotent).await.unwrap_err();
        assert!(error.is_refused() && error.may_have_run(), "{error}");
        bench.until_empty().await;
        // With a worker, it stays.
        let worker = bench.worker("a").await;
        let alive = worker.stay_alive();
        let waiting = bench.submit(once::call(1));
        sleep(Duration::from_secs(600)).await;
        assert!(!waiting.is_finished());
        alive.abort();
    });
}
