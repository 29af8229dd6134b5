//! How to reach a server.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where the servers are, and how to connect to them.
#[derive(Clone)]
pub(crate) struct NatsOptions {
    /// Addresses such as `nats://host:4222`, `tls://host` or `host:4222`. At least one.
    pub(crate) servers: Vec<String>,
    /// What the server's operator sees as the name of the connection.
    pub(crate) name: Option<String>,
    /// The namespace, as a token of letters, digits, `-` and `_`.
    pub(crate) namespace: String,
    /// A token that begins all ids of this peer, where permissions tell peers apart.
    pub(crate) identity: Option<String>,
    /// The submitters for which [`ensure_stores`](crate::broker::Broker::ensure_stores) makes
    /// stores of results.
    pub(crate) identities: Vec<String>,
    pub(crate) auth: Auth,
    pub(crate) tls: Tls,
    /// A server away from this machine may leave out authentication.
    pub(crate) insecure: bool,
    /// For how long the first connection is tried.
    pub(crate) connect_timeout: Duration,
    /// For how long a request waits, until the settings of the namespace are known.
    pub(crate) request_timeout: Duration,
}

impl NatsOptions {
    pub(crate) fn new(servers: Vec<String>, namespace: &str) -> Self {
        Self {
            servers,
            name: None,
            namespace: namespace.to_owned(),
            identity: None,
            identities: Vec::new(),
            auth: Auth::None,
            tls: Tls::default(),
            insecure: false,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self
            .servers
            .iter()
            .map(|url| without_secrets(url))
            .collect();
        f.debug_struct("NatsOptions")
            .field("servers", &servers)
            .field("name", &self.name)
            .field("namespace", &self.namespace)
            .field("identity", &self.identity)
            .field("identities", &self.identities)
            .field("auth", &self.auth)
            .field("tls", &self.tls)
            .field("insecure", &self.insecure)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .finish()
    }
}

/// Returns an address without the user and password that it may have.
pub(crate) fn without_secrets(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => url.to_owned(),
    }
}

/// How a peer logs in. `Debug` shows no secret.
#[derive(Clone, Default)]
pub(crate) enum Auth {
    #[default]
    None,
    User {
        name: String,
        password: String,
    },
    Token(String),
    /// The seed of an nkey.
    Nkey(String),
    /// The text of a file with credentials.
    Credentials(String),
    CredentialsFile(PathBuf),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::User { name, .. } => write!(f, "User({name:?}, ..)"),
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Nkey(_) => f.write_str("Nkey(..)"),
            Self::Credentials(_) => f.write_str("Credentials(..)"),
            Self::CredentialsFile(path) => f.debug_tuple("CredentialsFile").field(path).finish(),
        }
    }
}

/// How the connection is encrypted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    /// A server without TLS is refused.
    pub(crate) required: bool,
    /// Certificates of authorities, in place of the machine's.
    pub(crate) root_certificates: Option<PathBuf>,
    /// This peer's certificate and its key.
    pub(crate) client_certificate: Option<(PathBuf, PathBuf)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let secret = "s3cret";
        let mut options = NatsOptions::new(vec![format!("nats://me:{secret}@host:1")], "ns");
        for auth in [
            Auth::User {
                name: "me".into(),
                password: secret.into(),
            },
            Auth::Token(secret.into()),
            Auth::Nkey(secret.into()),
            Auth::Credentials(secret.into()),
        ] {
            options.auth = auth;
            let text = format!("{options:?}");
            assert!(text.contains("host:1") && !text.contains(secret), "{text}");
        }
        assert_eq!(without_secrets("me:pw@host"), "host");
        assert_eq!(without_secrets("host:4222"), "host:4222");
    }
}
