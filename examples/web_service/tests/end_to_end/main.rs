//! Tests the service over loopback, with a real HTTP client. One binary, because linking is slow.
//!
//! `cargo test -- --nocapture` shows how many requests were answered, rejected and cancelled.

#[cfg(unix)]
mod binary;
mod client;
mod common;
mod metrics;
mod service;
mod shutdown;
