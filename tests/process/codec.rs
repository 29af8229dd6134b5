//! Encoding and decoding that fails, in each of the four places, and what else has made pools of
//! processes hang. The cases and their names are those of CPython's `test_deadlock.py`.

use std::fmt;
use std::time::Duration;

use futurepool::{Call, JoinError, JoinHandle, ProcessPool, Task, task};
use rustix::process::Signal;
use serde::de::{Deserializer, Error as _};
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};

use crate::common::{LONG, within};
use crate::jobs::{self, quiet, raise};

/// What a bad value does when it is encoded or decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    Error,
    Panic,
    Exit,
    Crash,
}

impl Act {
    fn of(number: u8) -> Self {
        [
            Self::Nothing,
            Self::Error,
            Self::Panic,
            Self::Exit,
            Self::Crash,
        ][usize::from(number)]
    }

    fn act(self) -> Result<(), &'static str> {
        match self {
            Self::Nothing => Ok(()),
            Self::Error => Err("this value is bad"),
            Self::Panic => panic!("this value panics"),
            Self::Exit => std::process::exit(1),
            Self::Crash => raise(Signal::SEGV),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Bad {
    at_encoding: Act,
    at_decoding: Act,
}

const GOOD: Bad = Bad {
    at_encoding: Act::Nothing,
    at_decoding: Act::Nothing,
};

fn at_encoding(at_encoding: Act) -> Bad {
    Bad {
        at_encoding,
        ..GOOD
    }
}

fn at_decoding(at_decoding: Act) -> Bad {
    Bad {
        at_decoding,
        ..GOOD
    }
}

impl Serialize for Bad {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.at_encoding.act().map_err(S::Error::custom)?;
        (self.at_decoding as u8).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bad {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let act = Act::of(u8::deserialize(deserializer)?.min(4));
        act.act().map_err(D::Error::custom)?;
        Ok(GOOD)
    }
}

/// Does nothing with it.
#[task]
fn take(bad: Bad) -> bool {
    bad.at_encoding == Act::Nothing
}

/// Makes a bad value in the worker. The numbers are those of [`Act`].
#[task]
fn make(at_encoding: u8, at_decoding: u8) -> Bad {
    Bad {
        at_encoding: Act::of(at_encoding),
        at_decoding: Act::of(at_decoding),
    }
}

fn make_at_encoding(act: Act) -> Call<make> {
    make::call(act as u8, Act::Nothing as u8)
}

fn make_at_decoding(act: Act) -> Call<make> {
    make::call(Act::Nothing as u8, act as u8)
}

fn error_of<T: fmt::Debug>(handle: JoinHandle<T>) -> JoinError {
    handle.join().unwrap_err()
}

/// Runs a bad call between good ones, on one worker and on two, and checks its error. `survives`: the
/// worker must not be replaced.
#[track_caller]
fn check<T: Task<Output: fmt::Debug>>(
    survives: bool,
    call: impl Fn() -> Call<T> + Send + 'static,
    is_right: impl Fn(&JoinError) -> bool + Send + 'static,
) {
    within(LONG, "a bad call", move || {
        let pool = quiet(1).build().unwrap();
        let pid = pool.submit(jobs::own_pid::call());
        let bad = pool.submit(call());
        let next = pool.submit(jobs::own_pid::call());
        let error = error_of(bad);
        assert!(is_right(&error), "{error:?}: {error}");
        let same = pid.join().unwrap() == next.join().unwrap();
        assert_eq!(same, survives, "{error}");
        let now = jobs::assert_balanced(&pool);
        assert_eq!((now.submitted, now.completed), (3, 2));
        drop(pool);

        // The pool ends although the call fails after the shutdown has begun.
        let pool = quiet(2).build().unwrap();
        let handles: Vec<_> = (0..4).map(|_| pool.submit(call())).collect();
        pool.shutdown().join();
        for handle in handles {
            assert!(handle.is_finished());
            let error = error_of(handle);
            assert!(is_right(&error), "{error}");
        }
    });
}

fn is_codec(may_have_run: bool) -> impl Fn(&JoinError) -> bool {
    move |error| error.is_codec() && error.may_have_run() == may_have_run
}

fn is_crash(error: &JoinError) -> bool {
    error.is_crashed() && error.may_have_run()
}

#[test]
fn promise_12_error_at_task_pickle() {
    check(
        true,
        || take::call(at_encoding(Act::Error)),
        is_codec(false),
    );
    check(
        true,
        || take::call(at_encoding(Act::Panic)),
        is_codec(false),
    );
}

#[test]
fn promise_12_exit_at_task_unpickle() {
    check(false, || take::call(at_decoding(Act::Exit)), is_crash);
}

#[test]
fn promise_12_error_at_task_unpickle() {
    check(
        true,
        || take::call(at_decoding(Act::Error)),
        is_codec(false),
    );
    check(
        true,
        || take::call(at_decoding(Act::Panic)),
        is_codec(false),
    );
}

#[test]
fn promise_12_crash_at_task_unpickle() {
    check(false, || take::call(at_decoding(Act::Crash)), is_crash);
}

#[test]
fn promise_12_crash_during_func_exec_on_worker() {
    check(false, jobs::segfault::call, is_crash);
}

#[test]
fn promise_12_exit_during_func_exec_on_worker() {
    check(false, || jobs::exit::call(1), is_crash);
}

#[test]
fn promise_12_error_during_func_exec_on_worker() {
    within(LONG, "a panic", || {
        let pool = quiet(1).build().unwrap();
        let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
        let error = error_of(pool.submit(jobs::panics::call("no luck".to_owned())));
        assert_eq!(error.panic_message(), Some("no luck"));
        assert_eq!(pool.submit(jobs::own_pid::call()).join().unwrap(), pid);
        let now = jobs::assert_balanced(&pool);
        assert_eq!((now.completed, now.panicked), (2, 1));
    });
}

#[test]
fn promise_12_crash_during_result_pickle_on_worker() {
    check(false, || make_at_encoding(Act::Crash), is_crash);
}

#[test]
fn promise_12_exit_during_result_pickle_on_worker() {
    check(false, || make_at_encoding(Act::Exit), is_crash);
}

#[test]
fn promise_12_error_during_result_pickle_on_worker() {
    check(true, || make_at_encoding(Act::Error), is_codec(true));
    check(true, || make_at_encoding(Act::Panic), is_codec(true));
}

#[test]
fn promise_12_error_during_result_unpickle_in_result_handler() {
    check(true, || make_at_decoding(Act::Error), is_codec(true));
}

/// An exit would end this process, as it should. Python's exit is an exception, as a panic is.
#[test]
fn promise_12_exit_during_result_unpickle_in_result_handler() {
    check(true, || make_at_decoding(Act::Panic), is_codec(true));
}

#[test]
fn promise_12_shutdown_deadlock() {
    within(LONG, "a crash after the shutdown", || {
        #[task]
        fn sleep_and_abort(millis: u64) {
            std::thread::sleep(Duration::from_millis(millis));
            std::process::abort();
        }
        let pool = quiet(2).build().unwrap();
        let handle = pool.submit(sleep_and_abort::call(100));
        pool.shutdown().join();
        assert!(error_of(handle).is_crashed());
    });
}

#[test]
fn promise_12_shutdown_deadlock_pickle() {
    within(LONG, "an error after the shutdown", || {
        let pool = quiet(2).build().unwrap();
        assert_eq!(pool.submit(jobs::add::call(40, 2)).join().unwrap(), 42);
        let handle = pool.submit(take::call(at_encoding(Act::Error)));
        // Not waited for.
        drop(pool.shutdown());
        assert!(error_of(handle).is_codec());
        pool.shutdown().join();
    });
}

#[test]
fn promise_12_crash_big_data() {
    within(LONG, "crashes with large arguments", || {
        #[task]
        fn abort_with(data: Vec<u8>) -> usize {
            if data.len() > 1 {
                std::process::abort();
            }
            data.len()
        }
        let pool = quiet(2).build().unwrap();
        let handles: Vec<_> = (0..10)
            .map(|_| pool.submit(abort_with::call(vec![b'a'; 4 << 20])))
            .collect();
        for handle in handles {
            assert!(is_crash(&error_of(handle)));
        }
        assert_eq!(pool.submit(abort_with::call(vec![1])).join().unwrap(), 1);
    });
}

/// Submits many jobs, each with an earlier limit than the last. The socket that wakes the supervisor
/// must not fill up.
#[test]
fn promise_12_should_not_deadlock_if_wakeup_pipe_full() {
    within(LONG, "many submits", || {
        let limit = Duration::from_secs(600);
        let pool = quiet(2).time_limit(limit).build().unwrap();
        let submit =
            |n| pool.submit(jobs::add::call(n, 0).time_limit(limit - Duration::from_millis(n)));
        let handles: Vec<_> = (0..2_000).map(submit).collect();
        let sum: u64 = handles
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .sum();
        assert_eq!(sum, 1_999_000);
    });
}

fn limited(max: u64) -> ProcessPool {
    quiet(1).max_payload(max).build().unwrap()
}

#[test]
fn promise_12_what_is_too_large_is_an_error_of_that_job_alone() {
    within(LONG, "max_payload", || {
        let max = 100_000;
        let pool = limited(max);
        let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
        let error = error_of(pool.submit(jobs::echo::call(vec![1; 100_001])));
        assert!(error.is_codec() && !error.may_have_run(), "{error}");
        assert!(error.to_string().contains("max_payload"), "{error}");
        #[task]
        fn grow(len: usize) -> Vec<u8> {
            vec![2; len]
        }
        let error = error_of(pool.submit(grow::call(100_001)));
        assert!(error.is_codec() && error.may_have_run(), "{error}");
        assert!(error.to_string().contains("max_payload"), "{error}");
        // What is close to the limit is not affected by what the pool adds.
        let bytes = vec![3; 99_900];
        assert_eq!(
            pool.submit(jobs::echo::call(bytes.clone())).join().unwrap(),
            bytes
        );
        // A panic has a message, whatever the limit is.
        let error = error_of(limited(200).submit(jobs::panics::call("x".repeat(100))));
        assert!(error.is_panic(), "{error}");
        assert_eq!(pool.submit(jobs::own_pid::call()).join().unwrap(), pid);
    });
}

#[derive(Debug, Deserialize, Serialize)]
struct Nested(Vec<Nested>);

#[task]
fn nest(depth: usize) -> Nested {
    (1..depth).fold(Nested(Vec::new()), |inner, _| Nested(vec![inner]))
}

#[task]
fn depth_of(mut nested: Nested) -> usize {
    let mut depth = 1;
    while let Some(inner) = nested.0.pop() {
        (nested, depth) = (inner, depth + 1);
    }
    depth
}

/// Otherwise a result could overflow the stack of the pool's process.
#[test]
fn promise_12_what_is_nested_too_deep_is_an_error_of_that_job_alone() {
    within(LONG, "nested", || {
        let pool = quiet(1).build().unwrap();
        assert!(pool.submit(nest::call(200)).join().is_ok());
        for depth in [300, 1_000] {
            let error = pool.submit(nest::call(depth)).join().unwrap_err();
            assert!(error.is_codec() && error.may_have_run(), "{error}");
            let error = pool.submit(depth_of::call(nest(depth))).join().unwrap_err();
            assert!(error.is_codec() && !error.may_have_run(), "{error}");
        }
        assert_eq!(pool.submit(depth_of::call(nest(200))).join().unwrap(), 200);
    });
}

/// The initializer is no job: it neither uses a worker up nor replaces it.
#[test]
fn an_initializer_does_not_count_as_a_job_of_its_worker() {
    within(LONG, "an initializer and recycling", || {
        for jobs in [1, 2] {
            let builder = quiet(1).max_jobs_per_worker(jobs);
            let pool = builder.initializer(jobs::nothing::call()).build().unwrap();
            let pids: Vec<_> = (0..2 * jobs)
                .map(|_| pool.submit(jobs::own_pid::call()).join().unwrap())
                .collect();
            let workers: Vec<_> = pids.chunk_by(|a, b| a == b).collect();
            assert_eq!(workers.len(), 2, "{pids:?}");
            assert!(
                workers.iter().all(|same| same.len() as u64 == jobs),
                "{pids:?}"
            );
        }
    });
}
