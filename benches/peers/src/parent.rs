//! Starts a process for each workload, and gathers what they print.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Comparison;
use crate::peers::{Futurepool, NAMES, Peer};
use crate::result::{Event, Outcome, Standing};
use crate::targets::judge;
use crate::workloads::Workload;

/// A process that says nothing for so long is ended. A measure has less.
const SILENCE: Duration = Duration::from_secs(45);

/// Who takes part whatever peers were chosen.
const ALWAYS: [&str; 2] = ["floor", "futurepool (2)"];

pub fn take(workload: &'static Workload, comparison: &Comparison) -> Outcome {
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
    let chosen = NAMES
        .into_iter()
        .filter(|name| comparison.peers.iter().any(|peer| peer == name));
    match workload.apart {
        None => {
            // Who brings the process down has one try; the others go on without it.
            let mut names: Vec<_> = chosen.chain(ALWAYS).collect();
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
            let names: Vec<_> = chosen.collect();
            for _ in 0..rounds {
                for name in &names {
                    let failed = outcome.of(name).is_some_and(|s| s.failed.is_some());
                    if !failed {
                        run_child(workload, comparison, &[name], &mut outcome);
                    }
                }
            }
        }
    }
    let order = |standing: &Standing| {
        let known = NAMES.iter().position(|name| *name == standing.peer);
        known.unwrap_or(NAMES.len())
    };
    outcome.peers.sort_by_key(order);
    outcome.verdicts = workload
        .goals
        .iter()
        .map(|goal| judge(goal, &outcome))
        .collect();
    outcome.seconds = start.elapsed().as_secs_f64();
    outcome
}

/// Runs a child to its end; gives the name of who brought it to an early one.
fn run_child(
    workload: &Workload,
    comparison: &Comparison,
    names: &[&str],
    outcome: &mut Outcome,
) -> Option<String> {
    let mut child = match start(workload, comparison, names) {
        Ok(child) => child,
        Err(error) => {
            let reason = format!("{} does not start: {error}", workload.program);
            standing(outcome, Futurepool::NAME).failed = Some(reason);
            return None;
        }
    };
    let lines = lines_of(&mut child);
    let mut at_work = None;
    while let Ok(line) = lines.recv_timeout(SILENCE) {
        let Ok(event) = serde_json::from_str(&line) else {
            continue; // a peer printed something
        };
        match event {
            Event::Starts { peer, note } => {
                standing(outcome, &peer).note = note;
                at_work = Some(peer);
            }
            Event::Took { peer, sample } => {
                standing(outcome, &peer).rounds.push(sample);
                at_work = None;
            }
            Event::Failed { peer, reason } => {
                standing(outcome, &peer).failed = Some(reason);
                at_work = None;
            }
        }
    }
    let _ = child.kill(); // it has ended, or hangs
    let ending = child.wait();
    if let Some(peer) = &at_work {
        let why = ending.map_or_else(|error| error.to_string(), |status| status.to_string());
        standing(outcome, peer).failed = Some(format!("its process ended: {why}"));
    }
    at_work
}

fn start(workload: &Workload, comparison: &Comparison, names: &[&str]) -> io::Result<Child> {
    let mut command = Command::new(program(workload.program)?);
    command
        .args(["--child", workload.name, &names.join(",")])
        .env("BLOCKING_MAX_THREADS", workload.workers.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null()); // panics are told in the events
    if comparison.scale.quick {
        command.arg("--quick");
    }
    let rounds = match workload.apart {
        Some(_) => Some(1),
        None => comparison.rounds,
    };
    if let Some(rounds) = rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    command.spawn()
}

/// Where a binary of this package is. `cargo run` builds the one it runs and no other, so that one is built here, by the
/// cargo that runs this.
fn program(name: &str) -> io::Result<PathBuf> {
    let own = env::current_exe()?;
    let path = own.with_file_name(name);
    let cargo = env::var_os("CARGO").zip(env::var_os("CARGO_MANIFEST_DIR"));
    if let Some((cargo, package)) = cargo.filter(|_| own.file_stem() != path.file_stem()) {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--bin", name]);
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

/// What it prints, to be waited for no longer than one likes.
fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let lines = output.lines().map_while(Result::ok);
        let _ = lines.into_iter().try_for_each(|line| sender.send(line));
    });
    lines
}

fn standing<'a>(outcome: &'a mut Outcome, peer: &str) -> &'a mut Standing {
    let known = outcome.peers.iter().position(|s| s.peer == peer);
    let index = known.unwrap_or_else(|| {
        outcome.peers.push(Standing {
            peer: peer.to_owned(),
            ..Standing::default()
        });
        outcome.peers.len() - 1
    });
    &mut outcome.peers[index]
}
