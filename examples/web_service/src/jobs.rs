//! The CPU-bound jobs. They contain no async code, and of HTTP only the status of a bad request.

use std::io::Cursor;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error, PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use axum::http::StatusCode;
use image::{ImageError, ImageFormat, ImageReader, Limits};

use crate::Failure;

/// The maximum width and height of a thumbnail.
pub const SIDE: u32 = 128;

/// Limits of uploaded images, because a small file may decode to a huge image.
///
/// `MAX_BYTES` limits the decoded image. A decoder may need more memory: the JPEG decoder keeps the
/// coefficients of a progressive image. For one of 3,000 by 3,000 the service took 91 MB in all.
const MAX_SIDE: u32 = 3_000;
const MAX_BYTES: u64 = 64 << 20;

pub(crate) fn hash(password: &str) -> Result<String, Failure> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string())
        .map_err(|error| Failure::Internal(format!("argon2: {error}")))
}

/// Returns whether the hash belongs to the password.
pub(crate) fn verify(password: &str, hash: &str) -> Result<bool, Failure> {
    let wrong = |error| unprocessable(format!("This is no hash of argon2: {error}."));
    let hash = PasswordHash::new(hash).map_err(|error| wrong(error.into()))?;
    let params = Params::try_from(&hash).map_err(wrong)?;
    // The hash states its cost in time and memory. Accepts no more than our own hashes cost.
    if params.m_cost() > Params::DEFAULT_M_COST
        || params.t_cost() > Params::DEFAULT_T_COST
        || params.p_cost() > Params::DEFAULT_P_COST
    {
        return Err(unprocessable("This hash costs too much to verify.".into()));
    }
    match Argon2::default().verify_password(password.as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(wrong(error)),
    }
}

/// Scales a PNG or JPEG image down to [`SIDE`], and returns it as a PNG.
pub(crate) fn thumbnail(image: &[u8]) -> Result<Vec<u8>, Failure> {
    let wrong = |error: ImageError| {
        let error = error.to_string();
        unprocessable(format!(
            "No image can be read from this: {}.",
            error.trim_end()
        ))
    };
    let mut reader = ImageReader::new(Cursor::new(image))
        .with_guessed_format()
        .expect("reading from memory cannot fail");
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);

    let mut image = reader.decode().map_err(wrong)?;
    if image.width() > SIDE || image.height() > SIDE {
        image = image.thumbnail(SIDE, SIDE);
    }
    let mut png = Cursor::new(Vec::new());
    image
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| Failure::Internal(format!("the thumbnail: {error}")))?;
    Ok(png.into_inner())
}

fn unprocessable(problem: String) -> Failure {
    Failure::Request(StatusCode::UNPROCESSABLE_ENTITY, problem)
}
