//! Faults that can be injected, to see that the models catch them: an ordering weakened, a check or
//! a wake-up left out.
//!
//! A fault stands in the code as `fault!("name")`, beside the line that it breaks, so a refactoring
//! carries it along. It is the constant `false` unless the crate is compiled with `--cfg fault`; then
//! the environment variable `FUTUREPOOL_FAULT` names the one that is injected. `.ci/faults` runs the
//! models once for each.

/// Returns whether the fault of that name is injected.
#[cfg(not(fault))]
macro_rules! fault {
    ($name:literal) => {
        false
    };
}

#[cfg(fault)]
macro_rules! fault {
    ($name:literal) => {
        $crate::util::fault::is_injected($name)
    };
}

pub(crate) use fault;

#[cfg(fault)]
pub(crate) fn is_injected(name: &str) -> bool {
    static INJECTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let injected = INJECTED.get_or_init(|| std::env::var("FUTUREPOOL_FAULT").ok());
    injected.as_deref() == Some(name)
}
