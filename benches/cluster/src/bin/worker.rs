//! A worker of `cluster`, which starts it.

use std::io::{self, Read};
use std::process::{ExitCode, exit};
use std::{env, thread};

use futurepool_cluster::Worker;
use futurepool_cluster_bench::tasks;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [url, namespace, threads] = &arguments[..] else {
        eprintln!("`cluster` starts this program; do not run it directly.");
        return ExitCode::from(2);
    };
    // Without its parent, it has no purpose.
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        exit(1);
    });
    match run(url, namespace, threads) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(url: &str, namespace: &str, threads: &str) -> Result<(), Box<dyn std::error::Error>> {
    let worker = Worker::new(tasks::all()).namespace(namespace);
    let worker = worker.threads(threads.parse()?).connect(url)?;
    Ok(worker.run()?)
}
