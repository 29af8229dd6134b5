//! Hides the lifetime of scoped jobs from the pool: the crate's only `unsafe` block, and everything
//! that its soundness rests on.
//!
//! The pool accepts only `'static` jobs, and a scoped job borrows for `'scope`. So the pool gets an
//! [`Erased`], which hides the lifetime of a [`Packet`], and [`with_scope`] does not return before
//! the job has ended:
//!
//! 1. Only [`with_scope`] creates a [`ScopeJobs`], and only [`ScopeJobs::erase`] creates packets.
//!    The closure of [`with_scope`] must accept every `'scope`, so a reference to the scope cannot
//!    leave it. Only that closure and jobs of the same scope can submit a job.
//! 2. [`PendingJob::new`] counts a job before its [`Erased`] exists. Only [`CompleteOnDrop`] counts
//!    it out. [`Packet`] creates that guard after the closure has left the packet, and drops it
//!    after the closure is gone and the result is dropped or belongs to the [`ResultSlot`].
//! 3. [`with_scope`] returns only after [`PendingJobs::wait_until_none`] has read a count of zero.
//!    It waits even if its closure panics. A panic of the wait itself aborts the process.
//!
//! The argument does not depend on safe code elsewhere. The pool can lose, drop or run an
//! [`Erased`], at any time and on any thread. The bookkeeping in [`ScopeData`] can panic, block,
//! return early or forget a wake-up. At worst `scope` waits forever or the process aborts.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::thread;

use crate::pool::ThreadPool;
use crate::scope::Scope;
use crate::scope::state::ScopeData;
use crate::stateful::StatefulScope;
use crate::util::sync::{Arc, Mutex, MutexGuard};
use crate::util::unwind::drop_catching;

/// Runs `f` with a new scope, then blocks until every job of that scope has ended.
///
/// The scope is that of a pool whose workers own an `S`. It contains one without a state, for any
/// pool.
///
/// Returns what `f` returned, or the payload of its panic.
pub(super) fn with_scope<'env, S, F, R>(
    pool: &ThreadPool,
    data: &Arc<ScopeData>,
    f: F,
) -> thread::Result<R>
where
    F: for<'scope> FnOnce(&'scope StatefulScope<'scope, 'env, S>) -> R,
{
    let pending = Arc::new(PendingJobs {
        count: Mutex::default(),
        data: Arc::clone(data),
    });
    let scope = StatefulScope::new(Scope {
        pool,
        data: Arc::clone(data),
        jobs: ScopeJobs {
            pending: Arc::clone(&pending),
            scope: PhantomData,
        },
        env: PhantomData,
    });
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    // Invariant: no path leads from `f` to the end of this function except through the wait. So
    // `scope` and `pool`, which jobs can borrow for `'scope`, outlive the jobs.
    pending.wait_until_none();
    result
}

/// Creates the jobs of one scope. A private part of [`Scope`].
pub(super) struct ScopeJobs<'scope> {
    /// Counts the jobs that `erase` creates.
    pending: Arc<PendingJobs>,
    /// Makes the type invariant in `'scope`. Otherwise safe code could shorten `'scope`, and submit
    /// a job that borrows a local variable of the scope's closure.
    scope: PhantomData<&'scope mut &'scope ()>,
}

impl<'scope> ScopeJobs<'scope> {
    /// Creates a job. Returns the pool's half and the handle's half.
    ///
    /// `number` identifies the job in the bookkeeping.
    pub(super) fn erase<F, T>(
        &self,
        closure: F,
        number: u64,
        origin: &'static Location<'static>,
    ) -> (Erased, ResultSlot<'scope, T>)
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let packet = Arc::new(Packet {
            job: PendingJob::new(&self.pending, number, origin),
            state: Mutex::new(PacketState {
                contents: Contents::Queued(closure),
                join_interest: true,
            }),
        });
        // Invariant: the slot exists before the `Erased`. So a job that runs and finds
        // `join_interest` set finds it set by a slot that still exists.
        let slot = ResultSlot(Arc::clone(&packet) as Arc<dyn TakeResult<T> + 'scope>);
        (Erased::new(packet), slot)
    }

    /// Returns how many jobs have not ended.
    pub(super) fn pending(&self) -> usize {
        self.pending.count()
    }
}

/// Counts the jobs of one scope that have not ended.
struct PendingJobs {
    // Lock order: no other lock is taken under this one.
    // Counts the jobs that have not ended. `PendingJob::new` increments it. Only `CompleteOnDrop`
    // decrements it.
    count: Mutex<usize>,
    /// Records failures, and lets the end of the scope help, sleep and wake up. Never changes.
    data: Arc<ScopeData>,
}

impl PendingJobs {
    fn count(&self) -> usize {
        *lock(&self.count)
    }

    fn wait_until_none(&self) {
        abort_on_unwind(|| {
            // Invariant: only this count ends the loop, whatever `help_or_sleep` does.
            while self.count() != 0 {
                self.data.help_or_sleep(|| self.count() == 0);
            }
        });
    }
}

/// One job in the count of its scope. Lives in the job's packet, and never changes.
struct PendingJob {
    jobs: Arc<PendingJobs>,
    /// Identifies the job in the bookkeeping.
    number: u64,
    /// Where the job was submitted.
    origin: &'static Location<'static>,
}

impl PendingJob {
    /// Counts a new job.
    fn new(jobs: &Arc<PendingJobs>, number: u64, origin: &'static Location<'static>) -> Self {
        *lock(&jobs.count) += 1;
        Self {
            jobs: Arc::clone(jobs),
            number,
            origin,
        }
    }

    fn data(&self) -> &ScopeData {
        &self.jobs.data
    }
}

/// Counts a job out when it is dropped. From then on the scope may end.
struct CompleteOnDrop<'a>(&'a PendingJob);

impl Drop for CompleteOnDrop<'_> {
    fn drop(&mut self) {
        let jobs = &self.0.jobs;
        let mut count = lock(&jobs.count);
        *count -= 1;
        let is_last = *count == 0;
        // Lock order: `wake_waiter` takes the lock of the bookkeeping.
        drop(count);
        if is_last {
            jobs.data.wake_waiter();
        }
    }
}

/// A scoped job, shared by its [`Erased`] and its [`ResultSlot`].
struct Packet<F, T> {
    job: PendingJob,
    /// Holds everything that can borrow for `'scope`.
    // Lock order: no other lock is taken under this one, and no user code runs under it.
    state: Mutex<PacketState<F, T>>,
}

struct PacketState<F, T> {
    /// Emptied by the first call of [`Erased`], filled by a job that returns, emptied by the slot.
    contents: Contents<F, T>,
    /// Whether the [`ResultSlot`] exists and will take the result. Set at the start; reset by the
    /// slot when it takes the result or is dropped.
    join_interest: bool,
}

enum Contents<F, T> {
    /// The job has not started.
    Queued(F),
    /// The job has returned, and the result belongs to the [`ResultSlot`]. Stored only while
    /// `join_interest` is set.
    Returned(T),
    /// The job is running, or nothing is left of it.
    Empty,
}

/// The pool's view of a packet. [`Erased`] calls one of the two methods, once.
trait ErasedRun: Send + Sync {
    /// Runs the closure. Records its panic, and resumes it with another payload.
    fn run(&self);
    /// Drops the closure of a job that will never run.
    fn drop_unrun(&self);
}

impl<F, T> Packet<F, T> {
    fn take_closure(&self) -> F {
        let contents = mem::replace(&mut lock(&self.state).contents, Contents::Empty);
        match contents {
            Contents::Queued(closure) => closure,
            _ => unreachable!("`Erased` takes the closure once"),
        }
    }
}

impl<F, T> ErasedRun for Packet<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn run(&self) {
        // Invariant: a panic in `take_closure` leaves the job pending. After it, the closure moves
        // straight into the call, and every other value here is declared after the guard. So any
        // panic drops them before the guard.
        let closure = self.take_closure();
        let complete = CompleteOnDrop(&self.job);
        let returned = catch_unwind(AssertUnwindSafe(closure));
        match returned {
            Ok(value) => {
                let mut state = lock(&self.state);
                if state.join_interest {
                    state.contents = Contents::Returned(value);
                } else {
                    // The destructor is user code, which does not run under the lock.
                    drop(state);
                    drop_catching("the destructor of a job's result", value);
                }
            }
            Err(payload) => {
                let job = &self.job;
                // Both payloads are `'static`, so they can outlive the scope.
                let stand_in = job.data().record_panic(job.number, job.origin, payload);
                drop(complete);
                resume_unwind(stand_in);
            }
        }
    }

    fn drop_unrun(&self) {
        // Invariant: as in `run`.
        let closure = self.take_closure();
        let complete = CompleteOnDrop(&self.job);
        drop_catching("the destructor of a job's closure", closure);
        let job = &self.job;
        job.data().record_unrun(job.number, job.origin);
        drop(complete);
    }
}

/// The handle's view of a packet.
trait TakeResult<T>: Send + Sync {
    /// Takes the result if the job has returned. A later result is dropped on the job's thread.
    fn take(&self) -> Option<T>;
}

impl<F: Send, T: Send> TakeResult<T> for Packet<F, T> {
    fn take(&self) -> Option<T> {
        let mut state = lock(&self.state);
        state.join_interest = false;
        match mem::replace(&mut state.contents, Contents::Empty) {
            Contents::Returned(value) => Some(value),
            other => {
                state.contents = other;
                None
            }
        }
    }
}

/// The handle's half of a job, which receives the result. Its type keeps it within `'scope`.
pub(super) struct ResultSlot<'scope, T>(Arc<dyn TakeResult<T> + 'scope>);

impl<T> ResultSlot<'_, T> {
    /// Takes the result if the job has returned. A later result is dropped on the job's thread.
    pub(super) fn take(&self) -> Option<T> {
        self.0.take()
    }
}

impl<T> Drop for ResultSlot<'_, T> {
    fn drop(&mut self) {
        drop_catching("the destructor of a job's result", self.0.take());
    }
}

/// The pool's half of a job: a packet whose lifetime is hidden. Runs it once or drops it unrun.
pub(super) struct Erased(Option<Arc<dyn ErasedRun>>);

impl Erased {
    fn new<'scope, F, T>(packet: Arc<Packet<F, T>>) -> Self
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let packet: Arc<dyn ErasedRun + 'scope> = packet;
        // SAFETY: The two types differ only in the lifetime, so the pointer and its vtable are
        // valid for both. It remains to show that nothing is used after `'scope` that is valid only
        // for `'scope`. Only `PacketState::contents` can hold such a value: the closure or the
        // result. `Erased` can reach it in three ways:
        //
        // - `Erased` calls `run` or `drop_unrun`, once, because it takes the `Arc` out of the
        //   `Option`. The job is pending until the guard of that call is dropped. Before that, the
        //   closure was consumed, and the result was dropped or stored for the slot. `with_scope`
        //   waits for the guard, and `'scope` ends after the wait.
        // - `Erased` drops the `Arc` after that call. If this is the last `Arc`, it drops
        //   `contents`, perhaps after `'scope`. `contents` is `Empty` by then: `take_closure` left
        //   it `Empty`, and `run` stored a result only if it found `join_interest` set. Then the
        //   slot existed and held an `Arc`. Before the slot gives up its `Arc`, within `'scope`, it
        //   resets `join_interest` and takes the result, both under the lock that `run` stores
        //   under. A leaked slot leaks the packet.
        // - `Erased` is leaked. Then the job stays pending, and `with_scope` never returns.
        //
        // The slot needs no argument, because its type keeps it within `'scope`.
        let packet =
            unsafe { mem::transmute::<Arc<dyn ErasedRun + 'scope>, Arc<dyn ErasedRun>>(packet) };
        Self(Some(packet))
    }

    /// Runs the job on this thread. Records its panic, and resumes it with another payload.
    pub(super) fn run(mut self) {
        if let Some(packet) = self.0.take() {
            packet.run();
        }
    }
}

impl Drop for Erased {
    fn drop(&mut self) {
        if let Some(packet) = self.0.take() {
            packet.drop_unrun();
        }
    }
}

/// Locks `mutex`, and aborts the process if that panics.
///
/// A panic could skip a step of the soundness argument, such as the reset of `join_interest`.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    abort_on_unwind(|| mutex.lock())
}

fn abort_on_unwind<R>(f: impl FnOnce() -> R) -> R {
    struct AbortOnDrop;

    impl Drop for AbortOnDrop {
        fn drop(&mut self) {
            std::process::abort();
        }
    }

    let abort = AbortOnDrop;
    let result = f();
    mem::forget(abort);
    result
}
