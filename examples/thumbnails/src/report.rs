//! The progress bar, the lines about failed files, and the counts.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use futurepool::JoinError;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Why there is no thumbnail of a file.
pub(crate) struct Failure {
    kind: &'static str,
    reason: String,
}

impl Failure {
    pub(crate) fn new(kind: &'static str, reason: impl Display) -> Self {
        let reason = reason.to_string();
        // A panic message, or what a worker wrote last, can have several lines.
        let words: Vec<_> = reason.split_whitespace().collect();
        Self {
            kind,
            reason: words.join(" "),
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let kind = match () {
            () if error.is_time_limit() => "time limit",
            () if error.is_memory_limit() => "memory limit",
            () if error.is_crashed() => "crashed",
            () if error.is_panic() => "panicked",
            () => "not run",
        };
        Self::new(kind, error)
    }
}

pub(crate) struct Report {
    /// Hidden unless standard error is a terminal.
    bar: ProgressBar,
    start: Instant,
    made: u64,
    /// The number of failures of each kind.
    failed: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Starts a report about this number of files.
    pub(crate) fn new(files: usize) -> Self {
        let template = "{pos} of {len} files {wide_bar} {per_sec}, {eta} left";
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        let target = ProgressDrawTarget::stderr();
        let bar = ProgressBar::with_draw_target(Some(files as u64), target).with_style(style);
        // The rate and the time left go on while no file ends.
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            bar,
            start: Instant::now(),
            made: 0,
            failed: BTreeMap::new(),
        }
    }

    /// Counts a file, and prints a line if it failed.
    pub(crate) fn file(&mut self, name: &Path, result: Result<(), Failure>) {
        match result {
            Ok(()) => self.made += 1,
            Err(Failure { kind, reason }) => {
                *self.failed.entry(kind).or_default() += 1;
                self.line(format_args!("{}: {kind}: {reason}", name.display()));
            }
        }
        self.bar.inc(1);
    }

    /// Prints a line on standard error.
    pub(crate) fn line(&self, text: fmt::Arguments<'_>) {
        let line = format!("thumbnails: {text}\n");
        // If standard error is closed, the line is lost.
        let _ = self.bar.suspend(|| io::stderr().write_all(line.as_bytes()));
    }

    /// Ends the progress bar and prints the counts. Returns whether no file failed.
    pub(crate) fn finish(self) -> bool {
        self.bar.finish_and_clear();
        let failed: u64 = self.failed.values().sum();
        let kinds: Vec<_> = self
            .failed
            .iter()
            .map(|(kind, n)| format!("{kind} {n}"))
            .collect();
        let kinds = match kinds.is_empty() {
            true => String::new(),
            false => format!(" ({})", kinds.join(", ")),
        };
        let seconds = self.start.elapsed().as_secs_f64();
        let made = self.made;
        let _ = writeln!(
            io::stdout(),
            "{made} made, {failed} failed{kinds}, in {seconds:.1} s"
        );
        failed == 0
    }
}
