//! What the system says of this process, and the verdict on its memory.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::{PREFIX, heap};

/// What is allocated at quiet moments, when no job is there any more: in blocks, and in bytes.
#[derive(Default)]
pub(crate) struct Memory([AtomicU64; 2]);

/// Of one moment.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// What of the program is in memory, in KiB.
    pub(crate) resident: u64,
}

impl Memory {
    pub(crate) fn quiet(&self) {
        for (place, now) in self.0.iter().zip(heap::live()) {
            place.store(now, SeqCst);
        }
    }

    /// The last quiet moment.
    pub(crate) fn sample(&self) -> Sample {
        let [blocks, bytes] = &self.0;
        Sample {
            blocks: blocks.load(SeqCst),
            bytes: bytes.load(SeqCst),
            resident: status("VmRSS:"),
        }
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

/// What a pool without jobs may keep for those to come, in bytes: room for 1,024 in each of the two lists of its queue. How
/// much that is depends on the bursts that came last.
const ROOM: f64 = (4 * 2 * 1024 * size_of::<[usize; 2]>()) as f64;

/// The last minute may not need more than the first one, after 5 seconds to warm up. Of a short run it compares fifths,
/// and only shows them.
///
/// That is for what the program has allocated. What the system has given it for that, with stacks and the allocator's
/// own reserves, is shown.
pub(crate) fn judge(seconds: &[Sample]) {
    let is_long = seconds.len() >= 180;
    let part = if is_long { 60 } else { seconds.len() / 5 };
    let warm = seconds.get(5..).unwrap_or_default();
    if part == 0 || warm.len() < part {
        return println!("memory: too short a run to tell");
    }
    let compare = |unit, figure: fn(&Sample) -> u64, slack: f64| {
        let mean =
            |part: &[Sample]| part.iter().map(figure).sum::<u64>() as f64 / part.len() as f64;
        let (first, last) = (mean(&warm[..part]), mean(&warm[warm.len() - part..]));
        let growth = (last / first.max(1.0) - 1.0) * 100.0;
        println!("memory: {first:.0} {unit} at first, {last:.0} at last, {growth:+.1} %");
        !is_long || last <= first * 1.05 + slack
    };
    compare("KiB resident", |sample| sample.resident, 0.0);
    let are_few = compare("blocks when all is quiet", |sample| sample.blocks, 0.0);
    let are_small = compare("bytes when all is quiet", |sample| sample.bytes, ROOM);
    assert!(are_few && are_small, "memory grew");
}
