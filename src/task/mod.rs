//! A task: one job, from `submit` to its result.
//!
//! ```text
//!    caller                                        executor
//!   JoinHandle ──► Arc<dyn JoinTask<T>>   Arc<dyn RawTask> ◄── Job
//!                            └───────► TaskCell ◄─────┘
//!                       state (state.rs) · closure, then outcome · callbacks
//!                                         │
//!                                         ▼
//!                            Scheduler: the pool that counts it
//! ```
//!
//! - [`TaskCell`](cell::TaskCell) is the one allocation of a task. It is generic; whatever does not
//!   need the types of closure and result is in [`State`](state::State).
//! - [`Job`](job::Job) is the executor's half: run it, refuse it, or drop it (which cancels it).
//! - [`JoinHandle`](join_handle::JoinHandle) is the caller's half: join it, await it, or drop it
//!   (which detaches the job).
//! - [`Promise`](promise::Promise) resolves a task by hand, without a closure.
//! - [`RawTask`](cell::RawTask) is the task without types; [`JoinTask`](cell::JoinTask) knows the
//!   type of the result. The [`Scheduler`](cell::Scheduler) is the pool's side of it.
//! - [`Context`](context::Context) is what the crate knows of the calling thread.
//!
//! # Lock order
//!
//! A thread that holds a lock may take only locks further down. No user code, waker, destructor of
//! user data or system call runs under any of them. There are three exceptions. The kill and the
//! reaping of a worker process exclude each other by a lock. In a worker process a lock keeps the
//! messages to the pool apart while they are written. And the console reads clocks and the memory
//! of processes under the lock of its sampler, which only threads of consoles take.
//!
//! | lock | in | what it guards |
//! |---|---|---|
//! | sampler, then incidents | `console/sampler.rs` | what the console knows of the pools |
//! | pools, inbox | `console/registry.rs` | the pools of the process; their panics and kills |
//! | scope state | `scope/` | what the end of a scope waits for |
//! | wait graph | `park/wait_graph.rs` | which thread waits for which jobs |
//! | registry | `pool/registry.rs` | the threads of a pool |
//! | mailbox | `pool/control.rs` | the jobs that only one worker may run |
//! | queue turns | `pool/queue.rs` | which priority is next |
//! | queue head | `pool/queue.rs` | the jobs that workers take |
//! | queue tail | `pool/queue.rs` | the jobs that other threads add; whether the queue is closed |
//! | queue lanes, from the first on | `pool/queue.rs` | the jobs that workers add; whether the queue is closed |
//! | queue of high, then of low priority | `pool/queue.rs` | the jobs of that priority; whether the queue is closed |
//! | candidates | `pool/blocked.rs` | queued jobs that workers have polled |
//! | task | `task/cell.rs` | one task |
//! | map's rest | `combine/map/rest.rs` | the items left of a detached map |
//! | map's chunks | `combine/map/chunk.rs` | the chunks of a map that run |
//! | chunk | `combine/map/chunk.rs` | items and results of one chunk |
//! | supervisor, replaced worker | `process/supervisor.rs`, `process/exchange/` | the worker processes of a pool |
//! | leaves | | no other lock is taken under these |
//! | – semaphore | `pool/semaphore.rs` | permits and their waiters |
//! | – sleepers | `pool/idle.rs` | which workers are parked |
//! | – idle waiters | `pool/wait_idle.rs` | what waits for an idle pool |
//! | – blocked workers, probe | `pool/blocked.rs` | which workers wait; the next probe |
//! | – woken futures | `combine/future_set.rs` | which futures of a set were woken; what polls the set |
//! | – timer | `util/timer.rs` | deadlines |
//! | – expiry | `pool/expiry.rs` | deadlines of queued jobs |
//! | – gauges, readings, state | `pool/auto_size/` | what a pool that sizes itself measures and decides |
//! | – control | `process/worker.rs` | whether a cancel or the outcome decides a call |
//! | – life | `process/worker.rs` | a worker process; it is killed and reaped under this lock |
//! | – cancel hooks | `task/promise.rs` | what a cancel of a promise calls |
//! | – value, outbox, items, room | `unblock/` | what an `Unblock` shares with its job |
//! | – job count, packet | `scope/erased.rs` | the jobs of a scope that have not ended; one of them |

pub(crate) mod cancel_handle;
pub(crate) mod cancel_on_drop;
pub(crate) mod cell;
pub(crate) mod context;
pub(crate) mod job;
pub(crate) mod join_handle;
#[cfg(all(test, loom))]
mod model;
pub(crate) mod promise;
pub(crate) mod span;
pub(crate) mod stamp;
pub(crate) mod state;
pub(crate) mod tagged;
