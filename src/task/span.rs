//! The `tracing` span of the code that submitted a job, in which the job runs.
//!
//! A subscriber is user code. So what it does when a span is cloned, entered, left or dropped is
//! done outside locks, and its panics end here.

pub(crate) use tracing::Span;
use tracing::dispatcher::{DefaultGuard, set_default};
use tracing::level_filters::LevelFilter;

use crate::util::unwind::{drop_catching, emit};

/// What a panic in here is reported as.
pub(crate) const SUBSCRIBER: &str = "a tracing subscriber";

/// Returns the span that is current in this thread, if there is one. Without a subscriber this
/// costs one load.
pub(crate) fn current() -> Option<Span> {
    if LevelFilter::current() == LevelFilter::OFF {
        return None;
    }
    let mut current = None;
    emit(|| current = Some(Span::current()).filter(|span| span.id().is_some()));
    current
}

/// Clones a span for another job.
pub(crate) fn clone(span: &Option<Span>) -> Option<Span> {
    let mut second = None;
    if span.is_some() {
        emit(|| second = span.clone());
    }
    second
}

/// A span that is current in this thread until this is dropped.
pub(crate) struct EnteredSpan {
    span: Option<Span>,
    entered: bool,
    /// A scoped subscriber that only the submitting thread knew.
    subscriber: Option<DefaultGuard>,
}

impl EnteredSpan {
    pub(crate) fn enter(span: Option<Span>) -> Self {
        let mut this = Self {
            span,
            entered: false,
            subscriber: None,
        };
        if let Some(span) = &this.span {
            // Not by the guard of `Span::enter`: each step must be able to panic on its own.
            emit(|| {
                span.with_subscriber(|(id, subscriber)| subscriber.enter(id));
                this.entered = true;
            });
            emit(|| {
                if Span::current() != *span {
                    this.subscriber = span.with_subscriber(|(_, dispatch)| set_default(dispatch));
                }
            });
        }
        this
    }
}

impl Drop for EnteredSpan {
    fn drop(&mut self) {
        let Some(span) = self.span.take() else {
            return;
        };
        drop_catching(SUBSCRIBER, self.subscriber.take());
        if self.entered {
            emit(|| {
                span.with_subscriber(|(id, subscriber)| subscriber.exit(id));
            });
        }
        drop_catching(SUBSCRIBER, span);
    }
}
