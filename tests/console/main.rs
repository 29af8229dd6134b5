//! The console: its figures, the access to it, what it costs, and its page in a real browser.

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
#[path = "../common/mod.rs"]
mod common;

mod access;
mod browser;
mod client;
mod cost;
mod figures;
#[cfg(unix)]
#[path = "../common/forking.rs"]
mod forking;
#[cfg(all(unix, feature = "process"))]
mod processes;
mod top;
mod webdriver;

#[cfg(all(unix, feature = "process"))]
futurepool::process::test_init!();
