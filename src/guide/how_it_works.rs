//! The way of a job from `submit` to its result, and why nothing is lost on it.
//!
//! ```text
//!                          ThreadPool
//!   pool.submit(f) ──┐   ┌───────────────────────────────────────────────┐
//!                    │   │  queue                        workers         │
//!              makes a   │  ┌──────────┐   ┌──────┐      ┌──────────┐    │
//!               cell ├──►│  │ entrance │──►│ exit │─────►│ run f    │    │
//!                    │   │  └──────────┘   └──────┘  pop ├──────────┤    │
//!                    │   │        │ a job came           │ look     │    │
//!                    │   │        └─────────────────────►├──────────┤    │
//!                    │   │          hire one, or         │ asleep   │    │
//!                    │   │          wake one             └────┬─────┘    │
//!                    │   └────────────────────────────────────┼──────────┘
//!                    │              ┌──────────┐              │
//!                    └── handle ───►│   cell   │◄── job ──────┘ writes the result,
//!        join / .await / cancel     └──────────┘                wakes who waits
//! ```
//!
//! # The cell
//!
//! `submit` makes one allocation, the *cell*: a small mutex, and in it the closure, later the result, and the waker of who
//! waits. Two halves share it: the caller's, a [`JoinHandle`](crate::JoinHandle), and the executor's, a
//! [`Job`](crate::Job). The cell is in one of few states, and only its own file (`task/cell.rs`) moves it from one to the next:
//!
//! ```text
//!   Queued ──► Running ──► Returned or Failed ──► Taken
//!      │                        ▲
//!      └──► Withdrawing ────────┘
//!       cancelled, refused
//! ```
//!
//! - *Queued* holds the closure. `cancel` and a worker that starts the job both take the mutex here, and one of them
//!   comes first: that is all that decides between "it ran" and "it never ran".
//! - *Running*: the closure is out of the cell, in the worker's hands. `cancel` leaves a request here, which
//!   [`cancel_requested`](crate::cancel_requested) reads.
//! - *Withdrawing*: it will never run. The closure is dropped and callbacks run, by whoever cancelled it.
//! - *Returned*, *Failed*: there is an outcome, and nobody took it yet. *Taken*: it is with the caller.
//!
//! Each change is made under the mutex, and what follows from it is done after: dropping the closure, calling callbacks,
//! waking. So none of your code ever runs under a lock of this crate.
//!
//! A handle that is dropped says so in the cell. The job drops its result itself then, and wakes nobody.
//!
//! # The end of a job
//!
//! The order is a promise: the closure is gone; callbacks have run, in the order in which they were added; the pool has
//! counted the job, and its worker counts as idle; the result can be seen; who waits is woken. So whoever has seen a
//! result finds the counts right. (A worker that still runs wakers counts as idle, and is not free yet.)
//!
//! # The queue
//!
//! Two lists, each with a mutex: who submits locks the entrance, who takes locks the exit; an exit that is empty takes all
//! that the entrance has in exchange. Order is kept, and both sides seldom meet. A bounded pool counts places beside it:
//! `submit` waits for one, `try_submit` takes one or refuses, `submit_async` stands in line, first polled first served.
//!
//! A cancelled job is taken out of its cell at once, and leaves an empty one in the queue. When there are more empty ones
//! than jobs they are swept out, so a million cancelled jobs behind a slow one take no memory.
//!
//! # Who sleeps, and who is woken
//!
//! A worker without a job *looks* at the queue for a moment, one worker of a pool at most, and then goes to *bed*: it
//! writes its name on a list and parks. Who submits a job looks at two flags: does somebody look? Then that one will find
//! the job. Does somebody sleep? Then it wakes the one that lay down last, and says in its name that it looks, so that the
//! next hundred submits wake nobody. A worker that found a job wakes the next one if there are more. So workers
//! come awake one after the other, for as long as there is work.
//!
//! The danger in any such protocol is a job that comes just while a worker falls asleep. Both sides write first, and look
//! then: who submits writes the queue, then looks at the flags; who goes to bed writes the flag, then looks at the queue.
//! Between the two there is a fence on each side, so they cannot both miss each other. The argument in full is in
//! `pool/idle.rs`; a model checker goes through all its interleavings in `tests/loom.rs`, and `docs/reliability.md` lists
//! what was broken on purpose to see it fail.
//!
//! How long a worker looks, it learns: up to 60 µs while that pays, hardly ever when it does not. It never spins
//! longer, and an idle pool uses no processor time.
//!
//! # Jobs that wait for jobs
//!
//! A worker that is about to sleep because it waits for a job of its own pool first asks: is that job still queued? Then
//! it takes it out of its cell and runs it here, on its own stack. For waits that take results as they come, it tells
//! the pool what it could run; when all workers wait and no more may start, the pool asks one of them to. No
//! other job is ever run there: locks that your job holds while it waits are met by nobody unexpected.
//!
//! Joins that would wait in a circle are found when the circle closes, by following who runs what and waits for what; one
//! of them gets an error that names them all.
//!
//! # The end of a pool
//!
//! `shutdown` shuts the queue's entrance; nobody can be half-way in then, so "shut and empty" stays true, and each worker that
//! sees it leaves. The last one to leave tells who waits. Dropping the pool is a shutdown and a join.
//!
//! A thread that the system refuses, an initializer that fails, a job's panic: each is an outcome of handles, never a
//! hang. `docs/reliability.md` says how each of these was tried.
