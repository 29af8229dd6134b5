//! Price and stock of 6,000 product numbers, one HTTP call each, by a client that blocks.
//!
//! ```text
//! cargo run --release --example fetch_skus
//! ```
//!
//! The shop it asks is a small server inside this program: slow, and told to fail for some of the numbers. So the
//! program can check itself: each number has to be among the offers or among the failures, once, and the failures
//! have to be those the shop was told. If they are not, the exit status is 1; wrong arguments are status 2.

mod server;

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{ThreadPool, as_completed};
use indicatif::{ProgressBar, ProgressStyle};
use ureq::Agent;

/// With a header, and the product number in the first column.
const PRODUCTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fetch_skus.csv");

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "\
Usage: fetch_skus [OPTIONS]

--workers N      calls at a time (default: 32)
--latency MS     how long the shop takes for each answer (default: 8)
--one-by-one N   how many numbers are fetched one by one, to compare (default: 600)
--quick          the same as --one-by-one 60
";

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            eprint!("fetch_skus: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fetch_skus: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    workers: usize,
    latency: Duration,
    one_by_one: usize,
}

impl Options {
    fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut options = Self {
            workers: 32,
            latency: Duration::from_millis(8),
            one_by_one: 600,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => {
                    print!("{USAGE}");
                    process::exit(0);
                }
                Long("workers") => options.workers = arguments.value()?.parse()?,
                Long("latency") => {
                    options.latency = Duration::from_millis(arguments.value()?.parse()?);
                }
                Long("one-by-one") => options.one_by_one = arguments.value()?.parse()?,
                Long("quick") => options.one_by_one = 60,
                _ => return Err(argument.unexpected()),
            }
        }
        if options.workers == 0 || options.one_by_one == 0 {
            return Err("--workers and --one-by-one take a number from 1".into());
        }
        Ok(options)
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let skus = read_skus(Path::new(PRODUCTS))?;
    let faults = choose_faults(&skus);
    let shop = start_shop(faults.clone(), options)?;

    // An agent keeps connections open for its next calls, and all its clones share them. The limits are on those not
    // in use; with fewer of them than workers, most calls would have to connect anew.
    let agent: Agent = Agent::config_builder()
        .max_idle_connections(options.workers)
        .max_idle_connections_per_host(options.workers)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into();

    let start = Instant::now();
    let sample = &skus[..options.one_by_one.min(skus.len())];
    let fetched_one_by_one = fetch_one_by_one(sample, &agent, shop);
    let one_by_one = start.elapsed();

    let start = Instant::now();
    let fetched = fetch_with_pool(&skus, &agent, shop, options.workers)?;
    let pooled = start.elapsed();

    let (all, some) = (skus.len(), sample.len());
    let all_one_by_one = one_by_one.mul_f64(all as f64 / some as f64);
    let speed_up = all_one_by_one.as_secs_f64() / pooled.as_secs_f64();
    println!("{fetched}");
    println!("one by one: {some} numbers in {one_by_one:.2?}");
    if some < all {
        println!("            so all {all} would take {all_one_by_one:.1?} (extrapolated)");
    }
    println!(
        "the pool:   {all} numbers in {pooled:.2?}, {} workers",
        options.workers
    );
    println!("speed-up:   {speed_up:.1} times");

    check(sample, &faults, &fetched_one_by_one)?;
    check(&skus, &faults, &fetched)?;
    println!("checked:    each number is there once, and those that failed are those that had to");
    Ok(())
}

// ---- the job ----------------------------------------------------------------------------------------------

#[derive(Debug, PartialEq)]
struct Offer {
    cents: u64,
    stock: u32,
}

#[derive(Default)]
struct Fetched {
    offers: HashMap<String, Offer>,
    failures: Vec<(String, Failure)>,
    /// How often a result came, to see that none came twice.
    results: usize,
}

/// Fetches all of them with a pool of threads.
fn fetch_with_pool(
    skus: &[String],
    agent: &Agent,
    shop: SocketAddr,
    workers: usize,
) -> Result<Fetched, Failure> {
    let pool = ThreadPool::builder()
        .max_workers(workers)
        .thread_name_prefix("fetch")
        .build()?;

    // All of them are queued at once, each a closure and a handle: a few hundred bytes. For a list that does not end,
    // push new ones while results come; the example `as_completed` does.
    let calls: Vec<_> = skus
        .iter()
        .map(|sku| {
            let (agent, url) = (agent.clone(), format!("http://{shop}/{sku}"));
            // The tag comes back with the result: results come in the order in which they are ready.
            pool.submit(move || fetch(&agent, &url)).tag(sku)
        })
        .collect();

    // Hidden if standard error is no terminal.
    let style = ProgressStyle::with_template("{pos} of {len} {wide_bar} {per_sec}, {msg} failed")?;
    let bar = ProgressBar::new(skus.len() as u64).with_style(style);
    let mut fetched = Fetched::default();
    for (sku, result) in as_completed(calls) {
        // Two things can go wrong: the job, which may panic, and the call that it makes.
        let result = result.unwrap_or_else(|error| Err(error.into()));
        fetched.add(sku, result);
        bar.inc(1);
        bar.set_message(fetched.failures.len().to_string());
    }
    bar.finish_and_clear();
    Ok(fetched)
}

/// The same in a plain loop.
fn fetch_one_by_one(skus: &[String], agent: &Agent, shop: SocketAddr) -> Fetched {
    let mut fetched = Fetched::default();
    for sku in skus {
        fetched.add(sku, fetch(agent, &format!("http://{shop}/{sku}")));
    }
    fetched
}

/// One blocking call.
fn fetch(agent: &Agent, url: &str) -> Result<Offer, Failure> {
    // A status of 400 and above is an `Err` too.
    let body = agent.get(url).call()?.body_mut().read_to_string()?;
    let (cents, stock) = body.split_once(' ').ok_or("the answer has no stock")?;
    Ok(Offer {
        cents: cents.parse()?,
        stock: stock.parse()?,
    })
}

impl Fetched {
    fn add(&mut self, sku: &str, result: Result<Offer, Failure>) {
        self.results += 1;
        match result {
            Ok(offer) => drop(self.offers.insert(sku.to_owned(), offer)),
            Err(error) => self.failures.push((sku.to_owned(), error)),
        }
    }
}

/// A summary, with how often each reason was given.
impl fmt::Display for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cents: u64 = self.offers.values().map(|offer| offer.cents).sum();
        let sold_out = self.offers.values().filter(|offer| offer.stock == 0);
        let (number, sold_out) = (self.offers.len(), sold_out.count());
        let mean = cents as f64 / 100.0 / number.max(1) as f64;
        writeln!(
            f,
            "{number} offers at {mean:.2} on average, {sold_out} sold out"
        )?;

        write!(f, "{} failures", self.failures.len())?;
        let mut reasons = BTreeMap::<String, usize>::new();
        for (_, reason) in &self.failures {
            *reasons.entry(reason.to_string()).or_default() += 1;
        }
        for (reason, number) in reasons {
            write!(f, "\n  {number} times: {reason}")?;
        }
        Ok(())
    }
}

/// The first column of a CSV file that has a header and no quotes.
fn read_skus(file: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let columns = text.lines().skip(1).filter_map(|row| row.split(',').next());
    Ok(columns.map(String::from).collect())
}

// ---- the check --------------------------------------------------------------------------------------------

/// Whether each number is there exactly once, and where it has to be.
fn check(
    skus: &[String],
    faults: &HashMap<String, Fault>,
    fetched: &Fetched,
) -> Result<(), Failure> {
    let failures: HashMap<_, _> = fetched.failures.iter().map(|(sku, e)| (sku, e)).collect();
    for sku in skus {
        let (offer, failure) = (fetched.offers.get(sku), failures.get(sku));
        let is_right = match (faults.get(sku), offer, failure) {
            (None, Some(offer), None) => *offer == offer_of(sku),
            (Some(fault), None, Some(failure)) => fault.explains(failure),
            _ => false,
        };
        if !is_right {
            return Err(format!("{sku} is {offer:?} among offers, {failure:?} in failures").into());
        }
    }
    let (expected, results) = (skus.len(), fetched.results);
    if results != expected || fetched.offers.len() + failures.len() != expected {
        return Err(format!("{expected} numbers gave {results} results").into());
    }
    Ok(())
}

impl Fault {
    fn explains(self, failure: &Failure) -> bool {
        use ureq::Error::{Io, StatusCode};

        let error = failure.downcast_ref();
        match self {
            Self::NotFound => matches!(error, Some(StatusCode(404))),
            Self::ServerError => matches!(error, Some(StatusCode(500))),
            Self::BrokenOff => matches!(error, Some(Io(_))),
        }
    }
}

// ---- the shop ---------------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
enum Fault {
    NotFound,
    ServerError,
    BrokenOff,
}

/// Three of a hundred numbers, one for each fault.
fn choose_faults(skus: &[String]) -> HashMap<String, Fault> {
    let fault_of = |(index, sku): (usize, &String)| {
        let fault = match index % 100 {
            17 => Fault::NotFound,
            41 => Fault::ServerError,
            83 => Fault::BrokenOff,
            _ => return None,
        };
        Some((sku.clone(), fault))
    };
    skus.iter().enumerate().filter_map(fault_of).collect()
}

/// What the shop has of a product: made up, but always the same.
fn offer_of(sku: &str) -> Offer {
    let hash = sku.bytes().fold(17, |hash: u32, byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    });
    Offer {
        cents: u64::from(100 + hash % 9_900),
        stock: hash / 9_900 % 40,
    }
}

/// Starts the server, which ends with the program.
fn start_shop(faults: HashMap<String, Fault>, options: &Options) -> io::Result<SocketAddr> {
    let (faults, latency) = (Arc::new(faults), options.latency);
    server::start(options.workers, move |sku, connection| {
        thread::sleep(latency);
        match faults.get(sku) {
            None => {
                let offer = offer_of(sku);
                let body = format!("{} {}", offer.cents, offer.stock);
                server::respond(connection, "200 OK", body.as_bytes())
            }
            Some(Fault::NotFound) => server::respond(connection, "404 Not Found", b""),
            Some(Fault::ServerError) => {
                server::respond(connection, "500 Internal Server Error", b"")
            }
            Some(Fault::BrokenOff) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    })
}
