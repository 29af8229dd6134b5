//! The `tracing` span that a job takes along from where it was submitted.
//!
//! A subscriber is foreign code, so what it does when a span is cloned, entered, left or dropped is done outside locks,
//! and its panics end here.

pub(crate) use tracing::Span;
use tracing::dispatcher::set_default;
use tracing::level_filters::LevelFilter;

use crate::util::unwind::{drop_catching, emit};

const WHAT: &str = "a tracing subscriber";

/// The span that is current in this thread, if there is one. Where nobody listens to `tracing` it costs next to
/// nothing.
pub(crate) fn current() -> Option<Span> {
    if LevelFilter::current() == LevelFilter::OFF {
        return None;
    }
    let mut current = None;
    emit(|| current = Some(Span::current()).filter(|span| span.id().is_some()));
    current
}

/// A second one, for another job.
pub(crate) fn clone(span: &Option<Span>) -> Option<Span> {
    let mut second = None;
    if span.is_some() {
        emit(|| second = span.clone());
    }
    second
}

/// Runs `run`, which must not panic, with `span` current in this thread; then lets go of it.
pub(crate) fn run_in<R>(span: Option<Span>, run: impl FnOnce() -> R) -> R {
    let Some(span) = span else {
        return run();
    };
    let (mut entered, mut subscriber) = (None, None);
    emit(|| entered = Some(span.enter()));
    // Known to the submitting thread only, as a scoped subscriber is: this thread has to know it, too.
    emit(|| {
        if Span::current() != span {
            subscriber = span.with_subscriber(|(_, dispatch)| set_default(dispatch));
        }
    });
    let result = run();
    drop_catching(WHAT, subscriber);
    drop_catching(WHAT, entered);
    drop_catching(WHAT, span);
    result
}
