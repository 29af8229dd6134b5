//! What the frames between a pool and its workers contain.
//!
//! ```text
//! pool   ── SETUP ──► worker      the worker's limits, what it needs to know
//! pool   ◄── HELLO ── worker      its build, its tasks
//! pool   ── RUN ────► worker      one or more calls of one task
//! pool   ◄── RESULTS ─ worker     results of them, in order; which further calls may begin
//! pool   ◄── EVENT ── worker      a `tracing` event
//! ```
//!
//! What a worker sends is untrusted: each read checks what is left.

use crate::call::bytes::Bytes;
use crate::call::codec::Payload;

/// Changes with everything in this file, and in `frame.rs`.
pub(crate) const PROTOCOL: u32 = 1;

pub(crate) const SETUP: u8 = 1;
pub(crate) const HELLO: u8 = 2;
pub(crate) const RUN: u8 = 3;
pub(crate) const RESULTS: u8 = 4;
pub(crate) const EVENT: u8 = 5;

/// What a frame may contain besides arguments and results: names, texts, sizes.
pub(crate) const FRAME_OVERHEAD: u64 = 4 << 20;

/// How one call ended, in a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Returned,
    /// The payload is the message and the place.
    Panicked,
    /// The same, and the process aborts because of it.
    PanickedAndAborts,
    /// The arguments could not be decoded. The payload is the reason.
    BadArguments,
    /// The result could not be encoded. The payload is the reason.
    BadOutput,
    /// The worker does not have the task. The payload is the reason.
    UnknownTask,
}

impl Status {
    const ALL: [Self; 6] = [
        Self::Returned,
        Self::Panicked,
        Self::PanickedAndAborts,
        Self::BadArguments,
        Self::BadOutput,
        Self::UnknownTask,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// Writes numbers and texts.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).expect("names and texts are short"));
        self.0.extend_from_slice(value);
        self
    }
}

/// Reads what a [`Writer`] wrote. `None` if that is not what is there.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(len)?;
        self.0 = left;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let bytes = self.take(8)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// What a worker must know before its first job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    /// How many pools the worker is nested in.
    pub(crate) depth: u32,
    pub(crate) address_space_limit: Option<u64>,
    pub(crate) nice: Option<i32>,
    pub(crate) max_payload: u64,
    pub(crate) generation: u32,
}

impl Setup {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32(PROTOCOL).u32(self.depth).u32(self.generation);
        out.u64(self.address_space_limit.unwrap_or(0));
        out.u64(self.max_payload);
        out.u8(u8::from(self.nice.is_some()));
        out.u32(self.nice.unwrap_or(0) as u32);
        out.0
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut body = Reader(body);
        if body.u32()? != PROTOCOL {
            return None;
        }
        let (depth, generation) = (body.u32()?, body.u32()?);
        let address_space_limit = Some(body.u64()?).filter(|limit| *limit > 0);
        let max_payload = body.u64()?;
        let (has_nice, nice) = (body.u8()?, body.u32()? as i32);
        Some(Self {
            depth,
            generation,
            address_space_limit,
            max_payload,
            nice: (has_nice > 0).then_some(nice),
        })
    }
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) build: u64,
    /// Name, version and signature.
    pub(crate) tasks: Vec<(String, u32, u64)>,
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32(PROTOCOL).u64(self.build);
        out.u32(self.tasks.len() as u32);
        for (name, version, signature) in &self.tasks {
            out.bytes(name.as_bytes()).u32(*version).u64(*signature);
        }
        out.0
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut body = Reader(body);
        if body.u32()? != PROTOCOL {
            return None;
        }
        let (build, count) = (body.u64()?, body.u32()?);
        // Grows with what is there.
        let mut tasks = Vec::new();
        for _ in 0..count {
            tasks.push((body.text()?.to_owned(), body.u32()?, body.u64()?));
        }
        Some(Self { build, tasks })
    }
}

/// The calls of a job: what they have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunHead<'a> {
    pub(crate) task: &'a str,
    pub(crate) version: u32,
    /// How many calls may begin before the first results are sent.
    pub(crate) window: u32,
    /// The most verbose level of `tracing` events that the pool's side wants; 0 for none.
    pub(crate) level: u8,
}

/// Puts calls together: what is written, except for the lanes. The bodies follow the returned bytes.
pub(crate) fn encode_run(head: &RunHead<'_>, calls: &[&Payload]) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(head.task.as_bytes()).u32(head.version);
    out.u32(head.window).u8(head.level);
    encode_sizes(&mut out, calls.iter().copied());
    out.0
}

fn encode_sizes<'a>(out: &mut Writer, payloads: impl ExactSizeIterator<Item = &'a Payload>) {
    out.u32(payloads.len() as u32);
    for payload in payloads {
        out.u64(payload.body.len() as u64);
        out.u32(payload.lanes.len() as u32);
    }
}

/// Takes calls apart again.
pub(crate) fn decode_run(frame: &mut Payload) -> Option<(RunHead<'_>, Vec<Payload>)> {
    let lanes = std::mem::take(&mut frame.lanes);
    let mut body = Reader(&frame.body);
    let head = RunHead {
        task: body.text()?,
        version: body.u32()?,
        window: body.u32()?,
        level: body.u8()?,
    };
    let count = body.u32()?;
    let sizes = decode_sizes(&mut body, count, |_| Some(()))?;
    Some((
        head,
        split(&mut body, lanes, &sizes)?
            .into_iter()
            .map(|((), call)| call)
            .collect(),
    ))
}

type Sized<T> = (T, u64, u32);

/// Each entry is `extra`, then the sizes.
fn decode_sizes<T>(
    body: &mut Reader<'_>,
    count: u32,
    mut extra: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<Sized<T>>> {
    let mut sizes = Vec::new();
    for _ in 0..count {
        sizes.push((extra(body)?, body.u64()?, body.u32()?));
    }
    Some(sizes)
}

fn split<T: Copy>(
    body: &mut Reader<'_>,
    lanes: Vec<Bytes>,
    sizes: &[Sized<T>],
) -> Option<Vec<(T, Payload)>> {
    let mut lanes = lanes.into_iter();
    let mut payloads = Vec::with_capacity(sizes.len());
    for (extra, len, count) in sizes {
        let body = body.take(usize::try_from(*len).ok()?)?.to_vec();
        if lanes.len() < *count as usize {
            return None;
        }
        let lanes = lanes.by_ref().take(*count as usize).collect();
        payloads.push((*extra, Payload { body, lanes }));
    }
    // Nothing may be left over.
    (body.0.is_empty() && lanes.len() == 0).then_some(payloads)
}

/// Results of calls, in order.
#[derive(Debug)]
pub(crate) struct Results {
    /// How many further calls may begin before the next results are sent.
    pub(crate) window: u32,
    pub(crate) results: Vec<(Status, Payload)>,
}

/// Puts results together: what is written, except for the bodies and lanes.
pub(crate) fn encode_results(window: u32, results: &[(Status, Payload)]) -> Vec<u8> {
    let mut out = Writer::default();
    out.u32(window).u32(results.len() as u32);
    for (status, payload) in results {
        out.u8(*status as u8);
        out.u64(payload.body.len() as u64);
        out.u32(payload.lanes.len() as u32);
    }
    out.0
}

/// Takes results apart again.
pub(crate) fn decode_results(frame: Payload) -> Option<Results> {
    let mut body = Reader(&frame.body);
    let (window, count) = (body.u32()?, body.u32()?);
    let sizes = decode_sizes(&mut body, count, |body| Status::of(body.u8()?))?;
    let results = split(&mut body, frame.lanes, &sizes)?;
    Some(Results { window, results })
}

/// The payload of a panic.
pub(crate) fn encode_panic(message: &str, location: &str) -> Payload {
    let mut out = Writer::default();
    out.bytes(cut(message).as_bytes())
        .bytes(cut(location).as_bytes());
    Payload {
        body: out.0,
        lanes: Vec::new(),
    }
}

pub(crate) fn decode_panic(payload: &Payload) -> Option<(&str, &str)> {
    let mut body = Reader(&payload.body);
    Some((body.text()?, body.text()?))
}

/// The payload of an error.
pub(crate) fn encode_text(text: &str) -> Payload {
    Payload {
        body: cut(text).as_bytes().to_vec(),
        lanes: Vec::new(),
    }
}

/// Cuts a text that is absurdly long.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(1024 * 1024);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(body: &[u8], lanes: &[&[u8]]) -> Payload {
        Payload {
            body: body.to_vec(),
            lanes: lanes
                .iter()
                .map(|lane| Bytes::from(lane.to_vec()))
                .collect(),
        }
    }

    fn frame(head: Vec<u8>, parts: &[&Payload]) -> Payload {
        let mut whole = payload(&head, &[]);
        for part in parts {
            whole.body.extend_from_slice(&part.body);
            whole.lanes.extend(part.lanes.iter().cloned());
        }
        whole
    }

    #[test]
    fn setup_and_hello_survive_the_trip_and_nothing_shorter_does() {
        let setup = Setup {
            depth: 3,
            address_space_limit: Some(1 << 30),
            nice: Some(-5),
            max_payload: 7,
            generation: 9,
        };
        let bytes = setup.encode();
        assert_eq!(Setup::decode(&bytes), Some(setup));
        let hello = Hello {
            build: 5,
            tasks: vec![("a::b".to_owned(), 1, 2), ("c".to_owned(), 3, 4)],
        };
        let hello_bytes = hello.encode();
        assert_eq!(Hello::decode(&hello_bytes), Some(hello));
        for len in 0..bytes.len() {
            assert_eq!(Setup::decode(&bytes[..len]), None);
        }
        for len in 0..hello_bytes.len() {
            assert_eq!(Hello::decode(&hello_bytes[..len]), None);
        }
    }

    #[test]
    fn calls_are_put_together_and_taken_apart() {
        let calls = [
            payload(b"one", &[b"x"]),
            payload(b"", &[]),
            payload(b"three", &[b"y", b"z"]),
        ];
        let head = RunHead {
            task: "t",
            version: 2,
            window: 4,
            level: 1,
        };
        let refs: Vec<_> = calls.iter().collect();
        let mut whole = frame(encode_run(&head, &refs), &refs);
        let (decoded, parts) = decode_run(&mut whole).unwrap();
        assert_eq!(decoded, head);
        let same =
            |(a, b): (&Payload, &Payload)| a.body == b.body && a.lanes.len() == b.lanes.len();
        assert_eq!(parts.len(), 3);
        assert!(parts.iter().zip(&calls).all(same));
    }

    #[test]
    fn garbage_is_no_result() {
        let results = [
            (Status::Returned, payload(b"ab", &[b"x"])),
            (Status::Panicked, encode_panic("m", "l")),
        ];
        let parts: Vec<_> = results.iter().map(|(_, part)| part).collect();
        let whole = frame(encode_results(3, &results), &parts);
        let decoded = decode_results(whole.clone()).unwrap();
        assert_eq!((decoded.window, decoded.results.len()), (3, 2));
        assert_eq!(decode_panic(&decoded.results[1].1), Some(("m", "l")));
        for len in 0..whole.body.len() {
            let mut short = whole.clone();
            short.body.truncate(len);
            assert!(decode_results(short).is_none(), "{len} bytes");
        }
        let mut longer = whole.clone();
        longer.body.push(0);
        assert!(decode_results(longer).is_none());
        let mut huge = whole;
        huge.body[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode_results(huge).is_none());
    }
}
