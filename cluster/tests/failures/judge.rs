//! The judge: an append-only file in which each run of a job writes its start and its end.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{env, fs, process};

use crate::outcomes::{Kind, Outcome};

/// The environment variable that tells programs where the file is.
pub(crate) const VARIABLE: &str = "FUTUREPOOL_TEST_JUDGE";

/// Writes a line. It is one system call, so that lines of several processes do not mix, and what is
/// written survives the process.
pub(crate) fn write(job: u64, run: u64, what: &str) {
    static FILE: OnceLock<File> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let path = env::var_os(VARIABLE).expect("the judge's file");
        let open = OpenOptions::new().append(true).create(true).open(path);
        open.expect("the judge's file can be opened")
    });
    let line = format!("{job} {run} {} {what}\n", process::id());
    (&*file)
        .write_all(line.as_bytes())
        .expect("the judge's file can be written");
}

/// The judge of this process.
pub(crate) fn own() -> Judge {
    Judge::at(Path::new(&env::var_os(VARIABLE).expect("the judge's file")))
}

/// A run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) run: u64,
    pub(crate) process: u32,
    pub(crate) ended: bool,
}

/// Reads what the jobs wrote.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    path: PathBuf,
}

impl Judge {
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the runs of each job, in the order of their starts.
    pub(crate) fn runs(&self) -> BTreeMap<u64, Vec<Run>> {
        let mut jobs: BTreeMap<u64, Vec<Run>> = BTreeMap::new();
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [job, run, process, what] = words[..] else {
                // It is being written.
                continue;
            };
            let (Ok(job), Ok(run), Ok(process)) = (job.parse(), run.parse(), process.parse())
            else {
                panic!("the judge cannot read {line:?}");
            };
            let runs = jobs.entry(job).or_default();
            match what {
                "start" => runs.push(Run {
                    run,
                    process,
                    ended: false,
                }),
                _ => {
                    let mut known = runs.iter_mut().filter(|known| known.run == run);
                    known.next().expect("a start before the end").ended = true;
                }
            }
        }
        jobs
    }

    pub(crate) fn runs_of(&self, job: u64) -> Vec<Run> {
        self.runs().remove(&job).unwrap_or_default()
    }

    /// Returns how many runs have started.
    pub(crate) fn starts(&self) -> usize {
        self.runs().values().map(Vec::len).sum()
    }

    /// Checks C2: a default job has started at most once, and not at all if its outcome says so.
    pub(crate) fn check_once(&self, outcomes: &[Outcome]) {
        let runs = self.runs();
        for outcome in outcomes {
            let runs = runs.get(&outcome.job).map_or(&[][..], Vec::as_slice);
            assert!(
                runs.len() <= 1,
                "C2: it started more than once: {outcome:?} {runs:?}"
            );
        }
        self.check(outcomes);
    }

    /// Checks C2 and C3 for jobs of any mode: an output comes from one complete run, and what says
    /// that it has not run has not.
    pub(crate) fn check(&self, outcomes: &[Outcome]) {
        let jobs = self.runs();
        for outcome in outcomes {
            let runs = jobs.get(&outcome.job).map_or(&[][..], Vec::as_slice);
            if let Kind::Ok(run) = outcome.kind {
                let complete = runs.iter().any(|known| known.run == run && known.ended);
                assert!(
                    complete,
                    "C3: not from a complete run: {outcome:?} {runs:?}"
                );
            } else if !outcome.may_have_run {
                assert!(runs.is_empty(), "C2: it has run: {outcome:?} {runs:?}");
            }
        }
    }
}

#[test]
fn the_judge_sees_a_second_start_and_an_incomplete_run() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "1 7 100 start\n1 8 101 start\n1 7 100 end\n").unwrap();
    let judge = Judge::at(file.path());
    let outcome = |kind, may_have_run| Outcome {
        job: 1,
        kind,
        may_have_run,
        text: String::new(),
    };
    judge.check(&[outcome(Kind::Ok(7), true)]);
    for (bad, once) in [
        (outcome(Kind::Ok(8), true), false),
        (outcome(Kind::Cancelled, false), false),
        (outcome(Kind::Ok(7), true), true),
    ] {
        let check = || match once {
            true => judge.check_once(std::slice::from_ref(&bad)),
            false => judge.check(std::slice::from_ref(&bad)),
        };
        assert!(std::panic::catch_unwind(check).is_err(), "{bad:?}");
    }
}
