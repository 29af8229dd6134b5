//! `tracing` events of workers.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use futurepool::{ProcessPool, task};
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use crate::common::child;

#[task]
fn emit(name: String) -> [bool; 5] {
    tracing::error!(target: "my::target", name, answer = 42, "it is {name}");
    tracing::info!("an info of {name}");
    tracing::debug!("a debug of {name}");
    let other = name.clone();
    let of_thread = thread::spawn(move || tracing::warn!(%other, "of a thread"));
    of_thread.join().unwrap();
    [
        tracing::enabled!(Level::ERROR),
        tracing::enabled!(Level::WARN),
        tracing::enabled!(Level::INFO),
        tracing::enabled!(Level::DEBUG),
        tracing::enabled!(Level::TRACE),
    ]
}

#[task]
fn emit_many(count: u32) {
    for n in 0..count {
        tracing::info!(
            n,
            "event number {n}, with a text of its own: {}",
            n ^ 12_345
        );
    }
}

/// Keeps what a subscriber writes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(bytes).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[track_caller]
fn line_with<'a>(log: &'a str, words: &[&str]) -> &'a str {
    let matches = |line: &&str| words.iter().all(|word| line.contains(word));
    let line = log.lines().find(matches);
    line.unwrap_or_else(|| panic!("no line with {words:?} in:\n{log}"))
}

#[test]
fn promise_21_events_of_a_worker_come_out_below_the_span_of_the_submit() {
    let test = "events::promise_21_events_of_a_worker_come_out_below_the_span_of_the_submit";
    child::alone(test, || {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(Level::INFO);
        subscriber.with_writer(log.clone()).init();
        let pool = ProcessPool::builder().max_workers(1).build().unwrap();
        let jobs = ["first", "second"].map(|name| {
            let span = tracing::info_span!("request", id = name);
            span.in_scope(|| pool.submit(emit::call(name.into())))
        });
        for job in jobs {
            let enabled = job.join().unwrap();
            assert_eq!(enabled, [true, true, true, false, false], "no more is sent");
        }
        let pid = pool.workers()[0].pid.to_string();
        let log = log.take();
        for name in ["first", "second"] {
            let span = format!("request{{id=\"{name}\"}}");
            let worker = format!("worker={pid}");
            let task = "process::events::emit";
            let text = format!("it is {name}");
            let words = [
                "ERROR",
                &span,
                "futurepool::worker",
                &text,
                task,
                &worker,
                "my::target",
                "answer=42",
            ];
            line_with(&log, &words);
            line_with(&log, &["INFO", &span, &format!("an info of {name}")]);
            line_with(
                &log,
                &["WARN", &span, "of a thread", &format!("other={name}")],
            );
        }
        assert!(!log.contains("a debug of"), "{log}");
    });
}

#[test]
fn promise_21_without_a_subscriber_no_events_are_sent() {
    let test = "events::promise_21_without_a_subscriber_no_events_are_sent";
    child::alone(test, || {
        let pool = ProcessPool::builder().max_workers(1).build().unwrap();
        let enabled = pool.submit(emit::call("none".into())).join().unwrap();
        assert_eq!(enabled, [false; 5]);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn promise_21_events_leak_no_memory() {
    child::alone("events::promise_21_events_leak_no_memory", || {
        let subscriber = tracing_subscriber::fmt().with_max_level(Level::INFO);
        subscriber.with_writer(io::sink).init();
        let pool = ProcessPool::builder().max_workers(1).build().unwrap();
        let resident = |pid: u32| crate::memory::resident(pid);
        pool.submit(emit_many::call(20_000)).join().unwrap();
        let worker = pool.workers()[0].pid;
        let before = (resident(std::process::id()), resident(worker));
        pool.submit(emit_many::call(80_000)).join().unwrap();
        let after = (resident(std::process::id()), resident(worker));
        // Each event has some 100 bytes.
        assert!(after.0 < before.0 + (6 << 20), "{before:?} {after:?}");
        assert!(after.1 < before.1 + (6 << 20), "{before:?} {after:?}");
    });
}
