//! Follows a job from `submit` to its result, for users and for maintainers.
//!
//! ```text
//!                        ┌─────────────────── ThreadPool ───────────────────┐
//!                        │          queue                      workers      │
//!                        │   ┌──────┐    ┌──────┐  dequeue  ┌───────────┐   │
//!   submit(f) ──► job ───┼──►│ tail │───►│ head │──────────►│ runs f    │   │
//!                  │     │   └──┬───┘    └──────┘           ├───────────┤   │
//!                  │     │      │   notifies one worker,    │ searches  │   │
//!                  │     │      └─────────────────────────► ├───────────┤   │
//!                  │     │          or starts a thread      │ parked    │   │
//!                  │     │                                  └─────┬─────┘   │
//!                  │     └────────────────────────────────────────┼─────────┘
//!                  ▼                                              ▼
//!             JoinHandle ◄──────────── wakes ──────────────── outcome
//!        join / .await / cancel
//! ```
//!
//! # The job
//!
//! `submit` makes one heap allocation, the *task*. It contains a small mutex and, under that mutex,
//! the state, the closure, later the outcome, and the waker of the waiter. Two handles share the
//! task:
//!
//! - The caller holds a [`JoinHandle`](crate::JoinHandle).
//! - The executor holds a [`Job`](crate::Job), which it runs, refuses, or drops.
//!
//! A job is *queued*, then *running*, then *finished*. A job that is *cancelled* or *expired* goes
//! from queued to finished without running. `cancel` and the worker that starts the job both lock
//! the mutex, and the first one decides whether the job runs. The thread that lets a job expire
//! does the same.
//!
//! Each transition happens under the mutex and returns what to do next. User code runs after the
//! unlock: dropping the closure, callbacks, wakers. So no user code ever runs while a lock of this
//! crate is held.
//!
//! Dropping a [`JoinHandle`](crate::JoinHandle) records in the task that nothing waits for the
//! result. The worker then drops the result itself and wakes nothing.
//!
//! # Submit: the queue
//!
//! The queue is a FIFO of two lists with one lock each. Submitters lock the tail, workers lock the
//! head. When the head is empty, a worker swaps it with the tail. So the order is kept, and
//! submitters and workers rarely contend.
//!
//! A job that is submitted in a worker goes to that worker's *lane*, a FIFO with a lock of its own.
//! So workers that submit jobs rarely contend either. A worker takes its next job from:
//!
//! 1. its own lane,
//! 2. the head of the queue,
//! 3. the front of another lane. So a busy worker does not hold up the jobs that it has submitted.
//!
//! Of eight jobs that a worker takes, it looks for one at the head first. For another one it looks
//! in a lane that changes each time. So no job waits forever behind later ones. Jobs never move
//! from one FIFO to another. The lanes belong to the queue, and outlive their workers.
//!
//! A bounded pool also has a semaphore with one permit per queued job:
//!
//! - `submit` blocks until it has a permit.
//! - `try_submit` takes a permit or returns an error.
//! - `submit_async` waits for a permit without blocking the thread. Permits are granted in the
//!   order of the first polls.
//! - A job releases its permit when a worker starts it, or when it is cancelled or expires.
//!
//! A cancelled job leaves a *tombstone* in the queue: the task without its closure. When there are
//! more tombstones than jobs, the queue is compacted. So a million cancelled jobs behind a slow one
//! use almost no memory.
//!
//! # Priorities
//!
//! The jobs of [high](crate::Priority::High) priority have a FIFO of their own, and so have those
//! of low priority. The order above is that of normal jobs. High goes first, then normal, then low,
//! unless it is the *turn* of normal or low. Each of the two has a *debt*, which grows with each
//! start of another priority while jobs of its own wait. When the debt reaches a limit, it is its
//! turn. So over any 16 starts by workers, normal gets at least 4 and low at least 1.
//!
//! # Deadlines
//!
//! A queued job with a [deadline](crate::JobBuilder::deadline) is also in a list of the process, in
//! the order of deadlines. A job that starts, or ends in another way, leaves the list.
//!
//! The thread of the process's timer wakes up at the earliest deadline. It runs no user code: an
//! *expiry thread* drops the closure, runs the callbacks and wakes the waiter. If all expiry
//! threads are busy with slow user code, another one is started, up to 32. So slow user code of one
//! job delays no other deadline.
//!
//! # Workers: search, park, notify
//!
//! A worker without a job first *searches*: it spins on the queue for a moment. At most one worker
//! of a pool searches at a time. A worker that finds nothing puts itself on the list of parked
//! workers and parks. The list is LIFO: the worker parked last has warm caches, and the workers
//! parked longest reach their `keep_alive`.
//!
//! A submitter that has queued a job takes three steps:
//!
//! 1. If there are more unfinished jobs than workers, and fewer workers than `max_workers`, it
//!    starts a thread.
//! 2. If no worker searches and one is parked, it notifies the worker parked last. That worker
//!    counts as searching from then on, so the next hundred submits wake no other worker.
//! 3. If every worker is blocked in a wait, it wakes one, which checks whether it must help.
//!
//! A worker that finds a job while searching stops searching. If there are more jobs, it notifies
//! the next worker. Workers wake up one after the other for as long as there is work.
//!
//! No wake-up is lost, because each side writes before it reads, with a sequentially consistent
//! fence between:
//!
//! - A submitter writes the queue, then reads whether a worker searches or is parked.
//! - A worker that parks or stops searching writes that, then reads the queue.
//!
//! Of two such threads at least one sees the other's write. The loom models check these
//! interleavings; see `docs/reliability.md`.
//!
//! A worker adapts how often and how long it spins: up to 60 µs while spinning finds jobs, rarely
//! when it does not. An idle pool uses no CPU time.
//!
//! # Resizes, broadcasts, states
//!
//! [`set_max_workers`](crate::ThreadPool::set_max_workers) and
//! [`broadcast`](crate::ThreadPool::broadcast) address workers instead of the queue. Each of them
//! changes a *version*. A worker compares it with the version that it has seen last, after each job
//! and before it parks. Then a surplus worker exits. A worker that has broadcast jobs in its
//! *mailbox* runs them before it looks at the queue.
//!
//! A pool with [`auto_size`](crate::ThreadPoolBuilder::auto_size) calls the same resize itself.
//! While it has jobs, the timer reads their CPU time and wall time twice a second.
//!
//! A worker of a [`StatefulPool`](crate::StatefulPool) makes its state on its own thread, before
//! its first job, and lends it to each job. The state never leaves that thread, so it need not be
//! `Send`.
//!
//! # Run, outcome, waiter
//!
//! A job that ran ends in this order:
//!
//! 1. The closure is dropped.
//! 2. Callbacks run, in the order in which they were added.
//! 3. A result without a handle is dropped.
//! 4. The pool counts the job, and its worker counts as idle.
//! 5. The outcome is visible: the job is finished.
//! 6. The waiter is woken.
//!
//! A flag in the task, outside its mutex, says that the outcome is visible. It is set after the
//! unlock. Waiters that spin read it, so they do not contend for the mutex with the worker that
//! ends the job:
//!
//! - `join` spins before it parks, for up to 60 µs while that succeeds.
//! - A poll of a handle spins for less than a microsecond before it registers a waker, under the
//!   conditions that [`JoinHandle`](crate::JoinHandle#what-a-poll-costs) names. A result that comes
//!   meanwhile saves the executor a sleep and a wake-up, which take ten times as long.
//!
//! The waiter is either a parked thread (`join`, [`block_on`](crate::block_on)) or the waker of an
//! async task. A thread that sees the result also sees the counters of step 4. While a worker still
//! calls a waker from outside this crate, the pool does not count on that worker for new jobs.
//!
//! # Cancel, in phases
//!
//! 1. The job can no longer be started.
//! 2. Its closure is dropped, its permit is released, and the pool counts it.
//! 3. It is visible as cancelled, and its waiter is woken.
//! 4. Its callbacks run.
//! 5. `cancel` returns `true`.
//!
//! Between phases 1 and 3 the job is neither running nor finished nor cancelled. Every other way of
//! not running has the same phases: an expiry, a refusal, a shutdown, a broken pool, a failed
//! thread spawn.
//!
//! `cancel` of a running job returns `false` and sets a request, which the job reads with
//! [`cancel_requested`](crate::cancel_requested).
//!
//! # Helping: jobs that wait for jobs
//!
//! A worker that waits for **one** job of its own pool, or for **all** of a set, first looks for
//! one that is still queued. If there is one, the worker runs it inline, on its own stack.
//!
//! A worker that waits for **any** of several jobs just blocks, because another worker may run
//! them. It runs one of them only when every worker is blocked and no thread can be started. For
//! that case the pool remembers which queued jobs its workers have polled. The last worker to block
//! *probes*:
//!
//! 1. It wakes the future that waits for the oldest of those jobs.
//! 2. If the future is in a blocked worker, that worker polls it, meets the job, and runs it.
//! 3. If nothing answers within 10 ms, the two oldest jobs are probed, then four, and so on.
//!
//! To a task outside of the pool a probe is a spurious wake-up. A wait with a timeout runs no job.
//!
//! A blocked worker never runs an unrelated job. Such a job could try to take a lock that the
//! waiting job holds.
//!
//! # Deadlock detection
//!
//! The process keeps a wait-for graph. A blocked thread has an edge to each job that it waits for.
//! A running job has an edge to its thread. A `join` or the end of a `scope` adds its edges before
//! it blocks. If they close a cycle, one `join` in the cycle returns an error that
//! [`is_deadlock`](crate::JoinError::is_deadlock) and that names the jobs.
//!
//! A queued job has an edge to every worker of its pool, and needs only one of them. So several
//! pools can block each other without a cycle of running jobs: all their workers wait for jobs that
//! are queued in another pool. The last worker that blocks finds the set of threads that can never
//! go on. A worker that is not known to be blocked, or that may still be started, is enough to rule
//! that out. One `join` in the set gets the same error. If there is none, the end of a scope
//! cancels the queued jobs that it waits for, and panics.
//!
//! Cycles through other waits are not detected: channels, mutexes, waits for any of several. An
//! [`initializer`](crate::ThreadPoolBuilder::initializer) must not wait for a job of its own pool;
//! an untimed `join` there returns the same error.
//!
//! # Shutdown
//!
//! `shutdown` closes the tail of the queue under its lock. Afterwards a queue that is empty stays
//! empty, and each worker that finds it so exits. The last worker to leave its loop wakes the
//! waiters of the shutdown. Dropping a pool is a shutdown and a join.
//!
//! In one of the pool's own workers, waiting for the shutdown returns at once, because that worker
//! can only exit after its current job.
//!
//! # Failures
//!
//! While a worker is alive, a failed thread spawn is retried every 100 ms, by the timer thread that
//! serves all timeouts of the process. If that thread cannot be had either, workers, submitters and
//! blocked threads retry.
//!
//! A spawn failure without a worker, a failed initializer and a panic in a job all end as outcomes
//! of handles. `docs/reliability.md` describes how each of them is tested.
