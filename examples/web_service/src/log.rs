//! Lines for whoever runs the service.

use std::fmt::Display;
use std::io::{self, Write};

/// A line of the log, on the standard error. It is lost if it cannot be written: `eprintln!` would panic then, and a
/// full disk is no reason to lose the requests in flight.
pub fn log(line: impl Display) {
    let _ = writeln!(io::stderr(), "web_service: {line}");
}
