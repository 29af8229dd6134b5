//! A NATS server of its own: own port, own store.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use crate::child::{Guarded, connect, free_port, resident, wait_until};

pub(crate) struct Server {
    process: Guarded,
    port: u16,
    monitor: u16,
    /// Removed with the server.
    _store: TempDir,
}

/// How many messages the server has received and sent.
#[derive(Deserialize, Clone, Copy)]
pub(crate) struct Messages {
    #[serde(rename = "in_msgs")]
    pub(crate) received: u64,
    #[serde(rename = "out_msgs")]
    pub(crate) sent: u64,
}

impl Server {
    /// Starts a server and waits until it answers.
    pub(crate) fn start(program: &Path) -> Result<Self, String> {
        let store = tempfile::tempdir().map_err(|error| error.to_string())?;
        let free = || free_port().map_err(|error| error.to_string());
        let (port, monitor) = (free()?, free()?);
        let mut command = Command::new(program);
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--http_port", &monitor.to_string(), "--jetstream"]);
        command.arg("--store_dir").arg(store.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        let mut process = Guarded::spawn(&mut command)?;
        wait_until("nats-server", Duration::from_secs(10), || {
            process.check()?;
            Ok(connect(port).is_ok() && get(monitor, "/varz").is_ok())
        })?;
        Ok(Self {
            process,
            port,
            monitor,
            _store: store,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn resident(&self) -> Option<f64> {
        resident(self.pid())
    }

    pub(crate) fn messages(&self) -> Result<Messages, String> {
        let text = get(self.monitor, "/varz")?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }
}

/// Returns the version that a program prints: the first word that starts with `v` and a digit.
pub(crate) fn version(program: &Path) -> Result<String, String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_whitespace();
    let version = words.find_map(|word| {
        let version = word.strip_prefix('v')?.trim_start_matches('=');
        version
            .starts_with(|first: char| first.is_ascii_digit())
            .then_some(version)
    });
    Ok(version.unwrap_or("of unknown version").to_owned())
}

/// Returns the body of an answer of the server's monitoring.
fn get(port: u16, path: &str) -> Result<String, String> {
    let exchange = || {
        let mut socket = connect(port)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        // HTTP/1.0: the server closes the connection after its answer.
        write!(socket, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = exchange().map_err(|error: std::io::Error| error.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("not an HTTP answer")?;
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("{path}: {head}")),
    }
}
