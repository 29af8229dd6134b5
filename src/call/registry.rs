//! Which tasks there are: the entries that `#[task]` makes, and the lists of `tasks!`.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::call::Task;
use crate::call::codec::{self, Payload};
use crate::call::encoded::EncodedCall;
use crate::error::BuildError;
use crate::util::unwind::{drop_payload, panic_message};

/// A task without its types: what a program knows of a task that it runs for others.
///
/// A list of [`Tasks`] consists of them. [`call`](Self::call) makes a call of encoded arguments.
///
/// # Examples
///
/// ```
/// use futurepool::{task, tasks};
///
/// #[task(name = "double", version = 2)]
/// fn double(n: u32) -> u32 {
///     2 * n
/// }
///
/// let tasks = tasks![double];
/// let entry = tasks.get("double", 2).unwrap();
/// assert!(entry.is_named());
/// assert!(tasks.get("double", 1).is_none());
/// ```
#[derive(Clone, Copy)]
pub struct TaskEntry {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) signature: u64,
    is_named: bool,
    pub(crate) is_idempotent: bool,
    attempts: u32,
    /// The file and the line of the task.
    pub(crate) location: &'static str,
    /// Decodes the arguments, calls the function and encodes its output.
    ///
    /// A panic of the function unwinds out of this. A panic of a serializer is an error.
    pub(crate) run: fn(Payload) -> Result<Payload, RunError>,
}

impl TaskEntry {
    /// Returns the entry of `T`. `location` names a place in the source if `T` does not.
    #[doc(hidden)]
    #[must_use]
    pub const fn of<T: Task>(location: &'static str) -> Self {
        Self {
            name: T::NAME,
            version: T::VERSION,
            signature: T::SIGNATURE,
            is_named: T::NAMED,
            is_idempotent: T::IDEMPOTENT,
            attempts: if T::IDEMPOTENT { T::ATTEMPTS } else { 1 },
            location: match T::LOCATION.is_empty() {
                true => location,
                false => T::LOCATION,
            },
            run: run::<T>,
        }
    }

    /// Returns the [name](Task::NAME) of the task.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the [version](Task::VERSION) of the task.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns the [signature](Task::SIGNATURE) of the task. 0 means unchecked.
    #[must_use]
    pub fn signature(&self) -> u64 {
        self.signature
    }

    /// Returns whether the source names the task, as `#[task(name = "…")]` does.
    ///
    /// Otherwise the name is the path of the function, which another program does not share.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.is_named
    }

    /// Returns whether the task may run again if it is unknown whether it has run.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    /// Returns how often a call may start in all. It is 1 unless the task is
    /// [idempotent](Self::is_idempotent).
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the file and the line of the task.
    #[must_use]
    pub fn location(&self) -> &'static str {
        self.location
    }

    /// Returns a call of the task with these encoded arguments.
    ///
    /// See [`EncodedCall`] for an example.
    pub fn call(&self, arguments: Payload) -> EncodedCall {
        EncodedCall::new(*self, arguments)
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

    /// Returns all functions with [`#[task]`](macro@crate::task) that are linked into this program.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{Tasks, task};
    ///
    /// #[task(name = "double")]
    /// fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// assert!(Tasks::linked().get("double", 1).is_some());
    /// ```
    #[must_use]
    pub fn linked() -> Self {
        Self {
            entries: inventory::iter::<TaskEntry>.into_iter().copied().collect(),
        }
    }

    /// Returns the task of this name and version.
    ///
    /// See [`TaskEntry`] for an example.
    #[must_use]
    pub fn get(&self, name: &str, version: u32) -> Option<&TaskEntry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.version == version && entry.name == name)
    }

    /// Returns an iterator over the tasks, in the order of the list.
    pub fn iter(&self) -> std::slice::Iter<'_, TaskEntry> {
        self.entries.iter()
    }

    /// Returns how many tasks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns `true` if there are no tasks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Checks that no two tasks have the same name and version.
    ///
    /// A program that runs tasks for others calls this first. [`get`](Self::get) returns the first
    /// of two.
    ///
    /// # Errors
    ///
    /// Returns an error whose text names both places in the source.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{task, tasks};
    ///
    /// #[task(name = "double")]
    /// fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// assert!(tasks![double].check().is_ok());
    /// let error = tasks![double, double].check().unwrap_err();
    /// assert!(error.to_string().contains("two tasks have the name \"double\""));
    /// ```
    pub fn check(&self) -> Result<(), BuildError> {
        let checked = Registry::from_entries(self.entries.iter().copied());
        checked.map_or_else(|text| Err(BuildError::new("tasks", text)), |_| Ok(()))
    }
}

impl<'a> IntoIterator for &'a Tasks {
    type Item = &'a TaskEntry;
    type IntoIter = std::slice::Iter<'a, TaskEntry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
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
