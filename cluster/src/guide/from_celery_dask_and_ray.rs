//! Maps the terms of Celery, Dask and Ray to their counterparts in this crate, and says what differs.
//!
//! Compared with the documentation of Celery 5.7 (Redis or RabbitMQ as its broker), Dask's
//! `distributed`, and Ray's core. All three run Python. Here a job is a Rust function, and it gets the
//! handle of [`futurepool`], which async code awaits and sync code joins.
//!
//! # If a worker dies
//!
//! This is the greatest difference, so it comes first.
//!
//! | | runs it again? | the caller learns |
//! |---|---|---|
//! | Celery, by default | No: a task is acknowledged just before it starts. | If the whole worker dies, nothing: the result stays `PENDING`, which is also the state of unknown tasks. |
//! | Celery, `acks_late=True` | Yes. With Redis after the visibility timeout, 1 hour by default; a task that runs for longer is delivered again while it runs. | the later result |
//! | Dask | Yes, whatever the function does, until it has taken 3 workers along. | `KilledWorker` |
//! | Ray tasks | Yes, up to 3 times by default (`max_retries`). | `WorkerCrashedError` |
//! | `#[task]` | No. | [`is_lost`](futurepool::JoinError::is_lost), with the worker's name, within the lease (30 s) and a second |
//! | `#[task(idempotent, attempts = 3)]` | Yes, after the lease, which is extended while a job runs. | [`is_lost`](futurepool::JoinError::is_lost) after the last attempt |
//!
//! "Again" is an option here that a task must ask for. [`may_have_run`](futurepool::JoinError::may_have_run)
//! tells for each error whether the job can have started, and `false` is certain.
//!
//! # Celery
//!
//! ```python
//! app = Celery("shop", broker="redis://…", backend="redis://…")
//!
//! @app.task(acks_late=True)
//! def thumbnail(image, width): ...
//!
//! result = thumbnail.delay(image, 200)
//! print(len(result.get(timeout=10)))
//!
//! job = group(thumbnail.s(image, width) for width in (100, 200, 400))
//! print(job().get())
//! ```
//!
//! ```
//! use std::time::Duration;
//!
//! use futurepool::{task, tasks};
//! use futurepool_cluster::{Cluster, MemoryBroker, Worker};
//!
//! #[task(name = "thumbnail", idempotent)]
//! fn thumbnail(image: Vec<u8>, width: usize) -> Vec<u8> {
//!     image.into_iter().take(width).collect()
//! }
//!
//! let server = MemoryBroker::new(); // or "nats://nats-1:4222"
//! # let image = vec![7; 1_000];
//!
//! // celery -A shop worker --concurrency=4
//! let worker = Worker::new(tasks![thumbnail]).threads(4).connect(&server)?;
//! let drain = worker.drain_handle();
//! let worker = std::thread::spawn(|| worker.run()); // else a program of its own
//!
//! let cluster = Cluster::connect(&server).build()?;
//! let mut result = cluster.submit(thumbnail::call(image.clone(), 200));
//! println!("{}", result.join_timeout(Duration::from_secs(10))?.len());
//!
//! let job = cluster.map([100, 200, 400].map(|width| thumbnail::call(image.clone(), width)));
//! println!("{:?}", job.join()?);
//!
//! drain.drain(); // kill -TERM
//! worker.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | Celery | here | difference |
//! |---|---|---|
//! | `@app.task(name="thumbnail")` | `#[task(name = "thumbnail")]` | the name is required; a [version](super::several_machines#upgrades) is part of it |
//! | `acks_late=True` with `reject_on_worker_lost=True` | `idempotent` | a number of attempts, and no visibility timeout to size |
//! | `f.delay(x)`, `f.apply_async((x,))` | [`cluster.submit(f::call(x))`](crate::Cluster::submit) | checked by the compiler; [waits](crate::Cluster::try_submit) while the queue is full |
//! | `result.get(timeout=10)` | [`join_timeout`](futurepool::JoinHandle::join_timeout), or `.await` | takes the result, once; always resolves |
//! | result backend | – | a result comes back to its submitter; no second service, nothing to expire |
//! | `AsyncResult(id)` in another process | [`submit_detached(key, …)`](crate::Cluster::submit_detached), [`attach(key)`](crate::Cluster::attach) | your own key; an unknown key is an error, not `PENDING` |
//! | `result.revoke()` | [`cancel`](futurepool::JoinHandle::cancel) | written at the server, so no worker forgets it; a default job that has not started never will |
//! | `revoke(terminate=True)` | [`cancel`](futurepool::JoinHandle::cancel) in a worker with [processes](crate::Worker::processes) | kills that job only |
//! | `expires=60` | [`deadline`](futurepool::Call::deadline) | the handle says [`is_expired`](futurepool::JoinError::is_expired) |
//! | `time_limit=5` | [`time_limit`](futurepool::Call::time_limit), in a worker with processes | |
//! | `group(…)`, `f.starmap(…)` | [`map`](crate::Cluster::map), [`as_completed`](futurepool::as_completed()) | |
//! | `chain`, `chord` | plain code: take a result, submit the next call | the submitter must live |
//! | `task_routes`, `-Q images` | [`queue`](crate::ClusterBuilder::queue), [of a worker](crate::Worker::queue) | a worker never gets a task that it does not have |
//! | `worker_prefetch_multiplier=1` | – | a worker takes a job only for a free slot, unless jobs are short |
//! | `autoretry_for=(Error,)` | a loop in the task, or around the submit | an `Err` of the function is a result |
//! | `--concurrency=8`, `--pool=threads` | [`threads(8)`](crate::Worker::threads) | |
//! | `--pool=prefork` | [`processes(…)`](crate::Worker::processes) | a crash harms only its job |
//! | warm shutdown | SIGTERM, Ctrl-C, [`drain`](crate::DrainHandle::drain) | ends after a [grace](crate::Worker::drain_grace) |
//! | cold shutdown | [`stop`](crate::DrainHandle::stop) | |
//! | `task_always_eager` | a [`MemoryBroker`](crate::MemoryBroker), or [`InlineExecutor`](futurepool::InlineExecutor) | |
//! | `celery inspect`, Flower | `futurepool-cluster status`, `futurepool-cluster serve` | |
//! | `celery beat`, `countdown`, `eta` | – | use a timer or cron that submits |
//!
//! # Dask
//!
//! ```python
//! client = Client("tcp://scheduler:8786")
//! futures = client.map(checksum, blocks)
//! for future in as_completed(futures):
//!     print(future.result())
//! ```
//!
//! ```
//! use futurepool::{as_completed, task, tasks};
//! use futurepool_cluster::{Cluster, MemoryBroker, Worker};
//!
//! #[task(name = "checksum", idempotent)]
//! fn checksum(block: Vec<u8>) -> u64 {
//!     block.into_iter().map(u64::from).sum()
//! }
//!
//! # let server = MemoryBroker::new();
//! # let worker = Worker::new(tasks![checksum]).threads(2).connect(&server)?;
//! # let drain = worker.drain_handle();
//! # let worker = std::thread::spawn(|| worker.run());
//! # let blocks = [vec![1; 10], vec![2; 10]];
//! let client = Cluster::connect(server).build()?;
//! let futures: Vec<_> = blocks.into_iter().map(|block| client.submit(checksum::call(block))).collect();
//! for sum in as_completed(futures) {
//!     println!("{}", sum?);
//! }
//! # drain.drain();
//! # worker.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | Dask | here | difference |
//! |---|---|---|
//! | the scheduler | a NATS server | it keeps jobs on disk; when Dask's scheduler dies, the record of running work is lost |
//! | `Client(address)` | [`Cluster::connect(address)`](crate::Cluster::connect) | |
//! | `client.submit(f, x)` | [`submit(f::call(x))`](crate::Cluster::submit) | the function is part of the worker's program; equal calls are two jobs (Dask's `pure=True` makes them one) |
//! | `future.result()`, `client.gather` | [`join`](futurepool::JoinHandle::join), `.await`, [`map(…).join()`](crate::Cluster::map) | the output always comes to the submitter; it does not stay on the worker |
//! | a future as an argument | – | take the result and pass it on; there is no graph |
//! | forgetting a future | dropping the handle | the job still runs; in Dask it may stop. [`cancel_on_drop`](futurepool::JoinHandle::cancel_on_drop) cancels it |
//! | `fire_and_forget(future)` | [`submit_detached`](crate::Cluster::submit_detached) | its outcome is kept for 24 hours |
//! | `client.publish_dataset` | – | outputs are for their submitter, or under a key |
//! | `retries=3` | a loop in the task, or around the submit | retries after an exception; for a death, `attempts` |
//! | `allowed-failures` | `attempts = 3` | per task |
//! | `client.scatter`, dataframes, arrays | – | pass the name of a file; use Dask for data that stays in the cluster |
//! | `dask worker --nthreads 8` | [`threads(8)`](crate::Worker::threads) | |
//! | `client.retire_workers` | `futurepool-cluster drain`, SIGTERM | |
//!
//! # Ray
//!
//! ```python
//! @ray.remote(max_retries=0)
//! def charge(order): ...
//!
//! ref = charge.remote(17)
//! print(ray.get(ref))
//! ```
//!
//! ```
//! use futurepool::{task, tasks};
//! use futurepool_cluster::{Cluster, MemoryBroker, Worker};
//!
//! #[task(name = "charge")]
//! fn charge(order: u64) -> String {
//!     format!("charged order {order}")
//! }
//!
//! # let server = MemoryBroker::new();
//! # let worker = Worker::new(tasks![charge]).threads(2).connect(&server)?;
//! # let drain = worker.drain_handle();
//! # let worker = std::thread::spawn(|| worker.run());
//! let cluster = Cluster::connect(server).build()?;
//! let handle = cluster.submit(charge::call(17));
//! println!("{}", handle.join()?);
//! # drain.drain();
//! # worker.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | Ray | here | difference |
//! |---|---|---|
//! | `@ray.remote` | `#[task(name = "…")]` | `max_retries` is 3 by default in Ray; here a task runs again only if it is `idempotent` |
//! | `f.remote(x)` | [`submit(f::call(x))`](crate::Cluster::submit) | |
//! | `ray.get(ref)` | [`join`](futurepool::JoinHandle::join), `.await` | |
//! | `ray.wait(refs)` | [`wait`](futurepool::wait()), [`as_completed`](futurepool::as_completed()) | |
//! | `ray.cancel(ref)` | [`cancel`](futurepool::JoinHandle::cancel) | asks; the function looks at [`cancel_requested`](futurepool::cancel_requested()) |
//! | `ray.cancel(ref, force=True)` | the same, in a worker with [processes](crate::Worker::processes) | kills that job only |
//! | object store, `ray.put` | – | outputs go to the submitter; when the driver dies, Ray's objects are lost, too (`OwnerDiedError`) |
//! | a detached actor that keeps results | [`submit_detached`](crate::Cluster::submit_detached), [`attach`](crate::Cluster::attach) | |
//! | actors | – | a task has no state between calls |
//! | `num_cpus`, `resources` | slots of a worker, and [queues](crate::Worker::queue) | |
//! | `max_calls` | [processes](crate::Worker::processes) with `max_jobs_per_worker` | |
//! | `ray.init(address)` | [`Cluster::connect(address)`](crate::Cluster::connect) | |
//! | `ray start` on each machine | a program with [`Worker`](crate::Worker) on each machine | its tasks are compiled into it |
//! | application errors: `RayTaskError` | an `Err` of the function, or [`is_panic`](futurepool::JoinError::is_panic) | |
//!
//! # What they have and this does not
//!
//! Graphs of tasks, actors, data that stays in the cluster, periodic tasks, delays, priorities, and
//! workers that are started on demand. Use them for that.
