//! Inside a worker process: the loop that runs calls, and what ends the process.
//!
//! ```text
//!   main thread   SETUP, HELLO, then: RUN ─► calls one after the other ─► RESULTS
//!   "hang-up"     sleeps until the pool closes its end: kills the own group
//!   "flush"       sends results that a long call holds back
//! ```
//!
//! Standard input is the socket at first. It is moved to a descriptor that children do not inherit, so
//! nothing that a job prints or reads disturbs the protocol.

use std::cell::RefCell;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Resource, Rlimit, Signal, kill_current_process_group, setrlimit};

use crate::call::bytes::Bytes;
use crate::call::codec::Payload;
use crate::call::registry::{Registry, RunError};
use crate::executor::InlineExecutor;
use crate::executor::ext::ExecutorExt;
use crate::process::events;
use crate::process::frame::{
    Frame, FrameError, FrameReader, Head, NoSigpipe, payload_size, write_frame,
};
use crate::process::wire::{self, Hello, RunHead, Setup, Status};
use crate::task::cancel_handle::CancelHandle;
use crate::task::context::current_task;
use crate::util::unwind::{drop_payload, panic_message};

/// How many pools this process is nested in; 0 if it is no worker.
static DEPTH: AtomicU32 = AtomicU32::new(0);

/// The exit code of a worker that cannot go on.
const EXIT_PROTOCOL: i32 = 113;

/// Results are sent once they have waited for so long.
const FLUSH_AFTER: Duration = Duration::from_micros(50);

/// How long a call can hold back the results of others.
const HOLD_BACK: Duration = Duration::from_millis(1);

/// No window is larger.
const MAX_WINDOW: u32 = 1024;

pub(crate) fn depth() -> u32 {
    DEPTH.load(Ordering::Acquire)
}

/// Returns a number that tells builds of this program apart.
pub(crate) fn own_build() -> u64 {
    static BUILD: OnceLock<u64> = OnceLock::new();
    *BUILD.get_or_init(|| {
        let open_file = std::fs::metadata("/proc/self/exe");
        let path = || std::fs::metadata(std::env::current_exe()?);
        let Ok(file) = open_file.or_else(|_| path()) else {
            return 0;
        };
        let mut hash = DefaultHasher::new();
        [file.dev(), file.ino(), file.size(), file.mtime() as u64].hash(&mut hash);
        hash.finish()
    })
}

/// Runs tasks until the pool hangs up. Never returns.
pub(crate) fn run(registry: Registry) -> ! {
    // A panic, of this crate, must not return to `main` either.
    let code = match catch_unwind(AssertUnwindSafe(|| serve(registry))) {
        Ok(Ok(())) => 0,
        Err(_) => EXIT_PROTOCOL,
        Ok(Err(problem)) => {
            eprintln!("futurepool: a worker process cannot go on: {problem}");
            EXIT_PROTOCOL
        }
    };
    exit(code)
}

fn serve(registry: Registry) -> Result<(), String> {
    let socket = take_socket().map_err(|error| {
        format!(
            "its standard input is no connection to a pool ({error}); only a pool starts workers"
        )
    })?;
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_name(c"futurepool-work");
    let mut reader = FrameReader::new(u64::from(u32::MAX));
    let mut first = WithDescriptor {
        socket: &socket,
        descriptor: None,
    };
    let Some(setup) = read(&mut reader, &mut first)? else {
        // The pool is gone.
        return Ok(());
    };
    let setup = Some(setup).filter(|frame| frame.head.kind == wire::SETUP);
    let setup = setup.and_then(|frame| Setup::decode(&frame.payload.body));
    let setup = setup.ok_or("the pool speaks another version of the protocol")?;
    if let Some(stdout) = first.descriptor {
        rustix::stdio::dup2_stdout(stdout)
            .map_err(|error| format!("failed to set its standard output: {error}"))?;
    }
    DEPTH.store(setup.depth, Ordering::Release);
    if let Some(limit) = setup.address_space_limit {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(Resource::As, limit)
            .map_err(|error| format!("failed to limit its address space: {error}"))?;
    }
    if let Some(nice) = setup.nice {
        rustix::process::nice(nice)
            .map_err(|error| format!("failed to set its priority: {error}"))?;
    }
    // The pool has checked the size of each call, and a frame can have many.
    let reader_of_frames = FrameReader::new(u64::MAX);
    debug_assert_eq!(reader.buffered(), 0, "the pool waits for the greeting");
    let connection = Arc::new(Connection {
        out: Mutex::new(Out {
            socket: socket.try_clone().map_err(|error| error.to_string())?,
            scratch: Vec::new(),
            generation: setup.generation,
            batch: None,
        }),
        flush: Condvar::new(),
        running: Mutex::new(Running::default()),
    });
    start_hang_up_thread(&socket, &connection)?;
    chain_panic_hook(&connection);
    let events_out = Arc::clone(&connection);
    events::install(move |record| events_out.send_event(&record));
    let hello = Hello {
        build: own_build(),
        tasks: (registry.iter())
            .map(|task| (task.name.to_owned(), task.version, task.signature))
            .collect(),
    };
    connection
        .lock()
        .send(wire::HELLO, 0, &[&hello.encode()], &[])?;
    Server {
        registry,
        connection,
        has_flusher: false,
        max_payload: setup.max_payload,
    }
    .serve(&socket, reader_of_frames)
}

/// Moves the socket away from standard input, which becomes empty.
fn take_socket() -> io::Result<UnixStream> {
    let stdin = io::stdin();
    let socket = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let socket = UnixStream::from(socket);
    // An error if it is no socket.
    socket.peer_addr()?;
    Ok(socket)
}

/// Returns the next frame, or `None` if the pool has closed its end.
fn read(reader: &mut FrameReader, socket: &mut impl Read) -> Result<Option<Frame>, String> {
    match reader.read(socket) {
        Ok(frame) => Ok(Some(frame)),
        // The pool is gone, perhaps in the middle of a frame.
        Err(FrameError::End | FrameError::Truncated | FrameError::Io(_)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads from a socket, and takes the descriptor that was sent along.
struct WithDescriptor<'a> {
    socket: &'a UnixStream,
    descriptor: Option<OwnedFd>,
}

impl Read for WithDescriptor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [io::IoSliceMut::new(buffer)];
        let received = recvmsg(self.socket, &mut parts, &mut control, RecvFlags::empty())?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptor = descriptors.last();
            }
        }
        Ok(received.bytes)
    }
}

/// What the threads of a worker share.
struct Connection {
    /// What is written to the pool. The lock also orders the frames.
    out: Mutex<Out>,
    /// Notified when a batch begins.
    flush: Condvar,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    /// Of the calls that run.
    cancel: Option<CancelHandle>,
    /// The pool wants the worker to end.
    cancelled: bool,
}

struct Out {
    socket: UnixStream,
    scratch: Vec<u8>,
    generation: u32,
    batch: Option<Batch>,
}

/// The calls that run.
struct Batch {
    job: u64,
    /// How many there are.
    calls: u32,
    /// How many have begun.
    begun: u32,
    /// How many may have begun, as far as the pool knows.
    announced: u32,
    /// How many of them are announced together.
    window: u32,
    /// Those that have not been sent.
    results: Vec<(Status, Payload)>,
    /// When the last results were sent.
    flushed: Instant,
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_event(&self, record: &events::EventRecord) {
        let body = record.encode();
        // The writer of a frame emits no events, so this thread does not hold the lock.
        let mut out = self.lock();
        let job = out.batch.as_ref().map_or(0, |batch| batch.job);
        // If the pool is gone, so is this process soon.
        let _ = out.send(wire::EVENT, job, &[&body], &[]);
    }

    /// The pool asks the running calls to end.
    fn cancel(&self) {
        let mut running = self.running();
        running.cancelled = true;
        let cancel = running.cancel.clone();
        drop(running);
        if let Some(cancel) = cancel {
            cancel.cancel();
        }
    }
}

impl Out {
    fn send(&mut self, kind: u8, job: u64, body: &[&[u8]], lanes: &[Bytes]) -> Result<(), String> {
        let head = Head {
            kind,
            generation: self.generation,
            job,
        };
        let mut out = NoSigpipe(&self.socket);
        write_frame(&mut out, &mut self.scratch, head, body, lanes)
            .map_err(|error| error.to_string())
    }

    /// Sends the results that wait, and announces `window` further calls.
    fn flush(&mut self, window: u32) -> Result<(), String> {
        let Some(batch) = &mut self.batch else {
            return Ok(());
        };
        let results = std::mem::take(&mut batch.results);
        let job = batch.job;
        batch.announced = batch.begun.saturating_add(window).min(batch.calls);
        batch.window = window;
        batch.flushed = Instant::now();
        let head = wire::encode_results(batch.announced - batch.begun, &results);
        let mut lanes = Vec::new();
        let mut body = vec![&head[..]];
        for (_, payload) in &results {
            body.push(&payload.body);
            lanes.extend(payload.lanes.iter().cloned());
        }
        self.send(wire::RESULTS, job, &body, &lanes)
    }
}

struct Server {
    registry: Registry,
    connection: Arc<Connection>,
    /// Only batches need the thread.
    has_flusher: bool,
    /// No result can be larger.
    max_payload: u64,
}

impl Server {
    fn serve(&mut self, socket: &UnixStream, mut reader: FrameReader) -> Result<(), String> {
        while let Some(mut frame) = read(&mut reader, &mut &*socket)? {
            let job = frame.head.job;
            if frame.head.kind != wire::RUN {
                return Err("the pool has sent no job".to_owned());
            }
            let calls = wire::decode_run(&mut frame.payload);
            let (head, calls) = calls.ok_or("the pool has sent a broken job")?;
            self.run(job, &head, calls)?;
        }
        Ok(())
    }

    fn run(&mut self, job: u64, head: &RunHead<'_>, calls: Vec<Payload>) -> Result<(), String> {
        events::set_level(head.level);
        let count = calls.len() as u32;
        if count > 1 && !self.has_flusher {
            let connection = Arc::clone(&self.connection);
            let spawned = thread::Builder::new()
                .name("futurepool-flush".to_owned())
                .spawn(move || flush_long_batches(&connection));
            self.has_flusher = spawned.is_ok();
        }
        self.connection.lock().batch = Some(Batch {
            job,
            calls: count,
            begun: 0,
            announced: head.window.min(count),
            window: head.window,
            results: Vec::new(),
            flushed: Instant::now(),
        });
        if count > 1 {
            self.connection.flush.notify_one();
        }
        // As a job, so that `cancel_requested` and `current_job` work in it.
        let connection = Arc::clone(&self.connection);
        let task = self
            .registry
            .get(head.task, head.version)
            .map(|task| task.run);
        let unknown = format!(
            "the worker has no task {} of version {}",
            head.task, head.version
        );
        let max = self.max_payload;
        let run = move || {
            for call in calls {
                connection.begin_call()?;
                let result = match task {
                    None => (Status::UnknownTask, wire::encode_text(&unknown)),
                    Some(task) => refuse_too_large(run_call(task, call), max),
                };
                connection.end_call(result, max)?;
            }
            Ok(())
        };
        let outcome = self.connection.run_as_job(run);
        self.connection.lock().batch = None;
        outcome
    }
}

impl Connection {
    /// Runs `f` as a job that the hang-up thread can ask to end.
    fn run_as_job(
        self: &Arc<Self>,
        f: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Result<(), String> {
        let connection = Arc::clone(self);
        let job = move || {
            let cancel = current_task().map(CancelHandle::new);
            let mut running = connection.running();
            running.cancel.clone_from(&cancel);
            let cancelled = running.cancelled;
            drop(running);
            if let Some(cancel) = cancel.filter(|_| cancelled) {
                cancel.cancel();
            }
            let outcome = f();
            let cancel = connection.running().cancel.take();
            drop(cancel);
            outcome
        };
        let outcome = InlineExecutor.submit(job).join();
        outcome.map_err(|error| error.to_string())?
    }

    /// A call is about to begin. Ensures that the pool knows that.
    fn begin_call(&self) -> Result<(), String> {
        let mut out = self.lock();
        let Some(batch) = &mut out.batch else {
            return Ok(());
        };
        if batch.begun == batch.announced {
            // Calls that take little are announced together.
            let took = batch.flushed.elapsed();
            let window = match batch.window {
                window if took < FLUSH_AFTER / 2 => window.saturating_mul(2).min(MAX_WINDOW),
                window if took > FLUSH_AFTER => (window / 2).max(1),
                window => window,
            };
            out.flush(window)?;
        }
        if let Some(batch) = &mut out.batch {
            batch.begun += 1;
        }
        Ok(())
    }

    fn end_call(&self, result: (Status, Payload), max_payload: u64) -> Result<(), String> {
        let mut out = self.lock();
        let Some(batch) = &out.batch else {
            return Ok(());
        };
        let waits: u64 = batch.results.iter().map(|(_, payload)| size(payload)).sum();
        if waits.saturating_add(size(&result.1)) > max_payload {
            // Together they would be too large for a frame.
            let window = (batch.window / 2).max(1);
            out.flush(window)?;
        }
        let Some(batch) = &mut out.batch else {
            return Ok(());
        };
        batch.results.push(result);
        let is_last = batch.begun == batch.calls;
        let window = (batch.window / 2).max(1);
        if is_last {
            let window = batch.window;
            return out.flush(window);
        }
        if batch.calls > 1 && batch.flushed.elapsed() > FLUSH_AFTER {
            return out.flush(window);
        }
        Ok(())
    }
}

fn size(payload: &Payload) -> u64 {
    payload_size(&[&payload.body], &payload.lanes)
}

/// The pool would take a result that is too large for garbage.
fn refuse_too_large(result: (Status, Payload), max: u64) -> (Status, Payload) {
    if result.0 != Status::Returned || size(&result.1) <= max {
        return result;
    }
    let text = format!("it is larger than `max_payload`, {max} bytes");
    (Status::BadOutput, wire::encode_text(&text))
}

/// Sends results that a long call holds back.
fn flush_long_batches(connection: &Connection) {
    let mut out = connection.lock();
    loop {
        let is_due = match &out.batch {
            Some(batch) if !batch.results.is_empty() => batch.flushed.elapsed() >= HOLD_BACK,
            _ => false,
        };
        if is_due && out.flush(1).is_err() {
            return;
        }
        out = match out.batch.as_ref().is_some_and(|batch| batch.calls > 1) {
            true => {
                (connection.flush.wait_timeout(out, HOLD_BACK))
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            false => (connection.flush.wait(out)).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

fn run_call(task: fn(Payload) -> Result<Payload, RunError>, call: Payload) -> (Status, Payload) {
    PANIC.with(|panic| panic.borrow_mut().take());
    match catch_unwind(AssertUnwindSafe(|| task(call))) {
        Ok(Ok(payload)) => (Status::Returned, payload),
        Ok(Err(RunError::Arguments(text))) => (Status::BadArguments, wire::encode_text(&text)),
        Ok(Err(RunError::Output(text))) => (Status::BadOutput, wire::encode_text(&text)),
        Err(payload) => {
            let message = panic_message(&*payload).unwrap_or("(no text)").to_owned();
            drop_payload(payload);
            let location = PANIC.with(|panic| panic.borrow_mut().take());
            (
                Status::Panicked,
                wire::encode_panic(&message, &location.unwrap_or_default()),
            )
        }
    }
}

thread_local! {
    /// Where this thread panicked last.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes the place of each panic, and tells the pool of one that aborts the process.
fn chain_panic_hook(connection: &Arc<Connection>) {
    let connection = Arc::clone(connection);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        if cfg!(panic = "abort") {
            // First: the process ends as soon as the pool knows, and this may print a backtrace.
            before(info);
            let message = panic_message(info.payload()).unwrap_or("(no text)");
            let panic = wire::encode_panic(message, &location);
            // The panic may be in this crate, with the lock held.
            if let Ok(mut out) = connection.out.try_lock() {
                if let Some(batch) = &mut out.batch {
                    batch.results.push((Status::PanickedAndAborts, panic));
                    let _ = out.flush(0);
                }
            }
        } else {
            let _ = PANIC.try_with(|panic| *panic.borrow_mut() = Some(location));
            before(info);
        }
    }));
}

/// Kills this process and its group when the pool's process closes its end, or ends itself.
fn start_hang_up_thread(socket: &UnixStream, connection: &Arc<Connection>) -> Result<(), String> {
    let socket = socket.try_clone().map_err(|error| error.to_string())?;
    let connection = Arc::clone(connection);
    let watch = move || {
        if wait_for_write_end(&socket) {
            connection.cancel();
        }
        wait_for_hang_up(&socket);
        let _ = kill_current_process_group(Signal::KILL);
        // It may have left its group.
        std::process::abort();
    };
    let thread = thread::Builder::new()
        .name("futurepool-hang-up".to_owned())
        .spawn(watch);
    thread
        .map(drop)
        .map_err(|error| format!("failed to start a thread: {error}"))
}

/// Waits until the pool sends nothing more. Returns false if it hung up.
#[cfg(target_os = "linux")]
fn wait_for_write_end(socket: &UnixStream) -> bool {
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
        if poll(&mut fds, None).is_ok() {
            let seen = fds[0].revents();
            if seen.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
                return false;
            }
            if seen.contains(PollFlags::RDHUP) {
                return true;
            }
        }
    }
}

/// Waits until the pool sends nothing more. Returns false if it hung up.
#[cfg(not(target_os = "linux"))]
fn wait_for_write_end(socket: &UnixStream) -> bool {
    // No event tells it. A read of nothing does, once all that was sent is read.
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::empty())];
        let timeout = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        if poll(&mut fds, Some(&timeout)).is_ok() && !fds[0].revents().is_empty() {
            return false;
        }
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let mut byte = [0_u8; 1];
        if matches!(rustix::net::recv(socket, &mut byte[..], flags), Ok((0, _))) {
            return true;
        }
    }
}

/// Waits until the other end is closed. What arrives wakes nothing here.
fn wait_for_hang_up(socket: &UnixStream) {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())];
        if poll(&mut fds, None).is_ok() && !fds[0].revents().is_empty() {
            return;
        }
    }
}
