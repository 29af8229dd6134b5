//! The trace for Perfetto or `chrome://tracing`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::lanes::Lane;
use crate::recorder::Jobs;

/// Writes Chrome's trace event format: a list of events.
///
/// An event has a phase (`ph`), a time (`ts`, in microseconds), a thread (`tid`) and a process
/// (`pid`).
pub(crate) fn trace(jobs: &Jobs, lanes: &[Lane<'_>]) -> String {
    let mut events = vec![
        named("process_name", 1, 0, "workers"),
        named("process_name", 2, 0, "queue"),
    ];
    let mut tid_of = BTreeMap::new();
    for (tid, lane) in (1..).zip(lanes) {
        events.push(named("thread_name", 1, tid, &lane.name));
        for on_lane in &lane.jobs {
            tid_of.insert(on_lane.number, tid);
        }
        // A worker process encloses its jobs.
        for life in &lane.processes {
            let pid = life.process.pid;
            let (start, time) = (micros(life.start), micros(life.end - life.start));
            let (name, reason) = (json(&format!("process {pid}")), json(life.reason()));
            let about = format!(r#""cat":"process","pid":1,"tid":{tid},"args":{{"end":{reason}}}"#);
            events.push(format!(
                r#"{{"ph":"X","name":{name},"ts":{start},"dur":{time},{about}}}"#
            ));
            let mark = |name: &str, at: &str| {
                let name = json(name);
                format!(r#"{{"ph":"i","s":"t","name":{name},"ts":{at},{about}}}"#)
            };
            events.push(mark(&format!("process {pid} is ready"), &start));
            if life.was_killed {
                let (what, end) = (format!("end: {}", life.reason()), micros(life.end));
                events.push(mark(&what, &end));
            }
        }
    }
    for (&number, job) in jobs {
        let outcome = job
            .outcome
            .map(|outcome| format!("{outcome:?}").to_lowercase());
        let (label, outcome) = (json(job.label), json(&outcome.unwrap_or_default()));
        let about = format!(r#""name":{label},"args":{{"job":{number},"outcome":{outcome}}}"#);
        // Queued jobs overlap, so each is a pair of "asynchronous" events with an id.
        let queued = format!(r#""cat":"queued","id":{number},"pid":2,"tid":0,{about}"#);
        let (submitted, unqueued) = (micros(job.submitted), micros(job.unqueued()));
        events.push(format!(r#"{{"ph":"b","ts":{submitted},{queued}}}"#));
        events.push(format!(r#"{{"ph":"e","ts":{unqueued},{queued}}}"#));
        // Runs on one worker nest or are disjoint, so each is a "complete" event of its thread.
        if let Some(run) = &job.run {
            let (start, time) = (micros(run.start), micros(job.ended - run.start));
            let tid = tid_of[&number];
            let run =
                format!(r#""cat":"run","ts":{start},"dur":{time},"pid":1,"tid":{tid},{about}"#);
            events.push(format!(r#"{{"ph":"X",{run}}}"#));
        }
    }
    let events = events.join(",\n");
    format!("{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{events}\n]}}\n")
}

/// Returns a "metadata" event: the name of a process or of a thread.
fn named(what: &str, pid: u32, tid: u32, name: &str) -> String {
    let name = json(name);
    format!(r#"{{"ph":"M","name":"{what}","pid":{pid},"tid":{tid},"args":{{"name":{name}}}}}"#)
}

/// Formats microseconds with three decimals, which is exact: no rounding makes two events overlap.
fn micros(time: Duration) -> String {
    let nanos = time.as_nanos();
    format!("{}.{:03}", nanos / 1_000, nanos % 1_000)
}

/// Quotes a JSON string.
fn json(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..' ' => drop(write!(quoted, "\\u{:04x}", character as u32)),
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}
