//! A stand-in until the crate has it.
/// An error on its way.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct ErrorReport(pub(crate) String);
