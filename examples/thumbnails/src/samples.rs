//! Makes the input: a folder of real images, and of hostile files. The same seed makes the same
//! files.

mod drawing;
mod hostile;

use std::fs;
use std::io::{self, Cursor};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageFormat, ImageResult};

use self::drawing::draw;
use crate::legacy;

/// What `make-samples` makes.
pub(crate) struct Samples {
    pub(crate) images: u32,
    pub(crate) hostile: u32,
    pub(crate) seed: u64,
}

impl Samples {
    /// Makes the files, on all processors.
    pub(crate) fn make(&self, folder: &Path) -> io::Result<()> {
        let (folder, seed) = (folder.to_owned(), self.seed);
        let images = (0..self.images).map(File::Image);
        let hostile = (0..self.hostile).map(File::Hostile);
        let make = move |file: File| {
            let (name, bytes) = file.make(seed)?;
            let path = folder.join(name);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&path, bytes).map_err(|error| in_file(&path, &error))
        };
        for result in futurepool::global().map(images.chain(hostile), make) {
            result??;
        }
        Ok(())
    }
}

/// Adds the path to the text of an error.
pub(crate) fn in_file(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A file to make, and its number among those of its kind.
#[derive(Clone, Copy)]
enum File {
    Image(u32),
    Hostile(u32),
}

impl File {
    fn make(self, seed: u64) -> io::Result<(String, Vec<u8>)> {
        match self {
            Self::Image(number) => {
                let mut random = Random::new(seed, number);
                let kind = Kind::ALL[number as usize % Kind::ALL.len()];
                let (what, image) = draw(&mut random);
                let bytes = kind.encode(image).map_err(io::Error::other)?;
                let extension = kind.extension();
                let name = format!("images/{:02}/{number:04}-{what}.{extension}", number / 50);
                Ok((name, bytes))
            }
            // The seeds of images and of hostile files differ.
            Self::Hostile(number) => Ok(hostile::make(number, &mut Random::new(!seed, number))),
        }
    }
}

/// The formats of the images.
#[derive(Clone, Copy)]
enum Kind {
    Bmp,
    Gif,
    Jpeg,
    Png,
    Rle,
    Tiff,
    WebP,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Png,
        Self::Jpeg,
        Self::Gif,
        Self::WebP,
        Self::Bmp,
        Self::Tiff,
        Self::Rle,
    ];

    fn extension(self) -> &'static str {
        match self {
            Self::Bmp => "bmp",
            Self::Gif => "gif",
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Rle => "rle",
            Self::Tiff => "tif",
            Self::WebP => "webp",
        }
    }

    fn encode(self, image: DynamicImage) -> ImageResult<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        match self {
            Self::Rle => return Ok(legacy::encode(&image.into_luma8())),
            Self::Jpeg => {
                let encoder = JpegEncoder::new_with_quality(&mut bytes, 80);
                image.to_rgb8().write_with_encoder(encoder)?;
            }
            Self::Gif => image.to_rgba8().write_to(&mut bytes, ImageFormat::Gif)?,
            Self::Bmp => image.write_to(&mut bytes, ImageFormat::Bmp)?,
            Self::Png => image.write_to(&mut bytes, ImageFormat::Png)?,
            Self::Tiff => image.write_to(&mut bytes, ImageFormat::Tiff)?,
            Self::WebP => image.write_to(&mut bytes, ImageFormat::WebP)?,
        }
        Ok(bytes.into_inner())
    }
}

/// A small generator of random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn new(seed: u64, number: u32) -> Self {
        let mut mixed = Self(seed ^ (u64::from(number) << 32));
        Self(mixed.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`.
    fn below(&mut self, end: u32) -> u32 {
        (((self.next() >> 32) * u64::from(end)) >> 32) as u32
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}
