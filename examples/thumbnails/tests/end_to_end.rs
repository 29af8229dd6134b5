//! Runs the program as its users do: on images and on hostile files, in processes and in threads.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything here takes unless it hangs, even on a slow and busy machine.
const LONG: Duration = Duration::from_secs(120);

/// Marks the processes of one run: workers inherit the environment of the program.
const MARK: &str = "THUMBNAILS_TEST";

/// A running program. Dropping it kills it.
struct Program {
    child: Child,
    mark: String,
}

struct Ended {
    status: ExitStatus,
    stdout: String,
    /// The lines of standard error.
    lines: Vec<String>,
}

impl Program {
    fn start(arguments: &[&str], folders: &[&Path]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{number}", std::process::id());
        let mut command = Command::new(env!("CARGO_BIN_EXE_thumbnails"));
        command.args(arguments).args(folders).env(MARK, &mark);
        command.env_remove("RUST_BACKTRACE");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        Self { child, mark }
    }

    /// Waits for the end of the program.
    fn end(mut self) -> Ended {
        fn read(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
            thread::spawn(move || {
                let mut text = Vec::new();
                pipe.read_to_end(&mut text).unwrap();
                String::from_utf8_lossy(&text).into_owned()
            })
        }
        let stdout = read(self.child.stdout.take().unwrap());
        let stderr = read(self.child.stderr.take().unwrap());
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        // A worker that lives on would keep these pipes open.
        eventually("its output ends", || {
            stdout.is_finished() && stderr.is_finished()
        });
        let stderr = stderr.join().unwrap();
        print!("{stderr}");
        Ended {
            status: status.unwrap(),
            stdout: stdout.join().unwrap(),
            lines: stderr.lines().map(String::from).collect(),
        }
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn has_worker_processes(&self, workers: usize) -> bool {
        processes(&self.mark) == workers + 1
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts the processes of a run, the program and its workers.
fn processes(mark: &str) -> usize {
    let mark = format!("{MARK}={mark}");
    let has_mark =
        |environment: Vec<u8>| environment.split(|&b| b == 0).any(|v| v == mark.as_bytes());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    // A process that ends meanwhile has no environment.
    let environments = processes.flat_map(|process| fs::read(process.path().join("environ")));
    environments
        .filter(|environment| has_mark(environment.clone()))
        .count()
}

fn run(arguments: &[&str], folders: &[&Path]) -> Ended {
    let program = Program::start(arguments, folders);
    let mark = program.mark.clone();
    let ended = program.end();
    if cfg!(target_os = "linux") {
        assert_eq!(processes(&mark), 0, "a worker is left");
    }
    ended
}

/// Polls `fact` until it returns `true`; panics after [`LONG`].
#[track_caller]
fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let start = Instant::now();
    while !fact() {
        assert!(start.elapsed() < LONG, "{what}: not true after {LONG:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Makes samples, and an empty folder for the output.
fn samples(images: u32, hostile: u32) -> (TempDir, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let [images, hostile] = [images, hostile].map(|number| number.to_string());
    let arguments = ["make-samples", "--images", &images, "--hostile", &hostile];
    let made = run(&arguments, &[folder.path()]);
    assert!(made.status.success());
    (folder, tempfile::tempdir().unwrap())
}

/// Returns the files in a folder, as paths below it, and their content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap);
    files
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let path = entry.path().strip_prefix(folder).unwrap().to_owned();
            (path, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Returns width and height of a sample.
fn size(bytes: &[u8]) -> (u32, u32) {
    let number = |at| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    match bytes.starts_with(b"RLE1") {
        true => (number(4), number(6)),
        false => {
            let image = image::load_from_memory(bytes).unwrap();
            (image.width(), image.height())
        }
    }
}

/// Asserts that `out` has a thumbnail of each image in `folder`, and nothing else.
fn assert_thumbnails(folder: &Path, out: &Path, width: u32) {
    let images = files(&folder.join("images"));
    let mut thumbnails = files(out);
    assert_eq!(thumbnails.len(), images.len());
    for (name, image) in images {
        let name = format!("images/{}.png", name.display());
        let thumbnail = thumbnails.remove(Path::new(&name)).expect("it is made");
        assert_eq!(
            image::guess_format(&thumbnail).unwrap(),
            image::ImageFormat::Png
        );
        let (old, new) = (size(&image), size(&thumbnail));
        assert_eq!(new.0, old.0.min(width), "{name}");
        let is_exact = !image.starts_with(b"RLE") && old == new;
        if is_exact {
            let [old, new] = [&image, &thumbnail].map(|bytes| image::load_from_memory(bytes));
            assert!(old.unwrap().to_rgba8() == new.unwrap().to_rgba8(), "{name}");
        }
        let height = f64::from(old.1) * f64::from(new.0) / f64::from(old.0);
        assert!(
            (f64::from(new.1) - height).abs() <= 1.0,
            "{name}: {old:?}, {new:?}"
        );
    }
}

#[test]
fn each_hostile_file_fails_with_its_reason_and_the_rest_is_done() {
    let (folder, out) = samples(28, 19);
    let options = [
        "--width",
        "100",
        "--workers",
        "2",
        "--time-limit",
        "8",
        "--memory-limit",
        "64",
    ];
    let ended = run(&options, &[folder.path(), out.path()]);
    assert_eq!(ended.status.code(), Some(1));
    assert_thumbnails(folder.path(), out.path(), 100);

    let mut expected: Vec<_> = files(&folder.path().join("hostile")).into_keys().collect();
    assert_eq!(expected.len(), 19);
    for line in &ended.lines {
        let line = line.strip_prefix("thumbnails: hostile/").expect(line);
        let (name, reason) = line.split_once(": ").unwrap();
        let at = expected.iter().position(|path| path == Path::new(name));
        expected.remove(at.expect(line));
        let folder = name.split('/').next().unwrap();
        let kind = match folder {
            "bombs" => "memory limit: ",
            "broken" => "cannot decode: ",
            "crashes" => "crashed: ",
            "loops" => "time limit: ",
            "panics" => "panicked: ",
            other => panic!("{other}"),
        };
        assert!(reason.starts_with(kind), "{line}");
        let text = match name.split_once('-').unwrap().1 {
            "nested.rle" => Some("overflowed its stack"),
            "assertion.rle" => Some("SIGABRT"),
            "exit.rle" => Some("version 0x"),
            "overrun.rle" => Some("index out of bounds"),
            _ => None,
        };
        assert!(text.is_none_or(|text| reason.contains(text)), "{line}");
    }
    assert_eq!(expected, Vec::<PathBuf>::new(), "these are not reported");
    assert!(
        ended.stdout.starts_with("28 made, 19 failed ("),
        "{}",
        ended.stdout
    );
}

#[test]
fn threads_and_processes_make_the_same_files_of_a_clean_folder() {
    let (folder, out) = samples(28, 0);
    let ended = run(&["--workers", "2"], &[folder.path(), out.path()]);
    assert_eq!(ended.status.code(), Some(0));
    // The output is no terminal, so there is no progress bar.
    assert_eq!(ended.lines, Vec::<String>::new());
    assert!(
        ended.stdout.starts_with("28 made, 0 failed, in "),
        "{}",
        ended.stdout
    );
    assert_thumbnails(folder.path(), out.path(), 200);

    let of_threads = tempfile::tempdir().unwrap();
    let ended = run(&["--threads"], &[folder.path(), of_threads.path()]);
    assert_eq!(ended.status.code(), Some(0));
    assert!(files(out.path()) == files(of_threads.path()), "they differ");
}

#[test]
fn output_inside_of_the_folder_is_no_input_of_the_next_run() {
    let (folder, _) = samples(7, 0);
    let out = folder.path().join("out");
    for _ in 0..2 {
        let ended = run(&[], &[folder.path(), &out]);
        assert!(
            ended.stdout.starts_with("7 made, 0 failed"),
            "{}",
            ended.stdout
        );
    }
    assert_thumbnails(folder.path(), &out, 200);
}

#[test]
fn a_file_that_cannot_be_written_fails_alone() {
    let (folder, out) = samples(7, 0);
    let first = files(folder.path()).into_keys().next().unwrap();
    let in_the_way = out.path().join(format!("{}.png", first.display()));
    fs::create_dir_all(in_the_way.join("folder")).unwrap();
    let ended = run(&[], &[folder.path(), out.path()]);
    assert_eq!(ended.status.code(), Some(1));
    let start = format!("thumbnails: {}: cannot write: ", first.display());
    assert!(ended.lines[0].starts_with(&start), "{:?}", ended.lines);
    assert_eq!(ended.lines.len(), 1);
    assert_eq!(files(out.path()).len(), 6, "no part of a file is left");
}

/// Starts the program on two files that loop, and returns when both run.
#[cfg(target_os = "linux")]
fn program_in_the_middle(folder: &Path, out: &Path) -> Program {
    let options = ["--workers", "2", "--time-limit", "3600"];
    let loops = folder.join("hostile/loops");
    let program = Program::start(&options, &[&loops, out]);
    eventually("there are workers", || program.has_worker_processes(2));
    program
}

#[cfg(target_os = "linux")]
#[test]
fn a_program_that_is_killed_leaves_no_worker() {
    let (folder, out) = samples(0, 5);
    let mut program = program_in_the_middle(folder.path(), out.path());
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    let start = Instant::now();
    eventually("no worker is left", || processes(&program.mark) == 0);
    println!("the last worker was gone after {:?}", start.elapsed());
    // A second, on a machine that is ten times slower.
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_ends_the_program_and_its_workers() {
    for signal in [Signal::INT, Signal::TERM] {
        let (folder, out) = samples(0, 5);
        let program = program_in_the_middle(folder.path(), out.path());
        let mark = program.mark.clone();
        program.send(signal);
        let ended = program.end();
        assert_eq!(processes(&mark), 0, "a worker is left");
        assert_eq!(ended.status.code(), Some(130));
        assert_eq!(ended.lines, ["thumbnails: interrupted; files not done: 2"]);
    }
}

#[test]
fn the_deadline_ends_processes() {
    let (folder, out) = samples(0, 5);
    let loops = folder.path().join("hostile/loops");
    let ended = run(
        &["--deadline", "1", "--time-limit", "3600"],
        &[&loops, out.path()],
    );
    assert_eq!(ended.status.code(), Some(1));
    let line = "thumbnails: the deadline has passed; files not done: 2";
    assert_eq!(ended.lines, [line]);
}

#[test]
fn in_a_thread_a_loop_never_ends() {
    let (folder, out) = samples(0, 5);
    let loops = folder.path().join("hostile/loops");
    let options = ["--threads", "--workers", "2", "--deadline", "1"];
    let ended = run(&options, &[&loops, out.path()]);
    assert_eq!(ended.status.code(), Some(1));
    let lines = [
        "thumbnails: the deadline has passed; files not done: 2",
        "thumbnails: tasks that run on, because a thread cannot be stopped: 2",
    ];
    assert_eq!(ended.lines, lines);
}

#[test]
fn in_a_thread_a_crash_takes_the_program() {
    let (folder, out) = samples(28, 1);
    let ended = run(
        &["--threads", "--workers", "1"],
        &[folder.path(), out.path()],
    );
    assert_eq!(ended.status.signal(), Some(Signal::ABORT.as_raw()));
    assert_eq!(ended.stdout, "", "there is no report");
    // The hostile file comes first.
    assert_eq!(files(out.path()).len(), 0);
}

/// Linux keeps a limit on the address space of a program.
#[cfg(target_os = "linux")]
#[test]
fn in_a_thread_a_bomb_takes_the_program_but_not_the_machine() {
    let (folder, out) = samples(0, 10);
    let mut bombs = files(&folder.path().join("hostile/bombs"));
    bombs.retain(|name, _| name.to_string_lossy().ends_with("comment.rle"));
    let (_, bomb) = bombs.pop_first().expect("it is made");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bomb.rle"), bomb).unwrap();
    let ended = run(&["--threads"], &[folder.path(), out.path()]);
    assert_eq!(ended.status.signal(), Some(Signal::ABORT.as_raw()));
    let line = ended.lines.first().expect("it says why");
    assert!(line.starts_with("memory allocation of 4294"), "{line}");
}

#[test]
fn the_same_seed_makes_the_same_samples() {
    let [first, second] =
        [samples(14, 19), samples(14, 19)].map(|(folder, _)| files(folder.path()));
    assert_eq!(first.len(), 33);
    assert!(first == second, "they differ");
}

#[test]
fn help_and_wrong_arguments() {
    let help = run(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    assert!(help.stdout.starts_with("Usage: thumbnails"));
    for wrong in [
        &["folder"][..],
        &["a", "b", "c"],
        &["--workers", "0", "a", "b"],
        &["--width", "0", "a", "b"],
        &["--time-limit", "0", "a", "b"],
        &["--time-limit", "-1", "a", "b"],
        &["--deadline", "NaN", "a", "b"],
        &["--threads", "--time-limit", "1", "a", "b"],
        &["--images", "3", "a", "b"],
        &["make-samples"],
        &["make-samples", "--threads", "a"],
    ] {
        let ended = run(wrong, &[]);
        assert_eq!(ended.status.code(), Some(2), "{wrong:?}");
        assert!(ended.lines[0].starts_with("thumbnails: "), "{wrong:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_an_error() {
    let (_, out) = samples(0, 0);
    let file = out.path().join("file.png");
    fs::write(&file, "").unwrap();
    for (folder, text) in [
        (Path::new("/missing"), "/missing: "),
        (&file, "file.png: "),
        (out.path(), "FOLDER and OUT are the same"),
    ] {
        let ended = run(&[], &[folder, out.path()]);
        assert_eq!(ended.status.code(), Some(1));
        assert_eq!(ended.lines.len(), 1);
        assert!(ended.lines[0].contains(text), "{:?}", ended.lines);
    }
}
