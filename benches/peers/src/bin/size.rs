//! Measures how much a pool adds to a program: the size of its file, and the time of a clean build.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin size
//! ```
//!
//! It fails if futurepool exceeds its goal. Each program starts a pool, submits one job, waits for its result and prints it. It is built with
//! `opt-level = 3`, `panic = "unwind"` and `strip = true`, in an empty folder for temporary files. So
//! the time is that of all its dependencies. It depends on the number of processors and on what
//! else they do: compare only the times of one run.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{env, fs, process};

/// The goal of futurepool, in bytes.
const GOAL: u64 = 520_000;

struct Program {
    name: &'static str,
    dependencies: &'static str,
    /// The statements of `main`.
    main: &'static str,
}

const PROGRAMS: [Program; 5] = [
    Program {
        name: "futurepool",
        dependencies: concat!(
            "futurepool = { path = '",
            env!("CARGO_MANIFEST_DIR"),
            "/../..' }"
        ),
        main: "let pool = futurepool::ThreadPool::new(2);
               println!(\"hello {}\", pool.submit(|| \"world\").join().unwrap());",
    },
    Program {
        name: "tokio",
        dependencies: "tokio = { version = \"*\", default-features = false, features = [\"rt\"] }",
        main: "let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
               let world = runtime.spawn_blocking(|| \"world\");
               println!(\"hello {}\", runtime.block_on(world).unwrap());",
    },
    Program {
        name: "blocking",
        dependencies: "blocking = \"*\"\npollster = \"*\"",
        main: "let world = blocking::unblock(|| \"world\");
               println!(\"hello {}\", pollster::block_on(world));",
    },
    Program {
        name: "rayon",
        dependencies: "rayon = \"*\"",
        main: "let (sender, receiver) = std::sync::mpsc::channel();
               rayon::spawn(move || sender.send(\"world\").unwrap());
               println!(\"hello {}\", receiver.recv().unwrap());",
    },
    Program {
        name: "std only",
        dependencies: "",
        main: "let thread = std::thread::spawn(|| \"world\");
               println!(\"hello {}\", thread.join().unwrap());",
    },
];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("size: {error}");
            ExitCode::from(2)
        }
    }
}

/// Measures all programs. Returns whether futurepool met its goal.
fn run() -> Result<bool, String> {
    println!("{:<12}{:>10}{:>14}", "program", "size", "clean build");
    let mut met = true;
    for program in &PROGRAMS {
        let folder = env::temp_dir().join(format!("futurepool-size-{}", process::id()));
        let measured = measure(program, &folder);
        let _ = fs::remove_dir_all(&folder);
        let (bytes, time) = measured.map_err(|error| format!("{}: {error}", program.name))?;
        let kilobytes = bytes as f64 / 1e3;
        println!(
            "{:<12}{kilobytes:>7.0} KB{:>12.1} s",
            program.name,
            time.as_secs_f64()
        );
        met &= program.name != "futurepool" || bytes <= GOAL;
    }
    let verdict = if met { "met" } else { "MISSED" };
    println!("goal: futurepool ≤ {} KB: {verdict}", GOAL / 1_000);
    Ok(met)
}

/// Builds and runs `program` in `folder`. Returns the size of its file and the time of the build.
fn measure(program: &Program, folder: &Path) -> Result<(u64, Duration), String> {
    let manifest = format!(
        "[package]\nname = \"hello\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
         [profile.release]\nopt-level = 3\npanic = \"unwind\"\nstrip = true\n\
         [dependencies]\n{}\n",
        program.dependencies
    );
    let source = format!("fn main() {{ {} }}", program.main);
    let write = |file: &str, text: &str| {
        fs::write(folder.join(file), text).map_err(|error| format!("{file}: {error}"))
    };
    fs::create_dir_all(folder.join("src")).map_err(|error| error.to_string())?;
    write("Cargo.toml", &manifest)?;
    write("src/main.rs", &source)?;
    // The versions that the other workloads measure. Cargo removes what the program does not need.
    write("Cargo.lock", include_str!("../../Cargo.lock"))?;

    let cargo = || {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.current_dir(folder).env("CARGO_TARGET_DIR", "target");
        cargo
    };
    // What is measured is the compiler, not a download.
    success(cargo().args(["fetch", "--quiet"]))?;
    let start = Instant::now();
    success(cargo().args(["build", "--quiet", "--release"]))?;
    let time = start.elapsed();
    let binary = folder
        .join("target/release/hello")
        .with_extension(env::consts::EXE_EXTENSION);
    let output = success(&mut Command::new(&binary))?;
    if output.trim_end() != "hello world" {
        return Err(format!("the program printed {output:?}"));
    }
    let metadata = fs::metadata(&binary).map_err(|error| error.to_string())?;
    Ok((metadata.len(), time))
}

/// Runs `command`. Returns its output, or an error if it fails.
fn success(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
