//! Claims that outlive their messages for a while.
//!
//! A server may show a message that has left: another replica that lags, or an old server after a
//! hard kill. The claim is there until that is no longer possible. Many jobs end within that time,
//! so that a claim that waits takes little memory.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use futures::stream::{self, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::core::Shared;
use crate::broker::{Broker, Store};
use crate::protocol::job::JobMessage;

/// As many claims are deleted at once.
const AT_ONCE: usize = 16;

/// Claims whose messages have left, in the order in which they may go.
#[derive(Default)]
pub(super) struct Releases {
    queue: RefCell<VecDeque<Release>>,
    added: Notify,
}

/// A claim whose message has left.
pub(super) struct Release {
    pub(super) job: Box<str>,
    /// The sequence of the message.
    pub(super) seq: u64,
    /// The sequence of the claim.
    pub(super) claim: u64,
    /// The connection's generation in which the message was removed.
    pub(super) generation: u64,
    due: Instant,
}

impl Release {
    pub(super) fn new(job: &str, seq: u64, claim: u64, generation: u64) -> Self {
        Self {
            job: job.into(),
            seq,
            claim,
            generation,
            due: Instant::now(),
        }
    }
}

impl<B: Broker> Shared<B> {
    /// Deletes a claim once its grace is over.
    pub(super) fn release_later(&self, release: Release) {
        let due = Instant::now() + self.options.settings.claim_grace();
        let mut queue = self.releases.queue.borrow_mut();
        queue.push_back(Release { due, ..release });
        drop(queue);
        self.releases.added.notify_one();
    }

    /// Deletes a claim, unless the server may have brought its message back.
    async fn release_now(&self, release: Release) {
        // The same connection: the server was not restarted, so nothing has come back.
        let generation = self.generation();
        if release.generation != generation {
            let get = async || self.broker.get(Store::Jobs, release.seq).await;
            let found = self.until_known("look for a job that is done", get).await;
            if found.is_some_and(|found| JobMessage::id_of(&found) == Some(&*release.job)) {
                let delete = async || self.broker.delete(Store::Jobs, release.seq).await;
                self.until_known("remove a job that came back", delete)
                    .await;
                self.release_later(Release {
                    generation,
                    ..release
                });
                return;
            }
        }
        let delete = async || self.broker.delete(Store::Claims, release.claim).await;
        self.until_known("delete a claim", delete).await;
    }
}

/// Deletes claims whose grace is over. A drain does not wait for it: the janitors of other workers
/// delete the claims of workers that are gone.
pub(super) async fn release<B: Broker>(shared: Rc<Shared<B>>) {
    loop {
        let front = shared
            .releases
            .queue
            .borrow()
            .front()
            .map(|front| front.due);
        match front {
            Some(due) => sleep_until(due).await,
            None => {
                shared.releases.added.notified().await;
                continue;
            }
        }
        let now = Instant::now();
        let due: Vec<_> = {
            let mut queue = shared.releases.queue.borrow_mut();
            let due = queue
                .iter()
                .take_while(|release| release.due <= now)
                .count();
            queue.drain(..due).collect()
        };
        let due = stream::iter(due);
        due.for_each_concurrent(AT_ONCE, |release| shared.release_now(release))
            .await;
    }
}
