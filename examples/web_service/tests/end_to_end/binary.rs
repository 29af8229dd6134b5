//! Tests the binary: command line, Ctrl-C, exit status.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::common::{
    Client, PATIENCE, Visits, new_database, request_without_end, sentence, visit_until_closed,
    within,
};

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_web_service"));
    command.kill_on_drop(true);
    command
}

/// The service as a child process, which is killed on drop.
pub(crate) struct Service {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Standard error, if it is a pipe.
    log: Option<Lines<BufReader<ChildStderr>>>,
}

impl Service {
    async fn start(database: &Path, drain: u64, log: Stdio) -> Self {
        Self::start_with(database, drain, log, &[]).await
    }

    pub(crate) async fn start_with(
        database: &Path,
        drain: u64,
        log: Stdio,
        options: &[&str],
    ) -> Self {
        let mut child = command()
            .args([
                "--address",
                "127.0.0.1:0",
                "--workers",
                "2",
                "--queue",
                "16",
                // On a busy machine a full queue takes longer than the default.
                "--start-limit",
                "60000",
            ])
            .arg("--database")
            .arg(database)
            .args(["--drain", &drain.to_string()])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let read = within(PATIENCE, out.read_line(&mut line)).await;
        read.expect("it can be read");
        let address = line.trim().strip_prefix("listening on http://");
        let address = address
            .expect("it says where it listens")
            .parse()
            .expect("an address");
        let log = child.stderr.take().map(|log| BufReader::new(log).lines());
        Self {
            child,
            address,
            log,
        }
    }

    pub(crate) fn send(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        kill_process(pid.expect("it has not ended"), signal).expect("it is there to be told");
    }

    /// Returns the next line of the log, if any.
    pub(crate) async fn next_line(&mut self) -> Option<String> {
        let log = self.log.as_mut().expect("it is a pipe");
        let line = within(PATIENCE, log.next_line()).await;
        line.expect("it can be read")
    }

    pub(crate) async fn line(&mut self) -> String {
        self.next_line().await.expect("there is a line")
    }

    /// Waits for the exit status. Panics if a signal killed the service.
    pub(crate) async fn end(&mut self) -> i32 {
        let status = self.wait().await.code();
        status.expect("no signal kills it")
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let status = within(PATIENCE, self.child.wait()).await;
        status.expect("it is our child")
    }
}

/// Waits until the metrics satisfy a condition.
pub(crate) async fn metrics_when(server: SocketAddr, holds: impl Fn(&str) -> bool) -> String {
    let client = Client::new(server);
    let begin = Instant::now();
    loop {
        let answer = client.get("/metrics").await.expect("an answer");
        if holds(sentence(&answer)) {
            return sentence(&answer).to_owned();
        }
        assert!(begin.elapsed() < PATIENCE, "the metrics never changed");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn ends_in_order_under_load(signal: Signal) {
    let (_dir, database) = new_database();
    let mut service = Service::start(&database, 20, Stdio::piped()).await;
    let address = service.address;
    let clients: JoinSet<Visits> = (0..50)
        .map(|number| within(PATIENCE, visit_until_closed(Client::new(address), number)))
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
    let (first, last) = (service.line().await, service.line().await);
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
        last.contains(" 0 cut off; ") && last.ends_with(" 0 failed, 0 cancelled, 0 still running"),
        "{last}"
    );
    assert_eq!(service.next_line().await, None, "that is all");
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
async fn sigterm_under_load_answers_what_it_has_and_ends() {
    ends_in_order_under_load(Signal::TERM).await;
}

#[tokio::test]
async fn a_second_ctrl_c_cuts_the_drain_short() {
    let (_dir, database) = new_database();
    let mut service = Service::start(&database, 3_600, Stdio::piped()).await;
    let begin = Instant::now();
    let _slow = request_without_end(service.address);
    let two = "\nhttp_requests_in_flight 2\n"; // this one, and the one for the metrics
    metrics_when(service.address, |text| text.contains(two)).await;

    service.send(Signal::INT);
    let line = service.line().await;
    assert!(
        line.starts_with("web_service: stopping, with 1 requests"),
        "{line}"
    );
    service.send(Signal::INT);
    assert_eq!(service.end().await, 1);
    let line = service.line().await;
    println!("twice: {line}");
    assert!(line.contains(" 1 cut off"), "{line}");
    assert!(
        begin.elapsed() < 2 * PATIENCE,
        "it did not wait for its limit"
    );
}

/// The log cannot be written: each write fails, as on a full disk.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn without_a_log_all_is_answered_just_the_same() {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    let full = File::options().write(true).open("/dev/full");
    let log = full.expect("Linux has it");
    let (_dir, database) = new_database();
    let mut service = Service::start(&database, 3_600, log.into()).await;
    let body = r#"{"password":"x"}"#;
    let head = "POST /hash HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n";
    let head = format!("{head}content-length: {}\r\n\r\n", body.len());
    let mut requests: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(service.address).expect("a connection"))
        .collect();
    for request in &mut requests {
        request.write_all(head.as_bytes()).expect("it is sent");
    }
    let four = "\nhttp_requests_in_flight 4\n"; // these, and the one for the metrics
    metrics_when(service.address, |text| text.contains(four)).await;

    service.send(Signal::TERM);
    let begin = Instant::now();
    while TcpStream::connect(service.address).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "the service still listens");
        sleep(Duration::from_millis(5)).await;
    }
    for mut request in requests {
        request.write_all(body.as_bytes()).expect("it is sent");
        request.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut answer = String::new();
        request.read_to_string(&mut answer).expect("it comes whole");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert_eq!(service.end().await, 0);
}

async fn output(arguments: &[&str]) -> Output {
    let output = command().args(arguments).output();
    within(PATIENCE, output).await.expect("it starts")
}

#[tokio::test]
async fn an_invalid_database_is_an_error_at_the_start() {
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
    ])
    .await;
    let error = String::from_utf8_lossy(&output.stderr);
    println!("invalid database: {error}");
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

/// There are fewer file descriptors than connections: only the first connections succeed.
#[tokio::test]
async fn a_connection_that_cannot_be_opened_is_an_error_at_the_start() {
    let (_dir, database) = new_database();
    let mut limited = Command::new("sh");
    limited
        .kill_on_drop(true)
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_web_service"))
        .args(["--address", "127.0.0.1:0", "--connections", "64"])
        .arg("--database")
        .arg(&database);
    let output = within(PATIENCE, limited.output()).await.expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    println!("no descriptors: {error}");
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.starts_with("web_service: the pool is broken: "),
        "{error}"
    );
    assert!(error.contains("unable to open database file"), "{error}");
}

#[tokio::test]
async fn help_and_wrong_arguments() {
    let help = output(&["--help"]).await;
    assert_eq!(help.status.code(), Some(0));
    assert!(help.stdout.starts_with(b"Usage: web_service"));
    for wrong in [
        &["--queue", "0"][..],
        &["--address", "here"],
        &["--drain"],
        &["--image-time", "0"],
        &["x"],
    ] {
        let output = output(wrong).await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stderr.starts_with(b"web_service: "), "{wrong:?}");
    }
}

#[tokio::test]
async fn the_console_shows_the_pools_of_the_service() {
    let (_dir, database) = new_database();
    let mut child = command()
        .args(["--address", "127.0.0.1:0", "--console", "127.0.0.1:0"])
        .arg("--database")
        .arg(&database)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    let mut address = async |begin| {
        let line = within(PATIENCE, lines.next_line()).await;
        let line = line.expect("it can be read").expect("there is a line");
        let address = line.strip_prefix(begin).unwrap_or_else(|| panic!("{line}"));
        Client::new(address.parse().expect("an address"))
    };
    let service = address("listening on http://").await;
    let console = address("console on http://").await;
    assert_eq!(service.get("/users/1").await.unwrap().status, 200);
    let page = console.get("/").await.unwrap();
    assert_eq!(
        (page.status, sentence(&page).get(..15)),
        (200, Some("<!doctype html>"))
    );
    let begin = Instant::now();
    loop {
        let snapshot = console.get("/snapshot.json").await.unwrap();
        let pools = ["\"cpu\"", "\"db\"", "/users/{id}"];
        if pools.iter().all(|text| sentence(&snapshot).contains(text)) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{}", sentence(&snapshot));
        service.get("/users/1").await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
}

/// Without a token, strangers must not see the console.
#[tokio::test]
async fn a_console_for_strangers_is_an_error_at_the_start() {
    let (_dir, database) = new_database();
    let database = database.to_str().unwrap();
    let options = [
        "--address",
        "127.0.0.1:0",
        "--console",
        "0.0.0.0:0",
        "--database",
    ];
    let output = output(&[&options[..], &[database]].concat()).await;
    let error = String::from_utf8_lossy(&output.stderr);
    println!("console: {error}");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.starts_with("web_service: cannot show a console on 0.0.0.0:0: "),
        "{error}"
    );
}
