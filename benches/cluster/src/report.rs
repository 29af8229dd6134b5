//! The report of a run, as text for a terminal and as Markdown.

use std::fmt::Write;

use crate::result::{Measured, Outcome, Report, Verdict};
use crate::rows::Unit;

pub(crate) fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |part: String| {
        text.push_str(&part);
        text.push('\n');
    };
    for outcome in &report.outcomes {
        let row = outcome.row;
        line(format!("\n{}: {}", row.name(), row.about()));
        for (index, figure) in outcome.row.figures().iter().enumerate() {
            if !has_figure(outcome, index) {
                continue;
            }
            let name = figure.name;
            line(format!(
                "  {name:<32}{:>12}{:>12}{:>12}",
                "best", "median", "worst"
            ));
            for result in &outcome.results {
                let [best, median, worst] = cells(result, index, figure.unit);
                let name = result.name;
                line(format!("  {name:<32}{best:>12}{median:>12}{worst:>12}"));
            }
        }
        for (peer, error) in failures(outcome) {
            line(format!("  {peer} failed: {error}"));
        }
        for verdict in &outcome.verdicts {
            let met = met(verdict);
            line(format!(
                "  goal {}: {met} ({})",
                verdict.goal, verdict.because
            ));
        }
    }
    line("\nwhat each guarantees".to_owned());
    for about in &report.participants {
        line(format!("  {}: {}", about.name, about.options));
        line(format!("    starts: {}", about.starts));
        line(format!("    killed worker: {}", about.killed_worker));
        line(format!("    killed server: {}", about.killed_server));
    }
    text
}

pub(crate) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    let (machine, rounds) = (&report.machine, report.rounds);
    let _ = writeln!(
        text,
        "{machine}. Rounds: {rounds}. Each cell: best / median / worst round.\n"
    );
    for outcome in &report.outcomes {
        let figures = outcome.row.figures();
        let shown: Vec<_> = figures
            .iter()
            .enumerate()
            .filter(|(index, _)| has_figure(outcome, *index))
            .collect();
        let names: Vec<_> = shown.iter().map(|(_, figure)| figure.name).collect();
        let _ = writeln!(text, "| {} | {} |", outcome.row.about(), names.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(shown.len()));
        for result in &outcome.results {
            let cells: Vec<_> = shown
                .iter()
                .map(|(index, figure)| cell(result, *index, figure.unit))
                .collect();
            let _ = writeln!(text, "| {} | {} |", result.name, cells.join(" | "));
        }
        let _ = writeln!(text);
    }
    let _ = writeln!(text, "| row | goal | | this run |\n|---|---|---|---|");
    for outcome in &report.outcomes {
        for verdict in &outcome.verdicts {
            let (row, goal, because) = (outcome.row.name(), &verdict.goal, &verdict.because);
            let _ = writeln!(text, "| {row} | {goal} | {} | {because} |", met(verdict));
        }
    }
    let _ = writeln!(
        text,
        "\n| | starts | killed worker | killed server | options |\n|---|---|---|---|---|"
    );
    for about in &report.participants {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            about.name, about.starts, about.killed_worker, about.killed_server, about.options
        );
    }
    text
}

fn met(verdict: &Verdict) -> &'static str {
    match verdict.met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "not evaluated",
    }
}

fn has_figure(outcome: &Outcome, figure: usize) -> bool {
    let mut results = outcome.results.iter();
    results.any(|result| result.median(figure).is_some())
}

fn failures(outcome: &Outcome) -> impl Iterator<Item = (&str, &str)> {
    let results = outcome.results.iter();
    results.filter_map(|result| Some((result.name, result.failed.as_deref()?)))
}

fn cells(result: &Measured, figure: usize, unit: Unit) -> [String; 3] {
    match result.spread(figure) {
        Some(spread) => [spread.best, spread.median, spread.worst].map(|value| unit.show(value)),
        None => ["–"; 3].map(str::to_owned),
    }
}

fn cell(result: &Measured, figure: usize, unit: Unit) -> String {
    match result.median(figure) {
        Some(_) => cells(result, figure, unit).join(" / "),
        None => "–".to_owned(),
    }
}
