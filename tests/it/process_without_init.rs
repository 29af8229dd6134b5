//! Worker processes in a program that has not called `process::init`: this test binary.

use std::error::Error;

use futurepool::{BuildError, ProcessPool};

#[test]
fn promise_18_a_program_without_init_gets_its_error_from_build() {
    let build = |builder: futurepool::ProcessPoolBuilder| -> BuildError {
        builder
            .build()
            .expect_err("its workers would run all tests again")
    };
    for error in [
        build(ProcessPool::builder()),
        build(ProcessPool::builder().max_workers(4).prestart(4)),
    ] {
        assert_eq!(error.field(), "program");
        let text = error.to_string();
        for way in ["process::init()", "test_init!", "`program`"] {
            assert!(text.contains(way), "{way} is not in: {text}");
        }
        assert!(error.source().is_none());
    }
    // Another program may be a worker. Nothing is started yet.
    let builder = ProcessPool::builder().program("/no/such/program");
    drop(builder.build().unwrap());
}
