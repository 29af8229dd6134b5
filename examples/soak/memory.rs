//! What the system says of this process, and the verdict on its memory.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::{PREFIX, heap};

/// What is held at quiet moments, when no job is there any more.
#[derive(Default)]
pub(crate) struct Memory {
    /// In bytes, at the last one.
    heap: AtomicU64,
}

impl Memory {
    pub(crate) fn quiet(&self) {
        self.heap.store(heap::live(), SeqCst);
    }

    /// What was allocated at the last quiet moment, in bytes, and what of the program is in memory, in KiB.
    pub(crate) fn now(&self) -> [u64; 2] {
        [self.heap.load(SeqCst), status("VmRSS:")]
    }
}

/// A figure of this process; 0 where the system does not tell. (`statm` has the same, in pages of unknown size.)
pub(crate) fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

/// How many threads our pools have; 0 where the system does not tell.
pub(crate) fn workers() -> usize {
    let threads = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let names = threads.flat_map(|thread| fs::read_to_string(thread.path().join("comm")));
    names.filter(|name| name.starts_with(PREFIX)).count()
}

/// The last minute may not need more than the first one, after 5 seconds to warm up. Of a short run it compares fifths,
/// and only shows them.
///
/// That is for what the program has allocated. What the system has given it for that, with stacks and the allocator's
/// own reserves, is shown.
pub(crate) fn judge(seconds: &[[u64; 2]]) {
    let is_long = seconds.len() >= 180;
    let part = if is_long { 60 } else { seconds.len() / 5 };
    let warm = seconds.get(5..).unwrap_or_default();
    if part == 0 || warm.len() < part {
        return println!("memory: too short a run to tell");
    }
    let compare = |which: usize, unit| {
        let mean = |part: &[[u64; 2]]| {
            let sum: u64 = part.iter().map(|second| second[which]).sum();
            sum as f64 / part.len() as f64
        };
        let (first, last) = (mean(&warm[..part]), mean(&warm[warm.len() - part..]));
        let growth = (last / first.max(1.0) - 1.0) * 100.0;
        println!("memory: {first:.0} {unit} at first, {last:.0} at last, {growth:+.1} %");
        growth
    };
    compare(1, "KiB resident");
    let growth = compare(0, "B allocated when all is quiet");
    assert!(!is_long || growth <= 5.0, "memory grew by {growth:.1} %");
}
