//! The submitter against a worker that does what a test says, under a paused clock.

mod bench;
mod broken;
mod cancel;
mod detached;
mod holders;
mod life;
mod reconnect;
mod unknown;
mod window;
