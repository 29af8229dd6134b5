//! A web service whose blocking work runs on two bounded [`ThreadPool`](futurepool::ThreadPool)s.
//!
//! ```text
//!  request ──► handlers ──► workers ──► jobs      passwords and images: as many workers as processors
//!                 │            └──────► database  queries: a connection a worker
//!                 └─ counts ─► /metrics
//! ```
//!
//! Two pools, since the two kinds of work want different numbers of threads. More hashes at a time than there are
//! processors only make each of them slower, while queries wait for a disk. And a query of a millisecond does not
//! wait behind a queue of hashes, nor does each worker that hashes hold a connection.

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

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct App {
    /// For work that keeps a processor busy.
    pub cpu: Workers,
    /// For queries.
    pub db: Workers,
    pub counts: Arc<Counts>,
}

/// How large the pools are, and where the database is.
#[derive(Debug, Clone)]
pub struct Options {
    pub workers: NonZero<usize>,
    pub connections: NonZero<usize>,
    /// Jobs that may wait for a worker, in each pool. A full queue takes this many times a job's length by the number
    /// of workers to empty: take no more than clients will wait for.
    pub queue: NonZero<usize>,
    pub database: PathBuf,
}

impl App {
    /// Both pools, and all connections.
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

/// Starts all workers that the pool may have, and so opens their connections: one that cannot be opened ends the service
/// at its start, instead of breaking the pool at some request. Workers never leave, since the pool has no `keep_alive`,
/// so no initializer runs later.
async fn start_workers(pool: &ThreadPool, workers: usize) -> Result<(), AnyError> {
    let (starts, mut started) = unbounded_channel();
    let mut held = Vec::new();
    for _ in 0..workers {
        let starts = starts.clone();
        let (hold, end) = mpsc::channel::<()>();
        // All workers before it are held, so this job starts another one.
        let mut job = pool.submit(move || {
            let _ = starts.send(());
            let _ = end.recv();
        });
        if pool.metrics().spawn_failures > 0 && !job.is_finished() {
            // It would wait for one of those that are held.
            return Err(format!("the system gives no more than {} threads", held.len()).into());
        }
        tokio::select! {
            ended = &mut job => ended?, // its worker has no connection
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
