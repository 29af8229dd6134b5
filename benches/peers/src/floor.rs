//! The floors: what two bare threads need to hand a flag back and forth.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::placement::{pin_caller, pin_worker};

/// How a thread waits.
#[derive(Clone, Copy)]
pub enum Wait {
    Park,
    Spin,
}

impl Wait {
    fn until(self, condition: impl Fn() -> bool) {
        while !condition() {
            match self {
                Wait::Park => thread::park(),
                Wait::Spin => hint::spin_loop(),
            }
        }
    }
}

/// Returns the times of `count` round trips. The thread sleeps for `pause` before each, unmeasured.
pub fn trips(count: usize, pause: Option<Duration>, caller: Wait, worker: Wait) -> Vec<Duration> {
    pin_caller();
    let flag = Arc::new(AtomicBool::new(false));
    let other_flag = Arc::clone(&flag);
    let here = thread::current();
    let other = thread::spawn(move || {
        pin_worker();
        for _ in 0..count {
            worker.until(|| other_flag.load(SeqCst));
            other_flag.store(false, SeqCst);
            if let Wait::Park = caller {
                here.unpark();
            }
        }
    });
    let times = (0..count)
        .map(|_| {
            pause.into_iter().for_each(thread::sleep);
            let start = Instant::now();
            flag.store(true, SeqCst);
            if let Wait::Park = worker {
                other.thread().unpark();
            }
            caller.until(|| !flag.load(SeqCst));
            start.elapsed()
        })
        .collect();
    other.join().expect("the other thread does not panic");
    times
}

/// A bare thread that answers requests by calling the waker of the task that asked.
pub struct Answerer {
    shared: Arc<Shared>,
    thread: thread::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// The number of requests, or `END`.
    requested: AtomicU64,
    /// The number of answers, and the waker of the task that waits for the next one.
    answered: Mutex<(u64, Option<Waker>)>,
}

const END: u64 = u64::MAX;

impl Answerer {
    pub fn start(wait: Wait) -> Self {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            pin_worker();
            for answered in 0.. {
                wait.until(|| own.requested.load(SeqCst) > answered);
                let request = own.requested.load(SeqCst);
                if request == END {
                    break;
                }
                let mut state = own.answered.lock().expect("no thread panics");
                state.0 = request;
                let waker = state.1.take();
                drop(state);
                waker.into_iter().for_each(Waker::wake);
            }
        });
        Self { shared, thread }
    }

    /// Sends request number `number`, which counts from 1, and awaits its answer.
    pub async fn ask(&self, number: u64) {
        self.shared.requested.store(number, SeqCst);
        self.thread.thread().unpark();
        let answer = std::future::poll_fn(|context| {
            let mut state = self.shared.answered.lock().expect("no thread panics");
            if state.0 == number {
                return Poll::Ready(());
            }
            state.1 = Some(context.waker().clone());
            Poll::Pending
        });
        answer.await;
    }

    pub fn stop(self) {
        self.shared.requested.store(END, SeqCst);
        self.thread.thread().unpark();
        self.thread.join().expect("the thread does not panic");
    }
}
