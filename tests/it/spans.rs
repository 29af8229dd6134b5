//! Guarantee 9: the span and the runtime that are current at submit are current in the job.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};

use crate::common::{LONG, block_workers, within};
use futurepool::{ExecutorExt, InlineExecutor, ThreadPool, as_completed, block_on};
use tracing::subscriber::with_default;
use tracing::{Dispatch, Event, Metadata, Span, Subscriber, info_span, span};
use tracing_core::span::Current;

/// Knows the current span of each thread, and how many handles of each span exist.
#[derive(Default)]
struct Spans {
    next: AtomicU64,
    handles: Mutex<BTreeMap<u64, (usize, &'static Metadata<'static>)>>,
    /// Entering and leaving a span panics.
    panics: bool,
}

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Default)]
struct Subscribed(Arc<Spans>);

impl Subscriber for Subscribed {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let id = self.0.next.fetch_add(1, SeqCst) + 1;
        let span = (1, attributes.metadata());
        self.0.handles.lock().unwrap().insert(id, span);
        span::Id::from_u64(id)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, id: &span::Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.into_u64()));
        assert!(!self.0.panics, "a subscriber that panics");
    }
    fn exit(&self, id: &span::Id) {
        let left = ENTERED.with_borrow_mut(Vec::pop);
        assert_eq!(left, Some(id.into_u64()));
        assert!(!self.0.panics, "a subscriber that panics");
    }
    fn clone_span(&self, id: &span::Id) -> span::Id {
        let mut handles = self.0.handles.lock().unwrap();
        handles.get_mut(&id.into_u64()).unwrap().0 += 1;
        id.clone()
    }
    fn try_close(&self, id: span::Id) -> bool {
        let mut handles = self.0.handles.lock().unwrap();
        let (count, _) = handles.get_mut(&id.into_u64()).unwrap();
        *count -= 1;
        *count == 0
    }
    fn current_span(&self) -> Current {
        let id = ENTERED.with_borrow(|entered| entered.last().copied());
        match id {
            Some(id) => {
                let (_, metadata) = self.0.handles.lock().unwrap()[&id];
                Current::new(span::Id::from_u64(id), metadata)
            }
            None => Current::none(),
        }
    }
}

fn current() -> Option<u64> {
    Span::current().id().map(|id| id.into_u64())
}

/// Runs `run` with a subscriber that only the calling thread has.
fn subscribed<R>(run: impl FnOnce(&Spans) -> R) -> R {
    let spans = Subscribed::default();
    with_default(spans.clone(), || run(&spans.0))
}

#[test]
fn guarantee_9_the_span_at_submit_is_current_in_the_job() {
    within(LONG, "span", || {
        let pool = ThreadPool::new(1);
        subscribed(|_| {
            assert_eq!(pool.submit(current).join().unwrap(), None);
            let span = info_span!("work");
            let id = span.id().map(|id| id.into_u64());
            assert!(id.is_some());
            let entered = span.enter();
            let submitted = pool.submit(current);
            let tried = pool.try_submit(current).unwrap();
            let later = pool.submit_async(current);
            let map = pool.map(0..4, |_| current()).buffer_size(1);
            let unordered = pool.map_unordered(0..4, |_| current()).chunk_size(2);
            let scoped = pool.scope(|scope| scope.submit(current).join().unwrap());
            let inline = InlineExecutor.submit(current);
            let dynamic = ExecutorExt::submit(&pool as &dyn futurepool::Executor, current);
            drop(entered);
            // Polled outside the span.
            let later = block_on(later).unwrap();
            let handles = [submitted, tried, later, inline, dynamic];
            for seen in as_completed(handles) {
                assert_eq!(seen.unwrap(), id);
            }
            let seen: Vec<_> = map.into_iter().chain(unordered).collect();
            assert_eq!(seen.len(), 8);
            for seen in seen {
                assert_eq!(seen.unwrap(), id);
            }
            assert_eq!(scoped, id);
            // The span is left after the job.
            assert_eq!(pool.submit(current).join().unwrap(), None);
            assert_eq!(
                pool.submit(|| ENTERED.with_borrow(Vec::len))
                    .join()
                    .unwrap(),
                0
            );
        });
    });
}

#[test]
fn callbacks_run_outside_of_the_span() {
    within(LONG, "callbacks", || {
        let pool = ThreadPool::new(1);
        subscribed(|_| {
            let blocked = block_workers(&pool, 1);
            let handle = info_span!("work").in_scope(|| pool.submit(current));
            let (tell, told) = mpsc::channel();
            handle.add_done_callback(move |_| tell.send(current()).unwrap());
            blocked.release();
            assert!(handle.join().unwrap().is_some());
            assert_eq!(told.recv_timeout(LONG), Ok(None));
        });
    });
}

#[test]
fn guarantee_9_a_job_that_ended_keeps_nothing_of_its_span() {
    within(LONG, "kept", || {
        let pool = ThreadPool::new(1);
        subscribed(|spans| {
            let handles_of = |id: u64| spans.handles.lock().unwrap()[&id].0;
            let span = info_span!("work");
            let id = span.id().unwrap().into_u64();
            let entered = span.enter();
            let ran = pool.submit(|| ());
            let panicked = pool.submit(|| panic!("on purpose"));
            while !(ran.is_finished() && panicked.is_finished()) {
                std::thread::yield_now();
            }
            assert_eq!(handles_of(id), 1);
            let blocked = block_workers(&pool, 1);
            let cancelled = pool.submit(|| ());
            assert!(cancelled.cancel());
            let dropped = pool.submit_async(|| ());
            drop(dropped);
            let map = pool.map(0..3, |n| n).start();
            drop(map);
            blocked.release();
            pool.wait_idle().join(); // the map runs to its end
            let full = ThreadPool::new(1);
            full.shutdown();
            assert!(full.try_submit(|| ()).unwrap_err().is_shutdown());
            assert!(full.submit(|| ()).join().unwrap_err().is_shutdown());
            assert_eq!(handles_of(id), 1);
            drop(entered);
        });
    });
}

#[test]
fn a_subscriber_that_panics_does_not_affect_jobs() {
    within(LONG, "panics", || {
        let pool = ThreadPool::new(1);
        let spans = Subscribed(Arc::new(Spans {
            panics: true,
            ..Spans::default()
        }));
        let dispatch = Dispatch::new(spans);
        tracing::dispatcher::with_default(&dispatch, || {
            let span = info_span!("work");
            // Entered by hand, so that it is current here.
            ENTERED.with_borrow_mut(|entered| entered.push(span.id().unwrap().into_u64()));
            assert_eq!(pool.submit(|| 7).join().unwrap(), 7);
            assert!(
                pool.submit(|| panic!("on purpose"))
                    .join()
                    .unwrap_err()
                    .is_panic()
            );
            ENTERED.with_borrow_mut(Vec::clear);
        });
        assert_eq!(pool.submit(|| 8).join().unwrap(), 8);
    });
}

#[cfg(feature = "tokio")]
#[test]
fn guarantee_9_the_runtime_is_entered() {
    within(LONG, "runtime", || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let pool = {
            let _entered = runtime.enter();
            ThreadPool::new(1)
        };
        let spawned = pool.submit(|| tokio::spawn(async { 7 })).join().unwrap();
        assert_eq!(runtime.block_on(spawned).unwrap(), 7);
        // A job that its waiting thread runs is inside the span, too.
        let pool = Arc::new(pool);
        let inner = Arc::clone(&pool);
        let nested = pool.submit(move || {
            let handle = inner.submit(|| tokio::spawn(async { 8 }));
            handle.join().unwrap()
        });
        assert_eq!(runtime.block_on(nested.join().unwrap()).unwrap(), 8);
    });
}
