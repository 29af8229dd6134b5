//! Which hosts are there: one external program a job, with a time limit each.
//!
//! ```text
//! cargo run --release --example ping_hosts                          names of this machine
//! cargo run --release --example ping_hosts -- HOST… [--limit MS]    such as 192.0.2.1, which should be nobody's
//! ```
//!
//! The program is `ping`. Where there is none, or where it may not be used, it is this example itself, which then
//! connects by TCP. A child that takes too long is killed, and its remains are collected.
//!
//! It checks itself: addresses of this machine have to answer, and a program that never ends has to be gone after its
//! limit, or when its job is cancelled. If not, the exit status is 1; wrong arguments are status 2.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{TcpStream, UdpSocket};
use std::process::{self, Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use futurepool::{ThreadPool, as_completed};

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "\
Usage: ping_hosts [OPTIONS] [HOST]...

--limit MS   how long each may take (default: 3000)
--workers N  programs at a time (default: 16)
";

/// Of this machine, most of them on most machines.
const HOSTS: [&str; 4] = ["127.0.0.1", "127.0.0.2", "localhost", "::1"];

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            eprint!("ping_hosts: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let result = match &options.task {
        Task::Ping => run(&options),
        Task::Connect(host) => return connect(host),
        // So long, and no longer, should nobody be there any more to kill it.
        Task::Hang => {
            thread::sleep(Duration::from_secs(60));
            return ExitCode::SUCCESS;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ping_hosts: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    hosts: Vec<String>,
    limit: Duration,
    workers: usize,
    task: Task,
}

enum Task {
    Ping,
    /// What this program does as its own child: in place of `ping`,
    Connect(String),
    /// and to be killed.
    Hang,
}

impl Options {
    fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut options = Self {
            hosts: Vec::new(),
            limit: Duration::from_secs(3),
            workers: 16,
            task: Task::Ping,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => {
                    print!("{USAGE}");
                    process::exit(0);
                }
                Long("limit") => {
                    options.limit = Duration::from_millis(arguments.value()?.parse()?);
                }
                Long("workers") => options.workers = arguments.value()?.parse()?,
                Long("connect-to") => options.task = Task::Connect(arguments.value()?.string()?),
                Long("hang") => options.task = Task::Hang,
                // One that begins with a dash would be an option of `ping`.
                Value(host) if !host.to_string_lossy().starts_with('-') => {
                    options.hosts.push(host.string()?);
                }
                _ => return Err(argument.unexpected()),
            }
        }
        if options.workers == 0 {
            return Err("--workers takes a number from 1".into());
        }
        if options.hosts.is_empty() {
            options.hosts = HOSTS.map(String::from).into();
        }
        Ok(options)
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let pool = ThreadPool::new(options.workers);
    let program = Program::find(options.limit)?;
    println!("{} hosts, by {program}", options.hosts.len());
    ping_all(options, &pool, program)?;
    check_that_none_outlives_its_job(&pool)?;
    println!("a program that never ends: killed after its limit, and when its job was cancelled");
    Ok(())
}

// ---- the job ----------------------------------------------------------------------------------------------

/// Results as they come.
fn ping_all(options: &Options, pool: &ThreadPool, program: Program) -> Result<(), Failure> {
    let limit = options.limit;
    let pings = options.hosts.iter().map(|host| {
        let name = host.clone();
        pool.submit(move || finish(program.command(&name)?, limit))
            .tag(host)
    });
    let mut missing = Vec::new();
    for (host, finished) in as_completed(pings) {
        // Two things can go wrong: the job, which may panic, and its child, which may not start.
        let finished = finished??;
        println!("  {:>8.1?}  {host}: {finished}", finished.time);
        if finished.how != How::Succeeded && is_of_this_machine(host) {
            missing.push(host.as_str());
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!("of this machine, but no answer: {}", missing.join(", ")).into()),
    }
}

/// What became of a child.
#[derive(Debug)]
struct Finished {
    how: How,
    time: Duration,
    pid: u32,
}

#[derive(Debug, PartialEq)]
enum How {
    Succeeded,
    Failed,
    /// Killed, when its time was up.
    TimedOut,
    /// Killed, since nobody wanted it any more.
    Cancelled,
}

/// Runs a program to its end, or until its time is up, or until its job is cancelled.
fn finish(mut command: Command, limit: Duration) -> io::Result<Finished> {
    let start = Instant::now();
    // Nothing is read of what it writes, so it must not be a pipe, which it would wait for once that is full.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = Reaped(command.spawn()?);
    // The standard library can wait for the end of a child, or look if it has come, but not wait with a limit.
    let how = loop {
        match child.0.try_wait()? {
            Some(status) if status.success() => break How::Succeeded,
            Some(_) => break How::Failed,
            None if futurepool::cancel_requested() => break How::Cancelled,
            None if start.elapsed() >= limit => break How::TimedOut,
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let (time, pid) = (start.elapsed(), child.0.id());
    Ok(Finished { how, time, pid })
}

/// A child that is gone when this is dropped, whatever happens.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both do no harm to one that has ended. Without the second, what is left of it stays in the system's table.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.how {
            How::Succeeded => "is there",
            How::Failed => "is not there",
            How::TimedOut => "no answer in time",
            How::Cancelled => "given up",
        })
    }
}

// ---- the program ------------------------------------------------------------------------------------------

/// What asks a host.
#[derive(Clone, Copy)]
enum Program {
    Ping,
    Itself,
}

impl Program {
    /// `ping`, if it can be used: some systems have none, or let not everybody use it.
    fn find(limit: Duration) -> io::Result<Self> {
        let tried = finish(Self::Ping.command("127.0.0.1")?, limit);
        match tried.is_ok_and(|finished| finished.how == How::Succeeded) {
            true => Ok(Self::Ping),
            false => Ok(Self::Itself),
        }
    }

    fn command(self, host: &str) -> io::Result<Command> {
        let mut command = match self {
            Self::Ping => Command::new("ping"),
            Self::Itself => Command::new(env::current_exe()?),
        };
        match self {
            Self::Ping if cfg!(windows) => command.args(["-n", "1", host]),
            Self::Ping => command.args(["-c", "1", host]),
            Self::Itself => command.args(["--connect-to", host]),
        };
        Ok(command)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ping => "ping",
            Self::Itself => "TCP, since there is no ping that could be used",
        })
    }
}

/// What this program does in place of `ping`. Port 7 is the one to ask for an echo. A refusal is an answer, too.
fn connect(host: &str) -> ExitCode {
    match TcpStream::connect((host, 7)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

// ---- the check --------------------------------------------------------------------------------------------

/// Whether an address of it can be used here.
fn is_of_this_machine(host: &str) -> bool {
    UdpSocket::bind((host, 0)).is_ok()
}

fn check_that_none_outlives_its_job(pool: &ThreadPool) -> Result<(), Failure> {
    let hang = || -> io::Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("--hang");
        Ok(command)
    };
    let command = hang()?;
    let limited = pool.submit(move || finish(command, Duration::from_millis(200)));
    check_gone(&limited.join()??, How::TimedOut)?;

    let command = hang()?;
    let unwanted = pool.submit(move || finish(command, Duration::MAX));
    while !unwanted.is_running() {
        thread::yield_now();
    }
    unwanted.cancel(); // it runs, so this is a request, which `finish` sees
    check_gone(&unwanted.join()??, How::Cancelled)
}

fn check_gone(finished: &Finished, how: How) -> Result<(), Failure> {
    // Where there is such a folder, one that was not collected is in there.
    let remains = format!("/proc/{}", finished.pid);
    match finished.how == how && !std::path::Path::new(&remains).exists() {
        true => Ok(()),
        false => Err(format!("{finished:?} instead of {how:?} and gone").into()),
    }
}
