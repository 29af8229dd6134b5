//! Inside a worker process: the loop that runs calls, and what ends the process.
//!
//! ```text
//!   main thread   SETUP, HELLO, then: RUN ─► calls one after the other ─► RESULTS
//!   "hang-up"     sleeps until the pool closes its end: kills the own group
//!   "flush"       sends results that a long call holds back
//! ```
//!
//! Standard input is the socket at first. It is moved to a descriptor that children do not inherit,
//! so nothing that a job prints or reads disturbs the protocol.

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

use crate::call::bytes::{Bytes, MAX_LANES};
use crate::call::codec::Payload;
use crate::call::registry::{Registry, RunError};
use crate::executor::InlineExecutor;
use crate::executor::ext::ExecutorExt;
use crate::process::counter::Counter;
use crate::process::events;
use crate::process::frame::{
    Frame, FrameError, FrameReader, Head, NoSigpipe, payload_size, write_frame,
};
use crate::process::wire::{self, Hello, Parts, Setup, Status};
use crate::task::cancel_handle::CancelHandle;
use crate::task::context::current_task;
use crate::util::unwind::{drop_payload, panic_message};

/// How many pools this process is nested in; 0 if it is no worker.
static DEPTH: AtomicU32 = AtomicU32::new(0);

/// The exit code of a worker that cannot go on.
const EXIT_PROTOCOL: i32 = 113;

/// How long results wait before they are sent.
const FLUSH_AFTER: Duration = Duration::from_micros(50);

/// After so many looks without a batch the thread that sends long-held results sleeps.
const LOOKS: u32 = 20;

pub(crate) fn depth() -> u32 {
    DEPTH.load(Ordering::Acquire)
}

/// Returns a number that tells builds of this program apart.
pub(crate) fn own_build() -> u64 {
    static BUILD: OnceLock<u64> = OnceLock::new();
    *BUILD.get_or_init(|| {
        let mut hash = DefaultHasher::new();
        // The open file is the same whatever happens to its path.
        if let Ok(file) = std::fs::metadata("/proc/self/exe") {
            [file.dev(), file.ino(), file.size()].hash(&mut hash);
            return hash.finish();
        }
        let file = std::env::current_exe().and_then(std::fs::metadata);
        let Ok(file) = file else {
            return 0;
        };
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
    let mut first = WithDescriptors {
        socket: &socket,
        descriptors: Vec::new(),
    };
    let Some(setup) = read(&mut reader, &mut first)? else {
        // The pool is gone.
        return Ok(());
    };
    let setup = Some(setup).filter(|frame| frame.head.kind == wire::SETUP);
    let setup = setup.and_then(|frame| Setup::decode(&frame.payload.body));
    let setup = setup.ok_or("the pool speaks another version of the protocol")?;
    let mut descriptors = first.descriptors.into_iter();
    let counter = match setup.has_counter {
        true => descriptors.next().map(Counter::of),
        false => None,
    };
    if let Some(stdout) = descriptors.next() {
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
            flusher: Flusher::None,
        }),
        counter,
        max_payload: setup.max_payload,
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

/// Reads from a socket, and takes the descriptors that were sent along.
struct WithDescriptors<'a> {
    socket: &'a UnixStream,
    descriptors: Vec<OwnedFd>,
}

impl Read for WithDescriptors<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [io::IoSliceMut::new(buffer)];
        let received = recvmsg(self.socket, &mut parts, &mut control, RecvFlags::empty())?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                for descriptor in descriptors {
                    // What a job starts must not inherit it. There is one thread yet.
                    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
                    self.descriptors.push(descriptor);
                }
            }
        }
        Ok(received.bytes)
    }
}

/// What the threads of a worker share.
struct Connection {
    /// What is written to the pool. The lock also orders the frames.
    out: Mutex<Out>,
    /// Notified when a batch begins and [`Flusher::Asleep`].
    flush: Condvar,
    /// Tells the pool how many calls of a batch have begun.
    counter: Option<Counter>,
    /// No result can be larger.
    max_payload: u64,
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
    flusher: Flusher,
}

/// The thread that sends results which a long call holds back.
#[derive(PartialEq, Eq)]
enum Flusher {
    /// Only batches need it.
    None,
    /// It looks at the batch from time to time.
    Looking,
    Asleep,
}

/// The calls of a message, which run.
struct Batch {
    job: u64,
    /// How many there are.
    calls: usize,
    /// How many have ended.
    ended: usize,
    /// Those that have not been sent.
    results: Vec<(Status, Payload)>,
    /// The bytes and the lanes of these.
    bytes: u64,
    lanes: usize,
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

    /// Sends the results that wait.
    fn flush(&mut self) -> Result<(), String> {
        let Some(batch) = self
            .batch
            .as_mut()
            .filter(|batch| !batch.results.is_empty())
        else {
            return Ok(());
        };
        let mut results = std::mem::take(&mut batch.results);
        (batch.bytes, batch.lanes) = (0, 0);
        let job = batch.job;
        let head = wire::encode_results(&results);
        let mut lanes = Vec::new();
        let mut body = Vec::with_capacity(1 + results.len());
        body.push(&head[..]);
        for (_, payload) in &results {
            body.push(&payload.body);
            lanes.extend(payload.lanes.iter().cloned());
        }
        self.send(wire::RESULTS, job, &body, &lanes)?;
        results.clear();
        if let Some(batch) = &mut self.batch {
            batch.results = results;
            batch.flushed = Instant::now();
        }
        Ok(())
    }
}

struct Server {
    registry: Registry,
    connection: Arc<Connection>,
}

impl Server {
    fn serve(&self, mut socket: &UnixStream, mut reader: FrameReader) -> Result<(), String> {
        while let Some(mut frame) = read(&mut reader, &mut socket)? {
            let job = frame.head.job;
            if frame.head.kind != wire::RUN {
                return Err("the pool has sent no job".to_owned());
            }
            let decoded = wire::decode_run(&mut frame.payload);
            let (head, calls) = decoded.ok_or("the pool has sent a broken job")?;
            events::set_level(head.level);
            let task = self.registry.get(head.task, head.version);
            let task = task.map(|task| task.run).ok_or_else(|| {
                let (name, version) = (head.task, head.version);
                format!("the worker has no task {name} of version {version}")
            });
            self.run(job, task, frame.payload.body, calls)?;
        }
        Ok(())
    }

    fn run(
        &self,
        job: u64,
        task: Result<TaskFn, String>,
        mut message: Vec<u8>,
        mut calls: Parts<()>,
    ) -> Result<(), String> {
        let count = calls.len();
        let is_batch = count > 1;
        if is_batch && self.connection.counter.is_none() {
            return Err("the pool has sent several calls".to_owned());
        }
        self.connection.begin(job, count);
        // As a job, so that `cancel_requested` and `current_job` work in it.
        let connection = Arc::clone(&self.connection);
        let run = move || {
            while let Some(((), call)) = calls.next(&mut message) {
                if let Some(counter) = connection.counter.as_ref().filter(|_| is_batch) {
                    let begins = counter.begin().map_err(|error| error.to_string())?;
                    if !begins {
                        return connection.skip_rest();
                    }
                }
                let result = match &task {
                    Err(unknown) => (Status::UnknownTask, wire::encode_text(unknown)),
                    Ok(task) => run_call(*task, call),
                };
                connection.end_call(result)?;
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

    /// The calls of a message are about to run.
    fn begin(self: &Arc<Self>, job: u64, calls: usize) {
        let mut out = self.lock();
        out.batch = Some(Batch {
            job,
            calls,
            ended: 0,
            results: Vec::with_capacity(calls.min(1024)),
            bytes: 0,
            lanes: 0,
            flushed: Instant::now(),
        });
        if calls == 1 {
            return;
        }
        match out.flusher {
            Flusher::Looking => {}
            Flusher::Asleep => {
                out.flusher = Flusher::Looking;
                drop(out);
                self.flush.notify_one();
            }
            Flusher::None => {
                out.flusher = Flusher::Looking;
                drop(out);
                let connection = Arc::clone(self);
                let spawned = thread::Builder::new()
                    .name("futurepool-flush".to_owned())
                    .spawn(move || flush_long_batches(&connection));
                if spawned.is_err() {
                    // Results come later then.
                    self.lock().flusher = Flusher::None;
                }
            }
        }
    }

    fn end_call(&self, (status, payload): (Status, Payload)) -> Result<(), String> {
        let size = payload_size(&[&payload.body], &payload.lanes);
        let result = if size > self.max_payload && status == Status::Returned {
            let max = self.max_payload;
            let text = format!("it is larger than `max_payload`, {max} bytes");
            (Status::BadOutput, wire::encode_text(&text))
        } else {
            (status, payload)
        };
        let mut out = self.lock();
        let Some(batch) = &mut out.batch else {
            return Ok(());
        };
        let lanes = result.1.lanes.len();
        let fits = batch.bytes.saturating_add(size) <= self.max_payload
            && batch.lanes + lanes <= MAX_LANES;
        if !fits {
            out.flush()?;
        }
        let Some(batch) = &mut out.batch else {
            return Ok(());
        };
        batch.results.push(result);
        batch.bytes += size;
        batch.lanes += lanes;
        batch.ended += 1;
        // The time is only looked at if it matters.
        if batch.ended == batch.calls || batch.flushed.elapsed() > FLUSH_AFTER {
            out.flush()?;
        }
        Ok(())
    }

    /// The pool does not want the calls that are left.
    fn skip_rest(&self) -> Result<(), String> {
        let mut out = self.lock();
        if let Some(batch) = &mut out.batch {
            batch.results.push((Status::Skipped, wire::encode_text("")));
        }
        out.flush()
    }
}

/// Sends results that a long call holds back.
fn flush_long_batches(connection: &Connection) {
    let mut out = connection.lock();
    let mut looks = 0;
    loop {
        looks += 1;
        if let Some(batch) = out.batch.as_ref().filter(|batch| batch.calls > 1) {
            looks = 0;
            let is_due = !batch.results.is_empty() && batch.flushed.elapsed() >= FLUSH_AFTER;
            if is_due && out.flush().is_err() {
                return;
            }
        }
        let woken = if looks < LOOKS {
            let woken = connection.flush.wait_timeout(out, FLUSH_AFTER);
            woken
                .map(|woken| woken.0)
                .map_err(|error| error.into_inner().0)
        } else {
            out.flusher = Flusher::Asleep;
            looks = 0;
            connection.flush.wait(out).map_err(PoisonError::into_inner)
        };
        out = woken.unwrap_or_else(|out| out);
    }
}

type TaskFn = fn(Payload) -> Result<Payload, RunError>;

fn run_call(task: TaskFn, call: Payload) -> (Status, Payload) {
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
                    let _ = out.flush();
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
