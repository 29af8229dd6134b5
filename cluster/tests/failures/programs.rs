//! Programs that can be killed: this binary again, which then runs only the test `program`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, fs, io, process, thread};

use futurepool::{JoinHandle, Tasks, ThreadPool, tasks};
use futurepool_cluster::{Cluster, Server, Worker};
use rustix::process::{Pid, Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};

use crate::judge;
use crate::outcomes::{Outcome, collect};
use crate::space::eventually;
use crate::tasks::{self, Done, What, die};

/// The environment variable with the plan of a program.
const PLAN: &str = "FUTUREPOOL_TEST_PLAN";

/// How long a test waits for a program.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Plan {
    Worker(WorkerPlan),
    Submitter(SubmitterPlan),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) namespace: String,
    pub(crate) lease: Duration,
    pub(crate) replicas: usize,
    pub(crate) queue_bytes: u64,
    pub(crate) ca: Option<std::path::PathBuf>,
    pub(crate) insecure: bool,
}

impl Place {
    pub(crate) fn server(&self) -> Server {
        let mut server = Server::new(&self.url).connect_timeout(Duration::from_secs(30));
        if let Some(ca) = &self.ca {
            server = server.root_certificates(ca);
        }
        match self.insecure {
            true => server.insecure(),
            false => server,
        }
    }
}

/// What a process does to itself at a step of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fate {
    Kill,
    Stop,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkerPlan {
    pub(crate) place: Place,
    pub(crate) threads: usize,
    pub(crate) grace: Duration,
    pub(crate) versions: Vec<u32>,
    /// At the first time that this step is reached.
    pub(crate) fate: Option<(String, Fate)>,
    pub(crate) fails_to_start: bool,
    /// Runs its tasks in processes.
    pub(crate) processes: bool,
}

/// How jobs are submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    Once,
    Again,
    /// `Once`, under the key `<job>`.
    Detached,
    /// The first and the second version of a task.
    V1,
    V2,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SubmitterPlan {
    pub(crate) place: Place,
    pub(crate) window: usize,
    /// The first job and how many, and what they do.
    pub(crate) jobs: Vec<(u64, u64, Mode, What)>,
}

/// Returns the tasks of a worker.
pub(crate) fn all_tasks(versions: &[u32]) -> Tasks {
    use tasks::{again, once, poisoned, poisoned_again, v1, v2};
    match versions {
        [1] => tasks![once, again, poisoned, poisoned_again, v1::priced],
        [2] => tasks![once, again, poisoned, poisoned_again, v2::priced],
        _ => tasks![
            once,
            again,
            poisoned,
            poisoned_again,
            v1::priced,
            v2::priced
        ],
    }
}

/// Not a test: what a program of these tests runs.
#[test]
fn program() {
    let Ok(plan) = env::var(PLAN) else { return };
    // The harness has begun a line.
    println!();
    // The test may have been killed.
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        process::exit(9);
    });
    let result = match serde_json::from_str(&plan).expect("a plan") {
        Plan::Worker(plan) => work(plan),
        Plan::Submitter(plan) => submit(&plan),
    };
    match result {
        Ok(()) => process::exit(0),
        Err(error) => {
            println!("failed {error}");
            process::exit(1);
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn work(plan: WorkerPlan) -> Result<()> {
    let place = &plan.place;
    let mut worker = Worker::new(all_tasks(&plan.versions))
        .namespace(&place.namespace)
        .lease(place.lease)
        .replicas(place.replicas)
        .queue_bytes(place.queue_bytes)
        .drain_grace(plan.grace)
        .threads(plan.threads);
    if plan.processes {
        worker = in_processes(worker, &plan)?;
    } else if plan.fails_to_start {
        let pool = ThreadPool::builder()
            .max_workers(plan.threads)
            .initializer(|| Err::<(), _>("no database"))
            .build()?;
        worker = worker.executor(pool, plan.threads);
    }
    if let Some((step, fate)) = plan.fate {
        let met = AtomicBool::new(false);
        worker = worker.on_step(move |reached, _| {
            if reached == step && !met.swap(true, Ordering::Relaxed) {
                match fate {
                    Fate::Kill => die(),
                    Fate::Stop => {
                        kill_process(getpid(), Signal::STOP).expect("SIGSTOP");
                        // It may reach another thread first.
                        thread::sleep(Duration::from_millis(200));
                    }
                }
            }
        });
    }
    let worker = worker.connect(place.server())?;
    println!("ready {}", worker.id());
    Ok(worker.run()?)
}

#[cfg(feature = "process")]
fn in_processes(worker: Worker, plan: &WorkerPlan) -> Result<Worker> {
    let mut pool = futurepool::ProcessPool::builder().max_workers(plan.threads);
    if plan.fails_to_start {
        pool = pool.initializer(tasks::fails_to_start::call());
    }
    Ok(worker.processes(pool))
}

#[cfg(not(feature = "process"))]
fn in_processes(_: Worker, _: &WorkerPlan) -> Result<Worker> {
    Err("this binary has no processes".into())
}

fn submit(plan: &SubmitterPlan) -> Result<()> {
    let place = &plan.place;
    let cluster = Cluster::connect(place.server())
        .namespace(&place.namespace)
        .lease(place.lease)
        .replicas(place.replicas)
        .queue_bytes(place.queue_bytes)
        .window(plan.window)
        .build()?;
    println!("ready");
    let mut handles = Vec::new();
    for (first, count, mode, what) in &plan.jobs {
        for job in *first..first + count {
            handles.push((job, submit_one(&cluster, *mode, job, what.clone())?));
        }
    }
    println!("submitted");
    // One at a time: what reads them may be slow.
    for submitted in handles {
        let outcome = collect(vec![submitted], Duration::from_secs(3600)).remove(0);
        println!("outcome {}", serde_json::to_string(&outcome)?);
    }
    let memory = memory_peak(process::id());
    println!("done {memory}");
    Ok(())
}

fn submit_one(cluster: &Cluster, mode: Mode, job: u64, what: What) -> Result<JoinHandle<Done>> {
    Ok(match mode {
        Mode::Once => cluster.submit(tasks::once::call(job, what)),
        Mode::Again => cluster.submit(tasks::again::call(job, what)),
        Mode::Detached => {
            let call = tasks::once::call(job, what);
            cluster
                .submit_detached(&job.to_string(), call)
                .map_err(|error| error.to_string())?
        }
        Mode::V1 => last(cluster.submit(tasks::v1::priced::call(job)), 1),
        Mode::V2 => last(
            cluster.submit(tasks::v2::priced::call(job, "EUR".into())),
            2,
        ),
    })
}

/// Drops the version from what a versioned task returns, after a look at it.
fn last(handle: JoinHandle<(u32, Done)>, version: u32) -> JoinHandle<Done> {
    let (promise, done) = futurepool::promise();
    promise.set_running();
    thread::spawn(move || match handle.join() {
        Ok((by, done)) => {
            assert_eq!(by, version, "C5: another version ran it");
            let _ = promise.complete(done);
        }
        Err(error) => drop(promise.fail(error)),
    });
    done
}

/// Returns the most memory that a process ever had, in KiB.
pub(crate) fn memory_peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mut lines = status
        .lines()
        .filter_map(|line| line.strip_prefix("VmHWM:"));
    let line = lines.next().unwrap_or("0 kB").trim().trim_end_matches("kB");
    line.trim().parse().unwrap_or(0)
}

/// A program that runs. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    /// Starts a program, and waits until it is connected.
    pub(crate) fn start(plan: &Plan, judge: &judge::Judge) -> Self {
        let program = Self::begin(plan, judge, &[]);
        program.line("ready");
        program
    }

    /// Starts a program by way of another one, such as `ip netns exec name`.
    pub(crate) fn begin(plan: &Plan, judge: &judge::Judge, by: &[&str]) -> Self {
        let own = env::current_exe().expect("this binary");
        let mut command = match by {
            [] => Command::new(own),
            [by, rest @ ..] => {
                let mut command = Command::new(by);
                command.args(rest).arg(own);
                command
            }
        };
        command
            .args([
                "--exact",
                "programs::program",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(PLAN, serde_json::to_string(plan).expect("a plan as text"))
            .env(judge::VARIABLE, judge.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if env::var_os("FUTUREPOOL_TEST_LOUD").is_none() {
            // Jobs that panic say so.
            command.stderr(Stdio::null());
        }
        let mut child = command.spawn().expect("this binary starts");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(io::Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that begins so, and returns the rest of it.
    pub(crate) fn line(&self, start: &str) -> String {
        self.line_within(start, PATIENCE)
    }

    pub(crate) fn line_within(&self, start: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(start) {
                        return rest.trim().to_owned();
                    }
                    assert!(!line.starts_with("failed"), "a program {line}");
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {start:?} after {limit:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("a program ended without {start:?}"),
            }
        }
    }

    /// Waits until a submitter is done, and returns its outcomes and its peak of memory in KiB.
    pub(crate) fn outcomes(&self, count: usize, limit: Duration) -> (Vec<Outcome>, u64) {
        let end = Instant::now() + limit;
        let left = || end.saturating_duration_since(Instant::now());
        let outcomes = (0..count).map(|_| {
            let line = self.line_within("outcome", left());
            serde_json::from_str(&line).expect("an outcome")
        });
        let outcomes = outcomes.collect();
        let memory = self.line_within("done", left());
        (outcomes, memory.parse().expect("a number"))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let _ = kill_process(pid.expect("the id of a process"), signal);
    }

    /// Kills it like `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        self.wait_until_stopped();
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn wait_until_stopped(&self) {
        let path = format!("/proc/{}/status", self.pid());
        eventually("a process stops", || {
            let status = fs::read_to_string(&path).unwrap_or_default();
            status.contains("State:\tT")
        });
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the state of a program") {
                return status;
            }
            assert!(Instant::now() < end, "a program does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the state of a program")
            .is_some()
    }

    /// Asks it to drain, and checks that it ends well.
    pub(crate) fn drain(mut self) {
        self.ask_to_drain();
        let status = self.wait();
        assert!(status.success(), "a drained worker says {status}");
    }

    pub(crate) fn ask_to_drain(&self) {
        let path = format!("/proc/{}/status", self.pid());
        eventually("a worker catches SIGTERM", || {
            let status = fs::read_to_string(&path).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
            caught.is_some_and(|set| set & 1 << (15 - 1) != 0)
        });
        self.signal(Signal::TERM);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
