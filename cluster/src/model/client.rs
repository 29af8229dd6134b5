//! A submitter, as the harness sees it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futurepool::{Call, JoinHandle, Task, TaskJob};
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::judge::Judge;
use crate::broker::memory::Memory;
use crate::protocol::settings::Settings;
use crate::submitter::core::Reached;
use crate::submitter::metrics::Counts;
use crate::submitter::resolver::ResolveHere;
use crate::submitter::{Config, CoreParts, Handle};

/// The handle of a submitter.
pub(super) struct Client {
    handle: Handle,
    judge: Rc<RefCell<Judge>>,
}

/// What becomes its core.
pub(super) struct Parts {
    parts: CoreParts,
    config: Config,
}

impl Client {
    pub(super) fn new(
        name: &str,
        window: usize,
        disconnect_limit: Option<Duration>,
        seed: u64,
        judge: &Rc<RefCell<Judge>>,
    ) -> (Self, Parts) {
        let config = Config {
            window,
            disconnect_limit,
            seed,
            ..Config::new(name.to_owned(), Settings::default())
        };
        let (handle, parts) = Handle::new(&config);
        let judge = Rc::clone(judge);
        (Self { handle, judge }, Parts { parts, config })
    }

    /// Submits a job. `None`: there is no room.
    pub(super) fn submit<T>(
        &self,
        call: Call<T>,
        key: Option<String>,
        deadline: Option<Duration>,
    ) -> Option<JoinHandle<u64>>
    where
        T: Task<Output = u64>,
    {
        let call = match deadline {
            Some(left) => call.deadline((Instant::now() + left).into_std()),
            None => call,
        };
        let (job, handle) = TaskJob::new(call);
        let Some(key) = key else {
            return self.handle.try_submit(job).is_ok().then_some(handle);
        };
        let (submitter, judge) = (self.handle.clone(), Rc::clone(&self.judge));
        spawn_local(async move {
            if let Err(error) = submitter.submit_detached(&key, job).await
                && error.is_duplicate_key()
            {
                let text = format_args!("C7: {key} was never used before: {error}");
                judge.borrow_mut().violation(text);
            }
        });
        Some(handle)
    }

    pub(super) fn attach<T>(&self, key: &str) -> JoinHandle<u64>
    where
        T: Task<Output = u64>,
    {
        self.handle.attach::<T>(key)
    }

    pub(super) fn counts(&self) -> Counts {
        self.handle.counts()
    }

    pub(super) fn shutdown(&self) {
        self.handle.shutdown();
    }
}

impl Parts {
    /// Runs the core until it is shut down.
    pub(super) async fn run(self, broker: Memory, settings: Settings, reached: Reached) {
        let Self { parts, config } = self;
        let config = Config { settings, ..config };
        let core = parts.into_core(broker, config, Rc::new(ResolveHere), reached);
        core.run().await;
    }
}
