//! How to size a pool, keep it answering under overload, watch it, and end it within a limit.
//!
//! The defaults suit a program that runs and ends. A service that must answer around the clock
//! needs some decisions:
//!
//! | question | setting |
//! |---|---|
//! | How many jobs can run at once? | [`max_workers`](crate::ThreadPoolBuilder::max_workers): see [workers](#how-many-workers) |
//! | How many jobs can wait? | [`queue_capacity`](crate::ThreadPoolBuilder::queue_capacity): see [queues](#bound-the-queue) |
//! | How long is a job worth waiting for? | [`queue_timeout`](crate::ThreadPoolBuilder::queue_timeout) and deadlines: see [deadlines](#expire-stale-work) |
//! | Which jobs go first? | [priorities](#priorities), or a pool for each kind of work |
//! | How long can one job run? | a limit of the blocking call, or a [worker process](#worker-processes) |
//! | Which threads exist at the start? | [`prestart`](crate::ThreadPool::prestart): see [start](#start) |
//! | What is measured? | [`timings`](crate::ThreadPoolBuilder::timings) and labels: see [measure](#measure) |
//! | How long can a shutdown take? | two limits: see [shutdown](#a-shutdown-that-ends) |
//!
//! The example `web_service` in the repository uses all of this.
//!
//! # How many workers
//!
//! A pool has two natural sizes. For work that computes, it is the number of processors. For work
//! that waits, it is what the other side can serve at once. For work that does both, it lies
//! between them:
//!
//! > workers ≈ processors × (1 + time waiting ÷ time computing)
//!
//! A job that computes for 1 ms and waits for 9 ms needs ten workers for each processor. More
//! workers do not make the processors faster. They only move the queue: out of the pool, where jobs
//! can expire and be cancelled, into the scheduler of the system or into the database.
//!
//! By Little's law, jobs a second times run time is the number of busy workers. 200 queries a
//! second of 10 ms keep two workers busy on average. Plan for two thirds of the workers to be busy
//! at the peak: a queue grows without limit as that share comes near to one.
//!
//! Give each kind of work a pool of its own, if it has another run time or another bottleneck. A
//! query of 1 ms then never waits behind a hash of 30 ms. An idle worker costs no CPU time, only
//! its stack.
//!
//! ```
//! use std::thread::available_parallelism;
//!
//! use futurepool::ThreadPool;
//!
//! let processors = available_parallelism()?.get(); // on Linux: what the container may use
//! let hashes = ThreadPool::builder().thread_name_prefix("hash").max_workers(processors);
//! let queries = ThreadPool::builder().thread_name_prefix("db").max_workers(10);
//! let (hashes, queries) = (hashes.build()?, queries.build()?);
//! assert_eq!((hashes.max_workers(), queries.max_workers()), (processors, 10));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## Pools that size themselves
//!
//! If the mixture of computing and waiting is unknown or changes,
//! [`auto_size(4..=64)`](crate::ThreadPoolBuilder::auto_size) lets the pool find its number of
//! workers. It measures the CPU time and the wall time of its jobs, and settles within a minute of
//! load. [`Metrics::auto_size`](crate::Metrics::auto_size) tells the current number, and the reason
//! and the time of its last change. The [console](#the-console) draws it as a line.
//!
//! ```
//! use futurepool::ThreadPool;
//!
//! # if cfg!(any(target_os = "linux", target_vendor = "apple")) {
//! let pool = ThreadPool::builder().auto_size(2..=64).build()?;
//! pool.submit(|| 6 * 7).join()?;
//! let metrics = pool.metrics();
//! let size = metrics.auto_size().expect("built with auto_size");
//! println!("{} workers at most: {}", size.limit, size.reason);
//! # assert!((2..=64).contains(&size.limit));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The upper bound still matters, because jobs that hardly compute get as many workers as it
//! allows. So it must not exceed what the other side can serve, or what the memory allows. A pool
//! of one kind of work with a known number needs no `auto_size`.
//!
//! [`set_max_workers`](crate::ThreadPool::set_max_workers) changes the size by hand while the pool
//! runs, for example from an admin page.
//!
//! # Bound the queue
//!
//! An unbounded queue turns overload into latency and memory: each job waits longer than the one
//! before it, until all clients have given up. A bounded queue turns the same overload into early,
//! cheap refusals.
//!
//! A full queue takes `capacity × run time ÷ workers` to drain. So choose
//!
//! > capacity ≈ workers × acceptable wait ÷ run time
//!
//! With 4 workers, 10 ms a job and clients that wait at most 500 ms, that is 200.
//!
//! | caller | method | when the queue is full |
//! |---|---|---|
//! | a request handler | [`try_submit`](crate::ThreadPool::try_submit) | answers 503 with `Retry-After` |
//! | a task that feeds the pool | [`submit_async`](crate::ThreadPool::submit_async) | waits, and so slows down its own source |
//! | a batch program | [`submit`](crate::ThreadPool::submit) | blocks |
//!
//! ```
//! use std::sync::mpsc;
//!
//! use futurepool::ThreadPool;
//!
//! let pool = ThreadPool::builder().max_workers(1).queue_capacity(1).build()?;
//! let (release, wait) = mpsc::channel::<()>();
//! let running = pool.submit(move || wait.recv());
//! while !running.is_running() {
//!     std::thread::yield_now();
//! }
//!
//! let queued = pool.try_submit(|| "queued").unwrap();
//! let refused = pool.try_submit(|| "refused").unwrap_err();
//! assert!(refused.is_full());
//! assert_eq!(pool.metrics().rejected, 1);
//!
//! drop(release);
//! assert_eq!(queued.join()?, "queued");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A pool bounds jobs, not clients. A server also needs limits on connections and on the size and
//! the speed of request bodies.
//!
//! # Expire stale work
//!
//! A job is worth nothing once its caller has given up. There are three ways to tell the pool:
//!
//! - [`queue_timeout`](crate::ThreadPoolBuilder::queue_timeout) sets how long any job of the pool
//!   can be queued.
//! - [`deadline`](crate::JobBuilder::deadline) and [`expires_in`](crate::JobBuilder::expires_in)
//!   set it for one job. The earliest limit counts.
//! - [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop) ends a job when its handle is dropped,
//!   because a client has disconnected.
//!
//! An expired job never runs. It resolves at its deadline, even if all workers are busy, and its
//! captures and its room in the queue are free at once.
//!
//! ```
//! use std::sync::mpsc;
//! use std::time::Duration;
//!
//! use futurepool::ThreadPool;
//!
//! let pool = ThreadPool::new(1);
//! let (release, wait) = mpsc::channel::<()>();
//! let running = pool.submit(move || wait.recv());
//!
//! let job = pool.job(|| "too late").expires_in(Duration::from_millis(5));
//! let error = job.submit().join().unwrap_err(); // although the only worker is busy
//! assert!(error.is_expired() && !error.is_cancelled());
//! assert_eq!((pool.metrics().expired, pool.metrics().cancelled), (1, 1));
//!
//! drop(release);
//! # running.join()?.unwrap_err();
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! Let the client state its timeout, and set the deadline a little before it: the cookbook has [a
//! handler](super::cookbook#share-a-pool-in-the-state-of-a-server) that does. An answer after the
//! client's timeout is never read, but the client retries anyway.
//!
//! Answer an expired job with 503 and `Retry-After`. That tells that the request was not begun, and
//! that the same request may succeed later. Load balancers and clients know it. 504 fits work that
//! had begun and took too long: a retry would take as long again.
//!
//! **A deadline ends the wait in the queue, not a running job.** For that, see [blocking
//! calls](super::cookbook#limit-a-blocking-call) and [worker processes](#worker-processes).
//!
//! # Priorities
//!
//! [`Priority::High`](crate::Priority) goes before `Normal`, and `Normal` before `Low`. Within a
//! priority, jobs start in order.
//!
//! ```
//! use std::sync::{Arc, Mutex, mpsc};
//!
//! use futurepool::{Priority, ThreadPool};
//!
//! let pool = ThreadPool::new(1);
//! let (release, wait) = mpsc::channel::<()>();
//! let running = pool.submit(move || wait.recv());
//!
//! let order = Arc::new(Mutex::new(Vec::new()));
//! let job = |name| {
//!     let order = Arc::clone(&order);
//!     pool.job(move || order.lock().unwrap().push(name))
//! };
//! let nightly = job("nightly report").priority(Priority::Low).submit();
//! let page = job("page").priority(Priority::High).submit();
//!
//! drop(release);
//! nightly.join()?;
//! page.join()?;
//! assert_eq!(*order.lock().unwrap(), ["page", "nightly report"]);
//! # running.join()?.unwrap_err();
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! Nothing starves: of any 16 jobs that workers start, at least 4 are normal and at least 1 is low,
//! if such jobs wait.
//!
//! A priority decides what starts next. It stops no running job, and takes no share of the queue:
//! if jobs of low priority fill a bounded queue, urgent ones are refused. There are three remedies:
//!
//! - a pool of its own for the urgent work, which is also simpler to watch;
//! - a short [`expires_in`](crate::JobBuilder::expires_in) for the other work;
//! - a limit on the other work before it reaches the pool.
//!
//! # Measure
//!
//! [`timings(true)`](crate::ThreadPoolBuilder::timings) records the queue wait and the run time of
//! each job as histograms, for the pool and for each label. A label names a kind of work, such as a
//! route. It is a `&'static str`: labels come from the text of the program, not from the input of
//! users.
//!
//! ```
//! use futurepool::ThreadPool;
//!
//! let pool = ThreadPool::builder().timings(true).build()?;
//! for _ in 0..10 {
//!     pool.job(|| 6 * 7).label("answer").submit().join()?;
//! }
//! let metrics = pool.metrics();
//! assert_eq!(metrics.run_time.count(), 10);
//! let answers = &metrics.by_label()["answer"];
//! assert_eq!(answers.completed, 10);
//! println!("99 % waited at most {:?}", answers.queue_wait.quantile(0.99));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Three ways to get them out of the process:
//!
//! - The feature `metrics` reports them through the facade of the crate `metrics`, for any
//!   exporter.
//! - [`Histogram::count_up_to`](crate::Histogram::count_up_to) gives the buckets of a Prometheus
//!   histogram, for a page that is written by hand.
//! - [`on_job`](crate::ThreadPoolBuilder::on_job) calls a function for each job that is submitted,
//!   started and finished, for example to log slow ones.
//!
//! The cookbook has [such a page](super::cookbook#export-metrics-to-prometheus) and [such a
//! log](super::cookbook#log-slow-jobs).
//!
//! Export histograms, not quantiles: the quantiles of several instances cannot be added up. The
//! crate `metrics-exporter-prometheus` exports quantiles unless you set buckets.
//!
//! # What to alert on
//!
//! | alert on | threshold to begin with | what it means | what to do |
//! |---|---|---|---|
//! | `queue_wait`, 99 % | half of what clients wait, for 5 minutes | the earliest sign of saturation, before any refusal | more workers or instances, or less work: see [below](#when-it-is-slow) |
//! | `rejected` | more than 1 % of submissions for 5 minutes | the queue is full | as above; a short burst of refusals is the bound doing its work |
//! | `expired` | more than 1 % of submissions for 5 minutes | jobs wait longer than their clients do | as above; if `rejected` stays 0, the queue holds more than can run before the deadline: lower its capacity |
//! | no progress | `queued > 0` and `completed` unchanged for a minute, or ten times the longest run time | all workers are stuck: a dependency without a timeout, or a deadlock of jobs that wait for each other by other means | a stack dump (`gdb -p`, `thread apply all bt`); set timeouts |
//! | `panicked` | any increase | a bug: the log names the job and the message | fix it; the pool is unharmed |
//! | `failed` | any increase, on a process pool | a crash, or a limit that was reached | the log names signal or limit |
//! | `spawn_failures` | any increase | the system starts no more threads or processes: `pids.max`, `ulimit -u`, or memory | raise the limit; the pool carries on with fewer workers |
//! | a broken pool | the [health check](#start) fails | the initializer failed: every job fails | the error has the cause; end the process, and let its supervisor start it again |
//!
//! - `queue_wait` has only jobs that started. With deadlines its quantiles stay low, however many
//!   jobs expire. So alert on `expired`, too.
//! - The length of the queue is not on the list. 100 queued jobs are 10 ms of work for one pool,
//!   and an hour for another. The wait tells them apart.
//! - The use of the processors is not on the list, either. A pool that keeps them busy is well
//!   sized, if its jobs start at once.
//! - `cancelled` counts clients that disconnected. A jump usually means that answers have become
//!   slow.
//! - `queued`, `running`, `workers` and `idle` are momentary values, and the scraper sees one in
//!   thousands. Counters lose nothing between two scrapes.
//!
//! In the words of Prometheus, with the names of the feature
//! [`metrics`](crate::ThreadPool#method.report_metrics) and of the example `web_service`:
//!
//! ```text
//! histogram_quantile(0.99,
//!   sum by (pool, le) (rate(futurepool_queue_wait_seconds_bucket[5m]))) > 0.25
//! rate(futurepool_rejected_jobs_total[5m]) > 0.01 * rate(futurepool_submitted_jobs_total[5m])
//! sum by (pool) (rate(futurepool_jobs_total{outcome="expired"}[5m]))
//!   > 0.01 * sum by (pool) (rate(futurepool_submitted_jobs_total[5m]))
//! futurepool_queued_jobs > 0 unless on (instance, pool)
//!   sum by (instance, pool) (increase(futurepool_jobs_total{outcome="completed"}[2m])) > 0
//! increase(futurepool_jobs_total{outcome=~"panicked|failed"}[10m]) > 0
//! increase(futurepool_spawn_failures_total[10m]) > 0
//! ```
//!
//! The histograms, and `futurepool_jobs_total` by label, need
//! [`timings`](crate::ThreadPoolBuilder::timings).
//!
//! ## When it is slow
//!
//! The answer time of a request is queue wait plus run time plus what happens outside of the pool.
//! Look at them in this order:
//!
//! | queue wait | run time | processors | so |
//! |---|---|---|---|
//! | short | short | – | the pool is not the cause: look at the network, at the bodies, at the async tasks |
//! | long | as usual | idle | too few workers for work that waits |
//! | long | as usual | busy | more load than processors: refuse more, or add instances |
//! | long | longer than usual | idle | the other side (disk, database, lock) has become slow, and more workers would make it worse |
//! | long | longer than usual | busy | more workers than processors for work that computes, or a neighbour on the same machine |
//! | long at times | as usual | – | bursts, or a few long jobs among short ones: give those a pool of their own |
//!
//! ## The console
//!
#![cfg_attr(
    feature = "console",
    doc = "With the feature `console`, [`console::serve(\"127.0.0.1:6670\")`](crate::console::serve)"
)]
#![cfg_attr(
    not(feature = "console"),
    doc = "With the feature `console`, `futurepool::console::serve(\"127.0.0.1:6670\")`"
)]
//! shows each pool of the process in a browser: the workers and what they run, the queue and its
//! age, rates, quantiles, panics with message and place, and the jobs of the last minute. It shows
//! what no metric keeps: which job is in the way *now*.
//!
//! On other addresses than loopback it needs a token. An SSH tunnel or `kubectl port-forward` to
//! loopback is safer. It costs next to nothing while no page is open, so a service can always have
//! it. The command `futurepool-top` shows the same in a terminal.
//!
//! # Start
//!
//! Fail at the start instead of at the first request. An
//! [`initializer`](crate::ThreadPoolBuilder::initializer) that fails breaks its pool, so start the
//! workers before the server listens, and look at a first job:
//!
//! ```
//! use futurepool::ThreadPool;
//!
//! fn connect() -> std::io::Result<()> {
//!     std::fs::metadata("Cargo.toml").map(drop) // here: open a connection
//! }
//!
//! let pool = ThreadPool::builder().max_workers(4).initializer(connect).build()?;
//! pool.prestart(4);
//! pool.submit(|| ()).join()?; // an error that contains the cause if the initializer failed
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! That tells of one worker. To wait for all of them, join a
//! [`broadcast`](crate::ThreadPool::broadcast) of an empty job, which runs once on each worker.
//!
//! Each worker runs the initializer by itself, and one that fails later breaks the pool, too.
//! Without a [`keep_alive`](crate::ThreadPoolBuilder::keep_alive) idle workers stay, so all
//! initializers run at the start.
//!
//! For a health check, submit an empty job and limit the wait for it. It fails if the pool is
//! broken, shut down or stuck. A full queue is no answer, because busy is not dead: the alert on a
//! pool without progress finds one that is full and stuck. The check must not fill the queue, so it
//! cancels its job when the time is up.
//!
//! ```
//! use std::time::Duration;
//!
//! use futurepool::ThreadPool;
//!
//! fn is_alive(pool: &ThreadPool) -> bool {
//!     match pool.try_submit(|| ()) {
//!         Ok(job) => job.cancel_on_drop().join_timeout(Duration::from_secs(5)).is_ok(),
//!         Err(refused) => refused.is_full(),
//!     }
//! }
//!
//! let pool = ThreadPool::new(2);
//! assert!(is_alive(&pool));
//! pool.shutdown().join();
//! assert!(!is_alive(&pool));
//! ```
//!
//! Async code awaits the job within the `timeout` of its runtime. Use the check for liveness only
//! with a generous limit: a restart of a service that is overloaded makes matters worse.
//!
//! # A shutdown that ends
//!
//! A shutdown waits for running jobs, and a job that blocks forever never ends. So the order is:
//! the server first, then its pools, and each wait has a limit.
//!
//! 1. Stop accepting requests. Answer those in flight, for at most the drain limit.
//! 2. [`shutdown_now`](crate::ThreadPool::shutdown_now) cancels queued jobs and asks running ones
//!    to stop. Give them a second or two.
//! 3. Exit, even if threads still run. `std::process::exit` drops no pool. To return from `main`
//!    instead, call [`join_timeout`](crate::Shutdown::join_timeout) first: after its error,
//!    dropping the pool does not wait.
//!
//! The code is in the [cookbook](super::cookbook#shut-down-on-ctrl-c-within-a-limit). Keep the sum
//! of the limits below what the supervisor grants, for example `terminationGracePeriodSeconds` of
//! Kubernetes (30 s by default). After that it kills.
//!
//! - Handles of cancelled jobs resolve with an error that
//!   [`is_cancelled`](crate::JoinError::is_cancelled), so their requests can be answered: with 503.
//! - In async code, dropping a pool blocks the thread of the runtime while jobs run.
//!   `pool.shutdown().await` before it makes the drop immediate.
//! - Nothing stops the [process-wide](crate::global) pool: its unfinished jobs are lost at the end
//!   of `main`.
//! - A second Ctrl-C should end the drain. An operator sends it when the first seems to have no
//!   effect.
//!
//! # Panics and logs
//!
//! A panic fails its own job and nothing else. It is counted in `panicked`, and reported through
//! `tracing` with the message and the place of the submit. std's panic hook prints it, too: set a
//! hook if standard error must be JSON only.
//!
//! ```
//! let pool = futurepool::ThreadPool::new(1);
//! let error = pool.submit(|| panic!("no such luck")).join().unwrap_err();
//! assert_eq!(error.panic_message(), Some("no such luck"));
//! assert!(error.location().unwrap().file().ends_with(".rs"));
//! assert_eq!(pool.submit(|| "alive").join()?, "alive");
//! # Ok::<(), futurepool::JoinError>(())
//! ```
//!
//! - Set up a `tracing` subscriber, or the feature `log` of `tracing`. Otherwise the reports of
//!   failed thread spawns, of broken pools and of panics in destructors are lost.
//! - With `panic = "abort"`, each panic ends the process. Do not set it for a service that should
//!   survive its jobs.
//! - A stack overflow always ends the process. Deep recursion needs a larger
//!   [`stack_size`](crate::ThreadPoolBuilder::stack_size).
//! - Shared state can be half-changed after a panic. A `Mutex` of std is poisoned then, which is a
//!   reason to unwrap its lock.
//!
//! # Worker processes
//!
#![cfg_attr(
    feature = "process",
    doc = "Work that may crash, loop or take too much memory belongs in a [`ProcessPool`](crate::ProcessPool). Its [guide](super::threads_or_processes) has the details."
)]
#![cfg_attr(
    not(feature = "process"),
    doc = "Work that may crash, loop or take too much memory belongs in a `ProcessPool` (feature `process`)."
)]
//! In production, consider this:
//!
//! - Set a time limit and a memory limit. Both are off by default. A time limit counts from the
//!   start of the job, a deadline until then.
//! - Plan `program + workers × memory limit` within the memory of the container. Otherwise the
//!   system's killer chooses, and it can choose your program.
//! - Count `failed` and alert on it. Each increase has a line in the log, with the signal or the
//!   limit, and the last output of the worker.
//! - Killed work may be half done. Let tasks write to a temporary file and rename it.
//! - A process starts more slowly than a thread. `prestart` has them ready before the first
//!   request.
//!
//! # Threads and memory in a container
//!
//! - Each worker reserves 2 MiB of address space for its stack
//!   ([`stack_size`](crate::ThreadPoolBuilder::stack_size)), and uses only what its jobs touch.
//! - `pids.max` and `ulimit -u` count threads. Sum up `max_workers` of all pools, the runtime's
//!   threads and its blocking threads, and leave room.
//! - glibc keeps up to eight memory arenas a processor. A program with many threads that seems to
//!   leak often needs `MALLOC_ARENA_MAX=2`, or another allocator.
//! - [`thread_name_prefix`](crate::ThreadPoolBuilder::thread_name_prefix) is what `top -H`, `gdb`
//!   and profilers show. Linux shows the first 15 bytes. The console and exported metrics call the
//!   pool by it, so give each pool its own. A `ProcessPool` has a `name` instead.
