//! Jobs that outlive their submitter.

use std::time::Duration;

use futurepool::{Call, JoinHandle, Task, TaskJob};
use tokio::time::sleep;

use super::bench::{Bench, Taken, Worker, again, end, once, run, until};
use super::broken::Fault;
use crate::broker::{Broker as _, Store, Stored};
use crate::protocol::job::Mode;
use crate::protocol::outcome::{Kept, Outcome, Verdict};

async fn detach<T: Task>(bench: &Bench, key: &str, call: Call<T>) -> JoinHandle<T::Output> {
    let (job, handle) = TaskJob::new(call);
    bench.handle.submit_detached(key, job).await.unwrap();
    handle
}

async fn kept(bench: &Bench, key: &str) -> (Stored, Kept) {
    let stored = bench.server.last(Store::Kept, key).await.unwrap().unwrap();
    let kept = Kept::from_stored(&stored).unwrap();
    (stored, kept)
}

/// Writes the outcome that the worker has kept of a job, then sends it.
async fn complete(bench: &Bench, worker: &Worker, taken: &mut Taken) {
    if taken.job.mode == Mode::Once {
        assert!(worker.claim(taken).await);
    }
    let key = taken.job.key.clone().unwrap();
    let (stored, found) = kept(bench, &key).await;
    let Kept::Pending {
        task,
        version,
        signature,
        ..
    } = found
    else {
        panic!("it has ended");
    };
    worker.send_output(taken).await;
    let results = bench.server.last(Store::Results, "client").await.unwrap();
    let outcome = match results {
        Some(stored) => Outcome::from_stored(&stored).unwrap(),
        None => Outcome {
            id: taken.job.id.clone(),
            by: worker.key.clone(),
            verdict: Verdict::Dropped,
        },
    };
    let ended = Kept::Ended {
        task,
        version,
        signature,
        outcome,
    };
    let message = ended.to_outgoing(&key, stored.seq);
    bench.server.publish(Store::Kept, message).await.unwrap();
    worker.remove(taken).await;
}

#[test]
fn a_detached_job_resolves_and_any_number_can_attach() {
    run(async |bench| {
        let handle = detach(&bench, "k", once::call(1)).await;
        until(async || {
            matches!(
                kept(&bench, "k").await.1,
                Kept::Pending { seq: Some(_), .. }
            )
        })
        .await;
        let early = bench.handle.attach::<once>("k");
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        complete(&bench, &worker, &mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
        assert_eq!(end(early).await.unwrap(), 2);
        for _ in 0..3 {
            assert_eq!(end(bench.handle.attach::<once>("k")).await.unwrap(), 2);
        }
        bench.until_empty().await;
    });
}

#[test]
fn a_key_that_exists_gives_the_job_back() {
    run(async |bench| {
        let _handle = detach(&bench, "k", once::call(1)).await;
        let (job, second) = TaskJob::new(once::call(2));
        let error = bench.handle.submit_detached("k", job).await.unwrap_err();
        assert!(error.is_duplicate_key());
        let call = error.into_inner().into_call::<once>().unwrap();
        assert_eq!(call.run(), 3);
        drop(second);
        assert_eq!(bench.info(Store::Jobs).await.messages, 1);
        let counts = bench.handle.counts();
        assert_eq!((counts.submitted, counts.rejected), (1, 1));
    });
}

#[test]
fn an_answer_that_was_lost_is_no_duplicate() {
    run(async |bench| {
        bench
            .broker
            .fail(Store::Kept, &[Fault::AnswerLost, Fault::AnswerLost]);
        let handle = detach(&bench, "k", once::call(1)).await;
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        complete(&bench, &worker, &mut taken).await;
        assert_eq!(end(handle).await.unwrap(), 2);
    });
}

#[test]
fn an_unknown_key_or_another_task_is_refused() {
    run(async |bench| {
        let error = end(bench.handle.attach::<once>("k")).await.unwrap_err();
        assert!(error.is_refused() && !error.may_have_run(), "{error}");
        let _handle = detach(&bench, "k", once::call(1)).await;
        let error = end(bench.handle.attach::<again>("k")).await.unwrap_err();
        assert!(error.is_refused() && !error.may_have_run(), "{error}");
    });
}

#[test]
fn a_detached_job_that_is_cancelled_is_cancelled_for_all() {
    run(async |bench| {
        let handle = detach(&bench, "k", once::call(1)).await;
        let attached = bench.handle.attach::<once>("k");
        sleep(Duration::from_secs(1)).await;
        assert!(!handle.cancel());
        assert!(end(handle).await.unwrap_err().is_cancelled());
        assert!(end(attached).await.unwrap_err().is_cancelled());
        bench.until_empty().await;
    });
}

#[test]
fn c1_a_cancel_while_the_key_is_written_ends_the_key() {
    run(async |bench| {
        bench.broker.fail(Store::Kept, &[Fault::AnswerLost]);
        let (job, handle) = TaskJob::new(once::call(1));
        let submitter = bench.handle.clone();
        let submit =
            tokio::task::spawn_local(async move { submitter.submit_detached("k", job).await });
        until(async || bench.info(Store::Kept).await.messages == 1).await;
        assert!(handle.cancel());
        let error = end(bench.handle.attach::<once>("k")).await.unwrap_err();
        assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        assert_eq!(bench.broker.job_publishes(), 0);
        submit.await.unwrap().unwrap();
        assert_eq!(bench.handle.counts().pending, 0);
    });
}

#[test]
fn c1_a_detached_job_that_cannot_be_submitted_keeps_nothing_waiting() {
    run(async |bench| {
        let (job, handle) = TaskJob::new(once::call(1));
        assert!(handle.cancel());
        // It was cancelled before it had a permit.
        bench.handle.submit_detached("key", job).await.unwrap();
        assert!(handle.await.unwrap_err().is_cancelled());
        assert_eq!(bench.handle.counts().pending, 0);
    });
}

#[test]
fn a_cancel_of_an_attached_handle_cancels_the_job() {
    run(async |bench| {
        let handle = detach(&bench, "k", once::call(1)).await;
        let attached = bench.handle.attach::<once>("k");
        sleep(Duration::from_secs(1)).await;
        assert!(!attached.cancel());
        let error = end(attached).await.unwrap_err();
        assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        drop(handle);
    });
}

#[test]
fn a_fenced_detached_job_is_kept_under_its_new_id() {
    run(async |bench| {
        bench.broker.fail(Store::Jobs, &[Fault::AnswerLost]);
        let handle = detach(&bench, "k", once::call(1)).await;
        bench.until_queued(2).await;
        let mut worker = bench.worker("a").await;
        let mut first = worker.take().await;
        assert!(!worker.claim(&mut first).await);
        worker.remove(&first).await;
        let mut second = worker.take().await;
        let (_, found) = kept(&bench, "k").await;
        let Kept::Pending { id, .. } = found else {
            panic!("{found:?}");
        };
        assert_eq!(id, second.job.id);
        complete(&bench, &worker, &mut second).await;
        assert_eq!(end(handle).await.unwrap(), 2);
    });
}

#[test]
fn a_detached_job_survives_its_submitter_and_the_disconnect_limit() {
    run(async |bench| {
        let handle = detach(&bench, "k", once::call(1)).await;
        bench.broker.disconnect();
        assert!(end(handle).await.unwrap_err().is_disconnected());
        bench.broker.reconnect().await;
        sleep(Duration::from_secs(300)).await;
        let attached = bench.handle.attach::<once>("k");
        let mut worker = bench.worker("a").await;
        let mut taken = worker.take().await;
        complete(&bench, &worker, &mut taken).await;
        assert_eq!(end(attached).await.unwrap(), 2);
    });
}

#[test]
fn c1_an_attached_job_whose_submitter_died_and_of_which_nothing_is_left_is_lost() {
    run(async |bench| {
        for (key, seq) in [("with", Some(77)), ("without", None)] {
            let pending = Kept::Pending {
                id: format!("dead-{key}"),
                client: "dead".to_owned(),
                task: "t.once".to_owned(),
                version: 1,
                signature: 0,
                seq,
            };
            let message = pending.to_outgoing(key, 0);
            bench.server.publish(Store::Kept, message).await.unwrap();
            let error = end(bench.handle.attach::<once>(key)).await.unwrap_err();
            assert!(error.is_lost() && error.may_have_run(), "{error}");
        }
    });
}

#[test]
fn a_shutdown_now_does_not_wait_for_room_in_the_queue() {
    run(async |bench| {
        bench.broker.fail(Store::Jobs, &[Fault::Full; 1_000]);
        bench.broker.block_jobs(true);
        let (job, handle) = TaskJob::new(once::call(1));
        let submitter = bench.handle.clone();
        tokio::task::spawn_local(async move { submitter.submit_detached("k", job).await });
        until(async || bench.broker.job_publishes() == 1).await;
        let _ = bench.handle.shutdown_now().await;
        bench.broker.block_jobs(false);
        let error = end(handle).await.unwrap_err();
        assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        bench.handle.ended().await;
        assert!(matches!(kept(&bench, "k").await.1, Kept::Ended { .. }));
    });
}

#[test]
fn a_shutdown_waits_for_other_jobs_and_leaves_detached_ones_in_the_queue() {
    run(async |bench| {
        let detached = detach(&bench, "k", once::call(1)).await;
        let (job, handle) = TaskJob::new(once::call(2));
        bench.handle.submit_async(job).await.unwrap();
        bench.handle.shutdown();
        // The other job has no worker either, so nothing ends.
        sleep(Duration::from_secs(600)).await;
        assert!(!detached.is_finished() && !handle.is_finished());
        handle.cancel();
        let error = end(detached).await.unwrap_err();
        assert!(error.is_disconnected() && error.may_have_run(), "{error}");
        bench.handle.ended().await;
        assert_eq!(bench.info(Store::Jobs).await.messages, 1);
        assert!(matches!(kept(&bench, "k").await.1, Kept::Pending { .. }));
    });
}

#[test]
fn a_shutdown_now_leaves_detached_jobs_in_the_queue() {
    run(async |bench| {
        let handle = detach(&bench, "k", once::call(1)).await;
        let count = bench.handle.shutdown_now().await.unwrap();
        assert_eq!(count, 0);
        let error = end(handle).await.unwrap_err();
        assert!(error.may_have_run(), "{error}");
        bench.handle.ended().await;
        assert_eq!(bench.info(Store::Jobs).await.messages, 1);
        assert_eq!(bench.info(Store::Claims).await.messages, 0);
    });
}
