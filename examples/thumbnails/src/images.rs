//! The task: from the bytes of an image to the bytes of its thumbnail.
//!
//! A worker process gets the bytes and returns bytes. It needs no file, so a killed worker leaves
//! none half written.

use std::io::Cursor;

use futurepool::task;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, ImageResult};

use crate::legacy;

/// The extensions of the files that are taken for images.
const EXTENSIONS: [&str; 9] = [
    "bmp", "gif", "jpeg", "jpg", "png", "rle", "tif", "tiff", "webp",
];

/// Returns whether a file with this extension is taken for an image.
pub(crate) fn is_image(extension: &str) -> bool {
    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
}

/// Returns an image as a PNG that is at most `width` wide.
#[task(name = "thumbnail")]
pub(crate) fn thumbnail(image: Vec<u8>, width: u32) -> Result<Vec<u8>, String> {
    let image = match legacy::is_rle(&image) {
        true => legacy::decode(&image)?.into(),
        false => decode(&image).map_err(|error| error.to_string())?,
    };
    let image = match image.width() > width {
        true => image.thumbnail(width, image.height()),
        false => image,
    };
    let image: DynamicImage = match image.color().has_alpha() {
        true => image.into_rgba8().into(),
        false => image.into_rgb8().into(),
    };
    let mut png = Cursor::new(Vec::new());
    let written = image.write_to(&mut png, ImageFormat::Png);
    written.map_err(|error| error.to_string())?;
    Ok(png.into_inner())
}

/// Decodes an image. Its first bytes tell the format.
fn decode(bytes: &[u8]) -> ImageResult<DynamicImage> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    // The crate `image` refuses images of more than 512 MiB by itself. Many decoders have no such
    // limit, and this example shows what protects from those.
    reader.no_limits();
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}
