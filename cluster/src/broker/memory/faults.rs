//! Faults of the network and of the server, from a seed.

use tokio::time::Instant;

use super::Shared;
use super::space::{Arrivals, Kind, Space, Wakes};
use crate::broker::BrokerError;

#[derive(Debug, Clone)]
pub(crate) struct Faults;

impl Faults {
    pub(super) fn arrivals(&self, now: Instant, _: Kind) -> Arrivals {
        [Some(now), None]
    }

    pub(super) async fn call<T, F>(
        &self,
        shared: &std::sync::Arc<Shared>,
        operation: F,
    ) -> Result<T, BrokerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Space, Instant, &mut Wakes) -> T + Send + 'static,
    {
        Ok(shared.apply(operation))
    }
}
