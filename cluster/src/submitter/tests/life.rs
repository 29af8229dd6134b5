//! From a submit to the outcome.

use super::bench::{again, end, once, run};

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
