//! The child process: runs one workload, alternating between the peers in each round.
//!
//! The child prints each result as a line of JSON.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::participant::{Participant, Scale};
use crate::placement::pin_process;
use crate::result::{Event, Sample};
use crate::workloads::Workload;

/// A measurement that takes longer than this has failed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A peer whose round takes longer than this runs no further rounds.
const SLOW_ROUND: Duration = Duration::from_secs(4);
const MIN_ROUNDS: usize = 3;
const MAX_ROUNDS: usize = 11;
/// No round starts after this time, except the first ones.
const ENOUGH: Duration = Duration::from_secs(12);

/// The options that the parent passes to a child, besides the name of the workload.
pub struct ChildOptions {
    pub scale: Scale,
    /// The number of rounds; `None` runs as many rounds as the time limit allows.
    pub rounds: Option<usize>,
    /// The names of the participants.
    pub names: Vec<String>,
}

impl ChildOptions {
    fn has_enough(&self, rounds: usize, elapsed: Duration) -> bool {
        match (self.rounds, self.scale.quick) {
            (Some(requested), _) => rounds >= requested,
            (None, true) => rounds >= 2 || elapsed > Duration::from_millis(700),
            (None, false) => rounds >= MAX_ROUNDS || rounds >= MIN_ROUNDS && elapsed > ENOUGH,
        }
    }
}

/// Runs all rounds, then exits the process without waiting for threads that hang.
pub fn run(workload: &Workload, options: &ChildOptions) -> ! {
    let pinned = pin_process(workload.placement);
    let mut participants = (workload.participants)(options.scale);
    participants.retain(|participant| options.names.contains(&participant.name));
    for participant in &mut participants {
        if let Err(reason) = pinned {
            participant.note = Some(reason.to_owned());
        }
    }
    let start = Instant::now();
    for round in 1.. {
        participants.retain(|participant| {
            let round_start = Instant::now();
            let succeeded = run_participant(participant);
            succeeded && round_start.elapsed() < SLOW_ROUND
        });
        if participants.is_empty() || options.has_enough(round, start.elapsed()) {
            break;
        }
    }
    exit(0)
}

/// Runs one round of one participant. Returns `false` if the round failed.
fn run_participant(participant: &Participant) -> bool {
    let peer = &participant.name;
    emit(&Event::Starts {
        peer: peer.clone(),
        note: participant.note.clone(),
    });
    let outcome = measure_with_timeout(Arc::clone(&participant.measure));
    let succeeded = outcome.is_ok();
    let peer = peer.clone();
    emit(&match outcome {
        Ok(sample) => Event::Took { peer, sample },
        Err(reason) => Event::Failed { peer, reason },
    });
    succeeded
}

/// Runs `measure` in a separate thread, because it may hang.
fn measure_with_timeout(measure: Arc<dyn Fn() -> Sample + Send + Sync>) -> Result<Sample, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| measure()));
        let _ = sender.send(outcome.map_err(|payload| reason(&*payload)));
    });
    receiver
        .recv_timeout(TIMEOUT)
        .unwrap_or_else(|_| Err(format!("timeout after {} s", TIMEOUT.as_secs())))
}

fn reason(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("unknown payload"))
}

fn emit(event: &Event) {
    let line = serde_json::to_string(event).expect("an event serializes to JSON");
    // The parent has closed the pipe, so no process reads further events.
    if writeln!(std::io::stdout(), "{line}").is_err() {
        exit(1);
    }
}
