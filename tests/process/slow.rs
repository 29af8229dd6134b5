//! Jobs and workers that are slow, or shorter than what looks at them.

use std::io::Read;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::process::WorkerStdio;
use futurepool::{Bytes, ProcessPool, Task, task};
use serde::{Deserialize, Deserializer, Serialize};

use crate::common::{LONG, eventually, within};
use crate::garbage::{self, is_worker, program};

#[task]
fn sleep(millis: u64) -> u32 {
    thread::sleep(Duration::from_millis(millis));
    std::process::id()
}

#[test]
fn promise_17_a_replacement_that_has_waited_for_long_is_used() {
    within(LONG, "replacement", || {
        let builder = ProcessPool::builder().max_workers(1).max_jobs_per_worker(1);
        let timeout = Duration::from_secs(2);
        let pool = builder.start_timeout(timeout).build().unwrap();
        let last = pool.submit(sleep::call(3_000));
        eventually("the replacement starts", || pool.workers().len() == 2);
        let next = pool.workers()[1].pid;
        last.join().unwrap();
        assert_eq!(pool.submit(sleep::call(0)).join().unwrap(), next);
    });
}

/// Decoding it takes long.
struct Slow(u64);

impl Serialize for Slow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Slow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let millis = u64::deserialize(deserializer)?;
        thread::sleep(Duration::from_millis(millis));
        Ok(Self(millis))
    }
}

#[task]
fn slow_to_decode(runs: u64, millis: u64) -> Slow {
    thread::sleep(Duration::from_millis(runs));
    Slow(millis)
}

#[test]
fn promise_5_the_decoding_of_results_is_not_in_the_time_limit_of_the_next_call() {
    within(LONG, "decoding", || {
        let builder = ProcessPool::builder().max_workers(1);
        let pool = builder.time_limit(Duration::from_secs(2)).build().unwrap();
        let calls = [(0, 3_000), (1_500, 0), (1_900, 0)];
        let calls = calls.map(|(runs, millis)| slow_to_decode::call(runs, millis));
        for result in pool.map(calls).chunk_size(3).into_iter() {
            result.unwrap();
        }
    });
}

#[task]
fn leak(bytes: usize) {
    vec![1_u8; bytes].leak();
}

#[cfg(target_os = "linux")]
#[test]
fn promise_16_a_memory_limit_sees_what_short_jobs_leak() {
    const LIMIT: u64 = 256 << 20;
    within(LONG, "a leak", || {
        let builder = ProcessPool::builder().max_workers(1);
        let pool = builder.memory_limit(LIMIT).build().unwrap();
        pool.submit(sleep::call(0)).join().unwrap();
        let failed = (0..1_000).any(|_| pool.submit(leak::call(1 << 20)).join().is_err());
        assert!(failed, "the worker has {:?}", pool.workers());

        let calls = (0..1_000).map(|_| leak::call(1 << 20));
        let mut results = pool.map(calls).chunk_size(500).into_iter();
        assert!(results.any(|result| result.is_err_and(|error| error.is_memory_limit())));
    });
}

#[task]
fn takes(bytes: Bytes) -> u64 {
    panic!("only fake workers run this: {bytes:?}")
}

/// A worker that reads its job slowly.
#[test]
fn slow_reader() {
    if !is_worker("slow::slow_reader") {
        return;
    }
    let mut socket = garbage::greet(takes::NAME);
    let mut buffer = [0; 64 * 1024];
    loop {
        thread::sleep(Duration::from_millis(10));
        if !matches!(socket.read(&mut buffer), Ok(1..)) {
            return;
        }
    }
}

#[test]
fn promise_5_the_sending_of_arguments_is_not_in_the_time_limit() {
    within(LONG, "sending", || {
        let limit = Duration::from_millis(1_000);
        let builder = ProcessPool::builder().max_workers(1).time_limit(limit);
        let pool = program(builder, "slow::slow_reader").build().unwrap();
        let bytes = Bytes::from(vec![0; 16 << 20]);
        let error = pool.submit(takes::call(bytes)).join().unwrap_err();
        // It was wholly written, and never answered.
        assert!(error.is_time_limit() && error.may_have_run(), "{error}");
    });
}

#[test]
fn promise_18_a_greeting_that_stops_half_way_does_not_delay_a_shutdown() {
    within(LONG, "half a greeting", || {
        let directory = tempfile::tempdir().unwrap();
        let sent = directory.path().join("sent");
        let builder = ProcessPool::builder()
            .max_workers(1)
            .start_timeout(LONG)
            .env("FUTUREPOOL_TEST_GREETING", "half")
            .env(garbage::SENT, &sent);
        let pool = program(builder, "garbage::fake").build().unwrap();
        let job = pool.submit(sleep::call(0));
        eventually("half of the greeting is sent", || sent.exists());
        let start = Instant::now();
        pool.shutdown_now().join();
        let error = job.join().unwrap_err();
        assert!(error.is_cancelled(), "{error} after {:?}", start.elapsed());
        assert!(start.elapsed() < LONG / 3, "{:?}", start.elapsed());
    });
}

#[test]
fn promise_5_empty_messages_do_not_extend_the_time_limit() {
    within(LONG, "empty", || {
        let builder = ProcessPool::builder().max_workers(1);
        let pool = builder.time_limit(Duration::from_secs(1));
        let pool = program(pool, "garbage::fake").build().unwrap();
        let error = garbage::submit_trick(&pool, "no-results-for-ever");
        assert!(error.is_time_limit() || error.is_crashed(), "{error}");
    });
}

/// Removes its own program, and crashes.
#[task(idempotent, attempts = 3)]
fn remove_and_crash(program: PathBuf) {
    std::fs::remove_file(program).unwrap();
    std::process::abort();
}

#[test]
fn promise_4_a_job_that_was_begun_once_may_have_run_although_its_second_worker_could_not_start() {
    within(LONG, "begun once", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("worker");
        std::fs::copy(
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/process/worker.sh"),
            &path,
        )
        .unwrap();
        let builder = ProcessPool::builder().max_workers(1).retry_on_crash(2);
        let pool = program(builder, "futurepool_worker")
            .program(&path)
            .stderr(WorkerStdio::null())
            .build()
            .unwrap();
        let error = pool
            .submit(remove_and_crash::call(path))
            .join()
            .unwrap_err();
        assert!(error.may_have_run(), "{error}");
    });
}

#[test]
fn promise_6_calls_of_a_chunk_do_not_begin_in_the_grace_of_a_cancel() {
    within(LONG, "a chunk", || {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lines");
        let builder = ProcessPool::builder().max_workers(1);
        let pool = builder
            .cancel_grace(Duration::from_secs(5))
            .build()
            .unwrap();
        let name = file.to_str().unwrap().to_owned();
        let calls = (0..10).map(|n| {
            let line = n.to_string();
            crate::jobs::append_and_sleep::call(name.clone(), line, 500)
        });
        let results = pool.map(calls).chunk_size(10);
        let results = results.timeout(Duration::from_millis(1_000)).into_iter();
        assert!(results.last().unwrap().unwrap_err().is_timeout());
        pool.shutdown().join();
        let begun = crate::jobs::lines(&file).len();
        assert!(begun < 6, "{begun} calls have begun");
    });
}

#[test]
fn promise_3_no_option_is_too_large() {
    within(LONG, "large options", || {
        let pool = ProcessPool::builder()
            .max_workers(usize::MAX)
            .queue_capacity(usize::MAX)
            .keep_alive(Duration::MAX)
            .start_timeout(Duration::MAX)
            .time_limit(Duration::MAX)
            .cancel_grace(Duration::MAX)
            .max_jobs_per_worker(u64::MAX)
            .retry_on_crash(u32::MAX)
            .max_payload(u64::MAX)
            .initializer(crate::jobs::nothing::call());
        let pool = pool.build().unwrap();
        let call = sleep::call(100).time_limit(Duration::MAX);
        let pid = pool.submit(call).join().unwrap();
        let call = sleep::call(500);
        let cancelled = pool.submit(call);
        eventually("it runs", || {
            pool.workers().iter().any(|worker| worker.task.is_some())
        });
        assert!(cancelled.cancel());
        assert!(cancelled.join().unwrap_err().is_cancelled());
        assert_ne!(pool.submit(sleep::call(0)).join().unwrap(), pid);
        let error = pool
            .submit(crate::jobs::abort_again::call())
            .join()
            .unwrap_err();
        assert!(error.is_crashed());
        pool.shutdown().join();
    });
}

#[test]
fn promise_3_no_option_is_too_small() {
    within(LONG, "small options", || {
        let one = Duration::from_nanos(1);
        let pool = ProcessPool::builder()
            .max_workers(1)
            .queue_capacity(1)
            .keep_alive(one)
            .time_limit(one)
            .cancel_grace(one)
            .max_jobs_per_worker(1)
            .max_payload(1);
        let pool = pool.build().unwrap();
        for _ in 0..20 {
            let result = pool.submit(sleep::call(0)).join();
            if let Err(error) = result {
                let is_limit = error.is_time_limit() || error.is_memory_limit();
                assert!(is_limit || error.is_codec(), "{error}");
            }
            pool.submit(sleep::call(1)).cancel();
        }
        pool.shutdown().join();
        let builder = ProcessPool::builder().max_workers(1).start_timeout(one);
        let pool = builder.build().unwrap();
        let error = pool.submit(sleep::call(0)).join().unwrap_err();
        assert!(error.is_spawn_failed() || error.is_broken(), "{error}");
    });
}

#[test]
fn promise_19_idle_workers_that_are_slow_to_leave_are_not_too_many() {
    within(LONG, "slow to leave", || {
        let builder = ProcessPool::builder().max_workers(1);
        let pool = builder
            .keep_alive(Duration::from_millis(1))
            .build()
            .unwrap();
        for _ in 0..10 {
            pool.submit(crate::jobs::hang_at_exit::call())
                .join()
                .unwrap();
            let workers = pool.workers();
            assert!(workers.len() <= 2, "{workers:?}");
            thread::sleep(Duration::from_millis(20));
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn promise_16_no_limit_of_memory_is_too_large_or_too_small() {
    within(LONG, "limits of memory", || {
        let one = || ProcessPool::builder().max_workers(1);
        let pool = one().memory_limit(u64::MAX).recycle_above(u64::MAX);
        let pool = pool.build().unwrap();
        let pid = pool.submit(sleep::call(100)).join().unwrap();
        assert_eq!(pool.submit(sleep::call(0)).join().unwrap(), pid);
        let pool = one().memory_limit(1).recycle_above(1).build().unwrap();
        for millis in [0, 0, 100, 0] {
            if let Err(error) = pool.submit(sleep::call(millis)).join() {
                assert!(error.is_memory_limit(), "{error}");
            }
        }
    });
}

#[test]
fn promise_19_a_job_does_not_wait_for_the_worker_of_another_thread_to_leave() {
    within(LONG, "leaves", || {
        let builder = ProcessPool::builder().max_workers(2);
        let pool = builder
            .keep_alive(Duration::from_millis(1))
            .build()
            .unwrap();
        let slow = pool
            .submit(crate::jobs::hang_at_exit::call())
            .join()
            .unwrap();
        let leaves = || {
            let workers = pool.workers();
            let own = workers.iter().find(|worker| worker.pid == slow);
            own.is_some_and(|worker| worker.state == futurepool::process::WorkerState::Leaving)
        };
        eventually("it leaves", leaves);
        assert_ne!(pool.submit(sleep::call(0)).join().unwrap(), slow);
        assert!(leaves(), "the job has waited");
    });
}
