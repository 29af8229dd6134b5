//! The parts of the program that is described in `main.rs`.
//!
//! ```text
//!  arguments ──► parent ──► child (one process a workload) ──► workloads ──► peers
//!                  │   ◄── result, a JSON line each ──┘
//!                  └──► targets, table, chart
//! ```

pub mod arguments;
pub mod chart;
pub mod child;
pub mod contest;
pub mod floor;
pub mod machine;
pub mod parent;
pub mod peers;
pub mod result;
pub mod table;
pub mod targets;
pub mod workloads;
