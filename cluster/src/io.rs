//! The I/O thread of a cluster or of a worker: one thread with a runtime of its own.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;

use crate::broker::memory::Memory;
use crate::broker::nats::Nats;
use crate::error::ConnectError;
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

/// Connects to the broker.
pub(crate) async fn connect(
    server: &Server,
    namespace: &str,
    name: &str,
) -> Result<AnyBroker, ConnectError> {
    match &server.place {
        Place::Memory(broker) => Ok(AnyBroker::Memory(broker.connect(namespace))),
        Place::Nats => {
            let mut options = server.options.clone();
            options.namespace = namespace.to_owned();
            options.name = Some(name.to_owned());
            let nats = Nats::connect(&options).await?;
            Ok(AnyBroker::Nats(Box::new(nats)))
        }
    }
}
