//! The machine that a run takes place on. Only Linux tells what it is.

use std::fs;
use std::thread;

use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    /// How many threads ran or were ready in the minute before the run: above the number of cores,
    /// other programs take part in every figure.
    pub(crate) load: String,
    /// The name and version of each participant's program or package.
    pub(crate) versions: Vec<(String, String)>,
}

impl Machine {
    pub(crate) fn detect() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        let model = lines.find(|(name, _)| name.trim_end() == "model name");
        let processor = model.map_or("unknown processor", |(_, name)| name.trim());
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            processor: processor.to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            versions: Vec::new(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (processor, cores, load) = (&self.processor, self.cores, &self.load);
        write!(f, "{processor}, {cores} cores, load average {load}")?;
        for (name, version) in &self.versions {
            write!(f, ", {name} {version}")?;
        }
        Ok(())
    }
}
