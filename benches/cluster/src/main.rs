//! Measures `futurepool-cluster`: a server, a submitter and two workers on loopback.
//!
//! ```sh
//! cargo run --release --manifest-path benches/cluster/Cargo.toml                # some minutes
//! … -- --quick                       # a smoke test of at most a minute, if no peer is installed
//! … -- --install                     # Celery, Dask and Ray, into an environment beside the program
//! … -- --rounds 5 --markdown FILE    # the tables as Markdown
//! … -- --nats PATH                   # another nats-server than the one in PATH
//! ```
//!
//! It needs the programs `nats-server`, and `redis-server` for Celery (Debian has both).
//!
//! Participants take turns: each round starts one with processes of its own, measures all its rows and
//! ends it. So no idle process of one takes part in the figures of another, and ratios are those within a
//! round. A figure is the best, the median and the worst round. A peer that is not installed is left out
//! by name.
//!
//! The submitter is this program, a worker is `cluster-worker`. Both kinds of tasks are measured: those
//! of the default, which start at most once, and idempotent ones. The floor is a message to another
//! process and one back over the same server, without what makes a job of it.
//!
//! The peers' programs measure themselves. `python/cluster_peers.py` says how each is set up, and the
//! report says what each guarantees: they differ more in that than in their speed.

use std::env;
use std::process::ExitCode;

use futurepool_cluster_bench::arguments::{Action, HELP, parse, print_list};
use futurepool_cluster_bench::{floor, ours, python, run};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [floor::ECHO, url] => floor::echo(url),
        [ours::HOLD, url, mode] => ours::hold(url, mode),
        _ => match parse(lexopt::Parser::from_env()) {
            Ok(Action::Compare(comparison)) => run::compare(&comparison),
            Ok(Action::Install(environment)) => python::install(environment.as_deref()),
            Ok(Action::List) => {
                print_list();
                Ok(())
            }
            Ok(Action::Help) => {
                print!("{HELP}");
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error}");
            ExitCode::from(2)
        }
    }
}
