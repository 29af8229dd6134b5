//! The floors: what a bare socket between two processes takes, and the start of a bare program.

use std::error::Error;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, mem, thread};

use crate::placement;

/// The argument with which this program becomes the other end of a floor.
pub(super) const ECHO: &str = "--echo";
const KEPT: &str = "kept";
const NEW: &str = "new";

/// The buffers of both ends.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Buffers {
    /// Both ends keep one buffer.
    Kept,
    /// Each end reads into a new one each time, as a pool must.
    New,
}

/// Another process, which sends back what it receives.
pub(super) struct Echo {
    end: End,
    child: Child,
}

impl Echo {
    /// Starts a process that receives `len` bytes and then sends them back.
    pub(super) fn start(len: usize, buffers: Buffers) -> io::Result<Self> {
        let (socket, other) = UnixStream::pair()?;
        let mut command = Command::new(env::current_exe()?);
        command.args([ECHO, &len.to_string()]);
        command.arg(if buffers == Buffers::Kept { KEPT } else { NEW });
        if let Some((_, worker)) = placement::apart() {
            command.arg(worker.to_string());
        }
        let child = command.stdin(OwnedFd::from(other)).spawn()?;
        let end = End::new(socket, len, buffers);
        Ok(Self { end, child })
    }

    /// Returns how long the bytes take there and back.
    pub(super) fn trip(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        self.end.send()?;
        let old = self.end.receive()?;
        let elapsed = start.elapsed();
        drop(old);
        Ok(elapsed)
    }
}

/// An end of the socket.
struct End {
    socket: UnixStream,
    buffer: Vec<u8>,
    buffers: Buffers,
}

impl End {
    fn new(socket: UnixStream, len: usize, buffers: Buffers) -> Self {
        let buffer = vec![7; len];
        Self {
            socket,
            buffer,
            buffers,
        }
    }

    fn send(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.buffer)
    }

    /// Returns the buffer that it replaced, if any.
    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let len = self.buffer.len();
        if self.buffers == Buffers::Kept {
            self.socket.read_exact(&mut self.buffer)?;
            return Ok(None);
        }
        let mut new = Vec::with_capacity(len);
        match (&self.socket).take(len as u64).read_to_end(&mut new)? == len {
            true => Ok(Some(mem::replace(&mut self.buffer, new))),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // The other process ends at the end of its input.
        let _ = self.end.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// The other end: sends back what comes from its standard input, until that ends.
///
/// `arguments` are the number of bytes, whether buffers are kept, and the processor if there is one.
pub(super) fn echo(arguments: &[String]) -> io::Result<()> {
    let [len, buffers, processor @ ..] = arguments else {
        return Err(invalid("too few arguments"));
    };
    let buffers = match buffers.as_str() {
        KEPT => Buffers::Kept,
        NEW => Buffers::New,
        _ => return Err(invalid("unknown kind of buffers")),
    };
    let number = |text: &String| text.parse::<usize>().map_err(invalid);
    if let [processor, ..] = processor {
        placement::pin_to(number(processor)?);
    }
    let len = number(len)?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut end = End::new(socket, len, buffers);
    loop {
        match end.receive() {
            Ok(_) => end.send()?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn invalid(cause: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, cause)
}

/// Returns how long it takes to start an empty program and to wait for its end.
pub(super) fn spawn_and_wait() -> io::Result<Duration> {
    let program = env::current_exe()?.with_file_name("process-empty");
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    let start = Instant::now();
    let status = command.spawn()?.wait()?;
    let elapsed = start.elapsed();
    assert!(status.success());
    // The system frees its memory after `wait` returned.
    thread::sleep(Duration::from_millis(1));
    Ok(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_checks_its_arguments() {
        let refused = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(|&one| one.to_owned()).collect();
            echo(&arguments).unwrap_err().to_string()
        };
        assert_eq!(refused(&["1"]), "too few arguments");
        assert_eq!(refused(&["1", "old"]), "unknown kind of buffers");
        assert_eq!(refused(&["one", KEPT]), "invalid digit found in string");
        assert_eq!(refused(&["1", NEW, "-1"]), "invalid digit found in string");
    }

    #[test]
    fn both_kinds_of_buffers_send_the_bytes_back() {
        for buffers in [Buffers::Kept, Buffers::New] {
            let (near, far) = UnixStream::pair().unwrap();
            let mut near = End::new(near, 100_000, buffers);
            let mut far = End::new(far, 100_000, buffers);
            let other = thread::spawn(move || {
                far.receive().unwrap();
                far.send().unwrap();
            });
            near.send().unwrap();
            near.receive().unwrap();
            assert!(near.buffer == vec![7; 100_000]);
            other.join().unwrap();
            assert!(near.receive().is_err(), "the other end is closed");
        }
    }
}
