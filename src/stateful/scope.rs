//! Jobs that borrow, and get the state of a worker.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;

use super::StatefulPool;
use super::map::WithState;
use crate::combine::map::{Map, MapUnordered, Submitter};
use crate::pool::worker_state::with_state;
use crate::scope::{Scope, ScopedJoinHandle};

impl<S: 'static> StatefulPool<S> {
    /// Runs a closure whose jobs may borrow local variables and get the state of a worker, and
    /// blocks until all of these jobs have ended.
    ///
    /// The closure receives a [`StatefulScope`] and submits jobs with [`StatefulScope::submit`]. In
    /// every other way this method behaves like [`ThreadPool::scope`](crate::ThreadPool::scope),
    /// except in a worker.
    ///
    /// # In a worker of the same pool
    ///
    /// Such a worker runs no job while it waits at the end of the scope. Other workers run the
    /// jobs. If no worker can reach those that are queued, the wait would never end: all workers of
    /// the pool wait for each other or for queued jobs, and no more can be started. Then `scope`
    /// cancels the queued jobs, waits for the running ones, and panics with a message that says so.
    ///
    /// If another worker waits for a queued job in a [`join`](ScopedJoinHandle::join), that `join`
    /// returns an error that [`is_deadlock`](crate::JoinError::is_deadlock) instead, and no job is
    /// cancelled.
    ///
    /// # Panics
    ///
    /// As [`ThreadPool::scope`](crate::ThreadPool::scope) does: if the closure panics, or if a job
    /// panicked or did not run and its outcome was not taken.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::StatefulPool;
    ///
    /// // Stands for connections to a database.
    /// let pool = StatefulPool::builder_with(Vec::<String>::new).max_workers(2).build()?;
    /// let orders = [String::from("tea"), String::from("milk")];
    /// let mut lengths = [0; 2];
    /// pool.scope(|scope| {
    ///     for (order, length) in orders.iter().zip(&mut lengths) {
    ///         // The handle is dropped: the scope waits for the job.
    ///         scope.submit(move |connection| {
    ///             connection.push(order.clone());
    ///             *length = order.len();
    ///         });
    ///     }
    /// });
    /// assert_eq!(lengths, [3, 4]);
    /// # Ok::<(), futurepool::BuildError>(())
    /// ```
    #[doc(alias = "interact")]
    #[track_caller]
    pub fn scope<'env, F, R>(&self, f: F) -> R
    where
        F: for<'scope> FnOnce(&'scope StatefulScope<'scope, 'env, S>) -> R,
    {
        self.threads.scope_with_state(f)
    }
}

/// Submits jobs that may borrow local variables, and that get the state of a worker. Created by
/// [`StatefulPool::scope`].
///
/// `'scope` is the lifetime of the scope: it ends inside [`StatefulPool::scope`], after the last
/// job. `'env` is the lifetime of what the jobs borrow from outside: it is at least as long as the
/// call. `S` is the state.
pub struct StatefulScope<'scope, 'env: 'scope, S> {
    scope: Scope<'scope, 'env>,
    state: PhantomData<fn(&mut S)>,
}

impl<'scope, 'env, S> StatefulScope<'scope, 'env, S> {
    pub(crate) fn new(scope: Scope<'scope, 'env>) -> Self {
        Self {
            scope,
            state: PhantomData,
        }
    }

    /// Returns the same scope, for jobs that use no state.
    pub(crate) fn without_state(&self) -> &Scope<'scope, 'env> {
        &self.scope
    }
}

impl<'scope, S: 'static> StatefulScope<'scope, '_, S> {
    /// Submits a job that may borrow from outside the scope, and gets the state of its worker: see
    /// [`StatefulPool::submit`].
    ///
    /// Dropping the handle detaches the job. The scope still waits for the job. A result may borrow
    /// from outside the scope, but not from the state.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::StatefulPool::builder_with(|| 7).max_workers(1).build()?;
    /// let numbers = [1, 2, 3];
    /// let sum = pool.scope(|scope| {
    ///     let sum = scope.submit(|seven| numbers.iter().sum::<i32>() * *seven);
    ///     sum.join().unwrap()
    /// });
    /// assert_eq!(sum, 42);
    /// # Ok::<(), futurepool::BuildError>(())
    /// ```
    #[track_caller]
    pub fn submit<F, T>(&'scope self, closure: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce(&mut S) -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let job = || with_state(closure).expect("a worker has its state before it takes a job");
        self.scope.submit_at(job, Location::caller())
    }

    /// Calls `f` on each item, with the state of a worker, in jobs that may borrow from outside the
    /// scope. Yields the results in input order.
    ///
    /// See [`StatefulPool::map`] for the state, and [`Scope::map`] for the lifetimes and for what
    /// makes the scope panic.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::StatefulPool::builder_with(String::new).max_workers(2).build()?;
    /// let words = [String::from("ham"), String::from("spam")];
    /// let lengths = pool.scope(|scope| {
    ///     let lengths = scope.map(&words, |buffer, word| {
    ///         buffer.clear();
    ///         buffer.push_str(word);
    ///         buffer.len()
    ///     });
    ///     lengths.join()
    /// });
    /// assert_eq!(lengths?, [3, 4]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "par_iter")]
    #[track_caller]
    pub fn map<I, F, U>(&'scope self, items: I, f: F) -> Map<'scope, U>
    where
        I: IntoIterator<IntoIter: Send + 'scope>,
        I::Item: Send + 'scope,
        F: Fn(&mut S, I::Item) -> U + Send + Sync + 'scope,
        U: Send + 'scope,
    {
        let (items, function) = (items.into_iter(), WithState::new(f));
        Map::new(Submitter::in_scope(&self.scope, items, function))
    }

    /// Calls `f` on each item, with the state of a worker, in jobs that may borrow from outside the
    /// scope. Yields the results in completion order.
    ///
    /// In every other way this method behaves like [`map`](Self::map).
    #[doc(alias = "imap_unordered")]
    #[track_caller]
    pub fn map_unordered<I, F, U>(&'scope self, items: I, f: F) -> MapUnordered<'scope, U>
    where
        I: IntoIterator<IntoIter: Send + 'scope>,
        I::Item: Send + 'scope,
        F: Fn(&mut S, I::Item) -> U + Send + Sync + 'scope,
        U: Send + 'scope,
    {
        let (items, function) = (items.into_iter(), WithState::new(f));
        MapUnordered::new(Submitter::in_scope(&self.scope, items, function))
    }
}

impl<S> fmt::Debug for StatefulScope<'_, '_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StatefulScope").field(&self.scope).finish()
    }
}

/// Programs that must not compile, each next to one that does.
///
/// A job may borrow a value that outlives the scope, mutably too, and a state need not be `Send`.
///
/// ```
/// use std::rc::Rc;
///
/// let pool = futurepool::StatefulPool::builder_with(|| Rc::new(7)).max_workers(1).build().unwrap();
/// let mut sevens = Vec::new();
/// pool.scope(|scope| drop(scope.submit(|seven| sevens.push(**seven))));
/// assert_eq!(sevens, [7]);
/// ```
///
/// A job must not borrow a value that the scope outlives.
///
/// ```compile_fail,E0373
/// let pool = futurepool::StatefulPool::builder_with(|| 7).max_workers(1).build().unwrap();
/// pool.scope(|scope| {
///     let mut sevens = Vec::new();
///     drop(scope.submit(|seven| sevens.push(*seven)));
/// });
/// ```
///
/// Two jobs must not borrow the same value mutably.
///
/// ```compile_fail,E0499
/// let pool = futurepool::StatefulPool::builder_with(|| 7).max_workers(1).build().unwrap();
/// let mut sevens = Vec::new();
/// pool.scope(|scope| {
///     drop(scope.submit(|seven| sevens.push(*seven)));
///     drop(scope.submit(|seven| sevens.push(*seven)));
/// });
/// ```
///
/// A result may borrow a value that outlives the scope.
///
/// ```
/// let pool = futurepool::StatefulPool::builder_with(|| 1).max_workers(1).build().unwrap();
/// let words = ["spam", "eggs"];
/// let word: &str = pool.scope(|scope| scope.submit(|n| words[*n]).join().unwrap());
/// assert_eq!(word, "eggs");
/// ```
///
/// A result must not borrow from the state.
///
/// ```compile_fail
/// let pool = futurepool::StatefulPool::builder_with(|| String::from("spam")).max_workers(1).build().unwrap();
/// let word: &str = pool.scope(|scope| scope.submit(|text: &mut String| text.as_str()).join().unwrap());
/// ```
///
/// The jobs of a job of the scope may use the scope.
///
/// ```
/// use futurepool::StatefulPool;
///
/// let pool = StatefulPool::builder_with(|| 7).max_workers(2).build().unwrap();
/// let sum = std::sync::Mutex::new(0);
/// pool.scope(|scope| {
///     scope.submit(|seven| {
///         *sum.lock().unwrap() += *seven;
///         scope.submit(|seven| *sum.lock().unwrap() += *seven);
///     });
/// });
/// assert_eq!(sum.into_inner().unwrap(), 14);
/// ```
///
/// A handle must not leave the scope, nor may the scope itself.
///
/// ```compile_fail
/// let pool = futurepool::StatefulPool::builder_with(|| 7).max_workers(1).build().unwrap();
/// let handle = pool.scope(|scope| scope.submit(|seven| *seven));
/// handle.join();
/// ```
///
/// ```compile_fail,E0521
/// let pool = futurepool::StatefulPool::builder_with(|| 7).max_workers(1).build().unwrap();
/// let mut outside = None;
/// pool.scope(|scope| outside = Some(scope));
/// ```
///
/// The items of a map must not borrow a value that the scope outlives.
///
/// ```compile_fail,E0597
/// let pool = futurepool::StatefulPool::builder_with(|| 7).max_workers(1).build().unwrap();
/// pool.scope(|scope| {
///     let text = String::new();
///     scope.map([&text], |seven, text| text.len() + *seven).detach();
/// });
/// ```
///
/// A job must be `Send`.
///
/// ```compile_fail,E0277
/// let pool = futurepool::StatefulPool::builder_with(|| 7).max_workers(1).build().unwrap();
/// let shared = std::rc::Rc::new(7);
/// pool.scope(|scope| drop(scope.submit(|seven| *shared + *seven)));
/// ```
#[cfg(doctest)]
struct MustNotCompile;
