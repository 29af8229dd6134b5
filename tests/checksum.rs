//! The example program `checksum`, run as its users run it: what it promises of its lines, its exit status
//! and its manners, and that it and the real `sha256sum` take each other's lists.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// No child lives longer: a program that hangs is a test that fails.
const LIMIT: Duration = Duration::from_secs(60);

// ---- the program ------------------------------------------------------------------------------------------

/// The program, built by `cargo test` before any test runs; where it was not (`cargo test --test checksum`),
/// or is older than its source, it is built now.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // This test is target/PROFILE/deps/checksum-HASH.
        let test = std::env::current_exe().expect("the path of this test");
        let profile = test.ancestors().nth(2).expect("the profile's folder");
        let name = format!("checksum{}", std::env::consts::EXE_SUFFIX);
        let program = profile.join("examples").join(name);

        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/checksum.rs");
        let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
        if changed(&program) < changed(&source) {
            build(profile);
        }
        assert!(
            program.is_file(),
            "{} is not there: build it with `cargo build --example checksum`, in the profile and target \
             folder of this test",
            program.display()
        );
        program
    })
}

fn build(profile: &Path) {
    let name = match profile.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--example",
            "checksum",
            "--profile",
            name,
        ])
        .arg("--target-dir")
        .arg(profile.parent().expect("the target folder"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(
        status.as_ref().is_ok_and(ExitStatus::success),
        "`cargo build --example checksum` ended with {status:?}"
    );
}

/// A child that is killed when its time is over, or when its test ends early.
struct Guarded(Child);

impl Guarded {
    fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().expect("the state of a child") {
                return status;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("a child was not done after {LIMIT:?}");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What became of a child.
struct Done {
    status: Option<i32>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Done {
    #[track_caller]
    fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{}", self.errors());
        self
    }

    fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("text on standard output")
    }

    fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output's lines in the order of bytes, for where files complete in any order.
    fn sorted(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.text().lines().map(String::from).collect();
        lines.sort();
        lines
    }
}

fn spawn(command: &mut Command) -> Guarded {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let child = piped.stderr(Stdio::piped()).spawn();
    Guarded(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

fn finish(command: &mut Command, input: &[u8]) -> Done {
    fn read(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
        thread::spawn(move || {
            let mut all = Vec::new();
            pipe.read_to_end(&mut all).expect("what a child wrote");
            all
        })
    }
    fn write(mut pipe: ChildStdin, input: &[u8]) -> thread::JoinHandle<()> {
        let input = input.to_vec();
        // A child need not read to the end.
        thread::spawn(move || drop(pipe.write_all(&input)))
    }

    let mut child = spawn(command);
    let writer = write(child.0.stdin.take().expect("a pipe"), input);
    let stdout = read(child.0.stdout.take().expect("a pipe"));
    let stderr = read(child.0.stderr.take().expect("a pipe"));
    let status = child.wait().code();
    writer.join().expect("the writer");
    Done {
        status,
        stdout: stdout.join().expect("the reader"),
        stderr: stderr.join().expect("the reader"),
    }
}

/// A folder to run programs in.
struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        for (name, content) in files {
            folder.write(name, content);
        }
        folder
    }

    fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    fn command<A: AsRef<OsStr>>(&self, program: &Path, arguments: &[A]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.0.path());
        // The messages that are compared are English.
        command.env("LC_ALL", "C");
        command
    }

    fn checksum<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Done {
        finish(&mut self.command(program(), arguments), b"")
    }

    fn check(&self, list: impl AsRef<[u8]>) -> Done {
        let mut command = self.command(program(), &["--sorted", "--check", "-"]);
        finish(&mut command, list.as_ref())
    }

    /// `None` where the system has no GNU `sha256sum`; on Linux it has to have one.
    fn sha256sum<A: AsRef<OsStr>>(&self, arguments: &[A], input: &[u8]) -> Option<Done> {
        static IS_THERE: OnceLock<bool> = OnceLock::new();
        let is_there = *IS_THERE.get_or_init(|| {
            let version = Command::new("sha256sum").arg("--version").output();
            version.is_ok_and(|version| String::from_utf8_lossy(&version.stdout).contains("GNU"))
        });
        if !is_there {
            eprintln!("SKIPPED: there is no GNU sha256sum on this system");
            return None;
        }
        let mut command = self.command(Path::new("sha256sum"), arguments);
        Some(finish(&mut command, input))
    }
}

fn with(options: &[&str], names: &[OsString]) -> Vec<OsString> {
    let options = options.iter().map(OsString::from);
    options.chain(names.iter().cloned()).collect()
}

/// Names that need care in a list. Not of them here: carriage returns, which older `sha256sum`s do not escape.
fn odd_names() -> Vec<OsString> {
    let mut names: Vec<OsString> = ["plain", " two  spaces ", "star *", "#hash", "(a) = b", "é"]
        .map(OsString::from)
        .to_vec();
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        names.extend(["new\nline", "back\\slash", "\\n", "end\\", "*first"].map(OsString::from));
        // Not every system allows it.
        if !cfg!(target_vendor = "apple") {
            names.push(OsString::from_vec(b"not \xff\xfe text".to_vec()));
        }
    }
    #[cfg(windows)]
    names.retain(|name| name != "star *" && name != " two  spaces ");
    names
}

fn odd_folder() -> Folder {
    let folder = Folder::new(&[]);
    for (number, name) in odd_names().iter().enumerate() {
        folder.write(name, number.to_string());
    }
    folder
}

/// How many files were found to be good.
fn good(done: &Done) -> usize {
    let lines = done.stdout.split(|&byte| byte == b'\n');
    lines.filter(|line| line.ends_with(b": OK")).count()
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

// ---- making lists -----------------------------------------------------------------------------------------

#[test]
fn known_hashes_come_out() {
    let folder = Folder::new(&[("empty", ""), ("abc", "abc")]);
    let done = folder.checksum(&["empty", "abc"]).expect(0);
    let expected = [format!("{ABC}  abc"), format!("{EMPTY}  empty")];
    assert_eq!(done.sorted(), expected);
    assert_eq!(done.errors(), "");
}

#[test]
fn file_larger_than_a_buffer_has_the_hash_of_all_of_it() {
    let folder = Folder::new(&[]);
    folder.write("million", "a".repeat(1_000_000));
    let done = folder.checksum(&["million"]).expect(0);
    // The third vector of FIPS 180-2.
    let hash = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    assert_eq!(done.text(), format!("{hash}  million\n"));
}

#[test]
fn current_folder_is_the_default() {
    let folder = Folder::new(&[("a/b", "abc")]);
    let done = folder.checksum::<&str>(&[]).expect(0);
    assert_eq!(done.text(), format!("{ABC}  ./a/b\n"));
}

#[test]
fn lines_are_accepted_by_sha256sum() {
    let folder = odd_folder();
    folder.write("deep/er/file", "abc");
    let list = folder.checksum::<&str>(&[]).expect(0).stdout;
    let Some(done) = folder.sha256sum(&["--check", "--strict", "-"], &list) else {
        return;
    };
    let done = done.expect(0);
    assert_eq!(good(&done), odd_names().len() + 1);
}

#[test]
fn lines_are_those_of_sha256sum_to_the_byte() {
    let folder = odd_folder();
    let names = odd_names();
    let Some(theirs) = folder.sha256sum(&with(&["--text", "--"], &names), b"") else {
        return;
    };
    let ours = folder
        .checksum(&with(&["--sorted", "--"], &names))
        .expect(0);
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    assert_eq!(show(&ours.stdout), show(&theirs.expect(0).stdout));
}

#[cfg(unix)]
#[test]
fn carriage_return_in_a_name_is_escaped_and_understood() {
    let folder = Folder::new(&[("a\rb\r", "abc")]);
    let done = folder.checksum(&["a\rb\r"]).expect(0);
    assert_eq!(done.text(), format!("\\{ABC}  a\\rb\\r\n"));
    assert_eq!(
        folder.check(done.stdout).expect(0).text(),
        "\\a\\rb\\r: OK\n"
    );
}

#[test]
fn sorted_is_the_order_of_whole_paths() {
    let names = ["a-b", "a.txt", "a/b", "a/b-c", "a/b.d/e", "a0", "B", "é/1"];
    let mut paths: Vec<_> = names.map(|name| format!("./{name}")).into();
    paths.sort();
    let folder = Folder::new(&names.map(|name| (name, name)));

    let done = folder.checksum(&["--sorted"]).expect(0);
    let text = done.text();
    let printed: Vec<_> = text.lines().map(|line| &line[66..]).collect();
    assert_eq!(printed, paths);
}

#[test]
fn sorted_keeps_the_order_of_arguments() {
    let folder = Folder::new(&[("z/1", "abc"), ("z/2", "abc"), ("m", "abc"), ("a", "abc")]);
    let done = folder.checksum(&["--sorted", "z", "m", "a", "m"]).expect(0);
    let expected = ["z/1", "z/2", "m", "a", "m"].map(|name| format!("{ABC}  {name}\n"));
    assert_eq!(done.text(), expected.concat());
}

#[test]
fn thousands_of_files_appear_once_each() {
    let folder = Folder::new(&[]);
    let many = many_files(&folder);
    let done = folder.checksum(&["--workers", "3", "."]).expect(0);
    let lines = done.sorted();
    assert!(lines.iter().all(|line| is_hash(&line[..64])));
    let names: BTreeSet<_> = lines.iter().map(|line| line[66..].to_owned()).collect();
    assert_eq!(names, many);
    assert_eq!(lines.len(), many.len());
}

/// 3,000 files: more than any window of jobs, with a list longer than what a pipe holds.
fn many_files(folder: &Folder) -> BTreeSet<String> {
    let name = |number| format!("./folder-{}/one-of-many-small-files-{number}", number % 7);
    let names: BTreeSet<_> = (0..3_000).map(name).collect();
    for name in &names {
        folder.write(name, name);
    }
    names
}

#[cfg(unix)]
#[test]
fn links_and_special_files_are_skipped_but_a_named_link_is_followed() {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    let folder = Folder::new(&[("tree/file", "abc"), ("other/inner", "abc")]);
    let path = folder.0.path();
    symlink("../other/inner", path.join("tree/link")).unwrap();
    symlink("../other", path.join("tree/folder-link")).unwrap();
    symlink("missing", path.join("tree/dangling")).unwrap();
    let _listener = UnixListener::bind(path.join("tree/socket")).unwrap();
    let done = folder.checksum(&["tree"]).expect(0);
    assert_eq!(done.text(), format!("{ABC}  tree/file\n"));

    let links = ["--sorted", "tree/link", "tree/folder-link"];
    let done = folder.checksum(&links).expect(0);
    let expected = ["tree/link", "tree/folder-link/inner"].map(|name| format!("{ABC}  {name}\n"));
    assert_eq!(done.text(), expected.concat());
}

#[test]
fn missing_path_is_an_error_line_and_the_rest_is_there() {
    let folder = Folder::new(&[("a", "abc"), ("z/b", "abc")]);
    let done = folder
        .checksum(&["--sorted", "a", "missing", "z"])
        .expect(1);
    assert_eq!(done.text(), format!("{ABC}  a\n{ABC}  z/b\n"));
    let errors = done.errors();
    assert!(errors.starts_with("checksum: missing: "), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[cfg(unix)]
#[test]
fn unreadable_paths_are_error_lines_and_the_rest_is_there() {
    use std::os::unix::fs::symlink;

    let folder = Folder::new(&[("a", "abc"), ("z", "abc")]);
    symlink("nowhere", folder.0.path().join("dangling")).unwrap();
    symlink("circle", folder.0.path().join("circle")).unwrap();
    let paths = ["--sorted", "a", "dangling", "circle", "new\nline", "z"];
    let done = folder.checksum(&paths).expect(1);
    assert_eq!(done.text(), format!("{ABC}  a\n{ABC}  z\n"));
    let errors = done.errors();
    let lines: Vec<_> = errors.lines().collect();
    let names = ["dangling", "circle", "new\\nline"];
    assert_eq!(lines.len(), names.len(), "{errors}");
    for (line, name) in lines.iter().zip(names) {
        assert!(line.starts_with(&format!("checksum: {name}: ")), "{errors}");
    }
}

// ---- verifying lists --------------------------------------------------------------------------------------

#[test]
fn lists_of_sha256sum_are_accepted_in_all_their_forms() {
    let folder = odd_folder();
    let names = odd_names();
    for form in ["--text", "--binary", "--tag"] {
        let Some(list) = folder.sha256sum(&with(&[form, "--"], &names), b"") else {
            return;
        };
        let done = folder.check(list.expect(0).stdout).expect(0);
        assert_eq!(good(&done), names.len(), "{form}");
        assert_eq!(done.errors(), "", "{form}");
    }
}

#[test]
fn verdicts_are_those_of_sha256sum_to_the_byte() {
    let folder = odd_folder();
    folder.write("changed", "abc");
    folder.write("deleted", "abc");
    let mut names = odd_names();
    // Newer sha256sums escape these in verdicts too, as checksum does; 9.1 and older do not.
    names.retain(|name| !name.as_encoded_bytes().contains(&b'\\'));
    names.extend(["changed", "deleted"].map(OsString::from));
    let list = folder.checksum(&with(&["--"], &names)).expect(0).stdout;
    folder.write("changed", "abd");
    fs::remove_file(folder.0.path().join("deleted")).expect("it was there");

    let Some(theirs) = folder.sha256sum(&["--check", "-"], &list) else {
        return;
    };
    let (ours, theirs) = (folder.check(&list).expect(1), theirs.expect(1));
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    assert_eq!(show(&ours.stdout), show(&theirs.stdout));
    let warnings = |done: &Done| {
        let errors = done.errors();
        let lines = errors
            .lines()
            .filter_map(|line| line.split_once(": WARNING: "));
        lines.map(|line| line.1.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(warnings(&ours), warnings(&theirs));
}

#[test]
fn own_list_is_accepted() {
    let folder = odd_folder();
    folder.write("list", folder.checksum::<&str>(&[]).expect(0).stdout);
    let done = folder.checksum(&["--check", "list"]).expect(0);
    assert_eq!(good(&done), odd_names().len());
    assert_eq!(done.errors(), "");
}

#[test]
fn every_form_of_line_is_understood() {
    let folder = Folder::new(&[("a", "abc"), ("b) = c", "abc"), ("d ", "abc")]);
    let upper = ABC.to_uppercase();
    let list = format!(
        "# a comment\n\
         \n\
         {ABC}  a\n\
         {ABC} *a\n\
         {upper}  a\r\n\
         \\{ABC}  a\n\
         SHA256 (a) = {ABC}\n\
         SHA256 (b) = c) = {upper}\r\n\
         {ABC}  d \n\
         {ABC}  a"
    );
    let done = folder.check(list).expect(0);
    assert_eq!(
        done.text(),
        "a: OK\na: OK\na: OK\na: OK\na: OK\nb) = c: OK\nd : OK\na: OK\n"
    );
    assert_eq!(done.errors(), "");
}

#[test]
fn changed_file_is_failed() {
    let folder = Folder::new(&[("a", "abc"), ("b", "abc"), ("c", "abc")]);
    let list = folder
        .checksum(&["--sorted", "a", "b", "c"])
        .expect(0)
        .stdout;
    folder.write("b", "abd");
    let done = folder.check(&list).expect(1);
    assert_eq!(done.text(), "a: OK\nb: FAILED\nc: OK\n");
    assert_eq!(
        done.errors(),
        "checksum: WARNING: 1 computed checksum did NOT match\n"
    );

    folder.write("c", "");
    let done = folder.check(&list).expect(1);
    assert_eq!(done.text(), "a: OK\nb: FAILED\nc: FAILED\n");
    assert_eq!(
        done.errors(),
        "checksum: WARNING: 2 computed checksums did NOT match\n"
    );
}

#[test]
fn deleted_file_and_folder_in_the_list_are_failed_and_the_rest_goes_on() {
    let folder = Folder::new(&[
        ("a", "abc"),
        ("b", "abc"),
        ("d", "abc"),
        ("folder/c", "abc"),
    ]);
    let list = format!("{ABC}  a\n{ABC}  b\n{ABC}  folder\n{ABC}  d\n");
    fs::remove_file(folder.0.path().join("b")).unwrap();
    let done = folder.check(list).expect(1);
    let expected = "a: OK\nb: FAILED open or read\nfolder: FAILED open or read\nd: OK\n";
    assert_eq!(done.text(), expected);
    let errors = done.errors();
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 3, "{errors}");
    assert!(lines[0].starts_with("checksum: b: "), "{errors}");
    assert!(lines[1].starts_with("checksum: folder: "), "{errors}");
    assert_eq!(
        lines[2],
        "checksum: WARNING: 2 listed files could not be read"
    );
}

#[test]
fn malformed_lines_are_counted_and_fail_only_when_there_is_no_other() {
    let folder = Folder::new(&[("a", "abc")]);
    let short = &ABC[1..];
    let bad = [
        "nonsense".to_owned(),
        format!("{short}  a"),
        format!("{ABC}0  a"),
        format!("{ABC} a"),
        format!("{ABC}  "),
        format!("{}g  a", short),
        format!("\\{ABC}  a\\x"),
        format!("\\{ABC}  a\\"),
        format!("SHA256 (a) {ABC}"),
        format!("SHA256 (a = {ABC}"),
        format!("SHA256 (a) = {short}"),
        format!("MD5 (a) = {ABC}"),
    ];
    for line in &bad {
        let done = folder.check(format!("{line}\n")).expect(1);
        assert_eq!(done.text(), "", "{line}");
        let errors = done.errors();
        assert!(
            errors.contains("no properly formatted checksum lines found"),
            "{line}: {errors}"
        );
    }
    let done = folder.check(format!("{}\n{ABC}  a\n", bad[0])).expect(0);
    assert_eq!(
        done.errors(),
        "checksum: WARNING: 1 line is improperly formatted\n"
    );
    let done = folder
        .check(format!("{}\n{ABC}  a\n", bad.join("\n")))
        .expect(0);
    assert_eq!(done.text(), "a: OK\n");
    let expected = format!(
        "checksum: WARNING: {} lines are improperly formatted\n",
        bad.len()
    );
    assert_eq!(done.errors(), expected);
    folder.check("").expect(1);
}

#[test]
fn list_that_is_no_list_is_an_error() {
    let folder = Folder::new(&[("folder/a", "abc")]);
    let done = folder.checksum(&["--check", "missing"]).expect(1);
    assert!(
        done.errors().starts_with("checksum: missing: "),
        "{}",
        done.errors()
    );
    let done = folder.checksum(&["--check", "folder"]).expect(1);
    assert!(
        done.errors().starts_with("checksum: folder: "),
        "{}",
        done.errors()
    );
    // One line without an end, longer than any buffer.
    folder.write("zeros", vec![0; 1 << 20]);
    let done = folder.checksum(&["--check", "zeros"]).expect(1);
    assert!(
        done.errors().contains("no properly formatted"),
        "{}",
        done.errors()
    );
}

#[test]
fn sorted_check_keeps_the_order_of_the_list() {
    let folder = Folder::new(&[]);
    let mut names: Vec<_> = many_files(&folder).into_iter().collect();
    let list = folder.checksum(&["--sorted"]).expect(0).text();
    let mut lines: Vec<_> = list.lines().collect();
    lines.reverse();
    names.reverse();
    let done = folder.check(lines.join("\n")).expect(0);
    let expected: String = names.iter().map(|name| format!("{name}: OK\n")).collect();
    assert_eq!(done.text(), expected);
}

// ---- manners ----------------------------------------------------------------------------------------------

#[test]
fn wrong_arguments_are_status_2_with_a_message() {
    let folder = Folder::new(&[("a", "abc")]);
    for (arguments, message) in [
        (&["--workers", "0"] as &[_], "--workers"),
        (&["--workers", "many"], "--workers"),
        (&["--workers", "-1"], "--workers"),
        (&["--workers"], "--workers"),
        (&["--check"], "--check"),
        (&["--check", "a", "a"], "--check"),
        (&["--check", "a", "--check", "a"], "--check"),
        (&["--unknown"], "--unknown"),
        (&["-x"], "-x"),
        (&["--sorted=yes"], "--sorted"),
    ] {
        let done = folder.checksum(arguments).expect(2);
        let errors = done.errors();
        assert!(errors.starts_with("checksum: "), "{errors}");
        assert!(
            errors.contains(message) && errors.contains("Usage: "),
            "{errors}"
        );
        assert_eq!(done.text(), "");
    }
}

#[test]
fn help_is_printed_on_standard_output() {
    let folder = Folder::new(&[]);
    for option in ["--help", "-h"] {
        let done = folder.checksum(&[option]).expect(0);
        assert!(
            done.text().starts_with("Usage: checksum "),
            "{}",
            done.text()
        );
        assert_eq!(done.errors(), "");
    }
}

#[test]
fn closed_pipe_ends_it_quietly() {
    let folder = Folder::new(&[]);
    many_files(&folder);
    let list = folder.checksum::<&str>(&[]).expect(0).stdout;
    folder.write("list", list);
    for arguments in [&["."] as &[_], &["--sorted", "."], &["--check", "list"]] {
        let mut child = spawn(&mut folder.command(program(), arguments));
        // Its output is longer than what a pipe holds: whenever this happens, it is before the end.
        drop(child.0.stdout.take());
        let status = child.wait();
        let mut errors = String::new();
        let mut pipe = child.0.stderr.take().expect("a pipe");
        pipe.read_to_string(&mut errors).expect("text");
        let seen = (status.code(), errors.as_str());
        assert_eq!(seen, (Some(1), ""), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk_is_an_error() {
    let folder = Folder::new(&[("a", "abc")]);
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut child = folder.command(program(), &["a"]);
    let child = child.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Guarded(child);
    assert_eq!(child.wait().code(), Some(1));
    let mut errors = String::new();
    let mut pipe = child.0.stderr.take().expect("a pipe");
    pipe.read_to_string(&mut errors).expect("text");
    assert!(
        errors.starts_with("checksum: standard output: "),
        "{errors}"
    );
}

#[cfg(unix)]
#[test]
fn line_appears_while_other_files_are_still_read() {
    use std::io::{BufRead, BufReader};
    use std::sync::mpsc;

    let folder = Folder::new(&[("a", "abc")]);
    let mkfifo = finish(&mut folder.command(Path::new("mkfifo"), &["fifo"]), b"");
    mkfifo.expect(0);
    for sorted in [&["--sorted"] as &[_], &[]] {
        let arguments = [sorted, &["a", "fifo"]].concat();
        let mut child = spawn(&mut folder.command(program(), &arguments));
        let stdout = BufReader::new(child.0.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            stdout
                .lines()
                .try_for_each(|line| sender.send(line.expect("text")))
        });

        // Nothing has been written to the fifo yet.
        assert_eq!(lines.recv_timeout(LIMIT), Ok(format!("{ABC}  a")));
        let fifo = folder.0.path().join("fifo");
        thread::spawn(move || fs::write(fifo, "abc").expect("a reader"));
        assert_eq!(lines.recv_timeout(LIMIT), Ok(format!("{ABC}  fifo")));
        assert_eq!(child.wait().code(), Some(0));
    }
}
