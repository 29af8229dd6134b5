//! A decoder as it must not be written. It stands in for a C library with bugs.
//!
//! Safe Rust does not crash as C does. So the crashes and loops of this example come from here. The
//! bugs are of the kinds that image libraries really had, and each of them is marked with `BUG`.
//!
//! The format is made up: gray images in a run-length code.
//!
//! ```text
//! "RLE" and the version, "1"
//! width, height, and the sum of all bytes after it, each as a big-endian u16
//! chunks, up to the chunk E:
//!   R count:u16 value:u8     so many pixels of this value
//!   G times:u8 chunks… E     the chunks, so many times
//!   C length:u32 bytes…      a comment
//!   J offset:u32             goes on at this offset in the file
//!   E                        the end
//! ```

use std::hint::black_box;
use std::process;

use image::GrayImage;

const MAGIC: &[u8] = b"RLE";

/// Returns whether a file is in this format.
pub(crate) fn is_rle(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Decodes an image.
///
/// # Errors
///
/// If the file ends early, or has an unknown chunk. All other mistakes in a file go unnoticed.
pub(crate) fn decode(bytes: &[u8]) -> Result<GrayImage, String> {
    let mut input = Decoder {
        bytes,
        at: MAGIC.len(),
        pixels: Vec::new(),
        filled: 0,
    };
    let version = input.byte()?;
    if version != b'1' {
        // BUG: a library must not end the program.
        eprintln!("rle: version {version:#04x} is not supported");
        process::exit(3);
    }
    let (width, height, sum) = (input.u16()?, input.u16()?, input.u16()?);
    if sum != checksum(&bytes[input.at..]) {
        // BUG: an assertion about a file, which can be wrong.
        eprintln!("rle: assertion failed: sum == checksum(body)");
        process::abort();
    }
    input.pixels = vec![0; usize::from(width) * usize::from(height)];
    input.chunks()?;
    let image = GrayImage::from_raw(width.into(), height.into(), input.pixels);
    image.ok_or_else(|| String::from("an image without pixels"))
}

/// Encodes an image, without bugs.
pub(crate) fn encode(image: &GrayImage) -> Vec<u8> {
    let mut body = Vec::new();
    for run in image.as_raw().chunk_by(|a, b| a == b) {
        for run in run.chunks(u16::MAX.into()) {
            body.extend(chunk_run(run.len() as u16, run[0]));
        }
    }
    body.push(b'E');
    let [width, height] = [image.width(), image.height()].map(|side| side as u16);
    file(width, height, &body)
}

/// Returns a chunk `R`.
pub(crate) fn chunk_run(count: u16, value: u8) -> [u8; 4] {
    let [high, low] = count.to_be_bytes();
    [b'R', high, low, value]
}

/// Returns a file with these chunks.
pub(crate) fn file(width: u16, height: u16, body: &[u8]) -> Vec<u8> {
    let mut file = [MAGIC, b"1"].concat();
    for number in [width, height, checksum(body)] {
        file.extend(number.to_be_bytes());
    }
    file.extend(body);
    file
}

fn checksum(body: &[u8]) -> u16 {
    body.iter()
        .fold(0, |sum, &byte| sum.wrapping_add(byte.into()))
}

struct Decoder<'a> {
    bytes: &'a [u8],
    /// The offset of the next byte.
    at: usize,
    pixels: Vec<u8>,
    /// The number of pixels that are decoded.
    filled: usize,
}

impl Decoder<'_> {
    /// Decodes chunks up to the next `E`.
    fn chunks(&mut self) -> Result<(), String> {
        loop {
            match self.byte()? {
                b'R' => {
                    let (count, value) = (self.u16()?, self.byte()?);
                    for _ in 0..count {
                        // BUG: more pixels than the image has. In C, this would overwrite the heap.
                        // Rust panics.
                        self.pixels[self.filled] = value;
                        self.filled += 1;
                    }
                }
                b'G' => {
                    let times = self.byte()?;
                    let start = self.at;
                    // BUG: a few groups inside each other, each 255 times, take for ever.
                    for _ in 0..times.max(1) {
                        self.at = start;
                        // BUG: nothing limits how deep groups are nested, so the stack overflows.
                        self.chunks()?;
                    }
                }
                b'C' => {
                    let length = self.u32()? as usize;
                    // BUG: the length is believed before that many bytes were seen.
                    let mut comment = vec![b' '; length];
                    let rest = &self.bytes[self.at.min(self.bytes.len())..];
                    let present = length.min(rest.len());
                    comment[..present].copy_from_slice(&rest[..present]);
                    black_box(&comment);
                    self.at += length;
                }
                // BUG: a jump back to itself never ends.
                b'J' => self.at = self.u32()? as usize,
                b'E' => return Ok(()),
                other => return Err(format!("unknown chunk {other:#04x} in a file of type RLE")),
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk());
        self.at += N;
        bytes
            .copied()
            .ok_or_else(|| String::from("the file of type RLE ends early"))
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, String> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_out() {
        // Runs of all lengths from 1 to the longest, and one that is longer.
        for (width, height) in [(1, 1), (7, 5), (300, 300), (65_535, 2)] {
            let image = GrayImage::from_fn(width, height, |x, y| [(x / 3 + y) as u8].into());
            assert_eq!(decode(&encode(&image)), Ok(image));
            let image = GrayImage::from_pixel(width, height, [9].into());
            assert_eq!(decode(&encode(&image)), Ok(image));
        }
    }

    #[test]
    fn a_comment_a_jump_and_a_group_are_decoded() {
        let body = [
            &b"C\0\0\0\x02hi"[..], // at 10
            &b"J\0\0\0\x17"[..],   // at 17: over the next byte
            b"?",
            b"G\x02", // at 23
            &chunk_run(3, 7),
            b"E",
            b"E",
        ];
        let image = decode(&file(3, 2, &body.concat()));
        assert_eq!(image.map(GrayImage::into_raw), Ok(vec![7; 6]));
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let whole = encode(&GrayImage::from_pixel(9, 9, [1].into()));
        let body = &whole[10..whole.len() - 1];
        assert!(decode(&file(9, 9, body)).is_err());
        assert!(decode(b"RLE1\0").is_err());
    }
}
