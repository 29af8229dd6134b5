//! Makes the hostile files. The folder of a file tells how it fails.

use flate2::{Compress, Compression, FlushCompress};

use super::drawing::draw;
use super::{Kind, Random};
use crate::legacy;

type Maker = fn(&mut Random) -> Vec<u8>;

/// The folder, the name and the maker of each kind of hostile file, in the order of their numbers.
const MAKERS: [(&str, &str, Maker); 19] = [
    ("crashes", "nested.rle", nested),
    ("crashes", "assertion.rle", assertion),
    ("crashes", "exit.rle", exit),
    ("loops", "jump.rle", jump),
    ("loops", "repeat.rle", repeat),
    ("panics", "overrun.rle", overrun),
    ("bombs", "gray.png", gray),
    ("bombs", "palette.png", palette),
    ("bombs", "canvas.gif", canvas),
    ("bombs", "comment.rle", comment),
    ("broken", "truncated.png", |random| {
        truncated(random, Kind::Png)
    }),
    ("broken", "truncated.jpg", |random| {
        truncated(random, Kind::Jpeg)
    }),
    ("broken", "truncated.gif", |random| {
        truncated(random, Kind::Gif)
    }),
    ("broken", "truncated.webp", |random| {
        truncated(random, Kind::WebP)
    }),
    ("broken", "truncated.bmp", |random| {
        truncated(random, Kind::Bmp)
    }),
    ("broken", "truncated.tif", |random| {
        truncated(random, Kind::Tiff)
    }),
    ("broken", "damaged.png", damaged),
    ("broken", "empty.jpg", |_| Vec::new()),
    ("broken", "page.gif", |_| {
        b"<html>404 Not Found</html>".to_vec()
    }),
];

/// Returns the name and the bytes of a hostile file.
pub(super) fn make(number: u32, random: &mut Random) -> (String, Vec<u8>) {
    let (folder, name, make) = MAKERS[number as usize % MAKERS.len()];
    let name = format!("hostile/{folder}/{number:04}-{name}");
    (name, make(random))
}

/// Groups inside groups: the stack overflows.
fn nested(random: &mut Random) -> Vec<u8> {
    let depth = 1_000_000 + random.below(100_000) as usize;
    legacy::file(1, 1, &[b'G', 1].repeat(depth))
}

/// A checksum that is wrong: the decoder aborts.
fn assertion(random: &mut Random) -> Vec<u8> {
    let mut file = Kind::Rle.encode(draw(random).1).expect("it has pixels");
    let last = file.len() - 1;
    file[last] ^= 0x80;
    file
}

/// An unknown version: the decoder exits.
fn exit(random: &mut Random) -> Vec<u8> {
    vec![b'R', b'L', b'E', b'2' + random.below(8) as u8]
}

/// A jump to itself: the decoder loops.
fn jump(_: &mut Random) -> Vec<u8> {
    const BODY: u32 = 10;
    let offset = BODY.to_be_bytes();
    legacy::file(1, 1, &[&b"J"[..], &offset].concat())
}

/// Groups that repeat groups that repeat groups: the decoder would end in many years.
fn repeat(random: &mut Random) -> Vec<u8> {
    let depth = 12 + random.below(8) as usize;
    let body = [[b'G', 255].repeat(depth), vec![b'E'; depth + 1]];
    legacy::file(1, 1, &body.concat())
}

/// More pixels than the image has: the decoder panics.
fn overrun(random: &mut Random) -> Vec<u8> {
    let side = 1 + random.below(100) as u16;
    legacy::file(side, side, &legacy::chunk_run(side * side + 1, 0x80))
}

/// A comment of 4 GiB, of which the file has nothing.
fn comment(random: &mut Random) -> Vec<u8> {
    let length = u32::MAX - random.below(1_000);
    legacy::file(1, 1, &[&b"C"[..], &length.to_be_bytes()].concat())
}

/// A PNG of 600 KB that decodes to 4.9 GB: each bit becomes a byte.
fn gray(random: &mut Random) -> Vec<u8> {
    png(70_000 + random.below(100), 0, &[])
}

/// A PNG of 200 KB that decodes to 4.8 GB: each bit becomes three bytes.
fn palette(random: &mut Random) -> Vec<u8> {
    png(40_000 + random.below(100), 3, &[random.byte(), 80, 160])
}

/// Returns a square PNG with one bit a pixel, all of them 0.
fn png(side: u32, color_type: u8, palette: &[u8]) -> Vec<u8> {
    let sides = [side.to_be_bytes(), side.to_be_bytes()].concat();
    let header = [&sides[..], &[1, color_type, 0, 0, 0]].concat();
    // A row is a filter type, and eight pixels a byte.
    let data = zeros(u64::from(side) * (1 + u64::from(side.div_ceil(8))));
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let chunks = [
        (b"IHDR", &header[..]),
        (b"PLTE", palette),
        (b"IDAT", &data),
        (b"IEND", &[]),
    ];
    for (name, data) in chunks {
        if name != b"PLTE" || !data.is_empty() {
            let content = [&name[..], data].concat();
            file.extend((data.len() as u32).to_be_bytes());
            file.extend(&content);
            file.extend(crc32fast::hash(&content).to_be_bytes());
        }
    }
    file
}

/// Returns a zlib stream of at least `count` zeros, without compressing each of them.
fn zeros(count: u64) -> Vec<u8> {
    const BLOCK: usize = 1 << 22;
    let mut block = Vec::with_capacity(BLOCK);
    let mut compress = Compress::new(Compression::best(), false);
    let written = compress.compress_vec(&vec![0; BLOCK], &mut block, FlushCompress::Full);
    written.expect("the compressor is new");
    // After a full flush the next block starts at a byte and refers to nothing before it. So the
    // same block can follow again.
    let blocks = count.div_ceil(BLOCK as u64);
    let mut stream = vec![0x78, 0xda];
    stream.extend(block.repeat(blocks as usize));
    stream.extend([1, 0, 0, 0xff, 0xff]); // the last block, which is empty
    // Adler-32: the low half is 1 plus the sum of the bytes. The high half is the sum of all low
    // halves.
    let adler = ((blocks * BLOCK as u64 % 65_521) as u32) << 16 | 1;
    stream.extend(adler.to_be_bytes());
    stream
}

/// A GIF of 40 bytes that decodes to 17 GB: one pixel on the largest canvas there is.
fn canvas(random: &mut Random) -> Vec<u8> {
    let mut file = b"GIF89a".to_vec();
    file.extend([0xff, 0xff, 0xff, 0xff]); // width and height
    file.extend([0x80, 0, 0]); // a palette of two colours
    file.extend([0, 0, 0, random.byte(), 255, 255]);
    file.extend([0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0]); // a frame of one pixel
    file.extend([2, 2, 0x44, 1, 0]); // its data
    file.push(0x3b);
    file
}

/// The first half of an image.
fn truncated(random: &mut Random, kind: Kind) -> Vec<u8> {
    let mut file = kind.encode(draw(random).1).expect("it can be encoded");
    file.truncate(match kind {
        // Of half a JPEG, the decoder shows half. So this is half of its header.
        Kind::Jpeg => 300,
        _ => file.len() / 2,
    });
    file
}

/// An image with one wrong byte.
fn damaged(random: &mut Random) -> Vec<u8> {
    let mut file = Kind::Png.encode(draw(random).1).expect("it can be encoded");
    let middle = file.len() / 2;
    file[middle] ^= 0xff;
    file
}
