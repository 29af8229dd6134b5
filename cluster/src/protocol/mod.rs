//! What submitters and workers say to each other. Nothing here knows an engine.
//!
//! - [`names`]: subjects and keys. [`settings`]: the times.
//! - [`job`], [`outcome`], [`claim`], [`notice`]: the messages. All of them are untrusted when read.
//! - [`live`]: which peers live, and when one may be called dead.
//! - [`server_clock`]: the server's time, as far as it can be known here.

pub(crate) mod claim;
pub(crate) mod job;
pub(crate) mod live;
pub(crate) mod names;
pub(crate) mod notice;
pub(crate) mod outcome;
pub(crate) mod server_clock;
pub(crate) mod settings;

/// The largest arguments and the largest output, encoded.
pub(crate) const MAX_PAYLOAD: usize = 64 << 20;

/// From this size on, arguments and outputs travel as blobs.
pub(crate) const BLOB_FROM: usize = 512 << 10;
