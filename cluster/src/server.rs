//! Where the server is, and how to log in to it.

use std::path::PathBuf;
use std::time::Duration;

use crate::broker::memory::MemoryBroker;
#[cfg(feature = "cli")]
use crate::broker::nats::options::without_secrets;
use crate::broker::nats::options::{Auth, NatsOptions};

/// Names a server, and how to log in to it.
///
/// [`Cluster::connect`](crate::Cluster::connect) and [`Worker::connect`](crate::Worker::connect)
/// take anything that becomes one: an address, or a [`MemoryBroker`].
///
/// An address is `nats://host:port`, or `tls://host:port`. Several servers of one cluster are
/// separated by commas. `user:password@` before the host logs in.
///
/// # Trust
///
/// A namespace is one trust domain: its members may read each other's jobs, and a worker runs what
/// it finds in the queue. A server that lets everyone in is therefore refused, unless it is on this
/// machine or [`insecure`](Self::insecure) is called.
///
/// # Examples
///
/// ```no_run
/// use futurepool_cluster::{Cluster, Server};
///
/// let server = Server::new("tls://nats-1:4222,tls://nats-2:4222")
///     .user_and_password("shop", std::env::var("SHOP_PASSWORD")?)
///     .root_certificates("/etc/shop/ca.pem");
/// let cluster = Cluster::connect(server).namespace("shop").build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Server {
    pub(crate) place: Place,
    pub(crate) options: NatsOptions,
}

/// Where the broker is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// The options have the address.
    Nats,
    Memory(MemoryBroker),
}

impl Server {
    /// Names a NATS server by its address, or several servers separated by commas.
    ///
    /// A malformed address is reported when the connection is made.
    #[must_use]
    pub fn new(addresses: impl AsRef<str>) -> Self {
        let addresses = addresses.as_ref().split(',').map(str::trim);
        Self {
            place: Place::Nats,
            options: NatsOptions::new(addresses.map(str::to_owned).collect(), ""),
        }
    }

    /// Logs in with a user's name and password.
    #[must_use]
    pub fn user_and_password(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.options.auth = Auth::User {
            name: user.into(),
            password: password.into(),
        };
        self
    }

    /// Logs in with a token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.options.auth = Auth::Token(token.into());
        self
    }

    /// Logs in with the seed of an nkey, which never leaves this process.
    #[must_use]
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.options.auth = Auth::Nkey(seed.into());
        self
    }

    /// Logs in with a credentials file, which holds a JWT and the seed of an nkey.
    #[must_use]
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.auth = Auth::CredentialsFile(path.into());
        self
    }

    /// Logs in with the text of a credentials file.
    #[must_use]
    pub fn credentials(mut self, text: impl Into<String>) -> Self {
        self.options.auth = Auth::Credentials(text.into());
        self
    }

    /// Requires TLS. An address with `tls://` does, too.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.options.tls.required = true;
        self
    }

    /// Trusts the certificates of this PEM file besides those of the system. Requires TLS.
    #[must_use]
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.tls.root_certificates = Some(path.into());
        self.tls()
    }

    /// Presents this certificate, from PEM files with the certificate and its key. Requires TLS.
    #[must_use]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.options.tls.client_certificate = Some((certificate.into(), key.into()));
        self.tls()
    }

    /// Names this peer to a server with a user for each peer. It begins all ids of the peer.
    ///
    /// Permissions can then limit a submitter to its own results. `futurepool-cluster permissions`
    /// prints them. The name consists of letters, digits, `-` and `_`.
    #[must_use]
    pub fn identity(mut self, name: impl Into<String>) -> Self {
        self.options.identity = Some(name.into());
        self
    }

    /// Allows a server off this machine that lets everyone in.
    ///
    /// Everyone that reaches the server can then run every task of every worker.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.options.insecure = true;
        self
    }

    /// Sets how long the first connection may take. The default is 10 seconds.
    ///
    /// Later reconnects are tried for ever.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }
}

#[cfg(feature = "cli")]
impl Server {
    /// Returns the place for people, without secrets.
    pub(crate) fn shown(&self) -> String {
        match &self.place {
            Place::Nats => {
                let servers = self.options.servers.iter();
                let shown: Vec<_> = servers.map(|url| without_secrets(url)).collect();
                shown.join(",")
            }
            Place::Memory(_) => "memory".to_owned(),
        }
    }
}

impl From<&str> for Server {
    fn from(addresses: &str) -> Self {
        Self::new(addresses)
    }
}

impl From<String> for Server {
    fn from(addresses: String) -> Self {
        Self::new(addresses)
    }
}

impl From<&String> for Server {
    fn from(addresses: &String) -> Self {
        Self::new(addresses)
    }
}

impl From<&Self> for Server {
    fn from(server: &Self) -> Self {
        server.clone()
    }
}

impl From<MemoryBroker> for Server {
    /// Uses a broker in this process. What concerns a server has no effect.
    fn from(broker: MemoryBroker) -> Self {
        Self {
            place: Place::Memory(broker),
            options: NatsOptions::new(Vec::new(), ""),
        }
    }
}

impl From<&MemoryBroker> for Server {
    fn from(broker: &MemoryBroker) -> Self {
        broker.clone().into()
    }
}
