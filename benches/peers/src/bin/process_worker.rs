//! The small worker of `processes`, for the figures of a start and of an end.

use std::process::ExitCode;

fn main() -> ExitCode {
    futurepool::process::init_tasks(futurepool_peers::processes::tasks::all());
    eprintln!("`processes` starts this program; do not run it directly.");
    ExitCode::from(2)
}
