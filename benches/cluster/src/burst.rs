//! What a burst of jobs costs, beside its time.

use std::process;
use std::time::Duration;

use crate::child::cpu_time;
use crate::result::Sample;
use crate::server::{Messages, Server};

/// What was used before a burst.
pub(crate) struct Meter {
    messages: Messages,
    times: [Option<Duration>; 3],
}

impl Meter {
    /// Reads what the server, the `workers` and this process have used.
    pub(crate) fn read(server: &Server, workers: &[u32]) -> Result<Self, String> {
        let workers = workers.iter().map(|&worker| cpu_time(worker));
        let times = [
            cpu_time(server.pid()),
            workers.sum(),
            cpu_time(process::id()),
        ];
        let messages = server.messages()?;
        Ok(Self { messages, times })
    }

    /// Returns the figures of [`Row::Burst`](crate::rows::Row::Burst). `self` was read before it.
    pub(crate) fn sample(&self, after: &Self, elapsed: Duration, jobs: u64) -> Sample {
        let each = |total: f64| total / jobs as f64;
        let (before, now) = (self.messages, after.messages);
        let mut sample = vec![
            Some(each(elapsed.as_secs_f64() * 1e9)),
            Some(each((now.received - before.received) as f64)),
            Some(each((now.sent - before.sent) as f64)),
        ];
        sample.extend(self.times.iter().zip(&after.times).map(|(before, now)| {
            let used = now.as_ref()?.checked_sub((*before)?)?;
            Some(each(used.as_secs_f64() * 1e9))
        }));
        sample
    }
}
