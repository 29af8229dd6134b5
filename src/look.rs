//! Looking a moment longer before a thread parks: what it waits for often comes within microseconds, and then nobody
//! has to be woken. Bounded; whoever looks in vain parks.

use std::hint;
use std::thread;

use crate::sync::{AtomicBool, Ordering};

/// The first looks follow each other at once.
const SPINS: u32 = 4;

/// Then it gives the processor to whoever wants it, which is often the one who brings what it waits for, before each
/// look. (To spin for long is worth nothing if that one has no other processor.)
const YIELDS: u32 = 32;

/// Looks for `found` until it is true or the moment is over; says which.
pub(crate) fn look(mut found: impl FnMut() -> bool) -> bool {
    for round in 0..SPINS + YIELDS {
        if found() {
            return true;
        }
        match round < SPINS {
            true => hint::spin_loop(),
            false => thread::yield_now(),
        }
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
