//! A buffer of bytes that travels beside the encoded text instead of in it.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// A buffer of bytes, which a [`Call`](crate::Call) carries to another process without a copy.
///
/// Use it in the arguments and the output of a task. A `Vec<u8>` inside a struct is encoded element
/// by element, which is slow. A `Bytes` of 4 KiB or more is not encoded at all: it is written to
/// the other process as it is.
///
/// A parameter or an output of a [`#[task]`](macro@crate::task) that is written `Vec<u8>` travels
/// in this way, too.
///
/// A clone shares the buffer, and costs no copy. [`into_vec`](Self::into_vec) returns the buffer
/// itself, unless a clone still exists. Dropping the last clone frees the buffer.
///
/// With other formats than the crate's own, for example JSON, it is serialized as bytes.
///
/// # Examples
///
/// ```
/// use futurepool::{Bytes, task};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Picture {
///     width: usize,
///     pixels: Bytes,
/// }
///
/// /// Turns a picture upside down.
/// #[task]
/// fn flip(picture: Picture) -> Picture {
///     let rows = picture.pixels.chunks(picture.width).rev();
///     let pixels = rows.flatten().copied().collect();
///     Picture { pixels, ..picture }
/// }
///
/// let picture = Picture { width: 2, pixels: Bytes::from(vec![1, 2, 3, 4]) };
/// assert_eq!(flip::call(picture).run().pixels, [3, 4, 1, 2]);
/// ```
#[doc(alias = "ByteBuf")]
#[doc(alias = "memoryview")]
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(Arc<Vec<u8>>);

impl Bytes {
    /// Returns the buffer, without a copy if no clone of it exists.
    ///
    /// # Examples
    ///
    /// ```
    /// let buffer = vec![1, 2, 3];
    /// let address = buffer.as_ptr();
    /// let vec = futurepool::Bytes::from(buffer).into_vec();
    /// assert_eq!(vec.as_ptr(), address);
    /// ```
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        Arc::unwrap_or_clone(self.0)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Bytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(buffer: Vec<u8>) -> Self {
        Self(Arc::new(buffer))
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl<const N: usize> From<&[u8; N]> for Bytes {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.to_vec().into()
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Bytes> for Vec<u8> {
    fn from(bytes: Bytes) -> Self {
        bytes.into_vec()
    }
}

impl FromIterator<u8> for Bytes {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Self {
        Vec::from_iter(bytes).into()
    }
}

impl PartialEq<[u8]> for Bytes {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq<&[u8]> for Bytes {
    fn eq(&self, other: &&[u8]) -> bool {
        **self == **other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Bytes {
    fn eq(&self, other: &[u8; N]) -> bool {
        **self == *other
    }
}

impl PartialEq<Vec<u8>> for Bytes {
    fn eq(&self, other: &Vec<u8>) -> bool {
        *self.0 == *other
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.len())
    }
}

/// The smallest buffer that gets a lane. Below it a copy is cheaper than a lane.
const MIN_LANE: usize = 4096;

/// How many lanes a payload may have.
pub(crate) const MAX_LANES: usize = 65_535;

/// The start of what stands in the body for a buffer in a lane. The index of the lane follows.
///
/// It is encoded as bytes, as a small buffer is. A number would be ambiguous: an untagged enum with
/// a variant for numbers would take it.
const MARK: [u8; 16] = *b"\xf1futurepool lane";

/// The length of what stands for a buffer in a lane.
const REFERENCE: usize = MARK.len() + mem::size_of::<u32>();

fn is_reference(bytes: &[u8]) -> bool {
    bytes.len() == REFERENCE && bytes.starts_with(&MARK)
}

fn reference(lane: u32) -> [u8; REFERENCE] {
    let mut reference = [0; REFERENCE];
    reference[..MARK.len()].copy_from_slice(&MARK);
    reference[MARK.len()..].copy_from_slice(&lane.to_le_bytes());
    reference
}

/// What this thread does with the buffers that it meets.
enum Lanes {
    /// No payload is encoded or decoded.
    None,
    /// Collects the buffers of the payload that is encoded.
    Collecting(Vec<Bytes>),
    /// Has the lanes of the payload that is decoded.
    Decoding(Vec<Bytes>),
}

thread_local! {
    // Only borrowed for a moment, while no user code runs.
    static LANES: RefCell<Lanes> = const { RefCell::new(Lanes::None) };
}

/// Sets the lanes of this thread, until it is dropped. Encoding may run other jobs that encode.
struct LanesScope {
    outer: Lanes,
}

impl LanesScope {
    fn enter(lanes: Lanes) -> Self {
        Self {
            outer: LANES.replace(lanes),
        }
    }

    /// Returns the lanes that this scope has set or collected.
    fn take(&self) -> Lanes {
        LANES.replace(Lanes::None)
    }
}

impl Drop for LanesScope {
    fn drop(&mut self) {
        let inner = LANES.replace(mem::replace(&mut self.outer, Lanes::None));
        drop(inner);
    }
}

/// Calls `encode`, and collects the buffers that are serialized meanwhile.
pub(crate) fn collect_lanes<R>(encode: impl FnOnce() -> R) -> (R, Vec<Bytes>) {
    let scope = LanesScope::enter(Lanes::Collecting(Vec::new()));
    let result = encode();
    match scope.take() {
        Lanes::Collecting(lanes) => (result, lanes),
        Lanes::None | Lanes::Decoding(_) => (result, Vec::new()),
    }
}

/// Calls `decode` while buffers are found in `lanes`.
pub(crate) fn with_lanes<R>(lanes: Vec<Bytes>, decode: impl FnOnce() -> R) -> R {
    let _scope = LanesScope::enter(Lanes::Decoding(lanes));
    decode()
}

/// Puts the buffer in a lane. Returns `None` if it is encoded in the body.
fn add_lane(bytes: &Bytes) -> Option<u32> {
    LANES.with_borrow_mut(|lanes| match lanes {
        Lanes::Collecting(lanes)
            if (bytes.len() >= MIN_LANE || is_reference(bytes)) && lanes.len() < MAX_LANES =>
        {
            let index = u32::try_from(lanes.len()).ok()?;
            lanes.push(bytes.clone());
            Some(index)
        }
        _ => None,
    })
}

/// Returns the buffer that `reference` stands for.
fn find_lane(reference: &[u8]) -> Result<Bytes, String> {
    let index = reference[MARK.len()..]
        .try_into()
        .map_or(u32::MAX, u32::from_le_bytes);
    LANES.with_borrow(|lanes| match lanes {
        Lanes::Decoding(lanes) => {
            let lane = usize::try_from(index)
                .ok()
                .and_then(|index| lanes.get(index));
            // A clone: an untagged enum may decode the same reference several times.
            lane.cloned()
                .ok_or_else(|| format!("there is no buffer {index}, only {}", lanes.len()))
        }
        Lanes::None | Lanes::Collecting(_) => {
            Err("the buffer was left in another message".to_owned())
        }
    })
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A text format is not the crate's own: its text may be decoded anywhere.
        let lane = match serializer.is_human_readable() {
            true => None,
            false => add_lane(self),
        };
        match lane {
            Some(lane) => serializer.serialize_bytes(&reference(lane)),
            None => serializer.serialize_bytes(self),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        match is_reference(bytes) {
            true => find_lane(bytes).map_err(E::custom),
            false => Ok(bytes.into()),
        }
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        match is_reference(&bytes) {
            true => find_lane(&bytes).map_err(E::custom),
            false => Ok(bytes.into()),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
        Ok(text.as_bytes().into())
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Bytes, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Bytes, A::Error> {
        // The length is a claim of the sender.
        let mut bytes = Vec::with_capacity(elements.size_hint().unwrap_or(0).min(MIN_LANE));
        while let Some(byte) = elements.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}
