//! What every executor can do.

use std::panic::Location;

use crate::combine::map::{Map, MapUnordered};
use crate::executor::{Executor, submit_to};
use crate::task::join_handle::JoinHandle;
use crate::task::span;

/// What every [`Executor`] can do: `submit`, `map` and `map_unordered`.
///
/// It is there for every one, `dyn Executor` included, and cannot be implemented. For a
/// [`ThreadPool`](crate::ThreadPool) it does what the pool's own methods do.
///
/// # Examples
///
/// Code that need not know where its work runs:
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
pub trait ExecutorExt: Executor {
    /// Submits a job: see [`ThreadPool::submit`](crate::ThreadPool::submit).
    #[track_caller]
    fn submit<F, T>(&self, closure: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        submit_to(self, closure, Location::caller(), span::current())
    }

    /// A job for each item, results in the order of the items: see [`ThreadPool::map`](crate::ThreadPool::map).
    #[track_caller]
    fn map<'a, I, F, U>(&'a self, items: I, f: F) -> Map<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        Map::on(self, items, f)
    }

    /// A job for each item, results as they come: see
    /// [`ThreadPool::map_unordered`](crate::ThreadPool::map_unordered).
    #[track_caller]
    fn map_unordered<'a, I, F, U>(&'a self, items: I, f: F) -> MapUnordered<'a, U>
    where
        I: IntoIterator<IntoIter: Send + 'a>,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        MapUnordered::on(self, items, f)
    }
}

impl<E: Executor + ?Sized> ExecutorExt for E {}
