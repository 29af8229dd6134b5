//! Runs the same task in threads or in processes. An argument chooses.
//! Run with: `cargo run --example task_anywhere --features process -- processes`
//! (or `threads`, or `inline`; without an argument, all three)

use std::env;
use std::error::Error;

use futurepool::process::ProcessPool;
use futurepool::{InlineExecutor, JoinError, TaskExecutor, TaskExecutorExt, ThreadPool, task};

/// Counts the words of a text.
#[task]
fn count_words(text: String) -> usize {
    text.split_whitespace().count()
}

const PLACES: [&str; 3] = ["threads", "processes", "inline"];

/// Chooses an executor by its name.
fn executor(place: &str) -> Result<Box<dyn TaskExecutor>, Box<dyn Error>> {
    Ok(match place {
        "threads" => Box::new(ThreadPool::new(2)),
        "processes" => Box::new(ProcessPool::builder().max_workers(2).build()?),
        "inline" => Box::new(InlineExecutor),
        other => return Err(format!("expected one of {PLACES:?}, not {other:?}").into()),
    })
}

/// The rest of the program knows of no pool.
fn total(executor: &dyn TaskExecutor, texts: [&str; 3]) -> Result<usize, JoinError> {
    let calls = texts.map(|text| count_words::call(text.into()));
    executor.map_tasks(calls).into_iter().sum()
}

fn main() -> Result<(), Box<dyn Error>> {
    futurepool::process::init();

    let places = match env::args().nth(1) {
        Some(place) => vec![place],
        None => PLACES.map(String::from).to_vec(),
    };
    for place in places {
        let executor = executor(&place)?;
        let total = total(&*executor, ["spam", "spam and eggs", "spam, ham and eggs"])?;
        assert_eq!(total, 8);
        println!("{place}: {total} words");
    }

    // The function is still a function, and a call can run right here.
    assert_eq!(count_words("one two".into()), 2);
    assert_eq!(count_words::call("one two".into()).run(), 2);
    Ok(())
}
