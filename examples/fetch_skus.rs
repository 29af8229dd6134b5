//! Makes 6,000 blocking HTTP calls on 32 workers, with a progress bar and a count of each error.
//! Run with: `cargo run --release --example fetch_skus`

// The shop is a small server inside this program. It fails for three products of a hundred, so
// that the program can check its own results.
mod server;

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{ThreadPool, as_completed};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use ureq::Agent;

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "Usage: fetch_skus (it takes no arguments)";

const SKUS: usize = 6_000;
const WORKERS: usize = 32;

fn main() -> ExitCode {
    match env::args_os().nth(1) {
        None => {}
        Some(argument) if argument == "--help" => {
            let _ = writeln!(io::stdout(), "{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some(argument) => {
            eprintln!("fetch_skus: unexpected argument {argument:?}\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fetch_skus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let skus: Vec<String> = (0..SKUS).map(|n| format!("MUG-{n:04}")).collect();
    let shop = start_shop()?;

    let start = Instant::now();
    let fetched = fetch_all(&skus, shop)?;
    let time = start.elapsed();

    check(&skus, &fetched);
    match print(&fetched, time) {
        // The reader has closed the pipe, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

fn print(fetched: &Fetched, time: Duration) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{} offers in {time:.2?}", fetched.offers.len())?;
    for (reason, count) in &fetched.failures {
        writeln!(out, "{count} failures: {reason}")?;
    }
    Ok(())
}

// ---- the client ---------------------------------------------------------------------------------

#[derive(Debug, PartialEq)]
struct Offer {
    cents: u64,
    stock: u32,
}

#[derive(Default)]
struct Fetched {
    offers: HashMap<String, Offer>,
    /// How often each error occurred.
    failures: BTreeMap<String, usize>,
}

fn fetch_all(skus: &[String], shop: SocketAddr) -> Result<Fetched, Failure> {
    let pool = ThreadPool::builder()
        .max_workers(WORKERS)
        .thread_name_prefix("fetch")
        .build()?;
    // All clones of an agent share its connections. It must keep an idle one for each worker:
    // otherwise most calls would open a new connection.
    let agent: Agent = Agent::config_builder()
        .max_idle_connections(WORKERS)
        .max_idle_connections_per_host(WORKERS)
        .timeout_global(Some(Duration::from_secs(10)))
        .proxy(None) // a proxy cannot reach the server inside this program
        .build()
        .into();

    // Queues all calls at once; each takes a few hundred bytes. For endless input, push new jobs
    // while results arrive: see the example `as_completed_push`.
    let calls: Vec<_> = skus
        .iter()
        .map(|sku| {
            let (agent, url) = (agent.clone(), format!("http://{shop}/{sku}"));
            // Results arrive in completion order. The tag says which product a result is for.
            pool.submit(move || fetch(&agent, &url)).tag(sku)
        })
        .collect();

    // The bar is hidden unless standard error is a terminal.
    let template = "{pos} of {len} {wide_bar} {rate}, {eta} left, {msg} failed";
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    let style = ProgressStyle::with_template(template)?.with_key("rate", rate);
    let bar = ProgressBar::new(skus.len() as u64)
        .with_style(style)
        .with_message("0");
    let mut fetched = Fetched::default();
    let mut failed = 0;
    for (sku, result) in as_completed(calls) {
        // The job may panic, and the call may fail. Both become one kind of error here.
        match result.unwrap_or_else(|error| Err(error.into())) {
            Ok(offer) => drop(fetched.offers.insert(sku.clone(), offer)),
            Err(error) => {
                *fetched.failures.entry(error.to_string()).or_default() += 1;
                failed += 1;
                bar.set_message(failed.to_string());
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(fetched)
}

/// The job: one blocking call.
fn fetch(agent: &Agent, url: &str) -> Result<Offer, Failure> {
    // A status of 400 or above is an `Err`, too.
    let body = agent.get(url).call()?.body_mut().read_to_string()?;
    let (cents, stock) = body.split_once(' ').ok_or("the answer has no stock")?;
    Ok(Offer {
        cents: cents.parse()?,
        stock: stock.parse()?,
    })
}

// ---- the shop, and the check --------------------------------------------------------------------

/// Starts the server, which ends with the process.
fn start_shop() -> io::Result<SocketAddr> {
    server::start(WORKERS, |sku, connection| {
        thread::sleep(Duration::from_millis(8));
        match fault_of(sku) {
            None => {
                let Offer { cents, stock } = offer_of(sku);
                server::respond(connection, "200 OK", format!("{cents} {stock}").as_bytes())
            }
            Some(Fault::NotFound) => server::respond(connection, "404 Not Found", b""),
            Some(Fault::ServerError) => {
                server::respond(connection, "500 Internal Server Error", b"")
            }
            Some(Fault::Disconnect) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    })
}

enum Fault {
    NotFound,
    ServerError,
    Disconnect,
}

fn fault_of(sku: &str) -> Option<Fault> {
    match sku.get(sku.len() - 2..)? {
        "17" => Some(Fault::NotFound),
        "41" => Some(Fault::ServerError),
        "83" => Some(Fault::Disconnect),
        _ => None,
    }
}

/// Makes up an offer, always the same for the same product.
fn offer_of(sku: &str) -> Offer {
    let hash = sku.bytes().fold(17, |hash: u32, byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    });
    Offer {
        cents: u64::from(100 + hash % 9_900),
        stock: hash / 9_900 % 40,
    }
}

fn check(skus: &[String], fetched: &Fetched) {
    for sku in skus {
        let expected = fault_of(sku).is_none().then(|| offer_of(sku));
        assert_eq!(fetched.offers.get(sku), expected.as_ref(), "{sku}");
    }
    let failures = &fetched.failures;
    assert_eq!(failures["http status: 404"], SKUS / 100);
    assert_eq!(failures["http status: 500"], SKUS / 100);
    // A broken connection has one of several error messages.
    assert_eq!(failures.values().sum::<usize>(), 3 * SKUS / 100);
}
