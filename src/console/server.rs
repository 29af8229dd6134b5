//! The thread of a console: connections, and the clock of the sampler.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, select};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::console::access::{Access, Guard};
use crate::console::snapshot::Snapshot;
use crate::console::{json, sampler, text};

/// How many connections are open at a time. More wait.
const MAX_CONNECTIONS: usize = 32;

/// How long a connection lives. A client that does not read cannot keep it for longer.
const MAX_LIFE: Duration = Duration::from_secs(60);

/// How long the last answer of a connection may take after that.
const GRACE: Duration = Duration::from_secs(5);

/// How long a client may take to send its request, and to send the next one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a wrong token waits for its answer.
const WRONG_TOKEN: Duration = Duration::from_millis(300);

/// How long a request may be, with its headers.
const MAX_HEAD: usize = 16 << 10;

/// What the page may load and do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

type Answer = Response<Full<Bytes>>;

/// Answers until `stop` is sent. Calls `ready` once clients can connect.
pub(crate) fn run(
    listener: TcpListener,
    guard: Guard,
    stop: oneshot::Receiver<()>,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let serving = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        ready();
        let answers = Arc::new(Answers {
            guard,
            is_ticking: AtomicBool::new(false),
        });
        // A `Console` that is dropped lets it run.
        let stopped = async {
            if stop.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        select(pin!(accept(listener, &answers)), pin!(stopped)).await;
        Ok(())
    };
    let result = runtime.block_on(serving);
    // The connections end with the runtime.
    drop(runtime);
    result
}

async fn accept(listener: tokio::net::TcpListener, answers: &Arc<Answers>) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        let accepted = {
            let ended = pin!(connection_ended(&mut connections));
            match select(pin!(listener.accept()), ended).await {
                Either::Left((accepted, _)) => accepted,
                Either::Right(((), _)) => continue,
            }
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, Arc::clone(answers)));
            }
            // Too many open files: they get fewer.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Waits until a connection has ended, so that nothing of it is kept.
async fn connection_ended(connections: &mut JoinSet<()>) {
    if connections.join_next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Serves one connection to its end.
async fn connection(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answers.answer(request).await) }
    });
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .max_headers(64)
            .serve_connection(TokioIo::new(stream), service)
    );
    // A broken connection is the client's affair.
    if timeout(MAX_LIFE, serving.as_mut()).await.is_err() {
        serving.as_mut().graceful_shutdown();
        let _ = timeout(GRACE, serving).await;
    }
}

struct Answers {
    guard: Guard,
    /// Whether there is a task that ticks the sampler.
    is_ticking: AtomicBool,
}

impl Answers {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let uri = request.uri();
        match self.guard.check(uri, request.headers()) {
            Access::Granted => {}
            Access::SetCookie(cookie) => return redirect(&cookie),
            Access::NeedsToken => {
                sleep(WRONG_TOKEN).await;
                return needs_token();
            }
            Access::WrongHost => {
                let text = "This console answers only to the names of this machine's loopback. Give it a token for others.\n";
                return closing(text_answer(StatusCode::FORBIDDEN, text));
            }
        }
        if request.method() != Method::GET {
            let mut answer = text_answer(StatusCode::METHOD_NOT_ALLOWED, "Only GET is answered.\n");
            let get = HeaderValue::from_static("GET");
            answer.headers_mut().insert(header::ALLOW, get);
            // Its body is not read.
            return closing(answer);
        }
        match uri.path() {
            "/" => answer("text/html; charset=utf-8", include_str!("page/page.html")),
            "/page.css" => answer("text/css; charset=utf-8", include_str!("page/page.css")),
            "/page.js" => answer(
                "text/javascript; charset=utf-8",
                include_str!("page/page.js"),
            ),
            "/icon.svg" => answer("image/svg+xml", include_str!("page/icon.svg")),
            "/snapshot.json" => answer("application/json", json::to_string(&self.snapshot(uri))),
            "/snapshot.txt" => answer(
                "text/plain; charset=utf-8",
                text::render(&self.snapshot(uri)),
            ),
            _ => text_answer(
                StatusCode::NOT_FOUND,
                "There are /, /snapshot.json and /snapshot.txt.\n",
            ),
        }
    }

    fn snapshot(self: &Arc<Self>, uri: &Uri) -> Snapshot {
        let number = |name: &str| {
            let query = uri.query().unwrap_or_default();
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let mut values = pairs.filter(|(key, _)| *key == name);
            values.next().and_then(|(_, value)| value.parse().ok())
        };
        // Without `after` there is no timeline: for a client that shows the figures alone.
        let (epoch, after) = (number("epoch"), number("after"));
        let snapshot = sampler::snapshot(epoch.unwrap_or(0), after);
        self.ensure_ticking();
        snapshot
    }

    /// Ensures that the sampler looks at the pools between the requests, too.
    fn ensure_ticking(self: &Arc<Self>) {
        if self.is_ticking.swap(true, Ordering::Relaxed) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            while sampler::tick() {
                sleep(sampler::TICK).await;
            }
            this.is_ticking.store(false, Ordering::Relaxed);
        });
    }
}

fn answer(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().insert(name, value);
    }
    let policy = HeaderValue::from_static("same-origin");
    answer
        .headers_mut()
        .insert("cross-origin-resource-policy", policy);
    answer
}

fn text_answer(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = answer("text/plain; charset=utf-8", text);
    *answer.status_mut() = status;
    answer
}

fn needs_token() -> Answer {
    let text =
        "This console needs its token: open it as /?token=…, or send it as a bearer token.\n";
    let mut answer = text_answer(StatusCode::UNAUTHORIZED, text);
    let ask = HeaderValue::from_static("Bearer realm=\"futurepool\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
    closing(answer)
}

/// Sends the browser to the address without the token, with a cookie instead.
fn redirect(cookie: &str) -> Answer {
    let mut answer = text_answer(StatusCode::SEE_OTHER, "See /.\n");
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static("/"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    answer
}

/// Ends the connection with this answer: a stranger keeps none.
fn closing(mut answer: Answer) -> Answer {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(header::CONNECTION, close);
    answer
}
