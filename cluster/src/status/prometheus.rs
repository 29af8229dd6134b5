//! A [`Snapshot`] in Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write as _};

use crate::status::snapshot::{Life, Snapshot, Totals};

/// The media type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes the snapshot as metrics.
pub(crate) fn render(snapshot: &Snapshot) -> String {
    let mut page = Page::default();
    let fresh = !snapshot.is_stale();
    page.family(
        "up",
        "gauge",
        "Whether the server can be reached and the figures are fresh.",
    );
    page.sample("up", &[], u8::from(fresh));
    if let Some(age) = snapshot.age_ms {
        page.family("age_seconds", "gauge", "How old the figures are.");
        page.sample("age_seconds", &[], seconds(age));
    }
    page.family("problems", "gauge", "How many parts could not be read.");
    page.sample("problems", &[], snapshot.problems.len());
    // Figures of another time than now would look like news.
    if !fresh {
        return page.text;
    }
    queues(&mut page, snapshot);
    workers(&mut page, snapshot);
    submitters(&mut page, snapshot);
    stores(&mut page, snapshot);
    rates(&mut page, snapshot);
    page.text
}

fn queues(page: &mut Page, snapshot: &Snapshot) {
    let rows: Vec<_> = snapshot
        .queues
        .iter()
        .map(|queue| (queue, queue.version.to_string()))
        .collect();
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&_) -> Option<f64>| {
        page.family(name, "gauge", help);
        for (queue, version) in &rows {
            let labels = [
                ("queue", queue.queue.as_str()),
                ("task", queue.task.as_str()),
                ("version", version.as_str()),
            ];
            if let Some(value) = value(queue) {
                page.sample(name, &labels, value);
            }
        }
    };
    use crate::status::snapshot::QueueView as Q;
    gauge(
        "queue_waiting_jobs",
        "Jobs that no worker has got yet.",
        &|q: &&Q| Some(q.waiting as f64),
    );
    gauge(
        "queue_delivered_jobs",
        "Jobs that workers hold, or that were given back.",
        &|q| Some(q.delivered as f64),
    );
    gauge(
        "queue_oldest_job_age_seconds",
        "How long ago the oldest job that has not ended was submitted.",
        &|q| Some(seconds(q.oldest_ms.unwrap_or(0))),
    );
    gauge(
        "queue_waiting_pulls",
        "Requests of workers that wait for a job.",
        &|q| Some(q.pulls as f64),
    );
    gauge(
        "queue_workers",
        "Living workers that have the task.",
        &|q| Some(q.workers as f64),
    );
    page.family(
        "jobs_without_consumer",
        "gauge",
        "Jobs of tasks, or versions, that no worker has ever had.",
    );
    page.sample("jobs_without_consumer", &[], snapshot.jobs_without_consumer);
}

fn workers(page: &mut Page, snapshot: &Snapshot) {
    page.family("workers", "gauge", "Workers, by whether they live.");
    for life in [Life::Alive, Life::Silent, Life::Dead, Life::Left] {
        let count = snapshot.workers.iter().filter(|w| w.life == life).count();
        page.sample("workers", &[("life", life.as_str())], count);
    }
    let alive: Vec<_> = snapshot
        .workers
        .iter()
        .filter(|worker| worker.life == Life::Alive)
        .collect();
    let mut each = |name: &str, help: &str, value: &dyn Fn(&_) -> usize| {
        page.family(name, "gauge", help);
        for worker in &alive {
            let labels = [
                ("worker", worker.id.as_str()),
                ("name", worker.name.as_str()),
                ("queue", worker.queue.as_str()),
            ];
            page.sample(name, &labels, value(worker));
        }
    };
    use crate::status::snapshot::WorkerView as W;
    each(
        "worker_slots",
        "How many jobs it runs at a time.",
        &|w: &&W| w.slots,
    );
    each("worker_busy_slots", "How many jobs it runs.", &|w| w.busy);
    each(
        "worker_held_jobs",
        "Jobs that it has, running or not.",
        &|w| w.held,
    );
    each("worker_running", "Whether it takes jobs.", &|w| {
        usize::from(w.state == "running")
    });
    page.family(
        "worker_jobs_total",
        "counter",
        "Jobs since the worker started, by what became of them.",
    );
    for worker in &alive {
        let Totals {
            done, failed, lost, ..
        } = worker.totals;
        for (outcome, count) in [("done", done), ("failed", failed), ("lost", lost)] {
            let labels = [("worker", worker.id.as_str()), ("outcome", outcome)];
            page.sample("worker_jobs_total", &labels, count);
        }
    }
    page.family(
        "worker_retries_total",
        "counter",
        "Starts of jobs that had been delivered before, since the worker started.",
    );
    for worker in &alive {
        let labels = [("worker", worker.id.as_str())];
        page.sample("worker_retries_total", &labels, worker.totals.retried);
    }
}

fn submitters(page: &mut Page, snapshot: &Snapshot) {
    let alive: Vec<_> = snapshot
        .submitters
        .iter()
        .filter(|submitter| submitter.life == Life::Alive)
        .collect();
    page.family("submitters", "gauge", "Living submitters.");
    page.sample("submitters", &[], alive.len());
    page.family(
        "submitter_pending_jobs",
        "gauge",
        "Jobs without an outcome.",
    );
    for submitter in &alive {
        let labels = [
            ("submitter", submitter.id.as_str()),
            ("name", submitter.name.as_str()),
        ];
        page.sample("submitter_pending_jobs", &labels, submitter.pending);
    }
    page.family(
        "submitter_submitted_jobs_total",
        "counter",
        "Jobs since the submitter started.",
    );
    for submitter in &alive {
        let labels = [("submitter", submitter.id.as_str())];
        page.sample(
            "submitter_submitted_jobs_total",
            &labels,
            submitter.submitted,
        );
    }
    page.family(
        "submitter_lost_jobs_total",
        "counter",
        "Jobs that the submitter reported as lost or disconnected, since it started.",
    );
    for submitter in &alive {
        let labels = [("submitter", submitter.id.as_str())];
        page.sample("submitter_lost_jobs_total", &labels, submitter.lost);
    }
}

fn stores(page: &mut Page, snapshot: &Snapshot) {
    page.family("store_messages", "gauge", "Messages in a store.");
    for store in &snapshot.stores {
        page.sample("store_messages", &[("store", &store.name)], store.messages);
    }
    page.family("store_bytes", "gauge", "The size of a store.");
    for store in &snapshot.stores {
        page.sample("store_bytes", &[("store", &store.name)], store.bytes);
    }
    page.family(
        "store_limit_bytes",
        "gauge",
        "The size from which a store refuses.",
    );
    for store in &snapshot.stores {
        if let Some(limit) = store.limit {
            page.sample("store_limit_bytes", &[("store", &store.name)], limit);
        }
    }
}

fn rates(page: &mut Page, snapshot: &Snapshot) {
    let rates = &snapshot.rates;
    page.family(
        "jobs_per_second",
        "gauge",
        "Jobs a second: what came into the store and left it, and what workers report.",
    );
    for (event, rate) in [
        ("submitted", rates.submitted),
        ("ended", rates.ended),
        ("done", rates.done),
        ("failed", rates.failed),
        ("lost", rates.lost),
        ("retried", rates.retried),
    ] {
        if let Some(rate) = rate {
            page.sample("jobs_per_second", &[("event", event)], rate);
        }
    }
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP futurepool_cluster_{name} {help}");
        let _ = writeln!(self.text, "# TYPE futurepool_cluster_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "futurepool_cluster_{name}");
        for (index, (label, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"{}\"", escape(value));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Escapes the value of a label.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            // A reader may take it for the end of the line.
            '\r' => escaped.push_str("\\\\r"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::status::samples;

    type Samples = Vec<(BTreeMap<String, String>, f64)>;

    /// Reads the format by its grammar: names, labels with escapes, a number, nothing else.
    fn parse(text: &str) -> Result<BTreeMap<String, Samples>, String> {
        let is_name = |name: &str| {
            !name.is_empty()
                && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if !text.ends_with('\n') {
            return Err("no end of line at the end".into());
        }
        let mut types = BTreeMap::new();
        let mut families: BTreeMap<String, Vec<_>> = BTreeMap::new();
        let mut current = String::new();
        for line in text.split_terminator('\n') {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, _) = rest.split_once(' ').ok_or(line)?;
                current = name.to_owned();
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or(line)?;
                if name != current || !["gauge", "counter"].contains(&kind) {
                    return Err(line.into());
                }
                if types.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return Err(format!("{name} twice"));
                }
                continue;
            }
            let end = line.find(['{', ' ']).ok_or(line)?;
            let (name, mut rest) = line.split_at(end);
            // All samples of a family stand together, below its type.
            if !is_name(name) || name != current || !types.contains_key(name) {
                return Err(line.into());
            }
            let mut labels = BTreeMap::new();
            if let Some(inner) = rest.strip_prefix('{') {
                rest = inner;
                loop {
                    let (label, after) = rest.split_once("=\"").ok_or(line)?;
                    if !is_name(label) {
                        return Err(line.into());
                    }
                    let mut value = String::new();
                    let mut chars = after.char_indices();
                    let end = loop {
                        match chars.next().ok_or(line)? {
                            (index, '"') => break index,
                            (_, '\\') => match chars.next().ok_or(line)?.1 {
                                'n' => value.push('\n'),
                                other @ ('"' | '\\') => value.push(other),
                                _ => return Err(line.into()),
                            },
                            (_, other) => value.push(other),
                        }
                    };
                    if labels.insert(label.to_owned(), value).is_some() {
                        return Err(line.into());
                    }
                    rest = &after[end + 1..];
                    match rest.strip_prefix(',') {
                        Some(after) => rest = after,
                        None => break,
                    }
                }
                rest = rest.strip_prefix('}').ok_or(line)?;
            }
            let value: f64 = rest
                .strip_prefix(' ')
                .ok_or(line)?
                .parse()
                .map_err(|_| line)?;
            families
                .entry(name.into())
                .or_default()
                .push((labels, value));
        }
        for (name, samples) in &families {
            let distinct: BTreeSet<_> = samples.iter().map(|(labels, _)| labels).collect();
            if distinct.len() != samples.len() {
                return Err(format!("{name}: the same labels twice"));
            }
        }
        Ok(families)
    }

    #[test]
    fn the_format_is_valid_and_the_figures_are_there() {
        let families = parse(&render(&samples::busy())).unwrap();
        let one = |name: &str| families[&format!("futurepool_cluster_{name}")].clone();
        assert_eq!(one("up"), [(BTreeMap::new(), 1.0)]);
        let waiting = &one("queue_waiting_jobs")[0];
        assert_eq!(waiting.0["task"], "img.thumbnail");
        assert_eq!(waiting.1, 1_204.0);
        let done = one("worker_jobs_total");
        assert!(
            done.iter()
                .any(|(labels, count)| labels["outcome"] == "done" && *count == 48_211.0)
        );
    }

    #[test]
    fn hostile_names_stay_inside_their_label() {
        let hostile = samples::hostile();
        let families = parse(&render(&hostile)).unwrap();
        let queues = &families["futurepool_cluster_queue_waiting_jobs"];
        assert_eq!(
            queues[0].0["task"],
            hostile.queues[0].task.replace('\r', "\\r")
        );
    }

    #[test]
    fn figures_of_the_past_are_not_told_as_news() {
        let families = parse(&render(&samples::unreachable())).unwrap();
        assert_eq!(families["futurepool_cluster_up"][0].1, 0.0);
        assert!(!families.contains_key("futurepool_cluster_queue_waiting_jobs"));
        assert!(parse(&render(&Snapshot::default())).is_ok());
    }
}
