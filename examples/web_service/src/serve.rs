//! The service from its first connection to an orderly end.

use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::{App, log, router};

/// For what was cancelled at the limit to be answered, and for running jobs to see that they are asked to end.
pub const GRACE: Duration = Duration::from_secs(1);

/// What became of the work that was there when the service was told to stop.
#[derive(Debug)]
pub struct Stopped {
    pub took: Duration,
    /// Requests answered meanwhile, those with an error included.
    pub answered: u64,
    /// Requests that never got an answer.
    pub cut_off: u64,
    pub finished: u64,
    pub cancelled: u64,
    /// Jobs that did not end.
    pub running: u64,
}

/// Serves until `stop`. Then accepts no more connections and answers the requests it has, until they all are, or until
/// `limit`, whose time runs from then on. At the limit queued jobs are cancelled; the answers to their requests, and the
/// jobs that run, have [`GRACE`].
///
/// It borrows the service, since the drop of a pool waits for its jobs, and that is not for here.
///
/// The limit is needed: an orderly end waits for every request, and a client may send its own as slowly as it likes.
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
        // There may be more jobs than requests: those that ran when their client went away.
        app.cpu.shutdown().await;
        app.db.shutdown().await;
    });
    tokio::select! {
        () = &mut all_done => unreachable!("it goes on until it is told to stop"),
        () = stop => drop(keep_on),
    }

    let before = Figures::of(app);
    let begin = Instant::now();
    log(format_args!("stopping, with {before}"));
    tokio::select! {
        () = &mut all_done => {}
        () = limit() => {
            app.cpu.cancel_all();
            app.db.cancel_all();
            let _ = timeout(GRACE, all_done).await;
        }
    }
    let after = Figures::of(app);
    Stopped {
        took: begin.elapsed(),
        answered: after.answered - before.answered,
        cut_off: after.in_flight,
        finished: after.finished - before.finished,
        cancelled: after.cancelled - before.cancelled,
        running: after.running,
    }
}

impl Stopped {
    /// Whether every request was answered and every job ended.
    pub fn is_clean(&self) -> bool {
        self.cut_off == 0 && self.running == 0
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stopped after {:.2?}: {} requests answered, {} cut off; {} jobs finished, {} cancelled, {} still running",
            self.took, self.answered, self.cut_off, self.finished, self.cancelled, self.running
        )
    }
}

/// Of requests, and of the jobs of both pools.
struct Figures {
    answered: u64,
    in_flight: u64,
    finished: u64,
    cancelled: u64,
    queued: u64,
    running: u64,
}

impl Figures {
    fn of(app: &App) -> Self {
        let totals = app.counts.totals();
        let (cpu, db) = (app.cpu.metrics(), app.db.metrics());
        Self {
            answered: totals.answered(),
            in_flight: totals.in_flight(),
            finished: cpu.completed + cpu.panicked + db.completed + db.panicked,
            cancelled: cpu.cancelled + db.cancelled,
            queued: cpu.queued + db.queued,
            running: cpu.running + db.running,
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
