//! How figures and untrusted texts are written.

use std::fmt::Write as _;

/// The longest text of the cluster that is shown, in characters.
const MAX_TEXT: usize = 160;

/// Cuts a text of the cluster.
pub(crate) fn clip(text: &str) -> String {
    clip_to(text, MAX_TEXT)
}

pub(crate) fn clip_to(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => {
            let end = text.char_indices().nth(max.saturating_sub(1));
            format!("{}…", &text[..end.map_or(0, |(index, _)| index)])
        }
    }
}

/// Makes a text of the cluster safe for a terminal: no control character and no character that
/// changes the direction reaches it, and each text stays on its line.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match is_harmful(character) {
            true => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(character));
            }
            false => safe.push(character),
        }
    }
    safe
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        )
}

/// Writes a duration: `350 ms`, `12 s`, `3 min 5 s`, `2 h 4 min`, `3 d 1 h`.
pub(crate) fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis} ms"),
        1..10 => format!("{}.{} s", seconds, millis % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Writes a size: `17 B`, `1.5 KiB`, `1.0 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// Writes a number with separators between thousands: `12,345`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn replicas(count: usize) -> String {
    match count {
        1 => "1 replica".to_owned(),
        _ => format!("{count} replicas"),
    }
}

/// Writes a rate.
pub(crate) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "–".to_owned(),
        Some(0.0) => "0/s".to_owned(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}/s"),
        Some(rate) => format!("{}/s", count(rate.round() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_character() {
        let hostile = "a\x1b[2Jb\r\nc\u{202e}d\u{9b}31m\u{7}";
        let shown = printable(hostile);
        assert!(!shown.chars().any(is_harmful), "{shown}");
        assert!(shown.starts_with("a\\u{1b}[2Jb"), "{shown}");
        assert_eq!(printable("süß 日本"), "süß 日本");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clip_to("süß", 3), "süß");
        assert_eq!(clip_to("süßer", 3), "sü…");
        assert_eq!(clip(&"x".repeat(1 << 20)).chars().count(), MAX_TEXT);
    }

    #[test]
    fn figures_are_short() {
        let durations = [7, 1_540, 59_999, 65_000, 7_500_000, 90_000_000].map(duration);
        assert_eq!(
            durations,
            ["7 ms", "1.5 s", "59 s", "1 min 5 s", "2 h 5 min", "1 d 1 h"]
        );
        assert_eq!(
            [1023, 1536, 1 << 30].map(bytes),
            ["1023 B", "1.5 KiB", "1.0 GiB"]
        );
        assert_eq!((1 << 20) - 1, 1_048_575);
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [None, Some(0.0), Some(0.25), Some(1234.4)].map(rate),
            ["–", "0/s", "0.2/s", "1,234/s"]
        );
    }
}
