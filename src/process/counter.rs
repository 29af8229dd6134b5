//! Which call of a batch has begun: a number that a pool and its worker share.
//!
//! It is the position in an open file that both have. So it costs one small system call to count,
//! and it survives a crash of the worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{SeekFrom, seek};

/// Added by the pool to ask the worker to begin no further call of the batch.
const STOP: u64 = 1 << 40;

/// Counts the calls of a batch that have begun.
#[derive(Debug)]
pub(crate) struct Counter(OwnedFd);

impl Counter {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(open_file()?))
    }

    /// Makes the worker's side of what the pool has sent.
    pub(crate) fn of(file: OwnedFd) -> Self {
        Self(file)
    }

    /// Returns what the pool sends to the worker.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The pool is about to send a batch.
    pub(crate) fn reset(&self) {
        let _ = seek(&self.0, SeekFrom::Start(0));
    }

    /// Returns how many calls of the batch may have begun, as far as the worker can be trusted.
    pub(crate) fn begun(&self) -> usize {
        // If it cannot be told, any of them may have.
        seek(&self.0, SeekFrom::Current(0)).map_or(usize::MAX, |at| (at % STOP) as usize)
    }

    /// Asks the worker to begin no further call. It may come too late, and then stop another batch.
    /// So the pool sends calls that were skipped again, unless it no longer wants them.
    pub(crate) fn stop(&self) {
        let _ = seek(&self.0, SeekFrom::Current(STOP as i64));
    }

    /// The worker is about to begin a call. Returns false if it must begin none.
    pub(crate) fn begin(&self) -> io::Result<bool> {
        Ok(seek(&self.0, SeekFrom::Current(1))? < STOP)
    }
}

/// Opens an empty file without a name.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn open_file() -> io::Result<OwnedFd> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(rustix::fs::memfd_create("futurepool-counter", flags)?)
}

/// Opens an empty file without a name.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn open_file() -> io::Result<OwnedFd> {
    use std::hash::{BuildHasher, RandomState};

    let number = RandomState::new().hash_one(0);
    let path = std::env::temp_dir().join(format!("futurepool-{number:x}"));
    let mut options = std::fs::File::options();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_number() {
        let own = Counter::new().unwrap();
        // What a socket hands over is a copy, too.
        let theirs = Counter::of(own.as_fd().try_clone_to_owned().unwrap());

        assert_eq!(own.begun(), 0);
        assert!(theirs.begin().unwrap());
        assert!(theirs.begin().unwrap());
        assert_eq!(own.begun(), 2);
        own.stop();
        own.stop();
        assert!(!theirs.begin().unwrap());
        own.reset();
        assert_eq!(own.begun(), 0);
        assert!(theirs.begin().unwrap());
        drop(theirs);
        assert_eq!(own.begun(), 1);
    }
}
