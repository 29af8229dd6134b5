//! A web service whose blocking work runs on two bounded [`ThreadPool`](futurepool::ThreadPool)s.
//!
//! ```text
//!  request ──► handlers ──► workers ──► jobs      passwords and images: one worker per processor
//!                 │            └──────► database  queries: one connection per worker
//!                 └─ counts ─► /metrics
//! ```
//!
//! There are two pools because the two kinds of work need different numbers of threads. More
//! concurrent hashes than processors only slow each hash down, while queries wait for a disk. With
//! two pools, a query of a millisecond does not wait behind a queue of hashes. And the workers that
//! hash hold no connections.

pub mod counts;
pub mod database;
mod failure;
mod handlers;
mod jobs;
mod log;
mod metrics;
pub mod serve;
pub mod workers;

use std::error::Error;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use futurepool::ThreadPool;
use tokio::sync::mpsc::unbounded_channel;

pub use self::failure::Failure;
pub use self::handlers::{BODY_LIMIT, router};
pub use self::jobs::SIDE;
pub use self::log::log;
pub use self::serve::serve;

use self::counts::Counts;
use self::workers::Workers;

type AnyError = Box<dyn Error + Send + Sync>;

/// The state that the handlers share.
#[derive(Debug, Clone)]
pub struct App {
    /// For CPU-bound work.
    pub cpu: Workers,
    /// For queries.
    pub db: Workers,
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
}

impl App {
    /// Builds both pools and opens all connections.
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
        Ok(Self {
            cpu: Workers::Pool(Arc::new(cpu)),
            db: Workers::Pool(Arc::new(db)),
            counts: Arc::default(),
        })
    }
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
