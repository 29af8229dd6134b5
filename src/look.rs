//! Looking a moment longer before a thread parks: what it waits for often comes within microseconds, and then nobody
//! has to be woken. Bounded; whoever looks in vain parks.
//!
//! Between looks a thread gives the processor to whoever wants it, which is often the one who brings what it waits for.
//! But on a machine that has more to do than processors, somebody else keeps that for milliseconds, while a thread that
//! parks gets it as soon as it is woken. So the first time that this is seen, threads park for a while without it.

use std::hint;
use std::thread;
use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// The first looks follow each other at once.
const SPINS: u32 = 4;

/// So often the processor is given away between looks. (To spin for long is worth nothing if who brings what is waited
/// for has no other processor.)
const YIELDS: u32 = 32;

/// Away for so long: somebody else needs the processor.
const LONG_AWAY: Duration = Duration::from_micros(200);

/// So many looks after that do not give it away.
const CAREFUL: u32 = 1_000;

/// How many looks of this process have to be careful now. Some may be lost count of.
static CAREFUL_LOOKS: AtomicU32 = AtomicU32::new(0);

/// Looks for `found` until it is true or the moment is over; says which.
pub(crate) fn look(mut found: impl FnMut() -> bool) -> bool {
    for _ in 0..SPINS {
        if found() {
            return true;
        }
        hint::spin_loop();
    }
    let careful = CAREFUL_LOOKS.load(Ordering::Relaxed);
    if careful > 0 {
        CAREFUL_LOOKS.store(careful - 1, Ordering::Relaxed);
        return found();
    }
    for _ in 0..YIELDS {
        if found() {
            return true;
        }
        let start = Instant::now();
        thread::yield_now();
        if start.elapsed() > LONG_AWAY {
            CAREFUL_LOOKS.store(CAREFUL, Ordering::Relaxed);
            break;
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
