//! The submitter against a worker that does what a test says, under a paused clock.

mod bench;
mod broken;
mod life;
