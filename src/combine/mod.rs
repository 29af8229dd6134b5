//! Many handles at once.
//!
//! Each file is for itself; [`limit`] is what they have in common.

pub(crate) mod as_completed;
mod limit;
pub(crate) mod map;
pub(crate) mod wait;
