//! `tracing` events of worker processes, which come out in the parent.
//!
//! In a worker, a subscriber turns each event into an [`EventRecord`] and keeps no spans. In the
//! parent, [`replay`] emits the record again, on a thread that is inside the job's span.
//!
//! Metadata of `tracing` is static. What a worker sends must not leak memory, so all events of a
//! level come out through the same callsite and carry their origin in fields.

use std::fmt::{self, Debug, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::util::unwind::{drop_payload, emit};

/// How many bytes of text a record has: target, message, names and values of fields.
const TEXT: usize = 64 * 1024;

/// How many fields a record has.
const FIELDS: usize = 64;

/// The longest encoded record: the text, and a few bytes for each string.
const ENCODED: usize = TEXT + 8 * (2 * FIELDS + 4);

/// Stands at the end of a text that was cut.
const CUT: &str = "…";

/// The most verbose level that this process is asked for, if it is a worker: 1 is `ERROR`, 5 is
/// `TRACE`, 0 is none. Written by [`set_level`].
static LEVEL: AtomicU8 = AtomicU8::new(NO_WORKER);

const NO_WORKER: u8 = u8::MAX;

/// An event on its way from a worker to its parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventRecord {
    /// From 1 (`ERROR`) to 5 (`TRACE`).
    pub(crate) level: u8,
    pub(crate) target: String,
    pub(crate) message: String,
    /// Names and rendered values.
    pub(crate) fields: Vec<(String, String)>,
}

impl EventRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Strings can always be encoded, and a vector takes everything.
        rmp_serde::to_vec(self).unwrap_or_default()
    }

    /// Decodes what a worker has sent.
    ///
    /// # Errors
    ///
    /// Returns a text if `bytes` are no record, or a larger one than [`encode`](Self::encode)
    /// makes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > ENCODED {
            return Err(format!("an event of {} bytes", bytes.len()));
        }
        let record: Self = rmp_serde::from_slice(bytes).map_err(|error| error.to_string())?;
        match record.level {
            1..=5 if record.fields.len() <= FIELDS => Ok(record),
            1..=5 => Err(format!("an event of {} fields", record.fields.len())),
            level => Err(format!("an event of level {level}")),
        }
    }
}

// ---- In a worker --------------------------------------------------------------------------------

/// Makes this process, a worker, pass its events on: `send` gets each event up to the level that
/// was set last. It starts with none.
///
/// `send` runs on the thread that emits the event, while user code may hold its own locks. It must
/// not emit events.
///
/// Returns `false`, and changes nothing, if the program has set a subscriber before.
pub(crate) fn install(send: impl Fn(EventRecord) + Send + Sync + 'static) -> bool {
    let subscriber = Forwarder {
        level: &LEVEL,
        send,
    };
    // Before the subscriber is there: nothing may be sent before the level is known.
    let before = LEVEL.swap(0, Ordering::Relaxed);
    let installed = tracing::subscriber::set_global_default(subscriber).is_ok();
    if !installed {
        LEVEL.store(before, Ordering::Relaxed);
    }
    installed
}

/// Sets the most verbose level that is passed on, as [`current_level`] returns it. Does nothing if
/// [`install`] has not succeeded.
pub(crate) fn set_level(level: u8) {
    // A failed update means that this is no worker.
    let _ = LEVEL.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
        (old != NO_WORKER).then_some(level.min(5))
    });
}

struct Forwarder<F> {
    level: &'static AtomicU8,
    send: F,
}

impl<F: Fn(EventRecord) + Send + Sync + 'static> Subscriber for Forwarder<F> {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_span() {
            Interest::never()
        } else {
            // The level changes.
            Interest::sometimes()
        }
    }

    // Also answers `tracing::enabled!`, which is neither an event nor a span.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.is_span() && number(*metadata.level()) <= self.level.load(Ordering::Relaxed)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut collector = Collector {
            record: EventRecord {
                level: number(*metadata.level()),
                ..EventRecord::default()
            },
            left: TEXT,
        };
        let Collector { record, left } = &mut collector;
        write_limited(
            &mut record.target,
            left,
            format_args!("{}", metadata.target()),
        );
        // The values' `Debug` is user code. Without this process, a panic in it would be one of the
        // task as well, but a log line is no reason for a task to fail.
        let recorded = catch_unwind(AssertUnwindSafe(|| event.record(&mut collector)));
        if let Err(payload) = recorded {
            drop_payload(payload);
            collector.record.message += " (a value of this event panicked)";
        }
        (self.send)(collector.record);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Takes message and fields of an event.
struct Collector {
    record: EventRecord,
    /// How many bytes of text there is still room for.
    left: usize,
}

impl Collector {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let Self { record, left } = self;
        if field.name() == "message" {
            return write_limited(&mut record.message, left, value);
        }
        if record.fields.len() == FIELDS || *left == 0 {
            return;
        }
        record.fields.push(Default::default());
        if let Some((name, text)) = record.fields.last_mut() {
            write_limited(name, left, format_args!("{}", field.name()));
            write_limited(text, left, value);
        }
    }
}

impl Visit for Collector {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.add(field, format_args!("{value}"));
        } else {
            self.add(field, format_args!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

/// Writes `value` to the end of `text`, as much as there is room for.
fn write_limited(text: &mut String, left: &mut usize, value: fmt::Arguments<'_>) {
    struct Limited<'a>(&'a mut String, &'a mut usize);

    impl Write for Limited<'_> {
        fn write_str(&mut self, piece: &str) -> fmt::Result {
            if piece.len() + CUT.len() <= *self.1 {
                self.0.push_str(piece);
                *self.1 -= piece.len();
                return Ok(());
            }
            let mut end = self.1.saturating_sub(CUT.len()).min(piece.len());
            while !piece.is_char_boundary(end) {
                end -= 1;
            }
            self.0.push_str(&piece[..end]);
            if *self.1 >= CUT.len() {
                self.0.push_str(CUT);
            }
            *self.1 = 0;
            // Ends the formatting of a value that may be endless.
            Err(fmt::Error)
        }
    }

    // The error is the end of the room, or the value's own: what there is of it stands.
    let _ = Limited(text, left).write_fmt(value);
}

// ---- In the parent ------------------------------------------------------------------------------

/// Returns the most verbose level that this process has a use for, from 1 (`ERROR`) to 5 (`TRACE`),
/// or 0.
///
/// In a worker, that is what its own parent wants.
pub(crate) fn current_level() -> u8 {
    let own = LevelFilter::current().into_level().map_or(0, number);
    own.min(LEVEL.load(Ordering::Relaxed))
}

fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// Emits an event that the worker process `worker` has sent. Must be called inside the job's span.
///
/// The event has the target `futurepool::worker`. The fields are `task`, `worker`, `target` (the
/// event's own) and, if there are some, `fields`, rendered as in `a=1 b="x"`.
pub(crate) fn replay(record: &EventRecord, task: &str, worker: u32) {
    macro_rules! replay {
        ($level:ident) => {
            emit(|| {
                let EventRecord {
                    target, message, ..
                } = record;
                let fields = render(&record.fields);
                tracing::event!(
                    target: "futurepool::worker",
                    Level::$level,
                    task,
                    worker,
                    target,
                    fields,
                    "{message}"
                );
            })
        };
    }
    match record.level {
        1 => replay!(ERROR),
        2 => replay!(WARN),
        3 => replay!(INFO),
        4 => replay!(DEBUG),
        _ => replay!(TRACE),
    }
}

fn render(fields: &[(String, String)]) -> Option<String> {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    (!fields.is_empty()).then(|| fields.join(" "))
}

/// Checks that a record which can be decoded is the same after another way.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    if let Ok(record) = EventRecord::decode(data) {
        // The parent has no subscriber here, but renders the fields.
        let _ = render(&record.fields);
        assert_eq!(EventRecord::decode(&record.encode()), Ok(record));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Returns the events of `f` that a worker passes on.
    fn sent(level: &'static AtomicU8, f: impl FnOnce()) -> Vec<EventRecord> {
        let records = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&records);
        let send = move |record| sink.lock().expect("no panic").push(record);
        with_default(Forwarder { level, send }, f);
        let records = Arc::into_inner(records).expect("the subscriber is gone");
        records.into_inner().expect("no panic")
    }

    static ALL: AtomicU8 = AtomicU8::new(5);

    #[test]
    fn an_event_is_sent_with_message_and_fields() {
        let records = sent(&ALL, || {
            let text = "x y";
            tracing::warn!(target: "images", n = 1, ok = true, text, shown = %text, "half {}", 2);
            tracing::info_span!("a span").in_scope(|| tracing::trace!(message = "plain"));
        });
        let own = |pairs: &[(&str, &str)]| -> Vec<_> {
            let own = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
            pairs.iter().map(own).collect()
        };
        let fields = [
            ("n", "1"),
            ("ok", "true"),
            ("text", "\"x y\""),
            ("shown", "x y"),
        ];
        let first = EventRecord {
            level: 2,
            target: "images".to_owned(),
            message: "half 2".to_owned(),
            fields: own(&fields),
        };
        let second = EventRecord {
            level: 5,
            target: module_path!().to_owned(),
            message: "plain".to_owned(),
            fields: Vec::new(),
        };
        assert_eq!(records, [first, second]);
    }

    #[test]
    fn the_level_can_change_at_any_time() {
        static CHANGING: AtomicU8 = AtomicU8::new(0);
        let records = sent(&CHANGING, || {
            for level in [0, 3, 1, 5, 0] {
                CHANGING.store(level, Ordering::Relaxed);
                tracing::error!(level, "1");
                tracing::info!(level, "3");
                tracing::trace!(level, "5");
            }
        });
        let found: Vec<_> = records
            .iter()
            .map(|record| format!("{}@{}", record.message, record.fields[0].1))
            .collect();
        assert_eq!(found, ["1@3", "3@3", "1@1", "1@5", "3@5", "5@5"]);
    }

    #[test]
    fn a_huge_event_is_cut() {
        struct Endless;
        impl Debug for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("ä")?;
                }
            }
        }
        let records = sent(&ALL, || {
            tracing::info!(a = 1, endless = ?Endless, b = 2, "short");
            tracing::info!("{:?}", Endless);
            tracing::info!("{}", "x".repeat(TEXT));
        });
        let size = |record: &EventRecord| {
            let pairs = record
                .fields
                .iter()
                .map(|(name, value)| name.len() + value.len());
            record.target.len() + record.message.len() + pairs.sum::<usize>()
        };
        for record in &records {
            assert!(
                (TEXT - 8..=TEXT).contains(&size(record)),
                "{}",
                size(record)
            );
            assert_eq!(EventRecord::decode(&record.encode()).as_ref(), Ok(record));
        }
        let [first, second, third] = &records[..] else {
            panic!("three events")
        };
        assert_eq!((&*first.message, first.fields.len()), ("short", 2));
        assert!(first.fields[1].1.ends_with("ä…"));
        assert!(second.message.ends_with("ä…") && third.message.ends_with("x…"));
    }

    #[test]
    fn a_value_that_panics_is_no_panic_of_the_task() {
        struct Panics;
        impl Debug for Panics {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                std::panic::resume_unwind(Box::new("a test"))
            }
        }
        let records = sent(&ALL, || tracing::info!(value = ?Panics, "text"));
        assert!(records[0].message.contains("panicked"));
    }

    #[test]
    fn a_record_survives_the_way() {
        let record = EventRecord {
            level: 3,
            target: "a::b".to_owned(),
            message: "ä\n".to_owned(),
            fields: vec![("name".to_owned(), String::new()); FIELDS],
        };
        assert_eq!(EventRecord::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn garbage_is_an_error() {
        let record = EventRecord {
            level: 3,
            fields: vec![("a".to_owned(), "b".to_owned())],
            ..EventRecord::default()
        };
        let bytes = record.encode();
        for end in 0..bytes.len() {
            assert!(EventRecord::decode(&bytes[..end]).is_err());
        }
        // No panic, and each record that comes out can be encoded.
        let mut state = 1_u64;
        for round in 0..20_000 {
            let mut bytes = bytes.clone();
            for _ in 0..=round % 4 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 48) as u8;
            }
            if let Ok(record) = EventRecord::decode(&bytes) {
                assert_eq!(EventRecord::decode(&record.encode()), Ok(record));
            }
        }
        let refused = |change: fn(&mut EventRecord)| {
            let mut record = record.clone();
            change(&mut record);
            EventRecord::decode(&record.encode()).is_err()
        };
        assert!(refused(|record| record.level = 0) && refused(|record| record.level = 6));
        assert!(refused(|record| record.message = "x".repeat(ENCODED)));
        assert!(refused(|record| {
            let field = record.fields[0].clone();
            record.fields.resize(FIELDS + 1, field);
        }));
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn an_event_comes_out_below_the_current_span() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(lines.clone())
            .with_max_level(Level::TRACE)
            .without_time()
            .with_ansi(false)
            .finish();
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut record = EventRecord {
            target: "images".to_owned(),
            message: "no {braces}".to_owned(),
            fields: vec![field("a", "1"), field("b", "\"x\"")],
            ..EventRecord::default()
        };
        with_default(subscriber, || {
            let _span = tracing::error_span!("request").entered();
            for level in 1..=5 {
                record.level = level;
                replay(&record, "thumbnail", 4711);
                record.fields.clear();
            }
            assert_eq!(current_level(), 5);
        });
        let bytes = lines.0.lock().expect("no panic");
        let text = std::str::from_utf8(&bytes).expect("it is text");
        let rest = "task=\"thumbnail\" worker=4711 target=\"images\"";
        let start = "request: futurepool::worker: no {braces}";
        let fields = r#"fields="a=1 b=\"x\"""#;
        let expected = format!(
            "ERROR {start} {rest} {fields}\n WARN {start} {rest}\n INFO {start} {rest}\n\
             DEBUG {start} {rest}\nTRACE {start} {rest}\n"
        );
        assert_eq!(text, expected);
    }
}
