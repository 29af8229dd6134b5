//! Maps each call of Python's `concurrent.futures` to its counterpart in this crate.
//!
//! Items with the same name have the same meaning. This page states where a promise differs, and
//! why. `cargo test python` runs ports of CPython's own tests of the module under their original
//! names.
//!
//! # Submit and take the result
//!
//! ```python
//! with ThreadPoolExecutor(max_workers=4) as executor:
//!     digest = executor.submit(checksum, data)
//!     print(digest.result())
//! ```
//!
//! ```
//! use futurepool::ThreadPool;
//!
//! fn checksum(data: &[u8]) -> u32 {
//!     data.iter().map(|&byte| u32::from(byte)).sum()
//! }
//!
//! let data = b"spam".to_vec();
//! let pool = ThreadPool::new(4);
//! let digest = pool.submit(move || checksum(&data));
//! println!("{}", digest.join()?);
//! # Ok::<(), futurepool::JoinError>(())
//! // Dropping `pool` here waits for its jobs, like the end of `with`.
//! ```
//!
//! - The closure captures the arguments: `move || f(x, y)`.
//! - [`join`](crate::JoinHandle::join) **takes** the result, so a `T` need not be `Clone`. A second
//!   `join` panics. Async code awaits the handle instead.
//! - `result(timeout=2)` is [`join_timeout`](crate::JoinHandle::join_timeout). A timeout leaves the
//!   handle as it was.
//! - A Python exception corresponds to a panic, or to an `Err` that the job returns:
//!   - A panic becomes a [`JoinError`](crate::JoinError) that
//!     [`is_panic`](crate::JoinError::is_panic).
//!   - A `Result` is the job's value, so a fallible job needs two `?`: `pool.submit(||
//!     read(path)).join()??`. Its error must be `Send`: `Box<dyn Error + Send + Sync>`, not
//!     `Box<dyn Error>`.
//! - `future.exception()` is the `Err` of `join`. [`into_panic`](crate::JoinError::into_panic)
//!   returns the panic payload.
//!
//! # `map`
//!
//! ```python
//! for product in executor.map(mul, xs, ys, timeout=10, chunksize=4, buffersize=100):
//!     print(product)
//! ```
//!
//! ```
//! use std::time::Duration;
//!
//! let pool = futurepool::ThreadPool::new(4);
//! let (xs, ys) = (vec![1, 2, 3], vec![4, 5, 6]);
//! let products = pool.map(std::iter::zip(xs, ys), |(x, y)| x * y);
//! for product in products.timeout(Duration::from_secs(10)).chunk_size(4).buffer_size(100) {
//!     println!("{}", product?);
//! }
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! - Python's `chunksize` is for processes, and is 1 by default. Here the map finds the size by itself:
//!   items that take microseconds share a job, and one that takes longer is a job of its own.
//!   [`chunk_size(1)`](crate::Map::chunk_size) makes each item a job.
//! - Several inputs are [zipped](std::iter::zip) into one. Three inputs are `zip(xs, zip(ys, zs))`
//!   and `|(x, (y, z))|`.
//! - Items move into jobs, so they must be owned: `words` or `words.iter().cloned()`, not
//!   `words.iter()`. For jobs that borrow, use [`scope`](crate::ThreadPool::scope).
//! - If `f` returns a `Result`, each item needs two `?`: `item??`.
//! - `list(executor.map(f, xs))` is [`pool.map(xs, f).join()?`](crate::Map::join), or `.await?` in
//!   async code.
//! - A map is **lazy**, as iterators and streams are in Rust: it submits nothing before the first
//!   result is requested. [`start`](crate::Map::start) begins immediately, as Python does.
//! - `executor.map(f, xs)` without a loop around it is [`pool.map(xs,
//!   f).detach()`](crate::Map::detach): every item is processed, and no result is needed.
//! - A panic in one item is an `Err` in its place, and later items still follow. (Python's iterator
//!   ends with the exception.) To stop at the first error, use `?` or `collect::<Result<Vec<_>,
//!   _>>()`.
//! - Leaving the loop early cancels the items that have not started. A map that was started and never
//!   asked for a result runs to its end. Both are as in Python.
//! - A [`timeout`](crate::Map::timeout) counts from the start of the map. (Python counts from the
//!   call.)
//!
//! # `as_completed`
//!
//! ```python
//! paths_of = {executor.submit(load, path): path for path in paths}
//! for future in as_completed(paths_of):
//!     try:
//!         print(paths_of[future], len(future.result()))
//!     except OSError as error:
//!         print(paths_of[future], error)
//! ```
//!
//! ```
//! use futurepool::{ThreadPool, as_completed};
//!
//! let pool = ThreadPool::new(4);
//! let paths = ["Cargo.toml".to_owned(), "missing".to_owned()];
//! let submit = |path: String| {
//!     let key = path.clone(); // the closure moves `path` into the job
//!     pool.submit(move || std::fs::read(&path)).tag(key)
//! };
//! let handles: Vec<_> = paths.into_iter().map(submit).collect();
//! for (path, outcome) in as_completed(handles) {
//!     match outcome {
//!         Ok(Ok(text)) => println!("{path} {}", text.len()),
//!         Ok(Err(error)) => println!("{path} {error}"),
//!         Err(panic) => println!("{path} {panic}"),
//!     }
//! }
//! ```
//!
//! - `collect` submits the jobs, as Python's comprehension does. Without `collect`, `as_completed`
//!   itself would submit them, because iterators are lazy.
//! - `as_completed` yields results, not futures. [`tag`](crate::JoinHandle::tag) replaces the
//!   dictionary.
//! - `timeout=5` is [`.timeout(d)`](crate::AsCompleted::timeout). The items become `Result`s: the
//!   results that are ready in time, then one [`TimeoutError`](crate::TimeoutError) instead of the
//!   exception. [`into_pending`](crate::TimedAsCompleted::into_pending) returns the remaining
//!   futures.
//! - [`push`](crate::AsCompleted::push) adds a future during the iteration, and
//!   [`cancel_all`](crate::AsCompleted::cancel_all) cancels the rest. Python has no counterpart.
//! - To return at the first success, use [`first_ok`](crate::first_ok()).
//!
//! # `wait`
//!
//! ```python
//! done, not_done = wait(futures, return_when=FIRST_EXCEPTION)
//! ```
//!
//! ```
//! use futurepool::{ReturnWhen, ThreadPool, wait};
//!
//! let pool = ThreadPool::new(4);
//! let handles: Vec<_> = (1..=3_u32).map(|n| pool.submit(move || 6 / n)).collect();
//! let waited = wait(handles, ReturnWhen::FirstException).join();
//! for mut handle in waited.done {
//!     println!("{}", handle.try_join().expect("the job is finished")?);
//! }
//! for handle in waited.not_done {
//!     handle.cancel();
//! }
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! - `done` and `not_done` are lists in the order given, not sets.
//! - `wait` takes the handles and gives them back. `wait(&mut handles, …)` borrows them instead. A
//!   loop passes on `waited.not_done`, as in Python: finished handles would end each wait at once.
//! - A cancelled job is finished immediately. (In Python only once a worker has dequeued it.)
//! - An exception is a panic. [`wait`](crate::wait) does not inspect results. If an `Err` returned
//!   by a job must end the wait too, use [`wait_results`](crate::wait_results).
//!
//! # An initializer
//!
//! ```python
//! local = threading.local()
//!
//! def connect():
//!     local.connection = sqlite3.connect("app.db")
//!
//! executor = ThreadPoolExecutor(4, initializer=connect)
//! ```
//!
//! ```
//! use std::cell::RefCell;
//! use std::fs::File;
//! use std::io;
//!
//! use futurepool::ThreadPool;
//!
//! thread_local! {
//!     static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
//! }
//!
//! fn open() -> io::Result<()> {
//!     FILE.set(Some(File::open("Cargo.toml")?));
//!     Ok(())
//! }
//!
//! fn length() -> io::Result<u64> {
//!     FILE.with_borrow(|file| {
//!         let file = file.as_ref().expect("opened by the initializer");
//!         Ok(file.metadata()?.len())
//!     })
//! }
//!
//! let pool = ThreadPool::builder().max_workers(4).initializer(open).build()?;
//! assert!(pool.submit(length).join()?? > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - If the initializer fails, the pool is broken, as in Python. Queued and later jobs resolve with
//!   an error that [`is_broken`](crate::JoinError::is_broken) and that contains the cause.
//! - Thread-locals set by the initializer are dropped when the thread exits. Dropping the pool
//!   waits for that; awaiting its shutdown does not.
//! - A [`StatefulPool`](crate::StatefulPool) needs no thread-local: each job gets the state of its worker
//!   as `&mut S`. An awaited shutdown has dropped the states.
//! - An initializer must not wait for a job of its own pool. A `join` without a timeout returns an
//!   error that [`is_deadlock`](crate::JoinError::is_deadlock) there.
//!
//! # Cancellation, callbacks, state
//!
//! | Python | futurepool | difference |
//! |---|---|---|
//! | `future.cancel()` | [`cancel`](crate::JoinHandle::cancel) | drops the closure's captures before it returns |
//! | `future.cancelled()` | [`is_cancelled`](crate::JoinHandle::is_cancelled) | |
//! | `future.running()` | [`is_running`](crate::JoinHandle::is_running) | still true while callbacks run |
//! | `future.done()` | [`is_finished`](crate::JoinHandle::is_finished) | |
//! | `future.add_done_callback(f)` | [`add_done_callback`](crate::JoinHandle::add_done_callback) | for a job that ran, runs *before* waiters are woken, so a waiter sees its effects; for a job that never ran, runs after, as in Python |
//! | forgetting a future | dropping the handle | the job still runs; [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop) cancels it |
//! | `Future()`, `set_result(x)`, `set_exception(e)` | [`promise()`](crate::promise()), [`complete(x)`](crate::Promise::complete), [`fail(e)`](crate::Promise::fail) | two values: the promise and its handle |
//! | `set_running_or_notify_cancel()` | [`set_running`](crate::Promise::set_running) | [`on_cancel`](crate::Promise::on_cancel) hears of a cancel while running |
//! | – | [`cancel_requested`](crate::cancel_requested) | tells a running job that it was cancelled; [`current_job`](crate::current_job) tells its threads |
//! | – | [`cancel_handle`](crate::JoinHandle::cancel_handle) | cancels a job whose handle is elsewhere |
//! | `raise future.exception()` | [`resume_panic`](crate::JoinError::resume_panic) | goes on panicking with the job's payload |
//!
//! # The pool
//!
//! | Python | futurepool | difference |
//! |---|---|---|
//! | `ThreadPoolExecutor()` | [`ThreadPool::default()`](crate::ThreadPool::default) | none: `min(32, processors + 4)` threads |
//! | `thread_name_prefix="hash"` | [`.thread_name_prefix("hash")`](crate::ThreadPoolBuilder::thread_name_prefix) | `hash-0`, not `hash_0` |
//! | `executor.shutdown()` | [`pool.shutdown().join()`](crate::Shutdown::join), or `.await` | returns at once in one of the pool's own workers |
//! | `executor.shutdown(wait=False)` | [`pool.shutdown()`](crate::ThreadPool::shutdown) | |
//! | `wait(all_futures)` before the end | [`pool.wait_idle()`](crate::ThreadPool::wait_idle) | waits for detached jobs too; the pool stays open |
//! | `for f in futures: f.cancel()` | [`pool.cancel_queued()`](crate::ThreadPool::cancel_queued) | every queued job of the pool |
//! | `executor.shutdown(cancel_futures=True)` | [`pool.shutdown_now().join()`](crate::ThreadPool::shutdown_now) | also asks running jobs to stop |
//! | submit after shutdown: `RuntimeError` | the handle [`is_shutdown`](crate::JoinError::is_shutdown) | [`try_submit`](crate::ThreadPool::try_submit) returns the closure |
//! | `BrokenThreadPool` | [`is_broken`](crate::JoinError::is_broken) | |
//! | `Executor` | [`Executor`](crate::Executor) | one required method, `execute` |
//! | `loop.run_in_executor(executor, f)` | `pool.submit(f).await` | |
//! | `asyncio.to_thread(f)` | [`futurepool::submit(f).await`](crate::submit) | |
//! | `initializer=f` | [`.initializer(f)`](crate::ThreadPoolBuilder::initializer) | [`.on_exit(g)`](crate::ThreadPoolBuilder::on_exit) is its counterpart at the end of a worker |
//! | end of the program | end of `main` | dropping a pool waits for its jobs; unfinished jobs of the [process-wide](crate::global) pool are **lost** |
//!
//! # What Python does not have
//!
//! - [Bounded queues](crate::ThreadPoolBuilder::queue_capacity), with a `submit` that blocks, one
//!   that returns an error, and one that async code awaits.
//! - [`scope`](crate::ThreadPool::scope), for jobs that borrow.
//! - Jobs that [wait for jobs of their own pool](crate#jobs-that-wait-for-jobs). Python's
//!   documentation warns of a deadlock there.
//! - [Deadlines](crate::JobBuilder::deadline) of queued jobs, and [priorities](crate::Priority).
//! - [`metrics`](crate::ThreadPool::metrics), with [histograms](crate::ThreadPoolBuilder::timings) of queue
//!   wait and run time.
//! - A number of workers that [changes](crate::ThreadPool::set_max_workers) while the pool runs, and idle
//!   workers that [exit](crate::ThreadPoolBuilder::keep_alive).
//!
//! # `ProcessPoolExecutor`
//!
//! Threads run Rust code in parallel, so a pool of processes is not needed for that. It is for jobs that
//! must be [killed](crate::JoinError::is_time_limit), or that may
//! [crash](crate::JoinError::is_crashed). It needs the feature `process`:
//!
//! ```python
//! def thumbnail(image, width): ...
//!
//! if __name__ == '__main__':
//!     with ProcessPoolExecutor(max_workers=4) as executor:
//!         small = executor.submit(thumbnail, image, 200).result()
//! ```
//!
#![cfg_attr(feature = "process", doc = "```standalone_crate")]
#![cfg_attr(not(feature = "process"), doc = "```ignore")]
//! use futurepool::{ProcessPool, process, task};
//!
//! #[task]
//! fn thumbnail(image: Vec<u8>, width: usize) -> Vec<u8> {
//!     image.into_iter().take(width).collect()
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     process::init();
//!     let pool = ProcessPool::builder().max_workers(4).build()?;
//!     let small = pool.submit(thumbnail::call(vec![7; 1_000], 200)).join()?;
//!     assert_eq!(small.len(), 200);
//!     Ok(())
//! }
//! ```
//!
//! | Python, loky, pebble | futurepool | difference |
//! |---|---|---|
//! | a function that can be pickled | a function with `#[task]` | its arguments and result need `serde`; it has a name |
//! | `if __name__ == '__main__'` | `process::init()` first in `main` | without it, `build` returns an error |
//! | `executor.submit(f, x)` | `pool.submit(f::call(x))` | |
//! | `executor.map(f, xs, chunksize=64)` | `pool.map(xs.map(f::call)).chunk_size(64)` | |
//! | `BrokenProcessPool` | [`is_crashed`](crate::JoinError::is_crashed), for the job that crashed | the pool and all other jobs go on |
//! | `future.cancel()` of a running job: `False` | [`cancel`](crate::JoinHandle::cancel) kills it: `true` | pebble's `cancel` does the same, within 3 s |
//! | pebble's `timeout=5` | `f::call(x).time_limit(d)`, or `.time_limit(d)` of the pool | kept to some milliseconds |
//! | pebble's `ProcessExpired.exitcode` | [`exit_status`](crate::JoinError::exit_status), [`worker_output`](crate::JoinError::worker_output) | |
//! | `max_tasks_per_child=100` | `.max_jobs_per_worker(100)` | the replacement starts before the old worker leaves |
//! | loky's memory check between jobs | `.memory_limit(bytes)` while a job runs, `.recycle_above(bytes)` between jobs | |
//! | loky's `timeout=10` of idle workers | `.keep_alive(d)` | |
//! | `initializer=f, initargs=(x,)` | `.initializer(f::call(x))` | |
//! | `executor.terminate_workers()` | `pool.shutdown_now()` | |
//! | `mp_context` | – | workers are always fresh processes of the same program, or of [another one](crate#worker-processes) |
//!
//! If this process ends, its workers end within a moment, also after `SIGKILL`. In Python they stay.
//!
//! # Several machines
//!
//! For `dask.distributed`, Celery and Ray there is the crate `futurepool-cluster`. It runs the same
//! tasks on workers of other machines, with the same handle, and has a page "From Celery, Dask and
//! Ray".
