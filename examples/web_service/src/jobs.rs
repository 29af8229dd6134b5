//! The jobs that hash passwords. They contain no async code, and of HTTP only the status of a bad
//! request.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error, PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use axum::http::StatusCode;

use crate::Failure;

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

fn unprocessable(problem: String) -> Failure {
    Failure::Request(StatusCode::UNPROCESSABLE_ENTITY, problem)
}
