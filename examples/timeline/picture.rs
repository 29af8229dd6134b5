//! The picture, in SVG.

use std::fmt::Write;
use std::time::Duration;

use crate::lanes::{Lane, OnLane};
use crate::recorder::{Job, Jobs};

const LABELS: [(&str, &str); 9] = [
    ("short", "#56b4e9"),
    ("long", "#0072b2"),
    ("waits for its parts", "#f0b429"),
    ("part", "#009e73"),
    ("panics", "#d55e00"),
    ("crashes", "#b2182b"),
    ("exceeds its time limit", "#e8a33d"),
    ("cancelled while it runs", "#5f5f5f"),
    ("cancelled", "#9a9a9a"),
];

const WIDTH: f64 = 960.0;
/// The start and the end of the time axis.
const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 24.0;
const ROW: f64 = 15.0;
const THIN_ROW: f64 = 6.0;
/// The row of the processes above the jobs of a lane.
const PROCESS_ROW: f64 = 13.0;
/// How wide a digit of a process id is.
const DIGIT: f64 = 5.6;

/// Draws the lanes of the workers, below them the queued jobs, and a time axis.
pub(crate) fn picture(jobs: &Jobs, lanes: &[Lane<'_>]) -> String {
    let end = jobs.values().map(|job| job.ended).max();
    let scale = Scale::new(end.unwrap_or_default());
    let mut body = String::new();

    let mut y = 66.0;
    for lane in lanes {
        let rows = lane.jobs.iter().map(|on_lane| on_lane.depth + 1).max();
        let rows = rows.unwrap_or(1);
        if !lane.processes.is_empty() {
            scale.processes(&mut body, y, lane);
            y += PROCESS_ROW;
        }
        text(&mut body, "name", LEFT - 10.0, y + 11.5, &lane.name);
        for OnLane {
            job, run, depth, ..
        } in &lane.jobs
        {
            let at = y + *depth as f64 * ROW;
            scale.bar(&mut body, at, ROW - 1.0, (run.start, job.ended), job);
        }
        y += rows as f64 * ROW + 7.0;
    }

    y += 12.0;
    text(&mut body, "name", LEFT - 10.0, y + 6.0, "queue");
    let mut ends = Vec::new();
    for job in jobs.values() {
        // Takes the first row that is free at that time.
        let free = ends.iter().position(|end| *end <= job.submitted);
        let row = free.unwrap_or(ends.len());
        ends.resize(ends.len().max(row + 1), Duration::ZERO);
        ends[row] = job.unqueued();
        let at = y + row as f64 * THIN_ROW;
        scale.bar(
            &mut body,
            at,
            THIN_ROW - 1.0,
            (job.submitted, job.unqueued()),
            job,
        );
    }
    y += ends.len() as f64 * THIN_ROW + 6.0;

    let (grid, height) = (scale.grid(56.0, y), y + 30.0);
    let processes = lanes.iter().map(|lane| lane.processes.len()).sum();
    let head = head(jobs, lanes.len(), processes);
    // The picture can be inlined into a page: it is as wide as its place, and it has no style
    // sheet, which would apply to the whole page. The background is white, so that the text is
    // readable on any page.
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"100%\" \
         role=\"img\" aria-label=\"Timeline of a pool\" font-family=\"system-ui,sans-serif\" \
         font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" fill=\"#fff\"/>\n{head}{grid}{body}</svg>\n"
    )
}

fn head(jobs: &Jobs, workers: usize, processes: usize) -> String {
    let mut head = String::new();
    let mut title = format!("{} jobs on {workers} workers", jobs.len());
    let mut note = "Thin bars: queued jobs. A bar below another: a job that the upper one runs while it waits.";
    if processes > 0 {
        title += &format!(", {processes} processes");
        note = "Thin bars: queued jobs. Lines: the processes of a worker, and their numbers. \u{d7}: killed or crashed.";
    }
    text(&mut head, "head", 16.0, 24.0, &title);
    text(&mut head, "name", RIGHT, 24.0, note);
    let mut x = 16.0;
    for (label, colour) in LABELS {
        if !jobs.values().any(|job| job.label == label) {
            continue;
        }
        let _ = writeln!(
            head,
            r#"<rect x="{x:.1}" y="35" width="11" height="11" fill="{colour}"/>"#
        );
        text(&mut head, "", x + 16.0, 45.0, label);
        x += 38.0 + 6.2 * label.len() as f64;
    }
    head
}

struct Scale {
    end: f64,
    /// The distance between two ticks, in milliseconds.
    step: f64,
}

impl Scale {
    fn new(end: Duration) -> Self {
        let end = (end.as_secs_f64() * 1e3).max(1.0);
        // 1, 2 or 5 times a power of ten: the first step with at most 12 ticks.
        let steps = (0..).flat_map(|zeros| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(zeros)));
        let step = steps.into_iter().find(|step| end / step <= 12.0);
        Self {
            end,
            step: step.unwrap_or(end),
        }
    }

    fn x(&self, milliseconds: f64) -> f64 {
        LEFT + milliseconds / self.end * (RIGHT - LEFT)
    }

    fn bar(
        &self,
        body: &mut String,
        y: f64,
        height: f64,
        (from, to): (Duration, Duration),
        job: &Job,
    ) {
        let [from, to] = [from, to].map(|time| self.x(time.as_secs_f64() * 1e3));
        // Leaves a gap between adjacent bars, and keeps short bars visible.
        let width = (to - from - 0.8).max(0.5);
        let colour = LABELS.iter().find(|(label, _)| *label == job.label);
        let colour = colour.map_or("#000", |(_, colour)| *colour);
        let _ = writeln!(
            body,
            r#"<rect x="{from:.1}" y="{y}" width="{width:.1}" height="{height}" fill="{colour}"/>"#
        );
    }

    /// Draws a line for each process of a lane, its number where there is room, and how it ended.
    fn processes(&self, body: &mut String, y: f64, lane: &Lane<'_>) {
        let x = |time: Duration| self.x(time.as_secs_f64() * 1e3);
        let mut free = LEFT;
        for life in &lane.processes {
            let (from, to) = (x(life.start), x(life.end));
            let (line, width) = (y + 10.0, (to - from - 1.5).max(1.0));
            let _ = writeln!(
                body,
                r##"<rect x="{from:.1}" y="{line}" width="{width:.1}" height="2" fill="#333"/>"##
            );
            if from.max(free) < from + 8.0 {
                let (at, pid) = (from.max(free), life.process.pid.to_string());
                text(body, "pid", at, y + 8.0, &pid);
                free = at + DIGIT * pid.len() as f64 + 3.0;
            }
            if life.was_killed {
                text(body, "mark", to, y + 9.0, "\u{d7}");
                free = free.max(to + 5.0);
            }
        }
    }

    fn grid(&self, top: f64, bottom: f64) -> String {
        let mut grid = String::new();
        for tick in (0..)
            .map(|n| f64::from(n) * self.step)
            .take_while(|tick| *tick <= self.end)
        {
            let x = self.x(tick);
            let _ = writeln!(
                grid,
                r##"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}" stroke="#ddd"/>"##
            );
            text(&mut grid, "tick", x, bottom + 16.0, &format!("{tick} ms"));
        }
        grid
    }
}

fn text(body: &mut String, class: &str, x: f64, y: f64, text: &str) {
    let text = xml(text);
    let style = match class {
        "head" => r#" font-weight="bold""#,
        "name" => r#" text-anchor="end""#,
        "tick" => r#" text-anchor="middle""#,
        "pid" => r#" font-size="9""#,
        "mark" => r#" text-anchor="middle" font-weight="bold""#,
        _ => "",
    };
    let _ = writeln!(
        body,
        r##"<text x="{x:.1}" y="{y:.1}" fill="#333"{style}>{text}</text>"##
    );
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
