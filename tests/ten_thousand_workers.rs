//! As many workers as few systems allow. A binary of its own: where the system refuses threads, it
//! refuses them to the whole process.

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
mod common;

use common::{Gate, LONG, eventually, within};
use futurepool::ThreadPool;

#[test]
fn ten_thousand_workers_start_block_and_end() {
    within(LONG, "ten thousand workers", || {
        const WORKERS: usize = 10_000;
        let pool = ThreadPool::new(WORKERS);
        let gate = Gate::new();
        let handles: Vec<_> = (0..WORKERS)
            .map(|_| {
                let gate = gate.clone();
                pool.submit(move || gate.wait())
            })
            .collect();
        // Where the system refuses some of the threads, the others must do.
        eventually("all workers that could start are blocked", || {
            let metrics = pool.metrics();
            let all = metrics.workers == WORKERS as u64 || metrics.spawn_failures > 0;
            all && metrics.running == metrics.workers
        });
        gate.open();
        for handle in handles {
            handle.join().unwrap();
        }
        pool.shutdown().join();
        assert_eq!(pool.metrics().workers, 0);
        assert_eq!(pool.metrics().completed, WORKERS as u64);
    });
}
