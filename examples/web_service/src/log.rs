//! The log of the service.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line to standard error, and ignores errors.
///
/// `eprintln!` would panic, and a full disk is no reason to lose the requests in flight.
///
/// Further lines are indented, and other control characters are escaped. So what a decoder prints
/// cannot look like a line of the service, and cannot control the operator's terminal.
pub fn log(line: impl Display) {
    let mut lines = String::new();
    for character in line.to_string().chars() {
        match character {
            '\n' => lines.push_str("\n    "),
            character if character.is_control() => lines.extend(character.escape_default()),
            character => lines.push(character),
        }
    }
    let _ = writeln!(io::stderr(), "web_service: {lines}");
}
