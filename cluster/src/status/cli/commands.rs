//! What the commands do.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::time::{Instant, sleep};

use crate::broker::nats::Nats;
use crate::broker::nats::options::{Auth, NatsOptions, Tls, without_secrets};
use crate::broker::nats::permissions;
use crate::broker::{Broker, BrokerError, Store};
use crate::protocol::names;
use crate::protocol::notice::{Control, encode};
use crate::protocol::outcome::Kept;
use crate::protocol::settings::Settings;
use crate::status;
use crate::status::cli::Failure;
use crate::status::cli::options::{Command, Kind, Login, Secret, ServerOptions};
use crate::status::observer::Observer;
use crate::status::page::Page;
use crate::status::snapshot::{Life, Snapshot, WorkerView};
use crate::status::terminal::{self, Style};
use crate::status::text::{bytes, duration, printable, replicas};

/// How long the first picture may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a drain waits for the workers to say that they drain.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);

/// The largest file with a secret.
const MAX_SECRET: u64 = 64 << 10;

pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Permissions {
            kind,
            namespace,
            identity,
            identities,
        } => print_permissions(kind, &namespace, &identity, &identities),
        Command::Status {
            server,
            watch,
            json,
        } => {
            let broker = connect(&server).await?;
            let observer = observer(&broker, &server);
            let result = follow(&observer, show(&observer, watch, json)).await;
            observer.farewell().await;
            broker.close().await;
            result
        }
        Command::Serve {
            server,
            listen,
            token,
        } => {
            let page = Page::bind(&listen, token.as_deref())
                .map_err(|error| Failure::failed(error.to_string()))?;
            let broker = connect(&server).await?;
            writeln!(io::stdout(), "http://{}/", page.address())?;
            let (namespace, identity) = (&server.namespace, server.identity.as_deref());
            let place = shown(&server.servers);
            match status::serve(page, broker, namespace, &place, identity).await {
                Ok(never) => match never {},
                Err(error) => Err(Failure::failed(format!("cannot serve the page: {error}"))),
            }
        }
        Command::Setup {
            server,
            settings,
            identities,
        } => {
            let broker = connect_for(&server, &identities).await?;
            let text = setup(&broker, &server.namespace, &settings).await?;
            broker.close().await;
            write_out(&text)
        }
        Command::Drain { server, workers } => {
            let broker = connect(&server).await?;
            let observer = observer(&broker, &server);
            let result = follow(&observer, drain(&broker, &observer, &workers)).await;
            observer.farewell().await;
            broker.close().await;
            result
        }
        Command::PurgeDetached { server, key } => {
            let broker = connect(&server).await?;
            let result = purge(&broker, &key).await;
            broker.close().await;
            result
        }
    }
}

/// Writes a text and a line's end.
fn write_out(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    writeln!(output, "{text}")?;
    Ok(output.flush()?)
}

async fn connect(server: &ServerOptions) -> Result<Nats, Failure> {
    connect_for(server, &[]).await
}

async fn connect_for(server: &ServerOptions, identities: &[String]) -> Result<Nats, Failure> {
    let servers = server.servers.split(',').map(str::to_owned).collect();
    let mut options = NatsOptions::new(servers, &server.namespace);
    options.name = Some("futurepool-cluster".to_owned());
    options.identity.clone_from(&server.identity);
    options.identities = identities.to_vec();
    options.auth = auth(&server.login)?;
    options.tls = Tls {
        required: server.tls
            || server.root_certificates.is_some()
            || server.client_certificate.is_some(),
        root_certificates: server.root_certificates.clone(),
        client_certificate: server.client_certificate.clone(),
    };
    options.insecure = server.insecure;
    options.connect_timeout = server.connect_timeout;
    Nats::connect(&options)
        .await
        .map_err(|error| Failure::failed(explain(&error, server)))
}

/// Says what can be done about a connection that was not made.
fn explain(error: &BrokerError, server: &ServerOptions) -> String {
    match error {
        BrokerError::Unreachable(text) => format!(
            "cannot reach {}: {text}\nIs the server there? Name another with --server or NATS_URL.",
            shown(&server.servers)
        ),
        BrokerError::Refused(text) | BrokerError::Missing(text) => {
            format!("{}: {text}", shown(&server.servers))
        }
    }
}

fn auth(login: &Login) -> Result<Auth, Failure> {
    Ok(match login {
        Login::None => Auth::None,
        Login::Password { user, password } => Auth::User {
            name: user.clone(),
            password: match password {
                Secret::File(file) => read_secret("password", file)?,
                Secret::Text(text) => text.clone(),
            },
        },
        Login::TokenFile(file) => Auth::Token(read_secret("token", file)?),
        Login::NkeyFile(file) => Auth::Nkey(read_secret("nkey", file)?),
        Login::Credentials(file) => Auth::CredentialsFile(file.clone()),
    })
}

/// Reads the first line of a file.
fn read_secret(what: &str, file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("cannot read the {what} file {shown}: {error}"))
    };
    let size = std::fs::metadata(file)
        .map_err(|error| failed(&error))?
        .len();
    if size > MAX_SECRET {
        return Err(failed(&"it is too large for a secret"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(failed(&"its first line is empty")),
    }
}

/// Returns addresses without what logs in.
fn shown(servers: &str) -> String {
    let shown = servers
        .split(',')
        .map(|server| without_secrets(server.trim()));
    shown.collect::<Vec<_>>().join(",")
}

fn observer(broker: &Nats, server: &ServerOptions) -> Observer<Nats> {
    Observer::new(
        broker.clone(),
        &server.namespace,
        &shown(&server.servers),
        server.identity.as_deref(),
    )
}

/// Runs an action while the observer collects.
async fn follow<B: Broker, T>(observer: &Observer<B>, action: impl Future<Output = T>) -> T {
    match select(pin!(observer.run()), pin!(action)).await {
        Either::Left((never, _)) => match never {},
        Either::Right((result, _)) => result,
    }
}

async fn show<B: Broker>(observer: &Observer<B>, watch: bool, json: bool) -> Result<(), Failure> {
    complete(observer).await?;
    // Rates need two samples.
    observer.wait_rates(Duration::from_secs(3)).await;
    let is_terminal = io::stdout().is_terminal();
    let style = match is_terminal && std::env::var_os("NO_COLOR").is_none() {
        true => Style::Colour,
        false => Style::Plain,
    };
    loop {
        let snapshot = observer.snapshot();
        let text = match json {
            true => serde_json::to_string(&snapshot)
                .map_err(|error| Failure::failed(error.to_string()))?,
            false => terminal::render(&snapshot, style),
        };
        let mut output = io::stdout().lock();
        if watch && is_terminal && !json {
            // Each line is written over the one before, so that nothing flickers.
            let text = text.replace('\n', "\x1b[K\n");
            write!(output, "\x1b[H{text}\x1b[J")?;
        } else if json {
            writeln!(output, "{text}")?;
        } else {
            write!(output, "{text}")?;
            if watch {
                writeln!(output)?;
            }
        }
        output.flush()?;
        drop(output);
        if !watch {
            return Ok(());
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Waits for a first picture.
async fn complete<B: Broker>(observer: &Observer<B>) -> Result<Snapshot, Failure> {
    let complete = observer.wait_complete(PATIENCE).await;
    let snapshot = observer.snapshot();
    if complete {
        return Ok(snapshot);
    }
    let problems: Vec<_> = snapshot
        .problems
        .iter()
        .map(|text| printable(text))
        .collect();
    Err(Failure::failed(match problems.is_empty() {
        true => "the server does not answer".to_owned(),
        false => problems.join("\n"),
    }))
}

async fn setup<B: Broker>(
    broker: &B,
    namespace: &str,
    wanted: &Settings,
) -> Result<String, Failure> {
    let settings = broker
        .ensure_stores(wanted, true)
        .await
        .map_err(|error| Failure::failed(format!("cannot make the stores: {error}")))?;
    let mut text = format!(
        "The namespace `{namespace}` has its stores: lease {}, {}, {} of jobs.",
        duration(u64::try_from(settings.lease.as_millis()).unwrap_or(u64::MAX)),
        replicas(settings.replicas),
        bytes(settings.queue_bytes),
    );
    if settings != *wanted {
        text.push_str("\nThey were there before, and keep the settings of their first maker.");
    }
    Ok(text)
}

fn print_permissions(
    kind: Kind,
    namespace: &str,
    identity: &str,
    identities: &[String],
) -> Result<(), Failure> {
    let (name, permissions) = match kind {
        Kind::Submitter => ("submitter", permissions::submitter(namespace, identity)),
        Kind::Worker => ("worker", permissions::worker(namespace, identity)),
        Kind::Viewer => ("viewer", permissions::viewer(namespace, identity)),
        Kind::Admin => ("admin", permissions::admin(namespace, identity, identities)),
    };
    let text = format!(
        "# {name} of the namespace `{namespace}`: put it into the user of the server's configuration.\n\
         # The peer that logs in as this user names the identity `{identity}`.\n{permissions}"
    );
    write_out(text.trim_end())
}

async fn drain<B: Broker>(
    broker: &B,
    observer: &Observer<B>,
    wanted: &[String],
) -> Result<(), Failure> {
    let snapshot = complete(observer).await?;
    let targets = targets(&snapshot, wanted).map_err(Failure::Failed)?;
    if targets.is_empty() {
        return write_out("There is no worker.");
    }
    let start = Instant::now();
    let mut told: Vec<String> = Vec::new();
    // A notice can be lost, so it is sent until the worker says that it drains.
    loop {
        let snapshot = observer.snapshot();
        for id in &targets {
            let worker = snapshot.workers.iter().find(|worker| worker.id == *id);
            let state = worker.map_or(Some("has left"), drained);
            if let Some(state) = state
                && !told.contains(id)
            {
                let name = worker.map_or(id.as_str(), |worker| worker.name.as_str());
                write_out(&format!("{} {state}.", printable(name)))?;
                told.push(id.clone());
            }
        }
        let missing: Vec<_> = targets.iter().filter(|id| !told.contains(*id)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if start.elapsed() > DRAIN_PATIENCE {
            let missing: Vec<_> = missing.iter().map(|id| printable(id)).collect();
            return Err(Failure::failed(format!(
                "no answer of {}: it may not be there, or be stopped",
                missing.join(", ")
            )));
        }
        for id in missing {
            broker
                .notify(&names::control(id), encode(&Control::Drain))
                .await
                .map_err(|error| Failure::failed(format!("cannot reach {id}: {error}")))?;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Returns what a worker that takes no more jobs does.
fn drained(worker: &WorkerView) -> Option<&'static str> {
    match worker.life {
        Life::Left => Some("has left"),
        Life::Dead => Some("is dead"),
        Life::Alive | Life::Silent => match worker.state.as_str() {
            "draining" => Some("drains"),
            _ => None,
        },
    }
}

/// Returns the ids of the workers that were named, or of all that live.
fn targets(snapshot: &Snapshot, wanted: &[String]) -> Result<Vec<String>, String> {
    let is_there = |worker: &&WorkerView| matches!(worker.life, Life::Alive | Life::Silent);
    let there: Vec<_> = snapshot.workers.iter().filter(is_there).collect();
    if wanted.is_empty() {
        return Ok(there.iter().map(|worker| worker.id.clone()).collect());
    }
    let mut ids = Vec::new();
    for name in wanted {
        let before = ids.len();
        let named = there
            .iter()
            .filter(|worker| worker.name == *name || worker.id == *name);
        ids.extend(named.map(|worker| worker.id.clone()));
        if ids.len() == before {
            let names: Vec<_> = there.iter().map(|worker| printable(&worker.name)).collect();
            let names = match names.is_empty() {
                true => "there is none".to_owned(),
                false => format!("there are: {}", names.join(", ")),
            };
            return Err(format!("no living worker `{}`; {names}", printable(name)));
        }
    }
    Ok(ids)
}

async fn purge<B: Broker>(broker: &B, key: &str) -> Result<(), Failure> {
    let failed = |error: BrokerError| Failure::failed(error.to_string());
    let token = names::token(key);
    let kept = broker.last(Store::Kept, &token).await.map_err(failed)?;
    let Some(kept) = kept.filter(|kept| !kept.is_deletion()) else {
        return Err(Failure::failed(format!(
            "no detached job has the key `{}`",
            printable(key)
        )));
    };
    if let Ok(Kept::Pending { .. }) = Kept::from_stored(&kept) {
        return Err(Failure::failed(format!(
            "the job of `{}` has not ended: attach to it and cancel it first",
            printable(key)
        )));
    }
    broker.delete(Store::Kept, kept.seq).await.map_err(failed)?;
    write_out(&format!("`{}` is forgotten.", printable(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;

    #[test]
    fn workers_are_found_by_name_or_id_and_all_are_those_that_live() {
        let snapshot = samples::busy();
        let names = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|&name| name.to_owned()).collect();
            targets(&snapshot, &wanted)
        };
        assert_eq!(names(&["build-7/812"]).unwrap(), ["build-7-812-x7k2p9"]);
        assert_eq!(names(&["gpu-1-77-x7k2p9", "build-8/95"]).unwrap().len(), 2);
        // Five live or are silent; one is dead.
        assert_eq!(names(&[]).unwrap().len(), 5);
        let error = names(&["build-9/3310"]).unwrap_err();
        assert!(error.contains("no living worker `build-9/3310`"), "{error}");
        assert!(error.contains("build-6/4711"), "{error}");
    }

    #[test]
    fn addresses_are_shown_without_their_login() {
        let shown = shown("nats://me:secret@a:4222, tls://b,c:1,token@d");
        assert_eq!(shown, "nats://a:4222,tls://b,c:1,d");
    }

    #[test]
    fn a_secret_is_the_first_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "hunter2\r\nmore\n").unwrap();
        assert_eq!(read_secret("password", &file).unwrap(), "hunter2");
        std::fs::write(&file, "\n").unwrap();
        let error = read_secret("password", &file).unwrap_err();
        assert!(matches!(error, Failure::Failed(text) if text.contains("password file")));
        assert!(read_secret("token", &folder.path().join("none")).is_err());
    }
}
