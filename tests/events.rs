//! What the crate says through `tracing`.

mod common;

use std::fmt::{self, Write};
use std::sync::{Mutex, OnceLock};

use common::{LONG, eventually, within};
use futurepool::ThreadPool;
use tracing::{Event, Level, Metadata, Subscriber, field, span};

/// Keeps every event as a line: level, target, fields.
struct Lines;

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("futurepool")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl field::Visit for Line {
            fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
                write!(self.0, "{}={value:?} ", field.name()).unwrap();
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        LINES
            .lock()
            .unwrap()
            .push((*event.metadata().level(), line.0));
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn listen() {
    static SET: OnceLock<()> = OnceLock::new();
    SET.get_or_init(|| tracing::subscriber::set_global_default(Lines).unwrap());
}

/// Waits for an event of this level that holds all these words.
#[track_caller]
fn heard(level: Level, words: &[&str]) {
    let fits =
        |(of, line): &(Level, String)| *of == level && words.iter().all(|w| line.contains(w));
    eventually(&format!("{level} {words:?}"), || {
        LINES.lock().unwrap().iter().any(fits)
    });
}

#[test]
fn a_worker_starts_and_ends() {
    listen();
    within(LONG, "debug events", || {
        let pool = ThreadPool::builder()
            .max_workers(1)
            .thread_name_prefix("told")
            .build()
            .unwrap();
        pool.submit(|| ()).join().unwrap();
        heard(Level::DEBUG, &["a worker starts", "pool=told", "worker=0"]);
        pool.shutdown().join();
        heard(Level::DEBUG, &["a worker ends", "pool=told", "worker=0"]);
    });
}

#[test]
fn a_job_panicked_with_its_message_and_place() {
    listen();
    within(LONG, "panic events", || {
        let pool = ThreadPool::new(1);
        let line = line!() + 1;
        let job = pool.submit(|| panic!("event of a job"));
        job.join().unwrap_err();
        let place = format!("events.rs:{line}:");
        heard(Level::ERROR, &["panicked", "event of a job", &place]);
    });
}

#[test]
fn a_callback_a_waker_and_a_destructor_that_panic_are_reported() {
    listen();
    within(LONG, "contained panics", || {
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
        let blocked = common::block_workers(&pool, 1);
        let mut handle = pool.submit(|| ());
        handle.add_done_callback(|_| panic!("event of a callback"));
        let waker = std::sync::Arc::new(Panics("unused")).into();
        assert!(common::poll_with(&mut handle, &waker).is_pending());
        std::mem::forget(waker);
        drop(pool.submit(|| Panics("event of a result")));
        let captured = Panics("event of a closure");
        assert!(pool.submit(move || drop(captured)).cancel());
        blocked.release();
        // Not joined before: its waker would take the place of the one that panics.
        eventually("it is done", || handle.is_finished());
        handle.join().unwrap();
        heard(
            Level::ERROR,
            &["a done callback panicked", "event of a callback"],
        );
        heard(Level::ERROR, &["a waker panicked", "event of a waker"]);
        heard(Level::ERROR, &["destructor", "result", "event of a result"]);
        heard(
            Level::ERROR,
            &["destructor", "closure", "event of a closure"],
        );
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
    });
}

#[test]
fn a_broken_pool_tells_its_cause() {
    listen();
    within(LONG, "broken events", || {
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
