//! Borrowed jobs; the only file that may hold `unsafe`.
//!
//! A scoped job borrows from outside, and the pool takes only what is `'static`. So the job is handed to the pool with
//! its lifetime hidden, and [`ThreadPool::scope`] does not return before it has ended.
//!
//! What makes that sound is in this file alone. The closure and its result live in a [`Packet`]. A [`Ticket`], which is
//! counted, is released when both are gone from there or belong to the [`ScopedJoinHandle`], and `scope` waits until none
//! is left. The rest of the crate holds the packet by an [`Erased`], which can do two things, once: run it, or drop it.
//! Should the rest of the crate lose an `Erased`, its ticket is never released, and `scope` waits for ever.

#![allow(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::Weak;
use std::task::Waker;

use crate::error::JoinError;
use crate::park::helping::Helpable;
use crate::park::parker::Sleeper;
use crate::park::wait_graph::{self, Node};
use crate::pool::ThreadPool;
use crate::task::cell::Cancel;
use crate::task::context::{badge, in_job};
use crate::task::join_handle::JoinHandle;
use crate::task::span;
use crate::util::sync::{Arc, Mutex};
use crate::util::unwind::{drop_catching, panic_message};

impl ThreadPool {
    /// Jobs that borrow from outside, as in [`std::thread::scope`]: all of them have ended when this returns.
    ///
    /// The closure gets a [`Scope`] and submits jobs by [`Scope::submit`]; these may borrow whatever lives longer than
    /// this call, and may submit more jobs. At its end it waits for all of them, joined or not, also if it panics. In a
    /// worker of this pool it runs those that are still queued itself, so scopes may nest, down to a pool of one worker.
    ///
    /// It blocks its caller, so in async code it belongs into a job: `pool.submit(move || shared.scope(…)).await`.
    ///
    /// # Panics
    ///
    /// If the closure does; otherwise if a job whose handle was not joined has panicked, or did not run for any reason
    /// but a [`cancel`](ScopedJoinHandle::cancel) through its own handle: no work is skipped in silence.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(2);
    /// let mut numbers = vec![1, 2, 3, 4];
    /// let (left, right) = numbers.split_at_mut(2);
    /// pool.scope(|scope| {
    ///     scope.submit(|| left.iter_mut().for_each(|n| *n *= 10));
    ///     let sum = scope.submit(|| right.iter().sum::<i32>());
    ///     assert_eq!(sum.join().unwrap(), 7);
    /// });
    /// assert_eq!(numbers, [10, 20, 3, 4]);
    /// ```
    #[track_caller]
    pub fn scope<'env, F, R>(&self, f: F) -> R
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
    {
        let scope = Scope {
            pool: self,
            ledger: Arc::new(Ledger {
                records: in_job() || badge().is_some(),
                entries: Mutex::default(),
            }),
            scope: PhantomData,
            env: PhantomData,
        };
        let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
        scope.ledger.wait();
        let failures = mem::take(&mut scope.ledger.entries.lock().failures);
        match (
            result,
            failures.into_values().collect::<Vec<_>>().as_slice(),
        ) {
            (Err(payload), _) => resume_unwind(payload),
            (Ok(result), []) => result,
            (Ok(_), [only]) => panic!("{only}"),
            (Ok(_), [first, rest @ ..]) => panic!("{first} (and {} more)", rest.len()),
        }
    }
}

/// Where jobs are submitted that borrow from outside: see [`ThreadPool::scope`].
///
/// `'scope` is how long it lasts, to its end inside [`ThreadPool::scope`]; `'env` is how long whatever the jobs borrow
/// lives at least.
pub struct Scope<'scope, 'env: 'scope> {
    pool: &'scope ThreadPool,
    ledger: Arc<Ledger>,
    // Invariant in both, as `std::thread::Scope`: a longer or shorter lifetime could be passed off for them otherwise.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope> Scope<'scope, '_> {
    /// Submits a job that may borrow from outside the scope: see [`ThreadPool::submit`].
    ///
    /// Dropping the handle detaches the job; the scope still waits for it.
    ///
    /// # Examples
    ///
    /// Jobs that submit jobs:
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use futurepool::{Scope, ThreadPool};
    ///
    /// struct Tree {
    ///     value: u64,
    ///     branches: Vec<Tree>,
    /// }
    ///
    /// fn add<'scope>(scope: &'scope Scope<'scope, '_>, tree: &'scope Tree, sum: &'scope AtomicU64) {
    ///     sum.fetch_add(tree.value, Ordering::Relaxed);
    ///     for branch in &tree.branches {
    ///         drop(scope.submit(move || add(scope, branch, sum)));
    ///     }
    /// }
    ///
    /// let leaves = [2, 3].map(|value| Tree { value, branches: Vec::new() });
    /// let tree = Tree { value: 1, branches: leaves.into() };
    /// let sum = AtomicU64::new(0);
    /// ThreadPool::new(2).scope(|scope| add(scope, &tree, &sum));
    /// assert_eq!(sum.into_inner(), 6);
    /// ```
    #[track_caller]
    pub fn submit<F, T>(&'scope self, closure: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let origin = Location::caller();
        let packet = Arc::new(Packet {
            inside: Mutex::new(Inside {
                contents: Contents::Queued(closure),
                wanted: true,
            }),
            ticket: Ticket::new(&self.ledger, origin),
        });
        let number = packet.ticket.number;
        // Both halves before anything else can go wrong: each of them cleans up when it is dropped.
        let outcome = OutcomeHalf(Arc::clone(&packet) as Arc<dyn Outcome<T> + 'scope>);
        let erased = Erased::new(packet);
        let handle = (self.pool).submit_from(move || erased.run(), origin, span::current());
        self.ledger.record(&handle);
        let handle = LeftBehind {
            handle: Some(handle),
            ledger: Arc::clone(&self.ledger),
        };
        ScopedJoinHandle {
            outcome,
            handle,
            number,
        }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unfinished = self.ledger.entries.lock().unfinished;
        f.debug_struct("Scope")
            .field("unfinished", &unfinished)
            .finish_non_exhaustive()
    }
}

/// A job of a [`Scope`]. **Dropping it detaches**: the job still runs, and the scope waits for it.
///
/// See [`ThreadPool::scope`] for an example.
#[must_use = "if the result is not needed, say so with `drop`; a panic of the job then comes out of the scope"]
pub struct ScopedJoinHandle<'scope, T> {
    outcome: OutcomeHalf<'scope, T>,
    handle: LeftBehind,
    number: u64,
}

/// When it is dropped, the end of the scope takes it over, to see the job resolved.
struct LeftBehind {
    /// `None` once it was joined.
    handle: Option<JoinHandle<()>>,
    ledger: Arc<Ledger>,
}

impl LeftBehind {
    fn get(&self) -> &JoinHandle<()> {
        self.handle
            .as_ref()
            .expect("it is there until it is joined")
    }
}

impl Drop for LeftBehind {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.ledger.leave(handle);
        }
    }
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the job in this thread, and gives its result: see [`JoinHandle::join`].
    ///
    /// # Errors
    ///
    /// Those of [`JoinHandle::join`].
    pub fn join(self) -> Result<T, JoinError> {
        let Self {
            outcome,
            mut handle,
            number,
        } = self;
        let joined = handle.handle.take().expect("it is joined once");
        match joined.join() {
            Ok(()) => Ok(outcome.0.take().expect("the job left its result here")),
            Err(error) => {
                if !error.is_deadlock() {
                    handle.ledger.forgive(number);
                }
                Err(error)
            }
        }
    }

    /// Whether the job is done, in whatever way: see [`JoinHandle::is_finished`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.get().is_finished()
    }

    /// Cancels the job if it has not started: see [`JoinHandle::cancel`].
    pub fn cancel(&self) -> bool {
        let cancel = self.handle.get().cancel_now();
        if cancel == Cancel::Now {
            self.handle.ledger.forgive(self.number);
        }
        cancel != Cancel::No
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScopedJoinHandle")
            .field(self.handle.get())
            .finish()
    }
}

/// What is between a scope and its jobs.
struct Ledger {
    /// The scope is in a job, or in a worker: at its end it may run jobs itself, and may be part of a circle.
    records: bool,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// Tickets that are not released.
    unfinished: usize,
    next_number: u64,
    /// What went wrong in jobs that were not joined, by their numbers.
    failures: BTreeMap<u64, String>,
    /// Jobs that the end of the scope has not tried to run yet.
    untried: VecDeque<Weak<dyn Helpable>>,
    /// Jobs that the end of the scope waits for; some may be finished.
    nodes: Vec<Weak<dyn Node>>,
    prune_at: usize,
    /// Handles that were let go of; some of their jobs may be finished.
    left: Vec<JoinHandle<()>>,
    prune_left_at: usize,
    /// Of the end of the scope.
    waiter: Option<Waker>,
}

impl Ledger {
    /// Takes note of a job that was submitted.
    fn record(&self, handle: &JoinHandle<()>) {
        if !self.records {
            return;
        }
        let (helpable, node) = handle.weak();
        let (mut spent, mut spent_jobs) = (Vec::new(), Vec::new());
        let mut entries = self.entries.lock();
        if entries.nodes.len() >= entries.prune_at {
            let unfinished = |node: &Weak<dyn Node>| {
                let node = node.upgrade();
                let unfinished = node.as_ref().is_some_and(|node| node.is_unfinished());
                spent.extend(node);
                unfinished
            };
            entries.nodes.retain(unfinished);
            let mut tried = Vec::new();
            entries.untried.retain(|job| {
                let job = job.upgrade();
                let waiting = job.as_ref().is_some_and(|job| job.is_waiting());
                tried.extend(job);
                waiting
            });
            spent_jobs = tried;
            entries.prune_at = 64.max(2 * entries.nodes.len());
        }
        entries.untried.push_back(helpable);
        entries.nodes.push(node);
        let waiter = entries.waiter.take();
        drop(entries);
        drop((spent, spent_jobs));
        // Its end has come already, and may have to run this one.
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Takes a handle over that nobody wants.
    fn leave(&self, handle: JoinHandle<()>) {
        let mut finished = Vec::new();
        let mut entries = self.entries.lock();
        entries.left.push(handle);
        if entries.left.len() > entries.prune_left_at {
            let all = mem::take(&mut entries.left);
            (finished, entries.left) = all.into_iter().partition(JoinHandle::is_finished);
            entries.prune_left_at = 64.max(2 * entries.left.len());
        }
        drop(entries);
        drop(finished);
    }

    /// Waits until all jobs have ended, and then, as far as their handles were not leaked, until the pool has counted
    /// them.
    fn wait(&self) {
        // A panic here would be a mistake of ours, and would let the scope end before its jobs.
        let abort = AbortOnUnwind;
        self.wait_for_tickets();
        mem::forget(abort);
        let left = mem::take(&mut self.entries.lock().left);
        for handle in left {
            // What came of it is in the list of failures.
            drop_catching("a panic's payload", handle.join());
        }
    }

    fn wait_for_tickets(&self) {
        let sleeper = Sleeper::new();
        loop {
            while let Some(job) = self.next_untried() {
                job.help();
            }
            let mut entries = self.entries.lock();
            if entries.unfinished == 0 {
                return;
            }
            if !entries.untried.is_empty() {
                continue;
            }
            entries.waiter = Some(sleeper.waker().clone());
            let nodes: Vec<_> = entries.nodes.iter().filter_map(Weak::upgrade).collect();
            drop(entries);
            let entry = in_job().then(|| wait_graph::wait_for_all(nodes));
            sleeper.sleep_only(None);
            drop(entry);
            sleeper.do_chore();
        }
    }

    fn next_untried(&self) -> Option<Arc<dyn Helpable>> {
        let mut entries = self.entries.lock();
        loop {
            let job = entries.untried.pop_front()?.upgrade();
            if job.is_some() {
                return job;
            }
        }
    }

    /// The failure of this job was seen by somebody.
    fn forgive(&self, number: u64) {
        let failure = self.entries.lock().failures.remove(&number);
        drop(failure);
    }
}

struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// Says that a job has not ended. Counted when it is made; released once.
struct Ticket {
    ledger: Arc<Ledger>,
    number: u64,
    origin: &'static Location<'static>,
}

impl Ticket {
    fn new(ledger: &Arc<Ledger>, origin: &'static Location<'static>) -> Self {
        let mut entries = ledger.entries.lock();
        entries.unfinished += 1;
        entries.next_number += 1;
        Self {
            ledger: Arc::clone(ledger),
            number: entries.next_number,
            origin,
        }
    }

    fn failed(&self, failure: String) {
        let mut entries = self.ledger.entries.lock();
        entries.failures.insert(self.number, failure);
    }
}

/// Releases a ticket, however this is left.
struct Release<'a>(&'a Ticket);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        let mut entries = self.0.ledger.entries.lock();
        entries.unfinished -= 1;
        let waiter = match entries.unfinished {
            0 => entries.waiter.take(),
            _ => None,
        };
        drop(entries);
        // One of our own: it only unparks.
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// A scoped job: all that it may borrow from outside is in here.
struct Packet<F, T> {
    inside: Mutex<Inside<F, T>>,
    ticket: Ticket,
}

struct Inside<F, T> {
    contents: Contents<F, T>,
    /// The [`OutcomeHalf`] is still there: it will take the result, or drop it. Reset by its drop.
    wanted: bool,
}

enum Contents<F, T> {
    Queued(F),
    /// It belongs to the [`OutcomeHalf`]. Only while that is there.
    Returned(T),
    /// It runs, or nothing is left.
    Gone,
}

/// The pool's side of a packet. One of the two is called, once.
trait Task: Send + Sync {
    /// Runs the closure; passes its panic on.
    fn run(&self);
    /// It will never run.
    fn abandon(&self);
}

impl<F, T> Task for Packet<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn run(&self) {
        let release = Release(&self.ticket);
        let queued = mem::replace(&mut self.inside.lock().contents, Contents::Gone);
        let Contents::Queued(closure) = queued else {
            unreachable!("a job is run once, and before that its contents do not change")
        };
        match catch_unwind(AssertUnwindSafe(closure)) {
            Ok(value) => {
                let mut inside = self.inside.lock();
                if inside.wanted {
                    inside.contents = Contents::Returned(value);
                    drop(inside);
                } else {
                    drop(inside);
                    drop_catching("the destructor of a job's result", value);
                }
            }
            Err(payload) => {
                let origin = self.ticket.origin;
                let message = panic_message(&*payload).unwrap_or("(no text)");
                self.ticket.failed(format!(
                    "a scoped job that was not joined panicked: {message} (submitted at {origin})"
                ));
                drop(release);
                // The payload borrows nothing: it is `'static`.
                resume_unwind(payload);
            }
        }
        drop(release);
    }

    fn abandon(&self) {
        let release = Release(&self.ticket);
        let queued = mem::replace(&mut self.inside.lock().contents, Contents::Gone);
        drop_catching("the destructor of a job's closure", queued);
        let origin = self.ticket.origin;
        self.ticket.failed(format!(
            "a scoped job that was not joined did not run (submitted at {origin}): it was cancelled, or the pool was \
             shut down, broken, or got no thread"
        ));
        drop(release);
    }
}

/// The handle's side of a packet.
trait Outcome<T>: Send + Sync {
    /// The result, if it is there.
    fn take(&self) -> Option<T>;
    /// The result, if it is there; one that comes later is not wanted.
    fn take_last(&self) -> Option<T>;
}

impl<F, T> Inside<F, T> {
    fn take(&mut self) -> Option<T> {
        match mem::replace(&mut self.contents, Contents::Gone) {
            Contents::Returned(value) => Some(value),
            other => {
                self.contents = other;
                None
            }
        }
    }
}

impl<F: Send, T: Send> Outcome<T> for Packet<F, T> {
    fn take(&self) -> Option<T> {
        self.inside.lock().take()
    }

    fn take_last(&self) -> Option<T> {
        let mut inside = self.inside.lock();
        inside.wanted = false;
        inside.take()
    }
}

/// Owns the result once it is there, and whoever holds this lives no longer than `'scope`.
struct OutcomeHalf<'scope, T>(Arc<dyn Outcome<T> + 'scope>);

impl<T> Drop for OutcomeHalf<'_, T> {
    fn drop(&mut self) {
        let result = self.0.take_last();
        drop_catching("the destructor of a job's result", result);
    }
}

/// A packet without its lifetime: what the pool gets.
struct Erased(Option<Arc<dyn Task>>);

impl Erased {
    fn new<'scope, F, T>(packet: Arc<Packet<F, T>>) -> Self
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let task: Arc<dyn Task + 'scope> = packet;
        // SAFETY: The two types differ in the lifetime alone, so the pointer and its table are valid for both. What has to
        // be shown is that nothing that lives for `'scope` only is used after `'scope` has ended.
        //
        // Such a thing is only in `Inside::contents`: the closure and the result. (The ledger and the origin are
        // `'static`.) This value uses them in three ways:
        //
        // - `Task::run` and `Task::abandon`. While they do, the packet's ticket is not released: it is counted from
        //   before this value is made, and `Release` counts it out at the end of either, after the closure was consumed
        //   or dropped, and after the result was dropped or put down for the `OutcomeHalf`. `ThreadPool::scope`, on all
        //   its ways out, waits in `Ledger::wait` until no ticket is left, and `'scope` ends after that. Neither is
        //   called a second time, when the ticket is released: `run` and `drop` take the `Arc` out of the `Option`.
        // - Dropping the `Arc`, which may be the last one and then drops `contents`, after the ticket was released. There
        //   is nothing in there to be dropped by then. `abandon` leaves `Gone`. So does `run`, or else `Returned`, but
        //   only if it sees `wanted` under the same lock. Then the `OutcomeHalf` is there, and holds an `Arc`; and
        //   before it lets go of that it resets `wanted` and takes the result out, under the lock. So the `Arc` that is
        //   dropped last never finds `Returned`; and if the `OutcomeHalf` is leaked, so is the packet. (The
        //   `OutcomeHalf` is made before this value, so `wanted` is never true without one.)
        // - If this value is leaked, no ticket is released, and `scope` never returns.
        //
        // What the `OutcomeHalf` does needs no argument, since its type keeps it within `'scope`.
        let task = unsafe { mem::transmute::<Arc<dyn Task + 'scope>, Arc<dyn Task>>(task) };
        Self(Some(task))
    }

    fn run(mut self) {
        let task = self.0.take().expect("it is there until now");
        task.run();
    }
}

impl Drop for Erased {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abandon();
        }
    }
}

/// What must not compile, each beside what does.
///
/// A job may borrow what lives longer than the scope.
///
/// ```
/// let pool = futurepool::ThreadPool::new(1);
/// let mut text = String::new();
/// pool.scope(|scope| drop(scope.submit(|| text.push('a'))));
/// assert_eq!(text, "a");
/// ```
///
/// It may not borrow what lives shorter.
///
/// ```compile_fail,E0373
/// let pool = futurepool::ThreadPool::new(1);
/// pool.scope(|scope| {
///     let mut text = String::new();
///     drop(scope.submit(|| text.push('a')));
/// });
/// ```
///
/// ```compile_fail,E0597
/// let pool = futurepool::ThreadPool::new(1);
/// pool.scope(|scope| {
///     let text = String::new();
///     let text = &text;
///     drop(scope.submit(move || text.len()));
/// });
/// ```
///
/// Nor may two jobs change the same thing.
///
/// ```compile_fail,E0499
/// let pool = futurepool::ThreadPool::new(1);
/// let mut text = String::new();
/// pool.scope(|scope| {
///     drop(scope.submit(|| text.push('a')));
///     drop(scope.submit(|| text.push('b')));
/// });
/// ```
///
/// A result may borrow what lives longer than the scope, and come out of it.
///
/// ```
/// let pool = futurepool::ThreadPool::new(1);
/// let text = String::from("a b");
/// let word = pool.scope(|scope| scope.submit(|| text.split(' ').next()).join().unwrap());
/// assert_eq!(word, Some("a"));
/// ```
///
/// A handle may not come out of it,
///
/// ```compile_fail
/// let pool = futurepool::ThreadPool::new(1);
/// let handle = pool.scope(|scope| scope.submit(|| 7));
/// handle.join();
/// ```
///
/// nor the scope,
///
/// ```compile_fail,E0521
/// let pool = futurepool::ThreadPool::new(1);
/// let mut outside = None;
/// pool.scope(|scope| outside = Some(scope));
/// outside.unwrap().submit(|| 7);
/// ```
///
/// and what was borrowed is not to be had before it ends.
///
/// ```compile_fail,E0502
/// let pool = futurepool::ThreadPool::new(1);
/// let mut text = String::new();
/// pool.scope(|scope| {
///     drop(scope.submit(|| text.push('a')));
///     println!("{text}");
/// });
/// ```
///
/// What is not `Send` stays where it is.
///
/// ```compile_fail,E0277
/// let pool = futurepool::ThreadPool::new(1);
/// let shared = std::rc::Rc::new(7);
/// pool.scope(|scope| drop(scope.submit(|| *shared)));
/// ```
///
/// A plain job borrows nothing.
///
/// ```compile_fail,E0597
/// let pool = futurepool::ThreadPool::new(1);
/// let text = String::new();
/// let text = &text;
/// let handle = pool.submit(move || text.len());
/// ```
#[cfg(doctest)]
struct MustNotCompile;
