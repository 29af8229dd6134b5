//! The command `futurepool-cluster`.

mod commands;
mod help;
mod options;

use std::io::{self, Write as _};
use std::process::ExitCode;

use self::options::{Command, Parsed};

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was called in a wrong way: exit code 2.
    Usage { command: &'static str, text: String },
    /// It failed: exit code 1.
    Failed(String),
    /// Nothing reads what it writes.
    ClosedOutput,
}

impl Failure {
    fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedOutput,
            _ => Self::Failed(format!("cannot write: {error}")),
        }
    }
}

/// Runs the command with this process's arguments.
pub(crate) fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let result = match options::parse(std::env::args_os().skip(1), &variable) {
        Ok(Parsed::Print(text)) => writeln!(io::stdout(), "{text}").map_err(Failure::from),
        Ok(Parsed::Run(command)) => run(*command),
        Err(failure) => Err(failure),
    };
    match result {
        Ok(()) | Err(Failure::ClosedOutput) => ExitCode::SUCCESS,
        Err(Failure::Failed(text)) => {
            let _ = writeln!(io::stderr(), "futurepool-cluster: {text}");
            ExitCode::from(1)
        }
        Err(Failure::Usage { command, text }) => {
            let _ = writeln!(
                io::stderr(),
                "futurepool-cluster: {text}\nSee `futurepool-cluster {command}--help`."
            );
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(commands::run(command))
}
