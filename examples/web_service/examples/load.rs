//! Compares the service on its three pools, on one pool of threads and on tokio's `spawn_blocking`,
//! under load.
//!
//! ```text
//! cargo run --release --example load -- [--rate N]... [--seconds N] [--rounds N]
//!
//! --rate N       requests per second; can be repeated (default: 60 and 400)
//! --seconds N    length of each run (default: 10)
//! --rounds N     number of runs of each kind, which take turns (default: 2)
//! ```
//!
//! Of ten requests, seven are queries, two are hashes and one is a thumbnail. Requests start on
//! schedule, even if the service falls behind, and latency counts from the scheduled start. All
//! kinds receive the same requests, and have the same total numbers of workers and queue slots. Only
//! the service itself makes thumbnails in processes; the other two make them in threads.
//!
//! The service and its clients are in one process and share the processors. The program prints a
//! Markdown table.

#[allow(dead_code)] // the tests use more of it
#[path = "../tests/end_to_end/client.rs"]
mod client;

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use axum::body::Bytes;
use futurepool::ThreadPool;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use web_service::workers::{Processes, Workers};
use web_service::{App, Decoder, ImageOptions, Options, database, router};

use client::{Client, jpeg};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const CONNECTIONS: usize = 2;
/// The queue capacity of each pool.
const QUEUE: usize = 32;

fn main() -> Result<()> {
    // The processes that make thumbnails are this program, too.
    futurepool::process::init();
    let load = Load::parse(lexopt::Parser::from_env())?;
    let dir = tempfile::tempdir()?;
    let clients = Builder::new_multi_thread().enable_all().build()?;
    println!(
        "| requests per second | threads | route | requests | 200 | 503 | p50 of 200, ms | p99 of 200, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for &rate in &load.rates {
        let mut all = THREADS.map(|threads| (threads, Vec::new()));
        for _ in 0..load.rounds {
            for (threads, outcomes) in &mut all {
                let service = Service::start(*threads, &dir)?;
                let requests = rate * load.seconds;
                let turn = clients.block_on(drive(service.address, rate, requests));
                outcomes.extend(turn?);
            }
        }
        for (threads, outcomes) in &all {
            for route in ROUTES {
                print_row(rate, *threads, route, outcomes);
            }
        }
    }
    Ok(())
}

struct Load {
    rates: Vec<u64>,
    seconds: u64,
    rounds: u64,
}

impl Load {
    fn parse(mut arguments: lexopt::Parser) -> std::result::Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let (mut rates, mut seconds, mut rounds) = (Vec::new(), 10, 2);
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("rate") => rates.push(arguments.value()?.parse::<NonZero<u64>>()?.get()),
                Long("seconds") => seconds = arguments.value()?.parse()?,
                Long("rounds") => rounds = arguments.value()?.parse()?,
                _ => return Err(argument.unexpected()),
            }
        }
        if rates.is_empty() {
            rates = vec![60, 400];
        }
        Ok(Self {
            rates,
            seconds,
            rounds,
        })
    }
}

#[derive(Clone, Copy)]
enum Threads {
    ThreePools,
    OnePool,
    SpawnBlocking,
}

const THREADS: [Threads; 3] = [
    Threads::ThreePools,
    Threads::OnePool,
    Threads::SpawnBlocking,
];

impl Threads {
    fn name(self) -> &'static str {
        match self {
            Self::ThreePools => "three pools",
            Self::OnePool => "one pool",
            Self::SpawnBlocking => "`spawn_blocking`",
        }
    }
}

/// The service, on its own runtime, which is shut down when it is dropped.
struct Service {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Service {
    fn start(threads: Threads, dir: &TempDir) -> Result<Self> {
        let path = dir.path().join("users.db");
        database::create(&path)?;
        let processors = available_parallelism()?;
        let threads_in_all = 2 * processors.get() + CONNECTIONS;

        let mut runtime = Builder::new_multi_thread();
        if let Threads::SpawnBlocking = threads {
            // The hook runs on async threads as well, and it cannot return an error.
            let connect = connects_to(&path);
            runtime.max_blocking_threads(threads_in_all);
            runtime.on_thread_start(move || connect().expect("the database exists"));
        }
        let runtime = runtime.enable_all().build()?;

        let app = match threads {
            Threads::ThreePools => runtime.block_on(App::start(&Options {
                workers: processors,
                connections: NonZero::new(CONNECTIONS).expect("not 0"),
                queue: NonZero::new(QUEUE).expect("not 0"),
                database: path,
                images: ImageOptions {
                    processes: processors,
                    time_limit: Duration::from_secs(5),
                    memory_limit: 256 << 20,
                    decoder: Decoder::Careful,
                },
            }))?,
            Threads::OnePool => {
                let pool = ThreadPool::builder()
                    .max_workers(threads_in_all)
                    .queue_capacity(3 * QUEUE)
                    .initializer(connects_to(&path))
                    .build()?;
                all(Workers::Pool(Arc::new(pool)))
            }
            Threads::SpawnBlocking => {
                let permits = Semaphore::new(threads_in_all + 3 * QUEUE);
                all(Workers::SpawnBlocking(Arc::new(permits)))
            }
        };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        runtime.spawn(async { axum::serve(listener, router(app)).await });
        Ok(Self {
            address,
            _runtime: runtime,
        })
    }
}

fn connects_to(path: &Path) -> impl Fn() -> Result<()> + Send + Sync + 'static {
    let path = path.to_owned();
    move || Ok(database::connect(&path)?)
}

fn all(workers: Workers) -> App {
    App {
        cpu: workers.clone(),
        db: workers.clone(),
        images: Processes::Threads(workers),
        decoder: Decoder::Careful,
        counts: Arc::default(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Route {
    User,
    Hash,
    Thumbnail,
}

const ROUTES: [Route; 3] = [Route::User, Route::Hash, Route::Thumbnail];

impl Route {
    /// Returns the route of the request with this number, the same for all kinds of threads.
    fn of(number: u64) -> Self {
        // The upper bits of the product are random enough.
        match (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 10 {
            0..7 => Self::User,
            7..9 => Self::Hash,
            _ => Self::Thumbnail,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::User => "`/users/{id}`",
            Self::Hash => "`/hash`",
            Self::Thumbnail => "`/thumbnail`",
        }
    }
}

struct Outcome {
    route: Route,
    status: u16,
    took: Duration,
}

async fn drive(server: SocketAddr, rate: u64, requests: u64) -> Result<Vec<Outcome>> {
    let client = Client::new(server);
    let image = jpeg(1_280, 960);
    let begin = Instant::now() + Duration::from_millis(100);
    let mut under_way = JoinSet::new();
    for number in 0..requests {
        let due = begin + Duration::from_secs_f64(number as f64 / rate as f64);
        sleep_until(due).await;
        under_way.spawn(ask(number, due, client.clone(), image.clone()));
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = under_way.join_next().await {
        outcomes.push(outcome??);
    }
    Ok(outcomes)
}

async fn ask(number: u64, due: Instant, client: Client, image: Bytes) -> Result<Outcome> {
    let route = Route::of(number);
    let answer = match route {
        Route::User => client.get(&format!("/users/{}", 1 + number % 1_000)).await,
        Route::Hash => client.hash("under load").await,
        Route::Thumbnail => client.thumbnail(&image).await,
    }?;
    if ![200, 503].contains(&answer.status) {
        return Err(format!("{}: {}", route.name(), answer.status).into());
    }
    Ok(Outcome {
        route,
        status: answer.status,
        took: due.elapsed(),
    })
}

fn print_row(rate: u64, threads: Threads, route: Route, outcomes: &[Outcome]) {
    let of_route: Vec<_> = outcomes.iter().filter(|o| o.route == route).collect();
    let good = of_route.iter().filter(|outcome| outcome.status == 200);
    let mut times: Vec<_> = good.map(|outcome| outcome.took).collect();
    times.sort_unstable();
    let quantile = |q: f64| {
        let at = times.get(((times.len() as f64 * q) as usize).min(times.len().saturating_sub(1)));
        at.map_or("–".into(), |took| {
            format!("{:.1}", took.as_secs_f64() * 1e3)
        })
    };
    println!(
        "| {rate} | {} | {} | {} | {} | {} | {} | {} |",
        threads.name(),
        route.name(),
        of_route.len(),
        times.len(),
        of_route.len() - times.len(),
        quantile(0.5),
        quantile(0.99),
    );
}
