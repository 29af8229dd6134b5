//! Measures the latency of an axum service whose handlers wait for a job of 5 µs.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin service
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin service -- --quick
//! ```
//!
//! The server is this process: axum on a tokio runtime of two workers. The clients are a second
//! process of the same program, so that the server's runtime does not schedule them. They run on one
//! thread, over loopback TCP. Each keeps one connection open and sends its next request when it has
//! the answer to the last one.
//!
//! The routes differ only in where the job runs. They alternate round by round, so a disturbance of
//! the machine affects all alike. Compare only ratios within one run.

use std::env;
use std::fmt::Display;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use axum::serve::ListenerExt;
use futurepool_peers::peers::{Futurepool, Peer, Rayon, Tokio};
use lexopt::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;

const HELP: &str = "\
Measures the latency of an axum service whose handlers wait for a job of 5 µs.

  --quick           run few requests, in a few seconds; a smoke test
  --rounds N        run N rounds (default: 51, with --quick 3)
  --clients N,…     run with these numbers of clients (default: 1,64)
  --help            print this help
";

/// Each route, and where it runs the job. The first is what the others are compared with.
const ROUTES: [(&str, &str); 5] = [
    ("futurepool", "submit to a futurepool of 2 workers"),
    ("spawn_blocking", "tokio::task::spawn_blocking"),
    (
        "spawn_blocking_2",
        "the same, with at most 2 blocking threads",
    ),
    ("rayon", "spawn_fifo on a rayon pool of 2 threads, oneshot"),
    ("inline", "in the handler itself: the floor"),
];

const WORKERS: usize = 2;
const JOB: Duration = Duration::from_micros(5);
/// The seeds of the jobs: the clients know the answer to each.
const SEEDS: u64 = 16;
/// The number of requests per round, of all clients together.
const REQUESTS: usize = 2_000;
const QUICK_REQUESTS: usize = 320;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Options {
    quick: bool,
    rounds: Option<usize>,
    clients: Vec<usize>,
    /// The port of the server and the steps of a job. The server passes them to the clients.
    server: Option<(u16, u64)>,
}

fn main() -> ExitCode {
    let outcome = match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => match options.server {
            None => serve(),
            Some((port, steps)) => load(&options, port, steps),
        },
        Ok(None) => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error.into()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("service: {error}");
        ExitCode::from(2)
    })
}

/// Returns `None` if the help was asked for.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        quick: false,
        rounds: None,
        clients: vec![1, 64],
        server: None,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => options.quick = true,
            Long("rounds") => options.rounds = Some(positive(parser.value()?.parse()?)?),
            Long("clients") => {
                let list = parser.value()?.string()?;
                let counts = list.split(',').map(|count| Ok(positive(count.parse()?)?));
                options.clients = counts
                    .collect::<Result<_, Failure>>()
                    .map_err(|error| format!("--clients: {error}"))?;
            }
            Long("load") => {
                let port = parser.value()?.parse()?;
                options.server = Some((port, parser.value()?.parse()?));
            }
            Long("help") | Short('h') => return Ok(None),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Some(options))
}

fn positive(count: usize) -> Result<usize, lexopt::Error> {
    match count {
        0 => Err("must be at least 1".into()),
        _ => Ok(count),
    }
}

/// Serves until the clients, a second process, have printed their figures.
fn serve() -> Result<ExitCode, Failure> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_io()
        .build()?;
    // Its blocking threads are another pool of tokio's.
    let two_threads = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(WORKERS)
        .build()?;
    let steps = steps_of(JOB);
    let app = runtime.block_on(async { router(steps, &two_threads) });
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let port = listener.local_addr()?.port();
    let listener = listener.tap_io(|stream| {
        // Without it an answer may wait for an acknowledgement. It fails only on a closed connection.
        let _ = stream.set_nodelay(true);
    });
    runtime.spawn(async { axum::serve(listener, app).await });
    let status = Command::new(env::current_exe()?)
        .args(["--load", &port.to_string(), &steps.to_string()])
        .args(env::args_os().skip(1))
        .status()?;
    runtime.shutdown_background();
    two_threads.shutdown_background();
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Must be called inside the server's runtime, whose blocking threads one of the routes uses.
fn router(steps: u64, two_threads: &Runtime) -> Router {
    let inline = move |Path(seed): Path<u64>| async move { compute(steps, seed).to_string() };
    let [futurepool, spawn_blocking, spawn_blocking_2, rayon, floor] =
        ROUTES.map(|(name, _)| format!("/{name}/{{seed}}"));
    let of_two_threads = {
        let _inside = two_threads.enter();
        Tokio::new(WORKERS)
    };
    Router::new()
        .merge(route(&futurepool, Futurepool::new(WORKERS), steps))
        .merge(route(&spawn_blocking, Tokio::new(WORKERS), steps))
        .merge(route(&spawn_blocking_2, of_two_threads, steps))
        .merge(route(&rayon, Rayon::new(WORKERS), steps))
        .route(&floor, get(inline))
}

/// A route whose handler submits a job to `pool` and awaits its result.
fn route<P: Peer>(path: &str, pool: P, steps: u64) -> Router {
    let handler = move |State(pool): State<P>, Path(seed): Path<u64>| async move {
        let result: u64 = pool.submit(move || compute(steps, seed)).await;
        result.to_string()
    };
    Router::new().route(path, get(handler)).with_state(pool)
}

/// Runs `steps` steps of a xorshift generator.
fn compute(steps: u64, seed: u64) -> u64 {
    let mut state = black_box(seed);
    for _ in 0..steps {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    state
}

/// Returns how many steps take `time`, by the fastest of several tries.
fn steps_of(time: Duration) -> u64 {
    const STEPS: u64 = 200_000;
    let tries = (1..=20).map(|seed| {
        let start = Instant::now();
        black_box(compute(STEPS, seed));
        start.elapsed()
    });
    let fastest = tries.min().unwrap_or(time).as_secs_f64();
    (time.as_secs_f64() / fastest * STEPS as f64) as u64
}

/// Sends the requests and prints the figures.
fn load(options: &Options, port: u16, steps: u64) -> Result<ExitCode, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let (rounds, requests) = match options.quick {
        true => (3, QUICK_REQUESTS),
        false => (51, REQUESTS),
    };
    let rounds = options.rounds.unwrap_or(rounds);
    println!("an axum service whose handlers wait for a job of 5 µs: latency of a request in µs");
    println!(
        "medians of {rounds} rounds of {requests} requests; ratio to {}",
        ROUTES[0].0
    );
    for &clients in &options.clients {
        let mut figures = ROUTES.map(|_| Vec::new());
        for _ in 0..rounds {
            for ((route, _), figures) in ROUTES.iter().zip(&mut figures) {
                let (latencies, elapsed) =
                    runtime.block_on(run_clients(port, route, clients, requests, steps))?;
                figures.push(Figures::new(latencies, elapsed));
            }
        }
        print(clients, &figures);
    }
    Ok(ExitCode::SUCCESS)
}

/// What one round of one route took.
struct Figures {
    p50: f64,
    p99: f64,
    per_second: f64,
}

impl Figures {
    fn new(mut latencies: Vec<Duration>, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        let quantile = |part: f64| {
            let rank = (part * latencies.len() as f64).ceil() as usize;
            latencies[rank.max(1) - 1].as_secs_f64() * 1e6
        };
        Self {
            p50: quantile(0.50),
            p99: quantile(0.99),
            per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
        }
    }
}

fn print(clients: usize, figures: &[Vec<Figures>]) {
    let median = |route: &[Figures], figure: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = route.iter().map(figure).collect();
        values.sort_unstable_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let plural = if clients == 1 { "" } else { "s" };
    println!("\n{clients} client{plural}");
    row("", "p50", "ratio", "p99", "ratio", "requests/s");
    let ours = &figures[0];
    for ((name, about), route) in ROUTES.iter().zip(figures) {
        let cells = [|round: &Figures| round.p50, |round: &Figures| round.p99].map(|figure| {
            let value = median(route, figure);
            let ratio = value / median(ours, figure);
            (format!("{value:.1}"), format!("{ratio:.2}"))
        });
        let [(p50, p50_ratio), (p99, p99_ratio)] = cells;
        let per_second = format!("{:.0}", median(route, |round| round.per_second));
        row(
            name,
            p50,
            p50_ratio,
            p99,
            p99_ratio,
            format!("{per_second:>10}   {about}"),
        );
    }
}

fn row(
    name: &str,
    p50: impl Display,
    p50_ratio: impl Display,
    p99: impl Display,
    p99_ratio: impl Display,
    rest: impl Display,
) {
    println!("{name:<18}{p50:>9}{p50_ratio:>7}{p99:>9}{p99_ratio:>7}  {rest}");
}

/// Returns the latencies of all requests of `clients` clients to one route, and the time of the round.
async fn run_clients(
    port: u16,
    route: &'static str,
    clients: usize,
    requests: usize,
    steps: u64,
) -> Result<(Vec<Duration>, Duration), Failure> {
    // All clients connect before the first of them is measured.
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        let mut connection = Connection::open(port).await?;
        connection.request(route, 1, steps).await?;
        connections.push(connection);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (client, mut connection) in connections.into_iter().enumerate() {
        let share = requests / clients + usize::from(client < requests % clients);
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(share);
            for number in 0..share {
                let seed = 1 + (client + number) as u64 % SEEDS;
                latencies.push(connection.request(route, seed, steps).await?);
            }
            Ok::<_, Failure>(latencies)
        });
    }
    let mut latencies = Vec::with_capacity(requests);
    while let Some(outcome) = tasks.join_next().await {
        latencies.append(&mut outcome??);
    }
    Ok((latencies, start.elapsed()))
}

/// An HTTP/1.1 connection that is kept alive.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(port: u16) -> Result<Self, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let buffer = Vec::with_capacity(1_024);
        Ok(Self { stream, buffer })
    }

    /// Sends a request and checks its answer. Returns how long the answer took.
    async fn request(&mut self, route: &str, seed: u64, steps: u64) -> Result<Duration, Failure> {
        let request = format!("GET /{route}/{seed} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let start = Instant::now();
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let body = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(format!("/{route}: the server closed the connection").into());
            }
            if let Some(body) = body(&self.buffer)? {
                break body;
            }
        };
        let elapsed = start.elapsed();
        if body != compute(steps, seed).to_string() {
            return Err(format!("/{route}/{seed}: a wrong answer: {body:?}").into());
        }
        Ok(elapsed)
    }
}

/// Returns the body of a whole response with status 200, or `None` if some of it is missing.
fn body(response: &[u8]) -> Result<Option<&str>, Failure> {
    let text = str::from_utf8(response)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ok(None);
    };
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("the server answered: {head}").into());
    }
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.ok_or("an answer without its length")?;
    let length: usize = length.parse()?;
    Ok((body.len() >= length).then_some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_returned_once_it_is_whole() {
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42";
        for end in 0..response.len() {
            assert_eq!(body(&response[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(body(response).unwrap(), Some("42"));
        assert!(body(b"HTTP/1.1 500 \r\n\r\n").is_err());
    }

    #[test]
    fn the_quantiles_are_those_of_the_latencies() {
        let latencies = (1..=200).rev().map(Duration::from_micros).collect();
        let figures = Figures::new(latencies, Duration::from_secs(1));
        assert_eq!((figures.p50, figures.p99), (100.0, 198.0));
        assert_eq!(figures.per_second, 200.0);
    }

    #[test]
    fn the_arguments_are_checked() {
        let parsed = |arguments: &[&str]| parse(lexopt::Parser::from_args(arguments));
        let options = parsed(&["--clients", "1,8", "--quick"]).unwrap().unwrap();
        assert_eq!((options.clients, options.quick), (vec![1, 8], true));
        assert!(parsed(&["--help"]).unwrap().is_none());
        for wrong in [&["--clients", "0"], &["--rounds", "0"], &["--rounds", "x"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
