//! No type is both an `Iterator` and a `Stream`: with the extension traits of both imported,
//! `.next()`, `.map()` and `.collect()` are unambiguous.

use crate::common::{LONG, within};
use futurepool::{JoinError, JoinHandle, ThreadPool, block_on};

type Values = Vec<Result<u32, JoinError>>;

fn handles(pool: &ThreadPool) -> [JoinHandle<u32>; 3] {
    [1, 2, 3].map(|n| pool.submit(move || n))
}

fn sum(values: Values) -> u32 {
    values.into_iter().map(Result::unwrap).sum()
}

/// Generates tests that use the imported extension trait for streams, and `Iterator` from the
/// prelude. Most of the test is that they compile.
macro_rules! streams_and_iterators {
    () => {
        use std::time::Duration;

        use futurepool::as_completed;

        use super::*;

        #[test]
        fn as_completed_is_a_stream_until_it_is_made_an_iterator() {
            within(LONG, "as_completed", || {
                let pool = ThreadPool::new(2);
                let mut outputs = as_completed(handles(&pool));
                let first = block_on(outputs.next()).unwrap().unwrap();
                let rest: Values = block_on(outputs.map(|output| output).collect());
                assert_eq!(first + sum(rest), 6);

                let mut outputs = as_completed(handles(&pool)).into_iter();
                let first = outputs.next().unwrap().unwrap();
                let rest: Values = outputs.map(|output| output).collect();
                assert_eq!(first + sum(rest), 6);
            });
        }

        #[test]
        fn its_timed_form_is_too() {
            within(LONG, "timed", || {
                let pool = ThreadPool::new(2);
                let mut outputs = as_completed(handles(&pool)).timeout(Duration::MAX);
                let first = block_on(outputs.next()).unwrap().unwrap().unwrap();
                let rest: Values = block_on(outputs.map(Result::unwrap).collect());
                assert_eq!(first + sum(rest), 6);

                let mut outputs = as_completed(handles(&pool)).timeout(LONG).into_iter();
                let first = outputs.next().unwrap().unwrap().unwrap();
                let rest: Values = outputs.map(Result::unwrap).collect();
                assert_eq!(first + sum(rest), 6);
            });
        }

        #[test]
        fn map_is_a_stream_until_it_is_made_an_iterator() {
            within(LONG, "map", || {
                let pool = ThreadPool::new(2);
                let mut results = pool.map(1..=3_u32, |n| n);
                let first = block_on(results.next()).unwrap().unwrap();
                let rest: Values = block_on(results.map(|result| result).collect());
                assert_eq!(first + sum(rest), 6);

                let mut results = pool.map(1..=3_u32, |n| n).into_iter();
                let first = results.next().unwrap().unwrap();
                let rest: Values = results.map(|result| result).collect();
                assert_eq!(first + sum(rest), 6);
            });
        }

        #[test]
        fn map_unordered_is_too() {
            within(LONG, "map_unordered", || {
                let pool = ThreadPool::new(2);
                let mut results = pool.map_unordered(1..=3_u32, |n| n);
                let first = block_on(results.next()).unwrap().unwrap();
                let rest: Values = block_on(results.map(|result| result).collect());
                assert_eq!(first + sum(rest), 6);

                let mut results = pool.map_unordered(1..=3_u32, |n| n).into_iter();
                let first = results.next().unwrap().unwrap();
                let rest: Values = results.map(|result| result).collect();
                assert_eq!(first + sum(rest), 6);
            });
        }
    };
}

mod with_futures {
    use futures::StreamExt;
    streams_and_iterators!();
}

mod with_futures_lite {
    use futures_lite::StreamExt;
    streams_and_iterators!();
}

/// Imports everything of both crates, and this crate's extension trait for executors.
mod with_all_of_them {
    use futurepool::{ExecutorExt as _, InlineExecutor, as_completed};
    #[allow(unused_imports)]
    use futures::prelude::*;
    #[allow(unused_imports)]
    use futures_lite::{FutureExt as _, StreamExt as _};

    use super::*;

    #[test]
    fn blocking_iterators_are_plain_iterators() {
        within(LONG, "iterators", || {
            let pool = ThreadPool::new(2);
            let mut outputs = as_completed(handles(&pool)).into_iter();
            assert!(outputs.next().is_some());
            assert_eq!(outputs.map(Result::unwrap).filter(|n| *n < 4).count(), 2);
            let mut outputs = as_completed(handles(&pool)).timeout(LONG).into_iter();
            assert!(outputs.next().is_some());
            assert_eq!(outputs.map(Result::unwrap).count(), 2);
            let mut results = pool.map(1..4_u32, |n| n).into_iter();
            assert!(results.next().is_some());
            assert_eq!(results.map(Result::unwrap).collect::<Vec<_>>(), [2, 3]);
            let mut results = InlineExecutor.map_unordered(1..4_u32, |n| n).into_iter();
            assert!(results.next().is_some());
            assert_eq!(results.map(Result::unwrap).sum::<u32>(), 5);
        });
    }

    #[test]
    fn methods_of_this_crate_win_where_both_crates_have_one() {
        within(LONG, "methods", || {
            let pool = ThreadPool::new(2);
            let results = pool.map(1..4_u32, |n| n).timeout(LONG).chunk_size(2);
            assert_eq!(sum(results.into_iter().collect()), 6);
            let outputs = as_completed(handles(&pool)).timeout(LONG);
            assert_eq!(outputs.into_iter().count(), 3);
        });
    }
}

/// Fails to compile if the type implements the trait: then `AmbiguousIf<_>` can be inferred in two
/// ways.
macro_rules! assert_not {
    ($trait:path: $($type:ty),+ $(,)?) => {$(
        const _: fn() = || {
            trait AmbiguousIf<A> {
                fn check() {}
            }
            struct Is;
            impl<T: ?Sized> AmbiguousIf<()> for T {}
            impl<T: ?Sized + $trait> AmbiguousIf<Is> for T {}
            <$type as AmbiguousIf<_>>::check()
        };
    )+};
}

type Handle = JoinHandle<u32>;

assert_not!(
    Iterator: futurepool::AsCompleted<Handle>,
    futurepool::TimedAsCompleted<Handle>,
    futurepool::Map<'static, u32>,
    futurepool::MapUnordered<'static, u32>,
);

assert_not!(
    futures::Stream: futurepool::AsCompletedIter<Handle>,
    futurepool::TimedAsCompletedIter<Handle>,
    futurepool::MapIter<'static, u32>,
    futurepool::MapUnorderedIter<'static, u32>,
);

// A future is no iterator over its output either.
assert_not!(
    IntoIterator: futurepool::Wait<Handle>,
    Handle,
    futurepool::Waited<Handle>,
);
