//! Starting a worker process: the command, and the handshake.
//!
//! ```text
//!   begin: socket pair, SETUP, spawn ──► boots ──► finish: HELLO, then the initializer
//! ```
//!
//! The first message is there before the process is, so that a process can tell by its standard
//! input that it is a worker.
//!
//! A replacement begins while the old worker still runs a job, so that nothing waits for it.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal};

use crate::error::{LastOutput, StartFailed};
use crate::process::builder::{Config, Program, StdioKind};
use crate::process::child::own_build;
use crate::process::counter::Counter;
use crate::process::exchange::{END_PATIENCE, WANTED_EVERY, Want, describe_end, last_output};
use crate::process::frame::{FrameError, FrameReader, Head, NoSigpipe, write_frame};
use crate::process::init::{Entry, worker_name};
use crate::process::output::{JobName, Output, OutputStream, Sink};
use crate::process::socket;
use crate::process::supervisor::Supervisor;
use crate::process::wire::{self, FRAME_OVERHEAD, Hello, Setup};
use crate::process::worker::{KillReason, Outputs, Running, Worker};

/// A worker process that boots.
#[derive(Debug)]
pub(crate) struct Starting {
    worker: Arc<Worker>,
    /// When the start has taken too long.
    deadline: Instant,
}

/// A worker process that has said what it is.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) worker: Arc<Worker>,
    pub(crate) reader: FrameReader,
    pub(crate) tasks: Vec<(String, u32, u64)>,
}

/// Why a worker could not be started.
#[derive(Debug, Clone)]
pub(crate) struct StartError {
    pub(crate) text: String,
    /// The system's error, if there is one.
    pub(crate) kind: Option<ErrorKind>,
    pub(crate) unstarted: Unstarted,
}

/// What a [`StartError`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unstarted {
    Failed,
    /// The worker was killed, not by its pool.
    Killed,
    /// It is the error of a start that another thread has tried.
    FailedElsewhere,
    /// The system lacks something at this moment: descriptors, processes or memory.
    Lacking,
    /// Nothing wants the worker now.
    Abandoned,
}

impl StartError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            kind: None,
            unstarted: Unstarted::Failed,
        }
    }

    pub(crate) fn abandoned() -> Self {
        Self {
            unstarted: Unstarted::Abandoned,
            ..Self::new("the worker is no longer needed")
        }
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.unstarted == Unstarted::Abandoned
    }

    fn of_system(what: impl fmt::Display, error: &io::Error) -> Self {
        let lacks = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM];
        let number = error.raw_os_error();
        let is_lacking = number.is_some_and(|number| {
            let errno = Errno::from_raw_os_error(number);
            lacks.contains(&errno)
        });
        let failed = Self::new(format!("{what}: {error}"));
        Self {
            kind: Some(error.kind()),
            unstarted: match is_lacking {
                true => Unstarted::Lacking,
                false => failed.unstarted,
            },
            ..failed
        }
    }

    pub(crate) fn into_io(self) -> io::Error {
        io::Error::new(
            self.kind.unwrap_or(ErrorKind::Other),
            StartFailed(self.text),
        )
    }
}

/// Where close-on-exec is not set in the same step as a socket is made, another spawn in between
/// would inherit the socket.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
static SPAWN: std::sync::Mutex<()> = std::sync::Mutex::new(());

impl Starting {
    /// Starts the process, and does not wait for it.
    pub(crate) fn begin(
        config: &Config,
        supervisor: &Supervisor,
        output: &Output,
        generation: u32,
    ) -> Result<Self, StartError> {
        let deadline = Instant::now().checked_add(config.start_timeout);
        let deadline = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
        let (program, arguments) = config.command()?;
        let mut command = Command::new(&program);
        command.arg0(worker_name(config.program_name().as_os_str()));
        command.args(arguments).process_group(0);
        if config.env_clear {
            command.env_clear();
        }
        for (name, value) in &config.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = &config.current_dir {
            command.current_dir(directory);
        }
        command.stderr(stdio(&config.stderr));

        #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
        let guard = SPAWN.lock();
        let pair = socket::pair();
        let (own, theirs) =
            pair.map_err(|error| StartError::of_system("failed to make a socket pair", &error))?;
        command.stdin(OwnedFd::from(theirs));
        let stdout = Stdout::of(config)
            .map_err(|error| StartError::of_system("failed to make a pipe", &error))?;
        command.stdout(stdout.at_start(config));
        let counter = Counter::new().ok();
        let descriptors = counter.as_ref().map(Counter::as_fd).into_iter();
        let descriptors: Vec<_> = descriptors.chain(stdout.handed_over()).collect();
        let setup = Setup {
            depth: config.depth,
            address_space_limit: config.address_space_limit,
            nice: config.nice,
            max_payload: config.max_payload,
            generation,
            has_counter: counter.is_some(),
        };
        send_setup(&own, &setup, descriptors).map_err(|error| {
            StartError::of_system("failed to write to the socket of a worker", &error)
        })?;
        let spawned = command.spawn();
        // The command has a copy of the worker's end.
        drop(command);
        #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
        drop(guard);
        let mut child = spawned.map_err(|error| {
            let program = config.program_name();
            let what = format!("failed to start {}", program.display());
            StartError::of_system(
                match &config.current_dir {
                    Some(directory) => format!("{what} in {}", directory.display()),
                    None => what,
                },
                &error,
            )
        })?;

        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| StartError::new("the process has no number"))?;
        let running: Arc<std::sync::OnceLock<std::sync::Weak<Worker>>> = Arc::default();
        let current = {
            let running = Arc::clone(&running);
            let job = move || -> Option<JobName> {
                let Running { task, label, .. } = running.get()?.upgrade()?.running()?;
                let task = task.into();
                Some(JobName { task, label })
            };
            Arc::new(job) as Arc<_>
        };
        let stdout = stdout
            .into_pipe()
            .or(child.stdout.take().map(OwnedFd::from));
        let stderr = child.stderr.take().map(OwnedFd::from);
        let mut piped = Ok(());
        let mut add = |stream, pipe: Option<OwnedFd>, kind: &StdioKind| {
            let (pipe, sink) = (pipe?, sink(kind)?);
            let added = output.add(child.id(), stream, pipe, sink, Arc::clone(&current));
            added.map_err(|error| piped = Err(error)).ok()
        };
        let handle = Outputs {
            stdout: add(OutputStream::Stdout, stdout, &config.stdout),
            stderr: add(OutputStream::Stderr, stderr, &config.stderr),
        };
        let worker = Worker::new(pid, generation, own, pidfd(pid), counter, handle);
        let worker = Arc::new(worker);
        let _ = running.set(Arc::downgrade(&worker));
        // From here on the worker is killed and reaped when it is dropped.
        let watched = piped
            .map_err(|error| StartError::of_system("failed to read the output of a worker", &error))
            .and_then(|()| {
                supervisor.add(&worker).map_err(|error| {
                    StartError::of_system("failed to start the thread that watches workers", &error)
                })
            });
        if let Err(error) = watched {
            // Where there are no descriptors of processes, a thread that waits for its end keeps
            // it.
            worker.kill(KillReason::Leaving);
            return Err(error);
        }
        Ok(Self { worker, deadline })
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// Waits until the worker sends something, has ended, or is late. Returns false once the worker
    /// is no longer needed.
    pub(crate) fn wait_for_greeting(&self, want: &Want<'_>) -> bool {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.worker.socket(), PollFlags::IN)];
            let timeout = Timespec::try_from(left.min(WANTED_EVERY)).ok();
            let ready = poll(&mut fds, timeout.as_ref());
            if left.is_zero() || !matches!(ready, Ok(0) | Err(Errno::INTR)) {
                return true;
            }
            if !want.holds() {
                return false;
            }
        }
    }

    /// Waits until the worker has said what it is, or is no longer wanted.
    pub(crate) fn finish(self, config: &Config, want: &Want<'_>) -> Result<Ready, StartError> {
        let mut reader = FrameReader::new(config.max_payload.saturating_add(FRAME_OVERHEAD));
        match self.read_hello(config, want, &mut reader) {
            Ok(tasks) => Ok(Ready {
                worker: Arc::clone(&self.worker),
                reader,
                tasks,
            }),
            Err(problem) => {
                let error = self.fail(problem);
                Err(match want.holds() {
                    true => error,
                    false => StartError::abandoned(),
                })
            }
        }
    }

    fn read_hello(
        &self,
        config: &Config,
        want: &Want<'_>,
        reader: &mut FrameReader,
    ) -> Result<Vec<(String, u32, u64)>, Problem> {
        let mut socket = TimedSocket {
            socket: self.worker.socket(),
            deadline: self.deadline,
            want,
        };
        let frame = reader.read(&mut socket).map_err(|error| match error {
            FrameError::End | FrameError::Truncated => Problem::Ended,
            FrameError::Io(error) if is_timeout(&error) => Problem::TooLate,
            FrameError::Io(_) => Problem::Ended,
            other => Problem::Nonsense(other.to_string()),
        })?;
        if frame.head.kind != wire::HELLO || frame.head.generation != self.worker.generation() {
            return Err(Problem::Nonsense(
                "its first message is no greeting".to_owned(),
            ));
        }
        let hello = Hello::decode(&frame.payload.body).ok_or_else(|| {
            Problem::Nonsense("it speaks another version of the protocol".to_owned())
        })?;
        if matches!(config.program, Program::Own(_)) && hello.build != own_build() {
            return Err(Problem::Nonsense(
                "the program on disk has been replaced by another build: restart this program"
                    .to_owned(),
            ));
        }
        Ok(hello.tasks)
    }

    /// Ends a worker that did not start as it should, and says what is known.
    fn fail(self, problem: Problem) -> StartError {
        let worker = &self.worker;
        if matches!(problem, Problem::Ended) {
            worker.wait_for_end(END_PATIENCE);
        }
        let ended_by_itself = worker.try_end();
        worker.kill(KillReason::Leaving);
        worker.wait_for_end(Duration::from_secs(1));
        let pid = worker.pid();
        let advice = "does its `main` begin with `futurepool::process::init()`?";
        let text = match problem {
            Problem::Ended => match ended_by_itself {
                Some(ended) => format!(
                    "worker {pid} {} before it was ready; {advice}",
                    describe_end(ended)
                ),
                None => format!("worker {pid} closed its connection before it was ready; {advice}"),
            },
            Problem::TooLate => format!("worker {pid} was not ready in time; {advice}"),
            Problem::Nonsense(problem) => format!("worker {pid} cannot be used: {problem}"),
        };
        let signal = ended_by_itself.and_then(|ended| ended.status?.signal());
        let was_killed = signal == Some(Signal::KILL.as_raw());
        let output = last_output(worker);
        let error = StartError::new(format!("{text}{}", LastOutput(output.as_deref())));
        match was_killed {
            true => StartError {
                unstarted: Unstarted::Killed,
                ..error
            },
            false => error,
        }
    }
}

/// Writes the first message, with the standard output of a worker that gets it later.
fn send_setup(
    socket: &UnixStream,
    setup: &Setup,
    descriptors: Vec<BorrowedFd<'_>>,
) -> io::Result<()> {
    let head = Head {
        kind: wire::SETUP,
        generation: setup.generation,
        job: 0,
    };
    let mut out = WithDescriptors {
        socket,
        descriptors,
    };
    // It fits into the buffer of a new socket, so this does not wait.
    write_frame(&mut out, &mut Vec::new(), head, &[&setup.encode()], &[])
}

/// Sends up to two descriptors along with the first byte.
struct WithDescriptors<'a> {
    socket: &'a UnixStream,
    descriptors: Vec<BorrowedFd<'a>>,
}

impl io::Write for WithDescriptors<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let descriptors = std::mem::take(&mut self.descriptors);
        if descriptors.is_empty() {
            return io::Write::write(&mut NoSigpipe(self.socket), bytes);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
        debug_assert!(fits, "there is space for two");
        // Nothing has closed the other end yet, so there is no signal to suppress.
        let parts = [io::IoSlice::new(bytes)];
        Ok(sendmsg(
            self.socket,
            &parts,
            &mut control,
            SendFlags::empty(),
        )?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The standard output of a worker.
///
/// A test binary prints a headline before it runs the test that makes it a worker. So its output is
/// discarded until then: the descriptor travels with the first message.
enum Stdout {
    /// It is there from the start.
    AtStart,
    /// The worker of a test binary gets the standard output of this process.
    Own(io::Stdout),
    /// The worker of a test binary gets the second end of a pipe. The pool reads the first.
    Pipe(OwnedFd, OwnedFd),
}

impl Stdout {
    fn of(config: &Config) -> io::Result<Self> {
        if !matches!(config.program, Program::Own(Entry::Test(_))) {
            return Ok(Self::AtStart);
        }
        Ok(match config.stdout {
            StdioKind::Null => Self::AtStart,
            StdioKind::Inherit => Self::Own(io::stdout()),
            StdioKind::Tee | StdioKind::Lines(_) => {
                let (read, write) = rustix::pipe::pipe()?;
                // Children of other threads must not get them. See `SPAWN` for the moment before.
                for end in [&read, &write] {
                    rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
                }
                Self::Pipe(read, write)
            }
        })
    }

    fn at_start(&self, config: &Config) -> Stdio {
        match self {
            Self::AtStart => stdio(&config.stdout),
            Self::Own(_) | Self::Pipe(..) => Stdio::null(),
        }
    }

    fn handed_over(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::AtStart => None,
            Self::Own(own) => Some(own.as_fd()),
            Self::Pipe(_, write) => Some(write.as_fd()),
        }
    }

    /// Returns the end that the pool reads.
    fn into_pipe(self) -> Option<OwnedFd> {
        match self {
            Self::Pipe(read, _) => Some(read),
            Self::AtStart | Self::Own(_) => None,
        }
    }
}

enum Problem {
    Ended,
    TooLate,
    Nonsense(String),
}

pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A socket whose reads all end at one point in time, or once the worker is no longer wanted. What
/// is there then is still read: a worker may have waited for long until the pool looks at it.
struct TimedSocket<'a> {
    socket: &'a UnixStream,
    deadline: Instant,
    want: &'a Want<'a>,
}

impl io::Read for TimedSocket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.socket, PollFlags::IN)];
            let timeout = Timespec::try_from(left.min(WANTED_EVERY)).ok();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) if left.is_zero() || !self.want.holds() => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Ok(0) => {}
                Ok(_) => return (&mut &*self.socket).read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn stdio(kind: &StdioKind) -> Stdio {
    match kind {
        StdioKind::Inherit => Stdio::inherit(),
        StdioKind::Null => Stdio::null(),
        StdioKind::Tee | StdioKind::Lines(_) => Stdio::piped(),
    }
}

fn sink(kind: &StdioKind) -> Option<Sink> {
    match kind {
        StdioKind::Tee => Some(Sink::Tee),
        StdioKind::Lines(f) => Some(Sink::Lines(Arc::clone(f))),
        StdioKind::Inherit | StdioKind::Null => None,
    }
}

#[cfg(target_os = "linux")]
fn pidfd(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_: Pid) -> Option<OwnedFd> {
    None
}

impl Config {
    /// Returns the program to start, and its arguments.
    fn command(&self) -> Result<(PathBuf, Vec<OsString>), StartError> {
        match &self.program {
            Program::Path(path) => Ok((path.clone(), Vec::new())),
            Program::Own(entry) => {
                let arguments = match entry {
                    Entry::Main => Vec::new(),
                    Entry::Test(arguments) => arguments.clone(),
                };
                // The open file, so that an upgrade on disk does no harm.
                let open_file = PathBuf::from("/proc/self/exe");
                if cfg!(target_os = "linux") && open_file.exists() {
                    return Ok((open_file, arguments));
                }
                let path = std::env::current_exe();
                let path = path.map_err(|error| {
                    StartError::of_system("failed to find the own program", &error)
                })?;
                Ok((path, arguments))
            }
        }
    }

    fn program_name(&self) -> PathBuf {
        match &self.program {
            Program::Path(path) => path.clone(),
            Program::Own(_) => std::env::current_exe().unwrap_or_default(),
        }
    }
}
