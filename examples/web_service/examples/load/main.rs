//! Compares the service on its pools with the same service on tokio's `spawn_blocking`, under load.
//!
//! ```text
//! cargo run --release --example load -- [OPTION]...
//!
//! --seconds N    length of each run (default: 8)
//! --rounds N     number of runs of each kind, which take turns (default: 2)
//! --rate N       requests per second that the service can bear (default: it is measured)
//! --out DIR      writes the table and the picture there, as load.md and load.svg
//! ```
//!
//! First the program measures what the service can bear: some clients send one request after the
//! other. Then it sends half of that, as much, and twice as much. Those requests start on schedule,
//! even if the service falls behind, and latency counts from the scheduled start. All kinds receive
//! the same requests, and have the same total numbers of workers and of queue slots.
//!
//! A client leaves after its timeout, which it states in a header. One client in ten leaves much
//! earlier, and does not say so. What the service still does for a client that has left is counted.
//!
//! The service and its clients are in one process and share the processors.

#[allow(dead_code)] // the tests use more of it
#[path = "../../tests/end_to_end/client.rs"]
mod client;
mod picture;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use axum::body::Bytes;
use futurepool::Metrics;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use web_service::on_tokio::OnTokio;
use web_service::workers::Workers;
use web_service::{App, Decoder, ImageOptions, Options, database, router};

use client::{Answer, Client, jpeg};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const CONNECTIONS: usize = 2;
/// The queue capacity of each pool. Two of the pools have as much room again for urgent jobs.
const QUEUE: usize = 16;
/// Clients that send one request after the other, while the rate is measured.
const CLIENTS: usize = 16;
/// When an impatient client leaves.
const IMPATIENCE: Duration = Duration::from_millis(50);
const LOADS: [f64; 3] = [0.5, 1.0, 2.0];

fn main() -> Result<()> {
    // The processes that make thumbnails are this program, too.
    futurepool::process::init();
    let load = Load::parse(lexopt::Parser::from_env())?;
    let dir = tempfile::tempdir()?;
    let clients = Builder::new_multi_thread().enable_all().build()?;
    let visits = Visits::new(&clients, &dir)?;

    let mut report = String::new();
    let processors = available_parallelism()?;
    writeln!(report, "<!-- Written by `examples/load`. -->\n")?;
    let capacity = match load.rate {
        Some(rate) => rate as f64,
        None => {
            let mut best: f64 = 0.0;
            for kind in KINDS {
                let service = Service::start(kind, &dir)?;
                let rate = clients.block_on(saturate(service.address, &visits, load.length()))?;
                eprintln!("{}: {rate:.0} requests per second at most", kind.name());
                best = best.max(rate);
            }
            best
        }
    };
    writeln!(
        report,
        "{} processors, clients included. The service can bear {capacity:.0} requests per second.\n",
        processors
    )?;

    let mut runs = Vec::new();
    for times in LOADS {
        let rate = capacity * times;
        let mut of_load = KINDS.map(|kind| Run::new(times, rate, kind));
        for _ in 0..load.rounds {
            for run in &mut of_load {
                eprintln!("{times} times the load: {}", run.kind.name());
                let service = Service::start(run.kind, &dir)?;
                let requests = (rate * load.seconds as f64) as u64;
                let outcomes = clients.block_on(drive(service.address, rate, requests, &visits));
                run.outcomes.extend(outcomes?);
                for (label, done) in clients.block_on(service.done()) {
                    *run.done.entry(label).or_default() += done;
                }
            }
        }
        runs.extend(of_load);
    }
    table(&mut report, &runs)?;
    print!("{report}");
    if let Some(out) = load.out {
        fs::create_dir_all(&out)?;
        fs::write(out.join("load.md"), report)?;
        fs::write(out.join("load.svg"), picture::draw(&runs))?;
    }
    Ok(())
}

struct Load {
    seconds: u64,
    rounds: u64,
    rate: Option<u64>,
    out: Option<PathBuf>,
}

impl Load {
    fn parse(mut arguments: lexopt::Parser) -> std::result::Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let (mut seconds, mut rounds, mut rate, mut out) = (8, 2, None, None);
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("seconds") => seconds = arguments.value()?.parse()?,
                Long("rounds") => rounds = arguments.value()?.parse()?,
                Long("rate") => rate = Some(arguments.value()?.parse::<NonZero<u64>>()?.get()),
                Long("out") => out = Some(arguments.value()?.into()),
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(Self {
            seconds,
            rounds,
            rate,
            out,
        })
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What runs the blocking work.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Pools,
    /// As most services do it: what is queued runs, whether its client is there or not.
    SpawnBlocking,
    /// The handler aborts its job when it is dropped.
    WithAbort,
}

const KINDS: [Kind; 3] = [Kind::Pools, Kind::SpawnBlocking, Kind::WithAbort];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Pools => "pools",
            Self::SpawnBlocking => "`spawn_blocking`",
            Self::WithAbort => "`spawn_blocking`, `abort`",
        }
    }
}

/// All runs of a kind with the same load.
struct Run {
    times: f64,
    /// Requests per second.
    rate: f64,
    kind: Kind,
    outcomes: Vec<Outcome>,
    /// Jobs that ran to their end, by label.
    done: BTreeMap<&'static str, u64>,
}

impl Run {
    fn new(times: f64, rate: f64, kind: Kind) -> Self {
        Self {
            times,
            rate,
            kind,
            outcomes: Vec::new(),
            done: BTreeMap::new(),
        }
    }

    fn count(&self, route: Route, fate: Fate) -> u64 {
        let same = |outcome: &&Outcome| (outcome.route, outcome.fate) == (route, fate);
        self.outcomes.iter().filter(same).count() as u64
    }

    /// Returns how many jobs ran to their end after their client had left, or had its answer.
    fn done_for_no_client(&self, route: Route) -> u64 {
        let done = self.done.get(route.label()).copied().unwrap_or(0);
        done.saturating_sub(self.count(route, Fate::Answered))
    }

    /// Returns a quantile of the latency of good answers, in milliseconds.
    fn latency(&self, route: Route, q: f64) -> Option<f64> {
        let good = |outcome: &&Outcome| (outcome.route, outcome.fate) == (route, Fate::Answered);
        let mut times: Vec<_> = self.outcomes.iter().filter(good).map(|o| o.took).collect();
        times.sort_unstable();
        let at = ((times.len() as f64 * q) as usize).min(times.len().saturating_sub(1));
        times.get(at).map(|took| took.as_secs_f64() * 1e3)
    }
}

/// The service, on its own runtime, which is shut down when it is dropped.
struct Service {
    address: SocketAddr,
    workers: Workers,
    _runtime: Runtime,
}

impl Service {
    fn start(kind: Kind, dir: &TempDir) -> Result<Self> {
        let path = dir.path().join("users.db");
        database::create(&path)?;
        let processors = available_parallelism()?;
        let workers = 2 * processors.get() + CONNECTIONS;

        let mut runtime = Builder::new_multi_thread();
        if kind != Kind::Pools {
            runtime.max_blocking_threads(workers);
        }
        let runtime = runtime.enable_all().build()?;
        let start_limit = Duration::from_secs(2);
        let app = match kind {
            Kind::Pools => runtime.block_on(App::start(&Options {
                workers: processors,
                connections: NonZero::new(CONNECTIONS).expect("not 0"),
                queue: NonZero::new(QUEUE).expect("not 0"),
                start_limit,
                database: path,
                images: ImageOptions {
                    processes: processors,
                    time_limit: Duration::from_secs(5),
                    memory_limit: 256 << 20,
                    decoder: Decoder::Careful,
                },
            }))?,
            Kind::SpawnBlocking | Kind::WithAbort => {
                let aborts = kind == Kind::WithAbort;
                // The pools of hashes and of images have a place for each worker besides.
                let slots = 5 * QUEUE + 2 * processors.get();
                let tokio = OnTokio::new(workers + slots, path, aborts);
                App {
                    workers: Workers::SpawnBlocking(Arc::new(tokio)),
                    start_limit,
                    decoder: Decoder::Careful,
                    counts: Arc::default(),
                }
            }
        };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let workers = app.workers.clone();
        runtime.spawn(async { axum::serve(listener, router(app)).await });
        Ok(Self {
            address,
            workers,
            _runtime: runtime,
        })
    }

    /// Waits until all accepted jobs have ended, and returns how many ran to their end.
    async fn done(&self) -> BTreeMap<&'static str, u64> {
        match &self.workers {
            Workers::Pools(pools) => {
                pools.cpu.wait_idle().await;
                pools.db.wait_idle().await;
                pools.images.wait_idle().await;
                let of_label = |metrics: Metrics| {
                    let labels = metrics.by_label().clone().into_iter();
                    labels.map(|(label, of_label)| (label, of_label.completed))
                };
                let pools = pools.metrics().map(|(_, metrics)| metrics);
                pools.into_iter().flat_map(of_label).collect()
            }
            Workers::SpawnBlocking(tokio) => {
                while !tokio.is_idle() {
                    sleep(Duration::from_millis(5)).await;
                }
                tokio.done()
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Route {
    User,
    Verify,
    Inspect,
    Thumbnail,
}

const ROUTES: [Route; 4] = [Route::User, Route::Verify, Route::Inspect, Route::Thumbnail];

impl Route {
    /// Returns the route of the request with this number, the same for all kinds.
    fn of(random: u64) -> Self {
        match random % 20 {
            0..10 => Self::User,
            10 => Self::Verify,
            11..14 => Self::Inspect,
            _ => Self::Thumbnail,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::User => "/users/{id}",
            Self::Verify => "/verify",
            Self::Inspect => "/inspect",
            Self::Thumbnail => "/thumbnail",
        }
    }

    /// Returns how long a client waits for an answer.
    fn timeout(self) -> Duration {
        match self {
            Self::User | Self::Verify | Self::Inspect => Duration::from_millis(500),
            Self::Thumbnail => Duration::from_secs(2),
        }
    }
}

struct Outcome {
    route: Route,
    fate: Fate,
    took: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    /// 503, because the queue was full.
    Full,
    /// 503, because the job did not start in time.
    Expired,
    /// The client left after its timeout.
    TimedOut,
    /// An impatient client left.
    Left,
}

/// What the clients send.
#[derive(Clone)]
struct Visits {
    image: Bytes,
    /// The body of a request that verifies a password.
    password: Bytes,
}

impl Visits {
    fn new(clients: &Runtime, dir: &TempDir) -> Result<Self> {
        let service = Service::start(Kind::Pools, dir)?;
        let hashed = clients.block_on(Client::new(service.address).hash("under load"))?;
        let hashed = std::str::from_utf8(&hashed.body)?;
        let hash = hashed.trim_start_matches('{');
        let password = format!(r#"{{"password":"under load",{hash}"#);
        Ok(Self {
            image: jpeg(1_280, 960),
            password: password.into(),
        })
    }

    async fn send(&self, client: &Client, route: Route, number: u64) -> Result<Answer> {
        let client = client.clone().with_timeout(route.timeout());
        let answer = match route {
            Route::User => client.get(&format!("/users/{}", 1 + number % 1_000)).await,
            Route::Verify => {
                let body = self.password.clone();
                client.post("/verify", "application/json", body).await
            }
            Route::Inspect => {
                let body = self.image.clone();
                client.post("/inspect", "image/jpeg", body).await
            }
            Route::Thumbnail => client.thumbnail(&self.image).await,
        };
        Ok(answer?)
    }
}

/// The upper bits of the product are random enough.
fn random(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// Sends one request after the other from each of some clients. Returns the good answers per
/// second.
async fn saturate(server: SocketAddr, visits: &Visits, length: Duration) -> Result<f64> {
    let (next, good) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, visits) = (Client::new(server), visits.clone());
        let (next, good) = (Arc::clone(&next), Arc::clone(&good));
        clients.spawn(async move {
            while begin.elapsed() < length {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let route = Route::of(random(number));
                if visits.send(&client, route, number).await?.status == 200 {
                    good.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(good.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64())
}

/// Sends requests at a constant rate.
async fn drive(
    server: SocketAddr,
    rate: f64,
    requests: u64,
    visits: &Visits,
) -> Result<Vec<Outcome>> {
    let client = Client::new(server);
    let begin = Instant::now() + Duration::from_millis(100);
    let mut under_way = JoinSet::new();
    for number in 0..requests {
        let due = begin + Duration::from_secs_f64(number as f64 / rate);
        sleep_until(due).await;
        under_way.spawn(ask(number, due, client.clone(), visits.clone()));
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = under_way.join_next().await {
        outcomes.push(outcome??);
    }
    Ok(outcomes)
}

async fn ask(number: u64, due: Instant, client: Client, visits: Visits) -> Result<Outcome> {
    let route = Route::of(random(number));
    let is_impatient = (random(number) / 20).is_multiple_of(10);
    let patience = if is_impatient {
        IMPATIENCE
    } else {
        route.timeout()
    };
    // A client that leaves drops its request, which closes the connection.
    let answer = timeout_at(due + patience, visits.send(&client, route, number)).await;
    let fate = match answer {
        Err(_) if is_impatient => Fate::Left,
        Err(_) => Fate::TimedOut,
        Ok(answer) => {
            let answer = answer?;
            match answer.status {
                200 => Fate::Answered,
                503 if answer.body.starts_with(b"The service is busy") => Fate::Full,
                503 if answer.body.starts_with(b"The service is too busy") => Fate::Expired,
                status => return Err(format!("{}: {status}", route.label()).into()),
            }
        }
    };
    let took = due.elapsed();
    Ok(Outcome { route, fate, took })
}

fn table(out: &mut String, runs: &[Run]) -> Result<()> {
    writeln!(
        out,
        "| load | requests per second | blocking work on | route | requests | 200 | 503, queue full | 503, expired \
         | client timed out | client left | p50 of 200, ms | p99 of 200, ms | done for no client |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|---|---|---|---|")?;
    for run in runs {
        for route in ROUTES {
            let requests = run.outcomes.iter().filter(|o| o.route == route).count();
            let [good, full, expired, timed_out, left] = [
                Fate::Answered,
                Fate::Full,
                Fate::Expired,
                Fate::TimedOut,
                Fate::Left,
            ]
            .map(|fate| run.count(route, fate));
            let quantile = |q| {
                let latency = run.latency(route, q);
                latency.map_or("–".into(), |ms| format!("{ms:.1}"))
            };
            writeln!(
                out,
                "| {} | {:.0} | {} | `{}` | {requests} | {good} | {full} | {expired} | {timed_out} | {left} \
                 | {} | {} | {} |",
                run.times,
                run.rate,
                run.kind.name(),
                route.label(),
                quantile(0.5),
                quantile(0.99),
                run.done_for_no_client(route),
            )?;
        }
    }
    Ok(())
}
