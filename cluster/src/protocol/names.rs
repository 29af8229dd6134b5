//! How names become tokens of subjects, and the subjects of the protocol.

/// Turns any text into one token: letters, digits, `-` and `_` stay, every other byte is `=XX`.
///
/// An empty text has a token, too.
pub(crate) fn token(text: &str) -> String {
    if text.is_empty() {
        return "=".to_owned();
    }
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => token.push(byte.into()),
            _ => token.push_str(&format!("={byte:02X}")),
        }
    }
    token
}

/// Turns a token back into its text. `None` if it is no token.
pub(crate) fn text(token: &str) -> Option<String> {
    if token == "=" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => bytes.push(byte),
            b'=' => {
                let (hex, after) = rest.split_at_checked(2)?;
                let hex = std::str::from_utf8(hex).ok()?;
                bytes.push(u8::from_str_radix(hex, 16).ok()?);
                rest = after;
            }
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

/// Returns the subject, in the store of jobs, of a queue, task and version.
pub(crate) fn job_subject(queue: &str, task: &str, version: u32) -> String {
    format!("{}.{}.{version}", token(queue), token(task))
}

/// The longest subject of a job. Its consumer has that name, and servers take no longer ones.
pub(crate) const MAX_JOB_SUBJECT: usize = 255;

/// The longest token of a detached job's key: a server closes connections with longer lines.
pub(crate) const MAX_KEY: usize = 1024;

/// Returns the token of a detached job's key, or why there is none.
pub(crate) fn key(text: &str) -> Result<String, String> {
    let token = token(text);
    match token.len() <= MAX_KEY {
        true => Ok(token),
        false => Err(format!(
            "the key is too long: it has more than {MAX_KEY} letters and digits, of which any \
             other byte counts as three"
        )),
    }
}

/// Returns the queue, task and version of a subject in the store of jobs.
pub(crate) fn parse_job_subject(subject: &str) -> Option<(String, String, u32)> {
    let mut tokens = subject.split('.');
    let parsed = (
        text(tokens.next()?)?,
        text(tokens.next()?)?,
        tokens.next()?.parse().ok()?,
    );
    tokens.next().is_none().then_some(parsed)
}

/// The subject of notices for one worker.
pub(crate) fn control(worker: &str) -> String {
    format!("ctl.{worker}")
}

/// The subject of notices for all workers.
pub(crate) const CONTROL_ALL: &str = "ctl.all";

/// The subject of notices for one submitter.
pub(crate) fn events(client: &str) -> String {
    format!("ev.{client}")
}

/// The key of a worker in the store of the living.
pub(crate) fn live_worker(worker: &str) -> String {
    format!("w.{worker}")
}

/// The key of a submitter in the store of the living.
pub(crate) fn live_client(client: &str) -> String {
    format!("c.{client}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_one_token_and_comes_back() {
        for sample in [
            "",
            "default",
            "img.thumbnail",
            "a b*>c",
            "süß",
            "=",
            "x=2E",
            "A-b_9",
        ] {
            let token = token(sample);
            assert!(
                !token.is_empty() && !token.contains(['.', ' ', '*', '>']),
                "{token}"
            );
            assert_eq!(text(&token).as_deref(), Some(sample));
        }
    }

    #[test]
    fn tokens_of_different_texts_differ() {
        assert_ne!(token("a.b"), token("a=2Eb"));
        assert_ne!(token(""), token("="));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for bad in ["=2", "=zz", "a.b", "=FF", "a b", "=é"] {
            assert_eq!(text(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_subject_of_a_job_comes_back() {
        let subject = job_subject("my queue", "img.thumbnail", 2);
        let parsed = parse_job_subject(&subject);
        assert_eq!(parsed, Some(("my queue".into(), "img.thumbnail".into(), 2)));
        assert_eq!(parse_job_subject("a.b"), None);
        assert_eq!(parse_job_subject("a.b.1.c"), None);
    }
}
