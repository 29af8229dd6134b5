//! What the command line asks for.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::child::Orders;
use crate::contest::Scale;
use crate::peers::{Futurepool, NAMES, Peer};
use crate::workloads::{self, Workload};

pub const HELP: &str = "\
Compares futurepool with other thread pools, on the same work.

  --quick               a tenth of the work, for at most a minute; shows that it runs, no more
  --workload NAME,…     only these workloads
  --peer NAME,…         only these peers, and futurepool
  --rounds N            so many rounds, instead of as many as there is time for
  --json FILE           all that was found, every round
  --svg FILE            a chart
  --list                the names of workloads and peers
  --help                this
";

pub enum Wish {
    Compare(Comparison),
    List,
    Help,
    /// What the program asks of itself.
    BeChild(&'static Workload, Orders),
}

pub struct Comparison {
    pub scale: Scale,
    pub rounds: Option<usize>,
    pub workloads: Vec<&'static Workload>,
    pub peers: Vec<String>,
    pub json: Option<PathBuf>,
    pub svg: Option<PathBuf>,
}

pub fn parse(mut parser: lexopt::Parser) -> Result<Wish, lexopt::Error> {
    let mut comparison = Comparison {
        scale: Scale { quick: false },
        rounds: None,
        workloads: workloads::ALL.to_vec(),
        peers: NAMES.map(str::to_owned).to_vec(),
        json: None,
        svg: None,
    };
    let mut child_of = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => comparison.scale.quick = true,
            Long("rounds") => {
                let rounds = parser.value()?.parse()?;
                if rounds == 0 {
                    return Err("--rounds: at least 1".into());
                }
                comparison.rounds = Some(rounds);
            }
            Long("workload") => {
                let names = list(&mut parser)?;
                comparison.workloads = names
                    .iter()
                    .map(|name| workload(name))
                    .collect::<Result<_, _>>()?;
            }
            Long("peer") => {
                comparison.peers = list(&mut parser)?;
                comparison.peers.push(Futurepool::NAME.to_owned());
                comparison.peers.iter().try_for_each(|name| peer(name))?;
            }
            Long("json") => comparison.json = Some(parser.value()?.into()),
            Long("svg") => comparison.svg = Some(parser.value()?.into()),
            Long("list") => return Ok(Wish::List),
            Long("help") | Short('h') => return Ok(Wish::Help),
            Long("child") => {
                let name = parser.value()?.string()?;
                child_of = Some((workload(&name)?, list(&mut parser)?));
            }
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(match child_of {
        None => Wish::Compare(comparison),
        Some((workload, names)) => {
            let orders = Orders {
                scale: comparison.scale,
                rounds: comparison.rounds,
                names,
            };
            Wish::BeChild(workload, orders)
        }
    })
}

fn list(parser: &mut lexopt::Parser) -> Result<Vec<String>, lexopt::Error> {
    let names = parser.value()?.string()?;
    Ok(names.split(',').map(str::to_owned).collect())
}

fn workload(name: &str) -> Result<&'static Workload, lexopt::Error> {
    workloads::named(name).ok_or_else(|| {
        let names = workloads::ALL.map(|workload| workload.name);
        format!("no workload {name:?}; there are {}", names.join(", ")).into()
    })
}

fn peer(name: &str) -> Result<(), lexopt::Error> {
    match NAMES.contains(&name) {
        true => Ok(()),
        false => Err(format!("no peer {name:?}; there are {}", NAMES.join(", ")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Comparison, String> {
        let parser = lexopt::Parser::from_args(arguments);
        match parse(parser).map_err(|error| error.to_string())? {
            Wish::Compare(comparison) => Ok(comparison),
            _ => Err("something else".to_owned()),
        }
    }

    #[test]
    fn ours_always_takes_part() {
        let comparison = parsed(&["--peer", "tokio,rayon"]).unwrap();
        assert_eq!(comparison.peers, ["tokio", "rayon", "futurepool"]);
    }

    #[test]
    fn a_bad_name_gets_the_good_ones() {
        let error = parsed(&["--workload", "burst,brust"]).err().unwrap();
        assert!(error.starts_with("no workload \"brust\"; there are burst, producers"));
        let error = parsed(&["--peer", "tokyo"]).err().unwrap();
        assert!(error.ends_with("crossbeam, python"), "{error}");
        assert!(parsed(&["--rounds", "0"]).is_err());
        assert!(parsed(&["--slow"]).is_err());
    }
}
