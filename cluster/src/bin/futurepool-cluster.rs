//! Shows and manages a cluster of `futurepool`'s workers: see `futurepool-cluster --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    futurepool_cluster::status::main()
}
