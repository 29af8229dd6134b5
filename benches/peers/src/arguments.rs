//! Parses the command line.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::child::ChildOptions;
use crate::participant::Scale;
use crate::peers::{self, Futurepool, Peer};
use crate::workloads::{self, Workload};

/// What one program compares.
pub struct Suite {
    /// The first line of the help.
    pub about: &'static str,
    /// The lines of the help about options that only this program has.
    pub own_options: &'static str,
    pub workloads: &'static [&'static Workload],
    /// The names that `--peer` accepts, futurepool first.
    pub peers: &'static [&'static str],
    /// Called once, before the first workload.
    pub prepare: fn() -> Result<(), String>,
}

/// The thread pools.
pub const THREADS: Suite = Suite {
    about: "Compares futurepool with other thread pools on the same workloads.",
    own_options: "",
    workloads: &workloads::ALL,
    peers: &peers::NAMES,
    prepare: || Ok(()),
};

const OPTIONS: &str = "\
\x20 --quick               run a tenth of the work, in at most a minute; a smoke test
  --workload NAME,…     run only the workloads whose names start with one of these
  --peer NAME,…         run only these peers, futurepool and the floors
  --rounds N            run N rounds instead of as many as the time limit allows
  --json FILE           write the figures of every round as JSON
  --svg FILE            write a chart
  --svg-short FILE      write a chart of five workloads and of the best-known peers
  --list                print the names of the workloads and peers
  --help                print this help
";

pub enum Action {
    Compare(Comparison),
    List,
    Help,
    /// Runs one workload in this process. The parent passes `--child` to each of its children.
    RunChild(&'static Workload, ChildOptions),
}

pub struct Comparison {
    pub scale: Scale,
    pub rounds: Option<usize>,
    pub workloads: Vec<&'static Workload>,
    pub peers: Vec<String>,
    pub json: Option<PathBuf>,
    pub svg: Option<PathBuf>,
    pub svg_short: Option<PathBuf>,
}

impl Suite {
    pub fn help(&self) -> String {
        format!("{}\n\n{}{OPTIONS}", self.about, self.own_options)
    }

    pub fn named(&self, name: &str) -> Option<&'static Workload> {
        let mut all = self.workloads.iter().copied();
        all.find(|workload| workload.name == name)
    }

    /// Returns the workloads whose names start with one of `prefixes`.
    fn starting_with(&self, prefixes: &[String]) -> Result<Vec<&'static Workload>, lexopt::Error> {
        let all = self.workloads.iter().copied();
        let starts = |prefix: &String| {
            all.clone()
                .any(|workload| workload.name.starts_with(prefix))
        };
        if let Some(unknown) = prefixes.iter().find(|prefix| !starts(prefix)) {
            let names: Vec<_> = all.map(|workload| workload.name).collect();
            let known = names.join(", ");
            return Err(format!("unknown workload {unknown:?}; known workloads: {known}").into());
        }
        let is_chosen = |workload: &&Workload| {
            prefixes
                .iter()
                .any(|prefix| workload.name.starts_with(prefix))
        };
        Ok(all.filter(is_chosen).collect())
    }

    fn check_peer(&self, name: &str) -> Result<(), lexopt::Error> {
        match self.peers.contains(&name) {
            true => Ok(()),
            false => {
                let known = self.peers.join(", ");
                Err(format!("unknown peer {name:?}; known peers: {known}").into())
            }
        }
    }
}

pub fn parse(suite: &Suite, mut parser: lexopt::Parser) -> Result<Action, lexopt::Error> {
    let mut comparison = Comparison {
        scale: Scale { quick: false },
        rounds: None,
        workloads: suite.workloads.to_vec(),
        peers: suite.peers.iter().map(|&name| name.to_owned()).collect(),
        json: None,
        svg: None,
        svg_short: None,
    };
    let mut child_of = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => comparison.scale.quick = true,
            Long("rounds") => {
                let rounds = parser.value()?.parse()?;
                if rounds == 0 {
                    return Err("--rounds: must be at least 1".into());
                }
                comparison.rounds = Some(rounds);
            }
            Long("workload") => {
                comparison.workloads = suite.starting_with(&list(&mut parser)?)?;
            }
            Long("peer") => {
                comparison.peers = list(&mut parser)?;
                comparison.peers.push(Futurepool::NAME.to_owned());
                let mut peers = comparison.peers.iter();
                peers.try_for_each(|name| suite.check_peer(name))?;
            }
            Long("json") => comparison.json = Some(parser.value()?.into()),
            Long("svg") => comparison.svg = Some(parser.value()?.into()),
            Long("svg-short") => comparison.svg_short = Some(parser.value()?.into()),
            Long("list") => return Ok(Action::List),
            Long("help") | Short('h') => return Ok(Action::Help),
            Long("child") => {
                let name = parser.value()?.string()?;
                let workload = suite.named(&name).ok_or("--child: unknown workload")?;
                child_of = Some((workload, list(&mut parser)?));
            }
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(match child_of {
        None => Action::Compare(comparison),
        Some((workload, names)) => {
            let options = ChildOptions {
                scale: comparison.scale,
                rounds: comparison.rounds,
                names,
            };
            Action::RunChild(workload, options)
        }
    })
}

fn list(parser: &mut lexopt::Parser) -> Result<Vec<String>, lexopt::Error> {
    let names = parser.value()?.string()?;
    Ok(names.split(',').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Comparison, String> {
        let parser = lexopt::Parser::from_args(arguments);
        match parse(&THREADS, parser).map_err(|error| error.to_string())? {
            Action::Compare(comparison) => Ok(comparison),
            _ => Err("not a comparison".to_owned()),
        }
    }

    #[test]
    fn futurepool_is_always_included() {
        let comparison = parsed(&["--peer", "tokio,rayon"]).unwrap();
        assert_eq!(comparison.peers, ["tokio", "rayon", "futurepool"]);
    }

    #[test]
    fn the_help_lists_one_option_a_line() {
        let help = Suite {
            own_options: "  --own\n",
            ..THREADS
        }
        .help();
        let options: Vec<_> = help.lines().skip(2).collect();
        assert_eq!(options[0], "  --own");
        assert!(
            options.iter().all(|line| line.starts_with("  --")),
            "{help}"
        );
    }

    #[test]
    fn a_prefix_selects_several_workloads() {
        let comparison = parsed(&["--workload", "grain,burst"]).unwrap();
        let names = comparison.workloads.iter().map(|workload| workload.name);
        assert_eq!(
            names.collect::<Vec<_>>(),
            ["burst", "grain-1us", "grain-10us"]
        );
    }

    #[test]
    fn an_unknown_name_lists_the_known_names() {
        let error = parsed(&["--workload", "burst,brust"]).err().unwrap();
        assert!(error.starts_with("unknown workload \"brust\"; known workloads: burst, producers"));
        let error = parsed(&["--peer", "tokyo"]).err().unwrap();
        assert!(error.ends_with("c++, bs_thread_pool"), "{error}");
        assert!(parsed(&["--rounds", "0"]).is_err());
        assert!(parsed(&["--slow"]).is_err());
    }
}
