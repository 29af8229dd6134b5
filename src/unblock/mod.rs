//! Blocking I/O and iterators as async I/O and streams.
//!
//! ```text
//!  consumer                                           worker
//!  Unblock ── start ─► Submission ─► the pool ─► one job: read | write | seek | next | call
//!     │  ▲                                               │
//!     │  └── settle ◄───────────── Reply ◄───────────────┤
//!     └────────► Shared: the value, the outbox ◄─────────┘
//! ```
//!
//! - [`Shared`] holds the blocking value. A job takes it out, uses it and puts it back. A job that
//!   never runs leaves it there.
//! - `read.rs`: one job fills one buffer, and later polls copy out of the buffer.
//! - `write.rs`: polls fill the outbox. One job writes until the outbox is empty.
//! - `seek.rs`, `stream.rs`: the other two operations. `tokio.rs`: tokio's traits.
//! - [`Submission`]: how a job waits for room in a bounded pool. [`Waiters`]: which tasks wait for it.
//!
//! At most one job of an `Unblock` is in flight, and none unless a poll asked for it. Both mutexes
//! of [`Shared`] are leaves of the lock order.

mod read;
mod seek;
mod shared;
mod stream;
mod submission;
#[cfg(feature = "tokio")]
mod tokio;
mod waiters;
mod write;

use std::any::type_name;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::panic::resume_unwind;
use std::task::{Context, Poll, ready};
use std::thread;

use self::read::ReadBuffer;
use self::seek::SeekState;
use self::shared::Shared;
use self::stream::ErasedItems;
use self::submission::{Submission, Target};
use self::waiters::{Half, Waiters};
use self::write::{WriteRest, Writing};
use crate::error::JoinError;
use crate::pool::ThreadPool;
use crate::util::sync::{Arc, Mutex};
use crate::util::unwind::{drop_catching, drop_waker, emit, wake};

/// How many bytes a job reads or writes by default. Large enough that the cost of a job does not
/// matter, and small enough that two buffers stay in a processor's cache.
const DEFAULT_BYTES: usize = 512 * 1024;

/// Async I/O over blocking I/O, and a stream over a blocking iterator.
///
/// **Dropping it** loses no accepted byte: what was written is still written and flushed in the
/// background. See [below](#what-dropping-it-does).
///
/// | `T` | `Unblock<T>` |
/// |---|---|
/// | [`Read`](std::io::Read) | [`AsyncRead`] and [`AsyncBufRead`] |
/// | [`Write`](std::io::Write) | [`AsyncWrite`] |
/// | [`Seek`](std::io::Seek) | [`AsyncSeek`] |
/// | [`Iterator`] | [`Stream`] |
///
/// The traits are those of `futures`. With the feature `tokio`, the I/O traits of tokio are
/// implemented too. Import the extension traits of one of the two: with both, `read` is ambiguous. An
/// `Unblock` works in every runtime, and without one.
///
/// `T` must be `Send` and `'static`: `stdin()`, for example, not `stdin().lock()`.
///
/// [`AsyncRead`]: futures::io::AsyncRead
/// [`AsyncBufRead`]: futures::io::AsyncBufRead
/// [`AsyncWrite`]: futures::io::AsyncWrite
/// [`AsyncSeek`]: futures::io::AsyncSeek
/// [`Stream`]: futures::stream::Stream
///
/// # Jobs
///
/// Every blocking call runs in a job of a pool, and at most one job of an `Unblock` at a time. No
/// job runs unless a poll asked for it.
///
/// - **Reading**: a job reads once, into a buffer. Polls copy out of the buffer until it is empty.
///   So a reader that is left alone keeps no worker. In a regular [`File`](std::fs::File), a poll
///   may also start a job that reads the next buffer. Nothing else is read ahead.
/// - **Writing**: a poll copies into a buffer and returns. A job writes the buffer while the next
///   one fills, so many small writes become few jobs. Everything accepted is written without
///   further polls.
/// - **Iterating**: a job calls `next` for one item. After a number of quick items, a job fills a
///   buffer of up to the capacity. Each item is handed over before the next call of `next`.
///
/// A read from a terminal or a pipe keeps a worker until data arrives, and dropping its pool waits
/// for that read. So do not put `Unblock<Stdin>` on a small pool that has other work to do.
///
/// On a full bounded pool a job waits for room like
/// [`submit_async`](ThreadPool::submit_async). In a worker of the same pool, under
/// [`block_on`](crate::block_on()), it exceeds the capacity instead.
///
/// # What dropping it does
///
/// - **Bytes that were accepted and not written** are still written in the background, and then
///   `T` is flushed. An error, or a pool that refuses the job, is reported through `tracing`. To
///   see errors, flush or close before the drop. At the end of `main` the process does not wait
///   for jobs of the process-wide pool, nor of any other pool in a `static`.
/// - **A running job** is detached. It ends by itself, and then flushes `T` if that is needed. `T`
///   is dropped on its worker.
/// - **A queued read** is cancelled.
/// - Otherwise `T` is dropped on the thread that drops the `Unblock`.
///
/// # Cancel safety
///
/// Dropping the future of a read, or of `next`, loses neither bytes nor items: the job runs on,
/// and the next read returns what it read. Dropping the future of a write is safe in the same
/// way: bytes that the future accepted are written. A dropped seek may still take effect, and the
/// next operation waits for it. With futures' trait, a seek to the same position continues the
/// dropped one. tokio's `seek` first ends the dropped one and then seeks again.
///
/// # Reading, writing and seeking the same value
///
/// The operations see the position of the consumer, not that of the buffers:
///
/// - A read first waits until accepted bytes are written.
/// - A seek accounts for bytes that were read ahead, and discards them.
/// - A write to a regular [`File`](std::fs::File) moves back over bytes that were read ahead. For
///   any other `T`, which may be a socket, these bytes stay readable and the position of `T` is
///   after them. So seek before you write after a read.
///
/// The two halves of [`split`] can be in two tasks, and both are woken when they can go on. One job
/// at a time has `T`. A read that blocks therefore delays a write: use one `Unblock` for each
/// direction of a socket, made with `try_clone`.
///
/// [`split`]: futures::io::AsyncReadExt::split
///
/// # Errors
///
/// I/O errors of `T` are returned. An error of an earlier write is returned once, by the next
/// write, flush or close. The bytes that were accepted before it are then discarded. If a flush
/// fails, the next flush or close calls [`Write::flush`](std::io::Write::flush) again.
///
/// If the pool refuses a job, the error contains the [`JoinError`], and nothing is lost: `T` and
/// all buffered bytes stay. A later call tries again, and [`into_inner`](Self::into_inner) returns
/// `T`:
///
/// ```
/// use futures::AsyncReadExt;
/// use futurepool::{JoinError, ThreadPool, Unblock};
///
/// # futures::executor::block_on(async {
/// let pool = ThreadPool::new(1);
/// let mut reader = Unblock::new_in(&pool, std::io::Cursor::new("spam"));
/// pool.shutdown().await;
///
/// let error = reader.read(&mut [0; 4]).await.unwrap_err();
/// let reason = error.get_ref().unwrap().downcast_ref::<JoinError>().unwrap();
/// assert!(reason.is_shutdown());
/// assert_eq!(reader.into_inner().await.into_inner(), "spam");
/// # });
/// ```
///
/// # Panics
///
/// If a method of `T` panics, `T` is dropped. I/O methods then return an error with the
/// [`JoinError`], which [`is_panic`](JoinError::is_panic), and an error that says so later.
/// [`Stream`], [`get_mut`](Self::get_mut), [`into_inner`](Self::into_inner) and
/// [`with_mut`](Self::with_mut) have no errors, and resume the panic. A stream then ends.
///
/// A stream and `with_mut` also panic if the pool refuses their job.
///
/// # Coming from `blocking`
///
/// - `blocking` keeps a thread for as long as a reader or stream exists and its buffer is full.
///   Here a job ends when its buffer is full.
/// - `blocking` discards what was read ahead when a write, a seek or `get_mut` comes. Here only a
///   successful seek does.
/// - The default capacity is 512 KiB instead of 8 MiB. Memory is allocated when it is used.
/// - A refused job is an error, since a pool can be shut down.
///
/// # Examples
///
/// Copying a file:
///
/// ```
/// use std::fs::File;
///
/// use futurepool::Unblock;
/// use futures::AsyncWriteExt;
///
/// # futures::executor::block_on(async {
/// let directory = tempfile::tempdir()?;
/// let target = directory.path().join("copy.toml");
/// let source = Unblock::new(futurepool::submit(|| File::open("Cargo.toml")).await??);
/// let path = target.clone();
/// let mut copy = Unblock::new(futurepool::submit(move || File::create(path)).await??);
/// futures::io::copy(source, &mut copy).await?;
/// copy.close().await?; // returns the errors of earlier writes
/// assert_eq!(std::fs::read(target)?, std::fs::read("Cargo.toml")?);
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The lines of stdin. The reader is buffered already:
///
/// ```no_run
/// use futurepool::Unblock;
/// use futures::{AsyncBufReadExt, TryStreamExt};
///
/// # futures::executor::block_on(async {
/// let mut lines = Unblock::new(std::io::stdin()).lines();
/// while let Some(line) = lines.try_next().await? {
///     println!("{line}");
/// }
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The pipes of a child process. A reader and a writer, polled together, cannot block each other:
///
/// ```
/// # #[cfg(unix)] {
/// use std::process::{Command, Stdio};
///
/// use futurepool::Unblock;
/// use futures::{AsyncReadExt, AsyncWriteExt};
///
/// # futures::executor::block_on(async {
/// let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// let mut stdin = Unblock::new(child.stdin.take().unwrap());
/// let mut stdout = Unblock::new(child.stdout.take().unwrap());
///
/// let write = async {
///     stdin.write_all(b"spam").await?;
///     stdin.close().await // closes the pipe, so the child ends
/// };
/// let mut text = String::new();
/// futures::try_join!(write, stdout.read_to_string(&mut text))?;
/// assert_eq!(text, "spam");
/// futurepool::submit(move || child.wait()).await??;
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// # }
/// ```
///
/// A directory as a stream:
///
/// ```
/// use futurepool::Unblock;
/// use futures::TryStreamExt;
///
/// # futures::executor::block_on(async {
/// let mut entries = Unblock::new(futurepool::submit(|| std::fs::read_dir("src")).await??);
/// while let Some(entry) = entries.try_next().await? {
///     println!("{}", entry.path().display());
/// }
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "unblock")]
#[doc(alias = "File")]
#[doc(alias = "AllowStdIo")]
#[doc(alias = "asyncify")]
pub struct Unblock<T> {
    target: Target,
    shared: Arc<Shared<T>>,
    /// The value while it is lent to the caller. The mutex is never locked. It makes the type
    /// `Sync` although `T` may not be.
    lent: Mutex<Option<Box<T>>>,
    /// What [`with_capacity`](Self::with_capacity) has set.
    capacity: Option<usize>,
    /// The job in flight. Set by [`start`](Self::start), removed by [`settle`](Self::settle).
    job: Option<InFlight>,
    waiters: Waiters,
    read_buffer: ReadBuffer,
    seek: SeekState,
    /// The items of a stream, from its first poll on. In a mutex for the same reason as `lent`.
    items: Mutex<Option<Box<dyn ErasedItems>>>,
    /// Whether the stream has yielded its last item.
    stream_ended: bool,
    /// How to write. Set by the first write.
    writing: Option<Writing<T>>,
    /// Whether the value was closed, and is dropped.
    closed: bool,
}

/// The job in flight.
struct InFlight {
    kind: Kind,
    submission: Submission<Reply>,
    /// Whether it writes what the pool has refused to write before. A second refusal is an error of
    /// the operation that has tried again.
    is_retry: bool,
}

/// What the job in flight does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    /// `None` if another operation has come since: no poll may take the result.
    Seek(Option<io::SeekFrom>),
    Iterate,
    Call,
    Close,
}

impl Kind {
    fn half(self) -> Half {
        match self {
            Self::Write | Self::Close => Half::Writer,
            Self::Read | Self::Seek(_) | Self::Iterate | Self::Call => Half::Reader,
        }
    }
}

/// What a job returns.
enum Reply {
    Read(read::Filled),
    /// Contains the job that writes what was accepted meanwhile, if there is one.
    Write(Option<Submission<Reply>>),
    Seek(seek::Moved),
    /// The other jobs hand over their results in another way.
    Done,
}

/// A job that did not complete.
struct Failure {
    error: JoinError,
    is_retry: bool,
}

/// The frame of every job. `rest` is that of [`Writing`], for a job that does not write.
///
/// A panic unwinds only after everything of the user's is dropped: a destructor that panics while
/// another panic unwinds aborts the process.
fn run_job<T>(
    shared: Arc<Shared<T>>,
    rest: Option<WriteRest<T>>,
    job: impl FnOnce(&Arc<Shared<T>>) -> thread::Result<Reply>,
) -> Reply {
    let mut result = job(&shared);
    if let Some(rest) = rest.filter(|_| result.is_ok() && shared.must_write_rest()) {
        // The `Unblock` is gone, and with it the interest in the reply.
        let reply = mem::replace(&mut result, rest(&shared));
        drop_catching("the destructor of a result", reply);
    }
    drop_catching("the destructor of a blocking value", shared);
    result.unwrap_or_else(|payload| resume_unwind(payload))
}

impl<T> Unblock<T> {
    /// Wraps a blocking value. Its jobs run on the [process-wide pool](crate::global).
    ///
    /// Nothing runs before the first poll.
    ///
    /// See [`Unblock`] for examples.
    #[track_caller]
    pub fn new(io: T) -> Self {
        Self::on(Target::global(), None, io)
    }

    /// Wraps a blocking value. Its jobs run on `pool`.
    ///
    /// This does not borrow the pool, and the pool can be dropped first. Later operations then
    /// return an error.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{ThreadPool, Unblock};
    /// use futures::AsyncReadExt;
    ///
    /// # futures::executor::block_on(async {
    /// let disk = ThreadPool::new(2);
    /// let file = disk.submit(|| std::fs::File::open("Cargo.toml")).await??;
    /// let mut text = String::new();
    /// Unblock::new_in(&disk, file).read_to_string(&mut text).await?;
    /// assert!(text.contains("futurepool"));
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn new_in(pool: &ThreadPool, io: T) -> Self {
        Self::on(Target::pool(pool), None, io)
    }

    /// Wraps a blocking value and sets the capacity. Its jobs run on the [process-wide
    /// pool](crate::global).
    ///
    /// The capacity is the number of bytes that one job reads, and that a writer accepts while
    /// another buffer is being written. The default is 512 KiB. For a stream, the capacity is the
    /// number of items that a job puts into its buffer at most. The default is 1024. While the
    /// consumer empties the buffer, a job may go on for some milliseconds. With a capacity of 1, a
    /// stream never calls `next` for an item that was not asked for.
    ///
    /// # Panics
    ///
    /// Panics if `capacity` is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::Unblock;
    /// use futures::AsyncWriteExt;
    ///
    /// # futures::executor::block_on(async {
    /// let mut stdout = Unblock::with_capacity(8 * 1024, std::io::stdout());
    /// stdout.write_all(b"spam\n").await?;
    /// stdout.flush().await?;
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn with_capacity(capacity: usize, io: T) -> Self {
        Self::on(Target::global(), Some(capacity), io)
    }

    /// Wraps a blocking value and sets the [capacity](Self::with_capacity). Its jobs run on `pool`.
    ///
    /// # Panics
    ///
    /// Panics if `capacity` is 0.
    #[track_caller]
    pub fn with_capacity_in(pool: &ThreadPool, capacity: usize, io: T) -> Self {
        Self::on(Target::pool(pool), Some(capacity), io)
    }

    #[track_caller]
    fn on(target: Target, capacity: Option<usize>, io: T) -> Self {
        assert_ne!(
            capacity,
            Some(0),
            "Unblock: the capacity must be at least 1"
        );
        Self {
            target,
            shared: Arc::new(Shared::new(io)),
            lent: Mutex::new(None),
            capacity,
            job: None,
            waiters: Waiters::default(),
            read_buffer: ReadBuffer::default(),
            seek: SeekState::default(),
            items: Mutex::new(None),
            stream_ended: false,
            writing: None,
            closed: false,
        }
    }

    /// Waits for the job in flight, and returns the blocking value.
    ///
    /// Accepted bytes are written first. Bytes that were read ahead stay in the buffer: the
    /// position of `T` can be after that of the reader. To change the position, use
    /// [`AsyncSeek`](futures::io::AsyncSeek).
    ///
    /// If the pool refuses to write accepted bytes, they stay in the buffer, and an event goes to
    /// `tracing`.
    ///
    /// An error of an earlier write is not returned here, but by the next write, flush or close.
    ///
    /// # Panics
    ///
    /// Resumes the panic of a job. Panics if `T` was lost in an earlier panic, or closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::Unblock;
    ///
    /// # futures::executor::block_on(async {
    /// let mut file = Unblock::new(tempfile::tempfile()?);
    /// // Blocking calls belong into `with_mut`; this one does not block.
    /// let is_empty = file.get_mut().await.metadata()?.len() == 0;
    /// assert!(is_empty);
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn get_mut(&mut self) -> &mut T {
        self.stop().await;
        if self.lent.get_mut().is_none() {
            let io = self.shared.io.lock().take();
            *self.lent.get_mut() = Some(self.expect_io(io));
        }
        self.shared.outbox.lock().unflushed = true;
        self.read_buffer.forget_end();
        self.lent
            .get_mut()
            .as_mut()
            .expect("it was put there above")
    }

    /// Waits for the job in flight, and unwraps the blocking value.
    ///
    /// Accepted bytes are written first. If that fails, the error goes to `tracing`: flush before,
    /// to see it. Bytes and items that were read ahead are discarded.
    ///
    /// # Panics
    ///
    /// Panics like [`get_mut`](Self::get_mut).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the `Unblock`.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::Unblock;
    /// use futures::AsyncWriteExt;
    ///
    /// # futures::executor::block_on(async {
    /// let mut writer = Unblock::new(Vec::new());
    /// writer.write_all(b"spam").await?;
    /// assert_eq!(writer.into_inner().await, b"spam");
    /// # Ok::<(), std::io::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn into_inner(mut self) -> T {
        self.stop().await;
        let io = match self.lent.get_mut().take() {
            Some(io) => Some(io),
            None => self.shared.io.lock().take(),
        };
        *self.expect_io(io)
    }

    /// Waits for the job in flight, then runs `f` on the blocking value in a job.
    ///
    /// Accepted bytes are written first. Bytes that were read ahead stay in the buffer, as for
    /// [`get_mut`](Self::get_mut).
    ///
    /// # Panics
    ///
    /// Resumes a panic of `f`, after which `T` is lost. Panics if the pool refuses the job, and
    /// like [`get_mut`](Self::get_mut).
    ///
    /// # Cancel safety
    ///
    /// Nothing runs before the first poll. After that, dropping the future does not stop `f`. The
    /// next operation waits for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::Unblock;
    /// use futures::AsyncWriteExt;
    ///
    /// # futures::executor::block_on(async {
    /// let mut file = Unblock::new(tempfile::tempfile()?);
    /// file.write_all(b"spam").await?;
    /// file.with_mut(|file| file.sync_all()).await?;
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "asyncify")]
    pub async fn with_mut<R, F>(&mut self, f: F) -> R
    where
        F: FnOnce(&mut T) -> R + Send + 'static,
        R: Send + 'static,
        T: Send + 'static,
    {
        self.stop().await;
        self.shared.outbox.lock().unflushed = true;
        let result = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&result);
        let started = self.start(Kind::Call, move |shared| {
            let called = shared.run(f).map(|result| *slot.lock() = Some(result));
            // If the future is gone, this drops the result.
            drop_catching("the destructor of a result", slot);
            called.map(|()| Reply::Done)
        });
        match started {
            Ok(()) => {}
            Err(Refused::Gone(reason)) => panic!("{reason}"),
            Err(Refused::Pool(error)) => panic!("Unblock::with_mut: {error}"),
        }
        let called = poll_fn(|context| self.poll_job(context, Half::Reader)).await;
        if let Err(Failure { error, .. }) = called {
            resume(error);
        }
        let result = result.lock().take();
        result.expect("the job has put it there")
    }

    fn expect_io(&self, io: Option<Box<T>>) -> Box<T> {
        io.unwrap_or_else(|| panic!("{}", self.gone()))
    }

    /// Says why there is no value.
    fn gone(&self) -> &'static str {
        match self.closed {
            true => "this Unblock is closed",
            false => "the blocking value of this Unblock was lost when one of its methods panicked",
        }
    }

    /// Submits a job. No other one may be in flight, except for a writing one that has no more to
    /// do.
    fn start<F>(&mut self, kind: Kind, job: F) -> Result<(), Refused>
    where
        F: FnOnce(&Arc<Shared<T>>) -> thread::Result<Reply> + Send + 'static,
        T: Send + 'static,
    {
        let mut io = self.shared.io.lock();
        if let Some(lent) = self.lent.get_mut().take() {
            *io = Some(lent);
        }
        let is_gone = io.is_none();
        drop(io);
        if is_gone {
            return Err(Refused::Gone(self.gone()));
        }
        if kind != Kind::Read {
            self.read_buffer.forget_end();
        }
        let mut rest = self.writing.as_ref().map(|writing| writing.rest);
        if rest.is_some() {
            self.shared.outbox.lock().active = true;
        }
        // A writing job looks at the outbox itself.
        rest = rest.filter(|_| kind != Kind::Write);
        let shared = Arc::clone(&self.shared);
        let submitted = self.target.submit(move || run_job(shared, rest, job));
        let submission = submitted.inspect_err(|_| self.shared.outbox.lock().active = false)?;
        let job = InFlight {
            kind,
            submission,
            is_retry: false,
        };
        if self.job.replace(job).is_some() {
            self.waiters.wake_other(kind.half());
        }
        Ok(())
    }

    /// Returns what the job in flight does.
    fn kind(&self) -> Option<Kind> {
        self.job.as_ref().map(|job| job.kind)
    }

    /// Waits until no job is in flight. Its results are kept for later polls.
    fn poll_job(&mut self, context: &mut Context<'_>, half: Half) -> Poll<Result<(), Failure>> {
        while let Some(job) = &mut self.job {
            let submission = &mut job.submission;
            let waiters = &mut self.waiters;
            let outcome = waiters.poll(half, context, |context| submission.poll(context));
            self.settle(ready!(outcome), half)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the results of jobs that have finished, without waiting.
    fn reap(&mut self, half: Half) -> Result<(), Failure> {
        while let Some(outcome) = (self.job.as_mut()).and_then(|job| job.submission.try_take()) {
            self.settle(outcome, half)?;
        }
        Ok(())
    }

    /// Keeps what the job in flight has returned, for both halves.
    fn settle(&mut self, outcome: Result<Reply, JoinError>, half: Half) -> Result<(), Failure> {
        let Some(InFlight { kind, is_retry, .. }) = self.job.take() else {
            return Ok(());
        };
        self.waiters.wake_other(half);
        match outcome {
            Ok(Reply::Read(filled)) => self.read_buffer.arrive(filled),
            Ok(Reply::Write(successor)) => {
                self.job = successor.map(|submission| InFlight {
                    kind,
                    submission,
                    is_retry: false,
                });
            }
            Ok(Reply::Seek(moved)) => {
                if moved.has_moved() {
                    self.read_buffer.discard();
                }
                if let Kind::Seek(Some(position)) = kind {
                    self.seek.arrive(position, moved);
                }
            }
            Ok(Reply::Done) => self.closed |= kind == Kind::Close,
            Err(error) => {
                self.closed |= kind == Kind::Close && error.is_panic();
                self.not_completed(&error);
                return Err(Failure { error, is_retry });
            }
        }
        Ok(())
    }

    /// A job did not run to its end.
    fn not_completed(&mut self, error: &JoinError) {
        let mut outbox = self.shared.outbox.lock();
        outbox.active = false;
        outbox.last = false;
        // After a panic there is no value that could be written. The caller is told.
        if error.is_panic() {
            outbox.discard();
        }
        let waker = outbox.waker.take();
        drop(outbox);
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    /// Waits until no job is in flight, for an operation that does not report errors of others.
    /// Fails only if the value was lost just now.
    fn poll_others(
        &mut self,
        context: &mut Context<'_>,
        half: Half,
    ) -> Poll<Result<(), JoinError>> {
        while let Err(failure) = ready!(self.poll_job(context, half)) {
            if failure.error.is_panic() {
                return Poll::Ready(Err(failure.error));
            }
            // The job was refused, and its caller has gone. Nothing was done, and accepted bytes are
            // still in the outbox.
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until no job is in flight and everything is written. Resumes a panic. If the pool
    /// refuses to write, the bytes stay in the outbox.
    async fn stop(&mut self) {
        // Another operation has tried again, not this one.
        if let Some(job) = &mut self.job {
            job.is_retry = false;
        }
        poll_fn(|context| self.poll_stop(context)).await;
    }

    fn poll_stop(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.abandon_seek();
        match ready!(self.poll_written(context, Half::Reader)) {
            Err(Refused::Pool(error)) if error.is_panic() => resume(error),
            Err(Refused::Pool(error)) => {
                let bytes = self.shared.outbox.lock().bytes.len();
                emit(|| {
                    tracing::warn!(
                        bytes,
                        %error,
                        "an Unblock lends its value before {bytes} bytes are written: {error}"
                    )
                });
            }
            // The caller says why there is no value.
            Err(Refused::Gone(_)) | Ok(()) => {}
        }
        Poll::Ready(())
    }

    fn byte_capacity(&self) -> usize {
        self.capacity.unwrap_or(DEFAULT_BYTES)
    }
}

/// Why a job was not submitted.
enum Refused {
    /// There is no value.
    Gone(&'static str),
    Pool(JoinError),
}

impl From<JoinError> for Refused {
    fn from(error: JoinError) -> Self {
        Self::Pool(error)
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Gone(reason) => io::Error::new(io::ErrorKind::BrokenPipe, reason),
            Refused::Pool(error) => error.into(),
        }
    }
}

/// Goes on with the panic of a job. Panics with any other error.
fn resume(error: JoinError) -> ! {
    match error.try_into_panic() {
        Ok(payload) => resume_unwind(payload),
        Err(error) => panic!("Unblock: {error}"),
    }
}

impl<T> Drop for Unblock<T> {
    fn drop(&mut self) {
        self.waiters.forget();
        if let Some(InFlight {
            kind, submission, ..
        }) = &self.job
        {
            let is_wanted = matches!(kind, Kind::Write | Kind::Call | Kind::Close);
            if !is_wanted && submission.cancel() {
                self.job = None;
                self.shared.outbox.lock().active = false;
            }
        }
        self.finish_in_background();
        let waker = self.shared.outbox.lock().waker.take();
        drop_waker(waker);
        if let Some(mut items) = self.items.get_mut().take() {
            items.forget_waker();
            // The destructor of the blocking value may panic, too, and two at once abort.
            drop_catching("the destructor of an item", items);
        }
    }
}

impl<T> fmt::Debug for Unblock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.job.as_ref().map(|job| job.kind) {
            None if self.closed => "closed",
            None => "idle",
            Some(Kind::Read) => "reading",
            Some(Kind::Write) => "writing",
            Some(Kind::Seek(_)) => "seeking",
            Some(Kind::Iterate) => "iterating",
            Some(Kind::Call) => "in with_mut",
            Some(Kind::Close) => "closing",
        };
        write!(f, "Unblock<{}>({state})", type_name::<T>())
    }
}
