//! Medians and percentiles of times, in nanoseconds.

use std::time::Duration;

use crate::result::Sample;

/// Returns the median of `times`.
pub(super) fn median(times: Vec<Duration>) -> Option<f64> {
    percentile(&sorted(times), 50)
}

/// Returns the median and the 99th percentile of `times`.
pub(super) fn p50_and_p99(times: Vec<Duration>) -> Sample {
    let sorted = sorted(times);
    vec![percentile(&sorted, 50), percentile(&sorted, 99)]
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    times
}

/// Returns the value that `percent` of the values are below.
fn percentile(sorted: &[Duration], percent: usize) -> Option<f64> {
    let value = sorted.get(sorted.len() * percent / 100)?;
    Some(value.as_secs_f64() * 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_nanos).collect()
    }

    #[test]
    fn one_value_in_a_hundred_is_at_or_above_the_last_percentile() {
        assert_eq!(
            p50_and_p99(nanos((0..200).rev())),
            [Some(100.0), Some(198.0)]
        );
        assert_eq!(p50_and_p99(nanos([7])), [Some(7.0), Some(7.0)]);
        assert_eq!(p50_and_p99(nanos([])), [None, None]);
        assert_eq!(median(nanos([9, 1, 5])), Some(5.0));
    }
}
