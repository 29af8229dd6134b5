//! Three servers that keep each message three times.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::server::{TestServer, free_port};

/// A group of servers. All are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct TestGroup {
    pub(crate) servers: Vec<TestServer>,
}

impl TestGroup {
    /// Starts three servers and waits until they have chosen a leader.
    pub(crate) fn start() -> Self {
        'attempt: for _ in 0..10 {
            let ports: Vec<u16> = (0..6).map(|_| free_port()).collect();
            let (clients, routes) = ports.split_at(3);
            let all: Vec<_> = routes
                .iter()
                .map(|port| format!("\"nats://127.0.0.1:{port}\""))
                .collect();
            let mut group = Self {
                servers: Vec::new(),
            };
            for (client, route) in clients.iter().zip(routes) {
                let lines = format!(
                    "cluster {{ name: tests, listen: \"127.0.0.1:{route}\", routes: [{}] }}",
                    all.join(", ")
                );
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *client));
                let mut server = TestServer::prepare(address, &lines);
                server.launch();
                group.servers.push(server);
            }
            for server in &mut group.servers {
                if !server.wait_until_ready() {
                    continue 'attempt;
                }
            }
            group.wait_for_leader();
            return group;
        }
        panic!("three servers found no free ports");
    }

    /// Waits until the running servers have a leader of the group.
    pub(crate) fn wait_for_leader(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            let led = |server: &TestServer| server.last_log().contains("JetStream cluster new");
            if self.servers.iter().any(led) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!(
            "the servers choose no leader: {}",
            self.servers[0].last_log()
        );
    }

    /// Returns the addresses of all servers.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(TestServer::url).collect()
    }
}
