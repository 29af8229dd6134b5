//! Submits tasks to the workers of the example `worker`, and takes their results.
//!
//! ```sh
//! cargo run --release --example submitter -- nats://127.0.0.1:4222
//! ```

use std::env;
use std::error::Error;

use futurepool::as_completed;
use futurepool_cluster::Cluster;

mod tasks;

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let address = env::args().nth(1).or_else(|| env::var("NATS_URL").ok());
    let address = address.unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
    let cluster = Cluster::connect(address).build()?;

    // One job. The first `?` is for the job (a lost worker, a panic), the second for the function.
    let receipt = cluster
        .submit(tasks::charge::call("Ada".to_owned(), 1_250))
        .join()??;
    println!("{receipt}");

    // Many jobs, results in order of completion.
    let submit = |n: u8| cluster.submit(tasks::checksum::call(vec![n; 1_000])).tag(n);
    let handles: Vec<_> = (0..10).map(submit).collect();
    for (n, sum) in as_completed(handles) {
        match sum {
            Ok(sum) => println!("block {n}: {sum}"),
            Err(error) if error.is_lost() => println!("block {n}: {:?} died", error.worker()),
            Err(error) => println!("block {n}: {error}"),
        }
    }

    // One function over many blocks, results in their order.
    let blocks = (0..100).map(|n| tasks::checksum::call(vec![n; 1_000]));
    let sums: Vec<u32> = cluster.map(blocks).join()?;
    println!("{} blocks, {} in all", sums.len(), sums.iter().sum::<u32>());
    Ok(()) // dropping the cluster waits for its jobs
}
