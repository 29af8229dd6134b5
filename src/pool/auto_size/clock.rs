//! The CPU time of this thread and of this process, where the system tells them.

use std::time::Duration;

#[cfg(all(
    not(loom),
    any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "dragonfly",
        target_os = "openbsd",
    )
))]
mod system {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    pub(super) const EXISTS: bool = true;

    fn read(clock: ClockId) -> Duration {
        // CPU time is never negative.
        Duration::try_from(clock_gettime(clock)).unwrap_or_default()
    }

    pub(super) fn thread() -> Duration {
        read(ClockId::ThreadCPUTime)
    }

    pub(super) fn process() -> Duration {
        read(ClockId::ProcessCPUTime)
    }
}

#[cfg(not(all(
    not(loom),
    any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "dragonfly",
        target_os = "openbsd",
    )
)))]
mod system {
    use std::time::Duration;

    pub(super) const EXISTS: bool = false;

    pub(super) fn thread() -> Duration {
        Duration::ZERO
    }

    pub(super) fn process() -> Duration {
        Duration::ZERO
    }
}

/// Whether the system tells the CPU time of a thread.
pub(super) const EXISTS: bool = system::EXISTS;

/// Returns the CPU time that this thread has used. It is a system call.
pub(super) fn thread() -> Duration {
    system::thread()
}

/// Returns the CPU time that this process has used, in all its threads.
pub(super) fn process() -> Duration {
    system::process()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_thread_runs_while_it_computes() {
        if !EXISTS {
            return;
        }
        let (before, of_process) = (thread(), process());
        let mut rounds = 0_u64;
        while thread() - before < Duration::from_millis(5) {
            rounds = std::hint::black_box(rounds + 1);
        }
        assert!(process() - of_process >= Duration::from_millis(4));
        let other = std::thread::spawn(thread).join().unwrap();
        assert!(other < Duration::from_secs(1), "{other:?}");
    }
}
