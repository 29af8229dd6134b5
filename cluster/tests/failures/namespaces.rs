//! Partitions by the system's own network: packets vanish, as on a cut wire.

use std::fs;
use std::net::Ipv4Addr;
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use crate::common::TestServer;
use crate::outcomes::{self, Kind, collect};
use crate::programs::{Plan, Program};
use crate::space::{Space, eventually};
use crate::tasks::{What, again, once};

/// A network namespace, and a wire to it. Both are removed when it is dropped.
#[derive(Debug)]
struct Wire {
    name: String,
    here: Ipv4Addr,
}

impl Wire {
    /// `None`: this process may not.
    fn new() -> Option<Self> {
        let number = process::id() % 200;
        let name = format!("fp{}", process::id());
        let here = Ipv4Addr::new(10, 213, number as u8, 1);
        let there = Ipv4Addr::new(10, 213, number as u8, 2);
        if !ip(&format!("netns add {name}")) {
            return None;
        }
        let wire = Self { name, here };
        let name = &wire.name;
        let made = ip(&format!(
            "link add {name}a type veth peer name {name}b netns {name}"
        )) && ip(&format!("addr add {here}/24 dev {name}a"))
            && ip(&format!("link set {name}a up"))
            && ip(&format!("-n {name} addr add {there}/24 dev {name}b"))
            && ip(&format!("-n {name} link set {name}b up"))
            && ip(&format!("-n {name} link set lo up"));
        made.then_some(wire)
    }

    fn cut(&self) {
        assert!(ip(&format!("link set {}a down", self.name)));
    }

    fn heal(&self) {
        assert!(ip(&format!("link set {}a up", self.name)));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The wire ends with one of its ends.
        ip(&format!("link del {}a", self.name));
        ip(&format!("netns del {}", self.name));
    }
}

fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
#[ignore = "needs root"]
fn c1_c2_c4_a_wire_to_a_worker_is_cut() {
    let Some(wire) = Wire::new() else {
        println!("skipped: it needs root and `ip netns`");
        return;
    };
    let server = TestServer::listening(wire.here, "");
    let mut space = Space::new(server.url(), "wired", Duration::from_secs(3));
    space.place.insecure = true;
    let by = ["ip", "netns", "exec", &wire.name];
    let parted = Program::begin(&Plan::Worker(space.plan(2)), &space.judge(), &by);
    parted.line("ready");
    let cluster = space.cluster().build().unwrap();
    let gate = space.gate("gate");
    let first = cluster.submit(once::call(0, What::Gate(gate.clone())));
    let second = cluster.submit(again::call(1, What::Gate(gate.clone())));
    eventually("both run", || space.judge().starts() == 2);
    wire.cut();
    let other = space.worker(2);
    let lost = outcomes::outcome(first, 0);
    assert_eq!(lost.kind, Kind::Lost, "{lost:?}");
    eventually("it runs elsewhere", || space.judge().runs_of(1).len() == 2);
    // Both end on the other side, too, where nothing can be heard of it.
    fs::write(gate, "").unwrap();
    let second = outcomes::outcome(second, 1);
    assert!(second.is_ok(), "{second:?}");
    thread::sleep(Duration::from_secs(10));
    wire.heal();
    other.drain();
    let handles = (2..6).map(|job| (job, cluster.submit(once::call(job, What::Nothing))));
    let more = collect(handles.collect(), Duration::from_secs(120));
    outcomes::all_ok(&more);
    parted.drain();
    space.judge().check_once(&[vec![lost], more].concat());
    space.judge().check(&[second]);
    space.wait_until_empty();
}
