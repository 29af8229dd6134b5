//! Events that the crate emits through `tracing`. No event may have two fields of one name: each test
//! here checks the events that it causes. `tests/refused_threads.rs` checks those of spawn failures.

use crate::common::event_log::EventLog;
use crate::common::{child, eventually};
use futurepool::ThreadPool;
use tracing::Level;

/// Waits for an event of `level` that has each of `words` in its fields.
#[track_caller]
fn heard(level: Level, words: &[&str]) {
    eventually(&format!("{level} {words:?}"), || {
        EventLog::contains_at(level, words)
    });
    EventLog::assert_distinct_field_names();
}

#[test]
fn the_start_and_the_end_of_a_worker_are_reported() {
    child::alone(
        "events::the_start_and_the_end_of_a_worker_are_reported",
        || {
            EventLog::install();
            let pool = ThreadPool::builder()
                .max_workers(1)
                .thread_name_prefix("told")
                .build()
                .unwrap();
            pool.submit(|| ()).join().unwrap();
            heard(Level::DEBUG, &["a worker starts", "pool=told", "worker=0"]);
            pool.shutdown().join();
            heard(Level::DEBUG, &["a worker ends", "pool=told", "worker=0"]);
        },
    );
}

#[test]
fn a_panicked_job_is_reported_with_its_message_and_location() {
    child::alone(
        "events::a_panicked_job_is_reported_with_its_message_and_location",
        || {
            EventLog::install();
            let pool = ThreadPool::new(1);
            let line = line!() + 1;
            let job = pool.submit(|| panic!("event of a job"));
            job.join().unwrap_err();
            let place = format!("events.rs:{line}:");
            heard(Level::ERROR, &["panicked", "event of a job", &place]);
            heard(Level::ERROR, &["panic=\"event of a job\""]);
        },
    );
}

#[test]
fn a_callback_a_waker_and_a_destructor_that_panic_are_reported() {
    child::alone(
        "events::a_callback_a_waker_and_a_destructor_that_panic_are_reported",
        || {
            EventLog::install();
            struct Panics(&'static str);
            impl Drop for Panics {
                fn drop(&mut self) {
                    panic!("{}", self.0);
                }
            }
            impl std::task::Wake for Panics {
                fn wake(self: std::sync::Arc<Self>) {
                    std::mem::forget(self);
                    panic!("event of a waker");
                }
            }
            let pool = ThreadPool::new(1);
            let blocked = crate::common::block_workers(&pool, 1);
            let mut handle = pool.submit(|| ());
            handle.add_done_callback(|_| panic!("event of a callback"));
            let waker = std::sync::Arc::new(Panics("unused")).into();
            assert!(crate::common::poll_with(&mut handle, &waker).is_pending());
            std::mem::forget(waker);
            drop(pool.submit(|| Panics("event of a result")));
            let captured = Panics("event of a closure");
            assert!(pool.submit(move || drop(captured)).cancel());
            blocked.release();
            // A join would replace the panicking waker with its own.
            eventually("it is done", || handle.is_finished());
            handle.join().unwrap();
            heard(
                Level::ERROR,
                &["a done callback panicked", "event of a callback"],
            );
            heard(
                Level::ERROR,
                &["what=\"a waker\"", "panic=\"event of a waker\""],
            );
            heard(Level::ERROR, &["a waker panicked", "event of a waker"]);
            heard(Level::ERROR, &["destructor", "result", "event of a result"]);
            heard(
                Level::ERROR,
                &["destructor", "closure", "event of a closure"],
            );
            assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
        },
    );
}

#[test]
fn a_broken_pool_is_reported_with_its_cause() {
    child::alone("events::a_broken_pool_is_reported_with_its_cause", || {
        EventLog::install();
        let builder = ThreadPool::builder().thread_name_prefix("cracked");
        let pool = builder
            .initializer(|| Err::<(), _>("event of a cause"))
            .build()
            .unwrap();
        assert!(pool.submit(|| ()).join().unwrap_err().is_broken());
        heard(
            Level::ERROR,
            &["broken", "pool=cracked", "event of a cause"],
        );
    });
}
