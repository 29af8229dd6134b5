//! A `nats-server` of a test: its own port, its own store.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with JetStream. It is killed, and its store removed, when it is dropped.
#[derive(Debug)]
pub(crate) struct TestServer {
    directory: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl TestServer {
    /// Starts a server on a free port of the loopback interface.
    pub(crate) fn start() -> Self {
        Self::with_config("")
    }

    /// Starts a server with these lines in its configuration, after those that say where it is.
    pub(crate) fn with_config(lines: &str) -> Self {
        Self::listening(Ipv4Addr::LOCALHOST, lines)
    }

    /// Starts a server that listens on another interface.
    pub(crate) fn listening(host: Ipv4Addr, lines: &str) -> Self {
        // A port that is free now can be taken by another test before the server has it.
        for _ in 0..20 {
            let port = free_port();
            let mut server = Self::prepare(SocketAddr::from((host, port)), lines);
            if server.spawn() {
                return server;
            }
        }
        panic!("nats-server found no free port");
    }

    /// Writes the configuration without starting the server.
    pub(super) fn prepare(address: SocketAddr, lines: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the server");
        let server = Self {
            directory,
            address,
            child: None,
        };
        server.configure(lines);
        server
    }

    /// Writes another configuration. It holds after a restart.
    pub(crate) fn configure(&self, lines: &str) {
        // A `jetstream` block of the test's own replaces the usual one.
        let jetstream = if lines.contains("jetstream {") || lines.contains("jetstream: disabled") {
            String::new()
        } else {
            format!("jetstream {{ store_dir: {:?} }}\n", self.store())
        };
        let config = format!(
            "server_name: {:?}\nlisten: \"{}\"\n{jetstream}{}\n",
            format!("s{}", self.address.port()),
            self.address,
            lines.replace("STORE_DIR", &format!("{:?}", self.store())),
        );
        fs::write(self.config(), config).expect("a configuration for the server");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("server.conf")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Starts the server after it was killed or stopped: same port, same store.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "the server runs");
        let end = Instant::now() + PATIENCE;
        // Another socket may still hold the port for a moment.
        while !self.spawn() {
            assert!(
                Instant::now() < end,
                "the server does not start: {}",
                self.last_log()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts the process without waiting until it listens.
    pub(super) fn launch(&mut self) {
        let binary = binary();
        let log = fs::File::create(self.log()).expect("a log for the server");
        let child = Command::new(&binary)
            .arg("-c")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log for the server"))
            .stderr(log)
            .spawn();
        match child {
            Ok(child) => self.child = Some(child),
            Err(error) => panic!(
                "these tests need a NATS server (version 2.9 or later), and `{}` does not start: \
                 {error}. Install it (Debian: `apt-get install nats-server`), or name one in the \
                 environment variable NATS_SERVER",
                binary.display()
            ),
        }
    }

    /// Starts the process and waits until it takes connections. `false` if it ended.
    fn spawn(&mut self) -> bool {
        self.launch();
        self.wait_until_ready()
    }

    pub(super) fn wait_until_ready(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(child) = &mut self.child
                && child.try_wait().expect("the server's state").is_some()
            {
                self.child = None;
                return false;
            }
            if greets(self.address) && self.last_log().contains("Server is ready") {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the server does not start: {}", self.last_log());
    }

    /// Returns what the server has logged since its last start.
    pub(crate) fn last_log(&self) -> String {
        let bytes = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Kills the server like `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A stopped process dies of it, too.
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// Asks the server to end, and waits until it has.
    pub(crate) fn terminate(&mut self) {
        self.signal("TERM");
        let mut child = self.child.take().expect("the server runs");
        let end = Instant::now() + PATIENCE;
        while child.try_wait().expect("the server's state").is_none() {
            if Instant::now() > end {
                _ = child.kill();
                _ = child.wait();
                panic!("the server does not end");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops the process, so that it keeps its connections and says nothing.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets a frozen process go on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Copies the store of a server that does not run, to be put back later.
    pub(crate) fn copy_store(&self) -> TempDir {
        assert!(self.child.is_none(), "the server runs");
        let copy = tempfile::tempdir().expect("a directory for the copy");
        copy_all(&self.store(), &copy.path().join("store"));
        copy
    }

    /// Puts back a copy of the store. The server must not run.
    pub(crate) fn put_back(&self, copy: &TempDir) {
        self.delete_store();
        copy_all(&copy.path().join("store"), &self.store());
    }

    /// Deletes the store. The server must not run.
    pub(crate) fn delete_store(&self) {
        assert!(self.child.is_none(), "the server runs");
        if self.store().exists() {
            fs::remove_dir_all(self.store()).expect("the store can be deleted");
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process, by its name without `SIG`.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status()
        .expect("the command `kill`");
    assert!(sent.success(), "kill -{name} {pid}");
}

/// Returns the server's program.
pub(super) fn binary() -> PathBuf {
    std::env::var_os("NATS_SERVER").map_or_else(|| "nats-server".into(), PathBuf::from)
}

/// Returns a port that is free at the moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a free port").port()
}

/// Returns an address of this machine that is not of the loopback interface.
pub(crate) fn non_loopback_address() -> Option<Ipv4Addr> {
    // Connecting a datagram socket sends nothing: it only chooses an interface.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) if !address.ip().is_loopback() => Some(*address.ip()),
        _ => None,
    }
}

/// Returns whether a server greets there.
fn greets(address: SocketAddr) -> bool {
    let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return false;
    };
    _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut line = String::new();
    let read = BufReader::new(&stream).read_line(&mut line);
    _ = (&stream).write_all(b"PING\r\n");
    read.is_ok() && line.starts_with("INFO")
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory for the copy");
    let Ok(entries) = fs::read_dir(from) else {
        return;
    };
    for entry in entries {
        let entry = entry.expect("an entry of the store");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy of a file");
        }
    }
}
