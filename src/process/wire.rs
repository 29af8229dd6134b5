//! What the frames between a pool and its workers contain.
//!
//! ```text
//! pool   ── SETUP ──► worker      the worker's limits, what it needs to know
//! pool   ◄── HELLO ── worker      its build, its tasks
//! pool   ── RUN ────► worker      one or more calls of one task
//! pool   ◄── RESULTS ─ worker     results of them, in order
//! pool   ◄── EVENT ── worker      a `tracing` event
//! ```
//!
//! Which of the calls have begun is told by a number that both sides share: see `counter.rs`.
//!
//! What a worker sends is untrusted: each read checks what is left.

use std::vec;

use crate::call::bytes::Bytes;
use crate::call::codec::Payload;
use crate::process::calls::Size;

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
    /// The call and those behind it were not begun, because the pool has asked for that.
    Skipped,
}

impl Status {
    const ALL: [Self; 7] = [
        Self::Returned,
        Self::Panicked,
        Self::PanickedAndAborts,
        Self::BadArguments,
        Self::BadOutput,
        Self::UnknownTask,
        Self::Skipped,
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
pub(crate) struct Reader<'a>(
    /// What is left.
    &'a [u8],
    /// How much was read.
    usize,
);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes, 0)
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(len)?;
        self.0 = left;
        self.1 += len;
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
    /// The first descriptor that is sent along is a counter.
    pub(crate) has_counter: bool,
}

impl Setup {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32(PROTOCOL).u32(self.depth).u32(self.generation);
        out.u64(self.address_space_limit.unwrap_or(0));
        out.u64(self.max_payload);
        out.u8(u8::from(self.nice.is_some()));
        out.u32(self.nice.unwrap_or(0) as u32);
        out.u8(u8::from(self.has_counter));
        out.0
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut body = Reader::new(body);
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
            has_counter: body.u8()? > 0,
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
        let mut body = Reader::new(body);
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
    /// The most verbose level of `tracing` events that the pool's side wants; 0 for none.
    pub(crate) level: u8,
}

/// Puts calls together: what is written before their bodies and lanes.
pub(crate) fn encode_run(head: &RunHead<'_>, calls: &[Size]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(
        head.task.len() + 16 + SIZE * calls.len(),
    ));
    out.bytes(head.task.as_bytes()).u32(head.version);
    out.u8(head.level).u32(calls.len() as u32);
    for call in calls {
        out.u64(call.body as u64).u32(call.lanes as u32);
    }
    out.0
}

/// How many bytes a size takes.
const SIZE: usize = 12;

/// Takes calls apart again.
pub(crate) fn decode_run(frame: &mut Payload) -> Option<(RunHead<'_>, Parts<()>)> {
    let lanes = std::mem::take(&mut frame.lanes);
    let mut body = Reader::new(&frame.body);
    let head = RunHead {
        task: body.text()?,
        version: body.u32()?,
        level: body.u8()?,
    };
    let parts = Parts::new(&mut body, lanes, |_| Some(()))?;
    Some((head, parts))
}

/// What a message has for each call, in order.
#[derive(Debug)]
pub(crate) struct Parts<T> {
    sizes: vec::IntoIter<(T, usize, usize)>,
    lanes: vec::IntoIter<Bytes>,
    /// Where the next body begins in the message.
    at: usize,
    /// There is one part in all, so it can have the buffer of the message.
    is_only: bool,
}

impl<T> Parts<T> {
    /// Reads the sizes, each of which stands behind what `extra` reads. `None` if they do not fit
    /// to what is there.
    fn new(
        body: &mut Reader<'_>,
        lanes: Vec<Bytes>,
        mut extra: impl FnMut(&mut Reader<'_>) -> Option<T>,
    ) -> Option<Self> {
        let len = body.0.len();
        let count = body.u32()? as usize;
        if count > len / SIZE {
            return None;
        }
        let mut sizes = Vec::with_capacity(count);
        let (mut bodies, mut all_lanes) = (0_usize, 0_usize);
        for _ in 0..count {
            let extra = extra(body)?;
            let (body, lanes) = (usize::try_from(body.u64()?).ok()?, body.u32()? as usize);
            bodies = bodies.checked_add(body)?;
            all_lanes = all_lanes.checked_add(lanes)?;
            sizes.push((extra, body, lanes));
        }
        // Nothing may be missing or left over.
        let fits = bodies == body.0.len() && all_lanes == lanes.len();
        fits.then(|| Self {
            is_only: count == 1,
            sizes: sizes.into_iter(),
            lanes: lanes.into_iter(),
            at: body.1,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Returns the next part. `message` is the body of the message that the parts were made of.
    pub(crate) fn next(&mut self, message: &mut Vec<u8>) -> Option<(T, Payload)> {
        let (extra, body, lanes) = self.sizes.next()?;
        let body = if self.is_only {
            message.drain(..self.at);
            std::mem::take(message)
        } else {
            let start = self.at;
            self.at += body;
            message[start..self.at].to_vec()
        };
        let lanes = self.lanes.by_ref().take(lanes).collect();
        Some((extra, Payload { body, lanes }))
    }
}

/// Puts results together: what is written before their bodies and lanes.
pub(crate) fn encode_results(results: &[(Status, Payload)]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(4 + (1 + SIZE) * results.len()));
    out.u32(results.len() as u32);
    for (status, payload) in results {
        out.u8(*status as u8);
        out.u64(payload.body.len() as u64);
        out.u32(payload.lanes.len() as u32);
    }
    out.0
}

/// Takes results apart again.
pub(crate) fn decode_results(frame: &mut Payload) -> Option<Parts<Status>> {
    let lanes = std::mem::take(&mut frame.lanes);
    Parts::new(&mut Reader::new(&frame.body), lanes, |body| {
        Status::of(body.u8()?)
    })
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
    let mut body = Reader::new(&payload.body);
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
            has_counter: true,
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
        let mut all = vec![
            payload(b"one", &[b"x"]),
            payload(b"", &[]),
            payload(b"three", &[b"y", b"z"]),
        ];
        let head = RunHead {
            task: "t",
            version: 2,
            level: 1,
        };
        for calls in [all.split_off(2), all] {
            let sizes: Vec<_> = calls.iter().map(Size::of).collect();
            let refs: Vec<_> = calls.iter().collect();
            let mut whole = frame(encode_run(&head, &sizes), &refs);
            let (decoded, mut parts) = decode_run(&mut whole).unwrap();
            assert_eq!((decoded, parts.len()), (head, calls.len()));
            for call in &calls {
                assert_eq!(parts.next(&mut whole.body), Some(((), call.clone())));
            }
            assert_eq!(parts.next(&mut whole.body), None);
        }
    }

    #[test]
    fn garbage_is_no_result() {
        let results = [
            (Status::Returned, payload(b"ab", &[b"x"])),
            (Status::Panicked, encode_panic("m", "l")),
        ];
        let parts: Vec<_> = results.iter().map(|(_, part)| part).collect();
        let whole = frame(encode_results(&results), &parts);
        let mut copy = whole.clone();
        let mut decoded = decode_results(&mut copy).unwrap();
        assert_eq!(decoded.next(&mut copy.body).unwrap().0, Status::Returned);
        let (_, panic) = decoded.next(&mut copy.body).unwrap();
        assert_eq!(decode_panic(&panic), Some(("m", "l")));
        for len in 0..whole.body.len() {
            let mut short = whole.clone();
            short.body.truncate(len);
            assert!(decode_results(&mut short).is_none(), "{len} bytes");
        }
        let mut longer = whole.clone();
        longer.body.push(0);
        assert!(decode_results(&mut longer).is_none());
        let mut huge = whole;
        huge.body[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode_results(&mut huge).is_none());
    }
}
