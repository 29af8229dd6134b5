//! Where there is no Unix: no pool can be built, so the types that it would need have no values.
//!
//! The modules here have the names of those that they stand for. The public face is the same
//! everywhere.

/// Stands for what happens inside a worker.
pub(super) mod child {
    /// No process is a worker.
    pub(crate) fn depth() -> u32 {
        0
    }
}

/// Stands for a thread's side of a worker process.
pub(super) mod exchange {
    use std::convert::Infallible;
    use std::marker::PhantomData;
    use std::sync::Arc;

    use super::supervisor::Supervisor;
    use super::worker::Control;
    use crate::call::CallInfo;
    use crate::call::codec::Payload;
    use crate::error::JoinError;
    use crate::pool::PoolInner;
    use crate::process::builder::Config;
    use crate::process::calls::Calls;
    use crate::task::state::Origin;

    pub(crate) type Outcome = Result<Payload, JoinError>;

    #[derive(Debug)]
    pub(crate) struct Shared {
        pub(crate) config: Config,
        pub(crate) supervisor: Supervisor,
    }

    impl Shared {
        pub(crate) fn new(_: Config) -> Self {
            unreachable!("`build` has returned an error")
        }
    }

    #[derive(Debug)]
    pub(crate) struct Link(Infallible);

    impl Link {
        pub(crate) fn new(shared: Arc<Shared>) -> Self {
            match shared.supervisor.0 {}
        }

        pub(crate) fn prepare(&mut self, _: &Want<'_>) {
            match self.0 {}
        }

        pub(crate) fn needs_worker(&self) -> bool {
            match self.0 {}
        }

        pub(crate) fn run(
            &mut self,
            _: &CallInfo,
            _: &Calls,
            _: &Arc<Control>,
            _: Option<&Arc<PoolInner>>,
            _: Origin,
            _: &mut dyn FnMut(Outcome),
        ) {
            match self.0 {}
        }

        pub(crate) fn close(&mut self, _: bool, _: &str) {
            match self.0 {}
        }

        pub(crate) fn wait_for_left(&mut self) {
            match self.0 {}
        }
    }

    pub(crate) struct Want<'a>(PhantomData<&'a ()>);

    impl<'a> Want<'a> {
        pub(crate) fn of_pool(_: &'a Arc<PoolInner>) -> Self {
            Self(PhantomData)
        }
    }
}

mod supervisor {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Instant;

    use super::worker::Worker;

    #[derive(Debug)]
    pub(crate) struct Supervisor(pub(super) Infallible);

    impl Supervisor {
        pub(crate) fn look_at(&self, _: Instant) {
            match self.0 {}
        }

        pub(crate) fn workers(&self) -> Vec<Arc<Worker>> {
            match self.0 {}
        }
    }
}

/// Stands for a worker process, as its pool sees it.
pub(super) mod worker {
    use std::borrow::Cow;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    #[derive(Debug)]
    pub(crate) struct Worker(Infallible);

    #[derive(Debug)]
    pub(crate) struct Running {
        pub(crate) task: &'static str,
        pub(crate) label: Option<Cow<'static, str>>,
        pub(crate) since: Instant,
    }

    #[derive(Debug)]
    pub(crate) enum Activity {
        Starting,
        Idle,
        Running(Running),
        Leaving,
        Ended,
    }

    impl Worker {
        pub(crate) fn pid(&self) -> u32 {
            match self.0 {}
        }

        pub(crate) fn generation(&self) -> u32 {
            match self.0 {}
        }

        pub(crate) fn jobs_done(&self) -> u64 {
            match self.0 {}
        }

        pub(crate) fn activity(&self) -> Activity {
            match self.0 {}
        }

        pub(crate) fn sample(&self, _: bool) -> u64 {
            match self.0 {}
        }

        pub(crate) fn current_control(&self) -> Option<Arc<Control>> {
            match self.0 {}
        }

        pub(crate) fn cancel_job(&self, _: &Arc<Control>, _: Duration) -> Option<Instant> {
            match self.0 {}
        }
    }

    /// No job is ever sent, so no cancel decides anything.
    #[derive(Debug, Default)]
    pub(crate) struct Control;

    impl Control {
        pub(crate) fn decide(&self) -> bool {
            true
        }

        pub(crate) fn is_cancelled(&self) -> bool {
            false
        }

        pub(crate) fn skip_rest(&self) {}

        pub(crate) fn cancel(&self) -> (bool, Option<Arc<Worker>>) {
            (false, None)
        }
    }
}
