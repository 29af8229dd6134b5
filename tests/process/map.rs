//! `map` over calls: order, chunks, failures of single items, and what ends of the map do.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::process::WorkerState;
use futurepool::{ProcessPool, TaskExecutor, TaskExecutorExt, block_on, task};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::common::{LONG, Random, eventually, poll_once, within};

/// What tests and workers write to each other: a folder of files.
struct Notes(tempfile::TempDir);

impl Notes {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Returns how often each number was noted.
    fn starts(&self) -> HashMap<u64, usize> {
        let text = fs::read_to_string(self.0.path().join("starts")).unwrap_or_default();
        let mut starts = HashMap::new();
        for line in text.lines() {
            *starts.entry(line.parse().unwrap()).or_default() += 1;
        }
        starts
    }

    fn has(&self, name: &str) -> bool {
        self.0.path().join(name).exists()
    }

    fn put(&self, name: &str) {
        File::create(self.0.path().join(name)).unwrap();
    }
}

/// Notes that an item starts. One write to a file that is opened to append is not torn.
fn note_start(notes: &Path, item: u64) {
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .append(true)
        .open(notes.join("starts"))
        .unwrap();
    file.write_all(format!("{item}\n").as_bytes()).unwrap();
}

/// Takes so long that the results before it are sent at once.
fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

const A_WHILE: Duration = Duration::from_micros(200);

#[task]
fn square(n: u64) -> u64 {
    n * n
}

#[task]
fn note(notes: PathBuf, item: u64) -> u64 {
    note_start(&notes, item);
    item
}

/// What an item does after it has noted its start.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Act {
    Return,
    Compute,
    Abort,
    /// Aborts unless it has done so before.
    AbortOnce,
    Panic,
    Sleep(u64),
    /// Waits for the file "go".
    Wait,
}

fn act_on(notes: &Path, item: u64, act: Act) -> u64 {
    note_start(notes, item);
    match act {
        Act::Return => {}
        Act::Compute => compute(A_WHILE),
        Act::Abort => std::process::abort(),
        Act::AbortOnce => {
            if File::create_new(notes.join(format!("aborted {item}"))).is_ok() {
                std::process::abort();
            }
        }
        Act::Panic => panic!("item {item} panics"),
        Act::Sleep(millis) => thread::sleep(Duration::from_millis(millis)),
        Act::Wait => {
            while !notes.join("go").exists() {
                thread::sleep(Duration::from_millis(1));
            }
            File::create(notes.join(format!("ended {item}"))).unwrap();
        }
    }
    item
}

#[task]
fn act(notes: PathBuf, item: u64, act: Act) -> u64 {
    act_on(&notes, item, act)
}

#[task(idempotent, attempts = 2)]
fn act_again(notes: PathBuf, item: u64, act: Act) -> u64 {
    act_on(&notes, item, act)
}

fn pool(workers: usize) -> ProcessPool {
    ProcessPool::builder().max_workers(workers).build().unwrap()
}

#[test]
fn promise_map_yields_the_results_in_order_with_and_without_chunks() {
    let pool = pool(2);
    let expected: Vec<u64> = (0..300).map(|n| n * n).collect();
    assert_eq!(
        pool.map((0..300).map(square::call)).join().unwrap(),
        expected
    );
    for chunk in [1, 2, 7, 64, 1_000] {
        let map = pool.map((0..300).map(square::call)).chunk_size(chunk);
        assert_eq!(map.join().unwrap(), expected, "{chunk}");
    }
    let map = pool.map((0..300).map(square::call)).chunk_size(10);
    assert_eq!(block_on(async { map.await.unwrap() }), expected);
    assert_eq!(
        pool.map((0..0).map(square::call))
            .chunk_size(3)
            .join()
            .unwrap(),
        []
    );
}

#[test]
fn promise_map_counts_jobs_not_items() {
    let pool = pool(2);
    pool.map((0..100).map(square::call))
        .chunk_size(10)
        .join()
        .unwrap();
    assert_eq!(pool.metrics().submitted, 10);
    pool.map((0..20).map(square::call)).join().unwrap();
    assert_eq!(pool.metrics().submitted, 30);
    eventually("all are counted", || pool.metrics().completed == 30);
}

#[test]
fn promise_map_unordered_yields_each_result_once() {
    let pool = pool(2);
    for chunk in [None, Some(16)] {
        let map = pool.map_unordered((0..300).map(square::call));
        let map = match chunk {
            Some(chunk) => map.chunk_size(chunk),
            None => map,
        };
        let mut found = map.join().unwrap();
        found.sort_unstable();
        assert!(found.into_iter().eq((0..300).map(|n| n * n)));
    }
}

#[test]
fn promise_unordered_results_do_not_wait_for_a_slow_item() {
    let notes = Notes::new();
    let pool = pool(2);
    let calls = (0..20).map(|item| match item {
        0 => act::call(notes.path(), item, Act::Wait),
        _ => act::call(notes.path(), item, Act::Return),
    });
    let mut map = pool.map_unordered(calls).chunk_size(2);
    // Item 1 is behind item 0 in its chunk.
    let mut found: Vec<u64> = (2..20).map(|_| map.wait_next().unwrap().unwrap()).collect();
    found.sort_unstable();
    assert!(found.into_iter().eq(2..20));
    notes.put("go");
    let last: Vec<_> = map.into_iter().map(Result::unwrap).collect();
    assert_eq!(last, [0, 1]);
}

#[test]
fn promise_an_endless_input_works_with_a_buffer() {
    let pool = pool(2);
    let map = pool
        .map((0..).map(square::call))
        .buffer_size(16)
        .chunk_size(4);
    for (result, n) in map.into_iter().take(200).zip(0..) {
        assert_eq!(result.unwrap(), n * n);
    }
    within(LONG, "the pool is idle after the drop", move || {
        pool.wait_idle().join()
    });
}

/// Items computed before the crash stand, since their results were sent.
#[test]
fn promise_a_crash_in_a_chunk_costs_the_running_item_alone() {
    let notes = Notes::new();
    let pool = pool(2);
    let calls = (0..60).map(|item| {
        let kind = if item == 27 { Act::Abort } else { Act::Compute };
        act::call(notes.path(), item, kind)
    });
    let results: Vec<_> = pool.map(calls).chunk_size(20).into_iter().collect();
    assert_eq!(results.len(), 60);
    for (result, item) in results.into_iter().zip(0..) {
        match result {
            Ok(value) => assert_eq!(value, item),
            Err(error) => {
                assert_eq!(item, 27, "{error}");
                assert!(error.is_crashed() && error.may_have_run(), "{error}");
                assert!(error.exit_status().is_some());
            }
        }
    }
    let starts = notes.starts();
    assert_eq!(starts.len(), 60);
    assert!(starts.values().all(|starts| *starts == 1), "{starts:?}");
}

/// Results that were not sent before the crash are lost, and those items are not run again.
#[test]
fn promise_items_behind_a_crash_run_even_if_all_are_fast() {
    let notes = Notes::new();
    let pool = pool(1);
    let calls = (0..40).map(|item| {
        let kind = if item == 13 { Act::Abort } else { Act::Return };
        act::call(notes.path(), item, kind)
    });
    let results: Vec<_> = pool.map(calls).chunk_size(40).into_iter().collect();
    assert!(results[13].as_ref().unwrap_err().is_crashed());
    let first_lost = results.iter().position(Result::is_err).unwrap();
    for (item, result) in results.iter().enumerate() {
        match result {
            Ok(value) => assert_eq!(*value, item as u64),
            Err(error) => {
                assert!((first_lost..=13).contains(&item), "{item}: {error}");
                assert!(
                    error.is_crashed() && error.may_have_run(),
                    "{item}: {error}"
                );
            }
        }
        assert_eq!(result.is_err(), (first_lost..=13).contains(&item));
    }
    let starts = notes.starts();
    assert_eq!(starts.len(), 40);
    assert!(starts.values().all(|starts| *starts == 1), "{starts:?}");
}

#[test]
fn promise_a_held_back_result_is_sent_while_a_long_item_runs() {
    let notes = Notes::new();
    let pool = pool(1);
    let calls = (0..4).map(|item| {
        let kind = match item {
            2 => Act::Sleep(50),
            3 => Act::Abort,
            _ => Act::Return,
        };
        act::call(notes.path(), item, kind)
    });
    let results: Vec<_> = pool.map(calls).chunk_size(4).into_iter().collect();
    let ends: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(ends, [true, true, true, false]);
}

#[test]
fn promise_an_idempotent_item_of_a_chunk_runs_again_after_a_crash() {
    let notes = Notes::new();
    let pool = ProcessPool::builder()
        .max_workers(1)
        .retry_on_crash(1)
        .build()
        .unwrap();
    let calls = (0..30).map(|item| {
        let kind = match item {
            9 => Act::AbortOnce,
            20 => Act::Abort,
            _ => Act::Return,
        };
        act_again::call(notes.path(), item, kind)
    });
    let results: Vec<_> = pool.map(calls).chunk_size(30).into_iter().collect();
    for (item, result) in results.iter().enumerate() {
        assert_eq!(result.is_ok(), item != 20, "{item}: {result:?}");
    }
    assert!(notes.starts().values().all(|starts| *starts <= 2));
    assert_eq!(notes.starts()[&9], 2);
    assert_eq!(notes.starts()[&20], 2);
}

#[test]
fn promise_limits_are_those_of_each_item() {
    let notes = Notes::new();
    let limit = Duration::from_secs(2);
    let pool = ProcessPool::builder()
        .max_workers(1)
        .time_limit(limit)
        .build()
        .unwrap();
    // Together they take longer than the limit.
    let calls = (0..6).map(|item| {
        let millis = if item == 3 { 600_000 } else { 500 };
        act::call(notes.path(), item, Act::Sleep(millis))
    });
    let results: Vec<_> = pool.map(calls).chunk_size(6).into_iter().collect();
    for (item, result) in results.iter().enumerate() {
        match result {
            Ok(_) => assert_ne!(item, 3),
            Err(error) => {
                assert!(error.is_time_limit(), "{error}");
                assert_eq!(item, 3);
            }
        }
    }
    assert!(notes.starts().values().all(|starts| *starts == 1));
}

#[test]
fn promise_limits_and_labels_of_single_calls_hold_in_a_chunk() {
    let notes = Notes::new();
    let pool = pool(1);
    let past = Instant::now();
    let calls = (0..8).map(|item| {
        let kind = if item == 2 {
            Act::Sleep(600_000)
        } else {
            Act::Return
        };
        let call = act::call(notes.path(), item, kind);
        match item {
            2 => call.time_limit(Duration::from_millis(50)),
            4 => call.deadline(past),
            5 => call.label("five"),
            _ => call,
        }
    });
    let results: Vec<_> = pool.map(calls).chunk_size(8).into_iter().collect();
    for (item, result) in results.iter().enumerate() {
        match item {
            2 => assert!(result.as_ref().unwrap_err().is_time_limit()),
            4 => assert!(result.as_ref().unwrap_err().is_expired()),
            _ => assert_eq!(result.as_ref().unwrap(), &(item as u64)),
        }
    }
    assert!(!notes.starts().contains_key(&4));
}

#[test]
fn promise_a_panic_costs_one_item_and_no_worker() {
    let notes = Notes::new();
    let pool = pool(1);
    let pid = pool
        .submit(square::call(1))
        .join()
        .map(|_| pool.workers()[0].pid)
        .unwrap();
    for chunk in [1, 10] {
        let calls = (0..10).map(|item| {
            let kind = if item == 4 { Act::Panic } else { Act::Return };
            act::call(notes.path(), item, kind)
        });
        let results: Vec<_> = pool.map(calls).chunk_size(chunk).into_iter().collect();
        for (item, result) in results.iter().enumerate() {
            match result {
                Ok(value) => assert_eq!(*value, item as u64),
                Err(error) => {
                    assert!(error.is_panic());
                    assert_eq!(error.panic_message(), Some("item 4 panics"));
                    assert!(error.panic_location().unwrap().contains("map.rs"));
                    assert!(error.location().unwrap().file().ends_with("map.rs"));
                }
            }
            assert_eq!(result.is_err(), item == 4);
        }
    }
    assert_eq!(pool.workers()[0].pid, pid);
}

/// Fails, or is lost, where its number says.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Brittle(u8);

const NO_ENCODE: u8 = 1;
const NO_DECODE: u8 = 2;

impl Serialize for Brittle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            NO_ENCODE => Err(serde::ser::Error::custom("it cannot be encoded")),
            n => n.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Brittle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            NO_DECODE => Err(serde::de::Error::custom("it cannot be decoded")),
            n => Ok(Self(n)),
        }
    }
}

#[task]
fn brittle(argument: Brittle, output: u8) -> Brittle {
    assert_eq!(argument, Brittle(0));
    Brittle(output)
}

#[test]
fn promise_what_cannot_be_encoded_costs_one_item() {
    let pool = pool(1);
    for chunk in [1, 20] {
        let call = |item: u8| match item {
            0 => brittle::call(Brittle(NO_ENCODE), 0),
            5 => brittle::call(Brittle(NO_DECODE), 0),
            8 | 9 => brittle::call(Brittle(NO_ENCODE), 0),
            12 => brittle::call(Brittle(0), NO_ENCODE),
            15 => brittle::call(Brittle(0), NO_DECODE),
            19 => brittle::call(Brittle(NO_ENCODE), 0),
            other => brittle::call(Brittle(0), 10 + other),
        };
        let results: Vec<_> = pool
            .map((0..20).map(call))
            .chunk_size(chunk)
            .into_iter()
            .collect();
        let failed = [0, 5, 8, 9, 12, 15, 19];
        for (item, result) in results.iter().enumerate() {
            match result {
                Ok(value) => assert_eq!(*value, Brittle(10 + item as u8)),
                Err(error) => {
                    assert!(error.is_codec(), "{error}");
                    assert_eq!(error.may_have_run(), item == 12 || item == 15, "{error}");
                }
            }
            assert_eq!(result.is_err(), failed.contains(&item), "{item}");
        }
        assert_eq!(results.len(), 20);
    }
}

#[test]
fn promise_the_timeout_kills_running_jobs() {
    let notes = Notes::new();
    let pool = pool(2);
    for chunk in [1, 2] {
        let calls = (0..6).map(|item| act::call(notes.path(), item, Act::Sleep(600_000)));
        let timeout = Duration::from_millis(300);
        let mut map = pool.map(calls).chunk_size(chunk).timeout(timeout);
        assert!(map.wait_next().unwrap().unwrap_err().is_timeout());
        assert!(map.wait_next().is_none());
        let idle = pool.wait_idle().join_timeout(LONG);
        idle.expect("the running jobs are killed");
    }
    assert_eq!(pool.submit(square::call(3)).join().unwrap(), 9);
    let metrics = pool.metrics();
    assert_eq!(metrics.submitted, 6 + 3 + 1);
    assert_eq!(metrics.cancelled, 6 + 3);
}

#[test]
fn promise_dropping_a_map_kills_nothing_and_starts_nothing_more() {
    for chunk in [1, 5] {
        let notes = Notes::new();
        let pool = pool(1);
        let calls = (0..15).map(|item| act::call(notes.path(), item, Act::Wait));
        let mut map = pool.map(calls).chunk_size(chunk);
        block_on(async {
            assert!(poll_once(&mut futures::StreamExt::next(&mut map)).is_pending())
        });
        eventually("the first item runs", || !notes.starts().is_empty());
        drop(map);
        notes.put("go");
        within(LONG, "the pool is idle", move || {
            pool.wait_idle().join();
            drop(pool);
        });
        assert_eq!(notes.starts(), HashMap::from([(0, 1)]), "{chunk}");
        assert!(notes.has("ended 0"), "the running item was not killed");
    }
}

#[test]
fn promise_an_error_ends_a_gathering_without_a_kill() {
    let notes = Notes::new();
    let pool = pool(2);
    let calls = (0..8).map(|item| {
        let kind = if item == 0 { Act::Panic } else { Act::Wait };
        act::call(notes.path(), item, kind)
    });
    let map = pool.map_unordered(calls).chunk_size(4);
    // Item 4 runs before the map is gathered.
    let map = map.start();
    eventually("both chunks run", || notes.starts().contains_key(&4));
    let gathered = thread::spawn({
        let path = notes.path();
        move || {
            eventually("item 1 waits", || {
                fs::read_to_string(path.join("starts"))
                    .unwrap()
                    .lines()
                    .count()
                    >= 3
            });
            File::create(path.join("go")).unwrap();
        }
    });
    assert!(map.join().unwrap_err().is_panic());
    gathered.join().unwrap();
    within(LONG, "the pool is idle", move || pool.wait_idle().join());
    assert!(notes.has("ended 4"), "it was not killed");
}

#[test]
fn promise_a_detached_map_loses_nothing() {
    for (capacity, buffer, chunk) in [(None, None, 3), (Some(1), Some(4), 2), (Some(1), None, 5)] {
        for start_only in [false, true] {
            let notes = Notes::new();
            let mut builder = ProcessPool::builder().max_workers(2);
            if let Some(capacity) = capacity {
                builder = builder.queue_capacity(capacity);
            }
            let pool = builder.build().unwrap();
            let path = notes.path();
            let calls = (0..40).map(move |item| note::call(path.clone(), item));
            let mut map = pool.map(calls).chunk_size(chunk);
            if let Some(buffer) = buffer {
                map = map.buffer_size(buffer);
            }
            match start_only {
                true => drop(map.start()),
                false => map.detach(),
            }
            within(LONG, "the pool runs everything", move || drop(pool));
            let starts = notes.starts();
            assert_eq!(
                starts.len(),
                40,
                "{capacity:?} {buffer:?} {chunk} {start_only}"
            );
            assert!(starts.values().all(|starts| *starts == 1));
        }
    }
}

#[test]
fn promise_a_bounded_pool_makes_the_map_wait() {
    let pool = ProcessPool::builder()
        .max_workers(1)
        .queue_capacity(1)
        .build()
        .unwrap();
    let expected: Vec<u64> = (0..100).map(|n| n * n).collect();
    let calls = || (0..100).map(square::call);
    assert_eq!(pool.map(calls()).chunk_size(7).join().unwrap(), expected);
    assert_eq!(pool.map(calls()).join().unwrap(), expected);
    assert_eq!(
        block_on(async { pool.map(calls()).chunk_size(9).await.unwrap() }),
        expected
    );
}

#[test]
fn promise_a_map_ends_with_the_pool_that_is_shut_down() {
    let notes = Notes::new();
    let pool = pool(1);
    let path = notes.path();
    let calls = (0..100).map(move |item| note::call(path.clone(), item));
    let mut map = pool.map(calls).chunk_size(5).buffer_size(10);
    assert_eq!(map.wait_next().unwrap().unwrap(), 0);
    pool.shutdown();
    let rest: Vec<_> = map.into_iter().collect();
    let (last, others) = rest.split_last().unwrap();
    assert!(last.as_ref().unwrap_err().is_shutdown());
    assert!(others.iter().all(Result::is_ok));
    assert_eq!(notes.starts().len(), 1 + others.len());
}

#[test]
fn promise_what_was_sent_before_shutdown_now_stands() {
    let notes = Notes::new();
    let pool = pool(1);
    let path = notes.path();
    let calls = (0..10).map(move |item| {
        let kind = if item == 3 {
            Act::Sleep(600_000)
        } else {
            Act::Compute
        };
        act::call(path.clone(), item, kind)
    });
    let map = pool.map(calls).chunk_size(5).start();
    eventually("item 3 runs", || notes.starts().contains_key(&3));
    let results = within(LONG, "the map ends", move || {
        // Within this time the worker sends the results before, which item 3 holds back.
        thread::sleep(Duration::from_millis(200));
        pool.shutdown_now().join();
        map.into_iter().collect::<Vec<_>>()
    });
    let kept: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(kept[..3], [true; 3]);
    assert!(
        results[3..10]
            .iter()
            .all(|result| result.as_ref().unwrap_err().is_cancelled())
    );
    assert!(!notes.starts().contains_key(&4));
}

#[task]
fn repeat(text: String, times: usize) -> String {
    text.repeat(times)
}

#[test]
fn promise_a_chunk_larger_than_max_payload_travels_in_parts() {
    let max = 100_000;
    let pool = ProcessPool::builder()
        .max_workers(1)
        .max_payload(max)
        .build()
        .unwrap();
    let text = |len: usize| "x".repeat(len);
    let calls = (0..20).map(|item| match item {
        7 => repeat::call(text(200_000), 1),
        13 => repeat::call(text(30_000), 10),
        _ => repeat::call(text(30_000), 1),
    });
    let results: Vec<_> = pool.map(calls).chunk_size(20).into_iter().collect();
    for (item, result) in results.iter().enumerate() {
        match item {
            7 | 13 => {
                let error = result.as_ref().unwrap_err();
                assert!(error.is_codec(), "{error}");
                assert_eq!(error.may_have_run(), item == 13);
            }
            _ => assert_eq!(result.as_ref().unwrap().len(), 30_000, "{item}"),
        }
    }
    // The results of small calls together are too large for one message.
    let calls = (0..20).map(|_| repeat::call(text(3), 20_000));
    assert_eq!(pool.map(calls).chunk_size(20).join().unwrap().len(), 20);
}

#[test]
fn promise_map_tasks_sends_chunks_to_worker_processes() {
    let pool = pool(2);
    let executor: &dyn TaskExecutor = &pool;
    let squares = executor
        .map_tasks((0..100).map(square::call))
        .chunk_size(50);
    assert!(
        squares
            .join()
            .unwrap()
            .into_iter()
            .eq((0..100).map(|n| n * n))
    );
    assert_eq!(pool.metrics().submitted, 2);
}

#[test]
fn promise_a_map_does_not_borrow_its_pool() {
    let pool = pool(1);
    let map = pool.map((0..3).map(square::call));
    within(LONG, "the pool ends", move || drop(pool));
    let results: Vec<_> = map.into_iter().collect();
    assert!(results.len() == 1 && results[0].as_ref().unwrap_err().is_shutdown());
}

/// Kills workers at random moments, from outside, while chunks run.
fn kills_at_random(seed: u64, again: bool) {
    static ROUND: AtomicU64 = AtomicU64::new(0);
    let round = ROUND.fetch_add(1, Ordering::Relaxed);
    let notes = Notes::new();
    let mut rng = Random(seed);
    let pool = ProcessPool::builder()
        .max_workers(2)
        .retry_on_crash(3)
        .build()
        .unwrap();
    let items = 400;
    let call = |_, rng: &mut Random| -> (Act, Duration) {
        let kind = if rng.one_in(3) {
            Act::Compute
        } else {
            Act::Return
        };
        (kind, Duration::from_micros(rng.next() % 3_000))
    };
    let acts: Vec<_> = (0..items).map(|item| call(item, &mut rng)).collect();
    let chunk = 1 + rng.below(40);
    let path = notes.path();
    let plain = acts.clone().into_iter().zip(0..);
    let plain = plain.map({
        let path = path.clone();
        move |((act, _), item)| act::call(path.clone(), item, act)
    });
    let repeated = acts.clone().into_iter().zip(0..);
    let repeated = repeated.map(move |((act, _), item)| act_again::call(path.clone(), item, act));
    let map = match again {
        false => pool.map(plain).chunk_size(chunk).start(),
        true => pool.map(repeated).chunk_size(chunk).start(),
    };
    let results = within(2 * LONG, "all items have results", {
        let pauses: Vec<_> = acts.iter().map(|(_, pause)| *pause).collect();
        move || {
            let kills = thread::spawn(move || {
                for pause in pauses.iter().take(20) {
                    compute(*pause);
                    let workers = pool.workers();
                    let mut running =
                        (workers.iter()).filter(|worker| worker.state == WorkerState::Running);
                    if let Some(worker) = running.next() {
                        let pid = Pid::from_raw(worker.pid as i32).unwrap();
                        let _ = kill_process(pid, Signal::KILL);
                    }
                }
                pool
            });
            let results: Vec<_> = map.into_iter().collect();
            drop(kills.join().unwrap());
            results
        }
    });
    assert_eq!(results.len() as u64, items);
    let starts = notes.starts();
    let most = if again { 2 } else { 1 };
    for (result, item) in results.into_iter().zip(0..) {
        let starts = starts.get(&item).copied().unwrap_or(0);
        assert!(
            starts <= most,
            "seed {seed}, round {round}, item {item}: {starts} starts"
        );
        match result {
            Ok(value) => {
                assert_eq!(value, item);
                assert!(starts >= 1, "seed {seed}, item {item}: a result of nothing");
            }
            Err(error) => assert!(error.is_crashed(), "seed {seed}, item {item}: {error}"),
        }
    }
}

#[test]
fn promise_no_item_runs_twice_whenever_workers_are_killed() {
    for seed in 1..=6 {
        kills_at_random(seed, false);
    }
}

#[test]
fn promise_no_item_exceeds_its_attempts_whenever_workers_are_killed() {
    for seed in 11..=14 {
        kills_at_random(seed, true);
    }
}

/// The types of the maps are those of thread pools.
#[test]
fn promise_the_maps_are_those_of_every_pool() {
    fn total(map: futurepool::Map<'_, u64>) -> u64 {
        map.into_iter().map(Result::unwrap).sum()
    }
    let pool = pool(1);
    let threads = futurepool::ThreadPool::new(1);
    assert_eq!(total(pool.map((0..4).map(square::call))), 14);
    assert_eq!(total(threads.map(0..4_u64, |n| n * n)), 14);
}
