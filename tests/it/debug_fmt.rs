//! `Debug` and `Display`: every type can be printed in each of its states, without blocking and
//! without `T: Debug`.

use std::error::Error;
use std::io;

use crate::common::{LONG, block_workers, bounded_pool, poll_once, within};
use futurepool::{
    ExecutorExt, JoinError, ReturnWhen, ThreadPool, as_completed, block_on, global, wait,
};
use futures::StreamExt;
use futures::future::{FusedFuture, pending};

#[derive(PartialEq)]
struct Mute;

#[track_caller]
fn assert_says(text: impl std::fmt::Debug, words: &[&str]) {
    let text = format!("{text:?}");
    for word in words {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}

#[test]
fn pools_and_their_builders_name_their_options() {
    let builder = ThreadPool::builder()
        .max_workers(3)
        .thread_name_prefix("named")
        .initializer(|| ());
    assert_says(&builder, &["max_workers: 3", "named", "initializer: true"]);
    assert_says(builder.build().unwrap(), &["max_workers: 3", "queued: 0"]);
    assert_says(global(), &["GlobalPool"]);
}

#[test]
fn a_waiting_submit_async_shows_its_state() {
    within(LONG, "submit_async", || {
        let pool = bounded_pool(1, 1);
        let blocked = block_workers(&pool, 1);
        let queued = pool.submit(|| Mute);
        let mut waits = pool.submit_async(|| Mute);
        assert_says(&waits, &["not waiting"]);
        assert!(poll_once(&mut waits).is_pending());
        assert_says(&waits, &["waiting for room"]);
        assert!(!waits.is_terminated());
        blocked.release();
        let handle = block_on(&mut waits).unwrap();
        assert_says(&waits, &["done"]);
        assert!(waits.is_terminated());
        assert!(handle.join().is_ok_and(|result| result == Mute));
        assert!(queued.join().is_ok());
    });
}

#[test]
fn waits_for_many_handles_show_their_progress() {
    within(LONG, "many", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let mut end = pool.submit(|| Mute);
        let streamed = as_completed([&mut end]);
        assert_says(&streamed, &["AsCompleted"]);
        assert_says(streamed.into_iter(), &["AsCompletedIter"]);
        assert_says(
            as_completed([pending::<()>()]).timeout(LONG),
            &["TimedAsCompleted"],
        );
        assert_says(
            wait([pool.submit(|| Mute)], ReturnWhen::FirstCompleted),
            &["Wait"],
        );
        let map = pool.map([1], |_| Mute);
        assert_says(&map, &["Map"]);
        assert_says(map.into_iter(), &["MapIter"]);
        assert_says(pool.map_unordered([1], |_| Mute), &["MapUnordered"]);
        let mut shutdown = pool.shutdown();
        assert_says(&shutdown, &["Shutdown", "workers: 1"]);
        assert!(!shutdown.is_terminated());
        blocked.release();
        block_on(&mut shutdown);
        assert!(shutdown.is_terminated());
        assert_says(&pool, &["workers: 0"]);
        pool.scope(|scope| assert_says(scope, &["Scope"]));
    });
}

#[test]
fn errors_name_their_kind_and_turn_into_io_errors() {
    within(LONG, "errors", || {
        let pool = bounded_pool(1, 1);
        let blocked = block_workers(&pool, 1);
        let mut queued = pool.submit(|| ());
        assert_says(
            pool.try_submit(|| Mute).unwrap_err(),
            &["SubmitError::Full"],
        );
        let timeout = queued.join_timeout(std::time::Duration::ZERO).unwrap_err();
        assert_says(&timeout, &["JoinError::Timeout"]);
        queued.cancel();
        assert_says(queued.join().unwrap_err(), &["JoinError::Cancelled"]);
        let late = as_completed([pending::<()>()])
            .timeout(std::time::Duration::ZERO)
            .wait_next();
        let late = io::Error::from(late.unwrap().unwrap_err());
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        blocked.release();
        assert_says(
            pool.submit(|| panic!("why")).join().unwrap_err(),
            &["JoinError::Panic", "why"],
        );
        drop(pool.shutdown());
        assert_says(
            pool.submit(|| ()).join().unwrap_err(),
            &["JoinError::Shutdown"],
        );
        assert_says(
            pool.try_submit(|| Mute).unwrap_err(),
            &["SubmitError::Shutdown"],
        );
        let broken = JoinError::broken("no disk");
        assert_says(&broken, &["JoinError::Broken", "no disk"]);
        assert_eq!(broken.source().unwrap().to_string(), "no disk");
        let wrong = ThreadPool::builder().max_workers(0).build().unwrap_err();
        assert_eq!(wrong.field(), "max_workers");
        assert_eq!(io::Error::from(wrong).kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn the_global_pool_is_an_executor_and_maps_both_ways() {
    within(LONG, "global", || {
        let executor: &dyn futurepool::Executor = global();
        assert_eq!(executor.submit(|| 6 * 7).join().unwrap(), 42);
        let mut unordered: Vec<_> = block_on(
            global()
                .map_unordered([1, 2], |n| n * 2)
                .map(Result::unwrap)
                .collect(),
        );
        unordered.sort_unstable();
        assert_eq!(unordered, [2, 4]);
    });
}
