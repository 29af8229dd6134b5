//! Keeps the methods of public traits callable in this crate alone.

/// An argument of methods that only this crate can call or override: no other crate can name the
/// type, or get a value of it.
#[derive(Debug, Clone, Copy)]
pub struct Private(());

pub(crate) const PRIVATE: Private = Private(());
