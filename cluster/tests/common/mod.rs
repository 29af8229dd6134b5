//! Real servers for tests, and a network that can be cut.
//!
//! Everything ends when its owner is dropped, also when a test panics.

#![allow(dead_code, reason = "each test binary uses its own part")]

mod group;
mod proxy;
mod server;
mod tls;

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use self::{
    group::TestGroup,
    proxy::Proxy,
    server::{TestServer, free_port, non_loopback_address},
    tls::Certificates,
};
