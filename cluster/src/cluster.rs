//! The submitter's public face.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use futurepool::{
    Call, JoinError, JoinHandle, Map, MapUnordered, Promise, SubmitError, Task, TaskExecutor,
    TaskExecutorExt, TaskJob, block_on, promise,
};
use tokio::sync::oneshot;

use crate::broker::Broker;
use crate::error::ConnectError;
use crate::io::{self, AnyBroker};
use crate::namespace::{Namespace, process_name, with_identity};
use crate::server::Server;
use crate::submitter::resolver::{ResolverThread, is_resolving};
use crate::submitter::{Config, CoreParts, Handle, client_id};

/// Submits tasks to workers on any number of machines.
///
/// [`submit`](Self::submit) takes a [`Call`] of a [`task`](macro@futurepool::task) and returns the
/// same [`JoinHandle`] as a pool of threads. Handles of clusters, processes and threads mix in
/// [`as_completed`](futurepool::as_completed()) and [`wait`](futurepool::wait()).
///
/// # What dropping it does
///
/// Dropping the cluster is `shutdown().join()`: it **blocks** until every job has resolved, then
/// leaves the cluster. [`shutdown_now`](Self::shutdown_now) cancels the jobs first. Detached jobs
/// go on, and are not waited for.
///
/// If this process ends in any other way, its queued jobs are dropped after 15 to 20 seconds, and
/// its running ones are asked to stop.
///
/// # Once, or again
///
/// A task starts **at most once**, whatever is killed. With `#[task(idempotent, attempts = 3)]` it
/// starts again elsewhere if its worker dies. A task needs a name, since the paths of modules
/// differ between programs: `#[task(name = "…")]`.
///
/// # Examples
///
/// ```
/// use futurepool::{task, tasks};
/// use futurepool_cluster::{Cluster, MemoryBroker, Worker};
///
/// #[task(name = "double")]
/// fn double(n: u64) -> u64 {
///     2 * n
/// }
///
/// let broker = MemoryBroker::new(); // or the address of a server: "nats://nats-1:4222"
/// let worker = Worker::new(tasks![double]).threads(2).connect(&broker)?;
/// let drain = worker.drain_handle();
/// let worker = std::thread::spawn(|| worker.run()); // elsewhere, a program of its own
///
/// let cluster = Cluster::connect(&broker).build()?;
/// assert_eq!(cluster.submit(double::call(21)).join()?, 42);
/// assert_eq!(cluster.map((1..=3).map(double::call)).join()?, [2, 4, 6]);
///
/// drain.drain();
/// worker.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("Client", "Celery", "apply_async", "delay", "ray.init", "Executor"))]
pub struct Cluster {
    handle: Handle,
    /// The server was left.
    left: Ended,
    /// The server was left, and all handles have resolved.
    ended: Ended,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Cluster {
    /// Returns a builder of a cluster at this server.
    ///
    /// `server` is an address such as `nats://host:4222`, several addresses with commas between
    /// them, a [`Server`] with a login, or a [`MemoryBroker`](crate::MemoryBroker).
    pub fn connect(server: impl Into<Server>) -> ClusterBuilder {
        ClusterBuilder {
            server: server.into(),
            namespace: Namespace::default(),
            window: 10_000,
            disconnect_limit: Some(Duration::from_secs(300)),
            no_worker_timeout: None,
        }
    }

    /// Submits a call and returns the handle of its job.
    ///
    /// It **blocks the calling thread** while the [window](ClusterBuilder::window) or the queue of
    /// the server is full. In async code, use [`submit_async`](Self::submit_async).
    ///
    /// Dropping the handle detaches the job, which still runs.
    ///
    /// [`cancel`](JoinHandle::cancel) returns `true` only for a job that was not yet sent. Else it
    /// returns `false`, and the handle resolves later: a default job that has not started is
    /// cancelled for certain, and a running job is asked to stop. In a worker with
    /// processes, it is killed. [`is_running`](JoinHandle::is_running) is true from when the job is
    /// sent.
    ///
    /// # Errors
    ///
    /// Errors are returned through the handle. Besides those of a
    /// [process pool](futurepool::ProcessPool::submit):
    ///
    /// - [`is_lost`](JoinError::is_lost): the worker died while it had the job.
    /// - [`is_disconnected`](JoinError::is_disconnected): the server was away for too long.
    /// - [`is_refused`](JoinError::is_refused): the task has no name, the arguments are larger than
    ///   64 MiB, the server or the worker refuses the job.
    /// - [`is_expired`](JoinError::is_expired): the [deadline](Call::deadline) passed.
    ///
    /// [`may_have_run`](JoinError::may_have_run) is exact: `false` means that the job never
    /// started and never will.
    #[doc(alias("delay", "apply_async", "remote", "send_task"))]
    #[track_caller]
    pub fn submit<T: Task>(&self, call: Call<T>) -> JoinHandle<T::Output> {
        self.submit_task(call)
    }

    /// Submits a call if there is room now. Never blocks.
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the call. It says whether the window or the server's queue
    /// [is full](SubmitError::is_full), or the cluster [is shut down](SubmitError::is_shutdown).
    #[track_caller]
    pub fn try_submit<T: Task>(
        &self,
        call: Call<T>,
    ) -> Result<JoinHandle<T::Output>, SubmitError<Call<T>>> {
        self.try_submit_task(call)
    }

    /// Submits a call, and waits for room without blocking the thread.
    ///
    /// # Errors
    ///
    /// The future returns a [`SubmitError`] with the call if the cluster is shut down.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, nothing was submitted.
    #[track_caller]
    pub fn submit_async<T: Task>(&self, call: Call<T>) -> SubmitAsync<T> {
        let (job, joined) = TaskJob::new(call);
        let handle = self.handle.clone();
        SubmitAsync::new(async move {
            let submitted = handle.submit_async(job).await;
            submitted.map(|()| joined).map_err(give_back)
        })
    }

    /// Submits each call of an iterator, and yields the outputs in the order of the calls.
    ///
    /// The map is lazy and has the methods of a [thread pool's](futurepool::ThreadPool::map). Each
    /// call is a job of its own. At most half of the window is submitted ahead.
    #[doc(alias("group", "starmap"))]
    #[track_caller]
    pub fn map<'a, T, I>(&'a self, calls: I) -> Map<'a, T::Output>
    where
        T: Task,
        I: IntoIterator<Item = Call<T>, IntoIter: Send + 'a>,
    {
        self.map_tasks(calls)
    }

    /// Submits each call of an iterator, and yields the outputs in completion order.
    ///
    /// In every other way it behaves like [`map`](Self::map).
    #[track_caller]
    pub fn map_unordered<'a, T, I>(&'a self, calls: I) -> MapUnordered<'a, T::Output>
    where
        T: Task,
        I: IntoIterator<Item = Call<T>, IntoIter: Send + 'a>,
    {
        self.map_tasks_unordered(calls)
    }

    /// Submits a call that survives this process, and returns once it is in the queue.
    ///
    /// Its outcome is kept for 24 hours under `key`, where [`attach`](Self::attach) finds it from
    /// any process. Dropping the handle, or the cluster, changes nothing for the job. A cancel of
    /// the handle does cancel it.
    ///
    /// It **blocks the calling thread** for a round trip to the server, and while there is no room.
    /// In async code, use [`submit_detached_async`](Self::submit_detached_async).
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the call. If a job with this key exists,
    /// [`is_duplicate_key`](SubmitError::is_duplicate_key) is true and nothing was submitted.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{task, tasks};
    /// use futurepool_cluster::{Cluster, MemoryBroker, Worker};
    ///
    /// #[task(name = "double")]
    /// fn double(n: u64) -> u64 {
    ///     2 * n
    /// }
    ///
    /// let broker = MemoryBroker::new();
    /// let cluster = Cluster::connect(&broker).build()?;
    /// cluster.submit_detached("order-17", double::call(21))?;
    /// drop(cluster); // the job waits
    ///
    /// let worker = Worker::new(tasks![double]).connect(&broker)?;
    /// let drain = worker.drain_handle();
    /// let worker = std::thread::spawn(|| worker.run());
    ///
    /// let cluster = Cluster::connect(&broker).build()?;
    /// let error = cluster.submit_detached("order-17", double::call(21)).unwrap_err();
    /// assert!(error.is_duplicate_key());
    /// assert_eq!(cluster.attach::<double>("order-17").join()?, 42);
    /// # drain.drain();
    /// # worker.join().unwrap()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("fire_and_forget", "AsyncResult", "task_id"))]
    #[track_caller]
    pub fn submit_detached<T: Task>(
        &self,
        key: &str,
        call: Call<T>,
    ) -> Result<JoinHandle<T::Output>, SubmitError<Call<T>>> {
        block_on(self.submit_detached_async(key, call))
    }

    /// Does what [`submit_detached`](Self::submit_detached) does, without blocking the thread.
    ///
    /// # Errors
    ///
    /// Those of `submit_detached`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the job may have been submitted.
    #[track_caller]
    pub fn submit_detached_async<T: Task>(&self, key: &str, call: Call<T>) -> SubmitAsync<T> {
        let (job, joined) = TaskJob::new(call);
        let (handle, key) = (self.handle.clone(), key.to_owned());
        SubmitAsync::new(async move {
            let submitted = handle.submit_detached(&key, job).await;
            submitted.map(|()| joined).map_err(give_back)
        })
    }

    /// Returns a handle of the detached job with this key, from any process.
    ///
    /// There can be any number of such handles, and each gets a copy of the output. Dropping one
    /// cancels nothing.
    ///
    /// # Errors
    ///
    /// Errors are returned through the handle. An unknown key, or a key of another task, is an error
    /// that [`is_refused`](JoinError::is_refused).
    #[doc(alias("AsyncResult", "get_actor", "Future"))]
    #[must_use = "dropping the handle changes nothing"]
    #[track_caller]
    pub fn attach<T: Task>(&self, key: &str) -> JoinHandle<T::Output> {
        self.handle.attach::<T>(key)
    }

    /// Returns the counts of this cluster's jobs.
    ///
    /// At any moment, `submitted` is the sum of `completed`, `panicked`, `cancelled`, `failed`,
    /// `lost` and `pending`.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.handle.counts().into()
    }

    /// Returns the greatest number of unresolved jobs.
    #[must_use]
    pub fn window(&self) -> usize {
        self.handle.window()
    }

    /// Returns whether the cluster accepts no more jobs.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        self.handle.is_shut_down()
    }

    /// Stops accepting jobs. The jobs that were accepted still run.
    ///
    /// The value resolves when every job has, and the cluster was left. Dropping it does not
    /// wait.
    pub fn shutdown(&self) -> Shutdown {
        self.handle.shutdown();
        self.end(0)
    }

    /// Stops accepting jobs, and cancels those that were accepted.
    ///
    /// [`Shutdown::cancelled`] says how many had not started. Running jobs are asked to stop, and the
    /// value resolves when they have. Detached jobs go on.
    #[doc(alias("terminate", "purge"))]
    pub fn shutdown_now(&self) -> Shutdown {
        let answer = self.handle.shutdown_now();
        // The I/O thread never blocks. Without it, nothing is left to cancel.
        self.end(block_on(answer).unwrap_or(0))
    }

    fn end(&self, cancelled: usize) -> Shutdown {
        // A callback must not wait for the thread that it runs on.
        let end = match is_resolving() {
            true => &self.left,
            false => &self.ended,
        };
        Shutdown {
            ended: end.wait(),
            cancelled,
        }
    }
}

/// Returns the call of a job that was not accepted.
fn give_back<T: Task>(error: SubmitError<TaskJob>) -> SubmitError<Call<T>> {
    error.map(|job| match job.into_call::<T>() {
        Ok(call) => call,
        Err(_) => unreachable!("the job was not accepted, and nothing has its handle yet"),
    })
}

impl TaskExecutor for Cluster {
    fn execute_task(&self, job: TaskJob) {
        self.handle.submit(job);
    }

    fn try_execute_task(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
        self.handle.try_submit(job)
    }

    fn max_in_flight(&self) -> Option<usize> {
        // So that a map never fills the window, where a submit blocks.
        Some((self.handle.window() / 2).max(1))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.handle.shutdown();
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take()
            && !thread::panicking()
            // A callback drops it: this thread must not wait for itself.
            && !is_resolving()
        {
            // The thread contains its panics.
            let _ = thread.join();
            let _ = self.ended.wait().join();
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}

/// The options of a new [`Cluster`]: see [`Cluster::connect`].
///
/// [`build`](Self::build) connects and blocks. Async code writes `.await` instead.
///
/// # Examples
///
/// ```
/// use futurepool_cluster::{Cluster, MemoryBroker};
///
/// # futurepool::block_on(async {
/// let cluster = Cluster::connect(MemoryBroker::new()).namespace("shop").window(1_000).await?;
/// assert_eq!(cluster.window(), 1_000);
/// # Ok::<(), futurepool_cluster::ConnectError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClusterBuilder {
    server: Server,
    namespace: Namespace,
    window: usize,
    disconnect_limit: Option<Duration>,
    no_worker_timeout: Option<Duration>,
}

impl ClusterBuilder {
    /// Sets the namespace. Members of different namespaces do not see each other.
    ///
    /// The default is `default`. A name has up to 128 letters, digits, `-` and `_`.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace.name = name.into();
        self
    }

    /// Sets the queue of the jobs. Workers choose the queue that they take jobs from.
    ///
    /// The default is `default`.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.namespace.queue = name.into();
        self
    }

    /// Limits how many jobs are unresolved at a time. The default is 10,000.
    ///
    /// This process keeps the arguments of these jobs, and some hundred bytes for each.
    pub fn window(mut self, jobs: usize) -> Self {
        self.window = jobs;
        self
    }

    /// Sets how long the server may be away until jobs fail. The default is 5 minutes.
    ///
    /// Then every unresolved job fails with an error that
    /// [`is_disconnected`](JoinError::is_disconnected). `None` waits forever.
    pub fn disconnect_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.disconnect_limit = limit.into();
        self
    }

    /// Sets how long a job waits while no live worker has its task. By default it waits forever.
    ///
    /// Then the job fails with an error that [`is_refused`](JoinError::is_refused). Without it, a
    /// `WARN` event says once that a task has no worker.
    pub fn no_worker_timeout(mut self, timeout: Duration) -> Self {
        self.no_worker_timeout = Some(timeout);
        self
    }

    /// Allows a server off this machine that lets everyone in: see [`Server::insecure`].
    pub fn insecure(mut self) -> Self {
        self.server = self.server.insecure();
        self
    }

    /// Sets the lease: the time in which a job of a dead worker is lost, or runs again.
    ///
    /// The default is 30 seconds. The first member of a namespace chooses for all later ones.
    #[doc(alias = "visibility_timeout")]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.namespace.settings.lease = lease;
        self
    }

    /// Sets how many servers keep each job: 1, 3 or 5. The default is 1.
    ///
    /// The first member of a namespace chooses for all later ones.
    pub fn replicas(mut self, servers: usize) -> Self {
        self.namespace.settings.replicas = servers;
        self
    }

    /// Limits the bytes of jobs that wait or run. The default is 1 GiB.
    ///
    /// A full queue refuses jobs, and loses none. The first member of a namespace chooses for all
    /// later ones.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.namespace.settings.queue_bytes = bytes;
        self
    }

    /// Connects, and makes the namespace if it is new. Blocks the calling thread.
    ///
    /// # Errors
    ///
    /// Returns a [`ConnectError`] if an option is invalid, no server can be reached in the
    /// [time for it](Server::connect_timeout), or the server refuses.
    pub fn build(self) -> Result<Cluster, ConnectError> {
        block_on(self.connect())
    }

    async fn connect(self) -> Result<Cluster, ConnectError> {
        self.namespace
            .check(self.server.options.identity.as_deref())?;
        if self.window == 0 {
            return Err(ConnectError::invalid("window", "it must be at least 1"));
        }
        let mut config = Config::new(String::new(), self.namespace.settings.clone());
        config.name = process_name();
        config.queue = self.namespace.queue.clone();
        config.window = self.window;
        config.disconnect_limit = self.disconnect_limit;
        config.no_worker_timeout = self.no_worker_timeout;
        let identity = self.server.options.identity.as_deref();
        let id = client_id(&mut fastrand::Rng::with_seed(config.seed));
        config.client = with_identity(identity, &id);

        let (handle, core) = Handle::new(&config);
        let (left, ended) = (Ended::new(), Ended::new());
        let leave = EndGuard(left.clone());
        // The last of the two threads drops it.
        let end = Arc::new(EndGuard(ended.clone()));
        let (report, connected) = oneshot::channel();
        let thread = io::spawn("futurepool-cluster", move || async move {
            let _leave = leave;
            self.serve(config, core, report, end).await;
        });
        let thread = thread.map_err(ConnectError::thread)?;
        match connected.await {
            Ok(Ok(())) => Ok(Cluster {
                handle,
                left,
                ended,
                thread: Mutex::new(Some(thread)),
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ConnectError::thread(std::io::Error::other(
                "the I/O thread has panicked",
            ))),
        }
    }

    /// Connects and serves the handles, on the I/O thread.
    async fn serve(
        self,
        config: Config,
        core: CoreParts,
        report: oneshot::Sender<Result<(), ConnectError>>,
        end: Arc<EndGuard>,
    ) {
        let connected = io::connect(&self.server, &self.namespace, &config.name).await;
        let (broker, settings) = match connected {
            Ok(connected) => connected,
            Err(error) => return drop(report.send(Err(error))),
        };
        let config = Config { settings, ..config };
        match broker {
            AnyBroker::Memory(broker) => serve_on(broker, config, core, report, end).await,
            AnyBroker::Nats(broker) => serve_on(*broker, config, core, report, end).await,
        }
    }
}

async fn serve_on<B: Broker>(
    broker: B,
    config: Config,
    core: CoreParts,
    report: oneshot::Sender<Result<(), ConnectError>>,
    end: Arc<EndGuard>,
) {
    let resolver = match ResolverThread::spawn("futurepool-resolve", Arc::clone(&end)) {
        Ok(resolver) => resolver,
        Err(error) => {
            let _ = report.send(Err(ConnectError::thread(error)));
            return;
        }
    };
    if report.send(Ok(())).is_ok() {
        let core = core.into_core(broker, config, Rc::new(resolver), Rc::new(|_, _| {}));
        core.run().await;
    }
}

impl IntoFuture for ClusterBuilder {
    type Output = Result<Cluster, ConnectError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.connect())
    }
}

type Submitted<T> = Result<JoinHandle<<T as Task>::Output>, SubmitError<Call<T>>>;

/// A submit that waits for room: see [`Cluster::submit_async`].
///
/// **Dropping it before it is ready submits nothing.**
#[must_use = "futures do nothing unless polled"]
pub struct SubmitAsync<T: Task> {
    future: Pin<Box<dyn Future<Output = Submitted<T>> + Send>>,
}

impl<T: Task> SubmitAsync<T> {
    fn new(future: impl Future<Output = Submitted<T>> + Send + 'static) -> Self {
        Self {
            future: Box::pin(future),
        }
    }
}

impl<T: Task> Future for SubmitAsync<T> {
    type Output = Submitted<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.future.as_mut().poll(context)
    }
}

impl<T: Task> fmt::Debug for SubmitAsync<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitAsync").finish_non_exhaustive()
    }
}

/// How this cluster's jobs ended, and how many have not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Jobs that were accepted.
    pub submitted: u64,
    /// Jobs that returned. A function's own error counts here.
    pub completed: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Jobs that expired, exceeded a limit, crashed, were refused by a worker, or whose arguments or
    /// output could not be encoded or decoded.
    pub failed: u64,
    /// Jobs that are lost, or were reported as disconnected.
    pub lost: u64,
    /// Jobs that have not resolved.
    pub pending: u64,
    /// Calls that were not accepted, so they are not in `submitted`.
    pub rejected: u64,
    /// How often the server has lost what it had confirmed, for example after a power failure.
    pub rollbacks: u64,
}

impl From<crate::submitter::metrics::Counts> for Metrics {
    fn from(counts: crate::submitter::metrics::Counts) -> Self {
        let crate::submitter::metrics::Counts {
            submitted,
            completed,
            panicked,
            cancelled,
            lost,
            failed,
            pending,
            rejected,
            rollbacks,
        } = counts;
        Self {
            submitted,
            completed,
            panicked,
            cancelled,
            failed,
            lost,
            pending,
            rejected,
            rollbacks,
        }
    }
}

/// The end of a [`Cluster`]: async code awaits it, sync code [joins](Self::join) it.
///
/// **Dropping it does not wait.** The shutdown goes on.
#[must_use = "dropping it does not wait"]
#[derive(Debug)]
pub struct Shutdown {
    ended: JoinHandle<()>,
    cancelled: usize,
}

impl Shutdown {
    /// Returns how many jobs [`Cluster::shutdown_now`] has cancelled before they started.
    #[must_use]
    pub fn cancelled(&self) -> usize {
        self.cancelled
    }

    /// Blocks until every job has resolved and the cluster was left.
    pub fn join(self) {
        // It is resolved with a value only.
        let _ = self.ended.join();
    }

    /// Does what [`join`](Self::join) does, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// Returns an error that [`is_timeout`](JoinError::is_timeout). The shutdown goes on, and can be
    /// waited for again.
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<(), JoinError> {
        self.ended.join_timeout(timeout)
    }
}

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.ended).poll(context).map(drop)
    }
}

/// Tells when something has ended. A clone tells of the same end.
#[derive(Debug, Clone)]
struct Ended {
    /// The promises of those that wait. `None`: it has ended.
    waiting: Arc<Mutex<Option<Vec<Promise<()>>>>>,
}

impl Ended {
    fn new() -> Self {
        Self {
            waiting: Arc::new(Mutex::new(Some(Vec::new()))),
        }
    }

    #[track_caller]
    fn wait(&self) -> JoinHandle<()> {
        let (promise, handle) = promise();
        promise.set_running();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiting {
            Some(waiting) => waiting.push(promise),
            None => {
                drop(waiting);
                let _ = promise.complete(());
            }
        }
        handle
    }
}

/// Marks the end when it is dropped.
struct EndGuard(Ended);

impl Drop for EndGuard {
    fn drop(&mut self) {
        let mut waiting = self
            .0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let promises = waiting.take();
        drop(waiting);
        for promise in promises.into_iter().flatten() {
            // It runs wakers, for which nothing on this thread waits.
            let _ = promise.complete(());
        }
    }
}
