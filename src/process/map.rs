//! `map` over calls: jobs of one call, or of a chunk that a worker runs as a whole.
//!
//! ```text
//!   ProcessPool::map ─► Submitter ─► ProcessRoute ─► a queued MapJob ─► RunCalls ─► Link::run ─► worker
//!                       (combine::map)                    │
//!                                                         └─ decides between its outcome and a cancel
//! ```
//!
//! A job may run further chunks of a map that is detached, so it decides at its very end.

use std::collections::VecDeque;
use std::marker::PhantomData;

use crate::call::{Call, Task};
use crate::combine::map::{
    Apply, Handle, JobKind, Map, MapContext, MapUnordered, Place, Refused, Route, Submitter,
};
use crate::error::JoinError;
use crate::pool::job::JobOptions;
use crate::pool::{PoolSubmitter, Submission, enqueue_with};
use crate::process::calls::Calls;
use crate::process::pool::{CallSubmitter, ProcessPool, Target, decode, unencodable};
use crate::task::cell::{JobClosure, catch};
use crate::task::join_handle::JoinHandle;
use crate::task::span::Span;
use crate::task::state::Origin;
use crate::util::unwind::{DropEach, drop_catching, emit};

impl ProcessPool {
    /// Runs calls in the workers, and yields the results in the order of the calls.
    ///
    /// The returned [`Map`] is the one of [`ThreadPool::map`](crate::ThreadPool::map), with the
    /// same options. It is **lazy**: it takes no call and submits no job until it is asked for a
    /// result or [started](Map::start). Dropping it does what [`Map`] says. The drop kills no
    /// worker: a call that runs is finished, and the calls behind it in its chunk are skipped.
    ///
    /// # Calls and jobs
    ///
    /// Each call is a job of its own, unless [`chunk_size`](Map::chunk_size) is set. A job costs
    /// some 20 to 50 µs. **So set a chunk size for calls that take less than that.** With
    /// `chunk_size(64)`, two workers run some million empty calls a second. Calls are not put
    /// together on their own: what was sent to a worker cannot move to a free one, so each would
    /// wait for those before it.
    ///
    /// A chunk is sent to its worker as a whole, or in parts if it is larger than
    /// [`max_payload`](crate::ProcessPoolBuilder::max_payload). Calls with different limits or
    /// labels also travel in different parts.
    ///
    /// # Errors of calls
    ///
    /// A call that fails is an `Err` in its place, with an error of its own, and the iteration
    /// continues:
    ///
    /// - Time limits count for each call, in a chunk too.
    /// - A panic, or a value that cannot be encoded, costs that call alone.
    /// - If a worker crashes or is killed for a limit, the call that runs fails. Results that the
    ///   worker has sent before stand. The calls behind it run in another worker.
    /// - The worker sends results after some 50 µs, and when a chunk ends. A call that was
    ///   finished just before a crash may therefore fail with an error that
    ///   [`is_crashed`](JoinError::is_crashed) and [`may_have_run`](JoinError::may_have_run). It is
    ///   never run again, unless its task is idempotent: see
    ///   [`retry_on_crash`](crate::ProcessPoolBuilder::retry_on_crash).
    ///
    /// A [`timeout`](Map::timeout) of the map kills the running jobs. So does
    /// [`shutdown_now`](Self::shutdown_now).
    ///
    /// # Examples
    ///
    /// ```standalone_crate
    /// use futurepool::{ProcessPool, process, task};
    ///
    /// /// Divides, if that is possible.
    /// #[task]
    /// fn divide(a: u32, b: u32) -> u32 {
    ///     a / b
    /// }
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     process::init();
    ///     let pool = ProcessPool::builder().max_workers(2).build()?;
    ///     let calls = (0..100).map(|b| divide::call(1_000, b));
    ///     let results: Vec<_> = pool.map(calls).chunk_size(10).into_iter().collect();
    ///     assert!(results[0].as_ref().unwrap_err().is_panic());
    ///     assert_eq!(*results[8].as_ref().unwrap(), 125);
    ///     Ok(())
    /// }
    /// ```
    #[doc(alias = "starmap")]
    #[doc(alias = "imap")]
    #[doc(alias = "chunksize")]
    #[track_caller]
    pub fn map<'a, T, I>(&self, calls: I) -> Map<'a, T::Output>
    where
        T: Task,
        I: IntoIterator<Item = Call<T>, IntoIter: Send + 'a>,
    {
        Map::new(self.submitter_of(calls.into_iter()))
    }

    /// Runs calls in the workers, and yields the results in completion order.
    ///
    /// A result does not tell which call it belongs to: return what tells that from the task. In
    /// every other way this method behaves like [`map`](Self::map).
    #[doc(alias = "imap_unordered")]
    #[track_caller]
    pub fn map_unordered<'a, T, I>(&self, calls: I) -> MapUnordered<'a, T::Output>
    where
        T: Task,
        I: IntoIterator<Item = Call<T>, IntoIter: Send + 'a>,
    {
        MapUnordered::new(self.submitter_of(calls.into_iter()))
    }

    #[track_caller]
    fn submitter_of<'a, T, I>(&self, calls: I) -> Submitter<'a, 'static, T::Output>
    where
        T: Task,
        I: Iterator<Item = Call<T>> + Send + 'a,
    {
        let permits = self.threads().acquire();
        let route = ProcessRoute {
            pool: permits.submitter(),
            calls: self.submitter(),
            task: T::NAME,
        };
        Submitter::new(route, Some(permits), calls, RunCalls::<T>(PhantomData))
    }
}

/// Submits jobs to the threads that have workers.
#[derive(Clone)]
struct ProcessRoute {
    pool: PoolSubmitter,
    calls: CallSubmitter,
    /// The name of the task.
    task: &'static str,
}

impl Route<'static> for ProcessRoute {
    type OfJobs = Self;
    type Failure = JoinError;

    fn of_jobs(&self) -> Self {
        self.clone()
    }

    fn pool(&self) -> Option<&PoolSubmitter> {
        Some(&self.pool)
    }

    /// A call that was sent to a worker cannot be handed over to another one.
    fn is_adaptive(&self) -> bool {
        false
    }

    fn submit<C, T>(
        &self,
        closure: C,
        origin: Origin,
        span: Option<Span>,
        _: JobKind,
    ) -> Result<Handle<'static, T>, Refused>
    where
        C: FnOnce(Place<'_>) -> Result<T, JoinError> + Send + 'static,
        T: Send + 'static,
    {
        if let Some(error) = self.calls.forked() {
            drop_catching("the destructor of a call's arguments", closure);
            return Err(Refused::new(error));
        }
        let target = self.calls.target();
        let scheduler = self.calls.scheduler(&target);
        let job = MapJob {
            closure,
            target,
            task: self.task,
        };
        let options = JobOptions {
            task: Some(self.task),
            ..JobOptions::PLAIN
        };
        let submission = Submission {
            origin,
            span,
            options: &options,
        };
        match enqueue_with(self.calls.pool(), scheduler, job, submission) {
            Ok(task) => Ok(Handle::Plain(JoinHandle::new(task))),
            Err((closed, job)) => {
                drop_catching("the destructor of a call's arguments", job);
                Err(Refused::new(closed.into()))
            }
        }
    }
}

/// A job of a map.
struct MapJob<C> {
    closure: C,
    target: Target,
    /// The name of the task.
    task: &'static str,
}

impl<C, T> JobClosure<T> for MapJob<C>
where
    C: FnOnce(Place<'_>) -> Result<T, JoinError> + Send + 'static,
{
    fn call(self, origin: Origin) -> Result<T, JoinError> {
        let Self {
            closure,
            target,
            task,
        } = self;
        // The closure contains the panics of user code.
        let outcome = catch(origin, || closure(Place::Process(&target)));
        target.decide(task, outcome.and_then(|outcome| outcome), origin)
    }
}

/// What a map of calls does with each.
struct RunCalls<T>(PhantomData<fn(T)>);

impl<T: Task> Apply<Call<T>, T::Output> for RunCalls<T> {
    type Failure = JoinError;

    fn one(&self, call: Call<T>, chunk: MapContext<'_>) -> Result<T::Output, JoinError> {
        let output = chunk.target()?.run_call(call, chunk.origin)?;
        decode::<T>(output, chunk.origin)
    }

    fn each(
        &self,
        mut calls: DropEach<Call<T>>,
        chunk: MapContext<'_>,
    ) -> Result<DropEach<Result<T::Output, JoinError>>, JoinError> {
        let target = chunk.target()?;
        let mut results = ChunkResults::<T>::with_capacity(calls.len());
        let mut calls = calls.take().into_iter();
        let mut next = calls.next();
        while let Some(first) = next.take() {
            let info = first.info().clone();
            let mut encoded = Calls::with_capacity(1 + calls.len());
            results.encode(&mut encoded, first, chunk.origin);
            // Calls with the same limits are sent together.
            for call in calls.by_ref() {
                if !call.info().has_limits_of(&info) {
                    next = Some(call);
                    break;
                }
                results.encode(&mut encoded, call, chunk.origin);
            }
            target.run(&info, &encoded, chunk.origin, &mut |outcome| {
                let result = outcome.and_then(|output| decode::<T>(output, chunk.origin));
                results.push(result);
            });
            results.push_unsent();
        }
        let results = results.all;
        // What a killed worker has sent before stands, unless the map has ended.
        if !chunk.is_stopped() && results.iter().any(Result::is_ok) {
            target.keep_outcome();
        } else if target.is_cancelled() {
            return Err(JoinError::cancelled());
        }
        Ok(results)
    }

    fn each_detached(&self, calls: Vec<Call<T>>, chunk: MapContext<'_>) {
        let report = |error: &JoinError| {
            emit(|| {
                tracing::error!(
                    task = T::NAME,
                    map = %chunk.origin,
                    %error,
                    "an item of the map submitted at {} failed: {error}", chunk.origin
                );
            });
        };
        match self.each(DropEach::new(calls), chunk) {
            Ok(results) => {
                let errors = results.iter().filter_map(|result| result.as_ref().err());
                errors.for_each(report);
            }
            Err(error) => report(&error),
        }
    }
}

/// The results of a chunk, in the order of its calls.
struct ChunkResults<T: Task> {
    all: DropEach<Result<T::Output, JoinError>>,
    /// Errors of calls that could not be encoded, with their places.
    unsent: VecDeque<(usize, JoinError)>,
    /// How many calls were looked at.
    calls: usize,
}

impl<T: Task> ChunkResults<T> {
    fn with_capacity(calls: usize) -> Self {
        Self {
            all: DropEach::new(Vec::with_capacity(calls)),
            unsent: VecDeque::new(),
            calls: 0,
        }
    }

    /// Adds a call to those that are sent.
    fn encode(&mut self, encoded: &mut Calls, call: Call<T>, origin: Origin) {
        if let Err(error) = encoded.push(&call) {
            let error = unencodable(T::NAME, &error, origin);
            self.unsent.push_back((self.calls, error));
        }
        self.calls += 1;
        drop_catching("the destructor of a call's arguments", call);
    }

    /// Adds the result of the next call that was sent.
    fn push(&mut self, result: Result<T::Output, JoinError>) {
        self.push_unsent();
        self.all.push(result);
    }

    /// Adds the errors of the calls that are next and were not sent.
    fn push_unsent(&mut self) {
        while self
            .unsent
            .front()
            .is_some_and(|(at, _)| *at == self.all.len())
        {
            let unsent = self.unsent.pop_front();
            self.all.extend(unsent.map(|(_, error)| Err(error)));
        }
    }
}
