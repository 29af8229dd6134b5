//! Full windows and full queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futurepool::TaskJob;
use tokio::time::sleep;

use super::bench::{again, end, once, run, run_with, until};
use super::broken::Fault;
use crate::broker::Store;
use crate::submitter::Config;

fn small(config: &mut Config) {
    config.window = 2;
}

#[test]
fn c8_the_submitter_holds_at_most_its_window() {
    run_with(small, async |bench| {
        let mut worker = bench.worker("a").await;
        let first = bench.submit(once::call(1));
        let second = bench.submit(again::call(1));
        let (job, _handle) = TaskJob::new(once::call(3));
        assert!(bench.handle.try_submit(job).unwrap_err().is_full());
        let (job, third) = TaskJob::new(once::call(3));
        let handle = bench.handle.clone();
        let waiting = tokio::task::spawn_local(async move { handle.submit_async(job).await });
        sleep(Duration::from_secs(10)).await;
        assert!(!waiting.is_finished());
        assert_eq!(bench.handle.counts().pending, 2);
        let mut taken = worker.take().await;
        worker.complete(&mut taken).await;
        waiting.await.unwrap().unwrap();
        let mut left = 2;
        while left > 0 {
            let mut taken = worker.take().await;
            worker.complete(&mut taken).await;
            left -= 1;
        }
        assert_eq!(end(first).await.unwrap(), 2);
        assert_eq!(end(second).await.unwrap(), 2);
        assert_eq!(end(third).await.unwrap(), 4);
        assert_eq!(bench.handle.counts().rejected, 1);
    });
}

#[test]
fn a_cancelled_unsent_job_frees_its_place() {
    run_with(small, async |bench| {
        bench.broker.disconnect();
        for n in 0..100 {
            let handle = bench.submit(once::call(n));
            assert!(handle.cancel());
            until(async || bench.handle.counts().pending == 0).await;
        }
    });
}

#[test]
fn c7_a_full_queue_refuses_or_waits_and_drops_nothing() {
    run(async |bench| {
        bench.broker.fail(Store::Jobs, &[Fault::Full; 20]);
        let accepted: Vec<_> = (0..5).map(|n| bench.submit(once::call(n))).collect();
        until(async || bench.handle.is_queue_full()).await;
        let (job, _handle) = TaskJob::new(once::call(9));
        assert!(bench.handle.try_submit(job).unwrap_err().is_full());
        let (job, late) = TaskJob::new(once::call(9));
        let handle = bench.handle.clone();
        let waiting = tokio::task::spawn_local(async move { handle.submit_async(job).await });
        sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        waiting.await.unwrap().unwrap();
        assert!(!bench.handle.is_queue_full());
        let mut worker = bench.worker("a").await;
        for _ in 0..6 {
            let mut taken = worker.take().await;
            worker.complete(&mut taken).await;
        }
        for (n, handle) in accepted.into_iter().enumerate() {
            assert_eq!(end(handle).await.unwrap() as usize, n + 1);
        }
        assert_eq!(end(late).await.unwrap(), 10);
        bench.until_empty().await;
    });
}

#[test]
fn c7_a_full_queue_is_forgotten_once_nothing_waits_for_it() {
    run(async |bench| {
        bench.broker.fail(Store::Jobs, &[Fault::Full; 1000]);
        let handle = bench.submit(once::call(1));
        until(async || bench.handle.is_queue_full()).await;
        handle.cancel();
        end(handle).await.unwrap_err();
        until(async || !bench.handle.is_queue_full()).await;
    });
}

#[test]
fn a_job_that_the_full_queue_refused_is_cancelled_exactly() {
    run(async |bench| {
        bench.broker.fail(Store::Jobs, &[Fault::Full; 1000]);
        let default = bench.submit(once::call(1));
        let idempotent = bench.submit(again::call(1));
        until(async || bench.handle.is_queue_full()).await;
        for handle in [&default, &idempotent] {
            handle.cancel();
        }
        for handle in [default, idempotent] {
            let error = end(handle).await.unwrap_err();
            assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        }
        assert_eq!(bench.handle.counts().pending, 0);
        bench.until_empty().await;
    });
}

#[test]
fn a_shutdown_releases_all_that_wait() {
    run_with(small, async |bench| {
        let mut handles = vec![bench.submit(once::call(1)), bench.submit(once::call(1))];
        let (job, waiting) = TaskJob::new(once::call(1));
        let handle = bench.handle.clone();
        let submit = tokio::task::spawn_local(async move { handle.submit_async(job).await });
        let blocked = bench.handle.clone();
        let (job, blocking) = TaskJob::new(once::call(1));
        let thread = std::thread::spawn(move || blocked.submit(job));
        sleep(Duration::from_secs(1)).await;
        bench.handle.shutdown();
        assert!(submit.await.unwrap().unwrap_err().is_shutdown());
        thread.join().unwrap();
        drop(waiting);
        assert!(end(blocking).await.unwrap_err().is_shutdown());
        let mut worker = bench.worker("a").await;
        for _ in 0..2 {
            let mut taken = worker.take().await;
            worker.complete(&mut taken).await;
        }
        for handle in handles.drain(..) {
            assert_eq!(end(handle).await.unwrap(), 2);
        }
    });
}

#[test]
fn a_callback_that_submits_never_waits_for_the_window() {
    run_with(small, async |bench| {
        let ran = Arc::new(AtomicUsize::new(0));
        let (submitter, count) = (bench.handle.clone(), Arc::clone(&ran));
        let first = bench.submit(once::call(1));
        first.add_done_callback(move |_| {
            for n in 0..5 {
                let (job, _handle) = TaskJob::new(again::call(n));
                submitter.submit(job);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut worker = bench.worker("a").await;
        for _ in 0..6 {
            let mut taken = worker.take().await;
            worker.complete(&mut taken).await;
        }
        until(async || bench.handle.counts().completed == 6).await;
        assert_eq!(ran.load(Ordering::Relaxed), 5);
    });
}

#[test]
fn many_jobs_are_handed_over_at_a_time_and_in_order() {
    run(async |bench| {
        bench.broker.block_jobs(true);
        let handles: Vec<_> = (0..1000).map(|n| bench.submit(again::call(n))).collect();
        until(async || bench.broker.job_publishes() == 256).await;
        bench.broker.block_jobs(false);
        let mut worker = bench.worker("a").await;
        for n in 0..1000 {
            let mut taken = worker.take().await;
            assert_eq!(taken.delivery.message.seq, n + 1);
            worker.complete(&mut taken).await;
        }
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(end(handle).await.unwrap() as usize, n + 1);
        }
        bench.until_empty().await;
    });
}

#[test]
fn a_job_that_had_room_before_the_shutdown_runs_or_was_never_sent() {
    for millis in [0, 1, 20, 100] {
        run(async |bench| {
            let permit = bench.handle.shared.window.try_acquire();
            bench.handle.shutdown();
            sleep(Duration::from_millis(millis)).await;
            let (job, late) = TaskJob::new(once::call(2));
            bench.handle.submit_with(permit, job);
            sleep(Duration::from_secs(1)).await;
            if !late.is_finished() {
                assert!(!late.cancel());
            }
            let error = end(late).await.unwrap_err();
            let exact = error.is_shutdown() || error.is_cancelled();
            assert!(exact && !error.may_have_run(), "{millis}: {error}");
            bench.handle.ended().await;
            assert_eq!(bench.info(Store::Jobs).await.messages, 0);
        });
    }
}
