//! The workloads of worker processes.
//!
//! ```text
//!  mod (the workloads) ──► pool ──► futurepool, procspawn     two pools behind one trait
//!                     ├──► python                             programs that measure themselves
//!                     └──► floor                              bare sockets, a bare program
//! ```

mod floor;
mod futurepool;
mod pool;
mod procspawn;
mod python;
mod statistics;
pub mod tasks;

use std::env;
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use ::futurepool::process::ProcessPool;
use ::procspawn::Pool as Procspawn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::floor::{Buffers, Echo};
use self::pool::{Pool, time};
use self::statistics::{median, p50_and_p99};
use crate::arguments::Suite;
use crate::participant::{Participant, Scale};
use crate::peers::PROCESS_NAMES;
use crate::placement::{self, Placement, pin_caller};
use crate::result::Sample;
use crate::workloads::{DEFAULT, Unit, Workload, figure, nanos_each, sum_below, timed};
use crate::{parent, program};

const SUITE: Suite = Suite {
    about: "Compares futurepool's pool of worker processes with others on the same workloads.",
    own_options: "\x20 --install             install loky and pebble beside this program, with pip, and end\n",
    workloads: &ALL,
    peers: &PROCESS_NAMES,
    prepare: build_programs,
};

pub(crate) const ALL: [&Workload; 7] = [&TRIP_SAME, &TRIP_APART, &BURST, &MAP, &BYTES, &COLD, &END];

const COMMON: Workload = Workload {
    workers: 1,
    program: "processes",
    ..DEFAULT
};

const TRIP_SAME: Workload = Workload {
    name: "process-trip-same",
    about: "2,000 times submit and join of an empty task; all processes on one processor",
    figures: &[figure("p50", Unit::Nanos), figure("p99", Unit::Nanos)],
    participants: trip_participants,
    placement: Placement::Same,
    ..COMMON
};

const TRIP_APART: Workload = Workload {
    name: "process-trip-apart",
    about: "the same; the worker on one processor, all threads of its parent on another",
    placement: Placement::Apart,
    ..TRIP_SAME
};

const BURST: Workload = Workload {
    name: "process-burst",
    about: "a thread submits 20,000 jobs that return their numbers, then waits for all",
    workers: 2,
    figures: &[figure("jobs", Unit::EachSecond)],
    participants: |scale| {
        let mut all = vec![
            one(scale, Worker::Own(2), burst::<ProcessPool>),
            one(scale, Worker::Own(2), burst::<Procspawn>)
                .note("1,000 jobs: each holds 4 descriptors"),
        ];
        all.extend(python::all("burst", scale.of(2_000), 1));
        all
    },
    ..COMMON
};

const MAP: Workload = Workload {
    name: "process-map",
    about: "the sum of 200,000 numbers through map with chunk_size(64)",
    workers: 2,
    figures: &[figure("items", Unit::EachSecond)],
    participants: |scale| {
        let mut all = vec![
            one(scale, Worker::Own(2), map::<ProcessPool>),
            one(scale, Worker::Own(2), map::<Procspawn>).note("12,800 items; chunks by hand"),
        ];
        all.extend(python::all("map", scale.of(20_000), 1));
        all
    },
    ..COMMON
};

const BYTES: Workload = Workload {
    name: "process-bytes",
    about: "64 MiB to a worker and back, median of 3 times; the rate is that of each way",
    figures: &[figure("bytes", Unit::GigabytesEachSecond)],
    participants: |scale| {
        let mut all = vec![
            one(scale, Worker::Own(1), bytes::<ProcessPool>).note("futurepool::Bytes"),
            one(scale, Worker::Own(1), bytes::<Procspawn>).note("serde_bytes::ByteBuf"),
        ];
        all.extend(python::all("bytes", LENGTH as u64, 1));
        for (name, buffers) in [
            ("bare socket", Buffers::Kept),
            ("socket (new buffers)", Buffers::New),
        ] {
            let figures = |times| vec![nanos_a_byte(median(times))];
            all.push(echo(name, LENGTH, buffers, bytes_trips(scale), figures));
        }
        all
    },
    ..COMMON
};

const COLD: Workload = Workload {
    name: "process-cold",
    about: "from the start of a pool with one worker, a small program, to the first result; median of 20",
    figures: &[figure("first result", Unit::Nanos)],
    participants: |scale| {
        let starts = scale.of(20);
        let mut all = vec![
            Participant::new(ProcessPool::NAME, move || cold::<ProcessPool>(starts)),
            Participant::new(Procspawn::NAME, move || cold::<Procspawn>(starts))
                .note("a worker is this program, which is larger"),
        ];
        all.extend(python::all("cold", starts, 1));
        all.push(Participant::new("empty program", move || {
            let start = |_| floor::spawn_and_wait().expect("the program starts");
            vec![median((0..starts).map(start).collect())]
        }));
        all
    },
    ..COMMON
};

const END: Workload = Workload {
    name: "process-end",
    about: "a running job is cancelled, exceeds its limit of 50 ms, or crashes; median of 10",
    figures: &[
        figure("cancel", Unit::Nanos),
        figure("cancel, next job", Unit::Nanos),
        figure("overshoot", Unit::Nanos),
        figure("crash, next job", Unit::Nanos),
    ],
    participants: |scale| {
        let mut all = vec![
            one(scale, Worker::Small, ends::<ProcessPool>),
            one(scale, Worker::Small, ends::<Procspawn>)
                .note("a worker is this program, which is larger"),
        ];
        all.extend(python::all("end", scale.of(10), 4));
        all
    },
    ..COMMON
};

/// The time limit that a job exceeds.
const LIMIT: Duration = Duration::from_millis(50);

fn trip_participants(scale: Scale) -> Vec<Participant> {
    let mut all = vec![
        one(scale, Worker::Own(1), trips::<ProcessPool>),
        one(scale, Worker::Own(1), trips::<Procspawn>),
    ];
    all.extend(python::all("trip", scale.of(500), 2));
    let trips = scale.of(2_000);
    all.push(echo("floor", 1, Buffers::Kept, trips, p50_and_p99));
    all
}

/// The workers of a pool.
#[derive(Clone, Copy)]
enum Worker {
    /// As many workers as this, of this program.
    Own(usize),
    /// A worker of the small program.
    Small,
}

/// Returns a participant whose rounds share one pool.
fn one<P: Pool>(scale: Scale, workers: Worker, run: fn(&P, Scale) -> Sample) -> Participant {
    let shared = OnceLock::new();
    Participant::new(P::NAME, move || {
        let pool = shared.get_or_init(|| start::<P>(workers));
        pin_caller();
        run(pool, scale)
    })
}

/// Starts a pool and all its workers. Pins them if the workload pins workers and callers apart.
fn start<P: Pool>(workers: Worker) -> P {
    let (pool, workers) = match workers {
        Worker::Own(workers) => (P::new(workers), workers),
        Worker::Small => (P::small(), 1),
    };
    pool.start_workers(workers);
    for _ in 0..100 {
        pool.empty();
    }
    if let Some((_, worker)) = placement::apart() {
        pool.pin(worker);
        placement::pin_other_threads();
    }
    pool
}

fn trips<P: Pool>(pool: &P, scale: Scale) -> Sample {
    let trips = 0..scale.of(2_000_u64);
    p50_and_p99(trips.map(|_| time(|| pool.empty())).collect())
}

fn burst<P: Pool>(pool: &P, scale: Scale) -> Sample {
    let jobs = scale.of(P::BURST);
    let (elapsed, sum) = timed(|| pool.burst(jobs));
    assert_eq!(sum, sum_below(jobs));
    vec![nanos_each(elapsed, jobs)]
}

fn map<P: Pool>(pool: &P, scale: Scale) -> Sample {
    let items = scale.of(P::ITEMS);
    let (elapsed, sum) = timed(|| pool.map_numbers(items));
    assert_eq!(sum, sum_below(items));
    vec![nanos_each(elapsed, items)]
}

/// How many bytes are sent there and back, with `--quick` too: fewer would stay in the caches.
const LENGTH: usize = 64 << 20;

fn bytes_trips(scale: Scale) -> usize {
    if scale.quick { 1 } else { 3 }
}

fn bytes<P: Pool>(pool: &P, scale: Scale) -> Sample {
    let there = P::bytes(LENGTH);
    let trips = (0..bytes_trips(scale)).map(|_| {
        let copy = there.clone();
        let (elapsed, back) = timed(|| pool.echo(copy));
        assert!(P::same(&there, &back));
        elapsed
    });
    vec![nanos_a_byte(median(trips.collect()))]
}

/// Returns the nanoseconds that a byte takes each way.
fn nanos_a_byte(trip: Option<f64>) -> Option<f64> {
    trip.map(|nanos| nanos / (2 * LENGTH) as f64)
}

fn cold<P: Pool>(starts: u64) -> Sample {
    let start = |_| {
        let (elapsed, pool) = timed(|| {
            let pool = P::small();
            pool.empty();
            pool
        });
        drop(pool);
        elapsed
    };
    vec![median((0..starts).map(start).collect())]
}

fn ends<P: Pool>(pool: &P, scale: Scale) -> Sample {
    let repeats = scale.of(10);
    let repeat = |end: &dyn Fn() -> Duration| median((0..repeats).map(|_| end()).collect());
    let (cancels, next): (Vec<_>, Vec<_>) = (0..repeats).map(|_| pool.cancel()).unzip();
    vec![
        median(cancels),
        median(next),
        repeat(&|| pool.overshoot(LIMIT)),
        repeat(&|| pool.crash()),
    ]
}

/// Returns the floor of `len` bytes there and back, `trips` times a round.
fn echo(
    name: &str,
    len: usize,
    buffers: Buffers,
    trips: usize,
    figures: fn(Vec<Duration>) -> Sample,
) -> Participant {
    let shared = Mutex::new(None);
    Participant::new(name, move || {
        let mut shared = shared.lock().expect("no round panicked");
        let start = || Echo::start(len, buffers).expect("the program starts");
        let echo = shared.get_or_insert_with(start);
        pin_caller();
        let mut trip = || echo.trip().expect("the other end answers");
        trip(); // warms up
        figures((0..trips).map(|_| trip()).collect())
    })
}

/// Runs the program `processes`.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(floor::ECHO) => report(floor::echo(&arguments[1..]).map_err(|e| e.to_string())),
        Some("--install") => report(python::install()),
        _ => {
            set_limits();
            program::run(&SUITE)
        }
    }
}

fn report(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("processes: {error}");
            ExitCode::from(2)
        }
    }
}

/// Builds the small programs, which `cargo run` leaves out.
fn build_programs() -> Result<(), String> {
    for name in ["process-worker", "process-empty"] {
        let built = parent::program(name).map_err(|error| error.to_string())?;
        if !built.exists() {
            return Err(format!("{} is missing", built.display()));
        }
    }
    Ok(())
}

/// Sets the limits, which children and workers inherit.
fn set_limits() {
    // A crash must not wait until the system has written a core dump.
    limit(Resource::Core, Some(0));
    // procspawn needs descriptors for each job.
    limit(Resource::Nofile, getrlimit(Resource::Nofile).maximum);
}

fn limit(resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    if let Err(error) = setrlimit(resource, Rlimit { current, maximum }) {
        eprintln!("processes: {resource:?} stays as it is: {error}");
    }
}
