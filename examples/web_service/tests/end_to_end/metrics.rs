//! Tests that `/metrics` has the text format of Prometheus, and correct counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;

use crate::common::{Server, jpeg, pools, sentence, until};

/// Parses the samples by name and labels. Panics if the text violates the format.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = None;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, sentence) = help.split_once(' ').expect("a name and a text");
            assert!(is_name(name) && !sentence.is_empty(), "{line}");
            assert!(families.insert(name), "one group of lines a name: {line}");
            family = Some((name, None));
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert_eq!(family, Some((name, None)), "after its help: {line}");
            family = Some((name, Some(kind)));
        } else {
            let (series, figure) = line.rsplit_once(' ').expect("a series and a figure");
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect("an end")),
                None => (series, ""),
            };
            let (expected, kind) = family.expect("after its type");
            let rest = name.strip_prefix(expected).expect("of this family");
            let is_histogram = kind.expect("after its type") == "histogram";
            let rests = ["_bucket", "_sum", "_count"];
            assert_eq!(rests.contains(&rest), is_histogram, "{line}");
            assert!(is_histogram || rest.is_empty(), "{line}");
            for label in labels.split(',').filter(|labels| !labels.is_empty()) {
                let (name, value) = label.split_once('=').expect("a name and a value");
                let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                assert!(
                    is_name(name) && !value.expect("in quotes").contains(['"', '\\']),
                    "{line}"
                );
            }
            let figure = figure.parse().expect("a number");
            let twice = samples.insert(series.to_owned(), figure).is_some();
            assert!(!twice, "one figure a series: {line}");
        }
    }
    samples
}

fn is_name(name: &str) -> bool {
    let rest = |c: char| c == '_' || c.is_ascii_alphanumeric();
    name.chars().all(rest) && name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_in_prometheus_format_and_add_up() {
    let server = Server::start(2, 8, Duration::from_secs(30)).await;
    let client = server.client();
    for path in ["/users/1", "/users/2", "/users/0", "/users/x"] {
        client.get(path).await.unwrap();
    }
    client.hash("one").await.unwrap();
    client.thumbnail(&jpeg(16, 16)).await.unwrap();
    client
        .post("/inspect", "image/jpeg", jpeg(16, 16))
        .await
        .unwrap();
    let workers = || pools(&server.app).images.workers();
    until("both processes have started", || workers().len() == 2).await;

    let answer = client.get("/metrics").await.unwrap();
    assert_eq!(
        answer.headers[CONTENT_TYPE],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let samples = parse(sentence(&answer));
    let jobs = |pool, route, outcome| {
        let labels = format!("pool=\"{pool}\",label=\"{route}\",outcome=\"{outcome}\"");
        format!("futurepool_jobs_total{{{labels}}}")
    };
    let completed = |pool, route| jobs(pool, route, "completed");
    let count = |name, pool, route| {
        format!("futurepool_{name}_seconds_count{{pool=\"{pool}\",label=\"{route}\"}}")
    };
    let expected = [
        (r#"futurepool_submitted_jobs_total{pool="cpu"}"#, 1),
        (r#"futurepool_submitted_jobs_total{pool="db"}"#, 6), // three at the start
        (r#"futurepool_submitted_jobs_total{pool="images"}"#, 3), // one was the check at the start
        (r#"futurepool_rejected_jobs_total{pool="cpu"}"#, 0),
        (r#"futurepool_queued_jobs{pool="cpu"}"#, 0),
        (r#"futurepool_running_jobs{pool="cpu"}"#, 0),
        (r#"futurepool_workers{pool="cpu"}"#, 1),
        (r#"futurepool_workers{pool="db"}"#, 2),
        (r#"futurepool_workers{pool="images"}"#, 2),
        (r#"futurepool_idle_workers{pool="cpu"}"#, 1),
        (&completed("cpu", "/hash"), 1),
        (&completed("db", "/users/{id}"), 3),
        (&completed("images", "/inspect"), 1),
        (&completed("images", "/thumbnail"), 1),
        (&jobs("cpu", "/hash", "expired"), 0),
        (&jobs("images", "/thumbnail", "failed"), 0),
        (&count("queue_wait", "db", "/users/{id}"), 3),
        (&count("run_time", "db", "/users/{id}"), 3),
        (&count("run_time", "images", "/thumbnail"), 1),
        (r#"http_answers_total{status="200"}"#, 5),
        (r#"http_answers_total{status="404"}"#, 1),
        (r#"http_answers_total{status="400"}"#, 1),
        ("http_requests_total", 8),
        ("http_requests_in_flight", 1), // this one
        ("http_abandoned_total", 0),
    ];
    for (series, figure) in expected {
        assert_eq!(
            samples.get(series),
            Some(&f64::from(figure)),
            "{series} in {samples:#?}"
        );
    }
    // The buckets of a histogram count up to its total.
    let buckets: Vec<_> = ["0.001", "0.05", "5", "+Inf"]
        .map(|le| {
            let labels = format!("pool=\"cpu\",label=\"/hash\",le=\"{le}\"");
            samples[&format!("futurepool_run_time_seconds_bucket{{{labels}}}")]
        })
        .into();
    assert!(buckets.is_sorted() && buckets[3] == 1.0, "{buckets:?}");
    assert!(samples[r#"futurepool_run_time_seconds_sum{pool="cpu",label="/hash"}"#] > 0.0);
    for worker in workers() {
        let pid = format!(
            "futurepool_process_{{}}{{pool=\"images\",pid=\"{}\"",
            worker.pid
        );
        let idle = pid.replace("{}", "state") + ",state=\"idle\"}";
        assert_eq!(samples.get(&idle), Some(&1.0), "{idle} in {samples:#?}");
        let bytes = pid.replace("{}", "resident_bytes") + "}";
        let is_known = cfg!(target_os = "linux");
        assert_eq!(samples[&bytes] > 0.0, is_known, "{bytes} in {samples:#?}");
    }
    server.stop().await;
}
