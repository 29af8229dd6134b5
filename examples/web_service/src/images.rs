//! Thumbnails. They are made in worker processes, because the bytes come from strangers.
//!
//! A decoder may crash, loop or use too much memory. In a thread that would harm the whole service.

use std::io::Cursor;

use futurepool::task;
use image::{DynamicImage, ImageError, ImageFormat, ImageReader, Limits};
use serde::{Deserialize, Serialize};

use crate::faulty;

/// The maximum width and height of a thumbnail.
pub const SIDE: u32 = 128;

/// Limits of uploaded images, because a small file may decode to a huge image.
///
/// `MAX_BYTES` limits the decoded image. A decoder may need more memory: the JPEG decoder keeps the
/// coefficients of a progressive image. The memory limit of the process counts all of it.
const MAX_SIDE: u32 = 3_000;
const MAX_BYTES: u64 = 64 << 20;

/// Which decoder reads the images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decoder {
    /// It refuses an image that states a size above the limits.
    #[default]
    Careful,
    /// It has bugs: see `--with-faulty-decoder`.
    Faulty,
}

/// Why there is no thumbnail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ImageProblem {
    /// The image states a size above the limits.
    TooLarge,
    /// The bytes are no image. Holds the reason.
    Unreadable(String),
    /// The thumbnail could not be encoded. Holds the reason.
    Encoder(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    width: u32,
    height: u32,
}

/// Reads the size that an image states, without decoding its pixels.
#[task]
pub(crate) fn inspect(image: Vec<u8>) -> Result<Size, ImageProblem> {
    let size = reader(&image).into_dimensions();
    let (width, height) = size.map_err(unreadable)?;
    Ok(Size { width, height })
}

/// Scales a PNG or JPEG image down to [`SIDE`], and returns it as a PNG.
#[task]
pub(crate) fn thumbnail(image: Vec<u8>, decoder: Decoder) -> Result<Vec<u8>, ImageProblem> {
    let decoded = match decoder {
        Decoder::Careful => decode(&image, limits()),
        Decoder::Faulty => faulty::decode(&image),
    };
    let mut image = decoded.map_err(unreadable)?;
    if image.width() > SIDE || image.height() > SIDE {
        image = image.thumbnail(SIDE, SIDE);
    }
    let mut png = Cursor::new(Vec::new());
    image
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| ImageProblem::Encoder(error.to_string()))?;
    Ok(png.into_inner())
}

/// Does nothing. The first job of a pool shows that its processes can start.
#[task]
pub(crate) fn ready() {}

pub(crate) fn decode(image: &[u8], limits: Limits) -> Result<DynamicImage, ImageError> {
    let mut reader = reader(image);
    reader.limits(limits);
    reader.decode()
}

fn reader(image: &[u8]) -> ImageReader<Cursor<&[u8]>> {
    ImageReader::new(Cursor::new(image))
        .with_guessed_format()
        .expect("reading from memory cannot fail")
}

fn unreadable(error: ImageError) -> ImageProblem {
    match error {
        ImageError::Limits(_) => ImageProblem::TooLarge,
        error => ImageProblem::Unreadable(error.to_string().trim_end().to_owned()),
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    limits
}
