//! Runs jobs inside the `tracing` span that was current at their submit.
//! Run with: `cargo run --example spans`

use std::error::Error;

use futurepool::ThreadPool;
use tracing::{Span, info, info_span};

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let pool = ThreadPool::new(2);

    for id in 1..=3 {
        let request = info_span!("request", id);
        let handle = request.in_scope(|| {
            pool.submit(|| {
                info!("runs in a worker"); // the log line shows the span: request{id=1}
                Span::current()
            })
        });
        assert_eq!(handle.join()?, request);
    }

    // The worker has left the span.
    let handle = pool.submit(Span::current);
    assert!(handle.join()?.is_none());
    Ok(())
}
