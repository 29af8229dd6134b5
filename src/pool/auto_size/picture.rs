//! The picture `docs/auto-size.svg`: what the controller does with several loads, beside what the
//! formula alone does.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use super::simulation::{Load, Machine, Naive, Run, TICK};

const PROCESSORS: usize = 4;
const MAX: usize = 128;

/// What the jobs do, for how many seconds.
fn loads() -> [(&'static [&'static str], Load, f64); 5] {
    let computing = Load::new(0.1, 1.0);
    [
        (&["computing"], computing, 60.0),
        (&["waiting", "(95 %)"], Load::new(0.1, 0.05), 100.0),
        (&["mixed", "(75 % waiting)"], Load::new(0.1, 0.25), 100.0),
        (
            &["computing, and another", "process takes half"],
            computing.others(PROCESSORS),
            120.0,
        ),
        (&["computing"], computing, 80.0),
    ]
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = WIDTH - 20.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 396.0;
const HEIGHT: f64 = 438.0;

/// (From the palette of Okabe and Ito, which colour-blind readers can tell apart.)
const IDEAL: &str = "#c9c9c9";
const KNOWN: &str = "#0072b2";
const TRIALS: &str = "#d55e00";
const NAIVE: &str = "#5f5f5f";

fn x(seconds: f64) -> f64 {
    let end: f64 = loads().iter().map(|(_, _, seconds)| seconds).sum();
    LEFT + seconds / end * (RIGHT - LEFT)
}

/// Each doubling is as high as the others.
fn y(workers: f64) -> f64 {
    let (low, high) = (1.5_f64.log2(), (1.25 * MAX as f64).log2());
    BOTTOM - (workers.log2() - low) / (high - low) * (BOTTOM - TOP)
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, fill: &str, text: &str) {
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{fill}">{text}</text>"#
    );
}

/// A line through points of time and size, with steps.
fn line(svg: &mut String, points: &[(f64, f64)], style: &str) {
    let mut path = String::new();
    for (i, &(time, workers)) in points.iter().enumerate() {
        if i == 0 {
            let _ = write!(path, "M{:.1} {:.1}", x(time), y(workers));
        } else {
            let _ = write!(path, "H{:.1}V{:.1}", x(time), y(workers));
        }
    }
    let _ = writeln!(svg, r#"<path d="{path}" fill="none" {style}/>"#);
}

/// The limit over time. The wait for a processor is known to the controller, or not.
fn limits(tells_delay: bool) -> Vec<(f64, f64)> {
    let mut run = Run::new(PROCESSORS, 1, MAX, 7, loads()[0].1);
    run.machine.tells_delay = tells_delay;
    let mut points = vec![(0.0, run.sizer.limit() as f64)];
    for (_, load, seconds) in loads() {
        run.machine.set_load(load);
        run.run(seconds);
    }
    let changes = run.changes.iter();
    points.extend(changes.map(|(time, change)| (*time, change.to as f64)));
    points.push((run.machine.time, run.sizer.limit() as f64));
    points
}

fn naive_limits() -> Vec<(f64, f64)> {
    let mut machine = Machine::new(PROCESSORS, 7, loads()[0].1, PROCESSORS);
    let mut naive = Naive::new(PROCESSORS, MAX);
    let mut points = vec![(0.0, PROCESSORS as f64)];
    for (_, load, seconds) in loads() {
        machine.set_load(load);
        for _ in 0..(seconds / TICK) as usize {
            let sample = machine.run();
            machine.limit = naive.observe(&sample);
            points.push((machine.time, machine.limit as f64));
        }
    }
    points
}

fn picture() -> String {
    let mut svg = String::new();
    text(
        &mut svg,
        16.0,
        24.0,
        "start",
        "#222",
        &format!(
            "auto_size(1..={MAX}) on {PROCESSORS} processors: how many workers the pool allows itself"
        ),
    );
    let legend = [
        (IDEAL, "processors × (1 + waiting / computing)", 6.0, ""),
        (KNOWN, "the pool on Linux", 2.2, ""),
        (TRIALS, "the pool elsewhere", 2.2, ""),
        (NAIVE, "the formula with wall times as they are", 1.4, "5 3"),
    ];
    let mut at = 16.0;
    for (colour, name, width, dashes) in legend {
        let _ = writeln!(
            svg,
            r#"<path d="M{at:.1} 42h24" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"/>"#
        );
        text(&mut svg, at + 30.0, 46.0, "start", "#222", name);
        at += 54.0 + 6.1 * name.chars().count() as f64;
    }

    for power in 1..=7 {
        let workers = f64::from(1 << power);
        let at = y(workers);
        let _ = writeln!(
            svg,
            r##"<path d="M{LEFT} {at:.1}H{RIGHT}" stroke="#e4e4e4"/>"##
        );
        text(
            &mut svg,
            LEFT - 8.0,
            at + 4.0,
            "end",
            "#555",
            &workers.to_string(),
        );
    }
    let mut ideal = Vec::new();
    let mut start = 0.0;
    for (names, load, seconds) in loads() {
        let (from, to) = (x(start), x(start + seconds));
        let _ = writeln!(
            svg,
            r##"<path d="M{from:.1} {:.1}V{BOTTOM}" stroke="#bbb"/>"##,
            TOP - 34.0
        );
        for (i, name) in names.iter().enumerate() {
            let at = TOP - 22.0 + 14.0 * i as f64;
            text(&mut svg, (from + to) / 2.0, at, "middle", "#222", name);
        }
        ideal.push((start, load.ideal(PROCESSORS)));
        start += seconds;
    }
    ideal.push((start, load_at_the_end()));
    for minute in 0..=(start / 60.0) as u32 {
        let seconds = 60.0 * f64::from(minute);
        let name = format!("{minute} min");
        text(&mut svg, x(seconds), BOTTOM + 20.0, "middle", "#555", &name);
    }
    let solid = |colour, width| {
        format!("stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"")
    };
    line(&mut svg, &ideal, &solid(IDEAL, 6.0));
    let dashed = solid(NAIVE, 1.4) + " stroke-dasharray=\"5 3\"";
    line(&mut svg, &naive_limits(), &dashed);
    line(&mut svg, &limits(false), &solid(TRIALS, 2.2));
    line(&mut svg, &limits(true), &solid(KNOWN, 2.2));
    // The background is white, so that the text is readable on any page.
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"100%\" \
         role=\"img\" aria-label=\"The number of workers of a simulated pool over time\" \
         font-family=\"system-ui,sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"#fff\"/>\n{svg}</svg>\n"
    )
}

fn load_at_the_end() -> f64 {
    let [.., (_, load, _)] = loads();
    load.ideal(PROCESSORS)
}

/// Writes the picture: `cargo test --lib auto_size::picture -- --ignored`.
#[test]
#[ignore = "it writes into the repository"]
fn draw() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo runs this");
    fs::write(Path::new(&root).join("docs/auto-size.svg"), picture()).expect("the folder exists");
}
