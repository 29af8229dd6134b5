//! Draws images: gradients, noise, shapes, waves, from random numbers.

use image::{DynamicImage, Rgba, RgbaImage};

use super::Random;

/// Draws an image. Returns what it shows, too.
pub(super) fn draw(random: &mut Random) -> (&'static str, DynamicImage) {
    // Small images are more frequent than large ones.
    let mut side = || {
        let most = 40 + random.below(900);
        24 + random.below(most)
    };
    let (width, height) = (side(), side());
    let (what, image) = match random.below(4) {
        0 => ("gradient", gradient(random, width, height)),
        1 => ("noise", noise(random, width, height)),
        2 => ("shapes", shapes(random, width, height)),
        _ => ("waves", waves(random, width, height)),
    };
    let image = DynamicImage::from(image);
    let image = match random.below(4) {
        0 => image.into_luma8().into(),
        1 => image,
        _ => image.into_rgb8().into(),
    };
    (what, image)
}

fn color(random: &mut Random) -> [u8; 4] {
    let [red, green, blue, alpha, ..] = random.next().to_le_bytes();
    [red, green, blue, alpha | 0x80]
}

/// Mixes two colours: `part` of `b`, from 0 to 1, and the rest of `a`.
fn mix(a: [u8; 4], b: [u8; 4], part: f32) -> Rgba<u8> {
    let channel = |n: usize| f32::from(a[n]) * (1.0 - part) + f32::from(b[n]) * part;
    Rgba([0, 1, 2, 3].map(|n| channel(n) as u8))
}

fn gradient(random: &mut Random, width: u32, height: u32) -> RgbaImage {
    let (from, to) = (color(random), color(random));
    let tilt = random.below(100) as f32 / 100.0;
    RgbaImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
        mix(from, to, x * tilt + y * (1.0 - tilt))
    })
}

fn noise(random: &mut Random, width: u32, height: u32) -> RgbaImage {
    // Grains of several sizes, so that not every file is as large as noise can be.
    let grain = 1 + random.below(12);
    let columns = width.div_ceil(grain);
    let grains = columns * height.div_ceil(grain);
    let grains: Vec<_> = (0..grains).map(|_| Rgba(color(random))).collect();
    RgbaImage::from_fn(width, height, |x, y| {
        grains[(y / grain * columns + x / grain) as usize]
    })
}

fn shapes(random: &mut Random, width: u32, height: u32) -> RgbaImage {
    let mut image = RgbaImage::from_pixel(width, height, Rgba(color(random)));
    for _ in 0..3 + random.below(12) {
        let (middle_x, middle_y) = (random.below(width), random.below(height));
        let radius = 4 + random.below(width.min(height) / 3);
        let (color, is_round) = (Rgba(color(random)), random.below(2) == 0);
        for y in middle_y.saturating_sub(radius)..height.min(middle_y + radius) {
            for x in middle_x.saturating_sub(radius)..width.min(middle_x + radius) {
                let (x_off, y_off) = (x.abs_diff(middle_x), y.abs_diff(middle_y));
                if !is_round || x_off * x_off + y_off * y_off < radius * radius {
                    image.put_pixel(x, y, color);
                }
            }
        }
    }
    image
}

fn waves(random: &mut Random, width: u32, height: u32) -> RgbaImage {
    let (from, to) = (color(random), color(random));
    let mut length = || 4.0 + random.below(60) as f32;
    let (across, down, diagonal) = (length(), length(), length());
    RgbaImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as f32, y as f32);
        let sum = (x / across).sin() + (y / down).sin() + ((x + y) / diagonal).sin();
        mix(from, to, (sum + 3.0) / 6.0)
    })
}
