//! The attribute macro of the crate `futurepool`. Use it as `futurepool::task`.

mod check;
mod expand;
mod options;
mod signature;
#[cfg(test)]
mod tests;
mod wire;

use proc_macro::TokenStream;

/// Makes a task of a function: a function that can run in any executor, in a thread or in another
/// process.
///
/// The function stays as it is, and can be called as before. The attribute adds a type of the same
/// name, which implements `Task`. Its method `call` takes the function's arguments and returns a
/// `Call`, which an executor takes.
///
/// The visibility and the documentation of the type are the function's.
///
/// # Arguments and output
///
/// They travel to another process, so their types implement `Serialize` and `Deserialize` of `serde`,
/// are `Send`, and borrow nothing. They travel as MessagePack, with the names of parameters and
/// fields:
///
/// - A `Vec<u8>` that is written in the function's signature travels without being encoded, also in
///   an `Option`, a `Result`, a `Vec` or a tuple. In your own types, use `futurepool::Bytes`.
/// - An `Option` in another `Option`, and an `Option<()>`, need a type of your own: the format cannot
///   tell `Some(None)` from `None`. Where they are written in the signature, the attribute takes care
///   of that.
///
/// # Options
///
/// | option | meaning |
/// |---|---|
/// | `name = "image.thumbnail"` | The name of the task. By default it is the function's path, such as `my_crate::images::thumbnail`. |
/// | `version = 2` | The version. By default 1. A caller and a worker with different versions do not work together. |
/// | `idempotent` | The function may run again, if its worker crashed: up to 3 times in all. |
/// | `attempts = 5` | How often it may start in all. Needs `idempotent`. |
/// | `type = Thumbnail` | The name of the type, instead of the function's name. |
/// | `crate = my_crate::futurepool` | The path of the crate `futurepool`, if another crate re-exports it. |
///
/// # What cannot be a task
///
/// - An `async fn`: use `futurepool::block_on` in the function.
/// - A method: a task takes everything as parameters.
/// - A generic function: write an `impl Task` by hand.
/// - A function with parameters that are patterns. Destructure them in the function.
///
/// # Examples
///
/// ```
/// use futurepool::{TaskExecutorExt, ThreadPool, task};
///
/// /// Counts the words of a text.
/// #[task]
/// fn count(text: String) -> usize {
///     text.split_whitespace().count()
/// }
///
/// let pool = ThreadPool::new(2);
/// let handle = pool.submit_task(count::call("spam and eggs".to_owned()));
/// assert_eq!(handle.join().unwrap(), 3);
/// assert_eq!(count("still a function".to_owned()), 3);
/// ```
#[proc_macro_attribute]
pub fn task(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::task(options.into(), function.into()).into()
}
