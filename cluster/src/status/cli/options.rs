//! What the command line says.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::protocol::settings::Settings;
use crate::status::cli::{Failure, help};

/// A command line that was understood.
#[derive(Debug)]
pub(crate) enum Parsed {
    Print(String),
    Run(Box<Command>),
}

#[derive(Debug)]
pub(crate) enum Command {
    Status {
        server: ServerOptions,
        watch: bool,
        json: bool,
    },
    Serve {
        server: ServerOptions,
        listen: String,
        token: Option<String>,
    },
    Setup {
        server: ServerOptions,
        settings: Settings,
        identities: Vec<String>,
    },
    Permissions {
        kind: Kind,
        namespace: String,
        identity: String,
        /// The identities whose stores an administrator makes.
        identities: Vec<String>,
    },
    Drain {
        server: ServerOptions,
        /// Empty: all.
        workers: Vec<String>,
    },
    PurgeDetached {
        server: ServerOptions,
        key: String,
    },
}

/// What a login is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Submitter,
    Worker,
    Viewer,
    Admin,
}

/// Where the server is. Files are read later.
#[derive(Debug, Clone)]
pub(crate) struct ServerOptions {
    pub(crate) servers: String,
    pub(crate) namespace: String,
    pub(crate) identity: Option<String>,
    pub(crate) login: Login,
    pub(crate) tls: bool,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) client_certificate: Option<(PathBuf, PathBuf)>,
    pub(crate) insecure: bool,
    pub(crate) connect_timeout: Duration,
}

#[derive(Clone)]
pub(crate) enum Login {
    None,
    Password { user: String, password: Secret },
    TokenFile(PathBuf),
    NkeyFile(PathBuf),
    Credentials(PathBuf),
}

#[derive(Clone)]
pub(crate) enum Secret {
    File(PathBuf),
    Text(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password { .. } => "Password",
            Self::TokenFile(_) => "TokenFile",
            Self::NkeyFile(_) => "NkeyFile",
            Self::Credentials(_) => "Credentials",
        })
    }
}

/// Reads an environment variable.
pub(crate) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Understands a command line, without the program's name.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variable: Variable<'_>,
) -> Result<Parsed, Failure> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |text: String| Failure::Usage { command: "", text };
    let first = parser.next().map_err(|error| usage(error.to_string()))?;
    let name = match first {
        None => return Err(usage("which command?".to_owned())),
        Some(Long("help") | Short('h')) => return Ok(Parsed::Print(help::GENERAL.to_owned())),
        Some(Long("version") | Short('V')) => {
            let version = concat!("futurepool-cluster ", env!("CARGO_PKG_VERSION"));
            return Ok(Parsed::Print(version.to_owned()));
        }
        Some(Value(name)) => name.to_string_lossy().into_owned(),
        Some(other) => {
            return Err(usage(format!(
                "{} stands before the command",
                shown(&other)
            )));
        }
    };
    let (command, page) = match name.as_str() {
        "status" => ("status ", help::STATUS),
        "serve" => ("serve ", help::SERVE),
        "setup" => ("setup ", help::SETUP),
        "permissions" => ("permissions ", help::PERMISSIONS),
        "drain" => ("drain ", help::DRAIN),
        "purge-detached" => ("purge-detached ", help::PURGE_DETACHED),
        "help" => return Ok(Parsed::Print(help::GENERAL.to_owned())),
        other => return Err(usage(format!("there is no command `{other}`"))),
    };
    let raw = match Raw::parse(parser, command) {
        Ok(Some(raw)) => raw,
        Ok(None) => return Ok(Parsed::Print(page.to_owned())),
        Err(text) => return Err(Failure::Usage { command, text }),
    };
    let parsed = raw.into_command(command, variable);
    match parsed {
        Ok(command) => Ok(Parsed::Run(Box::new(command))),
        Err(text) => Err(Failure::Usage { command, text }),
    }
}

fn shown(argument: &lexopt::Arg<'_>) -> String {
    match argument {
        Long(name) => format!("`--{name}`"),
        Short(name) => format!("`-{name}`"),
        Value(value) => format!("`{}`", value.to_string_lossy()),
    }
}

/// The options as they were given.
#[derive(Default)]
struct Raw {
    values: Vec<String>,
    server: Option<String>,
    namespace: Option<String>,
    identity: Option<String>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    nkey_file: Option<PathBuf>,
    credentials: Option<PathBuf>,
    tls: bool,
    root_certificates: Option<PathBuf>,
    client_certificate: Option<(PathBuf, PathBuf)>,
    insecure: bool,
    connect_timeout: Option<Duration>,
    once: bool,
    watch: bool,
    json: bool,
    listen: Option<String>,
    token: Option<String>,
    settings: Settings,
    identities: Vec<String>,
    all: bool,
}

impl Raw {
    /// Returns `None` if help is asked for.
    fn parse(mut parser: lexopt::Parser, command: &str) -> Result<Option<Self>, String> {
        let mut raw = Self::default();
        let with_server = command != "permissions ";
        while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
            let name = match &argument {
                Long("help") | Short('h') => return Ok(None),
                Value(value) => {
                    raw.values.push(text(value.clone())?);
                    continue;
                }
                Long(name) => (*name).to_owned(),
                Short(_) => return Err(format!("there is no option {}", shown(&argument))),
            };
            let mut value = || parser.value().map_err(|error| error.to_string());
            match (command, name.as_str()) {
                (_, "namespace") => raw.namespace = Some(text(value()?)?),
                (_, "identity") => raw.identity = Some(text(value()?)?),
                ("status ", "once") => raw.once = true,
                ("status ", "watch") => raw.watch = true,
                ("status ", "json") => raw.json = true,
                ("serve ", "listen") => raw.listen = Some(text(value()?)?),
                ("serve ", "token") => raw.token = Some(text(value()?)?),
                ("setup ", "lease") => raw.settings.lease = duration(&text(value()?)?)?,
                ("setup ", "replicas") => {
                    let value = text(value()?)?;
                    let replicas = value
                        .parse()
                        .ok()
                        .filter(|number| [1, 3, 5].contains(number));
                    raw.settings.replicas =
                        replicas.ok_or_else(|| format!("`--replicas {value}`: use 1, 3 or 5"))?;
                }
                ("setup ", "queue-bytes") => raw.settings.queue_bytes = size(&text(value()?)?)?,
                ("drain ", "all") => raw.all = true,
                ("setup " | "permissions ", "for") => raw.identities.push(text(value()?)?),
                (_, "server") if with_server => raw.server = Some(text(value()?)?),
                (_, "user") if with_server => raw.user = Some(text(value()?)?),
                (_, "password-file") if with_server => raw.password_file = Some(value()?.into()),
                (_, "token-file") if with_server => raw.token_file = Some(value()?.into()),
                (_, "nkey-file") if with_server => raw.nkey_file = Some(value()?.into()),
                (_, "credentials") if with_server => raw.credentials = Some(value()?.into()),
                (_, "tls") if with_server => raw.tls = true,
                (_, "root-certificates") if with_server => {
                    raw.root_certificates = Some(value()?.into());
                }
                (_, "client-certificate") if with_server => {
                    let pair = text(value()?)?;
                    let (certificate, key) = pair.split_once(',').ok_or_else(|| {
                        format!("`--client-certificate {pair}`: write CERTIFICATE,KEY")
                    })?;
                    raw.client_certificate = Some((certificate.into(), key.into()));
                }
                (_, "insecure") if with_server => raw.insecure = true,
                (_, "connect-timeout") if with_server => {
                    raw.connect_timeout = Some(duration(&text(value()?)?)?);
                }
                (_, "password") => {
                    return Err("a password on the command line is seen by everyone on this machine: use --password-file or NATS_PASSWORD".to_owned());
                }
                _ => return Err(format!("there is no option `--{name}`")),
            }
        }
        Ok(Some(raw))
    }

    fn into_command(mut self, command: &str, variable: Variable<'_>) -> Result<Command, String> {
        let values = std::mem::take(&mut self.values);
        let (least, most) = match command {
            "permissions " | "purge-detached " => (1, 1),
            "drain " => (0, usize::MAX),
            _ => (0, 0),
        };
        if let Some(value) = values.get(most) {
            return Err(format!("`{value}` is too much"));
        }
        if values.len() < least {
            return Err(match command {
                "permissions " => "for which login: submitter, worker, viewer or admin?",
                _ => "which key?",
            }
            .to_owned());
        }
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let names = [
            ("namespace", Some(&namespace)),
            ("identity", self.identity.as_ref()),
        ];
        let names = names
            .into_iter()
            .chain(self.identities.iter().map(|name| ("for", Some(name))));
        for (option, name) in names {
            if let Some(name) = name
                && (name.is_empty() || name.len() > 128 || !name.chars().all(is_word))
            {
                return Err(format!(
                    "`--{option} {name}`: use up to 128 letters, digits, `-` and `_`"
                ));
            }
        }
        Ok(match command {
            "permissions " => Command::Permissions {
                kind: match values[0].as_str() {
                    "submitter" => Kind::Submitter,
                    "worker" => Kind::Worker,
                    "viewer" => Kind::Viewer,
                    "admin" => Kind::Admin,
                    other => {
                        return Err(format!(
                            "`{other}` is none of submitter, worker, viewer and admin"
                        ));
                    }
                },
                namespace,
                identity: self
                    .identity
                    .ok_or("`--identity NAME`: the name that tells this login from others")?,
                identities: self.identities,
            },
            "status " => {
                if self.once && self.watch {
                    return Err("`--once` and `--watch` exclude each other".to_owned());
                }
                Command::Status {
                    watch: self.watch,
                    json: self.json,
                    server: self.server(namespace, variable)?,
                }
            }
            "serve " => Command::Serve {
                listen: self
                    .listen
                    .take()
                    .unwrap_or_else(|| "127.0.0.1:6680".to_owned()),
                token: self
                    .token
                    .take()
                    .or_else(|| variable("FUTUREPOOL_CLUSTER_TOKEN")),
                server: self.server(namespace, variable)?,
            },
            "setup " => Command::Setup {
                settings: self.settings.clone(),
                identities: std::mem::take(&mut self.identities),
                server: self.server(namespace, variable)?,
            },
            "drain " => {
                match (self.all, values.is_empty()) {
                    (true, false) => return Err("name workers, or give `--all`".to_owned()),
                    (false, true) => return Err("which workers? (or `--all`)".to_owned()),
                    _ => {}
                }
                Command::Drain {
                    workers: values,
                    server: self.server(namespace, variable)?,
                }
            }
            _ => Command::PurgeDetached {
                key: values.into_iter().next().unwrap_or_default(),
                server: self.server(namespace, variable)?,
            },
        })
    }

    fn server(self, namespace: String, variable: Variable<'_>) -> Result<ServerOptions, String> {
        let mut logins = Vec::new();
        if let Some(user) = self.user {
            let password = match self.password_file {
                Some(file) => Secret::File(file),
                None => Secret::Text(variable("NATS_PASSWORD").ok_or_else(|| {
                    format!("the password of `{user}`: give --password-file, or set NATS_PASSWORD")
                })?),
            };
            logins.push(("--user", Login::Password { user, password }));
        } else if self.password_file.is_some() {
            return Err("`--password-file` needs `--user`".to_owned());
        }
        let files = [
            ("--token-file", self.token_file.map(Login::TokenFile)),
            ("--nkey-file", self.nkey_file.map(Login::NkeyFile)),
            ("--credentials", self.credentials.map(Login::Credentials)),
        ];
        logins.extend(
            files
                .into_iter()
                .filter_map(|(option, login)| Some((option, login?))),
        );
        if let [(first, _), (second, _), ..] = &logins[..] {
            return Err(format!("`{first}` and `{second}`: log in one way"));
        }
        let login = match logins.pop() {
            Some((_, login)) => login,
            None => match (variable("NATS_CREDS"), variable("NATS_USER")) {
                (Some(file), _) => Login::Credentials(file.into()),
                (None, Some(user)) => Login::Password {
                    password: Secret::Text(variable("NATS_PASSWORD").ok_or(
                        "NATS_USER is set and NATS_PASSWORD is not: set both, or log in another way",
                    )?),
                    user,
                },
                (None, None) => Login::None,
            },
        };
        Ok(ServerOptions {
            servers: self
                .server
                .or_else(|| variable("NATS_URL"))
                .unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned()),
            namespace,
            identity: self.identity,
            login,
            tls: self.tls,
            root_certificates: self.root_certificates,
            client_certificate: self.client_certificate,
            insecure: self.insecure,
            connect_timeout: self.connect_timeout.unwrap_or(Duration::from_secs(5)),
        })
    }
}

fn text(value: OsString) -> Result<String, String> {
    value
        .into_string()
        .map_err(|value| format!("`{}` is not UTF-8", value.to_string_lossy()))
}

/// Reads a number with a unit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[digits.len()..].trim();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

fn duration(text: &str) -> Result<Duration, String> {
    let units = [
        ("ms", 1),
        ("s", 1000),
        ("", 1000),
        ("m", 60_000),
        ("min", 60_000),
    ];
    match with_unit(text, &units) {
        Some(millis @ 1..) => Ok(Duration::from_millis(millis)),
        _ => Err(format!("`{text}` is no time: write it as 500ms, 30s or 5m")),
    }
}

fn size(text: &str) -> Result<u64, String> {
    let units = [
        ("", 1),
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    match with_unit(text, &units) {
        Some(size @ 1..) if i64::try_from(size).is_ok() => Ok(size),
        _ => Err(format!(
            "`{text}` is no size: write it as 1000000, 512MiB or 1GiB"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_with(line: &str, variables: &[(&str, &str)]) -> Result<Command, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        match parse(line.split_whitespace().map(OsString::from), &variable) {
            Ok(Parsed::Run(command)) => Ok(*command),
            Ok(Parsed::Print(text)) => Err(format!("help: {text}")),
            Err(Failure::Usage { text, .. }) => Err(text),
            Err(failure) => panic!("{failure:?}"),
        }
    }

    fn server_of(command: Command) -> ServerOptions {
        match command {
            Command::Status { server, .. } | Command::Setup { server, .. } => server,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_win_over_the_environment() {
        let variables = [
            ("NATS_URL", "nats://env:1"),
            ("NATS_USER", "env"),
            ("NATS_PASSWORD", "secret"),
        ];
        let server = server_of(parse_with("status", &variables).unwrap());
        assert_eq!(server.servers, "nats://env:1");
        assert!(matches!(&server.login, Login::Password { user, .. } if user == "env"));
        assert!(!format!("{server:?}").contains("secret"));

        let line = "status --server nats://here --token-file t --namespace shop --watch --json";
        let server = server_of(parse_with(line, &variables).unwrap());
        assert_eq!(
            (server.servers.as_str(), server.namespace.as_str()),
            ("nats://here", "shop")
        );
        assert!(matches!(server.login, Login::TokenFile(_)));

        let server = server_of(parse_with("status --user me", &variables).unwrap());
        assert!(matches!(&server.login, Login::Password { user, .. } if user == "me"));
        let server = server_of(parse_with("status", &[("NATS_CREDS", "f")]).unwrap());
        assert!(matches!(server.login, Login::Credentials(_)));
        let server = server_of(parse_with("status", &[]).unwrap());
        assert_eq!(server.servers, "nats://127.0.0.1:4222");
        assert!(matches!(server.login, Login::None));
    }

    #[test]
    fn settings_have_units() {
        let line = "setup --lease 1500ms --replicas 3 --queue-bytes 2GiB --for a --for b";
        let Command::Setup {
            settings,
            identities,
            ..
        } = parse_with(line, &[]).unwrap()
        else {
            panic!();
        };
        assert_eq!(settings.lease, Duration::from_millis(1500));
        assert_eq!((settings.replicas, settings.queue_bytes), (3, 2 << 30));
        assert_eq!(identities, ["a", "b"]);
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(size("1000"), Ok(1000));
        for bad in ["", "x", "-1s", "1h", "0s", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "1GB", "9999999TiB", "18446744073709551615"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, part) in [
            ("", "which command"),
            ("statsu", "no command `statsu`"),
            ("--json status", "before the command"),
            ("status --colour", "no option `--colour`"),
            ("status extra", "`extra` is too much"),
            ("status --once --watch", "exclude each other"),
            ("status --namespace a.b", "letters, digits"),
            ("status --user me", "NATS_PASSWORD"),
            ("status --password hunter2", "--password-file"),
            ("status --password-file f", "needs `--user`"),
            ("status --token-file a --credentials b", "log in one way"),
            ("status --client-certificate a", "CERTIFICATE,KEY"),
            ("setup --replicas 2", "1, 3 or 5"),
            ("setup --lease soon", "is no time"),
            ("permissions", "for which login"),
            ("permissions worker", "--identity"),
            ("permissions god", "none of submitter"),
            ("permissions admin --server x", "no option `--server`"),
            ("drain", "which workers"),
            ("drain --all w", "name workers"),
            ("purge-detached", "which key"),
            ("serve --listen", "missing argument"),
        ] {
            let error = parse_with(line, &[]).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = parse_with("status", &[("NATS_USER", "me")]).unwrap_err();
        assert!(error.contains("NATS_PASSWORD is not"), "{error}");
    }

    #[test]
    fn each_command_has_help() {
        for command in [
            "status",
            "serve",
            "setup",
            "permissions",
            "drain",
            "purge-detached",
        ] {
            let help = parse_with(&format!("{command} --help"), &[]).unwrap_err();
            let usage = format!("Usage: futurepool-cluster {command}");
            assert!(
                help.starts_with("help: ") && help.contains(&usage),
                "{help}"
            );
            assert!(
                help::GENERAL.contains(&format!("\n  {command} ")),
                "{command}"
            );
            let help = &help["help: ".len()..];
            assert!(
                help.lines().all(|line| line.chars().count() <= 100),
                "{help}"
            );
        }
    }
}
