//! The public face, over the broker in memory: what is called in odd states and with odd values.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::TestServer;
use futurepool::{task, tasks};
use futurepool_cluster::{Cluster, ConnectError, MemoryBroker, Server, Worker};

#[task(name = "double")]
fn double(n: u64) -> u64 {
    2 * n
}

#[task]
fn unnamed(n: u64) -> u64 {
    n
}

/// Tells that the task `block` runs.
static BLOCKED: AtomicBool = AtomicBool::new(false);

#[task(name = "block")]
fn block() {
    BLOCKED.store(true, Ordering::Relaxed);
    loop {
        thread::park();
    }
}

#[task(name = "sleep")]
fn sleep(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

/// Runs `f` on a thread, and fails if it takes longer than a minute.
fn within<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, result) = mpsc::channel();
    thread::spawn(move || {
        let _ = done.send(f());
    });
    result
        .recv_timeout(Duration::from_secs(60))
        .expect("it hangs, or has panicked")
}

/// Runs a closure on the thread that resolves handles.
struct OnWake<F>(std::sync::Mutex<Option<F>>);

impl<F: FnOnce() + Send + 'static> std::task::Wake for OnWake<F> {
    fn wake(self: std::sync::Arc<Self>) {
        let f = self.0.lock().unwrap().take();
        if let Some(f) = f {
            f();
        }
    }
}

fn on_resolved<T>(handle: &mut futurepool::JoinHandle<T>, f: impl FnOnce() + Send + 'static) {
    let waker = std::task::Waker::from(Arc::new(OnWake(std::sync::Mutex::new(Some(f)))));
    let mut context = std::task::Context::from_waker(&waker);
    assert!(std::pin::Pin::new(handle).poll(&mut context).is_pending());
}

#[test]
fn a_detached_job_that_cannot_be_submitted_does_not_hang() {
    let cluster = Cluster::connect(MemoryBroker::new()).build().unwrap();
    let error = within(move || {
        let handle = cluster.submit_detached("k", unnamed::call(1)).unwrap();
        handle.join().unwrap_err()
    });
    assert!(error.is_refused() && !error.may_have_run(), "{error}");
}

#[test]
fn a_worker_returns_although_a_task_never_ends() {
    let broker = MemoryBroker::new();
    let worker = Worker::new(tasks![block])
        .threads(1)
        .lease(Duration::from_secs(3))
        .drain_grace(Duration::from_millis(50))
        .connect(&broker)
        .unwrap();
    let drain = worker.drain_handle();
    let cluster = Cluster::connect(&broker).build().unwrap();
    let _handle = cluster.submit(block::call());
    within(move || {
        let run = thread::spawn(|| worker.run());
        while !BLOCKED.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        drain.drain();
        run.join().unwrap().unwrap();
    });
    std::mem::forget(cluster);
}

#[test]
fn a_shutdown_has_resolved_the_handles() {
    let broker = MemoryBroker::new();
    let worker = Worker::new(tasks![double])
        .threads(2)
        .connect(&broker)
        .unwrap();
    let drain = worker.drain_handle();
    let cluster = Cluster::connect(&broker).build().unwrap();
    let mut first = cluster.submit(double::call(1));
    on_resolved(&mut first, || thread::sleep(Duration::from_millis(700)));
    let second = cluster.submit(double::call(2));
    let worker = thread::spawn(|| worker.run());
    drop(cluster);
    assert!(second.is_finished());
    drain.drain();
    worker.join().unwrap().unwrap();
}

#[test]
fn a_dropped_attach_is_not_waited_for() {
    let broker = MemoryBroker::new();
    let cluster = Cluster::connect(&broker).build().unwrap();
    let _handle = cluster.submit_detached("k", double::call(1)).unwrap();
    within(move || {
        drop(cluster.attach::<double>("k"));
        drop(cluster);
    });
}

#[test]
fn an_attach_is_not_waited_for() {
    let broker = MemoryBroker::new();
    let cluster = Cluster::connect(&broker).build().unwrap();
    let _handle = cluster.submit_detached("k", double::call(1)).unwrap();
    within(move || {
        let attached = cluster.attach::<double>("k");
        cluster.shutdown_now().join();
        assert!(attached.is_finished());
    });
}

#[test]
fn room_is_there_once_a_handle_has_resolved() {
    let broker = MemoryBroker::new();
    let worker = Worker::new(tasks![double])
        .threads(2)
        .connect(&broker)
        .unwrap();
    let drain = worker.drain_handle();
    let worker = thread::spawn(|| worker.run());
    let cluster = Cluster::connect(&broker).window(1).build().unwrap();
    for n in 0..500 {
        let handle = cluster.try_submit(double::call(n)).unwrap();
        handle.join().unwrap();
    }
    drop(cluster);
    drain.drain();
    worker.join().unwrap().unwrap();
}

#[test]
fn huge_times_are_no_trouble() {
    let invalid: Vec<ConnectError> = [Duration::MAX, Duration::from_secs(1 << 40)]
        .into_iter()
        .filter_map(|lease| {
            Cluster::connect(MemoryBroker::new())
                .lease(lease)
                .build()
                .err()
        })
        .collect();
    assert_eq!(invalid.len(), 2);
    for error in invalid {
        assert!(error.is_invalid_option(), "{error}");
    }
    let broker = MemoryBroker::new();
    let worker = Worker::new(tasks![double])
        .threads(2)
        .drain_grace(Duration::MAX)
        .connect(&broker)
        .unwrap();
    let drain = worker.drain_handle();
    let worker = thread::spawn(|| worker.run());
    let cluster = Cluster::connect(&broker)
        .disconnect_limit(Duration::MAX)
        .no_worker_timeout(Duration::MAX)
        .build()
        .unwrap();
    let call = double::call(2).deadline(std::time::Instant::now() + Duration::from_secs(1 << 40));
    assert_eq!(within(move || cluster.submit(call).join().unwrap()), 4);
    drain.drain();
    worker.join().unwrap().unwrap();
}

#[test]
fn odd_numbers_of_slots_are_refused() {
    for slots in [0, 1 << 40, usize::MAX] {
        let pool = futurepool::ThreadPool::new(1);
        let worker = Worker::new(tasks![double]).executor(pool, slots);
        let result = within(move || worker.connect(MemoryBroker::new()).map(drop));
        assert!(result.unwrap_err().is_invalid_option());
    }
}

#[test]
fn a_callback_may_submit_detached_jobs_though_the_window_is_full() {
    let broker = MemoryBroker::new();
    let worker = Worker::new(tasks![double])
        .threads(2)
        .connect(&broker)
        .unwrap();
    let drain = worker.drain_handle();
    let cluster = Arc::new(Cluster::connect(&broker).window(1).build().unwrap());
    let (done, result) = mpsc::channel();
    let shared = Arc::clone(&cluster);
    let mut handle = cluster.submit(double::call(1));
    on_resolved(&mut handle, move || {
        let handle = shared.submit_detached("k", double::call(21)).unwrap();
        let _ = done.send(handle);
    });
    let worker = thread::spawn(|| worker.run());
    let handle = result.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(within(|| handle.join()).unwrap(), 42);
    drop(cluster);
    drain.drain();
    worker.join().unwrap().unwrap();
}

#[test]
fn a_submit_that_races_with_a_shutdown_resolves() {
    let broker = MemoryBroker::new();
    let worker = Worker::new(tasks![double])
        .threads(2)
        .connect(&broker)
        .unwrap();
    let drain = worker.drain_handle();
    let worker = thread::spawn(|| worker.run());
    for _ in 0..100 {
        let cluster = Arc::new(Cluster::connect(&broker).build().unwrap());
        let submitters: Vec<_> = (0..3)
            .map(|_| {
                let cluster = Arc::clone(&cluster);
                thread::spawn(move || {
                    loop {
                        match cluster.submit(double::call(1)).join() {
                            Ok(output) => assert_eq!(output, 2),
                            Err(error) => break error,
                        }
                    }
                })
            })
            .collect();
        within(move || {
            thread::sleep(Duration::from_millis(3));
            cluster.shutdown().join();
            for submitter in submitters {
                let error = submitter.join().unwrap();
                assert!(error.is_shutdown() && !error.may_have_run(), "{error:?}");
            }
        });
    }
    drain.drain();
    worker.join().unwrap().unwrap();
}

#[test]
fn a_console_is_an_address_of_the_web() {
    for url in ["javascript:alert(1)", "10.0.0.7:6670", "http://a b", ""] {
        let worker = Worker::new(tasks![double]).console(url);
        let error = worker.connect(MemoryBroker::new()).map(drop).unwrap_err();
        assert!(error.is_invalid_option(), "{url}: {error}");
    }
}

#[test]
fn keys_and_names_of_any_length_break_no_connection() {
    let server = TestServer::start();
    let queue = "ü".repeat(64);
    let error = Cluster::connect(server.url())
        .queue(&*queue)
        .build()
        .unwrap_err();
    assert!(error.is_invalid_option(), "{error}");
    let worker = Worker::new(tasks![double]).queue(queue);
    let error = worker.connect(server.url()).map(drop).unwrap_err();
    assert!(error.is_invalid_option(), "{error}");

    let cluster = Cluster::connect(server.url()).build().unwrap();
    within(move || {
        let long = "k".repeat(5000);
        let error = cluster.submit_detached(&long, double::call(1)).unwrap_err();
        assert!(error.is_refused(), "{error}");
        let error = cluster.attach::<double>(&long).join().unwrap_err();
        assert!(error.is_refused(), "{error}");
        // The connection still works.
        let error = cluster.attach::<double>("k\0\r\n ü").join().unwrap_err();
        assert!(error.is_refused(), "{error}");
    });
}

#[test]
fn long_labels_do_not_make_a_worker_seem_dead() {
    let server = TestServer::start();
    let lease = Duration::from_secs(1);
    let worker = Worker::new(tasks![sleep])
        .threads(20)
        .lease(lease)
        .connect(server.url())
        .unwrap();
    let drain = worker.drain_handle();
    let worker = thread::spawn(|| worker.run());
    let cluster = Cluster::connect(server.url()).build().unwrap();
    // Together they are larger than a message of the server can be.
    let label = "x".repeat(60_000);
    let handles = [(); 20].map(|()| cluster.submit(sleep::call(4_000).label(label.clone())));
    for handle in handles {
        within(|| handle.join()).unwrap();
    }
    drop(cluster);
    drain.drain();
    worker.join().unwrap().unwrap();
}

#[test]
fn an_identity_is_a_word() {
    let server = TestServer::start();
    for identity in ["a b", "", "a.b", "a\r\nPUB x 0", "*", "ü"] {
        let server = Server::new(server.url()).identity(identity);
        let worker_server = server.clone();
        let error =
            within(move || Cluster::connect(server).build().map(std::mem::forget)).unwrap_err();
        assert!(error.is_invalid_option(), "{error}");
        let error = within(move || Worker::new(tasks![double]).connect(worker_server).map(drop))
            .unwrap_err();
        assert!(error.is_invalid_option(), "{error}");
    }
}
