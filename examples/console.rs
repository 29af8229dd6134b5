//! A program with a live console: its pools, what their workers run, the queue, panics and kills.
//!
//! ```text
//! cargo run --release --all-features --example console -- --seconds 600 --listen 127.0.0.1:6670
//! ```
//!
//! Then open the printed address in a browser, or run `futurepool-top 127.0.0.1:6670`. Without
//! options the example runs for a moment and reads its own console.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{ThreadPool, console};

fn main() -> Result<(), Box<dyn Error>> {
    // First: in a worker process this runs tasks, and does not return.
    #[cfg(all(unix, feature = "process"))]
    futurepool::process::init();

    let (mut seconds, mut listen) = (0, "127.0.0.1:0".to_owned());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or("an option needs a value")?;
        match argument.as_str() {
            "--seconds" => seconds = value.parse()?,
            "--listen" => listen = value,
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    let console = console::serve(&listen)?;
    println!("http://{}/", console.local_addr());

    let end = Instant::now() + Duration::from_secs(seconds).max(Duration::from_millis(600));
    let loads = [
        thread::spawn(move || web(end)),
        thread::spawn(move || hashes(end)),
        thread::spawn(move || broken_images(end)),
    ];
    #[cfg(all(unix, feature = "process"))]
    let processes = thread::spawn(move || processes::run(end));

    // What a browser asks for, again and again.
    let mut seen = String::new();
    while Instant::now() < end {
        seen = get(console.local_addr(), "/snapshot.json")?;
        thread::sleep(Duration::from_millis(50));
    }
    for load in loads {
        load.join().expect("the load does not panic");
    }
    #[cfg(all(unix, feature = "process"))]
    processes.join().expect("the load does not panic");

    for name in ["\"web\"", "\"hash\"", "\"images\""] {
        assert!(seen.contains(name), "no pool {name} in {seen}");
    }
    assert!(get(console.local_addr(), "/")?.contains("<!doctype html>"));
    console.shutdown();
    println!("the console has shown {} bytes at last", seen.len());
    Ok(())
}

/// Waits, as requests to a database do: most of them briefly, some of them not.
fn web(end: Instant) {
    let pool = ThreadPool::builder()
        .max_workers(6)
        .thread_name_prefix("web")
        .build()
        .expect("the options are valid");
    let mut number = 0_u64;
    while Instant::now() < end {
        number += 1;
        let millis = 4 + number * 7919 % 60;
        let article = pool.job(move || thread::sleep(Duration::from_millis(millis)));
        // Dropping a handle detaches its job.
        drop(article.label("get article").submit());
        if number % 40 == 0 {
            let report = move || thread::sleep(Duration::from_millis(1500));
            drop(pool.job(report).label("monthly report").submit());
        }
        // A wave of requests, then a pause.
        let pause = if number % 400 < 250 { 6 } else { 24 };
        thread::sleep(Duration::from_millis(pause));
    }
}

/// Many short jobs that compute.
fn hashes(end: Instant) {
    let pool = ThreadPool::builder()
        .max_workers(2)
        .thread_name_prefix("hash")
        .build()
        .expect("the options are valid");
    let data = Arc::new(vec![7_u8; 4096]);
    while Instant::now() < end {
        let jobs = (0..200).map(|_| {
            let data = Arc::clone(&data);
            let sum = |sum: u64, byte: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
            let checksum = pool.job(move || data.iter().fold(0, sum));
            checksum.label("checksum").submit()
        });
        let jobs: Vec<_> = jobs.collect();
        for job in jobs {
            job.join().expect("a hash");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A bounded queue that is full at times, and a job that panics at times.
fn broken_images(end: Instant) {
    let pool = ThreadPool::builder()
        .max_workers(2)
        .queue_capacity(8)
        .thread_name_prefix("images")
        .build()
        .expect("the options are valid");
    for number in 0_u64.. {
        if Instant::now() >= end {
            break;
        }
        let decode = move || {
            thread::sleep(Duration::from_millis(30 + number % 7 * 20));
            assert!(number % 150 != 7, "image {number} has no pixels");
        };
        // On a full queue the image is left out.
        let _ = pool.job(decode).label("decode").try_submit();
        let pause = if number % 200 < 60 { 20 } else { 60 };
        thread::sleep(Duration::from_millis(pause));
    }
}

#[cfg(all(unix, feature = "process"))]
mod processes {
    use std::thread;
    use std::time::{Duration, Instant};

    use futurepool::{ProcessPool, task};

    #[task]
    fn thumbnail(millis: u64) -> u64 {
        thread::sleep(Duration::from_millis(millis));
        millis
    }

    #[task]
    fn endless() -> u64 {
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Jobs in worker processes. One in a while never ends, and is killed.
    pub(super) fn run(end: Instant) {
        let builder = ProcessPool::builder().max_workers(3);
        let pool = builder.name("thumbnails").build();
        let pool = pool.expect("the options are valid");
        for number in 0_u64.. {
            if Instant::now() >= end {
                break;
            }
            drop(pool.submit(thumbnail::call(20 + number * 37 % 200)));
            if number % 60 == 5 {
                drop(pool.submit(endless::call().time_limit(Duration::from_millis(1200))));
            }
            thread::sleep(Duration::from_millis(60));
        }
    }
}

/// Returns the answer to a request, with its head.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(answer)
}
