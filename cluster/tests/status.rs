//! The command `futurepool-cluster` against a real server, real workers and a real browser.
//!
//! With `FUTUREPOOL_SCREENSHOTS=<folder>` the browser's test writes pictures of the page.

mod common;
#[path = "../src/status/webdriver.rs"]
mod webdriver;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::TestServer;
use futurepool::{JoinHandle, task, tasks};
use futurepool_cluster::{Cluster, MemoryBroker, Worker};
use serde_json::{Value, json};
use webdriver::Browser;

const COMMAND: &str = env!("CARGO_BIN_EXE_futurepool-cluster");
const NAMESPACE: &str = "shop";
const HOSTILE: &str = "\x1b[2J</script><img src=x onerror=\"window.pwned=1\">";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[task(name = "img.thumbnail")]
fn thumbnail(millis: u64) -> u64 {
    let end = Instant::now() + Duration::from_millis(millis);
    while Instant::now() < end && !futurepool::cancel_requested() {
        thread::sleep(Duration::from_millis(5));
    }
    millis
}

#[task(name = "files.checksum", version = 2)]
fn checksum(millis: u64) -> u64 {
    thumbnail(millis)
}

#[task(name = "report.monthly")]
fn report() {}

/// Not a test: a worker process of the tests here. They start it with the server in its environment.
#[test]
fn worker_process() {
    let Ok(server) = std::env::var("STATUS_TEST_SERVER") else {
        return;
    };
    Worker::new(tasks![thumbnail, checksum])
        .namespace(NAMESPACE)
        .threads(3)
        .drain_grace(Duration::from_millis(100))
        .connect(server.as_str())
        .unwrap()
        .run()
        .unwrap();
}

/// A process that is killed when it is dropped.
struct Process(Child);

impl Process {
    fn worker(server: &TestServer) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker_process"])
            .env("STATUS_TEST_SERVER", server.url())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn wait(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the process does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn command(server: &TestServer, arguments: &[&str]) -> Output {
    let mut arguments = arguments.to_vec();
    if arguments[0] != "permissions" {
        arguments.extend(["--namespace", NAMESPACE]);
    }
    Command::new(COMMAND)
        .args(arguments)
        .env_clear()
        .env("NATS_URL", server.url())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    format!("{text}{error}")
}

/// Runs the command until its JSON is as it should be.
fn status_until(server: &TestServer, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let output = command(server, &["status", "--json"]);
        assert!(output.status.success(), "{}", text(&output));
        let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
        if is_so(&seen) {
            return seen;
        }
        assert!(Instant::now() < end, "never {what}: {seen:#}");
    }
}

fn count(seen: &Value, list: &str, field: &str, value: &str) -> usize {
    let list = seen[list].as_array().unwrap();
    list.iter().filter(|item| item[field] == value).count()
}

fn setup(server: &TestServer) {
    let output = command(
        server,
        &["setup", "--lease", "3s", "--queue-bytes", "64MiB"],
    );
    assert!(output.status.success(), "{}", text(&output));
}

fn cluster(server: &TestServer) -> Cluster {
    Cluster::connect(server.url())
        .namespace(NAMESPACE)
        .build()
        .unwrap()
}

#[test]
fn the_command_shows_and_drains_a_real_cluster() {
    let server = TestServer::start();
    let output = command(&server, &["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("futurepool-cluster setup"),
        "{}",
        text(&output)
    );
    setup(&server);
    let again = command(&server, &["setup"]);
    assert!(
        text(&again).contains("lease 3.0 s, 1 replica, 64.0 MiB"),
        "{}",
        text(&again)
    );

    let mut workers = [Process::worker(&server), Process::worker(&server)];
    status_until(&server, "two workers", |seen| {
        count(seen, "workers", "life", "alive") == 2
    });
    let cluster = cluster(&server);
    let long: Vec<JoinHandle<u64>> = (0..8)
        .map(|_| cluster.submit(thumbnail::call(600_000).label(HOSTILE)))
        .collect();
    let seen = status_until(&server, "all slots busy", |seen| {
        let workers = seen["workers"].as_array().unwrap();
        workers
            .iter()
            .map(|w| w["busy"].as_u64().unwrap())
            .sum::<u64>()
            == 6
            && seen["queues"][1]["oldest_ms"].as_u64() > Some(1_000)
    });
    assert_eq!(seen["workers"][0]["slots"], 3);
    let run = &seen["workers"][0]["running"][0];
    assert_eq!(
        (&run["task"], &run["label"]),
        (&json!("img.thumbnail"), &json!(HOSTILE))
    );
    assert_eq!(seen["queues"][1]["task"], "img.thumbnail");
    assert_eq!(seen["queues"][1]["workers"], 2);
    assert_eq!(seen["submitters"][0]["pending"], 8);
    assert_eq!(seen["exact_ages"], true);
    assert_eq!(seen["problems"], json!([]));

    let output = command(&server, &["status"]);
    let shown = text(&output);
    assert!(
        output.status.success() && shown.contains("6 of 6 slots busy"),
        "{shown}"
    );
    assert!(
        !shown.contains('\x1b') && shown.contains("\\u{1b}[2J"),
        "{shown}"
    );

    // A worker is killed; the server forgets it.
    workers[0].kill();
    let seen = status_until(&server, "one worker", |seen| {
        seen["workers"].as_array().unwrap().len() == 1
    });
    let name = seen["workers"][0]["name"].as_str().unwrap().to_owned();

    let output = command(&server, &["drain", "nowhere/1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains(&format!("there are: {name}")),
        "{}",
        text(&output)
    );
    let output = command(&server, &["drain", &name]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(workers[1].wait(), "the worker drained");
    let output = command(&server, &["drain", "--all"]);
    assert!(output.status.success(), "{}", text(&output));
    drop(cluster.shutdown_now());
    drop(long);
}

#[test]
fn the_exit_code_tells_how_a_command_ended() {
    let server = TestServer::start();
    let run = |arguments: &[&str]| {
        let output = command(&server, arguments);
        (output.status.code().unwrap(), text(&output))
    };
    let (code, help) = run(&["status", "--help"]);
    assert!(code == 0 && help.contains("--watch"), "{help}");
    let (code, error) = run(&["status", "--colour"]);
    assert!(code == 2 && error.contains("status --help"), "{error}");
    let (code, error) = run(&[
        "status",
        "--server",
        "nats://127.0.0.1:1",
        "--connect-timeout",
        "200ms",
    ]);
    assert!(
        code == 1 && error.contains("--server or NATS_URL"),
        "{error}"
    );
    let (code, error) = run(&["status", "--credentials", "/nowhere/creds"]);
    assert!(code == 1 && error.contains("/nowhere/creds"), "{error}");
    let (code, error) = run(&["serve", "--listen", "0.0.0.0:0"]);
    assert!(code == 1 && error.contains("needs a token"), "{error}");
    setup(&server);
    let (code, error) = run(&["purge-detached", "order-1"]);
    assert!(code == 1 && error.contains("order-1"), "{error}");
}

#[test]
fn watching_prints_again_each_second() {
    let server = TestServer::start();
    setup(&server);
    for (json, first) in [(true, "{"), (false, "nats://")] {
        let mut watching = Command::new(COMMAND);
        watching.args(["status", "--watch", "--namespace", NAMESPACE]);
        if json {
            watching.arg("--json");
        }
        let mut child = watching
            .env_clear()
            .env("NATS_URL", server.url())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let _process = Process(child);
        let heads = lines
            .map(Result::unwrap)
            .filter(|line| line.starts_with(first));
        assert_eq!(heads.take(3).count(), 3);
    }
}

/// Runs the command as one of the server's users.
fn command_as(server: &TestServer, user: &str, arguments: &[&str]) -> Output {
    Command::new(COMMAND)
        .args(arguments)
        .args(["--namespace", NAMESPACE, "--user", user, "--identity", user])
        .env_clear()
        .env("NATS_URL", server.url())
        .env("NATS_PASSWORD", "secret")
        .output()
        .unwrap()
}

#[test]
fn logins_with_the_printed_permissions_can_do_their_part() {
    let permissions = |kind: &str, user: &str| {
        let arguments = [
            "permissions",
            kind,
            "--identity",
            user,
            "--namespace",
            NAMESPACE,
        ];
        let output = Command::new(COMMAND)
            .args(arguments)
            .args(["--for", "web"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let permissions = String::from_utf8(output.stdout).unwrap();
        format!("{{ user: {user}, password: secret\n{permissions} }}")
    };
    let users = [
        permissions("admin", "ops"),
        permissions("viewer", "eyes"),
        permissions("submitter", "web"),
    ];
    let config = format!("authorization {{ users: [\n{}\n] }}", users.join("\n"));
    let server = TestServer::with_config(&config);
    let output = command_as(&server, "ops", &["setup", "--for", "web", "--lease", "3s"]);
    assert!(output.status.success(), "{}", text(&output));

    // Those that may write the observer's key know exact ages; the others know lower bounds.
    for (user, exact) in [("ops", true), ("eyes", true), ("web", false)] {
        let output = command_as(&server, user, &["status", "--json"]);
        assert!(output.status.success(), "{user}: {}", text(&output));
        let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(seen["problems"], json!([]), "{user}");
        assert_eq!(seen["exact_ages"], exact, "{user}");
        assert_eq!(seen["settings"]["lease_ms"], 3_000, "{user}");
    }
    let output = command_as(&server, "ops", &["drain", "--all"]);
    assert!(
        text(&output).contains("There is no worker"),
        "{}",
        text(&output)
    );
    let output = command_as(&server, "nobody", &["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!text(&output).contains("secret"), "{}", text(&output));
    let output = command(&server, &["status"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}

#[test]
fn a_detached_job_is_forgotten_once_it_has_ended() {
    let server = TestServer::start();
    setup(&server);
    let cluster = cluster(&server);
    let handle = cluster
        .submit_detached("order-17", thumbnail::call(1))
        .unwrap();
    let output = command(&server, &["purge-detached", "order-17"]);
    assert!(text(&output).contains("has not ended"), "{}", text(&output));
    let _worker = Process::worker(&server);
    handle.join().unwrap();
    let output = command(&server, &["purge-detached", "order-17"]);
    assert!(output.status.success(), "{}", text(&output));
    cluster
        .submit_detached("order-17", thumbnail::call(1))
        .unwrap()
        .join()
        .unwrap();
}

/// The command `serve`, and the port on which it answers.
struct Served {
    _process: Process,
    port: u16,
}

impl Served {
    fn start(server: &TestServer, arguments: &[&str]) -> Self {
        let mut child = Command::new(COMMAND)
            .args(["serve", "--listen", "127.0.0.1:0", "--namespace", NAMESPACE])
            .args(arguments)
            .env_clear()
            .env("NATS_URL", server.url())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let process = Process(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).unwrap();
        let port = line
            .trim()
            .trim_end_matches('/')
            .rsplit(':')
            .next()
            .unwrap();
        Self {
            _process: process,
            port: port.parse().unwrap_or_else(|_| panic!("{line}")),
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        get(self.port, path, headers)
    }

    fn metric_until(&self, line: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (_, metrics) = self.get("/metrics", "");
            if metrics.lines().any(|other| other == line) {
                return;
            }
            assert!(Instant::now() < end, "never {line}:\n{metrics}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Returns the status and the body.
fn get(port: u16, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[test]
fn a_worker_serves_the_page_while_it_runs() {
    let worker = |listen: &str| {
        let worker = Worker::new(tasks![thumbnail]).threads(3).no_signals();
        let worker = worker.console("http://10.0.0.7:6670/");
        worker.status_page(listen).connect(MemoryBroker::new())
    };
    let error = worker("0.0.0.0:0").unwrap_err();
    assert!(
        error.is_invalid_option() && error.to_string().contains("token"),
        "{error}"
    );

    let port = common::free_port();
    let worker = worker(&format!("127.0.0.1:{port}")).unwrap();
    let drain = worker.drain_handle();
    let running = thread::spawn(|| worker.run());
    let end = Instant::now() + PATIENCE;
    loop {
        let (code, body) = get(port, "/status.json", "");
        let seen: Value = serde_json::from_str(&body).unwrap();
        if code == 200 && seen["workers"][0]["slots"] == 3 && seen["exact_ages"] == true {
            assert_eq!(seen["workers"][0]["console"], "http://10.0.0.7:6670/");
            break;
        }
        assert!(Instant::now() < end, "{seen:#}");
        thread::sleep(Duration::from_millis(50));
    }
    drain.drain();
    running.join().unwrap().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn the_metrics_tell_when_the_server_is_gone_and_back() {
    let mut server = TestServer::start();
    setup(&server);
    let _worker = Process::worker(&server);
    let served = Served::start(&server, &[]);
    served.metric_until("futurepool_cluster_up 1");
    served.metric_until("futurepool_cluster_workers{life=\"alive\"} 1");
    server.kill();
    served.metric_until("futurepool_cluster_up 0");
    let (code, json) = served.get("/status.json", "");
    let seen: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &seen["workers"][0]["slots"]), (200, &json!(3)));
    assert!(seen["age_ms"].is_u64());
    server.restart();
    served.metric_until("futurepool_cluster_up 1");
    served.metric_until("futurepool_cluster_workers{life=\"alive\"} 1");
}

#[test]
fn clients_that_send_nothing_or_nonsense_harm_no_other() {
    let server = TestServer::start();
    setup(&server);
    let served = Served::start(&server, &[]);
    let open = || TcpStream::connect(("127.0.0.1", served.port)).unwrap();
    let _silent: Vec<TcpStream> = (0..20).map(|_| open()).collect();
    let mut half = open();
    half.write_all(b"GET /status.json HTTP/1.1\r\nHost: ")
        .unwrap();
    for nonsense in [
        &b"\0\xff\r\n\r\n"[..],
        &[b'x'; 100_000],
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut stream = open();
        let _ = stream.write_all(nonsense);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It is refused or the connection ends.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    let (code, _) = served.get("/status.json", "");
    assert_eq!(code, 200);
    assert_eq!(served.get("/../../etc/passwd", "").0, 404);
}

#[test]
fn a_page_with_a_token_asks_for_it() {
    let server = TestServer::start();
    setup(&server);
    let token = "0123456789abcdef";
    let served = Served::start(&server, &["--token", token]);
    for path in ["/", "/status.json", "/metrics", "/?token=0123456789abcdef"] {
        assert_eq!(served.get(path, "").0, 401);
        assert_eq!(
            served
                .get(path, "Authorization: Bearer 0123456789abcdeX\r\n")
                .0,
            401
        );
        let right = format!("Authorization: Bearer {token}\r\n");
        assert_eq!(served.get(path, &right).0, 200);
    }
    // As a browser sends it: any name, and the token as the password.
    let basic = "Authorization: Basic bWU6MDEyMzQ1Njc4OWFiY2RlZg==\r\n";
    assert_eq!(served.get("/", basic).0, 200);
}

#[test]
fn the_page_shows_a_real_cluster_live() {
    let browser = match Browser::start() {
        Ok(browser) => browser,
        Err(reason) => {
            // Not a macro: its output would be hidden as that of a test that passes.
            let _ = writeln!(std::io::stderr(), "skipped: {reason}");
            return;
        }
    };
    let mut server = TestServer::start();
    setup(&server);
    let mut workers = [
        Process::worker(&server),
        Process::worker(&server),
        Process::worker(&server),
    ];
    let served = Served::start(&server, &[]);
    browser.look(1200, 800, false);
    browser.open(&served.url());
    let alive = "[...document.querySelectorAll('#lanes .pill')].filter(p => p.textContent === 'running').length";
    browser.wait(&format!("{alive} === 3"));
    browser.screenshot("real-idle");

    let cluster = cluster(&server);
    let mut handles: Vec<JoinHandle<u64>> = (0..400)
        .map(|n| cluster.submit(thumbnail::call(150).label(format!("order-{n}"))))
        .collect();
    handles.extend((0..3).map(|_| cluster.submit(checksum::call(600_000).label(HOSTILE))));
    let nobody = cluster.submit(report::call());
    browser.wait("document.querySelectorAll('.slots li:not(.free)').length >= 6");
    browser.wait("Number(document.querySelector('#tiles dd span').textContent) > 100");
    browser.wait("document.body.innerText.includes('that no worker has ever had') || document.body.innerText.includes('no living worker has this task')");
    browser.wait("document.getElementById('line-ended').getAttribute('d').split('L').length > 8");
    browser.screenshot("real-load-light");
    browser.look(1200, 800, true);
    browser.screenshot("real-load-dark");
    browser.look(375, 800, false);
    let overflow = browser.run("return document.documentElement.scrollWidth - innerWidth");
    assert!(overflow.as_i64().unwrap() <= 0, "{overflow} too wide");
    browser.screenshot("real-load-narrow");
    browser.look(1200, 800, false);

    // The long jobs run by now; the worker of one of them is killed.
    browser.wait("document.body.innerText.includes('files.checksum') && document.querySelector('.slots .label')");
    workers[0].kill();
    browser.wait("document.querySelector('#lanes .pill.warn, #lanes .pill.bad')");
    browser.wait("document.body.innerText.includes('is dead. Default jobs that it ran are lost')");
    // The submitter has judged that the job is lost, and says so.
    browser.wait(
        "[...document.querySelectorAll('#tiles .bad dt')].some(e => e.textContent === 'Lost')",
    );
    browser.screenshot("real-killed");
    assert_eq!(
        browser.run("return [window.pwned ?? null, document.images.length]"),
        json!([null, 0])
    );

    server.kill();
    browser.wait(
        "!document.getElementById('banner').hidden && document.getElementById('banner').innerText.includes('The server cannot be reached')",
    );
    browser.wait("/The figures below are \\d/.test(document.getElementById('banner').innerText)");
    browser.screenshot("real-server-gone");
    server.restart();
    browser.wait("document.getElementById('banner').hidden");
    browser.wait(&format!("{alive} === 2"));
    drop(cluster.shutdown_now());
    drop((handles, nobody));
}
