//! Starts a child process for each workload, and collects the results that it prints.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Comparison;
use crate::peers::{self, Futurepool, Peer};
use crate::result::{Event, Outcome, PeerResult};
use crate::targets::evaluate;
use crate::workloads::Workload;

/// How long a child may print nothing before the parent kills it.
///
/// This must exceed the timeout of a measurement in the child.
const CHILD_TIMEOUT: Duration = Duration::from_secs(45);

pub fn run_workload(workload: &'static Workload, comparison: &Comparison) -> Outcome {
    let start = Instant::now();
    let mut outcome = Outcome {
        workload: workload.name,
        about: workload.about,
        workers: workload.workers,
        figures: workload.figures.iter().map(|figure| figure.name).collect(),
        seconds: 0.0,
        peers: Vec::new(),
        verdicts: Vec::new(),
    };
    let participants = (workload.participants)(comparison.scale);
    let mut names: Vec<_> = participants.into_iter().map(|one| one.name).collect();
    // Floors and variants of futurepool are no peers, and always run.
    let is_chosen = |name: &str| comparison.peers.iter().any(|peer| peer == name);
    names.retain(|name| is_chosen(name) || !peers::is_pool(name));
    let order = names.clone();
    match workload.own_process_rounds {
        None => {
            // A peer that kills the process has failed. The other peers start again without it.
            while let Some(culprit) = run_child(workload, comparison, &names, &mut outcome) {
                names.retain(|name| *name != culprit);
                outcome.peers.retain(|s| s.failed.is_some());
            }
        }
        Some(rounds) => {
            let rounds = match (comparison.rounds, comparison.scale.quick) {
                (Some(rounds), _) => rounds,
                (None, true) => 1,
                (None, false) => rounds,
            };
            for _ in 0..rounds {
                for name in names.chunks(1) {
                    let failed = outcome.of(&name[0]).is_some_and(|s| s.failed.is_some());
                    if !failed {
                        run_child(workload, comparison, name, &mut outcome);
                    }
                }
            }
        }
    }
    outcome
        .peers
        .sort_by_key(|result| order.iter().position(|name| *name == result.peer));
    outcome.verdicts = evaluate(&outcome);
    outcome.seconds = start.elapsed().as_secs_f64();
    outcome
}

/// Runs a child until it exits. Returns the peer that made the child die or hang, if any.
fn run_child(
    workload: &Workload,
    comparison: &Comparison,
    names: &[String],
    outcome: &mut Outcome,
) -> Option<String> {
    let mut child = match start(workload, comparison, names) {
        Ok(child) => child,
        Err(error) => {
            let reason = format!("failed to start {}: {error}", workload.program);
            peer_result(outcome, Futurepool::NAME).failed = Some(reason);
            return None;
        }
    };
    let lines = lines_of(&mut child);
    let mut running = None;
    while let Ok(line) = lines.recv_timeout(CHILD_TIMEOUT) {
        let Ok(event) = serde_json::from_str(&line) else {
            continue; // a peer printed this line
        };
        match event {
            Event::Starts { peer, note } => {
                peer_result(outcome, &peer).note = note;
                running = Some(peer);
            }
            Event::Took { peer, sample } => {
                peer_result(outcome, &peer).rounds.push(sample);
                running = None;
            }
            Event::Failed { peer, reason } => {
                peer_result(outcome, &peer).failed = Some(reason);
                running = None;
            }
        }
    }
    let _ = child.kill(); // the child has exited or hangs
    let status = child.wait();
    if let Some(peer) = &running {
        let cause = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        peer_result(outcome, peer).failed = Some(format!("its process ended: {cause}"));
    }
    running
}

fn start(workload: &Workload, comparison: &Comparison, names: &[String]) -> io::Result<Child> {
    let mut command = Command::new(program(workload.program)?);
    command
        .args(["--child", workload.name, &names.join(",")])
        .env("BLOCKING_MAX_THREADS", workload.workers.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null()); // the events report panics
    if comparison.scale.quick {
        command.arg("--quick");
    }
    let rounds = match workload.own_process_rounds {
        Some(_) => Some(1),
        None => comparison.rounds,
    };
    if let Some(rounds) = rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    command.spawn()
}

/// Returns the path of the binary `name` of this package.
///
/// `cargo run` builds only the binary that it runs. So this function builds any other binary with
/// the same cargo.
pub fn program(name: &str) -> io::Result<PathBuf> {
    let own = env::current_exe()?;
    let path = own.with_file_name(name);
    let cargo = env::var_os("CARGO").zip(env::var_os("CARGO_MANIFEST_DIR"));
    if let Some((cargo, package)) = cargo.filter(|_| own.file_stem() != path.file_stem()) {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--bin", name]);
        if cfg!(feature = "processes") {
            build.args(["--features", "processes"]);
        }
        build.args(
            own.ancestors()
                .nth(2)
                .map(|target| format!("--target-dir={}", target.display())),
        );
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        build.current_dir(package).status()?;
    }
    Ok(path)
}

/// Returns the lines that `child` prints. The caller can receive from the channel with a timeout.
fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let lines = output.lines().map_while(Result::ok);
        let _ = lines.into_iter().try_for_each(|line| sender.send(line));
    });
    lines
}

/// Returns the result of `peer`. Inserts an empty result if there is none.
fn peer_result<'a>(outcome: &'a mut Outcome, peer: &str) -> &'a mut PeerResult {
    let known = outcome.peers.iter().position(|s| s.peer == peer);
    let index = known.unwrap_or_else(|| {
        outcome.peers.push(PeerResult {
            peer: peer.to_owned(),
            ..PeerResult::default()
        });
        outcome.peers.len() - 1
    });
    &mut outcome.peers[index]
}
