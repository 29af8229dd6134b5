//! What the crate knows of the thread that calls it: which worker it is, which jobs it runs, what
//! it waits in. All of it is in one thread-local, [`Context`], and a small one without a
//! destructor, [`Identity`].

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
// Not the model checker's: numbers tell threads apart and order nothing.
use std::sync::atomic::{AtomicU32, Ordering};

use crate::park::helping::BlockOnFrame;
use crate::park::parker::ParkerCache;
use crate::pool::control::Mailbox;
use crate::pool::{PoolInner, TlsDropFlag};
use crate::task::cell::RawTask;
use crate::task::state::{Origin, Stage};
use crate::util::spin::{AdaptiveSpin, PollSpin};
use crate::util::sync::{Arc, local};

/// What belongs to a thread.
pub(crate) struct Context {
    /// The pool that this thread is a worker of, from its start to the end of its loop.
    pool: RefCell<Option<Arc<PoolInner>>>,
    /// The mailbox of this worker, as long as `pool`.
    mailbox: RefCell<Option<Arc<Mailbox>>>,
    /// The jobs that this thread runs, outermost first: each waits for the next one.
    running: RefCell<Vec<Arc<dyn RawTask>>>,
    /// How many cancels this thread is in, each in a destructor that the one before runs.
    cancelling: Cell<u32>,
    /// The innermost `block_on` of the innermost job.
    pub(crate) block_on: BlockOnFrame,
    /// Parkers of this thread that are not in use.
    pub(crate) parkers: ParkerCache,
    /// Whether this thread's joins spin before they park.
    pub(crate) join_spin: AdaptiveSpin,
    /// Whether the last poll of a `block_on` has met a job of a pool that has more jobs queued.
    has_backlog: Cell<bool>,
    /// Whether polls on this thread spin before they register a waker.
    pub(crate) poll_spin: PollSpin,
    /// Whether this worker is the one that searches: see `pool/idle.rs`.
    pub(crate) searching: Cell<bool>,
    /// Whether this worker had to wait for the job that it runs.
    pub(crate) after_pause: Cell<bool>,
    /// What this worker of a stateful pool owns, unless a job has it: see `pool/worker_state.rs`.
    pub(crate) state: Cell<Option<Box<dyn Any>>>,
    /// Set by a worker as the first thing it does. Dropped with this context, which is then the
    /// last thread-local of the thread to be dropped, where std drops them in reverse order.
    pub(crate) tls_drop_flag: Cell<Option<TlsDropFlag>>,
}

impl Context {
    const fn new() -> Self {
        Self {
            pool: RefCell::new(None),
            mailbox: RefCell::new(None),
            running: RefCell::new(Vec::new()),
            cancelling: Cell::new(0),
            block_on: BlockOnFrame::new(),
            parkers: ParkerCache::new(),
            join_spin: AdaptiveSpin::new(),
            has_backlog: Cell::new(false),
            poll_spin: PollSpin::new(),
            searching: Cell::new(false),
            after_pause: Cell::new(false),
            state: Cell::new(None),
            tls_drop_flag: Cell::new(None),
        }
    }

    /// Calls `f` with the context of this thread; `None` if the thread is ending and its context is
    /// dropped.
    pub(crate) fn with<R>(f: impl FnOnce(&Self) -> R) -> Option<R> {
        CONTEXT.try_with(f).ok()
    }
}

local! {
    static CONTEXT: Context = const { Context::new() };

    /// Plain numbers need no destructor, so destructors of other thread-locals can still ask.
    static IDENTITY: Identity = const { Identity::new() };
}

/// What a thread is, also while its thread-locals are dropped.
struct Identity {
    /// 0 until it is asked for.
    thread: Cell<u32>,
    worker: Cell<Option<WorkerId>>,
    /// The number in the default name of the worker's thread.
    worker_index: Cell<usize>,
}

impl Identity {
    const fn new() -> Self {
        Self {
            thread: Cell::new(0),
            worker: Cell::new(None),
            worker_index: Cell::new(0),
        }
    }
}

/// Tells which pool's worker a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkerId {
    /// The number of the pool.
    pub(crate) pool: u64,
    pub(crate) phase: WorkerPhase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerPhase {
    /// From the start of the thread to the end of its initializer.
    Initializing,
    InLoop,
    /// After its loop: thread-locals may still be dropped.
    Exited,
}

pub(crate) fn current_worker() -> Option<WorkerId> {
    IDENTITY.try_with(|own| own.worker.get()).ok().flatten()
}

pub(crate) fn set_current_worker(worker: WorkerId) {
    let _ = IDENTITY.try_with(|own| own.worker.set(Some(worker)));
}

/// Returns the number of this worker. 0 on a thread that is none.
pub(crate) fn worker_index() -> usize {
    (IDENTITY.try_with(|own| own.worker_index.get())).unwrap_or_default()
}

pub(crate) fn set_worker_index(index: usize) {
    let _ = IDENTITY.try_with(|own| own.worker_index.set(index));
}

/// Returns the pool that this thread is a worker of, while it is in its loop or its initializer.
pub(crate) fn current_pool() -> Option<Arc<PoolInner>> {
    Context::with(|context| context.pool.borrow().clone()).flatten()
}

/// A worker of a pool, for the wait graph.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolWorker {
    /// The number of the pool.
    pub(crate) pool: u64,
    /// Whether the worker runs the queued jobs of its pool that it waits for.
    pub(crate) helps: bool,
}

/// Returns which worker this thread is, from its start to the end of its loop.
pub(crate) fn current_pool_worker() -> Option<PoolWorker> {
    let in_loop = current_worker().is_some_and(|worker| worker.phase == WorkerPhase::InLoop);
    let worker = |pool: &Arc<PoolInner>| PoolWorker {
        pool: pool.id(),
        helps: in_loop && !pool.is_stateful(),
    };
    Context::with(|context| context.pool.borrow().as_ref().map(worker)).flatten()
}

/// Notes that a poll waits for a job of a pool that has more jobs queued.
pub(crate) fn note_backlog() {
    Context::with(|context| context.has_backlog.set(true));
}

/// Returns whether such a poll was noted since the last call.
pub(crate) fn take_backlog() -> bool {
    Context::with(|context| context.has_backlog.take()).unwrap_or(false)
}

/// Returns the mailbox of this worker, while it is in its loop or its initializer.
pub(crate) fn current_mailbox() -> Option<Arc<Mailbox>> {
    Context::with(|context| context.mailbox.borrow().clone()).flatten()
}

/// Sets the pool that this thread is a worker of, and the worker's mailbox.
pub(crate) fn set_current_pool(pool: Option<(Arc<PoolInner>, Arc<Mailbox>)>) {
    let (pool, mailbox) = pool.unzip();
    let old =
        Context::with(|context| (context.pool.replace(pool), context.mailbox.replace(mailbox)));
    drop(old);
}

/// The number of a thread: unique while fewer than four billion threads were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ThreadId(pub(crate) u32);

impl ThreadId {
    /// Stands for the thread of a job that is resolved by hand, perhaps from several threads.
    pub(crate) const UNKNOWN: Self = Self(0);

    pub(crate) fn current() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // 0 is for a thread without a number.
        let next = || NEXT.fetch_add(1, Ordering::Relaxed).max(1);
        let number = IDENTITY.try_with(|own| {
            if own.thread.get() == 0 {
                own.thread.set(next());
            }
            own.thread.get()
        });
        Self(number.unwrap_or_else(|_| next()))
    }
}

/// Marks a job as the innermost one of this thread, until it is dropped.
pub(crate) struct RunningFrame {
    /// The `block_on` of the outer job; `None` if the thread is ending.
    outer: Option<crate::park::helping::Frame>,
}

impl RunningFrame {
    pub(crate) fn enter(task: Arc<dyn RawTask>) -> Self {
        let outer = Context::with(|context| {
            context.running.borrow_mut().push(task);
            // What the job polls is not polled by a `block_on` that its thread is in.
            context.block_on.enter_job()
        });
        Self { outer }
    }
}

impl Drop for RunningFrame {
    fn drop(&mut self) {
        let Some(outer) = self.outer.take() else {
            return;
        };
        let task = Context::with(|context| {
            context.block_on.restore(outer);
            context.running.borrow_mut().pop()
        });
        // Only now, since its destructor may ask for the running job, too.
        drop(task);
    }
}

/// Marks this thread as one that cancels a job, until it is dropped: other threads may wait for it.
pub(crate) struct CancellingFrame(());

impl CancellingFrame {
    pub(crate) fn enter() -> Self {
        Context::with(|context| context.cancelling.set(context.cancelling.get() + 1));
        Self(())
    }
}

impl Drop for CancellingFrame {
    fn drop(&mut self) {
        Context::with(|context| context.cancelling.set(context.cancelling.get() - 1));
    }
}

/// Returns `true` if the calling job was cancelled while it ran.
///
/// [`JoinHandle::cancel`](crate::JoinHandle::cancel) and
/// [`shutdown_now`](crate::ThreadPool::shutdown_now) set this request. A long job should check it
/// from time to time and return early. In a thread nothing else stops a running job. In a worker
/// process the request is set if the pool has a grace period (`ProcessPoolBuilder::cancel_grace`).
///
/// The answer is about the innermost job of the calling thread. It is `false` outside a job.
/// [`current_job`] takes the question to threads that the job starts itself.
///
/// # Examples
///
/// ```
/// let pool = futurepool::ThreadPool::new(1);
/// let (started, wait) = std::sync::mpsc::channel();
/// let handle = pool.submit(move || {
///     started.send(()).unwrap();
///     let mut rounds = 0_u64;
///     while !futurepool::cancel_requested() {
///         rounds += 1;
///     }
///     rounds
/// });
/// wait.recv().unwrap();
/// assert!(!handle.cancel()); // too late to cancel it: the job is asked to end
/// assert!(handle.join().is_ok());
/// ```
#[doc(alias = "CancellationToken")]
#[doc(alias = "isInterrupted")]
#[must_use]
pub fn cancel_requested() -> bool {
    let requested = |job: &Arc<dyn RawTask>| is_cancel_requested(&**job);
    Context::with(|context| context.running.borrow().last().is_some_and(requested)).unwrap_or(false)
}

fn is_cancel_requested(job: &dyn RawTask) -> bool {
    match job.state(|state| state.stage()) {
        Stage::Running { cancel_requested } => cancel_requested || job.scheduler().is_stopping(),
        // Its waker runs, or it has ended.
        _ => false,
    }
}

/// Returns the innermost job of the calling thread, or `None` outside a job.
///
/// Pass it to threads that the job starts itself, so that they can check for a cancel request too.
///
/// # Examples
///
/// ```
/// let pool = futurepool::ThreadPool::new(1);
/// let (started, wait) = std::sync::mpsc::channel();
/// let handle = pool.submit(move || {
///     let job = futurepool::current_job().expect("this is a job");
///     let search = std::thread::spawn(move || {
///         started.send(()).unwrap();
///         let mut rounds = 0_u64;
///         while !job.cancel_requested() {
///             rounds += 1;
///         }
///         rounds
///     });
///     search.join().unwrap()
/// });
/// wait.recv().unwrap();
/// handle.cancel(); // the thread of the job sees the request
/// assert!(handle.join().is_ok());
/// ```
#[doc(alias = "CancellationToken")]
#[must_use]
pub fn current_job() -> Option<JobContext> {
    current_task().map(|task| JobContext { task })
}

/// Returns the innermost job that this thread runs.
pub(crate) fn current_task() -> Option<Arc<dyn RawTask>> {
    Context::with(|context| context.running.borrow().last().cloned()).flatten()
}

/// A running job, as seen from inside: see [`current_job`].
///
/// Dropping it has no effect on the job. It keeps the memory block of the job, but neither the
/// closure nor the result.
#[doc(alias = "CancellationToken")]
#[derive(Clone)]
pub struct JobContext {
    task: Arc<dyn RawTask>,
}

impl JobContext {
    /// Returns `true` if the job was cancelled while it ran: see [`cancel_requested`].
    ///
    /// Returns `false` after the job has ended.
    #[must_use]
    pub fn cancel_requested(&self) -> bool {
        is_cancel_requested(&*self.task)
    }
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobContext")
            .field("cancel_requested", &self.cancel_requested())
            .finish_non_exhaustive()
    }
}

/// Returns how many jobs this thread runs, each in a wait of the one before.
pub(crate) fn running_jobs() -> usize {
    Context::with(|context| context.running.borrow().len()).unwrap_or(0)
}

/// Returns whether other threads may wait for what this thread does: a wait that it makes could
/// close a cycle. For a job in the mailbox of a worker others wait whether or not it runs a job.
pub(crate) fn may_be_waited_for() -> bool {
    Context::with(|context| {
        context.cancelling.get() > 0
            || !context.running.borrow().is_empty()
            || context.mailbox.borrow().is_some()
    })
    .unwrap_or(false)
}

/// A job that a thread runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StackFrame {
    /// The address of its task, to be compared only.
    pub(crate) task: usize,
    pub(crate) origin: Origin,
}

/// Returns the jobs that this thread runs, outermost first.
pub(crate) fn running_stack() -> Vec<StackFrame> {
    let frame = |task: &Arc<dyn RawTask>| StackFrame {
        task: address(&**task),
        origin: task.state(|state| state.origin()),
    };
    Context::with(|context| context.running.borrow().iter().map(frame).collect())
        .unwrap_or_default()
}

/// Returns an address that no other task has while this one lives.
pub(crate) fn address(task: &dyn RawTask) -> usize {
    std::ptr::from_ref(task).cast::<()>().addr()
}
