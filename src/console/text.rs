//! The figures as a page of text, for terminals.

use std::fmt::Write as _;

use crate::console::snapshot::{Age, AutoSize, Pool, Snapshot};

/// How many problems are shown.
const MAX_INCIDENTS: usize = 5;

/// Formats a snapshot in lines.
pub(crate) fn render(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}, process {}",
        clean(&snapshot.program),
        snapshot.pid
    );
    for pool in &snapshot.pools {
        render_pool(&mut text, snapshot, pool);
    }
    if !snapshot.incidents.is_empty() {
        let _ = writeln!(text, "\nproblems: {}", snapshot.incidents.len());
    }
    for incident in snapshot.incidents.iter().take(MAX_INCIDENTS) {
        let what = incident.what.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "  {:<14} {:>9} ago  {}  {}  {}",
            incident.kind,
            time(Some(incident.ago_us as f64)),
            clean(&incident.message),
            clean(what),
            clean(incident.place.as_deref().unwrap_or_default()),
        );
    }
    text
}

fn render_pool(text: &mut String, snapshot: &Snapshot, pool: &Pool) {
    let state = match pool.state {
        "open" => String::new(),
        state => format!(", {state}"),
    };
    let (run, wait) = (&pool.run_time, &pool.queue_wait);
    let rates = pool.rates.as_ref();
    let totals = &pool.totals;
    let _ = write!(
        text,
        "\n{} ({}{state}): {} of {} workers run jobs, {}\n  \
         {}/s submitted, {}/s finished; run p50 {} p99 {}; wait p50 {} p99 {}\n  \
         {} completed, {} panicked, {} cancelled ({} expired), {} failed, {} refused\n",
        clean(&pool.name),
        pool.kind,
        pool.running,
        pool.workers,
        queue(pool.queued, pool.oldest.as_ref()),
        rate(rates.map(|rates| rates.submitted)),
        rate(rates.map(|rates| rates.finished)),
        time(run.as_ref().map(|run| run.p50_us)),
        time(run.as_ref().map(|run| run.p99_us)),
        time(wait.as_ref().map(|wait| wait.p50_us)),
        time(wait.as_ref().map(|wait| wait.p99_us)),
        totals.completed,
        totals.panicked,
        totals.cancelled,
        totals.expired,
        totals.failed,
        totals.rejected,
    );
    if let Some(size) = &pool.auto_size {
        let _ = writeln!(text, "  auto_size: {}", decision(pool.max_workers, size));
    }
    for lane in &pool.lanes {
        let what = lane.what.and_then(|what| snapshot.whats.get(what));
        let what = what.map_or("", |what| what.label.as_deref().unwrap_or(&what.place));
        let age = lane.age.as_ref().map_or_else(String::new, age);
        let (name, busy) = (clean(&lane.name), 100.0 * lane.busy);
        let what = clean(what);
        let _ = writeln!(
            text,
            "  {name:<20} {busy:>4.0} %  {:<9} {age:>10}  {what}",
            lane.state
        );
    }
    if pool.more_lanes > 0 {
        let _ = writeln!(text, "  … and {} more workers", pool.more_lanes);
    }
    for process in &pool.processes {
        let mebibytes = process.memory as f64 / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "  process {:<12} {:<9} {mebibytes:>7.1} MiB  {} jobs  {}",
            process.pid,
            process.state,
            process.jobs_done,
            clean(process.task.as_deref().unwrap_or_default()),
        );
    }
}

/// Replaces the characters that would steer a terminal.
fn clean(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Formats the length of the queue and the age of the oldest job in it.
fn queue(queued: u64, oldest: Option<&Age>) -> String {
    match oldest {
        Some(oldest) => format!("{queued} queued (oldest {})", age(oldest)),
        None => format!("{queued} queued"),
    }
}

/// Formats what a pool has decided about the number of its workers.
fn decision(limit: u64, size: &AutoSize) -> String {
    let (min, max, reason) = (size.min, size.max, &size.reason);
    let ago = time(Some(size.ago_us as f64));
    let when = match size.changes {
        0 => format!("no change since the start, {ago} ago"),
        changes => format!("changed {ago} ago, {changes} in all"),
    };
    format!("worker limit {limit}, bounds {min} to {max}: {reason} ({when})")
}

/// Formats an age. The sign says that it may be more: the console has not seen the beginning.
fn age(age: &Age) -> String {
    let least = if age.at_least { "≥ " } else { "" };
    format!("{least}{}", time(Some(age.us as f64)))
}

/// Formats a number a second, which is unknown until the console has looked twice.
fn rate(a_second: Option<f64>) -> String {
    a_second.map_or_else(|| "–".to_owned(), |number| format!("{number:.0}"))
}

/// Formats microseconds.
fn time(us: Option<f64>) -> String {
    match us {
        None => "–".to_owned(),
        Some(us) if us < 1e3 => format!("{us:.1} µs"),
        Some(us) if us < 1e6 => format!("{:.1} ms", us / 1e3),
        Some(us) => format!("{:.1} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::snapshot::Incident;

    #[test]
    fn what_a_program_says_does_not_steer_the_terminal() {
        let hostile = || "evil\u{1b}[2J\n".to_owned();
        let snapshot = Snapshot {
            version: 1,
            program: hostile(),
            pid: 1,
            epoch: 0,
            tick: 0,
            now: 0,
            since: 0,
            whats: Vec::new(),
            pools: Vec::new(),
            incidents: vec![Incident {
                number: 0,
                ago_us: 0,
                times: 1,
                kind: "panic",
                pool: None,
                pool_name: hostile(),
                worker: hostile(),
                what: Some(hostile()),
                // Of a worker process, which may say anything.
                place: Some(hostile()),
                message: hostile(),
                pid: None,
            }],
        };
        let text = render(&snapshot);
        assert!(
            !text.contains('\u{1b}') && text.contains("evil"),
            "{text:?}"
        );
        assert_eq!(text.lines().count(), 4, "{text:?}");
    }

    #[test]
    fn an_age_whose_beginning_was_not_seen_says_so() {
        let age = |at_least| Some(Age { us: 136, at_least });
        assert_eq!(queue(3, age(true).as_ref()), "3 queued (oldest ≥ 136.0 µs)");
        assert_eq!(queue(3, age(false).as_ref()), "3 queued (oldest 136.0 µs)");
        assert_eq!(queue(0, None), "0 queued");
    }

    #[test]
    fn a_decision_has_its_reason_and_its_time() {
        let size = |changes| AutoSize {
            min: 2,
            max: 64,
            processors: 4,
            changes,
            reason: "the jobs wait".to_owned(),
            ago_us: 12_000_000,
            cpu_percent: 10,
        };
        let text = decision(8, &size(3));
        let expected =
            "worker limit 8, bounds 2 to 64: the jobs wait (changed 12.0 s ago, 3 in all)";
        assert_eq!(text, expected);
        let text = decision(4, &size(0));
        assert!(
            text.ends_with("(no change since the start, 12.0 s ago)"),
            "{text}"
        );
    }

    #[test]
    fn a_rate_is_unknown_until_there_are_two_looks() {
        assert_eq!([rate(None), rate(Some(0.0))], ["–", "0"]);
    }
}
