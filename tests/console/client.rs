//! A client that asks a console, as the page does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use futurepool::console::{self, Console};
use serde_json::Value;

/// Serves a console without a token.
pub(crate) fn served() -> Console {
    console::serve("127.0.0.1:0").expect("there is a free port")
}

/// Sends a request and returns the whole answer.
pub(crate) fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The server may reset a connection of which it has not read all.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    send(address, &request)
}

pub(crate) fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).unwrap_or_default();
    status
        .parse()
        .unwrap_or_else(|_| panic!("no answer: {answer:?}"))
}

/// Returns the figures, with the whole timeline.
pub(crate) fn snapshot(console: &Console) -> Value {
    ask(console, "/snapshot.json?epoch=0&after=0")
}

pub(crate) fn ask(console: &Console, path: &str) -> Value {
    let answer = get(console.local_addr(), path, "Host: localhost\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert_eq!(status(head), 200, "{answer}");
    serde_json::from_str(body).expect("JSON")
}

/// Returns the pool with this name, if it is shown.
pub(crate) fn pool(snapshot: &Value, name: &str) -> Option<Value> {
    let mut pools = snapshot["pools"].as_array().unwrap().iter();
    pools.find(|pool| pool["name"] == name).cloned()
}

/// Asks until `f` returns a value.
#[track_caller]
pub(crate) fn wait_for<T>(
    console: &Console,
    what: &str,
    mut f: impl FnMut(&Value) -> Option<T>,
) -> T {
    let mut found = None;
    crate::common::eventually(what, || {
        found = f(&snapshot(console));
        found.is_some()
    });
    found.unwrap()
}
