//! A network between a client and a server, which can be cut.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Forwards connections on the loopback interface. All end when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// New connections are refused, and there are none.
    cut: bool,
    /// Nothing moves to the server, or to the client. The connections stay.
    stalled: [bool; 2],
    /// What the server says is thrown away. The client's connection is useless afterwards.
    swallow: bool,
    delay: Duration,
    next_id: u64,
    connections: Vec<(u64, TcpStream, TcpStream)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer = 0,
    ToClient = 1,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Starts to forward to a server.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a free port");
        let shared = Arc::new(Shared {
            target,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections, and refuses new ones.
    pub(crate) fn cut(&self) {
        self.change(|state| state.cut = true);
        self.drop_connections();
    }

    /// Ends all connections. The client may connect again.
    pub(crate) fn drop_connections(&self) {
        let connections = std::mem::take(&mut self.shared.lock().connections);
        for (_, client, server) in connections {
            _ = client.shutdown(Shutdown::Both);
            _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Holds back all bytes, in both directions, without ending a connection.
    pub(crate) fn stall(&self) {
        self.change(|state| state.stalled = [true; 2]);
    }

    /// Holds back what the client says.
    pub(crate) fn stall_to_server(&self) {
        self.change(|state| state.stalled[Direction::ToServer as usize] = true);
    }

    /// Holds back what the server says.
    pub(crate) fn stall_to_client(&self) {
        self.change(|state| state.stalled[Direction::ToClient as usize] = true);
    }

    /// Throws away what the server says. What the client says arrives: so acknowledgements get
    /// lost. [`drop_connections`](Self::drop_connections) or [`cut`](Self::cut) must follow before
    /// the proxy is healed, because a connection with a gap is useless.
    pub(crate) fn swallow_answers(&self) {
        self.change(|state| state.swallow = true);
    }

    /// Holds each piece of data back for a time, in each direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Forwards again. What was held back goes on its way.
    pub(crate) fn heal(&self) {
        self.change(|state| {
            state.cut = false;
            state.stalled = [false; 2];
            state.swallow = false;
            state.delay = Duration::ZERO;
        });
    }

    /// Returns how many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|state| state.closed = true);
        self.drop_connections();
        // Wakes the thread that accepts.
        _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        {
            let state = shared.lock();
            if state.closed {
                return;
            }
            if state.cut {
                // Dropping it ends the connection.
                continue;
            }
        }
        let Ok(server) = TcpStream::connect_timeout(&shared.target, Duration::from_secs(5)) else {
            continue;
        };
        _ = client.set_nodelay(true);
        _ = server.set_nodelay(true);
        if forward(client, server, shared).is_err() {
            continue;
        }
    }
}

fn forward(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    let kept = (client.try_clone()?, server.try_clone()?);
    let id = {
        let mut state = shared.lock();
        if state.cut || state.closed {
            return Ok(());
        }
        state.next_id += 1;
        let id = state.next_id;
        state.connections.push((id, kept.0, kept.1));
        id
    };
    for (from, to, direction) in [
        (
            client.try_clone()?,
            server.try_clone()?,
            Direction::ToServer,
        ),
        (server, client, Direction::ToClient),
    ] {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            pump(&from, &to, direction, &shared);
            _ = from.shutdown(Shutdown::Both);
            _ = to.shutdown(Shutdown::Both);
            let mut state = shared.lock();
            state.connections.retain(|(other, ..)| *other != id);
        });
    }
    Ok(())
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, direction: Direction, shared: &Shared) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer) else {
            return;
        };
        let (swallow, delay) = {
            let mut state = shared.lock();
            while state.stalled[direction as usize] && !state.closed && !state.cut {
                let waited = shared.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed || state.cut {
                return;
            }
            let swallow = state.swallow && direction == Direction::ToClient;
            (swallow, state.delay)
        };
        if swallow {
            continue;
        }
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
