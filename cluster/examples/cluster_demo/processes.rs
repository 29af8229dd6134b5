//! The server and the workers of the demo.
//!
//! Each is a process that ends when its stdin does. So nothing is left behind, whatever happens to
//! the demo: Ctrl-C, a panic, even SIGKILL.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{ThreadPool, tasks};
use futurepool_cluster::{
    Cluster, ClusterBuilder, ConnectedWorker, DrainHandle, MemoryBroker, Server, Worker,
};

use crate::jobs::{self, charge, report, thumbnail};

pub(crate) const SLOTS: usize = 8;

/// After two thirds of it, a silent worker is dead. The default of 30 seconds suits real work.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// Where the jobs go through.
pub(crate) enum Place {
    Server(NatsServer),
    Memory(MemoryBroker),
}

impl Place {
    pub(crate) fn server(&self) -> Server {
        match self {
            Self::Server(server) => Server::new(&server.url),
            Self::Memory(broker) => broker.into(),
        }
    }

    pub(crate) fn cluster(&self) -> ClusterBuilder {
        cluster(self.server())
    }
}

/// The options of a submitter.
fn cluster(server: Server) -> ClusterBuilder {
    Cluster::connect(server).namespace("demo").lease(LEASE)
}

/// A worker, ready to run.
fn worker(server: Server, name: &str) -> Result<ConnectedWorker, Box<dyn Error>> {
    // Instead of `threads(8)`, so that the threads tell the demo's workers apart.
    let pool = ThreadPool::builder()
        .max_workers(SLOTS)
        .thread_name_prefix(name)
        .build()?;
    Ok(Worker::new(tasks![charge, thumbnail, report])
        .namespace("demo")
        .lease(LEASE)
        .executor(pool, SLOTS)
        .no_signals()
        .connect(server)?)
}

/// A `nats-server` with a port and a store of its own, and the process that looks after it.
pub(crate) struct NatsServer {
    pub(crate) url: String,
    pub(crate) version: String,
    /// A temporary directory, which is gone once the demo ends.
    pub(crate) folder: PathBuf,
    _keeper: Companion,
}

impl NatsServer {
    /// Returns the program, if it is there.
    pub(crate) fn find() -> Option<PathBuf> {
        if let Some(named) = env::var_os("NATS_SERVER") {
            return Some(PathBuf::from(named)).filter(|path| path.is_file());
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from);
        let name = format!("nats-server{}", env::consts::EXE_SUFFIX);
        let mut candidates = env::split_paths(&path)
            .chain(usual)
            .map(|folder| folder.join(&name));
        candidates.find(|path| path.is_file())
    }

    pub(crate) fn start(program: &Path) -> Result<Self, Box<dyn Error>> {
        let (keeper, line) = Companion::start([OsStr::new("keeper"), program.as_os_str()])?;
        let mut words = line.splitn(3, ' ');
        let [Some(port), Some(version), Some(folder)] = [words.next(), words.next(), words.next()]
        else {
            return Err(format!("{} does not start", program.display()).into());
        };
        Ok(Self {
            url: format!("nats://127.0.0.1:{port}"),
            version: version.to_owned(),
            folder: folder.into(),
            _keeper: keeper,
        })
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder.join("ledger")
    }
}

/// A worker of the demo, in a process or in threads of this one.
pub(crate) struct DemoWorker {
    pub(crate) name: String,
    member: Member,
}

enum Member {
    Process(Companion),
    Threads(DrainHandle, thread::JoinHandle<bool>),
    Gone,
}

impl DemoWorker {
    pub(crate) fn start(place: &Place, name: &str) -> Result<Self, Box<dyn Error>> {
        let member = match place {
            Place::Server(server) => {
                let ledger = server.ledger();
                let arguments = [
                    "worker".as_ref(),
                    server.url.as_ref(),
                    name.as_ref(),
                    ledger.as_os_str(),
                ];
                let (companion, line) = Companion::start(arguments)?;
                if line != "ready" {
                    return Err(format!("{name} does not start").into());
                }
                Member::Process(companion)
            }
            Place::Memory(_) => {
                let worker = worker(place.server(), name)?;
                let drain = worker.drain_handle();
                Member::Threads(drain, thread::spawn(move || worker.run().is_ok()))
            }
        };
        let name = name.to_owned();
        Ok(Self { name, member })
    }

    /// Returns what the worker is, for people.
    pub(crate) fn place(&self) -> String {
        match &self.member {
            Member::Process(companion) => format!("process {}", companion.child.id()),
            Member::Threads(..) => "threads".to_owned(),
            Member::Gone => "gone".to_owned(),
        }
    }

    /// Kills the process at once, in the middle of its jobs. Threads can only be drained.
    ///
    /// Returns what it did after how many results, `{}`.
    pub(crate) fn kill(&mut self) -> io::Result<&'static str> {
        match &mut self.member {
            Member::Process(companion) => {
                companion.child.kill()?; // SIGKILL
                Ok("killed with SIGKILL after {} results")
            }
            Member::Threads(drain, _) => {
                drain.drain();
                Ok("drained after {} results (a thread cannot be killed)")
            }
            Member::Gone => Ok("gone"),
        }
    }

    /// Asks the worker to take nothing more.
    pub(crate) fn start_drain(&mut self) -> io::Result<()> {
        match &mut self.member {
            Member::Process(Companion { stdin, .. }) => match stdin {
                Some(stdin) => stdin.write_all(b"drain\n"),
                None => Ok(()),
            },
            Member::Threads(drain, _) => {
                drain.drain();
                Ok(())
            }
            Member::Gone => Ok(()),
        }
    }

    /// Waits until the worker has ended, and returns whether it has ended well.
    pub(crate) fn wait(&mut self) -> io::Result<bool> {
        match std::mem::replace(&mut self.member, Member::Gone) {
            // Its stdin stays open until the drain is complete.
            Member::Process(mut companion) => Ok(companion.child.wait()?.success()),
            Member::Threads(_, thread) => Ok(thread.join().unwrap_or(false)),
            Member::Gone => Ok(true),
        }
    }
}

impl Drop for DemoWorker {
    fn drop(&mut self) {
        let _ = self.start_drain();
        let _ = self.wait();
    }
}

/// This program again, with other arguments, in a process that ends when its stdin does.
struct Companion {
    child: Child,
    /// `None` once it is closed. Not in `child`, whose `wait` would close it too early.
    stdin: Option<ChildStdin>,
}

impl Companion {
    /// Starts a companion, and returns the first line that it prints.
    fn start<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> io::Result<(Self, String)> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // Ctrl-C reaches the demo only. The companions end because their stdin does.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both are pipes")
        };
        let companion = Self {
            child,
            stdin: Some(stdin),
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok((companion, line.trim_end().to_owned()))
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        self.stdin = None;
        // A keeper needs a moment to remove the store.
        let _ = self.child.wait();
    }
}

/// Submits a detached job, in a process that then ends.
pub(crate) fn submit_detached(
    place: &Place,
    key: &str,
    day: u32,
) -> Result<String, Box<dyn Error>> {
    match place {
        Place::Server(server) => {
            let day = day.to_string();
            let mut command = Command::new(env::current_exe()?);
            let mut child = command.args(["detached", &server.url, key, &day]).spawn()?;
            match child.wait()?.success() {
                true => Ok(format!("process {}", child.id())),
                false => Err("the submitter of the detached job has failed".into()),
            }
        }
        Place::Memory(_) => {
            let cluster = place.cluster().build()?;
            drop(cluster.submit_detached(key, report::call(day))?);
            Ok("another cluster of this process".to_owned())
        }
    }
}

/// What a companion does instead of the demo. Returns `None` if this is the demo.
pub(crate) fn companion(arguments: &[String]) -> Option<Result<(), Box<dyn Error>>> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["keeper", program] => Some(keep(program)),
        ["worker", url, name, ledger] => Some(work(url, name, ledger)),
        ["detached", url, key, day] => Some(detach(url, key, day)),
        _ => None,
    }
}

fn work(url: &str, name: &str, ledger: &str) -> Result<(), Box<dyn Error>> {
    jobs::use_ledger(ledger.into());
    let worker = worker(url.into(), name)?;
    let drain = worker.drain_handle();
    thread::spawn(move || {
        for _ in io::stdin().lines().map_while(Result::ok) {
            drain.drain();
        }
        process::exit(1); // the demo has gone
    });
    println!("ready");
    Ok(worker.run()?)
}

fn detach(url: &str, key: &str, day: &str) -> Result<(), Box<dyn Error>> {
    let cluster = cluster(url.into()).build()?;
    drop(cluster.submit_detached(key, report::call(day.parse()?))?);
    Ok(())
}

/// Runs a server until stdin ends, then removes what it has stored.
fn keep(program: &str) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut server = None;
    // A port that is free now can be taken before the server has it.
    for _ in 0..5 {
        server = start_server(program, folder.path())?;
        if server.is_some() {
            break;
        }
    }
    let Some((mut server, port, version)) = server else {
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        return Err(format!("{program} has ended: {log}").into());
    };
    println!("{port} {version} {}", folder.path().display());
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    server.kill()?;
    server.wait()?;
    Ok(folder.close()?)
}

/// Starts a server. Returns `None` if it has ended.
fn start_server(program: &str, folder: &Path) -> io::Result<Option<(Child, u16, String)>> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let mut server = Command::new(program)
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
        .arg(folder.join("store"))
        .arg("-l")
        .arg(folder.join("log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let end = Instant::now() + Duration::from_secs(20);
    while server.try_wait()?.is_none() {
        if let Ok(version) = greeting(port) {
            return Ok(Some((server, port, version)));
        }
        if Instant::now() > end {
            server.kill()?;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(None)
}

/// Returns the version that a server says when a client connects.
fn greeting(port: u16) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut line = String::new();
    BufReader::new(stream.take(64 * 1024)).read_line(&mut line)?;
    let version = line
        .split("\"version\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    version
        .map(str::to_owned)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
