//! Queued jobs that a waiting worker could run itself, since it waits for them.
//!
//! Every handle that a worker polls, and whose job is queued in its own pool, offers that job here. When nobody else can
//! run it, the worker is asked to (`pool/dozing.rs`). What it has to be sure of by then is that its present wait is for
//! that job: it may have been polled and left since, and a job that runs on the stack of a waiter which does not wait
//! for it could meet the locks that this one holds. So a job is run only if the very last poll of the wait polled it. A
//! set of futures polls only those that were woken; so other offers are *nudged*, each once by a wait: whoever waits for
//! the job is woken for nothing, and if that is the present wait, it polls the job again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::Weak;

use crate::util::sync::{Arc, Mutex, local};

/// Queued jobs that were polled by a job in a worker, and that its waits could run.
#[derive(Default)]
pub(crate) struct Offers(Mutex<List>);

#[derive(Default)]
struct List {
    /// By age: in the order in which they were polled first.
    jobs: BTreeMap<u64, Offer>,
    /// Their numbers, by address.
    numbers: HashMap<usize, u64>,
    next_number: u64,
    /// When there are so many, those that are not queued any more are thrown out.
    prune_at: usize,
}

struct Offer {
    job: Weak<dyn Helpable>,
    /// Which poll of a `block_on` has polled it last; 0 for any other.
    polled: u64,
    /// The last `block_on` that has nudged it, and has not polled it since.
    nudged_by: u64,
}

/// The offers of a sleeper, and what it needs to tell which of them may be its own.
pub(crate) struct Offering {
    offers: Arc<Offers>,
    turn: Turn,
}

/// A poll of a `block_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The number of the `block_on`.
    wait: u64,
    poll: u64,
}

/// What a `block_on` that has to help does next.
pub(crate) enum Help {
    Run(Arc<dyn Helpable>),
    Nudge(Arc<dyn Helpable>),
    Nothing,
}

/// A job that a waiter may run, because it waits for it.
pub(crate) trait Helpable: Send + Sync {
    /// Whether it is still queued, and somebody wants it. Once false it stays so.
    fn is_waiting(&self) -> bool;
    /// Runs it in this thread if it is still queued; says whether it did. Never unwinds.
    fn help(self: Arc<Self>) -> bool;
    /// Wakes whoever waits for it, for nothing, to see who that is.
    fn nudge(&self);
}

local! {
    /// Whether this thread is a worker, in its loop or in its initializer.
    static COLLECTS: Cell<bool> = const { Cell::new(false) };

    /// Of the innermost job of this thread.
    static OFFERS: RefCell<Option<Arc<Offers>>> = const { RefCell::new(None) };

    /// The innermost `block_on` of the innermost job of this thread.
    static FRAME: Cell<Frame> = const { Cell::new(Frame::None) };

    /// The last number of a `block_on` or a poll of one.
    static LAST_NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// Whether a thread is in `block_on`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    None,
    /// It has a time limit, and so never runs an offer.
    Timed,
    /// In that poll.
    Untimed(Turn),
}

/// This thread is a worker from now on, or is none any more.
pub(crate) fn collect(collects: bool) {
    COLLECTS.set(collects);
}

impl Turn {
    /// Before the first poll.
    pub(crate) fn first(wait: u64) -> Self {
        Self { wait, poll: wait }
    }
}

impl Offering {
    /// Those of the job that this thread runs.
    pub(crate) fn of_this_thread(turn: Turn) -> Option<Self> {
        let offers = offers()?;
        Some(Self { offers, turn })
    }

    /// Whether there is one that may be run, as far as is known. What has to be dropped goes to `spent`, to be dropped
    /// outside locks.
    pub(crate) fn any(&self, spent: &mut Vec<Arc<dyn Helpable>>) -> bool {
        self.offers.0.lock().oldest(self.turn, spent).is_some()
    }
}

impl Offer {
    fn is_fresh(&self, turn: Turn) -> bool {
        self.polled == turn.poll
    }
}

impl Offers {
    pub(crate) fn next(&self, turn: Turn) -> Help {
        let mut spent = Vec::new();
        let mut list = self.0.lock();
        let help = match list.oldest(turn, &mut spent) {
            None => Help::Nothing,
            Some((number, job)) => match list.jobs.get_mut(&number) {
                Some(offer) if !offer.is_fresh(turn) => {
                    offer.nudged_by = turn.wait;
                    Help::Nudge(job)
                }
                _ => {
                    list.remove(number);
                    Help::Run(job)
                }
            },
        };
        drop(list);
        help
    }

    fn add(&self, job: Weak<dyn Helpable>, polled: Option<Turn>) {
        let mut spent = Vec::new();
        let mut list = self.0.lock();
        list.add(job, polled);
        if list.jobs.len() >= list.prune_at {
            list.prune(&mut spent);
        }
        drop(list);
    }
}

impl List {
    /// The oldest that is still queued and may be what this turn's wait is for: it was polled in this turn, or the wait
    /// has not nudged it. Those that are not queued any more are forgotten.
    fn oldest(
        &mut self,
        turn: Turn,
        spent: &mut Vec<Arc<dyn Helpable>>,
    ) -> Option<(u64, Arc<dyn Helpable>)> {
        let mut gone = Vec::new();
        let oldest = self.jobs.iter().find_map(|(&number, offer)| {
            let job = match offer.job.upgrade() {
                Some(job) if job.is_waiting() => job,
                other => {
                    spent.extend(other);
                    gone.push(number);
                    return None;
                }
            };
            if offer.is_fresh(turn) || offer.nudged_by != turn.wait {
                return Some((number, job));
            }
            spent.push(job);
            None
        });
        gone.into_iter().for_each(|number| self.remove(number));
        oldest
    }

    fn remove(&mut self, number: u64) {
        if let Some(offer) = self.jobs.remove(&number) {
            self.numbers.remove(&address(&offer.job));
        }
    }

    fn add(&mut self, job: Weak<dyn Helpable>, polled: Option<Turn>) {
        let next = self.next_number;
        let number = *self.numbers.entry(address(&job)).or_insert(next);
        self.next_number += u64::from(number == next);
        let offer = self.jobs.entry(number).or_insert(Offer {
            job,
            polled: 0,
            nudged_by: 0,
        });
        offer.polled = polled.map_or(0, |turn| turn.poll);
        // The wait that has nudged it is for it.
        if polled.is_some_and(|turn| turn.wait == offer.nudged_by) {
            offer.nudged_by = 0;
        }
    }

    /// Keeps those that are still queued. It comes after as many offers as are kept, so each pays for a step or two.
    fn prune(&mut self, spent: &mut Vec<Arc<dyn Helpable>>) {
        let mut gone = Vec::new();
        for (&number, offer) in &self.jobs {
            let job = offer.job.upgrade();
            if !job.as_ref().is_some_and(|job| job.is_waiting()) {
                gone.push(number);
            }
            spent.extend(job);
        }
        gone.into_iter().for_each(|number| self.remove(number));
        self.prune_at = 8.max(2 * self.jobs.len());
    }
}

/// No other job has it while there is a `Weak` to this one.
fn address(job: &Weak<dyn Helpable>) -> usize {
    job.as_ptr().cast::<()>().addr()
}

/// While it is there, this thread polls for a `block_on`, or is in a job and in no `block_on` of that yet.
pub(crate) struct Inside {
    outer: Frame,
    /// Those of the outer job, if a job began.
    offers: Option<Option<Arc<Offers>>>,
}

impl Inside {
    /// One poll of a wait that helps, whose turn it is from now on.
    pub(crate) fn block_on(last: &Cell<Option<Turn>>, timed: bool) -> Self {
        let frame = match last.get() {
            Some(turn) if !timed => {
                let turn = Turn {
                    poll: next_number(),
                    ..turn
                };
                last.set(Some(turn));
                Frame::Untimed(turn)
            }
            _ => Frame::Timed,
        };
        Self {
            outer: FRAME.replace(frame),
            offers: None,
        }
    }

    /// A poll that only looks, and whose future is not what this thread waits for.
    pub(crate) fn look() -> Self {
        Self {
            outer: FRAME.replace(Frame::None),
            offers: None,
        }
    }

    /// What a job polls is not polled by a `block_on` that its thread is in.
    pub(crate) fn job() -> Self {
        let offers = OFFERS.try_with(|offers| offers.take());
        Self {
            outer: FRAME.replace(Frame::None),
            offers: Some(offers.ok().flatten()),
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        FRAME.set(self.outer);
        if let Some(outer) = self.offers.take() {
            let own = OFFERS.try_with(|offers| offers.replace(outer));
            drop(own);
        }
    }
}

/// Whether this thread is in `block_on`: if a future has to wait, the thread waits, whatever waker it is polled with.
pub(crate) fn blocks_here() -> bool {
    FRAME.get() != Frame::None
}

/// A job was polled that is not done: if this thread may run it, its waits will know it.
pub(crate) fn offer(job: impl FnOnce() -> Option<Weak<dyn Helpable>>) {
    if !COLLECTS.get() {
        return;
    }
    if let Some(job) = job() {
        let polled = match FRAME.get() {
            Frame::Untimed(turn) => Some(turn),
            Frame::Timed | Frame::None => None,
        };
        let offers =
            OFFERS.try_with(|offers| Arc::clone(offers.borrow_mut().get_or_insert_default()));
        if let Ok(offers) = offers {
            offers.add(job, polled);
        }
    }
}

pub(crate) fn next_number() -> u64 {
    let number = LAST_NUMBER.get() + 1;
    LAST_NUMBER.set(number);
    number
}

pub(crate) fn offers() -> Option<Arc<Offers>> {
    let offers = OFFERS.try_with(|offers| offers.borrow().clone());
    offers.ok().flatten()
}
