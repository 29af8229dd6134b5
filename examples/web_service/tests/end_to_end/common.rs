//! Helpers that all tests use.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::num::NonZero;
use std::ops::AddAssign;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futurepool::{Metrics, Priority};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use web_service::serve::Stopped;
use web_service::workers::Pools;
use web_service::{App, Decoder, Failure, ImageOptions, Options, Urgency, database, serve};

pub(crate) use crate::client::{Answer, Client, PATIENCE, jpeg};

/// Awaits a future. Panics after `limit`.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> F::Output {
    let output = timeout(limit, future).await;
    output.unwrap_or_else(|_| panic!("it takes more than {limit:?}"))
}

/// The number of answers by status.
pub(crate) type Tally = BTreeMap<u16, u64>;

pub(crate) fn number(n: usize) -> NonZero<usize> {
    NonZero::new(n).expect("no test asks for 0")
}

pub(crate) fn new_database() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let path = dir.path().join("users.db");
    database::create(&path).expect("a database");
    (dir, path)
}

/// Limits that no job reaches unless its test fails, with the careful decoder.
pub(crate) fn image_options(processes: usize) -> ImageOptions {
    ImageOptions {
        processes: number(processes),
        time_limit: 2 * PATIENCE,
        memory_limit: 512 << 20,
        decoder: Decoder::Careful,
    }
}

/// The service, running in this process.
pub(crate) struct Server {
    pub(crate) app: App,
    pub(crate) address: SocketAddr,
    pub(crate) database: PathBuf,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Stopped>,
    _dir: TempDir,
}

impl Server {
    pub(crate) async fn start(workers: usize, queue: usize, drain: Duration) -> Self {
        Self::start_with(workers, queue, drain, image_options(2)).await
    }

    /// Starts a service whose jobs must start within a limit.
    pub(crate) async fn start_within(start_limit: Duration, images: ImageOptions) -> Self {
        Self::start_all(1, 8, start_limit, 2 * PATIENCE, images).await
    }

    pub(crate) async fn start_with(
        workers: usize,
        queue: usize,
        drain: Duration,
        images: ImageOptions,
    ) -> Self {
        Self::start_all(workers, queue, 2 * PATIENCE, drain, images).await
    }

    async fn start_all(
        workers: usize,
        queue: usize,
        start_limit: Duration,
        drain: Duration,
        images: ImageOptions,
    ) -> Self {
        let (dir, database) = new_database();
        let options = Options {
            workers: number(workers),
            connections: number(2),
            queue: number(queue),
            start_limit,
            database: database.clone(),
            images,
        };
        let app = within(PATIENCE, App::start(&options))
            .await
            .expect("the service starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopping) = oneshot::channel();
        let served = app.clone();
        let serving = tokio::spawn(async move {
            let stop = async { drop(stopping.await) };
            serve(listener, &served, stop, || sleep(drain)).await
        });
        Self {
            app,
            address,
            database,
            stop,
            serving,
            _dir: dir,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub(crate) fn cpu(&self) -> Metrics {
        let [(_, cpu), ..] = pools(&self.app).metrics();
        cpu
    }

    pub(crate) fn images(&self) -> Metrics {
        let [.., (_, images)] = pools(&self.app).metrics();
        images
    }

    /// Occupies a worker of `cpu` until the result is released.
    pub(crate) async fn occupy_worker(&self) -> OccupiedWorker {
        self.occupy_worker_with(Priority::Normal).await
    }

    pub(crate) async fn occupy_worker_with(&self, priority: Priority) -> OccupiedWorker {
        let before = self.cpu().running;
        let occupied = self.block_worker(priority);
        until("a worker is occupied", || self.cpu().running == before + 1).await;
        occupied
    }

    /// Queues a job that occupies a worker of `cpu` until the result is released.
    pub(crate) async fn queue_worker(&self) -> OccupiedWorker {
        let before = self.cpu().queued;
        let occupied = self.block_worker(Priority::Normal);
        until("the job is queued", || self.cpu().queued == before + 1).await;
        occupied
    }

    fn block_worker(&self, priority: Priority) -> OccupiedWorker {
        let (release, wait) = mpsc::channel::<()>();
        let urgency = Urgency {
            priority,
            ..urgency()
        };
        let job = self.app.workers.compute(urgency, move || {
            let _ = wait.recv();
            Ok(())
        });
        let job = tokio::spawn(job);
        OccupiedWorker { release, job }
    }

    /// Stops the service, and returns its counts.
    pub(crate) async fn stop(self) -> (App, Stopped) {
        drop(self.stop);
        let stopped = within(PATIENCE, self.serving).await;
        (self.app, stopped.expect("no panic"))
    }
}

pub(crate) struct OccupiedWorker {
    release: mpsc::Sender<()>,
    job: JoinHandle<Result<(), Failure>>,
}

impl OccupiedWorker {
    pub(crate) async fn release(self) {
        drop(self.release);
        let result = within(PATIENCE, self.job).await;
        result.expect("no panic").expect("it was accepted");
    }

    /// Drops the future of the result, as if the client had left. The job runs until the sender is
    /// dropped.
    pub(crate) async fn abandon(self) -> mpsc::Sender<()> {
        self.job.abort();
        let result = within(PATIENCE, self.job).await;
        result.expect_err("the job still runs");
        self.release
    }
}

pub(crate) fn pools(app: &App) -> &Pools {
    app.workers.pools().expect("the service has pools")
}

/// The urgency of a job of a test, which has no route.
pub(crate) fn urgency() -> Urgency {
    Urgency {
        label: "test",
        priority: Priority::Normal,
        deadline: Instant::now() + 2 * PATIENCE,
    }
}

/// Waits until a condition holds. Panics if it takes too long.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    if timeout(PATIENCE, wait).await.is_err() {
        panic!("timed out waiting until {what}");
    }
}

pub(crate) fn balanced(metrics: &Metrics) -> bool {
    let ended = metrics.completed + metrics.panicked + metrics.cancelled + metrics.failed;
    metrics.submitted == ended
}

pub(crate) fn sentence(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).expect("text")
}

/// Returns the hash in an answer of `/hash`: JSON without any escapes.
pub(crate) fn hash_in(answer: &Answer) -> &str {
    let text = sentence(answer);
    let hash = text.strip_prefix(r#"{"hash":""#);
    hash.and_then(|text| text.strip_suffix(r#""}"#))
        .unwrap_or_else(|| panic!("no hash: {text}"))
}

pub(crate) fn user_row(id: i64) -> String {
    format!(r#"{{"id":{id},"name":"User {id}","email":"user-{id}@example.org"}}"#)
}

/// Counts of the requests of some clients.
#[derive(Debug, Default)]
pub(crate) struct Visits {
    pub(crate) sent: u64,
    pub(crate) answers: Tally,
    /// Requests without an answer: the connection was closed or refused.
    pub(crate) closed: u64,
}

impl AddAssign for Visits {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.closed += other.closed;
        for (status, answers) in other.answers {
            *self.answers.entry(status).or_default() += answers;
        }
    }
}

/// Sends one request after the other, until one has no answer.
pub(crate) async fn visit_until_closed(client: Client, number: usize) -> Visits {
    let image = jpeg(320, 240);
    let mut visits = Visits::default();
    for turn in number.. {
        visits.sent += 1;
        let answer = match turn % 4 {
            0 => client.hash("under load").await,
            1 => client.thumbnail(&image).await,
            _ => client.get("/users/7").await,
        };
        let Ok(answer) = answer else {
            visits.closed += 1;
            break;
        };
        *visits.answers.entry(answer.status).or_default() += 1;
        if answer.status == 503 {
            sleep(Duration::from_millis(20)).await;
        }
    }
    visits
}

/// Sends the start of a request, and keeps the connection open.
pub(crate) fn request_without_end(server: SocketAddr) -> TcpStream {
    let head = "POST /hash HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n";
    let begun = format!("{head}content-length: 9\r\n\r\n{{");
    let mut connection = TcpStream::connect(server).expect("a connection");
    connection.write_all(begun.as_bytes()).expect("it is sent");
    connection
}
