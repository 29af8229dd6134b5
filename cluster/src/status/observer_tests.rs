use std::future::Future;

use bytes::Bytes;

use super::*;
use crate::broker::memory::Memory;
use crate::broker::memory::MemoryBroker;
use crate::broker::memory::faults::Params;
use crate::broker::{Consumer, Outgoing, Pulled, Puller};
use crate::protocol::live::{ClientValue, RunningValue, WorkerValue};

const SUBJECT: &str = "default.img=2Ethumb.2";
const LIMIT: Duration = Duration::from_secs(30);

struct World {
    server: MemoryBroker,
    broker: Memory,
    observer: Observer<Memory>,
}

impl World {
    /// A namespace with the consumer of one task.
    async fn new() -> Self {
        let server = MemoryBroker::new();
        let broker = server.connect("shop");
        broker
            .ensure_stores(&Settings::default(), true)
            .await
            .unwrap();
        broker
            .ensure_consumer(&Consumer::Jobs(SUBJECT.into()))
            .await
            .unwrap();
        let link = server.connect_with_faults("shop", "status", 1, Params::default(), true);
        let observer = Observer::new(link, "shop", "memory", None);
        Self {
            server,
            broker,
            observer,
        }
    }

    async fn publish(&self, subject: &str) -> u64 {
        let message = Outgoing {
            subject: subject.to_owned(),
            payload: Bytes::from_static(b"x"),
            ..Outgoing::default()
        };
        self.broker.publish(Store::Jobs, message).await.unwrap()
    }

    async fn says(&self, key: &str, value: &LiveValue) {
        let message = value.to_outgoing(key);
        self.broker.publish(Store::Live, message).await.unwrap();
    }

    /// Runs a test while the observer collects.
    async fn run<T>(&self, test: impl Future<Output = T>) -> T {
        tokio::select! {
            never = self.observer.run() => match never {},
            result = test => result,
        }
    }

    async fn complete(&self) -> Snapshot {
        assert!(self.observer.wait_complete(LIMIT).await);
        self.observer.snapshot()
    }

    /// Lets time pass while snapshots are asked for, as a page does.
    async fn pass(&self, seconds: u64) -> Snapshot {
        for _ in 0..seconds {
            self.observer.snapshot();
            sleep(Duration::from_secs(1)).await;
        }
        self.observer.snapshot()
    }
}

fn worker(done: u64) -> LiveValue {
    LiveValue {
        name: "build-7/12".to_owned(),
        worker: Some(WorkerValue {
            queue: "default".to_owned(),
            tasks: vec![("img.thumb".to_owned(), 2)],
            slots: 4,
            state: "running".to_owned(),
            held: 2,
            running: vec![RunningValue {
                job: "c-1".to_owned(),
                task: "img.thumb".to_owned(),
                label: Some("order-17".to_owned()),
                millis: 1_500,
            }],
            done,
            lost: done / 10,
            console: Some("http://10.0.0.7:6670/".to_owned()),
            ..WorkerValue::default()
        }),
        client: None,
    }
}

fn client() -> LiveValue {
    LiveValue {
        name: "web-1/3".to_owned(),
        worker: None,
        client: Some(ClientValue {
            pending: 3,
            window: 100,
            submitted: 40,
            lost: 0,
            disconnect_limit_ms: None,
        }),
    }
}

#[tokio::test(start_paused = true)]
async fn what_peers_and_stores_say_is_seen() {
    let world = World::new().await;
    world.says("w.a", &worker(7)).await;
    world.says("c.b", &client()).await;
    for _ in 0..3 {
        world.publish(SUBJECT).await;
    }
    world.publish("default.other.1").await;
    let mut puller = world.broker.puller().await.unwrap();
    let consumer = Consumer::Jobs(SUBJECT.into());
    puller.request(&consumer, 1, Duration::from_secs(60));
    assert!(matches!(puller.next().await, Pulled::Delivery(_)));
    sleep(Duration::from_secs(7)).await;
    world
        .run(async {
            world.complete().await;
            let seen = world.pass(1).await;
            assert!(seen.connection.connected && seen.exact_ages);
            assert_eq!(seen.problems, Vec::<String>::new());
            assert_eq!((seen.namespace.as_str(), seen.jobs()), ("shop", 4));
            let [worker] = &seen.workers[..] else {
                panic!("{seen:?}");
            };
            assert_eq!(
                (worker.id.as_str(), worker.name.as_str()),
                ("a", "build-7/12")
            );
            assert_eq!((worker.slots, worker.busy, worker.held), (4, 1, 2));
            assert_eq!(worker.running[0].label.as_deref(), Some("order-17"));
            assert_eq!(worker.console.as_deref(), Some("http://10.0.0.7:6670/"));
            // It has been running since the worker said so, too.
            assert!(worker.running[0].for_ms >= 8_500, "{worker:?}");
            assert_eq!(seen.submitters[0].pending, 3);
            let [queue] = &seen.queues[..] else {
                panic!("{seen:?}");
            };
            assert_eq!((queue.task.as_str(), queue.version), ("img.thumb", 2));
            assert_eq!((queue.waiting, queue.delivered, queue.workers), (2, 1, 1));
            let oldest = queue.oldest_ms.unwrap();
            assert!((7_000..9_500).contains(&oldest), "{oldest}");
            assert_eq!(seen.jobs_without_consumer, 1);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn rates_come_from_two_samples() {
    let world = World::new().await;
    world.says("w.a", &worker(100)).await;
    world
        .run(async {
            let seen = world.complete().await;
            assert_eq!(seen.rates.done, None);
            world.pass(4).await;
            let mut sent = Vec::new();
            for _ in 0..20 {
                sent.push(world.publish(SUBJECT).await);
            }
            for seq in sent.drain(..5) {
                assert!(world.broker.delete(Store::Jobs, seq).await.unwrap());
            }
            world.pass(3).await;
            // A point is the mean since the point before.
            let history = world.observer.history();
            let sum = |of: fn(&Point) -> f64| -> f64 {
                let pairs = history.iter().zip(&history[1..]);
                pairs
                    .map(|(a, b)| of(b) * (a.ago_ms - b.ago_ms) as f64 / 1e3)
                    .sum()
            };
            let (submitted, ended) = (sum(|p| p.submitted), sum(|p| p.ended));
            assert!((19.5..20.5).contains(&submitted), "{submitted} {history:?}");
            assert!((4.5..5.5).contains(&ended), "{ended} {history:?}");
            // Some 7 seconds after its first word, the worker has done 50 more.
            world.says("w.a", &worker(150)).await;
            let seen = world.pass(1).await;
            let done = seen.rates.done.unwrap();
            assert!((6.0..8.0).contains(&done), "{done}");
            assert!(seen.rates.lost.unwrap() > 0.5);
            assert_eq!(seen.totals.done, 150);
            // It says nothing more: its rate is not that of now.
            let seen = world.pass(15).await;
            assert_eq!(seen.rates.done, Some(0.0));
            let history = world.observer.history();
            let most = history
                .iter()
                .map(|point| point.submitted)
                .fold(0.0, f64::max);
            assert!(history.len() > 15 && most > 5.0, "{history:?}");
            assert!(history.is_sorted_by(|a, b| a.ago_ms > b.ago_ms));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_killed_is_silent_then_dead_and_stays_on_the_list() {
    let world = World::new().await;
    world.says("w.a", &worker(0)).await;
    world.says("w.z", &worker(0)).await;
    world.publish(SUBJECT).await;
    world
        .run(async {
            let seen = world.complete().await;
            assert_eq!(seen.workers[0].life, Life::Alive);
            let other = async {
                loop {
                    sleep(Duration::from_secs(5)).await;
                    world.says("w.z", &worker(0)).await;
                }
            };
            let watch = async {
                let seen = world.pass(12).await;
                assert_eq!(seen.workers[0].life, Life::Silent);
                // The server has forgotten its key, and the watch has worked all the time.
                let seen = world.pass(14).await;
                let [alive, dead] = &seen.workers[..] else {
                    panic!("{seen:?}");
                };
                // Those that can take jobs stand first.
                assert_eq!((alive.id.as_str(), alive.life), ("z", Life::Alive));
                assert_eq!((dead.id.as_str(), dead.life), ("a", Life::Dead));
                assert_eq!((dead.busy, dead.held), (0, 0));
                assert_eq!(seen.queues[0].workers, 1);
                assert_eq!(seen.slots(), (1, 4));
            };
            tokio::select! {
                () = other => {}
                () = watch => {}
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_says_goodbye_has_left() {
    let world = World::new().await;
    world.says("w.a", &worker(3)).await;
    world
        .run(async {
            world.complete().await;
            let farewell = LiveValue::farewell("w.a");
            world.broker.publish(Store::Live, farewell).await.unwrap();
            let seen = world.pass(1).await;
            assert_eq!(seen.workers[0].life, Life::Left);
            assert_eq!(seen.workers[0].name, "build-7/12");
            // It is forgotten after a while.
            let seen = world.pass(700).await;
            assert_eq!(seen.workers, []);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn without_the_server_the_picture_stays_and_its_age_grows() {
    let world = World::new().await;
    world.says("w.a", &worker(0)).await;
    world
        .run(async {
            let before = world.complete().await;
            assert!(!before.is_stale());
            world.observer.broker.cut(true);
            let seen = world.pass(40).await;
            assert!(!seen.connection.connected && seen.is_stale());
            assert!(seen.connection.error.is_some());
            assert!(seen.age_ms.unwrap() >= 39_000, "{:?}", seen.age_ms);
            // Nothing is concluded about peers that cannot be seen.
            assert_eq!(seen.workers[0].life, Life::Alive);
            assert!(seen.workers[0].silent_ms < 5_000);
            assert_eq!(seen.problems, Vec::<String>::new());
            world.observer.broker.heal();
            world.says("w.a", &worker(1)).await;
            let seen = world.pass(8).await;
            assert!(!seen.is_stale(), "{seen:?}");
            assert!(seen.age_ms.unwrap() < 3_000);
            assert_eq!(seen.workers[0].life, Life::Alive);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_stale_although_it_is_connected() {
    let world = World::new().await;
    world
        .run(async {
            world.complete().await;
            world.observer.broker.cut(false);
            let seen = world.pass(30).await;
            assert!(seen.connection.connected && seen.is_stale(), "{seen:?}");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_without_stores_is_told_and_found_once_it_is_made() {
    let server = MemoryBroker::new();
    let broker = server.connect("shop");
    let observer = Observer::new(server.connect("shop"), "shop", "memory", None);
    let test = async {
        assert!(!observer.wait_complete(LIMIT).await);
        let seen = observer.snapshot();
        assert!(
            seen.problems[0].contains("futurepool-cluster setup"),
            "{seen:?}"
        );
        assert!(seen.is_stale());
        broker
            .ensure_stores(&Settings::default(), true)
            .await
            .unwrap();
        sleep(Duration::from_secs(2)).await;
        assert!(observer.wait_complete(LIMIT).await);
        assert_eq!(observer.snapshot().problems, Vec::<String>::new());
    };
    tokio::select! {
        never = observer.run() => match never {},
        () = test => {}
    }
}

#[tokio::test(start_paused = true)]
async fn untrusted_values_are_bounded_and_never_break_the_observer() {
    let world = World::new().await;
    let raw = |key: &str, payload: &str| {
        let message = Outgoing {
            subject: key.to_owned(),
            payload: Bytes::from(payload.to_owned()),
            ..Outgoing::default()
        };
        world.broker.publish(Store::Live, message)
    };
    for (index, payload) in ["", "{", "[]", "{\"name\":1}", "null", "{\"name\":\"x\"}"]
        .iter()
        .enumerate()
    {
        raw(&format!("w.bad{index}"), payload).await.unwrap();
    }
    let mut large = worker(u64::MAX);
    let value = large.worker.as_mut().unwrap();
    value.slots = usize::MAX;
    value.held = usize::MAX;
    value.tasks = vec![("t".repeat(5_000), u32::MAX); 100];
    value.running = vec![
        RunningValue {
            label: Some("é".repeat(1_000)),
            millis: u64::MAX,
            ..RunningValue::default()
        };
        100
    ];
    large.name = "n".repeat(100_000);
    // Two of them, so that sums overflow.
    world.says("w.large1", &large).await;
    world.says("w.large2", &large).await;
    for peer in 0..MAX_PEERS + 10 {
        world.says(&format!("w.p{peer}"), &worker(0)).await;
    }
    world
        .run(async {
            let seen = world.complete().await;
            assert_eq!(seen.workers.len() + 6, MAX_PEERS);
            assert!(seen.problems.iter().any(|text| text.contains("more than")));
            let large = seen.workers.iter().find(|w| w.id == "large1").unwrap();
            assert_eq!(large.tasks.len(), MAX_TASKS);
            assert!(large.name.chars().count() <= 160);
            assert!(large.running[0].label.as_ref().unwrap().chars().count() <= 160);
            seen.slots();
            crate::status::terminal::render(&seen, crate::status::terminal::Style::Plain);
            crate::status::prometheus::render(&seen);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_the_observer_stays() {
    let world = World::new().await;
    world
        .run(async {
            world.complete().await;
            world.observer.farewell().await;
        })
        .await;
    let last = world
        .broker
        .last(Store::Live, &world.observer.key)
        .await
        .unwrap();
    assert!(last.is_none_or(|message| message.is_deletion()));
    let _ = &world.server;
}
