//! The database. Each worker of the pool owns a connection.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io, process};

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde::Serialize;

/// The number of users that [`create`] inserts.
pub const USERS: i64 = 1_000;

const USER: &str = "SELECT id, name, email FROM users WHERE id = ?1";

#[derive(Debug, Serialize)]
pub struct User {
    id: i64,
    name: String,
    email: String,
}

/// Opens a connection and prepares a statement.
///
/// SQLite does not read the file before the first statement. So this reports a bad file at once.
pub fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.prepare_cached(USER)?;
    Ok(connection)
}

/// Queries a user.
pub(crate) fn user(connection: &Connection, id: i64) -> rusqlite::Result<Option<User>> {
    let mut statement = connection.prepare_cached(USER)?;
    let user = statement.query_row([id], |row| {
        Ok(User {
            id: row.get(0)?,
            name: row.get(1)?,
            email: row.get(2)?,
        })
    });
    user.optional()
}

/// Creates a database with example users, unless the file exists.
///
/// The database is written to a temporary file and then renamed. So a killed process never leaves a
/// partial database.
pub fn create(path: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    if path.exists() {
        return Ok(());
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", process::id())); // for each process its own
    let temporary = PathBuf::from(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    fill(&temporary)?;
    Ok(fs::rename(&temporary, path)?)
}

fn fill(path: &Path) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    transaction
        .execute_batch("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)")?;
    for id in 1..=USERS {
        let row = (id, format!("User {id}"), format!("user-{id}@example.org"));
        transaction.execute("INSERT INTO users VALUES (?1, ?2, ?3)", row)?;
    }
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)
}
