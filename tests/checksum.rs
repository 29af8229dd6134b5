//! The example program `checksum`, run as its users run it.

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
mod common;

use std::env::{self, consts::EXE_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use common::{LONG, within};
use tempfile::TempDir;

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// Returns the path of the program. Builds it first: `cargo test --tests` builds no examples.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| example("checksum"))
}

/// Builds an example and returns its path.
fn example(name: &str) -> PathBuf {
    // This test is target/PROFILE/deps/checksum-HASH.
    let test = env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap();
    let profile = folder.file_name().unwrap().to_str().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--example", name, "--profile"])
        .arg(if profile == "debug" { "dev" } else { profile })
        .arg("--target-dir")
        .arg(folder.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().unwrap().success(), "{cargo:?}");
    folder.join(format!("examples/{name}{EXE_SUFFIX}"))
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

/// Runs the program in `folder`, and returns its exit status, stdout and stderr.
fn checksum(folder: &TempDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program());
    command.args(arguments).current_dir(folder);
    let run = move || command.output().unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = within(LONG, "checksum", run);
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    (status.code(), stdout, stderr)
}

#[test]
fn known_hashes_come_out() {
    let folder = folder(&[("a/abc", "abc"), ("b/c/empty", "")]);
    let lines = format!("{ABC}  a/abc\n{EMPTY}  b/c/empty\n");
    let ends = checksum(&folder, &["--sorted", "a", "b"]);
    assert_eq!(ends, (Some(0), lines, String::new()));
}

#[test]
fn a_missing_path_is_an_error_line_and_the_rest_is_there() {
    let folder = folder(&[("abc", "abc")]);
    let (status, stdout, stderr) = checksum(&folder, &["missing", "abc"]);
    assert_eq!((status, stdout), (Some(1), format!("{ABC}  abc\n")));
    assert!(stderr.contains("missing"), "{stderr}");
}

#[test]
fn a_changed_file_and_a_missing_file_fail_the_check_of_a_list() {
    let folder = folder(&[("abc", "abc"), ("empty", "")]);
    let (_, list, _) = checksum(&folder, &["--sorted", "."]);
    fs::write(folder.path().join("list"), list).unwrap();
    let check = || checksum(&folder, &["--sorted", "--check", "list"]);
    assert_eq!(check().0, Some(0));

    fs::write(folder.path().join("abc"), "abd").unwrap();
    let (status, stdout, _) = check();
    assert_eq!(status, Some(1));
    assert!(stdout.contains("abc: FAILED\n"), "{stdout}");
    assert!(stdout.contains("empty: OK\n"), "{stdout}");

    fs::remove_file(folder.path().join("empty")).unwrap();
    let (status, _, stderr) = check();
    assert_eq!(status, Some(1));
    assert!(stderr.contains("empty"), "{stderr}");
}

/// Runs a program whose reader has gone away, as `head` does. Returns its exit status and stderr.
fn without_a_reader(mut command: Command) -> (Option<i32>, String) {
    let run = move || {
        // The pipe to a program that has ended has no reader.
        let mut reader = Command::new(program());
        reader.arg("--help").stdin(Stdio::piped());
        let mut reader = reader.stdout(Stdio::null()).spawn().unwrap();
        let pipe = reader.stdin.take().unwrap();
        reader.wait().unwrap();
        command.stdout(pipe).stderr(Stdio::piped());
        command.spawn().unwrap().wait_with_output().unwrap()
    };
    let output = within(LONG, "a program without a reader", run);
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_reader_that_goes_away_ends_the_program_without_a_message() {
    let folder = folder(&[("abc", "abc")]);
    let mut command = Command::new(program());
    command.arg("abc").current_dir(&folder);
    // Not 0: the files were not all reported.
    assert_eq!(without_a_reader(command), (Some(1), String::new()));

    let ping_hosts = Command::new(example("ping_hosts"));
    assert_eq!(without_a_reader(ping_hosts), (Some(0), String::new()));
}
