//! The server's way to write times.

use crate::broker::ServerTime;

/// Reads a time as in `2026-01-31T08:05:06.123456789Z`, or with an offset in place of the `Z`.
pub(super) fn parse(text: &str) -> Option<ServerTime> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (year, month, day) = (
        number(date, 0..4)?,
        number(date, 5..7)?,
        number(date, 8..10)?,
    );
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (hour, minute, second) = (
        number(rest, 0..2)?,
        number(rest, 3..5)?,
        number(rest, 6..8)?,
    );
    let rest = rest.get(8..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(
            rest.find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len()),
        ),
        None => ("", rest),
    };
    let mut nanos = 0;
    for place in 0..9 {
        let digit = fraction.as_bytes().get(place).map_or(0, |byte| byte - b'0');
        nanos = nanos * 10 + i64::from(digit);
    }
    let offset = match zone.as_bytes().first()? {
        b'Z' | b'z' => 0,
        sign @ (b'+' | b'-') => {
            let minutes = number(zone, 1..3)? * 60 + number(zone, 4..6)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let minutes = (days(year, month, day) * 24 + hour) * 60 + minute - offset;
    let nanos = i128::from(minutes * 60 + second) * 1_000_000_000 + i128::from(nanos);
    u64::try_from(nanos).ok().map(ServerTime)
}

fn number(text: &str, range: std::ops::Range<usize>) -> Option<i64> {
    let digits = text.get(range)?;
    let all = digits.bytes().all(|byte| byte.is_ascii_digit());
    if all { digits.parse().ok() } else { None }
}

/// Returns the days from the epoch to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is a year's last day.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days_before_month = (153 * month + 2) / 5;
    const TO_EPOCH: i64 = 719_468;
    year * 365 + leap_days + days_before_month + day - 1 - TO_EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        for (text, nanos) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.5Z", 500_000_000),
            ("2000-03-01T00:00:00Z", 951_868_800_000_000_000),
            ("2024-02-29T12:34:56.123456789Z", 1_709_210_096_123_456_789),
            (
                "2024-02-29T13:34:56.123456789+01:00",
                1_709_210_096_123_456_789,
            ),
            (
                "2024-02-29T11:04:56.123456789-01:30",
                1_709_210_096_123_456_789,
            ),
        ] {
            assert_eq!(parse(text), Some(ServerTime(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "0001-01-01T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.1",
            "2024-01-01T+1:00:00Z",
            "2024-01-01T00:00:00+1",
            "é024-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
