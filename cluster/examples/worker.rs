//! Runs tasks until SIGTERM or Ctrl-C, which let it finish what runs. Start as many as you like.
//!
//! ```sh
//! nats-server -js    # elsewhere
//! cargo run --release --example worker --features process -- nats://127.0.0.1:4222
//! ```
//!
//! `--threads 8` (the default) or `--processes 8`, then the address, or `NATS_URL` instead of it.

use std::env;
use std::error::Error;

use futurepool::ProcessPool;
use futurepool_cluster::Worker;

mod tasks;

fn main() -> Result<(), Box<dyn Error>> {
    futurepool::process::init(); // first: in a worker process this runs tasks, and does not return
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();

    let mut worker = Worker::new(tasks::all()).threads(8);
    let mut address = env::var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().unwrap_or_default().parse();
        match argument.as_str() {
            "--threads" => worker = worker.threads(number()?),
            // Running jobs can be killed, and a crash harms only its job.
            "--processes" => {
                let pool = ProcessPool::builder().max_workers(number()?);
                worker = worker.processes(pool);
            }
            _ => address = argument,
        }
    }

    let worker = worker.connect(address)?;
    println!("{} takes jobs", worker.id());
    worker.run()?;
    println!("drained");
    Ok(())
}
