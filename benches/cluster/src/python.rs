//! The peers of Python: a child program for each, which starts the peer and measures it.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::child::wait_until;
use crate::participants::{Environment, Scale, Session};
use crate::result::Sample;
use crate::rows::Row;

const PACKAGES: [&str; 3] = ["celery[redis]", "distributed", "ray[default]"];
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/cluster_peers.py");

/// How long a start or a measurement may take.
const LIMIT: Duration = Duration::from_secs(90);
/// How long a peer may take to end in good order.
const END: Duration = Duration::from_secs(15);

/// A running program, its peer and the peer's processes.
pub(crate) struct Python {
    child: Child,
    /// The program measures once for each line. `None` once it has to end.
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
    /// What servers and workers write.
    _folder: TempDir,
}

/// Returns the environment that `--install` makes.
pub(crate) fn default_environment() -> Result<PathBuf, String> {
    let own = env::current_exe().map_err(|error| error.to_string())?;
    Ok(own.with_file_name("cluster-peers"))
}

/// Installs the packages into an environment of their own.
pub fn install(environment: Option<&Path>) -> Result<(), String> {
    let environment = match environment {
        Some(environment) => environment.to_owned(),
        None => default_environment()?,
    };
    let system = env::var_os("PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
    let mut create = Command::new(system);
    create.args(["-m", "venv"]).arg(&environment);
    finish(create)?;
    let mut install = Command::new(environment.join("bin/python"));
    let pip = ["-m", "pip", "install", "--quiet"];
    install.args(pip).args(PACKAGES);
    finish(install)
}

fn finish(mut command: Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// Returns the versions of the packages that are installed, by name.
pub(crate) fn versions(environment: &Path) -> Result<BTreeMap<String, String>, String> {
    let python = environment.join("bin/python");
    let output = Command::new(&python).args([PROGRAM, "versions"]).output();
    let output = output.map_err(|error| format!("{}: {error}", python.display()))?;
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

impl Python {
    pub(crate) fn start(environment: &Environment, peer: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut command = Command::new(environment.python.join("bin/python"));
        command.args([PROGRAM, peer]);
        command.current_dir(folder.path());
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("REDIS_SERVER", &environment.redis);
        command.env("RAY_TMPDIR", folder.path());
        command.env("RAY_USAGE_STATS_ENABLED", "0");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Its servers and workers are in its group, and end with it.
        command.stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let requests = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let python = Self {
            child,
            requests,
            answers,
            _folder: folder,
        };
        match python.answer()?.as_str() {
            "ready" => Ok(python),
            line => Err(format!("not ready: {line:?}")),
        }
    }

    fn answer(&self) -> Result<String, String> {
        let line = self.answers.recv_timeout(LIMIT);
        line.map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("no answer within {} s", LIMIT.as_secs()),
            RecvTimeoutError::Disconnected => "the program has ended".to_owned(),
        })
    }
}

impl Session for Python {
    fn measure(&mut self, row: Row, scale: Scale) -> Result<Sample, String> {
        let count = match row {
            Row::Trip => scale.of(200),
            Row::Burst => scale.of(2_000),
            Row::Sleeps => scale.of(1_600),
            _ => return Err("the peers have no such row".to_owned()),
        };
        let requests = self.requests.as_mut().expect("it has not ended");
        let request = writeln!(requests, "{} {count}", row.name());
        request.map_err(|error| error.to_string())?;
        let answer = self.answer()?;
        let mut sample: Sample = serde_json::from_str(&answer)
            .map_err(|error| format!("not a list of figures: {answer:?}: {error}"))?;
        // What only the server of NATS tells.
        sample.resize(row.figures().len(), None);
        Ok(sample)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.requests = None;
        let ended = wait_until("the end", END, || {
            Ok(!matches!(self.child.try_wait(), Ok(None)))
        });
        // A member of the group may be left also if the program ended by itself.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        if ended.is_err() {
            let _ = self.child.wait();
        }
    }
}
