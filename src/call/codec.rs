//! How arguments and outputs become bytes: MessagePack with the names of fields.
//!
//! Serializers are user code: they may fail, panic, or run other jobs that encode.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, IgnoredAny};
use serde::ser::{Serialize, Serializer};

use crate::call::bytes::{Bytes, MAX_LANES, collect_lanes, with_lanes};
use crate::util::unwind::{drop_payload, panic_message};

/// The encoded arguments or the encoded output of a task.
///
/// An executor outside this crate sends it to where the task runs: see [`TaskJob`](crate::TaskJob).
/// It consists of a body, in MessagePack with the names of fields, and of lanes. A lane is a large
/// [`Bytes`] buffer, which the body only refers to, so that it is never copied.
///
/// # Examples
///
/// ```
/// use futurepool::{Bytes, Payload};
///
/// let payload = Payload::from_parts(vec![0xc0], vec![Bytes::from(vec![0; 5000])]);
/// assert_eq!(payload.body(), [0xc0]);
/// assert_eq!(payload.lanes()[0].len(), 5000);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload {
    pub(crate) body: Vec<u8>,
    pub(crate) lanes: Vec<Bytes>,
}

impl Payload {
    /// Creates a payload of what [`into_parts`](Self::into_parts) has returned elsewhere.
    #[must_use]
    pub fn from_parts(body: Vec<u8>, lanes: Vec<Bytes>) -> Self {
        Self { body, lanes }
    }

    /// Returns the body and the lanes.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<Bytes>) {
        (self.body, self.lanes)
    }

    /// Returns the encoded text, without the buffers in lanes.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the buffers that travel beside the body. Their order matters.
    #[must_use]
    pub fn lanes(&self) -> &[Bytes] {
        &self.lanes
    }

    /// Returns the length of what [`to_bytes`](Self::to_bytes) returns.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let lanes = self.lanes.iter().map(|lane| LEN + lane.len());
        HEADER + self.body.len() + lanes.sum::<usize>()
    }

    /// Joins the body and the lanes in one buffer, for an executor that sends a job in one message.
    ///
    /// The buffer begins with a version number, the number of the lanes and all lengths. It copies
    /// what is in lanes, too: an executor with a better way sends the [parts](Self::into_parts).
    ///
    /// # Panics
    ///
    /// Panics if there are more than 65,535 lanes. The arguments of a task never have as many.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{Bytes, Payload};
    ///
    /// let payload = Payload::from_parts(vec![0xc0], vec![Bytes::from(vec![0; 5000])]);
    /// let message = payload.to_bytes();
    /// assert_eq!(message.len(), payload.encoded_len());
    /// assert_eq!(Payload::from_bytes(&message)?, payload);
    ///
    /// // What comes from elsewhere may be anything.
    /// assert!(Payload::from_bytes(&message[1..]).is_err());
    /// # Ok::<(), futurepool::CodecError>(())
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        assert!(
            self.lanes.len() <= MAX_LANES,
            "a payload has too many lanes"
        );
        let mut bytes = Vec::with_capacity(self.encoded_len());
        bytes.push(FRAMING);
        bytes.extend_from_slice(&(self.lanes.len() as u32).to_le_bytes());
        let lens = self.lanes.iter().map(|lane| lane.len());
        for len in [self.body.len()].into_iter().chain(lens) {
            bytes.extend_from_slice(&(len as u64).to_le_bytes());
        }
        bytes.extend_from_slice(&self.body);
        for lane in &self.lanes {
            bytes.extend_from_slice(lane);
        }
        bytes
    }

    /// Returns the payload of what [`to_bytes`](Self::to_bytes) has returned elsewhere.
    ///
    /// All lengths are checked before memory is taken for them.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are no payload, or one of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut left = bytes;
        let mut take = |len: u64| {
            let len = usize::try_from(len).ok();
            let (taken, rest) = len.and_then(|len| left.split_at_checked(len))?;
            left = rest;
            Some(taken)
        };
        let mut read = || {
            if take(1)? != [FRAMING] {
                return None;
            }
            let lanes = u32::from_le_bytes(take(4)?.try_into().ok()?);
            if lanes as usize > MAX_LANES {
                return None;
            }
            let mut len = || take(LEN as u64)?.try_into().ok().map(u64::from_le_bytes);
            let body = len()?;
            // Each of the lengths is there, so there is no more memory for them than was received.
            let lens = (0..lanes).map(|_| len()).collect::<Option<Vec<u64>>>()?;
            let body = take(body)?.to_vec();
            let lanes = lens.into_iter().map(|len| take(len).map(Bytes::from));
            let lanes = lanes.collect::<Option<Vec<Bytes>>>()?;
            Some(Self { body, lanes })
        };
        let payload = read().filter(|_| left.is_empty());
        payload.ok_or_else(|| CodecError {
            text: "the bytes are no payload, or one of a later version".to_owned(),
        })
    }
}

/// The version of [`Payload::to_bytes`].
const FRAMING: u8 = 1;

/// The bytes of a length.
const LEN: usize = size_of::<u64>();

/// The version, the number of the lanes and the length of the body.
const HEADER: usize = 1 + size_of::<u32>() + LEN;

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("body", &format_args!("{} bytes", self.body.len()))
            .field("lanes", &self.lanes)
            .finish()
    }
}

/// An `Option` that is encoded as a list of none or one.
///
/// MessagePack encodes `Some(None)` and `Some(())` like `None`. This tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot<T>(pub Option<T>);

impl<T: Serialize> Serialize for Slot<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Slot<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut list = Vec::<T>::deserialize(deserializer)?;
        match list.len() {
            0 | 1 => Ok(Self(list.pop())),
            n => Err(D::Error::invalid_length(n, &"at most one")),
        }
    }
}

/// Why a value could not be encoded or decoded: see [`Payload::from_bytes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError {
    text: String,
}

impl CodecError {
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CodecError {}

/// Encodes a value.
///
/// # Errors
///
/// Returns the error, or the panic, of the value's `Serialize`.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Payload, CodecError> {
    let mut body = Vec::new();
    let lanes = encode_onto(&mut body, value)?;
    Ok(Payload { body, lanes })
}

/// Encodes a value behind what `body` has, and returns its lanes. After an error `body` is as it
/// was.
pub(crate) fn encode_onto<T: Serialize + ?Sized>(
    body: &mut Vec<u8>,
    value: &T,
) -> Result<Vec<Bytes>, CodecError> {
    let before = body.len();
    let encoded = contained("`Serialize`", || {
        let mut serializer = rmp_serde::Serializer::new(&mut *body).with_struct_map();
        let (encoded, lanes) = collect_lanes(|| value.serialize(&mut serializer));
        encoded.map(|()| lanes).map_err(|error| error.to_string())
    });
    if encoded.is_err() {
        body.truncate(before);
    }
    encoded
}

/// How deep a value can be nested. What another process sends must not overflow the stack.
const MAX_DEPTH: usize = 256;

/// Decodes a value.
///
/// # Errors
///
/// Returns the error, or the panic, of the type's `Deserialize`. Bytes behind the value are an
/// error, too, and so is a value that is nested more than 256 deep.
pub fn decode<T: DeserializeOwned>(payload: Payload) -> Result<T, CodecError> {
    let Payload { body, lanes } = payload;
    contained("`Deserialize`", || {
        with_lanes(lanes, || {
            let mut deserializer = rmp_serde::Deserializer::from_read_ref(&body);
            deserializer.set_max_depth(MAX_DEPTH);
            let value = T::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
            match IgnoredAny::deserialize(&mut deserializer) {
                Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
                _ => Err("there is more behind the value".to_owned()),
            }
        })
    })
}

/// Calls `user_code`, and turns a panic of it into an error. `what` is what panics.
pub(crate) fn contained<R>(
    what: &str,
    user_code: impl FnOnce() -> Result<R, String>,
) -> Result<R, CodecError> {
    let result = catch_unwind(AssertUnwindSafe(user_code));
    let text = match result {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(text)) => text,
        Err(payload) => {
            let message = panic_message(&*payload).unwrap_or("(no text)");
            let text = format!("{what} panicked: {message}");
            drop_payload(payload);
            text
        }
    };
    Err(CodecError { text })
}
