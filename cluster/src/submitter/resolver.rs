//! Where handles resolve. Callbacks, wakers and decoders are user code, so they run on a thread of
//! their own, and a slow one delays no lease and no publish.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use bytes::Bytes;
use futurepool::{JoinError, Payload, TaskJob};
use tracing::Span;

use crate::submitter::metrics::{Counters, EndKind};
use crate::submitter::window::Permit;

/// What resolves the handles.
pub(crate) trait Resolve: fmt::Debug {
    /// Takes an end. Must not block.
    fn resolve(&self, end: End);
}

/// A handle and its outcome. Dropping it delivers nothing: its job resolves as cancelled.
pub(crate) struct End {
    pub(crate) target: Target,
    /// The encoded output.
    pub(crate) result: Result<Bytes, JoinError>,
    /// `None` for what was attached: it is not in the books.
    pub(crate) booked: Option<(Permit, Arc<Counters>)>,
    /// The span of the job. It closes before the handle resolves.
    pub(crate) span: Span,
}

/// What resolves.
pub(crate) enum Target {
    Job(TaskJob),
    /// A handle of a detached job.
    Attached(Box<dyn FnOnce(Result<Payload, JoinError>) + Send>),
}

impl End {
    /// Counts the end, and resolves the handle.
    pub(crate) fn deliver(self) {
        let Self {
            target,
            result,
            booked,
            span,
        } = self;
        let task = match &target {
            Target::Job(job) => job.name(),
            Target::Attached(_) => "",
        };
        let result = result.and_then(|output| {
            Payload::from_bytes(&output).map_err(|error| {
                let text = format!("the output could not be decoded: {error}");
                JoinError::codec(task, text, true)
            })
        });
        let permit = booked.map(|(permit, counters)| {
            counters.on_end(match &result {
                Ok(_) => EndKind::Completed,
                Err(error) => EndKind::of(error),
            });
            permit
        });
        let _flag = Resolving::begin();
        // There is room as soon as the end is visible. It runs the waker of one that waits for room.
        if catch_unwind(AssertUnwindSafe(|| drop(permit))).is_err() {
            tracing::error!("a waker of a submit has panicked");
        }
        // It runs code of the subscriber.
        if catch_unwind(AssertUnwindSafe(|| drop(span))).is_err() {
            tracing::error!("a subscriber has panicked when a span closed");
        }
        let resolve = || match (target, result) {
            (Target::Job(job), Ok(output)) => job.resolve(output),
            (Target::Job(job), Err(error)) => drop(job.fail(error)),
            (Target::Attached(resolve), result) => resolve(result),
        };
        // The crate catches what callbacks and decoders throw. A waker is called without a net.
        if catch_unwind(AssertUnwindSafe(resolve)).is_err() {
            tracing::error!("a waker of a job's handle has panicked");
        }
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End").finish_non_exhaustive()
    }
}

thread_local! {
    static RESOLVING: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread resolves handles now, so that it must not wait for a permit.
pub(crate) fn is_resolving() -> bool {
    RESOLVING.get()
}

struct Resolving(bool);

impl Resolving {
    fn begin() -> Self {
        Self(RESOLVING.replace(true))
    }
}

impl Drop for Resolving {
    fn drop(&mut self) {
        RESOLVING.set(self.0);
    }
}

/// Resolves on the thread that calls. For the model.
#[derive(Debug)]
#[cfg_attr(not(test), expect(dead_code))]
pub(crate) struct ResolveHere;

impl Resolve for ResolveHere {
    fn resolve(&self, end: End) {
        end.deliver();
    }
}

/// Resolves on a thread, in order. The window bounds how many ends wait for it.
///
/// Dropping it ends the thread after what was sent to it.
#[derive(Debug)]
pub(crate) struct ResolverThread {
    ends: Sender<End>,
}

impl ResolverThread {
    /// Starts the thread. It drops `guard` after the last end.
    pub(crate) fn spawn(name: &str, guard: impl Send + 'static) -> io::Result<Self> {
        let (ends, queue) = channel::<End>();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _guard = guard;
                queue.into_iter().for_each(End::deliver);
            })?;
        Ok(Self { ends })
    }
}

impl Resolve for ResolverThread {
    fn resolve(&self, end: End) {
        // The thread ends only after its sender, so the fallback is never needed.
        if let Err(error) = self.ends.send(end) {
            error.0.deliver();
        }
    }
}
