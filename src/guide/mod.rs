//! Guides: coming [from Python](from_python), coming [from tokio](from_tokio), a
//! [cookbook], [running it in production](production), and [how it works](how_it_works).
#![cfg_attr(
    feature = "process",
    doc = "[Threads or processes](threads_or_processes) is about worker processes."
)]
//!
//! This module contains documentation only. Start with the [front page](crate).

pub mod cookbook;
#[doc(alias = "concurrent.futures")]
pub mod from_python;
pub mod from_tokio;
pub mod how_it_works;
pub mod production;
#[cfg(feature = "process")]
pub mod threads_or_processes;
