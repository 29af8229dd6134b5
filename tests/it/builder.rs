//! Options of a pool that call user code, `prestart`, and what a pool says of itself.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::thread;
use std::time::Duration;

use tracing::Level;

use crate::common::event_log::EventLog;
use crate::common::{
    Gate, LONG, block_workers, child, eventually, spawn_until_asleep, threads_named, within,
};
use futurepool::{Metrics, ThreadPool, ThreadPoolBuilder, block_on};

fn name_of_this_thread() -> String {
    thread::current().name().expect("a name").to_owned()
}

/// Returns the names of the first two workers.
fn two_names(builder: ThreadPoolBuilder) -> BTreeSet<String> {
    let pool = builder.max_workers(2).build().unwrap();
    let barrier = Arc::new(std::sync::Barrier::new(2));
    let name = |_| {
        let barrier = Arc::clone(&barrier);
        pool.submit(move || {
            barrier.wait();
            name_of_this_thread()
        })
    };
    let handles: Vec<_> = (0..2).map(name).collect();
    let names = handles.into_iter().map(|handle| handle.join().unwrap());
    names.collect()
}

#[test]
fn thread_name_is_used_instead_of_the_prefix() {
    within(LONG, "thread_name", || {
        let builder = ThreadPool::builder().thread_name(|n| format!("my {n}!"));
        let wanted = BTreeSet::from(["my 0!".to_owned(), "my 1!".to_owned()]);
        assert_eq!(two_names(builder.thread_name_prefix("unused")), wanted);
        let names = two_names(ThreadPool::builder().thread_name(|_| String::from("same")));
        assert_eq!(names.len(), 1);
    });
}

#[test]
fn a_thread_name_that_fails_becomes_the_default_one() {
    within(LONG, "default names", || {
        let wanted = BTreeSet::from(["worker-0".to_owned(), "worker-1".to_owned()]);
        let builder = || ThreadPool::builder().thread_name_prefix("worker");
        let panics = builder().thread_name(|n| panic!("no name for {n}"));
        assert_eq!(two_names(panics), wanted);
        let nul = builder().thread_name(|n| format!("a\0b{n}"));
        assert_eq!(two_names(nul), wanted);
        let without_prefix = two_names(ThreadPool::builder().thread_name(|_| panic!("none")));
        assert!(
            without_prefix
                .iter()
                .all(|name| name.starts_with("futurepool-")),
            "{without_prefix:?}"
        );
        let one_fails = builder().thread_name(|n| {
            assert_eq!(n, 0, "on purpose");
            "fine".to_owned()
        });
        let wanted = BTreeSet::from(["fine".to_owned(), "worker-1".to_owned()]);
        assert_eq!(two_names(one_fails), wanted);
    });
}

#[test]
fn a_thread_name_that_fails_is_reported() {
    child::alone("builder::a_thread_name_that_fails_is_reported", || {
        EventLog::install();
        let panics = ThreadPool::builder().thread_name(|_| panic!("nameless"));
        two_names(panics.thread_name_prefix("first"));
        let nul = ThreadPool::builder().thread_name(|_| "\0".to_owned());
        two_names(nul.thread_name_prefix("second"));
        assert!(EventLog::contains_at(Level::WARN, &["first", "nameless"]));
        assert!(EventLog::contains_at(Level::WARN, &["second", "NUL"]));
    });
}

#[test]
fn a_function_that_names_threads_may_use_the_pool() {
    within(LONG, "re-entered", || {
        let cell: Arc<OnceLock<Weak<ThreadPool>>> = Arc::default();
        let own = Arc::clone(&cell);
        let pool = ThreadPool::builder().max_workers(3).thread_name(move |n| {
            if let Some(pool) = own.get().and_then(Weak::upgrade) {
                drop((pool.metrics(), pool.submit(|| ())));
            }
            format!("re-entered-{n}")
        });
        let pool = Arc::new(pool.build().unwrap());
        cell.set(Arc::downgrade(&pool)).unwrap();
        assert_eq!(pool.submit(|| 7).join().unwrap(), 7);
        pool.wait_idle().join();
    });
}

thread_local! {
    static JOBS: Cell<usize> = const { Cell::new(0) };
}

#[test]
fn on_exit_runs_once_on_each_worker_after_its_last_job() {
    within(LONG, "on_exit", || {
        let jobs_at_exit = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&jobs_at_exit);
        let pool = ThreadPool::builder()
            .max_workers(3)
            .on_exit(move || seen.lock().unwrap().push(JOBS.get()))
            .build()
            .unwrap();
        block_workers(&pool, 3).release();
        let count = || JOBS.set(JOBS.get() + 1);
        let handles: Vec<_> = (0..300).map(|_| pool.submit(count)).collect();
        for handle in handles {
            handle.join().unwrap();
        }
        assert!(jobs_at_exit.lock().unwrap().is_empty());
        pool.shutdown().join();
        let jobs = jobs_at_exit.lock().unwrap();
        assert_eq!((jobs.len(), jobs.iter().sum::<usize>()), (3, 300));
    });
}

#[test]
fn on_exit_runs_after_the_keep_alive_too() {
    within(LONG, "keep_alive", || {
        let (exits, exit) = mpsc::channel();
        let pool = ThreadPool::builder()
            .max_workers(1)
            .keep_alive(Duration::from_millis(1))
            .on_exit(move || exits.send(name_of_this_thread()).unwrap())
            .thread_name_prefix("leaves")
            .build()
            .unwrap();
        for _ in 0..3 {
            pool.submit(|| ()).join().unwrap();
            assert_eq!(exit.recv_timeout(LONG).unwrap(), "leaves-0");
        }
    });
}

#[test]
fn on_exit_does_not_run_after_an_initializer_that_failed() {
    within(LONG, "failed initializer", || {
        for panics in [false, true] {
            let exited = Arc::new(AtomicBool::new(false));
            let exits = Arc::clone(&exited);
            let pool = ThreadPool::builder()
                .initializer(move || match panics {
                    true => panic!("on purpose"),
                    false => Err::<(), _>("on purpose"),
                })
                .on_exit(move || exits.store(true, SeqCst))
                .build()
                .unwrap();
            assert!(pool.submit(|| ()).join().unwrap_err().is_broken());
            drop(pool);
            assert!(!exited.load(SeqCst));
        }
    });
}

#[test]
fn on_exit_that_panics_is_reported_and_harms_nothing() {
    child::alone(
        "builder::on_exit_that_panics_is_reported_and_harms_nothing",
        || {
            EventLog::install();
            let pool = ThreadPool::builder()
                .max_workers(2)
                .on_exit(|| panic!("exit boom"))
                .build()
                .unwrap();
            block_workers(&pool, 2).release();
            pool.shutdown().join();
            assert_eq!(pool.metrics().workers, 0);
            assert!(EventLog::contains_at(
                Level::ERROR,
                &["exit hook", "exit boom"]
            ));
        },
    );
}

#[test]
fn only_a_joined_shutdown_waits_for_on_exit() {
    within(LONG, "slow on_exit", || {
        let gate = Gate::new();
        let wait = gate.clone();
        let (exits, exit) = mpsc::channel();
        let pool = Arc::new(
            ThreadPool::builder()
                .max_workers(1)
                .keep_alive(Duration::from_millis(1))
                .on_exit(move || {
                    let _ = exits.send(());
                    wait.wait();
                })
                .build()
                .unwrap(),
        );
        pool.submit(|| ()).join().unwrap();
        exit.recv_timeout(LONG).unwrap();
        // The worker in its hook no longer counts: another one may start.
        assert_eq!(pool.metrics().workers, 0);
        assert_eq!(pool.submit(|| 7).join().unwrap(), 7);
        exit.recv_timeout(LONG).unwrap();
        block_on(pool.shutdown());
        pool.shutdown().join_timeout(LONG).unwrap();
        let joins = Arc::clone(&pool);
        let joining = spawn_until_asleep(move || joins.shutdown().join());
        assert!(!joining.is_finished());
        gate.open();
        joining.join().unwrap();
    });
}

#[test]
fn in_on_exit_waits_for_the_own_pool_end_at_once() {
    within(LONG, "waits in on_exit", || {
        let cell: Arc<OnceLock<Weak<ThreadPool>>> = Arc::default();
        let own = Arc::clone(&cell);
        let waited = Arc::new(AtomicUsize::new(0));
        let waits = Arc::clone(&waited);
        let hook = move || {
            let Some(pool) = own.get().and_then(Weak::upgrade) else {
                return;
            };
            pool.wait_idle().join();
            pool.shutdown().join();
            pool.shutdown().join_timeout(LONG).unwrap();
            block_on(pool.shutdown());
            waits.fetch_add(1, SeqCst);
            drop(pool);
        };
        let pool = ThreadPool::builder().max_workers(2).on_exit(hook);
        let pool = Arc::new(pool.build().unwrap());
        cell.set(Arc::downgrade(&pool)).unwrap();
        let blocked = block_workers(&pool, 1);
        let other = pool.submit(|| ());
        other.join().unwrap();
        let joins = Arc::clone(&pool);
        let joining = thread::spawn(move || joins.shutdown().join());
        // One worker exits while the other is busy: its waits would never end.
        eventually("the hook has waited", || waited.load(SeqCst) == 1);
        blocked.release();
        joining.join().unwrap();
        assert_eq!(waited.load(SeqCst), 2);
    });
}

#[cfg(feature = "tokio")]
#[test]
fn on_exit_runs_inside_the_runtime() {
    within(LONG, "runtime", || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (tell, told) = mpsc::channel();
        let hook = move || {
            tell.send(tokio::runtime::Handle::try_current().is_ok())
                .unwrap()
        };
        let pool = ThreadPool::builder().tokio_handle(runtime.handle().clone());
        let pool = pool.on_exit(hook).build().unwrap();
        pool.submit(|| ()).join().unwrap();
        drop(pool);
        assert!(told.recv_timeout(LONG).unwrap());
    });
}

#[cfg(feature = "tokio")]
#[test]
fn the_last_of_tokio_handle_and_no_tokio_counts() {
    within(LONG, "no_tokio", || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = || runtime.handle().clone();
        let _entered = runtime.enter();
        let in_runtime = |builder: ThreadPoolBuilder| {
            let pool = builder.max_workers(1).build().unwrap();
            let is_in = || tokio::runtime::Handle::try_current().is_ok();
            pool.submit(is_in).join().unwrap()
        };
        let builder = ThreadPool::builder;
        assert!(in_runtime(builder()));
        assert!(!in_runtime(builder().no_tokio()));
        assert!(!in_runtime(builder().tokio_handle(handle()).no_tokio()));
        assert!(in_runtime(builder().no_tokio().tokio_handle(handle())));
    });
}

#[test]
fn no_tokio_is_there_without_the_feature() {
    let pool = ThreadPool::builder().max_workers(1).no_tokio().build();
    assert_eq!(pool.unwrap().submit(|| 7).join().unwrap(), 7);
}

#[test]
fn destructors_of_the_users_functions_are_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let bomb = || {
        let bomb = Bomb;
        move || {
            let _ = &bomb;
        }
    };
    let (name, init, exit) = (bomb(), bomb(), bomb());
    let builder = ThreadPool::builder()
        .max_workers(1)
        .thread_name(move |n| {
            name();
            format!("bomb-{n}")
        })
        .initializer(init)
        .on_exit(exit);
    let pool = builder.build().unwrap();
    assert_eq!(pool.submit(|| 7).join().unwrap(), 7);
    pool.shutdown().join();
    // Its threads are gone, so this drops the last reference.
    drop(pool);
}

#[test]
fn prestart_starts_workers_without_jobs_and_does_not_wait_for_them() {
    within(LONG, "prestart", || {
        let gate = Gate::new();
        let wait = gate.clone();
        let started = Arc::new(AtomicUsize::new(0));
        let starts = Arc::clone(&started);
        let pool = ThreadPool::builder()
            .max_workers(4)
            .thread_name_prefix("prestart")
            .initializer(move || {
                starts.fetch_add(1, SeqCst);
                wait.wait();
            })
            .build()
            .unwrap();
        pool.prestart(0);
        assert_eq!(pool.metrics().workers, 0);
        pool.prestart(2);
        pool.prestart(1);
        assert_eq!(pool.metrics().workers, 2);
        pool.prestart(usize::MAX);
        let metrics = pool.metrics();
        assert_eq!((metrics.workers, metrics.submitted), (4, 0));
        eventually("they start", || started.load(SeqCst) == 4);
        gate.open();
        eventually("they are idle", || pool.metrics().idle == 4);
        if cfg!(target_os = "linux") {
            assert_eq!(threads_named("prestart-"), 4);
        }
        block_workers(&pool, 4).release();
        pool.prestart(4);
        assert_eq!((started.load(SeqCst), pool.metrics().workers), (4, 4));
    });
}

#[test]
fn prestart_of_a_closed_pool_starts_nothing() {
    within(LONG, "closed", || {
        let pool = ThreadPool::new(4);
        pool.shutdown();
        pool.prestart(4);
        assert_eq!(pool.metrics().workers, 0);
        // One whose last job still runs.
        let pool = ThreadPool::new(4);
        let blocked = block_workers(&pool, 1);
        pool.shutdown();
        pool.prestart(4);
        assert_eq!(pool.metrics().workers, 1);
        blocked.release();
        let pool = ThreadPool::builder()
            .max_workers(4)
            .initializer(|| Err::<(), _>("on purpose"))
            .build()
            .unwrap();
        pool.prestart(1);
        eventually("it breaks", || pool.try_submit(|| ()).is_err());
        pool.prestart(4);
        eventually("its worker exits", || pool.metrics().workers == 0);
    });
}

#[test]
fn prestarted_workers_exit_after_the_keep_alive() {
    within(LONG, "keep_alive", || {
        let pool = ThreadPool::builder()
            .max_workers(2)
            .keep_alive(Duration::from_millis(1))
            .build()
            .unwrap();
        pool.prestart(2);
        eventually("they exit", || pool.metrics().workers == 0);
        assert_eq!(pool.submit(|| 7).join().unwrap(), 7);
    });
}

#[test]
fn is_shutdown_is_about_calls_of_shutdown() {
    within(LONG, "is_shutdown", || {
        let pool = ThreadPool::new(1);
        assert!(!pool.is_shutdown());
        let blocked = block_workers(&pool, 1);
        drop(pool.shutdown());
        assert!(pool.is_shutdown());
        blocked.release();
        let pool = ThreadPool::new(1);
        pool.shutdown_now();
        assert!(pool.is_shutdown());
        for shutdown in [ThreadPool::shutdown, ThreadPool::shutdown_now] {
            let pool = ThreadPool::builder()
                .initializer(|| Err::<(), _>("on purpose"))
                .build()
                .unwrap();
            assert!(pool.submit(|| ()).join().unwrap_err().is_broken());
            assert!(!pool.is_shutdown(), "it is broken");
            drop(shutdown(&pool));
            assert!(pool.is_shutdown());
            assert!(pool.submit(|| ()).join().unwrap_err().is_broken());
        }
    });
}

#[test]
fn cancel_pending_is_another_name_of_cancel_queued() {
    within(LONG, "cancel_queued", || {
        for cancel in [ThreadPool::cancel_queued, ThreadPool::cancel_pending] {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let queued = [pool.submit(|| ()), pool.submit(|| ())];
            assert_eq!(cancel(&pool), 2);
            assert!(queued.iter().all(|handle| handle.is_cancelled()));
            blocked.release();
            assert_eq!(pool.submit(|| 7).join().unwrap(), 7);
        }
    });
}

#[test]
fn metrics_are_cloned() {
    fn assert_bounds<T: Clone + Send + Sync + Default + PartialEq + 'static>(_: &T) {}
    let metrics: Metrics = ThreadPool::new(1).metrics();
    assert_bounds(&metrics);
    assert_eq!(metrics, metrics.clone());
}

#[test]
fn a_builder_prints_each_field_once() {
    let builder = ThreadPool::builder()
        .thread_name(|n| n.to_string())
        .on_exit(|| ());
    let text = format!("{builder:?}");
    let fields = [
        "max_workers",
        "queue_capacity",
        "thread_name_prefix",
        "thread_name",
        "stack_size",
        "keep_alive",
        "initializer",
        "on_exit",
    ];
    for field in fields {
        let count = text.matches(&format!(" {field}: ")).count();
        assert_eq!(count, 1, "{field} in {text}");
    }
    let runtimes = text.matches(" runtime: ").count();
    assert_eq!(runtimes, usize::from(cfg!(feature = "tokio")));
}

#[test]
fn a_pool_of_no_workers_names_the_callers_line() {
    child::alone(
        "builder::a_pool_of_no_workers_names_the_callers_line",
        || {
            static PLACE: Mutex<Option<(String, u32)>> = Mutex::new(None);
            std::panic::set_hook(Box::new(|info| {
                let place = info.location().map(|at| (at.file().to_owned(), at.line()));
                *PLACE.lock().unwrap() = place;
            }));
            let line = line!() + 1;
            let result = catch_unwind(|| ThreadPool::new(0));
            let _ = std::panic::take_hook();
            assert!(result.is_err());
            let (file, at) = PLACE.lock().unwrap().take().unwrap();
            assert!(file.ends_with("builder.rs") && at == line, "{file}:{at}");
        },
    );
}

#[test]
fn prestart_returns_although_workers_exit_meanwhile() {
    within(LONG, "prestart with a short keep-alive", || {
        let builder = ThreadPool::builder().max_workers(200);
        let pool = builder.keep_alive(Duration::ZERO).build().unwrap();
        pool.prestart(200);
        assert_eq!(pool.submit(|| 7).join().unwrap(), 7);
    });
}
