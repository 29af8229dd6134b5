//! One trace shows the submit, the time in the queue, the run and the result.

use std::thread;

use futurepool::{task, tasks};
use futurepool_cluster::{Cluster, MemoryBroker, Worker};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing_subscriber::layer::SubscriberExt as _;

#[task(name = "traced")]
fn traced() -> u32 {
    let _inner = tracing::info_span!("inner").entered();
    7
}

fn find<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found
        .next()
        .unwrap_or_else(|| panic!("no span {name}: {spans:?}"));
    assert!(found.next().is_none(), "two spans {name}");
    span
}

#[test]
fn one_trace_shows_the_submit_and_the_run() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let broker = MemoryBroker::new();
    let worker = Worker::new(tasks![traced]).threads(1).no_signals();
    let worker = worker.connect(&broker).unwrap();
    let drain = worker.drain_handle();
    let worker = thread::spawn(|| worker.run());
    let cluster = Cluster::connect(&broker).build().unwrap();
    let caller = tracing::info_span!("caller");
    let handle = caller.in_scope(|| cluster.submit(traced::call().label("seven")));
    assert_eq!(handle.join().unwrap(), 7);
    drop(caller);
    // Spans of the worker close after the result was sent.
    drain.drain();
    worker.join().unwrap().unwrap();
    drop(cluster);
    provider.force_flush().unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let (caller, job) = (find(&spans, "caller"), find(&spans, "job"));
    let (task, inner) = (find(&spans, "task"), find(&spans, "inner"));
    for (child, parent) in [(job, caller), (task, job), (inner, task)] {
        assert_eq!(child.parent_span_id, parent.span_context.span_id());
        let trace = caller.span_context.trace_id();
        assert_eq!(child.span_context.trace_id(), trace);
    }
    assert!(task.parent_span_is_remote);
    for key in ["queue_ms", "run_ms", "label"] {
        let mut attributes = task.attributes.iter();
        assert!(attributes.any(|field| field.key.as_str() == key), "{key}");
    }
    assert!(job.start_time <= task.start_time && task.end_time <= job.end_time);
}
