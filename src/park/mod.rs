//! Threads that wait.

pub(crate) mod block_on;
pub(crate) mod helping;
pub(crate) mod parker;
pub(crate) mod wait_graph;
