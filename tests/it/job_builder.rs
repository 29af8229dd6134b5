//! Jobs with options. What a deadline does is in `expiry.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futurepool::{JobBuilder, Priority, ThreadPool};

use crate::common::{LONG, block_workers, bounded_pool, poll_once};

fn with_all_options<F>(pool: &ThreadPool, closure: F) -> JobBuilder<'_, F> {
    pool.job(closure)
        .label("sum")
        .priority(Priority::High)
        .deadline(Instant::now() + LONG)
        .expires_in(LONG)
}

#[test]
fn a_job_is_submitted_in_each_of_three_ways() {
    let pool = ThreadPool::new(1);
    assert_eq!(pool.job(|| 1).submit().join().unwrap(), 1);
    assert_eq!(with_all_options(&pool, || 2).submit().join().unwrap(), 2);
    let handle = with_all_options(&pool, || 3).try_submit().unwrap();
    assert_eq!(handle.join().unwrap(), 3);
    let handle = futurepool::block_on(with_all_options(&pool, || 4).submit_async());
    assert_eq!(handle.unwrap().join().unwrap(), 4);
    assert_eq!(pool.metrics().completed, 4);
}

#[test]
fn the_process_wide_pool_has_jobs_with_options_too() {
    let job = futurepool::global().job(|| 7).label("seven");
    assert_eq!(job.submit().join().unwrap(), 7);
}

#[test]
fn an_error_names_the_place_of_the_submission() {
    let pool = ThreadPool::new(1);
    let job = pool.job(|| panic!("at this place"));
    let line = line!() + 1;
    let handles = [job.submit::<()>(), {
        let job = pool.job(|| panic!("or at that one")).label("with options");
        job.try_submit::<()>().unwrap()
    }];
    let lines = handles.map(|handle| handle.join().unwrap_err().location().unwrap().line());
    assert_eq!(lines, [line, line + 2]);
}

#[test]
fn a_builder_that_is_dropped_drops_its_closure_and_submits_nothing() {
    let pool = ThreadPool::new(1);
    let captured = Arc::new(());
    let of_job = Arc::clone(&captured);
    drop(with_all_options(&pool, move || drop(of_job)));
    assert_eq!(Arc::strong_count(&captured), 1);
    drop(with_all_options(&pool, || ()).submit_async::<()>());
    assert_eq!(pool.metrics().submitted, 0);
}

#[test]
fn what_is_refused_comes_back() {
    let pool = bounded_pool(1, 1);
    let blocked = block_workers(&pool, 1);
    let queued = pool.submit(|| ());
    let error = with_all_options(&pool, || 5)
        .try_submit::<i32>()
        .unwrap_err();
    assert!(error.is_full() && !error.is_expired());
    assert_eq!(error.into_inner()(), 5);
    let mut waiting = with_all_options(&pool, || 6).submit_async();
    assert!(poll_once(&mut waiting).is_pending());
    blocked.release();
    let handle = futurepool::block_on(waiting).unwrap();
    assert_eq!((handle.join().unwrap(), queued.join().unwrap()), (6, ()));

    pool.shutdown().join();
    let error = with_all_options(&pool, || 7)
        .try_submit::<i32>()
        .unwrap_err();
    assert!(error.is_shutdown());
    assert_eq!(error.into_inner()(), 7);
    let error = with_all_options(&pool, || 8).submit::<i32>().join();
    assert!(error.unwrap_err().is_shutdown());
    let late = pool.job(|| 9).expires_in(Duration::ZERO);
    assert!(
        late.submit().join().unwrap_err().is_shutdown(),
        "which comes first"
    );
}

#[test]
fn a_builder_says_what_it_has() {
    let pool = ThreadPool::new(1);
    let text = format!("{:?}", pool.job(|| ()).label("sum").priority(Priority::Low));
    assert!(text.contains("sum") && text.contains("Low"), "{text}");
    assert_eq!(Priority::default(), Priority::Normal);
}
