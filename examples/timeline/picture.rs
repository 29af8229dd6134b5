//! The picture, in SVG.

use std::fmt::Write;
use std::time::Duration;

use crate::lanes::{Lanes, OnLane};
use crate::recorder::Job;

const KINDS: [(&str, &str); 6] = [
    ("short", "#56b4e9"),
    ("long", "#0072b2"),
    ("waits for its parts", "#f0b429"),
    ("part", "#009e73"),
    ("panics", "#d55e00"),
    ("cancelled", "#9a9a9a"),
];

const WIDTH: f64 = 960.0;
/// The start and the end of the time axis.
const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 24.0;
const ROW: f64 = 15.0;
const THIN_ROW: f64 = 6.0;

/// Draws the lanes of the workers, below them the queued jobs, and a time axis.
pub(crate) fn picture(jobs: &[Job], lanes: &Lanes<'_>) -> String {
    let end = jobs
        .iter()
        .filter_map(|job| job.ended)
        .max()
        .unwrap_or_default();
    let scale = Scale::new(end);
    let mut body = String::new();

    let mut y = 66.0;
    for (worker, lane) in lanes {
        let rows = lane
            .iter()
            .map(|on_lane| on_lane.depth + 1)
            .max()
            .unwrap_or(1);
        text(&mut body, "name", LEFT - 10.0, y + 11.5, worker);
        for OnLane {
            number,
            job,
            run,
            depth,
        } in lane
        {
            let at = y + *depth as f64 * ROW;
            scale.bar(&mut body, at, ROW - 1.0, (run.start, run.end), *number, job);
        }
        y += rows as f64 * ROW + 7.0;
    }

    y += 12.0;
    text(&mut body, "name", LEFT - 10.0, y + 6.0, "queue");
    let mut ends = Vec::new();
    for (number, job) in (1..).zip(jobs) {
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
            number,
            job,
        );
    }
    y += ends.len() as f64 * THIN_ROW + 6.0;

    let (grid, height) = (scale.grid(56.0, y), y + 30.0);
    let head = head(&format!("{} jobs on {} workers", jobs.len(), lanes.len()));
    // The background is white, so that the text is readable on any page.
    format!(
        "<svg class=\"timeline\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <style>{STYLE}</style>\n<rect width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" fill=\"#fff\"/>\n{head}{grid}{body}</svg>\n"
    )
}

// Inlined into a page, the picture must leave the page's own style alone: so every rule names the
// picture's class.
const STYLE: &str = ".timeline{max-width:100%;height:auto}\
                     .timeline text{font:12px system-ui,sans-serif;fill:#333}\
                     .timeline .timeline-head{font-weight:bold}\
                     .timeline .timeline-name{text-anchor:end}\
                     .timeline .timeline-tick{text-anchor:middle}\
                     .timeline line{stroke:#ddd}";

fn head(title: &str) -> String {
    let mut head = String::new();
    text(&mut head, "head", 16.0, 24.0, title);
    let note = "Thin bars: queued jobs. A bar below another: a job that the upper one runs while it waits.";
    text(&mut head, "name", RIGHT, 24.0, note);
    let mut x = 16.0;
    for (kind, colour) in KINDS {
        let _ = writeln!(
            head,
            r#"<rect x="{x:.1}" y="35" width="11" height="11" fill="{colour}"/>"#
        );
        text(&mut head, "", x + 16.0, 45.0, kind);
        x += 38.0 + 6.2 * kind.len() as f64;
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
        number: usize,
        job: &Job,
    ) {
        let [from, to] = [from, to].map(|time| self.x(time.as_secs_f64() * 1e3));
        // Leaves a gap between adjacent bars, and keeps short bars visible.
        let width = (to - from - 0.8).max(0.5);
        let kind = job.get("kind");
        let colour = KINDS
            .iter()
            .find(|(name, _)| *name == kind)
            .map_or("#000", |(_, colour)| *colour);
        let _ = writeln!(
            body,
            r#"<rect x="{from:.1}" y="{y}" width="{width:.1}" height="{height}" fill="{colour}"><title>{}</title></rect>"#,
            xml(&about(number, job))
        );
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
                r#"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}"/>"#
            );
            text(&mut grid, "tick", x, bottom + 16.0, &format!("{tick} ms"));
        }
        grid
    }
}

/// Returns the tooltip of a bar.
fn about(number: usize, job: &Job) -> String {
    let (kind, outcome) = (job.get("kind"), job.get("outcome"));
    let waited = job.unqueued() - job.submitted;
    match &job.run {
        Some(run) => format!(
            "{number}, {kind}: waited {waited:.1?}, ran {:.1?}, {outcome}",
            run.end - run.start
        ),
        None => format!("{number}, {kind}: waited {waited:.1?}, {outcome}"),
    }
}

fn text(body: &mut String, class: &str, x: f64, y: f64, text: &str) {
    let text = xml(text);
    let class = match class {
        "" => String::new(),
        class => format!(r#" class="timeline-{class}""#),
    };
    let _ = writeln!(body, r#"<text{class} x="{x:.1}" y="{y:.1}">{text}</text>"#);
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
