//! The methods that every executor has.

use std::panic::Location;

use crate::combine::map::{Map, MapUnordered, Submitter};
use crate::executor::{Executor, submit_to};
use crate::task::join_handle::JoinHandle;
use crate::task::span;
use crate::util::sealed::PRIVATE;

/// Adds `submit`, `map` and `map_unordered` to every [`Executor`].
///
/// It is implemented for every executor, `dyn Executor` included, and cannot be implemented outside
/// this crate. On a [`ThreadPool`](crate::ThreadPool) these methods do the same as the pool's own.
///
/// The maps of this trait borrow the executor. With the trait in scope, `arc.map(…)` on an
/// `Arc<ThreadPool>` is the method of this trait, and borrows the `Arc`. `(*arc).map(…)` is the pool's
/// own method, which borrows nothing.
///
/// # Examples
///
/// Code that works with any executor:
///
/// ```
/// use futurepool::{Executor, ExecutorExt, InlineExecutor, ThreadPool};
///
/// fn total(executor: &dyn Executor) -> u32 {
///     let squares = executor.map_unordered(1..=3_u32, |n| n * n);
///     squares.into_iter().map(Result::unwrap).sum()
/// }
///
/// assert_eq!(total(&ThreadPool::new(2)), 14);
/// assert_eq!(total(&InlineExecutor), 14);
/// ```
#[doc(alias = "ExecutorService")]
pub trait ExecutorExt: Executor {
    /// Submits a job and returns its handle: see
    /// [`ThreadPool::submit`](crate::ThreadPool::submit).
    ///
    /// Dropping the handle detaches the job, which still runs.
    #[track_caller]
    fn submit<F, T>(&self, closure: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        submit_to(self, closure, Location::caller(), span::current())
    }

    /// Applies `f` to each item, and yields the results in the order of the items: see
    /// [`ThreadPool::map`](crate::ThreadPool::map).
    ///
    /// On an executor that is no thread pool of this crate, each item is a job of its own unless
    /// [`chunk_size`](Map::chunk_size) is set.
    #[track_caller]
    fn map<'a, I, F, U>(&'a self, items: I, f: F) -> Map<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        match self.as_thread_pool(PRIVATE) {
            Some(pool) => pool.map(items, f),
            None => Map::new(Submitter::on_executor(self, items.into_iter(), f)),
        }
    }

    /// Applies `f` to each item, and yields the results in order of completion: see
    /// [`ThreadPool::map_unordered`](crate::ThreadPool::map_unordered).
    #[track_caller]
    fn map_unordered<'a, I, F, U>(&'a self, items: I, f: F) -> MapUnordered<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        match self.as_thread_pool(PRIVATE) {
            Some(pool) => pool.map_unordered(items, f),
            None => MapUnordered::new(Submitter::on_executor(self, items.into_iter(), f)),
        }
    }
}

impl<E: Executor + ?Sized> ExecutorExt for E {}
