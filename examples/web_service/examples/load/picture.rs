//! Draws the runs as an SVG: latencies on the left, the fates of the requests on the right.

use std::fmt::Write;

use crate::{Fate, KINDS, Kind, LOADS, ROUTES, Route, Run};

const WIDTH: f64 = 900.0;
/// Horizontal extents of the two columns.
const LATENCY: (f64, f64) = (120.0, 470.0);
const FATES: (f64, f64) = (500.0, 750.0);
/// The range of the logarithmic axis, in milliseconds.
const RANGE: (f64, f64) = (0.3, 3_000.0);
const LINE: f64 = 13.0;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#7d7d7d}.head{font-weight:bold}.tick{text-anchor:middle;\
font-size:10px}.small{font-size:10px}line{stroke:#8a8a8a;stroke-opacity:.35}\
.pools{fill:#d9730d;stroke:#d9730d;stroke-opacity:1}.spawn{fill:#4b87b8;stroke:#4b87b8;stroke-opacity:1}\
.abort{fill:#8f6bb3;stroke:#8f6bb3;stroke-opacity:1}line.pools,line.spawn,line.abort{stroke-width:3}\
.answered{fill:#4f9d69}.full{fill:#d8b74a}.expired{fill:#c98a2b}.out{fill:#b5443c}.left{fill:#9a9a9a}";

pub(crate) fn draw(runs: &[Run]) -> String {
    let mut body = String::new();
    let mut y = 20.0;
    legend(&mut body, &mut y);
    for times in LOADS {
        block(&mut body, &mut y, times, runs);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y:.0}\" width=\"{WIDTH}\" \
         height=\"{y:.0}\">\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

fn legend(out: &mut String, y: &mut f64) {
    let mut x = LATENCY.0;
    for kind in KINDS {
        let name = kind.name().replace('`', "");
        mark(out, class(kind), x, *y - 9.0, 10.0);
        text(out, "", x + 14.0, *y, &name);
        x += 34.0 + 6.5 * name.len() as f64;
    }
    *y += 18.0;
    let mut x = FATES.0 - 60.0;
    for (fate, name) in FATE_NAMES {
        mark(out, fate_class(fate), x, *y - 9.0, 10.0);
        text(out, "small", x + 13.0, *y, name);
        x += 26.0 + 5.2 * name.len() as f64;
    }
    text(
        out,
        "small",
        LATENCY.0,
        *y,
        "dot: half of the answers; end of the line: 99 %",
    );
    *y += 22.0;
}

const FATE_NAMES: [(Fate, &str); 5] = [
    (Fate::Answered, "200"),
    (Fate::Full, "503, queue full"),
    (Fate::Expired, "503, expired"),
    (Fate::TimedOut, "client timed out"),
    (Fate::Left, "client left"),
];

fn block(out: &mut String, y: &mut f64, times: f64, runs: &[Run]) {
    let mut of_load = runs.iter().filter(|run| run.times == times);
    let rate = of_load.next().map_or(0.0, |run| run.rate);
    let title = format!("{times} × what the service can bear: {rate:.0} requests per second");
    text(out, "head", 10.0, *y, &title);
    *y += 16.0;
    let top = *y;
    for (ms, name) in [
        (1.0, "1 ms"),
        (10.0, "10 ms"),
        (100.0, "100 ms"),
        (1_000.0, "1 s"),
    ] {
        text(out, "tick", at(ms), *y, name);
    }
    text(out, "small", FATES.0, *y, "requests by fate");
    text(out, "small", FATES.1 + 10.0, *y, "jobs done for no client");
    *y += 8.0;
    for route in ROUTES {
        text(out, "", 10.0, *y + 2.0 * LINE, route.label());
        for run in runs.iter().filter(|run| run.times == times) {
            latencies(out, *y, run, route);
            fates(out, *y, run, route);
            *y += LINE;
        }
        *y += 7.0;
    }
    for ms in [1.0, 10.0, 100.0, 1_000.0] {
        line(out, "", (at(ms), top + 4.0), (at(ms), *y - 7.0));
    }
    *y += 22.0;
}

fn latencies(out: &mut String, y: f64, run: &Run, route: Route) {
    let middle = y + LINE / 2.0;
    let [Some(half), Some(most)] = [0.5, 0.99].map(|q| run.latency(route, q)) else {
        text(out, "small", LATENCY.0, middle + 4.0, "no answer");
        return;
    };
    let class = class(run.kind);
    line(out, class, (at(half), middle), (at(most), middle));
    let _ = writeln!(
        out,
        "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"4\"/>",
        at(half)
    );
}

fn fates(out: &mut String, y: f64, run: &Run, route: Route) {
    let all: u64 = FATE_NAMES
        .iter()
        .map(|(fate, _)| run.count(route, *fate))
        .sum();
    let mut x = FATES.0;
    for (fate, _) in FATE_NAMES {
        let share = run.count(route, fate) as f64 / all.max(1) as f64;
        let width = share * (FATES.1 - FATES.0);
        bar(out, fate_class(fate), x, y + 1.0, width, LINE - 3.0);
        x += width;
    }
    mark(out, class(run.kind), FATES.1 + 10.0, y + 2.0, LINE - 5.0);
    let done = run.done_for_no_client(route);
    text(out, "small", FATES.1 + 24.0, y + 10.0, &done.to_string());
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Pools => "pools",
        Kind::SpawnBlocking => "spawn",
        Kind::WithAbort => "abort",
    }
}

fn fate_class(fate: Fate) -> &'static str {
    match fate {
        Fate::Answered => "answered",
        Fate::Full => "full",
        Fate::Expired => "expired",
        Fate::TimedOut => "out",
        Fate::Left => "left",
    }
}

/// Returns the place of a duration on the axis.
fn at(ms: f64) -> f64 {
    let share = (ms / RANGE.0).ln() / (RANGE.1 / RANGE.0).ln();
    LATENCY.0 + share.clamp(0.0, 1.0) * (LATENCY.1 - LATENCY.0)
}

fn text(out: &mut String, class: &str, x: f64, y: f64, text: &str) {
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
    );
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn bar(out: &mut String, class: &str, x: f64, y: f64, width: f64, height: f64) {
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
    );
}

fn mark(out: &mut String, class: &str, x: f64, y: f64, side: f64) {
    bar(out, class, x, y, side, side);
}
