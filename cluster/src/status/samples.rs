//! Snapshots written by hand, for the tests of what shows them.

use crate::status::snapshot::{
    ConnectionView, Life, Point, QueueView, Rates, RunView, SettingsView, Snapshot, StoreView,
    SubmitterView, TaskView, Totals, WorkerView,
};

/// Names and labels as an attacker would choose them.
pub(crate) const HOSTILE: &str =
    "</script><img src=x onerror=\"window.pwned=1\">'\"\\&\n\r\x1b[2J\u{202e}\u{9b}31m";

fn task(name: &str, version: u32) -> TaskView {
    TaskView {
        name: name.to_owned(),
        version,
    }
}

fn run(task: &str, label: Option<&str>, job: &str, for_ms: u64) -> RunView {
    RunView {
        job: job.to_owned(),
        task: task.to_owned(),
        label: label.map(str::to_owned),
        for_ms,
    }
}

fn worker(host: &str, pid: u32, slots: usize, running: Vec<RunView>, done: u64) -> WorkerView {
    WorkerView {
        id: format!("{host}-{pid}-x7k2p9"),
        name: format!("{host}/{pid}"),
        life: Life::Alive,
        silent_ms: 1_200,
        state: "running".to_owned(),
        problem: None,
        console: None,
        queue: "default".to_owned(),
        tasks: vec![task("img.thumbnail", 1), task("files.checksum", 2)],
        slots,
        busy: running.len(),
        held: running.len(),
        running,
        totals: Totals {
            done,
            failed: 12,
            lost: 0,
            retried: 3,
        },
    }
}

fn store(name: &str, messages: u64, bytes: u64, limit: Option<u64>) -> StoreView {
    StoreView {
        name: name.to_owned(),
        messages,
        bytes,
        limit,
    }
}

/// Nothing happens.
pub(crate) fn idle() -> Snapshot {
    Snapshot {
        format: Snapshot::FORMAT,
        namespace: "shop".to_owned(),
        server: "nats://nats-1:4222,nats://nats-2:4222".to_owned(),
        connection: ConnectionView {
            connected: true,
            error: None,
            connections: 1,
        },
        age_ms: Some(300),
        exact_ages: true,
        settings: Some(SettingsView {
            lease_ms: 30_000,
            replicas: 3,
            queue_bytes: 1 << 30,
        }),
        workers: vec![
            worker("build-6", 4711, 4, Vec::new(), 48_211),
            worker("build-7", 812, 8, Vec::new(), 51_023),
        ],
        submitters: vec![SubmitterView {
            id: "q8Zk3LmN0pRsTuVw".to_owned(),
            name: "web-1/301".to_owned(),
            life: Life::Alive,
            silent_ms: 900,
            pending: 0,
            window: 10_000,
            submitted: 99_246,
            lost: 0,
        }],
        queues: vec![
            queue("default", "img.thumbnail", 1, 0, 0, None, 2),
            queue("default", "files.checksum", 2, 0, 0, None, 2),
        ],
        rates: Rates {
            submitted: Some(0.0),
            ended: Some(0.0),
            done: Some(0.0),
            failed: Some(0.0),
            lost: Some(0.0),
            retried: Some(0.0),
        },
        totals: Totals {
            done: 99_234,
            failed: 24,
            lost: 0,
            retried: 6,
        },
        stores: vec![
            store("blobs", 0, 0, None),
            store("claims", 0, 0, None),
            store("jobs", 0, 0, Some(1 << 30)),
            store("kept", 14, 6_300, None),
            store("live", 3, 1_900, None),
            store("results", 0, 0, None),
        ],
        detached: Some(14),
        ..Snapshot::default()
    }
}

fn queue(
    queue: &str,
    task: &str,
    version: u32,
    waiting: u64,
    delivered: u64,
    oldest_ms: Option<u64>,
    workers: usize,
) -> QueueView {
    QueueView {
        queue: queue.to_owned(),
        task: task.to_owned(),
        version,
        waiting,
        delivered,
        oldest_ms,
        pulls: workers as u64,
        workers,
    }
}

/// Workers run jobs; one drains, one is broken, one was killed; a queue has no worker.
pub(crate) fn busy() -> Snapshot {
    let mut snapshot = idle();
    let full = (0..4)
        .map(|slot| {
            let label = format!("order-{}", 4_700 + slot);
            let job = format!("q8Zk3LmN0pRsTuVw-2d{slot}");
            run("img.thumbnail", Some(&label), &job, 340 + 1_300 * slot)
        })
        .collect();
    let some = vec![
        run("files.checksum", None, "q8Zk3LmN0pRsTuVw-2a1", 754_000),
        run(
            "img.thumbnail",
            Some("order-4712"),
            "q8Zk3LmN0pRsTuVw-2e0",
            80,
        ),
        run(
            "img.thumbnail",
            Some("Überweisung 日本"),
            "q8Zk3LmN0pRsTuVw-2e3",
            2_100,
        ),
    ];
    let mut draining = worker(
        "build-8",
        95,
        2,
        vec![run(
            "files.checksum",
            Some("nightly"),
            "q8Zk3LmN0pRsTuVw-1f7",
            48_000,
        )],
        7_104,
    );
    draining.state = "draining".to_owned();
    let mut broken = worker("gpu-1", 77, 1, Vec::new(), 0);
    broken.state = "broken".to_owned();
    broken.held = 0;
    broken.problem = Some("5 jobs in a row failed to start: no space left on device".to_owned());
    let mut dead = worker("build-9", 3310, 4, Vec::new(), 40_112);
    dead.life = Life::Dead;
    dead.silent_ms = 43_000;
    dead.held = 0;
    dead.totals.lost = 2;
    let mut silent = worker(
        "build-5",
        202,
        2,
        vec![run("img.thumbnail", None, "q8Zk3LmN0pRsTuVw-2e9", 13_000)],
        21_999,
    );
    silent.life = Life::Silent;
    silent.silent_ms = 12_400;
    silent.console = Some("http://10.0.0.7:6670/".to_owned());
    snapshot.workers = vec![
        silent,
        worker("build-6", 4711, 4, full, 48_211),
        worker("build-7", 812, 8, some, 51_023),
        draining,
        broken,
        dead,
    ];
    snapshot.submitters[0].pending = 1_311;
    snapshot.submitters.push(SubmitterView {
        id: "aaaaBBBBccccDDDD".to_owned(),
        name: "cron-2/9001".to_owned(),
        life: Life::Silent,
        silent_ms: 11_000,
        pending: 40,
        window: 1_000,
        submitted: 40,
        lost: 2,
    });
    snapshot.queues = vec![
        queue("default", "img.thumbnail", 1, 1_204, 7, Some(3_400), 2),
        queue("default", "files.checksum", 2, 0, 2, Some(754_000), 3),
        queue("default", "report.monthly", 1, 17, 0, Some(7_500_000), 0),
    ];
    snapshot.jobs_without_consumer = 3;
    snapshot.rates = Rates {
        submitted: Some(812.0),
        ended: Some(640.3),
        done: Some(638.1),
        failed: Some(0.2),
        lost: Some(0.4),
        retried: Some(0.0),
    };
    snapshot.totals = Totals {
        done: 168_649,
        failed: 72,
        lost: 2,
        retried: 18,
    };
    snapshot.stores[1] = store("claims", 9, 1_700, None);
    snapshot.stores[2] = store("jobs", 1_233, 734_003_200, Some(1 << 30));
    snapshot.stores[5] = store("results", 31, 14_200, None);
    snapshot
}

/// The server has been gone for a while.
pub(crate) fn unreachable() -> Snapshot {
    let mut snapshot = busy();
    snapshot.connection.connected = false;
    snapshot.connection.error = Some("connection refused".to_owned());
    snapshot.age_ms = Some(65_000);
    snapshot
}

/// Everything that the cluster can choose is hostile.
pub(crate) fn hostile() -> Snapshot {
    let mut snapshot = busy();
    let text = HOSTILE.to_owned();
    for worker in &mut snapshot.workers {
        worker.name.clone_from(&text);
        worker.queue.clone_from(&text);
        worker.problem = Some(text.clone());
        worker.console = Some(format!("javascript:window.pwned=4//{text}"));
        worker.tasks[0].name.clone_from(&text);
        for run in &mut worker.running {
            run.task.clone_from(&text);
            run.job.clone_from(&text);
            run.label = Some(text.clone());
        }
    }
    // The id tells workers apart, so each has its own.
    for (index, worker) in snapshot.workers.iter_mut().enumerate() {
        worker.id = format!("{text}{index}");
    }
    snapshot.workers[1].state.clone_from(&text);
    for submitter in &mut snapshot.submitters {
        submitter.name.clone_from(&text);
    }
    snapshot.queues.truncate(1);
    snapshot.queues[0].queue.clone_from(&text);
    snapshot.queues[0].task.clone_from(&text);
    snapshot.problems = vec![text.clone()];
    snapshot.namespace.clone_from(&text);
    snapshot.server.clone_from(&text);
    snapshot.connection.error = Some(text);
    snapshot
}

/// Points of a graph: a wave, a burst, and two moments with lost jobs.
pub(crate) fn history() -> Vec<Point> {
    let point = |second: u64| {
        let wave = (second as f64 / 20.0).sin() * 150.0;
        let burst = if (170..200).contains(&second) {
            500.0
        } else {
            0.0
        };
        Point {
            ago_ms: (300 - second) * 1_000,
            submitted: 600.0 + wave + burst,
            ended: 580.0 + wave * 0.8 + (second % 7) as f64 * 6.0,
            lost: if second == 120 || second == 240 {
                2.0
            } else {
                0.0
            },
            queued: 200 + second * 4,
        }
    };
    (0..300).map(point).collect()
}
