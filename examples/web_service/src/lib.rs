//! A web service whose blocking work runs on bounded pools: two
//! [`ThreadPool`](futurepool::ThreadPool)s and a [`ProcessPool`](futurepool::ProcessPool).
//!
//! ```text
//!  request ──► handlers ──► workers ──► jobs      passwords: one thread per processor
//!                 │            ├──────► database  queries: one connection per thread
//!                 │            └──────► images    thumbnails: in processes, with limits
//!                 └─ counts ─► /metrics
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
pub mod serve;
pub mod workers;

use std::error::Error;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futurepool::process::WorkerStdio;
use futurepool::{ProcessPool, ThreadPool};
use tokio::sync::mpsc::unbounded_channel;

pub use self::failure::Failure;
pub use self::handlers::{BODY_LIMIT, router};
pub use self::images::{Decoder, SIDE};
pub use self::log::log;
pub use self::serve::serve;

use self::counts::Counts;
use self::workers::{Processes, Workers};

type AnyError = Box<dyn Error + Send + Sync>;

/// The state that the handlers share.
#[derive(Debug, Clone)]
pub struct App {
    /// For CPU-bound work.
    pub cpu: Workers,
    /// For queries.
    pub db: Workers,
    /// For thumbnails.
    pub images: Processes,
    pub decoder: Decoder,
    pub counts: Arc<Counts>,
}

/// The sizes of the pools, and the path of the database.
#[derive(Debug, Clone)]
pub struct Options {
    pub workers: NonZero<usize>,
    pub connections: NonZero<usize>,
    /// The queue capacity of each pool. A full queue takes `queue × job time ÷ workers` to empty:
    /// choose no more than clients will wait.
    pub queue: NonZero<usize>,
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
        let cpu = ThreadPool::builder()
            .thread_name_prefix("cpu")
            .max_workers(options.workers.get())
            .queue_capacity(options.queue.get())
            .build()?;
        let db = ThreadPool::builder()
            .thread_name_prefix("db")
            .max_workers(options.connections.get())
            .queue_capacity(options.queue.get())
            .initializer(connects_to(&options.database))
            .build()?;
        start_workers(&db, options.connections.get()).await?;
        let images = image_pool(&options.images, options.queue)?;
        // Processes that cannot start are an error now, instead of at the first image.
        images.submit(images::ready::call()).await?;
        Ok(Self {
            cpu: Workers::Pool(Arc::new(cpu)),
            db: Workers::Pool(Arc::new(db)),
            images: Processes::Pool(Arc::new(images)),
            decoder: options.images.decoder,
            counts: Arc::default(),
        })
    }
}

fn image_pool(options: &ImageOptions, queue: NonZero<usize>) -> Result<ProcessPool, AnyError> {
    let mut pool = ProcessPool::builder()
        .max_workers(options.processes.get())
        .prestart(options.processes.get())
        .queue_capacity(queue.get())
        .time_limit(options.time_limit)
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

fn connects_to(database: &Path) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
    let path = database.to_owned();
    move || database::connect(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Starts all workers of the pool, which open their connections.
///
/// So a connection that fails ends the service at its start, instead of breaking the pool during
/// some request. The pool has no `keep_alive`. So its workers never exit, and no initializer runs
/// later.
async fn start_workers(pool: &ThreadPool, workers: usize) -> Result<(), AnyError> {
    let (starts, mut started) = unbounded_channel();
    let mut held = Vec::new();
    for _ in 0..workers {
        let starts = starts.clone();
        let (hold, end) = mpsc::channel::<()>();
        // All earlier workers are held, so this job starts another one.
        let mut job = pool.submit(move || {
            let _ = starts.send(());
            let _ = end.recv();
        });
        if pool.metrics().spawn_failures > 0 && !job.is_finished() {
            // The job would wait for a worker that is held.
            return Err(format!("the system cannot start more than {} threads", held.len()).into());
        }
        tokio::select! {
            ended = &mut job => ended?, // its worker could not connect
            _ = started.recv() => {}
        }
        held.push((hold, job));
    }
    for (hold, job) in held {
        drop(hold);
        job.await?;
    }
    Ok(())
}
