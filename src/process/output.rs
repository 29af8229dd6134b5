//! What worker processes write to stdout and stderr.
//!
//! One thread a pool reads all pipes. It starts with the first pipe, and ends when the pool's
//! [`Output`] is dropped and no pipe is left. It blocks in `poll` while nothing is written.
//!
//! The end of a pipe is never waited for: a process that outlives its worker may keep it open.
//!
//! The thread writes to stderr and calls the user's code, so it may be blocked for any time. A
//! worker that fills its pipe meanwhile waits, as with a slow terminal. Waits for the thread have a
//! limit.
//!
//! Lock order: [`Shared::state`] and [`PipeState::state`] are leaves. No lock is held during a
//! system call or a callback.

use std::fmt::{self, Formatter};
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread, read, write};

pub(crate) use crate::process::line::{JobName, OutputLine, OutputStream};
use crate::process::socket::{self, NoSigpipe};
use crate::util::sync::{Arc, Condvar, Mutex, thread, wait_on, wait_on_for};
use crate::util::unwind::{catch_panic, drop_catching};

/// How much of a stream is kept for the error of a job.
const TAIL: usize = 4 * 1024;

/// The longest line. A longer one is given in pieces.
const LINE: usize = 64 * 1024;

/// How much is read at once.
const READ: usize = 64 * 1024;

/// How long a stderr that takes nothing is waited for, if it is non-blocking.
const BUSY: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Where the output goes.
#[derive(Clone)]
pub(crate) enum Sink {
    /// To the same stream of this process, as it comes.
    Tee,
    /// To the user's code, line by line.
    Lines(Arc<dyn Fn(OutputLine<'_>) + Send + Sync>),
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tee => "Tee",
            Self::Lines(_) => "Lines",
        })
    }
}

/// Tells which job a worker runs. It must not keep the worker alive: the worker owns the
/// [`OutputHandle`], which ends this.
pub(crate) type CurrentJob = Arc<dyn Fn() -> Option<JobName> + Send + Sync>;

// ---- The pool's side ----------------------------------------------------------------------------

/// The pool's side of the thread that reads the workers' output.
///
/// Dropping it lets the thread end once all pipes are closed or their handles dropped.
pub(crate) struct Output {
    shared: Arc<Shared>,
}

/// One pipe that the thread reads.
///
/// Dropping it makes the thread read what is there, and close the pipe.
pub(crate) struct OutputHandle {
    shared: Arc<Shared>,
    pipe: Arc<PipeState>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified when a start of the thread has succeeded or failed.
    started: Condvar,
}

#[derive(Debug)]
struct State {
    thread: Thread,
    /// For the thread, in order. Each is followed by a wake-up.
    commands: Vec<Command>,
    /// The [`Output`] was dropped.
    closed: bool,
}

#[derive(Debug)]
enum Thread {
    None,
    Starting,
    Running {
        /// A byte in it wakes the thread.
        wake: Arc<UnixStream>,
        id: std::thread::ThreadId,
    },
}

enum Command {
    Add(Box<Pipe>),
    Drain(Arc<PipeState>),
    Remove(Arc<PipeState>),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add(_) => "Add",
            Self::Drain(_) => "Drain",
            Self::Remove(_) => "Remove",
        })
    }
}

/// What the thread and a handle share.
#[derive(Debug)]
struct PipeState {
    state: Mutex<PipeProgress>,
    /// Notified when `drained` or `gone` changes.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PipeProgress {
    /// The last bytes, at most `TAIL`.
    tail: Vec<u8>,
    /// Older bytes were dropped from `tail`.
    is_cut: bool,
    /// How many drains were requested, and how many of them are done.
    requested: u64,
    drained: u64,
    /// The thread has closed the pipe.
    gone: bool,
}

impl Output {
    /// Makes the pool's side. The thread starts later, with the first [`add`](Self::add).
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    thread: Thread::None,
                    commands: Vec::new(),
                    closed: false,
                }),
                started: Condvar::new(),
            }),
        }
    }

    /// Makes the thread read `fd`, the end of a pipe.
    ///
    /// # Errors
    ///
    /// Returns the system's error if the thread cannot be started. The next call tries again.
    pub(crate) fn add(
        &self,
        pid: u32,
        stream: OutputStream,
        fd: OwnedFd,
        sink: Sink,
        current: CurrentJob,
    ) -> io::Result<OutputHandle> {
        self.ensure_started()?;
        let pipe = Arc::new(PipeState {
            state: Mutex::new(PipeProgress::default()),
            changed: Condvar::new(),
        });
        self.shared.send(Command::Add(Box::new(Pipe {
            state: Arc::clone(&pipe),
            pid,
            stream,
            fd,
            sink,
            current,
            lines: Lines::default(),
        })));
        Ok(OutputHandle {
            shared: Arc::clone(&self.shared),
            pipe,
        })
    }

    fn ensure_started(&self) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        loop {
            match state.thread {
                Thread::Running { .. } => return Ok(()),
                Thread::Starting => state = wait_on(&self.shared.started, state),
                Thread::None => break,
            }
        }
        state.thread = Thread::Starting;
        drop(state);
        let started = self.start();
        let mut state = self.shared.state.lock();
        let result;
        (state.thread, result) = match started {
            Ok(thread) => (thread, Ok(())),
            Err(error) => (Thread::None, Err(error)),
        };
        drop(state);
        self.shared.started.notify_all();
        result
    }

    fn start(&self) -> io::Result<Thread> {
        // A pair of sockets, for `pipe2` is not there on every system.
        let (wake, woken) = socket::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("futurepool-output".to_owned())
            .spawn(move || run(&shared, &woken))?;
        Ok(Thread::Running {
            wake: Arc::new(wake),
            id: thread.thread().id(),
        })
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wake();
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

impl Shared {
    fn send(&self, command: Command) {
        self.state.lock().commands.push(command);
        self.wake();
    }

    fn wake(&self) {
        let wake = match &self.state.lock().thread {
            Thread::Running { wake, .. } => Arc::clone(wake),
            // There is nothing to wake: commands are sent by handles, and a handle is made once the
            // thread runs.
            Thread::Starting | Thread::None => return,
        };
        // A full buffer wakes as well, and a thread that has ended needs no wake-up.
        let _ = io::Write::write(&mut NoSigpipe(&wake), &[1]);
    }

    fn is_on_the_thread(&self) -> bool {
        let current = std::thread::current().id();
        matches!(self.state.lock().thread, Thread::Running { id, .. } if id == current)
    }
}

impl OutputHandle {
    /// Blocks until the thread has read what is in the pipe now, and has passed it on.
    ///
    /// Returns after `timeout` if the thread is blocked, in the user's code for example. Returns at
    /// once on that thread.
    pub(crate) fn drain(&self, timeout: Duration) {
        // No end if the timeout is too long for the clock.
        let end = Instant::now().checked_add(timeout);
        if self.shared.is_on_the_thread() {
            return;
        }
        let ticket = {
            let mut progress = self.pipe.state.lock();
            if progress.gone {
                return;
            }
            progress.requested += 1;
            progress.requested
        };
        self.shared.send(Command::Drain(Arc::clone(&self.pipe)));
        let mut progress = self.pipe.state.lock();
        while progress.drained < ticket && !progress.gone {
            progress = match end.map(|end| end.saturating_duration_since(Instant::now())) {
                None => wait_on(&self.pipe.changed, progress),
                Some(Duration::ZERO) => return,
                Some(left) => wait_on_for(&self.pipe.changed, progress, left).0,
            };
        }
    }

    /// Returns the last lines that were read, up to 4 KiB, or the end of a line that is longer.
    pub(crate) fn tail(&self) -> String {
        let (bytes, is_cut) = {
            let progress = self.pipe.state.lock();
            (progress.tail.clone(), progress.is_cut)
        };
        let start = if is_cut { first_whole(&bytes) } else { 0 };
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }
}

/// Returns where the first line begins that has lost nothing. If there is only the end of one line:
/// where its first character begins.
fn first_whole(bytes: &[u8]) -> usize {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if end + 1 < bytes.len() => end + 1,
        _ => {
            let lost = bytes.iter().take(3).take_while(|b| is_continuation(**b));
            lost.count()
        }
    }
}

impl Drop for OutputHandle {
    fn drop(&mut self) {
        if !self.pipe.state.lock().gone {
            self.shared.send(Command::Remove(Arc::clone(&self.pipe)));
        }
    }
}

impl fmt::Debug for OutputHandle {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputHandle").finish_non_exhaustive()
    }
}

// ---- The thread ---------------------------------------------------------------------------------

/// A pipe, as the thread has it.
struct Pipe {
    state: Arc<PipeState>,
    pid: u32,
    stream: OutputStream,
    fd: OwnedFd,
    sink: Sink,
    current: CurrentJob,
    lines: Lines,
}

fn run(shared: &Shared, woken: &UnixStream) {
    let mut pipes: Vec<Pipe> = Vec::new();
    let mut buffer = vec![0; READ];
    loop {
        // The wake-up is taken before the commands: a command that comes after them has its own.
        while let Ok(1..) = io::Read::read(&mut &*woken, &mut [0; 64]) {}
        let (commands, closed) = {
            let mut state = shared.state.lock();
            (mem::take(&mut state.commands), state.closed)
        };
        for command in commands {
            match command {
                Command::Add(pipe) => pipes.push(*pipe),
                Command::Drain(state) => {
                    if let Some(at) = find(&pipes, &state) {
                        pipes[at].drain(&mut buffer);
                    }
                }
                Command::Remove(state) => {
                    if let Some(at) = find(&pipes, &state) {
                        let mut pipe = pipes.swap_remove(at);
                        pipe.drain(&mut buffer);
                        pipe.close();
                    }
                }
            }
        }
        if closed && pipes.is_empty() {
            return;
        }

        let ready = {
            let fds = pipes.iter().map(|pipe| pipe.fd.as_fd());
            let mut fds: Vec<_> = [woken.as_fd()]
                .into_iter()
                .chain(fds)
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                // No memory for it: the next try may have it.
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
            fds.iter()
                .map(|fd| !fd.revents().is_empty())
                .collect::<Vec<_>>()
        };
        // From the end, so that a removal moves only what was looked at.
        for at in (0..pipes.len()).rev() {
            if ready[at + 1] && !pipes[at].read(&mut buffer) {
                pipes.swap_remove(at).close();
            }
        }
    }
}

fn find(pipes: &[Pipe], state: &Arc<PipeState>) -> Option<usize> {
    pipes
        .iter()
        .position(|pipe| Arc::ptr_eq(&pipe.state, state))
}

impl Pipe {
    /// Reads once. Returns `false` at the end of the stream.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        match read(&self.fd, &mut *buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.pass_on(&buffer[..n]);
                true
            }
            Err(Errno::INTR | Errno::AGAIN) => true,
            Err(_) => false,
        }
    }

    /// Reads what is there now, and no more: another process may write on and on.
    fn drain(&mut self, buffer: &mut [u8]) {
        let requested = self.state.state.lock().requested;
        let there = ioctl_fionread(&self.fd).unwrap_or(0);
        let mut left = usize::try_from(there).unwrap_or(0);
        while left > 0 {
            let most = left.min(buffer.len());
            match read(&self.fd, &mut buffer[..most]) {
                Ok(0) => break,
                Ok(n) => {
                    self.pass_on(&buffer[..n]);
                    left -= n;
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.state.state.lock().drained = requested;
        self.state.changed.notify_all();
    }

    fn pass_on(&mut self, bytes: &[u8]) {
        self.state.state.lock().keep(bytes);
        let (pid, stream) = (self.pid, self.stream);
        match &self.sink {
            // Past std's own locks and buffer: user code may hold such a lock for any time.
            Sink::Tee => match stream {
                OutputStream::Stdout => write_all(io::stdout().as_fd(), bytes),
                OutputStream::Stderr => write_all(io::stderr().as_fd(), bytes),
            },
            Sink::Lines(f) => {
                let job = (self.current)();
                self.lines
                    .push(bytes, |text| tell(&**f, pid, stream, text, job.as_ref()));
            }
        }
    }

    /// Passes the rest of a line on, and closes the pipe.
    fn close(mut self) {
        if let Sink::Lines(f) = &self.sink {
            let job = (self.current)();
            let (pid, stream) = (self.pid, self.stream);
            self.lines
                .finish(|text| tell(&**f, pid, stream, text, job.as_ref()));
        }
        drop(self.fd);
        self.state.state.lock().gone = true;
        self.state.changed.notify_all();
        drop_catching("the destructor of an output callback", self.sink);
    }
}

fn tell(
    f: &(dyn Fn(OutputLine<'_>) + Send + Sync),
    pid: u32,
    stream: OutputStream,
    text: &str,
    job: Option<&JobName>,
) {
    catch_panic("an output callback", || {
        f(OutputLine {
            pid,
            stream,
            text,
            job,
        });
    });
}

/// Writes to a stream of this process. There is nowhere to report an error.
fn write_all(target: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match write(target, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(target, PollFlags::OUT)];
                match poll(&mut fds, Some(&BUSY)) {
                    Ok(0) => return,
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => return,
                }
            }
            Err(_) => return,
        }
    }
}

impl PipeProgress {
    fn keep(&mut self, bytes: &[u8]) {
        self.tail
            .extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        self.is_cut |= surplus > 0 || bytes.len() > TAIL;
    }
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
struct Lines {
    /// The start of a line, at most `LINE` bytes.
    pending: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&str)) {
        loop {
            let room = LINE - self.pending.len();
            let near = &bytes[..bytes.len().min(room + 1)];
            if let Some(end) = near.iter().position(|byte| *byte == b'\n') {
                self.pending.extend_from_slice(&bytes[..end]);
                let text = self.pending.strip_suffix(b"\r").unwrap_or(&self.pending);
                line(&String::from_utf8_lossy(text));
                self.pending.clear();
                bytes = &bytes[end + 1..];
            } else if near.len() <= room {
                self.pending.extend_from_slice(near);
                return;
            } else {
                self.pending.extend_from_slice(&bytes[..room]);
                bytes = &bytes[room..];
                let end = whole_characters(&self.pending);
                line(&String::from_utf8_lossy(&self.pending[..end]));
                self.pending.drain(..end);
            }
        }
    }

    /// Gives the last line, which has no end.
    fn finish(&mut self, line: impl FnOnce(&str)) {
        if !self.pending.is_empty() {
            line(&String::from_utf8_lossy(&mem::take(&mut self.pending)));
        }
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Returns the length of `bytes` without a character at its end that is not complete.
fn whole_characters(bytes: &[u8]) -> usize {
    let len = bytes.len();
    let rest = bytes
        .iter()
        .rev()
        .take(3)
        .take_while(|b| is_continuation(**b));
    let rest = rest.count();
    match bytes.iter().rev().nth(rest) {
        Some(0xc0..) if std::str::from_utf8(&bytes[len - rest - 1..]).is_err() => len - rest - 1,
        _ => len,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{Arc as StdArc, Weak};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    type Line = (u32, OutputStream, String, Option<String>, Option<String>);

    fn pipe() -> (OwnedFd, File) {
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        (read, write.into())
    }

    fn no_job() -> CurrentJob {
        Arc::new(|| None)
    }

    fn to_channel() -> (Sink, Receiver<Line>) {
        let (send, receive) = channel();
        let sink = Sink::Lines(Arc::new(move |line| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            let text = line.to_string();
            let (task, label) = (own(line.task()), own(line.label()));
            // The test may be over.
            let _ = send.send((line.worker_pid(), line.stream(), text, task, label));
        }));
        (sink, receive)
    }

    fn eventually(what: &str, fact: impl Fn() -> bool) {
        let start = Instant::now();
        while !fact() {
            assert!(start.elapsed() < LONG, "{what}: not true after {LONG:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| found.push(line.to_owned()));
        }
        lines.finish(|line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn lines_are_cut_at_their_ends() {
        assert_eq!(lines_of(&[b"a\n\nb\r\nc"]), ["a", "", "b", "c"]);
        assert_eq!(lines_of(&[b"a\r", b"\nb", b"c\n", b""]), ["a", "bc"]);
        assert_eq!(lines_of(&[b"x\xffy\n"]), ["x\u{fffd}y"]);
        assert_eq!(lines_of(&[]), [""; 0]);
    }

    #[test]
    fn lines_do_not_depend_on_how_they_are_read() {
        for seed in 0..200_u64 {
            let mut state = seed;
            let mut below = |n: usize| {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                ((z ^ (z >> 27)) % n as u64) as usize
            };
            let size = [10, 1_000, 3 * LINE][below(3)];
            let common = below(2) == 0;
            let text: Vec<u8> = (0..size)
                .map(|_| match below(if common { 9 } else { 90_000 }) {
                    0 => b'\n',
                    1 => b'\r',
                    2 => 0xff,
                    n => b'a' + (n % 26) as u8,
                })
                .collect();
            let mut pieces = Vec::new();
            let mut rest = &text[..];
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(1 + below(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            assert_eq!(lines_of(&pieces), lines_of(&[&text]), "seed {seed}");
        }
    }

    #[test]
    fn long_lines_come_in_pieces_of_whole_characters() {
        let exact = "x".repeat(LINE);
        assert_eq!(lines_of(&[exact.as_bytes(), b"\n", b"y"]), [&exact, "y"]);
        let longer = "äöü€😀".repeat(LINE / 5);
        let pieces = lines_of(&[longer.as_bytes(), b"\nend\n"]);
        let (end, pieces) = pieces.split_last().expect("lines");
        assert_eq!((end.as_str(), pieces.concat()), ("end", longer));
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= LINE));
    }

    #[test]
    fn lines_carry_their_worker_and_its_job() {
        let output = Output::new();
        let (sink, lines) = to_channel();
        let current: CurrentJob = Arc::new(|| {
            Some(JobName {
                task: "resize".into(),
                label: Some("cat.png".into()),
            })
        });
        let (read, mut write) = pipe();
        let (other_read, mut other) = pipe();
        let stderr = OutputStream::Stderr;
        let _first = output.add(7, stderr, read, sink.clone(), current);
        let stdout = OutputStream::Stdout;
        let _second = output.add(8, stdout, other_read, sink, no_job());
        write.write_all(b"one\ntw").expect("a reader");
        let own = |text: &str| Some(text.to_owned());
        let one = (7, stderr, "one".to_owned(), own("resize"), own("cat.png"));
        assert_eq!(lines.recv_timeout(LONG), Ok(one));
        other.write_all(b"three\n").expect("a reader");
        let three = (8, stdout, "three".to_owned(), None, None);
        assert_eq!(lines.recv_timeout(LONG), Ok(three));
        drop(write);
        let two = (7, stderr, "tw".to_owned(), own("resize"), own("cat.png"));
        assert_eq!(lines.recv_timeout(LONG), Ok(two));
    }

    #[test]
    fn a_drain_reads_what_is_there_and_waits_for_no_end() {
        let output = Output::new();
        let (sink, lines) = to_channel();
        let (read, mut write) = pipe();
        let handle = output.add(7, OutputStream::Stderr, read, sink, no_job());
        let handle = handle.expect("a thread");
        handle.drain(LONG);
        for n in 0..200 {
            writeln!(write, "line {n}").expect("a reader");
            write!(write, "rest").expect("a reader");
            handle.drain(LONG);
            assert!(handle.tail().ends_with(&format!("line {n}\nrest")));
            assert!(lines.try_recv().is_ok(), "it was passed on, too");
        }
        drop(write);
        handle.drain(LONG);
    }

    #[test]
    fn a_drain_ends_while_a_process_writes_on_and_on() {
        let output = Output::new();
        let (read, mut write) = pipe();
        let (sink, lines) = to_channel();
        let handle = output.add(7, OutputStream::Stderr, read, sink, no_job());
        let writer = std::thread::spawn(move || while write.write_all(b"more\n").is_ok() {});
        lines.recv_timeout(LONG).expect("it writes");
        let handle = handle.expect("a thread");
        let start = Instant::now();
        handle.drain(LONG);
        assert!(start.elapsed() < LONG);
        drop(handle);
        writer.join().expect("the pipe is closed under it");
    }

    #[test]
    fn a_drain_does_not_wait_longer_than_it_may() {
        let output = Output::new();
        let (entered, has_entered) = channel();
        let (leave, may_leave) = channel::<()>();
        let may_leave = Mutex::new(may_leave);
        let sink = Sink::Lines(Arc::new(move |_| {
            entered.send(()).expect("the test waits for it");
            let _ = may_leave.lock().recv();
        }));
        let (read, mut write) = pipe();
        let handle = output.add(7, OutputStream::Stderr, read, sink, no_job());
        write.write_all(b"slow\n").expect("a reader");
        has_entered
            .recv_timeout(LONG)
            .expect("the line is passed on");
        let handle = handle.expect("a thread");
        handle.drain(Duration::from_millis(20));
        assert_eq!(handle.tail(), "slow\n");
        drop(leave);
        handle.drain(LONG);
    }

    #[test]
    fn a_callback_that_drains_does_not_wait_for_itself() {
        let output = Output::new();
        let own = StdArc::new(Mutex::new(None::<OutputHandle>));
        let (tell, told) = channel();
        let sink = Sink::Lines(Arc::new({
            let own = StdArc::clone(&own);
            move |_| {
                let handle = own.lock().take().expect("it was put there");
                handle.drain(LONG * 10);
                tell.send(()).expect("the test waits for it");
            }
        }));
        let (read, mut write) = pipe();
        let handle = output.add(7, OutputStream::Stderr, read, sink, no_job());
        *own.lock() = handle.ok();
        write.write_all(b"line\n").expect("a reader");
        told.recv_timeout(LONG).expect("no wait");
    }

    #[test]
    fn a_panic_in_a_callback_harms_no_other_line() {
        let output = Output::new();
        let (sink, lines) = to_channel();
        let Sink::Lines(inner) = sink else {
            unreachable!("it is that")
        };
        let sink = Sink::Lines(Arc::new(move |line| {
            inner(line);
            std::panic::resume_unwind(Box::new("a test"));
        }));
        let (read, mut write) = pipe();
        let _handle = output.add(7, OutputStream::Stderr, read, sink, no_job());
        write.write_all(b"a\nb\n").expect("a reader");
        assert_eq!(lines.recv_timeout(LONG).expect("a line").2, "a");
        assert_eq!(lines.recv_timeout(LONG).expect("a line").2, "b");
    }

    #[test]
    fn the_tail_is_the_last_bytes_in_whole_characters() {
        let mut progress = PipeProgress::default();
        progress.keep("ä".repeat(TAIL / 2).as_bytes());
        assert!(!progress.is_cut && progress.tail.len() == TAIL);
        progress.keep(b"end");
        assert!(progress.is_cut && progress.tail.len() == TAIL);
        let handle = OutputHandle {
            shared: Arc::clone(&Output::new().shared),
            pipe: Arc::new(PipeState {
                state: Mutex::new(progress),
                changed: Condvar::new(),
            }),
        };
        let tail = handle.tail();
        assert!(tail.starts_with('ä') && tail.ends_with("äend"));
        handle.pipe.state.lock().keep(&[b'x'; 3 * TAIL]);
        assert_eq!(handle.tail(), "x".repeat(TAIL));
    }

    #[test]
    fn the_tail_begins_with_a_whole_line() {
        assert_eq!(first_whole(b"half\na line\n"), 5);
        assert_eq!(first_whole(b"the end of one line\n"), 0);
        assert_eq!(first_whole("äx".as_bytes().split_at(1).1), 1);
        assert_eq!(first_whole(b""), 0);
    }

    #[test]
    fn the_thread_ends_with_the_pool_and_its_pipes() {
        let output = Output::new();
        let (read, write) = pipe();
        let (sink, lines) = to_channel();
        let stream = OutputStream::Stderr;
        let handle = output.add(7, stream, read, sink.clone(), no_job());
        let (other_read, mut other_write) = pipe();
        let other = output.add(8, stream, other_read, sink, no_job());
        let shared: Weak<Shared> = Arc::downgrade(&output.shared);
        drop(output);
        other_write.write_all(b"still read").expect("a reader");
        drop(handle);
        // Its writer lives, as with a process that has outlived its worker.
        drop(other);
        assert_eq!(lines.recv_timeout(LONG).expect("a line").2, "still read");
        eventually("the thread has ended", || shared.strong_count() == 0);
        assert!(other_write.write_all(b"x").is_err(), "the pipe is closed");
        drop(write);
    }

    #[test]
    fn threads_that_start_it_at_once_share_it() {
        let output = Output::new();
        let (sink, lines) = to_channel();
        std::thread::scope(|scope| {
            for pid in 0..8 {
                let (output, sink) = (&output, sink.clone());
                scope.spawn(move || {
                    let (read, mut write) = pipe();
                    write.write_all(b"line\n").expect("room for it");
                    let stream = OutputStream::Stdout;
                    let handle = output.add(pid, stream, read, sink, no_job());
                    handle.expect("a thread").drain(LONG);
                });
            }
        });
        let mut pids: Vec<_> = lines.try_iter().map(|line| line.0).collect();
        pids.sort_unstable();
        assert_eq!(pids, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn a_stderr_that_is_full_and_non_blocking_loses_nothing_for_a_while() {
        let (mut near, far) = UnixStream::pair().expect("a pair");
        far.set_nonblocking(true).expect("an option");
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut near, &mut bytes).map(|_| bytes)
        });
        let sent: Vec<_> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        write_all(far.as_fd(), &sent);
        drop(far);
        assert!(reader.join().expect("no panic").expect("no error") == sent);
    }
}
