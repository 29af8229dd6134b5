//! Parses the command line.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::participants;
use crate::rows::{self, Row};

pub const HELP: &str = "\
Measures futurepool-cluster beside a bare JetStream exchange, Celery, Dask and Ray.

  --quick               run a tenth of the work, in at most a minute without peers; a smoke test
  --rounds N            run N rounds
  --row NAME,…          run only these rows
  --only NAME,…         run only participants whose names start with one of these
  --nats PATH           the program nats-server, if it is not found by its name
  --redis PATH          the program redis-server, if it is not found by its name
  --python DIR          the virtual environment with celery[redis], distributed and ray
  --install             install these packages with pip, and end
  --json FILE           write the figures of every round as JSON
  --markdown FILE       write the tables as Markdown
  --list                print the names of the rows and participants
  --help                print this help
";

pub enum Action {
    Compare(Comparison),
    Install(Option<PathBuf>),
    List,
    Help,
}

pub struct Comparison {
    pub quick: bool,
    pub rounds: Option<usize>,
    pub(crate) rows: Vec<Row>,
    /// The starts of names. Empty: all.
    pub participants: Vec<String>,
    pub nats: PathBuf,
    pub redis: PathBuf,
    pub python: Option<PathBuf>,
    pub json: Option<PathBuf>,
    pub markdown: Option<PathBuf>,
}

pub fn parse(mut parser: lexopt::Parser) -> Result<Action, lexopt::Error> {
    let mut comparison = Comparison {
        quick: false,
        rounds: None,
        rows: rows::ALL.to_vec(),
        participants: Vec::new(),
        nats: "nats-server".into(),
        redis: "redis-server".into(),
        python: None,
        json: None,
        markdown: None,
    };
    let mut install = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => comparison.quick = true,
            Long("rounds") => {
                let rounds = parser.value()?.parse()?;
                if rounds == 0 {
                    return Err("--rounds: must be at least 1".into());
                }
                comparison.rounds = Some(rounds);
            }
            Long("row") => {
                let names = list(&mut parser)?;
                let named: Result<_, _> = names.iter().map(|name| row(name)).collect();
                comparison.rows = named?;
            }
            Long("only") => {
                let names = list(&mut parser)?;
                names.iter().try_for_each(|name| check(name))?;
                comparison.participants = names;
            }
            Long("nats") => comparison.nats = parser.value()?.into(),
            Long("redis") => comparison.redis = parser.value()?.into(),
            Long("python") => comparison.python = Some(parser.value()?.into()),
            Long("install") => install = true,
            Long("json") => comparison.json = Some(parser.value()?.into()),
            Long("markdown") => comparison.markdown = Some(parser.value()?.into()),
            Long("list") => return Ok(Action::List),
            Long("help") | Short('h') => return Ok(Action::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(match install {
        true => Action::Install(comparison.python),
        false => Action::Compare(comparison),
    })
}

pub fn print_list() {
    let rows = rows::ALL.map(Row::name);
    println!("rows: {}", rows.join(", "));
    println!("participants:");
    for participant in participants::all() {
        println!("  {}", participant.about.name);
    }
}

fn list(parser: &mut lexopt::Parser) -> Result<Vec<String>, lexopt::Error> {
    let names = parser.value()?.string()?;
    Ok(names.split(',').map(str::to_owned).collect())
}

fn row(name: &str) -> Result<Row, lexopt::Error> {
    let mut all = rows::ALL.into_iter();
    all.find(|row| row.name() == name).ok_or_else(|| {
        let known = rows::ALL.map(Row::name).join(", ");
        format!("unknown row {name:?}; known rows: {known}").into()
    })
}

fn check(name: &str) -> Result<(), lexopt::Error> {
    let all = participants::all();
    match all.iter().any(|one| one.about.name.starts_with(name)) {
        true => Ok(()),
        false => Err(format!("unknown participant {name:?}; see --list").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Comparison, String> {
        let parser = lexopt::Parser::from_args(arguments);
        match parse(parser).map_err(|error| error.to_string())? {
            Action::Compare(comparison) => Ok(comparison),
            _ => Err("not a comparison".to_owned()),
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_names() {
        let comparison = parsed(&["--row", "trip,idle", "--only", "Ray,floor"]).unwrap();
        assert_eq!(comparison.rows, [Row::Trip, Row::Idle]);
        assert_eq!(comparison.participants, ["Ray", "floor"]);
        let error = parsed(&["--row", "trips"]).err().unwrap();
        assert!(error.starts_with("unknown row \"trips\"; known rows: trip, burst"));
        assert!(parsed(&["--only", "ray"]).is_err());
        assert!(parsed(&["--rounds", "0"]).is_err());
    }

    #[test]
    fn the_environment_is_also_where_install_writes() {
        let parser = lexopt::Parser::from_args(["--install", "--python", "there"]);
        let Ok(Action::Install(Some(path))) = parse(parser) else {
            panic!("not an installation");
        };
        assert_eq!(path, PathBuf::from("there"));
    }
}
