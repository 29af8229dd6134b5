//! Reading: one job fills one buffer, and polls copy out of it.

use std::any::Any;
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncBufRead, AsyncRead};

use super::waiters::Half;
use super::{Failure, Kind, Refused, Reply, Unblock};
use crate::park::helping::in_block_on;
use crate::task::context::current_pool;

/// Bytes that were read and not consumed.
#[derive(Default)]
pub(super) struct ReadBuffer {
    /// The buffer that is being consumed. Its length is the capacity; it is zeroed once.
    front: Vec<u8>,
    /// The unconsumed part of `front`.
    start: usize,
    end: usize,
    /// A job has returned this, and `front` was not consumed yet.
    arrived: Option<(Vec<u8>, io::Result<usize>)>,
    /// The buffer for the next job. Empty until two are needed.
    spare: Vec<u8>,
    /// Whether the last job has filled its buffer, so that more is likely to follow.
    was_filled: bool,
    /// Whether the value is a regular file. Only its reads never wait for another program, so only
    /// it is read ahead, and only its position can be moved back. `None` before the first read.
    is_regular_file: Option<bool>,
    /// Whether the next poll also returns the end, without a job: see [`repeats_end`].
    is_at_end: bool,
}

/// What a reading job returns.
pub(super) struct Filled {
    buffer: Vec<u8>,
    result: io::Result<usize>,
    is_regular_file: bool,
}

impl ReadBuffer {
    fn unread(&self) -> &[u8] {
        &self.front[self.start..self.end]
    }

    /// Returns how many bytes the position of the value is ahead of that of the consumer.
    pub(super) fn ahead(&self) -> usize {
        let arrived = match &self.arrived {
            Some((_, Ok(read))) => *read,
            _ => 0,
        };
        self.unread().len() + arrived
    }

    pub(super) fn is_regular_file(&self) -> bool {
        self.is_regular_file == Some(true)
    }

    pub(super) fn arrive(&mut self, filled: Filled) {
        let Filled {
            buffer,
            result,
            is_regular_file,
        } = filled;
        self.is_regular_file = Some(is_regular_file);
        self.was_filled = matches!(result, Ok(read) if read == buffer.len());
        self.arrived = Some((buffer, result));
    }

    /// Moves what has arrived to the front, which is consumed. Returns how many bytes these are, 0
    /// at the end, or `None` if nothing has arrived.
    fn advance(&mut self) -> Option<io::Result<usize>> {
        let (buffer, result) = self.arrived.take()?;
        self.spare = mem::replace(&mut self.front, buffer);
        self.start = 0;
        self.end = *result.as_ref().unwrap_or(&0);
        Some(result)
    }

    /// Forgets that the end was met: another operation may change what can be read.
    pub(super) fn forget_end(&mut self) {
        self.is_at_end = false;
        if let Some((buffer, _)) = self.arrived.take_if(|(_, result)| matches!(result, Ok(0))) {
            self.spare = buffer;
        }
    }

    pub(super) fn discard(&mut self) {
        self.start = self.end;
        self.was_filled = false;
        self.is_at_end = false;
        if let Some((buffer, _)) = self.arrived.take() {
            self.spare = buffer;
        }
    }
}

impl<T: Read + Send + 'static> Unblock<T> {
    /// Waits until bytes are in the buffer. Returns them, or nothing at the end of the input.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.abandon_seek();
        // Jobs that may change what is buffered: of a seek, or of `with_mut`, that was dropped.
        if !matches!(self.kind(), None | Some(Kind::Read | Kind::Write)) {
            ready!(self.poll_others(context, Half::Reader)).map_err(io::Error::from)?;
        }
        if mem::take(&mut self.read_buffer.is_at_end) && repeats_end() {
            return Poll::Ready(Ok(&[]));
        }
        while self.read_buffer.unread().is_empty() {
            match self.read_buffer.advance() {
                Some(Ok(0)) => {
                    self.read_buffer.is_at_end = true;
                    break;
                }
                Some(result) => {
                    result?;
                    self.read_ahead();
                    continue;
                }
                None => {}
            }
            if self.kind() != Some(Kind::Read) {
                // Accepted bytes are written first.
                ready!(self.poll_written(context, Half::Reader))?;
                self.start_read()?;
            }
            let ended = ready!(self.poll_job(context, Half::Reader));
            if let Err(Failure { error, .. }) = ended {
                return Poll::Ready(Err(error.into()));
            }
        }
        Poll::Ready(Ok(self.read_buffer.unread()))
    }

    pub(super) fn consume_bytes(&mut self, amount: usize) {
        let buffer = &mut self.read_buffer;
        assert!(
            amount <= buffer.unread().len(),
            "`consume` called with more bytes than there are"
        );
        buffer.start += amount;
        self.read_ahead();
    }

    /// Starts to read the next buffer, if the consumer reads a regular file from end to end.
    fn read_ahead(&mut self) {
        let buffer = &self.read_buffer;
        let is_due = buffer.was_filled
            && buffer.is_regular_file()
            && buffer.arrived.is_none()
            && buffer.unread().len() < buffer.front.len() / 2;
        // Bytes that the pool has refused to write come first.
        if is_due && self.job.is_none() && self.shared.outbox.lock().bytes.is_empty() {
            // If the pool refuses it, the poll that needs the bytes says so.
            let _ = self.start_read();
        }
    }

    fn start_read(&mut self) -> Result<(), Refused> {
        let capacity = self.byte_capacity();
        let buffer = mem::take(&mut self.read_buffer.spare);
        let known = self.read_buffer.is_regular_file;
        self.start(Kind::Read, move |shared| {
            let mut buffer = buffer;
            if buffer.len() != capacity {
                buffer = vec![0; capacity];
            }
            let (result, is_regular_file) = shared.run(|io| {
                let result = read_once(io, &mut buffer);
                (result, known.unwrap_or_else(|| is_regular_file(io)))
            })?;
            Ok(Reply::Read(Filled {
                buffer,
                result,
                is_regular_file,
            }))
        })
    }
}

/// Returns whether the end of the input is returned twice: in a worker under `block_on`.
///
/// `futures::io::copy` polls the reader again, at its end, before each poll of the writer's flush.
/// If each of these polls submitted a job, the only worker would run these jobs forever: it runs
/// the flush only in a poll that meets the flush. Any other job of the `Unblock` forgets the end.
fn repeats_end() -> bool {
    in_block_on() && current_pool().is_some()
}

fn read_once(io: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match io.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(read) => {
                assert!(
                    read <= buffer.len(),
                    "`read` returned more than it was asked for"
                );
                return Ok(read);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Returns whether a value is a [`File`] that is not a terminal, a pipe or a device.
fn is_regular_file<T: 'static>(io: &T) -> bool {
    let file = (io as &dyn Any).downcast_ref::<File>();
    file.is_some_and(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))
}

impl<T: Read + Send + 'static> AsyncRead for Unblock<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if target.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let bytes = ready!(self.poll_fill(context))?;
        let read = bytes.len().min(target.len());
        target[..read].copy_from_slice(&bytes[..read]);
        self.consume_bytes(read);
        Poll::Ready(Ok(read))
    }
}

impl<T: Read + Send + 'static> AsyncBufRead for Unblock<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.get_mut().poll_fill(context)
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.consume_bytes(amount);
    }
}
