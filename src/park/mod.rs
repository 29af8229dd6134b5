//! Threads that wait.
//!
//! ```text
//!   join, block_on, scope ──► parker ──► pool: a worker blocks, or is awake again
//!        │         │
//!        ▼         ▼
//!   wait_graph   helping: which job a blocked worker may run
//! ```
//!
//! The arrow from `parker` to the pool points upwards, and on purpose: a worker that blocks may be
//! the last one that could run what is queued, and only its pool can tell (`pool/blocked.rs`).

pub(crate) mod block_on;
pub(crate) mod helping;
pub(crate) mod parker;
pub(crate) mod wait_graph;
