//! What a driver does, one step at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::{panic, thread};

use futurepool::{ScopedJoinHandle, ThreadPool};
use futures::executor::block_on; // a foreign one; this crate's is called by its full name
use futures::{FutureExt, StreamExt, future::join_all};

use crate::cargo::{Cargo, Fault, Parcel, open};
use crate::collect::collect;
use crate::count::{Count, add, count};
use crate::random::Random;
use crate::site::Site;
use crate::trace::{Kind, Task, Trace, cancel};

/// Detached jobs run. Those that are cancelled by the drop run once or not at all.
pub(crate) fn drop_handles(site: &Site, random: &mut Random, detached: &mut Vec<Arc<Trace>>) {
    for _ in 0..random.below(16) {
        let (kind, cancels) = (Kind::draw(random, 0), random.one_in(2));
        let bombs = (cancels && random.one_in(4), random.one_in(4));
        let (trace, job) = site.job(kind, random, bombs);
        let handle = site.pool.submit(job);
        add(&site.ledger.accepted);
        count(Count::Drops);
        if cancels {
            drop(handle.cancel_on_drop());
        } else {
            drop(handle);
            detached.push(trace);
        }
    }
}

/// `submit_async` that is polled once, and then dropped or awaited.
pub(crate) fn submit_half_way(site: &Site, random: &mut Random) {
    let (mut waiting, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..1 + random.below(12) {
        let (trace, job) = site.job(Kind::Sleep, random, (false, false));
        let mut submission = site.pool.submit_async(job);
        if let Some(handle) = (&mut submission).now_or_never() {
            tasks.push(handle.expect("the pool is open").tag(trace));
        } else if random.one_in(2) {
            drop(submission);
            count(Count::Drops);
            trace.withdraw();
        } else {
            waiting.push(submission.map(|handle| handle.expect("the pool is open").tag(trace)));
        }
    }
    tasks.extend(block_on(join_all(waiting)));
    site.ledger.accepted.fetch_add(tasks.len() as u64, SeqCst);
    collect(tasks, random, false);
}

/// They run once each, in order, whatever becomes of the job, and have run when the result is there.
pub(crate) fn add_callbacks(tasks: Vec<Task>, random: &mut Random) {
    let mut all_calls = Vec::new();
    for task in &tasks {
        let calls = Arc::new(AtomicU64::new(0));
        let added = random.below(4);
        for turn in 0..added {
            let (calls, cargo, panics) = (calls.clone(), Cargo::new(false), random.one_in(4));
            task.get_ref().add_done_callback(move |_| {
                cargo.disarm();
                assert_eq!(add(&calls), turn, "callbacks out of order");
                if panics {
                    count(Count::Callbacks);
                    panic::panic_any(Fault(0));
                }
            });
        }
        if random.one_in(4) {
            cancel(task);
        }
        all_calls.push((calls, added));
    }
    collect(tasks, random, false);
    for (calls, added) in all_calls {
        assert_eq!(calls.load(SeqCst), added, "callbacks that ran");
    }
}

/// To its end or half-way, in sync code and in async code.
pub(crate) fn map(site: &Site, random: &mut Random) {
    let mut seeds: Vec<_> = (0..random.below(40)).map(|_| random.next()).collect();
    let cargo = Cargo::new(false);
    let work = move |seed| {
        let _ = &cargo;
        count(Count::Jobs);
        if seed % 16 == 0 {
            count(Count::Panics);
            panic::panic_any(Fault(seed));
        }
        Parcel::new(seed, false)
    };
    let (buffer, chunk) = (1 + random.below(16), 1 + random.below(4));
    if random.one_in(2) {
        let results = site.pool.map_unordered(seeds.clone(), work);
        let results = results.chunk_size(chunk as usize);
        let mut got: Vec<_> = results.into_iter().map(open).collect();
        got.sort_unstable();
        seeds.sort_unstable();
        return assert_eq!(got, seeds, "what map_unordered gave");
    }
    let results = site.pool.map(seeds.clone(), work);
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
        assert_eq!(result.map(open), Some(seed), "what map gave");
    }
    assert!(results.wait_next().is_none(), "a map has no end");
}

/// Jobs that borrow. Those that are not cancelled have written when they are joined.
pub(crate) fn use_scope(site: &Site, random: &mut Random) {
    let wrote: Vec<_> = (0..1 + random.below(16))
        .map(|_| AtomicU64::new(0))
        .collect();
    let outcomes: Vec<_> = site.pool.scope(|scope| {
        let submit = |wrote| {
            let (trace, job) = site.job(Kind::draw(random, 0), random, (false, false));
            let handle = scope.submit(move || {
                let parcel = job();
                add(wrote);
                parcel
            });
            add(&site.ledger.accepted);
            (trace, handle)
        };
        let handles: Vec<_> = wrote.iter().map(submit).collect();
        let join = |(trace, handle): (Arc<Trace>, ScopedJoinHandle<'_, Parcel>)| {
            if random.one_in(4) && handle.cancel() {
                count(Count::Cancels);
                trace.withdraw();
            }
            (trace, handle.join())
        };
        handles.into_iter().map(join).collect()
    });
    for ((trace, outcome), wrote) in outcomes.into_iter().zip(wrote) {
        assert_eq!(wrote.into_inner(), outcome.is_ok().into(), "{trace:?}");
        trace.settle(outcome);
    }
}

/// One that is ended at some moment, in some way, while another thread submits.
pub(crate) fn use_brief_pool(random: &mut Random) {
    count(Count::Pools);
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
        builder = builder.initializer(|| Err("it cannot be"));
    }
    let site = Site::new("brief", builder, has_initializer);
    let (shared, mut choices) = (site.clone(), Random(random.next()));
    let tasks = thread::scope(|scope| {
        let submitter = scope.spawn(move || shared.submit_many(&mut choices));
        thread::sleep(random.micros(500));
        let pool = &site.pool;
        match random.below(6) {
            0 => pool.shutdown().join(),
            1 => pool.shutdown_now().join(),
            2 => block_on(pool.shutdown_now()),
            3 => {
                let end = pool.shutdown().join_timeout(random.micros(500));
                end.unwrap_or_else(|_| count(Count::Timeouts));
            }
            4 => drop(pool.cancel_pending()),
            _ => {}
        }
        submitter.join().expect("it does not panic")
    });
    if random.one_in(2) {
        // What is queued still runs.
        drop(site);
        return collect(tasks, random, false);
    }
    collect(tasks, random, false);
    site.check_counts(false);
}
