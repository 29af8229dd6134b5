//! The I/O thread of a cluster or of a worker: one thread with a runtime of its own.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use crate::broker::memory::Memory;
use crate::broker::nats::Nats;
use crate::broker::{Broker, BrokerError};
use crate::error::ConnectError;
use crate::namespace::Namespace;
use crate::protocol::settings::Settings;
use crate::server::{Place, Server};

/// Runs a future on a new thread. No user code runs there.
pub(crate) fn spawn<F, Fut>(name: &str, future: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(move || {
        runtime.block_on(future());
        // The look-up of a name may block for long, and nothing waits for it.
        runtime.shutdown_background();
    })
}

/// A connection to whichever broker a [`Server`] names.
#[derive(Debug)]
pub(crate) enum AnyBroker {
    Memory(Memory),
    Nats(Box<Nats>),
}

/// Connects to the broker, makes the stores that are missing, and returns the settings of the
/// namespace.
pub(crate) async fn connect(
    server: &Server,
    namespace: &Namespace,
    name: &str,
) -> Result<(AnyBroker, Settings), ConnectError> {
    let (within, wanted) = (server.options.connect_timeout, &namespace.settings);
    match &server.place {
        Place::Memory(broker) => {
            let broker = broker.connect(&namespace.name);
            let settings = ensure_stores(&broker, wanted, within).await?;
            Ok((AnyBroker::Memory(broker), settings))
        }
        Place::Nats => {
            let mut options = server.options.clone();
            options.namespace.clone_from(&namespace.name);
            options.name = Some(name.to_owned());
            let broker = Nats::connect(&options).await?;
            let settings = ensure_stores(&broker, wanted, within).await?;
            Ok((AnyBroker::Nats(Box::new(broker)), settings))
        }
    }
}

/// How long a server that has not answered is left alone.
const PAUSE: Duration = Duration::from_millis(200);

/// Makes the stores that are missing. A server that has just started may leave a request
/// unanswered, so this is tried again while the first connection may take its time.
async fn ensure_stores<B: Broker>(
    broker: &B,
    wanted: &Settings,
    within: Duration,
) -> Result<Settings, BrokerError> {
    let start = Instant::now();
    loop {
        match broker.ensure_stores(wanted, true).await {
            Err(BrokerError::Unreachable(_)) if start.elapsed() < within => sleep(PAUSE).await,
            result => return result,
        }
    }
}
