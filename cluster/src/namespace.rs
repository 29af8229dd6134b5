//! What the members of a namespace agree on, and how they check it.

use std::process;
use std::time::Duration;

use crate::error::ConnectError;
use crate::protocol::names;
use crate::protocol::settings::Settings;

/// The options that clusters and workers share.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) queue: String,
    pub(crate) settings: Settings,
}

/// The shortest lease: a key of the living is written six times in it.
const MIN_LEASE: Duration = Duration::from_millis(600);

/// The longest lease. Times of the protocol are multiples of it.
const MAX_LEASE: Duration = Duration::from_secs(24 * 3600);

/// The longest name of a namespace or a queue.
const MAX_NAME: usize = 128;

impl Default for Namespace {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            queue: "default".to_owned(),
            settings: Settings::default(),
        }
    }
}

impl Namespace {
    /// Fails if an option is invalid. `identity` is that of the peer.
    pub(crate) fn check(&self, identity: Option<&str>) -> Result<(), ConnectError> {
        check_word("namespace", &self.name)?;
        if let Some(identity) = identity {
            check_word("identity", identity)?;
        }
        if self.queue.is_empty() || names::token(&self.queue).len() > MAX_NAME {
            let problem = format!(
                "it must have 1 to {MAX_NAME} letters and digits, of which any other byte counts as \
                 three"
            );
            return Err(ConnectError::invalid("queue", problem));
        }
        let Settings {
            lease,
            replicas,
            queue_bytes,
        } = self.settings;
        if lease < MIN_LEASE {
            let problem = format!("{lease:?} is too short: use at least {MIN_LEASE:?}");
            return Err(ConnectError::invalid("lease", problem));
        }
        if lease > MAX_LEASE {
            let problem = format!("{lease:?} is too long: use at most {MAX_LEASE:?}");
            return Err(ConnectError::invalid("lease", problem));
        }
        if !(1..=5).contains(&replicas) {
            let problem = format!("{replicas} is not possible: use 1, 3 or 5");
            return Err(ConnectError::invalid("replicas", problem));
        }
        if queue_bytes == 0 || i64::try_from(queue_bytes).is_err() {
            let problem = "it must be at least 1, and at most `i64::MAX`";
            return Err(ConnectError::invalid("queue_bytes", problem));
        }
        Ok(())
    }
}

fn check_word(option: &'static str, name: &str) -> Result<(), ConnectError> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_word) {
        let problem =
            format!("{name:?} is not a name: use up to {MAX_NAME} letters, digits, `-` and `_`");
        return Err(ConnectError::invalid(option, problem));
    }
    Ok(())
}

/// Returns what people call this process: `host/pid`.
pub(crate) fn process_name() -> String {
    format!("{}/{}", host(), process::id())
}

/// Returns the name of this machine.
pub(crate) fn host() -> String {
    let name = gethostname::gethostname();
    match name.to_string_lossy().trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

/// Puts the identity of a peer, if it has one, before its id.
pub(crate) fn with_identity(identity: Option<&str>, id: &str) -> String {
    match identity {
        None => id.to_owned(),
        Some(identity) => format!("{identity}.{id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_limits_are_checked() {
        type Change = fn(&mut Namespace);
        let check = |change: Change| {
            let mut namespace = Namespace::default();
            change(&mut namespace);
            namespace.check(None).map_err(|error| error.to_string())
        };
        assert_eq!(check(|_| {}), Ok(()));
        let bad: [(Change, &str); 9] = [
            (|n| n.name = String::new(), "namespace"),
            (|n| n.name = "a.b".into(), "namespace"),
            (|n| n.name = "a b".into(), "namespace"),
            (|n| n.queue = String::new(), "queue"),
            (|n| n.queue = "ü".repeat(64), "queue"),
            (|n| n.settings.lease = Duration::from_millis(5), "lease"),
            (|n| n.settings.lease = Duration::MAX, "lease"),
            (|n| n.settings.replicas = 0, "replicas"),
            (|n| n.settings.queue_bytes = 0, "queue_bytes"),
        ];
        for (change, option) in bad {
            let error = check(change).unwrap_err();
            assert!(error.starts_with(&format!("invalid `{option}`")), "{error}");
        }
        assert_eq!(check(|n| n.queue = "any text: ok".into()), Ok(()));
        for identity in ["", "a b", "a.b", "*", "ü"] {
            let error = Namespace::default().check(Some(identity)).unwrap_err();
            assert!(error.to_string().starts_with("invalid `identity`"));
        }
    }
}
