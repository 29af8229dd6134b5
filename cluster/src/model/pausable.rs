//! A process, as the model has it: a future that can be killed or stopped.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What the harness does with a process.
#[derive(Debug, Default)]
pub(super) struct Process {
    state: Cell<State>,
    waker: RefCell<Option<Waker>>,
    polls: Cell<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Runs,
    /// Time goes on, the process does not.
    Stopped,
    Killed,
    /// It has ended by itself.
    Ended,
}

/// A process that was polled so often runs in a circle.
const TOO_MANY_POLLS: u64 = 3_000_000;

impl Process {
    /// Drops the future at the await where it is.
    pub(super) fn kill(&self) {
        if self.is_alive() {
            self.set(State::Killed);
        }
    }

    pub(super) fn stop(&self) {
        if self.state.get() == State::Runs {
            self.set(State::Stopped);
        }
    }

    pub(super) fn resume(&self) {
        if self.state.get() == State::Stopped {
            self.set(State::Runs);
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state.get(), State::Runs | State::Stopped)
    }

    pub(super) fn is_running(&self) -> bool {
        self.state.get() == State::Runs
    }

    fn set(&self, state: State) {
        self.state.set(state);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A future that runs as a process. It ends when the process is killed, too.
pub(super) struct Pausable<F> {
    name: String,
    process: Rc<Process>,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future<Output = ()>> Pausable<F> {
    pub(super) fn new(name: &str, process: &Rc<Process>, future: F) -> Self {
        Self {
            name: name.to_owned(),
            process: Rc::clone(process),
            future: Some(Box::pin(future)),
        }
    }
}

impl<F: Future<Output = ()>> Future for Pausable<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        *this.process.waker.borrow_mut() = Some(context.waker().clone());
        if this.process.state.get() == State::Runs
            && let Some(future) = &mut this.future
        {
            this.process.polls.set(this.process.polls.get() + 1);
            assert!(
                this.process.polls.get() < TOO_MANY_POLLS,
                "{} runs in a circle",
                this.name
            );
            let _peer = crate::broker::memory::faults::Peer::enter(&this.name);
            if future.as_mut().poll(context).is_ready() {
                this.process.state.set(State::Ended);
            }
        }
        match this.process.state.get() {
            State::Runs | State::Stopped => Poll::Pending,
            State::Killed | State::Ended => {
                this.future = None;
                Poll::Ready(())
            }
        }
    }
}
