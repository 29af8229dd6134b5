//! The modules of the benchmark program, which `main.rs` describes.
//!
//! ```text
//!  arguments ──► run ──► participants ──► ours   ──► burst ──► server ──► child
//!                 │                  ├──► floor  ──► burst
//!                 │                  └──► python ──► child
//!                 └──► rows, result, goals, report
//! ```

pub mod arguments;
mod burst;
mod child;
pub mod floor;
mod goals;
mod machine;
pub mod ours;
mod participants;
pub mod python;
mod report;
mod result;
mod rows;
pub mod run;
mod server;
pub mod tasks;
