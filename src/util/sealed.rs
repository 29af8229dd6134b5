//! Keeps the methods of public traits callable in this crate alone.

/// An argument of methods that only this crate can call or override: no other crate can name the
/// type, or get a value of it.
///
/// ```compile_fail,E0061
/// use futurepool::Executor;
///
/// let pool = futurepool::ThreadPool::new(1);
/// pool.as_thread_pool();
/// ```
///
/// ```compile_fail,E0061
/// use futurepool::InitializerOutput;
///
/// ().into_result();
/// ```
///
/// An executor elsewhere cannot claim to be a pool, either.
///
/// ```compile_fail,E0053
/// struct Mine(futurepool::ThreadPool);
///
/// impl futurepool::Executor for Mine {
///     fn execute(&self, job: futurepool::Job) {
///         self.0.execute(job);
///     }
///     fn as_thread_pool(&self, _: ()) -> Option<&futurepool::ThreadPool> {
///         Some(&self.0)
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Private(());

pub(crate) const PRIVATE: Private = Private(());
