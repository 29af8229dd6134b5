//! Whatever arrives, the frame reader finds the same frames however the stream is cut, takes no
//! memory for what does not arrive, and never panics.
//!
//! `cargo +nightly fuzz run frames -- -max_total_time=60`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| futurepool::__fuzz::frames(data));
