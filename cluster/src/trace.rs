//! The spans of a job, and how one trace spans machines.
//!
//! ```text
//!   the caller's span ── job: from the submit to the result   (submitter)
//!                         └── task: the run, with the time in the queue   (worker)
//! ```
//!
//! With the feature `opentelemetry`, the job's message carries the context of its span in the
//! header `traceparent`. The worker's span becomes a child of it.

use tracing::Span;

/// Opens the span of a job, in the current span. It closes when the job's handle resolves.
pub(crate) fn job_span(task: &str, label: Option<&str>) -> Span {
    tracing::info_span!("job", task, label)
}

#[cfg(feature = "opentelemetry")]
pub(crate) use self::w3c::{adopt, traceparent};

/// Returns the context of a span, for a header.
#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn traceparent(_: &Span) -> Option<String> {
    None
}

/// Makes a span the child of one on another machine.
#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn adopt(_: &Span, _: Option<&str>) {}

/// The header of the W3C's recommendation "Trace Context": `version-trace-span-flags`.
#[cfg(feature = "opentelemetry")]
mod w3c {
    use opentelemetry::Context;
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    };
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    /// Returns the context of a span, for a header. `None`: the span is in no trace.
    pub(crate) fn traceparent(span: &Span) -> Option<String> {
        let context = span.context();
        let span = context.span();
        let span = span.span_context();
        let flags = span.trace_flags().to_u8();
        let header = || format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id());
        span.is_valid().then(header)
    }

    /// Makes a span the child of one on another machine. A malformed header is ignored.
    pub(crate) fn adopt(span: &Span, traceparent: Option<&str>) {
        if let Some(parent) = traceparent.and_then(parse) {
            // It fails only if the span is in no trace.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
    }

    fn parse(header: &str) -> Option<SpanContext> {
        let mut fields = header.split('-');
        let (version, trace, span, flags) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let is_hex = |text: &str, len| {
            text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        // Later versions may append fields.
        let is_known = is_hex(version, 2) && version != "ff" && is_hex(flags, 2);
        if !is_known || !is_hex(trace, 32) || !is_hex(span, 16) {
            return None;
        }
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
            true,
            TraceState::default(),
        );
        context.is_valid().then_some(context)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_a_well_formed_header_is_a_parent() {
            let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            let context = parse(good).unwrap();
            assert!(context.is_remote() && context.trace_flags().is_sampled());
            assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
            for bad in [
                "",
                "00",
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            ] {
                assert!(parse(bad).is_none(), "{bad}");
            }
        }
    }
}
