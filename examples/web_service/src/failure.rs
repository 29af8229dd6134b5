//! The errors of requests, as HTTP answers.

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use futurepool::{JoinError, SubmitError};

use crate::images::ImageProblem;
use crate::log;

#[derive(Debug)]
pub enum Failure {
    /// The request is invalid. Holds the status and the reason.
    Request(StatusCode, String),
    /// The queue is full, or the system cannot start a thread.
    Busy,
    /// The job did not start by its deadline.
    Expired,
    /// The service is shutting down: the job was cancelled or rejected.
    Stopping,
    /// The job's process was killed, because it exceeded the memory limit. The message goes to the
    /// log.
    TooLarge(String),
    /// The job's process was killed, because it exceeded the time limit. The message goes to the
    /// log.
    TooSlow(String),
    /// The job's process crashed. The message goes to the log.
    Crashed(String),
    /// An internal error. Its message goes to the log only.
    Internal(String),
}

impl<F> From<SubmitError<F>> for Failure {
    fn from(error: SubmitError<F>) -> Self {
        if error.is_full() {
            Self::Busy
        } else if error.is_expired() {
            // Reading the body took too long, or the client states a timeout of 0.
            Self::Expired
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
        } else if error.is_expired() {
            Self::Expired
        } else if error.is_spawn_failed() {
            // The client can only try again. But the operator can do something.
            log(error);
            Self::Busy
        } else if error.is_memory_limit() {
            Self::TooLarge(error.to_string())
        } else if error.is_time_limit() {
            Self::TooSlow(error.to_string())
        } else if error.is_crashed() {
            Self::Crashed(error.to_string())
        } else {
            // A panic, an initializer that failed, or processes that cannot be started.
            Self::Internal(error.to_string())
        }
    }
}

impl From<ImageProblem> for Failure {
    fn from(problem: ImageProblem) -> Self {
        match problem {
            ImageProblem::TooLarge => {
                let sentence = "The image is too large to decode.".to_owned();
                Self::Request(StatusCode::PAYLOAD_TOO_LARGE, sentence)
            }
            ImageProblem::Unreadable(problem) => {
                let sentence = format!("No image can be read from this: {problem}.");
                Self::Request(StatusCode::UNPROCESSABLE_ENTITY, sentence)
            }
            ImageProblem::Encoder(problem) => Self::Internal(format!("the thumbnail: {problem}")),
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
            Self::Expired => {
                // Not 504: nothing was begun, so the same request may succeed later. Clients and
                // load balancers know what to do about 503. And an operator reads it as overload,
                // and 504 as work that is too slow.
                let sentence = "The service is too busy to begin in time: try again later.\n";
                (StatusCode::SERVICE_UNAVAILABLE, later, sentence).into_response()
            }
            Self::Stopping => {
                let sentence = "The service is stopping: try again later.\n";
                (StatusCode::SERVICE_UNAVAILABLE, later, sentence).into_response()
            }
            Self::TooLarge(problem) => {
                log(problem);
                let sentence = "The image takes too much memory to decode.\n";
                (StatusCode::PAYLOAD_TOO_LARGE, sentence).into_response()
            }
            Self::TooSlow(problem) => {
                log(problem);
                // Without `Retry-After`: the same image would take as long again.
                let sentence = "The image takes too long to decode.\n";
                (StatusCode::GATEWAY_TIMEOUT, sentence).into_response()
            }
            Self::Crashed(problem) => {
                log(problem);
                let sentence = "The decoder crashed on this image; the service's log says how.\n";
                (StatusCode::INTERNAL_SERVER_ERROR, sentence).into_response()
            }
            Self::Internal(problem) => {
                log(problem);
                let sentence = "The service is at fault; its log says why.\n";
                (StatusCode::INTERNAL_SERVER_ERROR, sentence).into_response()
            }
        }
    }
}
