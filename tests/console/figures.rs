//! What the console says of pools.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futurepool::{StatefulPool, ThreadPool};
use serde_json::{Value, json};

use crate::client::{ask, pool, served, snapshot, wait_for};
use crate::common::{block_workers, bounded_pool, eventually};

fn named(name: &str, workers: usize) -> ThreadPool {
    let builder = ThreadPool::builder().max_workers(workers);
    builder.thread_name_prefix(name).build().unwrap()
}

#[test]
fn a_pool_appears_when_it_is_built_and_vanishes_when_it_is_dropped() {
    let console = served();
    assert!(pool(&snapshot(&console), "comes-and-goes").is_none());
    let own = named("comes-and-goes", 3);
    let shown = wait_for(&console, "the pool is shown", |all| {
        pool(all, "comes-and-goes")
    });
    assert_eq!(shown["max_workers"], 3);
    assert_eq!(
        (&shown["kind"], &shown["state"]),
        (&json!("threads"), &json!("open"))
    );
    assert_eq!(
        (&shown["workers"], &shown["lanes"]),
        (&json!(0), &json!([]))
    );
    // A handle that outlives its pool does not keep it here.
    let handle = own.submit(|| 7);
    own.shutdown().join();
    wait_for(&console, "it is shut down", |all| {
        pool(all, "comes-and-goes").filter(|pool| pool["state"] == "shut down")
    });
    drop(own);
    eventually("the pool is gone", || {
        pool(&snapshot(&console), "comes-and-goes").is_none()
    });
    assert_eq!(handle.join().unwrap(), 7);
}

#[test]
fn a_stateful_pool_says_so() {
    let console = served();
    let own = StatefulPool::builder_with(|| 7)
        .max_workers(1)
        .thread_name_prefix("states")
        .build()
        .unwrap();
    assert_eq!(own.submit(|state: &mut i32| *state).join().unwrap(), 7);
    let shown = wait_for(&console, "the pool is shown", |all| {
        pool(all, "states").filter(|pool| pool["totals"]["completed"] == 1)
    });
    assert_eq!(shown["kind"], "stateful");
}

/// Elsewhere the CPU time of the whole process counts, and other tests compute.
#[cfg(target_os = "linux")]
#[test]
fn a_pool_that_sizes_itself_shows_what_it_decided_and_why() {
    use std::time::Instant;

    use crate::common::Gate;

    let console = served();
    let fixed = named("fixed", 3);
    let processors = thread::available_parallelism().unwrap().get();
    let builder = ThreadPool::builder().thread_name_prefix("sized");
    let own = builder.auto_size(1..=8 * processors).build().unwrap();
    let shown = wait_for(&console, "the pool is shown, and gets older", |all| {
        pool(all, "sized").filter(|pool| pool["auto_size"]["ago_us"].as_u64() > Some(500_000))
    });
    let size = &shown["auto_size"];
    assert_eq!(
        (&size["min"], &size["max"]),
        (&json!(1), &json!(8 * processors))
    );
    assert_eq!(
        (&size["changes"], &size["processors"]),
        (&json!(0), &json!(processors))
    );
    assert_eq!(size["reason"], "as many workers as processors");
    assert_eq!(shown["max_workers"], processors);

    // Jobs that wait.
    let submitted = Instant::now();
    let gate = Gate::new();
    let jobs: Vec<_> = (0..8 * processors)
        .map(|_| {
            let gate = gate.clone();
            own.submit(move || gate.wait())
        })
        .collect();
    let grown = wait_for(&console, "it has grown", |all| {
        pool(all, "sized").filter(|pool| pool["auto_size"]["changes"].as_u64() > Some(0))
    });
    let size = &grown["auto_size"];
    let limit = grown["max_workers"].as_u64().unwrap();
    assert!(limit > processors as u64, "{grown}");
    assert_eq!(size["reason"], "the jobs wait and leave processors free");
    // It counts from the change, and not from the start of the pool.
    let age = Duration::from_micros(size["ago_us"].as_u64().unwrap());
    assert!(age < submitted.elapsed(), "{grown}");
    // Both sizes are in the timeline.
    let points = grown["points"].as_array().unwrap();
    let has = |workers: u64| points.iter().any(|point| point[6] == workers);
    assert!(has(processors as u64) && has(limit), "{points:?}");
    gate.open();
    for job in jobs {
        job.join().unwrap();
    }
    // A pool of a fixed size has decided nothing.
    let shown = pool(&snapshot(&console), "fixed").unwrap();
    assert_eq!(
        (&shown["auto_size"], &shown["max_workers"]),
        (&Value::Null, &json!(3))
    );
    drop(fixed);
}

#[test]
fn a_pool_whose_queue_still_runs_is_shown_after_its_drop() {
    let console = served();
    let own = named("still-runs", 1);
    let (go, wait) = mpsc::channel::<()>();
    let handle = own.submit(move || wait.recv());
    eventually("the job runs", || handle.is_running());
    // Given up, so the drop does not wait.
    assert!(own.shutdown().join_timeout(Duration::ZERO).is_err());
    drop(own);
    thread::sleep(Duration::from_millis(300));
    assert!(pool(&snapshot(&console), "still-runs").is_some());
    go.send(()).unwrap();
    eventually("the pool is gone", || {
        pool(&snapshot(&console), "still-runs").is_none()
    });
}

#[test]
fn a_lane_shows_what_a_worker_runs_and_since_when() {
    let console = served();
    let own = named("lanes", 2);
    let (go, wait) = mpsc::channel::<()>();
    // It runs before the console looks: it can only say how old it is at least.
    let first = own.submit(move || wait.recv());
    eventually("the job runs", || first.is_running());
    let (what, age) = wait_for(&console, "the job is shown", |all| {
        let pool = pool(all, "lanes")?;
        let lane = pool["lanes"]
            .as_array()?
            .iter()
            .find(|lane| lane["state"] == "running")?;
        let what = all["whats"][lane["what"].as_u64()? as usize].clone();
        Some((what, lane["age"].clone()))
    });
    assert_eq!(what["label"], Value::Null);
    let place = what["place"].as_str().unwrap();
    assert!(place.contains("figures.rs:"), "{place}");
    assert!(age["us"].is_u64());

    let (go_second, wait_second) = mpsc::channel::<()>();
    let second = own.job(move || wait_second.recv()).label("second").submit();
    eventually("the job runs", || second.is_running());
    let age = wait_for(&console, "the label is shown", |all| {
        let pool = pool(all, "lanes")?;
        let mut lanes = pool["lanes"].as_array()?.iter();
        let is_second = |lane: &&Value| {
            let what = lane["what"]
                .as_u64()
                .map(|what| &all["whats"][what as usize]["label"]);
            what == Some(&json!("second"))
        };
        lanes.find(is_second).map(|lane| lane["age"].clone())
    });
    // It started while the console looked, so its start is known.
    assert_eq!(age["at_least"], false);
    let later = wait_for(&console, "it gets older", |all| {
        let pool = pool(all, "lanes")?;
        let ages = pool["lanes"]
            .as_array()?
            .iter()
            .map(|lane| lane["age"]["us"].as_u64());
        ages.flatten().min().filter(|us| *us > 300_000)
    });
    assert!(later > age["us"].as_u64().unwrap());
    for (go, job) in [(go, first), (go_second, second)] {
        go.send(()).unwrap();
        job.join().unwrap().unwrap();
    }
    wait_for(&console, "the bar of the job", |all| {
        let pool = pool(all, "lanes")?;
        let bars = pool["bars"].as_array()?;
        // Lane, from, to, what, count, busy, flag.
        let long = bars
            .iter()
            .find(|bar| bar[2].as_u64().unwrap() - bar[1].as_u64().unwrap() > 300_000);
        long.map(|bar| assert_eq!(bar[4], 1))
    });
}

#[test]
fn the_queue_has_a_depth_and_an_age() {
    let console = served();
    let own = named("aged", 1);
    wait_for(&console, "the pool is shown", |all| pool(all, "aged"));
    let blocked = block_workers(&own, 1);
    let queued: Vec<_> = (0..5).map(|_| own.submit(|| ())).collect();
    let oldest = wait_for(&console, "the queue gets older", |all| {
        let pool = pool(all, "aged").filter(|pool| pool["queued"] == 5)?;
        let us = pool["oldest"]["us"].as_u64().filter(|us| *us > 600_000)?;
        Some((
            us,
            pool["oldest"]["at_least"].clone(),
            pool["points"].clone(),
        ))
    });
    // They were submitted while the console looked.
    assert_eq!(oldest.1, false);
    let points = oldest.2.as_array().unwrap();
    assert!(points.iter().any(|point| point[4] == 5), "{points:?}");
    blocked.release();
    for job in queued {
        job.join().unwrap();
    }
    wait_for(&console, "the queue is empty", |all| {
        pool(all, "aged").filter(|pool| pool["queued"] == 0 && pool["oldest"] == Value::Null)
    });
}

#[test]
fn jobs_that_expired_are_counted() {
    let console = served();
    let own = named("stale", 1);
    let blocked = block_workers(&own, 1);
    let late = own.job(|| ()).expires_in(Duration::ZERO).submit();
    assert!(late.join().unwrap_err().is_expired());
    let totals = wait_for(&console, "the job is counted", |all| {
        let totals = pool(all, "stale")?["totals"].clone();
        (totals["submitted"] == 2).then_some(totals)
    });
    assert_eq!(
        (&totals["expired"], &totals["cancelled"]),
        (&json!(1), &json!(1))
    );
    blocked.release();
}

#[test]
fn rates_quantiles_and_where_the_time_goes() {
    let console = served();
    let own = named("measured", 2);
    wait_for(&console, "the pool is shown", |all| pool(all, "measured"));
    let load = || {
        for _ in 0..20 {
            let slow = own
                .job(|| thread::sleep(Duration::from_millis(20)))
                .label("slow")
                .submit();
            let quick = own.submit(|| ());
            let _ = (slow.join(), quick.join());
        }
    };
    let shown = wait_for(&console, "it is measured", |all| {
        load();
        let pool = pool(all, "measured")?;
        (pool["jobs"].as_array()?.len() == 2 && pool["rates"]["finished"].as_f64()? > 0.0)
            .then(|| (pool, all["whats"].clone()))
    });
    let (pool, whats) = shown;
    let rows = pool["jobs"].as_array().unwrap();
    let slow = &rows[0];
    assert_eq!(
        whats[slow["what"].as_u64().unwrap() as usize]["label"],
        "slow"
    );
    assert!(slow["share"].as_f64().unwrap() > 0.8, "{rows:?}");
    let p50 = slow["run_time"]["p50_us"].as_f64().unwrap();
    assert!(p50 >= 20_000.0, "{slow}");
    assert!(slow["run_time"]["p99_us"].as_f64().unwrap() >= p50);
    // The second job of each pair waited for the first. The wait of each is known.
    let of = |part: &Value| part["of"].as_u64().unwrap_or(0);
    assert!(
        of(&pool["queue_wait"]) > 10 && of(&pool["run_time"]) > 10,
        "{pool}"
    );
    assert!(pool["run_time"]["p99_us"].as_f64().unwrap() >= 20_000.0);
    assert!(pool["totals"]["completed"].as_u64().unwrap() >= 10);
}

#[test]
fn panics_are_shown_with_message_place_and_label_and_alike_ones_once() {
    let console = served();
    let own = named("panicking", 1);
    for _ in 0..3 {
        let job = own
            .job(|| panic!("the disk\u{1b} is <b>full</b>"))
            .label("store")
            .submit();
        assert!(job.join().unwrap_err().is_panic());
    }
    let items: Vec<_> = own
        .map(0..2, |item| assert!(item == 0, "item {item}"))
        .into_iter()
        .collect();
    assert!(items[1].is_err());
    let of = |all: &Value, text: &str| {
        let mut all = all["incidents"].as_array().unwrap().clone().into_iter();
        all.find(|one| one["message"].as_str().unwrap().contains(text))
    };
    let incident = wait_for(&console, "the panic is shown", |all| of(all, "the disk"));
    assert_eq!(incident["kind"], "panic");
    assert_eq!(incident["times"], 3);
    assert_eq!(incident["what"], "store");
    assert_eq!(incident["pool_name"], "panicking");
    assert_eq!(incident["worker"], "panicking-0");
    assert!(incident["place"].as_str().unwrap().contains("figures.rs:"));
    assert!(of(&snapshot(&console), "item 1").is_some());
    let shown = pool(&snapshot(&console), "panicking").unwrap();
    assert!(shown["totals"]["panicked"].as_u64() >= Some(3), "{shown}");
}

#[test]
fn a_pool_that_breaks_is_shown_as_broken() {
    let console = served();
    let own = ThreadPool::builder()
        .thread_name_prefix("breaks")
        .initializer(|| Err::<(), _>("no database"))
        .build()
        .unwrap();
    assert!(own.submit(|| ()).join().unwrap_err().is_broken());
    let all = wait_for(&console, "the pool is broken", |all| {
        pool(all, "breaks")
            .filter(|pool| pool["state"] == "broken")
            .map(|_| all.clone())
    });
    let text = all["incidents"].to_string();
    assert!(text.contains("no database"), "{text}");
}

#[test]
fn refusals_are_counted_and_have_a_rate() {
    let console = served();
    let own = bounded_pool(1, 1);
    let blocked = block_workers(&own, 1);
    let _queued = own.try_submit(|| ()).unwrap();
    let is_own = |all: &Value| {
        let pools = all["pools"].as_array().unwrap().clone();
        pools
            .into_iter()
            .find(|pool| pool["totals"]["rejected"].as_u64() >= Some(5))
    };
    let shown = wait_for(&console, "the refusals are shown", |all| {
        for _ in 0..5 {
            assert!(own.try_submit(|| ()).unwrap_err().is_full());
        }
        is_own(all).filter(|pool| pool["rates"]["rejected"].as_f64() > Some(0.0))
    });
    assert_eq!(
        (&shown["capacity"], &shown["queued"]),
        (&json!(1), &json!(1))
    );
    blocked.release();
}

#[test]
fn the_timeline_comes_in_parts() {
    let console = served();
    let own = named("parts", 1);
    let run = || {
        own.submit(|| thread::sleep(Duration::from_millis(30)))
            .join()
            .unwrap()
    };
    let bars =
        |all: &Value| pool(all, "parts").map_or(0, |pool| pool["bars"].as_array().unwrap().len());
    let first = wait_for(&console, "there are bars", |all| {
        run();
        (bars(all) >= 3).then(|| all.clone())
    });
    // What was sent is not sent again.
    let (epoch, tick) = (&first["epoch"], first["tick"].as_u64().unwrap());
    let next = ask(
        &console,
        &format!("/snapshot.json?epoch={epoch}&after={tick}"),
    );
    assert!(bars(&next) <= 4, "{next}");
    // Of another epoch, all is sent. Without a place, nothing.
    let all = ask(&console, &format!("/snapshot.json?epoch=1&after={tick}"));
    assert!(bars(&all) >= 3, "{first}\n{all}");
    assert_eq!(bars(&ask(&console, "/snapshot.json")), 0);
}

#[test]
fn a_burst_of_short_jobs_shares_a_bar() {
    let console = served();
    let own = named("burst", 1);
    wait_for(&console, "the burst is shown", |all| {
        let jobs: Vec<_> = (0..5000).map(|_| own.submit(|| ())).collect();
        jobs.into_iter().for_each(|job| job.join().unwrap());
        let pool = pool(all, "burst")?;
        let bars = pool["bars"].as_array()?;
        bars.iter()
            .find(|bar| bar[4].as_u64() > Some(1000))
            .map(|_| ())
    });
    // All of them are counted, although few are measured.
    let shown = pool(&snapshot(&console), "burst").unwrap();
    assert!(shown["run_time"]["of"].as_u64().unwrap() < 9000);
    let lane = &shown["lanes"][0];
    assert_eq!(lane["name"], "burst-0");
}
