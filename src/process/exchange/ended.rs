//! What becomes of a call: its result, or why its worker ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use super::{KILL_PATIENCE, Link, Outcome};
use crate::call::CallInfo;
use crate::call::codec::Payload;
use crate::error::{Failure, FailureCause, JoinError, RemotePanic, WorkerName};
use crate::process::frame::FrameError;
use crate::process::wire::{self, Status};
use crate::process::worker::{Ended, KillReason, Worker};

/// How long a worker that has closed its socket may take to end. A process closes it when it ends,
/// but a busy system may take a while for the rest.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(1);

impl Link {
    /// Waits for the end of a worker that is gone, and returns the error of the call that ran or
    /// would have run.
    pub(super) fn end_of(
        &self,
        worker: &Worker,
        info: &CallInfo,
        panic: Option<Payload>,
        may_have_run: bool,
    ) -> JoinError {
        let ended = worker.wait_for_end(END_PATIENCE).or_else(|| {
            let text = "it closed its connection and did not end";
            worker.kill(KillReason::Protocol(text.into()));
            worker.wait_for_end(KILL_PATIENCE)
        });
        worker.end_job(u64::from(may_have_run));
        let status = ended.and_then(|ended| ended.status);
        let output = last_output(worker).map(Box::from);
        if let Some(panic) = panic {
            return remote_panic(&panic, worker, info, status, output);
        }
        let cause = match worker.kill_reason() {
            Some(KillReason::Cancelled) => FailureCause::Killed,
            Some(KillReason::TimeLimit(limit)) => FailureCause::TimeLimit(limit),
            Some(KillReason::MemoryLimit { limit, seen }) => {
                FailureCause::MemoryLimit { limit, seen }
            }
            Some(KillReason::Protocol(text)) => {
                FailureCause::Crashed(format!("was killed: {text}").into())
            }
            Some(KillReason::Leaving) => FailureCause::Crashed("was killed with its pool".into()),
            None => FailureCause::Crashed(match ended {
                Some(ended) => describe_end(ended).into(),
                None => "was killed, and did not end in time".into(),
            }),
        };
        JoinError::failed(Failure {
            task: Some(info.name.into()),
            worker: Some(WorkerName::Pid(worker.pid())),
            status,
            output,
            may_have_run,
            ..Failure::new(cause)
        })
    }
}

/// Kills a worker that does not keep to the protocol. One that has ended is left alone.
pub(super) fn protocol_error(worker: &Worker, error: FrameError) {
    let text = match error {
        FrameError::End | FrameError::Truncated => return,
        FrameError::Io(error) => {
            // The other end is gone.
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ) {
                return;
            }
            format!("its socket failed: {error}")
        }
        other => format!("it sent something that is no message: {other}"),
    };
    worker.kill(KillReason::Protocol(text.into()));
}

pub(super) fn outcome(
    status: Status,
    payload: Payload,
    worker: &Worker,
    info: &CallInfo,
) -> Outcome {
    let text = || String::from_utf8_lossy(&payload.body).into_owned();
    match status {
        Status::Returned => Ok(payload),
        Status::Panicked | Status::PanickedAndAborts => {
            Err(remote_panic(&payload, worker, info, None, None))
        }
        Status::BadArguments => {
            let text = format!("the worker could not decode the arguments: {}", text());
            Err(JoinError::codec(info.name, text, false))
        }
        Status::BadOutput => {
            let text = format!("the worker could not encode the result: {}", text());
            Err(JoinError::codec(info.name, text, true))
        }
        Status::UnknownTask => Err(unknown_task(info, text())),
        Status::Skipped => Err(JoinError::cancelled()),
    }
}

pub(super) fn remote_panic(
    payload: &Payload,
    worker: &Worker,
    info: &CallInfo,
    status: Option<std::process::ExitStatus>,
    output: Option<Box<str>>,
) -> JoinError {
    let (message, location) = wire::decode_panic(payload).unwrap_or(("(no text)", ""));
    #[cfg(feature = "console")]
    crate::console::registry::task_panicked(worker.pid(), info.name, message, location);
    let remote = RemotePanic {
        location: Some(location)
            .filter(|place| !place.is_empty())
            .map(Box::from),
        task: info.name.into(),
        worker: Some(WorkerName::Pid(worker.pid())),
        status,
        output,
    };
    JoinError::panicked_in_worker(message.to_owned(), remote)
}

/// Returns the last lines that a worker has written to its stderr, as far as they were read.
pub(crate) fn last_output(worker: &Worker) -> Option<String> {
    let output = worker.output.stderr.as_ref()?;
    output.drain(Duration::from_millis(100));
    Some(output.tail())
}

/// Says how a process ended: what follows its name in a message.
pub(crate) fn describe_end(ended: Ended) -> String {
    let Some(status) = ended.status else {
        return "ended in an unknown way: another part of this program has reaped it".to_owned();
    };
    if let Some(code) = status.code() {
        return format!("exited with code {code}");
    }
    let Some(signal) = status.signal() else {
        return format!("ended with {status}");
    };
    let name = signal_name(signal).map_or(String::new(), |name| format!(" ({name})"));
    let core = if status.core_dumped() {
        ", core dumped"
    } else {
        ""
    };
    let hint = if signal == rustix::process::Signal::KILL.as_raw() {
        ", not by its pool: perhaps by the system's out-of-memory killer"
    } else {
        ""
    };
    format!("was killed by signal {signal}{name}{core}{hint}")
}

pub(super) fn signal_name(number: i32) -> Option<&'static str> {
    use rustix::process::Signal;
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ];
    let named = names.iter().find(|(signal, _)| signal.as_raw() == number);
    named.map(|(_, name)| *name)
}

pub(super) fn unknown_task(info: &CallInfo, text: String) -> JoinError {
    JoinError::unknown_task(info.name, text)
}
