//! The first connection, and why there is none.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};
use tokio::time::Instant;

use super::link::{Link, Shared};
use super::options::{Auth, NatsOptions, without_secrets};
use crate::broker::BrokerError;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(1000);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(3);
/// A connection without any sign of the server for three times this long is given up.
const PING_PERIOD: Duration = Duration::from_secs(2);
/// How many messages of one subscription may wait to be read.
const SUBSCRIPTION_CAPACITY: usize = 1 << 17;

pub(super) async fn connect(options: &NatsOptions) -> Result<Link, BrokerError> {
    let mut url_auth = Auth::None;
    let mut servers = Vec::with_capacity(options.servers.len());
    for url in &options.servers {
        let (server, auth) = parse(url)?;
        servers.push(server);
        if matches!(url_auth, Auth::None) {
            url_auth = auth;
        }
    }
    if servers.is_empty() {
        return Err(BrokerError::Refused(
            "there is no address of a server".into(),
        ));
    }
    let auth = match &options.auth {
        Auth::None => &url_auth,
        auth => auth,
    };
    let shared = Shared::new(options.request_timeout);
    let tls = options.tls.required || servers.iter().any(ServerAddr::tls_required);
    let client = reach(options, &servers, auth, tls, &shared).await?;
    if let Err(error) = check(options, &servers, &client).await {
        _ = client.drain().await;
        return Err(error);
    }
    Link::new(client, shared).await
}

/// Reads an address. The credentials in it are taken out, so that nothing prints them.
fn parse(url: &str) -> Result<(ServerAddr, Auth), BrokerError> {
    let shown = without_secrets(url);
    let bad = |why: &str| BrokerError::Refused(format!("the address {shown}: {why}").into());
    let server: ServerAddr = url.trim().parse().map_err(|_| bad("it is no address"))?;
    if !matches!(server.scheme(), "nats" | "tls") {
        return Err(bad("it begins with neither nats:// nor tls://"));
    }
    if server.host().is_empty() {
        return Err(bad("it has no host"));
    }
    let decode = |text: &str| percent_decode(text).ok_or_else(|| bad("its credentials"));
    let auth = match (server.username(), server.password()) {
        (Some(name), Some(password)) => Auth::User {
            name: decode(name)?,
            password: decode(password)?,
        },
        (Some(token), None) => Auth::Token(decode(token)?),
        _ => Auth::None,
    };
    let bare = without_secrets(url.trim());
    let server = bare.parse().map_err(|_| bad("it is no address"))?;
    Ok((server, auth))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (hex, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Returns how the client connects, now and later.
fn client_options(
    options: &NatsOptions,
    auth: &Auth,
    tls: bool,
    shared: &Arc<Shared>,
) -> Result<ConnectOptions, BrokerError> {
    let events = Arc::clone(shared);
    let mut client = ConnectOptions::new()
        .connection_timeout(ATTEMPT.min(options.connect_timeout))
        .ping_interval(PING_PERIOD)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .max_reconnects(None)
        // Servers that are only heard of later need it, too.
        .require_tls(tls)
        .reconnect_delay_callback(pause)
        .event_callback(move |event| {
            events.event(event);
            std::future::ready(())
        });
    if let Some(name) = &options.name {
        client = client.name(name);
    }
    if let Some(identity) = &options.identity {
        client = client.custom_inbox_prefix(inbox_prefix(identity));
    }
    if let Some(path) = &options.tls.root_certificates {
        client = client.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = &options.tls.client_certificate {
        client = client.add_client_certificate(certificate.clone(), key.clone());
    }
    let bad = |why: String| BrokerError::Refused(why.into());
    Ok(match auth {
        Auth::None => client,
        Auth::User { name, password } => client.user_and_password(name.clone(), password.clone()),
        Auth::Token(token) => client.token(token.clone()),
        Auth::Nkey(seed) => client.nkey(seed.clone()),
        Auth::Credentials(text) => client
            .credentials(text)
            .map_err(|_| bad("the credentials cannot be read".into()))?,
        Auth::CredentialsFile(path) => {
            let shown = path.display();
            let text = std::fs::read_to_string(path)
                .map_err(|error| bad(format!("the credentials file {shown}: {error}")))?;
            client
                .credentials(&text)
                .map_err(|_| bad(format!("the credentials file {shown} cannot be read")))?
        }
    })
}

/// Returns what the inboxes of a peer begin with.
pub(super) fn inbox_prefix(identity: &str) -> String {
    format!("_INBOX.{identity}")
}

/// Returns how long to wait before an attempt. The first comes at once.
fn pause(attempt: usize) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempt - 2).unwrap_or(u32::MAX).min(10);
    let longest = (FIRST_PAUSE * 2u32.pow(doublings)).min(LONGEST_PAUSE);
    longest.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

/// Tries until a server takes the connection.
async fn reach(
    options: &NatsOptions,
    servers: &[ServerAddr],
    auth: &Auth,
    tls: bool,
    shared: &Arc<Shared>,
) -> Result<Client, BrokerError> {
    // At most some years.
    let end = Instant::now() + options.connect_timeout.min(Duration::from_secs(1 << 30));
    let mut why = "the server does not answer".to_owned();
    for attempt in 1.. {
        let client_options = client_options(options, auth, tls, shared)?;
        let connecting = async_nats::connect_with_options(servers, client_options);
        match tokio::time::timeout_at(end, connecting).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => {
                let for_good;
                (why, for_good) = explain(&error);
                if for_good {
                    return Err(BrokerError::Refused(no_connection(servers, &why)));
                }
            }
            Err(_) => break,
        }
        let next = Instant::now() + pause(attempt + 1);
        if next >= end {
            break;
        }
        tokio::time::sleep_until(next).await;
    }
    Err(BrokerError::Unreachable(no_connection(servers, &why)))
}

fn no_connection(servers: &[ServerAddr], why: &str) -> Arc<str> {
    format!("cannot connect to {}: {why}", addresses(servers)).into()
}

fn addresses(servers: &[ServerAddr]) -> String {
    let all: Vec<_> = servers
        .iter()
        .map(|server| format!("{}:{}", server.host(), server.port()))
        .collect();
    all.join(", ")
}

/// Says why a connection failed, and whether trying again is useless.
fn explain(error: &ConnectError) -> (String, bool) {
    let mut io = None;
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            io = Some(error.kind());
        }
        causes.push(error.to_string());
        cause = error.source();
    }
    let detail = causes.pop().unwrap_or_default();
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => {
            ("the server refuses these credentials".into(), true)
        }
        ConnectErrorKind::Authentication => ("the credentials cannot be used".into(), true),
        ConnectErrorKind::Tls => (format!("TLS: {detail}"), true),
        ConnectErrorKind::Dns => (format!("the host is unknown: {detail}"), false),
        ConnectErrorKind::TimedOut => ("the server does not answer".into(), false),
        ConnectErrorKind::Io if io == Some(std::io::ErrorKind::InvalidData) => {
            (format!("TLS: {detail}"), true)
        }
        ConnectErrorKind::Io if io == Some(std::io::ErrorKind::ConnectionRefused) => {
            ("nothing listens there (connection refused)".into(), false)
        }
        kind if detail.is_empty() => (kind.to_string(), false),
        _ => (detail, false),
    }
}

/// Fails if the server is not one that may be used.
async fn check(
    options: &NatsOptions,
    servers: &[ServerAddr],
    client: &Client,
) -> Result<(), BrokerError> {
    let info = client.server_info();
    if !client.is_server_compatible(2, 9, 0) || !info.headers {
        let text = format!("the server's version {} is older than 2.9", info.version);
        return Err(BrokerError::Refused(text.into()));
    }
    if info.auth_required || options.insecure {
        return Ok(());
    }
    for server in servers {
        if !is_here(server).await {
            let text = format!(
                "the server {}:{} asks for no authentication, and is not on this machine: \
                 anyone who reaches it can run jobs. Connect with `insecure` if that is meant",
                server.host(),
                server.port()
            );
            return Err(BrokerError::Refused(text.into()));
        }
    }
    Ok(())
}

/// Returns whether a name stands for this machine alone.
async fn is_here(server: &ServerAddr) -> bool {
    match server.socket_addrs().await {
        Ok(mut addresses) => addresses.all(|address| address.ip().to_canonical().is_loopback()),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_an_address() {
        let (server, auth) = parse("nats://me:p%40ss@host:4223").unwrap();
        assert_eq!(server.as_url_str(), "nats://host:4223");
        assert!(
            matches!(auth, Auth::User { name, password } if name == "me" && password == "p@ss")
        );
        let (_, auth) = parse("token@host").unwrap();
        assert!(matches!(auth, Auth::Token(token) if token == "token"));
        assert!(matches!(parse("host").unwrap().1, Auth::None));
    }

    #[test]
    fn a_bad_address_is_refused_without_its_credentials() {
        for url in [
            "http://me:s3cret@host",
            "nats://me:s3cret@",
            "::",
            "me:s3cret@ho st",
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn pauses_grow_to_a_second() {
        assert_eq!(pause(1), Duration::ZERO);
        for attempt in 2..100 {
            let pause = pause(attempt);
            assert!(
                pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE,
                "{pause:?}"
            );
        }
    }
}
