//! The modules of the benchmark program, which `main.rs` describes.
//!
//! ```text
//!  program
//!     ▼
//!  arguments ──► parent ──► child (one process per workload) ──► workloads ──► peers
//!                  │   ◄── result, one JSON line each ──┘
//!                  └──► targets, table, chart
//! ```

pub mod arguments;
pub mod chart;
pub mod child;
pub mod floor;
pub mod machine;
pub mod parent;
pub mod participant;
pub mod peers;
pub mod placement;
#[cfg(feature = "processes")]
pub mod processes;
pub mod program;
pub mod result;
pub mod runtime;
pub mod table;
pub mod targets;
pub mod work;
pub mod workloads;
