//! The worker's public face.

use std::convert::Infallible;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futurepool::{TaskEntry, TaskExecutor, Tasks, ThreadPool, block_on};
use tokio::sync::oneshot;

use crate::broker::Broker;
use crate::error::{ConnectError, WorkerError};
use crate::io::{self, AnyBroker};
use crate::namespace::{Namespace, host, process_name, with_identity};
use crate::protocol::names;
use crate::protocol::settings::Settings;
use crate::server::Server;
#[cfg(feature = "cli")]
use crate::status::{self, page::Page};
use crate::worker::{Control, Core, ExecutorRunner, Options};

/// The most tasks and versions of a worker. Each is a consumer at the server.
const MAX_TASKS: usize = 64;

/// The most jobs that a worker runs at once.
const MAX_SLOTS: usize = 1 << 20;

/// A program that runs the tasks of a cluster: its options, before it connects.
///
/// A worker runs its tasks in [threads](Self::threads), or in [processes](Self::processes), where
/// a running job can be killed and a crash harms only its job. It never receives a task or a
/// version that it does not have.
///
/// # Examples
///
/// ```no_run
/// use futurepool::{task, tasks};
/// use futurepool_cluster::Worker;
///
/// #[task(name = "double")]
/// fn double(n: u64) -> u64 {
///     2 * n
/// }
///
/// // Runs until SIGTERM or Ctrl-C.
/// Worker::new(tasks![double]).queue("default").threads(8).connect("nats://nats-1:4222")?.run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("celery worker", "dask worker", "ray start"))]
#[must_use = "a worker does nothing until it is connected and run"]
pub struct Worker {
    tasks: Tasks,
    namespace: Namespace,
    executor: Executing,
    grace: Duration,
    insecure: bool,
    handle_signals: bool,
    on_step: Option<StepHook>,
    console: Option<String>,
    #[cfg(feature = "cli")]
    page: Option<PageOptions>,
}

/// Where the status page is served.
#[cfg(feature = "cli")]
struct PageOptions {
    listen: String,
    token: Option<String>,
}

/// Called with a step of the protocol and the id of a job.
type StepHook = Box<dyn Fn(&'static str, &str) + Send>;

/// What runs the tasks.
enum Executing {
    Threads(usize),
    #[cfg(feature = "process")]
    Processes(Box<futurepool::ProcessPoolBuilder>),
    Other(Arc<dyn TaskExecutor>, usize),
}

impl Worker {
    /// Creates the options of a worker that runs these tasks, in as many threads as there are
    /// processors.
    ///
    /// [`tasks!`](futurepool::tasks) makes the list. Each task needs a name of its own:
    /// `#[task(name = "…")]`.
    pub fn new(tasks: Tasks) -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            tasks,
            namespace: Namespace::default(),
            executor: Executing::Threads(processors),
            grace: Duration::from_secs(30),
            insecure: false,
            handle_signals: true,
            on_step: None,
            console: None,
            #[cfg(feature = "cli")]
            page: None,
        }
    }

    /// Sets the queue from which the worker takes jobs. The default is `default`.
    #[doc(alias = "queues")]
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.namespace.queue = name.into();
        self
    }

    /// Sets the namespace. The default is `default`.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace.name = name.into();
        self
    }

    /// Runs up to so many tasks at once, each in a thread.
    ///
    /// A thread cannot be stopped: a call with a [time limit](futurepool::Call::time_limit) is
    /// refused, and a cancel only sets the [request](futurepool::cancel_requested()).
    #[doc(alias("concurrency", "nthreads", "num_cpus"))]
    pub fn threads(mut self, threads: usize) -> Self {
        self.executor = Executing::Threads(threads);
        self
    }

    /// Runs tasks in processes of this pool, as many at once as it has workers.
    ///
    /// A cancel kills a running job. Time limits and memory limits work, and a crash harms only its
    /// job. The program must call [`process::init`](futurepool::process::init) first in `main`.
    #[cfg(feature = "process")]
    #[doc(alias("prefork", "nprocs"))]
    pub fn processes(mut self, pool: futurepool::ProcessPoolBuilder) -> Self {
        self.executor = Executing::Processes(Box::new(pool));
        self
    }

    /// Runs up to `slots` tasks at once in any executor.
    ///
    /// The executor must accept that many without blocking, and must not run them on the thread that
    /// submits.
    pub fn executor(mut self, executor: impl TaskExecutor + 'static, slots: usize) -> Self {
        self.executor = Executing::Other(Arc::new(executor), slots);
        self
    }

    /// Sets how long a drain waits for running jobs. The default is 30 seconds.
    ///
    /// Then it asks them to stop, or kills them if they run in processes. A job that still runs
    /// when the worker exits is lost, or runs again elsewhere if its task is idempotent.
    #[doc(alias = "soft_shutdown_timeout")]
    pub fn drain_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Leaves SIGTERM and Ctrl-C to the program, which then uses
    /// [`drain_handle`](ConnectedWorker::drain_handle).
    pub fn no_signals(mut self) -> Self {
        self.handle_signals = false;
        self
    }

    /// Allows a server off this machine that lets everyone in: see [`Server::insecure`].
    pub fn insecure(mut self) -> Self {
        self.insecure = true;
        self
    }

    /// Sets the lease of a new namespace: see
    /// [`ClusterBuilder::lease`](crate::ClusterBuilder::lease).
    pub fn lease(mut self, lease: Duration) -> Self {
        self.namespace.settings.lease = lease;
        self
    }

    /// Sets how many servers keep each job of a new namespace: see
    /// [`ClusterBuilder::replicas`](crate::ClusterBuilder::replicas).
    pub fn replicas(mut self, servers: usize) -> Self {
        self.namespace.settings.replicas = servers;
        self
    }

    /// Limits the bytes of jobs of a new namespace: see
    /// [`ClusterBuilder::queue_bytes`](crate::ClusterBuilder::queue_bytes).
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.namespace.settings.queue_bytes = bytes;
        self
    }

    /// Tells where this program serves its console, for example `http://10.0.0.7:6670/`.
    ///
    /// The status page then has a link to it beside the worker. The console itself is that of the
    /// crate `futurepool` with its feature `console`, which the program serves with
    /// `futurepool::console::builder`. A browser must be able to reach the address. All that can see
    /// the status page see it, so leave the token out: the console asks for it.
    #[doc(alias = "dashboard")]
    pub fn console(mut self, url: impl Into<String>) -> Self {
        self.console = Some(url.into());
        self
    }

    /// Serves the status page of the namespace at an address such as `127.0.0.1:6680`.
    ///
    /// It is the page of `futurepool-cluster serve`: workers with what they run, queues, rates, and
    /// `/metrics` for Prometheus. Only an address of this machine is allowed: see
    /// [`status_page_with_token`](Self::status_page_with_token).
    #[cfg(feature = "cli")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cli")))]
    #[doc(alias("flower", "dashboard"))]
    pub fn status_page(mut self, listen: impl Into<String>) -> Self {
        self.page = Some(PageOptions {
            listen: listen.into(),
            token: None,
        });
        self
    }

    /// Serves the status page at any address, to those that know the token.
    #[cfg(feature = "cli")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cli")))]
    pub fn status_page_with_token(
        mut self,
        listen: impl Into<String>,
        token: impl Into<String>,
    ) -> Self {
        self.page = Some(PageOptions {
            listen: listen.into(),
            token: Some(token.into()),
        });
        self
    }

    /// Calls a function after each step of the protocol, with the step and the id of the job.
    ///
    /// Tests kill or stop the worker in it. It runs on the I/O thread.
    #[doc(hidden)]
    pub fn on_step(mut self, hook: impl Fn(&'static str, &str) + Send + 'static) -> Self {
        self.on_step = Some(Box::new(hook));
        self
    }

    /// Connects to a server, and makes the namespace if it is new. Blocks the calling thread.
    ///
    /// `server` is what [`Cluster::connect`](crate::Cluster::connect) takes. No job is taken before
    /// [`run`](ConnectedWorker::run).
    ///
    /// # Errors
    ///
    /// Returns a [`ConnectError`] if an option is invalid, a task has no name of its own, no server
    /// can be reached in the [time for it](Server::connect_timeout), or the server refuses.
    pub fn connect(self, server: impl Into<Server>) -> Result<ConnectedWorker, ConnectError> {
        let mut server = server.into();
        self.namespace.check(server.options.identity.as_deref())?;
        check_tasks(&self.tasks, &self.namespace.queue)?;
        if let Some(url) = self.console.as_deref().filter(|url| !is_link(url)) {
            let problem = format!("`{url}` is no address that begins with http:// or https://");
            return Err(ConnectError::invalid("console", problem));
        }
        server.options.insecure |= self.insecure;
        #[cfg(feature = "cli")]
        let page = match &self.page {
            None => None,
            Some(options) => {
                let bound = Page::bind(&options.listen, options.token.as_deref());
                let bound = bound
                    .map_err(|error| ConnectError::invalid("status_page", error.to_string()))?;
                Some(bound)
            }
        };
        let (executor, slots) = self.executor.start()?;
        if !(1..=MAX_SLOTS).contains(&slots) {
            let problem = format!("{slots} are not possible: use 1 to {MAX_SLOTS}");
            return Err(ConnectError::invalid("slots", problem));
        }
        let mut rng = fastrand::Rng::new();
        let suffix: String = (0..6).map(|_| rng.alphanumeric()).collect();
        let own = format!("{}-{}-{suffix}", names::token(&host()), std::process::id());
        let id = with_identity(server.options.identity.as_deref(), &own);
        let member = Member {
            id: id.clone(),
            namespace: self.namespace,
            tasks: self.tasks,
            slots,
            grace: self.grace,
            handle_signals: self.handle_signals,
            on_step: self.on_step,
            console: self.console,
            executor,
            seed: rng.u64(..),
            #[cfg(feature = "cli")]
            page,
            #[cfg(feature = "cli")]
            server: server.shown(),
            #[cfg(feature = "cli")]
            identity: server.options.identity.clone(),
        };
        let (report, connected) = oneshot::channel();
        let (start, started) = oneshot::channel();
        let (finish, finished) = oneshot::channel();
        let thread = io::spawn("futurepool-worker", move || async move {
            let result = member.serve(server, report, started).await;
            let _ = finish.send(result);
        });
        let thread = thread.map_err(ConnectError::thread)?;
        let control = match block_on(connected) {
            Ok(result) => result?,
            Err(_) => return Err(ConnectError::thread(std::io::Error::other("it panicked"))),
        };
        Ok(ConnectedWorker {
            id,
            control,
            start,
            finished,
            thread,
        })
    }
}

fn check_tasks(tasks: &Tasks, queue: &str) -> Result<(), ConnectError> {
    let invalid = |problem: String| Err(ConnectError::invalid("tasks", problem));
    if tasks.is_empty() {
        return invalid("the list is empty: name the tasks, as in `tasks![double]`".to_owned());
    }
    if tasks.len() > MAX_TASKS {
        return invalid(format!(
            "{} are too many: the most are {MAX_TASKS}",
            tasks.len()
        ));
    }
    if let Some(task) = tasks.iter().find(|task| !task.is_named()) {
        return invalid(format!(
            "the task {:?} needs a name of its own, since the paths of modules differ between \
             programs: `#[task(name = \"…\")]`",
            task.name()
        ));
    }
    let subject = |task: &TaskEntry| names::job_subject(queue, task.name(), task.version());
    let is_long = |task: &&TaskEntry| subject(task).len() > names::MAX_JOB_SUBJECT;
    if let Some(task) = tasks.iter().find(is_long) {
        return invalid(format!(
            "the name {:?} is too long together with that of the queue",
            task.name()
        ));
    }
    match tasks.check() {
        Ok(()) => Ok(()),
        Err(error) => invalid(error.to_string()),
    }
}

impl Executing {
    fn start(self) -> Result<(Arc<dyn TaskExecutor>, usize), ConnectError> {
        match self {
            Self::Threads(0) => Err(ConnectError::invalid("threads", "there must be at least 1")),
            Self::Threads(threads) => {
                let pool = ThreadPool::builder()
                    .max_workers(threads)
                    .thread_name_prefix("task")
                    .build();
                match pool {
                    Ok(pool) => Ok((Arc::new(pool), threads)),
                    Err(error) => Err(ConnectError::invalid("threads", error.to_string())),
                }
            }
            #[cfg(feature = "process")]
            Self::Processes(builder) => match builder.build() {
                Ok(pool) => {
                    let slots = pool.max_workers();
                    Ok((Arc::new(pool), slots))
                }
                Err(error) => Err(ConnectError::invalid("processes", error.to_string())),
            },
            Self::Other(executor, slots) => Ok((executor, slots)),
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("tasks", &self.tasks)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// What the I/O thread of a worker gets.
struct Member {
    id: String,
    namespace: Namespace,
    tasks: Tasks,
    slots: usize,
    grace: Duration,
    handle_signals: bool,
    on_step: Option<StepHook>,
    console: Option<String>,
    executor: Arc<dyn TaskExecutor>,
    seed: u64,
    #[cfg(feature = "cli")]
    page: Option<Page>,
    /// For the page: the address, without secrets.
    #[cfg(feature = "cli")]
    server: String,
    #[cfg(feature = "cli")]
    identity: Option<String>,
}

type Report = oneshot::Sender<Result<Control, ConnectError>>;

impl Member {
    async fn serve(
        self,
        server: Server,
        report: Report,
        started: oneshot::Receiver<()>,
    ) -> Result<(), WorkerError> {
        let connected = io::connect(&server, &self.namespace, &self.id).await;
        let (broker, settings) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                let _ = report.send(Err(error));
                return Ok(());
            }
        };
        match broker {
            AnyBroker::Memory(broker) => self.serve_on(broker, settings, report, started).await,
            AnyBroker::Nats(broker) => self.serve_on(*broker, settings, report, started).await,
        }
    }

    async fn serve_on<B: Broker>(
        self,
        broker: B,
        settings: Settings,
        report: Report,
        started: oneshot::Receiver<()>,
    ) -> Result<(), WorkerError> {
        #[cfg(feature = "cli")]
        let page = serve_page(
            self.page,
            broker.clone(),
            self.namespace.name,
            self.server,
            self.identity,
        );
        #[cfg(not(feature = "cli"))]
        let page = std::future::pending::<Infallible>();
        let options = Options {
            id: self.id,
            name: process_name(),
            queue: self.namespace.queue,
            tasks: self.tasks,
            slots: self.slots,
            grace: self.grace,
            settings,
            seed: self.seed,
            console: self.console,
            steps: self.on_step.map(|hook| Rc::new(hook) as Rc<_>),
        };
        let runner = Rc::new(ExecutorRunner::new(Arc::clone(&self.executor)));
        let (core, control) = Core::new(broker.clone(), options, runner);
        let _ = report.send(Ok(control.clone()));
        // Dropped without a run: it has taken nothing.
        if started.await.is_err() {
            broker.close().await;
            return Ok(());
        }
        let signals = async {
            match self.handle_signals {
                true => drain_on_signals(&control).await,
                false => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            biased;
            ended = core.run() => ended,
            never = signals => match never {},
            never = page => match never {},
        };
        end_executor(self.executor).await;
        ended.map_err(|failure| WorkerError(failure.to_string()))
    }
}

/// Returns whether a page can link to an address: it is short, and runs nothing.
fn is_link(url: &str) -> bool {
    let is_web = url.starts_with("http://") || url.starts_with("https://");
    is_web && url.len() <= 200 && !url.contains(char::is_whitespace)
}

/// How long an executor may take to end. A task that runs on and on keeps a pool of threads.
const EXECUTOR_END: Duration = Duration::from_secs(2);

/// Drops the executor, which ends its threads or processes, and waits a moment for it.
///
/// The drop blocks while a task runs, so it has a thread of its own.
async fn end_executor(executor: Arc<dyn TaskExecutor>) {
    let (done, dropped) = oneshot::channel::<()>();
    let builder = thread::Builder::new().name("futurepool-end".to_owned());
    let _ = builder.spawn(move || {
        let _done = done;
        drop(executor);
    });
    if tokio::time::timeout(EXECUTOR_END, dropped).await.is_err() {
        tracing::warn!("tasks of the worker still run, until the program ends");
    }
}

/// Serves the status page, if there is one. A page that fails does not end the worker.
#[cfg(feature = "cli")]
async fn serve_page<B: Broker>(
    page: Option<Page>,
    broker: B,
    namespace: String,
    server: String,
    identity: Option<String>,
) -> Infallible {
    if let Some(page) = page {
        let served = status::serve(page, broker, &namespace, &server, identity.as_deref()).await;
        let Err(error) = served;
        tracing::error!(%error, "the status page is no longer served");
    }
    std::future::pending().await
}

/// Drains the worker at the first signal, and stops it at the second.
#[cfg(unix)]
async fn drain_on_signals(control: &Control) -> Infallible {
    use tokio::signal::unix::{SignalKind, signal};

    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::warn!("signals cannot be caught, so they end the worker at once");
        return std::future::pending().await;
    };
    for count in 1_u64.. {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        on_signal(control, count);
    }
    std::future::pending().await
}

#[cfg(not(unix))]
async fn drain_on_signals(control: &Control) -> Infallible {
    for count in 1_u64.. {
        if tokio::signal::ctrl_c().await.is_err() {
            tracing::warn!("Ctrl-C cannot be caught, so it ends the worker at once");
            break;
        }
        on_signal(control, count);
    }
    std::future::pending().await
}

/// The first signal may come to a worker that was drained in another way.
fn on_signal(control: &Control, count: u64) {
    match count {
        1 => {
            tracing::info!("a signal came: the worker drains. A second one stops it");
            control.drain();
        }
        _ => control.stop(),
    }
}

/// A worker that is connected, and takes no jobs yet.
///
/// **Dropping it** leaves the cluster. It has taken no job.
#[must_use = "a worker takes no jobs until `run` is called"]
pub struct ConnectedWorker {
    id: String,
    control: Control,
    start: oneshot::Sender<()>,
    finished: oneshot::Receiver<Result<(), WorkerError>>,
    thread: thread::JoinHandle<()>,
}

impl ConnectedWorker {
    /// Returns the id of the worker, which errors and the status page show.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns a handle that drains the worker, from any thread.
    #[must_use]
    pub fn drain_handle(&self) -> DrainHandle {
        DrainHandle {
            control: self.control.clone(),
        }
    }

    /// Takes jobs and runs them, until the worker is drained. Blocks the calling thread.
    ///
    /// SIGTERM, Ctrl-C and [`DrainHandle::drain`] drain it: it takes nothing more, gives back what
    /// has not started, and waits for what runs up to a [grace](Worker::drain_grace). A second
    /// signal ends the wait.
    ///
    /// # Errors
    ///
    /// Returns a [`WorkerError`] if the worker cannot run tasks, for example because an initializer
    /// fails again and again. It has given back what it held.
    pub fn run(self) -> Result<(), WorkerError> {
        let Self {
            start,
            finished,
            thread,
            ..
        } = self;
        let _ = start.send(());
        let result = block_on(finished);
        // It has sent its result, or panicked.
        let joined = thread.join();
        match (result, joined) {
            (Ok(result), Ok(())) => result,
            _ => Err(WorkerError(
                "the I/O thread of the worker has panicked".to_owned(),
            )),
        }
    }
}

impl fmt::Debug for ConnectedWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectedWorker")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Drains a worker: see [`ConnectedWorker::drain_handle`]. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct DrainHandle {
    control: Control,
}

impl DrainHandle {
    /// Asks the worker to take no more jobs, and to end once those that run have ended.
    ///
    /// It returns at once. [`ConnectedWorker::run`] returns when the worker has ended.
    #[doc(alias("warm_shutdown", "retire_workers"))]
    pub fn drain(&self) {
        self.control.drain();
    }

    /// Asks the worker to end without waiting for the jobs that run.
    ///
    /// They are asked to stop. Jobs that still run when the program ends are lost, or run again
    /// elsewhere if their task is idempotent.
    #[doc(alias = "cold_shutdown")]
    pub fn stop(&self) {
        self.control.stop();
    }
}
