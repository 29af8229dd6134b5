//! The abstract class: whatever can run a job.

pub(crate) mod ext;
#[cfg(feature = "rayon")]
mod rayon;
#[cfg(feature = "tokio")]
mod tokio;

use std::panic::Location;
use std::sync::OnceLock;

use crate::error::JoinError;
use crate::pool::{GlobalPool, ThreadPool};
use crate::task::cell::{Cell, Home, Sentence, Watch};
use crate::task::job::Job;
use crate::task::join_handle::JoinHandle;
use crate::task::span::Span;
use crate::util::sync::Arc;

/// Whatever can run a job, sooner or later, in some thread.
///
/// [`ThreadPool`] is one, and so are [`InlineExecutor`], `tokio::runtime::Handle` (feature `tokio`: its blocking pool)
/// and `rayon::ThreadPool` (feature `rayon`). With one method your own is one, too;
/// [`ExecutorExt`](crate::ExecutorExt) then adds [`submit`](crate::ExecutorExt::submit) and the rest, and the same
/// [`JoinHandle`] comes out of every one. It can be used as `dyn Executor`.
///
/// # Examples
///
/// An executor of your own: one thread that runs one job after the other.
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
    /// Takes a job, to [run](Job::run) it in some thread, now or later.
    ///
    /// It may block until there is room for it. If it cannot run the job, it [refuses](Job::refuse) it; a job that is
    /// dropped is cancelled. Either way the job's handle resolves.
    fn execute(&self, job: Job);

    /// The pool that this is, if it is one: so what a pool can do better is done by it also when it is called through
    /// this trait.
    #[doc(hidden)]
    fn as_thread_pool(&self) -> Option<&ThreadPool> {
        None
    }
}

impl Executor for ThreadPool {
    fn execute(&self, job: Job) {
        self.submit_job(job);
    }

    fn as_thread_pool(&self) -> Option<&ThreadPool> {
        Some(self)
    }
}

impl Executor for GlobalPool {
    fn execute(&self, job: Job) {
        self.pool.submit_job(job);
    }

    fn as_thread_pool(&self) -> Option<&ThreadPool> {
        Some(&self.pool)
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<E: Executor + ?Sized> Executor for $pointer {
            fn execute(&self, job: Job) {
                (**self).execute(job);
            }

            fn as_thread_pool(&self) -> Option<&ThreadPool> {
                (**self).as_thread_pool()
            }
        }
    )*};
}

forward!(&E, Box<E>, Arc<E>);

/// Runs every job at once, in the thread that submits it: for tests, and where threads are not to be had.
///
/// The handle that comes back is resolved already.
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
    origin: &'static Location<'static>,
    span: Option<Span>,
) -> JoinHandle<T>
where
    E: Executor + ?Sized,
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if let Some(pool) = executor.as_thread_pool() {
        return pool.submit_from(closure, origin, span);
    }
    let cell = Arc::new(Cell::queued(closure, origin, span, LateHome::default()));
    let handle = JoinHandle::new(Arc::clone(&cell) as _);
    executor.execute(Job::new(cell));
    handle
}

/// Of a job that was made for any executor: it has no pool, until some executor hands it on to one.
#[derive(Default)]
struct LateHome(OnceLock<Arc<dyn Home>>);

impl LateHome {
    fn get(&self) -> Option<&dyn Home> {
        self.0.get().map(|home| &**home)
    }
}

impl Home for LateHome {
    fn withdrawing(&self) {
        if let Some(home) = self.get() {
            home.withdrawing();
        }
    }

    fn withdrawn(&self, husk: bool, had_place: bool) {
        if let Some(home) = self.get() {
            home.withdrawn(husk, had_place);
        }
    }

    fn not_run(&self) {
        if let Some(home) = self.get() {
            home.not_run();
        }
    }

    fn stopping(&self) -> bool {
        self.get().is_some_and(|home| home.stopping())
    }

    fn sentence(&self, sentence: Sentence) -> JoinError {
        let home = self.get();
        home.map_or_else(JoinError::cancelled, |home| home.sentence(sentence))
    }

    fn is_here(&self) -> bool {
        self.get().is_some_and(|home| home.is_here())
    }

    fn help(&self, run: &mut dyn FnMut(&mut dyn Watch)) {
        if let Some(home) = self.get() {
            home.help(run);
        }
    }

    fn settle(&self, home: Arc<dyn Home>) {
        // The first one it is: a job gets into one queue, once.
        let _ = self.0.set(home);
    }
}
