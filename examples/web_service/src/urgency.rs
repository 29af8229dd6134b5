//! What a handler tells a pool about its job: its label, its priority and its deadline.

use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use futurepool::Priority;

use crate::{App, Failure};

/// The header that states how long the client waits for the answer, in milliseconds.
///
/// Envoy sets it in the requests that it forwards. Any other client can send it, too.
pub const TIMEOUT_HEADER: &str = "x-envoy-expected-rq-timeout-ms";

/// Label, priority and deadline of a job.
#[derive(Debug, Clone, Copy)]
pub struct Urgency {
    /// The route, for the metrics and the log.
    pub label: &'static str,
    pub priority: Priority,
    /// A job that has not started by then never runs.
    pub deadline: Instant,
}

/// The moment by which the job of a request must start.
///
/// It is the [`start limit`](crate::Options::start_limit) of the service, or earlier if the client
/// states that it waits less. A quarter of the client's time is left for the job and for the way
/// back: an answer after the client's timeout is not read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn high(self, label: &'static str) -> Urgency {
        self.urgency(label, Priority::High)
    }

    pub(crate) fn normal(self, label: &'static str) -> Urgency {
        self.urgency(label, Priority::Normal)
    }

    pub(crate) fn low(self, label: &'static str) -> Urgency {
        self.urgency(label, Priority::Low)
    }

    fn urgency(self, label: &'static str, priority: Priority) -> Urgency {
        Urgency {
            label,
            priority,
            deadline: self.0,
        }
    }
}

impl FromRequestParts<App> for Deadline {
    type Rejection = Failure;

    async fn from_request_parts(request: &mut Parts, app: &App) -> Result<Self, Failure> {
        // The extractor runs before the body is read, so the time of the body counts.
        let now = Instant::now();
        let Some(value) = request.headers.get(TIMEOUT_HEADER) else {
            return Ok(Self(now + app.start_limit));
        };
        let milliseconds = value.to_str().ok().and_then(|text| text.parse().ok());
        let stated = milliseconds.map(Duration::from_millis).ok_or_else(|| {
            let sentence = format!("{TIMEOUT_HEADER} is not a number of milliseconds.");
            Failure::Request(StatusCode::BAD_REQUEST, sentence)
        })?;
        Ok(Self(now + (stated / 4 * 3).min(app.start_limit)))
    }
}
