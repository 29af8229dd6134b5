//! Many handles at once.
//!
//! Each file is for itself.

pub(crate) mod as_completed;
pub(crate) mod map;
pub(crate) mod wait;
