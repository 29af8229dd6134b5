//! The program itself: command line, Ctrl-C, exit status.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::common::{
    Client, PATIENCE, Visits, new_database, request_without_end, sentence, visit_until_closed,
};

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_web_service"))
}

/// The service as a child process; killed if it is still there at the end.
struct Service {
    child: Child,
    address: SocketAddr,
    log: Lines<BufReader<ChildStderr>>,
}

impl Service {
    fn start(database: &Path, drain: u64) -> Self {
        let mut child = command()
            .args([
                "--address",
                "127.0.0.1:0",
                "--workers",
                "2",
                "--queue",
                "16",
            ])
            .arg("--database")
            .arg(database)
            .args(["--drain", &drain.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("it is a pipe"));
        out.read_line(&mut line).expect("it can be read");
        let address = line.trim().strip_prefix("listening on http://");
        let address = address
            .expect("it says where it listens")
            .parse()
            .expect("an address");
        let log = BufReader::new(child.stderr.take().expect("it is a pipe")).lines();
        Self {
            child,
            address,
            log,
        }
    }

    fn send(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it is there to be told");
    }

    /// The next line of its log.
    fn line(&mut self) -> String {
        self.log
            .next()
            .expect("there is a line")
            .expect("it can be read")
    }

    /// Its exit status, if it has ended.
    fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("it is our child")?;
        Some(status.code().expect("no signal kills it"))
    }

    async fn end(&mut self) -> i32 {
        let ended = async {
            loop {
                if let Some(status) = self.ended() {
                    return status;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, ended).await.expect("it ends")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the metrics are as they should be.
async fn metrics_when(server: SocketAddr, holds: impl Fn(&str) -> bool) {
    let client = Client::new(server);
    let begin = Instant::now();
    while !holds(sentence(&client.get("/metrics").await.expect("an answer"))) {
        assert!(begin.elapsed() < PATIENCE, "the metrics stay otherwise");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn ends_in_order_under_load(signal: Signal) {
    let (_dir, database) = new_database();
    let mut service = Service::start(&database, 20);
    let address = service.address;
    let clients: JoinSet<Visits> = (0..50)
        .map(|number| async move {
            let visits = visit_until_closed(Client::new(address), number);
            timeout(PATIENCE, visits)
                .await
                .expect("none waits for ever")
        })
        .collect();
    metrics_when(address, |text| {
        !text.contains("\nfuturepool_queued_jobs{pool=\"cpu\"} 0\n")
    })
    .await;

    service.send(signal);
    let begin = Instant::now();
    let status = service.end().await;
    let took = begin.elapsed();
    let mut visits = Visits::default();
    for client in clients.join_all().await {
        visits += client;
    }
    let (first, last) = (service.line(), service.line());
    println!("{signal:?}: exit status {status} after {took:.2?} of 20 s\n  {first}\n  {last}");
    println!(
        "  sent {}, answers {:?}, closed {}",
        visits.sent, visits.answers, visits.closed
    );
    assert_eq!(status, 0);
    assert!(took < Duration::from_secs(20));
    assert!(first.starts_with("web_service: stopping, with "), "{first}");
    assert!(last.starts_with("web_service: stopped after "), "{last}");
    assert!(
        last.contains(" 0 cut off; ") && last.ends_with(" 0 cancelled, 0 still running"),
        "{last}"
    );
    assert!(service.log.next().is_none(), "that is all");
    assert!(
        visits
            .answers
            .keys()
            .all(|status| [200, 503].contains(status)),
        "{visits:?}"
    );
    assert!(visits.answers[&200] > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_under_load_answers_what_it_has_and_ends() {
    ends_in_order_under_load(Signal::INT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_sigterm() {
    ends_in_order_under_load(Signal::TERM).await;
}

#[tokio::test]
async fn a_second_ctrl_c_cuts_the_drain_short() {
    let (_dir, database) = new_database();
    let mut service = Service::start(&database, 3_600);
    let begin = Instant::now();
    let _slow = request_without_end(service.address);
    let two = "\nhttp_requests_in_flight 2\n"; // that one, and the one that asks
    metrics_when(service.address, |text| text.contains(two)).await;

    service.send(Signal::INT);
    let line = service.line();
    assert!(
        line.starts_with("web_service: stopping, with 1 requests"),
        "{line}"
    );
    sleep(Duration::from_millis(300)).await;
    assert_eq!(service.ended(), None, "the request holds it");
    service.send(Signal::INT);
    assert_eq!(service.end().await, 1);
    let line = service.line();
    println!("twice: {line}");
    assert!(line.contains(" 1 cut off"), "{line}");
    assert!(
        begin.elapsed() < 2 * PATIENCE,
        "it did not wait for its limit"
    );
}

fn output(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("it starts")
}

#[test]
fn a_database_that_is_none_is_an_error_at_the_start() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let path = dir.path().join("notes.txt");
    fs::write(
        &path,
        "not a database, but long enough to be looked at as if it were one".repeat(9),
    )
    .unwrap();
    let output = output(&[
        "--address",
        "127.0.0.1:0",
        "--database",
        path.to_str().unwrap(),
    ]);
    let error = String::from_utf8_lossy(&output.stderr);
    println!("no database: {error}");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.starts_with("web_service: the pool is broken: "),
        "{error}"
    );
    assert!(
        error.contains("notes.txt: file is not a database"),
        "{error}"
    );
}

#[test]
fn help_and_wrong_arguments() {
    let help = output(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(help.stdout.starts_with(b"Usage: web_service"));
    for wrong in [
        &["--queue", "0"][..],
        &["--address", "here"],
        &["--drain"],
        &["x"],
    ] {
        let output = output(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stderr.starts_with(b"web_service: "), "{wrong:?}");
    }
}
