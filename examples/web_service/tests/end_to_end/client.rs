//! An HTTP client, and an image to upload.

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, header, request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as HyperClient, Error};
use hyper_util::rt::TokioExecutor;
use image::{DynamicImage, ImageFormat, RgbImage};
use std::io::Cursor;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;
use web_service::TIMEOUT_HEADER;

/// Longer than any step takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Reuses its connections.
#[derive(Clone)]
pub(crate) struct Client {
    client: HyperClient<HttpConnector, Full<Bytes>>,
    server: SocketAddr,
    /// What each request states.
    timeout: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) fn new(server: SocketAddr) -> Self {
        let client = HyperClient::builder(TokioExecutor::new()).build_http();
        let timeout = None;
        Self {
            client,
            server,
            timeout,
        }
    }

    /// States in each request how long the client waits. The client itself waits longer.
    pub(crate) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.send(Method::GET, path, "", Bytes::new()).await
    }

    pub(crate) async fn get_with(
        &self,
        path: &str,
        header: &str,
        value: &str,
    ) -> Result<Answer, Error> {
        let request = self.request(Method::GET, path).header(header, value);
        self.answer(request.body(Full::default())).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer, Error> {
        self.send(Method::POST, path, kind, body.into()).await
    }

    pub(crate) async fn hash(&self, password: &str) -> Result<Answer, Error> {
        let body = format!(r#"{{"password":"{password}"}}"#);
        self.post("/hash", "application/json", body).await
    }

    pub(crate) async fn thumbnail(&self, image: &Bytes) -> Result<Answer, Error> {
        self.post("/thumbnail", "image/jpeg", image.clone()).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Answer, Error> {
        let request = self
            .request(method, path)
            .header(header::CONTENT_TYPE, kind);
        self.answer(request.body(Full::new(body))).await
    }

    fn request(&self, method: Method, path: &str) -> request::Builder {
        let uri = format!("http://{}{path}", self.server);
        let request = Request::builder().method(method).uri(uri);
        match self.timeout {
            Some(timeout) => request.header(TIMEOUT_HEADER, timeout.as_millis().to_string()),
            None => request,
        }
    }

    async fn answer(
        &self,
        request: axum::http::Result<Request<Full<Bytes>>>,
    ) -> Result<Answer, Error> {
        let request = request.expect("the request is valid");
        let answer = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes());
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.expect("an answer that begins is complete"),
            })
        };
        let answer = timeout(PATIENCE, answer).await;
        answer.expect("every request is answered in time")
    }
}

/// Draws a colour gradient.
pub(crate) fn jpeg(width: u32, height: u32) -> Bytes {
    let colour = |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]);
    let image = DynamicImage::from(RgbImage::from_fn(width, height, colour));
    let mut file = Cursor::new(Vec::new());
    image
        .write_to(&mut file, ImageFormat::Jpeg)
        .expect("writing to memory cannot fail");
    file.into_inner().into()
}
