//! How many jobs a submitter holds.

use std::sync::Arc;

use crate::watch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Limits the unresolved jobs, first come first served. A full queue closes it for a while.
#[derive(Debug)]
pub(crate) struct Window {
    permits: Arc<Semaphore>,
    size: usize,
    /// Whether the server has refused a job because its queue is full. The core changes it.
    queue_full: watch::Sender<bool>,
}

/// Room for one job. Dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None`: the job is beyond the window, see [`Window::exceed`].
    _permit: Option<OwnedSemaphorePermit>,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPermit {
    Full,
    Closed,
}

impl Window {
    pub(crate) fn new(size: usize) -> Self {
        let size = size.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(size)),
            size,
            queue_full: watch::Sender::new(false),
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn try_acquire(&self) -> Result<Permit, NoPermit> {
        if self.permits.is_closed() {
            return Err(NoPermit::Closed);
        }
        if *self.queue_full.borrow() {
            return Err(NoPermit::Full);
        }
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => Ok(Permit {
                _permit: Some(permit),
            }),
            Err(TryAcquireError::NoPermits) => Err(NoPermit::Full),
            Err(TryAcquireError::Closed) => Err(NoPermit::Closed),
        }
    }

    /// Waits for a permit, and for room in the queue. Dropping the future gives up the place.
    pub(crate) async fn acquire(&self) -> Result<Permit, NoPermit> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| NoPermit::Closed)?;
        let mut queue_full = self.queue_full.subscribe();
        // The sender is a field, so the wait never fails.
        let _ = queue_full.wait_for(|full| !full).await;
        if self.permits.is_closed() {
            return Err(NoPermit::Closed);
        }
        Ok(Permit {
            _permit: Some(permit),
        })
    }

    /// Returns a permit beyond the window, for a caller that must not wait: all that frees permits
    /// waits for the caller.
    pub(crate) fn exceed(&self) -> Result<Permit, NoPermit> {
        match self.try_acquire() {
            Err(NoPermit::Full) => Ok(Permit { _permit: None }),
            result => result,
        }
    }

    pub(crate) fn set_queue_full(&self, full: bool) {
        self.queue_full.send_if_modified(|old| {
            let changed = *old != full;
            *old = full;
            changed
        });
    }

    #[cfg(test)]
    pub(crate) fn is_queue_full(&self) -> bool {
        *self.queue_full.borrow()
    }

    /// Refuses permits from now on, also to those that wait.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.set_queue_full(false);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn permits_are_limited_and_come_back() {
        let window = Window::new(1);
        let permit = window.try_acquire().unwrap();
        assert_eq!(window.try_acquire().unwrap_err(), NoPermit::Full);
        let mut waiting = pin!(window.acquire());
        assert!(poll(waiting.as_mut()).is_pending());
        drop(permit);
        assert!(matches!(poll(waiting.as_mut()), Poll::Ready(Ok(_))));
    }

    #[test]
    fn a_full_queue_refuses_and_lets_wait() {
        let window = Window::new(9);
        window.set_queue_full(true);
        assert_eq!(window.try_acquire().unwrap_err(), NoPermit::Full);
        let mut waiting = pin!(window.acquire());
        assert!(poll(waiting.as_mut()).is_pending());
        window.set_queue_full(false);
        assert!(matches!(poll(waiting.as_mut()), Poll::Ready(Ok(_))));
    }

    #[test]
    fn a_close_releases_all_that_wait() {
        let window = Window::new(1);
        let _permit = window.try_acquire().unwrap();
        let mut waiting = pin!(window.acquire());
        assert!(poll(waiting.as_mut()).is_pending());
        window.close();
        let refused = poll(waiting);
        assert!(matches!(refused, Poll::Ready(Err(NoPermit::Closed))));

        let window = Window::new(1);
        window.set_queue_full(true);
        let mut waiting = pin!(window.acquire());
        assert!(poll(waiting.as_mut()).is_pending());
        window.close();
        let refused = poll(waiting);
        assert!(matches!(refused, Poll::Ready(Err(NoPermit::Closed))));
        assert_eq!(window.try_acquire().unwrap_err(), NoPermit::Closed);
    }
}
