//! Runs jobs in virtual time. The functions are real: they tell the judge that they start.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;

use crate::watch;
use futurepool::{EncodedCall, JoinError, task};
use tokio::time::sleep;

use super::judge::{Function, Judge, ScriptEnd};
use super::pausable::Process;
use crate::worker::{Runner, Running};

thread_local! {
    /// The judge of the history that runs on this thread.
    static JUDGE: RefCell<Option<Rc<RefCell<Judge>>>> = const { RefCell::new(None) };
    /// The job and the value of the last start.
    static STARTED: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// Sets the judge of this thread.
pub(super) fn set_judge(judge: Option<Rc<RefCell<Judge>>>) {
    JUDGE.set(judge);
}

#[task(name = "model.once")]
pub(super) fn once(n: u64) -> u64 {
    start(n, Function::Once)
}

#[task(name = "model.again", idempotent, attempts = 3)]
pub(super) fn again(n: u64) -> u64 {
    start(n, Function::Again)
}

/// Only some workers have it.
#[task(name = "model.once", version = 2)]
pub(super) fn newer(n: u64) -> u64 {
    start(n, Function::Newer)
}

fn start(n: u64, function: Function) -> u64 {
    let judge = JUDGE.with_borrow(Option::clone);
    let judge = judge.expect("a history has a judge");
    let value = judge.borrow_mut().on_start(n, function);
    STARTED.set(Some((n, value)));
    let panics = judge
        .borrow()
        .jobs
        .get(n as usize)
        .is_some_and(|job| job.script.end == ScriptEnd::Panics);
    if panics {
        // Without the hook, which would print.
        std::panic::resume_unwind(Box::new("scripted"));
    }
    value
}

/// The executor of a worker.
pub(super) struct SimulatedRunner {
    pub(super) judge: Rc<RefCell<Judge>>,
    pub(super) process: Rc<Process>,
    /// It cannot start anything.
    pub(super) broken: Rc<Cell<bool>>,
    /// What the worker has.
    pub(super) tasks: Vec<(&'static str, u32)>,
}

impl Runner for SimulatedRunner {
    fn start(&self, _: &str, call: EncodedCall) -> Running {
        if self.broken.get() {
            return Running::new(async { Err(JoinError::broken("scripted")) }, || {});
        }
        STARTED.set(None);
        let (job, handle) = call.into_job();
        if !self.tasks.contains(&(job.name(), job.version())) {
            let text = format_args!("C5: a worker without {} runs it", job.name());
            self.judge.borrow_mut().violation(text);
        }
        job.run_here();
        let output = handle.join();
        let Some((n, value)) = STARTED.take() else {
            // It has not started: expired, or its arguments cannot be decoded.
            return Running::new(async { output }, || {});
        };
        let script = self.judge.borrow().jobs[n as usize].script;
        let (judge, process) = (Rc::clone(&self.judge), Rc::clone(&self.process));
        let cancel = watch::Sender::new(false);
        let mut cancelled = cancel.subscribe();
        let end = async move {
            let asked = async {
                let _ = cancelled
                    .wait_for(|asked| *asked && script.honours_cancel)
                    .await;
                if !*cancelled.borrow() || !script.honours_cancel {
                    pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = sleep(script.duration) => {}
                () = asked => {}
            }
            if script.end == ScriptEnd::KillsWorker {
                judge.borrow_mut().may_lose = true;
                process.kill();
                pending::<()>().await;
            }
            judge.borrow_mut().on_complete(n, value);
            output
        };
        Running::new(end, move || {
            cancel.send_replace(true);
        })
    }
}
