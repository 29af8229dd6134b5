//! Pages to read, beside the reference: coming [from Python](from_python), coming [from tokio](from_tokio), and
//! [how it works](how_it_works).
//!
//! There is nothing to be used in here. The [front page](crate) is the place to begin.

#[doc(alias = "concurrent.futures")]
pub mod from_python;
pub mod from_tokio;
pub mod how_it_works;
