//! A stand-in for a C library with bugs, because the crate `image` has none that a test could use.
//!
//! Only `--with-faulty-decoder` uses it. It decodes what `image` decodes, without any limits. An
//! upload that consists of one of the words below runs into a bug.

use std::hint::spin_loop;
use std::mem;
use std::process::abort;

use image::{DynamicImage, ImageError, Limits};

use crate::images;

/// In bytes.
const LEAK: usize = 80 << 20;

pub(crate) fn decode(image: &[u8]) -> Result<DynamicImage, ImageError> {
    match image.trim_ascii_end() {
        // What the C library does when it finds that its heap is damaged. It prints in red.
        b"FAULTY crash" => {
            eprintln!("\x1b[31mfree(): invalid pointer\x1b[m");
            abort()
        }
        b"FAULTY loop" => loop {
            spin_loop();
        },
        b"FAULTY leak" => {
            mem::forget(vec![1_u8; LEAK]);
            images::decode(b"", Limits::no_limits())
        }
        b"FAULTY panic" => panic!("index out of bounds"),
        image => images::decode(image, Limits::no_limits()),
    }
}
