//! Guarantee 4: no user code runs while a lock of the crate is held.
//!
//! Every call of user code gets a probe that uses the pool and the handle in every way. A lock held
//! at that moment would be locked twice by one thread, or in two orders, and the watchdog would
//! detect the hang.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

use crate::common::{LONG, block_workers, child, eventually, poll_once, poll_with, within};
use futurepool::{JoinHandle, ThreadPool, cancel_requested};

/// What the probes use.
struct Target {
    pool: ThreadPool,
    /// The handle of the tested job. A `Weak`, so that the test can drop the handle.
    handle: Mutex<Weak<JoinHandle<Probe>>>,
    /// Where the probes ran.
    seen: Mutex<Vec<&'static str>>,
    probes: AtomicUsize,
    /// A target whose pool is full: it is used in fewer ways.
    full: OnceLock<Weak<Target>>,
}

impl Target {
    fn new(
        builder: impl FnOnce(futurepool::ThreadPoolBuilder) -> futurepool::ThreadPoolBuilder,
    ) -> Arc<Self> {
        let pool = builder(ThreadPool::builder().max_workers(2).queue_capacity(1_000));
        let pool = pool.build().unwrap();
        let handle = Mutex::default();
        let seen = Mutex::default();
        Arc::new(Self {
            pool,
            handle,
            seen,
            probes: AtomicUsize::new(0),
            full: OnceLock::new(),
        })
    }

    /// Calls every method that takes a lock.
    fn probe(&self, place: &'static str) {
        thread_local! {
            static INSIDE: Cell<bool> = const { Cell::new(false) };
        }
        if INSIDE.replace(true) {
            return; // no probe inside a probe
        }
        self.probes.fetch_add(1, SeqCst);
        let handle = self.handle.lock().unwrap().upgrade();
        if let Some(handle) = handle {
            let _ = (
                handle.is_finished(),
                handle.is_cancelled(),
                handle.is_running(),
            );
            let _ = format!("{handle:?}");
            handle.cancel();
        }
        // The job whose code this is, if its handle is gone, too.
        let _ = cancel_requested();
        let pool = &self.pool;
        drop(pool.submit(|| ()));
        drop(pool.try_submit(|| ()));
        let cancelled = pool.submit(|| ());
        cancelled.add_done_callback(|_| ());
        cancelled.cancel();
        let mut waits = pool.submit_async(|| ());
        let _ = poll_once(&mut waits);
        drop(waits);
        let _ = format!("{pool:?}");
        let _ = pool.metrics();
        if let Some(full) = self.full.get().and_then(Weak::upgrade) {
            let _ = full.pool.metrics();
            drop(full.pool.try_submit(|| ()));
        }
        self.seen.lock().unwrap().push(place);
        INSIDE.set(false);
    }

    fn assert_seen(&self, place: &'static str) {
        eventually(place, || self.seen.lock().unwrap().contains(&place));
    }
}

/// Probes when dropped.
struct Probe(Arc<Target>, &'static str);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.probe(self.1);
    }
}

/// Returns a waker that probes in each of its functions.
fn probing_waker(target: &Arc<Target>) -> Waker {
    fn raw(target: Arc<Target>) -> RawWaker {
        RawWaker::new(Arc::into_raw(target).cast(), &TABLE)
    }
    static TABLE: RawWakerVTable = RawWakerVTable::new(
        |data| {
            let target = borrow(data);
            target.probe("waker cloned");
            raw(target)
        },
        |data| {
            take(data).probe("waker woken");
        },
        |data| borrow(data).probe("waker woken by reference"),
        |data| {
            take(data).probe("waker dropped");
        },
    );
    #[allow(unsafe_code)]
    fn take(data: *const ()) -> Arc<Target> {
        // SAFETY: the pointer comes from `into_raw` in `raw`, and the caller consumes the waker.
        unsafe { Arc::from_raw(data.cast()) }
    }
    #[allow(unsafe_code)]
    fn borrow(data: *const ()) -> Arc<Target> {
        // SAFETY: the pointer comes from `into_raw` in `raw`, and the waker still exists; its
        // reference stays.
        unsafe {
            Arc::increment_strong_count(data.cast::<Target>());
            Arc::from_raw(data.cast())
        }
    }
    #[allow(unsafe_code)]
    // SAFETY: the table upholds the contract: each waker owns one reference, and `Target` is `Send`
    // and `Sync`.
    unsafe {
        Waker::from_raw(raw(Arc::clone(target)))
    }
}

/// A subscriber that probes.
struct Subscriber;

static LISTENS: OnceLock<Arc<Target>> = OnceLock::new();

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Names(bool);
        impl tracing::field::Visit for Names {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn fmt::Debug) {
                self.0 |= format!("{value:?}").contains("probe the subscriber");
            }
        }
        let mut names = Names(false);
        event.record(&mut names);
        if let (true, Some(target)) = (names.0, LISTENS.get()) {
            target.probe("subscriber");
            panic!("in the subscriber");
        }
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn guarantee_4_no_user_code_runs_under_a_lock() {
    within(LONG, "probes in a life", || {
        let initialized: Arc<OnceLock<Arc<Target>>> = Arc::default();
        let inside = Arc::clone(&initialized);
        let target = Target::new(|builder| {
            builder.initializer(move || {
                if let Some(target) = inside.get() {
                    target.probe("initializer");
                }
            })
        });
        assert!(initialized.set(Arc::clone(&target)).is_ok());

        // A running job: closure, captures, callbacks, waker, result.
        let blocked = block_workers(&target.pool, 2);
        let (captured, in_job) = (
            Probe(Arc::clone(&target), "captures of a job that ran"),
            Arc::clone(&target),
        );
        let handle = Arc::new(target.pool.submit(move || {
            let _captured = &captured;
            in_job.probe("closure");
            Probe(in_job, "result of a dropped handle")
        }));
        *target.handle.lock().unwrap() = Arc::downgrade(&handle);
        target.assert_seen("initializer");
        let in_callback = Arc::clone(&target);
        handle.add_done_callback(move |_| in_callback.probe("callback"));
        // The probes cancel every queued job, so they must not find this one yet.
        *target.handle.lock().unwrap() = Weak::new();
        let mut handle = Arc::into_inner(handle).unwrap();
        let waker = probing_waker(&target);
        assert!(poll_with(&mut handle, &waker).is_pending());
        target.assert_seen("waker cloned");
        blocked.release();
        for place in [
            "closure",
            "captures of a job that ran",
            "callback",
            "waker woken",
        ] {
            target.assert_seen(place);
        }
        eventually("it is done", || handle.is_finished());
        let in_callback = Arc::clone(&target);
        handle.add_done_callback(move |_| in_callback.probe("late callback"));
        target.assert_seen("late callback");
        drop(handle);
        target.assert_seen("result of a dropped handle");

        // A result that no handle takes.
        let in_job = Arc::clone(&target);
        drop(target.pool.submit(move || Probe(in_job, "unwanted result")));
        target.assert_seen("unwanted result");

        // A replaced waker, and the waker of a dropped handle.
        let blocked = block_workers(&target.pool, 2);
        let mut handle = target.pool.submit(|| ());
        assert!(poll_with(&mut handle, &waker).is_pending());
        target.seen.lock().unwrap().clear();
        assert!(poll_once(&mut handle).is_pending());
        target.assert_seen("waker dropped");
        assert!(poll_with(&mut handle, &waker).is_pending());
        target.seen.lock().unwrap().clear();
        drop(handle);
        target.assert_seen("waker dropped");
        blocked.release();
    });
}

#[test]
fn guarantee_4_a_waker_may_use_the_handle_that_it_was_polled_with() {
    within(LONG, "a waker and its handle", || {
        struct Uses(Mutex<Option<JoinHandle<u8>>>, std::sync::mpsc::Sender<u8>);
        impl std::task::Wake for Uses {
            fn wake(self: Arc<Self>) {
                let mut handle = self.0.lock().unwrap().take().expect("it is there");
                assert!(handle.is_finished() && !handle.cancel());
                let _ = self.1.send(handle.try_join().unwrap().unwrap());
            }
        }
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let (tell, told) = std::sync::mpsc::channel();
        let uses = Arc::new(Uses(Mutex::new(Some(pool.submit(|| 5))), tell));
        let waker = Waker::from(Arc::clone(&uses));
        let pending = poll_with(uses.0.lock().unwrap().as_mut().unwrap(), &waker).is_pending();
        assert!(pending);
        blocked.release();
        assert_eq!(told.recv_timeout(LONG), Ok(5));
    });
}

#[test]
fn guarantee_4_no_code_of_a_cancelled_or_refused_job_runs_under_a_lock() {
    within(LONG, "probes in a cancel", || {
        type End = fn(&Target, JoinHandle<()>);
        let ends: [(&str, End); 4] = [
            ("cancel", |_, handle| assert!(handle.cancel())),
            ("cancel_pending", |target, _| {
                assert!(target.pool.cancel_pending() > 0)
            }),
            ("shutdown_now", |target, _| drop(target.pool.shutdown_now())),
            ("shutdown", |target, _| drop(target.pool.shutdown())),
        ];
        for (name, end) in ends {
            let target = Target::new(|builder| builder);
            let blocked = block_workers(&target.pool, 2);
            let captured = Probe(Arc::clone(&target), "captures");
            let mut handle = target.pool.submit(move || drop(captured));
            let in_callback = Arc::clone(&target);
            handle.add_done_callback(move |_| in_callback.probe("callback"));
            let waker = probing_waker(&target);
            assert!(poll_with(&mut handle, &waker).is_pending());
            target.seen.lock().unwrap().clear();
            end(&target, handle);
            drop(blocked);
            for place in ["captures", "callback"] {
                target.assert_seen(place);
            }
            // Rejected at submit.
            if name.starts_with("shutdown") {
                let captured = Probe(Arc::clone(&target), "captures of a refused job");
                assert!(
                    target
                        .pool
                        .submit(move || drop(captured))
                        .join()
                        .unwrap_err()
                        .is_shutdown()
                );
                target.assert_seen("captures of a refused job");
            }
        }
    });
}

#[test]
fn guarantee_4_no_waker_of_a_submit_or_a_shutdown_runs_under_a_lock() {
    within(LONG, "probes in waits", || {
        let pool = ThreadPool::builder()
            .max_workers(1)
            .queue_capacity(1)
            .build()
            .unwrap();
        let seen = Mutex::default();
        let target = Arc::new(Target {
            pool,
            handle: Mutex::default(),
            seen,
            probes: AtomicUsize::new(0),
            full: OnceLock::new(),
        });
        // `submit` blocks on a full queue, so this probe does less.
        let blocked = block_workers(&target.pool, 1);
        let filled = target.pool.submit(|| ());
        let other = Target::new(|builder| builder);
        assert!(other.full.set(Arc::downgrade(&target)).is_ok());
        let waker = probing_waker(&other);
        let mut first = target.pool.submit_async(|| ());
        let mut second = target.pool.submit_async(|| ());
        assert!(poll_with(&mut first, &waker).is_pending());
        assert!(poll_with(&mut second, &waker).is_pending());
        other.seen.lock().unwrap().clear();
        assert!(poll_with(&mut first, &Waker::noop().clone()).is_pending());
        other.assert_seen("waker dropped");
        drop(second);
        assert!(poll_with(&mut first, &waker).is_pending());
        assert!(filled.cancel());
        other.assert_seen("waker woken");
        let mut end = target.pool.shutdown();
        let mut context = Context::from_waker(&waker);
        assert!(std::future::Future::poll(std::pin::Pin::new(&mut end), &mut context).is_pending());
        other.seen.lock().unwrap().clear();
        blocked.release();
        other.assert_seen("waker woken");
        futurepool::block_on(end);
    });
}

#[test]
fn guarantee_4_no_subscriber_runs_under_a_lock_and_its_panics_do_no_harm() {
    child::alone(
        "reentrancy::guarantee_4_no_subscriber_runs_under_a_lock_and_its_panics_do_no_harm",
        || {
            let target = Target::new(|builder| builder.thread_name_prefix("probed"));
            assert!(LISTENS.set(Arc::clone(&target)).is_ok());
            tracing::subscriber::set_global_default(Subscriber).unwrap();
            assert!(
                target
                    .pool
                    .submit(|| panic!("probe the subscriber"))
                    .join()
                    .unwrap_err()
                    .is_panic()
            );
            target.assert_seen("subscriber");
            let handle = target.pool.submit(|| 1);
            handle.add_done_callback(|_| panic!("probe the subscriber"));
            assert_eq!(handle.join().unwrap(), 1);
            let broken = ThreadPool::builder()
                .initializer(|| Err::<(), _>("probe the subscriber"))
                .build();
            assert!(
                broken
                    .unwrap()
                    .submit(|| ())
                    .join()
                    .unwrap_err()
                    .is_broken()
            );
            assert!(target.probes.load(SeqCst) >= 3);
        },
    );
}
