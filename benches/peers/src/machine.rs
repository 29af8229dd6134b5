//! Where the run takes place: only ratios of one run mean anything, and these too depend on the mood of the machine.

use std::fs;
use std::thread;

use serde::Serialize;

use crate::floor;

#[derive(Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    /// A trip there and back by `park` and `unpark`, in µs, before the workloads and after them.
    pub floor: Vec<f64>,
    /// Name and version of each peer.
    pub versions: Vec<(String, String)>,
}

impl Machine {
    pub fn look() -> Self {
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
            versions: versions(),
        }
    }

    /// Measures the floor, and tells it and the mood that it shows.
    pub fn feel(&mut self) -> String {
        let mut trips = floor::trips(5_000, None);
        trips.sort_unstable();
        let floor = trips[trips.len() / 2].as_secs_f64() * 1e6;
        self.floor.push(floor);
        let mood = match floor > 4.0 {
            true => "quiet: idle cores sleep deeply",
            false => "busy: cores are kept awake",
        };
        format!("floor {floor:.1} µs ({mood})")
    }
}

/// What the lock file says of the direct dependencies that are peers.
fn versions() -> Vec<(String, String)> {
    let lock = include_str!("../Cargo.lock");
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_matches(['=', ' ', '"']).to_owned())
    };
    let parts = ["crossbeam-channel", "oneshot"];
    lock.split("[[package]]")
        .filter_map(|package| Some((field(package, "name")?, field(package, "version")?)))
        .filter(|(name, _)| {
            crate::peers::NAMES.contains(&name.as_str()) || parts.contains(&name.as_str())
        })
        .collect()
}

/// A number of `/proc/self/status`, such as `VmRSS`; there is none elsewhere than on Linux.
pub fn status(field: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
