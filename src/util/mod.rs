//! What the rest is built on.

pub(crate) mod fault;
pub(crate) mod id_map;
pub(crate) mod sealed;
pub(crate) mod spin;
pub(crate) mod sync;
pub(crate) mod timer;
pub(crate) mod unwind;
