//! Worker processes in the console.

use std::thread;
use std::time::Duration;

use futurepool::{ProcessPool, task};
use serde_json::Value;

use crate::client::{pool, served, wait_for};
use crate::common::eventually;

#[task]
fn nap(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

#[task]
fn fail() {
    panic!("no thumbnail");
}

#[task]
fn abort() {
    std::process::abort();
}

fn processes(all: &Value, pid: u64) -> Option<Value> {
    let pools = all["pools"].as_array()?.iter();
    let mut all = pools.flat_map(|pool| pool["processes"].as_array().unwrap());
    all.find(|process| process["pid"] == pid).cloned()
}

#[test]
fn processes_are_shown_and_so_are_their_kills_panics_and_crashes() {
    let console = served();
    let pool = ProcessPool::builder().max_workers(1).build().unwrap();
    let running = pool.submit(nap::call(60_000).label("long"));
    eventually("the task runs", || {
        pool.workers().iter().any(|worker| worker.task.is_some())
    });
    let pid = u64::from(pool.workers()[0].pid);
    let process = wait_for(&console, "the process is shown", |all| {
        processes(all, pid).filter(|process| process["state"] == "running")
    });
    assert!(process["task"].as_str().unwrap().ends_with("nap"));
    assert_eq!(process["label"], "long");
    assert!(process["age_us"].is_u64());
    if cfg!(target_os = "linux") {
        assert!(process["memory"].as_u64() > Some(0), "{process}");
    }

    let incident = |kind: &'static str, text: &'static str| {
        wait_for(&console, text, move |all| {
            let incidents = all["incidents"].as_array().unwrap().clone();
            let has = |one: &Value| one["message"].as_str().unwrap().contains(text);
            incidents
                .into_iter()
                .find(|one| one["kind"] == kind && has(one))
        })
    };
    assert!(running.cancel());
    let kill = incident("kill", "its job was cancelled");
    assert_eq!(kill["pid"], pid);
    assert!(kill["what"].as_str().unwrap().ends_with("nap"));
    eventually("the process is gone", || {
        processes(&crate::client::snapshot(&console), pid).is_none()
    });

    let limit = Duration::from_millis(50);
    let late = pool.submit(nap::call(60_000).time_limit(limit));
    assert!(late.join().unwrap_err().is_time_limit());
    incident("kill", "time limit");
    // Jobs are known by their task.
    wait_for(&console, "the lane has the name of the task", |all| {
        let whats = all["whats"].as_array()?;
        let labels = whats.iter().map(|what| what["label"].as_str());
        labels
            .flatten()
            .find(|label| label.ends_with("::nap"))
            .map(drop)
    });

    assert!(pool.submit(fail::call()).join().unwrap_err().is_panic());
    let panic = incident("panic", "no thumbnail");
    assert!(
        panic["place"].as_str().unwrap().contains("processes.rs:"),
        "{panic}"
    );
    assert!(panic["pid"].is_u64());

    assert!(pool.submit(abort::call()).join().unwrap_err().is_crashed());
    incident("crash", "during a job");
}

#[test]
fn a_pool_of_processes_has_the_name_that_it_was_given() {
    let console = served();
    let builder = ProcessPool::builder().max_workers(1);
    let own = builder.name("thumbnails").build().unwrap();
    own.submit(nap::call(0)).join().unwrap();
    let shown = wait_for(&console, "the pool is shown with its worker", |all| {
        let pool = pool(all, "thumbnails")?;
        (!pool["lanes"].as_array()?.is_empty()).then_some(pool)
    });
    assert_eq!(shown["kind"], "processes");
    assert_eq!(shown["lanes"][0]["name"], "thumbnails-0");
    // What goes wrong in it, too.
    assert!(own.submit(abort::call()).join().unwrap_err().is_crashed());
    wait_for(&console, "the crash is shown", |all| {
        let incidents = all["incidents"].as_array()?.iter();
        let mut crashes = incidents.filter(|one| one["kind"] == "crash");
        crashes
            .find(|one| one["pool_name"] == "thumbnails")
            .map(drop)
    });
}
