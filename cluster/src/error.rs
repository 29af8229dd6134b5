//! The errors of connecting and of running a worker.

use std::error::Error;
use std::fmt;
use std::io;

use crate::broker::BrokerError;

/// The error returned when a connection to a cluster cannot be made, or an option is invalid.
///
/// `Display` says what is wrong and how to fix it. It contains no password.
///
/// # Examples
///
/// ```
/// use futurepool_cluster::{Cluster, MemoryBroker};
///
/// let error = Cluster::connect(MemoryBroker::new()).window(0).build().unwrap_err();
/// assert!(error.is_invalid_option());
/// assert_eq!(error.to_string(), "invalid `window`: it must be at least 1");
/// ```
#[derive(Debug)]
pub struct ConnectError(Kind);

#[derive(Debug)]
enum Kind {
    Invalid {
        option: &'static str,
        problem: String,
    },
    Broker(BrokerError),
    Thread(io::Error),
}

impl ConnectError {
    pub(crate) fn invalid(option: &'static str, problem: impl Into<String>) -> Self {
        Self(Kind::Invalid {
            option,
            problem: problem.into(),
        })
    }

    pub(crate) fn thread(error: io::Error) -> Self {
        Self(Kind::Thread(error))
    }

    /// Returns `true` if an option has a value that it must not have.
    #[must_use]
    pub fn is_invalid_option(&self) -> bool {
        matches!(self.0, Kind::Invalid { .. })
    }

    /// Returns `true` if no server could be reached in time. Trying again later makes sense.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self.0, Kind::Broker(BrokerError::Unreachable(_)))
    }

    /// Returns `true` if the server was reached and refused: a login, a permission, its version, or
    /// streams that do not fit.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(
            self.0,
            Kind::Broker(BrokerError::Refused(_) | BrokerError::Missing(_))
        )
    }
}

impl From<BrokerError> for ConnectError {
    fn from(error: BrokerError) -> Self {
        Self(Kind::Broker(error))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Invalid { option, problem } => write!(f, "invalid `{option}`: {problem}"),
            Kind::Broker(error) => error.fmt(f),
            Kind::Thread(error) => write!(f, "failed to start a thread: {error}"),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Kind::Thread(error) => Some(error),
            Kind::Invalid { .. } | Kind::Broker(_) => None,
        }
    }
}

/// The error returned when a worker ends without having been asked to.
///
/// What it held was given back, so that other workers run it.
#[derive(Debug)]
pub struct WorkerError(pub(crate) String);

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for WorkerError {}
