//! Workers that do not start as they should.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::process::WorkerStdio;
use futurepool::{JoinError, ProcessPool, ProcessPoolBuilder, task};
use tempfile::TempDir;

use crate::common::{LONG, child, eventually, within};
use crate::garbage::{is_worker, program};
use crate::procs::{Mark, children};

#[task]
fn nothing() {}

#[task]
fn crash() {
    process::abort();
}

/// Counts the starts of workers in a file.
struct Starts(TempDir);

impl Starts {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("starts")
    }

    fn count(&self) -> usize {
        let starts = fs::read_to_string(self.file()).unwrap_or_default();
        starts.lines().count()
    }

    fn of(&self, builder: ProcessPoolBuilder) -> ProcessPoolBuilder {
        builder.env("FUTUREPOOL_TEST_STARTS", self.file())
    }
}

/// Submits many jobs. All of them fail because of the start, and the last ones because the pool is
/// broken.
#[track_caller]
fn fail(pool: &ProcessPool) -> Vec<JoinError> {
    let jobs: Vec<_> = (0..50).map(|_| pool.submit(nothing::call())).collect();
    let errors: Vec<_> = jobs
        .into_iter()
        .map(|job| job.join().unwrap_err())
        .collect();
    for error in &errors {
        assert!(error.is_spawn_failed() || error.is_broken(), "{error}");
        assert!(!error.may_have_run() && !error.is_crashed(), "{error}");
    }
    assert!(errors.last().unwrap().is_broken());
    let late = pool.submit(nothing::call()).join().unwrap_err();
    assert!(late.is_broken(), "{late}");
    assert!(pool.try_submit(nothing::call()).unwrap_err().is_broken());
    let metrics = pool.metrics();
    assert_eq!(
        metrics.submitted,
        metrics.cancelled + metrics.failed,
        "{metrics:?}"
    );
    errors
}

#[track_caller]
fn assert_all_say(errors: &[JoinError], words: &[&str]) {
    for error in errors {
        let text = error.to_string();
        assert!(
            words.iter().all(|word| text.contains(word)),
            "{words:?} are not in: {text}"
        );
    }
}

/// What the workers print is in the errors, and not in the output of the tests.
fn four() -> ProcessPoolBuilder {
    let builder = ProcessPool::builder().max_workers(4);
    builder
        .stdout(WorkerStdio::null())
        .stderr(WorkerStdio::lines(|_| {}))
}

#[test]
fn promise_18_a_program_that_is_not_there_is_told_to_the_handles() {
    within(LONG, "no program", || {
        let pool = four().program("/no/such/program").build().unwrap();
        let error = pool.submit(nothing::call()).join().unwrap_err();
        assert!(error.is_spawn_failed(), "{error}");
        let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
        assert_all_say(&fail(&pool), &["/no/such/program", "No such file"]);
    });
}

#[test]
fn promise_18_a_program_that_cannot_be_run_is_told_to_the_handles() {
    within(LONG, "refused", || {
        for path in ["/etc/passwd", "/etc"] {
            let pool = four().program(path).build().unwrap();
            assert_all_say(&fail(&pool), &[path, "ermission denied"]);
        }
        let pool = four().current_dir("/no/such/directory").build().unwrap();
        assert_all_say(&fail(&pool), &["/no/such/directory", "No such file"]);
    });
}

#[test]
fn promise_18_a_program_that_ends_at_once_is_told_to_the_handles_and_not_started_again_and_again() {
    within(LONG, "ends", || {
        let pool = four().program("/bin/true").build().unwrap();
        let errors = fail(&pool);
        assert_all_say(&errors, &["exited with code 0", "process::init()"]);
        // It has written nothing.
        let of_output = |error: &JoinError| error.to_string().contains("last output");
        assert!(!errors.iter().any(of_output), "{errors:?}");

        let starts = Starts::new();
        let builder = starts.of(four()).env("FUTUREPOOL_TEST_GOOD_STARTS", "0");
        let pool = program(builder, "start::no_worker")
            .stdout(WorkerStdio::null())
            .build()
            .unwrap();
        assert_all_say(&fail(&pool), &["exited with code 7"]);
        // Three in a row, and those that were under way.
        assert!((1..=6).contains(&starts.count()), "{}", starts.count());
        drop(pool);

        // It says why.
        let builder = four();
        let pool = builder
            .program("/bin/ls")
            .env("LC_ALL", "C")
            .current_dir("/")
            .build()
            .unwrap();
        assert_all_say(&fail(&pool), &["exited with code 0"]);
    });
}

/// A program without `init`. As a test it does nothing.
#[test]
fn no_worker() {
    if is_worker("start::no_worker") {
        eprintln!("I am no worker");
    }
}

#[test]
fn promise_18_a_program_without_init_is_told_with_its_last_output() {
    within(LONG, "no init", || {
        let builder = program(four(), "start::no_worker");
        let pool = builder.build().unwrap();
        assert_all_say(
            &fail(&pool),
            &["exited with code 0", "process::init()", "I am no worker"],
        );
    });
}

#[test]
fn promise_18_a_program_that_hangs_is_killed_in_time() {
    within(LONG, "hangs", || {
        let mark = Mark::new();
        let (name, value) = mark.variable();
        for path in ["/bin/cat", "/usr/bin/yes"] {
            let timeout = Duration::from_millis(200);
            let builder = four().program(path).start_timeout(timeout).env(name, value);
            let start = Instant::now();
            let pool = builder.build().unwrap();
            let jobs: Vec<_> = (0..20).map(|_| pool.submit(nothing::call())).collect();
            eventually("one is started", || mark.processes().len() == 1);
            for job in jobs {
                let error = job.join().unwrap_err();
                assert!(error.is_spawn_failed() || error.is_broken());
                assert!(mark.processes().len() <= 1, "one at a time");
                assert_all_say(&[error], &["not ready in time"]);
            }
            // A few in a row, and then it is over.
            assert!(start.elapsed() > timeout);
            drop(pool);
            mark.assert_all_end("it hangs");
        }
    });
}

#[test]
fn promise_18_a_program_that_can_no_longer_start_breaks_the_pool() {
    within(LONG, "no longer", || {
        let starts = Starts::new();
        let builder = starts.of(four()).env("FUTUREPOOL_TEST_GOOD_STARTS", "6");
        let pool = program(builder, "start::real").build().unwrap();
        let jobs: Vec<_> = (0..40)
            .map(|n| match n % 2 {
                0 => pool.submit(crash::call()),
                _ => pool.submit(nothing::call()),
            })
            .collect();
        let results: Vec<_> = jobs.into_iter().map(|job| job.join()).collect();
        let crashes = results
            .iter()
            .filter(|result| matches!(result, Err(e) if e.is_crashed()));
        assert!((1..=6).contains(&crashes.count()), "{results:?}");
        eventually("it is broken", || {
            let error = pool.submit(nothing::call()).join().err();
            error.is_some_and(|error| error.is_broken())
        });
        // Each of the four threads tries it a few times.
        assert!(starts.count() <= 6 + 3 * 4, "{}", starts.count());
    });
}

/// A worker with `init`, behind a script. As a test it does nothing.
#[test]
fn real() {
    if is_worker("start::real") {
        futurepool::process::init();
        unreachable!("it was started as a worker");
    }
}

#[test]
fn a_script_can_start_the_program() {
    within(LONG, "script", || {
        let pool = program(ProcessPool::builder().max_workers(2), "start::real")
            .build()
            .unwrap();
        pool.submit(nothing::call()).join().unwrap();
        assert!(pool.submit(crash::call()).join().unwrap_err().is_crashed());
        pool.submit(nothing::call()).join().unwrap();
    });
}

// ---- Initializers -------------------------------------------------------------------------------

#[task]
fn note_and(path: String, what: String) -> Result<(), String> {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    io::Write::write_all(&mut file, format!("{}\n", process::id()).as_bytes()).unwrap();
    match what.as_str() {
        "return" => Ok(()),
        "err" => Err("no database".into()),
        "panic" => panic!("no luck"),
        "abort" => process::abort(),
        "exit" => process::exit(9),
        _ => loop {
            thread::sleep(LONG);
        },
    }
}

#[test]
fn promise_18_an_initializer_that_fails_breaks_the_pool_with_its_cause() {
    within(LONG, "initializer", || {
        let cases = [
            ("err", "no database"),
            ("panic", "no luck"),
            ("abort", "SIGABRT"),
            ("exit", "exited with code 9"),
            ("hang", "time limit"),
        ];
        for (what, word) in cases {
            let starts = Starts::new();
            let path = starts.file().to_str().unwrap().to_owned();
            let builder = four().initializer(note_and::call(path, what.into()));
            let timeout = Duration::from_millis(if what == "hang" { 700 } else { 20_000 });
            let builder = builder.start_timeout(timeout);
            let pool = builder.build().unwrap();
            let errors = fail(&pool);
            assert!(
                errors.iter().all(JoinError::is_broken),
                "{what}: {errors:?}"
            );
            assert_all_say(&errors, &["initializer", word]);
            // The other threads may have started theirs before.
            assert!(
                (1..=4).contains(&starts.count()),
                "{what}: {}",
                starts.count()
            );
        }
    });
}

/// An error that cannot be shown.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Loud;

impl fmt::Display for Loud {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("it is loud");
    }
}

impl Error for Loud {}

#[task]
fn fail_loudly() -> Result<(), Loud> {
    Err(Loud)
}

#[test]
fn promise_18_an_error_of_an_initializer_that_panics_breaks_the_pool() {
    within(LONG, "loud", || {
        let pool = four().initializer(fail_loudly::call()).build().unwrap();
        assert_all_say(&fail(&pool), &["initializer", "it is loud"]);
    });
}

#[test]
fn promise_18_an_initializer_runs_once_in_each_worker_before_its_first_job() {
    within(LONG, "initializer", || {
        let starts = Starts::new();
        let path = starts.file().to_str().unwrap().to_owned();
        let builder = four().initializer(note_and::call(path, "return".into()));
        let pool = builder.build().unwrap();
        for _ in 0..10 {
            pool.submit(nothing::call()).join().unwrap();
        }
        assert_eq!(starts.count(), 1);
        assert!(pool.submit(crash::call()).join().unwrap_err().is_crashed());
        pool.submit(nothing::call()).join().unwrap();
        // The job may have gone to another thread while the worker was replaced.
        assert!((2..=3).contains(&starts.count()), "{}", starts.count());
    });
}

// ---- Fork bombs ---------------------------------------------------------------------------------

/// A program that builds a pool, whose program it is, and never calls `init`. As a test it does
/// nothing.
#[test]
fn bomb() {
    if is_worker("start::bomb") {
        let builder = ProcessPool::builder().max_workers(4);
        let pool = program(builder, "start::bomb").build();
        let error = pool.expect_err("a worker cannot have a pool yet");
        assert!(error.to_string().contains("init()"), "{error}");
        eprintln!("{error}");
    }
}

#[test]
fn promise_19_a_program_that_builds_its_pool_in_its_workers_is_no_fork_bomb() {
    within(LONG, "bomb", || {
        let (starts, mark) = (Starts::new(), Mark::new());
        let (name, value) = mark.variable();
        let builder = starts.of(four()).env(name, value);
        let pool = program(builder, "start::bomb").build().unwrap();
        assert_all_say(&fail(&pool), &["this process is a worker"]);
        // Three in a row, and those that were under way.
        assert!((1..=6).contains(&starts.count()), "{}", starts.count());
        drop(pool);
        mark.assert_all_end("bomb");
    });
}

#[test]
fn promise_19_never_more_workers_than_the_maximum() {
    child::alone(
        "start::promise_19_never_more_workers_than_the_maximum",
        || {
            let own = process::id();
            let pool = ProcessPool::builder()
                .max_workers(3)
                .prestart(3)
                .build()
                .unwrap();
            let jobs: Vec<_> = (0..300)
                .map(|n| match n % 10 {
                    0 => pool.submit(crash::call()),
                    _ => pool.submit(nothing::call()),
                })
                .collect();
            for job in jobs {
                let alive = children(own)
                    .into_iter()
                    .filter(|pid| crate::procs::is_alive(*pid));
                assert!(alive.count() <= 3);
                drop(job.join());
            }
        },
    );
}

#[test]
fn promise_18_invalid_options_are_named() {
    let field = |builder: ProcessPoolBuilder| builder.build().unwrap_err().field();
    let zero = Duration::ZERO;
    assert_eq!(field(four().time_limit(zero)), "time_limit");
    assert_eq!(field(four().start_timeout(zero)), "start_timeout");
    assert_eq!(field(four().max_workers(0)), "max_workers");
    assert_eq!(field(four().queue_capacity(0)), "queue_capacity");
    assert_eq!(field(four().memory_limit(0)), "memory_limit");
    assert_eq!(field(four().max_jobs_per_worker(0)), "max_jobs_per_worker");
    assert_eq!(field(four().nice(20)), "nice");
    assert_eq!(field(four().name("a\0b")), "name");
    assert!(Path::new("/proc/self/exe").exists());
}

/// The system's lack of descriptors passes, so the pool must survive any number of starts that it
/// prevents.
#[test]
fn promise_18_a_lack_of_descriptors_passes() {
    child::alone("start::promise_18_a_lack_of_descriptors_passes", || {
        let pool = ProcessPool::builder().max_workers(1).build().unwrap();
        pool.submit(nothing::call()).join().unwrap();
        rlimit::setrlimit(rlimit::Resource::NOFILE, 64, 64).unwrap();
        let mut all = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            all.push(file);
        }
        // The crash leaves the pool without a worker.
        assert!(pool.submit(crash::call()).join().unwrap_err().is_crashed());
        // The descriptors of the worker are free again for a moment.
        let take_all = |all: &mut Vec<fs::File>| {
            while let Ok(file) = fs::File::open("/dev/null") {
                all.push(file);
            }
        };
        take_all(&mut all);
        for _ in 0..10 {
            let error = pool.submit(nothing::call()).join().unwrap_err();
            assert!(error.is_spawn_failed(), "{error}");
            assert!(
                error
                    .to_string()
                    .starts_with("failed to start a worker process: ")
            );
        }
        assert_eq!(pool.metrics().spawn_failures, 10);
        drop(all);
        pool.submit(nothing::call()).join().unwrap();
    });
}
