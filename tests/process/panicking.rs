//! Panics in a worker.

use std::panic::Location;

use futurepool::process::WorkerStdio;
use futurepool::{ProcessPool, task};

use crate::common::{LONG, within};

#[task]
fn divide(a: u32, b: u32) -> u32 {
    if b == 1 {
        std::panic::panic_any(String::from("an owned text"));
    }
    if b == 2 {
        std::panic::panic_any(a);
    }
    a.checked_div(b)
        .expect(concat!("no zero in line ", line!()))
}

#[task]
fn pid() -> u32 {
    std::process::id()
}

#[test]
fn promise_11_a_panic_carries_message_and_location_and_the_worker_lives_on() {
    within(LONG, "panic", || {
        let builder = ProcessPool::builder().max_workers(1);
        let pool = builder.stderr(WorkerStdio::null()).build().unwrap();
        let worker = pool.submit(pid::call()).join().unwrap();

        let here = Location::caller().line() + 1;
        let error = pool.submit(divide::call(1, 0)).join().unwrap_err();
        assert!(error.is_panic() && !error.is_crashed() && !error.is_codec());
        let line = error
            .panic_message()
            .unwrap()
            .strip_prefix("no zero in line ");
        let place = format!("{}:{}:", file!(), line.unwrap());
        let location = error.panic_location().unwrap();
        assert!(location.starts_with(&place), "{location} is not {place}");
        let submit = error.location().unwrap();
        assert_eq!((submit.file(), submit.line()), (file!(), here));
        assert_eq!(error.exit_status(), None, "it has not ended");
        assert!(error.may_have_run());
        let text = error.to_string();
        for part in [
            "no zero",
            location,
            "panicking::divide",
            &worker.to_string(),
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        let payload = error.into_panic().downcast::<String>().unwrap();
        assert!(payload.starts_with("no zero"));

        let error = pool.submit(divide::call(1, 1)).join().unwrap_err();
        assert_eq!(error.panic_message(), Some("an owned text"));
        // What is no text cannot be sent.
        let error = pool.submit(divide::call(1, 2)).join().unwrap_err();
        assert!(error.is_panic() && error.panic_location().is_some());

        assert_eq!(pool.submit(pid::call()).join().unwrap(), worker);
        assert_eq!(pool.metrics().panicked, 3);
    });
}
