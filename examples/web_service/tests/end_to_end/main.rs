//! Tests the service over loopback, with a real HTTP client. One binary, because linking is slow.
//!
//! `cargo test -- --nocapture` shows how many requests were answered, rejected and cancelled.

#[cfg(unix)]
mod binary;
mod client;
mod common;
#[cfg(unix)]
mod images;
mod metrics;
mod service;
mod shutdown;
mod urgency;

// The processes that make thumbnails are this program, too.
futurepool::process::test_init!();
