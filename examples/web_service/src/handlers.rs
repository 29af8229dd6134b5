//! The routes.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::database::User;
use crate::images::Size;
use crate::urgency::Deadline;
use crate::{App, Failure, counts, database, images, jobs, metrics};

/// The size limit of a request body, in bytes.
pub const BODY_LIMIT: usize = 4 << 20;

pub fn router(app: App) -> Router {
    Router::new()
        .route("/hash", post(hash))
        .route("/verify", post(verify))
        .route("/users/{id}", get(user))
        .route("/inspect", post(inspect))
        .route("/thumbnail", post(thumbnail))
        .route("/metrics", get(all_metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "There is no such page.\n") })
        .method_not_allowed_fallback(|| async {
            let sentence = "This page does not take this method.\n";
            (StatusCode::METHOD_NOT_ALLOWED, sentence)
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(app.counts.clone(), counts::count))
        .with_state(app)
}

#[derive(Deserialize)]
struct ToHash {
    password: String,
}

#[derive(Serialize)]
struct Hashed {
    hash: String,
}

async fn hash(
    State(app): State<App>,
    deadline: Deadline,
    Json(request): Json<ToHash>,
) -> Result<Json<Hashed>, Failure> {
    let urgency = deadline.normal("/hash");
    let job = move || jobs::hash(&request.password);
    let hash = app.workers.compute(urgency, job).await?;
    Ok(Json(Hashed { hash }))
}

#[derive(Deserialize)]
struct ToVerify {
    password: String,
    hash: String,
}

#[derive(Serialize)]
struct Verified {
    valid: bool,
}

/// Verifies a password. A login has priority over a registration.
async fn verify(
    State(app): State<App>,
    deadline: Deadline,
    Json(request): Json<ToVerify>,
) -> Result<Json<Verified>, Failure> {
    let job = move || jobs::verify(&request.password, &request.hash);
    let valid = app.workers.compute(deadline.high("/verify"), job).await?;
    Ok(Json(Verified { valid }))
}

async fn user(
    State(app): State<App>,
    deadline: Deadline,
    Path(id): Path<i64>,
) -> Result<Json<User>, Failure> {
    let query = move |connection: &mut Connection| {
        let failed = |error| Failure::Internal(format!("the database: {error}"));
        database::user(connection, id).map_err(failed)
    };
    let urgency = deadline.normal("/users/{id}");
    let user = app.workers.query(urgency, query).await?;
    let not_found = || Failure::Request(StatusCode::NOT_FOUND, format!("There is no user {id}."));
    user.map(Json).ok_or_else(not_found)
}

/// The user waits for this while an upload is prepared. So it goes before all thumbnails.
async fn inspect(
    State(app): State<App>,
    deadline: Deadline,
    image: Bytes,
) -> Result<Json<Size>, Failure> {
    let call = images::inspect::call(image.into());
    let size = app.workers.call(deadline.high("/inspect"), call).await??;
    Ok(Json(size))
}

async fn thumbnail(
    State(app): State<App>,
    deadline: Deadline,
    image: Bytes,
) -> Result<impl IntoResponse, Failure> {
    let call = images::thumbnail::call(image.into(), app.decoder);
    let png = app.workers.call(deadline.low("/thumbnail"), call).await??;
    Ok(([(CONTENT_TYPE, "image/png")], png))
}

async fn all_metrics(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&app))
}
