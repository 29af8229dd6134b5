//! Tests deadlines and priorities: which job starts first, and which one never does.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::header::RETRY_AFTER;
use futurepool::Priority;
use tokio::task::JoinSet;
use web_service::{Decoder, ImageOptions, TIMEOUT_HEADER};

use crate::common::{Answer, Server, hash_in, image_options, jpeg, pools, sentence, until};

const LONG: Duration = Duration::from_secs(30);
const LOOP: Bytes = Bytes::from_static(b"FAULTY loop");

fn check_expired(answer: &Answer) {
    assert_eq!(
        (answer.status, sentence(answer)),
        (
            503,
            "The service is too busy to begin in time: try again later.\n"
        )
    );
    assert_eq!(answer.headers[RETRY_AFTER], "1");
}

fn faulty() -> ImageOptions {
    ImageOptions {
        decoder: Decoder::Faulty,
        ..image_options(1)
    }
}

/// Occupies the only process that makes thumbnails. Dropping the result kills its job.
async fn occupy_process(server: &Server) -> JoinSet<()> {
    let client = server.client();
    let mut looping = JoinSet::new();
    looping.spawn(async move { drop(client.thumbnail(&LOOP).await) });
    until("it loops", || server.images().running == 1).await;
    looping
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_expires_in_the_queue_is_answered_at_once_and_never_runs() {
    let server = Server::start_with(1, 8, LONG, faulty()).await;
    let occupied = server.occupy_worker().await;
    let looping = occupy_process(&server).await;

    // These are answered while no job can start.
    let hurried = server.client().with_timeout(Duration::from_millis(40));
    check_expired(&hurried.hash("too late").await.unwrap());
    check_expired(&hurried.thumbnail(&jpeg(16, 16)).await.unwrap());
    // A free worker answers a client that waits long enough for a busy machine.
    let user = server.client().with_timeout(LONG).get("/users/1").await;
    assert_eq!(user.unwrap().status, 200);

    occupied.release().await;
    drop(looping);
    let patient = server.client();
    assert_eq!(patient.hash("in time").await.unwrap().status, 200);
    assert_eq!(patient.thumbnail(&jpeg(16, 16)).await.unwrap().status, 200);
    for (metrics, label, others) in [
        (server.cpu(), "/hash", 0),
        (server.images(), "/thumbnail", 1), // the one that looped was killed
    ] {
        assert_eq!(metrics.expired, 1, "{metrics:?}");
        let of_label = &metrics.by_label()[label];
        println!(
            "{label}: {} expired, {} ran",
            of_label.expired, of_label.completed
        );
        assert_eq!((of_label.expired, of_label.completed), (1, 1));
        assert_eq!(of_label.cancelled, 1 + others);
        assert_eq!(of_label.run_time.count(), 1 + others);
    }
    server.stop().await;
}

/// The last quarter of the client's time is for the job and for the way back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_must_start_within_three_quarters_of_the_stated_time() {
    const STATED: Duration = Duration::from_secs(2);
    let server = Server::start(1, 8, LONG).await;
    let occupied = server.occupy_worker().await;
    let client = server.client().with_timeout(STATED);
    // On a busy machine an answer can be late, but not each time.
    for attempt in 1.. {
        let begin = Instant::now();
        check_expired(&client.hash("too late").await.unwrap());
        let took = begin.elapsed();
        println!("expired after {took:.2?} of {STATED:?}");
        assert!(took >= STATED * 3 / 4, "{took:?}");
        if took < STATED {
            break;
        }
        assert!(attempt < 5, "{took:?}");
    }
    occupied.release().await;
    server.stop().await;
}

/// A body may arrive so slowly that there is no time left when its job is submitted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_before_the_submit_is_answered_likewise() {
    let server = Server::start(1, 8, LONG).await;
    let late = server.client().with_timeout(Duration::ZERO);
    check_expired(&late.hash("too late").await.unwrap());
    check_expired(&late.get("/users/1").await.unwrap());
    check_expired(&late.thumbnail(&jpeg(16, 16)).await.unwrap());
    for (name, metrics) in pools(&server.app).metrics() {
        assert_eq!(metrics.rejected, 1, "{name}: {metrics:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_waits_longer_than_the_start_limit() {
    let limit = Duration::from_millis(50);
    let server = Server::start_within(limit, image_options(1)).await;
    let occupied = server.occupy_worker().await;
    let patient = server.client();
    check_expired(&patient.hash("without a header").await.unwrap());
    let patient = patient.with_timeout(Duration::from_secs(3_600));
    check_expired(&patient.hash("with a long timeout").await.unwrap());
    assert_eq!((server.cpu().expired, server.cpu().queued), (2, 0));
    occupied.release().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_that_is_no_number_is_answered_with_400() {
    let server = Server::start(1, 8, LONG).await;
    for wrong in ["soon", "-1", "1.5", ""] {
        let answer = server
            .client()
            .get_with("/users/1", TIMEOUT_HEADER, wrong)
            .await;
        let answer = answer.unwrap();
        let expected = format!("{TIMEOUT_HEADER} is not a number of milliseconds.\n");
        assert_eq!((answer.status, sentence(&answer)), (400, &*expected));
    }
    server.stop().await;
}

/// A thumbnail would loop until its time limit, two minutes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_waits_for_goes_before_thumbnails() {
    let server = Server::start_with(1, 8, LONG, faulty()).await;
    let looping = occupy_process(&server).await;
    let mut queued = JoinSet::new();
    for _ in 0..3 {
        let client = server.client();
        queued.spawn(async move { client.thumbnail(&LOOP).await });
    }
    until("thumbnails are queued", || server.images().queued == 3).await;
    let client = server.client();
    let inspected =
        tokio::spawn(async move { client.post("/inspect", "image/jpeg", jpeg(30, 20)).await });
    until("it is queued behind them", || server.images().queued == 4).await;

    drop(looping);
    let answer = inspected.await.unwrap().unwrap();
    assert_eq!(
        (answer.status, sentence(&answer)),
        (200, r#"{"width":30,"height":20}"#)
    );
    queued.abort_all();
    until("all others are killed", || server.images().cancelled == 4).await;
    server.stop().await;
}

/// A priority alone takes no room in the queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thumbnails_cannot_take_the_room_of_what_a_user_waits_for() {
    let server = Server::start_with(1, 2, LONG, faulty()).await;
    let looping = occupy_process(&server).await;
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        let client = server.client();
        waiting.spawn(async move { client.thumbnail(&jpeg(16, 16)).await });
    }
    until("thumbnails are queued", || server.images().queued == 2).await;
    let client = server.client();
    let refused = client.thumbnail(&jpeg(16, 16)).await.unwrap();
    assert_eq!((refused.status, server.images().rejected), (503, 1));

    let inspected =
        tokio::spawn(async move { client.post("/inspect", "image/jpeg", jpeg(30, 20)).await });
    until("an urgent job is queued", || server.images().queued == 3).await;
    drop(looping);
    assert_eq!(inspected.await.unwrap().unwrap().status, 200);
    for answer in waiting.join_all().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    server.stop().await;
}

/// Otherwise clients that come and go would fill the room of urgent jobs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_client_has_left_keeps_its_room_while_it_runs() {
    let server = Server::start(1, 2, LONG).await;
    let abandoned = server.occupy_worker().await.abandon().await;
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        let client = server.client();
        waiting.spawn(async move { client.hash("in the queue").await });
    }
    until("both are queued", || server.cpu().queued == 2).await;
    let refused = server.client().hash("no room").await.unwrap();
    assert_eq!((refused.status, server.cpu().rejected), (503, 1));
    drop(abandoned);
    for answer in waiting.join_all().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urgent_jobs_leave_room_for_more_of_them_if_they_have_all_workers() {
    let server = Server::start(3, 1, LONG).await;
    let client = server.client();
    let hashed = client.hash("right").await.unwrap();
    let body = format!(r#"{{"password":"right","hash":"{}"}}"#, hash_in(&hashed));
    let mut urgent = Vec::new();
    for _ in 0..3 {
        urgent.push(server.occupy_worker_with(Priority::High).await);
    }
    // As many as there are permits: one for each worker, and one for the queue.
    let mut waiting = JoinSet::new();
    for _ in 0..4 {
        let client = server.client();
        waiting.spawn(async move { client.hash("in the queue").await });
    }
    until("all are queued", || server.cpu().queued == 4).await;
    assert_eq!(client.hash("no room").await.unwrap().status, 503);

    let login = tokio::spawn(async move { client.post("/verify", "application/json", body).await });
    until("the login is queued", || server.cpu().queued == 5).await;
    for occupied in urgent {
        occupied.release().await;
    }
    assert_eq!(login.await.unwrap().unwrap().status, 200);
    for answer in waiting.join_all().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_goes_before_a_new_password() {
    let server = Server::start(1, 8, LONG).await;
    let client = server.client();
    let hashed = client.hash("right").await.unwrap();
    let body = format!(r#"{{"password":"right","hash":"{}"}}"#, hash_in(&hashed));

    let first = server.occupy_worker().await;
    let second = server.queue_worker().await; // as urgent as a new password
    let login = tokio::spawn(async move { client.post("/verify", "application/json", body).await });
    until("both are queued", || server.cpu().queued == 2).await;
    first.release().await;
    // The job that was queued first has the worker until it is released.
    let answer = login.await.unwrap().unwrap();
    assert_eq!(
        (answer.status, sentence(&answer)),
        (200, r#"{"valid":true}"#)
    );
    second.release().await;
    server.stop().await;
}

/// The processors go to what users wait for, too.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_for_images_are_nice() {
    use std::fs::{self, DirEntry};

    let server = Server::start(1, 8, LONG).await;
    let is_nice = |thread: DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' '));
        fields.and_then(|mut fields| fields.nth(16)) == Some("10")
    };
    // The main thread of a test is not the one that runs jobs.
    let has_nice_thread = |pid: u32| {
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        threads.is_ok_and(|mut threads| threads.any(|thread| thread.is_ok_and(is_nice)))
    };
    // A process that has just started is not nice yet.
    until("both processes are nice", || {
        let workers = pools(&server.app).images.workers();
        workers.len() == 2 && workers.iter().all(|worker| has_nice_thread(worker.pid))
    })
    .await;
    server.stop().await;
}
