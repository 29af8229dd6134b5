//! The subject on which a delivery is acknowledged. It says which delivery it is.

use crate::broker::ServerTime;

/// What an acknowledgement's subject says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed<'a> {
    pub(super) stream: &'a str,
    pub(super) consumer: &'a str,
    /// How often the message was delivered.
    pub(super) count: u64,
    /// The sequence in the stream.
    pub(super) seq: u64,
    /// The sequence in the consumer, which counts deliveries.
    pub(super) delivery: u64,
    pub(super) time: ServerTime,
}

/// Reads both forms: that of one server, and that with a domain and an account in front.
pub(super) fn parse(subject: &str) -> Option<Parsed<'_>> {
    let mut tokens = subject.strip_prefix("$JS.ACK.")?.split('.');
    let tokens_left = tokens.clone().count();
    if tokens_left >= 9 {
        // The domain and the account. A random token may stand at the end.
        tokens.nth(1);
    } else if tokens_left != 7 {
        return None;
    }
    Some(Parsed {
        stream: tokens.next()?,
        consumer: tokens.next()?,
        count: tokens.next()?.parse().ok()?,
        seq: tokens.next()?.parse().ok()?,
        delivery: tokens.next()?.parse().ok()?,
        time: ServerTime(tokens.next()?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let wanted = Parsed {
            stream: "S",
            consumer: "q+t+1",
            count: 2,
            seq: 30,
            delivery: 44,
            time: ServerTime(1_700_000_000_000_000_000),
        };
        for subject in [
            "$JS.ACK.S.q+t+1.2.30.44.1700000000000000000.5",
            "$JS.ACK._.ACCHASH.S.q+t+1.2.30.44.1700000000000000000.5",
            "$JS.ACK.hub.ACCHASH.S.q+t+1.2.30.44.1700000000000000000.5.rAnDoM",
        ] {
            assert_eq!(parse(subject).as_ref(), Some(&wanted), "{subject}");
        }
    }

    #[test]
    fn other_subjects_are_refused() {
        for subject in [
            "",
            "_INBOX.x",
            "$JS.ACK.",
            "$JS.ACK.S.c.1.2.3.4",
            "$JS.ACK.S.c.1.2.3.4.5.6",
            "$JS.ACK.S.c.x.2.3.4.5",
            "$JS.ACK.S.c.-1.2.3.4.5",
        ] {
            assert_eq!(parse(subject), None, "{subject}");
        }
    }
}
