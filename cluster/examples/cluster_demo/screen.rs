//! What the demo prints.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process;
use std::time::{Duration, Instant};

/// Prints a line. The demo ends quietly if its reader goes away.
pub(crate) fn say(line: impl fmt::Display) {
    if writeln!(io::stdout(), "{line}").is_err() {
        process::exit(0);
    }
}

/// Prints the headline of a step, after an empty line.
pub(crate) fn step(line: impl fmt::Display) {
    say(format_args!("\n{line}\n"));
}

/// What each worker has done. On a terminal the table is drawn again and again.
pub(crate) struct Table {
    columns: &'static [&'static str],
    rows: Vec<Row>,
    is_live: bool,
    drawn: Option<Instant>,
}

struct Row {
    name: String,
    counts: Vec<usize>,
    state: String,
}

impl Table {
    pub(crate) fn new(columns: &'static [&'static str]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
            is_live: io::stdout().is_terminal(),
            drawn: None,
        }
    }

    fn row(&mut self, name: &str) -> &mut Row {
        let index = self.rows.iter().position(|row| row.name == name);
        let index = index.unwrap_or_else(|| {
            self.rows.push(Row {
                name: name.to_owned(),
                counts: vec![0; self.columns.len()],
                state: String::new(),
            });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }

    /// Adds a worker, or changes its state.
    pub(crate) fn set_state(&mut self, name: &str, state: impl Into<String>) {
        self.row(name).state = state.into();
    }

    /// Counts a job that a worker has done.
    pub(crate) fn count(&mut self, name: &str, column: usize) {
        self.row(name).counts[column] += 1;
        let is_due = self
            .drawn
            .is_none_or(|at| at.elapsed() > Duration::from_millis(50));
        if self.is_live && is_due {
            self.draw();
        }
    }

    /// Draws the table for the last time.
    pub(crate) fn finish(mut self) {
        self.draw();
    }

    fn draw(&mut self) {
        let again = self.is_live && self.drawn.is_some();
        let mut text = match again {
            // Back to the first line. Each line then replaces an older one.
            true => format!("\x1b[{}A", self.rows.len() + 1),
            false => String::new(),
        };
        let clear = if self.is_live { "\x1b[2K" } else { "" };
        let mut line = format!("   {:<10}", "worker");
        for column in self.columns {
            line += &format!("{column:>12}");
        }
        text += &format!("{clear}{line}\n");
        for Row {
            name,
            counts,
            state,
        } in &self.rows
        {
            let mut line = format!("   {name:<10}");
            for count in counts {
                line += &format!("{count:>12}");
            }
            line = format!("{line}   {state}");
            text += &format!("{clear}{}\n", line.trim_end());
        }
        if write!(io::stdout(), "{text}")
            .and_then(|()| io::stdout().flush())
            .is_err()
        {
            process::exit(0);
        }
        self.drawn = Some(Instant::now());
    }
}
