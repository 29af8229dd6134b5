//! That worker processes need no unsafe code.

use std::fs;
use std::path::Path;

use walkdir::WalkDir;

/// Returns the lines of Rust code in `folder` that have the keyword.
fn unsafe_lines(folder: &Path) -> Vec<String> {
    let files = WalkDir::new(folder).into_iter();
    let files = files.map(|file| file.expect("a folder that can be read").into_path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let is_unsafe = |line: &&str| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| word == "unsafe")
    };
    files
        .flat_map(|path| {
            let text = fs::read_to_string(&path).expect("a text file");
            let lines = text.lines().filter(is_unsafe);
            let lines = lines.map(|line| format!("{}: {line}", path.display()));
            lines.collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn promise_24_there_is_no_unsafe_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src/process", "src/call", "macros/src"] {
        assert_eq!(unsafe_lines(&root.join(folder)), [""; 0], "{folder}");
    }
    // It finds what is there.
    assert!(!unsafe_lines(&root.join("src/scope")).is_empty());
}
