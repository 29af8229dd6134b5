//! Counts requests, and how they ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

#[derive(Debug, Default)]
pub struct Counts(Mutex<Totals>);

/// Totals since the start. A request is in flight until it is answered or abandoned.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub requests: u64,
    /// Answers by status.
    pub answers: BTreeMap<u16, u64>,
    /// Requests whose client disconnected before the answer.
    pub abandoned: u64,
}

impl Totals {
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    pub fn in_flight(&self) -> u64 {
        self.requests - self.answered() - self.abandoned
    }
}

impl Counts {
    pub fn totals(&self) -> Totals {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) async fn count(
    State(counts): State<Arc<Counts>>,
    request: Request,
    next: Next,
) -> Response {
    let in_flight = InFlight::new(counts);
    let response = next.run(request).await;
    in_flight.answered(response.status().as_u16());
    response
}

/// A request without an answer. Dropping it counts the request as abandoned: a handler is dropped
/// when its client disconnects.
struct InFlight {
    counts: Arc<Counts>,
    answer: Option<u16>,
}

impl InFlight {
    fn new(counts: Arc<Counts>) -> Self {
        counts.lock().requests += 1;
        let answer = None;
        Self { counts, answer }
    }

    fn answered(mut self, status: u16) {
        self.answer = Some(status);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut totals = self.counts.lock();
        match self.answer {
            Some(status) => *totals.answers.entry(status).or_default() += 1,
            None => totals.abandoned += 1,
        }
    }
}
