//! A `tracing` subscriber for the whole process that keeps every event of the crate.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::Mutex;

use tracing::{Event, Level, Metadata, Subscriber, field, span};

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());
/// Events with two fields of one name, which a JSON parser cannot tell apart.
static AMBIGUOUS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps every event of the crate as its level and its fields. Needs a process of its own: see
/// [`super::child`].
pub(crate) struct EventLog;

impl EventLog {
    pub(crate) fn install() {
        tracing::subscriber::set_global_default(Self).unwrap();
    }

    /// Returns `true` if an event has `text` in its fields.
    pub(crate) fn contains(text: &str) -> bool {
        let lines = LINES.lock().unwrap();
        lines.iter().any(|(_, line)| line.contains(text))
    }

    /// Returns `true` if an event of `level` has each of `words` in its fields.
    pub(crate) fn contains_at(level: Level, words: &[&str]) -> bool {
        let matches = |(of, line): &(Level, String)| {
            *of == level && words.iter().all(|word| line.contains(word))
        };
        LINES.lock().unwrap().iter().any(matches)
    }

    /// Returns how many events have `text` in their fields.
    #[allow(dead_code, reason = "only the tests of worker processes count")]
    pub(crate) fn count(text: &str) -> usize {
        let lines = LINES.lock().unwrap();
        lines.iter().filter(|(_, line)| line.contains(text)).count()
    }

    /// Panics if an event so far had two fields of one name.
    #[track_caller]
    pub(crate) fn assert_distinct_field_names() {
        let ambiguous = AMBIGUOUS.lock().unwrap();
        assert!(ambiguous.is_empty(), "{ambiguous:#?}");
    }
}

impl Subscriber for EventLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("futurepool")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        #[derive(Default)]
        struct Line {
            text: String,
            names: HashSet<&'static str>,
            is_ambiguous: bool,
        }
        impl field::Visit for Line {
            fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
                write!(self.text, "{}={value:?} ", field.name()).unwrap();
                self.is_ambiguous |= !self.names.insert(field.name());
            }
        }
        let mut line = Line::default();
        event.record(&mut line);
        let level = *event.metadata().level();
        if line.is_ambiguous {
            AMBIGUOUS.lock().unwrap().push(line.text.clone());
        }
        LINES.lock().unwrap().push((level, line.text));
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
