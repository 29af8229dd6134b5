//! What a console takes from the program that it shows.

use std::thread;
use std::time::Duration;

use futurepool::ThreadPool;

use crate::client::{served, snapshot};
use crate::common::child::alone;

/// Without a request, the console's thread does not even wake up. `alone`, as other tests ask
/// consoles.
#[cfg(target_os = "linux")]
#[test]
fn a_console_that_nothing_asks_uses_no_cpu_time() {
    alone("cost::a_console_that_nothing_asks_uses_no_cpu_time", || {
        let console = served();
        let pool = ThreadPool::new(2);
        pool.submit(|| ()).join().unwrap();
        let switches = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let of = |file: &str, task: &std::fs::DirEntry| {
                std::fs::read_to_string(task.path().join(file)).unwrap_or_default()
            };
            let mut own = tasks
                .map(Result::unwrap)
                .filter(|task| of("comm", task).starts_with("futurepool-cons"))
                .map(|task| of("status", &task));
            let status = own.next().expect("the console's thread");
            let line = status
                .lines()
                .find(|line| line.starts_with("voluntary_ctxt_switches"));
            line.unwrap().to_owned()
        };
        // It has to come to rest.
        thread::sleep(Duration::from_millis(500));
        let before = switches();
        thread::sleep(Duration::from_secs(2));
        assert_eq!(switches(), before);
        // With a request it looks at the pools, also after that.
        snapshot(&console);
        thread::sleep(Duration::from_secs(1));
        assert_ne!(switches(), before);
    });
}

/// A worker that holds still cannot stop the console, and a console in the middle of an answer
/// cannot stop a worker.
#[test]
fn jobs_run_while_clients_do_not_read_their_answers() {
    use std::io::Write;

    let console = served();
    let pool = ThreadPool::new(2);
    let streams: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(console.local_addr()).unwrap();
            for _ in 0..200 {
                let _ = stream.write_all(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n");
            }
            stream
        })
        .collect();
    for _ in 0..20 {
        let jobs: Vec<_> = (0..1000).map(|_| pool.submit(|| ())).collect();
        jobs.into_iter().for_each(|job| job.join().unwrap());
        snapshot(&console);
    }
    drop(streams);
}
