//! The database: one connection for each worker of its pool, made by the pool's initializer.

use std::cell::OnceCell;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io, process};

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde::Serialize;

/// How many users [`create`] makes up.
pub const USERS: i64 = 1_000;

const USER: &str = "SELECT id, name, email FROM users WHERE id = ?1";

thread_local! {
    /// A connection is for one thread at a time, so each worker has its own, which lives as long as the worker.
    static CONNECTION: OnceCell<Connection> = const { OnceCell::new() };
}

#[derive(Debug, Serialize)]
pub struct User {
    id: i64,
    name: String,
    email: String,
}

/// Opens the connection of this thread, and sees to it that it is of use: SQLite itself looks into the file at the
/// first statement only.
pub fn connect(path: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.prepare_cached(USER)?;
    CONNECTION.with(|mine| mine.set(connection).expect("it is opened once"));
    Ok(())
}

/// In a thread that called [`connect`].
pub(crate) fn user(id: i64) -> rusqlite::Result<Option<User>> {
    CONNECTION.with(|mine| {
        let connection = mine.get().expect("the pool's initializer connects");
        let mut statement = connection.prepare_cached(USER)?;
        let user = statement.query_row([id], |row| {
            Ok(User {
                id: row.get(0)?,
                name: row.get(1)?,
                email: row.get(2)?,
            })
        });
        user.optional()
    })
}

/// Makes a database to play with, if there is no file. It is made beside its place and moved there when it is whole: a
/// start that is killed leaves none that is empty.
pub fn create(path: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    if path.exists() {
        return Ok(());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", process::id())); // two starts at once do not share it
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    fill(&beside)?;
    Ok(fs::rename(&beside, path)?)
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
