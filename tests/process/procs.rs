//! What `/proc` says of processes.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// An environment variable by which all descendants of a process are found.
const MARK: &str = "FUTUREPOOL_TEST_MARK";

/// What this module needs of a line of `stat`.
#[derive(Debug)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: u32,
    /// User and system time, in clock ticks.
    pub(crate) cpu_time: u64,
}

/// Reads a file `stat`. `None` if the process is gone.
pub(crate) fn stat_of(path: &str) -> Option<Stat> {
    let line = fs::read_to_string(path).ok()?;
    // The name may contain anything.
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<_> = rest.split(' ').collect();
    Some(Stat {
        state: fields[0].chars().next()?,
        parent: fields[1].parse().ok()?,
        cpu_time: fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?,
    })
}

pub(crate) fn stat(pid: u32) -> Option<Stat> {
    stat_of(&format!("/proc/{pid}/stat"))
}

/// Returns whether the process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z')
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Returns the children of a process, zombies included.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| stat(*pid).is_some_and(|stat| stat.parent == parent);
    all().filter(is_child).collect()
}

/// An entry for the environment of a process. Its descendants inherit it.
#[derive(Debug, Clone)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{}-{number}", std::process::id()))
    }

    pub(crate) fn variable(&self) -> (&'static str, &str) {
        (MARK, &self.0)
    }

    /// Returns the processes with this mark. Zombies have no environment.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let wanted = format!("{MARK}={}", self.0);
        let has_mark = |pid: &u32| {
            let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut variables = variables.split(|byte| *byte == 0);
            variables.any(|variable| variable == wanted.as_bytes())
        };
        all().filter(has_mark).collect()
    }

    /// Asserts that no process with this mark is left after a moment: a second, on a machine that is
    /// not ten times slower.
    #[track_caller]
    pub(crate) fn assert_all_end(&self, what: &str) {
        let start = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            if start.elapsed() > Duration::from_secs(10) {
                let names = left
                    .iter()
                    .map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")));
                let names: Vec<_> = names.map(Result::unwrap_or_default).collect();
                for pid in &left {
                    let _ = std::process::Command::new("kill")
                        .args(["-9", &pid.to_string()])
                        .status();
                }
                panic!("{what}: left over: {left:?}, {names:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
