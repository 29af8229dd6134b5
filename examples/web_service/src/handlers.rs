//! The routes.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::database::User;
use crate::{App, Failure, counts, database, images, jobs, metrics};

/// The size limit of a request body, in bytes.
pub const BODY_LIMIT: usize = 4 << 20;

pub fn router(app: App) -> Router {
    Router::new()
        .route("/hash", post(hash))
        .route("/verify", post(verify))
        .route("/users/{id}", get(user))
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
    Json(request): Json<ToHash>,
) -> Result<Json<Hashed>, Failure> {
    let hash = app.cpu.run(move || jobs::hash(&request.password)).await?;
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

async fn verify(
    State(app): State<App>,
    Json(request): Json<ToVerify>,
) -> Result<Json<Verified>, Failure> {
    let job = move || jobs::verify(&request.password, &request.hash);
    let valid = app.cpu.run(job).await?;
    Ok(Json(Verified { valid }))
}

async fn user(State(app): State<App>, Path(id): Path<i64>) -> Result<Json<User>, Failure> {
    let query = move || {
        database::user(id).map_err(|error| Failure::Internal(format!("the database: {error}")))
    };
    let user = app.db.run(query).await?;
    let not_found = || Failure::Request(StatusCode::NOT_FOUND, format!("There is no user {id}."));
    user.map(Json).ok_or_else(not_found)
}

async fn thumbnail(State(app): State<App>, image: Bytes) -> Result<impl IntoResponse, Failure> {
    let call = images::thumbnail::call(image.into(), app.decoder);
    let png = app.images.run(call).await??;
    Ok(([(CONTENT_TYPE, "image/png")], png))
}

async fn all_metrics(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&app))
}
