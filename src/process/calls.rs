//! Encoded calls of one task, as they wait to be sent.

use crate::call::bytes::{Bytes, MAX_LANES};
use crate::call::codec::{CodecError, Payload, encode_onto};
use crate::call::{Call, Task};
use crate::process::frame::payload_size;

/// The most calls in a message.
const MAX_CALLS: usize = 4096;

/// Encoded calls, one behind the other in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    bodies: Vec<u8>,
    lanes: Vec<Bytes>,
    sizes: Vec<Size>,
}

/// How much of the buffers belongs to one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) body: usize,
    pub(crate) lanes: usize,
    /// The bytes of body and lanes.
    total: u64,
}

impl Size {
    pub(crate) fn of(call: &Payload) -> Self {
        Self {
            body: call.body.len(),
            lanes: call.lanes.len(),
            total: payload_size(&[&call.body], &call.lanes),
        }
    }
}

impl From<Payload> for Calls {
    fn from(call: Payload) -> Self {
        let size = Size::of(&call);
        Self {
            bodies: call.body,
            lanes: call.lanes,
            sizes: vec![size],
        }
    }
}

impl Calls {
    pub(crate) fn with_capacity(calls: usize) -> Self {
        Self {
            bodies: Vec::with_capacity(32 * calls),
            lanes: Vec::new(),
            sizes: Vec::with_capacity(calls),
        }
    }

    /// Adds a call. If its arguments cannot be encoded, nothing is added.
    pub(crate) fn push<T: Task>(&mut self, call: &Call<T>) -> Result<(), CodecError> {
        let before = self.bodies.len();
        let lanes = encode_onto(&mut self.bodies, call.args())?;
        let body = self.bodies.len() - before;
        let total = payload_size(&[&self.bodies[before..]], &lanes);
        self.sizes.push(Size {
            body,
            lanes: lanes.len(),
            total,
        });
        self.lanes.extend(lanes);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.sizes.len()
    }
}

/// The calls that have no result yet.
#[derive(Debug)]
pub(crate) struct Left<'a> {
    calls: &'a Calls,
    /// The first of them.
    next: usize,
    /// Where it begins in the buffers.
    body: usize,
    lane: usize,
}

/// The calls of one message.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) sizes: &'a [Size],
    pub(crate) bodies: &'a [u8],
    pub(crate) lanes: &'a [Bytes],
}

impl<'a> Left<'a> {
    pub(crate) fn new(calls: &'a Calls) -> Self {
        Self {
            calls,
            next: 0,
            body: 0,
            lane: 0,
        }
    }

    /// Counts them.
    pub(crate) fn count(&self) -> usize {
        self.calls.len() - self.next
    }

    /// Returns the number of the first one.
    pub(crate) fn next(&self) -> usize {
        self.next
    }

    /// The first one has a result now.
    pub(crate) fn advance(&mut self) {
        if let Some(size) = self.calls.sizes.get(self.next) {
            self.next += 1;
            self.body += size.body;
            self.lane += size.lanes;
        }
    }

    /// Returns the calls of the next message: at most `most`, and as many as `max_payload` permits.
    /// `None` if the first one is too large for any message.
    pub(crate) fn part(&self, most: usize, max_payload: u64) -> Option<Part<'a>> {
        let sizes = &self.calls.sizes[self.next..];
        let (mut bytes, mut lanes, mut body) = (0_u64, 0, 0);
        let mut count = 0;
        for size in sizes.iter().take(most.min(MAX_CALLS)) {
            bytes = bytes.saturating_add(size.total);
            if bytes > max_payload || lanes + size.lanes > MAX_LANES {
                break;
            }
            lanes += size.lanes;
            body += size.body;
            count += 1;
        }
        (count > 0).then(|| Part {
            sizes: &sizes[..count],
            bodies: &self.calls.bodies[self.body..self.body + body],
            lanes: &self.calls.lanes[self.lane..self.lane + lanes],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each call is its number, as often as the number says.
    fn calls(sizes: &[u8]) -> Calls {
        let mut calls = Calls::default();
        for size in sizes {
            calls.bodies.extend(vec![*size; usize::from(*size)]);
            calls.sizes.push(Size {
                body: usize::from(*size),
                lanes: 0,
                total: u64::from(*size),
            });
        }
        calls
    }

    #[test]
    fn a_message_has_as_many_calls_as_fit() {
        let calls = calls(&[3, 4, 5, 9, 1]);
        let mut left = Left::new(&calls);
        let part = left.part(usize::MAX, 8).unwrap();
        assert_eq!(
            (part.sizes.len(), part.bodies),
            (2, &[3, 3, 3, 4, 4, 4, 4][..])
        );
        left.advance();
        assert_eq!(left.part(1, 8).unwrap().bodies, [4; 4]);
        left.advance();
        assert_eq!(left.part(usize::MAX, 8).unwrap().sizes.len(), 1);
        left.advance();
        assert!(left.part(usize::MAX, 8).is_none(), "9 bytes are too large");
        left.advance();
        assert_eq!(left.part(usize::MAX, 8).unwrap().bodies, [1]);
        left.advance();
        assert_eq!(left.count(), 0);
        left.advance();
        assert_eq!((left.count(), left.next()), (0, 5));
    }

    #[test]
    fn a_message_has_no_more_calls_than_its_envelope_has_room_for() {
        let calls = calls(&vec![0; MAX_CALLS + 1]);
        let part = Left::new(&calls).part(usize::MAX, 8).unwrap();
        assert_eq!(part.sizes.len(), MAX_CALLS);
    }
}
