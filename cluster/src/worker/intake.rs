//! How much a worker takes: which requests it makes, and how many deliveries it holds.
//!
//! A worker has so many *slots*. A delivery is *held* from its arrival until its message has left
//! the queue or was given back. At most twice the slots are held: the half of them runs, the other
//! half waits for a slot, or for its outcome to be stored.

use std::time::Duration;

use tokio::time::Instant;

/// Jobs that run for longer are not taken ahead: another worker may be free sooner.
const PREFETCH_BELOW: Duration = Duration::from_millis(20);

/// A server fills a request at once if it has messages. So one that has brought nothing for longer
/// than a round trip stands before an empty queue, and nothing is expected of it.
const FRESH: Duration = Duration::from_millis(10);

/// The bookkeeping of a worker's requests and deliveries.
#[derive(Debug)]
pub(super) struct Intake {
    slots: usize,
    /// Deliveries that are held.
    held: usize,
    /// The most that were held at once.
    most: usize,
    /// A moving average of run times. `None` before the first run.
    run_time: Option<Duration>,
    /// One for each consumer.
    requests: Vec<Request>,
}

#[derive(Debug, Clone, Default)]
struct Request {
    /// Messages that were asked for and did not come yet. `None`: nothing is asked for.
    wanted: Option<usize>,
    /// When it was made, or has brought something last.
    since: Option<Instant>,
    /// By then its end must have come, or was lost.
    overdue_at: Option<Instant>,
    /// Its last request brought something.
    is_hot: bool,
}

impl Intake {
    pub(super) fn new(slots: usize, consumers: usize) -> Self {
        Self {
            slots: slots.max(1),
            held: 0,
            most: 0,
            run_time: None,
            requests: vec![Request::default(); consumers],
        }
    }

    /// Counts a delivery as held. Returns `false` if that would be one too many.
    pub(super) fn admit(&mut self) -> bool {
        if self.held >= self.limit() {
            return false;
        }
        self.held += 1;
        self.most = self.most.max(self.held);
        true
    }

    /// A delivery is no longer held.
    pub(super) fn release(&mut self) {
        self.held -= 1;
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Returns the most that were ever held at once.
    pub(super) fn most_held(&self) -> usize {
        self.most
    }

    pub(super) fn note_run(&mut self, took: Duration) {
        self.run_time = Some(match self.run_time {
            None => took,
            Some(average) => (average * 7 + took) / 8,
        });
    }

    /// Returns which consumers to ask, and for how many messages. `free`: slots without a job.
    ///
    /// There is at most one request a consumer. The consumers that are busy share the room, and
    /// each of the others is asked for one message, so that none is left out. What comes beyond
    /// the limit then is given back. `patience`: after which time their ends must have come.
    pub(super) fn requests(
        &mut self,
        free: usize,
        now: Instant,
        patience: Duration,
    ) -> Vec<(usize, usize)> {
        let prefetches = self.prefetches();
        if free == 0 && !prefetches {
            return Vec::new();
        }
        let alone = self.requests.len() == 1;
        let is_hot = |request: &Request| alone || request.is_hot;
        let hot = self.requests.iter().filter(|request| is_hot(request));
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < FRESH;
        let fresh = hot
            .clone()
            .filter(|request| request.since.is_some_and(is_fresh));
        let expected: usize = fresh.filter_map(|request| request.wanted).sum();
        let idle = hot.filter(|request| request.wanted.is_none()).count();
        let mut room = self.limit().saturating_sub(self.held + expected);
        if prefetches {
            // A request is a message, too. So a busy worker waits until it can ask for some.
            let enough = (self.slots / 2).max(1);
            if self.held > 0 && room < enough {
                return Vec::new();
            }
        } else {
            room = room.min(free.saturating_sub(expected));
        }
        let share = room.checked_div(idle).unwrap_or(0).max(1);
        let mut made = Vec::new();
        for (index, request) in self.requests.iter_mut().enumerate() {
            if request.wanted.is_some() {
                continue;
            }
            let batch = match alone || request.is_hot {
                true => share,
                false => 1,
            };
            request.wanted = Some(batch);
            request.since = Some(now);
            request.overdue_at = Some(now + patience);
            made.push((index, batch));
        }
        made
    }

    /// Notes that a consumer has delivered a message.
    pub(super) fn on_delivery(&mut self, consumer: usize, now: Instant) {
        let request = &mut self.requests[consumer];
        request.is_hot = true;
        request.since = Some(now);
        if let Some(wanted) = &mut request.wanted {
            *wanted = wanted.saturating_sub(1);
        }
    }

    /// Notes that the request of a consumer has ended.
    pub(super) fn on_end(&mut self, consumer: usize, missing: usize) {
        let request = &mut self.requests[consumer];
        request.wanted = None;
        // Nothing waits there.
        if missing > 0 {
            request.is_hot = false;
        }
    }

    /// Notes that all requests have ended.
    pub(super) fn on_break(&mut self) {
        for request in &mut self.requests {
            *request = Request::default();
        }
    }

    /// Drops requests whose ends did not come in time. Returns when to look again.
    pub(super) fn drop_overdue(&mut self, now: Instant) -> Option<Instant> {
        for request in &mut self.requests {
            if request.wanted.is_some() && request.overdue_at.is_some_and(|at| at <= now) {
                *request = Request::default();
            }
        }
        let asking = self
            .requests
            .iter()
            .filter(|request| request.wanted.is_some());
        asking.filter_map(|request| request.overdue_at).min()
    }

    /// Returns whether anything is asked for.
    pub(super) fn is_asking(&self) -> bool {
        self.requests.iter().any(|request| request.wanted.is_some())
    }

    fn limit(&self) -> usize {
        self.slots * 2
    }

    fn prefetches(&self) -> bool {
        self.run_time
            .is_some_and(|average| average < PREFETCH_BELOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(1);

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn no_more_than_twice_the_slots_are_held() {
        let mut intake = Intake::new(3, 1);
        assert!((0..6).all(|_| intake.admit()));
        assert!(!intake.admit());
        intake.release();
        assert!(intake.admit());
        assert_eq!((intake.held(), intake.most_held()), (6, 6));
    }

    #[test]
    fn it_asks_for_what_fits_the_free_slots() {
        let mut intake = Intake::new(4, 1);
        assert_eq!(intake.requests(4, now(), LONG), [(0, 4)]);
        assert_eq!(intake.requests(4, now(), LONG), []);
        intake.on_delivery(0, now());
        intake.admit();
        intake.on_end(0, 0);
        assert_eq!(intake.requests(3, now(), LONG), [(0, 3)]);
        intake.on_break();
        assert_eq!(intake.requests(0, now(), LONG), []);
    }

    #[test]
    fn short_jobs_are_taken_ahead_and_long_ones_are_not() {
        let mut intake = Intake::new(4, 1);
        intake.note_run(SHORT);
        assert_eq!(intake.requests(4, now(), LONG), [(0, 8)]);
        intake.on_break();
        (0..7).for_each(|_| assert!(intake.admit()));
        // One is too few for a request of its own.
        assert_eq!(intake.requests(2, now(), LONG), []);
        intake.release();
        assert_eq!(intake.requests(0, now(), LONG), [(0, 2)]);
        intake.on_break();
        intake.note_run(LONG);
        assert_eq!(intake.requests(0, now(), LONG), []);
    }

    #[test]
    fn each_consumer_is_asked_and_the_busy_ones_for_more() {
        let mut intake = Intake::new(4, 3);
        assert_eq!(intake.requests(4, now(), LONG), [(0, 1), (1, 1), (2, 1)]);
        intake.on_delivery(1, now());
        intake.on_end(1, 0);
        assert_eq!(intake.requests(4, now(), LONG), [(1, 4)]);
        intake.on_end(1, 4);
        assert_eq!(intake.requests(4, now(), LONG), [(1, 1)]);
    }

    #[test]
    fn it_knows_whether_it_asks() {
        let mut intake = Intake::new(1, 1);
        assert!(!intake.is_asking());
        intake.requests(1, now(), LONG);
        assert!(intake.is_asking());
        intake.on_end(0, 1);
        assert!(!intake.is_asking());
    }

    #[test]
    fn a_request_whose_end_was_lost_is_made_again() {
        let mut intake = Intake::new(1, 1);
        let at = now() + LONG;
        intake.requests(1, at - LONG, LONG);
        assert_eq!(intake.drop_overdue(at - LONG / 2), Some(at));
        assert!(intake.is_asking());
        assert_eq!(intake.drop_overdue(at), None);
        assert!(!intake.is_asking());
    }

    #[test]
    fn nothing_is_expected_of_a_request_that_has_brought_nothing_for_long() {
        let mut intake = Intake::new(4, 2);
        intake.note_run(SHORT);
        let start = now();
        intake.requests(4, start, LONG);
        intake.on_delivery(0, start);
        intake.on_end(0, 0);
        assert_eq!(intake.requests(4, start, LONG), [(0, 8)]);
        // The other consumer has jobs now, and the first has none.
        let later = start + FRESH * 2;
        intake.on_delivery(1, later);
        intake.on_end(1, 0);
        assert!(intake.admit());
        assert_eq!(intake.requests(3, later, LONG), [(1, 7)]);
    }
}
