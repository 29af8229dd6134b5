//! Answers to questions that users ask, each with code to copy.
//!
//! | | |
//! |---|---|
//! | many jobs | [collect errors](#collect-errors-without-stopping), [stop at the first error](#stop-at-the-first-error), [first that succeeds](#take-the-first-that-succeeds), [progress](#show-progress), [borrowed data](#run-jobs-that-borrow), [endless input](#process-endless-input-in-little-memory), [jobs that submit jobs](#submit-jobs-from-the-results-of-jobs), [jobs that wait for jobs](#wait-for-jobs-in-a-job) |
//! | limits | [by key](#limit-concurrency-by-key), [rate](#limit-the-rate), [retry](#retry-with-back-off), [single flight](#compute-each-key-once), [batches](#write-in-batches), [pipeline](#connect-pools-to-a-pipeline) |
//! | time | [deadlines](#drop-work-that-is-too-late), [priorities](#let-urgent-work-go-first), [timeouts](#limit-a-wait), [blocking calls](#limit-a-blocking-call), [a client that disconnects](#cancel-when-the-client-disconnects), [periodic jobs](#run-a-job-periodically), [Ctrl-C](#shut-down-on-ctrl-c-within-a-limit), [kill a running job](#kill-a-running-job) |
//! | kinds of work | [state that each worker owns](#give-each-worker-a-connection), [DNS](#resolve-host-names), [files](#read-a-file-line-by-line-in-async-code), [hashes](#hash-many-files), [programs](#run-a-program-and-kill-it-after-a-timeout), [callback APIs](#await-a-callback) |
//! | in a program | [server state](#share-a-pool-in-the-state-of-a-server), [async code in a job](#run-async-code-in-a-job), [no runtime](#use-a-pool-without-a-runtime), [failures of detached jobs](#log-the-failures-of-detached-jobs), [slow jobs](#log-slow-jobs), [all workers](#run-something-on-each-worker), [metrics](#export-metrics-to-prometheus), [tests](#test-without-threads) |
//!
//! # Collect errors without stopping
//!
//! A map continues after an item that failed. The results contain its `Err` or its panic, at the
//! position of its input.
//!
//! ```
//! let pool = futurepool::ThreadPool::new(4);
//! let inputs = ["1", "two", "3"];
//!
//! let (mut numbers, mut failures) = (Vec::new(), Vec::new());
//! for (input, outcome) in inputs.iter().zip(pool.map(inputs, |text| text.parse::<u32>())) {
//!     match outcome {
//!         Ok(Ok(number)) => numbers.push(number),
//!         Ok(Err(error)) => failures.push(format!("{input}: {error}")),
//!         Err(panic) => failures.push(format!("{input}: {panic}")),
//!     }
//! }
//! assert_eq!(numbers, [1, 3]);
//! assert_eq!(failures, ["two: invalid digit found in string"]);
//! ```
//!
//! # Stop at the first error
//!
//! Leave the loop, for example with `?`. That drops the map, which cancels everything that has not
//! started.
//!
//! ```
//! use futurepool::ThreadPool;
//!
//! type Failure = Box<dyn std::error::Error + Send + Sync>;
//!
//! fn total(pool: &ThreadPool, inputs: Vec<&'static str>) -> Result<u32, Failure> {
//!     let mut total = 0;
//!     for number in pool.map(inputs, |text| text.parse::<u32>()) {
//!         total += number??; // one `?` for a panic, one for the function's error
//!     }
//!     Ok(total)
//! }
//!
//! let pool = ThreadPool::new(4);
//! assert_eq!(total(&pool, vec!["1", "2", "3"]).unwrap(), 6);
//! assert!(total(&pool, vec!["1", "two", "3"]).is_err());
//! ```
//!
//! # Take the first that succeeds
//!
//! [`first_ok_results`](crate::first_ok_results()) returns the first `Ok` and cancels the other
//! jobs. Running jobs are only asked to stop, so a long job checks
//! [`cancel_requested`](crate::cancel_requested).
//!
//! ```
//! use futurepool::{ThreadPool, first_ok_results};
//!
//! fn fetch(mirror: &str) -> Result<String, String> {
//!     match mirror {
//!         "mirror-2" => Ok(format!("index of {mirror}")),
//!         _ => Err(format!("{mirror} is down")),
//!     }
//! }
//!
//! let pool = ThreadPool::new(3);
//! let answers = ["mirror-1", "mirror-2"].map(|mirror| pool.submit(move || fetch(mirror)));
//! assert_eq!(first_ok_results(answers).join()?, Ok("index of mirror-2".to_owned()));
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! # Show progress
//!
//! [`as_completed`](crate::as_completed()) yields a result as soon as there is one, and knows how
//! many there are. The [front page](crate#many-jobs) shows the same with a progress bar of
//! `indicatif`.
//!
//! ```
//! use futurepool::{ThreadPool, as_completed};
//!
//! let pool = ThreadPool::new(4);
//! let handles: Vec<_> = (1..=20_u64).map(|n| pool.submit(move || n * n)).collect();
//!
//! let (total, mut sum) = (handles.len(), 0);
//! for (done, square) in (1..).zip(as_completed(handles)) {
//!     sum += square?;
//!     eprint!("\r{done} of {total}");
//! }
//! assert_eq!(sum, 2_870);
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! # Run jobs that borrow
//!
//! Jobs of a [`scope`](crate::ThreadPool::scope) can borrow from its caller, which waits until all
//! of them have ended. A scope blocks its thread: async code enters it in a job.
//!
//! ```
//! let pool = futurepool::ThreadPool::new(4);
//! let words = ["spam", "eggs", "ham"].map(String::from);
//! let mut lengths = [0; 3];
//!
//! pool.scope(|scope| {
//!     for (word, length) in words.iter().zip(&mut lengths) {
//!         scope.submit(move || *length = word.len());
//!     }
//! });
//! assert_eq!(lengths, [4, 4, 3]);
//! ```
//!
//! # Process endless input in little memory
//!
//! With a [`buffer_size`](crate::Map::buffer_size), a map takes inputs only as its results are
//! consumed. So the input can be a file of any size, a socket, or endless.
//!
//! ```
//! let pool = futurepool::ThreadPool::new(4);
//! let is_prime = |&n: &u64| n > 1 && (2..n).all(|divisor| n % divisor != 0);
//!
//! let checked = pool.map(0.., move |n| is_prime(&n).then_some(n)).buffer_size(64);
//! let primes = checked.into_iter().filter_map(Result::unwrap).take(5);
//! assert_eq!(primes.collect::<Vec<_>>(), [2, 3, 5, 7, 11]);
//! ```
//!
//! # Submit jobs from the results of jobs
//!
//! A crawler finds new work in each result. [`push`](crate::AsCompleted::push) adds a job to the
//! ones being waited for, and the loop ends with the last of them.
//!
//! ```
//! use std::fs;
//! use std::io;
//! use std::path::{Path, PathBuf};
//!
//! use futurepool::{AsCompleted, ThreadPool};
//!
//! /// Returns the files and the directories in a directory.
//! fn list(directory: PathBuf) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
//!     let entries = fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
//!     let paths: Vec<_> = entries.collect::<io::Result<_>>()?;
//!     Ok(paths.into_iter().partition(|path| !path.is_dir()))
//! }
//!
//! let pool = ThreadPool::new(8);
//! let mut listed = AsCompleted::new();
//! let mut found = Vec::new();
//! listed.push(pool.submit(|| list("src".into())));
//! while let Some(result) = listed.wait_next() {
//!     let (files, directories) = result??;
//!     found.extend(files);
//!     for directory in directories {
//!         listed.push(pool.submit(|| list(directory)));
//!     }
//! }
//! assert!(found.iter().any(|path| path == Path::new("src/lib.rs")));
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```
//!
//! # Wait for jobs in a job
//!
//! A job can submit jobs to its own pool and join them, at any depth, even with one worker. The
//! blocked worker [runs what it waits for](crate#jobs-that-wait-for-jobs).
//!
//! ```
//! use std::sync::Arc;
//!
//! use futurepool::{JoinError, ThreadPool};
//!
//! fn fibonacci(pool: &Arc<ThreadPool>, n: u32) -> Result<u64, JoinError> {
//!     if n < 10 {
//!         return Ok((0..n).fold((0, 1), |(a, b), _| (b, a + b)).0); // too small for a job
//!     }
//!     let workers = Arc::clone(pool);
//!     let first = pool.submit(move || fibonacci(&workers, n - 1));
//!     Ok(fibonacci(pool, n - 2)? + first.join()??)
//! }
//!
//! assert_eq!(fibonacci(&Arc::new(ThreadPool::new(1)), 15)?, 610);
//! # Ok::<(), JoinError>(())
//! ```
//!
//! # Limit concurrency by key
//!
//! Acquire a permit of the key **before** the submit, so that no worker waits for it, and move the
//! permit into the job. It is released when the job ends or is cancelled; with one permit, the jobs
//! of a key run one after the other.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex};
//!
//! use futurepool::ThreadPool;
//! use tokio::sync::Semaphore; // works in every runtime
//!
//! /// At most two jobs of each host run or are queued.
//! #[derive(Default)]
//! struct Hosts(Mutex<HashMap<&'static str, Arc<Semaphore>>>);
//!
//! impl Hosts {
//!     fn permits(&self, host: &'static str) -> Arc<Semaphore> {
//!         let mut hosts = self.0.lock().unwrap();
//!         Arc::clone(hosts.entry(host).or_insert_with(|| Arc::new(Semaphore::new(2))))
//!     }
//! }
//!
//! let (pool, hosts) = (ThreadPool::new(8), Hosts::default());
//! # let running = Arc::new(Mutex::new((0, 0)));
//! let fetch = async |host| {
//!     let permit = hosts.permits(host).acquire_owned().await.unwrap();
//! #   let running = Arc::clone(&running);
//!     pool.submit(move || {
//!         let _permit = permit;
//! #       let mut now = running.lock().unwrap();
//! #       now.0 += 1;
//! #       now.1 = now.0.max(now.1);
//! #       drop(now);
//! #       std::thread::sleep(std::time::Duration::from_millis(1));
//! #       running.lock().unwrap().0 -= 1;
//!         host.len() // here: fetch something from the host
//!     })
//!     .await
//! };
//! let lengths = futures::future::try_join_all((0..6).map(|_| fetch("example.org"))).await?;
//! assert_eq!(lengths, [11; 6]);
//! # assert_eq!(running.lock().unwrap().1, 2);
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
//!
//! In sync code, give each key a map of its own: its `buffer_size` limits its jobs.
//!
//! # Limit the rate
//!
//! Wait for the next tick before each submit. For a rate with bursts, take a token bucket such as
//! the crate `governor`.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::time::{Duration, Instant};
//!
//! use futurepool::ThreadPool;
//! use tokio::time::{MissedTickBehavior, interval};
//!
//! let pool = ThreadPool::new(4);
//! let begin = Instant::now();
//! let mut ticks = interval(Duration::from_millis(2)); // 500 jobs a second
//! ticks.set_missed_tick_behavior(MissedTickBehavior::Delay); // no burst after a pause
//! let mut handles = Vec::new();
//! for n in 0..3 {
//!     ticks.tick().await;
//!     handles.push(pool.submit(move || n));
//! }
//! assert!(begin.elapsed() >= Duration::from_millis(4)); // the first tick is immediate
//! # for handle in handles { handle.await?; }
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
//!
//! # Retry with back-off
//!
//! Wait between attempts outside of the job: a job that sleeps keeps a worker. Retry only errors
//! that can pass, a limited number of times, and add a random part to the delay if many clients
//! retry.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::error::Error;
//! use std::io::{self, ErrorKind};
//! use std::time::Duration;
//!
//! use futurepool::ThreadPool;
//! use tokio::time::sleep;
//!
//! async fn retried<F, T>(pool: &ThreadPool, job: F) -> Result<T, Box<dyn Error + Send + Sync>>
//! where
//!     F: FnOnce() -> io::Result<T> + Clone + Send + 'static,
//!     T: Send + 'static,
//! {
//!     let mut delay = Duration::from_millis(1); // 100 in a real program
//!     for _ in 0..3 {
//!         match pool.submit(job.clone()).await? {
//!             Err(error) if error.kind() == ErrorKind::ConnectionRefused => sleep(delay).await,
//!             result => return Ok(result?),
//!         }
//!         delay *= 2;
//!     }
//!     Ok(pool.submit(job).await??)
//! }
//!
//! # use std::sync::Arc;
//! # use std::sync::atomic::{AtomicU32, Ordering};
//! # let attempts = Arc::new(AtomicU32::new(0));
//! let pool = ThreadPool::new(2);
//! let attempt = retried(&pool, move || match attempts.fetch_add(1, Ordering::Relaxed) {
//!     0 | 1 => Err(io::Error::from(ErrorKind::ConnectionRefused)),
//!     attempt => Ok(attempt),
//! });
//! assert_eq!(attempt.await?, 2);
//! # Ok::<(), Box<dyn Error + Send + Sync>>(())
//! # }).unwrap();
//! ```
//!
//! # Compute each key once
//!
//! Callers that ask for the same key share one job, and later callers get its result at once.
//! Remove the entry if the job failed; a cache with limits is the crate `moka`.
//!
//! ```
//! # futurepool::block_on(async {
//! use std::collections::HashMap;
//! use std::sync::Mutex;
//!
//! use futurepool::ThreadPool;
//! use futures::FutureExt;
//! use futures::future::{BoxFuture, Shared};
//!
//! type Answer = Shared<BoxFuture<'static, Result<usize, String>>>;
//!
//! struct Reports {
//!     pool: ThreadPool, // unbounded, so `submit` does not block
//!     answers: Mutex<HashMap<&'static str, Answer>>,
//! }
//!
//! impl Reports {
//!     fn get(&self, key: &'static str) -> Answer {
//!         let mut answers = self.answers.lock().unwrap();
//!         let new = || {
//!             let job = self.pool.submit(move || key.len()); // here: something slow
//!             job.map(|result| result.map_err(|error| error.to_string())).boxed().shared()
//!         };
//!         answers.entry(key).or_insert_with(new).clone()
//!     }
//! }
//!
//! let reports = Reports { pool: ThreadPool::new(2), answers: Mutex::default() };
//! let (first, second) = futures::join!(reports.get("sales"), reports.get("sales"));
//! assert_eq!((first, second), (Ok(5), Ok(5)));
//! assert_eq!(reports.pool.metrics().submitted, 1);
//! # });
//! ```
//!
//! # Write in batches
//!
//! A pool of one worker writes. The first row of a batch submits the job that writes the whole
//! batch, so batches grow with the load, and no timer is needed.
//!
//! ```
//! use std::mem;
//! use std::sync::{Arc, Mutex};
//!
//! use futurepool::ThreadPool;
//!
//! struct BatchWriter {
//!     rows: Arc<Mutex<Vec<u32>>>,
//!     pool: ThreadPool,
//! }
//!
//! impl BatchWriter {
//!     fn push(&self, row: u32) {
//!         let mut rows = self.rows.lock().unwrap();
//!         rows.push(row);
//!         if rows.len() == 1 {
//!             let rows = Arc::clone(&self.rows);
//!             let write = move || {
//!                 let batch = mem::take(&mut *rows.lock().unwrap());
//!                 write(&batch);
//!             };
//!             drop(self.pool.submit(write));
//!         }
//!     }
//! }
//!
//! /// Writes the batch in one transaction.
//! fn write(batch: &[u32]) {
//! #   static BATCHES: Mutex<Vec<usize>> = Mutex::new(Vec::new());
//! #   BATCHES.lock().unwrap().push(batch.len());
//! #   assert_eq!(*BATCHES.lock().unwrap(), [100]);
//!     println!("{} rows", batch.len());
//! }
//!
//! let writer = BatchWriter { rows: Arc::default(), pool: ThreadPool::new(1) };
//! # let (release, wait) = std::sync::mpsc::channel::<()>();
//! # drop(writer.pool.submit(move || wait.recv()));
//! for row in 0..100 {
//!     writer.push(row);
//! }
//! # drop(release);
//! # writer.pool.wait_idle().join();
//! # assert_eq!((writer.pool.metrics().submitted, writer.pool.metrics().panicked), (2, 0));
//! drop(writer); // waits until everything is written
//! ```
//!
//! # Connect pools to a pipeline
//!
//! Give each stage a pool with its own limit, and connect them with buffered streams. A slow stage
//! then holds up the earlier ones instead of filling the memory.
//!
//! ```
//! # futurepool::block_on(async {
//! use futurepool::ThreadPool;
//! use futures::{StreamExt, TryStreamExt};
//!
//! let disk = ThreadPool::new(8);
//! let processors = ThreadPool::new(2);
//!
//! let paths = ["Cargo.toml", "src/lib.rs"];
//! let sizes: Vec<usize> = disk
//!     .map(paths, std::fs::read_to_string)
//!     .buffer_size(8)
//!     .map(|text| {
//!         processors.submit(move || {
//!             let text = text.map_err(std::io::Error::from)??;
//!             Ok::<_, std::io::Error>(text.split_whitespace().count())
//!         })
//!     })
//!     .buffered(4)
//!     .map(|words| words.map_err(std::io::Error::from)?)
//!     .try_collect()
//!     .await?;
//! assert!(sizes.iter().all(|&words| words > 100));
//! # Ok::<(), std::io::Error>(())
//! # }).unwrap();
//! ```
//!
//! In sync code, a map is the input of the next map: `processors.map(disk.map(paths,
//! read).buffer_size(8), count).buffer_size(4)`.
//!
//! # Limit a wait
//!
//! [`join_timeout`](crate::JoinHandle::join_timeout) and the `timeout` of any runtime limit the
//! wait, not the job. With [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop), a queued job is
//! cancelled and a running one is asked to stop.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::time::Duration;
//!
//! use futurepool::ThreadPool;
//! use tokio::time::timeout;
//!
//! let pool = ThreadPool::new(2);
//! let search = pool.submit(|| {
//!     let mut steps = 0_u64;
//!     while !futurepool::cancel_requested() {
//!         steps += 1;
//!     }
//!     steps
//! });
//! assert!(timeout(Duration::from_millis(1), search.cancel_on_drop()).await.is_err());
//!
//! pool.wait_idle().await; // the job has stopped
//! assert_eq!(pool.metrics().completed + pool.metrics().cancelled, 1);
//! # });
//! ```
//!
//! # Drop work that is too late
//!
//! A job with a deadline that has not started by then resolves at that moment, with an error that
//! [`is_expired`](crate::JoinError::is_expired).
//! [`queue_timeout`](crate::ThreadPoolBuilder::queue_timeout) does the same for all jobs of a pool.
//!
//! ```
//! use std::sync::mpsc;
//! use std::time::Duration;
//!
//! use futurepool::ThreadPool;
//!
//! let pool = ThreadPool::builder().max_workers(1).queue_timeout(Duration::from_secs(2)).build()?;
//! let (release, wait) = mpsc::channel::<()>();
//! let other = pool.submit(move || wait.recv()); // keeps the worker
//!
//! let quote = pool.job(|| "a quote").expires_in(Duration::from_millis(2)).submit();
//! match quote.join() {
//!     Ok(quote) => panic!("{quote}"),
//!     Err(error) if error.is_expired() => {} // answer 503: it was not begun
//!     Err(error) => return Err(error.into()),
//! }
//! drop(release);
//! # other.join()?.unwrap_err();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Let urgent work go first
//!
//! Give the job a priority. The others cannot starve: of any 16 jobs that workers start, at least 4
//! are normal and at least 1 is low, if such jobs wait.
//!
//! ```
//! use futurepool::{JoinError, Priority, ThreadPool};
//!
//! let pool = ThreadPool::new(2);
//! let nightly = pool.job(|| "report").label("report").priority(Priority::Low).submit();
//! let page = pool.job(|| "page").label("page").priority(Priority::High).submit();
//! assert_eq!((page.join()?, nightly.join()?), ("page", "report"));
//! # Ok::<(), JoinError>(())
//! ```
//!
//! # Limit a blocking call
//!
//! No timeout outside of the call frees its worker. So set the limits of the call itself: of the
//! socket, of the HTTP client, of the database.
//!
//! ```
//! use std::io::{self, Read};
//! use std::net::{SocketAddr, TcpListener, TcpStream};
//! use std::time::Duration;
//!
//! fn greeting(server: SocketAddr) -> io::Result<String> {
//!     let limit = Duration::from_millis(5); // some seconds in a real program
//!     let mut connection = TcpStream::connect_timeout(&server, 100 * limit)?;
//!     connection.set_read_timeout(Some(limit))?;
//!     connection.set_write_timeout(Some(limit))?;
//!     let mut text = [0; 5];
//!     connection.read_exact(&mut text)?;
//!     Ok(String::from_utf8_lossy(&text).into_owned())
//! }
//!
//! let silent = TcpListener::bind("127.0.0.1:0")?; // accepts connections, and sends nothing
//! let server = silent.local_addr()?;
//! let pool = futurepool::ThreadPool::new(1);
//! assert!(pool.submit(move || greeting(server)).join()?.is_err());
//! # Ok::<(), io::Error>(())
//! ```
//!
//! # Cancel when the client disconnects
//!
//! Servers such as hyper drop the handler when its client disconnects, and the handler drops the
//! handle. With [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop) the job then never starts,
//! and what it captured is dropped at once.
//!
//! ```
//! use std::sync::mpsc;
//!
//! use futurepool::ThreadPool;
//!
//! let pool = ThreadPool::new(1);
//! let (release, wait) = mpsc::channel::<()>();
//! let other = pool.submit(move || wait.recv()); // keeps the worker
//!
//! let handler = async { pool.submit(|| "a report").cancel_on_drop().await };
//! # use futures::FutureExt;
//! # let mut handler = Box::pin(handler);
//! # assert!((&mut handler).now_or_never().is_none());
//! drop(handler); // after its first poll: what hyper does
//! assert_eq!(pool.metrics().cancelled, 1);
//!
//! drop(release);
//! # other.join()?.unwrap_err();
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! # Run a job periodically
//!
//! Await each run before the next tick, so that two runs never overlap.
//! [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop) ends the work together with its task.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::time::Duration;
//!
//! use futurepool::ThreadPool;
//! use tokio::time::{MissedTickBehavior, interval};
//!
//! let pool = ThreadPool::new(1);
//! let mut ticks = interval(Duration::from_millis(1));
//! ticks.set_missed_tick_behavior(MissedTickBehavior::Skip); // after a slow run: the next due time
//! for _ in 0..3 {
//!     ticks.tick().await;
//!     if let Err(panic) = pool.submit(|| { /* clean up */ }).cancel_on_drop().await {
//!         eprintln!("{panic}"); // the next run may succeed
//!     }
//! }
//! assert_eq!(pool.metrics().completed, 3);
//! # });
//! ```
//!
//! # Shut down on Ctrl-C within a limit
//!
//! Let queued jobs run for a while, then cancel them and ask running ones to stop. A job that still
//! does not end must not keep the program: a last `join_timeout` lets the pool go.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::time::Duration;
//!
//! use futurepool::ThreadPool;
//! use tokio::time::timeout;
//!
//! async fn run(pool: ThreadPool, ctrl_c: impl Future) {
//!     ctrl_c.await; // `tokio::signal::ctrl_c()`
//!     if timeout(Duration::from_secs(10), pool.shutdown()).await.is_err() {
//!         let _ = timeout(Duration::from_secs(2), pool.shutdown_now()).await;
//!     }
//!     if let Err(unfinished) = pool.shutdown().join_timeout(Duration::ZERO) {
//!         eprintln!("{unfinished}"); // dropping the pool does not wait for these workers
//!     }
//! }
//!
//! let pool = ThreadPool::new(2);
//! let report = pool.submit(|| "a report");
//! run(pool, async {}).await;
//! assert_eq!(report.await?, "a report");
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
//!
//! # Kill a running job
//!
//! A thread cannot be killed. A job of a `ProcessPool` runs in a worker process, which `cancel`, a
//! time limit and a memory limit kill; the pool replaces it.
//!
#![cfg_attr(feature = "process", doc = "```standalone_crate")]
#![cfg_attr(not(feature = "process"), doc = "```ignore")]
//! use futurepool::{ProcessPool, process, task};
//!
//! #[task]
//! fn endless() -> u64 {
//!     loop { /* a bug */ }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     process::init();
//!     let pool = ProcessPool::builder().max_workers(1).build()?;
//!     let job = pool.submit(endless::call());
//!     while !job.is_running() {
//!         std::thread::yield_now();
//!     }
//!     assert!(job.cancel()); // of a running job in a thread: `false`
//!     assert!(job.join().unwrap_err().is_cancelled());
//!     Ok(())
//! }
//! ```
//!
//! # Give each worker a connection
//!
//! Each worker of a [`StatefulPool`](crate::StatefulPool) owns a value that it makes, uses and
//! drops itself, so it need not be `Send`. After a panic the worker makes a new one; a maker that
//! returns an error breaks the pool.
//!
//! ```
//! use futurepool::StatefulPool;
//! # use std::collections::HashMap;
//! # struct Connection(HashMap<u64, &'static str>);
//! # impl Connection {
//! #     fn open(_: &str) -> Result<Self, std::io::Error> { Ok(Self(HashMap::from([(7, "Ada")]))) }
//! #     fn name(&mut self, id: u64) -> Option<String> { self.0.get(&id).map(ToString::to_string) }
//! # }
//!
//! // `Connection` is one of SQLite, for example.
//! let pool = StatefulPool::builder(|| Connection::open("users.db")).max_workers(4).build()?;
//! let name = pool.submit(|connection: &mut Connection| connection.name(7)).join()?;
//! assert_eq!(name.as_deref(), Some("Ada"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Resolve host names
//!
//! The resolver of the operating system blocks, sometimes for half a minute, and cannot be
//! cancelled. Give it a pool of its own, so that a dead name server delays only look-ups. A look-up
//! whose caller has given up leaves the queue.
//!
//! ```
//! use std::net::ToSocketAddrs;
//! use std::time::Duration;
//!
//! use futurepool::ThreadPool;
//!
//! let resolver = ThreadPool::builder().thread_name_prefix("dns").max_workers(16).build()?;
//! let lookup = resolver.submit(|| "127.0.0.1:443".to_socket_addrs().map(Vec::from_iter));
//! let addresses = lookup.cancel_on_drop().join_timeout(Duration::from_secs(5))??;
//! assert_eq!(addresses, ["127.0.0.1:443".parse()?]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Read a file line by line in async code
//!
//! [`Unblock`](crate::Unblock) turns a blocking reader into an async one, and fills its buffer in
//! one job. A file that fits into memory needs only `pool.submit(|| fs::read(path))`.
//!
//! ```
//! # futurepool::block_on(async {
//! use std::fs::File;
//!
//! use futurepool::{ThreadPool, Unblock};
//! use futures::{AsyncBufReadExt, TryStreamExt};
//!
//! let disk = ThreadPool::new(4);
//! let file = disk.submit(|| File::open("Cargo.toml")).await??;
//! let mut lines = Unblock::new_in(&disk, file).lines();
//! let mut sections = 0;
//! while let Some(line) = lines.try_next().await? {
//!     sections += usize::from(line.starts_with('['));
//! }
//! assert!(sections > 3);
//! # Ok::<(), std::io::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Hash many files
//!
//! [`map`](crate::ThreadPool::map) over the paths, with a worker for each processor. Each job reads
//! its file piece by piece, so large files need no memory.
//!
//! ```
//! use std::fs::File;
//! use std::io::{self, BufRead, BufReader};
//! use std::thread::available_parallelism;
//!
//! use futurepool::ThreadPool;
//! use sha2::{Digest, Sha256};
//!
//! fn sha256(path: &str) -> io::Result<Vec<u8>> {
//!     let mut file = BufReader::with_capacity(64 << 10, File::open(path)?);
//!     let mut hasher = Sha256::new();
//!     loop {
//!         let piece = file.fill_buf()?;
//!         if piece.is_empty() {
//!             return Ok(hasher.finalize().to_vec());
//!         }
//!         hasher.update(piece);
//!         let length = piece.len();
//!         file.consume(length);
//!     }
//! }
//!
//! let pool = ThreadPool::new(available_parallelism()?.get());
//! for digest in pool.map(["Cargo.toml", "src/lib.rs"], sha256) {
//!     assert_eq!(digest??.len(), 32);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Run a program and kill it after a timeout
//!
//! The job waits for the child process, kills it when the time is up or the job is cancelled, and
//! reaps it. The example `ping_hosts` also kills what the program itself has started.
//!
//! ```
//! use std::io;
//! use std::process::{Command, ExitStatus, Stdio};
//! use std::thread::sleep;
//! use std::time::{Duration, Instant};
//!
//! /// Returns `None` if the program was killed.
//! fn run(mut command: Command, limit: Duration) -> io::Result<Option<ExitStatus>> {
//!     let begin = Instant::now();
//!     // A pipe that nothing reads would fill up, and block the program.
//!     let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
//!     loop {
//!         if let Some(status) = child.try_wait()? {
//!             return Ok(Some(status));
//!         }
//!         if begin.elapsed() >= limit || futurepool::cancel_requested() {
//!             child.kill()?;
//!             child.wait()?;
//!             return Ok(None);
//!         }
//!         sleep(Duration::from_millis(2));
//!     }
//! }
//!
//! # #[cfg(unix)] {
//! let pool = futurepool::ThreadPool::new(4);
//! let job = pool.submit(|| {
//!     let mut command = Command::new("sleep");
//!     command.arg("60");
//!     run(command, Duration::from_millis(10))
//! });
//! assert_eq!(job.join()??, None);
//! # }
//! # Ok::<(), io::Error>(())
//! ```
//!
//! # Await a callback
//!
//! [`promise`](crate::promise()) returns a promise and its handle. The callback completes the
//! promise, and a callback that is dropped uncalled resolves the handle as cancelled.
//!
//! ```
//! /// An API that calls back from a thread of its own.
//! fn measure(callback: impl FnOnce(u32) + Send + 'static) {
//!     std::thread::spawn(|| callback(42));
//! }
//!
//! # futurepool::block_on(async {
//! let (promise, temperature) = futurepool::promise();
//! measure(|value| {
//!     let _ = promise.complete(value); // an error if the handle was cancelled
//! });
//! assert_eq!(temperature.await?, 42);
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
//!
//! # Share a pool in the state of a server
//!
//! A pool is not `Clone`: put it in an `Arc`. A full queue and a missed deadline are answers of 503,
//! and a handler that is dropped cancels its job.
//!
//! ```
//! # futurepool::block_on(async {
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use futurepool::ThreadPool;
//!
//! #[derive(Clone)]
//! struct AppState {
//!     database: Arc<ThreadPool>,
//! }
//!
//! // In axum: `State(state)`, `Path(id)`, and a header of the request for the client's timeout.
//! async fn user(state: AppState, id: u64, timeout: Duration) -> Result<String, (u16, String)> {
//!     let query = state.database.job(move || format!("user {id}")).label("user");
//!     // The last quarter is for the job itself and for the way back.
//!     let query = query.expires_in(timeout * 3 / 4).try_submit();
//!     let query = query.map_err(|refused| (503, refused.to_string()))?;
//!     query.cancel_on_drop().await.map_err(|error| {
//!         let status = if error.may_have_run() { 500 } else { 503 }; // a panic, or expired
//!         (status, error.to_string())
//!     })
//! }
//!
//! let database = ThreadPool::builder().max_workers(4).queue_capacity(100).build()?;
//! let state = AppState { database: Arc::new(database) };
//! let limit = Duration::from_secs(60);
//! assert_eq!(user(state.clone(), 7, limit).await, Ok("user 7".to_owned()));
//! assert_eq!(user(state.clone(), 7, Duration::ZERO).await.unwrap_err().0, 503);
//!
//! state.database.shutdown().await;
//! assert_eq!(user(state, 7, limit).await.unwrap_err().0, 503);
//! # Ok::<(), futurepool::BuildError>(())
//! # }).unwrap();
//! ```
//!
//! The example `web_service` in the repository is a whole service.
//!
//! # Run async code in a job
//!
//! A job is a closure, so wrap the future in [`block_on`](crate::block_on). The job runs in the
//! tokio runtime of its pool, so timers, sockets and `tokio::spawn` work in it.
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::time::Duration;
//!
//! use futurepool::{ThreadPool, block_on};
//! use tokio::time::sleep;
//!
//! let pool = ThreadPool::new(2);
//! let job = pool.submit(|| {
//!     block_on(async {
//!         sleep(Duration::from_millis(1)).await;
//!         6 * 7
//!     })
//! });
//! assert_eq!(job.await?, 42);
//! # Ok::<(), futurepool::JoinError>(())
//! # }).unwrap();
//! ```
//!
//! # Use a pool without a runtime
//!
//! Nothing is needed: [`join`](crate::JoinHandle::join) blocks until the result is there, and so do
//! the `join` methods and the iterators of everything else. For a single future there is
//! [`block_on`](crate::block_on).
//!
//! ```
//! fn main() -> Result<(), futurepool::JoinError> {
//!     let pool = futurepool::ThreadPool::new(2);
//!     let (six, seven) = (pool.submit(|| 6), pool.submit(|| 7));
//!     assert_eq!(six.join()? * seven.join()?, 42);
//!     assert_eq!(pool.map(1..=3, |n| n * n).join()?, [1, 4, 9]);
//!     Ok(())
//! }
//! ```
//!
//! # Log the failures of detached jobs
//!
//! A dropped handle loses the error that its job returned. A callback sees the outcome in any case,
//! on the thread that finishes the job. (Panics are in the log already, through `tracing` and the
//! panic hook.)
//!
//! ```
//! use std::sync::mpsc;
//!
//! let pool = futurepool::ThreadPool::new(1);
//! let (log, logged) = mpsc::channel();
//!
//! let job = pool.submit(|| "7o".parse::<u32>());
//! job.add_done_callback(move |outcome| match outcome {
//!     Ok(Ok(_)) => {}
//!     Ok(Err(error)) => drop(log.send(error.to_string())),
//!     Err(error) => drop(log.send(error.to_string())),
//! });
//! drop(job);
//! assert_eq!(logged.recv()?, "invalid digit found in string");
//! # Ok::<(), mpsc::RecvError>(())
//! ```
//!
//! # Log slow jobs
//!
//! [`on_job`](crate::ThreadPoolBuilder::on_job) sees each job that is submitted, started and
//! finished. It runs on the thread that does so, which can be one of the async runtime. So it should
//! only count, log or send.
//!
//! ```
//! use std::sync::mpsc;
//! use std::time::Duration;
//!
//! use futurepool::{JobEvent, ThreadPool};
//!
//! let (log, logged) = mpsc::channel();
//! let limit = Duration::from_millis(1);
//! let slow = move |event: &JobEvent| match event.run_time() {
//!     Some(time) if time >= limit => {
//!         let _ = log.send(format!("{} took {time:?}", event.label().unwrap_or("a job")));
//!     }
//!     _ => {} // submitted, started, fast, or never run
//! };
//! let pool = ThreadPool::builder().on_job(slow).build()?;
//! pool.job(move || std::thread::sleep(limit)).label("report").submit().join()?;
//! assert!(logged.recv()?.starts_with("report took "));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Run something on each worker
//!
//! [`broadcast`](crate::ThreadPool::broadcast) runs a closure once on each worker, ahead of the
//! queue. That clears a cache that each thread has, or shows that all workers have started. Async
//! code awaits the handles, for example with `try_join_all` of `futures`.
//!
//! ```
//! use std::cell::RefCell;
//! use std::collections::HashMap;
//!
//! use futurepool::ThreadPool;
//!
//! thread_local! {
//!     static PRICES: RefCell<HashMap<u32, u32>> = RefCell::default();
//! }
//!
//! let pool = ThreadPool::new(2);
//! pool.prestart(2);
//! let cleared = pool.broadcast(|| PRICES.with_borrow_mut(HashMap::clear));
//! assert_eq!(cleared.len(), 2);
//! for worker in cleared {
//!     worker.join()?;
//! }
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! # Export metrics to Prometheus
//!
//! [`metrics`](crate::ThreadPool::metrics) is cheap, so read it in the handler of `/metrics`.
//! Gauges tell how the pool is doing, and Prometheus turns counters into rates. A pool with
//! [`timings`](crate::ThreadPoolBuilder::timings) has a histogram for each label, too.
//!
//! ```
//! use std::fmt::Write;
//! use std::time::Duration;
//!
//! use futurepool::{Histogram, Metrics, ThreadPool};
//!
//! type Family = (&'static str, &'static str, fn(&Metrics) -> u64);
//!
//! const FAMILIES: [Family; 5] = [
//!     ("queued_jobs", "gauge", |metrics| metrics.queued),
//!     ("running_jobs", "gauge", |metrics| metrics.running),
//!     ("workers", "gauge", |metrics| metrics.workers),
//!     ("submitted_jobs_total", "counter", |metrics| metrics.submitted),
//!     ("rejected_jobs_total", "counter", |metrics| metrics.rejected),
//! ];
//!
//! const OUTCOMES: [(&str, fn(&Metrics) -> u64); 5] = [
//!     ("completed", |metrics| metrics.completed),
//!     ("panicked", |metrics| metrics.panicked),
//!     ("cancelled", |metrics| metrics.cancelled - metrics.expired), // which count as both
//!     ("expired", |metrics| metrics.expired),
//!     ("failed", |metrics| metrics.failed), // in a process pool
//! ];
//!
//! /// Returns the page for some pools. Serve it as `text/plain; version=0.0.4`.
//! fn prometheus(pools: &[(&str, Metrics)]) -> String {
//!     let mut text = String::new();
//!     for (name, kind, value) in FAMILIES {
//!         let _ = writeln!(text, "# TYPE futurepool_{name} {kind}"); // once, not for each pool
//!         for (pool, metrics) in pools {
//!             let _ = writeln!(text, "futurepool_{name}{{pool=\"{pool}\"}} {}", value(metrics));
//!         }
//!     }
//!     let _ = writeln!(text, "# TYPE futurepool_jobs_total counter");
//!     for (pool, metrics) in pools {
//!         for (outcome, value) in OUTCOMES {
//!             let labels = format!("pool=\"{pool}\",outcome=\"{outcome}\"");
//!             let _ = writeln!(text, "futurepool_jobs_total{{{labels}}} {}", value(metrics));
//!         }
//!     }
//!     let name = "futurepool_queue_wait_seconds"; // and the same for `run_time`
//!     let _ = writeln!(text, "# TYPE {name} histogram");
//!     for (pool, metrics) in pools {
//!         for (label, jobs) in metrics.by_label() {
//!             let labels = format!("pool=\"{pool}\",label=\"{label}\"");
//!             histogram(&mut text, name, &labels, &jobs.queue_wait);
//!         }
//!     }
//!     text
//! }
//!
//! fn histogram(text: &mut String, name: &str, labels: &str, times: &Histogram) {
//!     for le in [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0] {
//!         let count = times.count_up_to(Duration::from_secs_f64(le));
//!         let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{le}\"}} {count}");
//!     }
//!     let (count, sum) = (times.count(), times.sum().as_secs_f64());
//!     let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
//!     let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
//! }
//!
//! let pool = ThreadPool::builder().timings(true).build()?;
//! pool.job(|| 6 * 7).label("answer").submit().join()?;
//! let page = prometheus(&[("default", pool.metrics())]);
//! assert!(page.contains("jobs_total{pool=\"default\",outcome=\"completed\"} 1\n"));
//! assert!(page.contains("_wait_seconds_count{pool=\"default\",label=\"answer\"} 1\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With the feature `metrics` the pool reports the same names to any exporter of the crate
//! `metrics`, and you need no such page.
//!
//! # Test without threads
//!
//! Take an [`Executor`](crate::Executor) instead of a pool.
//! [`InlineExecutor`](crate::InlineExecutor) runs each job at once in its caller, so tests need no
//! threads and have one order.
//!
//! ```
//! use futurepool::{Executor, ExecutorExt, InlineExecutor, JoinError, ThreadPool};
//!
//! fn longest(executor: &dyn Executor, words: Vec<String>) -> Result<usize, JoinError> {
//!     let lengths = executor.map(words, |word| word.len()).join()?;
//!     Ok(lengths.into_iter().max().unwrap_or(0))
//! }
//!
//! let words = || ["spam", "egg"].map(String::from).into();
//! assert_eq!(longest(&ThreadPool::new(2), words())?, 4);
//! assert_eq!(longest(&InlineExecutor, words())?, 4);
//! # Ok::<(), JoinError>(())
//! ```
