//! The trait of everything that runs jobs, and its implementations.

pub(crate) mod ext;
#[cfg(feature = "rayon")]
mod rayon;
#[cfg(feature = "tokio")]
mod tokio;

use std::sync::OnceLock;

use crate::pool::{GlobalPool, Submission, ThreadPool};
use crate::task::cell::{JobClosure, Scheduler, TaskCell};
use crate::task::job::Job;
use crate::task::join_handle::JoinHandle;
use crate::task::span::Span;
use crate::task::state::Origin;
use crate::util::sealed::{PRIVATE, Private};
use crate::util::sync::Arc;

/// An object-safe trait for everything that runs jobs.
///
/// It is implemented for [`ThreadPool`], [`GlobalPool`](crate::GlobalPool), [`InlineExecutor`], and
/// for `&E`, `Box<E>` and `Arc<E>` of an executor `E`. With the feature `tokio` it is implemented
/// for `tokio::runtime::Handle`, which runs jobs on the runtime's blocking pool. With the feature
/// `rayon` it is implemented for `rayon::ThreadPool`.
///
/// An executor of your own implements [`execute`](Self::execute).
/// [`ExecutorExt`](crate::ExecutorExt) adds [`submit`](crate::ExecutorExt::submit),
/// [`map`](crate::ExecutorExt::map) and [`map_unordered`](crate::ExecutorExt::map_unordered) to
/// every executor, `dyn Executor` included. All of them return the same [`JoinHandle`].
///
/// # Examples
///
/// An executor with one thread, which runs jobs one after the other:
///
/// ```
/// use std::sync::mpsc::{Sender, channel};
/// use std::thread;
///
/// use futurepool::{Executor, ExecutorExt, Job, JoinError};
///
/// struct OneThread {
///     jobs: Sender<Job>,
/// }
///
/// impl OneThread {
///     fn new() -> Self {
///         let (jobs, queue) = channel::<Job>();
///         thread::spawn(move || queue.into_iter().for_each(Job::run));
///         Self { jobs }
///     }
/// }
///
/// impl Executor for OneThread {
///     fn execute(&self, job: Job) {
///         if let Err(error) = self.jobs.send(job) {
///             error.0.refuse(JoinError::shutdown()); // the thread is gone
///         }
///     }
/// }
///
/// let executor = OneThread::new();
/// assert_eq!(executor.submit(|| 6 * 7).join().unwrap(), 42);
/// let lengths = executor.map(["a", "bc"], str::len);
/// assert_eq!(lengths.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 2]);
/// ```
#[doc(alias = "concurrent.futures.Executor")]
pub trait Executor: Send + Sync {
    /// Takes a job and [runs](Job::run) it on some thread, now or later.
    ///
    /// An executor that is full may block here. An executor that cannot run the job
    /// [refuses](Job::refuse) it with an error. Dropping the job cancels it. So the job's handle
    /// always resolves.
    fn execute(&self, job: Job);

    /// Returns the thread pool behind this executor, if there is one.
    ///
    /// The provided methods of `ExecutorExt` then use the pool's own, faster methods.
    #[doc(hidden)]
    fn as_thread_pool(&self, _: Private) -> Option<&ThreadPool> {
        None
    }
}

impl Executor for ThreadPool {
    fn execute(&self, job: Job) {
        self.submit_job(job);
    }

    fn as_thread_pool(&self, _: Private) -> Option<&ThreadPool> {
        Some(self)
    }
}

impl Executor for GlobalPool {
    fn execute(&self, job: Job) {
        self.pool.submit_job(job);
    }

    fn as_thread_pool(&self, _: Private) -> Option<&ThreadPool> {
        Some(&self.pool)
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<E: Executor + ?Sized> Executor for $pointer {
            fn execute(&self, job: Job) {
                (**self).execute(job);
            }

            fn as_thread_pool(&self, _: Private) -> Option<&ThreadPool> {
                (**self).as_thread_pool(PRIVATE)
            }
        }
    )*};
}

forward!(&E, Box<E>, Arc<E>);

/// An executor that runs each job immediately, on the thread that submits it.
///
/// It is useful in tests, and on platforms without threads. The handle that `submit` returns is
/// already resolved.
///
/// # Examples
///
/// ```
/// use futurepool::{ExecutorExt, InlineExecutor};
///
/// let here = std::thread::current().id();
/// let handle = InlineExecutor.submit(|| std::thread::current().id());
/// assert!(handle.is_finished());
/// assert_eq!(handle.join().unwrap(), here);
/// ```
#[doc(alias = "DirectExecutor")]
#[doc(alias = "CurrentThread")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InlineExecutor;

impl Executor for InlineExecutor {
    fn execute(&self, job: Job) {
        job.run();
    }
}

/// Submits a closure to any executor.
pub(crate) fn submit_to<E, F, T>(
    executor: &E,
    closure: F,
    origin: Origin,
    span: Option<Span>,
) -> JoinHandle<T>
where
    E: Executor + ?Sized,
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if let Some(pool) = executor.as_thread_pool(PRIVATE) {
        return pool.submit_from(closure, Submission::plain(origin, span));
    }
    let (job, handle) = deferred(closure, origin, span);
    executor.execute(job);
    handle
}

/// Makes a job for any executor, and its handle.
pub(crate) fn deferred<F, T>(closure: F, origin: Origin, span: Option<Span>) -> (Job, JoinHandle<T>)
where
    F: JobClosure<T>,
    T: Send + 'static,
{
    let scheduler = DeferredScheduler::default();
    let task = Arc::new(TaskCell::queued(closure, origin, span, 0, scheduler));
    let handle = JoinHandle::new(Arc::clone(&task) as _);
    (Job::new(task), handle)
}

/// The scheduler of a job that was made for any executor. It is empty unless an executor hands the
/// job on to a pool.
#[derive(Default)]
struct DeferredScheduler(OnceLock<Arc<dyn Scheduler>>);

impl Scheduler for DeferredScheduler {
    fn inner(&self) -> Option<&dyn Scheduler> {
        self.0.get().map(|pool| &**pool)
    }

    fn attach(&self, scheduler: Arc<dyn Scheduler>) {
        // Only the first pool counts: a job is queued once.
        let _ = self.0.set(scheduler);
    }
}
