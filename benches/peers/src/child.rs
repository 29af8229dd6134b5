//! One process that takes one workload, all peers in turn, round after round, and prints what it finds line by line.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::contest::{Contestant, Scale};
use crate::result::{Event, Sample};
use crate::workloads::Workload;

/// A measure that took so long has no answer any more.
const LIMIT: Duration = Duration::from_secs(30);
/// A peer that takes so long for a round has one round only.
const SLOW: Duration = Duration::from_secs(4);
const MIN_ROUNDS: usize = 3;
const MAX_ROUNDS: usize = 9;

/// What the parent says to its child, beside the name of the workload.
pub struct Orders {
    pub scale: Scale,
    /// So many, however long they take; else as many as there is time for.
    pub rounds: Option<usize>,
    /// Who takes part.
    pub names: Vec<String>,
}

impl Orders {
    fn enough(&self, rounds: usize, elapsed: Duration) -> bool {
        match (self.rounds, self.scale.quick) {
            (Some(wanted), _) => rounds >= wanted,
            (None, true) => rounds >= 2 || elapsed > Duration::from_millis(700),
            (None, false) => {
                rounds >= MAX_ROUNDS || rounds >= MIN_ROUNDS && elapsed > Duration::from_secs(20)
            }
        }
    }
}

/// Takes all measures. It ends the process itself: what hangs is not waited for.
pub fn run(workload: &Workload, orders: &Orders) -> ! {
    let mut contestants = (workload.contestants)(orders.scale);
    contestants.retain(|contestant| orders.names.contains(&contestant.name));
    let start = Instant::now();
    for round in 1.. {
        contestants.retain(|contestant| {
            let began = Instant::now();
            let went_well = take_part(contestant);
            went_well && began.elapsed() < SLOW
        });
        if contestants.is_empty() || orders.enough(round, start.elapsed()) {
            break;
        }
    }
    exit(0)
}

/// One measure of one contestant; says whether there was one.
fn take_part(contestant: &Contestant) -> bool {
    let peer = &contestant.name;
    say(&Event::Starts {
        peer: peer.clone(),
        note: contestant.note.clone(),
    });
    let outcome = in_time(Arc::clone(&contestant.measure));
    let went_well = outcome.is_ok();
    let peer = peer.clone();
    say(&match outcome {
        Ok(sample) => Event::Took { peer, sample },
        Err(reason) => Event::Failed { peer, reason },
    });
    went_well
}

/// The measure, in a thread of its own, because it may hang.
fn in_time(measure: Arc<dyn Fn() -> Sample + Send + Sync>) -> Result<Sample, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| measure()));
        let _ = sender.send(outcome.map_err(|payload| reason(&*payload)));
    });
    receiver
        .recv_timeout(LIMIT)
        .unwrap_or_else(|_| Err(format!("no end within {} s", LIMIT.as_secs())))
}

fn reason(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("of an unknown kind"))
}

fn say(event: &Event) {
    let line = serde_json::to_string(event).expect("events are JSON");
    // With nobody there to read it, there is nothing left to do.
    if writeln!(std::io::stdout(), "{line}").is_err() {
        exit(1);
    }
}
