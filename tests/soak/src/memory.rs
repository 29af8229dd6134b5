//! The memory and the threads of this process, and the check that memory does not grow.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::{THREAD_PREFIX, heap};

/// Allocated blocks and bytes at the last quiet moment, when no job existed.
#[derive(Default)]
pub(crate) struct Memory([AtomicU64; 2]);

/// The memory at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// Resident memory, in KiB.
    pub(crate) resident: u64,
}

impl Memory {
    /// Records the heap at a quiet moment.
    pub(crate) fn record(&self) {
        for (slot, now) in self.0.iter().zip(heap::live()) {
            slot.store(now, SeqCst);
        }
    }

    /// Returns the heap at the last quiet moment, and the resident memory now.
    pub(crate) fn sample(&self) -> Sample {
        let [blocks, bytes] = &self.0;
        Sample {
            blocks: blocks.load(SeqCst),
            bytes: bytes.load(SeqCst),
            resident: status("VmRSS:"),
        }
    }
}

/// Returns a figure of `/proc/self/status`, or 0 on a system without that file.
pub(crate) fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

/// Returns how many worker threads exist, or 0 on a system without `/proc`.
pub(crate) fn workers() -> usize {
    let threads = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let names = threads.flat_map(|thread| fs::read_to_string(thread.path().join("comm")));
    names.filter(|name| name.starts_with(THREAD_PREFIX)).count()
}

/// The bytes that pools without jobs may keep in reserve: 1,024 queue slots in each of two lists,
/// for four pools. How much they do keep depends on the last bursts.
const QUEUE_RESERVE: f64 = (4 * 2 * 1024 * size_of::<[usize; 2]>()) as f64;

/// Checks that the last minute needed no more memory than the first, after 5 seconds of warm-up.
///
/// Runs shorter than three minutes compare fifths, and are not judged. Only allocated memory is
/// judged. Resident memory includes stacks and the allocator's reserves, and is just printed.
pub(crate) fn check_memory(seconds: &[Sample]) {
    let is_long = seconds.len() >= 180;
    let part = if is_long { 60 } else { seconds.len() / 5 };
    let warm = seconds.get(5..).unwrap_or_default();
    if part == 0 || warm.len() < part {
        return println!("memory: the run was too short to tell");
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
    let blocks_ok = compare("blocks at quiet moments", |sample| sample.blocks, 0.0);
    let bytes_ok = compare(
        "bytes at quiet moments",
        |sample| sample.bytes,
        QUEUE_RESERVE,
    );
    assert!(blocks_ok && bytes_ok, "memory grew");
}
