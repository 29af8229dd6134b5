//! Compares futurepool with other thread pools on the same workloads.
//!
//! ```sh
//! # All workloads, in at most ten minutes on two cores:
//! cargo run --release --manifest-path benches/peers/Cargo.toml
//! # A smoke test of at most a minute:
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --quick
//! … -- --workload burst,producers --peer tokio,rayon --json peers.json --svg peers.svg
//! ```
//!
//! # How it measures
//!
//! Each workload runs in its own process. Within the process the participants alternate round by
//! round (A B C A B C …), so a disturbance of the machine affects all alike. `idle`,
//! `ten-thousand` and `map-10-million` start a process for each round of each participant instead.
//! A row of a table shows, for one figure:
//!
//! - the best, the median and the worst of the rounds,
//! - how often the figure of futurepool goes into that of the participant: the median of the ratios
//!   **within each round**, which a machine that changes its speed does not change.
//!
//! The lines below a table say whether futurepool met its goals **in this run**. A goal reads these
//! ratios and medians, and `targets.rs` holds all goals. Compare only ratios within one run, and do
//! not draw conclusions from a single run.
//!
//! # Placement and floors
//!
//! To wake a processor that sleeps takes several times as long as to wake a thread on the waker's
//! own processor. So the scheduler's placement decides a latency more than the code does. The
//! workloads that measure a latency pin all threads instead, on Linux:
//!
//! - *same*: everything on one processor.
//! - *apart*: the workers on one processor; the caller, or the threads of the async runtime, on
//!   another.
//!
//! Elsewhere, or with too few processors, the rows say that they are not pinned. Nothing is compared
//! across placements. Each placement has its own floors, measured in the same rounds:
//!
//! - *floor*: two bare threads that hand a flag back and forth with `park` and `unpark`.
//! - *spinning floor*: the same with a caller that spins. In the hot workload both threads spin.
//! - in the async workloads: a bare thread that calls the waker of the task, parked or spinning
//!   between its calls.
//! - in the grain workloads: two bare threads do the work, and a third works for 0.1 µs a job, as
//!   the thread that awaits the handles does.
//!
//! The program also measures an unpinned floor before and after the workloads, which shows how busy
//! the machine is. On a quiet machine waking a core is expensive, so a pool that spins before it
//! parks gains much.
//!
//! If a peer panics, hangs or kills its process, it fails that workload and the run continues.
//!
//! # What is the same for all pools
//!
//! - The program calls each pool through one trait, with static dispatch and no additional box.
//! - `pollster::block_on` awaits the handles. A round trip uses the pool's fastest way to join.
//! - All workers have started and are idle before the clock starts.
//! - Every workload checks the results of all jobs.
//!
//! `rayon`, `threadpool` and `crossbeam` (hand-written threads around a channel of closures) have
//! no handles. Their adapters use a `oneshot` channel. `affinitypool` starts at most 512 threads,
//! and the table says so where that matters. `blocking` has one pool per process, and an
//! environment variable sets its size.
//!
//! The workload `languages` runs short programs in Python, Java, Go and C++. A row whose compiler or
//! interpreter is missing says so, and stays empty. `BS::thread_pool` takes part if
//! `BS_thread_pool.hpp` is on the include path (`CPLUS_INCLUDE_PATH`).

use std::process::ExitCode;

use futurepool_peers::arguments::THREADS;
use futurepool_peers::program;

fn main() -> ExitCode {
    program::run(&THREADS)
}
