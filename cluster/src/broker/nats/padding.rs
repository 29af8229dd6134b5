//! Jobs of one size, for servers that measure too little.
//!
//! A server before 2.10.5 that decides whether a stream is full counts the payload and the headers
//! of a message, but not the rest of what it writes. If the whole no longer fits, it stores the
//! message nevertheless, and then **removes the oldest ones**: accepted jobs would vanish.
//!
//! So the limit of the stream, and the size of each job as it is stored, are multiples of
//! [`UNIT`]. Then so is what is stored, and a message that would exceed the limit exceeds it by a
//! whole unit, which is more than what the server does not count.

use async_nats::HeaderMap;

/// What sizes are multiples of. It must be more than a subject and [`RECORD`].
const UNIT: usize = 512;

/// What the server adds to a subject, headers and a payload.
const RECORD: usize = 34;

/// The header that makes a message larger.
pub(super) const PADDING: &str = "Fp-Pad";

/// Returns the limit of a stream that takes at most so many bytes.
pub(super) fn limit(bytes: u64) -> u64 {
    let unit = UNIT as u64;
    (bytes / unit).max(1) * unit
}

/// Adds a header that makes the stored size of a message a multiple of [`UNIT`].
pub(super) fn pad(headers: &mut HeaderMap, subject: usize, payload: usize) {
    let stored = RECORD + subject + length(headers) + payload;
    let least = line(PADDING, 1);
    let missing = stored.next_multiple_of(UNIT) - stored;
    if missing == 0 {
        return;
    }
    let missing = match missing < least {
        true => missing + UNIT,
        false => missing,
    };
    headers.insert(PADDING, ".".repeat(missing - least + 1));
}

/// Returns the length of headers as they are sent.
fn length(headers: &HeaderMap) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values
            .iter()
            .map(move |value| line(name, value.as_str().len()))
    });
    "NATS/1.0\r\n\r\n".len() + lines.sum::<usize>()
}

fn line(name: &str, value: usize) -> usize {
    name.len() + ": \r\n".len() + value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_sizes_are_multiples() {
        for payload in 0..2 * UNIT {
            let mut headers = HeaderMap::new();
            headers.insert("Fp-Id", "some-1");
            pad(&mut headers, 40, payload);
            let stored = RECORD + 40 + length(&headers) + payload;
            assert_eq!(stored % UNIT, 0, "{payload}");
            assert!(stored < RECORD + 40 + 40 + payload + 2 * UNIT, "{payload}");
        }
    }

    #[test]
    fn a_limit_is_a_multiple_and_never_none() {
        assert_eq!([0, 700, 1024].map(limit), [512, 512, 1024]);
    }
}
