//! Measures what a console costs a busy pool while a browser shows it.
//!
//! ```text
//! cargo run --release --features console --example console_cost -- --rounds 60
//! ```
//!
//! Rounds with a console and a client that asks as the page does alternate with rounds without. The
//! figures are the medians of the rounds: wall time a job, and CPU time of the whole process a job,
//! console included. The second depends less on what else the machine does. Without options there
//! are too few rounds for a result.

use std::error::Error;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{ThreadPool, console};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut rounds, mut length) = (2, Duration::from_millis(200));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or("an option needs a value")?;
        match argument.as_str() {
            "--rounds" => (rounds, length) = (value.parse()?, Duration::from_secs(1)),
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    let pool = ThreadPool::new(2);
    println!(
        "{:<14}{:>12}{:>12}{:>10}{:>14}{:>12}{:>10}",
        "jobs", "wall, ns", "watched", "", "CPU time, ns", "watched", ""
    );
    for (name, jobs, work) in [("no-op", 50_000, 0), ("10 µs", 2_000, 10)] {
        let (mut plain, mut watched) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            plain.push(round(&pool, jobs, work, length));
            let client = Client::start()?;
            watched.push(round(&pool, jobs, work, length));
            assert!(client.stop() > 0, "the client has seen nothing");
        }
        let figures: Vec<_> = [|each: &(f64, f64)| each.0, |each: &(f64, f64)| each.1]
            .map(|part| (median(&plain, part), median(&watched, part)))
            .into();
        print!("{name:<14}");
        for (without, with) in figures {
            print!(
                "{without:>12.0}{with:>12.0}{:>+9.1} %  ",
                100.0 * (with / without - 1.0)
            );
        }
        println!();
    }
    Ok(())
}

/// Runs bursts of jobs for a while. Returns wall time and CPU time a job, in nanoseconds.
fn round(pool: &ThreadPool, jobs: u32, micros: u64, length: Duration) -> (f64, f64) {
    let (start, cpu) = (Instant::now(), cpu_time());
    let mut all = 0;
    while start.elapsed() < length {
        let handles: Vec<_> = (0..jobs)
            .map(|_| pool.submit(move || spin(micros)))
            .collect();
        for handle in handles {
            handle.join().expect("the jobs do not panic");
        }
        all += jobs;
    }
    let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(all);
    (each(start.elapsed()), each(cpu_time() - cpu))
}

fn spin(micros: u64) {
    let start = Instant::now();
    while micros > 0 && start.elapsed() < Duration::from_micros(micros) {
        black_box(());
    }
}

#[cfg(unix)]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(unix))]
fn cpu_time() -> Duration {
    Duration::ZERO
}

fn median(rounds: &[(f64, f64)], part: fn(&(f64, f64)) -> f64) -> f64 {
    let mut values: Vec<_> = rounds.iter().map(part).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A console, and a client that asks twice a second, as the page does.
struct Client {
    console: console::Console,
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl Client {
    fn start() -> std::io::Result<Self> {
        let console = console::serve("127.0.0.1:0")?;
        let (stop, answers) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (ended, seen, address) = (
            Arc::clone(&stop),
            Arc::clone(&answers),
            console.local_addr(),
        );
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                if ask(address).is_ok() {
                    seen.fetch_add(1, Ordering::Release);
                }
                thread::park_timeout(Duration::from_millis(500));
            }
        });
        Ok(Self {
            console,
            stop,
            answers,
            thread,
        })
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let _ = self.thread.join();
        self.console.shutdown();
        self.answers.load(Ordering::Acquire)
    }
}

fn ask(address: SocketAddr) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    let head = "GET /snapshot.json?epoch=0&after=0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)
}
