//! Where the jobs of a map go: to a thread pool, to any other executor, or to a scope.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::apply::{Place, infallible};
use crate::error::{Closed, JoinError};
use crate::executor::{Executor, submit_to};
use crate::pool::PoolSubmitter;
use crate::scope::{ItemFailures, RefusedJob, Scope, ScopedJoinHandle};
use crate::task::join_handle::JoinHandle;
use crate::task::span::Span;
use crate::task::state::Origin;
use crate::util::unwind::{drop_catching, emit};

/// Submits the jobs of a map, which may borrow for `'job`.
pub(crate) trait Route<'job>: Send + Sync {
    /// The route that the map's jobs use themselves, once the map is detached.
    type OfJobs: Route<'job, Failure = Self::Failure> + 'job;

    /// How a job can fail without a panic.
    type Failure;

    fn of_jobs(&self) -> Self::OfJobs;

    /// Returns the thread pool that the jobs go to, if it is one.
    fn pool(&self) -> Option<&PoolSubmitter>;

    /// Returns whether a job needs a permit, which may not be available.
    fn is_bounded(&self) -> bool {
        self.pool().is_some_and(PoolSubmitter::is_bounded)
    }

    /// Acquires a permit if one is available now.
    fn try_acquire(&self) -> bool {
        self.pool().is_none_or(PoolSubmitter::try_acquire)
    }

    /// Acquires a permit, above the capacity if necessary.
    fn force_acquire(&self) {
        if let Some(pool) = self.pool() {
            pool.force_acquire();
        }
    }

    /// Returns whether running jobs are asked to end.
    fn is_stopping(&self) -> bool {
        self.pool().is_some_and(PoolSubmitter::is_stopping)
    }

    /// Returns whether a job would be accepted now.
    fn availability(&self) -> Availability {
        self.pool().map_or(Availability::Open, availability_of)
    }

    /// Returns whether the map can choose the chunk size: running jobs then submit helpers, and
    /// hand items over to them.
    fn is_adaptive(&self) -> bool {
        self.pool().is_some()
    }

    /// Submits a job that has its permit. The closure gets the place where it runs.
    fn submit<C, T>(
        &self,
        closure: C,
        origin: Origin,
        span: Option<Span>,
        kind: JobKind,
    ) -> Result<Handle<'job, T>, Refused>
    where
        C: FnOnce(Place<'_>) -> Result<T, Self::Failure> + Send + 'job,
        T: Send + 'job;

    /// Reports that at least `items` items of a detached map will not run.
    fn report_unrun(&self, items: usize, origin: Origin) {
        emit(|| {
            tracing::warn!(
                items,
                map = %origin,
                "at least {items} items of the map submitted at {origin} did not run: the pool is closed"
            );
        });
    }
}

/// What a job of a map does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobKind {
    /// It has items, or takes them when it starts.
    Items,
    /// It takes items of a running job. If it does not run, that job runs them, so nothing is lost.
    Helper,
}

/// What happens to a job that is submitted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    /// It is accepted.
    Open,
    /// It is refused, but the jobs that were accepted still run, and can run further items.
    JobsOnly,
    /// It is refused, and the accepted jobs have been cancelled.
    Closed,
}

/// A job that was refused, and why.
pub(crate) struct Refused {
    error: JoinError,
    scoped: Option<RefusedJob>,
}

impl Refused {
    pub(crate) fn new(error: JoinError) -> Self {
        Self {
            error,
            scoped: None,
        }
    }

    /// Returns the error. The caller reports it, so the job is no failure of a scope.
    pub(super) fn into_error(self) -> JoinError {
        if let Some(job) = self.scoped {
            job.observe();
        }
        self.error
    }

    /// Reports the refusal for a detached map. A scope reports it itself.
    pub(super) fn report(self, origin: Origin) {
        let Self { error, scoped } = self;
        if scoped.is_none() {
            emit(|| {
                tracing::warn!(
                    map = %origin,
                    %error,
                    "items of the map submitted at {origin} did not run: {error}"
                );
            });
        }
        drop_catching("the destructor of an error", error);
    }
}

/// The handle of a job that was submitted by a [`Route`].
pub(crate) enum Handle<'job, T> {
    Plain(JoinHandle<T>),
    /// Boxed, because the plain handles should stay small.
    Scoped(Box<ScopedJoinHandle<'job, T>>),
}

impl<T> Handle<'_, T> {
    /// Cancels the job if it is queued. A running one gets a cancel request, and is not stopped.
    pub(super) fn request_cancel(&self) {
        match self {
            Self::Plain(handle) => handle.request_cancel(),
            Self::Scoped(handle) => {
                handle.cancel();
            }
        }
    }

    /// Cancels the job. A running one is stopped, if its executor can do that.
    pub(super) fn cancel(&self) {
        match self {
            Self::Plain(handle) => handle.cancel(),
            Self::Scoped(handle) => handle.cancel(),
        };
    }

    /// Cancels the job if it is queued. A running one gets no cancel request.
    pub(super) fn cancel_if_queued(&self) {
        match self {
            Self::Plain(handle) => {
                handle.cancel_if_queued();
            }
            Self::Scoped(handle) => handle.cancel_if_queued(),
        }
    }

    /// Runs the job here if it is queued in a pool of which this thread is a worker.
    pub(super) fn help(&self) {
        match self {
            Self::Plain(handle) => {
                handle.help();
            }
            Self::Scoped(handle) => handle.help(),
        }
    }

    /// Returns where the job records panics of its items, if that is not among its results.
    pub(super) fn item_failures(&self) -> Option<ItemFailures> {
        match self {
            Self::Plain(_) => None,
            Self::Scoped(handle) => Some(handle.item_failures()),
        }
    }
}

impl<T> Future for Handle<'_, T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Plain(handle) => Pin::new(handle).poll(context),
            Self::Scoped(handle) => {
                let outcome = Pin::new(&mut **handle).poll(context);
                if matches!(&outcome, Poll::Ready(Err(error)) if error.is_deadlock()) {
                    // The map yields this error. So it is no failure of the scope that the job does
                    // not run.
                    handle.cancel_if_queued();
                }
                outcome
            }
        }
    }
}

fn availability_of(pool: &PoolSubmitter) -> Availability {
    match pool.closed() {
        None => Availability::Open,
        Some(Closed::Shutdown) if !pool.is_stopping() => Availability::JobsOnly,
        Some(_) => Availability::Closed,
    }
}

/// Submits to a thread pool, which it does not keep open.
pub(crate) struct PoolRoute(pub(super) PoolSubmitter);

impl Route<'static> for PoolRoute {
    type OfJobs = Self;
    type Failure = Infallible;

    fn of_jobs(&self) -> Self {
        Self(self.0.clone())
    }

    fn pool(&self) -> Option<&PoolSubmitter> {
        Some(&self.0)
    }

    fn submit<C, T>(
        &self,
        closure: C,
        origin: Origin,
        span: Option<Span>,
        _: JobKind,
    ) -> Result<Handle<'static, T>, Refused>
    where
        C: FnOnce(Place<'_>) -> Result<T, Self::Failure> + Send + 'static,
        T: Send + 'static,
    {
        match self
            .0
            .enqueue(move || infallible(closure(Place::Thread)), origin, span)
        {
            Ok(handle) => Ok(Handle::Plain(handle)),
            Err((closed, closure)) => {
                drop_catching("the destructor of an item", closure);
                Err(Refused {
                    error: closed.into(),
                    scoped: None,
                })
            }
        }
    }
}

/// Submits to an executor that is no thread pool, and accepts each job immediately.
pub(crate) struct ExecutorRoute<'a, E: ?Sized>(pub(super) &'a E);

impl<E: Executor + ?Sized> Route<'static> for ExecutorRoute<'_, E> {
    type OfJobs = NoRoute;
    type Failure = Infallible;

    fn of_jobs(&self) -> NoRoute {
        NoRoute
    }

    fn pool(&self) -> Option<&PoolSubmitter> {
        None
    }

    fn submit<C, T>(
        &self,
        closure: C,
        origin: Origin,
        span: Option<Span>,
        _: JobKind,
    ) -> Result<Handle<'static, T>, Refused>
    where
        C: FnOnce(Place<'_>) -> Result<T, Self::Failure> + Send + 'static,
        T: Send + 'static,
    {
        let handle = submit_to(
            self.0,
            move || infallible(closure(Place::Thread)),
            origin,
            span,
        );
        Ok(Handle::Plain(handle))
    }
}

/// The route of jobs that cannot submit: their executor is borrowed by the map alone.
pub(crate) struct NoRoute;

impl Route<'static> for NoRoute {
    type OfJobs = Self;
    type Failure = Infallible;

    fn of_jobs(&self) -> Self {
        Self
    }

    fn pool(&self) -> Option<&PoolSubmitter> {
        None
    }

    fn availability(&self) -> Availability {
        Availability::JobsOnly
    }

    fn submit<C, T>(
        &self,
        closure: C,
        _: Origin,
        _: Option<Span>,
        _: JobKind,
    ) -> Result<Handle<'static, T>, Refused>
    where
        C: FnOnce(Place<'_>) -> Result<T, Self::Failure> + Send + 'static,
        T: Send + 'static,
    {
        drop_catching("the destructor of an item", closure);
        Err(Refused {
            error: JoinError::shutdown(),
            scoped: None,
        })
    }
}

/// Submits scoped jobs to the pool of the scope. `E` is how an item can fail without a panic.
pub(crate) struct ScopeRoute<'scope, 'env, E> {
    scope: &'scope Scope<'scope, 'env>,
    pool: PoolSubmitter,
    failure: PhantomData<fn() -> E>,
}

impl<'scope, 'env, E> ScopeRoute<'scope, 'env, E> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, pool: PoolSubmitter) -> Self {
        Self {
            scope,
            pool,
            failure: PhantomData,
        }
    }
}

impl<'scope, E: Into<JoinError> + 'static> Route<'scope> for ScopeRoute<'scope, '_, E> {
    type OfJobs = Self;
    type Failure = E;

    fn of_jobs(&self) -> Self {
        Self::new(self.scope, self.pool.clone())
    }

    fn pool(&self) -> Option<&PoolSubmitter> {
        Some(&self.pool)
    }

    fn submit<C, T>(
        &self,
        closure: C,
        origin: Origin,
        span: Option<Span>,
        kind: JobKind,
    ) -> Result<Handle<'scope, T>, Refused>
    where
        C: FnOnce(Place<'_>) -> Result<T, Self::Failure> + Send + 'scope,
        T: Send + 'scope,
    {
        // A job of a stateful pool starts with a state. Only a later one of its items can find that
        // the state was lost and cannot be made again, and that is the result of this item.
        let closure = move |failures: &ItemFailures| match closure(Place::Scope(failures)) {
            Ok(result) => result,
            Err(failure) => {
                let error: JoinError = failure.into();
                panic!("{error}");
            }
        };
        match (self.scope).submit_acquired(&self.pool, closure, origin, span, kind) {
            Ok(handle) => Ok(Handle::Scoped(Box::new(handle))),
            Err((closed, job)) => Err(Refused {
                error: closed.into(),
                scoped: Some(job),
            }),
        }
    }

    fn report_unrun(&self, _: usize, origin: Origin) {
        self.scope.record_unrun(origin);
    }
}
