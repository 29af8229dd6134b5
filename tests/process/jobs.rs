//! The tasks that the tests share, and what the tests know of processes.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use futurepool::process::{WorkerInfo, WorkerState, WorkerStdio};
use futurepool::{JoinHandle, ProcessPool, ProcessPoolBuilder, task};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::eventually;

/// Returns a builder whose workers do not write between the lines of the test.
pub(crate) fn quiet(workers: usize) -> ProcessPoolBuilder {
    ProcessPool::builder()
        .max_workers(workers)
        .stdout(WorkerStdio::null())
        .stderr(WorkerStdio::null())
}

/// Returns the same with a stderr that the pool reads.
pub(crate) fn piped(workers: usize) -> ProcessPoolBuilder {
    quiet(workers).stderr(WorkerStdio::lines(|_| ()))
}

#[task]
pub(crate) fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[task]
pub(crate) fn nothing() {}

#[task]
pub(crate) fn own_pid() -> u32 {
    std::process::id()
}

#[task]
pub(crate) fn panics(message: String) {
    panic!("{message}");
}

#[task]
pub(crate) fn sleep(millis: u64) -> u64 {
    thread::sleep(Duration::from_millis(millis));
    millis
}

#[task]
pub(crate) fn never_ends() {
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

#[task]
pub(crate) fn uses_the_processor_for_ever() {
    loop {
        std::hint::spin_loop();
    }
}

#[task]
pub(crate) fn abort() {
    std::process::abort();
}

#[task]
pub(crate) fn exit(code: i32) {
    std::process::exit(code);
}

pub(crate) fn raise(signal: Signal) -> ! {
    // The standard library's handler of SIGSEGV returns once, for a fault that is none.
    loop {
        let _ = kill_process(rustix::process::getpid(), signal);
        thread::sleep(Duration::from_millis(1));
    }
}

#[task]
pub(crate) fn segfault() {
    raise(Signal::SEGV);
}

#[task]
#[expect(unconditional_recursion, reason = "that is the point")]
pub(crate) fn overflow_the_stack(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 512]);
    overflow_the_stack(depth + 1) + page[1]
}

#[task]
pub(crate) fn complain_and_abort(lines: u32) {
    for line in 0..lines {
        eprintln!("complaint {line}");
    }
    std::process::abort();
}

#[task]
pub(crate) fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

/// Writes a line in one step, so that lines of several processes do not mix.
pub(crate) fn write_line(file: &str, line: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

pub(crate) fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[task]
pub(crate) fn append(file: String, line: String) {
    write_line(&file, &line);
}

#[task]
pub(crate) fn append_and_sleep(file: String, line: String, millis: u64) {
    write_line(&file, &line);
    thread::sleep(Duration::from_millis(millis));
}

#[task]
pub(crate) fn append_and_abort(file: String, line: String) {
    write_line(&file, &line);
    std::process::abort();
}

#[task(idempotent, attempts = 3)]
pub(crate) fn append_and_abort_again(file: String, line: String) {
    write_line(&file, &line);
    std::process::abort();
}

/// Aborts at the first start.
#[task(idempotent, attempts = 3)]
pub(crate) fn succeed_at_second_start(file: String) -> usize {
    write_line(&file, "start");
    let starts = lines(Path::new(&file)).len();
    if starts == 1 {
        std::process::abort();
    }
    starts
}

/// Starts a child process that ignores what can be ignored, and waits for it.
#[task]
pub(crate) fn wait_for_a_child_that_ignores_signals(file: String) {
    let script = "trap '' HUP INT QUIT TERM USR1 USR2 ALRM PIPE; while :; do sleep 1; done";
    let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
    write_line(&file, &child.id().to_string());
    child.wait().unwrap();
}

/// Runs until the pool asks it to end, and says so in a file.
#[task]
pub(crate) fn end_when_asked(file: String) {
    write_line(&file, "started");
    while !futurepool::cancel_requested() {
        thread::sleep(Duration::from_millis(1));
    }
    write_line(&file, "asked");
}

/// What never goes away.
struct HangsAtExit;

impl Drop for HangsAtExit {
    fn drop(&mut self) {
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }
}

/// Returns the pid of its process, which hangs when it exits.
#[task]
pub(crate) fn hang_at_exit() -> u32 {
    thread_local! {
        static HANGS: RefCell<Option<HangsAtExit>> = const { RefCell::new(None) };
    }
    HANGS.with(|hangs| *hangs.borrow_mut() = Some(HangsAtExit));
    std::process::id()
}

/// Does the same as [`end_when_asked`]. Then its process hangs when it exits.
#[task]
pub(crate) fn end_when_asked_and_hang(file: String) {
    hang_at_exit();
    end_when_asked(file);
}

/// Stops a process from outside.
pub(crate) fn stop(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
}

/// Kills a process from outside.
pub(crate) fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    let _ = kill_process(pid, Signal::KILL);
}

/// Returns whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) if cfg!(target_os = "linux") => false,
        Err(_) => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
            rustix::process::test_kill_process(pid).is_ok()
        }
    }
}

fn find_worker(pool: &ProcessPool, label: &str) -> Option<u32> {
    let workers = pool.workers();
    let runs = |worker: &&WorkerInfo| {
        worker.state == WorkerState::Running && worker.label.as_deref() == Some(label)
    };
    workers.iter().find(runs).map(|worker| worker.pid)
}

/// Waits until a worker runs a job with this label, and returns its pid.
#[track_caller]
pub(crate) fn worker_of(pool: &ProcessPool, label: &str) -> u32 {
    let mut pid = None;
    eventually("a worker runs the job", || {
        pid = find_worker(pool, label);
        pid.is_some()
    });
    pid.unwrap()
}

/// Kills the worker of a job from outside. If the worker had not begun the job, another one gets it, and
/// is killed, too.
#[track_caller]
pub(crate) fn kill_worker_of<T>(pool: &ProcessPool, label: &str, handle: &JoinHandle<T>) {
    eventually("the job has ended", || {
        if let Some(pid) = find_worker(pool, label) {
            kill(pid);
        }
        handle.is_finished()
    });
}

/// Asserts that the counts of a quiet pool add up, and returns them.
#[track_caller]
pub(crate) fn assert_balanced(pool: &ProcessPool) -> futurepool::Metrics {
    let is_balanced = |now: &futurepool::Metrics| {
        now.submitted == now.completed + now.panicked + now.cancelled + now.failed
    };
    eventually("the counts add up", || is_balanced(&pool.metrics()));
    pool.metrics()
}

#[task(idempotent, attempts = 3)]
pub(crate) fn abort_again() {
    std::process::abort();
}
