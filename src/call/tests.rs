//! Tests of the way from a call over the codec to the function and back, in one process.

// `#[task]` must see the types that it sends.
#![allow(clippy::type_complexity)]

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::call::bytes::Bytes;
use crate::call::codec::{Payload, decode, encode};
use crate::call::executor::{TaskExecutor, TaskExecutorExt, TaskJob};
use crate::call::registry::{Registry, RunError, TaskEntry, Tasks};
use crate::call::{Call, Task};
use crate::error::JoinError;
use crate::task::join_handle::JoinHandle;
use crate::{task, tasks};

/// Runs tasks as a worker process would: from encoded arguments, found by name.
struct Loopback(Registry);

impl Loopback {
    fn new() -> Self {
        Self(Registry::from_linked().unwrap())
    }
}

impl TaskExecutor for Loopback {
    fn execute_task(&self, job: TaskJob) {
        assert!(job.set_running());
        let arguments = match job.encode() {
            Ok(arguments) => arguments,
            Err(error) => {
                job.fail(error);
                return;
            }
        };
        let entry = self.0.get(job.name(), job.version()).expect("a known task");
        assert_eq!(entry.signature, job.signature());
        let failed = match (entry.run)(arguments) {
            Ok(output) => return job.resolve(output),
            Err(RunError::Arguments(text)) => JoinError::codec(entry.name, text, false),
            Err(RunError::Output(text)) => JoinError::codec(entry.name, text, true),
        };
        job.fail(failed);
    }
}

fn through_codec<T: Task>(call: Call<T>) -> Result<T::Output, JoinError> {
    let handle: JoinHandle<T::Output> = Loopback::new().submit_task(call);
    handle.join()
}

fn round_trip<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    decode(encode(value).unwrap()).unwrap()
}

fn large() -> Bytes {
    (0..10_000_u32).map(|n| n as u8).collect()
}

// Bytes.

#[test]
fn small_buffers_are_in_the_body_and_large_ones_in_lanes() {
    let value = (Bytes::from(&[7; 4095]), Bytes::from(&[8; 4096]));
    let payload = encode(&value).unwrap();
    assert_eq!(payload.lanes(), [Bytes::from(&[8; 4096])]);
    assert!(payload.body().len() < 4200);
    assert_eq!(decode::<(Bytes, Bytes)>(payload).unwrap(), value);
}

#[test]
fn nothing_is_copied_to_encode_and_to_decode_64_mib() {
    let buffer = vec![1_u8; 64 << 20];
    let address = buffer.as_ptr();
    let value = vec![Some(Bytes::from(buffer))];
    let payload = encode(&value).unwrap();
    drop(value);
    assert_eq!(payload.lanes()[0].as_ptr(), address);
    assert!(payload.body().len() < 100);
    let mut value: Vec<Option<Bytes>> = decode(payload).unwrap();
    let vec = value.pop().flatten().unwrap().into_vec();
    assert_eq!((vec.as_ptr(), vec.len()), (address, 64 << 20));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Outer {
    name: String,
    #[serde(flatten)]
    inner: Inner,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Inner {
    data: Bytes,
    #[serde(flatten)]
    rest: BTreeMap<String, Bytes>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Pair { first: Bytes, second: u8 },
    Other { first: Bytes, third: u8 },
    Text(String),
    Data(Bytes),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Empty,
    Data { data: Bytes },
    Outer(Outer),
}

#[test]
fn buffers_survive_flatten_and_untagged() {
    let inner = Inner {
        data: large(),
        rest: BTreeMap::from([
            ("x".to_owned(), large()),
            ("y".to_owned(), Bytes::from(&[1])),
        ]),
    };
    let outer = Outer {
        name: "outer".to_owned(),
        inner,
    };
    assert_eq!(round_trip(&outer), outer);

    let (first, third) = (large(), 3);
    for value in [
        Untagged::Number(3),
        Untagged::Data(large()),
        Untagged::Other { first, third },
    ] {
        assert_eq!(round_trip(&value), value);
    }
    for value in [
        Tagged::Empty,
        Tagged::Data { data: large() },
        Tagged::Outer(outer),
    ] {
        assert_eq!(round_trip(&value), value);
    }
}

#[test]
fn a_list_of_bytes_is_a_buffer_too() {
    let payload = encode(&vec![1_u8, 2, 200]).unwrap();
    assert_eq!(decode::<Bytes>(payload).unwrap(), [1, 2, 200]);
    let payload = encode("text").unwrap();
    assert_eq!(decode::<Bytes>(payload).unwrap(), *b"text");
}

#[test]
fn a_buffer_that_looks_like_a_reference_is_none() {
    let reference = encode(&large()).unwrap().body()[2..].to_vec();
    let look_alike = Bytes::from(reference);
    let payload = encode(&look_alike).unwrap();
    assert_eq!(payload.lanes(), std::slice::from_ref(&look_alike));
    assert_eq!(decode::<Bytes>(payload).unwrap(), look_alike);
}

#[test]
fn a_reference_without_its_lane_is_an_error() {
    let (body, _) = encode(&large()).unwrap().into_parts();
    let error = decode::<Bytes>(Payload::from_parts(body.clone(), Vec::new())).unwrap_err();
    assert!(error.to_string().contains("no buffer 0"), "{error}");
    // Outside of a payload.
    let error = rmp_serde::from_slice::<Bytes>(&body).unwrap_err();
    assert!(error.to_string().contains("another message"), "{error}");
}

#[test]
fn another_serializer_gets_the_bytes() {
    let encoded = rmp_serde::to_vec(&large()).unwrap();
    assert!(encoded.len() > large().len());
    assert_eq!(rmp_serde::from_slice::<Bytes>(&encoded).unwrap(), large());
}

#[test]
fn more_buffers_than_lanes_are_encoded_in_the_body() {
    let buffer = Bytes::from(&[5; 4096]);
    let value = vec![buffer; crate::call::bytes::MAX_LANES + 2];
    let payload = encode(&value).unwrap();
    assert_eq!(payload.lanes().len(), crate::call::bytes::MAX_LANES);
    assert_eq!(decode::<Vec<Bytes>>(payload).unwrap(), value);
}

/// Encodes another value while it is encoded.
#[derive(Debug, PartialEq, Deserialize)]
struct Nesting(Bytes);

impl Serialize for Nesting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = encode(&large()).unwrap();
        assert_eq!(inner.lanes().len(), 1);
        let panicked = encode(&Panics).unwrap_err();
        assert!(panicked.to_string().contains("out of ink"));
        self.0.serialize(serializer)
    }
}

#[test]
fn a_value_that_encodes_others_keeps_its_buffers() {
    let value = (large(), Nesting(Bytes::from(&[9; 5000])), large());
    let payload = encode(&value).unwrap();
    assert_eq!(payload.lanes().len(), 3);
    assert_eq!(decode::<(Bytes, Nesting, Bytes)>(payload).unwrap(), value);
}

// The codec.

#[derive(Serialize, Deserialize)]
struct Old {
    name: String,
    size: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct New {
    size: u32,
    #[serde(default)]
    colour: Option<String>,
    name: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Nested(Vec<Nested>);

#[test]
fn what_is_nested_too_deep_is_an_error() {
    let nested = |depth| (1..depth).fold(Nested(Vec::new()), |inner, _| Nested(vec![inner]));
    let decoded: Result<Nested, _> = decode(encode(&nested(200)).unwrap());
    assert!(decoded.is_ok());
    let encoded = encode(&nested(300)).unwrap();
    assert!(decode::<Nested>(encoded).is_err());
    // In what is ignored, too.
    let encoded = encode(&(nested(300), 1)).unwrap();
    assert!(decode::<(serde::de::IgnoredAny, u8)>(encoded).is_err());
}

#[test]
fn an_added_field_is_ignored_or_defaulted() {
    let (name, size) = ("x".to_owned(), 3);
    let old = Old { name, size };
    let new: New = decode(encode(&old).unwrap()).unwrap();
    let (name, colour) = ("x".to_owned(), None);
    assert_eq!(new, New { size, colour, name });
    let colour = Some("red".to_owned());
    let new = New { colour, ..new };
    let old: Old = decode(encode(&new).unwrap()).unwrap();
    assert_eq!((&*old.name, old.size), ("x", 3));
}

#[test]
fn what_stands_behind_the_value_is_an_error() {
    for more in [&[0x01][..], &[0xd9]] {
        let (mut body, lanes) = encode(&7_u8).unwrap().into_parts();
        body.extend_from_slice(more);
        let error = decode::<u8>(Payload::from_parts(body, lanes)).unwrap_err();
        assert!(error.to_string().contains("behind the value"), "{error}");
    }
}

#[test]
fn a_claimed_length_takes_no_memory() {
    // A list, a text and bytes of 4 GiB each, with nothing in them.
    for marker in [0xdd, 0xdb, 0xc6] {
        let body = vec![marker, 0xff, 0xff, 0xff, 0xff];
        let payload = Payload::from_parts(body, Vec::new());
        assert!(decode::<Bytes>(payload.clone()).is_err());
        assert!(decode::<Vec<u64>>(payload.clone()).is_err());
        assert!(decode::<String>(payload).is_err());
    }
}

// Tasks.

#[task(crate = crate)]
fn join(words: Vec<String>, separator: char) -> String {
    words.join(&separator.to_string())
}

#[task(crate = crate, name = "blur", version = 3, idempotent)]
fn blur(image: Vec<u8>, radius: Option<u8>) -> Result<Vec<u8>, String> {
    match radius {
        Some(radius) => Ok(image.into_iter().map(|pixel| pixel / radius).collect()),
        None => Err("no radius".to_owned()),
    }
}

#[allow(clippy::type_complexity)]
#[task(crate = crate)]
fn echo_wire(
    tuple: (u8, Vec<u8>, Option<Vec<Vec<u8>>>),
    twice: Option<Option<u32>>,
    unit: Option<()>,
) -> (
    (u8, Vec<u8>, Option<Vec<Vec<u8>>>),
    Option<Option<u32>>,
    Option<()>,
) {
    (tuple, twice, unit)
}

#[task(crate = crate)]
fn nothing() {}

#[test]
fn a_task_runs_from_encoded_arguments() {
    let words = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(through_codec(join::call(words, '-')).unwrap(), "a-b");
    through_codec(nothing::call()).unwrap();
    for size in [2, 10_000] {
        let blurred = through_codec(blur::call(vec![8; size], Some(2))).unwrap();
        assert_eq!(blurred, Ok(vec![4; size]));
    }
    assert_eq!(
        through_codec(blur::call(vec![1], None)).unwrap(),
        Err("no radius".to_owned())
    );
}

#[test]
fn what_messagepack_cannot_tell_apart_survives_in_signatures() {
    let tuple = (1, vec![2; 5000], Some(vec![vec![3; 5000], vec![]]));
    for (twice, unit) in [
        (None, None),
        (Some(None), Some(())),
        (Some(Some(1)), Some(())),
    ] {
        let call = echo_wire::call(tuple.clone(), twice, unit);
        assert_eq!(through_codec(call).unwrap(), (tuple.clone(), twice, unit));
    }
}

#[test]
fn buffers_in_signatures_have_lanes() {
    let payload = blur::call(vec![1; 5000], None).encode().unwrap();
    assert_eq!(payload.lanes().len(), 1);
    let output = blur::encode_output(Ok(vec![1; 5000])).unwrap();
    assert_eq!(output.lanes().len(), 1);
    let call = echo_wire::call((0, vec![1; 5000], Some(vec![vec![2; 5000]; 2])), None, None);
    assert_eq!(call.encode().unwrap().lanes().len(), 3);
}

#[test]
fn a_buffer_reaches_the_function_without_a_copy() {
    #[task(crate = crate)]
    fn address(buffer: Vec<u8>) -> usize {
        buffer.as_ptr().addr()
    }

    let buffer = vec![0; 5000];
    let before = buffer.as_ptr().addr();
    // Here, and from a payload.
    let call = address::call(buffer);
    let payload = call.encode().unwrap();
    drop(call);
    let args = decode::<<address as Task>::Args>(payload).unwrap();
    assert_eq!(address::run(args), before);
}

// Errors, on all four sides.

struct Fails;
struct Panics;

macro_rules! bad_type {
    ($($bad:ident, $ser:expr, $de:expr;)*) => {$(
        impl Serialize for $bad {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $ser(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $bad {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                $de
            }
        }
    )*};
}

struct FailsToDecode;
struct PanicsToDecode;

bad_type! {
    Fails, |_| Err(S::Error::custom("no ink")), Ok(Self);
    Panics, |_| panic!("out of ink"), Ok(Self);
    FailsToDecode, |s: S| s.serialize_unit(), Err(D::Error::custom("no glasses"));
    PanicsToDecode, |s: S| s.serialize_unit(), panic!("broken glasses");
}

#[task(crate = crate)]
fn take_fails(_bad: Fails) {}
#[task(crate = crate)]
fn take_panics(_bad: Panics) {}
#[task(crate = crate)]
fn take_undecodable(_bad: FailsToDecode) {}
#[task(crate = crate)]
fn take_panicking(_bad: PanicsToDecode) {}
#[task(crate = crate)]
fn give_fails() -> Fails {
    Fails
}
#[task(crate = crate)]
fn give_panics() -> Panics {
    Panics
}
#[task(crate = crate)]
fn give_undecodable() -> FailsToDecode {
    FailsToDecode
}
#[task(crate = crate)]
fn give_panicking() -> PanicsToDecode {
    PanicsToDecode
}

fn assert_codec_error<T: Task>(call: Call<T>, text: &str, may_have_run: bool) {
    let Err(error) = through_codec(call) else {
        panic!("no error: {text}");
    };
    assert!(error.is_codec(), "{error}");
    assert!(error.to_string().contains(text), "{error}");
    assert!(error.to_string().contains(T::NAME), "{error}");
    assert_eq!(error.may_have_run(), may_have_run, "{error}");
    assert!(
        error
            .location()
            .is_some_and(|at| at.file().ends_with("tests.rs"))
    );
}

#[test]
fn promise_12_arguments_that_fail_to_encode_are_an_error_of_that_job() {
    assert_codec_error(take_fails::call(Fails), "no ink", false);
}

#[test]
fn promise_12_arguments_that_panic_while_encoded_are_an_error_of_that_job() {
    assert_codec_error(take_panics::call(Panics), "out of ink", false);
}

#[test]
fn promise_12_arguments_that_fail_to_decode_are_an_error_of_that_job() {
    assert_codec_error(take_undecodable::call(FailsToDecode), "no glasses", false);
}

#[test]
fn promise_12_arguments_that_panic_while_decoded_are_an_error_of_that_job() {
    assert_codec_error(
        take_panicking::call(PanicsToDecode),
        "broken glasses",
        false,
    );
}

#[test]
fn promise_12_an_output_that_fails_to_encode_is_an_error_of_that_job() {
    assert_codec_error(give_fails::call(), "no ink", true);
}

#[test]
fn promise_12_an_output_that_panics_while_encoded_is_an_error_of_that_job() {
    assert_codec_error(give_panics::call(), "out of ink", true);
}

#[test]
fn promise_12_an_output_that_fails_to_decode_is_an_error_of_that_job() {
    assert_codec_error(give_undecodable::call(), "no glasses", true);
}

#[test]
fn promise_12_an_output_that_panics_while_decoded_is_an_error_of_that_job() {
    assert_codec_error(give_panicking::call(), "broken glasses", true);
}

#[test]
fn a_panic_of_the_function_is_no_error_of_the_codec() {
    #[task(crate = crate)]
    fn panics_itself() {
        panic!("its own");
    }

    let entry = *Registry::from_linked()
        .unwrap()
        .get(panics_itself::NAME, 1)
        .unwrap();
    let arguments = panics_itself::call().encode().unwrap();
    let outcome = std::panic::catch_unwind(|| (entry.run)(arguments));
    assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"its own"));
}

// The registry.

#[test]
fn a_task_is_found_by_name_and_version() {
    let registry = Registry::from_linked().unwrap();
    let entry = registry.get("blur", 3).unwrap();
    assert!(entry.location.contains("tests.rs:"), "{entry:?}");
    assert!(registry.get("blur", 2).is_none());
    assert!(registry.get("futurepool::call::tests::join", 1).is_some());
    assert!(registry.iter().any(|entry| entry.name == "blur"));
}

struct Repeat<const N: usize>;

impl<const N: usize> Task for Repeat<N> {
    const NAME: &'static str = if N == 2 { "repeat 2" } else { "repeat" };
    type Args = String;
    type Output = String;

    fn run(text: String) -> String {
        text.repeat(N)
    }
}

#[test]
fn a_list_has_generic_tasks_and_only_what_it_names() {
    let registry = Registry::from_tasks(tasks![join, Repeat<2>, Repeat::<3>]).unwrap();
    assert_eq!(registry.iter().count(), 3);
    let entry = registry.get("repeat 2", 1).unwrap();
    let call = Call::<Repeat<2>>::new("ab".to_owned());
    let output = (entry.run)(call.encode().unwrap()).unwrap();
    assert_eq!(decode::<String>(output).unwrap(), "abab");
    assert!(registry.get("blur", 3).is_none());
}

#[test]
fn two_tasks_of_one_name_are_an_error_with_both_places() {
    let first = TaskEntry::of::<Repeat<3>>("a.rs:1");
    let second = TaskEntry::of::<Repeat<4>>("b.rs:2");
    let tasks = Tasks::from_entries(vec![second, first]);
    let error = Registry::from_tasks(tasks).unwrap_err();
    assert!(error.contains("\"repeat\" and the version 1"), "{error}");
    assert!(
        error.contains("one at a.rs:1, the other at b.rs:2"),
        "{error}"
    );
}

#[test]
fn a_task_of_the_attribute_knows_its_place() {
    let tasks = format!("{:?}", tasks![blur]);
    assert!(
        tasks.starts_with("[blur version 3 (src/call/tests.rs:"),
        "{tasks}"
    );
}

// Signatures.

mod signatures {
    use super::*;

    pub(super) mod other {
        use super::*;

        #[task(crate = crate)]
        pub(crate) fn base(a: u32, b: Vec<u8>) -> String {
            format!("{a}{b:?}")
        }
    }

    #[task(crate = crate)]
    pub(super) fn base(mut a: u32, b: Vec<u8>) -> String {
        a += 1;
        format!("{a}{b:?}")
    }

    #[task(crate = crate)]
    pub(super) fn other_name(a: u32, c: Vec<u8>) -> String {
        format!("{a}{c:?}")
    }

    #[task(crate = crate)]
    pub(super) fn other_type(a: u64, b: Vec<u8>) -> String {
        format!("{a}{b:?}")
    }

    #[task(crate = crate)]
    pub(super) fn other_output(a: u32, b: Vec<u8>) -> Option<String> {
        Some(format!("{a}{b:?}"))
    }

    #[task(crate = crate)]
    pub(super) fn other_order(b: Vec<u8>, a: u32) -> String {
        format!("{a}{b:?}")
    }

    #[test]
    fn the_signature_is_that_of_the_parameters_and_the_output() {
        let base = other::base::SIGNATURE;
        assert_eq!(base, self::base::SIGNATURE);
        let others = [
            other_name::SIGNATURE,
            other_type::SIGNATURE,
            other_output::SIGNATURE,
            other_order::SIGNATURE,
            0,
        ];
        assert!(!others.contains(&base));
        assert_eq!(Repeat::<2>::SIGNATURE, 0);
    }
}

#[test]
fn a_task_can_have_the_name_of_what_the_macro_uses() {
    #[task(crate = crate)]
    fn args(args: u32, output: u32) -> u32 {
        args + output
    }

    #[task(crate = crate)]
    fn run(run: u32) -> u32 {
        run
    }

    #[task(crate = crate)]
    fn call(call: Vec<u8>) -> Vec<u8> {
        call
    }

    assert_eq!(args(1, 2) + run(3) + call(vec![4]).len() as u32, 7);
    assert_eq!(through_codec(args::call(1, 2)).unwrap(), 3);
    assert_eq!(through_codec(run::call(3)).unwrap(), 3);
    assert_eq!(through_codec(call::call(vec![4])).unwrap(), [4]);
}

#[test]
fn options_set_the_constants() {
    assert_eq!((blur::NAME, blur::VERSION), ("blur", 3));
    assert_eq!((blur::IDEMPOTENT, blur::ATTEMPTS), (true, 3));
    assert_eq!(
        (join::IDEMPOTENT, join::ATTEMPTS, join::VERSION),
        (false, 1, 1)
    );

    #[task(crate = crate, idempotent, attempts = 7, type = Renamed)]
    fn renamed() {}

    struct ByHand;

    impl Task for ByHand {
        const NAME: &'static str = "by hand";
        const IDEMPOTENT: bool = true;
        type Args = ();
        type Output = ();

        fn run((): ()) {}
    }

    // The same as without the option.
    assert_eq!(Call::<ByHand>::new(()).info().attempts, blur::ATTEMPTS);

    renamed();
    assert_eq!((Renamed::IDEMPOTENT, Renamed::ATTEMPTS), (true, 7));
    assert_eq!(Renamed::NAME, "futurepool::call::tests::renamed");
}
