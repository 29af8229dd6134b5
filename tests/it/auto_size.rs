//! Pools that find the number of their workers.
