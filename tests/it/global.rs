//! The process-wide pool: its methods, and how it is created. Each test needs a process of its own.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread;

use crate::common::{child, eventually, poll_once, spawn_until_asleep};
use futurepool::{GlobalPool, InitError, ThreadPool, global};

#[test]
fn init_before_the_first_use_sets_the_options_and_works_once() {
    child::alone(
        "global::init_before_the_first_use_sets_the_options_and_works_once",
        || {
            let pool = GlobalPool::init(ThreadPool::builder().max_workers(3)).unwrap();
            assert!(std::ptr::eq(pool, global()));
            assert_eq!((pool.max_workers(), global().max_workers()), (3, 3));
            let name = futurepool::submit(|| thread::current().name().map(String::from));
            assert_eq!(name.join().unwrap().as_deref(), Some("global-0"));
            let again = GlobalPool::init(ThreadPool::builder()).unwrap_err();
            assert!(again.is_already_initialized() && again.build_error().is_none());
            assert!(again.source().is_none());
            assert!(again.to_string().contains("already"), "{again}");
            assert_eq!(io::Error::from(again).kind(), io::ErrorKind::AlreadyExists);
        },
    );
}

#[test]
fn init_after_the_first_use_is_refused_whatever_the_builder_says() {
    child::alone(
        "global::init_after_the_first_use_is_refused_whatever_the_builder_says",
        || {
            let before = global().max_workers();
            for workers in [before + 1, 0] {
                let error = GlobalPool::init(ThreadPool::builder().max_workers(workers));
                assert!(error.unwrap_err().is_already_initialized());
            }
            assert_eq!(global().max_workers(), before);
            assert_eq!(before, ThreadPool::default().max_workers());
        },
    );
}

#[test]
fn init_with_an_invalid_option_says_which_and_may_be_tried_again() {
    fn assert_bounds<T: Error + Send + Sync + 'static>(_: &T) {}
    child::alone(
        "global::init_with_an_invalid_option_says_which_and_may_be_tried_again",
        || {
            let error: InitError =
                GlobalPool::init(ThreadPool::builder().max_workers(0)).unwrap_err();
            assert_bounds(&error);
            assert!(!error.is_already_initialized());
            let build = error.build_error().unwrap();
            assert_eq!(build.field(), "max_workers");
            let source = error.source().unwrap();
            assert_eq!(source.to_string(), build.to_string());
            assert!(error.to_string().contains("max_workers"), "{error}");
            assert!(format!("{error:?}").contains("max_workers"), "{error:?}");
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
            let builder = ThreadPool::builder()
                .max_workers(1)
                .thread_name_prefix("mine");
            GlobalPool::init(builder).unwrap();
            let name = futurepool::submit(|| thread::current().name().map(String::from));
            assert_eq!(name.join().unwrap().as_deref(), Some("mine-0"));
        },
    );
}

#[test]
fn of_many_that_init_at_once_one_succeeds() {
    child::alone("global::of_many_that_init_at_once_one_succeeds", || {
        let barrier = Arc::new(std::sync::Barrier::new(8));
        let threads: Vec<_> = (1..=8)
            .map(|workers| {
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    barrier.wait();
                    GlobalPool::init(ThreadPool::builder().max_workers(workers))
                        .map(|pool| pool.max_workers() == workers)
                })
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        let (ok, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((ok.len(), ok[0].clone().unwrap()), (1, true));
        let already = |result: Result<_, InitError>| result.unwrap_err().is_already_initialized();
        assert!(refused.into_iter().all(already));
    });
}

#[test]
fn try_submit_accepts_refuses_and_names_the_callers_line() {
    child::alone(
        "global::try_submit_accepts_refuses_and_names_the_callers_line",
        || {
            let builder = ThreadPool::builder().max_workers(1).queue_capacity(1);
            let pool = GlobalPool::init(builder).unwrap();
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let (started, starts) = std::sync::mpsc::channel();
            let busy = pool.submit(move || {
                started.send(()).unwrap();
                wait.recv()
            });
            starts.recv().unwrap();
            let panics = || panic!("on purpose");
            let (queued, line) = (pool.try_submit(panics), line!());
            let refused = pool.try_submit(|| 7).unwrap_err();
            assert!(refused.is_full());
            assert_eq!(refused.into_inner()(), 7);
            // A plain submit then waits for room.
            let blocked = spawn_until_asleep(|| futurepool::submit(|| 8).join().unwrap());
            assert!(!blocked.is_finished());
            go.send(()).unwrap();
            busy.join().unwrap().unwrap();
            let error = queued
                .expect("there was room")
                .join()
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("global.rs:{line}:")), "{error}");
            assert_eq!(blocked.join().unwrap(), 8);
        },
    );
}

#[cfg(feature = "tokio")]
#[test]
fn init_captures_only_a_runtime_that_was_given() {
    fn in_runtime() -> Option<tokio::runtime::Id> {
        let handle = futurepool::submit(|| tokio::runtime::Handle::try_current().ok());
        handle.join().unwrap().map(|handle| handle.id())
    }
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.build().unwrap()
    };
    child::alone(
        "global::init_captures_only_a_runtime_that_was_given",
        move || {
            let (current, given) = (runtime(), runtime());
            let _entered = current.enter();
            let builder = ThreadPool::builder().tokio_handle(given.handle().clone());
            GlobalPool::init(builder).unwrap();
            assert_eq!(in_runtime(), Some(given.handle().id()));
        },
    );
}

#[cfg(feature = "tokio")]
#[test]
fn init_ignores_the_current_runtime() {
    child::alone("global::init_ignores_the_current_runtime", || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        GlobalPool::init(ThreadPool::builder()).unwrap();
        let handle = futurepool::submit(|| tokio::runtime::Handle::try_current().is_ok());
        assert!(!handle.join().unwrap());
    });
}

#[test]
fn it_can_be_waited_for_and_awaits_room() {
    child::alone("global::it_can_be_waited_for_and_awaits_room", || {
        let builder = ThreadPool::builder().max_workers(1).queue_capacity(1);
        let pool = GlobalPool::init(builder).unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let running = pool.submit(move || wait.recv());
        eventually("the job runs", || running.is_running());
        let queued = pool.submit(|| 2);
        let mut waiting = pool.submit_async(|| 3);
        assert!(poll_once(&mut waiting).is_pending(), "the queue is full");
        let mut idle = pool.wait_idle();
        assert!(poll_once(&mut idle).is_pending());
        drop(go);
        let late = futurepool::block_on(waiting).unwrap();
        pool.wait_idle().join();
        assert!(queued.is_finished() && late.is_finished());
        assert!(running.join().unwrap().is_err());
    });
}
