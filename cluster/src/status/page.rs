//! The web page, and what programs read beside it.
//!
//! It listens on loopback only, unless it has a token. It answers `GET` and changes nothing.
//! Everything from the cluster leaves as JSON, and the page's script writes it as text. A policy
//! forbids the browser any script, style or request that is not the page's own.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq;
use tokio::time::{sleep, timeout};

use crate::broker::Broker;
use crate::status::observer::Observer;
use crate::status::prometheus;
use crate::status::snapshot::{Point, Snapshot};

/// How many connections are open at a time. More wait.
const MAX_CONNECTIONS: usize = 64;

/// How long a connection lives. A client that never reads cannot keep it for ever.
const MAX_LIFE: Duration = Duration::from_secs(600);

/// How long a client may take to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a wrong token waits for its answer.
const WRONG_TOKEN: Duration = Duration::from_millis(500);

/// The shortest token, in bytes.
const MIN_TOKEN: usize = 16;

/// What the page may load and do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Where the figures come from.
pub(crate) trait Source {
    fn snapshot(&self) -> Snapshot;
    fn history(&self) -> Vec<Point>;
}

impl<B: Broker> Source for Observer<B> {
    fn snapshot(&self) -> Snapshot {
        self.snapshot()
    }

    fn history(&self) -> Vec<Point> {
        self.history()
    }
}

/// A page that listens and does not answer yet.
pub(crate) struct Page {
    listener: TcpListener,
    address: SocketAddr,
    token: Option<Arc<str>>,
}

impl Page {
    /// Listens on an address such as `127.0.0.1:6680`.
    pub(crate) fn bind(listen: &str, token: Option<&str>) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        let addresses: Vec<_> = listen
            .to_socket_addrs()
            .map_err(|error| {
                invalid(format!(
                    "cannot listen on `{listen}`: {error} (write it as `127.0.0.1:6680`)"
                ))
            })?
            .collect();
        match token {
            None => {
                if addresses.iter().any(|address| !address.ip().is_loopback()) {
                    return Err(invalid(format!(
                        "`{listen}` can be reached from other machines, so it needs a token: give one, or listen on 127.0.0.1"
                    )));
                }
            }
            Some(token) if token.len() < MIN_TOKEN => {
                return Err(invalid(format!(
                    "the token is too short: it needs {MIN_TOKEN} characters or more, such as those of `openssl rand -hex 16`"
                )));
            }
            Some(_) => {}
        }
        let listener = TcpListener::bind(&addresses[..]).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot listen on `{listen}`: {error}"),
            )
        })?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            token: token.map(Arc::from),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for ever. Must run inside a runtime with I/O.
    pub(crate) async fn serve(self, source: Rc<dyn Source>) -> io::Result<Infallible> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = connections.next(), if !connections.is_empty() => {}
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    match accepted {
                        Ok((stream, _)) => {
                            let answers = Answers {
                                source: Rc::clone(&source),
                                token: self.token.clone(),
                            };
                            connections.push(connection(stream, answers));
                        }
                        // Too many open files: they get fewer.
                        Err(_) => sleep(Duration::from_millis(100)).await,
                    }
                }
            }
        }
    }
}

/// Serves one connection to its end.
async fn connection(stream: tokio::net::TcpStream, answers: Answers) {
    let answers = Rc::new(answers);
    let service = service_fn(move |request| {
        let answers = Rc::clone(&answers);
        async move { Ok::<_, Infallible>(answers.answer(request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    // A broken connection is the client's affair.
    let _ = timeout(MAX_LIFE, serving).await;
}

struct Answers {
    source: Rc<dyn Source>,
    token: Option<Arc<str>>,
}

impl Answers {
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Full<Bytes>>> {
        let wrong_token = self.token.is_some() && !self.has_token(request.headers());
        let response = self.respond(request.method(), request.uri().path(), request.headers());
        async move {
            if wrong_token {
                sleep(WRONG_TOKEN).await;
            }
            response
        }
    }

    fn respond(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        match &self.token {
            Some(_) if !self.has_token(headers) => {
                let text = "This page needs its token: as the password, or as a bearer token.\n";
                let mut response = text_response(StatusCode::UNAUTHORIZED, text);
                let ask = "Basic realm=\"futurepool-cluster\", charset=\"UTF-8\"";
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(ask));
                return response;
            }
            // A foreign page that has its name resolve to this machine must not read this one.
            None if !is_loopback_host(headers) => {
                let text = "This page answers only to the names of this machine's loopback. Start it with a token for others.\n";
                return text_response(StatusCode::FORBIDDEN, text);
            }
            _ => {}
        }
        if method != Method::GET && method != Method::HEAD {
            let mut response =
                text_response(StatusCode::METHOD_NOT_ALLOWED, "Only GET is answered.\n");
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let file = |kind, text: &'static str| response(StatusCode::OK, kind, text);
        match path {
            "/" => file("text/html; charset=utf-8", include_str!("page/page.html")),
            "/page.css" => file("text/css; charset=utf-8", include_str!("page/page.css")),
            "/page.js" => file(
                "text/javascript; charset=utf-8",
                include_str!("page/page.js"),
            ),
            "/icon.svg" => file("image/svg+xml", include_str!("page/icon.svg")),
            "/status.json" => json(&self.source.snapshot()),
            "/history.json" => json(&self.source.history()),
            "/metrics" => {
                let text = prometheus::render(&self.source.snapshot());
                response(StatusCode::OK, prometheus::CONTENT_TYPE, text)
            }
            _ => text_response(
                StatusCode::NOT_FOUND,
                "There are /, /status.json, /history.json and /metrics.\n",
            ),
        }
    }

    /// Returns whether the request has the token: as a bearer token, or as the password of a user
    /// with any name.
    fn has_token(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return false;
        };
        let Some((scheme, rest)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return false;
        };
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return is_equal(rest.as_bytes(), token.as_bytes());
        }
        if scheme.eq_ignore_ascii_case("basic")
            && let Ok(pair) = STANDARD.decode(rest)
            && let Some(colon) = pair.iter().position(|&byte| byte == b':')
        {
            return is_equal(&pair[colon + 1..], token.as_bytes());
        }
        false
    }
}

/// Compares in a time that depends on the lengths alone.
fn is_equal(given: &[u8], token: &[u8]) -> bool {
    given.ct_eq(token).into()
}

/// Returns whether the request names this machine's loopback as its host.
fn is_loopback_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let policy = HeaderValue::from_static("same-origin");
    response
        .headers_mut()
        .insert("cross-origin-resource-policy", policy);
    response
}

fn text_response(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text)
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => response(StatusCode::OK, "application/json", body),
        Err(_) => text_response(
            StatusCode::INTERNAL_SERVER_ERROR,
            "not to be written as JSON\n",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;

    const TOKEN: &str = "a-token-of-decent-length";

    struct Sample;

    impl Source for Sample {
        fn snapshot(&self) -> Snapshot {
            samples::hostile()
        }

        fn history(&self) -> Vec<Point> {
            samples::history()
        }
    }

    fn get(token: Option<&str>, path: &str, headers: &[(&str, &str)]) -> Response<Full<Bytes>> {
        let answers = Answers {
            source: Rc::new(Sample),
            token: token.map(Arc::from),
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: header::HeaderName = name.parse().unwrap();
            map.insert(name, HeaderValue::from_str(value).unwrap());
        }
        answers.respond(&Method::GET, path, &map)
    }

    #[test]
    fn a_token_is_required_on_every_path_and_in_every_part() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let good = [
            format!("Bearer {TOKEN}"),
            format!("bearer  {TOKEN}"),
            basic(&format!("anyone:{TOKEN}")),
            basic(&format!(":{TOKEN}")),
        ];
        let bad = [
            "Bearer ".to_owned(),
            format!("Bearer {}", &TOKEN[1..]),
            format!("Bearer {TOKEN}x"),
            basic(TOKEN),
            basic("anyone:"),
            "Basic ????".to_owned(),
            TOKEN.to_owned(),
        ];
        for path in [
            "/",
            "/page.js",
            "/status.json",
            "/history.json",
            "/metrics",
            "/none",
        ] {
            let status = |headers: &[_]| get(Some(TOKEN), path, headers).status();
            assert_eq!(status(&[("host", "localhost")]), StatusCode::UNAUTHORIZED);
            for value in &bad {
                let headers = [("authorization", value.as_str())];
                assert_eq!(status(&headers), StatusCode::UNAUTHORIZED, "{path} {value}");
            }
            for value in &good {
                let headers = [("authorization", value.as_str())];
                assert_ne!(status(&headers), StatusCode::UNAUTHORIZED, "{path} {value}");
            }
        }
        // A link with the token in it would be remembered and sent on: it does not work.
        let query = get(Some(TOKEN), "/?token=a-token-of-decent-length", &[]);
        assert_eq!(query.status(), StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn without_a_token_only_loopback_is_served_under_its_own_names() {
        for address in ["0.0.0.0:0", "[::]:0"] {
            let error = Page::bind(address, None).err().unwrap();
            assert!(error.to_string().contains("token"), "{error}");
        }
        assert!(Page::bind("127.0.0.1:0", None).is_ok());
        assert!(Page::bind("0.0.0.0:0", Some(TOKEN)).is_ok());
        let short = Page::bind("0.0.0.0:0", Some("secret")).err().unwrap();
        assert!(short.to_string().contains("too short"), "{short}");
        assert!(Page::bind("nonsense", None).is_err());

        let status = |host| get(None, "/status.json", &[("host", host)]).status();
        for host in [
            "localhost:6680",
            "LOCALHOST",
            "127.0.0.1:6680",
            "127.1.2.3",
            "[::1]:6680",
        ] {
            assert_eq!(status(host), StatusCode::OK, "{host}");
        }
        for host in [
            "evil.example:6680",
            "10.0.0.1",
            "[2001:db8::1]:1",
            "",
            "localhost.evil.example",
        ] {
            assert_eq!(status(host), StatusCode::FORBIDDEN, "{host}");
        }
        assert_eq!(get(None, "/", &[]).status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn everything_is_of_a_type_that_cannot_run_and_under_the_policy() {
        for (path, kind) in [
            ("/", "text/html; charset=utf-8"),
            ("/page.js", "text/javascript; charset=utf-8"),
            ("/status.json", "application/json"),
            ("/history.json", "application/json"),
            ("/metrics", prometheus::CONTENT_TYPE),
        ] {
            let response = get(None, path, &[("host", "localhost")]);
            assert_eq!(response.status(), StatusCode::OK);
            let headers = response.headers();
            assert_eq!(headers[header::CONTENT_TYPE], kind);
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
        }
    }

    #[test]
    fn only_reading_is_answered() {
        let answers = Answers {
            source: Rc::new(Sample),
            token: None,
        };
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("localhost"));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let response = answers.respond(&method, "/status.json", &headers);
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        }
    }
}
