//! Stand-ins for constructors of [`JoinError`] that `error.rs` does not have yet.
