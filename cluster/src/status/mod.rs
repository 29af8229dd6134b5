//! What operators see: a command for the terminal and a page for the browser.
//!
//! ```text
//!   Broker ──► observer ──► Snapshot ──► terminal: tables      prometheus: /metrics
//!                                    └─► page: /, /status.json (JSON is escaped by the page)
//! ```
//!
//! Everything that comes from the cluster is untrusted: it is cut in the observer and escaped
//! where it is shown.

#[cfg(test)]
mod browser_tests;
mod cli;
pub(crate) mod observer;
pub(crate) mod page;
pub(crate) mod prometheus;
#[cfg(test)]
pub(crate) mod samples;
pub(crate) mod snapshot;
pub(crate) mod terminal;
pub(crate) mod text;
#[cfg(test)]
mod webdriver;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::rc::Rc;

use futures::future::{Either, select};

use self::observer::Observer;
use self::page::{Page, Source};
use crate::broker::Broker;

/// Answers on a page for ever, with what an observer sees over this connection.
///
/// A worker serves the page with this future beside its own. `server` is what the page shows of the
/// broker's place: without secrets.
pub(crate) async fn serve<B: Broker>(
    page: Page,
    broker: B,
    namespace: &str,
    server: &str,
    identity: Option<&str>,
) -> io::Result<Infallible> {
    let observer = Rc::new(Observer::new(broker, namespace, server, identity));
    let source = Rc::clone(&observer) as Rc<dyn Source>;
    match select(pin!(observer.run()), pin!(page.serve(source))).await {
        Either::Left((never, _)) => match never {},
        Either::Right((result, _)) => result,
    }
}

/// Runs the command `futurepool-cluster` with the arguments of this process.
#[doc(hidden)]
#[must_use]
pub fn main() -> std::process::ExitCode {
    cli::main()
}
