//! Workers that do not keep to the protocol. They are programs of the tests: see [`fake`].

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::exit;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::process::WorkerStdio;
use futurepool::{Call, JoinError, ProcessPool, ProcessPoolBuilder, Task, task};

use crate::common::{LONG, Random, within};

/// Names the test that a worker runs.
const WORKER: &str = "FUTUREPOOL_TEST_WORKER";

/// How a fake worker greets its pool.
const GREETING: &str = "FUTUREPOOL_TEST_GREETING";

/// Names the file that marks that half of a greeting was sent.
pub(crate) const SENT: &str = "FUTUREPOOL_TEST_SENT";

/// Makes `test` of this binary the program of the workers.
pub(crate) fn program(builder: ProcessPoolBuilder, test: &str) -> ProcessPoolBuilder {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/process/worker.sh");
    builder
        .program(script)
        .env("FUTUREPOOL_TEST_BINARY", env::current_exe().unwrap())
        .env(WORKER, test)
        .stdout(WorkerStdio::null())
}

/// Returns whether this process runs `test` as a worker.
pub(crate) fn is_worker(test: &str) -> bool {
    env::var(WORKER).is_ok_and(|worker| worker == test)
}

// ---- A fake worker ------------------------------------------------------------------------------

const HELLO: u8 = 2;
const RESULTS: u8 = 4;
const EVENT: u8 = 5;

#[derive(Clone, Copy)]
struct Head {
    kind: u8,
    generation: u32,
    job: u64,
}

/// Builds messages from numbers and texts.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn raw(mut self, value: &[u8]) -> Self {
        self.0.extend(value);
        self
    }
}

/// A frame that says what it likes of its lengths.
fn frame(head: Head, lanes: &[u64], body_len: u64, body: &[u8]) -> Vec<u8> {
    let start = Bytes::default()
        .u8(0xf7)
        .u8(head.kind)
        .raw(&(lanes.len() as u16).to_le_bytes());
    let start = start.u32(head.generation).u64(head.job).u64(body_len);
    let all = lanes.iter().fold(start, |out, lane| out.u64(*lane));
    all.raw(body).0
}

fn honest(head: Head, body: &[u8]) -> Vec<u8> {
    frame(head, &[], body.len() as u64, body)
}

fn read_frame(socket: &mut impl Read) -> io::Result<(Head, Vec<u8>)> {
    let mut start = [0; 24];
    socket.read_exact(&mut start)?;
    let head = Head {
        kind: start[1],
        generation: u32::from_le_bytes(start[4..8].try_into().unwrap()),
        job: u64::from_le_bytes(start[8..16].try_into().unwrap()),
    };
    assert_eq!(start[2..4], [0, 0], "the tests send no large buffers");
    let mut body = vec![0; u64::from_le_bytes(start[16..].try_into().unwrap()) as usize];
    socket.read_exact(&mut body)?;
    Ok((head, body))
}

/// Results of `count` calls, each with the same answer.
fn results(count: u32, status: u8, answer: &[u8]) -> Vec<u8> {
    let mut out = Bytes::default().u32(count);
    for _ in 0..count {
        out = out.u8(status).u64(answer.len() as u64).u32(0);
    }
    for _ in 0..count {
        out = out.raw(answer);
    }
    out.0
}

/// The result 1, as MessagePack has it.
fn one() -> Vec<u8> {
    results(1, 0, &[1])
}

/// What the fake worker does. It is an argument of the job.
const TRICKS: [&str; 25] = [
    "noise",
    "zeros",
    "no-magic",
    "huge-body",
    "huge-lanes",
    "many-lanes",
    "generation",
    "kind",
    "setup",
    "job",
    "two-results",
    "no-results",
    "short-body",
    "long-body",
    "status",
    "skipped",
    "sizes",
    "half-frame",
    "half-head",
    "close",
    "exit",
    "hello-again",
    "many-results",
    "broken-panic",
    "event-frame",
];

/// Tricks that make no crash: the job has a result, or its result cannot be decoded.
const HARMLESS: [&str; 2] = ["event-frame", "broken-panic"];

fn perform(trick: &str, socket: &UnixStream, head: Head) {
    let mut out = socket;
    let answer = Head {
        kind: RESULTS,
        ..head
    };
    let mut send = |bytes: Vec<u8>| {
        // The pool may be gone.
        let _ = out.write_all(&bytes);
    };
    match trick {
        "noise" => {
            let mut random = Random(7);
            send((0..100_000).map(|_| random.next() as u8).collect());
        }
        "zeros" => send(vec![0; 100_000]),
        "no-magic" => send(honest(answer, &one()).split_off(1)),
        "huge-body" => send(frame(answer, &[], u64::MAX, &one())),
        "huge-lanes" => send(frame(answer, &[u64::MAX, u64::MAX], 10, &one())),
        "many-lanes" => send(frame(answer, &[1 << 20; 65_535], 10, &one())),
        "generation" => send(honest(
            Head {
                generation: head.generation + 1,
                ..answer
            },
            &one(),
        )),
        "kind" => send(honest(Head { kind: 99, ..head }, &one())),
        "setup" => send(honest(Head { kind: 1, ..head }, &one())),
        "hello-again" => send(honest(
            Head {
                kind: HELLO,
                ..head
            },
            &greeting(),
        )),
        "job" => send(honest(
            Head {
                job: head.job + 1,
                ..answer
            },
            &one(),
        )),
        "two-results" => send(honest(answer, &results(2, 0, &[1]))),
        "many-results" => send(honest(answer, &Bytes::default().u32(u32::MAX).0)),
        // It says nothing, again and again, and then that it was something else.
        "no-results" => {
            for _ in 0..100 {
                send(honest(answer, &results(0, 0, &[])));
            }
            send(honest(answer, &[]));
        }
        "no-results-for-ever" => loop {
            if (&*socket)
                .write_all(&honest(answer, &results(0, 0, &[])))
                .is_err()
            {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        },
        "short-body" => send(honest(answer, &one()[..5])),
        "long-body" => send(honest(answer, &[one(), one()].concat())),
        "skipped" => send(honest(answer, &results(1, 6, &[]))),
        "status" => send(honest(answer, &results(1, 77, &[1]))),
        "sizes" => {
            let body = Bytes::default()
                .u32(1)
                .u8(0)
                .u64(u64::MAX)
                .u32(u32::MAX)
                .u8(1);
            send(honest(answer, &body.0));
        }
        "half-frame" => {
            send(frame(answer, &[], 1000, &one()));
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
        "half-head" => {
            send(honest(answer, &one())[..10].to_vec());
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
        "close" => drop(socket.shutdown(std::net::Shutdown::Both)),
        "exit" => exit(5),
        "broken-panic" => send(honest(answer, &results(1, 1, &[0xff; 3]))),
        "event-frame" => {
            for junk in [&[][..], &[0xff; 100], &[0x94, 0xdb, 0xff, 0xff, 0xff, 0xff]] {
                send(honest(
                    Head {
                        kind: EVENT,
                        ..head
                    },
                    junk,
                ));
            }
            send(honest(answer, &one()));
        }
        other => panic!("no trick {other}"),
    }
}

/// Says that the worker has the task of these tests.
fn greeting() -> Vec<u8> {
    greeting_with(ask::NAME)
}

fn greeting_with(task: &str) -> Vec<u8> {
    let start = Bytes::default().u32(1).u64(0).u32(1);
    let name = start.u32(task.len() as u32).raw(task.as_bytes());
    name.u32(1).u64(0).0
}

fn connection() -> UnixStream {
    UnixStream::from(io::stdin().as_fd().try_clone_to_owned().unwrap())
}

/// Becomes a worker that has a task.
pub(crate) fn greet(task: &str) -> UnixStream {
    let socket = connection();
    let (setup, _) = read_frame(&mut &socket).unwrap();
    let hello = Head {
        kind: HELLO,
        ..setup
    };
    (&socket)
        .write_all(&honest(hello, &greeting_with(task)))
        .unwrap();
    socket
}

/// Becomes a worker that has a task, and reads no job.
pub(crate) fn greet_and_read_nothing(task: &str) -> ! {
    let _socket = greet(task);
    loop {
        thread::sleep(LONG);
    }
}

/// A worker that greets its pool as a good one does, and then does what the job tells it to do. As a test
/// it does nothing.
#[test]
fn fake() {
    if !is_worker("garbage::fake") {
        return;
    }
    let socket = connection();
    let (setup, _) = read_frame(&mut &socket).unwrap();
    let hello = Head {
        kind: HELLO,
        ..setup
    };
    let send = |bytes: Vec<u8>| (&socket).write_all(&bytes).unwrap();
    match env::var(GREETING).as_deref() {
        Err(_) => send(honest(hello, &greeting())),
        Ok("noise") => send(vec![0xf7; 10_000]),
        Ok("kind") => send(honest(
            Head {
                kind: RESULTS,
                ..hello
            },
            &greeting(),
        )),
        Ok("protocol") => send(honest(hello, &Bytes::default().u32(1000).u64(0).u32(0).0)),
        Ok("cut") => send(honest(hello, &greeting()[..30])),
        Ok("half") => {
            send(honest(hello, &greeting())[..30].to_vec());
            fs::write(env::var(SENT).unwrap(), "").unwrap();
        }
        Ok("many") => send(honest(
            hello,
            &Bytes::default().u32(1).u64(0).u32(u32::MAX).0,
        )),
        Ok("huge") => send(frame(hello, &[], 1 << 62, &[])),
        Ok(other) => panic!("no greeting {other}"),
    }
    while let Ok((head, body)) = read_frame(&mut &socket) {
        let text = String::from_utf8_lossy(&body);
        match text
            .split_once("do:")
            .and_then(|(_, rest)| rest.split_once(';'))
        {
            Some((trick, _)) => perform(trick, &socket, head),
            None => {
                let good = Head {
                    kind: RESULTS,
                    ..head
                };
                let _ = (&socket).write_all(&honest(good, &one()));
            }
        }
    }
    // It does not go by itself.
    thread::sleep(LONG);
}

// ---- The tests ----------------------------------------------------------------------------------

#[task]
fn ask(what: String) -> u32 {
    panic!("only fake workers run this: {what}")
}

fn trick(name: &str) -> Call<ask> {
    ask::call(format!("do:{name};"))
}

/// Returns the error of a job whose worker does a trick.
pub(crate) fn submit_trick(pool: &ProcessPool, name: &str) -> JoinError {
    pool.submit(trick(name)).join().unwrap_err()
}

#[track_caller]
fn assert_harmless(name: &str, result: Result<u32, JoinError>) {
    match (name, result) {
        ("event-frame", Ok(1)) => {}
        ("broken-panic", Err(error)) => assert!(error.is_panic(), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn promise_14_garbage_from_a_worker_fails_its_job_and_no_other() {
    within(2 * LONG, "garbage", || {
        let builder = ProcessPool::builder().max_workers(2);
        let pool = program(builder, "garbage::fake").build().unwrap();
        for name in TRICKS {
            let start = Instant::now();
            let before = pool.submit(ask::call("be good".into()));
            let bad = pool.submit(trick(name));
            let after: Vec<_> = (0..4)
                .map(|_| pool.submit(ask::call("be good".into())))
                .collect();
            let result = bad.join();
            if HARMLESS.contains(&name) {
                assert_harmless(name, result);
            } else {
                let error = result.expect_err(name);
                assert!(error.is_crashed(), "{name}: {error}");
                assert!(error.may_have_run(), "{name}: {error}");
            }
            assert_eq!(before.join().expect(name), 1);
            for job in after {
                assert_eq!(job.join().expect(name), 1);
            }
            assert!(
                start.elapsed() < LONG / 4,
                "{name} took {:?}",
                start.elapsed()
            );
        }
        let metrics = pool.metrics();
        assert_eq!(metrics.failed + metrics.panicked, TRICKS.len() as u64 - 1);
        assert_eq!(metrics.completed, 5 * TRICKS.len() as u64 + 1);
    });
}

#[test]
fn promise_14_a_result_of_another_type_is_an_error_of_that_job() {
    /// The same function, if this program is asked.
    struct AskForText;

    impl Task for AskForText {
        const NAME: &'static str = ask::NAME;
        type Args = (String,);
        type Output = String;

        fn run((what,): (String,)) -> String {
            what
        }
    }

    within(LONG, "type", || {
        let pool = program(ProcessPool::builder().max_workers(1), "garbage::fake");
        let pool = pool.build().unwrap();
        let error = pool
            .submit(Call::<AskForText>::new(("be good".into(),)))
            .join()
            .unwrap_err();
        assert!(error.is_codec() && error.may_have_run(), "{error}");
        assert_eq!(pool.submit(ask::call("be good".into())).join().unwrap(), 1);
    });
}

#[test]
fn promise_14_a_greeting_of_garbage_is_told_to_the_handles() {
    within(2 * LONG, "greeting", || {
        for greeting in ["noise", "kind", "protocol", "cut", "many", "huge"] {
            let builder = ProcessPool::builder()
                .max_workers(1)
                .env(GREETING, greeting);
            let pool = program(builder, "garbage::fake").build().unwrap();
            let start = Instant::now();
            let error = pool.submit(ask::call("be good".into())).join().unwrap_err();
            assert!(
                error.is_spawn_failed() || error.is_broken(),
                "{greeting}: {error}"
            );
            assert!(
                error.to_string().contains("cannot be used"),
                "{greeting}: {error}"
            );
            assert!(!error.may_have_run());
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{greeting}: no timeout"
            );
        }
    });
}
