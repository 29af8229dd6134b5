//! What workers print, and what they read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{self, Command};
use std::sync::{Arc, Mutex};

use futurepool::process::{OutputLine, OutputStream, WorkerStdio};
use futurepool::{ProcessPool, task};

use crate::common::{LONG, child, eventually, within};

const LINE: &str =
    "a line that tells nothing, and is as long as most lines are, or longer than that";

/// Prints so many lines to both streams, in all ways. Returns what it could read.
#[task]
fn print(lines: u32) -> usize {
    let direct = |fd: io::Result<std::os::fd::OwnedFd>| File::from(fd.unwrap());
    let mut out = direct(io::stdout().as_fd().try_clone_to_owned());
    let mut err = direct(io::stderr().as_fd().try_clone_to_owned());
    for line in 0..lines {
        match line % 2 {
            0 => println!("{LINE}"),
            _ => out.write_all(format!("{LINE}\n").as_bytes()).unwrap(),
        }
        match line % 2 {
            0 => eprintln!("{LINE}"),
            _ => err.write_all(format!("{LINE}\n").as_bytes()).unwrap(),
        }
    }
    let script = format!("echo '{LINE}'; echo '{LINE}' >&2; cat");
    assert!(
        Command::new("sh")
            .args(["-c", &script])
            .status()
            .unwrap()
            .success()
    );
    let mut read = Vec::new();
    let first = io::stdin().read_to_end(&mut read).unwrap();
    first + io::stdin().lines().count()
}

#[task]
fn print_and_abort() {
    println!("to stdout");
    eprintln!("the last words");
    process::abort();
}

#[task]
fn add(a: u32, b: u32) -> u32 {
    a + b
}

/// 10 MB for each stream.
const LINES: u32 = 10_000_000 / LINE.len() as u32;

/// Prints as much as that in all kinds of output, and asserts that nothing goes wrong.
fn print_in(stdout: WorkerStdio, stderr: WorkerStdio) {
    let builder = ProcessPool::builder()
        .max_workers(2)
        .stdout(stdout)
        .stderr(stderr);
    let pool = builder.build().unwrap();
    let jobs = [(); 2].map(|()| pool.submit(print::call(LINES).label("noise")));
    for job in jobs {
        assert_eq!(job.join().unwrap(), 0, "stdin is empty");
    }
    assert_eq!(pool.submit(add::call(1, 2)).join().unwrap(), 3);
}

/// Runs `f` in a process of its own, and returns how many of the lines it has printed to stdout and
/// stderr. What else it prints is that of one test.
fn printed(test: &str, f: fn()) -> Option<[usize; 2]> {
    if child::is_child() {
        within(LONG, test, f);
        return None;
    }
    let (stdout, stderr) = child::run(test);
    let headlines = stdout.lines().filter(|line| line.starts_with("running"));
    assert_eq!(headlines.count(), 1);
    // Pieces of two workers may be mixed. What is no such line is what the harness prints.
    let rest = stdout.replace(LINE, "").replace('\n', "");
    assert!(rest.len() < 10_000, "{}", &rest[..1000]);
    Some([&stdout, &stderr].map(|text| text.matches(LINE).count()))
}

const ALL: usize = 2 * (LINES as usize + 1);

#[test]
fn promise_20_inherited_output_goes_to_that_of_the_pools_process() {
    let test = "output::promise_20_inherited_output_goes_to_that_of_the_pools_process";
    let printed = printed(test, || {
        print_in(WorkerStdio::inherit(), WorkerStdio::inherit())
    });
    assert!(
        printed.is_none_or(|lines| lines == [ALL, ALL]),
        "{printed:?}"
    );
}

#[test]
fn promise_20_output_is_passed_on() {
    let test = "output::promise_20_output_is_passed_on";
    let printed = printed(test, || print_in(WorkerStdio::tee(), WorkerStdio::tee()));
    assert!(
        printed.is_none_or(|lines| lines.iter().all(|lines| *lines > ALL * 9 / 10)),
        "{printed:?}"
    );
}

#[test]
fn promise_20_output_can_be_discarded() {
    let test = "output::promise_20_output_can_be_discarded";
    let printed = printed(test, || print_in(WorkerStdio::null(), WorkerStdio::null()));
    assert!(printed.is_none_or(|lines| lines == [0, 0]), "{printed:?}");
}

#[test]
fn promise_20_each_line_is_given_with_its_worker_and_job() {
    within(2 * LONG, "lines", || {
        let counts = Arc::new(Mutex::new([0_usize; 2]));
        let collect = |stream: OutputStream| {
            let counts = Arc::clone(&counts);
            WorkerStdio::lines(move |line: OutputLine<'_>| {
                assert_eq!(line.stream(), stream);
                assert_ne!(line.worker_pid(), process::id());
                assert!(line.text() == LINE, "{line}");
                if let Some(task) = line.task() {
                    assert!(task.starts_with("process::output::"), "{task}");
                    assert!(line.label().is_none_or(|label| label == "noise"));
                    counts.lock().unwrap()[usize::from(stream == OutputStream::Stderr)] += 1;
                }
            })
        };
        print_in(collect(OutputStream::Stdout), collect(OutputStream::Stderr));
        // The last lines may be read after the end of the job.
        let counts = *counts.lock().unwrap();
        assert!(
            counts.iter().all(|count| *count > ALL * 9 / 10),
            "{counts:?}"
        );
    });
}

#[test]
fn promise_20_all_lines_are_given() {
    within(LONG, "lines", || {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&lines);
        let stdio = WorkerStdio::lines(move |line| all.lock().unwrap().push(line.to_string()));
        let builder = ProcessPool::builder().max_workers(1).stdout(stdio.clone());
        let pool = builder.stderr(stdio).build().unwrap();
        pool.submit(print::call(99)).join().unwrap();
        let error = pool.submit(print_and_abort::call()).join().unwrap_err();
        assert!(
            error
                .worker_output()
                .unwrap()
                .ends_with("\nthe last words\n")
        );
        drop(pool);
        eventually("all are read", || lines.lock().unwrap().len() >= 202);
        let lines = lines.lock().unwrap();
        // Nothing of the harness of the tests either.
        assert_eq!(lines.len(), 202, "{lines:?}");
        assert!(lines.contains(&"to stdout".to_owned()));
    });
}

#[test]
fn promise_20_the_error_has_the_last_lines_of_stderr_where_the_pool_reads_it() {
    let test = "output::promise_20_the_error_has_the_last_lines_of_stderr_where_the_pool_reads_it";
    child::alone(test, || {
        let output = |stderr: WorkerStdio| {
            let builder = ProcessPool::builder().max_workers(1).stderr(stderr);
            let pool = builder.build().unwrap();
            let error = pool.submit(print_and_abort::call()).join().unwrap_err();
            assert!(error.is_crashed());
            error.worker_output().map(str::to_owned)
        };
        let last = Some("the last words\n".to_owned());
        assert_eq!(output(WorkerStdio::tee()), last);
        assert_eq!(output(WorkerStdio::lines(|_| {})), last);
        assert_eq!(output(WorkerStdio::inherit()), None);
        assert_eq!(output(WorkerStdio::null()), None);
    });
}

#[test]
fn an_output_can_be_named_like_the_variant_of_an_enum() {
    let lines = WorkerStdio::Lines(|line| drop(line.to_string()));
    let named = [
        (WorkerStdio::Inherit, WorkerStdio::inherit()),
        (WorkerStdio::Null, WorkerStdio::null()),
        (WorkerStdio::Tee, WorkerStdio::tee()),
        (lines, WorkerStdio::lines(|_| {})),
    ];
    for (variant, function) in named {
        assert_eq!(format!("{variant:?}"), format!("{function:?}"));
    }
}
