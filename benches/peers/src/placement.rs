//! Pins threads to processors.
//!
//! Waking a processor that sleeps takes several times as long as waking a thread on the waker's own
//! processor. So a latency depends on where the scheduler puts the threads, and each workload that
//! measures one decides that itself.

use std::sync::OnceLock;

use core_affinity::CoreId;

#[derive(Clone, Copy)]
pub enum Placement {
    /// The scheduler decides.
    Free,
    /// All threads of the process share one processor.
    Same,
    /// The workers share one processor, and the threads that wait for them share another.
    Apart,
}

/// Why a process is not pinned, with this as its start.
pub const NOT_PINNED: &str = "not pinned";

struct Processors {
    callers: CoreId,
    workers: CoreId,
}

/// Set once in a child process. Empty if the scheduler decides.
static PROCESSORS: OnceLock<Processors> = OnceLock::new();

/// Chooses the processors of this process. Must be called before it starts a thread.
///
/// # Errors
///
/// Returns the reason if the process cannot be pinned.
pub fn pin_process(placement: Placement) -> Result<(), &'static str> {
    let apart = match placement {
        Placement::Free => return Ok(()),
        Placement::Same => false,
        Placement::Apart => true,
    };
    if !cfg!(target_os = "linux") {
        return Err("not pinned: works only on Linux");
    }
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let processors = match *cores {
        [first, second, ..] if apart => Processors {
            callers: first,
            workers: second,
        },
        [only, ..] if !apart => Processors {
            callers: only,
            workers: only,
        },
        _ => return Err("not pinned: too few processors"),
    };
    // Threads inherit the mask. Apart, this thread keeps both processors: a pool that it creates
    // must not take the machine for one with a single processor.
    if !apart && !core_affinity::set_for_current(processors.callers) {
        return Err("not pinned: the system refused");
    }
    let _ = PROCESSORS.set(processors);
    Ok(())
}

/// Pins the current thread as one that waits for results.
pub fn pin_caller() {
    if let Some(processors) = PROCESSORS.get() {
        core_affinity::set_for_current(processors.callers);
    }
}

/// Pins the current thread as a worker. Every worker calls this from inside a job.
pub fn pin_worker() {
    if let Some(processors) = PROCESSORS.get() {
        core_affinity::set_for_current(processors.workers);
    }
}

/// Pins all other threads of this process except the main thread as ones that wait for results.
///
/// A pool of worker processes has threads of its own in this process. The main thread keeps its
/// processors, which the threads that it starts inherit.
#[cfg(all(feature = "processes", target_os = "linux"))]
pub fn pin_other_threads() {
    use rustix::thread::{CpuSet, Pid, sched_setaffinity};

    let Some(processors) = PROCESSORS.get() else {
        return;
    };
    let mut set = CpuSet::new();
    set.set(processors.callers.id);
    let main = std::process::id() as i32;
    for entry in std::fs::read_dir("/proc/self/task").into_iter().flatten() {
        let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
        let thread = name.to_str().and_then(|name| name.parse().ok());
        if let Some(thread) = thread.filter(|&thread| thread != main) {
            // A thread that has ended meanwhile needs no processor.
            let _ = sched_setaffinity(Pid::from_raw(thread), &set);
        }
    }
}

#[cfg(all(feature = "processes", not(target_os = "linux")))]
pub fn pin_other_threads() {}

/// Returns the numbers of the processors of the callers and of the workers, if they are apart.
pub fn apart() -> Option<(usize, usize)> {
    let processors = PROCESSORS.get()?;
    let pair = (processors.callers.id, processors.workers.id);
    (pair.0 != pair.1).then_some(pair)
}

/// Pins the current thread to a processor that [`apart`] returned in another process.
pub fn pin_to(processor: usize) {
    core_affinity::set_for_current(CoreId { id: processor });
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn on_one_processor_all_threads_share_it() {
        // In a thread of its own, so that other tests stay where they are.
        let pinned = thread::spawn(|| {
            pin_process(Placement::Same).expect("there is a processor");
            let inherited = thread::spawn(core_affinity::get_core_ids).join();
            inherited.expect("no panic").map(|cores| cores.len())
        });
        assert_eq!(pinned.join().expect("no panic"), Some(1));
    }
}
