//! A thread that waits: what wakes it, and what it may do meanwhile if it is a worker.
//!
//! A worker that waits for jobs of its own pool may be the one who has to run them. Two parts of that are here, since
//! every blocking wait of the crate sleeps here. The worker tells its pool when it falls asleep ([`Crew`]), and which jobs
//! it could run then ([`offers`](crate::park::helping)). The pool asks a sleeper to run one when nobody else can
//! (`pool/dozing.rs`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ptr;
use std::sync::OnceLock;
use std::task::{RawWakerVTable, Wake, Waker};

use crate::park::helping::{Help, Offering, Turn, collect, next_number, offers};
use crate::util::sync::thread::{self, Thread};
use crate::util::sync::{Arc, AtomicBool, Instant, Ordering, local};

/// A thread that waits for one thing, and the waker that ends the wait.
///
/// The waker of a thread is made once and kept for its next wait. A wait inside a wait (a future that calls
/// `block_on`) gets one of its own, or it would take the outer one's call for its own.
pub(crate) struct Sleeper {
    /// `None` only in `drop`.
    bell: Option<(Arc<Bell>, Waker)>,
    /// If it runs offers when it is asked to: the last poll.
    turn: Cell<Option<Turn>>,
    /// What is left to be done, now that it is awake.
    chore: Cell<Chore>,
}

/// What a worker has to do for its pool before it can sleep. Foreign code may run in it, so it is awake for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chore {
    None,
    /// All workers wait, and one more can be started then.
    Hire(Instant),
    /// All workers wait, there are jobs in the queue, and nobody is known that waits for one of them. Not at once: it
    /// may be over soon.
    Nudge(Instant),
    /// This thread refuses jobs, one after the other, and now waits in a callback of one.
    Confess,
}

/// What the waker rings.
pub(crate) struct Bell {
    thread: Thread,
    /// Set by the waker, reset by the sleeper. The token of `unpark` alone would not do: foreign code that this thread
    /// runs between two waits may park, too, and take it.
    rung: AtomicBool,
    /// The pool wants the sleeper to run an offer. Set under the lock of the pool's list of sleepers, reset by the
    /// sleeper when it is not in there any more.
    asked: AtomicBool,
}

/// The pool of a worker, as far as it has to know of its waits.
pub(crate) trait Crew: Send + Sync {
    /// This worker is about to fall asleep, for as long as it takes.
    fn doze(self: Arc<Self>, bell: &Arc<Bell>, offers: Option<Offering>) -> Chore;
    /// It is awake.
    fn stir(&self, bell: &Arc<Bell>);
    /// [`Chore::Hire`].
    fn hire(self: Arc<Self>);
    /// [`Chore::Nudge`]: wakes whoever awaits a queued job. It may be one of the sleepers, without having offered it.
    fn nudge_all(self: Arc<Self>);
}

/// The pool whose jobs a thread refuses.
pub(crate) trait Refuser {
    /// [`Chore::Confess`]: wakes whoever waits for a job that is to be refused. They end it themselves then.
    fn wake_condemned(&self);
}

local! {
    /// Whose jobs this thread refuses, each in a callback of the one before; `None` once it has said so to those who
    /// wait for them.
    static REFUSERS: RefCell<Vec<Option<Arc<dyn Refuser>>>> = const { RefCell::new(Vec::new()) };

    /// The bells of this thread that are not in use.
    static SPARE: RefCell<Vec<(Arc<Bell>, Waker)>> = const { RefCell::new(Vec::new()) };

    /// Whose worker this thread is, while it is in its loop.
    static CREW: RefCell<Option<Arc<dyn Crew>>> = const { RefCell::new(None) };
}

/// Runs `refuse`, in which this thread refuses a job of that pool. It must not unwind.
pub(crate) fn refusing<R>(refuser: Arc<dyn Refuser>, refuse: impl FnOnce() -> R) -> R {
    let there = REFUSERS.try_with(|refusers| refusers.borrow_mut().push(Some(refuser)));
    let result = refuse();
    if there.is_ok() {
        let refuser = REFUSERS.try_with(|refusers| refusers.borrow_mut().pop());
        drop(refuser);
    }
    result
}

fn refuses_here() -> bool {
    let refuses = REFUSERS.try_with(|refusers| refusers.borrow().iter().any(Option::is_some));
    refuses.unwrap_or(false)
}

/// So many bells a thread keeps. More than two waits in each other are rare.
const SPARES: usize = 2;

/// How our own wakers are known: by their table of functions.
static OUR_TABLE: OnceLock<&'static RawWakerVTable> = OnceLock::new();

impl Sleeper {
    pub(crate) fn new() -> Self {
        Self::make(None)
    }

    /// One that [helps if it is asked](Self::help_if_asked).
    pub(crate) fn helping() -> Self {
        let wait = next_number();
        Self::make(Some(Turn::first(wait)))
    }

    fn make(turn: Option<Turn>) -> Self {
        // Without thread-locals (this thread is ending) a new one is made for each wait.
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
        Self {
            bell: Some(spare.ok().flatten().unwrap_or_else(new_bell)),
            turn: Cell::new(turn),
            chore: Cell::new(Chore::None),
        }
    }

    pub(crate) fn waker(&self) -> &Waker {
        let (_, waker) = self.both();
        waker
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        let (bell, _) = self.both();
        bell
    }

    fn both(&self) -> &(Arc<Bell>, Waker) {
        self.bell.as_ref().expect("it is there until the drop")
    }

    /// The last poll of this wait, if it helps.
    pub(crate) fn turn(&self) -> &Cell<Option<Turn>> {
        &self.turn
    }

    /// Whether the next sleep would end at once.
    pub(crate) fn is_called(&self) -> bool {
        self.bell().rung.load(Ordering::Acquire)
    }

    /// Sleeps until the waker was called since the last time, or `deadline` has passed; says whether it was called.
    /// Called for nothing it may be, too, as every waker.
    ///
    /// Without a deadline the pool counts this thread as one that waits, if it is a worker.
    pub(crate) fn sleep(&self, deadline: Option<Instant>) -> bool {
        let called = self.sleep_only(deadline);
        self.do_chore();
        called
    }

    /// As [`sleep`](Self::sleep); no foreign code runs in it. To be followed by [`do_chore`](Self::do_chore).
    pub(crate) fn sleep_only(&self, deadline: Option<Instant>) -> bool {
        let bell = self.bell();
        if bell.rung.swap(false, Ordering::Acquire) {
            return true;
        }
        if refuses_here() {
            self.chore.set(Chore::Confess);
            return true;
        }
        let Some(deadline) = deadline else {
            match crew() {
                Some(crew) => self.sleep_as_worker(&crew),
                None => {
                    while !bell.rung.swap(false, Ordering::Acquire) {
                        thread::park();
                    }
                }
            }
            return true;
        };
        while !bell.rung.swap(false, Ordering::Acquire) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left);
        }
        true
    }

    fn sleep_as_worker(&self, crew: &Arc<dyn Crew>) {
        let bell = self.bell();
        let offers = self.turn.get().and_then(Offering::of_this_thread);
        let chore = Arc::clone(crew).doze(bell, offers);
        let do_at = match chore {
            Chore::None | Chore::Confess => None,
            Chore::Hire(at) | Chore::Nudge(at) => Some(at),
        };
        while !bell.rung.swap(false, Ordering::Acquire) {
            let Some(do_at) = do_at else {
                thread::park();
                continue;
            };
            let left = do_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.chore.set(chore);
                break;
            }
            thread::park_timeout(left);
        }
        crew.stir(bell);
    }

    /// Does what the last sleep has left to do. The caller then looks again at what it waits for, and sleeps again.
    pub(crate) fn do_chore(&self) {
        let chore = self.chore.replace(Chore::None);
        if chore == Chore::None {
            return;
        }
        match (chore, crew()) {
            (Chore::Confess, _) => {
                let refusers = REFUSERS.try_with(|refusers| {
                    let mut refusers = refusers.borrow_mut();
                    refusers
                        .iter_mut()
                        .filter_map(Option::take)
                        .collect::<Vec<_>>()
                });
                for refuser in refusers.unwrap_or_default() {
                    refuser.wake_condemned();
                }
            }
            (Chore::Hire(_), Some(crew)) => crew.hire(),
            (Chore::Nudge(_), Some(crew)) => crew.nudge_all(),
            _ => {}
        }
    }

    /// If the pool has asked for it since the last time: runs the oldest offer that is waited for.
    pub(crate) fn help_if_asked(&self) {
        let bell = self.bell();
        if !bell.asked.swap(false, Ordering::Relaxed) {
            return;
        }
        let (Some(offers), Some(turn)) = (offers(), self.turn.get()) else {
            return;
        };
        loop {
            match offers.next(turn) {
                Help::Run(job) => {
                    if job.help() {
                        return;
                    }
                    // Somebody else has it.
                }
                Help::Nudge(job) => {
                    job.nudge();
                    // Not asleep yet: another poll, and then again.
                    bell.ask();
                    bell.ring();
                    return;
                }
                Help::Nothing => return,
            }
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let Some((bell, waker)) = self.bell.take() else {
            return;
        };
        bell.asked.store(false, Ordering::Relaxed);
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARES {
                spare.push((bell, waker));
            }
        });
    }
}

impl fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleeper").finish_non_exhaustive()
    }
}

impl Bell {
    /// Asks the sleeper to run an offer. To be followed by [`ring`](Self::ring), outside locks.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// The only place that makes such a waker, so that there is one table.
#[inline(never)]
fn new_bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::new(Bell {
        thread: thread::current(),
        rung: AtomicBool::new(false),
        asked: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&bell));
    OUR_TABLE.get_or_init(|| waker.vtable());
    (bell, waker)
}

/// Whether this waker only unparks a thread that waits in this crate, and so is quick and runs nobody's code.
pub(crate) fn is_ours(waker: &Waker) -> bool {
    OUR_TABLE
        .get()
        .is_some_and(|ours| ptr::eq(*ours, waker.vtable()))
}

/// This thread is a worker of that pool from now on, or of none.
pub(crate) fn set_crew(crew: Option<Arc<dyn Crew>>) {
    collect(crew.is_some());
    let old = CREW.try_with(|mine| mine.replace(crew));
    drop(old);
}

fn crew() -> Option<Arc<dyn Crew>> {
    let crew = CREW.try_with(|crew| crew.borrow().clone());
    crew.ok().flatten()
}
