//! Pings hosts: each job runs an external program, with a timeout.
//!
//! ```text
//! cargo run --release --example ping_hosts                          addresses of this machine
//! cargo run --release --example ping_hosts -- HOST… [--limit MS]    such as 192.0.2.1, an unused one
//! ```
//!
//! The program is `ping`. If `ping` is missing or not permitted, the example starts itself instead
//! and connects by TCP. A child that takes too long is killed and reaped.
//!
//! On Unix a child gets a process group of its own, and the whole group is killed: killing only the
//! child would leave the programs running that it started. Such a program escapes only if it moves
//! to another group, as a daemon does. Ctrl-C in a terminal does not reach the children either.
//!
//! The example checks itself: addresses of this machine must answer. A child that never exits must
//! be gone after its timeout, and after its job was cancelled; so must a child of that child.
//! Otherwise the exit status is 1. Wrong arguments are status 2.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{self, Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use futurepool::{ThreadPool, as_completed};

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "\
Usage: ping_hosts [OPTIONS] [HOST]...

--limit MS   timeout of each ping (default: 3000)
--workers N  number of pings at a time (default: 16)
";

/// Addresses of this machine. Most machines have most of them.
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
        // Exits after a minute, in case its parent died and cannot kill it.
        Task::Hang => {
            thread::sleep(Duration::from_secs(60));
            return ExitCode::SUCCESS;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has closed standard output, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ping_hosts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &Failure) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

struct Options {
    hosts: Vec<String>,
    limit: Duration,
    workers: usize,
    task: Task,
}

enum Task {
    Ping,
    /// As a child: connects to a host instead of `ping`.
    Connect(String),
    /// As a child: does nothing until it is killed.
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
                    let _ = io::stdout().write_all(USAGE.as_bytes());
                    process::exit(0);
                }
                Long("limit") => {
                    options.limit = Duration::from_millis(arguments.value()?.parse()?);
                }
                Long("workers") => options.workers = arguments.value()?.parse()?,
                Long("connect-to") => options.task = Task::Connect(arguments.value()?.string()?),
                Long("hang") => options.task = Task::Hang,
                // A name that begins with a dash would be an option of `ping`.
                Value(host) if !host.to_string_lossy().starts_with('-') => {
                    options.hosts.push(host.string()?);
                }
                _ => return Err(argument.unexpected()),
            }
        }
        if options.workers == 0 {
            return Err("--workers takes a number from 1".into());
        }
        if options.limit.is_zero() {
            return Err("--limit takes a number of milliseconds from 1".into());
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
    let mut out = io::stdout().lock();
    match options.hosts.len() {
        1 => writeln!(out, "1 host, by {program}")?,
        hosts => writeln!(out, "{hosts} hosts, by {program}")?,
    }
    ping_all(options, &pool, program, &mut out)?;
    check_that_children_are_killed(&pool)?;
    writeln!(
        out,
        "a child that never exits: killed after its timeout, and when its job was cancelled"
    )?;
    #[cfg(unix)]
    {
        check_that_a_group_is_killed(&pool)?;
        writeln!(out, "a child with a child of its own: both killed")?;
    }
    Ok(())
}

// ---- the job ------------------------------------------------------------------------------------

/// Prints results in completion order.
fn ping_all(
    options: &Options,
    pool: &ThreadPool,
    program: Program,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let limit = options.limit;
    let pings = options.hosts.iter().map(|host| {
        let name = host.clone();
        pool.submit(move || finish(program.command(&name)?, limit))
            .tag(host)
    });
    let mut missing = Vec::new();
    for (host, finished) in as_completed(pings) {
        // Two things can fail: the job, which may panic, and its child, which may not start.
        let finished = finished??;
        writeln!(out, "  {:>8.1?}  {host}: {finished}", finished.time)?;
        if finished.how != How::Succeeded && is_of_this_machine(host) {
            missing.push(host.as_str());
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "no answer from an address of this machine: {}",
            missing.join(", ")
        )
        .into()),
    }
}

/// How a child ended.
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
    /// Killed after its timeout.
    TimedOut,
    /// Killed because its job was cancelled.
    Cancelled,
}

/// Runs a program until it exits, its timeout expires or its job is cancelled.
fn finish(mut command: Command, limit: Duration) -> io::Result<Finished> {
    let start = Instant::now();
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = KillOnDrop(command.spawn()?);
    // The standard library can wait for a child or poll it, but not wait with a timeout.
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

/// Kills a child, with its process group, and reaps it when it is dropped. A child that has exited
/// is left alone, and so are programs that it left in the background.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // A child that was reaped has given up its process id, which another process may have now.
        if let Ok(Some(_)) = self.0.try_wait() {
            return;
        }
        #[cfg(unix)]
        {
            use rustix::process::{Pid, Signal, kill_process_group};
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        }
        let _ = self.0.kill(); // on Windows, this child alone
        let _ = self.0.wait(); // otherwise it stays a zombie
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.how {
            How::Succeeded => "reachable",
            How::Failed => "unreachable",
            How::TimedOut => "timed out",
            How::Cancelled => "cancelled",
        })
    }
}

// ---- the program --------------------------------------------------------------------------------

/// The program that a job runs.
#[derive(Clone, Copy)]
enum Program {
    Ping,
    Itself,
}

impl Program {
    /// Returns `Ping` if it works: some systems have no `ping`, or restrict its use.
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
        silence(&mut command);
        Ok(command)
    }
}

/// The output is not read. A pipe would fill up, and then block the child.
fn silence(command: &mut Command) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ping => "ping",
            Self::Itself => "TCP, because ping cannot be used",
        })
    }
}

/// Runs in a child instead of `ping`: connects to the echo port. A refusal is an answer, too.
fn connect(host: &str) -> ExitCode {
    match TcpStream::connect((host, 7)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

// ---- the check ----------------------------------------------------------------------------------

/// Returns whether a socket can be bound to the host's address.
fn is_of_this_machine(host: &str) -> bool {
    UdpSocket::bind((host, 0)).is_ok()
}

fn check_that_children_are_killed(pool: &ThreadPool) -> Result<(), Failure> {
    let hang = || -> io::Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("--hang");
        silence(&mut command);
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
    unwanted.cancel(); // the job runs, so this is a request, which `finish` checks
    check_gone(&unwanted.join()??, How::Cancelled)
}

/// Cancels a job whose child is a shell that runs another program.
#[cfg(unix)]
fn check_that_a_group_is_killed(pool: &ThreadPool) -> Result<(), Failure> {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    let (mut ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 77 & echo started; wait"]);
    silence(&mut command);
    command.stdout(OwnedFd::from(theirs));
    let unwanted = pool.submit(move || finish(command, Duration::MAX));
    ours.read_exact(&mut [0; "started\n".len()])?;
    unwanted.cancel();
    check_gone(&unwanted.join()??, How::Cancelled)?;
    // The shell and `sleep` hold the other end of the socket for as long as they live.
    match ours.read(&mut [0]) {
        Ok(0) => Ok(()),
        other => Err(format!("a child of the killed child still runs: {other:?}").into()),
    }
}

fn check_gone(finished: &Finished, how: How) -> Result<(), Failure> {
    // On Linux, `/proc` lists a child that was not reaped.
    let process = format!("/proc/{}", finished.pid);
    match finished.how == how && !std::path::Path::new(&process).exists() {
        true => Ok(()),
        false => Err(format!("{finished:?} instead of {how:?} and gone").into()),
    }
}
