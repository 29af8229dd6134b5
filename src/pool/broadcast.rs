//! One job for each worker, in its mailbox: see
//! [`ThreadPool::broadcast`](crate::ThreadPool::broadcast) and `control.rs`.

use crate::error::{Closed, JoinError};
use crate::pool::control::Mailbox;
use crate::pool::inner::{PoolInner, PoolRef, PoolRefs};
use crate::pool::job::JobOptions;
use crate::pool::spawn::notify_work;
use crate::pool::submit::Special;
use crate::task::cell::{JobClosure, JobPlace, NoClosure, Role, Runner, Scheduler, TaskCell};
use crate::task::context::ThreadId;
use crate::task::job::Job;
use crate::task::join_handle::JoinHandle;
use crate::task::span::{self, SUBSCRIBER, Span};
use crate::task::state::Origin;
use crate::util::fault::fault_or;
use crate::util::sync::{Arc, Instant, Ordering, fence};
use crate::util::unwind::{drop_catching, wake_all};

/// How a job in a mailbox reaches its pool.
struct MailScheduler {
    pool: PoolRef,
    mailbox: Arc<Mailbox>,
}

impl Scheduler for MailScheduler {
    fn inner(&self) -> Option<&dyn Scheduler> {
        Some(&self.pool)
    }

    fn on_start(&self, runner: Runner) {
        // Ordering: before the job is counted as inlined or ended: see `Counters::demand`.
        self.pool.pool().counters().left_mailbox();
        self.pool.on_start(runner);
    }

    fn on_dequeue(&self, _runner: Runner) {
        // A tombstone in a mailbox is not one of the queue.
        self.pool.on_dequeue(Runner::Executor);
        // Ordering: the job counts as demand before the queue is read. A submitter writes the
        // queue, and then reads the demand: see `control.rs`.
        fence(Ordering::SeqCst);
        let pool = self.pool.pool();
        if fault_or!("a_broadcast_job_keeps_the_queue_waiting": false; pool.has_queued_hint()) {
            notify_work(pool);
        }
    }

    fn on_cancelling(&self) {
        self.pool.pool().counters().left_mailbox();
        self.pool.on_cancelling();
    }

    fn on_closure_dropped(&self, _place: JobPlace) {
        self.pool.on_closure_dropped(JobPlace::TakenOut);
    }

    fn role(&self) -> Role {
        match self.pool.role() {
            // Another worker waits for the job as any thread does.
            Role::Worker if self.assigned_thread() != Some(ThreadId::current()) => Role::Outside,
            role => role,
        }
    }

    fn assigned_thread(&self) -> Option<ThreadId> {
        self.mailbox.thread()
    }
}

/// What came of an attempt to fill all mailboxes.
enum Attempt<T> {
    Filled(Vec<JoinHandle<T>>),
    /// There are this many workers, for which more spans must be cloned.
    MoreSpans(usize),
    /// The pool accepts no more jobs. It has this many workers.
    Closed(usize),
}

/// Puts a job into the mailbox of each worker. `job` makes them. It is called under a lock, and so
/// runs no user code.
pub(crate) fn broadcast<C, T>(
    pool: &Arc<PoolInner>,
    refs: &PoolRefs,
    job: impl Fn() -> C,
    origin: Origin,
    span: Option<Span>,
) -> Vec<JoinHandle<T>>
where
    C: JobClosure<T>,
    T: Send + 'static,
{
    let mut spans = Vec::new();
    let (mut tombstones, mut idle_wakers, mut specials) = (Vec::new(), Vec::new(), Vec::new());
    let handles = loop {
        // Before the lock, as asking for the time is a system call.
        let at = Instant::now();
        let attempt = pool.registry().with_members(|members| {
            let len = members.len();
            // Ordering: a pool that closes after this drains the mailboxes, or lets their jobs run.
            // For both it takes the registry's lock.
            if pool.is_closed_hint() {
                return Attempt::Closed(len);
            }
            if spans.len() < len {
                return Attempt::MoreSpans(len);
            }
            if len == 0 {
                return Attempt::Filled(Vec::new());
            }
            // Before the jobs are counted: see `wait_idle.rs`.
            if pool.idle_waiters().is_any() {
                idle_wakers = pool.take_idle_wakers();
            }
            let order = pool.counters().next_order();
            pool.counters().broadcast(len);
            let handles = members
                .values()
                // Not more, as dropping a span runs user code.
                .zip(spans.drain(..len))
                .zip(0..)
                .map(|((mailbox, span), n)| {
                    let order = order.wrapping_add(n);
                    if let Some(semaphore) = pool.semaphore() {
                        semaphore.force_acquire();
                    }
                    let scheduler = MailScheduler {
                        pool: refs.get(),
                        mailbox: Arc::clone(mailbox),
                    };
                    let task = TaskCell::queued(job(), origin, span, order, scheduler);
                    let task = Arc::new(task);
                    let job = Job::new(Arc::clone(&task) as _);
                    if !pool.is_plain(order) {
                        let special = Special::new(pool, &job, &JobOptions::PLAIN, order, at);
                        special.prepare(&job);
                        specials.push(special);
                    }
                    mailbox.push(job, &mut tombstones);
                    JoinHandle::new(task)
                });
            let handles = handles.collect();
            pool.control().change();
            Attempt::Filled(handles)
        });
        match attempt {
            Attempt::Filled(handles) => break handles,
            // Cloning a span runs user code, so it happens outside the lock.
            Attempt::MoreSpans(len) => spans.resize_with(len, || span::clone(&span)),
            Attempt::Closed(workers) => {
                let closed = pool.closed().expect("a closed queue has a reason");
                break refuse_all(pool, refs, workers, &closed, origin);
            }
        }
    };
    if !handles.is_empty() {
        pool.idle().wake(usize::MAX);
        // All of them first: the observer and the wakers are user code, which must not delay a
        // deadline.
        specials.iter().for_each(Special::set_deadline);
        // After the workers: a waker may wait for these jobs.
        wake_all(idle_wakers);
        for special in specials {
            special.tell(pool);
        }
    }
    drop(tombstones);
    drop_catching("the destructor of a job's closure", job);
    for span in spans.into_iter().chain([span]) {
        drop_catching(SUBSCRIBER, span);
    }
    handles
}

fn refuse_all<T: Send + 'static>(
    pool: &PoolInner,
    refs: &PoolRefs,
    workers: usize,
    closed: &Closed,
    origin: Origin,
) -> Vec<JoinHandle<T>> {
    let refuse = |_| {
        pool.counters().rejected();
        let error = JoinError::from(closed.clone());
        let refused = TaskCell::<NoClosure<T>, T, _>::refused(error, origin, refs.get());
        JoinHandle::new(Arc::new(refused))
    };
    (0..workers).map(refuse).collect()
}
