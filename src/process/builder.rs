//! The options of a pool of worker processes, and what the pool keeps of them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::call::codec::{CodecError, Payload, contained};
use crate::call::{Call, CallInfo, Task, decode_output};
use crate::error::BuildError;
use crate::pool::observer::OnJob;
use crate::pool::{InitializerOutput, JobEvent, ThreadPool};
use crate::process::init::{self, Entry};
use crate::process::line::OutputLine;
use crate::process::pool::ProcessPool;
use crate::util::sealed::PRIVATE;

/// How deep pools can be nested: a pool in a worker of a pool.
const MAX_DEPTH: u32 = 10;

/// The stack of the threads that encode arguments and decode results: that of most main threads,
/// because nested values take a frame for each level.
const STACK_SIZE: usize = 8 << 20;

/// The options of a new [`ProcessPool`]: see [`ProcessPool::builder`].
///
/// # Examples
///
/// ```standalone_crate
/// use std::time::Duration;
///
/// use futurepool::{ProcessPool, process};
///
/// fn main() -> Result<(), futurepool::BuildError> {
///     process::init();
///     let pool = ProcessPool::builder()
///         .max_workers(4)
///         .queue_capacity(1_000)
///         .time_limit(Duration::from_secs(5))
///         .max_jobs_per_worker(10_000)
///         .build()?;
///     assert_eq!(pool.max_workers(), 4);
///     Ok(())
/// }
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct ProcessPoolBuilder {
    name: Option<String>,
    max_workers: Option<usize>,
    prestart: usize,
    keep_alive: Option<Duration>,
    queue_capacity: Option<usize>,
    queue_timeout: Option<Duration>,
    program: Option<PathBuf>,
    timings: bool,
    on_job: Option<OnJob>,
    initializer: Option<Result<Initializer, String>>,
    config: Config,
}

/// What the threads and workers of a pool need of its options.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) program: Program,
    /// `None` removes a variable.
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
    pub(crate) env_clear: bool,
    pub(crate) current_dir: Option<PathBuf>,
    pub(crate) nice: Option<i32>,
    pub(crate) stdout: StdioKind,
    pub(crate) stderr: StdioKind,
    pub(crate) start_timeout: Duration,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) cancel_grace: Duration,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) address_space_limit: Option<u64>,
    pub(crate) max_jobs_per_worker: Option<u64>,
    pub(crate) recycle_above: Option<u64>,
    pub(crate) retry_on_crash: u32,
    pub(crate) max_payload: u64,
    pub(crate) initializer: Option<Initializer>,
    /// How many pools the workers are nested in.
    pub(crate) depth: u32,
}

#[derive(Debug)]
pub(crate) enum Program {
    Own(Entry),
    Path(PathBuf),
}

/// A call that each worker runs before its first job.
#[derive(Debug)]
pub(crate) struct Initializer {
    pub(crate) info: CallInfo,
    pub(crate) call: Payload,
    /// Returns the error of the function, if its output is one.
    pub(crate) check: fn(Payload) -> Result<(), String>,
}

type OnLine = Arc<dyn Fn(OutputLine<'_>) + Send + Sync>;

/// What becomes of the output of worker processes: see [`ProcessPoolBuilder::stderr`].
#[derive(Clone)]
pub struct WorkerStdio(pub(crate) StdioKind);

#[derive(Clone)]
pub(crate) enum StdioKind {
    Inherit,
    Null,
    Tee,
    Lines(OnLine),
}

impl WorkerStdio {
    /// Returns an output that goes where that of this process goes. The pool does not read it.
    #[must_use]
    pub fn inherit() -> Self {
        Self(StdioKind::Inherit)
    }

    /// Returns an output that is discarded.
    #[must_use]
    pub fn null() -> Self {
        Self(StdioKind::Null)
    }

    /// Returns an output that the pool reads, and passes on to its own.
    ///
    /// The pool keeps the last 4 KiB of a worker's stderr for
    /// [`JoinError::worker_output`](crate::JoinError::worker_output).
    #[must_use]
    pub fn tee() -> Self {
        Self(StdioKind::Tee)
    }

    /// Returns an output of which `f` gets each line, with the worker and the job.
    ///
    /// `f` runs on a thread of the pool. While it runs, the output of all workers waits. A panic in
    /// it is reported through `tracing`. The pool keeps the last lines, as for [`tee`](Self::tee).
    #[must_use]
    pub fn lines(f: impl Fn(OutputLine<'_>) + Send + Sync + 'static) -> Self {
        Self(StdioKind::Lines(Arc::new(f)))
    }
}

/// The same as the functions above, for those that expect the variants of an enum.
#[allow(non_upper_case_globals, non_snake_case)]
impl WorkerStdio {
    /// See [`inherit`](Self::inherit).
    #[doc(hidden)]
    pub const Inherit: Self = Self(StdioKind::Inherit);
    /// See [`null`](Self::null).
    #[doc(hidden)]
    pub const Null: Self = Self(StdioKind::Null);
    /// See [`tee`](Self::tee).
    #[doc(hidden)]
    pub const Tee: Self = Self(StdioKind::Tee);

    /// See [`lines`](Self::lines).
    #[doc(hidden)]
    #[must_use]
    pub fn Lines(f: impl Fn(OutputLine<'_>) + Send + Sync + 'static) -> Self {
        Self::lines(f)
    }
}

impl fmt::Debug for WorkerStdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for StdioKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inherit => "Inherit",
            Self::Null => "Null",
            Self::Tee => "Tee",
            Self::Lines(_) => "Lines",
        })
    }
}

impl ProcessPoolBuilder {
    pub(crate) fn new() -> Self {
        Self {
            name: None,
            max_workers: None,
            prestart: 0,
            keep_alive: None,
            queue_capacity: None,
            queue_timeout: None,
            timings: false,
            on_job: None,
            program: None,
            initializer: None,
            config: Config {
                program: Program::Own(Entry::Main),
                env: Vec::new(),
                env_clear: false,
                current_dir: None,
                nice: None,
                stdout: StdioKind::Inherit,
                stderr: StdioKind::Tee,
                start_timeout: Duration::from_secs(10),
                time_limit: None,
                cancel_grace: Duration::ZERO,
                memory_limit: None,
                address_space_limit: None,
                max_jobs_per_worker: None,
                recycle_above: None,
                retry_on_crash: 0,
                max_payload: 1 << 30,
                initializer: None,
                depth: 1,
            },
        }
    }

    /// Names the pool. The default is `futurepool-N`, where `N` is unique for each pool.
    ///
    /// The console, `tracing` events and the metrics of the feature `metrics` show the name. The
    /// pool has a thread in this process for each worker, which is named `{name}-{n}`. Worker
    /// processes are named after their program.
    ///
    /// # Examples
    ///
    /// ```standalone_crate
    /// use futurepool::{ProcessPool, process};
    ///
    /// fn main() -> Result<(), futurepool::BuildError> {
    ///     process::init();
    ///     let thumbnails = ProcessPool::builder().name("thumbnails").build()?;
    ///     assert!(!thumbnails.is_shutdown());
    ///     Ok(())
    /// }
    /// ```
    #[doc(alias = "thread_name_prefix")]
    #[doc(alias = "pool_name")]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the maximum number of worker processes, at least 1.
    ///
    /// The default is the number of available processors, and 1 for a pool in a worker of another
    /// pool. Workers start on demand. One more can exist for a moment, while it replaces another
    /// one.
    pub fn max_workers(mut self, workers: usize) -> Self {
        self.max_workers = Some(workers);
        self
    }

    /// Starts `workers` worker processes with the pool, up to the maximum. By default they start
    /// with the first jobs.
    pub fn prestart(mut self, workers: usize) -> Self {
        self.prestart = workers;
        self
    }

    /// Sets how long an idle worker waits before it ends. By default idle workers stay.
    #[doc(alias = "timeout")]
    pub fn keep_alive(mut self, timeout: Duration) -> Self {
        self.keep_alive = Some(timeout);
        self
    }

    /// Limits the number of queued jobs to `jobs`, at least 1. By default there is no limit.
    ///
    /// See [`ThreadPoolBuilder::queue_capacity`](crate::ThreadPoolBuilder::queue_capacity).
    pub fn queue_capacity(mut self, jobs: usize) -> Self {
        self.queue_capacity = Some(jobs);
        self
    }

    /// Limits how long a job can wait for its start. By default there is no limit.
    ///
    /// See [`ThreadPoolBuilder::queue_timeout`](crate::ThreadPoolBuilder::queue_timeout). A call's
    /// own [deadline](Call::deadline) can only be earlier. A job has started when it leaves the
    /// queue for a worker process. In a map of calls the limit is for each job, which can have many
    /// calls.
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.queue_timeout = Some(timeout);
        self
    }

    /// Sets whether the pool measures how long jobs wait and run. By default it does not.
    ///
    /// See [`ThreadPoolBuilder::timings`](crate::ThreadPoolBuilder::timings). The label of a job is
    /// the [label](Call::label) of the call if that is a `&'static str`, and otherwise the name of
    /// the task. The run time includes the way to the worker process and back, and the start of
    /// that process if there is none. A map of calls counts by jobs, and a job can have many calls.
    pub fn timings(mut self, timings: bool) -> Self {
        self.timings = timings;
        self
    }

    /// Calls `hook` with each event of a job: see
    /// [`ThreadPoolBuilder::on_job`](crate::ThreadPoolBuilder::on_job).
    ///
    /// It runs in this process. Labels are those of [`timings`](Self::timings).
    pub fn on_job(mut self, hook: impl Fn(&JobEvent) + Send + Sync + 'static) -> Self {
        self.on_job = Some(Box::new(hook));
        self
    }

    /// Limits how long a job may run. By default there is no limit.
    ///
    /// The time counts from the start of the job. A job that exceeds it is killed with its worker
    /// process, and its handle returns an error that
    /// [`is_time_limit`](crate::JoinError::is_time_limit). Other jobs are not affected. In a map
    /// the limit is for each item. A call's own [limit](Call::time_limit) can only be shorter.
    #[doc(alias = "timeout")]
    #[doc(alias = "task_timeout")]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.config.time_limit = Some(limit);
        self
    }

    /// Sets how long a cancelled job may go on before its process is killed. The default is 0.
    ///
    /// Meanwhile [`cancel_requested`](crate::cancel_requested) returns `true` in the worker. A job
    /// that returns in time ends with its process, and its result is dropped.
    #[doc(alias = "term_timeout")]
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.config.cancel_grace = grace;
        self
    }

    /// Limits the resident memory of a worker, in bytes. By default there is no limit. Only on
    /// Linux.
    ///
    /// The pool looks at the memory every 20 ms while a job runs, and at that of the worker's
    /// children every 200 ms. Memory that is shared with other processes, such as that of the
    /// program's file, does not count. A job that exceeds the limit is killed, and its handle
    /// returns an error that [`is_memory_limit`](crate::JoinError::is_memory_limit). Memory that
    /// earlier jobs have left in the worker counts, too: see
    /// [`recycle_above`](Self::recycle_above). Between two looks a job can exceed the limit by what
    /// it can allocate in that time: some gigabytes a second. For a hard limit, see
    /// [`address_space_limit`](Self::address_space_limit).
    #[doc(alias = "max_memory_per_child")]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.config.memory_limit = Some(bytes);
        self
    }

    /// Limits the address space of each worker process, in bytes. By default there is no limit.
    ///
    /// The system enforces it: an allocation that exceeds it fails, which aborts most programs. It
    /// also counts memory that is reserved and never used, such as the stacks of threads.
    #[doc(alias = "RLIMIT_AS")]
    pub fn address_space_limit(mut self, bytes: u64) -> Self {
        self.config.address_space_limit = Some(bytes);
        self
    }

    /// Replaces a worker after `jobs` jobs, at least 1. By default workers are not replaced.
    ///
    /// The replacement starts while the last job runs, and runs its
    /// [initializer](Self::initializer), so that no job waits for it. If several workers are due at
    /// once, only one of them is replaced that early.
    #[doc(alias = "max_tasks_per_child")]
    #[doc(alias = "maxtasksperchild")]
    #[doc(alias = "max_tasks")]
    pub fn max_jobs_per_worker(mut self, jobs: u64) -> Self {
        self.config.max_jobs_per_worker = Some(jobs);
        self
    }

    /// Replaces a worker whose resident memory exceeds `bytes` after a job. Only on Linux.
    pub fn recycle_above(mut self, bytes: u64) -> Self {
        self.config.recycle_above = Some(bytes);
        self
    }

    /// Runs a job again, up to `times` times, if its worker crashes. The default is 0.
    ///
    /// This is only for tasks that are `idempotent`: the job may have run before. The number of
    /// starts in all never exceeds the task's `attempts`. A job that no worker has begun goes to
    /// another worker in any case.
    #[doc(alias = "max_retries")]
    pub fn retry_on_crash(mut self, times: u32) -> Self {
        self.config.retry_on_crash = times;
        self
    }

    /// Runs a task once in each worker, before its first job.
    ///
    /// A task that panics, crashes, or returns an `Err` **breaks the pool**, as an
    /// [initializer](crate::ThreadPoolBuilder::initializer) of threads does. It must end within the
    /// [start timeout](Self::start_timeout).
    #[doc(alias = "initargs")]
    pub fn initializer<T: Task<Output: InitializerOutput>>(mut self, call: Call<T>) -> Self {
        let check = |payload| {
            let output = decode_output::<T>(payload).map_err(|error| error.to_string())?;
            // The conversion, the error's `Display` and its destructor are user code.
            let result = || {
                let result = output.into_result(PRIVATE);
                result.map_err(|error| error.to_string())
            };
            contained("its error", result).map_err(CodecError::into_text)
        };
        let initializer = call.encode().map(|encoded| Initializer {
            info: call.info().clone(),
            call: encoded,
            check,
        });
        self.initializer = Some(initializer.map_err(|error| error.to_string()));
        self
    }

    /// Starts `program` for each worker, instead of the own program.
    ///
    /// Its `main` must begin with [`process::init`](crate::process::init). It must contain the
    /// tasks: a job whose task it lacks returns an error that
    /// [`is_unknown_task`](crate::JoinError::is_unknown_task).
    ///
    /// `program` can also be a script that ends in `exec` with such a program. The script must not
    /// read its standard input, which belongs to the pool.
    #[doc(alias = "set_executable")]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Sets an environment variable of the workers.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let (name, value) = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.config.env.push((name, Some(value)));
        self
    }

    /// Removes an environment variable from those that the workers inherit.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.config.env.push((name.as_ref().to_owned(), None));
        self
    }

    /// Starts the workers without the environment of this process.
    ///
    /// Variables that [`env`](Self::env) has set, before or after this call, are kept.
    pub fn env_clear(mut self) -> Self {
        self.config.env_clear = true;
        self
    }

    /// Sets the working directory of the workers. By default it is that of this process.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.config.current_dir = Some(directory.into());
        self
    }

    /// Lowers the CPU priority of the workers by `nice`, from -20 to 19. A negative number raises
    /// it, which needs a privilege.
    pub fn nice(mut self, nice: i32) -> Self {
        self.config.nice = Some(nice);
        self
    }

    /// Sets what becomes of the workers' stdout. The default is [`WorkerStdio::inherit`].
    pub fn stdout(mut self, stdout: WorkerStdio) -> Self {
        self.config.stdout = stdout.0;
        self
    }

    /// Sets what becomes of the workers' stderr. The default is [`WorkerStdio::tee`].
    pub fn stderr(mut self, stderr: WorkerStdio) -> Self {
        self.config.stderr = stderr.0;
        self
    }

    /// Sets how long a worker may take to start, its initializer included. The default is 10
    /// seconds.
    ///
    /// A worker that takes longer is killed, and the job that waits for it returns an error that
    /// [`is_spawn_failed`](crate::JoinError::is_spawn_failed). After three failed starts in a row,
    /// or if the initializer takes longer, the pool is [broken](crate::JoinError::is_broken).
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.config.start_timeout = timeout;
        self
    }

    /// Limits the size of the arguments of a job, and of its result, in bytes. The default is 1
    /// GiB.
    ///
    /// A job that exceeds it returns an error that [`is_codec`](crate::JoinError::is_codec). Its
    /// worker lives on.
    pub fn max_payload(mut self, bytes: u64) -> Self {
        self.config.max_payload = bytes;
        self
    }

    /// Creates the pool. No worker is started yet, unless [`prestart`](Self::prestart) was set.
    ///
    /// # Errors
    ///
    /// Returns a [`BuildError`] that names an invalid option:
    ///
    /// - A number or a duration is 0, or `nice` is not in -20..=19.
    /// - `name` contains a NUL character.
    /// - `program`: this program cannot be its own worker, because it has not called
    ///   [`process::init`](crate::process::init), and no other program was given.
    /// - `memory_limit` or `recycle_above` is set on a system other than Linux.
    /// - `initializer`: the arguments cannot be encoded.
    /// - `max_workers`: the pool would be nested more than 10 deep.
    /// - The system is no Unix, for which there are no worker processes yet.
    pub fn build(mut self) -> Result<ProcessPool, BuildError> {
        if !cfg!(unix) {
            let problem = "worker processes exist on Unix only, so far; use a ThreadPool";
            return Err(BuildError::new("build", problem));
        }
        self.check_numbers()?;
        if self.name.as_ref().is_some_and(|name| name.contains('\0')) {
            let problem = "the names of its threads cannot contain a NUL character";
            return Err(BuildError::new("name", problem));
        }
        let own_depth = super::child::depth();
        self.config.depth = own_depth + 1;
        if self.config.depth > MAX_DEPTH {
            let problem = format!(
                "pools are nested more than {MAX_DEPTH} deep: a pool in a worker of a pool, and so on"
            );
            return Err(BuildError::new("max_workers", problem));
        }
        if init::is_worker() && own_depth == 0 {
            let problem = "this process is a worker: call `futurepool::process::init()` first in `main`, \
                           before a pool is built";
            return Err(BuildError::new("program", problem));
        }
        self.config.program = match (self.program.take(), init::own_entry()) {
            (Some(path), _) => Program::Path(path),
            (None, Some(entry)) => Program::Own(entry),
            (None, None) => {
                let problem = "this program cannot be its own worker: call `futurepool::process::init()` \
                               first in `main`, or `futurepool::process::test_init!();` in a test binary, \
                               or set `program`";
                return Err(BuildError::new("program", problem));
            }
        };
        self.config.initializer = match self.initializer.take() {
            Some(Err(problem)) => return Err(BuildError::new("initializer", problem)),
            Some(Ok(initializer)) => Some(initializer),
            None => None,
        };
        let default_workers = || match own_depth {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            _ => 1,
        };
        let max_workers = self.max_workers.unwrap_or_else(default_workers);
        let mut threads = ThreadPool::builder()
            .max_workers(max_workers)
            .stack_size(STACK_SIZE);
        if let Some(name) = self.name {
            threads = threads.thread_name_prefix(name);
        }
        if let Some(jobs) = self.queue_capacity {
            threads = threads.queue_capacity(jobs);
        }
        if let Some(timeout) = self.queue_timeout {
            threads = threads.queue_timeout(timeout);
        }
        if let Some(timeout) = self.keep_alive {
            threads = threads.keep_alive(timeout);
        }
        if let Some(hook) = self.on_job.take() {
            threads = threads.on_job(hook);
        }
        threads = threads.timings(self.timings);
        ProcessPool::with_threads(threads, self.config, self.prestart)
    }

    fn check_numbers(&self) -> Result<(), BuildError> {
        let config = &self.config;
        let zeros = [
            ("time_limit", config.time_limit == Some(Duration::ZERO)),
            ("start_timeout", config.start_timeout.is_zero()),
            ("memory_limit", config.memory_limit == Some(0)),
            ("address_space_limit", config.address_space_limit == Some(0)),
            ("max_jobs_per_worker", config.max_jobs_per_worker == Some(0)),
            ("recycle_above", config.recycle_above == Some(0)),
            ("max_payload", config.max_payload == 0),
        ];
        for (field, is_zero) in zeros {
            if is_zero {
                return Err(BuildError::new(
                    field,
                    "must be more than 0; omit it for the default",
                ));
            }
        }
        if config.nice.is_some_and(|nice| !(-20..=19).contains(&nice)) {
            return Err(BuildError::new("nice", "must be in -20..=19"));
        }
        let needs_linux = [
            ("memory_limit", config.memory_limit.is_some()),
            ("recycle_above", config.recycle_above.is_some()),
        ];
        for (field, is_set) in needs_linux {
            if is_set && !cfg!(target_os = "linux") {
                let problem = "is supported on Linux only; `address_space_limit` is a limit that others have, too";
                return Err(BuildError::new(field, problem));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ProcessPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPoolBuilder")
            .field("name", &self.name)
            .field("max_workers", &self.max_workers)
            .field("queue_capacity", &self.queue_capacity)
            .field("queue_timeout", &self.queue_timeout)
            .field("keep_alive", &self.keep_alive)
            .field("timings", &self.timings)
            .field("on_job", &self.on_job.is_some())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
