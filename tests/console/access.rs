//! What a console answers, with and without its token.

#[cfg(unix)]
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
#[cfg(unix)]
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{ThreadPool, console};

use crate::client::{get, send, served, status};
#[cfg(unix)]
use crate::common::child::alone;
#[cfg(unix)]
use crate::forking::in_forked_process;

const TOKEN: &str = "0123456789abcdef-token";

const PATHS: [&str; 8] = [
    "/",
    "/page.css",
    "/page.js",
    "/icon.svg",
    "/snapshot.json",
    "/snapshot.json?after=0",
    "/none",
    "/?token=0123456789abcdef",
];

#[test]
fn a_stranger_without_the_token_gets_nothing() {
    let pool = ThreadPool::builder()
        .thread_name_prefix("secret-pool")
        .build()
        .unwrap();
    let _running = pool.submit(|| ());
    let console = console::builder()
        .token(TOKEN)
        .serve("127.0.0.1:0")
        .unwrap();
    let address = console.local_addr();
    let mut answers = Vec::new();
    for path in PATHS {
        for headers in [
            "Host: localhost\r\n",
            "Host: localhost\r\nAuthorization: Bearer 0123456789abcdef-tokem\r\n",
            "Host: localhost\r\nAuthorization: Bearer \r\n",
            "Host: localhost\r\nCookie: futurepool-console=0123456789abcdef-token\r\n",
        ] {
            let answer = get(address, path, headers);
            assert_eq!(status(&answer), 401, "{path} {headers}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            answers.push(body.to_owned());
        }
    }
    // The same for all of them, so that it tells nothing, not even which paths there are.
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    for secret in [
        "secret",
        TOKEN,
        "futurepool-0",
        env!("CARGO_MANIFEST_DIR"),
        "<",
    ] {
        assert!(!answers[0].contains(secret), "{answers:?}");
    }
    // Other methods, too.
    let post =
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&send(address, post)), 401);
}

#[test]
fn the_token_opens_the_console_as_a_header_and_as_a_cookie() {
    let console = console::builder()
        .token(TOKEN)
        .serve("127.0.0.1:0")
        .unwrap();
    let address = console.local_addr();
    let bearer = format!("Host: any.example\r\nAuthorization: Bearer {TOKEN}\r\n");
    assert!(get(address, "/snapshot.json", &bearer).contains("\"pools\""));

    let answer = get(
        address,
        &format!("/?token={TOKEN}"),
        "Host: any.example\r\n",
    );
    assert_eq!(status(&answer), 303, "{answer}");
    let head = answer.to_ascii_lowercase();
    assert!(head.contains("\r\nlocation: /\r\n") && head.contains("; httponly; samesite=strict"));
    let line = answer
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("set-cookie:"));
    let pair = line.unwrap().split([':', ';']).nth(1).unwrap().trim();
    assert!(!pair.contains(TOKEN));
    let cookie = format!("Host: any.example\r\nCookie: {pair}\r\n");
    assert!(get(address, "/", &cookie).contains("<!doctype html>"));
    // The cookie of one console does not open another one.
    let other = console::builder()
        .token(TOKEN)
        .serve("127.0.0.1:0")
        .unwrap();
    assert_eq!(status(&get(other.local_addr(), "/", &cookie)), 401);
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let error = console::serve(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("token"), "{error}");
    }
    let short = console::builder()
        .token("secret")
        .serve("127.0.0.1:0")
        .unwrap_err();
    assert!(short.to_string().contains("too short"), "{short}");
    console::builder()
        .token(TOKEN)
        .serve("0.0.0.0:0")
        .unwrap()
        .shutdown();
    let taken = served();
    let error = console::serve(taken.local_addr()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_page_of_another_site_cannot_read_the_console() {
    let console = served();
    let answer = |host: &str| {
        get(
            console.local_addr(),
            "/snapshot.json",
            &format!("Host: {host}\r\n"),
        )
    };
    for host in ["localhost:6670", "127.0.0.1:6670", "[::1]:6670"] {
        assert_eq!(status(&answer(host)), 200, "{host}");
    }
    for host in [
        "rebound.example:6670",
        "localhost.rebound.example",
        "10.1.2.3",
    ] {
        let answer = answer(host);
        assert_eq!(status(&answer), 403, "{host}");
        assert!(!answer.contains("pools"));
    }
    let ok = answer("localhost").to_ascii_lowercase();
    // Nor as a script or a frame of it.
    for header in [
        "content-security-policy: default-src 'none'",
        "x-content-type-options: nosniff",
        "cross-origin-resource-policy: same-origin",
        "x-frame-options: deny",
        "cache-control: no-store",
    ] {
        assert!(ok.contains(header), "{header}\n{ok}");
    }
    assert!(!ok.contains("access-control-allow-origin"));
}

#[test]
fn only_get_is_answered_and_only_small_requests() {
    let console = served();
    let address = console.local_addr();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"] {
        let request =
            format!("{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(status(&send(address, &request)), 405, "{method}");
    }
    let long = format!("Host: localhost\r\nX: {}\r\n", "x".repeat(64 << 10));
    assert_eq!(status(&get(address, "/", &long)), 431);
    let many = "X: y\r\n".repeat(100) + "Host: localhost\r\n";
    assert_eq!(status(&get(address, "/", &many)), 431);
    assert_eq!(status(&send(address, "nonsense\r\n\r\n")), 400);
}

#[test]
fn clients_that_send_nothing_cannot_keep_others_out() {
    let console = served();
    let slow: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(console.local_addr()).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
            stream
        })
        .collect();
    let start = Instant::now();
    let answer = get(
        console.local_addr(),
        "/snapshot.json",
        "Host: localhost\r\n",
    );
    assert_eq!(status(&answer), 200);
    // It had to wait for its turn, but not forever.
    assert!(
        start.elapsed() < Duration::from_secs(50),
        "{:?}",
        start.elapsed()
    );
    for mut stream in slow {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        // The connection is closed, perhaps with an answer that says why.
        assert!(is_closed(&mut stream));
    }
}

/// Returns whether the server closes the connection before the read timeout.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn a_shutdown_ends_the_console_and_its_connections() {
    let console = served();
    let mut open = TcpStream::connect(console.local_addr()).unwrap();
    assert_eq!(
        status(&get(console.local_addr(), "/", "Host: localhost\r\n")),
        200
    );
    console.shutdown();
    console.shutdown();
    assert!(TcpStream::connect(console.local_addr()).is_err());
    open.set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    assert!(is_closed(&mut open));
    // The port is free again.
    console::serve(console.local_addr()).unwrap().shutdown();
}

/// It needs more file descriptors than that of its address.
#[cfg(unix)]
#[test]
fn a_console_that_cannot_answer_is_an_error() {
    alone("access::a_console_that_cannot_answer_is_an_error", || {
        let most = rlimit::Resource::NOFILE.get().unwrap().1;
        rlimit::Resource::NOFILE.set(most.min(100), most).unwrap();
        let mut taken: Vec<_> = (0..).map_while(|_| File::open("/dev/null").ok()).collect();
        // Until enough of them are free.
        let console = loop {
            match console::serve("127.0.0.1:0") {
                Ok(console) => break console,
                Err(error) => assert!(taken.pop().is_some(), "{error}"),
            }
        };
        // Long enough for a thread that fails.
        thread::sleep(Duration::from_millis(300));
        taken.clear();
        let answer = get(console.local_addr(), "/", "Host: localhost\r\n");
        assert_eq!(status(&answer), 200);
    });
}

#[cfg(unix)]
#[test]
fn a_forked_process_cannot_shut_a_console_down_and_does_not_hang() {
    alone(
        "access::a_forked_process_cannot_shut_a_console_down_and_does_not_hang",
        || {
            let console = served();
            assert!(in_forked_process(|| {
                console.shutdown();
                true
            }));
            let answer = get(console.local_addr(), "/", "Host: localhost\r\n");
            assert_eq!(status(&answer), 200);
            console.shutdown();
        },
    );
}

#[test]
fn a_console_that_is_dropped_goes_on() {
    let console = served();
    let address = console.local_addr();
    assert!(format!("{console:?}").contains("token: false"));
    drop(console);
    assert_eq!(status(&get(address, "/", "Host: localhost\r\n")), 200);
}
