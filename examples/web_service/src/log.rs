//! The log of the service.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line to standard error, and ignores errors.
///
/// `eprintln!` would panic, and a full disk is no reason to lose the requests in flight.
pub fn log(line: impl Display) {
    let _ = writeln!(io::stderr(), "web_service: {line}");
}
