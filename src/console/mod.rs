//! A live view of every pool of the process, in a browser and in a terminal (feature `console`).
//!
//! [`serve`] starts a small web server on a thread of its own. Open its address in a browser:
//!
//! ```no_run
//! let console = futurepool::console::serve("127.0.0.1:6670")?;
//! println!("http://{}/", console.local_addr());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The page shows for each pool:
//!
//! - its workers, what each runs and since when, and what each did in the last minute, on a
//!   timeline that can be paused,
//! - the depth of the queue and the age of the oldest job in it,
//! - for a pool with [`auto_size`](crate::ThreadPoolBuilder::auto_size): how many workers it allows
//!   itself, and why and when it changed that, with a line in the timeline,
//! - how many jobs are submitted, started, finished and refused a second,
//! - the median and the 99th percentile of the run time, and of the queue wait,
//! - where the time goes: jobs by label, or by the place of their `submit`,
//! - the worker processes of a `ProcessPool`, with their memory,
//! - panics with their message and place, worker processes that were killed or crashed, and threads
//!   that the system refused.
//!
//! A pool appears by itself when it is built, and vanishes when it is dropped and its workers have
//! exited.
//!
//! The command `futurepool-top` shows the same in a terminal:
//!
//! ```text
//! cargo install futurepool --features console    # in a checkout: --path . --features console
//! futurepool-top 127.0.0.1:6670
//! ```
//!
//! # What it costs
//!
//! Without the feature nothing of this is compiled. With it, a worker writes a few numbers for each
//! job to memory of its own. That takes some 70 instructions, 4 % of a job that does nothing.
//!
//! While a client asks, and for a minute after that, the console reads these numbers five times a
//! second. Workers then measure some of their jobs: about a hundred each in that time, or all if
//! they are fewer. That slows down a busy pool by less than 2 %. The example `console_cost`
//! measures it. The console never blocks a worker: it takes no lock that a job needs.
//!
//! While nothing asks, the console does nothing. Its thread waits for a connection and uses no CPU
//! time. So the timeline begins with the first request.
//!
//! # What the figures mean
//!
//! The counts are exact, as those of [`ThreadPool::metrics`](crate::ThreadPool::metrics). Other
//! figures come from the jobs that were measured:
//!
//! - Run times are those of the closures, of jobs that ended in the last minute.
//! - "–" means that a figure is unknown: rates until the second look, quantiles until a measured
//!   job has ended.
//! - "≥" means that a job ran, or was queued, before the console began to look.
//! - The age of the oldest queued job is derived from the counts, with a precision of 0.2 s. If
//!   jobs do not start in the order of submission, the oldest one may be older.
//! - A worker that runs many short jobs has a solid block in the timeline. Its height is the share
//!   of the time in which jobs ran.
//!
//! # Access
//!
//! The console shows names, labels, paths of source files, and the messages of panics. It changes
//! nothing and answers only `GET`.
//!
//! - Without a token it listens only on loopback addresses. Every user of the machine can then read
//!   it. Pages of other sites cannot, since it answers only to the names of loopback.
//! - With a [token](ConsoleBuilder::token) it listens anywhere. A request without the token gets
//!   only the status 401. The connection is not encrypted, so on a network that you do not trust,
//!   use a tunnel such as `ssh -L`.

mod access;
mod json;
pub(crate) mod registry;
mod sampler;
mod server;
mod snapshot;
mod text;
pub(crate) mod watch;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use futures::channel::oneshot;

use self::access::Guard;
use crate::util::sync::Mutex;

/// The shortest token, in bytes.
const MIN_TOKEN: usize = 16;

/// How many consoles there are.
static CONSOLES: AtomicUsize = AtomicUsize::new(0);

/// Serves a console on an address such as `127.0.0.1:6670`, without a token.
///
/// See the [module](self) for what it shows and costs. Port 0 chooses a free port, which
/// [`Console::local_addr`] returns.
///
/// # Errors
///
/// Returns an error if the address is not a loopback address, if the port is in use, or if the
/// system refuses the console a thread or a file descriptor. For other addresses, use [`builder`]
/// and set a token.
///
/// # Examples
///
/// ```
/// let console = futurepool::console::serve("127.0.0.1:0")?;
/// assert!(console.local_addr().ip().is_loopback());
/// console.shutdown();
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "dashboard")]
#[doc(alias = "tokio-console")]
#[doc(alias = "console_subscriber")]
#[doc(alias = "monitor")]
#[doc(alias = "flower")]
pub fn serve(address: impl ToSocketAddrs) -> io::Result<Console> {
    builder().serve(address)
}

/// Returns a builder, which sets the options of a new console.
///
/// # Examples
///
/// ```
/// let token = "f3b1c4d5a6978877"; // in a real program from its configuration
/// let console = futurepool::console::builder().token(token).serve("127.0.0.1:0")?;
/// println!("http://{}/?token={token}", console.local_addr());
/// # console.shutdown();
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn builder() -> ConsoleBuilder {
    ConsoleBuilder { token: None }
}

/// The options of a new [`Console`]: see [`builder`].
#[derive(Clone, Default)]
#[must_use = "a builder does nothing until `serve` is called"]
pub struct ConsoleBuilder {
    token: Option<String>,
}

impl ConsoleBuilder {
    /// Requires a token of each request, at least 16 bytes long.
    ///
    /// A browser gets in with the address `http://host:port/?token=…`, once. It then has a cookie
    /// for this console, until one of the two ends. A program sends the header `Authorization:
    /// Bearer …`.
    ///
    /// With a token, the console can listen on addresses that other machines reach.
    #[doc(alias = "password")]
    #[doc(alias = "auth")]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Serves the console: see [`serve`].
    ///
    /// # Errors
    ///
    /// Returns an error if the address is not a loopback address and there is no token, if the
    /// token is too short, if the port is in use, or if the system refuses the console a thread or
    /// a file descriptor.
    pub fn serve(self, address: impl ToSocketAddrs) -> io::Result<Console> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        let addresses: Vec<_> = address.to_socket_addrs()?.collect();
        match &self.token {
            None => {
                if let Some(open) = addresses.iter().find(|at| !at.ip().is_loopback()) {
                    return Err(invalid(format!(
                        "other machines can reach `{open}`, so the console needs a token: set one, or use 127.0.0.1"
                    )));
                }
            }
            Some(token) if token.len() < MIN_TOKEN => {
                return Err(invalid(format!(
                    "the token is too short: it needs {MIN_TOKEN} bytes or more, such as those of `openssl rand -hex 16`"
                )));
            }
            Some(_) => {}
        }
        let listener = TcpListener::bind(&addresses[..])?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let guard = Guard::new(self.token, address.port());
        let has_token = guard.has_token();
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let main = move || {
            let ready = || drop(tell.send(Ok(())));
            if let Err(error) = server::run(listener, guard, stopped, ready) {
                let _ = tell.send(Err(error));
            }
            if CONSOLES.fetch_sub(1, Ordering::AcqRel) == 1 {
                sampler::stop();
            }
        };
        registry::set_served();
        CONSOLES.fetch_add(1, Ordering::AcqRel);
        let thread = std::thread::Builder::new().name("futurepool-console".to_owned());
        let thread = thread.spawn(main).inspect_err(|_| {
            CONSOLES.fetch_sub(1, Ordering::AcqRel);
        })?;
        // The thread needs a few file descriptors, which the system may refuse.
        told.recv()
            .unwrap_or_else(|_| Err(io::Error::other("the console's thread has panicked")))?;
        Ok(Console {
            address,
            has_token,
            process: std::process::id(),
            running: Mutex::new(Some((stop, thread))),
        })
    }
}

impl fmt::Debug for ConsoleBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleBuilder")
            .field("token", &self.token.is_some())
            .finish()
    }
}

/// A console that is being served.
///
/// Dropping it has no effect: the console is served until the process exits.
/// [`shutdown`](Self::shutdown) ends it.
pub struct Console {
    address: SocketAddr,
    has_token: bool,
    /// The process that has the thread.
    process: u32,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Console {
    /// Returns the address that the console listens on.
    #[doc(alias = "port")]
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Ends the console and waits until its thread has exited. A second call does nothing.
    ///
    /// Open connections are closed. In a child process made by `fork`, which has no copy of the
    /// thread, this does nothing.
    #[doc(alias = "stop")]
    #[doc(alias = "close")]
    pub fn shutdown(&self) {
        if self.process != std::process::id() {
            return;
        }
        let running = self.running.lock().take();
        if let Some((stop, thread)) = running {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("local_addr", &self.address)
            .field("token", &self.has_token)
            .finish()
    }
}
