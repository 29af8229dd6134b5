//! Frames: what a pool and its worker processes say to each other.
//!
//! ```text
//! magic u8 · kind u8 · lanes u16 · generation u32 · job u64 · body length u64     little endian
//! `lanes` × lane length u64
//! the body · the lanes
//! ```
//!
//! A small frame costs one `write` and usually one `read`. A large one is neither gathered in a
//! buffer nor read through one.
//!
//! The other side is untrusted. Lengths are checked before memory is taken, and memory grows with
//! what has arrived: a frame that announces a gigabyte and ends costs a megabyte.

use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind, IoSlice, Read, Write};

#[cfg(unix)]
pub(crate) use crate::process::socket::NoSigpipe;
use crate::{Bytes, Payload};

const MAGIC: u8 = 0xf7;

/// The size of the fixed part.
const HEAD: usize = 24;

/// A frame up to this size is one `write`. A reader reads ahead as far.
const SMALL: usize = 16 * 1024;

/// How much memory is reserved ahead of the first bytes. What has arrived doubles it.
const AHEAD: usize = 1024 * 1024;

/// How many parts one vectored write takes. Most systems limit them to 1,024.
const PARTS: usize = 64;

/// What a frame says beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    /// The worker's generation: a late frame of a predecessor is recognized by it.
    pub(crate) generation: u32,
    pub(crate) job: u64,
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) head: Head,
    pub(crate) payload: Payload,
}

// ---- Writing ------------------------------------------------------------------------------------

/// Returns the size of a payload as [`FrameReader::new`] limits it.
pub(crate) fn payload_size(body: &[&[u8]], lanes: &[Bytes]) -> u64 {
    let body = body.iter().map(|part| part.len() as u64);
    let lanes = lanes.iter().map(|lane| lane.len() as u64);
    body.chain(lanes).fold(0, u64::saturating_add)
}

/// Writes a frame. The parts of `body` are written one after another.
///
/// A small frame is one `write`. A large one is written without a copy, in vectored writes.
/// `scratch` is a buffer for reuse; its content does not matter.
///
/// After an error the frame counts as not written, and the stream is useless.
///
/// # Errors
///
/// Returns `InvalidInput`, before anything is written, if there are more than 65,535 lanes.
/// Otherwise returns the error of `out`. Interrupted writes are continued.
pub(crate) fn write_frame(
    out: &mut impl Write,
    scratch: &mut Vec<u8>,
    head: Head,
    body: &[&[u8]],
    lanes: &[Bytes],
) -> io::Result<()> {
    let count = u16::try_from(lanes.len()).map_err(|_| {
        let text = format!("{} buffers in one message, at most 65535", lanes.len());
        io::Error::new(ErrorKind::InvalidInput, text)
    })?;
    let body_size = payload_size(body, &[]);

    scratch.clear();
    scratch.extend_from_slice(&[MAGIC, head.kind]);
    scratch.extend_from_slice(&count.to_le_bytes());
    scratch.extend_from_slice(&head.generation.to_le_bytes());
    scratch.extend_from_slice(&head.job.to_le_bytes());
    scratch.extend_from_slice(&body_size.to_le_bytes());
    for lane in lanes {
        scratch.extend_from_slice(&(lane.len() as u64).to_le_bytes());
    }

    let is_small = |size: u64| size <= (SMALL as u64).saturating_sub(scratch.len() as u64);
    let (body_fits, all_fits) = (is_small(body_size), is_small(payload_size(body, lanes)));
    let mut parts = Vec::new();
    if body_fits {
        body.iter().for_each(|part| scratch.extend_from_slice(part));
    } else {
        parts.extend(body.iter().copied());
    }
    if all_fits {
        lanes
            .iter()
            .for_each(|lane| scratch.extend_from_slice(lane));
        return out.write_all(scratch);
    }
    parts.extend(lanes.iter().map(|lane| &**lane));
    write_parts(out, scratch, &parts)?;
    // Thousands of lanes: their lengths are not worth keeping half a megabyte for.
    scratch.clear();
    scratch.shrink_to(SMALL);
    Ok(())
}

fn write_parts(out: &mut impl Write, start: &[u8], rest: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<_> = std::iter::once(start)
        .chain(rest.iter().copied())
        .map(IoSlice::new)
        .collect();
    // Invariant: the first of `left` is not empty. `start` is not, and `advance_slices` removes
    // empty parts behind what was written. So 0 means that nothing more can be written.
    let mut left = &mut slices[..];
    while !left.is_empty() {
        let some = left.len().min(PARTS);
        match out.write_vectored(&left[..some]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut left, n),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

// ---- Reading ------------------------------------------------------------------------------------

/// Reads frames from a stream that it does not trust.
///
/// It reads ahead and keeps the rest for the next frame, so all frames of a stream must come
/// through the same reader. A wait for readiness of the stream must be skipped while [`buffered`]
/// is not 0.
///
/// [`buffered`]: FrameReader::buffered
pub(crate) struct FrameReader {
    buffer: Box<[u8]>,
    /// What was read ahead is `buffer[start..end]`.
    start: usize,
    end: usize,
    max_payload: u64,
}

/// Why there is no frame. After any of these the stream is useless, except [`FrameError::Io`] with
/// `WouldBlock` or `TimedOut` between two frames.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The stream ended between two frames.
    End,
    /// The stream ended within a frame.
    Truncated,
    Io(io::Error),
    /// What arrived is no frame.
    Invalid(String),
    /// The payload is larger than the reader's limit.
    TooLarge {
        len: u64,
        max: u64,
    },
}

impl Display for FrameError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the stream ended"),
            Self::Truncated => f.write_str("the stream ended within a message"),
            Self::Io(error) => Display::fmt(error, f),
            Self::Invalid(what) => f.write_str(what),
            Self::TooLarge { len, max } => {
                write!(f, "a message of {len} bytes, at most {max} are allowed")
            }
        }
    }
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl FrameReader {
    /// Makes a reader that takes no payload larger than `max_payload` bytes, body and lanes
    /// together.
    pub(crate) fn new(max_payload: u64) -> Self {
        Self {
            buffer: vec![0; SMALL].into(),
            start: 0,
            end: 0,
            max_payload,
        }
    }

    /// Returns how many bytes were read ahead. They are the start of the next frame.
    pub(crate) fn buffered(&self) -> usize {
        self.end - self.start
    }

    /// Reads the next frame. Interrupted reads are continued.
    pub(crate) fn read(&mut self, input: &mut impl Read) -> Result<Frame, FrameError> {
        // The head stays in the buffer until it is complete: an error before that loses nothing.
        while self.buffered() < HEAD {
            if self.fill(input)? == 0 {
                return Err(match self.buffered() {
                    0 => FrameError::End,
                    _ => FrameError::Truncated,
                });
            }
        }
        let [magic] = self.take();
        if magic != MAGIC {
            let text = format!("a message that starts with {magic:#04x}, not {MAGIC:#04x}");
            return Err(FrameError::Invalid(text));
        }
        let [kind] = self.take();
        let lanes = u16::from_le_bytes(self.take());
        let head = Head {
            kind,
            generation: u32::from_le_bytes(self.take()),
            job: u64::from_le_bytes(self.take()),
        };
        let body = u64::from_le_bytes(self.take());

        let mut total = self.check(0, body)?;
        let mut sizes = Vec::with_capacity(usize::from(lanes));
        for _ in 0..lanes {
            while self.buffered() < size_of::<u64>() {
                if self.fill(input)? == 0 {
                    return Err(FrameError::Truncated);
                }
            }
            let size = u64::from_le_bytes(self.take());
            total = self.check(total, size)?;
            sizes.push(size);
        }

        let body = self.read_bytes(input, body)?;
        let mut payload = Payload {
            body,
            lanes: Vec::with_capacity(sizes.len()),
        };
        for size in sizes {
            let lane = self.read_bytes(input, size)?;
            payload.lanes.push(Bytes::from(lane));
        }
        Ok(Frame { head, payload })
    }

    /// Adds `more` to `total` and compares the sum with the limit.
    fn check(&self, total: u64, more: u64) -> Result<u64, FrameError> {
        let len = total.saturating_add(more);
        if len > self.max_payload || usize::try_from(len).is_err() {
            let max = self.max_payload;
            return Err(FrameError::TooLarge { len, max });
        }
        Ok(len)
    }

    /// Takes `N` bytes that are in the buffer.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.buffer[self.start..self.start + N]);
        self.start += N;
        bytes
    }

    /// Reads once and returns how much came, 0 at the end of the stream. Fewer than `HEAD` bytes
    /// may be in the buffer.
    fn fill(&mut self, input: &mut impl Read) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        loop {
            match input.read(&mut self.buffer[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads `size` bytes, which were checked.
    fn read_bytes(&mut self, input: &mut impl Read, size: u64) -> Result<Vec<u8>, FrameError> {
        let size = usize::try_from(size).map_err(|_| FrameError::Truncated)?;
        let mut bytes = Vec::new();
        loop {
            let missing = size - bytes.len();
            if missing == 0 {
                return Ok(bytes);
            }
            // The received bytes double the reserve, so a sender pays for half of it at least.
            if bytes.len() == bytes.capacity() {
                let more = missing.min(bytes.len().max(AHEAD));
                bytes
                    .try_reserve_exact(more)
                    .map_err(|_| FrameError::Io(ErrorKind::OutOfMemory.into()))?;
            }
            if self.buffered() == 0 && missing < SMALL / 2 {
                // A short rest: what follows it comes with the same `read`.
                if self.fill(input)? == 0 {
                    return Err(FrameError::Truncated);
                }
            }
            let room = missing.min(bytes.capacity() - bytes.len());
            let got = match self.buffered() {
                // Straight into the spare room, which need not be zeroed.
                0 => input.by_ref().take(room as u64).read_to_end(&mut bytes)?,
                n => {
                    let n = n.min(room);
                    bytes.extend_from_slice(&self.buffer[self.start..self.start + n]);
                    self.start += n;
                    n
                }
            };
            if got == 0 {
                return Err(FrameError::Truncated);
            }
        }
    }
}

impl fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader")
            .field("buffered", &self.buffered())
            .field("max_payload", &self.max_payload)
            .finish_non_exhaustive()
    }
}

// ---- Checks, for tests and the fuzz target ------------------------------------------------------

/// Reads `stream` in one piece and in pieces of the sizes that `cut` gives (0 is an interrupted
/// read). Both must find the same frames and the same end, the frames must be exactly what was in
/// the stream, and no memory may be taken for what was not.
///
/// Returns the number of frames and the end.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_reader(
    stream: &[u8],
    max_payload: u64,
    cut: impl FnMut() -> usize,
) -> (usize, FrameError) {
    struct Pieces<'a, F>(&'a [u8], F);

    impl<F: FnMut() -> usize> Read for Pieces<'_, F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match (self.1)() {
                0 => Err(ErrorKind::Interrupted.into()),
                n => {
                    let n = n.min(buffer.len());
                    self.0.read(&mut buffer[..n])
                }
            }
        }
    }

    fn read_all(input: &mut impl Read, max_payload: u64) -> (usize, Vec<u8>, FrameError) {
        let mut reader = FrameReader::new(max_payload);
        let (mut count, mut bytes, mut scratch) = (0, Vec::new(), Vec::new());
        loop {
            match reader.read(input) {
                Ok(Frame { head, payload }) => {
                    let Payload { body, lanes } = payload;
                    assert!(payload_size(&[&body], &lanes) <= max_payload);
                    assert_eq!(body.capacity(), body.len());
                    count += 1;
                    write_frame(&mut bytes, &mut scratch, head, &[&body], &lanes)
                        .expect("a vector takes everything");
                }
                Err(error) => return (count, bytes, error),
            }
        }
    }

    let (count, bytes, end) = read_all(&mut &*stream, max_payload);
    assert!(stream.starts_with(&bytes));
    assert_eq!(bytes.len() == stream.len(), matches!(end, FrameError::End));
    let (pieces_count, pieces, pieces_end) = read_all(&mut Pieces(stream, cut), max_payload);
    assert_eq!((count, bytes), (pieces_count, pieces));
    assert_eq!(end.to_string(), pieces_end.to_string());
    assert!(!matches!(end, FrameError::Io(_)), "{end}");
    (count, end)
}

/// Checks the reader with the limit, the cuts and the stream that are in `data`.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    let Some((&[limit, first, second], stream)) = data.split_first_chunk() else {
        return;
    };
    let mut is_first = false;
    check_reader(stream, 1 << (limit % 64), || {
        is_first = !is_first;
        // Not always interrupted.
        usize::from(if is_first { first } else { second.max(1) })
    });
}

#[cfg(all(test, unix, not(loom)))]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::process::socket::pair;

    const HEAD_1: Head = Head {
        kind: 3,
        generation: 7,
        job: 1 << 40,
    };

    /// A small seeded generator. A test that fails prints its seed.
    struct Random(u64, u64);

    impl Random {
        fn new(seed: u64) -> Self {
            Self(seed, seed)
        }

        fn below(&mut self, n: u64) -> u64 {
            self.1 = self.1.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.1 ^ (self.1 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % n
        }

        fn bytes(&mut self, len: u64) -> Vec<u8> {
            (0..len).map(|_| self.below(256) as u8).collect()
        }

        /// Sizes around the reader's limits.
        fn size(&mut self) -> u64 {
            let near = [0, 8, 100, SMALL as u64 / 2, SMALL as u64, 3 * SMALL as u64];
            let near = near[self.below(6) as usize];
            (near + self.below(5)).saturating_sub(2)
        }

        fn frame(&mut self, stream: &mut Vec<u8>) {
            let head = Head {
                kind: self.below(256) as u8,
                generation: self.below(1 << 32) as u32,
                job: self.below(u64::MAX),
            };
            let mut parts = Vec::new();
            for _ in 0..self.below(3) {
                let size = self.size();
                parts.push(self.bytes(size));
            }
            let mut lanes = Vec::new();
            for _ in 0..self.below(4) {
                let size = self.size();
                lanes.push(Bytes::from(self.bytes(size)));
            }
            let parts: Vec<_> = parts.iter().map(|part| &part[..]).collect();
            write_frame(stream, &mut Vec::new(), head, &parts, &lanes).expect("a vector");
        }
    }

    impl Drop for Random {
        fn drop(&mut self) {
            if thread::panicking() {
                eprintln!("failed with seed {}", self.0);
            }
        }
    }

    fn written(body: &[u8], lanes: &[Bytes]) -> Vec<u8> {
        let mut stream = Vec::new();
        write_frame(&mut stream, &mut Vec::new(), HEAD_1, &[body], lanes).expect("a vector");
        stream
    }

    /// Counts calls and takes at most `most` bytes a call. Each second call can be interrupted.
    struct Slow {
        taken: Vec<u8>,
        calls: usize,
        most: usize,
        interrupts: bool,
    }

    impl Slow {
        fn new(most: usize) -> Self {
            Self {
                taken: Vec::new(),
                calls: 0,
                most,
                interrupts: false,
            }
        }
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.interrupts && self.calls % 2 == 1 {
                return Err(ErrorKind::Interrupted.into());
            }
            let n = bytes.len().min(self.most);
            self.taken.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Counts calls.
    struct Counting<'a>(&'a [u8], usize);

    impl Read for Counting<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            self.0.read(buffer)
        }
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let lanes = [vec![1; 5_000], vec![], vec![2; 3 * AHEAD + 1]].map(Bytes::from);
        for body in [0, 1, SMALL, 2 * AHEAD + 5].map(|size| vec![9_u8; size]) {
            let stream = written(&body, &lanes);
            let frame = FrameReader::new(u64::MAX)
                .read(&mut &stream[..])
                .expect("a frame");
            assert_eq!(frame.head, HEAD_1);
            assert_eq!(frame.payload.body, body);
            let read: Vec<_> = frame
                .payload
                .lanes
                .iter()
                .map(|lane| lane.to_vec())
                .collect();
            assert_eq!(
                read,
                lanes.iter().map(|lane| lane.to_vec()).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_small_frame_is_one_write_and_several_are_one_read() {
        let mut out = Slow::new(usize::MAX);
        let mut scratch = Vec::new();
        let lane = Bytes::from(vec![1; 5_000]);
        for _ in 0..3 {
            write_frame(
                &mut out,
                &mut scratch,
                HEAD_1,
                &[b"a", b"bc"],
                std::slice::from_ref(&lane),
            )
            .expect("a vector");
        }
        assert_eq!(out.calls, 3);
        let mut input = Counting(&out.taken, 0);
        let mut reader = FrameReader::new(u64::MAX);
        for _ in 0..3 {
            let frame = reader.read(&mut input).expect("a frame");
            assert_eq!(frame.payload.body, b"abc");
        }
        assert_eq!((input.1, reader.buffered()), (1, 0));
    }

    #[test]
    fn the_rest_of_a_frame_comes_with_the_next_one() {
        let mut stream = written(&[7; SMALL + 100], &[]);
        stream.extend(written(b"next", &[]));
        let mut input = Counting(&stream, 0);
        let mut reader = FrameReader::new(u64::MAX);
        reader.read(&mut input).expect("a frame");
        reader.read(&mut input).expect("a frame");
        assert_eq!((input.1, reader.buffered()), (2, 0));
    }

    #[test]
    fn large_parts_are_not_copied() {
        struct Parts(Vec<(*const u8, usize)>);
        impl Write for Parts {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                panic!("not in one piece")
            }
            fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
                assert!(parts.len() <= PARTS);
                self.0
                    .extend(parts.iter().map(|part| (part.as_ptr(), part.len())));
                Ok(parts.iter().map(|part| part.len()).sum())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let body = vec![0; SMALL];
        let lanes: Vec<_> = (0..100).map(|n| Bytes::from(vec![n; 5_000])).collect();
        let mut out = Parts(Vec::new());
        write_frame(&mut out, &mut Vec::new(), HEAD_1, &[&body], &lanes).expect("written");
        let whole = [&body[..]]
            .into_iter()
            .chain(lanes.iter().map(|lane| &**lane));
        let whole: Vec<_> = whole.map(|part| (part.as_ptr(), part.len())).collect();
        assert_eq!(out.0[1..], whole);
    }

    #[test]
    fn short_and_interrupted_writes_are_continued() {
        let lanes = [Bytes::from(vec![]), Bytes::from(vec![5; 2 * SMALL])];
        let whole = written(&[4; SMALL + 1], &lanes);
        let mut out = Slow::new(1_000);
        out.interrupts = true;
        write_frame(
            &mut out,
            &mut Vec::new(),
            HEAD_1,
            &[&[4; SMALL + 1]],
            &lanes,
        )
        .expect("all is taken in the end");
        assert_eq!(out.taken, whole);
    }

    #[test]
    fn a_stream_that_takes_nothing_is_an_error() {
        for size in [1, 2 * SMALL] {
            let mut out = Slow::new(0);
            let error = write_frame(&mut out, &mut Vec::new(), HEAD_1, &[&vec![0; size]], &[])
                .expect_err("nothing was written");
            assert_eq!((error.kind(), out.calls), (ErrorKind::WriteZero, 1));
        }
    }

    #[test]
    fn too_many_lanes_are_refused_before_anything_is_written() {
        let lane = Bytes::from(vec![1]);
        let mut lanes = vec![lane; 65_536];
        let mut out = Vec::new();
        let error = write_frame(&mut out, &mut Vec::new(), HEAD_1, &[], &lanes)
            .expect_err("there are too many");
        assert_eq!((error.kind(), out.len()), (ErrorKind::InvalidInput, 0));
        lanes.pop();
        let stream = written(b"", &lanes);
        let frame = FrameReader::new(65_535)
            .read(&mut &stream[..])
            .expect("a frame");
        assert_eq!(frame.payload.lanes.len(), 65_535);
    }

    #[test]
    fn random_frames_in_random_pieces() {
        for seed in 0..150 {
            let mut random = Random::new(seed);
            let mut stream = Vec::new();
            let count = random.below(6) as usize;
            (0..count).for_each(|_| random.frame(&mut stream));
            let most = [2, 30, 9_000, 100_000][random.below(4) as usize];
            let end = check_reader(&stream, u64::MAX, || random.below(most) as usize);
            assert!(matches!(end, (n, FrameError::End) if n == count), "{end:?}");
        }
    }

    #[test]
    fn random_garbage_ends_in_an_error() {
        for seed in 0..3_000 {
            let mut random = Random::new(seed);
            let size = random.below(200);
            let mut stream = random.bytes(size);
            // Half of them pass as heads, with small lengths every other time.
            if random.below(2) == 0 && size > 24 {
                stream[0] = MAGIC;
                stream[2..4].copy_from_slice(&[random.below(4) as u8, 0]);
                if random.below(2) == 0 {
                    stream[17..24].fill(0);
                }
            }
            let max = random.below(500);
            check_reader(&stream, max, || random.below(40) as usize);
        }
    }

    #[test]
    fn frames_with_flipped_bits_end_in_an_error_or_are_other_frames() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut stream = Vec::new();
            (0..2).for_each(|_| random.frame(&mut stream));
            let at = random.below(stream.len().min(60) as u64) as usize;
            stream[at] ^= 1 << random.below(8);
            check_reader(&stream, 1 << 20, || random.below(20_000) as usize);
        }
    }

    #[test]
    fn a_truncated_frame_is_told_from_the_end() {
        let frame = written(b"body", &[Bytes::from(vec![1; 30])]);
        let stream = [&frame[..], &frame].concat();
        for end in 0..=stream.len() {
            let (count, error) = check_reader(&stream[..end], u64::MAX, || 7);
            assert_eq!(count, end / frame.len());
            let is_between = end % frame.len() == 0;
            assert_eq!(
                matches!(error, FrameError::End),
                is_between,
                "{end}: {error}"
            );
            assert!(is_between || matches!(error, FrameError::Truncated));
        }
    }

    #[test]
    fn absurd_lengths_take_no_memory() {
        // With `max_payload` out of the way: to reserve 2⁶² bytes fails, so nothing reserves them.
        for at in [16, 24] {
            let mut stream = written(b"", &[Bytes::from(vec![])]);
            stream[at..at + 8].copy_from_slice(&(1_u64 << 62).to_le_bytes());
            stream.resize(100_000, 0);
            let (_, error) = check_reader(&stream, u64::MAX, || 1_000);
            assert!(matches!(error, FrameError::Truncated), "{error}");
            // And 65,535 lanes of nothing are not worth a reserve of 65,535 MiB.
            stream.truncate(HEAD);
            stream[2..4].fill(0xff);
            let (_, error) = check_reader(&stream, u64::MAX, || 1_000);
            assert!(matches!(error, FrameError::Truncated), "{error}");
        }
    }

    #[test]
    fn the_limit_is_for_the_body_and_all_lanes() {
        let stream = written(
            &[0; 10],
            &[Bytes::from(vec![0; 20]), Bytes::from(vec![0; 30])],
        );
        assert!(FrameReader::new(60).read(&mut &stream[..]).is_ok());
        let error = FrameReader::new(59).read(&mut &stream[..]);
        assert!(matches!(
            error,
            Err(FrameError::TooLarge { len: 60, max: 59 })
        ));
        // A sum that overflows is too large, not small.
        let mut stream = stream;
        stream[24..32].copy_from_slice(&(u64::MAX - 5).to_le_bytes());
        let error = FrameReader::new(1 << 40).read(&mut &stream[..]);
        let is_max = |error| matches!(error, FrameError::TooLarge { len: u64::MAX, .. });
        assert!(error.is_err_and(is_max));
    }

    #[test]
    fn a_wrong_magic_byte_is_invalid() {
        let error = FrameReader::new(9).read(&mut &[b'h'; 100][..]);
        assert!(matches!(error, Err(FrameError::Invalid(text)) if text.contains("0x68")));
    }

    #[test]
    fn a_timeout_within_a_head_loses_nothing() {
        let (near, far) = pair().expect("a pair");
        near.set_read_timeout(Some(Duration::from_millis(1)))
            .expect("a timeout");
        let stream = written(b"late", &[]);
        let mut reader = FrameReader::new(100);
        for piece in [&stream[..10], &stream[10..]] {
            let error = reader.read(&mut &near).expect_err("it is not complete");
            assert!(matches!(error, FrameError::Io(e) if e.kind() == ErrorKind::WouldBlock));
            NoSigpipe(&far).write_all(piece).expect("room for it");
        }
        let frame = reader.read(&mut &near).expect("now it is");
        assert_eq!(frame.payload.body, b"late");
    }

    #[test]
    fn large_lanes_pass_through_a_socket() {
        let (near, far) = pair().expect("a pair");
        let lanes: Vec<_> = (1..4).map(|n| Bytes::from(vec![n; 3_000_000])).collect();
        let sent = lanes.clone();
        let writer = thread::spawn(move || {
            write_frame(
                &mut NoSigpipe(&far),
                &mut Vec::new(),
                HEAD_1,
                &[b"three"],
                &sent,
            )
        });
        let mut reader = FrameReader::new(u64::MAX);
        let frame = reader.read(&mut &near).expect("a frame");
        assert!(
            frame
                .payload
                .lanes
                .iter()
                .map(|l| &**l)
                .eq(lanes.iter().map(|l| &**l))
        );
        writer.join().expect("no panic").expect("written");
        assert!(matches!(reader.read(&mut &near), Err(FrameError::End)));
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_of_the_writer() {
        let (near, far) = pair().expect("a pair");
        drop(near);
        for lanes in [&[][..], &[Bytes::from(vec![0; 100_000])]] {
            let error = write_frame(&mut NoSigpipe(&far), &mut Vec::new(), HEAD_1, &[], lanes)
                .expect_err("there is no reader");
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        }
    }
    /// With the signal blocked, one that was raised is pending.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_reader_that_is_gone_raises_no_sigpipe() {
        use std::process::Command;
        use std::{env, fs};

        if env::var_os("FUTUREPOOL_SIGPIPE_IS_BLOCKED").is_some() {
            let (near, far) = pair().expect("a pair");
            drop(near);
            let mut far = NoSigpipe(&far);
            far.write(b"x").expect_err("there is no reader");
            far.write_vectored(&[IoSlice::new(b"x")])
                .expect_err("there is no reader");
            let status = fs::read_to_string("/proc/thread-self/status").expect("on Linux");
            let line = |name| status.lines().find(|line| line.starts_with(name));
            assert_eq!(line("SigPnd:"), Some("SigPnd:\t0000000000000000"));
            // Otherwise nothing was shown.
            assert!(line("SigBlk:").is_some_and(|line| line.ends_with("1000")));
            return;
        }
        let blocked = || {
            let mut env = Command::new("env");
            env.arg("--block-signal=PIPE");
            env
        };
        if !blocked()
            .arg("true")
            .output()
            .is_ok_and(|output| output.status.success())
        {
            // An `env` that cannot block signals, of BusyBox for example.
            return;
        }
        let name = "process::frame::tests::a_reader_that_is_gone_raises_no_sigpipe";
        let output = blocked()
            .arg(env::current_exe().expect("the path of this program"))
            .args(["--exact", name, "--nocapture"])
            .env("FUTUREPOOL_SIGPIPE_IS_BLOCKED", "1")
            .output()
            .expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let is_run = output.status.success() && text.contains("1 passed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(is_run, "{text}{errors}");
    }
}
