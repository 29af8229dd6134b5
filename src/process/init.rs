//! How a program becomes its own worker: `init`, and the same for test binaries.

use std::ffi::{OsStr, OsString};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::call::registry::{Registry, Tasks};

/// The start of a worker's `argv[0]`. It cannot be inherited, as an environment variable would be.
pub(crate) const MARKER: &str = "futurepool-worker:";

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Returns whether this process was started as a worker.
pub(crate) fn is_worker() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| name.as_encoded_bytes().starts_with(MARKER.as_bytes()))
        || has_first_message()
}

/// A script that starts this program loses `argv[0]`. The first message of the pool still waits at
/// the standard input, until [`init`] takes it.
#[cfg(unix)]
fn has_first_message() -> bool {
    use rustix::net::{RecvFlags, recv};

    if !is_peer_trusted() {
        return false;
    }
    let mut bytes = [0; 256];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    // An error if it is no socket.
    let Ok((received, _)) = recv(std::io::stdin(), &mut bytes[..], flags) else {
        return false;
    };
    let frame = super::frame::FrameReader::new(bytes.len() as u64).read(&mut &bytes[..received]);
    frame.is_ok_and(|frame| frame.head.kind == super::wire::SETUP)
}

/// Returns whether the other end of the standard input was made by a process of the same user. A server
/// that gets a client's connection as its standard input must not become the client's worker.
#[cfg(target_os = "linux")]
fn is_peer_trusted() -> bool {
    let peer = rustix::net::sockopt::socket_peercred(std::io::stdin());
    peer.is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

#[cfg(all(unix, not(target_os = "linux")))]
fn is_peer_trusted() -> bool {
    true
}

#[cfg(not(unix))]
fn has_first_message() -> bool {
    false
}

/// Makes this program able to run tasks in worker processes. Call it first in `main`.
///
/// A [`ProcessPool`](crate::ProcessPool) starts the own program again for each worker. In such a
/// process `init` runs tasks, and never returns: the rest of `main` does not run there. In any
/// other process it returns at once.
///
/// It knows all functions with the attribute [`task`](macro@crate::task) that are linked into the
/// program. [`init_tasks`] takes a list instead.
///
/// Without it [`build`](crate::ProcessPoolBuilder::build) returns an error: the workers would run
/// the whole of `main` again. In test binaries use [`test_init!`](crate::process::test_init)
/// instead.
///
/// # Panics
///
/// Panics if two tasks have the same name and version. The message names both places.
///
/// # Examples
///
/// ```standalone_crate
/// use futurepool::{ProcessPool, process, task};
///
/// #[task]
/// fn double(n: u32) -> u32 {
///     2 * n
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     process::init();
///     let pool = ProcessPool::builder().max_workers(1).build()?;
///     assert_eq!(pool.submit(double::call(21)).join()?, 42);
///     Ok(())
/// }
/// ```
#[doc(alias = "freeze_support")]
#[doc(alias = "__main__")]
pub fn init() {
    start(Registry::from_linked());
}

/// Does what [`init`] does, with a list of tasks.
///
/// Generic tasks enter only here. See [`tasks!`](crate::tasks).
///
/// # Panics
///
/// Panics if two tasks have the same name and version. The message names both places.
///
/// # Examples
///
/// ```standalone_crate
/// use futurepool::{ProcessPool, process, task, tasks};
///
/// #[task]
/// fn double(n: u32) -> u32 {
///     2 * n
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     process::init_tasks(tasks![double]);
///     let pool = ProcessPool::builder().max_workers(1).build()?;
///     assert_eq!(pool.submit(double::call(21)).join()?, 42);
///     Ok(())
/// }
/// ```
pub fn init_tasks(tasks: Tasks) {
    start(Registry::from_tasks(tasks));
}

fn start(registry: Result<Registry, String>) {
    let registry = registry.unwrap_or_else(|problem| panic!("futurepool: {problem}"));
    INITIALIZED.store(true, Ordering::Release);
    #[cfg(unix)]
    if is_worker() {
        super::child::run(registry);
    }
    drop(registry);
}

/// A test that turns its binary into a worker: see [`test_init!`](crate::process::test_init).
#[doc(hidden)]
#[derive(Debug)]
pub struct TestEntry {
    module: &'static str,
}

impl TestEntry {
    #[must_use]
    pub const fn new(module: &'static str) -> Self {
        Self { module }
    }
}

inventory::collect!(TestEntry);

/// The name of the test that [`test_init!`](crate::process::test_init) makes.
const TEST_NAME: &str = "futurepool_worker";

/// Makes a test binary able to be its own worker.
///
/// Put the line once into each test binary, in any module. It adds a test, `futurepool_worker`,
/// which does nothing when the tests run. A worker is the same binary that runs only this test.
/// What the test harness prints in a worker is discarded.
///
/// Dropping a pool waits for its jobs. So give the pools of tests a
/// [`time_limit`](crate::ProcessPoolBuilder::time_limit), or a test that fails can hang.
///
/// It works with `cargo test` and with nextest. Documentation tests call [`init`] in a `main` that
/// is written out, and say `standalone_crate`.
///
/// # Examples
///
/// ```
/// # #[cfg(test)]
/// mod tests {
///     use futurepool::{ProcessPool, task};
///
///     futurepool::process::test_init!();
///
///     #[task]
///     fn double(n: u32) -> u32 {
///         2 * n
///     }
///
///     #[test]
///     fn doubles_in_another_process() {
///         let pool = ProcessPool::builder().max_workers(1).build().unwrap();
///         assert_eq!(pool.submit(double::call(21)).join().unwrap(), 42);
///     }
/// }
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! __process_test_init {
    () => {
        #[test]
        fn futurepool_worker() {
            $crate::process::init();
        }

        // Outside of tests there is no such test, so the program needs `init`.
        #[cfg(test)]
        $crate::__private::inventory::submit! {
            $crate::__private::TestEntry::new(::core::module_path!())
        }
    };
}

/// How the own program is started as a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// `main` calls `init`.
    Main,
    /// A test binary, with these arguments.
    Test(Vec<OsString>),
}

/// Returns how the own program becomes a worker, if it can.
pub(crate) fn own_entry() -> Option<Entry> {
    // First, because a test may call `init` itself, and the arguments are needed nevertheless.
    if let Some(entry) = inventory::iter::<TestEntry>.into_iter().next() {
        let path = test_path(entry.module);
        // On the main thread, so that it prints nothing about a test that takes long.
        let arguments = ["--exact", &path, "--nocapture", "--test-threads=1"];
        return Some(Entry::Test(arguments.map(OsString::from).to_vec()));
    }
    INITIALIZED.load(Ordering::Acquire).then_some(Entry::Main)
}

/// Returns the path of the test in `module`, as the test harness has it.
fn test_path(module: &str) -> String {
    // It does not name the crate.
    match module.split_once("::") {
        Some((_, module)) => format!("{module}::{TEST_NAME}"),
        None => TEST_NAME.to_owned(),
    }
}

/// Returns the `argv[0]` of a worker of this program.
pub(crate) fn worker_name(program: &OsStr) -> OsString {
    let mut name = OsString::from(MARKER);
    name.push(" ");
    name.push(std::path::Path::new(program).file_name().unwrap_or(program));
    name
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_test_does_not_name_the_crate() {
        assert_eq!(test_path("my_tests"), "futurepool_worker");
        assert_eq!(
            test_path("my_crate::a::tests"),
            "a::tests::futurepool_worker"
        );
    }

    #[test]
    fn this_process_is_no_worker() {
        assert!(!is_worker());
        let name = worker_name(OsStr::new("/bin/program"));
        assert_eq!(name, "futurepool-worker: program");
    }
}
