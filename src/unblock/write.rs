//! Writing: polls fill the outbox, and one job empties it.
//!
//! A job that finds bytes in the outbox again goes on, so that nothing waits for a further poll.
//! After [`SLICE`] it submits a successor instead and ends, so that a steady writer does not keep
//! other jobs from a worker.

use std::any::Any;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use futures::io::AsyncWrite;

use super::shared::Shared;
use super::submission::Target;
use super::waiters::Half;
use super::{Failure, Kind, Refused, Reply, Unblock, run_job};
use crate::util::sync::{Arc, Instant};
use crate::util::unwind::{drop_catching, drop_waker, wake};

/// How long a job goes on with further buffers.
const SLICE: Duration = Duration::from_millis(2);

/// What an `Unblock` keeps of `T: Write`, from the first write on: `Drop` cannot require it.
pub(super) struct Writing<T> {
    /// Submits the writing job.
    start: fn(&mut Unblock<T>) -> Result<(), Refused>,
    /// Empties the outbox at the end of another job.
    pub(super) rest: WriteRest<T>,
}

pub(super) type WriteRest<T> = fn(&Arc<Shared<T>>) -> thread::Result<Reply>;

/// What the writing job does next.
#[derive(Clone, Copy)]
enum Step {
    /// Writes the bytes that were swapped into the buffer, after moving back by so many bytes.
    Write(u64),
    Flush,
    /// Everything is done.
    End,
}

/// The writing job. Without a target it has no successor.
fn write_all<T>(shared: &Arc<Shared<T>>, target: Option<&Target>) -> thread::Result<Reply>
where
    T: Write + Send + 'static,
{
    let begin = Instant::now();
    let mut buffer = mem::take(&mut shared.outbox.lock().spare);
    loop {
        let (step, waker) = next_step(shared, &mut buffer);
        if let Some(waker) = waker {
            wake(waker);
        }
        let result = match step {
            Step::Write(undo) => shared.run(|io| {
                move_back(io, undo)?;
                io.write_all(&buffer)
            })?,
            Step::Flush => shared.run(Write::flush)?,
            Step::End => return Ok(Reply::Write(None)),
        };
        buffer.clear();
        let mut outbox = shared.outbox.lock();
        outbox.writing = 0;
        let surplus = match (result, step) {
            (Ok(()), _) => None,
            (Err(error), Step::Flush) => outbox.fail_flush(error),
            (Err(error), Step::Write(_) | Step::End) => outbox.fail_write(error),
        };
        let is_over = Instant::now().saturating_duration_since(begin) >= SLICE;
        let has_no_successor = outbox.last || target.is_none();
        let goes_on = outbox.bytes.is_empty() || has_no_successor || !is_over;
        if !goes_on {
            outbox.spare = mem::take(&mut buffer);
        }
        drop(outbox);
        // An error is user data, so it is dropped outside the lock.
        drop_catching("the destructor of an error", surplus);
        let target = match target {
            Some(target) if !goes_on => target,
            Some(_) | None => continue,
        };
        let (successor, successor_target) = (Arc::clone(shared), target.copy());
        let job = move || {
            run_job(successor, None, |shared| {
                write_all(shared, Some(&successor_target))
            })
        };
        match target.submit_in_job(job) {
            Ok(successor) => return Ok(Reply::Write(Some(successor))),
            // This job was accepted and is the last one, so it writes everything.
            Err(_) => {
                let mut outbox = shared.outbox.lock();
                outbox.last = true;
                buffer = mem::take(&mut outbox.spare);
            }
        }
    }
}

fn next_step<T>(shared: &Shared<T>, buffer: &mut Vec<u8>) -> (Step, Option<std::task::Waker>) {
    let mut outbox = shared.outbox.lock();
    // There is room after each step: an error, too, has emptied the outbox.
    let waker = outbox.waker.take();
    if !outbox.bytes.is_empty() {
        mem::swap(&mut outbox.bytes, buffer);
        outbox.writing = buffer.len();
        outbox.unflushed = true;
        let undo = mem::take(&mut outbox.undo);
        return (Step::Write(undo), waker);
    }
    if mem::take(&mut outbox.flush) && outbox.unflushed {
        outbox.unflushed = false;
        return (Step::Flush, waker);
    }
    // Invariant: cleared under the lock under which nothing was found to do. So a poll that adds
    // work later submits a job.
    outbox.active = false;
    outbox.last = false;
    outbox.spare = mem::take(buffer);
    (Step::End, waker)
}

/// Moves a file back over the bytes that were read ahead of the consumer.
fn move_back<T: 'static>(io: &mut T, undo: u64) -> io::Result<()> {
    match (io as &mut dyn Any).downcast_mut::<File>() {
        Some(file) if undo > 0 => {
            let offset = i64::try_from(undo).map_err(io::Error::other)?;
            file.seek(SeekFrom::Current(-offset)).map(drop)
        }
        _ => Ok(()),
    }
}

impl<T> Unblock<T> {
    /// Waits until no job is in flight and nothing is in the outbox, for an operation that does not
    /// report errors of writes.
    pub(super) fn poll_written(
        &mut self,
        context: &mut Context<'_>,
        half: Half,
    ) -> Poll<Result<(), Refused>> {
        loop {
            match ready!(self.poll_job(context, half)) {
                Err(Failure { error, is_retry }) if is_retry || error.is_panic() => {
                    return Poll::Ready(Err(Refused::Pool(error)));
                }
                // The job was refused, and its caller has gone.
                Err(_) | Ok(()) => {}
            }
            if self.shared.outbox.lock().bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
            // The pool has refused the job that writes these bytes: try once more.
            self.submit_write()?;
            if let Some(job) = &mut self.job {
                job.is_retry = true;
            }
        }
    }

    /// Submits the job that empties the outbox. None may be active.
    fn submit_write(&mut self) -> Result<(), Refused> {
        match &self.writing {
            Some(writing) => (writing.start)(self),
            None => Ok(()),
        }
    }

    /// Writes and flushes in the background what is left when the `Unblock` is dropped.
    pub(super) fn finish_in_background(&mut self) {
        // A failure was not reported and has no other place: what was lost is reported when the
        // outbox is dropped.
        drop_catching("a panic's payload", self.reap(Half::Writer).err());
        if self.writing.is_none() {
            return;
        }
        let mut outbox = self.shared.outbox.lock();
        outbox.flush = true;
        // The job in flight does it before it ends.
        outbox.is_orphaned = outbox.active;
        let is_needed = !outbox.active && !outbox.is_clean();
        drop(outbox);
        // At most one job has the value. One that does not look at the outbox leaves the loss of a flush
        // to be reported when the value is dropped.
        if is_needed && self.job.is_none() {
            let _ = self.submit_write();
        }
    }
}

impl<T: Write + Send + 'static> Unblock<T> {
    /// Begins an operation of the writer.
    fn enter_writer(&mut self) {
        self.abandon_seek();
        self.writing.get_or_insert(Writing {
            start: Self::start_write,
            rest: |shared| write_all(shared, None),
        });
    }

    fn start_write(&mut self) -> Result<(), Refused> {
        let target = self.target.copy();
        self.start(Kind::Write, move |shared| write_all(shared, Some(&target)))
    }

    /// Accepts bytes, or waits for room.
    pub(super) fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.enter_writer();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            ready!(self.poll_until_writing(context))?;
            match self.accept(bytes)? {
                Some(accepted) => return Poll::Ready(Ok(accepted)),
                None => ready!(self.poll_room(context))?,
            }
        }
    }

    /// Waits for a job of another operation, and takes the results of writing jobs.
    fn poll_until_writing(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_other_job() {
            ready!(self.poll_others(context, Half::Writer)).map_err(io::Error::from)?;
        }
        Poll::Ready(self.reap_write())
    }

    fn has_other_job(&self) -> bool {
        self.kind().is_some_and(|kind| kind != Kind::Write)
    }

    fn reap_write(&mut self) -> io::Result<()> {
        match self.has_other_job() {
            true => Ok(()),
            false => (self.reap(Half::Writer)).map_err(|failure| failure.error.into()),
        }
    }

    /// Puts bytes into the outbox and ensures that a job writes them. Returns `None` if there is no
    /// room.
    fn accept(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let capacity = self.byte_capacity();
        let mut outbox = self.shared.outbox.lock();
        if let Some(error) = outbox.error.take() {
            return Err(error);
        }
        if outbox.last {
            return Ok(None);
        }
        let before = outbox.bytes.len();
        let accepted = bytes.len().min(capacity.saturating_sub(before));
        outbox.bytes.extend_from_slice(&bytes[..accepted]);
        // A job that flushes may be active, so there can be bytes ahead although a job is active.
        let undo = match self.read_buffer.is_regular_file() && accepted > 0 {
            true => self.read_buffer.ahead() as u64,
            false => 0,
        };
        outbox.undo += undo;
        let is_active = outbox.active;
        drop(outbox);
        if !is_active {
            if let Err(refused) = self.submit_write() {
                let mut outbox = self.shared.outbox.lock();
                outbox.bytes.truncate(before);
                outbox.undo -= undo;
                return Err(refused.into());
            }
        }
        if undo > 0 {
            self.read_buffer.discard();
        }
        // If the pool had refused earlier bytes, there may still be no room.
        Ok((accepted > 0).then_some(accepted))
    }

    /// Waits until the job has taken bytes out of the outbox.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let capacity = self.byte_capacity();
        // Cloning a waker runs user code, so it happens outside the lock.
        let waker = Some(context.waker().clone());
        let mut outbox = self.shared.outbox.lock();
        let has_room = outbox.bytes.len() < capacity && !outbox.last;
        let unused = match has_room {
            true => waker,
            false => mem::replace(&mut outbox.waker, waker),
        };
        drop(outbox);
        drop_waker(unused);
        if has_room {
            return Poll::Ready(Ok(()));
        }
        // Also polled so that a worker of the same pool can help, and for a job that does not run.
        let ended = ready!(self.poll_job(context, Half::Writer));
        Poll::Ready(ended.map_err(|failure| failure.error.into()))
    }

    /// Waits until everything is written and flushed.
    pub(super) fn poll_flushed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.enter_writer();
        loop {
            self.reap_write()?;
            let has_other_job = self.has_other_job();
            let mut outbox = self.shared.outbox.lock();
            if let Some(error) = outbox.error.take() {
                return Poll::Ready(Err(error));
            }
            let is_active = outbox.active && !has_other_job;
            // A read that is in flight does not matter then.
            if !is_active && outbox.is_clean() {
                return Poll::Ready(Ok(()));
            }
            outbox.flush = true;
            drop(outbox);
            if !is_active {
                ready!(self.poll_until_writing(context))?;
                self.submit_write()?;
            }
            let ended = ready!(self.poll_job(context, Half::Writer));
            if let Err(Failure { error, .. }) = ended {
                return Poll::Ready(Err(error.into()));
            }
        }
    }

    /// Flushes, then drops the value in a job.
    pub(super) fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        if self.kind() != Some(Kind::Close) {
            ready!(self.poll_flushed(context))?;
            ready!(self.poll_until_writing(context))?;
            let closing = self.start(Kind::Close, |shared| {
                let io = shared.io.lock().take();
                catch_unwind(AssertUnwindSafe(|| drop(io))).map(|()| Reply::Done)
            });
            if closing.is_err() {
                // There is no worker to drop it on, or it was lost.
                self.closed = true;
                let io = self.shared.io.lock().take();
                drop_catching("the destructor of a blocking value", io);
                return Poll::Ready(Ok(()));
            }
        }
        let closed = ready!(self.poll_job(context, Half::Writer));
        Poll::Ready(closed.map_err(|failure| failure.error.into()))
    }
}

impl<T: Write + Send + 'static> AsyncWrite for Unblock<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_accept(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_closed(context)
    }
}
