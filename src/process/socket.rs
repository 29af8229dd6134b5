//! Pairs of sockets, and writing to them without a signal.

use std::io::{self, IoSlice, Write};
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

/// Makes two connected sockets that [`NoSigpipe`] can write to.
pub(crate) fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (one, other) = UnixStream::pair()?;
    #[cfg(target_vendor = "apple")]
    for socket in [&one, &other] {
        rustix::net::sockopt::set_socket_nosigpipe(socket, true)?;
    }
    Ok((one, other))
}

/// Writes to a socket without a `SIGPIPE` if the other side is gone: a program that has reset that
/// signal to its default would die with its worker.
///
/// Apple's systems have an option of the socket for that instead, which [`pair`] sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoSigpipe<'a>(pub(crate) &'a UnixStream);

#[cfg(not(target_vendor = "apple"))]
const SEND: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const SEND: SendFlags = SendFlags::empty();

impl Write for NoSigpipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SEND)?)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut nothing = SendAncillaryBuffer::default();
        Ok(sendmsg(self.0, parts, &mut nothing, SEND)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
