//! Where the crate meets tokio's scheduler: its cooperative budget, its paused clock, its idea of the
//! current runtime. The guide "From tokio" names each of these traps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::common::{LONG, block_workers, within};
use futurepool::{
    ExecutorExt, InlineExecutor, JoinHandle, ReturnWhen, ThreadPool, as_completed, block_on, wait,
};

/// More than the budget of a tokio task.
const MESSAGES: usize = 500;

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// Runs `body` in a task of a runtime of either kind. It must return although it blocks its thread.
fn in_a_task(name: &'static str, body: fn()) {
    for runtime in [current_thread, multi_thread] {
        within(LONG, name, move || {
            let runtime = runtime();
            let task = runtime.spawn(async move { body() });
            runtime.block_on(task).unwrap();
        });
    }
}

/// Returns a channel that holds `MESSAGES` messages. Receiving them takes more than one budget.
fn full_channel() -> mpsc::UnboundedReceiver<usize> {
    let (send, receive) = mpsc::unbounded_channel();
    (0..MESSAGES).for_each(|n| send.send(n).unwrap());
    receive
}

/// Returns futures that are ready, but take a unit of the budget each.
fn ready_receivers() -> impl Iterator<Item = oneshot::Receiver<usize>> {
    (0..MESSAGES).map(|n| {
        let (send, receive) = oneshot::channel();
        send.send(n).unwrap();
        receive
    })
}

// ---- the budget ---------------------------------------------------------------------------------

#[test]
fn block_on_in_a_task_is_not_starved_by_the_budget_of_the_task() {
    in_a_task("block_on", || {
        let mut messages = full_channel();
        let received = block_on(async move {
            let mut received = 0;
            while messages.recv().await.is_some() {
                received += 1;
            }
            received
        });
        assert_eq!(received, MESSAGES);
    });
}

#[test]
fn block_on_in_the_future_of_a_runtime_is_not_starved_either() {
    within(LONG, "block_on in Runtime::block_on", || {
        current_thread().block_on(async {
            let mut messages = full_channel();
            let drain = async { while messages.recv().await.is_some() {} };
            block_on(drain);
        });
    });
}

#[test]
fn the_blocking_forms_of_as_completed_in_a_task_are_not_starved() {
    in_a_task("as_completed", || {
        assert_eq!(
            as_completed(ready_receivers()).into_iter().count(),
            MESSAGES
        );
        let timed = as_completed(ready_receivers()).timeout(LONG);
        assert_eq!(timed.into_iter().filter(Result::is_ok).count(), MESSAGES);
        let mut results = as_completed(ready_receivers());
        let mut count = 0;
        while results.wait_next().is_some() {
            count += 1;
        }
        assert_eq!(count, MESSAGES);
    });
}

#[test]
fn join_and_wait_in_a_task_with_an_exhausted_budget_return() {
    in_a_task("join and wait", || {
        let pool = ThreadPool::new(2);
        // Polled by tokio itself, so the budget of this task is used up.
        let mut receivers: Vec<_> = ready_receivers().collect();
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        let starved = receivers.iter_mut().any(|receiver| {
            let receiver = std::pin::Pin::new(receiver);
            std::future::Future::poll(receiver, context).is_pending()
        });
        assert!(starved, "the budget is larger than {MESSAGES}");

        let handles: Vec<_> = (0..MESSAGES).map(|n| pool.submit(move || n)).collect();
        let waited = wait(handles, ReturnWhen::AllCompleted).join();
        assert_eq!(waited.done.len(), MESSAGES);
        let results = waited.done.into_iter().map(JoinHandle::join);
        assert!(results.map(Result::unwrap).eq(0..MESSAGES));
        assert_eq!(pool.map(0..MESSAGES, |n| n).into_iter().count(), MESSAGES);
    });
}

// ---- what blocks a task for good, and where it works --------------------------------------------

#[test]
fn yield_now_never_completes_in_a_task_that_blocks() {
    in_a_task("yield_now", || {
        let yields = [Box::pin(tokio::task::yield_now())];
        let mut results = as_completed(yields).timeout(Duration::from_millis(100));
        let result = results.wait_next().expect("the error of the timeout");
        assert_eq!(result.unwrap_err().pending(), 1);
    });
}

#[test]
fn yield_now_and_timers_work_in_a_job_and_in_block_in_place() {
    async fn yields_and_sleeps() {
        for _ in 0..MESSAGES {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    within(LONG, "yield_now", || {
        let runtime = multi_thread();
        let task = runtime.spawn(async {
            let pool = ThreadPool::new(1);
            pool.submit(|| block_on(yields_and_sleeps())).await.unwrap();
            tokio::task::block_in_place(|| block_on(yields_and_sleeps()));
        });
        runtime.block_on(task).unwrap();
    });
}

// ---- the paused clock ---------------------------------------------------------------------------

fn paused() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

#[test]
fn a_paused_clock_does_not_wait_for_jobs() {
    within(LONG, "paused clock", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        paused().block_on(async {
            // An hour of the runtime's clock, which passes at once.
            let elapsed = timeout(Duration::from_secs(3_600), pool.submit(|| ())).await;
            assert!(elapsed.is_err(), "the clock waited for the job");
        });
        blocked.release();
    });
}

#[test]
fn a_paused_clock_waits_for_jobs_of_the_runtimes_handle() {
    within(LONG, "paused clock, runtime's handle", || {
        paused().block_on(async {
            let slow = || thread::sleep(Duration::from_millis(50));
            let handle = Handle::current().submit(slow);
            let finished = timeout(Duration::from_millis(1), handle).await;
            finished
                .expect("the clock stands while the job runs")
                .unwrap();
        });
    });
}

#[test]
fn a_paused_clock_waits_for_jobs_without_a_timeout_as_any_other() {
    within(LONG, "paused clock, no timeout", || {
        let pool = ThreadPool::new(1);
        paused().block_on(async {
            assert_eq!(pool.submit(|| 1).await.unwrap(), 1);
            // A timeout of this crate's own counts real time.
            let mut results = as_completed([pool.submit(|| 2)]).timeout(LONG);
            assert_eq!(results.next().await.unwrap().unwrap().unwrap(), 2);
        });
    });
}

// ---- very many ready results --------------------------------------------------------------------

/// Takes 100,000 ready results in one task, and returns how often another task ran meanwhile.
fn turns_of_another_task(gives_way: bool) -> usize {
    within(LONG, "ready results", move || {
        current_thread().block_on(async move {
            let turns = Arc::new(AtomicUsize::new(0));
            let ends = Arc::new(AtomicBool::new(false));
            let other = tokio::spawn({
                let (turns, ends) = (turns.clone(), ends.clone());
                async move {
                    while !ends.load(Ordering::Relaxed) {
                        turns.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                }
            });
            let handles: Vec<_> = (0..100_000)
                .map(|n| InlineExecutor.submit(move || n))
                .collect();
            let mut results = as_completed(handles);
            let mut count = 0;
            while let Some(result) = results.next().await {
                count += 1;
                result.unwrap();
                if gives_way {
                    tokio::task::consume_budget().await;
                }
            }
            assert_eq!(count, 100_000);
            let meanwhile = turns.load(Ordering::Relaxed);
            ends.store(true, Ordering::Relaxed);
            other.await.unwrap();
            meanwhile
        })
    })
}

#[test]
fn taking_very_many_ready_results_gives_way_with_consume_budget_only() {
    assert_eq!(turns_of_another_task(false), 0);
    let turns = turns_of_another_task(true);
    assert!(turns >= 100, "gave way {turns} times only");
}

// ---- a pool in a static -------------------------------------------------------------------------

#[test]
fn a_pool_in_a_static_keeps_the_runtime_of_its_first_caller() {
    use std::sync::LazyLock;

    static POOL: LazyLock<ThreadPool> = LazyLock::new(|| ThreadPool::new(1));

    within(LONG, "static pool", || {
        let first = multi_thread();
        let id = || Handle::try_current().ok().map(|handle| handle.id());
        first.block_on(async { POOL.submit(|| ()).await }).unwrap();
        let first_id = first.handle().id();
        drop(first);

        multi_thread().block_on(async {
            assert_eq!(POOL.submit(id).await.unwrap(), Some(first_id));
            // What a job spawns in the runtime that is gone never runs.
            let spawned = POOL.submit(|| tokio::spawn(async {})).await.unwrap();
            assert!(spawned.await.unwrap_err().is_cancelled());

            // What helps: the job brings the handle of its submitter's runtime.
            let runtime = Handle::current();
            let spawned = POOL
                .submit(move || runtime.spawn(async { 5 }))
                .await
                .unwrap();
            assert_eq!(spawned.await.unwrap(), 5);
            // The process-wide pool captures no runtime.
            assert_eq!(futurepool::submit(id).await.unwrap(), None);
        });
    });
}
