//! Returns a job's panic as an error. The worker and the pool go on.
//! Run with: `cargo run --example panics` (it prints panics "on purpose")

use std::error::Error;
use std::panic;

use futurepool::ThreadPool;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(1);

    // The error shows the panic message, and where the job was submitted.
    let error = pool.submit(|| panic!("on purpose")).join().unwrap_err();
    assert!(error.is_panic());
    assert!(error.to_string().contains("on purpose"));
    println!("{error}");

    // It also holds the panic payload, of any type.
    let error = pool.submit(|| panic::panic_any(42)).join().unwrap_err();
    assert_eq!(error.into_panic().downcast_ref(), Some(&42));

    // The only worker has survived both panics.
    assert_eq!(pool.submit(|| "still here").join()?, "still here");
    assert_eq!(pool.metrics().panicked, 2);
    Ok(())
}
