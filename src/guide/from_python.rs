//! Each call of Python's `concurrent.futures`, and what takes its place here.
//!
//! What is called the same means the same, and where a promise of Python's differs, that is said below, with the
//! reason. `tests/python.rs` holds what Python's own tests of the module ask for, under the names they have there.
//!
//! # Submit, and take the result
//!
//! ```python
//! with ThreadPoolExecutor(max_workers=4) as executor:
//!     digest = executor.submit(checksum, data)
//!     print(digest.result())
//! ```
//!
//! ```
//! # fn checksum(data: &[u8]) -> u32 { data.iter().map(|&byte| u32::from(byte)).sum() }
//! # let data = b"spam".to_vec();
//! use futurepool::ThreadPool;
//!
//! let pool = ThreadPool::new(4);
//! let digest = pool.submit(move || checksum(&data));
//! println!("{}", digest.join()?);
//! # Ok::<(), futurepool::JoinError>(())
//! // Here `pool` is dropped: as at the end of `with`, its jobs are waited for.
//! ```
//!
//! - Arguments go in with the closure: `move || f(x, y)`.
//! - [`join`](crate::JoinHandle::join) **takes** the result, so it can be called once: a `T` need not be `Clone`. Async
//!   code awaits the handle instead.
//! - `result(timeout=2)` is [`join_timeout`](crate::JoinHandle::join_timeout). After a timeout the handle is as it was.
//! - An exception in Python is a panic here, or a `Result` that the job returns. A panic comes as a
//!   [`JoinError`](crate::JoinError) that [`is_panic`](crate::JoinError::is_panic); a `Result` is the value itself, so a
//!   fallible job has two of them: `pool.submit(|| read(path)).join()??`.
//! - `future.exception()` is the `Err`; [`into_panic`](crate::JoinError::into_panic) gives what was thrown.
//!
//! # `map`
//!
//! ```python
//! for product in executor.map(mul, xs, ys, timeout=10, chunksize=4, buffersize=100):
//!     print(product)
//! ```
//!
//! ```
//! # use std::time::Duration;
//! # let pool = futurepool::ThreadPool::new(4);
//! let (xs, ys) = (vec![1, 2, 3], vec![4, 5, 6]);
//! let products = pool.map(std::iter::zip(xs, ys), |(x, y)| x * y);
//! for product in products.timeout(Duration::from_secs(10)).chunk_size(4).buffer_size(100) {
//!     println!("{}", product?);
//! }
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! - Several inputs are [zipped](std::iter::zip) into one; three are `zip(xs, zip(ys, zs))` and `|(x, (y, z))|`.
//! - Items are moved into jobs, so they are owned: `words` or `words.iter().cloned()`, and not `words.iter()`. For jobs that
//!   borrow there is [`scope`](crate::ThreadPool::scope).
//! - If `f` returns a `Result`, there are two of them: `item??`.
//! - It is **lazy**, as iterators and streams are in Rust: it begins when it is asked for its first result.
//!   [`start`](crate::Map::start) begins at once, as Python does.
//! - An item that panicked is an `Err` in its place, and the results after it still come. (Python's iterator ends with
//!   the exception.) To stop at the first one: `collect::<Result<Vec<_>, _>>()`, or `?`.
//! - Leaving the loop early, or dropping the map, cancels what has not started.
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
//! # let pool = futurepool::ThreadPool::new(4);
//! # let paths = ["a".to_owned(), "b".to_owned()];
//! # fn load(path: &str) -> std::io::Result<Vec<u8>> { Ok(path.into()) }
//! use futurepool::as_completed;
//!
//! let submit = |path: String| {
//!     let key = path.clone(); // the job takes the path along
//!     pool.submit(move || load(&path)).tag(key)
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
//! - The `collect` starts the jobs, as Python's comprehension does. Iterators are lazy: without it nothing would be submitted
//!   before `as_completed` asks for it.
//! - What comes out are the results, not the futures. [`tag`](crate::JoinHandle::tag) says whose each is, in the place of the
//!   dictionary.
//! - `timeout=5` is [`.timeout(d)`](crate::AsCompleted::timeout). The items are then `Result`s: what is done in time, and
//!   one [`TimeoutError`](crate::TimeoutError) at the end in the place of the exception.
//!   [`into_pending`](crate::TimedAsCompleted::into_pending) gives the rest back.
//! - [`push`](crate::AsCompleted::push) adds one while it runs; Python has no such thing.
//!
//! # `wait`
//!
//! ```python
//! done, not_done = wait(futures, return_when=FIRST_EXCEPTION)
//! ```
//!
//! ```
//! # let pool = futurepool::ThreadPool::new(4);
//! use futurepool::{ReturnWhen, wait};
//!
//! let handles: Vec<_> = (1..=3_u32).map(|n| pool.submit(move || 6 / n)).collect();
//! let waited = wait(handles, ReturnWhen::FirstException).join();
//! for mut handle in waited.done {
//!     println!("{}", handle.try_join().expect("it is done")?);
//! }
//! for handle in waited.not_done {
//!     handle.cancel();
//! }
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! - `done` and `not_done` are lists in the order given, not sets.
//! - A cancelled job is done at once. (In Python it is so only when a worker has come by.)
//! - An exception is a panic. If jobs return a `Result` whose `Err` is to end the wait, too, use
//!   [`wait_results`](crate::wait_results): `wait` does not look into results.
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
//! let pool = ThreadPool::builder().max_workers(4).initializer(open).build()?;
//! let length = pool.submit(|| FILE.with_borrow(|file| file.as_ref().expect("it is open").metadata().map(|m| m.len())));
//! assert!(length.join()?? > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! If it fails the pool is broken, as in Python: the handles of jobs that wait, or come later, say so, and here with the cause. What it has put into thread-locals
//! is dropped when the thread ends; dropping the pool waits for that, awaiting its shutdown does not.
//!
//! # Cancel, callbacks, state
//!
//! | Python | here | |
//! |---|---|---|
//! | `future.cancel()` | [`cancel`](crate::JoinHandle::cancel) | what the closure captured is dropped before it returns |
//! | `future.cancelled()` | [`is_cancelled`](crate::JoinHandle::is_cancelled) | |
//! | `future.running()` | [`is_running`](crate::JoinHandle::is_running) | |
//! | `future.done()` | [`is_finished`](crate::JoinHandle::is_finished) | |
//! | `future.add_done_callback(f)` | [`add_done_callback`](crate::JoinHandle::add_done_callback) | it runs *before* those who wait are woken, so that nobody misses its effect |
//! | forgetting a future | dropping the handle | the job still runs; [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop) cancels it |
//! | – | [`cancel_requested`](crate::cancel_requested) | a job that runs can ask whether it was cancelled, and stop |
//!
//! # The pool
//!
//! | Python | here | |
//! |---|---|---|
//! | `ThreadPoolExecutor()` | [`ThreadPool::default()`](crate::ThreadPool::default) | `min(32, processors + 4)` threads in both |
//! | `thread_name_prefix="hash"` | [`.thread_name_prefix("hash")`](crate::ThreadPoolBuilder::thread_name_prefix) | `hash-0`, not `hash_0` |
//! | `executor.shutdown()` | [`pool.shutdown().join()`](crate::Shutdown::join), or `.await` | |
//! | `executor.shutdown(wait=False)` | [`pool.shutdown()`](crate::ThreadPool::shutdown) | |
//! | `executor.shutdown(cancel_futures=True)` | [`pool.shutdown_now().join()`](crate::ThreadPool::shutdown_now) | it also asks running jobs to stop |
//! | submit after shutdown: `RuntimeError` | the handle [`is_shutdown`](crate::JoinError::is_shutdown) | or [`try_submit`](crate::ThreadPool::try_submit), which gives the closure back |
//! | `BrokenThreadPool` | [`is_broken`](crate::JoinError::is_broken) | |
//! | `Executor` | [`Executor`](crate::Executor) | one method to write, `execute` |
//! | `loop.run_in_executor(executor, f)` | `pool.submit(f).await` | |
//! | `asyncio.to_thread(f)` | [`futurepool::submit(f).await`](crate::submit) | |
//! | leaving the program | | jobs of a pool that lives in `main` are waited for, those of the [process-wide](crate::global) pool are **lost** |
//!
//! # What Python does not have
//!
//! [Bounded queues](crate::ThreadPoolBuilder::queue_capacity), with a `submit` that blocks, one that refuses and one that
//! async code awaits; [`scope`](crate::ThreadPool::scope), whose jobs borrow; jobs that [wait for jobs of their own
//! pool](crate#jobs-that-wait-for-jobs) (a deadlock that Python's documentation warns of);
//! [`metrics`](crate::ThreadPool::metrics); workers that [leave](crate::ThreadPoolBuilder::keep_alive).
//!
//! There are no processes here: threads run Rust code at the same time.
