//! Gives each worker a state of its own: here a parser with its scratch buffers, which need no
//! lock.
//! Run with: `cargo run --example stateful`

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::rc::Rc;

use futurepool::StatefulPool;

/// Counts words. It is costly to make, keeps its buffers, and is not `Send`.
struct Parser {
    stop_words: Vec<String>,
    /// Allocated once for all texts of a worker.
    word: Rc<RefCell<String>>,
    texts: usize,
}

impl Parser {
    fn load(stop_words: &str) -> Result<Self, String> {
        if stop_words.is_empty() {
            return Err("no stop words".into());
        }
        Ok(Self {
            stop_words: stop_words.split(' ').map(String::from).collect(),
            word: Rc::default(),
            texts: 0,
        })
    }

    fn count(&mut self, text: &str) -> BTreeMap<String, usize> {
        self.texts += 1;
        let mut counts = BTreeMap::new();
        let mut word = self.word.borrow_mut();
        for part in text.split_whitespace() {
            word.clear();
            word.extend(
                part.chars()
                    .filter(|c| c.is_alphabetic())
                    .flat_map(char::to_lowercase),
            );
            if !word.is_empty() && !self.stop_words.contains(&word) {
                *counts.entry(word.clone()).or_default() += 1;
            }
        }
        counts
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = StatefulPool::builder(|| Parser::load("the a of"))
        .max_workers(2)
        .build()?;

    // A job gets the parser of its worker.
    let counts = pool.submit(|parser| parser.count("The spam, the ham and the spam"));
    let counts = counts.join()?;
    assert_eq!(
        counts,
        BTreeMap::from([("and", 1), ("ham", 1), ("spam", 2)].map(own))
    );

    // So does each item of a map.
    let texts = (0..1_000).map(|n| format!("number {n} of a thousand"));
    let words = pool.map(texts, |parser, text| parser.count(&text).len());
    assert_eq!(words.join()?.iter().sum::<usize>(), 2_000);

    // A panic costs the parser, which may be half changed. The worker makes another one.
    let panic = pool.submit(|parser| {
        parser.stop_words.clear();
        panic!("half changed");
    });
    assert!(panic.join().unwrap_err().is_panic());
    let counts = pool
        .submit(|parser| parser.count("of the parsers"))
        .join()?;
    assert_eq!(counts, BTreeMap::from([("parsers", 1)].map(own)));

    // All of the parsers have parsed something, each on its own thread.
    let texts = pool.broadcast(|parser| parser.texts);
    println!("{} parsers are alive", texts.len());
    texts
        .into_iter()
        .try_for_each(|texts| texts.join().map(drop))?;

    // A state that cannot be made breaks the pool.
    let broken = StatefulPool::builder(|| Parser::load("")).build()?;
    let error = broken.submit(|parser| parser.texts).join().unwrap_err();
    assert!(error.is_broken());
    println!("{error}");
    Ok(())
}

fn own((word, count): (&str, usize)) -> (String, usize) {
    (word.into(), count)
}
