//! The floor: a message to another process and one back, over two work queues of JetStream.
//!
//! ```text
//!  this process ──publish──► FLOOR_JOBS ──deliver──► the other end
//!               ◄─deliver─── FLOOR_RES  ◄──publish──
//! ```
//!
//! Both queues are files. Each delivery is acknowledged, so that its message leaves the queue. Nothing
//! waits for a confirmation. There is no claim, no lease, no encoding, and only one thread.

use std::convert::Infallible;
use std::env;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, AckKind, consumer::pull, stream};
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::runtime::{self, Runtime};

use crate::burst::Meter;
use crate::child::Guarded;
use crate::participants::{Environment, Scale, Session, p50_and_p99};
use crate::result::Sample;
use crate::rows::Row;
use crate::server::Server;

/// The argument with which this program becomes the other end.
pub const ECHO: &str = "--echo";

const JOBS: &str = "FLOOR_JOBS";
const RESULTS: &str = "FLOOR_RES";
const LIMIT: Duration = Duration::from_secs(60);

type Error = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Floor {
    near: End,
    runtime: Runtime,
    far: Guarded,
    server: Server,
}

/// One end: it receives from one queue and publishes to the other one.
struct End {
    context: jetstream::Context,
    incoming: pull::Stream,
    outgoing: &'static str,
}

impl Floor {
    pub(crate) fn start(environment: &Environment) -> Result<Self, String> {
        let server = Server::start(&environment.nats)?;
        let runtime = new_runtime();
        let connect = End::connect(server.url(), RESULTS, JOBS);
        let near = within(&runtime, LIMIT, connect)?;
        let own = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command.args([ECHO, &server.url()]).stdin(Stdio::null());
        let far = Guarded::spawn(&mut command)?;
        let mut floor = Self {
            near,
            runtime,
            far,
            server,
        };
        floor.exchange(|end| Box::pin(end.burst(200)))?;
        floor.exchange(|end| Box::pin(end.trips(50)))?;
        Ok(floor)
    }

    fn meter(&self) -> Result<Meter, String> {
        Meter::read(&self.server, &[self.far.pid()])
    }

    fn exchange<T>(
        &mut self,
        run: impl FnOnce(&mut End) -> BoxFuture<'_, Result<T, Error>>,
    ) -> Result<T, String> {
        let exchange = run(&mut self.near);
        within(&self.runtime, LIMIT, exchange)
    }
}

impl Session for Floor {
    fn measure(&mut self, row: Row, scale: Scale) -> Result<Sample, String> {
        match row {
            Row::Trip => {
                let count = scale.of(1_000);
                let trips = self.exchange(move |end| Box::pin(end.trips(count)))?;
                Ok(p50_and_p99(trips))
            }
            Row::Burst => {
                let count = scale.of(10_000);
                let before = self.meter()?;
                let elapsed = self.exchange(move |end| Box::pin(end.burst(count)))?;
                Ok(before.sample(&self.meter()?, elapsed, count))
            }
            _ => Err("the floor has no such row".to_owned()),
        }
    }
}

impl End {
    async fn connect(
        url: String,
        from: &'static str,
        outgoing: &'static str,
    ) -> Result<Self, Error> {
        let client = async_nats::connect(url).await?;
        let context = jetstream::new(client);
        // Both ends make both queues: either may come first.
        context.get_or_create_stream(queue(outgoing)).await?;
        let stream = context.get_or_create_stream(queue(from)).await?;
        let config = pull::Config {
            durable_name: Some("floor".to_owned()),
            max_ack_pending: -1,
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer("floor", config).await?;
        let incoming = consumer.messages().await?;
        Ok(Self {
            context,
            incoming,
            outgoing,
        })
    }

    async fn publish(&self) -> Result<(), Error> {
        // The answer of the server is not awaited.
        let _unconfirmed = self.context.publish(self.outgoing, "".into()).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<jetstream::Message, Error> {
        let message = self.incoming.next().await.ok_or("no more deliveries")?;
        Ok(message?)
    }

    async fn trips(&mut self, count: u64) -> Result<Vec<Duration>, Error> {
        let mut times = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            self.publish().await?;
            let message = self.receive().await?;
            times.push(start.elapsed());
            message.ack_with(AckKind::Ack).await?;
        }
        Ok(times)
    }

    async fn burst(&mut self, count: u64) -> Result<Duration, Error> {
        let start = Instant::now();
        let mut received = 0;
        for sent in 1..=count {
            self.publish().await?;
            // The server must not have to hold more than this for a consumer that does not read.
            while received + 1_000 < sent {
                self.receive().await?.ack().await?;
                received += 1;
            }
        }
        for _ in received..count {
            self.receive().await?.ack().await?;
        }
        Ok(start.elapsed())
    }
}

fn queue(name: &str) -> stream::Config {
    stream::Config {
        name: name.to_owned(),
        subjects: vec![name.to_owned()],
        retention: stream::RetentionPolicy::WorkQueue,
        storage: stream::StorageType::File,
        ..stream::Config::default()
    }
}

/// The other end: answers each message, until this process is killed.
pub fn echo(url: &str) -> Result<(), String> {
    let answers = answer_all(url.to_owned());
    let Err(error) = new_runtime().block_on(answers);
    Err(error.to_string())
}

async fn answer_all(url: String) -> Result<Infallible, Error> {
    let mut end = End::connect(url, JOBS, RESULTS).await?;
    loop {
        let message = end.receive().await?;
        end.publish().await?;
        message.ack().await?;
    }
}

fn new_runtime() -> Runtime {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime starts")
}

fn within<T>(
    runtime: &Runtime,
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, String> {
    let limited = runtime.block_on(async { tokio::time::timeout(limit, work).await });
    match limited {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("not within {} s", limit.as_secs())),
    }
}
