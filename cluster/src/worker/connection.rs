//! What happens after each reconnect.

use std::rc::Rc;

use super::core::{Backoff, Shared};
use super::{Failure, lease, living};
use crate::broker::{Broker, BrokerError};

/// After each reconnect: makes stores that are missing and writes the own key. Then the pulls go on.
///
/// The key comes first, so that no peer judges a worker that has jobs by its absence.
pub(super) async fn keep<B: Broker>(shared: Rc<Shared<B>>) {
    let mut connection = shared.connection();
    loop {
        let now = connection.borrow_and_update().clone();
        if now.connected && *shared.ready.borrow() != Some(now.generation) {
            // The server may be another one, with another clock and another watch.
            shared.clock.borrow_mut().reset();
            shared.live.borrow_mut().on_break();
            // Some time may have passed. Leases are short.
            lease::extend_all(&shared).await;
            if prepare(&shared, now.generation).await {
                shared.ready.send_replace(Some(now.generation));
            }
            continue;
        }
        if connection.changed().await.is_err() {
            // The broker is closed. The worker ends elsewhere.
            std::future::pending::<()>().await;
        }
    }
}

/// Returns `false` if the connection broke meanwhile.
async fn prepare<B: Broker>(shared: &Shared<B>, generation: u64) -> bool {
    let settings = &shared.options.settings;
    let mut backoff = Backoff::default();
    loop {
        if shared.generation() != generation {
            return false;
        }
        let result = match shared.broker.ensure_stores(settings, true).await {
            // Only an administrator makes stores, and has done so.
            Ok(_) | Err(BrokerError::Refused(_)) => living::put_key(shared).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => return true,
            Err(BrokerError::Refused(text)) if shared.ready.borrow().is_none() => {
                shared.fail(Failure::Refused(text));
                return false;
            }
            Err(error) => {
                let what = "write its own key";
                shared.after_error(what, &error, &mut backoff).await;
            }
        }
    }
}
