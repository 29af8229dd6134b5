//! The command line of the service.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::{NonZero, ParseIntError};
use std::process;
use std::thread::available_parallelism;
use std::time::Duration;

use futurepool::console;
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio::time::sleep;
use web_service::{App, Decoder, ImageOptions, Options, database, log, serve};

const USAGE: &str = "\
Usage: web_service [OPTION]...

  --address ADDRESS       address to listen on (default: 127.0.0.1:8080)
  --workers N             threads that hash (default: one per processor)
  --connections N         threads that query the database, each with its own connection
                          (default: 4)
  --images N              processes that make thumbnails (default: one per processor)
  --image-time SECONDS    time limit of a thumbnail (default: 5)
  --image-memory MIB      memory limit of a process that makes thumbnails (default: 256)
  --queue N               queue capacity of each of the three pools; urgent jobs have as much
                          room again (default: 64)
  --start-limit MS        how long a job may be queued (default: 2000)
  --database PATH         SQLite file, created if it is missing (default: users.db)
  --console ADDRESS       show all pools and what they run on a web page, on a loopback address
                          such as 127.0.0.1:6670 (default: no page)
  --drain SECONDS         time limit for requests in flight after Ctrl-C or SIGTERM
                          (default: 10)
  --with-faulty-decoder   for trials: a stand-in for a C library with bugs reads the images
  --help                  print this text

A second Ctrl-C ends the drain. The exit status is 0 if every request was answered and no job
was still running. Cancelled jobs do not count as failures: their requests were answered with 503.
";

fn main() {
    // Each process that makes thumbnails is this program, too: it never returns from here.
    futurepool::process::init();
    run();
}

#[tokio::main]
async fn run() {
    let command = Command::parse(lexopt::Parser::from_env()).unwrap_or_else(|error| {
        log(format_args!("{error}\n{}", USAGE.trim_end()));
        process::exit(2)
    });
    if let Err(error) = command.run().await {
        log(error);
        process::exit(1)
    }
}

struct Command {
    address: SocketAddr,
    console: Option<SocketAddr>,
    drain: Duration,
    options: Options,
}

impl Command {
    fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut address = SocketAddr::from(([127, 0, 0, 1], 8080));
        let mut console = None;
        let mut drain = Duration::from_secs(10);
        let mut options = Options {
            workers: available_parallelism().unwrap_or(NonZero::<usize>::MIN),
            connections: NonZero::new(4).expect("4 is not 0"),
            queue: NonZero::new(64).expect("64 is not 0"),
            start_limit: Duration::from_secs(2),
            database: "users.db".into(),
            images: ImageOptions {
                processes: available_parallelism().unwrap_or(NonZero::<usize>::MIN),
                time_limit: Duration::from_secs(5),
                memory_limit: 256 << 20,
                decoder: Decoder::Careful,
            },
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => {
                    let _ = io::stdout().write_all(USAGE.as_bytes());
                    process::exit(0);
                }
                Long("address") => address = arguments.value()?.parse()?,
                Long("workers") => options.workers = positive(&mut arguments)?,
                Long("connections") => options.connections = positive(&mut arguments)?,
                Long("images") => options.images.processes = positive(&mut arguments)?,
                Long("image-time") => {
                    let seconds = positive(&mut arguments)?.get();
                    options.images.time_limit = Duration::from_secs(seconds as u64);
                }
                Long("image-memory") => {
                    let mebibytes = positive(&mut arguments)?.get() as u64;
                    options.images.memory_limit = mebibytes.saturating_mul(1 << 20);
                }
                Long("with-faulty-decoder") => options.images.decoder = Decoder::Faulty,
                Long("start-limit") => {
                    let milliseconds = positive(&mut arguments)?.get();
                    options.start_limit = Duration::from_millis(milliseconds as u64);
                }
                Long("queue") => options.queue = positive(&mut arguments)?,
                Long("database") => options.database = arguments.value()?.into(),
                Long("console") => console = Some(arguments.value()?.parse()?),
                Long("drain") => drain = Duration::from_secs(arguments.value()?.parse()?),
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(Self {
            address,
            console,
            drain,
            options,
        })
    }

    async fn run(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let path = self.options.database.clone();
        // Before the pools exist. For an occasional job, the process-wide pool is enough.
        futurepool::submit(move || {
            database::create(&path).map_err(|error| format!("{}: {error}", path.display()))
        })
        .await??;
        let app = App::start(&self.options).await?;
        let listener = TcpListener::bind(self.address)
            .await
            .map_err(|error| format!("cannot listen on {}: {error}", self.address))?;
        let serve_console = |address| {
            let failed = |error| format!("cannot show a console on {address}: {error}");
            console::serve(address).map_err(failed)
        };
        let console = self.console.map(serve_console).transpose()?;
        // Registered once, so that a second signal during the shutdown is not missed.
        let signals = Mutex::new(Signals::new()?);
        let next_signal = async || signals.lock().await.next().await;
        let address = listener.local_addr()?;
        let _ = writeln!(io::stdout(), "listening on http://{address}"); // see `log`
        if let Some(console) = console {
            let _ = writeln!(io::stdout(), "console on http://{}", console.local_addr());
        }
        let limit = || async {
            tokio::select! {
                () = sleep(self.drain) => {}
                () = next_signal() => {}
            }
        };
        let stopped = serve(listener, &app, next_signal(), limit).await;
        log(&stopped);
        // Does not return: dropping a pool waits for its jobs, and one in a thread may never
        // finish.
        process::exit(i32::from(!stopped.is_clean()))
    }
}

/// Returns the value of the current option.
fn positive(arguments: &mut lexopt::Parser) -> Result<NonZero<usize>, lexopt::Error> {
    let value = arguments.value()?;
    let wrong = |_: ParseIntError| format!("expected a number from 1 to {}", usize::MAX);
    lexopt::ValueExt::parse_with(&value, |value| value.parse().map_err(wrong))
}

/// Listens for Ctrl-C and SIGTERM.
#[cfg(unix)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self {
            interrupt,
            terminate,
        })
    }

    /// Waits for the next signal. All signals since the last call count as one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Listens for Ctrl-C.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        tokio::signal::ctrl_c()
            .await
            .expect("the handler can be installed");
    }
}
