//! The log of the service.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line to standard error, and ignores errors.
///
/// `eprintln!` would panic, and a full disk is no reason to lose the requests in flight.
///
/// Further lines are indented: what a decoder prints cannot look like a line of the service.
pub fn log(line: impl Display) {
    let lines = line.to_string().replace('\n', "\n    ");
    let _ = writeln!(io::stderr(), "web_service: {lines}");
}
