//! The pools of Python: child programs that measure themselves.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::{env, fs};

use crate::participant::Participant;
use crate::placement;
use crate::result::Sample;

/// The packages, apart from those that Python itself has.
const PACKAGES: [&str; 2] = ["loky", "pebble"];
const POOLS: [&str; 3] = ["ProcessPoolExecutor", "loky", "pebble"];

const FILES: [(&str, &str); 2] = [
    (
        "process_pools.py",
        include_str!("../../python/process_pools.py"),
    ),
    (
        "process_jobs.py",
        include_str!("../../python/process_jobs.py"),
    ),
];

/// Where the programs and their packages are, beside this executable.
struct Folder {
    programs: PathBuf,
    packages: PathBuf,
}

impl Folder {
    fn new() -> io::Result<Self> {
        let own = env::current_exe()?;
        Ok(Self {
            programs: own.with_file_name("process-programs"),
            packages: own.with_file_name("process-peers"),
        })
    }

    /// Returns the interpreter that has the packages, if they were installed.
    fn python(&self) -> PathBuf {
        let installed = self.packages.join("bin/python");
        match installed.exists() {
            true => installed,
            false => system_python(),
        }
    }
}

fn system_python() -> PathBuf {
    env::var_os("PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// Installs the packages into an environment of their own, beside this executable.
pub(super) fn install() -> Result<(), String> {
    let packages = Folder::new().map_err(|error| error.to_string())?.packages;
    let mut create = Command::new(system_python());
    create.args(["-m", "venv", "--clear"]).arg(&packages);
    finish(create)?;
    let mut install = Command::new(packages.join("bin/python"));
    install
        .args(["-m", "pip", "install", "--quiet"])
        .args(PACKAGES);
    finish(install)
}

fn finish(mut command: Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// Returns a participant for each pool.
///
/// `workload` is its name in the program, `work` the amount of work, and `figures` their number.
pub(super) fn all(
    workload: &'static str,
    work: u64,
    figures: usize,
) -> impl Iterator<Item = Participant> {
    let versions = versions();
    let participant = move |(pool, version): (&'static str, &'static Result<String, String>)| {
        let session = Mutex::new(None);
        let participant = Participant::new(pool, move || {
            if version.is_err() {
                return vec![None; figures];
            }
            let mut session = session.lock().expect("no measurement panicked");
            let session = match &mut *session {
                Some(session) => session,
                none => none.insert(Session::start(pool, workload, work).expect("it started")),
            };
            session.measure(figures).expect("the program answers")
        });
        let (Ok(note) | Err(note)) = version.clone();
        Participant {
            note: Some(note),
            ..participant
        }
    };
    POOLS.into_iter().zip(versions).map(participant)
}

/// Returns the version of each pool, or an error that says what is missing. It asks only once.
fn versions() -> &'static [Result<String, String>] {
    static VERSIONS: OnceLock<Vec<Result<String, String>>> = OnceLock::new();
    VERSIONS.get_or_init(|| POOLS.map(version).into())
}

fn version(pool: &str) -> Result<String, String> {
    let missing = |cause: String| {
        let remedy = match PACKAGES.contains(&pool) {
            true => "`--install` installs it",
            false => "it needs `python3`, or the variable `PYTHON`",
        };
        format!("missing ({cause}); {remedy}")
    };
    let command = program(pool, "probe").map_err(|error| missing(error.to_string()));
    let output = command?
        .output()
        .map_err(|error| missing(error.to_string()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(missing(last_line(&output.stderr))),
    }
}

/// Returns the last line, in which Python names the error.
fn last_line(output: &[u8]) -> String {
    let output = String::from_utf8_lossy(output);
    output
        .trim()
        .lines()
        .last()
        .unwrap_or("no error")
        .to_owned()
}

/// Writes the program. Returns a command that runs it.
fn program(pool: &str, workload: &str) -> io::Result<Command> {
    let folder = Folder::new()?;
    fs::create_dir_all(&folder.programs)?;
    for (name, text) in FILES {
        write_if_changed(&folder.programs.join(name), text)?;
    }
    let mut command = Command::new(folder.python());
    command.args([FILES[0].0, pool, workload]);
    command.current_dir(&folder.programs).stdin(Stdio::null());
    Ok(command)
}

/// A running program must not read a file that is being written.
fn write_if_changed(path: &Path, text: &str) -> io::Result<()> {
    match fs::read_to_string(path) {
        Ok(current) if current == text => Ok(()),
        _ => fs::write(path, text),
    }
}

/// A program that keeps its pool from round to round.
struct Session {
    /// The program runs a round for each line.
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// It ends at the end of its input, together with this process.
    _child: Child,
}

impl Session {
    fn start(pool: &str, workload: &str, work: u64) -> io::Result<Self> {
        let mut command = program(pool, workload)?;
        command.arg(work.to_string());
        if let Some((caller, worker)) = placement::apart() {
            command.args([caller.to_string(), worker.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // The program kills its group if it cannot end otherwise.
        command.stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn()?;
        let requests = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Ok(Self {
            requests,
            answers,
            _child: child,
        })
    }

    fn measure(&mut self, figures: usize) -> io::Result<Sample> {
        self.requests.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        parse(&line, figures)
    }
}

/// Parses an answer: a JSON list of `figures` numbers or nulls.
fn parse(line: &str, figures: usize) -> io::Result<Sample> {
    let invalid = |cause: String| io::Error::new(io::ErrorKind::InvalidData, cause);
    let sample: Sample = serde_json::from_str(line)
        .map_err(|error| invalid(format!("not a list of figures: {line:?}: {error}")))?;
    let is_time = |figure: &Option<f64>| figure.is_none_or(f64::is_finite);
    match sample.len() == figures && sample.iter().all(is_time) {
        true => Ok(sample),
        false => Err(invalid(format!("not {figures} figures: {line:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_as_many_figures_as_the_workload() {
        assert_eq!(parse("[1.5, null]\n", 2).unwrap(), [Some(1.5), None]);
        assert!(parse("[1.5]\n", 2).is_err());
        assert!(parse("", 1).is_err());
        let error = parse("Traceback\n", 1).unwrap_err().to_string();
        assert!(
            error.starts_with("not a list of figures: \"Traceback"),
            "{error}"
        );
    }

    #[test]
    fn the_last_line_names_the_error() {
        let output = b"Traceback:\n  import loky\nModuleNotFoundError: No module named 'loky'\n";
        assert_eq!(
            last_line(output),
            "ModuleNotFoundError: No module named 'loky'"
        );
        assert_eq!(last_line(b""), "no error");
    }
}
