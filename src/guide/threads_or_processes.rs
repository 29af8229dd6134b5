//! When to run work in worker processes instead of threads: what that costs, what cannot cross the
//! border, and how to test and deploy it.
//!
//! A thread cannot be stopped from outside, and a crash in a thread ends the whole program. A
//! worker process can be killed, and its crash harms only the job that it ran. Everything else is
//! the same: one handle that async code awaits and sync code joins.
//!
//! - [When](#when), [a first program](#a-first-program), [costs](#costs), [what cannot cross the
//!   border](#what-cannot-cross-the-border)
//! - [How a job can end](#how-a-job-can-end), [limits](#limits), [jobs that run
//!   again](#jobs-that-run-again)
//! - [The same task in both](#the-same-task-in-both), [tests](#tests), [deployment](#deployment),
//!   [containers and memory](#containers-and-memory), [signals](#signals), [output](#output),
//!   [recycling](#recycling), [workers that use pools](#workers-that-use-pools)
//! - [What is not promised](#what-is-not-promised)
//!
//! # When
//!
//! | the work | runs in |
//! |---|---|
//! | reads files, queries a database, calls a web service | a [`ThreadPool`](crate::ThreadPool): the client has timeouts of its own |
//! | computes, in code that you trust to end | a [`ThreadPool`](crate::ThreadPool) |
//! | has input from strangers: images, documents, archives, regular expressions | a [`ProcessPool`](crate::process::ProcessPool) with a time limit and a memory limit |
//! | calls C code that can crash | a [`ProcessPool`](crate::process::ProcessPool) |
//! | calls a library that leaks, or that keeps state in globals | a [`ProcessPool`](crate::process::ProcessPool) that [recycles](#recycling) its workers |
//! | must end when its client goes away | a [`ProcessPool`](crate::process::ProcessPool), and a handle that [cancels on drop](crate::JoinHandle::cancel_on_drop) |
//! | takes microseconds, millions of times | a [`ThreadPool`](crate::ThreadPool) |
//!
//! Python programs also use processes to compute on several processors. Rust threads do that
//! already.
//!
//! # A first program
//!
//! ```standalone_crate
//! use std::time::Duration;
//!
//! use futurepool::process::{self, ProcessPool};
//! use futurepool::task;
//!
//! /// Returns how many steps the Collatz sequence takes to 1.
//! #[task]
//! fn steps(start: u64) -> u32 {
//!     let mut number = start;
//!     let mut steps = 0;
//!     while number != 1 {
//!         number = if number % 2 == 0 { number / 2 } else { 3 * number + 1 };
//!         steps += 1;
//!     }
//!     steps
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     process::init(); // in a worker process: runs tasks, and never returns
//!
//!     let pool = ProcessPool::builder().time_limit(Duration::from_millis(500)).build()?;
//!     assert_eq!(pool.submit(steps::call(27)).join()?, 111);
//!
//!     // 0 never reaches 1. In a thread, this job would run forever.
//!     let error = pool.submit(steps::call(0)).join().unwrap_err();
//!     assert!(error.is_time_limit());
//!     Ok(())
//! }
//! ```
//!
//! 1. [`#[task]`](macro@crate::task) leaves the function as it is, and adds a type of the same
//!    name. `steps::call(27)` is a [`Call`](crate::Call): the arguments, not yet encoded.
//! 2. [`process::init()`](crate::process::init) is the first line of `main`. A worker process is
//!    the same program, started anew. In a worker, this line runs tasks and never returns.
//! 3. [`submit`](crate::process::ProcessPool::submit) returns the same
//!    [`JoinHandle`](crate::JoinHandle) as a thread pool's `submit`.
//!
//! What stands before `init` runs in each worker, too. Leave it empty, except for what workers
//! need.
//!
//! # Costs
//!
//! | | thread | process |
//! |---|---|---|
//! | a call | some microseconds | some 20 µs more: it encodes the arguments, writes them to a socket and wakes a process, then does the same for the result |
//! | a buffer | moves | is copied into a socket and out of it, at about a gigabyte a second |
//! | memory | a stack | a process, with its own copy of each cache, connection and global |
//! | start | tens of microseconds | a millisecond or more, and the initializer |
//!
//! So give a process jobs that take milliseconds. For many small ones, use
//! [`map`](crate::process::ProcessPool::map) with a [`chunk_size`](crate::Map::chunk_size): it
//! sends that many calls at a time.
//!
//! **Pass bytes as `Vec<u8>` or [`Bytes`](crate::Bytes).** They travel beside the encoded
//! arguments, without being encoded one by one. A parameter or a result written as `Vec<u8>` does
//! that by itself. Inside other types, such as a field of a struct, use [`Bytes`](crate::Bytes).
//!
//! For very large data, pass a path instead, and let the worker read the file.
//!
//! # What cannot cross the border
//!
//! Arguments and results are encoded with [serde](https://serde.rs) as MessagePack, with field
//! names.
//!
//! - **Closures.** A task is a named function. What a closure would capture becomes an argument.
//! - **References, channels, locks, [`Arc`](std::sync::Arc)s that are shared.** A worker has its
//!   own memory. An argument arrives as a copy.
//! - **Open files, sockets, connections.** Pass the path or the address. Let each worker open its
//!   own connection in the [initializer](crate::process::ProcessPoolBuilder::initializer), and keep
//!   it in a `static`.
//! - **Globals.** A `static` that the program has changed is unchanged in the worker.
//! - **`Option<Option<T>>` and `Option<()>` in your own types.** The format cannot tell
//!   `Some(None)` from `None`. Written as a parameter or as the result, they work.
//! - **Values that are nested more than 256 deep**, such as a list of boxes. They are refused,
//!   because each level takes stack.
//! - **Panic payloads.** The error of a panic has its message, as a `String`, and its place in the
//!   worker: [`panic_location`](crate::JoinError::panic_location).
//! - **The async runtime.** A task in a worker runs in no tokio runtime.
//! - **The [`Err`] of a task** crosses as any result does, so its type needs serde. `anyhow::Error`
//!   and [`io::Error`](std::io::Error) do not have it: return a `String`, or an error type of your
//!   own.
//!
//! A value that cannot be encoded or decoded is an error of that job alone:
//! [`is_codec`](crate::JoinError::is_codec).
//!
//! # How a job can end
//!
//! | [`JoinError`](crate::JoinError) | what happened | the worker |
//! |---|---|---|
//! | [`is_panic`](crate::JoinError::is_panic) | the task panicked | lives on |
//! | [`is_crashed`](crate::JoinError::is_crashed) | the worker exited or was killed by a signal; see [`exit_status`](crate::JoinError::exit_status) and [`worker_output`](crate::JoinError::worker_output) | is replaced |
//! | [`is_time_limit`](crate::JoinError::is_time_limit) | the task ran longer than its time limit | was killed, is replaced |
//! | [`is_memory_limit`](crate::JoinError::is_memory_limit) | the worker used more memory than its limit | was killed, is replaced |
//! | [`is_cancelled`](crate::JoinError::is_cancelled) | `cancel`, or a shutdown | was killed if the task ran, is replaced |
//! | [`is_codec`](crate::JoinError::is_codec) | arguments or result could not be encoded or decoded | lives on |
//! | [`is_unknown_task`](crate::JoinError::is_unknown_task) | the worker's program does not have this task | lives on |
//! | [`is_expired`](crate::JoinError::is_expired) | the [deadline](crate::Call::deadline) passed before the task started | – |
//!
//! The [`Display`](std::fmt::Display) of each error names the task. That of a crash also names the
//! process, the signal or the exit code, and the last lines that the worker wrote to standard
//! error.
//!
//! # Limits
//!
//! - [`time_limit`](crate::process::ProcessPoolBuilder::time_limit) counts from the start of the
//!   task. The time in the queue does not count. A call can have [its
//!   own](crate::Call::time_limit), which can only be shorter than the pool's.
//! - [`deadline`](crate::Call::deadline) limits the time in the queue. So does the
//!   [`queue_timeout`](crate::process::ProcessPoolBuilder::queue_timeout) of the pool.
//! - [`memory_limit`](crate::process::ProcessPoolBuilder::memory_limit) is measured while a task
//!   runs: see [containers and memory](#containers-and-memory).
//! - [`cancel`](crate::JoinHandle::cancel) of a running task kills its worker, and returns `true`.
//!   So do [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop), `shutdown_now`, and the timeout
//!   of a map.
//! - With a [`cancel_grace`](crate::process::ProcessPoolBuilder::cancel_grace), the task is asked
//!   first: [`cancel_requested`](crate::cancel_requested) becomes true in the worker. If the task
//!   still runs at the end of the grace, its worker is killed. A time limit has no grace.
//! - A timeout of a *wait*, such as [`join_timeout`](crate::JoinHandle::join_timeout), kills
//!   nothing. The job goes on.
//!
//! Whatever a killed task had open is closed by the system. What it left half done stays half done:
//! write a file under another name, then rename it.
//!
//! # Jobs that run again
//!
//! A job that a worker may have begun is not run again, because it may have had effects already.
//! [`may_have_run`](crate::JoinError::may_have_run) tells whether that is so. A job that no worker
//! has begun goes to another worker.
//!
//! If running a job twice does no harm, its task can say so:
//!
//! ```
//! #[futurepool::task(idempotent)]
//! fn checksum(data: Vec<u8>) -> u32 {
//!     data.iter().fold(0, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
//! }
//! ```
//!
//! A pool with [`retry_on_crash(n)`](crate::process::ProcessPoolBuilder::retry_on_crash) runs such
//! a job again, up to `n` times, if its worker crashes. Without it, no job is run again. A task is
//! never started more than three times in all, or the number in `#[task(idempotent, attempts =
//! 5)]`. A time limit, a memory limit, a cancel or a panic never causes a retry.
//!
//! # The same task in both
//!
//! [`TaskExecutor`](crate::TaskExecutor) is implemented for thread pools and process pools. So a
//! program can choose by configuration, and its tests can run tasks inline:
//!
//! ```
//! use futurepool::{InlineExecutor, JoinError, TaskExecutor, TaskExecutorExt, ThreadPool, task};
//!
//! #[task]
//! fn square(n: u32) -> u32 {
//!     n * n
//! }
//!
//! fn sum_of_squares(executor: &dyn TaskExecutor) -> Result<u32, JoinError> {
//!     executor.map_tasks((1..=3).map(square::call)).into_iter().sum()
//! }
//!
//! assert_eq!(sum_of_squares(&ThreadPool::new(2))?, 14);
//! assert_eq!(sum_of_squares(&InlineExecutor)?, 14);
//! assert_eq!(square(3), 9); // the function is still a function
//! # Ok::<(), JoinError>(())
//! ```
//!
//! In a thread nothing is encoded. A thread pool refuses a call with a time limit
//! ([`is_refused`](crate::JoinError::is_refused)), because it could not keep it.
//!
//! # Tests
//!
//! A test binary has no `main` of its own, so it cannot call `init`. This line makes it able to be
//! its own worker, under `cargo test` and under nextest. Each test binary that builds a process
//! pool needs it once:
//!
//! ```
//! use std::time::Duration;
//!
//! use futurepool::process::ProcessPool;
//!
//! futurepool::process::test_init!();
//!
//! #[futurepool::task]
//! fn endless() {
//!     loop {}
//! }
//!
//! #[test]
//! fn a_loop_is_killed() {
//!     let limit = Duration::from_millis(100);
//!     let pool = ProcessPool::builder().time_limit(limit).build().unwrap();
//!     let error = pool.submit(endless::call()).join().unwrap_err();
//!     assert!(error.is_time_limit());
//! }
//! ```
//!
//! `test_init!` adds one `#[test]`, which does nothing in a usual run. A documentation test needs a
//! written-out `main` that starts with `init()`, and the attribute `standalone_crate`: see the
//! [first program](#a-first-program).
//!
//! A program with neither `init` nor `test_init!` gets an error from `build()`. Otherwise each
//! worker would run the program's `main`, or all its tests, again.
//!
//! # Deployment
//!
//! There is one binary. The pool starts its own executable again, so workers always have the same
//! version. On Linux it starts the file that is running, so replacing the file on disk does no
//! harm.
//!
//! - The list of tasks is made by the linker. Where that does not work, pass the list:
//!   [`init_tasks(tasks![steps])`](crate::process::init_tasks). Generic tasks always need it.
//! - A large program can have a small worker:
//!   [`program(path)`](crate::process::ProcessPoolBuilder::program). Each side must know the task.
//!   A task that the worker lacks is an error of that job at once.
//! - Two versions of one task, with different parameters, are recognised and are an error, too.
//! - [`env`](crate::process::ProcessPoolBuilder::env),
//!   [`env_clear`](crate::process::ProcessPoolBuilder::env_clear),
//!   [`current_dir`](crate::process::ProcessPoolBuilder::current_dir) and
//!   [`nice`](crate::process::ProcessPoolBuilder::nice) apply to the workers. Standard input of a
//!   worker is empty.
//! - A worker that fails to start again and again breaks the pool. All handles tell the cause.
//!
//! Process pools need Unix. Elsewhere `build()` returns an error. Tasks work everywhere, in
//! threads.
//!
//! # Containers and memory
//!
//! [`memory_limit`](crate::process::ProcessPoolBuilder::memory_limit) needs Linux. The pool
//! measures the resident memory of the worker and of its child processes, without shared pages. It
//! kills the worker when the sum is above the limit.
//!
//! - The measurement is repeated every 20 ms, so a fast task can exceed the limit by what it
//!   allocates in that time. Child processes are measured every 200 ms.
//! - Plan `program + workers × (limit + some reserve)` within the limit of the container. Otherwise
//!   the kernel's out-of-memory killer may choose a process first, and that can be your program.
//! - A worker that was killed by the out-of-memory killer is a crash with `SIGKILL`. The error
//!   names that as a likely cause.
//! - [`address_space_limit`](crate::process::ProcessPoolBuilder::address_space_limit) is a hard
//!   limit of the kernel: allocations beyond it fail, which aborts a Rust program. It counts
//!   address space, which allocators and thread stacks reserve in plenty without using it.
//! - Limits on the number of processes (`pids.max`, `ulimit -u`) count workers and their threads.
//!
//! The default number of workers is the number of processors that the container may use.
//!
//! # Signals
//!
//! Each worker has its own process group. That has three effects:
//!
//! - Ctrl-C in a terminal reaches only the program. When the program ends, its workers do.
//! - Child processes of a task are killed together with their worker. (Not if the worker ends by itself in
//!   a program that reaps all of its children.)
//! - Job control of the shell (Ctrl-Z) stops only the program.
//!
//! **No worker outlives its program**, even if the program is killed with `SIGKILL`. A thread in
//! each worker notices at once that the program is gone, and kills the worker's group.
//!
//! So a program needs no signal handler for its workers' sake. For an orderly end, the handler can
//! trigger `shutdown_now`.
//!
//! A program that reaps all children (with `waitpid(-1)`, or with `SIGCHLD` ignored) takes the exit
//! status away from the pool. Jobs still fail as crashed then, with an unknown status.
//!
//! # Output
//!
//! Standard output of a worker is the program's. Standard error is passed on, and its last lines
//! are kept for [`worker_output`](crate::JoinError::worker_output). Both can be dropped, or given
//! to a callback line by line, with the worker and its job:
//! [`stderr`](crate::process::ProcessPoolBuilder::stderr). `println!` in a task disturbs nothing.
//!
//! Events of `tracing` in a task come out in the program, in the span of the `submit`. Their target
//! is `futurepool::worker`. The original target is a field.
//!
//! # Recycling
//!
//! - [`max_jobs_per_worker`](crate::process::ProcessPoolBuilder::max_jobs_per_worker) replaces a
//!   worker after so many jobs.
//! - [`recycle_above`](crate::process::ProcessPoolBuilder::recycle_above) replaces a worker that
//!   has more resident memory after a job. It kills no job.
//! - [`keep_alive`](crate::process::ProcessPoolBuilder::keep_alive) ends idle workers.
//!
//! After so many jobs, the replacement starts while the last of them runs, so the next one does not
//! wait for it. Meanwhile there is one process more than `max_workers`, never several: if many
//! workers are due at once, the others are replaced after their last job.
//!
//! # Workers that use pools
//!
//! A task can build a process pool. Such a nested pool has one worker by default. Pools can be
//! nested ten deep. Beyond that, `build()` returns an error. Nested workers have their own process
//! groups, so the memory limit of the outer pool does not count them. They end when the worker that
//! started them ends.
//!
//! A deadlock between processes is not detected.
//!
//! # What is not promised
//!
//! - **It is no sandbox.** A task has the rights of the program. Limits protect from mistakes and
//!   from bad input, not from hostile code.
//! - **A child that leaves its process group** (`setsid`, a daemon) is not killed with its worker.
//! - **Exactly once** does not exist. A job runs at most once, unless its task is
//!   [idempotent](#jobs-that-run-again).
//! - **What a killed task had begun** is not undone.
