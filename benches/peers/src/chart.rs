//! Draws the chart: a group of bars per workload, on a logarithmic scale with futurepool at 1.

use std::fmt::Write;

use crate::peers::{Futurepool, Peer};
use crate::result::{Outcome, PeerResult, Run};
use crate::table::shown;
use crate::workloads::{self, Unit};

const WIDTH: f64 = 860.0;
/// The x coordinate of the lowest ratio.
const LEFT: f64 = 170.0;
const ROW: f64 = 17.0;
const NAMES_END: f64 = 130.0;
/// The ratios that have a line, from the lowest: each is a decade.
const RATIOS: [f64; 5] = [0.1, 1.0, 10.0, 100.0, 1_000.0];

/// The workloads of the short chart: those that most programs resemble.
const SHORT_WORKLOADS: [&str; 5] = [
    "burst",
    "round-trip-hot-apart",
    "round-trip-async-apart",
    "as_completed",
    "map-1us",
];
/// The peers of the short chart: the known ones and the fast ones.
const SHORT_PEERS: [&str; 8] = [
    Futurepool::NAME,
    "tokio",
    "blocking",
    "affinitypool",
    "rayon",
    "threadpool",
    "rusty_pool",
    "crossbeam",
];

/// Colours of medium lightness, legible on a white and on a black background.
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#7d7d7d}\
    .head{font-weight:bold}.name{text-anchor:end}.tick{text-anchor:middle;font-size:10px}.ours{fill:#d9730d;font-weight:bold}\
    rect{fill:#4b87b8}rect.floor{fill:#8a8a8a}line{stroke:#8a8a8a;stroke-opacity:.35}\
    line.ours{stroke:#d9730d;stroke-opacity:1}";

/// What a chart shows.
struct Chart {
    workloads: fn(&str) -> bool,
    peers: fn(&str) -> bool,
    /// The width of a factor of ten.
    decade: f64,
    /// The bars are clipped to these ratios.
    ratios: &'static [f64],
}

/// Draws all workloads and all peers.
pub fn draw(run: &Run) -> String {
    let all = Chart {
        workloads: |_| true,
        peers: |_| true,
        decade: 130.0,
        ratios: &RATIOS,
    };
    all.draw(run)
}

/// Draws a chart that is short enough for a README.
pub fn draw_short(run: &Run) -> String {
    let short = Chart {
        workloads: |name| SHORT_WORKLOADS.contains(&name),
        peers: |name| SHORT_PEERS.contains(&name),
        decade: 260.0,
        ratios: &RATIOS[..3],
    };
    short.draw(run)
}

impl Chart {
    fn draw(&self, run: &Run) -> String {
        let mut body = String::new();
        let mut y = 24.0;
        text(
            &mut body,
            "head",
            12.0,
            y,
            "Relative to futurepool (logarithmic; shorter is better)",
        );
        y += ROW;
        let machine = &run.machine;
        let floor: Vec<_> = machine.floor.iter().map(|f| format!("{f:.1}")).collect();
        let rounds = match run.quick {
            true => "a quick run, not representative",
            false => "medians of all rounds",
        };
        let subtitle = format!(
            "{}, {} cores; a park/unpark round trip takes {} µs; {rounds}",
            machine.processor,
            machine.cores,
            floor.join(" then ")
        );
        text(&mut body, "", 12.0, y, &subtitle);
        let is_shown = |outcome: &&Outcome| (self.workloads)(outcome.workload);
        for outcome in run.workloads.iter().filter(is_shown) {
            y += ROW * 2.0;
            self.group(&mut body, &mut y, outcome);
        }
        let height = y + ROW;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\">\n<style>{STYLE}</style>\n{body}</svg>\n"
        )
    }

    fn group(&self, body: &mut String, y: &mut f64, outcome: &Outcome) {
        let title = format!("{}: {}", outcome.workload, outcome.about);
        text(body, "head", 12.0, *y, &title);
        let workload = workloads::named(outcome.workload).expect("the workload exists");
        let figure = workload.figures[0];
        let is_shown = |result: &&PeerResult| (self.peers)(&result.peer);
        let peers: Vec<_> = outcome.peers.iter().filter(is_shown).collect();
        *y += ROW;
        text(body, "name", NAMES_END, *y, figure.name);
        let (top, rows) = (*y + 6.0, peers.len() as f64);
        for &ratio in self.ratios {
            let (x, end) = (self.x_of(ratio), top + rows * ROW);
            let class = if ratio == 1.0 { "ours" } else { "" };
            text(body, "tick", x, *y, &format!("{ratio}×"));
            let _ = writeln!(
                body,
                "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{end:.1}\"/>"
            );
        }
        for result in peers {
            *y += ROW;
            let ratio = outcome.ratio(&result.peer, Futurepool::NAME, 0);
            self.row(body, *y, result, ratio, figure.unit);
        }
    }

    fn row(&self, body: &mut String, y: f64, result: &PeerResult, ratio: Option<f64>, unit: Unit) {
        let is_ours = result.peer == Futurepool::NAME;
        let class = if is_ours { "name ours" } else { "name" };
        text(body, class, NAMES_END, y, &result.peer);
        let Some(median) = result.median(0) else {
            let label = match result.failed {
                Some(_) => "failed",
                None => "no figure",
            };
            return text(body, "", self.x_of(1.0) + 6.0, y, label);
        };
        let ratio = ratio.unwrap_or(1.0);
        let (from, to) = (self.x_of(1.0), self.x_of(ratio));
        let (left, width) = (from.min(to), (to - from).abs());
        let kind = if result.peer.ends_with("floor") {
            "floor"
        } else {
            ""
        };
        let _ = writeln!(
            body,
            "<rect class=\"{kind}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"11\"/>",
            y - 10.0
        );
        let label = match is_ours {
            true => shown(median, unit),
            false => format!("{}× · {}", short(ratio), shown(median, unit)),
        };
        let class = if is_ours { "ours" } else { "" };
        text(body, class, from.max(to) + 6.0, y, &label);
    }

    fn x_of(&self, ratio: f64) -> f64 {
        let (min, max) = (self.ratios[0], self.ratios[self.ratios.len() - 1]);
        LEFT + self.decade * (ratio.clamp(min, max) / min).log10()
    }
}

fn short(ratio: f64) -> String {
    match ratio {
        ..0.1 => format!("{ratio:.3}"),
        0.1..10.0 => format!("{ratio:.2}"),
        10.0..100.0 => format!("{ratio:.1}"),
        _ => format!("{ratio:.0}"),
    }
}

fn text(body: &mut String, class: &str, x: f64, y: f64, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{content}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::NAMES;

    /// How many characters of a title fit into the width.
    const TITLE: usize = 122;

    #[test]
    fn each_title_fits_into_the_width() {
        let all = workloads::ALL.into_iter();
        #[cfg(feature = "processes")]
        let all = all.chain(crate::processes::ALL);
        for workload in all {
            let title = format!("{}: {}", workload.name, workload.about);
            assert!(title.chars().count() <= TITLE, "{title}");
        }
    }

    #[test]
    fn the_short_chart_names_workloads_and_peers_that_exist() {
        let workloads = SHORT_WORKLOADS.map(workloads::named);
        assert!(workloads.iter().all(Option::is_some));
        assert!(SHORT_PEERS.iter().all(|peer| NAMES.contains(peer)));
    }
}
