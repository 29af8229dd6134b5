//! The errors that the compiler itself reports point at the parameter or at the output.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::{env, fs};

#[test]
fn errors_of_missing_bounds_point_at_the_type() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bounds");
    fs::create_dir_all(&package).unwrap();
    let futurepool = here.parent().unwrap();
    let manifest = format!(
        "[package]\nname = \"bounds\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [[bin]]\nname = \"bounds\"\npath = {:?}\n[workspace]\n\
         [dependencies.futurepool]\npath = {futurepool:?}\ndefault-features = false\n\
         features = [\"task\"]\n",
        here.join("tests/bounds/cases.rs"),
    );
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    // So that the versions are those that the crate is tested with, and nothing is fetched.
    fs::copy(futurepool.join("Cargo.lock"), package.join("Cargo.lock")).unwrap();

    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["check", "--quiet", "--offline", "--message-format=short"])
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", package.join("target"))
        .env("CARGO_TERM_COLOR", "never")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{stderr}");

    let source = fs::read_to_string(here.join("tests/bounds/cases.rs")).unwrap();
    let expected: BTreeMap<usize, &str> = (1..)
        .zip(source.lines())
        .filter_map(|(line, text)| Some((line, text.split_once(" //~ ")?.1)))
        .collect();
    let errors: Vec<(usize, &str)> = stderr.lines().filter_map(parse).collect();
    let lines: BTreeSet<usize> = errors.iter().map(|&(line, _)| line).collect();
    assert_eq!(lines, expected.keys().copied().collect(), "{stderr}");
    for (line, text) in expected {
        let mut of_line = errors.iter().filter(|error| error.0 == line);
        assert!(
            of_line.any(|error| error.1.contains(text)),
            "line {line}: {text}\n{stderr}"
        );
    }
}

/// Returns the line and the text of `path/cases.rs:3:14: error[E0277]: text`.
fn parse(message: &str) -> Option<(usize, &str)> {
    let (_, message) = message.split_once("cases.rs:")?;
    let (line, message) = message.split_once(':')?;
    let (_, text) = message.split_once(": error")?;
    Some((line.parse().ok()?, text))
}
