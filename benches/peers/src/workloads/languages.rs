use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::{env, fs};

use super::as_completed::as_completed;
use super::{DEFAULT, Unit, WORKERS, Workload, burst::burst, figure, nanos_each, round_trip::hot};
use crate::participant::{Benchmark, Participant, one_peer};
use crate::peers::{Futurepool, Peer};
use crate::result::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "languages",
    about: "burst, hot round trip and as_completed of 20,000 jobs beside pools of other languages",
    figures: &[
        figure("burst", Unit::Nanos),
        figure("round trip", Unit::Nanos),
        figure("as_completed", Unit::Nanos),
    ],
    participants: |scale| {
        let jobs = scale.of(20_000);
        let mut all = vec![one_peer::<Futurepool, _>(WORKERS, &AllThree { jobs })];
        all.extend(PROGRAMS.map(|program| program.participant(jobs)));
        all
    },
    ..DEFAULT
};

#[derive(Clone)]
struct AllThree {
    jobs: u64,
}

impl Benchmark for AllThree {
    fn run<P: Peer>(&self, pool: &P) -> Sample {
        let figures = || {
            let burst = burst(pool, self.jobs)[0];
            let trip = hot(pool, self.jobs as usize);
            let completed = nanos_each(as_completed(pool, self.jobs), self.jobs);
            vec![burst, Some(trip), completed]
        };
        figures(); // warms up, as the programs do
        figures()
    }
}

/// A program that runs the same workloads in another language.
///
/// Its arguments are the numbers of jobs and of workers. It prints a JSON list with the figures.
struct Program {
    /// The name of its participant.
    name: &'static str,
    /// What it measures and what it cannot do.
    note: &'static str,
    /// What has to be installed.
    needs: &'static str,
    /// A command that fails if that is not installed.
    probe: &'static [&'static str],
    file: &'static str,
    source: &'static str,
    /// A command that compiles `file` in the current directory. Empty if there is nothing to do.
    build: &'static [&'static str],
    run: &'static [&'static str],
}

const PROGRAMS: [Program; 5] = [
    Program {
        name: "python",
        note: "CPython's ThreadPoolExecutor",
        needs: "python3",
        probe: &["python3", "--version"],
        file: "thread_pool.py",
        source: include_str!("../../python/thread_pool.py"),
        build: &[],
        run: &["python3", "thread_pool.py"],
    },
    Program {
        name: "java",
        note: "ThreadPoolExecutor + CompletableFuture, after 0.5 s of warm-up for each figure",
        needs: "javac",
        probe: &["javac", "-version"],
        file: "ThreadPool.java",
        source: include_str!("../../java/ThreadPool.java"),
        build: &["javac", "ThreadPool.java"],
        run: &["java", "ThreadPool"],
    },
    Program {
        name: "go",
        note: "goroutines + channels; a goroutine waits without a wake-up of a thread",
        needs: "go",
        probe: &["go", "version"],
        file: "pool.go",
        source: include_str!("../../go/pool.go"),
        build: &["go", "build", "pool.go"],
        run: &["./pool"],
    },
    Program {
        name: "c++",
        note: "std::queue + std::packaged_task by hand; std::future has no as_completed",
        needs: "g++",
        probe: &["g++", "--version"],
        file: "pool.cpp",
        source: include_str!("../../cpp/pool.cpp"),
        build: &[
            "g++",
            "-O3",
            "-std=c++17",
            "-pthread",
            "pool.cpp",
            "-o",
            "pool",
        ],
        run: &["./pool"],
    },
    Program {
        name: "bs_thread_pool",
        note: "C++: BS::thread_pool 5; std::future has no as_completed",
        needs: "BS_thread_pool.hpp",
        // Searches the include path, to which the variable CPLUS_INCLUDE_PATH adds.
        probe: &[
            "g++",
            "-std=c++17",
            "-fsyntax-only",
            "-include",
            "BS_thread_pool.hpp",
            "-xc++",
            "/dev/null",
        ],
        file: "pool.cpp",
        source: include_str!("../../cpp/pool.cpp"),
        build: &[
            "g++",
            "-O3",
            "-std=c++17",
            "-pthread",
            "-DBS_THREAD_POOL",
            "pool.cpp",
            "-o",
            "pool",
        ],
        run: &["./pool"],
    },
];

impl Program {
    fn participant(self, jobs: u64) -> Participant {
        let is_installed = run(self.probe, Path::new("."), &[]).is_ok();
        let note = match is_installed {
            true => self.note.to_owned(),
            false => format!("{}: not installed", self.needs),
        };
        let compiled = OnceLock::new();
        let participant = Participant::new(self.name, move || match is_installed {
            true => self.measure(compiled.get_or_init(|| self.compile()), jobs),
            false => vec![None; WORKLOAD.figures.len()],
        });
        Participant {
            note: Some(note),
            ..participant
        }
    }

    /// Writes and compiles the program. Returns its folder, beside this executable.
    fn compile(&self) -> PathBuf {
        let own = env::current_exe().expect("this executable has a path");
        let folder = own.with_file_name("languages").join(self.name);
        fs::create_dir_all(&folder).expect("the folder is writable");
        fs::write(folder.join(self.file), self.source).expect("the folder is writable");
        if !self.build.is_empty() {
            run(self.build, &folder, &[]).unwrap_or_else(|error| panic!("{error}"));
        }
        folder
    }

    fn measure(&self, folder: &Path, jobs: u64) -> Sample {
        let arguments = [jobs.to_string(), WORKERS.to_string()];
        let output = run(self.run, folder, &arguments).unwrap_or_else(|error| panic!("{error}"));
        serde_json::from_slice(&output).expect("the program prints a list of numbers")
    }
}

/// Runs a command in `folder`. Returns its output, or an error with its name.
fn run(command: &[&str], folder: &Path, arguments: &[String]) -> Result<Vec<u8>, String> {
    let (name, first) = command.split_first().expect("a command has a name");
    let program = match name.strip_prefix("./") {
        Some(file) => folder.join(file),
        None => name.into(),
    };
    let mut command = Command::new(program);
    command.args(first).args(arguments);
    command.current_dir(folder).stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("{name}: {}", output.status)),
    }
}
