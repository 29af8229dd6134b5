//! The tasks of both kinds, which submitter and workers share.

use std::thread;
use std::time::Duration;

use futurepool::{Call, Task, Tasks, task, tasks};

/// How long a sleep takes.
pub(crate) const SLEEP: Duration = Duration::from_millis(10);

/// Tasks that start at most once.
mod once {
    use super::{SLEEP, task, thread};

    #[task(name = "bench.empty")]
    pub(crate) fn empty() {}

    #[task(name = "bench.identity")]
    pub(crate) fn identity(number: u64) -> u64 {
        number
    }

    #[task(name = "bench.sleep")]
    pub(crate) fn sleep() {
        thread::sleep(SLEEP);
    }
}

/// Sleeps, and returns the process that it ran in.
#[task(name = "bench.process", idempotent)]
pub(crate) fn process() -> u32 {
    thread::sleep(SLEEP);
    std::process::id()
}

/// The same tasks, but idempotent.
mod idempotent {
    use super::{SLEEP, task, thread};

    #[task(name = "bench.empty-again", idempotent)]
    pub(crate) fn empty() {}

    #[task(name = "bench.identity-again", idempotent)]
    pub(crate) fn identity(number: u64) -> u64 {
        number
    }

    #[task(name = "bench.sleep-again", idempotent)]
    pub(crate) fn sleep() {
        thread::sleep(SLEEP);
    }
}

/// Returns all tasks.
pub fn all() -> Tasks {
    tasks![
        process,
        once::empty,
        once::identity,
        once::sleep,
        idempotent::empty,
        idempotent::identity,
        idempotent::sleep
    ]
}

/// Makes calls of one kind of tasks.
pub(crate) trait Kind: 'static {
    const NAME: &'static str;

    type Empty: Task<Output = ()>;
    type Identity: Task<Output = u64>;
    type Sleep: Task<Output = ()>;

    fn empty() -> Call<Self::Empty>;
    fn identity(number: u64) -> Call<Self::Identity>;
    fn sleep() -> Call<Self::Sleep>;
}

pub(crate) struct Once;

impl Kind for Once {
    const NAME: &'static str = "default";

    type Empty = once::empty;
    type Identity = once::identity;
    type Sleep = once::sleep;

    fn empty() -> Call<Self::Empty> {
        once::empty::call()
    }

    fn identity(number: u64) -> Call<Self::Identity> {
        once::identity::call(number)
    }

    fn sleep() -> Call<Self::Sleep> {
        once::sleep::call()
    }
}

pub(crate) struct Idempotent;

impl Kind for Idempotent {
    const NAME: &'static str = "idempotent";

    type Empty = idempotent::empty;
    type Identity = idempotent::identity;
    type Sleep = idempotent::sleep;

    fn empty() -> Call<Self::Empty> {
        idempotent::empty::call()
    }

    fn identity(number: u64) -> Call<Self::Identity> {
        idempotent::identity::call(number)
    }

    fn sleep() -> Call<Self::Sleep> {
        idempotent::sleep::call()
    }
}
