//! What jobs carry, and what comes back.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::{panic, thread};

use futurepool::JoinError;

use crate::count::{Count, count};
use crate::random::mix;

/// How many values of type [`Cargo`] there are.
pub(crate) static LIVE: AtomicI64 = AtomicI64::new(0);

/// The payload of every panic that is meant to be, with the seed of the job.
pub(crate) struct Fault(pub(crate) u64);

/// What closures capture and results hold. The destructor of a bomb panics.
pub(crate) struct Cargo {
    bomb: bool,
}

impl Cargo {
    pub(crate) fn new(bomb: bool) -> Self {
        LIVE.fetch_add(1, SeqCst);
        Self { bomb }
    }

    /// By value, or a closure would capture the flag alone.
    pub(crate) fn disarm(mut self) {
        self.bomb = false;
    }
}

impl Drop for Cargo {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, SeqCst);
        if self.bomb && !thread::panicking() {
            count(Count::Bombs);
            panic::panic_any(Fault(0));
        }
    }
}

/// The result of a job.
pub(crate) struct Parcel {
    pub(crate) seed: u64,
    number: u64,
    _cargo: Cargo,
}

impl Parcel {
    pub(crate) fn new(seed: u64, bomb: bool) -> Self {
        let (number, _cargo) = (mix(seed), Cargo::new(bomb));
        Self {
            seed,
            number,
            _cargo,
        }
    }
}

/// The seed of the job that returned or panicked.
pub(crate) fn open(outcome: Result<Parcel, JoinError>) -> u64 {
    match outcome {
        Ok(parcel) => {
            assert_eq!(parcel.number, mix(parcel.seed), "not what the job made");
            parcel.seed
        }
        Err(error) => match error.into_panic().downcast::<Fault>() {
            Ok(fault) => fault.0,
            Err(_) => panic!("not the payload that was thrown"),
        },
    }
}
