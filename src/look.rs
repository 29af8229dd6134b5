//! Looking a moment longer before a thread parks: what it waits for often comes within microseconds, and then nobody
//! has to be woken. Bounded, first spinning, then yielding the processor; whoever looks in vain parks.

use std::sync::OnceLock;
use std::thread;

use crossbeam_utils::Backoff;

use crate::sync::{AtomicBool, Ordering};

/// Looks for `found` until it is true or the moment is over; says which.
pub(crate) fn look(mut found: impl FnMut() -> bool) -> bool {
    if !worth_it() {
        return found();
    }
    let backoff = Backoff::new();
    loop {
        if found() {
            return true;
        }
        if backoff.is_completed() {
            return false;
        }
        backoff.snooze();
    }
}

/// Whether some joining thread of this process looks at present.
static JOINER_LOOKS: AtomicBool = AtomicBool::new(false);

/// As [`look`], for threads that join a handle: one at a time in the process, since a second one would take the
/// processor from those that both wait for.
pub(crate) fn look_as_joiner(mut found: impl FnMut() -> bool) -> bool {
    if JOINER_LOOKS.swap(true, Ordering::Acquire) {
        return found();
    }
    let seen = look(found);
    JOINER_LOOKS.store(false, Ordering::Release);
    seen
}

/// On one processor nothing can happen while we look.
fn worth_it() -> bool {
    static SEVERAL: OnceLock<bool> = OnceLock::new();
    *SEVERAL.get_or_init(|| thread::available_parallelism().is_ok_and(|n| n.get() > 1))
}
