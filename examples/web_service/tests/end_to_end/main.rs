//! The service over loopback, with a real HTTP client. One program, since it is the linking that takes the time.
//!
//! `cargo test -- --nocapture` shows what was answered, refused and cancelled.

#[cfg(unix)]
mod binary;
mod client;
mod common;
mod metrics;
mod service;
mod shutdown;
