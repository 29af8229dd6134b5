//! A [`Snapshot`] as tables for a terminal.

use std::fmt::Write as _;

use crate::status::snapshot::{Life, QueueView, Snapshot, WorkerView};
use crate::status::text::{bytes, clip_to, count, duration, printable, rate, replicas};

/// How many rows of running jobs are shown for one worker.
const MAX_RUNNING: usize = 12;

/// Whether lines may be coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Colour,
}

/// Writes the snapshot as tables.
pub(crate) fn render(snapshot: &Snapshot, style: Style) -> String {
    let mut page = Page {
        text: String::new(),
        style,
        at_least: if snapshot.exact_ages { "" } else { "≥ " },
    };
    page.head(snapshot);
    page.workers(snapshot);
    page.queues(snapshot);
    page.submitters(snapshot);
    page.stores(snapshot);
    page.text
}

struct Page {
    text: String,
    style: Style,
    at_least: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    Good,
    Warning,
    Bad,
    Faint,
}

struct Row {
    cells: Vec<String>,
    mark: Mark,
    /// Lines below the row.
    notes: Vec<(String, Mark)>,
}

impl Row {
    fn new(cells: Vec<String>, mark: Mark) -> Self {
        Self {
            cells,
            mark,
            notes: Vec::new(),
        }
    }
}

impl Page {
    fn line(&mut self, text: &str, mark: Mark) {
        let code = match (self.style, mark) {
            (Style::Plain, _) | (_, Mark::None) => None,
            (_, Mark::Good) => Some("32"),
            (_, Mark::Warning) => Some("33"),
            (_, Mark::Bad) => Some("31;1"),
            (_, Mark::Faint) => Some("2"),
        };
        let text = text.trim_end();
        match code {
            None => self.text.push_str(text),
            Some(code) => {
                let _ = write!(self.text, "\x1b[{code}m{text}\x1b[0m");
            }
        }
        self.text.push('\n');
    }

    fn title(&mut self, title: &str) {
        self.text.push('\n');
        match self.style {
            Style::Plain => self.text.push_str(title),
            Style::Colour => {
                let _ = write!(self.text, "\x1b[1m{title}\x1b[0m");
            }
        }
        self.text.push('\n');
    }

    fn age(&self, millis: u64) -> String {
        format!("{}{}", self.at_least, duration(millis))
    }

    /// Writes a table. `right` names the columns of figures.
    fn table(&mut self, heads: &[&str], right: &[usize], rows: Vec<Row>) {
        let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &[String]| {
            let mut line = String::from(" ");
            for (index, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                match right.contains(&index) {
                    true => line.extend([" ", &pad, cell, " "]),
                    false => line.extend([" ", cell, &pad, " "]),
                }
            }
            line
        };
        let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
        let text = line(&heads);
        self.line(&text, Mark::Faint);
        for row in rows {
            let text = line(&row.cells);
            self.line(&text, row.mark);
            for (note, mark) in row.notes {
                self.line(&format!("      {note}"), mark);
            }
        }
    }

    fn head(&mut self, snapshot: &Snapshot) {
        let connection = match snapshot.connection.connected {
            true => "connected",
            false => "NOT CONNECTED",
        };
        let text = format!(
            "{} · namespace {} · {connection}",
            printable(&snapshot.server),
            printable(&snapshot.namespace),
        );
        let mark = match snapshot.connection.connected {
            true => Mark::None,
            false => Mark::Bad,
        };
        self.line(&text, mark);
        if let Some(error) = &snapshot.connection.error
            && !snapshot.connection.connected
        {
            self.line(&format!("  {}", printable(error)), Mark::Bad);
        }
        match snapshot.age_ms {
            None => self.line("  no figures yet", Mark::Warning),
            Some(age) if snapshot.is_stale() => {
                let text = format!("  the figures are {} old", duration(age));
                self.line(&text, Mark::Bad);
            }
            Some(_) => {}
        }
        for problem in &snapshot.problems {
            self.line(&format!("  ! {}", printable(problem)), Mark::Bad);
        }
        let (busy, slots) = snapshot.slots();
        let text = format!(
            "  {} jobs · {busy} of {slots} slots busy · {} detached jobs kept",
            count(snapshot.jobs()),
            snapshot.detached.map_or("–".to_owned(), count),
        );
        self.line(&text, Mark::None);
        let rates = &snapshot.rates;
        let text = format!(
            "  submitted {} · ended {} · done {} · failed {} · lost {} · retried {}",
            rate(rates.submitted),
            rate(rates.ended),
            rate(rates.done),
            rate(rates.failed),
            rate(rates.lost),
            rate(rates.retried),
        );
        self.line(&text, Mark::None);
        let totals = &snapshot.totals;
        let text = format!(
            "  since the workers started: done {} · failed {} · lost {} · retried {}",
            count(totals.done),
            count(totals.failed),
            count(totals.lost),
            count(totals.retried),
        );
        self.line(&text, Mark::None);
    }

    fn workers(&mut self, snapshot: &Snapshot) {
        self.title(&format!("Workers ({})", snapshot.workers.len()));
        if snapshot.workers.is_empty() {
            self.line("  none", Mark::Faint);
            return;
        }
        let rows = snapshot.workers.iter().map(|worker| self.worker(worker));
        let rows = rows.collect();
        let heads = [
            "worker", "queue", "state", "busy", "slots", "held", "done", "failed", "lost",
            "retried",
        ];
        self.table(&heads, &[3, 4, 5, 6, 7, 8, 9], rows);
    }

    fn worker(&self, worker: &WorkerView) -> Row {
        let (state, mark) = match worker.life {
            Life::Alive => match worker.state.as_str() {
                "running" => ("running".to_owned(), Mark::Good),
                "broken" => ("broken".to_owned(), Mark::Bad),
                other => (printable(other), Mark::Warning),
            },
            Life::Silent => (
                format!("silent for {}", self.age(worker.silent_ms)),
                Mark::Warning,
            ),
            Life::Dead => (
                format!("dead, last seen {} ago", duration(worker.silent_ms)),
                Mark::Bad,
            ),
            Life::Left => (
                format!("left {} ago", duration(worker.silent_ms)),
                Mark::Faint,
            ),
        };
        let mut row = Row::new(
            vec![
                cell(&worker.name),
                cell(&worker.queue),
                state,
                worker.busy.to_string(),
                worker.slots.to_string(),
                worker.held.to_string(),
                count(worker.totals.done),
                count(worker.totals.failed),
                count(worker.totals.lost),
                count(worker.totals.retried),
            ],
            mark,
        );
        if let Some(problem) = &worker.problem {
            row.notes
                .push((format!("! {}", printable(problem)), Mark::Bad));
        }
        let tasks = worker.tasks.iter();
        let tasks: Vec<_> = tasks
            .map(|task| match task.version {
                1 => cell(&task.name),
                version => format!("{} v{version}", cell(&task.name)),
            })
            .collect();
        let tasks = clip_to(&tasks.join(", "), 100);
        row.notes.push((format!("tasks: {tasks}"), Mark::Faint));
        for run in worker.running.iter().take(MAX_RUNNING) {
            let label = run.label.as_ref();
            let label = label.map_or(String::new(), |label| format!("  {}", cell(label)));
            let text = format!(
                "▸ {}{label}  for {}  ({})",
                cell(&run.task),
                self.age(run.for_ms),
                cell(&run.job),
            );
            row.notes.push((text, Mark::None));
        }
        if let Some(more @ 1..) = worker.running.len().checked_sub(MAX_RUNNING) {
            row.notes.push((format!("… and {more} more"), Mark::Faint));
        }
        row
    }

    fn queues(&mut self, snapshot: &Snapshot) {
        self.title("Queues");
        if snapshot.queues.is_empty() {
            self.line("  none", Mark::Faint);
        } else {
            let rows = snapshot.queues.iter().map(|queue| self.queue(queue));
            let rows = rows.collect();
            let heads = [
                "queue",
                "task",
                "version",
                "waiting",
                "delivered",
                "oldest",
                "pulls",
                "workers",
            ];
            self.table(&heads, &[2, 3, 4, 5, 6, 7], rows);
        }
        if snapshot.jobs_without_consumer > 0 {
            let text = format!(
                "  ! {} jobs of tasks, or versions, that no worker has ever had",
                count(snapshot.jobs_without_consumer)
            );
            self.line(&text, Mark::Bad);
        }
    }

    fn queue(&self, queue: &QueueView) -> Row {
        let has_jobs = queue.waiting > 0 || queue.delivered > 0;
        let mark = match (has_jobs, queue.workers) {
            (true, 0) => Mark::Bad,
            (true, _) => Mark::None,
            (false, _) => Mark::Faint,
        };
        let mut row = Row::new(
            vec![
                cell(&queue.queue),
                cell(&queue.task),
                queue.version.to_string(),
                count(queue.waiting),
                count(queue.delivered),
                queue.oldest_ms.map_or("–".to_owned(), |age| self.age(age)),
                count(queue.pulls),
                queue.workers.to_string(),
            ],
            mark,
        );
        if has_jobs && queue.workers == 0 {
            let note = "! no living worker has this task and version".to_owned();
            row.notes.push((note, Mark::Bad));
        }
        row
    }

    fn submitters(&mut self, snapshot: &Snapshot) {
        self.title(&format!("Submitters ({})", snapshot.submitters.len()));
        if snapshot.submitters.is_empty() {
            self.line("  none", Mark::Faint);
            return;
        }
        let rows = snapshot.submitters.iter().map(|submitter| {
            let (life, mark) = match submitter.life {
                Life::Alive => ("alive".to_owned(), Mark::None),
                Life::Silent => (
                    format!("silent for {}", self.age(submitter.silent_ms)),
                    Mark::Warning,
                ),
                Life::Dead => ("dead".to_owned(), Mark::Bad),
                Life::Left => ("left".to_owned(), Mark::Faint),
            };
            let cells = vec![
                cell(&submitter.name),
                life,
                count(submitter.pending as u64),
                count(submitter.window as u64),
                count(submitter.submitted),
                count(submitter.lost),
            ];
            Row::new(cells, mark)
        });
        let rows = rows.collect();
        let heads = [
            "submitter",
            "state",
            "pending",
            "window",
            "submitted",
            "lost",
        ];
        self.table(&heads, &[2, 3, 4, 5], rows);
    }

    fn stores(&mut self, snapshot: &Snapshot) {
        self.title("Stores");
        let rows = snapshot.stores.iter().map(|store| {
            let mut size = bytes(store.bytes);
            let mut mark = Mark::None;
            if let Some(limit) = store.limit {
                let _ = write!(size, " of {}", bytes(limit));
                if store.bytes > limit / 10 * 9 {
                    mark = Mark::Bad;
                }
            }
            let cells = vec![store.name.clone(), count(store.messages), size];
            Row::new(cells, mark)
        });
        let rows = rows.collect();
        self.table(&["store", "messages", "size"], &[1, 2], rows);
        if let Some(settings) = &snapshot.settings {
            let text = format!(
                "  lease {} · {}",
                duration(settings.lease_ms),
                replicas(settings.replicas)
            );
            self.line(&text, Mark::Faint);
        }
    }
}

/// Makes an untrusted text fit into a table.
fn cell(text: &str) -> String {
    printable(&clip_to(text, 48))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;

    #[test]
    fn the_tables_of_a_busy_cluster() {
        let shown = render(&samples::busy(), Style::Plain);
        let expected = include_str!("samples/busy.txt");
        assert_eq!(shown, expected, "\n{shown}");
    }

    #[test]
    fn an_empty_cluster_and_a_server_that_is_gone_are_told() {
        let shown = render(&samples::unreachable(), Style::Plain);
        assert!(shown.contains("NOT CONNECTED"), "{shown}");
        assert!(shown.contains("the figures are 1 min 5 s old"), "{shown}");
        assert!(render(&Snapshot::default(), Style::Plain).contains("no figures yet"));
    }

    #[test]
    fn no_text_of_the_cluster_controls_the_terminal() {
        let plain = render(&samples::hostile(), Style::Plain);
        let is_safe = |c: char| c == '\n' || !c.is_control();
        assert!(plain.chars().all(is_safe), "{plain:?}");
        // With colours, the page's own codes are the only ones.
        let colour = render(&samples::hostile(), Style::Colour);
        let mut rest = colour.replace("\x1b[0m", "");
        for code in ["1", "2", "31;1", "32", "33"] {
            rest = rest.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(rest, plain);
    }

    #[test]
    fn columns_are_aligned() {
        let shown = render(&samples::busy(), Style::Plain);
        let lines: Vec<_> = shown.lines().collect();
        let head = lines
            .iter()
            .position(|l| l.contains("submitter  "))
            .unwrap();
        let end = |line: &str| line.chars().count();
        assert_eq!(end(lines[head]), end(lines[head + 1]));
    }
}
