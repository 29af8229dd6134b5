//! The examples, run as their users run them.

mod common;

use std::env::{self, consts::EXE_SUFFIX};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The demo takes 6 seconds. This is for a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the path of an example. `cargo test` builds the examples first, `cargo test --tests` does
/// not.
fn example(name: &str) -> PathBuf {
    // This test is target/PROFILE/deps/examples-HASH.
    let test = env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap();
    let path = folder.join(format!("examples/{name}{EXE_SUFFIX}"));
    if !path.is_file() {
        let profile = folder.file_name().unwrap().to_str().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--example", name, "--profile"])
            .arg(if profile == "debug" { "dev" } else { profile })
            .arg("--target-dir")
            .arg(folder.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if cfg!(feature = "process") {
            cargo.args(["--features", "process"]);
        }
        assert!(cargo.status().unwrap().success(), "{cargo:?}");
    }
    path
}

/// Runs a program to its end, which must come in time.
fn run(command: &mut Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let (done, output) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    match output.recv_timeout(PATIENCE) {
        Ok(output) => output.unwrap(),
        Err(_) => panic!("process {pid} does not end"),
    }
}

/// Returns what the demo prints, if it says that all is well.
fn demo(command: &mut Command) -> String {
    let output = run(command);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("Every job is accounted for."), "{text}");
    assert!(text.contains(" = completed "), "{text}");
    assert!(text.contains("; 0 of them twice."), "{text}");
    text
}

#[test]
fn the_demo_kills_a_worker_and_accounts_for_each_job() {
    let text = demo(&mut Command::new(example("cluster_demo")));
    assert!(
        text.contains("killed with SIGKILL after 300 results"),
        "{text}"
    );
    assert!(text.contains("400 of 400 thumbnails returned."), "{text}");
    assert!(text.contains("200 of 200 charges returned."), "{text}");
}

#[test]
fn without_a_server_the_demo_says_how_to_get_it_and_runs_in_memory() {
    let mut command = Command::new(example("cluster_demo"));
    let text = demo(command.env("NATS_SERVER", "/not/there"));
    assert!(text.contains("apt install nats-server"), "{text}");
    assert!(text.contains("a thread cannot be killed"), "{text}");
    assert!(text.contains("400 of 400 charges returned."), "{text}");
}

#[test]
fn a_demo_that_is_killed_leaves_nothing_behind() {
    let mut child = Command::new(example("cluster_demo"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut server = None;
    for line in stdout.lines().map_while(Result::ok) {
        if let Some((_, rest)) = line.split_once(" on ")
            && let Some((address, folder)) = rest.split_once(", files in ")
        {
            server = Some((address.to_owned(), folder.to_owned()));
        }
        if line.starts_with("1. ") {
            break; // all processes run
        }
    }
    let (address, folder) = server.expect("the demo names its server");
    assert!(Path::new(&folder).is_dir());
    TcpStream::connect(&address).expect("the server listens");
    child.kill().unwrap();
    child.wait().unwrap();
    let end = Instant::now() + PATIENCE;
    while Path::new(&folder).exists() || TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < end, "something is left behind");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Kills a process when it is dropped.
#[cfg(feature = "process")]
struct Killed(std::process::Child);

#[cfg(feature = "process")]
impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(feature = "process")]
#[test]
fn the_submitter_takes_results_of_workers_with_threads_and_with_processes() {
    let server = common::TestServer::start();
    for executing in ["--threads", "--processes"] {
        let mut worker = Command::new(example("worker"));
        worker.args([executing, "2", &server.url()]);
        let worker = Killed(worker.stdout(Stdio::null()).spawn().unwrap());
        let output = run(Command::new(example("submitter")).arg(server.url()));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        assert!(text.starts_with("charged Ada 1250 cents\n"), "{text}");
        assert!(text.contains("\nblock 9: 9000\n"), "{text}");
        assert!(text.ends_with("100 blocks, 4950000 in all\n"), "{text}");
        drop(worker);
    }
}
