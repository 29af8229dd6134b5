//! A web service whose blocking work runs on three bounded pools: a
//! [`ThreadPool`](futurepool::ThreadPool), a [`StatefulPool`](futurepool::StatefulPool) and a
//! [`ProcessPool`](futurepool::ProcessPool).
//!
//! ```text
//!  request ──► handlers ──► workers ──► jobs      passwords: one thread per processor
//!     │           │            ├──────► database  queries: one connection per thread
//!     │           │            └──────► images    images: in processes, with limits
//!     │           └─ counts ─► /metrics
//!     └─ urgency: label, priority and deadline of the job
//! ```
//!
//! There are two pools of threads because the two kinds of work need different numbers of threads.
//! More concurrent hashes than processors only slow each hash down, while queries wait for a disk.
//! With two pools, a query of a millisecond does not wait behind a queue of hashes. And the workers
//! that hash hold no connections.
//!
//! Images are decoded in processes, because a thread cannot be stopped and takes the service along
//! when it crashes.

pub mod counts;
pub mod database;
mod failure;
mod faulty;
mod handlers;
mod images;
mod jobs;
mod log;
mod metrics;
pub mod on_tokio;
pub mod serve;
mod urgency;
pub mod workers;

use std::error::Error;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futurepool::process::WorkerStdio;
use futurepool::{ProcessPool, StatefulPool, ThreadPool};
use rusqlite::Connection;

pub use self::failure::Failure;
pub use self::handlers::{BODY_LIMIT, router};
pub use self::images::{Decoder, SIDE};
pub use self::log::log;
pub use self::serve::serve;
pub use self::urgency::{TIMEOUT_HEADER, Urgency};

use self::counts::Counts;
use self::workers::{Pools, Room, Workers};

type AnyError = Box<dyn Error + Send + Sync>;

/// The state that the handlers share.
#[derive(Debug, Clone)]
pub struct App {
    pub workers: Workers,
    /// How long a job may be queued: see [`Options::start_limit`].
    pub start_limit: Duration,
    pub decoder: Decoder,
    pub counts: Arc<Counts>,
}

/// The sizes of the pools, and the path of the database.
#[derive(Debug, Clone)]
pub struct Options {
    pub workers: NonZero<usize>,
    pub connections: NonZero<usize>,
    /// How many jobs each pool queues. Urgent jobs have as much room again. A full queue takes
    /// `queue × job time ÷ workers` to empty: choose no more than clients will wait.
    pub queue: NonZero<usize>,
    /// A job that has not started after this time never runs. A client can ask for less, with the
    /// header [`TIMEOUT_HEADER`].
    pub start_limit: Duration,
    pub database: PathBuf,
    pub images: ImageOptions,
}

/// How many processes make thumbnails, and what one thumbnail may cost.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    pub processes: NonZero<usize>,
    /// How long one image may take.
    pub time_limit: Duration,
    /// How much memory a process may use, in bytes. Only on Linux.
    pub memory_limit: u64,
    pub decoder: Decoder,
}

impl App {
    /// Builds the pools, opens all connections and starts all processes.
    pub async fn start(options: &Options) -> Result<Self, AnyError> {
        let (workers, queue) = (options.workers.get(), options.queue.get());
        let processes = options.images.processes.get();
        let cpu = ThreadPool::builder()
            .thread_name_prefix("cpu")
            .max_workers(workers)
            .queue_capacity(with_urgent(queue, workers))
            .timings(true)
            .build()?;
        let db = StatefulPool::builder(connects_to(&options.database))
            .thread_name_prefix("db")
            .max_workers(options.connections.get())
            .queue_capacity(queue)
            .timings(true)
            .build()?;
        connect_all(&db).await?;
        let images = image_pool(&options.images, with_urgent(queue, processes))?;
        // Processes that cannot start are an error now, instead of at the first image.
        images.submit(images::ready::call()).await?;
        let pools = Pools {
            cpu,
            cpu_room: Room::new(workers.saturating_add(queue)),
            db,
            images,
            images_room: Room::new(processes.saturating_add(queue)),
        };
        Ok(Self {
            workers: Workers::Pools(Arc::new(pools)),
            start_limit: options.start_limit,
            decoder: options.images.decoder,
            counts: Arc::default(),
        })
    }
}

/// Returns the queue capacity of a pool with room for urgent jobs.
///
/// Other jobs have `queue` permits, and one for each worker. If urgent jobs have all workers, the
/// others have all their permits in the queue. There are `queue` places left then.
fn with_urgent(queue: usize, workers: usize) -> usize {
    queue.saturating_mul(2).saturating_add(workers)
}

fn image_pool(options: &ImageOptions, queue: usize) -> Result<ProcessPool, AnyError> {
    let mut pool = ProcessPool::builder()
        .name("images")
        .max_workers(options.processes.get())
        .prestart(options.processes.get())
        .queue_capacity(queue)
        .time_limit(options.time_limit)
        .timings(true)
        // Passwords and queries go first on the processors, too.
        .nice(10)
        // What a decoder prints goes to the log. Only the service writes to its standard output.
        .stdout(WorkerStdio::null())
        .stderr(WorkerStdio::lines(|line| {
            log(format_args!("worker {}: {}", line.worker_pid(), line));
        }));
    if cfg!(target_os = "linux") {
        pool = pool
            .memory_limit(options.memory_limit)
            // What a job leaves behind counts for the next one, too.
            .recycle_above(options.memory_limit / 2);
    }
    Ok(pool.build()?)
}

fn connects_to(database: &Path) -> impl Fn() -> Result<Connection, String> + Send + Sync + 'static {
    let path = database.to_owned();
    move || database::connect(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Starts all workers of the pool, which open their connections.
///
/// So a connection that fails ends the service at its start, instead of breaking the pool during
/// some request. The pool has no `keep_alive`, so its workers never exit.
async fn connect_all(pool: &StatefulPool<Connection>) -> Result<(), AnyError> {
    pool.prestart(pool.max_workers());
    for connected in pool.broadcast(|_| ()) {
        connected.await?;
    }
    // If a worker could not connect and has gone already, this is the error that says so.
    pool.submit(|_| ()).await?;
    if pool.metrics().spawn_failures > 0 {
        return Err("the system cannot start a thread for each connection".into());
    }
    Ok(())
}
