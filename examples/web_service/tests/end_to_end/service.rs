//! Tests what the service answers, whatever its clients do.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use axum::body::Bytes;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::routing::get;
use image::{GenericImageView, ImageFormat};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use web_service::{BODY_LIMIT, SIDE, database, router};

use crate::common::{
    Answer, Client, PATIENCE, Server, Tally, balanced, hash_in, jpeg, pools, sentence, until,
    urgency, user_row, within,
};

const LONG: Duration = Duration::from_secs(30);

/// Sends the requests of one client, and checks every answer.
async fn visit(number: i64, client: Client, image: Bytes) -> Tally {
    let mut tally = Tally::new();
    let id = number + 1;
    let user = insist(&client, &mut tally, &format!("/users/{id}"), None).await;
    assert_eq!((user.status, sentence(&user)), (200, &*user_row(id)));

    if number % 8 == 0 {
        let password = format!("secret of {number}");
        let body = Bytes::from(format!(r#"{{"password":"{password}"}}"#));
        let hashed = insist(
            &client,
            &mut tally,
            "/hash",
            Some(("application/json", &body)),
        )
        .await;
        assert_eq!(hashed.status, 200);
        let right = Argon2::default().verify_password(password.as_bytes(), hash_in(&hashed));
        assert_eq!(right, Ok(()));
    } else if number % 8 == 1 {
        let body = Some(("image/jpeg", &image));
        let small = insist(&client, &mut tally, "/thumbnail", body).await;
        assert_eq!(small.status, 200);
        assert_eq!(small.headers[CONTENT_TYPE], "image/png");
        let small = image::load_from_memory_with_format(&small.body, ImageFormat::Png);
        assert_eq!(small.expect("a PNG").dimensions(), (SIDE, SIDE / 2));
    }

    let missing = format!("/users/{}", 1_000_000 + number);
    let missing = insist(&client, &mut tally, &missing, None).await;
    assert_eq!(missing.status, 404);
    tally
}

/// Retries while the service is busy, and counts every answer.
async fn insist(
    client: &Client,
    tally: &mut Tally,
    path: &str,
    body: Option<(&str, &Bytes)>,
) -> Answer {
    loop {
        let answer = match body {
            Some((kind, body)) => client.post(path, kind, body.clone()).await,
            None => client.get(path).await,
        };
        let answer = answer.expect("every request is answered");
        *tally.entry(answer.status).or_default() += 1;
        if answer.status != 503 {
            return answer;
        }
        assert!(answer.headers.contains_key(RETRY_AFTER));
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_at_once_get_the_right_answers() {
    let server = Server::start(2, 32, LONG).await;
    let image = jpeg(640, 320);
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..200 {
        clients.spawn(visit(number, server.client(), image.clone()));
    }
    let mut tally = Tally::new();
    while let Some(visited) = within(PATIENCE, clients.join_next()).await {
        for (status, answers) in visited.expect("every answer is right") {
            *tally.entry(status).or_default() += answers;
        }
    }
    let took = begin.elapsed();

    let (app, stopped) = server.stop().await;
    let totals = app.counts.totals();
    println!("200 clients: answers by status {tally:?} in {took:.1?}");
    assert_eq!((tally[&200], tally[&404]), (250, 200));
    assert_eq!(totals.answers, tally);
    assert_eq!((totals.abandoned, totals.in_flight()), (0, 0));
    let [(_, cpu), (_, db), (_, images)] = pools(&app).metrics();
    assert!(balanced(&cpu) && balanced(&db), "{cpu:?} {db:?}");
    assert!(balanced(&images), "{images:?}");
    assert_eq!((cpu.completed, cpu.cancelled), (25, 0));
    assert_eq!((images.completed, images.cancelled), (25 + 1, 0)); // one was the check at the start
    assert_eq!((db.completed, db.cancelled), (400 + 3, 0)); // three at the start
    assert_eq!(
        cpu.rejected + db.rejected + images.rejected,
        tally.get(&503).copied().unwrap_or(0)
    );
    assert!(stopped.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_is_refused_at_once_and_passes() {
    let server = Server::start(1, 2, LONG).await;
    let occupied = server.occupy_worker().await;
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        let client = server.client();
        waiting.spawn(async move { client.hash("in the queue").await });
    }
    until("the queue is full", || server.cpu().queued == 2).await;

    // These are answered while no job can start.
    let client = server.client();
    for _ in 0..20 {
        let answer = client.hash("queue full").await.unwrap();
        assert_eq!(
            (answer.status, &answer.headers[RETRY_AFTER]),
            (503, &"1".parse().unwrap())
        );
        assert_eq!(sentence(&answer), "The service is busy: try again later.\n");
    }
    assert_eq!((server.cpu().queued, server.cpu().rejected), (2, 20));
    // Queries have a queue of their own.
    assert_eq!(client.get("/users/1").await.unwrap().status, 200);

    occupied.release().await;
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status, 200);
    }
    assert_eq!(
        client.hash("queue no longer full").await.unwrap().status,
        200
    );
    println!("overload: 20 answers of 503 while 1 job ran and 2 were queued; then 3 of 200");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queued_job_of_a_client_that_disconnects_never_runs() {
    let server = Server::start(1, 64, LONG).await;
    let occupied = server.occupy_worker().await;

    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let client = server.client();
        clients.spawn(async move { client.hash("of a client that disconnects").await });
    }
    let body = r#"{"password":"of another one"}"#;
    let head = "POST /hash HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let mut connections: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(server.address).expect("a connection"))
        .collect();
    for connection in &mut connections {
        connection
            .write_all(request.as_bytes())
            .expect("the request is sent");
    }
    until("all are queued", || server.cpu().queued == 40).await;

    clients.abort_all();
    drop(connections);
    until("all are cancelled", || server.cpu().cancelled == 40).await;
    assert_eq!((server.cpu().queued, server.cpu().running), (0, 1));
    until("all are abandoned", || {
        server.app.counts.totals().abandoned == 40
    })
    .await;

    occupied.release().await;
    assert_eq!(
        server.client().hash("still here").await.unwrap().status,
        200
    );
    let (app, _) = server.stop().await;
    let cpu = pools(&app).cpu.metrics();
    println!("disconnected: 40 clients, {} jobs cancelled", cpu.cancelled);
    assert_eq!((cpu.submitted, cpu.completed, cpu.cancelled), (42, 2, 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_panics_is_an_answer_of_500_and_the_service_lives() {
    let server = Server::start(1, 8, LONG).await;
    let app = server.app.clone();
    let panics = get(async move || {
        let job = || panic!("no such luck");
        app.workers.compute::<_, ()>(urgency(), job).await
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = Client::new(listener.local_addr().unwrap());
    let router = router(server.app.clone()).route("/panics", panics);
    tokio::spawn(async { axum::serve(listener, router).await });

    for _ in 0..3 {
        let answer = client.get("/panics").await.unwrap();
        assert_eq!(answer.status, 500);
        assert_eq!(
            sentence(&answer),
            "The service is at fault; its log says why.\n"
        );
    }
    assert_eq!(client.hash("fine").await.unwrap().status, 200);
    let cpu = server.cpu();
    assert_eq!((cpu.panicked, cpu.completed, cpu.workers), (3, 1, 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_answered_with_a_4xx_status_and_a_sentence() {
    let server = Server::start(1, 8, LONG).await;
    let client = server.client();
    let json = "application/json";
    let dear = r#"{"password":"x","hash":"$argon2id$v=19$m=4000000,t=9,p=1$MDEyMzQ1Njc$MDEyMzQ1Njc4OWFi"}"#;
    let mut huge = jpeg(16, 16).to_vec();
    let frame = huge
        .windows(2)
        .position(|w| w == [0xff, 0xc0])
        .expect("a frame header");
    huge[frame + 5..frame + 9].fill(0xff); // 65,535 by 65,535
    let posts = [
        ("/hash", json, "{".into(), 400),
        ("/hash", json, "{}".into(), 422),
        ("/hash", "text/plain", "{}".into(), 415),
        (
            "/verify",
            json,
            r#"{"password":"x","hash":"x"}"#.into(),
            422,
        ),
        ("/verify", json, dear.into(), 422),
        ("/thumbnail", "image/png", Bytes::from("no image"), 422),
        ("/thumbnail", "image/png", jpeg(64, 64).slice(..100), 422),
        ("/thumbnail", "image/png", huge.into(), 413),
        ("/thumbnail", "image/jpeg", jpeg(3_001, 8), 413),
        (
            "/thumbnail",
            "image/png",
            vec![0; BODY_LIMIT + 1].into(),
            413,
        ),
        ("/nowhere", json, "{}".into(), 404),
    ];
    for (path, kind, body, status) in posts {
        let answer = client.post(path, kind, body).await.unwrap();
        let sentence = sentence(&answer);
        println!("{path}: {status} {}", sentence.trim_end());
        assert_eq!(answer.status, status, "{path}: {sentence}");
        assert!(sentence.contains(' '), "{path}: {sentence}");
    }
    for (path, status) in [("/users/0", 404), ("/users/one", 400), ("/hash", 405)] {
        let answer = client.get(path).await.unwrap();
        let sentence = sentence(&answer);
        println!("{path}: {status} {}", sentence.trim_end());
        assert_eq!(answer.status, status, "{path}: {sentence}");
        assert!(sentence.contains(' '), "{path}: {sentence}");
        assert_eq!(answer.headers.contains_key(ALLOW), status == 405, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashes_verify_with_their_own_password_only() {
    let server = Server::start(1, 8, LONG).await;
    let client = server.client();
    let hashed = client.hash("right").await.unwrap();
    for (password, verdict) in [
        ("right", r#"{"valid":true}"#),
        ("wrong", r#"{"valid":false}"#),
    ] {
        let body = format!(
            r#"{{"password":"{password}","hash":"{}"}}"#,
            hash_in(&hashed)
        );
        let answer = client
            .post("/verify", "application/json", body)
            .await
            .unwrap();
        assert_eq!((answer.status, sentence(&answer)), (200, verdict));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_image_stays_as_it_is() {
    let server = Server::start(1, 8, LONG).await;
    let answer = server.client().thumbnail(&jpeg(30, 20)).await.unwrap();
    let image = image::load_from_memory(&answer.body).expect("an image");
    assert_eq!(image.dimensions(), (30, 20));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_are_open_before_the_first_request() {
    let server = Server::start(1, 1, LONG).await;
    let db = pools(&server.app).db.metrics();
    assert_eq!((db.workers, db.running, db.queued), (2, 0, 0), "{db:?}");

    // No connection is opened later: the file may be deleted.
    std::fs::remove_file(&server.database).expect("it is there");
    let client = server.client();
    for id in 1..=20 {
        let answer = client.get(&format!("/users/{id}")).await.unwrap();
        assert_eq!((answer.status, sentence(&answer)), (200, &*user_row(id)));
    }
    server.stop().await;
}

#[test]
fn the_leftover_of_a_killed_start_is_replaced_and_an_existing_file_stays() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let path = dir.path().join("users.db");
    // Left by a process that was killed.
    let temporary = dir.path().join(format!("users.db.{}", std::process::id()));
    std::fs::write(&temporary, "the start of a database").unwrap();

    database::create(&path).expect("a database");
    database::connect(&path).expect("the database is complete");
    assert!(!temporary.exists());

    let other = dir.path().join("other.db");
    std::fs::write(&other, "another file").unwrap();
    database::create(&other).expect("there is one");
    assert_eq!(std::fs::read(&other).unwrap(), b"another file");
}
