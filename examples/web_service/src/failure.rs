//! The errors of requests, as HTTP answers.

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use futurepool::{JoinError, SubmitError};

use crate::log;

#[derive(Debug)]
pub enum Failure {
    /// The request is invalid. Holds the status and the reason.
    Request(StatusCode, String),
    /// The queue is full, or the system cannot start a thread.
    Busy,
    /// The service is shutting down: the job was cancelled or rejected.
    Stopping,
    /// An internal error. Its message goes to the log only.
    Internal(String),
}

impl<F> From<SubmitError<F>> for Failure {
    fn from(error: SubmitError<F>) -> Self {
        if error.is_full() {
            Self::Busy
        } else if error.is_shutdown() {
            Self::Stopping
        } else {
            Self::Internal(error.to_string())
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        if error.is_cancelled() || error.is_shutdown() {
            Self::Stopping
        } else if error.is_spawn_failed() {
            Self::Busy
        } else {
            // A panic, or an initializer that failed.
            Self::Internal(error.to_string())
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let later = [(RETRY_AFTER, "1")];
        match self {
            Self::Request(status, problem) => (status, problem + "\n").into_response(),
            Self::Busy => {
                let sentence = "The service is busy: try again later.\n";
                (StatusCode::SERVICE_UNAVAILABLE, later, sentence).into_response()
            }
            Self::Stopping => {
                let sentence = "The service is stopping: try again later.\n";
                (StatusCode::SERVICE_UNAVAILABLE, later, sentence).into_response()
            }
            Self::Internal(problem) => {
                log(problem);
                let sentence = "The service is at fault; its log says why.\n";
                (StatusCode::INTERNAL_SERVER_ERROR, sentence).into_response()
            }
        }
    }
}
