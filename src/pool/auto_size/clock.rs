//! The CPU time of a thread and of this process, and how long a thread waited for a processor,
//! where the system tells them.

use std::time::Duration;

/// What the scheduler of Linux tells of a thread, to any thread of the process.
#[derive(Debug)]
pub(super) struct Scheduling {
    #[cfg(target_os = "linux")]
    path: std::path::PathBuf,
}

impl Scheduling {
    /// Returns what is told of this thread; `None` if nothing is.
    #[cfg(all(target_os = "linux", not(loom)))]
    pub(super) fn of_this_thread() -> Option<Self> {
        // It is a link to `PID/task/TID`.
        let thread = std::fs::read_link("/proc/thread-self").ok()?;
        let path = std::path::Path::new("/proc").join(thread).join("schedstat");
        let this = Self { path };
        this.read().is_some().then_some(this)
    }

    #[cfg(not(all(target_os = "linux", not(loom))))]
    pub(super) fn of_this_thread() -> Option<Self> {
        None
    }

    /// Returns how much CPU time the thread has used, and how long it waited for a processor;
    /// `None` if it has exited.
    #[cfg(target_os = "linux")]
    pub(super) fn read(&self) -> Option<(Duration, Duration)> {
        parse(&std::fs::read_to_string(&self.path).ok()?)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn read(&self) -> Option<(Duration, Duration)> {
        None
    }
}

/// The first two numbers are nanoseconds. The third one tells how often the thread got a processor.
/// A kernel without this account says that it never did.
#[cfg(target_os = "linux")]
fn parse(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut numbers = schedstat
        .split_ascii_whitespace()
        .map_while(|number| number.parse().ok());
    let [cpu, wait, turns] = [numbers.next()?, numbers.next()?, numbers.next()?];
    (turns > 0).then(|| (Duration::from_nanos(cpu), Duration::from_nanos(wait)))
}

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

    #[cfg(target_os = "linux")]
    #[test]
    fn the_scheduler_tells_two_times() {
        let nanos = Duration::from_nanos;
        assert_eq!(
            parse("625000 1200 17\n"),
            Some((nanos(625_000), nanos(1200)))
        );
        assert_eq!(
            parse("0 1200 1"),
            Some((nanos(0), nanos(1200))),
            "a new thread"
        );
        for text in ["", "625000", "a 1200 17", "625000 - 17", "0 0 0\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_the_scheduler_tells_is_what_the_clock_tells() {
        // A new thread: the account must begin at once.
        let thread = std::thread::spawn(|| {
            let scheduling = Scheduling::of_this_thread()?;
            let mut rounds = 0_u64;
            while thread() < Duration::from_millis(50) {
                rounds = std::hint::black_box(rounds + 1);
            }
            Some((scheduling.read(), thread(), scheduling))
        });
        let Some((told, clock, scheduling)) = thread.join().unwrap() else {
            return;
        };
        let (cpu, _) = told.expect("the thread lives");
        let difference = cpu.abs_diff(clock);
        assert!(difference < Duration::from_millis(30), "{cpu:?}, {clock:?}");
        assert_eq!(scheduling.read(), None, "the thread is gone");
    }

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
