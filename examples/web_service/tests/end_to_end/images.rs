//! Tests that what an image does to its decoder harms no other request, and that no process is
//! left.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::header::RETRY_AFTER;
use futurepool::process::WorkerState;
use image::GenericImageView;
use png::{BitDepth, ColorType, Compression, Encoder, Filter};
use rustix::process::{Pid, Signal, test_kill_process};
use tokio::task::JoinSet;
use web_service::{BODY_LIMIT, Decoder, ImageOptions, SIDE};

use crate::binary::{Service, metrics_when};
use crate::common::{
    Client, PATIENCE, Server, balanced, image_options, jpeg, new_database, pools, sentence, until,
    user_row,
};

const LONG: Duration = Duration::from_secs(30);

const CRASH: Bytes = Bytes::from_static(b"FAULTY crash");
const LOOP: Bytes = Bytes::from_static(b"FAULTY loop");
const LEAK: Bytes = Bytes::from_static(b"FAULTY leak"); // of 80 MiB
const PANIC: Bytes = Bytes::from_static(b"FAULTY panic");

/// Starts a service whose decoder has bugs.
async fn faulty(processes: usize, queue: usize, drain: Duration) -> Server {
    let options = ImageOptions {
        decoder: Decoder::Faulty,
        ..image_options(processes)
    };
    Server::start_with(1, queue, drain, options).await
}

fn running(server: &Server) -> Vec<u32> {
    let workers = pools(&server.app).images.workers().into_iter();
    let running = workers.filter(|worker| worker.state == WorkerState::Running);
    running.map(|worker| worker.pid).collect()
}

/// Returns whether a process exists and is not a zombie. The init process may be slow to reap
/// orphans.
fn is_alive(pid: u32) -> bool {
    let exists = Pid::from_raw(pid as i32).is_some_and(|pid| test_kill_process(pid).is_ok());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest.trim_start());
    exists && !state.starts_with(['Z', 'X'])
}

async fn all_gone(pids: &[u32]) -> Duration {
    let begin = Instant::now();
    until("the processes are gone", || {
        !pids.iter().any(|&pid| is_alive(pid))
    })
    .await;
    begin.elapsed()
}

/// Sends an image, and keeps the connection open.
fn upload(server: SocketAddr, image: &[u8]) -> TcpStream {
    let head = "POST /thumbnail HTTP/1.1\r\nhost: test\r\n";
    let head = format!("{head}content-length: {}\r\n\r\n", image.len());
    let mut connection = TcpStream::connect(server).expect("a connection");
    let sent = connection.write_all(&[head.as_bytes(), image].concat());
    sent.expect("the request is sent");
    connection
}

/// Draws nothing: 45,000 by 45,000 black pixels. A decoder turns them into 2 GB.
fn bomb() -> Bytes {
    const SIDE: usize = 45_000;
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, SIDE as u32, SIDE as u32);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::One);
    encoder.set_compression(Compression::Balanced);
    encoder.set_filter(Filter::NoFilter);
    let mut writer = encoder.write_header().expect("writing to memory");
    let mut rows = writer.stream_writer().expect("writing to memory");
    let row = vec![0; SIDE.div_ceil(8)];
    for _ in 0..SIDE {
        rows.write_all(&row).expect("writing to memory");
    }
    rows.finish().expect("all rows are there");
    drop(writer);
    file.into()
}

/// Checks that queries and thumbnails are answered.
async fn lives(client: &Client) {
    let user = client.get("/users/1").await.unwrap();
    assert_eq!((user.status, sentence(&user)), (200, &*user_row(1)));
    let small = client.thumbnail(&jpeg(256, 128)).await.unwrap();
    assert_eq!(small.status, 200);
    let small = image::load_from_memory(&small.body).expect("an image");
    assert_eq!(small.dimensions(), (SIDE, SIDE / 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_careful_decoder_refuses_a_bomb_by_its_size() {
    let server = Server::start(1, 8, LONG).await;
    let client = server.client();
    let bomb = bomb();
    println!("the bomb has {} bytes", bomb.len());
    assert!(bomb.len() < BODY_LIMIT / 4);
    let answer = client.thumbnail(&bomb).await.unwrap();
    assert_eq!(
        (answer.status, sentence(&answer)),
        (413, "The image is too large to decode.\n")
    );
    assert_eq!((server.images().failed, server.images().completed), (0, 2));
    lives(&client).await;
    server.stop().await;
}

/// The limit of its process stops a decoder that has no limits.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bomb_exceeds_the_memory_limit_and_the_service_lives() {
    let server = faulty(2, 8, LONG).await;
    let client = server.client();
    let mut bombs = JoinSet::new();
    let (image, sender) = (bomb(), server.client());
    let begin = Instant::now();
    bombs.spawn(async move { sender.thumbnail(&image).await });
    until("the bomb is being decoded", || !running(&server).is_empty()).await;
    lives(&client).await; // meanwhile, if the bomb takes long enough
    let answer = bombs.join_next().await.unwrap().unwrap().unwrap();
    println!("the bomb: {} after {:.2?}", answer.status, begin.elapsed());
    assert_eq!(
        (answer.status, sentence(&answer)),
        (413, "The image takes too much memory to decode.\n")
    );
    lives(&client).await;
    let (_, stopped) = server.stop().await;
    assert!(stopped.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_harms_only_its_own_request() {
    let server = faulty(2, 64, LONG).await;
    let mut others = JoinSet::new();
    for number in 0..40 {
        let client = server.client();
        others.spawn(async move {
            if number % 4 > 0 {
                return lives(&client).await;
            }
            let answer = client.thumbnail(&CRASH).await.unwrap();
            assert_eq!(
                (answer.status, sentence(&answer)),
                (
                    500,
                    "The decoder crashed on this image; the service's log says how.\n"
                )
            );
        });
    }
    others.join_all().await;
    let (app, stopped) = server.stop().await;
    let images = pools(&app).images.metrics();
    assert!(balanced(&images), "{images:?}");
    assert_eq!((images.failed, images.completed), (10, 30 + 1));
    assert!(stopped.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_decoder_is_500_and_its_process_lives() {
    let server = faulty(1, 8, LONG).await;
    let client = server.client();
    let pids = || {
        Vec::from_iter(
            pools(&server.app)
                .images
                .workers()
                .iter()
                .map(|worker| worker.pid),
        )
    };
    let before = pids();
    let answer = client.thumbnail(&PANIC).await.unwrap();
    assert_eq!(
        (answer.status, sentence(&answer)),
        (500, "The service is at fault; its log says why.\n")
    );
    lives(&client).await;
    assert_eq!((server.images().panicked, server.images().failed), (1, 0));
    assert_eq!(pids(), before);
    server.stop().await;
}

/// What a job leaves behind would make a later one exceed the limit.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_leaks_is_replaced_before_it_harms_another_request() {
    let options = ImageOptions {
        memory_limit: 128 << 20,
        decoder: Decoder::Faulty,
        ..image_options(1)
    };
    let server = Server::start_with(1, 8, LONG, options).await;
    let client = server.client();
    for _ in 0..3 {
        let answer = client.thumbnail(&LEAK).await.unwrap();
        assert_eq!(answer.status, 422, "{}", sentence(&answer));
    }
    lives(&client).await;
    let images = server.images();
    assert_eq!(
        (images.completed, images.failed),
        (3 + 1 + 1, 0),
        "{images:?}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_ends_at_the_time_limit() {
    let limit = Duration::from_secs(2);
    let options = ImageOptions {
        time_limit: limit,
        decoder: Decoder::Faulty,
        ..image_options(2)
    };
    let server = Server::start_with(1, 8, LONG, options).await;
    let client = server.client();
    let begin = Instant::now();
    let mut loops = JoinSet::new();
    let sender = server.client();
    loops.spawn(async move { sender.thumbnail(&LOOP).await });
    until("it loops", || !running(&server).is_empty()).await;
    let looping = running(&server);
    lives(&client).await;
    let answer = loops.join_next().await.unwrap().unwrap().unwrap();
    let took = begin.elapsed();
    println!("the loop: {} after {took:.2?} of {limit:?}", answer.status);
    assert_eq!(
        (answer.status, sentence(&answer)),
        (504, "The image takes too long to decode.\n")
    );
    assert!(!answer.headers.contains_key(RETRY_AFTER));
    assert!(took >= limit && took < limit + PATIENCE / 4);
    all_gone(&looping).await;
    assert_eq!(server.images().failed, 1);
    lives(&client).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_running_job_of_a_client_that_disconnects_is_killed() {
    let server = faulty(1, 8, LONG).await;
    let connection = upload(server.address, &LOOP);
    until("it loops", || !running(&server).is_empty()).await;
    let looping = running(&server);
    let queued = upload(server.address, &LOOP);
    until("another one is queued", || server.images().queued == 1).await;
    drop(queued);
    until("that one is cancelled", || server.images().cancelled == 1).await;
    assert_eq!(running(&server), looping);

    // It would loop for another two minutes.
    drop(connection);
    let took = all_gone(&looping).await;
    println!("disconnected: its process was gone after {took:.2?}");
    assert!(took < Duration::from_secs(10));
    let abandoned = || server.app.counts.totals().abandoned;
    until("both requests are abandoned", || abandoned() == 2).await;
    lives(&server.client()).await;
    let (app, stopped) = server.stop().await;
    let images = pools(&app).images.metrics();
    assert_eq!((images.cancelled, images.failed), (2, 0), "{images:?}");
    assert!(balanced(&images) && stopped.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_images_are_refused_at_once() {
    let server = faulty(1, 2, LONG).await;
    let running_one = upload(server.address, &LOOP);
    until("it loops", || !running(&server).is_empty()).await;
    let image = jpeg(16, 16);
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        let (client, image) = (server.client(), image.clone());
        waiting.spawn(async move { client.thumbnail(&image).await });
    }
    until("the queue is full", || server.images().queued == 2).await;

    let client = server.client();
    for _ in 0..20 {
        let answer = client.thumbnail(&image).await.unwrap();
        assert_eq!(
            (answer.status, &answer.headers[RETRY_AFTER]),
            (503, &"1".parse().unwrap())
        );
        assert_eq!(sentence(&answer), "The service is busy: try again later.\n");
    }
    // The other pools have queues of their own.
    assert_eq!(client.get("/users/1").await.unwrap().status, 200);
    assert_eq!(client.hash("not an image").await.unwrap().status, 200);

    drop(running_one);
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status, 200);
    }
    let images = server.images();
    assert_eq!((images.rejected, images.cancelled), (20, 1), "{images:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_limit_of_a_shutdown_running_images_are_killed_and_answered() {
    let limit = Duration::from_millis(300);
    let server = faulty(1, 8, limit).await;
    let mut images = JoinSet::new();
    for _ in 0..2 {
        let client = server.client();
        images.spawn(async move { client.thumbnail(&LOOP).await });
    }
    until("one loops and the other waits", || {
        !running(&server).is_empty() && server.images().queued == 1
    })
    .await;
    let pids = running(&server);
    let (app, stopped) = server.stop().await;
    println!("killed: {stopped}");
    assert!(stopped.is_clean() && stopped.took >= limit, "{stopped}");
    assert_eq!((stopped.answered, stopped.cancelled), (2, 2), "{stopped}");
    while let Some(answer) = images.join_next().await {
        let answer = answer.unwrap().unwrap();
        assert_eq!(
            (answer.status, sentence(&answer)),
            (503, "The service is stopping: try again later.\n")
        );
    }
    assert!(pools(&app).images.workers().is_empty());
    all_gone(&pids).await;
}

/// The processes of a service, from its metrics.
async fn pids(server: SocketAddr, number: usize) -> Vec<u32> {
    let of_a_process = "futurepool_process_resident_bytes{pool=\"images\",pid=\"";
    let text = metrics_when(server, |text| text.matches(of_a_process).count() == number).await;
    let pids = text.lines().filter_map(|line| {
        let (pid, _) = line.strip_prefix(of_a_process)?.split_once('"')?;
        pid.parse().ok()
    });
    pids.collect()
}

const FAULTY: [&str; 5] = [
    "--with-faulty-decoder",
    "--images",
    "2",
    "--image-time",
    "3600",
];

async fn start_looping(
    drain: u64,
    log: Stdio,
) -> (Service, TcpStream, Vec<u32>, tempfile::TempDir) {
    let (dir, database) = new_database();
    let service = Service::start_with(&database, drain, log, &FAULTY).await;
    let looping = upload(service.address, &LOOP);
    metrics_when(service.address, |text| {
        text.contains(",state=\"running\"} 1\n")
    })
    .await;
    let pids = pids(service.address, 2).await;
    assert!(pids.iter().all(|&pid| is_alive(pid)), "{pids:?}");
    (service, looping, pids, dir)
}

#[tokio::test]
async fn no_process_is_left_after_sigterm() {
    let (mut service, _looping, pids, _dir) = start_looping(1, Stdio::piped()).await;
    service.send(Signal::TERM);
    let status = service.end().await;
    let alive = pids.iter().filter(|&&pid| is_alive(pid)).count();
    service.line().await;
    let last = service.line().await;
    println!(
        "SIGTERM: {alive} of {} processes left\n  {last}",
        pids.len()
    );
    assert_eq!((status, alive), (0, 0));
    assert!(
        last.ends_with("1 requests answered, 0 cut off; 0 jobs finished, 0 failed, 1 cancelled, 0 still running"),
        "{last}"
    );
}

#[tokio::test]
async fn no_process_is_left_after_sigkill() {
    let (mut service, _looping, pids, _dir) = start_looping(1, Stdio::inherit()).await;
    service.send(Signal::KILL);
    assert_eq!(service.wait().await.code(), None);
    let took = all_gone(&pids).await;
    println!("SIGKILL: all processes were gone after {took:.2?}");
    assert!(took < Duration::from_secs(10));
}

#[tokio::test]
async fn the_log_names_the_worker_and_its_signal_or_limit() {
    let (_dir, database) = new_database();
    let options = [
        "--with-faulty-decoder",
        "--images",
        "2",
        "--image-time",
        "2",
    ];
    let mut service = Service::start_with(&database, 10, Stdio::piped(), &options).await;
    let pids = pids(service.address, 2).await;
    let client = Client::new(service.address);
    assert_eq!(client.thumbnail(&CRASH).await.unwrap().status, 500);
    let ends = [
        // A control character could clear the operator's terminal.
        ": \\u{1b}[31mfree(): invalid pointer\\u{1b}[m",
        "was killed by signal 6 (SIGABRT)",
    ];
    // In either order: a thread of its own reads what the processes print.
    let lines = [
        line_with(&mut service, &ends).await,
        line_with(&mut service, &ends).await,
    ];
    let has = |begin: String| lines.iter().any(|line| line.starts_with(&begin));
    let is_named = |pid: &u32| {
        has(format!("web_service: worker {pid}: "))
            && has(format!(
                "web_service: task web_service::images::thumbnail: worker {pid} "
            ))
    };
    assert!(pids.iter().any(is_named), "{lines:?}");

    assert_eq!(client.thumbnail(&LOOP).await.unwrap().status, 504);
    line_with(&mut service, &["exceeded its time limit of 2s"]).await;
    lives(&client).await;
    service.send(Signal::TERM);
    assert_eq!(service.end().await, 0);
}

/// Returns the next line of the log with one of these texts.
async fn line_with(service: &mut Service, texts: &[&str]) -> String {
    loop {
        let line = service.line().await;
        println!("  {line}");
        if texts.iter().any(|text| line.contains(text)) {
            return line;
        }
    }
}
