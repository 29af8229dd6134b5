//! Seeking, which accounts for what was read ahead.

use std::io::{self, Seek, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::AsyncSeek;

use super::waiters::Half;
use super::{Failure, Kind, Reply, Unblock};

/// The seek in progress.
#[derive(Default)]
pub(super) struct SeekState {
    /// The result of a job that no poll has taken yet.
    arrived: Option<(SeekFrom, io::Result<u64>)>,
    /// What tokio's `start_seek` was called with.
    #[cfg(feature = "tokio")]
    pub(super) requested: Option<SeekFrom>,
    /// The last position that a seek has returned.
    #[cfg(feature = "tokio")]
    pub(super) position: u64,
}

impl SeekState {
    /// Forgets what [`Unblock::abandon_seek`] abandons.
    fn abandon(&mut self) {
        self.arrived = None;
        #[cfg(feature = "tokio")]
        {
            self.requested = None;
        }
    }

    pub(super) fn arrive(&mut self, position: SeekFrom, moved: Moved) {
        self.arrived = Some((position, moved.result));
    }
}

/// What a seeking job returns.
pub(super) struct Moved {
    result: io::Result<u64>,
    /// Whether the position of the value is that of the consumer, although the seek has failed.
    is_undone: bool,
}

impl Moved {
    /// Returns whether the position has changed, so that what was read ahead is stale.
    pub(super) fn has_moved(&self) -> bool {
        self.is_undone || self.result.is_ok()
    }
}

/// Seeks as the consumer would: its position is `ahead` bytes before that of `io`.
fn seek(io: &mut impl Seek, position: SeekFrom, ahead: usize) -> Moved {
    let mut is_undone = false;
    let mut seek = || {
        let back = i64::try_from(ahead).map_err(io::Error::other)?;
        match position {
            SeekFrom::Current(offset) => match offset.checked_sub(back) {
                Some(offset) => io.seek(SeekFrom::Current(offset)),
                None => {
                    io.seek(SeekFrom::Current(-back))?;
                    is_undone = true;
                    io.seek(position)
                }
            },
            SeekFrom::Start(_) | SeekFrom::End(_) => io.seek(position),
        }
    };
    let result = seek();
    Moved { result, is_undone }
}

impl<T> Unblock<T> {
    /// Forgets a seek after its future was dropped, because another operation has come. A job that
    /// seeks runs on, and its result is not kept.
    pub(super) fn abandon_seek(&mut self) {
        self.seek.abandon();
        if let Some(job) = &mut self.job {
            if let Kind::Seek(position) = &mut job.kind {
                *position = None;
            }
        }
    }
}

impl<T: Seek + Send + 'static> Unblock<T> {
    /// Seeks. The caller polls until this is ready, always with the same position.
    pub(super) fn poll_seek_to(
        &mut self,
        context: &mut Context<'_>,
        position: SeekFrom,
    ) -> Poll<io::Result<u64>> {
        loop {
            match self.seek.arrived.take() {
                Some((of, result)) if of == position => return Poll::Ready(result),
                // The future of that seek was dropped.
                Some(_) | None => {}
            }
            if self.kind() == Some(Kind::Seek(Some(position))) {
                let ended = ready!(self.poll_job(context, Half::Reader));
                if let Err(Failure { error, .. }) = ended {
                    return Poll::Ready(Err(error.into()));
                }
                continue;
            }
            ready!(self.poll_written(context, Half::Reader))?;
            let ahead = self.read_buffer.ahead();
            self.start(Kind::Seek(Some(position)), move |shared| {
                let moved = shared.run(|io| seek(io, position, ahead))?;
                Ok(Reply::Seek(moved))
            })?;
        }
    }
}

impl<T: Seek + Send + 'static> AsyncSeek for Unblock<T> {
    fn poll_seek(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        position: SeekFrom,
    ) -> Poll<io::Result<u64>> {
        self.poll_seek_to(context, position)
    }
}
