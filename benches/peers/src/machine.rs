//! The machine that a run takes place on.
//!
//! Only ratios within one run are comparable, and even these depend on how busy the machine is.

use std::fs;
use std::thread;

use serde::Serialize;

use crate::floor::{self, Wait};

#[derive(Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    /// The `park`/`unpark` round trip in µs, before and after the workloads.
    pub floor: Vec<f64>,
    /// The name and version of each peer.
    pub versions: Vec<(String, String)>,
}

impl Machine {
    /// `peers` are the names of the packages to report.
    pub fn detect(peers: &[&str]) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let processor = model.and_then(|line| line.split_once(": "));
        Self {
            processor: processor
                .map_or("unknown processor", |(_, name)| name)
                .to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            floor: Vec::new(),
            versions: versions(peers),
        }
    }

    /// Measures the floor. Returns a text with its value and the load that the value suggests.
    pub fn measure_floor(&mut self) -> String {
        let mut trips = floor::trips(5_000, None, Wait::Park, Wait::Park);
        trips.sort_unstable();
        let floor = trips[trips.len() / 2].as_secs_f64() * 1e6;
        self.floor.push(floor);
        let load = match floor > 4.0 {
            true => "quiet: idle cores sleep deeply",
            false => "busy: cores stay awake",
        };
        format!("floor {floor:.1} µs ({load}), {}", load_average())
    }
}

/// Reads the versions of the peers from the lock file.
fn versions(peers: &[&str]) -> Vec<(String, String)> {
    let lock = include_str!("../Cargo.lock");
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_matches(['=', ' ', '"']).to_owned())
    };
    let adapter_parts: &[&str] = match peers.contains(&"crossbeam") {
        true => &["crossbeam-channel", "oneshot"],
        false => &[],
    };
    lock.split("[[package]]")
        .filter_map(|package| Some((field(package, "name")?, field(package, "version")?)))
        .filter(|(name, _)| {
            peers.contains(&name.as_str()) || adapter_parts.contains(&name.as_str())
        })
        .collect()
}

/// Returns how many threads ran or were ready in the last minute. Only Linux tells.
///
/// Above the number of processors, other programs take part in every figure.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let average = text.split_whitespace().next().unwrap_or("unknown");
    format!("load average {average}")
}

/// Returns a number from `/proc/self/status`, such as `VmRSS`. Only Linux has this file.
pub fn status(field: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
