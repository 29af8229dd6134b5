//! Which tasks there are: the entries that `#[task]` makes, and the lists of `tasks!`.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::call::Task;
use crate::call::codec::{self, Payload};
use crate::util::unwind::{drop_payload, panic_message};

/// A task, without its types. `#[task]` registers one for each function.
#[derive(Clone, Copy)]
#[cfg_attr(not(all(unix, feature = "process")), allow(dead_code))]
pub struct TaskEntry {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) signature: u64,
    /// The file and the line of the task.
    pub(crate) location: &'static str,
    /// Decodes the arguments, calls the function and encodes its output.
    ///
    /// A panic of the function unwinds out of this. A panic of a serializer is an error.
    pub(crate) run: fn(Payload) -> Result<Payload, RunError>,
}

impl TaskEntry {
    /// Returns the entry of `T`. `location` names a place in the source if `T` does not.
    #[must_use]
    pub const fn of<T: Task>(location: &'static str) -> Self {
        Self {
            name: T::NAME,
            version: T::VERSION,
            signature: T::SIGNATURE,
            location: match T::LOCATION.is_empty() {
                true => location,
                false => T::LOCATION,
            },
            run: run::<T>,
        }
    }
}

impl fmt::Debug for TaskEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} version {} ({})",
            self.name, self.version, self.location
        )
    }
}

inventory::collect!(TaskEntry);

/// Why a task that a worker was asked for has no output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunError {
    /// The arguments could not be decoded, so the function did not run.
    Arguments(String),
    /// The output could not be encoded.
    Output(String),
}

fn run<T: Task>(arguments: Payload) -> Result<Payload, RunError> {
    let arguments = codec::decode::<T::Args>(arguments)
        .map_err(|error| RunError::Arguments(error.into_text()))?;
    let output = T::run(arguments);
    // The output is dropped in there, which may panic, too.
    match catch_unwind(AssertUnwindSafe(|| T::encode_output(output))) {
        Ok(Ok(payload)) => Ok(payload),
        Ok(Err(error)) => Err(RunError::Output(error.into_text())),
        Err(payload) => {
            let message = panic_message(&*payload).unwrap_or("(no text)");
            let text = format!("the output panicked: {message}");
            drop_payload(payload);
            Err(RunError::Output(text))
        }
    }
}

/// A list of tasks, made by [`tasks!`](crate::tasks).
///
/// It tells a program which tasks it can run for others, instead of all functions with `#[task]`.
/// Generic tasks are in no other list.
///
/// # Examples
///
/// ```
/// use futurepool::{task, tasks};
///
/// #[task]
/// fn double(n: u32) -> u32 {
///     2 * n
/// }
///
/// println!("{:?}", tasks![double]);
/// ```
#[derive(Clone, Default)]
pub struct Tasks {
    entries: Vec<TaskEntry>,
}

impl Tasks {
    #[doc(hidden)]
    #[must_use]
    pub fn from_entries(entries: Vec<TaskEntry>) -> Self {
        Self { entries }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.entries).finish()
    }
}

/// Lists tasks: see [`Tasks`].
///
/// Each is the name of a function with [`#[task]`](macro@crate::task), or a type that implements
/// [`Task`](crate::Task).
///
/// # Examples
///
/// ```
/// use futurepool::{Task, task, tasks};
///
/// #[task]
/// fn double(n: u32) -> u32 {
///     2 * n
/// }
///
/// /// A generic function needs a type that names it, and an `impl Task`.
/// struct Repeat<const N: usize>;
///
/// impl<const N: usize> Task for Repeat<N> {
///     const NAME: &'static str = if N == 2 { "repeat 2" } else { "repeat" };
///     type Args = String;
///     type Output = String;
///
///     fn run(text: String) -> String {
///         text.repeat(N)
///     }
/// }
///
/// let tasks = tasks![double, Repeat<2>, Repeat<3>];
/// ```
#[macro_export]
macro_rules! tasks {
    ($($task:ty),* $(,)?) => {
        $crate::Tasks::from_entries(::std::vec![
            $($crate::__private::TaskEntry::of::<$task>(::core::concat!(
                ::core::file!(), ":", ::core::line!()
            ))),*
        ])
    };
}

/// Finds tasks by name and version.
#[derive(Debug, Default)]
#[cfg_attr(not(all(unix, feature = "process")), allow(dead_code))]
pub(crate) struct Registry {
    /// The versions of each name.
    entries: HashMap<&'static str, Vec<TaskEntry>>,
}

#[cfg_attr(not(all(unix, feature = "process")), allow(dead_code))]
impl Registry {
    /// Returns all functions with `#[task]` that are linked into this program.
    ///
    /// # Errors
    ///
    /// Returns a text that names both places if two tasks have the same name and version.
    pub(crate) fn from_linked() -> Result<Self, String> {
        Self::from_entries(inventory::iter::<TaskEntry>.into_iter().copied())
    }

    /// Returns the tasks of a list.
    ///
    /// # Errors
    ///
    /// Those of [`from_linked`](Self::from_linked).
    pub(crate) fn from_tasks(tasks: Tasks) -> Result<Self, String> {
        Self::from_entries(tasks.entries)
    }

    fn from_entries(list: impl IntoIterator<Item = TaskEntry>) -> Result<Self, String> {
        let mut entries: HashMap<_, Vec<TaskEntry>> = HashMap::new();
        for entry in list {
            let versions = entries.entry(entry.name).or_default();
            if let Some(first) = versions.iter().find(|first| first.version == entry.version) {
                let mut places = [first.location, entry.location];
                // The order of linked tasks is the linker's.
                places.sort_unstable();
                let [first, second] = places;
                return Err(format!(
                    "two tasks have the name {:?} and the version {}: one at {first}, the other at \
                     {second}. Give one of them another name, with `#[task(name = \"…\")]`",
                    entry.name, entry.version
                ));
            }
            versions.push(entry);
        }
        Ok(Self { entries })
    }

    /// Returns the task of this name and version.
    pub(crate) fn get(&self, name: &str, version: u32) -> Option<&TaskEntry> {
        let mut versions = self.entries.get(name)?.iter();
        versions.find(|entry| entry.version == version)
    }

    /// Returns all tasks, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TaskEntry> {
        self.entries.values().flatten()
    }
}
