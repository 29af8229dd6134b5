//! Faults that can be injected, to see that the models catch them: an ordering weakened, a check or
//! a wake-up left out.
//!
//! A fault stands in the code next to the expression that it breaks ([`fault_or`]), so a refactoring
//! moves both. It is compiled only with `--cfg fault`; then the environment variable
//! `FUTUREPOOL_FAULT` names the one that is injected. `.ci/faults` runs the
//! models once for each.

/// `fault_or!("name": broken; real)` is `real`, or `broken` while the fault of that name is injected.
/// There may be several faults, separated by commas.
#[cfg(not(fault))]
macro_rules! fault_or {
    ($($name:literal: $broken:expr),+; $real:expr) => {
        $real
    };
}

#[cfg(fault)]
macro_rules! fault_or {
    ($($name:literal: $broken:expr),+; $real:expr) => {
        match () {
            $(() if $crate::util::fault::is_injected($name) => $broken,)+
            () => $real,
        }
    };
}

pub(crate) use fault_or;

#[cfg(fault)]
pub(crate) fn is_injected(name: &str) -> bool {
    static INJECTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let injected = INJECTED.get_or_init(|| std::env::var("FUTUREPOOL_FAULT").ok());
    injected.as_deref() == Some(name)
}
