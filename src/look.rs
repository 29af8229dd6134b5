//! Looking a moment longer before a thread parks: what it waits for often comes within a microsecond or two, and then
//! nobody has to be woken. Bounded; whoever looks in vain parks.
//!
//! It never yields the processor meanwhile. On a machine that has more to do than processors a thread that yields is
//! put behind the others, also when it is woken the next time, and waits for milliseconds; one that parks is not.

use std::hint;

use crate::sync::{AtomicBool, Ordering};

/// How often is looked: some 1.5 µs.
const LOOKS: u32 = 64;

/// Looks for `found` until it is true or the moment is over; says which.
pub(crate) fn look(mut found: impl FnMut() -> bool) -> bool {
    for _ in 0..LOOKS {
        if found() {
            return true;
        }
        hint::spin_loop();
    }
    found()
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
