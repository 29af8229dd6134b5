//! Downloads images over HTTP, first one by one, then on a pool. Then checks sites, as they answer.
//!
//! ```text
//! cargo run --release --example download_images
//! ```
//!
//! A small server inside this program has the images and the sites. It answers slowly, as a distant
//! server does. Some sites refuse the connection, never answer, or close the connection early.
//!
//! The program checks itself: each file must equal the image on the server, each site must be
//! reported once with its error, and the pool must be faster. Otherwise the exit status is 1.
//! Wrong arguments are status 2. If the reader of its output goes away, as `head` does, it ends.

mod server;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{self, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{ThreadPool, as_completed};
use ureq::Agent;

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "\
Usage: download_images [OPTIONS]

--images N    number of images (default: 60)
--latency MS  time that the server takes for each answer (default: 40)
--workers N   number of calls at a time (default: 16)
";

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            eprint!("download_images: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("download_images: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether the reader of standard output has closed it. (`println!` would panic.)
fn is_broken_pipe(error: &Failure) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

struct Options {
    images: u32,
    latency: Duration,
    workers: usize,
}

impl Options {
    fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut options = Self {
            images: 60,
            latency: Duration::from_millis(40),
            workers: 16,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => {
                    let _ = io::stdout().write_all(USAGE.as_bytes());
                    process::exit(0);
                }
                Long("images") => options.images = arguments.value()?.parse()?,
                Long("latency") => {
                    options.latency = Duration::from_millis(arguments.value()?.parse()?);
                }
                Long("workers") => options.workers = arguments.value()?.parse()?,
                _ => return Err(argument.unexpected()),
            }
        }
        if options.images == 0 || options.workers == 0 {
            return Err("--images and --workers take a number from 1".into());
        }
        Ok(options)
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let server = start_server(options)?;
    // All clones of an agent share its connections. It must keep an idle one for each worker.
    // Each call has a timeout, because a running job cannot be stopped from outside.
    let agent: Agent = Agent::config_builder()
        .max_idle_connections(options.workers)
        .max_idle_connections_per_host(options.workers)
        .timeout_global(Some(LIMIT))
        .proxy(None) // a proxy cannot reach the server inside this program
        .build()
        .into();
    let pool = ThreadPool::builder()
        .max_workers(options.workers)
        .thread_name_prefix("download")
        .build()?;

    compare_downloads(options, &agent, &pool, server)?;
    check_sites(&agent, &pool, server)
}

// ---- the images ---------------------------------------------------------------------------------

fn compare_downloads(
    options: &Options,
    agent: &Agent,
    pool: &ThreadPool,
    server: SocketAddr,
) -> Result<(), Failure> {
    let names: Vec<String> = (0..options.images).map(|n| format!("{n:03}.ppm")).collect();

    let folder = tempfile::tempdir()?; // deleted when it is dropped
    let start = Instant::now();
    let bytes = download_one_by_one(&names, agent, server, folder.path())?;
    let one_by_one = start.elapsed();
    check_images(&names, folder.path())?;

    let folder = tempfile::tempdir()?;
    let start = Instant::now();
    let bytes_pooled = download_with_pool(&names, agent, pool, server, folder.path())?;
    let pooled = start.elapsed();
    check_images(&names, folder.path())?;

    let (count, workers) = (names.len(), options.workers);
    let speed_up = one_by_one.as_secs_f64() / pooled.as_secs_f64();
    let mut out = io::stdout().lock();
    writeln!(out, "{count} images, {bytes} bytes")?;
    writeln!(out, "one by one: {one_by_one:.2?}")?;
    writeln!(
        out,
        "the pool:   {pooled:.2?}, {workers} workers, {speed_up:.1} times as fast"
    )?;
    if bytes != bytes_pooled {
        return Err(format!("{bytes} bytes one by one, {bytes_pooled} by the pool").into());
    }
    if workers > 1 && count > 1 && pooled >= one_by_one {
        return Err("the pool was not faster".into());
    }
    Ok(())
}

/// Downloads all images in a plain loop.
fn download_one_by_one(
    names: &[String],
    agent: &Agent,
    server: SocketAddr,
    folder: &Path,
) -> Result<u64, Failure> {
    let mut bytes = 0;
    for name in names {
        bytes += download(
            agent,
            &format!("http://{server}/{name}"),
            &folder.join(name),
        )?;
    }
    Ok(bytes)
}

/// Downloads all images on a pool.
fn download_with_pool(
    names: &[String],
    agent: &Agent,
    pool: &ThreadPool,
    server: SocketAddr,
    folder: &Path,
) -> Result<u64, Failure> {
    // The workers call the function, so it must own its captures.
    let (agent, folder) = (agent.clone(), folder.to_owned());
    let sizes = pool.map_unordered(names.to_vec(), move |name| {
        download(
            &agent,
            &format!("http://{server}/{name}"),
            &folder.join(name),
        )
    });
    let mut bytes = 0;
    for size in sizes {
        // The first `?` is for a panic, the second for the download. Leaving the loop drops the
        // map, which cancels its queued jobs.
        bytes += size??;
    }
    Ok(bytes)
}

/// The job: downloads one image into a file.
fn download(agent: &Agent, url: &str, path: &Path) -> Result<u64, Failure> {
    // A status of 400 or above is an `Err`, too.
    let body = agent.get(url).call()?.into_body();
    let mut file = File::create(path)?;
    Ok(io::copy(&mut body.into_reader(), &mut file)?)
}

/// Checks that the folder has exactly the images of the server.
fn check_images(names: &[String], folder: &Path) -> Result<(), Failure> {
    for name in names {
        let file = fs::read(folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if file != image(name) {
            return Err(format!("{name} is not what the server has").into());
        }
    }
    match fs::read_dir(folder)?.count() == names.len() {
        true => Ok(()),
        false => Err("there are files other than the images".into()),
    }
}

// ---- the sites ----------------------------------------------------------------------------------

/// The timeout of one call. An answer takes some milliseconds here, more on a busy machine.
const LIMIT: Duration = Duration::from_secs(2);

/// The sites, and the status that each must have.
const SITES: [(&str, &str); 8] = [
    ("asleep", "no answer in time"),
    ("cut-short", "broke off"),
    ("closed", "no connection"),
    ("far", "200"),
    ("farther", "200"),
    ("moved-away", "404"),
    ("near", "200"),
    ("sick", "500"),
];

fn check_sites(agent: &Agent, pool: &ThreadPool, server: SocketAddr) -> Result<(), Failure> {
    // No server listens at the local address of an open connection, and no other socket gets it.
    let connection = TcpStream::connect(server)?;
    let closed = connection.local_addr()?;

    let mut out = io::stdout().lock();
    writeln!(out, "{} sites, as they answer", SITES.len())?;
    let start = Instant::now();
    let calls = SITES.map(|(site, _)| {
        let address = if site == "closed" { closed } else { server };
        let (agent, url) = (agent.clone(), format!("http://{address}/{site}"));
        // The tag is returned with the result.
        pool.submit(move || status(&agent, &url)).tag(site)
    });
    let mut found = BTreeMap::new();
    for (site, status) in as_completed(calls) {
        let (status, time) = (status?, start.elapsed());
        writeln!(out, "  {time:>7.1?}  {site}: {status}")?;
        if found.insert(site, status).is_some() {
            return Err(format!("{site} came twice").into());
        }
    }
    let expected = SITES.map(|(site, status)| (site, status.to_owned()));
    match found == BTreeMap::from(expected) {
        true => Ok(()),
        false => Err(format!("{found:?} instead of {SITES:?}").into()),
    }
}

/// The job: reads the whole answer of a site, and returns its status or the error.
fn status(agent: &Agent, url: &str) -> String {
    match fetch(agent, url) {
        Ok(status) => status.to_string(),
        Err(ureq::Error::StatusCode(status)) => status.to_string(),
        Err(ureq::Error::Timeout(_)) => "no answer in time".to_owned(),
        Err(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "no connection".to_owned()
        }
        Err(ureq::Error::Io(_)) => "broke off".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn fetch(agent: &Agent, url: &str) -> Result<u16, ureq::Error> {
    let mut answer = agent.get(url).call()?;
    answer.body_mut().read_to_vec()?;
    Ok(answer.status().as_u16())
}

// ---- the server ---------------------------------------------------------------------------------

fn start_server(options: &Options) -> io::Result<SocketAddr> {
    let latency = options.latency;
    // One for each site at least, because the site that is asleep keeps its connection.
    let connections = options.workers + SITES.len();
    server::start(connections, move |path, connection| {
        if path.ends_with(".ppm") {
            thread::sleep(latency);
            return server::respond(connection, "200 OK", &image(path));
        }
        match path {
            "asleep" => sleep_until_closed(connection),
            "cut-short" => break_off(connection),
            "moved-away" => server::respond(connection, "404 Not Found", b""),
            "sick" => server::respond(connection, "500 Internal Server Error", b""),
            _ => {
                thread::sleep(match path {
                    "farther" => 3 * latency,
                    "far" => latency,
                    _ => Duration::ZERO,
                });
                server::respond(connection, "200 OK", b"welcome")
            }
        }
    })
}

fn sleep_until_closed(mut connection: &TcpStream) -> io::Result<()> {
    io::copy(&mut connection, &mut io::sink()).map(drop)
}

fn break_off(mut connection: &TcpStream) -> io::Result<()> {
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe first words")?;
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// Makes an image of noise in a black frame, in PPM format, always the same for the same name.
fn image(name: &str) -> Vec<u8> {
    const SIDE: usize = 96;
    let mut noise = name.bytes().fold(7_u32, |noise, byte| {
        noise.wrapping_mul(31).wrapping_add(byte.into())
    });
    let mut image = format!("P6\n{SIDE} {SIDE}\n255\n").into_bytes();
    for pixel in 0..SIDE * SIDE {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, red, green, blue] = noise.to_le_bytes();
        let is_frame = [pixel % SIDE, pixel / SIDE]
            .iter()
            .any(|at| at % (SIDE - 1) == 0);
        image.extend(if is_frame { [0; 3] } else { [red, green, blue] });
    }
    image
}
