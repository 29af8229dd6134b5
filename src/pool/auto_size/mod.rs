//! Pools that find the number of their workers: see
//! [`ThreadPoolBuilder::auto_size`](crate::ThreadPoolBuilder::auto_size).
//!
//! ```text
//!   worker ─► Gauge ─┐ (CPU time and wall time of its jobs)
//!   worker ─► Gauge ─┼─► Meter ─► Sample ─► Sizer ─► Change ─► the registry's limit
//!   timer, twice a second ─┘
//! ```

#[cfg(all(test, not(loom)))]
mod simulation;
mod sizer;

use std::fmt;

/// Why a pool has the number of workers that it has: see [`AutoSize`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AutoSizeReason {
    /// The pool starts with the number of processors, within the bounds.
    #[default]
    Start,
    /// The jobs wait and leave processors free, so the pool grew.
    JobsWait,
    /// More workers did no more work, so the growth was taken back.
    NoGain,
    /// The processors are busy, so the pool shrank.
    Saturated,
    /// More workers had done no more work, or the load has changed: so the pool tries fewer.
    Surplus,
    /// Fewer workers did less work, so the shrinking was taken back.
    Loss,
}

impl fmt::Display for AutoSizeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "as many workers as processors",
            Self::JobsWait => "the jobs wait and leave processors free",
            Self::NoGain => "more workers did no more work",
            Self::Saturated => "the processors are busy",
            Self::Surplus => "fewer workers may do as much work",
            Self::Loss => "fewer workers did less work",
        })
    }
}
