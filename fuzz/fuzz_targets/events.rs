//! Whatever a worker process sends as a `tracing` event is an event or an error.
//!
//! `cargo +nightly fuzz run events -- -max_total_time=60`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| futurepool::__fuzz::events(data));
