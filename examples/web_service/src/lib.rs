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
use std::sync::Arc;

use futurepool::ThreadPool;

pub use self::failure::Failure;
pub use self::handlers::{BODY_LIMIT, router};
pub use self::jobs::SIDE;
pub use self::log::log;
pub use self::serve::serve;

use self::counts::Counts;
use self::workers::Workers;

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
    /// Both pools, and the first connection.
    pub async fn start(options: &Options) -> Result<Self, Box<dyn Error + Send + Sync>> {
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
        // The first job starts the first worker, which connects: better it fails here than at the first request.
        db.submit(|| ()).await?;
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
