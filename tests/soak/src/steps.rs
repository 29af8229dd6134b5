//! The steps of a driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::{panic, thread};

use futurepool::{ScopedJoinHandle, ThreadPool};
use futures::executor::block_on; // of another crate; this crate's is called by its full path
use futures::{FutureExt, StreamExt, future};

use crate::count::{Count, count, increment};
use crate::join::join_all;
use crate::random::Random;
use crate::record::{JobRecord, Kind, Task, cancel};
use crate::tested_pool::{SHORT_LIVED, TestedPool};
use crate::tracked::{InjectedPanic, Output, Tracked, seed_of};

/// Drops handles. A detached job runs; a job cancelled by the drop runs at most once.
pub(crate) fn drop_handles(
    tested: &TestedPool,
    random: &mut Random,
    detached: &mut Vec<Arc<JobRecord>>,
) {
    for _ in 0..random.below(16) {
        let (kind, cancels) = (Kind::draw(random, 0), random.one_in(2));
        let drop_panics = (cancels && random.one_in(4), random.one_in(4));
        let (record, job) = tested.job(kind, random, drop_panics);
        let handle = tested.pool.submit(job);
        increment(&tested.expected.accepted);
        count(Count::Drops);
        if cancels {
            drop(handle.cancel_on_drop());
        } else {
            drop(handle);
            detached.push(record);
        }
    }
}

/// Polls `submit_async` once, then drops or awaits it.
pub(crate) fn poll_submissions(tested: &TestedPool, random: &mut Random) {
    let (mut waiting, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..1 + random.below(12) {
        let (record, job) = tested.job(Kind::Sleep, random, (false, false));
        let mut submission = tested.pool.submit_async(job);
        if let Some(handle) = (&mut submission).now_or_never() {
            tasks.push(handle.expect("the pool is open").tag(record));
        } else if random.one_in(2) {
            drop(submission);
            count(Count::Drops);
            record.mark_cancelled();
        } else {
            waiting.push(submission.map(|handle| handle.expect("the pool is open").tag(record)));
        }
    }
    tasks.extend(block_on(future::join_all(waiting)));
    let accepted = &tested.expected.accepted;
    accepted.fetch_add(tasks.len() as u64, SeqCst);
    join_all(tasks, random, false);
}

/// Adds callbacks. Each runs once, in order, whatever the outcome of its job.
pub(crate) fn add_callbacks(tasks: Vec<Task>, random: &mut Random) {
    let mut all_calls = Vec::new();
    for task in &tasks {
        let calls = Arc::new(AtomicU64::new(0));
        let added = random.below(4);
        for turn in 0..added {
            let (calls, tracked, panics) = (calls.clone(), Tracked::new(false), random.one_in(4));
            task.get_ref().add_done_callback(move |_| {
                tracked.disarm();
                assert_eq!(increment(&calls), turn, "callbacks out of order");
                if panics {
                    count(Count::CallbackPanics);
                    panic::panic_any(InjectedPanic(0));
                }
            });
        }
        if random.one_in(4) {
            cancel(task);
        }
        all_calls.push((calls, added));
    }
    // A job's callbacks run before its waiters are woken; those of a job cancelled here have run.
    join_all(tasks, random, false);
    for (calls, added) in all_calls {
        assert_eq!(calls.load(SeqCst), added, "callbacks that ran");
    }
}

/// Iterates over a map to its end or part of the way, in blocking and in async code.
pub(crate) fn map(tested: &TestedPool, random: &mut Random) {
    let mut seeds: Vec<_> = (0..random.below(40)).map(|_| random.next()).collect();
    let tracked = Tracked::new(false);
    let job = move |seed| {
        let _ = &tracked;
        count(Count::Jobs);
        if seed % 16 == 0 {
            count(Count::Panics);
            panic::panic_any(InjectedPanic(seed));
        }
        Output::new(seed, false)
    };
    let (buffer, chunk) = (1 + random.below(16), 1 + random.below(4));
    if random.one_in(2) {
        let results = tested.pool.map_unordered(seeds.clone(), job);
        let results = results.chunk_size(chunk as usize);
        let mut yielded: Vec<_> = results.into_iter().map(seed_of).collect();
        yielded.sort_unstable();
        seeds.sort_unstable();
        return assert_eq!(yielded, seeds, "the results of map_unordered");
    }
    let results = tested.pool.map(seeds.clone(), job);
    let mut results = results
        .buffer_size(buffer as usize)
        .chunk_size(chunk as usize);
    for seed in seeds {
        if random.one_in(64) {
            return count(Count::Drops);
        }
        let result = match random.one_in(2) {
            true => results.wait_next(),
            false => block_on(results.next()),
        };
        assert_eq!(result.map(seed_of), Some(seed), "the next result of map");
    }
    assert!(results.wait_next().is_none(), "map yielded too many");
}

/// Submits jobs that borrow. A job that was not cancelled has written once it is joined.
pub(crate) fn use_scope(tested: &TestedPool, random: &mut Random) {
    let writes: Vec<_> = (0..1 + random.below(16))
        .map(|_| AtomicU64::new(0))
        .collect();
    let outcomes: Vec<_> = tested.pool.scope(|scope| {
        let submit = |writes| {
            let (record, job) = tested.job(Kind::draw(random, 0), random, (false, false));
            let handle = scope.submit(move || {
                let output = job();
                increment(writes);
                output
            });
            increment(&tested.expected.accepted);
            (record, handle)
        };
        let handles: Vec<_> = writes.iter().map(submit).collect();
        let join = |(record, handle): (Arc<JobRecord>, ScopedJoinHandle<'_, Output>)| {
            if random.one_in(4) && handle.cancel() {
                count(Count::Cancels);
                record.mark_cancelled();
            }
            (record, handle.join())
        };
        handles.into_iter().map(join).collect()
    });
    for ((record, outcome), writes) in outcomes.into_iter().zip(writes) {
        let expected = u64::from(outcome.is_ok());
        assert_eq!(writes.into_inner(), expected, "{record:?}");
        record.check_outcome(outcome);
    }
}

/// Ends a pool at a random moment and in a random way, while another thread submits.
pub(crate) fn use_short_lived_pool(random: &mut Random) {
    count(Count::ShortLivedPools);
    let mut builder = ThreadPool::builder().max_workers(1 + random.below(4) as usize);
    if random.one_in(2) {
        builder = builder.queue_capacity(1 + random.below(8) as usize);
    }
    if random.one_in(4) {
        builder = builder.keep_alive(random.micros(500));
    }
    let has_initializer = random.one_in(4);
    let breaks = !has_initializer && random.one_in(8);
    if breaks {
        builder = builder.initializer(|| Err("injected failure"));
    }
    let tested = TestedPool::new(SHORT_LIVED, builder, has_initializer);
    let (shared, mut choices) = (tested.clone(), Random(random.next()));
    let tasks = thread::scope(|scope| {
        let submitter = scope.spawn(move || shared.submit_many(&mut choices));
        thread::sleep(random.micros(500));
        let pool = &tested.pool;
        match random.below(6) {
            0 => pool.shutdown().join(),
            1 => pool.shutdown_now().join(),
            2 => block_on(pool.shutdown_now()),
            3 => {
                let end = pool.shutdown().join_timeout(random.micros(500));
                end.unwrap_or_else(|_| count(Count::Timeouts));
            }
            4 => drop(pool.cancel_queued()),
            _ => {}
        }
        submitter.join().expect("the submitter does not panic")
    });
    if random.one_in(2) {
        // Queued jobs still run.
        drop(tested);
        return join_all(tasks, random, false);
    }
    join_all(tasks, random, false);
    tested.check_counts(false);
}
