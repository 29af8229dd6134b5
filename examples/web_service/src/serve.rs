//! Serves requests until a graceful shutdown.

use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use futurepool::Metrics;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::workers::Pools;
use crate::{App, log, router};

/// After the drain limit: the time to answer cancelled requests, and for running jobs to stop.
pub const GRACE: Duration = Duration::from_secs(1);

/// What happened after the service was told to stop.
#[derive(Debug)]
pub struct Stopped {
    pub took: Duration,
    /// Requests answered since then, errors included.
    pub answered: u64,
    /// Requests that never got an answer.
    pub cut_off: u64,
    pub finished: u64,
    /// Jobs that crashed, or were killed at a limit.
    pub failed: u64,
    /// Jobs that were cancelled in the queue, or killed while they ran.
    pub cancelled: u64,
    /// Jobs that did not end.
    pub running: u64,
}

/// Serves requests until `stop` completes, then shuts down.
///
/// 1. It accepts no more connections, and answers the requests that have begun.
/// 2. When `limit` completes, queued jobs are cancelled. Running ones are asked to stop; those in
///    processes are killed. `limit` is called after `stop`.
/// 3. The answers to cancelled requests, and jobs that run in threads, have [`GRACE`] to finish.
///
/// The limit is needed because a client may send its request as slowly as it likes.
///
/// Borrows the service: dropping a pool waits for its jobs, and one of them may never finish.
pub async fn serve<L>(
    listener: TcpListener,
    app: &App,
    stop: impl Future<Output = ()>,
    limit: impl FnOnce() -> L,
) -> Stopped
where
    L: Future<Output = ()>,
{
    let (keep_on, told_to_stop) = oneshot::channel::<()>();
    let server = axum::serve(listener, router(app.clone()));
    let server = server.with_graceful_shutdown(async { drop(told_to_stop.await) });
    let mut all_done = pin!(async {
        let _ = server.await; // never fails
        // Jobs may remain without a request: their clients disconnected while they ran.
        if let Some(pools) = app.workers.pools() {
            pools.shutdown().await;
        }
    });
    tokio::select! {
        () = &mut all_done => unreachable!("the server runs until it is told to stop"),
        () = stop => drop(keep_on),
    }

    let before = Figures::of(app);
    let begin = Instant::now();
    log(format_args!("stopping, with {before}"));
    tokio::select! {
        () = &mut all_done => {}
        () = limit() => {
            if let Some(pools) = app.workers.pools() {
                pools.cancel_all();
            }
            let _ = timeout(GRACE, all_done).await;
        }
    }
    let after = Figures::of(app);
    Stopped {
        took: begin.elapsed(),
        answered: after.answered - before.answered,
        cut_off: after.in_flight,
        finished: after.finished - before.finished,
        failed: after.failed - before.failed,
        cancelled: after.cancelled - before.cancelled,
        running: after.running,
    }
}

impl Stopped {
    /// Returns whether every request was answered and no job still runs.
    pub fn is_clean(&self) -> bool {
        self.cut_off == 0 && self.running == 0
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stopped after {:.2?}: {} requests answered, {} cut off; \
             {} jobs finished, {} failed, {} cancelled, {} still running",
            self.took,
            self.answered,
            self.cut_off,
            self.finished,
            self.failed,
            self.cancelled,
            self.running
        )
    }
}

/// Counts of requests, and of the jobs of all pools.
struct Figures {
    answered: u64,
    in_flight: u64,
    finished: u64,
    failed: u64,
    cancelled: u64,
    queued: u64,
    running: u64,
}

impl Figures {
    fn of(app: &App) -> Self {
        let totals = app.counts.totals();
        let pools = app.workers.pools().map(Pools::metrics);
        let sum = |figure: fn(&Metrics) -> u64| {
            let pools = pools.iter().flatten();
            pools.map(|(_, metrics)| figure(metrics)).sum()
        };
        Self {
            answered: totals.answered(),
            in_flight: totals.in_flight(),
            finished: sum(|pool| pool.completed + pool.panicked),
            failed: sum(|pool| pool.failed),
            cancelled: sum(|pool| pool.cancelled),
            queued: sum(|pool| pool.queued),
            running: sum(|pool| pool.running),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests in flight, {} jobs queued and {} running",
            self.in_flight, self.queued, self.running
        )
    }
}
